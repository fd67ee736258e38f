/*
 * limit.c
 *	  No more steps at once than tasker.max_in_progress allows.
 *
 * Who runs a step under a limit, or leases one, holds a slot of it until his
 * transaction ends: a heavyweight lock (an advisory lock with objsubid 4 in
 * pg_locks).  So a crash or an abort gives it back, and nothing has to be
 * counted or repaired.  A lease outlives its transaction; from its commit on it
 * counts as the row that it is in the queue.
 *
 * Everybody locks the lowest slot that is free, and then looks at the slots
 * above and at the leases.  The last of all to lock sees all the others, so the
 * limit is never exceeded, also when it has been lowered.  The slots are looked
 * at before the leases: a lease that is committed in between is seen as both.
 * Two claims in one transaction count the first twice, on the safe side.
 *
 * A token that finds the limit reached is parked in a lane of its own.  Whoever
 * ends a step under the limit lets some go (limit_unpark_held).  He may have
 * ended before they were parked, or what he let go may come to nothing; so an
 * executor looks after those parked before it sleeps (limit_sweep), and whoever
 * else holds a slot wakes one when he lets it go.
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/memutils.h"

#include "engine/processes.h"
#include "state/limit.h"
#include "state/state.h"
#include "statement.h"
#include "tasker.h"

static Statement count_leases = {
	.sql = "SELECT count(*) FROM tasker.queue AS q "
	"JOIN tasker.task AS t ON t.task_id = q.task_id "
	"JOIN tasker.plan_step AS s ON s.plan_id = t.plan_id AND s.step_no = q.step_no "
	"JOIN tasker.plan AS p ON p.plan_id = t.plan_id "
	"JOIN tasker.max_in_progress AS m ON m.limit_id = $1 "
	"WHERE q.lane = -1 AND q.due_lane IS NULL AND q.step_no > 0 AND t.finished_at IS NULL "
	"AND coalesce(m.namespace = p.namespace, true) "
	"AND coalesce(m.handler = s.handler_class, true)",
	.arg_count = 1,
	.arg_types = {INT4OID},
};

static Statement read_limit = {
	.sql = "SELECT steps FROM tasker.max_in_progress WHERE limit_id = $1",
	.arg_count = 1,
	.arg_types = {INT4OID},
};

static Statement unpark = {
	.sql = "UPDATE tasker.queue AS q SET lane = q.due_lane, due_lane = NULL, "
	TOKEN_TO_END("tasker.clock()")
	"WHERE q.ctid = ANY (ARRAY("
	"SELECT w.ctid FROM tasker.queue AS w "
	"WHERE w.lane = $1 "
	"ORDER BY w.rank, w.due "
	"LIMIT $2 "
	"FOR UPDATE SKIP LOCKED)) "
	"RETURNING q.lane, q.rank, q.due",
	.arg_count = 2,
	.arg_types = {INT4OID, INT8OID},
};

/* The next lane of parked tokens. */
static Statement next_parked = {
	.sql = "SELECT max(q.lane) FROM tasker.queue AS q WHERE q.lane < $1",
	.arg_count = 1,
	.arg_types = {INT4OID},
};

/* Slots for running that this transaction holds. */
typedef struct HeldSlot
{
	int32		limit_id;
	int32		slot;
} HeldSlot;

static HeldSlot *held = NULL;
static int	held_count = 0;
static int	held_space = 0;
static LocalTransactionId held_in = InvalidLocalTransactionId;

static LocalTransactionId
current_transaction(void)
{
#if PG_VERSION_NUM >= 170000
	return MyProc->vxid.lxid;
#else
	return MyProc->lxid;
#endif
}

static LOCKTAG
slot_tag(int32 limit_id, int32 slot)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) limit_id, (uint32) slot, 4);
	return tag;
}

static bool
is_held(int32 limit_id)
{
	if (held_in != current_transaction())
	{
		held_count = 0;
		held_in = current_transaction();
	}
	for (int i = 0; i < held_count; i++)
	{
		LOCKTAG		tag = slot_tag(limit_id, held[i].slot);

		/* A subtransaction that was rolled back has let it go. */
		if (held[i].limit_id == limit_id)
			return LockHeldByMe(&tag, ExclusiveLock);
	}
	return false;
}

static void
add_held(int32 limit_id, int32 slot)
{
	int			i = 0;

	while (i < held_count && held[i].limit_id != limit_id)
		i++;
	if (i == held_space)
	{
		held_space = Max(held_space * 2, 16);
		held = held == NULL ?
			MemoryContextAlloc(TopMemoryContext, held_space * sizeof(HeldSlot)) :
			repalloc(held, held_space * sizeof(HeldSlot));
	}
	held[i].limit_id = limit_id;
	held[i].slot = slot;
	held_count = Max(held_count, i + 1);
}

/*
 * Notes that slots up to this one are in use, before it is.
 */
static void
raise_slots(TaskerDatabase *database, uint32 slots)
{
	uint32		known = pg_atomic_read_u32(&database->limit_slots);

	while (known < slots &&
		   !pg_atomic_compare_exchange_u32(&database->limit_slots, &known, slots))
		;
}

/*
 * How many of the slots from this one on are held.
 */
static int
held_from(TaskerDatabase *database, int32 limit_id, int32 slot)
{
	int			count = 0;
	int32		slots;

	pg_memory_barrier();
	slots = pg_atomic_read_u32(&database->limit_slots);
	for (; slot < slots; slot++)
	{
		LOCKTAG		tag = slot_tag(limit_id, slot);
		int			holders = 0;

		if (LockHeldByMe(&tag, ExclusiveLock))
			count++;
		else
		{
			pfree(GetLockConflicts(&tag, ExclusiveLock, &holders));
			count += holders > 0;
		}
	}
	return count;
}

static int
leases_of(int32 limit_id)
{
	Datum		id = Int32GetDatum(limit_id);
	bool		isnull;
	int			count;

	statement_run(&count_leases, &id, NULL);
	count = DatumGetInt64(row_value(0, 1, &isnull));
	SPI_freetuptable(SPI_tuptable);
	return count;
}

/*
 * Tries for the lowest slot that is free; -1: there is none.  in_the_way: what
 * was in the way above may have been no more than somebody's try.
 */
static int32
try_slot(TaskerDatabase *database, const StepLimit *limit, bool *in_the_way)
{
	int			leases = leases_of(limit->limit_id);

	for (int32 slot = 0; slot + leases < limit->steps; slot++)
	{
		LOCKTAG		tag = slot_tag(limit->limit_id, slot);
		int			others;

		raise_slots(database, slot + 1);
		switch (LockAcquire(&tag, ExclusiveLock, false, true))
		{
			case LOCKACQUIRE_NOT_AVAIL:
				continue;
			case LOCKACQUIRE_OK:
				break;
			default:
				/* It is for another step of this transaction already. */
				(void) LockRelease(&tag, ExclusiveLock, false);
				continue;
		}
		others = held_from(database, limit->limit_id, slot + 1);
		if (slot + others + leases_of(limit->limit_id) < limit->steps)
			return slot;
		(void) LockRelease(&tag, ExclusiveLock, false);
		*in_the_way = others > 0;
		break;
	}
	return -1;
}

/*
 * Takes a slot, which is the transaction's from then on; -1 where there is none.
 */
static int32
take_slot(const StepLimit *limit)
{
	TaskerDatabase *database = database_find(MyDatabaseId);

	for (int tries = 0; database != NULL && tries < 3; tries++)
	{
		bool		in_the_way = false;
		int32		slot = try_slot(database, limit, &in_the_way);

		if (slot >= 0)
			return slot;
		if (!in_the_way)
			break;
		pg_usleep(500);
	}
	return -1;
}

/*
 * A transaction runs its steps one after the other: one slot will do.
 */
static bool
take_to_run(const StepLimit *limit)
{
	int32		slot;

	if (is_held(limit->limit_id))
		return true;
	slot = take_slot(limit);
	if (slot >= 0)
		add_held(limit->limit_id, slot);
	return slot >= 0;
}

/*
 * Whether a step under these limits may run in this transaction; else the limit
 * that is reached comes back in which.
 */
bool
limit_take(const StepLimit *limits, int count, int32 *which)
{
	for (int i = 0; i < count; i++)
		if (!take_to_run(&limits[i]))
		{
			TaskerDatabase *database = database_find(MyDatabaseId);

			/* A limit of none has no slot, and what waits for it is parked all the same. */
			if (database != NULL)
				raise_slots(database, 1);
			*which = limits[i].limit_id;
			return false;
		}
	return true;
}

/*
 * Whether the limit would let a step run now.
 */
static bool
is_free(int32 limit_id)
{
	Datum		id = Int32GetDatum(limit_id);
	StepLimit	limit = {.limit_id = limit_id};
	bool		isnull;

	if (statement_run(&read_limit, &id, NULL) == 0)
		return true;
	limit.steps = DatumGetInt32(row_value(0, 1, &isnull));
	SPI_freetuptable(SPI_tuptable);
	return take_to_run(&limit);
}

/*
 * Whether one more step under these limits may be leased.  A slot that was
 * taken for nothing stays taken until the transaction ends, which wakes others.
 */
bool
limit_take_lease(const StepLimit *limits, int count)
{
	tasker_note_kept(true);
	for (int i = 0; i < count; i++)
		if (take_slot(&limits[i]) < 0)
			return false;
	return true;
}

/*
 * Lets go tokens that wait for the limit: its slot is free when this
 * transaction has committed.
 */
void
limit_unpark(int32 limit_id, int tokens)
{
	Datum		values[2] = {Int32GetDatum(LANE_LIMITED(limit_id)), Int64GetDatum(tokens)};

	uint64		rows = statement_run(&unpark, values, NULL);

	for (uint64 row = 0; row < rows; row++)
	{
		bool		isnull;

		tasker_note_token(DatumGetInt32(row_value(row, 1, &isnull)),
						  DatumGetInt32(row_value(row, 2, &isnull)), row_time(row, 3));
	}
	if (rows > 0)
		tasker_note_ready(1);
}

/*
 * Unparks behind every limit of which this transaction holds a slot.
 */
void
limit_unpark_held(int tokens)
{
	if (held_in != current_transaction() || held_count == 0)
		return;
	for (int i = 0; i < held_count; i++)
		limit_unpark(held[i].limit_id, tokens);
	/* Steps for workers outside stay in their lanes. */
	tasker_note_external_ready();
}

/*
 * Lets one token go behind each limit that has room.  Returns whether it did;
 * then there is something to run after the commit.  What was parked before the
 * server started is found by each process's first look; after that, nothing is
 * parked where no slot was ever in use.
 */
bool
limit_sweep(void)
{
	static bool looked = false;
	TaskerDatabase *database = database_find(MyDatabaseId);
	Datum		lane = Int32GetDatum(LANE_LIMITED(0));
	bool		found = false;
	bool		isnull;

	if (looked && database != NULL && pg_atomic_read_u32(&database->limit_slots) == 0)
		return false;

	for (;;)
	{
		int32		limit_id;

		statement_run(&next_parked, &lane, NULL);
		lane = row_value(0, 1, &isnull);
		SPI_freetuptable(SPI_tuptable);
		if (isnull)
		{
			looked = true;
			return found;
		}
		limit_id = LANE_LIMITED(DatumGetInt32(lane));
		if (is_free(limit_id))
		{
			limit_unpark(limit_id, 1);
			found = true;
		}
	}
}
