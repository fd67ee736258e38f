CREATE FUNCTION tasker.wait_for_task(
    task_id bigint,
    timeout interval DEFAULT '30 s')
RETURNS text
LANGUAGE C VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'tasker_wait_for_task';
COMMENT ON FUNCTION tasker.wait_for_task(bigint, interval) IS
'Waits until task task_id has ended (complete, error, cancelled or resolved_manually) and returns its state; when timeout is up, the state it has then. A timeout of 0 or less looks once, NULL waits as long as it takes. It holds a snapshot meanwhile. Raises TK007 where there is no such task; TK009 where it could never end while we wait: created or changed by this transaction, under REPEATABLE READ or SERIALIZABLE, or called by a handler. Source: design, contract.';
