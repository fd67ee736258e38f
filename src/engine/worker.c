/*
 * worker.c
 *	  The life of an executor, a notifier or a deliverer, apart from what it works on.
 *
 * A worker claims its slot in shared memory before it connects, and gives it
 * back after it has left the list of the database's sessions.  So whoever
 * sees no pid in a database's slots may drop, rename or copy the database.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"

#include "engine/activation.h"
#include "engine/processes.h"
#include "engine/worker.h"
#include "statement.h"
#include "tasker.h"

/* WaitLatch takes an int of milliseconds; a longer sleep is several. */
#define LONGEST_NAP_MS	(60 * 60 * 1000)

/* An idle worker reports what it did after this time. */
#define REPORT_MS		1000

TaskerDatabase *my_database = NULL;
WorkerSlot *my_slot = NULL;

static Oid	my_extension = InvalidOid;
static uint32 my_looks;			/* my_database->looks when it was last looked for */
static uint32 my_changes;		/* activation_changes() at that time */

/*
 * Gives the slot back.  It runs after this process has left the list of
 * sessions, and before it loses its latch.  A wake-up that an executor got and
 * can't follow any more goes to another one.
 */
static void
worker_leave(int code, Datum arg)
{
	if (my_slot == NULL)
		return;
	LWLockAcquire(tasker_shared->lock, LW_EXCLUSIVE);
	my_slot->pid = 0;
	my_slot->task_id = 0;
	my_slot->step_no = 0;
	pg_atomic_write_u32(&my_slot->idle, 0);
	LWLockRelease(tasker_shared->lock);
	if (my_slot != &my_database->notifier && my_slot != &my_database->deliverer)
		wake_executors(my_database, 1);
	ConditionVariableBroadcast(&tasker_shared->worker_gone);
	launcher_wake();
}

/*
 * Takes the slot that the launcher chose; leaves quietly where things have
 * changed since.
 */
static void
worker_claim(Datum arg, WorkerSlot *(*slot_of) (TaskerDatabase *db, int number))
{
	TaskerDatabase *database = &tasker_shared->database[DatumGetInt32(arg) >> 8];
	WorkerSlot *slot = slot_of(database, DatumGetInt32(arg) & 0xFF);
	Oid			oid;
	bool		wanted;

	memcpy(&oid, MyBgworkerEntry->bgw_extra, sizeof(oid));
	LWLockAcquire(tasker_shared->lock, LW_EXCLUSIVE);
	wanted = database->oid == oid && database->hold == 0 && slot->pid == 0 &&
		(database->state == DATABASE_LOOK || database->state == DATABASE_PRESENT);
	if (wanted)
	{
		slot->pid = MyProcPid;
		slot->latch = MyLatch;
		slot->leaving = false;
		slot->started_at = GetCurrentTimestamp();
		slot->since = slot->started_at;
		slot->task_id = 0;
		pg_atomic_write_u32(&slot->idle, 0);
		pg_atomic_write_u64(&slot->until, PG_INT64_MAX);
		my_database = database;
		my_slot = slot;
		my_looks = database->looks;
	}
	LWLockRelease(tasker_shared->lock);
	if (!wanted)
		proc_exit(0);
}

/*
 * Settings that a database's or role's own must not spoil for the engine.  What
 * a user chose for his queries, such as a time zone or work_mem, stays.
 */
static void
worker_settings(const char *server_synchronous_commit)
{
	static const struct
	{
		const char *name;
		const char *value;
	}			forced[] = {
		{"role", "none"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_deferrable", "off"},
		{"statement_timeout", "0"},
		{"lock_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"},
		{"idle_session_timeout", "0"},
#if PG_VERSION_NUM >= 170000
		{"transaction_timeout", "0"},
#endif
		{"session_replication_role", "origin"},
		{"row_security", "on"},
		{"check_function_bodies", "on"},
		{"search_path", SAFE_SEARCH_PATH},
	};
	const char *connected = GetConfigOption("synchronous_commit", false, false);

	for (int i = 0; i < lengthof(forced); i++)
		SetConfigOption(forced[i].name, forced[i].value, PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("application_name", MyBgworkerEntry->bgw_name, PGC_USERSET, PGC_S_OVERRIDE);

	/* A database may ask for more safety than the server, never for less. */
	if (strcmp(connected, "off") == 0 || strcmp(connected, "local") == 0)
		SetConfigOption("synchronous_commit", server_synchronous_commit, PGC_USERSET, PGC_S_OVERRIDE);
}

void
worker_start(Datum arg, WorkerSlot *(*slot_of) (TaskerDatabase *db, int number))
{
	char		server_commit[32];

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	if (tasker_shared == NULL)
		proc_exit(0);

	/* Before connecting: what is registered first runs last. */
	on_shmem_exit(worker_leave, 0);
	worker_claim(arg, slot_of);
	BackgroundWorkerUnblockSignals();

	strlcpy(server_commit, GetConfigOption("synchronous_commit", false, false),
			sizeof(server_commit));
	BackgroundWorkerInitializeConnectionByOid(my_database->oid, InvalidOid, 0);
	worker_settings(server_commit);
}

/* No failure, and no noise. */
void
worker_retire(void)
{
	LWLockAcquire(tasker_shared->lock, LW_EXCLUSIVE);
	my_slot->leaving = true;
	LWLockRelease(tasker_shared->lock);
	proc_exit(0);
}

/* Ends a worker whose extension is gone. */
static void
worker_extension_gone(void)
{
	AbortCurrentTransaction();
	LWLockAcquire(tasker_shared->lock, LW_EXCLUSIVE);
	if (my_database->looks == my_looks)
		my_database->state = DATABASE_ABSENT;
	LWLockRelease(tasker_shared->lock);
	worker_retire();
}

/*
 * Looks for the extension where something happened that may have removed or
 * replaced it, and tells the launcher what it asked for.  A request that comes
 * after the look began stays open: looks counts them.
 */
static void
worker_find_extension(void)
{
	my_looks = my_database->looks;
	pg_memory_barrier();
	my_changes = activation_changes();
	my_extension = get_extension_oid("tasker", true);
	if (!OidIsValid(my_extension))
		worker_extension_gone();
	activation_watch();

	if (my_database->state == DATABASE_LOOK)
	{
		LWLockAcquire(tasker_shared->lock, LW_EXCLUSIVE);
		if (my_database->looks == my_looks && my_database->state == DATABASE_LOOK)
			my_database->state = DATABASE_PRESENT;
		LWLockRelease(tasker_shared->lock);
		launcher_wake();
	}
}

/*
 * Waits until whoever alters or drops the extension is through.  In a
 * transaction of its own that has neither a snapshot nor another lock, so it
 * can be part of no deadlock and holds nothing back.
 */
static void
worker_wait_for_extension(void)
{
	AbortCurrentTransaction();
	StartTransactionCommand();
	pgstat_report_activity(STATE_RUNNING, "waits for the extension, which somebody alters or drops");
	(void) set_config_option("lock_timeout", "0", PGC_SUSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
	LockDatabaseObject(ExtensionRelationId, my_extension, 0, AccessShareLock);
	CommitTransactionCommand();
	my_extension = InvalidOid;
}

void
worker_begin(void)
{
	for (;;)
	{
		worker_check();
		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		if (!OidIsValid(my_extension))
			worker_find_extension();
		if (!ConditionalLockDatabaseObject(ExtensionRelationId, my_extension, 0, AccessShareLock))
		{
			worker_wait_for_extension();
			continue;
		}
		if (my_looks != my_database->looks || my_changes != activation_changes())
		{
			Oid			locked = my_extension;

			worker_find_extension();
			if (my_extension != locked)
			{
				AbortCurrentTransaction();
				continue;
			}
		}
		break;
	}
	pgstat_report_activity(STATE_RUNNING, MyBgworkerEntry->bgw_type);
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
}

void
worker_commit(void)
{
	SPI_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
	/* Once a second, or autovacuum would not know what a busy worker leaves dead. */
	(void) pgstat_report_stat(false);
}

void
worker_rollback(void)
{
	AbortCurrentTransaction();
}

void
worker_check(void)
{
	/*
	 * Between transactions there is nothing to say about an end that was asked
	 * for: no FATAL in the log for each DROP EXTENSION.
	 */
	if (ProcDiePending && !IsTransactionState())
		proc_exit(0);
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
}

void
worker_idle(void)
{
	/* An exchange is a full barrier: the look for work comes after it. */
	pg_atomic_exchange_u32(&my_slot->idle, 1);
}

bool
worker_is_idle(void)
{
	return pg_atomic_read_u32(&my_slot->idle) != 0;
}

void
worker_busy(void)
{
	pg_atomic_write_u32(&my_slot->idle, 0);
}

/* Says in pg_stat_activity what this worker waits for. */
static void
worker_report_sleep(TimestampTz until, const char *what)
{
	char		text[256];

	if (until == PG_INT64_MAX)
		snprintf(text, sizeof(text), "waits for %s", what);
	else
		snprintf(text, sizeof(text), "waits for %s, next due %s", what, timestamptz_to_str(until));
	pgstat_report_activity(STATE_IDLE, text);
}

void
worker_sleep(TimestampTz until, const char *what)
{
	long		unreported;

	/* From here on a commit that is due later than this needs no wake-up. */
	pg_atomic_write_u64(&my_slot->until, until);
	my_slot->since = GetCurrentTimestamp();
	worker_report_sleep(until, what);

	/* Counters that are not due to be reported yet wait a second for more. */
	unreported = Min(pgstat_report_stat(false), REPORT_MS);
	for (;;)
	{
		int			events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH;
		long		timeout = -1;
		int			rc;

		worker_check();
		if (until != PG_INT64_MAX)
			timeout = Min(TimestampDifferenceMilliseconds(tasker_now(), until), LONGEST_NAP_MS);
		if (unreported > 0 && (timeout < 0 || unreported < timeout))
			timeout = unreported;
		if (timeout >= 0)
			events |= WL_TIMEOUT;

		rc = WaitLatch(MyLatch, events, timeout, tasker_wait_event(WAIT_IDLE_WORKER));
		if (rc & WL_LATCH_SET)
		{
			ResetLatch(MyLatch);
			break;
		}
		if (unreported > 0)
		{
			pgstat_report_stat(true);
			unreported = 0;
		}
		if (until != PG_INT64_MAX && tasker_now() >= until)
			break;
	}

	pg_atomic_write_u32(&my_slot->idle, 0);
	pg_atomic_write_u64(&my_slot->until, PG_INT64_MAX);
	worker_check();
}
