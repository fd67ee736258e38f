/*
 * rest_answer.c
 *	  Answers: what an error of the database is over HTTP, tags and compression.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "rest_internal.h"

/* Below that there is nothing to gain. */
#define COMPRESS_FROM	1024

static const struct
{
	int			status;
	const char *title;
}			titles[] = {
	{400, "Bad Request"},
	{401, "Unauthorized"},
	{403, "Forbidden"},
	{404, "Not Found"},
	{405, "Method Not Allowed"},
	{406, "Not Acceptable"},
	{408, "Request Timeout"},
	{409, "Conflict"},
	{411, "Length Required"},
	{413, "Content Too Large"},
	{414, "URI Too Long"},
	{415, "Unsupported Media Type"},
	{422, "Unprocessable Content"},
	{431, "Request Header Fields Too Large"},
	{500, "Internal Server Error"},
	{501, "Not Implemented"},
	{503, "Service Unavailable"},
};

const char *
status_title(int status)
{
	for (size_t i = 0; i < sizeof(titles) / sizeof(titles[0]); i++)
		if (titles[i].status == status)
			return titles[i].title;
	return "OK";
}

static void
add_member(Text *body, const char *name, const char *value)
{
	if (value == NULL || *value == '\0')
		return;
	text_printf(body, ",\"%s\":", name);
	text_json(body, value);
}

/*
 * A problem as RFC 9457 writes it; what it is made of may be NULL.
 */
static void
write_problem(Answer *answer, int status, const char *title, const char *detail, const char *hint,
			  const char *sqlstate, const char *errors)
{
	answer->status = status;
	answer->type = "application/problem+json";
	text_free(&answer->body);
	text_printf(&answer->body, "{\"type\":\"about:blank\",\"title\":");
	text_json(&answer->body, title);
	text_printf(&answer->body, ",\"status\":%d", status);
	add_member(&answer->body, "detail", detail);
	add_member(&answer->body, "hint", hint);
	add_member(&answer->body, "sqlstate", sqlstate);
	if (errors != NULL)
		text_printf(&answer->body, ",\"errors\":%s", errors);
	text_say(&answer->body, "}");
}

/*
 * What the agent itself refuses.
 */
void
answer_problem(Answer *answer, int status, const char *detail, const char *hint)
{
	write_problem(answer, status, status_title(status), detail, hint, NULL, NULL);
	if (status == 503)
		answer->retry_after = 1;
}

/* The first rule that the code begins with. */
static const struct
{
	const char *sqlstate;
	int			status;
}			rules[] = {
	{"TK003", 409},
	{"TK004", 409},
	{"TK005", 422},
	{"TK006", 422},
	{"TK007", 404},
	{"TK008", 409},
	{"TK009", 403},
	{"22023", 422},
	{"22", 400},
	{"23", 422},
	{"54", 422},
	{"40", 503},
	{"42501", 403},
	{"25006", 503},				/* a standby */
	{"55P03", 503},
	{"53", 503},
	{"57", 503},
	{"08", 503},
};

static int
status_of(const char *sqlstate)
{
	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
		if (strncmp(sqlstate, rules[i].sqlstate, strlen(rules[i].sqlstate)) == 0)
			return rules[i].status;
	return 500;
}

/*
 * What the database refuses.  Only errors that are the caller's are shown whole.
 */
void
answer_error(Answer *answer, const Route *route, const char *sqlstate, const char *message,
			 const char *detail, const char *hint, const char *errors)
{
	int			status = status_of(sqlstate);
	Text		whole = {0};

	if (status == 404 && route->not_found != 0)
		status = route->not_found;
	if (status >= 500)
	{
		write_problem(answer, status, status_title(status),
					  strncmp(sqlstate, "57014", 5) == 0 ? "The database took too long." :
					  status == 503 ? "The database can't answer now." : "The agent's log says why.",
					  NULL, sqlstate, NULL);
		if (status == 503)
			answer->retry_after = 1;
		return;
	}
	text_say(&whole, message);
	if (detail != NULL && *detail != '\0')
		text_printf(&whole, ": %s", detail);
	/* A constraint's name is no list of errors. */
	if (errors != NULL && *errors != '{' && *errors != '[')
		errors = NULL;
	write_problem(answer, status, status_title(status), whole.data, hint, sqlstate, errors);
	text_free(&whole);
}

/*
 * A tag of the body, so that who has it already need not get it again: FNV-1a
 * over words, since it only has to tell one answer from the next.
 */
void
answer_set_tag(Answer *answer)
{
	uint64_t	hash = 14695981039346656037u ^ answer->body.length;
	size_t		i = 0;

	for (; i + sizeof(hash) <= answer->body.length; i += sizeof(hash))
	{
		uint64_t	word;

		memcpy(&word, answer->body.data + i, sizeof(word));
		hash = (hash ^ word) * 1099511628211u;
		hash ^= hash >> 29;
	}
	for (; i < answer->body.length; i++)
		hash = (hash ^ (unsigned char) answer->body.data[i]) * 1099511628211u;
	snprintf(answer->etag, sizeof(answer->etag), "W/\"%016llx\"", (unsigned long long) hash);
}

/*
 * gzip, where that makes it shorter; effort: 1 to 9.
 */
void
answer_compress(Answer *answer, int effort)
{
	z_stream	stream = {0};
	Text		packed = {0};
	size_t		most;

	if (answer->body.length < COMPRESS_FROM || answer->content_encoding != NULL ||
		deflateInit2(&stream, effort, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
		return;
	most = deflateBound(&stream, answer->body.length);
	packed.data = malloc(most);
	packed.room = most;
	if (packed.data != NULL)
	{
		stream.next_in = (unsigned char *) answer->body.data;
		stream.avail_in = (unsigned int) answer->body.length;
		stream.next_out = (unsigned char *) packed.data;
		stream.avail_out = (unsigned int) most;
		if (deflate(&stream, Z_FINISH) == Z_STREAM_END && stream.total_out < answer->body.length)
		{
			packed.length = stream.total_out;
			text_free(&answer->body);
			answer->body = packed;
			answer->content_encoding = "gzip";
			packed = (Text) {0};
		}
	}
	text_free(&packed);
	deflateEnd(&stream);
}

void
answer_free(Answer *answer)
{
	text_free(&answer->body);
	free(answer->location);
	free(answer->link);
	*answer = (Answer) {0};
}
