/*
 * yaml_core.c
 *	  Reads one YAML document into a tree, by the core schema of YAML 1.2.
 *
 * libyaml delivers events, from which yaml_node.c builds the tree.  What YAML
 * 1.2 decides differently from the 1.1 that libyaml was written for is decided
 * in yaml_text.c and yaml_scalar.c; what it lets pass, yaml_check.c refuses.
 *
 * What libyaml refuses of YAML 1.2 stays refused; doc/yaml.md lists it.
 *
 * This is the only file that includes yaml.h.
 */
#include "yaml_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#define MIN_CHUNK_SIZE		16384
#define MAX_CHUNK_SIZE		(16 * 1024 * 1024)
#define CHUNK_PER_BYTE		8	/* of the text: what definitions take */
#define EVENTS_BETWEEN_LOOKS	1024	/* for a cancellation */

/*
 * All memory of a document, freed at once.  As a rule the first chunk has room
 * for all of it: malloc() then keeps that for the next text, while of many small
 * ones it would give most back, and ask the kernel for them anew.
 */
typedef struct Chunk
{
	struct Chunk *next;
	size_t		used;
	size_t		size;
	_Alignas(max_align_t) char data[];
} Chunk;

struct YamlDocument
{
	Chunk	   *chunks;
	YamlNode   *root;
	YamlTags	unknown_tags;
};

/* Of an error of the text as a whole. */
static const YamlPlace nowhere = {0, 0};

static const char more_documents_hint[] = "Give each document in a call of its own.";

/* Notes the error; false, so that callers can return it. */
bool
yaml_fail(YamlReader *reader, YamlPlace at, const char *hint, const char *format,...)
{
	YamlError  *error = reader->error;
	va_list		args;

	va_start(args, format);
	vsnprintf(error->message, sizeof(error->message), format, args);
	va_end(args);
	snprintf(error->hint, sizeof(error->hint), "%s", hint ? hint : "");
	error->line = at.line;
	error->column = at.column;
	return false;
}

bool
yaml_out_of_memory(YamlReader *reader)
{
	reader->error->out_of_memory = true;
	return yaml_fail(reader, nowhere, NULL, "out of memory");
}

void *
yaml_allocate(YamlReader *reader, size_t size)
{
	Chunk	   *chunk = reader->document->chunks;
	void	   *result;

	size = (size + sizeof(max_align_t) - 1) & ~(sizeof(max_align_t) - 1);
	if (chunk == NULL || chunk->size - chunk->used < size)
	{
		size_t		space = chunk == NULL ? reader->length * CHUNK_PER_BYTE : chunk->size * 2;

		if (space < MIN_CHUNK_SIZE)
			space = MIN_CHUNK_SIZE;
		if (space > MAX_CHUNK_SIZE)
			space = MAX_CHUNK_SIZE;
		if (space < size)
			space = size;
		chunk = malloc(sizeof(Chunk) + space);
		if (chunk == NULL)
		{
			yaml_out_of_memory(reader);
			return NULL;
		}
		chunk->next = reader->document->chunks;
		chunk->used = 0;
		chunk->size = space;
		reader->document->chunks = chunk;
	}
	result = chunk->data + chunk->used;
	chunk->used += size;
	return result;
}

static YamlPlace
place_of(const yaml_mark_t *mark)
{
	return (YamlPlace) {(int) mark->line + 1, (int) mark->column + 1};
}

/* Takes over libyaml's own error. */
static bool
fail_in_parser(YamlReader *reader, const yaml_parser_t *parser)
{
	YamlError  *error = reader->error;
	const char *problem = parser->problem ? parser->problem : "the text can't be read";
	YamlPlace	at = place_of(&parser->problem_mark);

	if (parser->error == YAML_MEMORY_ERROR)
		return yaml_out_of_memory(reader);
	if (parser->context != NULL && parser->context_mark.index != parser->problem_mark.index)
	{
		YamlPlace	begin = place_of(&parser->context_mark);

		snprintf(error->context, sizeof(error->context),
				 "It was found %s that begins in line %d, column %d.",
				 parser->context, begin.line, begin.column);
	}
	if (parser->eof)
		at = yaml_stay_within(reader, at);
	return yaml_fail(reader, at, yaml_guess(reader, problem, at), "%s", problem);
}

static bool
read_scalar(YamlReader *reader, YamlPlace at, const yaml_event_t *event)
{
	const char *tag = (const char *) event->data.scalar.tag;
	const char *anchor = (const char *) event->data.scalar.anchor;
	size_t		length = event->data.scalar.length;
	bool		plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
	char	   *text = yaml_allocate(reader, length + 1);
	YamlNode   *node;

	if (text == NULL)
		return false;
	memcpy(text, event->data.scalar.value, length);
	if (reader->marked != NULL)
		length = yaml_restore_text(text, length,
								   event->data.scalar.style == YAML_DOUBLE_QUOTED_SCALAR_STYLE);
	text[length] = '\0';
	if (event->data.scalar.style == YAML_DOUBLE_QUOTED_SCALAR_STYLE && memchr(text, '\0', length) != NULL)
		return yaml_fail(reader, at, NULL, "a text can't contain the character U+0000");
	if (tag == NULL && anchor == NULL && yaml_expects_key(reader))
		return yaml_add_key(reader, at, text, length, plain);

	node = yaml_make_node(reader, at, YAML_KIND_STRING);
	if (node == NULL)
		return false;
	node->text = node->raw = text;
	node->length = node->raw_length = length;
	if (tag != NULL ? !yaml_resolve_tagged(reader, at, node, tag) :
		plain && !yaml_resolve_plain(reader, at, node))
		return false;
	return yaml_add_scalar(reader, at, node, anchor, plain && tag == NULL);
}

static bool
read_collection(YamlReader *reader, YamlPlace at, YamlKind kind,
				const yaml_char_t *anchor, const yaml_char_t *tag)
{
	return yaml_check_collection_tag(reader, at, kind, (const char *) tag) &&
		yaml_open_collection(reader, at, kind, (const char *) anchor);
}

/* After the document: does another one begin? */
static bool
check_end(YamlReader *reader, YamlPlace at)
{
	const char *end = reader->text + reader->length;
	const char *p = reader->text + reader->event_end;
	int			line = at.line;
	bool		ended = false;

	if (at.column > 1)
	{
		while (p > reader->text && p[-1] != '\n' && p[-1] != '\r')
			p--;
		ended = yaml_is_marker(p, end, "...");
		p = yaml_next_line(p, end);
		line++;
	}
	while (p < end && (yaml_is_empty_line(p, end) || yaml_is_marker(p, end, "...")))
	{
		ended |= *p == '.';
		p = yaml_next_line(p, end);
		line++;
	}
	if (p < end && (ended || *p == '%'))
		return yaml_fail(reader, (YamlPlace) {line, 1}, more_documents_hint,
						 "there is more than one document");
	return true;
}

static YamlEventView
view_of(const yaml_event_t *event)
{
	YamlEventView view = {
		.start = event->start_mark.index,
		.end = event->end_mark.index,
		.end_column = (int) event->end_mark.column,
	};

	switch (event->type)
	{
		case YAML_SCALAR_EVENT:
			view.type = YAML_VIEW_SCALAR;
			view.anchor = (const char *) event->data.scalar.anchor;
			view.style = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE ? YAML_STYLE_PLAIN :
				event->data.scalar.style == YAML_SINGLE_QUOTED_SCALAR_STYLE ||
				event->data.scalar.style == YAML_DOUBLE_QUOTED_SCALAR_STYLE ? YAML_STYLE_QUOTED :
				YAML_STYLE_BLOCK;
			break;
		case YAML_ALIAS_EVENT:
			view.type = YAML_VIEW_ALIAS;
			break;
		case YAML_SEQUENCE_START_EVENT:
			view.type = YAML_VIEW_SEQUENCE;
			view.anchor = (const char *) event->data.sequence_start.anchor;
			view.style = event->data.sequence_start.style == YAML_FLOW_SEQUENCE_STYLE ?
				YAML_STYLE_FLOW : YAML_STYLE_BLOCK;
			break;
		case YAML_MAPPING_START_EVENT:
			view.type = YAML_VIEW_MAPPING;
			view.anchor = (const char *) event->data.mapping_start.anchor;
			view.style = event->data.mapping_start.style == YAML_FLOW_MAPPING_STYLE ?
				YAML_STYLE_FLOW : YAML_STYLE_BLOCK;
			break;
		case YAML_SEQUENCE_END_EVENT:
		case YAML_MAPPING_END_EVENT:
			view.type = YAML_VIEW_END;
			break;
		default:
			break;
	}
	return view;
}

static bool
read_event(YamlReader *reader, const yaml_event_t *event)
{
	YamlPlace	at = place_of(&event->start_mark);

	switch (event->type)
	{
		case YAML_DOCUMENT_START_EVENT:
			if (reader->root != NULL)
				return yaml_fail(reader, at, more_documents_hint,
								 "there is more than one document");
			return true;
		case YAML_DOCUMENT_END_EVENT:
			return check_end(reader, place_of(&event->end_mark));
		case YAML_ALIAS_EVENT:
			return yaml_add_alias(reader, at, (const char *) event->data.alias.anchor);
		case YAML_SCALAR_EVENT:
			return read_scalar(reader, at, event);
		case YAML_SEQUENCE_START_EVENT:
			return read_collection(reader, at, YAML_KIND_SEQUENCE,
								   event->data.sequence_start.anchor, event->data.sequence_start.tag);
		case YAML_MAPPING_START_EVENT:
			return read_collection(reader, at, YAML_KIND_MAPPING,
								   event->data.mapping_start.anchor, event->data.mapping_start.tag);
		case YAML_SEQUENCE_END_EVENT:
		case YAML_MAPPING_END_EVENT:
			return yaml_close_collection(reader);
		default:
			return true;
	}
}

static bool
is_cancelled(const YamlReader *reader)
{
	return reader->limits->is_cancelled != NULL && reader->limits->is_cancelled();
}

static bool
read_events(YamlReader *reader, yaml_parser_t *parser)
{
	for (unsigned int count = 1;; count++)
	{
		yaml_event_t event;
		YamlEventView view;
		bool		done;
		bool		good;

		if (count % EVENTS_BETWEEN_LOOKS == 0 && is_cancelled(reader))
			return yaml_fail(reader, nowhere, NULL, "reading was cancelled");
		if (!yaml_parser_parse(parser, &event))
			return fail_in_parser(reader, parser);
		done = event.type == YAML_STREAM_END_EVENT;
		view = view_of(&event);
		good = yaml_check_event(reader, &view) && read_event(reader, &event);
		yaml_event_delete(&event);
		if (!good || done)
			return good;
	}
}

/* A text without a document says nothing: null. */
static bool
supply_root(YamlReader *reader)
{
	if (reader->root == NULL)
		reader->root = yaml_make_node(reader, (YamlPlace) {1, 1}, YAML_KIND_NULL);
	return reader->root != NULL;
}

static bool
read_text(YamlReader *reader)
{
	yaml_parser_t parser;
	bool		good;

	reader->levels = malloc((size_t) reader->limits->depth * sizeof(YamlLevel));
	if (reader->levels == NULL)
		return yaml_out_of_memory(reader);
	if (!yaml_begin_nodes(reader))
		return false;
	if (!yaml_parser_initialize(&parser))
		return yaml_out_of_memory(reader);
	yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&parser, (const unsigned char *) reader->text, reader->length);
	good = read_events(reader, &parser) && supply_root(reader);
	yaml_parser_delete(&parser);
	return good;
}

YamlDocument *
yaml_core_read(const char *text, size_t length, const YamlLimits *limits, YamlError *error)
{
	YamlReader	reader = {0};
	bool		good = false;

	memset(error, 0, sizeof(*error));
	reader.limits = limits;
	reader.error = error;
	if (length >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0)
	{
		text += 3;
		length -= 3;
	}
	reader.text = text;
	reader.length = length;
	reader.document = calloc(1, sizeof(YamlDocument));

	if (reader.document == NULL)
		yaml_out_of_memory(&reader);
	else if (length > limits->bytes)
	{
		snprintf(error->context, sizeof(error->context), "It has %zu bytes; the limit is %zu.",
				 length, limits->bytes);
		yaml_fail(&reader, nowhere, "The setting tasker.yaml_max_size is the limit.",
				  "the text is too large");
	}
	else
		good = yaml_prepare_text(&reader) && read_text(&reader);

	yaml_end_nodes(&reader);
	free(reader.levels);
	free(reader.marked);
	if (good)
	{
		reader.document->root = reader.root;
		reader.document->unknown_tags = reader.unknown_tags;
		return reader.document;
	}
	yaml_core_free(reader.document);
	return NULL;
}

const YamlNode *
yaml_core_root(const YamlDocument *document)
{
	return document->root;
}

const YamlTags *
yaml_core_unknown_tags(const YamlDocument *document)
{
	return &document->unknown_tags;
}

void
yaml_core_free(YamlDocument *document)
{
	if (document == NULL)
		return;
	for (Chunk *chunk = document->chunks; chunk != NULL;)
	{
		Chunk	   *next = chunk->next;

		free(chunk);
		chunk = next;
	}
	free(document);
}
