/*
 * log.c
 *	  Appends to tasker.log.
 *
 * The id holds the transaction that writes it, so that readers can follow the
 * log by snapshots, and costs no sequence.
 *
 * What goes to in_progress mostly leaves it in the same transaction: then both
 * changes are one row, with an id and a time for each.  The view tasker._move
 * makes two of it again.
 */
#include "postgres.h"

#include "access/xact.h"
#include "fmgr.h"
#include "utils/memutils.h"

#include "engine/activation.h"
#include "shared_memory.h"
#include "state/state.h"
#include "state/store.h"
#include "tasker.h"

PG_FUNCTION_INFO_V1(tasker_next_event_id);

#define LOG_ROW_BITS	20		/* of the id, for the number within the transaction */

/*
 * Next id of the current transaction.
 */
static int64
next_id(void)
{
	static FullTransactionId writer = {0};
	static int64 base = 0;
	static uint32 number = 0;
	FullTransactionId current = GetTopFullTransactionId();

	if (!FullTransactionIdEquals(current, writer))
	{
		base = engine_xid_base();
		writer = current;
		number = 0;
	}
	if (number >= (1 << LOG_ROW_BITS))
		ereport(ERROR,
				errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				errmsg("too many state changes and events in one transaction"),
				errdetail("A transaction can make %d of them.", 1 << LOG_ROW_BITS),
				errhint("Do the work in several transactions."));
	return ((int64) U64FromFullTransactionId(current) + base) << LOG_ROW_BITS | number++;
}

/*
 * tasker._next_event_id()
 */
Datum
tasker_next_event_id(PG_FUNCTION_ARGS)
{
	tasker_note_log();
	PG_RETURN_INT64(next_id());
}

/*
 * Appends the row of a change, and of the one to in_progress before it, where
 * `start` is one.
 */
static void
append_move(const Move *move, int64 id, const Move *start, int64 start_id)
{
	TupleTableSlot *slot = store_next(&store_log);
	int			from_state = start != NULL ? start->from_state : move->from_state;

	store_set(slot, Anum_log_id, Int64GetDatum(id));
	store_set(slot, Anum_log_at, TimestampTzGetDatum(move->at));
	store_set(slot, Anum_log_task_id, Int64GetDatum(move->task_id));
	store_set(slot, Anum_log_step_no, Int16GetDatum(move->step_no));
	store_set(slot, Anum_log_to_state, Int16GetDatum(move->to_state));
	if (start != NULL)
	{
		store_set(slot, Anum_log_start_id, Int64GetDatum(start_id));
		store_set(slot, Anum_log_start_at, TimestampTzGetDatum(start->at));
	}
	else if (move->started_at != 0)
		store_set(slot, Anum_log_start_at, TimestampTzGetDatum(move->started_at));
	if (from_state != STATE_NONE)
		store_set(slot, Anum_log_from_state, Int16GetDatum(from_state));
	if (move->attempt > 0)
		store_set(slot, Anum_log_attempt, Int16GetDatum(move->attempt));
	if (move->metadata != NULL)
		store_set(slot, Anum_log_metadata, JsonbPGetDatum(move->metadata));
}

void
log_append(const Move *moves, int count)
{
	int64	   *ids;
	bool	   *absorbed;		/* its row is that of the change that ends it */

	if (count == 0)
		return;
	ids = MemoryContextAllocHuge(CurrentMemoryContext, count * sizeof(int64));
	absorbed = MemoryContextAllocExtended(CurrentMemoryContext, count * sizeof(bool),
										  MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (int i = 0; i < count; i++)
	{
		if (moves[i].dropped)
			continue;
		ids[i] = next_id();
		if (moves[i].start >= 0)
			absorbed[moves[i].start] = true;
	}
	store_begin(&store_log);
	for (int i = 0; i < count; i++)
	{
		int			start = moves[i].start;

		if (absorbed[i] || moves[i].dropped)
			continue;
		if (start >= 0)
			append_move(&moves[i], ids[i], &moves[start], ids[start]);
		else
			append_move(&moves[i], ids[i], NULL, 0);
	}
	store_end(&store_log);
	pfree(absorbed);
	pfree(ids);
	tasker_note_log();
}
