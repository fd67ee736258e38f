-- How many tasks and steps are in which state, and the server's connections.

CREATE FUNCTION tasker._connections(
    OUT active bigint,
    OUT used bigint,
    OUT most bigint)
RETURNS record
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT count(*) FILTER (WHERE a.datname = current_database() AND a.state = 'active'),
           count(*),
           current_setting('max_connections')::bigint
    FROM pg_stat_activity AS a
    WHERE a.backend_type = 'client backend';
$$;
COMMENT ON FUNCTION tasker._connections() IS
'Connections of clients: those of this database that run something, those of the whole server, and how many it takes. With the owner''s rights, as others do not see what a session does. Private.';

CREATE FUNCTION tasker._processes()
RETURNS TABLE (
    kind text,
    number integer,
    pid integer,
    started_at timestamptz,
    idle boolean,
    task_id bigint,
    step_no smallint,
    since timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER ROWS 10
SET search_path = pg_catalog, pg_temp
AS $$
    -- Whose task it is nobody knows here, so where access is enforced none is named.
    SELECT w.kind, w.number, w.pid, w.started_at, w.idle,
           CASE WHEN NOT tasker._is_enforced() THEN w.task_id END,
           CASE WHEN NOT tasker._is_enforced() THEN w.step_no END,
           w.since
    FROM tasker._workers() AS w;
$$;
COMMENT ON FUNCTION tasker._processes() IS
'What tasker._workers() says of the engine''s processes, with the owner''s rights; their tasks only where access is not enforced. Private.';

CREATE FUNCTION tasker.system_health(
    OUT total_tasks bigint,
    OUT pending_tasks bigint,
    OUT in_progress_tasks bigint,
    OUT paused_tasks bigint,
    OUT complete_tasks bigint,
    OUT error_tasks bigint,
    OUT cancelled_tasks bigint,
    OUT resolved_manually_tasks bigint,
    OUT total_steps bigint,
    OUT pending_steps bigint,
    OUT in_progress_steps bigint,
    OUT waiting_for_retry_steps bigint,
    OUT complete_steps bigint,
    OUT error_steps bigint,
    OUT cancelled_steps bigint,
    OUT resolved_manually_steps bigint,
    OUT skipped_steps bigint,
    OUT retryable_error_steps bigint,
    OUT exhausted_retry_steps bigint,
    OUT in_backoff_steps bigint,
    OUT active_connections bigint,
    OUT connections bigint,
    OUT max_connections bigint)
RETURNS record
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH now_in AS (
        SELECT s.machine,
               CASE s.machine WHEN 'task' THEN tasker._task_state(s.state)::text ELSE tasker._step_state(s.state)::text END AS state,
               s.count
        FROM tasker._states_now() AS s
    ), counted AS (
        SELECT coalesce(sum(n.count) FILTER (WHERE n.machine = 'task'), 0),
               coalesce(sum(n.count) FILTER (WHERE n.machine = 'task' AND n.state = 'pending'), 0),
               coalesce(sum(n.count) FILTER (WHERE n.machine = 'task' AND n.state = 'in_progress'), 0),
               coalesce(sum(n.count) FILTER (WHERE n.machine = 'task' AND n.state = 'paused'), 0),
               coalesce(sum(n.count) FILTER (WHERE n.machine = 'task' AND n.state = 'complete'), 0),
               coalesce(sum(n.count) FILTER (WHERE n.machine = 'task' AND n.state = 'error'), 0),
               coalesce(sum(n.count) FILTER (WHERE n.machine = 'task' AND n.state = 'cancelled'), 0),
               coalesce(sum(n.count) FILTER (WHERE n.machine = 'task' AND n.state = 'resolved_manually'), 0),
               coalesce(sum(n.count) FILTER (WHERE n.machine = 'step'), 0),
               coalesce(sum(n.count) FILTER (WHERE n.machine = 'step' AND n.state = 'pending'), 0),
               coalesce(sum(n.count) FILTER (WHERE n.machine = 'step' AND n.state = 'in_progress'), 0),
               coalesce(sum(n.count) FILTER (WHERE n.machine = 'step' AND n.state = 'waiting_for_retry'), 0) AS waiting,
               coalesce(sum(n.count) FILTER (WHERE n.machine = 'step' AND n.state = 'complete'), 0),
               coalesce(sum(n.count) FILTER (WHERE n.machine = 'step' AND n.state = 'error'), 0) AS error,
               coalesce(sum(n.count) FILTER (WHERE n.machine = 'step' AND n.state = 'cancelled'), 0),
               coalesce(sum(n.count) FILTER (WHERE n.machine = 'step' AND n.state = 'resolved_manually'), 0),
               coalesce(sum(n.count) FILTER (WHERE n.machine = 'step' AND n.state = 'skipped'), 0)
        FROM now_in AS n
    )
    SELECT c.*,
           c.waiting,
           c.error,
           (SELECT count(*)
            FROM tasker.queue AS q
            JOIN tasker.step AS s ON s.task_id = q.task_id
                                 AND s.step_no = q.step_no
            WHERE q.lane = -1
              AND q.due_lane IS NOT NULL
              AND q.due > tasker.clock()
              AND s.state = tasker._state_code('step', 'waiting_for_retry')),
           n.active,
           n.used,
           n.most
    FROM counted AS c
    CROSS JOIN tasker._connections() AS n;
$$;
COMMENT ON FUNCTION tasker.system_health() IS
'Returns one row: how many tasks and how many steps there are and are in each state now, those counted that have not started; retryable_error_steps (failed, and another attempt follows by itself: waiting_for_retry), exhausted_retry_steps (in error), in_backoff_steps (wait for a retry that is not due yet); active_connections of clients to this database, connections of clients to the server, max_connections. Of the namespaces that the caller may see. Exact, in the caller''s snapshot; costs what has happened in the last seconds and what waits for a retry, not what is finished. Raises nothing. Source: design, contract, "Reading"; reference 3.7.';
