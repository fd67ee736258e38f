/*
 * rest_target.c
 *	  The request line taken apart: parts of the path, pairs of the query.
 *
 * Strict, so that nobody in front of the agent reads it otherwise: what is no
 * proper escape, or no UTF-8, is refused.
 */
#include <stdlib.h>
#include <string.h>

#include "rest_internal.h"

static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/*
 * Decodes in place; false where an escape is none, or what comes out is no UTF-8.
 */
bool
percent_decode(char *text, size_t *length, bool is_query)
{
	char	   *to = text;
	const char *end = text + *length;

	for (const char *from = text; from < end; from++)
	{
		if (*from == '%')
		{
			int			high = end - from > 2 ? hex_digit(from[1]) : -1;
			int			low = high >= 0 ? hex_digit(from[2]) : -1;

			if (low < 0)
				return false;
			*to++ = (char) (high << 4 | low);
			from += 2;
		}
		else if (*from == '+' && is_query)
			*to++ = ' ';
		else
			*to++ = *from;
	}
	*to = '\0';
	*length = (size_t) (to - text);
	return text_is_utf8(text, *length);
}

void
percent_encode(Text *text, const char *value)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~";

	for (; *value != '\0'; value++)
	{
		if (strchr(plain, *value) != NULL)
			text_add(text, value, 1);
		else
			text_printf(text, "%%%02X", (unsigned char) *value);
	}
}

static const char *
parse_path(Target *target, char *path)
{
	for (char *part = path; part != NULL;)
	{
		char	   *slash = strchr(part, '/');
		size_t		length = slash != NULL ? (size_t) (slash - part) : strlen(part);

		if (slash != NULL)
			*slash = '\0';
		if (target->part_count == REST_MAX_PARTS)
			return "The path has too many parts.";
		if (!percent_decode(part, &length, false))
			return "The path has a malformed escape in it, or is not UTF-8.";
		target->parts[target->part_count++] = part;
		part = slash != NULL ? slash + 1 : NULL;
	}
	return NULL;
}

static const char *
parse_query(Target *target, char *query)
{
	for (char *pair = query; pair != NULL && *pair != '\0';)
	{
		char	   *next = strchr(pair, '&');
		char	   *value;
		size_t		length;

		if (next != NULL)
			*next++ = '\0';
		value = strchr(pair, '=');
		if (value != NULL)
			*value++ = '\0';
		if (*pair != '\0' || value != NULL)
		{
			if (target->pair_count == REST_MAX_PAIRS)
				return "The query has too many parameters.";
			length = strlen(pair);
			if (!percent_decode(pair, &length, true))
				return "The query has a malformed escape in it, or is not UTF-8.";
			target->pairs[target->pair_count].name = pair;
			if (value == NULL)
				value = pair + strlen(pair);
			else
			{
				length = strlen(value);
				if (!percent_decode(value, &length, true))
					return "The query has a malformed escape in it, or is not UTF-8.";
			}
			target->pairs[target->pair_count++].value = value;
		}
		pair = next;
	}
	return NULL;
}

/*
 * What stands between the method and the version; NULL, or what is wrong with
 * it.  target_free() is due in either case.
 */
const char *
target_parse(Target *target, const char *uri)
{
	char	   *query;

	*target = (Target) {0};
	if (*uri != '/')
		return "The request target is no path.";
	for (const char *c = uri; *c != '\0'; c++)
		if ((unsigned char) *c <= 0x20 || *c == 0x7F || *c == '#')
			return "The request target has a character in it that must be escaped.";
	target->memory = strdup(uri);
	if (target->memory == NULL)
		return "There is no memory.";
	query = strchr(target->memory, '?');
	if (query != NULL)
		*query++ = '\0';
	{
		const char *problem = parse_path(target, target->memory + 1);

		return problem != NULL ? problem : parse_query(target, query);
	}
}

/* The first value of a parameter of the query; NULL: there is none. */
const char *
target_value(const Target *target, const char *name)
{
	for (int i = 0; i < target->pair_count; i++)
		if (strcmp(target->pairs[i].name, name) == 0)
			return target->pairs[i].value;
	return NULL;
}

void
target_free(Target *target)
{
	free(target->memory);
	*target = (Target) {0};
}
