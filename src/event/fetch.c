/*
 * fetch.c
 *	  Handing events out: in order, to one consumer or to several that share them.
 *
 * The place of a subscriber is locked before anything else of it, here and by
 * who acknowledges, so that they can't wait for each other.
 *
 * In C, as a session that fetches for the first time would have every statement
 * and expression of it to parse in PL/pgSQL, which takes longer than the rest.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/multirangetypes.h"
#include "utils/rangetypes.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "access/access.h"
#include "event/event.h"
#include "statement.h"
#include "tasker.h"

#define MOST_EVENTS			10000
#define SEARCH_MS			10	/* among much that is not wanted, once something was found */
#define LONG_SEARCH_TICKS	100 /* a longer search that was saved is not made again */
#define MOST_CONSUMER_BYTES 200 /* a longer name may have too many characters */

PG_FUNCTION_INFO_V1(tasker_fetch_events);
PG_FUNCTION_INFO_V1(tasker_next_events);

/* Events, each with the row that it is read from and its task; 0: none. */
typedef struct Events
{
	int64	   *event_ids;
	int64	   *row_ids;
	int64	   *task_ids;
	int			count;
} Events;

typedef struct Subscriber
{
	int32		id;
	char	   *namespace;		/* NULL: all */
	bool		wants_everything;
} Subscriber;

/* Up to where a subscriber has had everything, and what is to be known to go on. */
typedef struct Place
{
	int32		subscriber_id;
	int64		tick_id;
	int64		saved_tick;		/* as the table has it */
	bool		is_within;		/* of the next tick it has had those up to ... */
	TimestampTz event_at;
	int64		event_id;		/* ... this one */
	int64		matched_from;
	bool		is_matched;		/* from there on it is noted what it wants */
	Birth		birth;
	bool		wants_everything;
	int64		delivered;
	int64		last_tick;		/* that there is */
} Place;

/* What a search brought. */
typedef struct Pass
{
	int			found;
	int64		tick_id;		/* of the last one ... */
	TimestampTz at;				/* ... and its time, 0: it was not asked for */
} Pass;

static int64 *
joined(int64 *first, int first_count, const int64 *second, int second_count)
{
	first = first == NULL ? palloc(second_count * sizeof(int64)) :
		repalloc_huge(first, (first_count + second_count) * sizeof(int64));
	if (second != NULL)
		memcpy(first + first_count, second, second_count * sizeof(int64));
	return first;
}

static void
add_events(Events *events, const Events *more)
{
	if (more->count == 0)
		return;
	events->event_ids = joined(events->event_ids, events->count, more->event_ids, more->count);
	events->row_ids = joined(events->row_ids, events->count, more->row_ids, more->count);
	events->task_ids = joined(events->task_ids, events->count, more->task_ids, more->count);
	events->count += more->count;
}

/* Three columns of a row of SPI_tuptable, as events; they may be null. */
static Events
row_events(uint64 row, int column)
{
	Events		events = {0};
	bool		isnull;
	Datum		event_ids = row_value(row, column, &isnull);

	if (isnull)
		return events;
	events.event_ids = ids_of(event_ids, &events.count);
	events.row_ids = ids_of(row_value(row, column + 1, &isnull), &events.count);
	events.task_ids = ids_of(row_value(row, column + 2, &isnull), &events.count);
	return events;
}

/* Locks it, behind whoever is at it now.  False: the subscriber is gone. */
static bool
lock_place(int32 subscriber_id, bool wants_everything, Place *place)
{
	static Statement statement = {
		"SELECT c.tick_id, c.event_at, c.event_id, c.matched_from, c.born_xmax, c.born_running, "
		"       c.delivered, (SELECT max(t.tick_id) FROM tasker.tick AS t) "
		"FROM tasker.subscriber_cursor AS c "
		"WHERE c.subscriber_id = $1 "
		"FOR UPDATE",
		1, {INT4OID}
	};
	Datum		argument = Int32GetDatum(subscriber_id);
	bool		isnull;

	if (statement_run(&statement, &argument, NULL) == 0)
		return false;
	place->subscriber_id = subscriber_id;
	place->tick_id = DatumGetInt64(row_value(0, 1, &isnull));
	place->saved_tick = place->tick_id;
	place->event_at = row_time(0, 2);
	place->event_id = DatumGetInt64(row_value(0, 3, &isnull));
	place->is_within = !isnull;
	place->matched_from = DatumGetInt64(row_value(0, 4, &isnull));
	place->is_matched = !isnull;
	birth_read(0, 5, &place->birth);
	place->wants_everything = wants_everything;
	place->delivered = DatumGetInt64(row_value(0, 7, &isnull));
	place->last_tick = DatumGetInt64(row_value(0, 8, &isnull));
	if (isnull)
		place->last_tick = 0;
	return true;
}

/* Adds what a statement found: three arrays, how many they are, and where the last one is. */
static Pass
take_pass(Events *events)
{
	Events		found = row_events(0, 1);
	Pass		pass = {.found = found.count};
	bool		isnull;

	if (found.count == 0)
		return pass;
	pass.tick_id = DatumGetInt64(row_value(0, 4, &isnull));
	pass.at = row_time(0, 5);
	add_events(events, &found);
	return pass;
}

/* Adds the events of a tick behind the last one that was handed out, as many as are wanted. */
static int
add_noted(uint64 row, const Place *place, int wanted, Events *events)
{
	Events		noted = row_events(row, 2);
	int			done = 0;
	bool		isnull;

	if (place->is_within && DatumGetInt64(row_value(row, 1, &isnull)) == place->tick_id + 1)
		for (int i = 0; i < noted.count && done == 0; i++)
			if (noted.event_ids[i] == place->event_id)
				done = i + 1;
	noted.event_ids += done;
	noted.row_ids += done;
	noted.task_ids += done;
	noted.count = Min(noted.count - done, wanted);
	add_events(events, &noted);
	return noted.count;
}

/*
 * The next ones of those that were noted for it.  A tick has few of them, so
 * that they are put together here: as rows they would take longer to sort than
 * to find.
 */
static Pass
take_noted(const Place *place, int wanted, int64 *until, Events *events)
{
	static Statement statement = {
		"SELECT m.tick_id, m.event_ids, m.row_ids, m.task_ids "
		"FROM tasker.subscriber_match AS m "
		"WHERE m.subscriber_id = $1 "
		"  AND m.tick_id > $2 "
		"  AND m.tick_id <= $3 "
		"ORDER BY m.tick_id "
		"LIMIT 100",
		3, {INT4OID, INT8OID, INT8OID}
	};
	Datum		arguments[] = {
		Int32GetDatum(place->subscriber_id), Int64GetDatum(place->tick_id),
		Int64GetDatum(place->last_tick)
	};
	uint64		count = statement_run(&statement, arguments, NULL);
	Pass		pass = {0};
	bool		isnull;

	for (uint64 i = 0; i < count && pass.found < wanted; i++)
	{
		pass.found += add_noted(i, place, wanted - pass.found, events);
		pass.tick_id = DatumGetInt64(row_value(i, 1, &isnull));
	}
	*until = count == 100 ? pass.tick_id : place->last_tick;
	if (pass.found == wanted)
		pass.at = events_happened_at(events->event_ids[events->count - 1],
									 events->row_ids[events->count - 1]);
	return pass;
}

/* How many events one tick may hold (tasker._tick_part_size()). */
static int64
tick_part_size(void)
{
	static Statement statement = {
		"SELECT tasker._tick_part_size()::bigint"
	};
	bool		isnull;

	statement_run(&statement, NULL, NULL);
	return DatumGetInt64(row_value(0, 1, &isnull));
}

/* The last of the ticks that were not noted, or of all. */
static int64
last_unnoted(const Place *place)
{
	return place->is_matched ? Min(place->matched_from, place->last_tick) : place->last_tick;
}

/* An event of a tick. */
typedef struct Told
{
	int64		tick_id;
	TimestampTz at;
	int64		event_id;
	int64		row_id;
	int64		task_id;
} Told;

/* A tick; of one that is a part, where it begins and ends. */
typedef struct Tick
{
	bool		is_part;
	Told		after;
	Told		until;
	bool		has_after;
} Tick;

/* Ranges of ids, each of a tick. */
typedef struct Ranges
{
	int64	   *low;
	int64	   *high;			/* is not of it any more */
	int64	   *tick;			/* its number among those that are read */
	int			count;
	int			space;
} Ranges;

static void
add_ranges(Ranges *ranges, Datum ids, int64 tick)
{
	TypeCacheEntry *type = lookup_type_cache(INT8MULTIRANGEOID, TYPECACHE_MULTIRANGE_INFO)->rngtype;
	RangeType **parts;
	int32		count;

	multirange_deserialize(type, DatumGetMultirangeTypeP(ids), &count, &parts);
	for (int i = 0; i < count; i++)
	{
		RangeBound	low;
		RangeBound	high;
		bool		is_empty;

		range_deserialize(type, parts[i], &low, &high, &is_empty);
		if (ranges->count == ranges->space)
		{
			int			space = Max(ranges->space * 2, 64);

			ranges->low = joined(ranges->low, ranges->count, NULL, space - ranges->count);
			ranges->high = joined(ranges->high, ranges->count, NULL, space - ranges->count);
			ranges->tick = joined(ranges->tick, ranges->count, NULL, space - ranges->count);
			ranges->space = space;
		}
		ranges->low[ranges->count] = low.infinite ? PG_INT64_MIN : DatumGetInt64(low.val);
		ranges->high[ranges->count] = high.infinite ? PG_INT64_MAX : DatumGetInt64(high.val);
		ranges->tick[ranges->count++] = tick;
	}
}

static int
compare_told(const void *a, const void *b)
{
	const Told *x = a;
	const Told *y = b;

	if (x->tick_id != y->tick_id)
		return x->tick_id < y->tick_id ? -1 : 1;
	if (x->at != y->at)
		return x->at < y->at ? -1 : 1;
	return x->event_id < y->event_id ? -1 : x->event_id > y->event_id;
}

/* Takes an event where it is of its tick's part, and the subscriber has not had it. */
static void
consider(const Place *place, const Tick *tick, const Told *event, Told *all, int *count)
{
	Told		had = {place->tick_id + 1, place->event_at, place->event_id};

	if ((!tick->has_after || compare_told(event, &tick->after) > 0) &&
		(!tick->is_part || compare_told(event, &tick->until) <= 0) &&
		!(place->is_within && compare_told(event, &had) <= 0) &&
		birth_precedes(&place->birth, event->row_id))
		all[(*count)++] = *event;
}

/*
 * Reads the next ticks, until they have so many events; returns the last one.
 * ticks and ranges may be NULL.
 */
static int64
read_ticks(const Place *place, int64 wanted, Tick **ticks, Ranges *ranges)
{
	static Statement statement = {
		"SELECT n.tick_id, n.events, "
		"       (SELECT b.events"
		"        FROM tasker.tick AS b"
		"        WHERE b.tick_id <= $1"
		"        ORDER BY b.tick_id DESC"
		"        LIMIT 1), "
		"       n.ids, n.after_at, n.after_id, n.until_at, n.until_id "
		"FROM tasker.tick AS n "
		"WHERE n.tick_id > $1 "
		"  AND n.tick_id <= $2 "
		"ORDER BY n.tick_id "
		"LIMIT $3",
		3, {INT8OID, INT8OID, INT8OID}
	};
	int64		until = last_unnoted(place);
	Datum		arguments[] = {
		Int64GetDatum(place->tick_id), Int64GetDatum(until), Int64GetDatum(Min(wanted, 500))
	};
	uint64		count = statement_run(&statement, arguments, NULL);
	int64		passed = 0;
	bool		isnull;

	if (ticks != NULL)
		*ticks = palloc0((count + 1) * sizeof(Tick));
	for (uint64 i = 0; i < count && passed < wanted; i++)
	{
		Tick	   *tick;

		until = DatumGetInt64(row_value(i, 1, &isnull));
		passed = DatumGetInt64(row_value(i, 2, &isnull)) - DatumGetInt64(row_value(i, 3, &isnull));
		if (ticks == NULL)
			continue;
		tick = &(*ticks)[i];
		add_ranges(ranges, row_value(i, 4, &isnull), i);
		tick->after.tick_id = tick->until.tick_id = until;
		tick->after.at = row_time(i, 5);
		tick->after.event_id = DatumGetInt64(row_value(i, 6, &isnull));
		tick->has_after = !isnull;
		tick->until.at = row_time(i, 7);
		tick->until.event_id = DatumGetInt64(row_value(i, 8, &isnull));
		tick->is_part = !isnull;
	}
	return until;
}

/* The events of these ranges that the subscriber has not had, in no order; returns how many. */
static int
read_told(const Place *place, const Tick *ticks, const Ranges *ranges, Told **all)
{
	/* A row of the log may be two events (tasker._move). */
	static Statement statement = {
		"SELECT r.tick, l.id, l.at, l.task_id, l.start_id, l.start_at "
		"FROM unnest($1, $2, $3) AS r (low, high, tick) "
		"JOIN tasker.log AS l ON l.id >= r.low AND l.id < r.high "
		"UNION ALL "
		"SELECT r.tick, e.event_id, e.occurred_at, e.task_id, NULL, NULL "
		"FROM unnest($1, $2, $3) AS r (low, high, tick) "
		"JOIN tasker.published_event AS e ON e.event_id >= r.low AND e.event_id < r.high",
		3, {INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID}
	};
	Datum		arguments[] = {
		ids_argument(ranges->low, ranges->count), ids_argument(ranges->high, ranges->count),
		ids_argument(ranges->tick, ranges->count)
	};
	uint64		rows = statement_run(&statement, arguments, NULL);
	int			count = 0;

	*all = MemoryContextAllocHuge(CurrentMemoryContext, (2 * rows + 1) * sizeof(Told));
	for (uint64 i = 0; i < rows; i++)
	{
		Told		event;
		bool		isnull;
		const Tick *tick = &ticks[DatumGetInt64(row_value(i, 1, &isnull))];

		event.tick_id = tick->until.tick_id;
		event.row_id = event.event_id = DatumGetInt64(row_value(i, 2, &isnull));
		event.at = row_time(i, 3);
		event.task_id = DatumGetInt64(row_value(i, 4, &isnull));
		if (isnull)
			event.task_id = 0;
		consider(place, tick, &event, *all, &count);
		event.event_id = DatumGetInt64(row_value(i, 5, &isnull));
		event.at = row_time(i, 6);
		if (!isnull)
			consider(place, tick, &event, *all, &count);
	}
	SPI_freetuptable(SPI_tuptable);
	return count;
}

/* The next of all events. */
static Pass
take_all(const Place *place, int wanted, int64 *until, Events *events)
{
	Ranges		ranges = {0};
	Tick	   *ticks;
	Told	   *all;
	Pass		pass = {0};
	Events		found;
	int			count;

	*until = read_ticks(place, wanted, &ticks, &ranges);
	if (ranges.count == 0)
		return pass;
	count = read_told(place, ticks, &ranges, &all);
	qsort(all, count, sizeof(Told), compare_told);
	found.count = Min(count, wanted);
	found.event_ids = palloc((found.count + 1) * sizeof(int64));
	found.row_ids = palloc((found.count + 1) * sizeof(int64));
	found.task_ids = palloc((found.count + 1) * sizeof(int64));
	for (int i = 0; i < found.count; i++)
	{
		found.event_ids[i] = all[i].event_id;
		found.row_ids[i] = all[i].row_id;
		found.task_ids[i] = all[i].task_id;
	}
	add_events(events, &found);
	pass.found = found.count;
	if (found.count > 0)
	{
		pass.tick_id = all[found.count - 1].tick_id;
		pass.at = all[found.count - 1].at;
	}
	pfree(all);
	return pass;
}

/* The next ones that it wants, of ticks for which that was not noted. */
static Pass
take_searched(const Place *place, int64 until, int wanted, Events *events)
{
	static Statement statement = {
		"SELECT array_agg(e.event_id), array_agg(e.row_id), array_agg(e.task_id), max(e.tick_id), "
		"       (array_agg(e.at))[count(*)] "
		"FROM ("
		"    SELECT n.tick_id, n.at, n.event_id, n.row_id, n.task_id"
		"    FROM tasker._match($1 + 1, $2, ARRAY[$5]) AS n"
		"    WHERE $3 IS NULL"
		"       OR n.tick_id > $1 + 1"
		"       OR (n.at, n.event_id) > ($4, $3)"
		"    ORDER BY n.tick_id, n.at, n.event_id"
		"    LIMIT $6) AS e",
		6, {INT8OID, INT8OID, INT8OID, TIMESTAMPTZOID, INT4OID, INT4OID}
	};
	Datum		arguments[] = {
		Int64GetDatum(place->tick_id), Int64GetDatum(until),
		Int64GetDatum(place->event_id), TimestampTzGetDatum(place->event_at),
		Int32GetDatum(place->subscriber_id), Int32GetDatum(wanted)
	};

	statement_run(&statement, arguments, place->is_within ? "      " : "  nn  ");
	return take_pass(events);
}

static void
save_place(Place *place)
{
	static Statement statement = {
		"UPDATE tasker.subscriber_cursor AS c "
		"SET tick_id = $2, event_at = $3, event_id = $4, fetched_at = $5, delivered = $6 "
		"WHERE c.subscriber_id = $1",
		6, {INT4OID, INT8OID, TIMESTAMPTZOID, INT8OID, TIMESTAMPTZOID, INT8OID}
	};
	static Statement forget = {
		"DELETE FROM tasker.subscriber_match AS m "
		"WHERE m.subscriber_id = $1 "
		"  AND m.tick_id <= $2",
		2, {INT4OID, INT8OID}
	};
	Datum		arguments[] = {
		Int32GetDatum(place->subscriber_id), Int64GetDatum(place->tick_id),
		TimestampTzGetDatum(place->event_at), Int64GetDatum(place->event_id),
		TimestampTzGetDatum(tasker_now()), Int64GetDatum(place->delivered)
	};

	statement_run(&statement, arguments, place->is_within ? "      " : "  nn  ");
	place->saved_tick = place->tick_id;
	if (!place->wants_everything)
		statement_run(&forget, arguments, NULL);
}

/*
 * Hands out the next events of a subscriber, in order, and moves its place,
 * which is locked, behind them in this transaction.
 */
static void
next_events(Place *place, int most, Events *events)
{
	TimestampTz started = GetCurrentTimestamp();

	while (place->tick_id < place->last_tick)
	{
		int			wanted = most - events->count;
		int64		until;
		Pass		pass;

		CHECK_FOR_INTERRUPTS();
		if (wanted <= 0 ||
			(events->count > 0 && TimestampDifferenceExceeds(started, GetCurrentTimestamp(), SEARCH_MS)))
			break;
		if (place->is_matched && place->tick_id >= place->matched_from)
			pass = take_noted(place, wanted, &until, events);
		else if (place->wants_everything)
			pass = take_all(place, wanted, &until, events);
		else
		{
			/* So many at a time. */
			until = read_ticks(place, tick_part_size(), NULL, NULL);
			pass = take_searched(place, until, wanted, events);
		}
		place->is_within = pass.found == wanted;
		place->tick_id = place->is_within ? pass.tick_id - 1 : until;
		if (place->is_within)
		{
			place->event_at = pass.at;
			place->event_id = events->event_ids[events->count - 1];
		}
	}
	place->delivered += events->count;
	if (events->count > 0 || place->tick_id > place->saved_tick + STALE_TICKS)
		save_place(place);
}

/* tasker._next_events(integer, integer) */
Datum
tasker_next_events(PG_FUNCTION_ARGS)
{
	static Statement statement = {
		"SELECT s.wants_everything FROM tasker.subscriber AS s WHERE s.subscriber_id = $1",
		1, {INT4OID}
	};
	Datum		subscriber_id = PG_GETARG_DATUM(0);
	Events		events = {0};
	Place		place;
	bool		isnull;
	TupleDesc	desc;
	Datum		values[3];
	bool		nulls[3] = {0};
	MemoryContext caller = CurrentMemoryContext;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	desc = BlessTupleDesc(desc);
	SPI_connect();
	if (statement_run(&statement, &subscriber_id, NULL) > 0 &&
		lock_place(PG_GETARG_INT32(0), DatumGetBool(row_value(0, 1, &isnull)), &place))
		next_events(&place, PG_GETARG_INT32(1), &events);
	MemoryContextSwitchTo(caller);
	values[0] = ids_argument(events.event_ids, events.count);
	values[1] = ids_argument(events.row_ids, events.count);
	values[2] = ids_argument(events.task_ids, events.count);
	SPI_finish();
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
}

/* A consumer that has not fetched since then is lost. */
static TimestampTz
gone_before(void)
{
	return tasker_now() - (int64) tasker_consumer_timeout * USECS_PER_SEC;
}

/* Puts ids of events into arguments of a statement. */
static void
events_arguments(const Events *events, Datum *arguments)
{
	arguments[0] = ids_argument(events->event_ids, events->count);
	arguments[1] = ids_argument(events->row_ids, events->count);
	arguments[2] = ids_argument(events->task_ids, events->count);
}

/*
 * What it had, behind what it takes over from those that are gone.  Returns
 * whether others have events in hand.
 */
static bool
take_over(int32 subscriber_id, Datum consumer, Events *hand)
{
	static Statement statement = {
		"SELECT c.name = $2, c.event_ids, c.row_ids, c.task_ids, c.name, c.fetched_at "
		"FROM tasker.consumer AS c "
		"WHERE c.subscriber_id = $1 "
		"ORDER BY c.fetched_at",
		2, {INT4OID, TEXTOID}
	};
	static Statement forget = {
		"DELETE FROM tasker.consumer AS c "
		"WHERE c.subscriber_id = $1 "
		"  AND c.name = ANY ($2)",
		2, {INT4OID, TEXTARRAYOID}
	};
	Datum		arguments[] = {Int32GetDatum(subscriber_id), consumer};
	uint64		count = statement_run(&statement, arguments, NULL);
	Datum	   *gone = palloc((count + 1) * sizeof(Datum));
	int			gone_count = 0;
	bool		have_others = false;
	Events		own = {0};

	for (uint64 i = 0; i < count; i++)
	{
		Events		held = row_events(i, 2);
		bool		isnull;

		if (DatumGetBool(row_value(i, 1, &isnull)))
			own = held;
		else if (row_time(i, 6) >= gone_before())
			have_others |= held.count > 0;
		else
		{
			add_events(hand, &held);
			gone[gone_count++] = row_value(i, 5, &isnull);
		}
	}
	add_events(hand, &own);
	if (gone_count > 0)
	{
		arguments[1] = PointerGetDatum(construct_array(gone, gone_count, TEXTOID, -1, false, TYPALIGN_INT));
		statement_run(&forget, arguments, NULL);
	}
	return have_others;
}

/* Leaves those that no other consumer is to get, because it holds others of the task. */
static void
give_to_holders(int32 subscriber_id, Datum consumer, Events *given)
{
	static Statement statement = {
		"SELECT g.event_ids, g.row_ids, g.task_ids "
		"FROM tasker._give_to_holders($1, $2, $3, $4, $5) AS g",
		5, {INT4OID, TEXTOID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID}
	};
	Datum		arguments[5] = {Int32GetDatum(subscriber_id), consumer};

	events_arguments(given, arguments + 2);
	statement_run(&statement, arguments, NULL);
	*given = row_events(0, 1);
}

static void
save_hand(int32 subscriber_id, Datum consumer, const Events *hand)
{
	static Statement statement = {
		"INSERT INTO tasker.consumer (subscriber_id, name, event_ids, row_ids, task_ids, fetched_at) "
		"VALUES ($1, $2, $3, $4, $5, $6) "
		"ON CONFLICT (subscriber_id, name) DO UPDATE "
		"SET event_ids = excluded.event_ids, "
		"    row_ids = excluded.row_ids, "
		"    task_ids = excluded.task_ids, "
		"    fetched_at = excluded.fetched_at",
		6, {INT4OID, TEXTOID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, TIMESTAMPTZOID}
	};
	Datum		arguments[6] = {Int32GetDatum(subscriber_id), consumer};

	events_arguments(hand, arguments + 2);
	arguments[5] = TimestampTzGetDatum(tasker_now());
	statement_run(&statement, arguments, NULL);
}

/*
 * What a consumer has in hand: what it had, what it takes over from those that
 * are gone, and new events.
 */
static void
fill_hand(Place *place, Datum consumer, int most, Events *hand)
{
	bool		have_others = take_over(place->subscriber_id, consumer, hand);

	while (hand->count < most)
	{
		Events		given = {0};

		next_events(place, most - hand->count, &given);
		if (given.count == 0)
			break;
		if (have_others)
			give_to_holders(place->subscriber_id, consumer, &given);
		add_events(hand, &given);
		/* Again where others got all of it. */
		if (hand->count > 0)
			break;
	}
	if (hand->count > 0)
		save_hand(place->subscriber_id, consumer, hand);
}

/*
 * Whether there may be something to fetch; a subscriber that waits for rare
 * events asks again and again, and every lock would be a write.
 */
static bool
may_fetch(int32 subscriber_id, Datum consumer, int64 *last_tick)
{
	static Statement statement = {
		"SELECT t.tick_id, "
		"       EXISTS ("
		"           SELECT"
		"           FROM tasker.subscriber_cursor AS c"
		"           WHERE c.subscriber_id = $1"
		"             AND t.tick_id > c.tick_id"
		"             AND ((c.matched_from <= c.tick_id) IS NOT TRUE"
		"                  OR EXISTS ("
		"                      SELECT"
		"                      FROM tasker.subscriber_match AS m"
		"                      WHERE m.subscriber_id = $1"
		"                        AND m.tick_id > c.tick_id)))"
		"    OR EXISTS ("
		"           SELECT"
		"           FROM tasker.consumer AS c"
		"           WHERE c.subscriber_id = $1"
		"             AND cardinality(c.event_ids) > 0"
		"             AND (c.name = $2 OR c.fetched_at < $3)) "
		"FROM (SELECT coalesce(max(n.tick_id), 0) AS tick_id FROM tasker.tick AS n) AS t",
		3, {INT4OID, TEXTOID, TIMESTAMPTZOID}
	};
	Datum		arguments[] = {
		Int32GetDatum(subscriber_id), consumer, TimestampTzGetDatum(gone_before())
	};
	bool		isnull;
	bool		may;

	statement_run(&statement, arguments, NULL);
	*last_tick = DatumGetInt64(row_value(0, 1, &isnull));
	may = DatumGetBool(row_value(0, 2, &isnull));
	/* Who waits for long comes here often. */
	SPI_freetuptable(SPI_tuptable);
	return may;
}

/*
 * Fills the hand, and lets go of the locks where there is nothing: nobody else
 * is to wait while this waits.  Returns whether there was a long search, which is
 * kept although it found nothing; a short one is made again.
 */
static bool
try_fetch(const Subscriber *subscriber, Datum consumer, int most, Events *hand)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	bool		was_long = false;
	Place		place;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	if (lock_place(subscriber->id, subscriber->wants_everything, &place))
	{
		int64		old_tick = place.tick_id;

		fill_hand(&place, consumer, most, hand);
		was_long = hand->count == 0 && place.saved_tick > old_tick + LONG_SEARCH_TICKS;
	}
	if (hand->count > 0 || was_long)
		ReleaseCurrentSubTransaction();
	else
		RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return was_long;
}

/* Takes from the hand what was pruned before it could be told. */
static void
drop_pruned(int32 subscriber_id, Datum consumer, int count)
{
	static Statement statement = {
		"UPDATE tasker.consumer AS c "
		"SET event_ids = c.event_ids[$3 + 1:], "
		"    row_ids = c.row_ids[$3 + 1:], "
		"    task_ids = c.task_ids[$3 + 1:] "
		"WHERE c.subscriber_id = $1 "
		"  AND c.name = $2",
		3, {INT4OID, TEXTOID, INT4OID}
	};
	Datum		arguments[] = {Int32GetDatum(subscriber_id), consumer, Int32GetDatum(count)};

	statement_run(&statement, arguments, NULL);
}

/* The subscriber of that name; raises what tasker._find_subscriber() does. */
static Subscriber
find_subscriber(FunctionCallInfo fcinfo)
{
	/* Of the caller's own, nothing more has to be looked at. */
	static Statement own = {
		"SELECT s.subscriber_id, s.namespace, s.wants_everything "
		"FROM tasker.subscriber AS s "
		"WHERE s.name = $1 "
		"  AND s.run_as = $2 "
		"  AND s.handler IS NULL",
		2, {TEXTOID, TEXTOID}
	};
	static Statement any = {
		"SELECT s.subscriber_id, s.namespace, s.wants_everything, tasker._check_fetched_here(s) "
		"FROM tasker._find_subscriber($1, $2) AS s",
		2, {TEXTOID, TEXTOID}
	};
	Datum		arguments[] = {PG_GETARG_DATUM(0), PG_GETARG_DATUM(4)};
	const char *nulls = PG_ARGISNULL(0) ? "n " : "  ";
	Subscriber	subscriber;
	bool		isnull;

	if (statement_run(&own, arguments, nulls) == 0)
		statement_run(&any, arguments, nulls);
	subscriber.id = DatumGetInt32(row_value(0, 1, &isnull));
	subscriber.namespace = row_text(0, 2, CurrentMemoryContext);
	subscriber.wants_everything = DatumGetBool(row_value(0, 3, &isnull));
	return subscriber;
}

/* What the consumer is stored as. */
static Datum
consumer_name(FunctionCallInfo fcinfo)
{
	/* Raises that it is too long. */
	static Statement statement = {
		"SELECT tasker._consumer_name($1)", 1, {TEXTOID}
	};
	Datum		name;

	if (PG_ARGISNULL(2))
		return CStringGetTextDatum("");
	name = PointerGetDatum(PG_GETARG_TEXT_PP(2));
	if (VARSIZE_ANY_EXHDR(DatumGetPointer(name)) > MOST_CONSUMER_BYTES)
		statement_run(&statement, &name, NULL);
	return name;
}

static void
check_arguments(FunctionCallInfo fcinfo, bool waits)
{
	if (PG_ARGISNULL(1) || PG_GETARG_INT32(1) < 1 || PG_GETARG_INT32(1) > MOST_EVENTS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_events must be between 1 and %d", MOST_EVENTS),
				 PG_ARGISNULL(1) ? errdetail("It is NULL.") : errdetail("It is %d.", PG_GETARG_INT32(1)),
				 errhint("Fetch again for more.")));
	if (waits && IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_TASKER_NOT_ALLOWED),
				 errmsg("cannot wait for events here"),
				 errdetail("Under %s nothing that happens later is seen.",
						   XactIsoLevel == XACT_SERIALIZABLE ? "SERIALIZABLE" : "REPEATABLE READ"),
				 errhint("Fetch in a READ COMMITTED transaction, or without wait.")));
}

/* tasker._fetch_events(text, integer, text, interval, text) */
Datum
tasker_fetch_events(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz until = now;
	/* A session's first fetch does not ask: to plan the question takes longer than the lock. */
	static bool has_fetched = false;
	bool		is_fresh = false;
	Subscriber	subscriber;
	Datum		consumer;
	int			most;

	InitMaterializedSRF(fcinfo, 0);
	SPI_connect();
	if (!PG_ARGISNULL(3))
		until = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
														TimestampTzGetDatum(now), PG_GETARG_DATUM(3)));
	subscriber = find_subscriber(fcinfo);
	consumer = consumer_name(fcinfo);
	/* What it was granted when it subscribed may have been taken back. */
	access_require("event:index", subscriber.namespace != NULL ? subscriber.namespace : EVERY_NAMESPACE);
	check_arguments(fcinfo, until > now);
	most = PG_GETARG_INT32(1);
	for (;;)
	{
		Events		hand = {0};
		int64		last_tick = 0;
		bool		may = !has_fetched || may_fetch(subscriber.id, consumer, &last_tick);

		CHECK_FOR_INTERRUPTS();
		has_fetched = true;
		if (may && try_fetch(&subscriber, consumer, most, &hand))
			break;
		if (hand.count > 0)
		{
			int			count = Min(hand.count, most);

			if (events_describe(hand.event_ids, hand.row_ids, count, result, false) > 0)
				break;
			drop_pruned(subscriber.id, consumer, count);
		}
		else if (GetCurrentTimestamp() < until)
			(void) events_wait_for_tick(last_tick, until);
		else if (!is_fresh)
		{
			/*
			 * What is committed and in no tick yet counts, too.  Who waits gets
			 * it in the next one: he must not hurry the notifier.
			 */
			is_fresh = true;
			(void) events_wait_for_round();
		}
		else
			break;
	}
	SPI_finish();
	return (Datum) 0;
}
