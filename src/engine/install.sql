-- Last: whose database this is, and that the engine may start.  A session that
-- restores a dump is told by what pg_dump's output sets at its beginning,
-- row_security off (check_function_bodies, which it sets as well, is off in
-- every CREATE EXTENSION), or by its name.  Where both miss, the rows of
-- tasker.origin that the restore brings stop the engine all the same.

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
       CASE WHEN r.restoring THEN 'restored' ELSE 'active' END,
       CASE WHEN NOT r.restoring THEN i.system_identifier END
FROM tasker._identity() AS i
CROSS JOIN (
    SELECT NOT pg_catalog.current_setting('row_security')::boolean
           OR pg_catalog.current_setting('application_name') = 'pg_restore') AS r (restoring);

INSERT INTO tasker.origin (system_identifier, database_oid)
SELECT a.system_identifier, a.database_oid
FROM tasker.activation AS a
WHERE a.state = 'active';

SELECT tasker._installed(a.state = 'restored')
FROM tasker.activation AS a;
