-- Subscribers' SQL handlers: what may be one, and what became of the events at
-- which one failed.  The deliverer (deliverer.c) runs them.

CREATE INDEX subscriber_failure_task ON tasker.subscriber_failure (subscriber_id, task_id, place)
WHERE dead_at IS NULL;
CREATE INDEX subscriber_failure_due ON tasker.subscriber_failure (subscriber_id, next_attempt_at, place)
WHERE dead_at IS NULL;

CREATE FUNCTION tasker._max_failures()
RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 10000;
$$;
COMMENT ON FUNCTION tasker._max_failures() IS
'With so many events that wait for its handler a subscriber takes no new ones. Private.';

CREATE FUNCTION tasker._check_subscriber_handler(handler regproc, caller text DEFAULT NULL)
RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    proc record;
    is_a text;
BEGIN
    SELECT f.*
    INTO proc
    FROM tasker._handler_function(handler) AS f;
    is_a := CASE
        WHEN proc.is_a IS NOT NULL THEN proc.is_a
        WHEN proc.result IN ('trigger'::regtype, 'event_trigger'::regtype) THEN 'a trigger function'
        WHEN proc.returns_set THEN 'a function that returns a set'
    END;
    IF is_a IS NOT NULL
       OR (proc.argument IN (to_regtype('tasker.event'), 'jsonb'::regtype)) IS NOT TRUE THEN
        RAISE EXCEPTION USING
            ERRCODE = 'invalid_function_definition',
            MESSAGE = format('%s cannot be the handler of a subscriber', proc.signature),
            DETAIL = format('It is %s; such a handler is a function that takes one tasker.event or one jsonb.',
                coalesce(is_a, 'a function that takes ' || proc.takes)),
            HINT = format('CREATE FUNCTION %s(event tasker.event) RETURNS void LANGUAGE plpgsql AS $f$ BEGIN RAISE LOG ''%%'', event.name; END $f$;',
                          proc.qualified);
    END IF;
    PERFORM tasker._check_callable(handler, caller, 'the handler of a subscriber', 'A handler runs as the role that subscribes.');
    RETURN format('%s(%s)', proc.qualified,
                  CASE proc.argument
                      WHEN 'jsonb'::regtype THEN 'jsonb'
                      ELSE 'tasker.event' END);
END;
$$;
COMMENT ON FUNCTION tasker._check_subscriber_handler(regproc, text) IS
'Signature of the function, qualified and quoted, as tasker.subscriber keeps it; or 42883, 42P13 or 42501 where it cannot be the handler of a subscriber that the caller''s role runs (NULL: whoever). Private.';

CREATE FUNCTION tasker.__dead_events(caller text)
RETURNS TABLE (subscriber text, event_id bigint, occurred_at timestamptz, name text, task_id bigint, step_id bigint, payload jsonb, attempts integer, dead_at timestamptz, error jsonb)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    WITH dead AS MATERIALIZED (
        SELECT s.name AS subscriber, f.*, row_number() OVER (ORDER BY f.place) AS n
        FROM tasker.subscriber_failure AS f
        JOIN tasker.subscriber AS s USING (subscriber_id)
        WHERE f.dead_at IS NOT NULL
          AND tasker._knows_subscriber(s.run_as, caller)
    ), said AS MATERIALIZED (
        SELECT e.*
        FROM (SELECT array_agg(d.event_id ORDER BY d.n) AS event_ids,
                     array_agg(d.row_id ORDER BY d.n) AS row_ids
              FROM dead AS d) AS a
        CROSS JOIN LATERAL tasker._events(a.event_ids, a.row_ids) AS e
        WHERE a.event_ids IS NOT NULL
    )
    SELECT d.subscriber, d.event_id, e.occurred_at, e.name, coalesce(e.task_id, nullif(d.task_id, 0)), e.step_id,
           e.payload, d.attempts, d.dead_at, d.error
    FROM dead AS d
    LEFT JOIN said AS e ON e.place = d.n
    ORDER BY d.subscriber COLLATE "C", d.place;
$$;
COMMENT ON FUNCTION tasker.__dead_events(text) IS
'What the view tasker.dead_events shows to a role. Private.';

CREATE FUNCTION tasker._dead_events()
RETURNS TABLE (subscriber text, event_id bigint, occurred_at timestamptz, name text, task_id bigint, step_id bigint, payload jsonb, attempts integer, dead_at timestamptz, error jsonb)
LANGUAGE C STABLE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker._dead_events() IS
'What the view tasker.dead_events shows to the caller. Private.';

CREATE VIEW tasker.dead_events AS
SELECT d.subscriber, d.event_id, d.occurred_at, d.name, d.task_id, d.step_id, d.payload, d.attempts, d.dead_at, d.error
FROM tasker._dead_events() AS d;
COMMENT ON VIEW tasker.dead_events IS
'Events that a subscriber''s handler was given in vain: tasker.subscriber_max_attempts times, or once where it raised a permanent error. They stay until tasker.retry_dead_event(), tasker.drop_dead_event() or tasker.unsubscribe(). Source: design, contract, "Events".';
COMMENT ON COLUMN tasker.dead_events.subscriber IS 'Subscriber.';
COMMENT ON COLUMN tasker.dead_events.event_id IS 'Event.';
COMMENT ON COLUMN tasker.dead_events.occurred_at IS 'When it happened; NULL, as name and payload: what it was read from is gone.';
COMMENT ON COLUMN tasker.dead_events.name IS 'Its name.';
COMMENT ON COLUMN tasker.dead_events.task_id IS 'Its task; NULL: none.';
COMMENT ON COLUMN tasker.dead_events.step_id IS 'Its step; NULL: none.';
COMMENT ON COLUMN tasker.dead_events.payload IS 'What it says.';
COMMENT ON COLUMN tasker.dead_events.attempts IS 'How often the handler failed at it.';
COMMENT ON COLUMN tasker.dead_events.dead_at IS 'When it was given up.';
COMMENT ON COLUMN tasker.dead_events.error IS 'The last error: message, sqlstate, detail, hint, context, attempt, retryable, at.';

CREATE FUNCTION tasker._check_dead_event(subscriber text, event_id bigint, caller text)
RETURNS integer
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target constant tasker.subscriber := tasker._find_subscriber(subscriber, caller);
BEGIN
    IF event_id IS NOT NULL
       AND NOT EXISTS (
           SELECT
           FROM tasker.subscriber_failure AS f
           WHERE f.subscriber_id = target.subscriber_id
             AND f.event_id = _check_dead_event.event_id
             AND f.dead_at IS NOT NULL)
    THEN
        RAISE EXCEPTION USING
            ERRCODE = 'TK007',
            MESSAGE = format('event %s is not dead for subscriber "%s"', event_id, target.name),
            DETAIL = 'It is not in tasker.dead_events.',
            HINT = format('SELECT * FROM tasker.dead_events WHERE subscriber = %L;', target.name);
    END IF;
    RETURN target.subscriber_id;
END;
$$;
COMMENT ON FUNCTION tasker._check_dead_event(text, bigint, text) IS
'Id of the subscriber; or TK007 where it or the dead event is not there, TK009 where it is another role''s. Private.';

CREATE FUNCTION tasker._retry_dead_event(subscriber text, event_id bigint, caller text)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_id constant integer := tasker._check_dead_event(subscriber, event_id, caller);
    changed bigint;
BEGIN
    -- It is as one that waits for its turn, with all its attempts before it.
    UPDATE tasker.subscriber_failure AS f
    SET attempts = 0,
        next_attempt_at = NULL,
        dead_at = NULL
    WHERE f.subscriber_id = found_id
      AND f.dead_at IS NOT NULL
      AND (_retry_dead_event.event_id IS NULL OR f.event_id = _retry_dead_event.event_id);
    GET DIAGNOSTICS changed = ROW_COUNT;
    PERFORM tasker._note_deliveries();
    RETURN changed;
END;
$$;
REVOKE ALL ON FUNCTION tasker._retry_dead_event(text, bigint, text) FROM PUBLIC;
COMMENT ON FUNCTION tasker._retry_dead_event(text, bigint, text) IS
'What tasker.retry_dead_event() does, for the role of its caller. Private.';

CREATE FUNCTION tasker.retry_dead_event(subscriber text, event_id bigint DEFAULT NULL)
RETURNS bigint
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.retry_dead_event(text, bigint) IS
'Gives a subscriber''s handler an event of tasker.dead_events again, at once and with all its attempts. Arguments: subscriber; event_id, NULL for all that are dead for it. Events of the task that came later and were delivered meanwhile are not delivered again. Returns the number of events. For members of the role that subscribed. Raises TK007 (no such subscriber, or not dead for it), TK009 (another role''s). Source: design, contract, "Events".';

CREATE FUNCTION tasker._drop_dead_event(subscriber text, event_id bigint, caller text)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_id constant integer := tasker._check_dead_event(subscriber, event_id, caller);
    changed bigint;
BEGIN
    DELETE FROM tasker.subscriber_failure AS f
    WHERE f.subscriber_id = found_id
      AND f.dead_at IS NOT NULL
      AND (_drop_dead_event.event_id IS NULL OR f.event_id = _drop_dead_event.event_id);
    GET DIAGNOSTICS changed = ROW_COUNT;
    RETURN changed;
END;
$$;
REVOKE ALL ON FUNCTION tasker._drop_dead_event(text, bigint, text) FROM PUBLIC;
COMMENT ON FUNCTION tasker._drop_dead_event(text, bigint, text) IS
'What tasker.drop_dead_event() does, for the role of its caller. Private.';

CREATE FUNCTION tasker.drop_dead_event(subscriber text, event_id bigint DEFAULT NULL)
RETURNS bigint
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.drop_dead_event(text, bigint) IS
'Takes an event off tasker.dead_events: it is not delivered any more. Arguments: subscriber; event_id, NULL for all that are dead for it. Returns the number of events. For members of the role that subscribed. Raises TK007 (no such subscriber, or not dead for it), TK009 (another role''s). Source: design, contract, "Events".';
