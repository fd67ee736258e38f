/*
 * claim.c
 *	  Takes tokens out of a lane of the queue, with their tasks.
 *
 * The lane is read in the order of its index.  A token that somebody else has,
 * or whose task an operator has, is passed by and never waited for.  What a
 * statement does for this (lock, delete, join, sort) costs more than the handler
 * of a small step, so it is done by hand (measured: src/README.md).
 *
 * The entries of tokens that are gone lie in front of those that are there, until
 * the next vacuum: pages of the index to be passed over, and while anybody,
 * anywhere in the database, holds an old snapshot, rows to be looked at as well.
 * Where reading from the front has become dear, a lane is therefore read from the
 * place of the last claim on, and from the front again so seldom that this takes
 * a fiftieth of the time at most.  What comes in behind that place (it was
 * created early and committed late) waits until then; what has a higher priority
 * does not.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/skey.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/procarray.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "engine/claim.h"
#include "shared_memory.h"
#include "state/store.h"
#include "tasker.h"

/* Reading from the front is dear from here on ... */
#define DEAR_US				50
/* ... and then takes one part in so many of the time. */
#define WHOLE_SHARE			50

#define LANES				(LANE_ALONE + 1)

typedef struct Token
{
	int64		task_id;
	int16		step_no;
	int16		tries;
} Token;

/* Where the last claim in a lane ended. */
typedef struct Place
{
	bool		known;
	int32		rank;
	TimestampTz due;
	TimestampTz whole_due;		/* when the lane is next read from the front; 0: always */
	bool		passed_by;		/* since it was, what lies in front was not looked at */
} Place;

static Place places[LANES];

/* A claim at work. */
typedef struct Claim
{
	Relation	queue;
	Relation	index;
	TupleTableSlot *slot;
	Snapshot	snapshot;
	CommandId	cid;
	int			lane;
	int			limit;
	Token	   *tokens;
	int			count;
	Place		last;
} Claim;

/*
 * The lanes are read from the front next: after a failure, as the tokens that
 * were claimed are there again, and after a halt.
 */
void
claim_forget_places(void)
{
	memset(places, 0, sizeof(places));
}

/*
 * When a lane has to be read from its front again, though nobody wakes us.
 */
TimestampTz
claim_whole_due(void)
{
	TimestampTz due = PG_INT64_MAX;

	for (int lane = 0; lane < LANES; lane++)
		if (places[lane].passed_by)
			due = Min(due, places[lane].whole_due);
	return due;
}

static Datum
column(TupleTableSlot *slot, int number)
{
	bool		isnull;

	return slot_getattr(slot, number, &isnull);
}

/*
 * Whether somebody else is just claiming the token, or has it locked.  Seen in
 * the row itself, without a lock: the executors beside this one have what lies in
 * front, and to try it costs ten times as much.
 */
static bool
is_taken(Claim *claim)
{
	HeapTupleHeader row = ((HeapTupleTableSlot *) claim->slot)->tuple->t_data;

	return (row->t_infomask & (HEAP_XMAX_INVALID | HEAP_XMAX_IS_MULTI)) == 0 &&
		TransactionIdIsInProgress(HeapTupleHeaderGetRawXmax(row));
}

/*
 * Takes the token of the row, if it can be had.
 */
static void
take(Claim *claim)
{
	int64		task_id;
	TM_FailureData failure;
	Token	   *token;

	if (is_taken(claim))
		return;
	task_id = DatumGetInt64(column(claim->slot, Anum_queue_task_id));
	if (!hold_try(task_id))
		return;
	if (table_tuple_delete(claim->queue, &claim->slot->tts_tid, claim->cid, claim->snapshot,
						   InvalidSnapshot, false, &failure, false) != TM_Ok)
		return;
	token = &claim->tokens[claim->count++];
	token->task_id = task_id;
	token->step_no = DatumGetInt16(column(claim->slot, Anum_queue_step_no));
	token->tries = DatumGetInt16(column(claim->slot, Anum_queue_tries));
	claim->last.known = true;
	claim->last.rank = DatumGetInt32(column(claim->slot, Anum_queue_rank));
	claim->last.due = DatumGetTimestampTz(column(claim->slot, Anum_queue_due));
}

/*
 * Reads the part of the lane that the keys behind that of the lane leave.
 */
static void
scan(Claim *claim, ScanKey keys, int key_count)
{
	IndexScanDesc scan;

	if (claim->count == claim->limit)
		return;
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(claim->lane));
	scan = index_beginscan(claim->queue, claim->index, claim->snapshot, key_count, 0);
	index_rescan(scan, keys, key_count, NULL, 0);
	while (claim->count < claim->limit &&
		   index_getnext_slot(scan, ForwardScanDirection, claim->slot))
	{
		CHECK_FOR_INTERRUPTS();
		take(claim);
	}
	index_endscan(scan);
}

static void
scan_whole(Claim *claim, Place *place)
{
	ScanKeyData keys[1];
	TimestampTz began = GetCurrentTimestamp();
	TimestampTz ended;

	scan(claim, keys, 1);
	ended = GetCurrentTimestamp();
	place->whole_due = ended - began < DEAR_US ? 0 : ended + (ended - began) * WHOLE_SHARE;
	place->passed_by = false;
}

/*
 * What goes before the place by its rank, what comes behind it in the same rank,
 * and the ranks behind.
 */
static void
scan_from(Claim *claim, Place *place)
{
	ScanKeyData keys[3];

	place->passed_by = true;
	ScanKeyInit(&keys[1], 2, BTLessStrategyNumber, F_INT4LT, Int32GetDatum(place->rank));
	scan(claim, keys, 2);
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(place->rank));
	ScanKeyInit(&keys[2], 3, BTGreaterEqualStrategyNumber, F_TIMESTAMPTZ_GE,
				TimestampTzGetDatum(place->due));
	scan(claim, keys, 3);
	ScanKeyInit(&keys[1], 2, BTGreaterStrategyNumber, F_INT4GT, Int32GetDatum(place->rank));
	scan(claim, keys, 2);
}

/*
 * Reads the tasks of the tokens into the batch.
 */
static void
read_tasks(Batch *batch, Claim *claim)
{
	Relation	table = table_open(store_relation("task"), AccessShareLock);
	Relation	index = index_open(store_relation("task_pkey"), AccessShareLock);
	TupleTableSlot *slot = table_slot_create(table, NULL);
	IndexScanDesc scan = index_beginscan(table, index, claim->snapshot, 1, 0);
	MemoryContext before;

	if (RelationGetDescr(table)->natts != Natts_task)
		elog(ERROR, "tasker.task has %d columns, expected %d", RelationGetDescr(table)->natts,
			 Natts_task);
	for (int i = 0; i < claim->count; i++)
	{
		Token	   *token = &claim->tokens[i];
		ScanKeyData key;
		HeapTuple	row;

		ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(token->task_id));
		index_rescan(scan, &key, 1, NULL, 0);
		/* A token without its task is dropped: verify() tells of it. */
		if (!index_getnext_slot(scan, ForwardScanDirection, slot))
			continue;
		before = MemoryContextSwitchTo(batch->context);
		row = ExecCopySlotHeapTuple(slot);
		MemoryContextSwitchTo(before);
		load_claimed_row(batch, row, RelationGetDescr(table), token->task_id, token->step_no,
						 token->tries);
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, NoLock);
	table_close(table, NoLock);
}

/*
 * Claims up to so many tokens of the lane; returns how many.  Their tasks, but
 * for those that have ended, come into the batch.
 */
int
claim_tokens(Batch *batch, int lane, int limit)
{
	Place	   *place = &places[lane];
	Claim		claim = {.lane = lane, .limit = limit};
	int64	   *ids;

	claim.queue = table_open(store_relation("queue"), RowExclusiveLock);
	claim.index = index_open(store_relation("queue_order"), RowExclusiveLock);
	if (RelationGetDescr(claim.queue)->natts != Natts_queue)
		elog(ERROR, "tasker.queue has %d columns, expected %d",
			 RelationGetDescr(claim.queue)->natts, Natts_queue);
	claim.slot = table_slot_create(claim.queue, NULL);
	claim.snapshot = GetActiveSnapshot();
	claim.cid = GetCurrentCommandId(true);
	claim.tokens = MemoryContextAlloc(batch->context, limit * sizeof(Token));

	hold_begin();
	if (place->known && place->whole_due > GetCurrentTimestamp())
		scan_from(&claim, place);
	else
		scan_whole(&claim, place);
	if (claim.last.known)
	{
		place->known = true;
		place->rank = claim.last.rank;
		place->due = claim.last.due;
	}
	ExecDropSingleTupleTableSlot(claim.slot);
	index_close(claim.index, NoLock);
	table_close(claim.queue, NoLock);

	ids = palloc(Max(claim.count, 1) * sizeof(int64));
	for (int i = 0; i < claim.count; i++)
		ids[i] = claim.tokens[i].task_id;
	hold_only(ids, claim.count);
	pfree(ids);
	if (claim.count > 0)
	{
		CommandCounterIncrement();
		read_tasks(batch, &claim);
	}
	return claim.count;
}
