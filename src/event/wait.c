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
#include "event/event.h"
#include "shared_memory.h"
#include "tasker.h"

#define ROUND_WAIT_MS	2000	/* a notifier that takes longer is not waited for */
#define NAP_MS			10000	/* of a longer wait, at a time */
#define ABSENT_NAP_MS	20		/* the same while there is no notifier that could wake us */

PG_FUNCTION_INFO_V1(tasker_wait_for_round);

static int
milliseconds_until(TimestampTz until, int most)
{
	return (int) Min(TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until), most);
}

/* A short sleep, at most until that time; false: it has come. */
static bool
nap_until(TimestampTz until)
{
	int			timeout = milliseconds_until(until, ABSENT_NAP_MS);

	if (timeout <= 0)
		return false;
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, timeout,
					 tasker_wait_event(WAIT_EVENTS));
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	return true;
}

/*
 * This database, as soon as it has a notifier.  When the server has just started,
 * or a standby was promoted, the launcher has not come to it yet; NULL: nor has
 * it by that time.
 */
static TaskerDatabase *
database_with_notifier(TimestampTz until)
{
	if (tasker_shared == NULL)
		return NULL;
	do
	{
		TaskerDatabase *database = database_find(MyDatabaseId);

		if (database != NULL && database->notifier.pid != 0)
			return database;
	} while (nap_until(until));
	return NULL;
}

bool
events_wait_for_round(void)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ROUND_WAIT_MS);
	TaskerDatabase *database = database_with_notifier(until);
	uint32		done;
	uint32		wanted;

	if (database == NULL)
		return false;

	/*
	 * A round counts as begun before it takes the flag, so that the flag is up
	 * or the round is seen.  It is up from the start until the first round.
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
		return false;

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
	return true;
}

/* tasker._wait_for_round() */
Datum
tasker_wait_for_round(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(events_wait_for_round());
}

bool
events_wait_for_tick(int64 after, TimestampTz until)
{
	TaskerDatabase *database = database_find(MyDatabaseId);
	bool		found = false;

	/* Nobody to be woken by: the caller looks again. */
	if (database == NULL)
	{
		(void) nap_until(until);
		return false;
	}

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
	return found;
}
