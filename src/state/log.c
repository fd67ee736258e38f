/*
 * log.c
 *	  Appends to tasker.log.
 *
 * The rows go in by pages, and the index entries behind them: one WAL record
 * for a page of rows instead of one a row, which is half of what the log would
 * otherwise cost.  The id holds the transaction that writes it, so that readers
 * can follow the log by snapshots, and costs no sequence.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "executor/executor.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/execnodes.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "engine/activation.h"
#include "shared_memory.h"
#include "state/state.h"
#include "statement.h"
#include "tasker.h"

PG_FUNCTION_INFO_V1(tasker_append_log);

#define LOG_COLUMNS		8
#define LOG_ROW_BITS	20		/* of the id, for the number within the transaction */
#define LOG_CHUNK		256		/* rows written at a time */

/* Slots are kept: making them costs more than filling them. */
static TupleTableSlot *slots[LOG_CHUNK];
static int	slot_count = 0;
static TupleDesc slot_desc = NULL;

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
				errmsg("too many state changes in one transaction"),
				errdetail("A transaction can make %d of them.", 1 << LOG_ROW_BITS),
				errhint("Do the work in several transactions."));
	return ((int64) U64FromFullTransactionId(current) + base) << LOG_ROW_BITS | number++;
}

/*
 * Makes sure that there are slots for so many rows.
 */
static void
prepare_slots(Relation log, int count)
{
	MemoryContext before = MemoryContextSwitchTo(TopMemoryContext);

	if (slot_desc == NULL)
		slot_desc = CreateTupleDescCopy(RelationGetDescr(log));
	while (slot_count < count)
	{
		TupleTableSlot *slot = MakeSingleTupleTableSlot(slot_desc, &TTSOpsVirtual);

		slots[slot_count++] = slot;
	}
	MemoryContextSwitchTo(before);
}

static void
fill_slot(TupleTableSlot *slot, const Move *move)
{
	Datum	   *values = slot->tts_values;
	bool	   *nulls = slot->tts_isnull;

	ExecClearTuple(slot);
	memset(nulls, false, LOG_COLUMNS * sizeof(bool));
	values[0] = Int64GetDatum(next_id());
	values[1] = TimestampTzGetDatum(move->at);
	values[2] = Int64GetDatum(move->task_id);
	values[3] = Int16GetDatum(move->step_no);
	values[4] = Int16GetDatum(move->from_state);
	nulls[4] = move->from_state == STATE_NONE;
	values[5] = Int16GetDatum(move->to_state);
	values[6] = Int16GetDatum(move->attempt);
	nulls[6] = move->attempt == 0;
	values[7] = JsonbPGetDatum(move->metadata);
	nulls[7] = move->metadata == NULL;
	ExecStoreVirtualTuple(slot);
}

void
log_append(const Move *moves, int count)
{
	Relation	log;
	EState	   *estate;
	ResultRelInfo *target;
	CommandId	cid;
	MemoryContext context;
	MemoryContext before;

	if (count == 0)
		return;

	context = AllocSetContextCreate(CurrentMemoryContext, "tasker log", ALLOCSET_DEFAULT_SIZES);
	before = MemoryContextSwitchTo(context);
	cid = GetCurrentCommandId(true);
	log = table_open(get_relname_relid("log", get_namespace_oid("tasker", false)),
					 RowExclusiveLock);
	if (RelationGetDescr(log)->natts != LOG_COLUMNS)
		elog(ERROR, "tasker.log has %d columns, expected %d",
			 RelationGetDescr(log)->natts, LOG_COLUMNS);
	prepare_slots(log, Min(count, LOG_CHUNK));

	estate = CreateExecutorState();
	target = makeNode(ResultRelInfo);
	InitResultRelInfo(target, log, 0, NULL, 0);
	ExecOpenIndices(target, false);

	for (int done = 0; done < count;)
	{
		int			n = Min(count - done, LOG_CHUNK);

		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < n; i++)
			fill_slot(slots[i], &moves[done + i]);
		table_multi_insert(log, slots, n, cid, 0, NULL);
		for (int i = 0; i < n; i++)
		{
			ResetPerTupleExprContext(estate);
#if PG_VERSION_NUM >= 160000
			ExecInsertIndexTuples(target, slots[i], estate, false, false, NULL, NIL, false);
#else
			ExecInsertIndexTuples(target, slots[i], estate, false, false, NULL, NIL);
#endif
		}
		done += n;
	}

	ExecCloseIndices(target);
	FreeExecutorState(estate);
	table_close(log, NoLock);
	MemoryContextSwitchTo(before);
	MemoryContextDelete(context);
	for (int i = 0; i < Min(count, LOG_CHUNK); i++)
		ExecClearTuple(slots[i]);
	CommandCounterIncrement();
	tasker_note_log();
}

/*
 * tasker._append_log(bigint[], smallint[], smallint[], smallint[], smallint[], jsonb[])
 */
Datum
tasker_append_log(PG_FUNCTION_ARGS)
{
	Datum	   *columns[6];
	bool	   *nulls[6];
	int			counts[6];
	int			count;
	Move	   *moves;
	TimestampTz now = tasker_now();

	for (int i = 0; i < 6; i++)
		counts[i] = array_argument(fcinfo, i, &columns[i], &nulls[i]);
	count = Max(counts[0], 0);
	for (int i = 1; i < 6; i++)
		if (counts[i] >= 0 && counts[i] != count)
			ereport(ERROR,
					errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("the arrays differ in length"),
					errdetail("The first has %d elements, argument %d has %d.",
							  count, i + 1, counts[i]));

#define has(i, row) (columns[i] != NULL && !nulls[i][row])
	moves = MemoryContextAllocExtended(CurrentMemoryContext, Max(count, 1) * sizeof(Move),
									   MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (int row = 0; row < count; row++)
	{
		Move	   *move = &moves[row];
		Machine		machine;

		if (!has(0, row) || !has(3, row))
			ereport(ERROR,
					errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					errmsg("a task and the state it goes to must not be NULL"));
		move->task_id = DatumGetInt64(columns[0][row]);
		move->at = now;
		move->step_no = has(1, row) ? DatumGetInt16(columns[1][row]) : 0;
		move->from_state = has(2, row) ? DatumGetInt16(columns[2][row]) : STATE_NONE;
		move->to_state = DatumGetInt16(columns[3][row]);
		move->attempt = has(4, row) ? DatumGetInt16(columns[4][row]) : 0;
		move->metadata = has(5, row) ? DatumGetJsonbP(columns[5][row]) : NULL;
		machine = move->step_no == 0 ? MACHINE_TASK : MACHINE_STEP;
		if (state_name(machine, move->to_state) == NULL ||
			!state_move_allowed(machine, move->from_state, move->to_state))
			state_refuse(machine, move->step_no == 0 ? move->task_id :
						 move->task_id << TASKER_STEP_BITS | move->step_no,
						 move->from_state, move->to_state);
	}
#undef has
	log_append(moves, count);
	PG_RETURN_INT64(count);
}
