-- Text of a subscriber in PL/pgSQL; see python.sql.

CREATE FUNCTION tasker._subscriber_in_plpgsql()
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $function$
    SELECT $program$-- {{name}}: a subscriber of tasker, in PL/pgSQL.
--
--     psql --single-transaction --file={{name}}.sql
--
-- {{schema}}.handle() is called with each event since this was first
-- run, in order within a task, as the role that ran it.  What a function writes
-- is committed when the event counts as handled.  If it raises, that is rolled
-- back, and the event comes again after a pause; those of other tasks go on.
\set ON_ERROR_STOP on

CREATE SCHEMA IF NOT EXISTS {{schema}};

-- What to do.  An event has event_id, occurred_at, name, task_id, step_id,
-- payload, and attempt: how often it has come.

{{#event}}
-- {{title}}
CREATE OR REPLACE FUNCTION {{schema}}.handle_{{function}}(event tasker.event)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- Your code here.
    RAISE LOG '% % %', event.event_id, event.name, event.task_id;
END;
$$;

{{/event}}
-- Any other event.
CREATE OR REPLACE FUNCTION {{schema}}.handle_other(event tasker.event)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- Your code here.
    RAISE LOG '% % %', event.event_id, event.name, event.task_id;
END;
$$;

-- Which function takes which events: the first that fits.
CREATE OR REPLACE FUNCTION {{schema}}.handle(event tasker.event)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
{{#event}}
    IF {{pattern}} THEN
        PERFORM {{schema}}.handle_{{function}}(event);
        RETURN;
    END IF;
{{/event}}
    PERFORM {{schema}}.handle_other(event);
END;
$$;

SELECT tasker.subscribe({{subscriber}}, {{events}},
                        handler => '{{schema}}.handle');
$program$;
$function$;
COMMENT ON FUNCTION tasker._subscriber_in_plpgsql() IS
'Text of a subscriber in PL/pgSQL, to be filled in. Private.';
