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

-- Deep values end in an error, not in a crash; so do deep schemas.
SELECT tasker.json_schema_is_valid((repeat('{"items":', 500) || '{"type": "array"}' || repeat('}', 500))::jsonb,
    (repeat('[', 2000) || repeat(']', 2000))::jsonb) AS checked;
SELECT tasker.json_schema_is_valid('{"items": {"$ref": "#"}}', (repeat('[', 4000) || repeat(']', 4000))::jsonb);
\echo :LAST_ERROR_SQLSTATE
SELECT tasker.json_schema_is_valid((repeat('{"items":', 2000) || '{}' || repeat('}', 2000))::jsonb, '[]');
\echo :LAST_ERROR_SQLSTATE

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

-- The keywords of the other drafts, and the rest of 2020-12: good, bad, and what is said.
SELECT v.n, v.good IS NULL OR tasker.json_schema_is_valid(v.schema, v.good) AS good, e.instance_path AS path, e.schema_path AS keyword, e.message
FROM (VALUES
    (1, '{"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "string"}}}'::jsonb, '"x"'::jsonb, '7'::jsonb),
    (2, '{"properties": {"child": {"$ref": "#"}, "v": {"type": "integer"}}}', '{"child": {"child": {"v": 1}}}', '{"child": {"child": {"v": "x"}}}'),
    (3, '{"$id": "https://a.b/c", "items": {"$ref": "#it"}, "$defs": {"x": {"$anchor": "it", "minimum": 2}}}', '[2]', '[3, 1]'),
    (4, '{"$id": "https://a.b/root", "$ref": "tree", "$defs": {"t": {"$id": "tree", "$dynamicAnchor": "node", "properties": {"data": true, "children": {"items": {"$dynamicRef": "#node"}}}}, "s": {"$dynamicAnchor": "node", "$ref": "tree", "unevaluatedProperties": false}}}', '{"children": [{"data": 1}]}', '{"children": [{"daat": 1}]}'),
    (5, '{"prefixItems": [{"type": "string"}, true], "items": {"type": "integer"}}', '["a", null, 1]', '[1, null, "x"]'),
    (6, '{"contains": {"type": "integer"}, "minContains": 2, "maxContains": 2}', '[1, "x", 2]', '[1]'),
    (7, '{"contains": {"type": "integer"}, "maxContains": 1}', '[1]', '[1, 2]'),
    (8, '{"patternProperties": {"^x-": {"type": "string"}}, "additionalProperties": false}', '{"x-a": "b"}', '{"x-a": 1, "y": 2}'),
    (9, '{"propertyNames": {"maxLength": 3}}', '{"abc": 1}', '{"abcd": 1}'),
    (10, '{"dependentRequired": {"card": ["name", "address"]}}', '{"name": 1}', '{"card": 1, "name": 2}'),
    (11, '{"dependentSchemas": {"card": {"required": ["name"]}}}', '{"card": 1, "name": 2}', '{"card": 1}'),
    (12, '{"if": {"properties": {"kind": {"const": "a"}}}, "then": {"required": ["x"]}, "else": {"required": ["y"]}}', '{"kind": "a", "x": 1}', '{"kind": "b", "x": 1}'),
    (13, '{"allOf": [{"properties": {"a": true}}], "unevaluatedProperties": false}', '{"a": 1}', '{"a": 1, "b": 2}'),
    (14, '{"anyOf": [{"required": ["a"], "properties": {"a": true}}, {"properties": {"b": true}}], "unevaluatedProperties": {"type": "integer"}}', '{"a": 1, "b": "x"}', '{"b": 1, "c": "x"}'),
    (15, '{"prefixItems": [true], "contains": {"const": "x"}, "unevaluatedItems": false}', '[1, "x"]', '[1, 2, "x"]'),
    (16, '{"$schema": "http://json-schema.org/draft-07/schema#", "format": "email"}', '"a@b.c"', '"no address"'),
    (17, '{"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "string"}], "additionalItems": false}', '["a"]', '["a", 1]'),
    (18, '{"$schema": "http://json-schema.org/draft-07/schema#", "dependencies": {"a": ["b"], "c": {"minProperties": 2}}}', '{"a": 1, "b": 2}', '{"a": 1, "c": 1}'),
    (19, '{"$schema": "http://json-schema.org/draft-07/schema#", "$ref": "#/definitions/n", "type": "string", "definitions": {"n": {"type": "integer"}}}', '1', '"x"'),
    (20, '{"$schema": "http://json-schema.org/draft-07/schema#", "contentEncoding": "base64", "contentMediaType": "application/json"}', '"eyJhIjogMX0="', '"e30"'),
    (21, '{"$schema": "http://json-schema.org/draft-04/schema#", "maximum": 5, "exclusiveMaximum": true}', '4', '5'),
    (22, '{"$schema": "http://json-schema.org/draft-04/schema#", "const": 1, "if": true, "then": false}', '2', NULL),
    (23, '{"enum": [1, 2, 3, 4, 5, 6, 7, 8, 9, "ten", {"n": [11.0]}]}', '{"n": [11]}', '12'),
    (24, '{"multipleOf": 123456789012345678901234567890}', '370370367037037036703703703670', '370370367037037036703703703671'),
    (25, '{"multipleOf": 0.0000001}', '1e300', '0.00000015')
    ) AS v (n, schema, good, bad)
LEFT JOIN LATERAL tasker.json_schema_errors(v.schema, v.bad) AS e ON true
ORDER BY v.n, e.instance_path, e.schema_path;

-- Both ways of checking agree.
SELECT count(*) AS wrong
FROM (VALUES ('{"type": "object", "required": ["a", "z"], "properties": {"a": {"type": "integer"}, "bb": {"type": "string"}}, "additionalProperties": {"type": "null"}}'::jsonb),
    ('{"required": ["a"], "additionalProperties": false}'), ('{"required": ["a", "bb"], "properties": {"bb": {"type": "string"}}, "unevaluatedProperties": false}')) AS s (schema)
CROSS JOIN (VALUES ('{}'::jsonb), ('{"a": 1}'), ('{"a": 1, "z": 2}'), ('{"a": 1, "z": null}'), ('{"a": 1, "z": null, "bb": "x"}'), ('{"a": "x", "z": null}'), ('{"a": 1, "bb": 2}'), ('{"a": 1, "bb": "x"}'), ('{"c": null}'), ('[]')) AS i (instance)
WHERE tasker.json_schema_is_valid(s.schema, i.instance) = EXISTS (SELECT FROM tasker.json_schema_errors(s.schema, i.instance));

-- Patterns of ECMA-262.
SELECT p.pattern, tasker.json_schema_is_valid(jsonb_build_object('pattern', p.pattern), to_jsonb(p.good)) AS good, tasker.json_schema_is_valid(jsonb_build_object('pattern', p.pattern), to_jsonb(p.bad)) AS bad
FROM (VALUES
    ('^[A-Z]{2}\d+(-[a-z]+)?$', 'AB12-red', 'AB12-'), ('cole', 'lycole', 'col'), ('^$', '', E'\n'), ('^abc$', 'abc', E'abc\n'), ('a|^b|c$', 'xc', 'cb!'),
    ('^\w+\s\S$', E'a_1\u00a0é', 'é x'), ('^.$', '日', E'\u2028'), ('^[^\d\s]+$', 'a-b', 'a1'), ('^\u{1F600}\uD83D\uDE00$', '😀😀', '😀'),
    ('^\cA\x41\/\-$', E'\x01A/-', 'A/-'), ('^(?<year>\d{4})-(?:0[1-9]|1[0-2])$', '2026-11', '2026-13'), ('^(?!x)[a-z]{3}(?=\d)\d$', 'abc1', 'xbc1'),
    ('\bcat\b', 'a cat!', 'concat'), ('(?<=€)\d', '€5', '$5'), ('^.{300}\B', repeat('a', 301), repeat('a', 300)), ('^a{2,}?b*?$', 'aab', 'ab'), ('^[]$|x', 'x', 'y'), ('^[^]$', E'\n', 'ab'),
    ('^(([a-c]|[x-z])*1)*$', 'ab1xyz1', 'ab1d')
    ) AS p (pattern, good, bad);
SELECT p.pattern, s.message
FROM unnest(ARRAY['(', ')', '[a', '[b-a]', 'a**', '*', 'a{2,1}', '\1', '(?<n>a)\k<n>', '\p{L}', '\a', 'a\', '(?i)a', '\u12', '((a{200}){200}){200}\b']) AS p (pattern)
CROSS JOIN tasker._schema_problems(jsonb_build_object('pattern', p.pattern)) AS s;

-- What leads nowhere, or to itself.
SELECT path, message, hint
FROM tasker._schema_problems('{"properties": {"a": {"$ref": "#/$defs/none"}, "b": {"$ref": "#none"}, "c": {"$ref": "https://example.com/none"}, "d": {"$ref": 1}}}');
SELECT tasker.json_schema_is_valid('{"$ref": "https://example.com/none#/x"}', '1');
\echo :LAST_ERROR_SQLSTATE
SELECT path, message
FROM tasker._schema_problems('{"$ref": "#", "properties": {"a": {"$ref": "#/properties/b"}, "b": {"allOf": [true, {"$ref": "#/properties/a"}]}, "c": {"properties": {"d": {"$ref": "#/properties/c"}}}}}')
ORDER BY path;
SELECT tasker.json_schema_is_valid('{"$schema": "http://json-schema.org/draft-06/schema#"}', '1');
SELECT tasker.json_schema_is_valid('{"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"anyOf": [{"$ref": "#"}]}}}', '1');
\echo :LAST_ERROR_SQLSTATE
SELECT tasker.json_schema_is_valid('{"$ref": "#/$defs/x", "$defs": {"x": {"items": {"anyOf": [{"$ref": "#/$defs/x"}, {"$ref": "#/$defs/x"}, {"type": "string"}]}, "minItems": 1}}}',
    (repeat('[', 40) || repeat(']', 40))::jsonb);
\echo :LAST_ERROR_SQLSTATE

-- Stored schemas.
SELECT tasker.register_schema('{"$id": "https://example.com/schemas/address#", "required": ["street"], "properties": {"city": {"$ref": "city"}, "country": {"default": "DE"}}}');
SELECT tasker.register_schema('{"minLength": 2}', 'https://example.com/schemas/city');
SELECT tasker.register_schema('{"minLength": 2}', 'https://example.com/schemas/city');
SELECT uri, schema, registered_by = current_user AS mine FROM tasker.schemas ORDER BY uri;
SELECT * FROM tasker.json_schema_errors('{"properties": {"to": {"$ref": "https://example.com/schemas/address"}}}', '{"to": {"city": "x"}}') ORDER BY schema_path;
SELECT tasker._check_context('{"properties": {"to": {"$ref": "https://example.com/schemas/address"}}}', '{"to": {"street": "x"}}');
SELECT tasker.register_schema('{"minLength": 3}', 'https://example.com/schemas/city');
\echo :LAST_ERROR_SQLSTATE
SELECT tasker.register_schema('{"minLength": 1}', 'https://example.com/schemas/city', true);
SELECT tasker.json_schema_is_valid('{"$ref": "https://example.com/schemas/city"}', '"x"') AS one_is_enough_now;
SELECT tasker.register_schema('{"$id": "https://example.com/strict", "$schema": "https://json-schema.org/draft/2020-12/schema", "$vocabulary": {"https://json-schema.org/draft/2020-12/vocab/core": true, "https://json-schema.org/draft/2020-12/vocab/format-assertion": true}}');
SELECT f.format, tasker.json_schema_is_valid(jsonb_build_object('$schema', 'https://example.com/strict', 'format', f.format), to_jsonb(f.good)) AS good,
    tasker.json_schema_is_valid(jsonb_build_object('$schema', 'https://example.com/strict', 'format', f.format), to_jsonb(f.bad)) AS bad
FROM (VALUES ('date-time', '2024-02-29T23:59:60Z', '2023-02-29T00:00:00Z'), ('date', '2024-02-29', '2024-2-9'), ('time', '10:00:00.5+02:00', '10:00:00'), ('duration', 'P1DT12H', 'P1D12H'), ('duration', 'PT1H2M3S', 'PT1H3S'),
    ('email', '"a b"@[127.0.0.1]', 'a..b@c.d'), ('idn-email', 'ü@bücher.de', 'ü'), ('hostname', 'a-b.example', '-a.example'), ('idn-hostname', 'bücher.example', 'a_b'),
    ('ipv4', '127.0.0.1', '127.0.0.01'), ('ipv6', '::ffff:1.2.3.4', '1:2'), ('uri', 'urn:a:b?c#d', '//a/b'), ('uri-reference', '../a%20b', 'a b'), ('iri', 'http://bücher.example/ü', 'http://a b'), ('iri-reference', '#ü', '\'),
    ('uri-template', '/a/{+b,c*}{?d:3}', '/a/{b'), ('json-pointer', '/a~1b', 'a'), ('relative-json-pointer', '1/a', '01'), ('regex', '^(a|b)$', '('), ('uuid', '00000000-0000-0000-0000-000000000000', '0'), ('unknown', 'x', 'y')) AS f (format, good, bad);
SELECT tasker.json_schema_is_valid('{"$schema": "https://example.com/strict", "type": "string"}', '1') AS has_no_validation;
SELECT tasker.register_schema('{}');
\echo :LAST_ERROR_SQLSTATE
SELECT tasker.register_schema('{}', 'no/uri');
SELECT tasker.register_schema('[]', 'urn:x');
CREATE ROLE regress_schema_stranger;
SET ROLE regress_schema_stranger;
SELECT tasker.register_schema('{"minLength": 4}', 'https://example.com/schemas/city', true);
\echo :LAST_ERROR_SQLSTATE
SELECT tasker.unregister_schema('https://example.com/schemas/city');
SELECT tasker.json_schema_is_valid('{"$ref": "https://example.com/schemas/city"}', '"x"') AS everybody_may_use_it;
RESET ROLE;
DROP ROLE regress_schema_stranger;
SELECT tasker.unregister_schema(uri) FROM tasker.schemas;
SELECT tasker.unregister_schema('https://example.com/schemas/city');
\echo :LAST_ERROR_SQLSTATE
SELECT tasker.json_schema_is_valid('{"$ref": "https://example.com/schemas/city"}', '"x"');

-- Defaults through references and allOf.
SELECT tasker._check_context('{"$ref": "#/$defs/order", "$defs": {"order": {"allOf": [{"properties": {"mode": {"default": "fast"}}}, {"properties": {"mode": {"default": "slow"}, "lines": {"items": {"$ref": "#/$defs/line"}}, "to": {"$ref": "#/$defs/to"}}}]},
    "line": {"properties": {"quantity": {"default": 1}}}, "to": {"default": {}, "properties": {"country": {"default": "DE"}}}}}', '{"lines": [{}, {"quantity": 2}]}');
SELECT tasker._check_context('{"prefixItems": [], "properties": {"pair": {"prefixItems": [{"properties": {"a": {"default": 1}}}, {"properties": {"b": {"default": 2}}}]}}, "anyOf": [{"properties": {"c": {"default": 3}}}]}'::jsonb - 'prefixItems', '{"pair": [{}, {}, {}]}');
SELECT tasker._check_context('{"properties": {"child": {"$ref": "#", "default": {}}}}', '{}');
\echo :LAST_ERROR_SQLSTATE
