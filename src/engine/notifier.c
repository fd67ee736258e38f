/*
 * notifier.c
 *	  Follows the log: makes ticks of it, which say in what order events are
 *	  told, and rings the doorbells: NOTIFY tasker_events for what happened,
 *	  NOTIFY tasker_steps for what waits for workers outside.
 *
 * It is the only one who calls NOTIFY, so that no other transaction takes its
 * global lock at commit.
 *
 * A cursor is a snapshot.  A round takes the next one, and what is visible in it
 * and was not in the last makes a tick: the rows of the transactions that the
 * last one had not seen begin, and of those that it saw running and that run no
 * more.  An id begins with its transaction's, so these are ranges of the primary
 * keys of the log and of published events, and whoever reads them later finds
 * the same rows.  A row that commits late is found when it commits, and nobody's
 * open transaction holds up the others' events.  The last tick is the cursor of
 * the next notifier, so nothing is left out while there is none.
 *
 * The bells are rung in a transaction of their own, behind that of the tick:
 * when the queue of notifications is full, events go on.  A bell is no record:
 * what could not be rung for is rung for later, by the next notifier if need be,
 * or never after a crash of the server, when nobody listens any more.
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

#include "access/access.h"
#include "engine/activation.h"
#include "engine/processes.h"
#include "engine/worker.h"
#include "state/state.h"
#include "state/store.h"
#include "statement.h"
#include "tasker.h"

#define EVENTS_CHANNEL	"tasker_events"
#define STEPS_CHANNEL	"tasker_steps"

#define ROUND_MS		20		/* under load, a round in this time */
#define BELL_MS			50		/* and bells for events, each of which wakes all who listen */
#define RETRY_MS		1000	/* after a round that failed */
#define BELL_LOCK_MS	100		/* for the queue of notifications, which all of the server share */
#define COMPLAIN_MS		60000	/* about that, at the most */
#define WHOLE_MS		1000	/* between looks whether a restore is whole */

/* NOTIFY takes less than 8,000 bytes. */
#define MAX_PAYLOAD		7900
/* Api steps that are looked at for their namespaces. */
#define API_STEPS		1000


#define TIDY_MS			60000	/* between looks at what nobody needs any more */

#define INDEX_LOG_MS	1000	/* between looks at the log's new pages */
#define INDEX_LOG_MOST	1000	/* ranges of pages at a time */

#define COUNT_MS		1000	/* between counts of what is new */

/* What was visible when the last round read; numbers are transaction ids and the base of log ids. */
typedef struct Cursor
{
	bool		valid;
	int64		next;			/* first one that had not begun */
	int64	   *running;		/* those below it that had not ended, rising */
	int			running_count;
} Cursor;

static Cursor cursor;

/* The next cursor while a round is under way; it counts when the round commits. */
static Cursor upcoming;

/* The last tick, and the last one that was rung for. */
static int64 last_tick = 0;
static int64 rung_tick = 0;

/* Steps for workers outside are to be rung for. */
static bool steps_wanted = false;

static TimestampTz complained_at;
static TimestampTz ring_failed_at;
static TimestampTz rang_at;
static bool round_failed;
static TimestampTz tidied_at;

/* Up to this tick everything was counted, or is too little to be. */
static int64 counted_tick = 0;
static TimestampTz counted_at;

/* Pages of the log from here on are not in its BRIN index yet; or invalid. */
static BlockNumber log_indexed_to = InvalidBlockNumber;
static TimestampTz log_indexed_at = 0;

static WorkerSlot *
notifier_slot(TaskerDatabase *database, int number)
{
	return &database->notifier;
}

static int
compare_int64(const void *a, const void *b)
{
	int64		x = *(const int64 *) a;
	int64		y = *(const int64 *) b;

	return x < y ? -1 : x > y;
}

/* A transaction id of a snapshot with its epoch: none is above the next one. */
static int64
full_xid(TransactionId xid, FullTransactionId next)
{
	uint32		epoch = EpochFromFullTransactionId(next);

	if (xid > XidFromFullTransactionId(next))
		epoch--;
	return (int64) U64FromFullTransactionId(FullTransactionIdFromEpochAndXid(epoch, xid));
}

static void
cursor_make_room(Cursor *to, int running)
{
	if (to->running != NULL)
		pfree(to->running);
	to->running = MemoryContextAlloc(TopMemoryContext, Max(running, 1) * sizeof(int64));
	to->running_count = running;
}

/* Makes a cursor of the active snapshot; it outlives the transaction. */
static void
cursor_take(Cursor *to, int64 base)
{
	Snapshot	snapshot = GetActiveSnapshot();
	FullTransactionId next = ReadNextFullTransactionId();

	cursor_make_room(to, snapshot->xcnt);
	to->next = full_xid(snapshot->xmax, next) + base;
	for (int i = 0; i < snapshot->xcnt; i++)
		to->running[i] = full_xid(snapshot->xip[i], next) + base;
	qsort(to->running, to->running_count, sizeof(int64), compare_int64);
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

static bool
is_running(const Cursor *at, int64 number)
{
	return bsearch(&number, at->running, at->running_count, sizeof(int64), compare_int64) != NULL;
}

/* Appends the ids of the transactions from first up to, but without, last. */
static void
append_range(StringInfo ranges, int64 first, int64 last)
{
	if (first < last)
		appendStringInfo(ranges, "%s[" INT64_FORMAT "," INT64_FORMAT ")", ranges->len > 1 ? "," : "",
						 first << LOG_ID_BITS, last << LOG_ID_BITS);
}

/*
 * Ids of what was not visible to the one cursor and is to the other, as an
 * int8multirange.  Those of transactions that still run are left out: they
 * would be found by whoever reads after they commit.
 */
static char *
find_ranges(const Cursor *from, const Cursor *to)
{
	StringInfoData ranges;
	int64		first = from->next;

	initStringInfo(&ranges);
	appendStringInfoChar(&ranges, '{');
	for (int i = 0; i < from->running_count; i++)
	{
		int64		number = from->running[i];

		if (!is_running(to, number))
			append_range(&ranges, number, number + 1);
	}
	for (int i = 0; i < to->running_count; i++)
	{
		int64		number = to->running[i];

		if (number < first)
			continue;
		append_range(&ranges, first, number);
		first = number + 1;
	}
	append_range(&ranges, first, to->next);
	appendStringInfoChar(&ranges, '}');
	return ranges.data;
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

/* Up to that tick everything was rung for: known to the next notifier, too. */
static void
note_rung(int64 tick)
{
	rung_tick = tick;
	pg_atomic_write_u64(&my_database->rung_tick, (uint64) tick);
}

/* The cursor that the last tick left; from the beginning where there is none. */
static void
cursor_load(void)
{
	ArrayType  *running;
	Datum	   *numbers;
	bool		isnull;
	int			count;

	if (SPI_execute("SELECT t.tick_id, t.next_xid, t.running "
					"FROM tasker.tick AS t "
					"ORDER BY t.tick_id DESC "
					"LIMIT 1", true, 1) != SPI_OK_SELECT)
		elog(ERROR, "the last tick could not be read");
	if (SPI_processed == 0)
	{
		cursor_make_room(&cursor, 0);
		cursor.next = 0;
		last_tick = 0;
	}
	else
	{
		last_tick = DatumGetInt64(result(0, 1, &isnull));
		running = DatumGetArrayTypeP(result(0, 3, &isnull));
		deconstruct_array(running, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE,
						  &numbers, NULL, &count);
		cursor_make_room(&cursor, count);
		cursor.next = DatumGetInt64(result(0, 2, &isnull));
		for (int i = 0; i < count; i++)
			cursor.running[i] = DatumGetInt64(numbers[i]);
	}
	rung_tick = (int64) pg_atomic_read_u64(&my_database->rung_tick);
	if (rung_tick == 0)
		note_rung(last_tick);
	cursor.valid = true;
}

/* Makes ticks of what is new; returns the last tick there is then. */
static int64
make_ticks(const char *ranges)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {TEXTOID, INT8OID, INT8ARRAYOID};
	Datum		arguments[3];
	Datum		tick;
	bool		isnull;

	if (strcmp(ranges, "{}") == 0)
		return last_tick;
	arguments[0] = CStringGetTextDatum(ranges);
	arguments[1] = Int64GetDatum(upcoming.next);
	arguments[2] = ids_argument(upcoming.running, upcoming.running_count);
	if (SPI_execute_plan(prepare_once(&plan, "SELECT tasker._tick($1::int8multirange, $2, $3)",
									  lengthof(types), types),
						 arguments, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "a tick could not be made");
	tick = result(0, 1, &isnull);
	return isnull ? last_tick : DatumGetInt64(tick);
}

/* Announces one event. */
static void
ring_event(uint64 row)
{
	StringInfoData payload;
	bool		isnull;
	int64		task_id = DatumGetInt64(result(row, 3, &isnull));
	int			step_no = DatumGetInt16(result(row, 4, &isnull));

	initStringInfo(&payload);
	appendStringInfo(&payload, "{\"event_id\":\"" INT64_FORMAT "\",\"event\":",
					 DatumGetInt64(result(row, 1, &isnull)));
	escape_json(&payload, TextDatumGetCString(result(row, 2, &isnull)));
	if (task_id > 0)
		appendStringInfo(&payload, ",\"task_id\":" INT64_FORMAT, task_id);
	if (step_no > 0)
		appendStringInfo(&payload, ",\"step_id\":" INT64_FORMAT, task_id << TASKER_STEP_BITS | step_no);
	appendStringInfoChar(&payload, '}');
	Async_Notify(EVENTS_CHANNEL, payload.data);
	pfree(payload.data);
}

/* Announces the events of ticks by one notification: all of them are in the range. */
static void
ring_many(Datum *arguments)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {INT8OID, INT8OID};
	bool		isnull;
	char		payload[256];

	run_query(prepare_once(&plan,
						   "SELECT min(lower(t.ids)), max(upper(t.ids)) - 1 "
						   "FROM tasker.tick AS t "
						   "WHERE t.tick_id > $1 AND t.tick_id <= $2",
						   lengthof(types), types), arguments);
	snprintf(payload, sizeof(payload),
			 "{\"event\":\"*\",\"from\":\"" INT64_FORMAT "\",\"to\":\"" INT64_FORMAT "\"}",
			 DatumGetInt64(result(0, 1, &isnull)), DatumGetInt64(result(0, 2, &isnull)));
	Async_Notify(EVENTS_CHANNEL, payload);
}

/* Announces what is new in the ticks behind the one to the other. */
static void
ring_events(int64 behind, int64 to)
{
	static SPIPlanPtr count_plan = NULL;
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {INT8OID, INT8OID};
	Datum		arguments[] = {Int64GetDatum(behind), Int64GetDatum(to)};
	bool		isnull;

	run_query(prepare_once(&count_plan,
						   "SELECT coalesce((SELECT t.events FROM tasker.tick AS t WHERE t.tick_id = $2), 0) "
						   "     - coalesce((SELECT t.events FROM tasker.tick AS t WHERE t.tick_id <= $1 "
						   "                 ORDER BY t.tick_id DESC LIMIT 1), 0)",
						   lengthof(types), types), arguments);
	/* Whoever is connected may LISTEN: then to no more than that something happened. */
	if (access_is_enforced() || DatumGetInt64(result(0, 1, &isnull)) > tasker_notify_limit)
	{
		ring_many(arguments);
		return;
	}
	run_query(prepare_once(&plan,
						   "SELECT e.event_id, e.name, e.task_id, e.step_no "
						   "FROM tasker._tick_event AS e "
						   "WHERE e.tick_id > $1 AND e.tick_id <= $2 AND e.name IS NOT NULL "
						   "ORDER BY e.tick_id, e.at, e.event_id",
						   lengthof(types), types), arguments);
	for (uint64 i = 0; i < SPI_processed; i++)
		ring_event(i);
}

/* Rings for the subscribers that ask for it, each once. */
static void
ring_subscribers(int64 behind, int64 to)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {INT8OID, INT8OID};
	Datum		arguments[] = {Int64GetDatum(behind), Int64GetDatum(to)};

	run_query(prepare_once(&plan,
						   "SELECT b.channel, b.payload FROM tasker._subscriber_bells($1, $2) AS b",
						   lengthof(types), types), arguments);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		char	   *channel = TextDatumGetCString(result(i, 1, &isnull));

		Async_Notify(channel, TextDatumGetCString(result(i, 2, &isnull)));
	}
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

	if (access_is_enforced())
	{
		Async_Notify(STEPS_CHANNEL, "{}");
		return;
	}
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
	note_rung(0);
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
 * The first transaction of a round: makes ticks.  The flags are cleared before
 * anything is read, so that what commits later raises them again.
 */
static TimestampTz
tick_round(void)
{
	TimestampTz wake;
	EngineState state;
	int64		tick = last_tick;

	worker_begin();
	steps_wanted |= pg_atomic_exchange_u32(&my_database->external_ready, 0) != 0 || !cursor.valid;
	(void) pg_atomic_exchange_u32(&my_database->log_written, 0);
	state = engine_state();
	wake = attend_stopped(state);
	if (state == ENGINE_ACTIVE)
	{
		int64		base = engine_xid_base();

		deliverer_look();
		if (!cursor.valid)
		{
			cursor_load();
			tick = last_tick;
		}
		/* The snapshot that worker_begin() took may be older than the flags. */
		PushActiveSnapshot(GetLatestSnapshot());
		cursor_take(&upcoming, base);
		PopActiveSnapshot();
		PushActiveSnapshot(GetLatestSnapshot());
		tick = make_ticks(find_ranges(&cursor, &upcoming));
		PopActiveSnapshot();
	}
	worker_commit();
	if (state == ENGINE_ACTIVE)
	{
		bool		is_new = tick > last_tick;

		cursor_advance();
		last_tick = tick;
		pg_atomic_write_u64(&my_database->last_tick, (uint64) tick);
		if (is_new)
			deliverer_wake(my_database);
	}
	return wake;
}

/*
 * The second one: rings.  Who holds the queue of notifications, by a commit that
 * waits for a standby, say, keeps the bells waiting, and nothing else.
 */
static void
ring_round(bool events)
{
	char		limit[16];

	snprintf(limit, sizeof(limit), "%d", BELL_LOCK_MS);
	worker_begin();
	if (engine_state() == ENGINE_ACTIVE)
	{
		(void) set_config_option("lock_timeout", limit, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
		PushActiveSnapshot(GetLatestSnapshot());
		if (events)
		{
			ring_events(rung_tick, last_tick);
			ring_subscribers(rung_tick, last_tick);
		}
		if (steps_wanted)
			ring_steps();
		PopActiveSnapshot();
	}
	worker_commit();
	if (events)
	{
		note_rung(last_tick);
		rang_at = GetCurrentTimestamp();
	}
	steps_wanted = false;
}

/* Tells those who wait for a round that it is over, whatever came of it. */
static void
round_is_done(void)
{
	pg_atomic_write_u32(&my_database->rounds_done, pg_atomic_read_u32(&my_database->rounds_begun));
	ConditionVariableBroadcast(&my_database->round_done);
}

/* What is to be done now and then. */
static void
tidy(void)
{
	TimestampTz now = GetCurrentTimestamp();

	if (!TimestampDifferenceExceeds(tidied_at, now, TIDY_MS))
		return;
	tidied_at = now;
	worker_begin();
	if (engine_state() == ENGINE_ACTIVE &&
		SPI_execute("SELECT tasker._tidy_events()", false, 0) != SPI_OK_SELECT)
		elog(ERROR, "tasker._tidy_events() could not be run");
	worker_commit();
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

/* After an error, in PG_CATCH(): says it now and then, and ends the transaction. */
static void
give_up(MemoryContext context)
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
}

/* Counts the state changes of the ticks (telemetry/totals.sql). */
static void
count_round(void)
{
	int64		tick = last_tick;
	bool		isnull;

	worker_begin();
	if (engine_state() == ENGINE_ACTIVE)
	{
		if (SPI_execute("SELECT tasker._fold_metrics()", false, 0) != SPI_OK_SELECT)
			elog(ERROR, "tasker._fold_metrics() could not be run");
		if (DatumGetInt64(result(0, 1, &isnull)) == 0)
			counted_tick = tick;
	}
	worker_commit();
}

/*
 * Counts, if there is anything new and some time has passed.  Where it fails,
 * whoever reads the figures counts more himself, and events go on.  Returns
 * when to try again.
 */
static TimestampTz
try_count(void)
{
	MemoryContext context = CurrentMemoryContext;
	TimestampTz now = GetCurrentTimestamp();

	if (!cursor.valid || counted_tick == last_tick)
		return PG_INT64_MAX;
	if (counted_at != 0 && now >= counted_at && !TimestampDifferenceExceeds(counted_at, now, COUNT_MS))
		return TimestampTzPlusMilliseconds(tasker_now(), COUNT_MS);
	counted_at = now;
	PG_TRY();
	{
		count_round();
	}
	PG_CATCH();
	{
		give_up(context);
	}
	PG_END_TRY();
	return counted_tick == last_tick ? PG_INT64_MAX : TimestampTzPlusMilliseconds(tasker_now(), COUNT_MS);
}

/*
 * Rings, if there is anything to ring for.  Where it fails, as the queue of
 * notifications is full or held by somebody, all that was not rung for is rung
 * for later, and ticks go on meanwhile.  Returns when to try again.
 */
static TimestampTz
try_ring(void)
{
	MemoryContext context = CurrentMemoryContext;
	TimestampTz now = GetCurrentTimestamp();
	bool		wanted = last_tick > rung_tick;
	bool		events = wanted && TimestampDifferenceExceeds(rang_at, now, BELL_MS);

	if (!cursor.valid || (!wanted && !steps_wanted))
		return PG_INT64_MAX;
	if ((events || steps_wanted) &&
		(ring_failed_at == 0 || TimestampDifferenceExceeds(ring_failed_at, now, RETRY_MS)))
	{
		PG_TRY();
		{
			ring_round(events);
			ring_failed_at = 0;
		}
		PG_CATCH();
		{
			give_up(context);
			ring_failed_at = GetCurrentTimestamp();
		}
		PG_END_TRY();
	}
	if (ring_failed_at != 0)
		return TimestampTzPlusMilliseconds(tasker_now(), RETRY_MS);
	return last_tick > rung_tick ? TimestampTzPlusMilliseconds(tasker_now(), BELL_MS) : PG_INT64_MAX;
}

/* A round that may fail. */
static TimestampTz
try_round(void)
{
	volatile TimestampTz wake = PG_INT64_MAX;
	MemoryContext context = CurrentMemoryContext;

	(void) pg_atomic_fetch_add_u32(&my_database->rounds_begun, 1);
	round_failed = false;
	PG_TRY();
	{
		wake = tick_round();
		round_is_done();
		wake = Min(wake, try_ring());
		index_log();
		tidy();
		wake = Min(wake, try_count());
	}
	PG_CATCH();
	{
		give_up(context);

		/* Raised again, as it may have been cleared for nothing. */
		pg_atomic_write_u32(&my_database->log_written, 1);
		round_is_done();
		round_failed = true;
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
		pg_atomic_read_u32(&my_database->round_wanted) != 0 ||
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

	/*
	 * A tick that is lost in a crash is made anew, and what was acknowledged
	 * behind it was flushed with it.
	 */
	SetConfigOption("synchronous_commit", "off", PGC_USERSET, PGC_S_OVERRIDE);

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
		(void) pg_atomic_exchange_u32(&my_database->round_wanted, 0);
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
			if (!round_failed && is_called(looks, activate_restored))
			{
				/* Before the last round: the clock was set back. */
				if (now >= next || now < round_at ||
					pg_atomic_read_u32(&my_database->round_wanted) != 0)
					break;
				worker_sleep(next, "more to announce");
			}
			else
				worker_sleep(wake, "events");
		}
	}
}
