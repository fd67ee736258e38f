/*
 * http_db.c
 *	  What the role http asks of the database, without ever waiting for it.
 */
#include <endian.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent.h"
#include "http.h"
#include "log.h"
#include "settings.h"

/* Types as the protocol has them; they are the same in every server. */
#define OID_BYTEA	17
#define OID_INT8	20
#define OID_INT4	23
#define OID_TEXT	25

/*
 * Begins to connect.  An outage of the network is noticed by what was sent and
 * not acknowledged; what the conninfo says of it goes before.
 */
static void
begin(Db *db)
{
	char	   *application = text_format("tasker-agent %s", db->purpose);
	const char *keywords[] = {"tcp_user_timeout", "fallback_application_name", "dbname", "client_encoding", NULL};
	const char *values[] = {"30000", application, setting_text("database"), "UTF8", NULL};

	db->connection = PQconnectStartParams(keywords, values, 1);
	db->polling = PGRES_POLLING_WRITING;
	db->connected = db->busy = db->flushing = false;
	free(application);
}

static void
close_connection(Db *db)
{
	PQclear(db->result);
	db->result = NULL;
	PQfinish(db->connection);
	db->connection = NULL;
	db->connected = db->busy = db->flushing = false;
}

void
db_close(Db *db)
{
	if (db->connection != NULL)
		close_connection(db);
}

static DbEvent
lost(Db *db)
{
	char	   *why = text_copy(db->connection == NULL ? "out of memory" : PQerrorMessage(db->connection));
	bool		was_connected = db->connected;

	why[strcspn(why, "\n")] = '\0';
	db->failures++;
	db->retry_at = clock_ms() + backoff_ms(db->failures);
	/* Not every attempt is worth a line. */
	if (was_connected || db->failures == 1 || db->failures % 10 == 0)
		log_line(LOG_WARNING, was_connected ? "the connection to the database is lost" : "could not connect to the database",
				 "purpose", db->purpose, "error", why, NULL);
	free(why);
	close_connection(db);
	return was_connected ? DB_LOST : DB_NOTHING;
}

static DbEvent
go_on_connecting(Db *db)
{
	db->polling = PQconnectPoll(db->connection);
	if (db->polling == PGRES_POLLING_FAILED)
		return lost(db);
	if (db->polling != PGRES_POLLING_OK)
		return DB_NOTHING;
	db->connected = true;
	db->failures = 0;
	db->sessions++;
	PQsetnonblocking(db->connection, 1);
	db_ignore_notices(db->connection);
	return DB_CONNECTED;
}

/*
 * Does what can be done at once.
 */
DbEvent
db_move(Db *db)
{
	PGresult   *result;

	if (db->connection == NULL)
	{
		if (clock_ms() < db->retry_at)
			return DB_NOTHING;
		begin(db);
		if (db->connection == NULL || PQstatus(db->connection) == CONNECTION_BAD)
			return lost(db);
		return DB_NOTHING;
	}
	if (!db->connected)
		return go_on_connecting(db);
	if (!PQconsumeInput(db->connection) || PQstatus(db->connection) == CONNECTION_BAD)
		return lost(db);
	if (db->flushing)
	{
		int			left = PQflush(db->connection);

		if (left < 0)
			return lost(db);
		db->flushing = left > 0;
	}
	while (db->busy && !PQisBusy(db->connection))
	{
		result = PQgetResult(db->connection);
		if (result != NULL)
		{
			PQclear(db->result);
			db->result = result;
			continue;
		}
		if (PQstatus(db->connection) == CONNECTION_BAD)
			return lost(db);
		db->busy = false;
		return DB_RESULT;
	}
	return DB_NOTHING;
}

bool
db_is_free(const Db *db)
{
	return db->connected && !db->busy;
}

/* What to wait for; false: only for time to pass. */
bool
db_wait_for(const Db *db, Waiting *waiting)
{
	if (db->connection == NULL || PQsocket(db->connection) < 0)
		return false;
	waiting->fd = PQsocket(db->connection);
	waiting->for_write = db->connected ? db->flushing : db->polling == PGRES_POLLING_WRITING;
	return true;
}

long
db_wait_ms(const Db *db)
{
	long long	left = db->retry_at - clock_ms();

	return db->connection != NULL ? 60000 : left > 0 ? (long) left : 0;
}

/* A statement's arguments, in binary. */
typedef struct Arguments
{
	int			count;
	Oid			types[10];
	Bytes		values[10];
	bool		is_null[10];
} Arguments;

static void
add_number(Bytes *bytes, uint64_t number, int size)
{
	uint64_t	big = htobe64(number);

	bytes_add(bytes, (const char *) &big + 8 - size, (size_t) size);
}

static Bytes *
add_argument(Arguments *arguments, Oid type)
{
	arguments->types[arguments->count] = type;
	return &arguments->values[arguments->count++];
}

static void
add_text(Arguments *arguments, const char *text)
{
	Bytes	   *bytes = add_argument(arguments, OID_TEXT);

	arguments->is_null[arguments->count - 1] = text == NULL;
	if (text != NULL)
		bytes_add(bytes, text, strlen(text));
}

static Bytes *
add_array(Arguments *arguments, Oid array_type, Oid type, int count)
{
	Bytes	   *bytes = add_argument(arguments, array_type);

	add_number(bytes, count > 0 ? 1 : 0, 4);
	add_number(bytes, 1, 4);	/* there may be nulls */
	add_number(bytes, type, 4);
	if (count > 0)
	{
		add_number(bytes, (uint64_t) count, 4);
		add_number(bytes, 1, 4);
	}
	return bytes;
}

static void
add_element(Bytes *array, const void *data, size_t length)
{
	add_number(array, data == NULL ? UINT32_MAX : length, 4);
	if (data != NULL)
		bytes_add(array, data, length);
}

static void
add_text_element(Bytes *array, const char *text)
{
	add_element(array, text, text == NULL ? 0 : strlen(text));
}

static void
add_number_element(Bytes *array, long long number, int size)
{
	add_number(array, (uint64_t) size, 4);
	add_number(array, (uint64_t) number, size);
}

/* Sends the statement and forgets the arguments. */
static void
send_statement(Db *db, const char *sql, Arguments *arguments)
{
	const char *values[10];
	int			lengths[10];
	int			formats[10];

	for (int i = 0; i < arguments->count; i++)
	{
		values[i] = arguments->is_null[i] ? NULL : arguments->values[i].data == NULL ? "" : arguments->values[i].data;
		lengths[i] = (int) arguments->values[i].length;
		formats[i] = 1;
	}
	db->busy = true;
	/* Where that fails, db_move() finds the connection lost. */
	if (PQsendQueryParams(db->connection, sql, arguments->count, arguments->types, values, lengths, formats, 1))
		db->flushing = PQflush(db->connection) > 0;
	for (int i = 0; i < arguments->count; i++)
		bytes_free(&arguments->values[i]);
}

void
db_send(Db *db, const char *sql)
{
	Arguments	none = {0};

	send_statement(db, sql, &none);
}

static void
add_lease(Arguments *arguments, long lease_ms)
{
	char		text[40];

	snprintf(text, sizeof(text), "%ld ms", lease_ms);
	add_text(arguments, text);
}

void
db_send_claim(Db *db, const char *worker, int count, long lease_ms, bool bound, const char *namespaces)
{
	Arguments	arguments = {0};

	add_text(&arguments, worker);
	add_number(add_argument(&arguments, OID_INT4), (uint64_t) count, 4);
	add_lease(&arguments, lease_ms);
	add_text(&arguments, bound ? "on" : "off");
	add_text(&arguments, namespaces);
	send_statement(db,
				   "SELECT step_id, method, url, headers, body, timeout_ms, max_response, max_redirects, "
				   "tls_verify, tls_ca, host, has_handler "
				   "FROM tasker.claim_requests($1, $2, $3::interval, $4::boolean, string_to_array($5, ','))",
				   &arguments);
}

void
db_send_heartbeat(Db *db, const char *worker, long lease_ms, const long long *ids, int count)
{
	Arguments	arguments = {0};
	Bytes	   *array;

	add_text(&arguments, worker);
	array = add_array(&arguments, 1016, OID_INT8, count);
	for (int i = 0; i < count; i++)
		add_number_element(array, ids[i], 8);
	add_lease(&arguments, lease_ms);
	send_statement(db, "SELECT h FROM tasker.heartbeat($1, $2, $3::interval) AS h", &arguments);
}

/* What a column of the results is made of. */
typedef void (*AddElement) (Bytes *array, const Request *request);

static void
add_step_id(Bytes *array, const Request *request)
{
	add_number_element(array, request->step_id, 8);
}

static void
add_host(Bytes *array, const Request *request)
{
	add_text_element(array, request->host);
}

static void
add_status(Bytes *array, const Request *request)
{
	if (request->status == 0)
		add_element(array, NULL, 0);
	else
		add_number_element(array, request->status, 4);
}

static void
add_head(Bytes *array, const Request *request)
{
	add_element(array, request->head.length > 0 ? request->head.data : "", request->head.length);
}

static void
add_answer(Bytes *array, const Request *request)
{
	const char *data = request->answer.length > 0 ? request->answer.data : "";

	add_element(array, request->status == 0 ? NULL : data, request->answer.length);
}

static void
add_error_class(Bytes *array, const Request *request)
{
	add_text_element(array, request->error_class);
}

static void
add_message(Bytes *array, const Request *request)
{
	add_text_element(array, request->message);
}

static void
add_retry_after(Bytes *array, const Request *request)
{
	add_number_element(array, request->retry_after, 4);
}

static void
add_duration(Bytes *array, const Request *request)
{
	add_number_element(array, request->duration_ms, 4);
}

static const struct
{
	Oid			array_type;
	Oid			type;
	AddElement	add;
}			end_columns[] = {
	{1016, OID_INT8, add_step_id}, {1009, OID_TEXT, add_host}, {1007, OID_INT4, add_status},
	{1001, OID_BYTEA, add_head}, {1001, OID_BYTEA, add_answer}, {1009, OID_TEXT, add_error_class},
	{1009, OID_TEXT, add_message}, {1007, OID_INT4, add_retry_after}, {1007, OID_INT4, add_duration},
};

/* The requests of the list are all of one worker. */
void
db_send_ends(Db *db, const RequestList *list)
{
	Arguments	arguments = {0};

	add_text(&arguments, list->first->worker);
	for (size_t i = 0; i < sizeof(end_columns) / sizeof(end_columns[0]); i++)
	{
		Bytes	   *array = add_array(&arguments, end_columns[i].array_type, end_columns[i].type, list->count);

		for (const Request *request = list->first; request != NULL; request = request->next)
			end_columns[i].add(array, request);
	}
	send_statement(db, "SELECT e FROM tasker.end_requests($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) AS e", &arguments);
}

/* Rows of a claim, and who claimed, are kept until the last of their requests is gone. */
typedef struct RowOwner
{
	PGresult   *result;
	char	   *worker;
	int			users;
} RowOwner;

static long long
read_number(const char *data, int size)
{
	uint64_t	big = 0;

	memcpy((char *) &big + 8 - size, data, (size_t) size);
	big = be64toh(big);
	return size == 4 ? (int32_t) big : (int64_t) big;
}

static long long
number_at(const PGresult *result, int row, int column)
{
	return read_number(PQgetvalue(result, row, column), PQgetlength(result, row, column));
}

static const char *
text_at(const PGresult *result, int row, int column)
{
	return PQgetisnull(result, row, column) ? NULL : PQgetvalue(result, row, column);
}

/* Names and values in turn, from an array of texts. */
static void
take_headers(Request *request, const char *array)
{
	int			count = read_number(array, 4) == 0 ? 0 : (int) read_number(array + 12, 4);
	const char *at = array + 20;

	request->header_count = count / 2;
	request->headers = allocate(sizeof(Header) * (size_t) (count / 2 + 1));
	for (int i = 0; i < count / 2 * 2; i++)
	{
		int			length = (int) read_number(at, 4);
		char	   *text = allocate((size_t) length + 1);

		memcpy(text, at + 4, (size_t) length);
		text[length] = '\0';
		at += 4 + length;
		if (i % 2 == 0)
			request->headers[i / 2].name = text;
		else
			request->headers[i / 2].value = text;
	}
}

static Request *
take_request(RowOwner *owner, int row)
{
	PGresult   *result = owner->result;
	Request    *request = allocate(sizeof(Request));

	memset(request, 0, sizeof(Request));
	owner->users++;
	request->owner = owner;
	request->worker = owner->worker;
	request->step_id = number_at(result, row, 0);
	request->method = text_at(result, row, 1);
	request->url = text_at(result, row, 2);
	take_headers(request, PQgetvalue(result, row, 3));
	request->body = text_at(result, row, 4);
	request->body_length = (size_t) PQgetlength(result, row, 4);
	request->timeout_ms = (long) number_at(result, row, 5);
	request->max_response = number_at(result, row, 6);
	request->max_redirects = (int) number_at(result, row, 7);
	request->tls_verify = *PQgetvalue(result, row, 8) != 0;
	request->tls_ca = text_at(result, row, 9);
	request->host = text_at(result, row, 10);
	request->has_handler = *PQgetvalue(result, row, 11) != 0;
	return request;
}

void
db_take_requests(PGresult *result, const char *worker, RequestList *list)
{
	RowOwner   *owner;

	if (PQntuples(result) == 0)
	{
		PQclear(result);
		return;
	}
	owner = allocate(sizeof(RowOwner));
	owner->result = result;
	owner->worker = text_copy(worker);
	owner->users = 0;
	for (int row = 0; row < PQntuples(result); row++)
		list_append(list, take_request(owner, row));
}

void
request_free(Request *request)
{
	RowOwner   *owner = request->owner;

	for (int i = 0; i < request->header_count; i++)
	{
		free((char *) (uintptr_t) request->headers[i].name);
		free((char *) (uintptr_t) request->headers[i].value);
	}
	free(request->headers);
	bytes_free(&request->head);
	bytes_free(&request->answer);
	free(request);
	if (--owner->users > 0)
		return;
	PQclear(owner->result);
	free(owner->worker);
	free(owner);
}

bool
db_result_has(const PGresult *result, long long id)
{
	for (int row = 0; row < PQntuples(result); row++)
		if (number_at(result, row, 0) == id)
			return true;
	return false;
}
