/*
 * json_schema_check.c
 *	  JSON Schema: does an instance satisfy a schema, and if not, why?
 *
 * A check counts its steps, so that a schema that makes it take for ever ends in
 * an error; and its levels, so that none overflows the stack.
 */
#include "definition/json_schema_internal.h"

#define STEPS_A_PAUSE		4096
#define LEAST_STEPS			1000000
#define STEPS_A_BYTE		100		/* of the instance */

/*
 * Limits
 */

/* The slow part of spend(). */
bool
pause_run(Run *run)
{
	host_pause();
	run->pause = run->steps - STEPS_A_PAUSE;
	if (run->steps > 0)
		return true;
	if (run->failure == CHECK_DONE)
		run->failure = CHECK_TOO_LONG;
	return false;
}

/*
 * Problems
 */

/* Is there room for one more problem, so that it pays to describe it? */
bool
is_wanted(const Check *check)
{
	return check->noted < check->keep;
}

/* Counts a problem that nobody wants to read; false, to return it. */
bool
count_unseen(Check *check)
{
	check->count++;
	return false;
}

const char *
place_text(void *arena, const Place *place)
{
	const Place **places;
	int			depth = 0;
	Text		text;

	for (const Place *at = place; at != NULL; at = at->parent)
		depth++;
	places = host_alloc(arena, (depth + 1) * sizeof(Place *));
	for (int i = depth; i > 0; place = place->parent)
		places[--i] = place;
	text_begin(&text, arena);
	for (int i = 0; i < depth; i++)
	{
		if (places[i]->key != NULL)
			append_pointer_part(&text, places[i]->key, places[i]->length);
		else
			text_printf(&text, "/%u", places[i]->index);
	}
	return text.data;
}

/* Where a keyword stands: in another document, with that one's URI. */
static const char *
keyword_place(void *arena, const Schema *schema, const Keyword *keyword)
{
	const Document *document = schema->resource->document;

	return format_text(arena, "%s%s%s%s%s", document->is_root ? "" : document->uri,
					   document->is_root ? "" : "#", pointer_text(arena, schema->path),
					   keyword ? "/" : "", keyword ? keyword->rule->name : "");
}

/* Notes that the instance is not what the schema says; false, to return it. */
bool
report(Check *check, const Frame *frame, const Keyword *keyword, const Place *place,
	   const char *format,...)
{
	void	   *arena = check->run->arena;
	Problem    *problem;
	Text		message;
	va_list		args;

	check->count++;
	if (check->noted >= check->keep)
		return false;
	check->noted++;
	text_begin(&message, arena);
	va_start(args, format);
	text_vprintf(&message, format, args);
	va_end(args);
	problem = host_alloc(arena, sizeof(Problem));
	problem->next = NULL;
	problem->instance_path = place_text(arena, place);
	problem->schema_path = keyword_place(arena, frame->schema, keyword);
	problem->message = message.data;
	problem->hint = NULL;
	if (check->last == NULL)
		check->problems = problem;
	else
		check->last->next = problem;
	check->last = problem;
	spend(check->run, 16 + strlen(problem->instance_path) + strlen(problem->schema_path));
	return false;
}

/* Adds to the last problem what may help; false, to return it. */
bool
suggest(Check *check, const char *hint)
{
	check->last->hint = hint;
	return false;
}

/* Names in one line; at most as many as a reader takes in. */
const char *
name_list(Check *check, const PropertyName *names, int count)
{
	Text		text;

	text_begin(&text, check->run->arena);
	for (int i = 0; i < count && i < SHOWN_NAMES; i++)
	{
		if (i > 0)
			text_string(&text, ", ");
		append_clipped(&text, check->run->program->utf8, names[i].text, names[i].length);
	}
	if (count > SHOWN_NAMES)
		text_printf(&text, " and %d more", count - SHOWN_NAMES);
	return text.data;
}

/*
 * Marks of what was looked at
 */

/* Marks of so many members that they are not kept on the stack. */
void
begin_many_evaluated(Run *run, Evaluated *evaluated)
{
	size_t		words = (evaluated->count + 63) / 64;

	evaluated->words = host_alloc(run->arena, words * sizeof(uint64_t));
	spend(run, words);
	memset(evaluated->words, 0, words * sizeof(uint64_t));
}

/* Was every member looked at? */
bool
are_all_evaluated(const Evaluated *evaluated)
{
	uint32_t	count = evaluated->count;
	uint32_t	i = 0;

	if (evaluated->all)
		return true;
	for (; count >= 64; count -= 64)
		if (evaluated->words[i++] != UINT64_MAX)
			return false;
	return count == 0 || evaluated->words[i] == (UINT64_C(1) << count) - 1;
}

void
merge_evaluated(Evaluated *to, const Evaluated *from)
{
	to->all |= from->all;
	for (uint32_t i = 0; i < (from->count + 63) / 64; i++)
		to->words[i] |= from->words[i];
}

/*
 * Any instance
 */

static const char *
describe(const Check *check, const JsonValue *value)
{
	return schema_describe(check->run->arena, value);
}

/* Would the text be right if it stood there without quotes? */
static bool
is_quoted_by_mistake(const JsonValue *instance, int types)
{
	if (instance->type != TYPE_STRING || instance->length == 0 || instance->length > 20)
		return false;
	if (types & (TYPE_INTEGER | TYPE_NUMBER))
	{
		for (uint32_t i = 0; i < instance->length; i++)
			if (instance->data[i] < '0' || instance->data[i] > '9')
				return false;
		return true;
	}
	return (types & TYPE_BOOLEAN) && (text_is(instance, "true") || text_is(instance, "false"));
}

bool
check_type(Check *check, const Frame *frame, const Keyword *keyword)
{
	const JsonValue *instance = frame->instance;

	if (keyword->allowed & instance->type)
		return true;
	if ((keyword->allowed & TYPE_INTEGER) && instance->type == TYPE_NUMBER && is_integral(instance))
		return true;
	if (!is_wanted(check))
		return count_unseen(check);
	report(check, frame, keyword, frame->place, "is %s, but must be %s", describe(check, instance),
		   type_list(check->run->arena, keyword->allowed));
	if (is_quoted_by_mistake(instance, keyword->allowed))
		suggest(check, format_text(check->run->arena, "Write the value of %s without quotes.",
								   place_text(check->run->arena, frame->place)));
	return false;
}

/* In an enum with a table. */
bool
is_in_table(Run *run, const Keyword *keyword, const JsonValue *instance)
{
	const EnumTable *table = keyword->table;
	uint64_t	hash = hash_value(instance, &run->steps);

	for (int slot = hash & (table->size - 1); table->slots[slot] >= 0;
		 slot = (slot + 1) & (table->size - 1))
	{
		int			index = table->slots[slot];

		if (!spend(run, 1))
			return false;
		if (table->hashes[index] == hash &&
			values_equal(&keyword->values[index], instance, &run->steps))
			return true;
	}
	return false;
}

static bool
is_in_list(Run *run, const Keyword *keyword, const JsonValue *instance)
{
	for (uint32_t i = 0; i < keyword->count; i++)
	{
		const JsonValue *value = &keyword->values[i];

		if (value->type != instance->type)
			continue;
		if (value->type == TYPE_STRING ? value->length == instance->length &&
			same_bytes(value->data, instance->data, value->length) :
			values_equal(value, instance, &run->steps))
			return true;
	}
	return false;
}

bool
check_enum(Check *check, const Frame *frame, const Keyword *keyword)
{
	Run		   *run = check->run;
	Text		list;

	if (keyword->table ? is_in_table(run, keyword, frame->instance) :
		is_in_list(run, keyword, frame->instance))
		return true;
	if (!is_wanted(check))
		return count_unseen(check);
	text_begin(&list, run->arena);
	for (uint32_t i = 0; i < keyword->count && i < SHOWN_NAMES; i++)
	{
		text_string(&list, i > 0 ? ", " : "");
		append_value(&list, run->program->utf8, &keyword->values[i]);
	}
	if (keyword->count > SHOWN_NAMES)
		text_string(&list, ", ...");
	return report(check, frame, keyword, frame->place, "is none of the allowed values: %s",
				  list.data);
}

bool
check_const(Check *check, const Frame *frame, const Keyword *keyword)
{
	Text		text;

	if (values_equal(&keyword->value, frame->instance, &check->run->steps))
		return true;
	if (!is_wanted(check))
		return count_unseen(check);
	text_begin(&text, check->run->arena);
	append_value(&text, check->run->program->utf8, &keyword->value);
	return report(check, frame, keyword, frame->place, "must be %s", text.data);
}

/*
 * Numbers
 */

static int
compare_to_bound(const Frame *frame, const Keyword *keyword)
{
	int64_t		value;

	if (keyword->is_small && small_integer(frame->instance, &value))
		return (value > keyword->small) - (value < keyword->small);
	return compare_numbers(frame->instance, &keyword->number);
}

/* Reports a number beyond a bound. */
static bool
report_number(Check *check, const Frame *frame, const Keyword *keyword, const char *relation)
{
	void	   *arena = check->run->arena;

	if (!is_wanted(check))
		return count_unseen(check);
	return report(check, frame, keyword, frame->place, "is %s, but must be %s %s",
				  number_text(arena, frame->instance), relation,
				  number_text(arena, &keyword->number));
}

bool
check_minimum(Check *check, const Frame *frame, const Keyword *keyword)
{
	return compare_to_bound(frame, keyword) >= 0 ||
		report_number(check, frame, keyword, "at least");
}

bool
check_maximum(Check *check, const Frame *frame, const Keyword *keyword)
{
	return compare_to_bound(frame, keyword) <= 0 ||
		report_number(check, frame, keyword, "at most");
}

bool
check_exclusive_minimum(Check *check, const Frame *frame, const Keyword *keyword)
{
	return compare_to_bound(frame, keyword) > 0 ||
		report_number(check, frame, keyword, "greater than");
}

bool
check_exclusive_maximum(Check *check, const Frame *frame, const Keyword *keyword)
{
	return compare_to_bound(frame, keyword) < 0 ||
		report_number(check, frame, keyword, "less than");
}

bool
check_multiple_of(Check *check, const Frame *frame, const Keyword *keyword)
{
	int64_t		value;

	if (keyword->is_small && small_integer(frame->instance, &value))
	{
		if (value % keyword->small == 0)
			return true;
	}
	else if (!spend(check->run, frame->instance->length / 8) ||
			 is_multiple(frame->instance, &keyword->number))
		return true;
	return report_number(check, frame, keyword, "a multiple of");
}

/*
 * Strings
 */

static uint32_t
characters(const Check *check, const JsonValue *instance)
{
	spend(check->run, instance->length / 64);
	return (uint32_t) count_characters(check->run->program->utf8, instance->data, instance->length);
}

static bool
report_length(Check *check, const Frame *frame, const Keyword *keyword, const char *relation)
{
	uint32_t	count = characters(check, frame->instance);

	return report(check, frame, keyword, frame->place, "has %u %s, but must have %s %u", count,
				  count == 1 ? "character" : "characters", relation, keyword->count);
}

/* A character has one to four bytes, which often says enough. */
bool
check_min_length(Check *check, const Frame *frame, const Keyword *keyword)
{
	uint32_t	length = frame->instance->length;

	if (length / 4 >= keyword->count ||
		(length >= keyword->count && characters(check, frame->instance) >= keyword->count))
		return true;
	return report_length(check, frame, keyword, "at least");
}

bool
check_max_length(Check *check, const Frame *frame, const Keyword *keyword)
{
	uint32_t	length = frame->instance->length;

	if (length <= keyword->count || characters(check, frame->instance) <= keyword->count)
		return true;
	return report_length(check, frame, keyword, "at most");
}

bool
check_pattern(Check *check, const Frame *frame, const Keyword *keyword)
{
	return pattern_matches(check->run, keyword->pattern, frame->instance->data,
						   frame->instance->length) ||
		report(check, frame, keyword, frame->place, "does not match the pattern %.*s",
			   (int) keyword->value.length, keyword->value.data);
}

bool
check_format(Check *check, const Frame *frame, const Keyword *keyword)
{
	const char *text = frame->instance->data;
	size_t		length = frame->instance->length;

	spend(check->run, length / 8);
	return (keyword->format->check ? keyword->format->check(text, length) :
			pattern_is_valid(check->run->arena, check->run->program->utf8, text, length)) ||
		report(check, frame, keyword, frame->place, "is not %s", keyword->format->described);
}

/* Text that is said to be base64, JSON, or JSON in base64. */
bool
check_content(Check *check, const Frame *frame, const Keyword *keyword)
{
	const char *text = frame->instance->data;
	size_t		length = frame->instance->length;

	spend(check->run, length);
	if (keyword->encoded)
	{
		char	   *decoded;

		if (!is_base64(text, length))
			return keyword->json ||
				report(check, frame, keyword, frame->place, "is not in base64");
		if (!keyword->json)
			return true;
		decoded = host_alloc(check->run->arena, length + 1);
		length = decode_base64(text, length, decoded);
		text = decoded;
	}
	return is_json(text, length) ||
		report(check, frame, keyword, frame->place, "does not contain JSON");
}

/*
 * Schemas of schemas
 */

/*
 * A reference that comes back to where it was, with the same instance, would go
 * on for ever.
 */
static bool
is_circular(const Frame *frame, const Schema *target)
{
	for (const Frame *at = frame; at != NULL; at = at->parent)
		if (at->schema == target)
			return true;
	return false;
}

static bool
follow(Check *check, const Frame *frame, const Keyword *keyword, const Schema *target)
{
	if (is_circular(frame, target))
	{
		check->run->failure = CHECK_CIRCULAR;
		check->run->failed_at = keyword_place(check->run->arena, frame->schema, keyword);
		return false;
	}
	return check_schema(check, frame, target);
}

bool
check_ref(Check *check, const Frame *frame, const Keyword *keyword)
{
	return follow(check, frame, keyword, keyword->schemas[0]);
}

/* The first resource that was entered and has the anchor decides. */
bool
check_dynamic_ref(Check *check, const Frame *frame, const Keyword *keyword)
{
	const Schema *target = keyword->schemas[0];
	size_t		length = strlen(keyword->text);

	for (const Scope *scope = frame->scope; scope != NULL; scope = scope->parent)
	{
		const Schema *found = map_get(&scope->resource->dynamic_anchors, keyword->text, length);

		if (!spend(check->run, 1))
			return false;
		if (found != NULL)
			target = found;
	}
	return follow(check, frame, keyword, target);
}

bool
check_all_of(Check *check, const Frame *frame, const Keyword *keyword)
{
	bool		good = true;

	for (uint32_t i = 0; i < keyword->count; i++)
	{
		good &= check_schema(check, frame, keyword->schemas[i]);
		if (!good && check->stop_at_first)
			return false;
	}
	return good;
}

/*
 * Tries a schema, whose failure is no problem.  What it looked at counts if it is
 * satisfied.
 */
static bool
try_schema(Check *check, const Frame *frame, const Schema *schema, Check *branch)
{
	Frame		inner;
	Evaluated	evaluated;
	bool		good;

	branch->run = check->run;
	branch->stop_at_first = true;
	if (frame->evaluated == NULL)
		return check_schema(branch, frame, schema);
	inner = *frame;
	begin_evaluated(check->run, &evaluated, frame->instance);
	inner.evaluated = &evaluated;
	good = check_schema(branch, &inner, schema);
	if (good)
		merge_evaluated(frame->evaluated, &evaluated);
	return good;
}

/* Why a branch fails.  Its first problem is enough, and more would make nested branches cost more and more. */
static void
add_reason(const Check *check, const Frame *frame, const Problem *problem, uint32_t number,
		   Text *reasons)
{
	if (reasons->arena == NULL)
		text_begin(reasons, check->run->arena);
	text_printf(reasons, "%s%u: ", reasons->length > 0 ? "; " : "", number);
	if (strlen(problem->instance_path) > strlen(place_text(check->run->arena, frame->place)))
		text_printf(reasons, "%s ", problem->instance_path);
	text_string(reasons, problem->message);
}

/* Where it fails, and somebody wants to read it, says why. */
static bool
try_and_explain(Check *check, const Frame *frame, const Schema *schema, uint32_t number,
				Text *reasons)
{
	Check		branch = {.keep = is_wanted(check) && number < SHOWN_NAMES ? 1 : 0};

	if (try_schema(check, frame, schema, &branch))
		return true;
	if (branch.problems != NULL)
		add_reason(check, frame, branch.problems, number, reasons);
	return false;
}

static bool
try_branch(Check *check, const Frame *frame, const Keyword *keyword, uint32_t number,
		   Text *reasons)
{
	const Schema *schema = keyword->schemas[number];

	return wants_verdict(check) ? try_schema(check, frame, schema, check) :
		try_and_explain(check, frame, schema, number, reasons);
}

bool
check_any_of(Check *check, const Frame *frame, const Keyword *keyword)
{
	Text		reasons = {NULL};
	bool		good = false;

	for (uint32_t i = 0; i < keyword->count; i++)
	{
		good |= try_branch(check, frame, keyword, i, &reasons);
		/* Each branch that is satisfied says what it looked at. */
		if (good && frame->evaluated == NULL)
			return true;
	}
	return good || report(check, frame, keyword, frame->place, "satisfies no schema of anyOf (%s)",
						  reasons.arena ? reasons.data : "");
}

bool
check_one_of(Check *check, const Frame *frame, const Keyword *keyword)
{
	Text		reasons = {NULL};
	int64_t		satisfied = -1;

	for (uint32_t i = 0; i < keyword->count; i++)
	{
		if (!try_branch(check, frame, keyword, i, &reasons))
			continue;
		if (satisfied >= 0)
			return report(check, frame, keyword, frame->place,
						  "satisfies more than one schema of oneOf: %d and %u", (int) satisfied, i);
		satisfied = i;
	}
	return satisfied >= 0 ||
		report(check, frame, keyword, frame->place, "satisfies no schema of oneOf (%s)",
			   reasons.arena ? reasons.data : "");
}

bool
check_not(Check *check, const Frame *frame, const Keyword *keyword)
{
	Check		branch = {.keep = 0};
	Frame		inner = *frame;

	inner.evaluated = NULL;
	return !try_schema(check, &inner, keyword->schemas[0], &branch) ||
		report(check, frame, keyword, frame->place, "satisfies the schema of not");
}

bool
check_if(Check *check, const Frame *frame, const Keyword *keyword)
{
	Check		branch = {.keep = 0};
	bool		holds = try_schema(check, frame, keyword->schemas[0], &branch);
	const Schema *next = keyword->schemas[holds ? 1 : 2];

	return next == NULL || check_schema(check, frame, next);
}

/*
 * Schemas
 */

static bool
check_keywords(Check *check, const Frame *frame)
{
	const Schema *schema = frame->schema;
	int			type = frame->instance->type;
	bool		type_is_right = (schema->allowed & type) != 0 ||
		((schema->allowed & TYPE_INTEGER) && type == TYPE_NUMBER && is_integral(frame->instance));
	bool		walks = type == TYPE_OBJECT && schema->walk != NULL && wants_verdict(check);
	bool		good = true;

	if (walks && !((schema->allowed == 0 || type_is_right) &&
				   walk_object(check, frame->scope, frame->evaluated, schema->walk,
							   frame->instance->data)))
		return count_unseen(check);
	for (int i = type_is_right; i < schema->keyword_count; i++)
	{
		const Keyword *keyword = &schema->keywords[i];

		if (!(keyword->types & type) || (walks && keyword->in_walk))
			continue;
		/* What was looked at is known only where the rest is right. */
		if (!good && keyword->rule->vocabulary == VOCABULARY_UNEVALUATED)
			break;
		if (keyword->check(check, frame, keyword))
			continue;
		good = false;
		if (check->stop_at_first || check->run->failure != CHECK_DONE)
			return false;
	}
	return good;
}

/*
 * With marks of its own: what its neighbours looked at does not count for it.  Not
 * inlined, so that only who needs the marks pays for their place on the stack.
 */
static bool __attribute__((noinline))
check_tracking(Check *check, Frame *frame)
{
	Evaluated	evaluated;
	Evaluated  *outer = frame->evaluated;
	bool		good;

	begin_evaluated(check->run, &evaluated, frame->instance);
	frame->evaluated = &evaluated;
	good = check_keywords(check, frame);
	if (good && outer != NULL)
		merge_evaluated(outer, &evaluated);
	return good;
}

/* Not inlined, so that only who needs the frame has it made. */
static bool __attribute__((noinline))
check_by_keywords(Check *check, const Frame *parent, const Schema *schema, const JsonValue *instance,
				  const Place *place, const Scope *scope, Evaluated *evaluated)
{
	Frame		frame = {parent, schema, instance, place, scope, evaluated};

	if (schema->is_false)
		return report(check, &frame, NULL, place, "is not allowed here");
	if (schema->tracks && (instance->type & (TYPE_OBJECT | TYPE_ARRAY)))
		return check_tracking(check, &frame);
	return check_keywords(check, &frame);
}

/* Checks the instance of the frame by one more schema. */
bool
check_schema(Check *check, const Frame *frame, const Schema *schema)
{
	Run		   *run = check->run;
	const Scope own = {frame->scope, schema->resource};
	const Scope *scope = frame->scope;
	Answer		answer = ANSWER_ASK;
	bool		good;

	if (!spend(run, 1 + schema->keyword_count) || !enter(run))
		return false;
	if (scope == NULL || scope->resource != schema->resource)
		scope = &own;
	if (wants_verdict(check))
		answer = quick_answer(check, scope, frame->evaluated, schema, frame->instance);
	good = answer != ANSWER_ASK ? answer == ANSWER_YES :
		check_by_keywords(check, frame, schema, frame->instance, frame->place, scope,
						  frame->evaluated);
	run->depth--;
	return good && run->failure == CHECK_DONE;
}

/* Checks a part of an instance; within one that has no parts it gets no deeper. */
bool
check_value(Check *check, const Scope *scope, const Schema *schema, const JsonValue *value,
			const Place *place)
{
	Run		   *run = check->run;
	const Scope own = {scope, schema->resource};
	bool		has_parts = (value->type & (TYPE_OBJECT | TYPE_ARRAY)) != 0;
	Answer		answer = ANSWER_ASK;
	bool		good;

	/* Many have nothing to say but the type. */
	if (schema->keyword_count == ((schema->allowed & value->type) != 0) && !schema->is_false)
		return spend(run, 1);
	if (!spend(run, 1 + schema->keyword_count) || (has_parts && !enter(run)))
		return false;
	if (scope->resource != schema->resource)
		scope = &own;
	if (wants_verdict(check))
		answer = quick_answer(check, scope, NULL, schema, value);
	good = answer != ANSWER_ASK ? answer == ANSWER_YES :
		check_by_keywords(check, NULL, schema, value, place, scope, NULL);
	run->depth -= has_parts;
	return good && run->failure == CHECK_DONE;
}

CheckResult
schema_check(const Program *program, const JsonValue *instance, void *arena, int keep)
{
	Run			run = {.program = program,.arena = arena};
	Check		check = {.run = &run,.stop_at_first = keep == 0,.keep = keep};
	Frame		frame = {.instance = instance};
	CheckResult result;

	run.steps = LEAST_STEPS + STEPS_A_BYTE * (int64_t) instance->length;
	run.pause = run.steps - STEPS_A_PAUSE;
	result.valid = check_schema(&check, &frame, program->root);
	if (run.steps <= 0 && run.failure == CHECK_DONE)
		run.failure = CHECK_TOO_LONG;
	result.failure = run.failure;
	result.failed_at = run.failed_at;
	result.count = check.count;
	result.problems = check.problems;
	return result;
}
