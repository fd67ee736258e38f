-- What the REST API asks of the database.  tasker-agent knows the routes; each
-- is one call of a function below, which runs as the role of the request and
-- does nothing that this role could not do by the public functions itself.
--
-- What such a function returns: body, and where they are needed status, location
-- and next, the cursor of the next page.  What it raises becomes an answer by its
-- SQLSTATE: class 22 is 400, but 22023, TK005 and TK006 are 422.

CREATE FUNCTION tasker._rest_schema(name text)
RETURNS jsonb
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT s.schema
    FROM tasker._rest_schemas() AS s
    WHERE s.name = _rest_schema.name;
$$;
COMMENT ON FUNCTION tasker._rest_schema(text) IS
'JSON Schema of a body of the REST API. Private.';

CREATE FUNCTION tasker._rest_fields(document text, wrapper text, schema jsonb)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    fields jsonb := coalesce(nullif(document, ''), '{}')::jsonb;
    problems jsonb;
    details text;
    is_unknown boolean;
BEGIN
    IF jsonb_typeof(fields -> wrapper) = 'object' AND fields - wrapper = '{}' THEN
        fields := fields -> wrapper;
    END IF;
    IF tasker.json_schema_is_valid(schema, fields) THEN
        RETURN fields;
    END IF;
    WITH problem AS (
        SELECT e.instance_path AS path, e.message, e.schema_path ~ '/additionalProperties$' AS is_unknown
        FROM tasker.json_schema_errors(schema, fields) AS e
        LIMIT 20
    ), part AS (
        SELECT p.path, jsonb_agg(p.message) AS messages
        FROM problem AS p
        GROUP BY p.path
    )
    SELECT (SELECT jsonb_object_agg(p.path, p.messages) FROM part AS p),
           string_agg(format('%s %s.', CASE p.path WHEN '' THEN 'The body' ELSE p.path END, p.message), ' '),
           bool_and(p.is_unknown)
    INTO problems, details, is_unknown
    FROM problem AS p;
    -- 22023 where it is only that members are unknown: 422, not 400.
    RAISE EXCEPTION USING
        ERRCODE = CASE WHEN is_unknown THEN '22023' ELSE '22P02' END,
        MESSAGE = 'the body is not what this operation takes',
        DETAIL = details,
        HINT = '/tasker/openapi.json has its schema.',
        CONSTRAINT = problems::text;
END;
$$;
COMMENT ON FUNCTION tasker._rest_fields(text, text, jsonb) IS
'The members of a body, which may stand in an object of the name wrapper; no body is an empty one. Raises 22P02 for what is no JSON or breaks the schema, 22023 where its only fault is an unknown member; the problems stand in the error''s constraint name, by path. Private.';

CREATE FUNCTION tasker._rest_cursor(cursor text)
RETURNS bigint
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF cursor !~ '^[0-9]{1,18}$' THEN
        RAISE EXCEPTION USING
            ERRCODE = '22P02',
            MESSAGE = 'cursor is none that was given out',
            DETAIL = format('It is "%s".', left(cursor, 100)),
            HINT = 'Follow the Link header with rel="next".';
    END IF;
    RETURN cursor::bigint;
END;
$$;
COMMENT ON FUNCTION tasker._rest_cursor(text) IS
'The id that a cursor stands for. Raises 22P02. Private.';

CREATE FUNCTION tasker._rest_texts(list jsonb)
RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE jsonb_typeof(list)
        WHEN 'array' THEN ARRAY(SELECT jsonb_array_elements_text(list))
    END;
$$;
COMMENT ON FUNCTION tasker._rest_texts(jsonb) IS
'A list of strings as an array; NULL for what is no list. Private.';

CREATE FUNCTION tasker._rest_diagram_type(format text)
RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE format
        WHEN 'dot' THEN 'text/vnd.graphviz; charset=utf-8'
        WHEN 'json' THEN 'application/json'
        WHEN 'svg' THEN 'image/svg+xml'
        ELSE 'text/plain; charset=utf-8'
    END;
$$;
COMMENT ON FUNCTION tasker._rest_diagram_type(text) IS
'Media type of a diagram in that format. Private.';

CREATE FUNCTION tasker._rest_metrics_type(format text)
RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE format
        WHEN 'json' THEN 'application/json'
        WHEN 'csv' THEN 'text/csv; charset=utf-8'
        ELSE 'text/plain; version=0.0.4; charset=utf-8'
    END;
$$;
COMMENT ON FUNCTION tasker._rest_metrics_type(text) IS
'Media type of the metrics in that format. Private.';

CREATE FUNCTION tasker._rest_openapi(skeleton text)
RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT jsonb_set(skeleton::jsonb, '{components,schemas}', (
        SELECT jsonb_object_agg(s.name, s.schema)
        FROM tasker._rest_schemas() AS s));
$$;
COMMENT ON FUNCTION tasker._rest_openapi(text) IS
'What tasker-agent writes of its routes, with the schemas of the bodies. Private.';
