/*
 * yaml_node.c
 *	  The tree of a YAML document: nodes, aliases, merge keys, and limits.
 *
 * It is built without recursion, so deep input can't overflow the stack.  What
 * an alias stands for is shared, not copied, and charged in full against the
 * limits, so a few lines can't grow into gigabytes.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE				/* tdestroy */
#endif

#include "yaml_internal.h"

#include <search.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SMALL		16		/* keys of a mapping that are sorted without qsort() */
#define FIRST_ITEMS		256		/* room for items of open collections, to begin with */

typedef struct Anchor
{
	const char *name;
	YamlNode   *node;
} Anchor;

/* A collection that is being read. */
struct YamlFrame
{
	YamlNode   *node;
	size_t		first_item;		/* of its items, which lie at the end of YamlReader.items */
	YamlItem	pending;		/* key that waits for its value */
	bool		has_key;
	bool		is_merge;		/* the pending key is << */
	YamlItem	merge;			/* << and its value; value NULL: none */
};

/* Charges what a node, or all that an alias stands for, adds to the whole. */
static bool
charge(YamlReader *reader, YamlPlace at, size_t nodes, size_t bytes)
{
	reader->nodes += nodes;
	reader->bytes += bytes;
	if (reader->nodes > reader->limits->nodes)
		return yaml_fail(reader, at, "The setting tasker.yaml_max_nodes is the limit.",
						 "there are more than %zu keys and values, aliases expanded", reader->limits->nodes);
	if (reader->bytes > reader->limits->expanded_bytes)
		return yaml_fail(reader, at, "The setting tasker.yaml_max_expansion is the limit.",
						 "keys and values have more than %zu bytes, aliases expanded",
						 reader->limits->expanded_bytes);
	return true;
}

YamlNode *
yaml_make_node(YamlReader *reader, YamlPlace at, YamlKind kind)
{
	YamlNode   *node = yaml_allocate(reader, sizeof(YamlNode));

	if (node == NULL)
		return NULL;
	memset(node, 0, sizeof(*node));
	node->kind = kind;
	node->line = at.line;
	node->column = at.column;
	return node;
}

static bool
is_collection(const YamlNode *node)
{
	return node->kind == YAML_KIND_SEQUENCE || node->kind == YAML_KIND_MAPPING;
}

/* Number of nodes and keys, this one included, aliases expanded. */
size_t
yaml_core_nodes(const YamlNode *node)
{
	return is_collection(node) ? node->nodes : 1;
}

/* Size of their texts. */
size_t
yaml_core_bytes(const YamlNode *node)
{
	return is_collection(node) ? node->bytes : node->raw_length;
}

static bool
fail_for_depth(YamlReader *reader, YamlPlace at)
{
	return yaml_fail(reader, at, "The setting tasker.yaml_max_depth is the limit.",
					 "values are nested more than %d levels deep", reader->limits->depth);
}

static int
compare_anchors(const void *a, const void *b)
{
	return strcmp(((const Anchor *) a)->name, ((const Anchor *) b)->name);
}

/* A later anchor of the same name takes its place. */
static bool
set_anchor(YamlReader *reader, const char *name, YamlNode *node)
{
	size_t		size;
	char	   *copy;
	Anchor	   *anchor;
	Anchor	  **found;

	if (name == NULL)
		return true;
	size = strlen(name) + 1;
	copy = yaml_allocate(reader, size);
	anchor = yaml_allocate(reader, sizeof(Anchor));
	if (copy == NULL || anchor == NULL)
		return false;
	memcpy(copy, name, size);
	anchor->name = copy;
	anchor->node = node;
	found = tsearch(anchor, &reader->anchors, compare_anchors);
	if (found == NULL)
		return yaml_out_of_memory(reader);
	(*found)->node = node;
	return true;
}

/* Puts an item at the end of the list of all open collections. */
static bool
push_item(YamlReader *reader, const YamlItem *item)
{
	if (reader->item_count == reader->item_space)
	{
		size_t		space = reader->item_space * 2;
		YamlItem   *items = realloc(reader->items, space * sizeof(YamlItem));

		if (items == NULL)
			return yaml_out_of_memory(reader);
		reader->items = items;
		reader->item_space = space;
	}
	reader->items[reader->item_count++] = *item;
	return true;
}

/* Takes a text as the next key of the open mapping. */
static bool
set_key(YamlReader *reader, YamlFrame *frame, YamlPlace at, const char *text, size_t length, bool plain)
{
	YamlItem   *key = &frame->pending;

	if (length > reader->limits->key_bytes)
		return yaml_fail(reader, at, NULL,
						 "a key has more than %zu bytes", reader->limits->key_bytes);
	key->key = text;
	key->key_length = length;
	key->line = at.line;
	key->column = at.column;
	frame->has_key = true;
	frame->is_merge = plain && length == 2 && memcmp(text, "<<", 2) == 0;
	return true;
}

static YamlPlace
item_place(const YamlItem *item)
{
	return (YamlPlace) {item->line, item->column};
}

static bool
fail_for_duplicate(YamlReader *reader, const YamlItem *first, const YamlItem *second, const char *hint)
{
	char		name[64];

	return yaml_fail(reader, item_place(second), hint,
					 "the key \"%s\" is there twice, in line %d and in line %d",
					 yaml_excerpt(second->key, second->key_length, name), first->line, second->line);
}

/* Takes the value of a merge key, which is a mapping or a list of mappings. */
static bool
add_merge(YamlReader *reader, YamlFrame *frame, YamlNode *value)
{
	bool		fits = is_collection(value);

	if (frame->merge.value != NULL)
		return fail_for_duplicate(reader, &frame->merge, &frame->pending,
								  "To merge several mappings, list them: <<: [*a, *b]");
	if (value->kind == YAML_KIND_SEQUENCE)
		for (size_t i = 0; i < value->count; i++)
			fits = fits && value->items[i].value->kind == YAML_KIND_MAPPING;
	if (!fits)
		return yaml_fail(reader, item_place(&frame->pending),
						 "Put the key in quotes if it is not meant to merge.",
						 "the merge key << needs a mapping, or a list of mappings");
	frame->merge = frame->pending;
	frame->merge.value = value;
	return true;
}

/* Puts a complete node where it belongs. */
static bool
add_node(YamlReader *reader, YamlPlace at, YamlNode *node, bool plain)
{
	YamlFrame  *frame;

	if (reader->depth == 0)
	{
		reader->root = node;
		return true;
	}
	frame = &reader->frames[reader->depth - 1];
	if (frame->node->kind == YAML_KIND_SEQUENCE)
	{
		YamlItem	item = {NULL, 0, at.line, at.column, node};

		return push_item(reader, &item);
	}
	if (!frame->has_key)
	{
		if (is_collection(node))
			return yaml_fail(reader, at,
							 "Put it in quotes if it is text, as in \"{{name}}\".",
							 "a list or a mapping can't be a key");
		return set_key(reader, frame, at, node->raw, node->raw_length, plain);
	}
	frame->has_key = false;
	if (frame->is_merge)
		return add_merge(reader, frame, node);
	frame->pending.value = node;
	return push_item(reader, &frame->pending);
}

bool
yaml_expects_key(const YamlReader *reader)
{
	const YamlFrame *frame = reader->depth == 0 ? NULL : &reader->frames[reader->depth - 1];

	return frame != NULL && frame->node->kind == YAML_KIND_MAPPING && !frame->has_key;
}

/* A scalar that is nothing but a key, and so needs no node. */
bool
yaml_add_key(YamlReader *reader, YamlPlace at, const char *text, size_t length, bool plain)
{
	return charge(reader, at, 1, length) &&
		set_key(reader, &reader->frames[reader->depth - 1], at, text, length, plain);
}

bool
yaml_add_scalar(YamlReader *reader, YamlPlace at, YamlNode *node, const char *anchor, bool plain)
{
	return charge(reader, at, 1, node->raw_length) &&
		set_anchor(reader, anchor, node) &&
		add_node(reader, at, node, plain);
}

bool
yaml_add_alias(YamlReader *reader, YamlPlace at, const char *name)
{
	Anchor		wanted = {name, NULL};
	Anchor	  **found = tfind(&wanted, &reader->anchors, compare_anchors);
	char		buffer[64];
	YamlNode   *node;

	yaml_excerpt(name, strlen(name), buffer);
	if (found == NULL)
		return yaml_fail(reader, at,
						 "An anchor is set before its use, with &name; put the value in quotes if it is text.",
						 "there is no anchor for the alias *%s", buffer);
	node = (*found)->node;
	if (node->open)
		return yaml_fail(reader, at, NULL,
						 "the alias *%s stands within what it stands for", buffer);
	if (reader->depth + node->height > reader->limits->depth)
		return fail_for_depth(reader, at);
	return charge(reader, at, yaml_core_nodes(node), yaml_core_bytes(node)) && add_node(reader, at, node, false);
}

bool
yaml_open_collection(YamlReader *reader, YamlPlace at, YamlKind kind, const char *anchor)
{
	YamlNode   *node;
	YamlFrame  *frame;

	if (reader->depth >= reader->limits->depth)
		return fail_for_depth(reader, at);
	node = yaml_make_node(reader, at, kind);
	if (node == NULL || !charge(reader, at, 1, 0) || !set_anchor(reader, anchor, node))
		return false;
	node->open = true;
	frame = &reader->frames[reader->depth++];
	memset(frame, 0, sizeof(*frame));
	frame->node = node;
	frame->first_item = reader->item_count;
	return true;
}

/* Orders items by key, and equal keys by their place in the list. */
static int
compare_items(const void *a, const void *b)
{
	const YamlItem *x = *(YamlItem *const *) a;
	const YamlItem *y = *(YamlItem *const *) b;
	int			order;

	if (x->key_length != y->key_length)
		return x->key_length < y->key_length ? -1 : 1;
	order = memcmp(x->key, y->key, x->key_length);
	if (order != 0)
		return order;
	return x < y ? -1 : 1;
}

/* Most mappings are small, and qsort() allocates. */
static void
sort_items(YamlItem **sorted, size_t count)
{
	if (count > MAX_SMALL)
	{
		qsort(sorted, count, sizeof(YamlItem *), compare_items);
		return;
	}
	for (size_t i = 1; i < count; i++)
	{
		YamlItem   *item = sorted[i];
		size_t		j = i;

		for (; j > 0 && compare_items(&item, &sorted[j - 1]) < 0; j--)
			sorted[j] = sorted[j - 1];
		sorted[j] = item;
	}
}

/*
 * Of sorted items, refuses those whose key is there twice among the first own
 * ones of the list; of merged ones, which come after those, takes the value from
 * all whose key is there before.
 */
static bool
check_keys(YamlReader *reader, YamlItem **sorted, size_t count, const YamlItem *merged)
{
	YamlItem   *first = NULL;
	YamlItem   *second = NULL;

	for (size_t i = 1, lead = 0; i < count; i++)
	{
		if (sorted[i]->key_length != sorted[lead]->key_length ||
			memcmp(sorted[i]->key, sorted[lead]->key, sorted[i]->key_length) != 0)
			lead = i;
		else if (sorted[i] >= merged)
			sorted[i]->value = NULL;
		else if (second == NULL || sorted[i] < second)
		{
			first = sorted[lead];
			second = sorted[i];
		}
	}
	return second == NULL || fail_for_duplicate(reader, first, second, NULL);
}

static void
sort_all(YamlItem **sorted, YamlItem *items, size_t count)
{
	for (size_t i = 0; i < count; i++)
		sorted[i] = &items[i];
	sort_items(sorted, count);
}

/* Gives a mapping its items, of which the first own ones are not merged. */
static bool
take_items(YamlReader *reader, YamlNode *node, YamlItem *items, size_t count, size_t own,
		   YamlItem **sorted, uint32_t *order)
{
	size_t		kept = 0;

	sort_all(sorted, items, count);
	if (!check_keys(reader, sorted, count, items + own))
		return false;
	for (size_t i = 0; i < count; i++)
		if (items[i].value != NULL)
			items[kept++] = items[i];
	if (kept < count)
		sort_all(sorted, items, kept);
	for (size_t i = 0; i < kept; i++)
		order[i] = (uint32_t) (sorted[i] - items);
	node->count = kept;
	node->order = order;
	return true;
}

static bool
settle_mapping(YamlReader *reader, YamlNode *node, YamlItem *items, size_t count, size_t own)
{
	YamlItem   *small[MAX_SMALL];
	YamlItem  **sorted = count <= MAX_SMALL ? small : malloc(count * sizeof(YamlItem *));
	uint32_t   *order = yaml_allocate(reader, count * sizeof(uint32_t) + 1);
	bool		good = sorted != NULL && order != NULL &&
		take_items(reader, node, items, count, own, sorted, order);

	if (sorted == NULL)
		yaml_out_of_memory(reader);
	if (sorted != small)
		free(sorted);
	return good;
}

static bool
push_items_of(YamlReader *reader, const YamlNode *mapping)
{
	for (size_t i = 0; i < mapping->count; i++)
		if (!push_item(reader, &mapping->items[i]))
			return false;
	return true;
}

/* Adds the items that a merge key brings. */
static bool
push_merged(YamlReader *reader, const YamlNode *value)
{
	if (value->kind == YAML_KIND_MAPPING)
		return push_items_of(reader, value);
	for (size_t i = 0; i < value->count; i++)
		if (!push_items_of(reader, value->items[i].value))
			return false;
	return true;
}

/* Gives the collection that ends its items, and puts it where it belongs. */
bool
yaml_close_collection(YamlReader *reader)
{
	YamlFrame  *frame = &reader->frames[reader->depth - 1];
	YamlNode   *node = frame->node;
	size_t		own = reader->item_count - frame->first_item;
	YamlPlace	at = {node->line, node->column};
	YamlItem   *items;

	if (frame->merge.value != NULL && !push_merged(reader, frame->merge.value))
		return false;
	items = reader->items + frame->first_item;
	node->count = reader->item_count - frame->first_item;
	if (node->kind == YAML_KIND_MAPPING && !settle_mapping(reader, node, items, node->count, own))
		return false;
	node->items = yaml_allocate(reader, node->count * sizeof(YamlItem) + 1);
	if (node->items == NULL)
		return false;
	if (node->count > 0)
		memcpy(node->items, items, node->count * sizeof(YamlItem));
	node->nodes = 1;
	for (size_t i = 0; i < node->count; i++)
	{
		const YamlNode *child = node->items[i].value;

		node->nodes += yaml_core_nodes(child) + (node->kind == YAML_KIND_MAPPING ? 1 : 0);
		node->bytes += yaml_core_bytes(child) + node->items[i].key_length;
		if (child->height > node->height)
			node->height = child->height;
	}
	node->height++;
	node->open = false;
	reader->item_count = frame->first_item;
	reader->depth--;
	return add_node(reader, at, node, false);
}

bool
yaml_begin_nodes(YamlReader *reader)
{
	reader->frames = malloc((size_t) reader->limits->depth * sizeof(YamlFrame));
	reader->items = malloc(FIRST_ITEMS * sizeof(YamlItem));
	reader->item_space = FIRST_ITEMS;
	return (reader->frames != NULL && reader->items != NULL) || yaml_out_of_memory(reader);
}

/* The anchors themselves are part of the document. */
static void
keep_anchor(void *anchor)
{
}

/* Frees what only the reading needed. */
void
yaml_end_nodes(YamlReader *reader)
{
	tdestroy(reader->anchors, keep_anchor);
	free(reader->frames);
	free(reader->items);
}
