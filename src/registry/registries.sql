-- What every registry has: a list of its entries, look-up, statistics, health.
-- Where a registry joins, it gets a branch in registry_items, in
-- _registry_problems() and, if it has to do with events, in find_by_event().

CREATE FUNCTION tasker._subscriber_entity_class(handler text)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(handler || CASE WHEN handler LIKE '%(%)' THEN '' ELSE '(tasker.event)' END, 'fetched');
$$;
COMMENT ON FUNCTION tasker._subscriber_entity_class(text) IS
'What gets a subscriber''s events, as the registries show it: the signature of its function, or fetched. Private.';

CREATE VIEW tasker.registry_items WITH (security_invoker) AS
SELECT 'handler_factory'::text AS registry_name,
       'task_handler'::text AS entity_type,
       h.namespace,
       h.name,
       h.version,
       tasker._handler_entity_class(h.kind, h.function) AS entity_class,
       h.run_as AS registered_by,
       h.registered_at
FROM tasker.handler AS h
UNION ALL
SELECT 'template_registry',
       'task_template',
       t.namespace,
       t.name,
       t.version,
       t.definition ->> 'task_handler_class',
       t.registered_by,
       t.registered_at
FROM tasker.template AS t
UNION ALL
SELECT 'subscriber_registry',
       'subscriber',
       coalesce(s.namespace, 'default'),
       s.name,
       NULL,
       tasker._subscriber_entity_class(s.handler),
       s.run_as,
       s.registered_at
FROM tasker.subscriber AS s
UNION ALL
SELECT 'event_registry',
       'custom_event',
       split_part(e.name, '.', 1),
       e.name,
       NULL,
       NULL,
       e.registered_by,
       e.registered_at
FROM tasker.custom_event AS e;
COMMENT ON VIEW tasker.registry_items IS 'All that is registered, of every registry.';
COMMENT ON COLUMN tasker.registry_items.registry_name IS 'handler_factory, template_registry, subscriber_registry or event_registry.';
COMMENT ON COLUMN tasker.registry_items.entity_type IS 'task_handler, task_template, subscriber or custom_event.';
COMMENT ON COLUMN tasker.registry_items.namespace IS 'Namespace it belongs to: of a subscriber, the one whose events it hears, or default for all; of a custom event, the first part of its name.';
COMMENT ON COLUMN tasker.registry_items.name IS 'Name it is registered under.';
COMMENT ON COLUMN tasker.registry_items.version IS 'Version; NULL: every one.';
COMMENT ON COLUMN tasker.registry_items.entity_class IS 'The function''s signature, or external; task_handler_class of a template; fetched of a subscriber without a function.';
COMMENT ON COLUMN tasker.registry_items.registered_by IS 'Role that registered it.';
COMMENT ON COLUMN tasker.registry_items.registered_at IS 'When it was registered, or last replaced.';

CREATE VIEW tasker.registries WITH (security_invoker) AS
SELECT r.registry_name,
       r.entity_type,
       r.holds,
       coalesce(i.size, 0) AS registry_size,
       i.last_registration
FROM tasker._registries() AS r
LEFT JOIN (
    SELECT n.registry_name, count(*) AS size, max(n.registered_at) AS last_registration
    FROM tasker.registry_items AS n
    GROUP BY n.registry_name) AS i ON i.registry_name = r.registry_name;
COMMENT ON VIEW tasker.registries IS 'The registries.';
COMMENT ON COLUMN tasker.registries.registry_name IS 'Name of the registry.';
COMMENT ON COLUMN tasker.registries.entity_type IS 'What one entry is.';
COMMENT ON COLUMN tasker.registries.holds IS 'What it holds, for people.';
COMMENT ON COLUMN tasker.registries.registry_size IS 'Number of entries.';
COMMENT ON COLUMN tasker.registries.last_registration IS 'When an entry was last registered or replaced; NULL: there is none.';

CREATE FUNCTION tasker.find_handler(name text, namespace text DEFAULT 'default', version text DEFAULT NULL)
RETURNS SETOF tasker.handlers
LANGUAGE sql STABLE ROWS 1
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT h.*
    FROM tasker.handlers AS h
    WHERE h.name = find_handler.name
      AND h.namespace IN (find_handler.namespace, 'default')
      AND (h.version = find_handler.version OR h.version IS NULL)
    ORDER BY h.namespace <> find_handler.namespace, h.version IS NULL
    LIMIT 1;
$$;
COMMENT ON FUNCTION tasker.find_handler(text, text, text) IS
'Returns the handler that serves a step whose handler_class is name, in a task of that namespace and version, as steps look it up: in the namespace before default, for the exact version before the one for all; no row where none does. version NULL: that of a task whose version has no handler of its own. Raises nothing. Source: overview, registry systems; reference 6.1.';

CREATE FUNCTION tasker._find_by_event(event text)
RETURNS TABLE (registry_name text, entity_type text, namespace text, name text, version text, step text, description text)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT tasker._require('event:index', '*');
    WITH owner AS (
        SELECT p.namespace, p.name, p.version, NULL::text AS step, p.definition -> 'custom_events' AS events
        FROM tasker.plan AS p
        WHERE p.retired_at IS NULL
        UNION ALL
        SELECT p.namespace, p.name, p.version, s.element ->> 'name', s.element -> 'custom_events'
        FROM tasker.plan AS p
        CROSS JOIN LATERAL tasker._elements(p.definition -> 'step_templates') AS s
        WHERE p.retired_at IS NULL
          AND s.element ? 'custom_events'
    )
    SELECT DISTINCT 'template_registry', 'task_template', o.namespace, o.name, o.version, o.step, e.element ->> 'description'
    FROM owner AS o
    CROSS JOIN LATERAL tasker._elements(o.events) AS e
    WHERE e.element ->> 'name' = _find_by_event.event
    UNION ALL
    SELECT 'event_registry', 'custom_event', split_part(c.name, '.', 1), c.name, NULL, NULL, c.description
    FROM tasker.custom_event AS c
    WHERE c.name = _find_by_event.event
    UNION ALL
    SELECT 'subscriber_registry', 'subscriber', coalesce(s.namespace, 'default'), s.name, NULL, NULL,
           tasker._subscriber_entity_class(s.handler)
    FROM tasker.subscriber AS s
    WHERE EXISTS (
        SELECT
        FROM unnest(s.events) AS w (name)
        CROSS JOIN LATERAL (
            SELECT coalesce(tasker._system_event(_find_by_event.event), _find_by_event.event) AS name) AS told
        WHERE w.name IN (told.name, '*')
           OR right(w.name, 2) = '.*' AND starts_with(told.name, left(w.name, -1)))
    ORDER BY 1, 3, 4, 5, 6 NULLS FIRST, 7;
$$;
COMMENT ON FUNCTION tasker._find_by_event(text) IS
'What tasker.find_by_event() does, for its caller. Private.';

CREATE FUNCTION tasker.find_by_event(event text)
RETURNS TABLE (registry_name text, entity_type text, namespace text, name text, version text, step text, description text)
LANGUAGE C STABLE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.find_by_event(text) IS
'Returns who has to do with an event: the templates and steps that are registered and name it in custom_events (step is NULL where the template itself does), the custom event itself, and the subscribers that hear of it. event: the whole name, such as order.paid; another name of an event stands for it. Raises nothing. Source: overview, registry systems; reference 6.4.';

CREATE FUNCTION tasker._some_names(names text[])
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT array_to_string(names[1:3], ', ')
           || CASE WHEN cardinality(names) > 3 THEN format(' and %s more', cardinality(names) - 3) ELSE '' END;
$$;
COMMENT ON FUNCTION tasker._some_names(text[]) IS
'The first three names, and how many more there are. Private.';

CREATE FUNCTION tasker._needed_handlers()
RETURNS TABLE (namespace text, version text, handler_class text, is_required boolean)
LANGUAGE sql STABLE ROWS 100
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT p.namespace, p.version, s.handler_class, bool_or(s.handler_type IS DISTINCT FROM 'api')
    FROM tasker.plan AS p
    JOIN tasker.plan_step AS s ON s.plan_id = p.plan_id
    WHERE p.retired_at IS NULL
    GROUP BY p.namespace, p.version, s.handler_class;
$$;
COMMENT ON FUNCTION tasker._needed_handlers() IS
'The handlers that steps of registered templates look for, by the namespace and version of the template: few, however many templates there are; is_required: not by HTTP steps alone, which do without. Private.';

CREATE FUNCTION tasker._registry_problems()
RETURNS TABLE (registry_name text, items bigint, problem text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH handler AS MATERIALIZED (
        SELECT h.namespace, h.name, h.version, h.function, h.run_as,
               format('Handler %s of namespace %s', h.name, h.namespace) AS title,
               to_regprocedure(h.function || '(tasker.step_context)') AS found,
               (SELECT r.oid FROM pg_roles AS r WHERE r.rolname = h.run_as) AS role
        FROM tasker.handler AS h
        WHERE h.kind = 'sql'
    ), subscriber AS MATERIALIZED (
        SELECT s.name, s.handler, s.run_as,
               format('Subscriber %s', s.name) AS title,
               to_regprocedure(tasker._subscriber_entity_class(s.handler)) AS found,
               (SELECT r.oid FROM pg_roles AS r WHERE r.rolname = s.run_as) AS role
        FROM tasker.subscriber AS s
        WHERE s.handler IS NOT NULL
    ), unserved AS MATERIALIZED (
        SELECT n.*
        FROM tasker._needed_handlers() AS n
        WHERE n.is_required
          AND NOT EXISTS (
            SELECT
            FROM tasker.handler AS h
            WHERE h.name = n.handler_class
              AND h.namespace IN (n.namespace, 'default')
              AND (h.version IS NULL OR h.version = n.version))
    )
    (SELECT 'handler_factory', 1::bigint,
            format('%s: function %s(tasker.step_context) does not exist. Create it, or unregister the handler.', h.title, h.function)
     FROM handler AS h
     WHERE h.found IS NULL
     ORDER BY h.namespace, h.name, h.version)
    UNION ALL
    (SELECT 'handler_factory', 1,
            format('%s: role %s does not exist. Register the handler again as a role that does.', h.title, h.run_as)
     FROM handler AS h
     WHERE h.role IS NULL
     ORDER BY h.namespace, h.name, h.version)
    UNION ALL
    (SELECT 'handler_factory', 1,
            format('%s: function %s(tasker.step_context) does not return jsonb any more. Create it anew, or register another one.', h.title, h.function)
     FROM handler AS h
     JOIN pg_proc AS p ON p.oid = h.found
     WHERE p.prorettype <> 'jsonb'::regtype
        OR p.proretset
        OR p.prokind <> 'f'
     ORDER BY h.namespace, h.name, h.version)
    UNION ALL
    (SELECT 'handler_factory', 1,
            format('%s: role %s may not execute function %s(tasker.step_context). Grant it EXECUTE on it.', h.title, h.run_as, h.function)
     FROM handler AS h
     WHERE h.found IS NOT NULL
       AND h.role IS NOT NULL
       AND NOT has_function_privilege(h.role, h.found::oid, 'EXECUTE')
     ORDER BY h.namespace, h.name, h.version)
    UNION ALL
    (SELECT 'template_registry', count(*),
            format('Handler "%s" is not registered for steps of %s. Register it, or replace the definition.',
                   t.handler_class, tasker._some_names(array_agg(t.title ORDER BY t.title)))
     FROM (SELECT DISTINCT u.handler_class, format('%s.%s@%s', p.namespace, p.name, p.version) AS title
           FROM unserved AS u
           JOIN tasker.plan AS p ON p.namespace = u.namespace
                                AND p.version = u.version
                                AND p.retired_at IS NULL
           JOIN tasker.plan_step AS s ON s.plan_id = p.plan_id
                                     AND s.handler_class = u.handler_class
                                     AND s.handler_type IS DISTINCT FROM 'api') AS t
     GROUP BY t.handler_class
     ORDER BY t.handler_class)
    UNION ALL
    (SELECT 'template_registry', count(*),
            format('Secret "%s" is not set, which steps of %s need. SELECT tasker.set_secret(%L, ''...'') sets it.',
                   m.secret, tasker._some_names(array_agg(m.title ORDER BY m.title)), m.secret)
     FROM (SELECT DISTINCT s.name AS secret, format('%s.%s@%s', s.namespace, s.task, s.version) AS title
           FROM tasker._missing_secrets() AS s) AS m
     GROUP BY m.secret
     ORDER BY m.secret)
    UNION ALL
    (SELECT 'subscriber_registry', 1,
            format('%s: function %s does not exist. Create it, or unsubscribe.', s.title, tasker._subscriber_entity_class(s.handler))
     FROM subscriber AS s
     WHERE s.found IS NULL
     ORDER BY s.name)
    UNION ALL
    (SELECT 'subscriber_registry', 1,
            format('%s: role %s does not exist. Subscribe again as a role that does.', s.title, s.run_as)
     FROM subscriber AS s
     WHERE s.role IS NULL
     ORDER BY s.name)
    UNION ALL
    (SELECT 'subscriber_registry', 1,
            format('%s: role %s may not execute function %s. Grant it EXECUTE on it.',
                   s.title, s.run_as, tasker._subscriber_entity_class(s.handler))
     FROM subscriber AS s
     WHERE s.found IS NOT NULL
       AND s.role IS NOT NULL
       AND NOT has_function_privilege(s.role, s.found::oid, 'EXECUTE')
     ORDER BY s.name)
    UNION ALL
    (SELECT 'event_registry', 1,
            format('Event %s: its payload_schema %s. Register it again with another one.', c.name, p.message)
     FROM tasker.custom_event AS c
     CROSS JOIN LATERAL (
         SELECT p.message
         FROM tasker._schema_problems(c.payload_schema) AS p
         LIMIT 1) AS p
     ORDER BY c.name);
$$;
COMMENT ON FUNCTION tasker._registry_problems() IS
'What is wrong with what is registered: the registry, how many of its entries it concerns, and a sentence that says what to do. Private.';

CREATE FUNCTION tasker._check_registry(registry text)
RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (SELECT FROM tasker._registries() AS r WHERE r.registry_name = registry) THEN
        RETURN;
    END IF;
    RAISE EXCEPTION USING
        ERRCODE = 'TK007',
        MESSAGE = format('there is no registry "%s"', left(registry, 200)),
        DETAIL = format('There are %s.', (SELECT string_agg(r.registry_name, ', ') FROM tasker._registries() AS r)),
        HINT = coalesce(tasker._did_you_mean(registry, ARRAY(SELECT r.registry_name FROM tasker._registries() AS r)),
                        'The view tasker.registries shows them.');
END;
$$;
COMMENT ON FUNCTION tasker._check_registry(text) IS
'Raises TK007 where there is no such registry. Private.';

CREATE FUNCTION tasker._registry_stats(registry text, problems bigint)
RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH item AS MATERIALIZED (
        SELECT i.namespace, i.version, i.registered_at
        FROM tasker.registry_items AS i
        WHERE i.registry_name = registry
    ), version AS (
        SELECT i.namespace, i.version, tasker._version_order(i.version) COLLATE "C" AS rank
        FROM (SELECT DISTINCT s.namespace, s.version FROM item AS s WHERE s.version IS NOT NULL) AS i
    ), total AS (
        SELECT count(*) AS size, max(i.registered_at) AS last
        FROM item AS i
    )
    SELECT jsonb_build_object(
        'registry_name', r.registry_name,
        'total_' || r.items, t.size,
        'namespaces', coalesce((
            SELECT jsonb_agg(n.namespace ORDER BY n.namespace COLLATE "C")
            FROM (SELECT DISTINCT i.namespace FROM item AS i) AS n), '[]'),
        'total_namespaces', (SELECT count(DISTINCT i.namespace) FROM item AS i),
        'versions', coalesce((
            SELECT jsonb_agg(v.version ORDER BY v.rank, v.version COLLATE "C")
            FROM (SELECT DISTINCT w.version, w.rank FROM version AS w) AS v), '[]'),
        r.items || '_by_namespace', coalesce((
            SELECT jsonb_object_agg(n.namespace, n.size)
            FROM (SELECT i.namespace, count(*) AS size FROM item AS i GROUP BY i.namespace) AS n), '{}'),
        'versions_by_namespace', coalesce((
            SELECT jsonb_object_agg(n.namespace, n.versions)
            FROM (SELECT v.namespace, jsonb_agg(v.version ORDER BY v.rank, v.version COLLATE "C") AS versions
                  FROM version AS v
                  GROUP BY v.namespace) AS n), '{}'),
        'thread_safe', true,
        'last_registration', to_char(t.last AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
        'registry_size', t.size,
        'status', CASE problems WHEN 0 THEN 'healthy' ELSE 'unhealthy' END)
    FROM tasker._registries() AS r
    CROSS JOIN total AS t
    WHERE r.registry_name = registry;
$$;
COMMENT ON FUNCTION tasker._registry_stats(text, bigint) IS
'What tasker.registry_stats() returns of a registry that has so many problems. Private.';

CREATE FUNCTION tasker._registry_stats(registry text)
RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tasker._require('handler:index', '*');
    PERFORM tasker._check_registry(registry);
    RETURN tasker._registry_stats(registry, (
        SELECT count(*)
        FROM tasker._registry_problems() AS p
        WHERE p.registry_name = registry));
END;
$$;
COMMENT ON FUNCTION tasker._registry_stats(text) IS
'What tasker.registry_stats() does, for its caller. Private.';

CREATE FUNCTION tasker.registry_stats(registry text DEFAULT 'handler_factory')
RETURNS jsonb
LANGUAGE C STABLE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.registry_stats(text) IS
'Returns what a registry holds, as jsonb: registry_name, total_handlers (total_templates, total_subscribers, total_events), namespaces and versions (sorted), total_namespaces, handlers_by_namespace (and so on), versions_by_namespace, thread_safe (always true: registering is transactional), last_registration (UTC; null where nothing is registered), registry_size, status (healthy or unhealthy). registry: handler_factory, template_registry, subscriber_registry or event_registry. Raises TK007 (no such registry). Source: overview, registry statistics; reference 6.1.';

CREATE FUNCTION tasker._registry_health()
RETURNS jsonb
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT tasker._require('handler:index', '*');
    WITH problem AS MATERIALIZED (
        SELECT p.registry_name, p.problem, row_number() OVER () AS place
        FROM tasker._registry_problems() AS p
    ), registry AS MATERIALIZED (
        SELECT r.registry_name, r.registry_size,
               coalesce((SELECT jsonb_agg(p.problem ORDER BY p.place)
                         FROM problem AS p
                         WHERE p.registry_name = r.registry_name), '[]') AS problems
        FROM tasker.registries AS r
    )
    SELECT jsonb_build_object(
        'overall_healthy', bool_and(r.problems = '[]'),
        'registry_count', count(*),
        'healthy_registries', count(*) FILTER (WHERE r.problems = '[]'),
        'unhealthy_registries', count(*) FILTER (WHERE r.problems <> '[]'),
        'registries', jsonb_object_agg(r.registry_name, jsonb_build_object(
            'healthy', r.problems = '[]',
            'status', CASE WHEN r.problems = '[]' THEN 'healthy' ELSE 'unhealthy' END,
            'registry_size', r.registry_size,
            'thread_safe', true,
            'problems', r.problems)),
        'checked_at', to_char(tasker.clock() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))
    FROM registry AS r;
$$;
COMMENT ON FUNCTION tasker._registry_health() IS
'What tasker.registry_health() does, for its caller. Private.';

CREATE FUNCTION tasker.registry_health()
RETURNS jsonb
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.registry_health() IS
'Returns how the registries are, as jsonb: overall_healthy, registry_count, healthy_registries and unhealthy_registries (numbers), registries (of each: healthy, status, registry_size, thread_safe, problems in sentences that say what to do), checked_at. A handler whose function or role is gone, whose function returns something else or may not be executed, makes handler_factory unhealthy; a step whose handler is not registered, or whose secret is not set, template_registry; a subscriber whose function or role is gone or whose function may not be executed, subscriber_registry; an event whose payload_schema refers to what is gone, event_registry. Raises nothing. Source: overview, health monitoring; reference 6.4.';

CREATE FUNCTION tasker._unused_handlers()
RETURNS TABLE (namespace text, name text, version text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH used AS (
        SELECT f.namespace, f.name, f.version
        FROM tasker._needed_handlers() AS n
        CROSS JOIN LATERAL tasker.find_handler(n.handler_class, n.namespace, n.version) AS f
    )
    SELECT h.namespace, h.name, h.version
    FROM tasker.handler AS h
    WHERE NOT EXISTS (
        SELECT
        FROM used AS u
        WHERE u.namespace = h.namespace
          AND u.name = h.name
          AND u.version IS NOT DISTINCT FROM h.version);
$$;
COMMENT ON FUNCTION tasker._unused_handlers() IS
'The handlers that no step of a registered template finds. Private.';

CREATE FUNCTION tasker._registry_report()
RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    registry record;
    began timestamptz;
    health jsonb;
    health_ms numeric;
    stats jsonb;
    stats_ms numeric;
    unused text[];
    sound numeric;
    trend bigint;
    registries jsonb := jsonb '{}';
    items bigint := 0;
    scores numeric := 0;
BEGIN
    PERFORM tasker._require('handler:index', '*');
    began := clock_timestamp();
    health := tasker.registry_health();
    health_ms := extract(epoch FROM clock_timestamp() - began) * 1000;
    FOR registry IN
        SELECT r.registry_name, r.registry_size, k.items AS many, coalesce(t.items, 0) AS troubled
        FROM tasker.registries AS r
        JOIN tasker._registries() AS k ON k.registry_name = r.registry_name
        LEFT JOIN (
            SELECT p.registry_name, sum(p.items) AS items
            FROM tasker._registry_problems() AS p
            GROUP BY p.registry_name) AS t ON t.registry_name = r.registry_name
    LOOP
        began := clock_timestamp();
        stats := tasker._registry_stats(
            registry.registry_name,
            jsonb_array_length(health -> 'registries' -> registry.registry_name -> 'problems'));
        stats_ms := extract(epoch FROM clock_timestamp() - began) * 1000;
        unused := CASE registry.registry_name
            WHEN 'handler_factory' THEN ARRAY(
                SELECT concat_ws('/', u.namespace, u.name, coalesce(u.version, '*'))
                FROM tasker._unused_handlers() AS u
                ORDER BY 1)
            ELSE '{}'
            END;
        -- Of ten entries of which one is not used and one is wrong: 0.8.
        sound := CASE registry.registry_size
            WHEN 0 THEN 1
            ELSE round(greatest(registry.registry_size - cardinality(unused) - registry.troubled, 0)::numeric
                       / registry.registry_size, 2)
            END;
        SELECT count(*) FILTER (WHERE l.event_type = 'registered') - count(*) FILTER (WHERE l.event_type = 'unregistered')
        INTO trend
        FROM tasker.registry_log AS l
        WHERE l.registry_name = registry.registry_name
          AND l."timestamp" > tasker.clock() - interval '7 days';
        items := items + registry.registry_size;
        scores := scores + sound;
        registries := registries || jsonb_build_object(registry.registry_name, jsonb_build_object(
            'stats', stats,
            'health', health -> 'registries' -> registry.registry_name,
            'performance', jsonb_build_object(
                'stats_response_time_ms', round(stats_ms, 3),
                'health_check_time_ms', round(health_ms, 3)),
            'usage_patterns', jsonb_build_object(
                'utilization', CASE
                    WHEN registry.registry_size = 0 THEN 'empty'
                    WHEN registry.registry_size <= 5 THEN 'low'
                    WHEN registry.registry_size <= 20 THEN 'medium'
                    WHEN registry.registry_size <= 50 THEN 'high'
                    ELSE 'very_high' END,
                'distribution', stats -> (registry.many || '_by_namespace'),
                'growth_trend', CASE sign(trend) WHEN 1 THEN 'growing' WHEN -1 THEN 'shrinking' ELSE 'stable' END,
                'efficiency_score', sound),
            'recommendations', (health -> 'registries' -> registry.registry_name -> 'problems')
                || CASE WHEN unused = '{}' THEN '[]'
                        ELSE jsonb_build_array(format('No registered template needs %s. Unregister what is not needed any more.',
                                                      tasker._some_names(unused)))
                   END));
    END LOOP;
    RETURN jsonb_build_object(
        'registries', registries,
        'total_registered_items', items,
        'overall_health_percentage', round(100 * (health ->> 'healthy_registries')::numeric / (health ->> 'registry_count')::numeric, 1),
        'average_efficiency_score', round(scores / (health ->> 'registry_count')::numeric, 2),
        'registry_count', health -> 'registry_count');
END;
$$;
COMMENT ON FUNCTION tasker._registry_report() IS
'What tasker.registry_report() does, for its caller. Private.';

CREATE FUNCTION tasker.registry_report()
RETURNS jsonb
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.registry_report() IS
'Returns all about the registries, as jsonb: registries (of each: stats as of tasker.registry_stats(), health as of tasker.registry_health(), performance, with stats_response_time_ms and health_check_time_ms, usage_patterns and recommendations), total_registered_items, overall_health_percentage (of registries), average_efficiency_score, registry_count. usage_patterns: utilization (empty, low to 5 entries, medium to 20, high to 50, very_high), distribution (by namespace), growth_trend (growing, shrinking or stable, in the last 7 days), efficiency_score (share of entries that are used and have no problem). Raises nothing. Source: reference 6.4.';
