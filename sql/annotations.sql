-- Annotations, the map of objects, and what makes two requests the same.

\set SHOW_CONTEXT never
SET client_min_messages = error;
SET timezone = 'UTC';
SELECT FROM tasker.register_external_handler('note_outside');
SELECT FROM tasker.register_task('{"name": "note", "step_templates": [
    {"name": "one", "handler_class": "note_outside", "dependent_system": "note_shop"},
    {"name": "two", "handler_class": "note_outside", "dependent_system": "note_bank"},
    {"name": "three", "handler_class": "note_outside", "dependent_system": "note_shop"},
    {"name": "four", "handler_class": "note_outside"}]}');
SELECT name FROM tasker.dependent_system WHERE name LIKE 'note%' ORDER BY name;
SELECT tasker.create_task('note') AS a, tasker.create_task('note') AS b \gset

-- Annotations.
CREATE ROLE regress_note;
SET ROLE regress_note;
SELECT tasker.annotate_task(:a, 'note_ticket', '{"number": "A-1", "urgent": true, "hours": 1.50}') > 0 AS annotated;
SELECT tasker.annotate_task(:a, 'note_ticket', '{"number": "A-2"}') > 0 AS annotated;
SELECT tasker.annotate_task(:b, 'note_ticket', '{"number": 7, "urgent": "true", "nothing": null}') > 0 AS annotated;
SELECT tasker.annotate_task(:b, 'note_free', '"any JSON"') > 0 AS annotated;
INSERT INTO tasker.task_annotation (task_id, annotation_type_id, annotation) VALUES (1, 1, '{}');
SELECT task_id = :a AS is_a, annotation_type, annotation FROM tasker.task_annotations
WHERE task_id IN (:a, :b)
ORDER BY task_annotation_id;
SELECT t.key, t.value, array_agg(f.id = :a ORDER BY f.id) AS is_a
FROM (VALUES ('number', 'A-1'), ('number', 'A-2'), ('number', '7'), ('number', '8'), ('urgent', 'true'),
             ('hours', '1.5'), ('hours', '1.50'), ('nothing', 'null'), ('other', 'A-1'), (NULL, 'A-1'), ('number', NULL)) AS t (key, value)
LEFT JOIN LATERAL tasker.tasks_by_annotation('note_ticket', t.key, t.value) AS f (id) ON true
GROUP BY t.key, t.value
ORDER BY t.key, t.value COLLATE "C";
SELECT tasker.tasks_by_annotation('note_free', 'number', 'A-1');
SELECT tasker.annotate_task(0, 'note_ticket', '{}');
SELECT tasker.annotate_task(NULL, 'note_ticket', '{}');
SELECT tasker.annotate_task(:a, NULL, '{}');
SELECT tasker.annotate_task(:a, '', '{}');
SELECT tasker.annotate_task(:a, 'note_ticket', NULL);
SELECT name FROM tasker.annotation_type WHERE name LIKE 'note%' ORDER BY name;

-- The map of objects: neither side is the first.
SELECT tasker.map_object('note_shop', '17', 'note_bank', 'DE-4') AS pair \gset
SELECT tasker.map_object('note_shop', '17', 'note_bank', 'DE-4') = :pair AS same,
       tasker.map_object('note_bank', 'DE-4', 'note_shop', '17') = :pair AS same_turned;
SELECT tasker.map_object('note_mail', 'x@y', 'note_shop', '17') > 0 AS mapped;
SELECT tasker.map_object('note_shop', '17', 'note_shop', '18') > 0 AS mapped;
SELECT * FROM tasker.mapped_objects('note_shop', '17');
SELECT * FROM tasker.mapped_objects('note_mail', 'x@y');
SELECT * FROM tasker.mapped_objects('note_mail', '17');
SELECT system_one, remote_id_one, system_two, remote_id_two FROM tasker.dependent_system_object_maps
WHERE system_one LIKE 'note%'
ORDER BY dependent_system_object_map_id;
SELECT tasker.map_object('note_shop', '17', 'note_shop', '17');
SELECT tasker.map_object('note_shop', '17', 'note_bank', NULL);
SELECT tasker.map_object('note_shop', '', 'note_bank', '1');
RESET ROLE;

-- The same request, and each thing that makes it another one.
SELECT tasker.identity_hash('note', '{"a": 1, "b": 2}', bypass_steps => ARRAY['one', 'two'], at => '2025-01-01 10:00:59+00') AS hash \gset
SELECT :'hash' ~ '^[0-9a-f]{64}$' AS is_sha256;
SELECT what, hash = :'hash' AS same
FROM (VALUES
    ('order of keys and steps, second', tasker.identity_hash('note', '{"b": 2, "a": 1}', bypass_steps => ARRAY['two', 'one'], at => '2025-01-01 10:00:01+00')),
    ('the version it gets anyway', tasker.identity_hash('note', '{"a": 1, "b": 2}', version => '0.1.0', bypass_steps => ARRAY['one', 'two'], at => '2025-01-01 10:00:59+00')),
    ('name', tasker.identity_hash('note2', '{"a": 1, "b": 2}', bypass_steps => ARRAY['one', 'two'], at => '2025-01-01 10:00:59+00')),
    ('context', tasker.identity_hash('note', '{"a": 1, "b": 3}', bypass_steps => ARRAY['one', 'two'], at => '2025-01-01 10:00:59+00')),
    ('namespace', tasker.identity_hash('note', '{"a": 1, "b": 2}', namespace => 'n', bypass_steps => ARRAY['one', 'two'], at => '2025-01-01 10:00:59+00')),
    ('version', tasker.identity_hash('note', '{"a": 1, "b": 2}', version => '0.2.0', bypass_steps => ARRAY['one', 'two'], at => '2025-01-01 10:00:59+00')),
    ('initiator', tasker.identity_hash('note', '{"a": 1, "b": 2}', initiator => 'me', bypass_steps => ARRAY['one', 'two'], at => '2025-01-01 10:00:59+00')),
    ('reason', tasker.identity_hash('note', '{"a": 1, "b": 2}', reason => 'me', bypass_steps => ARRAY['one', 'two'], at => '2025-01-01 10:00:59+00')),
    ('source_system', tasker.identity_hash('note', '{"a": 1, "b": 2}', source_system => 'me', bypass_steps => ARRAY['one', 'two'], at => '2025-01-01 10:00:59+00')),
    ('bypass_steps', tasker.identity_hash('note', '{"a": 1, "b": 2}', at => '2025-01-01 10:00:59+00')),
    ('minute', tasker.identity_hash('note', '{"a": 1, "b": 2}', bypass_steps => ARRAY['one', 'two'], at => '2025-01-01 10:01:00+00'))) AS t (what, hash);
SET timezone = 'Asia/Kolkata';
SELECT tasker.identity_hash('note', '{"a": 1, "b": 2}', bypass_steps => ARRAY['one', 'two'], at => '2025-01-01 10:00:59+00') = :'hash' AS same;
SET timezone = 'UTC';

-- By itself, where the setting says so.
SHOW tasker.identity_strategy;
SET tasker.identity_strategy = 'uuid';
SELECT tasker.create_task('note') <> tasker.create_task('note') AS two;
-- The clock stands at the begin of a minute, so that the minute does not end in between.
SELECT set_config('tasker.clock_offset', (1 - floor(extract(second FROM clock_timestamp())))::integer::text, false) IS NOT NULL AS moved;
SET tasker.identity_strategy = hash;
SELECT tasker.create_task('note', '{"n": 1}') AS first \gset
SELECT tasker.create_task('note', '{"n": 1}') = :first AS same,
       tasker.create_task('note', '{"n": 1}', version => '0.1.0') = :first AS same_version,
       tasker.create_task('note', '{"n": 2}') = :first AS other,
       tasker.create_task('note', '{"n": 1}', idempotency_key => 'note') = :first AS own_key;
SELECT count(*), count(DISTINCT id) FROM tasker.create_tasks('note', ARRAY['{"n": 1}', '{"n": 3}', '{"n": 3}']::jsonb[]) AS t (id);
SELECT length(idempotency_key) FROM tasker.tasks WHERE task_id = :first;
RESET tasker.identity_strategy;
RESET tasker.clock_offset;

-- Ids that are carried through have a form.
SELECT tasker.create_task('note', correlation_id => 'order-17_b', traceparent => '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01') > 0 AS created;
SELECT tasker.create_task('note', traceparent => 'cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-later') > 0 AS created;
SELECT tasker.create_task('note', correlation_id => '');
SELECT tasker.create_task('note', correlation_id => E'a\nb');
SELECT tasker.create_task('note', correlation_id => '-a');
SELECT tasker.create_task('note', correlation_id => repeat('a', 101));
\set VERBOSITY terse
SELECT tasker.create_task('note', traceparent => '');
SELECT tasker.create_task('note', traceparent => '00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01');
SELECT tasker.create_task('note', traceparent => '00-00000000000000000000000000000000-b7ad6b7169203331-01');
SELECT tasker.create_task('note', traceparent => '00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01');
SELECT tasker.create_task('note', traceparent => '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more');
SELECT tasker.create_task('note', traceparent => 'ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01');
SELECT tasker.create_tasks('note', ARRAY['{}']::jsonb[], correlation_id => 'a b');
SELECT tasker.run_task('note', correlation_id => 'a b');

SELECT count(tasker.cancel_task(task_id)) > 0 AS cancelled FROM tasker.tasks WHERE name = 'note' AND state IN ('pending', 'in_progress');
SELECT FROM tasker.verify() AS v JOIN tasker.tasks AS t USING (task_id) WHERE t.name = 'note';
BEGIN;
DELETE FROM tasker.annotation_type WHERE name = 'note_free';
DELETE FROM tasker.dependent_system WHERE name = 'note_mail';
SELECT problem, task_id = :b AS is_b FROM tasker.verify() WHERE problem ~ '^(annotation|mapped)';
ROLLBACK;
SELECT FROM tasker.unregister_handler('note_outside');
DROP ROLE regress_note;
