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
	Jsonb	   *results;		/* in the caller's context, as the error */
	ErrorData  *error;			/* where not ok */
	int64		retry_after;	/* µs that retryable_error() asked for; -1: none */
} HandlerOutcome;

extern void handler_init(void);	/* before the first run; again does nothing */

/*
 * in_place: in a session of a user's, whose cursors, temporary tables, prepared
 * statements and deferred triggers are left alone.
 */
extern void handler_run(Batch *batch, TaskRun *task, int step_no, bool in_place,
						HandlerOutcome *outcome);

/*
 * The handler that makes the result of an api step's answer, in a session that
 * ends such steps.  What it leaves for the commit is done at once, in its role.
 */
extern void handler_run_answer(Batch *batch, TaskRun *task, int step_no, Jsonb *response,
							   HandlerOutcome *outcome);

/*
 * Any SQL handler, with the same protection: what runs a step does more around
 * it, what delivers an event less.
 */
typedef struct HandlerCall
{
	Handler    *handler;
	bool		in_place;
	bool		fires_deferred; /* in_place: not left to the session's commit */
	bool		keeps_result;	/* it returns jsonb; else whatever comes back is ignored */
	int64		allowed;		/* µs; 0: as long as it likes */
	int64		task_id;		/* whose it is; not 0 */
	MemoryContext context;		/* for the outcome */
	SecretUse  *secrets;		/* that its argument holds; NULL: none */
	const char *repair;			/* hint where the function is not there any more */
	void	   *subject;
	Datum		(*argument) (void *subject);	/* called inside the subtransaction */
	void		(*timed_out) (void *subject, int64 allowed, ErrorData *error);
} HandlerCall;

extern void handler_call(const HandlerCall *call, HandlerOutcome *outcome);

/* Whether a failure may be somebody else's doing, and a run alone would show. */
extern bool handler_is_suspect(int sqlerrcode);

/* A tasker.step_context; response: NULL, or the answer to an api step. */
extern Datum handler_step_context(TaskRun *task, int step_no, Jsonb *response);

/* Whether this process is inside a handler, and of which task. */
extern int64 handler_running_task(void);

/* Its step; 0: it is in none. */
extern int64 handler_running_step(void);

/* SET CONSTRAINTS is being run in this process. */
extern void handler_note_constraints(void);

#endif							/* TASKER_HANDLER_H */
