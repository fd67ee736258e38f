/*
 * rest_internal.h
 *	  What the files of the REST role share.
 *
 * rest_target.c takes the request line apart, rest_routes.c is the table of all
 * routes, rest_bind.c makes a statement's values of a request, rest_openapi.c
 * describes it.  rest_server.c is the HTTP server and the only file that knows
 * its library, rest_pool.c asks the database, rest_answer.c words what comes
 * back, rest_events.c is the live stream, rest_auth.c and rest_jwt.c say who asks,
 * by keys that rest_jwks.c may fetch, rest_pages.c has the files of the pages.
 */
#ifndef TASKER_REST_INTERNAL_H
#define TASKER_REST_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <libpq-fe.h>

#define REST_MAX_PARTS	10		/* of a path */
#define REST_MAX_PAIRS	64		/* of a query */
#define REST_MAX_VALUES 16		/* of a statement */
#define REST_PREFIX		"/tasker"

/* ---- text that grows (rest_text.c) */
typedef struct Text
{
	char	   *data;			/* ends in '\0' where anything was added */
	size_t		length;
	size_t		room;
} Text;

extern void text_add(Text *text, const char *piece, size_t length);
extern void text_say(Text *text, const char *piece);
extern void text_printf(Text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
extern void text_json(Text *text, const char *value);
extern void text_json_bytes(Text *text, const char *value, size_t length);
extern void text_free(Text *text);
extern bool text_is_utf8(const char *bytes, size_t length);

/* ---- the request line (rest_target.c) */
typedef struct Pair
{
	char	   *name;
	char	   *value;
} Pair;

typedef struct Target
{
	char	   *memory;			/* parts and pairs point into it */
	int			part_count;
	char	   *parts[REST_MAX_PARTS];
	int			pair_count;
	Pair		pairs[REST_MAX_PAIRS];
} Target;

extern const char *target_parse(Target *target, const char *uri);
extern const char *target_value(const Target *target, const char *name);
extern void target_free(Target *target);
extern bool percent_decode(char *text, size_t *length, bool is_query);
extern void percent_encode(Text *text, const char *value);

/* ---- the table of routes (rest_routes.c) */
enum
{
	METHOD_GET = 1,
	METHOD_POST = 2,
	METHOD_PATCH = 4,
	METHOD_PUT = 8,
	METHOD_DELETE = 16,
	METHOD_OPTIONS = 32
};

typedef enum ParameterPlace
{
	IN_PATH,
	IN_QUERY,
	IN_HEADER
} ParameterPlace;

typedef enum ParameterType
{
	TYPE_TEXT,
	TYPE_TEXTS,					/* may come several times */
	TYPE_ID,
	TYPE_INTEGER,
	TYPE_FLAG,
	TYPE_TIME,
	TYPE_CHOICE
} ParameterType;

typedef struct Parameter
{
	const char *name;
	ParameterPlace place;
	ParameterType type;
	const char *about;
	const char *fallback;		/* NULL: NULL */
	long		minimum;		/* TYPE_INTEGER */
	long		maximum;
	const char *choices;		/* TYPE_CHOICE: a|b|c */
} Parameter;

typedef enum RouteKind
{
	ROUTE_SQL,
	ROUTE_EVENTS,
	ROUTE_OPENAPI,
	ROUTE_LIVE
} RouteKind;

typedef struct Route
{
	int			methods;
	const char *pattern;		/* behind REST_PREFIX */
	const char *operation;
	const char *permission;		/* NULL: for everybody */
	const char *summary;
	const char *sql;			/* its values: the parameters, in order, then the body */
	const Parameter *parameters[REST_MAX_VALUES];
	const char *body;			/* schema of the body; NULL: it takes none */
	const char *answer;			/* schema of the answer */
	const char *type;			/* of the answer; NULL: application/json */
	int			status;			/* when all is well; 0: 200 */
	int			not_found;		/* what TK007 becomes; 0: 404 */
	bool		body_is_text;	/* a definition: YAML or JSON */
	bool		is_open;		/* asks for no credentials */
	RouteKind	kind;
} Route;

extern const Route rest_routes[];
extern const int rest_route_count;

extern const Route *route_find(const Target *target, int method, int *allowed);
extern int	method_of(const char *name);
extern const char *method_names(int methods, Text *text);

/* ---- values of a statement (rest_bind.c) */
typedef const char *(*HeaderValue) (void *context, const char *name);

typedef struct Values
{
	int			count;
	const char *values[REST_MAX_VALUES];
	Text		lists;			/* memory of those that had to be made */
} Values;

extern bool bind_values(const Route *route, const Target *target, HeaderValue header, void *context,
						Values *values, Text *problem);
extern void values_free(Values *values);

/* ---- answers (rest_answer.c) */
typedef struct Answer
{
	int			status;
	const char *type;
	char		own_type[64];	/* where the database says which */
	Text		body;
	char	   *location;
	char	   *link;
	const char *content_encoding;
	char		etag[24];		/* empty: none */
	int			retry_after;	/* seconds; 0: does not say */
} Answer;

extern void answer_problem(Answer *answer, int status, const char *detail, const char *hint);
extern void answer_error(Answer *answer, const Route *route, const char *sqlstate, const char *message,
						 const char *detail, const char *hint, const char *errors);
extern void answer_set_tag(Answer *answer);
extern void answer_compress(Answer *answer, int effort);
extern void answer_free(Answer *answer);
extern const char *status_title(int status);

/* ---- OpenAPI (rest_openapi.c) */
extern void openapi_describe(Text *text);

/* ---- who asks (rest_auth.c) */
typedef enum AuthResult
{
	AUTH_NONE,					/* the agent's own role */
	AUTH_ROLE,
	AUTH_TOKEN,					/* the database knows whose it is */
	AUTH_REFUSED,
	AUTH_LATER					/* what it would be known by is not there yet */
} AuthResult;

extern bool auth_start(void);
extern void auth_reload(void);
extern AuthResult auth_check(const char *authorization, const char *proxy_role, bool is_proxy,
							 bool is_required, char **who, const char **why);
extern bool auth_is_required(void);
extern bool auth_is_proxy(const char *address);
extern void auth_stop(void);

/* ---- JSON Web Tokens (rest_jwt.c) */
typedef struct JwtRules
{
	const char *role_claim;
	const char *issuer;			/* NULL: any */
	const char *audience;		/* NULL: any */
	long long	now;			/* seconds since 1970 */
} JwtRules;

typedef struct JwtKeys JwtKeys;

extern JwtKeys *jwt_keys_read(const char *key_file, const char *jwks_file, const Text *fetched, char **why);
extern JwtKeys *jwt_keys_of(const char *key, size_t key_length, const char *jwks, size_t jwks_length, char **why);
extern void jwt_keys_free(JwtKeys *keys);
extern char *jwt_role(const JwtKeys *keys, const JwtRules *rules, const char *token, bool *lacks_key, const char **why);

/* ---- a key set behind a URL (rest_jwks.c) */

/* Takes what was fetched from there; false, and why not, to be freed. */
typedef bool JwksTaker(const char *url, const char *set, size_t length, char **why);

extern bool jwks_is_url(const char *where);
extern const char *jwks_url_problem(const char *url);
extern bool jwks_fetch(JwksTaker *taker);
extern bool jwks_may_come(void);
extern void jwks_stop(void);

/* ---- the stream of events (rest_events.c) */
typedef struct Stream Stream;

extern Stream *stream_open(const char *role, const char *events, const char *namespace, const char *task_id,
						   const char *tick, const char *at, const char *event, bool is_lost);
extern size_t stream_read(Stream *stream, char *buffer, size_t room, bool *is_ended, void (*wait) (void *), void *context);
extern void stream_on_data(Stream *stream, void (*resume) (void *), void (*cut) (void *), void *context);
extern void stream_close(Stream *stream);
extern bool events_start(void);
extern void events_drain(void);
extern void events_stop(void);

/* ---- the files of the pages (rest_pages.c) */
typedef struct Page
{
	char	   *path;			/* behind REST_PREFIX "/" */
	const char *type;
	char	   *data;
	size_t		length;
	char		etag[24];
	char	   *packed;			/* by gzip; NULL: that is no shorter */
	size_t		packed_length;
	char		packed_etag[24];
} Page;

extern void pages_load(void);
extern const Page *page_find(const Target *target);

/* ---- the database (rest_pool.c) */
typedef struct Job
{
	struct Job *next;
	const Route *route;
	Target		target;
	Values		values;
	char	   *role;			/* NULL: the agent's own */
	char	   *token;			/* whose role is to be asked for first; NULL: none */
	char	   *place[4];		/* of a stream: tick, at, event, canonical events */
	bool		may_compress;
	Answer		answer;
	void		(*done) (struct Job *job);	/* called by a thread of the pool */
} Job;

extern bool pool_start(void);
extern void pool_submit(Job *job);
extern int	pool_busy(void);
extern bool pool_is_ready(void);
extern bool pool_keeps_session(PGconn *connection);
extern void pool_stop(void);

/* rest_listen.c */
extern int	listener_open(void);
extern const char *listener_address(void);

/* ---- the server (rest_server.c) */
extern bool server_start(void);
extern void server_drain(void);
extern bool server_is_idle(void);
extern void server_stop(void);

#endif							/* TASKER_REST_INTERNAL_H */
