/*
 * store.c
 *	  Writes rows of our tables without a statement.
 *
 * New ones go in by pages: one WAL record for a page of rows instead of one a
 * row, and none of the work that an INSERT has beside storing (measured:
 * src/README.md).  Index entries go in behind the rows.  An index of type BRIN
 * knows of a page only the least and the greatest value, so it is told these two
 * and not every row.
 *
 * Our tables have no checks and no foreign keys, and what is NOT NULL the callers
 * fill; keys are checked by their indexes.  Triggers for each row that somebody
 * has put on a table fire; those for each statement do not, as there is none.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_am_d.h"
#include "catalog/pg_type_d.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "nodes/execnodes.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "state/store.h"

/* Operator family integer_minmax_ops, for which the server's headers have no name. */
#define INTEGER_MINMAX_FAMILY	4054

/*
 * The room that a page keeps for the one update of its tasks passes for free with
 * the map of free space until they have run: a search in it would go from page to
 * page (seen: 6,000 of them for one task).
 */
Store		store_task = {.table = "task", .columns = Natts_task, .at_end = true};
Store		store_step = {.table = "step", .columns = Natts_step};
Store		store_queue = {.table = "queue", .columns = Natts_queue};
Store		store_log = {.table = "log", .columns = Natts_log};

/*
 * Makes the slots, which are kept: making them costs more than filling them.
 */
static void
prepare_slots(Store *store)
{
	MemoryContext before = MemoryContextSwitchTo(TopMemoryContext);
	TupleDesc	desc = CreateTupleDescCopy(RelationGetDescr(store->relation));

	for (int i = 0; i < STORE_CHUNK; i++)
		store->slots[i] = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
	store->changed = MakeSingleTupleTableSlot(desc, &TTSOpsHeapTuple);
	MemoryContextSwitchTo(before);
}

/*
 * Whether the index keeps no more of a page than the least and the greatest
 * value of one bigint.
 */
static bool
keeps_range(Relation index)
{
	return index->rd_rel->relam == BRIN_AM_OID &&
		IndexRelationGetNumberOfKeyAttributes(index) == 1 &&
		index->rd_opfamily[0] == INTEGER_MINMAX_FAMILY &&
		index->rd_opcintype[0] == INT8OID &&
		index->rd_indexprs == NIL && index->rd_indpred == NIL &&
		index->rd_index->indkey.values[0] > 0;
}

Oid
store_relation(const char *name)
{
	Oid			relation = get_relname_relid(name, get_namespace_oid("tasker", false));

	if (!OidIsValid(relation))
		elog(ERROR, "tasker.%s does not exist", name);
	return relation;
}

Relation
store_open(const Store *store, LOCKMODE mode)
{
	Relation	relation = table_open(store_relation(store->table), mode);

	if (RelationGetDescr(relation)->natts != store->columns)
		elog(ERROR, "tasker.%s has %d columns, expected %d", store->table,
			 RelationGetDescr(relation)->natts, store->columns);
	return relation;
}

void
store_begin(Store *store)
{
	store->relation = NULL;
	store->count = 0;
	store->context = AllocSetContextCreate(CurrentMemoryContext, "tasker store",
										   ALLOCSET_SMALL_SIZES);
}

/*
 * The first row comes.
 */
static void
open_table(Store *store)
{
	MemoryContext before = MemoryContextSwitchTo(store->context);
	ResultRelInfo *target;

	store->relation = store_open(store, RowExclusiveLock);
	if (store->slots[0] == NULL)
		prepare_slots(store);
	store->estate = CreateExecutorState();
	target = makeNode(ResultRelInfo);
	InitResultRelInfo(target, store->relation, 0, NULL, 0);
	ExecOpenIndices(target, false);
	/* Those that are not for every row are passed by, as one that can't be written yet is. */
	for (int i = 0; i < target->ri_NumIndices; i++)
		if (keeps_range(target->ri_IndexRelationDescs[i]))
			target->ri_IndexRelationInfo[i]->ii_ReadyForInserts = false;
	store->target = target;
	MemoryContextSwitchTo(before);
}

/*
 * Tells the index the least and the greatest value of each page that the rows
 * are on.
 */
static void
insert_ranges(Store *store, Relation index, IndexInfo *info)
{
	int			column = index->rd_index->indkey.values[0] - 1;
	int			first = 0;

	while (first < store->count)
	{
		ItemPointer tid = &store->slots[first]->tts_tid;
		int64		bounds[2] = {PG_INT64_MAX, PG_INT64_MIN};
		int			next = first;

		for (; next < store->count; next++)
		{
			TupleTableSlot *slot = store->slots[next];
			int64		value = DatumGetInt64(slot->tts_values[column]);

			if (ItemPointerGetBlockNumber(&slot->tts_tid) != ItemPointerGetBlockNumber(tid))
				break;
			bounds[0] = Min(bounds[0], value);
			bounds[1] = Max(bounds[1], value);
		}
		for (int i = 0; i < 2; i++)
		{
			Datum		value = Int64GetDatum(bounds[i]);
			bool		isnull = false;

			index_insert(index, &value, &isnull, tid, store->relation, UNIQUE_CHECK_NO,
						 false, info);
		}
		first = next;
	}
}

static void
insert_entry(Store *store, TupleTableSlot *slot)
{
	ResetPerTupleExprContext(store->estate);
#if PG_VERSION_NUM >= 160000
	ExecInsertIndexTuples(store->target, slot, store->estate, false, false, NULL, NIL, false);
#else
	ExecInsertIndexTuples(store->target, slot, store->estate, false, false, NULL, NIL);
#endif
}

/*
 * Fires the triggers that somebody has put on the table: those before the rows go
 * in, which may change or drop them ...
 */
static void
fire_before(Store *store)
{
	int			kept = 0;

	for (int i = 0; i < store->count; i++)
	{
		TupleTableSlot *slot = store->slots[i];

		if (!ExecBRInsertTriggers(store->estate, store->target, slot))
			continue;
		store->slots[i] = store->slots[kept];
		store->slots[kept++] = slot;
	}
	store->count = kept;
}

/* ... and those behind them. */
static void
fire_after(Store *store)
{
	AfterTriggerBeginQuery();
	for (int i = 0; i < store->count; i++)
		ExecARInsertTriggers(store->estate, store->target, store->slots[i], NIL, NULL);
	AfterTriggerEndQuery(store->estate);
}

/*
 * Writes the rows at hand.
 */
static void
flush(Store *store)
{
	ResultRelInfo *target = store->target;
	MemoryContext context;
	MemoryContext before;

	if (store->count == 0)
		return;
	CHECK_FOR_INTERRUPTS();
	/* The rows as they are stored need not outlive this. */
	context = AllocSetContextCreate(store->context, "tasker store rows",
									ALLOCSET_DEFAULT_SIZES);
	before = MemoryContextSwitchTo(context);
	if (target->ri_TrigDesc != NULL && target->ri_TrigDesc->trig_insert_before_row)
		fire_before(store);
	if (store->count > 0)
		table_multi_insert(store->relation, store->slots, store->count,
						   GetCurrentCommandId(true),
						   store->at_end ? TABLE_INSERT_SKIP_FSM : 0, NULL);
	for (int i = 0; i < store->count; i++)
		insert_entry(store, store->slots[i]);
	for (int i = 0; i < target->ri_NumIndices; i++)
		if (keeps_range(target->ri_IndexRelationDescs[i]))
			insert_ranges(store, target->ri_IndexRelationDescs[i],
						  target->ri_IndexRelationInfo[i]);
	if (target->ri_TrigDesc != NULL && target->ri_TrigDesc->trig_insert_after_row)
		fire_after(store);
	for (int i = 0; i < STORE_CHUNK; i++)
		ExecClearTuple(store->slots[i]);
	store->count = 0;
	MemoryContextSwitchTo(before);
	MemoryContextDelete(context);
}

/*
 * The next row, in which everything is null; what the caller puts into it has to
 * live until store_end().
 */
TupleTableSlot *
store_next(Store *store)
{
	TupleTableSlot *slot;

	if (store->relation == NULL)
		open_table(store);
	if (store->count == STORE_CHUNK)
		flush(store);
	slot = store->slots[store->count++];
	ExecClearTuple(slot);
	memset(slot->tts_isnull, true, store->columns * sizeof(bool));
	return ExecStoreVirtualTuple(slot);
}

/*
 * Gives `count` columns of a row new values; false where somebody has changed
 * the row since it was read, or holds it, or where there are triggers, and nothing
 * was done.
 */
bool
store_update(Store *store, HeapTuple old, int *columns, Datum *values, bool *nulls, int count)
{
	TM_FailureData failure;
	LockTupleMode lock_mode;
	HeapTuple	tuple;
	bool		updated;
	bool		indexes;
#if PG_VERSION_NUM >= 160000
	TU_UpdateIndexes which;
#endif

	if (store->relation == NULL)
		open_table(store);
	if (store->target->ri_TrigDesc != NULL)
		return false;
	tuple = heap_modify_tuple_by_cols(old, RelationGetDescr(store->relation), count, columns,
									  values, nulls);
	ExecForceStoreHeapTuple(tuple, store->changed, false);
	updated = table_tuple_update(store->relation, &old->t_self, store->changed,
								 GetCurrentCommandId(true), GetActiveSnapshot(), InvalidSnapshot,
								 false, &failure, &lock_mode,
#if PG_VERSION_NUM >= 160000
								 &which
#else
								 &indexes
#endif
		) == TM_Ok;
#if PG_VERSION_NUM >= 160000
	indexes = which != TU_None;
#endif
	if (updated && indexes)
		insert_entry(store, store->changed);
	ExecClearTuple(store->changed);
	heap_freetuple(tuple);
	return updated;
}

void
store_end(Store *store)
{
	if (store->relation != NULL)
	{
		flush(store);
		ExecCloseIndices(store->target);
		FreeExecutorState(store->estate);
		table_close(store->relation, NoLock);
		CommandCounterIncrement();
	}
	MemoryContextDelete(store->context);
}
