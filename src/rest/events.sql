-- Events over REST: the catalogue, and the stream, for which tasker-agent reads
-- what the ticks bring.

CREATE FUNCTION tasker._rest_event_catalog(of_category text)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tasker._require('event:index', NULL);
    RETURN jsonb_build_object('events', (
        SELECT coalesce(jsonb_agg(to_jsonb(c) - 'n' ORDER BY c.n), '[]')
        FROM (SELECT e.*, row_number() OVER () AS n FROM tasker.event_catalog(of_category) AS e) AS c));
END;
$$;
COMMENT ON FUNCTION tasker._rest_event_catalog(text) IS
'The catalogue of events. Private.';

CREATE FUNCTION tasker._rest_event_info(of_name text)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    info jsonb;
BEGIN
    PERFORM tasker._require('event:index', NULL);
    info := tasker.event_info(of_name);
    IF info IS NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'TK007',
            MESSAGE = 'there is no such event',
            DETAIL = format('The catalogue has no event "%s".', of_name),
            HINT = 'GET /tasker/events/catalog lists them.';
    END IF;
    RETURN jsonb_build_object('event', info);
END;
$$;
COMMENT ON FUNCTION tasker._rest_event_info(text) IS
'What the catalogue says of one event. Raises TK007. Private.';

CREATE FUNCTION tasker._rest_last_tick()
RETURNS bigint
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(max(t.tick_id), 0)
    FROM tasker.tick AS t;
$$;
COMMENT ON FUNCTION tasker._rest_last_tick() IS
'Number of the last tick; 0: there is none. Private.';

-- As tasker.replay_events() finds it: every tick from the first that has its id
-- on shows its transaction, but which of them, and where, the view says.
CREATE FUNCTION tasker._rest_find_event(of_event bigint, OUT tick bigint, OUT at timestamptz)
RETURNS record
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT e.tick_id, e.at
    FROM (
        SELECT t.tick_id
        FROM tasker.tick AS t
        WHERE t.next_xid > of_event >> 20
          AND t.ids @> of_event
        ORDER BY t.next_xid, t.tick_id
        LIMIT 1) AS f
    JOIN tasker._tick_event AS e ON e.tick_id >= f.tick_id
                                AND e.tick_id < f.tick_id + 1000
    WHERE e.event_id = of_event
    LIMIT 1;
$$;
COMMENT ON FUNCTION tasker._rest_find_event(bigint) IS
'The tick of an event, and when it happened; NULL where it is not kept any more, or is not the caller''s to see. Private.';

CREATE FUNCTION tasker._rest_open_events(
    of_events text,
    of_namespace text,
    of_task bigint,
    last_event bigint,
    last_event_header bigint,
    OUT body text,
    OUT tick bigint,
    OUT at timestamptz,
    OUT event bigint,
    OUT events text)
RETURNS record
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
BEGIN
    PERFORM tasker._require('event:index', of_namespace);
    IF of_task IS NOT NULL THEN
        PERFORM tasker._rest_task_namespace(of_task);
    END IF;
    IF of_events IS NOT NULL THEN
        events := array_to_string(tasker._canonical_events(string_to_array(of_events, ',')), ',');
    END IF;
    event := coalesce(last_event_header, last_event);
    IF event IS NOT NULL THEN
        SELECT f.tick - 1, f.at
        INTO tick, at
        FROM tasker._rest_find_event(event) AS f;
    END IF;
    IF tick IS NULL THEN
        -- who asks for one that is not there is told so
        body := CASE WHEN event IS NOT NULL THEN 'lost' ELSE '' END;
        event := NULL;
        tick := tasker._rest_last_tick();
    ELSE
        body := '';
    END IF;
END;
$$;
COMMENT ON FUNCTION tasker._rest_open_events(text, text, bigint, bigint, bigint) IS
'Where a stream begins: behind the tick, and in the next one behind the event where there is one; body: lost where the last event is not there any more; events: the names that are wanted. Raises TK007, TK009. Private.';

-- Whole ticks, so that a place is a tick: at least one, and of more as many as
-- stay below the number of events that is wanted.
CREATE FUNCTION tasker._rest_new_events(after_tick bigint, upto_tick bigint, after_at timestamptz, after_event bigint)
RETURNS TABLE (tick bigint, event_id text, name text, task_id bigint, namespace text, data text)
LANGUAGE plpgsql STABLE ROWS 100
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET enable_seqscan = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    event_ids bigint[];
    row_ids bigint[];
    ticks bigint[];
BEGIN
    SELECT array_agg(e.event_id ORDER BY e.tick_id, e.at, e.event_id),
           array_agg(e.row_id ORDER BY e.tick_id, e.at, e.event_id),
           array_agg(e.tick_id ORDER BY e.tick_id, e.at, e.event_id)
    INTO event_ids, row_ids, ticks
    FROM tasker._tick_event AS e
    WHERE e.tick_id > after_tick
      AND e.tick_id <= upto_tick
      AND (after_event IS NULL OR e.tick_id > after_tick + 1 OR (e.at, e.event_id) > (after_at, after_event));
    IF event_ids IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY
    SELECT ticks[e.place],
           e.event_id::text,
           e.name,
           e.task_id,
           coalesce(e.payload ->> 'namespace', p.namespace),
           jsonb_build_object(
               'event_id', e.event_id::text,
               'occurred_at', e.occurred_at,
               'name', e.name,
               'task_id', e.task_id,
               'step_id', e.step_id,
               'payload', e.payload)::text
    FROM tasker._events(event_ids, row_ids) AS e
    LEFT JOIN tasker.published_event AS p ON p.event_id = e.event_id
                                         AND e.task_id IS NULL
    WHERE tasker._caller_may('event:index', coalesce(e.payload ->> 'namespace', p.namespace, '*'))
    ORDER BY e.place;
END;
$$;
COMMENT ON FUNCTION tasker._rest_new_events(bigint, bigint, timestamptz, bigint) IS
'The events of the ticks behind the one up to the other that the caller may see, in their order; of the first of them only those behind an event, where one is given. Private.';

CREATE FUNCTION tasker._rest_tick_range(after_tick bigint)
RETURNS bigint
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT max(r.tick_id)
    FROM (
        SELECT t.tick_id, t.events - first_value(t.events) OVER (ORDER BY t.tick_id) AS more
        FROM (SELECT t.tick_id, t.events
              FROM tasker.tick AS t
              WHERE t.tick_id > after_tick
              ORDER BY t.tick_id
              LIMIT 200) AS t) AS r
    WHERE r.more <= 500;
$$;
COMMENT ON FUNCTION tasker._rest_tick_range(bigint) IS
'The last of the ticks behind one that are worth reading at a time, the first of them at the least; NULL: there is none. Private.';
