-- Handing events out: in order, to one consumer or to several that share them.

CREATE FUNCTION tasker._next_events(
    subscriber_id integer,
    max_events integer,
    OUT event_ids bigint[],
    OUT row_ids bigint[],
    OUT task_ids bigint[])
RETURNS record
LANGUAGE C VOLATILE STRICT
AS 'MODULE_PATHNAME', 'tasker_next_events';
COMMENT ON FUNCTION tasker._next_events(integer, integer) IS
'Hands out the next events of a subscriber, in order, and moves its place behind them in this transaction; a task_id of 0: none. Empty: there are none. Private.';

CREATE FUNCTION tasker._wait_for_round()
RETURNS boolean
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_wait_for_round';
COMMENT ON FUNCTION tasker._wait_for_round() IS
'Has the notifier make a tick of what has been committed, and waits for that, two seconds at most; for the notifier, too, where there is none yet. Returns whether there was anything to wait for. Private.';

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

CREATE FUNCTION tasker._fetch_events(
    subscriber text,
    max_events integer,
    consumer text,
    wait interval,
    caller text)
RETURNS TABLE (event_id bigint, occurred_at timestamptz, name text, task_id bigint, step_id bigint, payload jsonb)
LANGUAGE C VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'tasker_fetch_events';
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
