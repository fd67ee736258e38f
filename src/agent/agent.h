/*
 * agent.h
 *	  tasker-agent, a program of its own beside the server: libpq and nothing of
 *	  the rooms.
 *
 * main.c reads the command line and knows the subcommands; each has a file of
 * its own.  Without one, run.c runs the roles of role.h, as settings.h says.
 * db.c is how all of them reach the database, base.c what all of them use.
 */
#ifndef TASKER_AGENT_H
#define TASKER_AGENT_H

#include <stdbool.h>
#include <stddef.h>

#include <libpq-fe.h>

/* What the program's exit status says. */
enum
{
	EXIT_OK = 0,
	EXIT_FAILED = 1,			/* and nothing was changed */
	EXIT_USAGE = 2
};

/* base.c */
extern void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
extern void *allocate(size_t size);
extern char *text_copy(const char *text);
extern char *text_format(const char *format, ...) __attribute__((format(printf, 1, 2)));
extern long long clock_ms(void);
extern int	waker_open(void);
extern void waker_call(int waker);
extern void waker_clear(int waker);

/* db.c */
extern PGconn *db_connect(const char *conninfo);
extern PGconn *db_open(const char *conninfo, char **why);
extern const char db_ask_pid[];
extern bool db_shows_pooler(const PGconn *connection, const PGresult *row);
extern bool db_is_pooled(PGconn *connection);
extern long backoff_ms(int failures);
extern void db_notices_about(PGconn *connection, char *about);
extern void db_ignore_notices(PGconn *connection);
extern PGresult *db_query(PGconn *connection, const char *sql, int count,
						  const char *const *values);
extern bool db_is(const PGresult *result, const char *sqlstate);
extern void db_complain(const PGresult *result, const char *about);
extern bool db_run(PGconn *connection, const char *sql);

/* apply.c */
typedef struct ApplyOptions
{
	const char *directory;
	const char *database;		/* NULL: libpq's environment says */
	const char *environment;	/* NULL: the setting decides at creation */
	bool		dry_run;
	bool		no_replace;
	bool		lint;
} ApplyOptions;

extern int	apply(const ApplyOptions *options);

#endif							/* TASKER_AGENT_H */
