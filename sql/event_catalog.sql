-- The catalogue of events: what is in it, how it is searched, and that it says what
-- the engine does.  That each event occurs as it says: 350_event_catalog, zz_events.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS tasker;
\set SHOW_CONTEXT never
\pset null '(null)'

-- Every event of the engine, and their other names.
SELECT c.name, c.category, e.alias_of, c.fired_by, c.description
FROM tasker.event_catalog() AS c
JOIN tasker._system_events() AS e USING (name);

-- The events of tasks and steps are those of the state machines, neither more nor less.
SELECT r.event AS of_rules, c.name AS of_catalog
FROM (SELECT DISTINCT event FROM tasker.transition_rules) AS r
FULL JOIN (SELECT e.name FROM tasker._system_events() AS e
           WHERE e.category IN ('task', 'step') AND e.alias_of IS NULL) AS c ON c.name = r.event
WHERE r.event IS NULL OR c.name IS NULL;
-- What a name stands for is no other name of something; nothing is there twice.
SELECT e.name, e.alias_of
FROM tasker._system_events() AS e
WHERE e.alias_of IS NOT NULL
  AND NOT EXISTS (SELECT FROM tasker._system_events() AS o WHERE o.name = e.alias_of AND o.alias_of IS NULL);
SELECT e.name FROM tasker._system_events() AS e GROUP BY e.name HAVING count(*) > 1;
-- Nobody can register one.
SELECT e.name FROM tasker._system_events() AS e WHERE tasker._event_name_problem(e.name) IS NULL;
-- What fires them are functions, or the process that runs steps.
SELECT DISTINCT f.name
FROM tasker._system_events() AS e
CROSS JOIN LATERAL unnest(e.fired_by) AS f (name)
WHERE f.name <> 'executor'
  AND NOT EXISTS (SELECT FROM pg_proc AS p WHERE p.pronamespace = 'tasker'::regnamespace AND p.proname = f.name)
  AND f.name NOT IN ('subscribe', 'unsubscribe');

-- Each schema is a schema, and each example matches it and shows no field that it lacks.
SELECT c.name, p.path, p.message
FROM tasker.event_catalog() AS c
CROSS JOIN LATERAL tasker._schema_problems(c.payload_schema) AS p;
SELECT c.name, s.instance_path, s.message
FROM tasker.event_catalog() AS c
CROSS JOIN LATERAL tasker.json_schema_errors(c.payload_schema, c.example_payload) AS s;
SELECT c.name
FROM tasker.event_catalog() AS c
WHERE c.category <> 'custom'
  AND (c.example_payload IS NULL OR c.payload_schema IS NULL
       OR c.example_payload ->> 'event_type' IS DISTINCT FROM coalesce(tasker._system_event(c.name), c.name));
SELECT c.name, k.key
FROM tasker.event_catalog() AS c
CROSS JOIN LATERAL jsonb_object_keys(c.example_payload) AS k (key)
WHERE c.category <> 'custom'
  AND NOT (c.payload_schema -> 'properties') ? k.key
  AND c.payload_schema -> 'properties' -> 'event_type' ->> 'const' <> 'step.completed';
-- Each field of the list belongs to some event.
SELECT f.events, f.field
FROM tasker._event_fields() AS f
CROSS JOIN LATERAL unnest(f.events) AS w (name)
WHERE NOT EXISTS (SELECT FROM tasker._system_events() AS e WHERE w.name IN (e.name, e.category) AND e.alias_of IS NULL);

-- A schema in full, and what each event has to have.
SELECT jsonb_pretty(payload_schema - 'properties') AS schema, jsonb_pretty(payload_schema -> 'properties' -> 'error_message') AS field
FROM tasker.event_catalog('step')
WHERE name = 'step.failed';
SELECT c.name, c.payload_schema -> 'required' AS required
FROM tasker.event_catalog() AS c
JOIN tasker._system_events() AS e USING (name)
WHERE e.alias_of IS NULL;

-- One event.
SELECT i ->> 'name' AS name, i ->> 'category' AS category, i -> 'alias_of' AS alias_of, i -> 'fired_by' AS fired_by,
       i -> 'payload_schema' -> 'properties' -> 'event_type' ->> 'const' AS told_as, i -> 'example_payload' ->> 'event_type' AS example
FROM unnest('{task.completed,workflow.task_completed}'::text[]) AS w (name)
CROSS JOIN LATERAL tasker.event_info(w.name) AS i;
SELECT tasker.event_info('task.complete') AS unknown, tasker.event_info(NULL) AS nothing;

-- Searched by text and by namespace.
SELECT name FROM tasker.search_events('BYPASS');
SELECT name FROM tasker.search_events('.retry_');
SELECT name FROM tasker.search_events('%');
SELECT count(*) FROM tasker.search_events(NULL);
SELECT name FROM tasker.events_by_namespace('observability');
SELECT name FROM tasker.events_by_namespace('registry');
SELECT name FROM tasker.events_by_namespace('handler');
SELECT count(*) FROM tasker.events_by_namespace('tas');
SELECT count(*) FROM tasker.event_catalog('tasks');

-- Names as they are subscribed to.
SELECT w.events, tasker._canonical_events(w.events) AS canonical
FROM (VALUES
    (ARRAY['task.completed', 'task.completed']),
    (ARRAY['workflow.task_completed', 'task.completed', 'task.start_requested']),
    (ARRAY['task.*', 'task.completed', 'step.failed']),
    (ARRAY['workflow.*']),
    (ARRAY['workflow.*', 'step.*']),
    (ARRAY['observability.step.*']),
    (ARRAY['handler.*']),
    (ARRAY['*', 'task.completed', 'step.*'])) AS w (events);
\set VERBOSITY verbose
SELECT tasker._canonical_events('{task.completed,task.complete}');
SELECT tasker._canonical_events('{taks.*}');
SELECT tasker._canonical_events('{nothing.like.it}');
SELECT tasker._canonical_events('{task}');
SELECT tasker._canonical_events('{}');
SELECT tasker._canonical_events(NULL);
SELECT tasker._canonical_events('{task.completed,NULL}');
\set VERBOSITY default

-- Everybody may look.
CREATE ROLE regress_event_reader;
SET ROLE regress_event_reader;
SELECT count(*) > 20 AS catalog FROM tasker.event_catalog();
SELECT tasker.event_info('step.failed') ->> 'name' AS info;
SELECT count(*) AS found FROM tasker.search_events('bypass');
SELECT count(*) AS found FROM tasker.events_by_namespace('subscriber');
RESET ROLE;
DROP ROLE regress_event_reader;

-- An event is told though its task is gone, and one that is gone itself is left out.
BEGIN;
CREATE FUNCTION pg_temp.events_of(task bigint)
RETURNS TABLE (place bigint, name text, payload jsonb)
LANGUAGE sql
AS $$
    SELECT e.place, e.name, e.payload - '{timestamp,started_at,completed_at}'::text[]
    FROM (SELECT array_agg(w.event_id ORDER BY w.event_id DESC) || 1::bigint AS event_ids,
                 array_agg(w.row_id ORDER BY w.event_id DESC) || 1::bigint AS row_ids
          FROM (SELECT l.id AS event_id, l.id AS row_id FROM tasker.log AS l WHERE l.task_id = task
                UNION ALL
                SELECT l.start_id, l.id FROM tasker.log AS l WHERE l.task_id = task AND l.start_id IS NOT NULL) AS w) AS r
    CROSS JOIN LATERAL tasker._events(r.event_ids, r.row_ids) AS e;
$$;
CREATE SCHEMA regress_event;
CREATE FUNCTION regress_event.nothing(step tasker.step_context) RETURNS jsonb
LANGUAGE sql AS $$ SELECT CASE WHEN (step.context ->> 'fail')::boolean THEN to_jsonb(tasker.permanent_error('regress')) END $$;
SET LOCAL client_min_messages = error;
SELECT tasker.register_handler('regress_event', 'regress_event.nothing');
SELECT tasker.register_task('{"name": "regress_event", "step_templates": [{"name": "a", "handler_class": "regress_event"}]}') > 0 AS registered;
SELECT (tasker.run_task('regress_event', tags => '{x,y}') ->> 'task_id')::bigint AS task \gset
SELECT e.place, e.name, e.payload - 'task_id' - 'step_id' - 'correlation_id' - 'total_execution_duration' - 'execution_duration' - 'current_execution_duration' AS payload
FROM pg_temp.events_of(:task) AS e;
SELECT (tasker.run_task('regress_event', '{"fail": true}') ->> 'task_id')::bigint AS failed \gset
DELETE FROM tasker.task WHERE task_id IN (:task, :failed);
SELECT e.name, s.message
FROM (SELECT * FROM pg_temp.events_of(:task) UNION ALL SELECT * FROM pg_temp.events_of(:failed)) AS e
JOIN tasker.event_catalog() AS c USING (name)
CROSS JOIN LATERAL tasker.json_schema_errors(c.payload_schema - 'required', e.payload) AS s;
SELECT e.name, e.payload ->> 'error_message' AS error_message, e.payload ->> 'exception_class' AS exception_class,
       e.payload -> 'task_id' = to_jsonb(:failed) AS task, e.payload ? 'task_name' AS named
FROM pg_temp.events_of(:failed) AS e;
SELECT count(*) FROM tasker._task_facts(ARRAY[:task]);
ROLLBACK;

-- What a handler says of its own takes no field of the engine's.
SELECT tasker._payload('{"operation_count": 2, "name": "own", "tags": ["own"]}', '{"name": "fact", "tags": ["fact"], "more": {"a": [1, null]}}',
                       'name', 'pair'::text, 'at', timestamptz '2026-01-15 10:30:45.5+01', 'nothing', NULL::text, 'count', 3::smallint,
                       'rate', 0.25, 'ok', true, 'names', '{a,b}'::text[], 'scalar', jsonb '7', 'object', jsonb '{"x": {"y": 1}}') AS payload;
