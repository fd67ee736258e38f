-- What the REST API answers about health, performance and workers.

CREATE FUNCTION tasker._rest_time(at timestamptz)
RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT to_jsonb(at AT TIME ZONE 'UTC') #>> '{}' || 'Z' $$;
COMMENT ON FUNCTION tasker._rest_time(timestamptz) IS
'A time in UTC, as ISO 8601 has it. Private.';

CREATE FUNCTION tasker._rest_health_status()
RETURNS jsonb
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH begun AS MATERIALIZED (
        SELECT clock_timestamp() AS at
    ), health AS MATERIALIZED (
        SELECT h.*,
               round(h.connections * 100.0 / nullif(h.max_connections, 0), 1) AS utilization
        FROM tasker.system_health() AS h
    ), hour AS MATERIALIZED (
        SELECT *
        FROM tasker.analytics_metrics()
    ), engine AS MATERIALIZED (
        SELECT tasker.health_check() AS check
    ), trouble AS (
        SELECT 1 AS place, 'No step is run: ' || (e.check #>> '{engine,why}') AS problem
        FROM engine AS e
        WHERE e.check ->> 'status' = 'stopped'
        UNION ALL
        SELECT 2, format('%s %% of the server''s connections are in use.', h.utilization)
        FROM health AS h
        WHERE h.utilization > 90
        UNION ALL
        SELECT 3, format('%s %% of the last hour''s tasks are in error.', m.error_rate)
        FROM hour AS m
        WHERE m.error_rate > 50
    ), judgement AS MATERIALIZED (
        SELECT coalesce(jsonb_agg(t.problem ORDER BY t.place), '[]') AS problems
        FROM trouble AS t
    )
    SELECT jsonb_build_object(
        'healthy', j.problems = '[]',
        'status', CASE WHEN j.problems <> '[]' THEN 'unhealthy' ELSE e.check ->> 'status' END,
        'problems', j.problems || (e.check -> 'problems'),
        'metrics', jsonb_build_object(
            'tasks', jsonb_build_object(
                'total', h.total_tasks, 'pending', h.pending_tasks, 'in_progress', h.in_progress_tasks, 'paused', h.paused_tasks,
                'complete', h.complete_tasks, 'error', h.error_tasks, 'cancelled', h.cancelled_tasks,
                'resolved_manually', h.resolved_manually_tasks),
            'steps', jsonb_build_object(
                'total', h.total_steps, 'pending', h.pending_steps, 'in_progress', h.in_progress_steps,
                'waiting_for_retry', h.waiting_for_retry_steps, 'complete', h.complete_steps, 'error', h.error_steps,
                'cancelled', h.cancelled_steps, 'resolved_manually', h.resolved_manually_steps, 'skipped', h.skipped_steps),
            'retries', jsonb_build_object(
                'retryable_errors', h.retryable_error_steps, 'exhausted_retries', h.exhausted_retry_steps,
                'in_backoff', h.in_backoff_steps)),
        'database', jsonb_build_object(
            'active_connections', h.active_connections, 'connections', h.connections,
            'max_connections', h.max_connections, 'connection_utilization', h.utilization),
        'performance_analytics', jsonb_build_object(
            'trends', jsonb_build_object(
                'task_creation_rate', m.task_throughput, 'completion_rate', m.completion_rate,
                'error_rate', m.error_rate, 'avg_step_duration', m.avg_step_duration)),
        'cached', false,
        'timestamp', tasker._rest_time(tasker.clock()),
        'generation_duration', round(extract(epoch FROM clock_timestamp() - b.at), 6))
    FROM begun AS b
    CROSS JOIN health AS h
    CROSS JOIN hour AS m
    CROSS JOIN engine AS e
    CROSS JOIN judgement AS j;
$$;
COMMENT ON FUNCTION tasker._rest_health_status() IS
'Answer of GET /health/status: healthy says whether it is 200 or 503. Rates are of the last hour. Source: reference 9.1. Private.';

CREATE FUNCTION tasker._rest_durations(since timestamptz)
RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH ended AS (
        SELECT extract(epoch FROM l.at - l.start_at)::double precision AS seconds
        FROM tasker._log_since(since) AS l
        WHERE l.step_no > 0
          AND l.to_state = tasker._state_code('step', 'complete')
    ), figure AS (
        SELECT count(*) AS count,
               percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY e.seconds) AS percentiles,
               count(*) FILTER (WHERE e.seconds <= 0.1) AS fast,
               count(*) FILTER (WHERE e.seconds > 0.1 AND e.seconds <= 1) AS moderate,
               count(*) FILTER (WHERE e.seconds > 1 AND e.seconds <= 5) AS slow,
               count(*) FILTER (WHERE e.seconds > 5) AS very_slow
        FROM ended AS e
    )
    SELECT jsonb_build_object(
        'count', f.count,
        'percentiles', jsonb_build_object(
            'p50', round(f.percentiles[1]::numeric, 6),
            'p95', round(f.percentiles[2]::numeric, 6),
            'p99', round(f.percentiles[3]::numeric, 6)),
        'distribution', jsonb_build_object(
            'fast', f.fast, 'moderate', f.moderate, 'slow', f.slow, 'very_slow', f.very_slow))
    FROM figure AS f;
$$;
COMMENT ON FUNCTION tasker._rest_durations(timestamptz) IS
'How long the attempts took that completed a step since, in seconds: number, percentiles, and how many were fast (up to 0.1 s), moderate (1 s), slow (5 s) or slower. Private.';

CREATE FUNCTION tasker._rest_performance()
RETURNS jsonb
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH period AS MATERIALIZED (
        SELECT p.name, p.hours, m.*
        FROM (VALUES ('last_hour', 1), ('last_4_hours', 4), ('last_24_hours', 24)) AS p (name, hours)
        CROSS JOIN LATERAL tasker.analytics_metrics(tasker.clock() - p.hours * interval '1 hour') AS m
    )
    SELECT jsonb_build_object(
        'system_overview', (
            SELECT jsonb_build_object(
                'active_tasks', p.active_tasks_count,
                'total_namespaces', p.total_namespaces_count,
                'unique_task_types', p.unique_task_types_count,
                'system_health_score', p.system_health_score)
            FROM period AS p
            WHERE p.hours = 1),
        'performance_trends', jsonb_object_agg(q.name, jsonb_build_object(
            'task_throughput', q.task_throughput,
            'completion_rate', q.completion_rate,
            'error_rate', q.error_rate,
            'avg_task_duration', q.avg_task_duration,
            'avg_step_duration', q.avg_step_duration,
            'step_throughput', q.step_throughput)),
        'telemetry_insights', jsonb_build_object(
            'step_durations', tasker._rest_durations(tasker.clock() - interval '1 hour')),
        'generated_at', tasker._rest_time(tasker.clock()))
    FROM period AS q;
$$;
COMMENT ON FUNCTION tasker._rest_performance() IS
'Answer of GET /analytics/performance. Source: reference 9.1. Private.';

CREATE FUNCTION tasker._rest_bottlenecks(
    namespace text DEFAULT NULL,
    name text DEFAULT NULL,
    version text DEFAULT NULL,
    period integer DEFAULT 24)
RETURNS jsonb
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    since timestamptz;
BEGIN
    IF period IS NULL OR period NOT BETWEEN 1 AND 8760 THEN
        RAISE EXCEPTION 'period must be from 1 to 8760 hours'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('It is %s.', coalesce(period::text, 'NULL')),
                  HINT = 'Leave it out for a day.';
    END IF;
    since := tasker.clock() - period * interval '1 hour';
    RETURN (
        WITH loss AS MATERIALIZED (
            SELECT b.*, row_number() OVER () AS place
            FROM tasker.bottlenecks(since, namespace, name, version) AS b
        ), task AS MATERIALIZED (
            SELECT t.*
            FROM tasker._tasks_of(ARRAY(
                SELECT DISTINCT l.task_id
                FROM tasker._log_since(since) AS l)) AS t
            WHERE t.namespace = coalesce(_rest_bottlenecks.namespace, t.namespace)
              AND t.name = coalesce(_rest_bottlenecks.name, t.name)
              AND t.version = coalesce(_rest_bottlenecks.version, t.version)
        ), duration AS (
            SELECT extract(epoch FROM t.finished_at - t.created_at)::double precision AS seconds
            FROM task AS t
            WHERE t.finished_at >= since
        ), spread AS (
            SELECT percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY d.seconds) AS percentiles,
                   count(*) AS count,
                   count(*) FILTER (WHERE d.seconds <= 1) AS fast,
                   count(*) FILTER (WHERE d.seconds > 1 AND d.seconds <= 60) AS moderate,
                   count(*) FILTER (WHERE d.seconds > 60) AS slow
            FROM duration AS d
        )
        SELECT jsonb_build_object(
            'scope_summary', jsonb_build_object(
                'total_tasks', (SELECT count(*) FROM task AS t),
                'unique_task_types', (SELECT count(DISTINCT (t.namespace, t.name)) FROM task AS t),
                'time_span_hours', period),
            'bottleneck_analysis', jsonb_build_object(
                'slowest_tasks', (
                    SELECT coalesce(jsonb_agg(to_jsonb(s) ORDER BY s.duration_seconds DESC, s.task_id), '[]')
                    FROM tasker.slowest_tasks(since, 10, namespace, name, version) AS s),
                'slowest_steps', (
                    SELECT coalesce(jsonb_agg(to_jsonb(s) ORDER BY s.duration_seconds DESC, s.step_id), '[]')
                    FROM tasker.slowest_steps(since, 10, namespace, name, version) AS s),
                'error_patterns', (
                    SELECT coalesce(jsonb_agg(to_jsonb(e) ORDER BY e.count DESC, e.sqlstate, e.message), '[]')
                    FROM (
                        SELECT p.sqlstate, p.message, sum(p.count) AS count
                        FROM loss AS l
                        CROSS JOIN LATERAL jsonb_to_recordset(l.error_patterns) AS p (sqlstate text, message text, count bigint)
                        GROUP BY p.sqlstate, p.message
                        ORDER BY 3 DESC, 1, 2
                        LIMIT 10) AS e),
                'dependency_bottlenecks', (
                    SELECT coalesce(jsonb_agg(to_jsonb(l) - 'place' - 'error_patterns' ORDER BY l.place), '[]')
                    FROM loss AS l
                    WHERE l.place <= 10)),
            'performance_distribution', jsonb_build_object(
                'count', s.count,
                'percentiles', jsonb_build_object(
                    'p50', round(s.percentiles[1]::numeric, 6),
                    'p95', round(s.percentiles[2]::numeric, 6),
                    'p99', round(s.percentiles[3]::numeric, 6)),
                'distribution', jsonb_build_object('fast', s.fast, 'moderate', s.moderate, 'slow', s.slow)),
            'recommendations', (
                SELECT coalesce(jsonb_agg(format('%s/%s, step %s: %s', l.namespace, l.task_name, l.step_name, l.recommendation) ORDER BY l.place), '[]')
                FROM loss AS l
                WHERE l.recommendation IS NOT NULL
                  AND l.place <= 20),
            'scope', jsonb_build_object('namespace', namespace, 'name', name, 'version', version),
            'analysis_period_hours', period,
            'generated_at', tasker._rest_time(tasker.clock()))
        FROM spread AS s);
END;
$$;
COMMENT ON FUNCTION tasker._rest_bottlenecks(text, text, text, integer) IS
'Answer of GET /analytics/bottlenecks; period in hours. Of tasks: fast up to a second, moderate up to a minute. Raises 22023 (period). Source: reference 9.1. Private.';

CREATE FUNCTION tasker._rest_workers()
RETURNS jsonb
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT jsonb_build_object(
        'workers', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                       'worker', w.claimed_by,
                       'steps', w.steps,
                       'oldest_claim_at', tasker._rest_time(w.oldest),
                       'next_lease_end', tasker._rest_time(w.next)) ORDER BY w.claimed_by), '[]')
            FROM (
                SELECT s.claimed_by, count(*) AS steps, min(s.started_at) AS oldest, min(s.lease_until) AS next
                FROM (
                    SELECT q.task_id, q.step_no
                    FROM tasker.queue AS q
                    WHERE q.lane = -1
                      AND q.due_lane IS NULL
                      AND q.step_no > 0
                    LIMIT 10000) AS q
                JOIN tasker.step AS s ON s.task_id = q.task_id
                                     AND s.step_no = q.step_no
                WHERE s.claimed_by IS NOT NULL
                GROUP BY s.claimed_by) AS w),
        'processes', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                       'kind', w.kind,
                       'pid', w.pid,
                       'started_at', tasker._rest_time(w.started_at),
                       'idle', w.idle,
                       'task_id', t.task_id,
                       'step_id', t.task_id << 14 | nullif(w.step_no, 0),
                       'since', tasker._rest_time(w.since)) ORDER BY w.kind, w.number), '[]')
            FROM tasker._processes() AS w
            -- Of a task that the caller may not see, not even the id.
            LEFT JOIN tasker.task AS t ON t.task_id = w.task_id),
        'queues', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                       'queue', q.queue,
                       'namespace', q.namespace,
                       'handler', q.handler,
                       'waiting', q.waiting,
                       'due_now', q.due_now,
                       'oldest_due', tasker._rest_time(q.oldest_due),
                       'cut', q.is_cut) ORDER BY q.queue, q.namespace, q.handler), '[]')
            FROM tasker._queue_lengths() AS q),
        'counted_up_to', 10000,
        'generated_at', tasker._rest_time(tasker.clock()));
$$;
COMMENT ON FUNCTION tasker._rest_workers() IS
'Answer of GET /workers: workers outside with what they have claimed, the engine''s processes, and what waits in each queue, looking at counted_up_to rows of each at the most; cut: there may be more. Source: reference 9.1. Private.';
