/*
 * rest_bind.c
 *	  A request's parameters as the values of its route's statement.
 *
 * What a parameter may be is checked here, so that the database sees no number
 * that is none, and the answer names the parameter.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "rest_internal.h"

static bool
is_whole_number(const char *value, long long minimum, long long maximum)
{
	char	   *end;
	long long	number;

	if (*value != '-' && (*value < '0' || *value > '9'))
		return false;
	errno = 0;
	number = strtoll(value, &end, 10);
	return errno == 0 && end != value && *end == '\0' && number >= minimum && number <= maximum;
}

static bool
is_among(const char *value, const char *choices)
{
	size_t		length = strlen(value);

	for (const char *choice = choices; choice != NULL;)
	{
		size_t		width = strcspn(choice, "|");

		if (width == length && strncmp(choice, value, length) == 0)
			return true;
		choice = choice[width] == '|' ? choice + width + 1 : NULL;
	}
	return false;
}

/*
 * A date, perhaps with a time: not the words that PostgreSQL takes as well.
 */
static bool
is_time(const char *value)
{
	return strlen(value) >= 10 && strlen(value) <= 40 && value[4] == '-' && value[7] == '-' &&
		strspn(value, "0123456789-+:.TtZz ") == strlen(value);
}

static bool
check_value(const Parameter *parameter, const char *value, Text *problem)
{
	switch (parameter->type)
	{
		case TYPE_TEXT:
		case TYPE_TEXTS:
			if (strlen(value) <= 1000)
				return true;
			text_printf(problem, "Parameter %s is longer than 1000 bytes.", parameter->name);
			return false;
		case TYPE_ID:
			if (is_whole_number(value, 1, INT64_MAX))
				return true;
			text_printf(problem, "Parameter %s must be a whole number above 0.", parameter->name);
			return false;
		case TYPE_INTEGER:
			if (is_whole_number(value, parameter->minimum, parameter->maximum))
				return true;
			text_printf(problem, "Parameter %s must be a whole number from %ld to %ld.",
						parameter->name, parameter->minimum, parameter->maximum);
			return false;
		case TYPE_FLAG:
			if (is_among(value, "true|false|1|0"))
				return true;
			text_printf(problem, "Parameter %s must be true or false.", parameter->name);
			return false;
		case TYPE_TIME:
			if (is_time(value))
				return true;
			text_printf(problem, "Parameter %s must be a time as ISO 8601 writes it.", parameter->name);
			return false;
		case TYPE_CHOICE:
			if (is_among(value, parameter->choices))
				return true;
			text_printf(problem, "Parameter %s must be one of %s.", parameter->name, parameter->choices);
			return false;
	}
	return false;
}

/* An array of PostgreSQL of all values of a parameter; its place in the lists. */
static bool
bind_list(const Parameter *parameter, const Target *target, Values *values, size_t *place, bool *found, Text *problem)
{
	*place = values->lists.length;
	*found = false;
	for (int i = 0; i < target->pair_count; i++)
	{
		const char *value = target->pairs[i].value;

		if (strcmp(target->pairs[i].name, parameter->name) != 0)
			continue;
		if (!check_value(parameter, value, problem))
			return false;
		text_say(&values->lists, *found ? ",\"" : "{\"");
		*found = true;
		for (const char *c = value; *c != '\0'; c++)
		{
			if (*c == '"' || *c == '\\')
				text_say(&values->lists, "\\");
			text_add(&values->lists, c, 1);
		}
		text_say(&values->lists, "\"");
	}
	if (*found)
		text_add(&values->lists, "}", 2);
	return true;
}

/* The part of the path that stands for a parameter. */
static const char *
path_value(const Route *route, const Target *target, const char *name)
{
	const char *part = route->pattern + 1;
	size_t		length = strlen(name);

	for (int i = 1; i < target->part_count; i++)
	{
		if (*part == '{' && strncmp(part + 1, name, length) == 0 && part[length + 1] == '}')
			return target->parts[i];
		part += strcspn(part, "/");
		if (*part == '/')
			part++;
	}
	return NULL;
}

static bool
check_known(const Route *route, const Target *target, Text *problem)
{
	for (int i = 0; i < target->pair_count; i++)
	{
		const char *name = target->pairs[i].name;
		const Parameter *known = NULL;
		int			times = 0;

		for (int p = 0; route->parameters[p] != NULL && known == NULL; p++)
			if (route->parameters[p]->place == IN_QUERY && strcmp(route->parameters[p]->name, name) == 0)
				known = route->parameters[p];
		for (int j = 0; j <= i; j++)
			times += strcmp(target->pairs[j].name, name) == 0;
		if (known == NULL)
		{
			text_printf(problem, "There is no parameter %s here.", name);
			return false;
		}
		if (times > 1 && known->type != TYPE_TEXTS)
		{
			text_printf(problem, "Parameter %s is given twice.", name);
			return false;
		}
	}
	return true;
}

/*
 * False where a parameter is wrong, and the problem says which.  The values
 * live as long as the target, and until values_free().
 */
bool
bind_values(const Route *route, const Target *target, HeaderValue header, void *context,
			Values *values, Text *problem)
{
	size_t		list_places[REST_MAX_VALUES];
	bool		is_list[REST_MAX_VALUES] = {false};

	*values = (Values) {0};
	if (!check_known(route, target, problem))
		return false;
	for (int i = 0; route->parameters[i] != NULL; i++)
	{
		const Parameter *parameter = route->parameters[i];
		const char *value = NULL;

		if (parameter->type == TYPE_TEXTS)
		{
			if (!bind_list(parameter, target, values, &list_places[i], &is_list[i], problem))
				return false;
		}
		else
		{
			if (parameter->place == IN_PATH)
				value = path_value(route, target, parameter->name);
			else if (parameter->place == IN_QUERY)
				value = target_value(target, parameter->name);
			else if (header != NULL)
				value = header(context, parameter->name);
			/* An empty one of the query says as much as none. */
			if (value != NULL && *value == '\0' && parameter->place != IN_PATH)
				value = NULL;
			if (value != NULL && parameter->place == IN_HEADER && !text_is_utf8(value, strlen(value)))
			{
				text_printf(problem, "Header %s is not UTF-8.", parameter->name);
				return false;
			}
			if (value != NULL && !check_value(parameter, value, problem))
				return false;
			if (value == NULL)
				value = parameter->fallback;
		}
		values->values[values->count++] = value;
	}
	/* Only now, as the memory of lists may have moved while it grew. */
	for (int i = 0; i < values->count; i++)
		if (is_list[i])
			values->values[i] = values->lists.data + list_places[i];
	return true;
}

void
values_free(Values *values)
{
	text_free(&values->lists);
	*values = (Values) {0};
}
