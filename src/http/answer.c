/*
 * answer.c
 *	  Ends api steps by the SQL handlers of their classes.
 *
 * Such a handler runs in the session that brings the answer, in a subtransaction,
 * under its registrar's role and with the step's time limit, as in an executor.
 * The lease is in the hands of this transaction before it begins, so the step
 * can't be lost meanwhile; of the task nothing is locked before it has run.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "engine/handler.h"
#include "engine/plan.h"
#include "engine/run.h"
#include "secret/secret.h"
#include "state/state.h"
#include "statement.h"
#include "tasker.h"

PG_FUNCTION_INFO_V1(tasker_answer_steps);

/* Leases of this worker, but not of tasks that an operator has. */
static Statement take_leases = {
	.sql = LOAD_CLAIM("",
					  "SELECT q.ctid FROM unnest($1) AS w (step_id) "
					  "JOIN tasker.queue AS q ON q.task_id = w.step_id >> 14 "
					  "AND q.step_no = (w.step_id & 16383)::smallint "
					  "JOIN tasker.step AS s ON s.task_id = q.task_id AND s.step_no = q.step_no "
					  "WHERE q.lane = -1 AND q.due_lane IS NULL AND s.state = 1 "
					  "AND s.claimed_by = $2 AND s.lease_until > tasker.clock() "
					  "AND tasker._hold(q.task_id) "
					  "ORDER BY q.task_id, q.step_no "
					  "FOR UPDATE OF q, s SKIP LOCKED"),
	.arg_count = 2,
	.arg_types = {INT8ARRAYOID, TEXTOID},
};

/*
 * Runs the handler of the step, or takes the answer as the result where there is
 * none any more.
 */
static void
answer_step(Batch *batch, TaskRun *task, int step_no, Jsonb *response)
{
	PlanStep   *plan = plan_step(task->plan, step_no);
	HandlerOutcome outcome = {.ok = true, .results = response};
	TimestampTz at;

	if (plan->answer != NULL)
		handler_run_answer(batch, task, step_no, response, &outcome);
	else if (plan->secrets != NULL)
		outcome.results = secret_hide_in_jsonb(secret_mask_now(plan->secrets, batch->context),
											   response);
	at = tasker_now();
	if (outcome.ok)
		graph_step_completed(batch, task, step_no, outcome.results, at);
	else
		run_fail_step(batch, task, step_no, outcome.error,
					  outcome.error->sqlerrcode != ERRCODE_TASKER_PERMANENT &&
					  plan->answer->problem == NULL,
					  outcome.retry_after >= 0 ? at + outcome.retry_after : 0, at);
}

/*
 * tasker._answer_steps(step_ids bigint[], responses jsonb[], worker text)
 */
Datum
tasker_answer_steps(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Batch	   *batch;
	Datum	   *ids;
	Datum	   *responses;
	bool	   *nulls;
	int			count;
	uint64		rows;
	Datum		values[2];

	InitMaterializedSRF(fcinfo, 0);
	count = Max(array_argument(fcinfo, 0, &ids, &nulls), 0);
	if (array_argument(fcinfo, 1, &responses, &nulls) != count)
		elog(ERROR, "each step has one response");
	handler_init();
	SPI_connect();
	plan_cache_refresh();
	batch = batch_create(CurrentMemoryContext);
	hold_begin();
	values[0] = PG_GETARG_DATUM(0);
	values[1] = PG_GETARG_DATUM(2);
	rows = statement_run(&take_leases, values, NULL);
	load_claimed(batch, rows);
	load_begun(batch);

	for (int i = 0; i < count; i++)
	{
		int64		id = DatumGetInt64(ids[i]);
		int			step_no = id & TASKER_MAX_STEPS;
		TaskRun    *task = batch_find_task(batch, id >> TASKER_STEP_BITS);
		bool		row_nulls[2] = {0};

		if (task == NULL || step_no < 1 || step_no > task->plan->step_count ||
			!task->steps[step_no - 1].mine)
			continue;
		task->steps[step_no - 1].mine = false;
		answer_step(batch, task, step_no, DatumGetJsonbP(responses[i]));
		values[0] = Int64GetDatum(id);
		values[1] = CStringGetTextDatum(state_name(MACHINE_STEP, task->steps[step_no - 1].state));
		tuplestore_putvalues(result->setResult, result->setDesc, values, row_nulls);
	}
	write_batch(batch);
	SPI_finish();
	return (Datum) 0;
}
