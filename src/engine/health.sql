-- What the engine's processes are doing, and whether anything is wrong.

CREATE FUNCTION tasker._workers(
    OUT kind text,
    OUT number integer,
    OUT pid integer,
    OUT started_at timestamptz,
    OUT idle boolean,
    OUT wakes_at timestamptz,
    OUT task_id bigint,
    OUT step_no smallint,
    OUT since timestamptz)
RETURNS SETOF record
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_workers';
COMMENT ON FUNCTION tasker._workers() IS
'The launcher, and this database''s notifier, deliverer and executors, as shared memory has them; no row where the library was not preloaded. wakes_at: when an idle one wakes up by itself. Private.';

CREATE FUNCTION tasker._is_preloaded()
RETURNS boolean
LANGUAGE C STABLE
AS 'MODULE_PATHNAME', 'tasker_is_preloaded';
COMMENT ON FUNCTION tasker._is_preloaded() IS
'Whether the library was loaded by shared_preload_libraries, without which it has neither shared memory nor workers. Private.';

CREATE FUNCTION tasker._health_problems()
RETURNS TABLE (severity integer, problem text)
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    -- 2: nothing runs, and the first of these says why; 1: something is wrong.
    SELECT 2, 'The library is not preloaded, so no worker runs. Add tasker to shared_preload_libraries and restart the server.'
    WHERE NOT tasker._is_preloaded()
    UNION ALL
    SELECT 2, 'The server is a standby: the engine runs on the primary.'
    WHERE pg_is_in_recovery()
    UNION ALL
    SELECT 2, 'This database was restored or copied from another one, whose engine may run the same tasks. SELECT tasker.activate() lets the engine run here.'
    WHERE tasker._engine_state() = 'restored'
    UNION ALL
    SELECT 2, 'The engine was deactivated. SELECT tasker.activate() lets it run.'
    WHERE tasker._engine_state() = 'deactivated'
    UNION ALL
    SELECT 2, 'tasker.executors is 0.'
    WHERE current_setting('tasker.executors')::integer = 0
    UNION ALL
    SELECT 2, 'No executor runs. The server log says why; where no worker slot is free, raise max_worker_processes (now '
              || current_setting('max_worker_processes') || ').'
    WHERE current_setting('tasker.executors')::integer > 0
      AND NOT EXISTS (SELECT FROM tasker._workers() AS w WHERE w.kind = 'executor')
    UNION ALL
    SELECT 1, format('%s of %s executors run. The server log says why; where no worker slot is free, raise max_worker_processes (now %s).',
                     count(*), current_setting('tasker.executors'), current_setting('max_worker_processes'))
    FROM tasker._workers() AS w
    WHERE w.kind = 'executor'
    HAVING count(*) BETWEEN 1 AND current_setting('tasker.executors')::integer - 1
    UNION ALL
    SELECT 1, 'The launcher does not run: workers that end are not started again.'
    WHERE EXISTS (SELECT FROM tasker._workers())
      AND NOT EXISTS (SELECT FROM tasker._workers() AS w WHERE w.kind = 'launcher')
    UNION ALL
    SELECT 1, 'The notifier does not run: nothing is announced on tasker_events and tasker_steps.'
    WHERE EXISTS (SELECT FROM tasker._workers())
      AND NOT EXISTS (SELECT FROM tasker._workers() AS w WHERE w.kind = 'notifier')
    UNION ALL
    SELECT 1, 'The deliverer does not run: subscribers with a handler get no events. The server log says why; where no worker slot is free, raise max_worker_processes (now '
              || current_setting('max_worker_processes') || ').'
    WHERE EXISTS (SELECT FROM tasker._workers())
      AND tasker._engine_state() = 'active'
      AND EXISTS (SELECT FROM tasker.subscriber AS s WHERE s.handler IS NOT NULL)
      AND NOT EXISTS (SELECT FROM tasker._workers() AS w WHERE w.kind = 'deliverer')
    UNION ALL
    SELECT 1, format('Subscriber "%s" gets no new events: %s wait for its handler, which fails. tasker.subscriber_failure says at what.',
                     s.name, tasker._max_failures())
    FROM tasker.subscriber AS s
    WHERE s.handler IS NOT NULL
      AND EXISTS (
          SELECT
          FROM tasker.subscriber_failure AS f
          WHERE f.subscriber_id = s.subscriber_id
            AND f.dead_at IS NULL
          OFFSET tasker._max_failures() - 1
          LIMIT 1)
    UNION ALL
    SELECT 1, p.problem
    FROM tasker._registry_problems() AS p;
$$;
COMMENT ON FUNCTION tasker._health_problems() IS
'What is wrong with the engine of this database. Severity 2: nothing runs; 1: something does not. Private.';

CREATE FUNCTION tasker._health_check()
RETURNS jsonb
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    WITH problem AS MATERIALIZED (
        SELECT p.severity, p.problem, row_number() OVER () AS place
        FROM tasker._health_problems() AS p
    ), worker AS MATERIALIZED (
        SELECT *
        FROM tasker._workers()
    ), judgement AS (
        SELECT max(p.severity) AS severity,
               (SELECT f.problem
                FROM problem AS f
                WHERE f.severity = 2
                ORDER BY f.place
                LIMIT 1) AS why
        FROM problem AS p
    )
    SELECT jsonb_build_object(
        'healthy', j.severity IS NULL,
        'status', CASE j.severity WHEN 2 THEN 'stopped' WHEN 1 THEN 'degraded' ELSE 'healthy' END,
        'registry_size', (SELECT count(*) FROM tasker.handler),
        'thread_safe', true,
        'engine', jsonb_strip_nulls(jsonb_build_object(
            'state', CASE WHEN j.why IS NULL THEN 'running' ELSE 'stopped' END,
            'why', j.why)),
        'executors', coalesce((
            SELECT jsonb_agg(jsonb_build_object(
                       'pid', w.pid,
                       'idle', w.idle,
                       'task_id', w.task_id,
                       'step_id', w.task_id << 14 | w.step_no,
                       'since', w.since) ORDER BY w.number)
            FROM worker AS w
            WHERE w.kind = 'executor'), '[]'),
        'notifier', (
            SELECT jsonb_build_object('pid', w.pid, 'since', w.started_at)
            FROM worker AS w
            WHERE w.kind = 'notifier'),
        'deliverer', (
            SELECT jsonb_build_object(
                       'pid', w.pid,
                       'idle', w.idle,
                       'task_id', w.task_id,
                       'since', w.since,
                       'failing', (
                           SELECT count(*)
                           FROM tasker.subscriber_failure AS f
                           WHERE f.dead_at IS NULL),
                       'dead', (
                           SELECT count(*)
                           FROM tasker.subscriber_failure AS f
                           WHERE f.dead_at IS NOT NULL))
            FROM worker AS w
            WHERE w.kind = 'deliverer'),
        'launcher', (
            SELECT w.pid
            FROM worker AS w
            WHERE w.kind = 'launcher'),
        'problems', coalesce((
            SELECT jsonb_agg(p.problem ORDER BY p.place)
            FROM problem AS p), '[]'),
        'missing_secrets', coalesce((
            SELECT jsonb_agg(m.name ORDER BY m.name COLLATE "C")
            FROM (SELECT DISTINCT s.name FROM tasker._missing_secrets() AS s) AS m), '[]'))
        -- Ids and names are those of all namespaces.
        - CASE WHEN tasker._caller_may('health_status:index', '*') THEN '{}'::text[]
               ELSE '{registry_size,executors,notifier,deliverer,launcher,problems,missing_secrets}' END
    FROM judgement AS j;
$$;
COMMENT ON FUNCTION tasker._health_check() IS
'What tasker.health_check() does, for its caller. Private.';

CREATE FUNCTION tasker.health_check()
RETURNS jsonb
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.health_check() IS
'Returns how the engine of this database is, as jsonb: healthy; status: healthy, degraded, or stopped where no step is run; registry_size: number of registered handlers; thread_safe: always true; engine: state and, where it is stopped, why; executors: pid, whether idle, task_id and step_id at work, since when; notifier; deliverer, null where no subscriber has a handler: pid, whether idle, the task_id whose event its handler has, since when, failing: events that wait for a handler that failed, dead: events given up; launcher; problems: what is wrong, in sentences that say what to do; missing_secrets: names of the secrets that steps of registered definitions need and that are not set. Where access is enforced only healthy, status and engine are for those who lack health_status:index in all namespaces. Raises nothing. Source: design, contract; reference 2.6.';
