-- The last of the files: what all of them have brought about in this database is in the
-- catalogue of events, matches it, and is all that the catalogue has.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS tasker;
\set SHOW_CONTEXT never
\pset null '(null)'

-- Alone, it has this to look at.
\set ECHO none
\o /dev/null
\i test/event_scenario.sql
\o
\i test/event_check.sql
\set ECHO all
SET client_min_messages = warning;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT name, problem, events, example FROM pg_temp.event_problems();
SELECT * FROM pg_temp.unseen_events() AS unseen;
SELECT count(DISTINCT payload ->> 'event_type') >= 22 AS seen FROM pg_temp.all_events();

-- The engine's events are each told once: a change, an event.
SELECT event_id FROM pg_temp.all_events() GROUP BY event_id HAVING count(*) > 1;
SELECT count(*) = (SELECT count(*) FROM tasker.transitions) + (SELECT count(*) FROM tasker.published_event) AS each_once
FROM pg_temp.all_events();
COMMIT;
