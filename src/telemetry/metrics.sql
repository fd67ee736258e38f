-- tasker.metrics(): what a monitoring system scrapes.  _metric_definitions()
-- says what there is, _metric_samples() gives the values of it, and the formats
-- know nothing of either.

CREATE FUNCTION tasker._metric_definitions()
RETURNS TABLE (place bigint, name text, type text, labels text[], help text)
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 30
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT row_number() OVER (), d.*
    FROM (VALUES
        ('tasker_info', 'gauge', '{version}'::text[],
         'Always 1; the version of the extension.'),
        ('tasker_tasks_created_total', 'counter', '{namespace,task,version}',
         'Tasks that were created.'),
        ('tasker_tasks_ended_total', 'counter', '{namespace,task,version,state}',
         'Tasks that ended, by the state they ended in; one that is retried ends again.'),
        ('tasker_steps_ended_total', 'counter', '{namespace,task,step,state}',
         'Steps that ended, by the state they ended in; one that is retried by an operator ends again.'),
        ('tasker_step_attempts_total', 'counter', '{namespace,task,step}',
         'Attempts of steps that began.'),
        ('tasker_step_retries_total', 'counter', '{namespace,task,step}',
         'Attempts that failed and that another follows by itself.'),
        ('tasker_task_duration_seconds', 'histogram', '{namespace,task,state}',
         'Time from the start of a task''s first step to its end in that state.'),
        ('tasker_step_duration_seconds', 'histogram', '{namespace,task,step}',
         'Time that an attempt of a step took, whatever came of it.'),
        ('tasker_tasks', 'gauge', '{namespace,state}',
         'Tasks that are in that state now.'),
        ('tasker_steps', 'gauge', '{namespace,state}',
         'Steps that are in that state now, those that have not started included.'),
        ('tasker_queue_length', 'gauge', '{queue,namespace,handler}',
         'Pieces of work that wait there, at most 10,000: fast, slow and alone for executors, api and external for workers, not_due until they are, limited for a limit; leases and deadlines that run.'),
        ('tasker_queue_delay_seconds', 'gauge', '{queue,namespace,handler}',
         'How long the oldest of those has been due; 0: none is.'),
        ('tasker_workers', 'gauge', '{kind}',
         'Processes of the engine that run: launcher, executor, notifier, deliverer.'),
        ('tasker_workers_busy', 'gauge', '{kind}',
         'How many of them are at work.'),
        ('tasker_events_total', 'counter', '{}',
         'Events that subscribers could be told of.'),
        ('tasker_subscriber_lag_events', 'gauge', '{subscriber}',
         'Events that the subscriber has not fetched yet.'),
        ('tasker_subscriber_lag_seconds', 'gauge', '{subscriber}',
         'Age of the oldest of those.'),
        ('tasker_subscriber_dead_events', 'gauge', '{subscriber}',
         'Events at which its handler failed for good.'),
        ('tasker_breaker_open', 'gauge', '{host}',
         '1 while the circuit breaker of the host of HTTP steps is not closed, 0 while it is though requests have failed; none of hosts that answer.'),
        ('tasker_connections_active', 'gauge', '{}',
         'Connections of clients to this database that run something.'),
        ('tasker_connections', 'gauge', '{}',
         'Connections of clients to the server.'),
        ('tasker_connections_max', 'gauge', '{}',
         'Connections that the server takes.')) AS d (name, type, labels, help);
$$;
COMMENT ON FUNCTION tasker._metric_definitions() IS
'Every metric of tasker.metrics(): its type, its labels, what it says. Private.';

-- From lane to lane by the index, and no further into any than so many rows: a
-- million that wait cost no more than ten thousand.
CREATE FUNCTION tasker._queue_lengths(at_most integer DEFAULT 10000)
RETURNS TABLE (queue text, namespace text, handler text, waiting bigint, due_now bigint, oldest_due timestamptz, is_cut boolean)
LANGUAGE plpgsql STABLE ROWS 20
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    at constant timestamptz := tasker.clock();
BEGIN
    RETURN QUERY
    WITH RECURSIVE lane AS (
        (SELECT q.lane
         FROM tasker.queue AS q
         ORDER BY q.lane
         LIMIT 1)
        UNION ALL
        SELECT n.lane
        FROM lane AS l
        CROSS JOIN LATERAL (
            SELECT q.lane
            FROM tasker.queue AS q
            WHERE q.lane > l.lane
            ORDER BY q.lane
            LIMIT 1) AS n
    ), token AS (
        SELECT l.lane,
               CASE
                   WHEN l.lane < -1000 THEN 'limited'
                   WHEN l.lane = -1 AND q.due_lane IS NOT NULL THEN 'not_due'
                   WHEN l.lane = -1 AND q.step_no > 0 THEN 'leases'
                   WHEN l.lane = -1 THEN 'deadlines'
                   WHEN l.lane = 0 THEN 'fast'
                   WHEN l.lane = 1 THEN 'slow'
                   WHEN l.lane = 2 THEN 'alone'
                   WHEN l.lane = 3 THEN 'api'
                   ELSE 'external'
               END AS queue,
               q.due
        FROM lane AS l
        CROSS JOIN LATERAL (
            SELECT q.due, q.due_lane, q.step_no
            FROM tasker.queue AS q
            WHERE q.lane = l.lane
            ORDER BY q.rank, q.due
            LIMIT at_most) AS q
    )
    SELECT t.queue,
           coalesce(h.namespace, m.namespace),
           coalesce(h.name, m.handler),
           count(*),
           count(*) FILTER (WHERE t.due <= at),
           min(t.due),
           sum(count(*)) OVER (PARTITION BY t.lane) >= at_most
    FROM token AS t
    LEFT JOIN tasker.handler AS h ON h.handler_id = t.lane
    LEFT JOIN tasker.max_in_progress AS m ON m.limit_id = -1000 - t.lane
    GROUP BY t.lane, t.queue, h.namespace, m.namespace, h.name, m.handler;
END;
$$;
COMMENT ON FUNCTION tasker._queue_lengths(integer) IS
'How much waits where, looking at that many rows of each lane at the most; is_cut: there may be more. Private.';

CREATE FUNCTION tasker._metric_samples()
RETURNS TABLE (name text, part text, label_values text[], bound double precision, value double precision)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
    WITH total AS MATERIALIZED (
        SELECT p.namespace, p.name AS task, p.version, s.name AS step,
               t.step_no, t.from_state, t.to_state, t.bucket, t.moves, t.microseconds,
               CASE WHEN t.step_no = 0 THEN tasker._task_state(t.to_state)::text
                    ELSE tasker._step_state(t.to_state)::text END AS state
        FROM tasker._move_totals() AS t
        JOIN tasker.plan AS p ON p.plan_id = t.plan_id
        LEFT JOIN tasker.plan_step AS s ON s.plan_id = t.plan_id
                                       AND s.step_no = t.step_no
    ), duration AS MATERIALIZED (
        SELECT CASE WHEN t.step_no = 0 THEN 'tasker_task_duration_seconds' ELSE 'tasker_step_duration_seconds' END AS name,
               ARRAY[t.namespace, t.task, coalesce(t.step, t.state)] AS label_values,
               t.bucket,
               sum(t.moves) AS moves,
               sum(t.microseconds) AS microseconds
        FROM total AS t
        WHERE t.bucket >= 0
          AND (t.step_no > 0 OR t.state IN ('complete', 'error', 'cancelled'))
        GROUP BY 1, 2, 3
    ), now_in AS MATERIALIZED (
        SELECT p.namespace, s.machine,
               CASE s.machine WHEN 'task' THEN tasker._task_state(s.state)::text ELSE tasker._step_state(s.state)::text END AS state,
               sum(s.count) AS count
        FROM tasker._states_now() AS s
        JOIN tasker.plan AS p ON p.plan_id = s.plan_id
        GROUP BY 1, 2, 3
    ), queue AS MATERIALIZED (
        SELECT *
        FROM tasker._queue_lengths()
    ), worker AS MATERIALIZED (
        SELECT k.kind,
               count(p.kind) AS running,
               count(p.kind) FILTER (WHERE NOT p.idle) AS busy
        FROM unnest('{launcher,executor,notifier,deliverer}'::text[]) AS k (kind)
        LEFT JOIN tasker._processes() AS p ON p.kind = k.kind
        GROUP BY k.kind
    ), subscriber AS MATERIALIZED (
        SELECT s.subscriber, s.lag_events, s.lag, s.dead
        FROM tasker.subscribers AS s
    )
    SELECT 'tasker_info', NULL, ARRAY[e.extversion], NULL::double precision, 1::double precision
    FROM pg_extension AS e
    WHERE e.extname = 'tasker'
    UNION ALL
    SELECT 'tasker_tasks_created_total', NULL, ARRAY[t.namespace, t.task, t.version], NULL, sum(t.moves)
    FROM total AS t
    WHERE t.step_no = 0
      AND t.from_state = -1
    GROUP BY t.namespace, t.task, t.version
    UNION ALL
    SELECT 'tasker_tasks_ended_total', NULL, ARRAY[t.namespace, t.task, t.version, t.state], NULL, sum(t.moves)
    FROM total AS t
    WHERE t.step_no = 0
      AND t.state IN ('complete', 'error', 'cancelled', 'resolved_manually')
    GROUP BY t.namespace, t.task, t.version, t.state
    UNION ALL
    SELECT 'tasker_steps_ended_total', NULL, ARRAY[t.namespace, t.task, t.step, t.state], NULL, sum(t.moves)
    FROM total AS t
    WHERE t.step_no > 0
      AND t.state IN ('complete', 'error', 'cancelled', 'resolved_manually', 'skipped')
    GROUP BY t.namespace, t.task, t.step, t.state
    UNION ALL
    SELECT 'tasker_step_attempts_total', NULL, ARRAY[t.namespace, t.task, t.step], NULL, sum(t.moves)
    FROM total AS t
    WHERE t.step_no > 0
      AND t.state = 'in_progress'
    GROUP BY t.namespace, t.task, t.step
    UNION ALL
    SELECT 'tasker_step_retries_total', NULL, ARRAY[t.namespace, t.task, t.step], NULL, sum(t.moves)
    FROM total AS t
    WHERE t.step_no > 0
      AND t.state = 'waiting_for_retry'
    GROUP BY t.namespace, t.task, t.step
    UNION ALL
    SELECT d.name, 'bucket', d.label_values, b.bound, coalesce(sum(d.moves) FILTER (WHERE d.bucket < b.place), 0)
    FROM duration AS d
    CROSS JOIN unnest(tasker._duration_bounds() || double precision 'Infinity') WITH ORDINALITY AS b (bound, place)
    GROUP BY d.name, d.label_values, b.bound
    UNION ALL
    SELECT d.name, 'sum', d.label_values, NULL, sum(d.microseconds)::double precision / 1000000
    FROM duration AS d
    GROUP BY d.name, d.label_values
    UNION ALL
    SELECT d.name, 'count', d.label_values, NULL, sum(d.moves)
    FROM duration AS d
    GROUP BY d.name, d.label_values
    UNION ALL
    SELECT CASE n.machine WHEN 'task' THEN 'tasker_tasks' ELSE 'tasker_steps' END, NULL, ARRAY[n.namespace, n.state], NULL, n.count
    FROM now_in AS n
    UNION ALL
    SELECT 'tasker_queue_length', NULL, ARRAY[q.queue, q.namespace, q.handler], NULL, sum(q.waiting)
    FROM queue AS q
    GROUP BY q.queue, q.namespace, q.handler
    UNION ALL
    SELECT 'tasker_queue_delay_seconds', NULL, ARRAY[q.queue, q.namespace, q.handler], NULL,
           greatest(max(extract(epoch FROM tasker.clock() - q.oldest_due)) FILTER (WHERE isfinite(q.oldest_due)), 0)
    FROM queue AS q
    GROUP BY q.queue, q.namespace, q.handler
    UNION ALL
    SELECT 'tasker_workers', NULL, ARRAY[w.kind], NULL, w.running
    FROM worker AS w
    UNION ALL
    SELECT 'tasker_workers_busy', NULL, ARRAY[w.kind], NULL, w.busy
    FROM worker AS w
    WHERE w.kind IN ('executor', 'deliverer')
    UNION ALL
    SELECT 'tasker_events_total', NULL, '{}', NULL, coalesce((SELECT t.events FROM tasker.tick AS t ORDER BY t.tick_id DESC LIMIT 1), 0)
    UNION ALL
    SELECT 'tasker_subscriber_lag_events', NULL, ARRAY[s.subscriber], NULL, s.lag_events
    FROM subscriber AS s
    UNION ALL
    SELECT 'tasker_subscriber_lag_seconds', NULL, ARRAY[s.subscriber], NULL, extract(epoch FROM s.lag)
    FROM subscriber AS s
    UNION ALL
    SELECT 'tasker_subscriber_dead_events', NULL, ARRAY[s.subscriber], NULL, s.dead
    FROM subscriber AS s
    UNION ALL
    SELECT 'tasker_breaker_open', NULL, ARRAY[b.host], NULL, (b.state <> 'closed')::integer
    FROM tasker.breakers AS b
    UNION ALL
    SELECT v.name, NULL, '{}', NULL, v.value
    FROM tasker._connections() AS c
    CROSS JOIN LATERAL (VALUES
        ('tasker_connections_active', c.active),
        ('tasker_connections', c.used),
        ('tasker_connections_max', c.most)) AS v (name, value);
$$;
COMMENT ON FUNCTION tasker._metric_samples() IS
'The values of the metrics, each with the values of its labels in the order of _metric_definitions(); of histograms the cumulative count for each bound, the sum and the count. Private.';

CREATE FUNCTION tasker._prometheus_text(text text)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT replace(replace(text, '\', '\\'), E'\n', '\n') $$;
COMMENT ON FUNCTION tasker._prometheus_text(text) IS
'A text as the exposition format escapes it outside of quotes. Private.';

CREATE FUNCTION tasker._metric_bound(bound double precision)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT CASE WHEN bound = 'Infinity' THEN '+Inf' ELSE bound::text END $$;
COMMENT ON FUNCTION tasker._metric_bound(double precision) IS
'The bound of a bucket as text. Private.';

CREATE FUNCTION tasker._metrics_prometheus()
RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH line AS (
        SELECT d.place, 0 AS kind, NULL::text[] AS label_values, NULL::double precision AS bound,
               format(E'# HELP %1$s %2$s\n# TYPE %1$s %3$s', d.name, tasker._prometheus_text(d.help), d.type) AS line
        FROM tasker._metric_definitions() AS d
        UNION ALL
        SELECT d.place,
               CASE s.part WHEN 'sum' THEN 2 WHEN 'count' THEN 3 ELSE 1 END,
               s.label_values,
               s.bound,
               concat(s.name, '_' || s.part, '{' || l.pairs || '}', ' ', s.value)
        FROM tasker._metric_samples() AS s
        JOIN tasker._metric_definitions() AS d ON d.name = s.name
        CROSS JOIN LATERAL (
            SELECT string_agg(format('%s="%s"', u.label, replace(tasker._prometheus_text(u.value), '"', '\"')), ',' ORDER BY u.n) AS pairs
            FROM unnest(d.labels || 'le'::text, s.label_values || tasker._metric_bound(s.bound)) WITH ORDINALITY AS u (label, value, n)
            WHERE u.value IS NOT NULL) AS l
    )
    SELECT string_agg(l.line || E'\n', '' ORDER BY l.place, l.kind > 0, l.label_values, l.kind, l.bound)
    FROM line AS l;
$$;
COMMENT ON FUNCTION tasker._metrics_prometheus() IS
'The metrics in the text format of Prometheus, 0.0.4. Private.';

CREATE FUNCTION tasker._metrics_json()
RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH series AS (
        SELECT d.place, s.label_values,
               jsonb_build_object(
                   'name', d.name,
                   'type', d.type,
                   'help', d.help,
                   'labels', jsonb_strip_nulls(jsonb_object(d.labels, s.label_values)))
               || CASE WHEN d.type = 'histogram' THEN
                      jsonb_build_object(
                          'buckets', jsonb_object_agg(tasker._metric_bound(s.bound), s.value) FILTER (WHERE s.part = 'bucket'),
                          'sum', max(s.value) FILTER (WHERE s.part = 'sum'),
                          'count', max(s.value) FILTER (WHERE s.part = 'count'))
                  ELSE jsonb_build_object('value', max(s.value)) END AS metric
        FROM tasker._metric_samples() AS s
        JOIN tasker._metric_definitions() AS d ON d.name = s.name
        GROUP BY d.place, d.name, d.type, d.help, d.labels, s.label_values
    )
    SELECT jsonb_build_object(
        'timestamp', to_jsonb(tasker.clock() AT TIME ZONE 'UTC') #>> '{}' || 'Z',
        'total_metrics', count(*),
        'metrics', coalesce(jsonb_agg(s.metric ORDER BY s.place, s.label_values), '[]'))::text
    FROM series AS s;
$$;
COMMENT ON FUNCTION tasker._metrics_json() IS
'The metrics as JSON, histograms with their buckets. Private.';

CREATE FUNCTION tasker._csv_cell(text text)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT CASE WHEN text ~ E'[",\r\n]' THEN '"' || replace(text, '"', '""') || '"' ELSE text END $$;
COMMENT ON FUNCTION tasker._csv_cell(text) IS
'A cell of a CSV file, quoted where it must be (RFC 4180). Private.';

CREATE FUNCTION tasker._metrics_csv()
RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH moment AS (
        SELECT to_jsonb(tasker.clock() AT TIME ZONE 'UTC') #>> '{}' || 'Z' AS at
    ), line AS (
        SELECT d.place, s.label_values, s.part, s.bound,
               concat_ws(',', m.at, concat(s.name, '_' || s.part), d.type, s.value::text,
                         tasker._csv_cell(jsonb_strip_nulls(
                             jsonb_object(d.labels, s.label_values) || jsonb_build_object('le', tasker._metric_bound(s.bound)))::text)) AS line
        FROM tasker._metric_samples() AS s
        JOIN tasker._metric_definitions() AS d ON d.name = s.name
        CROSS JOIN moment AS m
    )
    SELECT E'timestamp,name,type,value,labels\r\n'
           || coalesce(string_agg(l.line || E'\r\n', '' ORDER BY l.place, l.label_values, l.part, l.bound), '')
    FROM line AS l;
$$;
COMMENT ON FUNCTION tasker._metrics_csv() IS
'The metrics as CSV, a histogram as its buckets, sum and count. Private.';

CREATE FUNCTION tasker.metrics(format text DEFAULT 'prometheus')
RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF format = 'prometheus' THEN
        RETURN tasker._metrics_prometheus();
    ELSIF format = 'json' THEN
        RETURN tasker._metrics_json();
    ELSIF format = 'csv' THEN
        RETURN tasker._metrics_csv();
    END IF;
    RAISE EXCEPTION 'there is no format "%" of metrics', left(coalesce(format, 'NULL'), 200)
        USING ERRCODE = 'invalid_parameter_value',
              DETAIL = 'The formats are prometheus, json and csv.',
              HINT = 'Leave it out for prometheus.';
END;
$$;
COMMENT ON FUNCTION tasker.metrics(text) IS
'Returns all metrics as text. format: prometheus (text format 0.0.4: HELP, TYPE, counters that never fall, histograms), json (timestamp, total_metrics, metrics: name, type, help, labels and value or buckets, sum, count) or csv (timestamp, name, type, value, labels). Of the namespaces that the caller may see. Exact, in the caller''s snapshot; writes nothing. Raises 22023 (no such format). Source: design, contract, "Reading"; reference 8.';
