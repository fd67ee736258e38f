/*
 * suspect.c
 *	  Steps of which an executor has died.
 *
 * What a dead executor was running is found in the file that flight.c keeps,
 * before anybody claims anything, and written down in tasker.crash.  From then
 * on every executor knows the step: it is run alone, later each time, and not
 * at all any more when it has reached tasker.max_crashes.
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "engine/executor.h"
#include "engine/flight.h"
#include "engine/suspect.h"
#include "engine/worker.h"
#include "statement.h"
#include "tasker.h"

/* After a crash in the middle of saving: so many steps are run alone. */
#define CAREFUL_STEPS		200

/*
 * A crash, or a step that outlived its timeout.  One that had been committed
 * when its executor died has ended, and nobody would ever clear it.
 */
static Statement count_crash = {
	.sql = "INSERT INTO tasker.crash AS c (task_id, step_no, crashes, last_at, overran) "
	"SELECT $1, $2, CASE WHEN $4 THEN 0 ELSE 1 END, $3, $4 "
	"WHERE NOT EXISTS (SELECT FROM tasker.step AS s "
	"WHERE s.task_id = $1 AND s.step_no = $2 AND s.finished_at IS NOT NULL) "
	"ON CONFLICT (task_id, step_no) "
	"DO UPDATE SET crashes = c.crashes + EXCLUDED.crashes, last_at = EXCLUDED.last_at, "
	"overran = EXCLUDED.overran "
	"RETURNING crashes",
	.arg_count = 4,
	.arg_types = {INT8OID, INT2OID, TIMESTAMPTZOID, BOOLOID},
};

static Statement read_suspects = {
	.sql = "SELECT task_id, step_no FROM tasker.crash ORDER BY last_at DESC LIMIT 1000",
};

static Statement read_crash = {
	.sql = "SELECT crashes, last_at, overran FROM tasker.crash "
	"WHERE task_id = $1 AND step_no = $2",
	.arg_count = 2,
	.arg_types = {INT8OID, INT2OID},
};

static Statement forget_crash = {
	.sql = "DELETE FROM tasker.crash WHERE task_id = $1 AND step_no = $2",
	.arg_count = 2,
	.arg_types = {INT8OID, INT2OID},
};

/* A step of which it is known that an executor died of it. */
typedef struct Suspect
{
	int64		task_id;
	int16		step_no;
} Suspect;

/* tasker.crash as it was when `suspicions` was suspicions_known. */
static Suspect *suspects = NULL;
static int	suspect_count = 0;
static uint32 suspicions_known = 0;
static bool suspects_read = false;

/*
 * Deals with what an executor was running when it died: it is written down.
 */
static void
judge(const FlightSuspect *suspect)
{
	Datum		values[4] = {Int64GetDatum(suspect->task_id), Int16GetDatum(suspect->step_no),
		TimestampTzGetDatum(tasker_now()), BoolGetDatum(suspect->overran)};
	bool		isnull;
	int			crashes = 0;

	if (suspect->task_id == 0 || suspect->step_no == 0)
	{
		pg_atomic_write_u32(&my_database->careful, CAREFUL_STEPS);
		return;
	}
	worker_begin();
	if (statement_run(&count_crash, values, NULL) > 0)
		crashes = DatumGetInt32(row_value(0, 1, &isnull));
	worker_commit();
	if (crashes == 0 || suspect->overran)
		return;
	ereport(LOG,
			errmsg("an executor crashed while it ran step %d of task " INT64_FORMAT,
				   suspect->step_no, suspect->task_id),
			errdetail("That happened %d times; at %d the step goes to error.",
					  crashes, tasker_max_crashes));
}

/*
 * Deals with what dead executors left.  Nobody claims anything before that is
 * done, so that a step that brings the server down is known by then: whoever
 * comes first does it, and the others wait here.
 */
void
suspects_judge(void)
{
	MemoryContext caller = CurrentMemoryContext;
	FlightSuspect suspect;
	LOCKTAG		tag;
	uint32		unjudged;
	volatile bool failed = false;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, 0, 5);
	worker_begin();
	executor_set_lock_timeout(0);
	(void) LockAcquire(&tag, ExclusiveLock, true, false);
	worker_commit();

	/* Those that are counted here are found below, and maybe others. */
	unjudged = pg_atomic_read_u32(&my_database->unjudged);
	pg_read_barrier();
	while (!failed && flight_next_suspect(false, &suspect))
	{
		PG_TRY();
		{
			judge(&suspect);
		}
		PG_CATCH();
		{
			/* Which lets go of the lock, too.  Not counted, but not tried for ever. */
			FreeErrorData(executor_after_error(caller));
			failed = true;
		}
		PG_END_TRY();
		MemoryContextSwitchTo(caller);
		flight_forget(&suspect);
		pg_atomic_fetch_add_u32(&my_database->suspicions, 1);
	}
	(void) pg_atomic_compare_exchange_u32(&my_database->unjudged, &unjudged, 0);
	if (!failed)
		LockRelease(&tag, ExclusiveLock, true);
}

/*
 * Reads which steps are suspects, where that has changed.
 */
void
suspects_refresh(void)
{
	uint32		now = pg_atomic_read_u32(&my_database->suspicions);
	uint64		rows;
	bool		isnull;

	if (suspects_read && now == suspicions_known)
		return;
	rows = statement_run(&read_suspects, NULL, NULL);
	suspect_count = 0;
	if (suspects != NULL)
		pfree(suspects);
	suspects = MemoryContextAlloc(TopMemoryContext, Max(rows, 1) * sizeof(Suspect));
	for (uint64 row = 0; row < rows; row++)
	{
		suspects[row].task_id = DatumGetInt64(row_value(row, 1, &isnull));
		suspects[row].step_no = DatumGetInt16(row_value(row, 2, &isnull));
	}
	suspect_count = rows;
	SPI_freetuptable(SPI_tuptable);
	suspicions_known = now;
	suspects_read = true;
}

/*
 * Whether an executor died of the step.  A wrong yes costs a look at the table.
 */
bool
suspects_has(int64 task_id, int step_no)
{
	for (int i = 0; i < suspect_count; i++)
		if (suspects[i].task_id == task_id && suspects[i].step_no == step_no)
			return true;
	return false;
}

/*
 * What is known of the step; false: another executor has cleared it.
 */
bool
suspects_look_up(int64 task_id, int step_no, int *crashes, TimestampTz *last_at, bool *overran)
{
	Datum		key[2] = {Int64GetDatum(task_id), Int16GetDatum(step_no)};
	bool		found = statement_run(&read_crash, key, NULL) > 0;
	bool		isnull;

	if (found)
	{
		*crashes = DatumGetInt32(row_value(0, 1, &isnull));
		*last_at = DatumGetTimestampTz(row_value(0, 2, &isnull));
		*overran = DatumGetBool(row_value(0, 3, &isnull));
	}
	SPI_freetuptable(SPI_tuptable);
	return found;
}

/*
 * The step has come to an end; to be announced when that is committed.
 */
void
suspects_clear(int64 task_id, int step_no)
{
	Datum		key[2] = {Int64GetDatum(task_id), Int16GetDatum(step_no)};

	statement_run(&forget_crash, key, NULL);
}

void
suspects_announce(void)
{
	pg_atomic_fetch_add_u32(&my_database->suspicions, 1);
}
