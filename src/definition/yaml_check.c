/*
 * yaml_check.c
 *	  What libyaml lets pass though YAML 1.2 forbids it.
 *
 * Each event is looked at together with what lies in the text between it and
 * the one before: white space, comments, and indicators.
 */
#include "yaml_internal.h"

#include <string.h>

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static bool
is_break(char c)
{
	return c == '\n' || c == '\r';
}

/* The character at that offset; at the end a line's end. */
static char
char_at(const YamlReader *reader, size_t offset)
{
	return offset < reader->length ? reader->text[offset] : '\n';
}

static bool
is_white(const YamlReader *reader, size_t offset)
{
	char		c = char_at(reader, offset);

	return is_blank(c) || is_break(c);
}

static bool
is_bracket_or_comma(char c)
{
	return c != '\0' && strchr(",[]{}", c) != NULL;
}

static int
indent_of(const YamlReader *reader)
{
	return reader->level == 0 ? -1 : reader->levels[reader->level - 1].indent;
}

static bool
in_flow(const YamlReader *reader)
{
	return reader->level > 0 && reader->levels[reader->level - 1].flow;
}

/* Offset of a character, by its number. */
static size_t
offset_of(YamlReader *reader, size_t character)
{
	const char *text = reader->text;

	if (reader->is_ascii)
		return character;
	while (reader->at_character < character && reader->at_offset < reader->length)
	{
		reader->at_offset++;
		if (reader->at_offset == reader->length || ((unsigned char) text[reader->at_offset] & 0xC0) != 0x80)
			reader->at_character++;
	}
	while (reader->at_character > character)
	{
		reader->at_offset--;
		if (((unsigned char) text[reader->at_offset] & 0xC0) != 0x80)
			reader->at_character--;
	}
	return reader->at_offset;
}

/*
 * What is in brackets or quotes, and goes on in further lines, stands right of
 * the block that it is in.  A closing bracket need not: everybody writes it below
 * the key.  A tab is no indentation.
 */
static bool
check_lines(YamlReader *reader, size_t from, size_t to, bool quoted)
{
	int			need = indent_of(reader) + 1;

	if (need == 0)
		return true;
	for (size_t i = from; i < to; i++)
	{
		size_t		first;
		size_t		rest;

		if (!is_break(reader->text[i]))
			continue;
		for (first = i + 1; char_at(reader, first) == ' ';)
			first++;
		for (rest = first; is_blank(char_at(reader, rest));)
			rest++;
		if (first - (i + 1) >= (size_t) need || is_break(char_at(reader, rest)))
			continue;
		if (!quoted && (char_at(reader, rest) == '#' || char_at(reader, rest) == ']' || char_at(reader, rest) == '}'))
			continue;
		return yaml_fail(reader, yaml_place_at(reader, first),
						 char_at(reader, first) == '\t' ? "Indent with spaces: YAML does not allow tabs there." :
						 "Indent what is in quotes or brackets further than the key or dash that it belongs to, or close it before.",
						 "the line must be indented by %d %s or more", need, need == 1 ? "space" : "spaces");
	}
	return true;
}

/* libyaml takes it for the mark of a key even where it begins a value. */
static bool
check_question_mark(YamlReader *reader, size_t offset)
{
	return is_white(reader, offset + 1) ||
		yaml_fail(reader, yaml_place_at(reader, offset), "Put the value in quotes if it begins with ?.",
				  "in brackets a ? needs a space behind it");
}

/* What lies between two events. */
static bool
check_gap(YamlReader *reader, size_t from, size_t to)
{
	bool		flow = in_flow(reader);

	for (size_t i = from; i < to; i++)
	{
		char		c = reader->text[i];

		if (c == '#')
		{
			if (i > 0 && !is_white(reader, i - 1))
				return yaml_fail(reader, yaml_place_at(reader, i),
								 "Put the value in quotes if the # belongs to it.",
								 "a comment needs a space before its #");
			while (i + 1 < to && !is_break(reader->text[i + 1]))
				i++;
		}
		else if (c == '?' && flow && !check_question_mark(reader, i))
			return false;
	}
	return !flow || check_lines(reader, from, to, false);
}

/* Does the name of an anchor or alias end where libyaml thinks that it does? */
static bool
check_name_end(YamlReader *reader, size_t end)
{
	if (is_white(reader, end) || is_bracket_or_comma(char_at(reader, end)))
		return true;
	return yaml_fail(reader, yaml_place_at(reader, end),
					 "Put a space before a colon; put the value in quotes if it is text.",
					 "the name of an anchor is made of letters A to Z, digits, - and _");
}

/* An anchor that stands first, or behind a tag. */
static bool
check_anchor(YamlReader *reader, size_t start, const char *anchor)
{
	if (anchor == NULL)
		return true;
	if (char_at(reader, start) == '!')
	{
		while (!is_white(reader, start))
			start++;
		while (is_blank(char_at(reader, start)))
			start++;
	}
	return char_at(reader, start) != '&' || check_name_end(reader, start + 1 + strlen(anchor));
}

/* Where a value begins behind its anchor and its tag, which may have lines of their own. */
static size_t
skip_properties(const YamlReader *reader, size_t i)
{
	for (;; i++)
	{
		char		c = char_at(reader, i);

		if (c == '&' || c == '!')
			while (!is_white(reader, i + 1))
				i++;
		else if (c == '#')
			while (!is_break(char_at(reader, i + 1)))
				i++;
		else if (i >= reader->length || !is_white(reader, i))
			return i;
	}
}

/*
 * The header of a block scalar, and the blank lines that it begins with: its
 * indentation is that of the first other line, which they must not exceed.
 */
static bool
check_block_scalar(YamlReader *reader, size_t start)
{
	size_t		i = start + 1;	/* behind the | or > */
	size_t		longest = 0;
	size_t		at = 0;

	for (; strchr("+-0123456789", char_at(reader, i)) != NULL; i++)
		if (char_at(reader, i) > '0')
			return true;
	if (char_at(reader, i) == '#')
		return check_gap(reader, i, i + 1);
	while (!is_break(char_at(reader, i)))
		i++;
	while (i < reader->length)
	{
		size_t		line;

		if (reader->text[i] == '\r' && char_at(reader, i + 1) == '\n')
			i++;
		line = ++i;
		while (char_at(reader, i) == ' ')
			i++;
		if (!is_break(char_at(reader, i)))
		{
			if (longest > i - line && (int) (i - line) > indent_of(reader))
				return yaml_fail(reader, yaml_place_at(reader, at),
								 "Remove its spaces, or give the indentation behind the | or >, as in |2.",
								 "a blank line has more spaces than the text behind it is indented by");
			return true;
		}
		if (i - line > longest)
		{
			longest = i - line;
			at = line;
		}
	}
	return true;
}

static bool
check_scalar(YamlReader *reader, const YamlEventView *event, size_t start, size_t end)
{
	size_t		value = start;

	if (char_at(reader, start) == '&' || char_at(reader, start) == '!')
	{
		if (!check_anchor(reader, start, event->anchor))
			return false;
		value = skip_properties(reader, start);
	}
	switch (event->style)
	{
		case YAML_STYLE_PLAIN:
			if (!in_flow(reader))
				return true;
			if (end == value + 1 && char_at(reader, value) == '-')
				return yaml_fail(reader, yaml_place_at(reader, value), "Put it in quotes.",
								 "in brackets a dash alone is no value");
			return check_lines(reader, start, end, false);
		case YAML_STYLE_QUOTED:
			return check_lines(reader, start, value, false) && check_lines(reader, value, end, true);
		default:
			return check_block_scalar(reader, value);
	}
}

static void
open_level(YamlReader *reader, const YamlEventView *event, size_t end)
{
	YamlLevel  *level = &reader->levels[reader->level];
	int			indent = indent_of(reader);

	level->flow = event->style == YAML_STYLE_FLOW;
	if (!level->flow)
	{
		/* A list below a key in the same column ends its mark behind the dash. */
		indent = event->end_column;
		if (event->type == YAML_VIEW_SEQUENCE && char_at(reader, end) != '-')
			indent--;
	}
	level->indent = indent;
	reader->level++;
}

/* Looks at an event, before it is read; false where the text is refused. */
bool
yaml_check_event(YamlReader *reader, const YamlEventView *event)
{
	size_t		start = offset_of(reader, event->start);
	size_t		end = offset_of(reader, event->end);
	bool		good = true;

	reader->event_end = end;
	if (start > reader->checked && !check_gap(reader, reader->checked, start))
		return false;
	switch (event->type)
	{
		case YAML_VIEW_SCALAR:
			good = end == start || check_scalar(reader, event, start, end);
			break;
		case YAML_VIEW_ALIAS:
			good = check_name_end(reader, end);
			break;
		case YAML_VIEW_SEQUENCE:
		case YAML_VIEW_MAPPING:
			good = check_anchor(reader, start, event->anchor) &&
				(event->style != YAML_STYLE_FLOW || char_at(reader, start) != '?' ||
				 check_question_mark(reader, start));
			if (reader->level < reader->limits->depth)
				open_level(reader, event, end);
			break;
		case YAML_VIEW_END:
			reader->level--;
			break;
		default:
			break;
	}
	if (end > reader->checked)
		reader->checked = end;
	return good;
}
