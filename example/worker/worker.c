/* A worker for tasker in C, with libpq.  README.md says how to run it. */
#include <libpq-fe.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 100, POLL_MS = 5000 };	/* it polls for the doorbell that was missed */

/* What there is to do with JSON, the server does. */
#define CLAIM	"SELECT context ->> 'text', array_agg(step_id) OVER (), array_agg(attempt) OVER () " \
	"FROM tasker.claim_steps($1, ARRAY[$2], " \
	"max_steps => 100, lease => make_interval(secs => $3::int), bound_to_session => $4)"
#define HEARTBEAT	"SELECT id = ANY (ARRAY(SELECT tasker.heartbeat($1, $2, make_interval(secs => $3::int)))) " \
	"FROM unnest($2::bigint[]) WITH ORDINALITY AS w (id, place) ORDER BY place"
#define HAND_IN	"SELECT tasker.complete_steps(array_agg(id) FILTER (WHERE count >= 0), array_agg(jsonb_build_object(" \
	"'count', count, 'worker', $1::text, 'attempt', attempt)) FILTER (WHERE count >= 0), worker => $1), " \
	"tasker.fail_steps(array_agg(id) FILTER (WHERE count < 0), array_agg('\"the context has no text\"'::jsonb) " \
	"FILTER (WHERE count < 0), retryable => false, worker => $1) " \
	"FROM unnest($2::bigint[], $3::int[], $4::int[]) AS w (id, attempt, count)"

/* The work: a function for each handler, which returns the result. */
static int count_words(const char *text) {
	int words = 0;
	for (; *text != '\0'; text++)
		words += strchr(" \n\t", *text) == NULL && strchr(" \n\t", text[1]) != NULL;
	return words;
}
static int count_bytes(const char *text) { return strlen(text); }
static const struct { const char *name; int (*work)(const char *text); } handlers[] = {
	{"count_words", count_words}, {"count_bytes", count_bytes}};
enum { HANDLERS = sizeof(handlers) / sizeof(*handlers) };

static char worker[128];			/* its name */
static const char *lease, *bound;	/* seconds; whether leases end with the connection */
static volatile sig_atomic_t stopping = 0;
static void stop(int signal_number) { stopping = signal_number; }

static PGresult *query(PGconn *db, const char *sql, int count, const char **arguments) {
	PGresult *result = PQexecParams(db, sql, count, NULL, arguments, NULL, NULL, 0);
	if (PQresultStatus(result) == PGRES_TUPLES_OK)
		return result;
	fprintf(stderr, "%s: %s", worker, PQerrorMessage(db));
	PQclear(result);
	return NULL;
}
/* Claims a batch, works on it and hands it in; returns its size, -1 where that failed. */
static int work_on_batch(PGconn *db, int h) {
	char counts[BATCH * 12] = "{}";
	PGresult *steps = query(db, CLAIM, 4, (const char *[]){worker, handlers[h].name, lease, bound});
	int size = steps ? PQntuples(steps) : -1;
	const char *ids = size > 0 ? PQgetvalue(steps, 0, 1) : "", *attempts = size > 0 ? PQgetvalue(steps, 0, 2) : "";
	PGresult *held = NULL, *taken = NULL;
	time_t beat_at = time(NULL);
	for (int i = 0; i < size; i++) {
		if ((time(NULL) - beat_at) * 3 >= atoi(lease)) {
			PQclear(held);
			held = query(db, HEARTBEAT, 3, (const char *[]){worker, ids, lease});
			beat_at = time(NULL);
		}
		bool skip = PQgetisnull(steps, i, 0) || (held != NULL && *PQgetvalue(held, i, 0) == 'f');
		int count = skip ? -1 : handlers[h].work(PQgetvalue(steps, i, 0));
		sprintf(strrchr(counts, '}'), "%s%d}", i > 0 ? "," : "", count);
	}
	/* The server leaves out what is not this worker's any more. */
	if (size > 0 && !(taken = query(db, HAND_IN, 4, (const char *[]){worker, ids, attempts, counts})))
		size = -1;
	PQclear(steps), PQclear(held), PQclear(taken);
	return size;
}
int main(int argc, char **argv) {
	lease = getenv("WORKER_LEASE") ? getenv("WORKER_LEASE") : "30";
	bound = getenv("WORKER_BOUND") ? getenv("WORKER_BOUND") : "no";
	snprintf(worker, sizeof(worker), "c/%ld", (long) getpid());
	signal(SIGTERM, stop), signal(SIGINT, stop);
	for (int delay = 100; !stopping; usleep(delay * 1000), delay = delay < 15000 ? delay * 2 : 30000) {
		PGconn *db = PQconnectdb(argc > 1 ? argv[1] : "");
		bool listens = !getenv("WORKER_LISTEN") || strcmp(getenv("WORKER_LISTEN"), "no") != 0;
		if (PQstatus(db) != CONNECTION_OK)
			fprintf(stderr, "%s: %s", worker, PQerrorMessage(db));
		else if (listens)
			PQclear(PQexec(db, "LISTEN tasker_steps"));
		for (int size, found; !stopping && PQconsumeInput(db); delay = 100) {
			found = size = 0;
			for (int h = 0; h < HANDLERS && size >= 0 && !stopping; h++)
				found += size = work_on_batch(db, h);
			PGnotify *bell = PQnotifies(db);
			if (found == 0 && bell == NULL && !stopping)
				poll(&(struct pollfd){.fd = PQsocket(db), .events = POLLIN}, 1, POLL_MS);
			PQfreemem(bell);
			if (size < 0) break;
		}
		PQfinish(db);
	}
}
