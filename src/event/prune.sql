-- What nobody needs any more: ticks that can be told as one, and what is older
-- than it has to be kept.

-- Ticks that every subscriber is past are joined: a tick a round is a tick every
-- ten milliseconds under load, and few events need not be told so finely later.
-- Only those are whose events do not lie between one another's, as within a tick
-- they go by time: what was told later, because it was committed later, stays
-- behind what was told before.
CREATE FUNCTION tasker._join_ticks()
RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
    WITH passed AS MATERIALIZED (
        SELECT max(t.tick_id) AS tick_id
        FROM tasker.tick AS t
        WHERE t.at < tasker.clock() - interval '1 minute'
          AND t.tick_id <= coalesce((SELECT min(c.tick_id) FROM tasker.subscriber_cursor AS c), t.tick_id)
    ), recent AS (
        SELECT t.*,
               t.events - lag(t.events) OVER (ORDER BY t.tick_id) AS size
        FROM tasker.tick AS t
        WHERE t.tick_id <= (SELECT p.tick_id FROM passed AS p)
          AND t.tick_id > (SELECT p.tick_id FROM passed AS p) - 50000
    ), sorted AS (
        SELECT r.*,
               -- The first of them has no size, as the one before it is not here.
               coalesce(r.size < tasker._tick_part_size() / 2 AND r.until_id IS NULL AND r.after_id IS NULL, false) AS is_small,
               -- Not too many events, and not too long a time: a replay since a time begins with a tick.
               row(r.events / tasker._tick_part_size(), date_bin('10 minutes', r.at, timestamptz 'epoch')) AS place
        FROM recent AS r
    ), parted AS (
        SELECT s.*,
               (s.is_small
                AND lag(s.is_small) OVER w
                AND s.place = lag(s.place) OVER w
                AND s.first_at > lag(s.last_at) OVER w) IS NOT TRUE AS begins
        FROM sorted AS s
        WINDOW w AS (ORDER BY s.tick_id)
    ), numbered AS (
        SELECT p.*,
               count(*) FILTER (WHERE p.begins) OVER (ORDER BY p.tick_id) AS number
        FROM parted AS p
    ), joined AS (
        SELECT max(n.tick_id) AS last,
               min(n.first_at) AS first_at,
               array_agg(n.tick_id) AS members,
               range_agg(x.ids) AS ids
        FROM numbered AS n
        CROSS JOIN LATERAL unnest(n.ids) AS x (ids)
        WHERE n.is_small
        GROUP BY n.number
        HAVING count(DISTINCT n.tick_id) > 1
    ), kept AS (
        UPDATE tasker.tick AS t
        SET ids = j.ids,
            first_at = j.first_at
        FROM joined AS j
        WHERE t.tick_id = j.last
    )
    DELETE FROM tasker.tick AS t
    USING joined AS j
    WHERE t.tick_id = ANY (j.members)
      AND t.tick_id <> j.last;
$$;
COMMENT ON FUNCTION tasker._join_ticks() IS
'Joins old ticks of few events that every subscriber is past. Private.';

CREATE FUNCTION tasker._tidy_events()
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tasker._put_subscribers_to_sleep();
    PERFORM tasker._move_places();
    -- Not while prune_events() deletes ticks: nobody's events are to wait for that.
    BEGIN
        LOCK TABLE tasker.tick IN SHARE UPDATE EXCLUSIVE MODE NOWAIT;
        PERFORM tasker._join_ticks();
    EXCEPTION
        WHEN lock_not_available THEN
            NULL;
    END;
END;
$$;
COMMENT ON FUNCTION tasker._tidy_events() IS
'What the notifier does every minute in which something happens. Private.';

CREATE FUNCTION tasker._needed_tick()
RETURNS bigint
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT min(c.tick_id)
    FROM tasker.subscriber_cursor AS c
    WHERE greatest(c.fetched_at, (
              SELECT t.at
              FROM tasker.tick AS t
              WHERE t.tick_id > c.tick_id
              ORDER BY t.tick_id
              LIMIT 1)) >= tasker.clock() - current_setting('tasker.subscriber_retention')::interval;
$$;
COMMENT ON FUNCTION tasker._needed_tick() IS
'The tick that the last of the subscribers is past, leaving out those that have had something to fetch and not fetched for tasker.subscriber_retention; NULL: there is none. Private.';

CREATE FUNCTION tasker.prune_events(keep interval DEFAULT '30 days')
RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    last_tick bigint;
    last_events bigint;
    last_running bigint;
    pruned bigint;
BEGIN
    IF keep IS NULL OR keep < interval '0' THEN
        RAISE EXCEPTION USING
            ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'keep must not be negative',
            DETAIL = format('It is %s.', coalesce(keep::text, 'NULL')),
            HINT = 'Pass how long events are kept, such as ''90 days''.';
    END IF;
    LOCK TABLE tasker.tick IN SHARE UPDATE EXCLUSIVE MODE;
    PERFORM tasker._move_places();
    -- The last one stays: it is where the notifier goes on.
    SELECT t.tick_id, t.events, least(t.next_xid, (SELECT min(r.id) FROM unnest(t.running) AS r (id)))
    INTO last_tick, last_events, last_running
    FROM tasker.tick AS t
    WHERE t.at < tasker.clock() - keep
      AND t.tick_id <= coalesce(tasker._needed_tick(), t.tick_id)
      AND t.tick_id < (SELECT max(n.tick_id) FROM tasker.tick AS n)
      AND NOT isempty(t.ids)
    ORDER BY t.tick_id DESC
    LIMIT 1;
    IF last_tick IS NULL THEN
        RETURN 0;
    END IF;
    WITH place AS (
        SELECT c.subscriber_id,
               tasker._events_until(c.tick_id, c.event_at, c.event_id) AS events
        FROM tasker.subscriber_cursor AS c
        WHERE c.tick_id < last_tick
        ORDER BY c.subscriber_id
        FOR UPDATE
    )
    UPDATE tasker.subscriber_cursor AS c
    SET lost = c.lost + last_events - p.events,
        tick_id = last_tick,
        event_at = NULL,
        event_id = NULL
    FROM place AS p
    WHERE c.subscriber_id = p.subscriber_id;
    DELETE FROM tasker.subscriber_match AS m
    WHERE m.tick_id <= last_tick;
    -- Whatever began after the snapshot of that tick's oldest transaction may
    -- be in a later tick; what somebody has in hand may come again.
    DELETE FROM tasker.published_event AS e
    WHERE e.event_id < last_running << 20
      AND NOT EXISTS (
          SELECT
          FROM (
              SELECT unnest(c.row_ids) AS row_id
              FROM tasker.consumer AS c
              WHERE c.fetched_at >= tasker.clock() - current_setting('tasker.subscriber_retention')::interval
              UNION ALL
              SELECT f.row_id
              FROM tasker.subscriber_failure AS f) AS h
          WHERE h.row_id = e.event_id);
    -- That tick stays, empty: it has the number of events that came before the others.
    SELECT count(*)
    INTO pruned
    FROM tasker.tick AS t
    WHERE t.tick_id <= last_tick
      AND NOT isempty(t.ids);
    DELETE FROM tasker.tick AS t
    WHERE t.tick_id < last_tick;
    UPDATE tasker.tick AS t
    SET ids = '{}'
    WHERE t.tick_id = last_tick;
    RETURN pruned;
END;
$$;
REVOKE ALL ON FUNCTION tasker.prune_events(interval) FROM PUBLIC;
COMMENT ON FUNCTION tasker.prune_events(interval) IS
'Deletes what was told longer ago than that and every subscriber has fetched, but for those that have not fetched for tasker.subscriber_retention what was there for them: ticks, and published events. What consumers have in hand, and events at which a handler failed, stay. So does the log. For the extension''s owner. keep: how long they are kept for replays in any case. Returns the number of ticks. Raises 22023 (keep is NULL or negative), 42501 (not the owner). Source: design, contract, "Events".';
