/*
 * processes.h
 *	  What the launcher, the workers and the committers share beyond
 *	  shared_memory.h.  For the engine room and wait_for_task() only.
 */
#ifndef TASKER_PROCESSES_H
#define TASKER_PROCESSES_H

#include "postgres.h"

#include "storage/condition_variable.h"
#include "storage/lwlock.h"

#include "shared_memory.h"

/* What is known of a database that has a slot. */
typedef enum DatabaseState
{
	DATABASE_UNKNOWN,			/* only held by somebody; freed when let go */
	DATABASE_LOOK,				/* its notifier is to find out whether the extension is there */
	DATABASE_PRESENT,			/* it is: notifier and executors run */
	DATABASE_ABSENT				/* it is not: freed when its workers are gone */
} DatabaseState;

/* Whether a database needs a deliverer. */
typedef enum Deliveries
{
	DELIVERIES_UNKNOWN,			/* the notifier is to find out */
	DELIVERIES_NONE,			/* no subscriber has a handler */
	DELIVERIES_SOME,			/* one has: the launcher keeps a deliverer running */
	DELIVERIES_LOOK				/* something changed: the deliverer is to find out */
} Deliveries;

/* A backend in wait_for_task(). */
typedef struct TaskWaiter
{
	Latch	   *latch;
	Oid			database;		/* InvalidOid: not waiting */
	pg_atomic_uint32 ended;		/* set by who ended the task */
	int64		task_id;
} TaskWaiter;

typedef struct TaskerShared
{
	LWLock	   *lock;			/* slots: who has them, state, hold, looks, pids, timings' keys */
	int			launcher_pid;
	Latch	   *launcher_latch;
	TimestampTz launcher_started_at;
	bool		full;			/* more databases than slots: the launcher looks at all again when one is free */
	ConditionVariable worker_gone;
	pg_atomic_uint32 waiters;	/* backends in wait_for_task(), of any database */
	TaskerDatabase database[TASKER_MAX_DATABASES];
	HandlerTiming timing[TASKER_MAX_HANDLERS];
	int			waiter_count;
	TaskWaiter	waiter[FLEXIBLE_ARRAY_MEMBER];
} TaskerShared;

extern TaskerShared *tasker_shared; /* NULL: the library was not preloaded */

/* With tasker_shared->lock held, exclusively for the ones that change anything. */
extern TaskerDatabase *database_find(Oid oid);
extern TaskerDatabase *database_make(Oid oid);	/* NULL: all slots are taken */
extern void database_free(TaskerDatabase *database);
extern void database_look(Oid oid);
extern bool database_hold(Oid oid);
extern void database_release(Oid oid, bool dropped);

extern void launcher_wake(void);
extern void wake_database(Oid oid);
extern void wake_executors(TaskerDatabase *database, int tokens);
extern void lower_next_due(TaskerDatabase *database, TimestampTz due);
extern void flag_notifier(TaskerDatabase *database, pg_atomic_uint32 *flag);

/* There may be events for handlers: to be called after a commit. */
extern void deliverer_wake(TaskerDatabase *database);

/*
 * In each round of the notifier's: where it is not known whether a subscriber
 * has a handler, looks, and has a deliverer started.
 */
extern void deliverer_look(void);

extern TaskWaiter *waiter_of_backend(void);

/* commands.c */
extern void tasker_commands_init(void);

/* Wait events of ours in pg_stat_activity, where the server can name them. */
typedef enum TaskerWait
{
	WAIT_IDLE_LAUNCHER,
	WAIT_IDLE_WORKER,
	WAIT_WORKERS_GONE,
	WAIT_TASK_END,
	WAIT_EVENTS
} TaskerWait;

extern uint32 tasker_wait_event(TaskerWait wait);

#endif							/* TASKER_PROCESSES_H */
