/*
 * http.c
 *	  The role http: claims api steps, makes their requests and ends them.
 *
 * One thread and one loop.  No transaction is open while a request is under way:
 * claims, heartbeats and ends are statements of their own, on connections that
 * this loop never waits for.  What has finished since the last statement goes
 * into the next one, all at once.
 *
 * A slot that becomes free finds a request waiting: as many are claimed ahead as
 * end while a claim is under way, so many where requests are short and next to
 * none where they are long.  An agent that is told to end makes those, too: to
 * give a claim back would cost the step an attempt that was never made.
 *
 * Claims are bound to the session that makes them, so that a killed agent's steps
 * are free at once.  Each session then claims under a name of its own: what it
 * held is not taken for what the next one holds.  Behind a pooler, which has no
 * sessions, short leases do nearly the same, under one name: a connection that
 * is lost there ends nothing, so what is under way goes on, and is prolonged over
 * the next one before that claims anything.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent.h"
#include "http.h"
#include "log.h"
#include "role.h"
#include "settings.h"

/* Of a claim that is bound to its session, should that not notice its end. */
#define BOUND_LEASE_MS		30000
/* With a doorbell, in case it was not heard. */
#define BELL_POLL_MS		30000
#define MOST_AT_ONCE		500
#define BYTES_AT_ONCE		(16 * 1024 * 1024)
/* Heartbeats go out three times in a lease. */
#define BEATS				3
#define RETRY_END_MS		200

static pthread_t thread;
static bool thread_runs = false;
static atomic_bool ready;
static atomic_bool idle;
static atomic_bool draining;
static atomic_bool stopping;
static atomic_bool reloading;

/* All below belongs to the thread. */
static Db	claims = {.purpose = "http"};
static Db	ends = {.purpose = "http results"};
static Db	handlers = {.purpose = "http handlers"};

static RequestList waiting;		/* for their host */
static RequestList running;
static RequestList finished;	/* to be sent */
static RequestList finished_handled;	/* the same, with a handler */
static RequestList sending;
static RequestList sending_handled;

typedef enum Asking
{
	NOTHING,
	LOOKING,					/* whose session it is */
	LISTENING,
	CLAIMING,
	BEATING
} Asking;

static Asking asking;
static char *worker;			/* the name of the session */
static int	asked;				/* of the claim under way */
static int	ahead;				/* what is claimed beyond what may be under way */
static int	ended;				/* since the claim was sent */
static bool more;				/* there may be steps to claim */
static long long next_poll;
static long long next_beat;
static long long next_claim;	/* not before, after an error */
static long long next_end;
static int	claim_failures;

static int	max_requests;
static int	per_host;
static bool bound;				/* claims are, to the session */
static long lease_ms;

void
bytes_add(Bytes *bytes, const void *data, size_t length)
{
	if (bytes->length + length > bytes->space)
	{
		size_t		space = (bytes->length + length) * 2 + 64;
		char	   *grown = realloc(bytes->data, space);

		if (grown == NULL)
		{
			complain("out of memory");
			exit(EXIT_FAILED);
		}
		bytes->data = grown;
		bytes->space = space;
	}
	memcpy(bytes->data + bytes->length, data, length);
	bytes->length += length;
}

void
bytes_free(Bytes *bytes)
{
	free(bytes->data);
	memset(bytes, 0, sizeof(Bytes));
}

void
list_append(RequestList *list, Request *request)
{
	request->next = NULL;
	request->previous = list->last;
	if (list->last != NULL)
		list->last->next = request;
	else
		list->first = request;
	list->last = request;
	list->count++;
}

void
list_remove(RequestList *list, Request *request)
{
	if (request->previous != NULL)
		request->previous->next = request->next;
	else
		list->first = request->next;
	if (request->next != NULL)
		request->next->previous = request->previous;
	else
		list->last = request->previous;
	request->next = request->previous = NULL;
	list->count--;
}

Request *
list_take_first(RequestList *list)
{
	Request    *request = list->first;

	if (request != NULL)
		list_remove(list, request);
	return request;
}

static void
free_list(RequestList *list)
{
	Request    *request;

	while ((request = list_take_first(list)) != NULL)
		request_free(request);
}

/* The settings as they are now; false where the list of hosts is none. */
static bool
read_settings(void)
{
	const char *bad;
	Limits		limits = {
		.max_requests = (int) setting_number("max-requests"),
		.per_host = (int) setting_number("max-requests-per-host"),
		.insecure = setting_flag("allow-insecure"),
		.allowed = allow_parse(setting_text("allow-hosts"), &bad),
		.connect_to = setting_text("connect-to"),
		.tls_ca = setting_text("tls-ca"),
	};

	if (limits.allowed == NULL)
	{
		log_line(LOG_ERROR, "allow-hosts has what is neither host, host:port, *.domain nor network", "entry", bad, NULL);
		free((char *) (uintptr_t) bad);
		return false;
	}
	max_requests = limits.max_requests;
	per_host = limits.per_host;
	transfers_configure(&limits);
	return true;
}

static void
name_worker(void)
{
	char		host[256] = "";

	free(worker);
	(void) gethostname(host, sizeof(host) - 1);
	worker = text_format("http@%s:%ld/%lld", host, (long) getpid(), claims.sessions);
}

/*
 * A session was looked at: by how claims made there are held, and under which
 * name.
 */
static void
take_session(const PGresult *row)
{
	bool		is_wanted = setting_flag("bound-to-session");
	bool		was_pooled = worker != NULL && !bound;

	bound = is_wanted && !db_shows_pooler(claims.connection, row);
	lease_ms = bound ? BOUND_LEASE_MS : setting_ms("lease");
	if (bound || !was_pooled)
		name_worker();
	if (is_wanted && !bound && !was_pooled)
		log_line(LOG_INFO, "there is a pooler before the database: claims are held by leases, and no bell is heard", NULL);
	next_beat = clock_ms();
	if (bound)
	{
		asking = LISTENING;
		db_send(&claims, "LISTEN tasker_steps");
	}
}

static void
log_step(LogLevel level, const char *message, const Request *request)
{
	char		id[32];
	char		status[16];
	char		duration[32];

	if (!log_wants(level))
		return;
	snprintf(id, sizeof(id), "%lld", request->step_id);
	snprintf(status, sizeof(status), "%d", request->status);
	snprintf(duration, sizeof(duration), "%ld", request->duration_ms);
	log_line(level, message, "step", id, "host", request->host, "status", request->status == 0 ? NULL : status,
			 "error", request->error_class, "duration_ms", request->duration_ms > 0 ? duration : NULL, NULL);
}

/* Of the requests under way, those to that host. */
static int
running_at(const char *host)
{
	int			count = 0;

	for (const Request *request = running.first; request != NULL; request = request->next)
		count += strcmp(request->host, host) == 0;
	return count;
}

static void
start_waiting(void)
{
	Request    *next;

	for (Request *request = waiting.first; request != NULL && running.count < max_requests; request = next)
	{
		next = request->next;
		if (per_host < max_requests && running_at(request->host) >= per_host)
			continue;
		list_remove(&waiting, request);
		list_append(&running, request);
		transfers_add(request);
	}
}

static void
collect_finished(void)
{
	Request    *request;

	transfers_move();
	while ((request = transfers_finished()) != NULL)
	{
		list_remove(&running, request);
		ended++;
		log_step(LOG_DEBUG, "a request has ended", request);
		list_append(request->has_handler && request->error_class == NULL ? &finished_handled : &finished, request);
	}
}

/* Of the finished ones as many as go well into one statement. */
static void
choose(RequestList *from, RequestList *to, bool one)
{
	size_t		bytes = 0;
	Request    *next;

	for (Request *request = from->first; request != NULL; request = next)
	{
		next = request->next;
		if (to->first != NULL &&
			(one || request->alone || strcmp(to->first->worker, request->worker) != 0))
			continue;
		bytes += request->answer.length;
		if (to->first != NULL && (to->count >= MOST_AT_ONCE || bytes > BYTES_AT_ONCE))
			return;
		list_remove(from, request);
		list_append(to, request);
		if (request->alone || one)
			return;
	}
}

/* Back to those that are to be sent. */
static void
put_back(RequestList *from, RequestList *to, bool alone)
{
	Request    *request;

	while ((request = list_take_first(from)) != NULL)
	{
		request->alone = alone;
		request->beaten = false;
		list_append(to, request);
	}
	next_end = clock_ms() + RETRY_END_MS;
}

static bool
is_passing(const PGresult *result)
{
	return db_is(result, "40P01") || db_is(result, "40001") || db_is(result, "55P03") ||
		db_is(result, "57014") || db_is(result, "53300");
}

static void
log_refusal(const char *message, const PGresult *result)
{
	log_line(LOG_ERROR, message, "sqlstate", PQresultErrorField(result, PG_DIAG_SQLSTATE),
			 "error", PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY), NULL);
}

/*
 * The database refused an end.  One among many is found by sending each alone;
 * its answer is what can't be stored, so the step fails without it.
 */
static void
end_was_refused(const PGresult *result, RequestList *list, RequestList *back)
{
	Request    *request = list->first;

	if (is_passing(result) || list->count > 1)
	{
		put_back(list, back, !is_passing(result));
		return;
	}
	log_refusal("the answer to a request can't be stored", result);
	if (request->error_class != NULL)
	{
		free_list(list);
		return;
	}
	request->status = 0;
	request->head.length = request->answer.length = 0;
	request->error_class = "other";
	request->message = "answers with what can't be stored";
	put_back(list, &finished, true);
}

static void
move_ends(Db *db, RequestList *from, RequestList *list, bool one)
{
	DbEvent		event = db_move(db);

	if (event == DB_LOST)
		put_back(list, from, list->count == 1);
	if (event == DB_RESULT)
	{
		if (PQresultStatus(db->result) != PGRES_TUPLES_OK)
			end_was_refused(db->result, list, from);
		else
		{
			for (const Request *request = list->first; request != NULL; request = request->next)
				if (!db_result_has(db->result, request->step_id))
					log_step(LOG_INFO, "a result comes too late: the step is not held any more", request);
			free_list(list);
		}
		PQclear(db->result);
		db->result = NULL;
	}
	if (db_is_free(db) && list->first == NULL && from->first != NULL && clock_ms() >= next_end)
	{
		choose(from, list, one);
		db_send_ends(db, list);
	}
}

/* Requests that are claimed and not about to be ended. */
static RequestList *const held_lists[] = {&waiting, &running, &finished, &finished_handled};

static int
held(void)
{
	int			count = 0;

	for (size_t i = 0; i < sizeof(held_lists) / sizeof(held_lists[0]); i++)
		count += held_lists[i]->count;
	return count;
}

/* What was claimed by an earlier session is not this one's to keep. */
static bool
is_of_session(const Request *request)
{
	return strcmp(request->worker, worker) == 0;
}

/* What this session holds and is not about to end, for a heartbeat. */
static void
send_heartbeat(void)
{
	long long  *ids = allocate(sizeof(long long) * (size_t) (held() + 1));
	int			count = 0;

	for (size_t i = 0; i < sizeof(held_lists) / sizeof(held_lists[0]); i++)
		for (Request *request = held_lists[i]->first; request != NULL; request = request->next)
		{
			request->beaten = is_of_session(request);
			if (request->beaten)
				ids[count++] = request->step_id;
		}
	next_beat = clock_ms() + lease_ms / BEATS;
	if (count > 0)
	{
		asking = BEATING;
		db_send_heartbeat(&claims, worker, lease_ms, ids, count);
	}
	free(ids);
}

/*
 * Stops what was lost.  Only what was asked for may be missed in the answer.
 */
static void
drop_lost(const PGresult *result)
{
	for (size_t i = 0; i < sizeof(held_lists) / sizeof(held_lists[0]); i++)
	{
		RequestList *list = held_lists[i];
		Request    *next;

		for (Request *request = list->first; request != NULL; request = next)
		{
			next = request->next;
			if (!request->beaten || db_result_has(result, request->step_id))
				continue;
			log_step(LOG_INFO, list == &waiting ? "a step was lost before its request" :
					 list == &running ? "a step was lost while its request was under way" :
					 "a step was lost before its result was saved", request);
			list_remove(list, request);
			if (list == &running)
				transfers_drop(request);
			else
				request_free(request);
		}
	}
}

/*
 * The claim is there: how much the next one should bring beyond what may be
 * under way, so that nothing waits for the one after it.  Twice what has ended
 * meanwhile, as requests that began together end together; less of it is
 * believed slowly.
 */
static void
set_ahead(void)
{
	int			wanted = ended * 2;

	if (wanted < ahead)
		wanted = ahead - (ahead - wanted + 7) / 8;
	ahead = wanted < max_requests ? wanted : max_requests;
}

static void
take_claim(PGresult *result)
{
	int			count = PQntuples(result);

	if (PQresultStatus(result) != PGRES_TUPLES_OK)
	{
		more = true;
		claim_failures++;
		next_claim = clock_ms() + backoff_ms(claim_failures);
		if (claim_failures == 1 || claim_failures % 10 == 0)
			log_refusal("could not claim steps", result);
		PQclear(result);
		return;
	}
	claim_failures = 0;
	set_ahead();
	/* A bell that rang meanwhile counts: the claim may have been too early for it. */
	more = more || count >= asked;
	if (waiting.count + running.count == 0)
		next_beat = clock_ms() + lease_ms / BEATS;
	db_take_requests(result, worker, &waiting);
}

static void
take_claims_result(void)
{
	PGresult   *result = claims.result;
	Asking		answered = asking;

	claims.result = NULL;
	asking = NOTHING;
	switch (answered)
	{
		case LOOKING:
			take_session(result);
			PQclear(result);
			break;
		case CLAIMING:
			take_claim(result);
			break;
		case BEATING:
			if (PQresultStatus(result) == PGRES_TUPLES_OK)
				drop_lost(result);
			else
				log_refusal("could not prolong leases", result);
			PQclear(result);
			break;
		case LISTENING:
		case NOTHING:
			PQclear(result);
			break;
	}
}

/* Whether the bell has rung for steps of ours. */
static void
hear_bells(void)
{
	PGnotify   *notify;

	while (claims.connected && (notify = PQnotifies(claims.connection)) != NULL)
	{
		if (strstr(notify->extra, "\"api\"") != NULL)
			more = true;
		PQfreemem(notify);
	}
}

static void
ask_on_claims(void)
{
	long long	now = clock_ms();
	int			unsaved = finished.count + finished_handled.count + sending.count + sending_handled.count;
	/* Ends that the database is slow to take don't pile up. */
	int			room = max_requests + ahead - waiting.count - running.count -
		(unsaved > max_requests ? unsaved - max_requests : 0);
	bool		worthwhile = room > 0 && (running.count < max_requests || room * 2 >= ahead);

	if (now >= next_poll)
	{
		more = true;
		next_poll = now + (bound ? BELL_POLL_MS : setting_ms("poll-interval"));
	}
	if (now >= next_beat && held() > 0)
		send_heartbeat();
	if (db_is_free(&claims) && more && worthwhile && now >= next_claim && !atomic_load(&draining))
	{
		asking = CLAIMING;
		asked = room < MOST_AT_ONCE ? room : MOST_AT_ONCE;
		ended = 0;
		more = false;
		db_send_claim(&claims, worker, asked, lease_ms, bound, setting_text("namespaces"));
	}
}

static void
move_claims(void)
{
	DbEvent		event = db_move(&claims);

	if (event == DB_LOST)
		asking = NOTHING;
	if (event == DB_CONNECTED)
	{
		more = true;
		asking = LOOKING;
		db_send(&claims, db_ask_pid);
		if (claims.sessions > 1)
			log_line(LOG_INFO, "connected to the database again", NULL);
	}
	if (event == DB_RESULT)
		take_claims_result();
	hear_bells();
	if (db_is_free(&claims))
	{
		if (!atomic_exchange(&ready, true))
			run_wake();
		ask_on_claims();
	}
}

static long
sooner(long ms, long long at)
{
	long long	left = at - clock_ms();

	return left < ms ? (left > 0 ? (long) left : 0) : ms;
}

static void
wait_for_something(void)
{
	const Db   *all[] = {&claims, &ends, &handlers};
	Waiting		others[3];
	int			count = 0;
	long		ms = 60000;

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
	{
		long		own = db_wait_ms(all[i]);

		if (all[i] == &handlers && all[i]->connection == NULL && finished_handled.first == NULL)
			continue;
		ms = own < ms ? own : ms;
		if (db_wait_for(all[i], &others[count]))
			count++;
	}
	/* While a statement is under way, its result is waited for. */
	if (db_is_free(&claims))
	{
		ms = sooner(ms, next_poll);
		if (held() > 0)
			ms = sooner(ms, next_beat);
	}
	if (finished.first != NULL || finished_handled.first != NULL)
		ms = sooner(ms, next_end > clock_ms() ? next_end : clock_ms() + 1000);
	if (more && next_claim > clock_ms())
		ms = sooner(ms, next_claim);
	transfers_wait(others, count, ms);
}

static void
look_whether_idle(void)
{
	bool		is_idle = held() + sending.count + sending_handled.count == 0 && asking != CLAIMING;

	if (atomic_exchange(&idle, is_idle) != is_idle && atomic_load(&draining))
		run_wake();
}

static void *
loop(void *arg)
{
	(void) arg;
	while (!atomic_load(&stopping))
	{
		if (atomic_exchange(&reloading, false) && !read_settings())
			log_line(LOG_WARNING, "the role http keeps the settings that it had", NULL);
		collect_finished();
		start_waiting();
		move_ends(&ends, &finished, &sending, false);
		if (finished_handled.first != NULL || handlers.connection != NULL)
			move_ends(&handlers, &finished_handled, &sending_handled, true);
		move_claims();
		start_waiting();
		collect_finished();
		look_whether_idle();
		if (finished.first != NULL && db_is_free(&ends) && clock_ms() >= next_end)
			continue;
		wait_for_something();
	}
	return NULL;
}

static bool
start(void)
{
	if (!transfers_start())
	{
		complain("could not start libcurl");
		return false;
	}
	if (!read_settings())
		return false;
	if (pthread_create(&thread, NULL, loop, NULL) != 0)
	{
		complain("could not start a thread");
		return false;
	}
	thread_runs = true;
	return true;
}

static bool
is_ready(void)
{
	return atomic_load(&ready);
}

static const char *
address(void)
{
	return NULL;
}

static void
reload(void)
{
	atomic_store(&reloading, true);
	transfers_wake();
}

static void
drain(void)
{
	atomic_store(&draining, true);
	transfers_wake();
}

static bool
is_idle_now(void)
{
	return atomic_load(&idle);
}

static void
stop(void)
{
	if (!thread_runs)
		return;
	atomic_store(&stopping, true);
	transfers_wake();
	pthread_join(thread, NULL);
	while (running.first != NULL)
	{
		Request    *request = list_take_first(&running);

		transfers_drop(request);
	}
	free_list(&waiting);
	free_list(&finished);
	free_list(&finished_handled);
	free_list(&sending);
	free_list(&sending_handled);
	db_close(&claims);
	db_close(&ends);
	db_close(&handlers);
	transfers_stop();
}

const Role http_role = {"http", start, is_ready, address, reload, drain, is_idle_now, stop};
