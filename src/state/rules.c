/*
 * rules.c
 *	  The state machines: every state, every move that is allowed, the event it
 *	  is reported as.  This is the only place that says so; the view
 *	  tasker.transition_rules and the documentation show it.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "state/state.h"
#include "tasker.h"

PG_FUNCTION_INFO_V1(tasker_task_state);
PG_FUNCTION_INFO_V1(tasker_step_state);
PG_FUNCTION_INFO_V1(tasker_state_code);
PG_FUNCTION_INFO_V1(tasker_transition_rules);
PG_FUNCTION_INFO_V1(tasker_event_name);
PG_FUNCTION_INFO_V1(tasker_clock);

static const char *const task_states[TASK_STATES] = {
	[TASK_PENDING] = "pending",
	[TASK_IN_PROGRESS] = "in_progress",
	[TASK_PAUSED] = "paused",
	[TASK_COMPLETE] = "complete",
	[TASK_ERROR] = "error",
	[TASK_CANCELLED] = "cancelled",
	[TASK_RESOLVED] = "resolved_manually",
};

static const char *const step_states[STEP_STATES] = {
	[STEP_PENDING] = "pending",
	[STEP_IN_PROGRESS] = "in_progress",
	[STEP_WAITING] = "waiting_for_retry",
	[STEP_COMPLETE] = "complete",
	[STEP_ERROR] = "error",
	[STEP_CANCELLED] = "cancelled",
	[STEP_RESOLVED] = "resolved_manually",
	[STEP_SKIPPED] = "skipped",
};

typedef struct Rule
{
	int8		from;
	int8		to;
	const char *event;
	const char *meaning;
} Rule;

static const Rule task_rules[] = {
	{STATE_NONE, TASK_PENDING, "task.initialize_requested", "created"},
	{TASK_PENDING, TASK_IN_PROGRESS, "task.started", "an executor took it"},
	{TASK_PENDING, TASK_PAUSED, "task.paused", "an operator paused it"},
	{TASK_PENDING, TASK_ERROR, "task.failed", "it can't be run"},
	{TASK_PENDING, TASK_CANCELLED, "task.cancelled", "an operator cancelled it"},
	{TASK_IN_PROGRESS, TASK_COMPLETE, "task.completed", "every step is complete, resolved or skipped"},
	{TASK_IN_PROGRESS, TASK_ERROR, "task.failed", "nothing goes on and a step is in error"},
	{TASK_IN_PROGRESS, TASK_CANCELLED, "task.cancelled", "an operator cancelled it, or nothing goes on and a step is cancelled"},
	{TASK_IN_PROGRESS, TASK_PAUSED, "task.paused", "an operator paused it"},
	{TASK_IN_PROGRESS, TASK_PENDING, "task.initialize_requested", "it was put back"},
	{TASK_PAUSED, TASK_IN_PROGRESS, "task.resumed", "an operator resumed it after its start"},
	{TASK_PAUSED, TASK_PENDING, "task.resumed", "an operator resumed it before its start"},
	{TASK_PAUSED, TASK_ERROR, "task.failed", "its time was up"},
	{TASK_PAUSED, TASK_CANCELLED, "task.cancelled", "an operator cancelled it"},
	{TASK_ERROR, TASK_PENDING, "task.retry_requested", "an operator retried it or one of its steps"},
	{TASK_ERROR, TASK_RESOLVED, "task.resolved_manually", "an operator resolved it"},
	{TASK_ERROR, TASK_CANCELLED, "task.cancelled", "an operator cancelled it"},
	{TASK_COMPLETE, TASK_CANCELLED, "task.cancelled", "an operator cancelled it after its end"},
	{TASK_RESOLVED, TASK_CANCELLED, "task.cancelled", "an operator cancelled it after its end"},
};

static const Rule step_rules[] = {
	{STEP_PENDING, STEP_IN_PROGRESS, "step.started", "its first attempt started, or the one after an operator's retry"},
	{STEP_PENDING, STEP_SKIPPED, "step.skipped", "the task bypasses it"},
	{STEP_PENDING, STEP_ERROR, "step.failed", "it can't be run"},
	{STEP_PENDING, STEP_CANCELLED, "step.cancelled", "an operator cancelled it, its task, or a step it needs"},
	{STEP_PENDING, STEP_RESOLVED, "step.resolved_manually", "an operator resolved it"},
	{STEP_IN_PROGRESS, STEP_COMPLETE, "step.completed", "its handler returned"},
	{STEP_IN_PROGRESS, STEP_WAITING, "step.retry_requested", "its attempt failed and another follows by itself"},
	{STEP_IN_PROGRESS, STEP_ERROR, "step.failed", "it failed for good"},
	{STEP_IN_PROGRESS, STEP_CANCELLED, "step.cancelled", "an operator cancelled it or its task"},
	{STEP_WAITING, STEP_IN_PROGRESS, "step.started", "its next attempt started"},
	{STEP_WAITING, STEP_PENDING, "step.retry_requested", "an operator retried it at once"},
	{STEP_WAITING, STEP_ERROR, "step.failed", "it failed for good while it waited"},
	{STEP_WAITING, STEP_CANCELLED, "step.cancelled", "an operator cancelled it or its task"},
	{STEP_WAITING, STEP_RESOLVED, "step.resolved_manually", "an operator resolved it"},
	{STEP_ERROR, STEP_PENDING, "step.retry_requested", "an operator retried it"},
	{STEP_ERROR, STEP_RESOLVED, "step.resolved_manually", "an operator resolved it"},
	{STEP_ERROR, STEP_CANCELLED, "step.cancelled", "an operator cancelled it or its task"},
};

static const char *const machines[] = {
	[MACHINE_TASK] = "task",
	[MACHINE_STEP] = "step",
};

static const char *const *
states_of(Machine machine, int *count)
{
	*count = machine == MACHINE_TASK ? TASK_STATES : STEP_STATES;
	return machine == MACHINE_TASK ? task_states : step_states;
}

static const Rule *
rules_of(Machine machine, int *count)
{
	*count = machine == MACHINE_TASK ? lengthof(task_rules) : lengthof(step_rules);
	return machine == MACHINE_TASK ? task_rules : step_rules;
}

/*
 * Whether the machine allows the move.
 */
bool
state_move_allowed(Machine machine, int from, int to)
{
	/* One bit for each target state, made from the rules at the first call. */
	static uint8 allowed[2][1 + Max(TASK_STATES, STEP_STATES)];
	static bool ready = false;

	if (!ready)
	{
		for (int m = MACHINE_TASK; m <= MACHINE_STEP; m++)
		{
			int			count;
			const Rule *rules = rules_of(m, &count);

			for (int i = 0; i < count; i++)
				allowed[m][1 + rules[i].from] |= 1 << rules[i].to;
		}
		ready = true;
	}
	return (allowed[machine][1 + from] >> to) & 1;
}

/*
 * Name of a state; NULL for a code that is none.
 */
const char *
state_name(Machine machine, int state)
{
	int			count;
	const char *const *names = states_of(machine, &count);

	return state >= 0 && state < count ? names[state] : NULL;
}

/*
 * Name of the event that a move is reported as; NULL: the rules have no such
 * move.
 */
const char *
state_event(Machine machine, int from, int to)
{
	int			count;
	const Rule *rules = rules_of(machine, &count);

	for (int i = 0; i < count; i++)
		if (rules[i].from == from && rules[i].to == to)
			return rules[i].event;
	return NULL;
}

/*
 * Raises the error for a move that the rules do not allow.
 */
void
state_refuse(Machine machine, int64 id, int from, int to)
{
	int			count;
	const Rule *rules = rules_of(machine, &count);
	StringInfoData ways;

	initStringInfo(&ways);
	for (int i = 0; i < count; i++)
		if (rules[i].from == from)
			appendStringInfo(&ways, "%s%s", ways.len ? ", " : "", state_name(machine, rules[i].to));

	ereport(ERROR,
			errcode(ERRCODE_TASKER_ILLEGAL_MOVE),
			errmsg("a %s cannot go from %s to %s", machines[machine],
				   from == STATE_NONE ? "nothing" : state_name(machine, from),
				   state_name(machine, to)),
			errdetail("%s " INT64_FORMAT " is %s.", machine == MACHINE_TASK ? "Task" : "Step", id,
					  from == STATE_NONE ? "not there yet" : state_name(machine, from)),
			ways.len ? errhint("From there it may go to: %s.", ways.data)
			: errhint("That state is final."));
}

/*
 * tasker._task_state(smallint)
 */
Datum
tasker_task_state(PG_FUNCTION_ARGS)
{
	const char *name = state_name(MACHINE_TASK, PG_GETARG_INT16(0));

	if (name == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(name));
}

/*
 * tasker._step_state(smallint)
 */
Datum
tasker_step_state(PG_FUNCTION_ARGS)
{
	const char *name = state_name(MACHINE_STEP, PG_GETARG_INT16(0));

	if (name == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(name));
}

/*
 * tasker._state_code(text, text)
 */
Datum
tasker_state_code(PG_FUNCTION_ARGS)
{
	char	   *machine = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(1));

	for (int m = MACHINE_TASK; m <= MACHINE_STEP; m++)
	{
		int			count;
		const char *const *names = states_of(m, &count);

		if (strcmp(machine, machines[m]) != 0)
			continue;
		for (int i = 0; i < count; i++)
			if (strcmp(name, names[i]) == 0)
				PG_RETURN_INT16(i);
	}
	PG_RETURN_NULL();
}

/*
 * tasker._transition_rules()
 */
Datum
tasker_transition_rules(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	for (int m = MACHINE_TASK; m <= MACHINE_STEP; m++)
	{
		int			count;
		const Rule *rules = rules_of(m, &count);

		for (int i = 0; i < count; i++)
		{
			Datum		values[5];
			bool		nulls[5] = {0};
			const char *from = state_name(m, rules[i].from);

			values[0] = CStringGetTextDatum(machines[m]);
			nulls[1] = from == NULL;
			values[1] = from ? CStringGetTextDatum(from) : (Datum) 0;
			values[2] = CStringGetTextDatum(state_name(m, rules[i].to));
			values[3] = CStringGetTextDatum(rules[i].event);
			values[4] = CStringGetTextDatum(rules[i].meaning);
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		}
	}
	return (Datum) 0;
}

/*
 * tasker._event_name(smallint, smallint, smallint)
 */
Datum
tasker_event_name(PG_FUNCTION_ARGS)
{
	const char *name;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(2))
		PG_RETURN_NULL();
	name = state_event(PG_GETARG_INT16(0) > 0 ? MACHINE_STEP : MACHINE_TASK,
					   PG_ARGISNULL(1) ? STATE_NONE : PG_GETARG_INT16(1), PG_GETARG_INT16(2));
	if (name == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(name));
}

/*
 * The engine's time.
 */
TimestampTz
tasker_now(void)
{
	return GetCurrentTimestamp() + (int64) tasker_clock_offset * USECS_PER_SEC;
}

/*
 * tasker.clock()
 */
Datum
tasker_clock(PG_FUNCTION_ARGS)
{
	PG_RETURN_TIMESTAMPTZ(tasker_now());
}
