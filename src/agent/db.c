/*
 * db.c
 *	  The connection to the database, and what its errors look like to people.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent.h"

static void
print_field(const PGresult *result, int field, const char *label)
{
	const char *text = PQresultErrorField(result, field);

	if (text != NULL)
		fprintf(stderr, "%s: %s\n", label, text);
}

static void
print_notice(void *about, const PGresult *result)
{
	if (about != NULL)
		fprintf(stderr, "%s: ", (const char *) about);
	fprintf(stderr, "%s: %s\n", PQresultErrorField(result, PG_DIAG_SEVERITY),
			PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY));
	print_field(result, PG_DIAG_MESSAGE_DETAIL, "DETAIL");
	print_field(result, PG_DIAG_MESSAGE_HINT, "HINT");
}

/*
 * A connection that speaks UTF-8, or NULL, and why not, to be freed.
 */
PGconn *
db_open(const char *conninfo, char **why)
{
	const char *keywords[] = {"dbname", "fallback_application_name", "client_encoding", NULL};
	const char *values[] = {conninfo, "tasker-agent", "UTF8", NULL};
	PGconn	   *connection = PQconnectdbParams(keywords, values, 1);

	if (PQstatus(connection) != CONNECTION_OK)
	{
		*why = text_copy(PQerrorMessage(connection));
		(*why)[strcspn(*why, "\n")] = '\0';
		PQfinish(connection);
		return NULL;
	}
	return connection;
}

/*
 * The same for a subcommand: says why not.
 */
PGconn *
db_connect(const char *conninfo)
{
	char	   *why;
	PGconn	   *connection = db_open(conninfo, &why);

	if (connection == NULL)
	{
		complain("could not connect: %s", why);
		free(why);
		return NULL;
	}
	db_notices_about(connection, NULL);
	return connection;
}

/*
 * Whether a pooler stands between: it makes up the pid that it tells its clients,
 * as it may give each of their transactions another server session.  So nothing
 * may be left behind in one.  The row is the answer to db_ask_pid.
 */
const char	db_ask_pid[] = "SELECT pg_catalog.pg_backend_pid()::text";

bool
db_shows_pooler(const PGconn *connection, const PGresult *row)
{
	return PQresultStatus(row) != PGRES_TUPLES_OK ||
		strtol(PQgetvalue(row, 0, 0), NULL, 10) != PQbackendPID(connection);
}

/*
 * The same, asked at once.
 */
bool
db_is_pooled(PGconn *connection)
{
	PGresult   *row = PQexec(connection, db_ask_pid);
	bool		is_pooled = db_shows_pooler(connection, row);

	PQclear(row);
	return is_pooled;
}

/*
 * How long to wait after so many failures in a row: from 0.1 s on, twice as long
 * each time up to 10 s, and not all at the same moment.
 */
long
backoff_ms(int failures)
{
	long		most = 10000;
	long		delay = failures >= 7 ? most : 100L << (failures > 0 ? failures - 1 : 0);
	unsigned short seed[3];

	if (getentropy(seed, sizeof(seed)) != 0)
		return delay;
	return delay - (long) (erand48(seed) * (double) delay / 4);
}

/*
 * Notices are printed as being about that, which must live on.
 */
void
db_notices_about(PGconn *connection, char *about)
{
	PQsetNoticeReceiver(connection, print_notice, about);
}

static void
ignore_notice(void *about, const PGresult *result)
{
}

/*
 * A role of the agent has nobody to show notices to.
 */
void
db_ignore_notices(PGconn *connection)
{
	PQsetNoticeReceiver(connection, ignore_notice, NULL);
}

/*
 * Runs a statement with text values.
 */
PGresult *
db_query(PGconn *connection, const char *sql, int count, const char *const *values)
{
	return PQexecParams(connection, sql, count, NULL, values, NULL, NULL, 0);
}

/*
 * Whether a statement failed with that code.
 */
bool
db_is(const PGresult *result, const char *sqlstate)
{
	const char *own = PQresultErrorField(result, PG_DIAG_SQLSTATE);

	return own != NULL && strcmp(own, sqlstate) == 0;
}

/*
 * The error of a statement, whole; about may be NULL.
 */
void
db_complain(const PGresult *result, const char *about)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);

	if (about != NULL)
		fprintf(stderr, "%s: ", about);
	if (sqlstate == NULL)
	{
		fprintf(stderr, "ERROR: %s", PQresultErrorMessage(result));
		return;
	}
	fprintf(stderr, "ERROR %s: %s\n", sqlstate, message);
	print_field(result, PG_DIAG_MESSAGE_DETAIL, "DETAIL");
	print_field(result, PG_DIAG_MESSAGE_HINT, "HINT");
}

/*
 * Runs a statement whose rows nobody wants; false where it failed, and it was
 * said how.
 */
bool
db_run(PGconn *connection, const char *sql)
{
	PGresult   *result = PQexec(connection, sql);
	bool		done = PQresultStatus(result) == PGRES_COMMAND_OK ||
		PQresultStatus(result) == PGRES_TUPLES_OK;

	if (!done)
		db_complain(result, NULL);
	PQclear(result);
	return done;
}
