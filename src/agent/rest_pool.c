/*
 * rest_pool.c
 *	  The threads that ask the database: each has one connection, takes one
 *	  request after the other, and sends all of it in one pipeline, which is one
 *	  transaction: the role of the request, its timeout and its statement.
 */
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <openssl/sha.h>

#include "agent.h"
#include "log.h"
#include "rest_internal.h"
#include "role.h"
#include "settings.h"
#include "svg.h"

typedef struct Worker
{
	pthread_t	thread;
	PGconn	   *connection;
	int			failures;		/* to connect, in a row */
	long long	next_try;		/* when to connect again, in ms */
	long		timeout;		/* that the connection was set to, in ms */
	bool		keeps;			/* what it is set to, and what it has prepared */
	bool		has_role_statement;
	bool	   *is_prepared;	/* by route */
} Worker;

static Worker *workers;
static int	worker_count;
static atomic_int connected;
static atomic_int busy;

static pthread_mutex_t queue_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t queue_filled = PTHREAD_COND_INITIALIZER;
static Job *queue_head;
static Job **queue_tail = &queue_head;
static bool stopping;

static void
disconnect(Worker *worker)
{
	if (worker->connection == NULL)
		return;
	PQfinish(worker->connection);
	worker->connection = NULL;
	worker->has_role_statement = false;
	memset(worker->is_prepared, 0, (size_t) rest_route_count * sizeof(bool));
	atomic_fetch_sub(&connected, 1);
	run_wake();
}

/*
 * Whether a connection is one session, which keeps what it is told.
 */
bool
pool_keeps_session(PGconn *connection)
{
	return setting_flag("prepared") && !db_is_pooled(connection);
}

/* What a connection keeps. */
static bool
set_up(Worker *worker, char **why)
{
	PGconn	   *connection = worker->connection;
	char		timeout[24];
	const char *values[] = {timeout};
	PGresult   *result;
	bool		done = true;

	db_ignore_notices(connection);
	worker->keeps = pool_keeps_session(connection);
	if (worker->keeps)
	{
		snprintf(timeout, sizeof(timeout), "%ld", worker->timeout);
		result = db_query(connection, "SELECT pg_catalog.set_config('statement_timeout', $1, false)", 1, values);
		done = PQresultStatus(result) == PGRES_TUPLES_OK;
		PQclear(result);
	}
	if (!done || PQenterPipelineMode(connection) != 1)
	{
		*why = text_copy(PQerrorMessage(connection));
		return false;
	}
	return true;
}

/*
 * Whether the other side is there still, as far as it has said.  Between requests
 * nothing comes but its end, which is better known before a write is sent: that
 * can't be repeated.
 */
static bool
is_alive(const Worker *worker)
{
	struct pollfd fd = {.fd = PQsocket(worker->connection), .events = POLLIN};

	while (PQstatus(worker->connection) == CONNECTION_OK && poll(&fd, 1, 0) > 0)
		if (PQconsumeInput(worker->connection) != 1)
			return false;
	return PQstatus(worker->connection) == CONNECTION_OK;
}

/*
 * Connects where that is due.  Who fails waits longer each time, and answers
 * meanwhile that the database is not there.
 */
static bool
connect_worker(Worker *worker)
{
	char	   *why = NULL;

	if (worker->connection != NULL && is_alive(worker) && worker->timeout == setting_ms("request-timeout"))
		return true;
	disconnect(worker);
	if (clock_ms() < worker->next_try)
		return false;
	worker->timeout = setting_ms("request-timeout");
	worker->connection = db_open(setting_text("database"), &why);
	if (worker->connection != NULL && set_up(worker, &why))
	{
		if (worker->failures > 0)
			log_line(LOG_INFO, "the database is there again", NULL);
		worker->failures = 0;
		atomic_fetch_add(&connected, 1);
		run_wake();
		return true;
	}
	PQfinish(worker->connection);
	worker->connection = NULL;
	if (worker->failures++ == 0)
		log_line(LOG_WARNING, "could not connect to the database", "why", why, NULL);
	free(why);
	worker->next_try = clock_ms() + backoff_ms(worker->failures);
	return false;
}

/* ---- whose a token is */

/* How long a token that was dropped may open something still. */
#define TOKEN_MEMORY_MS	10000
#define TOKEN_SLOTS		1024

typedef struct KnownToken
{
	unsigned char hash[SHA256_DIGEST_LENGTH];
	char		role[64];
	long long	until;
} KnownToken;

static KnownToken known_tokens[TOKEN_SLOTS];
static pthread_mutex_t tokens_lock = PTHREAD_MUTEX_INITIALIZER;

static KnownToken *
token_slot(const unsigned char *hash)
{
	return &known_tokens[(hash[0] << 8 | hash[1]) % TOKEN_SLOTS];
}

static char *
recall_role(const unsigned char *hash)
{
	KnownToken *slot = token_slot(hash);
	char	   *role = NULL;

	pthread_mutex_lock(&tokens_lock);
	if (slot->until > clock_ms() && memcmp(slot->hash, hash, SHA256_DIGEST_LENGTH) == 0)
		role = text_copy(slot->role);
	pthread_mutex_unlock(&tokens_lock);
	return role;
}

static void
remember_role(const unsigned char *hash, const char *role)
{
	KnownToken *slot = token_slot(hash);

	if (strlen(role) >= sizeof(slot->role))
		return;
	pthread_mutex_lock(&tokens_lock);
	memcpy(slot->hash, hash, SHA256_DIGEST_LENGTH);
	strcpy(slot->role, role);
	slot->until = clock_ms() + TOKEN_MEMORY_MS;
	pthread_mutex_unlock(&tokens_lock);
}

/*
 * The next result of a pipeline whose end has not come; NULL: the connection is
 * lost, or says nothing more, which would be waited for without end.
 */
static PGresult *
next_result(Worker *worker)
{
	PGresult   *result = PQgetResult(worker->connection);

	/* One NULL stands behind the results of each statement. */
	if (result == NULL)
		result = PQgetResult(worker->connection);
	if (PQstatus(worker->connection) != CONNECTION_OK)
	{
		PQclear(result);
		return NULL;
	}
	return result;
}

/*
 * Sets the role of a job's token, or answers that there is none; false where the
 * connection is lost.
 */
static bool
authenticate(Worker *worker, Job *job)
{
	unsigned char hash[SHA256_DIGEST_LENGTH];
	const char *values[] = {job->token};
	bool		failed = false;

	SHA256((const unsigned char *) job->token, strlen(job->token), hash);
	job->role = recall_role(hash);
	if (job->role != NULL)
		return true;
	if (PQsendQueryParams(worker->connection, "SELECT tasker._authenticate_token($1)", 1, NULL, values, NULL, NULL, 0) != 1 ||
		PQpipelineSync(worker->connection) != 1)
		return false;
	for (;;)
	{
		PGresult   *result = next_result(worker);
		ExecStatusType status = PQresultStatus(result);

		if (result == NULL)
			return false;
		if (status == PGRES_TUPLES_OK && PQntuples(result) == 1 && !PQgetisnull(result, 0, 0))
			job->role = text_copy(PQgetvalue(result, 0, 0));
		else if (status == PGRES_FATAL_ERROR && !failed)
		{
			failed = true;
			log_line(LOG_ERROR, "could not look a token up", "message",
					 PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY), NULL);
		}
		PQclear(result);
		if (status == PGRES_PIPELINE_SYNC)
			break;
	}
	if (job->role != NULL)
		remember_role(hash, job->role);
	else if (failed)
		answer_problem(&job->answer, 503, "Tokens can't be looked up now.", NULL);
	else
		answer_problem(&job->answer, 401, "The token is unknown, or has expired.", NULL);
	return true;
}

/* ---- one request */

/*
 * What comes before the statement, in the same transaction.  Behind a pooler a
 * connection keeps neither settings nor prepared statements, and what it left in
 * a session would be another client's.
 */
static bool
send_settings(Worker *worker, const Job *job)
{
	char		timeout[24];
	const char *values[2] = {timeout, job->role};

	if (worker->keeps)
	{
		if (job->role == NULL)
			return true;
		if (!worker->has_role_statement &&
			PQsendPrepare(worker->connection, "rest_role", "SELECT pg_catalog.set_config('role', $1, true)", 0, NULL) != 1)
			return false;
		worker->has_role_statement = true;
		return PQsendQueryPrepared(worker->connection, "rest_role", 1, &values[1], NULL, NULL, 0) == 1;
	}
	snprintf(timeout, sizeof(timeout), "%ld", setting_ms("request-timeout"));
	return PQsendQueryParams(worker->connection, job->role == NULL ?
							 "SELECT pg_catalog.set_config('statement_timeout', $1, true)" :
							 "SELECT pg_catalog.set_config('statement_timeout', $1, true), pg_catalog.set_config('role', $2, true)",
							 job->role == NULL ? 1 : 2, NULL, values, NULL, NULL, 0) == 1;
}

static bool
send_statement(Worker *worker, const Job *job, bool *is_preparing)
{
	int			number = (int) (job->route - rest_routes);
	char		name[24];

	*is_preparing = false;
	if (!worker->keeps)
		return PQsendQueryParams(worker->connection, job->route->sql, job->values.count, NULL,
								 job->values.values, NULL, NULL, 0) == 1;
	snprintf(name, sizeof(name), "rest_%d", number);
	if (!worker->is_prepared[number])
	{
		*is_preparing = true;
		if (PQsendPrepare(worker->connection, name, job->route->sql, 0, NULL) != 1)
			return false;
	}
	return PQsendQueryPrepared(worker->connection, name, job->values.count, job->values.values, NULL, NULL, 0) == 1;
}

/* The text of a column of the only row; NULL: there is none. */
static const char *
column(const PGresult *result, const char *name)
{
	int			number = PQfnumber(result, name);

	return number < 0 || PQgetisnull(result, 0, number) ? NULL : PQgetvalue(result, 0, number);
}

/* The same page from a cursor on. */
static void
add_link(Text *link, const Job *job, const char *cursor, const char *relation)
{
	bool		is_first = true;

	if (link->length > 0)
		text_say(link, ", ");
	text_say(link, "<");
	for (int i = 0; i < job->target.part_count; i++)
	{
		text_say(link, "/");
		percent_encode(link, job->target.parts[i]);
	}
	for (int i = 0; i < job->target.pair_count; i++)
	{
		if (strcmp(job->target.pairs[i].name, "cursor") == 0)
			continue;
		text_say(link, is_first ? "?" : "&");
		percent_encode(link, job->target.pairs[i].name);
		text_say(link, "=");
		percent_encode(link, job->target.pairs[i].value);
		is_first = false;
	}
	if (cursor != NULL)
		text_printf(link, "%scursor=%s", is_first ? "?" : "&", cursor);
	text_printf(link, ">; rel=\"%s\"", relation);
}

/* Where a stream begins. */
static void
take_place(Job *job, const PGresult *result)
{
	static const char *const names[] = {"tick", "at", "event", "events"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
	{
		const char *value = column(result, names[i]);

		free(job->place[i]);
		job->place[i] = value != NULL ? text_copy(value) : NULL;
	}
}

static void
take_row(Job *job, const PGresult *result)
{
	Answer	   *answer = &job->answer;
	const char *status = column(result, "status");
	const char *body = column(result, "body");
	const char *location = column(result, "location");
	const char *type = column(result, "type");

	answer->status = status != NULL ? atoi(status) : job->route->status != 0 ? job->route->status : 200;
	answer->type = job->route->type != NULL ? job->route->type : "application/json";
	if (type != NULL)
	{
		snprintf(answer->own_type, sizeof(answer->own_type), "%s", type);
		answer->type = strcmp(type, "problem") == 0 ? "application/problem+json" : answer->own_type;
	}
	if (body != NULL)
		text_say(&answer->body, body);
	if (location != NULL)
		answer->location = text_copy(location);
	if (job->route->kind == ROUTE_EVENTS)
		take_place(job, result);
	if (PQfnumber(result, "next") >= 0)
	{
		Text		link = {0};
		const char *next = column(result, "next");

		add_link(&link, job, NULL, "first");
		if (next != NULL)
			add_link(&link, job, next, "next");
		answer->link = link.data;
	}
}

static void
take_error(Job *job, const PGresult *result)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);

	if (sqlstate == NULL)
		sqlstate = "08006";
	answer_error(&job->answer, job->route, sqlstate,
				 PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY),
				 PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL),
				 PQresultErrorField(result, PG_DIAG_MESSAGE_HINT),
				 PQresultErrorField(result, PG_DIAG_CONSTRAINT_NAME));
	if (job->answer.status == 500)
		log_line(LOG_ERROR, "a request failed", "operation", job->route->operation, "sqlstate", sqlstate,
				 "message", PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY), NULL);
}

/* The agent's own role is no member of it, or it is gone. */
static void
refuse_role(Job *job, const PGresult *result)
{
	answer_problem(&job->answer, 403, "The agent may not act as your role.",
				   "Its own role must be a member of yours: GRANT yours TO the agent's.");
	log_line(LOG_WARNING, "could not act as a role", "role", job->role,
			 "why", PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY), NULL);
}

/*
 * Reads what the pipeline brings, up to its end; false where the connection is
 * lost.  The last result that has rows is the statement's.
 */
static bool
read_results(Worker *worker, Job *job, bool is_preparing)
{
	bool		failed = false;
	bool		has_role = job->role == NULL;

	for (;;)
	{
		PGresult   *result = next_result(worker);
		ExecStatusType status = PQresultStatus(result);

		if (result == NULL)
			return false;
		if (status == PGRES_TUPLES_OK && !has_role)
			has_role = true;
		else if (status == PGRES_TUPLES_OK && PQntuples(result) == 1 && PQfnumber(result, "body") >= 0)
			take_row(job, result);
		else if (status == PGRES_FATAL_ERROR && !failed)
		{
			failed = true;
			if (has_role)
				take_error(job, result);
			else
				refuse_role(job, result);
		}
		PQclear(result);
		if (status == PGRES_PIPELINE_SYNC)
			break;
	}
	/* What was prepared stays, even where the statement failed afterwards ... */
	if (is_preparing && !failed)
		worker->is_prepared[job->route - rest_routes] = true;
	/* ... but which of the two failed is not worth knowing. */
	else if (is_preparing)
		disconnect(worker);
	return true;
}

static bool
ask(Worker *worker, Job *job)
{
	bool		is_preparing;

	if (job->token != NULL && job->role == NULL)
	{
		if (!authenticate(worker, job))
			return false;
		if (job->role == NULL)
			return true;
	}
	/* To the server that is no role but the end of one. */
	if (job->role != NULL && strcasecmp(job->role, "none") == 0)
	{
		answer_problem(&job->answer, 403, "There is no role of that name.", NULL);
		return true;
	}
	if (!send_settings(worker, job) || !send_statement(worker, job, &is_preparing) ||
		PQpipelineSync(worker->connection) != 1)
		return false;
	return read_results(worker, job, is_preparing);
}

static void
run_job(Worker *worker, Job *job)
{
	/* A server that was restarted shows only now, and reading can be repeated. */
	int			tries = job->route->methods == METHOD_GET ? 2 : 1;

	while (tries-- > 0)
	{
		if (!connect_worker(worker))
			break;
		if (ask(worker, job))
			return;
		disconnect(worker);
		answer_free(&job->answer);
	}
	answer_problem(&job->answer, 503, "The database is not there.", NULL);
}

static Job *
next_job(Worker *worker)
{
	Job		   *job = NULL;

	pthread_mutex_lock(&queue_lock);
	while (queue_head == NULL && !stopping)
	{
		if (worker->connection != NULL)
			pthread_cond_wait(&queue_filled, &queue_lock);
		else
		{
			struct timespec until;

			clock_gettime(CLOCK_REALTIME, &until);
			until.tv_nsec += 100000000;
			until.tv_sec += until.tv_nsec / 1000000000;
			until.tv_nsec %= 1000000000;
			if (pthread_cond_timedwait(&queue_filled, &queue_lock, &until) != 0)
				break;
		}
	}
	if (queue_head != NULL)
	{
		job = queue_head;
		queue_head = job->next;
		if (queue_head == NULL)
			queue_tail = &queue_head;
	}
	pthread_mutex_unlock(&queue_lock);
	return job;
}

/* The picture of a graph in dot. */
static void
draw(Answer *answer)
{
	char	   *svg;
	size_t		length;
	const char *why;
	SvgResult	result = svg_render(answer->body.data, answer->body.length, &svg, &length, &why);
	char	   *detail;

	if (result == SVG_DRAWN)
	{
		text_free(&answer->body);
		answer->body = (Text) {svg, length, length};
		return;
	}
	if (result == SVG_FAILED)
		log_line(LOG_WARNING, "could not draw a diagram", "why", why, NULL);
	detail = text_format("The diagram was not drawn: %s.", why);
	answer_problem(answer, result == SVG_TOO_LARGE ? 422 : 503, detail, "The other formats can be had.");
	free(detail);
}

static void
finish_job(Job *job)
{
	Answer	   *answer = &job->answer;

	if (answer->status == 200 && answer->type == answer->own_type && strcmp(answer->type, "image/svg+xml") == 0)
		draw(answer);
	if (answer->status == 200 && job->route->methods == METHOD_GET)
		answer_set_tag(answer);
	if (job->may_compress)
		answer_compress(answer, 1);
	atomic_fetch_sub(&busy, 1);
	job->done(job);
}

static void *
work(void *argument)
{
	Worker	   *worker = argument;

	for (;;)
	{
		Job		   *job = next_job(worker);

		if (job != NULL)
		{
			run_job(worker, job);
			finish_job(job);
		}
		else if (stopping)
			break;
		else
			(void) connect_worker(worker);
	}
	disconnect(worker);
	return NULL;
}

/* ---- for the others */

void
pool_submit(Job *job)
{
	atomic_fetch_add(&busy, 1);
	job->next = NULL;
	pthread_mutex_lock(&queue_lock);
	*queue_tail = job;
	queue_tail = &job->next;
	pthread_cond_signal(&queue_filled);
	pthread_mutex_unlock(&queue_lock);
}

int
pool_busy(void)
{
	return atomic_load(&busy);
}

bool
pool_is_ready(void)
{
	return atomic_load(&connected) > 0;
}

bool
pool_start(void)
{
	worker_count = (int) setting_number("connections");
	workers = calloc((size_t) worker_count, sizeof(Worker));
	for (int i = 0; workers != NULL && i < worker_count; i++)
	{
		workers[i].is_prepared = calloc((size_t) rest_route_count, sizeof(bool));
		if (workers[i].is_prepared == NULL ||
			pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0)
		{
			complain("could not start the threads of the REST role");
			return false;
		}
	}
	return workers != NULL;
}

/* Requests that still wait are answered first. */
void
pool_stop(void)
{
	pthread_mutex_lock(&queue_lock);
	stopping = true;
	pthread_cond_broadcast(&queue_filled);
	pthread_mutex_unlock(&queue_lock);
	for (int i = 0; i < worker_count; i++)
	{
		pthread_join(workers[i].thread, NULL);
		free(workers[i].is_prepared);
	}
	free(workers);
	workers = NULL;
	worker_count = 0;
}
