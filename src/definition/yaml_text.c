/*
 * yaml_text.c
 *	  The text of a YAML document: its characters and its lines.
 *
 * Here is what libyaml is not to see: bytes that are no UTF-8, characters that
 * YAML does not allow, and what it would read otherwise than YAML 1.2 does.
 */
#include "yaml_internal.h"

#include <stdlib.h>
#include <string.h>

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
const char *
yaml_excerpt(const char *text, size_t length, char buffer[64])
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
int64_t
yaml_hex_value(const char *p, size_t left, int digits)
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
		return yaml_hex_value(p + 2, left - 2, 4);
	if (p[1] == 'U')
		return yaml_hex_value(p + 2, left - 2, 8);
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
substitute(YamlReader *reader)
{
	const char *p = reader->text;
	const char *end = p + reader->length;
	char	   *out = malloc(reader->length * 3 + 1);
	size_t		run = 0;		/* of backslashes before p */

	if (out == NULL)
		return yaml_out_of_memory(reader);
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
bool
yaml_prepare_text(YamlReader *reader)
{
	const char *p = reader->text;
	const char *end = p + reader->length;
	YamlPlace	at = {1, 1};
	size_t		run = 0;		/* of backslashes before p */
	bool		needed = false;

	while (p < end)
	{
		size_t		left = (size_t) (end - p);
		uint32_t	code;
		int			length = decode_utf8((const unsigned char *) p, left, &code);

		if (length == 0)
			return yaml_fail(reader, at, NULL, "this is not UTF-8");
		if (!is_allowed(code))
			return yaml_fail(reader, at,
							 "In a text in double quotes it can be written as an escape.",
							 "the character U+%04X is not allowed", (unsigned int) code);
		if (is_mark(code) || (code == '\\' && run % 2 == 0 && is_mark(escaped_code(p, left))))
			return yaml_fail(reader, at, NULL,
							 "U+FDD0 to U+FDD3 are not characters and can't be used");
		if (mark_for(code) != 0 ||
			(code == '\\' && run % 2 == 0 && is_surrogate_pair(p, left)))
			needed = true;
		run = code == '\\' ? run + 1 : 0;
		if (code == '\n' || (code == '\r' && !(left > 1 && p[1] == '\n')))
		{
			at.line++;
			at.column = 1;
		}
		else
			at.column++;
		p += length;
	}
	return !needed || substitute(reader);
}

/* Puts back what stand-ins stand for; the result is never longer. */
size_t
yaml_restore_text(char *text, size_t length, bool double_quoted)
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
			int64_t		high = yaml_hex_value(p + 3, 4, 4);
			int64_t		low = yaml_hex_value(p + 13, 4, 4);

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
const char *
yaml_find_line(const YamlReader *reader, int number, size_t *length)
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

/*
 * At the end of a text whose last line has no end, libyaml thinks itself on a
 * line more; nobody would find that line.
 */
YamlPlace
yaml_stay_within(const YamlReader *reader, YamlPlace at)
{
	YamlPlace	last = {1, 1};
	size_t		length;
	const char *text;

	for (const char *p = reader->text; p < reader->text + reader->length; p++)
		if (*p == '\n' || (*p == '\r' && !(p + 1 < reader->text + reader->length && p[1] == '\n')))
			last.line++;
	if (at.line <= last.line)
		return at;
	text = yaml_find_line(reader, last.line, &length);
	for (size_t i = 0; i < length; i++)
		if (((unsigned char) text[i] & 0xC0) != 0x80)
			last.column++;
	return last;
}
