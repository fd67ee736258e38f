/*
 * json_schema_core.h
 *	  JSON Schema: what compiles a schema and checks values against it.
 *
 * Nothing of the server is used here: what the core needs of whoever runs it is
 * the list of host_ functions below.  No error ever jumps, unless the host's own
 * functions do.  That is what lets it be fuzzed as a program of its own.
 *
 * Values are read where they stand, in the binary form of jsonb, whose layout
 * is said once, in json_schema_value.h.
 *
 * Words: an instance is the value that is checked; a place is where in it we are.
 */
#ifndef TASKER_JSON_SCHEMA_CORE_H
#define TASKER_JSON_SCHEMA_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Names that only this library sees: the server has a great many of its own. */
#pragma GCC visibility push(hidden)

/* Types of values, as bits. */
#define TYPE_NULL			0x01
#define TYPE_BOOLEAN		0x02
#define TYPE_OBJECT			0x04
#define TYPE_ARRAY			0x08
#define TYPE_NUMBER			0x10
#define TYPE_STRING			0x20
#define TYPE_INTEGER		0x40	/* only in what the keyword "type" allows */
#define TYPE_ANY			0x3F

/* A value within a jsonb: nothing is copied. */
typedef struct JsonValue
{
	const char *data;			/* of a string, number, object or array */
	uint32_t	length;			/* in bytes; of a boolean 1 or 0 */
	int			type;			/* one of the bits */
} JsonValue;

/* Way to a part of a schema, from the inside out. */
typedef struct Step
{
	const struct Step *parent;
	const char *name;
	size_t		length;
} Step;

/* What is wrong with a schema. */
typedef struct SchemaProblem
{
	struct SchemaProblem *next;
	const Step *path;			/* to the part; NULL: the whole */
	const char *pointer;		/* the same as JSON Pointer; of another schema than the one compiled, with its URI */
	bool		elsewhere;		/* it is in another schema */
	const char *message;		/* the end of a sentence that begins with the part */
	const char *hint;			/* NULL: none */
} SchemaProblem;

/* What is wrong with an instance. */
typedef struct Problem
{
	struct Problem *next;
	const char *instance_path;	/* JSON Pointers */
	const char *schema_path;
	const char *message;
	const char *hint;			/* NULL: none */
} Problem;

typedef struct Schema Schema;

/* A compiled schema, with all that it refers to. */
typedef struct Program
{
	void	   *arena;			/* of all that belongs to it */
	bool		utf8;			/* encoding of all texts */
	bool		reads_stored;	/* other schemas were asked for, found or not */
	bool		has_defaults;
	Schema	   *root;
	SchemaProblem *problems;	/* in the order in which they were found */
	int			problem_count;
} Program;

/* Always gives a program; it must not be used to check where it has problems. */
extern Program *schema_compile(void *arena, const JsonValue *source, bool utf8);

typedef enum CheckFailure
{
	CHECK_DONE,
	CHECK_TOO_DEEP,
	CHECK_TOO_LONG,
	CHECK_CIRCULAR				/* a reference came back to itself and got no deeper */
} CheckFailure;

/* What a check comes to. */
typedef struct CheckResult
{
	CheckFailure failure;		/* unless CHECK_DONE, nothing else means anything */
	const char *failed_at;		/* of CHECK_CIRCULAR: the reference */
	bool		valid;
	int			count;			/* of problems, noted or not */
	Problem    *problems;		/* in the order in which they were found */
} CheckResult;

/* Does it satisfy the schema?  keep 0 stops at the first problem; else so many are described. */
extern CheckResult schema_check(const Program *program, const JsonValue *instance, void *arena,
								int keep);

/* "a string", "the number 1.5" */
extern const char *schema_describe(void *arena, const JsonValue *value);

/*
 * The host
 */

/* Never NULL. */
extern void *host_alloc(void *arena, size_t size);

/* Called every few thousand steps, and at each tenth level of depth. */
extern void host_pause(void);

/* Only where the texts are not UTF-8: characters of a text, and bytes of as many as fit. */
extern size_t host_characters(const char *text, size_t length);
extern size_t host_clip(const char *text, size_t length, size_t limit);

/* The stored schema of that URI, in memory that lives as long as the arena. */
extern bool host_fetch_schema(void *arena, const char *uri, JsonValue *schema);

/* A regular expression as PostgreSQL's ARE; NULL and the reason where it can't be. */
typedef struct HostRegex HostRegex;
extern HostRegex *host_regex_compile(void *arena, const char *pattern, size_t length,
									 const char **reason);
extern bool host_regex_match(const HostRegex *regex, const char *text, size_t length);

/* For numbers of more digits than the core takes. */
extern bool host_is_multiple(const JsonValue *number, const JsonValue *of);

#pragma GCC visibility pop

#endif							/* TASKER_JSON_SCHEMA_CORE_H */
