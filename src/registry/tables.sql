-- Who runs the steps: SQL functions, and names that workers outside claim.

CREATE SEQUENCE tasker.handler_id_seq AS integer START 100;
COMMENT ON SEQUENCE tasker.handler_id_seq IS 'Ids of tasker.handler. They start at 100: the numbers below are the queue''s own lanes.';

CREATE TABLE tasker.handler (
    handler_id integer PRIMARY KEY DEFAULT pg_catalog.nextval('tasker.handler_id_seq'),
    namespace text NOT NULL,
    name text NOT NULL,
    version text,
    kind text NOT NULL CHECK (kind IN ('sql', 'external')),
    function text,
    run_as text,
    search_path text,
    transaction text NOT NULL DEFAULT 'shared' CHECK (transaction IN ('shared', 'own')),
    registered_at timestamptz NOT NULL DEFAULT tasker.clock()
);
CREATE UNIQUE INDEX handler_name ON tasker.handler (namespace, name, version) NULLS NOT DISTINCT;
COMMENT ON TABLE tasker.handler IS 'A registered handler. A step looks for its handler_class in the task''s namespace, then in default, each time for the exact version before the one for all.';
COMMENT ON COLUMN tasker.handler.handler_id IS 'Key, and the lane of the queue in which an external handler''s steps wait.';
COMMENT ON COLUMN tasker.handler.namespace IS 'Namespace it serves; default serves every one that has no handler of that name of its own.';
COMMENT ON COLUMN tasker.handler.name IS 'What definitions call handler_class.';
COMMENT ON COLUMN tasker.handler.version IS 'Task version it serves; NULL: every one.';
COMMENT ON COLUMN tasker.handler.kind IS 'sql: a function run by an executor; external: claimed by workers outside.';
COMMENT ON COLUMN tasker.handler.function IS 'Qualified name of the function of a sql handler, quoted where it must be. Its argument is tasker.step_context.';
COMMENT ON COLUMN tasker.handler.run_as IS 'Role that registered it, and that it runs as.';
COMMENT ON COLUMN tasker.handler.search_path IS 'search_path that was in force at registration, and that it runs with.';
COMMENT ON COLUMN tasker.handler.transaction IS 'shared: runs in the executor''s batch; own: each run has a transaction of its own.';
COMMENT ON COLUMN tasker.handler.registered_at IS 'When it was registered, or last replaced.';

SELECT pg_catalog.pg_extension_config_dump('tasker.handler_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('tasker.handler', '');

CREATE FUNCTION tasker._definitions_changed()
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_definitions_changed';
COMMENT ON FUNCTION tasker._definitions_changed() IS
'Has every backend look the handlers up anew once this transaction has committed. Private.';
