/*
 * http.h
 *	  What the files of the role http share.
 *
 * http.c is its loop, http_db.c what it asks of the database, http_curl.c how it
 * makes requests, http_allow.c which addresses it may reach.  All of it runs in
 * one thread.
 */
#ifndef TASKER_AGENT_HTTP_H
#define TASKER_AGENT_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

#include <libpq-fe.h>

/* Bytes that grow. */
typedef struct Bytes
{
	char	   *data;
	size_t		length;
	size_t		space;
} Bytes;

extern void bytes_add(Bytes *bytes, const void *data, size_t length);
extern void bytes_free(Bytes *bytes);

/* A name and its value, as one line. */
typedef struct Header
{
	const char *name;
	const char *value;
} Header;

/*
 * A request, and what came of it.  First claimed, then waiting for its host, then
 * under way, then finished and to be sent.
 */
typedef struct Request
{
	struct Request *next;
	struct Request *previous;
	struct RowOwner *owner;
	long long	step_id;
	const char *worker;			/* that holds the lease; the owner's */
	const char *method;
	const char *url;
	const char *host;
	const char *tls_ca;			/* PEM, or NULL */
	const char *body;			/* NULL: none */
	size_t		body_length;
	Header	   *headers;
	int			header_count;
	long		timeout_ms;
	long long	max_response;
	int			max_redirects;
	bool		tls_verify;
	bool		has_handler;

	/* http_curl.c */
	void	   *transfer;
	struct Request *next_done;
	long long	started_at;

	/* What came of it. */
	int			status;			/* 0: no answer */
	Bytes		head;
	Bytes		answer;
	const char *error_class;	/* NULL: there is an answer */
	const char *message;
	long		retry_after;	/* s */
	long		duration_ms;
	bool		alone;			/* is to be sent without others */
	bool		beaten;			/* is in the heartbeat under way */
} Request;

typedef struct RequestList
{
	Request    *first;
	Request    *last;
	int			count;
} RequestList;

extern void list_append(RequestList *list, Request *request);
extern void list_remove(RequestList *list, Request *request);
extern Request *list_take_first(RequestList *list);
extern void request_free(Request *request);

/* http_allow.c */
typedef struct AllowList AllowList;

extern AllowList *allow_parse(const char *text, const char **bad);
extern void allow_free(AllowList *list);

/* Whether the list names the host of an URL, whatever its address. */
extern bool allow_host(const AllowList *list, const char *host, int port);

/* Whether a request may go to that address: public, or in the list. */
extern bool allow_address(const AllowList *list, const struct sockaddr *address);

/* What requests are held to. */
typedef struct Limits
{
	int			max_requests;	/* at once */
	int			per_host;
	bool		insecure;		/* a step may do without a check of certificates */
	AllowList  *allowed;
	const char *connect_to;
	const char *tls_ca;
} Limits;

/* http_curl.c */
extern bool transfers_start(void);
extern void transfers_stop(void);
extern void transfers_configure(const Limits *new_limits);
extern void transfers_add(Request *request);
extern void transfers_drop(Request *request);

/* Moves all of them on; the next one that has finished, or NULL. */
extern void transfers_move(void);
extern Request *transfers_finished(void);

/* A descriptor to be waited for beside those of requests. */
typedef struct Waiting
{
	int			fd;
	bool		for_write;
} Waiting;

/* Waits until something happens, transfers_wake() included, which any thread may call. */
extern void transfers_wait(const Waiting *others, int count, long timeout_ms);
extern void transfers_wake(void);

/* http_db.c */
typedef struct Db
{
	const char *purpose;
	PGconn	   *connection;
	PostgresPollingStatusType polling;
	bool		connected;
	bool		busy;			/* a statement is under way */
	bool		flushing;		/* not all of it has been sent */
	PGresult   *result;			/* of that statement, so far */
	int			failures;		/* to connect, in a row */
	long long	retry_at;
	long long	sessions;		/* so far */
} Db;

/* What has come about at a connection. */
typedef enum DbEvent
{
	DB_NOTHING,
	DB_CONNECTED,
	DB_LOST,					/* and with it the statement under way, if any */
	DB_RESULT					/* result is to be cleared by the caller */
} DbEvent;

extern DbEvent db_move(Db *db);
extern bool db_is_free(const Db *db);
extern bool db_wait_for(const Db *db, Waiting *waiting);
extern long db_wait_ms(const Db *db);
extern void db_close(Db *db);
extern void db_send(Db *db, const char *sql);
extern void db_send_claim(Db *db, const char *worker, int count, long lease_ms, bool bound,
						  const char *namespaces);
extern void db_send_heartbeat(Db *db, const char *worker, long lease_ms, const long long *ids,
							  int count);
extern void db_send_ends(Db *db, const RequestList *list);

/* The requests in the result of a claim, which they take over. */
extern void db_take_requests(PGresult *result, const char *worker, RequestList *list);

/* Whether the column of ids, the only one, has this one. */
extern bool db_result_has(const PGresult *result, long long id);

#endif							/* TASKER_AGENT_HTTP_H */
