-- What happened since a time.  Each function reads the log behind the tick of
-- that time, and what that leads to by keys: it costs what has happened since.

CREATE FUNCTION tasker._check_since(since timestamptz, max_rows integer DEFAULT 1)
RETURNS void
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT isfinite(since) AND since > '-infinity' THEN
        RAISE EXCEPTION 'since must be a time'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('It is %s.', since),
                  HINT = 'Pass a time in the past, such as now() - interval ''1 hour''.';
    END IF;
    IF max_rows IS NULL OR max_rows NOT BETWEEN 1 AND 10000 THEN
        RAISE EXCEPTION 'max_rows must be from 1 to 10000'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('It is %s.', coalesce(max_rows::text, 'NULL')),
                  HINT = 'Leave it out for 10.';
    END IF;
END;
$$;
COMMENT ON FUNCTION tasker._check_since(timestamptz, integer) IS
'Raises 22023 where nothing can have happened since then, or that number of rows is none. Private.';

CREATE FUNCTION tasker._log_since(since timestamptz)
RETURNS SETOF tasker.log
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_nestloop = on
SET enable_bitmapscan = off
SET jit = off
AS $$
BEGIN
    RETURN QUERY
    SELECT l.*
    FROM unnest(tasker._ids_since(since)) AS r (ids)
    CROSS JOIN LATERAL (
        SELECT l.*
        FROM tasker.log AS l
        WHERE l.id >= lower(r.ids)
          AND l.id < coalesce(upper(r.ids), 9223372036854775807)
        OFFSET 0) AS l
    WHERE l.at >= since;
END;
$$;
COMMENT ON FUNCTION tasker._log_since(timestamptz) IS
'Rows of the log for what happened at that time or later. Private.';

-- Tasks by their keys, with their plans.
CREATE FUNCTION tasker._tasks_of(task_ids bigint[])
RETURNS TABLE (
    task_id bigint,
    plan_id integer,
    name text,
    namespace text,
    version text,
    step_count integer,
    state text,
    created_at timestamptz,
    ready_at timestamptz,
    finished_at timestamptz,
    initiator text,
    source_system text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_nestloop = on
SET enable_bitmapscan = off
SET jit = off
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT t.task_id, p.plan_id, p.name, p.namespace, p.version, p.step_count::integer,
           tasker._task_state(t.state)::text, t.created_at,
           CASE WHEN isfinite(t.run_at) THEN greatest(t.created_at, t.run_at)
                ELSE t.created_at END,
           t.finished_at, t.initiator, t.source_system
    FROM unnest(task_ids) AS w (task_id)
    CROSS JOIN LATERAL (
        SELECT t.*
        FROM tasker.task AS t
        WHERE t.task_id = w.task_id
        OFFSET 0) AS t
    CROSS JOIN LATERAL (
        SELECT p.*
        FROM tasker.plan AS p
        WHERE p.plan_id = t.plan_id
        OFFSET 0) AS p;
END;
$$;
COMMENT ON FUNCTION tasker._tasks_of(bigint[]) IS
'These tasks and what their plans are called; ready_at: when they could have begun. Private.';

CREATE FUNCTION tasker._steps_of(task_ids bigint[])
RETURNS TABLE (
    task_id bigint,
    step_no smallint,
    state text,
    attempts integer,
    started_at timestamptz,
    finished_at timestamptz)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_nestloop = on
SET enable_bitmapscan = off
SET jit = off
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT w.task_id, s.step_no, tasker._step_state(s.state)::text, s.attempts::integer, s.started_at, s.finished_at
    FROM unnest(task_ids) AS w (task_id)
    CROSS JOIN LATERAL (
        SELECT s.*
        FROM tasker.step AS s
        WHERE s.task_id = w.task_id
        OFFSET 0) AS s;
END;
$$;
COMMENT ON FUNCTION tasker._steps_of(bigint[]) IS
'The steps of these tasks that have left pending. Private.';

CREATE FUNCTION tasker._seconds(duration interval)
RETURNS numeric
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT round(extract(epoch FROM duration), 3) $$;
COMMENT ON FUNCTION tasker._seconds(interval) IS
'A duration in seconds, to the millisecond. Private.';

CREATE FUNCTION tasker._percent(part bigint, whole bigint)
RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT coalesce(round(part * 100.0 / nullif(whole, 0), 2), 0.00) $$;
COMMENT ON FUNCTION tasker._percent(bigint, bigint) IS
'Part of the whole in percent, with two decimals; 0 of nothing. Private.';

CREATE FUNCTION tasker.analytics_metrics(since timestamptz DEFAULT NULL)
RETURNS TABLE (
    active_tasks_count bigint,
    total_namespaces_count bigint,
    unique_task_types_count bigint,
    system_health_score numeric,
    task_throughput bigint,
    completion_count bigint,
    error_count bigint,
    completion_rate numeric,
    error_rate numeric,
    avg_task_duration numeric,
    avg_step_duration numeric,
    step_throughput bigint,
    analysis_period_start timestamptz,
    calculated_at timestamptz)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_nestloop = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    at constant timestamptz := tasker.clock();
    hour_ago constant timestamptz := at - interval '1 hour';
    start constant timestamptz := coalesce(since, hour_ago);
BEGIN
    PERFORM tasker._check_since(since);
    RETURN QUERY
    WITH created AS MATERIALIZED (
        SELECT array_agg(l.task_id) AS task_ids
        FROM tasker._log_since(least(start, hour_ago)) AS l
        WHERE l.step_no = 0
          AND l.from_state IS NULL
    ), task AS MATERIALIZED (
        SELECT t.*,
               t.created_at >= start AS in_period,
               t.created_at >= hour_ago AS in_hour
        FROM tasker._tasks_of((SELECT c.task_ids FROM created AS c)) AS t
    ), task_figure AS (
        SELECT count(*) FILTER (WHERE t.in_period) AS tasks,
               count(*) FILTER (WHERE t.in_period AND t.state = 'complete') AS complete,
               count(*) FILTER (WHERE t.in_period AND t.state = 'error') AS error,
               avg(t.finished_at - t.created_at) FILTER (WHERE t.in_period AND t.state = 'complete') AS duration,
               coalesce(sum(t.step_count) FILTER (WHERE t.in_period), 0) AS steps,
               count(*) FILTER (WHERE t.in_hour AND t.state = 'complete') AS hour_complete,
               count(*) FILTER (WHERE t.in_hour AND t.state IN ('complete', 'error')) AS hour_ended
        FROM task AS t
    ), step_figure AS (
        SELECT avg(s.finished_at - s.started_at) AS duration
        FROM tasker._steps_of(ARRAY(SELECT t.task_id FROM task AS t WHERE t.in_period)) AS s
        WHERE s.state = 'complete'
    ), now_in AS MATERIALIZED (
        SELECT s.plan_id, tasker._task_state(s.state)::text AS state, s.count
        FROM tasker._states_now() AS s
        WHERE s.machine = 'task'
          AND s.count > 0
    ), ever AS (
        SELECT count(DISTINCT p.namespace) AS namespaces,
               count(DISTINCT p.name) AS names
        FROM tasker.plan AS p
        WHERE p.plan_id IN (SELECT n.plan_id FROM now_in AS n)
    )
    SELECT (SELECT coalesce(sum(n.count), 0)::bigint
            FROM now_in AS n
            WHERE n.state IN ('pending', 'in_progress', 'paused')),
           e.namespaces,
           e.names,
           coalesce(round(t.hour_complete::numeric / nullif(t.hour_ended, 0), 3), 1.000),
           t.tasks,
           t.complete,
           t.error,
           tasker._percent(t.complete, t.tasks),
           tasker._percent(t.error, t.tasks),
           coalesce(tasker._seconds(t.duration), 0.000),
           coalesce(tasker._seconds(s.duration), 0.000),
           t.steps::bigint,
           start,
           at
    FROM task_figure AS t
    CROSS JOIN step_figure AS s
    CROSS JOIN ever AS e;
END;
$$;
COMMENT ON FUNCTION tasker.analytics_metrics(timestamptz) IS
'Returns one row. active_tasks_count: tasks that have not ended now; total_namespaces_count, unique_task_types_count: namespaces, names of templates, that have tasks; system_health_score: of the tasks created in the last hour, how many of those complete or in error are complete, 1 where there are none. Of the tasks created since: task_throughput, their number; completion_count and error_count, how many are complete and in error now; completion_rate and error_rate, the same in percent of task_throughput; avg_task_duration, mean seconds from creation to the end of the complete ones; avg_step_duration, mean seconds that the latest attempt of a complete step took; step_throughput, number of their steps. analysis_period_start and calculated_at: from when to when. since: from when; NULL: the last hour. Costs what has happened since. Raises 22023 (since is infinity). Source: design, contract, "Reading"; reference 3.4.';

-- Types, as a column of the result and an argument may have one name.
CREATE TYPE tasker.slow_task AS (
    task_id bigint,
    task_name text,
    namespace_name text,
    version text,
    duration_seconds numeric,
    step_count bigint,
    completed_steps bigint,
    error_steps bigint,
    created_at timestamptz,
    completed_at timestamptz,
    initiator text,
    source_system text
);
COMMENT ON TYPE tasker.slow_task IS 'Row of tasker.slowest_tasks().';
COMMENT ON COLUMN tasker.slow_task.task_id IS 'Task.';
COMMENT ON COLUMN tasker.slow_task.task_name IS 'Name of its template.';
COMMENT ON COLUMN tasker.slow_task.namespace_name IS 'Namespace of its template.';
COMMENT ON COLUMN tasker.slow_task.version IS 'Version of its template.';
COMMENT ON COLUMN tasker.slow_task.duration_seconds IS 'Seconds from created_at to completed_at.';
COMMENT ON COLUMN tasker.slow_task.step_count IS 'Number of its steps.';
COMMENT ON COLUMN tasker.slow_task.completed_steps IS 'How many of them are complete, resolved by hand or skipped.';
COMMENT ON COLUMN tasker.slow_task.error_steps IS 'How many are in error.';
COMMENT ON COLUMN tasker.slow_task.created_at IS 'When it was created.';
COMMENT ON COLUMN tasker.slow_task.completed_at IS 'When it ended; of one that has not, when the latest of its steps did.';
COMMENT ON COLUMN tasker.slow_task.initiator IS 'Who asked for it.';
COMMENT ON COLUMN tasker.slow_task.source_system IS 'System it came from.';

CREATE TYPE tasker.slow_step AS (
    step_id bigint,
    task_id bigint,
    step_name text,
    task_name text,
    namespace_name text,
    version text,
    duration_seconds numeric,
    attempts integer,
    created_at timestamptz,
    completed_at timestamptz,
    retryable boolean,
    step_status text
);
COMMENT ON TYPE tasker.slow_step IS 'Row of tasker.slowest_steps().';
COMMENT ON COLUMN tasker.slow_step.step_id IS 'Step.';
COMMENT ON COLUMN tasker.slow_step.task_id IS 'Its task.';
COMMENT ON COLUMN tasker.slow_step.step_name IS 'Its name.';
COMMENT ON COLUMN tasker.slow_step.task_name IS 'Name of the task''s template.';
COMMENT ON COLUMN tasker.slow_step.namespace_name IS 'Namespace of the task''s template.';
COMMENT ON COLUMN tasker.slow_step.version IS 'Version of the task''s template.';
COMMENT ON COLUMN tasker.slow_step.duration_seconds IS 'Seconds that the attempt took which completed it.';
COMMENT ON COLUMN tasker.slow_step.attempts IS 'Attempts that were made.';
COMMENT ON COLUMN tasker.slow_step.created_at IS 'When its task was created.';
COMMENT ON COLUMN tasker.slow_step.completed_at IS 'When it was complete.';
COMMENT ON COLUMN tasker.slow_step.retryable IS 'Whether a failure may be retried at all.';
COMMENT ON COLUMN tasker.slow_step.step_status IS 'Its state: complete.';

CREATE FUNCTION tasker.slowest_tasks(
    since timestamptz DEFAULT NULL,
    max_rows integer DEFAULT 10,
    namespace text DEFAULT NULL,
    task_name text DEFAULT NULL,
    version text DEFAULT NULL)
RETURNS SETOF tasker.slow_task
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_nestloop = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    start constant timestamptz := coalesce(since, tasker.clock() - interval '1 day');
BEGIN
    PERFORM tasker._check_since(since, max_rows);
    RETURN QUERY
    WITH ended AS MATERIALIZED (
        SELECT l.task_id,
               max(l.at) FILTER (WHERE l.step_no > 0) AS step_at
        FROM tasker._log_since(start) AS l
        WHERE CASE WHEN l.step_no > 0 THEN tasker._step_state(l.to_state)::text ELSE tasker._task_state(l.to_state)::text END
              IN ('complete', 'error')
        GROUP BY l.task_id
    ), slow AS MATERIALIZED (
        SELECT t.*,
               coalesce(t.finished_at, e.step_at) AS completed_at
        FROM ended AS e
        JOIN tasker._tasks_of(ARRAY(SELECT a.task_id FROM ended AS a)) AS t ON t.task_id = e.task_id
        WHERE t.namespace = coalesce(slowest_tasks.namespace, t.namespace)
          AND t.name = coalesce(slowest_tasks.task_name, t.name)
          AND t.version = coalesce(slowest_tasks.version, t.version)
          AND coalesce(t.finished_at, e.step_at) IS NOT NULL
        ORDER BY coalesce(t.finished_at, e.step_at) - t.created_at DESC, t.task_id
        LIMIT max_rows
    ), step AS (
        SELECT s.task_id,
               count(*) FILTER (WHERE s.state IN ('complete', 'resolved_manually', 'skipped')) AS completed,
               count(*) FILTER (WHERE s.state = 'error') AS error
        FROM tasker._steps_of(ARRAY(SELECT a.task_id FROM slow AS a)) AS s
        GROUP BY s.task_id
    )
    SELECT w.task_id, w.name, w.namespace, w.version,
           tasker._seconds(w.completed_at - w.created_at),
           w.step_count::bigint,
           coalesce(s.completed, 0),
           coalesce(s.error, 0),
           w.created_at, w.completed_at, w.initiator, w.source_system
    FROM slow AS w
    LEFT JOIN step AS s ON s.task_id = w.task_id
    ORDER BY w.completed_at - w.created_at DESC, w.task_id;
END;
$$;
COMMENT ON FUNCTION tasker.slowest_tasks(timestamptz, integer, text, text, text) IS
'Returns the tasks that took longest, from creation to end, of those that ended in complete or error since, or a step of which did; the slowest first. since: from when; NULL: the last 24 hours. max_rows: how many, from 1 to 10000. namespace, task_name, version: only tasks of such templates; NULL: any. Costs what has happened since. Raises 22023 (since is infinity, max_rows). Source: design, contract, "Reading"; reference 3.5.';

CREATE FUNCTION tasker.slowest_steps(
    since timestamptz DEFAULT NULL,
    max_rows integer DEFAULT 10,
    namespace text DEFAULT NULL,
    task_name text DEFAULT NULL,
    version text DEFAULT NULL)
RETURNS SETOF tasker.slow_step
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_nestloop = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    start constant timestamptz := coalesce(since, tasker.clock() - interval '1 day');
    is_filtered constant boolean := coalesce(namespace, task_name, version) IS NOT NULL;
BEGIN
    PERFORM tasker._check_since(since, max_rows);
    RETURN QUERY
    WITH ended AS MATERIALIZED (
        SELECT l.task_id, l.step_no, l.attempt, l.at,
               l.at - l.start_at AS duration
        FROM tasker._log_since(start) AS l
        WHERE l.step_no > 0
          AND l.to_state = tasker._state_code('step', 'complete')
          AND l.start_at IS NOT NULL
    ), candidate AS MATERIALIZED (
        -- Their tasks are looked up only where those decide.
        SELECT e.*
        FROM ended AS e
        WHERE is_filtered
        UNION ALL
        (SELECT e.*
         FROM ended AS e
         WHERE NOT is_filtered
         ORDER BY e.duration DESC, e.task_id, e.step_no
         LIMIT max_rows)
    )
    SELECT c.task_id << 14 | c.step_no, c.task_id, p.name, t.name, t.namespace, t.version,
           tasker._seconds(c.duration),
           c.attempt::integer,
           t.created_at, c.at, p.retryable, 'complete'
    FROM candidate AS c
    JOIN tasker._tasks_of(ARRAY(SELECT DISTINCT a.task_id FROM candidate AS a)) AS t ON t.task_id = c.task_id
    JOIN tasker.plan_step AS p ON p.plan_id = t.plan_id
                              AND p.step_no = c.step_no
    WHERE t.namespace = coalesce(slowest_steps.namespace, t.namespace)
      AND t.name = coalesce(slowest_steps.task_name, t.name)
      AND t.version = coalesce(slowest_steps.version, t.version)
    ORDER BY c.duration DESC, c.task_id, c.step_no
    LIMIT max_rows;
END;
$$;
COMMENT ON FUNCTION tasker.slowest_steps(timestamptz, integer, text, text, text) IS
'Returns the steps whose last attempt took longest, of those that were completed since; the slowest first. Waiting, and attempts that failed, are not in it: tasker.bottlenecks() has those. since: from when; NULL: the last 24 hours. max_rows: how many, from 1 to 10000. namespace, task_name, version: only steps of such templates; NULL: any. Costs what has happened since. Raises 22023 (since is infinity, max_rows). Source: design, contract, "Reading"; reference 3.6.';
