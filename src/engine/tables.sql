-- Whose database this is.  A dump carries tasker.origin with it and
-- tasker.activation not: a copy can be told from the original by that.

CREATE TABLE tasker.activation (
    "only" boolean PRIMARY KEY DEFAULT true CHECK ("only"),
    system_identifier bigint NOT NULL,
    database_oid oid NOT NULL,
    state text NOT NULL CHECK (state IN ('active', 'restored', 'deactivated')),
    xid_base bigint NOT NULL DEFAULT 0,
    xid_system bigint,
    since timestamptz NOT NULL DEFAULT tasker.clock()
);
COMMENT ON TABLE tasker.activation IS 'One row: whether the engine may run here. It runs where the row is active and names this server and this database, and tasker.origin no other one. Not dumped.';
COMMENT ON COLUMN tasker.activation."only" IS 'Key of the only row.';
COMMENT ON COLUMN tasker.activation.system_identifier IS 'Server for which it was made: the system identifier of its cluster.';
COMMENT ON COLUMN tasker.activation.database_oid IS 'Database for which it was made.';
COMMENT ON COLUMN tasker.activation.state IS 'active; restored: made by a restore, waits for tasker.activate(); deactivated: by tasker.deactivate().';
COMMENT ON COLUMN tasker.activation.xid_base IS 'Added to a transaction id to make the upper bits of its log ids, so that they are above those that another server gave.';
COMMENT ON COLUMN tasker.activation.xid_system IS 'Server for which xid_base was made; NULL or another one: the next writer makes it anew.';
COMMENT ON COLUMN tasker.activation.since IS 'When the row was last changed.';

CREATE TABLE tasker.origin (
    system_identifier bigint NOT NULL,
    database_oid oid NOT NULL,
    PRIMARY KEY (system_identifier, database_oid)
);
COMMENT ON TABLE tasker.origin IS 'Database that this data belongs to. It is dumped: another one''s row here means that this is a copy, in which the engine stays stopped.';
COMMENT ON COLUMN tasker.origin.system_identifier IS 'System identifier of the server''s cluster.';
COMMENT ON COLUMN tasker.origin.database_oid IS 'Its database.';

CREATE TABLE tasker.crash (
    task_id bigint NOT NULL,
    step_no smallint NOT NULL,
    crashes integer NOT NULL,
    last_at timestamptz NOT NULL,
    overran boolean NOT NULL DEFAULT false,
    PRIMARY KEY (task_id, step_no)
);
COMMENT ON TABLE tasker.crash IS 'Steps whose executor died in the middle of their handler. Such a step is run alone, some seconds later; its row goes when it has come to an end.';
COMMENT ON COLUMN tasker.crash.task_id IS 'Task.';
COMMENT ON COLUMN tasker.crash.step_no IS 'Step.';
COMMENT ON COLUMN tasker.crash.crashes IS 'How often the server went down while it ran. At tasker.max_crashes the step goes to error.';
COMMENT ON COLUMN tasker.crash.last_at IS 'When it was last found that its executor had died.';
COMMENT ON COLUMN tasker.crash.overran IS 'It outlived its timeout, and its executor was ended for that: this attempt has failed.';

SELECT pg_catalog.pg_extension_config_dump('tasker.origin', '');
SELECT pg_catalog.pg_extension_config_dump('tasker.crash', '');

-- Notes for the commit of a transaction.  Without shared_preload_libraries
-- there is nobody to tell, and they do nothing.

CREATE FUNCTION tasker._wake(tokens integer)
RETURNS void
LANGUAGE C VOLATILE STRICT
AS 'MODULE_PATHNAME', 'tasker_wake';
COMMENT ON FUNCTION tasker._wake(integer) IS
'Wakes up to that many idle executors when the transaction has committed. Private.';

CREATE FUNCTION tasker._note_kept()
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_sql_note_kept';
COMMENT ON FUNCTION tasker._note_kept() IS
'Has the idle executors look again when the transaction has ended, by a rollback as well: until then they pass by tokens that it has locked. Private.';

CREATE FUNCTION tasker._note_external_ready()
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_sql_note_external_ready';
COMMENT ON FUNCTION tasker._note_external_ready() IS
'Has the notifier ring tasker_steps when the transaction has committed. Private.';

CREATE FUNCTION tasker._note_due(due timestamptz)
RETURNS void
LANGUAGE C VOLATILE STRICT
AS 'MODULE_PATHNAME', 'tasker_sql_note_due';
COMMENT ON FUNCTION tasker._note_due(timestamptz) IS
'Tells the executors, when the transaction has committed, that something is due at that time of tasker.clock(). Private.';

CREATE FUNCTION tasker._note_deliveries()
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_sql_note_deliveries';
COMMENT ON FUNCTION tasker._note_deliveries() IS
'Has the deliverer look at the subscribers and at what failed in their handlers when the transaction has committed, and started where it does not run. Private.';

-- The identity of this database, and what follows from it.

CREATE FUNCTION tasker._identity(
    OUT system_identifier bigint,
    OUT database_oid oid)
RETURNS record
LANGUAGE C STABLE
AS 'MODULE_PATHNAME', 'tasker_identity';
COMMENT ON FUNCTION tasker._identity() IS
'This server''s system identifier and this database''s oid. Private.';

CREATE FUNCTION tasker._engine_state()
RETURNS text
LANGUAGE C STABLE
AS 'MODULE_PATHNAME', 'tasker_engine_state';
COMMENT ON FUNCTION tasker._engine_state() IS
'active, restored or deactivated: what tasker.activation and tasker.origin say of this database. Private.';

CREATE FUNCTION tasker._activation_changed()
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_activation_changed';
COMMENT ON FUNCTION tasker._activation_changed() IS
'Has every session read tasker.activation and tasker.origin again, and wakes the workers when the transaction has committed. Private.';

CREATE FUNCTION tasker._activation_trigger()
RETURNS trigger
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_activation_trigger';
COMMENT ON FUNCTION tasker._activation_trigger() IS
'Does what tasker._activation_changed() does. Private.';

CREATE TRIGGER activation_changed
AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON tasker.activation
FOR EACH STATEMENT
EXECUTE FUNCTION tasker._activation_trigger();
ALTER TABLE tasker.activation ENABLE ALWAYS TRIGGER activation_changed;

CREATE TRIGGER origin_changed
AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON tasker.origin
FOR EACH STATEMENT
EXECUTE FUNCTION tasker._activation_trigger();
ALTER TABLE tasker.origin ENABLE ALWAYS TRIGGER origin_changed;
