/*
 * notifier.c
 *	  Follows the log and rings the doorbells: NOTIFY tasker_events for what
 *	  happened, NOTIFY tasker_steps for what waits for workers outside.
 *
 * It is the only one who calls NOTIFY, so that no other transaction takes its
 * global lock at commit.
 *
 * The cursor is a snapshot.  A round takes the next one and reads the rows that
 * are visible in it and were not in the last: those of the transactions that
 * the last one had not seen begin, and of those that it saw running and that
 * run no more.  An id begins with its transaction's, so both are ranges of the
 * primary key.  A row that commits late is found when it commits, and nobody's
 * open transaction holds up the others' events.
 *
 * A doorbell is no record: what is announced while the notifier is down, from a
 * crash until its next start, is not announced again.  Subscriptions are for
 * those who must not miss anything.
 */
#include "postgres.h"

#include "access/brin.h"
#include "access/genam.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_am_d.h"
#include "catalog/pg_type.h"
#include "commands/async.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "engine/activation.h"
#include "engine/processes.h"
#include "engine/worker.h"
#include "state/state.h"
#include "state/store.h"
#include "tasker.h"

#define EVENTS_CHANNEL	"tasker_events"
#define STEPS_CHANNEL	"tasker_steps"

#define ROUND_MS		10		/* under load, a round in this time */
#define RETRY_MS		1000	/* after a round that failed */
#define COMPLAIN_MS		60000	/* about that, at the most */
#define WHOLE_MS		1000	/* between looks whether a restore is whole */

/* NOTIFY takes less than 8,000 bytes. */
#define MAX_PAYLOAD		7900
/* Api steps that are looked at for their namespaces. */
#define API_STEPS		1000

#define LOG_ID_BITS		20

#define INDEX_LOG_MS	1000	/* between looks at the log's new pages */
#define INDEX_LOG_MOST	1000	/* ranges of pages at a time */

/* What was visible when the last round read. */
typedef struct Cursor
{
	bool		valid;
	int64		base;			/* added to transaction ids in log ids */
	uint64		xmax;			/* first transaction id that had not begun */
	uint64	   *running;		/* ids below it that had not ended, rising */
	int			running_count;
} Cursor;

/* Ranges of log ids, from low up to, but without, high. */
typedef struct Ranges
{
	Datum	   *low;
	Datum	   *high;
	int			count;
} Ranges;

typedef struct LogRow
{
	int64		id;
	TimestampTz at;
	int64		task_id;
	int16		step_no;
	int			from_state;
	int			to_state;
} LogRow;

static Cursor cursor;

/* The next cursor while a round is under way; it counts when the round commits. */
static Cursor upcoming;

/* Name of the event of each change; STATE_NONE is index 0. */
static char *event_name[2][STEP_STATES + 1][STEP_STATES];

static TimestampTz complained_at;

/* Pages of the log from here on are not in its BRIN index yet; or invalid. */
static BlockNumber log_indexed_to = InvalidBlockNumber;
static TimestampTz log_indexed_at = 0;

static WorkerSlot *
notifier_slot(TaskerDatabase *database, int number)
{
	return &database->notifier;
}

static int
compare_uint64(const void *a, const void *b)
{
	uint64		x = *(const uint64 *) a;
	uint64		y = *(const uint64 *) b;

	return x < y ? -1 : x > y;
}

/* In the order of what happened; transactions' ids do not give it. */
static int
compare_rows(const void *a, const void *b)
{
	const LogRow *x = a;
	const LogRow *y = b;

	if (x->at != y->at)
		return x->at < y->at ? -1 : 1;
	return x->id < y->id ? -1 : x->id > y->id;
}

/* A transaction id of a snapshot with its epoch: none is above the next one. */
static uint64
full_xid(TransactionId xid, FullTransactionId next)
{
	uint32		epoch = EpochFromFullTransactionId(next);

	if (xid > XidFromFullTransactionId(next))
		epoch--;
	return U64FromFullTransactionId(FullTransactionIdFromEpochAndXid(epoch, xid));
}

/* Makes a cursor of the active snapshot; it outlives the transaction. */
static void
cursor_take(Cursor *to)
{
	Snapshot	snapshot = GetActiveSnapshot();
	FullTransactionId next = ReadNextFullTransactionId();

	if (to->running != NULL)
		pfree(to->running);
	to->running = MemoryContextAlloc(TopMemoryContext,
									 Max(snapshot->xcnt, 1) * sizeof(uint64));
	to->xmax = full_xid(snapshot->xmax, next);
	to->running_count = snapshot->xcnt;
	for (int i = 0; i < snapshot->xcnt; i++)
		to->running[i] = full_xid(snapshot->xip[i], next);
	qsort(to->running, to->running_count, sizeof(uint64), compare_uint64);
	to->base = engine_xid_base();
	to->valid = true;
}

/* The round has committed: what it read is behind us. */
static void
cursor_advance(void)
{
	Cursor		old = cursor;

	cursor = upcoming;
	upcoming = old;
	upcoming.valid = false;
}

/* Adds the log ids of the transactions from first up to, but without, last. */
static void
add_range(Ranges *ranges, int64 base, uint64 first, uint64 last)
{
	ranges->low[ranges->count] = Int64GetDatum(((int64) first + base) << LOG_ID_BITS);
	ranges->high[ranges->count] = Int64GetDatum(((int64) last + base) << LOG_ID_BITS);
	ranges->count++;
}

/* Log ids of what was not visible to the one cursor and may be to the other. */
static void
find_ranges(const Cursor *from, const Cursor *to, Ranges *ranges)
{
	ranges->low = palloc((from->running_count + 1) * sizeof(Datum));
	ranges->high = palloc((from->running_count + 1) * sizeof(Datum));
	ranges->count = 0;
	for (int i = 0; i < from->running_count; i++)
	{
		uint64		xid = from->running[i];

		if (bsearch(&xid, to->running, to->running_count, sizeof(uint64), compare_uint64) == NULL)
			add_range(ranges, to->base, xid, xid + 1);
	}
	if (from->xmax < to->xmax)
		add_range(ranges, to->base, from->xmax, to->xmax);
}

/* Prepares a query once in the life of the process. */
static SPIPlanPtr
prepare_once(SPIPlanPtr *plan, const char *query, int nargs, Oid *types)
{
	if (*plan == NULL)
	{
		SPIPlanPtr	prepared = SPI_prepare(query, nargs, types);

		if (prepared == NULL || SPI_keepplan(prepared) != 0)
			elog(ERROR, "a query of the notifier could not be prepared: %s", query);
		*plan = prepared;
	}
	return *plan;
}

/* Runs a query in the active snapshot, so that it agrees with the cursor. */
static void
run_query(SPIPlanPtr plan, Datum *arguments)
{
	if (SPI_execute_plan(plan, arguments, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "a query of the notifier failed");
}

static Datum
result(uint64 row, int number, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, number, isnull);
}

/* Reads the names of the events, once: they are compiled in. */
static void
read_event_names(void)
{
	if (SPI_execute("SELECT (r.machine = 'step')::integer, "
					"       coalesce(tasker._state_code(r.machine, r.from_state), -1), "
					"       tasker._state_code(r.machine, r.to_state), "
					"       r.event "
					"FROM tasker._transition_rules() AS r "
					"WHERE r.event IS NOT NULL", true, 0) != SPI_OK_SELECT)
		elog(ERROR, "the names of the events could not be read");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		int			machine = DatumGetInt32(result(i, 1, &isnull));
		int			from = DatumGetInt32(result(i, 2, &isnull));
		int			to = DatumGetInt16(result(i, 3, &isnull));

		if (event_name[machine][from + 1][to] == NULL)
			event_name[machine][from + 1][to] =
				MemoryContextStrdup(TopMemoryContext,
									TextDatumGetCString(result(i, 4, &isnull)));
	}
}

/* Announces one change. */
static void
ring_event(const LogRow *row)
{
	const char *name = event_name[row->step_no > 0][row->from_state + 1][row->to_state];
	char		payload[512];
	int			length;

	if (name == NULL)
		return;
	length = snprintf(payload, sizeof(payload),
					  "{\"event_id\":\"" INT64_FORMAT "\",\"event\":\"%s\",\"task_id\":" INT64_FORMAT,
					  row->id, name, row->task_id);
	if (row->step_no > 0)
		length += snprintf(payload + length, sizeof(payload) - length,
						   ",\"step_id\":" INT64_FORMAT,
						   row->task_id << TASKER_STEP_BITS | row->step_no);
	strlcpy(payload + length, "}", sizeof(payload) - length);
	Async_Notify(EVENTS_CHANNEL, payload);
}

/*
 * Announces many changes by one notification: from the first id that their
 * transactions can have given to the highest that they gave.
 */
static void
ring_many(Datum *arguments)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {INT8ARRAYOID, INT8ARRAYOID};
	bool		isnull;
	char		payload[256];

	run_query(prepare_once(&plan,
						   "SELECT min(b.low), max(b.high) "
						   "FROM unnest($1, $2) AS r (low, high) "
						   "CROSS JOIN LATERAL ("
						   "    SELECT min(l.id) >> 20 << 20 AS low, max(l.id) AS high "
						   "    FROM tasker.log AS l "
						   "    WHERE l.id >= r.low AND l.id < r.high) AS b",
						   lengthof(types), types), arguments);
	snprintf(payload, sizeof(payload),
			 "{\"event\":\"*\",\"from\":\"" INT64_FORMAT "\",\"to\":\"" INT64_FORMAT "\"}",
			 DatumGetInt64(result(0, 1, &isnull)), DatumGetInt64(result(0, 2, &isnull)));
	Async_Notify(EVENTS_CHANNEL, payload);
}

/*
 * Takes the changes out of SPI: a row that stands for two makes two.  Returns
 * their number.
 */
static uint64
copy_rows(uint64 count, LogRow *rows)
{
	uint64		n = 0;

	for (uint64 i = 0; i < count; i++)
	{
		LogRow	   *row = &rows[n++];
		bool		isnull;
		Datum		value;

		row->id = DatumGetInt64(result(i, 1, &isnull));
		row->at = DatumGetTimestampTz(result(i, 2, &isnull));
		row->task_id = DatumGetInt64(result(i, 3, &isnull));
		row->step_no = DatumGetInt16(result(i, 4, &isnull));
		value = result(i, 5, &isnull);
		row->from_state = isnull ? STATE_NONE : DatumGetInt16(value);
		row->to_state = DatumGetInt16(result(i, 6, &isnull));
		value = result(i, 7, &isnull);
		if (isnull)
			continue;
		rows[n] = *row;
		rows[n].id = DatumGetInt64(value);
		rows[n].at = DatumGetTimestampTz(result(i, 8, &isnull));
		rows[n].to_state = row->from_state = STEP_IN_PROGRESS;
		n++;
	}
	return n;
}

/* Announces what is new in these ranges of the log. */
static void
ring_events(const Ranges *ranges)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {INT8ARRAYOID, INT8ARRAYOID, INT8OID};
	Datum		arguments[3];
	LogRow	   *rows;
	uint64		count;

	if (ranges->count == 0)
		return;
	arguments[0] = PointerGetDatum(construct_array(ranges->low, ranges->count, INT8OID,
												   sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	arguments[1] = PointerGetDatum(construct_array(ranges->high, ranges->count, INT8OID,
												   sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	arguments[2] = Int64GetDatum((int64) tasker_notify_limit + 1);
	run_query(prepare_once(&plan,
						   "SELECT l.id, l.at, l.task_id, l.step_no, l.from_state, l.to_state, "
						   "       l.start_id, l.start_at "
						   "FROM unnest($1, $2) AS r (low, high) "
						   "CROSS JOIN LATERAL ("
						   "    SELECT * "
						   "    FROM tasker.log AS l "
						   "    WHERE l.id >= r.low AND l.id < r.high "
						   "    LIMIT $3) AS l "
						   "LIMIT $3",
						   lengthof(types), types), arguments);
	rows = palloc(2 * SPI_processed * sizeof(LogRow) + 1);
	count = copy_rows(SPI_processed, rows);
	if (count > (uint64) tasker_notify_limit)
	{
		ring_many(arguments);
		return;
	}
	qsort(rows, count, sizeof(LogRow), compare_rows);
	for (uint64 i = 0; i < count; i++)
		ring_event(&rows[i]);
}

/* Opens a payload of tasker_steps. */
static void
open_steps(StringInfo payload, const char *namespace)
{
	resetStringInfo(payload);
	appendStringInfoString(payload, "{\"namespace\":");
	escape_json(payload, namespace);
	appendStringInfoString(payload, ",\"handlers\":[");
}

/* Announces the waiting handlers of one namespace, in as many pieces as it takes. */
static void
ring_namespace(const char *namespace, ArrayType *handlers)
{
	StringInfoData payload;
	StringInfoData name;
	Datum	   *names;
	int			count;
	int			listed = 0;

	initStringInfo(&payload);
	initStringInfo(&name);
	deconstruct_array(handlers, TEXTOID, -1, false, TYPALIGN_INT, &names, NULL, &count);
	open_steps(&payload, namespace);
	for (int i = 0; i < count; i++)
	{
		resetStringInfo(&name);
		escape_json(&name, TextDatumGetCString(names[i]));
		if (listed > 0 && payload.len + name.len > MAX_PAYLOAD)
		{
			appendStringInfoString(&payload, "]}");
			Async_Notify(STEPS_CHANNEL, payload.data);
			open_steps(&payload, namespace);
			listed = 0;
		}
		/* A name that is too long for any notification is not announced. */
		if (payload.len + name.len > MAX_PAYLOAD)
			continue;
		if (listed > 0)
			appendStringInfoChar(&payload, ',');
		appendBinaryStringInfo(&payload, name.data, name.len);
		listed++;
	}
	if (listed > 0)
	{
		appendStringInfoString(&payload, "]}");
		Async_Notify(STEPS_CHANNEL, payload.data);
	}
}

/*
 * Announces what waits for workers outside.  It goes from lane to lane of the
 * queue's index, so a backlog of millions costs what one row of each costs.
 */
static void
ring_steps(void)
{
	static SPIPlanPtr plan = NULL;
	char		query[2048];

	snprintf(query, sizeof(query),
			 "WITH RECURSIVE waiting (lane) AS ("
			 "    SELECT (SELECT q.lane FROM tasker.queue AS q WHERE q.lane >= %d "
			 "            ORDER BY q.lane LIMIT 1) "
			 "    UNION ALL "
			 "    SELECT (SELECT q.lane FROM tasker.queue AS q WHERE q.lane > w.lane "
			 "            ORDER BY q.lane LIMIT 1) "
			 "    FROM waiting AS w "
			 "    WHERE w.lane IS NOT NULL"
			 "), handler AS ("
			 "    SELECT h.namespace, h.name "
			 "    FROM waiting AS w "
			 "    JOIN tasker.handler AS h ON h.handler_id = w.lane "
			 "    WHERE w.lane >= %d "
			 "    UNION "
			 "    SELECT p.namespace, 'api' "
			 "    FROM (SELECT q.task_id FROM tasker.queue AS q WHERE q.lane = %d "
			 "          ORDER BY q.lane, q.rank, q.due LIMIT %d) AS a "
			 "    JOIN tasker.task AS t USING (task_id) "
			 "    JOIN tasker.plan AS p USING (plan_id) "
			 "    WHERE EXISTS (SELECT FROM waiting AS w WHERE w.lane = %d)"
			 ") "
			 "SELECT h.namespace, array_agg(h.name ORDER BY h.name) "
			 "FROM handler AS h "
			 "GROUP BY h.namespace "
			 "ORDER BY h.namespace",
			 LANE_API, LANE_EXTERNAL_MIN, LANE_API, API_STEPS, LANE_API);
	run_query(prepare_once(&plan, query, 0, NULL), NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		char	   *namespace = TextDatumGetCString(result(i, 1, &isnull));

		ring_namespace(namespace, DatumGetArrayTypeP(result(i, 2, &isnull)));
	}
}

/* Whether a restore of this database has come to its end. */
static bool
restore_is_whole(void)
{
	if (my_database->installer != 0)
		return false;
	if (SPI_execute("SELECT "
					"FROM pg_stat_activity AS a "
					"WHERE a.datname = current_database() "
					"  AND a.application_name IN ('pg_restore', 'pg_dump', 'pg_dumpall')",
					true, 1) != SPI_OK_SELECT)
		elog(ERROR, "the sessions of the database could not be read");
	return SPI_processed == 0;
}

/*
 * The engine may not run here.  Says so once, and activates it by itself where
 * that is wanted and the restore is whole.  Returns when to look again.
 */
static TimestampTz
attend_stopped(EngineState state)
{
	static EngineState said = ENGINE_ACTIVE;

	if (state != said && state == ENGINE_DEACTIVATED)
		ereport(LOG,
				(errmsg("tasker is stopped in database \"%s\": it was deactivated",
						NameStr(my_database->name)),
				 errhint("SELECT tasker.activate() lets it run.")));
	if (state != said && state == ENGINE_RESTORED)
		ereport(LOG,
				(errmsg("tasker is stopped in database \"%s\": it was restored or copied from another one",
						NameStr(my_database->name)),
				 errdetail("Its tasks may be run by the original as well."),
				 errhint("SELECT tasker.activate() lets it run here; tasker.activate_restored does so in every copy.")));
	said = state;
	if (state == ENGINE_ACTIVE)
		return PG_INT64_MAX;

	cursor.valid = false;
	if (state != ENGINE_RESTORED || !tasker_activate_restored)
		return PG_INT64_MAX;
	if (!restore_is_whole())
		return TimestampTzPlusMilliseconds(tasker_now(), WHOLE_MS);
	if (SPI_execute("SELECT tasker.activate()", false, 0) != SPI_OK_SELECT)
		elog(ERROR, "tasker.activate() could not be run");
	ereport(LOG,
			(errmsg("tasker activated itself in database \"%s\", which was restored or copied",
					NameStr(my_database->name)),
			 errdetail("tasker.activate_restored is on.")));
	return PG_INT64_MAX;
}

/*
 * One round, in one transaction.  The flags are cleared before anything is
 * read, so that what commits later raises them again.
 */
static TimestampTz
do_round(void)
{
	static bool started = false;
	TimestampTz wake;
	EngineState state;
	bool		steps;

	worker_begin();
	if (!started)
		read_event_names();
	steps = pg_atomic_exchange_u32(&my_database->external_ready, 0) != 0 || !cursor.valid;
	(void) pg_atomic_exchange_u32(&my_database->log_written, 0);
	state = engine_state();
	wake = attend_stopped(state);
	if (state == ENGINE_ACTIVE)
	{
		/* The snapshot that worker_begin() took may be older than the flags. */
		PushActiveSnapshot(GetLatestSnapshot());
		cursor_take(&upcoming);
		if (cursor.valid && cursor.base == upcoming.base)
		{
			Ranges		ranges;

			find_ranges(&cursor, &upcoming, &ranges);
			ring_events(&ranges);
		}
		if (steps)
			ring_steps();
		PopActiveSnapshot();
	}
	worker_commit();
	started = true;
	if (state == ENGINE_ACTIVE)
		cursor_advance();
	return wake;
}

/*
 * Has the new pages of the log taken into the index by tasks.  A range of pages
 * that is not in it is read by every search; autovacuum would see to it in the
 * end, but takes note of a few hundred such ranges and no more.  What was there
 * before this process started is left to it.
 */
static void
index_log_pages(Relation log, Relation index)
{
	BlockNumber size = BrinGetPagesPerRange(index);
	BlockNumber end = RelationGetNumberOfBlocks(log) / size * size;

	if (log_indexed_to == InvalidBlockNumber || log_indexed_to > end)
		log_indexed_to = end;
	for (int i = 0; i < INDEX_LOG_MOST && log_indexed_to < end; i++)
	{
		CHECK_FOR_INTERRUPTS();
		(void) OidFunctionCall2(F_BRIN_SUMMARIZE_RANGE, ObjectIdGetDatum(RelationGetRelid(index)),
								Int64GetDatum((int64) log_indexed_to));
		log_indexed_to += size;
	}
}

static void
index_log(void)
{
	TimestampTz now = GetCurrentTimestamp();
	Oid			log;
	Oid			index;

	if (!TimestampDifferenceExceeds(log_indexed_at, now, INDEX_LOG_MS))
		return;
	log_indexed_at = now;
	worker_begin();
	log = store_relation("log");
	index = get_relname_relid("log_task", get_namespace_oid("tasker", false));
	/* A vacuum does the same, and nobody waits for it. */
	if (OidIsValid(index) && ConditionalLockRelationOid(log, ShareUpdateExclusiveLock))
	{
		Relation	table = table_open(log, NoLock);
		Relation	brin = index_open(index, AccessShareLock);

		if (brin->rd_rel->relam == BRIN_AM_OID)
			index_log_pages(table, brin);
		index_close(brin, NoLock);
		table_close(table, NoLock);
	}
	worker_commit();
}

/*
 * A round that may fail: the queue of notifications may be full, above all.
 * Then the cursor stays where it is, and all of it is announced later.
 */
static TimestampTz
try_round(void)
{
	volatile TimestampTz wake = PG_INT64_MAX;
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		wake = do_round();
		index_log();
	}
	PG_CATCH();
	{
		TimestampTz now = GetCurrentTimestamp();

		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(context);
		if (complained_at == 0 || TimestampDifferenceExceeds(complained_at, now, COMPLAIN_MS))
		{
			EmitErrorReport();
			complained_at = now;
		}
		AbortCurrentTransaction();
		FlushErrorState();
		RESUME_INTERRUPTS();

		/* Raised again, as they were cleared for nothing. */
		pg_atomic_write_u32(&my_database->external_ready, 1);
		pg_atomic_write_u32(&my_database->log_written, 1);
		wake = TimestampTzPlusMilliseconds(tasker_now(), RETRY_MS);
	}
	PG_END_TRY();
	return wake;
}

/* Whether there is a reason for another round. */
static bool
is_called(uint32 looks, bool activate_restored)
{
	return pg_atomic_read_u32(&my_database->log_written) != 0 ||
		pg_atomic_read_u32(&my_database->external_ready) != 0 ||
		my_database->looks != looks || tasker_activate_restored != activate_restored;
}

void
tasker_notifier_main(Datum arg)
{
	MemoryContext memory;
	TimestampTz round_at = 0;

	worker_start(arg, notifier_slot);

	/*
	 * What it reads is the end of an index, whatever the statistics say: a plan
	 * that reads the log as a whole must not come up.
	 */
	SetConfigOption("enable_seqscan", "off", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("enable_bitmapscan", "off", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("jit", "off", PGC_USERSET, PGC_S_OVERRIDE);

	memory = AllocSetContextCreate(TopMemoryContext, "tasker notifier", ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		uint32		looks;
		bool		activate_restored;
		TimestampTz wake;

		MemoryContextSwitchTo(memory);
		MemoryContextReset(memory);

		looks = my_database->looks;
		activate_restored = tasker_activate_restored;
		wake = try_round();
		round_at = tasker_now();

		/*
		 * The first call after a silence is answered at once, those that follow
		 * share a round.
		 */
		for (;;)
		{
			TimestampTz next = TimestampTzPlusMilliseconds(round_at, ROUND_MS);
			TimestampTz now;

			worker_check();
			now = tasker_now();
			if (wake != PG_INT64_MAX && now >= wake)
				break;
			if (wake == PG_INT64_MAX && is_called(looks, activate_restored))
			{
				/* Before the last round: the clock was set back. */
				if (now >= next || now < round_at)
					break;
				worker_sleep(next, "more to announce");
			}
			else
				worker_sleep(wake, "events");
		}
	}
}
