/*
 * write.c
 *	  Saves what a batch has moved: each table once, whatever the batch.
 *
 * A task that nobody else can be at work on is written as it is.  One whose
 * steps are spread over several claims is locked first, in the order of ids,
 * and looked at again: whoever is last to finish a parent sees all of them
 * finished, and so exactly one of them queues the step behind.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "shared_memory.h"
#include "state/state.h"
#include "state/store.h"
#include "statement.h"
#include "tasker.h"

static Statement lock_tasks = {
	.sql = "SELECT t.task_id, t.state, t.error, t.finished_at "
	"FROM unnest($1) AS w (task_id) "
	"JOIN tasker.task AS t ON t.task_id = w.task_id "
	"ORDER BY t.task_id "
	"FOR NO KEY UPDATE OF t",
	.arg_count = 1,
	.arg_types = {INT8ARRAYOID},
};

/* The latest error stays to be seen until the step is complete. */
static Statement update_steps = {
	.sql = "UPDATE tasker.step AS s "
	"SET state = w.state, attempts = w.attempts, started_at = w.started_at, "
	"finished_at = w.finished_at, next_attempt_at = w.next_attempt_at, results = w.results, "
	"error = CASE WHEN w.state = 3 THEN NULL ELSE coalesce(w.error, s.error) END, "
	"retry_limit = w.retry_limit, claimed_by = w.claimed_by, lease_until = w.lease_until "
	"FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) "
	"AS w (task_id, step_no, state, attempts, started_at, finished_at, next_attempt_at, "
	"results, error, retry_limit, claimed_by, lease_until) "
	"WHERE s.task_id = w.task_id AND s.step_no = w.step_no",
	.arg_count = 12,
	.arg_types = {INT8ARRAYOID, INT2ARRAYOID, INT2ARRAYOID, INT2ARRAYOID,
		TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, JSONBARRAYOID,
		JSONBARRAYOID, INT2ARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID},
};

static Statement update_tasks = {
	.sql = "UPDATE tasker.task AS t "
	"SET state = w.state, started_at = coalesce(w.started_at, t.started_at), "
	"finished_at = w.finished_at, error = w.error "
	"FROM unnest($1, $2, $3, $4, $5) AS w (task_id, state, started_at, finished_at, error) "
	"WHERE t.task_id = w.task_id",
	.arg_count = 5,
	.arg_types = {INT8ARRAYOID, INT2ARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID,
	JSONBARRAYOID},
};

/*
 * Tokens that a task leaves behind when it ends.  One that somebody has in hand is
 * passed by: he may wait for the task's row, which is locked here.
 */
static Statement find_tokens = {
	.sql = "SELECT q.task_id FROM unnest($1) AS w (task_id) "
	"JOIN tasker.queue AS q ON q.task_id = w.task_id",
	.arg_count = 1,
	.arg_types = {INT8ARRAYOID},
};

static Statement delete_tokens = {
	.sql = "DELETE FROM tasker.queue WHERE ctid = ANY (ARRAY("
	"SELECT q.ctid FROM unnest($1) AS w (task_id) "
	"JOIN tasker.queue AS q ON q.task_id = w.task_id "
	"FOR UPDATE OF q SKIP LOCKED))",
	.arg_count = 1,
	.arg_types = {INT8ARRAYOID},
};

/* When it is looked again for what others had in hand; twice as late each time. */
#define SWEEP_DELAY_US		(50 * INT64CONST(1000))
#define MAX_SWEEP_DOUBLINGS	10

/* Rows in the making, a column an array. */
typedef struct Rows
{
	int			count;
	int			space;
	int			columns;
	Datum	   *values[STATEMENT_MAX_ARGS];
	bool	   *nulls[STATEMENT_MAX_ARGS];
} Rows;

static void
rows_init(Rows *rows, int columns)
{
	memset(rows, 0, sizeof(Rows));
	rows->columns = columns;
}

/* Starts a row in which everything is null. */
static void
rows_next(Rows *rows)
{
	if (rows->count == rows->space)
	{
		int			space = Max(rows->space * 2, 128);

		for (int i = 0; i < rows->columns; i++)
		{
			rows->values[i] = rows->space == 0 ? palloc(space * sizeof(Datum)) :
				repalloc(rows->values[i], space * sizeof(Datum));
			rows->nulls[i] = rows->space == 0 ? palloc(space * sizeof(bool)) :
				repalloc(rows->nulls[i], space * sizeof(bool));
		}
		rows->space = space;
	}
	for (int i = 0; i < rows->columns; i++)
		rows->nulls[i][rows->count] = true;
	rows->count++;
}

static void
rows_set(Rows *rows, int column, Datum value)
{
	rows->values[column][rows->count - 1] = value;
	rows->nulls[column][rows->count - 1] = false;
}

static void
rows_set_time(Rows *rows, int column, TimestampTz time)
{
	if (time != 0)
		rows_set(rows, column, TimestampTzGetDatum(time));
}

static void
rows_set_jsonb(Rows *rows, int column, Jsonb *value)
{
	if (value != NULL)
		rows_set(rows, column, JsonbPGetDatum(value));
}

/* Runs the statement over the rows, which are its arguments; returns how many it had. */
static uint64
rows_run(Rows *rows, Statement *statement)
{
	Datum		arrays[STATEMENT_MAX_ARGS];

	if (rows->count == 0)
		return 0;
	for (int i = 0; i < rows->columns; i++)
	{
		Oid			type = get_element_type(statement->arg_types[i]);
		int16		len;
		bool		byval;
		char		align;
		int			lower = 1;

		get_typlenbyvalalign(type, &len, &byval, &align);
		arrays[i] = PointerGetDatum(construct_md_array(rows->values[i], rows->nulls[i], 1,
													   &rows->count, &lower, type, len, byval,
													   align));
	}
	return statement_run(statement, arrays, NULL);
}

static int
compare_ids(const ListCell *a, const ListCell *b)
{
	int64		left = ((TaskRun *) lfirst(a))->task_id;
	int64		right = ((TaskRun *) lfirst(b))->task_id;

	return left < right ? -1 : left > right;
}

/*
 * Whether what this batch did has made the step ready, so that it is this batch
 * that has to see to it.  What was ready before is in somebody's hands.
 */
static bool
became_ready(TaskRun *task, int step_no)
{
	PlanStep   *step = plan_step(task->plan, step_no);

	if (!graph_is_ready(task, step_no) || task->steps[step_no - 1].queued)
		return false;
	/* Whatever ends gives the turn to the next. */
	for (int i = 0; task->plan->one_at_a_time && i < task->plan->step_count; i++)
		if (task->steps[i].changed)
			return true;
	for (int i = 0; i < step->parent_count; i++)
	{
		StepRun    *parent = &task->steps[step->parents[i] - 1];

		if (parent->changed && step_satisfies(parent->state))
			return true;
	}
	return false;
}

/*
 * Queues the steps that only what this batch did, together with what others
 * did meanwhile, has made ready.
 */
static void
queue_what_became_ready(Batch *batch, TaskRun *task, TimestampTz now)
{
	TaskPlan   *plan = task->plan;

	/* A bypassed step is skipped when it is reached, which may reach others. */
	for (bool again = true; again;)
	{
		again = false;
		for (int no = 1; no <= plan->step_count; no++)
			if (became_ready(task, no) && graph_bypasses(task, no))
			{
				graph_step_skipped(batch, task, no, now);
				again = true;
			}
	}
	for (int no = 1; no <= plan->step_count; no++)
		if (became_ready(task, no))
			graph_queue_step(batch, task, no, handler_lane(plan_step(plan, no)->handler), now);
}

/*
 * The task's state as it stands now, under its lock.  Where somebody else has
 * started or ended it meanwhile, that holds.
 */
static void
take_task_state(Batch *batch, TaskRun *task, int state)
{
	if (state == task->loaded_state)
		return;
	graph_forget_start(batch, task);
	task->state = task->loaded_state = state;
	/* Of one that somebody else has ended the row is theirs. */
	task->changed = task->error != NULL && !task_has_ended(state);
}

/*
 * Locks the tasks that others may be at work on and takes in what they did.
 * write_batch() does it; before that, who must not begin anything in a task that
 * has ended meanwhile.
 */
void
write_lock_tasks(Batch *batch)
{
	List	   *shared = NIL;
	Datum		ids;
	uint64		rows;
	ListCell   *cell;

	foreach(cell, batch->tasks)
	{
		TaskRun    *task = lfirst(cell);

		if (task->shared && !task->locked)
			shared = lappend(shared, task);
	}
	if (shared == NIL)
		return;

	list_sort(shared, compare_ids);
	ids = load_ids(shared);
	rows = statement_run(&lock_tasks, &ids, NULL);
	for (uint64 row = 0; row < rows; row++)
	{
		bool		isnull;
		TaskRun    *task = batch_find_task(batch, DatumGetInt64(row_value(row, 1, &isnull)));
		Jsonb	   *error;

		take_task_state(batch, task, DatumGetInt16(row_value(row, 2, &isnull)));
		task->finished_at = row_time(row, 4);
		/* The error that came first stays the task's. */
		error = row_jsonb(row, 3, batch->context);
		if (error != NULL)
			task->error = error;
	}
	SPI_freetuptable(SPI_tuptable);

	load_step_states(batch, shared);
	foreach(cell, shared)
		((TaskRun *) lfirst(cell))->locked = true;
}

/*
 * Queues what the batch made ready, in the tasks that have begun.
 */
static void
queue_ready(Batch *batch, TimestampTz now)
{
	ListCell   *cell;

	foreach(cell, batch->tasks)
	{
		TaskRun    *task = lfirst(cell);

		/* One that starts from its beginning must have no rows of steps yet. */
		if (!task->shared || task->put_back)
			continue;
		if (graph_goes_on(task))
		{
			queue_what_became_ready(batch, task, now);
			continue;
		}
		/* Nothing of it goes on, but leases end all the same. */
		for (int i = 0; i < task->plan->step_count; i++)
			if (task->steps[i].state != STEP_IN_PROGRESS)
				task->steps[i].queued = false;
	}
}

static void
add_time(TupleTableSlot *slot, int column, TimestampTz time)
{
	if (time != 0)
		store_set(slot, column, TimestampTzGetDatum(time));
}

/*
 * A row of a step that has none yet.
 */
static void
append_step(TaskRun *task, int step_no)
{
	StepRun    *step = &task->steps[step_no - 1];
	TupleTableSlot *slot = store_next(&store_step);

	store_set(slot, Anum_step_task_id, Int64GetDatum(task->task_id));
	store_set(slot, Anum_step_step_no, Int16GetDatum(step_no));
	store_set(slot, Anum_step_state, Int16GetDatum(step->state));
	store_set(slot, Anum_step_attempts, Int16GetDatum(step->attempts));
	add_time(slot, Anum_step_started_at, step->started_at);
	add_time(slot, Anum_step_finished_at, step->finished_at);
	add_time(slot, Anum_step_next_attempt_at, step->next_attempt_at);
	add_time(slot, Anum_step_lease_until, step->lease_until);
	if (step->retry_limit >= 0)
		store_set(slot, Anum_step_retry_limit, Int16GetDatum(step->retry_limit));
	if (step->results != NULL)
		store_set(slot, Anum_step_results, JsonbPGetDatum(step->results));
	if (step->error != NULL)
		store_set(slot, Anum_step_error, JsonbPGetDatum(step->error));
	if (step->claimed_by != NULL)
		store_set(slot, Anum_step_claimed_by, CStringGetTextDatum(step->claimed_by));
}

static void
append_steps(Batch *batch)
{
	ListCell   *cell;

	store_begin(&store_step);
	foreach(cell, batch->tasks)
	{
		TaskRun    *task = lfirst(cell);

		for (int no = 1; no <= task->plan->step_count; no++)
			if (task->steps[no - 1].changed && !task->steps[no - 1].has_row)
				append_step(task, no);
	}
	store_end(&store_step);
}

static void
add_step(Rows *rows, TaskRun *task, int step_no)
{
	StepRun    *step = &task->steps[step_no - 1];

	rows_next(rows);
	rows_set(rows, 0, Int64GetDatum(task->task_id));
	rows_set(rows, 1, Int16GetDatum(step_no));
	rows_set(rows, 2, Int16GetDatum(step->state));
	rows_set(rows, 3, Int16GetDatum(step->attempts));
	rows_set_time(rows, 4, step->started_at);
	rows_set_time(rows, 5, step->finished_at);
	rows_set_time(rows, 6, step->next_attempt_at);
	rows_set_jsonb(rows, 7, step->results);
	rows_set_jsonb(rows, 8, step->error);
	if (step->retry_limit >= 0)
		rows_set(rows, 9, Int16GetDatum(step->retry_limit));
	if (step->claimed_by != NULL)
		rows_set(rows, 10, CStringGetTextDatum(step->claimed_by));
	rows_set_time(rows, 11, step->lease_until);
}

/*
 * A lease has ended: who waits for its limit goes on.
 */
static void
unpark(PlanStep *step)
{
	for (int i = 0; i < step->limit_count; i++)
		limit_unpark(step->limits[i].limit_id, 1);
	/* Steps for workers outside stay in their lanes. */
	if (step->limit_count > 0)
		tasker_note_external_ready();
}

static void
add_task(Rows *rows, TaskRun *task)
{
	rows_next(rows);
	rows_set(rows, 0, Int64GetDatum(task->task_id));
	rows_set(rows, 1, Int16GetDatum(task->state));
	rows_set_time(rows, 2, task->started_at);
	rows_set_time(rows, 3, task->finished_at);
	rows_set_jsonb(rows, 4, task->error);
}

/*
 * Saves the task in the row that was read when it was claimed; false where it
 * was not claimed, or its row has changed since.
 */
static bool
update_task(TaskRun *task)
{
	int			columns[] = {Anum_task_state, Anum_task_started_at, Anum_task_finished_at,
	Anum_task_error};
	Datum		values[] = {Int16GetDatum(task->state), TimestampTzGetDatum(task->started_at),
	TimestampTzGetDatum(task->finished_at), PointerGetDatum(task->error)};
	bool		nulls[] = {false, task->started_at == 0, task->finished_at == 0,
	task->error == NULL};

	return task->row != NULL &&
		store_update(&store_task, task->row, columns, values, nulls, lengthof(columns));
}

/*
 * Saves the tasks that have moved: where it can be done row by row, and those
 * left over by a statement.
 */
static void
write_tasks(Batch *batch)
{
	Rows		rows;
	ListCell   *cell;

	rows_init(&rows, 5);
	store_begin(&store_task);
	foreach(cell, batch->tasks)
	{
		TaskRun    *task = lfirst(cell);

		if (task->changed && !update_task(task))
			add_task(&rows, task);
	}
	store_end(&store_task);
	rows_run(&rows, &update_tasks);
}

/*
 * Deletes the tokens of tasks that have ended.  Who has one in hand does not always
 * take it away: a worker is refused and rolls back, a retry that fell due is moved.
 * So a task that has any left gets a token of its own, which has it swept later.
 */
static void
delete_tokens_of(Batch *batch, Rows *ended)
{
	uint64		found;
	uint64		left;

	if (ended->count == 0)
		return;
	found = rows_run(ended, &find_tokens);
	SPI_freetuptable(SPI_tuptable);
	if (found == 0 || rows_run(ended, &delete_tokens) == found)
		return;
	left = rows_run(ended, &find_tokens);
	for (uint64 row = 0; row < left; row++)
	{
		bool		isnull;

		batch_find_task(batch, DatumGetInt64(row_value(row, 1, &isnull)))->remains = true;
	}
	SPI_freetuptable(SPI_tuptable);
}

/*
 * A token, between store_begin() and store_end() of the queue: for this lane, and
 * from there for `then`, where that is another one.
 */
void
write_token(int64 task_id, int step_no, int32 lane, int32 then, int32 priority, TimestampTz due,
			int tries)
{
	TupleTableSlot *slot = store_next(&store_queue);
	int32		rank = lane == LANE_NOT_DUE ? 0 : -priority;

	store_set(slot, Anum_queue_due, TimestampTzGetDatum(due));
	store_set(slot, Anum_queue_task_id, Int64GetDatum(task_id));
	store_set(slot, Anum_queue_lane, Int32GetDatum(lane));
	store_set(slot, Anum_queue_rank, Int32GetDatum(rank));
	if (then != lane)
		store_set(slot, Anum_queue_due_lane, Int32GetDatum(then));
	store_set(slot, Anum_queue_step_no, Int16GetDatum(step_no));
	store_set(slot, Anum_queue_tries, Int16GetDatum(tries));
	tasker_note_token(lane, rank, due);
}

/*
 * A token for the step, or one that is none of a step's.
 */
static void
add_token(Batch *batch, TaskRun *task, int step_no, TimestampTz now)
{
	StepRun		own = {.lane = LANE_BATCH, .due = task->run_at};
	const StepRun *step = step_no > 0 ? &task->steps[step_no - 1] : &own;
	TimestampTz due;
	bool		later;

	if (step_no < 0)
	{
		own.lane = LANE_NOT_DUE;
		own.due = task->deadline;
	}
	if (step_no == TOKEN_REMAINS)
	{
		own.due = now + (SWEEP_DELAY_US << Min(task->sweeps, MAX_SWEEP_DOUBLINGS));
		own.tries = task->sweeps;
	}
	due = step->due ? step->due : now;
	/* To the end of an executors' lane. */
	if (step->lane >= 0 && step->lane < LANE_API)
		due = Max(due, now);
	later = due > now || step->lane == LANE_NOT_DUE;

	/* A lease's end is acted on where it is. */
	write_token(task->task_id, step_no,
				later ? LANE_NOT_DUE : step->parked ? LANE_LIMITED(step->parked) : step->lane,
				step->lane, task->priority, due, step->tries);

	if (later)
		batch->next_due = Min(batch->next_due, due);
	else if (step->parked)
		return;
	else if (step->lane >= LANE_API)
		batch->external_tokens |= !(batch->for_outside && step->mine);
	else
		batch->sql_tokens++;
}

static void
write_tokens(Batch *batch, TimestampTz now)
{
	ListCell   *cell;

	store_begin(&store_queue);
	foreach(cell, batch->tasks)
	{
		TaskRun    *task = lfirst(cell);

		if (task->put_back)
			add_token(batch, task, 0, now);
		/* Its time begins to run with this batch. */
		if (task->plan->timeout > 0 && task->loaded_state == TASK_PENDING &&
			task->state == TASK_IN_PROGRESS)
			add_token(batch, task, TOKEN_DEADLINE, now);
		if (task->remains)
			add_token(batch, task, TOKEN_REMAINS, now);
		for (int no = 1; no <= task->plan->step_count; no++)
			if (task->steps[no - 1].queued)
				add_token(batch, task, no, now);
	}
	store_end(&store_queue);
}

/*
 * Saves everything, and notes whom the commit has to wake.
 */
void
write_batch(Batch *batch)
{
	MemoryContext before;
	MemoryContext context;
	TimestampTz now;
	Rows		old_steps;
	Rows		ended;
	ListCell   *cell;

	context = AllocSetContextCreate(batch->context, "tasker write", ALLOCSET_DEFAULT_SIZES);
	before = MemoryContextSwitchTo(context);

	write_lock_tasks(batch);
	/* Under the locks: not before what others did to the tasks until now. */
	now = tasker_now();
	queue_ready(batch, now);

	rows_init(&old_steps, 12);
	rows_init(&ended, 1);
	foreach(cell, batch->tasks)
	{
		TaskRun    *task = lfirst(cell);
		bool		ends;

		if (!task->put_back)
			graph_finish(batch, task, now);
		for (int no = 1; no <= task->plan->step_count; no++)
		{
			StepRun    *step = &task->steps[no - 1];

			if (step->lease_ended)
				unpark(plan_step(task->plan, no));
			if (step->changed && step->has_row)
				add_step(&old_steps, task, no);
		}
		ends = task->changed && task_has_ended(task->state);
		if (ends)
			tasker_note_task_ended(task->task_id);
		if ((ends && (task->shared || task->plan->timeout > 0)) || task->swept)
		{
			rows_next(&ended);
			rows_set(&ended, 0, Int64GetDatum(task->task_id));
		}
	}

	append_steps(batch);
	rows_run(&old_steps, &update_steps);
	write_tasks(batch);
	delete_tokens_of(batch, &ended);
	write_tokens(batch, now);
	log_append(batch->moves, batch->move_count);

	if (batch->sql_tokens > batch->takes_itself)
		tasker_note_ready(batch->sql_tokens - batch->takes_itself);
	if (batch->external_tokens)
		tasker_note_external_ready();
	if (batch->next_due < PG_INT64_MAX)
		tasker_note_due(batch->next_due);

	MemoryContextSwitchTo(before);
	MemoryContextDelete(context);
}
