-- Where tasks lose their time.

CREATE TYPE tasker.bottleneck AS (
    namespace text,
    task_name text,
    version text,
    step_name text,
    runs bigint,
    retries bigint,
    failures bigint,
    mean_duration numeric,
    p50_duration numeric,
    p95_duration numeric,
    max_duration numeric,
    mean_wait numeric,
    p95_wait numeric,
    total_seconds numeric,
    critical_seconds numeric,
    critical_share numeric,
    error_patterns jsonb,
    recommendation text
);
COMMENT ON TYPE tasker.bottleneck IS 'Row of tasker.bottlenecks(): a step of a template. Durations and waits are in seconds.';
COMMENT ON COLUMN tasker.bottleneck.namespace IS 'Namespace of the template.';
COMMENT ON COLUMN tasker.bottleneck.task_name IS 'Name of the template.';
COMMENT ON COLUMN tasker.bottleneck.version IS 'Version of the template.';
COMMENT ON COLUMN tasker.bottleneck.step_name IS 'Step.';
COMMENT ON COLUMN tasker.bottleneck.runs IS 'Attempts that ended.';
COMMENT ON COLUMN tasker.bottleneck.retries IS 'Failures that another attempt follows by itself.';
COMMENT ON COLUMN tasker.bottleneck.failures IS 'Failures for good.';
COMMENT ON COLUMN tasker.bottleneck.mean_duration IS 'Mean time of an attempt; NULL: none ended.';
COMMENT ON COLUMN tasker.bottleneck.p50_duration IS 'Half of the attempts took no longer.';
COMMENT ON COLUMN tasker.bottleneck.p95_duration IS '95 % of the attempts took no longer.';
COMMENT ON COLUMN tasker.bottleneck.max_duration IS 'Longest attempt.';
COMMENT ON COLUMN tasker.bottleneck.mean_wait IS 'Mean time from when the step was ready to its first attempt; NULL: none was made.';
COMMENT ON COLUMN tasker.bottleneck.p95_wait IS '95 % waited no longer.';
COMMENT ON COLUMN tasker.bottleneck.total_seconds IS 'All attempts together.';
COMMENT ON COLUMN tasker.bottleneck.critical_seconds IS 'Time that tasks waited for this step and for nothing else: from the end of the last step before it to its own, where it lies on the path that decided when the task ended. NULL: no task ended.';
COMMENT ON COLUMN tasker.bottleneck.critical_share IS 'The same in percent of that of all steps of the template.';
COMMENT ON COLUMN tasker.bottleneck.error_patterns IS 'The most frequent errors, up to five: sqlstate, message with its numbers replaced by #, count.';
COMMENT ON COLUMN tasker.bottleneck.recommendation IS 'What the figures suggest; NULL: nothing.';

CREATE FUNCTION tasker._message_class(message text)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT regexp_replace(left(message, 200), '[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}|[0-9]+', '#', 'g');
$$;
COMMENT ON FUNCTION tasker._message_class(text) IS
'A message without its numbers and UUIDs: what messages of one kind have in common. Private.';

CREATE FUNCTION tasker._critical_most()
RETURNS integer
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS 'BEGIN RETURN 5000; END;';
COMMENT ON FUNCTION tasker._critical_most() IS
'Number of tasks of which critical paths are followed at the most: those that ended last. Private.';

-- From the step that ended last back over the parent that ended last.  What lies
-- between the ends of two neighbours is what the task waited for the later one;
-- together that is the time from when the task could begin to its last step.
CREATE FUNCTION tasker._critical_times(task_ids bigint[])
RETURNS TABLE (task_id bigint, plan_id integer, step_no smallint, duration interval)
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
    WITH RECURSIVE path AS (
        SELECT t.task_id, t.plan_id, t.ready_at, l.step_no, l.finished_at, l.parents
        FROM tasker._tasks_of(task_ids) AS t
        CROSS JOIN LATERAL (
            SELECT s.step_no, s.finished_at, p.parents
            FROM tasker.step AS s
            JOIN tasker.plan_step AS p ON p.plan_id = t.plan_id
                                      AND p.step_no = s.step_no
            WHERE s.task_id = t.task_id
              AND s.finished_at IS NOT NULL
            ORDER BY s.finished_at DESC, p.level DESC, s.step_no
            LIMIT 1) AS l
        UNION ALL
        SELECT b.task_id, b.plan_id, b.ready_at, l.step_no, l.finished_at, l.parents
        FROM path AS b
        CROSS JOIN LATERAL (
            SELECT s.step_no, s.finished_at, p.parents
            FROM unnest(b.parents) AS u (step_no)
            JOIN tasker.step AS s ON s.task_id = b.task_id
                                 AND s.step_no = u.step_no
            JOIN tasker.plan_step AS p ON p.plan_id = b.plan_id
                                      AND p.step_no = u.step_no
            WHERE s.finished_at IS NOT NULL
            ORDER BY s.finished_at DESC, p.level DESC, s.step_no
            LIMIT 1) AS l
    )
    SELECT p.task_id, p.plan_id, p.step_no,
           greatest(p.finished_at - coalesce(lag(p.finished_at) OVER (PARTITION BY p.task_id ORDER BY p.finished_at, s.level),
                                             p.ready_at), interval '0')
    FROM path AS p
    JOIN tasker.plan_step AS s ON s.plan_id = p.plan_id
                              AND s.step_no = p.step_no;
END;
$$;
COMMENT ON FUNCTION tasker._critical_times(bigint[]) IS
'Of each of these tasks the steps on the path that decided when it ended, with the time that it waited for each. Private.';

CREATE FUNCTION tasker._recommendation(figures tasker.bottleneck)
RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT nullif(concat_ws(' ',
        CASE WHEN f.retries + f.failures >= greatest(f.runs * 0.05, 1) THEN
            format('%s of %s attempts failed%s.', f.retries + f.failures, greatest(f.runs, f.retries + f.failures),
                   ', most of them so: ' || (f.error_patterns -> 0 ->> 'message')) END,
        CASE WHEN f.mean_wait >= 1 AND f.mean_wait > f.mean_duration THEN
            'It waits longer than it runs: more executors, or workers of its handler, would start it sooner.' END,
        CASE WHEN f.p95_duration >= 1 AND f.p95_duration > 5 * f.p50_duration THEN
            'One attempt in twenty takes more than five times as long as is usual: a timeout may pay.' END,
        CASE WHEN f.critical_share >= 50 AND f.critical_seconds >= 1 THEN
            format('Its tasks wait for it %s %% of their time: make it faster, or let it begin earlier.', round(f.critical_share)) END), '')
    FROM (SELECT figures.*) AS f;
$$;
COMMENT ON FUNCTION tasker._recommendation(tasker.bottleneck) IS
'What the figures of a step suggest; NULL: nothing. Private.';

CREATE FUNCTION tasker.bottlenecks(
    since timestamptz DEFAULT NULL,
    namespace text DEFAULT NULL,
    name text DEFAULT NULL,
    version text DEFAULT NULL)
RETURNS SETOF tasker.bottleneck
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_nestloop = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    start constant timestamptz := coalesce(since, tasker.clock() - interval '1 day');
    in_progress constant smallint := tasker._state_code('step', 'in_progress');
    waiting constant smallint := tasker._state_code('step', 'waiting_for_retry');
    error constant smallint := tasker._state_code('step', 'error');
BEGIN
    PERFORM tasker._check_since(since);
    RETURN QUERY
    WITH move AS MATERIALIZED (
        SELECT l.task_id, l.step_no, l.to_state, l.attempt, l.at, l.metadata,
               CASE WHEN l.start_id IS NOT NULL OR l.from_state = in_progress THEN l.start_at END AS start_at,
               l.start_id IS NOT NULL OR l.to_state = in_progress AND l.at >= start AS began
        FROM tasker._log_since(start) AS l
        WHERE l.step_no > 0
           OR tasker._task_state(l.to_state)::text IN ('complete', 'error')
    ), task AS MATERIALIZED (
        SELECT t.task_id, t.plan_id, t.namespace, t.name, t.version, t.ready_at, t.finished_at
        FROM tasker._tasks_of(ARRAY(SELECT DISTINCT m.task_id FROM move AS m)) AS t
        WHERE t.namespace = coalesce(bottlenecks.namespace, t.namespace)
          AND t.name = coalesce(bottlenecks.name, t.name)
          AND t.version = coalesce(bottlenecks.version, t.version)
    ), step_move AS MATERIALIZED (
        SELECT t.plan_id, t.ready_at, m.*
        FROM move AS m
        JOIN task AS t ON t.task_id = m.task_id
        WHERE m.step_no > 0
    ), run AS (
        SELECT m.plan_id, m.step_no,
               count(m.start_at) AS runs,
               count(*) FILTER (WHERE m.to_state = waiting) AS retries,
               count(*) FILTER (WHERE m.to_state = error) AS failures
        FROM step_move AS m
        GROUP BY 1, 2
    ), template_step AS MATERIALIZED (
        -- Plans of one version, replaced or of several environments, are one template to people.
        SELECT p.namespace, p.name AS task_name, p.version, s.name AS step_name, r.plan_id, r.step_no, s.parents,
               r.runs, r.retries, r.failures
        FROM run AS r
        JOIN tasker.plan AS p ON p.plan_id = r.plan_id
        JOIN tasker.plan_step AS s ON s.plan_id = r.plan_id
                                  AND s.step_no = r.step_no
    ), counted AS (
        SELECT t.namespace, t.task_name, t.version, t.step_name,
               sum(t.runs)::bigint AS runs, sum(t.retries)::bigint AS retries, sum(t.failures)::bigint AS failures
        FROM template_step AS t
        GROUP BY 1, 2, 3, 4
    ), duration AS (
        SELECT t.namespace, t.task_name, t.version, t.step_name,
               avg(d.seconds) AS mean,
               percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY d.seconds) AS percentiles,
               max(d.seconds) AS longest,
               sum(d.seconds) AS total
        FROM step_move AS m
        JOIN template_step AS t ON t.plan_id = m.plan_id
                               AND t.step_no = m.step_no
        CROSS JOIN LATERAL (SELECT extract(epoch FROM m.at - m.start_at)::double precision AS seconds) AS d
        WHERE m.start_at IS NOT NULL
        GROUP BY 1, 2, 3, 4
    ), first_attempt AS MATERIALIZED (
        SELECT m.plan_id, m.task_id, m.step_no, m.ready_at,
               coalesce(m.start_at, m.at) AS at
        FROM step_move AS m
        WHERE m.attempt = 1
          AND m.began
    ), parent_end AS (
        SELECT f.task_id, f.step_no, max(s.finished_at) AS at
        FROM first_attempt AS f
        JOIN template_step AS t ON t.plan_id = f.plan_id
                               AND t.step_no = f.step_no
        CROSS JOIN LATERAL unnest(t.parents) AS u (step_no)
        JOIN tasker._steps_of(ARRAY(SELECT DISTINCT f.task_id FROM first_attempt AS f)) AS s
            ON s.task_id = f.task_id
           AND s.step_no = u.step_no
        GROUP BY 1, 2
    ), wait AS (
        SELECT t.namespace, t.task_name, t.version, t.step_name,
               avg(w.seconds) AS mean,
               percentile_cont(0.95) WITHIN GROUP (ORDER BY w.seconds) AS p95
        FROM first_attempt AS f
        JOIN template_step AS t ON t.plan_id = f.plan_id
                               AND t.step_no = f.step_no
        LEFT JOIN parent_end AS e ON e.task_id = f.task_id
                                 AND e.step_no = f.step_no
        CROSS JOIN LATERAL (
            SELECT greatest(extract(epoch FROM f.at - coalesce(e.at, f.ready_at)), 0)::double precision AS seconds) AS w
        GROUP BY 1, 2, 3, 4
    ), critical AS (
        SELECT p.namespace, p.name AS task_name, p.version, s.name AS step_name,
               sum(extract(epoch FROM c.duration)) AS seconds,
               sum(sum(extract(epoch FROM c.duration))) OVER (PARTITION BY p.namespace, p.name, p.version) AS of_all
        FROM tasker._critical_times(ARRAY(
            SELECT t.task_id
            FROM task AS t
            WHERE t.finished_at >= start
            ORDER BY t.finished_at DESC
            LIMIT tasker._critical_most())) AS c
        JOIN tasker.plan AS p ON p.plan_id = c.plan_id
        JOIN tasker.plan_step AS s ON s.plan_id = c.plan_id
                                  AND s.step_no = c.step_no
        GROUP BY 1, 2, 3, 4
    ), pattern AS (
        SELECT t.namespace, t.task_name, t.version, t.step_name,
               m.metadata ->> 'sqlstate' AS sqlstate,
               tasker._message_class(m.metadata ->> 'message') AS message,
               count(*) AS count,
               row_number() OVER (PARTITION BY t.namespace, t.task_name, t.version, t.step_name
                                  ORDER BY count(*) DESC, m.metadata ->> 'sqlstate', tasker._message_class(m.metadata ->> 'message')) AS place
        FROM step_move AS m
        JOIN template_step AS t ON t.plan_id = m.plan_id
                               AND t.step_no = m.step_no
        WHERE m.to_state IN (waiting, error)
        GROUP BY 1, 2, 3, 4, 5, 6
    ), patterns AS (
        SELECT p.namespace, p.task_name, p.version, p.step_name,
               jsonb_agg(jsonb_build_object('sqlstate', p.sqlstate, 'message', p.message, 'count', p.count) ORDER BY p.place) AS list
        FROM pattern AS p
        WHERE p.place <= 5
        GROUP BY 1, 2, 3, 4
    ), figure AS (
        SELECT c.namespace, c.task_name, c.version, c.step_name, c.runs, c.retries, c.failures,
               round(d.mean::numeric, 6), round(d.percentiles[1]::numeric, 6), round(d.percentiles[2]::numeric, 6), round(d.longest::numeric, 6),
               round(w.mean::numeric, 6), round(w.p95::numeric, 6),
               coalesce(round(d.total::numeric, 6), 0.000000),
               CASE WHEN x.of_all IS NOT NULL THEN round(coalesce(k.seconds, 0), 6) END,
               CASE WHEN x.of_all > 0 THEN round(coalesce(k.seconds, 0) * 100 / x.of_all, 2) END,
               coalesce(e.list, '[]'),
               NULL::text
        FROM counted AS c
        LEFT JOIN duration AS d USING (namespace, task_name, version, step_name)
        LEFT JOIN wait AS w USING (namespace, task_name, version, step_name)
        LEFT JOIN critical AS k USING (namespace, task_name, version, step_name)
        LEFT JOIN patterns AS e USING (namespace, task_name, version, step_name)
        LEFT JOIN (
            SELECT DISTINCT a.namespace, a.task_name, a.version, a.of_all
            FROM critical AS a) AS x USING (namespace, task_name, version)
    ), row AS (
        SELECT f::tasker.bottleneck AS b
        FROM figure AS f
    )
    SELECT (r.b).namespace, (r.b).task_name, (r.b).version, (r.b).step_name, (r.b).runs, (r.b).retries, (r.b).failures,
           (r.b).mean_duration, (r.b).p50_duration, (r.b).p95_duration, (r.b).max_duration,
           (r.b).mean_wait, (r.b).p95_wait, (r.b).total_seconds, (r.b).critical_seconds, (r.b).critical_share,
           (r.b).error_patterns, tasker._recommendation(r.b)
    FROM row AS r
    ORDER BY (r.b).critical_seconds DESC NULLS LAST, (r.b).total_seconds DESC,
             (r.b).namespace, (r.b).task_name, (r.b).version, (r.b).step_name;
END;
$$;
COMMENT ON FUNCTION tasker.bottlenecks(timestamptz, text, text, text) IS
'Returns a row for each step of a template of which something happened since: how often it ran, failed, how long it took and waited (true percentiles, not estimates), how much of the time that tasks took was spent on it, the most frequent errors, and what that suggests; what cost tasks most first. since: from when; NULL: the last 24 hours. namespace, name, version: only such templates; NULL: any. Critical times are those of the 5,000 tasks that ended last. Costs what has happened since. Raises 22023 (since is infinity). Source: design, contract, "Reading"; reference 9.1.';
