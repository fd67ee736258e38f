-- What is ready and when, computed from the plan, the steps and the task: for
-- people, and for the test that holds it against the queue, which is what the
-- engine itself goes by.

CREATE FUNCTION tasker._failed_at(error jsonb, finished_at timestamptz)
RETURNS timestamptz
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
SELECT CASE
           WHEN error ->> 'at' ~ '^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])[T ]([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?(Z|[+-](0\d|1[0-4])(:?[0-5]\d)?)$'
           THEN (error ->> 'at')::timestamptz
           ELSE finished_at
       END;
$$;
COMMENT ON FUNCTION tasker._failed_at(jsonb, timestamptz) IS
'When a step failed: what its error says, else when the step ended. A text without an offset from UTC is not taken for a time: what it means would depend on the session. Private.';

-- The cost is that of the steps and edges asked for, whatever the planner
-- believes about their number: each lookup by key is a subquery of its own
-- (OFFSET 0), which leaves no other way to do it than through the index; what is
-- satisfied goes into an array that is read at the step's number (they run from
-- 1 without a gap).  So one plan serves everybody; PL/pgSQL keeps it, for making
-- it takes longer than reading most tasks.
CREATE FUNCTION tasker.step_readiness_batch(task_ids bigint[])
RETURNS TABLE (
    step_id bigint,
    task_id bigint,
    named_step_id integer,
    name text,
    current_state text,
    dependencies_satisfied boolean,
    retry_eligible boolean,
    ready_for_execution boolean,
    last_failure_at timestamptz,
    next_retry_at timestamptz,
    total_parents integer,
    completed_parents integer,
    attempts integer,
    retry_limit integer,
    backoff_request_seconds integer,
    last_attempted_at timestamptz)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH moment AS MATERIALIZED (
        SELECT tasker.clock() AS now
    ),
    asked AS MATERIALIZED (
        SELECT t.task_id, t.plan_id, t.bypass_steps, m.now,
               tasker._task_state(t.state) IN ('pending', 'in_progress')
                   AND (t.run_at IS NULL OR t.run_at <= m.now) AS goes,
               (SELECT array_agg(coalesce(tasker._step_state(r.state) IN ('complete', 'resolved_manually', 'skipped'), false)
                                 ORDER BY s.step_no)
                FROM tasker.plan_step AS s
                LEFT JOIN LATERAL (
                    SELECT x.state
                    FROM tasker.step AS x
                    WHERE x.task_id = t.task_id
                      AND x.step_no = s.step_no
                    OFFSET 0) AS r ON true
                WHERE s.plan_id = t.plan_id) AS satisfied
        FROM moment AS m
        CROSS JOIN tasker.task AS t
        WHERE t.task_id = ANY (task_ids)
    ),
    turns AS MATERIALIZED (
        -- Of a task whose steps run one at a time, the one whose turn it is; 0: one is under way.
        SELECT a.*,
               CASE
                   WHEN NOT p.concurrent THEN (
                       SELECT CASE WHEN bool_or(tasker._step_state(r.state) IN ('in_progress', 'waiting_for_retry')) THEN 0
                                   ELSE min(s.step_no) FILTER (
                                            WHERE coalesce(r.state, 0) = 0
                                              AND NOT EXISTS (
                                                  SELECT
                                                  FROM unnest(s.parents) AS o (step_no)
                                                  WHERE NOT a.satisfied[o.step_no])) END
                       FROM tasker.plan_step AS s
                       LEFT JOIN LATERAL (
                           SELECT x.step_no, x.state
                           FROM tasker.step AS x
                           WHERE x.task_id = a.task_id
                             AND x.step_no = s.step_no
                           OFFSET 0) AS r ON true
                       WHERE s.plan_id = a.plan_id)
               END AS turn
        FROM asked AS a
        CROSS JOIN LATERAL (
            SELECT x.concurrent
            FROM tasker.plan AS x
            WHERE x.plan_id = a.plan_id
            OFFSET 0) AS p
    ),
    steps AS (
        SELECT a.task_id, a.now, a.goes, a.turn, s.step_no, s.name,
               tasker._step_state(coalesce(r.state, 0::smallint))::text AS state,
               cardinality(s.parents) AS parents,
               (SELECT count(*)::integer
                FROM unnest(s.parents) AS p (step_no)
                WHERE a.satisfied[p.step_no]) AS satisfied_parents,
               r.step_no IS NULL AND coalesce(s.name = ANY (a.bypass_steps), false) AS to_be_skipped,
               coalesce(r.attempts, 0)::integer AS attempts,
               coalesce(r.retry_limit, s.retry_limit)::integer AS retry_limit,
               r.next_attempt_at, r.started_at, r.finished_at, r.error
        FROM turns AS a
        CROSS JOIN LATERAL (
            SELECT x.step_no, x.name, x.parents, x.retry_limit
            FROM tasker.plan_step AS x
            WHERE x.plan_id = a.plan_id
            OFFSET 0) AS s
        LEFT JOIN LATERAL (
            SELECT x.step_no, x.state, x.attempts, x.retry_limit, x.next_attempt_at,
                   x.started_at, x.finished_at, x.error
            FROM tasker.step AS x
            WHERE x.task_id = a.task_id
              AND x.step_no = s.step_no
            OFFSET 0) AS r ON true
        OFFSET 0
    ),
    timed AS (
        SELECT s.*,
               CASE WHEN s.state IN ('waiting_for_retry', 'error')
                    THEN tasker._failed_at(s.error, s.finished_at) END AS failed_at,
               CASE WHEN s.state = 'waiting_for_retry' THEN s.next_attempt_at END AS retry_at
        FROM steps AS s
        OFFSET 0
    )
    SELECT s.task_id << 14 | s.step_no,
           s.task_id,
           s.step_no::integer,
           s.name,
           s.state,
           s.satisfied_parents = s.parents,
           CASE s.state
               WHEN 'error' THEN false
               WHEN 'waiting_for_retry' THEN true
               ELSE s.attempts < s.retry_limit
           END,
           s.goes
               AND CASE s.state
                       WHEN 'pending' THEN s.satisfied_parents = s.parents AND NOT s.to_be_skipped
                                           AND coalesce(s.turn = s.step_no, true)
                       WHEN 'waiting_for_retry' THEN s.retry_at IS NULL OR s.retry_at <= s.now
                       ELSE false
                   END,
           s.failed_at,
           s.retry_at,
           s.parents,
           s.satisfied_parents,
           s.attempts,
           s.retry_limit,
           CASE
               WHEN s.retry_at IS NOT NULL AND s.failed_at IS NOT NULL
               THEN greatest(0, least(2147483647, round(extract(epoch FROM s.retry_at) - extract(epoch FROM s.failed_at))))::integer
           END,
           s.started_at
    FROM timed AS s
    ORDER BY 1;
END;
$$;
COMMENT ON FUNCTION tasker.step_readiness_batch(bigint[]) IS
'Returns what is ready and what each step waits for, of every step of the tasks task_ids, in the order of step_id; ids that are no task''s are left out. Columns: step_id, task_id; named_step_id: number of the step in its definition; name; current_state; dependencies_satisfied: every parent is complete, resolved_manually or skipped; retry_eligible: the engine may still make an attempt by itself (attempts are left and the step is not in error, which is final); ready_for_execution: an executor or a worker may start it now; last_failure_at: of a step in waiting_for_retry or error; next_retry_at: when one in waiting_for_retry is due; total_parents; completed_parents; attempts: started and counted; retry_limit: attempts in all; backoff_request_seconds: whole seconds between the failure and next_retry_at; last_attempted_at: start of the latest attempt. A step that the task bypasses is never ready: the engine skips it when it gets there. Where steps run one at a time (concurrent: false), the first of those that could start is ready, and none while another is in progress or waits for its retry. Raises nothing. Source: design, Reading; reference 3.1.';

-- In SQL, for PL/pgSQL takes no argument of the name of a column that it returns.
CREATE FUNCTION tasker.step_readiness(task_id bigint, step_ids bigint[] DEFAULT NULL)
RETURNS TABLE (
    step_id bigint,
    task_id bigint,
    named_step_id integer,
    name text,
    current_state text,
    dependencies_satisfied boolean,
    retry_eligible boolean,
    ready_for_execution boolean,
    last_failure_at timestamptz,
    next_retry_at timestamptz,
    total_parents integer,
    completed_parents integer,
    attempts integer,
    retry_limit integer,
    backoff_request_seconds integer,
    last_attempted_at timestamptz)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
SELECT r.*
FROM tasker.step_readiness_batch(ARRAY[$1]) AS r
WHERE step_ids IS NULL
   OR r.step_id IN (SELECT unnest(step_ids))
ORDER BY r.step_id;
$$;
COMMENT ON FUNCTION tasker.step_readiness(bigint, bigint[]) IS
'Returns what is ready and what each step waits for, of the steps of task task_id, or of those among step_ids alone; no row for an unknown task. Columns and order as in tasker.step_readiness_batch(). Raises nothing. Source: design, Reading; reference 3.1.';
