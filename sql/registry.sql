-- Handlers: what may be registered, by whom, and as whom it will run.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS tasker;
-- Only this test's handlers are looked at.
SELECT count(tasker.unregister_handler(name, namespace, version)) >= 0 AS alone
FROM tasker.handlers;
\set SHOW_CONTEXT never

CREATE ROLE regress_tasker_alice;
CREATE ROLE regress_tasker_bob;
CREATE ROLE regress_tasker_super SUPERUSER;
GRANT USAGE ON SCHEMA tasker TO regress_tasker_alice, regress_tasker_bob;
GRANT SELECT ON tasker.handlers TO regress_tasker_alice, regress_tasker_bob;
GRANT EXECUTE ON FUNCTION
    tasker.register_handler(text, regproc, text, text, boolean, text),
    tasker.register_external_handler(text, text, text, boolean),
    tasker.unregister_handler(text, text, text),
    tasker.registry_stats(text)
TO regress_tasker_alice, regress_tasker_bob;
CREATE SCHEMA regress_registry;
GRANT ALL ON SCHEMA regress_registry TO regress_tasker_alice;
GRANT USAGE ON SCHEMA regress_registry TO regress_tasker_bob;

SET ROLE regress_tasker_alice;
SET search_path = regress_registry, pg_temp;
CREATE FUNCTION fetch_cart(step tasker.step_context) RETURNS jsonb
LANGUAGE sql AS $$ SELECT '{}'::jsonb $$;
CREATE FUNCTION "Odd Name"(tasker.step_context) RETURNS jsonb
LANGUAGE sql AS $$ SELECT '{}'::jsonb $$;
CREATE FUNCTION takes_text(text) RETURNS jsonb
LANGUAGE sql AS $$ SELECT '{}'::jsonb $$;
CREATE FUNCTION returns_text(tasker.step_context) RETURNS text
LANGUAGE sql AS $$ SELECT '' $$;
CREATE FUNCTION returns_set(tasker.step_context) RETURNS SETOF jsonb
LANGUAGE sql AS $$ SELECT '{}'::jsonb $$;
CREATE PROCEDURE a_procedure(tasker.step_context)
LANGUAGE sql AS $$ SELECT 1 $$;
CREATE FUNCTION pg_temp.temporary(tasker.step_context) RETURNS jsonb
LANGUAGE sql AS $$ SELECT '{}'::jsonb $$;
CREATE FUNCTION secret(tasker.step_context) RETURNS jsonb
LANGUAGE sql AS $$ SELECT '{}'::jsonb $$;
REVOKE ALL ON FUNCTION secret(tasker.step_context) FROM PUBLIC;

-- A handler keeps the role and the search_path of its registration.
SELECT tasker.register_handler('Shop::Fetch', 'fetch_cart');
SELECT tasker.register_handler('odd', '"Odd Name"', 'shop', '1.0.0-rc.1', transaction => 'own');
SELECT tasker.register_external_handler('outside', version => '2.0.0');
SELECT namespace, name, version, kind, function, run_as, transaction
FROM tasker.handlers
ORDER BY namespace, name;

-- What cannot be a handler.
SELECT tasker.register_handler('x', 'takes_text');
\echo :LAST_ERROR_SQLSTATE
SELECT tasker.register_handler('x', 'returns_text');
SELECT tasker.register_handler('x', 'returns_set');
SELECT tasker.register_handler('x', 'a_procedure');
SELECT tasker.register_handler('x', 'count');
\set VERBOSITY sqlstate
SELECT tasker.register_handler('x', 'pg_temp.temporary');
\set VERBOSITY default
SELECT tasker.register_handler('x', NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT tasker.register_handler(NULL, 'fetch_cart');
SELECT tasker.register_handler('', 'fetch_cart');
\echo :LAST_ERROR_SQLSTATE
SELECT tasker.register_handler(' x', 'fetch_cart');
SELECT tasker.register_handler(repeat('x', 129), 'fetch_cart');
SELECT tasker.register_handler('api', 'fetch_cart');
SELECT tasker.register_handler('x', 'fetch_cart', version => '1.0');
\echo :LAST_ERROR_SQLSTATE
SELECT tasker.register_handler('x', 'fetch_cart', transaction => 'sometimes');
\echo :LAST_ERROR_SQLSTATE

-- A taken name, in both ways, and its replacement.
SELECT tasker.register_handler('Shop::Fetch', '"Odd Name"');
\echo :LAST_ERROR_SQLSTATE
SELECT tasker.register_external_handler('Shop::Fetch');
SELECT tasker.register_handler('outside', 'fetch_cart', version => '2.0.0');
SELECT tasker.register_handler('Shop::Fetch', '"Odd Name"', replace => true);
SELECT tasker.register_handler('Shop::Fetch', 'fetch_cart', version => '3.0.0');
SELECT name, version, kind, function
FROM tasker.handlers
WHERE name = 'Shop::Fetch'
ORDER BY version NULLS FIRST;

-- Others may neither take it over nor remove it, nor run what they may not call.
RESET ROLE;
SET ROLE regress_tasker_bob;
SELECT tasker.register_handler('Shop::Fetch', 'fetch_cart', replace => true);
SELECT tasker.unregister_handler('Shop::Fetch');
\echo :LAST_ERROR_SQLSTATE
SELECT tasker.register_handler('x', 'secret');
\echo :LAST_ERROR_SQLSTATE
SELECT tasker._register_handler('x', 'fetch_cart', 'default', NULL, false, 'shared', 'regress_tasker_alice', '');
\echo :LAST_ERROR_SQLSTATE
SELECT tasker.unregister_handler('Shop::Fetsch');
\echo :LAST_ERROR_SQLSTATE
SELECT tasker.unregister_handler('odd');

-- The role is the one in force, not the session's: in a function of somebody
-- else, and in an index expression that a superuser has evaluated.
RESET ROLE;
SET search_path = pg_catalog;
CREATE FUNCTION regress_registry.by_definer() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, regress_registry
AS $$
BEGIN
    PERFORM tasker.register_handler('by definer', 'regress_registry.fetch_cart', replace => true);
END;
$$;
ALTER FUNCTION regress_registry.by_definer() OWNER TO regress_tasker_alice;
SELECT regress_registry.by_definer();
SET ROLE regress_tasker_alice;
CREATE FUNCTION regress_registry.by_index(i integer) RETURNS integer
LANGUAGE plpgsql IMMUTABLE
AS $$
BEGIN
    IF current_setting('is_superuser') = 'on' THEN
        PERFORM tasker.register_handler('by index', 'regress_registry.fetch_cart');
    END IF;
    RETURN i;
END;
$$;
CREATE TABLE regress_registry.trap (i integer);
INSERT INTO regress_registry.trap VALUES (1);
CREATE INDEX ON regress_registry.trap (regress_registry.by_index(i));
RESET ROLE;
REINDEX TABLE regress_registry.trap;
SELECT name, run_as, search_path
FROM tasker.handler
WHERE name LIKE 'by %'
ORDER BY name;

-- A superuser is warned.
SET ROLE regress_tasker_super;
SELECT tasker.register_handler('Shop::Super', 'regress_registry.fetch_cart');
RESET ROLE;

SELECT jsonb_pretty(tasker.registry_stats() - 'last_registration') AS stats;
SELECT tasker.registry_stats() ->> 'last_registration'
       = to_char(max(registered_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS last
FROM tasker.handlers;

SELECT tasker.registry_stats('handler_registry');
\echo :LAST_ERROR_SQLSTATE
SELECT tasker.registry_stats(NULL);

-- Who serves a class: its namespace before default, its version before all.
SET ROLE regress_tasker_alice;
SET search_path = regress_registry, pg_temp;
SELECT tasker.register_external_handler('find', namespace => n, version => v)
FROM (VALUES ('shop', '1.0.0'), ('shop', NULL), ('default', '1.0.0'), ('default', '2.0.0'), ('default', NULL)) AS w (n, v);
RESET ROLE;
SET search_path = pg_catalog;
SELECT w.*, f.namespace AS found, f.version AS "for"
FROM (VALUES ('find', 'shop', '1.0.0'), ('find', 'shop', '2.0.0'), ('find', 'other', '2.0.0'), ('find', 'other', '3.0.0'),
             ('find', 'default', NULL), ('find', NULL, '1.0.0'), ('Shop::Fetsch', 'default', NULL)) AS w (name, namespace, version)
LEFT JOIN LATERAL tasker.find_handler(w.name, w.namespace, w.version) AS f ON true;
-- The same as an executor finds.
SELECT tasker.register_task(format('{"name": "find", "namespace_name": "%s", "version": "%s", "step_templates": [{"name": "only", "handler_class": "find"}]}', n, v)) > 0 AS registered
FROM (VALUES ('shop', '1.0.0'), ('shop', '2.0.0'), ('other', '2.0.0'), ('other', '3.0.0')) AS w (n, v);

-- Who has to do with an event.
SELECT tasker.register_task($${"name": "event", "task_handler_class": "EventTask", "custom_events": [{"name": "regress.done", "description": "All of it."}], "step_templates": [
    {"name": "first", "handler_class": "find", "custom_events": [{"name": "regress.first"}, {"name": "regress.done", "description": "The first."}]},
    {"name": "second", "handler_class": "find"}],
    "environments": {"live": {"step_templates": [{"name": "second", "custom_events": [{"name": "regress.live"}]}]}}}$$) > 0 AS registered;
SELECT * FROM tasker.find_by_event('regress.done');
SELECT name, step FROM tasker.find_by_event('regress.live');
SELECT name, step FROM tasker.find_by_event('regress.d');
SELECT tasker.register_task('{"name": "event", "step_templates": [{"name": "first", "handler_class": "find"}]}', replace => true) > 0 AS registered;
SELECT name, step FROM tasker.find_by_event('regress.done');

-- The registries, and what is in them.
SELECT r.registry_name, r.entity_type,
       r.registry_size = (SELECT count(*) FROM tasker.registry_items AS i WHERE i.registry_name = r.registry_name) AS counted,
       r.last_registration IS NOT NULL AS dated
FROM tasker.registries AS r
ORDER BY r.registry_name;
SELECT registry_name, entity_type, namespace, name, version, entity_class, registered_by
FROM tasker.registry_items
WHERE name IN ('Shop::Fetch', 'outside') OR (name = 'find' AND namespace = 'other')
ORDER BY registry_name, name, version NULLS FIRST;

-- What was done, a row each; what was rolled back, or refused, has none.
BEGIN;
SET LOCAL tasker.environment = 'regress';
SET LOCAL tasker.correlation_id = 'regress-1';
SELECT tasker.register_external_handler('logged', version => '1.0.0');
SAVEPOINT before;
SELECT tasker.register_external_handler('logged');
ROLLBACK TO before;
SELECT tasker.register_external_handler('logged', version => '1.0.0', replace => true);
COMMIT;
SELECT tasker.unregister_handler('logged', version => '1.0.0');
SELECT tasker.register_external_handler('', version => '1.0.0');
SELECT l.correlation_id = 'regress-1' OR l.correlation_id ~ '^tsk_[0-9a-z]{8,}_[0-9a-z]{6}$' AS correlated,
       l.component, l.message, l.environment, l.tasker_version = e.extversion AS version,
       l.process_id = pg_backend_pid() AS process, l.thread_id = to_hex(l.process_id) AS thread,
       l.entity_type, l.entity_id, l.entity_class, l.registry_name, l.options, l.event_type
FROM tasker.registry_log AS l
JOIN pg_extension AS e ON e.extname = 'tasker'
WHERE l.entity_id LIKE 'default/logged/%'
ORDER BY l.log_id;
SELECT entity_id, entity_class, options, event_type
FROM tasker.registry_log
WHERE entity_id = 'default/event/0.1.0'
ORDER BY log_id;
SELECT count(DISTINCT correlation_id) AS one
FROM tasker.registry_log
WHERE entity_id LIKE '%/find/%' AND entity_type = 'task_handler';
SELECT tasker._registry_line(l)::jsonb - '{timestamp,correlation_id,process_id,thread_id}'::text[] AS line,
       (tasker._registry_line(l)::jsonb ->> 'timestamp')::timestamptz = date_trunc('milliseconds', l."timestamp") AS at
FROM tasker.registry_log AS l
WHERE l.entity_id = 'default/logged/1.0.0' AND l.event_type = 'unregistered' AND l.environment IS NULL;
SELECT string_agg(k, ' ') AS fields
FROM (SELECT tasker._registry_line(l)::json AS line FROM tasker.registry_log AS l LIMIT 1) AS s
CROSS JOIN LATERAL json_object_keys(s.line) AS k;
SET ROLE regress_tasker_bob;
SELECT count(*) > 0 AS everybody_reads FROM tasker.registry_log;
SELECT tasker.prune_registry_log('0');
-- He may look at all of it.
SELECT count(*) FROM tasker.registries;
SELECT count(*) > 0 AS items FROM tasker.registry_items;
SELECT count(*) FROM tasker.find_handler('find', 'shop', '1.0.0');
SELECT count(*) FROM tasker.find_by_event('regress.done');
SELECT tasker.registry_stats('template_registry') ? 'total_templates' AS stats,
       tasker.registry_health() ? 'overall_healthy' AS health,
       tasker.registry_report() ? 'registries' AS report;
RESET ROLE;
SELECT tasker.prune_registry_log(NULL);
SELECT tasker.prune_registry_log() AS pruned;
BEGIN;
SELECT tasker.prune_registry_log('0') > 0 AS pruned;
SELECT count(*) FROM tasker.registry_log;
ROLLBACK;

-- Health: sound, and with each thing that can be wrong.  Other tests have left
-- templates behind whose handlers are gone.
BEGIN;
DELETE FROM tasker.plan WHERE name NOT IN ('find', 'event');
DELETE FROM tasker.template WHERE name NOT IN ('find', 'event');
SELECT h ->> 'overall_healthy' AS healthy, h ->> 'registry_count' AS registries, h ->> 'healthy_registries' AS of_them,
       h ->> 'unhealthy_registries' AS not, (h ->> 'checked_at')::timestamptz <= tasker.clock() AS checked,
       h -> 'registries' -> 'handler_factory' ->> 'status' AS handlers
FROM tasker.registry_health() AS h;
ROLLBACK;
CREATE FUNCTION regress_registry.sick(step tasker.step_context) RETURNS jsonb
LANGUAGE sql AS $$ SELECT '{}'::jsonb $$;
SET ROLE regress_tasker_alice;
SELECT tasker.register_handler('sick', 'regress_registry.sick');
RESET ROLE;
REVOKE ALL ON FUNCTION regress_registry.sick FROM PUBLIC;
SELECT p FROM jsonb_array_elements_text(tasker.registry_health() -> 'registries' -> 'handler_factory' -> 'problems') AS p;
BEGIN;
DELETE FROM tasker.plan WHERE name NOT IN ('find', 'event');
DELETE FROM tasker.template WHERE name NOT IN ('find', 'event');
SET LOCAL check_function_bodies = off;
DROP FUNCTION regress_registry.sick;
CREATE FUNCTION regress_registry.sick(step tasker.step_context) RETURNS text
LANGUAGE sql AS $$ SELECT 'x' $$;
SELECT p FROM jsonb_array_elements_text(tasker.registry_health() -> 'registries' -> 'handler_factory' -> 'problems') AS p;
DROP FUNCTION regress_registry.sick;
UPDATE tasker.handler SET run_as = 'nobody at all' WHERE name = 'sick';
SELECT tasker.unregister_handler('find', 'shop', '1.0.0'), tasker.unregister_handler('find', 'shop');
SELECT tasker.unregister_handler('find', 'default', '2.0.0'), tasker.unregister_handler('find');
SELECT tasker.register_task('{"name": "health", "step_templates": [{"name": "only", "handler_class": "sick", "handler_config": {"token": "${REGRESS_NONE}"}}]}') > 0 AS registered;
SELECT r.registry, h ->> 'status' AS status, p
FROM (VALUES ('handler_factory'), ('template_registry')) AS r (registry)
CROSS JOIN LATERAL (SELECT tasker.registry_health() -> 'registries' -> r.registry AS h) AS s
CROSS JOIN LATERAL jsonb_array_elements_text(h -> 'problems') AS p;
SELECT h ->> 'overall_healthy' AS healthy, h ->> 'healthy_registries' AS of_them, h ->> 'unhealthy_registries' AS not
FROM tasker.registry_health() AS h;
SELECT tasker.registry_stats() ->> 'status' AS handlers, tasker.registry_stats('template_registry') ->> 'status' AS templates;
SELECT r -> 'overall_health_percentage' AS healthy, r -> 'registry_count' AS registries,
       (r ->> 'total_registered_items')::bigint = (SELECT count(*) FROM tasker.registry_items) AS counted
FROM tasker.registry_report() AS r;
ROLLBACK;

-- The report, of handlers alone, as other tests' templates may be there.
SELECT r -> 'registry_count' AS registries, k.key,
       (SELECT string_agg(j, ', ') FROM jsonb_object_keys(r -> 'registries' -> 'handler_factory' -> k.key) AS j) AS keys
FROM tasker.registry_report() AS r
CROSS JOIN (VALUES ('stats'), ('health'), ('performance'), ('usage_patterns')) AS k (key);
SELECT h -> 'usage_patterns' ->> 'utilization' AS utilization, h -> 'usage_patterns' ->> 'growth_trend' AS trend,
       h -> 'usage_patterns' -> 'efficiency_score' AS score, h -> 'recommendations' AS recommendations
FROM (SELECT tasker.registry_report() -> 'registries' -> 'handler_factory' AS h) AS s;

-- Steps that wait for an external handler go back to the executors when it goes.
BEGIN;
INSERT INTO tasker.queue (due, task_id, lane, rank, due_lane, step_no)
SELECT '2000-01-01', 1099511627000 + n, CASE n WHEN 1 THEN h.handler_id ELSE -1 END, 0,
       CASE n WHEN 2 THEN h.handler_id END, 1
FROM tasker.handler AS h
CROSS JOIN generate_series(1, 3) AS n
WHERE h.name = 'outside';
SELECT tasker.unregister_handler('outside', version => '2.0.0');
SELECT lane, due_lane
FROM tasker.queue
WHERE task_id BETWEEN 1099511627001 AND 1099511627003
ORDER BY task_id;
ROLLBACK;

-- Semantic versions sort as semver.org says; build metadata does not count.
SELECT string_agg(version, ' < ' ORDER BY tasker._version_order(version) COLLATE "C") AS precedence
FROM unnest('{1.0.0,1.0.0-rc.1,1.0.0-beta.11,1.0.0-beta.2,1.0.0-beta,1.0.0-alpha.beta,1.0.0-alpha.1,1.0.0-alpha,2.1.1,2.1.0,2.0.0,1.10.0,1.9.0,1.0.0-1,1.0.0-alpha-x,10.0.0,9.999999999999999999999.0}'::text[]) AS version;
SELECT tasker._version_order('1.0.0+20130313144700') = tasker._version_order('1.0.0+exp.sha.5114f85') AS same;
SELECT version, tasker._version_order(version) IS NULL AS refused
FROM unnest('{1,1.0,v1.0.0,01.0.0,1.0.0-01,1.0.0-0a,1.0.0-,1.0.0+,1.0.0-a..b,1.0.0-ä,1.0.0-x+y-z.1}'::text[]) AS version;

-- The nearest name: few changes for its length, the first of equals.
SELECT name, tasker._nearest(name, '{fetch_cart,fetch_card,validate,x}')
FROM unnest('{fetch_cat,fetsh_cart,valdate,y,z9,"",validation}'::text[]) AS name;

RESET search_path;
\set VERBOSITY terse
SELECT count(tasker.unregister_handler(name, namespace, version)) AS unregistered
FROM tasker.handlers;
SELECT tasker.registry_stats() ->> 'total_handlers' AS total_handlers;
SET client_min_messages = error;
DROP SCHEMA regress_registry CASCADE;
DROP OWNED BY regress_tasker_alice, regress_tasker_bob;
DROP ROLE regress_tasker_alice, regress_tasker_bob, regress_tasker_super;
