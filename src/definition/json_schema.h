/*
 * json_schema.h
 *	  JSON Schema within the server: what its parts share.
 *
 * Include it after postgres.h.
 */
#ifndef TASKER_JSON_SCHEMA_H
#define TASKER_JSON_SCHEMA_H

#include "utils/jsonb.h"

#include "definition/json_schema_core.h"

#pragma GCC visibility push(hidden)

/* The same value where there is nothing to fill in. */
extern Jsonb *schema_fill_defaults(const Program *program, Jsonb *jsonb);

#pragma GCC visibility pop

#endif							/* TASKER_JSON_SCHEMA_H */
