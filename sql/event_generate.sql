-- tasker.generate_subscriber(): what it writes and what it refuses.  That what it
-- writes runs is shown by test/t/370_generate_subscriber.pl.
\set SHOW_CONTEXT never
\pset format unaligned
\pset tuples_only on

-- PL/pgSQL, whole.
SELECT tasker.generate_subscriber('notification', ARRAY['task.completed', 'step.failed'], 'plpgsql');

-- What each language subscribes to, and who gets what: names before prefixes,
-- longer prefixes before shorter ones, another name under that of the event.
SELECT l.language, line
FROM unnest(ARRAY['plpgsql', 'python', 'node', 'c', 'shell']) WITH ORDINALITY AS l (language, place)
CROSS JOIN LATERAL string_to_table(
    tasker.generate_subscriber('audit', ARRAY['*', 'task.*', 'task.start_requested', 'task.failed', 'step.failed', 'task.failed'], l.language),
    E'\n') WITH ORDINALITY AS t (line, number)
WHERE line ~ '^(events=|EVENTS = |const EVENTS = |#define EVENTS |SELECT tasker.subscribe\(''audit)'
   OR line ~ '^\s*(PERFORM|.*[,)] handle_)'
ORDER BY l.place, number;

-- Everything, with no function but the one for the rest.
SELECT count(*)
FROM string_to_table(tasker.generate_subscriber('all_of_it', ARRAY['*'], 'plpgsql'), E'\n') AS line
WHERE line ~ '\.handle_';

-- Nothing is left to fill in.
SELECT l.language, tasker.generate_subscriber('audit', ARRAY['task.*', 'step.failed'], l.language) ~ '\{\{'
FROM unnest(ARRAY['plpgsql', 'python', 'node', 'c', 'shell']) AS l (language);

-- Names of events that mean something to the languages.
SELECT tasker.register_event(name, 'A name to be careful with.')
FROM unnest(ARRAY['careful.it''s', 'careful."quoted"', 'careful.back\slash', 'careful.$program$ $$', 'careful.$(false)',
                  'careful.{{name}}', 'careful.what??/', 'careful.// x', 'careful.größe', 'careful.a-b', 'careful.a_b']) AS name;
SELECT l.language, line
FROM unnest(ARRAY['plpgsql', 'python', 'node', 'c', 'shell']) WITH ORDINALITY AS l (language, place)
CROSS JOIN LATERAL string_to_table(
    tasker.generate_subscriber('careful', ARRAY(SELECT name FROM tasker.custom_event WHERE starts_with(name, 'careful.')), l.language),
    E'\n') WITH ORDINALITY AS t (line, number)
WHERE line ~ '^\s*(.* careful\.|"""careful|IF event|.*[,)] handle_)'
ORDER BY l.place, number;
SELECT tasker.unregister_event(name)
FROM tasker.custom_event
WHERE starts_with(name, 'careful.');

-- Refused; below each the SQLSTATE.
SELECT tasker.generate_subscriber(NULL, ARRAY['task.failed'], 'c');
\echo :SQLSTATE
SELECT tasker.generate_subscriber('', ARRAY['task.failed'], 'c');
\echo :SQLSTATE
SELECT tasker.generate_subscriber('Notification Service', ARRAY['task.failed'], 'c');
\echo :SQLSTATE
SELECT tasker.generate_subscriber('it''s "; DROP', ARRAY['task.failed'], 'shell');
\echo :SQLSTATE
SELECT tasker.generate_subscriber(E'two\nlines', ARRAY['task.failed'], 'python');
\echo :SQLSTATE
SELECT tasker.generate_subscriber(repeat('x', 49), ARRAY['task.failed'], 'python');
\echo :SQLSTATE
SELECT tasker.generate_subscriber('9', ARRAY['task.failed'], 'python');
\echo :SQLSTATE
SELECT tasker.generate_subscriber('notification', ARRAY['task.failed'], 'cobol');
\echo :SQLSTATE
SELECT tasker.generate_subscriber('notification', ARRAY['task.failed'], NULL);
\echo :SQLSTATE
SELECT tasker.generate_subscriber('notification', ARRAY['task.faild'], 'python');
\echo :SQLSTATE
SELECT tasker.generate_subscriber('notification', '{}', 'python');
\echo :SQLSTATE
