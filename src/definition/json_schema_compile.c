/*
 * json_schema_compile.c
 *	  JSON Schema: from jsonb to what checks it, and all that is wrong with it.
 *
 * What a draft does not define is ignored, as it says.  A part that nothing
 * refers to, as in $defs, is not looked at.
 */
#include "definition/json_schema_internal.h"

#include <stdlib.h>

#define AUTOMATON_STEPS		500000	/* for all patterns of a program */
#define FILL_ROUNDS			50
#define MANY_VALUES			8		/* of an enum: from here on a table pays */

const Step *
step_to(Compiler *compiler, const Step *parent, const char *name, size_t length)
{
	Step	   *step = host_alloc(compiler->arena, sizeof(Step));

	step->parent = parent;
	step->name = copy_text(compiler->arena, name, length);
	step->length = length;
	return step;
}

static const Step *
step_to_index(Compiler *compiler, const Step *parent, uint32_t index)
{
	char	   *name = format_text(compiler->arena, "%u", index);

	return step_to(compiler, parent, name, strlen(name));
}

/* Notes what is wrong with the schema at that path; false, to return it. */
bool
refuse(Compiler *compiler, const Document *document, const Step *path, const char *hint,
	   const char *format,...)
{
	SchemaProblem *problem = host_alloc(compiler->arena, sizeof(SchemaProblem));
	Text		message;
	va_list		args;

	text_begin(&message, compiler->arena);
	va_start(args, format);
	text_vprintf(&message, format, args);
	va_end(args);
	memset(problem, 0, sizeof(SchemaProblem));
	problem->path = document->is_root ? path : NULL;
	problem->elsewhere = !document->is_root;
	problem->pointer = pointer_text(compiler->arena, path);
	if (problem->elsewhere)
		problem->pointer = format_text(compiler->arena, "%s#%s", document->uri, problem->pointer);
	problem->message = message.data;
	problem->hint = hint;
	if (compiler->last_problem == NULL)
		compiler->program->problems = problem;
	else
		compiler->last_problem->next = problem;
	compiler->last_problem = problem;
	compiler->program->problem_count++;
	return false;
}

/* The same within a schema. */
#define REFUSE(compiler, schema, path, ...) \
	refuse(compiler, (schema)->resource->document, path, NULL, __VA_ARGS__)

static const char *
describe(Compiler *compiler, const JsonValue *value)
{
	return schema_describe(compiler->arena, value);
}

static const char *
shown(Compiler *compiler, const JsonValue *value)
{
	Text		text;

	text_begin(&text, compiler->arena);
	append_value(&text, compiler->program->utf8, value);
	return text.data;
}

/* Another keyword beside this one. */
static bool
find_sibling(const Schema *schema, const char *name, JsonValue *value)
{
	return find_entry(&schema->source, name, strlen(name), value);
}

/* May that keyword of the schema be used? */
static bool
has_vocabulary(const Schema *schema, int vocabulary)
{
	return (schema->resource->dialect.vocabularies & vocabulary) != 0;
}

static bool
compile_type_name(Compiler *compiler, Schema *schema, Keyword *keyword, const JsonValue *value,
				  const Step *path)
{
	const JsonType *type = find_type(value);

	if (type != NULL)
	{
		schema->allowed = keyword->allowed |= type->bit;
		return true;
	}
	return REFUSE(compiler, schema, path, "%s is not a type; the types are %s",
				  shown(compiler, value), type_list(compiler->arena, TYPE_ANY | TYPE_INTEGER));
}

static bool
compile_type(Compiler *compiler, Schema *schema, Keyword *keyword, const JsonValue *value,
			 const Step *path)
{
	Members		members;
	bool		good = true;

	if (value->type != TYPE_ARRAY)
		return compile_type_name(compiler, schema, keyword, value, path);
	if (member_count(value) == 0)
		return REFUSE(compiler, schema, path, "must be a type or a list of types");
	begin_members(&members, value);
	while (next_member(&members))
		good &= compile_type_name(compiler, schema, keyword, &members.value,
								  step_to_index(compiler, path, members.index));
	return good;
}

static bool
compile_const(Compiler *compiler, Schema *schema, Keyword *keyword, const JsonValue *value,
			  const Step *path)
{
	keyword->value = *value;
	return true;
}

static EnumTable *
make_table(Compiler *compiler, const Keyword *keyword)
{
	EnumTable  *table = host_alloc(compiler->arena, sizeof(EnumTable));
	int64_t		steps = INT64_MAX;

	table->size = 16;
	while (table->size < (int) keyword->count * 2)
		table->size *= 2;
	table->slots = host_alloc(compiler->arena, table->size * sizeof(int));
	memset(table->slots, 0xFF, table->size * sizeof(int));
	table->hashes = host_alloc(compiler->arena, keyword->count * sizeof(uint64_t));
	for (int i = 0; i < (int) keyword->count; i++)
	{
		int			slot;

		table->hashes[i] = hash_value(&keyword->values[i], &steps);
		slot = table->hashes[i] & (table->size - 1);
		while (table->slots[slot] >= 0)
			slot = (slot + 1) & (table->size - 1);
		table->slots[slot] = i;
	}
	return table;
}

static bool
compile_enum(Compiler *compiler, Schema *schema, Keyword *keyword, const JsonValue *value,
			 const Step *path)
{
	Members		members;

	keyword->value = *value;
	if (value->type != TYPE_ARRAY)
		return REFUSE(compiler, schema, path, "must be a list of values");
	keyword->values = host_alloc(compiler->arena, (member_count(value) + 1) * sizeof(JsonValue));
	begin_members(&members, value);
	while (next_member(&members))
		keyword->values[keyword->count++] = members.value;
	if (keyword->count > MANY_VALUES)
		keyword->table = make_table(compiler, keyword);
	return true;
}

static bool
take_number(Compiler *compiler, Schema *schema, Keyword *keyword, const JsonValue *value,
			const Step *path)
{
	if (value->type != TYPE_NUMBER)
		return REFUSE(compiler, schema, path, "must be a number");
	keyword->number = *value;
	keyword->is_small = small_integer(value, &keyword->small);
	return true;
}

static bool
compile_number(Compiler *compiler, Schema *schema, Keyword *keyword, const JsonValue *value,
			   const Step *path)
{
	return take_number(compiler, schema, keyword, value, path);
}

/* In draft 4 a bound is exclusive if another keyword says so. */
static bool
compile_bound(Compiler *compiler, Schema *schema, Keyword *keyword, const JsonValue *value,
			  const Step *path)
{
	bool		is_minimum = keyword->check == check_minimum;
	JsonValue	exclusive;

	if (schema->resource->dialect.draft == DRAFT_4 &&
		find_sibling(schema, is_minimum ? "exclusiveMinimum" : "exclusiveMaximum", &exclusive) &&
		exclusive.type == TYPE_BOOLEAN && exclusive.length)
		keyword->check = is_minimum ? check_exclusive_minimum : check_exclusive_maximum;
	return take_number(compiler, schema, keyword, value, path);
}

static bool
compile_exclusive_4(Compiler *compiler, Schema *schema, Keyword *keyword, const JsonValue *value,
					const Step *path)
{
	return value->type == TYPE_BOOLEAN ? false :
		REFUSE(compiler, schema, path, "must be true or false in draft 4");
}

static bool
is_negative(const JsonValue *value)
{
	Number		number;

	read_number(&number, value);
	return number.negative;
}

static bool
compile_factor(Compiler *compiler, Schema *schema, Keyword *keyword, const JsonValue *value,
			   const Step *path)
{
	Number		number;

	if (value->type == TYPE_NUMBER)
		read_number(&number, value);
	if (value->type != TYPE_NUMBER || number.negative || number.count == 0)
		return REFUSE(compiler, schema, path, "must be a number greater than 0");
	return take_number(compiler, schema, keyword, value, path);
}

static bool
read_count(Compiler *compiler, Schema *schema, uint32_t *count, const JsonValue *value,
		   const Step *path)
{
	int64_t		integer;

	if (value->type != TYPE_NUMBER || !is_integral(value) || is_negative(value))
		return REFUSE(compiler, schema, path, "must be an integer of at least 0");
	/* Nothing is as long as what does not fit. */
	*count = small_integer(value, &integer) && integer < INT32_MAX ? (uint32_t) integer : INT32_MAX;
	return true;
}

static bool
compile_count(Compiler *compiler, Schema *schema, Keyword *keyword, const JsonValue *value,
			  const Step *path)
{
	return read_count(compiler, schema, &keyword->count, value, path);
}

static bool
compile_unique(Compiler *compiler, Schema *schema, Keyword *keyword, const JsonValue *value,
			   const Step *path)
{
	if (value->type != TYPE_BOOLEAN)
		return REFUSE(compiler, schema, path, "must be true or false");
	return value->length != 0;
}

/* The same text is compiled once. */
static const Pattern *
get_pattern(Compiler *compiler, Schema *schema, const char *text, size_t length, const Step *path)
{
	const Pattern *pattern = map_get(&compiler->patterns, text, length);
	const char *reason = "";

	if (pattern != NULL)
		return pattern;
	pattern = pattern_compile(compiler, text, length, &reason);
	if (pattern == NULL)
		REFUSE(compiler, schema, path, "is not a valid regular expression: %s", reason);
	else
		map_put(&compiler->patterns, text, length, (void *) pattern);
	return pattern;
}

static bool
compile_pattern(Compiler *compiler, Schema *schema, Keyword *keyword, const JsonValue *value,
				const Step *path)
{
	if (value->type != TYPE_STRING)
		return REFUSE(compiler, schema, path, "must be a regular expression");
	keyword->pattern = get_pattern(compiler, schema, value->data, value->length, path);
	keyword->value = *value;
	return keyword->pattern != NULL;
}

/* A format that is not known checks nothing. */
static bool
compile_format(Compiler *compiler, Schema *schema, Keyword *keyword, const JsonValue *value,
			   const Step *path)
{
	if (value->type != TYPE_STRING)
		return REFUSE(compiler, schema, path, "must be the name of a format");
	if (!has_vocabulary(schema, VOCABULARY_ASSERTION))
		return false;
	keyword->format = find_format(value->data, value->length, schema->resource->dialect.draft);
	return keyword->format != NULL;
}

/* Draft 7 has what a text contains checked; 2020-12 only says it. */
static bool
compile_content(Compiler *compiler, Schema *schema, Keyword *keyword, const JsonValue *value,
				const Step *path)
{
	JsonValue	encoding;

	if (value->type != TYPE_STRING)
		return REFUSE(compiler, schema, path, "must be a string");
	keyword->json = text_is(value, "application/json");
	keyword->encoded = find_sibling(schema, "contentEncoding", &encoding) &&
		text_is(&encoding, "base64");
	return schema->resource->dialect.draft == DRAFT_7 && keyword->json;
}

static bool
compile_content_encoding(Compiler *compiler, Schema *schema, Keyword *keyword,
						 const JsonValue *value, const Step *path)
{
	if (value->type != TYPE_STRING)
		return REFUSE(compiler, schema, path, "must be a string");
	keyword->encoded = text_is(value, "base64");
	return schema->resource->dialect.draft == DRAFT_7 && keyword->encoded;
}

static void
set_name(Compiler *compiler, PropertyName *name, const JsonValue *text)
{
	memset(name, 0, sizeof(PropertyName));
	name->text = copy_text(compiler->arena, text->data, text->length);
	name->length = text->length;
}

static int
compare_names(const void *a, const void *b)
{
	const PropertyName *x = a;
	const PropertyName *y = b;

	return compare_keys(x->text, x->length, y->text, y->length);
}

static bool
read_names(Compiler *compiler, Schema *schema, PropertyName **names, uint32_t *count,
		   const JsonValue *value, const Step *path)
{
	Members		members;

	if (value->type != TYPE_ARRAY)
		return REFUSE(compiler, schema, path, "must be a list of property names");
	*names = host_alloc(compiler->arena, (member_count(value) + 1) * sizeof(PropertyName));
	*count = 0;
	begin_members(&members, value);
	while (next_member(&members))
	{
		if (members.value.type != TYPE_STRING)
			return REFUSE(compiler, schema, step_to_index(compiler, path, members.index),
						  "must be the name of a property");
		set_name(compiler, &(*names)[(*count)++], &members.value);
	}
	return true;
}

/* The names sorted, each once. */
static PropertyName *
sorted_names(Compiler *compiler, const PropertyName *names, uint32_t count, uint32_t *left)
{
	PropertyName *sorted = host_alloc(compiler->arena, (count + 1) * sizeof(PropertyName));

	memcpy(sorted, names, count * sizeof(PropertyName));
	qsort(sorted, count, sizeof(PropertyName), compare_names);
	*left = 0;
	for (uint32_t i = 0; i < count; i++)
		if (*left == 0 || compare_names(&sorted[*left - 1], &sorted[i]) != 0)
			sorted[(*left)++] = sorted[i];
	return sorted;
}

static bool
compile_required(Compiler *compiler, Schema *schema, Keyword *keyword, const JsonValue *value,
				 const Step *path)
{
	if (!read_names(compiler, schema, &keyword->names, &keyword->count, value, path))
		return false;
	keyword->sorted = sorted_names(compiler, keyword->names, keyword->count, &keyword->sorted_count);
	return keyword->count > 0;
}

/* An object with a schema for each of its names, or what stands there instead of one. */
typedef bool EntryCompiler(Compiler *compiler, Schema *schema, PropertyName *name,
						   const JsonValue *value, const Step *path);

static bool
compile_entries(Compiler *compiler, Schema *schema, Keyword *keyword, const JsonValue *value,
				const Step *path, const char *wanted, EntryCompiler *compile_entry)
{
	Members		members;
	bool		good = true;

	if (value->type != TYPE_OBJECT)
		return REFUSE(compiler, schema, path, "must be an object: %s", wanted);
	keyword->names = host_alloc(compiler->arena, (member_count(value) + 1) * sizeof(PropertyName));
	begin_members(&members, value);
	while (next_member(&members))
	{
		PropertyName *name = &keyword->names[keyword->count];

		set_name(compiler, name, &members.key);
		if (compile_entry(compiler, schema, name, &members.value,
						  step_to(compiler, path, name->text, name->length)))
			keyword->count++;
		else
			good = false;
	}
	return good && keyword->count > 0;
}

static bool
compile_schema_entry(Compiler *compiler, Schema *schema, PropertyName *name,
					 const JsonValue *value, const Step *path)
{
	name->schema = schema_at(compiler, value, schema->resource, path);
	return true;
}

static bool
compile_names_entry(Compiler *compiler, Schema *schema, PropertyName *name,
					const JsonValue *value, const Step *path)
{
	uint32_t	count;

	if (!read_names(compiler, schema, &name->names, &count, value, path))
		return false;
	name->count = (int) count;
	return true;
}

/* In the old keyword there is a schema or a list of names. */
static bool
compile_dependency(Compiler *compiler, Schema *schema, PropertyName *name, const JsonValue *value,
				   const Step *path)
{
	if (value->type == TYPE_ARRAY)
		return compile_names_entry(compiler, schema, name, value, path);
	return compile_schema_entry(compiler, schema, name, value, path);
}

static bool
compile_properties(Compiler *compiler, Schema *schema, Keyword *keyword, const JsonValue *value,
				   const Step *path)
{
	if (!compile_entries(compiler, schema, keyword, value, path, "a schema for each property",
						 compile_schema_entry))
		return false;
	schema->properties = keyword->names;
	schema->property_count = (int) keyword->count;
	return true;
}

static bool
compile_dependent_required(Compiler *compiler, Schema *schema, Keyword *keyword,
						   const JsonValue *value, const Step *path)
{
	return compile_entries(compiler, schema, keyword, value, path,
						   "a list of property names for each property", compile_names_entry);
}

static bool
compile_dependent_schemas(Compiler *compiler, Schema *schema, Keyword *keyword,
						  const JsonValue *value, const Step *path)
{
	return compile_entries(compiler, schema, keyword, value, path, "a schema for each property",
						   compile_schema_entry);
}

static bool
compile_dependencies(Compiler *compiler, Schema *schema, Keyword *keyword, const JsonValue *value,
					 const Step *path)
{
	return compile_entries(compiler, schema, keyword, value, path,
						   "a schema or a list of property names for each property",
						   compile_dependency);
}

static bool
compile_pattern_properties(Compiler *compiler, Schema *schema, Keyword *keyword,
						   const JsonValue *value, const Step *path)
{
	if (!compile_entries(compiler, schema, keyword, value, path, "a schema for each pattern",
						 compile_schema_entry))
		return false;
	schema->patterns = host_alloc(compiler->arena, keyword->count * sizeof(PatternSchema));
	for (uint32_t i = 0; i < keyword->count; i++)
	{
		const PropertyName *name = &keyword->names[i];
		PatternSchema *pattern = &schema->patterns[schema->pattern_count];

		pattern->pattern = get_pattern(compiler, schema, name->text, name->length,
									   step_to(compiler, path, name->text, name->length));
		pattern->schema = name->schema;
		if (pattern->pattern != NULL)
			schema->pattern_count++;
	}
	return true;
}

static bool
compile_subschema(Compiler *compiler, Schema *schema, Keyword *keyword, const JsonValue *value,
				  const Step *path)
{
	keyword->schemas = host_alloc(compiler->arena, 3 * sizeof(Schema *));
	memset(keyword->schemas, 0, 3 * sizeof(Schema *));
	keyword->schemas[0] = schema_at(compiler, value, schema->resource, path);
	keyword->count = 1;
	return true;
}

static bool
compile_subschemas(Compiler *compiler, Schema *schema, Keyword *keyword, const JsonValue *value,
				   const Step *path)
{
	Members		members;

	if (value->type != TYPE_ARRAY || member_count(value) == 0)
		return REFUSE(compiler, schema, path, "must be a list of at least one schema");
	keyword->schemas = host_alloc(compiler->arena, member_count(value) * sizeof(Schema *));
	begin_members(&members, value);
	while (next_member(&members))
		keyword->schemas[keyword->count++] =
			schema_at(compiler, &members.value, schema->resource,
					  step_to_index(compiler, path, members.index));
	return true;
}

static bool
compile_all_of(Compiler *compiler, Schema *schema, Keyword *keyword, const JsonValue *value,
			   const Step *path)
{
	if (!compile_subschemas(compiler, schema, keyword, value, path))
		return false;
	schema->all_of = keyword->schemas;
	schema->all_of_count = (int) keyword->count;
	return true;
}

static bool
compile_prefix(Compiler *compiler, Schema *schema, Keyword *keyword, const JsonValue *value,
			   const Step *path)
{
	if (!compile_subschemas(compiler, schema, keyword, value, path))
		return false;
	schema->prefix = keyword->schemas;
	schema->prefix_count = keyword->count;
	return true;
}

static bool
compile_items(Compiler *compiler, Schema *schema, Keyword *keyword, const JsonValue *value,
			  const Step *path)
{
	if (value->type == TYPE_ARRAY)
	{
		if (schema->resource->dialect.draft == DRAFT_2020)
			return REFUSE(compiler, schema, path,
						  "must be one schema, for all items; a list of schemas was right before draft 2020-12");
		keyword->check = check_prefix_items;
		return member_count(value) > 0 && compile_prefix(compiler, schema, keyword, value, path);
	}
	compile_subschema(compiler, schema, keyword, value, path);
	keyword->count = schema->prefix_count;
	schema->items = keyword->schemas[0];
	return true;
}

/* It is for what is behind a list of schemas. */
static bool
compile_additional_items(Compiler *compiler, Schema *schema, Keyword *keyword,
						 const JsonValue *value, const Step *path)
{
	JsonValue	items;

	if (!find_sibling(schema, "items", &items) || items.type != TYPE_ARRAY)
		return false;
	compile_subschema(compiler, schema, keyword, value, path);
	keyword->count = schema->prefix_count;
	schema->items = keyword->schemas[0];
	return true;
}

static bool
compile_contains(Compiler *compiler, Schema *schema, Keyword *keyword, const JsonValue *value,
				 const Step *path)
{
	JsonValue	count;

	compile_subschema(compiler, schema, keyword, value, path);
	keyword->least = 1;
	keyword->most = UINT32_MAX;
	if (schema->resource->dialect.draft != DRAFT_2020)
		return true;
	keyword->marks = true;
	if (has_vocabulary(schema, VOCABULARY_VALIDATION) && find_sibling(schema, "minContains", &count))
		read_count(compiler, schema, &keyword->least, &count,
				   step_to(compiler, path->parent, "minContains", 11));
	if (has_vocabulary(schema, VOCABULARY_VALIDATION) && find_sibling(schema, "maxContains", &count))
		read_count(compiler, schema, &keyword->most, &count,
				   step_to(compiler, path->parent, "maxContains", 11));
	return true;
}

static bool
compile_if(Compiler *compiler, Schema *schema, Keyword *keyword, const JsonValue *value,
		   const Step *path)
{
	JsonValue	branch;

	compile_subschema(compiler, schema, keyword, value, path);
	if (find_sibling(schema, "then", &branch))
		keyword->schemas[1] = schema_at(compiler, &branch, schema->resource,
										step_to(compiler, path->parent, "then", 4));
	if (find_sibling(schema, "else", &branch))
		keyword->schemas[2] = schema_at(compiler, &branch, schema->resource,
										step_to(compiler, path->parent, "else", 4));
	return true;
}

static bool
compile_unevaluated(Compiler *compiler, Schema *schema, Keyword *keyword, const JsonValue *value,
					const Step *path)
{
	schema->tracks = true;
	return compile_subschema(compiler, schema, keyword, value, path);
}

/* What is referred to is compiled later, so that a long chain of references is no deep recursion. */
static Schema *
referred_schema(Compiler *compiler, const Location *location)
{
	Schema	   *schema = NULL;

	if (location->value.type == TYPE_OBJECT)
		schema = map_get(&compiler->by_address, (const char *) &location->value.data,
						 sizeof(location->value.data));
	if (schema != NULL)
		return schema;
	schema = host_alloc(compiler->arena, sizeof(Schema));
	memset(schema, 0, sizeof(Schema));
	schema->path = location->path;
	schema->resource = location->resource;
	schema->source = location->value;
	schema->next = compiler->all;
	compiler->all = schema;
	if (compiler->waiting == NULL)
		compiler->waiting = schema;
	else
		compiler->last_waiting->next_waiting = schema;
	compiler->last_waiting = schema;
	if (location->value.type == TYPE_OBJECT)
		map_put(&compiler->by_address, (const char *) &location->value.data,
				sizeof(location->value.data), schema);
	return schema;
}

static bool
compile_ref(Compiler *compiler, Schema *schema, Keyword *keyword, const JsonValue *value,
			const Step *path)
{
	Location	location;

	if (value->type != TYPE_STRING)
		return REFUSE(compiler, schema, path, "must be a string: the URI of a schema");
	if (!resolve_reference(compiler, schema, value->data, value->length, path, &location))
		return false;
	keyword->text = copy_text(compiler->arena, value->data, value->length);
	keyword->schemas = host_alloc(compiler->arena, sizeof(Schema *));
	keyword->schemas[0] = referred_schema(compiler, &location);
	keyword->count = 1;
	if (keyword->check == check_dynamic_ref)
	{
		const char *hash = strchr(keyword->text, '#');

		/* Only an anchor of that kind is looked for on the way. */
		if (!location.is_dynamic || hash == NULL || hash[1] == '/' || hash[1] == '\0')
			keyword->check = check_ref;
		else
		{
			keyword->text = hash + 1;
			map_put(&compiler->dynamic_names, keyword->text, strlen(keyword->text),
					(void *) keyword->text);
		}
	}
	else if (schema->ref == NULL)
		schema->ref = keyword->schemas[0];
	return true;
}

/* A default checks nothing, so it becomes no keyword of the schema. */
static bool
compile_default(Compiler *compiler, Schema *schema, Keyword *keyword, const JsonValue *value,
				const Step *path)
{
	schema->has_default = true;
	schema->default_value = *value;
	compiler->program->has_defaults = true;
	return false;
}

/* The keywords.  They are compiled, and problems of one instance come, in this order. */
static const KeywordRule rules[] = {
	{"default", DRAFT_ALL, VOCABULARY_META_DATA, 0, compile_default, NULL},
	{"type", DRAFT_ALL, VOCABULARY_VALIDATION, TYPE_ANY, compile_type, check_type},
	{"enum", DRAFT_ALL, VOCABULARY_VALIDATION, TYPE_ANY, compile_enum, check_enum},
	{"const", DRAFT_7 | DRAFT_2020, VOCABULARY_VALIDATION, TYPE_ANY, compile_const, check_const},
	{"minimum", DRAFT_ALL, VOCABULARY_VALIDATION, TYPE_NUMBER, compile_bound, check_minimum},
	{"exclusiveMinimum", DRAFT_7 | DRAFT_2020, VOCABULARY_VALIDATION, TYPE_NUMBER, compile_number, check_exclusive_minimum},
	{"exclusiveMinimum", DRAFT_4, VOCABULARY_VALIDATION, 0, compile_exclusive_4, NULL},
	{"maximum", DRAFT_ALL, VOCABULARY_VALIDATION, TYPE_NUMBER, compile_bound, check_maximum},
	{"exclusiveMaximum", DRAFT_7 | DRAFT_2020, VOCABULARY_VALIDATION, TYPE_NUMBER, compile_number, check_exclusive_maximum},
	{"exclusiveMaximum", DRAFT_4, VOCABULARY_VALIDATION, 0, compile_exclusive_4, NULL},
	{"multipleOf", DRAFT_ALL, VOCABULARY_VALIDATION, TYPE_NUMBER, compile_factor, check_multiple_of},
	{"minLength", DRAFT_ALL, VOCABULARY_VALIDATION, TYPE_STRING, compile_count, check_min_length},
	{"maxLength", DRAFT_ALL, VOCABULARY_VALIDATION, TYPE_STRING, compile_count, check_max_length},
	{"pattern", DRAFT_ALL, VOCABULARY_VALIDATION, TYPE_STRING, compile_pattern, check_pattern},
	{"format", DRAFT_ALL, VOCABULARY_FORMAT | VOCABULARY_ASSERTION, TYPE_STRING, compile_format, check_format},
	{"contentEncoding", DRAFT_7 | DRAFT_2020, VOCABULARY_CONTENT, TYPE_STRING, compile_content_encoding, check_content},
	{"contentMediaType", DRAFT_7 | DRAFT_2020, VOCABULARY_CONTENT, TYPE_STRING, compile_content, check_content},
	{"minItems", DRAFT_ALL, VOCABULARY_VALIDATION, TYPE_ARRAY, compile_count, check_min_items},
	{"maxItems", DRAFT_ALL, VOCABULARY_VALIDATION, TYPE_ARRAY, compile_count, check_max_items},
	{"uniqueItems", DRAFT_ALL, VOCABULARY_VALIDATION, TYPE_ARRAY, compile_unique, check_unique_items},
	{"prefixItems", DRAFT_2020, VOCABULARY_APPLICATOR, TYPE_ARRAY, compile_prefix, check_prefix_items},
	{"items", DRAFT_ALL, VOCABULARY_APPLICATOR, TYPE_ARRAY, compile_items, check_items},
	{"additionalItems", DRAFT_4 | DRAFT_7, VOCABULARY_APPLICATOR, TYPE_ARRAY, compile_additional_items, check_items},
	{"contains", DRAFT_7 | DRAFT_2020, VOCABULARY_APPLICATOR, TYPE_ARRAY, compile_contains, check_contains},
	{"minProperties", DRAFT_ALL, VOCABULARY_VALIDATION, TYPE_OBJECT, compile_count, check_min_properties},
	{"maxProperties", DRAFT_ALL, VOCABULARY_VALIDATION, TYPE_OBJECT, compile_count, check_max_properties},
	{"required", DRAFT_ALL, VOCABULARY_VALIDATION, TYPE_OBJECT, compile_required, check_required},
	{"dependentRequired", DRAFT_2020, VOCABULARY_VALIDATION, TYPE_OBJECT, compile_dependent_required, check_dependent_required},
	{"propertyNames", DRAFT_7 | DRAFT_2020, VOCABULARY_APPLICATOR, TYPE_OBJECT, compile_subschema, check_property_names},
	{"properties", DRAFT_ALL, VOCABULARY_APPLICATOR, TYPE_OBJECT, compile_properties, check_properties},
	{"patternProperties", DRAFT_ALL, VOCABULARY_APPLICATOR, TYPE_OBJECT, compile_pattern_properties, check_pattern_properties},
	{"additionalProperties", DRAFT_ALL, VOCABULARY_APPLICATOR, TYPE_OBJECT, compile_subschema, check_additional_properties},
	{"dependentSchemas", DRAFT_2020, VOCABULARY_APPLICATOR, TYPE_OBJECT, compile_dependent_schemas, check_dependent_schemas},
	{"dependencies", DRAFT_ALL, VOCABULARY_APPLICATOR, TYPE_OBJECT, compile_dependencies, check_dependent_schemas},
	{"$ref", DRAFT_ALL, VOCABULARY_CORE, TYPE_ANY, compile_ref, check_ref},
	{"$dynamicRef", DRAFT_2020, VOCABULARY_CORE, TYPE_ANY, compile_ref, check_dynamic_ref},
	{"allOf", DRAFT_ALL, VOCABULARY_APPLICATOR, TYPE_ANY, compile_all_of, check_all_of},
	{"anyOf", DRAFT_ALL, VOCABULARY_APPLICATOR, TYPE_ANY, compile_subschemas, check_any_of},
	{"oneOf", DRAFT_ALL, VOCABULARY_APPLICATOR, TYPE_ANY, compile_subschemas, check_one_of},
	{"not", DRAFT_ALL, VOCABULARY_APPLICATOR, TYPE_ANY, compile_subschema, check_not},
	{"if", DRAFT_7 | DRAFT_2020, VOCABULARY_APPLICATOR, TYPE_ANY, compile_if, check_if},
	{"unevaluatedItems", DRAFT_2020, VOCABULARY_UNEVALUATED, TYPE_ARRAY, compile_unevaluated, check_unevaluated_items},
	{"unevaluatedProperties", DRAFT_2020, VOCABULARY_UNEVALUATED, TYPE_OBJECT, compile_unevaluated, check_unevaluated_properties},
};

#define RULES	((int) (sizeof(rules) / sizeof(rules[0])))

static int
find_rule(const Schema *schema, const JsonValue *key)
{
	for (int i = 0; i < RULES; i++)
		if ((rules[i].drafts & schema->resource->dialect.draft) &&
			has_vocabulary(schema, rules[i].vocabulary) && text_is(key, rules[i].name))
			return i;
	return -1;
}

/* Compiles the keywords of a schema that is an object. */
static void
compile_keywords(Compiler *compiler, Schema *schema)
{
	JsonValue	values[RULES];
	bool		present[RULES];
	int			count = 0;
	Members		members;
	JsonValue	ref;
	bool		only_ref = schema->resource->dialect.draft != DRAFT_2020 &&
		find_sibling(schema, "$ref", &ref) && ref.type == TYPE_STRING;

	memset(present, 0, sizeof(present));
	begin_members(&members, &schema->source);
	while (next_member(&members))
	{
		int			rule = find_rule(schema, &members.key);

		/* Beside $ref the older drafts see nothing; but a default there is what everybody means. */
		if (rule < 0 || (only_ref && rules[rule].compile != compile_ref &&
						 rules[rule].compile != compile_default))
			continue;
		present[rule] = true;
		values[rule] = members.value;
		count++;
	}
	schema->keywords = host_alloc(compiler->arena, (count + 1) * sizeof(Keyword));
	for (int i = 0; i < RULES; i++)
	{
		Keyword    *keyword = &schema->keywords[schema->keyword_count];

		if (!present[i])
			continue;
		memset(keyword, 0, sizeof(Keyword));
		keyword->rule = &rules[i];
		keyword->check = rules[i].check;
		keyword->types = rules[i].types;
		if (rules[i].compile(compiler, schema, keyword, &values[i],
							 step_to(compiler, schema->path, rules[i].name, strlen(rules[i].name))))
			schema->keyword_count++;
	}
}

static void
compile_schema(Compiler *compiler, Schema *schema)
{
	bool		may_be_boolean = schema->resource->dialect.draft != DRAFT_4;

	host_pause();
	schema->compiled = true;
	if (++compiler->nesting > MAX_NESTING)
		REFUSE(compiler, schema, NULL, "is nested deeper than %d levels", MAX_NESTING);
	else if (schema->source.type == TYPE_OBJECT)
		compile_keywords(compiler, schema);
	else if (schema->source.type == TYPE_BOOLEAN)
		schema->is_false = !schema->source.length;
	else
		REFUSE(compiler, schema, schema->path, "is %s, but a schema must be an object%s",
			   describe(compiler, &schema->source), may_be_boolean ? ", true or false" : "");
	compiler->nesting--;
}

/* Always gives a schema; what is wrong with it is among the problems. */
Schema *
schema_at(Compiler *compiler, const JsonValue *value, Resource *resource, const Step *path)
{
	Schema	   *schema = NULL;
	Resource   *own;

	if (value->type == TYPE_OBJECT)
	{
		own = map_get(&compiler->roots, (const char *) &value->data, sizeof(value->data));
		if (own != NULL)
			resource = own;
		schema = map_get(&compiler->by_address, (const char *) &value->data, sizeof(value->data));
	}
	if (schema == NULL)
	{
		schema = host_alloc(compiler->arena, sizeof(Schema));
		memset(schema, 0, sizeof(Schema));
		schema->path = path;
		schema->resource = resource;
		schema->source = *value;
		schema->next = compiler->all;
		compiler->all = schema;
		if (value->type == TYPE_OBJECT)
			map_put(&compiler->by_address, (const char *) &value->data, sizeof(value->data), schema);
	}
	if (!schema->compiled)
		compile_schema(compiler, schema);
	return schema;
}

/* The dynamic anchors that may be meant by name are compiled, too. */
static void
compile_dynamic_anchors(Compiler *compiler)
{
	for (Resource *resource = compiler->resources; resource != NULL; resource = resource->next)
		for (size_t i = 0; i < resource->dynamic_anchors.size; i++)
		{
			MapEntry   *entry = &resource->dynamic_anchors.entries[i];
			Location   *location = entry->value;

			if (location != NULL && map_get(&compiler->dynamic_names, entry->key, entry->length))
				referred_schema(compiler, location);
		}
}

static void
compile_waiting(Compiler *compiler)
{
	do
	{
		while (compiler->waiting != NULL)
		{
			Schema	   *schema = compiler->waiting;

			compiler->waiting = schema->next_waiting;
			if (!schema->compiled)
				compile_schema(compiler, schema);
		}
		compile_dynamic_anchors(compiler);
	} while (compiler->waiting != NULL);
}

/* A dynamic anchor leads to the schema itself from now on. */
static void
link_dynamic_anchors(Compiler *compiler)
{
	for (Resource *resource = compiler->resources; resource != NULL; resource = resource->next)
		for (size_t i = 0; i < resource->dynamic_anchors.size; i++)
		{
			Location   *location = resource->dynamic_anchors.entries[i].value;

			if (location != NULL)
				resource->dynamic_anchors.entries[i].value =
					map_get(&compiler->by_address, (const char *) &location->value.data,
							sizeof(location->value.data));
		}
}

/* What is always checked with a schema, for the same instance: by number, NULL behind the last. */
static Schema *
always_with(const Schema *schema, int number)
{
	if (schema->ref != NULL && number-- == 0)
		return schema->ref;
	return number < schema->all_of_count ? schema->all_of[number] : NULL;
}

static void
refuse_circle(Compiler *compiler, const Schema *schema)
{
	const char *name = schema->ref != NULL ? "$ref" : "allOf";

	REFUSE(compiler, schema, step_to(compiler, schema->path, name, strlen(name)),
		   "leads back to itself without going deeper into the value");
}

/*
 * References that no value can end.  Those that some values can, by a branch of
 * anyOf and the like, are seen when it happens.
 */
static void
find_circles(Compiler *compiler)
{
	typedef struct Way
	{
		Schema	   *schema;
		int			next;
	} Way;
	Way		   *way;
	size_t		count = 1;

	for (Schema *schema = compiler->all; schema != NULL; schema = schema->next)
		count++;
	way = host_alloc(compiler->arena, count * sizeof(Way));
	for (Schema *schema = compiler->all; schema != NULL; schema = schema->next)
	{
		size_t		depth = 0;

		if (schema->looked_at == 0)
			way[depth++] = (Way) {schema, 0};
		while (depth > 0)
		{
			Way		   *at = &way[depth - 1];
			Schema	   *next = always_with(at->schema, at->next++);

			at->schema->looked_at = 1;
			if (next == NULL)
			{
				at->schema->looked_at = 2;
				depth--;
			}
			else if (next->looked_at == 0)
				way[depth++] = (Way) {next, 0};
			else if (next->looked_at == 1)
				refuse_circle(compiler, at->schema);
		}
	}
}

static bool
fills_now(const Schema *schema)
{
	if ((schema->items != NULL && schema->items->fills) ||
		(schema->ref != NULL && (schema->ref->fills || schema->ref->has_default)))
		return true;
	for (int i = 0; i < schema->property_count; i++)
		if (schema->properties[i].schema->has_default || schema->properties[i].schema->fills)
			return true;
	for (int i = 0; i < schema->all_of_count; i++)
		if (schema->all_of[i]->fills || schema->all_of[i]->has_default)
			return true;
	for (uint32_t i = 0; i < schema->prefix_count; i++)
		if (schema->prefix[i]->fills)
			return true;
	return false;
}

/* Where it takes too many rounds to find out, it is said of all. */
static void
find_fills(Compiler *compiler)
{
	bool		changed = compiler->program->has_defaults;

	for (int round = 0; changed; round++)
	{
		changed = false;
		for (Schema *schema = compiler->all; schema != NULL; schema = schema->next)
			if (!schema->fills && (round > FILL_ROUNDS || fills_now(schema)))
				schema->fills = changed = true;
	}
}

Program *
schema_compile(void *arena, const JsonValue *source, bool utf8)
{
	Compiler	compiler;
	Program    *program = host_alloc(arena, sizeof(Program));
	Dialect		dialect = {DRAFT_2020, VOCABULARY_ALL & ~VOCABULARY_ASSERTION};
	Document   *document;

	memset(program, 0, sizeof(Program));
	program->arena = arena;
	program->utf8 = utf8;
	memset(&compiler, 0, sizeof(compiler));
	compiler.program = program;
	compiler.arena = arena;
	compiler.automaton_steps = AUTOMATON_STEPS;
	map_begin(&compiler.by_uri, arena);
	map_begin(&compiler.by_anchor, arena);
	map_begin(&compiler.by_address, arena);
	map_begin(&compiler.roots, arena);
	map_begin(&compiler.patterns, arena);
	map_begin(&compiler.dynamic_names, arena);

	document = add_document(&compiler, source, "", dialect, true);
	if (program->problems == NULL)
	{
		program->root = schema_at(&compiler, source, resource_of_document(&compiler, document), NULL);
		compile_waiting(&compiler);
		link_dynamic_anchors(&compiler);
		find_circles(&compiler);
		find_fills(&compiler);
	}
	if (program->problems == NULL)
	{
		for (Schema *schema = compiler.all; schema != NULL; schema = schema->next)
			make_quick(&compiler, schema);
	}
	return program;
}
