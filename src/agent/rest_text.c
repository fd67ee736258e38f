/*
 * rest_text.c
 *	  Text that grows, and what of it is JSON or UTF-8.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rest_internal.h"

static void
make_room(Text *text, size_t more)
{
	size_t		room = text->room > 0 ? text->room : 256;
	char	   *data;

	if (text->length + more + 1 <= text->room)
		return;
	while (room < text->length + more + 1)
		room *= 2;
	data = realloc(text->data, room);
	if (data == NULL)
	{
		fputs("tasker-agent: out of memory\n", stderr);
		exit(1);
	}
	text->data = data;
	text->room = room;
}

void
text_add(Text *text, const char *piece, size_t length)
{
	make_room(text, length);
	if (length > 0)
		memcpy(text->data + text->length, piece, length);
	text->length += length;
	text->data[text->length] = '\0';
}

void
text_say(Text *text, const char *piece)
{
	text_add(text, piece, strlen(piece));
}

void
text_printf(Text *text, const char *format, ...)
{
	va_list		arguments;
	int			length;

	va_start(arguments, format);
	length = vsnprintf(NULL, 0, format, arguments);
	va_end(arguments);
	make_room(text, (size_t) length);
	va_start(arguments, format);
	vsnprintf(text->data + text->length, (size_t) length + 1, format, arguments);
	va_end(arguments);
	text->length += (size_t) length;
}

/*
 * A string of JSON; what is no UTF-8 must have been refused before.
 */
void
text_json_bytes(Text *text, const char *value, size_t length)
{
	const char *from = value;
	const char *end = value + length;

	text_say(text, "\"");
	for (const char *c = value; c < end; c++)
	{
		if ((unsigned char) *c >= 0x20 && *c != '"' && *c != '\\')
			continue;
		text_add(text, from, (size_t) (c - from));
		from = c + 1;
		if (*c == '"' || *c == '\\')
			text_printf(text, "\\%c", *c);
		else if (*c == '\n')
			text_say(text, "\\n");
		else
			text_printf(text, "\\u%04x", (unsigned char) *c);
	}
	text_add(text, from, (size_t) (end - from));
	text_say(text, "\"");
}

void
text_json(Text *text, const char *value)
{
	text_json_bytes(text, value, strlen(value));
}

void
text_free(Text *text)
{
	free(text->data);
	*text = (Text) {0};
}

/*
 * How many bytes follow the first one of a character, and the lowest code point
 * that needs them; -1: it begins none.
 */
static int
bytes_behind(unsigned char first, uint32_t *lowest)
{
	if (first < 0x80)
	{
		*lowest = 0;
		return 0;
	}
	if (first >= 0xC2 && first <= 0xDF)
	{
		*lowest = 0x80;
		return 1;
	}
	if ((first & 0xF0) == 0xE0)
	{
		*lowest = 0x800;
		return 2;
	}
	if (first >= 0xF0 && first <= 0xF4)
	{
		*lowest = 0x10000;
		return 3;
	}
	return -1;
}

/*
 * Whether it is UTF-8 as PostgreSQL takes it: shortest forms, no surrogates, no
 * NUL.
 */
bool
text_is_utf8(const char *bytes, size_t length)
{
	const unsigned char *c = (const unsigned char *) bytes;
	const unsigned char *end = c + length;

	while (c < end)
	{
		uint32_t	lowest;
		uint32_t	point;
		int			behind = bytes_behind(*c, &lowest);

		if (*c == 0 || behind < 0 || end - c <= behind)
			return false;
		point = behind == 0 ? *c : *c & (0x3F >> behind);
		c++;
		for (int i = 0; i < behind; i++, c++)
		{
			if ((*c & 0xC0) != 0x80)
				return false;
			point = point << 6 | (*c & 0x3F);
		}
		if (point < lowest || point > 0x10FFFF || (point >= 0xD800 && point <= 0xDFFF))
			return false;
	}
	return true;
}
