-- What is wrong with a definition as a whole.  Whatever needs the whole
-- (dependencies, cycles, handlers) is checked on the definition that each
-- environment makes of it; the values are checked in validate_keys.sql.  A check
-- that finds a value of the wrong type takes it as absent: somebody else has
-- reported it.

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

CREATE FUNCTION tasker._with_common_config(definition jsonb)
RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    common constant jsonb := definition -> 'handler_config';
BEGIN
    IF jsonb_typeof(common) IS DISTINCT FROM 'object'
       OR common = '{}'
       OR jsonb_typeof(definition -> 'step_templates') IS DISTINCT FROM 'array' THEN
        RETURN definition;
    END IF;
    -- A step that says neither who runs it nor how is one that forgot to.
    RETURN jsonb_set(definition, '{step_templates}', (
        SELECT coalesce(jsonb_agg(
                   CASE
                       WHEN jsonb_typeof(s.element) = 'object'
                            AND (s.element ? 'handler_class' OR s.element ? 'handler_config')
                            AND coalesce(jsonb_typeof(s.element -> 'handler_config'), 'null') IN ('object', 'null') THEN
                           s.element || jsonb_build_object('handler_config', tasker._merge(
                               common, coalesce(nullif(s.element -> 'handler_config', 'null'), '{}')))
                       ELSE s.element
                   END ORDER BY s.n), '[]')
        FROM tasker._elements(definition -> 'step_templates') AS s));
END;
$$;
COMMENT ON FUNCTION tasker._with_common_config(jsonb) IS
'A merged definition in which the handler_config of each step begins with that of the task. Private.';

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
        RETURN tasker._with_common_config(base);
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
    RETURN tasker._with_common_config(merged);
END;
$$;
COMMENT ON FUNCTION tasker._merge_environment(jsonb, text) IS
'The definition with one of its environments merged in and environments taken out: objects are merged, step_templates by name in the order of the definition, anything else is replaced, and steps that the definition does not have are ignored. The handler_config of the task is merged into those of its steps. An environment that it does not name, or NULL, changes nothing. Source: reference 5.3. Private.';

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
    WHERE h.name = handler_class
      AND (h.namespace = 'default' OR tasker._sees('{handler:show,handler:index}', h.namespace));
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
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
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
    SELECT p.path, p.message, p.hint, NULL
    FROM tasker._http_problems(definition) AS p
    UNION ALL
    SELECT ARRAY['schema'] || p.path,
           tasker._path_text(ARRAY['schema'] || p.path) || ' ' || p.message,
           p.hint, NULL
    FROM tasker._schema_problems(definition -> 'schema') AS p
    WHERE jsonb_typeof(definition -> 'schema') = 'object';
END;
$$;
COMMENT ON FUNCTION tasker._graph_problems(jsonb) IS
'What is wrong with a merged definition as a whole: names, dependencies, cycles, handlers, URLs, the schema. also is a second place that belongs to the problem. Private.';

CREATE FUNCTION tasker._placed(definition jsonb, environments text[], paths text[])
RETURNS TABLE (n bigint, path text[], in_block boolean)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    IF cardinality(paths) = 0 THEN
        RETURN;
    END IF;
    RETURN QUERY
    WITH wanted AS MATERIALIZED (
        SELECT w.n, w.environment,
               definition -> 'environments' -> w.environment AS block,
               ARRAY(SELECT jsonb_array_elements_text(w.path::jsonb)) AS path
        FROM unnest(environments, paths) WITH ORDINALITY AS w (environment, path, n)
    ), change AS MATERIALIZED (
        -- where an environment's element for a step stands
        SELECT w.environment, (s.step_no - 1)::text AS step_index, min(e.n)::text AS change_index
        FROM (SELECT DISTINCT x.environment
              FROM wanted AS x
              WHERE x.environment IS NOT NULL) AS w
        JOIN tasker._definition_steps(definition) AS s ON true
        JOIN tasker._elements(definition -> 'environments' -> w.environment -> 'step_templates') AS e
            ON tasker._string(e.element -> 'name') = s.name
        GROUP BY w.environment, s.step_no
    ), inside AS (
        SELECT w.*,
               CASE
                   WHEN w.environment IS NULL THEN NULL
                   -- the name is what an element is found by, not what it changes
                   WHEN w.path[3] = 'name' THEN NULL
                   WHEN w.path[1] = 'step_templates' THEN
                       ARRAY['step_templates', c.change_index] || w.path[3:]
                   ELSE w.path
               END AS block_path
        FROM wanted AS w
        LEFT JOIN change AS c
            ON c.environment = w.environment
           AND w.path[1] = 'step_templates'
           AND c.step_index = w.path[2]
    )
    SELECT i.n,
           CASE WHEN i.block #> i.block_path IS NOT NULL
                THEN ARRAY['environments', i.environment] || i.block_path
                ELSE i.path END,
           i.block #> i.block_path IS NOT NULL
    FROM inside AS i;
END;
$$;
COMMENT ON FUNCTION tasker._placed(jsonb, text[], text[]) IS
'Where the values at these places (jsonb arrays of keys, as text) of what an environment makes of a definition stand in the definition as it is written: in the block of the environment, where they are there, else where the base has them. n counts the places from 1. Private.';

CREATE FUNCTION tasker._definition_problems(definition jsonb, environment text)
RETURNS TABLE (path text[], message text, hint text, also text[])
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
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
        SELECT m.environment, m.rank, g.path, g.message, g.hint, g.also, row_number() OVER () AS n
        FROM merged AS m
        CROSS JOIN LATERAL tasker._graph_problems(m.whole) AS g
    ), placed AS (
        SELECT p.path, f.message, f.hint, f.also, f.environment, f.rank, p.in_block
        FROM found AS f
        JOIN tasker._placed(definition,
                            ARRAY(SELECT f2.environment FROM found AS f2 ORDER BY f2.n),
                            ARRAY(SELECT to_jsonb(f2.path)::text FROM found AS f2 ORDER BY f2.n)) AS p ON p.n = f.n
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
END;
$$;
COMMENT ON FUNCTION tasker._definition_problems(jsonb, text) IS
'All problems of a definition, of the definition itself and of what each of its environments makes of it, each once; the one named here goes before the others. Private.';

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
CREATE FUNCTION tasker._validate_task(definition text, environment text)
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
    PERFORM tasker._require('template:show', coalesce(tasker._string(parsed -> 'namespace_name'), 'default'));
    RETURN QUERY
    SELECT p.path, p.line, p.message, p.hint
    FROM tasker._located_problems(
             definition, parsed,
             coalesce(environment, current_setting('tasker.environment', true))) AS p;
END;
$$;
COMMENT ON FUNCTION tasker._validate_task(text, text) IS
'What tasker.validate_task() does, for its caller. Private.';

CREATE FUNCTION tasker.validate_task(definition text, environment text DEFAULT NULL)
RETURNS TABLE (path text, line integer, message text, hint text)
LANGUAGE C STABLE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.validate_task(text, text) IS
'Returns everything that is wrong with a definition in YAML or JSON, in the order of its lines; no row where register_task() would take it. path counts from 0, as in step_templates[2].depends_on_steps[0], and is empty for the whole; line counts from 1. The definition itself and what each of its environments makes of it are checked; environment (the setting tasker.environment where it is NULL) is the one named first where several share a problem. Stores nothing. Raises 22004 (definition is NULL). Source: design, contract; reference 5.';
