-- The telemetry room: a run of known tasks gives known figures.

\set SHOW_CONTEXT never
\set VERBOSITY default
\pset format unaligned
SET client_min_messages = error;
SET timezone = 'UTC';

CREATE ROLE regress_telemetry;
CREATE SCHEMA telemetry;
CREATE FUNCTION telemetry.ok(step tasker.step_context) RETURNS jsonb
LANGUAGE sql AS $$ SELECT '{}'::jsonb $$;
CREATE FUNCTION telemetry.second_time(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    IF step.attempt < 2 THEN
        PERFORM tasker.retryable_error(format('try %s of task %s', step.attempt, step.task_id), interval '0');
    END IF;
    RETURN '{}';
END $$;
CREATE FUNCTION telemetry.tomorrow(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$ BEGIN PERFORM tasker.retryable_error('not today', interval '1 day'); RETURN NULL; END $$;
CREATE FUNCTION telemetry.bad(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$ BEGIN PERFORM tasker.permanent_error('no row ' || step.task_id); RETURN NULL; END $$;
SELECT FROM tasker.register_handler('telemetry_ok', 'telemetry.ok');
SELECT FROM tasker.register_handler('telemetry_second', 'telemetry.second_time');
SELECT FROM tasker.register_handler('telemetry_tomorrow', 'telemetry.tomorrow');
SELECT FROM tasker.register_handler('telemetry_bad', 'telemetry.bad');
SELECT FROM tasker.register_external_handler('telemetry_outside');
SELECT FROM tasker.register_task($$
name: good
namespace_name: telemetry
step_templates:
  - {name: first, handler_class: telemetry_ok}
  - {name: left, handler_class: telemetry_ok, depends_on_step: first}
  - {name: right, handler_class: telemetry_second, depends_on_step: first}
  - {name: last, handler_class: telemetry_ok, depends_on_steps: [left, right]}
$$);
SELECT FROM tasker.register_task($$
name: bad
namespace_name: telemetry
step_templates:
  - {name: first, handler_class: telemetry_ok}
  - {name: breaks, handler_class: telemetry_bad, depends_on_step: first}
  - {name: never, handler_class: telemetry_ok, depends_on_step: breaks}
$$);
SELECT FROM tasker.register_task($$
name: waits
namespace_name: telemetry
step_templates:
  - {name: only, handler_class: telemetry_tomorrow}
$$);
SELECT FROM tasker.register_task($$
name: outside
namespace_name: telemetry
step_templates:
  - {name: only, handler_class: telemetry_outside}
$$);

-- What other tests have left does not move meanwhile.
SELECT count(tasker.cancel_task(task_id)) >= 0 AS alone
FROM tasker.tasks
WHERE state IN ('pending', 'in_progress', 'paused');
CREATE TEMPORARY TABLE run AS SELECT tasker.clock() AS began;
CREATE TEMPORARY TABLE made AS
SELECT 'good' AS kind, id FROM tasker.create_tasks('good', array_fill('{}'::jsonb, ARRAY[3]), namespace => 'telemetry') AS id
UNION ALL
SELECT 'bypassed', tasker.create_task('good', namespace => 'telemetry', bypass_steps => '{right}', initiator => 'me', source_system => 'test')
UNION ALL
SELECT 'bad', id FROM tasker.create_tasks('bad', array_fill('{}'::jsonb, ARRAY[2]), namespace => 'telemetry') AS id
UNION ALL
SELECT 'waits', tasker.create_task('waits', namespace => 'telemetry')
UNION ALL
SELECT 'later', tasker.create_task('good', namespace => 'telemetry', run_at => now() + interval '1 day')
UNION ALL
SELECT 'outside', id FROM tasker.create_tasks('outside', array_fill('{}'::jsonb, ARRAY[3]), namespace => 'telemetry') AS id
UNION ALL
SELECT 'cancelled', tasker.create_task('good', namespace => 'telemetry', run_at => now() + interval '1 day');
SELECT kind, tasker.wait_for_task(id) FROM made WHERE kind IN ('good', 'bypassed', 'bad') ORDER BY id;
SELECT tasker.cancel_task(id, 'not wanted') FROM made WHERE kind = 'cancelled';
DO $$
BEGIN
    WHILE (SELECT count(*) FROM tasker.tasks JOIN made ON id = task_id WHERE kind IN ('waits', 'outside') AND state = 'in_progress') < 4
          OR NOT EXISTS (SELECT FROM tasker.workflow_steps JOIN made ON id = task_id WHERE kind = 'waits' AND state = 'waiting_for_retry') LOOP
        PERFORM pg_sleep(0.01);
        COMMIT;
    END LOOP;
END;
$$;
SELECT count(*) FROM tasker.claim_steps('telemetry worker', '{telemetry_outside}', lease => '1 day');

-- Counters and gauges.
CREATE FUNCTION pg_temp.lines(pattern text)
RETURNS SETOF text
LANGUAGE sql
AS $$
    SELECT l.line
    FROM regexp_split_to_table(tasker.metrics(), '\n') WITH ORDINALITY AS l (line, n)
    WHERE l.line LIKE '%namespace="telemetry"%'
      AND l.line ~ pattern
    ORDER BY l.n
$$;
SELECT * FROM pg_temp.lines('^tasker_tasks_');
SELECT * FROM pg_temp.lines('^tasker_steps?_.*_total');
SELECT * FROM pg_temp.lines('_count');
SELECT * FROM pg_temp.lines('^tasker_(tasks|steps)\{');
SELECT * FROM pg_temp.lines('le="\+Inf"');
SELECT line FROM regexp_split_to_table(tasker.metrics(), '\n') AS line WHERE line LIKE 'tasker_queue_length%telemetry%';

-- Each state as the views have it, of all there is in this database.
SELECT key, h.value AS is, t.value AS should_be
FROM tasker.system_health() AS s
CROSS JOIN LATERAL jsonb_each(to_jsonb(s)) AS h
JOIN (
    SELECT state || '_tasks' AS key, to_jsonb(count(*)) AS value FROM tasker.tasks GROUP BY 1
    UNION ALL
    SELECT state || '_steps', to_jsonb(count(*)) FROM tasker.workflow_steps GROUP BY 1
    UNION ALL
    SELECT 'total_tasks', to_jsonb(count(*)) FROM tasker.tasks
    UNION ALL
    SELECT 'total_steps', to_jsonb(count(*)) FROM tasker.workflow_steps
    UNION ALL
    SELECT 'retryable_error_steps', to_jsonb(count(*)) FROM tasker.workflow_steps WHERE state = 'waiting_for_retry'
    UNION ALL
    SELECT 'exhausted_retry_steps', to_jsonb(count(*)) FROM tasker.workflow_steps WHERE state = 'error'
    UNION ALL
    SELECT 'in_backoff_steps', to_jsonb(count(*)) FROM tasker.workflow_steps
    WHERE state = 'waiting_for_retry' AND next_attempt_at > tasker.clock()) AS t USING (key)
WHERE h.value <> t.value;
SELECT sum(h.value::integer) = 2 * (max(h.value::integer) FILTER (WHERE key = 'total_tasks')) AS tasks_add_up
FROM tasker.system_health() AS s
CROSS JOIN LATERAL jsonb_each(to_jsonb(s)) AS h
WHERE key LIKE '%\_tasks';
SELECT active_connections > 0, connections >= active_connections, max_connections FROM tasker.system_health();

-- Each change of the log is counted once, whether folded or not.
CREATE VIEW pg_temp.difference AS
SELECT what, c.moves, l.moves AS should_be
FROM (
    SELECT (t.plan_id, t.step_no, t.from_state, t.to_state)::text AS what, sum(t.moves) AS moves
    FROM tasker._move_totals() AS t
    GROUP BY 1) AS c
FULL JOIN (
    SELECT (t.plan_id, m.step_no, coalesce(m.from_state, -1::smallint), m.to_state)::text AS what, count(*) AS moves
    FROM tasker._move AS m
    JOIN tasker.task AS t USING (task_id)
    GROUP BY 1) AS l USING (what)
WHERE c.moves IS DISTINCT FROM l.moves;
SELECT * FROM pg_temp.difference;
CREATE TEMPORARY TABLE before_folding AS
SELECT l.line FROM pg_temp.lines('^tasker_(task|step)') AS l (line);
SELECT tasker._fold_metrics(0, 1000000) = 0 AS all_folded;
-- Where there is nothing to fold, nothing is.
SELECT tasker._fold_metrics(0, 1000000) = 0 AS all_folded;
SELECT * FROM pg_temp.difference;
SELECT line FROM before_folding EXCEPT SELECT pg_temp.lines('^tasker_(task|step)');

-- An operator's retry: what ended ends again, and what is pending was counted back.
SELECT tasker.retry_task(id) FROM made WHERE kind = 'bad' ORDER BY id LIMIT 1;
SELECT tasker.wait_for_task(id) FROM made WHERE kind = 'bad' ORDER BY id LIMIT 1;
SELECT * FROM pg_temp.lines('^tasker_tasks.*(error|pending)');

-- A period.
SELECT task_throughput, completion_count, error_count, completion_rate, error_rate, step_throughput,
       avg_task_duration = (SELECT round(extract(epoch FROM avg(finished_at - created_at)), 3) FROM tasker.tasks
                            WHERE namespace = 'telemetry' AND state = 'complete') AS task_duration,
       avg_step_duration = (SELECT round(extract(epoch FROM avg(s.finished_at - s.started_at)), 3)
                            FROM tasker.workflow_steps AS s JOIN made ON id = task_id WHERE s.state = 'complete') AS step_duration,
       active_tasks_count = (SELECT count(*) FROM tasker.tasks WHERE state IN ('pending', 'in_progress', 'paused')) AS active,
       total_namespaces_count = (SELECT count(DISTINCT namespace) FROM tasker.tasks) AS namespaces,
       unique_task_types_count = (SELECT count(DISTINCT name) FROM tasker.tasks) AS types,
       analysis_period_start = r.began AS starts,
       calculated_at > r.began AS ends
FROM run AS r
CROSS JOIN LATERAL tasker.analytics_metrics(r.began);
SELECT analysis_period_start = calculated_at - interval '1 hour', system_health_score BETWEEN 0 AND 1 FROM tasker.analytics_metrics();
SELECT task_throughput, completion_rate, avg_task_duration, step_throughput FROM tasker.analytics_metrics(tasker.clock() + interval '1 hour');

-- The slowest.
SELECT m.kind, s.task_name, s.namespace_name, s.version, s.step_count, s.completed_steps, s.error_steps,
       s.duration_seconds = round(extract(epoch FROM s.completed_at - s.created_at), 3) AS lasted,
       s.completed_at = t.finished_at AS ended, s.initiator, s.source_system
FROM run AS r
CROSS JOIN LATERAL tasker.slowest_tasks(r.began, namespace => 'telemetry') AS s
JOIN made AS m ON m.id = s.task_id
JOIN tasker.tasks AS t USING (task_id)
ORDER BY m.id;
SELECT array_agg(duration_seconds) = array_agg(duration_seconds ORDER BY duration_seconds DESC) AS slowest_first, count(*)
FROM tasker.slowest_tasks(max_rows => 4);
SELECT count(*) FROM tasker.slowest_tasks(namespace => 'telemetry', task_name => 'bad', version => '0.1.0');
SELECT count(*) FROM tasker.slowest_tasks(namespace => 'telemetry', version => '0.2.0');
SELECT s.step_name, s.task_name, count(*), max(s.attempts) AS attempts, bool_and(s.retryable) AS retryable, min(s.step_status) AS status,
       bool_and(s.duration_seconds = round(extract(epoch FROM w.finished_at - w.started_at), 3)) AS lasted,
       bool_and(s.completed_at = w.finished_at AND s.created_at = w.created_at) AS times
FROM run AS r
CROSS JOIN LATERAL tasker.slowest_steps(r.began, 100, namespace => 'telemetry') AS s
JOIN tasker.workflow_steps AS w USING (step_id)
GROUP BY 1, 2
ORDER BY 2, 1;
SELECT array_agg(duration_seconds) = array_agg(duration_seconds ORDER BY duration_seconds DESC) AS slowest_first, count(*)
FROM tasker.slowest_steps(max_rows => 5);
SELECT count(*) FROM tasker.slowest_steps(namespace => 'telemetry', task_name => 'good', max_rows => 4);

-- Where time is lost.
SELECT b.task_name, b.step_name, b.runs, b.retries, b.failures, b.error_patterns,
       substring(b.recommendation FROM '^[0-9]+ of [^.]*\.') AS recommendation
FROM run AS r
CROSS JOIN LATERAL tasker.bottlenecks(r.began, 'telemetry') AS b
ORDER BY b.task_name, b.step_name;
SELECT b.task_name, round(sum(b.critical_share)) AS share,
       abs(sum(b.critical_seconds) - (
           SELECT sum(extract(epoch FROM l.last - t.created_at))
           FROM tasker.tasks AS t
           CROSS JOIN LATERAL (SELECT max(finished_at) AS last FROM tasker.workflow_steps AS s WHERE s.task_id = t.task_id) AS l
           WHERE t.namespace = 'telemetry' AND t.name = b.task_name AND t.state IN ('complete', 'error'))) < 0.001 AS adds_up
FROM run AS r
CROSS JOIN LATERAL tasker.bottlenecks(r.began, 'telemetry') AS b
WHERE b.critical_seconds IS NOT NULL
GROUP BY b.task_name
ORDER BY b.task_name;
-- Percentiles of the very durations, and waits from when a step was ready.
WITH attempt AS (
    SELECT m.task_id, m.step_no, extract(epoch FROM m.at - s.at)::double precision AS seconds
    FROM tasker._move AS m
    JOIN made ON made.id = m.task_id AND kind IN ('good', 'bypassed')
    CROSS JOIN LATERAL (
        SELECT b.at FROM tasker._move AS b
        WHERE b.task_id = m.task_id AND b.step_no = m.step_no AND b.attempt = m.attempt AND b.to_state = 1) AS s
    WHERE m.step_no > 0 AND m.from_state = 1
)
SELECT b.step_name,
       b.p50_duration = round(percentile_cont(0.5) WITHIN GROUP (ORDER BY a.seconds)::numeric, 6) AS p50,
       b.p95_duration = round(percentile_cont(0.95) WITHIN GROUP (ORDER BY a.seconds)::numeric, 6) AS p95,
       b.mean_duration = round(avg(a.seconds)::numeric, 6) AS mean,
       b.max_duration = round(max(a.seconds)::numeric, 6) AS max,
       b.total_seconds = round(sum(a.seconds)::numeric, 6) AS total
FROM run AS r
CROSS JOIN LATERAL tasker.bottlenecks(r.began, name => 'good', version => '0.1.0') AS b
JOIN tasker.plan_step AS s ON s.name = b.step_name
JOIN tasker.plan AS p ON p.plan_id = s.plan_id AND p.namespace = 'telemetry' AND p.name = 'good'
JOIN attempt AS a ON a.step_no = s.step_no
GROUP BY b.step_name, b.p50_duration, b.p95_duration, b.mean_duration, b.max_duration, b.total_seconds
ORDER BY 1;
SELECT b.step_name,
       b.mean_wait = round(avg(extract(epoch FROM w.began - coalesce(w.parents_end, w.created_at)))::numeric, 6) AS mean_wait
FROM run AS r
CROSS JOIN LATERAL tasker.bottlenecks(r.began, 'telemetry', 'good') AS b
JOIN (
    SELECT s.name, t.created_at,
           (SELECT m.at FROM tasker._move AS m
            WHERE m.task_id = t.task_id AND m.step_no = s.step_id & 16383 AND m.to_state = 1 AND m.attempt = 1) AS began,
           (SELECT max(f.finished_at)
            FROM tasker.workflow_step_edges AS e
            JOIN tasker.workflow_steps AS f ON f.step_id = e.from_step_id
            WHERE e.task_id = t.task_id AND e.to_step_id = s.step_id) AS parents_end
    FROM made
    JOIN tasker.tasks AS t ON t.task_id = id
    JOIN tasker.workflow_steps AS s ON s.task_id = id
    WHERE kind IN ('good', 'bypassed')) AS w ON w.name = b.step_name AND w.began IS NOT NULL
GROUP BY b.step_name, b.mean_wait
ORDER BY 1;
SELECT tasker._message_class('row 17 of a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11 in 3.5 s');
SELECT tasker._recommendation(('n', 't', 'v', 's', 100, 3, 3, 1, 1, 9, 9, 2, 2, 100, 80, 80, '[{"message": "lost"}]', NULL)::tasker.bottleneck);

-- Other formats.
SELECT m -> 'labels' AS labels, m -> 'value' AS value
FROM jsonb_array_elements(tasker.metrics('json')::jsonb -> 'metrics') AS m
WHERE m ->> 'name' = 'tasker_tasks_ended_total'
  AND m #>> '{labels,namespace}' = 'telemetry';
SELECT m -> 'labels' AS labels, m -> 'count' AS count, m #> '{buckets,+Inf}' AS infinite, m ? 'sum' AS sum, m ? 'value' AS value
FROM jsonb_array_elements(tasker.metrics('json')::jsonb -> 'metrics') AS m
WHERE m ->> 'name' = 'tasker_step_duration_seconds'
  AND m #>> '{labels,namespace}' = 'telemetry'
  AND m #>> '{labels,task}' = 'good';
SELECT (j ->> 'total_metrics')::integer = jsonb_array_length(j -> 'metrics') AS counted, (j ->> 'timestamp')::timestamptz <= tasker.clock() AS dated
FROM (SELECT tasker.metrics('json')::jsonb) AS m (j);
SELECT regexp_replace(line, '^[^,]*', '') FROM regexp_split_to_table(tasker.metrics('csv'), '\r\n') AS line
WHERE line LIKE 'timestamp%' OR line LIKE '%tasks_created_total%""telemetry""%';

-- A bound belongs to its bucket, what is above it to the next.
SELECT cardinality(b) - width_bucket(-v.seconds, ARRAY(SELECT -x FROM unnest(b) AS x ORDER BY 1)) AS bucket
FROM (SELECT tasker._duration_bounds()) AS d (b)
CROSS JOIN (VALUES (0.0005), (0.001), (0.0010001), (3600), (3601)) AS v (seconds);

-- Names with every character that matters there.
SELECT FROM tasker.register_task($${"name": "a \"b\" \\ c", "namespace_name": "telemetry", "step_templates": [{"name": "only", "handler_class": "telemetry_ok"}]}$$);
SELECT FROM tasker.create_task('a "b" \ c', namespace => 'telemetry', run_at => now() + interval '1 day');
SELECT * FROM pg_temp.lines('created.*b');
SELECT tasker._prometheus_text(E'a\\b\nc');
SELECT tasker._csv_cell('a"b,c'), tasker._csv_cell('plain');

-- Everybody may read.
SET ROLE regress_telemetry;
SELECT count(*) FROM tasker.system_health();
SELECT count(*) FROM tasker.analytics_metrics();
SELECT count(*) > 0 FROM tasker.slowest_tasks();
SELECT count(*) > 0 FROM tasker.slowest_steps();
SELECT count(*) > 0 FROM tasker.bottlenecks();
SELECT length(tasker.metrics()) > 0, length(tasker.metrics('json')) > 0, length(tasker.metrics('csv')) > 0;
SELECT tasker._fold_metrics();
SELECT jsonb_array_length(tasker._rest_workers() -> 'processes') > 0;
SELECT tasker._rest_health_status() ? 'healthy', tasker._rest_performance() ? 'system_overview', tasker._rest_bottlenecks() ? 'scope';
RESET ROLE;

-- What is wrong.
SELECT tasker.metrics('xml');
SELECT tasker.metrics(NULL);
SELECT * FROM tasker.analytics_metrics('infinity');
SELECT * FROM tasker.slowest_tasks(max_rows => 0);
SELECT * FROM tasker.slowest_steps(max_rows => NULL);
SELECT * FROM tasker.slowest_tasks('infinity');
SELECT * FROM tasker.slowest_steps('infinity');
SELECT * FROM tasker.bottlenecks('infinity');
SELECT count(*) > 0 FROM tasker.bottlenecks('-infinity');
SELECT tasker._rest_bottlenecks(period => 0);

-- What REST answers.
SELECT jsonb_object_agg(k, jsonb_typeof(v)) FROM jsonb_each(tasker._rest_health_status()) AS s (k, v);
SELECT tasker._rest_health_status() #> '{metrics,tasks,total}' = to_jsonb((SELECT count(*) FROM tasker.tasks)) AS tasks;
SELECT jsonb_object_agg(k, (SELECT jsonb_agg(o ORDER BY o) FROM jsonb_object_keys(v) AS o))
FROM jsonb_each(tasker._rest_performance() - 'generated_at') AS s (k, v);
SELECT b -> 'scope_summary' AS summary, b -> 'scope' AS scope, b #> '{bottleneck_analysis,error_patterns}' AS errors,
       jsonb_array_length(b #> '{bottleneck_analysis,slowest_tasks}') AS tasks,
       jsonb_array_length(b #> '{bottleneck_analysis,slowest_steps}') AS steps,
       jsonb_array_length(b #> '{bottleneck_analysis,dependency_bottlenecks}') AS bottlenecks,
       b #> '{performance_distribution,count}' AS ended, jsonb_array_length(b -> 'recommendations') > 0 AS recommends
FROM tasker._rest_bottlenecks('telemetry', period => 1) AS b;
SELECT w ->> 'worker' AS worker, w -> 'steps' AS steps, w ->> 'next_lease_end' > w ->> 'oldest_claim_at' AS times
FROM jsonb_array_elements(tasker._rest_workers() -> 'workers') AS w
WHERE w ->> 'worker' = 'telemetry worker';
SELECT q - 'oldest_due'
FROM jsonb_array_elements(tasker._rest_workers() -> 'queues') AS q
WHERE q ->> 'handler' = 'telemetry_outside';

SELECT tasker.cancel_task(id) FROM made WHERE kind IN ('waits', 'later', 'outside') ORDER BY id;
SELECT tasker.cancel_task(task_id) FROM tasker.tasks WHERE namespace = 'telemetry' AND name LIKE 'a %';
SELECT * FROM pg_temp.difference;
DROP ROLE regress_telemetry;
