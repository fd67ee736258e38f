/*
 * yaml_core.c
 *	  Reads one YAML document into a tree, by the core schema of YAML 1.2.
 *
 * libyaml delivers events; this file makes them nodes, and decides what YAML
 * 1.2 decides differently from the 1.1 that libyaml was written for.  The tree
 * is built without recursion, so deep input can't overflow the stack.  What an
 * alias stands for is shared, not copied, and charged in full against the
 * limits, so a few lines can't grow into gigabytes.
 *
 * What libyaml refuses of YAML 1.2 stays refused: a key in a flow mapping whose
 * colon stands on another line, a tab after the dash of a list, and the like.
 *
 * This is the only file that includes yaml.h.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE				/* tdestroy */
#endif

#include "yaml_core.h"

#include <search.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#define CHUNK_SIZE			16384
#define MAX_DIRECTIVES		32	/* libyaml compares each with all before it */
#define MAX_RADIX_DIGITS	1000	/* of a hexadecimal or octal number */
#define MAX_INTEGER_DIGITS	131072	/* what numeric can hold before the point ... */
#define MAX_FRACTION_DIGITS	16383	/* ... and after it */

/*
 * Stand-ins for what libyaml reads otherwise than YAML 1.2 does.  They are
 * noncharacters, which Unicode sets apart for such use within a program; a text
 * that has one of these four is refused.  Each takes as many characters as what
 * it stands for, so columns stay true.
 */
#define MARK_ESCAPE			0xFDD0	/* twice: \u, before half of a surrogate pair */
#define MARK_NEXT_LINE		0xFDD1	/* U+0085: no line break in YAML 1.2 */
#define MARK_LINE			0xFDD2	/* U+2028: likewise */
#define MARK_PARAGRAPH		0xFDD3	/* U+2029: likewise */

/* All memory of a document, freed at once. */
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
};

typedef struct Anchor
{
	const char *name;
	YamlNode   *node;
} Anchor;

/* A collection that is being read. */
typedef struct Frame
{
	YamlNode   *node;
	size_t		first_item;		/* of its items, which lie at the end of Reader.items */
	YamlItem	pending;		/* key that waits for its value */
	bool		has_key;
	bool		is_merge;		/* the pending key is << */
	YamlItem	merge;			/* << and its value; value NULL: none */
} Frame;

typedef struct Reader
{
	YamlDocument *document;
	const YamlLimits *limits;
	YamlError  *error;
	const char *text;			/* what libyaml reads */
	size_t		length;
	char	   *marked;			/* the text with stand-ins; NULL: none needed */
	YamlItem   *items;			/* of all open collections */
	size_t		item_count;
	size_t		item_space;
	Frame	   *frames;
	int			depth;
	void	   *anchors;		/* tree of Anchor, by name */
	size_t		nodes;
	size_t		bytes;
} Reader;

static bool
fail(Reader *reader, int line, int column, const char *hint, const char *format,...)
__attribute__((format(printf, 5, 6)));

/* Notes the error; false, so that callers can return it. */
static bool
fail(Reader *reader, int line, int column, const char *hint, const char *format,...)
{
	YamlError  *error = reader->error;
	va_list		args;

	va_start(args, format);
	vsnprintf(error->message, sizeof(error->message), format, args);
	va_end(args);
	snprintf(error->hint, sizeof(error->hint), "%s", hint ? hint : "");
	error->line = line;
	error->column = column;
	return false;
}

static bool
fail_at(Reader *reader, const yaml_mark_t *mark, const char *hint, const char *message)
{
	return fail(reader, (int) mark->line + 1, (int) mark->column + 1, hint, "%s", message);
}

static bool
out_of_memory(Reader *reader)
{
	reader->error->out_of_memory = true;
	return fail(reader, 0, 0, NULL, "out of memory");
}

static void *
allocate(Reader *reader, size_t size)
{
	Chunk	   *chunk = reader->document->chunks;
	void	   *result;

	size = (size + sizeof(max_align_t) - 1) & ~(sizeof(max_align_t) - 1);
	if (chunk == NULL || chunk->size - chunk->used < size)
	{
		size_t		space = size > CHUNK_SIZE ? size : CHUNK_SIZE;

		chunk = malloc(sizeof(Chunk) + space);
		if (chunk == NULL)
		{
			out_of_memory(reader);
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

/*
 * What libyaml is not to see: bytes that are no UTF-8, characters that YAML does
 * not allow, and what it would read otherwise than YAML 1.2.
 */

static bool
is_mark(int64_t code)
{
	return code >= MARK_ESCAPE && code <= MARK_PARAGRAPH;
}

/* Code point at p, and its length; 0 where it is no UTF-8. */
static int
decode_utf8(const unsigned char *p, size_t left, uint32_t *code)
{
	int			length = p[0] < 0x80 ? 1 : p[0] < 0xC2 ? 0 : p[0] < 0xE0 ? 2 :
		p[0] < 0xF0 ? 3 : p[0] < 0xF5 ? 4 : 0;
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};

	if (length == 0 || (size_t) length > left)
		return 0;
	*code = length == 1 ? p[0] : p[0] & (0x7F >> length);
	for (int i = 1; i < length; i++)
	{
		if ((p[i] & 0xC0) != 0x80)
			return 0;
		*code = *code << 6 | (p[i] & 0x3F);
	}
	if (*code < least[length] || *code > 0x10FFFF || (*code >= 0xD800 && *code <= 0xDFFF))
		return 0;
	return length;
}

/* A short piece of the text for a message: cut between characters, on one line. */
static const char *
excerpt(const char *text, size_t length, char buffer[64])
{
	size_t		n = 0;

	for (size_t i = 0; i < length;)
	{
		uint32_t	code;
		int			size = decode_utf8((const unsigned char *) text + i, length - i, &code);

		if (n + 4 > 56)
		{
			strcpy(buffer + n, "...");
			return buffer;
		}
		if (size == 0 || code < 0x20 || code == 0x7F || is_mark(code))
		{
			buffer[n++] = size == 0 || is_mark(code) ? '?' : ' ';
			i += size == 0 ? 1 : (size_t) size;
			continue;
		}
		memcpy(buffer + n, text + i, (size_t) size);
		n += (size_t) size;
		i += (size_t) size;
	}
	buffer[n] = '\0';
	return buffer;
}

static size_t
encode_utf8(uint32_t code, char *out)
{
	if (code < 0x80)
	{
		out[0] = (char) code;
		return 1;
	}
	if (code < 0x800)
	{
		out[0] = (char) (0xC0 | code >> 6);
		out[1] = (char) (0x80 | (code & 0x3F));
		return 2;
	}
	if (code < 0x10000)
	{
		out[0] = (char) (0xE0 | code >> 12);
		out[1] = (char) (0x80 | (code >> 6 & 0x3F));
		out[2] = (char) (0x80 | (code & 0x3F));
		return 3;
	}
	out[0] = (char) (0xF0 | code >> 18);
	out[1] = (char) (0x80 | (code >> 12 & 0x3F));
	out[2] = (char) (0x80 | (code >> 6 & 0x3F));
	out[3] = (char) (0x80 | (code & 0x3F));
	return 4;
}

/* Value of that many hexadecimal digits, or -1. */
static int64_t
hex_value(const char *p, size_t left, int digits)
{
	int64_t		value = 0;

	if (left < (size_t) digits)
		return -1;
	for (int i = 0; i < digits; i++)
	{
		char		c = p[i];

		if (c >= '0' && c <= '9')
			value = value * 16 + (c - '0');
		else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
			value = value * 16 + ((c | 0x20) - 'a' + 10);
		else
			return -1;
	}
	return value;
}

/* The code point an escape at p names, by \u or \U; -1: it is no such escape. */
static int64_t
escaped_code(const char *p, size_t left)
{
	if (left < 2 || p[0] != '\\')
		return -1;
	if (p[1] == 'u')
		return hex_value(p + 2, left - 2, 4);
	if (p[1] == 'U')
		return hex_value(p + 2, left - 2, 8);
	return -1;
}

/* Is there a surrogate pair in JSON's spelling at p? */
static bool
is_surrogate_pair(const char *p, size_t left)
{
	int64_t		high;
	int64_t		low;

	if (left < 12 || p[1] != 'u' || p[7] != 'u')
		return false;
	high = escaped_code(p, left);
	low = escaped_code(p + 6, left - 6);
	return high >= 0xD800 && high <= 0xDBFF && low >= 0xDC00 && low <= 0xDFFF;
}

static uint32_t
mark_for(uint32_t code)
{
	switch (code)
	{
		case 0x85:
			return MARK_NEXT_LINE;
		case 0x2028:
			return MARK_LINE;
		case 0x2029:
			return MARK_PARAGRAPH;
		default:
			return 0;
	}
}

static bool
is_allowed(uint32_t code)
{
	return code == 0x09 || code == 0x0A || code == 0x0D || (code >= 0x20 && code <= 0x7E) ||
		code == 0x85 || (code >= 0xA0 && code < 0xFEFF) || (code > 0xFEFF && code < 0xFFFE) ||
		code >= 0x10000;
}

/* Copies the text with stand-ins in it; what it needs them for is checked. */
static bool
substitute(Reader *reader)
{
	const char *p = reader->text;
	const char *end = p + reader->length;
	char	   *out = malloc(reader->length * 3 + 1);
	size_t		run = 0;		/* of backslashes before p */

	if (out == NULL)
		return out_of_memory(reader);
	reader->marked = out;
	while (p < end)
	{
		uint32_t	code = 0;
		int			length = decode_utf8((const unsigned char *) p, (size_t) (end - p), &code);

		if (code == '\\' && run % 2 == 0 && is_surrogate_pair(p, (size_t) (end - p)))
		{
			for (int half = 0; half < 2; half++, p += 6)
			{
				out += encode_utf8(MARK_ESCAPE, out);
				out += encode_utf8(MARK_ESCAPE, out);
				memcpy(out, p + 2, 4);
				out += 4;
			}
			run = 0;
			continue;
		}
		run = code == '\\' ? run + 1 : 0;
		if (mark_for(code) != 0)
			out += encode_utf8(mark_for(code), out);
		else
		{
			memcpy(out, p, (size_t) length);
			out += length;
		}
		p += length;
	}
	reader->length = (size_t) (out - reader->marked);
	reader->text = reader->marked;
	return true;
}

/* Checks every character, and puts stand-ins where they are needed. */
static bool
prepare(Reader *reader)
{
	const char *p = reader->text;
	const char *end = p + reader->length;
	int			line = 1;
	int			column = 1;
	size_t		run = 0;		/* of backslashes before p */
	bool		needed = false;

	while (p < end)
	{
		size_t		left = (size_t) (end - p);
		uint32_t	code;
		int			length = decode_utf8((const unsigned char *) p, left, &code);

		if (length == 0)
			return fail(reader, line, column, NULL, "this is not UTF-8");
		if (!is_allowed(code))
			return fail(reader, line, column,
						"In a text in double quotes it can be written as an escape.",
						"the character U+%04X is not allowed", (unsigned int) code);
		if (is_mark(code) || (code == '\\' && run % 2 == 0 && is_mark(escaped_code(p, left))))
			return fail(reader, line, column, NULL,
						"U+FDD0 to U+FDD3 are not characters and can't be used");
		if (mark_for(code) != 0 ||
			(code == '\\' && run % 2 == 0 && is_surrogate_pair(p, left)))
			needed = true;
		run = code == '\\' ? run + 1 : 0;
		if (code == '\n' || (code == '\r' && !(left > 1 && p[1] == '\n')))
		{
			line++;
			column = 1;
		}
		else
			column++;
		p += length;
	}
	return !needed || substitute(reader);
}

/* Puts back what stand-ins stand for; the result is never longer. */
static size_t
restore(char *text, size_t length, bool double_quoted)
{
	char	   *out = text;
	const char *p = text;
	const char *end = text + length;

	while (p < end)
	{
		uint32_t	code;
		int			n = decode_utf8((const unsigned char *) p, (size_t) (end - p), &code);

		if (n == 0 || !is_mark(code))
		{
			*out++ = *p++;
			continue;
		}
		p += n;
		if (code == MARK_NEXT_LINE)
			out += encode_utf8(0x85, out);
		else if (code == MARK_LINE)
			out += encode_utf8(0x2028, out);
		else if (code == MARK_PARAGRAPH)
			out += encode_utf8(0x2029, out);
		else if (double_quoted && end - p >= 17)
		{
			/* the second mark, four digits, two marks, four digits */
			int64_t		high = hex_value(p + 3, 4, 4);
			int64_t		low = hex_value(p + 13, 4, 4);

			out += encode_utf8((uint32_t) (0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00)), out);
			p += 17;
		}
		else
		{
			*out++ = '\\';
			*out++ = 'u';
			p += n;				/* the second mark */
		}
	}
	return (size_t) (out - text);
}

/* The line with that number, from 1; without its end. */
static const char *
find_line(const Reader *reader, int number, size_t *length)
{
	const char *p = reader->text;
	const char *end = p + reader->length;
	const char *start = p;

	for (int line = 1; line < number && p < end; p++)
	{
		if (*p == '\n' || (*p == '\r' && !(p + 1 < end && p[1] == '\n')))
		{
			line++;
			start = p + 1;
		}
	}
	p = start;
	while (p < end && *p != '\n' && *p != '\r')
		p++;
	*length = (size_t) (p - start);
	return start;
}

/* Does the line have a key with a value stuck to its colon? */
static bool
lacks_space_after_colon(const char *line, size_t length)
{
	size_t		i = 0;
	size_t		first;

	while (i < length && (line[i] == ' ' || (line[i] == '-' && i + 1 < length && line[i + 1] == ' ')))
		i++;
	first = i;
	while (i < length && (line[i] == '_' || line[i] == '-' || (line[i] >= '0' && line[i] <= '9') ||
						  ((line[i] | 0x20) >= 'a' && (line[i] | 0x20) <= 'z')))
		i++;
	return i > first && i + 1 < length && line[i] == ':' &&
		line[i + 1] != ' ' && line[i + 1] != ':' && line[i + 1] != '/' && line[i + 1] != '\t';
}

/* What most likely is wrong where libyaml gave up; NULL: no idea. */
static const char *
guess(const Reader *reader, const char *problem, int line, int column)
{
	size_t		length;
	const char *text = find_line(reader, line, &length);
	char		c = '\0';
	size_t		indent = 0;

	for (size_t i = 0; i < length && column > 0; i++)
		if (((unsigned char) text[i] & 0xC0) != 0x80 && --column == 0)
			c = text[i];
	while (indent < length && text[indent] == ' ')
		indent++;

	if (c == '\t' || (indent < length && text[indent] == '\t'))
		return "Indent with spaces: YAML does not allow tabs there.";
	if (strstr(problem, "cannot start any token") != NULL && (c == '@' || c == '`' || c == '%'))
		return "Put the value in quotes: a plain one can't begin with @, ` or %.";
	if (strstr(problem, "unexpected end of stream") != NULL ||
		strstr(problem, "unexpected document indicator") != NULL)
		return "A quote that was opened is never closed.";
	if (lacks_space_after_colon(text, length))
		return "Write a space after the colon.";
	if (line > 1)
	{
		size_t		before_length;
		const char *before = find_line(reader, line - 1, &before_length);

		if (lacks_space_after_colon(before, before_length))
			return "Write a space after the colon in the line before.";
	}
	if (strstr(problem, "mapping values are not allowed") != NULL)
		return "A value that contains a colon and a space needs quotes; otherwise check the indentation.";
	if (strstr(problem, "escape character") != NULL || strstr(problem, "escape code") != NULL)
		return "In double quotes a backslash begins an escape: write it twice, or use single quotes.";
	if (strstr(problem, "tag handle") != NULL)
		return "Put the value in quotes: a plain one can't begin with !.";
	if (strstr(problem, "alphabetic or numeric") != NULL)
		return "Put the value in quotes: a plain one can't begin with & or *.";
	if (strstr(problem, "expected ':'") != NULL)
		return "A key is followed by a colon and a space.";
	if (strstr(problem, "expected key") != NULL || strstr(problem, "block end") != NULL ||
		strstr(problem, "'-' indicator") != NULL)
		return "Check the indentation: the keys of one mapping, and the dashes of one list, stand in the same column.";
	if (strstr(problem, "node content") != NULL)
		return "A value is missing, or a bracket is never closed.";
	if (strstr(problem, "',' or") != NULL)
		return "Between elements there must be a comma, and after the last one the closing bracket.";
	return NULL;
}

/*
 * At the end of a text whose last line has no end, libyaml thinks itself on a
 * line more; nobody would find that line.
 */
static void
stay_within(const Reader *reader, int *line, int *column)
{
	int			last = 1;
	size_t		length;
	const char *text;

	for (const char *p = reader->text; p < reader->text + reader->length; p++)
		if (*p == '\n' || (*p == '\r' && !(p + 1 < reader->text + reader->length && p[1] == '\n')))
			last++;
	if (*line <= last)
		return;
	*line = last;
	*column = 1;
	text = find_line(reader, last, &length);
	for (size_t i = 0; i < length; i++)
		if (((unsigned char) text[i] & 0xC0) != 0x80)
			(*column)++;
}

/* Takes over libyaml's own error. */
static bool
fail_in_parser(Reader *reader, const yaml_parser_t *parser)
{
	YamlError  *error = reader->error;
	const char *problem = parser->problem ? parser->problem : "the text can't be read";
	int			line = (int) parser->problem_mark.line + 1;
	int			column = (int) parser->problem_mark.column + 1;

	if (parser->error == YAML_MEMORY_ERROR)
		return out_of_memory(reader);
	if (parser->context != NULL && parser->context_mark.index != parser->problem_mark.index)
		snprintf(error->context, sizeof(error->context), "It was found %s that begins in line %d, column %d.",
				 parser->context, (int) parser->context_mark.line + 1,
				 (int) parser->context_mark.column + 1);
	if (parser->eof)
		stay_within(reader, &line, &column);
	return fail(reader, line, column, guess(reader, problem, line, column), "%s", problem);
}

/*
 * Scalars
 */

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
		int64_t		digit = hex_value(text + i, 1, 1);

		if (digit < 0 || digit >= radix)
			return 0;
	}
	return radix;
}

/* Writes a hexadecimal or octal number in decimal, at any length. */
static bool
convert_radix(Reader *reader, const yaml_mark_t *mark, YamlNode *node, int radix)
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
		return fail_at(reader, mark, NULL, "the number has too many digits");
	part[0] = 0;
	for (; p < end; p++)
	{
		uint64_t	carry = (uint64_t) hex_value(p, 1, 1);

		for (size_t i = 0; i < parts; i++)
		{
			carry += (uint64_t) part[i] * (uint64_t) radix;
			part[i] = (uint32_t) (carry % 1000000000);
			carry /= 1000000000;
		}
		if (carry > 0)
			part[parts++] = (uint32_t) carry;
	}
	out = allocate(reader, parts * 9 + 1);
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
convert_decimal(Reader *reader, const yaml_mark_t *mark, YamlNode *node, Decimal *d)
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
		return fail_at(reader, mark, "Put it in quotes if it is text.", "the number is out of range");

	out = p = allocate(reader, d->integer_digits + d->fraction_digits + 32);
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

/* What a plain scalar without a tag is. */
static bool
resolve_plain(Reader *reader, const yaml_mark_t *mark, YamlNode *node)
{
	const char *text = node->raw;
	size_t		length = node->raw_length;
	int			radix;
	Decimal		decimal;

	if (is_null(text, length))
		node->kind = YAML_KIND_NULL;
	else if (is_true(text, length) || is_false(text, length))
		set_boolean(node, is_true(text, length));
	else if ((radix = radix_of(text, length)) != 0)
		return convert_radix(reader, mark, node, radix);
	else if (parse_decimal(text, length, &decimal))
		return convert_decimal(reader, mark, node, &decimal);
	else if (is_not_finite(text, length))
		return fail(reader, (int) mark->line + 1, (int) mark->column + 1,
					"Put it in quotes if it is text.", "%.*s is not a number in JSON",
					(int) length, text);
	else
		node->kind = YAML_KIND_STRING;
	return true;
}

/* Name of a tag as it is usually written: !!str for tag:yaml.org,2002:str. */
static const char *
tag_name(const char *tag, char buffer[64])
{
	static const char prefix[] = "tag:yaml.org,2002:";
	char		rest[64];

	if (strncmp(tag, prefix, sizeof(prefix) - 1) != 0)
		return excerpt(tag, strlen(tag), buffer);
	tag += sizeof(prefix) - 1;
	snprintf(buffer, 64, "!!%.60s", excerpt(tag, strlen(tag), rest));
	return buffer;
}

/* A tag that is unknown, or that the value does not fit. */
static bool
fail_for_tag(Reader *reader, const yaml_mark_t *mark, const char *tag)
{
	static const char *const known[] = {
		YAML_NULL_TAG, YAML_BOOL_TAG, YAML_STR_TAG, YAML_INT_TAG, YAML_FLOAT_TAG,
		YAML_SEQ_TAG, YAML_MAP_TAG, NULL
	};
	char		name[64];

	tag_name(tag, name);
	if (is_one_of(tag, strlen(tag), known))
		return fail(reader, (int) mark->line + 1, (int) mark->column + 1, NULL,
					"the value does not fit its tag %s", name);
	return fail(reader, (int) mark->line + 1, (int) mark->column + 1,
				"Put the value in quotes if the exclamation mark belongs to it.",
				"unknown tag %s", name);
}

/* Makes of a scalar what its tag says. */
static bool
resolve_tagged(Reader *reader, const yaml_mark_t *mark, YamlNode *node, const char *tag)
{
	const char *text = node->raw;
	size_t		length = node->raw_length;
	int			radix = radix_of(text, length);
	Decimal		decimal;
	bool		number = parse_decimal(text, length, &decimal);

	if (strcmp(tag, YAML_STR_TAG) == 0 || strcmp(tag, "!") == 0)
		node->kind = YAML_KIND_STRING;
	else if (strcmp(tag, YAML_NULL_TAG) == 0 && is_null(text, length))
		node->kind = YAML_KIND_NULL;
	else if (strcmp(tag, YAML_BOOL_TAG) == 0 && (is_true(text, length) || is_false(text, length)))
		set_boolean(node, is_true(text, length));
	else if (strcmp(tag, YAML_INT_TAG) == 0 && radix != 0)
		return convert_radix(reader, mark, node, radix);
	else if ((strcmp(tag, YAML_INT_TAG) == 0 && number && decimal.is_integer) ||
			 (strcmp(tag, YAML_FLOAT_TAG) == 0 && number))
		return convert_decimal(reader, mark, node, &decimal);
	else if (strcmp(tag, YAML_FLOAT_TAG) == 0 && is_not_finite(text, length))
		return resolve_plain(reader, mark, node);
	else
		return fail_for_tag(reader, mark, tag);
	return true;
}

/*
 * Nodes
 */

/* Charges what a node, or all that an alias stands for, adds to the whole. */
static bool
charge(Reader *reader, const yaml_mark_t *mark, size_t nodes, size_t bytes)
{
	reader->nodes += nodes;
	reader->bytes += bytes;
	if (reader->nodes > reader->limits->nodes)
		return fail(reader, (int) mark->line + 1, (int) mark->column + 1, NULL,
					"there are more than %zu keys and values, aliases expanded", reader->limits->nodes);
	if (reader->bytes > reader->limits->expanded_bytes)
		return fail(reader, (int) mark->line + 1, (int) mark->column + 1, NULL,
					"keys and values have more than %zu bytes, aliases expanded",
					reader->limits->expanded_bytes);
	return true;
}

static YamlNode *
make_node(Reader *reader, const yaml_mark_t *mark, YamlKind kind)
{
	YamlNode   *node = allocate(reader, sizeof(YamlNode));

	if (node == NULL)
		return NULL;
	memset(node, 0, sizeof(*node));
	node->kind = kind;
	node->line = (int) mark->line + 1;
	node->column = (int) mark->column + 1;
	node->nodes = 1;
	return node;
}

static int
compare_anchors(const void *a, const void *b)
{
	return strcmp(((const Anchor *) a)->name, ((const Anchor *) b)->name);
}

/* A later anchor of the same name takes its place. */
static bool
set_anchor(Reader *reader, const yaml_char_t *name, YamlNode *node)
{
	size_t		size;
	char	   *copy;
	Anchor	   *anchor;
	Anchor	  **found;

	if (name == NULL)
		return true;
	size = strlen((const char *) name) + 1;
	copy = allocate(reader, size);
	anchor = allocate(reader, sizeof(Anchor));
	if (copy == NULL || anchor == NULL)
		return false;
	memcpy(copy, name, size);
	anchor->name = copy;
	anchor->node = node;
	found = tsearch(anchor, &reader->anchors, compare_anchors);
	if (found == NULL)
		return out_of_memory(reader);
	(*found)->node = node;
	return true;
}

/* Puts an item at the end of the list of all open collections. */
static bool
push_item(Reader *reader, const YamlItem *item)
{
	if (reader->item_count == reader->item_space)
	{
		size_t		space = reader->item_space == 0 ? 256 : reader->item_space * 2;
		YamlItem   *items = realloc(reader->items, space * sizeof(YamlItem));

		if (items == NULL)
			return out_of_memory(reader);
		reader->items = items;
		reader->item_space = space;
	}
	reader->items[reader->item_count++] = *item;
	return true;
}

/* Takes a node as the next key of the open mapping. */
static bool
add_key(Reader *reader, Frame *frame, const yaml_mark_t *mark, const YamlNode *node, bool plain)
{
	YamlItem   *key = &frame->pending;

	if (node->kind == YAML_KIND_SEQUENCE || node->kind == YAML_KIND_MAPPING)
		return fail_at(reader, mark,
					   "Put it in quotes if it is text, as in \"{{name}}\".",
					   "a list or a mapping can't be a key");
	if (node->raw_length > reader->limits->key_bytes)
		return fail(reader, (int) mark->line + 1, (int) mark->column + 1, NULL,
					"a key has more than %zu bytes", reader->limits->key_bytes);
	key->key = node->raw;
	key->key_length = node->raw_length;
	key->line = (int) mark->line + 1;
	key->column = (int) mark->column + 1;
	frame->has_key = true;
	frame->is_merge = plain && node->raw_length == 2 && memcmp(node->raw, "<<", 2) == 0;
	return true;
}

static bool
fail_for_duplicate(Reader *reader, const YamlItem *first, const YamlItem *second, const char *hint)
{
	char		name[64];

	return fail(reader, second->line, second->column, hint,
				"the key \"%s\" is there twice, in line %d and in line %d",
				excerpt(second->key, second->key_length, name), first->line, second->line);
}

/* Takes the value of a merge key, which is a mapping or a list of mappings. */
static bool
add_merge(Reader *reader, Frame *frame, YamlNode *value)
{
	bool		fits = value->kind == YAML_KIND_MAPPING || value->kind == YAML_KIND_SEQUENCE;

	if (frame->merge.value != NULL)
		return fail_for_duplicate(reader, &frame->merge, &frame->pending,
								  "To merge several mappings, list them: <<: [*a, *b]");
	if (value->kind == YAML_KIND_SEQUENCE)
		for (size_t i = 0; i < value->count; i++)
			fits = fits && value->items[i].value->kind == YAML_KIND_MAPPING;
	if (!fits)
		return fail(reader, frame->pending.line, frame->pending.column,
					"Put the key in quotes if it is not meant to merge.",
					"the merge key << needs a mapping, or a list of mappings");
	frame->merge = frame->pending;
	frame->merge.value = value;
	return true;
}

/* Puts a complete node where it belongs. */
static bool
add_node(Reader *reader, const yaml_mark_t *mark, YamlNode *node, bool plain)
{
	Frame	   *frame;

	if (reader->depth == 0)
	{
		reader->document->root = node;
		return true;
	}
	frame = &reader->frames[reader->depth - 1];
	if (frame->node->kind == YAML_KIND_SEQUENCE)
	{
		YamlItem	item = {NULL, 0, (int) mark->line + 1, (int) mark->column + 1, node};

		return push_item(reader, &item);
	}
	if (!frame->has_key)
		return add_key(reader, frame, mark, node, plain);
	frame->has_key = false;
	if (frame->is_merge)
		return add_merge(reader, frame, node);
	frame->pending.value = node;
	return push_item(reader, &frame->pending);
}

static bool
read_scalar(Reader *reader, const yaml_event_t *event)
{
	const yaml_mark_t *mark = &event->start_mark;
	const char *tag = (const char *) event->data.scalar.tag;
	size_t		length = event->data.scalar.length;
	bool		plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
	YamlNode   *node = make_node(reader, mark, YAML_KIND_STRING);
	char	   *text = node ? allocate(reader, length + 1) : NULL;

	if (text == NULL)
		return false;
	memcpy(text, event->data.scalar.value, length);
	if (reader->marked != NULL)
		length = restore(text, length,
						 event->data.scalar.style == YAML_DOUBLE_QUOTED_SCALAR_STYLE);
	text[length] = '\0';
	if (memchr(text, '\0', length) != NULL)
		return fail_at(reader, mark, NULL, "a text can't contain the character U+0000");

	node->text = node->raw = text;
	node->length = node->raw_length = node->bytes = length;
	if (tag != NULL ? !resolve_tagged(reader, mark, node, tag) :
		plain && !resolve_plain(reader, mark, node))
		return false;
	return charge(reader, mark, 1, length) &&
		set_anchor(reader, event->data.scalar.anchor, node) &&
		add_node(reader, mark, node, plain && tag == NULL);
}

static bool
read_alias(Reader *reader, const yaml_event_t *event)
{
	const yaml_mark_t *mark = &event->start_mark;
	const char *name = (const char *) event->data.alias.anchor;
	Anchor		wanted = {name, NULL};
	Anchor	  **found = tfind(&wanted, &reader->anchors, compare_anchors);
	char		buffer[64];
	YamlNode   *node;

	excerpt(name, strlen(name), buffer);
	if (found == NULL)
		return fail(reader, (int) mark->line + 1, (int) mark->column + 1,
					"An anchor is set before its use, with &name; put the value in quotes if it is text.",
					"there is no anchor for the alias *%s", buffer);
	node = (*found)->node;
	if (node->open)
		return fail(reader, (int) mark->line + 1, (int) mark->column + 1, NULL,
					"the alias *%s stands within what it stands for", buffer);
	if (reader->depth + node->height > reader->limits->depth)
		return fail(reader, (int) mark->line + 1, (int) mark->column + 1, NULL,
					"values are nested more than %d levels deep", reader->limits->depth);
	return charge(reader, mark, node->nodes, node->bytes) && add_node(reader, mark, node, false);
}

static bool
open_collection(Reader *reader, const yaml_mark_t *mark, YamlKind kind,
				const yaml_char_t *anchor, const yaml_char_t *tag)
{
	const char *expected = kind == YAML_KIND_MAPPING ? YAML_MAP_TAG : YAML_SEQ_TAG;
	YamlNode   *node;
	Frame	   *frame;

	if (tag != NULL && strcmp((const char *) tag, expected) != 0 &&
		strcmp((const char *) tag, "!") != 0)
		return fail_for_tag(reader, mark, (const char *) tag);
	if (reader->depth >= reader->limits->depth)
		return fail(reader, (int) mark->line + 1, (int) mark->column + 1, NULL,
					"values are nested more than %d levels deep", reader->limits->depth);
	node = make_node(reader, mark, kind);
	if (node == NULL || !charge(reader, mark, 1, 0) || !set_anchor(reader, anchor, node))
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

/*
 * Refuses keys that are there twice among the first own items; of merged ones,
 * which come after those, removes all whose key is there before.
 */
static bool
settle_keys(Reader *reader, YamlItem *items, size_t own, size_t *count)
{
	YamlItem  **sorted;
	YamlItem   *first = NULL;
	YamlItem   *second = NULL;
	size_t		kept = 0;

	if (*count < 2)
		return true;
	sorted = malloc(*count * sizeof(YamlItem *));
	if (sorted == NULL)
		return out_of_memory(reader);
	for (size_t i = 0; i < *count; i++)
		sorted[i] = &items[i];
	qsort(sorted, *count, sizeof(YamlItem *), compare_items);
	for (size_t i = 1, lead = 0; i < *count; i++)
	{
		if (sorted[i]->key_length != sorted[lead]->key_length ||
			memcmp(sorted[i]->key, sorted[lead]->key, sorted[i]->key_length) != 0)
			lead = i;
		else if (sorted[i] >= items + own)
			sorted[i]->value = NULL;
		else if (second == NULL || sorted[i] < second)
		{
			first = sorted[lead];
			second = sorted[i];
		}
	}
	free(sorted);
	if (second != NULL)
		return fail_for_duplicate(reader, first, second, NULL);
	for (size_t i = 0; i < *count; i++)
		if (items[i].value != NULL)
			items[kept++] = items[i];
	*count = kept;
	return true;
}

static bool
push_items_of(Reader *reader, const YamlNode *mapping)
{
	for (size_t i = 0; i < mapping->count; i++)
		if (!push_item(reader, &mapping->items[i]))
			return false;
	return true;
}

/* Adds the items that a merge key brings. */
static bool
push_merged(Reader *reader, const YamlNode *value)
{
	if (value->kind == YAML_KIND_MAPPING)
		return push_items_of(reader, value);
	for (size_t i = 0; i < value->count; i++)
		if (!push_items_of(reader, value->items[i].value))
			return false;
	return true;
}

/* Gives the collection that ends its items, and puts it where it belongs. */
static bool
close_collection(Reader *reader)
{
	Frame	   *frame = &reader->frames[reader->depth - 1];
	YamlNode   *node = frame->node;
	size_t		own = reader->item_count - frame->first_item;
	yaml_mark_t mark = {0, (size_t) node->line - 1, (size_t) node->column - 1};
	YamlItem   *items;

	if (frame->merge.value != NULL && !push_merged(reader, frame->merge.value))
		return false;
	items = reader->items + frame->first_item;
	node->count = reader->item_count - frame->first_item;
	if (node->kind == YAML_KIND_MAPPING && !settle_keys(reader, items, own, &node->count))
		return false;
	node->items = allocate(reader, node->count * sizeof(YamlItem) + 1);
	if (node->items == NULL)
		return false;
	if (node->count > 0)
		memcpy(node->items, items, node->count * sizeof(YamlItem));
	for (size_t i = 0; i < node->count; i++)
	{
		const YamlNode *child = node->items[i].value;

		node->nodes += child->nodes + (node->kind == YAML_KIND_MAPPING ? 1 : 0);
		node->bytes += child->bytes + node->items[i].key_length;
		if (child->height > node->height)
			node->height = child->height;
	}
	node->height++;
	node->open = false;
	reader->item_count = frame->first_item;
	reader->depth--;
	return add_node(reader, &mark, node, false);
}

/*
 * The document
 */

static const char more_documents_hint[] = "Give each document in a call of its own.";

/* The start of the line after p. */
static const char *
next_line(const char *p, const char *end)
{
	while (p < end && *p != '\n' && *p != '\r')
		p++;
	if (p < end)
		p += *p == '\r' && p + 1 < end && p[1] == '\n' ? 2 : 1;
	return p;
}

/* Is the line at p blank, or a comment? */
static bool
is_empty_line(const char *p, const char *end)
{
	while (p < end && (*p == ' ' || *p == '\t'))
		p++;
	return p == end || *p == '\n' || *p == '\r' || *p == '#';
}

/*
 * Refuses more directives than anybody needs: libyaml compares each with all
 * others, and while it does nothing can interrupt it.
 */
static bool
check_directives(Reader *reader)
{
	const char *p = reader->text;
	const char *end = p + reader->length;
	int			line = 1;
	int			count = 0;

	for (; p < end && (*p == '%' || is_empty_line(p, end)); p = next_line(p, end), line++)
		if (*p == '%' && ++count > MAX_DIRECTIVES)
			return fail(reader, line, 1, NULL, "there are more than %d directives", MAX_DIRECTIVES);
	return true;
}

/* After the document: is a directive the next thing?  Then another one begins. */
static bool
check_end(Reader *reader, const yaml_mark_t *mark)
{
	const char *end = reader->text + reader->length;
	int			line = (int) mark->line + 1;
	size_t		length;
	const char *p = find_line(reader, line, &length);

	if (mark->column > 0)
	{
		p = next_line(p, end);
		line++;
	}
	while (p < end && (is_empty_line(p, end) || (end - p >= 3 && memcmp(p, "...", 3) == 0)))
	{
		p = next_line(p, end);
		line++;
	}
	if (p < end && *p == '%')
		return fail(reader, line, 1, more_documents_hint, "there is more than one document");
	return true;
}

static bool
read_event(Reader *reader, const yaml_event_t *event)
{
	switch (event->type)
	{
		case YAML_DOCUMENT_START_EVENT:
			if (reader->document->root != NULL)
				return fail_at(reader, &event->start_mark, more_documents_hint,
							   "there is more than one document");
			return true;
		case YAML_DOCUMENT_END_EVENT:
			return check_end(reader, &event->end_mark);
		case YAML_ALIAS_EVENT:
			return read_alias(reader, event);
		case YAML_SCALAR_EVENT:
			return read_scalar(reader, event);
		case YAML_SEQUENCE_START_EVENT:
			return open_collection(reader, &event->start_mark, YAML_KIND_SEQUENCE,
								   event->data.sequence_start.anchor, event->data.sequence_start.tag);
		case YAML_MAPPING_START_EVENT:
			return open_collection(reader, &event->start_mark, YAML_KIND_MAPPING,
								   event->data.mapping_start.anchor, event->data.mapping_start.tag);
		case YAML_SEQUENCE_END_EVENT:
		case YAML_MAPPING_END_EVENT:
			return close_collection(reader);
		default:
			return true;
	}
}

static bool
read_events(Reader *reader, yaml_parser_t *parser)
{
	for (;;)
	{
		yaml_event_t event;
		bool		done;
		bool		good;

		if (!yaml_parser_parse(parser, &event))
			return fail_in_parser(reader, parser);
		done = event.type == YAML_STREAM_END_EVENT;
		good = read_event(reader, &event);
		yaml_event_delete(&event);
		if (!good || done)
			return good;
	}
}

/* A text without a document says nothing: null. */
static bool
supply_root(Reader *reader)
{
	yaml_mark_t start = {0, 0, 0};

	if (reader->document->root == NULL)
		reader->document->root = make_node(reader, &start, YAML_KIND_NULL);
	return reader->document->root != NULL;
}

static bool
read_text(Reader *reader)
{
	yaml_parser_t parser;
	bool		good;

	reader->frames = malloc((size_t) reader->limits->depth * sizeof(Frame));
	if (reader->frames == NULL || !yaml_parser_initialize(&parser))
		return out_of_memory(reader);
	yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&parser, (const unsigned char *) reader->text, reader->length);
	good = read_events(reader, &parser) && supply_root(reader);
	yaml_parser_delete(&parser);
	return good;
}

/* The anchors themselves are part of the document. */
static void
keep_anchor(void *anchor)
{
}

YamlDocument *
yaml_core_read(const char *text, size_t length, const YamlLimits *limits, YamlError *error)
{
	Reader		reader = {0};
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
		out_of_memory(&reader);
	else if (length > limits->bytes)
	{
		snprintf(error->context, sizeof(error->context), "It has %zu bytes; the limit is %zu.",
				 length, limits->bytes);
		fail(&reader, 0, 0, NULL, "the text is too large");
	}
	else
		good = prepare(&reader) && check_directives(&reader) && read_text(&reader);

	tdestroy(reader.anchors, keep_anchor);
	free(reader.frames);
	free(reader.items);
	free(reader.marked);
	if (good)
		return reader.document;
	yaml_core_free(reader.document);
	return NULL;
}

const YamlNode *
yaml_core_root(const YamlDocument *document)
{
	return document->root;
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
