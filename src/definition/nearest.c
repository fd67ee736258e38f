/*
 * nearest.c
 *	  Which known name did somebody mean?
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/varlena.h"

/* More changes than that are not a slip of the pen. */
#define MAX_CHANGES			4

/* Longer ones are not compared: the time grows with the square. */
#define MAX_NAME_BYTES		1024

PG_FUNCTION_INFO_V1(tasker_nearest);

/*
 * The candidate that the fewest changes of a character turn into the name, the
 * first of several; NULL where none is near.  At most every second character
 * may differ, so that short names do not attract everything.
 */
Datum
tasker_nearest(PG_FUNCTION_ARGS)
{
	text	   *name = PG_GETARG_TEXT_PP(0);
	ArrayType  *array = PG_GETARG_ARRAYTYPE_P(1);
	char	   *name_data = VARDATA_ANY(name);
	int			name_bytes = VARSIZE_ANY_EXHDR(name);
	int			name_chars;
	int			allowed;
	Datum		best = (Datum) 0;
	Datum	   *candidates;
	bool	   *nulls;
	int			count;

	if (name_bytes == 0 || name_bytes > MAX_NAME_BYTES)
		PG_RETURN_NULL();
	name_chars = pg_mbstrlen_with_len(name_data, name_bytes);
	allowed = Min(MAX_CHANGES, name_chars / 2);

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT,
					  &candidates, &nulls, &count);
	for (int i = 0; i < count && allowed > 0; i++)
	{
		text	   *candidate;
		int			bytes;
		int			changes;

		CHECK_FOR_INTERRUPTS();
		if (nulls[i])
			continue;
		candidate = DatumGetTextPP(candidates[i]);
		bytes = VARSIZE_ANY_EXHDR(candidate);
		if (bytes == 0 || bytes > MAX_NAME_BYTES)
			continue;
		changes = varstr_levenshtein_less_equal(name_data, name_bytes,
												VARDATA_ANY(candidate), bytes,
												1, 1, 1, allowed, true);
		if (changes <= allowed)
		{
			best = candidates[i];
			allowed = changes - 1;	/* only a nearer one may follow */
		}
	}

	if (best == (Datum) 0)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(DatumGetTextPP(best));
}
