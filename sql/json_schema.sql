-- JSON Schema over jsonb.

-- Each keyword: a value that satisfies it, and one that does not, with what is said about it.
SELECT v.schema, v.good IS NULL OR tasker.json_schema_is_valid(v.schema, v.good) AS good, e.instance_path AS path, e.schema_path AS keyword, e.message
FROM (VALUES
    (1, '{"type": "integer"}'::jsonb, '1.0'::jsonb, '1.5'::jsonb),
    (2, '{"type": "integer"}', '12345678901234567890', '"7"'),
    (3, '{"type": "number"}', '1.5', 'true'),
    (4, '{"type": "string"}', '""', '7'),
    (5, '{"type": "boolean"}', 'false', 'null'),
    (6, '{"type": "null"}', 'null', 'false'),
    (7, '{"type": "object"}', '{}', '[]'),
    (8, '{"type": "array"}', '[]', '{}'),
    (9, '{"type": ["integer", "null"]}', 'null', '"x"'),
    (10, '{"type": ["string", "integer", "null"]}', '3', '[]'),
    (11, '{"enum": ["a", 1, null, {"x": [1.0]}]}', '{"x": [1]}', '"b"'),
    (12, '{"const": 1}', '1.00', 'true'),
    (13, '{"const": {"a": 1, "b": [2]}}', '{"b": [2], "a": 1}', '{"a": 1, "b": [2, 3]}'),
    (14, '{"minimum": 5}', '5', '4.99'),
    (15, '{"maximum": 5}', '5', '5.01'),
    (16, '{"exclusiveMinimum": 5}', '5.01', '5'),
    (17, '{"exclusiveMaximum": 5}', '4.99', '5'),
    (18, '{"multipleOf": 0.01}', '19.99', '19.995'),
    (19, '{"minLength": 2}', '"日本"', '"日"'),
    (20, '{"maxLength": 2}', '"日本"', '"日本語"'),
    (21, '{"pattern": "^[a-z]+$"}', '"abc"', '"Abc"'),
    (22, '{"items": {"type": "integer"}}', '[1, 2]', '[1, "x", 2, {}]'),
    (23, '{"minItems": 1}', '[1]', '[]'),
    (24, '{"maxItems": 1}', '[1]', '[1, 2]'),
    (25, '{"uniqueItems": true}', '[1, true, "1", [1], {"a": 1}, null]', '[{"a": 1, "b": 2}, 3, {"b": 2, "a": 1.0}]'),
    (26, '{"uniqueItems": false}', '[1, 1]', NULL),
    (27, '{"required": ["a", "b"]}', '{"a": null, "b": 1}', '{"c": 1}'),
    (28, '{"properties": {"a": {"type": "string"}, "b/c~d": false}}', '{"a": "x"}', '{"a": 1, "b/c~d": 2}'),
    (29, '{"properties": {"a": {}}, "additionalProperties": false}', '{"a": 1}', '{"a": 1, "b": 2}'),
    (30, '{"properties": {"a": {}}, "additionalProperties": {"type": "integer"}}', '{"a": "x", "b": 1}', '{"a": "x", "b": "y"}'),
    (31, '{"minProperties": 1}', '{"a": 1}', '{}'),
    (32, '{"maxProperties": 1}', '{"a": 1}', '{"a": 1, "b": 2}'),
    (33, '{"allOf": [{"type": "integer"}, {"minimum": 3}]}', '3', '2.5'),
    (34, '{"anyOf": [{"type": "integer"}, {"properties": {"a": {"type": "string"}}, "required": ["b"]}]}', '{"b": 1}', '{"a": 1}'),
    (35, '{"oneOf": [{"type": "integer"}, {"minimum": 3}]}', '1', '3'),
    (36, '{"oneOf": [{"type": "integer"}, {"type": "null"}]}', '1', '"x"'),
    (37, '{"not": {"type": "null"}}', '1', 'null'),
    (38, 'true', '{}', NULL),
    (39, 'false', NULL, '1'),
    (40, '{}', '[1, {"a": 2}]', NULL),
    (41, '{"minLength": 5, "minimum": 5, "minItems": 5, "minProperties": 5}', 'true', NULL),
    (42, '{"title": "x", "format": "email", "$schema": "https://json-schema.org/draft/2020-12/schema", "x-mine": [1]}', '"no address"', NULL)
    ) AS v (n, schema, good, bad)
LEFT JOIN LATERAL tasker.json_schema_errors(v.schema, v.bad) AS e ON true
ORDER BY v.n, e.instance_path, e.schema_path;

-- No row is missing above: whatever has an error is invalid.
SELECT tasker.json_schema_is_valid('{"items": {"type": "integer"}}', '[1, "x"]') AS one,
    tasker.json_schema_is_valid('{"anyOf": [{"minimum": 3}, {"maximum": 1}]}', '2') AS two,
    tasker.json_schema_is_valid(NULL, '1') IS NULL AS strict;

-- All errors at once, each with its place.
SELECT *
FROM tasker.json_schema_errors($${
    "type": "object", "required": ["cart_id", "lines"],
    "properties": {
        "cart_id": {"type": "integer"},
        "lines": {"type": "array", "items": {"type": "object", "required": ["sku"],
            "properties": {"sku": {"type": "string", "pattern": "^[A-Z]{2}\\d+$"}, "quantity": {"type": "integer", "minimum": 1}}}}}}$$,
    '{"lines": [{"sku": "AB1", "quantity": 0}, {"quantity": "many"}, {"sku": "ab", "quantity": 2}, 5]}')
ORDER BY instance_path, schema_path;

-- Long lists find the same item twice, too.
SELECT message
FROM (SELECT jsonb_agg(i ORDER BY i) AS list FROM generate_series(1, 5000) AS i) AS l,
    tasker.json_schema_errors('{"uniqueItems": true}', l.list || '[{"x": 1}, 777.0]');

-- Deep values end in an error, not in a crash.
DO $$
BEGIN
    PERFORM tasker.json_schema_is_valid((repeat('{"items":', 2000) || '{}' || repeat('}', 2000))::jsonb,
        (repeat('[', 2000) || repeat(']', 2000))::jsonb);
    RAISE NOTICE 'checked';
EXCEPTION WHEN statement_too_complex THEN
    RAISE NOTICE 'too deep';
END $$;

-- What is wrong with a schema itself.
SELECT path, message
FROM tasker._schema_problems($${
    "type": ["strng", 7], "required": true, "enum": 1, "minimum": "3", "exclusiveMaximum": true, "multipleOf": 0, "items": [{}],
    "allOf": [], "anyOf": {}, "not": 3, "additionalProperties": "no", "uniqueItems": 1,
    "properties": {"a": {"type": "int", "minLength": -1, "maxLength": 1.5, "pattern": "("}, "b": null,
        "c": {"items": {"required": ["x", 1], "$ref": "#/$defs/c"}}, "d": {"properties": []}}}$$)
ORDER BY path;
SELECT * FROM tasker._schema_problems('7');
SELECT * FROM tasker._schema_problems('{"type": "object", "$defs": {"x": 1}, "properties": {"type": {"type": "string", "default": 1}}}');

-- Nothing is checked against a broken schema.
SELECT tasker.json_schema_is_valid('{"properties": {"a": {"type": "strng"}, "b": 1}}', '{}');
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM tasker.json_schema_errors('"x"', '{}');
\echo :LAST_ERROR_SQLSTATE

-- A context gets the defaults of what it lacks, and only those.
\set schema '{"type": "object", "required": ["cart_id", "mode"], "additionalProperties": false, "properties": {"cart_id": {"type": "integer", "minimum": 1}, "mode": {"enum": ["fast", "slow"], "default": "fast"}, "options": {"type": "object", "default": {}, "properties": {"retries": {"type": "integer", "default": 3}}}, "lines": {"type": "array", "items": {"type": "object", "properties": {"quantity": {"type": "integer", "default": 1}, "gift": {"type": "boolean"}}}}, "note": {"type": "string"}}}'
SELECT tasker._check_context(:'schema', '{"cart_id": 7}');
SELECT tasker._check_context(:'schema', '{"cart_id": 7, "mode": "slow", "options": {"retries": 0}, "lines": [{}, {"quantity": 2}]}');
SELECT tasker._check_context(:'schema', '{"cart_id": 7, "options": {}, "note": "x"}');
SELECT tasker._check_context('{"properties": {"a": {"properties": {"b": {"default": 1}}}}}', '{"c": [1, {"d": null}]}');
SELECT tasker._check_context(NULL, '{"anything": [1]}');

-- A default is checked like any other value.
SELECT tasker._check_context('{"properties": {"a": {"type": "integer", "default": "x"}}}', '{}');

-- What is wrong with a context is said all at once.
SELECT tasker._check_context(:'schema', '{}');
\echo :LAST_ERROR_SQLSTATE
SELECT tasker._check_context(:'schema', '{"cart_id": "7", "mode": "medium", "lines": [{"quantity": 1.5}, {"gift": "true"}]}');
SELECT tasker._check_context(:'schema', '{"cart_id": 7, "lines": [{"gift": "true"}]}');
SELECT tasker._check_context(:'schema', '{"cart_id": 0, "cartid": 1}');
SELECT tasker._check_context('{"properties": {"to": {"required": ["street", "city"]}}}', '{"to": {"city": "x"}}');
SELECT tasker._check_context('{"properties": {"list": {"items": {"type": "integer"}}}}',
    (SELECT jsonb_build_object('list', jsonb_agg('x'::text)) FROM generate_series(1, 25)));

-- A context is an object, schema or not.
SELECT tasker._check_context(:'schema', '[1]');
\echo :LAST_ERROR_SQLSTATE
SELECT tasker._check_context(NULL, '7');
SELECT tasker._check_context(NULL, NULL);

-- More schemas than a session keeps, and one that is too large to be kept.
SELECT count(*) FILTER (WHERE tasker.json_schema_is_valid(format('{"minimum": %s}', i % 100)::jsonb, to_jsonb(i % 100)))
    AS valid, count(*) FILTER (WHERE tasker.json_schema_is_valid(format('{"minimum": %s}', i % 100 + 1)::jsonb, to_jsonb(i % 100)))
    AS invalid
FROM generate_series(1, 1000) AS i;
SELECT tasker.json_schema_is_valid(s, '5000') AS known, tasker.json_schema_is_valid(s, '-1') AS unknown
FROM (SELECT jsonb_build_object('enum', jsonb_agg(i)) AS s FROM generate_series(1, 20000) AS i) AS q;
