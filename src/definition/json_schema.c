/*
 * json_schema.c
 *	  JSON Schema seen from SQL: the compiled schemas of the session, defaults,
 *	  and the functions.
 *
 * A compiled schema is kept, since create_task() checks every context.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "definition/json_schema.h"
#include "tasker.h"

#define CACHED_SCHEMAS		64
#define CACHED_BYTES		65536	/* of a schema; a larger one is compiled at each call */
#define SHOWN_PROBLEMS		20	/* in one error */

PG_FUNCTION_INFO_V1(tasker_json_schema_errors);
PG_FUNCTION_INFO_V1(tasker_json_schema_is_valid);
PG_FUNCTION_INFO_V1(tasker_schema_problems);
PG_FUNCTION_INFO_V1(tasker_check_context);

/*
 * Compiled schemas of this session.  The hash finds one, the bytes prove it.
 */
typedef struct CachedSchema
{
	uint64		hash;
	uint64		last_use;
	MemoryContext context;		/* of all below */
	Jsonb	   *source;
	Schema	   *schema;
} CachedSchema;

static CachedSchema schema_cache[CACHED_SCHEMAS];
static int	schema_cache_used = 0;
static uint64 schema_cache_clock = 0;

/* A place in the cache: a free one, or that of the schema unused for longest. */
static CachedSchema *
make_room(void)
{
	CachedSchema *oldest = &schema_cache[0];

	if (schema_cache_used < CACHED_SCHEMAS)
		return &schema_cache[schema_cache_used++];
	for (int i = 1; i < CACHED_SCHEMAS; i++)
		if (schema_cache[i].last_use < oldest->last_use)
			oldest = &schema_cache[i];
	MemoryContextDelete(oldest->context);
	return oldest;
}

/* Raises what is wrong with a schema that somebody wants to check against. */
static void
report_broken_schema(const Compiler *compiler)
{
	SchemaProblem *first = linitial(compiler->problems);
	int			more = list_length(compiler->problems) - 1;
	const char *place = first->pointer[0] ? first->pointer : "schema";

	ereport(ERROR,
			(errcode(ERRCODE_TASKER_DEFINITION),
			 errmsg("invalid JSON Schema"),
			 more == 0 ? errdetail("%s: %s.", place, first->message) :
			 errdetail("%s: %s; and %d more.", place, first->message, more)));
}

/* Compiles into a context of its own, which begins as the caller's. */
static CachedSchema
compile(Jsonb *source, uint64 hash)
{
	CachedSchema result = {.hash = hash};
	Compiler	compiler = {NIL};
	MemoryContext caller;
	JsonbValue	root;

	result.context = AllocSetContextCreate(CurrentMemoryContext, "tasker JSON Schema",
										   ALLOCSET_SMALL_SIZES);
	caller = MemoryContextSwitchTo(result.context);
	result.source = palloc(VARSIZE(source));
	memcpy(result.source, source, VARSIZE(source));
	root = root_value(result.source);
	result.schema = compile_schema(&compiler, &root, NULL);
	if (compiler.problems != NIL)
		report_broken_schema(&compiler);
	MemoryContextSwitchTo(caller);
	return result;
}

static const Schema *
get_schema(Jsonb *source)
{
	uint64		hash = hash_bytes_extended((unsigned char *) VARDATA(source),
										   VARSIZE(source) - VARHDRSZ, 0);
	CachedSchema compiled;

	schema_cache_clock++;
	for (int i = 0; i < schema_cache_used; i++)
	{
		CachedSchema *cached = &schema_cache[i];

		if (cached->hash == hash && VARSIZE(cached->source) == VARSIZE(source) &&
			memcmp(cached->source, source, VARSIZE(source)) == 0)
		{
			cached->last_use = schema_cache_clock;
			return cached->schema;
		}
	}
	compiled = compile(source, hash);
	if (VARSIZE(source) <= CACHED_BYTES)
	{
		MemoryContextSetParent(compiled.context, TopMemoryContext);
		compiled.last_use = schema_cache_clock;
		*make_room() = compiled;
	}
	return compiled.schema;
}

/*
 * Defaults
 */

/* Is there a property to fill in? */
static bool
lacks_default(const Schema *schema, JsonbValue *instance)
{
	int			type = type_of(instance);
	Members		members;

	check_stack_depth();
	if (!schema->fills)
		return false;
	if (type == TYPE_ARRAY && schema->items != NULL && schema->items->fills)
	{
		begin_members(&members, instance);
		while (next_member(&members))
			if (lacks_default(schema->items, &members.value))
				return true;
	}
	for (int i = 0; type == TYPE_OBJECT && i < schema->property_count; i++)
	{
		const PropertyName *property = &schema->properties[i];
		JsonbValue	value;

		if (!find_entry(instance, property->text, property->length, &value) ?
			property->schema->has_default : lacks_default(property->schema, &value))
			return true;
	}
	return false;
}

static JsonbValue *push_filled(JsonbParseState **state, const Schema *schema, JsonbValue *instance,
							   JsonbIteratorToken as);

/* An object with the defaults of the properties it lacks. */
static JsonbValue *
push_filled_object(JsonbParseState **state, const Schema *schema, JsonbValue *instance)
{
	Members		members;

	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	begin_members(&members, instance);
	while (next_member(&members))
	{
		const PropertyName *property = find_property(schema, &members.key);

		pushJsonbValue(state, WJB_KEY, &members.key);
		push_filled(state, property ? property->schema : NULL, &members.value, WJB_VALUE);
	}
	for (int i = 0; i < schema->property_count; i++)
	{
		const PropertyName *property = &schema->properties[i];
		JsonbValue	value;
		JsonbValue	key;

		if (!property->schema->has_default ||
			find_entry(instance, property->text, property->length, &value))
			continue;
		key.type = jbvString;
		key.val.string.val = unconstify(char *, property->text);
		key.val.string.len = property->length;
		pushJsonbValue(state, WJB_KEY, &key);
		value = property->schema->default_value;
		push_filled(state, property->schema, &value, WJB_VALUE);
	}
	return pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

static JsonbValue *
push_filled_array(JsonbParseState **state, const Schema *schema, JsonbValue *instance)
{
	Members		members;

	pushJsonbValue(state, WJB_BEGIN_ARRAY, NULL);
	begin_members(&members, instance);
	while (next_member(&members))
		push_filled(state, schema->items, &members.value, WJB_ELEM);
	return pushJsonbValue(state, WJB_END_ARRAY, NULL);
}

/* Adds an instance, filled, to the value being built; schema NULL: as it is. */
static JsonbValue *
push_filled(JsonbParseState **state, const Schema *schema, JsonbValue *instance,
			JsonbIteratorToken as)
{
	check_stack_depth();
	if (schema != NULL && schema->fills && type_of(instance) == TYPE_OBJECT)
		return push_filled_object(state, schema, instance);
	if (schema != NULL && schema->items != NULL && schema->items->fills &&
		type_of(instance) == TYPE_ARRAY)
		return push_filled_array(state, schema, instance);
	return pushJsonbValue(state, as, instance);
}

/* The same value where there is nothing to fill in. */
static Jsonb *
fill_defaults(const Schema *schema, Jsonb *jsonb)
{
	JsonbValue	root = root_value(jsonb);
	JsonbParseState *state = NULL;

	if (!lacks_default(schema, &root))
		return jsonb;
	return JsonbValueToJsonb(push_filled(&state, schema, &root, WJB_ELEM));
}

/*
 * SQL functions
 */

static bool
is_valid(const Schema *schema, Jsonb *jsonb)
{
	Check		check = {.stop_at_first = true};
	JsonbValue	root = root_value(jsonb);

	return check_schema(&check, schema, &root, NULL);
}

Datum
tasker_json_schema_is_valid(PG_FUNCTION_ARGS)
{
	const Schema *schema = get_schema(PG_GETARG_JSONB_P(0));

	PG_RETURN_BOOL(is_valid(schema, PG_GETARG_JSONB_P(1)));
}

Datum
tasker_json_schema_errors(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	const Schema *schema = get_schema(PG_GETARG_JSONB_P(0));
	Check		check = {.keep = PG_INT32_MAX};
	JsonbValue	root = root_value(PG_GETARG_JSONB_P(1));
	ListCell   *cell;

	InitMaterializedSRF(fcinfo, 0);
	check_schema(&check, schema, &root, NULL);
	foreach(cell, check.problems)
	{
		Problem    *problem = lfirst(cell);
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

Datum
tasker_schema_problems(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	JsonbValue	root = root_value(PG_GETARG_JSONB_P(0));
	Compiler	compiler = {NIL};
	ListCell   *cell;

	InitMaterializedSRF(fcinfo, 0);
	compile_schema(&compiler, &root, NULL);
	foreach(cell, compiler.problems)
	{
		SchemaProblem *problem = lfirst(cell);
		Datum		values[2] = {problem->path, CStringGetTextDatum(problem->message)};
		bool		nulls[2] = {false, false};

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* Raises all that is wrong with a context. */
static void
report_context(const Schema *schema, Jsonb *context)
{
	Check		check = {.keep = SHOWN_PROBLEMS};
	JsonbValue	root = root_value(context);
	StringInfoData detail;
	const char *hint = NULL;
	ListCell   *cell;

	check_schema(&check, schema, &root, NULL);
	initStringInfo(&detail);
	foreach(cell, check.problems)
	{
		Problem    *problem = lfirst(cell);

		appendStringInfo(&detail, "%s%s: %s", detail.len > 0 ? "\n" : "",
						 problem->instance_path[0] ? problem->instance_path : "context",
						 problem->message);
		if (hint == NULL)
			hint = problem->hint;
	}
	if (check.count > SHOWN_PROBLEMS)
		appendStringInfo(&detail, "\nand %d more", check.count - SHOWN_PROBLEMS);
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
	const Schema *schema;
	Jsonb	   *context;
	Jsonb	   *filled;

	if (PG_ARGISNULL(1))
		report_no_object("null");
	context = PG_GETARG_JSONB_P(1);
	if (!JB_ROOT_IS_OBJECT(context))
	{
		JsonbValue	root = root_value(context);

		report_no_object(describe(&root));
	}
	if (PG_ARGISNULL(0))
		PG_RETURN_DATUM(PG_GETARG_DATUM(1));

	schema = get_schema(PG_GETARG_JSONB_P(0));
	filled = fill_defaults(schema, context);
	if (!is_valid(schema, filled))
		report_context(schema, filled);
	if (filled == context)
		PG_RETURN_DATUM(PG_GETARG_DATUM(1));
	PG_RETURN_JSONB_P(filled);
}
