/*
 * log.c
 *	  What is done to a registry, as lines of JSON in the server log.
 *
 * That something was registered is said when the transaction has committed, and
 * not at all where it, or its savepoint, is rolled back: until then the lines
 * wait here.  A transaction that is prepared says nothing, for it is another
 * session that commits it; its rows are in tasker.registry_log all the same.
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/pg_prng.h"
#include "fmgr.h"
#include "nodes/pg_list.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "tasker.h"

PG_FUNCTION_INFO_V1(tasker_log_registry);
PG_FUNCTION_INFO_V1(tasker_correlation_id);

/* tsk_, a time in base 36, an underscore, and so many characters. */
#define RANDOM_CHARACTERS	6

typedef struct Line
{
	int			level;			/* nesting level of the (sub)transaction it belongs to */
	char	   *text;
} Line;

static List *lines = NIL;		/* in the transaction's context; levels never fall */
static char correlation_id[64] = "";	/* of this transaction; empty: none yet */

static void
emit(const char *line)
{
	ereport(LOG_SERVER_ONLY,
			errmsg_internal("%s", line),
			errhidestmt(true),
			errhidecontext(true));
}

static void
lines_at_xact_end(XactEvent event, void *arg)
{
	ListCell   *cell;

	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	if (event == XACT_EVENT_COMMIT)
		foreach(cell, lines)
			emit(((Line *) lfirst(cell))->text);
	lines = NIL;
	correlation_id[0] = '\0';
}

static void
lines_at_subxact_end(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();

	if (event == SUBXACT_EVENT_ABORT_SUB)
		while (lines != NIL && ((Line *) llast(lines))->level >= level)
			lines = list_delete_last(lines);
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
		for (int i = list_length(lines) - 1; i >= 0; i--)
		{
			Line	   *line = list_nth(lines, i);

			if (line->level < level)
				break;
			line->level = level - 1;
		}
}

static void
hear_of_ends(void)
{
	static bool registered = false;

	if (registered)
		return;
	RegisterXactCallback(lines_at_xact_end, NULL);
	RegisterSubXactCallback(lines_at_subxact_end, NULL);
	registered = true;
}

/*
 * tasker._log_registry(line text, at_commit boolean)
 */
Datum
tasker_log_registry(PG_FUNCTION_ARGS)
{
	char	   *said = text_to_cstring(PG_GETARG_TEXT_PP(0));
	MemoryContext before;
	Line	   *line;

	if (!tasker_log_registries)
		PG_RETURN_VOID();
	if (!PG_GETARG_BOOL(1))
	{
		emit(said);
		PG_RETURN_VOID();
	}
	hear_of_ends();
	before = MemoryContextSwitchTo(TopTransactionContext);
	line = palloc(sizeof(Line));
	line->level = GetCurrentTransactionNestLevel();
	line->text = pstrdup(said);
	lines = lappend(lines, line);
	MemoryContextSwitchTo(before);
	PG_RETURN_VOID();
}

static void
make_correlation_id(void)
{
	static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyz";
	char		number[16];
	char	   *place = number + sizeof(number) - 1;
	/* Milliseconds since 1970. */
	uint64		ms = tasker_now() / 1000 +
		(POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * INT64CONST(86400000);
	char		random[RANDOM_CHARACTERS + 1];

	*place = '\0';
	for (; ms > 0; ms /= 36)
		*--place = digits[ms % 36];
	for (int i = 0; i < RANDOM_CHARACTERS; i++)
		random[i] = digits[pg_prng_uint64_range(&pg_global_prng_state, 0, 35)];
	random[RANDOM_CHARACTERS] = '\0';
	snprintf(correlation_id, sizeof(correlation_id), "tsk_%s_%s", place, random);
}

/*
 * tasker._correlation_id()
 *
 * The setting, or one for the whole transaction: what is registered together
 * belongs together.
 */
Datum
tasker_correlation_id(PG_FUNCTION_ARGS)
{
	if (tasker_correlation != NULL && tasker_correlation[0] != '\0')
		PG_RETURN_TEXT_P(cstring_to_text(tasker_correlation));
	if (correlation_id[0] == '\0')
	{
		hear_of_ends();
		make_correlation_id();
	}
	PG_RETURN_TEXT_P(cstring_to_text(correlation_id));
}
