/*
 * namespace.c
 *	  Which namespace a task belongs to, and whether the caller may look there.
 *
 * A row of a task has no namespace: its plan has.  A policy asks for each row,
 * so a backend keeps the namespaces of plans, which never change, with the last
 * answer for each, and the plan of the task that it was asked for last.  It
 * reads both by their keys, without a statement, and without a check of
 * privileges.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_type_d.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "access/access.h"
#include "tasker.h"

PG_FUNCTION_INFO_V1(tasker_sees);
PG_FUNCTION_INFO_V1(tasker_sees_plan);
PG_FUNCTION_INFO_V1(tasker_sees_task);
PG_FUNCTION_INFO_V1(tasker_require_task);
PG_FUNCTION_INFO_V1(tasker_require_step);

/* A table that is read by the key in its first column. */
typedef struct Keyed
{
	const char *table_name;
	const char *index_name;
	const char *column;
	Oid			table;
	Oid			index;
	AttrNumber	column_number;
} Keyed;

typedef struct PlanNamespace
{
	int32		plan_id;
	char	   *namespace;
	/* The last question, and the answer. */
	uint64		generation;
	uint64		permissions;
	Oid			role;
	bool		seen;
} PlanNamespace;

/* The permissions that a call asks for. */
typedef struct Asked
{
	bool		is_constant;
	uint64		generation;
	uint64		permissions;	/* their bits in this generation */
} Asked;

static Keyed plan_table = {"plan", "plan_pkey", "namespace"};
static Keyed task_table = {"task", "task_pkey", "plan_id"};
static MemoryContext cache_context = NULL;
static HTAB *plans = NULL;		/* plan_id to PlanNamespace */
static int64 last_task = 0;
static int32 last_plan = 0;
static bool stale = false;

static void
relation_changed(Datum arg, Oid relid)
{
	if (relid == plan_table.table || relid == task_table.table || relid == InvalidOid)
		stale = true;
}

static void
find_table(Keyed *keyed, Oid schema)
{
	keyed->table = get_relname_relid(keyed->table_name, schema);
	keyed->index = get_relname_relid(keyed->index_name, schema);
	keyed->column_number = get_attnum(keyed->table, keyed->column);
}

/*
 * Forgets everything where the tables may not be those that were read.
 */
static void
refresh(void)
{
	HASHCTL		ctl = {0};
	Oid			schema;

	if (cache_context != NULL && !stale)
		return;
	if (cache_context == NULL)
	{
		CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
		cache_context = AllocSetContextCreate(CacheMemoryContext, "tasker namespaces",
											  ALLOCSET_SMALL_SIZES);
	}
	stale = false;
	plans = NULL;
	last_task = 0;
	MemoryContextReset(cache_context);
	ctl.hcxt = cache_context;
	ctl.keysize = sizeof(int32);
	ctl.entrysize = sizeof(PlanNamespace);
	plans = hash_create("tasker namespaces", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	schema = get_namespace_oid("tasker", false);
	find_table(&plan_table, schema);
	find_table(&task_table, schema);
}

/*
 * The value of one column in the row of a key, in the memory at hand; false:
 * there is no such row.
 */
static bool
read_column(Keyed *keyed, RegProcedure equals, Datum key_value, Datum *value)
{
	Relation	relation = table_open(keyed->table, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		found = false;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, equals, key_value);
	scan = systable_beginscan(relation, keyed->index, true, GetActiveSnapshot(), 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		Form_pg_attribute column = TupleDescAttr(RelationGetDescr(relation),
												 keyed->column_number - 1);
		bool		isnull;

		*value = heap_getattr(tuple, keyed->column_number, RelationGetDescr(relation), &isnull);
		found = !isnull;
		if (found)
			*value = column->attlen == -1 ? PointerGetDatum(PG_DETOAST_DATUM_COPY(*value)) :
				datumCopy(*value, column->attbyval, column->attlen);
	}
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	return found;
}

/*
 * NULL: there is no such plan.
 */
static PlanNamespace *
find_plan(int32 plan_id)
{
	PlanNamespace *known;
	Datum		value;
	char	   *namespace;

	refresh();
	known = hash_search(plans, &plan_id, HASH_FIND, NULL);
	if (known != NULL)
		return known;
	if (!read_column(&plan_table, F_INT4EQ, Int32GetDatum(plan_id), &value))
		return NULL;
	namespace = TextDatumGetCString(value);
	/* Reading may have told of a change. */
	refresh();
	known = hash_search(plans, &plan_id, HASH_ENTER, NULL);
	known->namespace = MemoryContextStrdup(cache_context, namespace);
	known->generation = 0;
	return known;
}

/*
 * 0: there is no such task.
 */
static int32
plan_of_task(int64 task_id)
{
	Datum		value;

	refresh();
	if (task_id == last_task && task_id != 0)
		return last_plan;
	if (!read_column(&task_table, F_INT8EQ, Int64GetDatum(task_id), &value))
		return 0;
	last_task = task_id;
	last_plan = DatumGetInt32(value);
	return last_plan;
}

const char *
access_namespace_of_task(int64 task_id)
{
	PlanNamespace *plan = find_plan(plan_of_task(task_id));

	return plan == NULL ? NULL : plan->namespace;
}

/*
 * The bits of the permissions in the first argument; those of a constant, as
 * policies have it, are looked up once a generation.
 */
static Asked
asked_of(FunctionCallInfo fcinfo)
{
	Asked	   *kept = fcinfo->flinfo->fn_extra;
	Asked		asked = {0};
	Datum	   *names;
	int			count;

	asked.generation = access_generation();
	if (kept != NULL && kept->is_constant && kept->generation == asked.generation)
		return *kept;
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), TEXTOID, -1, false, TYPALIGN_INT,
					  &names, NULL, &count);
	for (int i = 0; i < count; i++)
		asked.permissions |= access_permission_bit(TextDatumGetCString(names[i]));
	if (kept == NULL)
	{
		kept = MemoryContextAlloc(fcinfo->flinfo->fn_mcxt, sizeof(Asked));
		kept->is_constant = get_fn_expr_arg_stable(fcinfo->flinfo, 0);
		fcinfo->flinfo->fn_extra = kept;
	}
	asked.is_constant = kept->is_constant;
	*kept = asked;
	return asked;
}

static bool
sees_plan(const Asked *asked, PlanNamespace *plan)
{
	Oid			role = access_caller();

	if (plan == NULL)
		return false;
	if (plan->generation != asked->generation || plan->role != role ||
		plan->permissions != asked->permissions)
	{
		plan->seen = access_role_has_any(role, asked->permissions, plan->namespace);
		plan->generation = asked->generation;
		plan->permissions = asked->permissions;
		plan->role = role;
	}
	return plan->seen;
}

/*
 * tasker._sees(permissions text[], namespace text)
 */
Datum
tasker_sees(PG_FUNCTION_ARGS)
{
	Asked		asked;

	if (!access_is_enforced())
		PG_RETURN_BOOL(true);
	asked = asked_of(fcinfo);
	PG_RETURN_BOOL(access_role_has_any(access_caller(), asked.permissions,
									   PG_ARGISNULL(1) ? EVERY_NAMESPACE :
									   text_to_cstring(PG_GETARG_TEXT_PP(1))));
}

/*
 * tasker._sees_plan(permissions text[], plan_id integer)
 */
Datum
tasker_sees_plan(PG_FUNCTION_ARGS)
{
	PlanNamespace *plan;
	Asked		asked;

	if (!access_is_enforced())
		PG_RETURN_BOOL(true);
	if (PG_ARGISNULL(1))
		PG_RETURN_BOOL(false);
	plan = find_plan(PG_GETARG_INT32(1));
	asked = asked_of(fcinfo);
	PG_RETURN_BOOL(sees_plan(&asked, plan));
}

/*
 * tasker._sees_task(permissions text[], task_id bigint)
 */
Datum
tasker_sees_task(PG_FUNCTION_ARGS)
{
	PlanNamespace *plan;
	Asked		asked;

	if (!access_is_enforced())
		PG_RETURN_BOOL(true);
	if (PG_ARGISNULL(1))
		PG_RETURN_BOOL(false);
	plan = find_plan(plan_of_task(PG_GETARG_INT64(1)));
	asked = asked_of(fcinfo);
	PG_RETURN_BOOL(sees_plan(&asked, plan));
}

bool
access_caller_may_in_task(const char *permission, int64 task_id)
{
	const char *namespace;

	if (!access_is_enforced())
		return true;
	namespace = access_namespace_of_task(task_id);
	return namespace != NULL && access_role_may(access_caller(), permission, namespace);
}

static bool
caller_sees_tasks(const char *namespace)
{
	static const char *const seeing[] = {ACCESS_SEES_TASKS};
	Oid			role = access_caller();

	for (int i = 0; i < lengthof(seeing); i++)
		if (access_role_may(role, seeing[i], namespace))
			return true;
	return false;
}

void
access_refuse_unknown(const char *what, int64 id, bool isnull)
{
	const char *number = isnull ? "NULL" : psprintf(INT64_FORMAT, id);

	ereport(ERROR,
			errcode(ERRCODE_TASKER_NOT_FOUND),
			errmsg("%s %s does not exist", what, number),
			errdetail("No %s has the id %s.", what, number),
			errhint("The view tasker.%s lists the %ss there are.",
					strcmp(what, "task") == 0 ? "tasks" : "workflow_steps", what));
}

/*
 * What the caller may not see is to him as what does not exist.
 */
static void
require_in_task(const char *permission, int64 task_id, const char *what, int64 id, bool isnull)
{
	const char *namespace = isnull ? NULL : access_namespace_of_task(task_id);

	if (namespace != NULL && access_role_may(access_caller(), permission, namespace))
		return;
	if (namespace != NULL && caller_sees_tasks(namespace))
		access_refuse(permission, namespace);
	access_refuse_unknown(what, id, isnull);
}

void
access_require_task(const char *permission, int64 task_id)
{
	bool		needs_snapshot = !ActiveSnapshotSet();

	if (!access_is_enforced())
		return;
	if (needs_snapshot)
		PushActiveSnapshot(GetTransactionSnapshot());
	require_in_task(permission, task_id, "task", task_id, false);
	if (needs_snapshot)
		PopActiveSnapshot();
}

/*
 * tasker._require_task(permission text, task_id bigint)
 */
Datum
tasker_require_task(PG_FUNCTION_ARGS)
{
	if (access_is_enforced())
		require_in_task(text_to_cstring(PG_GETARG_TEXT_PP(0)),
						PG_ARGISNULL(1) ? 0 : PG_GETARG_INT64(1),
						"task", PG_ARGISNULL(1) ? 0 : PG_GETARG_INT64(1), PG_ARGISNULL(1));
	PG_RETURN_VOID();
}

/*
 * tasker._require_step(permission text, step_id bigint)
 */
Datum
tasker_require_step(PG_FUNCTION_ARGS)
{
	int64		step_id = PG_ARGISNULL(1) ? 0 : PG_GETARG_INT64(1);

	if (access_is_enforced())
		require_in_task(text_to_cstring(PG_GETARG_TEXT_PP(0)), step_id >> TASKER_STEP_BITS,
						"step", step_id, PG_ARGISNULL(1));
	PG_RETURN_VOID();
}
