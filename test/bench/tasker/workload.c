/*
 * workload.c
 *	  tasker's own workloads, with SQL handlers that the executors run, and
 *	  workers outside in C.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "workload.h"

/* Tasks a call and transaction; beyond a thousand nothing is gained. */
#define CREATE_BATCH	1000

/* Steps that a worker outside claims at a time: two workers don't wait for each other long. */
#define CLAIM_BATCH		500

#define WAIT			"CALL tasker.wait($1, '5 min')"

static const char *program;

/* A database with everything registered, and the engine at a halt or not. */
static PGconn *
set_up(bool halted)
{
	PGconn	   *db = connect_server();

	run_file(db, program, "setup.sql");
	if (halted)
		run(db, "SELECT tasker.deactivate()");
	return db;
}

/* Creates so many tasks in batches; returns the id of the last one. */
static char *
create_batches(PGconn *db, const char *task, long count)
{
	char	   *last = NULL;

	for (long first = 1, size; first <= count; first += size)
	{
		char	   *contexts;

		size = count - first + 1 < CREATE_BATCH ? count - first + 1 : CREATE_BATCH;
		contexts = array_of_numbered("\"{\\\"n\\\": %ld}\"", first, size);
		free(last);
		last = scalar(db, "SELECT max(id) FROM tasker.create_tasks($1, $2::jsonb[]) AS id", 2,
					  (const char *[]) {task, contexts});
		free(contexts);
	}
	return last;
}

/* Creates a task; returns its id. */
static char *
create_task(PGconn *db, const char *task)
{
	return scalar(db, "SELECT tasker.create_task($1)", 1, &task);
}

/* Waits for its end; that must be a good one.  Holds no snapshot meanwhile. */
static void
wait_for(PGconn *db, const char *id)
{
	char	   *state = scalar(db, WAIT, 1, &id);

	if (strcmp(state, "complete") != 0)
		fail("task %s is %s", id, state);
	free(state);
}

static void
run_one(PGconn *db, const char *task)
{
	char	   *id = create_task(db, task);

	wait_for(db, id);
	free(id);
}

/*
 * Runs some, so that processes have their plans, and know how long the handlers
 * take.  In a session of its own, whose counters are reported when it ends.
 */
static PGconn *
set_up_warm(const char *task)
{
	PGconn	   *db = set_up(false);

	for (int i = 0; i < 20; i++)
		run_one(db, task);
	PQfinish(db);
	return connect_server();
}

/* The executors run with what the server was set to. */
static void
check_settings(PGconn *db)
{
	char	   *id = create_task(db, "settings");
	char	   *settings;

	wait_for(db, id);
	settings = scalar(db, "SELECT concat_ws(', ', 'role ' || (r ->> 'role'), "
					  "'synchronous_commit ' || (r ->> 'synchronous_commit'), "
					  "'fsync ' || (r ->> 'fsync'), 'full_page_writes ' || (r ->> 'full_page_writes')) "
					  "FROM (SELECT results AS r FROM tasker.workflow_steps WHERE task_id = $1) AS s",
					  1, (const char *const *) &id);
	if (strcmp(settings, "role bench, synchronous_commit on, fsync on, full_page_writes on") != 0)
		fail("a handler sees %s", settings);
	note("a handler in an executor sees %s", settings);
	free(settings);
	free(id);
}

/* Every task has ended well, every invariant holds, nothing was traded away. */
static void
check(void)
{
	PGconn	   *db = connect_server();
	PGresult   *problems;

	if (!is_true(db, "SELECT bool_and(state = 'complete') FROM tasker.tasks"))
		fail("a task is not complete");
	if (!is_true(db, "SELECT bool_and(state = 'complete') FROM tasker.workflow_steps"))
		fail("a step is not complete");
	problems = run_with(db, "SELECT problem, detail FROM tasker.verify()", 0, NULL);
	if (PQntuples(problems) > 0)
		fail("verify(): %s: %s", PQgetvalue(problems, 0, 0), PQgetvalue(problems, 0, 1));
	PQclear(problems);
	note("verify() finds nothing");
	check_settings(db);
	PQfinish(db);
}

/* one, diamond: all are created, then all are run. */
static void
batches(const char *task)
{
	PGconn	   *db = set_up(true);
	char	   *last;
	double		cpu;

	PQfinish(db);
	mark("create");
	db = connect_server();
	last = create_batches(db, task, number_of("BENCH_N", 1000));
	mark_and_leave("created", &db);
	mark("run");
	cpu = cpu_us();
	db = connect_server();
	run(db, "SELECT tasker.activate()");
	wait_for(db, last);
	wait_until(db, "SELECT bench.at_rest()");
	cpu = cpu_us() - cpu;
	mark_and_leave("ran", &db);
	value("client_cpu_us", cpu);
	note("create_tasks() with %d contexts a transaction, one connection", CREATE_BATCH);
	check();
	free(last);
}

/* chain, fan, small: one after the other, each waited for. */
static void
one_by_one(const char *task)
{
	PGconn	   *db = set_up_warm(task);
	long		count = number_of("BENCH_K", 10);
	double		cpu;

	mark("run");
	cpu = cpu_us();
	for (long i = 0; i < count; i++)
		run_one(db, task);
	cpu = cpu_us() - cpu;
	mark_and_leave("ran", &db);
	value("client_cpu_us", cpu);
	note("create_task(), then CALL tasker.wait()");
	check();
}

/* Creates a task in a transaction; returns its id and when COMMIT was sent. */
static char *
create_and_commit(PGconn *db, const char *task, double *sent, double *took)
{
	char	   *id;

	run(db, "BEGIN");
	id = create_task(db, task);
	*sent = clock_us();
	run(db, "COMMIT");
	*took = clock_us() - *sent;
	return id;
}

/* When the handler of the task began. */
static double
began_at(PGconn *db, const char *id)
{
	char	   *at = scalar(db, "SELECT results ->> 'at' FROM tasker.workflow_steps WHERE task_id = $1", 1, &id);
	double		us = atof(at) * 1e6;

	free(at);
	return us;
}

static void
latency(const char *task)
{
	PGconn	   *db = set_up_warm(task);
	long		count = number_of("BENCH_K", 100);
	char	  **ids = malloc(count * sizeof(char *));
	double	   *sent = malloc(count * sizeof(double));
	double	   *took = malloc(count * sizeof(double));
	double		cpu;

	mark("run");
	cpu = cpu_us();
	for (long i = 0; i < count; i++)
	{
		pause_us(random() % 10000);
		ids[i] = create_and_commit(db, task, &sent[i], &took[i]);
		wait_for(db, ids[i]);
	}
	cpu = cpu_us() - cpu;
	mark_and_leave("ran", &db);
	value("client_cpu_us", cpu);
	db = connect_server();
	for (long i = 0; i < count; i++)
	{
		value("latency_ms", (began_at(db, ids[i]) - sent[i]) / 1e3);
		value("commit_ms", took[i] / 1e3);
		free(ids[i]);
	}
	PQfinish(db);
	free(ids), free(sent), free(took);
	check();
}

/* create_task: one call a transaction, by pgbench. */
static void
single_calls(const char *task)
{
	PGconn	   *db = set_up(true);
	long		clients = number_of("BENCH_CONNECTIONS", 1);
	long		count = number_of("BENCH_N", 1000);
	char		command[4096];

	PQfinish(db);
	snprintf(command, sizeof(command),
			 "pgbench -n -M prepared -c %ld -j %ld -t %ld -f '%.*screate_task.sql' >&2",
			 clients, clients < 2 ? clients : 2, count / clients,
			 (int) (strrchr(program, '/') - program + 1), program);
	mark("create");
	if (system(command) != 0)
		fail("pgbench failed");
	mark("created");
	value("created", count / clients * clients);
	note("pgbench, prepared statements");
	db = connect_server();
	run(db, "SELECT tasker.activate()");
	wait_until(db, "SELECT bench.at_rest()");
	PQfinish(db);
	check();
}

/* What the workers outside have done, all together; in shared memory. */
static volatile long *completed;

/* Hands in what is at hand, and claims more, in one transaction. */
static PGresult *
hand_in_and_claim(PGconn *db, const char *worker, PGresult *at_hand, const char *results)
{
	static const char *hand_in =
		"SELECT count(*) FROM tasker.complete_steps($1::bigint[], $2::jsonb[], worker => $3)";
	static const char *claim =
		"SELECT step_id, context FROM tasker.claim_steps($1, ARRAY['outside'], max_steps => $2::integer)";
	PGresult   *claimed;
	int			count = at_hand != NULL ? PQntuples(at_hand) : 0;
	char		most[16];
	char	   *ids = malloc(count * 24 + 3);
	char	   *end = ids;

	for (int i = 0; i < count; i++)
		end += sprintf(end, "%c%s", i == 0 ? '{' : ',', PQgetvalue(at_hand, i, 0));
	strcpy(end, "}");
	snprintf(most, sizeof(most), "%d", CLAIM_BATCH);
	if (count > 0)
		PQsendQueryParams(db, hand_in, 3, NULL, (const char *[]) {ids, results, worker}, NULL, NULL, 0);
	PQsendQueryParams(db, claim, 2, NULL, (const char *[]) {worker, most}, NULL, NULL, 0);
	PQpipelineSync(db);
	if (count > 0)
	{
		PGresult   *taken = checked(db, PQgetResult(db));

		__atomic_add_fetch(completed, atol(PQgetvalue(taken, 0, 0)), __ATOMIC_RELAXED);
		PQclear(taken);
		PQgetResult(db);
	}
	claimed = checked(db, PQgetResult(db));
	PQgetResult(db);
	PQclear(checked(db, PQgetResult(db)));
	PQclear(at_hand);
	free(ids);
	return claimed;
}

/* A worker outside, in a process of its own, until all is done. */
static void
work_outside(long number, long count)
{
	PGconn	   *db = connect_server();
	PGresult   *at_hand = NULL;
	char		worker[32];

	snprintf(worker, sizeof(worker), "bench/%ld", number);
	PQenterPipelineMode(db);
	while (*completed < count)
	{
		char	   *results = array_of_numbered("\"{\\\"ok\\\": true}\"", 0,
												at_hand != NULL ? PQntuples(at_hand) : 0);

		at_hand = hand_in_and_claim(db, worker, at_hand, results);
		free(results);
		if (PQntuples(at_hand) == 0)
			pause_us(1000);
	}
	PQfinish(db);
	exit(0);
}

static void
wait_for_workers(long workers)
{
	for (int status; workers > 0; workers--)
		if (wait(&status) < 0 || status != 0)
			fail("a worker failed");
}

static void
outside(const char *task)
{
	PGconn	   *db = set_up(true);
	long		count = number_of("BENCH_N", 1000);
	long		workers = number_of("BENCH_CONNECTIONS", 2);
	double		cpu;

	completed = mmap(NULL, sizeof(long), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	PQfinish(db);
	mark("create");
	db = connect_server();
	free(create_batches(db, task, count));
	mark_and_leave("created", &db);
	mark("run");
	cpu = cpu_us();
	db = connect_server();
	run(db, "SELECT tasker.activate()");
	PQfinish(db);
	fflush(stdout);
	for (long i = 0; i < workers; i++)
		if (fork() == 0)
			work_outside(i, count);
	wait_for_workers(workers);
	cpu = cpu_us() - cpu;
	mark("ran");
	value("client_cpu_us", cpu);
	note("%ld workers in C, claims of up to %d steps, each completed with the next claim in one transaction",
		 workers, CLAIM_BATCH);
	check();
}

/* Calls it so often, and says how long it takes. */
static void
time_call(PGconn *db, const char *function, const char *graph, const char *task_id)
{
	char		sql[256];
	char		key[256];

	snprintf(sql, sizeof(sql), "SELECT * FROM tasker.%s($1)", function);
	snprintf(key, sizeof(key), "%s.%s", function, graph);
	PQclear(checked(db, PQprepare(db, key, sql, 1, NULL)));
	for (long i = -3, calls = number_of("BENCH_K", 20); i < calls; i++)
	{
		double		from = clock_us();

		PQclear(checked(db, PQexecPrepared(db, key, 1, &task_id, NULL, NULL, 0)));
		/* The first ones, which make the plans, don't count. */
		if (i >= 0)
			value(key, (clock_us() - from) / 1e3);
	}
}

/* reading: tasks that are half done, and what people ask of them. */
static void
reading(const char *unused)
{
	static const char *const graphs[] = {"layers_10x4", "layers_11x4", "random_60", "wide_1000"};
	static const char *const functions[] = {"step_readiness", "task_execution_context", "dependency_levels"};
	PGconn	   *db = set_up(false);

	run_file(db, program, "reading.sql");
	for (int g = 0; g < 4; g++)
	{
		char	   *id = create_task(db, graphs[g]);
		char	   *done;

		wait_until(db, "SELECT bench.at_rest()");
		done = scalar(db, "SELECT count(*) FILTER (WHERE state = 'complete') * 2 >= count(*) - 3 "
					  "FROM tasker.workflow_steps WHERE task_id = $1", 1, (const char *const *) &id);
		if (strcmp(done, "t") != 0)
			fail("task %s is not half done", graphs[g]);
		for (int f = 0; f < 3; f++)
			time_call(db, functions[f], graphs[g], id);
		free(done);
		free(id);
	}
	PQfinish(db);
}

int
main(int argc, char **argv)
{
	static const struct
	{
		const char *name;
		void		(*work) (const char *task);
		const char *task;
	}			workloads[] = {
		{"one", batches, "one"},
		{"diamond", batches, "diamond"},
		{"chain", one_by_one, "chain"},
		{"fan", one_by_one, "fan"},
		{"small", one_by_one, "diamond"},
		{"latency", latency, "clock"},
		{"create_task", single_calls, "one"},
		{"outside", outside, "outside"},
		{"reading", reading, NULL},
	};

	program = argv[0];
	for (size_t i = 0; argc == 2 && i < sizeof(workloads) / sizeof(*workloads); i++)
		if (strcmp(argv[1], workloads[i].name) == 0)
		{
			workloads[i].work(workloads[i].task);
			done();
			return 0;
		}
	cannot("there is no such workload");
}
