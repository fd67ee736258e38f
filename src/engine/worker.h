/*
 * worker.h
 *	  What executors, notifier and deliverer have in common: how they start, how they
 *	  begin and end a transaction, how they sleep.
 */
#ifndef TASKER_WORKER_H
#define TASKER_WORKER_H

#include "postgres.h"

#include "shared_memory.h"

/* bgw_main_arg: slot of the database << 8 | number of the executor */
extern PGDLLEXPORT void tasker_launcher_main(Datum arg);
extern PGDLLEXPORT void tasker_executor_main(Datum arg);
extern PGDLLEXPORT void tasker_notifier_main(Datum arg);
extern PGDLLEXPORT void tasker_deliverer_main(Datum arg);

extern void tasker_launcher_register(void); /* from _PG_init */

/* In an executor, the notifier or the deliverer: its database and its own slot. */
extern TaskerDatabase *my_database;
extern WorkerSlot *my_slot;

/*
 * Connects, installs signal handlers, settings and the slot.  bgw_type is the
 * backend_type.  Does not return where the database or the extension is gone.
 */
extern void worker_start(Datum arg, WorkerSlot *(*slot_of) (TaskerDatabase *db, int number));

/*
 * Starts a transaction with an active snapshot and SPI, holding the extension
 * against DROP and ALTER; waits, holding nothing, while somebody else has it.
 * Exits the process when the extension is gone.
 */
extern void worker_begin(void);
extern void worker_commit(void);
extern void worker_rollback(void);

/*
 * Says that this executor is idle, before it looks for work for the last time:
 * who commits work from here on finds it idle and wakes it.  After that look,
 * worker_busy() when there was work after all, else worker_sleep(); but not when
 * it is idle no more: it was woken, and its latch may be gone, for whoever waits
 * for a lock takes every latch for that lock's.
 */
extern void worker_idle(void);
extern bool worker_is_idle(void);
extern void worker_busy(void);

/* Sleeps until woken, or until then; says in pg_stat_activity for what. */
extern void worker_sleep(TimestampTz until, const char *what);

/* Ends this process for good: it has nothing to do any more.  In no transaction. */
extern void worker_retire(void);

/* Before each loop: handles SIGHUP and SIGTERM, CHECK_FOR_INTERRUPTS. */
extern void worker_check(void);

#endif							/* TASKER_WORKER_H */
