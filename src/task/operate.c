/*
 * operate.c
 *	  What an operator does to a task or a step: cancel, pause, resume, retry,
 *	  resolve.
 *
 * Each holds the task alone, so no token of it is in anybody's hands, changes
 * the graph in memory, and writes it through the state room.  What then waits
 * is worked out anew: all tokens go, and every step that is ready or waits for
 * its retry gets one.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "access/access.h"
#include "engine/plan.h"
#include "state/state.h"
#include "statement.h"
#include "tasker.h"

PG_FUNCTION_INFO_V1(tasker_operate_task);
PG_FUNCTION_INFO_V1(tasker_operate_step);

/*
 * The tokens first, then the task, as everybody does who has both.  Those of
 * leases may be in the hands of a worker outside, who does not hold the task.
 */
static Statement lock_tokens = {
	.sql = "SELECT FROM tasker.queue AS q WHERE q.task_id = $1 "
	"ORDER BY q.step_no FOR UPDATE",
	.arg_count = 1,
	.arg_types = {INT8OID},
};

/* Every token but those named: the deadline, the leases of what is in progress. */
static Statement delete_waiting = {
	.sql = "DELETE FROM tasker.queue "
	"WHERE task_id = $1 AND step_no <> ALL ($2)",
	.arg_count = 2,
	.arg_types = {INT8OID, INT2ARRAYOID},
};

/* The oldest error of a task's steps but the one that is being dealt with. */
static Statement first_error = {
	.sql = "SELECT s.error FROM tasker.step AS s "
	"WHERE s.task_id = $1 AND s.step_no <> $2 AND s.state = 4 "
	"ORDER BY s.finished_at, s.step_no LIMIT 1",
	.arg_count = 2,
	.arg_types = {INT8OID, INT2OID},
};

/* The one operation at work. */
typedef struct Operation
{
	const char *name;
	Batch	   *batch;
	TaskRun    *task;
	int			step_no;		/* 0: on the task */
	Jsonb	   *results;
	char	   *reason;
	TimestampTz now;
} Operation;

/*
 * Takes the task for the operator alone.
 */
static void
begin(Operation *op, int64 task_id, MemoryContext context)
{
	Datum		value;

	if (hold_is_mine(task_id))
		ereport(ERROR,
				errcode(ERRCODE_TASKER_NOT_ALLOWED),
				errmsg("a handler can't operate on a task of its own transaction"),
				errdetail("Task " INT64_FORMAT " is being run in it.", task_id),
				errhint("Let the step fail or complete; the task follows from that."));
	hold_alone(task_id);
	SPI_connect();
	plan_cache_refresh();
	value = Int64GetDatum(task_id);
	statement_run(&lock_tokens, &value, NULL);
	op->batch = batch_create(context);
	load_locked(op->batch, &task_id, 1);
	/* Not before what a worker outside did until now. */
	op->now = tasker_now();
	op->task = batch_find_task(op->batch, task_id);
}

static bool
is_untouched(TaskRun *task)
{
	if (task->state != TASK_PENDING)
		return false;
	for (int i = 0; i < task->plan->step_count; i++)
		if (task->steps[i].has_row || task->steps[i].changed)
			return false;
	return true;
}

/*
 * Works out anew what waits.  touch: the steps may have rows now, so a start
 * token, which promises that there are none, does not do.
 */
static void
requeue(Operation *op, bool touch)
{
	TaskRun    *task = op->task;
	int			count = task->plan->step_count;
	Datum	   *keep = palloc((count + 1) * sizeof(Datum));
	Datum		values[2];
	int			n = 0;

	for (int no = 1; no <= count; no++)
		if (task->steps[no - 1].state == STEP_IN_PROGRESS)
			keep[n++] = Int16GetDatum(no);
	/* Who ended the task may have passed by the deadline, which we had locked. */
	if (task->deadline != 0 && !task_has_ended(task->state))
		keep[n++] = Int16GetDatum(TOKEN_DEADLINE);
	values[0] = Int64GetDatum(task->task_id);
	values[1] = PointerGetDatum(construct_array(keep, n, INT2OID, 2, true, TYPALIGN_SHORT));
	statement_run(&delete_waiting, values, NULL);

	if (!graph_goes_on(task))
		return;
	if (!touch && is_untouched(task))
	{
		task->put_back = true;
		return;
	}
	for (int no = 1; no <= count; no++)
	{
		StepRun    *step = &task->steps[no - 1];
		int32		lane = handler_lane(plan_step(task->plan, no)->handler);

		if (step->state == STEP_WAITING)
			graph_queue_step(op->batch, task, no, lane, step->next_attempt_at);
		else if (graph_is_ready(task, no))
			graph_queue_step(op->batch, task, no, lane,
							 task->state == TASK_PENDING ? Max(task->run_at, op->now) : op->now);
	}
}

/*
 * A step that was in error may be so no more.  The task's error is from now on
 * that of the one which failed first of those that still are.
 */
static void
take_error_anew(Operation *op)
{
	TaskRun    *task = op->task;
	Datum		values[2] = {Int64GetDatum(task->task_id), Int16GetDatum(op->step_no)};

	if (task->error == NULL && task->errors == 0)
		return;
	task->error = NULL;
	task->changed = true;
	if (task->errors > 0 && statement_run(&first_error, values, NULL) > 0)
		task->error = row_jsonb(0, 1, op->batch->context);
}

/*
 * A task in error whose steps are dealt with goes on.
 */
static void
reopen(Operation *op)
{
	if (op->task->state == TASK_ERROR)
		graph_task_moved(op->batch, op->task, TASK_PENDING, op->reason, op->now);
	take_error_anew(op);
}

static void
retry_task(Operation *op)
{
	TaskRun    *task = op->task;

	/* From some states a task gets to pending, too, but not by being retried. */
	if (task->state != TASK_ERROR &&
		state_move_allowed(MACHINE_TASK, task->state, TASK_PENDING))
		ereport(ERROR,
				errcode(ERRCODE_TASKER_ILLEGAL_MOVE),
				errmsg("a task that is %s can't be retried", state_name(MACHINE_TASK, task->state)),
				errdetail("Task " INT64_FORMAT " is %s.", task->task_id,
						  state_name(MACHINE_TASK, task->state)),
				task->state == TASK_PAUSED ?
				errhint("Only a task in error can be. This one goes on by tasker.resume_task().") :
				errhint("Only a task in error can be. A step of it that failed goes on by tasker.retry_step()."));
	if (task->state != TASK_ERROR)
		state_refuse(MACHINE_TASK, task->task_id, task->state, TASK_PENDING);
	for (int no = 1; no <= task->plan->step_count; no++)
		if (task->steps[no - 1].state == STEP_ERROR)
			graph_step_retried(op->batch, task, no, op->now);
	reopen(op);
}

static void
resume_task(Operation *op)
{
	TaskRun    *task = op->task;
	/* One that was paused between its reopening and its next start gets its time there. */
	bool		started = task->started_at != 0 &&
		(task->plan->timeout == 0 || task->deadline != 0);

	if (task->state != TASK_PAUSED)
		state_refuse(MACHINE_TASK, task->task_id, task->state,
					 started ? TASK_IN_PROGRESS : TASK_PENDING);
	graph_task_moved(op->batch, task, started ? TASK_IN_PROGRESS : TASK_PENDING,
					 op->reason, op->now);
}

static void
operate_on_task(Operation *op)
{
	TaskRun    *task = op->task;

	if (strcmp(op->name, "cancel") == 0)
		graph_task_cancelled(op->batch, task, op->reason, op->now);
	else if (strcmp(op->name, "pause") == 0)
		graph_task_moved(op->batch, task, TASK_PAUSED, op->reason, op->now);
	else if (strcmp(op->name, "resume") == 0)
		resume_task(op);
	else if (strcmp(op->name, "retry") == 0)
		retry_task(op);
	else if (strcmp(op->name, "resolve") == 0)
		graph_task_moved(op->batch, task, TASK_RESOLVED, op->reason, op->now);
	else
		elog(ERROR, "unknown operation \"%s\"", op->name);
}

/*
 * A step of a task that an operator has ended is not to be dealt with; where
 * the task is in error, it goes on.
 */
static void
operate_on_step(Operation *op)
{
	TaskRun    *task = op->task;
	bool		in_error = task->state == TASK_ERROR;

	if (strcmp(op->name, "update") == 0)
		return;
	if (task_has_ended(task->state) && !in_error)
		state_refuse(MACHINE_TASK, task->task_id, task->state, TASK_PENDING);
	if (strcmp(op->name, "cancel") == 0)
	{
		graph_step_cancelled(op->batch, task, op->step_no, op->reason, op->now);
		if (!in_error)
			take_error_anew(op);
	}
	else if (strcmp(op->name, "retry") == 0)
	{
		graph_step_retried(op->batch, task, op->step_no, op->now);
		reopen(op);
	}
	else if (strcmp(op->name, "resolve") == 0)
	{
		graph_step_resolved(op->batch, task, op->step_no, op->results, op->reason, op->now);
		reopen(op);
	}
	else
		elog(ERROR, "unknown operation \"%s\"", op->name);
}

/*
 * Saves and lets the task go; returns the new state.
 */
static Datum
finish(Operation *op)
{
	const char *state;

	write_batch(op->batch);
	state = op->step_no > 0 ?
		state_name(MACHINE_STEP, op->task->steps[op->step_no - 1].state) :
		state_name(MACHINE_TASK, op->task->state);
	SPI_finish();
	hold_release(op->task->task_id);
	return CStringGetTextDatum(state);
}

/*
 * tasker._operate_task(operation text, task_id bigint, reason text)
 */
Datum
tasker_operate_task(PG_FUNCTION_ARGS)
{
	Operation	op = {.name = text_to_cstring(PG_GETARG_TEXT_PP(0))};
	int64		task_id = PG_GETARG_INT64(1);

	op.reason = PG_ARGISNULL(2) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(2));
	begin(&op, task_id, CurrentMemoryContext);
	if (op.task == NULL)
		access_refuse_unknown("task", task_id, false);
	operate_on_task(&op);
	requeue(&op, false);
	PG_RETURN_DATUM(finish(&op));
}

/*
 * tasker._operate_step(operation text, step_id bigint, results jsonb, reason text)
 */
Datum
tasker_operate_step(PG_FUNCTION_ARGS)
{
	Operation	op = {.name = text_to_cstring(PG_GETARG_TEXT_PP(0))};
	int64		step_id = PG_GETARG_INT64(1);

	op.results = PG_ARGISNULL(2) ? NULL : PG_GETARG_JSONB_P(2);
	op.reason = PG_ARGISNULL(3) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(3));
	op.step_no = step_id & TASKER_MAX_STEPS;
	begin(&op, step_id >> TASKER_STEP_BITS, CurrentMemoryContext);
	if (op.task == NULL || op.step_no < 1 || op.step_no > op.task->plan->step_count)
		access_refuse_unknown("step", step_id, false);
	operate_on_step(&op);
	requeue(&op, true);
	PG_RETURN_DATUM(finish(&op));
}
