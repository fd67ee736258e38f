/*
 * yaml_hint.c
 *	  What to do about a text that libyaml refuses.
 *
 * libyaml says what it expected, which is seldom what the writer got wrong.
 */
#include "yaml_internal.h"

#include <string.h>

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
const char *
yaml_guess(const YamlReader *reader, const char *problem, YamlPlace at)
{
	size_t		length;
	const char *text = yaml_find_line(reader, at.line, &length);
	char		c = '\0';
	size_t		indent = 0;

	for (size_t i = 0; i < length && at.column > 0; i++)
		if (((unsigned char) text[i] & 0xC0) != 0x80 && --at.column == 0)
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
	if (at.line > 1)
	{
		size_t		before_length;
		const char *before = yaml_find_line(reader, at.line - 1, &before_length);

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
		return "Put the value in quotes if it is text; an anchor's name is made of letters A to Z, digits, - and _.";
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
