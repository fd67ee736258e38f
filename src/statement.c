/*
 * statement.c
 *	  The few SQL statements that C runs again and again, with kept plans.
 *
 * A plan that is kept is made when the tables may still be empty, and would
 * then scan them as a whole for ever after (measured: 193 µs a step instead of
 * 6).  All of these statements go in by a key, so the planner is told while it
 * works on one of them that nothing else is wanted.  What is not wanted costs
 * 10^10 where there is no other way, which would have a session that has jit on
 * compile for half a second: that is off, too.  The switches are set as
 * variables and not through SET, which costs more than some of the statements;
 * handlers never see them, for nothing of theirs runs inside.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "executor/spi.h"
#include "jit/jit.h"
#include "optimizer/cost.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "statement.h"

typedef struct PlannerSwitches
{
	bool		seqscan;
	bool		bitmapscan;
	bool		hashjoin;
	bool		mergejoin;
	bool		jit;
} PlannerSwitches;

static PlannerSwitches
planner_only_keys(void)
{
	PlannerSwitches before = {
		enable_seqscan, enable_bitmapscan, enable_hashjoin, enable_mergejoin, jit_enabled
	};

	jit_enabled = false;
	enable_seqscan = enable_bitmapscan = enable_hashjoin = enable_mergejoin = false;
	return before;
}

static void
planner_restore(PlannerSwitches before)
{
	enable_seqscan = before.seqscan;
	enable_bitmapscan = before.bitmapscan;
	enable_hashjoin = before.hashjoin;
	enable_mergejoin = before.mergejoin;
	jit_enabled = before.jit;
}

/*
 * Where handlers run in a row, their search_path is in force between them, too
 * (executor.c).  Our statements must not be read by it: what stands in it could
 * take the place of the operators that they mean.
 */
int
statement_safe_path(void)
{
	int			level;

	if (strcmp(namespace_search_path, SAFE_SEARCH_PATH) == 0)
		return 0;
	level = NewGUCNestLevel();
	(void) set_config_option("search_path", SAFE_SEARCH_PATH, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	return level;
}

void
statement_restore_path(int level)
{
	if (level > 0)
		AtEOXact_GUC(true, level);
}

uint64
statement_run(Statement *statement, Datum *values, const char *nulls)
{
	PlannerSwitches before = planner_only_keys();
	int			level = statement_safe_path();
	int			rc = 0;

	PG_TRY();
	{
		if (statement->plan == NULL)
		{
			SPIPlanPtr	plan = SPI_prepare_cursor(statement->sql, statement->arg_count,
												  statement->arg_types,
												  CURSOR_OPT_GENERIC_PLAN);

			if (plan == NULL || SPI_keepplan(plan) != 0)
				elog(ERROR, "could not prepare \"%s\": %s", statement->sql,
					 SPI_result_code_string(SPI_result));
			statement->plan = plan;
		}
		/*
		 * Under REPEATABLE READ, too, the engine's tables are taken as they
		 * are: what others did to them is no business of the caller's snapshot.
		 */
		if (IsolationUsesXactSnapshot())
			rc = SPI_execute_snapshot(statement->plan, values, nulls, GetLatestSnapshot(),
									  InvalidSnapshot, false, true, 0);
		else
			rc = SPI_execute_plan(statement->plan, values, nulls, false, 0);
	}
	PG_FINALLY();
	{
		planner_restore(before);
	}
	PG_END_TRY();
	statement_restore_path(level);

	if (rc < 0)
		elog(ERROR, "could not run \"%s\": %s", statement->sql, SPI_result_code_string(rc));
	return SPI_processed;
}

Datum
row_value(uint64 row, int column, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, isnull);
}

char *
row_text(uint64 row, int column, MemoryContext context)
{
	bool		isnull;
	Datum		value = row_value(row, column, &isnull);

	return isnull ? NULL : MemoryContextStrdup(context, TextDatumGetCString(value));
}

Jsonb *
row_jsonb(uint64 row, int column, MemoryContext context)
{
	bool		isnull;
	Datum		value = row_value(row, column, &isnull);
	MemoryContext before;
	Jsonb	   *copy;

	if (isnull)
		return NULL;
	before = MemoryContextSwitchTo(context);
	copy = (Jsonb *) PG_DETOAST_DATUM_COPY(value);
	MemoryContextSwitchTo(before);
	return copy;
}

TimestampTz
row_time(uint64 row, int column)
{
	bool		isnull;
	Datum		value = row_value(row, column, &isnull);

	return isnull ? 0 : DatumGetTimestampTz(value);
}

Datum
ids_argument(const int64 *ids, int count)
{
	Datum	   *elements = palloc(Max(count, 1) * sizeof(Datum));

	for (int i = 0; i < count; i++)
		elements[i] = Int64GetDatum(ids[i]);
	return PointerGetDatum(construct_array(elements, count, INT8OID, sizeof(int64),
										   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

int64 *
ids_of(Datum datum, int *count)
{
	ArrayType  *array = DatumGetArrayTypeP(datum);

	if (ARR_ELEMTYPE(array) != INT8OID || array_contains_nulls(array))
		elog(ERROR, "these are no ids");
	*count = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
	return (int64 *) ARR_DATA_PTR(array);
}

int
array_argument(FunctionCallInfo fcinfo, int arg, Datum **elements, bool **nulls)
{
	ArrayType  *array;
	int16		len;
	bool		byval;
	char		align;
	int			count;

	*elements = NULL;
	*nulls = NULL;
	if (PG_ARGISNULL(arg))
		return -1;
	array = PG_GETARG_ARRAYTYPE_P(arg);
	get_typlenbyvalalign(ARR_ELEMTYPE(array), &len, &byval, &align);
	deconstruct_array(array, ARR_ELEMTYPE(array), len, byval, align, elements, nulls, &count);
	return count;
}
