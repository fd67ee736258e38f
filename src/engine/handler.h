/*
 * handler.h
 *	  Runs one SQL handler, and lets nothing of it out but its result.
 */
#ifndef TASKER_HANDLER_H
#define TASKER_HANDLER_H

#include "postgres.h"

#include "engine/plan.h"
#include "state/state.h"

/* How a handler ended. */
typedef struct HandlerOutcome
{
	bool		ok;
	bool		wrote;			/* its subtransaction took a transaction id */
	bool		timed_out;
	bool		ends_batch;		/* what it did holds until the end of the transaction */
	uint64		us;				/* run time */
	Jsonb	   *results;		/* in the batch's context */
	ErrorData  *error;			/* where not ok; in the batch's context */
	int64		retry_after;	/* µs that retryable_error() asked for; -1: none */
} HandlerOutcome;

extern void handler_init(void);	/* before the first run; again does nothing */

/*
 * in_place: in a session of a user's, whose cursors, temporary tables, prepared
 * statements and deferred triggers are left alone.
 */
extern void handler_run(Batch *batch, TaskRun *task, int step_no, bool in_place,
						HandlerOutcome *outcome);

/* A tasker.step_context. */
extern Datum handler_step_context(TaskRun *task, int step_no);

/* Whether this process is inside a handler, and of which task. */
extern int64 handler_running_task(void);

/* Its step; 0: it is in none. */
extern int64 handler_running_step(void);

/* SET CONSTRAINTS is being run in this process. */
extern void handler_note_constraints(void);

#endif							/* TASKER_HANDLER_H */
