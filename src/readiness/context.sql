-- How a task stands, from its steps' readiness.

-- Tasks and counts meet in a grouping, not in a join: neither side would have
-- an index, and a join's cost would hang on the planner's guess of the number
-- of tasks.  It keeps one plan, as step_readiness_batch() does.
CREATE FUNCTION tasker.task_execution_contexts(task_ids bigint[])
RETURNS TABLE (
    task_id bigint,
    named_task_id integer,
    status text,
    total_steps bigint,
    pending_steps bigint,
    in_progress_steps bigint,
    completed_steps bigint,
    failed_steps bigint,
    ready_steps bigint,
    execution_status text,
    recommended_action text,
    completion_percentage numeric,
    health_status text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH rows AS (
        SELECT t.task_id,
               (SELECT p.template_id FROM tasker.plan AS p WHERE p.plan_id = t.plan_id) AS template_id,
               tasker._task_state(t.state)::text AS task_state,
               NULL AS step_state, NULL::boolean AS ready
        FROM tasker.task AS t
        WHERE t.task_id = ANY (task_ids)
        UNION ALL
        SELECT r.task_id, NULL, NULL, r.current_state, r.ready_for_execution
        FROM tasker.step_readiness_batch(task_ids) AS r
    ),
    counted AS (
        SELECT r.task_id,
               max(r.template_id) AS template_id,
               max(r.task_state) AS state,
               count(r.step_state) AS total,
               count(*) FILTER (WHERE r.step_state = 'pending') AS pending,
               count(*) FILTER (WHERE r.step_state = 'in_progress') AS in_progress,
               count(*) FILTER (WHERE r.step_state IN ('complete', 'resolved_manually', 'skipped')) AS completed,
               count(*) FILTER (WHERE r.step_state IN ('waiting_for_retry', 'error')) AS failed,
               count(*) FILTER (WHERE r.step_state = 'error') AS failed_for_good,
               count(*) FILTER (WHERE r.step_state = 'cancelled') AS cancelled,
               count(*) FILTER (WHERE r.ready) AS ready
        FROM rows AS r
        GROUP BY r.task_id
    ),
    tasks AS (
        SELECT c.*,
               c.failed_for_good > 0 AS blocked,
               c.total > 0 AND c.completed + c.cancelled = c.total AS over
        FROM counted AS c
    )
    SELECT t.task_id,
           t.template_id,
           t.state,
           t.total,
           t.pending,
           t.in_progress,
           t.completed,
           t.failed,
           t.ready,
           CASE
               WHEN t.ready > 0 THEN 'has_ready_steps'
               WHEN t.in_progress > 0 THEN 'processing'
               WHEN t.blocked THEN 'blocked_by_failures'
               WHEN t.over THEN 'all_complete'
               ELSE 'waiting_for_dependencies'
           END,
           CASE
               WHEN t.ready > 0 THEN 'execute_ready_steps'
               WHEN t.in_progress > 0 THEN 'wait_for_completion'
               WHEN t.blocked THEN 'handle_failures'
               WHEN t.over THEN 'finalize_task'
               ELSE 'wait_for_dependencies'
           END,
           CASE
               WHEN t.total = 0 THEN 0.0
               ELSE round(t.completed * 100.0 / t.total, 2)
           END,
           CASE
               WHEN t.failed = 0 THEN 'healthy'
               WHEN t.ready > 0 THEN 'recovering'
               WHEN t.blocked THEN 'blocked'
               ELSE 'recovering'
           END
    FROM tasks AS t
    ORDER BY t.task_id;
END;
$$;
COMMENT ON FUNCTION tasker.task_execution_contexts(bigint[]) IS
'Returns how the tasks task_ids stand, one row each in the order of task_id; ids that are no task''s are left out. Columns: task_id; named_task_id: id of its template; status: state of the task; total_steps; pending_steps; in_progress_steps; completed_steps: complete, resolved_manually or skipped; failed_steps: waiting_for_retry or error; ready_steps: that may be started now; execution_status and recommended_action, the first that holds: has_ready_steps / execute_ready_steps, processing / wait_for_completion, blocked_by_failures / handle_failures (a step is in error), all_complete / finalize_task (no step is left that is not completed or cancelled), waiting_for_dependencies / wait_for_dependencies; completion_percentage: completed_steps of total_steps, two decimals; health_status: healthy (nothing failed), recovering (what failed is being retried, or something else is ready), blocked (a step is in error and nothing is ready). Raises nothing. Source: design, Reading; reference 3.2.';

-- In SQL, for PL/pgSQL takes no argument of the name of a column that it returns.
CREATE FUNCTION tasker.task_execution_context(task_id bigint)
RETURNS TABLE (
    task_id bigint,
    named_task_id integer,
    status text,
    total_steps bigint,
    pending_steps bigint,
    in_progress_steps bigint,
    completed_steps bigint,
    failed_steps bigint,
    ready_steps bigint,
    execution_status text,
    recommended_action text,
    completion_percentage numeric,
    health_status text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
SELECT c.*
FROM tasker.task_execution_contexts(ARRAY[$1]) AS c;
$$;
COMMENT ON FUNCTION tasker.task_execution_context(bigint) IS
'Returns how task task_id stands; no row for an unknown task. Columns as in tasker.task_execution_contexts(). Raises nothing. Source: design, Reading; reference 3.2.';

CREATE FUNCTION tasker.dependency_levels(task_id bigint)
RETURNS TABLE (
    step_id bigint,
    dependency_level integer)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
SELECT t.task_id << 14 | s.step_no,
       s.level::integer
FROM tasker.task AS t
JOIN tasker.plan_step AS s USING (plan_id)
WHERE t.task_id = $1
ORDER BY s.level, s.step_no;
$$;
COMMENT ON FUNCTION tasker.dependency_levels(bigint) IS
'Returns the steps of task task_id by level: the length of the longest path to the step from one without dependencies, which is on level 0. In the order of dependency_level and step_id; no row for an unknown task. Raises nothing. Source: design, Reading; reference 3.3.';
