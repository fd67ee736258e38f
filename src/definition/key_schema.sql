-- The JSON Schema of a definition file, made of the keys: what an editor
-- completes and checks while somebody writes.  Whatever needs the database
-- (handlers, secrets) or the whole (dependencies) stays with validate_task().

CREATE FUNCTION tasker._kind_schema(kind text, low numeric, high numeric)
RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE kind
        WHEN 'name' THEN '{"type": ["string"], "minLength": 1, "maxLength": 128}'
        WHEN 'event_name' THEN
            '{"type": ["string"], "pattern": "^(?!(task|step|workflow|observability|test|handler|plugin|subscriber|registry|template|tasker)[.])[^.*]+([.][^.*]+)+$"}'
        WHEN 'version' THEN
            '{"type": ["string"], "pattern": "^(0|[1-9][0-9]*)[.](0|[1-9][0-9]*)[.](0|[1-9][0-9]*)(-[0-9a-zA-Z.-]+)?([+][0-9a-zA-Z.-]+)?$"}'
        WHEN 'on_failure' THEN '{"type": ["string"], "enum": ["continue", "stop", null]}'
        WHEN 'string' THEN '{"type": ["string"]}'
        WHEN 'boolean' THEN '{"type": ["boolean"]}'
        WHEN 'object' THEN '{"type": ["object"]}'
        WHEN 'strings' THEN '{"type": ["array"], "items": {"type": "string"}}'
        WHEN 'steps' THEN '{"type": ["array"], "maxItems": 16383}'
        WHEN 'events' THEN '{"type": ["array"]}'
        -- a lower bound above nothing is there to exclude it
        WHEN 'duration' THEN '{"type": ["number", "string"]}'::jsonb
                             || jsonb_build_object(CASE WHEN low > 0 THEN 'exclusiveMinimum' ELSE 'minimum' END, 0)
        WHEN 'integer' THEN jsonb_build_object('type', '["integer"]'::jsonb, 'minimum', low, 'maximum', high)
        WHEN 'number' THEN jsonb_strip_nulls(jsonb_build_object('type', '["number"]'::jsonb, 'minimum', low, 'maximum', high))
        WHEN 'any' THEN '{}'
    END;
$$;
COMMENT ON FUNCTION tasker._kind_schema(text, numeric, numeric) IS
'JSON Schema of a kind of value of tasker._definition_keys(). Private.';

CREATE FUNCTION tasker._scope_schema(scope text, wanted text[], leave_out text[], parts jsonb)
RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT jsonb_build_object(
               'type', 'object',
               'required', to_jsonb(wanted),
               'properties', jsonb_object_agg(k.key, k.schema),
               'patternProperties', '{"^x-": {"description": "Yours, for anchors or for other tools."}}'::jsonb,
               'additionalProperties', false)
    FROM (
        SELECT k.key,
               coalesce(parts -> k.key, '{}')
               || tasker._kind_schema(k.kind, k.low, k.high)
               -- a key without a value is as good as none
               || CASE
                      WHEN k.kind = 'any' THEN '{}'
                      WHEN k.key = ANY (wanted) THEN
                          jsonb_build_object('type', tasker._kind_schema(k.kind, k.low, k.high) -> 'type' -> 0)
                      ELSE jsonb_build_object('type', (tasker._kind_schema(k.kind, k.low, k.high) -> 'type') || '"null"')
                  END
               || jsonb_build_object(
                      'title', upper(left(k.key, 1)) || replace(substr(k.key, 2), '_', ' '),
                      'description', k.meaning,
                      'examples', jsonb_build_array(tasker.yaml_to_jsonb(k.example) -> k.key))
               || CASE WHEN k.default_value IS NULL THEN '{}'
                       ELSE jsonb_build_object('default', k.default_value) END AS schema
        FROM tasker._definition_keys() AS k
        WHERE k.scope = _scope_schema.scope
          AND k.key <> ALL (leave_out)) AS k;
$$;
COMMENT ON FUNCTION tasker._scope_schema(text, text[], text[], jsonb) IS
'JSON Schema of a mapping with the keys of a scope of tasker._definition_keys(), without those to leave out; wanted must be there; parts has more to say of some of them. Private.';

CREATE FUNCTION tasker._definition_schema()
RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    WITH piece AS (
        SELECT jsonb_build_object(
                   'custom_events', jsonb_build_object(
                       'items', tasker._scope_schema('event', '{name}', '{}', '{}')),
                   'retry', tasker._scope_schema('retry', '{}', '{}', '{}') - 'required',
                   'handler_config', jsonb_build_object(
                       'properties', '{"type": {"description": "api: an HTTP step, run by tasker-agent. Any other is the handler''s own."}}'::jsonb,
                       'if', '{"required": ["type"], "properties": {"type": {"const": "api"}}}'::jsonb,
                       'then', (tasker._scope_schema('api', '{}', '{}', '{}') - '{required,type}'::text[]))) AS parts
    ), step AS (
        SELECT p.parts,
               tasker._scope_schema('step', '{name}', '{}', p.parts)
               || '{"anyOf": [{"required": ["handler_class"]}, {"required": ["handler_config"]}]}' AS whole,
               tasker._scope_schema('step', '{name}', '{}', p.parts) AS change
        FROM piece AS p
    ), environment AS (
        SELECT s.parts, s.whole,
               (tasker._scope_schema('task', '{}', '{environments}', s.parts || jsonb_build_object(
                   'step_templates', jsonb_build_object('items', s.change))) - 'required')
               || '{"type": ["object", "null"]}' AS block
        FROM step AS s
    )
    SELECT jsonb_build_object(
               '$schema', 'https://json-schema.org/draft/2020-12/schema',
               'title', 'Task definition',
               'description', 'What tasker.register_task() takes.')
           || tasker._scope_schema('task', '{name,step_templates}', '{}', e.parts || jsonb_build_object(
                  'step_templates', jsonb_build_object('items', e.whole, 'minItems', 1),
                  'environments', jsonb_build_object('additionalProperties', e.block)))
    FROM environment AS e;
$$;
COMMENT ON FUNCTION tasker._definition_schema() IS
'What tasker.definition_schema() does, for its caller. Private.';

CREATE FUNCTION tasker.definition_schema()
RETURNS jsonb
LANGUAGE C STABLE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.definition_schema() IS
'Returns the JSON Schema (draft 2020-12) of a definition file, with a title, a description, an example and the default of every key: what editors complete and check. The same stands in the file tasker/definition.schema.json below what pg_config --sharedir names. It flags unknown keys, but those that begin with x-; what needs the whole or the database is left to tasker.validate_task(). Raises nothing. Source: design, Definitions.';
