-- notification: a subscriber of tasker, in PL/pgSQL.
--
--     psql --single-transaction --file=notification.sql
--
-- subscriber_notification.handle() is called with each event since this was first
-- run, in order within a task, as the role that ran it.  What a function writes
-- is committed when the event counts as handled.  If it raises, that is rolled
-- back, and the event comes again after a pause; those of other tasks go on.
\set ON_ERROR_STOP on

CREATE SCHEMA IF NOT EXISTS subscriber_notification;

-- What this subscriber has heard.
CREATE TABLE IF NOT EXISTS subscriber_notification.line (
    place bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    text text NOT NULL
);

-- What to do.  An event has event_id, occurred_at, name, task_id, step_id,
-- payload, and attempt: how often it has come.

-- step.failed
CREATE OR REPLACE FUNCTION subscriber_notification.handle_step_failed(event tasker.event)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO subscriber_notification.line (text)
    VALUES (format('step %s of task %s failed: %s', event.payload ->> 'step_name', event.task_id,
                   coalesce(event.payload ->> 'error_message', 'unknown error')));
END;
$$;

-- task.completed
CREATE OR REPLACE FUNCTION subscriber_notification.handle_task_completed(event tasker.event)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO subscriber_notification.line (text)
    VALUES (format('task %s completed', event.task_id));
END;
$$;

-- task.failed
CREATE OR REPLACE FUNCTION subscriber_notification.handle_task_failed(event tasker.event)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO subscriber_notification.line (text)
    VALUES (format('task %s failed: %s', event.task_id,
                   coalesce(event.payload ->> 'error_message', 'unknown error')));
END;
$$;

-- Any other event.
CREATE OR REPLACE FUNCTION subscriber_notification.handle_other(event tasker.event)
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
CREATE OR REPLACE FUNCTION subscriber_notification.handle(event tasker.event)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF event.name = 'step.failed' THEN
        PERFORM subscriber_notification.handle_step_failed(event);
        RETURN;
    END IF;
    IF event.name = 'task.completed' THEN
        PERFORM subscriber_notification.handle_task_completed(event);
        RETURN;
    END IF;
    IF event.name = 'task.failed' THEN
        PERFORM subscriber_notification.handle_task_failed(event);
        RETURN;
    END IF;
    PERFORM subscriber_notification.handle_other(event);
END;
$$;

SELECT tasker.subscribe('notification', ARRAY['step.failed', 'task.completed', 'task.failed'],
                        handler => 'subscriber_notification.handle');
