-- JSON Schema: what a context must look like, and the schemas that others refer to.

CREATE TABLE tasker.stored_schema (
    uri text COLLATE "C" PRIMARY KEY,
    schema jsonb NOT NULL,
    registered_by text NOT NULL DEFAULT current_user,
    registered_at timestamptz NOT NULL DEFAULT tasker.clock()
);
COMMENT ON TABLE tasker.stored_schema IS 'A JSON Schema that others can refer to by its URI. C reads it by its key (json_schema_host.c).';
COMMENT ON COLUMN tasker.stored_schema.uri IS 'Absolute URI, without a fragment.';
COMMENT ON COLUMN tasker.stored_schema.schema IS 'The schema.';
COMMENT ON COLUMN tasker.stored_schema.registered_by IS 'Role that registered it.';
COMMENT ON COLUMN tasker.stored_schema.registered_at IS 'When it was registered, or last replaced.';

SELECT pg_catalog.pg_extension_config_dump('tasker.stored_schema', '');

CREATE VIEW tasker.schemas WITH (security_invoker) AS
SELECT s.uri, s.schema, s.registered_by, s.registered_at
FROM tasker.stored_schema AS s;
COMMENT ON VIEW tasker.schemas IS 'JSON Schemas that others can refer to, by register_schema(). Source: design, contract.';
COMMENT ON COLUMN tasker.schemas.uri IS 'What a $ref or $schema calls it.';
COMMENT ON COLUMN tasker.schemas.schema IS 'The schema.';
COMMENT ON COLUMN tasker.schemas.registered_by IS 'Role that registered it.';
COMMENT ON COLUMN tasker.schemas.registered_at IS 'When it was registered, or last replaced.';

CREATE FUNCTION tasker.json_schema_errors(
    schema jsonb,
    instance jsonb,
    OUT instance_path text,
    OUT schema_path text,
    OUT message text)
RETURNS SETOF record
LANGUAGE C STABLE STRICT PARALLEL SAFE ROWS 10
AS 'MODULE_PATHNAME', 'tasker_json_schema_errors';
COMMENT ON FUNCTION tasker.json_schema_errors(jsonb, jsonb) IS
'All that is wrong with a value, by a JSON Schema of draft 2020-12, 7 or 4; no row if nothing is.
Arguments: schema, the schema, whose $schema says the draft (none: 2020-12); instance, the value to check.
Returns: instance_path and schema_path, JSON Pointers to the part of the value and to the keyword that it breaks (empty: the whole; in a schema that was stored by register_schema(), with its URI); message, what is wrong, as the end of a sentence that begins with the part.
doc/json_schema.md says what of the drafts is different here, and what is left out. References find stored schemas only; nothing is fetched from anywhere.
Raises TK005 where the schema itself is wrong, or refers to what is not stored; 54000 where the check takes too many steps, 54001 where it gets too deep.
Source: design, contract.';

CREATE FUNCTION tasker.json_schema_is_valid(schema jsonb, instance jsonb)
RETURNS boolean
LANGUAGE C STABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'tasker_json_schema_is_valid';
COMMENT ON FUNCTION tasker.json_schema_is_valid(jsonb, jsonb) IS
'Returns whether a value satisfies a JSON Schema; json_schema_errors() says why not, and more of schemas.
Arguments: schema, the schema; instance, the value to check.
Raises TK005 where the schema itself is wrong, or refers to what is not stored; 54000 where the check takes too many steps, 54001 where it gets too deep.
Source: design, contract.';

CREATE FUNCTION tasker._schema_problems(
    schema jsonb,
    OUT path text[],
    OUT message text,
    OUT hint text)
RETURNS SETOF record
LANGUAGE C STABLE STRICT PARALLEL SAFE ROWS 10
AS 'MODULE_PATHNAME', 'tasker_schema_problems';
COMMENT ON FUNCTION tasker._schema_problems(jsonb) IS
'What is wrong with a JSON Schema itself; no row if nothing is. path leads to the part, as jsonb''s #> takes it; message is the end of a sentence that begins with the part; hint is NULL where there is none. Private.
Source: design, contract (validate_task).';

CREATE FUNCTION tasker._check_context(schema jsonb, context jsonb)
RETURNS jsonb
LANGUAGE C STABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'tasker_check_context';
COMMENT ON FUNCTION tasker._check_context(jsonb, jsonb) IS
'The context with the defaults of the properties it lacks, in objects and lists at any depth, checked against the schema; without a schema (NULL) the context as it is. Raises TK006 with every problem in the detail, also where the context is no object; TK005 where the schema is wrong; 54000 and 54001 as json_schema_errors(). Private.
Source: design, contract (create_task); reference 4.9.';

CREATE FUNCTION tasker._schemas_changed()
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_schemas_changed';
COMMENT ON FUNCTION tasker._schemas_changed() IS
'Has every backend compile anew, once this transaction has committed, the schemas that refer to stored ones. Private.';

CREATE FUNCTION tasker._schema_uri(schema jsonb, uri text)
RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- Draft 4 calls it id. An empty fragment says nothing.
    own_uri constant text := CASE jsonb_typeof(schema -> '$id')
        WHEN 'string' THEN schema ->> '$id'
        ELSE CASE jsonb_typeof(schema -> 'id') WHEN 'string' THEN schema ->> 'id' END
        END;
    found_uri constant text := regexp_replace(coalesce(uri, own_uri), '#$', '');
BEGIN
    IF schema IS NULL OR jsonb_typeof(schema) NOT IN ('object', 'boolean') THEN
        RAISE EXCEPTION USING
            ERRCODE = 'TK005',
            MESSAGE = 'a JSON Schema must be an object, true or false',
            DETAIL = format('It is %s.', coalesce(jsonb_typeof(schema), 'NULL')),
            HINT = 'A schema is JSON such as {"type": "object"}.';
    END IF;
    IF found_uri IS NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'TK005',
            MESSAGE = 'the JSON Schema has no URI',
            DETAIL = 'It has no $id, and the argument uri is NULL.',
            HINT = 'Others refer to a stored schema by its URI: give it an $id, or pass uri.';
    END IF;
    IF found_uri !~ '^[A-Za-z][A-Za-z0-9+.-]*:[^#\s]+$' OR length(found_uri) > 2000 THEN
        RAISE EXCEPTION USING
            ERRCODE = 'TK005',
            MESSAGE = format('"%s" is no absolute URI', left(found_uri, 200)),
            DETAIL = 'A schema is stored under a URI with a scheme, without a fragment, of at most 2,000 characters.',
            HINT = 'Pass a URI such as https://example.com/schemas/address, or urn:example:address. Nothing is ever fetched from it.';
    END IF;
    RETURN found_uri;
END;
$$;
COMMENT ON FUNCTION tasker._schema_uri(jsonb, text) IS
'URI under which a schema is stored: the one given, else its own. Raises TK005 where there is none, or the schema can''t be one. Private.';

CREATE FUNCTION tasker._register_schema(schema jsonb, uri text, replace boolean, caller text)
RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    new_uri constant text := tasker._schema_uri(schema, uri);
    new_schema constant jsonb := schema;
    old_schema tasker.stored_schema;
BEGIN
    PERFORM tasker._require('schema:create', '*');
    LOOP
        SELECT s.*
        INTO old_schema
        FROM tasker.stored_schema AS s
        WHERE s.uri = new_uri
        FOR UPDATE;
        IF NOT FOUND THEN
            -- Waits for a session that registers the same URI at this moment,
            -- and has then to look at what that one did.
            INSERT INTO tasker.stored_schema (uri, schema, registered_by)
            VALUES (new_uri, new_schema, caller)
            ON CONFLICT (uri) DO NOTHING;
            EXIT WHEN FOUND;
            CONTINUE;
        END IF;

        IF old_schema.schema = new_schema THEN
            RETURN new_uri;
        END IF;
        IF replace IS NOT TRUE THEN
            RAISE EXCEPTION USING
                ERRCODE = 'TK008',
                MESSAGE = format('schema "%s" is already registered', left(new_uri, 200)),
                DETAIL = format('Role "%s" registered another one under this URI.', old_schema.registered_by),
                HINT = 'Give it another URI, or pass replace => true: whatever refers to it then means the new one.';
        END IF;
        PERFORM tasker._check_owner(format('schema "%s"', left(old_schema.uri, 200)), old_schema.registered_by, caller);
        UPDATE tasker.stored_schema AS s
        SET schema = new_schema,
            registered_by = caller,
            registered_at = tasker.clock()
        WHERE s.uri = new_uri;
        EXIT;
    END LOOP;
    PERFORM tasker._schemas_changed();
    RETURN new_uri;
END;
$$;
COMMENT ON FUNCTION tasker._register_schema(jsonb, text, boolean, text) IS
'What tasker.register_schema() does, for the role of its caller. Private.';

CREATE FUNCTION tasker.register_schema(
    schema jsonb,
    uri text DEFAULT NULL,
    replace boolean DEFAULT false)
RETURNS text
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.register_schema(jsonb, text, boolean) IS
'Stores a JSON Schema under a URI, by which $ref and $schema of other schemas find it. It may refer to what is not stored yet: it is looked at when it is used.
Arguments: schema, the schema; uri, an absolute URI, without it the schema''s own $id; replace, take the place of another one under that URI.
Returns: the URI. The same schema again changes nothing.
Raises TK005 (no schema, or no absolute URI), TK008 (another schema has that URI), TK009 (another role registered the one to be replaced).
Source: design, contract.';

CREATE FUNCTION tasker._unregister_schema(uri text, caller text)
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    old_schema tasker.stored_schema;
BEGIN
    PERFORM tasker._require('schema:create', '*');
    SELECT s.*
    INTO old_schema
    FROM tasker.stored_schema AS s
    WHERE s.uri = regexp_replace(_unregister_schema.uri, '#$', '')
    FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING
            ERRCODE = 'TK007',
            MESSAGE = format('schema "%s" is not registered', left(coalesce(uri, 'NULL'), 200)),
            DETAIL = 'No schema is stored under this URI.',
            HINT = 'tasker.schemas lists those that are.';
    END IF;
    PERFORM tasker._check_owner(format('schema "%s"', left(old_schema.uri, 200)), old_schema.registered_by, caller);
    DELETE FROM tasker.stored_schema AS s
    WHERE s.uri = old_schema.uri;
    PERFORM tasker._schemas_changed();
END;
$$;
COMMENT ON FUNCTION tasker._unregister_schema(text, text) IS
'What tasker.unregister_schema() does, for the role of its caller. Private.';

CREATE FUNCTION tasker.unregister_schema(uri text)
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.unregister_schema(text) IS
'Removes a stored JSON Schema. What refers to it is an error from then on.
Arguments: uri, its URI.
Returns: nothing.
Raises TK007 (there is none), TK009 (another role registered it).
Source: design, contract.';
