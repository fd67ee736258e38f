-- Ticks: the order in which events are told.  The notifier makes them; who
-- reads finds in each what one snapshot showed and the one before did not.

CREATE VIEW tasker._tick_event WITH (security_invoker) AS
SELECT t.tick_id,
       m.at,
       m.id AS event_id,
       m.row_id,
       m.task_id,
       m.step_no,
       tasker._event_name(m.step_no, m.from_state, m.to_state) AS name,
       NULL::text AS namespace
FROM tasker.tick AS t
CROSS JOIN LATERAL unnest(t.ids) AS r (ids)
JOIN tasker._move AS m ON m.row_id >= lower(r.ids)
                      AND m.row_id < upper(r.ids)
WHERE (t.after_at IS NULL OR (m.at, m.id) > (t.after_at, t.after_id))
  AND (t.until_at IS NULL OR (m.at, m.id) <= (t.until_at, t.until_id))
UNION ALL
SELECT t.tick_id,
       e.occurred_at,
       e.event_id,
       e.event_id,
       coalesce(e.task_id, 0),
       coalesce(e.step_no, 0::smallint),
       e.name,
       e.namespace
FROM tasker.tick AS t
CROSS JOIN LATERAL unnest(t.ids) AS r (ids)
JOIN tasker.published_event AS e ON e.event_id >= lower(r.ids)
                                AND e.event_id < upper(r.ids)
WHERE (t.after_at IS NULL OR (e.occurred_at, e.event_id) > (t.after_at, t.after_id))
  AND (t.until_at IS NULL OR (e.occurred_at, e.event_id) <= (t.until_at, t.until_id));
COMMENT ON VIEW tasker._tick_event IS 'The events of each tick. Private.';
COMMENT ON COLUMN tasker._tick_event.tick_id IS 'Tick.';
COMMENT ON COLUMN tasker._tick_event.at IS 'When it happened: with event_id, the order within a tick.';
COMMENT ON COLUMN tasker._tick_event.event_id IS 'Event.';
COMMENT ON COLUMN tasker._tick_event.row_id IS 'Key of the row of tasker.log or tasker.published_event.';
COMMENT ON COLUMN tasker._tick_event.task_id IS 'Task; 0: none.';
COMMENT ON COLUMN tasker._tick_event.step_no IS 'Step; 0: none.';
COMMENT ON COLUMN tasker._tick_event.name IS 'Name of the event.';
COMMENT ON COLUMN tasker._tick_event.namespace IS 'Namespace of a published event; NULL: that of its task.';

CREATE FUNCTION tasker._events_until(tick_id bigint, event_at timestamptz, event_id bigint)
RETURNS bigint
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
    SELECT coalesce((
               SELECT t.events
               FROM tasker.tick AS t
               WHERE t.tick_id <= _events_until.tick_id
               ORDER BY t.tick_id DESC
               LIMIT 1), 0)
         + CASE WHEN _events_until.event_id IS NULL THEN 0 ELSE (
               SELECT count(*)
               FROM tasker._tick_event AS e
               WHERE e.tick_id = _events_until.tick_id + 1
                 AND (e.at, e.event_id) <= (_events_until.event_at, _events_until.event_id)) END;
$$;
COMMENT ON FUNCTION tasker._events_until(bigint, timestamptz, bigint) IS
'Number of all events up to a place: a tick, and, where they are not NULL, the time and the id of an event of the next one. Private.';

CREATE FUNCTION tasker._tick_part_size()
RETURNS integer
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS 'BEGIN RETURN 500; END;';
COMMENT ON FUNCTION tasker._tick_part_size() IS
'Number of events up to which one tick holds all of them: what a fetch may have to sort. Private.';

-- A tick of more events than that is cut into parts, so that fetching some of
-- them does not sort all.  A part keeps of the ids only those between its
-- lowest and its highest, or each would read the whole: of rows, which are read,
-- and of events, which are looked for.
CREATE FUNCTION tasker._make_parts(first_tick bigint, ids int8multirange, next_xid bigint, running bigint[], before bigint)
RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH event AS (
        SELECT m.at, m.id, m.row_id
        FROM unnest(ids) AS r (ids)
        JOIN tasker._move AS m ON m.row_id >= lower(r.ids)
                              AND m.row_id < upper(r.ids)
        UNION ALL
        SELECT e.occurred_at, e.event_id, e.event_id
        FROM unnest(ids) AS r (ids)
        JOIN tasker.published_event AS e ON e.event_id >= lower(r.ids)
                                        AND e.event_id < upper(r.ids)
    ), numbered AS (
        SELECT e.*,
               row_number() OVER (ORDER BY e.at, e.id) AS n
        FROM event AS e
    ), part AS (
        SELECT (e.n - 1) / tasker._tick_part_size() AS number,
               max(e.n) AS last,
               min(e.at) AS first_at,
               min(least(e.id, e.row_id)) AS low,
               max(e.row_id) AS high
        FROM numbered AS e
        GROUP BY 1
    ), cut AS (
        SELECT p.*, e.at, e.id
        FROM part AS p
        JOIN numbered AS e ON e.n = p.last
    )
    INSERT INTO tasker.tick (tick_id, at, next_xid, running, ids, first_at, last_at, after_at, after_id, until_at, until_id, events)
    SELECT first_tick + c.number,
           tasker.clock(),
           next_xid,
           running,
           ids * int8multirange(int8range(c.low, c.high, '[]')),
           c.first_at,
           c.at,
           lag(c.at) OVER (ORDER BY c.number),
           lag(c.id) OVER (ORDER BY c.number),
           c.at,
           c.id,
           before + c.last
    FROM cut AS c
    ORDER BY c.number;
$$;
COMMENT ON FUNCTION tasker._make_parts(bigint, int8multirange, bigint, bigint[], bigint) IS
'Makes ticks, from number first_tick on, of what has these ids and is too much for one; before is how many events there were before. Private.';

-- Two databases number their ticks apart, so that one's can be restored into
-- the other: a thousand numbers a second are more than are ever used.
CREATE FUNCTION tasker._first_tick()
RETURNS bigint
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint $$;
COMMENT ON FUNCTION tasker._first_tick() IS
'The number before that of the first tick of a database. Private.';

CREATE FUNCTION tasker._tick(ids int8multirange, next_xid bigint, running bigint[])
RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    first bigint;
    last_tick bigint;
    before bigint;
    told bigint;
    first_at timestamptz;
    last_at timestamptz;
BEGIN
    SELECT sum(e.count), min(e.first_at), max(e.last_at)
    INTO told, first_at, last_at
    FROM (
        SELECT count(*) + count(l.start_id) AS count, min(least(l.start_at, l.at)) AS first_at, max(greatest(l.start_at, l.at)) AS last_at
        FROM unnest(_tick.ids) AS r (ids)
        JOIN tasker.log AS l ON l.id >= lower(r.ids)
                            AND l.id < upper(r.ids)
        UNION ALL
        SELECT count(*), min(p.occurred_at), max(p.occurred_at)
        FROM unnest(_tick.ids) AS r (ids)
        JOIN tasker.published_event AS p ON p.event_id >= lower(r.ids)
                                        AND p.event_id < upper(r.ids)) AS e;
    IF told = 0 THEN
        RETURN NULL;
    END IF;
    SELECT t.tick_id, t.events
    INTO last_tick, before
    FROM tasker.tick AS t
    ORDER BY t.tick_id DESC
    LIMIT 1;
    last_tick := coalesce(last_tick, tasker._first_tick());
    before := coalesce(before, 0);
    IF told > tasker._tick_part_size() THEN
        PERFORM tasker._make_parts(last_tick + 1, _tick.ids, _tick.next_xid, _tick.running, before);
    ELSE
        INSERT INTO tasker.tick (tick_id, at, next_xid, running, ids, first_at, last_at, events)
        VALUES (last_tick + 1, tasker.clock(), _tick.next_xid, _tick.running, _tick.ids, first_at, last_at, before + told);
    END IF;
    first := last_tick + 1;
    last_tick := (SELECT max(t.tick_id) FROM tasker.tick AS t);
    BEGIN
        PERFORM tasker._match_new(first, last_tick);
    EXCEPTION
        -- Nobody's events are to stop for that: each finds its own as it fetches.
        WHEN OTHERS THEN
            UPDATE tasker.subscriber_cursor AS c
            SET matched_from = NULL
            WHERE c.subscriber_id IN (
                SELECT n.subscriber_id
                FROM tasker.subscriber_cursor AS n
                WHERE n.matched_from IS NOT NULL
                ORDER BY n.subscriber_id
                FOR UPDATE);
            -- Said once, and not at each tick as long as it lasts.
            IF FOUND THEN
                RAISE LOG USING
                    ERRCODE = SQLSTATE,
                    MESSAGE = format('tasker could not note who wants the events of ticks %s to %s: %s', first, last_tick, SQLERRM),
                    DETAIL = 'Subscribers find them as they fetch.';
            END IF;
    END;
    RETURN last_tick;
END;
$$;
COMMENT ON FUNCTION tasker._tick(int8multirange, bigint, bigint[]) IS
'Makes a tick of the events with these ids, several where they are many, and finds who wants which; next_xid and running are the snapshot that shows them. Returns the last tick; NULL: there were no events, and no tick. Private.';

CREATE FUNCTION tasker._subscriber_bells(behind bigint, upto bigint)
RETURNS TABLE (channel text, payload text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    told bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM tasker.subscriber AS s WHERE s.channel IS NOT NULL) THEN
        RETURN;
    END IF;
    told := (SELECT t.events FROM tasker.tick AS t WHERE t.tick_id = upto)
            - coalesce((SELECT t.events FROM tasker.tick AS t WHERE t.tick_id <= behind ORDER BY t.tick_id DESC LIMIT 1), 0);
    RETURN QUERY
    WITH bell AS (
        SELECT s.channel, s.name, told AS count, NULL::bigint[] AS event_ids
        FROM tasker.subscriber AS s
        WHERE s.channel IS NOT NULL
          AND s.wants_everything
        UNION ALL
        SELECT s.channel, s.name, count(*), (array_agg(u.event_id ORDER BY m.tick_id, u.n))[1:400]
        FROM tasker.subscriber AS s
        JOIN tasker.subscriber_cursor AS c ON c.subscriber_id = s.subscriber_id
        JOIN tasker.subscriber_match AS m ON m.subscriber_id = s.subscriber_id
        CROSS JOIN LATERAL unnest(m.event_ids) WITH ORDINALITY AS u (event_id, n)
        WHERE s.channel IS NOT NULL
          AND c.matched_from <= behind
          AND m.tick_id > behind
          AND m.tick_id <= upto
        GROUP BY s.channel, s.name
        UNION ALL
        -- What these want was not noted, as somebody held their place, say.
        SELECT s.channel, s.name, told, NULL
        FROM tasker.subscriber AS s
        JOIN tasker.subscriber_cursor AS c ON c.subscriber_id = s.subscriber_id
        WHERE s.channel IS NOT NULL
          AND NOT s.wants_everything
          AND (c.matched_from <= behind) IS NOT TRUE
          AND c.tick_id < upto
          AND c.fetched_at > tasker.clock() - tasker._subscriber_sleeps_after()
    ), short AS (
        SELECT b.channel,
               jsonb_build_object('subscriber', b.name, 'events', b.count) AS brief,
               CASE WHEN b.count <= current_setting('tasker.notify_limit')::integer
                    THEN jsonb_build_object('event_ids', to_jsonb(b.event_ids::text[])) END AS more
        FROM bell AS b
    )
    SELECT s.channel,
           CASE WHEN octet_length((s.brief || s.more)::text) < 7900 THEN (s.brief || s.more)::text
                ELSE s.brief::text END
    FROM short AS s;
END;
$$;
COMMENT ON FUNCTION tasker._subscriber_bells(bigint, bigint) IS
'Notifications for the subscribers that asked for them and want something of the ticks behind the one up to the other: how many events, and which, where they are few; of all events, for one of which it is not noted what it wants. Private.';
