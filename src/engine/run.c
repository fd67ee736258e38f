/*
 * run.c
 *	  Runs the ready steps of a batch, in memory, one after the other.
 *
 * An executor's batch ends when nothing is ready any more, when its time is up,
 * or before a handler that is known to be slow or was never timed: such a one
 * runs first in a transaction, so that nobody's finished work waits for it, and
 * its siblings are committed to the queue for the other executors.
 * tasker.run_task() runs everything in its caller's transaction instead.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "engine/handler.h"
#include "engine/plan.h"
#include "engine/processes.h"
#include "engine/run.h"
#include "engine/suspect.h"
#include "engine/worker.h"
#include "secret/secret.h"
#include "tasker.h"

/* Beyond 64 a transaction's subtransactions overflow the cache of them. */
#define MAX_WRITING_STEPS	60

/*
 * How long a step that could not have its lock waits until it is run alone: what
 * is ready beside it goes first, for alone it may wait for that lock for long.
 */
#define SUSPECT_DELAY_US	(500 * INT64CONST(1000))

/* So much later, for each crash, is a step run again. */
#define CRASH_DELAY_US		USECS_PER_SEC

int64		run_last_task = 0;
int16		run_last_step = 0;

static void
push_ready(Run *run, TaskRun *task, int step_no)
{
	if (run->ready_count == run->ready_space)
	{
		run->ready_space = Max(run->ready_space * 2, 256);
		run->ready = run->ready == NULL ?
			MemoryContextAlloc(run->batch->context, run->ready_space * sizeof(ReadyStep)) :
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

	if (task->plan->one_at_a_time)
		return;
	for (int i = step->child_count - 1; i >= 0; i--)
		if (graph_is_ready(task, step->children[i]))
			push_ready(run, task, step->children[i]);
}

/*
 * Where steps run one at a time, the next one's turn has come.
 */
static void
push_turn(Run *run, TaskRun *task)
{
	int			step_no = task->plan->one_at_a_time && graph_goes_on(task) ? graph_turn(task) : 0;

	if (step_no > 0 && !task->steps[step_no - 1].queued)
		push_ready(run, task, step_no);
}

/*
 * Puts the steps whose tokens are at hand on the stack.
 */
void
run_push_mine(Run *run)
{
	/* From the last to the first, so that the first comes to lie on top. */
	for (int i = list_length(run->batch->tasks) - 1; i >= 0; i--)
	{
		TaskRun    *task = list_nth(run->batch->tasks, i);

		for (int no = task->plan->step_count; no >= 1; no--)
		{
			StepRun    *step = &task->steps[no - 1];

			/* A token whose step somebody has dealt with is dropped. */
			step->mine = step->mine && (graph_is_ready(task, no) || step->state == STEP_WAITING);
			if (step->mine)
				push_ready(run, task, no);
		}
	}
}

/*
 * Reads what the claimed tasks need, and finds what is ready.
 */
void
run_find_ready(Run *run)
{
	load_begun(run->batch);
	run_push_mine(run);
}

void
run_fail_step(Batch *batch, TaskRun *task, int step_no, ErrorData *error, bool retryable,
			  TimestampTz retry_at, TimestampTz at)
{
	const char *sqlstate = unpack_sql_state(error->sqlerrcode);
	bool		again = retryable && plan_step(task->plan, step_no)->retryable;

	graph_step_failed(batch, task, step_no,
					  graph_error(batch, error->message, sqlstate, error->detail, error->hint,
								  error->context, task->steps[step_no - 1].attempts, again, at),
					  error->message, sqlstate, retryable, retry_at, at);
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

static void
note_path(Run *run, const char *path)
{
	if (path == NULL || (run->path != NULL && strcmp(run->path, path) != 0))
		run->mixed_paths = true;
	else
		run->path = path;
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

	run_last_task = task->task_id;
	run_last_step = step_no;
	if (!run->in_place)
	{
		my_slot->task_id = task->task_id;
		my_slot->step_no = step_no;
		my_slot->since = at;
		/* Before a long run: what else may wait is for somebody else. */
		if (!handler_is_fast(handler))
			wake_executors(my_database, 1);
	}
	graph_step_started(batch, task, step_no, at);
	handler_run(batch, task, step_no, run->in_place, &outcome);
	run->ran++;
	run->writing += outcome.wrote;
	note_path(run, handler->search_path);
	if (!run->in_place)
		my_slot->task_id = 0;
	at = tasker_now();

	run->closed |= outcome.ends_batch;
	if (outcome.ok)
	{
		handler_timed(handler, outcome.us);
		run->slow = run->slow || !handler_is_fast(handler);
		graph_step_completed(batch, task, step_no, outcome.results, at);
		push_children(run, task, step_no);
	}
	else if (!run->in_place && handler_is_suspect(outcome.error->sqlerrcode) && step->tries == 0 &&
			 !(run->alone && run->ran == 1))
		put_suspect_back(run, task, step_no, &before, moves_before, at);
	else
	{
		if (outcome.timed_out)
			handler_timed(handler, outcome.us);
		run_fail_step(batch, task, step_no, outcome.error,
					  outcome.error->sqlerrcode != ERRCODE_TASKER_PERMANENT &&
					  handler->problem == NULL,
					  outcome.retry_after >= 0 ? at + outcome.retry_after : 0, at);
	}
}

/*
 * Whether the task has other steps waiting on the stack: an executor beside
 * this one could run them.
 */
static bool
has_siblings(Run *run, TaskRun *task)
{
	for (int i = run->ready_count - 1; i >= 0; i--)
		if (run->ready[i].task == task)
			return true;
	return false;
}

/*
 * Whether the handler may run here and now.  One that is slow, or may be, runs
 * where nothing else waits for this transaction to end: no other token that was
 * claimed or queued in it, no sibling, no finished step.
 */
static bool
may_run_here(Run *run, TaskRun *task, Handler *handler)
{
	if (run->closed)
		return false;
	if (run->in_place)
		return true;
	if (handler_is_fast(handler) && !handler->own_transaction)
		return true;
	return run->claimed == 1 && run->ran == 0 && run->queued == 0 && !has_siblings(run, task);
}

static bool
time_is_up(Run *run)
{
	if (run->in_place)
		return false;
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
	run_fail_step(run->batch, task, step_no, &error, false, 0, at);
}

/*
 * Whether a secret that the step needs is not set: then it has failed for good.
 */
static bool
fail_without_secret(Run *run, TaskRun *task, int step_no, TimestampTz at)
{
	PlanStep   *step = plan_step(task->plan, step_no);
	ErrorData	error = {0};

	if (step->secrets == NULL || !secret_is_missing(step->secrets, step->name, &error))
		return false;
	run_fail_step(run->batch, task, step_no, &error, false, 0, at);
	return true;
}

/*
 * Fails the step that the transaction is there to fail.
 */
static void
fail_doomed(Run *run, TaskRun *task, int step_no)
{
	TimestampTz now = tasker_now();
	SecretUse  *secrets = plan_step(task->plan, step_no)->secrets;

	if (secrets != NULL)
		secret_hide_in_error(secret_mask_now(secrets, run->batch->context), run->doom->error);
	graph_step_started(run->batch, task, step_no, now);
	run_fail_step(run->batch, task, step_no, run->doom->error, true, 0, now);
	run->doom->done = true;
}

/*
 * step_no 0: any step of the task.
 */
static bool
is_doomed(Run *run, TaskRun *task, int step_no)
{
	return run->doom != NULL && run->doom->task_id == task->task_id &&
		(step_no == 0 || run->doom->step_no == step_no);
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
	run_fail_step(run->batch, task, step_no, &error, true, 0, now);
}

static void
fail_crashing(Run *run, TaskRun *task, int step_no, int crashes)
{
	ErrorData	error = {0};

	error.sqlerrcode = ERRCODE_CRASH_SHUTDOWN;
	error.message = psprintf("the server crashed %d times while this step ran", crashes);
	error.detail = pstrdup("Each time its executor died in the middle of its handler.");
	error.hint = pstrdup("See the server log for the cause; retry the step when it is gone.");
	run_fail_step(run->batch, task, step_no, &error, false, 0, tasker_now());
}

/*
 * As many steps as a limit allows are in progress: the token waits for one of
 * them to end.
 */
static void
park(Run *run, TaskRun *task, int step_no, int32 limit)
{
	StepRun    *step = &task->steps[step_no - 1];

	if (run->in_place)
		ereport(ERROR,
				errcode(ERRCODE_TASKER_NOT_ALLOWED),
				errmsg("a limit on the steps in progress is reached"),
				errdetail("Step \"%s\" stands under it.", plan_step(task->plan, step_no)->name),
				errhint("Try again later, or create the task with tasker.create_task()."));
	graph_queue_step(run->batch, task, step_no,
					 step->tries > 0 ? LANE_ALONE :
					 handler_lane(plan_step(task->plan, step_no)->handler), tasker_now());
	step->parked = limit;
	run->queued++;
}

/*
 * Whether no limit keeps the step from running now; else it is parked.
 */
static bool
passes_limits(Run *run, TaskRun *task, int step_no)
{
	PlanStep   *step = plan_step(task->plan, step_no);
	int32		limit;

	if (step->limit_count == 0)
		return true;
	if (run->in_place)
		tasker_note_kept(true);
	if (limit_take(step->limits, step->limit_count, &limit))
		return true;
	park(run, task, step_no, limit);
	return false;
}

/*
 * A step of which an executor died before.  It is run alone, so that it takes
 * nobody's work with it, and later the more often it happened, so that others
 * come first; or not at all any more.
 */
static void
run_suspect(Run *run, TaskRun *task, int step_no)
{
	TimestampTz now = tasker_now();
	TimestampTz last_at = 0;
	int			crashes = 0;
	bool		overran = false;
	bool		ended = true;

	if (suspects_look_up(task->task_id, step_no, &crashes, &last_at, &overran))
		last_at += crashes * CRASH_DELAY_US;
	if (overran)
		fail_overran(run, task, step_no);
	else if (crashes >= tasker_max_crashes)
		fail_crashing(run, task, step_no, crashes);
	else if (run->alone && !run->closed && run->ran == 0 && last_at <= now)
	{
		int			attempts = task->steps[step_no - 1].attempts;

		if (!passes_limits(run, task, step_no))
			return;
		run_step(run, task, step_no);
		/* One that was put back for a lock is still to be run. */
		ended = task->steps[step_no - 1].attempts != attempts;
	}
	else
	{
		graph_queue_step(run->batch, task, step_no, LANE_ALONE, Max(last_at, now));
		run->queued++;
		ended = false;
	}
	if (ended)
	{
		suspects_clear(task->task_id, step_no);
		run->cleared = true;
	}
}

/*
 * Deals with one step that is ready: runs it, or sees to it that somebody does.
 */
static void
run_next(Run *run, TaskRun *task, int step_no)
{
	PlanStep   *step = plan_step(task->plan, step_no);
	StepRun    *state = &task->steps[step_no - 1];
	TimestampTz now;

	if (is_doomed(run, task, step_no))
	{
		fail_doomed(run, task, step_no);
		return;
	}
	if (state->state == STEP_PENDING && graph_bypasses(task, step_no))
	{
		graph_step_skipped(run->batch, task, step_no, tasker_now());
		push_children(run, task, step_no);
		return;
	}
	now = tasker_now();
	if (!run->in_place && graph_time_is_up(task, now))
	{
		/* Nothing starts any more; the deadline's own token ends the task. */
		graph_queue_step(run->batch, task, step_no, handler_lane(step->handler), now);
		run->queued++;
		return;
	}
	if (step->handler->kind == HANDLER_SQL && fail_without_secret(run, task, step_no, now))
		return;
	if (step->handler->kind == HANDLER_SQL && suspects_has(task->task_id, step_no))
	{
		run_suspect(run, task, step_no);
		if (!run->closed)
			run->closed = time_is_up(run);
		return;
	}
	if (step->handler->kind == HANDLER_SQL && may_run_here(run, task, step->handler))
	{
		if (!passes_limits(run, task, step_no))
			return;
		run_step(run, task, step_no);
		if (!run->closed)
			run->closed = time_is_up(run);
		return;
	}
	if (step->handler->kind == HANDLER_MISSING)
		fail_missing(run, task, step_no, now);
	else
	{
		graph_queue_step(run->batch, task, step_no,
						 state->tries > 0 && step->handler->kind == HANDLER_SQL ?
						 LANE_ALONE : handler_lane(step->handler), now);
		run->queued++;
		run->slow = run->slow || !handler_is_fast(step->handler);
	}
}

/*
 * Runs what is ready until nothing is, or the batch has to end.
 */
void
run_ready(Run *run)
{
	while (run->ready_count > 0)
	{
		ReadyStep	next = run->ready[--run->ready_count];
		TaskRun    *task = next.task;

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
		run_next(run, task, next.step_no);
		push_turn(run, task);
	}
}

/*
 * Has the steps that wait for their retry run at once; returns how many.
 */
int
run_waiting_now(Run *run)
{
	int			count = 0;
	ListCell   *cell;

	foreach(cell, run->batch->tasks)
	{
		TaskRun    *task = lfirst(cell);

		for (int no = task->plan->step_count; no >= 1; no--)
			if (task->steps[no - 1].state == STEP_WAITING && graph_goes_on(task))
			{
				task->steps[no - 1].queued = false;
				push_ready(run, task, no);
				count++;
			}
	}
	return count;
}
