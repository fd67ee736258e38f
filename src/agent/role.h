/*
 * role.h
 *	  What a copy of tasker-agent can do at the same time as others: its roles.
 *
 * run.c starts them, and calls everything here in the main thread.  A role has
 * threads of its own, and a connection to the database belongs to one thread.
 */
#ifndef TASKER_AGENT_ROLE_H
#define TASKER_AGENT_ROLE_H

#include <stdbool.h>

typedef struct Role
{
	const char *name;			/* as the setting "roles" has it */
	bool		(*start) (void);	/* returns at once; false, and it was said why */
	bool		(*is_ready) (void); /* has all it needs, the database included */
	const char *(*address) (void);	/* where it can be reached; NULL: nowhere */
	void		(*reload) (void);	/* settings may have changed */
	void		(*drain) (void);	/* takes nothing new from now on */
	bool		(*is_idle) (void);	/* and nothing is under way */
	void		(*stop) (void); /* ends its threads, whatever is under way */
} Role;

extern const Role http_role;
extern const Role rest_role;

/* run.c: has the main thread ask again who is ready or idle; from any thread. */
extern void run_wake(void);

/* Runs the roles of the settings until a signal ends it; an exit status. */
extern int	run_roles(void);

#endif							/* TASKER_AGENT_ROLE_H */
