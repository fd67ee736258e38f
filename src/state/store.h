/*
 * store.h
 *	  Rows that go into our tables without a statement.
 */
#ifndef TASKER_STORE_H
#define TASKER_STORE_H

#include "postgres.h"

#include "executor/tuptable.h"
#include "nodes/execnodes.h"
#include "storage/lockdefs.h"
#include "utils/rel.h"

#define STORE_CHUNK		256		/* new rows written at a time */

/*
 * One for each table, kept.  Between store_begin() and store_end() the table is
 * opened when the first row comes, so that it costs nothing where none does.
 */
typedef struct Store
{
	const char *table;
	int			columns;
	bool		at_end;			/* new rows go to the end, whatever room there is elsewhere */
	int			count;			/* new rows at hand */
	Relation	relation;		/* NULL: no row has come yet */
	EState	   *estate;
	ResultRelInfo *target;
	MemoryContext context;
	TupleTableSlot *changed;	/* for store_update() */
	TupleTableSlot *slots[STORE_CHUNK];
} Store;

extern Store store_task;
extern Store store_step;
extern Store store_queue;
extern Store store_log;

extern void store_begin(Store *store);
extern TupleTableSlot *store_next(Store *store);
extern bool store_update(Store *store, HeapTuple old, int *columns, Datum *values, bool *nulls,
						 int count);
extern void store_end(Store *store);

/* The table itself, which has the columns that are expected. */
extern Relation store_open(const Store *store, LOCKMODE mode);

/* The relation of that name in schema tasker. */
extern Oid	store_relation(const char *name);

/* Sets a column, by its Anum, of a row from store_next(). */
static inline void
store_set(TupleTableSlot *slot, int column, Datum value)
{
	slot->tts_values[column - 1] = value;
	slot->tts_isnull[column - 1] = false;
}

/*
 * Columns of the tables, in their order.
 */
enum
{
	Anum_task_task_id = 1,
	Anum_task_created_at,
	Anum_task_started_at,
	Anum_task_finished_at,
	Anum_task_run_at,
	Anum_task_plan_id,
	Anum_task_priority,
	Anum_task_state,
	Anum_task_context,
	Anum_task_initiator,
	Anum_task_reason,
	Anum_task_source_system,
	Anum_task_tags,
	Anum_task_bypass_steps,
	Anum_task_idempotency_key,
	Anum_task_environment,
	Anum_task_correlation_id,
	Anum_task_traceparent,
	Anum_task_error,
	Natts_task = Anum_task_error
};

enum
{
	Anum_step_task_id = 1,
	Anum_step_started_at,
	Anum_step_finished_at,
	Anum_step_next_attempt_at,
	Anum_step_lease_until,
	Anum_step_step_no,
	Anum_step_state,
	Anum_step_attempts,
	Anum_step_retry_limit,
	Anum_step_results,
	Anum_step_error,
	Anum_step_inputs,
	Anum_step_claimed_by,
	Natts_step = Anum_step_claimed_by
};

enum
{
	Anum_queue_due = 1,
	Anum_queue_task_id,
	Anum_queue_lane,
	Anum_queue_rank,
	Anum_queue_due_lane,
	Anum_queue_step_no,
	Anum_queue_tries,
	Natts_queue = Anum_queue_tries
};

enum
{
	Anum_log_id = 1,
	Anum_log_at,
	Anum_log_task_id,
	Anum_log_start_id,
	Anum_log_start_at,
	Anum_log_step_no,
	Anum_log_from_state,
	Anum_log_to_state,
	Anum_log_attempt,
	Anum_log_metadata,
	Natts_log = Anum_log_metadata
};

#endif							/* TASKER_STORE_H */
