/*
 * rest_internal.h
 *	  What the files of the REST role share.
 *
 * rest_target.c takes the request line apart, rest_routes.c is the table of all
 * routes, rest_bind.c makes a statement's values of a request, rest_openapi.c
 * describes it.  rest_server.c is the HTTP server and the only file that knows
 * its library, rest_pool.c asks the database, rest_answer.c words what comes
 * back, rest_events.c is the live stream, rest_auth.c and rest_jwt.c say who asks,
 * rest_pages.c has the files of the pages.
 */
#ifndef TASKER_REST_INTERNAL_H
#define TASKER_REST_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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
	bool		body_is_text;	/* of whatever type */
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
extern void answer_compress(Answer *answer);
extern void answer_free(Answer *answer);
extern const char *status_title(int status);

/* ---- OpenAPI (rest_openapi.c) */
extern void openapi_describe(Text *text);

/* ---- the database (rest_pool.c) */
typedef struct Job
{
	struct Job *next;
	const Route *route;
	Target		target;
	Values		values;
	char	   *role;			/* NULL: the agent's own */
	char	   *token;			/* whose role is to be asked for first; NULL: none */
	bool		may_compress;
	Answer		answer;
	void		(*done) (struct Job *job);	/* called by a thread of the pool */
} Job;

extern bool pool_start(void);
extern void pool_submit(Job *job);
extern int	pool_busy(void);
extern bool pool_is_ready(void);
extern void pool_stop(void);

/* ---- the server (rest_server.c) */
extern bool server_start(void);
extern const char *server_address(void);
extern void server_drain(void);
extern bool server_is_idle(void);
extern void server_stop(void);

#endif							/* TASKER_REST_INTERNAL_H */
