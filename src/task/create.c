/*
 * create.c
 *	  Inserts tasks, with their tokens and their first rows of the log.
 *
 * What may be created and how is said in create.sql; this is only the storing,
 * which a statement does at twice the price (measured: src/README.md).
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "shared_memory.h"
#include "state/state.h"
#include "state/store.h"
#include "statement.h"
#include "tasker.h"

PG_FUNCTION_INFO_V1(tasker_insert_tasks);

/* Arguments of tasker._insert_tasks(), and the columns they go into. */
enum
{
	ARG_CONTEXTS,
	ARG_PLAN_ID,
	ARG_PRIORITY,
	ARG_RUN_AT,
	ARG_INITIATOR,
	ARG_REASON,
	ARG_SOURCE_SYSTEM,
	ARG_TAGS,
	ARG_BYPASS_STEPS,
	ARG_IDEMPOTENCY_KEY,
	ARG_ENVIRONMENT,
	ARG_CORRELATION_ID,
	ARG_TRACEPARENT,
	ARG_COUNT
};

static const int columns[ARG_COUNT] = {
	[ARG_PLAN_ID] = Anum_task_plan_id,
	[ARG_PRIORITY] = Anum_task_priority,
	[ARG_RUN_AT] = Anum_task_run_at,
	[ARG_INITIATOR] = Anum_task_initiator,
	[ARG_REASON] = Anum_task_reason,
	[ARG_SOURCE_SYSTEM] = Anum_task_source_system,
	[ARG_TAGS] = Anum_task_tags,
	[ARG_BYPASS_STEPS] = Anum_task_bypass_steps,
	[ARG_IDEMPOTENCY_KEY] = Anum_task_idempotency_key,
	[ARG_ENVIRONMENT] = Anum_task_environment,
	[ARG_CORRELATION_ID] = Anum_task_correlation_id,
	[ARG_TRACEPARENT] = Anum_task_traceparent,
};

/* A task's row; the ids and the context are each one's own. */
static void
add_task(FunctionCallInfo fcinfo, int64 task_id, Datum context, TimestampTz now)
{
	TupleTableSlot *slot = store_next(&store_task);

	store_set(slot, Anum_task_task_id, Int64GetDatum(task_id));
	store_set(slot, Anum_task_created_at, TimestampTzGetDatum(now));
	store_set(slot, Anum_task_state, Int16GetDatum(TASK_PENDING));
	store_set(slot, Anum_task_context, context);
	for (int i = ARG_PLAN_ID; i < ARG_COUNT; i++)
		if (!PG_ARGISNULL(i))
			store_set(slot, columns[i], PG_GETARG_DATUM(i));
}

/*
 * tasker._insert_tasks(contexts jsonb[], plan_id integer, priority integer, ...)
 */
Datum
tasker_insert_tasks(PG_FUNCTION_ARGS)
{
	TimestampTz now = tasker_now();
	TimestampTz due = PG_ARGISNULL(ARG_RUN_AT) ? now :
		Max(PG_GETARG_TIMESTAMPTZ(ARG_RUN_AT), now);
	Datum	   *contexts;
	bool	   *nulls;
	Datum	   *ids;
	Move	   *moves;
	int			count = array_argument(fcinfo, ARG_CONTEXTS, &contexts, &nulls);

	PreventCommandIfReadOnly("tasker.create_task()");
	if (count <= 0)
		PG_RETURN_ARRAYTYPE_P(construct_empty_array(INT8OID));
	for (int i = 0; i < count; i++)
		if (nulls[i])
			ereport(ERROR,
					errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					errmsg("the context of a task must not be NULL"),
					errdetail("Element %d of the contexts is.", i + 1));

	ids = palloc(count * sizeof(Datum));
	moves = MemoryContextAllocExtended(CurrentMemoryContext, count * sizeof(Move),
									   MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	store_begin(&store_task);
	store_begin(&store_queue);
	for (int i = 0; i < count; i++)
	{
		int64		task_id = task_id_next();

		ids[i] = Int64GetDatum(task_id);
		add_task(fcinfo, task_id, contexts[i], now);
		write_token(task_id, 0, due > now ? LANE_NOT_DUE : LANE_BATCH, LANE_BATCH,
					PG_GETARG_INT32(ARG_PRIORITY), due, 0);
		moves[i] = (Move) {
			.task_id = task_id, .at = now, .from_state = STATE_NONE, .to_state = TASK_PENDING,
			.start = -1
		};
	}
	store_end(&store_task);
	store_end(&store_queue);
	log_append(moves, count);
	pfree(moves);
	if (due > now)
		tasker_note_due(due);
	else
		tasker_note_ready(count);
	PG_RETURN_ARRAYTYPE_P(construct_array(ids, count, INT8OID, 8, true, TYPALIGN_DOUBLE));
}
