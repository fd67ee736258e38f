-- The catalogue: every event that the engine itself tells of.  This is the only
-- place that lists them; which move of a task or a step is which event stands in
-- state/rules.c, and a test holds the two equal.  doc/events.md says which names of
-- the reference are not here, and why.

CREATE FUNCTION tasker._system_events()
RETURNS TABLE (place integer, name text, category text, description text, fired_by text[], alias_of text)
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 40
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT (row_number() OVER ())::integer, e.name, split_part(e.name, '.', 1), e.description, e.fired_by, NULL
    FROM (VALUES
        ('task.initialize_requested', 'A task was created.',
         ARRAY['create_task', 'create_tasks', 'run_task']),
        ('task.started', 'The first step of a task is about to run: the first time, or after a retry.',
         ARRAY['executor', 'claim_steps', 'run_task']),
        ('task.completed', 'Every step of a task is complete, resolved by hand or skipped.',
         ARRAY['executor', 'complete_step', 'resolve_step', 'run_task']),
        ('task.failed', 'Nothing of a task goes on, and a step of it is in error; or its time was up.',
         ARRAY['executor', 'fail_step', 'run_task']),
        ('task.cancelled', 'A task was cancelled, or nothing of it goes on and a step of it is cancelled.',
         ARRAY['cancel_task', 'cancel_step', 'executor']),
        ('task.paused', 'A task was paused: no further step of it starts.',
         ARRAY['pause_task']),
        ('task.resumed', 'A paused task goes on.',
         ARRAY['resume_task']),
        ('task.retry_requested', 'A task in error was reopened.',
         ARRAY['retry_task', 'retry_step', 'resolve_step']),
        ('task.resolved_manually', 'A task in error was declared dealt with.',
         ARRAY['resolve_task']),
        ('step.started', 'An attempt of a step begins.',
         ARRAY['executor', 'claim_steps', 'run_task']),
        ('step.completed', 'The handler of a step returned, or a worker reported its results.',
         ARRAY['executor', 'complete_step', 'complete_steps', 'run_task']),
        ('step.failed', 'A step failed for good: no further attempt follows by itself.',
         ARRAY['executor', 'fail_step', 'fail_steps', 'run_task']),
        ('step.retry_requested', 'An attempt of a step failed and another follows by itself, or an operator asked for one.',
         ARRAY['executor', 'fail_step', 'fail_steps', 'retry_step', 'retry_task']),
        ('step.cancelled', 'A step was cancelled: itself, with its task, or because it needs one that was.',
         ARRAY['cancel_step', 'cancel_task']),
        ('step.resolved_manually', 'A step was declared done by hand.',
         ARRAY['resolve_step']),
        ('step.skipped', 'A step was passed over, as its task bypasses it.',
         ARRAY['executor', 'claim_steps', 'run_task'])) AS e (name, description, fired_by)
    UNION ALL
    SELECT 100 + (row_number() OVER ())::integer, e.name, 'registry', e.description, e.fired_by, NULL
    FROM (VALUES
        ('handler.registered', 'A handler was registered.',
         ARRAY['register_handler', 'register_external_handler']),
        ('handler.unregistered', 'A handler was removed, or another one takes its place.',
         ARRAY['unregister_handler', 'register_handler', 'register_external_handler']),
        ('template.registered', 'A task definition was registered.',
         ARRAY['register_task']),
        ('template.unregistered', 'Another text takes the place of a task definition.',
         ARRAY['register_task']),
        ('subscriber.registered', 'A subscriber was registered.',
         ARRAY['subscribe']),
        ('subscriber.unregistered', 'A subscriber was removed, or other terms take the place of its own.',
         ARRAY['unsubscribe', 'subscribe'])) AS e (name, description, fired_by)
    UNION ALL
    SELECT 200 + (row_number() OVER ())::integer, a.name, split_part(a.name, '.', 1),
           format('Another name of %s. Who subscribes to it gets that.', a.alias_of), NULL, a.alias_of
    FROM (VALUES
        ('task.start_requested', 'task.started'),
        ('step.execution_requested', 'step.started'),
        ('step.before_handle', 'step.started'),
        ('step.handle', 'step.started'),
        ('workflow.task_started', 'task.started'),
        ('workflow.task_completed', 'task.completed'),
        ('workflow.task_failed', 'task.failed'),
        ('workflow.step_completed', 'step.completed'),
        ('workflow.step_failed', 'step.failed'),
        ('workflow.step_execution_failed', 'step.failed'),
        ('observability.task.enqueue', 'task.initialize_requested'),
        ('observability.task.handle', 'task.started'),
        ('observability.step.handle', 'step.started'),
        ('observability.step.backoff', 'step.retry_requested'),
        ('observability.step.skip', 'step.skipped')) AS a (name, alias_of);
$$;
COMMENT ON FUNCTION tasker._system_events() IS
'Every event of the engine, and the other names that some of them have: place, in the order in which people read them; category; what it says; what fires it; alias_of, the event that a name stands for. Source: design, contract, "Events"; reference 7.1. Private.';

CREATE FUNCTION tasker._system_event(name text)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(e.alias_of, e.name)
    FROM tasker._system_events() AS e
    WHERE e.name = _system_event.name;
$$;
COMMENT ON FUNCTION tasker._system_event(text) IS
'Name under which an event of the engine is told, from that or another name of it; NULL: there is none. Private.';

CREATE FUNCTION tasker._reserved_event_namespaces()
RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ARRAY['task', 'step', 'workflow', 'observability', 'test',
                 'handler', 'plugin', 'subscriber', 'registry', 'template', 'tasker'];
$$;
COMMENT ON FUNCTION tasker._reserved_event_namespaces() IS
'First parts of names that no custom event may have. Source: reference 7.4. Private.';

CREATE FUNCTION tasker.__seen_custom_events()
RETURNS SETOF tasker.custom_event
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 20
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    IF tasker._caller_may('event:index', '*') THEN
        RETURN QUERY
        SELECT c.*
        FROM tasker.custom_event AS c;
        RETURN;
    END IF;
    -- Those that a template says which he sees, and of who says so only that.
    RETURN QUERY
    WITH seen AS MATERIALIZED (
        SELECT format('%s.%s@%s', t.namespace, t.name, t.version) AS title
        FROM tasker.template AS t
        WHERE tasker._sees('{event:index,template:show,template:index}', t.namespace)
    ), said AS (
        SELECT c.name, array_agg(f.publisher ORDER BY f.n) AS publishers
        FROM tasker.custom_event AS c
        CROSS JOIN LATERAL unnest(c.fired_by) WITH ORDINALITY AS f (publisher, n)
        WHERE EXISTS (
            SELECT
            FROM seen AS s
            WHERE f.publisher = s.title
               OR starts_with(f.publisher, s.title || '/'))
        GROUP BY c.name
    )
    SELECT c.name, c.description, c.payload_schema, s.publishers, c.registered_by, c.registered_at
    FROM said AS s
    JOIN tasker.custom_event AS c ON c.name = s.name;
END;
$$;
COMMENT ON FUNCTION tasker.__seen_custom_events() IS
'What tasker._seen_custom_events() does, for its caller. Private.';

CREATE FUNCTION tasker._seen_custom_events()
RETURNS SETOF tasker.custom_event
LANGUAGE C STABLE ROWS 20
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker._seen_custom_events() IS
'The custom events that the caller may know of: all, or where access is enforced and he may not see the events of all namespaces, those of templates in his, with nobody else in fired_by. Private.';

CREATE FUNCTION tasker._unknown_event(name text)
RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    is_prefix constant boolean := right(name, 2) = '.*';
    known constant text[] := ARRAY(
        SELECT e.name FROM tasker._system_events() AS e
        UNION ALL
        SELECT c.name FROM tasker._seen_custom_events() AS c
        ORDER BY 1);
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = 'TK007',
        MESSAGE = format('there is no event "%s"', left(name, 200)),
        DETAIL = CASE
            WHEN is_prefix THEN 'No event of the engine and no custom event begins so.'
            ELSE 'It is no event of the engine, and no custom event of that name is registered.'
            END,
        HINT = coalesce(
            CASE
                WHEN is_prefix THEN tasker._did_you_mean(name, ARRAY(
                    SELECT DISTINCT split_part(k, '.', 1) || '.*' FROM unnest(known) AS k ORDER BY 1))
                ELSE tasker._did_you_mean(name, known)
            END,
            'tasker.event_catalog() lists them; tasker.register_event() adds one.');
END;
$$;
COMMENT ON FUNCTION tasker._unknown_event(text) IS
'Raises TK007 for a name, or a prefix with .* behind it, that no event has, with the nearest one in the hint. Private.';

CREATE FUNCTION tasker._canonical_events(events text[])
RETURNS text[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    unknown text;
BEGIN
    IF coalesce(cardinality(events), 0) = 0 THEN
        RAISE EXCEPTION USING
            ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'events must name at least one event',
            DETAIL = format('It is %s.', CASE WHEN events IS NULL THEN 'NULL' ELSE 'empty' END),
            HINT = 'Pass names, such as ARRAY[''task.completed''], prefixes, such as ARRAY[''task.*''], or ARRAY[''*''] for all.';
    END IF;
    IF array_position(events, NULL) IS NOT NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'null_value_not_allowed',
            MESSAGE = 'the name of an event must not be NULL',
            DETAIL = format('Element %s of events is NULL.', array_position(events, NULL)),
            HINT = 'tasker.event_catalog() lists the events.';
    END IF;
    SELECT w.name
    INTO unknown
    FROM unnest(events) WITH ORDINALITY AS w (name, n)
    WHERE w.name <> '*'
      AND NOT CASE
          WHEN right(w.name, 2) = '.*' THEN
              EXISTS (SELECT FROM tasker._system_events() AS e WHERE starts_with(e.name, left(w.name, -1)))
              OR EXISTS (SELECT FROM tasker._seen_custom_events() AS c WHERE starts_with(c.name, left(w.name, -1)))
          ELSE
              tasker._system_event(w.name) IS NOT NULL
              OR EXISTS (SELECT FROM tasker._seen_custom_events() AS c WHERE c.name = w.name)
          END
    ORDER BY w.n
    LIMIT 1;
    IF FOUND THEN
        PERFORM tasker._unknown_event(unknown);
    END IF;

    RETURN ARRAY(
        WITH wanted AS (
            -- A prefix stands for the other names below it, too: for what they
            -- stand for, that is, and for itself where events have it.
            SELECT w.name
            FROM unnest(events) AS w (name)
            WHERE w.name = '*'
               OR right(w.name, 2) = '.*'
                  AND (EXISTS (SELECT FROM tasker._system_events() AS e
                               WHERE starts_with(e.name, left(w.name, -1)) AND e.alias_of IS NULL)
                       OR EXISTS (SELECT FROM tasker._seen_custom_events() AS c WHERE starts_with(c.name, left(w.name, -1))))
            UNION
            SELECT coalesce(tasker._system_event(w.name), w.name)
            FROM unnest(events) AS w (name)
            WHERE w.name <> '*'
              AND right(w.name, 2) <> '.*'
            UNION
            SELECT e.alias_of
            FROM unnest(events) AS w (name)
            JOIN tasker._system_events() AS e ON starts_with(e.name, left(w.name, -1))
            WHERE right(w.name, 2) = '.*'
              AND e.alias_of IS NOT NULL
        )
        SELECT w.name
        FROM wanted AS w
        WHERE NOT EXISTS (
            SELECT
            FROM wanted AS wider
            WHERE wider.name <> w.name
              AND (wider.name = '*' OR right(wider.name, 2) = '.*' AND starts_with(w.name, left(wider.name, -1))))
        ORDER BY w.name COLLATE "C");
END;
$$;
COMMENT ON FUNCTION tasker._canonical_events(text[]) IS
'Names of events and prefixes (task.*, * for all) as they are matched: other names become those that events are told under, what another one covers is left out, sorted. Raises TK007 for what no event has, with the nearest one in the hint; 22023 for an empty list, 22004 for a NULL in it. Private.';

CREATE FUNCTION tasker._custom_example(name text, payload_schema jsonb)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    example jsonb := payload_schema -> 'examples' -> 0;
BEGIN
    IF example IS NULL THEN
        -- One that the schema shows, part by part; what it shows nothing of, by its type.
        SELECT jsonb_object_agg(p.key, coalesce(
                   p.value -> 'examples' -> 0, p.value -> 'const', p.value -> 'default', p.value -> 'enum' -> 0,
                   CASE p.value ->> 'type'
                       WHEN 'integer' THEN coalesce(p.value -> 'minimum', '1')
                       WHEN 'number' THEN coalesce(p.value -> 'minimum', '2.34')
                       WHEN 'boolean' THEN 'true'
                       WHEN 'array' THEN '[]'
                       WHEN 'object' THEN '{}'
                       WHEN 'null' THEN 'null'
                       ELSE to_jsonb('example_' || p.key)
                   END))
        INTO example
        FROM jsonb_each(CASE jsonb_typeof(payload_schema -> 'properties')
                            WHEN 'object' THEN payload_schema -> 'properties' ELSE '{}' END) AS p
        WHERE jsonb_typeof(p.value) = 'object';
    END IF;
    example := coalesce(example, '{}');
    IF jsonb_typeof(example) <> 'object'
       OR payload_schema IS NOT NULL AND NOT tasker.json_schema_is_valid(payload_schema, example) THEN
        RETURN NULL;
    END IF;
    RETURN example || jsonb_build_object('event_type', name, 'timestamp', '2026-01-15T10:30:45.123456+00:00');
EXCEPTION
    WHEN OTHERS THEN
        RETURN NULL;    -- the schema refers to what is gone
END;
$$;
COMMENT ON FUNCTION tasker._custom_example(text, jsonb) IS
'Example of the payload of a custom event, made from its schema: the schema''s own, else one of its properties; NULL where that would not match. Private.';

CREATE FUNCTION tasker._catalog()
RETURNS TABLE (place integer, name text, category text, description text, payload_schema jsonb, example_payload jsonb,
               fired_by text[], alias_of text)
LANGUAGE sql STABLE ROWS 60
SET search_path = pg_catalog, pg_temp
AS $$
    WITH told AS MATERIALIZED (
        SELECT e.place, e.name, e.category, e.description, e.fired_by,
               tasker._payload_schema(e.name, e.category, e.description) AS payload_schema,
               (SELECT x.payload FROM tasker._event_examples() AS x WHERE x.name = e.name) AS example_payload
        FROM tasker._system_events() AS e
        WHERE e.alias_of IS NULL
    )
    SELECT e.place, e.name, e.category, e.description, t.payload_schema, t.example_payload, t.fired_by, e.alias_of
    FROM tasker._system_events() AS e
    JOIN told AS t ON t.name = coalesce(e.alias_of, e.name)
    UNION ALL
    SELECT 1000, c.name, 'custom', c.description, c.payload_schema, tasker._custom_example(c.name, c.payload_schema),
           c.fired_by, NULL
    FROM tasker._seen_custom_events() AS c;
$$;
COMMENT ON FUNCTION tasker._catalog() IS
'All events, those of the engine and custom ones, with the place by which they are sorted, and then by name. Private.';

CREATE FUNCTION tasker._event_catalog(category text)
RETURNS TABLE (name text, category text, description text, payload_schema jsonb, example_payload jsonb, fired_by text[])
LANGUAGE sql STABLE SECURITY DEFINER ROWS 60
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT tasker._require('event:index', NULL);
    SELECT c.name, c.category, c.description, c.payload_schema, c.example_payload, c.fired_by
    FROM tasker._catalog() AS c
    WHERE c.category = _event_catalog.category
       OR _event_catalog.category IS NULL
    ORDER BY c.place, c.name COLLATE "C";
$$;
COMMENT ON FUNCTION tasker._event_catalog(text) IS
'What tasker.event_catalog() does, for its caller. Private.';

CREATE FUNCTION tasker.event_catalog(category text DEFAULT NULL)
RETURNS TABLE (name text, category text, description text, payload_schema jsonb, example_payload jsonb, fired_by text[])
LANGUAGE C STABLE ROWS 60
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.event_catalog(text) IS
'Returns every event that there is, those of the engine, their other names, and custom ones: name; category; description, for people; payload_schema, the JSON Schema (2020-12) of what it carries (of a custom one, of what is published; NULL: anything); example_payload; fired_by, the functions that bring it about, where executor is the process that runs steps (of a custom one, the templates and steps that name it). category: task, step, workflow, observability, registry or custom; NULL for all. Raises nothing. Source: design, contract, "Events"; reference 7.3.';

CREATE FUNCTION tasker._event_info(name text)
RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT tasker._require('event:index', NULL);
    SELECT jsonb_build_object(
               'name', c.name,
               'category', c.category,
               'description', c.description,
               'payload_schema', c.payload_schema,
               'example_payload', c.example_payload,
               'fired_by', to_jsonb(c.fired_by),
               'alias_of', c.alias_of)
           || coalesce((
                  SELECT jsonb_build_object('registered_by', e.registered_by, 'registered_at', e.registered_at)
                  FROM tasker._seen_custom_events() AS e
                  WHERE e.name = c.name), '{}')
    FROM tasker._catalog() AS c
    WHERE c.name = _event_info.name;
$$;
COMMENT ON FUNCTION tasker._event_info(text) IS
'What tasker.event_info() does, for its caller. Private.';

CREATE FUNCTION tasker.event_info(name text)
RETURNS jsonb
LANGUAGE C STABLE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.event_info(text) IS
'Returns what the catalogue says of one event, as jsonb: name, category, description, payload_schema, example_payload, fired_by, alias_of (the event that another name stands for, whose schema, example and fired_by it shows; else null), and of a custom one registered_by and registered_at. NULL where there is no such event. name: the whole name. Raises nothing. Source: design, contract, "Events"; overview, event discovery.';

CREATE FUNCTION tasker._search_events(query text)
RETURNS TABLE (name text, category text, description text, payload_schema jsonb, example_payload jsonb, fired_by text[])
LANGUAGE sql STABLE SECURITY DEFINER ROWS 20
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT tasker._require('event:index', NULL);
    SELECT c.name, c.category, c.description, c.payload_schema, c.example_payload, c.fired_by
    FROM tasker._catalog() AS c
    WHERE strpos(lower(c.name), lower(query)) > 0
       OR strpos(lower(c.description), lower(query)) > 0
    ORDER BY c.place, c.name COLLATE "C";
$$;
COMMENT ON FUNCTION tasker._search_events(text) IS
'What tasker.search_events() does, for its caller. Private.';

CREATE FUNCTION tasker.search_events(query text)
RETURNS TABLE (name text, category text, description text, payload_schema jsonb, example_payload jsonb, fired_by text[])
LANGUAGE C STABLE ROWS 20
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.search_events(text) IS
'Returns the events that have a text in their name or description, in capitals or not; columns as of tasker.event_catalog(). query: the text. Raises nothing. Source: reference 7.3.';

CREATE FUNCTION tasker._events_by_namespace(namespace text)
RETURNS TABLE (name text, category text, description text, payload_schema jsonb, example_payload jsonb, fired_by text[])
LANGUAGE sql STABLE SECURITY DEFINER ROWS 20
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT tasker._require('event:index', NULL);
    SELECT c.name, c.category, c.description, c.payload_schema, c.example_payload, c.fired_by
    FROM tasker._catalog() AS c
    WHERE split_part(c.name, '.', 1) = namespace
       OR c.category = namespace
    ORDER BY c.place, c.name COLLATE "C";
$$;
COMMENT ON FUNCTION tasker._events_by_namespace(text) IS
'What tasker.events_by_namespace() does, for its caller. Private.';

CREATE FUNCTION tasker.events_by_namespace(namespace text)
RETURNS TABLE (name text, category text, description text, payload_schema jsonb, example_payload jsonb, fired_by text[])
LANGUAGE C STABLE ROWS 20
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.events_by_namespace(text) IS
'Returns the events whose name begins with a namespace and a dot, or whose category it is; columns as of tasker.event_catalog(). namespace: task, order and the like. Raises nothing. Source: reference 7.3.';
