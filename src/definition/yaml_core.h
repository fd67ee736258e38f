/*
 * yaml_core.h
 *	  Reads one YAML document into a tree, by the core schema of YAML 1.2.
 *
 * Nothing of the server is used here, and nothing of libyaml is seen outside:
 * the tree is in malloc'd memory, and no error ever jumps.  That is what lets
 * this part be fuzzed as a small program of its own.
 */
#ifndef TASKER_YAML_CORE_H
#define TASKER_YAML_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum YamlKind
{
	YAML_KIND_NULL,
	YAML_KIND_BOOLEAN,
	YAML_KIND_NUMBER,
	YAML_KIND_STRING,
	YAML_KIND_SEQUENCE,
	YAML_KIND_MAPPING
} YamlKind;

typedef struct YamlNode YamlNode;

/* An element of a sequence or mapping, and where a reader finds it. */
typedef struct YamlItem
{
	const char *key;			/* NULL in a sequence; ends with a zero byte */
	size_t		key_length;
	int			line;			/* of the key, or of the element; from 1 */
	int			column;
	YamlNode   *value;			/* shared by all aliases of an anchor */
} YamlItem;

struct YamlNode
{
	YamlKind	kind;
	bool		boolean;
	bool		open;			/* while it is being read */
	int			line;			/* from 1 */
	int			column;			/* from 1, in characters */
	int			height;			/* levels of collections in it, its own included */
	union
	{
		struct					/* of a scalar */
		{
			const char *text;	/* string: its value; number: JSON's spelling of it */
			size_t		length;
			const char *raw;	/* as it was written, for use as a key */
			size_t		raw_length;
		};
		struct					/* of a collection */
		{
			YamlItem   *items;
			size_t		count;
			const uint32_t *order;	/* mapping: its items by key, shorter ones first */
			size_t		nodes;	/* it and all below, aliases expanded */
			size_t		bytes;	/* of their keys and values */
		};
	};
};

typedef struct YamlLimits
{
	size_t		bytes;			/* of the text */
	size_t		key_bytes;		/* of one mapping key */
	size_t		expanded_bytes; /* of all keys and values, aliases expanded */
	size_t		nodes;			/* aliases expanded */
	int			depth;			/* of collections within each other */
	bool		(*is_cancelled) (void); /* asked now and then; NULL: never */
} YamlLimits;

typedef struct YamlError
{
	char		message[256];	/* UTF-8 */
	char		context[160];	/* a sentence more, in addition to the place; may be empty */
	char		hint[200];		/* may be empty */
	int			line;			/* from 1; 0 where the text as a whole is refused */
	int			column;			/* from 1, in characters */
	bool		out_of_memory;
} YamlError;

typedef struct YamlDocument YamlDocument;

/* Tags that say nothing to us: their values are taken without them. */
typedef struct YamlTags
{
	size_t		count;
	char		first[64];		/* as it is usually written, UTF-8 */
	int			line;			/* of the first */
	int			column;
} YamlTags;

/*
 * Reads the text, which must be UTF-8.  Returns NULL and fills the error where
 * it can't.  The caller frees what it gets.
 */
extern YamlDocument *yaml_core_read(const char *text, size_t length,
									const YamlLimits *limits, YamlError *error);
extern const YamlNode *yaml_core_root(const YamlDocument *document);
extern size_t yaml_core_nodes(const YamlNode *node);
extern size_t yaml_core_bytes(const YamlNode *node);
extern const YamlTags *yaml_core_unknown_tags(const YamlDocument *document);
extern void yaml_core_free(YamlDocument *document);

#endif							/* TASKER_YAML_CORE_H */
