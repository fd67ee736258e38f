/*
 * yaml_scalar.c
 *	  What a scalar is by the core schema of YAML 1.2, and which tags fit.
 */
#include "yaml_internal.h"

#include <stdio.h>
#include <string.h>

#define MAX_RADIX_DIGITS	1000	/* of a hexadecimal or octal number */
#define MAX_INTEGER_DIGITS	131072	/* what numeric can hold before the point ... */
#define MAX_FRACTION_DIGITS	16383	/* ... and after it */

#define TAG_PREFIX	"tag:yaml.org,2002:"
#define TAG_NULL	TAG_PREFIX "null"
#define TAG_BOOL	TAG_PREFIX "bool"
#define TAG_STR		TAG_PREFIX "str"
#define TAG_INT		TAG_PREFIX "int"
#define TAG_FLOAT	TAG_PREFIX "float"
#define TAG_SEQ		TAG_PREFIX "seq"
#define TAG_MAP		TAG_PREFIX "map"

/* Of YAML 1.1's types, what JSON has no value for is what it is written as. */
#define TAG_BINARY		TAG_PREFIX "binary"
#define TAG_TIMESTAMP	TAG_PREFIX "timestamp"
#define TAG_SET			TAG_PREFIX "set"
#define TAG_OMAP		TAG_PREFIX "omap"
#define TAG_PAIRS		TAG_PREFIX "pairs"

/* How many of the characters from p on are decimal digits. */
static size_t
count_digits(const char *p, const char *end)
{
	const char *start = p;

	while (p < end && *p >= '0' && *p <= '9')
		p++;
	return (size_t) (p - start);
}

static bool
is_one_of(const char *text, size_t length, const char *const *words)
{
	for (; *words != NULL; words++)
		if (strlen(*words) == length && memcmp(*words, text, length) == 0)
			return true;
	return false;
}

static bool
is_null(const char *text, size_t length)
{
	static const char *const words[] = {"", "~", "null", "Null", "NULL", NULL};

	return is_one_of(text, length, words);
}

static bool
is_true(const char *text, size_t length)
{
	static const char *const words[] = {"true", "True", "TRUE", NULL};

	return is_one_of(text, length, words);
}

static bool
is_false(const char *text, size_t length)
{
	static const char *const words[] = {"false", "False", "FALSE", NULL};

	return is_one_of(text, length, words);
}

/* .inf and .nan, which JSON has no number for. */
static bool
is_not_finite(const char *text, size_t length)
{
	static const char *const infinite[] = {".inf", ".Inf", ".INF", NULL};
	static const char *const not_a_number[] = {".nan", ".NaN", ".NAN", NULL};

	if (is_one_of(text, length, not_a_number))
		return true;
	if (length > 0 && (text[0] == '+' || text[0] == '-'))
	{
		text++;
		length--;
	}
	return is_one_of(text, length, infinite);
}

/* 8 for 0o17, 16 for 0x1F, else 0. */
static int
radix_of(const char *text, size_t length)
{
	int			radix;

	if (length < 3 || text[0] != '0' || (text[1] != 'o' && text[1] != 'x'))
		return 0;
	radix = text[1] == 'o' ? 8 : 16;
	for (size_t i = 2; i < length; i++)
	{
		int64_t		digit = yaml_hex_value(text + i, 1, 1);

		if (digit < 0 || digit >= radix)
			return 0;
	}
	return radix;
}

/* Writes a hexadecimal or octal number in decimal, at any length. */
static bool
convert_radix(YamlReader *reader, YamlPlace at, YamlNode *node, int radix)
{
	uint32_t	part[MAX_RADIX_DIGITS * 4 / 29 + 2];	/* nine digits each, lowest first */
	size_t		parts = 1;
	const char *p = node->raw + 2;
	const char *end = node->raw + node->raw_length;
	char	   *out;
	size_t		length;

	while (p < end - 1 && *p == '0')
		p++;
	if (end - p > MAX_RADIX_DIGITS)
		return yaml_fail(reader, at, NULL, "the number has too many digits");
	part[0] = 0;
	for (; p < end; p++)
	{
		uint64_t	carry = (uint64_t) yaml_hex_value(p, 1, 1);

		for (size_t i = 0; i < parts; i++)
		{
			carry += (uint64_t) part[i] * (uint64_t) radix;
			part[i] = (uint32_t) (carry % 1000000000);
			carry /= 1000000000;
		}
		if (carry > 0)
			part[parts++] = (uint32_t) carry;
	}
	out = yaml_allocate(reader, parts * 9 + 1);
	if (out == NULL)
		return false;
	length = (size_t) sprintf(out, "%u", (unsigned int) part[parts - 1]);
	for (size_t i = parts - 1; i-- > 0;)
		length += (size_t) sprintf(out + length, "%09u", (unsigned int) part[i]);
	node->kind = YAML_KIND_NUMBER;
	node->text = out;
	node->length = length;
	return true;
}

/* The parts of a decimal number. */
typedef struct Decimal
{
	bool		negative;
	const char *integer;
	size_t		integer_digits;
	const char *fraction;
	size_t		fraction_digits;
	long		exponent;
	bool		is_integer;		/* written without point and exponent */
} Decimal;

/* Takes a decimal number apart; false where the text is none. */
static bool
parse_decimal(const char *text, size_t length, Decimal *d)
{
	const char *p = text;
	const char *end = text + length;

	memset(d, 0, sizeof(*d));
	d->is_integer = true;
	if (p < end && (*p == '+' || *p == '-'))
		d->negative = *p++ == '-';
	d->integer = p;
	d->integer_digits = count_digits(p, end);
	p += d->integer_digits;
	if (p < end && *p == '.')
	{
		d->is_integer = false;
		d->fraction = ++p;
		d->fraction_digits = count_digits(p, end);
		p += d->fraction_digits;
	}
	if (d->integer_digits + d->fraction_digits == 0)
		return false;
	if (p < end && (*p == 'e' || *p == 'E'))
	{
		bool		negative = false;
		size_t		digits;

		d->is_integer = false;
		p++;
		if (p < end && (*p == '+' || *p == '-'))
			negative = *p++ == '-';
		digits = count_digits(p, end);
		if (digits == 0)
			return false;
		for (; digits > 0; digits--, p++)
			if (d->exponent < 100000000)
				d->exponent = d->exponent * 10 + (*p - '0');
		if (negative)
			d->exponent = -d->exponent;
	}
	return p == end;
}

static bool
all_zero(const char *digits, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (digits[i] != '0')
			return false;
	return true;
}

/* Writes a decimal number as JSON does, every digit kept. */
static bool
convert_decimal(YamlReader *reader, YamlPlace at, YamlNode *node, Decimal *d)
{
	char	   *out;
	char	   *p;

	while (d->integer_digits > 0 && *d->integer == '0')
	{
		d->integer++;
		d->integer_digits--;
	}
	if (d->exponent > 0 && d->integer_digits == 0 && all_zero(d->fraction, d->fraction_digits))
		d->exponent = 0;
	if ((long) d->integer_digits + d->exponent > MAX_INTEGER_DIGITS ||
		(long) d->fraction_digits - d->exponent > MAX_FRACTION_DIGITS)
		return yaml_fail(reader, at, "Put it in quotes if it is text.", "the number is out of range");

	out = p = yaml_allocate(reader, d->integer_digits + d->fraction_digits + 32);
	if (out == NULL)
		return false;
	if (d->negative)
		*p++ = '-';
	if (d->integer_digits == 0)
		*p++ = '0';
	memcpy(p, d->integer, d->integer_digits);
	p += d->integer_digits;
	if (d->fraction_digits > 0)
	{
		*p++ = '.';
		memcpy(p, d->fraction, d->fraction_digits);
		p += d->fraction_digits;
	}
	if (d->exponent != 0)
		p += sprintf(p, "e%ld", d->exponent);
	*p = '\0';
	node->kind = YAML_KIND_NUMBER;
	node->text = out;
	node->length = (size_t) (p - out);
	return true;
}

static void
set_boolean(YamlNode *node, bool value)
{
	node->kind = YAML_KIND_BOOLEAN;
	node->boolean = value;
}

/* What a plain scalar without a tag is; its first character rules out most. */
bool
yaml_resolve_plain(YamlReader *reader, YamlPlace at, YamlNode *node)
{
	const char *text = node->raw;
	size_t		length = node->raw_length;
	int			radix;
	Decimal		decimal;

	if (length > 0 && strchr("~nNtTfF+-.0123456789", text[0]) == NULL)
		return true;
	if (is_null(text, length))
		node->kind = YAML_KIND_NULL;
	else if (is_true(text, length) || is_false(text, length))
		set_boolean(node, is_true(text, length));
	else if ((radix = radix_of(text, length)) != 0)
		return convert_radix(reader, at, node, radix);
	else if (parse_decimal(text, length, &decimal))
		return convert_decimal(reader, at, node, &decimal);
	else if (is_not_finite(text, length))
		return yaml_fail(reader, at,
						 "Put it in quotes if it is text.", "%.*s is not a number in JSON",
						 (int) length, text);
	return true;
}

/* Name of a tag as it is usually written: !!str for tag:yaml.org,2002:str. */
static const char *
tag_name(const char *tag, char buffer[64])
{
	static const char prefix[] = TAG_PREFIX;
	char		rest[64];

	if (strncmp(tag, prefix, sizeof(prefix) - 1) != 0)
		return yaml_excerpt(tag, strlen(tag), buffer);
	tag += sizeof(prefix) - 1;
	snprintf(buffer, 64, "!!%.60s", yaml_excerpt(tag, strlen(tag), rest));
	return buffer;
}

/*
 * A tag that the value does not fit, or that is none of YAML's though it says
 * so: most likely a slip of the pen.
 */
static bool
fail_for_tag(YamlReader *reader, YamlPlace at, const char *tag)
{
	static const char *const known[] = {
		TAG_NULL, TAG_BOOL, TAG_STR, TAG_INT, TAG_FLOAT, TAG_SEQ, TAG_MAP,
		TAG_BINARY, TAG_TIMESTAMP, TAG_SET, TAG_OMAP, TAG_PAIRS, NULL
	};
	char		name[64];

	tag_name(tag, name);
	if (is_one_of(tag, strlen(tag), known))
		return yaml_fail(reader, at, NULL,
						 "the value does not fit its tag %s", name);
	return yaml_fail(reader, at,
					 "YAML's own tags are !!str, !!int, !!float, !!bool, !!null, !!seq and !!map.",
					 "unknown tag %s", name);
}

/* A tag of somebody else's, which says nothing to us: false where it is YAML's. */
static bool
is_foreign_tag(YamlReader *reader, YamlPlace at, const char *tag)
{
	YamlTags   *tags = &reader->unknown_tags;

	if (strncmp(tag, TAG_PREFIX, sizeof(TAG_PREFIX) - 1) == 0)
		return false;
	if (tags->count++ == 0)
	{
		tag_name(tag, tags->first);
		tags->line = at.line;
		tags->column = at.column;
	}
	return true;
}

/* Makes of a scalar what its tag says. */
bool
yaml_resolve_tagged(YamlReader *reader, YamlPlace at, YamlNode *node, const char *tag)
{
	const char *text = node->raw;
	size_t		length = node->raw_length;
	int			radix = radix_of(text, length);
	Decimal		decimal;
	bool		number = parse_decimal(text, length, &decimal);

	if (strcmp(tag, TAG_STR) == 0 || strcmp(tag, "!") == 0 ||
		strcmp(tag, TAG_BINARY) == 0 || strcmp(tag, TAG_TIMESTAMP) == 0)
		node->kind = YAML_KIND_STRING;
	else if (strcmp(tag, TAG_NULL) == 0 && is_null(text, length))
		node->kind = YAML_KIND_NULL;
	else if (strcmp(tag, TAG_BOOL) == 0 && (is_true(text, length) || is_false(text, length)))
		set_boolean(node, is_true(text, length));
	else if (strcmp(tag, TAG_INT) == 0 && radix != 0)
		return convert_radix(reader, at, node, radix);
	else if ((strcmp(tag, TAG_INT) == 0 && number && decimal.is_integer) ||
			 (strcmp(tag, TAG_FLOAT) == 0 && number))
		return convert_decimal(reader, at, node, &decimal);
	else if (strcmp(tag, TAG_FLOAT) == 0 && is_not_finite(text, length))
		return yaml_resolve_plain(reader, at, node);	/* which refuses it */
	else if (is_foreign_tag(reader, at, tag))
		node->kind = YAML_KIND_STRING;
	else
		return fail_for_tag(reader, at, tag);
	return true;
}

/* Does a list or a mapping fit its tag? */
bool
yaml_check_collection_tag(YamlReader *reader, YamlPlace at, YamlKind kind, const char *tag)
{
	static const char *const of_mappings[] = {TAG_MAP, TAG_SET, "!", NULL};
	static const char *const of_sequences[] = {TAG_SEQ, TAG_OMAP, TAG_PAIRS, "!", NULL};

	return tag == NULL ||
		is_one_of(tag, strlen(tag), kind == YAML_KIND_MAPPING ? of_mappings : of_sequences) ||
		is_foreign_tag(reader, at, tag) ||
		fail_for_tag(reader, at, tag);
}
