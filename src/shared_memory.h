/*
 * shared_memory.h
 *	  What the processes of the engine share, and how a transaction tells them
 *	  that it made work.
 *
 * Everything here is a cache or a wake-up: the tables are the truth, and all of
 * it may be lost in a crash without harm.  When the library was not preloaded
 * there is none of it, and every function below does nothing.
 */
#ifndef TASKER_SHARED_MEMORY_H
#define TASKER_SHARED_MEMORY_H

#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "utils/timestamp.h"

#include "engine/front.h"
#include "tasker.h"

#define TASKER_MAX_DATABASES	64
#define TASKER_MAX_HANDLERS		4096

/* What an executor is doing, for health_check(); a cache nobody relies on. */
typedef struct WorkerSlot
{
	int			pid;			/* 0: not running */
	Latch	   *latch;			/* valid while pid is set; a stray SetLatch does no harm */
	pg_atomic_uint32 idle;		/* 1: asleep, or about to be, and may be woken */
	pg_atomic_uint64 until;		/* while idle: wakes up by itself then; PG_INT64_MAX: not before it is woken */
	bool		leaving;		/* told to end, so its end is no failure */
	TimestampTz started_at;
	int64		task_id;		/* step that runs now; 0: none */
	int16		step_no;
	TimestampTz since;
} WorkerSlot;

typedef struct TaskerDatabase
{
	Oid			oid;			/* InvalidOid: slot is free */
	int			state;			/* DatabaseState, in engine/processes.h */
	uint32		looks;			/* counts the requests to look whether the extension is there */
	NameData	name;			/* for the log */
	int			installer;		/* backend that runs a restore's install script; 0: none */
	int			hold;			/* >0: somebody drops, renames or copies it: no worker may start */
	TimestampTz not_before;		/* back-off of the launcher */
	int			failures;
	bool		said_no_slot;
	pg_atomic_uint64 next_due;	/* TimestampTz; PG_INT64_MAX: nothing known */
	pg_atomic_uint32 log_written;	/* the notifier has rows to read */
	pg_atomic_uint32 external_ready;	/* steps for workers outside became ready */
	pg_atomic_uint32 rounds_begun;	/* of the notifier */
	pg_atomic_uint32 rounds_done;
	pg_atomic_uint32 round_wanted;	/* somebody waits for the next one: at once */
	pg_atomic_uint64 last_tick;	/* the last one that is committed; 0: not known yet */
	pg_atomic_uint64 rung_tick;	/* the last one that was rung for; 0: none yet */
	ConditionVariable round_done;
	pg_atomic_uint32 unjudged;	/* executors that died of a step, at which nobody has looked yet */
	pg_atomic_uint32 suspicions;	/* counts the changes to tasker.crash */
	pg_atomic_uint32 limit_slots;	/* of any limit, slots that were ever in use */
	pg_atomic_uint32 deliveries;	/* Deliveries, in engine/processes.h */
	pg_atomic_uint32 careful;	/* batches still to be of one step, after a crash that nobody is blamed for */
	LaneFront	front[FRONT_LANES];	/* where unclaimed tokens begin */
	WorkerSlot	notifier;
	WorkerSlot	deliverer;
	WorkerSlot	executor[TASKER_MAX_EXECUTORS];
} TaskerDatabase;

/* Moving average of a handler's run time, in microseconds; 0: never timed. */
typedef struct HandlerTiming
{
	Oid			database;
	int32		handler_id;
	pg_atomic_uint32 average_us;
} HandlerTiming;

extern void tasker_shared_memory_init(void);	/* from _PG_init, when preloaded */
extern TaskerDatabase *tasker_my_database(void);	/* NULL: no worker has ever run here */
extern HandlerTiming *tasker_handler_timing(int32 handler_id);	/* NULL: no room */

/*
 * Notes for the commit of the current transaction.  Nothing happens when it
 * aborts, but for tasker_note_kept().  A prepared transaction wakes everybody at COMMIT PREPARED.
 */
extern void tasker_note_ready(int tokens);	/* work for executors: wakes that many idle ones */
extern void tasker_note_token(int lane, int32 rank, TimestampTz due);	/* where in a lane some of it is */
extern void tasker_note_moved(void);	/* it may be anywhere in the lanes */
extern void tasker_note_kept(bool from_executors);	/* tokens are passed by until this ends, either way */
extern void tasker_note_external_ready(void);	/* work for outside: the notifier rings tasker_steps */
extern void tasker_note_log(void);	/* log rows: the notifier rings tasker_events */
extern void tasker_note_due(TimestampTz due);	/* something will be due then */
extern void tasker_note_task_ended(int64 task_id);	/* for wait_for_task() */
extern void tasker_note_installed(bool restoring);	/* the extension was created: start its workers */
extern void tasker_note_deliveries(void);	/* the deliverer is to look at subscribers and failures */
extern void tasker_note_everything(void);	/* wakes every worker of this database */
extern void tasker_note_look(Oid database); /* the launcher looks at that database */

#endif							/* TASKER_SHARED_MEMORY_H */
