/*
 * payload.c
 *	  Puts the payload of an event together, in one pass.
 *
 * jsonb_build_object(), jsonb_strip_nulls() and || do the same, and take twice
 * as long: each of them takes the object apart and makes it anew.
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/json.h"
#include "utils/jsonb.h"

#include "event/payload.h"

PG_FUNCTION_INFO_V1(tasker_payload);

#define PAIRS_FROM	2			/* arguments before those that come in pairs */

/*
 * The arguments' types, found once for a call site.
 */
static Oid *
arg_types(FunctionCallInfo fcinfo)
{
	Oid		   *types = fcinfo->flinfo->fn_extra;

	if (types != NULL)
		return types;
	if (get_fn_expr_variadic(fcinfo->flinfo) || (PG_NARGS() - PAIRS_FROM) % 2 != 0)
		elog(ERROR, "a payload is made of keys and values");
	types = MemoryContextAlloc(fcinfo->flinfo->fn_mcxt, PG_NARGS() * sizeof(Oid));
	for (int i = 0; i < PG_NARGS(); i++)
		types[i] = get_fn_expr_argtype(fcinfo->flinfo, i);
	fcinfo->flinfo->fn_extra = types;
	return types;
}

/* The keys of a payload, and which of its pairs come in which order. */
typedef struct Shape
{
	int			put;
	const char **keys;			/* as they were put */
	int			kept;
	int		   *order;			/* numbers of pairs, sorted by key */
} Shape;

static void
set_string(JsonbValue *value, char *text, int length)
{
	value->type = jbvString;
	value->val.string.val = text;
	value->val.string.len = length;
}

static void
set_text(JsonbValue *value, Datum datum)
{
	text	   *string = DatumGetTextPP(datum);

	set_string(value, VARDATA_ANY(string), VARSIZE_ANY_EXHDR(string));
}

static void
set_number(JsonbValue *value, Numeric number)
{
	value->type = jbvNumeric;
	value->val.numeric = number;
}

static void
set_texts(JsonbValue *value, ArrayType *array)
{
	JsonbParseState *state = NULL;
	Datum	   *texts;
	bool	   *nulls;
	int			count;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &texts, &nulls, &count);
	pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	for (int i = 0; i < count; i++)
	{
		JsonbValue	element;

		if (nulls[i])
			continue;
		set_text(&element, texts[i]);
		pushJsonbValue(&state, WJB_ELEM, &element);
	}
	*value = *pushJsonbValue(&state, WJB_END_ARRAY, NULL);
}

/* What is pushed as a whole is taken apart, as a tree that is built by hand has to be. */
static void
set_jsonb(JsonbValue *value, Jsonb *jsonb)
{
	JsonbParseState *state = NULL;

	if (JB_ROOT_IS_SCALAR(jsonb))
	{
		JsonbExtractScalar(&jsonb->root, value);
		return;
	}
	value->type = jbvBinary;
	value->val.binary.data = &jsonb->root;
	value->val.binary.len = VARSIZE_ANY_EXHDR(jsonb);
	*value = *pushJsonbValue(&state, WJB_VALUE, value);
}

static void
set_value(JsonbValue *value, Oid type, Datum datum)
{
	static const int utc = 0;
	char		time[MAXDATELEN + 1];

	switch (type)
	{
		case UNKNOWNOID:
			set_string(value, DatumGetCString(datum), strlen(DatumGetCString(datum)));
			break;
		case TEXTOID:
			set_text(value, datum);
			break;
		case TEXTARRAYOID:
			set_texts(value, DatumGetArrayTypeP(datum));
			break;
		case INT2OID:
			set_number(value, int64_to_numeric(DatumGetInt16(datum)));
			break;
		case INT4OID:
			set_number(value, int64_to_numeric(DatumGetInt32(datum)));
			break;
		case INT8OID:
			set_number(value, int64_to_numeric(DatumGetInt64(datum)));
			break;
		case NUMERICOID:
			set_number(value, DatumGetNumeric(datum));
			break;
		case BOOLOID:
			value->type = jbvBool;
			value->val.boolean = DatumGetBool(datum);
			break;
		case TIMESTAMPTZOID:
			JsonEncodeDateTime(time, datum, TIMESTAMPTZOID, &utc);
			set_string(value, pstrdup(time), strlen(time));
			break;
		case JSONBOID:
			set_jsonb(value, DatumGetJsonbP(datum));
			break;
		default:
			elog(ERROR, "type %u has no place in a payload", type);
	}
}

static JsonbPair *
add_pair(Payload *payload)
{
	if (payload->count == payload->space)
	{
		payload->space = Max(payload->space * 2, 32);
		payload->pairs = payload->pairs == NULL ?
			palloc(payload->space * sizeof(JsonbPair)) :
			repalloc(payload->pairs, payload->space * sizeof(JsonbPair));
	}
	return &payload->pairs[payload->count++];
}

/* A pair whose key stays where it is as long as the payload is made. */
static void
put_pair(Payload *payload, const char *key, int key_length, Oid type, Datum value)
{
	JsonbPair  *pair = add_pair(payload);

	/* It is only read. */
	set_string(&pair->key, unconstify(char *, key), key_length);
	set_value(&pair->value, type, value);
}

void
payload_put(Payload *payload, const char *key, Oid type, Datum value)
{
	put_pair(payload, key, strlen(key), type, value);
}

void
payload_put_object(Payload *payload, Jsonb *object)
{
	JsonbIterator *it;
	JsonbValue	value;

	payload->is_foreign = true;
	if (!JB_ROOT_IS_OBJECT(object))
		return;
	it = JsonbIteratorInit(&object->root);
	(void) JsonbIteratorNext(&it, &value, false);
	while (JsonbIteratorNext(&it, &value, true) == WJB_KEY)
	{
		JsonbPair  *pair = add_pair(payload);

		pair->key = value;
		(void) JsonbIteratorNext(&it, &pair->value, true);
		if (pair->value.type == jbvBinary)
		{
			JsonbParseState *state = NULL;

			pair->value = *pushJsonbValue(&state, WJB_VALUE, &pair->value);
		}
	}
}

/* As keys of an object have to be sorted; of equal ones, the last that was put comes first. */
static int
compare_pairs(const void *a, const void *b, void *arg)
{
	int			x = *(const int *) a;
	int			y = *(const int *) b;
	const JsonbPair *pairs = arg;
	const JsonbValue *left = &pairs[x].key;
	const JsonbValue *right = &pairs[y].key;
	int			order = left->val.string.len - right->val.string.len;

	if (order == 0)
		order = memcmp(left->val.string.val, right->val.string.val, left->val.string.len);
	return order != 0 ? order : y - x;
}

static bool
same_key(const JsonbPair *a, const JsonbPair *b)
{
	return a->key.val.string.len == b->key.val.string.len &&
		memcmp(a->key.val.string.val, b->key.val.string.val, a->key.val.string.len) == 0;
}

static Shape *
make_shape(const Payload *payload, MemoryContext context)
{
	Shape	   *shape = MemoryContextAlloc(context, sizeof(Shape));

	shape->put = payload->count;
	shape->kept = 0;
	shape->order = MemoryContextAlloc(context, (payload->count + 1) * sizeof(int));
	shape->keys = MemoryContextAlloc(context, (payload->count + 1) * sizeof(char *));
	for (int i = 0; i < payload->count; i++)
	{
		shape->order[i] = i;
		shape->keys[i] = payload->pairs[i].key.val.string.val;
	}
	qsort_arg(shape->order, payload->count, sizeof(int), compare_pairs, payload->pairs);
	for (int i = 0; i < payload->count; i++)
		if (i == 0 || !same_key(&payload->pairs[shape->order[i]],
								&payload->pairs[shape->order[shape->kept - 1]]))
			shape->order[shape->kept++] = shape->order[i];
	return shape;
}

static bool
has_shape(const Payload *payload, const Shape *shape)
{
	if (shape->put != payload->count)
		return false;
	for (int i = 0; i < payload->count; i++)
		if (shape->keys[i] != payload->pairs[i].key.val.string.val)
			return false;
	return true;
}

static Shape *
find_shape(const Payload *payload, PayloadShapes *shapes)
{
	ListCell   *cell;
	Shape	   *shape;
	MemoryContext before;

	foreach(cell, shapes->shapes)
		if (has_shape(payload, lfirst(cell)))
			return lfirst(cell);
	shape = make_shape(payload, shapes->context);
	before = MemoryContextSwitchTo(shapes->context);
	shapes->shapes = lappend(shapes->shapes, shape);
	MemoryContextSwitchTo(before);
	return shape;
}

Jsonb *
payload_end(Payload *payload, PayloadShapes *shapes)
{
	Shape	   *shape = shapes == NULL || payload->is_foreign ?
		make_shape(payload, CurrentMemoryContext) : find_shape(payload, shapes);
	JsonbValue	object;

	object.type = jbvObject;
	object.val.object.nPairs = shape->kept;
	object.val.object.pairs = palloc((shape->kept + 1) * sizeof(JsonbPair));
	for (int i = 0; i < shape->kept; i++)
		object.val.object.pairs[i] = payload->pairs[shape->order[i]];
	return JsonbValueToJsonb(&object);
}

/*
 * tasker._payload(base jsonb, facts jsonb, VARIADIC pairs "any")
 */
Datum
tasker_payload(PG_FUNCTION_ARGS)
{
	Oid		   *types = arg_types(fcinfo);
	Payload		payload = {0};

	for (int i = 0; i < PAIRS_FROM; i++)
		if (!PG_ARGISNULL(i))
			payload_put_object(&payload, PG_GETARG_JSONB_P(i));
	for (int i = PAIRS_FROM; i < PG_NARGS(); i += 2)
	{
		Datum		key = PG_GETARG_DATUM(i);

		if (PG_ARGISNULL(i) || PG_ARGISNULL(i + 1))
			continue;
		if (types[i] == UNKNOWNOID)
			put_pair(&payload, DatumGetCString(key), strlen(DatumGetCString(key)),
					 types[i + 1], PG_GETARG_DATUM(i + 1));
		else
			put_pair(&payload, VARDATA_ANY(DatumGetTextPP(key)), VARSIZE_ANY_EXHDR(DatumGetTextPP(key)),
					 types[i + 1], PG_GETARG_DATUM(i + 1));
	}
	PG_RETURN_JSONB_P(payload_end(&payload, NULL));
}
