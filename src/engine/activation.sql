-- Starting and stopping the engine of a database.

CREATE FUNCTION tasker._settle_xid_base(anew boolean DEFAULT false)
RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    -- No running transaction's id is below the snapshot's xmin, so that every
    -- one of them gets ids above all that the log holds.
    UPDATE tasker.activation AS a
    SET xid_base = greatest(a.xid_base,
                            greatest((SELECT max(l.id) FROM tasker.log AS l) >> 20,
                                     (SELECT max(e.event_id) FROM tasker.published_event AS e) >> 20,
                                     (SELECT max(t.next_xid) FROM tasker.tick AS t),
                                     0)
                            - pg_snapshot_xmin(pg_current_snapshot())::text::bigint + 1),
        xid_system = i.system_identifier
    FROM tasker._identity() AS i
    WHERE anew
       OR a.xid_system IS DISTINCT FROM i.system_identifier;
$$;
COMMENT ON FUNCTION tasker._settle_xid_base(boolean) IS
'Lifts the base of log ids above all that the log, events and ticks hold, where it was made for another server, or anew in any case. Private.';

CREATE FUNCTION tasker.activate()
RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT tasker._settle_xid_base(EXISTS (
        SELECT
        FROM tasker.origin AS o
        WHERE o.system_identifier <> i.system_identifier))
    FROM tasker._identity() AS i;

    INSERT INTO tasker.activation AS a (system_identifier, database_oid, state)
    SELECT i.system_identifier, i.database_oid, 'active'
    FROM tasker._identity() AS i
    ON CONFLICT ("only") DO UPDATE
    SET system_identifier = excluded.system_identifier,
        database_oid = excluded.database_oid,
        state = excluded.state,
        since = excluded.since
    WHERE (a.system_identifier, a.database_oid, a.state)
          IS DISTINCT FROM (excluded.system_identifier, excluded.database_oid, excluded.state);

    DELETE FROM tasker.origin AS o
    USING tasker._identity() AS i
    WHERE (o.system_identifier, o.database_oid)
          IS DISTINCT FROM (i.system_identifier, i.database_oid);

    INSERT INTO tasker.origin (system_identifier, database_oid)
    SELECT i.system_identifier, i.database_oid
    FROM tasker._identity() AS i
    ON CONFLICT DO NOTHING;

    SELECT tasker._activation_changed();
$$;
COMMENT ON FUNCTION tasker.activate() IS
'Lets the engine run in this database: after a restore or a copy, when it is certain that the original does not run the same tasks as well, or after tasker.deactivate(). Changes nothing where it may run already. For the extension''s owner and whom he grants it to. Returns nothing. Raises nothing of its own. Source: design, contract, section 6.';

CREATE FUNCTION tasker.deactivate()
RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE tasker.activation AS a
    SET state = 'deactivated',
        since = tasker.clock()
    WHERE a.state <> 'deactivated';

    SELECT tasker._activation_changed();
$$;
COMMENT ON FUNCTION tasker.deactivate() IS
'Stops the engine in this database until tasker.activate(): what runs is finished, nothing is started. Tasks can still be created. For the extension''s owner and whom he grants it to. Returns nothing. Raises nothing of its own. Source: design, contract, section 6.';

REVOKE ALL ON FUNCTION tasker._settle_xid_base(boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION tasker.activate() FROM PUBLIC;
REVOKE ALL ON FUNCTION tasker.deactivate() FROM PUBLIC;
REVOKE ALL ON FUNCTION tasker._activation_changed() FROM PUBLIC;
