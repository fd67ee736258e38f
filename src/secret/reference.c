/*
 * reference.c
 *	  Finds ${NAME} in the strings of a configuration.
 *
 * A name is a word of ASCII letters, digits and underscores that begins with
 * no digit.  Anything else in the braces, such as ${context.cart_id}, is none
 * of this room's business and stays as it is.
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "secret/internal.h"

PG_FUNCTION_INFO_V1(tasker_secret_places);
PG_FUNCTION_INFO_V1(tasker_uses_secrets);

static bool
begins_name(char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
}

/*
 * The first reference at or behind that place.
 */
bool
reference_next(const char *text, int length, int from, Reference *found)
{
	for (int i = from; i + 3 < length; i++)
	{
		int			brace;
		int			end;

		if (text[i] != '$')
			continue;
		brace = i + (text[i + 1] == '$' ? 2 : 1);
		if (text[brace] != '{' || brace + 1 >= length || !begins_name(text[brace + 1]))
			continue;
		end = brace + 2;
		while (end < length && (begins_name(text[end]) || (text[end] >= '0' && text[end] <= '9')))
			end++;
		if (end >= length || text[end] != '}')
			continue;
		found->start = i;
		found->length = end + 1 - i;
		found->name = brace + 1;
		found->name_length = end - found->name;
		found->literal = brace > i + 1;
		return true;
	}
	return false;
}

/*
 * The same document with its strings changed, those that are keys too if wanted.
 */
Jsonb *
jsonb_change_strings(Jsonb *jsonb, bool keys, StringChange change, void *arg)
{
	JsonbIterator *iterator = JsonbIteratorInit(&jsonb->root);
	bool		is_scalar = JB_ROOT_IS_SCALAR(jsonb);
	JsonbParseState *state = NULL;
	JsonbValue *result = NULL;
	JsonbIteratorToken token;
	JsonbValue	value;
	bool		changed = false;

	while ((token = JsonbIteratorNext(&iterator, &value, false)) != WJB_DONE)
	{
		if (token == WJB_VALUE || token == WJB_ELEM || token == WJB_KEY)
		{
			if (value.type == jbvString && (keys || token != WJB_KEY))
				changed |= change(&value, arg);
			result = pushJsonbValue(&state, token, &value);
		}
		else
			result = pushJsonbValue(&state, token, NULL);
	}
	if (!changed)
		return jsonb;
	if (is_scalar)
		result->val.array.rawScalar = true;
	return JsonbValueToJsonb(result);
}

/* Where in a document the iterator is. */
typedef struct Level
{
	bool		is_array;
	int			index;
	Datum		key;
} Level;

typedef struct Place
{
	Level	   *levels;
	int			depth;
	int			space;
} Place;

static void
place_enter(Place *place, bool is_array)
{
	Level	   *level;

	if (place->depth > 0 && place->levels[place->depth - 1].is_array)
		place->levels[place->depth - 1].index++;
	if (place->depth == place->space)
	{
		place->space = Max(place->space * 2, 16);
		place->levels = place->levels == NULL ? palloc(place->space * sizeof(Level)) :
			repalloc(place->levels, place->space * sizeof(Level));
	}
	level = &place->levels[place->depth++];
	level->is_array = is_array;
	level->index = -1;
	level->key = (Datum) 0;
}

/*
 * Keys and numbers of elements, as text[]; from: 1 leaves out the array that a
 * scalar pretends to be in.
 */
static Datum
place_path(Place *place, int from)
{
	Datum	   *keys = palloc(Max(place->depth, 1) * sizeof(Datum));
	int			count = 0;

	for (int i = from; i < place->depth; i++)
		keys[count++] = place->levels[i].is_array ?
			CStringGetTextDatum(psprintf("%d", place->levels[i].index)) : place->levels[i].key;
	return PointerGetDatum(construct_array(keys, count, TEXTOID, -1, false, TYPALIGN_INT));
}

static void
put_references(JsonbValue *string, Place *place, int from, ReturnSetInfo *result)
{
	Reference	found = {0};

	while (reference_next(string->val.string.val, string->val.string.len,
						  found.start + found.length, &found))
	{
		Datum		values[2];
		bool		nulls[2] = {0};

		if (found.literal)
			continue;
		values[0] = place_path(place, from);
		values[1] = PointerGetDatum(cstring_to_text_with_len(string->val.string.val + found.name,
															 found.name_length));
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
}

/*
 * tasker._secret_places(config jsonb, OUT path text[], OUT name text)
 */
Datum
tasker_secret_places(PG_FUNCTION_ARGS)
{
	Jsonb	   *jsonb = PG_GETARG_JSONB_P(0);
	JsonbIterator *iterator = JsonbIteratorInit(&jsonb->root);
	int			from = JB_ROOT_IS_SCALAR(jsonb) ? 1 : 0;
	Place		place = {0};
	JsonbIteratorToken token;
	JsonbValue	value;

	InitMaterializedSRF(fcinfo, 0);
	while ((token = JsonbIteratorNext(&iterator, &value, false)) != WJB_DONE)
	{
		CHECK_FOR_INTERRUPTS();
		switch (token)
		{
			case WJB_BEGIN_ARRAY:
			case WJB_BEGIN_OBJECT:
				place_enter(&place, token == WJB_BEGIN_ARRAY);
				break;
			case WJB_END_ARRAY:
			case WJB_END_OBJECT:
				place.depth--;
				break;
			case WJB_KEY:
				place.levels[place.depth - 1].key =
					PointerGetDatum(cstring_to_text_with_len(value.val.string.val,
															 value.val.string.len));
				break;
			case WJB_ELEM:
				place.levels[place.depth - 1].index++;
				/* FALLTHROUGH */
			case WJB_VALUE:
				if (value.type == jbvString)
					put_references(&value, &place, from, (ReturnSetInfo *) fcinfo->resultinfo);
				break;
			case WJB_DONE:
				break;
		}
	}
	return (Datum) 0;
}

static bool
has_reference(JsonbValue *string, void *arg)
{
	Reference	found = {0};
	bool	   *has = arg;

	while (!*has && reference_next(string->val.string.val, string->val.string.len,
								   found.start + found.length, &found))
		*has = !found.literal;
	return false;
}

/*
 * tasker._uses_secrets(config jsonb)
 */
Datum
tasker_uses_secrets(PG_FUNCTION_ARGS)
{
	Jsonb	   *jsonb = PG_GETARG_JSONB_P(0);
	bool		has = false;

	/* Strings stand in a jsonb as they are. */
	if (memmem(VARDATA(jsonb), VARSIZE(jsonb) - VARHDRSZ, "${", 2) != NULL)
		(void) jsonb_change_strings(jsonb, false, has_reference, &has);
	PG_RETURN_BOOL(has);
}
