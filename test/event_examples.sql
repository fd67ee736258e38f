-- Writes src/event/examples.sql: of each event of the engine one payload out of what
-- event_scenario.sql has brought about, the one that has most to say.  Ids, times
-- and what else is of the moment are replaced, so that it comes out the same each
-- time.  For psql -XqAt.
\set ON_ERROR_STOP on

CREATE FUNCTION pg_temp.example(payload jsonb)
RETURNS jsonb
LANGUAGE sql
AS $$
    SELECT jsonb_object_agg(f.key, CASE
               WHEN f.key = 'task_id' THEN '7'
               WHEN f.key = 'step_id' THEN to_jsonb((7 << 14) | ((f.value #>> '{}')::bigint & 16383))
               WHEN f.key = 'started_at' THEN '"2026-01-15T10:30:45.123456+00:00"'
               WHEN f.key = 'next_attempt_at' THEN '"2026-01-15T11:30:45.128531+00:00"'
               WHEN f.key IN ('timestamp', 'completed_at') THEN
                   CASE WHEN payload ->> 'timestamp' = payload ->> 'started_at' THEN '"2026-01-15T10:30:45.123456+00:00"'
                        ELSE '"2026-01-15T10:30:45.128531+00:00"' END::jsonb
               WHEN f.key LIKE '%_duration' THEN
                   CASE WHEN payload ->> 'timestamp' = payload ->> 'started_at' THEN '0' ELSE '0.005075' END::jsonb
               WHEN f.key = 'error' AND f.value ? 'at' THEN f.value || '{"at": "2026-01-15T10:30:45.128531+00:00"}'
               WHEN f.key = 'correlation_id' AND payload ? 'registry_name' THEN '"tsk_mkf2a1b3_x7k2p9"'
               WHEN f.key = 'process_id' THEN '12345'
               WHEN f.key = 'thread_id' THEN '"3039"'
               ELSE f.value
           END)
    FROM jsonb_each(payload) AS f;
$$;

CREATE FUNCTION pg_temp.examples()
RETURNS TABLE (place integer, name text, payload jsonb)
LANGUAGE sql
AS $$
    SELECT DISTINCT ON (s.place) s.place, s.name, e.payload
    FROM tasker._system_events() AS s
    LEFT JOIN (SELECT a.name, pg_temp.example(a.payload) AS payload FROM pg_temp.all_events() AS a) AS e ON e.name = s.name
    WHERE s.alias_of IS NULL
    ORDER BY s.place, (SELECT count(*) FROM jsonb_object_keys(e.payload)) DESC, length(e.payload::text), e.payload::text;
$$;

SELECT $$-- What the events of a real run carried.  Made by `make doc` from test/event_scenario.sql:
-- change that, not this.

CREATE FUNCTION tasker._event_examples()
RETURNS TABLE (name text, payload jsonb)
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 30
SET search_path = pg_catalog, pg_temp
AS $x$
    VALUES$$;
SELECT string_agg(format('        (%L, jsonb %L)', e.name, e.payload), E',\n' ORDER BY e.place) || ';'
FROM pg_temp.examples() AS e;
SELECT $$$x$;
COMMENT ON FUNCTION tasker._event_examples() IS
'An example of the payload of each event of the engine. Private.';$$;
