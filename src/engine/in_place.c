/*
 * in_place.c
 *	  tasker.run_task(): a whole graph in the caller's transaction.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "fmgr.h"
#include "utils/memutils.h"

#include "access/access.h"
#include "engine/handler.h"
#include "engine/run.h"
#include "state/state.h"
#include "tasker.h"

PG_FUNCTION_INFO_V1(tasker_run_in_place);

/*
 * Only what runs in the database can run in a transaction of its own.
 */
static void
refuse_outside(TaskRun *task)
{
	for (int no = 1; no <= task->plan->step_count; no++)
	{
		PlanStep   *step = plan_step(task->plan, no);

		if (step->handler->kind == HANDLER_SQL || graph_bypasses(task, no))
			continue;
		ereport(ERROR,
				errcode(ERRCODE_TASKER_NOT_ALLOWED),
				errmsg("task \"%s\" can't be run in place", task->plan->name),
				errdetail("Step \"%s\" has handler \"%s\", which is no SQL function.",
						  step->name, step->handler->class_name),
				errhint("Create it with tasker.create_task(), or bypass the step."));
	}
}

/*
 * tasker._run_in_place(task_id bigint)
 *
 * The task was created in this transaction and has no token.
 */
Datum
tasker_run_in_place(PG_FUNCTION_ARGS)
{
	int64		task_id = PG_GETARG_INT64(0);
	Run			run = {.in_place = true};
	TaskRun    *task;
	Oid			caller = access_caller();

	if (handler_running_task() != 0)
		ereport(ERROR,
				errcode(ERRCODE_TASKER_NOT_ALLOWED),
				errmsg("a handler can't run a task in place"),
				errhint("Create it with tasker.create_task(); it starts when the step commits."));
	handler_init();
	SPI_connect();
	plan_cache_refresh();
	run.batch = batch_create(CurrentMemoryContext);
	load_locked(run.batch, &task_id, 1);
	task = batch_find_task(run.batch, task_id);
	if (task == NULL)
		elog(ERROR, "task " INT64_FORMAT " does not exist", task_id);
	refuse_outside(task);
	for (int no = 1; no <= task->plan->step_count; no++)
		task->steps[no - 1].mine = graph_is_ready(task, no);
	run_push_mine(&run);
	/* After an error whoever set the caller sets the one before. */
	access_forget_caller();
	do
		run_ready(&run);
	while (run_waiting_now(&run) > 0);
	access_recall_caller(caller);
	write_batch(run.batch);
	SPI_finish();
	PG_RETURN_VOID();
}
