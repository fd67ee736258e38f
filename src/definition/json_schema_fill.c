/*
 * json_schema_fill.c
 *	  JSON Schema: the defaults of properties that a value lacks.
 *
 * A part of the value is met by a schema, by those that it refers to and by all
 * of its allOf.  Branches of anyOf, oneOf and if say nothing: which of them holds
 * might depend on what is filled in.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "nodes/pg_list.h"

#include "definition/json_schema.h"
#include "definition/json_schema_internal.h"

#define MAX_SCHEMAS		200		/* that meet one part of a value */
#define MAX_LEVELS		1000	/* of a value that is filled */

static JsonbValue *push_filled(JsonbParseState **state, List *schemas, const JsonValue *instance,
							   JsonbIteratorToken as, int level);

/* Adds a schema and all that meet the same part of the value. */
static List *
add_schemas(List *schemas, Schema *schema)
{
	int			begin = list_length(schemas);

	schemas = list_append_unique_ptr(schemas, schema);
	for (int i = begin; i < list_length(schemas) && list_length(schemas) < MAX_SCHEMAS; i++)
	{
		Schema	   *at = list_nth(schemas, i);

		if (at->ref != NULL)
			schemas = list_append_unique_ptr(schemas, at->ref);
		for (int k = 0; k < at->all_of_count; k++)
			schemas = list_append_unique_ptr(schemas, at->all_of[k]);
	}
	return schemas;
}

/* The schema among them that has a default; NULL: none. */
static Schema *
with_default(Schema *schema)
{
	List	   *schemas;
	ListCell   *cell;

	if (schema->has_default)
		return schema;
	if (schema->ref == NULL && schema->all_of_count == 0)
		return NULL;
	schemas = add_schemas(NIL, schema);
	foreach(cell, schemas)
		if (((Schema *) lfirst(cell))->has_default)
			return lfirst(cell);
	return NULL;
}

static bool
some_fill(List *schemas)
{
	ListCell   *cell;

	foreach(cell, schemas)
		if (((Schema *) lfirst(cell))->fills)
			return true;
	return false;
}

/* What meets the property of that name. */
static List *
schemas_of_property(List *schemas, const char *name, size_t length)
{
	List	   *result = NIL;
	ListCell   *cell;

	foreach(cell, schemas)
	{
		const PropertyName *property = find_property(lfirst(cell), name, length);

		if (property != NULL)
			result = add_schemas(result, property->schema);
	}
	return result;
}

static List *
schemas_of_item(List *schemas, uint32 index)
{
	List	   *result = NIL;
	ListCell   *cell;

	foreach(cell, schemas)
	{
		Schema	   *schema = lfirst(cell);

		if (index < schema->prefix_count)
			result = add_schemas(result, schema->prefix[index]);
		else if (schema->items != NULL)
			result = add_schemas(result, schema->items);
	}
	return result;
}

/* Is there a property to fill in? */
static bool
lacks_default(List *schemas, const JsonValue *instance)
{
	Members		members;
	ListCell   *cell;

	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	if (!(instance->type & (TYPE_OBJECT | TYPE_ARRAY)) || !some_fill(schemas))
		return false;
	begin_members(&members, instance);
	while (next_member(&members))
	{
		List	   *inner = members.is_object ?
			schemas_of_property(schemas, members.key.data, members.key.length) :
			schemas_of_item(schemas, members.index);
		bool		found = inner != NIL && lacks_default(inner, &members.value);

		list_free(inner);
		if (found)
			return true;
	}
	if (!members.is_object)
		return false;
	foreach(cell, schemas)
	{
		Schema	   *schema = lfirst(cell);

		for (int i = 0; schema->fills && i < schema->property_count; i++)
		{
			const PropertyName *property = &schema->properties[i];
			JsonValue	value;

			if (with_default(property->schema) != NULL &&
				!find_entry(instance, property->text, property->length, &value))
				return true;
		}
	}
	return false;
}

static void
push_key(JsonbParseState **state, const char *text, size_t length)
{
	JsonbValue	key;

	key.type = jbvString;
	key.val.string.val = unconstify(char *, text);
	key.val.string.len = (int) length;
	pushJsonbValue(state, WJB_KEY, &key);
}

static JsonbValue *
push_as_it_is(JsonbParseState **state, const JsonValue *value, JsonbIteratorToken as)
{
	JsonbValue	jsonb;

	switch (value->type)
	{
		case TYPE_NULL:
			jsonb.type = jbvNull;
			break;
		case TYPE_BOOLEAN:
			jsonb.type = jbvBool;
			jsonb.val.boolean = value->length != 0;
			break;
		case TYPE_NUMBER:
			jsonb.type = jbvNumeric;
			jsonb.val.numeric = (Numeric) unconstify(char *, value->data);
			break;
		case TYPE_STRING:
			jsonb.type = jbvString;
			jsonb.val.string.val = unconstify(char *, value->data);
			jsonb.val.string.len = (int) value->length;
			break;
		default:
			jsonb.type = jbvBinary;
			jsonb.val.binary.data = (JsonbContainer *) unconstify(char *, value->data);
			jsonb.val.binary.len = (int) value->length;
	}
	return pushJsonbValue(state, as, &jsonb);
}

/* Was the property there, or filled in for a schema before this one? */
static bool
is_filled(List *schemas, const Schema *until, const PropertyName *property)
{
	ListCell   *cell;

	foreach(cell, schemas)
	{
		const PropertyName *other;

		if (lfirst(cell) == until)
			return false;
		other = find_property(lfirst(cell), property->text, property->length);
		if (other != NULL && with_default(other->schema) != NULL)
			return true;
	}
	return false;
}

/* An object with the defaults of the properties it lacks. */
static JsonbValue *
push_filled_object(JsonbParseState **state, List *schemas, const JsonValue *instance, int level)
{
	Members		members;
	ListCell   *cell;

	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	begin_members(&members, instance);
	while (next_member(&members))
	{
		push_key(state, members.key.data, members.key.length);
		push_filled(state, schemas_of_property(schemas, members.key.data, members.key.length),
					&members.value, WJB_VALUE, level + 1);
	}
	foreach(cell, schemas)
	{
		Schema	   *schema = lfirst(cell);

		for (int i = 0; i < schema->property_count; i++)
		{
			const PropertyName *property = &schema->properties[i];
			const Schema *default_of = with_default(property->schema);
			JsonValue	value;

			if (default_of == NULL ||
				find_entry(instance, property->text, property->length, &value) ||
				is_filled(schemas, schema, property))
				continue;
			push_key(state, property->text, property->length);
			push_filled(state, schemas_of_property(schemas, property->text, property->length),
						&default_of->default_value, WJB_VALUE, level + 1);
		}
	}
	return pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

static JsonbValue *
push_filled_array(JsonbParseState **state, List *schemas, const JsonValue *instance, int level)
{
	Members		members;

	pushJsonbValue(state, WJB_BEGIN_ARRAY, NULL);
	begin_members(&members, instance);
	while (next_member(&members))
		push_filled(state, schemas_of_item(schemas, members.index), &members.value, WJB_ELEM,
					level + 1);
	return pushJsonbValue(state, WJB_END_ARRAY, NULL);
}

/* Adds an instance, filled, to the value being built. */
static JsonbValue *
push_filled(JsonbParseState **state, List *schemas, const JsonValue *instance,
			JsonbIteratorToken as, int level)
{
	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	if (level > MAX_LEVELS)
		ereport(ERROR,
				(errcode(ERRCODE_STATEMENT_TOO_COMPLEX),
				 errmsg("value with its defaults is nested too deep"),
				 errdetail("It has more than %d levels.", MAX_LEVELS),
				 errhint("A default that holds, by its schema, the same default again has no end.")));
	if (instance->type == TYPE_OBJECT && some_fill(schemas))
		return push_filled_object(state, schemas, instance, level);
	if (instance->type == TYPE_ARRAY && some_fill(schemas))
		return push_filled_array(state, schemas, instance, level);
	return push_as_it_is(state, instance, as);
}

Jsonb *
schema_fill_defaults(const Program *program, Jsonb *jsonb)
{
	List	   *schemas;
	JsonValue	root;
	JsonbParseState *state = NULL;

	if (!program->has_defaults)
		return jsonb;
	schemas = add_schemas(NIL, program->root);
	root_value(&root, VARDATA(jsonb), VARSIZE(jsonb) - VARHDRSZ);
	if (!lacks_default(schemas, &root))
		return jsonb;
	return JsonbValueToJsonb(push_filled(&state, schemas, &root, WJB_ELEM, 0));
}
