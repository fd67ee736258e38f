-- Totals of the log: how often each step of each plan went from which state to
-- which, and how long that took.  What is counted here and what the log holds
-- behind it are together exact in every snapshot: so reading them writes
-- nothing, works on a standby, and costs what was not counted yet, never what
-- is finished.  The notifier counts, behind its rounds.

CREATE TABLE tasker.metric_total (
    plan_id integer NOT NULL,
    step_no smallint NOT NULL,
    from_state smallint NOT NULL,
    to_state smallint NOT NULL,
    bucket smallint NOT NULL,
    moves bigint NOT NULL,
    microseconds bigint NOT NULL,
    PRIMARY KEY (plan_id, step_no, from_state, to_state, bucket)
) WITH (fillfactor = 50);
COMMENT ON TABLE tasker.metric_total IS 'State changes counted so far, of the transactions that tasker.metric_cursor is past. People call tasker.metrics().';
COMMENT ON COLUMN tasker.metric_total.plan_id IS 'Plan of the tasks.';
COMMENT ON COLUMN tasker.metric_total.step_no IS 'Step; 0 for changes of the task itself.';
COMMENT ON COLUMN tasker.metric_total.from_state IS 'Code of the state before; -1: it came into being.';
COMMENT ON COLUMN tasker.metric_total.to_state IS 'Code of the state after.';
COMMENT ON COLUMN tasker.metric_total.bucket IS 'Of what left in_progress: how many of the bounds of durations are below the time it was there; -1 for other changes.';
COMMENT ON COLUMN tasker.metric_total.moves IS 'Number of changes.';
COMMENT ON COLUMN tasker.metric_total.microseconds IS 'Time in in_progress of all of them together. Whole numbers, whose sum does not depend on the order: a counter must not fall.';

CREATE TABLE tasker.metric_cursor (
    "only" boolean PRIMARY KEY DEFAULT true CHECK ("only"),
    tick_id bigint NOT NULL,
    next_xid bigint NOT NULL,
    running bigint[] NOT NULL,
    events bigint NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE tasker.metric_cursor IS 'One row: how far tasker.metric_total has come, as the snapshot of a tick. No row: nothing was counted yet.';
COMMENT ON COLUMN tasker.metric_cursor."only" IS 'Key of the only row.';
COMMENT ON COLUMN tasker.metric_cursor.tick_id IS 'Last tick that is counted.';
COMMENT ON COLUMN tasker.metric_cursor.next_xid IS 'As in tasker.tick: what is below was counted ...';
COMMENT ON COLUMN tasker.metric_cursor.running IS '... but for these transactions.';
COMMENT ON COLUMN tasker.metric_cursor.events IS 'As in tasker.tick: number of events up to there.';

SELECT pg_catalog.pg_extension_config_dump('tasker.metric_total', '');
SELECT pg_catalog.pg_extension_config_dump('tasker.metric_cursor', '');

CREATE FUNCTION tasker._duration_bounds()
RETURNS double precision[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT '{0.001,0.005,0.01,0.025,0.05,0.1,0.25,0.5,1,2.5,5,10,30,60,300,1800,3600}'::double precision[] $$;
COMMENT ON FUNCTION tasker._duration_bounds() IS
'Upper bounds, in seconds, of the buckets that durations are counted in. tasker.metric_total holds numbers of them: never change one. Private.';

CREATE FUNCTION tasker._ids_behind(next_xid bigint, running bigint[])
RETURNS int8multirange
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT range_agg(r.ids)
    FROM (
        SELECT int8range(next_xid << 20, NULL) AS ids
        UNION ALL
        SELECT int8range(x.xid << 20, (x.xid + 1) << 20)
        FROM unnest(running) AS x (xid)) AS r;
$$;
COMMENT ON FUNCTION tasker._ids_behind(bigint, bigint[]) IS
'Ids of the log that the snapshot of a tick did not show. Private.';

CREATE FUNCTION tasker._uncounted_ids()
RETURNS int8multirange
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(
        (SELECT tasker._ids_behind(c.next_xid, c.running) FROM tasker.metric_cursor AS c),
        tasker._ids_behind(0, '{}'));
$$;
COMMENT ON FUNCTION tasker._uncounted_ids() IS
'Ids of the log that are not in tasker.metric_total. Private.';

-- What a tick showed had happened by then; so what happened later is behind it,
-- whichever transactions wrote it.  The seconds are for a clock that was set back.
CREATE FUNCTION tasker._ids_since(since timestamptz)
RETURNS int8multirange
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
    SELECT coalesce(
        (SELECT tasker._ids_behind(t.next_xid, t.running)
         FROM tasker.tick AS t
         WHERE t.at <= since - interval '10 s'
         ORDER BY t.at DESC, t.tick_id DESC
         LIMIT 1),
        tasker._ids_behind(0, '{}'));
$$;
COMMENT ON FUNCTION tasker._ids_since(timestamptz) IS
'Ids of the log among which all is that happened since then. Private.';

-- By the keys only, whatever the statistics say; OFFSET 0 keeps each look-up as
-- it stands.
CREATE FUNCTION tasker._count_moves(ids int8multirange)
RETURNS SETOF tasker.metric_total
LANGUAGE plpgsql STABLE ROWS 100
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    -- Turned round, so that a duration that equals a bound is below it.
    bounds constant double precision[] := ARRAY(SELECT -b.bound FROM unnest(tasker._duration_bounds()) AS b (bound) ORDER BY 1);
    count constant integer := cardinality(bounds);
BEGIN
    RETURN QUERY
    WITH row AS (
        SELECT t.plan_id, l.step_no, l.from_state, l.to_state, l.is_start_too, l.seconds,
               CASE WHEN l.seconds IS NULL THEN -1 ELSE count - width_bucket(-l.seconds, bounds) END AS bucket
        FROM unnest(ids) AS r (ids)
        CROSS JOIN LATERAL (
            SELECT l.task_id,
                   l.step_no,
                   coalesce(l.from_state, -1::smallint) AS from_state,
                   l.to_state,
                   l.start_id IS NOT NULL AS is_start_too,
                   -- It needs no numeric, as extract() does.
                   date_part('epoch', CASE WHEN l.start_at > l.at THEN interval '0' ELSE l.at - l.start_at END) AS seconds
            FROM tasker.log AS l
            WHERE l.id >= lower(r.ids)
              AND l.id < coalesce(upper(r.ids), 9223372036854775807)
            OFFSET 0) AS l
        CROSS JOIN LATERAL (
            SELECT t.plan_id
            FROM tasker.task AS t
            WHERE t.task_id = l.task_id
            OFFSET 0) AS t
        OFFSET 0
    ), counted AS (
        SELECT r.plan_id, r.step_no, r.from_state, r.to_state, r.is_start_too, r.bucket,
               count(*) AS moves,
               coalesce(sum(round(r.seconds * 1000000)::bigint), 0)::bigint AS microseconds
        FROM row AS r
        GROUP BY 1, 2, 3, 4, 5, 6
    ), part AS (
        SELECT c.plan_id, c.step_no,
               CASE WHEN c.is_start_too THEN 1::smallint ELSE c.from_state END AS from_state,
               c.to_state, c.bucket, c.moves, c.microseconds
        FROM counted AS c
        UNION ALL
        SELECT c.plan_id, c.step_no, c.from_state, 1::smallint, -1, c.moves, 0
        FROM counted AS c
        WHERE c.is_start_too
    )
    SELECT p.plan_id, p.step_no, p.from_state, p.to_state, p.bucket::smallint, sum(p.moves)::bigint, sum(p.microseconds)::bigint
    FROM part AS p
    GROUP BY 1, 2, 3, 4, 5;
END;
$$;
COMMENT ON FUNCTION tasker._count_moves(int8multirange) IS
'Counts the state changes in the rows of the log with these ids, as tasker.metric_total does. Private.';

CREATE FUNCTION tasker._move_totals()
RETURNS SETOF tasker.metric_total
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT t.*
    FROM tasker.metric_total AS t
    UNION ALL
    SELECT t.*
    FROM tasker._count_moves(tasker._uncounted_ids()) AS t;
$$;
COMMENT ON FUNCTION tasker._move_totals() IS
'All state changes there were, as the snapshot of the caller has it; two rows where one part is counted in tasker.metric_total and one is not. Private.';

CREATE FUNCTION tasker._states_now()
RETURNS TABLE (plan_id integer, machine text, state smallint, count bigint)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH move AS MATERIALIZED (
        SELECT t.plan_id,
               CASE WHEN t.step_no = 0 THEN 'task' ELSE 'step' END AS machine,
               t.from_state,
               t.to_state,
               sum(t.moves) AS moves
        FROM tasker._move_totals() AS t
        GROUP BY 1, 2, 3, 4
    ), change AS (
        SELECT m.plan_id, m.machine, m.to_state AS state, m.moves
        FROM move AS m
        UNION ALL
        SELECT m.plan_id, m.machine, m.from_state, -m.moves
        FROM move AS m
        WHERE m.from_state >= 0
        UNION ALL
        -- Steps come into being with their task, and nothing is written of that.
        SELECT m.plan_id, 'step', 0::smallint, m.moves * p.step_count
        FROM move AS m
        JOIN tasker.plan AS p ON p.plan_id = m.plan_id
        WHERE m.machine = 'task'
          AND m.from_state = -1
    )
    SELECT c.plan_id, c.machine, c.state, sum(c.moves)::bigint
    FROM change AS c
    GROUP BY 1, 2, 3;
$$;
COMMENT ON FUNCTION tasker._states_now() IS
'How many tasks and steps of each plan are in each state: what came into it less what left it. Private.';

CREATE FUNCTION tasker._fold_metrics(at_least bigint DEFAULT 10000, at_most bigint DEFAULT 20000)
RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    place tasker.metric_cursor;
    target tasker.metric_cursor;
    told bigint;
    new_ids int8multirange;
BEGIN
    SELECT t.events
    INTO told
    FROM tasker.tick AS t
    ORDER BY t.tick_id DESC
    LIMIT 1;
    IF NOT FOUND OR told - coalesce((SELECT c.events FROM tasker.metric_cursor AS c), 0) < at_least THEN
        RETURN 0;
    END IF;
    -- Not before: a database that data is restored into must not have one.
    INSERT INTO tasker.metric_cursor (tick_id, next_xid, running, events)
    VALUES (0, 0, '{}', 0)
    ON CONFLICT ("only") DO NOTHING;
    SELECT c.*
    INTO place
    FROM tasker.metric_cursor AS c
    FOR UPDATE;
    IF told - place.events < at_least THEN
        RETURN 0;
    END IF;

    SELECT n.tick_id, n.next_xid, n.running
    INTO target.tick_id, target.next_xid, target.running
    FROM (
        SELECT t.tick_id, t.next_xid, t.running, t.events, row_number() OVER (ORDER BY t.tick_id) AS number
        FROM tasker.tick AS t
        WHERE t.tick_id > place.tick_id
        ORDER BY t.tick_id
        LIMIT 1000) AS n
    WHERE n.number = 1
       OR n.events <= place.events + at_most
    ORDER BY n.tick_id DESC
    LIMIT 1;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    -- The parts of a tick have one snapshot.
    SELECT max(t.tick_id), max(t.events)
    INTO target.tick_id, target.events
    FROM tasker.tick AS t
    WHERE t.next_xid = target.next_xid
      AND t.running = target.running;

    SELECT coalesce(range_agg(b.ids), '{}') * int8multirange(int8range(NULL, target.next_xid << 20))
    INTO new_ids
    FROM unnest(tasker._ids_behind(place.next_xid, place.running)) AS b (ids);
    new_ids := new_ids - (
        SELECT coalesce(range_agg(int8range(x.xid << 20, (x.xid + 1) << 20)), '{}')
        FROM unnest(target.running) AS x (xid));

    INSERT INTO tasker.metric_total AS m (plan_id, step_no, from_state, to_state, bucket, moves, microseconds)
    SELECT n.plan_id, n.step_no, n.from_state, n.to_state, n.bucket, n.moves, n.microseconds
    FROM tasker._count_moves(new_ids) AS n
    ON CONFLICT (plan_id, step_no, from_state, to_state, bucket) DO UPDATE
    SET moves = m.moves + EXCLUDED.moves,
        microseconds = m.microseconds + EXCLUDED.microseconds;
    UPDATE tasker.metric_cursor AS c
    SET tick_id = target.tick_id,
        next_xid = target.next_xid,
        running = target.running,
        events = target.events;
    RETURN told - target.events;
END;
$$;
COMMENT ON FUNCTION tasker._fold_metrics(bigint, bigint) IS
'Counts what ticks have shown since the last time into tasker.metric_total, where that are at least so many events, up to at most so many but one tick in any case. Returns how many are left; 0 also where there are too few. Private.';
