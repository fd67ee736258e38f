CREATE FUNCTION tasker._wait_for_task(
    task_id bigint,
    timeout interval)
RETURNS text
LANGUAGE C VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'tasker_wait_for_task';
COMMENT ON FUNCTION tasker._wait_for_task(bigint, interval) IS
'What tasker.wait_for_task() does, for its caller. Private.';

CREATE FUNCTION tasker.wait_for_task(
    task_id bigint,
    timeout interval DEFAULT '30 s')
RETURNS text
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.wait_for_task(bigint, interval) IS
'Waits until task task_id has ended (complete, error, cancelled or resolved_manually) and returns its state; when timeout is up, the state it has then. A timeout of 0 or less looks once, NULL waits as long as it takes. It holds a snapshot meanwhile. Raises TK007 where there is no such task; TK009 where it could never end while we wait: created or changed by this transaction, under REPEATABLE READ or SERIALIZABLE, or called by a handler. Source: design, contract.';

CREATE PROCEDURE tasker.wait(
    task_id bigint,
    timeout interval DEFAULT '30 s',
    INOUT state text DEFAULT NULL)
LANGUAGE C
AS 'MODULE_PATHNAME', 'tasker_wait';
COMMENT ON PROCEDURE tasker.wait(bigint, interval, text) IS
'Waits like tasker.wait_for_task(), but holds neither a snapshot nor a lock meanwhile, so it does not stand in the way of vacuum: it commits the transaction of its caller first, and so may wait for a task that this has created. Arguments: task_id; timeout, 0 or less looks once, NULL waits as long as it takes; state, an output only. Returns state, that of the task at its end or when time is up. Raises TK007 where there is no such task; TK009 in a transaction block, in a function, and in a handler. Source: design, contract.';
