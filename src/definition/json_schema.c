/*
 * json_schema.c
 *	  JSON Schema seen from SQL: the compiled schemas of the session, and the
 *	  functions.
 *
 * A compiled schema is kept, since create_task() checks every context.  A call
 * site remembers the one it used last: a constant schema is not even looked at
 * again, another is compared with that one's bytes first.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "funcapi.h"
#include "nodes/primnodes.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "definition/json_schema.h"
#include "definition/json_schema_value.h"
#include "tasker.h"

#define CACHED_SCHEMAS		64
#define CACHED_BYTES		65536	/* of a schema; a larger one is kept by its call site only */
#define SHOWN_PROBLEMS		20	/* in one error */

PG_FUNCTION_INFO_V1(tasker_json_schema_errors);
PG_FUNCTION_INFO_V1(tasker_json_schema_is_valid);
PG_FUNCTION_INFO_V1(tasker_schema_problems);
PG_FUNCTION_INFO_V1(tasker_schemas_changed);
PG_FUNCTION_INFO_V1(tasker_check_context);

/*
 * Compiled schemas of this session.  The hash finds one, the bytes prove it.
 */
typedef struct CachedSchema
{
	uint64		number;			/* never the same for two; 0: nothing is here */
	uint64		hash;
	uint64		last_use;
	uint64		stored_state;	/* of the stored schemas, when it was compiled */
	MemoryContext context;		/* of all below */
	char	   *source;
	Size		length;
	Program    *program;
} CachedSchema;

/* What a call site remembers. */
typedef struct LastUse
{
	bool		is_constant;	/* its schema is always the same */
	CachedSchema *cached;
	uint64		number;			/* of what was there */
	CachedSchema own;			/* what is not kept for others */
} LastUse;

static CachedSchema schema_cache[CACHED_SCHEMAS];
static uint64 schema_cache_clock = 0;
static uint64 last_number = 0;
static Oid	stored_schema_table = InvalidOid;
static bool stored_schemas_changed = false;
static uint64 stored_state = 0; /* moves on when they change */

static void
relation_changed(Datum arg, Oid relid)
{
	if (relid == stored_schema_table || relid == InvalidOid)
		stored_schemas_changed = true;
}

static void
forget(CachedSchema *cached)
{
	if (cached->number != 0)
		MemoryContextDelete(cached->context);
	memset(cached, 0, sizeof(CachedSchema));
}

/* What was compiled from stored schemas goes when one of them changes. */
static void
forget_changed(void)
{
	static bool registered = false;

	if (!registered)
	{
		CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
		registered = true;
	}
	if (!OidIsValid(stored_schema_table) || stored_schemas_changed)
	{
		Oid			namespace = get_namespace_oid("tasker", true);

		stored_schema_table = OidIsValid(namespace) ?
			get_relname_relid("stored_schema", namespace) : InvalidOid;
	}
	if (!stored_schemas_changed)
		return;
	stored_schemas_changed = false;
	stored_state++;
	for (int i = 0; i < CACHED_SCHEMAS; i++)
		if (schema_cache[i].number != 0 && schema_cache[i].program->reads_stored)
			forget(&schema_cache[i]);
}

/* A place in the cache: a free one, or that of the schema unused for longest. */
static CachedSchema *
make_room(void)
{
	CachedSchema *oldest = &schema_cache[0];

	for (int i = 0; i < CACHED_SCHEMAS; i++)
		if (schema_cache[i].last_use < oldest->last_use)
			oldest = &schema_cache[i];
	forget(oldest);
	return oldest;
}

/* Raises what is wrong with a schema that somebody wants to check against. */
static void
report_broken_schema(const Program *program)
{
	const SchemaProblem *first = program->problems;
	int			more = program->problem_count - 1;
	const char *place = first->pointer[0] ? first->pointer : "schema";

	ereport(ERROR,
			(errcode(ERRCODE_TASKER_DEFINITION),
			 errmsg("invalid JSON Schema"),
			 more == 0 ? errdetail("%s: %s.", place, first->message) :
			 errdetail("%s: %s; and %d more.", place, first->message, more),
			 first->hint ? errhint("%s", first->hint) : 0));
}

/* Compiles into a context of its own, which begins as the caller's. */
static CachedSchema
compile(const char *source, Size length, uint64 hash)
{
	CachedSchema result = {.hash = hash,.length = length,.stored_state = stored_state};
	JsonValue	root;

	result.context = AllocSetContextCreate(CurrentMemoryContext, "tasker JSON Schema",
										   ALLOCSET_SMALL_SIZES);
	result.source = MemoryContextAllocHuge(result.context, length);
	memcpy(result.source, source, length);
	root_value(&root, result.source, (uint32) length);
	result.program = schema_compile(result.context, &root, GetDatabaseEncoding() == PG_UTF8);
	if (result.program->problems != NULL)
		report_broken_schema(result.program);
	result.number = ++last_number;
	return result;
}

static bool
is_of(const CachedSchema *cached, const char *source, Size length)
{
	return cached->length == length && memcmp(cached->source, source, length) == 0;
}

/* From the session's cache; NULL: it is not there. */
static CachedSchema *
find_cached(const char *source, Size length, uint64 hash)
{
	for (int i = 0; i < CACHED_SCHEMAS; i++)
	{
		CachedSchema *cached = &schema_cache[i];

		if (cached->number != 0 && cached->hash == hash && is_of(cached, source, length))
		{
			cached->last_use = ++schema_cache_clock;
			return cached;
		}
	}
	return NULL;
}

static void
forget_own(void *arg)
{
	LastUse    *use = arg;

	forget(&use->own);
}

/* Not so a parameter: PL/pgSQL keeps the call site while its variables change. */
static bool
first_argument_is_constant(const FmgrInfo *flinfo)
{
	return flinfo->fn_expr != NULL && IsA(flinfo->fn_expr, FuncExpr) &&
		IsA(linitial(((FuncExpr *) flinfo->fn_expr)->args), Const);
}

static LastUse *
last_use_of(FmgrInfo *flinfo)
{
	LastUse    *use = flinfo->fn_extra;
	MemoryContextCallback *callback;

	if (use != NULL)
		return use;
	use = MemoryContextAllocZero(flinfo->fn_mcxt, sizeof(LastUse));
	use->is_constant = first_argument_is_constant(flinfo);
	callback = MemoryContextAllocZero(flinfo->fn_mcxt, sizeof(MemoryContextCallback));
	callback->func = forget_own;
	callback->arg = use;
	MemoryContextRegisterResetCallback(flinfo->fn_mcxt, callback);
	flinfo->fn_extra = use;
	return use;
}

/* Compiles for all of the session, or, what it can't keep, for the call site. */
static CachedSchema *
compile_for(LastUse *use, const char *source, Size length, uint64 hash)
{
	CachedSchema compiled = compile(source, length, hash);
	CachedSchema *place = &use->own;

	if (length <= CACHED_BYTES && !(compiled.program->reads_stored && IsInParallelMode()))
		place = make_room();
	else
		forget(place);
	MemoryContextSetParent(compiled.context, TopMemoryContext);
	compiled.last_use = ++schema_cache_clock;
	*place = compiled;
	return place;
}

/* Finds the compiled form of the first argument, or makes it. */
static const Program *
find_program(LastUse *use, Datum argument)
{
	bool		is_current = use->cached != NULL && use->number != 0 &&
		use->cached->number == use->number &&
		(!use->cached->program->reads_stored || use->cached->stored_state == stored_state);
	struct varlena *schema;
	const char *source;
	Size		length;
	uint64		hash;

	if (is_current && use->is_constant)
		return use->cached->program;
	schema = PG_DETOAST_DATUM_PACKED(argument);
	source = VARDATA_ANY(schema);
	length = VARSIZE_ANY_EXHDR(schema);
	if (is_current && is_of(use->cached, source, length))
		return use->cached->program;
	hash = hash_bytes_extended((const unsigned char *) source, (int) length, 0);
	use->cached = find_cached(source, length, hash);
	if (use->cached == NULL)
		use->cached = compile_for(use, source, length, hash);
	use->number = use->cached->number;
	return use->cached->program;
}

/* What the call site used last, where nothing can have changed since; or NULL. */
static inline const Program *
unchanged_program(const FmgrInfo *flinfo)
{
	const LastUse *use = flinfo->fn_extra;

	if (use == NULL || !use->is_constant || use->number == 0 ||
		use->cached->number != use->number || use->cached->program->reads_stored)
		return NULL;
	return use->cached->program;
}

/* Where stored schemas are read, what others have committed by now counts. */
static const Program *
get_program(FunctionCallInfo fcinfo)
{
	const Program *program = unchanged_program(fcinfo->flinfo);
	LastUse    *use;

	if (program != NULL)
		return program;
	use = last_use_of(fcinfo->flinfo);
	forget_changed();
	program = find_program(use, PG_GETARG_DATUM(0));
	if (!program->reads_stored)
		return program;
	AcceptInvalidationMessages();
	if (!stored_schemas_changed)
		return program;
	forget_changed();
	return find_program(use, PG_GETARG_DATUM(0));
}

/* An argument where it stands; a short one is not copied. */
static inline JsonValue
value_argument(Datum datum)
{
	struct varlena *argument = (struct varlena *) DatumGetPointer(datum);
	JsonValue	value;

	if (VARATT_IS_COMPRESSED(argument) || VARATT_IS_EXTERNAL(argument))
		argument = PG_DETOAST_DATUM_PACKED(datum);

	root_value(&value, VARDATA_ANY(argument), VARSIZE_ANY_EXHDR(argument));
	return value;
}

/* A check that did not come to its end is an error. */
static void
report_failure(const CheckResult *result)
{
	switch (result->failure)
	{
		case CHECK_DONE:
			return;
		case CHECK_TOO_DEEP:
			ereport(ERROR,
					(errcode(ERRCODE_STATEMENT_TOO_COMPLEX),
					 errmsg("value and JSON Schema are nested too deep"),
					 errdetail("More than 3,000 schemas were at work within each other."),
					 errhint("Nest them less deep.")));
			break;
		case CHECK_TOO_LONG:
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("checking the value by the JSON Schema takes too many steps"),
					 errdetail("It has a million, and 100 more for each byte of the value."),
					 errhint("Branches of anyOf and oneOf that all go down into the same value multiply: tell them apart by a property, with if and const.")));
			break;
		case CHECK_CIRCULAR:
			ereport(ERROR,
					(errcode(ERRCODE_TASKER_DEFINITION),
					 errmsg("invalid JSON Schema"),
					 errdetail("%s: leads back to itself without going deeper into the value.",
							   result->failed_at),
					 errhint("A schema may refer to itself for a part of the value, such as a property, not for the same value.")));
	}
}

/*
 * SQL functions
 */

Datum
tasker_json_schema_is_valid(PG_FUNCTION_ARGS)
{
	const Program *program = get_program(fcinfo);
	JsonValue	instance = value_argument(PG_GETARG_DATUM(1));
	CheckResult result = schema_check(program, &instance, CurrentMemoryContext, 0);

	if (result.failure != CHECK_DONE)
		report_failure(&result);
	PG_RETURN_BOOL(result.valid);
}

Datum
tasker_json_schema_errors(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	const Program *program = get_program(fcinfo);
	JsonValue	instance = value_argument(PG_GETARG_DATUM(1));
	CheckResult result = schema_check(program, &instance, CurrentMemoryContext, PG_INT32_MAX);

	report_failure(&result);
	InitMaterializedSRF(fcinfo, 0);
	for (const Problem *problem = result.problems; problem != NULL; problem = problem->next)
	{
		Datum		values[3] = {
			CStringGetTextDatum(problem->instance_path),
			CStringGetTextDatum(problem->schema_path),
			CStringGetTextDatum(problem->message)
		};
		bool		nulls[3] = {false, false, false};

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

static Datum
path_array(const Step *path)
{
	int			depth = 0;
	Datum	   *parts;

	for (const Step *step = path; step != NULL; step = step->parent)
		depth++;
	if (depth == 0)
		return PointerGetDatum(construct_empty_array(TEXTOID));
	parts = palloc(depth * sizeof(Datum));
	for (int i = depth - 1; i >= 0; i--, path = path->parent)
		parts[i] = PointerGetDatum(cstring_to_text_with_len(path->name, (int) path->length));
	return PointerGetDatum(construct_array(parts, depth, TEXTOID, -1, false, TYPALIGN_INT));
}

Datum
tasker_schema_problems(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Jsonb	   *source = PG_GETARG_JSONB_P(0);
	JsonValue	root;
	Program    *program;

	InitMaterializedSRF(fcinfo, 0);
	root_value(&root, VARDATA(source), VARSIZE(source) - VARHDRSZ);
	program = schema_compile(CurrentMemoryContext, &root, GetDatabaseEncoding() == PG_UTF8);
	for (const SchemaProblem *problem = program->problems; problem != NULL; problem = problem->next)
	{
		const char *message = problem->elsewhere ?
			psprintf("refers to a schema of which %s %s", problem->pointer, problem->message) :
			problem->message;
		Datum		values[3] = {
			path_array(problem->path),
			CStringGetTextDatum(message),
			problem->hint ? CStringGetTextDatum(problem->hint) : (Datum) 0
		};
		bool		nulls[3] = {false, false, problem->hint == NULL};

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* Has every backend compile anew, once this has committed, what refers to stored schemas. */
Datum
tasker_schemas_changed(PG_FUNCTION_ARGS)
{
	CacheInvalidateRelcacheByRelid(get_relname_relid("stored_schema",
													 get_namespace_oid("tasker", false)));
	PG_RETURN_VOID();
}

/* Raises all that is wrong with a context. */
static void
report_context(const Program *program, const JsonValue *context)
{
	CheckResult result = schema_check(program, context, CurrentMemoryContext, SHOWN_PROBLEMS);
	StringInfoData detail;
	const char *hint = NULL;

	report_failure(&result);
	initStringInfo(&detail);
	for (const Problem *problem = result.problems; problem != NULL; problem = problem->next)
	{
		appendStringInfo(&detail, "%s%s: %s", detail.len > 0 ? "\n" : "",
						 problem->instance_path[0] ? problem->instance_path : "context",
						 problem->message);
		if (hint == NULL)
			hint = problem->hint;
	}
	if (result.count > SHOWN_PROBLEMS)
		appendStringInfo(&detail, "\nand %d more", result.count - SHOWN_PROBLEMS);
	ereport(ERROR,
			(errcode(ERRCODE_TASKER_CONTEXT),
			 errmsg("context does not satisfy the schema"),
			 errdetail_internal("%s", detail.data),
			 hint != NULL ? errhint("%s", hint) :
			 errhint("The schema is part of the task's definition; tasker.json_schema_errors(schema, context) checks a context without creating a task.")));
}

static void
report_no_object(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_TASKER_CONTEXT),
			 errmsg("context is not an object"),
			 errdetail("It is %s.", what),
			 errhint("A context is a JSON object, as in {\"cart_id\": 7}.")));
}

Datum
tasker_check_context(PG_FUNCTION_ARGS)
{
	const Program *program;
	Jsonb	   *context;
	Jsonb	   *filled;
	JsonValue	value;
	CheckResult result;

	if (PG_ARGISNULL(1))
		report_no_object("null");
	context = PG_GETARG_JSONB_P(1);
	if (!JB_ROOT_IS_OBJECT(context))
	{
		value = value_argument(JsonbPGetDatum(context));
		report_no_object(schema_describe(CurrentMemoryContext, &value));
	}
	if (PG_ARGISNULL(0))
		PG_RETURN_DATUM(PG_GETARG_DATUM(1));

	program = get_program(fcinfo);
	filled = schema_fill_defaults(program, context);
	value = value_argument(JsonbPGetDatum(filled));
	result = schema_check(program, &value, CurrentMemoryContext, 0);
	report_failure(&result);
	if (!result.valid)
		report_context(program, &value);
	if (filled == context)
		PG_RETURN_DATUM(PG_GETARG_DATUM(1));
	PG_RETURN_JSONB_P(filled);
}
