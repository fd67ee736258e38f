-- Templates as code: what is registered as text, and what registering a text
-- would change.

CREATE FUNCTION tasker._export_task(
    name text,
    namespace text,
    version text)
RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    text text;
BEGIN
    PERFORM tasker._require('template:show', coalesce(_export_task.namespace, 'default'));
    SELECT t.source
    INTO text
    FROM tasker.template AS t
    WHERE t.namespace = coalesce(_export_task.namespace, 'default')
      AND t.name = _export_task.name
      AND (_export_task.version IS NULL OR t.version = _export_task.version)
    ORDER BY t.version_order DESC
    LIMIT 1;
    IF NOT FOUND THEN
        PERFORM tasker._refuse_unknown_template(name, coalesce(namespace, 'default'), version);
    END IF;
    RETURN text;
END;
$$;
COMMENT ON FUNCTION tasker._export_task(text, text, text) IS
'What tasker.export_task() does, for its caller. Private.';

CREATE FUNCTION tasker.export_task(
    name text,
    namespace text DEFAULT 'default',
    version text DEFAULT NULL)
RETURNS text
LANGUAGE C STABLE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.export_task(text, text, text) IS
'Returns a definition as it was registered, character for character, comments and all; with the environment it was registered for (tasker.template.environment), tasker.register_task() takes it without a change and gives the same id. Arguments: name and namespace of the task; version, NULL for the highest. Raises TK007 where there is no such template. Source: design, Definitions.';

CREATE FUNCTION tasker._steps_by_name(definition jsonb)
RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN jsonb_typeof(definition) = 'object' AND jsonb_typeof(definition -> 'step_templates') = 'array' THEN
            jsonb_set(definition, '{step_templates}', (
                SELECT coalesce(jsonb_object_agg(s.element ->> 'name', s.element), '{}')
                FROM tasker._elements(definition -> 'step_templates') AS s
                WHERE s.element ->> 'name' IS NOT NULL))
        ELSE definition
    END;
$$;
COMMENT ON FUNCTION tasker._steps_by_name(jsonb) IS
'A definition, or the block of an environment, whose list of steps is a mapping from their names. Private.';

CREATE FUNCTION tasker._comparable(definition jsonb)
RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT tasker._steps_by_name(
        CASE
            WHEN jsonb_typeof(definition -> 'environments') = 'object' THEN
                jsonb_set(definition, '{environments}', (
                    SELECT coalesce(jsonb_object_agg(e.key, tasker._steps_by_name(e.value)), '{}')
                    FROM jsonb_each(definition -> 'environments') AS e))
            ELSE definition
        END);
$$;
COMMENT ON FUNCTION tasker._comparable(jsonb) IS
'A definition in which every list of steps is a mapping from their names, so that a step is compared with itself wherever it stands. Private.';

CREATE FUNCTION tasker._jsonb_differences(before jsonb, after jsonb, path text[])
RETURNS TABLE (change text, place text[], old_value jsonb, new_value jsonb)
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE ROWS 10
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF before IS NOT DISTINCT FROM after THEN
        RETURN;
    END IF;
    IF jsonb_typeof(before) IS DISTINCT FROM 'object' OR jsonb_typeof(after) IS DISTINCT FROM 'object' THEN
        RETURN QUERY
        SELECT CASE WHEN before IS NULL THEN 'added' WHEN after IS NULL THEN 'removed' ELSE 'changed' END,
               path, before, after;
        RETURN;
    END IF;
    RETURN QUERY
    SELECT d.*
    FROM jsonb_each(before) AS b
    FULL JOIN jsonb_each(after) AS a ON a.key = b.key
    CROSS JOIN LATERAL tasker._jsonb_differences(b.value, a.value, path || coalesce(b.key, a.key)) AS d
    WHERE b.value IS DISTINCT FROM a.value;
END;
$$;
COMMENT ON FUNCTION tasker._jsonb_differences(jsonb, jsonb, text[]) IS
'Where two values differ: mappings by key, at any depth, anything else as a whole. Private.';

CREATE FUNCTION tasker._steps_in_common(definition jsonb, other jsonb)
RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(jsonb_agg(s.name ORDER BY s.step_no), '[]')
    FROM tasker._definition_steps(definition) AS s
    WHERE s.name IN (
        SELECT o.name
        FROM tasker._definition_steps(other) AS o);
$$;
COMMENT ON FUNCTION tasker._steps_in_common(jsonb, jsonb) IS
'Names of the steps that both definitions have, in the order of the first. Private.';

CREATE FUNCTION tasker._definition_differences(before jsonb, after jsonb)
RETURNS TABLE (change text, path text, before jsonb, after jsonb)
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT d.change,
           (SELECT string_agg(
                       CASE WHEN k.key !~ '^[A-Za-z_$][A-Za-z0-9_$-]*$' THEN '[' || to_jsonb(k.key)::text || ']'
                            WHEN k.n > 1 THEN '.' || k.key
                            ELSE k.key END, '' ORDER BY k.n)
            FROM unnest(d.place) WITH ORDINALITY AS k (key, n)),
           CASE WHEN w.as_written THEN $1 #> d.place ELSE d.old_value END,
           CASE WHEN w.as_written THEN $2 #> d.place ELSE d.new_value END
    FROM tasker._jsonb_differences(tasker._comparable($1), tasker._comparable($2), '{}') AS d
    -- what has steps within it, and lies in none
    CROSS JOIN LATERAL (SELECT d.place[1] = 'environments' AND cardinality(d.place) <= 3) AS w (as_written)
    UNION ALL
    SELECT 'changed', 'step_templates', o.before, o.after
    FROM (SELECT tasker._steps_in_common($1, $2) AS before,
                 tasker._steps_in_common($2, $1) AS after) AS o
    WHERE o.before <> o.after;
$$;
COMMENT ON FUNCTION tasker._definition_differences(jsonb, jsonb) IS
'Rows of tasker.diff_task() for two definitions without problems. Private.';

-- Without JIT, for the same reason as validate_task().
CREATE FUNCTION tasker._diff_task(definition text, environment text)
RETURNS TABLE (change text, path text, before jsonb, after jsonb)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
DECLARE
    new_template tasker.template := tasker._read_template(definition, environment);
    old_template tasker.template := tasker._registered_template(new_template);
BEGIN
    PERFORM tasker._require('template:show', new_template.namespace);
    IF tasker._is_same_template(new_template, old_template) THEN
        RETURN;
    END IF;
    PERFORM tasker._raise_problems(
        definition, new_template.definition,
        coalesce(new_template.environment, current_setting('tasker.environment', true)), false);
    IF old_template.template_id IS NULL THEN
        RETURN QUERY
        SELECT 'added', '', NULL::jsonb, new_template.definition;
        RETURN;
    END IF;
    RETURN QUERY
    WITH found AS MATERIALIZED (
        SELECT d.*
        FROM tasker._definition_differences(old_template.definition, new_template.definition) AS d
    )
    SELECT f.change, f.path, f.before, f.after
    FROM (SELECT 0 AS rank, 'changed' AS change, 'environment' AS path,
                 to_jsonb(old_template.environment) AS before, to_jsonb(new_template.environment) AS after
          WHERE old_template.environment IS DISTINCT FROM new_template.environment
          UNION ALL
          SELECT 1, 'text', '', NULL, NULL
          WHERE old_template.source <> new_template.source
            AND NOT EXISTS (SELECT FROM found)
          UNION ALL
          SELECT 2, d.*
          FROM found AS d) AS f
    ORDER BY f.rank, f.path COLLATE "C", f.change;
END;
$$;
COMMENT ON FUNCTION tasker._diff_task(text, text) IS
'What tasker.diff_task() does, for its caller. Private.';

CREATE FUNCTION tasker.diff_task(definition text, environment text DEFAULT NULL)
RETURNS TABLE (change text, path text, before jsonb, after jsonb)
LANGUAGE C STABLE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.diff_task(text, text) IS
'Returns what registering a definition would change in what is registered under its namespace, name and version; no row where it would change nothing. Arguments: definition, a text in YAML or JSON; environment, as for tasker.register_task(). Columns: change: added, removed or changed, or text where the text differs in comments and layout alone; path: place of the value, with the steps by their names, as in step_templates.charge.timeout, empty for the whole, which is what is added where nothing is registered; before and after: the value, NULL where there is none. A list is compared as a whole; step_templates itself has a row where the steps stand in another order, with their names. The environment that a template is registered for has the path environment. Raises TK005 as tasker.register_task() does, 22004 (definition is NULL). Source: design, Definitions.';
