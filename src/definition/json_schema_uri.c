/*
 * json_schema_uri.c
 *	  JSON Schema: references within URIs (RFC 3986, section 5).
 *
 * A schema without $id has the empty base, and relative references stay as they
 * are, but for their dots.
 */
#include "definition/json_schema_internal.h"

/* Pieces of a URI: each with what leads to it or ends it; length 0: it is not there. */
typedef struct Uri
{
	const char *scheme;			/* with the colon */
	size_t		scheme_length;
	const char *authority;		/* with the slashes */
	size_t		authority_length;
	const char *path;
	size_t		path_length;
	const char *query;			/* with the question mark */
	size_t		query_length;
	const char *fragment;		/* with the # */
	size_t		fragment_length;
} Uri;

static bool
is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* How much of the text is free of those characters? */
static size_t
span_without(const char *text, size_t length, const char *stops)
{
	size_t		i = 0;

	while (i < length && strchr(stops, text[i]) == NULL)
		i++;
	return i;
}

static size_t
scheme_length(const char *text, size_t length)
{
	size_t		i = 0;

	if (length == 0 || !is_letter(text[0]))
		return 0;
	while (i < length && (is_letter(text[i]) || (text[i] >= '0' && text[i] <= '9') ||
						  text[i] == '+' || text[i] == '-' || text[i] == '.'))
		i++;
	return i < length && text[i] == ':' ? i + 1 : 0;
}

static Uri
split(const char *text, size_t length)
{
	Uri			uri = {text};
	const char *end = text + length;

	uri.scheme_length = scheme_length(text, length);
	uri.authority = text + uri.scheme_length;
	if (end - uri.authority >= 2 && uri.authority[0] == '/' && uri.authority[1] == '/')
		uri.authority_length = 2 + span_without(uri.authority + 2, end - uri.authority - 2, "/?#");
	uri.path = uri.authority + uri.authority_length;
	uri.path_length = span_without(uri.path, end - uri.path, "?#");
	uri.query = uri.path + uri.path_length;
	uri.query_length = span_without(uri.query, end - uri.query, "#");
	uri.fragment = uri.query + uri.query_length;
	uri.fragment_length = end - uri.fragment;
	return uri;
}

/* Appends a path, its segments . and .. worked out. */
static void
append_path(Text *out, const char *path, size_t length)
{
	size_t		begin = out->length;
	const char *end = path + length;

	while (path < end)
	{
		const char *segment = *path == '/' ? path + 1 : path;
		size_t		size = span_without(segment, end - segment, "/");
		bool		dot = size == 1 && segment[0] == '.';
		bool		dots = size == 2 && segment[0] == '.' && segment[1] == '.';

		if (dots)
		{
			while (out->length > begin && out->data[out->length - 1] != '/')
				out->length--;
			if (out->length > begin)
				out->length--;
			out->data[out->length] = '\0';
		}
		if (!dot && !dots)
			text_append(out, path, segment + size - path);
		else if (segment + size == end)
			text_string(out, "/");
		path = segment + size;
	}
}

/* The path of a reference that begins without a slash stands beside that of the base. */
static void
append_merged_path(Text *out, void *arena, const Uri *base, const Uri *reference)
{
	Text		merged;
	size_t		kept = base->path_length;

	text_begin(&merged, arena);
	while (kept > 0 && base->path[kept - 1] != '/')
		kept--;
	if (base->authority_length > 0 && base->path_length == 0)
		text_string(&merged, "/");
	text_append(&merged, base->path, kept);
	text_append(&merged, reference->path, reference->path_length);
	append_path(out, merged.data, merged.length);
}

const char *
uri_resolve(void *arena, const char *base_text, const char *reference_text, size_t length)
{
	Uri			base = split(base_text, strlen(base_text));
	Uri			reference = split(reference_text, length);
	Text		out;
	bool		own = true;		/* from here on, all is the reference's own */

	text_begin(&out, arena);
	if (reference.scheme_length > 0)
		text_append(&out, reference.scheme, reference.scheme_length);
	else
	{
		text_append(&out, base.scheme, base.scheme_length);
		own = reference.authority_length > 0;
	}
	if (own)
	{
		text_append(&out, reference.authority, reference.authority_length);
		append_path(&out, reference.path, reference.path_length);
	}
	else
	{
		text_append(&out, base.authority, base.authority_length);
		own = true;
		if (reference.path_length == 0)
		{
			text_append(&out, base.path, base.path_length);
			own = reference.query_length > 0;
		}
		else if (reference.path[0] == '/')
			append_path(&out, reference.path, reference.path_length);
		else
			append_merged_path(&out, arena, &base, &reference);
	}
	if (own)
		text_append(&out, reference.query, reference.query_length);
	else
		text_append(&out, base.query, base.query_length);
	text_append(&out, reference.fragment, reference.fragment_length);
	return out.data;
}

const char *
uri_without_fragment(void *arena, const char *uri)
{
	return copy_text(arena, uri, span_without(uri, strlen(uri), "#"));
}

const char *
uri_fragment(const char *uri)
{
	const char *hash = strchr(uri, '#');

	return hash ? hash + 1 : "";
}

static int
hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* Text with its percent signs worked out; length is that of the text, then of the result. */
char *
uri_decoded(void *arena, const char *text, size_t *length)
{
	char	   *out = host_alloc(arena, *length + 1);
	size_t		used = 0;

	for (size_t i = 0; i < *length; i++)
	{
		if (text[i] == '%' && i + 2 < *length && hex_value(text[i + 1]) >= 0 &&
			hex_value(text[i + 2]) >= 0)
		{
			out[used++] = (char) (hex_value(text[i + 1]) * 16 + hex_value(text[i + 2]));
			i += 2;
		}
		else
			out[used++] = text[i];
	}
	out[used] = '\0';
	*length = used;
	return out;
}
