-- Templates over REST.

CREATE FUNCTION tasker._rest_template(t tasker.template)
RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
    SELECT jsonb_build_object(
        'template_id', t.template_id,
        'namespace', t.namespace,
        'name', t.name,
        'version', t.version,
        'full_name', t.namespace || '.' || t.name || '@' || t.version,
        'description', t.description,
        'environment', t.environment,
        'step_count', jsonb_array_length(CASE jsonb_typeof(t.definition -> 'step_templates')
                                             WHEN 'array' THEN t.definition -> 'step_templates' ELSE '[]' END),
        'registered_at', t.registered_at,
        'registered_by', t.registered_by,
        'is_latest', NOT EXISTS (
            SELECT
            FROM tasker.template AS l
            WHERE l.namespace = t.namespace
              AND l.name = t.name
              AND l.version_order > t.version_order));
$$;
COMMENT ON FUNCTION tasker._rest_template(tasker.template) IS
'A template as lists have it. Private.';

CREATE FUNCTION tasker._rest_find_template(of_namespace text, of_name text, of_version text)
RETURNS tasker.template
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    template tasker.template;
BEGIN
    SELECT t.*
    INTO template
    FROM tasker.template AS t
    WHERE t.namespace = of_namespace
      AND t.name = of_name
      AND (of_version IS NULL OR of_version = 'latest' OR t.version = of_version)
    ORDER BY t.version_order DESC
    LIMIT 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING
            ERRCODE = 'TK007',
            MESSAGE = 'there is no such template',
            DETAIL = format('Namespace "%s" has no template "%s"%s.', of_namespace, of_name,
                            CASE WHEN of_version IS NOT NULL THEN format(' of version "%s"', of_version) ELSE '' END),
            HINT = 'GET /tasker/templates lists those there are.';
    END IF;
    RETURN template;
END;
$$;
COMMENT ON FUNCTION tasker._rest_find_template(text, text, text) IS
'A template; without a version, or for latest, the highest. Raises TK007. Private.';

CREATE FUNCTION tasker._rest_current_plan(t tasker.template)
RETURNS tasker.plan
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT p.*
    FROM tasker.plan AS p
    WHERE p.template_id = t.template_id
      AND p.retired_at IS NULL
      AND (p.environment IS NULL
           OR p.environment = coalesce(t.environment, current_setting('tasker.environment', true)))
    ORDER BY p.environment NULLS LAST
    LIMIT 1;
$$;
COMMENT ON FUNCTION tasker._rest_current_plan(tasker.template) IS
'The plan that a task of that template created now would follow. Private.';

-- Few enough to be sorted; a cursor is the id of the last one of the page before.
CREATE FUNCTION tasker._rest_list_templates(
    of_namespace text,
    of_name text,
    page_size integer,
    cursor text,
    OUT body jsonb,
    OUT next text)
RETURNS record
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    place constant integer := least(tasker._rest_cursor(cursor), 2147483647);
BEGIN
    PERFORM tasker._require('template:index', of_namespace);
    WITH page AS MATERIALIZED (
        SELECT t.*, row_number() OVER (ORDER BY t.namespace, t.name, t.version_order DESC, t.template_id) AS n
        FROM tasker.template AS t
        WHERE (of_namespace IS NULL OR t.namespace = of_namespace)
          AND (of_name IS NULL OR t.name = of_name)
    ), wanted AS MATERIALIZED (
        SELECT p.template_id, p.n
        FROM page AS p
        WHERE p.n > coalesce((SELECT l.n FROM page AS l WHERE l.template_id = place), 0)
        ORDER BY p.n
        LIMIT page_size + 1
    )
    SELECT jsonb_build_object('templates', coalesce(jsonb_agg(tasker._rest_template(t) ORDER BY w.n)
                                                    FILTER (WHERE w.place <= page_size), '[]')),
           CASE WHEN count(*) > page_size THEN max(t.template_id) FILTER (WHERE w.place = page_size) END
    INTO body, next
    FROM (SELECT w.*, row_number() OVER (ORDER BY w.n) AS place FROM wanted AS w) AS w
    JOIN tasker.template AS t USING (template_id);
END;
$$;
COMMENT ON FUNCTION tasker._rest_list_templates(text, text, integer, text) IS
'A page of templates by namespace and name, the highest version first. Private.';

CREATE FUNCTION tasker._rest_show_template(of_namespace text, of_name text, of_version text)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    template tasker.template;
    plan tasker.plan;
BEGIN
    PERFORM tasker._require('template:show', of_namespace);
    template := tasker._rest_find_template(of_namespace, of_name, of_version);
    plan := tasker._rest_current_plan(template);
    RETURN jsonb_build_object('template', tasker._rest_template(template) || jsonb_build_object(
        'definition', template.definition,
        'source', template.source,
        'schema', plan.schema,
        'versions', (
            SELECT jsonb_agg(t.version ORDER BY t.version_order)
            FROM tasker.template AS t
            WHERE t.namespace = of_namespace
              AND t.name = of_name),
        'step_templates', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                       'step_no', s.step_no,
                       'name', s.name,
                       'description', s.description,
                       'handler_class', s.handler_class,
                       'handler_type', s.handler_type,
                       'depends_on_steps', (
                           SELECT coalesce(jsonb_agg(d.name ORDER BY d.step_no), '[]')
                           FROM tasker.plan_step AS d
                           WHERE d.plan_id = s.plan_id
                             AND d.step_no = ANY (s.parents)),
                       'retryable', s.retryable,
                       'retry_limit', s.retry_limit,
                       'skippable', s.skippable) ORDER BY s.step_no), '[]')
            FROM tasker.plan_step AS s
            WHERE s.plan_id = plan.plan_id)));
END;
$$;
COMMENT ON FUNCTION tasker._rest_show_template(text, text, text) IS
'A template with its definition, its source, its schema and its steps. Raises TK007. Private.';

CREATE FUNCTION tasker._rest_problems(definition text, environment text)
RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object('path', p.path, 'line', p.line, 'message', p.message, 'hint', p.hint)), '[]')
    FROM (SELECT v.*
          FROM tasker.validate_task(coalesce(definition, ''), environment) AS v
          LIMIT 100) AS p;
$$;
COMMENT ON FUNCTION tasker._rest_problems(text, text) IS
'What is wrong with a definition, the first hundred problems. Private.';

CREATE FUNCTION tasker._rest_validate_template(environment text, document text)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tasker._require('template:show', NULL);
    RETURN jsonb_build_object('problems', tasker._rest_problems(document, environment));
END;
$$;
COMMENT ON FUNCTION tasker._rest_validate_template(text, text) IS
'What is wrong with a definition; stores nothing. Private.';

CREATE FUNCTION tasker._rest_create_template(
    environment text,
    replace boolean,
    document text,
    OUT status integer,
    OUT location text,
    OUT type text,
    OUT body jsonb)
RETURNS record
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    problems jsonb;
    template tasker.template;
    id bigint;
BEGIN
    PERFORM tasker._require('template:create', NULL);
    problems := tasker._rest_problems(document, environment);
    IF problems <> '[]' THEN
        status := 422;
        type := 'problem';
        body := jsonb_build_object(
            'type', 'about:blank',
            'title', 'Unprocessable Content',
            'status', 422,
            'detail', 'The definition has problems.',
            'sqlstate', 'TK005',
            'errors', problems);
        RETURN;
    END IF;
    id := tasker.register_task(document, environment, replace);
    SELECT t.*
    INTO template
    FROM tasker.template AS t
    WHERE t.template_id = id;
    status := 201;
    location := format('/tasker/templates/%s/%s', template.namespace, template.name);
    body := jsonb_build_object('template', tasker._rest_template(template));
END;
$$;
COMMENT ON FUNCTION tasker._rest_create_template(text, boolean, text) IS
'Registers a definition; 422 with every problem where it has some. Raises what tasker.register_task() does. Private.';

CREATE FUNCTION tasker._rest_template_diagram(of_namespace text, of_name text, of_version text, format text)
RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tasker._require('template:show', of_namespace);
    RETURN tasker.template_diagram(of_name, of_namespace, (tasker._rest_find_template(of_namespace, of_name, of_version)).version,
                                   CASE format WHEN 'svg' THEN 'dot' ELSE format END);
END;
$$;
COMMENT ON FUNCTION tasker._rest_template_diagram(text, text, text, text) IS
'Diagram of a template. Raises TK007. Private.';
