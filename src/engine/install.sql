-- Last: whose database this is, and that the engine may start.  pg_dump's
-- output switches check_function_bodies off; a person who creates the
-- extension does not.

CREATE FUNCTION tasker._installed(restoring boolean)
RETURNS void
LANGUAGE C VOLATILE STRICT
AS 'MODULE_PATHNAME', 'tasker_sql_installed';
COMMENT ON FUNCTION tasker._installed(boolean) IS
'Has the launcher start this database''s workers when the transaction has committed; restoring: this session restores a dump. Private.';
REVOKE ALL ON FUNCTION tasker._installed(boolean) FROM PUBLIC;

INSERT INTO tasker.activation (system_identifier, database_oid, state, xid_system)
SELECT i.system_identifier,
       i.database_oid,
       CASE WHEN pg_catalog.current_setting('check_function_bodies')::boolean THEN 'active'
            ELSE 'restored' END,
       CASE WHEN pg_catalog.current_setting('check_function_bodies')::boolean
            THEN i.system_identifier END
FROM tasker._identity() AS i;

INSERT INTO tasker.origin (system_identifier, database_oid)
SELECT a.system_identifier, a.database_oid
FROM tasker.activation AS a
WHERE a.state = 'active';

SELECT tasker._installed(NOT pg_catalog.current_setting('check_function_bodies')::boolean);
