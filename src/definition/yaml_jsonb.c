/*
 * yaml_jsonb.c
 *	  A tree of the YAML reader as jsonb.
 *
 * It is written at once in the form in which it is stored, utils/jsonb.h, which
 * pg_upgrade keeps: the server's own functions would first build the tree once
 * more, of parts that are several times as large, and take longer for it than
 * the reader takes for the text (doc/benchmarks.md).
 *
 * The reader has refused keys that are there twice, texts that are no UTF-8, and
 * depths that could end the stack.
 */
#include "postgres.h"

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

#include "yaml_jsonb.h"

/* An entry of an object, its key in the server's encoding. */
typedef struct Entry
{
	const char *key;
	int			length;
	const YamlNode *value;
} Entry;

/* The entries of a container, whose lengths or offsets stand before the data. */
typedef struct Container
{
	int			start;			/* of it in the buffer, padding included */
	int			entry;			/* where the next one of its entries goes */
	int			count;			/* of entries so far */
	uint32		length;			/* of their data */
} Container;

static JEntry write_node(StringInfo out, const YamlNode *node);

/* What is no string begins at a multiple of four. */
static void
pad(StringInfo out)
{
	static const char zeros[sizeof(int)];

	appendBinaryStringInfo(out, zeros, INTALIGN(out->len) - out->len);
}

static Container
begin_container(StringInfo out, uint32 header, size_t entries)
{
	Container	container = {.start = out->len};
	size_t		size = sizeof(JEntry) * entries;

	pad(out);
	appendBinaryStringInfo(out, (const char *) &header, sizeof(header));
	container.entry = out->len;
	enlargeStringInfo(out, size);
	out->len += size;
	return container;
}

static void
check_length(size_t length)
{
	if (length > JENTRY_OFFLENMASK)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the YAML text is too large for jsonb"),
				 errdetail("A list or mapping takes more than %u bytes.", JENTRY_OFFLENMASK)));
}

/* Every so many entries have their offset instead of their length. */
static void
add_entry(StringInfo out, Container *container, JEntry entry)
{
	container->length += JBE_OFFLENFLD(entry);
	check_length(container->length);
	if (container->count++ % JB_OFFSET_STRIDE == 0)
		entry = (entry & JENTRY_TYPEMASK) | container->length | JENTRY_HAS_OFF;
	memcpy(out->data + container->entry, &entry, sizeof(entry));
	container->entry += sizeof(entry);
}

static JEntry
end_container(StringInfo out, const Container *container)
{
	check_length(out->len - container->start);
	return JENTRY_ISCONTAINER | (out->len - container->start);
}

/* Text of the reader in the server's encoding; nothing is copied in UTF-8. */
static const char *
to_server(const char *text, size_t length, int *server_length)
{
	const char *result = text;

	*server_length = length;
	if (GetDatabaseEncoding() != PG_UTF8)
	{
		result = pg_any_to_server(text, length, PG_UTF8);
		if (result != text)
			*server_length = strlen(result);
	}
	return result;
}

static JEntry
write_string(StringInfo out, const char *text, size_t length)
{
	int			server_length;
	const char *server_text = to_server(text, length, &server_length);

	appendBinaryStringInfo(out, server_text, server_length);
	return JENTRY_ISSTRING | server_length;
}

/* Most numbers are short, and need no parser. */
static Numeric
make_numeric(const char *text, size_t length)
{
	const char *digits = text + (*text == '-' ? 1 : 0);
	int64		value = 0;

	if (length > 18 || strspn(digits, "0123456789") != length - (digits - text))
		return DatumGetNumeric(DirectFunctionCall3(numeric_in, CStringGetDatum(text),
												   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
	for (const char *p = digits; *p != '\0'; p++)
		value = value * 10 + (*p - '0');
	return int64_to_numeric(digits == text ? value : -value);
}

static JEntry
write_number(StringInfo out, const YamlNode *node)
{
	int			start = out->len;
	Numeric		number = make_numeric(node->text, node->length);

	pad(out);
	appendBinaryStringInfo(out, (const char *) number, VARSIZE_ANY(number));
	pfree(number);
	return JENTRY_ISNUMERIC | (out->len - start);
}

static JEntry
write_array(StringInfo out, const YamlNode *node)
{
	Container	container = begin_container(out, node->count | JB_FARRAY, node->count);

	for (size_t i = 0; i < node->count; i++)
		add_entry(out, &container, write_node(out, node->items[i].value));
	return end_container(out, &container);
}

/* The order of keys in jsonb: shorter ones first. */
static int
compare_entries(const void *a, const void *b)
{
	const Entry *x = a;
	const Entry *y = b;

	if (x->length != y->length)
		return x->length < y->length ? -1 : 1;
	return memcmp(x->key, y->key, x->length);
}

/* In UTF-8 the reader's order is jsonb's. */
static Entry *
sorted_entries(const YamlNode *node)
{
	Entry	   *entries = palloc(sizeof(Entry) * node->count);

	for (size_t i = 0; i < node->count; i++)
	{
		const YamlItem *item = &node->items[node->order[i]];

		entries[i].key = to_server(item->key, item->key_length, &entries[i].length);
		entries[i].value = item->value;
	}
	if (GetDatabaseEncoding() != PG_UTF8)
		qsort(entries, node->count, sizeof(Entry), compare_entries);
	return entries;
}

/* All keys, then all values. */
static JEntry
write_object(StringInfo out, const YamlNode *node)
{
	Container	container = begin_container(out, node->count | JB_FOBJECT, node->count * 2);
	Entry	   *entries = sorted_entries(node);

	for (size_t i = 0; i < node->count; i++)
	{
		appendBinaryStringInfo(out, entries[i].key, entries[i].length);
		add_entry(out, &container, JENTRY_ISSTRING | entries[i].length);
	}
	for (size_t i = 0; i < node->count; i++)
		add_entry(out, &container, write_node(out, entries[i].value));
	pfree(entries);
	return end_container(out, &container);
}

/* Appends a node's data; returns its type and length. */
static JEntry
write_node(StringInfo out, const YamlNode *node)
{
	CHECK_FOR_INTERRUPTS();
	switch (node->kind)
	{
		case YAML_KIND_NULL:
			return JENTRY_ISNULL;
		case YAML_KIND_BOOLEAN:
			return node->boolean ? JENTRY_ISBOOL_TRUE : JENTRY_ISBOOL_FALSE;
		case YAML_KIND_NUMBER:
			return write_number(out, node);
		case YAML_KIND_STRING:
			return write_string(out, node->text, node->length);
		case YAML_KIND_SEQUENCE:
			check_stack_depth();
			return write_array(out, node);
		case YAML_KIND_MAPPING:
			check_stack_depth();
			return write_object(out, node);
	}
	pg_unreachable();
}

Jsonb *
yaml_node_to_jsonb(const YamlNode *root)
{
	StringInfoData out;

	initStringInfo(&out);
	/* An estimate: an entry and its padding for each, and a list's header. */
	enlargeStringInfo(&out, yaml_core_bytes(root) + yaml_core_nodes(root) * 2 * sizeof(JEntry));
	out.len = VARHDRSZ;
	if (root->kind == YAML_KIND_SEQUENCE || root->kind == YAML_KIND_MAPPING)
		write_node(&out, root);
	else
	{
		Container	container = begin_container(&out, 1 | JB_FARRAY | JB_FSCALAR, 1);

		add_entry(&out, &container, write_node(&out, root));
	}
	SET_VARSIZE(out.data, out.len);
	return (Jsonb *) out.data;
}
