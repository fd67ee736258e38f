/*
 * executor.c
 *	  Takes what is ready, runs it as far as it goes, saves it, commits.
 *
 * A batch is one transaction: claim, load, run the graphs in memory, write each
 * step once.  It ends when nothing is ready any more, when its time is up, or
 * before a handler that is known to be slow or was never timed: such a one runs
 * first in a transaction, so that nobody's finished work waits for it, and its
 * siblings are committed to the queue for the other executors.
 *
 * What goes wrong outside a handler's own fault (a lock that somebody holds, a
 * deadlock with the step beside it, a failure of the commit itself) is no
 * attempt: the suspects are run once more, alone.
 */
#include "postgres.h"

#include "access/xact.h"
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
#include "engine/flight.h"
#include "engine/handler.h"
#include "engine/plan.h"
#include "engine/processes.h"
#include "engine/worker.h"
#include "state/state.h"
#include "statement.h"
#include "tasker.h"

PG_FUNCTION_INFO_V1(tasker_hold);

/* Beyond 64 a transaction's subtransactions overflow the cache of them. */
#define MAX_WRITING_STEPS	60

/* How long a step in a batch may wait for a lock. */
#define BATCH_LOCK_TIMEOUT	100

/*
 * How long a step that could not have its lock waits until it is run alone: what
 * is ready beside it goes first, for alone it may wait for that lock for long.
 */
#define SUSPECT_DELAY_US	(500 * INT64CONST(1000))

/* So much later, for each crash, is a step run again. */
#define CRASH_DELAY_US		USECS_PER_SEC

/* After a crash in the middle of saving: so many steps are run alone. */
#define CAREFUL_STEPS		200

/* How long a task is put off that can't even be failed. */
#define PUT_OFF_US			(10 * USECS_PER_SEC)

static const char claim_sql[] =
	"WITH c AS ("
	"DELETE FROM tasker.queue WHERE ctid = ANY (ARRAY("
	"SELECT q.ctid FROM tasker.queue AS q "
	"WHERE q.lane = $1 AND tasker._hold(q.task_id) "
	"ORDER BY q.rank, q.due "
	"LIMIT $2 "
	"FOR UPDATE SKIP LOCKED)) "
	"RETURNING task_id, step_no, tries) "
	"SELECT c.task_id, c.step_no, c.tries, t.plan_id, t.state, t.priority, t.started_at, "
	"t.context, t.correlation_id, t.traceparent, t.bypass_steps, t.error "
	"FROM c "
	"JOIN tasker.task AS t ON t.task_id = c.task_id";

static Statement claim = {
	.sql = claim_sql,
	.arg_count = 2,
	.arg_types = {INT4OID, INT8OID},
};

/* All that the queue holds of one task, for a task that failed outside a handler. */
static Statement claim_task = {
	.sql = "WITH c AS ("
	"DELETE FROM tasker.queue WHERE ctid = ANY (ARRAY("
	"SELECT q.ctid FROM tasker.queue AS q "
	"WHERE q.task_id = $1 AND q.step_no IN (0, $2) AND tasker._hold(q.task_id) "
	"FOR UPDATE SKIP LOCKED)) "
	"RETURNING task_id, step_no, tries) "
	"SELECT c.task_id, c.step_no, c.tries, t.plan_id, t.state, t.priority, t.started_at, "
	"t.context, t.correlation_id, t.traceparent, t.bypass_steps, t.error "
	"FROM c "
	"JOIN tasker.task AS t ON t.task_id = c.task_id",
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
	"UPDATE tasker.queue AS q SET lane = q.due_lane, rank = -t.priority, due_lane = NULL "
	"FROM d "
	"JOIN tasker.task AS t ON t.task_id = d.task_id "
	"WHERE q.task_id = d.task_id AND q.step_no = d.step_no "
	"RETURNING q.lane",
	.arg_count = 1,
	.arg_types = {TIMESTAMPTZOID},
};

static Statement next_due = {
	.sql = "SELECT due FROM tasker.queue WHERE lane = -1 AND rank = 0 ORDER BY rank, due LIMIT 1",
};

/* A crash, or a step that outlived its timeout. */
static Statement count_crash = {
	.sql = "INSERT INTO tasker.crash AS c (task_id, step_no, crashes, last_at, overran) "
	"VALUES ($1, $2, CASE WHEN $4 THEN 0 ELSE 1 END, $3, $4) "
	"ON CONFLICT (task_id, step_no) "
	"DO UPDATE SET crashes = c.crashes + EXCLUDED.crashes, last_at = EXCLUDED.last_at, "
	"overran = EXCLUDED.overran "
	"RETURNING crashes",
	.arg_count = 4,
	.arg_types = {INT8OID, INT2OID, TIMESTAMPTZOID, BOOLOID},
};

static Statement read_suspects = {
	.sql = "SELECT task_id, step_no FROM tasker.crash ORDER BY last_at DESC LIMIT 1000",
};

static Statement read_crash = {
	.sql = "SELECT crashes, last_at, overran FROM tasker.crash "
	"WHERE task_id = $1 AND step_no = $2",
	.arg_count = 2,
	.arg_types = {INT8OID, INT2OID},
};

static Statement forget_crash = {
	.sql = "DELETE FROM tasker.crash WHERE task_id = $1 AND step_no = $2",
	.arg_count = 2,
	.arg_types = {INT8OID, INT2OID},
};

/* A step of which it is known that an executor died of it. */
typedef struct Suspect
{
	int64		task_id;
	int16		step_no;
} Suspect;

/* A step that is to be failed when it is reached. */
typedef struct Doom
{
	int64		task_id;
	int16		step_no;
	ErrorData  *error;
	bool		counts;			/* as an attempt */
	bool		retryable;
	bool		done;
} Doom;

/* A step that is ready in memory. */
typedef struct ReadyStep
{
	TaskRun    *task;
	int16		step_no;
} ReadyStep;

/* The batch at work. */
typedef struct Run
{
	Batch	   *batch;
	ReadyStep  *ready;			/* a stack: a task that has begun goes on first */
	int			ready_count;
	int			ready_space;
	int			claimed;		/* tokens */
	int			ran;			/* handlers run */
	int			writing;		/* of them, those that wrote */
	int			queued;			/* tokens that wait for the commit */
	bool		alone;			/* one step and no more */
	int			lane;			/* claimed from */
	bool		closed;			/* starts no further step */
	bool		slow;			/* a handler that ran is slow, or one could not be run here */
	bool		cleared;		/* a suspect came to an end */
	Doom	   *doom;			/* or NULL */
	TimestampTz deadline;
	TaskRun    *last_task;		/* the step that ran last, for blame */
	int16		last_step;
} Run;

static MemoryContext batch_context;
static int	slow_limit = 1;		/* tokens to claim from the lane of slow handlers */
static int	alone_left = 0;		/* steps still to be run alone after a failed batch */
static int	executor_number;

/* tasker.crash as it was when `suspicions` was suspicions_known. */
static Suspect *suspects = NULL;
static int	suspect_count = 0;
static uint32 suspicions_known = 0;
static bool suspects_read = false;

/* Who was at work when the transaction failed; survives its abort. */
static int	failed_claims;
static int64 failed_task;
static int16 failed_step;
static bool failed_alone;

/*
 * tasker._hold(bigint)
 *
 * Held until the end of the transaction by whoever works on a task, together
 * with others who do; an operator takes it alone.  A heavyweight lock, because
 * its queue is fair: an operator who waits is not overtaken by the next claim.
 */
Datum
tasker_hold(PG_FUNCTION_ARGS)
{
	int64		task_id = PG_GETARG_INT64(0);
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (task_id >> 32), (uint32) task_id, 3);
	PG_RETURN_BOOL(LockAcquire(&tag, ShareLock, false, true) != LOCKACQUIRE_NOT_AVAIL);
}

static void
push_ready(Run *run, TaskRun *task, int step_no)
{
	if (run->ready_count == run->ready_space)
	{
		run->ready_space = Max(run->ready_space * 2, 256);
		run->ready = run->ready == NULL ?
			MemoryContextAlloc(batch_context, run->ready_space * sizeof(ReadyStep)) :
			repalloc(run->ready, run->ready_space * sizeof(ReadyStep));
	}
	run->ready[run->ready_count].task = task;
	run->ready[run->ready_count].step_no = step_no;
	run->ready_count++;
}

/*
 * Steps behind this one that it made ready, the first of them on top.
 */
static void
push_children(Run *run, TaskRun *task, int step_no)
{
	PlanStep   *step = plan_step(task->plan, step_no);

	for (int i = step->child_count - 1; i >= 0; i--)
		if (graph_is_ready(task, step->children[i]))
			push_ready(run, task, step->children[i]);
}

/*
 * A claimed row: the task comes into the batch, the token to its step.
 */
static void
take_row(Run *run, uint64 row)
{
	bool		isnull;
	int64		task_id = DatumGetInt64(row_value(row, 1, &isnull));
	int			step_no = DatumGetInt16(row_value(row, 2, &isnull));
	int			tries = DatumGetInt16(row_value(row, 3, &isnull));
	int			state = DatumGetInt16(row_value(row, 5, &isnull));
	TaskRun    *task = step_no == 0 ? NULL : batch_find_task(run->batch, task_id);
	Datum		value;

	/* A token that outlived its task is dropped. */
	if (task_has_ended(state) || state == TASK_PAUSED)
		return;
	if (task == NULL)
	{
		/* Reading a plan uses SPI, too: the rows at hand are kept aside. */
		SPITupleTable *table = SPI_tuptable;
		TaskPlan   *plan = plan_get(DatumGetInt32(row_value(row, 4, &isnull)));

		SPI_tuptable = table;
		task = batch_add_task(run->batch, plan, task_id, state);
		task->priority = DatumGetInt32(row_value(row, 6, &isnull));
		value = row_value(row, 7, &isnull);
		task->started_at = isnull ? 0 : DatumGetTimestampTz(value);
		task->context = row_jsonb(row, 8, batch_context);
		task->correlation_id = row_text(row, 9, batch_context);
		task->traceparent = row_text(row, 10, batch_context);
		value = row_value(row, 11, &isnull);
		if (!isnull)
			task->bypass_steps = DatumGetArrayTypePCopy(value);
		task->error = row_jsonb(row, 12, batch_context);
	}
	if (step_no == 0)
	{
		task->at_start = true;
		return;
	}
	task->shared = true;
	if (step_no >= 1 && step_no <= task->plan->step_count)
	{
		task->steps[step_no - 1].mine = true;
		task->steps[step_no - 1].tries = tries;
	}
}

static void
take_rows(Run *run, uint64 rows)
{
	MemoryContext before = MemoryContextSwitchTo(batch_context);

	for (uint64 row = 0; row < rows; row++)
		take_row(run, row);
	MemoryContextSwitchTo(before);
	SPI_freetuptable(SPI_tuptable);
}

/*
 * Reads the tasks that have begun, and finds what is ready.
 */
static void
find_ready(Run *run)
{
	Batch	   *batch = run->batch;
	List	   *begun = NIL;

	/* From the last to the first, so that the first comes to lie on top. */
	for (int i = list_length(batch->tasks) - 1; i >= 0; i--)
	{
		TaskRun    *task = list_nth(batch->tasks, i);

		/* A start that was put back after the task had begun. */
		if (task->at_start && task->state != TASK_PENDING)
			task->shared = true;
		if (task->shared)
			begun = lappend(begun, task);
		else
			graph_count(task);
	}
	load_step_states(batch, begun);

	for (int i = list_length(batch->tasks) - 1; i >= 0; i--)
	{
		TaskRun    *task = list_nth(batch->tasks, i);

		for (int no = task->plan->step_count; no >= 1; no--)
		{
			StepRun    *step = &task->steps[no - 1];

			if (task->at_start && graph_is_ready(task, no))
				step->mine = true;
			/* A token whose step somebody has dealt with is dropped. */
			else if (step->mine && !graph_is_ready(task, no) && step->state != STEP_WAITING)
				step->mine = false;
			if (step->mine)
				push_ready(run, task, no);
		}
	}
	load_step_results(batch, begun);
}

/*
 * Whether the failure may be somebody else's doing, and a run alone would show.
 */
static bool
is_suspect(int sqlerrcode)
{
	return sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED ||
		sqlerrcode == ERRCODE_T_R_SERIALIZATION_FAILURE ||
		sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE;
}

static void
fail_step(Batch *batch, TaskRun *task, int step_no, ErrorData *error, bool retryable,
		  TimestampTz retry_at, TimestampTz at)
{
	StepRun    *step = &task->steps[step_no - 1];
	bool		again = retryable && plan_step(task->plan, step_no)->retryable;

	graph_step_failed(batch, task, step_no,
					  handler_error_jsonb(batch, error, step->attempts, again, at),
					  error->message ? error->message : "", unpack_sql_state(error->sqlerrcode),
					  retryable, retry_at, at);
}

/*
 * The attempt is undone in memory, and the token goes back to be run alone.
 */
static void
put_suspect_back(Run *run, TaskRun *task, int step_no, StepRun *before, int moves_before,
				 TimestampTz at)
{
	StepRun    *step = &task->steps[step_no - 1];

	*step = *before;
	graph_count(task);
	run->batch->move_count = moves_before;
	step->tries++;
	graph_queue_step(run->batch, task, step_no, LANE_ALONE, at + SUSPECT_DELAY_US);
	run->closed = true;
}

/*
 * Runs one step's handler and takes in how it ended.
 */
static void
run_step(Run *run, TaskRun *task, int step_no)
{
	Batch	   *batch = run->batch;
	StepRun    *step = &task->steps[step_no - 1];
	Handler    *handler = plan_step(task->plan, step_no)->handler;
	StepRun		before = *step;
	int			moves_before = batch->move_count;
	HandlerOutcome outcome;
	TimestampTz at = tasker_now();

	my_slot->task_id = task->task_id;
	my_slot->step_no = step_no;
	my_slot->since = at;
	/* Before a long run: what else may wait is for somebody else. */
	if (!handler_is_fast(handler))
		wake_executors(my_database, 1);
	graph_step_started(batch, task, step_no, at);
	handler_run(batch, task, step_no, &outcome);
	run->ran++;
	run->last_task = task;
	run->last_step = step_no;
	run->writing += outcome.wrote;
	my_slot->task_id = 0;
	at = tasker_now();

	run->closed |= outcome.ends_batch;
	if (outcome.ok)
	{
		handler_timed(handler, outcome.us);
		run->slow |= !handler_is_fast(handler);
		graph_step_completed(batch, task, step_no, outcome.results, at);
		push_children(run, task, step_no);
	}
	else if (is_suspect(outcome.error->sqlerrcode) && step->tries == 0 &&
			 !(run->alone && run->ran == 1))
		put_suspect_back(run, task, step_no, &before, moves_before, at);
	else
	{
		if (outcome.timed_out)
			handler_timed(handler, outcome.us);
		fail_step(batch, task, step_no, outcome.error,
				  outcome.error->sqlerrcode != ERRCODE_TASKER_PERMANENT &&
				  handler->problem == NULL,
				  outcome.retry_after >= 0 ? at + outcome.retry_after : 0, at);
	}
}

/*
 * Whether the handler may run here and now.  One that is slow, or may be, runs
 * first in its transaction, and keeps nothing waiting that others could run:
 * neither steps of its task nor other tasks of the batch.
 */
static bool
may_run_here(Run *run, Handler *handler)
{
	if (run->closed)
		return false;
	if (handler_is_fast(handler) && !handler->own_transaction)
		return true;
	return run->ran == 0 && run->queued == 0 && (run->lane == LANE_ALONE || run->ready_count == 0);
}

static bool
time_is_up(Run *run)
{
	return (run->alone && run->ran > 0) || run->writing >= MAX_WRITING_STEPS ||
		GetCurrentTimestamp() >= run->deadline;
}

static void
fail_missing(Run *run, TaskRun *task, int step_no, TimestampTz at)
{
	PlanStep   *step = plan_step(task->plan, step_no);
	ErrorData	error = {0};

	error.sqlerrcode = ERRCODE_TASKER_NOT_FOUND;
	error.message = psprintf("no handler is registered as \"%s\"", step->handler->class_name);
	error.detail = psprintf("Step \"%s\" of task %s names it, and neither namespace \"%s\" nor \"default\" has it for version %s.",
							step->name, task->plan->name, task->plan->namespace,
							task->plan->version);
	error.hint = pstrdup("Register the handler, then retry the step.");
	fail_step(run->batch, task, step_no, &error, false, 0, at);
}

/*
 * Fails the step that the transaction is there to fail.
 */
static void
fail_doomed(Run *run, TaskRun *task, int step_no)
{
	Doom	   *doom = run->doom;
	TimestampTz now = tasker_now();

	if (doom->counts)
		graph_step_started(run->batch, task, step_no, now);
	fail_step(run->batch, task, step_no, doom->error, doom->retryable, 0, now);
	doom->done = true;
}

static bool
is_doomed(Run *run, TaskRun *task, int step_no)
{
	return run->doom != NULL && run->doom->task_id == task->task_id &&
		(step_no == 0 || run->doom->step_no == step_no);
}

/*
 * Whether an executor died of the step.  A wrong yes costs a look at the table.
 */
static bool
is_crash_suspect(TaskRun *task, int step_no)
{
	for (int i = 0; i < suspect_count; i++)
		if (suspects[i].task_id == task->task_id && suspects[i].step_no == step_no)
			return true;
	return false;
}

static void
clear_suspect(Run *run, TaskRun *task, int step_no)
{
	Datum		key[2] = {Int64GetDatum(task->task_id), Int16GetDatum(step_no)};

	statement_run(&forget_crash, key, NULL);
	run->cleared = true;
}

static void
fail_overran(Run *run, TaskRun *task, int step_no)
{
	ErrorData	error = {0};
	TimestampTz now = tasker_now();

	error.sqlerrcode = ERRCODE_QUERY_CANCELED;
	error.message = pstrdup("step outlived its timeout");
	error.detail = pstrdup("Its handler went on when it was cancelled, so its executor was ended.");
	error.hint = pstrdup("Let the handler pass on query_canceled.");
	graph_step_started(run->batch, task, step_no, now);
	fail_step(run->batch, task, step_no, &error, true, 0, now);
}

static void
fail_crashing(Run *run, TaskRun *task, int step_no, int crashes)
{
	ErrorData	error = {0};

	error.sqlerrcode = ERRCODE_CRASH_SHUTDOWN;
	error.message = psprintf("the server crashed %d times while this step ran", crashes);
	error.detail = pstrdup("Each time its executor died in the middle of its handler.");
	error.hint = pstrdup("See the server log for the cause; retry the step when it is gone.");
	fail_step(run->batch, task, step_no, &error, false, 0, tasker_now());
}

/*
 * A step of which an executor died before.  It is run alone, so that it takes
 * nobody's work with it, and later the more often it happened, so that others
 * come first; or not at all any more.
 */
static void
run_suspect(Run *run, TaskRun *task, int step_no)
{
	Datum		key[2] = {Int64GetDatum(task->task_id), Int16GetDatum(step_no)};
	TimestampTz now = tasker_now();
	TimestampTz not_before;
	int			crashes;
	bool		overran;
	bool		ended = true;
	bool		isnull;

	if (statement_run(&read_crash, key, NULL) == 0)
	{
		/* Cleared by another executor, and we do not know yet. */
		SPI_freetuptable(SPI_tuptable);
		crashes = 0;
		not_before = 0;
		overran = false;
	}
	else
	{
		crashes = DatumGetInt32(row_value(0, 1, &isnull));
		not_before = DatumGetTimestampTz(row_value(0, 2, &isnull)) + crashes * CRASH_DELAY_US;
		overran = DatumGetBool(row_value(0, 3, &isnull));
		SPI_freetuptable(SPI_tuptable);
	}

	if (overran)
		fail_overran(run, task, step_no);
	else if (crashes >= tasker_max_crashes)
		fail_crashing(run, task, step_no, crashes);
	else if (run->alone && !run->closed && run->ran == 0 && not_before <= now)
	{
		int			attempts = task->steps[step_no - 1].attempts;

		run_step(run, task, step_no);
		/* One that was put back for a lock is still to be run. */
		ended = task->steps[step_no - 1].attempts != attempts;
	}
	else
	{
		graph_queue_step(run->batch, task, step_no, LANE_ALONE, Max(not_before, now));
		run->queued++;
		ended = false;
	}
	if (ended)
		clear_suspect(run, task, step_no);
}

/*
 * Runs what is ready until nothing is, or the batch has to end.
 */
static void
run_ready(Run *run)
{
	while (run->ready_count > 0)
	{
		ReadyStep	next = run->ready[--run->ready_count];
		TaskRun    *task = next.task;
		PlanStep   *step = plan_step(task->plan, next.step_no);
		StepRun    *state = &task->steps[next.step_no - 1];
		TimestampTz now;

		CHECK_FOR_INTERRUPTS();
		if (!graph_goes_on(task))
			continue;
		if (task->state == TASK_PENDING)
		{
			/* Not begun, and no time left: it goes back as a whole. */
			if (run->closed && task->at_start && !is_doomed(run, task, 0))
			{
				task->put_back = true;
				continue;
			}
			graph_start(run->batch, task, tasker_now());
		}
		if (is_doomed(run, task, next.step_no))
		{
			fail_doomed(run, task, next.step_no);
			continue;
		}
		if (state->state == STEP_PENDING && graph_bypasses(task, next.step_no))
		{
			graph_step_skipped(run->batch, task, next.step_no, tasker_now());
			push_children(run, task, next.step_no);
			continue;
		}
		if (step->handler->kind == HANDLER_SQL && suspect_count > 0 &&
			is_crash_suspect(task, next.step_no))
		{
			run_suspect(run, task, next.step_no);
			if (!run->closed)
				run->closed = time_is_up(run);
			continue;
		}
		if (step->handler->kind == HANDLER_SQL && may_run_here(run, step->handler))
		{
			run_step(run, task, next.step_no);
			if (!run->closed)
				run->closed = time_is_up(run);
			continue;
		}
		now = tasker_now();
		if (step->handler->kind == HANDLER_MISSING)
			fail_missing(run, task, next.step_no, now);
		else
		{
			graph_queue_step(run->batch, task, next.step_no,
							 state->tries > 0 ? LANE_ALONE : handler_lane(step->handler), now);
			run->queued++;
			run->slow = true;
		}
	}
}

/*
 * Sets lock_timeout for the steps to come, where it is another one.  A rollback
 * undoes it, so the setting itself is asked what it is.
 */
static void
set_lock_timeout(int ms)
{
	char		value[16];

	if (ms == LockTimeout)
		return;
	snprintf(value, sizeof(value), "%d", ms);
	SetConfigOption("lock_timeout", value, PGC_SUSET, PGC_S_SESSION);
}

/*
 * Number of tokens to claim.  Of the slow ones one, and more while they turn out
 * to be fast: a handler that was never timed gets there with all its steps.
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
			return tasker_batch_size;
	}
}

/*
 * After an error outside a handler: reports it, ends the transaction, and sees
 * to it that the same does not happen again and again.  Returns a copy of the
 * error.
 */
static ErrorData *
after_error(MemoryContext keep)
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
 * Deals with what an executor was running when it died: it is written down.
 */
static void
judge(const FlightSuspect *suspect)
{
	Datum		values[4] = {Int64GetDatum(suspect->task_id), Int16GetDatum(suspect->step_no),
		TimestampTzGetDatum(tasker_now()), BoolGetDatum(suspect->overran)};
	bool		isnull;
	int			crashes;

	if (suspect->task_id == 0 || suspect->step_no == 0)
	{
		pg_atomic_write_u32(&my_database->careful, CAREFUL_STEPS);
		return;
	}
	worker_begin();
	statement_run(&count_crash, values, NULL);
	crashes = DatumGetInt32(row_value(0, 1, &isnull));
	worker_commit();
	if (suspect->overran)
		return;
	ereport(LOG,
			errmsg("an executor crashed while it ran step %d of task " INT64_FORMAT,
				   suspect->step_no, suspect->task_id),
			errdetail("That happened %d times; at %d the step goes to error.",
					  crashes, tasker_max_crashes));
}

/*
 * Deals with what dead executors left.  Nobody claims anything before that is
 * done, so that a step that brings the server down is known by then: whoever
 * comes first does it, and the others wait here.
 */
static void
judge_suspects(void)
{
	MemoryContext caller = CurrentMemoryContext;
	FlightSuspect suspect;
	LOCKTAG		tag;
	uint32		unjudged;
	volatile bool failed = false;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, 0, 4);
	worker_begin();
	set_lock_timeout(0);
	(void) LockAcquire(&tag, ExclusiveLock, true, false);
	worker_commit();

	/* Those that are counted here are found below, and maybe others. */
	unjudged = pg_atomic_read_u32(&my_database->unjudged);
	pg_read_barrier();
	while (!failed && flight_next_suspect(&suspect))
	{
		PG_TRY();
		{
			judge(&suspect);
		}
		PG_CATCH();
		{
			/* Which lets go of the lock, too.  Not counted, but not tried for ever. */
			FreeErrorData(after_error(caller));
			failed = true;
		}
		PG_END_TRY();
		MemoryContextSwitchTo(caller);
		flight_forget(&suspect);
		pg_atomic_fetch_add_u32(&my_database->suspicions, 1);
	}
	(void) pg_atomic_compare_exchange_u32(&my_database->unjudged, &unjudged, 0);
	if (!failed)
		LockRelease(&tag, ExclusiveLock, true);
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

/*
 * Reads which steps are suspects, where that has changed.
 */
static void
suspects_refresh(void)
{
	uint32		now = pg_atomic_read_u32(&my_database->suspicions);
	uint64		rows;
	bool		isnull;

	if (suspects_read && now == suspicions_known)
		return;
	rows = statement_run(&read_suspects, NULL, NULL);
	suspect_count = 0;
	if (suspects != NULL)
		pfree(suspects);
	suspects = MemoryContextAlloc(TopMemoryContext, Max(rows, 1) * sizeof(Suspect));
	for (uint64 row = 0; row < rows; row++)
	{
		suspects[row].task_id = DatumGetInt64(row_value(row, 1, &isnull));
		suspects[row].step_no = DatumGetInt16(row_value(row, 2, &isnull));
	}
	suspect_count = rows;
	SPI_freetuptable(SPI_tuptable);
	suspicions_known = now;
	suspects_read = true;
}

/*
 * A batch from the lane.  Returns the number of tokens claimed.
 */
static int
run_batch(int lane)
{
	Run			run = {0};
	Datum		values[2];
	uint64		rows;
	bool		careful = is_careful();

	MemoryContextReset(batch_context);
	failed_claims = 0;
	failed_task = 0;
	failed_alone = careful;
	worker_begin();
	plan_cache_refresh();
	if (!engine_may_run())
	{
		worker_commit();
		return 0;
	}
	suspects_refresh();

	values[0] = Int32GetDatum(lane);
	values[1] = Int64GetDatum(careful ? 1 : claim_limit(lane));
	rows = statement_run(&claim, values, NULL);
	if (rows == 0)
	{
		worker_commit();
		return 0;
	}
	/* Whoever commits work from now on wakes somebody else. */
	worker_busy();
	if (pg_atomic_read_u32(&my_database->unjudged) != 0)
	{
		/* Among these may be the step that an executor has just died of. */
		worker_rollback();
		judge_suspects();
		return rows;
	}

	run.claimed = failed_claims = rows;
	run.lane = lane;
	run.alone = careful || lane == LANE_ALONE;
	run.batch = batch_create(batch_context);
	run.batch->takes_itself = 1;
	run.deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), tasker_batch_budget);
	take_rows(&run, rows);
	set_lock_timeout(run.alone ? tasker_lock_timeout : BATCH_LOCK_TIMEOUT);
	find_ready(&run);
	run_ready(&run);

	if (run.last_task != NULL)
	{
		failed_task = run.last_task->task_id;
		failed_step = run.last_step;
	}
	else if (list_length(run.batch->tasks) > 0)
	{
		failed_task = ((TaskRun *) linitial(run.batch->tasks))->task_id;
		failed_step = 0;
	}
	flight_note_saving(run.alone ? failed_task : 0, run.alone ? failed_step : 0);
	write_batch(run.batch);
	if (rows == tasker_batch_size)
		tasker_note_ready(1);
	worker_commit();
	flight_note_idle();
	LockReleaseSession(USER_LOCKMETHOD);
	if (run.cleared)
		pg_atomic_fetch_add_u32(&my_database->suspicions, 1);
	if (careful)
		was_careful();
	else if (lane == LANE_SLOW)
		slow_limit = run.closed || run.slow ? 1 : Min(slow_limit * 2, tasker_batch_size);
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
	Doom		doom = {task_id, step_no, error, true, true, false};
	Run			run = {0};
	Datum		values[2] = {Int64GetDatum(task_id), Int16GetDatum(step_no)};
	uint64		rows;

	MemoryContextReset(batch_context);
	worker_begin();
	plan_cache_refresh();
	rows = statement_run(&claim_task, values, NULL);
	run.batch = batch_create(batch_context);
	run.closed = true;
	run.doom = &doom;
	take_rows(&run, rows);
	find_ready(&run);
	run_ready(&run);
	write_batch(run.batch);
	worker_commit();
	if (!doom.done && rows > 0)
		put_task_off(task_id);
}

static int
guarded_batch(int lane)
{
	MemoryContext caller = CurrentMemoryContext;
	ErrorData  *volatile error = NULL;
	volatile int claimed = 0;

	PG_TRY();
	{
		claimed = run_batch(lane);
	}
	PG_CATCH();
	{
		error = after_error(caller);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	if (error == NULL)
		return claimed;

	pgstat_report_activity(STATE_IDLE, NULL);
	if (failed_claims == 0)
	{
		/* Could not even claim: no step's fault. */
		worker_sleep(TimestampTzPlusMilliseconds(GetCurrentTimestamp(), 1000),
					 "a second after an error");
		return 0;
	}
	if (!failed_alone || failed_task == 0)
	{
		alone_left = Max(alone_left, failed_claims);
		return failed_claims;
	}

	/* It ran alone and failed all the same. */
	was_careful();
	PG_TRY();
	{
		if (failed_step > 0)
			fail_in_own_transaction(failed_task, failed_step, error);
		else
			put_task_off(failed_task);
	}
	PG_CATCH();
	{
		(void) after_error(caller);
		PG_TRY();
		{
			put_task_off(failed_task);
		}
		PG_CATCH();
		{
			(void) after_error(caller);
		}
		PG_END_TRY();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	FreeErrorData(error);
	return 1;
}

static void
lower_next_due(TimestampTz due)
{
	uint64		known = pg_atomic_read_u64(&my_database->next_due);

	while (due < (TimestampTz) known &&
		   !pg_atomic_compare_exchange_u64(&my_database->next_due, &known, (uint64) due))
		;
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
		Datum		value = TimestampTzGetDatum(now);
		uint64		rows;
		int			tokens = 0;
		bool		isnull;

		worker_begin();
		unknown = !engine_may_run();
		if (!unknown)
		{
			rows = statement_run(&fire_due, &value, NULL);
			for (uint64 row = 0; row < rows; row++)
				if (DatumGetInt32(row_value(row, 1, &isnull)) >= LANE_API)
					tasker_note_external_ready();
				else
					tokens++;
			if (tokens > 1)
				tasker_note_ready(tokens - 1);
			if (statement_run(&next_due, NULL, NULL) > 0)
				due = DatumGetTimestampTz(row_value(0, 1, &isnull));
		}
		worker_commit();
	}
	PG_CATCH();
	{
		FreeErrorData(after_error(caller));
		due = now + USECS_PER_SEC;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	lower_next_due(due);
}

/*
 * Looks for work in the lanes, which take turns so that none starves another.
 * Returns the number of tokens claimed.
 */
static int
look(void)
{
	static int	lane = LANE_BATCH;
	int			claimed = 0;

	for (int i = LANE_BATCH; i <= LANE_ALONE && claimed == 0; i++)
	{
		claimed = guarded_batch(lane);
		lane = lane == LANE_ALONE ? LANE_BATCH : lane + 1;
	}
	return claimed;
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
	judge_suspects();
	flight_attach(executor_number);

	for (;;)
	{
		MemoryContextReset(loop);
		worker_check();
		if (pg_atomic_read_u32(&my_database->unjudged) != 0)
			judge_suspects();
		fire();
		if (look() > 0)
			continue;

		/*
		 * Nothing found.  Whoever commits work from now on wakes us, and what
		 * was committed before is found by one more look.
		 */
		worker_idle();
		if (look() == 0)
			worker_sleep((TimestampTz) pg_atomic_read_u64(&my_database->next_due), "work");
	}
}
