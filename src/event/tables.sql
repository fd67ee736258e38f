-- Events: what was published beside the log, the order in which all of it is
-- told, who listens, and how far each has come.

CREATE TYPE tasker.event AS (
    event_id bigint,
    occurred_at timestamptz,
    name text,
    task_id bigint,
    step_id bigint,
    payload jsonb,
    attempt integer
);
COMMENT ON TYPE tasker.event IS 'What a subscriber''s SQL handler gets.';
COMMENT ON COLUMN tasker.event.event_id IS 'Unique; does not rise with time.';
COMMENT ON COLUMN tasker.event.occurred_at IS 'When it happened.';
COMMENT ON COLUMN tasker.event.name IS 'Its name, such as task.completed.';
COMMENT ON COLUMN tasker.event.task_id IS 'Task; NULL: it belongs to none.';
COMMENT ON COLUMN tasker.event.step_id IS 'Step; NULL: it belongs to none.';
COMMENT ON COLUMN tasker.event.payload IS 'What it says.';
COMMENT ON COLUMN tasker.event.attempt IS 'How often the handler has been given it, from 1.';

CREATE TABLE tasker.published_event (
    event_id bigint PRIMARY KEY,
    occurred_at timestamptz NOT NULL,
    task_id bigint,
    step_no smallint,
    name text NOT NULL,
    namespace text,
    payload jsonb NOT NULL
);
COMMENT ON TABLE tasker.published_event IS 'Events that are no state change: custom ones, and those of registries. All others are read off tasker.log.';
COMMENT ON COLUMN tasker.published_event.event_id IS 'Made as the ids of tasker.log, and different from each of them.';
COMMENT ON COLUMN tasker.published_event.occurred_at IS 'When it was published.';
COMMENT ON COLUMN tasker.published_event.task_id IS 'Task it belongs to; NULL: none.';
COMMENT ON COLUMN tasker.published_event.step_no IS 'Step it belongs to; NULL: none.';
COMMENT ON COLUMN tasker.published_event.name IS 'Its name.';
COMMENT ON COLUMN tasker.published_event.namespace IS 'Namespace of its task, or of the entry of the registry; NULL: none.';
COMMENT ON COLUMN tasker.published_event.payload IS 'What was published.';

CREATE TABLE tasker.tick (
    tick_id bigint PRIMARY KEY,
    at timestamptz NOT NULL,
    next_xid bigint NOT NULL,
    running bigint[] NOT NULL,
    ids int8multirange NOT NULL,
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    after_at timestamptz,
    after_id bigint,
    until_at timestamptz,
    until_id bigint,
    events bigint NOT NULL
);
CREATE INDEX tick_next_xid ON tasker.tick (next_xid);
CREATE INDEX tick_at ON tasker.tick (at);
COMMENT ON TABLE tasker.tick IS 'The order in which events are told: each tick is those that its snapshot shows and that of the tick before did not. Within a tick they go by time and id.';
COMMENT ON COLUMN tasker.tick.tick_id IS 'Rises; there may be gaps.';
COMMENT ON COLUMN tasker.tick.at IS 'When its snapshot was taken.';
COMMENT ON COLUMN tasker.tick.next_xid IS 'First transaction, with the base of log ids added, that had not begun by then.';
COMMENT ON COLUMN tasker.tick.running IS 'Transactions below it that had not ended.';
COMMENT ON COLUMN tasker.tick.ids IS 'Ids of the log and of published events that belong to it.';
COMMENT ON COLUMN tasker.tick.first_at IS 'Time of its first event.';
COMMENT ON COLUMN tasker.tick.last_at IS 'Time of its last event.';
COMMENT ON COLUMN tasker.tick.after_at IS 'Of a part of what was too much for one tick: only what comes after this time and after_id; NULL: from the first.';
COMMENT ON COLUMN tasker.tick.after_id IS 'Event after which it begins; NULL: from the first.';
COMMENT ON COLUMN tasker.tick.until_at IS 'Time of its last event; NULL: to the end.';
COMMENT ON COLUMN tasker.tick.until_id IS 'Its last event; NULL: to the end.';
COMMENT ON COLUMN tasker.tick.events IS 'Number of all events up to and with this tick.';

CREATE TABLE tasker.subscriber (
    subscriber_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    events text[] NOT NULL,
    channel text,
    handler text,
    filter jsonb,
    namespace text,
    probe_key text,
    probe_value jsonb,
    is_probe_all boolean NOT NULL,
    run_as text NOT NULL,
    search_path text,
    registered_at timestamptz NOT NULL,
    wants_everything boolean GENERATED ALWAYS AS (events = '{*}'::text[] AND filter IS NULL AND namespace IS NULL) STORED
);
COMMENT ON TABLE tasker.subscriber IS 'Who wants to hear of which events. People read the view tasker.subscribers.';
COMMENT ON COLUMN tasker.subscriber.subscriber_id IS 'Number of it.';
COMMENT ON COLUMN tasker.subscriber.name IS 'Name it is registered under.';
COMMENT ON COLUMN tasker.subscriber.events IS 'Names of events, and prefixes such as task.*; * is all of them.';
COMMENT ON COLUMN tasker.subscriber.channel IS 'Channel to notify; NULL: none.';
COMMENT ON COLUMN tasker.subscriber.handler IS 'Signature of the SQL function that gets the events; NULL: they are fetched.';
COMMENT ON COLUMN tasker.subscriber.filter IS 'What the payload must contain; NULL: anything.';
COMMENT ON COLUMN tasker.subscriber.namespace IS 'Namespace that the event must belong to; NULL: any.';
COMMENT ON COLUMN tasker.subscriber.probe_key IS 'Of the filter, the key by which its tasks are looked up; NULL: none serves for that.';
COMMENT ON COLUMN tasker.subscriber.probe_value IS 'Its value.';
COMMENT ON COLUMN tasker.subscriber.is_probe_all IS 'The filter asks for nothing else.';
COMMENT ON COLUMN tasker.subscriber.run_as IS 'Role that registered it; its handler runs as this role.';
COMMENT ON COLUMN tasker.subscriber.search_path IS 'search_path under which it was registered.';
COMMENT ON COLUMN tasker.subscriber.registered_at IS 'When it was registered, or last replaced.';
COMMENT ON COLUMN tasker.subscriber.wants_everything IS 'It gets every event, and reads the ticks themselves.';

CREATE TABLE tasker.subscriber_cursor (
    subscriber_id integer PRIMARY KEY,
    tick_id bigint NOT NULL,
    event_at timestamptz,
    event_id bigint,
    matched_from bigint,
    born_xmax bigint,
    born_running bigint[],
    fetched_at timestamptz NOT NULL,
    delivered bigint NOT NULL DEFAULT 0,
    lost bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
COMMENT ON TABLE tasker.subscriber_cursor IS 'How far each subscriber has come: what is behind its place was handed out.';
COMMENT ON COLUMN tasker.subscriber_cursor.subscriber_id IS 'Subscriber.';
COMMENT ON COLUMN tasker.subscriber_cursor.tick_id IS 'Last tick of which all was handed out.';
COMMENT ON COLUMN tasker.subscriber_cursor.event_at IS 'Time of the last event that was handed out of the next tick; NULL: none was.';
COMMENT ON COLUMN tasker.subscriber_cursor.event_id IS 'That event.';
COMMENT ON COLUMN tasker.subscriber_cursor.matched_from IS 'For the ticks behind this one its events stand in tasker.subscriber_match; NULL: for none.';
COMMENT ON COLUMN tasker.subscriber_cursor.born_xmax IS 'It hears of no transaction that its registration saw: of none below this one ...';
COMMENT ON COLUMN tasker.subscriber_cursor.born_running IS '... but these. NULL: of all.';
COMMENT ON COLUMN tasker.subscriber_cursor.fetched_at IS 'When somebody last fetched for it.';
COMMENT ON COLUMN tasker.subscriber_cursor.delivered IS 'Number of events that were handed out.';
COMMENT ON COLUMN tasker.subscriber_cursor.lost IS 'Number of events, of all subscribers'' together, that were pruned before it fetched them.';

CREATE TABLE tasker.subscriber_match (
    subscriber_id integer NOT NULL,
    tick_id bigint NOT NULL,
    event_ids bigint[] NOT NULL,
    row_ids bigint[] NOT NULL,
    task_ids bigint[] NOT NULL,
    PRIMARY KEY (subscriber_id, tick_id)
);
COMMENT ON TABLE tasker.subscriber_match IS 'The events of a tick that a subscriber wants, found once for all subscribers when the tick was made.';
COMMENT ON COLUMN tasker.subscriber_match.subscriber_id IS 'Subscriber.';
COMMENT ON COLUMN tasker.subscriber_match.tick_id IS 'Tick.';
COMMENT ON COLUMN tasker.subscriber_match.event_ids IS 'Events, in their order.';
COMMENT ON COLUMN tasker.subscriber_match.row_ids IS 'Key of the row of tasker.log or tasker.published_event that each is read from.';
COMMENT ON COLUMN tasker.subscriber_match.task_ids IS 'Task of each; 0: none.';

CREATE TABLE tasker.consumer (
    subscriber_id integer NOT NULL,
    name text NOT NULL,
    event_ids bigint[] NOT NULL,
    row_ids bigint[] NOT NULL,
    task_ids bigint[] NOT NULL,
    acked_id bigint,
    fetched_at timestamptz NOT NULL,
    PRIMARY KEY (subscriber_id, name)
) WITH (fillfactor = 50);
-- They don't compress, and trying it takes as long as finding them.
ALTER TABLE tasker.consumer
    ALTER COLUMN event_ids SET STORAGE EXTERNAL,
    ALTER COLUMN row_ids SET STORAGE EXTERNAL,
    ALTER COLUMN task_ids SET STORAGE EXTERNAL;
COMMENT ON TABLE tasker.consumer IS 'Who fetches for a subscriber, and what each has been handed and not acknowledged.';
COMMENT ON COLUMN tasker.consumer.subscriber_id IS 'Subscriber.';
COMMENT ON COLUMN tasker.consumer.name IS 'Name of the consumer; empty for one that gives none.';
COMMENT ON COLUMN tasker.consumer.event_ids IS 'Events handed to it and not acknowledged, in their order.';
COMMENT ON COLUMN tasker.consumer.row_ids IS 'Key of the row that each is read from.';
COMMENT ON COLUMN tasker.consumer.task_ids IS 'Task of each; 0: none. As long as one is here, later events of that task come here, too.';
COMMENT ON COLUMN tasker.consumer.acked_id IS 'Event up to which it acknowledged last.';
COMMENT ON COLUMN tasker.consumer.fetched_at IS 'When it last fetched or acknowledged. After tasker.consumer_timeout others get what it has.';

CREATE TABLE tasker.subscriber_failure (
    subscriber_id integer NOT NULL,
    event_id bigint NOT NULL,
    row_id bigint NOT NULL,
    task_id bigint NOT NULL,
    place bigint GENERATED ALWAYS AS IDENTITY,
    attempts integer NOT NULL,
    next_attempt_at timestamptz,
    dead_at timestamptz,
    error jsonb,
    PRIMARY KEY (subscriber_id, event_id)
);
COMMENT ON TABLE tasker.subscriber_failure IS 'Events at which a subscriber''s SQL handler failed, and those that wait behind one of the same task. People read the view tasker.dead_events.';
COMMENT ON COLUMN tasker.subscriber_failure.subscriber_id IS 'Subscriber.';
COMMENT ON COLUMN tasker.subscriber_failure.event_id IS 'Event.';
COMMENT ON COLUMN tasker.subscriber_failure.row_id IS 'Key of the row that it is read from.';
COMMENT ON COLUMN tasker.subscriber_failure.task_id IS 'Its task; 0: none.';
COMMENT ON COLUMN tasker.subscriber_failure.place IS 'Order in which they came.';
COMMENT ON COLUMN tasker.subscriber_failure.attempts IS 'How often the handler has failed at it; 0: it waits behind another one.';
COMMENT ON COLUMN tasker.subscriber_failure.next_attempt_at IS 'When it is tried again; NULL: not by itself.';
COMMENT ON COLUMN tasker.subscriber_failure.dead_at IS 'When it was given up; NULL: it was not.';
COMMENT ON COLUMN tasker.subscriber_failure.error IS 'The last error: message, sqlstate, detail, hint, context, attempt, at.';

CREATE TABLE tasker.custom_event (
    name text PRIMARY KEY,
    description text NOT NULL,
    payload_schema jsonb,
    fired_by text[] NOT NULL,
    registered_by text NOT NULL,
    registered_at timestamptz NOT NULL
);
COMMENT ON TABLE tasker.custom_event IS 'Events that users have registered. People call tasker.event_catalog().';
COMMENT ON COLUMN tasker.custom_event.name IS 'Its name, such as order.fulfilled.';
COMMENT ON COLUMN tasker.custom_event.description IS 'What it says, for people.';
COMMENT ON COLUMN tasker.custom_event.payload_schema IS 'JSON Schema that its payload is checked against; NULL: none.';
COMMENT ON COLUMN tasker.custom_event.fired_by IS 'What publishes it, as far as definitions say: templates and steps.';
COMMENT ON COLUMN tasker.custom_event.registered_by IS 'Role that registered it.';
COMMENT ON COLUMN tasker.custom_event.registered_at IS 'When it was registered, or last changed.';

COMMENT ON SEQUENCE tasker.subscriber_subscriber_id_seq IS 'Numbers of subscribers.';
COMMENT ON SEQUENCE tasker.subscriber_failure_place_seq IS 'Order of failed events.';

SELECT pg_catalog.pg_extension_config_dump('tasker.published_event', '');
SELECT pg_catalog.pg_extension_config_dump('tasker.tick', '');
SELECT pg_catalog.pg_extension_config_dump('tasker.subscriber', '');
SELECT pg_catalog.pg_extension_config_dump('tasker.subscriber_subscriber_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('tasker.subscriber_cursor', '');
SELECT pg_catalog.pg_extension_config_dump('tasker.subscriber_match', '');
SELECT pg_catalog.pg_extension_config_dump('tasker.consumer', '');
SELECT pg_catalog.pg_extension_config_dump('tasker.subscriber_failure', '');
SELECT pg_catalog.pg_extension_config_dump('tasker.subscriber_failure_place_seq', '');
SELECT pg_catalog.pg_extension_config_dump('tasker.custom_event', '');

CREATE FUNCTION tasker._event_name(step_no smallint, from_state smallint, to_state smallint)
RETURNS text
LANGUAGE C IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'tasker_event_name';
COMMENT ON FUNCTION tasker._event_name(smallint, smallint, smallint) IS
'Event that a row of tasker._move is reported as. Private.';

CREATE FUNCTION tasker._next_event_id()
RETURNS bigint
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_next_event_id';
COMMENT ON FUNCTION tasker._next_event_id() IS
'Id for a row of tasker.published_event of this transaction; has the notifier look when it has committed. Private.';
