/*
 * load.c
 *	  Reads tasks that have begun: the states of their steps, and the results
 *	  that the steps to come need.  One statement each, whatever the batch.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "state/state.h"
#include "state/store.h"
#include "statement.h"

/* Columns of LOAD_TASK_COLUMNS, which begin with the fourth of a statement. */
#define LOAD_FIRST		4

enum
{
	LOAD_PLAN_ID,
	LOAD_STATE,
	LOAD_PRIORITY,
	LOAD_STARTED_AT,
	LOAD_CONTEXT,
	LOAD_CORRELATION_ID,
	LOAD_TRACEPARENT,
	LOAD_BYPASS_STEPS,
	LOAD_ERROR,
	LOAD_RUN_AT,
	LOAD_COLUMNS
};

/* The operators' and workers' way in: the rows are locked in the order of ids. */
static Statement lock_and_read = {
	.sql = "SELECT t.task_id, 0::smallint, 0::smallint, " LOAD_TASK_COLUMNS " "
	"FROM tasker.task AS t "
	"WHERE t.task_id = ANY ($1) "
	"ORDER BY t.task_id "
	"FOR NO KEY UPDATE",
	.arg_count = 1,
	.arg_types = {INT8ARRAYOID},
};

static Statement read_states = {
	.sql = "SELECT s.task_id, s.step_no, s.state, s.attempts, s.retry_limit, s.inputs, "
	"s.next_attempt_at, s.started_at, s.claimed_by, s.lease_until "
	"FROM unnest($1) AS w (task_id) "
	"JOIN tasker.step AS s ON s.task_id = w.task_id",
	.arg_count = 1,
	.arg_types = {INT8ARRAYOID},
};

static Statement read_results = {
	.sql = "SELECT s.task_id, s.step_no, s.results "
	"FROM unnest($1, $2) AS w (task_id, step_no) "
	"JOIN tasker.step AS s ON s.task_id = w.task_id AND s.step_no = w.step_no",
	.arg_count = 2,
	.arg_types = {INT8ARRAYOID, INT2ARRAYOID},
};

/* When the time of a task is up, which a retry gives it anew: its token says. */
static Statement read_deadlines = {
	.sql = "SELECT q.task_id, q.due "
	"FROM unnest($1) AS w (task_id) "
	"JOIN tasker.queue AS q ON q.task_id = w.task_id AND q.step_no = -1",
	.arg_count = 1,
	.arg_types = {INT8ARRAYOID},
};

/*
 * The ids of these tasks (of TaskRun) as a statement's argument.
 */
Datum
load_ids(List *tasks)
{
	int64	   *ids = palloc(Max(list_length(tasks), 1) * sizeof(int64));
	ListCell   *cell;
	int			n = 0;

	foreach(cell, tasks)
		ids[n++] = ((TaskRun *) lfirst(cell))->task_id;
	return ids_argument(ids, n);
}

/*
 * A row of a task, with the columns of LOAD_TASK_COLUMNS as values.
 */
static TaskRun *
take_task(Batch *batch, int64 task_id, Datum *values, bool *nulls)
{
	/* Reading a plan uses SPI, too: the rows at hand are kept aside. */
	SPITupleTable *table = SPI_tuptable;
	TaskPlan   *plan = plan_get(DatumGetInt32(values[LOAD_PLAN_ID]));
	MemoryContext before = MemoryContextSwitchTo(batch->context);
	TaskRun    *task = batch_add_task(batch, plan, task_id, DatumGetInt16(values[LOAD_STATE]));

#define has(column) (!nulls[LOAD_##column])
#define copy(column) PG_DETOAST_DATUM_COPY(values[LOAD_##column])
	SPI_tuptable = table;
	task->priority = DatumGetInt32(values[LOAD_PRIORITY]);
	if (has(STARTED_AT))
		task->started_at = DatumGetTimestampTz(values[LOAD_STARTED_AT]);
	task->context = (Jsonb *) copy(CONTEXT);
	if (has(CORRELATION_ID))
		task->correlation_id = TextDatumGetCString(values[LOAD_CORRELATION_ID]);
	if (has(TRACEPARENT))
		task->traceparent = TextDatumGetCString(values[LOAD_TRACEPARENT]);
	if (has(BYPASS_STEPS))
		task->bypass_steps = (ArrayType *) copy(BYPASS_STEPS);
	if (has(ERROR))
		task->error = (Jsonb *) copy(ERROR);
	if (has(RUN_AT))
		task->run_at = DatumGetTimestampTz(values[LOAD_RUN_AT]);
#undef has
#undef copy
	MemoryContextSwitchTo(before);
	return task;
}

/*
 * A claimed token: its task comes into the batch, the token to its step.
 * Returns the task where this is the first of its tokens.
 */
static TaskRun *
take_token(Batch *batch, int64 task_id, int step_no, int tries, Datum *values, bool *nulls)
{
	TaskRun    *task = step_no == 0 ? NULL : batch_find_task(batch, task_id);
	TaskRun    *added = NULL;

	/* A token that outlived its task is dropped. */
	if (task_has_ended(DatumGetInt16(values[LOAD_STATE])))
		return NULL;
	if (task == NULL)
		task = added = take_task(batch, task_id, values, nulls);
	if (step_no == 0)
	{
		task->at_start = true;
		return added;
	}
	task->shared = true;
	if (step_no >= 1 && step_no <= task->plan->step_count)
	{
		task->steps[step_no - 1].mine = true;
		task->steps[step_no - 1].tries = tries;
	}
	return added;
}

/*
 * The values of LOAD_TASK_COLUMNS in a row of a statement.
 */
static void
row_task_values(uint64 row, Datum *values, bool *nulls)
{
	for (int i = 0; i < LOAD_COLUMNS; i++)
		values[i] = row_value(row, LOAD_FIRST + i, &nulls[i]);
}

/*
 * Takes in a token that was claimed, with the row of its task.
 */
void
load_claimed_row(Batch *batch, HeapTuple row, TupleDesc desc, int64 task_id, int step_no, int tries)
{
	static const int columns[LOAD_COLUMNS] = {
		Anum_task_plan_id, Anum_task_state, Anum_task_priority, Anum_task_started_at,
		Anum_task_context, Anum_task_correlation_id, Anum_task_traceparent,
		Anum_task_bypass_steps, Anum_task_error, Anum_task_run_at
	};
	Datum		all[Natts_task];
	bool		all_nulls[Natts_task];
	Datum		values[LOAD_COLUMNS];
	bool		nulls[LOAD_COLUMNS];
	TaskRun    *task;

	heap_deform_tuple(row, desc, all, all_nulls);
	for (int i = 0; i < LOAD_COLUMNS; i++)
	{
		values[i] = all[columns[i] - 1];
		nulls[i] = all_nulls[columns[i] - 1];
	}
	task = take_token(batch, task_id, step_no, tries, values, nulls);
	if (task != NULL)
		task->row = row;
}

/*
 * Takes in the rows of a statement that claimed tokens.
 */
void
load_claimed(Batch *batch, uint64 rows)
{
	int64	   *ids = palloc(Max(rows, 1) * sizeof(int64));
	bool		isnull;

	for (uint64 row = 0; row < rows; row++)
		ids[row] = DatumGetInt64(row_value(row, 1, &isnull));
	hold_only(ids, rows);
	pfree(ids);
	for (uint64 row = 0; row < rows; row++)
	{
		Datum		values[LOAD_COLUMNS];
		bool		nulls[LOAD_COLUMNS];

		row_task_values(row, values, nulls);
		take_token(batch, DatumGetInt64(row_value(row, 1, &isnull)),
				   DatumGetInt16(row_value(row, 2, &isnull)),
				   DatumGetInt16(row_value(row, 3, &isnull)), values, nulls);
	}
	SPI_freetuptable(SPI_tuptable);
}

/*
 * Reads the steps of the claimed tasks that have begun, and what those that may
 * run here need of the results of others.
 */
void
load_begun(Batch *batch)
{
	List	   *begun = NIL;
	ListCell   *cell;

	foreach(cell, batch->tasks)
	{
		TaskRun    *task = lfirst(cell);

		if (task->shared)
			begun = lappend(begun, task);
		else
			graph_count(task);
	}
	load_step_states(batch, begun);
	foreach(cell, batch->tasks)
	{
		TaskRun    *task = lfirst(cell);

		for (int no = 1; no <= task->plan->step_count; no++)
			if (task->at_start && graph_is_ready(task, no))
				task->steps[no - 1].mine = true;
	}
	load_step_results(batch, begun);
}

/*
 * Locks the tasks of these ids and reads them.  Ids of tasks that do not exist
 * bring none.
 */
void
load_locked(Batch *batch, int64 *ids, int count)
{
	Datum		value = ids_argument(ids, count);
	uint64		rows = statement_run(&lock_and_read, &value, NULL);

	for (uint64 row = 0; row < rows; row++)
	{
		Datum		columns[LOAD_COLUMNS];
		bool		nulls[LOAD_COLUMNS];
		bool		isnull;
		TaskRun    *task;

		row_task_values(row, columns, nulls);
		task = take_task(batch, DatumGetInt64(row_value(row, 1, &isnull)), columns, nulls);
		task->shared = task->locked = true;
	}
	SPI_freetuptable(SPI_tuptable);
	load_step_states(batch, batch->tasks);
}

/*
 * One row of read_states.  What this batch has moved itself is newer than what
 * the table says and stays.
 */
static void
take_state(Batch *batch, TaskRun *task, uint64 row)
{
	bool		isnull;
	int			step_no = DatumGetInt16(row_value(row, 2, &isnull));
	StepRun    *step;

	if (step_no < 1 || step_no > task->plan->step_count)
		return;
	step = &task->steps[step_no - 1];
	step->has_row = true;
	if (step->changed)
		return;
	step->state = DatumGetInt16(row_value(row, 3, &isnull));
	step->attempts = DatumGetInt16(row_value(row, 4, &isnull));
	step->retry_limit = DatumGetInt16(row_value(row, 5, &isnull));
	if (isnull)
		step->retry_limit = -1;
	step->inputs = row_jsonb(row, 6, batch->context);
	step->next_attempt_at = row_time(row, 7);
	step->started_at = row_time(row, 8);
	step->claimed_by = row_text(row, 9, batch->context);
	step->lease_until = row_time(row, 10);
}

/*
 * Reads the deadlines of those of the tasks that have one.
 */
static void
load_deadlines(Batch *batch, List *tasks)
{
	ArrayBuildState *ids = NULL;
	Datum		value;
	uint64		rows;
	ListCell   *cell;

	foreach(cell, tasks)
	{
		TaskRun    *task = lfirst(cell);

		if (task->plan->timeout > 0)
			ids = accumArrayResult(ids, Int64GetDatum(task->task_id), false, INT8OID,
								   CurrentMemoryContext);
	}
	if (ids == NULL)
		return;
	value = makeArrayResult(ids, CurrentMemoryContext);
	rows = statement_run(&read_deadlines, &value, NULL);
	for (uint64 row = 0; row < rows; row++)
	{
		bool		isnull;

		batch_find_task(batch, DatumGetInt64(row_value(row, 1, &isnull)))->deadline =
			row_time(row, 2);
	}
	SPI_freetuptable(SPI_tuptable);
}

/*
 * Reads the states of the steps of these tasks (of TaskRun), and counts.
 */
void
load_step_states(Batch *batch, List *tasks)
{
	Datum		ids;
	uint64		rows;
	TaskRun    *task = NULL;
	ListCell   *cell;

	if (tasks == NIL)
		return;
	ids = load_ids(tasks);
	rows = statement_run(&read_states, &ids, NULL);
	for (uint64 row = 0; row < rows; row++)
	{
		bool		isnull;
		int64		id = DatumGetInt64(row_value(row, 1, &isnull));

		if (task == NULL || task->task_id != id)
			task = batch_find_task(batch, id);
		take_state(batch, task, row);
	}
	SPI_freetuptable(SPI_tuptable);
	load_deadlines(batch, tasks);
	foreach(cell, tasks)
		graph_count(lfirst(cell));
}

/*
 * Whether a step that is complete may be asked for its results: some step
 * behind it can still run in this batch, for nothing is open in front of it but
 * steps that this batch runs, too.
 */
static void
mark_wanted(TaskRun *task, bool *may_run, bool *wanted)
{
	TaskPlan   *plan = task->plan;

	/* Steps stand in no order of levels, so go over them until nothing is new. */
	for (bool grew = true; grew;)
	{
		grew = false;
		for (int no = 1; no <= plan->step_count; no++)
		{
			PlanStep   *step = plan_step(plan, no);
			bool		all = task->steps[no - 1].state == STEP_PENDING &&
				(step->parent_count > 0 || plan->one_at_a_time);

			if (may_run[no - 1])
				continue;
			for (int i = 0; all && i < step->parent_count; i++)
			{
				int			parent = step->parents[i];

				all = may_run[parent - 1] || step_satisfies(task->steps[parent - 1].state);
			}
			/*
			 * Ready already, but its token is not ours: somebody else runs it.
			 * One at a time, whatever has its turn after ours is ours, too.
			 */
			if (all && graph_is_ready(task, no))
				all = false;
			if (all)
				may_run[no - 1] = grew = true;
		}
	}
	for (int no = 1; no <= plan->step_count; no++)
	{
		PlanStep   *step = plan_step(plan, no);

		for (int i = 0; may_run[no - 1] && i < step->parent_count; i++)
		{
			StepRun    *parent = &task->steps[step->parents[i] - 1];

			if (parent->has_row && !parent->changed && parent->results == NULL)
				wanted[step->parents[i] - 1] = true;
		}
	}
}

/*
 * Reads the results that the steps of these tasks which may run here need.
 */
void
load_step_results(Batch *batch, List *tasks)
{
	ArrayBuildState *ids = NULL;
	ArrayBuildState *numbers = NULL;
	Datum		values[2];
	uint64		rows;
	ListCell   *cell;

	foreach(cell, tasks)
	{
		TaskRun    *task = lfirst(cell);
		int			n = task->plan->step_count;
		bool	   *may_run = palloc0(n * sizeof(bool));
		bool	   *wanted = palloc0(n * sizeof(bool));

		for (int i = 0; i < n; i++)
			may_run[i] = task->steps[i].mine;
		mark_wanted(task, may_run, wanted);
		for (int i = 0; i < n; i++)
		{
			if (!wanted[i])
				continue;
			ids = accumArrayResult(ids, Int64GetDatum(task->task_id), false, INT8OID,
								   CurrentMemoryContext);
			numbers = accumArrayResult(numbers, Int16GetDatum(i + 1), false, INT2OID,
									   CurrentMemoryContext);
		}
		pfree(may_run);
		pfree(wanted);
	}
	if (ids == NULL)
		return;

	values[0] = makeArrayResult(ids, CurrentMemoryContext);
	values[1] = makeArrayResult(numbers, CurrentMemoryContext);
	rows = statement_run(&read_results, values, NULL);
	for (uint64 row = 0; row < rows; row++)
	{
		bool		isnull;
		TaskRun    *task = batch_find_task(batch, DatumGetInt64(row_value(row, 1, &isnull)));
		StepRun    *step = &task->steps[DatumGetInt16(row_value(row, 2, &isnull)) - 1];

		step->results = row_jsonb(row, 3, batch->context);
	}
	SPI_freetuptable(SPI_tuptable);
}
