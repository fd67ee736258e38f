/*
 * wait.c
 *	  tasker.wait_for_task() and CALL tasker.wait(): sleep until a task has ended.
 *
 * The caller enters itself among the waiters, then looks at the task's row; who
 * ends the task commits, then looks at the waiters.  So one of the two sees the
 * other.  Without shared memory it looks every 50 ms.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "common/int.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "engine/processes.h"
#include "engine/worker.h"
#include "access/access.h"
#include "state/state.h"
#include "tasker.h"

/* Without wake-ups, and as a safety net with them. */
#define POLL_MS		50
#define RELOOK_MS	1000

PG_FUNCTION_INFO_V1(tasker_wait_for_task);
PG_FUNCTION_INFO_V1(tasker_wait);

/* Refuses what could only ever run into its timeout. */
static void
refuse_to_wait(int64 task_id, const char *why, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_TASKER_NOT_ALLOWED),
			 errmsg("cannot wait for task %lld here", (long long) task_id),
			 errdetail("%s", why),
			 errhint("%s", hint)));
}

/*
 * The task's state now, in a snapshot of its own.  An end that this very
 * transaction made counts; any other change of it can't be seen by the
 * executors before it commits, and we would wait for ever.
 */
static int
look_at_task(int64 task_id)
{
	static SPIPlanPtr plan = NULL;
	Datum		argument = Int64GetDatum(task_id);
	bool		isnull;
	int			state;
	TransactionId xmin;

	if (plan == NULL)
	{
		Oid			type = INT8OID;
		SPIPlanPtr	prepared = SPI_prepare("SELECT state, xmin FROM tasker.task WHERE task_id OPERATOR(pg_catalog.=) $1",
										   1, &type);

		if (prepared == NULL || SPI_keepplan(prepared) != 0)
			elog(ERROR, "the query for a task's state could not be prepared");
		plan = prepared;
	}

	/* Not read only: that takes a new snapshot. */
	if (SPI_execute_plan(plan, &argument, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "a task's state could not be read");
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_TASKER_NOT_FOUND),
				 errmsg("task %lld does not exist", (long long) task_id),
				 errdetail("No task has that id, or the transaction that creates it has not committed."),
				 errhint("tasker.tasks lists the tasks that are visible here.")));
	state = DatumGetInt16(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	xmin = DatumGetTransactionId(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull));
	SPI_freetuptable(SPI_tuptable);

	if (!task_has_ended(state) && TransactionIdIsCurrentTransactionId(xmin))
		refuse_to_wait(task_id,
					   "This transaction created or changed it and has not committed: nobody can run it yet.",
					   "Commit first, then call tasker.wait_for_task().");
	return state;
}

/* Takes this backend out of the waiters, also when it ends by an error. */
static void
stop_waiting(int code, Datum arg)
{
	TaskWaiter *waiter = (TaskWaiter *) DatumGetPointer(arg);

	if (waiter == NULL || !OidIsValid(waiter->database))
		return;
	waiter->database = InvalidOid;
	pg_atomic_fetch_sub_u32(&tasker_shared->waiters, 1);
}

/* Enters this backend; the atomic is the barrier before it looks. */
static void
start_waiting(TaskWaiter *waiter, int64 task_id)
{
	waiter->latch = MyLatch;
	waiter->task_id = task_id;
	pg_atomic_write_u32(&waiter->ended, 0);
	pg_write_barrier();
	waiter->database = MyDatabaseId;
	pg_atomic_fetch_add_u32(&tasker_shared->waiters, 1);
}

/*
 * Sleeps until it may be worth another look; false: the time is up.
 */
static bool
sleep_until_ended(TaskWaiter *waiter, TimestampTz until)
{
	TimestampTz look = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												   waiter == NULL ? POLL_MS : RELOOK_MS);

	for (;;)
	{
		TimestampTz now = GetCurrentTimestamp();

		CHECK_FOR_INTERRUPTS();
		if (waiter != NULL && pg_atomic_exchange_u32(&waiter->ended, 0) != 0)
			return true;
		if (now >= until)
			return false;
		if (now >= look)
			return true;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 Max(TimestampDifferenceMilliseconds(now, Min(look, until)), 1),
						 tasker_wait_event(WAIT_TASK_END));
		ResetLatch(MyLatch);
	}
}

/* When a wait of that length ends; no length: never. */
static TimestampTz
end_of_wait(const Interval *timeout)
{
	int64		length;
	TimestampTz end;

	if (timeout == NULL)
		return PG_INT64_MAX;
	if (pg_add_s64_overflow(timeout->time,
							((int64) timeout->month * DAYS_PER_MONTH + timeout->day) * USECS_PER_DAY,
							&length))
		return timeout->time > 0 ? PG_INT64_MAX : PG_INT64_MIN;
	if (pg_add_s64_overflow(GetCurrentTimestamp(), length, &end))
		return length > 0 ? PG_INT64_MAX : PG_INT64_MIN;
	return end;
}

/* The task to wait for; refuses where nobody may wait. */
static int64
checked_task_id(FunctionCallInfo fcinfo)
{
	int64		task_id;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_TASKER_NOT_FOUND),
				 errmsg("task NULL does not exist"),
				 errdetail("The argument task_id is NULL."),
				 errhint("Pass the id that tasker.create_task() returned.")));
	task_id = PG_GETARG_INT64(0);
	if (my_slot != NULL)
		refuse_to_wait(task_id, "A handler calls it: the executor would wait while it should work.",
					   "Let a step depend on what it needs, or have an external worker wait.");
	access_require_task("task:show", task_id);
	return task_id;
}

/* A look in a transaction of its own, as the role that owns the procedure. */
static int
look_and_commit(int64 task_id, Oid owner)
{
	Oid			user;
	int			context;
	int			state;

	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(owner, context | SECURITY_LOCAL_USERID_CHANGE);
	PushActiveSnapshot(GetTransactionSnapshot());
	state = look_at_task(task_id);
	PopActiveSnapshot();
	SetUserIdAndSecContext(user, context);
	SPI_commit();
	return state;
}

/*
 * Waits; the SPI connection is the caller's.  owner is InvalidOid in a function,
 * which looks under its caller's snapshot.
 */
static int
wait_for_end(int64 task_id, TimestampTz until, Oid owner)
{
	TaskWaiter *waiter = waiter_of_backend();
	volatile int state = TASK_PENDING;

	/* One that waits already is a handler of ours that calls us: it just polls. */
	if (waiter != NULL && OidIsValid(waiter->database))
		waiter = NULL;
	if (waiter != NULL)
		start_waiting(waiter, task_id);
	PG_ENSURE_ERROR_CLEANUP(stop_waiting, PointerGetDatum(waiter));
	{
		bool		time_is_up = GetCurrentTimestamp() >= until;

		for (;;)
		{
			state = OidIsValid(owner) ? look_and_commit(task_id, owner) : look_at_task(task_id);
			if (task_has_ended(state) || time_is_up)
				break;
			time_is_up = !sleep_until_ended(waiter, until);
		}
	}
	PG_END_ENSURE_ERROR_CLEANUP(stop_waiting, PointerGetDatum(waiter));
	stop_waiting(0, PointerGetDatum(waiter));
	return state;
}

/* tasker.wait_for_task(task_id bigint, timeout interval) RETURNS text */
Datum
tasker_wait_for_task(PG_FUNCTION_ARGS)
{
	int64		task_id = checked_task_id(fcinfo);
	TimestampTz until = end_of_wait(PG_ARGISNULL(1) ? NULL : PG_GETARG_INTERVAL_P(1));
	int			state;

	if (IsolationUsesXactSnapshot())
		refuse_to_wait(task_id,
					   "This transaction is REPEATABLE READ or SERIALIZABLE: it will never see the task end.",
					   "Use READ COMMITTED, or wait in a transaction of its own.");
	SPI_connect();
	state = wait_for_end(task_id, until, InvalidOid);
	SPI_finish();

	PG_RETURN_TEXT_P(cstring_to_text(state_name(MACHINE_TASK, state)));
}

static Oid
owner_of(Oid function)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", function);
	owner = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;
	ReleaseSysCache(tuple);
	return owner;
}

/*
 * CALL tasker.wait(task_id bigint, timeout interval, INOUT state text)
 *
 * It commits the caller's transaction first, and then after each look: so it
 * sleeps without a snapshot and without a lock.  That is why it can be neither
 * SECURITY DEFINER nor have a SET clause, which both forbid a commit.
 */
Datum
tasker_wait(PG_FUNCTION_ARGS)
{
	int64		task_id = checked_task_id(fcinfo);
	TimestampTz until = end_of_wait(PG_ARGISNULL(1) ? NULL : PG_GETARG_INTERVAL_P(1));
	Oid			owner = owner_of(fcinfo->flinfo->fn_oid);
	int			state;
	TupleDesc	desc;
	Datum		value;
	bool		isnull = false;

	if (fcinfo->context == NULL || !IsA(fcinfo->context, CallContext) ||
		castNode(CallContext, fcinfo->context)->atomic)
		refuse_to_wait(task_id,
					   "It is called in a transaction block or by a function: it could not let go of its snapshot.",
					   "CALL it outside of a transaction block, or use tasker.wait_for_task().");
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	SPI_commit();
	state = wait_for_end(task_id, until, owner);
	SPI_finish();

	desc = CreateTemplateTupleDesc(1);
	TupleDescInitEntry(desc, 1, "state", TEXTOID, -1, 0);
	desc = BlessTupleDesc(desc);
	value = CStringGetTextDatum(state_name(MACHINE_TASK, state));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, &value, &isnull)));
}
