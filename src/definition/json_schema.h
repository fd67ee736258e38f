/*
 * json_schema.h
 *	  JSON Schema over jsonb: what its three parts share.
 *
 * A schema is compiled once into a tree of Schema, each with the keywords that
 * it has.  A check walks that tree and the value together, and builds nothing
 * unless somebody wants to read what is wrong.
 *
 * A keyword is one row of the table "rules" (json_schema_compile.c): what
 * compiles its value, what checks an instance, and the types of instances that
 * it has something to say about.  Draft 2020-12 grows there by rows.
 *
 * Words: an instance is the value that is checked; a place is where in it we are.
 *
 * Include it after postgres.h.
 */
#ifndef TASKER_JSON_SCHEMA_H
#define TASKER_JSON_SCHEMA_H

#include "lib/stringinfo.h"
#include "nodes/pg_list.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"

#define SHOWN_NAMES			20	/* in one list */
#define REGEX_FLAGS			(REG_ADVANCED | REG_NOSUB)

/* Types of instances, as bits. */
#define TYPE_NULL			0x01
#define TYPE_BOOLEAN		0x02
#define TYPE_OBJECT			0x04
#define TYPE_ARRAY			0x08
#define TYPE_NUMBER			0x10
#define TYPE_STRING			0x20
#define TYPE_INTEGER		0x40	/* only in what the keyword "type" allows */
#define TYPE_ANY			0x3F

typedef struct JsonType
{
	const char *name;
	const char *described;
	int			bit;
} JsonType;

typedef struct Schema Schema;
typedef struct Keyword Keyword;
typedef struct Check Check;

/* Way to a part of the schema, from the inside out. */
typedef struct Step
{
	const struct Step *parent;
	const char *name;
} Step;

/* Way to a part of the instance, from the inside out; NULL is the whole. */
typedef struct Place
{
	const struct Place *parent;
	const char *key;			/* NULL: an element of an array */
	int			length;
	int			index;
} Place;

typedef struct SchemaProblem
{
	Datum		path;			/* text[] */
	char	   *pointer;		/* the same as JSON Pointer */
	const char *message;
} SchemaProblem;

typedef struct Compiler
{
	List	   *problems;		/* of SchemaProblem */
} Compiler;

/* Takes the value of a keyword; false: there is nothing to check, or it is wrong. */
typedef bool KeywordCompiler(Compiler *compiler, Schema *schema, Keyword *keyword,
							 JsonbValue *value, const Step *path);

/* Does the instance satisfy the keyword?  It is of one of the rule's types. */
typedef bool KeywordCheck(Check *check, const Schema *schema, const Keyword *keyword,
						  JsonbValue *instance, const Place *place);

typedef struct KeywordRule
{
	const char *name;
	int			types;			/* of instances it has something to say about */
	KeywordCompiler *compile;
	KeywordCheck *check;
} KeywordRule;

typedef struct PropertyName
{
	const char *text;			/* ends with a zero byte */
	int			length;
	Schema	   *schema;			/* of a property; NULL in "required" */
} PropertyName;

/* A keyword of a schema with its value; which fields are set is up to its rule. */
struct Keyword
{
	const KeywordRule *rule;
	int			types;			/* type */
	int			count;			/* minLength and the like; number of names or schemas */
	Numeric		number;			/* minimum and the like */
	JsonbValue	value;			/* const, enum */
	text	   *pattern;
	PropertyName *names;
	Schema	  **schemas;
};

struct Schema
{
	const Step *path;			/* to it, in the schema as a whole */
	bool		is_false;		/* the schema false; true is a schema without keywords */
	int			keyword_count;
	Keyword    *keywords;		/* in the order of the rules */
	int			property_count;
	PropertyName *properties;	/* in jsonb's order: by length, then by bytes */
	Schema	   *items;
	bool		has_default;
	JsonbValue	default_value;
	bool		fills;			/* a property somewhere below has a default */
};

typedef struct Problem
{
	char	   *instance_path;
	char	   *schema_path;
	char	   *message;
	char	   *hint;			/* NULL: none */
} Problem;

struct Check
{
	bool		stop_at_first;
	int			keep;			/* problems to note; the others are only counted */
	int			count;
	List	   *problems;
};

/* A walk over the entries of an object or the elements of an array. */
typedef struct Members
{
	JsonbIterator *iterator;
	JsonbValue	key;
	JsonbValue	value;
	int			index;			/* of the member at hand, from 0 */
} Members;

/* Names that only this library sees: the server has a great many of its own. */
#pragma GCC visibility push(hidden)

/* json_schema_value.c */
extern JsonbValue root_value(Jsonb *jsonb);
extern int type_of(const JsonbValue *value);
extern void begin_members(Members *members, const JsonbValue *container);
extern bool next_member(Members *members);
extern int member_count(const JsonbValue *container);
extern bool find_entry(const JsonbValue *object, const char *key, int length, JsonbValue *value);
extern bool is_integral(Numeric number);
extern int compare_numbers(Numeric a, Numeric b);
extern bool values_equal(const JsonbValue *a, const JsonbValue *b);
extern uint32 hash_value(const JsonbValue *value);
extern void append_value(StringInfo out, JsonbValue *value);
extern char *number_text(Numeric number);
extern char *place_text(const Place *place);
extern char *pointer_text(const Step *path);
extern char *name_list(const PropertyName *names, int count);
extern char *type_list(int types);
extern const JsonType *find_type(const JsonbValue *value);
extern const char *describe(const JsonbValue *instance);

/* json_schema_compile.c */
extern Schema *compile_schema(Compiler *compiler, JsonbValue *value, const Step *path);

/* json_schema_check.c */
extern bool check_schema(Check *check, const Schema *schema, JsonbValue *instance,
						 const Place *place);
extern const PropertyName *find_property(const Schema *schema, const JsonbValue *key);
extern KeywordCheck check_type;
extern KeywordCheck check_enum;
extern KeywordCheck check_const;
extern KeywordCheck check_minimum;
extern KeywordCheck check_maximum;
extern KeywordCheck check_exclusive_minimum;
extern KeywordCheck check_exclusive_maximum;
extern KeywordCheck check_multiple_of;
extern KeywordCheck check_min_length;
extern KeywordCheck check_max_length;
extern KeywordCheck check_min_items;
extern KeywordCheck check_max_items;
extern KeywordCheck check_min_properties;
extern KeywordCheck check_max_properties;
extern KeywordCheck check_pattern;
extern KeywordCheck check_unique_items;
extern KeywordCheck check_required;
extern KeywordCheck check_properties;
extern KeywordCheck check_additional_properties;
extern KeywordCheck check_items;
extern KeywordCheck check_all_of;
extern KeywordCheck check_any_of;
extern KeywordCheck check_one_of;
extern KeywordCheck check_not;

#pragma GCC visibility pop

#endif							/* TASKER_JSON_SCHEMA_H */
