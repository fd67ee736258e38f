-- What a definition may say, and what is wrong with one.  Types are checked on
-- the definition as it is written, environments included; everything that
-- needs the whole (dependencies, cycles, handlers) on the definition that each
-- environment makes of it.  A check that finds a value of the wrong type takes
-- it as absent: somebody else has reported it.

CREATE FUNCTION tasker._graph(
    step_count integer,
    child_nos integer[],
    parent_nos integer[],
    OUT step_no smallint,
    OUT parents smallint[],
    OUT children smallint[],
    OUT level smallint)
RETURNS SETOF record
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE ROWS 5000
AS 'MODULE_PATHNAME', 'tasker_graph';
COMMENT ON FUNCTION tasker._graph(integer, integer[], integer[]) IS
'A row for each of the steps 1 to step_count, where step child_nos[i] depends on step parent_nos[i]; level is -1 for a step in or behind a cycle. Takes time in proportion to steps and edges. Private.';

CREATE FUNCTION tasker._cycles(step_count integer, child_nos integer[], parent_nos integer[])
RETURNS SETOF smallint[]
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE ROWS 1
AS 'MODULE_PATHNAME', 'tasker_cycles';
COMMENT ON FUNCTION tasker._cycles(integer, integer[], integer[]) IS
'Cycles of the graph that _graph() describes, at most 20, each as its steps in the order in which one depends on the next; without one edge of each there is none left. Private.';

CREATE FUNCTION tasker._duration(value jsonb)
RETURNS interval
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
SET intervalstyle = 'postgres'
AS $$
BEGIN
    RETURN CASE jsonb_typeof(value)
        WHEN 'number' THEN make_interval(secs => value::float8)
        WHEN 'string' THEN (value #>> '{}')::interval
    END;
EXCEPTION
    WHEN data_exception THEN
        RETURN NULL;
END;
$$;
COMMENT ON FUNCTION tasker._duration(jsonb) IS
'A duration of a definition, a number of seconds or the text of an interval; NULL for what is neither. Private.';

CREATE FUNCTION tasker._path_text(path text[])
RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(string_agg(
               CASE
                   WHEN key ~ '^[0-9]+$' THEN '[' || key || ']'
                   WHEN key !~ '^[A-Za-z_$][A-Za-z0-9_$-]*$' THEN '[' || to_jsonb(key)::text || ']'
                   WHEN n > 1 THEN '.' || key
                   ELSE key
               END, '' ORDER BY n), '')
    FROM unnest(path) WITH ORDINALITY AS keys (key, n);
$$;
COMMENT ON FUNCTION tasker._path_text(text[]) IS
'A place in a definition as people write it, such as step_templates[2].depends_on_steps[0]; counts from 0. Private.';

CREATE FUNCTION tasker._definition_keys()
RETURNS TABLE (scope text, key text, kind text, low numeric, high numeric)
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 50
SET search_path = pg_catalog, pg_temp
AS $$
    VALUES
        ('task', 'name', 'name', NULL::numeric, NULL::numeric),
        ('task', 'namespace_name', 'name', NULL, NULL),
        ('task', 'version', 'version', NULL, NULL),
        ('task', 'description', 'string', NULL, NULL),
        ('task', 'task_handler_class', 'string', NULL, NULL),
        ('task', 'module_namespace', 'string', NULL, NULL),
        ('task', 'concurrent', 'boolean', NULL, NULL),
        ('task', 'default_dependent_system', 'string', NULL, NULL),
        ('task', 'named_steps', 'strings', NULL, NULL),
        ('task', 'schema', 'object', NULL, NULL),
        ('task', 'step_templates', 'objects', NULL, NULL),
        ('task', 'environments', 'object', NULL, NULL),
        ('task', 'custom_events', 'objects', NULL, NULL),
        ('task', 'handler_config', 'any', NULL, NULL),
        ('task', 'timeout', 'duration', 0.000001, NULL),
        ('task', 'on_failure', 'on_failure', NULL, NULL),
        ('task', 'priority', 'integer', -2147483647, 2147483647),
        ('step', 'name', 'name', NULL, NULL),
        ('step', 'handler_class', 'name', NULL, NULL),
        ('step', 'description', 'string', NULL, NULL),
        ('step', 'dependent_system', 'string', NULL, NULL),
        ('step', 'default_retryable', 'boolean', NULL, NULL),
        ('step', 'default_retry_limit', 'integer', 1, 32767),
        ('step', 'skippable', 'boolean', NULL, NULL),
        ('step', 'depends_on_step', 'string', NULL, NULL),
        ('step', 'depends_on_steps', 'strings', NULL, NULL),
        ('step', 'handler_config', 'object', NULL, NULL),
        ('step', 'custom_events', 'objects', NULL, NULL),
        ('step', 'timeout', 'duration', 0.000001, NULL),
        ('step', 'retry', 'object', NULL, NULL),
        ('retry', 'limit', 'integer', 1, 32767),
        ('retry', 'base_delay', 'duration', 0, NULL),
        ('retry', 'max_delay', 'duration', 0, NULL),
        ('retry', 'jitter', 'number', 0, 1),
        ('api', 'type', 'string', NULL, NULL),
        ('api', 'url', 'string', NULL, NULL),
        ('api', 'params', 'object', NULL, NULL),
        ('api', 'headers', 'object', NULL, NULL),
        ('api', 'ssl', 'any', NULL, NULL),
        ('api', 'enable_exponential_backoff', 'boolean', NULL, NULL),
        ('api', 'retry_delay', 'number', 0, NULL),
        ('api', 'jitter_factor', 'number', 0, NULL),
        ('event', 'name', 'name', NULL, NULL),
        ('event', 'description', 'string', NULL, NULL);
$$;
COMMENT ON FUNCTION tasker._definition_keys() IS
'Every key that a definition knows: where it stands, what kind of value it takes and its bounds (durations: in seconds, and never above 10 years). Private.';

-- The three below are used once for every step or value of a definition; without
-- SET search_path they are inlined, so they name even their operators in full.

CREATE FUNCTION tasker._elements(value jsonb)
RETURNS TABLE (n integer, element jsonb)
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 1000
AS $$
    SELECT (e.n OPERATOR(pg_catalog.-) 1)::integer, e.element
    FROM pg_catalog.jsonb_array_elements(
             CASE WHEN pg_catalog.jsonb_typeof(_elements.value) OPERATOR(pg_catalog.=) 'array'
                  THEN _elements.value ELSE '[]' END)
         WITH ORDINALITY AS e (element, n);
$$;
COMMENT ON FUNCTION tasker._elements(jsonb) IS
'Elements of an array with their numbers from 0; none of anything else. Private.';

CREATE FUNCTION tasker._entries(value jsonb)
RETURNS TABLE (key text, entry jsonb)
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 10
AS $$
    SELECT e.key, e.value
    FROM pg_catalog.jsonb_each(
             CASE WHEN pg_catalog.jsonb_typeof(_entries.value) OPERATOR(pg_catalog.=) 'object'
                  THEN _entries.value ELSE '{}' END) AS e
    WHERE e.value OPERATOR(pg_catalog.<>) 'null';
$$;
COMMENT ON FUNCTION tasker._entries(jsonb) IS
'Entries of an object that have a value: a null is as good as nothing in a definition. None of anything else. Private.';

CREATE FUNCTION tasker._string(value jsonb)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN pg_catalog.jsonb_typeof(_string.value) OPERATOR(pg_catalog.=) 'string'
                THEN _string.value OPERATOR(pg_catalog.#>>) '{}' END;
$$;
COMMENT ON FUNCTION tasker._string(jsonb) IS
'The text of a string, NULL for anything else. Private.';

CREATE FUNCTION tasker._merge(base jsonb, changes jsonb)
RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF jsonb_typeof(base) IS DISTINCT FROM 'object' OR jsonb_typeof(changes) IS DISTINCT FROM 'object' THEN
        RETURN changes;
    END IF;
    RETURN base || coalesce((
        SELECT jsonb_object_agg(c.key, tasker._merge(base -> c.key, c.value))
        FROM jsonb_each(changes) AS c), '{}');
END;
$$;
COMMENT ON FUNCTION tasker._merge(jsonb, jsonb) IS
'Two objects merged, theirs within them too; anything else is replaced. Private.';

CREATE FUNCTION tasker._merge_environment(definition jsonb, environment text)
RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    base constant jsonb := definition - 'environments';
    changes constant jsonb := CASE WHEN jsonb_typeof(definition -> 'environments' -> environment) = 'object'
                                   THEN (definition -> 'environments' -> environment) - 'environments' END;
    merged jsonb;
BEGIN
    IF changes IS NULL THEN
        RETURN base;
    END IF;
    merged := tasker._merge(base, changes - 'step_templates');
    IF jsonb_typeof(base -> 'step_templates') = 'array'
       AND jsonb_typeof(changes -> 'step_templates') = 'array' THEN
        merged := jsonb_set(merged, '{step_templates}', (
            WITH change AS MATERIALIZED (
                SELECT DISTINCT ON (tasker._string(element -> 'name'))
                       tasker._string(element -> 'name') AS name, element
                FROM tasker._elements(changes -> 'step_templates')
                WHERE tasker._string(element -> 'name') IS NOT NULL
                ORDER BY tasker._string(element -> 'name'), n
            )
            SELECT coalesce(jsonb_agg(
                       CASE WHEN change.element IS NULL THEN step.element
                            ELSE tasker._merge(step.element, change.element) END
                       ORDER BY step.n), '[]')
            FROM tasker._elements(base -> 'step_templates') AS step
            LEFT JOIN change ON change.name = tasker._string(step.element -> 'name')));
    END IF;
    RETURN merged;
END;
$$;
COMMENT ON FUNCTION tasker._merge_environment(jsonb, text) IS
'The definition with one of its environments merged in and environments taken out: objects are merged, step_templates by name in the order of the definition, anything else is replaced, and steps that the definition does not have are ignored. An environment that it does not name, or NULL, changes nothing. Source: reference 5.3. Private.';

CREATE FUNCTION tasker._definition_steps(definition jsonb)
RETURNS TABLE (step_no integer, name text, handler_class text, handler_type text, step jsonb)
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 5000
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT e.n + 1,
           tasker._string(e.element -> 'name'),
           tasker._string(e.element -> 'handler_class'),
           tasker._string(e.element -> 'handler_config' -> 'type'),
           e.element
    FROM tasker._elements(definition -> 'step_templates') AS e
    WHERE jsonb_typeof(e.element) = 'object';
$$;
COMMENT ON FUNCTION tasker._definition_steps(jsonb) IS
'Steps of a merged definition, numbered from 1. Private.';

CREATE FUNCTION tasker._definition_dependencies(definition jsonb)
RETURNS TABLE (step_no integer, dependency text, path text[])
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 10000
SET search_path = pg_catalog, pg_temp
AS $$
    WITH step AS MATERIALIZED (
        SELECT s.step_no, s.step
        FROM tasker._definition_steps(definition) AS s
    )
    SELECT s.step_no, tasker._string(s.step -> 'depends_on_step'),
           ARRAY['step_templates', (s.step_no - 1)::text, 'depends_on_step']
    FROM step AS s
    WHERE tasker._string(s.step -> 'depends_on_step') IS NOT NULL
    UNION ALL
    SELECT s.step_no, e.element #>> '{}',
           ARRAY['step_templates', (s.step_no - 1)::text, 'depends_on_steps', (e.n - 1)::text]
    FROM step AS s
    CROSS JOIN LATERAL jsonb_array_elements(s.step -> 'depends_on_steps') WITH ORDINALITY AS e (element, n)
    WHERE jsonb_typeof(s.step -> 'depends_on_steps') = 'array'
      AND jsonb_typeof(e.element) = 'string';
$$;
COMMENT ON FUNCTION tasker._definition_dependencies(jsonb) IS
'What the steps of a merged definition depend on, from depends_on_step and depends_on_steps, with the place where it says so. Private.';

CREATE FUNCTION tasker._definition_nodes(definition jsonb)
RETURNS TABLE (scope text, path text[], node jsonb)
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 10000
SET search_path = pg_catalog, pg_temp
AS $$
    WITH task AS MATERIALIZED (
        SELECT 'task' AS scope, '{}'::text[] AS path, definition AS node
        UNION ALL
        SELECT 'environment', ARRAY['environments', e.key], e.entry
        FROM tasker._entries(definition -> 'environments') AS e
    ), step AS MATERIALIZED (
        SELECT CASE task.scope WHEN 'task' THEN 'step' ELSE 'change' END AS scope,
               task.path || ARRAY['step_templates', e.n::text] AS path, e.element AS node
        FROM task
        CROSS JOIN LATERAL tasker._elements(task.node -> 'step_templates') AS e
    )
    SELECT task.scope, task.path, task.node FROM task
    UNION ALL
    SELECT step.scope, step.path, step.node FROM step
    UNION ALL
    SELECT 'retry', step.path || ARRAY['retry'], step.node -> 'retry'
    FROM step
    WHERE step.node ? 'retry'
    UNION ALL
    SELECT 'api', step.path || ARRAY['handler_config'], step.node -> 'handler_config'
    FROM step
    WHERE step.node -> 'handler_config' ->> 'type' = 'api'
       -- an environment changes the configuration without saying its type again
       OR (step.scope = 'change'
           AND step.node -> 'handler_config' -> 'type' IS NULL
           AND step.node -> 'handler_config' IS NOT NULL
           AND step.node ->> 'name' IN (
               SELECT base.node ->> 'name'
               FROM step AS base
               WHERE base.scope = 'step'
                 AND base.node -> 'handler_config' ->> 'type' = 'api'))
    UNION ALL
    SELECT 'event', owner.path || ARRAY['custom_events', e.n::text], e.element
    FROM (SELECT task.path, task.node FROM task
          UNION ALL
          SELECT step.path, step.node FROM step) AS owner
    CROSS JOIN LATERAL tasker._elements(owner.node -> 'custom_events') AS e;
$$;
COMMENT ON FUNCTION tasker._definition_nodes(jsonb) IS
'Every place of a definition, as it is written, where keys of our own stand. scope is that of _definition_keys(), or environment (keys of a task) or change (keys of a step, within an environment). Private.';

CREATE FUNCTION tasker._type_problems(definition jsonb)
RETURNS TABLE (path text[], message text, hint text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH node AS MATERIALIZED (
        SELECT n.scope, n.path, n.node
        FROM tasker._definition_nodes(definition) AS n
    ), pair AS MATERIALIZED (
        SELECT CASE n.scope WHEN 'environment' THEN 'task' WHEN 'change' THEN 'step' ELSE n.scope END AS scope,
               n.path, e.key, e.entry
        FROM node AS n
        CROSS JOIN LATERAL tasker._entries(n.node) AS e
    ), entry AS MATERIALIZED (
        SELECT p.path || p.key AS path, p.key, p.entry, k.kind, k.low, k.high,
               jsonb_typeof(p.entry) AS type
        FROM pair AS p
        JOIN tasker._definition_keys() AS k
            ON k.scope = p.scope
           AND k.key = p.key
    ), checked AS (
        SELECT e.*,
               CASE e.kind
                   WHEN 'name' THEN 'string'
                   WHEN 'version' THEN 'string'
                   WHEN 'on_failure' THEN 'string'
                   WHEN 'strings' THEN 'array'
                   WHEN 'objects' THEN 'array'
                   WHEN 'integer' THEN 'number'
                   WHEN 'any' THEN e.type
                   WHEN 'duration' THEN CASE WHEN e.type IN ('string', 'number') THEN e.type ELSE 'duration' END
                   ELSE e.kind
               END AS wanted
        FROM entry AS e
    )
    -- an entry of the wrong type
    SELECT c.path,
           format('%s must be %s, not %s', c.key,
               CASE c.kind
                   WHEN 'version' THEN 'a string' WHEN 'name' THEN 'a string'
                   WHEN 'on_failure' THEN 'stop or continue'
                   WHEN 'strings' THEN 'a list of strings' WHEN 'objects' THEN 'a list of mappings'
                   WHEN 'object' THEN 'a mapping' WHEN 'boolean' THEN 'true or false'
                   WHEN 'duration' THEN 'a duration' WHEN 'integer' THEN 'a whole number'
                   ELSE 'a ' || c.kind END,
               CASE WHEN c.type IN ('number', 'boolean') THEN format('the %s %s', c.type, c.entry)
                    WHEN c.type = 'string' THEN format('the string "%s"', left(c.entry #>> '{}', 60))
                    WHEN c.type = 'array' THEN 'a list'
                    ELSE 'a mapping' END),
           CASE
               WHEN c.kind = 'version' AND c.type = 'number' THEN
                   coalesce('Quote it, with all three numbers: version: "'
                            || (regexp_match(c.entry::text || '.0.0', '^[0-9]+\.[0-9]+\.[0-9]+'))[1] || '".',
                            'A version has three numbers, such as "1.0.0".')
               WHEN c.wanted = 'string' AND c.type IN ('number', 'boolean') THEN
                   format('Quote it: "%s".', c.entry)
               WHEN c.key = 'depends_on_step' AND c.type = 'array' THEN
                   'Several steps go into depends_on_steps.'
               WHEN c.kind = 'strings' AND c.type = 'string' THEN
                   format('Write a list: [%s].', c.entry)
               WHEN c.kind = 'boolean' AND c.type = 'string' THEN
                   'Write true or false, without quotes.'
               WHEN c.wanted = 'number' AND c.type = 'string' THEN
                   'Write the number without quotes.'
               WHEN c.kind = 'objects' AND c.type = 'object' THEN
                   'Begin each element with "- ".'
               WHEN c.kind = 'duration' THEN
                   'Write a number of seconds, or a text such as "30 s" or "5 min".'
           END
    FROM checked AS c
    WHERE c.type <> c.wanted
    UNION ALL
    -- an element of the wrong type
    SELECT c.path || e.n::text,
           format('an element of %s must be %s, not %s', c.key,
               CASE c.kind WHEN 'strings' THEN 'a string' ELSE 'a mapping' END,
               CASE jsonb_typeof(e.element)
                   WHEN 'null' THEN 'empty' WHEN 'array' THEN 'a list' WHEN 'object' THEN 'a mapping'
                   WHEN 'string' THEN format('the string "%s"', left(e.element #>> '{}', 60))
                   ELSE format('the %s %s', jsonb_typeof(e.element), e.element) END),
           CASE WHEN c.kind = 'strings' AND jsonb_typeof(e.element) IN ('number', 'boolean')
                THEN format('Quote it: "%s".', e.element) END
    FROM checked AS c
    CROSS JOIN LATERAL tasker._elements(c.entry) AS e
    WHERE c.kind IN ('strings', 'objects')
      AND jsonb_typeof(e.element) <> CASE c.kind WHEN 'strings' THEN 'string' ELSE 'object' END
    UNION ALL
    -- a name that cannot be one
    SELECT c.path, format('%s %s', c.key, tasker._name_problem(tasker._string(c.entry))),
           'A name has 1 to 128 printable characters.'
    FROM checked AS c
    WHERE c.kind = 'name'
      AND c.type = 'string'
      -- most names need no closer look
      AND c.entry #>> '{}' COLLATE "C" !~ '^[A-Za-z0-9_:./-]{1,128}$'
      AND tasker._name_problem(c.entry #>> '{}') IS NOT NULL
    UNION ALL
    SELECT c.path, format('version "%s" is not a semantic version', left(c.entry #>> '{}', 60)),
           coalesce('Write "'
                    || (regexp_match((regexp_match(c.entry #>> '{}', '^[vV]?([0-9]+(?:\.[0-9]+){0,2})$'))[1] || '.0.0',
                                     '^[0-9]+\.[0-9]+\.[0-9]+'))[1] || '".',
                    'A version has three numbers, such as "1.0.0".')
    FROM checked AS c
    WHERE c.kind = 'version'
      AND c.type = 'string'
      AND tasker._version_order(c.entry #>> '{}') IS NULL
    UNION ALL
    SELECT c.path, format('on_failure must be stop or continue, not "%s"', left(c.entry #>> '{}', 60)),
           tasker._did_you_mean(c.entry #>> '{}', '{stop,continue}')
    FROM checked AS c
    WHERE c.kind = 'on_failure'
      AND c.type = 'string'
      AND c.entry #>> '{}' NOT IN ('stop', 'continue')
    UNION ALL
    -- a number out of bounds
    SELECT c.path,
           format('%s must be %s, not %s', c.key,
               CASE WHEN c.kind = 'integer' THEN format('a whole number from %s to %s', c.low, c.high)
                    WHEN c.high IS NULL THEN format('at least %s', c.low)
                    ELSE format('a number from %s to %s', c.low, c.high) END,
               c.entry),
           CASE WHEN c.key IN ('default_retry_limit', 'limit') AND c.entry = '0'
                THEN 'The first attempt counts: 1 means that none follows it.' END
    FROM checked AS c
    WHERE c.kind IN ('integer', 'number')
      AND c.type = 'number'
      AND CASE WHEN c.type = 'number' THEN
              c.entry::numeric < c.low OR c.entry::numeric > c.high
              OR (c.kind = 'integer' AND c.entry::numeric <> trunc(c.entry::numeric)) END
    UNION ALL
    SELECT c.path,
           CASE
               WHEN d.duration IS NULL THEN
                   format('%s "%s" is not a duration', c.key, left(c.entry #>> '{}', 60))
               WHEN d.duration > interval '10 years' THEN
                   format('%s must not be longer than 10 years', c.key)
               WHEN c.low > 0 THEN format('%s must be longer than nothing', c.key)
               ELSE format('%s must not be negative', c.key)
           END,
           'Write a number of seconds, or a text such as "30 s" or "5 min".'
    FROM checked AS c
    CROSS JOIN LATERAL (SELECT tasker._duration(c.entry)) AS d (duration)
    WHERE c.kind = 'duration'
      AND c.type IN ('string', 'number')
      AND (d.duration IS NULL
           OR d.duration > interval '10 years'
           OR d.duration < make_interval(secs => c.low::float8))
    UNION ALL
    -- what must be there
    SELECT n.path || r.key, format('%s is missing', r.key), r.hint
    FROM node AS n
    JOIN (VALUES
              ('task', 'name', 'Every task has a name: name: my_task'),
              ('task', 'step_templates', 'A task has at least one step, in the list step_templates.'),
              ('step', 'name', 'Every step has a name.'),
              ('change', 'name', 'An environment changes a step by its name.'),
              ('event', 'name', 'Every event has a name.')) AS r (scope, key, hint)
        ON r.scope = n.scope
    WHERE jsonb_typeof(n.node) = 'object'
      AND coalesce(n.node -> r.key, 'null') = 'null'
    UNION ALL
    SELECT n.path, 'a definition must be a mapping', 'It begins with name: my_task'
    FROM node AS n
    WHERE n.scope = 'task'
      AND jsonb_typeof(n.node) IS DISTINCT FROM 'object'
    UNION ALL
    SELECT n.path || ARRAY['step_templates'], 'step_templates is empty', 'A task has at least one step.'
    FROM node AS n
    WHERE n.scope = 'task'
      AND n.node -> 'step_templates' = '[]'
    UNION ALL
    SELECT n.path || ARRAY['step_templates'],
           format('step_templates has %s steps; a task has at most 16383', jsonb_array_length(n.node -> 'step_templates')),
           'Split it into several tasks.'
    FROM node AS n
    WHERE n.scope = 'task'
      AND jsonb_typeof(n.node -> 'step_templates') = 'array'
      AND CASE WHEN jsonb_typeof(n.node -> 'step_templates') = 'array'
               THEN jsonb_array_length(n.node -> 'step_templates') > 16383 END
    UNION ALL
    -- environments
    SELECT n.path, format('environment "%s" must be a mapping', n.path[2]),
           'It holds the keys of the definition that it changes.'
    FROM node AS n
    WHERE n.scope = 'environment'
      AND jsonb_typeof(n.node) <> 'object'
    UNION ALL
    SELECT n.path, format('name of the environment %s', tasker._name_problem(n.path[2])),
           'A name has 1 to 128 printable characters.'
    FROM node AS n
    WHERE n.scope = 'environment'
      AND tasker._name_problem(n.path[2]) IS NOT NULL
    UNION ALL
    SELECT n.path || e.key,
           format('an environment cannot change %s', e.key),
           CASE e.key WHEN 'environments' THEN 'Environments stand side by side, none within another.'
                      ELSE 'A task has the same name, namespace and version in every environment.' END
    FROM node AS n
    CROSS JOIN LATERAL tasker._entries(n.node) AS e
    WHERE n.scope = 'environment'
      AND (e.key = 'environments'
           OR (e.key IN ('name', 'namespace_name', 'version')
               AND e.entry IS DISTINCT FROM definition -> e.key))
    UNION ALL
    SELECT n.path || ARRAY['name'],
           format('environment "%s" changes step "%s" twice', n.path[2], n.node ->> 'name'),
           'Put all changes into one element.'
    FROM (SELECT c.path, c.node,
                 row_number() OVER (PARTITION BY c.path[2], c.node ->> 'name' ORDER BY c.path[4]::integer) AS nth
          FROM node AS c
          WHERE c.scope = 'change'
            AND tasker._string(c.node -> 'name') IS NOT NULL) AS n
    WHERE n.nth > 1;
$$;
COMMENT ON FUNCTION tasker._type_problems(jsonb) IS
'Values of a definition, as it is written, that are missing, of the wrong type or out of bounds. Private.';

CREATE FUNCTION tasker._handler_hint(handler_class text, namespace text, version text)
RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    others text;
    nearest text;
BEGIN
    SELECT string_agg(tasker._handler_title(h.name, h.namespace, h.version), ', '
                      ORDER BY h.namespace, h.version)
    INTO others
    FROM tasker.handler AS h
    WHERE h.name = handler_class;
    IF others IS NOT NULL THEN
        RETURN format('Registered is %s, and this is namespace "%s", version "%s".', others, namespace, version);
    END IF;
    nearest := tasker._did_you_mean(handler_class, ARRAY(
        SELECT DISTINCT h.name
        FROM tasker.handler AS h
        WHERE h.namespace IN (_handler_hint.namespace, 'default')
        ORDER BY h.name));
    RETURN coalesce(
        nearest,
        format('Register it: SELECT tasker.register_handler(%L, ''my_function'');', handler_class));
END;
$$;
COMMENT ON FUNCTION tasker._handler_hint(text, text, text) IS
'What to do about a handler_class that is not registered. Private.';

CREATE FUNCTION tasker._graph_problems(definition jsonb)
RETURNS TABLE (path text[], message text, hint text, also text[])
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH step AS MATERIALIZED (
        SELECT s.step_no, s.name, s.handler_class, s.handler_type, s.step,
               ARRAY['step_templates', (s.step_no - 1)::text] AS path,
               min(s.step_no) OVER (PARTITION BY s.name) AS first_no
        FROM tasker._definition_steps(definition) AS s
    ), named AS MATERIALIZED (
        SELECT s.name, s.step_no
        FROM step AS s
        WHERE s.name IS NOT NULL
          AND s.step_no = s.first_no
    ), dependency AS MATERIALIZED (
        SELECT d.step_no, d.dependency, d.path, s.first_no AS child_no, s.name,
               p.step_no AS parent_no
        FROM tasker._definition_dependencies(definition) AS d
        JOIN step AS s ON s.step_no = d.step_no
        LEFT JOIN named AS p ON p.name = d.dependency
    ), listed AS MATERIALIZED (
        SELECT DISTINCT e.element #>> '{}' AS name
        FROM tasker._elements(definition -> 'named_steps') AS e
        WHERE jsonb_typeof(e.element) = 'string'
    ), wanted_handler AS MATERIALIZED (
        -- each class once; a hint costs a look at every name, so only for some
        SELECT w.handler_class, w.namespace, w.version,
               CASE WHEN row_number() OVER (ORDER BY w.first_no) <= 20
                    THEN tasker._handler_hint(w.handler_class, w.namespace, w.version) END AS hint
        FROM (SELECT c.handler_class, min(c.step_no) AS first_no,
                     coalesce(tasker._string(definition -> 'namespace_name'), 'default') AS namespace,
                     coalesce(tasker._string(definition -> 'version'), '0.1.0') AS version
              FROM step AS c
              WHERE c.handler_class IS NOT NULL
                AND c.handler_type IS DISTINCT FROM 'api'
              GROUP BY c.handler_class) AS w
        WHERE NOT EXISTS (
            SELECT
            FROM tasker.handler AS h
            WHERE h.namespace IN (w.namespace, 'default')
              AND h.name = w.handler_class
              AND (h.version IS NULL OR h.version = w.version))
    ), cycle AS MATERIALIZED (
        SELECT c.cycle
        FROM tasker._cycles(
                 (SELECT least(coalesce(max(s.step_no), 0), 16383) FROM step AS s),
                 ARRAY(SELECT d.child_no FROM dependency AS d
                       WHERE d.parent_no <> d.child_no AND greatest(d.child_no, d.parent_no) <= 16383
                       ORDER BY d.child_no, d.parent_no),
                 ARRAY(SELECT d.parent_no FROM dependency AS d
                       WHERE d.parent_no <> d.child_no AND greatest(d.child_no, d.parent_no) <= 16383
                       ORDER BY d.child_no, d.parent_no)) AS c (cycle)
    )
    SELECT s.path || ARRAY['name'],
           format('step name "%s" is used twice', s.name),
           'Give each step a name of its own.',
           ARRAY['step_templates', (s.first_no - 1)::text, 'name']
    FROM step AS s
    WHERE s.name IS NOT NULL
      AND s.step_no > s.first_no
    UNION ALL
    SELECT d.path,
           format('step "%s" depends on "%s", which is no step of this task', d.name, d.dependency),
           coalesce(
               CASE WHEN d.nth <= 20 THEN tasker._did_you_mean(
                   d.dependency, ARRAY(SELECT n.name FROM named AS n WHERE n.name <> d.name ORDER BY n.step_no)) END,
               'Its steps are ' || (SELECT string_agg(n.name, ', ' ORDER BY n.step_no)
                                    FROM named AS n
                                    HAVING count(*) <= 10) || '.'),
           NULL
    FROM (SELECT d.*, row_number() OVER (ORDER BY d.step_no, d.path[4]::integer) AS nth
          FROM dependency AS d
          WHERE d.parent_no IS NULL) AS d
    UNION ALL
    SELECT d.path, format('step "%s" depends on itself', d.name), 'Remove this dependency.', NULL
    FROM dependency AS d
    WHERE d.dependency = d.name
    UNION ALL
    SELECT (SELECT d.path
            FROM dependency AS d
            WHERE d.child_no = c.cycle[1]
              AND d.parent_no = c.cycle[2]
            ORDER BY d.step_no, d.path[4]::integer NULLS FIRST
            LIMIT 1),
           format('steps depend on each other in a cycle: %s', (
               SELECT string_agg(n.name, ' -> ' ORDER BY u.place)
               FROM unnest(CASE WHEN cardinality(c.cycle) <= 20 THEN c.cycle || c.cycle[1]
                                ELSE c.cycle[1:20] END) WITH ORDINALITY AS u (step_no, place)
               JOIN named AS n ON n.step_no = u.step_no))
           || CASE WHEN cardinality(c.cycle) > 20
                   THEN format(' -> ... (%s steps)', cardinality(c.cycle)) ELSE '' END,
           'Each depends on the one behind the arrow: remove one of these dependencies.',
           NULL
    FROM cycle AS c
    UNION ALL
    SELECT s.path || ARRAY['name'],
           format('step "%s" is not listed in named_steps', s.name),
           'Add it to the list, or remove the list.',
           NULL
    FROM step AS s
    WHERE s.name IS NOT NULL
      AND jsonb_typeof(definition -> 'named_steps') = 'array'
      AND NOT EXISTS (SELECT FROM listed AS l WHERE l.name = s.name)
    UNION ALL
    SELECT d.path,
           format('step "%s" depends on "%s", which is not listed in named_steps', d.name, d.dependency),
           'Add it to the list, or remove the list.',
           NULL
    FROM dependency AS d
    WHERE d.parent_no IS NOT NULL
      AND jsonb_typeof(definition -> 'named_steps') = 'array'
      AND NOT EXISTS (SELECT FROM listed AS l WHERE l.name = d.dependency)
    UNION ALL
    SELECT s.path || ARRAY['handler_class'],
           'handler_class is missing',
           'It names the handler that runs the step; only a step whose handler_config.type is api needs none.',
           NULL
    FROM step AS s
    WHERE coalesce(s.step -> 'handler_class', 'null') = 'null'
      AND s.handler_type IS DISTINCT FROM 'api'
    UNION ALL
    SELECT s.path || ARRAY['handler_class'],
           format('handler "%s" is not registered', s.handler_class),
           w.hint,
           NULL
    FROM step AS s
    JOIN wanted_handler AS w ON w.handler_class = s.handler_class
    WHERE s.handler_type IS DISTINCT FROM 'api'
    UNION ALL
    SELECT s.path || ARRAY['handler_config', 'url'],
           CASE WHEN coalesce(s.step #> '{handler_config,url}', 'null') = 'null' THEN 'url is missing'
                ELSE format('url "%s" is not absolute', left(s.step #>> '{handler_config,url}', 60)) END,
           'A step of type api has an absolute URL, such as https://example.com/items.',
           NULL
    FROM step AS s
    WHERE s.handler_type = 'api'
      AND (coalesce(s.step #> '{handler_config,url}', 'null') = 'null'
           OR tasker._string(s.step #> '{handler_config,url}') !~* '^(https?://[^\s/?#]+([/?#]\S*)?|\$\{[^}]+\}\S*)$')
    UNION ALL
    SELECT ARRAY['schema'] || p.path,
           tasker._path_text(ARRAY['schema'] || p.path) || ' ' || p.message,
           NULL, NULL
    FROM tasker._schema_problems(definition -> 'schema') AS p
    WHERE jsonb_typeof(definition -> 'schema') = 'object';
$$;
COMMENT ON FUNCTION tasker._graph_problems(jsonb) IS
'What is wrong with a merged definition as a whole: names, dependencies, cycles, handlers, URLs, the schema. also is a second place that belongs to the problem. Private.';

CREATE FUNCTION tasker._definition_problems(definition jsonb, environment text)
RETURNS TABLE (path text[], message text, hint text, also text[])
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH merged AS MATERIALIZED (
        SELECT NULL::text AS environment, 0 AS rank,
               tasker._merge_environment(definition, NULL) AS whole
        WHERE jsonb_typeof(definition) = 'object'
        UNION ALL
        SELECT e.key, CASE WHEN e.key = environment THEN 1 ELSE 2 END,
               tasker._merge_environment(definition, e.key)
        FROM tasker._entries(definition -> 'environments') AS e
        WHERE jsonb_typeof(e.entry) = 'object'
    ), found AS MATERIALIZED (
        SELECT m.environment, m.rank, g.path, g.message, g.hint, g.also,
               definition -> 'environments' -> m.environment AS block
        FROM merged AS m
        CROSS JOIN LATERAL tasker._graph_problems(m.whole) AS g
    ), change AS MATERIALIZED (
        -- where an environment's element for a step stands
        SELECT m.environment, (s.step_no - 1)::text AS step_index, min(e.n)::text AS change_index
        FROM merged AS m
        JOIN tasker._definition_steps(definition) AS s ON true
        JOIN tasker._elements(definition -> 'environments' -> m.environment -> 'step_templates') AS e
            ON tasker._string(e.element -> 'name') = s.name
        WHERE m.environment IS NOT NULL
          AND EXISTS (SELECT FROM found AS f WHERE f.environment IS NOT NULL)
        GROUP BY m.environment, s.step_no
    ), inside AS (
        -- the same place in the block of the environment, if the value stands there
        SELECT f.*,
               CASE
                   WHEN f.environment IS NULL THEN NULL
                   -- the name is what an element is found by, not what it changes
                   WHEN f.path[3] = 'name' THEN NULL
                   WHEN f.path[1] = 'step_templates' THEN
                       ARRAY['step_templates', c.change_index] || f.path[3:]
                   ELSE f.path
               END AS block_path
        FROM found AS f
        LEFT JOIN change AS c
            ON c.environment = f.environment
           AND f.path[1] = 'step_templates'
           AND c.step_index = f.path[2]
    ), placed AS (
        SELECT CASE WHEN i.block #> i.block_path IS NOT NULL
                    THEN ARRAY['environments', i.environment] || i.block_path
                    ELSE i.path END AS path,
               i.message, i.hint, i.also, i.environment, i.rank,
               i.block #> i.block_path IS NOT NULL AS in_block
        FROM inside AS i
    )
    SELECT t.path, t.message, t.hint, NULL::text[]
    FROM tasker._type_problems(definition) AS t
    UNION ALL
    SELECT p.path,
           p.message || CASE WHEN p.rank > 0 AND NOT p.in_block
                             THEN format(' (in environment "%s")', p.environment) ELSE '' END,
           p.hint, p.also
    FROM (SELECT DISTINCT ON (p.path, p.message) p.*
          FROM placed AS p
          ORDER BY p.path, p.message, p.rank, p.environment) AS p;
$$;
COMMENT ON FUNCTION tasker._definition_problems(jsonb, text) IS
'All problems of a definition, of the definition itself and of what each of its environments makes of it, each once; the one named here goes before the others. Private.';

CREATE FUNCTION tasker._definition_warnings(definition jsonb)
RETURNS TABLE (path text[], message text, hint text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH node AS MATERIALIZED (
        SELECT CASE n.scope WHEN 'environment' THEN 'task' WHEN 'change' THEN 'step' ELSE n.scope END AS scope,
               n.scope AS written_as, n.path, n.node
        FROM tasker._definition_nodes(definition) AS n
    )
    SELECT n.path || e.key,
           format('unknown key "%s" is ignored', left(e.key, 60)),
           tasker._did_you_mean(e.key, ARRAY(
               SELECT k.key
               FROM tasker._definition_keys() AS k
               WHERE k.scope = n.scope
                 AND NOT n.node ? k.key))
    FROM node AS n
    CROSS JOIN LATERAL tasker._entries(n.node) AS e
    -- x- begins a key of the user's own, for anchors and other tools
    WHERE e.key NOT LIKE 'x-%'
      AND NOT EXISTS (
          SELECT
          FROM tasker._definition_keys() AS k
          WHERE k.scope = n.scope
            AND k.key = e.key)
    UNION ALL
    SELECT n.path || ARRAY['name'],
           format('environment "%s" changes step "%s", which is no step of this task', n.path[2], n.node ->> 'name'),
           tasker._did_you_mean(n.node ->> 'name', ARRAY(
               SELECT s.name
               FROM tasker._definition_steps(definition) AS s
               WHERE s.name IS NOT NULL
               ORDER BY s.step_no))
    FROM node AS n
    WHERE n.written_as = 'change'
      AND tasker._string(n.node -> 'name') IS NOT NULL
      AND n.node ->> 'name' NOT IN (
          SELECT s.name
          FROM tasker._definition_steps(definition) AS s
          WHERE s.name IS NOT NULL)
    UNION ALL
    SELECT n.path || ARRAY['base_delay'],
           'base_delay is longer than max_delay, which no delay exceeds',
           CASE WHEN n.node ? 'max_delay' THEN NULL ELSE 'Set max_delay; without it, it is 30 s.' END
    FROM node AS n
    WHERE n.scope = 'retry'
      AND tasker._duration(n.node -> 'base_delay') > coalesce(tasker._duration(n.node -> 'max_delay'), interval '30 s');
$$;
COMMENT ON FUNCTION tasker._definition_warnings(jsonb) IS
'What a definition says without effect: unknown keys, changes of steps that are not there, delays above their cap. Private.';

CREATE FUNCTION tasker._locate(definition text, paths text[])
RETURNS TABLE (n integer, line integer, "column" integer)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- paths are jsonb arrays in text, because an array of arrays of different
    -- lengths is no array; what is missing has the place of what it is missing in
    WITH node AS MATERIALIZED (
        SELECT l.path, l.line, l."column"
        FROM tasker._yaml_lines(definition) AS l
    ), wanted AS MATERIALIZED (
        SELECT p.n::integer AS n, k.length,
               ARRAY(SELECT e.key
                     FROM jsonb_array_elements_text(p.path::jsonb) WITH ORDINALITY AS e (key, i)
                     WHERE e.i <= k.length
                     ORDER BY e.i) AS path
        FROM unnest(paths) WITH ORDINALITY AS p (path, n)
        CROSS JOIN LATERAL generate_series(0, jsonb_array_length(p.path::jsonb)) AS k (length)
    )
    SELECT DISTINCT ON (w.n) w.n, coalesce(node.line, 1), coalesce(node."column", 1)
    FROM wanted AS w
    LEFT JOIN node ON node.path = w.path
    ORDER BY w.n, (node.line IS NULL), w.length DESC;
$$;
COMMENT ON FUNCTION tasker._locate(text, text[]) IS
'Line and column of each path (a jsonb array of keys, as text) in a definition; n counts the paths from 1. Private.';

CREATE FUNCTION tasker._located_problems(source text, definition jsonb, environment text)
RETURNS TABLE (path text, line integer, message text, hint text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    paths text[];
    also_paths text[];
    messages text[];
    hints text[];
    problems integer;
BEGIN
    SELECT array_agg(to_jsonb(p.path)::text), array_agg(to_jsonb(coalesce(p.also, '{}'))::text),
           array_agg(p.message || CASE WHEN p.also IS NULL THEN '' ELSE '; the first one is in line ' END),
           array_agg(p.hint), count(*)
    INTO paths, also_paths, messages, hints, problems
    FROM tasker._definition_problems(definition, environment) AS p;
    IF problems = 0 THEN
        RETURN;     -- and the text need not be read a second time
    END IF;
    RETURN QUERY
    WITH place AS MATERIALIZED (
        SELECT l.n, l.line, l."column"
        FROM tasker._locate(source, paths || also_paths) AS l
    )
    SELECT tasker._path_text(ARRAY(SELECT jsonb_array_elements_text(paths[l.n]::jsonb))),
           l.line,
           messages[l.n] || CASE WHEN also_paths[l.n] = '[]' THEN '' ELSE a.line::text END,
           hints[l.n]
    FROM place AS l
    JOIN place AS a ON a.n = l.n + problems
    WHERE l.n <= problems
    ORDER BY l.line, l."column", l.n;
END;
$$;
COMMENT ON FUNCTION tasker._located_problems(text, jsonb, text) IS
'Rows of tasker.validate_task() for a text that is YAML. Private.';

-- Without JIT: the estimates are for a large definition, and compiling machine
-- code would take many times as long as checking a small one.
CREATE FUNCTION tasker.validate_task(definition text, environment text DEFAULT NULL)
RETURNS TABLE (path text, line integer, message text, hint text)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
DECLARE
    parsed jsonb;
    detail text;
BEGIN
    IF definition IS NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'null_value_not_allowed',
            MESSAGE = 'definition must not be NULL',
            DETAIL = 'The argument definition is NULL.',
            HINT = 'Pass the text of a YAML or JSON file.';
    END IF;
    BEGIN
        parsed := tasker.yaml_to_jsonb(definition);
    EXCEPTION
        WHEN SQLSTATE 'TK005' THEN
            GET STACKED DIAGNOSTICS
                message = MESSAGE_TEXT,
                detail = PG_EXCEPTION_DETAIL,
                hint = PG_EXCEPTION_HINT;
            path := '';
            line := coalesce((regexp_match(detail, '\mline ([0-9]+)', 'i'))[1]::integer, 1);
            message := concat_ws(': ', message, nullif(detail, ''));
            hint := nullif(hint, '');
            RETURN NEXT;
            RETURN;
    END;
    RETURN QUERY
    SELECT p.path, p.line, p.message, p.hint
    FROM tasker._located_problems(
             definition, parsed,
             coalesce(environment, current_setting('tasker.environment', true))) AS p;
END;
$$;
COMMENT ON FUNCTION tasker.validate_task(text, text) IS
'Returns everything that is wrong with a definition in YAML or JSON, in the order of its lines; no row where register_task() would take it. path counts from 0, as in step_templates[2].depends_on_steps[0], and is empty for the whole; line counts from 1. The definition itself and what each of its environments makes of it are checked; environment (the setting tasker.environment where it is NULL) is the one named first where several share a problem. Stores nothing. Raises 22004 (definition is NULL). Source: design, contract; reference 5.';
