/*
 * json_schema_check.c
 *	  JSON Schema: does an instance satisfy a schema, and if not, why?
 */
#include "postgres.h"

#include "catalog/pg_collation.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "regex/regex.h"
#include "utils/builtins.h"
#include "utils/json.h"

#include "definition/json_schema.h"

static bool report(Check *check, const Schema *schema, const Keyword *keyword, const Place *place,
				   const char *format,...) pg_attribute_printf(5, 6);

/* Is there room for one more problem, so that it pays to describe it? */
static bool
is_wanted(const Check *check)
{
	return list_length(check->problems) < check->keep;
}

/* Counts a problem that nobody wants to read; false, to return it. */
static bool
count_unseen(Check *check)
{
	check->count++;
	return false;
}

/* Notes that the instance is not what the schema says; false, to return it. */
static bool
report(Check *check, const Schema *schema, const Keyword *keyword, const Place *place,
	   const char *format,...)
{
	StringInfoData message;
	Problem    *problem;

	if (!is_wanted(check))
		return count_unseen(check);
	check->count++;
	initStringInfo(&message);
	for (;;)
	{
		va_list		args;
		int			needed;

		va_start(args, format);
		needed = appendStringInfoVA(&message, format, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&message, needed);
	}
	problem = palloc0(sizeof(Problem));
	problem->instance_path = place_text(place);
	problem->schema_path = pointer_text(schema->path);
	if (keyword != NULL)
		problem->schema_path = psprintf("%s/%s", problem->schema_path, keyword->rule->name);
	problem->message = message.data;
	check->problems = lappend(check->problems, problem);
	return false;
}

/* Adds to the last problem what may help; false, to return it. */
static bool
suggest(Check *check, char *hint)
{
	((Problem *) llast(check->problems))->hint = hint;
	return false;
}

/* Would the text be right if it stood there without quotes? */
static bool
is_quoted_by_mistake(const JsonbValue *instance, int types)
{
	const char *text = instance->val.string.val;
	int			length = instance->val.string.len;

	if (instance->type != jbvString || length == 0 || length > 20)
		return false;
	if (types & (TYPE_INTEGER | TYPE_NUMBER))
	{
		int			digits = strspn(pnstrdup(text, length), "0123456789");

		return digits == length;
	}
	return (types & TYPE_BOOLEAN) &&
		((length == 4 && memcmp(text, "true", 4) == 0) ||
		 (length == 5 && memcmp(text, "false", 5) == 0));
}

bool
check_type(Check *check, const Schema *schema, const Keyword *keyword, JsonbValue *instance,
		   const Place *place)
{
	if (keyword->types & type_of(instance))
		return true;
	if ((keyword->types & TYPE_INTEGER) && instance->type == jbvNumeric &&
		is_integral(instance->val.numeric))
		return true;
	if (!is_wanted(check))
		return count_unseen(check);
	report(check, schema, keyword, place, "is %s, but must be %s",
		   describe(instance), type_list(keyword->types));
	if (is_quoted_by_mistake(instance, keyword->types))
		suggest(check, psprintf("Write the value of %s without quotes.", place_text(place)));
	return false;
}

bool
check_enum(Check *check, const Schema *schema, const Keyword *keyword, JsonbValue *instance,
		   const Place *place)
{
	Members		members;
	StringInfoData list;

	begin_members(&members, &keyword->value);
	while (next_member(&members))
	{
		if (!values_equal(&members.value, instance))
			continue;
		pfree(members.iterator);
		return true;
	}
	if (!is_wanted(check))
		return count_unseen(check);
	initStringInfo(&list);
	begin_members(&members, &keyword->value);
	while (next_member(&members) && members.index < SHOWN_NAMES)
	{
		appendStringInfoString(&list, members.index > 0 ? ", " : "");
		append_value(&list, &members.value);
	}
	if (member_count(&keyword->value) > SHOWN_NAMES)
		appendStringInfoString(&list, ", ...");
	return report(check, schema, keyword, place, "is none of the allowed values: %s", list.data);
}

bool
check_const(Check *check, const Schema *schema, const Keyword *keyword, JsonbValue *instance,
			const Place *place)
{
	JsonbValue	value = keyword->value;
	StringInfoData text;

	if (values_equal(&value, instance))
		return true;
	if (!is_wanted(check))
		return count_unseen(check);
	initStringInfo(&text);
	append_value(&text, &value);
	return report(check, schema, keyword, place, "must be %s", text.data);
}

/* Reports a number beyond a bound. */
static bool
report_number(Check *check, const Schema *schema, const Keyword *keyword, JsonbValue *instance,
			  const Place *place, const char *relation)
{
	if (!is_wanted(check))
		return count_unseen(check);
	return report(check, schema, keyword, place, "is %s, but must be %s %s",
				  number_text(instance->val.numeric), relation, number_text(keyword->number));
}

bool
check_minimum(Check *check, const Schema *schema, const Keyword *keyword, JsonbValue *instance,
			  const Place *place)
{
	return compare_numbers(instance->val.numeric, keyword->number) >= 0 ||
		report_number(check, schema, keyword, instance, place, "at least");
}

bool
check_maximum(Check *check, const Schema *schema, const Keyword *keyword, JsonbValue *instance,
			  const Place *place)
{
	return compare_numbers(instance->val.numeric, keyword->number) <= 0 ||
		report_number(check, schema, keyword, instance, place, "at most");
}

bool
check_exclusive_minimum(Check *check, const Schema *schema, const Keyword *keyword,
						JsonbValue *instance, const Place *place)
{
	return compare_numbers(instance->val.numeric, keyword->number) > 0 ||
		report_number(check, schema, keyword, instance, place, "greater than");
}

bool
check_exclusive_maximum(Check *check, const Schema *schema, const Keyword *keyword,
						JsonbValue *instance, const Place *place)
{
	return compare_numbers(instance->val.numeric, keyword->number) < 0 ||
		report_number(check, schema, keyword, instance, place, "less than");
}

bool
check_multiple_of(Check *check, const Schema *schema, const Keyword *keyword, JsonbValue *instance,
				  const Place *place)
{
	Datum		rest = DirectFunctionCall2(numeric_mod, NumericGetDatum(instance->val.numeric),
										   NumericGetDatum(keyword->number));

	return compare_numbers(DatumGetNumeric(rest), int64_to_numeric(0)) == 0 ||
		report_number(check, schema, keyword, instance, place, "a multiple of");
}

/* Reports a wrong number of characters, items or properties. */
static bool
report_count(Check *check, const Schema *schema, const Keyword *keyword, const Place *place,
			 int count, const char *one, const char *many, const char *relation)
{
	return report(check, schema, keyword, place, "has %d %s, but must have %s %d",
				  count, count == 1 ? one : many, relation, keyword->count);
}

static int
characters(const JsonbValue *instance)
{
	return pg_mbstrlen_with_len(instance->val.string.val, instance->val.string.len);
}

bool
check_min_length(Check *check, const Schema *schema, const Keyword *keyword, JsonbValue *instance,
				 const Place *place)
{
	int			count = characters(instance);

	return count >= keyword->count ||
		report_count(check, schema, keyword, place, count, "character", "characters", "at least");
}

bool
check_max_length(Check *check, const Schema *schema, const Keyword *keyword, JsonbValue *instance,
				 const Place *place)
{
	int			count = characters(instance);

	return count <= keyword->count ||
		report_count(check, schema, keyword, place, count, "character", "characters", "at most");
}

bool
check_min_items(Check *check, const Schema *schema, const Keyword *keyword, JsonbValue *instance,
				const Place *place)
{
	int			count = member_count(instance);

	return count >= keyword->count ||
		report_count(check, schema, keyword, place, count, "item", "items", "at least");
}

bool
check_max_items(Check *check, const Schema *schema, const Keyword *keyword, JsonbValue *instance,
				const Place *place)
{
	int			count = member_count(instance);

	return count <= keyword->count ||
		report_count(check, schema, keyword, place, count, "item", "items", "at most");
}

bool
check_min_properties(Check *check, const Schema *schema, const Keyword *keyword,
					 JsonbValue *instance, const Place *place)
{
	int			count = member_count(instance);

	return count >= keyword->count ||
		report_count(check, schema, keyword, place, count, "property", "properties", "at least");
}

bool
check_max_properties(Check *check, const Schema *schema, const Keyword *keyword,
					 JsonbValue *instance, const Place *place)
{
	int			count = member_count(instance);

	return count <= keyword->count ||
		report_count(check, schema, keyword, place, count, "property", "properties", "at most");
}

bool
check_pattern(Check *check, const Schema *schema, const Keyword *keyword, JsonbValue *instance,
			  const Place *place)
{
	if (RE_compile_and_execute(keyword->pattern, instance->val.string.val,
							   instance->val.string.len, REGEX_FLAGS, C_COLLATION_OID, 0, NULL))
		return true;
	return report(check, schema, keyword, place, "does not match the pattern %s",
				  text_to_cstring(keyword->pattern));
}

/* An item of an array, for the search for equal ones. */
typedef struct HashedItem
{
	uint32		hash;
	int			index;
	JsonbValue	value;
} HashedItem;

static int
compare_hashed(const void *a, const void *b)
{
	const HashedItem *x = a;
	const HashedItem *y = b;

	if (x->hash != y->hash)
		return x->hash < y->hash ? -1 : 1;
	return x->index - y->index;
}

bool
check_unique_items(Check *check, const Schema *schema, const Keyword *keyword, JsonbValue *instance,
				   const Place *place)
{
	int			count = member_count(instance);
	HashedItem *items = palloc(count * sizeof(HashedItem));
	Members		members;

	begin_members(&members, instance);
	while (next_member(&members))
	{
		items[members.index].hash = hash_value(&members.value);
		items[members.index].index = members.index;
		items[members.index].value = members.value;
	}
	qsort(items, count, sizeof(HashedItem), compare_hashed);
	for (int i = 1; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		for (int j = i - 1; j >= 0 && items[j].hash == items[i].hash; j--)
			if (values_equal(&items[j].value, &items[i].value))
				return report(check, schema, keyword, place,
							  "has the same item twice, at %d and at %d",
							  items[j].index, items[i].index);
	}
	pfree(items);
	return true;
}

bool
check_required(Check *check, const Schema *schema, const Keyword *keyword, JsonbValue *instance,
			   const Place *place)
{
	bool		good = true;

	for (int i = 0; i < keyword->count; i++)
	{
		const PropertyName *name = &keyword->names[i];
		JsonbValue	value;
		StringInfoData quoted;

		if (find_entry(instance, name->text, name->length, &value))
			continue;
		good = false;
		if (!is_wanted(check))
			count_unseen(check);
		else
		{
			initStringInfo(&quoted);
			escape_json(&quoted, name->text);
			report(check, schema, keyword, place, "lacks the required property %s", quoted.data);
			suggest(check, psprintf("The schema requires%s%s: %s.", place ? " in " : "",
									place_text(place), name_list(keyword->names, keyword->count)));
		}
		if (check->stop_at_first)
			return false;
	}
	return good;
}

bool
check_properties(Check *check, const Schema *schema, const Keyword *keyword, JsonbValue *instance,
				 const Place *place)
{
	bool		good = true;

	for (int i = 0; i < schema->property_count; i++)
	{
		const PropertyName *property = &schema->properties[i];
		Place		child = {place, property->text, property->length, 0};
		JsonbValue	value;

		if (!find_entry(instance, property->text, property->length, &value) ||
			check_schema(check, property->schema, &value, &child))
			continue;
		good = false;
		if (check->stop_at_first)
			return false;
	}
	return good;
}

static int
compare_names(const void *a, const void *b)
{
	const PropertyName *x = a;
	const PropertyName *y = b;

	if (x->length != y->length)
		return x->length < y->length ? -1 : 1;
	return memcmp(x->text, y->text, x->length);
}

/* The property of that name in "properties"; NULL: it is an additional one. */
const PropertyName *
find_property(const Schema *schema, const JsonbValue *key)
{
	PropertyName wanted = {key->val.string.val, key->val.string.len, NULL};

	if (schema->property_count == 0)
		return NULL;
	return bsearch(&wanted, schema->properties, schema->property_count, sizeof(PropertyName),
				   compare_names);
}

static bool
report_additional(Check *check, const Schema *schema, const Keyword *keyword, const Place *place)
{
	bool		wanted = is_wanted(check);

	report(check, schema, keyword, place, "is a property that the schema does not allow");
	if (wanted && schema->property_count > 0)
		suggest(check, psprintf("The schema allows%s%s: %s.", place->parent ? " in " : "",
								place_text(place->parent),
								name_list(schema->properties, schema->property_count)));
	return false;
}

bool
check_additional_properties(Check *check, const Schema *schema, const Keyword *keyword,
							JsonbValue *instance, const Place *place)
{
	const Schema *additional = keyword->schemas[0];
	Members		members;
	bool		good = true;

	begin_members(&members, instance);
	while (next_member(&members))
	{
		Place		child = {place, members.key.val.string.val, members.key.val.string.len, 0};

		if (find_property(schema, &members.key) != NULL)
			continue;
		if (additional->is_false)
			good = report_additional(check, schema, keyword, &child);
		else
			good &= check_schema(check, additional, &members.value, &child);
		if (!good && check->stop_at_first)
			return false;
	}
	return good;
}

bool
check_items(Check *check, const Schema *schema, const Keyword *keyword, JsonbValue *instance,
			const Place *place)
{
	Members		members;
	bool		good = true;

	begin_members(&members, instance);
	while (next_member(&members))
	{
		Place		child = {place, NULL, 0, members.index};

		good &= check_schema(check, keyword->schemas[0], &members.value, &child);
		if (!good && check->stop_at_first)
			return false;
	}
	return good;
}

bool
check_all_of(Check *check, const Schema *schema, const Keyword *keyword, JsonbValue *instance,
			 const Place *place)
{
	bool		good = true;

	for (int i = 0; i < keyword->count; i++)
	{
		good &= check_schema(check, keyword->schemas[i], instance, place);
		if (!good && check->stop_at_first)
			return false;
	}
	return good;
}

/*
 * Tries a branch.  Where it fails and somebody wants to read it, says why: its first problem is enough for
 * a reader, and more would make nested branches cost more and more.
 */
static bool
try_branch(const Check *check, const Keyword *keyword, int number, JsonbValue *instance,
		   const Place *place, StringInfo *reasons)
{
	Check		branch = {.stop_at_first = true, .keep = is_wanted(check) ? 1 : 0};
	Problem    *problem;

	if (check_schema(&branch, keyword->schemas[number], instance, place))
		return true;
	if (branch.problems == NIL || number >= SHOWN_NAMES)
		return false;
	problem = linitial(branch.problems);
	if (*reasons == NULL)
		*reasons = makeStringInfo();
	appendStringInfo(*reasons, "%s%d: ", (*reasons)->len > 0 ? "; " : "", number);
	if (strlen(problem->instance_path) > strlen(place_text(place)))
		appendStringInfo(*reasons, "%s ", problem->instance_path);
	appendStringInfoString(*reasons, problem->message);
	return false;
}

bool
check_any_of(Check *check, const Schema *schema, const Keyword *keyword, JsonbValue *instance,
			 const Place *place)
{
	StringInfo	reasons = NULL;

	for (int i = 0; i < keyword->count; i++)
		if (try_branch(check, keyword, i, instance, place, &reasons))
			return true;
	return report(check, schema, keyword, place, "satisfies no schema of anyOf (%s)",
				  reasons ? reasons->data : "");
}

bool
check_one_of(Check *check, const Schema *schema, const Keyword *keyword, JsonbValue *instance,
			 const Place *place)
{
	StringInfo	reasons = NULL;
	int			satisfied = -1;

	for (int i = 0; i < keyword->count; i++)
	{
		if (!try_branch(check, keyword, i, instance, place, &reasons))
			continue;
		if (satisfied >= 0)
			return report(check, schema, keyword, place,
						  "satisfies more than one schema of oneOf: %d and %d", satisfied, i);
		satisfied = i;
	}
	return satisfied >= 0 ||
		report(check, schema, keyword, place, "satisfies no schema of oneOf (%s)",
			   reasons ? reasons->data : "");
}

bool
check_not(Check *check, const Schema *schema, const Keyword *keyword, JsonbValue *instance,
		  const Place *place)
{
	Check		branch = {.stop_at_first = true};

	return !check_schema(&branch, keyword->schemas[0], instance, place) ||
		report(check, schema, keyword, place, "satisfies the schema of not");
}

bool
check_schema(Check *check, const Schema *schema, JsonbValue *instance, const Place *place)
{
	int			type = type_of(instance);
	bool		good = true;

	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	if (schema->is_false)
		return report(check, schema, NULL, place, "is not allowed here");
	for (int i = 0; i < schema->keyword_count; i++)
	{
		const Keyword *keyword = &schema->keywords[i];

		if (!(keyword->rule->types & type) ||
			keyword->rule->check(check, schema, keyword, instance, place))
			continue;
		good = false;
		if (check->stop_at_first)
			return false;
	}
	return good;
}
