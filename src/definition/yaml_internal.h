/*
 * yaml_internal.h
 *	  What the files of the YAML reader have in common.
 *
 * For these files only.  Nothing of the server and nothing of libyaml is here:
 * only yaml_core.c knows of events, the others are given places and texts.
 */
#ifndef TASKER_YAML_INTERNAL_H
#define TASKER_YAML_INTERNAL_H

#include "yaml_core.h"

/* A place in the text; both from 1, the column in characters. */
typedef struct YamlPlace
{
	int			line;
	int			column;
} YamlPlace;

typedef struct YamlFrame YamlFrame;

/* An open collection, as yaml_check.c sees it. */
typedef struct YamlLevel
{
	int			indent;			/* column, from 0, that all within it stands right of; -1 at the top */
	bool		flow;			/* in brackets */
} YamlLevel;

/* What yaml_check.c is to know of an event. */
typedef struct YamlEventView
{
	enum
	{
		YAML_VIEW_OTHER,
		YAML_VIEW_SCALAR,
		YAML_VIEW_ALIAS,
		YAML_VIEW_SEQUENCE,
		YAML_VIEW_MAPPING,
		YAML_VIEW_END			/* of either */
	}			type;
	enum
	{
		YAML_STYLE_PLAIN,
		YAML_STYLE_QUOTED,
		YAML_STYLE_BLOCK,
		YAML_STYLE_FLOW
	}			style;
	const char *anchor;			/* NULL: none */
	size_t		start;			/* of anchor and tag, too; in characters from the start of the text */
	size_t		end;
	int			end_column;		/* from 0 */
} YamlEventView;

/* A text that is being read. */
typedef struct YamlReader
{
	YamlDocument *document;
	const YamlLimits *limits;
	YamlError  *error;
	YamlTags	unknown_tags;
	const char *text;			/* what libyaml reads */
	size_t		length;
	char	   *marked;			/* the text with changes, see yaml_text.c; NULL: none needed */
	bool		is_ascii;
	YamlNode   *root;
	YamlItem   *items;			/* of all open collections */
	size_t		item_count;
	size_t		item_space;
	YamlFrame  *frames;			/* a stack of the open collections */
	int			depth;
	void	   *anchors;		/* tree of Anchor, by name */
	size_t		nodes;
	size_t		bytes;
	YamlLevel  *levels;			/* for yaml_check.c, a stack of the open collections */
	int			level;
	size_t		checked;		/* offset that it has come to */
	size_t		event_end;		/* and that where the last event ends */
	size_t		at_character;	/* the same place, as a character and as an offset */
	size_t		at_offset;
} YamlReader;

/*
 * yaml_core.c.  Whatever returns a bool has noted the error where it is false;
 * an error of the text as a whole has no place, which is {0, 0}.
 */
extern bool yaml_fail(YamlReader *reader, YamlPlace at, const char *hint, const char *format,...)
			__attribute__((format(printf, 4, 5)));
extern bool yaml_out_of_memory(YamlReader *reader);
extern void *yaml_allocate(YamlReader *reader, size_t size);	/* part of the document */

/* yaml_text.c: the text, before libyaml sees it and after. */
extern bool yaml_prepare_text(YamlReader *reader);
extern size_t yaml_restore_text(char *text, size_t length, bool double_quoted);
extern const char *yaml_next_line(const char *p, const char *end);
extern bool yaml_is_empty_line(const char *p, const char *end);
extern bool yaml_is_marker(const char *p, const char *end, const char *marker);
extern const char *yaml_find_line(const YamlReader *reader, int number, size_t *length);
extern YamlPlace yaml_place_at(const YamlReader *reader, size_t offset);
extern YamlPlace yaml_stay_within(const YamlReader *reader, YamlPlace at);
extern const char *yaml_excerpt(const char *text, size_t length, char buffer[64]);
extern int64_t yaml_hex_value(const char *p, size_t left, int digits);

/* yaml_check.c: what libyaml lets pass. */
extern bool yaml_check_event(YamlReader *reader, const YamlEventView *event);

/* yaml_hint.c: what to do about an error of libyaml's. */
extern const char *yaml_guess(const YamlReader *reader, const char *problem, YamlPlace at);

/* yaml_scalar.c: the core schema. */
extern bool yaml_resolve_plain(YamlReader *reader, YamlPlace at, YamlNode *node);
extern bool yaml_resolve_tagged(YamlReader *reader, YamlPlace at, YamlNode *node, const char *tag);
extern bool yaml_check_collection_tag(YamlReader *reader, YamlPlace at, YamlKind kind,
									  const char *tag);

/* yaml_node.c: the tree.  An anchor is NULL where there is none. */
extern bool yaml_begin_nodes(YamlReader *reader);
extern void yaml_end_nodes(YamlReader *reader);
extern bool yaml_expects_key(const YamlReader *reader);
extern YamlNode *yaml_make_node(YamlReader *reader, YamlPlace at, YamlKind kind);
extern bool yaml_add_key(YamlReader *reader, YamlPlace at, const char *text, size_t length,
						 bool plain);
extern bool yaml_add_scalar(YamlReader *reader, YamlPlace at, YamlNode *node,
							const char *anchor, bool plain);
extern bool yaml_add_alias(YamlReader *reader, YamlPlace at, const char *name);
extern bool yaml_open_collection(YamlReader *reader, YamlPlace at, YamlKind kind,
								 const char *anchor);
extern bool yaml_close_collection(YamlReader *reader);

#endif							/* TASKER_YAML_INTERNAL_H */
