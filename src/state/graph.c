/*
 * graph.c
 *	  Moves a task and its steps in memory.
 *
 * Everything that changes a state comes through move_step() and move_task():
 * they check the rules, note the move for the log and keep the counts by which
 * a task knows that it has ended.  Nothing is read or written here; load.c and
 * write.c do that.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type_d.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

#include "state/state.h"
#include "tasker.h"

/* Of a handler's results: what it adds to the event of the completion. */
#define EVENT_FIELDS_KEY	"_event"

#define step_run(task, step_no) (&(task)->steps[(step_no) - 1])
#define step_id(task, step_no) ((task)->task_id << TASKER_STEP_BITS | (step_no))

Batch *
batch_create(MemoryContext context)
{
	Batch	   *batch = MemoryContextAllocZero(context, sizeof(Batch));

	batch->context = context;
	batch->next_due = PG_INT64_MAX;
	return batch;
}

/*
 * Adds a task whose steps are all pending; load_step_states() knows better.
 */
TaskRun *
batch_add_task(Batch *batch, TaskPlan *plan, int64 task_id, int state)
{
	MemoryContext before = MemoryContextSwitchTo(batch->context);
	TaskRun    *task = palloc0(sizeof(TaskRun));

	task->task_id = task_id;
	task->plan = plan;
	task->start_move = -1;
	task->state = task->loaded_state = state;
	task->steps = palloc0(Max(plan->step_count, 1) * sizeof(StepRun));
	for (int i = 0; i < plan->step_count; i++)
		task->steps[i].retry_limit = -1;
	task->turn = 1;
	batch->tasks = lappend(batch->tasks, task);
	MemoryContextSwitchTo(before);
	return task;
}

/*
 * The task of that id, or NULL.  Callers ask for the same one again and again,
 * and for those they added last.
 */
TaskRun *
batch_find_task(Batch *batch, int64 task_id)
{
	for (int i = list_length(batch->tasks) - 1; i >= 0; i--)
	{
		TaskRun    *task = list_nth(batch->tasks, i);

		if (task->task_id == task_id)
			return task;
	}
	return NULL;
}

/*
 * Whether the task still starts steps.
 */
bool
graph_goes_on(TaskRun *task)
{
	return !task_has_ended(task->state) && task->state != TASK_PAUSED &&
		!(task->plan->stop_on_failure && task->errors > 0);
}

/*
 * Whether nothing is open before the step.
 */
static bool
is_open(TaskRun *task, int step_no)
{
	StepRun    *step = step_run(task, step_no);

	return step->state == STEP_PENDING && step->open_parents == 0;
}

/*
 * Of a task whose steps run one at a time, the one whose turn it is; 0: one is
 * under way, or nothing is left.  A step that waits for its retry keeps its turn:
 * so such a task never has more than one token.
 */
int
graph_turn(TaskRun *task)
{
	if (task->busy > 0)
		return 0;
	while (task->turn <= task->plan->step_count && !is_open(task, task->turn))
		task->turn++;
	return task->turn <= task->plan->step_count ? task->turn : 0;
}

bool
graph_is_ready(TaskRun *task, int step_no)
{
	return is_open(task, step_no) &&
		(!task->plan->one_at_a_time || graph_turn(task) == step_no);
}

/*
 * Whether the task's deadline has passed, be it acted on already or not.
 */
bool
graph_time_is_up(TaskRun *task, TimestampTz at)
{
	return task->deadline != 0 && at >= task->deadline;
}

int
graph_retry_limit(TaskRun *task, int step_no)
{
	StepRun    *step = step_run(task, step_no);

	return step->retry_limit >= 0 ? step->retry_limit :
		plan_step(task->plan, step_no)->retry_limit;
}

/*
 * Whether the task was created to bypass the step.
 */
bool
graph_bypasses(TaskRun *task, int step_no)
{
	const char *name = plan_step(task->plan, step_no)->name;
	Datum	   *names;
	int			count;
	bool		found = false;

	if (task->bypass_steps == NULL)
		return false;
	deconstruct_array(task->bypass_steps, TEXTOID, -1, false, TYPALIGN_INT, &names, NULL, &count);
	for (int i = 0; i < count && !found; i++)
		found = strcmp(TextDatumGetCString(names[i]), name) == 0;
	return found;
}

/* What a step's state adds to its task's counts. */
static void
count_step(TaskRun *task, int step_no, int sign)
{
	StepRun    *step = step_run(task, step_no);

	if (step->state == STEP_IN_PROGRESS || step->state == STEP_WAITING)
	{
		task->live += sign;
		task->busy += sign;
	}
	else if (is_open(task, step_no))
	{
		task->live += sign;
		task->turn = Min(task->turn, step_no);
	}
	if (step->state == STEP_ERROR)
		task->errors += sign;
	if (!step_satisfies(step->state))
		task->unsatisfied += sign;
}

/*
 * Counts everything anew from the steps' states.
 */
void
graph_count(TaskRun *task)
{
	TaskPlan   *plan = task->plan;

	for (int step_no = 1; step_no <= plan->step_count; step_no++)
	{
		PlanStep   *step = plan_step(plan, step_no);
		int			open = 0;

		for (int i = 0; i < step->parent_count; i++)
			if (!step_satisfies(step_run(task, step->parents[i])->state))
				open++;
		step_run(task, step_no)->open_parents = open;
	}
	task->live = task->busy = task->errors = task->unsatisfied = 0;
	task->turn = plan->step_count + 1;
	for (int step_no = 1; step_no <= plan->step_count; step_no++)
		count_step(task, step_no, 1);
}

/*
 * The change to in_progress that the one about to be noted ends, where it is in
 * this batch and says nothing of its own: a step's is the one before, a task's
 * lies behind those of its steps.
 */
static int
start_of(Batch *batch, TaskRun *task, int step_no, int from)
{
	int			start = step_no > 0 ? batch->move_count - 1 : task->start_move;
	Move	   *move;

	if (start < 0 || from != STEP_IN_PROGRESS)
		return -1;
	move = &batch->moves[start];
	return move->task_id == task->task_id && move->step_no == step_no &&
		move->to_state == STEP_IN_PROGRESS && move->metadata == NULL ? start : -1;
}

static void
note_move(Batch *batch, TaskRun *task, int step_no, int from, int to, TimestampTz at,
		  Jsonb *metadata)
{
	Move	   *move;
	int			start = start_of(batch, task, step_no, from);

	StaticAssertStmt((int) TASK_IN_PROGRESS == (int) STEP_IN_PROGRESS,
					 "in_progress is one code for both");
	if (batch->move_count == batch->move_space)
	{
		batch->move_space = Max(batch->move_space * 2, 64);
		if (batch->moves == NULL)
			batch->moves = MemoryContextAlloc(batch->context, batch->move_space * sizeof(Move));
		else
			batch->moves = repalloc(batch->moves, batch->move_space * sizeof(Move));
	}
	move = &batch->moves[batch->move_count++];
	move->task_id = task->task_id;
	move->at = at;
	move->step_no = step_no;
	move->from_state = from;
	move->to_state = to;
	move->attempt = step_no > 0 ? step_run(task, step_no)->attempts : 0;
	move->dropped = false;
	move->start = start;
	move->started_at = from != STEP_IN_PROGRESS ? 0 :
		step_no > 0 ? step_run(task, step_no)->started_at : task->started_at;
	move->metadata = metadata;
	if (step_no == 0)
		task->start_move = to == TASK_IN_PROGRESS ? batch->move_count - 1 : -1;
}

static void
move_task(Batch *batch, TaskRun *task, int to, TimestampTz at, Jsonb *metadata)
{
	if (!state_move_allowed(MACHINE_TASK, task->state, to))
		state_refuse(MACHINE_TASK, task->task_id, task->state, to);
	note_move(batch, task, 0, task->state, to, at, metadata);
	task->state = to;
	task->changed = true;
	if (task_has_ended(to))
		task->finished_at = at;
}

/*
 * Moves a step and, where it now satisfies those behind it, counts that there.
 */
static void
move_step(Batch *batch, TaskRun *task, int step_no, int to, TimestampTz at, Jsonb *metadata)
{
	StepRun    *step = step_run(task, step_no);
	PlanStep   *plan = plan_step(task->plan, step_no);
	int			from = step->state;

	if (!state_move_allowed(MACHINE_STEP, from, to))
		state_refuse(MACHINE_STEP, step_id(task, step_no), from, to);
	note_move(batch, task, step_no, from, to, at, metadata);

	count_step(task, step_no, -1);
	if (step->lease_until != 0 && to != STEP_IN_PROGRESS)
	{
		step->claimed_by = NULL;
		step->lease_until = 0;
		step->lease_ended = true;
	}
	step->state = to;
	step->changed = true;
	step->queued = false;
	count_step(task, step_no, 1);

	if (step_satisfies(to) == step_satisfies(from))
		return;
	for (int i = 0; i < plan->child_count; i++)
	{
		int			child = plan->children[i];

		count_step(task, child, -1);
		step_run(task, child)->open_parents += step_satisfies(to) ? -1 : 1;
		count_step(task, child, 1);
	}
}

/*
 * The task's first step is about to start or to be handed out.
 */
void
graph_start(Batch *batch, TaskRun *task, TimestampTz at)
{
	if (task->state != TASK_PENDING)
		return;
	/* The time that a task may take counts from its latest start. */
	if (task->started_at == 0 || task->plan->timeout > 0)
		task->started_at = at;
	if (task->plan->timeout > 0)
		task->deadline = at + task->plan->timeout;
	move_task(batch, task, TASK_IN_PROGRESS, at, NULL);
}

void
graph_step_started(Batch *batch, TaskRun *task, int step_no, TimestampTz at)
{
	StepRun    *step = step_run(task, step_no);

	step->attempts++;
	step->started_at = at;
	step->next_attempt_at = 0;
	move_step(batch, task, step_no, STEP_IN_PROGRESS, at, NULL);
}

void
graph_step_skipped(Batch *batch, TaskRun *task, int step_no, TimestampTz at)
{
	step_run(task, step_no)->finished_at = at;
	move_step(batch, task, step_no, STEP_SKIPPED, at, NULL);
}

/*
 * What a handler adds to the event of its step's completion, it returns under a
 * key of its own.  That goes into the log, from which events are read, and out
 * of the results.
 */
static Jsonb *
take_event_fields(Batch *batch, Jsonb **results)
{
	JsonbParseState *state = NULL;
	JsonbValue *fields;
	MemoryContext before;
	Jsonb	   *metadata;

	if (*results == NULL || !JB_ROOT_IS_OBJECT(*results))
		return NULL;
	fields = getKeyJsonValueFromContainer(&(*results)->root, EVENT_FIELDS_KEY,
										  strlen(EVENT_FIELDS_KEY), NULL);
	if (fields == NULL || fields->type != jbvBinary || !JsonContainerIsObject(fields->val.binary.data))
		return NULL;

	before = MemoryContextSwitchTo(batch->context);
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	graph_push_string(&state, WJB_KEY, "event");
	pushJsonbValue(&state, WJB_VALUE, fields);
	metadata = JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
	*results = DatumGetJsonbP(DirectFunctionCall2(jsonb_delete, JsonbPGetDatum(*results),
												  CStringGetTextDatum(EVENT_FIELDS_KEY)));
	MemoryContextSwitchTo(before);
	return metadata;
}

void
graph_step_completed(Batch *batch, TaskRun *task, int step_no, Jsonb *results, TimestampTz at)
{
	StepRun    *step = step_run(task, step_no);
	Jsonb	   *metadata = take_event_fields(batch, &results);

	step->results = results;
	step->error = NULL;
	step->finished_at = at;
	move_step(batch, task, step_no, STEP_COMPLETE, at, metadata);
}

/*
 * Delay before the attempt after this one, in microseconds: base * 2^attempt
 * seconds, at most max, times a random factor, never above max.
 */
int64
graph_backoff(double base_delay, double max_delay, double jitter, int attempt)
{
	double		delay = Min(base_delay * pow(2.0, Min(attempt, 60)), max_delay);

	delay *= 1.0 - jitter + 2.0 * jitter * pg_prng_double(&pg_global_prng_state);
	return (int64) (Min(delay, max_delay) * USECS_PER_SEC);
}

static TimestampTz
backoff(TaskRun *task, int step_no, int attempt, TimestampTz from)
{
	PlanStep   *plan = plan_step(task->plan, step_no);

	return from + graph_backoff(plan->base_delay, plan->max_delay, plan->jitter, attempt);
}

/*
 * A key or a text in a jsonb that is being built.
 */
void
graph_push_string(JsonbParseState **state, JsonbIteratorToken token, const char *text)
{
	JsonbValue	value;

	value.type = jbvString;
	value.val.string.val = unconstify(char *, text);
	value.val.string.len = strlen(text);
	pushJsonbValue(state, token, &value);
}

/*
 * A document in a jsonb that is being built, which must live until that is done.
 */
void
graph_push_jsonb(JsonbParseState **state, JsonbIteratorToken token, Jsonb *jsonb)
{
	JsonbValue	value;

	if (JB_ROOT_IS_SCALAR(jsonb))
		JsonbExtractScalar(&jsonb->root, &value);
	else
	{
		value.type = jbvBinary;
		value.val.binary.data = &jsonb->root;
		value.val.binary.len = VARSIZE_ANY_EXHDR(jsonb);
	}
	pushJsonbValue(state, token, &value);
}

static void
push_pair(JsonbParseState **state, const char *key, const char *text)
{
	if (text == NULL || text[0] == '\0')
		return;
	graph_push_string(state, WJB_KEY, key);
	graph_push_string(state, WJB_VALUE, text);
}

/*
 * One or two texts as an object; NULL where there is neither.
 */
static Jsonb *
texts(Batch *batch, const char *key1, const char *text1, const char *key2, const char *text2)
{
	MemoryContext before = MemoryContextSwitchTo(batch->context);
	JsonbParseState *state = NULL;
	Jsonb	   *result = NULL;

	if (text1 != NULL || text2 != NULL)
	{
		pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
		push_pair(&state, key1, text1);
		push_pair(&state, key2, text2);
		result = JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
	}
	MemoryContextSwitchTo(before);
	return result;
}

/*
 * A text of an error; NULL where it has none of that name.
 */
static char *
error_text(Jsonb *error, const char *key)
{
	JsonbValue	found;

	if (error == NULL || !JB_ROOT_IS_OBJECT(error) ||
		getKeyJsonValueFromContainer(&error->root, key, strlen(key), &found) == NULL ||
		found.type != jbvString)
		return NULL;
	return pnstrdup(found.val.string.val, found.val.string.len);
}

/*
 * An error as tasks and steps keep it.
 */
Jsonb *
graph_error(Batch *batch, const char *message, const char *sqlstate, const char *detail,
			const char *hint, const char *context, int attempt, bool retryable, TimestampTz at)
{
	return graph_error_in(batch->context, message, sqlstate, detail, hint, context, attempt,
						  retryable, at);
}

Jsonb *
graph_error_in(MemoryContext keep, const char *message, const char *sqlstate, const char *detail,
			   const char *hint, const char *context, int attempt, bool retryable,
			   TimestampTz at)
{
	MemoryContext before = MemoryContextSwitchTo(keep);
	JsonbParseState *state = NULL;
	JsonbValue	value;
	char		when[MAXDATELEN + 1];
	Jsonb	   *result;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push_pair(&state, "message", message ? message : "missing error text");
	push_pair(&state, "sqlstate", sqlstate);
	push_pair(&state, "detail", detail);
	push_pair(&state, "hint", hint);
	push_pair(&state, "context", context);
	graph_push_string(&state, WJB_KEY, "attempt");
	value.type = jbvNumeric;
	value.val.numeric = int64_to_numeric(attempt);
	pushJsonbValue(&state, WJB_VALUE, &value);
	graph_push_string(&state, WJB_KEY, "retryable");
	value.type = jbvBool;
	value.val.boolean = retryable;
	pushJsonbValue(&state, WJB_VALUE, &value);
	push_pair(&state, "at",
			  JsonEncodeDateTime(when, TimestampTzGetDatum(at), TIMESTAMPTZOID, NULL));
	result = JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
	MemoryContextSwitchTo(before);
	return result;
}

/*
 * An attempt failed, or the step can't be run at all.  Where another attempt
 * is left its token goes back into the queue, due at retry_at, or after the
 * back-off where that is 0.  None is when the task's time is up.
 */
void
graph_step_failed(Batch *batch, TaskRun *task, int step_no, Jsonb *error, const char *message,
				  const char *sqlstate, bool retryable, TimestampTz retry_at, TimestampTz at)
{
	StepRun    *step = step_run(task, step_no);
	PlanStep   *plan = plan_step(task->plan, step_no);
	Jsonb	   *metadata = texts(batch, "message", message, "sqlstate", sqlstate);

	step->error = error;
	step->results = NULL;
	if (retryable && plan->retryable && step->attempts < graph_retry_limit(task, step_no) &&
		!graph_time_is_up(task, at))
	{
		if (retry_at == 0)
			retry_at = backoff(task, step_no, step->attempts, at);
		step->next_attempt_at = retry_at;
		step->tries = 0;
		move_step(batch, task, step_no, STEP_WAITING, at, metadata);
		graph_queue_step(batch, task, step_no, handler_lane(plan->handler), retry_at);
	}
	else
	{
		step->finished_at = at;
		step->next_attempt_at = 0;
		move_step(batch, task, step_no, STEP_ERROR, at, metadata);
		if (task->error == NULL)
		{
			task->error = error;
			task->changed = true;
		}
	}
}

/*
 * The step's token goes into the queue.
 */
void
graph_queue_step(Batch *batch, TaskRun *task, int step_no, int32 lane, TimestampTz due)
{
	StepRun    *step = step_run(task, step_no);

	step->queued = true;
	step->parked = 0;
	step->lane = lane;
	step->due = due;
}

/*
 * A worker outside takes the step under a lease; the token waits for its end.
 */
void
graph_step_leased(Batch *batch, TaskRun *task, int step_no, char *worker,
				  TimestampTz lease_until, TimestampTz at)
{
	StepRun    *step = step_run(task, step_no);

	graph_step_started(batch, task, step_no, at);
	step->claimed_by = worker;
	step->lease_until = lease_until;
	graph_queue_step(batch, task, step_no, LANE_NOT_DUE, lease_until);
}

/*
 * Cancels a step and all that need it.
 */
void
graph_step_cancelled(Batch *batch, TaskRun *task, int step_no, const char *reason, TimestampTz at)
{
	StepRun    *step = step_run(task, step_no);
	PlanStep   *plan = plan_step(task->plan, step_no);

	check_stack_depth();
	step->finished_at = at;
	step->next_attempt_at = 0;
	move_step(batch, task, step_no, STEP_CANCELLED, at, texts(batch, "reason", reason, NULL, NULL));
	for (int i = 0; i < plan->child_count; i++)
		if (step_run(task, plan->children[i])->state <= STEP_WAITING)
			graph_step_cancelled(batch, task, plan->children[i], reason, at);
}

void
graph_step_resolved(Batch *batch, TaskRun *task, int step_no, Jsonb *results, const char *reason,
					TimestampTz at)
{
	StepRun    *step = step_run(task, step_no);

	step->results = results;
	step->finished_at = at;
	step->next_attempt_at = 0;
	move_step(batch, task, step_no, STEP_RESOLVED, at, texts(batch, "reason", reason, NULL, NULL));
}

/*
 * The step starts anew, with its limit of attempts once more; attempts goes on
 * counting.
 */
void
graph_step_retried(Batch *batch, TaskRun *task, int step_no, TimestampTz at)
{
	StepRun    *step = step_run(task, step_no);
	PlanStep   *plan = plan_step(task->plan, step_no);

	step->retry_limit = Min(step->attempts + plan->retry_limit, PG_INT16_MAX);
	step->finished_at = 0;
	step->next_attempt_at = 0;
	step->tries = 0;
	move_step(batch, task, step_no, STEP_PENDING, at, NULL);
}

/*
 * An operator's move of the task itself.
 */
void
graph_task_moved(Batch *batch, TaskRun *task, int to, const char *reason, TimestampTz at)
{
	if (task->state == TASK_ERROR && to == TASK_PENDING)
	{
		task->error = NULL;
		task->finished_at = 0;
		task->deadline = 0;
	}
	move_task(batch, task, to, at, texts(batch, "reason", reason, NULL, NULL));
}

/*
 * Cancels a task and every step of it that has not ended.
 */
void
graph_task_cancelled(Batch *batch, TaskRun *task, const char *reason, TimestampTz at)
{
	if (!state_move_allowed(MACHINE_TASK, task->state, TASK_CANCELLED))
		state_refuse(MACHINE_TASK, task->task_id, task->state, TASK_CANCELLED);
	for (int no = 1; no <= task->plan->step_count; no++)
		if (step_run(task, no)->state <= STEP_WAITING)
			graph_step_cancelled(batch, task, no, reason, at);
	graph_task_moved(batch, task, TASK_CANCELLED, reason, at);
}

/*
 * The task's time is up: what runs or waits for its retry has failed, the rest
 * stays pending so that a retry lets it go on.
 */
void
graph_task_expired(Batch *batch, TaskRun *task, TimestampTz at)
{
	char	   *message = psprintf("task timed out after %g s",
								   (double) task->plan->timeout / USECS_PER_SEC);
	const char *detail = "The timeout of the task in its definition is up.";
	const char *hint = "Retry the task, which gives it its time anew, or raise the timeout.";

	if (task_has_ended(task->state))
		return;
	for (int no = 1; no <= task->plan->step_count; no++)
	{
		StepRun    *step = step_run(task, no);

		if (step->state == STEP_IN_PROGRESS || step->state == STEP_WAITING)
			graph_step_failed(batch, task, no,
							  graph_error(batch, message, "57014", detail, hint, NULL,
										  step->attempts, false, at),
							  message, "57014", false, 0, at);
		step->queued = false;
	}
	if (task->error == NULL)
		task->error = graph_error(batch, message, "57014", detail, hint, NULL, 0, false, at);
	if (task->state == TASK_PENDING)
		graph_start(batch, task, at);
	move_task(batch, task, TASK_ERROR, at, texts(batch, "message", message, "sqlstate", "57014"));
}

/*
 * Somebody else has started the task meanwhile: that it started is theirs to
 * tell.
 */
void
graph_forget_start(Batch *batch, TaskRun *task)
{
	for (int i = 0; i < batch->move_count; i++)
	{
		Move	   *move = &batch->moves[i];

		if (move->task_id == task->task_id && move->step_no == 0 &&
			move->from_state == TASK_PENDING && move->to_state == TASK_IN_PROGRESS)
			move->dropped = true;
	}
	task->start_move = -1;
}

/*
 * Ends the task where nothing of it goes on.
 */
void
graph_finish(Batch *batch, TaskRun *task, TimestampTz at)
{
	int			running = task->live;

	if (task->state != TASK_IN_PROGRESS && task->state != TASK_PENDING)
		return;
	if (!graph_goes_on(task))
	{
		/* on_failure: stop. Only what runs now is waited for. */
		running = 0;
		for (int i = 0; i < task->plan->step_count; i++)
			running += task->steps[i].state == STEP_IN_PROGRESS;
	}
	if (running > 0)
		return;

	/* Before its start, only an operator can have dealt with every step. */
	graph_start(batch, task, at);
	/* It may be that of a step which an operator has dealt with since. */
	if (task->errors == 0)
		task->error = NULL;
	if (task->unsatisfied == 0)
		move_task(batch, task, TASK_COMPLETE, at, NULL);
	else if (task->errors > 0)
	{
		for (int i = 0; i < task->plan->step_count; i++)
			task->steps[i].queued = false;
		move_task(batch, task, TASK_ERROR, at,
				  texts(batch, "message", error_text(task->error, "message"),
						"sqlstate", error_text(task->error, "sqlstate")));
	}
	else
		move_task(batch, task, TASK_CANCELLED, at, NULL);
}
