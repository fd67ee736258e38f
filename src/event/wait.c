/*
 * wait.c
 *	  How fetch_events() waits: for the notifier to look at what is committed, and
 *	  for the next tick.
 *
 * Who commits raises the notifier's flag before his client hears of the commit.
 * So whoever finds the flag down, and no round under way, has every event of
 * the transactions that he knows to be committed in a tick.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "utils/timestamp.h"

#include "engine/processes.h"
#include "shared_memory.h"
#include "tasker.h"

#define ROUND_WAIT_MS	1000	/* a notifier that takes longer is not waited for */
#define NAP_MS			10000	/* of a longer wait, at a time */

PG_FUNCTION_INFO_V1(tasker_wait_for_round);
PG_FUNCTION_INFO_V1(tasker_wait_for_tick);

static TaskerDatabase *
database_with_notifier(void)
{
	TaskerDatabase *database = tasker_shared == NULL ? NULL : database_find(MyDatabaseId);

	return database != NULL && database->notifier.pid != 0 ? database : NULL;
}

static int
milliseconds_until(TimestampTz until, int most)
{
	return (int) Min(TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until), most);
}

/* tasker._wait_for_round() */
Datum
tasker_wait_for_round(PG_FUNCTION_ARGS)
{
	TaskerDatabase *database = database_with_notifier();
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ROUND_WAIT_MS);
	uint32		done;
	uint32		wanted;

	if (database == NULL)
		PG_RETURN_BOOL(false);

	/*
	 * A round counts as begun before it takes the flag, so that the flag is up
	 * or the round is seen.
	 */
	if (pg_atomic_read_u32(&database->log_written) != 0)
	{
		/* One that has begun may have read too early: the next one has not. */
		wanted = pg_atomic_read_u32(&database->rounds_begun) + 1;
		pg_atomic_write_u32(&database->round_wanted, 1);
		SetLatch(database->notifier.latch);
	}
	else
	{
		pg_read_barrier();
		wanted = pg_atomic_read_u32(&database->rounds_begun);
	}
	done = pg_atomic_read_u32(&database->rounds_done);
	if ((int32) (done - wanted) >= 0)
		PG_RETURN_BOOL(false);

	ConditionVariablePrepareToSleep(&database->round_done);
	for (;;)
	{
		int			timeout = milliseconds_until(until, ROUND_WAIT_MS);

		done = pg_atomic_read_u32(&database->rounds_done);
		if ((int32) (done - wanted) >= 0 || timeout <= 0)
			break;
		(void) ConditionVariableTimedSleep(&database->round_done, timeout,
										   tasker_wait_event(WAIT_EVENTS));
	}
	ConditionVariableCancelSleep();
	PG_RETURN_BOOL(true);
}

/* tasker._wait_for_tick(bigint, timestamptz) */
Datum
tasker_wait_for_tick(PG_FUNCTION_ARGS)
{
	TaskerDatabase *database = tasker_shared == NULL ? NULL : database_find(MyDatabaseId);
	int64		after;
	TimestampTz until;
	bool		found = false;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || database == NULL)
		PG_RETURN_BOOL(false);
	after = PG_GETARG_INT64(0);
	until = PG_GETARG_TIMESTAMPTZ(1);

	ConditionVariablePrepareToSleep(&database->round_done);
	for (;;)
	{
		int			timeout = milliseconds_until(until, NAP_MS);

		found = (int64) pg_atomic_read_u64(&database->last_tick) > after;
		if (found || timeout <= 0)
			break;
		(void) ConditionVariableTimedSleep(&database->round_done, timeout,
										   tasker_wait_event(WAIT_EVENTS));
	}
	ConditionVariableCancelSleep();
	PG_RETURN_BOOL(found);
}
