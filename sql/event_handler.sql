-- Subscribers' SQL handlers: which functions may be one, as whom they run, and
-- the list of dead events.  test/t/360_event_handlers.pl has the deliverer at work.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS tasker;
\set SHOW_CONTEXT never

CREATE ROLE regress_tasker_alice;
CREATE ROLE regress_tasker_bob;
CREATE SCHEMA regress_event_handler;
GRANT ALL ON SCHEMA regress_event_handler TO regress_tasker_alice;
GRANT USAGE ON SCHEMA regress_event_handler TO regress_tasker_bob;
-- No event of the other tests is for these.
\set nothing '{"task_name": "regress_event_handler"}'

SET ROLE regress_tasker_alice;
SET search_path = regress_event_handler, pg_temp;
CREATE FUNCTION on_event(event tasker.event) RETURNS void
LANGUAGE plpgsql AS $$ BEGIN NULL; END $$;
CREATE FUNCTION "On (Odd) Event"(jsonb) RETURNS text
LANGUAGE sql AS $$ SELECT '' $$;
CREATE FUNCTION two(tasker.event) RETURNS void
LANGUAGE plpgsql AS $$ BEGIN NULL; END $$;
CREATE FUNCTION two(jsonb) RETURNS void
LANGUAGE plpgsql AS $$ BEGIN NULL; END $$;
CREATE FUNCTION takes_nothing() RETURNS void
LANGUAGE plpgsql AS $$ BEGIN NULL; END $$;
CREATE FUNCTION takes_more(tasker.event, text) RETURNS void
LANGUAGE plpgsql AS $$ BEGIN NULL; END $$;
CREATE FUNCTION takes_any(anyelement) RETURNS void
LANGUAGE plpgsql AS $$ BEGIN NULL; END $$;
CREATE FUNCTION takes_many(VARIADIC jsonb[]) RETURNS void
LANGUAGE plpgsql AS $$ BEGIN NULL; END $$;
CREATE FUNCTION returns_set(jsonb) RETURNS SETOF text
LANGUAGE sql AS $$ SELECT '' $$;
CREATE FUNCTION a_trigger() RETURNS trigger
LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE PROCEDURE a_procedure(jsonb)
LANGUAGE sql AS $$ SELECT 1 $$;
CREATE FUNCTION pg_temp.temporary(jsonb) RETURNS void
LANGUAGE plpgsql AS $$ BEGIN NULL; END $$;
CREATE FUNCTION secret(jsonb) RETURNS void
LANGUAGE plpgsql AS $$ BEGIN NULL; END $$;
REVOKE ALL ON FUNCTION secret(jsonb) FROM PUBLIC;

-- A subscriber keeps the signature, the role and the search_path.
SELECT tasker.subscribe('regress mailer', '{task.completed}', handler => 'on_event', filter => :'nothing');
SELECT tasker.subscribe('regress odd', '{task.*}', handler => '"On (Odd) Event"', filter => :'nothing');
SELECT s.name, s.handler, s.run_as, s.search_path
FROM tasker.subscriber AS s
WHERE s.name LIKE 'regress %'
ORDER BY s.name;

-- What cannot be a handler.
SELECT tasker.subscribe('regress x', '{task.*}', handler => 'takes_nothing');
\echo :LAST_ERROR_SQLSTATE
SELECT tasker.subscribe('regress x', '{task.*}', handler => 'takes_more');
SELECT tasker.subscribe('regress x', '{task.*}', handler => 'takes_any');
SELECT tasker.subscribe('regress x', '{task.*}', handler => 'takes_many');
SELECT tasker.subscribe('regress x', '{task.*}', handler => 'returns_set');
SELECT tasker.subscribe('regress x', '{task.*}', handler => 'a_trigger');
SELECT tasker.subscribe('regress x', '{task.*}', handler => 'a_procedure');
SELECT tasker.subscribe('regress x', '{task.*}', handler => 'two');
SELECT tasker.subscribe('regress x', '{task.*}', handler => 4294967295::oid);
\set VERBOSITY sqlstate
SELECT tasker.subscribe('regress x', '{task.*}', handler => 'pg_temp.temporary');
SELECT tasker.subscribe('regress x', '{task.*}', handler => 'no_such_function');
SELECT tasker.subscribe('regress x', '{task.*}', handler => 'on_event', channel => 'x');
SELECT * FROM tasker.fetch_events('regress mailer');
RESET ROLE;
SET ROLE regress_tasker_bob;
\set VERBOSITY default
SELECT tasker.subscribe('regress x', '{task.*}', handler => 'secret');
SELECT tasker.subscribe('regress mailer', '{task.*}', handler => 'on_event');
RESET ROLE;
RESET search_path;

-- Dead events: of an event that is there, one that is gone, and one of another
-- subscriber; the fourth is not dead.
SELECT tasker._announce('regress.happened', 'default', '{"x": 1}', NULL, NULL) AS event_id \gset
INSERT INTO tasker.subscriber_failure (subscriber_id, event_id, row_id, task_id, attempts, next_attempt_at, dead_at, error)
SELECT s.subscriber_id, e.event_id, e.event_id, 0, 5, e.due, CASE WHEN e.due IS NULL THEN tasker.clock() END, '{"message": "no"}'
FROM (VALUES
    ('regress mailer', :event_id, NULL),
    ('regress mailer', 1, NULL),
    ('regress odd', :event_id, NULL),
    ('regress mailer', 2, timestamptz 'infinity')) AS e (subscriber, event_id, due)
JOIN tasker.subscriber AS s ON s.name = e.subscriber;
SET ROLE regress_tasker_bob;
SELECT d.subscriber, d.event_id = :event_id AS is_event, d.name, d.task_id, d.step_id, d.payload -> 'x' AS x, d.attempts, d.dead_at IS NOT NULL AS is_dead, d.error
FROM tasker.dead_events AS d
WHERE d.subscriber LIKE 'regress %'
ORDER BY 1, 2;

-- They are their subscriber's role's.
SELECT tasker.retry_dead_event('regress mailer');
SELECT tasker.drop_dead_event('regress mailer', :event_id);
SET ROLE regress_tasker_alice;
SELECT tasker.retry_dead_event('regress mailr');
SELECT tasker.retry_dead_event('regress mailer', 2);
SELECT tasker.drop_dead_event('regress mailer', 3);
SELECT tasker.drop_dead_event('regress mailer', 1);
SELECT tasker.drop_dead_event('regress odd');
SELECT tasker.drop_dead_event('regress odd');
SELECT d.subscriber, d.event_id = :event_id AS is_event
FROM tasker.dead_events AS d
WHERE d.subscriber LIKE 'regress %';
BEGIN;
SELECT tasker.retry_dead_event('regress mailer', :event_id);
SELECT f.attempts, f.next_attempt_at, f.dead_at
FROM tasker.subscriber_failure AS f
WHERE f.event_id = :event_id;
ROLLBACK;
SELECT count(*) AS dead
FROM tasker.dead_events AS d
WHERE d.subscriber LIKE 'regress %';
RESET ROLE;
SELECT tasker.retry_dead_event('regress mailer', :event_id);

-- With too many waiting a subscriber gets nothing new, and health_check() says so.
BEGIN;
INSERT INTO tasker.subscriber_failure (subscriber_id, event_id, row_id, task_id, attempts, next_attempt_at)
SELECT s.subscriber_id, n, n, 1, 1, 'infinity'
FROM tasker.subscriber AS s
CROSS JOIN generate_series(100, 100 + tasker._max_failures()) AS n
WHERE s.name = 'regress mailer';
SELECT p.problem
FROM tasker._health_problems() AS p
WHERE p.problem LIKE 'Subscriber %';
ROLLBACK;

SELECT count(tasker.unsubscribe(s.name))
FROM tasker.subscriber AS s
WHERE s.name LIKE 'regress %';
SELECT count(*)
FROM tasker.subscriber_failure AS f
LEFT JOIN tasker.subscriber AS s USING (subscriber_id)
WHERE s.subscriber_id IS NULL;
SET client_min_messages = error;
DROP SCHEMA regress_event_handler CASCADE;
DROP OWNED BY regress_tasker_alice, regress_tasker_bob;
DROP ROLE regress_tasker_alice;
DROP ROLE regress_tasker_bob;
