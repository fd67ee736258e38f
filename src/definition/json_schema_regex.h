/*
 * json_schema_regex.h
 *	  JSON Schema: a regular expression of ECMA-262, taken apart.
 *
 * It becomes an automaton, which takes one look at each character; or, where that
 * would get too large or has to look around, a regular expression of PostgreSQL's.
 */
#ifndef TASKER_JSON_SCHEMA_REGEX_H
#define TASKER_JSON_SCHEMA_REGEX_H

#include "definition/json_schema_internal.h"

#pragma GCC visibility push(hidden)

#define LAST_CHARACTER	0x10FFFF
#define UNBOUNDED		UINT32_MAX

typedef struct Range
{
	uint32_t	first;
	uint32_t	last;
} Range;

/* A set of characters: ranges that rise and do not touch. */
typedef struct CharacterSet
{
	int			count;
	int			size;
	Range	   *ranges;
} CharacterSet;

typedef enum RegexKind
{
	REGEX_SET,
	REGEX_SEQUENCE,
	REGEX_CHOICE,
	REGEX_REPEAT,
	REGEX_BEGIN,				/* ^ */
	REGEX_END,					/* $ */
	REGEX_BOUNDARY,				/* \b */
	REGEX_LOOK					/* (?= and the like */
} RegexKind;

typedef struct RegexNode
{
	RegexKind	kind;
	bool		negative;		/* \B, (?!, (?<! */
	bool		behind;			/* (?<=, (?<! */
	uint32_t	least;			/* repeat */
	uint32_t	most;
	CharacterSet set;
	int			count;
	int			size;
	struct RegexNode **parts;
} RegexNode;

/* What came of a text; root is NULL where it is wrong. */
typedef struct Regex
{
	RegexNode  *root;
	const char *reason;
	bool		looks;			/* it has to look around */
} Regex;

typedef struct Automaton Automaton;

/* json_schema_regex.c */
extern Regex regex_parse(void *arena, bool utf8, const char *text, size_t length);
extern char *regex_translated(void *arena, bool utf8, const RegexNode *root, const char **reason);

/* json_schema_automaton.c */
extern Automaton *automaton_make(void *arena, void **scratch, const RegexNode *root,
								 int64_t *steps);
extern bool automaton_matches(const Automaton *automaton, const char *text, size_t length);

#pragma GCC visibility pop

#endif							/* TASKER_JSON_SCHEMA_REGEX_H */
