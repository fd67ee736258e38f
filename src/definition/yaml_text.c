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

#define MAX_DIRECTIVES		32

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

/* What a text may need changed before libyaml reads it. */
typedef struct Needs
{
	bool		stand_ins;
	bool		tabs;
	bool		head;			/* it may begin with directives or ends of documents */
	bool		line_end;		/* its last line is blank, but has no end */
} Needs;

/* Copies the text with stand-ins in it; what it needs them for is checked. */
static bool
substitute(YamlReader *reader, bool stand_ins)
{
	const char *p = reader->text;
	const char *end = p + reader->length;
	char	   *out = malloc(reader->length * (stand_ins ? 3 : 1) + 2);
	size_t		run = 0;		/* of backslashes before p */

	if (out == NULL)
		return yaml_out_of_memory(reader);
	reader->marked = out;
	reader->is_ascii &= !stand_ins;
	if (!stand_ins)
	{
		memcpy(out, p, reader->length);
		out += reader->length;
		p = end;
	}
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

/* Most characters need no look: those of ASCII that can be seen, and breaks. */
static const char *
skip_plain(const char *p, const char *end)
{
	static bool plain[256];

	if (!plain['\n'])
	{
		for (int c = ' '; c <= '~'; c++)
			plain[c] = c != '\\';
		plain['\n'] = plain['\r'] = true;
	}
	while (p < end && plain[(unsigned char) *p])
		p++;
	return p;
}

/* Checks every character, and finds out what needs to be changed. */
static bool
check_characters(YamlReader *reader, Needs *needs)
{
	const char *p = reader->text;
	const char *end = p + reader->length;

	reader->is_ascii = true;
	while ((p = skip_plain(p, end)) < end)
	{
		size_t		left = (size_t) (end - p);
		uint32_t	code;
		int			length = decode_utf8((const unsigned char *) p, left, &code);

		if (length == 0)
			return yaml_fail(reader, yaml_place_at(reader, (size_t) (p - reader->text)), NULL,
							 "this is not UTF-8");
		if (!is_allowed(code))
			return yaml_fail(reader, yaml_place_at(reader, (size_t) (p - reader->text)),
							 "In a text in double quotes it can be written as an escape.",
							 "the character U+%04X is not allowed", (unsigned int) code);
		if (is_mark(code) || (code == '\\' && is_mark(escaped_code(p, left))))
			return yaml_fail(reader, yaml_place_at(reader, (size_t) (p - reader->text)), NULL,
							 "U+FDD0 to U+FDD3 are not characters and can't be used");
		if (mark_for(code) != 0 || (code == '\\' && is_surrogate_pair(p, left)))
			needs->stand_ins = true;
		if (length > 1)
			reader->is_ascii = false;
		if (code == '\t')
			needs->tabs = true;
		/* A backslash takes the next one with it. */
		p += code == '\\' && left > 1 && p[1] == '\\' ? 2 : length;
	}
	return true;
}

static bool
is_break(char c)
{
	return c == '\n' || c == '\r';
}

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t';
}

const char *
yaml_next_line(const char *p, const char *end)
{
	while (p < end && !is_break(*p))
		p++;
	if (p < end)
		p += *p == '\r' && p + 1 < end && p[1] == '\n' ? 2 : 1;
	return p;
}

static const char *
skip_blanks(const char *p, const char *end)
{
	while (p < end && is_blank(*p))
		p++;
	return p;
}

/* Is the line at p blank, or a comment? */
bool
yaml_is_empty_line(const char *p, const char *end)
{
	p = skip_blanks(p, end);
	return p == end || is_break(*p) || *p == '#';
}

/* Does the line at p begin with this mark of a document's start or end? */
bool
yaml_is_marker(const char *p, const char *end, const char *marker)
{
	return end - p >= 3 && memcmp(p, marker, 3) == 0 && (end - p == 3 || is_blank(p[3]) || is_break(p[3]));
}

/* May a block scalar begin in the line at p?  Rather once too often. */
static bool
may_open_block_scalar(const char *p, const char *end)
{
	for (const char *start = p; p < end && !is_break(*p); p++)
	{
		const char *q = p + 1;

		if ((*p != '|' && *p != '>') || (p > start && !is_blank(p[-1])))
			continue;
		while (q < end && (*q == '+' || *q == '-' || (*q >= '0' && *q <= '9')))
			q++;
		if (yaml_is_empty_line(q, end))
			return true;
	}
	return false;
}

/*
 * libyaml takes a tab in an empty line, or before a comment, for indentation.
 * In a block scalar it may be part of the text, and is left alone.
 */
static void
blank_out_tabs(char *p, char *end)
{
	int			outer = -2;		/* a block scalar's lines are indented further; -2: there is none */

	for (char *next; p < end; p = next)
	{
		char	   *text = p;
		int			indent;

		next = (char *) yaml_next_line(p, end);
		while (text < end && *text == ' ')
			text++;
		indent = (int) (text - p);
		text = (char *) skip_blanks(text, end);
		if (outer > -2 && (text == end || is_break(*text) || indent > outer))
			continue;
		outer = -2;
		if (yaml_is_empty_line(p, end))
			memset(p, ' ', (size_t) (text - p));
		else if (may_open_block_scalar(p, end))
			outer = yaml_is_marker(p, end, "---") ? -1 : indent;
	}
}

/* A line of a %YAML directive: 1.2 and all others of YAML 1 are read alike. */
static bool
check_version(YamlReader *reader, YamlPlace at, const char *p, const char *end)
{
	const char *version = skip_blanks(p + 5, end);
	const char *major = version;
	const char *minor;

	while (major < end && *major >= '0' && *major <= '9')
		major++;
	minor = major;
	if (minor < end && *minor == '.')
		minor++;
	while (minor > major && minor < end && *minor >= '0' && *minor <= '9')
		minor++;
	if (major == version || minor < major + 2 || !yaml_is_empty_line(minor, end) || (minor < end && *minor == '#'))
		return yaml_fail(reader, at, "Write %YAML 1.2.", "%%YAML is not followed by a version");
	if (major != version + 1 || *version != '1')
		return yaml_fail(reader, at, "Write %YAML 1.2.", "this version of YAML is unknown");
	return true;
}

/*
 * Before the first document: directives, of which libyaml is to see %TAG alone,
 * and ends of documents that never began.  Of the latter and the former it does
 * not know everything that may be there, so they become comments.
 */
static bool
settle_head(YamlReader *reader)
{
	char	   *p = reader->marked;
	char	   *end = p + reader->length;
	YamlPlace	at = {1, 1};
	int			directives = 0;
	bool		has_version = false;

	for (; p < end; p = (char *) yaml_next_line(p, end), at.line++)
	{
		if (*p == '%')
		{
			size_t		word = 1;

			while (p + word < end && !is_blank(p[word]) && !is_break(p[word]))
				word++;
			/* libyaml compares each with all others, and nothing can interrupt it. */
			if (++directives > MAX_DIRECTIVES)
				return yaml_fail(reader, at, NULL, "there are more than %d directives", MAX_DIRECTIVES);
			if (word == 5 && memcmp(p, "%YAML", 5) == 0)
			{
				if (has_version)
					return yaml_fail(reader, at, NULL, "there is more than one %%YAML directive");
				if (!check_version(reader, at, p, end))
					return false;
				has_version = true;
			}
			if (word != 4 || memcmp(p, "%TAG", 4) != 0)
				*p = '#';
		}
		else if (directives == 0 && yaml_is_marker(p, end, "...") && yaml_is_empty_line(p + 3, end))
			*p = p[1] = p[2] = '#';
		else if (!yaml_is_empty_line(p, end))
			break;
	}
	if (directives > 0 && !yaml_is_marker(p, end, "---"))
		return yaml_fail(reader, at, "Write the line --- between directives and document.",
						 "directives are followed by no document");
	return true;
}

/* Whether the head of the text has anything for settle_head(). */
static bool
has_head(const char *p, const char *end)
{
	while (p < end && yaml_is_empty_line(p, end))
		p = yaml_next_line(p, end);
	return p < end && (*p == '%' || yaml_is_marker(p, end, "..."));
}

/* Is there something in the last line, but neither an end nor a character? */
static bool
ends_blank(const char *text, size_t length)
{
	size_t		left = length;

	while (left > 0 && is_blank(text[left - 1]))
		left--;
	return left < length && left > 0 && is_break(text[left - 1]);
}

/* Checks every character, and makes libyaml a copy where it would read otherwise. */
bool
yaml_prepare_text(YamlReader *reader)
{
	Needs		needs = {0};

	if (!check_characters(reader, &needs))
		return false;
	needs.head = has_head(reader->text, reader->text + reader->length);
	needs.line_end = ends_blank(reader->text, reader->length);
	if (!needs.stand_ins && !needs.tabs && !needs.head && !needs.line_end)
		return true;
	if (!substitute(reader, needs.stand_ins))
		return false;
	if (needs.line_end)
		reader->marked[reader->length++] = '\n';
	if (needs.tabs)
		blank_out_tabs(reader->marked, reader->marked + reader->length);
	return !needs.head || settle_head(reader);
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

YamlPlace
yaml_place_at(const YamlReader *reader, size_t offset)
{
	YamlPlace	at = {1, 1};

	for (size_t i = 0; i < offset; i++)
	{
		char		c = reader->text[i];

		if (c == '\n' || (c == '\r' && !(i + 1 < reader->length && reader->text[i + 1] == '\n')))
			at = (YamlPlace) {at.line + 1, 1};
		else if (((unsigned char) c & 0xC0) != 0x80)
			at.column++;
	}
	return at;
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
