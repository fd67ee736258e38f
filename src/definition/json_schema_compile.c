/*
 * json_schema_compile.c
 *	  JSON Schema: from jsonb to what checks it, and all that is wrong with it.
 *
 * What the draft defines and has no check yet is refused rather than ignored,
 * since a schema that is half checked promises what it doesn't keep.  What the
 * draft does not define is ignored, as the draft says.
 */
#include "postgres.h"

#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "regex/regex.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "definition/json_schema.h"

static const Step *
step_to(const Step *parent, const char *name)
{
	Step	   *step = palloc(sizeof(Step));

	step->parent = parent;
	step->name = name;
	return step;
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
		parts[i] = CStringGetTextDatum(path->name);
	return PointerGetDatum(construct_array(parts, depth, TEXTOID, -1, false, TYPALIGN_INT));
}

/* Notes what is wrong with the schema at that path; false, to return it. */
static bool
refuse(Compiler *compiler, const Step *path, const char *message)
{
	SchemaProblem *problem = palloc(sizeof(SchemaProblem));

	problem->path = path_array(path);
	problem->pointer = pointer_text(path);
	problem->message = message;
	compiler->problems = lappend(compiler->problems, problem);
	return false;
}

static bool
is_object(const JsonbValue *value)
{
	return type_of(value) == TYPE_OBJECT;
}

static bool
is_array(const JsonbValue *value)
{
	return type_of(value) == TYPE_ARRAY;
}

static bool
compile_type_name(Compiler *compiler, Keyword *keyword, JsonbValue *value, const Step *path)
{
	const JsonType *type = find_type(value);
	StringInfoData message;

	if (type != NULL)
	{
		keyword->types |= type->bit;
		return true;
	}
	initStringInfo(&message);
	append_value(&message, value);
	appendStringInfo(&message, " is not a type; the types are %s",
					 type_list(TYPE_ANY | TYPE_INTEGER));
	return refuse(compiler, path, message.data);
}

static bool
compile_type(Compiler *compiler, Schema *schema, Keyword *keyword, JsonbValue *value,
			 const Step *path)
{
	Members		members;
	bool		good = true;

	if (!is_array(value))
		return compile_type_name(compiler, keyword, value, path);
	if (member_count(value) == 0)
		return refuse(compiler, path, "must be a type or a list of types");
	begin_members(&members, value);
	while (next_member(&members))
	{
		const Step *step = step_to(path, psprintf("%d", members.index));

		good &= compile_type_name(compiler, keyword, &members.value, step);
	}
	return good;
}

static bool
compile_value(Compiler *compiler, Schema *schema, Keyword *keyword, JsonbValue *value,
			  const Step *path)
{
	keyword->value = *value;
	return true;
}

static bool
compile_enum(Compiler *compiler, Schema *schema, Keyword *keyword, JsonbValue *value,
			 const Step *path)
{
	keyword->value = *value;
	return is_array(value) || refuse(compiler, path, "must be a list of values");
}

static bool
compile_number(Compiler *compiler, Schema *schema, Keyword *keyword, JsonbValue *value,
			   const Step *path)
{
	if (value->type != jbvNumeric)
		return refuse(compiler, path, "must be a number");
	keyword->number = value->val.numeric;
	return true;
}

static bool
compile_factor(Compiler *compiler, Schema *schema, Keyword *keyword, JsonbValue *value,
			   const Step *path)
{
	if (value->type != jbvNumeric || compare_numbers(value->val.numeric, int64_to_numeric(0)) <= 0)
		return refuse(compiler, path, "must be a number greater than 0");
	keyword->number = value->val.numeric;
	return true;
}

static bool
compile_count(Compiler *compiler, Schema *schema, Keyword *keyword, JsonbValue *value,
			  const Step *path)
{
	Numeric		number = value->val.numeric;

	if (value->type != jbvNumeric || !is_integral(number) ||
		compare_numbers(number, int64_to_numeric(0)) < 0)
		return refuse(compiler, path, "must be an integer of at least 0");
	if (compare_numbers(number, int64_to_numeric(PG_INT32_MAX)) > 0)
		keyword->count = PG_INT32_MAX;	/* nothing is that long */
	else
		keyword->count = DatumGetInt32(DirectFunctionCall1(numeric_int4, NumericGetDatum(number)));
	return true;
}

static bool
compile_unique(Compiler *compiler, Schema *schema, Keyword *keyword, JsonbValue *value,
			   const Step *path)
{
	if (value->type != jbvBool)
		return refuse(compiler, path, "must be true or false");
	return value->val.boolean;
}

/* The server's regular expressions must take it; what they say, we say. */
static bool
compile_pattern(Compiler *compiler, Schema *schema, Keyword *keyword, JsonbValue *value,
				const Step *path)
{
	pg_wchar   *wide;
	int			length;
	regex_t		regex;
	int			result;
	char		reason[100];

	if (value->type != jbvString)
		return refuse(compiler, path, "must be a regular expression");
	wide = palloc((value->val.string.len + 1) * sizeof(pg_wchar));
	length = pg_mb2wchar_with_len(value->val.string.val, wide, value->val.string.len);
	result = pg_regcomp(&regex, wide, length, REGEX_FLAGS, C_COLLATION_OID);
	pfree(wide);
	if (result == REG_OKAY)
	{
		pg_regfree(&regex);
		keyword->pattern = cstring_to_text_with_len(value->val.string.val, value->val.string.len);
		return true;
	}
	CHECK_FOR_INTERRUPTS();
	pg_regerror(result, &regex, reason, sizeof(reason));
	return refuse(compiler, path, psprintf("is not a valid regular expression: %s", reason));
}

static void
set_name(PropertyName *name, const JsonbValue *text, Schema *schema)
{
	name->text = pnstrdup(text->val.string.val, text->val.string.len);
	name->length = text->val.string.len;
	name->schema = schema;
}

static bool
compile_required(Compiler *compiler, Schema *schema, Keyword *keyword, JsonbValue *value,
				 const Step *path)
{
	Members		members;

	if (!is_array(value))
		return refuse(compiler, path, "must be a list of property names");
	keyword->names = palloc(member_count(value) * sizeof(PropertyName));
	begin_members(&members, value);
	while (next_member(&members))
	{
		const Step *step = step_to(path, psprintf("%d", members.index));

		if (members.value.type != jbvString)
			return refuse(compiler, step, "must be the name of a property");
		set_name(&keyword->names[keyword->count++], &members.value, NULL);
	}
	return true;
}

static bool
compile_properties(Compiler *compiler, Schema *schema, Keyword *keyword, JsonbValue *value,
				   const Step *path)
{
	Members		members;

	if (!is_object(value))
		return refuse(compiler, path, "must be an object: a schema for each property");
	schema->properties = palloc(member_count(value) * sizeof(PropertyName));
	begin_members(&members, value);
	while (next_member(&members))
	{
		PropertyName *property = &schema->properties[schema->property_count++];
		const Step *step;

		set_name(property, &members.key, NULL);
		step = step_to(path, property->text);
		property->schema = compile_schema(compiler, &members.value, step);
		schema->fills |= property->schema->has_default || property->schema->fills;
	}
	return true;
}

static bool
compile_subschema(Compiler *compiler, Schema *schema, Keyword *keyword, JsonbValue *value,
				  const Step *path)
{
	keyword->schemas = palloc(sizeof(Schema *));
	keyword->schemas[0] = compile_schema(compiler, value, path);
	keyword->count = 1;
	return true;
}

static bool
compile_items(Compiler *compiler, Schema *schema, Keyword *keyword, JsonbValue *value,
			  const Step *path)
{
	if (type_of(value) == TYPE_ARRAY)
		return refuse(compiler, path,
					  "must be one schema, for all items; a list of schemas was right before draft 2020-12");
	compile_subschema(compiler, schema, keyword, value, path);
	schema->items = keyword->schemas[0];
	schema->fills |= schema->items->fills;
	return true;
}

static bool
compile_subschemas(Compiler *compiler, Schema *schema, Keyword *keyword, JsonbValue *value,
				   const Step *path)
{
	Members		members;

	if (!is_array(value) || member_count(value) == 0)
		return refuse(compiler, path, "must be a list of at least one schema");
	keyword->schemas = palloc(member_count(value) * sizeof(Schema *));
	begin_members(&members, value);
	while (next_member(&members))
	{
		const Step *step = step_to(path, psprintf("%d", members.index));

		keyword->schemas[keyword->count++] = compile_schema(compiler, &members.value, step);
	}
	return true;
}

/* A default checks nothing, so it becomes no keyword of the schema. */
static bool
compile_default(Compiler *compiler, Schema *schema, Keyword *keyword, JsonbValue *value,
				const Step *path)
{
	schema->has_default = true;
	schema->default_value = *value;
	return false;
}

static bool
compile_unsupported(Compiler *compiler, Schema *schema, Keyword *keyword, JsonbValue *value,
					const Step *path)
{
	return refuse(compiler, path, "this keyword is not supported");
}

/* The vocabulary.  Problems of one instance come in this order. */
static const KeywordRule rules[] = {
	{"type", TYPE_ANY, compile_type, check_type},
	{"enum", TYPE_ANY, compile_enum, check_enum},
	{"const", TYPE_ANY, compile_value, check_const},
	{"minimum", TYPE_NUMBER, compile_number, check_minimum},
	{"exclusiveMinimum", TYPE_NUMBER, compile_number, check_exclusive_minimum},
	{"maximum", TYPE_NUMBER, compile_number, check_maximum},
	{"exclusiveMaximum", TYPE_NUMBER, compile_number, check_exclusive_maximum},
	{"multipleOf", TYPE_NUMBER, compile_factor, check_multiple_of},
	{"minLength", TYPE_STRING, compile_count, check_min_length},
	{"maxLength", TYPE_STRING, compile_count, check_max_length},
	{"pattern", TYPE_STRING, compile_pattern, check_pattern},
	{"minItems", TYPE_ARRAY, compile_count, check_min_items},
	{"maxItems", TYPE_ARRAY, compile_count, check_max_items},
	{"uniqueItems", TYPE_ARRAY, compile_unique, check_unique_items},
	{"items", TYPE_ARRAY, compile_items, check_items},
	{"minProperties", TYPE_OBJECT, compile_count, check_min_properties},
	{"maxProperties", TYPE_OBJECT, compile_count, check_max_properties},
	{"required", TYPE_OBJECT, compile_required, check_required},
	{"properties", TYPE_OBJECT, compile_properties, check_properties},
	{"additionalProperties", TYPE_OBJECT, compile_subschema, check_additional_properties},
	{"allOf", TYPE_ANY, compile_subschemas, check_all_of},
	{"anyOf", TYPE_ANY, compile_subschemas, check_any_of},
	{"oneOf", TYPE_ANY, compile_subschemas, check_one_of},
	{"not", TYPE_ANY, compile_subschema, check_not},
	{"default", 0, compile_default, NULL},
	{"$ref", 0, compile_unsupported, NULL},
	{"$dynamicRef", 0, compile_unsupported, NULL},
	{"patternProperties", 0, compile_unsupported, NULL},
	{"propertyNames", 0, compile_unsupported, NULL},
	{"dependentRequired", 0, compile_unsupported, NULL},
	{"dependentSchemas", 0, compile_unsupported, NULL},
	{"prefixItems", 0, compile_unsupported, NULL},
	{"contains", 0, compile_unsupported, NULL},
	{"minContains", 0, compile_unsupported, NULL},
	{"maxContains", 0, compile_unsupported, NULL},
	{"if", 0, compile_unsupported, NULL},
	{"then", 0, compile_unsupported, NULL},
	{"else", 0, compile_unsupported, NULL},
	{"unevaluatedItems", 0, compile_unsupported, NULL},
	{"unevaluatedProperties", 0, compile_unsupported, NULL},
};

static const KeywordRule *
find_rule(const JsonbValue *key)
{
	for (int i = 0; i < lengthof(rules); i++)
		if (strlen(rules[i].name) == key->val.string.len &&
			memcmp(rules[i].name, key->val.string.val, key->val.string.len) == 0)
			return &rules[i];
	return NULL;
}

static int
compare_keywords(const void *a, const void *b)
{
	const Keyword *x = a;
	const Keyword *y = b;

	return x->rule < y->rule ? -1 : x->rule > y->rule;
}

/* Compiles the keywords of a schema that is an object. */
static void
compile_keywords(Compiler *compiler, Schema *schema, JsonbValue *value, const Step *path)
{
	Members		members;

	schema->keywords = palloc((member_count(value) + 1) * sizeof(Keyword));
	begin_members(&members, value);
	while (next_member(&members))
	{
		Keyword    *keyword = &schema->keywords[schema->keyword_count];

		memset(keyword, 0, sizeof(Keyword));
		keyword->rule = find_rule(&members.key);
		if (keyword->rule == NULL)
			continue;
		if (keyword->rule->compile(compiler, schema, keyword, &members.value,
								   step_to(path, keyword->rule->name)))
			schema->keyword_count++;
	}
	qsort(schema->keywords, schema->keyword_count, sizeof(Keyword), compare_keywords);
}

/* Always gives a schema; what is wrong with it is among the compiler's problems. */
Schema *
compile_schema(Compiler *compiler, JsonbValue *value, const Step *path)
{
	Schema	   *schema = palloc0(sizeof(Schema));

	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	schema->path = path;
	if (value->type == jbvBool)
		schema->is_false = !value->val.boolean;
	else if (is_object(value))
		compile_keywords(compiler, schema, value, path);
	else
		refuse(compiler, path, psprintf("is %s, but a schema must be an object, true or false",
										describe(value)));
	return schema;
}
