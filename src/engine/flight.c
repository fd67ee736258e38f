/*
 * flight.c
 *	  Remembers beyond a crash what an executor was running.
 *
 * A crash rolls the claim back and with it the knowledge of who crashed; shared
 * memory is made anew.  So every executor keeps a few bytes in a file mapped
 * into memory: writing them costs a store and no system call, and the kernel
 * keeps them when the process dies.  Each names the step that runs; the next
 * executor of the same number finds it there and counts it.  A process that is
 * told to quit because another one crashed marks itself innocent first.
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
#include "shared_memory.h"
#include "tasker.h"

/* Not copied by pg_basebackup, and emptied by nobody while the server runs. */
#define FLIGHT_FILE		PG_STAT_TMP_DIR "/tasker.flight"

#define FLIGHT_ENTRIES	(TASKER_MAX_DATABASES * TASKER_MAX_EXECUTORS)

typedef enum FlightPhase
{
	FLIGHT_IDLE,
	FLIGHT_RUNNING,
	FLIGHT_SAVING
} FlightPhase;

typedef struct FlightEntry
{
	Oid			database;		/* InvalidOid: free */
	int32		number;			/* of the executor within its database */
	volatile int64 task_id;
	volatile int16 step_no;
	volatile uint8 phase;
	volatile uint8 overran;
} FlightEntry;

static FlightEntry *entries = NULL;
static FlightEntry *mine = NULL;

/*
 * Maps the file, making it where it is missing.
 */
static void
map_file(void)
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

static void
clear_entry(FlightEntry *entry)
{
	entry->phase = FLIGHT_IDLE;
	entry->task_id = 0;
	entry->step_no = 0;
	entry->overran = 0;
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
 * step that outlived its timeout, which is what the exit is for.
 */
static void
exit_orderly(int code, Datum arg)
{
	if (mine == NULL || mine->overran)
		return;
	clear_entry(mine);
	mine->database = InvalidOid;
	mine = NULL;
}

/*
 * Whether this executor looks after the entry: its own, and the first one also
 * those of numbers that are no more.
 */
static bool
looks_after(FlightEntry *entry, int number)
{
	return entry->database == MyDatabaseId &&
		(entry->number == number || (number == 0 && entry->number >= tasker_executors));
}

/*
 * Takes the entry of this executor, and hands over what earlier ones of this
 * database left in theirs.  Returns how many there are.
 */
int
flight_attach(int number, FlightSuspect *suspects, int space)
{
	int			found = 0;
	FlightEntry *unused = NULL;

	map_file();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	for (int i = 0; i < FLIGHT_ENTRIES; i++)
	{
		FlightEntry *entry = &entries[i];

		if (!OidIsValid(entry->database))
		{
			if (unused == NULL)
				unused = entry;
			continue;
		}
		if (!looks_after(entry, number))
			continue;
		if (entry->number == number)
			mine = entry;
		if (entry->phase != FLIGHT_IDLE && found < space)
		{
			suspects[found].task_id = entry->task_id;
			suspects[found].step_no = entry->step_no;
			suspects[found].overran = entry->overran;
			found++;
		}
	}
	if (mine == NULL && unused != NULL)
	{
		mine = unused;
		mine->database = MyDatabaseId;
		mine->number = number;
		clear_entry(mine);
	}
	LWLockRelease(AddinShmemInitLock);

	pqsignal(SIGQUIT, quit_innocent);
	before_shmem_exit(exit_orderly, (Datum) 0);
	return found;
}

void
flight_forget_suspects(int number)
{
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	for (int i = 0; i < FLIGHT_ENTRIES; i++)
	{
		if (!looks_after(&entries[i], number))
			continue;
		clear_entry(&entries[i]);
		if (&entries[i] != mine)
			entries[i].database = InvalidOid;
	}
	LWLockRelease(AddinShmemInitLock);
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
