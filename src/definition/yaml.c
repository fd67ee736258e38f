/*
 * yaml.c
 *	  YAML seen from SQL: yaml_to_jsonb(), and where each value stands.
 *
 * yaml_core.c reads, yaml_jsonb.c makes jsonb of its tree.  The tree is malloc'd, so a
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
#include "utils/memutils.h"

#include "tasker.h"
#include "yaml_core.h"
#include "yaml_jsonb.h"

#define MAX_KEY_SIZE	1024	/* bytes; libyaml takes no more in most places */

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

/* The reader can't be left by a jump: it stops when the statement is to. */
static bool
is_cancelled(void)
{
	return (QueryCancelPending || ProcDiePending) && INTERRUPTS_CAN_BE_PROCESSED();
}

static YamlLimits
current_limits(void)
{
	return (YamlLimits)
	{
		.bytes = tasker_yaml_max_size,
			.key_bytes = MAX_KEY_SIZE,
			.expanded_bytes = tasker_yaml_max_expansion,
			.nodes = tasker_yaml_max_nodes,
			.depth = tasker_yaml_max_depth,
			.is_cancelled = is_cancelled,
	};
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
	YamlLimits	limits = current_limits();
	YamlError	error;

	open->context = context;
	open->callback.func = free_document;
	open->callback.arg = open;
	MemoryContextRegisterResetCallback(context, &open->callback);
	open->document = yaml_core_read(utf8, utf8 == source ? length : strlen(utf8),
									&limits, &error);
	if (open->document == NULL)
	{
		CHECK_FOR_INTERRUPTS();
		report_error(&error);
	}
	MemoryContextSwitchTo(caller);
	return open;
}

/* A tag that is left out silently could be a part of the value, unquoted. */
static void
warn_of_tags(const YamlTags *tags)
{
	if (tags->count > 0)
		ereport(WARNING,
				(errmsg_plural("%zu tag of the YAML text is unknown and was left out",
							   "%zu tags of the YAML text are unknown and were left out",
							   tags->count, tags->count),
				 errdetail("The first one is %s, in line %d, column %d.",
						   to_server(tags->first), tags->line, tags->column),
				 errhint("Put the value in quotes if the exclamation mark belongs to it.")));
}

Datum
tasker_yaml_to_jsonb(PG_FUNCTION_ARGS)
{
	OpenDocument *open = open_document(PG_GETARG_TEXT_PP(0));
	Jsonb	   *result = yaml_node_to_jsonb(yaml_core_root(open->document));

	warn_of_tags(yaml_core_unknown_tags(open->document));
	MemoryContextDelete(open->context);
	PG_RETURN_JSONB_P(result);
}

/* Where the rows of _yaml_lines() go, and the path to the node at hand. */
typedef struct LineWalk
{
	ReturnSetInfo *rsinfo;
	MemoryContext row_context;
	Datum	   *path;			/* text */
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
	if (node->kind != YAML_KIND_SEQUENCE && node->kind != YAML_KIND_MAPPING)
		return;
	check_stack_depth();
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
	walk.path = palloc(sizeof(Datum) * (root->height + 1));
	put_line(&walk, root->line, root->column);
	put_lines_within(&walk, root);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(open->context);
	return (Datum) 0;
}
