/*
 * internal.h
 *	  What the files of this room share.
 */
#ifndef TASKER_SECRET_INTERNAL_H
#define TASKER_SECRET_INTERNAL_H

#include "postgres.h"

#include "utils/jsonb.h"

#include "secret/secret.h"

/* ${NAME}, or $${NAME}, which stands for the text ${NAME}. */
typedef struct Reference
{
	int			start;
	int			length;
	int			name;			/* where it begins */
	int			name_length;
	bool		literal;
} Reference;

/* reference.c */
extern bool reference_next(const char *text, int length, int from, Reference *found);

/*
 * Changes a string in place, to another one if it likes; returns whether it did.
 */
typedef bool (*StringChange) (JsonbValue *string, void *arg);
extern Jsonb *jsonb_change_strings(Jsonb *jsonb, bool keys, StringChange change, void *arg);

/* mask.c */
extern void secret_hide_new(const char *name, const char *value);

#define SECRET_NAME_MAX		128 /* bytes; no longer one can be set */
#define SECRET_VALUE_MAX	(1024 * 1024)

/* A shorter value is not looked for: it would be found everywhere. */
#define SECRET_HIDDEN_MIN	4

/* A secret as this process has it. */
typedef struct Secret
{
	char		name[SECRET_NAME_MAX + 1];	/* key */
	char	   *value;			/* NULL: it is not set */
	char	   *previous;		/* what it was before; NULL: nothing */
} Secret;

struct SecretUse
{
	int			count;
	char	  **names;
	MemoryContext context;
	/* As of a generation of the cache: */
	uint64		generation;
	Secret	  **secrets;
	Jsonb	   *config;			/* with the values in it; NULL: not made yet */
};

#endif							/* TASKER_SECRET_INTERNAL_H */
