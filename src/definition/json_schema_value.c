/*
 * json_schema_value.c
 *	  JSON Schema: reading jsonb, and words for people.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "definition/json_schema.h"

#define SHOWN_BYTES			60	/* of one value */

static const JsonType type_names[] = {
	{"null", "null", TYPE_NULL},
	{"boolean", "a boolean", TYPE_BOOLEAN},
	{"object", "an object", TYPE_OBJECT},
	{"array", "an array", TYPE_ARRAY},
	{"number", "a number", TYPE_NUMBER},
	{"string", "a string", TYPE_STRING},
	{"integer", "an integer", TYPE_INTEGER},
};

/*
 * jsonb
 */

/* The whole as one value, scalars too. */
JsonbValue
root_value(Jsonb *jsonb)
{
	JsonbValue	value;

	if (JB_ROOT_IS_SCALAR(jsonb))
	{
		JsonbExtractScalar(&jsonb->root, &value);
		return value;
	}
	value.type = jbvBinary;
	value.val.binary.data = &jsonb->root;
	value.val.binary.len = VARSIZE(jsonb) - VARHDRSZ;
	return value;
}

int
type_of(const JsonbValue *value)
{
	switch (value->type)
	{
		case jbvNull:
			return TYPE_NULL;
		case jbvBool:
			return TYPE_BOOLEAN;
		case jbvNumeric:
			return TYPE_NUMBER;
		case jbvString:
			return TYPE_STRING;
		default:
			return JsonContainerIsObject(value->val.binary.data) ? TYPE_OBJECT : TYPE_ARRAY;
	}
}

void
begin_members(Members *members, const JsonbValue *container)
{
	members->iterator = JsonbIteratorInit(container->val.binary.data);
	members->index = -1;
	JsonbIteratorNext(&members->iterator, &members->value, true);
}

bool
next_member(Members *members)
{
	JsonbIteratorToken token = JsonbIteratorNext(&members->iterator, &members->key, true);

	if (token == WJB_KEY)
		JsonbIteratorNext(&members->iterator, &members->value, true);
	else if (token == WJB_ELEM)
		members->value = members->key;
	else
		return false;
	members->index++;
	return true;
}

/* Number of entries or elements. */
int
member_count(const JsonbValue *container)
{
	return JsonContainerSize(container->val.binary.data);
}

bool
find_entry(const JsonbValue *object, const char *key, int length, JsonbValue *value)
{
	return getKeyJsonValueFromContainer(object->val.binary.data, key, length, value) != NULL;
}

bool
is_integral(Numeric number)
{
	return DatumGetInt32(DirectFunctionCall1(numeric_scale, NumericGetDatum(number))) == 0 ||
		DatumGetInt32(DirectFunctionCall1(numeric_min_scale, NumericGetDatum(number))) == 0;
}

int
compare_numbers(Numeric a, Numeric b)
{
	return DatumGetInt32(DirectFunctionCall2(numeric_cmp, NumericGetDatum(a), NumericGetDatum(b)));
}

static bool
scalars_equal(const JsonbValue *a, const JsonbValue *b)
{
	if (a->type != b->type)
		return false;
	switch (a->type)
	{
		case jbvString:
			return a->val.string.len == b->val.string.len &&
				memcmp(a->val.string.val, b->val.string.val, a->val.string.len) == 0;
		case jbvNumeric:
			return compare_numbers(a->val.numeric, b->val.numeric) == 0;
		case jbvBool:
			return a->val.boolean == b->val.boolean;
		default:
			return true;
	}
}

/*
 * Equal as JSON Schema has it: numbers by value, objects whatever the order,
 * which jsonb has settled.  The server's own comparison would ask the locale
 * about every text.
 */
bool
values_equal(const JsonbValue *a, const JsonbValue *b)
{
	JsonbIterator *x;
	JsonbIterator *y;

	if (a->type != jbvBinary || b->type != jbvBinary)
		return scalars_equal(a, b);
	x = JsonbIteratorInit(a->val.binary.data);
	y = JsonbIteratorInit(b->val.binary.data);
	for (;;)
	{
		JsonbValue	in_a;
		JsonbValue	in_b;
		JsonbIteratorToken token = JsonbIteratorNext(&x, &in_a, false);

		CHECK_FOR_INTERRUPTS();
		if (JsonbIteratorNext(&y, &in_b, false) != token)
			return false;
		if (token == WJB_DONE)
			return true;
		if ((token == WJB_KEY || token == WJB_VALUE || token == WJB_ELEM) &&
			!scalars_equal(&in_a, &in_b))
			return false;
	}
}

/* Equal values have equal hashes. */
uint32
hash_value(const JsonbValue *value)
{
	uint32		hash = 0;
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	part;

	if (value->type != jbvBinary)
	{
		JsonbHashScalarValue(value, &hash);
		return hash;
	}
	iterator = JsonbIteratorInit(value->val.binary.data);
	while ((token = JsonbIteratorNext(&iterator, &part, false)) != WJB_DONE)
	{
		if (token == WJB_KEY || token == WJB_VALUE || token == WJB_ELEM)
			JsonbHashScalarValue(&part, &hash);
		else
			hash = hash_combine(hash, (uint32) token);
	}
	return hash;
}

/*
 * Words for people
 */

/* Appends text, shortened where it is long. */
static void
append_clipped(StringInfo out, const char *text)
{
	int			length = strlen(text);
	int			shown = length <= SHOWN_BYTES ? length : pg_mbcliplen(text, length, SHOWN_BYTES);

	appendBinaryStringInfo(out, text, shown);
	if (shown < length)
		appendStringInfoString(out, "...");
}

void
append_value(StringInfo out, JsonbValue *value)
{
	Jsonb	   *jsonb = JsonbValueToJsonb(value);

	append_clipped(out, JsonbToCString(NULL, &jsonb->root, VARSIZE(jsonb)));
}

char *
number_text(Numeric number)
{
	StringInfoData out;

	initStringInfo(&out);
	append_clipped(&out, DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(number))));
	return out.data;
}

/* Appends a part of a JSON Pointer. */
static void
append_pointer_part(StringInfo out, const char *part, int length)
{
	appendStringInfoChar(out, '/');
	for (int i = 0; i < length; i++)
	{
		if (part[i] == '~')
			appendStringInfoString(out, "~0");
		else if (part[i] == '/')
			appendStringInfoString(out, "~1");
		else
			appendStringInfoChar(out, part[i]);
	}
}

static void
append_place(StringInfo out, const Place *place)
{
	check_stack_depth();
	if (place == NULL)
		return;
	append_place(out, place->parent);
	if (place->key != NULL)
		append_pointer_part(out, place->key, place->length);
	else
		appendStringInfo(out, "/%d", place->index);
}

char *
place_text(const Place *place)
{
	StringInfoData out;

	initStringInfo(&out);
	append_place(&out, place);
	return out.data;
}

/* The way to a part of a schema, as a JSON Pointer. */
char *
pointer_text(const Step *path)
{
	StringInfoData out;
	List	   *steps = NIL;
	ListCell   *cell;

	for (; path != NULL; path = path->parent)
		steps = lcons(unconstify(char *, path->name), steps);
	initStringInfo(&out);
	foreach(cell, steps)
		append_pointer_part(&out, lfirst(cell), strlen(lfirst(cell)));
	list_free(steps);
	return out.data;
}

/* Names in one line; at most as many as a reader takes in. */
char *
name_list(const PropertyName *names, int count)
{
	StringInfoData out;

	initStringInfo(&out);
	for (int i = 0; i < count && i < SHOWN_NAMES; i++)
	{
		if (i > 0)
			appendStringInfoString(&out, ", ");
		append_clipped(&out, names[i].text);
	}
	if (count > SHOWN_NAMES)
		appendStringInfo(&out, " and %d more", count - SHOWN_NAMES);
	return out.data;
}

/* Names of types: "integer or null". */
char *
type_list(int types)
{
	StringInfoData out;
	int			left = types;

	initStringInfo(&out);
	for (int i = 0; i < lengthof(type_names); i++)
	{
		if (!(types & type_names[i].bit))
			continue;
		left &= ~type_names[i].bit;
		if (out.len > 0)
			appendStringInfoString(&out, left == 0 ? " or " : ", ");
		appendStringInfoString(&out, type_names[i].name);
	}
	return out.data;
}

/* A type by its name; NULL: no such type. */
const JsonType *
find_type(const JsonbValue *value)
{
	for (int i = 0; i < lengthof(type_names); i++)
		if (value->type == jbvString &&
			strlen(type_names[i].name) == value->val.string.len &&
			memcmp(type_names[i].name, value->val.string.val, value->val.string.len) == 0)
			return &type_names[i];
	return NULL;
}

/* What an instance of the wrong type is: "a string", "the number 1.5". */
const char *
describe(const JsonbValue *instance)
{
	if (instance->type == jbvNumeric)
		return psprintf("the number %s", number_text(instance->val.numeric));
	for (int i = 0; i < lengthof(type_names); i++)
		if (type_names[i].bit == type_of(instance))
			return type_names[i].described;
	return "";
}
