/*
 * shared_memory.c
 *	  The engine's shared memory: slots of databases and workers, handlers'
 *	  timings, and the backends that wait for a task.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "storage/shmem.h"

#include "engine/processes.h"
#include "shared_memory.h"

/* A timing is looked for in this many places from where its key hashes to. */
#define TIMING_PROBES	16

TaskerShared *tasker_shared = NULL;

static shmem_request_hook_type next_shmem_request_hook = NULL;
static shmem_startup_hook_type next_shmem_startup_hook = NULL;

static Size
shared_size(void)
{
	return add_size(offsetof(TaskerShared, waiter), mul_size(MaxBackends, sizeof(TaskWaiter)));
}

static void
shared_request(void)
{
	if (next_shmem_request_hook)
		next_shmem_request_hook();
	RequestAddinShmemSpace(shared_size());
	RequestNamedLWLockTranche("tasker", 1);
}

static void
worker_slot_init(WorkerSlot *slot)
{
	pg_atomic_init_u32(&slot->idle, 0);
	pg_atomic_init_u64(&slot->until, PG_INT64_MAX);
}

/* Makes a slot as new, its atomics already initialised. */
static void
worker_slot_reset(WorkerSlot *slot)
{
	slot->pid = 0;
	slot->leaving = false;
	slot->started_at = 0;
	slot->task_id = 0;
	slot->step_no = 0;
	slot->since = 0;
	pg_atomic_write_u32(&slot->idle, 0);
	pg_atomic_write_u64(&slot->until, PG_INT64_MAX);
}

static void
database_reset(TaskerDatabase *database)
{
	database->oid = InvalidOid;
	database->state = DATABASE_UNKNOWN;
	database->looks = 0;
	memset(&database->name, 0, sizeof(database->name));
	database->installer = 0;
	database->hold = 0;
	database->not_before = 0;
	database->failures = 0;
	database->said_no_slot = false;
	pg_atomic_write_u64(&database->next_due, PG_INT64_MAX);
	/* What was committed before anybody could raise it is in no tick yet. */
	pg_atomic_write_u32(&database->log_written, 1);
	pg_atomic_write_u32(&database->external_ready, 0);
	pg_atomic_write_u32(&database->round_wanted, 0);
	pg_atomic_write_u64(&database->last_tick, 0);
	pg_atomic_write_u64(&database->rung_tick, 0);
	pg_atomic_write_u32(&database->unjudged, 0);
	pg_atomic_write_u32(&database->suspicions, 0);
	pg_atomic_write_u32(&database->deliveries, DELIVERIES_UNKNOWN);
	pg_atomic_write_u32(&database->careful, 0);
	front_init(database->front);
	worker_slot_reset(&database->notifier);
	worker_slot_reset(&database->deliverer);
	for (int i = 0; i < TASKER_MAX_EXECUTORS; i++)
		worker_slot_reset(&database->executor[i]);
}

/* First initialisation: the memory is zero, its atomics are not made yet. */
static void
shared_fill(TaskerShared *shared)
{
	memset(shared, 0, shared_size());
	shared->lock = &GetNamedLWLockTranche("tasker")->lock;
	ConditionVariableInit(&shared->worker_gone);
	pg_atomic_init_u32(&shared->waiters, 0);
	for (int i = 0; i < TASKER_MAX_DATABASES; i++)
	{
		TaskerDatabase *database = &shared->database[i];

		pg_atomic_init_u64(&database->next_due, PG_INT64_MAX);
		pg_atomic_init_u32(&database->log_written, 0);
		pg_atomic_init_u32(&database->external_ready, 0);
		pg_atomic_init_u32(&database->rounds_begun, 0);
		pg_atomic_init_u32(&database->rounds_done, 0);
		pg_atomic_init_u32(&database->round_wanted, 0);
		pg_atomic_init_u64(&database->last_tick, 0);
		pg_atomic_init_u64(&database->rung_tick, 0);
		ConditionVariableInit(&database->round_done);
		pg_atomic_init_u32(&database->unjudged, 0);
		pg_atomic_init_u32(&database->suspicions, 0);
		pg_atomic_init_u32(&database->limit_slots, 0);
		pg_atomic_init_u32(&database->deliveries, DELIVERIES_UNKNOWN);
		pg_atomic_init_u32(&database->careful, 0);
		worker_slot_init(&database->notifier);
		worker_slot_init(&database->deliverer);
		for (int j = 0; j < TASKER_MAX_EXECUTORS; j++)
			worker_slot_init(&database->executor[j]);
		database_reset(database);
	}
	for (int i = 0; i < TASKER_MAX_HANDLERS; i++)
		pg_atomic_init_u32(&shared->timing[i].average_us, 0);
	shared->waiter_count = MaxBackends;
	for (int i = 0; i < MaxBackends; i++)
		pg_atomic_init_u32(&shared->waiter[i].ended, 0);
}

static void
shared_startup(void)
{
	bool		found;

	if (next_shmem_startup_hook)
		next_shmem_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	tasker_shared = ShmemInitStruct("tasker", shared_size(), &found);
	if (!found)
		shared_fill(tasker_shared);
	LWLockRelease(AddinShmemInitLock);
}

void
tasker_shared_memory_init(void)
{
	next_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = shared_request;
	next_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = shared_startup;
	tasker_commands_init();
}

/*
 * The slot of a database, or NULL.  A committer calls it without the lock: an
 * oid is read and written whole, and at worst it wakes a wrong worker or none
 * of a slot that appears in this moment, whose workers look at everything when
 * they start.
 */
TaskerDatabase *
database_find(Oid oid)
{
	static int	last = 0;		/* where this backend found its own */

	if (tasker_shared == NULL || !OidIsValid(oid))
		return NULL;
	if (tasker_shared->database[last].oid == oid)
		return &tasker_shared->database[last];
	for (int i = 0; i < TASKER_MAX_DATABASES; i++)
	{
		if (tasker_shared->database[i].oid == oid)
		{
			last = i;
			return &tasker_shared->database[i];
		}
	}
	return NULL;
}

/* The slot of a database, a new one where it has none. */
TaskerDatabase *
database_make(Oid oid)
{
	TaskerDatabase *database = database_find(oid);

	for (int i = 0; database == NULL && i < TASKER_MAX_DATABASES; i++)
	{
		if (!OidIsValid(tasker_shared->database[i].oid))
		{
			database = &tasker_shared->database[i];
			database_reset(database);
			database->oid = oid;
		}
	}
	if (database == NULL)
		tasker_shared->full = true;
	return database;
}

/* Gives the slot back, and the timings of its handlers. */
void
database_free(TaskerDatabase *database)
{
	for (int i = 0; i < TASKER_MAX_HANDLERS; i++)
	{
		if (tasker_shared->timing[i].database == database->oid)
			tasker_shared->timing[i].database = InvalidOid;
	}
	database_reset(database);
}

/* Has the launcher look whether the database has the extension. */
void
database_look(Oid oid)
{
	TaskerDatabase *database = database_make(oid);

	if (database == NULL)
		return;
	database->looks++;
	database->state = DATABASE_LOOK;
	database->not_before = 0;
}

/* Keeps workers from starting there; false: there is no slot to say it in. */
bool
database_hold(Oid oid)
{
	TaskerDatabase *database = database_make(oid);

	if (database == NULL)
		return false;
	database->hold++;
	return true;
}

/*
 * Undoes one database_hold().  Whatever happened meanwhile, the launcher looks,
 * unless it is known that the extension is gone.
 */
void
database_release(Oid oid, bool dropped)
{
	TaskerDatabase *database = database_find(oid);

	if (database == NULL)
		return;
	if (database->hold > 0)
		database->hold--;
	if (database->state == DATABASE_UNKNOWN)
	{
		if (database->hold == 0)
			database_free(database);
		return;
	}
	database_look(oid);
	if (dropped)
		database->state = DATABASE_ABSENT;
}

TaskerDatabase *
tasker_my_database(void)
{
	return database_find(MyDatabaseId);
}

/*
 * The timing of a handler in this database.  Found without the lock, as a cell
 * is filled before its database is set; added under it.
 */
HandlerTiming *
tasker_handler_timing(int32 handler_id)
{
	uint32		start;
	HandlerTiming *found = NULL;

	if (tasker_shared == NULL)
		return NULL;

	start = ((uint32) handler_id * 2654435761U) ^ ((uint32) MyDatabaseId * 40503U);
	for (int i = 0; i < TIMING_PROBES; i++)
	{
		HandlerTiming *timing = &tasker_shared->timing[(start + i) % TASKER_MAX_HANDLERS];

		if (timing->database == MyDatabaseId && timing->handler_id == handler_id)
			return timing;
	}

	LWLockAcquire(tasker_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < TIMING_PROBES; i++)
	{
		HandlerTiming *timing = &tasker_shared->timing[(start + i) % TASKER_MAX_HANDLERS];

		if (timing->database == MyDatabaseId && timing->handler_id == handler_id)
		{
			found = timing;
			break;
		}
		if (found == NULL && !OidIsValid(timing->database))
			found = timing;
	}
	if (found != NULL && found->database != MyDatabaseId)
	{
		found->handler_id = handler_id;
		pg_atomic_write_u32(&found->average_us, 0);
		pg_write_barrier();
		found->database = MyDatabaseId;
	}
	LWLockRelease(tasker_shared->lock);
	return found;
}

/* This backend's entry among the waiters. */
TaskWaiter *
waiter_of_backend(void)
{
#if PG_VERSION_NUM >= 170000
	int			number = MyProcNumber;
#else
	int			number = MyBackendId - 1;
#endif

	if (tasker_shared == NULL || number < 0 || number >= tasker_shared->waiter_count)
		return NULL;
	return &tasker_shared->waiter[number];
}

uint32
tasker_wait_event(TaskerWait wait)
{
#if PG_VERSION_NUM >= 170000
	static const char *const name[] = {
		[WAIT_IDLE_LAUNCHER] = "TaskerLauncherIdle",
		[WAIT_IDLE_WORKER] = "TaskerWorkerIdle",
		[WAIT_WORKERS_GONE] = "TaskerWorkersGone",
		[WAIT_TASK_END] = "TaskerTaskEnd",
		[WAIT_EVENTS] = "TaskerEvents"
	};
	static uint32 known[lengthof(name)];

	if (known[wait] == 0)
		known[wait] = WaitEventExtensionNew(name[wait]);
	return known[wait];
#else
	return PG_WAIT_EXTENSION;
#endif
}
