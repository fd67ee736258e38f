/*
 * yaml_fuzz.c
 *	  Arbitrary bytes for the YAML reader.
 *
 * Whatever it is given, it must keep to its limits, and give either an error
 * that can be shown, or a tree that is sound: each text is UTF-8, each number is
 * one of JSON's, no key is there twice, nothing lies outside the text.  And as
 * JSON is YAML, the tree written as JSON must be read as the same tree.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "yaml_core.h"

/* libyaml takes no longer key in a line, and an escape takes six bytes. */
#define MAX_JSON_KEY	160

static const YamlLimits limits = {
	.bytes = 1024 * 1024,
	.key_bytes = 1024,
	.expanded_bytes = 1024 * 1024,
	.nodes = 10000,
	.depth = 50,
};

#define check(condition) \
	do { \
		if (!(condition)) \
		{ \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
			abort(); \
		} \
	} while (0)

/* The tree as JSON. */
typedef struct Output
{
	char	   *text;
	size_t		length;
	size_t		space;
	bool		has_long_key;
} Output;

static void
put(Output *out, const char *text, size_t length)
{
	if (out->length + length > out->space)
	{
		out->space = (out->length + length) * 2;
		out->text = realloc(out->text, out->space);
		check(out->text != NULL);
	}
	memcpy(out->text + out->length, text, length);
	out->length += length;
}

/* The code point at p, which must be one that jsonb can store. */
static uint32_t
take_code(const char **p, const char *end)
{
	const unsigned char *s = (const unsigned char *) *p;
	int			more = s[0] < 0x80 ? 0 : s[0] < 0xE0 ? 1 : s[0] < 0xF0 ? 2 : 3;
	static const uint32_t least[] = {1, 0x80, 0x800, 0x10000};
	uint32_t	code = more == 0 ? s[0] : s[0] & (0x3F >> more);

	check(s[0] < 0x80 || (s[0] >= 0xC2 && s[0] < 0xF5));
	check(end - *p > more);
	for (int i = 1; i <= more; i++)
	{
		check((s[i] & 0xC0) == 0x80);
		code = code << 6 | (s[i] & 0x3F);
	}
	check(code >= least[more] && code <= 0x10FFFF && !(code >= 0xD800 && code < 0xE000));
	*p += more + 1;
	return code;
}

static void
check_text(const char *text, size_t length)
{
	check(text[length] == '\0');
	for (const char *p = text; p < text + length;)
		take_code(&p, text + length);
}

static void
put_string(Output *out, const char *text, size_t length)
{
	const char *p = text;
	char		escape[16];

	put(out, "\"", 1);
	while (p < text + length)
	{
		uint32_t	code = take_code(&p, text + length);

		if (code >= 0x10000)
		{
			code -= 0x10000;
			put(out, escape, sprintf(escape, "\\u%04X\\u%04x", 0xD800 + (code >> 10), 0xDC00 + (code & 0x3FF)));
		}
		else if (code >= 0xFDD0 && code <= 0xFDD3)
			check(!"a stand-in");
		else if (code < ' ' || code == '"' || code == '\\' || code > '~')
			put(out, escape, sprintf(escape, "\\u%04x", code));
		else
			put(out, p - 1, 1);
	}
	put(out, "\"", 1);
}

/* Is it a number as JSON writes it? */
static void
check_number(const char *p)
{
	p += *p == '-';
	check(*p >= '0' && *p <= '9');
	if (*p == '0')
		p++;
	else
		p += strspn(p, "0123456789");
	if (*p == '.')
	{
		check(strspn(p + 1, "0123456789") > 0);
		p += 1 + strspn(p + 1, "0123456789");
	}
	if (*p == 'e')
	{
		p += p[1] == '-' ? 2 : 1;
		check(strspn(p, "0123456789") > 0);
		p += strspn(p, "0123456789");
	}
	check(*p == '\0');
}

static void
check_place(int line, int column)
{
	check(line >= 1 && column >= 1);
}

static int
compare_keys(const void *a, const void *b)
{
	const YamlItem *x = a;
	const YamlItem *y = b;

	if (x->key_length != y->key_length)
		return x->key_length < y->key_length ? -1 : 1;
	return memcmp(x->key, y->key, x->key_length);
}

static void
check_keys(const YamlNode *node)
{
	YamlItem   *sorted = malloc(node->count * sizeof(YamlItem) + 1);

	check(sorted != NULL);
	if (node->count > 0)
		memcpy(sorted, node->items, node->count * sizeof(YamlItem));
	qsort(sorted, node->count, sizeof(YamlItem), compare_keys);
	for (size_t i = 1; i < node->count; i++)
		check(compare_keys(&sorted[i - 1], &sorted[i]) < 0);
	free(sorted);
}

static size_t put_node(Output *out, const YamlNode *node, int depth);

/* Returns the number of nodes. */
static size_t
put_collection(Output *out, const YamlNode *node, int depth)
{
	bool		is_mapping = node->kind == YAML_KIND_MAPPING;
	size_t		nodes = 1;

	check(depth < limits.depth);
	check(!node->open);
	if (is_mapping)
		check_keys(node);
	put(out, is_mapping ? "{" : "[", 1);
	for (size_t i = 0; i < node->count; i++)
	{
		const YamlItem *item = &node->items[i];

		check_place(item->line, item->column);
		check((item->key != NULL) == is_mapping);
		if (i > 0)
			put(out, ",", 1);
		if (is_mapping)
		{
			check_text(item->key, item->key_length);
			put_string(out, item->key, item->key_length);
			put(out, ":", 1);
			nodes++;
			if (item->key_length > MAX_JSON_KEY)
				out->has_long_key = true;
		}
		nodes += put_node(out, item->value, depth + 1);
	}
	put(out, is_mapping ? "}" : "]", 1);
	return nodes;
}

static size_t
put_node(Output *out, const YamlNode *node, int depth)
{
	check_place(node->line, node->column);
	switch (node->kind)
	{
		case YAML_KIND_NULL:
			put(out, "null", 4);
			return 1;
		case YAML_KIND_BOOLEAN:
			put(out, node->boolean ? "true" : "false", node->boolean ? 4 : 5);
			return 1;
		case YAML_KIND_NUMBER:
			check(strlen(node->text) == node->length);
			check_number(node->text);
			put(out, node->text, node->length);
			return 1;
		case YAML_KIND_STRING:
			check_text(node->text, node->length);
			put_string(out, node->text, node->length);
			return 1;
		default:
			return put_collection(out, node, depth);
	}
}

static Output
write_json(YamlDocument *document)
{
	Output		out = {0};

	check(put_node(&out, yaml_core_root(document), 0) <= limits.nodes);
	return out;
}

static void
check_error(const YamlError *error)
{
	check(!error->out_of_memory);
	check(error->message[0] != '\0');
	check_text(error->message, strlen(error->message));
	check_text(error->context, strlen(error->context));
	check_text(error->hint, strlen(error->hint));
	if (error->line != 0)
		check_place(error->line, error->column);
}

/* JSON is YAML: it is read as what it was written of. */
static void
check_again(const Output *json)
{
	YamlLimits	ample = limits;
	YamlError	error;
	YamlDocument *document;
	Output		again;

	/* What is merged was charged with the mapping that it came from. */
	ample.bytes = ample.expanded_bytes = 64 * 1024 * 1024;
	document = yaml_core_read(json->text, json->length, &ample, &error);
	if (document == NULL)
	{
		fprintf(stderr, "%.*s\nline %d, column %d: %s\n", (int) json->length, json->text,
				error.line, error.column, error.message);
		abort();
	}
	again = write_json(document);
	check(again.length == json->length && memcmp(again.text, json->text, json->length) == 0);
	check(yaml_core_unknown_tags(document)->count == 0);
	free(again.text);
	yaml_core_free(document);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	YamlError	error;
	YamlDocument *document = yaml_core_read((const char *) data, size, &limits, &error);
	Output		json;

	if (document == NULL)
	{
		check_error(&error);
		return 0;
	}
	json = write_json(document);
	check_text(yaml_core_unknown_tags(document)->first, strlen(yaml_core_unknown_tags(document)->first));
	if (!json.has_long_key)
		check_again(&json);
	free(json.text);
	yaml_core_free(document);
	return 0;
}
