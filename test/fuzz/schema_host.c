/*
 * schema_host.c
 *	  JSON Schema outside the server: JSON text in jsonb's binary form, and the
 *	  functions that the core wants of its host.
 *
 * Numbers are encoded as the server's numeric, so that the core reads here what
 * it reads there.  GMP says what is a multiple.
 */
#include <gmp.h>
#include <stdio.h>
#include <stdlib.h>

#include "schema_host.h"

#define MAX_LEVELS		1500
#define MAX_INTEGER		2000	/* digits */
#define MAX_SCALE		2000
#define STRIDE			32		/* each so many entries have an offset, the others a length */

/*
 * Memory: all of it goes at once
 */

typedef struct Block
{
	struct Block *next;
	max_align_t data[];
} Block;

struct Arena
{
	Block	   *blocks;
};

Arena *
arena_new(void)
{
	return calloc(1, sizeof(Arena));
}

void
arena_free(Arena *arena)
{
	while (arena->blocks != NULL)
	{
		Block	   *next = arena->blocks->next;

		free(arena->blocks);
		arena->blocks = next;
	}
	free(arena);
}

void *
host_alloc(void *arena, size_t size)
{
	Arena	   *owner = arena;
	Block	   *block = malloc(sizeof(Block) + size);

	if (block == NULL)
		abort();
	block->next = owner->blocks;
	owner->blocks = block;
	return block->data;
}

/*
 * Reading JSON
 */

typedef struct Tree
{
	int			type;
	bool		boolean;
	const char *text;			/* string or number */
	size_t		length;
	struct Member *members;
	size_t		count;
	size_t		size;
} Tree;

typedef struct Member
{
	const char *key;
	size_t		length;
	size_t		number;			/* in the text */
	Tree		value;
} Member;

typedef struct Parser
{
	Arena	   *arena;
	const char *at;
	const char *end;
	int			level;
} Parser;

static bool parse_value(Parser *parser, Tree *tree);

static void
skip_space(Parser *parser)
{
	while (parser->at < parser->end && strchr(" \t\n\r", *parser->at) != NULL && *parser->at != '\0')
		parser->at++;
}

static bool
take(Parser *parser, char c)
{
	if (parser->at == parser->end || *parser->at != c)
		return false;
	parser->at++;
	return true;
}

static bool
take_word(Parser *parser, const char *word)
{
	size_t		length = strlen(word);

	if ((size_t) (parser->end - parser->at) < length || memcmp(parser->at, word, length) != 0)
		return false;
	parser->at += length;
	return true;
}

static bool
parse_hex(Parser *parser, uint32_t *value)
{
	*value = 0;
	for (int i = 0; i < 4; i++, parser->at++)
	{
		char		c = parser->at < parser->end ? *parser->at : 'x';

		if (c >= '0' && c <= '9')
			*value = *value * 16 + (c - '0');
		else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
			*value = *value * 16 + ((c | 0x20) - 'a' + 10);
		else
			return false;
	}
	return true;
}

static char *
put_utf8(char *out, uint32_t c)
{
	if (c < 0x80)
		*out++ = (char) c;
	else if (c < 0x800)
	{
		*out++ = (char) (0xC0 | c >> 6);
		*out++ = (char) (0x80 | (c & 0x3F));
	}
	else if (c < 0x10000)
	{
		*out++ = (char) (0xE0 | c >> 12);
		*out++ = (char) (0x80 | (c >> 6 & 0x3F));
		*out++ = (char) (0x80 | (c & 0x3F));
	}
	else
	{
		*out++ = (char) (0xF0 | c >> 18);
		*out++ = (char) (0x80 | (c >> 12 & 0x3F));
		*out++ = (char) (0x80 | (c >> 6 & 0x3F));
		*out++ = (char) (0x80 | (c & 0x3F));
	}
	return out;
}

static bool
parse_escape(Parser *parser, char **out)
{
	static const char pairs[] = "\"\"\\\\//b\bf\fn\nr\rt\t";
	uint32_t	c;
	uint32_t	low;

	if (take(parser, 'u'))
	{
		if (!parse_hex(parser, &c) || c == 0)
			return false;
		if (c >= 0xDC00 && c <= 0xDFFF)
			return false;
		if (c >= 0xD800 && c <= 0xDBFF)
		{
			if (!take(parser, '\\') || !take(parser, 'u') || !parse_hex(parser, &low) ||
				low < 0xDC00 || low > 0xDFFF)
				return false;
			c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
		}
		*out = put_utf8(*out, c);
		return true;
	}
	for (size_t i = 0; parser->at < parser->end && i + 1 < sizeof(pairs); i += 2)
		if (pairs[i] == *parser->at)
		{
			parser->at++;
			*(*out)++ = pairs[i + 1];
			return true;
		}
	return false;
}

/* As the server, which takes no text that is not UTF-8. */
static bool
is_utf8(const char *text, size_t length)
{
	const unsigned char *at = (const unsigned char *) text;
	const unsigned char *end = at + length;

	while (at < end)
	{
		int			more = *at < 0x80 ? 0 : *at >= 0xF0 ? 3 : *at >= 0xE0 ? 2 : 1;
		uint32_t	c = *at & (more == 0 ? 0x7F : 0x3F >> more);

		if ((*at >= 0x80 && *at < 0xC2) || *at > 0xF4 || end - at <= more)
			return false;
		for (int i = 1; i <= more; i++)
		{
			if ((at[i] & 0xC0) != 0x80)
				return false;
			c = c << 6 | (at[i] & 0x3F);
		}
		if ((more == 2 && c < 0x800) || (more == 3 && (c < 0x10000 || c > 0x10FFFF)) ||
			(c >= 0xD800 && c <= 0xDFFF))
			return false;
		at += more + 1;
	}
	return true;
}

static bool
parse_string(Parser *parser, const char **text, size_t *length)
{
	char	   *out;

	if (!take(parser, '"'))
		return false;
	out = host_alloc(parser->arena, parser->end - parser->at + 4);
	*text = out;
	while (parser->at < parser->end && *parser->at != '"')
	{
		if ((unsigned char) *parser->at < ' ')
			return false;
		if (*parser->at != '\\')
			*out++ = *parser->at++;
		else
		{
			parser->at++;
			if (!parse_escape(parser, &out))
				return false;
		}
	}
	*length = out - *text;
	return take(parser, '"') && is_utf8(*text, *length);
}

static bool
parse_number(Parser *parser, Tree *tree)
{
	const char *begin = parser->at;
	const char *digits;

	tree->type = TYPE_NUMBER;
	tree->text = begin;
	take(parser, '-');
	digits = parser->at;
	while (parser->at < parser->end && *parser->at >= '0' && *parser->at <= '9')
		parser->at++;
	if (parser->at == digits || (*digits == '0' && parser->at - digits > 1))
		return false;
	if (take(parser, '.'))
	{
		digits = parser->at;
		while (parser->at < parser->end && *parser->at >= '0' && *parser->at <= '9')
			parser->at++;
		if (parser->at == digits)
			return false;
	}
	if (take(parser, 'e') || take(parser, 'E'))
	{
		if (!take(parser, '+'))
			take(parser, '-');
		digits = parser->at;
		while (parser->at < parser->end && *parser->at >= '0' && *parser->at <= '9')
			parser->at++;
		if (parser->at == digits || parser->at - digits > 5)
			return false;
	}
	tree->length = parser->at - begin;
	return true;
}

static Member *
add_member(Parser *parser, Tree *tree)
{
	if (tree->count == tree->size)
	{
		Member	   *old = tree->members;

		tree->size = tree->size ? tree->size * 2 : 4;
		tree->members = host_alloc(parser->arena, tree->size * sizeof(Member));
		if (tree->count > 0)
			memcpy(tree->members, old, tree->count * sizeof(Member));
	}
	memset(&tree->members[tree->count], 0, sizeof(Member));
	tree->members[tree->count].number = tree->count;
	return &tree->members[tree->count++];
}

static int
compare_members(const void *a, const void *b)
{
	const Member *x = a;
	const Member *y = b;
	int			order = compare_keys(x->key, x->length, y->key, y->length);

	return order ? order : x->number < y->number ? -1 : 1;
}

/* In the order of jsonb; of those with the same key the last one stays. */
static void
sort_members(Tree *tree)
{
	size_t		used = 0;

	if (tree->count == 0)
		return;
	qsort(tree->members, tree->count, sizeof(Member), compare_members);
	for (size_t i = 1; i < tree->count; i++)
	{
		Member	   *last = &tree->members[used];
		Member	   *next = &tree->members[i];

		if (compare_keys(last->key, last->length, next->key, next->length) != 0)
			used++;
		tree->members[used] = *next;
	}
	tree->count = used + 1;
}

static bool
parse_container(Parser *parser, Tree *tree, char end)
{
	bool		good = true;

	tree->type = end == '}' ? TYPE_OBJECT : TYPE_ARRAY;
	if (++parser->level > MAX_LEVELS)
		return false;
	skip_space(parser);
	if (!take(parser, end))
		do
		{
			Member	   *member = add_member(parser, tree);

			skip_space(parser);
			if (end == '}')
			{
				good = parse_string(parser, &member->key, &member->length);
				skip_space(parser);
				good = good && take(parser, ':');
			}
			good = good && parse_value(parser, &member->value);
			skip_space(parser);
		} while (good && take(parser, ','));
	else
	{
		parser->level--;
		return true;
	}
	parser->level--;
	if (!good || !take(parser, end))
		return false;
	if (end == '}')
		sort_members(tree);
	return true;
}

static bool
parse_value(Parser *parser, Tree *tree)
{
	memset(tree, 0, sizeof(Tree));
	skip_space(parser);
	if (take(parser, '{'))
		return parse_container(parser, tree, '}');
	if (take(parser, '['))
		return parse_container(parser, tree, ']');
	if (parser->at < parser->end && *parser->at == '"')
	{
		tree->type = TYPE_STRING;
		return parse_string(parser, &tree->text, &tree->length);
	}
	if (take_word(parser, "null"))
	{
		tree->type = TYPE_NULL;
		return true;
	}
	tree->boolean = take_word(parser, "true");
	if (tree->boolean || take_word(parser, "false"))
	{
		tree->type = TYPE_BOOLEAN;
		return true;
	}
	return parse_number(parser, tree);
}

/*
 * Writing the binary form
 */

typedef struct Output
{
	char	   *data;
	size_t		used;
	size_t		size;
} Output;

static void
put(Output *out, const void *data, size_t length)
{
	while (out->used + length > out->size)
	{
		out->size = out->size ? out->size * 2 : 256;
		out->data = realloc(out->data, out->size);
		if (out->data == NULL)
			abort();
	}
	if (length > 0)
		memcpy(out->data + out->used, data, length);
	out->used += length;
}

static void
put_padding(Output *out)
{
	put(out, "\0\0\0", align4((uint32_t) out->used) - out->used);
}

/* A number's digits without point and exponent. */
typedef struct Decimal
{
	bool		negative;
	char		digits[MAX_INTEGER + MAX_SCALE + 8];
	int			count;
	int			before_point;	/* digits; may be negative, or more than there are */
	int			scale;
} Decimal;

static int
read_exponent(const char *at, const char *end)
{
	bool		negative = *at == '-';
	int			value = 0;

	at += *at == '-' || *at == '+';
	for (; at < end; at++)
		value = value * 10 + (*at - '0');
	return negative ? -value : value;
}

static bool
read_decimal(const Tree *tree, Decimal *decimal)
{
	const char *at = tree->text;
	const char *end = tree->text + tree->length;
	int			exponent = 0;
	int			behind = 0;
	bool		point = false;

	decimal->negative = *at == '-';
	decimal->count = 0;
	decimal->before_point = 0;
	at += decimal->negative;
	for (; at < end && (*at | 0x20) != 'e'; at++)
	{
		if (*at == '.')
		{
			point = true;
			continue;
		}
		if (decimal->count == MAX_INTEGER)
			return false;
		decimal->digits[decimal->count++] = (char) (*at - '0');
		if (point)
			behind++;
		else
			decimal->before_point++;
	}
	if (at < end)
		exponent = read_exponent(at + 1, end);
	decimal->before_point += exponent;
	decimal->scale = behind - exponent > 0 ? behind - exponent : 0;
	return decimal->before_point <= MAX_INTEGER && decimal->scale <= MAX_SCALE &&
		decimal->before_point >= -MAX_SCALE;
}

static int
decimal_digit(const Decimal *decimal, int place)
{
	int			index = decimal->before_point - 1 - place;

	return index >= 0 && index < decimal->count ? decimal->digits[index] : 0;
}

/* Place 0 is that of the ones; each digit of numeric takes four places. */
static bool
put_number(Output *out, const Tree *tree)
{
	Decimal		decimal;
	int16_t		digits[(MAX_INTEGER + MAX_SCALE) / 2 + 16];
	int			weight;
	int			count = 0;
	int			first = 0;
	uint32_t	length;
	char		head[8];
	size_t		head_used = 4;

	if (!read_decimal(tree, &decimal))
		return false;
	weight = (decimal.before_point > 0 ? (decimal.before_point + 3) / 4 : 0);
	for (int w = weight; w >= -(decimal.scale / 4 + 1); w--)
		digits[count++] = (int16_t) (decimal_digit(&decimal, 4 * w + 3) * 1000 +
									 decimal_digit(&decimal, 4 * w + 2) * 100 +
									 decimal_digit(&decimal, 4 * w + 1) * 10 +
									 decimal_digit(&decimal, 4 * w));
	while (first < count && digits[first] == 0)
	{
		first++;
		weight--;
	}
	while (count > first && digits[count - 1] == 0)
		count--;
	if (count == first)
	{
		weight = 0;
		decimal.negative = false;
	}
	if (decimal.scale <= 63 && weight >= -64 && weight <= 63)
	{
		uint16_t	flags = (uint16_t) (0x8000 | (decimal.negative ? 0x2000 : 0) |
										decimal.scale << 7 | (weight < 0 ? 0x40 : 0) |
										(weight & 0x3F));

		memcpy(head + 4, &flags, 2);
		head_used += 2;
	}
	else
	{
		uint16_t	flags = (uint16_t) ((decimal.negative ? 0x4000 : 0) | decimal.scale);
		int16_t		stored = (int16_t) weight;

		memcpy(head + 4, &flags, 2);
		memcpy(head + 6, &stored, 2);
		head_used += 4;
	}
	length = (uint32_t) (head_used + 2 * (size_t) (count - first)) << 2;
	memcpy(head, &length, 4);
	put(out, head, head_used);
	put(out, digits + first, 2 * (size_t) (count - first));
	return true;
}

static bool put_container(Output *out, const Tree *tree);

/* Writes a value behind its padding; returns its entry without the size. */
static bool
put_value(Output *out, const Tree *tree, uint32_t *entry)
{
	switch (tree->type)
	{
		case TYPE_STRING:
			*entry = ENTRY_STRING;
			put(out, tree->text, tree->length);
			return true;
		case TYPE_NUMBER:
			*entry = ENTRY_NUMBER;
			put_padding(out);
			return put_number(out, tree);
		case TYPE_NULL:
			*entry = ENTRY_NULL;
			return true;
		case TYPE_BOOLEAN:
			*entry = tree->boolean ? ENTRY_TRUE : ENTRY_FALSE;
			return true;
		default:
			*entry = ENTRY_CONTAINER;
			put_padding(out);
			return put_container(out, tree);
	}
}

static void
set_entry(Output *out, size_t entries, size_t index, uint32_t entry, size_t start, size_t base)
{
	if (index % STRIDE == 0)
		entry |= ENTRY_HAS_OFFSET | (uint32_t) (out->used - base);
	else
		entry |= (uint32_t) (out->used - start);
	memcpy(out->data + entries + 4 * index, &entry, 4);
}

static bool
put_container(Output *out, const Tree *tree)
{
	bool		is_object = tree->type == TYPE_OBJECT;
	uint32_t	header = (uint32_t) tree->count | (is_object ? BINARY_IS_OBJECT : BINARY_IS_ARRAY);
	size_t		entry_count = tree->count * (is_object ? 2 : 1);
	size_t		entries;
	size_t		base;

	put(out, &header, 4);
	entries = out->used;
	for (size_t i = 0; i < entry_count; i++)
		put(out, "\0\0\0\0", 4);
	base = out->used;
	for (size_t i = 0; is_object && i < tree->count; i++)
	{
		size_t		start = out->used;

		put(out, tree->members[i].key, tree->members[i].length);
		set_entry(out, entries, i, ENTRY_STRING, start, base);
	}
	for (size_t i = 0; i < tree->count; i++)
	{
		size_t		start = out->used;
		uint32_t	entry;

		if (!put_value(out, &tree->members[i].value, &entry))
			return false;
		set_entry(out, entries, (is_object ? tree->count : 0) + i, entry, start, base);
	}
	return true;
}

/* false: it is no JSON, or not what a jsonb can hold.  shift: how far from being aligned. */
bool
json_to_binary(Arena *arena, const char *text, size_t length, size_t shift, JsonValue *value)
{
	Parser		parser = {arena, text, text + length, 0};
	Tree		tree;
	Output		out = {NULL, 0, 0};
	bool		good;
	char	   *copy;

	if (!parse_value(&parser, &tree))
		return false;
	skip_space(&parser);
	if (parser.at != parser.end)
		return false;
	if (tree.type & (TYPE_OBJECT | TYPE_ARRAY))
		good = put_container(&out, &tree);
	else
	{
		uint32_t	header = 1 | BINARY_IS_ARRAY | BINARY_IS_SCALAR;
		uint32_t	entry = 0;

		put(&out, &header, 4);
		put(&out, &entry, 4);
		good = put_value(&out, &tree, &entry);
		set_entry(&out, 4, 0, entry, 8, 8);
	}
	copy = host_alloc(arena, out.used + shift);
	memcpy(copy + shift, out.data, out.used);
	free(out.data);
	if (good)
		root_value(value, copy + shift, (uint32_t) out.used);
	return good;
}

/*
 * What else the core wants
 */

void
host_pause(void)
{
}

/* Only for texts that are not UTF-8. */
size_t
host_characters(const char *text, size_t length)
{
	return length;
}

size_t
host_clip(const char *text, size_t length, size_t limit)
{
	return limit;
}

static const char *stored_schema = NULL;
static size_t stored_length = 0;

void
host_store(const char *text, size_t length)
{
	stored_schema = text;
	stored_length = length;
}

/* Under one URI there is the input once more, under others there is something by which it can be read. */
bool
host_fetch_schema(void *arena, const char *uri, JsonValue *schema)
{
	static const char assertion[] =
		"{\"$schema\": \"https://json-schema.org/draft/2020-12/schema\", \"$vocabulary\": {"
		"\"https://json-schema.org/draft/2020-12/vocab/core\": true,"
		"\"https://json-schema.org/draft/2020-12/vocab/applicator\": true,"
		"\"https://json-schema.org/draft/2020-12/vocab/unevaluated\": true,"
		"\"https://json-schema.org/draft/2020-12/vocab/validation\": true,"
		"\"https://json-schema.org/draft/2020-12/vocab/format-assertion\": true}}";

	if (strcmp(uri, "x:self") == 0 && stored_schema != NULL)
		return json_to_binary(arena, stored_schema, stored_length, 0, schema);
	if (strcmp(uri, "x:format") == 0)
		return json_to_binary(arena, assertion, strlen(assertion), 0, schema);
	return false;
}

struct HostRegex
{
	bool		matches;
};

/* There is none here: that it was written well must do. */
HostRegex *
host_regex_compile(void *arena, const char *pattern, size_t length, const char **reason)
{
	HostRegex  *regex = host_alloc(arena, sizeof(HostRegex));

	regex->matches = length % 2 != 0;
	return regex;
}

bool
host_regex_match(const HostRegex *regex, const char *text, size_t length)
{
	return regex->matches;
}

static void
set_mpz(mpz_t out, const Number *number, int lowest)
{
	mpz_t		power;

	mpz_init(power);
	mpz_set_ui(out, 0);
	for (int i = 0; i < number->count; i++)
	{
		int16_t		digit;

		memcpy(&digit, number->digits + 2 * (size_t) i, 2);
		mpz_mul_ui(out, out, 10000);
		mpz_add_ui(out, out, (unsigned long) digit);
	}
	mpz_ui_pow_ui(power, 10000, (unsigned long) (number->weight - number->count + 1 - lowest));
	mpz_mul(out, out, power);
	mpz_clear(power);
}

bool
exact_is_multiple(const JsonValue *value, const JsonValue *of)
{
	Number		a;
	Number		b;
	int			lowest;
	mpz_t		x;
	mpz_t		y;
	bool		result;

	read_number(&a, value);
	read_number(&b, of);
	lowest = a.weight - a.count < b.weight - b.count ? a.weight - a.count + 1 : b.weight - b.count + 1;
	mpz_inits(x, y, NULL);
	set_mpz(x, &a, lowest);
	set_mpz(y, &b, lowest);
	result = mpz_divisible_p(x, y) != 0;
	mpz_clears(x, y, NULL);
	return result;
}

bool
host_is_multiple(const JsonValue *number, const JsonValue *of)
{
	return exact_is_multiple(number, of);
}
