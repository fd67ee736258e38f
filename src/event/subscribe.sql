-- Subscriptions: made, changed, moved back, ended, and seen.

CREATE FUNCTION tasker._check_subscription(subscriber text, channel text, handler regproc, filter jsonb, namespace text)
RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF subscriber IS NULL OR tasker._name_problem(subscriber) IS NOT NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = CASE WHEN subscriber IS NULL THEN 'null_value_not_allowed' ELSE 'TK005' END,
            MESSAGE = 'name of the subscriber ' || coalesce(tasker._name_problem(subscriber), 'is NULL'),
            DETAIL = format('The name is %s.', coalesce('"' || left(subscriber, 200) || '"', 'NULL')),
            HINT = 'A name has 1 to 128 printable characters.';
    END IF;
    IF channel = '' OR octet_length(channel) > 63 OR channel IN ('tasker_events', 'tasker_steps') THEN
        RAISE EXCEPTION USING
            ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('"%s" cannot be the channel of subscriber "%s"', left(channel, 200), subscriber),
            DETAIL = CASE
                WHEN channel = '' THEN 'It is empty.'
                WHEN octet_length(channel) > 63 THEN format('It has %s bytes.', octet_length(channel))
                ELSE 'That one is for everybody.'
            END,
            HINT = 'A channel of its own has 1 to 63 bytes, such as the subscriber''s name.';
    END IF;
    IF channel IS NOT NULL AND handler IS NOT NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('subscriber "%s" cannot have both a channel and a handler', subscriber),
            DETAIL = 'Events that a handler gets are not fetched, so there is nothing to notify of.',
            HINT = 'Subscribe under two names.';
    END IF;
    IF jsonb_typeof(filter) <> 'object' THEN
        RAISE EXCEPTION USING
            ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('filter of subscriber "%s" must be an object', subscriber),
            DETAIL = format('It is %s.', left(filter::text, 200)),
            HINT = 'It is compared with the payload by @>, such as {"task_name": "order"}.';
    END IF;
    IF tasker._name_problem(namespace) IS NOT NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'TK005',
            MESSAGE = 'namespace of the subscriber ' || tasker._name_problem(namespace),
            DETAIL = format('The namespace is "%s".', left(namespace, 200)),
            HINT = 'A namespace has 1 to 128 printable characters; NULL is all of them.';
    END IF;
END;
$$;
COMMENT ON FUNCTION tasker._check_subscription(text, text, regproc, jsonb, text) IS
'Raises 22004, 22023 or TK005 where a subscription cannot be made of these. Private.';

CREATE FUNCTION tasker._note_subscriber(event text, subscriber tasker.subscriber, replace boolean)
RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT tasker._note_registry(
        'subscriber_registry', event, coalesce((subscriber).namespace, 'default'), (subscriber).name, NULL,
        coalesce((subscriber).handler, 'fetched'), replace, NULL);
    SELECT tasker._note_deliveries();
$$;
COMMENT ON FUNCTION tasker._note_subscriber(text, tasker.subscriber, boolean) IS
'Notes what was done to a subscriber, as _note_registry() does, and tells the processes that deliver. Private.';

-- Where a new subscription begins: behind all that its snapshot shows.
CREATE FUNCTION tasker._make_cursor(for_subscriber integer)
RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH id AS MATERIALIZED (
        SELECT (tasker._next_event_id() >> 20) AS own,
               (tasker._next_event_id() >> 20) - pg_current_xact_id()::text::bigint AS base,
               pg_current_snapshot() AS snapshot
    )
    INSERT INTO tasker.subscriber_cursor (subscriber_id, tick_id, born_xmax, born_running, fetched_at)
    SELECT for_subscriber,
           -- Where there is none yet: before the first, whose number only the notifier makes.
           coalesce((SELECT max(t.tick_id) FROM tasker.tick AS t), 0),
           pg_snapshot_xmax(i.snapshot)::text::bigint + i.base,
           i.own || ARRAY(SELECT x.xid::text::bigint + i.base FROM pg_snapshot_xip(i.snapshot) AS x (xid)),
           tasker.clock()
    FROM id AS i;
$$;
COMMENT ON FUNCTION tasker._make_cursor(integer) IS
'Sets a new subscriber''s place: after what is committed now, before what is not. Private.';

CREATE FUNCTION tasker._subscription_as(
    subscriber tasker.subscriber,
    events text[],
    channel text,
    handler text,
    filter jsonb,
    namespace text,
    caller text,
    search_path text)
RETURNS tasker.subscriber
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    probe record;
BEGIN
    SELECT p.*
    INTO probe
    FROM tasker._filter_probe(filter) AS p;
    subscriber.events := events;
    subscriber.channel := channel;
    subscriber.handler := handler;
    subscriber.filter := filter;
    subscriber.namespace := namespace;
    subscriber.probe_key := probe.key;
    subscriber.probe_value := probe.value;
    subscriber.is_probe_all := coalesce(probe.is_all, false);
    subscriber.run_as := caller;
    subscriber.search_path := search_path;
    RETURN subscriber;
END;
$$;
COMMENT ON FUNCTION tasker._subscription_as(tasker.subscriber, text[], text, text, jsonb, text, text, text) IS
'The row with these arguments in it, and how its filter is looked up. Private.';

CREATE FUNCTION tasker._subscribe(
    subscriber text,
    events text[],
    channel text,
    handler regproc,
    filter jsonb,
    namespace text,
    caller text,
    search_path text)
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    old_row tasker.subscriber;
    new_row tasker.subscriber;
BEGIN
    PERFORM tasker._require('event:index', coalesce(namespace, '*'));
    PERFORM tasker._check_subscription(subscriber, channel, handler, filter, namespace);
    new_row.name := subscriber;
    new_row := tasker._subscription_as(new_row, tasker._canonical_events(events), channel,
                                       CASE WHEN handler IS NOT NULL THEN tasker._check_subscriber_handler(handler, caller) END,
                                       nullif(filter, '{}'), namespace, caller, search_path);
    new_row.registered_at := tasker.clock();

    -- Waits for whoever registers the same name at this moment.
    INSERT INTO tasker.subscriber AS s (name, events, channel, handler, filter, namespace, probe_key, probe_value, is_probe_all,
                                        run_as, search_path, registered_at)
    VALUES (new_row.name, new_row.events, new_row.channel, new_row.handler, new_row.filter, new_row.namespace,
            new_row.probe_key, new_row.probe_value, new_row.is_probe_all, new_row.run_as, new_row.search_path, new_row.registered_at)
    ON CONFLICT (name) DO NOTHING
    RETURNING s.subscriber_id INTO new_row.subscriber_id;
    IF FOUND THEN
        PERFORM tasker._make_cursor(new_row.subscriber_id);
        PERFORM tasker._note_subscriber('registered', new_row, false);
        RETURN;
    END IF;

    SELECT s.*
    INTO STRICT old_row
    FROM tasker.subscriber AS s
    WHERE s.name = subscriber
    FOR UPDATE;
    PERFORM tasker._check_owner(format('subscriber "%s"', subscriber), old_row.run_as, caller);
    new_row.subscriber_id := old_row.subscriber_id;
    new_row.registered_at := old_row.registered_at;
    new_row.wants_everything := old_row.wants_everything;
    IF new_row IS NOT DISTINCT FROM old_row THEN
        RETURN;
    END IF;
    UPDATE tasker.subscriber AS s
    SET events = new_row.events,
        channel = new_row.channel,
        handler = new_row.handler,
        filter = new_row.filter,
        namespace = new_row.namespace,
        probe_key = new_row.probe_key,
        probe_value = new_row.probe_value,
        is_probe_all = new_row.is_probe_all,
        run_as = new_row.run_as,
        search_path = new_row.search_path,
        registered_at = tasker.clock()
    WHERE s.subscriber_id = old_row.subscriber_id;
    PERFORM tasker._forget_matches(old_row.subscriber_id);
    PERFORM tasker._note_subscriber('unregistered', old_row, true);
    PERFORM tasker._note_subscriber('registered', new_row, true);
END;
$$;
COMMENT ON FUNCTION tasker._subscribe(text, text[], text, regproc, jsonb, text, text, text) IS
'What tasker.subscribe() does, for the role and search_path of its caller. Private.';

CREATE FUNCTION tasker.subscribe(
    subscriber text,
    events text[],
    channel text DEFAULT NULL,
    handler regproc DEFAULT NULL,
    filter jsonb DEFAULT NULL,
    namespace text DEFAULT NULL)
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.subscribe(text, text[], text, regproc, jsonb, text) IS
'Has a subscriber hear of every event that is committed from now on, whether or not it listens at the moment. Subscribing again under the same name with other arguments changes the subscription and keeps its place. Returns nothing. subscriber: its name. events: names and prefixes, such as {task.completed, order.*}; {*} is everything. channel: NOTIFY channel that is rung when there is something to fetch. handler: SQL function f(tasker.event) or f(jsonb) that is called with each event, as the current role with the current search_path; without one the events are fetched by tasker.fetch_events(). filter: only events whose payload contains (@>) this object. namespace: only events of its tasks. Raises TK007 (no such event), TK005 (name), TK009 (another role''s), 22023 (events empty, channel, filter), 22004 (a NULL), 42883, 42P13, 42501 (handler). Source: design, contract, "Events".';

CREATE FUNCTION tasker._unsubscribe(subscriber text, caller text)
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target constant tasker.subscriber := tasker._find_subscriber(subscriber, caller);
BEGIN
    -- In the order of fetch_events(), so that they do not wait for each other.
    DELETE FROM tasker.subscriber_cursor AS c
    WHERE c.subscriber_id = target.subscriber_id;
    DELETE FROM tasker.consumer AS c
    WHERE c.subscriber_id = target.subscriber_id;
    DELETE FROM tasker.subscriber_match AS m
    WHERE m.subscriber_id = target.subscriber_id;
    DELETE FROM tasker.subscriber_failure AS f
    WHERE f.subscriber_id = target.subscriber_id;
    DELETE FROM tasker.subscriber AS s
    WHERE s.subscriber_id = target.subscriber_id;
    PERFORM tasker._note_subscriber('unregistered', target, false);
END;
$$;
COMMENT ON FUNCTION tasker._unsubscribe(text, text) IS
'What tasker.unsubscribe() does, for the role of its caller. Private.';

CREATE FUNCTION tasker.unsubscribe(subscriber text)
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.unsubscribe(text) IS
'Ends a subscription; what its consumers had in hand and its dead events go with it. Returns nothing. Raises TK007 (no such subscriber), TK009 (another role''s). Source: design, contract, "Events".';

CREATE FUNCTION tasker._replay_events(subscriber text, since timestamptz, from_event bigint, caller text)
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target constant tasker.subscriber := tasker._find_subscriber(subscriber, caller);
    place tasker.subscriber_cursor;
BEGIN
    IF num_nonnulls(since, from_event) <> 1 THEN
        RAISE EXCEPTION USING
            ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'either since or from_event must be given',
            DETAIL = CASE num_nonnulls(since, from_event) WHEN 0 THEN 'Neither is.' ELSE 'Both are.' END,
            HINT = 'since => ''-infinity'' replays all that is kept.';
    END IF;
    IF from_event IS NOT NULL THEN
        -- Every tick from there on shows its transaction, the first one has it.
        SELECT e.tick_id - 1, e.at, e.event_id - 1
        INTO place.tick_id, place.event_at, place.event_id
        FROM (
            SELECT t.tick_id
            FROM tasker.tick AS t
            WHERE t.next_xid > from_event >> 20
              AND t.ids @> from_event
            ORDER BY t.next_xid, t.tick_id
            LIMIT 1) AS f
        JOIN tasker._tick_event AS e ON e.tick_id >= f.tick_id
                                    AND e.tick_id < f.tick_id + 1000
        WHERE e.event_id = from_event
        LIMIT 1;
        IF place.tick_id IS NULL THEN
            RAISE EXCEPTION USING
                ERRCODE = 'TK007',
                MESSAGE = format('there is no event %s', from_event),
                DETAIL = 'It was pruned, has not been told yet, or never was.',
                HINT = 'Replay since a time.';
        END IF;
    ELSE
        place.tick_id := coalesce((
            SELECT t.tick_id - 1
            FROM tasker.tick AS t
            WHERE t.at >= since
            ORDER BY t.at, t.tick_id
            LIMIT 1), (SELECT max(t.tick_id) FROM tasker.tick AS t), 0);
    END IF;
    UPDATE tasker.subscriber_cursor AS c
    SET tick_id = place.tick_id,
        event_at = place.event_at,
        event_id = place.event_id,
        born_xmax = NULL,
        born_running = NULL
    WHERE c.subscriber_id = target.subscriber_id;
    PERFORM tasker._forget_matches(target.subscriber_id);
    DELETE FROM tasker.consumer AS c
    WHERE c.subscriber_id = target.subscriber_id;
    DELETE FROM tasker.subscriber_failure AS f
    WHERE f.subscriber_id = target.subscriber_id
      AND f.dead_at IS NULL;
    PERFORM tasker._note_deliveries();
END;
$$;
COMMENT ON FUNCTION tasker._replay_events(text, timestamptz, bigint, text) IS
'What tasker.replay_events() does, for the role of its caller. Private.';

CREATE FUNCTION tasker.replay_events(
    subscriber text,
    since timestamptz DEFAULT NULL,
    from_event bigint DEFAULT NULL)
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.replay_events(text, timestamptz, bigint) IS
'Moves a subscriber''s place, mostly back: it gets again what it wants of all that was told from there on, also from before it subscribed. What its consumers had in hand and have not acknowledged comes again with the rest, or not at all. Either since: from what was told at that time, or up to ten minutes before it, -infinity for all that is kept, infinity for nothing of what was told so far; or from_event: from that event on. Returns nothing. Raises TK007 (no such subscriber or event), TK009 (another role''s), 22023 (neither or both). Source: design, contract, "Events".';

CREATE FUNCTION tasker._forget_matches(for_subscriber integer)
RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE tasker.subscriber_cursor AS c
    SET matched_from = NULL,
        fetched_at = tasker.clock()
    WHERE c.subscriber_id = for_subscriber;
    DELETE FROM tasker.subscriber_match AS m
    WHERE m.subscriber_id = for_subscriber;
$$;
COMMENT ON FUNCTION tasker._forget_matches(integer) IS
'Has a subscriber''s events found anew, as it fetches them. Private.';

-- As its owner: how far behind a subscriber is follows from ticks, which are of all namespaces.
CREATE VIEW tasker.subscribers WITH (security_barrier) AS
SELECT s.name AS subscriber,
       s.events,
       s.channel,
       s.handler,
       s.filter,
       s.namespace,
       s.run_as,
       s.registered_at,
       CASE
           WHEN b.behind = 0 THEN 'current'
           WHEN greatest(c.fetched_at, b.since) < tasker.clock() - current_setting('tasker.subscriber_retention')::interval THEN 'expired'
           WHEN c.matched_from IS NULL AND NOT s.wants_everything
                AND c.fetched_at < tasker.clock() - tasker._subscriber_sleeps_after() THEN 'asleep'
           ELSE 'behind'
       END AS status,
       b.behind AS lag_events,
       CASE WHEN b.behind = 0 THEN interval '0'
            ELSE greatest(tasker.clock() - coalesce(b.since, tasker.clock()), interval '0') END AS lag,
       coalesce(h.in_hand, 0) AS unacknowledged,
       coalesce(h.consumers, 0) AS consumers,
       coalesce(f.waiting, 0) AS retrying,
       coalesce(f.dead, 0) AS dead,
       c.delivered,
       c.lost,
       c.fetched_at
FROM tasker.subscriber AS s
JOIN tasker.subscriber_cursor AS c ON c.subscriber_id = s.subscriber_id
CROSS JOIN LATERAL (
    SELECT CASE WHEN c.tick_id >= c.matched_from THEN NULL
                ELSE tasker._events_until(c.tick_id, c.event_at, c.event_id) END AS told) AS place
CROSS JOIN LATERAL (
    SELECT CASE
               WHEN c.tick_id >= c.matched_from THEN (
                   SELECT coalesce(sum(cardinality(m.event_ids)), 0)
                          - coalesce((SELECT array_position(p.event_ids, c.event_id)
                                      FROM tasker.subscriber_match AS p
                                      WHERE p.subscriber_id = c.subscriber_id
                                        AND p.tick_id = c.tick_id + 1
                                        AND c.event_id IS NOT NULL), 0)
                   FROM tasker.subscriber_match AS m
                   WHERE m.subscriber_id = c.subscriber_id
                     AND m.tick_id > c.tick_id)
               ELSE coalesce((SELECT t.events FROM tasker.tick AS t ORDER BY t.tick_id DESC LIMIT 1), 0) - place.told
           END AS behind,
           -- Of a tick that it stands at the end of, nothing is left.
           CASE
               WHEN c.tick_id >= c.matched_from THEN (
                   SELECT t.at
                   FROM tasker.subscriber_match AS m
                   JOIN tasker.tick AS t ON t.tick_id = m.tick_id
                   WHERE m.subscriber_id = c.subscriber_id
                     AND m.tick_id > c.tick_id
                     AND (c.event_id IS NULL
                          OR m.tick_id > c.tick_id + 1
                          OR m.event_ids[cardinality(m.event_ids)] <> c.event_id)
                   ORDER BY m.tick_id
                   LIMIT 1)
               ELSE (
                   SELECT t.at
                   FROM tasker.tick AS t
                   WHERE t.tick_id > c.tick_id
                     AND t.events > place.told
                   ORDER BY t.tick_id
                   LIMIT 1)
           END AS since) AS b
LEFT JOIN LATERAL (
    SELECT sum(cardinality(n.event_ids)) AS in_hand, count(*) AS consumers
    FROM tasker.consumer AS n
    WHERE n.subscriber_id = s.subscriber_id) AS h ON true
LEFT JOIN LATERAL (
    SELECT count(*) FILTER (WHERE n.dead_at IS NULL) AS waiting,
           count(*) FILTER (WHERE n.dead_at IS NOT NULL) AS dead
    FROM tasker.subscriber_failure AS n
    WHERE n.subscriber_id = s.subscriber_id) AS f ON true
WHERE NOT tasker._is_enforced()
   OR tasker._is_administrator()
   OR EXISTS (
       SELECT
       FROM pg_catalog.pg_roles AS r
       WHERE r.rolname = s.run_as
         AND pg_catalog.pg_has_role(r.oid, 'MEMBER'));
COMMENT ON VIEW tasker.subscribers IS 'Who has subscribed to what, and how far each has come.';
COMMENT ON COLUMN tasker.subscribers.subscriber IS 'Its name.';
COMMENT ON COLUMN tasker.subscribers.events IS 'Names and prefixes of the events that it wants.';
COMMENT ON COLUMN tasker.subscribers.channel IS 'Channel that is rung for it; NULL: none.';
COMMENT ON COLUMN tasker.subscribers.handler IS 'SQL function that gets its events; NULL: they are fetched.';
COMMENT ON COLUMN tasker.subscribers.filter IS 'What the payload must contain; NULL: anything.';
COMMENT ON COLUMN tasker.subscribers.namespace IS 'Namespace that the events must belong to; NULL: any.';
COMMENT ON COLUMN tasker.subscribers.run_as IS 'Role that subscribed.';
COMMENT ON COLUMN tasker.subscribers.registered_at IS 'When it subscribed, or last changed that.';
COMMENT ON COLUMN tasker.subscribers.status IS 'current: it has fetched everything; behind: it has not; asleep: behind, and it has not fetched for ten minutes; expired: for tasker.subscriber_retention it has not fetched what is there for it, and that may be pruned.';
COMMENT ON COLUMN tasker.subscribers.lag_events IS 'Number of events that it has not fetched; where it is far behind or just came back, of all events there, so at most that many.';
COMMENT ON COLUMN tasker.subscribers.lag IS 'How old the first one that it has not fetched is.';
COMMENT ON COLUMN tasker.subscribers.unacknowledged IS 'Number of events that its consumers have in hand.';
COMMENT ON COLUMN tasker.subscribers.consumers IS 'Number of consumers that have fetched for it and are not given up.';
COMMENT ON COLUMN tasker.subscribers.retrying IS 'Number of events at which its handler failed, or that wait behind such a one.';
COMMENT ON COLUMN tasker.subscribers.dead IS 'Number of events that were given up: tasker.dead_events has them.';
COMMENT ON COLUMN tasker.subscribers.delivered IS 'Number of events that were handed out.';
COMMENT ON COLUMN tasker.subscribers.lost IS 'Number of events, of all subscribers'' together, that were pruned before it fetched them.';
COMMENT ON COLUMN tasker.subscribers.fetched_at IS 'When events were last handed out for it.';
