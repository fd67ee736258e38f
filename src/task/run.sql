-- A whole graph in the caller's transaction.

CREATE FUNCTION tasker._run_in_place(task_id bigint)
RETURNS void
LANGUAGE C VOLATILE STRICT
AS 'MODULE_PATHNAME', 'tasker_run_in_place';
COMMENT ON FUNCTION tasker._run_in_place(bigint) IS
'Runs a task that this transaction created and that has no token to its end. Raises TK009. Private.';

CREATE FUNCTION tasker._run_task(
    name text,
    context jsonb,
    namespace text,
    version text,
    initiator text,
    reason text,
    source_system text,
    tags text[],
    bypass_steps text[],
    correlation_id text,
    traceparent text)
RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    id bigint;
BEGIN
    PERFORM tasker._require('task:create', coalesce(namespace, 'default'));
    id := (tasker._create_tasks(tasker._current_plan(name, coalesce(namespace, 'default'), version), ARRAY[context],
                                initiator, reason, source_system, tags, bypass_steps, NULL, NULL, NULL,
                                correlation_id, traceparent))[1];
    DELETE FROM tasker.queue AS q
    WHERE q.task_id = id;
    PERFORM tasker._run_in_place(id);
    RETURN tasker.task_status(id);
END;
$$;
COMMENT ON FUNCTION tasker._run_task(text, jsonb, text, text, text, text, text, text[], text[], text, text) IS
'What tasker.run_task() does, for its caller. Private.';

CREATE FUNCTION tasker.run_task(
    name text,
    context jsonb DEFAULT '{}',
    namespace text DEFAULT 'default',
    version text DEFAULT NULL,
    initiator text DEFAULT NULL,
    reason text DEFAULT NULL,
    source_system text DEFAULT NULL,
    tags text[] DEFAULT '{}',
    bypass_steps text[] DEFAULT '{}',
    correlation_id text DEFAULT NULL,
    traceparent text DEFAULT NULL)
RETURNS jsonb
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.run_task(text, jsonb, text, text, text, text, text, text[], text[], text, text) IS
'Creates a task and runs its whole graph now, in the caller''s transaction: SQL handlers only, under their registrars'' roles, retries without their delay. After ROLLBACK nothing of it remains, which makes it a dry run. Deferred triggers that handlers arm fire at the caller''s commit. Arguments as of tasker.create_task(). Returns tasker.task_status() of the task. Raises TK006, TK007, TK009 for a step that is no SQL function''s. Source: design, contract, "Tasks".';
