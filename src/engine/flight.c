/*
 * flight.c
 *	  Remembers beyond a crash what an executor or the deliverer was running.
 *
 * A crash rolls the claim back and with it the knowledge of who crashed; shared
 * memory is made anew.  So every executor keeps a few bytes in a file mapped
 * into memory: writing them costs a store and no system call, and the kernel
 * keeps them when the process dies.  Each names the step that runs; whichever
 * executor comes next finds it there and counts it.  A process that is told to
 * quit because another one crashed marks itself innocent first.
 *
 * The file is a cache: when the machine itself goes down, or on a standby that
 * is promoted, it is empty or stale, and a count is missed or one too many.
 */
#include "postgres.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "utils/elog.h"

#include "engine/flight.h"
#include "engine/worker.h"
#include "shared_memory.h"
#include "tasker.h"

/* Not copied by pg_basebackup, and emptied by nobody while the server runs. */
#define FLIGHT_FILE		PG_STAT_TMP_DIR "/tasker.flight"

#define FLIGHT_ENTRIES	(TASKER_MAX_DATABASES * (TASKER_MAX_EXECUTORS + 1))

typedef enum FlightPhase
{
	FLIGHT_IDLE,
	FLIGHT_RUNNING,
	FLIGHT_SAVING
} FlightPhase;

typedef struct FlightEntry
{
	Oid			database;		/* InvalidOid: free */
	int32		number;			/* of the executor within its database, or FLIGHT_DELIVERER */
	int32		pid;			/* 0: it died of its step */
	TimestampTz started_at;		/* when it started, as pids come again */
	volatile int64 task_id;
	volatile int16 step_no;
	volatile uint8 phase;
	volatile uint8 overran;
	volatile int32 subscriber_id;	/* of a deliverer, and the event */
	volatile int64 event_id;
	volatile int64 row_id;
} FlightEntry;

/* The file, mapped. */
static FlightEntry *entries = NULL;
static FlightEntry *mine = NULL;

/*
 * Maps the file, making it where it is missing.
 */
void
flight_open(void)
{
	Size		size = FLIGHT_ENTRIES * sizeof(FlightEntry);
	int			fd = OpenTransientFile(FLIGHT_FILE, O_RDWR | O_CREAT | PG_BINARY);
	struct stat status;
	void	   *area;

	if (fd < 0)
		ereport(ERROR,
				errcode_for_file_access(),
				errmsg("could not open file \"%s\": %m", FLIGHT_FILE));
	if (fstat(fd, &status) != 0 ||
		(status.st_size != size && (ftruncate(fd, 0) != 0 || ftruncate(fd, size) != 0)))
		ereport(ERROR,
				errcode_for_file_access(),
				errmsg("could not size file \"%s\": %m", FLIGHT_FILE));
	area = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (area == MAP_FAILED)
		ereport(ERROR,
				errcode_for_file_access(),
				errmsg("could not map file \"%s\": %m", FLIGHT_FILE));
	CloseTransientFile(fd);
	entries = area;
}

/* Gives an entry back. */
static void
free_entry(FlightEntry *entry)
{
	entry->phase = FLIGHT_IDLE;
	entry->task_id = 0;
	entry->step_no = 0;
	entry->overran = 0;
	entry->pid = 0;
	entry->database = InvalidOid;
}

/*
 * Told to quit because another process crashed: it was not our step.
 */
static void
quit_innocent(SIGNAL_ARGS)
{
	if (mine != NULL)
		mine->phase = FLIGHT_IDLE;
	SignalHandlerForCrashExit(postgres_signal_arg);
}

/*
 * An orderly exit, in the middle of a step or not, blames nobody; but for a
 * step that outlived its timeout, which is what the exit is for.  This runs
 * before the transaction is rolled back: whoever can claim the step again finds
 * that there is something to be judged first.
 */
static void
exit_orderly(int code, Datum arg)
{
	if (mine == NULL)
		return;
	if (mine->overran && mine->phase == FLIGHT_RUNNING)
	{
		mine->pid = 0;
		if (mine->number != FLIGHT_DELIVERER)
			pg_atomic_fetch_add_u32(&my_database->unjudged, 1);
	}
	else
		free_entry(mine);
	mine = NULL;
}

/*
 * Whether the executor that has this entry is still at work.
 */
static bool
owner_lives(const FlightEntry *entry)
{
	const WorkerSlot *slot;

	if (entry->pid == 0 || entry->number < 0 || entry->number > FLIGHT_DELIVERER)
		return false;
	slot = entry->number == FLIGHT_DELIVERER ? &my_database->deliverer :
		&my_database->executor[entry->number];
	return slot->pid == entry->pid && slot->started_at == entry->started_at;
}

/*
 * One caller at a time, which the judge's lock sees to, and that there is only
 * one deliverer.
 */
bool
flight_next_suspect(bool of_deliverer, FlightSuspect *suspect)
{
	bool		found = false;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	for (int i = 0; i < FLIGHT_ENTRIES && !found; i++)
	{
		FlightEntry *entry = &entries[i];

		if (entry->database != MyDatabaseId || owner_lives(entry) ||
			(entry->number == FLIGHT_DELIVERER) != of_deliverer)
			continue;
		if (entry->phase == FLIGHT_IDLE)
		{
			free_entry(entry);
			continue;
		}
		suspect->place = i;
		suspect->task_id = entry->task_id;
		suspect->step_no = entry->step_no;
		suspect->overran = entry->overran;
		suspect->subscriber_id = entry->subscriber_id;
		suspect->event_id = entry->event_id;
		suspect->row_id = entry->row_id;
		found = true;
	}
	LWLockRelease(AddinShmemInitLock);
	return found;
}

void
flight_forget(const FlightSuspect *suspect)
{
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	free_entry(&entries[suspect->place]);
	LWLockRelease(AddinShmemInitLock);
}

void
flight_attach(int number)
{
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	for (int i = 0; i < FLIGHT_ENTRIES && mine == NULL; i++)
	{
		if (OidIsValid(entries[i].database))
			continue;
		mine = &entries[i];
		free_entry(mine);
		mine->number = number;
		mine->pid = MyProcPid;
		mine->started_at = my_slot->started_at;
		mine->database = MyDatabaseId;
	}
	LWLockRelease(AddinShmemInitLock);

	pqsignal(SIGQUIT, quit_innocent);
	before_shmem_exit(exit_orderly, (Datum) 0);
}

void
flight_note_running(int64 task_id, int step_no)
{
	if (mine == NULL)
		return;
	mine->overran = 0;
	mine->task_id = task_id;
	mine->step_no = step_no;
	mine->phase = FLIGHT_RUNNING;
}

void
flight_note_delivering(int32 subscriber_id, int64 event_id, int64 row_id)
{
	if (mine == NULL)
		return;
	mine->overran = 0;
	mine->subscriber_id = subscriber_id;
	mine->event_id = event_id;
	mine->row_id = row_id;
	mine->phase = FLIGHT_RUNNING;
}

/*
 * The batch is being saved; task and step where it is about one alone.
 */
void
flight_note_saving(int64 task_id, int step_no)
{
	if (mine == NULL)
		return;
	mine->overran = 0;
	mine->task_id = task_id;
	mine->step_no = step_no;
	mine->phase = FLIGHT_SAVING;
}

void
flight_note_idle(void)
{
	if (mine != NULL)
		mine->phase = FLIGHT_IDLE;
}

void
flight_mark_overran(void)
{
	if (mine != NULL)
		mine->overran = 1;
}
