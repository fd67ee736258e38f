-- Which subscriber wants which event: found once for all of them, from sets.

-- A filter is looked up by what its task is, where it asks for that: one
-- equality finds the few subscribers that want a task among many.
CREATE FUNCTION tasker._filter_probe(filter jsonb, OUT key text, OUT value jsonb, OUT is_all boolean)
RETURNS record
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT f.key,
           CASE f.key WHEN 'tags' THEN f.value -> 0 ELSE f.value END,
           f.key IS NOT NULL
           AND (SELECT count(*) FROM jsonb_object_keys(filter)) = 1
           AND (f.key <> 'tags' OR jsonb_array_length(f.value) = 1)
    FROM (VALUES (true)) AS one
    LEFT JOIN LATERAL (
        SELECT k.key, filter -> k.key AS value
        FROM unnest('{task_id,correlation_id,tags,task_name,initiator,source_system,environment,version,namespace}'::text[])
             WITH ORDINALITY AS k (key, place)
        WHERE CASE
                  WHEN k.key = 'tags' THEN CASE jsonb_typeof(filter -> 'tags') WHEN 'array' THEN jsonb_typeof(filter -> 'tags' -> 0) = 'string' END
                  ELSE jsonb_typeof(filter -> k.key) IN ('string', 'number')
              END
        ORDER BY k.place
        LIMIT 1) AS f ON true;
$$;
COMMENT ON FUNCTION tasker._filter_probe(jsonb) IS
'Key and value of a filter by which tasks are looked up: of those that every event of a task carries, the most telling; NULL: it has none. is_all: the filter asks for nothing else. Private.';

CREATE FUNCTION tasker._match(first bigint, last bigint, subscribers integer[])
RETURNS TABLE (subscriber_id integer, tick_id bigint, at timestamptz, event_id bigint, row_id bigint, task_id bigint)
LANGUAGE C VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET max_parallel_workers_per_gather = 0
SET jit = off
AS 'MODULE_PATHNAME', 'tasker_match';
COMMENT ON FUNCTION tasker._match(bigint, bigint, integer[]) IS
'The events of ticks first to last that each of these subscribers wants, in no order. Private.';

CREATE FUNCTION tasker._match_new(first bigint, last bigint)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    matched integer[];
BEGIN
    IF NOT EXISTS (SELECT FROM tasker.subscriber AS s WHERE NOT s.wants_everything) THEN
        RETURN;
    END IF;
    -- From now on for those that are new or awake again; who holds its place at
    -- this moment is asked again at the next tick.
    UPDATE tasker.subscriber_cursor AS c
    SET matched_from = first - 1
    WHERE c.subscriber_id IN (
        SELECT n.subscriber_id
        FROM tasker.subscriber_cursor AS n
        JOIN tasker.subscriber AS s ON s.subscriber_id = n.subscriber_id
        WHERE n.matched_from IS NULL
          AND NOT s.wants_everything
          AND (n.tick_id >= first - 1
               OR n.fetched_at > tasker.clock() - tasker._subscriber_sleeps_after())
        ORDER BY n.subscriber_id
        FOR UPDATE OF n SKIP LOCKED);
    matched := ARRAY(
        SELECT c.subscriber_id
        FROM tasker.subscriber_cursor AS c
        WHERE c.matched_from IS NOT NULL);
    INSERT INTO tasker.subscriber_match (subscriber_id, tick_id, event_ids, row_ids, task_ids)
    SELECT m.subscriber_id, m.tick_id,
           array_agg(m.event_id),
           array_agg(m.row_id),
           array_agg(m.task_id)
    FROM (
        -- Sorted once for the three.
        SELECT n.*
        FROM tasker._match(first, last, matched) AS n
        ORDER BY n.subscriber_id, n.tick_id, n.at, n.event_id) AS m
    GROUP BY m.subscriber_id, m.tick_id;
END;
$$;
COMMENT ON FUNCTION tasker._match_new(bigint, bigint) IS
'Notes, for new ticks first to last, who wants which of their events. Private.';

CREATE FUNCTION tasker._subscriber_sleeps_after()
RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT interval '10 minutes' $$;
COMMENT ON FUNCTION tasker._subscriber_sleeps_after() IS
'After that time without a fetch nothing is noted for a subscriber any more; when it comes back, its events are found as it fetches. Private.';

CREATE FUNCTION tasker._put_subscribers_to_sleep()
RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH asleep AS (
        UPDATE tasker.subscriber_cursor AS c
        SET matched_from = NULL
        WHERE c.subscriber_id IN (
            SELECT n.subscriber_id
            FROM tasker.subscriber_cursor AS n
            WHERE n.matched_from IS NOT NULL
              AND n.fetched_at <= tasker.clock() - tasker._subscriber_sleeps_after()
              AND EXISTS (SELECT FROM tasker.subscriber_match AS m WHERE m.subscriber_id = n.subscriber_id)
            ORDER BY n.subscriber_id
            FOR UPDATE SKIP LOCKED)
        RETURNING c.subscriber_id
    )
    DELETE FROM tasker.subscriber_match AS m
    USING asleep AS a
    WHERE m.subscriber_id = a.subscriber_id;
$$;
COMMENT ON FUNCTION tasker._put_subscribers_to_sleep() IS
'Forgets what is noted for subscribers that have not fetched for long; they lose nothing by it. Private.';

-- A subscriber of whom it is noted what it wants need not fetch to be past what
-- it does not want: nothing is kept for it, and nothing that goes is lost to it.
CREATE FUNCTION tasker._move_places()
RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH place AS (
        SELECT n.subscriber_id, p.tick_id
        FROM tasker.subscriber_cursor AS n
        CROSS JOIN LATERAL (
            SELECT coalesce((
                       SELECT min(m.tick_id) - 1
                       FROM tasker.subscriber_match AS m
                       WHERE m.subscriber_id = n.subscriber_id
                         AND m.tick_id > n.tick_id
                         -- It has had all of that tick.
                         AND (m.tick_id = n.tick_id + 1 AND m.event_ids[cardinality(m.event_ids)] = n.event_id) IS NOT TRUE),
                       (SELECT max(t.tick_id) FROM tasker.tick AS t)) AS tick_id) AS p
        WHERE n.tick_id >= n.matched_from
          AND n.tick_id < p.tick_id
        ORDER BY n.subscriber_id
        FOR UPDATE OF n SKIP LOCKED
    ), moved AS (
        UPDATE tasker.subscriber_cursor AS c
        SET tick_id = p.tick_id,
            event_at = NULL,
            event_id = NULL
        FROM place AS p
        WHERE c.subscriber_id = p.subscriber_id
        RETURNING c.subscriber_id, c.tick_id
    )
    DELETE FROM tasker.subscriber_match AS m
    USING moved AS c
    WHERE m.subscriber_id = c.subscriber_id
      AND m.tick_id <= c.tick_id;
$$;
COMMENT ON FUNCTION tasker._move_places() IS
'Moves the places of subscribers up to the first tick that has something for them. Private.';
