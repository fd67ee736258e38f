-- YAML becomes jsonb by the core schema of YAML 1.2.

-- What a definition is made of: comments, anchors, block and quoted scalars, unicode.
SELECT jsonb_pretty(tasker.yaml_to_jsonb($yaml$
# A comment first.
name: order_process          # and one behind a value
version: "1.10"
quoted: ['12', "true", '', 'it''s', "tab\tand \u00e9 \U0001F600 \x41"]
plain: [12, true, ~, null, Null, yes, on, off, 1_000, 12e, 2024-01-31, a#b, http://x.y/z]
unicode: Grüße, 世界 🚀
defaults: &defaults
  retry: &retry {limit: 3, base_delay: 1.5}
  tags: [a, b]
steps:
  - name: one
    retry: *retry
  - <<: *defaults
    name: two
    tags: []
$yaml$));

-- Numbers: every digit is kept, and each of YAML's spellings is one of JSON's.
SELECT y AS yaml, tasker.yaml_to_jsonb(y) AS json, jsonb_typeof(tasker.yaml_to_jsonb(y)) AS type
FROM unnest(ARRAY['12', '+12', '-12', '0777', '0o777', '0O777', '0x1F', '0xffffffffffffffffffff', '0xG', '-0x1',
    '1.', '.5', '-.5', '.', '+', '1.50', '1e3', '1E+3', '1.5e-3', '12345678901234567890.123456789012345678901',
    '0b11', '1:30', '1,000', '0.0', '-0', '007.50', '1e', 'e1', '++1', '!!float 1', '!!int "42"', '!!str 42',
    '! 42', '!!bool "true"', '!!null ""', '!!str', '"42"', '.INFO']) WITH ORDINALITY AS a (y, n)
ORDER BY n;

-- Block scalars, with every chomping.
SELECT key, value
FROM jsonb_each(tasker.yaml_to_jsonb($yaml$
literal_clip: |
  a
   b

literal_strip: |-
  a
   b

literal_keep: |+
  a
   b

folded_clip: >
  a
  b

  c

folded_strip: >-
  a
  b

folded_keep: >+
  a
  b

indented: |2
   a
  b
plain: a
  b

  c
double: "a
  b\
  c"
$yaml$))
ORDER BY key;

-- Keys that are no text become the text they are written as.
SELECT tasker.yaml_to_jsonb(E'1: a\n1.50: b\ntrue: c\n~: d\n0x10: e\n? f\n: g\n"": h\n&k i: j\n') AS json;

-- Merge keys: own keys win, then the first mapping in the list.
SELECT tasker.yaml_to_jsonb(E'a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {<<: *a, x: 0}\nd: {<<: [*a, *b], w: 0}\ne: {<<: {v: 9}}\nf: &f {<<: *b, q: 1}\ng: {<<: *f}\nh: {"<<": plain}') AS json;

-- Tags: YAML's own say what a value is, those of others are left out, with a warning.
SELECT tasker.yaml_to_jsonb(E'- !!str 1\n- !!int "2"\n- !!float 3\n- !!bool "true"\n- !!null ""\n- !!seq [a]\n- !!map {a: 1}\n- ! 4\n'
    '- !!set {a, b}\n- !!omap [a: 1, b: 2]\n- !!pairs [a: 1, a: 2]\n- !!binary aGk=\n- !!timestamp 2024-01-31\n') AS json;
SELECT tasker.yaml_to_jsonb(E'%TAG !e! tag:example.com,2000:\n---\na: !ruby/object {b: !e!c 1}\nd: !<tag:example.com,2000:x> [!f g]\nh: !i\n') AS json;
SELECT tasker.yaml_to_jsonb('message: !important call me') AS json;

-- What libyaml would refuse, or read otherwise than YAML 1.2 does.
SELECT y AS yaml, tasker.yaml_to_jsonb(y) AS json
FROM unnest(ARRAY[E'%YAML 1.3\n---\na', E'%FOO bar\n# c\n--- a', '...', E'# a\n...\n...\n', E'...\n--- a\n...\n...\n',
    E'a: 1\n\t\nb: 2\n\t# c\n', E'a: |\n  x\n  \t\n  y\nb: "\n\t\n  z"', E'--- |\n x\n \t\n', E'- >-\n  a\n\n- |\n  b',
    E'a: |+\n  b\n  ', E'k: |\n  b\n   ', E'a: [\n  b\n]\nc: {\n  d: e\n}', E'a:\n- "b\n  c"\n- {d:\n  e}',
    E'a: &x !!str # c\n# d\n  "e\n  f"\nb: !!str\n# c\n  |\n  *x\nc: !y # d\n  >-\n   e']) WITH ORDINALITY AS a (y, n)
ORDER BY n;

-- One document, which may be empty; JSON is YAML.
SELECT y AS yaml, tasker.yaml_to_jsonb(y) AS json
FROM unnest(ARRAY['', E' \n\n', '# nothing', '---', E'---\n...\n', E'%YAML 1.2\n---\na: 1\n...\n# end\n',
    'text', '[]', '{}', E'\uFEFFa: 1', '{"a":[1,2.0,{"b":null}],"c":"\ud83d\ude00\/\"\\ud83d"}',
    E'{\n\t"a": 1,\n\t"b": [\n\t\ttrue\n\t]\n}', E'a: \u0085b\u2028c',
    E'a: \\ud83d\\ude00\nb: ''\\ud83d\\ude00''']) WITH ORDINALITY AS a (y, n)
ORDER BY n;
SELECT tasker.yaml_to_jsonb(NULL) IS NULL AS strict;

-- Each error has its SQLSTATE, its line and column, and a hint where one can be guessed.
CREATE FUNCTION pg_temp.refusal(yaml text, OUT message text, OUT detail text, OUT hint text, OUT state text)
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM tasker.yaml_to_jsonb(yaml);
    message := 'accepted';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL,
        hint = PG_EXCEPTION_HINT, state = RETURNED_SQLSTATE;
END $$;

\pset format unaligned
\pset fieldsep '\n  '
\pset recordsep '\n\n'
\pset tuples_only on
SELECT to_json(y), r.state, r.message, r.detail, r.hint
FROM unnest(ARRAY[
    -- syntax
    E'a: 1\nb:\n\tc: 2', E'a: 1\n  b: 2', E'name:foo\nother: x', E'steps:\n- name: a\n  handler:b\n  c: d\n',
    'a: @x', 'a: `x`', 'a: %x', 'a: b: c', E'a: "x\nb: y\n', E'a: [1,\nb: 2', E'a: {x: 1\nb: 2}', E'- a\nb: 1',
    'a: "C:\dir"', 'a: !e!x y', 'a: &', E'key: "é" "ü"', E'a: 1\n}',
    -- keys, anchors, merges
    E'a: 1\nb: 2\n"a": 3', E'1: x\n"1": y', E'x:\n  - {k: 1, j: 2, k: 3}', '{{name}}: 1', 'a: *nowhere',
    'a: &a [1, *a]', 'a: &a {b: {c: *a}}', E'<<: 1', E'<<: [{a: 1}, 2]', E'<<: {a: 1}\n<<: {b: 1}',
    -- documents
    E'a: 1\n---\nb: 2', E'a: 1\n...\n%YAML 1.2\n---\nb: 2', E'%YAML 2.0\n---\na: 1',
    -- values
    '[1, .inf]', 'a: -.INF', 'a: .nan', '!!int 1.5', '!!int x', '!!float x', '!!bool yes', '!!null x', '!!map []',
    '!!seq {}', '!!str [a]', '!!string 1', '!!set [a]', '!!float 0x10', '!!omap {a: 1}', '!!timestamp [1]', 'a: "x\0y"', E'a: b\u0001', E'a: \uFDD0', 'a: 1e200000',
    'a: 1e-20000',
    -- what libyaml would take
    E'a: "x"# c', E'[a]#c', E'a: [b,#c\n d]', E'a: |# c\n  b', E'a: "b\nc"', E'a: "b\n\tc"', E'a:\n  b: [c,\n  d]', E'a: [b,\n\tc]', '[-]',
    '[?x]', '{a: b, ?c: d}', 'a: &b:c d', E'a: &b 1\nc: {*b: 2}', E'a: |\n   \n b', E'%YAML 1.2#c\n---\na', E'%YAML 1.2\na: 1',
    E'%YAML 1.2\n%YAML 1.2\n---\n', '%YAML', E'a: 1\n...\nb: 2'
    ]) WITH ORDINALITY AS a (y, n), pg_temp.refusal(y) AS r
ORDER BY n;

-- Limits: refused at once, whatever they would grow into.
SELECT name, r.state, r.message, r.detail
FROM (VALUES
    (1, 'alias bomb', (SELECT string_agg(format('a%s: &a%s [%s]', i, i,
        CASE i WHEN 0 THEN '1' ELSE array_to_string(array_fill(format('*a%s', i - 1), ARRAY[9]), ',') END), E'\n' ORDER BY i)
        FROM generate_series(0, 40) AS i)),
    (2, 'long text behind many aliases', E'a: &a ' || repeat('x', 100000) || E'\nb: [' || repeat('*a,', 1000) || ']'),
    (3, 'flow depth', repeat('[', 500000)),
    (4, 'flow mapping depth', repeat('{a: ', 200000)),
    (5, 'block depth', repeat('- ', 500000)),
    (6, 'depth through aliases', (SELECT E'a0: &a0 [1]\n' || string_agg(format('a%s: &a%s [*a%s]', i, i, i - 1), E'\n' ORDER BY i)
        FROM generate_series(1, 200) AS i)),
    (7, 'size', repeat('# comment', 120000)),
    (8, 'values', '[' || repeat('1,', 100000) || ']'),
    (9, 'key', '? ' || repeat('k', 1025) || E'\n: 1'),
    (10, 'directives', (SELECT string_agg(format('%%TAG !a%s! b', i), E'\n') FROM generate_series(1, 50000) AS i) || E'\n--- 1'),
    (11, 'directives behind the end', E'a\n...\n' || (SELECT string_agg(format('%%TAG !a%s! b', i), E'\n') FROM generate_series(1, 50000) AS i) || E'\n--- 1'),
    (12, 'digits', '0x' || repeat('f', 1001))
    ) AS v (n, name, y), pg_temp.refusal(y) AS r
ORDER BY n;

-- What lies within the limits is accepted.
SELECT jsonb_array_length(tasker.yaml_to_jsonb('[' || repeat('1,', 99998) || ']')),
    tasker.yaml_to_jsonb(repeat('[', 100) || repeat(']', 100)) IS NOT NULL,
    length((tasker.yaml_to_jsonb('a: ' || repeat('x', 1000000)) ->> 'a'));

-- The limits are settings of a superuser; each error names its own.
SET tasker.yaml_max_size = '1kB';
SET tasker.yaml_max_depth = 3;
SET tasker.yaml_max_nodes = 100;
SET tasker.yaml_max_expansion = '1kB';
SELECT r.message, r.detail, r.hint
FROM unnest(ARRAY[
    repeat('x', 1025), repeat('x', 1024), '[[[[]]]]', '[[[]]]', E'a: &a [[1]]\nb: [*a]',
    '[' || repeat('1,', 100) || ']', '[' || repeat('1,', 99) || ']',
    E'a: &a ' || repeat('x', 500) || E'\nb: [*a, *a]', E'a: &a ' || repeat('x', 500) || E'\nb: [*a]'
    ]) WITH ORDINALITY AS a (y, n), pg_temp.refusal(y) AS r
ORDER BY n;
CREATE ROLE tasker_yaml_user;
SET ROLE tasker_yaml_user;
SET tasker.yaml_max_nodes = 1000000;
RESET ROLE;
DROP ROLE tasker_yaml_user;

-- A statement that is to end does not read to the end.
SET tasker.yaml_max_size = '256MB';
SET tasker.yaml_max_nodes = 10000000;
SET tasker.yaml_max_expansion = '256MB';
SET statement_timeout = '50ms';
SELECT tasker.yaml_to_jsonb('[' || repeat('1,', 9000000) || ']]');
\echo :LAST_ERROR_SQLSTATE
RESET ALL;

-- A larger one is read as well.
SET tasker.yaml_max_size = '16MB';
SET tasker.yaml_max_nodes = 1000000;
SET tasker.yaml_max_depth = 1000;
SELECT jsonb_array_length(tasker.yaml_to_jsonb('[' || repeat('1,', 500000) || ']')),
    tasker.yaml_to_jsonb(repeat('[', 1000) || repeat(']', 1000)) IS NOT NULL AS deep,
    (SELECT count(*) FROM tasker._yaml_lines(repeat('[', 1000) || repeat(']', 1000)));
RESET ALL;

-- The line and the column of everything; what an alias brings stands where it is written.
\pset format aligned
\pset fieldsep '|'
\pset recordsep '\n'
\pset tuples_only off
SELECT path, line, "column"
FROM tasker._yaml_lines($yaml$# a comment
name: shop
step_templates:
  - name: "é"
    retry: &retry {limit: 3}

  - name: b
    retry: *retry
    config:
      - [1, 2]
      - <<: *retry
        x: |
          text
$yaml$);
SELECT path, line, "column" FROM tasker._yaml_lines(E'{\n  "a": [10,\n    {"b": "\\ud83d\\ude00", "c": 1}]\n}');
SELECT path, line, "column" FROM tasker._yaml_lines('');
SELECT path, line, "column" FROM tasker._yaml_lines(E'# c\r\n\r\na: 1\rb: 2');

-- A path leads to its value.
SELECT count(*) AS paths, count(*) FILTER (WHERE d #> path IS NULL) AS astray
FROM (VALUES (E'a: {b: [1, {c: 2}], "": 3}\nd: &d [x]\ne: *d\n')) AS v (y), tasker.yaml_to_jsonb(y) AS d, tasker._yaml_lines(y);
SELECT path FROM tasker._yaml_lines('a: [');
\echo :LAST_ERROR_SQLSTATE
