/*
 * wake.c
 *	  How a commit tells the engine's processes that there is work.
 *
 * A transaction collects notes; when it has committed, they become flags in
 * shared memory and latches.  That happens after its rows are visible, its
 * cache invalidations are sent and its locks are released: who is woken earlier
 * would see old caches, or skip what is locked, and sleep again.  Nothing there
 * can fail: no allocation, no catalogue, and a lock only for the rare requests
 * to the launcher.
 *
 * Why no wake-up is lost.  The committer makes its rows visible, then, after a
 * full barrier, reads `idle`.  The executor sets `idle` by an exchange, a full
 * barrier too, then takes its snapshot and looks for work.  One of the two
 * sees the other: either the executor's look finds the row, or the committer
 * finds it idle and sets its latch.  The flags of the notifier work the same
 * way: it clears a flag by an exchange, then reads the rows.  An executor is
 * taken out of the idle ones by compare-and-exchange, so two committers wake
 * two.  One that ends after it was woken wakes another (worker_leave).
 *
 * A note of a subtransaction that was rolled back stays: somebody looks in
 * vain.  One note counts for an abort, too: that others were kept from tokens,
 * by a lock that they do not wait for.
 */
#include "postgres.h"

#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "engine/processes.h"
#include "shared_memory.h"
#include "tasker.h"

/* Beyond this many, all who wait in the database are woken to look. */
#define MAX_ENDED	10000
#define FIRST_ENDED	64
/* Databases to look at; a transaction names one, rarely two. */
#define MAX_LOOKS	4
/* Ranks of tokens in lanes; a transaction has one, rarely two. */
#define MAX_TOKENS	8

/* The first token of a rank in a lane. */
typedef struct NotedToken
{
	int			lane;
	int32		rank;
	TimestampTz due;
} NotedToken;

static struct
{
	bool		any;
	bool		committed;		/* act as soon as the locks are released */
	bool		external;
	bool		log;
	bool		restoring;
	bool		everything;
	bool		deliveries;
	bool		ended_overflow;
	int			ready;
	bool		moved;			/* tokens may have come anywhere */
	int			token_count;
	NotedToken	token[MAX_TOKENS];
	TimestampTz due;
	int			look_count;
	Oid			look[MAX_LOOKS];
	int			ended_count;
} notes;

/*
 * Others may have passed by what this transaction kept to itself, and sleep.
 * That it lets go is news even where it changes nothing.
 */
static bool kept = false;
static bool kept_outside = false;
static bool kept_over = false;	/* the transaction has ended */

/* Outlives the transaction, so that a busy session allocates once. */
static int64 *ended = NULL;
static int	ended_space = 0;

PG_FUNCTION_INFO_V1(tasker_wake);
PG_FUNCTION_INFO_V1(tasker_sql_note_kept);
PG_FUNCTION_INFO_V1(tasker_sql_note_external_ready);
PG_FUNCTION_INFO_V1(tasker_sql_note_due);
PG_FUNCTION_INFO_V1(tasker_sql_note_deliveries);
PG_FUNCTION_INFO_V1(tasker_sql_installed);

static void
notes_forget(void)
{
	memset(&notes, 0, sizeof(notes));
	notes.due = PG_INT64_MAX;
}

void
launcher_wake(void)
{
	/* Read once: a launcher that leaves takes it away. */
	Latch	   *latch = *(Latch *volatile *) &tasker_shared->launcher_latch;

	if (latch != NULL)
		SetLatch(latch);
}

/* Takes one executor out of the idle ones; false: it was not idle. */
static bool
wake_if_idle(WorkerSlot *slot)
{
	uint32		idle = 1;

	if (pg_atomic_read_u32(&slot->idle) == 0 ||
		!pg_atomic_compare_exchange_u32(&slot->idle, &idle, 0))
		return false;
	SetLatch(slot->latch);
	return true;
}

/*
 * Wakes that many executors, or all the idle ones.  A busy one needs none: it
 * looks again before it sleeps.
 */
void
wake_executors(TaskerDatabase *database, int tokens)
{
	pg_memory_barrier();
	for (int i = 0; i < TASKER_MAX_EXECUTORS && tokens > 0; i++)
	{
		if (wake_if_idle(&database->executor[i]))
			tokens--;
	}
}

/* Raises a flag of the notifier; it is woken by the first who does. */
void
flag_notifier(TaskerDatabase *database, pg_atomic_uint32 *flag)
{
	if (pg_atomic_exchange_u32(flag, 1) == 0 && database->notifier.latch != NULL)
		SetLatch(database->notifier.latch);
}

void
deliverer_wake(TaskerDatabase *database)
{
	pg_memory_barrier();
	(void) wake_if_idle(&database->deliverer);
}

/* Subscribers with handlers, or what failed in them, may have changed. */
static void
flag_deliveries(TaskerDatabase *database)
{
	if (pg_atomic_exchange_u32(&database->deliveries, DELIVERIES_LOOK) < DELIVERIES_SOME)
		launcher_wake();
	deliverer_wake(database);
}

/* The same where that is not certain: it starts no process in vain. */
static void
doubt_deliveries(TaskerDatabase *database)
{
	uint32		none = DELIVERIES_NONE;

	if (pg_atomic_read_u32(&database->deliveries) >= DELIVERIES_SOME)
		flag_deliveries(database);
	else
		(void) pg_atomic_compare_exchange_u32(&database->deliveries, &none, DELIVERIES_UNKNOWN);
}

/* Something is due then, if nothing is before. */
void
lower_next_due(TaskerDatabase *database, TimestampTz due)
{
	uint64		known = pg_atomic_read_u64(&database->next_due);

	while ((TimestampTz) known > due &&
		   !pg_atomic_compare_exchange_u64(&database->next_due, &known, (uint64) due))
		;
}

/*
 * Something will be due.  Where an idle executor wakes up early enough by
 * itself, nothing; else one is woken to look when.
 */
static void
wake_for_due(TaskerDatabase *database, TimestampTz due)
{
	lower_next_due(database, due);
	pg_memory_barrier();
	for (int i = 0; i < TASKER_MAX_EXECUTORS; i++)
	{
		WorkerSlot *slot = &database->executor[i];

		if (pg_atomic_read_u32(&slot->idle) != 0 &&
			(TimestampTz) pg_atomic_read_u64(&slot->until) <= due)
			return;
	}
	wake_executors(database, 1);
}

/* Wakes the backends that wait for one of the tasks that ended. */
static void
wake_waiters(bool all)
{
	pg_memory_barrier();
	if (pg_atomic_read_u32(&tasker_shared->waiters) == 0)
		return;
	if (!all)
		qsort(ended, notes.ended_count, sizeof(int64), task_id_compare);
	for (int i = 0; i < tasker_shared->waiter_count; i++)
	{
		TaskWaiter *waiter = &tasker_shared->waiter[i];
		int64		task_id;

		if (waiter->database != MyDatabaseId)
			continue;
		task_id = waiter->task_id;
		if (all || bsearch(&task_id, ended, notes.ended_count, sizeof(int64), task_id_compare) != NULL)
		{
			pg_atomic_write_u32(&waiter->ended, 1);
			SetLatch(waiter->latch);
		}
	}
}

/* Wakes whatever sleeps in a database: it looks at everything. */
void
wake_database(Oid oid)
{
	TaskerDatabase *database = database_find(oid);

	if (database != NULL)
	{
		/* Long past: the executors look what is due, too. */
		pg_atomic_write_u64(&database->next_due, 0);
		front_reset(database->front);
		wake_executors(database, TASKER_MAX_EXECUTORS);
		doubt_deliveries(database);
		pg_atomic_exchange_u32(&database->external_ready, 1);
		pg_atomic_exchange_u32(&database->log_written, 1);
		if (database->notifier.latch != NULL)
			SetLatch(database->notifier.latch);
	}
	wake_waiters(true);
}

/* When the session that restores a dump ends, the restore may be whole. */
static void
installer_leaves(int code, Datum arg)
{
	TaskerDatabase *database = database_find(MyDatabaseId);

	if (database == NULL || database->installer != MyProcPid)
		return;
	database->installer = 0;
	if (database->notifier.latch != NULL)
		SetLatch(database->notifier.latch);
}

/* Hands the launcher what it is asked to look at. */
static void
ask_launcher(void)
{
	LWLockAcquire(tasker_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < notes.look_count; i++)
		database_look(notes.look[i]);
	if (notes.restoring)
	{
		TaskerDatabase *database = database_find(MyDatabaseId);

		if (database != NULL)
			database->installer = MyProcPid;
	}
	LWLockRelease(tasker_shared->lock);
	launcher_wake();
}

/* The transaction is over, and nothing may fail any more. */
static void
notes_act(void)
{
	TaskerDatabase *database;

	if (notes.look_count > 0)
		ask_launcher();
	if (notes.everything)
		wake_database(MyDatabaseId);
	database = database_find(MyDatabaseId);
	if (database != NULL)
	{
		/* Before anybody is woken who looks for them. */
		if (notes.moved)
			front_reset(database->front);
		for (int i = 0; i < notes.token_count; i++)
			front_note(&database->front[notes.token[i].lane], notes.token[i].rank,
					   notes.token[i].due);
		if (notes.ready > 0)
			wake_executors(database, notes.ready);
		if (notes.due != PG_INT64_MAX)
			wake_for_due(database, notes.due);
		if (notes.log)
			flag_notifier(database, &database->log_written);
		if (notes.external)
			flag_notifier(database, &database->external_ready);
		if (notes.deliveries)
			flag_deliveries(database);
	}
	if (notes.ended_count > 0 || notes.ended_overflow)
		wake_waiters(notes.ended_overflow);
}

/*
 * A prepared transaction's notes are dropped: COMMIT PREPARED, which may be
 * another session's, wakes everything (commands.c).
 */
static void
notes_at_xact_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		kept_over = true;
	if (!notes.any)
		return;
	if (event == XACT_EVENT_COMMIT)
		notes.committed = true;
	else if (event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		notes_forget();
}

/* What was kept is free again, as far as it is not gone. */
static void
kept_let_go(bool is_commit)
{
	TaskerDatabase *database = database_find(MyDatabaseId);

	if (database != NULL && kept)
	{
		front_reset(database->front);
		wake_executors(database, TASKER_MAX_EXECUTORS);
	}
	if (database != NULL && !is_commit)
		flag_notifier(database, &database->external_ready);
	if (kept_over)
		kept = kept_outside = kept_over = false;
}

/* Called for each resource owner; the first one after the commit will do. */
static void
notes_at_release(ResourceReleasePhase phase, bool is_commit, bool is_top_level, void *arg)
{
	/* A subtransaction that is rolled back lets go at once. */
	if ((kept || kept_outside) && phase == RESOURCE_RELEASE_AFTER_LOCKS &&
		(!is_commit || (kept_over && is_top_level)))
		kept_let_go(is_commit);
	if (!notes.committed || phase != RESOURCE_RELEASE_AFTER_LOCKS || !is_top_level)
		return;
	notes_act();
	notes_forget();
}

/* True: notes can be taken. */
static bool
notes_open(void)
{
	static bool registered = false;

	if (tasker_shared == NULL)
		return false;
	if (!registered)
	{
		notes_forget();
		RegisterXactCallback(notes_at_xact_end, NULL);
		RegisterResourceReleaseCallback(notes_at_release, NULL);
		registered = true;
	}
	notes.any = true;
	return true;
}

void
tasker_note_ready(int tokens)
{
	if (tokens > 0 && notes_open())
		notes.ready = Min(notes.ready + Min(tokens, TASKER_MAX_EXECUTORS), TASKER_MAX_EXECUTORS);
}

void
tasker_note_token(int lane, int32 rank, TimestampTz due)
{
	if (lane < 0 || lane >= FRONT_LANES || !notes_open())
		return;
	for (int i = 0; i < notes.token_count; i++)
		if (notes.token[i].lane == lane && notes.token[i].rank == rank)
		{
			notes.token[i].due = Min(notes.token[i].due, due);
			return;
		}
	if (notes.token_count == MAX_TOKENS)
		notes.moved = true;
	else
		notes.token[notes.token_count++] = (NotedToken) {lane, rank, due};
}

void
tasker_note_moved(void)
{
	if (notes_open())
		notes.moved = true;
}

void
tasker_note_kept(bool from_executors)
{
	if (!notes_open())
		return;
	if (from_executors)
		kept = true;
	else
		kept_outside = true;
	kept_over = false;
}

void
tasker_note_external_ready(void)
{
	if (notes_open())
		notes.external = true;
}

void
tasker_note_log(void)
{
	if (notes_open())
		notes.log = true;
}

void
tasker_note_due(TimestampTz due)
{
	if (notes_open())
		notes.due = Min(notes.due, due);
}

void
tasker_note_task_ended(int64 task_id)
{
	if (!notes_open() || notes.ended_overflow)
		return;
	if (notes.ended_count == MAX_ENDED)
	{
		notes.ended_overflow = true;
		return;
	}
	if (notes.ended_count == ended_space)
	{
		int			space = Min(Max(ended_space * 2, FIRST_ENDED), MAX_ENDED);

		if (ended == NULL)
			ended = MemoryContextAlloc(TopMemoryContext, space * sizeof(int64));
		else
			ended = repalloc(ended, space * sizeof(int64));
		ended_space = space;
	}
	ended[notes.ended_count++] = task_id;
}

void
tasker_note_look(Oid database)
{
	if (!OidIsValid(database) || !notes_open())
		return;
	for (int i = 0; i < notes.look_count; i++)
	{
		if (notes.look[i] == database)
			return;
	}
	if (notes.look_count < MAX_LOOKS)
		notes.look[notes.look_count++] = database;
}

void
tasker_note_installed(bool restoring)
{
	static bool registered = false;

	if (tasker_shared == NULL)
		return;
	if (restoring && !registered)
	{
		before_shmem_exit(installer_leaves, (Datum) 0);
		registered = true;
	}
	tasker_note_look(MyDatabaseId);
	notes.restoring |= restoring;
}

void
tasker_note_deliveries(void)
{
	if (notes_open())
		notes.deliveries = true;
}

void
tasker_note_everything(void)
{
	if (notes_open())
		notes.everything = true;
}

/* tasker._wake(tokens integer) */
Datum
tasker_wake(PG_FUNCTION_ARGS)
{
	tasker_note_moved();
	tasker_note_ready(PG_GETARG_INT32(0));
	PG_RETURN_VOID();
}

/* tasker._note_kept() */
Datum
tasker_sql_note_kept(PG_FUNCTION_ARGS)
{
	tasker_note_kept(true);
	PG_RETURN_VOID();
}

/* tasker._note_external_ready() */
Datum
tasker_sql_note_external_ready(PG_FUNCTION_ARGS)
{
	tasker_note_external_ready();
	PG_RETURN_VOID();
}

/* tasker._note_deliveries() */
Datum
tasker_sql_note_deliveries(PG_FUNCTION_ARGS)
{
	tasker_note_deliveries();
	PG_RETURN_VOID();
}

/* tasker._note_due(due timestamptz) */
Datum
tasker_sql_note_due(PG_FUNCTION_ARGS)
{
	tasker_note_due(PG_GETARG_TIMESTAMPTZ(0));
	PG_RETURN_VOID();
}

/* tasker._installed(restoring boolean) */
Datum
tasker_sql_installed(PG_FUNCTION_ARGS)
{
	tasker_note_installed(PG_GETARG_BOOL(0));
	PG_RETURN_VOID();
}
