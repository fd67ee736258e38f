/*
 * handler.c
 *	  Runs one SQL handler, and lets nothing of it out but its result.
 *
 * A handler is user code in the middle of the executor's transaction.  It gets
 * a subtransaction, the role that registered it, its own search_path and a
 * timeout; behind it every setting, cursor, temporary table and prepared
 * statement of its making is gone, and its deferred triggers have fired, under
 * its own role and at its own risk.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type_d.h"
#include "commands/prepare.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "engine/flight.h"
#include "engine/handler.h"
#include "secret/secret.h"
#include "tasker.h"

#define CONTEXT_COLUMNS		15

/* A handler that catches its own cancellation is asked again so often ... */
#define TIMEOUT_REPEAT_MS	100
/* ... and so many times before its process ends, which it can't catch. */
#define TIMEOUT_PATIENCE	20

/* The longest delay that a handler may ask for: a thousand years. */
#define RETRY_AFTER_MAX_US	(INT64CONST(1000) * 365 * USECS_PER_DAY)

static TimeoutId step_timeout;
static volatile sig_atomic_t timeout_fired = 0;
static int64 running_task = 0;
static int running_step = 0;
static bool moved_constraints = false;

/* SET CONSTRAINTS ALL IMMEDIATE, which may be run inside a statement. */
static ConstraintsSetStmt all_immediate = {.type = T_ConstraintsSetStmt};

/*
 * The step's time is up.  Runs in a signal handler.
 */
static void
step_timeout_fired(void)
{
	timeout_fired++;
	InterruptPending = true;
	if (timeout_fired > TIMEOUT_PATIENCE)
	{
		flight_mark_overran();
		ProcDiePending = true;
	}
	else
		QueryCancelPending = true;
	SetLatch(MyLatch);
}

void
handler_init(void)
{
	static bool registered = false;

	if (!registered)
		step_timeout = RegisterTimeout(USER_TIMEOUT, step_timeout_fired);
	registered = true;
}

int64
handler_running_task(void)
{
	return running_task;
}

int64
handler_running_step(void)
{
	return running_step != 0 ? running_task << TASKER_STEP_BITS | running_step : 0;
}

/*
 * SET CONSTRAINTS is being run.  It holds until the end of the transaction, and
 * nothing but that undoes it.
 */
void
handler_note_constraints(void)
{
	if (running_task != 0)
		moved_constraints = true;
}

bool
handler_is_suspect(int sqlerrcode)
{
	return sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED ||
		sqlerrcode == ERRCODE_T_R_SERIALIZATION_FAILURE ||
		sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE;
}

/*
 * Results of the steps that this one depends on, by name.
 */
static Jsonb *
dependencies_of(TaskRun *task, PlanStep *step)
{
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < step->parent_count; i++)
	{
		int			parent = step->parents[i];
		Jsonb	   *results = task->steps[parent - 1].results;

		graph_push_string(&state, WJB_KEY, plan_step(task->plan, parent)->name);
		if (results == NULL)
			pushJsonbValue(&state, WJB_VALUE, &(JsonbValue) {.type = jbvNull});
		else
			graph_push_jsonb(&state, WJB_VALUE, results);
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/*
 * The handler's argument.
 */
Datum
handler_step_context(TaskRun *task, int step_no, Jsonb *response)
{
	TupleDesc	desc = plan_step_context();
	PlanStep   *step = plan_step(task->plan, step_no);
	StepRun    *run = &task->steps[step_no - 1];
	int64		id = task->task_id << TASKER_STEP_BITS | step_no;
	Jsonb	   *config = step->secrets == NULL ? step->config :
		secret_config(step->secrets, step->config, step->name);
	Datum		values[CONTEXT_COLUMNS];
	bool		nulls[CONTEXT_COLUMNS] = {0};
	int			n = 0;

	if (desc->natts != CONTEXT_COLUMNS)
		elog(ERROR, "tasker.step_context has %d columns, expected %d", desc->natts,
			 CONTEXT_COLUMNS);

#define put(value) (values[n++] = (value))
#define put_or_null(thing, value) (nulls[n] = (thing) == NULL, values[n++] = (thing) ? (value) : (Datum) 0)
	put(Int64GetDatum(task->task_id));
	put(Int64GetDatum(id));
	put(CStringGetTextDatum(task->plan->name));
	put(CStringGetTextDatum(task->plan->namespace));
	put(CStringGetTextDatum(task->plan->version));
	put(CStringGetTextDatum(step->name));
	put(Int32GetDatum(run->attempts));
	put(Int32GetDatum(graph_retry_limit(task, step_no)));
	put(JsonbPGetDatum(run->inputs ? run->inputs : task->context));
	put(JsonbPGetDatum(dependencies_of(task, step)));
	put_or_null(config, JsonbPGetDatum(config));
	put_or_null(task->correlation_id, CStringGetTextDatum(task->correlation_id));
	put_or_null(task->traceparent, CStringGetTextDatum(task->traceparent));
	put(CStringGetTextDatum(psprintf("tasker-" INT64_FORMAT, id)));
	put_or_null(response, JsonbPGetDatum(response));
	Assert(n == CONTEXT_COLUMNS);
#undef put
#undef put_or_null

	return HeapTupleGetDatum(heap_form_tuple(desc, values, nulls));
}

/*
 * Calls the function; NULL where it returns null.
 */
static Datum
call_function(Handler *handler, Datum argument, bool *isnull)
{
	LOCAL_FCINFO(fcinfo, 1);
	Datum		result;

	if (handler->plain_sql)
	{
		/* fmgr would plan the body anew at every call; SPI inlines and keeps it. */
		if (SPI_execute_plan(handler->call, &argument, NULL, false, 1) != SPI_OK_SELECT)
			elog(ERROR, "could not call %s", handler->function_name);
		return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, isnull);
	}

	InitFunctionCallInfoData(*fcinfo, &handler->flinfo, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = argument;
	fcinfo->args[0].isnull = false;
	result = FunctionCallInvoke(fcinfo);
	*isnull = fcinfo->isnull;
	return result;
}

/*
 * Takes away what a handler may leave behind that a subtransaction's end does
 * not: cursors (one WITH HOLD would run at commit, as the executor), prepared
 * statements, temporary tables.
 */
static void
clean_up_behind(void)
{
	PortalHashTableDeleteAll();
	DropAllPreparedStatements();
	if (MyXactFlags & XACT_FLAGS_ACCESSEDTEMPNAMESPACE)
	{
		ResetTempTableNamespace();
		MyXactFlags &= ~XACT_FLAGS_ACCESSEDTEMPNAMESPACE;
	}
}

/*
 * The same behind a handler that failed: the rollback has taken away all but
 * prepared statements, and the mark that there are temporary tables.
 */
static void
clean_up_behind_failure(void)
{
	DropAllPreparedStatements();
	MyXactFlags &= ~XACT_FLAGS_ACCESSEDTEMPNAMESPACE;
}

/*
 * Sets what the handler runs with; undone with the settings of the nest level.
 */
static void
enter_handler(Handler *handler, int sec_context)
{
	if (handler->search_path != NULL &&
		strcmp(handler->search_path, namespace_search_path) != 0)
		(void) set_config_option("search_path", handler->search_path, PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	SetUserIdAndSecContext(handler->role, sec_context | SECURITY_LOCAL_USERID_CHANGE);
}

/*
 * Time that this attempt may take, in microseconds; 0: as long as it likes.  No
 * step goes on when its task's time is up.
 */
static int64
time_allowed(TaskRun *task, PlanStep *step)
{
	int64		left;

	if (task->deadline == 0)
		return step->timeout;
	left = Max(task->deadline - tasker_now(), 1);
	return step->timeout > 0 ? Min(step->timeout, left) : left;
}

static void
start_timeout(int64 allowed)
{
	timeout_fired = 0;
	if (allowed > 0)
		enable_timeout_every(step_timeout,
							 TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
														 (allowed + 999) / 1000),
							 TIMEOUT_REPEAT_MS);
}

/*
 * Ends the timeout.  One that fired when the handler had already returned must
 * not hit whoever comes next.
 */
static void
stop_timeout(int64 allowed)
{
	if (allowed == 0)
		return;
	disable_timeout(step_timeout, false);
	if (timeout_fired > 0)
		QueryCancelPending = false;
}

/*
 * The delay that tasker.retryable_error() asked for, in microseconds; -1: none.
 * It comes in a field of the error that anybody may fill with anything.
 */
static int64
retry_after(const char *field)
{
	char	   *end;
	int64		us;

	if (field == NULL || *field == '\0')
		return -1;
	us = strtoi64(field, &end, 10);
	if (*end != '\0' || us < 0)
		return -1;
	return Min(us, RETRY_AFTER_MAX_US);
}

/*
 * The error of a handler, as its outcome.
 */
static void
take_error(const HandlerCall *call, HandlerOutcome *outcome)
{
	ErrorData  *error = CopyErrorData();

	FlushErrorState();
	outcome->ok = false;
	outcome->error = error;
	if (timeout_fired > 0 && error->sqlerrcode == ERRCODE_QUERY_CANCELED)
	{
		outcome->timed_out = true;
		call->timed_out(call->subject, call->allowed, error);
	}
	if (error->sqlerrcode == ERRCODE_TASKER_RETRYABLE)
		outcome->retry_after = retry_after(error->datatype_name);
}

void
handler_call(const HandlerCall *call, HandlerOutcome *outcome)
{
	Handler    *handler = call->handler;
	MemoryContext caller_context = CurrentMemoryContext;
	ResourceOwner caller_owner = CurrentResourceOwner;
	MemoryContext scratch;
	Oid			caller_role;
	int			caller_security;
	TimestampTz began = GetCurrentTimestamp();
	SecretMask *volatile mask = NULL;

	memset(outcome, 0, sizeof(HandlerOutcome));
	outcome->retry_after = -1;
	moved_constraints = false;
	GetUserIdAndSecContext(&caller_role, &caller_security);
	scratch = AllocSetContextCreate(call->context, "tasker handler", ALLOCSET_DEFAULT_SIZES);
	running_task = call->task_id;

	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		int			settings = NewGUCNestLevel();
		bool		isnull;
		Datum		argument;
		Datum		result;

		MemoryContextSwitchTo(scratch);
		argument = call->argument(call->subject);
		if (call->secrets != NULL)
		{
			mask = secret_mask(call->secrets, call->context);
			secret_hide_in_log(mask);
		}
		PushActiveSnapshot(GetTransactionSnapshot());
		start_timeout(call->allowed);
		handler_look_up(handler);
		if (handler->problem != NULL)
			ereport(ERROR,
					errcode(ERRCODE_UNDEFINED_FUNCTION),
					errmsg_internal("%s", handler->problem),
					errhint("%s", call->repair));
		enter_handler(handler, caller_security);
		result = call_function(handler, argument, &isnull);
		if (!call->in_place)
			AfterTriggerFireDeferred();
		else if (call->fires_deferred)
			AfterTriggerSetState(&all_immediate);

		/* It may lie in a temporary table, so it is copied before that goes. */
		MemoryContextSwitchTo(call->context);
		if (call->keeps_result && !isnull)
			outcome->results = (Jsonb *) PG_DETOAST_DATUM_COPY(result);
		if (mask != NULL)
			outcome->results = secret_hide_in_jsonb(mask, outcome->results);
		MemoryContextSwitchTo(scratch);
		SetUserIdAndSecContext(caller_role, caller_security);
		if (!call->in_place)
			clean_up_behind();
		stop_timeout(call->allowed);
		PopActiveSnapshot();
		AtEOXact_GUC(false, settings);
		outcome->wrote = TransactionIdIsValid(GetCurrentTransactionIdIfAny());
		ReleaseCurrentSubTransaction();
		outcome->ok = true;
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(call->context);
		stop_timeout(call->allowed);
		take_error(call, outcome);
		if (mask != NULL)
			secret_hide_in_error(mask, outcome->error);
		outcome->results = NULL;
		RollbackAndReleaseCurrentSubTransaction();
		if (!call->in_place)
			clean_up_behind_failure();
	}
	PG_END_TRY();

	MemoryContextSwitchTo(caller_context);
	CurrentResourceOwner = caller_owner;
	MemoryContextDelete(scratch);
	if (mask != NULL)
		secret_hide_in_log(NULL);
	running_task = 0;
	outcome->ends_batch = outcome->ok && moved_constraints;
	outcome->us = Max(GetCurrentTimestamp() - began, 1);
}

/* A step, as the subject of a call. */
typedef struct StepSubject
{
	TaskRun    *task;
	int			step_no;
	Jsonb	   *response;		/* NULL: there is none */
} StepSubject;

static Datum
step_argument(void *subject)
{
	StepSubject *step = subject;

	return handler_step_context(step->task, step->step_no, step->response);
}

static void
step_timed_out(void *subject, int64 allowed, ErrorData *error)
{
	StepSubject *step = subject;
	TaskPlan   *plan = step->task->plan;
	PlanStep   *planned = plan_step(plan, step->step_no);

	error->message = allowed == planned->timeout ?
		psprintf("step timed out after %g s", (double) allowed / USECS_PER_SEC) :
		psprintf("task timed out after %g s", (double) plan->timeout / USECS_PER_SEC);
	error->detail = psprintf(allowed == planned->timeout ?
							 "The timeout of step \"%s\" in its definition is up." :
							 "The timeout of the task of step \"%s\" is up.", planned->name);
	error->hint = pstrdup("Raise the timeout, or make the handler do less at a time.");
}

/*
 * Runs that handler of the step.
 */
static void
run_handler(Batch *batch, Handler *handler, StepSubject *subject, bool in_place,
			HandlerOutcome *outcome)
{
	TaskRun    *task = subject->task;
	PlanStep   *step = plan_step(task->plan, subject->step_no);
	HandlerCall call = {
		.handler = handler,
		.in_place = in_place,
		.fires_deferred = subject->response != NULL,
		.keeps_result = true,
		.allowed = time_allowed(task, step),
		.task_id = task->task_id,
		.context = batch->context,
		.secrets = step->secrets,
		.repair = "Register the handler anew with replace => true, then retry the step.",
		.subject = subject,
		.argument = step_argument,
		.timed_out = step_timed_out,
	};

	flight_note_running(task->task_id, subject->step_no);
	running_step = subject->step_no;
	handler_call(&call, outcome);
	running_step = 0;
	flight_note_idle();
}

void
handler_run(Batch *batch, TaskRun *task, int step_no, bool in_place, HandlerOutcome *outcome)
{
	StepSubject subject = {task, step_no};

	run_handler(batch, plan_step(task->plan, step_no)->handler, &subject, in_place, outcome);
}

void
handler_run_answer(Batch *batch, TaskRun *task, int step_no, Jsonb *response,
				   HandlerOutcome *outcome)
{
	StepSubject subject = {task, step_no, response};

	run_handler(batch, plan_step(task->plan, step_no)->answer, &subject, true, outcome);
}
