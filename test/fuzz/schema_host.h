/*
 * schema_host.h
 *	  JSON Schema outside the server: what a program needs to call its core.
 */
#ifndef SCHEMA_HOST_H
#define SCHEMA_HOST_H

#include "definition/json_schema_core.h"
#include "definition/json_schema_value.h"

typedef struct Arena Arena;

extern Arena *arena_new(void);
extern void arena_free(Arena *arena);
extern bool json_to_binary(Arena *arena, const char *text, size_t length, size_t shift,
						   JsonValue *value);
extern void host_store(const char *text, size_t length);
extern bool exact_is_multiple(const JsonValue *value, const JsonValue *of);

#endif							/* SCHEMA_HOST_H */
