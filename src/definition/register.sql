-- Templates and their plans.

CREATE FUNCTION tasker._compile_steps(definition jsonb)
RETURNS SETOF tasker.plan_step
LANGUAGE plpgsql STABLE ROWS 5000
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH task AS MATERIALIZED (
        SELECT definition ->> 'default_dependent_system' AS dependent_system
    ), step AS MATERIALIZED (
        SELECT s.step_no, s.name, s.handler_class, s.handler_type, s.step
        FROM tasker._definition_steps(definition) AS s
    ), edge AS MATERIALIZED (
        SELECT d.step_no, p.step_no AS parent_no
        FROM tasker._definition_dependencies(definition) AS d
        JOIN step AS p ON p.name = d.dependency
    ), graph AS MATERIALIZED (
        SELECT g.*
        FROM (SELECT coalesce(array_agg(e.step_no), '{}') AS children,
                     coalesce(array_agg(e.parent_no), '{}') AS parents
              FROM edge AS e) AS edges
        CROSS JOIN LATERAL tasker._graph((SELECT count(*)::integer FROM step), edges.children, edges.parents) AS g
    )
    SELECT NULL::integer,
           g.step_no,
           s.name,
           coalesce(s.step ->> 'description', s.name),
           coalesce(s.handler_class, 'api'),
           s.handler_type,
           nullif(s.step -> 'handler_config', 'null'),
           coalesce(s.step ->> 'dependent_system', task.dependent_system),
           g.parents,
           g.children,
           g.level,
           coalesce((s.step ->> 'default_retryable')::boolean, true),
           coalesce(s.step -> 'retry' ->> 'limit', s.step ->> 'default_retry_limit', '3')::numeric::smallint,
           delay.base,
           CASE WHEN delay.grows THEN coalesce(tasker._duration(s.step -> 'retry' -> 'max_delay'), interval '30 s')
                ELSE delay.base END,
           coalesce((s.step -> 'retry' ->> 'jitter')::real, CASE WHEN delay.factor IS NULL THEN 0.1 ELSE 0 END::real),
           tasker._duration(s.step -> 'timeout'),
           coalesce((s.step ->> 'skippable')::boolean, false)
    FROM step AS s
    JOIN graph AS g ON g.step_no = s.step_no
    CROSS JOIN task
    -- what an HTTP step says of its retries, where retry does not
    CROSS JOIN LATERAL (
        SELECT CASE s.handler_type WHEN 'api' THEN nullif(s.step -> 'handler_config', 'null') END AS config) AS api
    CROSS JOIN LATERAL (
        SELECT coalesce((api.config ->> 'enable_exponential_backoff')::boolean, true) AS grows,
               (api.config ->> 'jitter_factor')::float8 AS factor,
               coalesce(tasker._duration(s.step -> 'retry' -> 'base_delay'),
                        tasker._duration(api.config -> 'retry_delay'),
                        interval '1 s') * coalesce((api.config ->> 'jitter_factor')::float8, 1) AS base) AS delay
    ORDER BY s.step_no;
END;
$$;
COMMENT ON FUNCTION tasker._compile_steps(jsonb) IS
'Rows of tasker.plan_step, but for the plan''s id, of a merged definition that has no problem. Private.';

CREATE FUNCTION tasker._template_plans(definition jsonb, environment text)
RETURNS TABLE (environment text, definition jsonb)
LANGUAGE sql IMMUTABLE ROWS 5
SET search_path = pg_catalog, pg_temp
AS $$
    -- Where the environment is fixed, no task ever follows another plan.
    SELECT w.environment, tasker._merge_environment($1, w.environment)
    FROM (SELECT NULL::text AS environment
          UNION ALL
          SELECT e.key
          FROM tasker._entries($1 -> 'environments') AS e) AS w
    WHERE $2 IS NULL
       OR w.environment IS NOT DISTINCT FROM (
              SELECT e.key
              FROM tasker._entries($1 -> 'environments') AS e
              WHERE e.key = $2);
$$;
COMMENT ON FUNCTION tasker._template_plans(jsonb, text) IS
'The plans that a template needs: the merged definition of each environment and of none (NULL), or the one for the environment that is fixed. Private.';

CREATE FUNCTION tasker._compile_plans(template_id integer)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    template tasker.template;
BEGIN
    SELECT t.*
    INTO STRICT template
    FROM tasker.template AS t
    WHERE t.template_id = _compile_plans.template_id;

    -- A plan that would come out the same stays, and so does what is cached of it.
    UPDATE tasker.plan AS p
    SET retired_at = tasker.clock()
    WHERE p.template_id = template.template_id
      AND p.retired_at IS NULL
      AND NOT EXISTS (
          SELECT
          FROM tasker._template_plans(template.definition, template.environment) AS w
          WHERE w.environment IS NOT DISTINCT FROM p.environment
            AND w.definition = p.definition);

    WITH made AS (
        INSERT INTO tasker.plan (template_id, environment, namespace, name, version, step_count,
                                 schema, timeout, on_failure, concurrent, priority, definition)
        SELECT template.template_id, w.environment, template.namespace, template.name, template.version,
               jsonb_array_length(w.definition -> 'step_templates'),
               nullif(w.definition -> 'schema', 'null'),
               tasker._duration(w.definition -> 'timeout'),
               coalesce(w.definition ->> 'on_failure', 'continue'),
               coalesce((w.definition ->> 'concurrent')::boolean, true),
               coalesce((w.definition ->> 'priority')::numeric::integer, 0),
               w.definition
        FROM tasker._template_plans(template.definition, template.environment) AS w
        WHERE NOT EXISTS (
            SELECT
            FROM tasker.plan AS p
            WHERE p.template_id = template.template_id
              AND p.environment IS NOT DISTINCT FROM w.environment
              AND p.retired_at IS NULL)
        ORDER BY w.environment NULLS FIRST
        RETURNING plan_id, definition
    )
    INSERT INTO tasker.plan_step (plan_id, step_no, name, description, handler_class, handler_type,
                                  handler_config, dependent_system, parents, children, level, retryable,
                                  retry_limit, base_delay, max_delay, jitter, timeout, skippable)
    SELECT made.plan_id, s.step_no, s.name, s.description, s.handler_class, s.handler_type,
           s.handler_config, s.dependent_system, s.parents, s.children, s.level, s.retryable,
           s.retry_limit, s.base_delay, s.max_delay, s.jitter, s.timeout, s.skippable
    FROM made
    CROSS JOIN LATERAL tasker._compile_steps(made.definition) AS s;
END;
$$;
COMMENT ON FUNCTION tasker._compile_plans(integer) IS
'Brings the plans of a template in line with its definition: retires those that differ and makes those that are missing. Private.';

CREATE FUNCTION tasker._raise_problems(source text, definition jsonb, environment text, registering boolean)
RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    most constant integer := 100;
    problems integer;
    details text;
    first_hint text;
BEGIN
    SELECT count(*),
           string_agg(format('line %s, %s%s', p.line, p.path || CASE p.path WHEN '' THEN '' ELSE ': ' END, p.message),
                      E'\n' ORDER BY p.n) FILTER (WHERE p.n <= most),
           (array_agg(p.hint ORDER BY p.n) FILTER (WHERE p.hint IS NOT NULL))[1]
    INTO problems, details, first_hint
    FROM tasker._located_problems(source, definition, environment)
         WITH ORDINALITY AS p (path, line, message, hint, n);
    IF problems = 0 THEN
        RETURN;
    END IF;
    IF registering THEN
        PERFORM tasker._note_refused_template(definition, problems, details);
    END IF;
    RAISE EXCEPTION USING
        ERRCODE = 'TK005',
        MESSAGE = 'invalid definition' || coalesce(' of task "' || left(tasker._string(definition -> 'name'), 128) || '"', '')
                  || CASE problems WHEN 1 THEN '' ELSE format(': %s problems', problems) END,
        DETAIL = details || CASE WHEN problems > most THEN format(E'\nand %s more', problems - most) ELSE '' END,
        HINT = coalesce(first_hint, 'tasker.validate_task() gives them as rows.');
END;
$$;
COMMENT ON FUNCTION tasker._raise_problems(text, jsonb, text, boolean) IS
'Raises TK005 with all problems of a definition in the detail, each with its line; nothing where there is none. registering: the refusal is noted. Private.';

CREATE FUNCTION tasker._raise_warnings(source text, definition jsonb)
RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    warning record;
BEGIN
    IF NOT EXISTS (SELECT FROM tasker._definition_warnings(definition)) THEN
        RETURN;     -- and the text need not be read a second time
    END IF;
    FOR warning IN
        WITH found AS MATERIALIZED (
            SELECT w.path, w.message, w.hint, row_number() OVER (ORDER BY w.path) AS n
            FROM tasker._definition_warnings(definition) AS w
            ORDER BY w.path
            LIMIT 100
        )
        SELECT tasker._path_text(f.path) AS place, l.line, f.message, f.hint
        FROM found AS f
        JOIN tasker._locate(source, ARRAY(SELECT to_jsonb(f2.path)::text FROM found AS f2 ORDER BY f2.n)) AS l
            ON l.n = f.n
        ORDER BY l.line, l."column", f.n
    LOOP
        RAISE WARNING USING
            MESSAGE = format('line %s, %s: %s', warning.line, warning.place, warning.message),
            HINT = coalesce(warning.hint, 'doc/definition.md lists every key.');
    END LOOP;
END;
$$;
COMMENT ON FUNCTION tasker._raise_warnings(text, jsonb) IS
'Raises a warning for whatever a definition says without effect, at most 100. Private.';

CREATE FUNCTION tasker._read_template(definition text, environment text)
RETURNS tasker.template
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    template tasker.template;
BEGIN
    IF definition IS NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'null_value_not_allowed',
            MESSAGE = 'definition must not be NULL',
            DETAIL = 'The argument definition is NULL.',
            HINT = 'Pass the text of a YAML or JSON file.';
    END IF;
    template.environment := nullif(environment, '');
    IF tasker._name_problem(template.environment) IS NOT NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'TK005',
            MESSAGE = 'name of the environment ' || tasker._name_problem(template.environment),
            DETAIL = format('The environment is "%s".', left(template.environment, 200)),
            HINT = 'A name has 1 to 128 printable characters.';
    END IF;
    template.source := definition;
    template.definition := tasker.yaml_to_jsonb(definition);
    template.namespace := coalesce(tasker._string(template.definition -> 'namespace_name'), 'default');
    template.name := tasker._string(template.definition -> 'name');
    template.version := coalesce(tasker._string(template.definition -> 'version'), '0.1.0');
    template.version_order := tasker._version_order(template.version);
    template.description := tasker._string(template.definition -> 'description');
    RETURN template;
END;
$$;
COMMENT ON FUNCTION tasker._read_template(text, text) IS
'A definition as a row of tasker.template, without an id; what is wrong with it is not looked for. Raises TK005 for broken YAML and for a name that no environment can have, 22004. Private.';

CREATE FUNCTION tasker._registered_template(template tasker.template)
RETURNS tasker.template
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT t
    FROM tasker.template AS t
    WHERE t.namespace = template.namespace
      AND t.name = template.name
      AND t.version = template.version;
$$;
COMMENT ON FUNCTION tasker._registered_template(tasker.template) IS
'What is registered under the namespace, name and version of a template; NULL: nothing. Private.';

CREATE FUNCTION tasker._is_same_template(one tasker.template, other tasker.template)
RETURNS boolean
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(one.source = other.source, false)
       AND one.environment IS NOT DISTINCT FROM other.environment;
$$;
COMMENT ON FUNCTION tasker._is_same_template(tasker.template, tasker.template) IS
'Whether registering the one where the other is registered changes nothing: the same text for the same environment. Private.';

-- Without JIT, for the same reason as validate_task().
CREATE FUNCTION tasker._register_task(definition text, environment text, replace boolean, caller text)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
DECLARE
    new_template tasker.template := tasker._read_template(definition, environment);
    old_template tasker.template := tasker._registered_template(new_template);
BEGIN
    PERFORM tasker._require('template:create', new_template.namespace);
    -- The same once more is no change, whatever became of its handlers.
    IF tasker._is_same_template(new_template, old_template) THEN
        RETURN old_template.template_id;
    END IF;

    PERFORM tasker._raise_problems(
        definition, new_template.definition,
        coalesce(new_template.environment, current_setting('tasker.environment', true)), true);

    LOOP
        SELECT t.*
        INTO old_template
        FROM tasker.template AS t
        WHERE t.namespace = new_template.namespace
          AND t.name = new_template.name
          AND t.version = new_template.version
        FOR UPDATE;
        IF NOT FOUND THEN
            -- Waits for a session that registers the same name at this moment,
            -- and has then to look at what that one did.
            INSERT INTO tasker.template (namespace, name, version, version_order, description, environment,
                                         source, definition, registered_by)
            VALUES (new_template.namespace, new_template.name, new_template.version, new_template.version_order,
                    new_template.description, new_template.environment, new_template.source,
                    new_template.definition, caller)
            ON CONFLICT (namespace, name, version) DO NOTHING
            RETURNING template_id INTO new_template.template_id;
            EXIT WHEN FOUND;
            CONTINUE;
        END IF;

        IF tasker._is_same_template(new_template, old_template) THEN
            RETURN old_template.template_id;
        END IF;
        IF replace IS NOT TRUE THEN
            RAISE EXCEPTION USING
                ERRCODE = 'TK008',
                MESSAGE = format('task "%s" of namespace "%s", version "%s" is already registered',
                                 old_template.name, old_template.namespace, old_template.version),
                DETAIL = format('Role "%s" registered it %s.', old_template.registered_by,
                    CASE
                        WHEN old_template.source <> new_template.source THEN 'with another text'
                        WHEN old_template.environment IS NULL THEN 'without an environment of its own'
                        ELSE format('for environment "%s"', old_template.environment)
                    END),
                HINT = 'Give the definition another version, or pass replace => true: tasks created from then on follow the new one.';
        END IF;
        UPDATE tasker.template AS t
        SET description = new_template.description,
            environment = new_template.environment,
            source = new_template.source,
            definition = new_template.definition,
            registered_by = caller,
            registered_at = tasker.clock()
        WHERE t.template_id = old_template.template_id;
        new_template.template_id := old_template.template_id;
        EXIT;
    END LOOP;

    PERFORM tasker._compile_plans(new_template.template_id);
    PERFORM tasker._add_systems(ARRAY(
        SELECT DISTINCT s.dependent_system
        FROM tasker.plan AS p
        JOIN tasker.plan_step AS s USING (plan_id)
        WHERE p.template_id = new_template.template_id
          AND p.retired_at IS NULL
          AND s.dependent_system IS NOT NULL));
    PERFORM tasker._register_template_events(new_template.template_id, caller);
    PERFORM tasker._raise_warnings(definition, new_template.definition);
    PERFORM tasker._note_template(old_template, new_template, replace);
    RETURN new_template.template_id;
END;
$$;
REVOKE ALL ON FUNCTION tasker._register_task(text, text, boolean, text) FROM PUBLIC;
COMMENT ON FUNCTION tasker._register_task(text, text, boolean, text) IS
'What tasker.register_task() does, for the role of its caller. Private.';

CREATE FUNCTION tasker.register_task(
    definition text,
    environment text DEFAULT NULL,
    replace boolean DEFAULT false)
RETURNS bigint
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.register_task(text, text, boolean) IS
'Registers a task definition in YAML or JSON and returns the id of its template. environment: the block of its environments that its tasks follow; NULL leaves that to the setting tasker.environment when a task is created. The same text with the same environment again returns the same id and changes nothing. replace: take the place of another text or environment under the same namespace, name and version; tasks that exist keep theirs. Warns of unknown keys. Raises TK005 (every problem in the detail, with its line), TK008 (namespace, name and version are taken), 22004 (definition is NULL). Source: design, contract; reference 5.';
