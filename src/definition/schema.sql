-- JSON Schema: what a context must look like.

CREATE FUNCTION tasker.json_schema_errors(
    schema jsonb,
    instance jsonb,
    OUT instance_path text,
    OUT schema_path text,
    OUT message text)
RETURNS SETOF record
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE ROWS 10
AS 'MODULE_PATHNAME', 'tasker_json_schema_errors';
COMMENT ON FUNCTION tasker.json_schema_errors(jsonb, jsonb) IS
'All that is wrong with a value, by a JSON Schema of draft 2020-12; no row if nothing is.
Arguments: schema, the schema; instance, the value to check.
Returns: instance_path and schema_path, JSON Pointers to the part of the value and to the keyword that it breaks (empty: the whole); message, what is wrong, as the end of a sentence that begins with the part.
Keywords: type, enum, const, minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf, minLength, maxLength (in characters), pattern (a regular expression of PostgreSQL''s), items, minItems, maxItems, uniqueItems, properties, required, additionalProperties, minProperties, maxProperties, allOf, anyOf, oneOf, not. Other keywords of the draft that check something are an error; whatever else is ignored.
Raises TK005 where the schema itself is wrong.
Source: design, contract.';

CREATE FUNCTION tasker.json_schema_is_valid(schema jsonb, instance jsonb)
RETURNS boolean
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'tasker_json_schema_is_valid';
COMMENT ON FUNCTION tasker.json_schema_is_valid(jsonb, jsonb) IS
'Returns whether a value satisfies a JSON Schema; json_schema_errors() says why not, and which keywords are known.
Arguments: schema, the schema; instance, the value to check.
Raises TK005 where the schema itself is wrong.
Source: design, contract.';

CREATE FUNCTION tasker._schema_problems(
    schema jsonb,
    OUT path text[],
    OUT message text)
RETURNS SETOF record
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE ROWS 10
AS 'MODULE_PATHNAME', 'tasker_schema_problems';
COMMENT ON FUNCTION tasker._schema_problems(jsonb) IS
'What is wrong with a JSON Schema itself; no row if nothing is. path leads to the part, as jsonb''s #> takes it; message is the end of a sentence that begins with the part. Private.
Source: design, contract (validate_task).';

CREATE FUNCTION tasker._check_context(schema jsonb, context jsonb)
RETURNS jsonb
LANGUAGE C IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'tasker_check_context';
COMMENT ON FUNCTION tasker._check_context(jsonb, jsonb) IS
'The context with the defaults of the properties it lacks, in objects and lists at any depth, checked against the schema; without a schema (NULL) the context as it is. Raises TK006 with every problem in the detail, also where the context is no object; TK005 where the schema is wrong. Private.
Source: design, contract (create_task); reference 4.9.';
