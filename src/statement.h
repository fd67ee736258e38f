/*
 * statement.h
 *	  The few SQL statements that C runs again and again, with kept plans.
 */
#ifndef TASKER_STATEMENT_H
#define TASKER_STATEMENT_H

#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#define STATEMENT_MAX_ARGS	12

typedef struct Statement
{
	const char *sql;
	int			arg_count;
	Oid			arg_types[STATEMENT_MAX_ARGS];
	SPIPlanPtr	plan;			/* made at the first use */
} Statement;

/*
 * Runs it in the SPI connection at hand; returns the number of rows, which
 * stand in SPI_tuptable.  nulls may be NULL.
 */
extern uint64 statement_run(Statement *statement, Datum *values, const char *nulls);

/* The search_path of everything that the extension runs itself. */
#define SAFE_SEARCH_PATH	"pg_catalog, pg_temp"

/* From here on it is in force, until statement_restore_path() gets what this returned. */
extern int	statement_safe_path(void);
extern void statement_restore_path(int level);

/* Values of a row of SPI_tuptable. */
extern Datum row_value(uint64 row, int column, bool *isnull);
extern char *row_text(uint64 row, int column, MemoryContext context);	/* NULL for null */
extern Jsonb *row_jsonb(uint64 row, int column, MemoryContext context);	/* a copy, or NULL */
extern TimestampTz row_time(uint64 row, int column);	/* 0 for null */

/* Ids as an argument of a statement: a bigint[]. */
extern Datum ids_argument(const int64 *ids, int count);

/* The elements of a bigint[] without nulls, where they stand. */
extern int64 *ids_of(Datum datum, int *count);

/* Elements of an array that a function was called with; -1 where it is NULL. */
extern int	array_argument(FunctionCallInfo fcinfo, int arg, Datum **elements, bool **nulls);

#endif							/* TASKER_STATEMENT_H */
