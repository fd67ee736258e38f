/*
 * rest_events.c
 *	  The live stream of events: one thread reads what the ticks of the database
 *	  bring, once for all clients of a role that are equally far, and hands each
 *	  what it wants.
 *
 * A client's place is a tick, or an event within one where it has just come
 * back.  One that is far behind is served from the log, a piece at a time, no
 * faster than it reads; one that does not read is dropped, and comes back with
 * the id of the last event that it saw.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent.h"
#include "log.h"
#include "rest_internal.h"
#include "settings.h"

/* A client is fed up to the one, and dropped at the other. */
#define FEED_UP_TO		(128 * 1024)
#define DROP_AT			(8 * 1024 * 1024)
#define KEEP_ALIVE_MS	15000
/* Where the database rings no bell, behind a pooler for example. */
#define LOOK_EVERY_MS	1000

struct Stream
{
	Stream	   *next;
	char	   *role;			/* NULL: the agent's own */
	char	   *events;			/* names and prefixes; NULL: all */
	char	   *namespace;
	char	   *task_id;
	char	   *tick;
	char	   *at;
	char	   *event;			/* NULL: at the end of the tick before */
	Text		buffer;
	size_t		sent;			/* of the buffer */
	bool		is_waiting;		/* its connection is suspended */
	bool		is_ended;
	bool		is_served;		/* in this round */
	long long	last_sign;
	void		(*resume) (void *);
	void		(*cut) (void *);
	void	   *context;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Stream *streams;
static pthread_t thread;
static bool has_thread;
static bool stopping;
static int	wake_fd = -1;
static PGconn *connection;
static int	failures;

static char *
copy_or_null(const char *text)
{
	return text != NULL && *text != '\0' ? text_copy(text) : NULL;
}

/* ---- a client's side; the lock is held */

static void
let_go(Stream *stream)
{
	if (!stream->is_waiting)
		return;
	stream->is_waiting = false;
	stream->resume(stream->context);
}

static void
end_stream(Stream *stream)
{
	stream->is_ended = true;
	let_go(stream);
}

static size_t
unsent(const Stream *stream)
{
	return stream->buffer.length - stream->sent;
}

static void
give(Stream *stream, const char *text)
{
	if (stream->is_ended)
		return;
	if (stream->sent > 0 && stream->sent == stream->buffer.length)
		stream->buffer.length = stream->sent = 0;
	text_say(&stream->buffer, text);
	stream->last_sign = clock_ms();
	if (unsent(stream) > DROP_AT)
	{
		stream->is_ended = true;
		stream->cut(stream->context);
	}
	let_go(stream);
}

static bool
is_wanted(const char *patterns, const char *name)
{
	while (patterns != NULL && *patterns != '\0')
	{
		size_t		width = strcspn(patterns, ",");

		if (width >= 2 && patterns[width - 1] == '*' ? strncmp(patterns, name, width - 1) == 0 :
			(width == 1 && *patterns == '*') || (strlen(name) == width && strncmp(patterns, name, width) == 0))
			return true;
		patterns += width;
		patterns += *patterns == ',';
	}
	return false;
}

static bool
wants(const Stream *stream, const char *name, const char *task_id, const char *namespace)
{
	return (stream->events == NULL || is_wanted(stream->events, name)) &&
		(stream->task_id == NULL || strcmp(stream->task_id, task_id) == 0) &&
		(stream->namespace == NULL || strcmp(stream->namespace, namespace) == 0);
}

/* ---- the database's side */

static bool
is_same(const char *one, const char *other)
{
	return one == NULL || other == NULL ? one == other : strcmp(one, other) == 0;
}

static void
lose_connection(void)
{
	if (connection != NULL)
		PQfinish(connection);
	connection = NULL;
}

static bool
connect_hub(void)
{
	char	   *why = NULL;

	if (connection != NULL && PQstatus(connection) == CONNECTION_OK)
		return true;
	lose_connection();
	connection = db_open(setting_text("database"), &why);
	if (connection == NULL)
	{
		if (failures++ == 0)
			log_line(LOG_WARNING, "could not connect to the database for events", "why", why, NULL);
		free(why);
		return false;
	}
	failures = 0;
	db_ignore_notices(connection);
	if (pool_keeps_session(connection))
		PQclear(PQexec(connection, "LISTEN tasker_events"));
	return true;
}

/* Runs a statement as a role; NULL: it failed, and the connection is good again or gone. */
static PGresult *
ask_as(const char *role, const char *sql, int count, const char *const *values)
{
	PGresult   *result = PQexec(connection, "BEGIN READ ONLY");
	bool		done = PQresultStatus(result) == PGRES_COMMAND_OK;

	PQclear(result);
	if (done && role != NULL)
	{
		result = db_query(connection, "SELECT pg_catalog.set_config('role', $1, true)", 1, &role);
		done = PQresultStatus(result) == PGRES_TUPLES_OK;
		PQclear(result);
	}
	result = done ? db_query(connection, sql, count, values) : NULL;
	if (result != NULL && PQresultStatus(result) != PGRES_TUPLES_OK)
	{
		log_line(LOG_WARNING, "could not read events", "why", PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY), NULL);
		PQclear(result);
		result = NULL;
	}
	PQclear(PQexec(connection, "COMMIT"));
	if (PQstatus(connection) != CONNECTION_OK)
		lose_connection();
	return result;
}

/* A group's next piece, and the place behind it; false: there is nothing more, or no way to get it. */
static bool
read_piece(const char *role, const char *tick, const char *at, const char *event, PGresult **piece, char **upto)
{
	const char *range_values[] = {tick};
	PGresult   *range = ask_as(role, "SELECT tasker._rest_tick_range($1)", 1, range_values);
	bool		more = range != NULL && !PQgetisnull(range, 0, 0);

	*piece = NULL;
	if (more)
	{
		const char *values[] = {tick, PQgetvalue(range, 0, 0), at, event};

		*upto = text_copy(values[1]);
		*piece = ask_as(role, "SELECT event_id, name, coalesce(task_id::text, ''), coalesce(namespace, ''), data "
						"FROM tasker._rest_new_events($1, $2, $3, $4)", 4, values);
	}
	PQclear(range);
	return *piece != NULL;
}

static void
give_piece(Stream *stream, const PGresult *piece)
{
	Text		text = {0};

	for (int i = 0; i < PQntuples(piece); i++)
	{
		if (wants(stream, PQgetvalue(piece, i, 1), PQgetvalue(piece, i, 2), PQgetvalue(piece, i, 3)))
			text_printf(&text, "id: %s\nevent: %s\ndata: %s\n\n", PQgetvalue(piece, i, 0), PQgetvalue(piece, i, 1),
						PQgetvalue(piece, i, 4));
	}
	if (text.length > 0)
		give(stream, text.data);
	text_free(&text);
}

/* Whether a stream takes more: only the thread calls, which holds the lock. */
static Stream *
next_hungry(void)
{
	for (Stream *stream = streams; stream != NULL; stream = stream->next)
		if (!stream->is_served && !stream->is_ended && unsent(stream) < FEED_UP_TO)
			return stream;
	return NULL;
}

/*
 * Serves who is as far as one client, and of its role; without the lock while
 * the database works.  Whoever was not served to the end is served again.
 */
static void
serve_group(Stream *first)
{
	char	   *role = copy_or_null(first->role);
	char	   *tick = text_copy(first->tick);
	char	   *at = copy_or_null(first->at);
	char	   *event = copy_or_null(first->event);
	char	   *upto = NULL;
	PGresult   *piece;
	bool		more;

	pthread_mutex_unlock(&lock);
	more = read_piece(role, tick, at, event, &piece, &upto);
	pthread_mutex_lock(&lock);
	for (Stream *stream = streams; stream != NULL; stream = stream->next)
	{
		if (!is_same(stream->role, role) || !is_same(stream->tick, tick) || !is_same(stream->event, event))
			continue;
		if (!more)
		{
			stream->is_served = true;
			continue;
		}
		if (unsent(stream) >= FEED_UP_TO)
			continue;
		give_piece(stream, piece);
		free(stream->tick);
		free(stream->at);
		free(stream->event);
		stream->tick = text_copy(upto);
		stream->at = stream->event = NULL;
	}
	if (more)
		PQclear(piece);
	free(upto);
	free(role);
	free(tick);
	free(at);
	free(event);
}

static void
serve(void)
{
	Stream	   *stream;

	pthread_mutex_lock(&lock);
	for (stream = streams; stream != NULL; stream = stream->next)
		stream->is_served = false;
	while (!stopping && connection != NULL && (stream = next_hungry()) != NULL)
		serve_group(stream);
	pthread_mutex_unlock(&lock);
}

static void
keep_alive(void)
{
	long long	now = clock_ms();

	pthread_mutex_lock(&lock);
	for (Stream *stream = streams; stream != NULL; stream = stream->next)
		if (now - stream->last_sign >= KEEP_ALIVE_MS && unsent(stream) < FEED_UP_TO)
			give(stream, ": keep-alive\n\n");
	pthread_mutex_unlock(&lock);
}

static bool
has_streams(void)
{
	bool		has;

	pthread_mutex_lock(&lock);
	has = streams != NULL;
	pthread_mutex_unlock(&lock);
	return has;
}

/* Waits for a bell, a new client, or the time to look. */
static void
wait_for_bell(bool is_connected)
{
	struct pollfd fds[] = {
		{.fd = wake_fd, .events = POLLIN},
		{.fd = is_connected ? PQsocket(connection) : -1, .events = POLLIN}
	};
	PGnotify   *bell;
	int			timeout = !has_streams() ? -1 : is_connected ? LOOK_EVERY_MS : (int) backoff_ms(failures);

	(void) poll(fds, 2, timeout);
	waker_clear(wake_fd);
	if (!is_connected)
		return;
	if (PQconsumeInput(connection) == 0)
	{
		lose_connection();
		return;
	}
	while ((bell = PQnotifies(connection)) != NULL)
		PQfreemem(bell);
}

static void *
run_hub(void *argument)
{
	for (;;)
	{
		bool		is_connected = has_streams() ? connect_hub() : connection != NULL;

		if (stopping)
			break;
		if (is_connected && has_streams())
			serve();
		keep_alive();
		wait_for_bell(connection != NULL);
		if (stopping)
			break;
	}
	lose_connection();
	return NULL;
}

/* ---- for the server */

Stream *
stream_open(const char *role, const char *events, const char *namespace, const char *task_id,
			const char *tick, const char *at, const char *event, bool is_lost)
{
	Stream	   *stream = allocate(sizeof(Stream));

	*stream = (Stream) {
		.role = copy_or_null(role),
		.events = copy_or_null(events),
		.namespace = copy_or_null(namespace),
		.task_id = copy_or_null(task_id),
		.tick = text_copy(tick),
		.at = copy_or_null(at),
		.event = copy_or_null(event),
		.last_sign = clock_ms()
	};
	text_say(&stream->buffer, "retry: 2000\n\n");
	if (is_lost)
		text_say(&stream->buffer, "event: lost\ndata: {\"detail\":\"The last event is not there any more; what follows is new.\"}\n\n");
	return stream;
}

/* From then on it is fed; resume and cut are called with the lock held. */
void
stream_on_data(Stream *stream, void (*resume) (void *), void (*cut) (void *), void *context)
{
	stream->resume = resume;
	stream->cut = cut;
	stream->context = context;
	pthread_mutex_lock(&lock);
	stream->is_ended = stopping;
	stream->next = streams;
	streams = stream;
	pthread_mutex_unlock(&lock);
	waker_call(wake_fd);
}

/*
 * What there is for a client; where there is nothing, wait is called, which must
 * suspend the connection, and resume will follow.
 */
size_t
stream_read(Stream *stream, char *buffer, size_t room, bool *is_ended, void (*wait) (void *), void *context)
{
	size_t		length;

	pthread_mutex_lock(&lock);
	length = unsent(stream) < room ? unsent(stream) : room;
	*is_ended = length == 0 && stream->is_ended;
	if (length > 0)
	{
		bool		was_full = unsent(stream) >= FEED_UP_TO;

		memcpy(buffer, stream->buffer.data + stream->sent, length);
		stream->sent += length;
		if (stream->sent == stream->buffer.length)
			stream->buffer.length = stream->sent = 0;
		if (was_full && unsent(stream) < FEED_UP_TO)
			waker_call(wake_fd);
	}
	else if (!*is_ended)
	{
		stream->is_waiting = true;
		wait(context);
	}
	pthread_mutex_unlock(&lock);
	return length;
}

void
stream_close(Stream *stream)
{
	pthread_mutex_lock(&lock);
	for (Stream **link = &streams; *link != NULL; link = &(*link)->next)
	{
		if (*link != stream)
			continue;
		*link = stream->next;
		break;
	}
	pthread_mutex_unlock(&lock);
	text_free(&stream->buffer);
	free(stream->role);
	free(stream->events);
	free(stream->namespace);
	free(stream->task_id);
	free(stream->tick);
	free(stream->at);
	free(stream->event);
	free(stream);
}

bool
events_start(void)
{
	wake_fd = waker_open();
	has_thread = wake_fd >= 0 && pthread_create(&thread, NULL, run_hub, NULL) == 0;
	if (!has_thread)
		complain("could not start the stream of events: %s", strerror(errno));
	return has_thread;
}

/* Clients come back to another copy, with the id of their last event. */
void
events_drain(void)
{
	pthread_mutex_lock(&lock);
	stopping = true;
	for (Stream *stream = streams; stream != NULL; stream = stream->next)
		end_stream(stream);
	pthread_mutex_unlock(&lock);
	waker_call(wake_fd);
}

void
events_stop(void)
{
	if (!has_thread)
		return;
	events_drain();
	pthread_join(thread, NULL);
	has_thread = false;
}
