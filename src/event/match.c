/*
 * match.c
 *	  Which subscriber wants which event: tasker._match().
 *
 * The notifier asks for every new tick and all subscribers at once, so what it
 * costs must not be events times subscribers.  A filter that asks for something
 * that every event of a task carries is looked up by that: one search in a hash
 * table finds, for each task and not for each event, the few subscribers among
 * many.  The rest of a filter is held against what is known of the task, and
 * only where that can't decide against the payload, which is made for that.
 *
 * In C, as the planner knows nothing of how many events, names and subscribers
 * meet, and a plan that is wrong once stops the events of all.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/bitmapset.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

#include "event/event.h"
#include "statement.h"
#include "tasker.h"

#define MAX_NAME		NAMEDATALEN * 4

PG_FUNCTION_INFO_V1(tasker_match);

typedef struct Subscriber
{
	int32		id;
	Datum	   *patterns;		/* names and prefixes */
	int			pattern_count;
	Jsonb	   *filter;			/* NULL: none */
	char	   *namespace;		/* NULL: any */
	char	   *probe_key;		/* NULL: none */
	JsonbValue	probe_value;
	bool		is_probe_all;
	Birth		birth;
	int			next;			/* with the same hash of key and value; -1: none */
} Subscriber;

typedef struct Probe
{
	uint32		hash;			/* of key and value: the hash table's key */
	int			first;			/* subscriber */
} Probe;

/* A name that occurs, and who wants it. */
typedef struct EventName
{
	char		name[MAX_NAME];
	Bitmapset  *wanted_by;
} EventName;

typedef struct Task
{
	int64		task_id;		/* the hash table's key */
	char	   *namespace;
	Jsonb	   *facts;			/* NULL: the task is gone, or nobody asks */
	List	   *found;			/* of subscribers whose probe it answers to */
} Task;

typedef struct Event
{
	int64		tick_id;
	TimestampTz at;
	int64		event_id;
	int64		row_id;
	int64		task_id;
	EventName  *name;
	char	   *namespace;
} Event;

/* A subscriber that may want an event. */
typedef struct Candidate
{
	Event	   *event;
	Subscriber *subscriber;
} Candidate;

typedef struct Match
{
	Event	   *events;
	int			event_count;
	Subscriber *subscribers;
	int			subscriber_count;
	Bitmapset  *unprobed;		/* subscribers that can't be looked up */
	List	   *probe_keys;		/* of char * */
	bool		needs_tasks;
	HTAB	   *names;
	HTAB	   *tasks;
	HTAB	   *probes;
	Candidate  *undecided;		/* to be decided by the payload */
	int			undecided_count;
	int			undecided_space;
	ReturnSetInfo *result;
} Match;

static HTAB *
make_table(const char *name, Size key_size, Size entry_size, int flags)
{
	HASHCTL		control;

	memset(&control, 0, sizeof(control));
	control.keysize = key_size;
	control.entrysize = entry_size;
	control.hcxt = CurrentMemoryContext;
	return hash_create(name, 256, &control, HASH_ELEM | HASH_CONTEXT | flags);
}

/* Texts that outlive SPI's; NULL for null. */
static Datum *
copy_texts(uint64 row, int column, MemoryContext context, int *count)
{
	bool		isnull;
	Datum		value = row_value(row, column, &isnull);
	Datum	   *elements;
	MemoryContext before;

	*count = 0;
	if (isnull)
		return NULL;
	before = MemoryContextSwitchTo(context);
	deconstruct_array(DatumGetArrayTypePCopy(value), TEXTOID, -1, false, TYPALIGN_INT, &elements,
					  NULL, count);
	MemoryContextSwitchTo(before);
	return elements;
}

static uint32
hash_probe(const char *key, const JsonbValue *value)
{
	uint32		hash = string_hash(key, strlen(key) + 1);

	JsonbHashScalarValue(value, &hash);
	return hash;
}

/* The only value of a jsonb that is a scalar. */
static void
scalar_of(Jsonb *jsonb, JsonbValue *value)
{
	if (!JsonbExtractScalar(&jsonb->root, value))
		elog(ERROR, "a probe is no scalar");
}

static void
read_subscribers(Match *match, Datum ids, MemoryContext context)
{
	static Statement statement = {
		"SELECT s.subscriber_id, s.events, s.filter, s.namespace, s.probe_key, s.probe_value, "
		"       s.is_probe_all, c.born_xmax, c.born_running "
		"FROM unnest($1) AS i (subscriber_id) "
		"JOIN tasker.subscriber AS s ON s.subscriber_id = i.subscriber_id "
		"JOIN tasker.subscriber_cursor AS c ON c.subscriber_id = i.subscriber_id",
		1, {INT4ARRAYOID}
	};
	uint64		count = statement_run(&statement, &ids, NULL);

	match->subscribers = MemoryContextAllocZero(context, (count + 1) * sizeof(Subscriber));
	match->subscriber_count = count;
	for (int i = 0; i < match->subscriber_count; i++)
	{
		Subscriber *subscriber = &match->subscribers[i];
		Jsonb	   *probe;
		bool		isnull;

		subscriber->id = DatumGetInt32(row_value(i, 1, &isnull));
		subscriber->patterns = copy_texts(i, 2, context, &subscriber->pattern_count);
		subscriber->filter = row_jsonb(i, 3, context);
		subscriber->namespace = row_text(i, 4, context);
		subscriber->probe_key = row_text(i, 5, context);
		probe = row_jsonb(i, 6, context);
		subscriber->is_probe_all = DatumGetBool(row_value(i, 7, &isnull));
		birth_read(i, 8, &subscriber->birth);
		subscriber->next = -1;
		if (probe == NULL)
			subscriber->probe_key = NULL;
		else
			scalar_of(probe, &subscriber->probe_value);
		if (subscriber->filter != NULL || subscriber->namespace != NULL)
			match->needs_tasks = true;
	}
}

/* Who can be looked up, by what; and who can't. */
static void
index_subscribers(Match *match)
{
	match->probes = make_table("tasker probes", sizeof(uint32), sizeof(Probe), HASH_BLOBS);
	for (int i = 0; i < match->subscriber_count; i++)
	{
		Subscriber *subscriber = &match->subscribers[i];
		bool		known = false;
		ListCell   *cell;
		Probe	   *probe;
		uint32		hash;
		bool		found;

		if (subscriber->probe_key == NULL)
		{
			match->unprobed = bms_add_member(match->unprobed, i);
			continue;
		}
		foreach(cell, match->probe_keys)
			known |= strcmp(lfirst(cell), subscriber->probe_key) == 0;
		if (!known)
			match->probe_keys = lappend(match->probe_keys, subscriber->probe_key);
		hash = hash_probe(subscriber->probe_key, &subscriber->probe_value);
		probe = hash_search(match->probes, &hash, HASH_ENTER, &found);
		subscriber->next = found ? probe->first : -1;
		probe->first = i;
	}
}

/* Whether a name is the pattern, or begins with what stands before its asterisk. */
static bool
name_matches(Datum pattern, const char *name)
{
	text	   *value = DatumGetTextPP(pattern);
	const char *p = VARDATA_ANY(value);
	int			length = VARSIZE_ANY_EXHDR(value);
	int			name_length = strlen(name);

	if (length > 0 && p[length - 1] == '*')
		return name_length >= length - 1 && memcmp(p, name, length - 1) == 0;
	return name_length == length && memcmp(p, name, length) == 0;
}

/* The entry of a name, made with who wants it when it is first met. */
static EventName *
find_name(Match *match, const char *name)
{
	char		key[MAX_NAME] = {0};
	EventName  *entry;
	bool		found;

	strlcpy(key, name, sizeof(key));
	entry = hash_search(match->names, key, HASH_ENTER, &found);
	if (found)
		return entry;
	entry->wanted_by = NULL;
	for (int i = 0; i < match->subscriber_count; i++)
	{
		Subscriber *subscriber = &match->subscribers[i];

		for (int n = 0; n < subscriber->pattern_count; n++)
		{
			if (!name_matches(subscriber->patterns[n], name))
				continue;
			entry->wanted_by = bms_add_member(entry->wanted_by, i);
			break;
		}
	}
	return entry;
}

static void
read_events(Match *match, int64 first, int64 last, MemoryContext context)
{
	static Statement statement = {
		"SELECT e.tick_id, e.at, e.event_id, e.row_id, e.task_id, e.name, e.namespace "
		"FROM tasker._tick_event AS e "
		"WHERE e.tick_id BETWEEN $1 AND $2 "
		"  AND e.name IS NOT NULL",
		2, {INT8OID, INT8OID}
	};
	Datum		arguments[] = {Int64GetDatum(first), Int64GetDatum(last)};
	uint64		count = statement_run(&statement, arguments, NULL);
	MemoryContext before = MemoryContextSwitchTo(context);

	match->names = make_table("tasker event names", MAX_NAME, sizeof(EventName), HASH_STRINGS);
	match->events = MemoryContextAllocHuge(context, (count + 1) * sizeof(Event));
	match->event_count = count;
	for (int i = 0; i < match->event_count; i++)
	{
		Event	   *event = &match->events[i];
		bool		isnull;

		event->tick_id = DatumGetInt64(row_value(i, 1, &isnull));
		event->at = DatumGetTimestampTz(row_value(i, 2, &isnull));
		event->event_id = DatumGetInt64(row_value(i, 3, &isnull));
		event->row_id = DatumGetInt64(row_value(i, 4, &isnull));
		event->task_id = DatumGetInt64(row_value(i, 5, &isnull));
		event->name = find_name(match, row_text(i, 6, context));
		event->namespace = row_text(i, 7, context);
	}
	MemoryContextSwitchTo(before);
	SPI_freetuptable(SPI_tuptable);
}

static bool
scalars_equal(const JsonbValue *a, const JsonbValue *b)
{
	if (a->type != b->type)
		return false;
	switch (a->type)
	{
		case jbvString:
			return a->val.string.len == b->val.string.len &&
				memcmp(a->val.string.val, b->val.string.val, a->val.string.len) == 0;
		case jbvNumeric:
			return DatumGetBool(DirectFunctionCall2(numeric_eq, NumericGetDatum(a->val.numeric),
													NumericGetDatum(b->val.numeric)));
		default:
			return false;
	}
}

/* Adds the subscribers that ask for this value of a task to those that it answers to. */
static void
add_found(Match *match, Task *task, const char *key, const JsonbValue *value)
{
	uint32		hash = hash_probe(key, value);
	Probe	   *probe = hash_search(match->probes, &hash, HASH_FIND, NULL);

	if (probe == NULL)
		return;
	for (int i = probe->first; i >= 0; i = match->subscribers[i].next)
	{
		Subscriber *subscriber = &match->subscribers[i];

		if (strcmp(subscriber->probe_key, key) == 0 &&
			scalars_equal(&subscriber->probe_value, value))
			task->found = list_append_unique_int(task->found, i);
	}
}

/* Looks up who asks for this task: by a value, or by one of a list of values. */
static void
probe_task(Match *match, Task *task)
{
	ListCell   *cell;

	foreach(cell, match->probe_keys)
	{
		const char *key = lfirst(cell);
		JsonbValue *value = getKeyJsonValueFromContainer(&task->facts->root, key, strlen(key), NULL);
		JsonbIterator *iterator;
		JsonbIteratorToken token;
		JsonbValue	element;

		if (value == NULL)
			continue;
		if (value->type != jbvBinary)
		{
			add_found(match, task, key, value);
			continue;
		}
		iterator = JsonbIteratorInit(value->val.binary.data);
		while ((token = JsonbIteratorNext(&iterator, &element, true)) != WJB_DONE)
			if (token == WJB_ELEM && element.type != jbvBinary)
				add_found(match, task, key, &element);
	}
}

/* What every event of these tasks carries. */
static void
read_tasks(Match *match, MemoryContext context)
{
	static Statement statement = {
		"SELECT f.task_id, f.namespace, f.facts FROM tasker._task_facts($1) AS f",
		1, {INT8ARRAYOID}
	};
	int64	   *ids = MemoryContextAllocHuge(context, (match->event_count + 1) * sizeof(int64));
	int			count = 0;
	Datum		argument;
	uint64		rows;

	match->tasks = make_table("tasker tasks of events", sizeof(int64), sizeof(Task), HASH_BLOBS);
	for (int i = 0; i < match->event_count; i++)
	{
		int64		task_id = match->events[i].task_id;
		Task	   *task;
		bool		found;

		if (task_id == 0)
			continue;
		task = hash_search(match->tasks, &task_id, HASH_ENTER, &found);
		if (found)
			continue;
		task->namespace = NULL;
		task->facts = NULL;
		task->found = NIL;
		ids[count++] = task_id;
	}
	if (!match->needs_tasks || count == 0)
		return;
	argument = ids_argument(ids, count);
	rows = statement_run(&statement, &argument, NULL);
	for (uint64 i = 0; i < rows; i++)
	{
		bool		isnull;
		int64		task_id = DatumGetInt64(row_value(i, 1, &isnull));
		Task	   *task = hash_search(match->tasks, &task_id, HASH_FIND, NULL);

		if (task == NULL)
			continue;
		task->namespace = row_text(i, 2, context);
		task->facts = row_jsonb(i, 3, context);
		if (task->facts != NULL)
			probe_task(match, task);
	}
	SPI_freetuptable(SPI_tuptable);
}

void
birth_read(uint64 row, int column, Birth *birth)
{
	bool		isnull;
	Datum		running;

	birth->next = DatumGetInt64(row_value(row, column, &isnull));
	birth->is_known = !isnull;
	birth->running_count = 0;
	running = row_value(row, column + 1, &isnull);
	if (!isnull)
		birth->running = ids_of(running, &birth->running_count);
}

bool
birth_precedes(const Birth *birth, int64 row_id)
{
	int64		number = row_id >> LOG_ID_BITS;

	if (!birth->is_known || number >= birth->next)
		return true;
	for (int i = 0; i < birth->running_count; i++)
		if (birth->running[i] == number)
			return true;
	return false;
}

static bool
contains(Jsonb *jsonb, Jsonb *part)
{
	JsonbIterator *whole = JsonbIteratorInit(&jsonb->root);
	JsonbIterator *asked = JsonbIteratorInit(&part->root);

	return JsonbDeepContains(&whole, &asked);
}

/* Whether what is known of the task has every key that the filter asks for. */
static bool
facts_decide(const Task *task, const Subscriber *subscriber)
{
	JsonbIterator *iterator = JsonbIteratorInit(&subscriber->filter->root);
	JsonbIteratorToken token;
	JsonbValue	key;

	while ((token = JsonbIteratorNext(&iterator, &key, true)) != WJB_DONE)
		if (token == WJB_KEY &&
			getKeyJsonValueFromContainer(&task->facts->root, key.val.string.val,
										 key.val.string.len, NULL) == NULL)
			return false;
	return true;
}

static void
put_match(Match *match, const Event *event, const Subscriber *subscriber)
{
	Datum		values[6];
	bool		nulls[6] = {0};

	values[0] = Int32GetDatum(subscriber->id);
	values[1] = Int64GetDatum(event->tick_id);
	values[2] = TimestampTzGetDatum(event->at);
	values[3] = Int64GetDatum(event->event_id);
	values[4] = Int64GetDatum(event->row_id);
	values[5] = Int64GetDatum(event->task_id);
	tuplestore_putvalues(match->result->setResult, match->result->setDesc, values, nulls);
}

static void
put_undecided(Match *match, Event *event, Subscriber *subscriber)
{
	if (match->undecided_count == match->undecided_space)
	{
		match->undecided_space = Max(match->undecided_space * 2, 64);
		if (match->undecided == NULL)
			match->undecided = palloc(match->undecided_space * sizeof(Candidate));
		else
			match->undecided = repalloc_huge(match->undecided,
											 match->undecided_space * sizeof(Candidate));
	}
	match->undecided[match->undecided_count++] = (Candidate) {event, subscriber};
}

/* An event whose name the subscriber wants; `probed`: whose task it asks for. */
static void
consider(Match *match, Event *event, const Task *task, Subscriber *subscriber, bool probed)
{
	if (!birth_precedes(&subscriber->birth, event->row_id))
		return;
	if (subscriber->namespace != NULL)
	{
		const char *namespace = event->namespace != NULL ? event->namespace :
			task != NULL ? task->namespace : NULL;

		if (namespace == NULL || strcmp(namespace, subscriber->namespace) != 0)
			return;
	}
	if (subscriber->filter == NULL || (probed && subscriber->is_probe_all))
		put_match(match, event, subscriber);
	else if (task == NULL || task->facts == NULL || !facts_decide(task, subscriber))
		put_undecided(match, event, subscriber);
	else if (contains(task->facts, subscriber->filter))
		put_match(match, event, subscriber);
}

static void
consider_event(Match *match, Event *event)
{
	Task	   *task = event->task_id == 0 ? NULL :
		hash_search(match->tasks, &event->task_id, HASH_FIND, NULL);
	ListCell   *cell;
	int			i = -1;

	while ((i = bms_next_member(match->unprobed, i)) >= 0)
		if (bms_is_member(i, event->name->wanted_by))
			consider(match, event, task, &match->subscribers[i], false);
	if (task != NULL && task->facts != NULL)
	{
		foreach(cell, task->found)
			if (bms_is_member(lfirst_int(cell), event->name->wanted_by))
				consider(match, event, task, &match->subscribers[lfirst_int(cell)], true);
		return;
	}
	/* What belongs to no task, or to one that is gone, has only its payload. */
	i = -1;
	while ((i = bms_next_member(event->name->wanted_by, i)) >= 0)
		if (match->subscribers[i].probe_key != NULL)
			consider(match, event, task, &match->subscribers[i], false);
}

/* Holds the rest against the payloads. */
static void
decide_by_payload(Match *match)
{
	static Statement statement = {
		"SELECT e.place, e.payload FROM tasker._events($1, $2) AS e",
		2, {INT8ARRAYOID, INT8ARRAYOID}
	};
	int64	   *event_ids;
	int64	   *row_ids;
	int		   *first;			/* candidate of each event that is asked for */
	int			count = 0;
	Datum		arguments[2];
	uint64		rows;

	if (match->undecided_count == 0)
		return;
	event_ids = palloc(match->undecided_count * sizeof(int64));
	row_ids = palloc(match->undecided_count * sizeof(int64));
	first = palloc(match->undecided_count * sizeof(int));

	/* Candidates come event by event, so an event's stand together. */
	for (int i = 0; i < match->undecided_count; i++)
	{
		Event	   *event = match->undecided[i].event;

		if (i > 0 && match->undecided[i - 1].event == event)
			continue;
		event_ids[count] = event->event_id;
		row_ids[count] = event->row_id;
		first[count++] = i;
	}
	arguments[0] = ids_argument(event_ids, count);
	arguments[1] = ids_argument(row_ids, count);
	rows = statement_run(&statement, arguments, NULL);
	for (uint64 i = 0; i < rows; i++)
	{
		bool		isnull;
		int64		place = DatumGetInt64(row_value(i, 1, &isnull));
		Datum		value = row_value(i, 2, &isnull);
		Jsonb	   *payload = isnull ? NULL : DatumGetJsonbP(value);
		Event	   *event = match->undecided[first[place - 1]].event;

		CHECK_FOR_INTERRUPTS();
		for (int n = first[place - 1]; payload != NULL && n < match->undecided_count &&
			 match->undecided[n].event == event; n++)
			if (contains(payload, match->undecided[n].subscriber->filter))
				put_match(match, event, match->undecided[n].subscriber);
	}
}

/* tasker._match(bigint, bigint, integer[]) */
Datum
tasker_match(PG_FUNCTION_ARGS)
{
	Match		match;
	MemoryContext context;

	InitMaterializedSRF(fcinfo, 0);
	memset(&match, 0, sizeof(match));
	match.result = (ReturnSetInfo *) fcinfo->resultinfo;
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(2))
		return (Datum) 0;

	SPI_connect();
	context = CurrentMemoryContext;
	read_subscribers(&match, PG_GETARG_DATUM(2), context);
	if (match.subscriber_count > 0)
	{
		index_subscribers(&match);
		read_events(&match, PG_GETARG_INT64(0), PG_GETARG_INT64(1), context);
		read_tasks(&match, context);
		for (int i = 0; i < match.event_count; i++)
		{
			CHECK_FOR_INTERRUPTS();
			consider_event(&match, &match.events[i]);
		}
		decide_by_payload(&match);
	}
	SPI_finish();
	return (Datum) 0;
}
