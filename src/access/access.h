/*
 * access.h
 *	  Who calls, and what that role may do.
 */
#ifndef TASKER_ACCESS_H
#define TASKER_ACCESS_H

#include "postgres.h"

#define EVERY_NAMESPACE	"*"

/*
 * The role on whose behalf a function of the extension works: who called the
 * public function through which it was reached, else the current user.
 */
extern Oid	access_caller(void);

/* Whether access is enforced at all. */
extern bool access_is_enforced(void);

/*
 * Whether the role may do what is asked for in a namespace.  NULL: in any
 * namespace; EVERY_NAMESPACE: in all of them.
 */
extern bool access_role_may(Oid role, const char *permission, const char *namespace);

#endif							/* TASKER_ACCESS_H */
