/*
 * yaml.c
 *	  YAML seen from SQL: yaml_to_jsonb(), and where each value stands.
 *
 * yaml_core.c reads; here its tree becomes jsonb.  The tree is malloc'd, so a
 * memory context of our own frees it, whichever way the function ends.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

#include "tasker.h"
#include "yaml_core.h"

#define MAX_DEPTH	100

/* What a definition may take.  COMMENT ON FUNCTION yaml_to_jsonb names them. */
static const YamlLimits definition_limits = {
	.bytes = 1024 * 1024,
	.key_bytes = 1024,
	.expanded_bytes = 16 * 1024 * 1024,
	.nodes = 100000,
	.depth = MAX_DEPTH,
};

/* A document, and the context that frees it. */
typedef struct OpenDocument
{
	MemoryContext context;
	MemoryContextCallback callback;
	YamlDocument *document;
} OpenDocument;

PG_FUNCTION_INFO_V1(tasker_yaml_to_jsonb);
PG_FUNCTION_INFO_V1(tasker_yaml_lines);

static void
free_document(void *arg)
{
	OpenDocument *open = arg;

	yaml_core_free(open->document);
	open->document = NULL;
}

/* Text of the reader, in the server's encoding. */
static char *
to_server(const char *text)
{
	return pg_any_to_server(text, strlen(text), PG_UTF8);
}

static void
report_error(const YamlError *error)
{
	StringInfoData detail;

	if (error->out_of_memory)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory"),
				 errdetail("Failed while reading a YAML text.")));

	initStringInfo(&detail);
	if (error->line > 0)
		appendStringInfo(&detail, "Line %d, column %d.", error->line, error->column);
	if (error->context[0] != '\0')
		appendStringInfo(&detail, "%s%s", detail.len > 0 ? " " : "", to_server(error->context));
	ereport(ERROR,
			(errcode(ERRCODE_TASKER_DEFINITION),
			 errmsg("invalid YAML: %s", to_server(error->message)),
			 detail.len > 0 ? errdetail_internal("%s", detail.data) : 0,
			 error->hint[0] != '\0' ? errhint("%s", to_server(error->hint)) : 0));
}

/* Reads the text; what is allocated in the document's context ends with it. */
static OpenDocument *
open_document(text *yaml)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "tasker YAML",
												  ALLOCSET_DEFAULT_SIZES);
	OpenDocument *open = MemoryContextAllocZero(context, sizeof(OpenDocument));
	MemoryContext caller = MemoryContextSwitchTo(context);
	char	   *source = VARDATA_ANY(yaml);
	int			length = VARSIZE_ANY_EXHDR(yaml);
	char	   *utf8 = pg_server_to_any(source, length, PG_UTF8);
	YamlError	error;

	open->context = context;
	open->callback.func = free_document;
	open->callback.arg = open;
	MemoryContextRegisterResetCallback(context, &open->callback);
	open->document = yaml_core_read(utf8, utf8 == source ? length : strlen(utf8),
									&definition_limits, &error);
	if (open->document == NULL)
		report_error(&error);
	MemoryContextSwitchTo(caller);
	return open;
}

static void
set_string(JsonbValue *value, const char *text, size_t length)
{
	value->type = jbvString;
	value->val.string.val = pg_any_to_server(text, length, PG_UTF8);
	value->val.string.len = value->val.string.val == text ? length : strlen(value->val.string.val);
}

static void
set_scalar(JsonbValue *value, const YamlNode *node)
{
	switch (node->kind)
	{
		case YAML_KIND_NULL:
			value->type = jbvNull;
			break;
		case YAML_KIND_BOOLEAN:
			value->type = jbvBool;
			value->val.boolean = node->boolean;
			break;
		case YAML_KIND_NUMBER:
			value->type = jbvNumeric;
			value->val.numeric =
				DatumGetNumeric(DirectFunctionCall3(numeric_in, CStringGetDatum(node->text),
													ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
			break;
		default:
			set_string(value, node->text, node->length);
			break;
	}
}

static JsonbValue *push_node(JsonbParseState **state, const YamlNode *node, JsonbIteratorToken as);

static JsonbValue *
push_sequence(JsonbParseState **state, const YamlNode *node)
{
	pushJsonbValue(state, WJB_BEGIN_ARRAY, NULL);
	for (size_t i = 0; i < node->count; i++)
		push_node(state, node->items[i].value, WJB_ELEM);
	return pushJsonbValue(state, WJB_END_ARRAY, NULL);
}

static JsonbValue *
push_mapping(JsonbParseState **state, const YamlNode *node)
{
	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	for (size_t i = 0; i < node->count; i++)
	{
		JsonbValue	key;

		set_string(&key, node->items[i].key, node->items[i].key_length);
		pushJsonbValue(state, WJB_KEY, &key);
		push_node(state, node->items[i].value, WJB_VALUE);
	}
	return pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

/* Adds a node to the value being built; the reader's depth limit ends this. */
static JsonbValue *
push_node(JsonbParseState **state, const YamlNode *node, JsonbIteratorToken as)
{
	JsonbValue	scalar;

	CHECK_FOR_INTERRUPTS();
	if (node->kind == YAML_KIND_SEQUENCE)
		return push_sequence(state, node);
	if (node->kind == YAML_KIND_MAPPING)
		return push_mapping(state, node);
	set_scalar(&scalar, node);
	return pushJsonbValue(state, as, &scalar);
}

static Jsonb *
node_to_jsonb(const YamlNode *node)
{
	JsonbParseState *state = NULL;
	JsonbValue	scalar;

	if (node->kind == YAML_KIND_SEQUENCE || node->kind == YAML_KIND_MAPPING)
		return JsonbValueToJsonb(push_node(&state, node, WJB_ELEM));
	set_scalar(&scalar, node);
	return JsonbValueToJsonb(&scalar);
}

Datum
tasker_yaml_to_jsonb(PG_FUNCTION_ARGS)
{
	OpenDocument *open = open_document(PG_GETARG_TEXT_PP(0));
	MemoryContext caller = MemoryContextSwitchTo(open->context);
	Jsonb	   *built = node_to_jsonb(yaml_core_root(open->document));
	Jsonb	   *result;

	MemoryContextSwitchTo(caller);
	result = palloc(VARSIZE(built));
	memcpy(result, built, VARSIZE(built));
	MemoryContextDelete(open->context);
	PG_RETURN_JSONB_P(result);
}

/* Where the rows of _yaml_lines() go, and the path to the node at hand. */
typedef struct LineWalk
{
	ReturnSetInfo *rsinfo;
	MemoryContext row_context;
	Datum		path[MAX_DEPTH];	/* text */
	int			depth;
} LineWalk;

static void
put_line(LineWalk *walk, int line, int column)
{
	MemoryContext caller = MemoryContextSwitchTo(walk->row_context);
	ArrayType  *path = walk->depth == 0 ? construct_empty_array(TEXTOID) :
		construct_array(walk->path, walk->depth, TEXTOID, -1, false, TYPALIGN_INT);
	Datum		values[3] = {PointerGetDatum(path), Int32GetDatum(line), Int32GetDatum(column)};
	bool		nulls[3] = {false, false, false};

	tuplestore_putvalues(walk->rsinfo->setResult, walk->rsinfo->setDesc, values, nulls);
	MemoryContextSwitchTo(caller);
	MemoryContextReset(walk->row_context);
}

/* The last part of the path to an item: its key, or its number. */
static Datum
path_part(const YamlItem *item, size_t number)
{
	if (item->key == NULL)
		return CStringGetTextDatum(psprintf("%zu", number));
	return CStringGetTextDatum(to_server(item->key));
}

/* Rows for what lies within a node. */
static void
put_lines_within(LineWalk *walk, const YamlNode *node)
{
	CHECK_FOR_INTERRUPTS();
	for (size_t i = 0; i < node->count; i++)
	{
		const YamlItem *item = &node->items[i];
		Datum		part = path_part(item, i);

		walk->path[walk->depth++] = part;
		put_line(walk, item->line, item->column);
		put_lines_within(walk, item->value);
		walk->depth--;
		pfree(DatumGetPointer(part));
	}
}

Datum
tasker_yaml_lines(PG_FUNCTION_ARGS)
{
	OpenDocument *open = open_document(PG_GETARG_TEXT_PP(0));
	const YamlNode *root = yaml_core_root(open->document);
	MemoryContext caller;
	LineWalk	walk = {0};

	InitMaterializedSRF(fcinfo, 0);
	walk.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	walk.row_context = AllocSetContextCreate(open->context, "tasker YAML line",
											 ALLOCSET_SMALL_SIZES);
	caller = MemoryContextSwitchTo(open->context);
	put_line(&walk, root->line, root->column);
	put_lines_within(&walk, root);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(open->context);
	return (Datum) 0;
}
