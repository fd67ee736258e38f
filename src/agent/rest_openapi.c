/*
 * rest_openapi.c
 *	  OpenAPI 3.1, from the table of routes.  The schemas of the bodies come from
 *	  the database, which checks what comes in by them.
 */
#include <ctype.h>
#include <string.h>

#include "rest_internal.h"

static const char *const type_names[] = {
	[TYPE_TEXT] = "{\"type\":\"string\",\"maxLength\":1000}",
	[TYPE_TEXTS] = "{\"type\":\"array\",\"items\":{\"type\":\"string\",\"maxLength\":1000}}",
	[TYPE_ID] = "{\"type\":\"integer\",\"minimum\":1,\"maximum\":9223372036854775807}",
	[TYPE_FLAG] = "{\"type\":\"boolean\"}",
	[TYPE_TIME] = "{\"type\":\"string\",\"format\":\"date-time\"}",
};

static const char *const place_names[] = {
	[IN_PATH] = "path",
	[IN_QUERY] = "query",
	[IN_HEADER] = "header",
};

static void
describe_choices(Text *text, const Parameter *parameter)
{
	bool		is_first = true;

	text_say(text, "{\"type\":\"string\",\"enum\":[");
	for (const char *choice = parameter->choices; *choice != '\0';)
	{
		size_t		width = strcspn(choice, "|");

		if (!is_first)
			text_say(text, ",");
		text_json_bytes(text, choice, width);
		is_first = false;
		choice += width;
		if (*choice == '|')
			choice++;
	}
	text_say(text, "]");
	if (parameter->fallback != NULL)
	{
		text_say(text, ",\"default\":");
		text_json(text, parameter->fallback);
	}
	text_say(text, "}");
}

static void
describe_parameter(Text *text, const Parameter *parameter)
{
	text_say(text, "{\"name\":");
	text_json(text, parameter->name);
	text_printf(text, ",\"in\":\"%s\",\"required\":%s,\"description\":", place_names[parameter->place],
				parameter->place == IN_PATH ? "true" : "false");
	text_json(text, parameter->about);
	text_say(text, ",\"schema\":");
	if (parameter->type == TYPE_CHOICE)
		describe_choices(text, parameter);
	else if (parameter->type == TYPE_INTEGER)
		text_printf(text, "{\"type\":\"integer\",\"minimum\":%ld,\"maximum\":%ld,\"default\":%s}",
					parameter->minimum, parameter->maximum, parameter->fallback);
	else
		text_say(text, type_names[parameter->type]);
	text_say(text, "}");
}

static void
describe_content(Text *text, const char *type, const char *schema)
{
	text_printf(text, "\"content\":{\"%s\":{\"schema\":", type);
	if (schema != NULL)
		text_printf(text, "{\"$ref\":\"#/components/schemas/%s\"}}}", schema);
	else
		text_say(text, "{\"type\":\"string\"}}}");
}

static void
describe_problem(Text *text, int status)
{
	text_printf(text, ",\"%d\":{\"description\":", status);
	text_json(text, status_title(status));
	text_say(text, ",");
	describe_content(text, "application/problem+json", "problem");
	text_say(text, "}");
}

static void
describe_answers(Text *text, const Route *route)
{
	const char *type = route->type != NULL ? route->type : "application/json";
	int			status = route->status != 0 ? route->status : 200;
	bool		has_id = strchr(route->pattern, '{') != NULL;

	text_printf(text, "\"responses\":{\"%d\":{\"description\":\"What was asked for.\",", status);
	describe_content(text, type, route->answer);
	text_say(text, "}");
	if (route->status == 201)
	{
		text_say(text, ",\"200\":{\"description\":\"It was there already.\",");
		describe_content(text, type, route->answer);
		text_say(text, "}");
	}
	if (strncmp(route->pattern, "/health/", 8) == 0 && route->kind == ROUTE_SQL)
	{
		text_say(text, ",\"503\":{\"description\":\"It is not well.\",");
		describe_content(text, type, route->answer);
		text_say(text, "}");
	}
	else
		describe_problem(text, 503);
	describe_problem(text, 400);
	if (!route->is_open)
	{
		describe_problem(text, 401);
		describe_problem(text, 403);
	}
	if (has_id)
		describe_problem(text, 404);
	if (route->methods != METHOD_GET)
	{
		describe_problem(text, 409);
		describe_problem(text, 413);
		describe_problem(text, 415);
		describe_problem(text, 422);
	}
	else if (strstr(route->pattern, "/diagram") != NULL)
		describe_problem(text, 422);
	text_say(text, "}");
}

static void
describe_operation(Text *text, const Route *route, int method, bool is_second)
{
	Text		name = {0};

	method_names(method, &name);
	/* of GET and HEAD, which are one */
	for (char *c = name.data; *c != '\0'; c++)
		*c = *c == ',' ? '\0' : (char) tolower((unsigned char) *c);
	text_printf(text, "\"%s\":{\"operationId\":\"%s%s\",\"summary\":", name.data, route->operation,
				is_second ? "_put" : "");
	text_json(text, route->summary);
	text_free(&name);
	if (route->permission != NULL)
		text_printf(text, ",\"x-permission\":\"%s\"", route->permission);
	if (route->is_open)
		text_say(text, ",\"security\":[]");
	text_say(text, ",\"parameters\":[");
	for (int i = 0; route->parameters[i] != NULL; i++)
	{
		if (i > 0)
			text_say(text, ",");
		describe_parameter(text, route->parameters[i]);
	}
	text_say(text, "],");
	if (route->body != NULL)
	{
		text_printf(text, "\"requestBody\":{\"required\":%s,", method == METHOD_DELETE || strcmp(route->body, "reason") == 0 ? "false" : "true");
		if (route->body_is_text)
			text_printf(text, "\"content\":{\"application/yaml\":{\"schema\":{\"type\":\"string\"}},"
						"\"application/json\":{\"schema\":{\"$ref\":\"#/components/schemas/%s\"}}}", route->body);
		else
			describe_content(text, "application/json", route->body);
		text_say(text, "},");
	}
	describe_answers(text, route);
	text_say(text, "}");
}

void
openapi_describe(Text *text)
{
	static const int methods[] = {METHOD_GET, METHOD_POST, METHOD_PATCH, METHOD_PUT, METHOD_DELETE};

	text_say(text, "{\"openapi\":\"3.1.0\",\"info\":{\"title\":\"tasker\",\"version\":\"" TASKER_VERSION "\","
			 "\"summary\":\"Workflows in PostgreSQL\"},"
			 "\"security\":[{\"bearer\":[]},{}],\"paths\":{");
	for (int i = 0; i < rest_route_count; i++)
	{
		const Route *route = &rest_routes[i];
		bool		continues = i > 0 && strcmp(route->pattern, rest_routes[i - 1].pattern) == 0;
		bool		is_second = false;

		if (continues)
			text_say(text, ",");
		else
			text_printf(text, "%s\"" REST_PREFIX "%s\":{", i > 0 ? "}," : "", route->pattern);
		for (size_t m = 0; m < sizeof(methods) / sizeof(methods[0]); m++)
		{
			if ((route->methods & methods[m]) == 0)
				continue;
			if (is_second)
				text_say(text, ",");
			describe_operation(text, route, methods[m], is_second);
			is_second = true;
		}
	}
	text_say(text, "}},\"components\":{\"securitySchemes\":{\"bearer\":{\"type\":\"http\",\"scheme\":\"bearer\","
			 "\"description\":\"A token of tasker.create_token(), or a JSON Web Token.\"}}}}");
}
