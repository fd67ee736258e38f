-- YAML becomes jsonb, and every value of it remembers its line.

CREATE FUNCTION tasker.yaml_to_jsonb(yaml text)
RETURNS jsonb
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'tasker_yaml_to_jsonb';
COMMENT ON FUNCTION tasker.yaml_to_jsonb(text) IS
'Returns the one document of a YAML or JSON text as jsonb, by the core schema of YAML 1.2: yes and on are text, 0777 is 777, 0o17 and 0x1F are numbers, every digit of a number is kept. Aliases and merge keys (<<) are expanded; a key that is no text becomes the text it is written as. An unknown tag is left out, with a warning. An empty text is null.
Argument: yaml, the text, within the limits of the settings tasker.yaml_max_size (bytes of the text), tasker.yaml_max_depth (levels), tasker.yaml_max_nodes and tasker.yaml_max_expansion (keys and values, and their bytes, aliases expanded), with keys of at most 1,024 bytes.
Raises TK005 with line and column for broken YAML, a key that is there twice, an alias within itself, a tag of YAML''s own that the value does not fit, .inf and .nan, more than one document, a limit exceeded.
Source: design, contract; YAML 1.2.2, chapter 10.3.';

CREATE FUNCTION tasker._yaml_lines(
    yaml text,
    OUT path text[],
    OUT line integer,
    OUT "column" integer)
RETURNS SETOF record
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE ROWS 100
AS 'MODULE_PATHNAME', 'tasker_yaml_lines';
COMMENT ON FUNCTION tasker._yaml_lines(text) IS
'Where each value of a YAML or JSON text stands, in the order of the text: path as jsonb''s #> takes it ({} is the whole), line and column from 1, columns in characters. For an entry of a mapping it is the place of its key, for an element of a list that of the element; what an alias or a merge key brings has the place where it is written. Raises as yaml_to_jsonb does, and warns of nothing. Private.
Source: design, contract (validate_task).';
