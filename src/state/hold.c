/*
 * hold.c
 *	  Who works on a task, and who alone may.
 *
 * Executors and those who claim for workers outside hold a task together with
 * others who do, until the end of their transaction: they hold it before they
 * claim its token.  An operator who cancels, pauses or retries holds it alone,
 * so that no token of it is in anybody's hands.  A heavyweight lock, because its
 * queue is fair: an operator who waits is not overtaken by the next claim.  In
 * pg_locks it is an advisory lock with objsubid 3.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lock.h"

#include "shared_memory.h"
#include "state/state.h"

PG_FUNCTION_INFO_V1(tasker_hold);

static LOCKTAG
hold_tag(int64 task_id)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (task_id >> 32), (uint32) task_id, 3);
	return tag;
}

/*
 * tasker._hold(bigint)
 */
Datum
tasker_hold(PG_FUNCTION_ARGS)
{
	LOCKTAG		tag = hold_tag(PG_GETARG_INT64(0));

	PG_RETURN_BOOL(LockAcquire(&tag, ShareLock, false, true) != LOCKACQUIRE_NOT_AVAIL);
}

/*
 * Whether this very transaction works on the task.
 */
bool
hold_is_mine(int64 task_id)
{
	LOCKTAG		tag = hold_tag(task_id);

	return LockHeldByMe(&tag, ShareLock);
}

/*
 * Waits until nobody works on the task, and keeps others out.
 */
void
hold_alone(int64 task_id)
{
	LOCKTAG		tag = hold_tag(task_id);

	/* Already while this waits, others pass the task by. */
	tasker_note_kept(true);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

/*
 * Lets others in again before the transaction ends.  By then every token that
 * the task had is locked, so nobody can claim one; and a transaction that
 * operates on a hundred thousand tasks does not fill the lock table.
 */
void
hold_release(int64 task_id)
{
	LOCKTAG		tag = hold_tag(task_id);

	(void) LockRelease(&tag, ExclusiveLock, false);
}
