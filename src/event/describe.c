/*
 * describe.c
 *	  What events say: tasker._events() and tasker._task_facts().
 *
 * An event is a row of the log, or one that was published; the rest of its
 * payload is read off its task, its step and their template as they stand now.
 * Each of these tables is asked once for all the events, by keys, and each row
 * is met once however many events it belongs to: of a join of them all, the
 * executor would do five look-ups anew for every event (measured: 15 us of 23).
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/qunique.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "event/event.h"
#include "event/payload.h"
#include "state/state.h"
#include "statement.h"
#include "tasker.h"

PG_FUNCTION_INFO_V1(tasker_events);
PG_FUNCTION_INFO_V1(tasker_task_facts);

/*
 * A row of a table, by its key: column 0 of what a statement returns, or, of a
 * step, that and its number: task_id << TASKER_STEP_BITS | step_no.
 */
typedef struct Row
{
	int64		key;
	char		status;			/* the hash table's */
	Datum	   *values;
	bool	   *nulls;
	List	   *ended;			/* of a task: the steps (Row *) that have ended */
} Row;

/* The ids of rows differ in their lower bits and in those from the 20th on. */
#define SH_PREFIX		rows
#define SH_ELEMENT_TYPE	Row
#define SH_KEY_TYPE		int64
#define SH_KEY			key
#define SH_HASH_KEY(table, key)	((uint32) (((uint64) (key) * UINT64CONST(0x9E3779B97F4A7C15)) >> 32))
#define SH_EQUAL(table, a, b)	((a) == (b))
#define SH_SCOPE		static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

enum LogColumn
{
	LOG_ID, LOG_AT, LOG_TASK_ID, LOG_START_ID, LOG_START_AT, LOG_STEP_NO, LOG_FROM_STATE,
	LOG_TO_STATE, LOG_ATTEMPT, LOG_METADATA
};

static Statement log_rows = {
	"SELECT l.id, l.at, l.task_id, l.start_id, l.start_at, l.step_no, l.from_state, "
	"       l.to_state, l.attempt, l.metadata "
	"FROM tasker.log AS l "
	"WHERE l.id = ANY ($1)",
	1, {INT8ARRAYOID}
};

enum PublishedColumn
{
	PUBLISHED_ID, PUBLISHED_AT, PUBLISHED_TASK_ID, PUBLISHED_STEP_NO, PUBLISHED_NAME,
	PUBLISHED_PAYLOAD
};

static Statement published_rows = {
	"SELECT p.event_id, p.occurred_at, p.task_id, p.step_no, p.name, p.payload "
	"FROM tasker.published_event AS p "
	"WHERE p.event_id = ANY ($1)",
	1, {INT8ARRAYOID}
};

enum TaskColumn
{
	TASK_ID, TASK_PLAN_ID, TASK_NAME, TASK_NAMESPACE, TASK_VERSION, TASK_STEP_COUNT,
	TASK_CORRELATION_ID, TASK_INITIATOR, TASK_SOURCE_SYSTEM, TASK_TAGS, TASK_PRIORITY,
	TASK_ENVIRONMENT, TASK_STARTED_AT, TASK_CONTEXT, TASK_FAILURE
};

static Statement task_rows = {
	"SELECT t.task_id, t.plan_id, p.name, p.namespace, p.version, p.step_count, t.correlation_id, "
	"       t.initiator, t.source_system, t.tags, t.priority, t.environment, "
	"       t.started_at, t.context, t.error "
	"FROM tasker.task AS t "
	"JOIN tasker.plan AS p ON p.plan_id = t.plan_id "
	"WHERE t.task_id = ANY ($1)",
	1, {INT8ARRAYOID}
};

enum EndedColumn
{
	ENDED_TASK_ID, ENDED_STEP_NO, ENDED_STATE, ENDED_AT
};

static Statement ended_rows = {
	"SELECT s.task_id, s.step_no, s.state, s.finished_at "
	"FROM tasker.step AS s "
	"WHERE s.task_id = ANY ($1) "
	"  AND s.finished_at IS NOT NULL",
	1, {INT8ARRAYOID}
};

enum StepColumn
{
	STEP_TASK_ID, STEP_NO, STEP_STATE, STEP_ATTEMPTS, STEP_RETRY_LIMIT, STEP_NEXT_ATTEMPT_AT,
	STEP_RESULTS, STEP_FAILURE, STEP_INPUTS
};

static Statement step_rows = {
	"SELECT s.task_id, s.step_no, s.state, s.attempts, s.retry_limit, s.next_attempt_at, s.results, "
	"       s.error, s.inputs "
	"FROM unnest($1, $2) AS w (task_id, step_no) "
	"JOIN tasker.step AS s ON s.task_id = w.task_id AND s.step_no = w.step_no",
	2, {INT8ARRAYOID, INT8ARRAYOID}
};

enum PlanStepColumn
{
	PLAN_STEP_PLAN_ID, PLAN_STEP_NO, PLAN_STEP_NAME, PLAN_STEP_PARENTS, PLAN_STEP_RETRY_LIMIT,
	PLAN_STEP_BASE_DELAY, PLAN_STEP_MAX_DELAY
};

static Statement plan_step_rows = {
	"SELECT s.plan_id::bigint, s.step_no, s.name, "
	"       ARRAY(SELECT d.name "
	"             FROM tasker.plan_step AS d "
	"             WHERE d.plan_id = s.plan_id AND d.step_no = ANY (s.parents) "
	"             ORDER BY d.step_no), "
	"       s.retry_limit, s.base_delay, s.max_delay "
	"FROM unnest($1, $2) AS w (plan_id, step_no) "
	"JOIN tasker.plan_step AS s ON s.plan_id = w.plan_id AND s.step_no = w.step_no",
	2, {INT8ARRAYOID, INT8ARRAYOID}
};

/* An event, found in the log. */
typedef struct LogEvent
{
	int64		event_id;
	const char *name;			/* NULL: it is told to nobody */
	TimestampTz at;
	int64		task_id;
	int			step_no;
	int			from_state;
	int			to_state;
	int			attempt;		/* 0: none */
	bool		has_begun;
	TimestampTz began;			/* when what it ends had begun */
	Jsonb	   *metadata;		/* NULL: none */
} LogEvent;

typedef struct Tables
{
	rows_hash  *log;
	rows_hash  *published;
	rows_hash  *tasks;
	rows_hash  *steps;
	rows_hash  *plan_steps;
} Tables;

/* Keys that are asked for. */
typedef struct Keys
{
	int64	   *keys;
	int			count;
	int			space;
} Keys;

static void
add_key(Keys *keys, int64 key)
{
	if (keys->count == keys->space)
	{
		keys->space = Max(keys->space * 2, 64);
		keys->keys = keys->keys == NULL ? palloc(keys->space * sizeof(int64)) :
			repalloc_huge(keys->keys, keys->space * sizeof(int64));
	}
	keys->keys[keys->count++] = key;
}

static int
compare_keys(const void *a, const void *b)
{
	int64		x = *(const int64 *) a;
	int64		y = *(const int64 *) b;

	return x < y ? -1 : x > y;
}

/* Runs a statement for keys, each once; its rows stay until SPI is left. */
static uint64
run_for_keys(Statement *statement, Keys *keys)
{
	bool		of_steps = statement->arg_count == 2;
	Datum		arguments[2];
	int64	   *firsts;
	int64	   *step_nos;

	if (keys->count == 0)
		return 0;
	qsort(keys->keys, keys->count, sizeof(int64), compare_keys);
	keys->count = qunique(keys->keys, keys->count, sizeof(int64), compare_keys);
	if (!of_steps)
	{
		arguments[0] = ids_argument(keys->keys, keys->count);
		return statement_run(statement, arguments, NULL);
	}
	firsts = palloc(keys->count * sizeof(int64));
	step_nos = palloc(keys->count * sizeof(int64));
	for (int i = 0; i < keys->count; i++)
	{
		firsts[i] = keys->keys[i] >> TASKER_STEP_BITS;
		step_nos[i] = keys->keys[i] & TASKER_MAX_STEPS;
	}
	arguments[0] = ids_argument(firsts, keys->count);
	arguments[1] = ids_argument(step_nos, keys->count);
	return statement_run(statement, arguments, NULL);
}

static void
read_row(uint64 number, Row *row)
{
	TupleDesc	desc = SPI_tuptable->tupdesc;

	row->values = palloc(desc->natts * sizeof(Datum));
	row->nulls = palloc(desc->natts * sizeof(bool));
	row->ended = NIL;
	heap_deform_tuple(SPI_tuptable->vals[number], desc, row->values, row->nulls);
}

static rows_hash *
read_rows(Statement *statement, Keys *keys)
{
	rows_hash  *rows = rows_create(CurrentMemoryContext, keys->count, NULL);
	uint64		count = run_for_keys(statement, keys);

	for (uint64 i = 0; i < count; i++)
	{
		Row			found;
		int64		key;
		Row		   *row;
		bool		exists;

		read_row(i, &found);
		key = DatumGetInt64(found.values[0]);
		if (statement->arg_count == 2)
			key = key << TASKER_STEP_BITS | DatumGetInt16(found.values[1]);
		row = rows_insert(rows, key, &exists);
		row->values = found.values;
		row->nulls = found.nulls;
		row->ended = NIL;
	}
	return rows;
}

/* Of a row that is not there, nothing is. */
static bool
has(const Row *row, int column)
{
	return row != NULL && !row->nulls[column];
}

static void
put(Payload *payload, const char *key, Oid type, const Row *row, int column)
{
	if (has(row, column))
		payload_put(payload, key, type, row->values[column]);
}

static void
put_text(Payload *payload, const char *key, const char *text)
{
	if (text != NULL)
		payload_put(payload, key, UNKNOWNOID, CStringGetDatum(text));
}

static void
put_time(Payload *payload, const char *key, TimestampTz at)
{
	payload_put(payload, key, TIMESTAMPTZOID, TimestampTzGetDatum(at));
}

static void
put_count(Payload *payload, const char *key, int64 count)
{
	payload_put(payload, key, INT8OID, Int64GetDatum(count));
}

static void
put_jsonb(Payload *payload, const char *key, Jsonb *jsonb)
{
	if (jsonb != NULL)
		payload_put(payload, key, JSONBOID, JsonbPGetDatum(jsonb));
}

/* Seconds between two times, with all their digits. */
static void
put_seconds(Payload *payload, const char *key, int64 microseconds)
{
	payload_put(payload, key, NUMERICOID, NumericGetDatum(int64_div_fast_to_numeric(microseconds, 6)));
}

static Jsonb *
row_object(const Row *row, int column)
{
	return has(row, column) ? DatumGetJsonbP(row->values[column]) : NULL;
}

/* A field of an object as text; NULL where there is none, or null. */
static char *
field_text(Jsonb *object, const char *key)
{
	JsonbValue *value;

	if (object == NULL || !JB_ROOT_IS_OBJECT(object))
		return NULL;
	value = getKeyJsonValueFromContainer(&object->root, key, strlen(key), NULL);
	if (value == NULL || value->type == jbvNull)
		return NULL;
	if (value->type == jbvString)
		return pnstrdup(value->val.string.val, value->val.string.len);
	if (value->type == jbvBinary)
		return JsonbToCString(NULL, value->val.binary.data, value->val.binary.len);
	return JsonbToCString(NULL, &JsonbValueToJsonb(value)->root, 0);
}

static Jsonb *
field_object(Jsonb *object, const char *key)
{
	JsonbValue *value;

	if (object == NULL || !JB_ROOT_IS_OBJECT(object))
		return NULL;
	value = getKeyJsonValueFromContainer(&object->root, key, strlen(key), NULL);
	return value == NULL ? NULL : JsonbValueToJsonb(value);
}

static bool
same_text(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

/* The event that a row of the log is, or the beginning that it stands for, too. */
static void
read_move(const Row *row, int64 event_id, LogEvent *move)
{
	bool		is_start = event_id != row->key;

	move->event_id = event_id;
	move->at = DatumGetTimestampTz(row->values[is_start ? LOG_START_AT : LOG_AT]);
	move->task_id = DatumGetInt64(row->values[LOG_TASK_ID]);
	move->step_no = DatumGetInt16(row->values[LOG_STEP_NO]);
	move->from_state = !is_start && has(row, LOG_START_ID) ? STEP_IN_PROGRESS :
		has(row, LOG_FROM_STATE) ? DatumGetInt16(row->values[LOG_FROM_STATE]) : STATE_NONE;
	move->to_state = is_start ? STEP_IN_PROGRESS : DatumGetInt16(row->values[LOG_TO_STATE]);
	move->attempt = has(row, LOG_ATTEMPT) ? DatumGetInt16(row->values[LOG_ATTEMPT]) : 0;
	move->has_begun = !is_start && has(row, LOG_START_AT);
	move->began = move->has_begun ? DatumGetTimestampTz(row->values[LOG_START_AT]) : 0;
	move->metadata = is_start ? NULL : row_object(row, LOG_METADATA);
	move->name = state_event(move->step_no > 0 ? MACHINE_STEP : MACHINE_TASK,
							 move->from_state, move->to_state);
}

/* What every event of a task carries. */
static void
put_facts(Payload *payload, const Row *task)
{
	put(payload, "task_id", INT8OID, task, TASK_ID);
	put(payload, "task_name", TEXTOID, task, TASK_NAME);
	put(payload, "namespace", TEXTOID, task, TASK_NAMESPACE);
	put(payload, "version", TEXTOID, task, TASK_VERSION);
	put(payload, "correlation_id", TEXTOID, task, TASK_CORRELATION_ID);
	put(payload, "initiator", TEXTOID, task, TASK_INITIATOR);
	put(payload, "source_system", TEXTOID, task, TASK_SOURCE_SYSTEM);
	if (has(task, TASK_TAGS) && ARR_NDIM(DatumGetArrayTypeP(task->values[TASK_TAGS])) > 0)
		put(payload, "tags", TEXTARRAYOID, task, TASK_TAGS);
	put(payload, "priority", INT4OID, task, TASK_PRIORITY);
	put(payload, "environment", TEXTOID, task, TASK_ENVIRONMENT);
}

static void
put_head(Payload *payload, const char *name, TimestampTz at, int64 task_id)
{
	put_text(payload, "event_type", name);
	put_time(payload, "timestamp", at);
	if (task_id != 0)
		put_count(payload, "task_id", task_id);
}

static int64
plan_step_key(const Row *task, int step_no)
{
	return (int64) DatumGetInt32(task->values[TASK_PLAN_ID]) << TASKER_STEP_BITS | step_no;
}

static Row *
find_plan_step(const Tables *tables, const Row *task, int step_no)
{
	return task == NULL ? NULL : rows_lookup(tables->plan_steps, plan_step_key(task, step_no));
}

/*
 * Error of a failed attempt: the step's where that is still of the same
 * attempt, else what the row of the log says of it.
 */
static Jsonb *
failure_of(const LogEvent *move, const Row *step)
{
	Jsonb	   *error = row_object(step, STEP_FAILURE);
	char	   *message = field_text(error, "message");
	char	   *logged = field_text(move->metadata, "message");
	char		attempt[12];
	Payload		payload = {0};

	pg_ltoa(move->attempt, attempt);
	if (error != NULL && same_text(field_text(error, "attempt"), attempt) &&
		same_text(message, logged != NULL ? logged : message))
		return error;
	if (move->metadata != NULL)
		payload_put_object(&payload, move->metadata);
	if (move->attempt != 0)
		put_count(&payload, "attempt", move->attempt);
	return payload_end(&payload, NULL);
}

static void
put_failure(Payload *payload, const LogEvent *move, const Row *step)
{
	Jsonb	   *failure = failure_of(move, step);

	put_text(payload, "error_message", field_text(failure, "message"));
	put_text(payload, "exception_class", field_text(failure, "sqlstate"));
	put_text(payload, "backtrace", field_text(failure, "context"));
	put_jsonb(payload, "error", failure);
}

static void
put_retry(Payload *payload, const LogEvent *move, const Row *step, const Row *plan_step)
{
	bool		by_itself = move->from_state == STEP_IN_PROGRESS;

	put_count(payload, "previous_attempts", move->attempt);
	put_text(payload, "retry_reason", by_itself ? "attempt_failed" : "requested");
	if (!by_itself)
		return;
	payload_put(payload, "final_failure", BOOLOID, BoolGetDatum(false));
	if (plan_step != NULL)
		put_text(payload, "backoff_strategy",
				 DatumGetBool(DirectFunctionCall2(interval_eq, plan_step->values[PLAN_STEP_BASE_DELAY],
												  plan_step->values[PLAN_STEP_MAX_DELAY])) ?
				 "constant" : "exponential");
	if (step != NULL && DatumGetInt16(step->values[STEP_STATE]) == STEP_WAITING &&
		DatumGetInt16(step->values[STEP_ATTEMPTS]) == move->attempt)
		put(payload, "next_attempt_at", TIMESTAMPTZOID, step, STEP_NEXT_ATTEMPT_AT);
}

/* What the engine says of a step, over what its handler said of its own. */
static void
put_step_event(Payload *payload, const Tables *tables, const LogEvent *move)
{
	const char *name = move->name != NULL ? move->name : "";
	int64		step_id = move->task_id << TASKER_STEP_BITS | move->step_no;
	Row		   *task = rows_lookup(tables->tasks, move->task_id);
	Row		   *step = task == NULL ? NULL : rows_lookup(tables->steps, step_id);
	Row		   *plan_step = find_plan_step(tables, task, move->step_no);
	bool		has_failed = move->to_state == STEP_ERROR || move->to_state == STEP_WAITING;
	Jsonb	   *own = strcmp(name, "step.completed") == 0 ?
		field_object(move->metadata, "event") : NULL;

	if (own != NULL)
		payload_put_object(payload, own);
	put_facts(payload, task);
	put_head(payload, move->name, move->at, move->task_id);
	put_count(payload, "step_id", step_id);
	put(payload, "step_name", TEXTOID, plan_step, PLAN_STEP_NAME);
	if (move->attempt != 0)
		put_count(payload, "attempt_number", move->attempt);
	put(payload, "retry_limit", INT2OID, plan_step, PLAN_STEP_RETRY_LIMIT);
	put(payload, "retry_limit", INT2OID, step, STEP_RETRY_LIMIT);

	if (strcmp(name, "step.started") == 0)
	{
		put_time(payload, "started_at", move->at);
		put(payload, "step_inputs", JSONBOID, task, TASK_CONTEXT);
		put(payload, "step_inputs", JSONBOID, step, STEP_INPUTS);
		put(payload, "step_dependencies", TEXTARRAYOID, plan_step, PLAN_STEP_PARENTS);
		return;
	}
	if (move->has_begun)
	{
		put_time(payload, "started_at", move->began);
		put_seconds(payload, "execution_duration", Max(move->at - move->began, 0));
	}
	if (strcmp(name, "step.completed") == 0)
	{
		put_time(payload, "completed_at", move->at);
		if (!move->has_begun)
			put_seconds(payload, "execution_duration", 0);
		put(payload, "step_results", JSONBOID, step, STEP_RESULTS);
		return;
	}
	put_text(payload, "reason", field_text(move->metadata, "reason"));
	if (has_failed)
		put_failure(payload, move, step);
	if (strcmp(name, "step.resolved_manually") == 0)
		put(payload, "step_results", JSONBOID, step, STEP_RESULTS);
	else if (strcmp(name, "step.failed") == 0)
		payload_put(payload, "final_failure", BOOLOID, BoolGetDatum(true));
	else if (strcmp(name, "step.retry_requested") == 0)
		put_retry(payload, move, step, plan_step);
}

/* A step that was in error by then, and is so still. */
static bool
was_in_error(const Row *ended, const LogEvent *move)
{
	return DatumGetInt16(ended->values[ENDED_STATE]) == STEP_ERROR &&
		DatumGetTimestampTz(ended->values[ENDED_AT]) <= move->at;
}

static int
compare_ended(const ListCell *a, const ListCell *b)
{
	return DatumGetInt16(((Row *) lfirst(a))->values[ENDED_STEP_NO]) -
		DatumGetInt16(((Row *) lfirst(b))->values[ENDED_STEP_NO]);
}

static void
put_error_steps(Payload *payload, const Tables *tables, Row *task, const LogEvent *move)
{
	Datum	   *names = palloc(list_length(task->ended) * sizeof(Datum));
	int			count = 0;
	ListCell   *cell;

	list_sort(task->ended, compare_ended);
	foreach(cell, task->ended)
	{
		Row		   *ended = lfirst(cell);
		Row		   *plan_step;

		if (!was_in_error(ended, move))
			continue;
		plan_step = find_plan_step(tables, task, DatumGetInt16(ended->values[ENDED_STEP_NO]));
		if (plan_step != NULL)
			names[count++] = plan_step->values[PLAN_STEP_NAME];
	}
	payload_put(payload, "error_steps", TEXTARRAYOID,
				PointerGetDatum(construct_array(names, count, TEXTOID, -1, false, TYPALIGN_INT)));
}

/* How far the task had come; returns how many steps were in error. */
static int
put_progress(Payload *payload, const Row *task, const LogEvent *move)
{
	int			completed = 0;
	int			failed = 0;
	int			all = DatumGetInt32(task->values[TASK_STEP_COUNT]);
	ListCell   *cell;

	foreach(cell, task->ended)
	{
		Row		   *ended = lfirst(cell);

		if (was_in_error(ended, move))
			failed++;
		else if (step_satisfies(DatumGetInt16(ended->values[ENDED_STATE])) &&
				 DatumGetTimestampTz(ended->values[ENDED_AT]) <= move->at)
			completed++;
	}
	put_count(payload, "total_steps", all);
	put_count(payload, "completed_steps", completed);
	put_count(payload, "failed_steps", failed);
	put_count(payload, "pending_steps", all - completed - failed);
	return failed;
}

/* The task's error, unless a retry has taken it away, or another one has come since. */
static Jsonb *
error_by_then(const Row *task, TimestampTz at)
{
	Jsonb	   *error = row_object(task, TASK_FAILURE);
	char	   *failed_at = field_text(error, "at");

	if (failed_at == NULL ||
		DatumGetTimestampTz(DirectFunctionCall3(timestamptz_in, CStringGetDatum(failed_at),
												ObjectIdGetDatum(InvalidOid),
												Int32GetDatum(-1))) > at)
		return NULL;
	return error;
}

/* When the first step had started; false: none had. */
static bool
task_began(const Row *task, const LogEvent *move, TimestampTz *began)
{
	*began = DT_NOEND;
	if (has(task, TASK_STARTED_AT))
		*began = DatumGetTimestampTz(task->values[TASK_STARTED_AT]);
	if (move->has_begun)
		*began = Min(*began, move->began);
	if (move->to_state == TASK_IN_PROGRESS)
		*began = Min(*began, move->at);
	/* tasker.clock() may have been put back since */
	return *began <= move->at && move->from_state != STATE_NONE;
}

static void
put_task_event(Payload *payload, const Tables *tables, const LogEvent *move)
{
	const char *name = move->name != NULL ? move->name : "";
	Row		   *task = rows_lookup(tables->tasks, move->task_id);
	bool		is_complete = strcmp(name, "task.completed") == 0;
	int			failed = 0;
	TimestampTz began;

	put_facts(payload, task);
	put_head(payload, move->name, move->at, move->task_id);
	put(payload, "task_type", TEXTOID, task, TASK_NAME);
	if (is_complete)
		put_time(payload, "completed_at", move->at);
	if (task_began(task, move, &began))
	{
		put_time(payload, "started_at", began);
		put_seconds(payload, is_complete ? "total_execution_duration" : "current_execution_duration",
					move->at - began);
	}
	if (task != NULL)
		failed = put_progress(payload, task, move);
	if (strcmp(name, "task.initialize_requested") == 0 || strcmp(name, "task.started") == 0)
		put(payload, "task_context", JSONBOID, task, TASK_CONTEXT);
	put_text(payload, "reason", field_text(move->metadata, "reason"));
	if (strcmp(name, "task.failed") == 0)
	{
		Jsonb	   *error = error_by_then(task, move->at);
		char	   *message = field_text(move->metadata, "message");
		char	   *sqlstate = field_text(move->metadata, "sqlstate");

		put_text(payload, "error_message", message != NULL ? message : field_text(error, "message"));
		put_text(payload, "exception_class", sqlstate != NULL ? sqlstate : field_text(error, "sqlstate"));
		if (failed > 0)
			put_error_steps(payload, tables, task, move);
	}
}

static void
put_published(Payload *payload, const Tables *tables, const Row *event)
{
	int64		task_id = has(event, PUBLISHED_TASK_ID) ?
		DatumGetInt64(event->values[PUBLISHED_TASK_ID]) : 0;
	Row		   *task = task_id != 0 ? rows_lookup(tables->tasks, task_id) : NULL;

	payload_put_object(payload, DatumGetJsonbP(event->values[PUBLISHED_PAYLOAD]));
	put_facts(payload, task);
	put_head(payload, TextDatumGetCString(event->values[PUBLISHED_NAME]),
			 DatumGetTimestampTz(event->values[PUBLISHED_AT]), task_id);
	if (has(event, PUBLISHED_STEP_NO))
	{
		int			step_no = DatumGetInt16(event->values[PUBLISHED_STEP_NO]);

		put_count(payload, "step_id", task_id << TASKER_STEP_BITS | step_no);
		put(payload, "step_name", TEXTOID, find_plan_step(tables, task, step_no), PLAN_STEP_NAME);
	}
}

/* A row of the result. */
static void
put_event(ReturnSetInfo *result, int place, bool with_place, const Tables *tables, PayloadShapes *shapes,
		  const LogEvent *move, const Row *published)
{
	Payload		payload = {0};
	Datum		values[7];
	bool		nulls[7] = {0};

	values[0] = Int64GetDatum(place);
	if (published != NULL)
	{
		int64		task_id = has(published, PUBLISHED_TASK_ID) ?
			DatumGetInt64(published->values[PUBLISHED_TASK_ID]) : 0;

		put_published(&payload, tables, published);
		values[1] = Int64GetDatum(published->key);
		values[2] = published->values[PUBLISHED_AT];
		values[3] = published->values[PUBLISHED_NAME];
		values[4] = Int64GetDatum(task_id);
		nulls[4] = task_id == 0;
		nulls[5] = !has(published, PUBLISHED_STEP_NO);
		values[5] = nulls[5] ? 0 :
			Int64GetDatum(task_id << TASKER_STEP_BITS | DatumGetInt16(published->values[PUBLISHED_STEP_NO]));
	}
	else
	{
		if (move->step_no > 0)
			put_step_event(&payload, tables, move);
		else
			put_task_event(&payload, tables, move);
		values[1] = Int64GetDatum(move->event_id);
		values[2] = TimestampTzGetDatum(move->at);
		nulls[3] = move->name == NULL;
		values[3] = nulls[3] ? 0 : CStringGetTextDatum(move->name);
		values[4] = Int64GetDatum(move->task_id);
		nulls[5] = move->step_no == 0;
		values[5] = Int64GetDatum(move->task_id << TASKER_STEP_BITS | move->step_no);
	}
	values[6] = JsonbPGetDatum(payload_end(&payload, shapes));
	tuplestore_putvalues(result->setResult, result->setDesc,
						 values + (with_place ? 0 : 1), nulls + (with_place ? 0 : 1));
}

/* The steps that have ended of tasks that tell how far they have come. */
static void
read_ended(const Tables *tables, Keys *tasks, Keys *plan_steps)
{
	uint64		count = run_for_keys(&ended_rows, tasks);

	for (uint64 i = 0; i < count; i++)
	{
		Row		   *ended = palloc(sizeof(Row));
		Row		   *task;

		read_row(i, ended);
		task = rows_lookup(tables->tasks, DatumGetInt64(ended->values[ENDED_TASK_ID]));
		if (task == NULL)
			continue;
		task->ended = lappend(task->ended, ended);
		if (DatumGetInt16(ended->values[ENDED_STATE]) == STEP_ERROR)
			add_key(plan_steps, plan_step_key(task, DatumGetInt16(ended->values[ENDED_STEP_NO])));
	}
}

/* Reads whatever the events are described from. */
static void
read_tables(Tables *tables, const int64 *row_ids, int count)
{
	Keys		ids = {0};
	Keys		task_ids = {0};
	Keys		telling = {0};	/* tasks of events that tell how far they have come */
	Keys		steps = {0};
	Keys		plan_steps = {0};
	rows_iterator scan;
	Row		   *row;

	for (int i = 0; i < count; i++)
		add_key(&ids, row_ids[i]);
	tables->log = read_rows(&log_rows, &ids);
	ids.count = 0;
	for (int i = 0; i < count; i++)
		if (rows_lookup(tables->log, row_ids[i]) == NULL)
			add_key(&ids, row_ids[i]);
	tables->published = read_rows(&published_rows, &ids);

	rows_start_iterate(tables->log, &scan);
	while ((row = rows_iterate(tables->log, &scan)) != NULL)
	{
		int64		task_id = DatumGetInt64(row->values[LOG_TASK_ID]);
		int			step_no = DatumGetInt16(row->values[LOG_STEP_NO]);

		add_key(&task_ids, task_id);
		if (step_no > 0)
			add_key(&steps, task_id << TASKER_STEP_BITS | step_no);
		else
			add_key(&telling, task_id);
	}
	rows_start_iterate(tables->published, &scan);
	while ((row = rows_iterate(tables->published, &scan)) != NULL)
		if (has(row, PUBLISHED_TASK_ID))
			add_key(&task_ids, DatumGetInt64(row->values[PUBLISHED_TASK_ID]));
	tables->tasks = read_rows(&task_rows, &task_ids);
	tables->steps = read_rows(&step_rows, &steps);
	read_ended(tables, &telling, &plan_steps);

	for (int i = 0; i < steps.count; i++)
	{
		row = rows_lookup(tables->tasks, steps.keys[i] >> TASKER_STEP_BITS);
		if (row != NULL)
			add_key(&plan_steps, plan_step_key(row, steps.keys[i] & TASKER_MAX_STEPS));
	}
	rows_start_iterate(tables->published, &scan);
	while ((row = rows_iterate(tables->published, &scan)) != NULL)
	{
		Row		   *task = has(row, PUBLISHED_TASK_ID) && has(row, PUBLISHED_STEP_NO) ?
			rows_lookup(tables->tasks, DatumGetInt64(row->values[PUBLISHED_TASK_ID])) : NULL;

		if (task != NULL)
			add_key(&plan_steps, plan_step_key(task, DatumGetInt16(row->values[PUBLISHED_STEP_NO])));
	}
	tables->plan_steps = read_rows(&plan_step_rows, &plan_steps);
}

int
events_describe(const int64 *event_ids, const int64 *row_ids, int count,
				ReturnSetInfo *result, bool with_place)
{
	Tables		tables;
	PayloadShapes shapes = {.context = CurrentMemoryContext};
	MemoryContext one;
	MemoryContext before;
	int			described = 0;

	if (count == 0)
		return 0;
	read_tables(&tables, row_ids, count);
	one = AllocSetContextCreate(CurrentMemoryContext, "tasker event", ALLOCSET_DEFAULT_SIZES);
	before = MemoryContextSwitchTo(one);
	for (int i = 0; i < count; i++)
	{
		Row		   *row = rows_lookup(tables.log, row_ids[i]);
		Row		   *published = NULL;
		LogEvent	move;

		CHECK_FOR_INTERRUPTS();
		if (row != NULL)
			read_move(row, event_ids[i], &move);
		else
			published = rows_lookup(tables.published, row_ids[i]);
		if (row != NULL || published != NULL)
		{
			put_event(result, i + 1, with_place, &tables, &shapes, &move, published);
			described++;
		}
		MemoryContextReset(one);
	}
	MemoryContextSwitchTo(before);
	return described;
}

TimestampTz
events_happened_at(int64 event_id, int64 row_id)
{
	Keys		ids = {0};
	Row		   *row;
	LogEvent	move;

	add_key(&ids, row_id);
	row = rows_lookup(read_rows(&log_rows, &ids), row_id);
	if (row != NULL)
	{
		read_move(row, event_id, &move);
		return move.at;
	}
	row = rows_lookup(read_rows(&published_rows, &ids), row_id);
	return row == NULL ? 0 : DatumGetTimestampTz(row->values[PUBLISHED_AT]);
}

/* tasker._events(bigint[], bigint[]) */
Datum
tasker_events(PG_FUNCTION_ARGS)
{
	int64	   *event_ids;
	int64	   *row_ids;
	int			count;
	int			row_count;

	InitMaterializedSRF(fcinfo, 0);
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		return (Datum) 0;
	event_ids = ids_of(PG_GETARG_DATUM(0), &count);
	row_ids = ids_of(PG_GETARG_DATUM(1), &row_count);
	SPI_connect();
	(void) events_describe(event_ids, row_ids, Min(count, row_count),
						   (ReturnSetInfo *) fcinfo->resultinfo, true);
	SPI_finish();
	return (Datum) 0;
}

/* tasker._task_facts(bigint[]) */
Datum
tasker_task_facts(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	PayloadShapes shapes = {0};
	Keys		ids = {0};
	int64	   *task_ids;
	int			count;
	rows_hash  *tasks;
	rows_iterator scan;
	Row		   *task;
	MemoryContext one;
	MemoryContext before;

	InitMaterializedSRF(fcinfo, 0);
	if (PG_ARGISNULL(0))
		return (Datum) 0;
	task_ids = ids_of(PG_GETARG_DATUM(0), &count);
	SPI_connect();
	for (int i = 0; i < count; i++)
		add_key(&ids, task_ids[i]);
	shapes.context = CurrentMemoryContext;
	tasks = read_rows(&task_rows, &ids);
	one = AllocSetContextCreate(CurrentMemoryContext, "tasker facts", ALLOCSET_DEFAULT_SIZES);
	before = MemoryContextSwitchTo(one);
	rows_start_iterate(tasks, &scan);
	while ((task = rows_iterate(tasks, &scan)) != NULL)
	{
		Payload		payload = {0};
		Datum		values[3];
		bool		nulls[3] = {0};

		CHECK_FOR_INTERRUPTS();
		put_facts(&payload, task);
		values[0] = task->values[TASK_ID];
		values[1] = task->values[TASK_NAMESPACE];
		nulls[1] = task->nulls[TASK_NAMESPACE];
		values[2] = JsonbPGetDatum(payload_end(&payload, &shapes));
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
		MemoryContextReset(one);
	}
	MemoryContextSwitchTo(before);
	SPI_finish();
	return (Datum) 0;
}
