/*
 * launcher.c
 *	  Keeps the workers of every database with the extension running.
 *
 * It looks at all databases once, when it starts.  From then on it sleeps until
 * somebody asks it to look at one (a commit of CREATE EXTENSION, CREATE
 * DATABASE and the like), a worker ends, the configuration is reloaded, or the
 * time has come to try again what failed.
 *
 * It can't see inside a database, so it starts the notifier to find out: a
 * slot goes from LOOK to PRESENT, and the executors follow, or to ABSENT, and
 * is freed.  Databases are looked at one after the other, so that a server
 * with hundreds of them needs one worker for it.
 *
 * Its own memory holds only handles; a launcher that is started again finds
 * the workers in the slots.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "engine/processes.h"
#include "engine/worker.h"
#include "tasker.h"

#define BACKOFF_FIRST_MS	1000
#define BACKOFF_LAST_MS		30000
#define HEALTHY_MS			60000	/* after this long, failures are forgotten */
#define NO_SLOT_RETRY_MS	10000
#define UNWANTED_RETRY_MS	50
#define START_TIMEOUT_MS	10000	/* of a worker whose handle was lost */

/* A worker as the launcher knows it. */
typedef struct Child
{
	BackgroundWorkerHandle *handle; /* NULL: none, or started by an earlier launcher */
	bool		known;			/* started, and its end not noticed yet */
	TimestampTz launched_at;
} Child;

/* The notifier is child 0, executor n is child n + 1, the deliverer comes last. */
#define DELIVERER	(TASKER_MAX_EXECUTORS + 1)
#define CHILDREN	(TASKER_MAX_EXECUTORS + 2)

static Child child[TASKER_MAX_DATABASES][CHILDREN];

/* Databases that are still to be looked at, from the walk at the start. */
static List *candidates = NIL;

void
tasker_launcher_register(void)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 1;
	strlcpy(worker.bgw_name, "tasker launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "tasker launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_library_name, "tasker", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "tasker_launcher_main", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}

static WorkerSlot *
child_slot(TaskerDatabase *database, int number)
{
	if (number == 0)
		return &database->notifier;
	return number == DELIVERER ? &database->deliverer : &database->executor[number - 1];
}

/* Whether workers may connect to a database at all. */
static bool
database_is_usable(Form_pg_database form)
{
	/* -2: left over from a DROP DATABASE that was interrupted */
	return form->datallowconn && !form->datistemplate && form->datconnlimit != -2;
}

/* Fills candidates with every usable database. */
static void
find_candidates(void)
{
	Relation	relation;
	TableScanDesc scan;
	HeapTuple	tuple;

	list_free(candidates);
	candidates = NIL;

	StartTransactionCommand();
	relation = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(relation, 0, NULL);
	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);

		if (database_is_usable(form))
		{
			MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

			candidates = lappend_oid(candidates, form->oid);
			MemoryContextSwitchTo(old);
		}
	}
	table_endscan(scan);
	table_close(relation, AccessShareLock);
	CommitTransactionCommand();
}

/*
 * Whether workers may connect to that database; fills in its name.  Scans the
 * catalogue, as a cache may not know yet what a commit that woke us did; and
 * without an index, which can't be opened before somebody connected to any
 * database.
 */
static bool
look_up_database(TaskerDatabase *database)
{
	Relation	relation;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;
	bool		usable = false;

	StartTransactionCommand();
	relation = table_open(DatabaseRelationId, AccessShareLock);
	ScanKeyInit(&key, Anum_pg_database_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(database->oid));
	scan = systable_beginscan(relation, InvalidOid, false, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);

		usable = database_is_usable(form);
		database->name = form->datname;
	}
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	CommitTransactionCommand();
	return usable;
}

/* Says once per database that there is no room for its workers. */
static void
say_no_slot(TaskerDatabase *database)
{
	if (database->said_no_slot)
		return;
	database->said_no_slot = true;
	ereport(WARNING,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("tasker can't start all its workers in database \"%s\": no background worker slot is free",
					NameStr(database->name)),
			 errdetail("max_worker_processes is %d, and others use it, too. tasker takes one for the launcher and, in each database that has the extension, one for the notifier, %d for executors, and one more where a subscriber has a handler.",
					   max_worker_processes, tasker_executors),
			 errhint("Raise max_worker_processes and restart the server, or lower tasker.executors.")));
}

/* Starts one worker; false: the server has no slot for it. */
static bool
start_child(int index, int number)
{
	TaskerDatabase *database = &tasker_shared->database[index];
	Child	   *c = &child[index][number];
	BackgroundWorker worker;
	MemoryContext old;
	bool		registered;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = MyProcPid;
	strlcpy(worker.bgw_library_name, "tasker", BGW_MAXLEN);
	memcpy(worker.bgw_extra, &database->oid, sizeof(Oid));
	if (number == 0)
	{
		strlcpy(worker.bgw_type, "tasker notifier", BGW_MAXLEN);
		strlcpy(worker.bgw_function_name, "tasker_notifier_main", BGW_MAXLEN);
		snprintf(worker.bgw_name, BGW_MAXLEN, "tasker notifier of %s", NameStr(database->name));
		worker.bgw_main_arg = Int32GetDatum(index << 8);
	}
	else if (number == DELIVERER)
	{
		strlcpy(worker.bgw_type, "tasker deliverer", BGW_MAXLEN);
		strlcpy(worker.bgw_function_name, "tasker_deliverer_main", BGW_MAXLEN);
		snprintf(worker.bgw_name, BGW_MAXLEN, "tasker deliverer of %s", NameStr(database->name));
		worker.bgw_main_arg = Int32GetDatum(index << 8);
	}
	else
	{
		strlcpy(worker.bgw_type, "tasker executor", BGW_MAXLEN);
		strlcpy(worker.bgw_function_name, "tasker_executor_main", BGW_MAXLEN);
		snprintf(worker.bgw_name, BGW_MAXLEN, "tasker executor %d of %s", number,
				 NameStr(database->name));
		worker.bgw_main_arg = Int32GetDatum(index << 8 | (number - 1));
	}

	old = MemoryContextSwitchTo(TopMemoryContext);
	registered = RegisterDynamicBackgroundWorker(&worker, &c->handle);
	MemoryContextSwitchTo(old);
	if (!registered)
	{
		c->handle = NULL;
		say_no_slot(database);
		return false;
	}
	c->known = true;
	c->launched_at = GetCurrentTimestamp();
	return true;
}

/* Asks a worker to end.  It counts as no failure. */
static void
stop_child(TaskerDatabase *database, int number)
{
	WorkerSlot *slot = child_slot(database, number);

	LWLockAcquire(tasker_shared->lock, LW_EXCLUSIVE);
	if (slot->pid != 0 && !slot->leaving)
	{
		slot->leaving = true;
		kill(slot->pid, SIGTERM);
	}
	LWLockRelease(tasker_shared->lock);
}

/* Whether a worker is there, or on its way. */
static bool
child_lives(int index, int number)
{
	return child[index][number].known;
}

/* Takes note of a worker's end, and how long its like has to wait. */
static void
reap_child(int index, int number, TimestampTz now)
{
	TaskerDatabase *database = &tasker_shared->database[index];
	WorkerSlot *slot = child_slot(database, number);
	Child	   *c = &child[index][number];
	pid_t		pid;

	if (!c->known)
	{
		/* Started by a launcher before this one. */
		if (slot->pid != 0)
			c->known = true;
		return;
	}
	if (slot->pid != 0)
		return;
	if (c->handle != NULL)
	{
		if (GetBackgroundWorkerPid(c->handle, &pid) != BGWH_STOPPED)
			return;
		pfree(c->handle);
		c->handle = NULL;
	}
	c->known = false;
	if (slot->started_at < c->launched_at)
	{
		/* It saw that it was not wanted any more, and left before it began. */
		database->not_before = TimestampTzPlusMilliseconds(now, UNWANTED_RETRY_MS);
	}
	else if (slot->leaving || database->hold > 0)
		slot->leaving = false;
	else
	{
		int			delay;

		if (TimestampDifferenceExceeds(slot->started_at, now, HEALTHY_MS))
			database->failures = 0;
		delay = Min(BACKOFF_FIRST_MS << Min(database->failures, 5), BACKOFF_LAST_MS);
		database->failures++;
		database->not_before = TimestampTzPlusMilliseconds(now, delay);
	}
}

/* Makes the earlier of the two the time at which the launcher wakes up. */
static void
wake_at(TimestampTz *wake, TimestampTz at)
{
	if (at < *wake)
		*wake = at;
}

/* Starts a worker unless it runs or has to wait.  False: no room. */
static bool
want_child(int index, int number, TimestampTz now, TimestampTz *wake)
{
	TaskerDatabase *database = &tasker_shared->database[index];

	if (child_lives(index, number) || database->hold > 0)
		return true;
	if (database->not_before > now)
	{
		wake_at(wake, database->not_before);
		return true;
	}
	if (start_child(index, number))
		return true;
	wake_at(wake, TimestampTzPlusMilliseconds(now, NO_SLOT_RETRY_MS));
	return false;
}

/*
 * A database in state LOOK.  Returns whether its notifier is on the way, so
 * that the next database has to wait.
 */
static bool
attend_look(int index, TimestampTz now, TimestampTz *wake)
{
	TaskerDatabase *database = &tasker_shared->database[index];
	uint32		looks = database->looks;

	if (database->hold > 0)
		return false;
	if (!look_up_database(database))
	{
		LWLockAcquire(tasker_shared->lock, LW_EXCLUSIVE);
		if (database->looks == looks)
			database->state = DATABASE_ABSENT;
		LWLockRelease(tasker_shared->lock);
		return false;
	}
	if (child_lives(index, 0))
	{
		/* It is there already: it looks when it is woken. */
		if (database->notifier.pid != 0 && database->notifier.latch != NULL)
			SetLatch(database->notifier.latch);
		return true;
	}
	if (!want_child(index, 0, now, wake))
		return true;
	return child_lives(index, 0);
}

/* Whether a database with the extension is to have that worker. */
static bool
is_wanted(TaskerDatabase *database, int number)
{
	if (number == DELIVERER)
		return pg_atomic_read_u32(&database->deliveries) >= DELIVERIES_SOME;
	return number <= tasker_executors;
}

/*
 * A database in state PRESENT: as many executors as the setting says.  A
 * deliverer that is not wanted any more ends by itself.
 */
static void
attend_present(int index, TimestampTz now, TimestampTz *wake)
{
	TaskerDatabase *database = &tasker_shared->database[index];

	for (int number = 0; number < CHILDREN; number++)
	{
		if (!is_wanted(database, number))
		{
			if (number != DELIVERER && child_lives(index, number))
				stop_child(database, number);
		}
		else if (!want_child(index, number, now, wake))
			break;
	}
}

/* A database without the extension, or gone: frees the slot after its workers. */
static void
attend_absent(int index)
{
	TaskerDatabase *database = &tasker_shared->database[index];
	bool		lives = false;

	for (int number = 0; number < CHILDREN; number++)
	{
		if (child_lives(index, number))
		{
			stop_child(database, number);
			lives = true;
		}
	}
	if (lives)
		return;
	LWLockAcquire(tasker_shared->lock, LW_EXCLUSIVE);
	if (database->state == DATABASE_ABSENT)
	{
		if (database->hold > 0)
			database->state = DATABASE_UNKNOWN;
		else
			database_free(database);
	}
	LWLockRelease(tasker_shared->lock);
}

/* Gives the next candidate a slot; false: there is none, or no slot. */
static bool
next_candidate(void)
{
	while (candidates != NIL)
	{
		Oid			oid = linitial_oid(candidates);
		bool		fits = true;
		bool		taken;

		LWLockAcquire(tasker_shared->lock, LW_EXCLUSIVE);
		taken = database_find(oid) != NULL;
		if (!taken)
		{
			fits = database_make(oid) != NULL;
			if (fits)
				database_look(oid);
		}
		LWLockRelease(tasker_shared->lock);
		if (!fits)
			return false;
		candidates = list_delete_first(candidates);
		if (!taken)
			return true;
	}
	return false;
}

/* When more databases have the extension than there are slots. */
static void
attend_full(void)
{
	static bool said = false;
	bool		free_slot = false;

	if (!tasker_shared->full)
		return;
	if (!said)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("tasker can't run in more than %d databases of a server",
						TASKER_MAX_DATABASES),
				 errhint("Drop the extension in a database that doesn't need it.")));
	said = true;
	for (int i = 0; i < TASKER_MAX_DATABASES; i++)
		free_slot |= !OidIsValid(tasker_shared->database[i].oid);
	if (free_slot)
	{
		tasker_shared->full = false;
		find_candidates();
	}
}

/*
 * Brings what runs into line with what should run.  Returns when to come back
 * by itself.
 */
static TimestampTz
attend_databases(void)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz wake = PG_INT64_MAX;
	bool		looking = false;
	bool		again;

	do
	{
		again = false;
		for (int index = 0; index < TASKER_MAX_DATABASES; index++)
		{
			TaskerDatabase *database = &tasker_shared->database[index];

			if (!OidIsValid(database->oid))
				continue;
			for (int number = 0; number < CHILDREN; number++)
			{
				reap_child(index, number, now);
				if (child[index][number].known && child[index][number].handle != NULL &&
					child_slot(database, number)->pid == 0)
					wake_at(&wake, TimestampTzPlusMilliseconds(child[index][number].launched_at,
															   START_TIMEOUT_MS));
			}

			if (database->state == DATABASE_LOOK && !looking)
				looking = attend_look(index, now, &wake);
			if (database->state == DATABASE_PRESENT)
				attend_present(index, now, &wake);
			if (database->state == DATABASE_ABSENT)
				attend_absent(index);
		}
		attend_full();
		if (!looking && next_candidate())
			again = true;
	} while (again);

	/* A worker that is slow to start must not make us spin. */
	if (wake <= now)
		wake = TimestampTzPlusMilliseconds(now, BACKOFF_FIRST_MS);
	return wake;
}

/* Says that there is no launcher any more. */
static void
launcher_leave(int code, Datum arg)
{
	tasker_shared->launcher_latch = NULL;
	tasker_shared->launcher_pid = 0;
}

void
tasker_launcher_main(Datum arg)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);

	before_shmem_exit(launcher_leave, (Datum) 0);
	tasker_shared->launcher_started_at = GetCurrentTimestamp();
	tasker_shared->launcher_pid = MyProcPid;
	tasker_shared->launcher_latch = MyLatch;
	pg_memory_barrier();
	find_candidates();

	for (;;)
	{
		TimestampTz wake;
		int			events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH;
		long		timeout = -1;

		ResetLatch(MyLatch);

		/* 1: the server starts it again, unless it shuts down. */
		if (ProcDiePending)
			proc_exit(1);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}

		wake = attend_databases();
		pgstat_report_stat(true);
		pgstat_report_activity(STATE_IDLE, "waits for databases with the extension, and for workers to end");
		if (wake != PG_INT64_MAX)
		{
			timeout = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), wake);
			events |= WL_TIMEOUT;
		}
		(void) WaitLatch(MyLatch, events, timeout, tasker_wait_event(WAIT_IDLE_LAUNCHER));
	}
}
