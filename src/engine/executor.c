/*
 * executor.c
 *	  Takes what is ready, runs it as far as it goes, saves it, commits.
 *
 * A batch is one transaction: claim, load, run the graphs in memory (run.c),
 * write each step once.
 *
 * What goes wrong outside a handler's own fault (a lock that somebody holds, a
 * deadlock with the step beside it, a failure of the commit itself) is no
 * attempt: the suspects are run once more, alone.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "engine/activation.h"
#include "engine/claim.h"
#include "engine/executor.h"
#include "engine/flight.h"
#include "engine/handler.h"
#include "engine/plan.h"
#include "engine/processes.h"
#include "engine/run.h"
#include "engine/suspect.h"
#include "engine/worker.h"
#include "state/state.h"
#include "statement.h"
#include "tasker.h"

/* How long a task is put off that can't even be failed. */
#define PUT_OFF_US			(10 * USECS_PER_SEC)

/* From so many handlers on a batch's search_path is that of the next one. */
#define MANY_HANDLERS		8

/* While there is other work, so often is it looked what limits hold back. */
#define SWEEP_MS			200

/* All that the queue holds of one task, for a task that failed outside a handler. */
static Statement claim_task = {
	.sql = LOAD_CLAIM("",
					  "SELECT q.ctid FROM tasker.queue AS q "
					  "WHERE q.task_id = $1 AND q.step_no IN (0, $2) AND tasker._hold(q.task_id) "
					  "FOR UPDATE SKIP LOCKED"),
	.arg_count = 2,
	.arg_types = {INT8OID, INT2OID},
};

static Statement put_off = {
	.sql = "UPDATE tasker.queue SET due = $2, due_lane = lane, lane = -1, rank = 0 "
	"WHERE task_id = $1 AND lane >= 0",
	.arg_count = 2,
	.arg_types = {INT8OID, TIMESTAMPTZOID},
};

/* What has become due goes to the lane it waits for. */
static Statement fire_due = {
	.sql = "WITH d AS (SELECT q.task_id, q.step_no FROM tasker.queue AS q "
	"WHERE q.lane = -1 AND q.rank = 0 AND q.due <= $1 AND q.due_lane IS NOT NULL "
	"ORDER BY q.due "
	"LIMIT 1000 "
	"FOR UPDATE SKIP LOCKED) "
	"UPDATE tasker.queue AS q SET lane = q.due_lane, rank = -t.priority, due_lane = NULL, "
	TOKEN_TO_END("$1")
	"FROM d "
	"JOIN tasker.task AS t ON t.task_id = d.task_id "
	"WHERE q.task_id = d.task_id AND q.step_no = d.step_no "
	"RETURNING q.lane, q.rank, q.due",
	.arg_count = 1,
	.arg_types = {TIMESTAMPTZOID},
};

/*
 * Leases and deadlines that have ended, and what is left of tasks that have.  A
 * task that somebody has locked is left for later: his transaction may stay open,
 * and other leases end meanwhile.
 */
static Statement claim_ended = {
	.sql = "DELETE FROM tasker.queue WHERE ctid = ANY (ARRAY("
	"SELECT q.ctid FROM tasker.queue AS q "
	"JOIN tasker.task AS t ON t.task_id = q.task_id "
	"WHERE q.lane = -1 AND q.rank = 0 AND q.due <= $1 AND q.due_lane IS NULL "
	"AND tasker._hold(q.task_id) "
	"ORDER BY q.rank, q.due "
	"LIMIT 100 "
	"FOR UPDATE OF q SKIP LOCKED "
	"FOR NO KEY UPDATE OF t SKIP LOCKED)) "
	"RETURNING task_id, step_no, tries",
	.arg_count = 1,
	.arg_types = {TIMESTAMPTZOID},
};

static Statement next_due = {
	.sql = "SELECT due FROM tasker.queue WHERE lane = -1 AND rank = 0 ORDER BY rank, due LIMIT 1",
};

static MemoryContext batch_context;
static int	slow_limit = 1;		/* tokens to claim from the lane of slow handlers */
static int	fast_limit = 1;		/* and from that of fast ones */
static int	alone_left = 0;		/* steps still to be run alone after a failed batch */
static int	executor_number;
static TimestampTz swept_at = 0;	/* when it was last looked what limits hold back */

/*
 * The search_path of the last batch's handlers, where they were many and had
 * all the same; NULL otherwise.  Setting it for each handler costs more than all
 * else that is done to keep one from the next (src/README.md), so the next batch
 * begins with it.
 */
static char *common_path = NULL;

/* Of the transaction at work, should it fail. */
static int	failed_claims;
static bool failed_alone;

/*
 * Sets lock_timeout for the steps to come, where it is another one.  A rollback
 * undoes it, so the setting itself is asked what it is.
 */
void
executor_set_lock_timeout(int ms)
{
	char		value[16];

	if (ms == LockTimeout)
		return;
	snprintf(value, sizeof(value), "%d", ms);
	SetConfigOption("lock_timeout", value, PGC_SUSET, PGC_S_SESSION);
}

/*
 * Number of tokens to claim.  Of the slow ones one, and more while they turn out
 * to be fast: a handler that was never timed gets there with all its steps.  Of
 * the fast ones as many as fit into a batch's time, for what does not fit goes
 * back into the queue.
 */
static int
claim_limit(int lane)
{
	switch (lane)
	{
		case LANE_SLOW:
			return slow_limit;
		case LANE_ALONE:
			return 1;
		default:
			return Min(fast_limit, tasker_batch_size);
	}
}

/*
 * After a batch from the lane: how many tokens the next one is to have.
 */
static void
adapt_limit(int lane, const Run *run)
{
	int			back = 0;
	ListCell   *cell;

	if (lane == LANE_SLOW)
		slow_limit = run->slow ? 1 : Min(slow_limit * 2, tasker_batch_size);
	if (lane != LANE_BATCH)
		return;
	foreach(cell, run->batch->tasks)
		back += ((TaskRun *) lfirst(cell))->put_back;
	if (back > 0)
		fast_limit = Max(run->claimed - back, 1);
	else if (run->claimed >= fast_limit)
		fast_limit = Min(fast_limit * 2, tasker_batch_size);
}

/*
 * After an error outside a handler: reports it, ends the transaction, and sees
 * to it that the same does not happen again and again.  Returns a copy of the
 * error.
 */
ErrorData *
executor_after_error(MemoryContext keep)
{
	ErrorData  *error;

	HOLD_INTERRUPTS();
	MemoryContextSwitchTo(keep);
	error = CopyErrorData();
	EmitErrorReport();
	AbortCurrentTransaction();
	FlushErrorState();
	flight_note_idle();
	LockReleaseSession(USER_LOCKMETHOD);
	my_slot->task_id = 0;
	RESUME_INTERRUPTS();
	return error;
}

/*
 * Whether batches are of one step only: this executor's, after one that failed,
 * or everybody's, after a crash.
 */
static bool
is_careful(void)
{
	return alone_left > 0 || pg_atomic_read_u32(&my_database->careful) > 0;
}

static void
was_careful(void)
{
	uint32		left = pg_atomic_read_u32(&my_database->careful);

	if (alone_left > 0)
		alone_left--;
	else if (left > 0)
		(void) pg_atomic_compare_exchange_u32(&my_database->careful, &left, left - 1);
}

static void
set_path(const char *path)
{
	if (strcmp(namespace_search_path, path) != 0)
		SetConfigOption("search_path", path, PGC_USERSET, PGC_S_SESSION);
}

static void
remember_path(const Run *run)
{
	const char *path = run->ran >= MANY_HANDLERS && !run->mixed_paths ? run->path : NULL;

	if (path != NULL && common_path != NULL && strcmp(path, common_path) == 0)
		return;
	if (common_path != NULL)
		pfree(common_path);
	common_path = path == NULL ? NULL : MemoryContextStrdup(TopMemoryContext, path);
}

/*
 * A batch from the first lane that has any tokens, in the transaction at hand.
 * The lanes take turns, so that none starves another.
 */
static int
claim_in_turn(Run *run, bool careful, int *lane)
{
	static int	turn = LANE_BATCH;
	int			claimed = 0;

	for (int i = LANE_BATCH; i <= LANE_ALONE && claimed == 0; i++)
	{
		*lane = turn;
		turn = turn == LANE_ALONE ? LANE_BATCH : turn + 1;
		claimed = claim_tokens(run->batch, *lane, careful ? 1 : claim_limit(*lane));
	}
	return claimed;
}

/*
 * A batch.  Returns the number of tokens claimed; where there were none and
 * something parked could be let go instead, not 0 either.
 */
static int
run_batch(void)
{
	Run			run = {0};
	int			lane;
	int			claimed;
	bool		careful = is_careful();
	int			path_level;

	MemoryContextReset(batch_context);
	failed_claims = 0;
	run_last_task = 0;
	failed_alone = careful;
	worker_begin();
	path_level = statement_safe_path();
	plan_cache_refresh();
	if (!engine_may_run())
	{
		worker_commit();
		return 0;
	}

	suspects_refresh();

	run.batch = batch_create(batch_context);
	claimed = claim_in_turn(&run, careful, &lane);
	if (claimed == 0)
	{
		bool		unparked = limit_sweep();

		swept_at = GetCurrentTimestamp();
		worker_commit();
		return unparked ? 1 : 0;
	}
	/* Whoever commits work from now on wakes somebody else. */
	worker_busy();
	if (pg_atomic_read_u32(&my_database->unjudged) != 0)
	{
		/* Among these may be the step that an executor has just died of. */
		worker_rollback();
		suspects_judge();
		return claimed;
	}

	run.claimed = failed_claims = claimed;
	run_last_task = run.batch->tasks == NIL ? 0 :
		((TaskRun *) linitial(run.batch->tasks))->task_id;
	run_last_step = 0;
	run.alone = careful || lane == LANE_ALONE;
	run.batch->takes_itself = 1;
	run.deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), tasker_batch_budget);
	executor_set_lock_timeout(run.alone ? tasker_lock_timeout : BATCH_LOCK_TIMEOUT);
	run_find_ready(&run);
	statement_restore_path(path_level);
	run_ready(&run);
	remember_path(&run);

	(void) statement_safe_path();
	flight_note_saving(run.alone ? run_last_task : 0, run.alone ? run_last_step : 0);
	write_batch(run.batch);
	/* There may be more. */
	if (claimed == (lane == LANE_BATCH ? claim_limit(lane) : tasker_batch_size))
		tasker_note_ready(1);
	limit_unpark_held(run.slow ? 1 : tasker_batch_size);
	worker_commit();
	flight_note_idle();
	LockReleaseSession(USER_LOCKMETHOD);
	if (run.cleared)
		suspects_announce();
	if (careful)
		was_careful();
	else
		adapt_limit(lane, &run);
	return run.claimed;
}

/*
 * Puts everything of the task off: it can be neither run nor failed now.
 */
static void
put_task_off(int64 task_id)
{
	TimestampTz due = tasker_now() + PUT_OFF_US;
	Datum		values[2] = {Int64GetDatum(task_id), TimestampTzGetDatum(due)};

	worker_begin();
	statement_run(&put_off, values, NULL);
	tasker_note_due(due);
	worker_commit();
}

/*
 * Fails a step in a transaction of its own, after what it did could not be
 * committed.
 */
static void
fail_in_own_transaction(int64 task_id, int step_no, ErrorData *error)
{
	Doom		doom = {task_id, step_no, error, false};
	Run			run = {.closed = true, .doom = &doom};
	Datum		values[2] = {Int64GetDatum(task_id), Int16GetDatum(step_no)};
	uint64		rows;

	MemoryContextReset(batch_context);
	worker_begin();
	plan_cache_refresh();
	run.batch = batch_create(batch_context);
	hold_begin();
	rows = statement_run(&claim_task, values, NULL);
	load_claimed(run.batch, rows);
	run_find_ready(&run);
	run_ready(&run);
	write_batch(run.batch);
	worker_commit();
	if (!doom.done && rows > 0)
		put_task_off(task_id);
}

static int
guarded_batch(void)
{
	static int	errors = 0;		/* in a row */
	MemoryContext caller = CurrentMemoryContext;
	ErrorData  *volatile error = NULL;
	volatile int claimed = 0;

	if (common_path != NULL)
		set_path(common_path);
	PG_TRY();
	{
		claimed = run_batch();
	}
	PG_CATCH();
	{
		error = executor_after_error(caller);
	}
	PG_END_TRY();
	set_path(SAFE_SEARCH_PATH);
	MemoryContextSwitchTo(caller);
	if (error == NULL)
	{
		errors = 0;
		return claimed;
	}

	/* Errors that come in a row are not made to come faster. */
	worker_sleep(TimestampTzPlusMilliseconds(tasker_now(), Min(1 << Min(errors++, 10), 1000)),
				 "a moment after an error");
	if (failed_claims == 0)
		return 0;
	if (!failed_alone)
	{
		alone_left = Max(alone_left, failed_claims);
		return failed_claims;
	}

	/* It ran alone and failed all the same. */
	was_careful();
	PG_TRY();
	{
		if (run_last_step > 0)
			fail_in_own_transaction(run_last_task, run_last_step, error);
		else
			put_task_off(run_last_task);
	}
	PG_CATCH();
	{
		(void) executor_after_error(caller);
		PG_TRY();
		{
			put_task_off(run_last_task);
		}
		PG_CATCH();
		{
			(void) executor_after_error(caller);
		}
		PG_END_TRY();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	FreeErrorData(error);
	return 1;
}

/*
 * Moves what has become due into the lane it waits for; returns how many.
 */
static uint64
fire_tokens(TimestampTz now)
{
	Datum		value = TimestampTzGetDatum(now);
	uint64		rows = statement_run(&fire_due, &value, NULL);
	int			tokens = 0;
	bool		isnull;

	for (uint64 row = 0; row < rows; row++)
	{
		int			lane = DatumGetInt32(row_value(row, 1, &isnull));

		if (lane >= LANE_API)
			tasker_note_external_ready();
		else
		{
			tasker_note_token(lane, DatumGetInt32(row_value(row, 2, &isnull)), row_time(row, 3));
			tokens++;
		}
	}
	/* One is for this executor itself. */
	tasker_note_ready(tokens - 1);
	return rows;
}

/*
 * The attempt of a worker outside is over: its time is up, or he was not heard
 * of in time.  It counts; a lost lease is due again at once.
 */
static void
end_lease(Batch *batch, TaskRun *task, int step_no, TimestampTz now)
{
	StepRun    *step = &task->steps[step_no - 1];
	PlanStep   *plan = plan_step(task->plan, step_no);
	ErrorData	error = {0};
	/* A heartbeat prolongs the lease up to the timeout and no further. */
	bool		timed_out = plan->timeout > 0 &&
		step->lease_until >= step->started_at + plan->timeout;

	if (step->state != STEP_IN_PROGRESS)
		return;
	if (step->lease_until > now)
	{
		graph_queue_step(batch, task, step_no, LANE_NOT_DUE, step->lease_until);
		return;
	}
	if (timed_out)
	{
		error.sqlerrcode = ERRCODE_QUERY_CANCELED;
		error.message = psprintf("step timed out after %g s",
								 (double) plan->timeout / USECS_PER_SEC);
		error.detail = psprintf("Worker \"%s\" had it; the timeout of step \"%s\" in its definition is up.",
								step->claimed_by ? step->claimed_by : "", plan->name);
		error.hint = pstrdup("Raise the timeout, or make the handler do less at a time.");
	}
	else
	{
		error.sqlerrcode = ERRCODE_TASKER_LEASE_LOST;
		error.message = psprintf("the lease of worker \"%s\" ran out",
								 step->claimed_by ? step->claimed_by : "");
		error.detail = pstrdup("The worker neither completed the step nor sent a heartbeat in time.");
		error.hint = pstrdup("Claim with a longer lease, or send heartbeats more often.");
	}
	run_fail_step(batch, task, step_no, &error, true, timed_out ? 0 : now, now);
}

/*
 * The task ended while others had tokens of it in hand, so often have they been
 * looked for.
 */
static void
sweep_task(TaskRun *task, int tries)
{
	task->swept = task_has_ended(task->state);
	task->sweeps = Min(tries + 1, PG_INT16_MAX);
}

/*
 * Acts on the leases and deadlines that have ended; returns how many.
 */
static uint64
fire_ends(TimestampTz now)
{
	Datum		value = TimestampTzGetDatum(now);
	uint64		rows = statement_run(&claim_ended, &value, NULL);
	int64	   *ids;
	int16	   *step_nos;
	int16	   *tries;
	Batch	   *batch;
	bool		isnull;

	if (rows == 0)
		return 0;
	MemoryContextReset(batch_context);
	batch = batch_create(batch_context);
	ids = MemoryContextAlloc(batch_context, rows * sizeof(int64));
	step_nos = MemoryContextAlloc(batch_context, rows * sizeof(int16));
	tries = MemoryContextAlloc(batch_context, rows * sizeof(int16));
	for (uint64 row = 0; row < rows; row++)
	{
		ids[row] = DatumGetInt64(row_value(row, 1, &isnull));
		step_nos[row] = DatumGetInt16(row_value(row, 2, &isnull));
		tries[row] = DatumGetInt16(row_value(row, 3, &isnull));
	}
	SPI_freetuptable(SPI_tuptable);

	/* What they say is only true under the lock: a worker may have been faster. */
	load_locked(batch, ids, rows);
	now = tasker_now();
	for (uint64 row = 0; row < rows; row++)
	{
		TaskRun    *task = batch_find_task(batch, ids[row]);

		if (task == NULL)
			continue;
		if (step_nos[row] == TOKEN_REMAINS)
			sweep_task(task, tries[row]);
		else if (step_nos[row] == TOKEN_DEADLINE)
			graph_task_expired(batch, task, now);
		else
			end_lease(batch, task, step_nos[row], now);
	}
	write_batch(batch);
	return rows;
}

/*
 * Lets go what has become due.  The time of what is due next is shared; it is
 * forgotten first and read then, so that a row committed meanwhile is not
 * missed: either it is read, or its writer notes it afterwards.
 */
static void
fire(void)
{
	static bool unknown = true; /* nobody has read it since the start, or since a stop */
	MemoryContext caller = CurrentMemoryContext;
	TimestampTz now = tasker_now();
	volatile TimestampTz due = PG_INT64_MAX;

	if (!unknown && (TimestampTz) pg_atomic_read_u64(&my_database->next_due) > now)
		return;
	pg_atomic_write_u64(&my_database->next_due, PG_INT64_MAX);
	PG_TRY();
	{
		bool		isnull;

		worker_begin();
		plan_cache_refresh();
		unknown = !engine_may_run();
		if (!unknown)
		{
			uint64		fired = fire_tokens(now) + fire_ends(now);

			if (statement_run(&next_due, NULL, NULL) > 0)
				due = DatumGetTimestampTz(row_value(0, 1, &isnull));
			/* Due, and yet nothing fired: an operator has its task, or others fire it. */
			if (fired == 0 && due <= now)
				due = TimestampTzPlusMilliseconds(now, 50);
		}
		worker_commit();
	}
	PG_CATCH();
	{
		FreeErrorData(executor_after_error(caller));
		due = now + USECS_PER_SEC;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	lower_next_due(my_database, due);
}

/*
 * Lets go what is parked behind a limit that has room.
 */
static void
sweep_limits(void)
{
	MemoryContext caller = CurrentMemoryContext;

	swept_at = GetCurrentTimestamp();
	PG_TRY();
	{
		worker_begin();
		if (engine_may_run())
			(void) limit_sweep();
		worker_commit();
	}
	PG_CATCH();
	{
		FreeErrorData(executor_after_error(caller));
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
}

static WorkerSlot *
executor_slot(TaskerDatabase *database, int number)
{
	executor_number = number;
	return &database->executor[number];
}

void
tasker_executor_main(Datum arg)
{
	MemoryContext loop;

	worker_start(arg, executor_slot);
	handler_init();
	batch_context = AllocSetContextCreate(TopMemoryContext, "tasker batch",
										  ALLOCSET_DEFAULT_SIZES);
	loop = AllocSetContextCreate(TopMemoryContext, "tasker executor", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(loop);
	flight_open();
	suspects_judge();
	flight_attach(executor_number);

	for (;;)
	{
		MemoryContextReset(loop);
		worker_check();
		if (pg_atomic_read_u32(&my_database->unjudged) != 0)
			suspects_judge();
		fire();
		if (TimestampDifferenceExceeds(swept_at, GetCurrentTimestamp(), SWEEP_MS))
			sweep_limits();

		/*
		 * Whoever commits work from now on wakes us, and what was committed
		 * before is found by this look.
		 */
		worker_idle();
		if (guarded_batch() == 0 && worker_is_idle())
			worker_sleep((TimestampTz) pg_atomic_read_u64(&my_database->next_due), "work");
	}
}
