/*
 * deliverer.c
 *	  Gives events to subscribers' SQL handlers.
 *
 * A process of its own, for a handler may be slow: neither doorbells nor steps
 * wait for it.  It runs only where a subscriber has a handler.
 *
 * A batch is a transaction: the subscriber's place moves on, and what handlers
 * do to the database commits with it, each in a subtransaction.  So an event is
 * handled exactly once, as far as its effects are transactional.  An event at
 * which the handler fails is rolled back alone and gets a row of
 * tasker.subscriber_failure; later ones of its task get one, too, and wait.
 *
 * The live rows of that table, by what is in them:
 *
 *	  attempts 0, not due at any time: waits for its turn, behind one of its task
 *		or because the batch that took it ran out of time;
 *	  due at some time: failed, or could not have a lock, and is run alone then;
 *	  attempts, but not due, and of no task: the server crashed in it, and as its
 *		batch was rolled back it will be handed out again.  Its row then says
 *		how often that happened.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "engine/activation.h"
#include "engine/executor.h"
#include "engine/flight.h"
#include "engine/handler.h"
#include "engine/plan.h"
#include "engine/processes.h"
#include "engine/worker.h"
#include "event/event.h"
#include "state/state.h"
#include "statement.h"
#include "tasker.h"

#define MAX_EVENTS		100		/* of a batch */
#define MAX_WRITING		60		/* beyond 64, subtransactions overflow their cache */

/* Back-off of failed events, as that of steps. */
#define BASE_DELAY		1.0
#define MAX_DELAY		30.0
#define JITTER			0.1

/* As a step's: until one that could not have its lock is run alone. */
#define SUSPECT_DELAY_US	(500 * INT64CONST(1000))

#define EVENT_COLUMNS	7

typedef enum Fate
{
	FATE_OPEN,
	FATE_DONE,
	FATE_SKIPPED,				/* its row sees to it */
	FATE_WAITS,
	FATE_FAILED
} Fate;

/* An event on its way to a handler. */
typedef struct Delivery
{
	int64		event_id;
	int64		row_id;
	int64		task_id;		/* 0: none */
	int			attempts;		/* that failed before */
	bool		has_row;		/* in tasker.subscriber_failure */
	bool		is_dead;		/* that says it was given up; handed out anew all the same */
	bool		crashed;		/* that counts crashes only */

	/* What tasker._events() says. */
	bool		described;
	TimestampTz occurred_at;
	char	   *name;
	Datum		event_task;
	bool		no_task;
	Datum		event_step;
	bool		no_step;
	Jsonb	   *payload;

	Fate		fate;
	TimestampTz due;			/* of one that failed; 0: dead */
	Jsonb	   *error;
} Delivery;

typedef struct Subscriber
{
	int32		subscriber_id;
	char	   *name;
	char	   *signature;
	char	   *role;
	char	   *search_path;
	bool		has_new;		/* as far as that is known without asking */
	bool		has_rows;		/* in tasker.subscriber_failure */
	TimestampTz due;			/* 0: nothing will be */
} Subscriber;

/* What is remembered of a subscriber from round to round. */
typedef struct Pace
{
	int32		subscriber_id;
	int			limit;			/* events to take at a time */
	bool		look_waiting;	/* rows that wait may be free to go */
} Pace;

typedef struct Round
{
	Subscriber *subscriber;
	Handler    *handler;
	Pace	   *pace;
	Delivery   *deliveries;
	int			count;
	int			ran;
	int			writing;
	int64		us;				/* that all of it took */
	bool		closed;
	bool		freed;			/* what waited behind an event may go on */
	bool		spilled;		/* some are left for the next batch */
	int64	   *blocked;		/* tasks whose events wait */
	int			blocked_count;
	TimestampTz began_at;
} Round;

/* STALE_TICKS behind, a subscriber is asked whatever is known of its events. */
static Statement read_subscribers = {
	.sql = "SELECT s.subscriber_id, s.name, s.handler, s.run_as, s.search_path, "
	"NOT EXISTS (SELECT FROM tasker.subscriber_failure AS f "
	"WHERE f.subscriber_id = s.subscriber_id AND f.dead_at IS NULL "
	"OFFSET tasker._max_failures() - 1 LIMIT 1) "
	"AND EXISTS (SELECT FROM tasker.tick AS t WHERE t.tick_id > c.tick_id) "
	"AND (c.matched_from IS NULL OR c.tick_id < c.matched_from "
	"OR EXISTS (SELECT FROM tasker.subscriber_match AS m "
	"WHERE m.subscriber_id = s.subscriber_id AND m.tick_id > c.tick_id) "
	"OR EXISTS (SELECT FROM tasker.tick AS t WHERE t.tick_id > c.tick_id + " CppAsString2(STALE_TICKS) ")), "
	"EXISTS (SELECT FROM tasker.subscriber_failure AS f WHERE f.subscriber_id = s.subscriber_id), "
	"(SELECT min(f.next_attempt_at) FROM tasker.subscriber_failure AS f "
	"WHERE f.subscriber_id = s.subscriber_id AND f.dead_at IS NULL) "
	"FROM tasker.subscriber AS s "
	"JOIN tasker.subscriber_cursor AS c USING (subscriber_id) "
	"WHERE s.handler IS NOT NULL "
	"AND tasker._role_may(s.run_as, 'event:index', coalesce(s.namespace, '*')) "
	"ORDER BY s.subscriber_id",
};

static Statement next_events = {
	.sql = "SELECT e.event_id, e.row_id, e.task_id, 0 "
	"FROM tasker._next_events($1, $2) AS n "
	"CROSS JOIN LATERAL unnest(n.event_ids, n.row_ids, n.task_ids) AS e (event_id, row_id, task_id)",
	.arg_count = 2,
	.arg_types = {INT4OID, INT4OID},
};

/* One that is due, and has none of its task before it. */
static Statement next_due = {
	.sql = "SELECT f.event_id, f.row_id, f.task_id, f.attempts "
	"FROM tasker.subscriber_failure AS f "
	"WHERE f.subscriber_id = $1 AND f.dead_at IS NULL AND f.next_attempt_at <= $2 "
	"AND (f.task_id = 0 OR NOT EXISTS (SELECT FROM tasker.subscriber_failure AS b "
	"WHERE b.subscriber_id = f.subscriber_id AND b.task_id = f.task_id "
	"AND b.dead_at IS NULL AND b.place < f.place)) "
	"ORDER BY f.next_attempt_at LIMIT 1",
	.arg_count = 2,
	.arg_types = {INT4OID, TIMESTAMPTZOID},
};

/* Those that wait, but for those behind one that is to be run alone. */
static Statement next_waiting = {
	.sql = "SELECT f.event_id, f.row_id, f.task_id, 0 "
	"FROM tasker.subscriber_failure AS f "
	"WHERE f.subscriber_id = $1 AND f.dead_at IS NULL AND f.next_attempt_at IS NULL "
	"AND f.attempts = 0 "
	"AND (f.task_id = 0 OR NOT EXISTS (SELECT FROM tasker.subscriber_failure AS b "
	"WHERE b.subscriber_id = f.subscriber_id AND b.task_id = f.task_id "
	"AND b.dead_at IS NULL AND b.next_attempt_at IS NOT NULL AND b.place < f.place)) "
	"ORDER BY f.place LIMIT $2",
	.arg_count = 2,
	.arg_types = {INT4OID, INT4OID},
};

/* Of events that were handed out: the row each has, and whether its task waits. */
static Statement read_rows = {
	.sql = "SELECT e.place::integer - 1, f.attempts, f.dead_at IS NOT NULL, "
	"f.attempts > 0 AND f.next_attempt_at IS NULL AND f.dead_at IS NULL, "
	"e.task_id <> 0 AND EXISTS (SELECT FROM tasker.subscriber_failure AS b "
	"WHERE b.subscriber_id = $1 AND b.task_id = e.task_id AND b.dead_at IS NULL) "
	"FROM unnest($2, $3) WITH ORDINALITY AS e (event_id, task_id, place) "
	"LEFT JOIN tasker.subscriber_failure AS f "
	"ON f.subscriber_id = $1 AND f.event_id = e.event_id",
	.arg_count = 3,
	.arg_types = {INT4OID, INT8ARRAYOID, INT8ARRAYOID},
};

static Statement read_events = {
	.sql = "SELECT e.place::integer - 1, e.occurred_at, e.name, e.task_id, e.step_id, e.payload "
	"FROM tasker._events($1, $2) AS e",
	.arg_count = 2,
	.arg_types = {INT8ARRAYOID, INT8ARRAYOID},
};

/* In the order of the arrays, which the numbers of their places follow. */
static Statement put_rows = {
	.sql = "INSERT INTO tasker.subscriber_failure "
	"(subscriber_id, event_id, row_id, task_id, attempts, next_attempt_at, dead_at, error) "
	"SELECT $1, r.event_id, r.row_id, r.task_id, r.attempts, r.next_attempt_at, r.dead_at, r.error "
	"FROM unnest($2, $3, $4, $5, $6, $7, $8) WITH ORDINALITY "
	"AS r (event_id, row_id, task_id, attempts, next_attempt_at, dead_at, error, n) "
	"WHERE EXISTS (SELECT FROM tasker.subscriber AS s WHERE s.subscriber_id = $1) "
	"ORDER BY r.n "
	"ON CONFLICT (subscriber_id, event_id) DO UPDATE "
	"SET task_id = excluded.task_id, place = DEFAULT, attempts = excluded.attempts, "
	"next_attempt_at = excluded.next_attempt_at, dead_at = excluded.dead_at, "
	"error = excluded.error",
	.arg_count = 8,
	.arg_types = {INT4OID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, INT4ARRAYOID,
	TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, JSONBARRAYOID},
};

/* It keeps its place. */
static Statement fail_row = {
	.sql = "UPDATE tasker.subscriber_failure AS f "
	"SET attempts = $3, next_attempt_at = $4, dead_at = $5, error = $6 "
	"WHERE f.subscriber_id = $1 AND f.event_id = $2",
	.arg_count = 6,
	.arg_types = {INT4OID, INT8OID, INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID, JSONBOID},
};

static Statement delete_rows = {
	.sql = "DELETE FROM tasker.subscriber_failure AS f "
	"WHERE f.subscriber_id = $1 AND f.event_id = ANY ($2)",
	.arg_count = 2,
	.arg_types = {INT4OID, INT8ARRAYOID},
};

static Statement read_row = {
	.sql = "SELECT f.attempts, f.dead_at IS NOT NULL, "
	"f.attempts > 0 AND f.next_attempt_at IS NULL AND f.dead_at IS NULL, s.name "
	"FROM tasker.subscriber AS s "
	"LEFT JOIN tasker.subscriber_failure AS f "
	"ON f.subscriber_id = s.subscriber_id AND f.event_id = $2 "
	"WHERE s.subscriber_id = $1",
	.arg_count = 2,
	.arg_types = {INT4OID, INT8OID},
};

/* Holds what a batch needs; what a round needs is in its caller's. */
static MemoryContext batch_context;
static HTAB *paces;

/* Of the batch at work, should it fail as a whole. */
static int	failed_count;
static int64 failed_event;

/* An event that ran alone, and could not be committed. */
static int32 doomed_subscriber = 0;
static int64 doomed_event;
static ErrorData *doom;

static WorkerSlot *
deliverer_slot(TaskerDatabase *database, int number)
{
	return &database->deliverer;
}

void
deliverer_look(void)
{
	uint32		unknown = DELIVERIES_UNKNOWN;

	/* What is committed from here on says so itself. */
	if (!pg_atomic_compare_exchange_u32(&my_database->deliveries, &unknown, DELIVERIES_NONE))
		return;
	if (SPI_execute("SELECT FROM tasker.subscriber AS s WHERE s.handler IS NOT NULL",
					false, 1) != SPI_OK_SELECT)
		elog(ERROR, "the subscribers could not be read");
	if (SPI_processed > 0 &&
		pg_atomic_exchange_u32(&my_database->deliveries, DELIVERIES_LOOK) < DELIVERIES_SOME)
		launcher_wake();
}

static Pace *
pace_of(int32 subscriber_id)
{
	bool		found;
	Pace	   *pace = hash_search(paces, &subscriber_id, HASH_ENTER, &found);

	if (!found)
	{
		pace->limit = 1;
		pace->look_waiting = true;
	}
	return pace;
}

static void
look_at_all_waiting(void)
{
	HASH_SEQ_STATUS scan;
	Pace	   *pace;

	hash_seq_init(&scan, paces);
	while ((pace = hash_seq_search(&scan)) != NULL)
		pace->look_waiting = true;
}

/* What of the events is an id, as an argument of a statement. */
#define DELIVERY_ARRAY(field) \
static Datum \
array_of_##field(const Round *round) \
{ \
	int64	   *values = palloc(Max(round->count, 1) * sizeof(int64)); \
	for (int i = 0; i < round->count; i++) \
		values[i] = round->deliveries[i].field; \
	return ids_argument(values, round->count); \
}

DELIVERY_ARRAY(event_id)
DELIVERY_ARRAY(row_id)
DELIVERY_ARRAY(task_id)

/*
 * Takes the events out of SPI: event_id, row_id, task_id, attempts.
 */
static void
take_deliveries(Round *round, uint64 rows, bool has_row)
{
	bool		isnull;

	round->count = rows;
	round->deliveries = palloc0(Max(rows, 1) * sizeof(Delivery));
	round->blocked = palloc(Max(rows, 1) * sizeof(int64));
	for (uint64 row = 0; row < rows; row++)
	{
		Delivery   *delivery = &round->deliveries[row];

		delivery->event_id = DatumGetInt64(row_value(row, 1, &isnull));
		delivery->row_id = DatumGetInt64(row_value(row, 2, &isnull));
		delivery->task_id = DatumGetInt64(row_value(row, 3, &isnull));
		delivery->attempts = DatumGetInt32(row_value(row, 4, &isnull));
		delivery->has_row = has_row;
	}
	SPI_freetuptable(SPI_tuptable);
	failed_count = round->count;
	failed_event = round->count > 0 ? round->deliveries[0].event_id : 0;
}

static bool
is_blocked(const Round *round, int64 task_id)
{
	for (int i = 0; task_id != 0 && i < round->blocked_count; i++)
		if (round->blocked[i] == task_id)
			return true;
	return false;
}

static void
block(Round *round, int64 task_id)
{
	if (task_id != 0 && !is_blocked(round, task_id))
		round->blocked[round->blocked_count++] = task_id;
}

/*
 * What came of a failed attempt: when it is tried again, or that it is not.
 * retry_after: in microseconds, what the handler asked for; -1: nothing.
 */
static void
fail(Round *round, Delivery *delivery, const ErrorData *error, int64 retry_after)
{
	TimestampTz now = tasker_now();
	bool		again;

	delivery->attempts++;
	again = delivery->attempts < tasker_subscriber_max_attempts &&
		error->sqlerrcode != ERRCODE_TASKER_PERMANENT;
	delivery->fate = FATE_FAILED;
	delivery->error = graph_error_in(batch_context, error->message,
									 unpack_sql_state(error->sqlerrcode), error->detail,
									 error->hint, error->context, delivery->attempts, again, now);
	delivery->due = !again ? 0 : now +
		(retry_after >= 0 ? retry_after :
		 graph_backoff(BASE_DELAY, MAX_DELAY, JITTER, delivery->attempts));
	if (again)
	{
		block(round, delivery->task_id);
		return;
	}
	round->freed = true;
	ereport(LOG,
			errmsg("event " INT64_FORMAT " is dead for subscriber \"%s\" after %d attempts",
				   delivery->event_id, round->subscriber->name, delivery->attempts),
			errdetail("%s", error->message ? error->message : "missing error text"),
			errhint("See tasker.dead_events; tasker.retry_dead_event() has it delivered again."));
}

/*
 * It could not have a lock, or was in somebody's way: that is no attempt.
 */
static void
put_aside(Round *round, Delivery *delivery)
{
	delivery->fate = FATE_FAILED;
	delivery->due = tasker_now() + SUSPECT_DELAY_US;
	block(round, delivery->task_id);
}

/*
 * Of new events: which must wait behind a row of their task, and which have a
 * row themselves.
 */
static void
read_own_rows(Round *round)
{
	Datum		values[3] = {
		Int32GetDatum(round->subscriber->subscriber_id),
		array_of_event_id(round), array_of_task_id(round)
	};
	uint64		rows = statement_run(&read_rows, values, NULL);

	for (uint64 row = 0; row < rows; row++)
	{
		bool		isnull;
		Delivery   *delivery = &round->deliveries[DatumGetInt32(row_value(row, 1, &isnull))];
		int			attempts = DatumGetInt32(row_value(row, 2, &isnull));

		delivery->has_row = !isnull;
		if (DatumGetBool(row_value(row, 5, &isnull)) && !isnull)
			block(round, delivery->task_id);
		if (!delivery->has_row)
			continue;
		delivery->is_dead = DatumGetBool(row_value(row, 3, &isnull));
		delivery->crashed = DatumGetBool(row_value(row, 4, &isnull));
		if (delivery->crashed)
			delivery->attempts = attempts;
		else if (!delivery->is_dead)
			delivery->fate = FATE_SKIPPED;
	}
	SPI_freetuptable(SPI_tuptable);
}

/*
 * What the events say.
 */
static void
describe(Round *round)
{
	Datum		values[2] = {array_of_event_id(round), array_of_row_id(round)};
	uint64		rows = statement_run(&read_events, values, NULL);

	for (uint64 row = 0; row < rows; row++)
	{
		bool		isnull;
		Delivery   *delivery = &round->deliveries[DatumGetInt32(row_value(row, 1, &isnull))];

		delivery->occurred_at = row_time(row, 2);
		delivery->name = row_text(row, 3, batch_context);
		delivery->event_task = row_value(row, 4, &delivery->no_task);
		delivery->event_step = row_value(row, 5, &delivery->no_step);
		delivery->payload = row_jsonb(row, 6, batch_context);
		delivery->described = delivery->name != NULL && delivery->payload != NULL;
	}
	SPI_freetuptable(SPI_tuptable);
}

static void
push_number(JsonbParseState **state, const char *key, int64 number)
{
	JsonbValue	value;

	graph_push_string(state, WJB_KEY, key);
	value.type = jbvNumeric;
	value.val.numeric = int64_to_numeric(number);
	pushJsonbValue(state, WJB_VALUE, &value);
}

/*
 * The event for a handler that takes jsonb: what it says, and beside it what
 * the columns of tasker.event say.
 */
static Datum
event_as_jsonb(const Delivery *delivery)
{
	JsonbParseState *state = NULL;
	char		when[MAXDATELEN + 1];
	Jsonb	   *beside;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	graph_push_string(&state, WJB_KEY, "event_id");
	graph_push_string(&state, WJB_VALUE, psprintf(INT64_FORMAT, delivery->event_id));
	graph_push_string(&state, WJB_KEY, "event");
	graph_push_string(&state, WJB_VALUE, delivery->name);
	graph_push_string(&state, WJB_KEY, "occurred_at");
	graph_push_string(&state, WJB_VALUE,
					  JsonEncodeDateTime(when, TimestampTzGetDatum(delivery->occurred_at),
										 TIMESTAMPTZOID, NULL));
	if (!delivery->no_task)
		push_number(&state, "task_id", DatumGetInt64(delivery->event_task));
	if (!delivery->no_step)
		push_number(&state, "step_id", DatumGetInt64(delivery->event_step));
	push_number(&state, "attempt", delivery->attempts + 1);
	if (!JB_ROOT_IS_OBJECT(delivery->payload))
	{
		graph_push_string(&state, WJB_KEY, "payload");
		graph_push_jsonb(&state, WJB_VALUE, delivery->payload);
	}
	beside = JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
	if (!JB_ROOT_IS_OBJECT(delivery->payload))
		return JsonbPGetDatum(beside);
	return DirectFunctionCall2(jsonb_concat, JsonbPGetDatum(delivery->payload),
							   JsonbPGetDatum(beside));
}

/* The subject of a call. */
typedef struct EventSubject
{
	Round	   *round;
	Delivery   *delivery;
} EventSubject;

static Datum
event_argument(void *subject)
{
	Delivery   *delivery = ((EventSubject *) subject)->delivery;
	TupleDesc	desc = plan_event();
	bool		nulls[EVENT_COLUMNS] = {0};
	Datum		values[EVENT_COLUMNS];

	if (((EventSubject *) subject)->round->handler->takes_jsonb)
		return event_as_jsonb(delivery);
	if (desc->natts != EVENT_COLUMNS)
		elog(ERROR, "tasker.event has %d columns, expected %d", desc->natts, EVENT_COLUMNS);
	values[0] = Int64GetDatum(delivery->event_id);
	values[1] = TimestampTzGetDatum(delivery->occurred_at);
	values[2] = CStringGetTextDatum(delivery->name);
	values[3] = delivery->event_task;
	nulls[3] = delivery->no_task;
	values[4] = delivery->event_step;
	nulls[4] = delivery->no_step;
	values[5] = JsonbPGetDatum(delivery->payload);
	values[6] = Int32GetDatum(delivery->attempts + 1);
	return HeapTupleGetDatum(heap_form_tuple(desc, values, nulls));
}

static void
event_timed_out(void *subject, int64 allowed, ErrorData *error)
{
	Round	   *round = ((EventSubject *) subject)->round;

	error->message = psprintf("handler timed out after %g s", (double) allowed / USECS_PER_SEC);
	error->detail = psprintf("tasker.subscriber_handler_timeout is up for subscriber \"%s\".",
							 round->subscriber->name);
	error->hint = pstrdup("Raise the setting, or make the handler do less.");
}

/*
 * Gives one event to the handler, and takes in how that ended.
 */
static void
deliver(Round *round, Delivery *delivery)
{
	EventSubject subject = {round, delivery};
	HandlerOutcome outcome;
	HandlerCall call = {
		.handler = round->handler,
		.allowed = (int64) tasker_subscriber_handler_timeout * 1000,
		/* It is inside a handler, whether the event has a task or not. */
		.task_id = delivery->task_id != 0 ? delivery->task_id : -1,
		.context = batch_context,
		.repair = "Create the function, or subscribe with another one; the event is tried again.",
		.subject = &subject,
		.argument = event_argument,
		.timed_out = event_timed_out,
	};

	my_slot->task_id = delivery->task_id;
	my_slot->since = tasker_now();
	flight_note_delivering(round->subscriber->subscriber_id, delivery->event_id,
						   delivery->row_id);
	handler_call(&call, &outcome);
	flight_note_idle();
	my_slot->task_id = 0;

	round->ran++;
	round->writing += outcome.wrote;
	round->closed = outcome.ends_batch || round->writing >= MAX_WRITING ||
		GetCurrentTimestamp() >= TimestampTzPlusMilliseconds(round->began_at, tasker_batch_budget);
	if (outcome.ok)
	{
		delivery->fate = FATE_DONE;
		round->freed |= delivery->has_row;
	}
	else if (handler_is_suspect(outcome.error->sqlerrcode) && round->count > 1)
		put_aside(round, delivery);
	else
		fail(round, delivery, outcome.error, outcome.retry_after);
}

/*
 * The server went down so often when it was given to the handler.
 */
static void
settle_crashed(Round *round, Delivery *delivery)
{
	ErrorData	error = {0};

	error.sqlerrcode = ERRCODE_CRASH_SHUTDOWN;
	error.message = delivery->attempts == 1 ? pstrdup("the deliverer died while the handler ran") :
		psprintf("the deliverer died %d times while the handler ran", delivery->attempts);
	error.detail = pstrdup("The server crashed, or the handler went on when it was cancelled after its timeout.");
	error.hint = pstrdup("See the server log for the cause.");
	/* The last of these crashes is the attempt that is counted now. */
	delivery->attempts--;
	fail(round, delivery, &error, -1);
}

static void
deliver_next(Round *round, Delivery *delivery)
{
	if (delivery->fate != FATE_OPEN)
		return;
	if (is_blocked(round, delivery->task_id))
		delivery->fate = FATE_WAITS;
	else if (round->closed)
	{
		delivery->fate = FATE_WAITS;
		round->spilled = true;
		block(round, delivery->task_id);
	}
	else if (delivery->crashed)
		settle_crashed(round, delivery);
	else if (!delivery->described)
		delivery->fate = FATE_DONE; /* what it was read from is gone */
	else if (doomed_subscriber == round->subscriber->subscriber_id &&
			 doomed_event == delivery->event_id)
		fail(round, delivery, doom, -1);
	else
		deliver(round, delivery);
}

/*
 * An event that had a row before and keeps its place.
 */
static void
store_failure(const Round *round, const Delivery *delivery)
{
	Datum		values[6] = {
		Int32GetDatum(round->subscriber->subscriber_id), Int64GetDatum(delivery->event_id),
		Int32GetDatum(delivery->attempts), TimestampTzGetDatum(delivery->due),
		TimestampTzGetDatum(tasker_now()), JsonbPGetDatum(delivery->error)
	};
	char		nulls[7] = "      ";

	nulls[delivery->due == 0 ? 3 : 4] = 'n';
	if (delivery->error == NULL)
		nulls[5] = 'n';
	statement_run(&fail_row, values, nulls);
}

/*
 * Arrays of what put_rows takes, filled one row after the other.
 */
typedef struct NewRows
{
	int			count;
	Datum	   *values[7];
	bool	   *nulls[7];
} NewRows;

static void
new_rows_init(NewRows *rows, int space)
{
	rows->count = 0;
	for (int i = 0; i < lengthof(rows->values); i++)
	{
		rows->values[i] = palloc0(space * sizeof(Datum));
		rows->nulls[i] = palloc0(space * sizeof(bool));
	}
}

static void
new_rows_add(NewRows *rows, const Delivery *delivery, int64 task_id)
{
	int			n = rows->count++;
	bool		failed = delivery->fate == FATE_FAILED;
	bool		is_mark = delivery->fate == FATE_OPEN && delivery->crashed;

	rows->values[0][n] = Int64GetDatum(delivery->event_id);
	rows->values[1][n] = Int64GetDatum(delivery->row_id);
	rows->values[2][n] = Int64GetDatum(task_id);
	rows->values[3][n] = Int32GetDatum(failed || is_mark ? delivery->attempts : 0);
	rows->values[4][n] = TimestampTzGetDatum(delivery->due);
	rows->nulls[4][n] = !failed || delivery->due == 0;
	rows->values[5][n] = TimestampTzGetDatum(tasker_now());
	rows->nulls[5][n] = !failed || delivery->due != 0;
	rows->values[6][n] = JsonbPGetDatum(delivery->error);
	rows->nulls[6][n] = delivery->error == NULL;
}

static void
store_new_rows(int32 subscriber_id, NewRows *rows)
{
	static const struct
	{
		Oid			type;
		int			length;
		bool		by_value;
		char		align;
	}			column[] = {
		{INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE},
		{INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE},
		{INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE},
		{INT4OID, sizeof(int32), true, TYPALIGN_INT},
		{TIMESTAMPTZOID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE},
		{TIMESTAMPTZOID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE},
		{JSONBOID, -1, false, TYPALIGN_INT},
	};
	Datum		values[8] = {Int32GetDatum(subscriber_id)};
	int			lower = 1;

	if (rows->count == 0)
		return;
	for (int i = 0; i < lengthof(column); i++)
		values[i + 1] = PointerGetDatum(construct_md_array(rows->values[i], rows->nulls[i], 1,
														   &rows->count, &lower, column[i].type,
														   column[i].length, column[i].by_value,
														   column[i].align));
	statement_run(&put_rows, values, NULL);
}

/*
 * Writes down what came of the events.
 */
static void
store_round(Round *round)
{
	NewRows		rows;
	int64	   *settled = palloc(Max(round->count, 1) * sizeof(int64));
	int			settled_count = 0;

	new_rows_init(&rows, Max(round->count, 1));
	for (int i = 0; i < round->count; i++)
	{
		Delivery   *delivery = &round->deliveries[i];
		bool		keeps_row = delivery->has_row && !delivery->is_dead && !delivery->crashed;

		switch (delivery->fate)
		{
			case FATE_DONE:
				if (delivery->has_row)
					settled[settled_count++] = delivery->event_id;
				break;
			case FATE_WAITS:
				if (!keeps_row)
					new_rows_add(&rows, delivery, delivery->task_id);
				break;
			case FATE_FAILED:
				if (keeps_row)
					store_failure(round, delivery);
				else
					new_rows_add(&rows, delivery, delivery->task_id);
				break;
			case FATE_OPEN:
			case FATE_SKIPPED:
				break;
		}
	}
	store_new_rows(round->subscriber->subscriber_id, &rows);
	if (settled_count > 0)
	{
		Datum		values[2] = {
			Int32GetDatum(round->subscriber->subscriber_id),
			ids_argument(settled, settled_count)
		};

		statement_run(&delete_rows, values, NULL);
	}
}

/*
 * How many events to take the next time: as many as fit into three quarters of
 * a batch's time, and into its subtransactions.  What does not fit costs a row
 * each.
 */
static void
adapt_pace(Round *round, int asked)
{
	Pace	   *pace = round->pace;
	int64		fit = MAX_EVENTS;

	pace->look_waiting |= round->spilled || round->freed;
	if (round->ran == 0 || (!round->spilled && (round->count < asked || asked < pace->limit)))
		return;
	fit = Min(fit, round->ran * (int64) tasker_batch_budget * 750 / Max(round->us, 1));
	if (round->writing > 0)
		fit = Min(fit, (int64) round->ran * MAX_WRITING / round->writing);
	pace->limit = Max(Min(fit, pace->limit * 2), 1);
}

typedef enum Source
{
	SOURCE_DUE,
	SOURCE_WAITING,
	SOURCE_NEW
} Source;

static uint64
read_source(Source source, int32 subscriber_id, int limit)
{
	Datum		values[2] = {Int32GetDatum(subscriber_id), Int32GetDatum(limit)};

	switch (source)
	{
		case SOURCE_DUE:
			values[1] = TimestampTzGetDatum(tasker_now());
			return statement_run(&next_due, values, NULL);
		case SOURCE_WAITING:
			return statement_run(&next_waiting, values, NULL);
		case SOURCE_NEW:
			break;
	}
	return statement_run(&next_events, values, NULL);
}

/*
 * A batch of a subscriber's events.  Returns their number.
 */
static int
deliver_batch(Subscriber *subscriber, Source source)
{
	Round		round = {.subscriber = subscriber};
	Pace	   *pace = pace_of(subscriber->subscriber_id);
	int			asked = source == SOURCE_DUE ? 1 : pace->limit;

	MemoryContextReset(batch_context);
	failed_count = 0;
	worker_begin();
	plan_cache_refresh();
	if (!engine_may_run())
	{
		worker_commit();
		return 0;
	}
	MemoryContextSwitchTo(batch_context);
	round.pace = pace;
	round.handler = plan_subscriber_handler(subscriber->subscriber_id, subscriber->name,
											subscriber->signature, subscriber->role,
											subscriber->search_path);
	take_deliveries(&round, read_source(source, subscriber->subscriber_id, asked),
					source != SOURCE_NEW);
	if (round.count > 0)
	{
		/* Whoever commits something from now on is heard the next time. */
		worker_busy();
		if (source == SOURCE_NEW && subscriber->has_rows)
			read_own_rows(&round);
		describe(&round);
		executor_set_lock_timeout(round.count > 1 ? BATCH_LOCK_TIMEOUT : tasker_lock_timeout);
		round.began_at = GetCurrentTimestamp();
		for (int i = 0; i < round.count; i++)
		{
			CHECK_FOR_INTERRUPTS();
			deliver_next(&round, &round.deliveries[i]);
		}
		round.us = GetCurrentTimestamp() - round.began_at;
		store_round(&round);
	}
	worker_commit();
	LockReleaseSession(USER_LOCKMETHOD);

	if (source == SOURCE_WAITING)
		pace->look_waiting = round.count > 0;
	adapt_pace(&round, asked);
	subscriber->has_rows = true;
	return round.count;
}

/*
 * A batch that may fail as a whole: then its events are taken one at a time,
 * and the one that fails alone, too, has failed.
 */
static int
guarded_batch(Subscriber *subscriber, Source source)
{
	static int	errors = 0;		/* in a row */
	MemoryContext caller = CurrentMemoryContext;
	ErrorData  *volatile error = NULL;
	volatile int count = 0;

	PG_TRY();
	{
		count = deliver_batch(subscriber, source);
	}
	PG_CATCH();
	{
		error = executor_after_error(TopMemoryContext);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	if (doom != NULL)
		FreeErrorData(doom);
	doom = NULL;
	doomed_subscriber = 0;
	if (error == NULL)
	{
		errors = 0;
		return count;
	}

	/* Errors that come in a row are not made to come faster. */
	worker_sleep(TimestampTzPlusMilliseconds(tasker_now(), Min(1 << Min(errors++, 10), 1000)),
				 "a moment after an error");
	pace_of(subscriber->subscriber_id)->limit = 1;
	if (failed_count != 1)
	{
		FreeErrorData(error);
		return failed_count;
	}
	doom = error;
	doomed_subscriber = subscriber->subscriber_id;
	doomed_event = failed_event;
	return 1;
}

/*
 * Reads who has a handler, and what there may be to do for each.
 */
static List *
read_all_subscribers(MemoryContext context)
{
	uint64		rows = statement_run(&read_subscribers, NULL, NULL);
	MemoryContext before = MemoryContextSwitchTo(context);
	List	   *all = NIL;

	for (uint64 row = 0; row < rows; row++)
	{
		Subscriber *subscriber = palloc0(sizeof(Subscriber));
		bool		isnull;

		subscriber->subscriber_id = DatumGetInt32(row_value(row, 1, &isnull));
		subscriber->name = row_text(row, 2, context);
		subscriber->signature = row_text(row, 3, context);
		subscriber->role = row_text(row, 4, context);
		subscriber->search_path = row_text(row, 5, context);
		subscriber->has_new = DatumGetBool(row_value(row, 6, &isnull)) && !isnull;
		subscriber->has_rows = DatumGetBool(row_value(row, 7, &isnull));
		subscriber->due = row_time(row, 8);
		all = lappend(all, subscriber);
	}
	MemoryContextSwitchTo(before);
	return all;
}

/*
 * Ends this process where no subscriber has a handler any more; not when
 * somebody said meanwhile that one may have.
 */
static void
retire_if_idle(const List *all)
{
	uint32		some = DELIVERIES_SOME;

	if (all == NIL &&
		pg_atomic_compare_exchange_u32(&my_database->deliveries, &some, DELIVERIES_NONE))
		worker_retire();
}

/*
 * One look at everything.  Returns when to come back by itself: 0: at once.
 */
static TimestampTz
do_round(void)
{
	MemoryContext caller = CurrentMemoryContext;
	TimestampTz wake = PG_INT64_MAX;
	TimestampTz now = tasker_now();
	List	   *all;
	ListCell   *cell;
	bool		may_run;

	/* Before anything is read: what changes later raises it again. */
	if (pg_atomic_exchange_u32(&my_database->deliveries, DELIVERIES_SOME) != DELIVERIES_SOME)
		look_at_all_waiting();
	worker_begin();
	may_run = engine_may_run();
	all = may_run ? read_all_subscribers(caller) : NIL;
	worker_commit();
	MemoryContextSwitchTo(caller);
	if (!may_run)
		return PG_INT64_MAX;
	retire_if_idle(all);

	foreach(cell, all)
	{
		Subscriber *subscriber = lfirst(cell);
		int			count = 0;

		worker_check();
		if (subscriber->due != 0 && subscriber->due <= now)
			count += guarded_batch(subscriber, SOURCE_DUE);
		else if (subscriber->due != 0)
			wake = Min(wake, subscriber->due);
		if (subscriber->has_rows && pace_of(subscriber->subscriber_id)->look_waiting)
			count += guarded_batch(subscriber, SOURCE_WAITING);
		if (subscriber->has_new)
			count += guarded_batch(subscriber, SOURCE_NEW);
		if (count > 0)
			wake = 0;
	}
	return wake;
}

static TimestampTz
guarded_round(void)
{
	MemoryContext caller = CurrentMemoryContext;
	volatile TimestampTz wake;

	PG_TRY();
	{
		wake = do_round();
	}
	PG_CATCH();
	{
		FreeErrorData(executor_after_error(caller));
		wake = tasker_now() + USECS_PER_SEC;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	return wake;
}

/*
 * Writes down that an event was with its handler when a deliverer died.  One
 * that had failed before counts this as one more attempt; of any other the
 * number is kept until it is handed out again.
 */
static void
judge(const FlightSuspect *suspect)
{
	Subscriber	subscriber = {.subscriber_id = suspect->subscriber_id};
	Round		round = {.subscriber = &subscriber};
	Delivery	delivery = {.event_id = suspect->event_id, .row_id = suspect->row_id};
	Datum		key[2] = {Int32GetDatum(suspect->subscriber_id), Int64GetDatum(suspect->event_id)};
	NewRows		rows;
	bool		isnull;

	MemoryContextReset(batch_context);
	worker_begin();
	MemoryContextSwitchTo(batch_context);
	if (statement_run(&read_row, key, NULL) == 0)
	{
		worker_commit();
		return;
	}
	delivery.attempts = DatumGetInt32(row_value(0, 1, &isnull));
	delivery.has_row = !isnull;
	delivery.is_dead = DatumGetBool(row_value(0, 2, &isnull));
	delivery.crashed = DatumGetBool(row_value(0, 3, &isnull)) && !isnull;
	subscriber.name = row_text(0, 4, batch_context);
	SPI_freetuptable(SPI_tuptable);

	round.blocked = palloc(sizeof(int64));
	if (delivery.has_row && !delivery.is_dead && !delivery.crashed)
	{
		delivery.attempts++;
		settle_crashed(&round, &delivery);
		store_failure(&round, &delivery);
	}
	else
	{
		delivery.attempts = delivery.is_dead || !delivery.has_row ? 1 : delivery.attempts + 1;
		delivery.crashed = true;
		new_rows_init(&rows, 1);
		new_rows_add(&rows, &delivery, 0);
		store_new_rows(subscriber.subscriber_id, &rows);
	}
	worker_commit();
	ereport(LOG,
			errmsg(suspect->overran ?
				   "the handler of subscriber \"%s\" outlived its timeout at event " INT64_FORMAT :
				   "the deliverer crashed while subscriber \"%s\" had event " INT64_FORMAT,
				   subscriber.name, delivery.event_id),
			errdetail("That is attempt %d; after %d the event is dead.", delivery.attempts,
					  tasker_subscriber_max_attempts));
}

/*
 * Deals with what a dead deliverer left.
 */
static void
judge_suspects(void)
{
	MemoryContext caller = CurrentMemoryContext;
	FlightSuspect suspect;

	while (flight_next_suspect(true, &suspect))
	{
		PG_TRY();
		{
			if (suspect.event_id != 0)
				judge(&suspect);
		}
		PG_CATCH();
		{
			/* Not counted, but not tried for ever. */
			FreeErrorData(executor_after_error(caller));
		}
		PG_END_TRY();
		MemoryContextSwitchTo(caller);
		flight_forget(&suspect);
	}
}

void
tasker_deliverer_main(Datum arg)
{
	MemoryContext loop;
	HASHCTL		ctl = {.keysize = sizeof(int32), .entrysize = sizeof(Pace)};

	worker_start(arg, deliverer_slot);
	handler_init();
	batch_context = AllocSetContextCreate(TopMemoryContext, "tasker batch",
										  ALLOCSET_DEFAULT_SIZES);
	paces = hash_create("tasker paces", 16, &ctl, HASH_ELEM | HASH_BLOBS);
	loop = AllocSetContextCreate(TopMemoryContext, "tasker deliverer", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(loop);
	flight_open();
	judge_suspects();
	flight_attach(FLIGHT_DELIVERER);

	for (;;)
	{
		TimestampTz wake;

		MemoryContextReset(loop);
		worker_check();

		/*
		 * Whoever commits events from now on wakes us, and what was committed
		 * before is found by this look.
		 */
		worker_idle();
		wake = guarded_round();
		if (wake != 0 && worker_is_idle())
			worker_sleep(wake, "events");
	}
}
