/*
 * json_schema_check_members.c
 *	  JSON Schema: keywords of arrays and objects.
 *
 * Names in a schema are sorted as jsonb sorts them, so that an object and the
 * names are walked side by side.
 */
#include "definition/json_schema_internal.h"

#include <stdlib.h>

#define FEW_ITEMS			6		/* so many are compared with each other */

/* Reports a wrong number of items or properties. */
static bool
report_count(Check *check, const Frame *frame, const Keyword *keyword, const char *one,
			 const char *many, const char *relation)
{
	uint32_t	count = member_count(frame->instance);

	return report(check, frame, keyword, frame->place, "has %u %s, but must have %s %u", count,
				  count == 1 ? one : many, relation, keyword->count);
}

static void
mark_all(const Frame *frame)
{
	if (frame->evaluated != NULL)
		frame->evaluated->all = true;
}

static void
mark(const Frame *frame, uint32_t index)
{
	if (frame->evaluated != NULL)
		mark_evaluated(frame->evaluated, index);
}

/*
 * Arrays
 */

bool
check_min_items(Check *check, const Frame *frame, const Keyword *keyword)
{
	return member_count(frame->instance) >= keyword->count ||
		report_count(check, frame, keyword, "item", "items", "at least");
}

bool
check_max_items(Check *check, const Frame *frame, const Keyword *keyword)
{
	return member_count(frame->instance) <= keyword->count ||
		report_count(check, frame, keyword, "item", "items", "at most");
}

/* An item of an array, for the search for equal ones. */
typedef struct HashedItem
{
	uint64_t	hash;
	uint32_t	index;
	JsonValue	value;
} HashedItem;

static int
compare_hashed(const void *a, const void *b)
{
	const HashedItem *x = a;
	const HashedItem *y = b;

	if (x->hash != y->hash)
		return x->hash < y->hash ? -1 : 1;
	return x->index < y->index ? -1 : 1;
}

bool
check_unique_items(Check *check, const Frame *frame, const Keyword *keyword)
{
	Run		   *run = check->run;
	uint32_t	count = member_count(frame->instance);
	HashedItem	few[FEW_ITEMS];
	HashedItem *items = few;
	Members		members;

	if (count < 2)
		return true;
	if (count > FEW_ITEMS)
		items = host_alloc(run->arena, count * sizeof(HashedItem));
	begin_members(&members, frame->instance);
	while (next_member(&members))
	{
		items[members.index].hash = count > FEW_ITEMS ? hash_value(&members.value, &run->steps) : 0;
		items[members.index].index = members.index;
		items[members.index].value = members.value;
		if (!spend(run, count > FEW_ITEMS ? 8 : 1))
			return false;
	}
	if (count > FEW_ITEMS)
		qsort(items, count, sizeof(HashedItem), compare_hashed);
	for (uint32_t i = 1; i < count; i++)
		for (uint32_t j = i; j-- > 0 && items[j].hash == items[i].hash;)
		{
			if (!spend(run, 1))
				return false;
			if (values_equal(&items[j].value, &items[i].value, &run->steps))
				return report(check, frame, keyword, frame->place,
							  "has the same item twice, at %u and at %u",
							  items[j].index, items[i].index);
		}
	return true;
}

bool
check_prefix_items(Check *check, const Frame *frame, const Keyword *keyword)
{
	Members		members;
	bool		good = true;

	begin_members(&members, frame->instance);
	while (members.next < keyword->count && next_member(&members))
	{
		Place		place = {frame->place, NULL, 0, members.index};

		mark(frame, members.index);
		good &= check_value(check, frame->scope, keyword->schemas[members.index], &members.value, &place);
		if (!good && check->stop_at_first)
			return false;
	}
	return good;
}

/* Those behind the first count ones. */
bool
check_items(Check *check, const Frame *frame, const Keyword *keyword)
{
	const Schema *schema = keyword->schemas[0];
	Members		members;
	bool		good = true;

	mark_all(frame);
	if (schema->keyword_count == 0 && !schema->is_false)
		return true;
	begin_members(&members, frame->instance);
	while (next_member(&members))
	{
		Place		place = {frame->place, NULL, 0, members.index};

		if (members.index < keyword->count)
			continue;
		good &= check_value(check, frame->scope, schema, &members.value, &place);
		if (!good && (check->stop_at_first || check->run->failure != CHECK_DONE))
			return false;
	}
	return good;
}

bool
check_contains(Check *check, const Frame *frame, const Keyword *keyword)
{
	uint32_t	found = 0;
	Members		members;

	begin_members(&members, frame->instance);
	while (next_member(&members))
	{
		Place		place = {frame->place, NULL, 0, members.index};
		Check		branch = {.run = check->run,.stop_at_first = true};

		if (!check_value(&branch, frame->scope, keyword->schemas[0], &members.value, &place))
		{
			if (check->run->failure != CHECK_DONE)
				return false;
			continue;
		}
		found++;
		if (keyword->marks)
			mark(frame, members.index);
		/* Enough is enough, unless somebody wants to know all of them. */
		if (found >= keyword->least && frame->evaluated == NULL && keyword->most == UINT32_MAX)
			return true;
	}
	if (found < keyword->least)
		return report(check, frame, keyword, frame->place,
					  "has %u %s that satisfies contains, but must have at least %u", found,
					  found == 1 ? "item" : "items", keyword->least);
	if (found > keyword->most)
		return report(check, frame, keyword, frame->place,
					  "has %u items that satisfy contains, but must have at most %u", found,
					  keyword->most);
	return true;
}

/* What nothing has looked at yet: elements of an array, or entries of an object. */
static bool
check_unevaluated(Check *check, const Frame *frame, const Keyword *keyword, const char *what)
{
	const Schema *schema = keyword->schemas[0];
	Members		members;
	bool		good = true;

	if (are_all_evaluated(frame->evaluated))
		return true;
	begin_members(&members, frame->instance);
	while (next_member(&members))
	{
		Place		place = {frame->place, NULL, 0, members.index};

		if (is_evaluated(frame->evaluated, members.index))
			continue;
		if (members.is_object)
			place = (Place) {frame->place, members.key.data, members.key.length, 0};
		if (schema->is_false)
			good = report(check, frame, keyword, &place, "is %s that the schema does not allow", what);
		else
			good &= check_value(check, frame->scope, schema, &members.value, &place);
		if (!good && (check->stop_at_first || check->run->failure != CHECK_DONE))
			return false;
	}
	mark_all(frame);
	return good;
}

bool
check_unevaluated_items(Check *check, const Frame *frame, const Keyword *keyword)
{
	return check_unevaluated(check, frame, keyword, "an item");
}

/*
 * Objects
 */

bool
check_min_properties(Check *check, const Frame *frame, const Keyword *keyword)
{
	return member_count(frame->instance) >= keyword->count ||
		report_count(check, frame, keyword, "property", "properties", "at least");
}

bool
check_max_properties(Check *check, const Frame *frame, const Keyword *keyword)
{
	return member_count(frame->instance) <= keyword->count ||
		report_count(check, frame, keyword, "property", "properties", "at most");
}

/* Does the object have all of the names, which are sorted? */
static bool
has_all(const JsonValue *instance, const PropertyName *sorted, uint32_t count)
{
	Members		members;
	uint32_t	found = 0;

	if (member_count(instance) < count)
		return false;
	begin_members(&members, instance);
	while (found < count && next_member(&members))
	{
		int			order = compare_keys(members.key.data, members.key.length,
										 sorted[found].text, sorted[found].length);

		if (order > 0)
			return false;
		if (order == 0)
			found++;
	}
	return found == count;
}

/* Reports each of the names that the object lacks; needed_by is the property that wants them, NULL: the schema. */
static bool
report_lacking(Check *check, const Frame *frame, const Keyword *keyword, const PropertyName *names,
			   int count, const PropertyName *needed_by)
{
	void	   *arena = check->run->arena;
	bool		good = true;

	for (int i = 0; i < count; i++)
	{
		JsonValue	value;
		Text		text;

		if (!spend(check->run, 1) ||
			find_entry(frame->instance, names[i].text, names[i].length, &value))
			continue;
		good = false;
		if (!is_wanted(check))
		{
			count_unseen(check);
			if (check->stop_at_first)
				return false;
			continue;
		}
		text_begin(&text, arena);
		text_string(&text, needed_by ? "lacks the property " : "lacks the required property ");
		append_quoted(&text, names[i].text, names[i].length);
		if (needed_by != NULL)
		{
			text_string(&text, ", which is needed beside ");
			append_quoted(&text, needed_by->text, needed_by->length);
		}
		report(check, frame, keyword, frame->place, "%s", text.data);
		suggest(check, format_text(arena, "The schema requires%s%s: %s.",
								   frame->place ? " in " : "", place_text(arena, frame->place),
								   name_list(check, names, count)));
		if (check->stop_at_first)
			return false;
	}
	return good;
}

bool
check_required(Check *check, const Frame *frame, const Keyword *keyword)
{
	if (has_all(frame->instance, keyword->sorted, keyword->sorted_count))
		return true;
	if (check->stop_at_first && !is_wanted(check))
		return count_unseen(check);
	return report_lacking(check, frame, keyword, keyword->names, (int) keyword->count, NULL);
}

/* What the property of that name needs beside it. */
static bool
check_dependent_names(Check *check, const Frame *frame, const Keyword *keyword,
					  const PropertyName *name)
{
	return report_lacking(check, frame, keyword, name->names, name->count, name);
}

bool
check_dependent_required(Check *check, const Frame *frame, const Keyword *keyword)
{
	bool		good = true;

	for (uint32_t i = 0; i < keyword->count; i++)
	{
		const PropertyName *name = &keyword->names[i];
		JsonValue	value;

		if (!find_entry(frame->instance, name->text, name->length, &value))
			continue;
		good &= check_dependent_names(check, frame, keyword, name);
		if (!good && check->stop_at_first)
			return false;
	}
	return good;
}

/* Either may stand in the old dependencies. */
bool
check_dependent_schemas(Check *check, const Frame *frame, const Keyword *keyword)
{
	bool		good = true;

	for (uint32_t i = 0; i < keyword->count; i++)
	{
		const PropertyName *name = &keyword->names[i];
		JsonValue	value;

		if (!find_entry(frame->instance, name->text, name->length, &value))
			continue;
		if (name->schema != NULL)
			good &= check_schema(check, frame, name->schema);
		else
			good &= check_dependent_names(check, frame, keyword, name);
		if (!good && check->stop_at_first)
			return false;
	}
	return good;
}

bool
check_property_names(Check *check, const Frame *frame, const Keyword *keyword)
{
	Members		members;
	bool		good = true;

	begin_members(&members, frame->instance);
	while (next_member(&members))
	{
		Place		place = {frame->place, members.key.data, members.key.length, 0};

		good &= check_value(check, frame->scope, keyword->schemas[0], &members.key, &place);
		if (!good && (check->stop_at_first || check->run->failure != CHECK_DONE))
			return false;
	}
	return good;
}

bool
check_properties(Check *check, const Frame *frame, const Keyword *keyword)
{
	const PropertyName *names = keyword->names;
	uint32_t	at = 0;
	bool		good = true;
	Members		members;

	begin_members(&members, frame->instance);
	while (at < keyword->count && next_member(&members))
	{
		int			order = 1;

		while (at < keyword->count &&
			   (order = compare_keys(names[at].text, names[at].length,
									 members.key.data, members.key.length)) < 0)
			at++;
		if (order == 0)
		{
			Place		place = {frame->place, names[at].text, (uint32_t) names[at].length, 0};

			mark(frame, members.index);
			good &= check_value(check, frame->scope, names[at].schema, &members.value, &place);
			if (!good && (check->stop_at_first || check->run->failure != CHECK_DONE))
				return false;
			at++;
		}
	}
	return good;
}

bool
check_pattern_properties(Check *check, const Frame *frame, const Keyword *keyword)
{
	const Schema *schema = frame->schema;
	bool		good = true;
	Members		members;

	begin_members(&members, frame->instance);
	while (next_member(&members))
		for (int i = 0; i < schema->pattern_count; i++)
		{
			Place		place = {frame->place, members.key.data, members.key.length, 0};

			if (!pattern_matches(check->run, schema->patterns[i].pattern, members.key.data,
								 members.key.length))
				continue;
			mark(frame, members.index);
			good &= check_value(check, frame->scope, schema->patterns[i].schema, &members.value, &place);
			if (!good && (check->stop_at_first || check->run->failure != CHECK_DONE))
				return false;
		}
	return good;
}

/* The property of that name in "properties"; NULL: there is none. */
const PropertyName *
find_property(const Schema *schema, const char *key, size_t length)
{
	int			low = 0;
	int			high = schema->property_count;

	while (low < high)
	{
		int			middle = low + (high - low) / 2;
		const PropertyName *name = &schema->properties[middle];
		int			order = compare_keys(key, length, name->text, name->length);

		if (order == 0)
			return name;
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return NULL;
}

static bool
matches_some_pattern(Run *run, const Schema *schema, const JsonValue *key)
{
	for (int i = 0; i < schema->pattern_count; i++)
		if (pattern_matches(run, schema->patterns[i].pattern, key->data, key->length))
			return true;
	return false;
}

/* Reports a property that may not be there. */
static bool
report_unknown(Check *check, const Frame *frame, const Keyword *keyword, const Place *place)
{
	const Schema *schema = frame->schema;
	bool		wanted = is_wanted(check);

	report(check, frame, keyword, place, "is a property that the schema does not allow");
	if (wanted && schema->property_count > 0)
		suggest(check, format_text(check->run->arena, "The schema allows%s%s: %s.",
								   place->parent ? " in " : "",
								   place_text(check->run->arena, place->parent),
								   name_list(check, schema->properties, schema->property_count)));
	return false;
}

bool
check_additional_properties(Check *check, const Frame *frame, const Keyword *keyword)
{
	const Schema *additional = keyword->schemas[0];
	const Schema *schema = frame->schema;
	const PropertyName *names = schema->properties;
	int			at = 0;
	Members		members;
	bool		good = true;

	mark_all(frame);
	if (additional->keyword_count == 0 && !additional->is_false)
		return true;
	begin_members(&members, frame->instance);
	while (next_member(&members))
	{
		Place		place = {frame->place, members.key.data, members.key.length, 0};
		int			order = 1;

		while (at < schema->property_count &&
			   (order = compare_keys(names[at].text, names[at].length,
									 members.key.data, members.key.length)) < 0)
			at++;
		if ((at < schema->property_count && order == 0) ||
			(schema->pattern_count > 0 && matches_some_pattern(check->run, schema, &members.key)))
			continue;
		if (additional->is_false)
			good = report_unknown(check, frame, keyword, &place);
		else
			good &= check_value(check, frame->scope, additional, &members.value, &place);
		if (!good && (check->stop_at_first || check->run->failure != CHECK_DONE))
			return false;
	}
	return good;
}

bool
check_unevaluated_properties(Check *check, const Frame *frame, const Keyword *keyword)
{
	return check_unevaluated(check, frame, keyword, "a property");
}
