/*
 * offered.c
 *	  What executors do with the steps that they are offered while others hear of
 *	  all of it: subscribers that fetch, and sessions that LISTEN.
 *
 * BENCH_RATE tasks a second (2,500 diamonds) for BENCH_K seconds; of
 * BENCH_SUBSCRIBERS the first wants everything, the others the events of one task
 * in a hundred; BENCH_LISTENERS sessions LISTEN and do nothing else.
 */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "workload.h"

#define ROUND_US		10000	/* tasks are created in this time's worth of them */
#define GROUPS			100		/* of tasks; each subscriber but the first wants one of them */
#define FETCH_US		1000000 /* between fetches of one who wants little */
#define SAMPLE_US		20000

#define MOST_CHILDREN	300

static pid_t children[MOST_CHILDREN];
static int	child_count;

/* Has a process of its own do it until it is killed. */
static void
in_child(void (*work) (long number), long number)
{
	pid_t		pid;

	fflush(stdout);
	if (child_count == MOST_CHILDREN)
		fail("that are too many");
	pid = fork();
	if (pid == 0)
	{
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		work(number);
		exit(0);
	}
	children[child_count++] = pid;
}

static void
end_children(void)
{
	for (int i = 0; i < child_count; i++)
		kill(children[i], SIGTERM);
	for (int i = 0; i < child_count; i++)
	{
		int			status;

		if (waitpid(children[i], &status, 0) < 0 || !WIFSIGNALED(status))
			fail("a subscriber or listener has ended by itself");
	}
	child_count = 0;
}

/* Fetches and acknowledges; the first one without a pause. */
static void
subscriber(long number)
{
	PGconn	   *db = connect_server();
	char		name[32];
	char		sql[256];

	snprintf(name, sizeof(name), "s%ld", number);
	snprintf(sql, sizeof(sql), "SELECT event_id FROM tasker.fetch_events($1, 1000, wait => '%s')",
			 number == 0 ? "1 s" : "0 s");
	for (;;)
	{
		PGresult   *events = run_with(db, sql, 1, (const char *[]) {name});
		int			count = PQntuples(events);

		if (count > 0)
			PQclear(run_with(db, "SELECT tasker.ack_events($1, $2)", 2,
							 (const char *[]) {name, PQgetvalue(events, count - 1, 0)}));
		PQclear(events);
		if (number > 0 && count < 1000)
			pause_us(FETCH_US);
	}
}

/* Sessions that LISTEN; what they hear is read and forgotten. */
static void
listeners(long count)
{
	PGconn	  **sessions = malloc(count * sizeof(PGconn *));
	struct pollfd *fds = calloc(count, sizeof(struct pollfd));

	for (long i = 0; i < count; i++)
	{
		sessions[i] = connect_server();
		run(sessions[i], "LISTEN tasker_events");
		fds[i] = (struct pollfd) {.fd = PQsocket(sessions[i]), .events = POLLIN};
	}
	while (poll(fds, count, -1) > 0)
		for (long i = 0; i < count; i++)
		{
			PGnotify   *heard;

			if (fds[i].revents == 0)
				continue;
			if (!PQconsumeInput(sessions[i]))
				fail("%s", PQerrorMessage(sessions[i]));
			while ((heard = PQnotifies(sessions[i])) != NULL)
				PQfreemem(heard);
		}
}

/* Looks what the session that creates tasks waits for and has locked. */
static void
look(PGconn *db, const char *creator, long *samples, long *locks, long *waits)
{
	PGresult   *seen = run_with(db,
								"SELECT (SELECT count(*) FROM pg_locks AS l "
								"        WHERE l.pid = $1::integer AND l.locktype = 'object' "
								"          AND l.database = 0 AND l.classid = 'pg_database'::regclass), "
								"       (SELECT count(*) FROM pg_stat_activity AS a "
								"        WHERE a.pid = $1::integer AND a.wait_event ~ 'Notify')",
								1, &creator);

	*samples += 1;
	*locks += atol(PQgetvalue(seen, 0, 0));
	*waits += atol(PQgetvalue(seen, 0, 1));
	PQclear(seen);
}

/* Creates tasks as long and as fast as it was told to; returns how many. */
static long
offer(PGconn *db, PGconn *watcher, long rate, long seconds)
{
	long		batch = rate * ROUND_US / 1000000;
	long		samples = 0;
	long		locks = 0;
	long		waits = 0;
	long		rounds = seconds * 1000000 / ROUND_US;
	char	   *contexts = array_of_numbered("\"{\\\"n\\\": %ld}\"", 0, batch);
	char	   *creator = scalar(db, "SELECT pg_backend_pid()", 0, NULL);
	double		start = clock_us();

	for (long i = 0; i < rounds; i++)
	{
		char		group[16];
		double		ahead;

		snprintf(group, sizeof(group), "g%ld", i % GROUPS);
		if (PQsendQueryParams(db, "SELECT count(*) FROM tasker.create_tasks('diamond', $1::jsonb[], correlation_id => $2)",
							  2, NULL, (const char *[]) {contexts, group}, NULL, NULL, 0) == 0)
			fail("%s", PQerrorMessage(db));
		/* While it is at it. */
		if (i % (SAMPLE_US / ROUND_US) == 0)
			look(watcher, creator, &samples, &locks, &waits);
		PQclear(checked(db, PQgetResult(db)));
		PQclear(PQgetResult(db));
		ahead = start + (i + 1) * (double) ROUND_US - clock_us();
		if (ahead > 0)
			pause_us((long) ahead);
	}
	value("notify_samples", samples);
	value("notify_locks", locks);
	value("notify_waits", waits);
	free(contexts);
	free(creator);
	return rounds * batch;
}

static void
subscribe(PGconn *db, long number)
{
	char		name[32];
	char		filter[64];

	snprintf(name, sizeof(name), "s%ld", number);
	snprintf(filter, sizeof(filter), "{\"correlation_id\": \"g%ld\"}", number % GROUPS);
	PQclear(run_with(db, "SELECT tasker.subscribe($1, '{*}', filter => $2)", 2,
					 (const char *[]) {name, number == 0 ? NULL : filter}));
}

/* The warm-up: handlers are known to be quick, and each session has its plans. */
static void
warm_up(PGconn *db)
{
	for (int i = 0; i < GROUPS; i++)
	{
		char		group[16];

		snprintf(group, sizeof(group), "g%d", i);
		PQclear(run_with(db, "SELECT count(*) FROM tasker.create_tasks('diamond', array_fill('{}'::jsonb, ARRAY[10]), correlation_id => $1)",
						 1, (const char *[]) {group}));
	}
	wait_until(db, "SELECT bench.at_rest()");
	wait_until(db, "SELECT NOT EXISTS (SELECT FROM tasker.subscriber AS s "
			   "                   WHERE NOT EXISTS (SELECT FROM tasker.consumer AS c "
			   "                                     WHERE c.subscriber_id = s.subscriber_id AND c.acked_id IS NOT NULL))");
}

int
main(int argc, char **argv)
{
	long		subscribers = number_of("BENCH_SUBSCRIBERS", 0);
	long		session_count = number_of("BENCH_LISTENERS", 100);
	long		rate = number_of("BENCH_RATE", 2500);
	long		seconds = number_of("BENCH_K", 15);
	PGconn	   *db = connect_server();
	PGconn	   *watcher = connect_server();
	double		start;
	long		tasks;
	char	   *lag;

	run_file(db, argv[0], "setup.sql");
	for (long i = 0; i < subscribers; i++)
		subscribe(db, i);
	in_child(listeners, session_count);
	for (long i = 0; i < subscribers; i++)
		in_child(subscriber, i);
	while (atol(scalar(db, "SELECT count(*) FROM pg_stat_activity WHERE query ~ 'LISTEN tasker_events'", 0, NULL)) < session_count + 1)
		pause_us(50000);
	warm_up(db);
	mark("run");
	start = clock_us();
	tasks = offer(db, watcher, rate, seconds);
	wait_until(db, "SELECT bench.at_rest()");
	value("steps_a_second", tasks * 4 / ((clock_us() - start) / 1e6));
	lag = scalar(db, "SELECT coalesce(max(lag_events), 0) FROM tasker.subscribers", 0, NULL);
	value("lag_events", atof(lag));
	mark("ran");
	end_children();
	note("%ld tasks a second in batches of %ld, by one session; %ld sessions LISTEN",
		 rate, rate * ROUND_US / 1000000, session_count);
	done();
	return 0;
}
