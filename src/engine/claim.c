/*
 * claim.c
 *	  Takes tokens out of a lane of the queue, with their tasks.
 *
 * The lane is read in the order of its index.  A token that somebody else has,
 * or whose task an operator has, is passed by and never waited for.  What a
 * statement does for this (lock, delete, join, sort) costs more than the handler
 * of a small step, so it is done by hand (measured: src/README.md).
 *
 * It is read from where unclaimed tokens begin (front.c).
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
#include "engine/front.h"
#include "engine/worker.h"
#include "shared_memory.h"
#include "state/store.h"
#include "tasker.h"

typedef struct Token
{
	int64		task_id;
	int16		step_no;
	int16		tries;
} Token;

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
	Front		front;			/* moves on with each token that is claimed */
} Claim;

/* This transaction has claimed tokens. */
static bool has_claimed = false;

/*
 * What was claimed is there again when the transaction aborts.
 */
static void
claim_at_xact_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_ABORT && has_claimed)
		front_reset(my_database->front);
	if (event == XACT_EVENT_ABORT || event == XACT_EVENT_COMMIT)
		has_claimed = false;
}

static void
watch_transactions(void)
{
	static bool registered = false;

	if (!registered)
		RegisterXactCallback(claim_at_xact_end, NULL);
	registered = true;
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
 * A token of this rank, due then, is claimed: what of its rank was due earlier is
 * passed, and so are the ranks before, of those that were read as a whole.
 */
static void
move_front(Claim *claim, int32 rank, TimestampTz due)
{
	Front	   *front = &claim->front;
	bool		beyond = front->open || rank > front->rest;

	/* Without room for it nothing is known of the ranks beyond. */
	if (!front_set(front, rank, due) || !beyond)
		return;
	front->rest = rank;
	front->open = false;
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
	{
		hold_give_back(task_id);
		return;
	}
	token = &claim->tokens[claim->count++];
	token->task_id = task_id;
	token->step_no = DatumGetInt16(column(claim->slot, Anum_queue_step_no));
	token->tries = DatumGetInt16(column(claim->slot, Anum_queue_tries));
	has_claimed = true;
	move_front(claim, DatumGetInt32(column(claim->slot, Anum_queue_rank)),
			   DatumGetTimestampTz(column(claim->slot, Anum_queue_due)));
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

/*
 * Reads the lane from its front: of each rank that is known what comes behind,
 * then the other ranks.
 */
static void
scan_from(Claim *claim, const Front *front)
{
	ScanKeyData keys[3];

	for (int i = 0; i < front->parts; i++)
	{
		ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_INT4EQ,
					Int32GetDatum(front->part[i].rank));
		ScanKeyInit(&keys[2], 3, BTGreaterEqualStrategyNumber, F_TIMESTAMPTZ_GE,
					TimestampTzGetDatum(front->part[i].due));
		scan(claim, keys, 3);
	}
	if (front->open)
		scan(claim, keys, 1);
	else if (front->rest < PG_INT32_MAX)
	{
		ScanKeyInit(&keys[1], 2, BTGreaterStrategyNumber, F_INT4GT, Int32GetDatum(front->rest));
		scan(claim, keys, 2);
	}
	/* All of it has been read: other ranks hold nothing. */
	if (claim->count < claim->limit)
	{
		claim->front.rest = PG_INT32_MAX;
		claim->front.open = false;
	}
}

/*
 * Reads the lane and moves its front.
 */
static void
scan_lane(Claim *claim)
{
	LaneFront  *lane = &my_database->front[claim->lane];
	TimestampTz began = tasker_now();
	Front		before;
	bool		whole = front_read(lane, &before, began);

	/* After the front: what is committed behind this is noted there. */
	claim->snapshot = RegisterSnapshot(GetLatestSnapshot());
	claim->front = before;
	scan_from(claim, &before);
	front_write(lane, &before, &claim->front);
	if (whole)
		front_was_whole(lane, began, tasker_now());
}

/*
 * Reads the tasks of the tokens into the batch.
 */
static void
read_tasks(Batch *batch, Claim *claim)
{
	Relation	table = store_open(&store_task, AccessShareLock);
	Relation	index = index_open(store_relation("task_pkey"), AccessShareLock);
	TupleTableSlot *slot = table_slot_create(table, NULL);
	IndexScanDesc scan = index_beginscan(table, index, claim->snapshot, 1, 0);
	MemoryContext before;

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
	Claim		claim = {.lane = lane, .limit = limit};

	watch_transactions();
	claim.queue = store_open(&store_queue, RowExclusiveLock);
	claim.index = index_open(store_relation("queue_order"), RowExclusiveLock);
	claim.slot = table_slot_create(claim.queue, NULL);
	claim.cid = GetCurrentCommandId(true);
	claim.tokens = MemoryContextAlloc(batch->context, limit * sizeof(Token));

	scan_lane(&claim);
	ExecDropSingleTupleTableSlot(claim.slot);
	index_close(claim.index, NoLock);
	table_close(claim.queue, NoLock);

	if (claim.count > 0)
	{
		CommandCounterIncrement();
		read_tasks(batch, &claim);
	}
	UnregisterSnapshot(claim.snapshot);
	return claim.count;
}
