/*
 * json_schema_quick.c
 *	  JSON Schema: the verdict alone, where it is easy to give.
 *
 * For each kind of value a schema knows beforehand whether the value is right,
 * is wrong, or takes a test that needs nothing but the value as it is stored:
 * the length of a text, the size of a number, the names of an object.  The other
 * keywords, and all descriptions of what is wrong, are json_schema_check.c's.
 */
#include "definition/json_schema_internal.h"

/* Place of an integer among numbers, as number_place() has it. */
#define PLACE_OF(integer)	(2 * (integer))

static const int kind_types[KINDS] = {
	TYPE_STRING, TYPE_NUMBER, TYPE_BOOLEAN, TYPE_BOOLEAN, TYPE_NULL, TYPE_ARRAY, TYPE_OBJECT
};

/*
 * Compilation
 */

static Keyword *
keyword_of(const Schema *schema, KeywordCheck *check)
{
	for (int i = 0; i < schema->keyword_count; i++)
		if (schema->keywords[i].check == check)
			return &schema->keywords[i];
	return NULL;
}

static void
add_walk_name(Walk *walk, const PropertyName *name, const Schema *schema,
			  bool is_required)
{
	struct WalkName *added = &walk->names[walk->count++];

	added->text = name->text;
	added->length = (uint32_t) name->length;
	added->schema = schema;
	added->is_required = is_required;
}

/* A schema that has nothing but $ref says what that one says; circles of those were refused. */
static const Schema *
behind_references(const Schema *schema)
{
	while (schema->ref != NULL && schema->keyword_count == 1 &&
		   schema->ref->resource == schema->resource)
		schema = schema->ref;
	return schema;
}

/* NULL where everything is right. */
static const Schema *
unless_true(const Schema *schema)
{
	schema = behind_references(schema);
	return schema->keyword_count > 0 || schema->is_false ? schema : NULL;
}

/* Joins the names of properties and of required, which both are sorted. */
static void
make_walk(Compiler *compiler, Schema *schema)
{
	Keyword    *required = keyword_of(schema, check_required);
	Keyword    *properties = keyword_of(schema, check_properties);
	Keyword    *additional = keyword_of(schema, check_additional_properties);
	uint32_t	required_count = required ? required->sorted_count : 0;
	uint32_t	property_count = properties ? properties->count : 0;
	uint32_t	i = 0;
	uint32_t	k = 0;
	Walk	   *walk;

	if ((additional && schema->pattern_count > 0) || (properties == NULL && additional == NULL))
		return;
	walk = host_alloc(compiler->arena, sizeof(Walk));
	walk->count = 0;
	walk->names = host_alloc(compiler->arena, (required_count + property_count + 1) *
							 sizeof(struct WalkName));
	walk->required_count = required_count;
	walk->marks_all = additional != NULL;
	walk->additional = additional ? unless_true(additional->schemas[0]) : NULL;
	while (i < required_count || k < property_count)
	{
		int			order = k == property_count ? -1 : i == required_count ? 1 :
			compare_keys(required->sorted[i].text, required->sorted[i].length,
						 properties->names[k].text, properties->names[k].length);

		if (order < 0)
			add_walk_name(walk, &required->sorted[i], NULL, true);
		else
			add_walk_name(walk, &properties->names[k],
						  behind_references(properties->names[k].schema), order == 0);
		i += order <= 0;
		k += order >= 0;
	}
	schema->walk = walk;
	if (required != NULL)
		required->in_walk = true;
	if (properties != NULL)
		properties->in_walk = true;
	if (additional != NULL)
		additional->in_walk = true;
}

static Answer
answer_by_values(Quick *quick, const JsonValue *values, uint32_t count, const Keyword *table,
				 int kind)
{
	bool		found = false;

	for (uint32_t i = 0; i < count && !found; i++)
		found = kind_of(&values[i]) == kind;
	if (!found)
		return ANSWER_NO;
	if (kind == KIND_TRUE || kind == KIND_FALSE || kind == KIND_NULL)
		return ANSWER_YES;
	if (kind != KIND_STRING || quick->value_count > 0)
		return ANSWER_ASK;
	quick->values = values;
	quick->value_count = count;
	quick->table = table;
	return ANSWER_TEST;
}

static Answer
answer_by_bound(Quick *quick, const Keyword *keyword)
{
	int64_t		place = PLACE_OF(keyword->small);

	if (!keyword->is_small)
		return ANSWER_ASK;
	if (keyword->check == check_minimum && place > quick->low)
		quick->low = place;
	if (keyword->check == check_exclusive_minimum && place + 1 > quick->low)
		quick->low = place + 1;
	if (keyword->check == check_maximum && place < quick->high)
		quick->high = place;
	if (keyword->check == check_exclusive_maximum && place - 1 < quick->high)
		quick->high = place - 1;
	return ANSWER_TEST;
}

static Answer
answer_by_type(Quick *quick, const Keyword *keyword, int kind)
{
	if (keyword->allowed & kind_types[kind])
		return ANSWER_YES;
	if (kind != KIND_NUMBER || !(keyword->allowed & TYPE_INTEGER))
		return ANSWER_NO;
	quick->only_integers = true;
	return ANSWER_TEST;
}

/* What one keyword says about a kind of values; notes what the test has to know. */
static Answer
answer_of(Quick *quick, const Keyword *keyword, int kind)
{
	KeywordCheck *check = keyword->check;

	if (check == check_type)
		return answer_by_type(quick, keyword, kind);
	if (check == check_const)
		return answer_by_values(quick, &keyword->value, 1, NULL, kind);
	if (check == check_enum)
		return answer_by_values(quick, keyword->values, keyword->count,
								keyword->table ? keyword : NULL, kind);
	if (check == check_minimum || check == check_exclusive_minimum ||
		check == check_maximum || check == check_exclusive_maximum)
		return answer_by_bound(quick, keyword);
	if (check == check_min_length)
		quick->least_characters = keyword->count;
	else if (check == check_max_length)
		quick->most_characters = keyword->count;
	else if (check == check_min_items)
		quick->least_items = keyword->count;
	else if (check == check_max_items)
		quick->most_items = keyword->count;
	else if (check == check_pattern)
		quick->pattern = keyword->pattern;
	else if (check == check_format && keyword->format->check != NULL)
		quick->is_format = keyword->format->check;
	else if (check == check_items)
	{
		quick->items = unless_true(keyword->schemas[0]);
		quick->first_item = keyword->count;
		quick->marks_items = true;
	}
	else if (!keyword->in_walk)
		return ANSWER_ASK;
	return ANSWER_TEST;
}

/* Once all that the schema refers to is compiled. */
void
make_quick(Compiler *compiler, Schema *schema)
{
	Quick	   *quick = &schema->quick;

	make_walk(compiler, schema);
	memset(quick, 0, sizeof(Quick));
	quick->low = INT64_MIN;
	quick->high = INT64_MAX;
	quick->most_characters = quick->most_items = UINT32_MAX;
	for (int kind = 0; kind < KINDS; kind++)
	{
		Answer		answer = schema->is_false ? ANSWER_NO : ANSWER_YES;

		for (int i = 0; i < schema->keyword_count; i++)
		{
			const Keyword *keyword = &schema->keywords[i];
			Answer		next = ANSWER_YES;

			if (keyword->types & kind_types[kind])
				next = answer_of(quick, keyword, kind);
			if (next > answer)
				answer = next;
		}
		quick->answers[kind] = answer;
	}
}

/*
 * Tests
 */

/*
 * Puts numbers into an order in which an integer is even, and what lies between
 * two integers the odd number between theirs.  False where it is too large.
 */
static inline bool
number_place(const char *data, uint32_t length, int64_t *place)
{
	const JsonValue value = {data, length, TYPE_NUMBER};
	Number		number;
	int64_t		whole = 0;
	bool		has_fraction;

	read_number(&number, &value);
	if (number.special || number.weight > 3)
		return false;
	for (int i = 0; i <= number.weight; i++)
		whole = whole * NUMBER_BASE + (i < number.count ? digit_at(&number, i) : 0);
	has_fraction = number.count > (number.weight < 0 ? 0 : number.weight + 1);
	*place = PLACE_OF(number.negative ? -whole : whole) +
		(has_fraction ? number.negative ? -1 : 1 : 0);
	return true;
}

static bool
is_among(Run *run, const Quick *quick, const JsonValue *text)
{
	if (quick->table != NULL)
		return is_in_table(run, quick->table, text);
	for (uint32_t i = 0; i < quick->value_count; i++)
		if (quick->values[i].length == text->length && quick->values[i].type == TYPE_STRING &&
			same_bytes(quick->values[i].data, text->data, text->length))
			return true;
	return false;
}

/* A character has one to four bytes, which often says enough. */
static bool
has_right_length(Run *run, const Quick *quick, const char *text, uint32_t length)
{
	size_t		count;

	if (length <= quick->most_characters && length / 4 >= quick->least_characters)
		return true;
	if (length < quick->least_characters || !spend(run, length / 64))
		return false;
	count = count_characters(run->program->utf8, text, length);
	return count >= quick->least_characters && count <= quick->most_characters;
}

static inline bool
text_is_right(Run *run, const Quick *quick, const char *text, uint32_t length)
{
	if (quick->value_count > 0)
	{
		JsonValue	value = {text, length, TYPE_STRING};

		if (!is_among(run, quick, &value))
			return false;
	}
	if (!has_right_length(run, quick, text, length))
		return false;
	if (quick->pattern != NULL && !pattern_matches(run, quick->pattern, text, length))
		return false;
	return quick->is_format == NULL ||
		(spend(run, 1 + length / 8) && quick->is_format(text, length));
}

static inline bool
number_is_right(const Quick *quick, int64_t place)
{
	return place >= quick->low && place <= quick->high && !(quick->only_integers && (place & 1));
}

static bool walk_array(Check *check, const Scope *scope, const Quick *quick, const char *array);

/* A part that has parts itself. */
static bool
walk_part(Check *check, const Scope *scope, const Schema *schema, int kind, const char *data)
{
	Scope		own = {scope, schema->resource};
	bool		good;

	if (!enter(check->run))
		return false;
	if (scope->resource != schema->resource)
		scope = &own;
	if (kind == KIND_OBJECT)
		good = walk_object(check, scope, NULL, schema->walk, data);
	else
		good = walk_array(check, scope, &schema->quick, data);
	check->run->depth--;
	return good;
}

/* Not inlined, so that only who needs the value has it made. */
static bool __attribute__((noinline))
ask(Check *check, const Scope *scope, const Schema *schema, uint32_t entry, const char *base,
	uint32_t start, uint32_t end)
{
	JsonValue	value;

	entry_value(&value, entry, base, start, end);
	return check_value(check, scope, schema, &value, NULL);
}

/* A part of an array or an object, as its entry says. */
static inline __attribute__((always_inline)) bool
part_is_right(Check *check, const Scope *scope, const Schema *schema, uint32_t entry,
			  const char *base, uint32_t start, uint32_t end)
{
	const Quick *quick = &schema->quick;
	const char *data = base + align4(start);
	int			kind = (int) ((entry & ENTRY_TYPE_MASK) >> ENTRY_TYPE_SHIFT);
	int64_t		place;

	if (kind == KIND_ARRAY && (load32(data) & BINARY_IS_OBJECT))
		kind = KIND_OBJECT;
	if (quick->answers[kind] != ANSWER_TEST)
	{
		if (quick->answers[kind] != ANSWER_ASK)
			return quick->answers[kind] == ANSWER_YES;
	}
	else if (kind == KIND_STRING)
		return text_is_right(check->run, quick, base + start, end - start);
	else if (kind != KIND_NUMBER)
		return walk_part(check, scope, schema, kind, data);
	else if (number_place(data, end - align4(start), &place))
		return number_is_right(quick, place);
	return ask(check, scope, schema, entry, base, start, end);
}

/* The object and the names side by side. */
bool
walk_object(Check *check, const Scope *scope, Evaluated *evaluated, const Walk *walk,
			const char *object)
{
	uint32_t	count = load32(object) & BINARY_COUNT_MASK;
	const char *entry_at = object + 4;
	const char *base = entry_at + 8 * (size_t) count;
	uint32_t	key_start = 0;
	uint32_t	start = entry_start(entry_at, count);
	const struct WalkName *name = walk->names;
	const struct WalkName *last = name + walk->count;
	uint32_t	missing = walk->required_count;

	if (missing > count || !spend(check->run, 1 + count))
		return false;
	if (walk->marks_all && evaluated != NULL)
		evaluated->all = true;
	for (uint32_t i = 0; i < count && (name < last || walk->additional != NULL); i++, entry_at += 4)
	{
		uint32_t	key_end = entry_end(load32(entry_at), key_start);
		uint32_t	entry = load32(entry_at + 4 * (size_t) count);
		uint32_t	end = entry_end(entry, start);
		const Schema *schema = walk->additional;
		int			order = 1;

		while (name < last && (order = compare_keys(name->text, name->length, base + key_start,
													key_end - key_start)) < 0)
		{
			if (name->is_required)
				return false;
			name++;
		}
		if (name < last && order == 0)
		{
			missing -= name->is_required;
			if (name->schema != NULL)
			{
				schema = name->schema;
				if (evaluated != NULL)
					mark_evaluated(evaluated, i);
			}
			name++;
		}
		if (schema != NULL && !part_is_right(check, scope, schema, entry, base, start, end))
			return false;
		key_start = key_end;
		start = end;
	}
	return missing == 0;
}

static bool
walk_array(Check *check, const Scope *scope, const Quick *quick, const char *array)
{
	uint32_t	count = load32(array) & BINARY_COUNT_MASK;
	const char *entries = array + 4;
	const char *base = entries + 4 * (size_t) count;
	uint32_t	start = 0;

	if (count < quick->least_items || count > quick->most_items)
		return false;
	if (quick->items == NULL)
		return true;
	if (!spend(check->run, 1 + count))
		return false;
	for (uint32_t i = 0; i < count; i++)
	{
		uint32_t	entry = load32(entries + 4 * (size_t) i);
		uint32_t	end = entry_end(entry, start);

		if (i >= quick->first_item &&
			!part_is_right(check, scope, quick->items, entry, base, start, end))
			return false;
		start = end;
	}
	return true;
}

/* The verdict; ANSWER_ASK where that is for the keywords to say, each by itself. */
Answer
quick_answer(Check *check, const Scope *scope, Evaluated *evaluated, const Schema *schema,
			 const JsonValue *value)
{
	const Quick *quick = &schema->quick;
	int			kind = kind_of(value);
	int64_t		place;
	bool		good;

	if (quick->answers[kind] != ANSWER_TEST)
		return quick->answers[kind];
	switch (kind)
	{
		case KIND_STRING:
			good = text_is_right(check->run, quick, value->data, value->length);
			break;
		case KIND_NUMBER:
			if (!number_place(value->data, value->length, &place))
				return ANSWER_ASK;
			good = number_is_right(quick, place);
			break;
		case KIND_ARRAY:
			good = walk_array(check, scope, quick, value->data);
			if (evaluated != NULL && quick->marks_items)
				evaluated->all = true;
			break;
		default:
			good = walk_object(check, scope, evaluated, schema->walk, value->data);
	}
	return good ? ANSWER_YES : ANSWER_NO;
}
