-- What can be wrong with the handler_config of an api step, beside the types of
-- its values.

CREATE FUNCTION tasker._http_external_hint()
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'tasker-agent makes the request. A SQL handler takes its answer; without type: api a worker outside takes the step.';
$$;
COMMENT ON FUNCTION tasker._http_external_hint() IS
'What to do about an api step whose handler is external. Private.';

CREATE FUNCTION tasker._http_methods()
RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT '{GET,HEAD,POST,PUT,PATCH,DELETE,OPTIONS}'::text[];
$$;
COMMENT ON FUNCTION tasker._http_methods() IS
'The methods that an api step may have. Private.';

CREATE FUNCTION tasker._http_status_problem(expected jsonb)
RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT count(*) = 0
           OR bool_or(jsonb_typeof(e.value) <> 'number' OR e.value::text !~ '^[1-5][0-9][0-9]$')
    FROM jsonb_array_elements(
             CASE jsonb_typeof(expected) WHEN 'array' THEN expected ELSE jsonb_build_array(expected) END) AS e (value);
$$;
COMMENT ON FUNCTION tasker._http_status_problem(jsonb) IS
'Whether expected_status is neither a status nor a list of some. Private.';

CREATE FUNCTION tasker._http_header_problem(name text, value jsonb)
RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN CASE
        WHEN name !~ '^[A-Za-z0-9!#$%&''*+.^_`|~-]+$' THEN format('header "%s" can''t have this name', left(name, 60))
        WHEN lower(name) IN ('host', 'connection', 'content-length', 'transfer-encoding') THEN
            format('header "%s" is set by the agent', name)
        WHEN jsonb_typeof(value) IN ('object', 'array') THEN format('header "%s" must be a text', name)
        WHEN value #>> '{}' ~ '[\u0001-\u0008\u000a-\u001f\u007f]' THEN
            format('header "%s" has a control character in it', name)
    END;
END;
$$;
COMMENT ON FUNCTION tasker._http_header_problem(text, jsonb) IS
'Why a request can''t have that header; NULL: it can. Private.';

CREATE FUNCTION tasker._http_template_problem(template text, parents text[])
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN t.match IS NULL THEN
            format('%s is neither a template nor the name of a secret', left(template, 60))
        WHEN t.match[2] = 'dependencies' AND p.parent IS NULL THEN
            format('%s names no step that this one depends on', left(template, 60))
        WHEN p.rest <> '' AND tasker._http_jsonpath(p.rest) IS NULL THEN
            format('%s is no JSONPath behind %s', left(template, 60), t.match[2])
    END
    FROM (SELECT regexp_match(template, '^' || tasker._http_pattern() || '$')) AS t (match)
    CROSS JOIN LATERAL (
        SELECT CASE WHEN t.match[2] = 'dependencies' THEN tasker._http_parent(t.match[3], parents) END) AS d (parent)
    CROSS JOIN LATERAL (
        SELECT d.parent,
               CASE WHEN t.match[2] = 'dependencies' THEN ltrim(substr(t.match[3], length(d.parent) + 1), '.')
                    ELSE t.match[3] END AS rest) AS p;
$$;
COMMENT ON FUNCTION tasker._http_template_problem(text, text[]) IS
'What is wrong with ${…}, given the steps that this one directly depends on; NULL: nothing. Private.';

CREATE FUNCTION tasker._http_problems(definition jsonb)
RETURNS TABLE (path text[], message text, hint text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $body$
#variable_conflict use_column
BEGIN
    IF NOT jsonb_path_exists(definition, 'lax $.step_templates[*].handler_config.type ? (@ == "api")') THEN
        RETURN;
    END IF;
    RETURN QUERY
    WITH step AS MATERIALIZED (
        SELECT s.step_no,
               ARRAY['step_templates', (s.step_no - 1)::text, 'handler_config'] AS path,
               s.step -> 'handler_config' AS config
        FROM tasker._definition_steps(definition) AS s
        WHERE s.handler_type = 'api'
    ), parent AS MATERIALIZED (
        SELECT d.step_no, array_agg(d.dependency) AS names
        FROM tasker._definition_dependencies(definition) AS d
        GROUP BY d.step_no
    )
    SELECT s.path || ARRAY['method'],
           format('method must be one of %s, not "%s"', array_to_string(tasker._http_methods(), ', '), left(s.config ->> 'method', 60)),
           tasker._did_you_mean(upper(s.config ->> 'method'), tasker._http_methods())
    FROM step AS s
    WHERE upper(tasker._string(s.config -> 'method')) <> ALL (tasker._http_methods())
    UNION ALL
    SELECT s.path || ARRAY['body'], format('a request with method %s has no body', upper(s.config ->> 'method')),
           'Leave method out: with a body it is POST.'
    FROM step AS s
    WHERE upper(tasker._string(s.config -> 'method')) IN ('GET', 'HEAD')
      AND coalesce(s.config -> 'body', 'null') <> 'null'
    UNION ALL
    SELECT s.path || ARRAY['headers', e.key], tasker._http_header_problem(e.key, e.entry),
           'Write a name of letters, digits and hyphens, and a value in one line.'
    FROM step AS s
    CROSS JOIN LATERAL tasker._entries(s.config -> 'headers') AS e
    WHERE tasker._http_header_problem(e.key, e.entry) IS NOT NULL
    UNION ALL
    SELECT s.path || ARRAY['expected_status'], 'expected_status must be a status or a list of some',
           'Write 404, or [200, 404].'
    FROM step AS s
    WHERE coalesce(s.config -> 'expected_status', 'null') <> 'null'
      AND tasker._http_status_problem(s.config -> 'expected_status')
    UNION ALL
    SELECT s.path || ARRAY['ssl'], 'ssl must be a mapping of verify (true or false) and ca (certificates, PEM)',
           'Write ssl: {verify: true}.'
    FROM step AS s
    WHERE coalesce(s.config -> 'ssl', 'null') <> 'null'
      AND (jsonb_typeof(s.config -> 'ssl') <> 'object'
           OR coalesce(jsonb_typeof(s.config -> 'ssl' -> 'verify'), 'null') NOT IN ('boolean', 'null')
           OR coalesce(jsonb_typeof(s.config -> 'ssl' -> 'ca'), 'null') NOT IN ('string', 'null')
           OR EXISTS (SELECT FROM tasker._entries(s.config -> 'ssl') AS e WHERE e.key NOT IN ('verify', 'ca')))
    UNION ALL
    SELECT DISTINCT s.path || e.key, p.problem,
           'A template is ${context.path}, ${inputs.path} or ${dependencies.STEP.path}, with the rest of a JSONPath; $${ stands for ${.'
    FROM step AS s
    LEFT JOIN parent AS d ON d.step_no = s.step_no
    CROSS JOIN LATERAL tasker._entries(s.config) AS e
    CROSS JOIN LATERAL jsonb_path_query(e.entry, 'strict $.** ? (@.type() == "string")') AS v (value)
    CROSS JOIN LATERAL regexp_matches(v.value #>> '{}', '(\$?)(\$\{[^}]*\})', 'g') AS r (match)
    CROSS JOIN LATERAL (SELECT tasker._http_template_problem(r.match[2], d.names)) AS p (problem)
    WHERE r.match[1] = ''
      AND r.match[2] !~ '^\$\{[A-Za-z_]\w*\}$'
      AND p.problem IS NOT NULL;
END;
$body$;
COMMENT ON FUNCTION tasker._http_problems(jsonb) IS
'What is wrong with the api steps of a merged definition: methods, headers, options, templates. Private.';

CREATE FUNCTION tasker._http_warnings(definition jsonb)
RETURNS TABLE (path text[], message text, hint text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH step AS MATERIALIZED (
        SELECT s.step_no, s.handler_class
        FROM tasker._definition_steps(definition) AS s
        WHERE s.handler_type = 'api'
          AND s.handler_class IS NOT NULL
    )
    -- The answer is there in the transaction that ends the step, and nowhere else.
    SELECT ARRAY['step_templates', (s.step_no - 1)::text, 'handler_class'],
           format('external handler "%s" gets no steps of type api', s.handler_class),
           tasker._http_external_hint()
    FROM step AS s
    WHERE s.handler_class IN (
        SELECT c.handler_class
        FROM (SELECT DISTINCT t.handler_class FROM step AS t) AS c
        CROSS JOIN LATERAL tasker._handler_of(
            c.handler_class,
            coalesce(tasker._string(definition -> 'namespace_name'), 'default'),
            coalesce(tasker._string(definition -> 'version'), '0.1.0')) AS h
        WHERE h.kind = 'external');
END;
$$;
COMMENT ON FUNCTION tasker._http_warnings(jsonb) IS
'What has no effect in the api steps of a definition: external handlers, which no answer reaches. Private.';
