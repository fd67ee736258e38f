-- Custom events: registered, published inside and outside handlers, named by
-- definitions; and the registries of events and subscribers.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS tasker;
\set SHOW_CONTEXT never
\pset null '(null)'
CREATE ROLE regress_event_alice;
CREATE ROLE regress_event_bob;
CREATE SCHEMA regress_custom;
GRANT ALL ON SCHEMA regress_custom TO regress_event_alice;

-- Ids and times left out.
CREATE FUNCTION regress_custom.told(event bigint)
RETURNS TABLE (name text, of_task boolean, step text, payload jsonb)
LANGUAGE sql AS $$
    SELECT e.name, e.task_id IS NOT NULL, e.payload ->> 'step_name',
           e.payload - '{timestamp,task_id,step_id,correlation_id}'::text[]
    FROM tasker._events(ARRAY[event], ARRAY[event]) AS e;
$$;

-- Names.
\set VERBOSITY verbose
SELECT tasker.register_event(NULL, 'none');
SELECT tasker.register_event('fulfilled', 'no namespace');
SELECT tasker.register_event('order.', 'nothing behind it');
SELECT tasker.register_event('task.completed', 'the engine''s');
SELECT tasker.register_event('task.finished', 'the engine''s namespace');
SELECT tasker.register_event('order.*', 'a prefix');
\set VERBOSITY terse
DO $$
DECLARE
    n text;
BEGIN
    FOREACH n IN ARRAY '{Step,workflow,observability,test,handler,plugin,subscriber,registry,template,tasker}'::text[] LOOP
        BEGIN
            PERFORM tasker.register_event(n || '.x', '');
            RAISE WARNING '% is free', n;
        EXCEPTION
            WHEN SQLSTATE 'TK005' THEN
                NULL;
        END;
    END LOOP;
END;
$$;
SELECT tasker.register_event('order.' || repeat('x', 130), '');
\set VERBOSITY default
-- Schemas.
SELECT tasker.register_event('order.fulfilled', 'x', '{"type": "objct", "required": "order_id"}');
SELECT tasker.register_event('order.fulfilled', 'x', '[]');

-- One, and again, and changed; by its registrar and those who may act as him.
SET ROLE regress_event_alice;
SELECT tasker.register_event('order.fulfilled', 'An order went out.',
    '{"type": "object", "required": ["order_id"], "properties": {"order_id": {"type": "integer", "minimum": 1}, "carrier": {"enum": ["dhl", "ups"]}}}');
SELECT tasker.register_event('order.fulfilled', 'An order went out.', tasker.event_info('order.fulfilled') -> 'payload_schema');
SELECT tasker.register_event('order.noted', NULL);
SET ROLE regress_event_bob;
SELECT tasker.register_event('order.fulfilled', 'Mine.');
SELECT tasker.unregister_event('order.fulfilled');
RESET ROLE;
SELECT name, category, description, payload_schema, example_payload, fired_by FROM tasker.event_catalog('custom') WHERE name LIKE 'order.%';
SELECT tasker.event_info('order.fulfilled') ->> 'registered_by' AS registered_by,
       (tasker.event_info('order.fulfilled') ->> 'registered_at')::timestamptz <= tasker.clock() AS registered;
SELECT name FROM tasker.search_events('WENT OUT');
SELECT name FROM tasker.events_by_namespace('order');
SELECT tasker._canonical_events('{order.fulfilled,order.*,step.failed}') AS canonical, tasker._canonical_events('{order.noted}');
SELECT tasker._canonical_events('{order.fullfilled}');
SELECT entity_id, options ->> 'replace' AS replace, event_type
FROM tasker.registry_log
WHERE registry_name = 'event_registry' AND entity_id LIKE 'order/%'
ORDER BY log_id;

-- Examples come from the schema, as far as it has something to show.
SELECT s.schema, tasker._custom_example('a.b', s.schema) - 'timestamp' AS example
FROM (VALUES
    ('{"examples": [{"x": 1}]}'::jsonb),
    ('{"properties": {"a": {"const": 3}, "b": {"default": "d"}, "c": {"type": "array"}, "d": {"type": "string"}, "e": true}}'),
    ('{"properties": {"email": {"type": "string", "pattern": "^never$"}}}'),
    ('{"$ref": "urn:regress:none"}')) AS s (schema);

-- Published outside a task.
SELECT tasker.publish_event('order.fulfilled', '{"order_id": 7, "carrier": "dhl", "version": 3}') AS event \gset
SELECT * FROM regress_custom.told(:event);
SET ROLE regress_event_bob;
SELECT tasker.publish_event('order.noted', '{}') > 0 AS anybody_may;
RESET ROLE;
\set VERBOSITY verbose
SELECT tasker.publish_event('order.fulfilled', '{"order_id": "7", "carrier": "me"}');
SELECT tasker.publish_event('order.noted', '[1]');
SELECT tasker.publish_event('order.noted', NULL);
SELECT tasker.publish_event('order.note', '{}');
SELECT tasker.publish_event('task.completed', '{}');
SELECT tasker.publish_event(NULL, '{}');
\set VERBOSITY default
SELECT tasker.publish_event('order.noted', '{"event_type": "order.other"}');

-- Inside a handler: its step's.  What a handler that fails has published is gone.
CREATE FUNCTION regress_custom.publish(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    id bigint;
BEGIN
    IF step.context ->> 'publish' = 'other' THEN
        id := tasker.publish_event('order.noted', '{}', task_id => (step.context ->> 'other')::bigint);
    ELSE
        id := tasker.publish_event('order.noted', jsonb_build_object('attempt', step.attempt));
    END IF;
    IF (step.context ->> 'fail')::boolean THEN
        PERFORM tasker.permanent_error('regress');
    END IF;
    RETURN to_jsonb(id);
END;
$$;
SET client_min_messages = error;
SELECT tasker.register_handler('publish', 'regress_custom.publish', 'regress_custom');
SET client_min_messages = warning;
SELECT tasker.register_task($$
name: publish
namespace_name: regress_custom
custom_events: [{name: regress.template, description: The template's.}]
step_templates:
  - name: first
    handler_class: publish
    custom_events:
      - {name: order.noted}
      - {name: regress.step, description: The step's., payload_schema: {type: object, required: [a]}}
$$) > 0 AS registered;
SELECT tasker.create_task('publish', namespace => 'regress_custom', tags => '{x}') AS task \gset
SELECT tasker.wait_for_task(:task, '60 s') AS state;
SELECT results AS event FROM tasker.workflow_steps WHERE task_id = :task \gset
SELECT * FROM regress_custom.told(:event);
SELECT p.task_id = :task AS task, p.step_no, p.namespace, p.payload FROM tasker.published_event AS p WHERE p.event_id = :event;
SELECT tasker.create_task('publish', format('{"publish": "other", "other": %s}', :task)::jsonb, 'regress_custom') AS other \gset
SELECT tasker.wait_for_task(:other, '60 s') AS state;
SELECT t.*
FROM tasker.workflow_steps AS s
CROSS JOIN LATERAL regress_custom.told((s.results #>> '{}')::bigint) AS t
WHERE s.task_id = :other;
SELECT tasker.create_task('publish', '{"fail": true}', 'regress_custom') AS failed \gset
SELECT tasker.wait_for_task(:failed, '60 s') AS state;
SELECT count(*) FROM tasker.published_event AS p WHERE p.task_id = :failed;
-- In place, too; and behind it nothing runs.
SELECT tasker.run_task('publish', '{}', 'regress_custom') ->> 'task_id' AS task_in_place \gset
SELECT t.name, t.step
FROM tasker.workflow_steps AS s
CROSS JOIN LATERAL regress_custom.told((s.results #>> '{}')::bigint) AS t
WHERE s.task_id = :task_in_place;
SELECT tasker._running_step();
-- By its step alone, and by a task alone.
SELECT tasker.publish_event('order.noted', '{"priority": 0}', step_id => :task << 14 | 1) AS event \gset
SELECT * FROM regress_custom.told(:event);
SELECT tasker.publish_event('order.noted', '{}', :task) AS event \gset
SELECT * FROM regress_custom.told(:event);
BEGIN;
SELECT tasker.publish_event('order.noted', '{}', :task) AS event \gset
ROLLBACK;
SELECT count(*) FROM regress_custom.told(:event);
SELECT tasker.publish_event('order.noted', '{"priority": "high", "tags": ["y"]}', :task);
DO $$ BEGIN PERFORM tasker.publish_event('order.noted', '{}', 1::bigint << 39); EXCEPTION WHEN SQLSTATE 'TK007' THEN RAISE WARNING '%', SQLSTATE; END $$;
DO $$ BEGIN PERFORM tasker.publish_event('order.noted', '{}', step_id => (SELECT max(task_id) << 14 | 2 FROM tasker.task)); EXCEPTION WHEN SQLSTATE 'TK007' THEN RAISE WARNING '%', SQLSTATE; END $$;
DO $$ BEGIN PERFORM tasker.publish_event('order.noted', '{}', 1, 2 << 14 | 1); EXCEPTION WHEN invalid_parameter_value THEN RAISE WARNING '%', SQLSTATE; END $$;

-- What definitions name is registered with them, and they are what fires it.
SELECT name, description, payload_schema, registered_by = current_user AS mine, fired_by
FROM tasker.custom_event
WHERE name LIKE 'regress.%' AND fired_by::text LIKE '%regress_custom%' OR name = 'order.noted'
ORDER BY name;
SELECT * FROM tasker.find_by_event('order.noted');
-- Another role's stays as it was registered.
SET ROLE regress_event_bob;
SELECT tasker.register_task($$
name: other
namespace_name: regress_custom
custom_events: [{name: order.noted}, {name: order.fulfilled, description: Another one's.}]
step_templates: [{name: only, handler_class: publish}]
$$) > 0 AS registered;
RESET ROLE;
SELECT name, description, registered_by, fired_by FROM tasker.custom_event WHERE name LIKE 'order.%' ORDER BY name;
-- Another text takes its own word back, and only that.
SELECT tasker.register_task($$
name: publish
namespace_name: regress_custom
step_templates:
  - {name: first, handler_class: publish, custom_events: [{name: regress.step}]}
$$, replace => true) > 0 AS registered;
SELECT name, description, payload_schema, fired_by
FROM tasker.custom_event
WHERE name IN ('regress.template', 'regress.step') OR name = 'order.noted'
ORDER BY name;
-- A definition is refused by the same rules.
SELECT path, message, hint
FROM tasker.validate_task($$
name: x
custom_events: [{name: big}, {name: workflow.x}, {name: step.completed}, {name: a.*}, {name: order.fine}]
step_templates: [{name: only, handler_class: publish, custom_events: [{name: handler.x}]}]
namespace_name: regress_custom
$$);
SELECT w.name, (tasker._event_name_problem(w.name) IS NULL)
       = tasker.json_schema_is_valid(tasker.definition_schema() -> 'properties' -> 'custom_events' -> 'items' -> 'properties' -> 'name', to_jsonb(w.name)) AS same
FROM unnest('{order.big,order.big.one,big,task.x,order.,.order,a..b,a.*,plugin.x,tasks.x}'::text[]) AS w (name);

-- Subscribers in their registry.
BEGIN;
INSERT INTO tasker.subscriber (name, events, channel, handler, namespace, is_probe_all, run_as, registered_at)
VALUES ('regress_all', '{*}', 'bell', NULL, NULL, false, current_user, tasker.clock()),
       ('regress_orders', '{order.*,step.failed}', NULL, NULL, 'regress_custom', false, current_user, tasker.clock()),
       ('regress_gone', '{task.completed}', NULL, 'regress_custom.gone', NULL, false, 'regress_event_nobody', tasker.clock());
SELECT registry_name, entity_type, namespace, name, version, entity_class
FROM tasker.registry_items
WHERE registry_name = 'subscriber_registry' AND name LIKE 'regress%'
ORDER BY name;
SELECT w.event, f.name
FROM unnest('{order.fulfilled,task.completed,workflow.step_failed,step.started,nothing.known}'::text[]) AS w (event)
LEFT JOIN LATERAL tasker.find_by_event(w.event) AS f ON f.registry_name = 'subscriber_registry' AND f.name LIKE 'regress%';
SELECT p.problem FROM tasker._registry_problems() AS p WHERE p.registry_name = 'subscriber_registry' AND p.problem LIKE '%regress_gone%';
CREATE FUNCTION regress_custom.gone(event tasker.event) RETURNS void LANGUAGE sql AS 'SELECT';
REVOKE ALL ON FUNCTION regress_custom.gone FROM PUBLIC;
UPDATE tasker.subscriber SET run_as = 'regress_event_bob' WHERE name = 'regress_gone';
SELECT p.problem FROM tasker._registry_problems() AS p WHERE p.registry_name = 'subscriber_registry' AND p.problem LIKE '%regress_gone%';
GRANT EXECUTE ON FUNCTION regress_custom.gone TO regress_event_bob;
SELECT p.problem FROM tasker._registry_problems() AS p WHERE p.registry_name = 'subscriber_registry' AND p.problem LIKE '%regress_gone%';
SELECT (tasker.registry_stats('subscriber_registry') ->> 'total_subscribers')::integer >= 3 AS subscribers,
       (tasker.registry_stats('event_registry') ->> 'total_events')::integer >= 4 AS events,
       tasker.registry_stats('event_registry') -> 'events_by_namespace' ? 'order' AS by_namespace,
       tasker.registry_report() -> 'registries' ? 'event_registry' AS report;
-- An event whose schema leans on one that is gone.
SELECT tasker.register_schema('{"type": "object"}', 'urn:regress:event');
SELECT tasker.register_event('regress.leaning', '', '{"$ref": "urn:regress:event"}');
SELECT tasker.unregister_schema('urn:regress:event');
SELECT p.problem FROM tasker._registry_problems() AS p WHERE p.registry_name = 'event_registry' AND p.problem LIKE '%regress.leaning%';
ROLLBACK;

-- What is registered and removed is an event, with what the registry's log has.
SELECT tasker.register_external_handler('announced', 'regress_custom');
SELECT tasker.unregister_handler('announced', 'regress_custom');
SELECT p.name, p.namespace, p.task_id, e.payload - '{timestamp,correlation_id,process_id,thread_id,tasker_version}'::text[] AS payload
FROM tasker.published_event AS p
CROSS JOIN LATERAL tasker._events(ARRAY[p.event_id], ARRAY[p.event_id]) AS e
WHERE p.payload ->> 'entity_id' = 'regress_custom/announced/*'
ORDER BY p.event_id;
BEGIN;
SELECT tasker.register_external_handler('announced', 'regress_custom');
ROLLBACK;
SELECT count(*) FROM tasker.published_event AS p WHERE p.payload ->> 'entity_id' = 'regress_custom/announced/*';

-- Removed.
SELECT tasker.unregister_event('order.fulfiled');
SELECT tasker.unregister_event('task.completed');
SELECT tasker.unregister_event(NULL);
SET ROLE regress_event_alice;
SELECT tasker.unregister_event('order.fulfilled');
SELECT tasker.unregister_event('order.noted');
RESET ROLE;
SELECT tasker.event_info('order.fulfilled') AS gone;
SELECT tasker.publish_event('order.fulfilled', '{"order_id": 7}');

SELECT tasker.unregister_event('regress.template');
SELECT tasker.unregister_event('regress.step');
SELECT tasker.unregister_handler('publish', 'regress_custom');
DROP SCHEMA regress_custom CASCADE;
DROP ROLE regress_event_alice;
DROP ROLE regress_event_bob;
