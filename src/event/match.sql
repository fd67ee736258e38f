-- Which subscriber wants which event: found once for all of them, from sets.

CREATE FUNCTION tasker._wants_name(events text[], name text)
RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT bool_or(name = e.pattern
                   OR right(e.pattern, 1) = '*' AND starts_with(name, left(e.pattern, -1)))
    FROM unnest(events) AS e (pattern);
$$;
COMMENT ON FUNCTION tasker._wants_name(text[], text) IS
'Whether a list of names and prefixes (task.*, *) has the name in it. Private.';

CREATE FUNCTION tasker._wants_everything(subscriber tasker.subscriber)
RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT (subscriber).events = '{*}'
       AND (subscriber).filter IS NULL
       AND (subscriber).namespace IS NULL;
$$;
COMMENT ON FUNCTION tasker._wants_everything(tasker.subscriber) IS
'Whether a subscriber gets every event: such a one reads the ticks themselves. Private: without a search_path of its own, so that it is inlined.';

CREATE FUNCTION tasker._is_after_birth(row_id bigint, born_xmax bigint, born_running bigint[])
RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT born_xmax IS NULL
        OR row_id >> 20 >= born_xmax
        OR row_id >> 20 = ANY (born_running);
$$;
COMMENT ON FUNCTION tasker._is_after_birth(bigint, bigint, bigint[]) IS
'Whether the snapshot in which a subscriber was registered did not show the row. Private: without a search_path of its own, so that it is inlined.';

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
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH event AS MATERIALIZED (
        SELECT e.*
        FROM tasker._tick_event AS e
        WHERE e.tick_id BETWEEN first AND last
    ), wanted AS MATERIALIZED (
        SELECT n.name, s.subscriber_id, s.namespace, s.filter, s.probe_key, s.probe_value,
               s.filter IS NULL OR s.is_probe_all AS is_decided,
               c.born_xmax, c.born_running
        FROM (SELECT DISTINCT e.name FROM event AS e) AS n
        JOIN tasker.subscriber AS s ON tasker._wants_name(s.events, n.name)
        JOIN tasker.subscriber_cursor AS c ON c.subscriber_id = s.subscriber_id
        WHERE s.subscriber_id = ANY (subscribers)
    ), fact AS MATERIALIZED (
        SELECT f.task_id, f.namespace, f.facts
        FROM tasker._task_facts(ARRAY(
            SELECT DISTINCT e.task_id
            FROM event AS e
            WHERE e.task_id > 0
              AND EXISTS (SELECT FROM wanted AS w WHERE w.namespace IS NOT NULL OR w.filter IS NOT NULL))) AS f
    ), probe AS MATERIALIZED (
        SELECT f.task_id, k.probe_key, v.value
        FROM (SELECT DISTINCT w.probe_key FROM wanted AS w WHERE w.probe_key IS NOT NULL) AS k
        CROSS JOIN fact AS f
        CROSS JOIN LATERAL (
            SELECT f.facts -> k.probe_key AS value
            WHERE k.probe_key <> 'tags'
            UNION ALL
            SELECT t.tag
            FROM jsonb_array_elements(CASE k.probe_key WHEN 'tags' THEN f.facts -> 'tags' END) AS t (tag)) AS v
        WHERE v.value IS NOT NULL
    ), candidate AS MATERIALIZED (
        SELECT w.subscriber_id, w.filter, w.is_decided, w.namespace, e.tick_id, e.at, e.event_id, e.row_id, e.task_id, e.namespace AS own_namespace
        FROM wanted AS w
        JOIN event AS e ON e.name = w.name
        WHERE w.probe_key IS NULL
          AND tasker._is_after_birth(e.row_id, w.born_xmax, w.born_running)
        UNION ALL
        SELECT DISTINCT w.subscriber_id, w.filter, w.is_decided, w.namespace, e.tick_id, e.at, e.event_id, e.row_id, e.task_id, e.namespace
        FROM wanted AS w
        JOIN probe AS p ON p.probe_key = w.probe_key
                       AND p.value = w.probe_value
        JOIN event AS e ON e.task_id = p.task_id
                       AND e.name = w.name
        WHERE tasker._is_after_birth(e.row_id, w.born_xmax, w.born_running)
        UNION ALL
        -- What belongs to no task is found by its payload alone.
        SELECT w.subscriber_id, w.filter, false, w.namespace, e.tick_id, e.at, e.event_id, e.row_id, e.task_id, e.namespace
        FROM wanted AS w
        JOIN event AS e ON e.name = w.name
        WHERE w.probe_key IS NOT NULL
          AND e.task_id = 0
          AND tasker._is_after_birth(e.row_id, w.born_xmax, w.born_running)
    ), sifted AS MATERIALIZED (
        SELECT c.subscriber_id, c.tick_id, c.at, c.event_id, c.row_id, c.task_id, c.filter,
               c.is_decided OR coalesce(f.facts @> c.filter, false) AS is_decided
        FROM candidate AS c
        LEFT JOIN fact AS f ON f.task_id = c.task_id
        WHERE c.namespace IS NULL
           OR c.namespace = coalesce(c.own_namespace, f.namespace)
    ), told AS MATERIALIZED (
        SELECT d.event_id, d.payload
        FROM (
            SELECT array_agg(u.event_id) AS event_ids, array_agg(u.row_id) AS row_ids
            FROM (SELECT DISTINCT s.event_id, s.row_id FROM sifted AS s WHERE NOT s.is_decided) AS u) AS a
        CROSS JOIN LATERAL tasker._events(a.event_ids, a.row_ids) AS d
        WHERE a.event_ids IS NOT NULL
    )
    SELECT s.subscriber_id, s.tick_id, s.at, s.event_id, s.row_id, s.task_id
    FROM sifted AS s
    LEFT JOIN told AS t ON t.event_id = s.event_id
    WHERE s.is_decided
       OR t.payload @> s.filter;
END;
$$;
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
    IF NOT EXISTS (SELECT FROM tasker.subscriber AS s WHERE NOT tasker._wants_everything(s)) THEN
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
          AND NOT tasker._wants_everything(s)
          AND (n.tick_id >= first - 1
               OR n.fetched_at > tasker.clock() - tasker._subscriber_sleeps_after())
        ORDER BY n.subscriber_id
        FOR UPDATE OF n SKIP LOCKED);
    matched := ARRAY(
        SELECT c.subscriber_id
        FROM tasker.subscriber_cursor AS c
        WHERE c.matched_from IS NOT NULL);
    INSERT INTO tasker.subscriber_match (subscriber_id, tick_id, event_ids, row_ids)
    SELECT m.subscriber_id, m.tick_id,
           array_agg(m.event_id ORDER BY m.at, m.event_id),
           array_agg(m.row_id ORDER BY m.at, m.event_id)
    FROM tasker._match(first, last, matched) AS m
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
