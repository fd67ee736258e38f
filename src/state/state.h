/*
 * state.h
 *	  The two state machines, and the one way in which anything changes a state.
 *
 * rules.c holds the machines, graph.c moves one task and its steps in memory,
 * load.c reads them from the tables, write.c saves what moved, log.c appends to
 * the log.  Nobody else writes a state.
 */
#ifndef TASKER_STATE_H
#define TASKER_STATE_H

#include "postgres.h"

#include "access/htup.h"
#include "access/tupdesc.h"
#include "nodes/pg_list.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "engine/plan.h"

typedef enum TaskState
{
	TASK_PENDING,
	TASK_IN_PROGRESS,
	TASK_PAUSED,
	TASK_COMPLETE,
	TASK_ERROR,
	TASK_CANCELLED,
	TASK_RESOLVED
} TaskState;

#define TASK_STATES		(TASK_RESOLVED + 1)

typedef enum StepState
{
	STEP_PENDING,
	STEP_IN_PROGRESS,
	STEP_WAITING,				/* for its retry */
	STEP_COMPLETE,
	STEP_ERROR,
	STEP_CANCELLED,
	STEP_RESOLVED,
	STEP_SKIPPED
} StepState;

#define STEP_STATES		(STEP_SKIPPED + 1)

#define STATE_NONE		(-1)	/* before a row came into being */

#define task_has_ended(s) \
	((s) == TASK_COMPLETE || (s) == TASK_ERROR || (s) == TASK_CANCELLED || (s) == TASK_RESOLVED)
#define step_satisfies(s) \
	((s) == STEP_COMPLETE || (s) == STEP_RESOLVED || (s) == STEP_SKIPPED)

typedef enum Machine
{
	MACHINE_TASK,
	MACHINE_STEP
} Machine;

/* rules.c */
extern bool state_move_allowed(Machine machine, int from, int to);
extern const char *state_name(Machine machine, int state);
extern const char *state_event(Machine machine, int from, int to);
extern void state_refuse(Machine machine, int64 id, int from, int to) pg_attribute_noreturn();

/* Numbers of tokens that no step has; the task's start has 0. */
#define TOKEN_DEADLINE	(-1)
#define TOKEN_REMAINS	(-2)	/* the task has ended, and others had tokens of it in hand then */

/* One step of a task in memory. */
typedef struct StepRun
{
	int8		state;
	bool		has_row;		/* tasker.step has a row of it */
	bool		changed;		/* write.c has to save it */
	bool		mine;			/* this batch holds its token */
	bool		lease_ended;	/* a worker outside held it until now */
	bool		queued;			/* its token goes (back) into the queue */
	int16		attempts;
	int16		retry_limit;	/* -1: as the plan says */
	int16		tries;			/* tasker.queue.tries of its token */
	int16		open_parents;	/* parents that do not satisfy it yet */
	int32		lane;			/* where its token goes, when queued */
	int32		parked;			/* limit that it waits for first; 0: none */
	TimestampTz due;			/* when, for its token */
	TimestampTz started_at;
	TimestampTz finished_at;
	TimestampTz next_attempt_at;
	TimestampTz lease_until;
	char	   *claimed_by;
	Jsonb	   *results;
	Jsonb	   *error;
	Jsonb	   *inputs;
} StepRun;

/* A task in memory. */
typedef struct TaskRun
{
	int64		task_id;
	TaskPlan   *plan;
	int8		state;
	int8		loaded_state;	/* as it stands in the table */
	bool		changed;
	bool		shared;			/* others may be at work on it: lock and look again before writing */
	bool		locked;			/* its row is locked, and was read after that */
	bool		at_start;		/* claimed by its start token: nobody else has any of it */
	bool		put_back;		/* its start token goes back into the queue */
	bool		swept;			/* it had ended before: what tokens it has left go */
	bool		remains;		/* it has ended, and others have tokens of it in hand */
	int16		sweeps;			/* so often has it been swept */
	int32		priority;
	TimestampTz run_at;
	TimestampTz started_at;
	TimestampTz finished_at;
	TimestampTz deadline;		/* 0: none, or it has not started since it was reopened */
	Jsonb	   *context;
	Jsonb	   *error;			/* of the step that failed first for good */
	char	   *correlation_id;
	char	   *traceparent;
	ArrayType  *bypass_steps;	/* names; NULL: none */
	HeapTuple	row;			/* as it was read with the claim; NULL: it was not */
	StepRun    *steps;			/* plan->step_count of them; steps[0] is step number 1 */
	int			start_move;		/* its change to in_progress in this batch, while it is; -1: none */
	int			live;			/* steps in progress, waiting, or with nothing open before them */
	int			busy;			/* steps in progress or waiting */
	int			turn;			/* no step of a lower number has nothing open before it */
	int			errors;			/* steps in error */
	int			unsatisfied;	/* steps that do not satisfy dependants */
} TaskRun;

/* A row for the log, in the order of what happened. */
typedef struct Move
{
	int64		task_id;
	TimestampTz at;
	int16		step_no;		/* 0: the task itself */
	int8		from_state;
	int8		to_state;
	int16		attempt;		/* 0: none */
	bool		dropped;		/* it did not happen after all */
	int			start;			/* the change to in_progress of this batch that it ends; -1: none */
	TimestampTz started_at;		/* of what leaves in_progress: since when it was; 0: otherwise */
	Jsonb	   *metadata;
} Move;

/* What a transaction has moved and not saved yet. */
typedef struct Batch
{
	MemoryContext context;
	List	   *tasks;			/* of TaskRun, in the order they were loaded */
	Move	   *moves;
	int			move_count;
	int			move_space;
	int			sql_tokens;		/* tokens queued for executors */
	int			takes_itself;	/* of them, those that the writer goes on with itself */
	bool		for_outside;	/* claimed by a worker outside: rings for nothing it puts back */
	bool		external_tokens;
	TimestampTz next_due;		/* earliest token that is not due yet */
} Batch;

/* graph.c */
extern Batch *batch_create(MemoryContext context);
extern TaskRun *batch_add_task(Batch *batch, TaskPlan *plan, int64 task_id, int state);
extern TaskRun *batch_find_task(Batch *batch, int64 task_id);
extern void graph_count(TaskRun *task);
extern void graph_start(Batch *batch, TaskRun *task, TimestampTz at);
extern bool graph_is_ready(TaskRun *task, int step_no);
extern int	graph_turn(TaskRun *task);
extern bool graph_bypasses(TaskRun *task, int step_no);
extern bool graph_goes_on(TaskRun *task);
extern bool graph_time_is_up(TaskRun *task, TimestampTz at);
extern int	graph_retry_limit(TaskRun *task, int step_no);
extern void graph_step_started(Batch *batch, TaskRun *task, int step_no, TimestampTz at);
extern void graph_step_skipped(Batch *batch, TaskRun *task, int step_no, TimestampTz at);
extern void graph_step_completed(Batch *batch, TaskRun *task, int step_no, Jsonb *results,
								 TimestampTz at);
extern void graph_step_failed(Batch *batch, TaskRun *task, int step_no, Jsonb *error,
							  const char *message, const char *sqlstate,
							  bool retryable, TimestampTz retry_at, TimestampTz at);
extern void graph_step_cancelled(Batch *batch, TaskRun *task, int step_no, const char *reason,
								 TimestampTz at);
extern void graph_step_resolved(Batch *batch, TaskRun *task, int step_no, Jsonb *results,
								const char *reason, TimestampTz at);
extern void graph_step_retried(Batch *batch, TaskRun *task, int step_no, TimestampTz at);
extern void graph_step_leased(Batch *batch, TaskRun *task, int step_no, char *worker,
							  TimestampTz lease_until, TimestampTz at);
extern void graph_task_moved(Batch *batch, TaskRun *task, int to, const char *reason,
							 TimestampTz at);
extern void graph_task_cancelled(Batch *batch, TaskRun *task, const char *reason, TimestampTz at);
extern void graph_task_expired(Batch *batch, TaskRun *task, TimestampTz at);
extern void graph_forget_start(Batch *batch, TaskRun *task);
extern void graph_finish(Batch *batch, TaskRun *task, TimestampTz at);
extern void graph_queue_step(Batch *batch, TaskRun *task, int step_no, int32 lane, TimestampTz due);

extern Jsonb *graph_error(Batch *batch, const char *message, const char *sqlstate,
						  const char *detail, const char *hint, const char *context,
						  int attempt, bool retryable, TimestampTz at);
extern Jsonb *graph_error_in(MemoryContext keep, const char *message, const char *sqlstate,
							 const char *detail, const char *hint, const char *context,
							 int attempt, bool retryable, TimestampTz at);

/* Delay before the attempt after this one, in µs; the arguments in seconds. */
extern int64 graph_backoff(double base_delay, double max_delay, double jitter, int attempt);

extern void graph_push_string(JsonbParseState **state, JsonbIteratorToken token, const char *text);
extern void graph_push_jsonb(JsonbParseState **state, JsonbIteratorToken token, Jsonb *jsonb);

/*
 * load.c
 *
 * A statement that claims tokens: `tokens` selects their ctids, locked; `with`
 * is empty or what stands before, with a comma.  load_claimed() reads its rows,
 * which come in the order in which they are to be done.
 */
#define LOAD_TASK_COLUMNS \
	"t.plan_id, t.state, t.priority, t.started_at, t.context, t.correlation_id, " \
	"t.traceparent, t.bypass_steps, t.error, t.run_at"

#define LOAD_CLAIM(with, tokens) \
	"WITH " with "c AS (" \
	"DELETE FROM tasker.queue WHERE ctid = ANY (ARRAY(" tokens ")) " \
	"RETURNING task_id, step_no, tries, rank, due) " \
	"SELECT c.task_id, c.step_no, c.tries, " LOAD_TASK_COLUMNS ", c.due " \
	"FROM c " \
	"JOIN tasker.task AS t ON t.task_id = c.task_id " \
	"ORDER BY c.rank, c.due, c.task_id, c.step_no"

#define LOAD_CLAIM_DUE		14	/* its column of the token's due time */

/*
 * Sets a token's time where it goes from one lane into another: to the end of one
 * of executors, while workers outside are served in the order of old.
 */
#define TOKEN_TO_END(now) \
	"due = CASE WHEN q.due_lane >= " CppAsString2(LANE_API) " THEN q.due ELSE " now " END "

extern Datum load_ids(List *tasks);
extern void load_claimed(Batch *batch, uint64 rows);
extern void load_claimed_row(Batch *batch, HeapTuple row, TupleDesc desc, int64 task_id, int step_no,
							 int tries);
extern void load_begun(Batch *batch);
extern void load_locked(Batch *batch, int64 *ids, int count);
extern void load_step_states(Batch *batch, List *tasks);
extern void load_step_results(Batch *batch, List *tasks);

/* hold.c */
extern void hold_begin(void);
extern bool hold_try(int64 task_id);
extern void hold_give_back(int64 task_id);
extern void hold_only(int64 *claimed, int count);
extern bool hold_is_mine(int64 task_id);
extern void hold_alone(int64 task_id);
extern void hold_release(int64 task_id);

/* write.c */
extern void write_lock_tasks(Batch *batch);
extern void write_batch(Batch *batch);
extern void write_token(int64 task_id, int step_no, int32 lane, int32 then, int32 priority,
						TimestampTz due, int tries);

/* log.c */
extern void log_append(const Move *moves, int count);

#endif							/* TASKER_STATE_H */
