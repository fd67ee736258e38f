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

#include "state/state.h"

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

static void
push_string(JsonbParseState **state, JsonbIteratorToken token, char *text, int length)
{
	JsonbValue	value = {.type = jbvString};

	value.val.string.val = text;
	value.val.string.len = length;
	pushJsonbValue(state, token, &value);
}

static void
push_text(JsonbParseState **state, JsonbIteratorToken token, Datum datum)
{
	text	   *string = DatumGetTextPP(datum);

	push_string(state, token, VARDATA_ANY(string), VARSIZE_ANY_EXHDR(string));
}

/*
 * The pairs of an object; of one key, what is pushed last stays.
 */
static void
push_object(JsonbParseState **state, Jsonb *object)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	value;

	if (!JB_ROOT_IS_OBJECT(object))
		return;
	it = JsonbIteratorInit(&object->root);
	token = JsonbIteratorNext(&it, &value, false);
	while ((token = JsonbIteratorNext(&it, &value, true)) == WJB_KEY)
	{
		pushJsonbValue(state, WJB_KEY, &value);
		token = JsonbIteratorNext(&it, &value, true);
		pushJsonbValue(state, WJB_VALUE, &value);
	}
}

static void
push_number(JsonbParseState **state, Numeric number)
{
	JsonbValue	value = {.type = jbvNumeric};

	value.val.numeric = number;
	pushJsonbValue(state, WJB_VALUE, &value);
}

static void
push_texts(JsonbParseState **state, ArrayType *array)
{
	Datum	   *texts;
	bool	   *nulls;
	int			count;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &texts, &nulls, &count);
	pushJsonbValue(state, WJB_BEGIN_ARRAY, NULL);
	for (int i = 0; i < count; i++)
		if (!nulls[i])
			push_text(state, WJB_ELEM, texts[i]);
	pushJsonbValue(state, WJB_END_ARRAY, NULL);
}

static void
push_value(JsonbParseState **state, Oid type, Datum datum)
{
	static const int utc = 0;
	char		time[MAXDATELEN + 1];
	JsonbValue	value;

	switch (type)
	{
		case UNKNOWNOID:
			push_string(state, WJB_VALUE, DatumGetCString(datum), strlen(DatumGetCString(datum)));
			break;
		case TEXTOID:
			push_text(state, WJB_VALUE, datum);
			break;
		case TEXTARRAYOID:
			push_texts(state, DatumGetArrayTypeP(datum));
			break;
		case INT2OID:
			push_number(state, int64_to_numeric(DatumGetInt16(datum)));
			break;
		case INT4OID:
			push_number(state, int64_to_numeric(DatumGetInt32(datum)));
			break;
		case INT8OID:
			push_number(state, int64_to_numeric(DatumGetInt64(datum)));
			break;
		case NUMERICOID:
			push_number(state, DatumGetNumeric(datum));
			break;
		case BOOLOID:
			value.type = jbvBool;
			value.val.boolean = DatumGetBool(datum);
			pushJsonbValue(state, WJB_VALUE, &value);
			break;
		case TIMESTAMPTZOID:
			JsonEncodeDateTime(time, datum, TIMESTAMPTZOID, &utc);
			push_string(state, WJB_VALUE, pstrdup(time), strlen(time));
			break;
		case JSONBOID:
			graph_push_jsonb(state, WJB_VALUE, DatumGetJsonbP(datum));
			break;
		default:
			elog(ERROR, "type %u has no place in a payload", type);
	}
}

/*
 * tasker._payload(base jsonb, facts jsonb, VARIADIC pairs "any")
 */
Datum
tasker_payload(PG_FUNCTION_ARGS)
{
	Oid		   *types = arg_types(fcinfo);
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < PAIRS_FROM; i++)
		if (!PG_ARGISNULL(i))
			push_object(&state, PG_GETARG_JSONB_P(i));
	for (int i = PAIRS_FROM; i < PG_NARGS(); i += 2)
	{
		Datum		key = PG_GETARG_DATUM(i);

		if (PG_ARGISNULL(i) || PG_ARGISNULL(i + 1))
			continue;
		if (types[i] == UNKNOWNOID)
			push_string(&state, WJB_KEY, DatumGetCString(key), strlen(DatumGetCString(key)));
		else
			push_text(&state, WJB_KEY, key);
		push_value(&state, types[i + 1], PG_GETARG_DATUM(i + 1));
	}
	PG_RETURN_JSONB_P(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
}
