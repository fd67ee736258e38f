-- Handing events out: in order, to one consumer or to several that share them.

CREATE FUNCTION tasker._next_events(
    subscriber_id integer,
    max_events integer,
    OUT event_ids bigint[],
    OUT row_ids bigint[],
    OUT task_ids bigint[])
RETURNS record
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET max_parallel_workers_per_gather = 0
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    s tasker.subscriber;
    c tasker.subscriber_cursor;
    last_tick bigint;
    until_tick bigint;
    told bigint;
    pass record;
    wanted integer;
    started constant timestamptz := clock_timestamp();
    old_tick bigint;
BEGIN
    event_ids := '{}';
    row_ids := '{}';
    task_ids := '{}';
    SELECT n.*
    INTO c
    FROM tasker.subscriber_cursor AS n
    WHERE n.subscriber_id = _next_events.subscriber_id
    FOR UPDATE;
    SELECT n.*
    INTO s
    FROM tasker.subscriber AS n
    WHERE n.subscriber_id = _next_events.subscriber_id;
    SELECT t.tick_id
    INTO last_tick
    FROM tasker.tick AS t
    ORDER BY t.tick_id DESC
    LIMIT 1;
    old_tick := c.tick_id;
    WHILE c.tick_id < last_tick LOOP
        wanted := max_events - cardinality(event_ids);
        -- A search among much that is not wanted ends with what it has found.
        EXIT WHEN wanted <= 0
               OR event_ids <> '{}' AND clock_timestamp() > started + interval '10 ms';
        IF c.tick_id >= c.matched_from THEN
            until_tick := last_tick;
            SELECT array_agg(e.event_id) AS event_ids,
                   array_agg(e.row_id) AS row_ids,
                   array_agg(e.task_id) AS task_ids,
                   count(*) AS found,
                   max(e.tick_id) AS tick_id,
                   NULL::timestamptz AS at
            INTO pass
            FROM (
                SELECT m.tick_id, x.event_id, x.row_id, x.task_id
                FROM tasker.subscriber_match AS m
                CROSS JOIN LATERAL (
                    SELECT CASE WHEN c.event_id IS NOT NULL AND m.tick_id = c.tick_id + 1
                                THEN coalesce(array_position(m.event_ids, c.event_id), 0)
                                ELSE 0 END AS done
                    OFFSET 0) AS p
                CROSS JOIN LATERAL unnest(
                        m.event_ids[p.done + 1:p.done + wanted],
                        m.row_ids[p.done + 1:p.done + wanted],
                        m.task_ids[p.done + 1:p.done + wanted])
                    WITH ORDINALITY AS x (event_id, row_id, task_id, n)
                WHERE m.subscriber_id = s.subscriber_id
                  AND m.tick_id > c.tick_id
                  AND m.tick_id <= until_tick
                ORDER BY m.tick_id, x.n
                LIMIT wanted) AS e;
            -- The place is an event in the middle of a tick.
            IF pass.found = wanted THEN
                pass.at := (
                    SELECT o.occurred_at
                    FROM tasker._events(pass.event_ids[wanted:], pass.row_ids[wanted:]) AS o);
            END IF;
        ELSE
            told := coalesce((
                SELECT t.events
                FROM tasker.tick AS t
                WHERE t.tick_id <= c.tick_id
                ORDER BY t.tick_id DESC
                LIMIT 1), 0);
            SELECT max(t.tick_id)
            INTO until_tick
            FROM (
                SELECT n.tick_id, coalesce(lag(n.events) OVER (ORDER BY n.tick_id), 0) - told AS passed
                FROM tasker.tick AS n
                WHERE n.tick_id > c.tick_id
                  AND n.tick_id <= least(c.matched_from, last_tick)
                ORDER BY n.tick_id
                LIMIT 500) AS t
            WHERE t.passed < CASE WHEN s.wants_everything THEN wanted ELSE tasker._tick_part_size() END;
            -- There is no tick left of those before it was matched.
            until_tick := coalesce(until_tick, least(c.matched_from, last_tick));
            IF s.wants_everything THEN
                SELECT array_agg(e.event_id) AS event_ids,
                       array_agg(e.row_id) AS row_ids,
                       array_agg(e.task_id) AS task_ids,
                       count(*) AS found,
                       max(e.tick_id) AS tick_id,
                       (array_agg(e.at))[count(*)] AS at
                INTO pass
                FROM (
                    SELECT n.tick_id, n.at, n.event_id, n.row_id, n.task_id
                    FROM tasker._tick_event AS n
                    WHERE n.tick_id > c.tick_id
                      AND n.tick_id <= until_tick
                      AND (c.event_id IS NULL
                           OR n.tick_id > c.tick_id + 1
                           OR (n.at, n.event_id) > (c.event_at, c.event_id))
                      AND (c.born_xmax IS NULL
                           OR n.row_id >> 20 >= c.born_xmax
                           OR n.row_id >> 20 = ANY (c.born_running))
                    ORDER BY n.tick_id, n.at, n.event_id
                    LIMIT wanted) AS e;
            ELSE
                SELECT array_agg(e.event_id) AS event_ids,
                       array_agg(e.row_id) AS row_ids,
                       array_agg(e.task_id) AS task_ids,
                       count(*) AS found,
                       max(e.tick_id) AS tick_id,
                       (array_agg(e.at))[count(*)] AS at
                INTO pass
                FROM (
                    SELECT n.tick_id, n.at, n.event_id, n.row_id, n.task_id
                    FROM tasker._match(c.tick_id + 1, until_tick, ARRAY[s.subscriber_id]) AS n
                    WHERE c.event_id IS NULL
                       OR n.tick_id > c.tick_id + 1
                       OR (n.at, n.event_id) > (c.event_at, c.event_id)
                    ORDER BY n.tick_id, n.at, n.event_id
                    LIMIT wanted) AS e;
            END IF;
        END IF;
        -- They were put together in the order of the rows below them.
        event_ids := event_ids || pass.event_ids;
        row_ids := row_ids || pass.row_ids;
        task_ids := task_ids || pass.task_ids;
        IF pass.found = wanted THEN
            c.tick_id := pass.tick_id - 1;
            c.event_at := pass.at;
            c.event_id := pass.event_ids[pass.found];
        ELSE
            c.tick_id := until_tick;
            c.event_at := NULL;
            c.event_id := NULL;
        END IF;
    END LOOP;
    -- Without a find the place is worth a write now and then.
    IF event_ids <> '{}' OR c.tick_id > old_tick + 1000 THEN
        UPDATE tasker.subscriber_cursor AS n
        SET tick_id = c.tick_id,
            event_at = c.event_at,
            event_id = c.event_id,
            fetched_at = tasker.clock(),
            delivered = n.delivered + cardinality(event_ids)
        WHERE n.subscriber_id = s.subscriber_id;
        DELETE FROM tasker.subscriber_match AS m
        WHERE m.subscriber_id = s.subscriber_id
          AND m.tick_id <= c.tick_id;
    END IF;
END;
$$;
COMMENT ON FUNCTION tasker._next_events(integer, integer) IS
'Hands out the next events of a subscriber, in order, and moves its place behind them in this transaction; a task_id of 0: none. Empty: there are none. Private.';

CREATE FUNCTION tasker._wait_for_round()
RETURNS boolean
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_wait_for_round';
COMMENT ON FUNCTION tasker._wait_for_round() IS
'Has the notifier make a tick of what has been committed, and waits for that, two seconds at most; for the notifier, too, where there is none yet. Returns whether there was anything to wait for. Private.';

CREATE FUNCTION tasker._wait_for_tick(after bigint, until timestamptz)
RETURNS boolean
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_wait_for_tick';
COMMENT ON FUNCTION tasker._wait_for_tick(bigint, timestamptz) IS
'Sleeps until there is a tick after that one, or until that time of the wall clock. Returns whether there is one. Private.';

CREATE FUNCTION tasker._knows_subscriber(run_as text, role text)
RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN NOT tasker._is_enforced()
        OR tasker._is_administrator()
        OR (to_regrole(quote_ident(run_as)) IS NOT NULL AND pg_has_role(role::name, run_as::name, 'MEMBER'));
END;
$$;
COMMENT ON FUNCTION tasker._knows_subscriber(text, text) IS
'Whether a role may know of what another has subscribed to. Private.';

CREATE FUNCTION tasker._find_subscriber(subscriber text, caller text)
RETURNS tasker.subscriber
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    target tasker.subscriber;
BEGIN
    SELECT s.*
    INTO target
    FROM tasker.subscriber AS s
    WHERE s.name = subscriber
      AND tasker._knows_subscriber(s.run_as, caller);
    IF NOT FOUND THEN
        RAISE EXCEPTION USING
            ERRCODE = 'TK007',
            MESSAGE = format('there is no subscriber %s', coalesce('"' || left(subscriber, 200) || '"', 'NULL')),
            DETAIL = 'Nobody has subscribed under that name.',
            HINT = coalesce(tasker._did_you_mean(subscriber, ARRAY(
                                SELECT s.name
                                FROM tasker.subscriber AS s
                                WHERE tasker._knows_subscriber(s.run_as, caller))),
                            'tasker.subscribe() makes one; the view tasker.subscribers shows them.');
    END IF;
    PERFORM tasker._check_owner(format('subscriber "%s"', target.name), target.run_as, caller);
    RETURN target;
END;
$$;
COMMENT ON FUNCTION tasker._find_subscriber(text, text) IS
'The subscriber of that name. Raises TK007 where there is none, TK009 where it belongs to a role that the caller is no member of. Private.';

CREATE FUNCTION tasker._check_fetched_here(target tasker.subscriber)
RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF (target).handler IS NOT NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'TK009',
            MESSAGE = format('events of subscriber "%s" cannot be fetched', (target).name),
            DETAIL = format('Its handler %s gets them.', (target).handler),
            HINT = 'Subscribe under another name, without a handler.';
    END IF;
END;
$$;
COMMENT ON FUNCTION tasker._check_fetched_here(tasker.subscriber) IS
'Raises TK009 for a subscriber whose events go to an SQL handler. Private.';

CREATE FUNCTION tasker._consumer_name(consumer text)
RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF length(consumer) > 200 THEN
        RAISE EXCEPTION USING
            ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'the consumer''s name is too long',
            DETAIL = format('It has %s characters.', length(consumer)),
            HINT = 'A name has at most 200 characters.';
    END IF;
    RETURN coalesce(consumer, '');
END;
$$;
COMMENT ON FUNCTION tasker._consumer_name(text) IS
'What a consumer is stored as: the empty name where none is given. Raises 22023 where it is too long. Private.';

-- Events that others of the group are to get, because they have events of the
-- same task that they have not acknowledged: they get them behind those.
CREATE FUNCTION tasker._give_to_holders(for_subscriber integer, for_consumer text, given_event_ids bigint[], given_row_ids bigint[], given_task_ids bigint[])
RETURNS TABLE (event_ids bigint[], row_ids bigint[], task_ids bigint[])
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    IF NOT EXISTS (
        SELECT
        FROM tasker.consumer AS c
        WHERE c.subscriber_id = for_subscriber
          AND c.name <> for_consumer
          AND c.event_ids <> '{}')
    THEN
        RETURN QUERY SELECT given_event_ids, given_row_ids, given_task_ids;
        RETURN;
    END IF;
    RETURN QUERY
    WITH given AS (
        SELECT g.*
        FROM unnest(given_event_ids, given_row_ids, given_task_ids) WITH ORDINALITY AS g (event_id, row_id, task_id, n)
    ), holder AS (
        SELECT DISTINCT ON (h.task_id) h.task_id, c.name
        FROM tasker.consumer AS c
        CROSS JOIN LATERAL unnest(c.task_ids) AS h (task_id)
        WHERE c.subscriber_id = for_subscriber
          AND c.name <> for_consumer
          AND h.task_id <> 0
    ), share AS (
        SELECT h.name,
               array_agg(g.event_id ORDER BY g.n) AS event_ids,
               array_agg(g.row_id ORDER BY g.n) AS row_ids,
               array_agg(g.task_id ORDER BY g.n) AS task_ids
        FROM given AS g
        LEFT JOIN holder AS h ON h.task_id = g.task_id
        GROUP BY h.name
    ), passed_on AS (
        UPDATE tasker.consumer AS c
        SET event_ids = c.event_ids || s.event_ids,
            row_ids = c.row_ids || s.row_ids,
            task_ids = c.task_ids || s.task_ids
        FROM share AS s
        WHERE c.subscriber_id = for_subscriber
          AND c.name = s.name
    )
    SELECT coalesce(s.event_ids, '{}'), coalesce(s.row_ids, '{}'), coalesce(s.task_ids, '{}')
    FROM (VALUES (true)) AS one
    LEFT JOIN share AS s ON s.name IS NULL;
END;
$$;
COMMENT ON FUNCTION tasker._give_to_holders(integer, text, bigint[], bigint[], bigint[]) IS
'Of events that were just handed out, gives those to other consumers whose task they hold, and returns the rest. Private.';

-- What a consumer has in hand: what it had, what it takes over from those that
-- are gone, and new events.  The place of the subscriber is locked first, here
-- and in ack_events(), so that they can't wait for each other.
CREATE FUNCTION tasker._fill_hand(of_subscriber tasker.subscriber, of_consumer text, max_events integer)
RETURNS tasker.consumer
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    hand tasker.consumer;
    given record;
    missing integer;
BEGIN
    PERFORM
    FROM tasker.subscriber_cursor AS c
    WHERE c.subscriber_id = (of_subscriber).subscriber_id
    FOR UPDATE;
    WITH gone AS (
        DELETE FROM tasker.consumer AS c
        WHERE c.subscriber_id = (of_subscriber).subscriber_id
          AND c.name <> of_consumer
          AND c.fetched_at < tasker.clock() - current_setting('tasker.consumer_timeout')::interval
        RETURNING c.*
    ), held AS (
        SELECT h.event_id, h.row_id, h.task_id, g.fetched_at, h.n
        FROM gone AS g
        CROSS JOIN LATERAL unnest(g.event_ids, g.row_ids, g.task_ids) WITH ORDINALITY AS h (event_id, row_id, task_id, n)
    )
    SELECT coalesce(array_agg(h.event_id ORDER BY h.fetched_at, h.n), '{}') AS event_ids,
           coalesce(array_agg(h.row_id ORDER BY h.fetched_at, h.n), '{}') AS row_ids,
           coalesce(array_agg(h.task_id ORDER BY h.fetched_at, h.n), '{}') AS task_ids
    INTO given
    FROM held AS h;
    SELECT c.*
    INTO hand
    FROM tasker.consumer AS c
    WHERE c.subscriber_id = (of_subscriber).subscriber_id
      AND c.name = of_consumer
    FOR UPDATE;
    hand.event_ids := given.event_ids || coalesce(hand.event_ids, '{}');
    hand.row_ids := given.row_ids || coalesce(hand.row_ids, '{}');
    hand.task_ids := given.task_ids || coalesce(hand.task_ids, '{}');
    -- Again where others got all of it.
    LOOP
        missing := max_events - cardinality(hand.event_ids);
        EXIT WHEN missing <= 0;
        SELECT n.*
        INTO given
        FROM tasker._next_events((of_subscriber).subscriber_id, missing) AS n;
        EXIT WHEN given.event_ids = '{}';
        SELECT g.*
        INTO given
        FROM tasker._give_to_holders((of_subscriber).subscriber_id, of_consumer, given.event_ids, given.row_ids, given.task_ids) AS g;
        hand.event_ids := hand.event_ids || given.event_ids;
        hand.row_ids := hand.row_ids || given.row_ids;
        hand.task_ids := hand.task_ids || given.task_ids;
        EXIT WHEN hand.event_ids <> '{}';
    END LOOP;
    IF hand.event_ids = '{}' THEN
        RETURN hand;
    END IF;
    INSERT INTO tasker.consumer AS c (subscriber_id, name, event_ids, row_ids, task_ids, fetched_at)
    VALUES ((of_subscriber).subscriber_id, of_consumer, hand.event_ids, hand.row_ids, hand.task_ids, tasker.clock())
    ON CONFLICT (subscriber_id, name) DO UPDATE
    SET event_ids = excluded.event_ids,
        row_ids = excluded.row_ids,
        task_ids = excluded.task_ids,
        fetched_at = excluded.fetched_at;
    RETURN hand;
END;
$$;
COMMENT ON FUNCTION tasker._fill_hand(tasker.subscriber, text, integer) IS
'Gives a consumer up to that many events that it has not acknowledged, old ones first, and notes that it has them. Private.';

-- A subscriber that waits for rare events asks again and again, and every lock
-- would be a write.
CREATE FUNCTION tasker._may_fetch(of_subscriber integer, of_consumer text, last_tick bigint)
RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN EXISTS (
               SELECT
               FROM tasker.subscriber_cursor AS c
               WHERE c.subscriber_id = of_subscriber
                 AND c.tick_id < last_tick
                 AND ((c.tick_id >= c.matched_from) IS NOT TRUE
                      OR EXISTS (
                          SELECT
                          FROM tasker.subscriber_match AS m
                          WHERE m.subscriber_id = of_subscriber
                            AND m.tick_id > c.tick_id)))
        OR EXISTS (
               SELECT
               FROM tasker.consumer AS c
               WHERE c.subscriber_id = of_subscriber
                 AND c.event_ids <> '{}'
                 AND (c.name = of_consumer
                      OR c.fetched_at < tasker.clock() - current_setting('tasker.consumer_timeout')::interval));
END;
$$;
COMMENT ON FUNCTION tasker._may_fetch(integer, text, bigint) IS
'Whether there may be something to fetch for a consumer, up to that tick. Private.';

CREATE FUNCTION tasker._fetch_events(
    subscriber text,
    max_events integer,
    consumer text,
    wait interval,
    caller text)
RETURNS TABLE (event_id bigint, occurred_at timestamptz, name text, task_id bigint, step_id bigint, payload jsonb)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    target constant tasker.subscriber := tasker._find_subscriber(subscriber, caller);
    consumer_name constant text := tasker._consumer_name(consumer);
    until constant timestamptz := clock_timestamp() + coalesce(wait, interval '0');
    hand tasker.consumer;
    last_tick bigint;
    old_tick bigint;
    is_fresh boolean := false;
BEGIN
    hand.event_ids := '{}';
    -- What it was granted when it subscribed may have been taken back.
    PERFORM tasker._require('event:index', coalesce(target.namespace, '*'));
    PERFORM tasker._check_fetched_here(target);
    IF max_events IS NULL OR max_events NOT BETWEEN 1 AND 10000 THEN
        RAISE EXCEPTION USING
            ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'max_events must be between 1 and 10000',
            DETAIL = format('It is %s.', coalesce(max_events::text, 'NULL')),
            HINT = 'Fetch again for more.';
    END IF;
    IF wait > interval '0' AND current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION USING
            ERRCODE = 'TK009',
            MESSAGE = 'cannot wait for events here',
            DETAIL = format('Under %s nothing that happens later is seen.', upper(current_setting('transaction_isolation'))),
            HINT = 'Fetch in a READ COMMITTED transaction, or without wait.';
    END IF;
    LOOP
        last_tick := coalesce((SELECT max(t.tick_id) FROM tasker.tick AS t), 0);
        -- What is not there needs no lock to be seen.
        IF tasker._may_fetch(target.subscriber_id, consumer_name, last_tick) THEN
            BEGIN
                -- Behind what others do who are at it now.
                SELECT c.tick_id
                INTO old_tick
                FROM tasker.subscriber_cursor AS c
                WHERE c.subscriber_id = target.subscriber_id
                FOR UPDATE;
                hand := tasker._fill_hand(target, consumer_name, max_events);
                IF hand.event_ids = '{}' THEN
                    -- A long search that came to nothing is not to be made again; a
                    -- short one is, if only others got what it found.
                    IF EXISTS (
                        SELECT
                        FROM tasker.subscriber_cursor AS c
                        WHERE c.subscriber_id = target.subscriber_id
                          AND c.tick_id > old_tick + 100)
                    THEN
                        RETURN;
                    END IF;
                    RAISE EXCEPTION USING
                        ERRCODE = 'TK000',
                        MESSAGE = 'there is no event to fetch';
                END IF;
            EXCEPTION
                -- Lets go of the locks: nobody else is to wait while this waits.
                WHEN SQLSTATE 'TK000' THEN
                    NULL;
            END;
        END IF;
        IF hand.event_ids <> '{}' THEN
            RETURN QUERY
            SELECT e.event_id, e.occurred_at, e.name, e.task_id, e.step_id, e.payload
            FROM tasker._events(hand.event_ids[1:max_events], hand.row_ids[1:max_events]) AS e;
            EXIT WHEN FOUND;
            -- All of them were pruned meanwhile.
            UPDATE tasker.consumer AS c
            SET event_ids = c.event_ids[max_events + 1:],
                row_ids = c.row_ids[max_events + 1:],
                task_ids = c.task_ids[max_events + 1:]
            WHERE c.subscriber_id = target.subscriber_id
              AND c.name = consumer_name;
        ELSIF NOT is_fresh THEN
            -- What is committed and in no tick yet counts, too.
            is_fresh := true;
            PERFORM tasker._wait_for_round();
        ELSE
            EXIT WHEN clock_timestamp() >= until;
            PERFORM tasker._wait_for_tick(last_tick, until);
        END IF;
    END LOOP;
END;
$$;
COMMENT ON FUNCTION tasker._fetch_events(text, integer, text, interval, text) IS
'What tasker.fetch_events() does, for the role of its caller. Private.';

CREATE FUNCTION tasker.fetch_events(
    subscriber text,
    max_events integer DEFAULT 100,
    consumer text DEFAULT NULL,
    wait interval DEFAULT NULL)
RETURNS TABLE (event_id bigint, occurred_at timestamptz, name text, task_id bigint, step_id bigint, payload jsonb)
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.fetch_events(text, integer, text, interval) IS
'Returns the subscriber''s next events in their order: everything that was committed after it subscribed, at least once, in order within a task. What was fetched and not acknowledged comes again, to the same consumer at once, to others after tasker.consumer_timeout. max_events: 1 to 10000. consumer: who of several that share the subscriber''s events this is; while one has an event of a task, the later ones of that task come to it, too. wait: how long to wait where there are none; NULL or 0: not; it holds a snapshot meanwhile. Others that fetch for the same subscriber wait until this transaction ends. Raises TK007 (no such subscriber), TK009 (another role''s; it has a handler; wait under REPEATABLE READ), 22023 (max_events; consumer too long). Source: design, contract, "Events".';

CREATE FUNCTION tasker._ack_events(
    subscriber text,
    up_to bigint,
    consumer text,
    caller text)
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    target constant tasker.subscriber := tasker._find_subscriber(subscriber, caller);
    consumer_name constant text := tasker._consumer_name(consumer);
    hand tasker.consumer;
BEGIN
    IF up_to IS NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'null_value_not_allowed',
            MESSAGE = 'up_to must not be NULL',
            DETAIL = 'It is the event_id of the last event that was handled.',
            HINT = 'Pass the event_id of a row of tasker.fetch_events().';
    END IF;
    PERFORM tasker._check_fetched_here(target);
    PERFORM
    FROM tasker.subscriber_cursor AS c
    WHERE c.subscriber_id = target.subscriber_id
    FOR UPDATE;
    UPDATE tasker.consumer AS c
    SET event_ids = c.event_ids[p.place + 1:],
        row_ids = c.row_ids[p.place + 1:],
        task_ids = c.task_ids[p.place + 1:],
        acked_id = up_to,
        fetched_at = tasker.clock()
    FROM (
        SELECT array_position(n.event_ids, up_to) AS place
        FROM tasker.consumer AS n
        WHERE n.subscriber_id = target.subscriber_id
          AND n.name = consumer_name
        FOR UPDATE) AS p
    WHERE c.subscriber_id = target.subscriber_id
      AND c.name = consumer_name
      AND p.place IS NOT NULL;
    IF FOUND THEN
        RETURN;
    END IF;
    SELECT c.*
    INTO hand
    FROM tasker.consumer AS c
    WHERE c.subscriber_id = target.subscriber_id
      AND c.name = consumer_name;
    -- Once more, by somebody who did not hear that it worked.
    IF hand.acked_id = up_to THEN
        RETURN;
    END IF;
    RAISE EXCEPTION USING
        ERRCODE = 'TK003',
        MESSAGE = format('event %s is not in the hands of %s of subscriber "%s"', up_to,
                         CASE consumer_name WHEN '' THEN 'the consumer' ELSE format('consumer "%s"', consumer_name) END, target.name),
        DETAIL = CASE
            WHEN hand.event_ids = '{}' OR hand.event_ids IS NULL THEN 'It has no event that it could acknowledge.'
            ELSE format('It has %s events to acknowledge, %s the first and %s the last.',
                        cardinality(hand.event_ids), hand.event_ids[1], hand.event_ids[cardinality(hand.event_ids)])
        END,
        HINT = 'It was acknowledged before, or another consumer got it after tasker.consumer_timeout. Fetch again.';
END;
$$;
COMMENT ON FUNCTION tasker._ack_events(text, bigint, text, text) IS
'What tasker.ack_events() does, for the role of its caller. Private.';

CREATE FUNCTION tasker.ack_events(
    subscriber text,
    up_to bigint,
    consumer text DEFAULT NULL)
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.ack_events(text, bigint, text) IS
'Acknowledges the events that the consumer has fetched, up to and with that one, so that they do not come again. up_to: event_id of the last one that was handled. consumer: as in tasker.fetch_events(). Acknowledging the same event again changes nothing. Returns nothing. Raises TK003 (the consumer has no such event), TK007 (no such subscriber), TK009 (another role''s; it has a handler), 22004 (up_to is NULL), 22023 (consumer too long). Source: design, contract, "Events".';
