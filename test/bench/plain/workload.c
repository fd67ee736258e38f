/*
 * workload.c
 *	  The plain-SQL baseline: what PostgreSQL takes for the bookkeeping of
 *	  one-step tasks, with as many connections as BENCH_CONNECTIONS says.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "workload.h"

#define CREATE_BATCH	1000

/* One row a job, in batches. */
static void
create(PGconn *db, long count)
{
	for (long first = 1, size; first <= count; first += size)
	{
		char	   *payloads;

		size = count - first + 1 < CREATE_BATCH ? count - first + 1 : CREATE_BATCH;
		payloads = array_of_numbered("\"{\\\"n\\\": %ld}\"", first, size);
		PQclear(run_with(db, "INSERT INTO plain.job (payload) SELECT unnest($1::jsonb[])", 1,
						 (const char *const *) &payloads));
		free(payloads);
	}
}

/* As autovacuum would have done on a table that did not fill within a second. */
static void
analyze(void)
{
	PGconn	   *db = connect_server();

	run(db, "ANALYZE");
	PQfinish(db);
}

/* All of them work at the same time until nothing is left. */
static void
work(long connections)
{
	PGconn	  **db = malloc(connections * sizeof(PGconn *));

	for (long i = 0; i < connections; i++)
	{
		db[i] = connect_server();
		if (!PQsendQuery(db[i], "CALL plain.work()"))
			fail("%s", PQerrorMessage(db[i]));
	}
	for (long i = 0; i < connections; i++)
	{
		PQclear(checked(db[i], PQgetResult(db[i])));
		PQfinish(db[i]);
	}
	free(db);
}

static void
check(long count)
{
	PGconn	   *db = connect_server();
	char	   *jobs = scalar(db, "SELECT count(*) FROM plain.job WHERE state = 'done'", 0, NULL);
	char	   *rows = scalar(db, "SELECT count(*) FROM plain.log", 0, NULL);

	if (atol(jobs) != count || atol(rows) != 2 * count)
		fail("%s jobs are done, with %s rows of the log", jobs, rows);
	free(jobs);
	free(rows);
	PQfinish(db);
}

int
main(int argc, char **argv)
{
	long		count = number_of("BENCH_N", 1000);
	long		connections = number_of("BENCH_CONNECTIONS", 1);
	PGconn	   *db;
	double		cpu;

	if (argc != 2 || strcmp(argv[1], "one") != 0)
		cannot("one-step tasks only");
	db = connect_server();
	run_file(db, argv[0], "setup.sql");
	PQfinish(db);
	mark("create");
	db = connect_server();
	create(db, count);
	mark_and_leave("created", &db);
	analyze();
	mark("run");
	cpu = cpu_us();
	work(connections);
	cpu = cpu_us() - cpu;
	mark("ran");
	value("client_cpu_us", cpu);
	note("claims of 100; no retries, no graph, no checks; analyzed before the run");
	check(count);
	done();
	return 0;
}
