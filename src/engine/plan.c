/*
 * plan.c
 *	  Plans as a backend keeps them: read once, with every handler looked up.
 *
 * A plan never changes, so only a change to a handler, a function or a role
 * makes what is kept stale; then all of it goes, and comes back by need.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "parser/parse_func.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/syscache.h"
#include "utils/typcache.h"
#include "utils/varlena.h"

#include "engine/plan.h"
#include "statement.h"
#include "tasker.h"

PG_FUNCTION_INFO_V1(tasker_definitions_changed);

static MemoryContext cache_context = NULL;
static TupleDesc step_context = NULL;
static TupleDesc event = NULL;
static HTAB *plans = NULL;		/* plan_id to TaskPlan */
static HTAB *handlers = NULL;	/* handler_id to Handler */
static HTAB *subscribers = NULL;	/* subscriber_id to Handler */
static Oid	handler_table = InvalidOid;
static bool stale = false;

typedef struct PlanEntry
{
	int32		plan_id;
	TaskPlan   *plan;
} PlanEntry;

typedef struct HandlerEntry
{
	int32		handler_id;
	Handler    *handler;
} HandlerEntry;

static Statement read_plan = {
	.sql = "SELECT namespace, name, version, on_failure = 'stop', timeout, step_count, "
	"NOT concurrent "
	"FROM tasker.plan WHERE plan_id = $1",
	.arg_count = 1,
	.arg_types = {INT4OID},
};

/*
 * The handler of each step: in the task's namespace before default, for the
 * exact version before the one for all.
 */
static Statement read_steps = {
	.sql = "SELECT s.step_no, s.name, s.parents, s.children, s.retryable, s.retry_limit, "
	"extract(epoch FROM s.base_delay)::float8, extract(epoch FROM s.max_delay)::float8, "
	"s.jitter::float8, s.timeout, s.handler_config, s.handler_class, "
	"s.handler_type = 'api', "
	"h.handler_id, h.kind, h.function, h.run_as, h.search_path, h.transaction = 'own' "
	"FROM tasker.plan AS p "
	"JOIN tasker.plan_step AS s ON s.plan_id = p.plan_id "
	"LEFT JOIN LATERAL ("
	"SELECT c.* FROM tasker.handler AS c "
	"WHERE c.name = s.handler_class "
	"AND c.namespace IN (p.namespace, 'default') "
	"AND (c.version = p.version OR c.version IS NULL) "
	"ORDER BY c.namespace <> p.namespace, c.version IS NULL "
	"LIMIT 1) AS h ON true "
	"WHERE p.plan_id = $1 "
	"ORDER BY s.step_no",
	.arg_count = 1,
	.arg_types = {INT4OID},
};

static Statement read_limits = {
	.sql = "SELECT s.step_no, m.limit_id, m.steps "
	"FROM tasker.plan AS p "
	"JOIN tasker.plan_step AS s ON s.plan_id = p.plan_id "
	"JOIN tasker.max_in_progress AS m ON coalesce(m.namespace = p.namespace, true) "
	"AND coalesce(m.handler = s.handler_class, true) "
	"WHERE p.plan_id = $1 "
	"ORDER BY s.step_no, m.limit_id",
	.arg_count = 1,
	.arg_types = {INT4OID},
};

static void
relation_changed(Datum arg, Oid relid)
{
	if (relid == handler_table || relid == InvalidOid)
		stale = true;
}

static void
catalogue_changed(Datum arg, int cacheid, uint32 hashvalue)
{
	stale = true;
}

/*
 * Makes the cache, empty.
 */
static void
cache_create(void)
{
	static bool registered = false;
	HASHCTL		ctl = {0};

	if (!registered)
	{
		CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
		CacheRegisterSyscacheCallback(PROCOID, catalogue_changed, (Datum) 0);
		CacheRegisterSyscacheCallback(AUTHOID, catalogue_changed, (Datum) 0);
		CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, catalogue_changed, (Datum) 0);
		CacheRegisterSyscacheCallback(NAMESPACEOID, catalogue_changed, (Datum) 0);
		registered = true;
	}
	handler_table = get_relname_relid("handler", get_namespace_oid("tasker", false));
	step_context = NULL;
	event = NULL;

	cache_context = AllocSetContextCreate(CacheMemoryContext, "tasker plans",
										  ALLOCSET_DEFAULT_SIZES);
	ctl.hcxt = cache_context;
	ctl.keysize = sizeof(int32);
	ctl.entrysize = sizeof(PlanEntry);
	plans = hash_create("tasker plans", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	ctl.entrysize = sizeof(HandlerEntry);
	handlers = hash_create("tasker handlers", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	subscribers = hash_create("tasker subscribers", 16, &ctl,
							  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	stale = false;
}

/*
 * Frees the plans of all handlers of a table, which live outside of the cache.
 */
static void
free_calls(HTAB *table)
{
	HASH_SEQ_STATUS scan;
	HandlerEntry *entry;

	hash_seq_init(&scan, table);
	while ((entry = hash_seq_search(&scan)) != NULL)
		if (entry->handler->call != NULL)
			SPI_freeplan(entry->handler->call);
}

void
plan_cache_refresh(void)
{
	if (cache_context != NULL && stale)
	{
		free_calls(handlers);
		free_calls(subscribers);
		MemoryContextDelete(cache_context);
		cache_context = NULL;
	}
	if (cache_context == NULL)
		cache_create();
}

/*
 * Length of an interval in microseconds; a month counts 30 days, as it does
 * wherever PostgreSQL compares intervals.
 */
static int64
interval_us(Interval *interval)
{
	return interval->time + ((int64) interval->month * DAYS_PER_MONTH + interval->day) *
		USECS_PER_DAY;
}

/*
 * The handler of that id, in columns 12 to 19 of a row of read_steps.
 */
static Handler *
registered_handler(int32 id, uint64 row)
{
	bool		found;
	bool		isnull;
	HandlerEntry *entry = hash_search(handlers, &id, HASH_ENTER, &found);
	Handler    *handler;
	char	   *kind;

	if (found && entry->handler != NULL)
		return entry->handler;
	entry->handler = NULL;
	kind = row_text(row, 15, CurrentMemoryContext);
	handler = MemoryContextAllocZero(cache_context, sizeof(Handler));
	handler->class_name = row_text(row, 12, cache_context);
	handler->handler_id = id;
	handler->kind = strcmp(kind, "sql") == 0 ? HANDLER_SQL : HANDLER_EXTERNAL;
	handler->function_name = row_text(row, 16, cache_context);
	handler->role_name = row_text(row, 17, cache_context);
	handler->search_path = row_text(row, 18, cache_context);
	handler->own_transaction = DatumGetBool(row_value(row, 19, &isnull)) && !isnull;
	handler->timing = tasker_handler_timing(id);
	entry->handler = handler;
	return handler;
}

/*
 * Puts in the handler of a step.  An api step goes to the agent; a SQL handler
 * that is registered under its class makes the result of the answer.
 */
static void
handlers_from_row(PlanStep *step, uint64 row)
{
	bool		isnull;
	bool		is_api = DatumGetBool(row_value(row, 13, &isnull)) && !isnull;
	int32		id = DatumGetInt32(row_value(row, 14, &isnull));
	Handler    *registered = isnull ? NULL : registered_handler(id, row);

	if (registered != NULL && !is_api)
	{
		step->handler = registered;
		return;
	}
	if (registered != NULL && registered->kind == HANDLER_SQL)
		step->answer = registered;
	step->handler = MemoryContextAllocZero(cache_context, sizeof(Handler));
	step->handler->class_name = row_text(row, 12, cache_context);
	step->handler->kind = is_api ? HANDLER_API : HANDLER_MISSING;
}

/*
 * A smallint[] that holds no nulls, copied.
 */
static int16 *
int16_array(Datum value, int16 *count)
{
	ArrayType  *array = DatumGetArrayTypeP(value);
	int			n = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
	int16	   *copy = MemoryContextAlloc(cache_context, Max(n, 1) * sizeof(int16));

	memcpy(copy, ARR_DATA_PTR(array), n * sizeof(int16));
	*count = n;
	return copy;
}

static void
step_from_row(PlanStep *step, uint64 row)
{
	bool		isnull;
	Datum		value;

	step->step_no = DatumGetInt16(row_value(row, 1, &isnull));
	step->name = row_text(row, 2, cache_context);
	step->parents = int16_array(row_value(row, 3, &isnull), &step->parent_count);
	step->children = int16_array(row_value(row, 4, &isnull), &step->child_count);
	step->retryable = DatumGetBool(row_value(row, 5, &isnull));
	step->retry_limit = DatumGetInt16(row_value(row, 6, &isnull));
	step->base_delay = DatumGetFloat8(row_value(row, 7, &isnull));
	step->max_delay = DatumGetFloat8(row_value(row, 8, &isnull));
	step->jitter = DatumGetFloat8(row_value(row, 9, &isnull));
	value = row_value(row, 10, &isnull);
	step->timeout = isnull ? 0 : Max(interval_us(DatumGetIntervalP(value)), 1);
	value = row_value(row, 11, &isnull);
	if (!isnull)
	{
		MemoryContext before = MemoryContextSwitchTo(cache_context);

		step->config = (Jsonb *) PG_DETOAST_DATUM_COPY(value);
		MemoryContextSwitchTo(before);
		step->secrets = secret_use(step->config, cache_context);
	}
	handlers_from_row(step, row);
}

/*
 * The limits that the steps of the plan stand under; the rows are theirs in the
 * order of the steps.
 */
static void
limits_from_rows(TaskPlan *plan, uint64 rows)
{
	StepLimit  *limits = MemoryContextAlloc(cache_context, Max(rows, 1) * sizeof(StepLimit));
	bool		isnull;

	for (uint64 row = 0; row < rows; row++)
	{
		PlanStep   *step = plan_step(plan, DatumGetInt16(row_value(row, 1, &isnull)));

		limits[row].limit_id = DatumGetInt32(row_value(row, 2, &isnull));
		limits[row].steps = DatumGetInt32(row_value(row, 3, &isnull));
		if (step->limit_count++ == 0)
			step->limits = &limits[row];
	}
}

/*
 * Reads a plan.
 */
static TaskPlan *
plan_read(int32 plan_id)
{
	Datum		id = Int32GetDatum(plan_id);
	TaskPlan   *plan;
	bool		isnull;
	Datum		value;
	uint64		rows;

	if (statement_run(&read_plan, &id, NULL) != 1)
		ereport(ERROR,
				errcode(ERRCODE_DATA_CORRUPTED),
				errmsg("plan %d is missing", plan_id),
				errdetail("A task follows it, and tasker.plan has no such row."),
				errhint("Restore the row from a backup; plans must not be deleted by hand."));

	plan = MemoryContextAllocZero(cache_context, sizeof(TaskPlan));
	plan->plan_id = plan_id;
	plan->namespace = row_text(0, 1, cache_context);
	plan->name = row_text(0, 2, cache_context);
	plan->version = row_text(0, 3, cache_context);
	plan->stop_on_failure = DatumGetBool(row_value(0, 4, &isnull));
	value = row_value(0, 5, &isnull);
	plan->timeout = isnull ? 0 : interval_us(DatumGetIntervalP(value));
	plan->step_count = DatumGetInt16(row_value(0, 6, &isnull));
	plan->one_at_a_time = DatumGetBool(row_value(0, 7, &isnull));
	SPI_freetuptable(SPI_tuptable);

	rows = statement_run(&read_steps, &id, NULL);
	if (rows != plan->step_count)
		ereport(ERROR,
				errcode(ERRCODE_DATA_CORRUPTED),
				errmsg("plan %d is incomplete", plan_id),
				errdetail("It has %d steps, and tasker.plan_step has %d of them.",
						  plan->step_count, (int) rows));
	plan->steps = MemoryContextAllocZero(cache_context,
										 Max(plan->step_count, 1) * sizeof(PlanStep));
	for (uint64 row = 0; row < rows; row++)
		step_from_row(&plan->steps[row], row);
	SPI_freetuptable(SPI_tuptable);

	rows = statement_run(&read_limits, &id, NULL);
	limits_from_rows(plan, rows);
	SPI_freetuptable(SPI_tuptable);
	return plan;
}

TaskPlan *
plan_get(int32 plan_id)
{
	PlanEntry  *entry = hash_search(plans, &plan_id, HASH_FIND, NULL);

	if (entry == NULL)
	{
		/* Read first: an error must not leave an entry without a plan. */
		TaskPlan   *plan = plan_read(plan_id);

		entry = hash_search(plans, &plan_id, HASH_ENTER, NULL);
		entry->plan = plan;
	}
	return entry->plan;
}

/*
 * A row type of ours.  It goes with the rest of the cache, for the type of an
 * extension that is dropped and made anew is another one.
 */
static TupleDesc
row_type(const char *name)
{
	Oid			type = GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid, CStringGetDatum(name),
									   ObjectIdGetDatum(get_namespace_oid("tasker", false)));
	TupleDesc	typed = lookup_rowtype_tupdesc(type, -1);
	MemoryContext before = MemoryContextSwitchTo(cache_context);
	TupleDesc	copy = CreateTupleDescCopy(typed);

	MemoryContextSwitchTo(before);
	ReleaseTupleDesc(typed);
	return copy;
}

/*
 * What handlers of steps get.
 */
TupleDesc
plan_step_context(void)
{
	if (step_context == NULL)
		step_context = row_type("step_context");
	return step_context;
}

/*
 * What handlers of subscribers get, unless they take jsonb.
 */
TupleDesc
plan_event(void)
{
	if (event == NULL)
		event = row_type("event");
	return event;
}

/*
 * Whether the handler that is kept is still the one that the subscriber has.
 */
static bool
is_handler_of(const Handler *handler, const char *name, const char *function, const char *role,
			  const char *search_path)
{
	return strcmp(handler->class_name, name) == 0 &&
		strcmp(handler->function_name, function) == 0 &&
		strcmp(handler->role_name, role) == 0 &&
		strcmp(handler->search_path ? handler->search_path : "",
			   search_path ? search_path : "") == 0;
}

Handler *
plan_subscriber_handler(int32 subscriber_id, const char *name, const char *signature,
						const char *role, const char *search_path)
{
	/* The types that it may take have no parenthesis in their names. */
	const char *arguments = strrchr(signature, '(');
	char	   *function = arguments == NULL ? pstrdup(signature) :
		pnstrdup(signature, arguments - signature);
	bool		takes_jsonb = arguments != NULL && strcmp(arguments, "(jsonb)") == 0;
	bool		found;
	HandlerEntry *entry = hash_search(subscribers, &subscriber_id, HASH_FIND, &found);
	Handler    *handler;

	if (found && is_handler_of(entry->handler, name, function, role, search_path) &&
		entry->handler->takes_jsonb == takes_jsonb)
		return entry->handler;
	if (found && entry->handler->call != NULL)
		SPI_freeplan(entry->handler->call);

	handler = MemoryContextAllocZero(cache_context, sizeof(Handler));
	handler->kind = HANDLER_SQL;
	handler->for_events = true;
	handler->takes_jsonb = takes_jsonb;
	handler->class_name = MemoryContextStrdup(cache_context, name);
	handler->function_name = MemoryContextStrdup(cache_context, function);
	handler->role_name = MemoryContextStrdup(cache_context, role);
	if (search_path != NULL)
		handler->search_path = MemoryContextStrdup(cache_context, search_path);
	entry = hash_search(subscribers, &subscriber_id, HASH_ENTER, &found);
	entry->handler = handler;
	return handler;
}

static void
handler_problem(Handler *handler, char *problem)
{
	handler->problem = MemoryContextStrdup(cache_context, problem);
	handler->looked_up = true;
}

/*
 * Whose handler it is, as messages say it.
 */
static char *
handler_title(const Handler *handler)
{
	return psprintf(handler->for_events ? "subscriber \"%s\"" : "handler \"%s\"",
					handler->class_name);
}

/*
 * Type of the handler's argument.
 */
static Oid
handler_argument(const Handler *handler)
{
	if (handler->takes_jsonb)
		return JSONBOID;
	return (handler->for_events ? plan_event() : plan_step_context())->tdtypeid;
}

/*
 * Whether the function is one that can be called as the handler.
 */
static bool
handler_fits(const Handler *handler, Form_pg_proc form)
{
	if (form->proretset || form->prokind != PROKIND_FUNCTION)
		return false;
	if (handler->for_events)
		return form->prorettype != TRIGGEROID && form->prorettype != EVENT_TRIGGEROID;
	return form->prorettype == JSONBOID;
}

/*
 * Finds the function and the role of a SQL handler, and whether the one may
 * run the other.  What is wrong is kept as text, for it is the step's error
 * and not the executor's.
 */
void
handler_look_up(Handler *handler)
{
	List	   *names;
	Oid			argument;
	Oid			function;
	HeapTuple	tuple;
	Form_pg_proc form;

	if (handler->looked_up)
		return;

	argument = handler_argument(handler);

	handler->role = get_role_oid(handler->role_name, true);
	if (!OidIsValid(handler->role))
	{
		handler_problem(handler, psprintf("role \"%s\" that registered %s does not exist",
										  handler->role_name, handler_title(handler)));
		return;
	}

	names = stringToQualifiedNameList(handler->function_name);
	function = LookupFuncName(names, 1, &argument, true);
	if (!OidIsValid(function))
	{
		handler_problem(handler, psprintf("function %s(%s) of %s does not exist",
										  handler->function_name,
										  handler->takes_jsonb ? "jsonb" :
										  handler->for_events ? "tasker.event" :
										  "tasker.step_context", handler_title(handler)));
		return;
	}

	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", function);
	form = (Form_pg_proc) GETSTRUCT(tuple);
	if (!handler_fits(handler, form))
		handler_problem(handler, psprintf(handler->for_events ?
										  "function %s of %s is no plain function any more" :
										  "function %s of %s does not return jsonb any more",
										  handler->function_name, handler_title(handler)));
	handler->plain_sql = form->prolang == SQLlanguageId;
	ReleaseSysCache(tuple);
	if (handler->problem != NULL)
		return;

#if PG_VERSION_NUM >= 160000
	if (object_aclcheck(ProcedureRelationId, function, handler->role, ACL_EXECUTE) != ACLCHECK_OK)
#else
	if (pg_proc_aclcheck(function, handler->role, ACL_EXECUTE) != ACLCHECK_OK)
#endif
	{
		handler_problem(handler, psprintf("role \"%s\" may not execute function %s of %s",
										  handler->role_name, handler->function_name,
										  handler_title(handler)));
		return;
	}

	handler->function = function;
	fmgr_info_cxt(function, &handler->flinfo, cache_context);
	if (handler->plain_sql)
	{
		SPIPlanPtr	plan = SPI_prepare(psprintf("SELECT %s($1)", handler->function_name), 1,
									   &argument);

		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not prepare the call of %s", handler->function_name);
		handler->call = plan;
	}
	handler->looked_up = true;
}

int32
handler_lane(const Handler *handler)
{
	switch (handler->kind)
	{
		case HANDLER_EXTERNAL:
			return handler->handler_id;
		case HANDLER_API:
			return LANE_API;
		case HANDLER_SQL:
			if (handler->own_transaction)
				return LANE_ALONE;
			if (!handler_is_fast(handler))
				return LANE_SLOW;
			break;
		case HANDLER_MISSING:
			break;
	}
	return LANE_BATCH;
}

uint32
handler_average_us(const Handler *handler)
{
	return handler->timing ? pg_atomic_read_u32(&handler->timing->average_us) :
		handler->average_us;
}

/*
 * Takes a run time into the moving average.  It goes down fast, for a first run
 * reads and compiles what later ones find at hand, and up slowly, for on a busy
 * machine a run may be long through no doing of its own.  Two executors that do
 * so at the same time lose one of the two, which an average bears.
 */
void
handler_timed(Handler *handler, uint64 us)
{
	uint32		before = handler_average_us(handler);
	uint32		now = (uint32) Min(us, PG_UINT32_MAX / 16);
	uint32		average;

	if (before == 0)
		average = now;
	else if (now < before)
		average = (before + now) / 2;
	else
		average = before + (Min(now, before * 4) - before) / 8;
	average = Max(average, 1);
	if (handler->timing == NULL)
		handler->average_us = average;
	else if (average != before)
		pg_atomic_write_u32(&handler->timing->average_us, average);
}

/*
 * tasker._definitions_changed()
 */
Datum
tasker_definitions_changed(PG_FUNCTION_ARGS)
{
	CacheInvalidateRelcacheByRelid(get_relname_relid("handler",
													 get_namespace_oid("tasker", false)));
	PG_RETURN_VOID();
}
