/*
 * limit.c
 *	  No more steps at once than tasker.max_in_progress allows.
 *
 * A limit of k has k slots, each a heavyweight lock (an advisory lock with
 * objsubid 4 in pg_locks).  An executor that runs a step under the limit holds
 * one of them until its transaction ends; so a crash or an abort gives it back,
 * and nothing has to be counted or repaired.  A lease outlives its transaction:
 * it takes a slot from the top for good, which everybody sees by counting the
 * leases.  Whoever takes a slot counts after he has it: either he sees the
 * lease, or the one who leases finds the slot taken.
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/memutils.h"

#include "state/limit.h"
#include "statement.h"
#include "tasker.h"

/* The slot number that stands for the right to lease. */
#define LEASE_GATE	PG_UINT32_MAX

static Statement count_leases = {
	.sql = "SELECT count(*) FROM tasker.queue AS q "
	"JOIN tasker.task AS t ON t.task_id = q.task_id "
	"JOIN tasker.plan_step AS s ON s.plan_id = t.plan_id AND s.step_no = q.step_no "
	"JOIN tasker.plan AS p ON p.plan_id = t.plan_id "
	"JOIN tasker.max_in_progress AS m ON m.limit_id = $1 "
	"WHERE q.lane = -1 AND q.due_lane IS NULL AND q.step_no > 0 "
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
	.sql = "UPDATE tasker.queue AS q SET lane = q.due_lane, due_lane = NULL "
	"WHERE q.ctid = ANY (ARRAY("
	"SELECT w.ctid FROM tasker.queue AS w "
	"WHERE w.lane = $1 "
	"ORDER BY w.rank, w.due "
	"LIMIT $2 "
	"FOR UPDATE SKIP LOCKED))",
	.arg_count = 2,
	.arg_types = {INT4OID, INT8OID},
};

/* Slots that this transaction holds. */
typedef struct HeldSlot
{
	int32		limit_id;
	int			leases;			/* taken for leases; 0: for running */
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

static HeldSlot *
find_held(int32 limit_id)
{
	if (held_in != current_transaction())
	{
		held_count = 0;
		held_in = current_transaction();
	}
	for (int i = 0; i < held_count; i++)
		if (held[i].limit_id == limit_id)
			return &held[i];
	return NULL;
}

static HeldSlot *
add_held(int32 limit_id)
{
	if (held_count == held_space)
	{
		held_space = Max(held_space * 2, 16);
		held = held == NULL ?
			MemoryContextAlloc(TopMemoryContext, held_space * sizeof(HeldSlot)) :
			repalloc(held, held_space * sizeof(HeldSlot));
	}
	held[held_count].limit_id = limit_id;
	held[held_count].leases = 0;
	return &held[held_count++];
}

static bool
lock_slot(int32 limit_id, uint32 slot, LOCKTAG *tag)
{
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, (uint32) limit_id, slot, 4);
	return LockAcquire(tag, ExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL;
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
 * A slot for running, from the lowest up.
 */
static bool
take_slot(const StepLimit *limit)
{
	int			leases;
	LOCKTAG		tag;

	if (find_held(limit->limit_id) != NULL)
		return true;
	leases = leases_of(limit->limit_id);
	for (int slot = 0; slot < limit->steps - leases; slot++)
	{
		if (!lock_slot(limit->limit_id, slot, &tag))
			continue;
		if (slot < limit->steps - leases_of(limit->limit_id))
		{
			(void) add_held(limit->limit_id);
			return true;
		}
		(void) LockRelease(&tag, ExclusiveLock, false);
		return false;
	}
	return false;
}

/*
 * Whether a step under these limits may run in this transaction; else the limit
 * that is reached comes back in which.
 */
bool
limit_take(const StepLimit *limits, int count, int32 *which)
{
	for (int i = 0; i < count; i++)
		if (!take_slot(&limits[i]))
		{
			*which = limits[i].limit_id;
			return false;
		}
	return true;
}

/*
 * Whether the limit would let a step run now.
 */
bool
limit_is_free(int32 limit_id)
{
	Datum		id = Int32GetDatum(limit_id);
	StepLimit	limit = {.limit_id = limit_id};
	bool		isnull;

	if (statement_run(&read_limit, &id, NULL) == 0)
		return true;
	limit.steps = DatumGetInt32(row_value(0, 1, &isnull));
	SPI_freetuptable(SPI_tuptable);
	return take_slot(&limit);
}

/*
 * One more lease under the limit.  Claims come one after the other, so the
 * count of leases does not change under them.
 */
static bool
take_lease(const StepLimit *limit)
{
	HeldSlot   *slot = find_held(limit->limit_id);
	LOCKTAG		tag;
	int			top;

	if (slot == NULL)
	{
		if (!lock_slot(limit->limit_id, LEASE_GATE, &tag))
			return false;
		slot = add_held(limit->limit_id);
	}
	top = limit->steps - leases_of(limit->limit_id) - slot->leases - 1;
	if (top < 0 || !lock_slot(limit->limit_id, top, &tag))
		return false;
	slot->leases++;
	return true;
}

bool
limit_take_lease(const StepLimit *limits, int count)
{
	for (int i = 0; i < count; i++)
		if (!take_lease(&limits[i]))
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

	if (statement_run(&unpark, values, NULL) > 0)
		tasker_note_ready(1);
}

/*
 * Unparks behind every limit of which this transaction holds a slot.
 */
void
limit_unpark_held(int tokens)
{
	if (held_in != current_transaction())
		return;
	for (int i = 0; i < held_count; i++)
		limit_unpark(held[i].limit_id, tokens);
}
