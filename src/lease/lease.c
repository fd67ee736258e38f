/*
 * lease.c
 *	  The protocol of workers outside: claim, complete, fail.
 *
 * A claim is committed before the worker begins, and holds for the time of its
 * lease.  Whoever completes or fails the step must still hold it: by the lease,
 * and by worker and attempt where he names them.  So of two workers that both
 * believe to have a step, one is refused.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "access/access.h"
#include "engine/handler.h"
#include "engine/plan.h"
#include "engine/run.h"
#include "secret/secret.h"
#include "shared_memory.h"
#include "state/state.h"
#include "statement.h"
#include "tasker.h"

PG_FUNCTION_INFO_V1(tasker_claim_steps);
PG_FUNCTION_INFO_V1(tasker_end_steps);

/* More in one claim would fill the lock table. */
#define MAX_CLAIM			1000

/* So many leases of a session are remembered before it is looked which hold. */
#define FIRST_BOUND			64

/*
 * From each lane as many as are wanted, of these the first; the others are let
 * go at the end of the transaction.  A task is held only where its namespace is
 * wanted: the rest of the lane may be long.  What limits refused ($4) does not
 * keep back what stands behind it.
 */
static Statement claim = {
	.sql = LOAD_CLAIM("lane AS ("
					  "SELECT h.handler_id AS number FROM tasker.handler AS h "
					  "WHERE h.kind = 'external' AND ($1 IS NULL OR h.name = ANY ($1)) "
					  "UNION ALL SELECT 3 WHERE 'api' = ANY ($1)), ",
					  "SELECT w.ctid FROM lane CROSS JOIN LATERAL ("
					  "SELECT q.ctid, q.rank, q.due FROM tasker.queue AS q "
					  "WHERE q.lane = lane.number "
					  "AND CASE WHEN $2 IS NULL OR EXISTS (SELECT FROM tasker.task AS n "
					  "JOIN tasker.plan AS p ON p.plan_id = n.plan_id "
					  "WHERE n.task_id = q.task_id AND p.namespace = ANY ($2)) "
					  "AND NOT EXISTS (SELECT FROM tasker.task AS n "
					  "JOIN tasker.plan AS p ON p.plan_id = n.plan_id "
					  "WHERE $4 IS NOT NULL AND n.task_id = q.task_id "
					  "AND lane.number || '/' || p.namespace = ANY ($4)) "
					  "THEN tasker._hold(q.task_id) ELSE false END "
					  "ORDER BY q.rank, q.due "
					  "LIMIT $3 "
					  "FOR UPDATE SKIP LOCKED) AS w "
					  "ORDER BY w.rank, w.due "
					  "LIMIT $3"),
	.arg_count = 4,
	.arg_types = {TEXTARRAYOID, TEXTARRAYOID, INT8OID, TEXTARRAYOID},
};

/*
 * The token first, then the task, as everybody does who has both: it may be in
 * the hands of a heartbeat, or of an executor that ends the lease.
 */
static Statement lock_leases = {
	.sql = "SELECT FROM unnest($1) AS w (step_id) "
	"JOIN tasker.queue AS q ON q.task_id = w.step_id >> 14 "
	"AND q.step_no = (w.step_id & 16383)::smallint "
	"ORDER BY q.task_id, q.step_no "
	"FOR UPDATE OF q",
	.arg_count = 1,
	.arg_types = {INT8ARRAYOID},
};

/* Leases that are over. */
static Statement delete_leases = {
	.sql = "DELETE FROM tasker.queue AS q USING unnest($1, $2) AS w (task_id, step_no) "
	"WHERE q.task_id = w.task_id AND q.step_no = w.step_no",
	.arg_count = 2,
	.arg_types = {INT8ARRAYOID, INT2ARRAYOID},
};

#define BOUND_HOLDS \
	"FROM unnest($1, $2, $3) WITH ORDINALITY AS w (task_id, step_no, started_at, place) " \
	"JOIN tasker.step AS s ON s.task_id = w.task_id AND s.step_no = w.step_no " \
	"AND s.started_at = w.started_at AND s.state = 1 "

static Statement find_bound = {
	.sql = "SELECT w.place " BOUND_HOLDS "ORDER BY w.place",
	.arg_count = 3,
	.arg_types = {INT8ARRAYOID, INT2ARRAYOID, TIMESTAMPTZARRAYOID},
};

/* What somebody else is at work on ends by itself. */
static Statement end_bound = {
	.sql = "WITH b AS ("
	"SELECT q.task_id, q.step_no " BOUND_HOLDS
	"JOIN tasker.queue AS q ON q.task_id = w.task_id AND q.step_no = w.step_no "
	"AND q.lane = -1 AND q.due_lane IS NULL "
	"FOR UPDATE OF q, s SKIP LOCKED), "
	"e AS ("
	"UPDATE tasker.queue AS q SET due = $4 FROM b "
	"WHERE q.task_id = b.task_id AND q.step_no = b.step_no "
	"RETURNING q.task_id, q.step_no) "
	"UPDATE tasker.step AS s SET lease_until = $4 "
	"FROM e WHERE s.task_id = e.task_id AND s.step_no = e.step_no",
	.arg_count = 4,
	.arg_types = {INT8ARRAYOID, INT2ARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZOID},
};

/*
 * Leases that end with this session.  The time of the claim tells it from any
 * other of the same step: one that was rolled back, and somebody else's after
 * it, have the same attempt.
 */
typedef struct BoundLease
{
	int64		task_id;
	TimestampTz started_at;
	int16		step_no;
} BoundLease;

static BoundLease *bound = NULL;
static int	bound_count = 0;
static int	bound_space = 0;

static void
append(ArrayBuildState **state, Datum value, Oid type)
{
	*state = accumArrayResult(*state, value, false, type, CurrentMemoryContext);
}

/*
 * The bound leases as the first three arguments of a statement.
 */
static void
bound_arguments(Datum *values)
{
	ArrayBuildState *ids = NULL;
	ArrayBuildState *numbers = NULL;
	ArrayBuildState *times = NULL;

	for (int i = 0; i < bound_count; i++)
	{
		append(&ids, Int64GetDatum(bound[i].task_id), INT8OID);
		append(&numbers, Int16GetDatum(bound[i].step_no), INT2OID);
		append(&times, TimestampTzGetDatum(bound[i].started_at), TIMESTAMPTZOID);
	}
	values[0] = makeArrayResult(ids, CurrentMemoryContext);
	values[1] = makeArrayResult(numbers, CurrentMemoryContext);
	values[2] = makeArrayResult(times, CurrentMemoryContext);
}

/*
 * The session ends, and with it what it had claimed for itself.  Whatever it
 * has set for itself does not count here: this runs as the bootstrap superuser,
 * as the session's role may not write the tables.
 */
static void
end_bound_leases(int code, Datum arg)
{
	Datum		values[4];
	TimestampTz now;

	if (bound_count == 0)
		return;
	AbortOutOfAnyTransaction();
	StartTransactionCommand();
	XactReadOnly = false;
	XactIsoLevel = XACT_READ_COMMITTED;
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, SECURITY_LOCAL_USERID_CHANGE);
	SetConfigOption("search_path", SAFE_SEARCH_PATH, PGC_USERSET, PGC_S_SESSION);
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	bound_arguments(values);
	bound_count = 0;
	now = tasker_now();
	values[3] = TimestampTzGetDatum(now);
	statement_run(&end_bound, values, NULL);
	tasker_note_due(now);
	SPI_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/*
 * Forgets the leases that have ended, wherever that was.
 */
static void
forget_ended(void)
{
	Datum		values[3];
	uint64		rows;
	bool		isnull;

	bound_arguments(values);
	rows = statement_run(&find_bound, values, NULL);
	for (uint64 row = 0; row < rows; row++)
		bound[row] = bound[DatumGetInt64(row_value(row, 1, &isnull)) - 1];
	bound_count = rows;
	SPI_freetuptable(SPI_tuptable);
}

/*
 * Room for so many more.
 */
static void
prepare_to_bind(int wanted)
{
	if (bound_space == 0)
		before_shmem_exit(end_bound_leases, (Datum) 0);
	if (bound_count + wanted <= bound_space)
		return;
	if (bound_count > 0)
		forget_ended();
	if (bound_count + wanted > bound_space / 2)
	{
		int			space = Max((bound_count + wanted) * 2, FIRST_BOUND);

		bound = bound == NULL ?
			MemoryContextAlloc(TopMemoryContext, space * sizeof(BoundLease)) :
			repalloc(bound, space * sizeof(BoundLease));
		bound_space = space;
	}
}

static void
bind_to_session(TaskRun *task, int step_no)
{
	BoundLease *lease = &bound[bound_count++];

	lease->task_id = task->task_id;
	lease->step_no = step_no;
	lease->started_at = task->steps[step_no - 1].started_at;
}

/* A token in the order of the claim. */
typedef struct Claimed
{
	int64		task_id;
	int16		step_no;
	TimestampTz due;
} Claimed;

/*
 * Leases one claimed step, and adds what the worker gets to the result.  Returns
 * whether it did; refused: a limit was in the way.
 */
static bool
lease_step(Batch *batch, TaskRun *task, int step_no, TimestampTz due, char *worker,
		   TimestampTz until, bool bind, ReturnSetInfo *result, bool *refused)
{
	PlanStep   *plan = plan_step(task->plan, step_no);
	StepRun    *step = &task->steps[step_no - 1];
	TimestampTz now = tasker_now();
	ErrorData	missing = {0};
	HeapTupleData tuple;
	HeapTupleHeader header;

	if (!(graph_is_ready(task, step_no) || step->state == STEP_WAITING) || !graph_goes_on(task))
		return false;
	if (graph_time_is_up(task, now))
	{
		graph_queue_step(batch, task, step_no, handler_lane(plan->handler), now);
		return false;
	}
	if (step->state == STEP_PENDING && graph_bypasses(task, step_no))
	{
		graph_start(batch, task, now);
		graph_step_skipped(batch, task, step_no, now);
		return false;
	}
	if (plan->secrets != NULL && secret_is_missing(plan->secrets, plan->name, &missing))
	{
		graph_start(batch, task, now);
		run_fail_step(batch, task, step_no, &missing, false, 0, now);
		return false;
	}
	if (plan->limit_count > 0 && !limit_take_lease(plan->limits, plan->limit_count))
	{
		graph_queue_step(batch, task, step_no, handler_lane(plan->handler), due);
		*refused = true;
		return false;
	}
	graph_start(batch, task, now);
	if (plan->timeout > 0)
		until = Min(until, now + plan->timeout);
	graph_step_leased(batch, task, step_no, worker, until, now);
	if (bind)
		bind_to_session(task, step_no);

	header = DatumGetHeapTupleHeader(handler_step_context(task, step_no, NULL));
	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = header;
	tuplestore_puttuple(result->setResult, &tuple);
	return true;
}

/* What a claim is to bring. */
typedef struct Claim
{
	Batch	   *batch;
	char	   *worker;
	TimestampTz until;
	bool		bind;
	int			wanted;			/* steps, still */
	Datum		values[4];		/* arguments of the statement */
	char		nulls[4];
	ArrayBuildState *refused;	/* lane/namespace where a limit is reached */
	ReturnSetInfo *result;
} Claim;

static void
note_refused(Claim *order, TaskRun *task, int step_no)
{
	int32		lane = handler_lane(plan_step(task->plan, step_no)->handler);

	append(&order->refused, CStringGetTextDatum(psprintf("%d/%s", lane, task->plan->namespace)),
		   TEXTOID);
}

/*
 * Claims what is wanted and leases what limits allow.  Returns whether limits
 * refused something, so that others behind it may be had instead.
 */
static bool
claim_once(Claim *order)
{
	Claimed    *claimed = palloc(order->wanted * sizeof(Claimed));
	bool		any_refused = false;
	uint64		rows;

	order->values[2] = Int64GetDatum(order->wanted);
	order->nulls[3] = order->refused->nelems == 0 ? 'n' : ' ';
	if (order->refused->nelems > 0)
		order->values[3] = makeArrayResult(order->refused, CurrentMemoryContext);
	hold_begin();
	rows = statement_run(&claim, order->values, order->nulls);
	for (uint64 row = 0; row < rows; row++)
	{
		bool		isnull;

		claimed[row].task_id = DatumGetInt64(row_value(row, 1, &isnull));
		claimed[row].step_no = DatumGetInt16(row_value(row, 2, &isnull));
		claimed[row].due = DatumGetTimestampTz(row_value(row, LOAD_CLAIM_DUE, &isnull));
	}
	load_claimed(order->batch, rows);
	/* A lease in a task that a deadline ends at this moment would be nobody's. */
	write_lock_tasks(order->batch);
	load_begun(order->batch);
	for (uint64 row = 0; row < rows; row++)
	{
		TaskRun    *task = batch_find_task(order->batch, claimed[row].task_id);
		int			step_no = claimed[row].step_no;
		bool		refused = false;

		if (task == NULL || step_no < 1 || step_no > task->plan->step_count)
			continue;
		if (lease_step(order->batch, task, step_no, claimed[row].due, order->worker,
					   order->until, order->bind, order->result, &refused))
			order->wanted--;
		if (refused)
			note_refused(order, task, step_no);
		any_refused |= refused;
	}
	return any_refused;
}

/*
 * tasker._claim_steps(worker text, handlers text[], namespaces text[],
 *		max_steps integer, lease_until timestamptz, bound_to_session boolean)
 */
Datum
tasker_claim_steps(PG_FUNCTION_ARGS)
{
	Claim		order = {
		.worker = text_to_cstring(PG_GETARG_TEXT_PP(0)),
		.wanted = Min(PG_GETARG_INT32(3), MAX_CLAIM),
		.until = PG_GETARG_TIMESTAMPTZ(4),
		.bind = PG_GETARG_BOOL(5),
		.nulls = {' ', ' ', ' ', ' '},
		.result = (ReturnSetInfo *) fcinfo->resultinfo,
	};

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 1; i <= 2; i++)
	{
		order.nulls[i - 1] = PG_ARGISNULL(i) ? 'n' : ' ';
		order.values[i - 1] = PG_ARGISNULL(i) ? (Datum) 0 : PG_GETARG_DATUM(i);
	}
	order.batch = batch_create(CurrentMemoryContext);
	order.batch->for_outside = true;
	/* In no context of its own, as it grows after it was read. */
	order.refused = initArrayResult(TEXTOID, CurrentMemoryContext, false);
	SPI_connect();
	plan_cache_refresh();
	tasker_note_kept(false);
	if (order.bind)
		prepare_to_bind(order.wanted);
	while (order.wanted > 0 && claim_once(&order))
		CHECK_FOR_INTERRUPTS();
	write_batch(order.batch);
	SPI_finish();
	return (Datum) 0;
}

/* What a worker says of one step. */
typedef struct Report
{
	int64		step_id;
	int			place;			/* among those that the worker sent */
	bool		allowed;		/* whether he may work in that namespace */
	Jsonb	   *results;		/* complete */
	char	   *error[5];		/* failed: message, sqlstate, detail, hint, context */
} Report;

typedef struct Reports
{
	int			count;
	Report	   *report;
	bool		failed;
	bool		retryable;
	int64		retry_after;	/* µs; -1: the back-off decides */
	char	   *worker;			/* NULL: whoever */
	int			attempt;		/* 0: whichever */
} Reports;

/*
 * Why the step can't be ended by this worker; NULL where it can.
 */
static const char *
why_not(Reports *reports, TaskRun *task, int step_no, TimestampTz now)
{
	StepRun    *step;

	if (task == NULL || step_no < 1 || step_no > task->plan->step_count)
		return "There is no such step.";
	step = &task->steps[step_no - 1];
	if (step->state != STEP_IN_PROGRESS)
		return psprintf("The step is %s.", state_name(MACHINE_STEP, step->state));
	if (step->claimed_by == NULL)
		return "No worker has claimed the step.";
	if (reports->worker != NULL && strcmp(step->claimed_by, reports->worker) != 0)
		return psprintf("Worker \"%s\" holds it.", step->claimed_by);
	if (reports->attempt != 0 && reports->attempt != step->attempts)
		return psprintf("Attempt %d is under way.", step->attempts);
	if (step->lease_until <= now)
		return "The lease has run out.";
	return NULL;
}

static void
hide_secrets(const SecretMask *mask, Report *report)
{
	report->results = secret_hide_in_jsonb(mask, report->results);
	for (int i = 0; i < lengthof(report->error); i++)
		report->error[i] = secret_hide_in_text(mask, report->error[i]);
}

static void
end_step(Batch *batch, Reports *reports, Report *report, TaskRun *task, int step_no,
		 TimestampTz now)
{
	SecretUse  *secrets = plan_step(task->plan, step_no)->secrets;

	if (secrets != NULL)
		hide_secrets(secret_mask_now(secrets, batch->context), report);
	if (!reports->failed)
		graph_step_completed(batch, task, step_no, report->results, now);
	else
		graph_step_failed(batch, task, step_no,
						  graph_error(batch, report->error[0], report->error[1], report->error[2],
									  report->error[3], report->error[4],
									  task->steps[step_no - 1].attempts,
									  reports->retryable &&
									  plan_step(task->plan, step_no)->retryable, now),
						  report->error[0], report->error[1], reports->retryable,
						  reports->retry_after >= 0 ? now + Max(reports->retry_after, 1) : 0, now);
}

/* By step, and what was said of it first comes first. */
static int
compare_reports(const void *a, const void *b)
{
	const Report *left = a;
	const Report *right = b;

	if (left->step_id != right->step_id)
		return left->step_id < right->step_id ? -1 : 1;
	return left->place - right->place;
}

/*
 * Ends the steps; strict: the first that can't be is an error, else it is left
 * out.  The ids of those that were go into the result.
 */
static void
end_steps(Reports *reports, bool strict, ReturnSetInfo *result)
{
	Batch	   *batch = batch_create(CurrentMemoryContext);
	int64	   *tasks = palloc(Max(reports->count, 1) * sizeof(int64));
	int64	   *steps = palloc(Max(reports->count, 1) * sizeof(int64));
	Datum		lock;
	ArrayBuildState *ids = NULL;
	ArrayBuildState *numbers = NULL;
	TimestampTz now;
	int			allowed = 0;

	SPI_connect();
	plan_cache_refresh();
	qsort(reports->report, reports->count, sizeof(Report), compare_reports);
	for (int i = 0; i < reports->count; i++)
	{
		Report	   *report = &reports->report[i];

		report->allowed = access_caller_may_in_task("worker:claim",
													report->step_id >> TASKER_STEP_BITS);
		if (!report->allowed)
			continue;
		tasks[allowed] = report->step_id >> TASKER_STEP_BITS;
		steps[allowed++] = report->step_id;
	}
	lock = ids_argument(steps, allowed);
	statement_run(&lock_leases, &lock, NULL);
	load_locked(batch, tasks, allowed);
	now = tasker_now();

	for (int i = 0; i < reports->count; i++)
	{
		Report	   *report = &reports->report[i];
		int			step_no = report->step_id & TASKER_MAX_STEPS;
		TaskRun    *task = report->allowed ?
			batch_find_task(batch, report->step_id >> TASKER_STEP_BITS) : NULL;
		const char *why = why_not(reports, task, step_no, now);
		Datum		values[2];
		bool		nulls[2] = {0};

		if (why != NULL && strict)
			ereport(ERROR,
					errcode(ERRCODE_TASKER_LEASE_LOST),
					errmsg("step " INT64_FORMAT " can't be ended by this worker",
						   report->step_id),
					errdetail("%s", why),
					errhint("Drop the result: another attempt has the step, or it has ended."));
		if (why != NULL)
			continue;
		end_step(batch, reports, report, task, step_no, now);
		append(&ids, Int64GetDatum(task->task_id), INT8OID);
		append(&numbers, Int16GetDatum(step_no), INT2OID);
		values[0] = Int64GetDatum(report->step_id);
		values[1] = CStringGetTextDatum(state_name(MACHINE_STEP, task->steps[step_no - 1].state));
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	if (ids != NULL)
	{
		Datum		values[2];

		values[0] = makeArrayResult(ids, CurrentMemoryContext);
		values[1] = makeArrayResult(numbers, CurrentMemoryContext);
		statement_run(&delete_leases, values, NULL);
	}
	write_batch(batch);
	SPI_finish();
}

/*
 * tasker._end_steps(step_ids bigint[], failed boolean, results jsonb[], errors text[],
 *		retryable boolean, retry_after bigint, worker text, attempt integer, strict boolean)
 *
 * errors has five texts for each step: message, sqlstate, detail, hint, context.
 */
Datum
tasker_end_steps(PG_FUNCTION_ARGS)
{
	Reports		reports = {0};
	Datum	   *ids;
	Datum	   *payloads;
	bool	   *nulls;
	bool	   *id_nulls;
	int			width;
	int			payload_count;

	InitMaterializedSRF(fcinfo, 0);
	reports.failed = PG_GETARG_BOOL(1);
	reports.retryable = PG_GETARG_BOOL(4);
	reports.retry_after = PG_ARGISNULL(5) ? -1 : PG_GETARG_INT64(5);
	reports.worker = PG_ARGISNULL(6) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(6));
	reports.attempt = PG_ARGISNULL(7) ? 0 : PG_GETARG_INT32(7);

	width = reports.failed ? 5 : 1;
	reports.count = Max(array_argument(fcinfo, 0, &ids, &id_nulls), 0);
	payload_count = Max(array_argument(fcinfo, reports.failed ? 3 : 2, &payloads, &nulls), 0);
	if (payload_count != reports.count * width)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("the arrays differ in length"),
				errdetail("There are %d steps, and %d results or errors.", reports.count,
						  payload_count / width));
	reports.report = palloc0(Max(reports.count, 1) * sizeof(Report));
	for (int i = 0; i < reports.count; i++)
	{
		reports.report[i].step_id = id_nulls[i] ? 0 : DatumGetInt64(ids[i]);
		reports.report[i].place = i;
		for (int j = 0; j < width; j++)
		{
			if (nulls[i * width + j])
				continue;
			if (reports.failed)
				reports.report[i].error[j] = TextDatumGetCString(payloads[i * width + j]);
			else
				reports.report[i].results = DatumGetJsonbP(payloads[i]);
		}
	}
	end_steps(&reports, PG_GETARG_BOOL(8), (ReturnSetInfo *) fcinfo->resultinfo);
	return (Datum) 0;
}
