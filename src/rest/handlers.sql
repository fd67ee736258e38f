-- Task handlers over REST, as the reference names them: what tasks can be
-- created of, with the versions there are.  Beside them stand the handlers that
-- steps are run by.

CREATE FUNCTION tasker._rest_list_handler_namespaces()
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
BEGIN
    PERFORM tasker._require('handler:index', NULL);
    RETURN (
        SELECT jsonb_build_object(
                   'namespaces', coalesce(jsonb_agg(jsonb_build_object(
                       'name', n.namespace, 'handler_count', n.handlers, 'step_handler_count', n.step_handlers)
                       ORDER BY n.namespace), '[]'),
                   'total_namespaces', count(*),
                   'generated_at', tasker.clock())
        FROM (
            SELECT u.namespace,
                   count(DISTINCT u.name) FILTER (WHERE u.is_task) AS handlers,
                   count(DISTINCT u.name) FILTER (WHERE NOT u.is_task) AS step_handlers
            FROM (
                SELECT t.namespace, t.name, true AS is_task FROM tasker.template AS t
                UNION ALL
                SELECT h.namespace, h.name, false FROM tasker.handlers AS h) AS u
            GROUP BY u.namespace) AS n);
END;
$$;
COMMENT ON FUNCTION tasker._rest_list_handler_namespaces() IS
'Namespaces that have handlers. Source: reference 9.1. Private.';

CREATE FUNCTION tasker._rest_list_handlers(of_namespace text)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
BEGIN
    PERFORM tasker._require('handler:index', of_namespace);
    IF NOT EXISTS (SELECT FROM tasker.template AS t WHERE t.namespace = of_namespace)
       AND NOT EXISTS (SELECT FROM tasker.handlers AS h WHERE h.namespace = of_namespace) THEN
        RAISE EXCEPTION USING
            ERRCODE = 'TK007',
            MESSAGE = 'Namespace not found',
            DETAIL = format('No handler is registered in namespace "%s".', of_namespace),
            HINT = 'GET /tasker/handlers lists the namespaces.';
    END IF;
    RETURN jsonb_build_object(
        'namespace', of_namespace,
        'handlers', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                       'name', n.name, 'namespace', of_namespace, 'versions', n.versions,
                       'latest_version', n.versions ->> -1, 'handler_count', jsonb_array_length(n.versions))
                       ORDER BY n.name), '[]')
            FROM (
                SELECT t.name, jsonb_agg(t.version ORDER BY t.version_order) AS versions
                FROM tasker.template AS t
                WHERE t.namespace = of_namespace
                GROUP BY t.name) AS n),
        'total_handlers', (SELECT count(DISTINCT t.name) FROM tasker.template AS t WHERE t.namespace = of_namespace),
        'step_handlers', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                       'name', h.name, 'version', h.version, 'kind', h.kind, 'function', h.function,
                       'run_as', h.run_as, 'registered_at', h.registered_at) ORDER BY h.name, h.version), '[]')
            FROM tasker.handlers AS h
            WHERE h.namespace = of_namespace));
END;
$$;
COMMENT ON FUNCTION tasker._rest_list_handlers(text) IS
'Task handlers and step handlers of a namespace. Raises TK007. Source: reference 9.1. Private.';

CREATE FUNCTION tasker._rest_show_handler(of_namespace text, of_name text, of_version text)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    template tasker.template;
    plan tasker.plan;
BEGIN
    PERFORM tasker._require('handler:show', of_namespace);
    template := tasker._rest_find_template(of_namespace, of_name, of_version);
    plan := tasker._rest_current_plan(template);
    RETURN jsonb_build_object(
        'handler', jsonb_build_object(
            'name', template.name,
            'namespace', template.namespace,
            'version', template.version,
            'full_name', template.namespace || '.' || template.name || '@' || template.version,
            'class_name', template.definition ->> 'task_handler_class',
            'available', NOT EXISTS (
                SELECT
                FROM tasker.plan_step AS s
                WHERE s.plan_id = plan.plan_id
                  AND s.handler_type IS DISTINCT FROM 'api'
                  AND NOT EXISTS (SELECT FROM tasker.find_handler(s.handler_class, template.namespace, template.version))),
            'step_templates', (
                SELECT coalesce(jsonb_agg(jsonb_build_object(
                           'name', s.name, 'handler_class', s.handler_class,
                           'depends_on_steps', (
                               SELECT coalesce(jsonb_agg(d.name ORDER BY d.step_no), '[]')
                               FROM tasker.plan_step AS d
                               WHERE d.plan_id = s.plan_id
                                 AND d.step_no = ANY (s.parents)),
                           'retryable', s.retryable, 'retry_limit', s.retry_limit) ORDER BY s.step_no), '[]')
                FROM tasker.plan_step AS s
                WHERE s.plan_id = plan.plan_id),
            'dependency_graph', tasker._rest_graph(plan.plan_id)),
        'generated_at', tasker.clock());
END;
$$;
COMMENT ON FUNCTION tasker._rest_show_handler(text, text, text) IS
'A task handler; without a version, or for latest, the highest. Raises TK007. Source: reference 9.1. Private.';
