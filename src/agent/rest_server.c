/*
 * rest_server.c
 *	  The HTTP server: takes requests, hands them to the pool, sends the answers.
 *	  The only file that knows libmicrohttpd.
 *
 * A connection waits, suspended, while the pool asks the database; so a few
 * threads serve many connections.  The library ends a connection that is silent
 * for too long; one that sends or reads a byte now and then is ended by a thread
 * here, which looks at how long each has been at what it is doing.
 */
#include <arpa/inet.h>
#include <netdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <microhttpd.h>

#include "agent.h"
#include "log.h"
#include "rest_internal.h"
#include "role.h"
#include "settings.h"

#define SERVER_THREADS	2
#define HEADER_MEMORY	(32 * 1024)
#define MAX_URI			8192
/* What is read of a body that is too long, so that its sender can see the answer. */
#define MAX_DISCARDED	(1024 * 1024)

/* What a connection is at, and since when. */
typedef struct Client
{
	struct Client *previous;
	struct Client *next;
	int			socket;
	long long	since;			/* in ms; 0: not watched */
	long long	limit;			/* in ms */
} Client;

typedef enum Stage
{
	STAGE_NEW,
	STAGE_REFUSED,				/* nothing is to be asked: an error, or a page */
	STAGE_BODY,
	STAGE_ASKED,
	STAGE_ANSWERED
} Stage;

typedef struct Exchange
{
	Job			job;			/* first: the pool knows no more of it */
	struct MHD_Connection *connection;
	Client	   *client;
	char	   *uri;
	Stage		stage;
	int			allowed;		/* of a 405 */
	bool		closes;
	bool		is_too_long;
	bool		is_stream;		/* counts among the open ones */
	size_t		discarded;
	Text		body;
	Stream	   *stream;
	const Page *page;
} Exchange;

static struct MHD_Daemon *server;
static pthread_mutex_t clients_lock = PTHREAD_MUTEX_INITIALIZER;
static Client *clients;
static pthread_t watcher;
static bool has_watcher;
static atomic_bool stopping;
static atomic_bool draining;
static atomic_int under_way;
static atomic_int streams;		/* open, or to be */

/* ---- clients that take too long */

static void
watch(Client *client, long limit)
{
	if (client == NULL)
		return;
	pthread_mutex_lock(&clients_lock);
	client->since = limit > 0 ? clock_ms() : 0;
	client->limit = limit;
	pthread_mutex_unlock(&clients_lock);
}

static void
connection_changed(void *context, struct MHD_Connection *connection, void **socket_context,
				   enum MHD_ConnectionNotificationCode code)
{
	Client	   *client = *socket_context;

	if (code == MHD_CONNECTION_NOTIFY_STARTED)
	{
		const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);

		client = calloc(1, sizeof(Client));
		if (client == NULL || info == NULL)
		{
			free(client);
			return;
		}
		client->socket = info->connect_fd;
		client->since = clock_ms();
		client->limit = setting_ms("idle-timeout");
		pthread_mutex_lock(&clients_lock);
		client->next = clients;
		if (clients != NULL)
			clients->previous = client;
		clients = client;
		pthread_mutex_unlock(&clients_lock);
		*socket_context = client;
	}
	else if (client != NULL)
	{
		pthread_mutex_lock(&clients_lock);
		if (client->next != NULL)
			client->next->previous = client->previous;
		if (client->previous != NULL)
			client->previous->next = client->next;
		else
			clients = client->next;
		pthread_mutex_unlock(&clients_lock);
		*socket_context = NULL;
		free(client);
	}
}

/* The socket is still its own while the client is in the list. */
static void *
watch_clients(void *argument)
{
	while (!atomic_load(&stopping))
	{
		const struct timespec pause = {.tv_nsec = 250000000};
		long long	now;

		nanosleep(&pause, NULL);
		now = clock_ms();
		pthread_mutex_lock(&clients_lock);
		for (Client *client = clients; client != NULL; client = client->next)
		{
			if (client->since == 0 || now - client->since < client->limit)
				continue;
			shutdown(client->socket, SHUT_RDWR);
			client->since = 0;
		}
		pthread_mutex_unlock(&clients_lock);
	}
	return NULL;
}

/* ---- answers */

static void
free_text(void *data)
{
	free(data);
}

static void
add_header(struct MHD_Response *response, const char *name, const char *value)
{
	if (value != NULL)
		(void) MHD_add_response_header(response, name, value);
}

/* Whether a page of that origin may read the answer. */
static const char *
allowed_origin(struct MHD_Connection *connection)
{
	const char *origins = setting_text("cors-origins");
	const char *origin = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Origin");

	if (origins == NULL || origin == NULL)
		return NULL;
	if (strcmp(origins, "*") == 0)
		return "*";
	return list_has(origins, origin) ? origin : NULL;
}

static void
add_cors(struct MHD_Response *response, struct MHD_Connection *connection)
{
	const char *origin = allowed_origin(connection);

	add_header(response, "Vary", setting_text("cors-origins") != NULL ? "Origin, Accept-Encoding" : "Accept-Encoding");
	if (origin == NULL)
		return;
	add_header(response, "Access-Control-Allow-Origin", origin);
	add_header(response, "Access-Control-Expose-Headers", "ETag, Link, Location, Retry-After");
}

static enum MHD_Result
send_answer(Exchange *exchange)
{
	Answer	   *answer = &exchange->job.answer;
	struct MHD_Connection *connection = exchange->connection;
	const char *seen = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "If-None-Match");
	struct MHD_Response *response;
	enum MHD_Result result;

	if (answer->status == 200 && answer->etag[0] != '\0' && seen != NULL &&
		(strcmp(seen, "*") == 0 || strstr(seen, answer->etag) != NULL))
	{
		answer->status = 304;
		text_free(&answer->body);
	}
	response = MHD_create_response_from_buffer_with_free_callback(answer->body.length, answer->body.data, free_text);
	if (response == NULL)
		return MHD_NO;
	answer->body = (Text) {0};

	if (answer->status != 304 && answer->status != 204)
		add_header(response, "Content-Type", answer->type);
	add_header(response, "Content-Encoding", answer->content_encoding);
	add_header(response, "Location", answer->location);
	add_header(response, "Link", answer->link);
	if (answer->etag[0] != '\0')
		add_header(response, "ETag", answer->etag);
	add_header(response, "Cache-Control", "no-cache");
	add_header(response, "X-Content-Type-Options", "nosniff");
	add_header(response, "Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'");
	if (answer->retry_after > 0)
		add_header(response, "Retry-After", "1");
	if (answer->status == 401)
		add_header(response, "WWW-Authenticate", "Bearer realm=\"tasker\"");
	if (exchange->allowed != 0)
	{
		Text		allow = {0};

		add_header(response, "Allow", method_names(exchange->allowed | METHOD_OPTIONS, &allow));
		text_free(&allow);
	}
	add_cors(response, connection);
	if (exchange->closes || atomic_load(&draining))
		add_header(response, "Connection", "close");

	exchange->stage = STAGE_ANSWERED;
	watch(exchange->client, setting_ms("idle-timeout"));
	result = MHD_queue_response(connection, (unsigned int) answer->status, response);
	MHD_destroy_response(response);
	return result;
}

/* ---- requests */

static const char *
header_value(void *context, const char *name)
{
	return MHD_lookup_connection_value(context, MHD_HEADER_KIND, name);
}

static bool
has_body(struct MHD_Connection *connection)
{
	const char *length = header_value(connection, "Content-Length");

	return header_value(connection, "Transfer-Encoding") != NULL ||
		(length != NULL && strspn(length, "0") != strlen(length));
}

/*
 * The agent's own refusal.  An answer that comes before the body was read ends
 * the connection; where there is none, it waits for the call that would bring it.
 */
static enum MHD_Result
refuse(Exchange *exchange, int status, const char *detail, const char *hint)
{
	answer_problem(&exchange->job.answer, status, detail, hint);
	if (exchange->stage == STAGE_NEW && !has_body(exchange->connection))
	{
		exchange->stage = STAGE_REFUSED;
		return MHD_YES;
	}
	return send_answer(exchange);
}

static bool
accepts_gzip(struct MHD_Connection *connection)
{
	const char *accepted = header_value(connection, "Accept-Encoding");
	const char *found = accepted != NULL ? strstr(accepted, "gzip") : NULL;

	return found != NULL && strncmp(found, "gzip;q=0", 8) != 0;
}

/* A file of the pages. */
static enum MHD_Result
send_page(Exchange *exchange)
{
	const Page *page = exchange->page;
	const char *seen = MHD_lookup_connection_value(exchange->connection, MHD_HEADER_KIND, "If-None-Match");
	bool		is_packed = page->packed != NULL && accepts_gzip(exchange->connection);
	const char *tag = is_packed ? page->packed_etag : page->etag;
	bool		is_seen = seen != NULL && strstr(seen, tag) != NULL;
	struct MHD_Response *response = MHD_create_response_from_buffer(is_seen ? 0 : is_packed ? page->packed_length : page->length,
																	is_packed ? page->packed : page->data, MHD_RESPMEM_PERSISTENT);
	enum MHD_Result result;

	if (!is_seen)
		add_header(response, "Content-Type", page->type);
	if (is_packed)
		add_header(response, "Content-Encoding", "gzip");
	if (page->packed != NULL)
		add_header(response, "Vary", "Accept-Encoding");
	add_header(response, "ETag", tag);
	add_header(response, "Cache-Control", "no-cache");
	add_header(response, "X-Content-Type-Options", "nosniff");
	add_header(response, "Referrer-Policy", "no-referrer");
	add_header(response, "Content-Security-Policy",
			   "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'");
	exchange->stage = STAGE_ANSWERED;
	watch(exchange->client, setting_ms("idle-timeout"));
	result = MHD_queue_response(exchange->connection, is_seen ? MHD_HTTP_NOT_MODIFIED : MHD_HTTP_OK, response);
	MHD_destroy_response(response);
	return result;
}

/* Relative addresses in a page need the slash. */
static enum MHD_Result
send_to_pages(Exchange *exchange)
{
	exchange->job.answer.status = 308;
	exchange->job.answer.type = "text/plain";
	exchange->job.answer.location = text_copy(REST_PREFIX "/");
	exchange->stage = STAGE_REFUSED;
	return MHD_YES;
}

/* ---- the stream of events */

static void
suspend(void *context)
{
	MHD_suspend_connection(((Exchange *) context)->connection);
}

static void
resume(void *context)
{
	MHD_resume_connection(((Exchange *) context)->connection);
}

/* It does not read: the watcher ends it. */
static void
cut(void *context)
{
	watch(((Exchange *) context)->client, 1);
}

static ssize_t
read_stream(void *context, uint64_t position, char *buffer, size_t room)
{
	Exchange   *exchange = context;
	bool		is_ended;
	size_t		length = stream_read(exchange->stream, buffer, room, &is_ended, suspend, exchange);

	return is_ended ? MHD_CONTENT_READER_END_OF_STREAM : (ssize_t) length;
}

static enum MHD_Result
send_stream(Exchange *exchange)
{
	Job		   *job = &exchange->job;
	struct MHD_Response *response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16 * 1024, read_stream, exchange, NULL);
	enum MHD_Result result;

	if (response == NULL)
		return MHD_NO;
	exchange->stream = stream_open(job->role, job->place[3], job->values.values[1], job->values.values[2],
								   job->place[0], job->place[1], job->place[2],
								   job->answer.body.data != NULL && strcmp(job->answer.body.data, "lost") == 0);
	add_header(response, "Content-Type", "text/event-stream");
	add_header(response, "Cache-Control", "no-store");
	add_header(response, "X-Accel-Buffering", "no");
	add_header(response, "X-Content-Type-Options", "nosniff");
	add_cors(response, exchange->connection);
	exchange->stage = STAGE_ANSWERED;
	watch(exchange->client, 0);
	result = MHD_queue_response(exchange->connection, MHD_HTTP_OK, response);
	MHD_destroy_response(response);
	stream_on_data(exchange->stream, resume, cut, exchange);
	return result;
}

typedef struct HeaderCount
{
	const char *name;
	int			count;
} HeaderCount;

static enum MHD_Result
count_header(void *context, enum MHD_ValueKind kind, const char *name, const char *value)
{
	HeaderCount *wanted = context;

	if (strcasecmp(name, wanted->name) == 0)
		wanted->count++;
	return MHD_YES;
}

static int
header_count(struct MHD_Connection *connection, const char *name)
{
	HeaderCount wanted = {name, 0};

	MHD_get_connection_values(connection, MHD_HEADER_KIND, count_header, &wanted);
	return wanted.count;
}

/*
 * What somebody in front of the agent could read otherwise than the library does.
 */
static const char *
find_ambiguity(struct MHD_Connection *connection, const char *version)
{
	const char *encoding = header_value(connection, "Transfer-Encoding");
	const char *length = header_value(connection, "Content-Length");

	if (encoding != NULL && (length != NULL || strcasecmp(encoding, "chunked") != 0 ||
							 strcmp(version, "HTTP/1.1") != 0))
		return "Transfer-Encoding must be chunked, without a Content-Length.";
	if (header_count(connection, "Transfer-Encoding") > 1 || header_count(connection, "Content-Length") > 1)
		return "The length of the body is given twice.";
	if (length != NULL && (*length == '\0' || strspn(length, "0123456789") != strlen(length)))
		return "Content-Length must be a number.";
	if (header_count(connection, "Host") > 1)
		return "Host is given twice.";
	if (header_count(connection, "Authorization") > 1)
		return "Authorization is given twice.";
	return NULL;
}

/* Whether a body may be of the type that it says. */
static bool
type_fits(const Route *route, struct MHD_Connection *connection)
{
	const char *type = header_value(connection, "Content-Type");

	if (route->body_is_text || type == NULL)
		return route->body_is_text || route->methods != METHOD_POST || !has_body(connection);
	return strncasecmp(type, "application/json", strlen("application/json")) == 0 ||
		strcasestr(type, "+json") != NULL;
}

/* A request of another origin that asks what it may do. */
static enum MHD_Result
answer_options(Exchange *exchange)
{
	struct MHD_Response *response = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
	Text		allow = {0};
	enum MHD_Result result;

	method_names(exchange->allowed | METHOD_OPTIONS, &allow);
	add_header(response, "Allow", allow.data);
	add_cors(response, exchange->connection);
	if (allowed_origin(exchange->connection) != NULL)
	{
		add_header(response, "Access-Control-Allow-Methods", allow.data);
		add_header(response, "Access-Control-Allow-Headers",
				   "Authorization, Content-Type, Idempotency-Key, If-None-Match, Last-Event-ID, X-Correlation-ID, traceparent");
		add_header(response, "Access-Control-Max-Age", "600");
	}
	text_free(&allow);
	exchange->stage = STAGE_ANSWERED;
	result = MHD_queue_response(exchange->connection, MHD_HTTP_NO_CONTENT, response);
	MHD_destroy_response(response);
	return result;
}

static void
answer_live(Answer *answer)
{
	struct timespec now;
	struct tm	parts;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &parts);
	answer->status = 200;
	answer->type = "application/json";
	text_printf(&answer->body, "{\"alive\":true,\"timestamp\":\"%04d-%02d-%02dT%02d:%02d:%02dZ\",\"service\":\"tasker\"}",
				parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec);
}

/* Called by a thread of the pool: the connection's own thread sends the answer. */
static void
job_done(Job *job)
{
	MHD_resume_connection(((Exchange *) job)->connection);
}

/* Who is connected: a number, or unix. */
static void
client_address(struct MHD_Connection *connection, char *text, size_t size)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);

	snprintf(text, size, "unix");
	if (info == NULL || info->client_addr == NULL || info->client_addr->sa_family == AF_UNIX)
		return;
	(void) getnameinfo(info->client_addr, info->client_addr->sa_family == AF_INET6 ?
					   sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in),
					   text, (socklen_t) size, NULL, 0, NI_NUMERICHOST);
}

/*
 * Whether a name that a browser may know us by can't be a stranger's: one that
 * is made to mean this machine would get all that needs no credentials.
 */
static bool
is_own_host(const char *host)
{
	size_t		length = host != NULL ? strcspn(host, ":") : 0;

	if (host == NULL || *host == '\0' || *host == '[' || strspn(host, "0123456789.") == length)
		return true;
	if (length == 9 && strncasecmp(host, "localhost", 9) == 0)
		return true;
	{
		char	   *name = strndup(host, length);
		bool		is_known = list_has(setting_text("hosts"), name);

		free(name);
		return is_known;
	}
}

/* Whether it comes from a page of somebody else, which a browser lets write, if not read. */
static bool
is_foreign_page(struct MHD_Connection *connection)
{
	const char *origin = header_value(connection, "Origin");
	const char *host = header_value(connection, "Host");
	const char *name = origin != NULL ? strstr(origin, "://") : NULL;

	if (origin == NULL || allowed_origin(connection) != NULL)
		return false;
	return name == NULL || host == NULL || strcasecmp(name + 3, host) != 0;
}

/*
 * Says whose request it is; false, and it was refused.
 */
static bool
authenticate(Exchange *exchange, int method, enum MHD_Result *result)
{
	struct MHD_Connection *connection = exchange->connection;
	const char *proxy_header = setting_text("proxy-header");
	const char *why;
	char	   *who;
	char		address[INET6_ADDRSTRLEN + 20];

	if (exchange->job.route->is_open)
		return true;
	if (method != METHOD_GET && is_foreign_page(connection))
	{
		*result = refuse(exchange, 403, "The request comes from a page of another origin.",
						 "The setting cors-origins lists those that may.");
		return false;
	}
	client_address(connection, address, sizeof(address));
	switch (auth_check(header_value(connection, "Authorization"),
					   proxy_header != NULL ? header_value(connection, proxy_header) : NULL,
					   auth_is_proxy(address), auth_is_required(), &who, &why))
	{
		case AUTH_ROLE:
			exchange->job.role = who;
			return true;
		case AUTH_TOKEN:
			exchange->job.token = who;
			return true;
		case AUTH_REFUSED:
			*result = refuse(exchange, 401, why, "Send Authorization: Bearer, and a token of tasker.create_token().");
			return false;
		case AUTH_LATER:
			*result = refuse(exchange, 503, why, NULL);
			return false;
		case AUTH_NONE:
			break;
	}
	if (is_own_host(header_value(connection, "Host")))
		return true;
	*result = refuse(exchange, 403, "Without credentials, the agent answers to its address and to localhost only.",
					 "The setting hosts lists other names.");
	return false;
}

/*
 * The headers are there: which route it is, and whether its body is worth
 * reading.
 */
static enum MHD_Result
begin(Exchange *exchange, const char *method, const char *version)
{
	struct MHD_Connection *connection = exchange->connection;
	const char *length = header_value(connection, "Content-Length");
	const char *problem;
	int			number = method_of(method);
	const Route *route;
	enum MHD_Result result;

	watch(exchange->client, setting_ms("request-timeout"));
	problem = find_ambiguity(connection, version);
	if (problem != NULL)
	{
		exchange->closes = true;
		return refuse(exchange, 400, problem, NULL);
	}
	if (exchange->uri == NULL)
		return refuse(exchange, 414, "The request target is too long.", NULL);
	problem = target_parse(&exchange->job.target, exchange->uri);
	if (problem != NULL)
		return refuse(exchange, 400, problem, NULL);

	route = route_find(&exchange->job.target, number, &exchange->allowed);
	if (route == NULL && exchange->allowed == 0 && number == METHOD_GET)
	{
		exchange->page = page_find(&exchange->job.target);
		if (exchange->page != NULL)
		{
			exchange->stage = STAGE_REFUSED;
			return MHD_YES;
		}
		if (exchange->job.target.part_count == 1 && strcmp(exchange->job.target.parts[0], &REST_PREFIX[1]) == 0)
			return send_to_pages(exchange);
	}
	if (route == NULL && exchange->allowed == 0)
		return refuse(exchange, 404, "There is nothing of that path.", "/tasker/openapi.json lists what there is.");
	if (route == NULL && number == METHOD_OPTIONS)
		return answer_options(exchange);
	if (route == NULL)
		return refuse(exchange, 405, "The path does not take that method.", NULL);
	exchange->allowed = 0;
	exchange->job.route = route;
	if (!authenticate(exchange, number, &result))
		return result;

	if (length != NULL && strtoull(length, NULL, 10) > (unsigned long long) setting_bytes("max-body"))
	{
		exchange->closes = true;
		return refuse(exchange, 413, "The body is longer than the setting max-body.", NULL);
	}
	if (has_body(connection) && route->body == NULL && !route->body_is_text)
	{
		exchange->closes = true;
		return refuse(exchange, 400, "The operation takes no body.", NULL);
	}
	if (has_body(connection) && !type_fits(route, connection))
	{
		exchange->closes = true;
		return refuse(exchange, 415, "The body must be application/json.", "Send Content-Type: application/json.");
	}
	exchange->stage = STAGE_BODY;
	return MHD_YES;
}

static enum MHD_Result
take_body(Exchange *exchange, const char *data, size_t *size)
{
	if (exchange->body.length + *size > (size_t) setting_bytes("max-body"))
	{
		exchange->is_too_long = true;
		exchange->discarded += *size;
		if (exchange->discarded > MAX_DISCARDED)
			return MHD_NO;
	}
	else if (!exchange->is_too_long)
		text_add(&exchange->body, data, *size);
	*size = 0;
	return MHD_YES;
}

/* All of the request is there. */
static enum MHD_Result
dispatch(Exchange *exchange)
{
	Job		   *job = &exchange->job;
	Text		problem = {0};

	if (exchange->is_too_long)
	{
		exchange->closes = true;
		return refuse(exchange, 413, "The body is longer than the setting max-body.", NULL);
	}
	if (!text_is_utf8(exchange->body.data != NULL ? exchange->body.data : "", exchange->body.length))
		return refuse(exchange, 400, "The body is not UTF-8, or has a NUL in it.", NULL);
	if (!bind_values(job->route, &job->target, header_value, exchange->connection, &job->values, &problem))
	{
		enum MHD_Result result = refuse(exchange, 400, problem.data, "/tasker/openapi.json lists the parameters.");

		text_free(&problem);
		return result;
	}
	if (job->route->body != NULL || job->route->body_is_text)
		job->values.values[job->values.count++] = exchange->body.length > 0 ? exchange->body.data : NULL;
	job->may_compress = accepts_gzip(exchange->connection);

	switch (job->route->kind)
	{
		case ROUTE_LIVE:
			answer_live(&job->answer);
			return send_answer(exchange);
		case ROUTE_OPENAPI:
			openapi_describe(&exchange->body);
			job->values.values[job->values.count++] = exchange->body.data;
			break;
		case ROUTE_EVENTS:
			exchange->is_stream = true;
			if (atomic_fetch_add(&streams, 1) >= setting_number("max-streams"))
				return refuse(exchange, 503, "As many streams of events are open as the setting max-streams allows.", NULL);
			break;
		case ROUTE_SQL:
			break;
	}
	exchange->stage = STAGE_ASKED;
	watch(exchange->client, 0);
	job->done = job_done;
	MHD_suspend_connection(exchange->connection);
	pool_submit(job);
	return MHD_YES;
}

static enum MHD_Result
handle(void *context, struct MHD_Connection *connection, const char *url, const char *method,
	   const char *version, const char *upload, size_t *upload_size, void **request)
{
	Exchange   *exchange = *request;

	if (exchange == NULL)
		return MHD_NO;
	switch (exchange->stage)
	{
		case STAGE_NEW:
			exchange->connection = connection;
			{
				const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

				exchange->client = info != NULL ? info->socket_context : NULL;
			}
			return begin(exchange, method, version);
		case STAGE_REFUSED:
			if (*upload_size > 0)
				return MHD_NO;
			return exchange->page != NULL ? send_page(exchange) : send_answer(exchange);
		case STAGE_BODY:
			if (*upload_size > 0)
				return take_body(exchange, upload, upload_size);
			return dispatch(exchange);
		case STAGE_ASKED:
			if (exchange->job.route->kind == ROUTE_EVENTS && exchange->job.answer.status == 200)
				return send_stream(exchange);
			return send_answer(exchange);
		case STAGE_ANSWERED:
			*upload_size = 0;
			return MHD_YES;
	}
	return MHD_NO;
}

/* The request line as it came: nobody else decodes it. */
static void *
request_started(void *context, const char *uri, struct MHD_Connection *connection)
{
	Exchange   *exchange = calloc(1, sizeof(Exchange));

	if (exchange == NULL)
		return NULL;
	if (strlen(uri) <= MAX_URI)
		exchange->uri = strdup(uri);
	atomic_fetch_add(&under_way, 1);
	return exchange;
}

static void
request_ended(void *context, struct MHD_Connection *connection, void **request,
			  enum MHD_RequestTerminationCode code)
{
	Exchange   *exchange = *request;

	if (exchange == NULL)
		return;
	/* First: nobody resumes a connection that is gone. */
	if (exchange->stream != NULL)
		stream_close(exchange->stream);
	if (exchange->is_stream)
		atomic_fetch_sub(&streams, 1);
	watch(exchange->client, setting_ms("idle-timeout"));
	for (size_t i = 0; i < sizeof(exchange->job.place) / sizeof(exchange->job.place[0]); i++)
		free(exchange->job.place[i]);
	values_free(&exchange->job.values);
	target_free(&exchange->job.target);
	answer_free(&exchange->job.answer);
	text_free(&exchange->body);
	free(exchange->job.role);
	free(exchange->job.token);
	free(exchange->uri);
	free(exchange);
	*request = NULL;
	if (atomic_fetch_sub(&under_way, 1) == 1 && atomic_load(&draining))
		run_wake();
}

static size_t
leave_escaped(void *context, struct MHD_Connection *connection, char *text)
{
	return strlen(text);
}

/* ---- its life */

/* As many files as there may be connections, if the system lets us. */
static void
raise_file_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max)
	{
		limit.rlim_cur = limit.rlim_max;
		(void) setrlimit(RLIMIT_NOFILE, &limit);
	}
}

bool
server_start(void)
{
	int			fd = listener_open();

	if (fd < 0)
		return false;
	raise_file_limit();
	server = MHD_start_daemon(
		MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC, 0, NULL, NULL, handle, NULL,
		MHD_OPTION_LISTEN_SOCKET, fd,
		MHD_OPTION_THREAD_POOL_SIZE, (unsigned int) SERVER_THREADS,
		MHD_OPTION_CONNECTION_LIMIT, (unsigned int) setting_number("max-connections"),
		MHD_OPTION_PER_IP_CONNECTION_LIMIT, (unsigned int) setting_number("max-connections-per-address"),
		MHD_OPTION_CONNECTION_TIMEOUT, (unsigned int) ((setting_ms("idle-timeout") + 999) / 1000),
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t) HEADER_MEMORY,
		MHD_OPTION_STRICT_FOR_CLIENT, 1,
		MHD_OPTION_UNESCAPE_CALLBACK, leave_escaped, NULL,
		MHD_OPTION_URI_LOG_CALLBACK, request_started, NULL,
		MHD_OPTION_NOTIFY_COMPLETED, request_ended, NULL,
		MHD_OPTION_NOTIFY_CONNECTION, connection_changed, NULL,
		MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1,
		MHD_OPTION_END);
	if (server == NULL)
	{
		complain("could not start the HTTP server");
		close(fd);
		return false;
	}
	has_watcher = pthread_create(&watcher, NULL, watch_clients, NULL) == 0;
	return true;
}

void
server_drain(void)
{
	int			fd = MHD_quiesce_daemon(server);

	atomic_store(&draining, true);
	if (fd >= 0)
		close(fd);
}

bool
server_is_idle(void)
{
	return atomic_load(&under_way) == 0;
}

void
server_stop(void)
{
	atomic_store(&stopping, true);
	if (has_watcher)
		pthread_join(watcher, NULL);
	if (server != NULL)
		MHD_stop_daemon(server);
	server = NULL;
}
