/*
 * run.h
 *	  Runs the ready steps of a batch, in memory, one after the other.
 */
#ifndef TASKER_RUN_H
#define TASKER_RUN_H

#include "postgres.h"

#include "state/state.h"

/* A step that is ready in memory. */
typedef struct ReadyStep
{
	TaskRun    *task;
	int16		step_no;
} ReadyStep;

/* A step that is to be failed when it is reached. */
typedef struct Doom
{
	int64		task_id;
	int16		step_no;
	ErrorData  *error;
	bool		done;
} Doom;

/* The batch at work. */
typedef struct Run
{
	Batch	   *batch;
	ReadyStep  *ready;			/* a stack: a task that has begun goes on first */
	int			ready_count;
	int			ready_space;
	int			claimed;		/* tokens */
	int			ran;			/* handlers run */
	int			writing;		/* of them, those that wrote */
	int			queued;			/* tokens that wait for the commit */
	bool		alone;			/* one step and no more */
	bool		closed;			/* starts no further step */
	bool		in_place;		/* everything here and now, in the caller's transaction */
	bool		slow;			/* met a handler that is slow or was never timed */
	const char *path;			/* search_path of the handlers so far */
	bool		mixed_paths;		/* they had not all the same */
	bool		cleared;		/* a suspect of a crash came to an end */
	Doom	   *doom;			/* or NULL */
	TimestampTz deadline;
} Run;

/* Who was at work last, should the transaction fail. */
extern int64 run_last_task;
extern int16 run_last_step;

extern void run_find_ready(Run *run);
extern void run_push_mine(Run *run);
extern int	run_waiting_now(Run *run);
extern void run_ready(Run *run);
extern void run_fail_step(Batch *batch, TaskRun *task, int step_no, ErrorData *error,
						  bool retryable, TimestampTz retry_at, TimestampTz at);

#endif							/* TASKER_RUN_H */
