/*
 * json_schema_internal.h
 *	  JSON Schema: what the parts of its core share.
 *
 * A schema is compiled once into a graph of Schema, each with the keywords that
 * it has.  A check walks that graph and the value together, and builds nothing
 * unless somebody wants to read what is wrong.
 *
 * A keyword is one row of the table "rules" (json_schema_compile.c): in which
 * drafts it stands, what compiles its value, what checks an instance, and the
 * types of instances that it has something to say about.
 *
 * A resource is a schema with a URI of its own: a whole document, or a part of
 * one that names itself by $id.  It says by which draft it is read.
 */
#ifndef TASKER_JSON_SCHEMA_INTERNAL_H
#define TASKER_JSON_SCHEMA_INTERNAL_H

#include "definition/json_schema_core.h"
#include "definition/json_schema_value.h"

#pragma GCC visibility push(hidden)

#define MAX_NESTING			1000	/* of a schema's text */
#define MAX_DEPTH			3000	/* schemas within each other on the way of a check */
#define LEVELS_A_PAUSE		16
#define MANY_MEMBERS		128		/* marks of more are not kept on the stack */

/* Drafts, as bits. */
#define DRAFT_4				0x01
#define DRAFT_7				0x02
#define DRAFT_2020			0x04
#define DRAFT_ALL			(DRAFT_4 | DRAFT_7 | DRAFT_2020)

/* Vocabularies of draft 2020-12, as bits; the older drafts have them all. */
#define VOCABULARY_CORE			0x01
#define VOCABULARY_APPLICATOR	0x02
#define VOCABULARY_UNEVALUATED	0x04
#define VOCABULARY_VALIDATION	0x08
#define VOCABULARY_META_DATA	0x10
#define VOCABULARY_FORMAT		0x20	/* format says something, and no more */
#define VOCABULARY_ASSERTION	0x40	/* format is checked */
#define VOCABULARY_CONTENT		0x80
#define VOCABULARY_ALL			0xFF

typedef struct Dialect
{
	int			draft;
	int			vocabularies;
} Dialect;

typedef struct Keyword Keyword;
typedef struct Check Check;
typedef struct Frame Frame;
typedef struct Pattern Pattern;

/* Things by the bytes of their name. */
typedef struct MapEntry
{
	const char *key;
	size_t		length;
	uint64_t	hash;
	void	   *value;
} MapEntry;

typedef struct Map
{
	void	   *arena;
	MapEntry   *entries;
	size_t		size;			/* a power of two */
	size_t		used;
} Map;

typedef struct Document
{
	struct Document *next;
	JsonValue	value;
	bool		is_root;		/* the schema that is compiled */
	const char *uri;			/* under which it was found */
} Document;

typedef struct Resource
{
	struct Resource *next;
	Document   *document;
	const char *uri;			/* absolute as far as possible, without fragment */
	Dialect		dialect;
	JsonValue	value;
	const Step *path;			/* from the document */
	Map			dynamic_anchors;	/* to Location */
} Resource;

/* A part of a document that is a schema. */
typedef struct Location
{
	JsonValue	value;
	Resource   *resource;
	const Step *path;			/* from the document */
	bool		is_dynamic;		/* an anchor made by $dynamicAnchor */
} Location;

typedef struct Compiler
{
	Program    *program;
	void	   *arena;
	Document   *documents;
	Resource   *resources;
	Map			by_uri;			/* to Resource */
	Map			by_anchor;		/* URI#name to Location */
	Map			by_address;		/* address of an object to Schema */
	Map			roots;			/* address of an object that is a resource to Resource */
	Map			patterns;		/* text to Pattern */
	Map			dynamic_names;	/* names of all dynamic anchors that are referred to, to themselves */
	Schema	   *waiting;		/* referred to, not compiled yet */
	Schema	   *last_waiting;
	Schema	   *all;
	SchemaProblem *last_problem;
	int64_t		automaton_steps;	/* left for making automata */
	void	   *scratch;		/* memory for them */
	int			nesting;
} Compiler;

/* Takes the value of a keyword; false: there is nothing to check, or it is wrong. */
typedef bool KeywordCompiler(Compiler *compiler, Schema *schema, Keyword *keyword,
							 const JsonValue *value, const Step *path);

/* Does the instance of the frame satisfy the keyword?  It is of one of the rule's types. */
typedef bool KeywordCheck(Check *check, const Frame *frame, const Keyword *keyword);

typedef struct KeywordRule
{
	const char *name;
	int			drafts;
	int			vocabulary;
	int			types;			/* of instances it has something to say about */
	KeywordCompiler *compile;
	KeywordCheck *check;
} KeywordRule;

typedef struct PropertyName
{
	const char *text;			/* ends with a zero byte */
	size_t		length;
	Schema	   *schema;			/* of a property; NULL in a list of names */
	struct PropertyName *names; /* of dependentRequired: those it needs */
	int			count;
} PropertyName;

/*
 * properties, required and additionalProperties at once, for a check that only
 * wants to know whether all is right.
 */
typedef struct Walk
{
	uint32_t	count;
	struct WalkName
	{
		const char *text;
		uint32_t	length;
		bool		is_required;
		const Schema *schema;	/* NULL: the name is in "required" alone */
	}		   *names;			/* in jsonb's order */
	uint32_t	required_count;
	bool		marks_all;
	const Schema *additional;	/* NULL: whatever else there is is right */
} Walk;

typedef struct PatternSchema
{
	const Pattern *pattern;
	Schema	   *schema;
} PatternSchema;

typedef struct Format
{
	const char *name;
	int			drafts;
	bool		(*check) (const char *text, size_t length);	/* NULL: a regular expression */
	const char *described;
} Format;

/* An open table of the values of an enum. */
typedef struct EnumTable
{
	int			size;			/* a power of two */
	int		   *slots;			/* index into values, or -1 */
	uint64_t   *hashes;			/* of the values */
} EnumTable;

/* A keyword of a schema with its value; which fields are set is up to its rule. */
struct Keyword
{
	KeywordCheck *check;
	int			types;			/* of instances that it checks */
	int			allowed;		/* type */
	const KeywordRule *rule;
	uint32_t	count;			/* minLength and the like; number of names, values or schemas */
	uint32_t	least;			/* contains */
	uint32_t	most;
	bool		is_small;		/* the number fits into small */
	bool		marks;			/* contains: evaluated items are marked */
	int64_t		small;
	JsonValue	number;			/* minimum and the like */
	JsonValue	value;			/* const, enum as it is written */
	JsonValue  *values;			/* enum */
	EnumTable  *table;
	const Pattern *pattern;
	const Format *format;
	PropertyName *names;
	PropertyName *sorted;		/* required: the same in jsonb's order, each once */
	uint32_t	sorted_count;
	Schema	  **schemas;
	const char *text;			/* $ref as it is written; name of a dynamic anchor */
	bool		in_walk;		/* the schema's walk does the same */
	bool		encoded;		/* contentEncoding base64 */
	bool		json;			/* contentMediaType application/json */
};

/* Kinds of values: by the bits of their entry, but objects, which those do not tell from arrays. */
enum
{
	KIND_STRING,
	KIND_NUMBER,
	KIND_FALSE,
	KIND_TRUE,
	KIND_NULL,
	KIND_ARRAY,
	KIND_OBJECT,
	KINDS
};

/* What a schema says of a value; of several keywords the greatest. */
typedef enum Answer
{
	ANSWER_YES,
	ANSWER_TEST,				/* by what stands in Quick */
	ANSWER_ASK,					/* each keyword */
	ANSWER_NO
} Answer;

/* The verdict on simple values, and on others of simple schemas (json_schema_quick.c). */
typedef struct Quick
{
	uint8_t		answers[KINDS];
	bool		only_integers;
	int64_t		low;			/* by number_place() */
	int64_t		high;
	uint32_t	least_characters;
	uint32_t	most_characters;
	uint32_t	value_count;	/* 0: any text */
	const JsonValue *values;	/* among which a text must be */
	const Keyword *table;		/* the same, where there are many; or NULL */
	const Pattern *pattern;
	bool		(*is_format) (const char *text, size_t length);
	uint32_t	least_items;
	uint32_t	most_items;
	uint32_t	first_item;		/* that items is for */
	bool		marks_items;
	const Schema *items;		/* NULL: all are right */
} Quick;

struct Schema
{
	Quick		quick;
	const Step *path;			/* to it, in its document */
	Resource   *resource;
	JsonValue	source;
	Schema	   *next_waiting;
	Schema	   *next;			/* all of them */
	bool		compiled;
	int			looked_at;		/* in the search for circles: 1 while on the way, 2 when done */
	bool		is_false;		/* the schema false; true is a schema without keywords */
	int			allowed;		/* by "type", which is the first keyword then */
	Walk	   *walk;			/* NULL: there is none */
	bool		tracks;			/* has unevaluatedProperties or unevaluatedItems */
	int			keyword_count;
	Keyword    *keywords;		/* in the order of the rules */
	int			property_count;
	PropertyName *properties;	/* in jsonb's order: by length, then by bytes */
	int			pattern_count;
	PatternSchema *patterns;
	uint32_t	prefix_count;
	Schema	  **prefix;
	Schema	   *items;
	Schema	   *ref;
	int			all_of_count;
	Schema	  **all_of;
	bool		has_default;
	JsonValue	default_value;
	bool		fills;			/* some default may be filled in below or beside it */
};

/* Way to a part of the instance, from the inside out; NULL is the whole. */
typedef struct Place
{
	const struct Place *parent;
	const char *key;			/* NULL: an element of an array */
	uint32_t	length;
	uint32_t	index;
} Place;

/* Members of the instance at hand that some schema has looked at. */
typedef struct Evaluated
{
	bool		all;
	uint32_t	count;			/* of members */
	uint64_t   *words;
	uint64_t	few[MANY_MEMBERS / 64];	/* the words, where they suffice */
} Evaluated;

/* Resources that were entered on the way, the last one first. */
typedef struct Scope
{
	const struct Scope *parent;
	const Resource *resource;
} Scope;

/* A schema at work on an instance. */
struct Frame
{
	const Frame *parent;		/* NULL where the instance is another one */
	const Schema *schema;
	const JsonValue *instance;
	const Place *place;
	const Scope *scope;
	Evaluated  *evaluated;		/* NULL: nobody wants to know */
};

/* What all parts of one check share. */
typedef struct Run
{
	const Program *program;
	void	   *arena;
	int64_t		steps;			/* left */
	int64_t		pause;			/* when the host is to be called next */
	int			depth;
	CheckFailure failure;
	const char *failed_at;
} Run;

struct Check
{
	Run		   *run;
	bool		stop_at_first;
	int			keep;			/* problems to note; the others are only counted */
	int			count;
	int			noted;
	Problem    *problems;
	Problem    *last;
};

/* json_schema_uri.c */
extern const char *uri_resolve(void *arena, const char *base, const char *reference, size_t length);
extern const char *uri_without_fragment(void *arena, const char *uri);
extern const char *uri_fragment(const char *uri);	/* behind the #; "" where there is none */
extern char *uri_decoded(void *arena, const char *text, size_t *length);

/* json_schema_resolve.c */
extern void map_begin(Map *map, void *arena);
extern void *map_get(const Map *map, const char *key, size_t length);
extern void map_put(Map *map, const char *key, size_t length, void *value);
extern Document *add_document(Compiler *compiler, const JsonValue *value, const char *uri,
							  Dialect dialect, bool is_root);
extern Resource *resource_of_document(Compiler *compiler, const Document *document);
extern bool resolve_reference(Compiler *compiler, const Schema *from, const char *reference,
							  size_t length, const Step *path, Location *location);

/* json_schema_compile.c */
extern const Step *step_to(Compiler *compiler, const Step *parent, const char *name, size_t length);
extern bool refuse(Compiler *compiler, const Document *document, const Step *path,
				   const char *hint, const char *format,...) __attribute__((format(printf, 5, 6)));
extern Schema *schema_at(Compiler *compiler, const JsonValue *value, Resource *resource,
						 const Step *path);

/* json_schema_pattern.c */
extern const Pattern *pattern_compile(Compiler *compiler, const char *text, size_t length,
									  const char **reason);
extern bool pattern_matches(Run *run, const Pattern *pattern, const char *text, size_t length);
extern bool pattern_is_valid(void *arena, bool utf8, const char *text, size_t length);

/* json_schema_format.c */
extern const Format *find_format(const char *name, size_t length, int draft);
extern bool is_base64(const char *text, size_t length);
extern size_t decode_base64(const char *text, size_t length, char *out);
extern bool is_json(const char *text, size_t length);

/* json_schema_check.c */
extern bool check_schema(Check *check, const Frame *frame, const Schema *schema);
extern bool pause_run(Run *run);
extern bool check_value(Check *check, const Scope *scope, const Schema *schema,
						const JsonValue *value, const Place *place);
extern bool is_in_table(Run *run, const Keyword *keyword, const JsonValue *instance);
extern bool is_wanted(const Check *check);
extern bool count_unseen(Check *check);
extern bool report(Check *check, const Frame *frame, const Keyword *keyword, const Place *place,
				   const char *format,...) __attribute__((format(printf, 5, 6)));
extern bool suggest(Check *check, const char *hint);
extern const char *place_text(void *arena, const Place *place);
extern const char *name_list(Check *check, const PropertyName *names, int count);
extern const PropertyName *find_property(const Schema *schema, const char *key, size_t length);
extern void begin_many_evaluated(Run *run, Evaluated *evaluated);
extern bool are_all_evaluated(const Evaluated *evaluated);
extern void merge_evaluated(Evaluated *to, const Evaluated *from);

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
extern KeywordCheck check_pattern;
extern KeywordCheck check_format;
extern KeywordCheck check_content;
extern KeywordCheck check_ref;
extern KeywordCheck check_dynamic_ref;
extern KeywordCheck check_all_of;
extern KeywordCheck check_any_of;
extern KeywordCheck check_one_of;
extern KeywordCheck check_not;
extern KeywordCheck check_if;

/* json_schema_check_members.c */
extern KeywordCheck check_min_items;
extern KeywordCheck check_max_items;
extern KeywordCheck check_unique_items;
extern KeywordCheck check_prefix_items;
extern KeywordCheck check_items;
extern KeywordCheck check_contains;
extern KeywordCheck check_unevaluated_items;
extern KeywordCheck check_min_properties;
extern KeywordCheck check_max_properties;
extern KeywordCheck check_required;
extern KeywordCheck check_dependent_required;
extern KeywordCheck check_property_names;
extern KeywordCheck check_properties;
extern KeywordCheck check_pattern_properties;
extern KeywordCheck check_additional_properties;
extern KeywordCheck check_dependent_schemas;
extern KeywordCheck check_unevaluated_properties;

/* json_schema_quick.c */
extern void make_quick(Compiler *compiler, Schema *schema);
extern bool walk_object(Check *check, const Scope *scope, Evaluated *evaluated, const Walk *walk,
						const char *object);
extern Answer quick_answer(Check *check, const Scope *scope, Evaluated *evaluated,
						   const Schema *schema, const JsonValue *value);

/* Counts work that is done; false: there was too much of it. */
static inline bool
spend(Run *run, uint64_t steps)
{
	run->steps -= (int64_t) steps;
	return run->steps > run->pause || pause_run(run);
}

/* One level deeper, if that is not too deep. */
static inline bool
enter(Run *run)
{
	if (run->failure != CHECK_DONE)
		return false;
	if (run->depth >= MAX_DEPTH)
	{
		run->failure = CHECK_TOO_DEEP;
		return false;
	}
	if (++run->depth % LEVELS_A_PAUSE == 0)
		host_pause();
	return true;
}

/* Is it only asked whether the instance is right? */
static inline bool
wants_verdict(const Check *check)
{
	return check->keep == 0;
}

static inline void
begin_evaluated(Run *run, Evaluated *evaluated, const JsonValue *instance)
{
	evaluated->all = false;
	evaluated->count = instance->type & (TYPE_OBJECT | TYPE_ARRAY) ? member_count(instance) : 0;
	evaluated->words = evaluated->few;
	memset(evaluated->few, 0, sizeof(evaluated->few));
	if (evaluated->count > MANY_MEMBERS)
		begin_many_evaluated(run, evaluated);
}

static inline void
mark_evaluated(Evaluated *evaluated, uint32_t index)
{
	evaluated->words[index / 64] |= UINT64_C(1) << (index % 64);
}

static inline bool
is_evaluated(const Evaluated *evaluated, uint32_t index)
{
	return evaluated->all || (evaluated->words[index / 64] >> (index % 64) & 1);
}

static inline int
kind_of(const JsonValue *value)
{
	switch (value->type)
	{
		case TYPE_STRING:
			return KIND_STRING;
		case TYPE_NUMBER:
			return KIND_NUMBER;
		case TYPE_BOOLEAN:
			return value->length ? KIND_TRUE : KIND_FALSE;
		case TYPE_NULL:
			return KIND_NULL;
		case TYPE_ARRAY:
			return KIND_ARRAY;
		default:
			return KIND_OBJECT;
	}
}

#pragma GCC visibility pop

#endif							/* TASKER_JSON_SCHEMA_INTERNAL_H */
