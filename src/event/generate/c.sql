-- Text of a subscriber in C; see python.sql.

CREATE FUNCTION tasker._subscriber_in_c()
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
    SELECT $program$/*
 * {{name}}: a subscriber of tasker, in C.
 *
 *     cc -I$(pg_config --includedir) -o {{name}} {{name}}.c -lpq
 *     {{name}} [--once] [CONNINFO]
 *
 * It connects to CONNINFO, or to what PGHOST, PGDATABASE and so on say, catches
 * up with the events since it last ran, and then waits for more.  --once: it
 * ends when it has caught up.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <libpq-fe.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SUBSCRIBER {{subscriber}}
#define EVENTS {{events}}
#define CHANNEL {{channel}}

enum
{
	POLL = 30000				/* milliseconds; for the notification that was missed */
};

/* The server takes the payload apart: a row for each key of each event. */
#define SUBSCRIBE "SELECT tasker.subscribe($1, $2, channel => $3)"
#define FETCH "SELECT e.event_id, e.occurred_at, e.name, e.task_id, e.step_id, " \
	"CASE WHEN coalesce(f.place, 1) = 1 THEN e.payload END, f.key, f.value " \
	"FROM tasker.fetch_events($1, 100, $2) WITH ORDINALITY " \
	"AS e (event_id, occurred_at, name, task_id, step_id, payload, place) " \
	"LEFT JOIN LATERAL jsonb_each_text(e.payload) WITH ORDINALITY AS f (key, value, place) ON true " \
	"ORDER BY e.place, f.place"
#define ACKNOWLEDGE "SELECT tasker.ack_events($1, $2, $3)"

typedef struct Event
{
	const char *event_id;
	const char *occurred_at;
	const char *name;
	const char *task_id;		/* empty: it belongs to none */
	const char *step_id;		/* empty: it belongs to none */
	const char *payload;		/* JSON */
	const PGresult *rows;
	int			first;
	int			end;
} Event;

/* A field of the payload: text as it is, anything else as JSON; NULL: it has none. */
__attribute__((unused))
static const char *
field(const Event *event, const char *key)
{
	for (int row = event->first; row < event->end; row++)
		if (strcmp(PQgetvalue(event->rows, row, 6), key) == 0)
			return PQgetisnull(event->rows, row, 7) ? NULL : PQgetvalue(event->rows, row, 7);
	return NULL;
}

/*
 * What to do.  An event is handled when its function returns true.  If it returns
 * false, the event and those behind it come again.  So they do after a crash:
 * event_id tells.
 */

{{#event}}
/* {{title}} */
static bool
handle_{{function}}(const Event *event)
{
	/* Your code here. */
	printf("%s %s %s\n", event->event_id, event->name, event->task_id);
	return true;
}

{{/event}}
/* Any other event. */
static bool
handle_other(const Event *event)
{
	/* Your code here. */
	printf("%s %s %s\n", event->event_id, event->name, event->task_id);
	return true;
}

/* Which function takes which events: the first that fits. */
static const struct
{
	const char *pattern;
	bool		(*handle) (const Event *event);
}			routes[] = {
{{#event}}
	{ {{pattern}}, handle_{{function}} },
{{/event}}
	{ "*", handle_other },
};

static bool
fits(const char *pattern, const char *name)
{
	size_t		length = strlen(pattern);

	return pattern[length - 1] == '*' ? strncmp(pattern, name, length - 1) == 0 : strcmp(pattern, name) == 0;
}

static bool
route(const Event *event)
{
	int			i = 0;

	while (!fits(routes[i].pattern, event->name))
		i++;
	return routes[i].handle(event);
}

static const char *consumer;	/* a name for each copy of this program, where several share the events */
static bool once;
static volatile sig_atomic_t stopping = 0;
static int	woken[2];			/* written to by a signal, so that no pause outlasts it */

static void
stop(int signal_number)
{
	(void) signal_number;
	stopping = 1;
	if (write(woken[1], "", 1) < 0)
		return;					/* full: whoever pauses is woken as it is */
}

/* Waits for so long, for a signal, or for the connection, where one is given. */
static void
pause_for(int milliseconds, const PGconn *db)
{
	struct pollfd what[] = {
		{.fd = woken[0], .events = POLLIN},
		{.fd = db ? PQsocket(db) : -1, .events = POLLIN}
	};

	if (!stopping)
		poll(what, 2, milliseconds);
}

static PGresult *
query(PGconn *db, const char *sql, int count, const char *const *arguments)
{
	PGresult   *result = PQexecParams(db, sql, count, NULL, arguments, NULL, NULL, 0);

	if (PQresultStatus(result) == PGRES_TUPLES_OK || PQresultStatus(result) == PGRES_COMMAND_OK)
		return result;
	fprintf(stderr, "%s: %s", SUBSCRIBER, PQerrorMessage(db));
	PQclear(result);
	return NULL;
}

/* Runs it, and tells whether it went well. */
static bool
run(PGconn *db, const char *sql, int count, const char *const *arguments)
{
	PGresult   *result = query(db, sql, count, arguments);

	PQclear(result);
	return result != NULL;
}

/* The event whose rows begin here. */
static Event
event_at(const PGresult *rows, int first)
{
	Event		event = {
		PQgetvalue(rows, first, 0), PQgetvalue(rows, first, 1), PQgetvalue(rows, first, 2),
		PQgetvalue(rows, first, 3), PQgetvalue(rows, first, 4), PQgetvalue(rows, first, 5),
		rows, first, first + 1
	};

	while (event.end < PQntuples(rows) && strcmp(PQgetvalue(rows, event.end, 0), event.event_id) == 0)
		event.end++;
	return event;
}

typedef enum
{
	NOTHING_LEFT,
	MORE,
	HANDLER_FAILED,
	DATABASE_FAILED
} Outcome;

/* Fetches events, handles and acknowledges them. */
static Outcome
work_on_batch(PGconn *db)
{
	PGresult   *rows = query(db, FETCH, 2, (const char *[]) {SUBSCRIBER, consumer});
	Outcome		outcome;
	const char *done = NULL;
	Event		event;

	if (rows == NULL)
		return DATABASE_FAILED;
	outcome = PQntuples(rows) > 0 ? MORE : NOTHING_LEFT;
	for (int row = 0; row < PQntuples(rows) && !stopping; row = event.end)
	{
		event = event_at(rows, row);
		if (!route(&event))
		{
			fprintf(stderr, "%s: event %s (%s) failed\n", SUBSCRIBER, event.event_id, event.name);
			outcome = HANDLER_FAILED;
			break;
		}
		done = event.event_id;
	}
	fflush(stdout);
	if (done != NULL && !run(db, ACKNOWLEDGE, 3, (const char *[]) {SUBSCRIBER, done, consumer}))
		outcome = DATABASE_FAILED;
	PQclear(rows);
	return outcome;
}

/* Have there been notifications? */
static bool
rung(PGconn *db)
{
	bool		found = false;

	for (PGnotify *bell; (bell = PQnotifies(db)) != NULL; found = true)
		PQfreemem(bell);
	return found;
}

/* Works over one connection until it is told to stop; returns whether all went well. */
static bool
work(PGconn *db)
{
	int			delay = 1000;

	if (!run(db, SUBSCRIBE, 3, (const char *[]) {SUBSCRIBER, EVENTS, CHANNEL}) ||
		!run(db, "LISTEN \"" CHANNEL "\"", 0, NULL))
		return false;
	while (!stopping)
	{
		Outcome		outcome = work_on_batch(db);

		if (outcome == DATABASE_FAILED || (outcome == HANDLER_FAILED && once))
			return false;
		if (outcome == HANDLER_FAILED)
		{
			pause_for(delay, NULL);
			delay = delay < 30000 ? delay * 2 : 60000;
			continue;
		}
		delay = 1000;
		if (outcome == NOTHING_LEFT && once)
			return true;
		if (!rung(db) && outcome == NOTHING_LEFT)
			pause_for(POLL, db);
		if (!PQconsumeInput(db))
			return false;
	}
	return true;
}

int
main(int argc, char **argv)
{
	const char *conninfo = "";
	bool		good = false;

	for (int i = 1; i < argc; i++)
	{
		if (strcmp(argv[i], "--once") == 0)
			once = true;
		else
			conninfo = argv[i];
	}
	consumer = getenv("SUBSCRIBER_CONSUMER");
	if (pipe2(woken, O_NONBLOCK | O_CLOEXEC) != 0)
	{
		perror(SUBSCRIBER);
		return EXIT_FAILURE;
	}
	signal(SIGTERM, stop);
	signal(SIGINT, stop);
	for (int delay = 100; !stopping && !good; delay = delay < 15000 ? delay * 2 : 30000)
	{
		PGconn	   *db = PQconnectdb(conninfo);

		if (PQstatus(db) != CONNECTION_OK)
			fprintf(stderr, "%s: %s", SUBSCRIBER, PQerrorMessage(db));
		else
		{
			delay = 100;
			good = work(db);
		}
		PQfinish(db);
		if (once)
			return good ? EXIT_SUCCESS : EXIT_FAILURE;
		if (!good)
			pause_for(delay, NULL);
	}
	return EXIT_SUCCESS;
}
$program$;
$function$;
COMMENT ON FUNCTION tasker._subscriber_in_c() IS
'Text of a subscriber in C, to be filled in. Private.';
