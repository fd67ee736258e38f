/*
 * executor.h
 *	  What the parts of an executor share.
 */
#ifndef TASKER_EXECUTOR_H
#define TASKER_EXECUTOR_H

#include "postgres.h"

/* How long what runs in a batch may wait for a lock, in ms. */
#define BATCH_LOCK_TIMEOUT	100

/* Sets lock_timeout for what comes, where it is another one. */
extern void executor_set_lock_timeout(int ms);

/* Reports the error at hand, ends the transaction, returns a copy of the error. */
extern ErrorData *executor_after_error(MemoryContext keep);

#endif							/* TASKER_EXECUTOR_H */
