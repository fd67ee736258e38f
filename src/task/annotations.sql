-- What people and other systems note about tasks: annotations, and which object
-- of one system is which of another.

CREATE SEQUENCE tasker.dependent_system_id_seq AS integer;
COMMENT ON SEQUENCE tasker.dependent_system_id_seq IS 'Ids of tasker.dependent_system.';

CREATE TABLE tasker.dependent_system (
    dependent_system_id integer PRIMARY KEY DEFAULT pg_catalog.nextval('tasker.dependent_system_id_seq'),
    name text NOT NULL UNIQUE,
    description text
);
COMMENT ON TABLE tasker.dependent_system IS 'Systems that steps work with: those that definitions name as dependent_system, and those of mapped objects.';
COMMENT ON COLUMN tasker.dependent_system.dependent_system_id IS 'Key.';
COMMENT ON COLUMN tasker.dependent_system.name IS 'Name, as definitions give it.';
COMMENT ON COLUMN tasker.dependent_system.description IS 'What it is, for people.';

CREATE SEQUENCE tasker.dependent_system_object_map_id_seq;
COMMENT ON SEQUENCE tasker.dependent_system_object_map_id_seq IS 'Ids of tasker.dependent_system_object_map.';

CREATE TABLE tasker.dependent_system_object_map (
    dependent_system_object_map_id bigint PRIMARY KEY DEFAULT pg_catalog.nextval('tasker.dependent_system_object_map_id_seq'),
    dependent_system_one_id integer NOT NULL,
    remote_id_one text NOT NULL,
    dependent_system_two_id integer NOT NULL,
    remote_id_two text NOT NULL,
    UNIQUE (dependent_system_one_id, remote_id_one, dependent_system_two_id, remote_id_two),
    -- One of the two orders of a pair, so that it is never stored twice.
    CHECK ((dependent_system_one_id, remote_id_one COLLATE "C") < (dependent_system_two_id, remote_id_two COLLATE "C"))
);
CREATE INDEX dependent_system_object_map_two ON tasker.dependent_system_object_map (dependent_system_two_id, remote_id_two);
COMMENT ON TABLE tasker.dependent_system_object_map IS 'Which object of one system is which of another. Neither side is the first: tasker.mapped_objects() reads both.';
COMMENT ON COLUMN tasker.dependent_system_object_map.dependent_system_object_map_id IS 'Key.';
COMMENT ON COLUMN tasker.dependent_system_object_map.dependent_system_one_id IS 'System of one object.';
COMMENT ON COLUMN tasker.dependent_system_object_map.remote_id_one IS 'Id of that object in its system.';
COMMENT ON COLUMN tasker.dependent_system_object_map.dependent_system_two_id IS 'System of the other object.';
COMMENT ON COLUMN tasker.dependent_system_object_map.remote_id_two IS 'Id of that object in its system.';

CREATE SEQUENCE tasker.annotation_type_id_seq AS integer;
COMMENT ON SEQUENCE tasker.annotation_type_id_seq IS 'Ids of tasker.annotation_type.';

CREATE TABLE tasker.annotation_type (
    annotation_type_id integer PRIMARY KEY DEFAULT pg_catalog.nextval('tasker.annotation_type_id_seq'),
    name text NOT NULL UNIQUE,
    description text
);
COMMENT ON TABLE tasker.annotation_type IS 'Types of annotations.';
COMMENT ON COLUMN tasker.annotation_type.annotation_type_id IS 'Key.';
COMMENT ON COLUMN tasker.annotation_type.name IS 'Name.';
COMMENT ON COLUMN tasker.annotation_type.description IS 'What such an annotation says, for people.';

CREATE SEQUENCE tasker.task_annotation_id_seq;
COMMENT ON SEQUENCE tasker.task_annotation_id_seq IS 'Ids of tasker.task_annotation.';

CREATE TABLE tasker.task_annotation (
    task_annotation_id bigint PRIMARY KEY DEFAULT pg_catalog.nextval('tasker.task_annotation_id_seq'),
    task_id bigint NOT NULL,
    annotation_type_id integer NOT NULL,
    annotation jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT tasker.clock()
);
CREATE INDEX task_annotation_task ON tasker.task_annotation (task_id);
CREATE INDEX task_annotation_content ON tasker.task_annotation USING gin (annotation pg_catalog.jsonb_path_ops);
COMMENT ON TABLE tasker.task_annotation IS 'What was noted about tasks. People read the view tasker.task_annotations.';
COMMENT ON COLUMN tasker.task_annotation.task_annotation_id IS 'Key.';
COMMENT ON COLUMN tasker.task_annotation.task_id IS 'Task.';
COMMENT ON COLUMN tasker.task_annotation.annotation_type_id IS 'Its type.';
COMMENT ON COLUMN tasker.task_annotation.annotation IS 'What it says.';
COMMENT ON COLUMN tasker.task_annotation.created_at IS 'When it was made.';

SELECT pg_catalog.pg_extension_config_dump('tasker.dependent_system_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('tasker.dependent_system', '');
SELECT pg_catalog.pg_extension_config_dump('tasker.dependent_system_object_map_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('tasker.dependent_system_object_map', '');
SELECT pg_catalog.pg_extension_config_dump('tasker.annotation_type_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('tasker.annotation_type', '');
SELECT pg_catalog.pg_extension_config_dump('tasker.task_annotation_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('tasker.task_annotation', '');

-- As its owner: the types of annotations are everybody's, and which there are is nobody's business.
CREATE VIEW tasker.task_annotations WITH (security_barrier) AS
SELECT a.task_annotation_id, a.task_id, t.name AS annotation_type, a.annotation, a.created_at
FROM tasker.task_annotation AS a
JOIN tasker.annotation_type AS t USING (annotation_type_id)
WHERE tasker._sees_task('{task:show,task:index,workflow_step:show,workflow_step:index}', a.task_id);
COMMENT ON VIEW tasker.task_annotations IS 'What was noted about tasks by tasker.annotate_task().';
COMMENT ON COLUMN tasker.task_annotations.task_annotation_id IS 'Id.';
COMMENT ON COLUMN tasker.task_annotations.task_id IS 'Task.';
COMMENT ON COLUMN tasker.task_annotations.annotation_type IS 'Name of its type.';
COMMENT ON COLUMN tasker.task_annotations.annotation IS 'What it says.';
COMMENT ON COLUMN tasker.task_annotations.created_at IS 'When it was made.';

CREATE VIEW tasker.dependent_system_object_maps WITH (security_invoker) AS
SELECT m.dependent_system_object_map_id, one.name AS system_one, m.remote_id_one, two.name AS system_two, m.remote_id_two
FROM tasker.dependent_system_object_map AS m
JOIN tasker.dependent_system AS one ON one.dependent_system_id = m.dependent_system_one_id
JOIN tasker.dependent_system AS two ON two.dependent_system_id = m.dependent_system_two_id;
COMMENT ON VIEW tasker.dependent_system_object_maps IS 'Every pair of objects that tasker.map_object() was told of.';
COMMENT ON COLUMN tasker.dependent_system_object_maps.dependent_system_object_map_id IS 'Id.';
COMMENT ON COLUMN tasker.dependent_system_object_maps.system_one IS 'System of one object.';
COMMENT ON COLUMN tasker.dependent_system_object_maps.remote_id_one IS 'Its id there.';
COMMENT ON COLUMN tasker.dependent_system_object_maps.system_two IS 'System of the other object.';
COMMENT ON COLUMN tasker.dependent_system_object_maps.remote_id_two IS 'Its id there.';

CREATE FUNCTION tasker._add_systems(names text[])
RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    -- In one order, so that two who add the same do not wait for each other.
    INSERT INTO tasker.dependent_system (name)
    SELECT n.name
    FROM (SELECT DISTINCT u.name FROM unnest(names) AS u (name)) AS n
    WHERE NOT EXISTS (SELECT FROM tasker.dependent_system AS s WHERE s.name = n.name)
    ORDER BY n.name COLLATE "C"
    ON CONFLICT (name) DO NOTHING;
$$;
COMMENT ON FUNCTION tasker._add_systems(text[]) IS
'Adds those of the systems that are not there yet. Private.';

CREATE FUNCTION tasker._check_note_name(name text, what text)
RETURNS void
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF name IS NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'null_value_not_allowed',
            MESSAGE = format('%s must not be NULL', what),
            DETAIL = 'The argument is NULL.',
            HINT = 'Give it a name.';
    END IF;
    IF tasker._name_problem(name) IS NOT NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('%s %s', what, tasker._name_problem(name)),
            DETAIL = format('It is "%s".', left(name, 200)),
            HINT = 'It has 1 to 128 printable characters.';
    END IF;
END;
$$;
COMMENT ON FUNCTION tasker._check_note_name(text, text) IS
'Raises 22004 or 22023 for what can''t be a name of a type or a system, or an id there. Private.';

CREATE FUNCTION tasker._annotate_task(task_id bigint, type text, annotation jsonb)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    id bigint;
BEGIN
    PERFORM tasker._require_task('task:update', task_id);
    PERFORM tasker._check_note_name(type, 'type of the annotation');
    IF annotation IS NULL THEN
        RAISE EXCEPTION 'annotation must not be NULL'
            USING ERRCODE = 'null_value_not_allowed',
                  DETAIL = 'The argument annotation is NULL.',
                  HINT = 'Pass an object, such as {"ticket": "A-1"}.';
    END IF;
    -- The row's lock keeps the task until the annotation is there.
    PERFORM
    FROM tasker.task AS t
    WHERE t.task_id = _annotate_task.task_id
    FOR KEY SHARE;
    IF NOT FOUND THEN
        PERFORM tasker._refuse_unknown_task(task_id);
    END IF;
    INSERT INTO tasker.annotation_type (name)
    SELECT type
    WHERE NOT EXISTS (SELECT FROM tasker.annotation_type AS t WHERE t.name = type)
    ON CONFLICT (name) DO NOTHING;
    INSERT INTO tasker.task_annotation (task_id, annotation_type_id, annotation)
    SELECT _annotate_task.task_id, t.annotation_type_id, _annotate_task.annotation
    FROM tasker.annotation_type AS t
    WHERE t.name = type
    RETURNING task_annotation_id
    INTO id;
    RETURN id;
END;
$$;
COMMENT ON FUNCTION tasker._annotate_task(bigint, text, jsonb) IS
'What tasker.annotate_task() does, for its caller. Private.';

CREATE FUNCTION tasker.annotate_task(task_id bigint, type text, annotation jsonb)
RETURNS bigint
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.annotate_task(bigint, text, jsonb) IS
'Notes something about a task, in any state of it; nothing of the task changes. Arguments: task_id; type, a name that tells such notes from others, made at its first use; annotation, any JSON. Returns the id of the note, which tasker.task_annotations shows. Raises TK007 for an unknown task, 22004 for NULL, 22023 for what can''t be a name. Source: reference 1.8.';

CREATE FUNCTION tasker._tasks_by_annotation(type text, key text, value text)
RETURNS SETOF bigint
LANGUAGE sql STABLE STRICT SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    -- The index finds a text, and the number or boolean that looks like it.
    SELECT DISTINCT a.task_id
    FROM tasker.task_annotation AS a
    JOIN tasker.annotation_type AS t USING (annotation_type_id)
    WHERE t.name = type
      AND a.annotation @> ANY (ARRAY[
              jsonb_build_object(key, value),
              jsonb_build_object(key, CASE WHEN value ~ '^(-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d{1,3})?|true|false)$'
                                           THEN value::jsonb
                                           ELSE to_jsonb(value) END)])
      AND a.annotation ->> key = value
      AND tasker._sees_task('{task:show,task:index,workflow_step:show,workflow_step:index}', a.task_id)
    ORDER BY a.task_id;
$$;
COMMENT ON FUNCTION tasker._tasks_by_annotation(text, text, text) IS
'What tasker.tasks_by_annotation() does, for its caller. Private.';

CREATE FUNCTION tasker.tasks_by_annotation(type text, key text, value text)
RETURNS SETOF bigint
LANGUAGE C STABLE STRICT
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.tasks_by_annotation(text, text, text) IS
'Tasks with an annotation of that type whose key has that value. Arguments: type; key of the annotation''s object; value, a text, or a number or boolean as it is written. Returns task ids, rising, each once. Raises nothing; NULL finds nothing. Source: reference 1.8, 9.2.';

CREATE FUNCTION tasker._map_object(system_one text, remote_id_one text, system_two text, remote_id_two text)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    one tasker.dependent_system;
    two tasker.dependent_system;
    pair tasker.dependent_system_object_map;
BEGIN
    PERFORM tasker._require('task:update', '*');
    PERFORM tasker._check_note_name(system_one, 'system_one'),
            tasker._check_note_name(remote_id_one, 'remote_id_one'),
            tasker._check_note_name(system_two, 'system_two'),
            tasker._check_note_name(remote_id_two, 'remote_id_two');
    IF (system_one, remote_id_one) = (system_two, remote_id_two) THEN
        RAISE EXCEPTION 'an object can''t be mapped to itself'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('Both are "%s" of system "%s".', remote_id_one, system_one),
                  HINT = 'Name the object that it is in the other system.';
    END IF;
    PERFORM tasker._add_systems(ARRAY[system_one, system_two]);
    SELECT s.* INTO one FROM tasker.dependent_system AS s WHERE s.name = system_one;
    SELECT s.* INTO two FROM tasker.dependent_system AS s WHERE s.name = system_two;
    IF (one.dependent_system_id, remote_id_one COLLATE "C") < (two.dependent_system_id, remote_id_two COLLATE "C") THEN
        pair := ROW(NULL, one.dependent_system_id, remote_id_one, two.dependent_system_id, remote_id_two);
    ELSE
        pair := ROW(NULL, two.dependent_system_id, remote_id_two, one.dependent_system_id, remote_id_one);
    END IF;
    INSERT INTO tasker.dependent_system_object_map (dependent_system_one_id, remote_id_one, dependent_system_two_id, remote_id_two)
    VALUES (pair.dependent_system_one_id, pair.remote_id_one, pair.dependent_system_two_id, pair.remote_id_two)
    ON CONFLICT DO NOTHING;
    SELECT m.dependent_system_object_map_id
    INTO pair.dependent_system_object_map_id
    FROM tasker.dependent_system_object_map AS m
    WHERE (m.dependent_system_one_id, m.remote_id_one, m.dependent_system_two_id, m.remote_id_two)
          = (pair.dependent_system_one_id, pair.remote_id_one, pair.dependent_system_two_id, pair.remote_id_two);
    RETURN pair.dependent_system_object_map_id;
END;
$$;
COMMENT ON FUNCTION tasker._map_object(text, text, text, text) IS
'What tasker.map_object() does, for its caller. Private.';

CREATE FUNCTION tasker.map_object(system_one text, remote_id_one text, system_two text, remote_id_two text)
RETURNS bigint
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.map_object(text, text, text, text) IS
'Notes that an object of one system is an object of another. Arguments: system_one and system_two, names of systems, made at their first use; remote_id_one and remote_id_two, the object''s ids there. The same pair again, in either order, changes nothing. Returns the id of the pair. Raises 22004 for NULL, 22023 for what can''t be a name or id (1 to 128 printable characters) and for an object and itself. Source: reference 1.3, 1.4.';

CREATE FUNCTION tasker.mapped_objects(system text, remote_id text)
RETURNS TABLE (mapped_system text, mapped_remote_id text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT o.name, m.remote_id_two
    FROM tasker.dependent_system AS s
    JOIN tasker.dependent_system_object_map AS m ON m.dependent_system_one_id = s.dependent_system_id
    JOIN tasker.dependent_system AS o ON o.dependent_system_id = m.dependent_system_two_id
    WHERE s.name = system
      AND m.remote_id_one = remote_id
    UNION
    SELECT o.name, m.remote_id_one
    FROM tasker.dependent_system AS s
    JOIN tasker.dependent_system_object_map AS m ON m.dependent_system_two_id = s.dependent_system_id
    JOIN tasker.dependent_system AS o ON o.dependent_system_id = m.dependent_system_one_id
    WHERE s.name = system
      AND m.remote_id_two = remote_id
    ORDER BY 1, 2;
$$;
COMMENT ON FUNCTION tasker.mapped_objects(text, text) IS
'What an object of a system is in others: the other side of every pair it is in. Arguments: system; remote_id, its id there. Returns mapped_system and mapped_remote_id. Raises nothing; an unknown one has no rows. Source: reference 1.4.';
