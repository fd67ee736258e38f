-- What is legal in a definition, but unwise.

CREATE FUNCTION tasker._redundant_edges(
    step_count integer,
    child_nos integer[],
    parent_nos integer[],
    OUT child_no smallint,
    OUT parent_no smallint)
RETURNS SETOF record
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE ROWS 10
AS 'MODULE_PATHNAME', 'tasker_redundant_edges';
COMMENT ON FUNCTION tasker._redundant_edges(integer, integer[], integer[]) IS
'Edges of the graph that _graph() describes that other edges imply: without them every step still comes behind the same ones. The graph must have no cycle. Private.';

CREATE FUNCTION tasker._lint_rules()
RETURNS TABLE (rule text, meaning text, hint text)
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 20
SET search_path = pg_catalog, pg_temp
AS $$
    VALUES
        ('warning', 'What registering warns of: an unknown key, a change of a step that is not there, a delay above its cap, a secret that is not set.',
         'doc/definition.md lists every key.'),
        ('api_without_retry', 'An HTTP step that fails for good at its first failure.',
         'Networks fail now and then: allow another attempt, retry: {limit: 3}.'),
        ('api_without_timeout', 'An HTTP step that may wait for an answer as long as it likes.',
         'Say how long an attempt may take, timeout: 30 s.'),
        ('timeout_above_task', 'A step that may take longer than its task.',
         'Give the step a shorter timeout, or the task a longer one.'),
        ('retries_above_task', 'Retries whose delays alone add up to more than the task may take.',
         'Lower retry.limit or retry.max_delay, or give the task more time.'),
        ('unused_name', 'A name in named_steps that is no step''s.',
         'Take it out of the list, or add the step.'),
        ('disconnected_step', 'A step without any dependency, in either direction, beside steps that have some.',
         'Say what it depends on, or put it into a task of its own.'),
        ('redundant_dependency', 'A dependency that another one implies.',
         'Leave it out: the order is the same without it. Keep it where the handler reads those results.'),
        ('schema_without_type', 'A schema that does not say type: object.',
         'A context is always an object: write type: object.'),
        ('optional_property', 'A property of the schema that is neither required nor has a default.',
         'List it in required, or give it a default; then every handler finds it.'),
        ('plain_http', 'An HTTP step that goes over http to another machine.',
         'Use https.'),
        ('literal_secret', 'What looks like a password, a token or a key, written out.',
         'Write ${NAME} and set its value by tasker.set_secret().'),
        ('same_as_base', 'What an environment sets to the value that it has anyway.',
         'Leave it out.');
$$;
COMMENT ON FUNCTION tasker._lint_rules() IS
'Every rule of tasker.lint_task(), the one place that says so: what it finds, and what to do. doc/definition.md follows it. Private.';

CREATE FUNCTION tasker._step_delays(base_delay interval, max_delay interval, attempts integer)
RETURNS interval
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    -- beyond the cap each delay is the same
    SELECT sum(least(max_delay, base_delay * 2 ^ n)) + max_delay * greatest(attempts - 1 - 40, 0)
    FROM generate_series(1, least(attempts - 1, 40)) AS n;
$$;
COMMENT ON FUNCTION tasker._step_delays(interval, interval, integer) IS
'What the delays between so many attempts add up to, without their jitter; NULL for a single attempt. Private.';

CREATE FUNCTION tasker._schema_properties(schema jsonb)
RETURNS TABLE (path text[], property jsonb, is_required boolean)
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 100
SET search_path = pg_catalog, pg_temp
AS $$
    -- at any depth, as far as properties lie within properties
    WITH RECURSIVE part (path, schema) AS (
        SELECT '{}'::text[], $1
        UNION ALL
        SELECT p.path || ARRAY['properties', e.key], e.value
        FROM part AS p
        CROSS JOIN LATERAL jsonb_each(
            CASE WHEN jsonb_typeof(p.schema -> 'properties') = 'object' THEN p.schema -> 'properties' ELSE '{}' END) AS e
        WHERE jsonb_typeof(e.value) = 'object'
          AND cardinality(p.path) < 20
    )
    SELECT p.path || ARRAY['properties', e.key], e.value,
           coalesce(jsonb_typeof(p.schema -> 'required') = 'array' AND p.schema -> 'required' ? e.key, false)
    FROM part AS p
    CROSS JOIN LATERAL jsonb_each(
        CASE WHEN jsonb_typeof(p.schema -> 'properties') = 'object' THEN p.schema -> 'properties' ELSE '{}' END) AS e;
$$;
COMMENT ON FUNCTION tasker._schema_properties(jsonb) IS
'The properties of a JSON Schema with their places. Private.';

CREATE FUNCTION tasker._jsonb_strings(value jsonb)
RETURNS TABLE (path text[], text text)
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 100
SET search_path = pg_catalog, pg_temp
AS $$
    WITH RECURSIVE part (path, value) AS (
        SELECT '{}'::text[], $1
        UNION ALL
        SELECT p.path || e.key, e.value
        FROM part AS p
        CROSS JOIN LATERAL (
            SELECT o.key, o.value
            FROM jsonb_each(CASE jsonb_typeof(p.value) WHEN 'object' THEN p.value ELSE '{}' END) AS o
            UNION ALL
            SELECT (a.n - 1)::text, a.value
            FROM jsonb_array_elements(CASE jsonb_typeof(p.value) WHEN 'array' THEN p.value ELSE '[]' END)
                 WITH ORDINALITY AS a (value, n)) AS e
    )
    SELECT p.path, p.value #>> '{}'
    FROM part AS p
    WHERE jsonb_typeof(p.value) = 'string';
$$;
COMMENT ON FUNCTION tasker._jsonb_strings(jsonb) IS
'The strings within a value, with their places. Private.';

CREATE FUNCTION tasker._looks_secret(path text[], text text)
RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $body$
    SELECT text <> ''
       AND replace(text, '$${', '') !~ '\$\{[^}]+\}'
       -- a key that names a secret, or a URL with a password in it
       AND (path[cardinality(path)] ~* '^(proxy-)?authorization$|pass(word|wd|phrase)?$|secret$|(^|[_-])token$|api[_-]?key$|(^|[_-])private[_-]?key$'
            OR text ~* '^[a-z][a-z0-9+.-]*://[^/?#@:]*:[^/?#@]+@');
$body$;
COMMENT ON FUNCTION tasker._looks_secret(text[], text) IS
'Whether a string at that place looks like a secret that is written out. Private.';

CREATE FUNCTION tasker._lint_merged(definition jsonb)
RETURNS TABLE (rule text, path text[], message text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH step AS MATERIALIZED (
        SELECT s.*, p.step,
               ARRAY['step_templates', (s.step_no - 1)::text] AS path,
               coalesce(s.handler_type = 'api', false) AS is_api
        FROM tasker._compile_steps(definition) AS s
        JOIN tasker._definition_steps(definition) AS p ON p.step_no = s.step_no
    ), task AS MATERIALIZED (
        SELECT tasker._duration(definition -> 'timeout') AS timeout
    ), dependency AS MATERIALIZED (
        SELECT d.step_no, d.dependency, d.path, p.step_no AS parent_no
        FROM tasker._definition_dependencies(definition) AS d
        JOIN step AS p ON p.name = d.dependency
    ), redundant AS MATERIALIZED (
        SELECT r.child_no, r.parent_no
        FROM tasker._redundant_edges(
                 (SELECT count(*)::integer FROM step),
                 ARRAY(SELECT d.step_no FROM dependency AS d ORDER BY d.step_no, d.parent_no),
                 ARRAY(SELECT d.parent_no FROM dependency AS d ORDER BY d.step_no, d.parent_no)) AS r
    )
    SELECT 'api_without_retry',
           s.path || CASE WHEN NOT s.retryable THEN ARRAY['default_retryable']
                          WHEN s.step #> '{retry,limit}' IS NOT NULL THEN ARRAY['retry', 'limit']
                          ELSE ARRAY['default_retry_limit'] END,
           format('step "%s" calls another system and is not tried again when that fails', s.name)
    FROM step AS s
    WHERE s.is_api
      AND (NOT s.retryable OR s.retry_limit = 1)
    UNION ALL
    SELECT 'api_without_timeout', s.path || ARRAY['timeout'],
           format('step "%s" calls another system and has no timeout', s.name)
    FROM step AS s
    WHERE s.is_api
      AND s.timeout IS NULL
    UNION ALL
    SELECT 'timeout_above_task', s.path || ARRAY['timeout'],
           format('step "%s" may take %s, and the whole task %s', s.name, s.timeout, t.timeout)
    FROM step AS s
    CROSS JOIN task AS t
    WHERE s.timeout > t.timeout
    UNION ALL
    SELECT 'retries_above_task',
           s.path || CASE WHEN s.step ? 'retry' THEN ARRAY['retry'] ELSE ARRAY['default_retry_limit'] END,
           format('the delays between the %s attempts of step "%s" add up to %s, and the whole task may take %s',
                  s.retry_limit, s.name, d.delays, t.timeout)
    FROM step AS s
    CROSS JOIN task AS t
    CROSS JOIN LATERAL (SELECT tasker._step_delays(s.base_delay, s.max_delay, s.retry_limit)) AS d (delays)
    WHERE s.retryable
      AND d.delays > t.timeout
    UNION ALL
    SELECT 'unused_name', ARRAY['named_steps', e.n::text],
           format('named_steps lists "%s", which is no step of this task', e.element #>> '{}')
    FROM tasker._elements(definition -> 'named_steps') AS e
    WHERE NOT EXISTS (
        SELECT
        FROM step AS s
        WHERE s.name = e.element #>> '{}')
    UNION ALL
    SELECT 'disconnected_step', s.path || ARRAY['name'],
           format('step "%s" needs no other, and no other needs it', s.name)
    FROM step AS s
    WHERE s.parents = '{}'
      AND s.children = '{}'
      AND EXISTS (SELECT FROM step AS other WHERE other.parents <> '{}')
    UNION ALL
    SELECT 'redundant_dependency', d.path,
           format('step "%s" depends on "%s" through its other dependencies, too', s.name, d.dependency)
    FROM redundant AS r
    JOIN dependency AS d ON d.step_no = r.child_no
                        AND d.parent_no = r.parent_no
    JOIN step AS s ON s.step_no = d.step_no
    UNION ALL
    SELECT 'schema_without_type', ARRAY['schema'], 'schema does not say that a context is an object'
    WHERE jsonb_typeof(definition -> 'schema') = 'object'
      AND coalesce(definition -> 'schema' -> 'type', 'null') <> '"object"'
    UNION ALL
    SELECT 'optional_property', ARRAY['schema'] || p.path,
           format('property "%s" may be missing in a context', p.path[cardinality(p.path)])
    FROM tasker._schema_properties(definition -> 'schema') AS p
    WHERE NOT p.is_required
      AND NOT (jsonb_typeof(p.property) = 'object' AND p.property ? 'default')
    UNION ALL
    SELECT 'plain_http', s.path || ARRAY['handler_config', 'url'],
           format('step "%s" sends what it has to say unencrypted', s.name)
    FROM step AS s
    WHERE s.is_api
      AND s.handler_config ->> 'url' ~* '^http://'
      AND s.handler_config ->> 'url' !~* '^http://([^/?#@]*@)?(localhost|127(\.[0-9]+){3}|\[::1\])([:/?#]|$)'
    UNION ALL
    SELECT 'literal_secret', s.path || ARRAY['handler_config'] || c.path,
           format('%s of step "%s" looks like a secret', c.path[cardinality(c.path)], s.name)
    FROM step AS s
    CROSS JOIN LATERAL tasker._jsonb_strings(s.handler_config) AS c
    WHERE tasker._looks_secret(c.path, c.text);
$$;
COMMENT ON FUNCTION tasker._lint_merged(jsonb) IS
'What is unwise in a merged definition that has no problem. Private.';

CREATE FUNCTION tasker._idle_changes(base jsonb, block jsonb, path text[])
RETURNS SETOF text[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE ROWS 10
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF tasker._merge(base, block) IS NOT DISTINCT FROM base AND block IS NOT NULL THEN
        RETURN NEXT path;
    ELSIF jsonb_typeof(base) = 'object' AND jsonb_typeof(block) = 'object' THEN
        RETURN QUERY
        SELECT i.path
        FROM jsonb_each(block) AS b
        CROSS JOIN LATERAL tasker._idle_changes(base -> b.key, b.value, _idle_changes.path || b.key) AS i (path)
        WHERE base ? b.key;
    END IF;
END;
$$;
COMMENT ON FUNCTION tasker._idle_changes(jsonb, jsonb, text[]) IS
'Places in a change that change nothing of the base: the outermost of each. Private.';

CREATE FUNCTION tasker._lint_environment(definition jsonb, environment text)
RETURNS TABLE (rule text, path text[], message text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH block AS (
        SELECT definition -> 'environments' -> environment AS block
    ), changed AS (
        SELECT s.step AS base, c.element - 'name' AS element,
               ARRAY['environments', environment, 'step_templates', c.n::text] AS path
        FROM block AS b
        CROSS JOIN LATERAL tasker._elements(b.block -> 'step_templates') AS c
        JOIN tasker._definition_steps(definition) AS s ON s.name = c.element ->> 'name'
    ), idle (path) AS (
        SELECT i.path
        FROM block AS b
        CROSS JOIN LATERAL jsonb_each(
            CASE jsonb_typeof(b.block) WHEN 'object' THEN b.block - 'step_templates' ELSE '{}' END) AS e
        CROSS JOIN LATERAL tasker._idle_changes(
            definition -> e.key, e.value, ARRAY['environments', environment, e.key]) AS i (path)
        WHERE e.value <> 'null'
        UNION ALL
        SELECT i.path
        FROM changed AS c
        CROSS JOIN LATERAL jsonb_each(c.element) AS e
        CROSS JOIN LATERAL tasker._idle_changes(c.base -> e.key, e.value, c.path || e.key) AS i (path)
        UNION ALL
        -- nothing but a name
        SELECT c.path
        FROM changed AS c
        WHERE c.element = '{}'
    )
    SELECT 'same_as_base', i.path, format('environment "%s" changes nothing here', environment)
    FROM idle AS i;
$$;
COMMENT ON FUNCTION tasker._lint_environment(jsonb, text) IS
'What an environment says without effect. Private.';

-- Without JIT, for the same reason as validate_task().
CREATE FUNCTION tasker._lint_task(definition text, environment text)
RETURNS TABLE (rule text, path text, line integer, message text, hint text)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET jit = off
SET intervalstyle = 'postgres'
AS $$
DECLARE
    template tasker.template := tasker._read_template(definition, environment);
    parsed constant jsonb := template.definition;
    rules text[];
    paths text[];
    messages text[];
    hints text[];
BEGIN
    PERFORM tasker._require('template:show', template.namespace);
    PERFORM tasker._raise_problems(
        definition, parsed, coalesce(template.environment, current_setting('tasker.environment', true)), false);

    WITH merged AS MATERIALIZED (
        SELECT NULL::text AS environment
        WHERE template.environment IS NULL
           OR jsonb_typeof(parsed -> 'environments' -> template.environment) IS DISTINCT FROM 'object'
        UNION ALL
        SELECT e.key
        FROM tasker._entries(parsed -> 'environments') AS e
        WHERE template.environment IS NULL
           OR e.key = template.environment
    ), found AS MATERIALIZED (
        SELECT m.environment, l.rule, l.path, l.message, row_number() OVER () AS n
        FROM merged AS m
        CROSS JOIN LATERAL tasker._lint_merged(tasker._merge_environment(parsed, m.environment)) AS l
    ), placed AS (
        SELECT DISTINCT ON (f.rule, p.path, f.message)
               f.rule, p.path,
               f.message || CASE WHEN f.environment IS NOT NULL AND template.environment IS NULL AND NOT p.in_block
                                 THEN format(' (in environment "%s")', f.environment) ELSE '' END AS message
        FROM found AS f
        JOIN tasker._placed(parsed,
                            ARRAY(SELECT f2.environment FROM found AS f2 ORDER BY f2.n),
                            ARRAY(SELECT to_jsonb(f2.path)::text FROM found AS f2 ORDER BY f2.n)) AS p ON p.n = f.n
        ORDER BY f.rule, p.path, f.message, f.environment NULLS FIRST
    ), everything AS (
        SELECT p.rule, p.path, p.message, NULL AS hint
        FROM placed AS p
        UNION ALL
        SELECT l.rule, l.path, l.message, NULL
        FROM merged AS m
        CROSS JOIN LATERAL tasker._lint_environment(parsed, m.environment) AS l
        WHERE m.environment IS NOT NULL
        UNION ALL
        SELECT 'warning', w.path, w.message, w.hint
        FROM tasker._definition_warnings(parsed) AS w
    )
    SELECT array_agg(e.rule), array_agg(to_jsonb(e.path)::text), array_agg(e.message),
           array_agg(coalesce(e.hint, r.hint))
    INTO rules, paths, messages, hints
    FROM everything AS e
    JOIN tasker._lint_rules() AS r ON r.rule = e.rule;

    RETURN QUERY
    SELECT rules[l.n],
           tasker._path_text(ARRAY(SELECT jsonb_array_elements_text(paths[l.n]::jsonb))),
           l.line, messages[l.n], hints[l.n]
    FROM tasker._locate(definition, coalesce(paths, '{}')) AS l
    ORDER BY l.line, l."column", rules[l.n], messages[l.n];
END;
$$;
COMMENT ON FUNCTION tasker._lint_task(text, text) IS
'What tasker.lint_task() does, for its caller. Private.';

CREATE FUNCTION tasker.lint_task(definition text, environment text DEFAULT NULL)
RETURNS TABLE (rule text, path text, line integer, message text, hint text)
LANGUAGE C STABLE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.lint_task(text, text) IS
'Returns what is legal in a definition but unwise, in the order of its lines; no row where nothing is. Arguments: definition, a text in YAML or JSON; environment: what this one makes of the definition is looked at; NULL: the definition itself and what each of its environments makes of it. Columns: rule, its name as in doc/definition.md; path and line, as those of tasker.validate_task(); message; hint, what to do. Stores nothing. Raises TK005 as tasker.register_task() does where the definition is wrong, 22004 (definition is NULL). Source: design, Definitions.';
