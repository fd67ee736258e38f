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
#include "utils/memutils.h"

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
 * Joins those who work on the task until the end of the transaction; false where
 * an operator has it, or waits for it.
 */
bool
hold_try(int64 task_id)
{
	LOCKTAG		tag = hold_tag(task_id);

	return LockAcquire(&tag, ShareLock, false, true) != LOCKACQUIRE_NOT_AVAIL;
}

/*
 * Lets go of a task that was joined for a token which was not to be had.
 */
void
hold_give_back(int64 task_id)
{
	LOCKTAG		tag = hold_tag(task_id);

	(void) LockRelease(&tag, ShareLock, false);
}

/* Tasks that a statement which claims has held, whether or not it got their tokens. */
static int64 *tried = NULL;
static int	tried_count = 0;
static int	tried_space = 0;

static void
make_room(void)
{
	if (tried_count < tried_space)
		return;
	tried_space = Max(tried_space * 2, 256);
	tried = tried == NULL ?
		MemoryContextAlloc(TopMemoryContext, tried_space * sizeof(int64)) :
		repalloc(tried, tried_space * sizeof(int64));
}

/*
 * tasker._hold(bigint)
 */
Datum
tasker_hold(PG_FUNCTION_ARGS)
{
	int64		task_id = PG_GETARG_INT64(0);

	make_room();
	if (!hold_try(task_id))
		PG_RETURN_BOOL(false);
	tried[tried_count++] = task_id;
	PG_RETURN_BOOL(true);
}

/*
 * Before a statement that claims tokens.
 */
void
hold_begin(void)
{
	tried_count = 0;
}

/*
 * After it, with the tasks whose tokens it got: the others are let go.  Somebody
 * else was faster with their tokens, or there were enough without them; and what
 * this transaction runs now may take long, which their operators should not wait
 * for.
 */
void
hold_only(int64 *claimed, int count)
{
	qsort(claimed, count, sizeof(int64), task_id_compare);
	for (int i = 0; i < tried_count; i++)
		if (bsearch(&tried[i], claimed, count, sizeof(int64), task_id_compare) == NULL)
			hold_give_back(tried[i]);
	tried_count = 0;
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
