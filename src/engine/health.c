/*
 * health.c
 *	  What shared memory knows of the workers, as rows.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "engine/processes.h"
#include "tasker.h"

PG_FUNCTION_INFO_V1(tasker_workers);
PG_FUNCTION_INFO_V1(tasker_is_preloaded);

#define WORKER_COLUMNS	9

/* One row of the result. */
static void
put_worker(ReturnSetInfo *result, const char *kind, int number, const WorkerSlot *slot)
{
	Datum		values[WORKER_COLUMNS] = {0};
	bool		nulls[WORKER_COLUMNS] = {false};
	TimestampTz until = (TimestampTz) pg_atomic_read_u64((pg_atomic_uint64 *) &slot->until);
	int64		task_id = slot->task_id;

	if (slot->pid == 0)
		return;
	values[0] = CStringGetTextDatum(kind);
	values[1] = Int32GetDatum(number);
	values[2] = Int32GetDatum(slot->pid);
	values[3] = TimestampTzGetDatum(slot->started_at);
	values[4] = BoolGetDatum(pg_atomic_read_u32((pg_atomic_uint32 *) &slot->idle) != 0);
	values[5] = TimestampTzGetDatum(until);
	nulls[5] = until == PG_INT64_MAX;
	values[6] = Int64GetDatum(task_id);
	nulls[6] = task_id == 0;
	values[7] = Int16GetDatum(slot->step_no);
	nulls[7] = task_id == 0;
	values[8] = TimestampTzGetDatum(slot->since);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* tasker._workers() */
Datum
tasker_workers(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	TaskerDatabase *database;

	InitMaterializedSRF(fcinfo, 0);
	if (tasker_shared == NULL)
		return (Datum) 0;

	LWLockAcquire(tasker_shared->lock, LW_SHARED);
	if (tasker_shared->launcher_pid != 0)
	{
		WorkerSlot	launcher = {.pid = tasker_shared->launcher_pid};

		launcher.started_at = tasker_shared->launcher_started_at;
		launcher.since = launcher.started_at;
		pg_atomic_init_u32(&launcher.idle, 0);
		pg_atomic_init_u64(&launcher.until, PG_INT64_MAX);
		put_worker(result, "launcher", 0, &launcher);
	}
	database = tasker_my_database();
	if (database != NULL)
	{
		put_worker(result, "notifier", 0, &database->notifier);
		put_worker(result, "deliverer", 0, &database->deliverer);
		for (int i = 0; i < TASKER_MAX_EXECUTORS; i++)
			put_worker(result, "executor", i + 1, &database->executor[i]);
	}
	LWLockRelease(tasker_shared->lock);
	return (Datum) 0;
}

/* tasker._is_preloaded() */
Datum
tasker_is_preloaded(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(tasker_shared != NULL);
}
