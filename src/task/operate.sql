-- What an operator does to tasks and steps.  The moves themselves are the state
-- room's; these functions name them.

CREATE FUNCTION tasker._operate_task(operation text, task_id bigint, reason text)
RETURNS text
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_operate_task';
COMMENT ON FUNCTION tasker._operate_task(text, bigint, text) IS
'Does cancel, pause, resume, retry or resolve to a task, holding it alone; returns its new state. Raises TK004, TK007, TK009. Private.';

CREATE FUNCTION tasker._operate_step(operation text, step_id bigint, results jsonb, reason text)
RETURNS text
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_operate_step';
COMMENT ON FUNCTION tasker._operate_step(text, bigint, jsonb, text) IS
'Does cancel, retry or resolve to a step, holding its task alone; returns its new state. update changes nothing but makes sure that an executor reads the step''s row. Raises TK004, TK007, TK009. Private.';

CREATE FUNCTION tasker._cancel_task(task_id bigint, reason text)
RETURNS text
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT tasker._require_task('task:cancel', task_id);
    SELECT tasker._operate_task('cancel', task_id, reason);
$$;
COMMENT ON FUNCTION tasker._cancel_task(bigint, text) IS
'What tasker.cancel_task() does, for its caller. Private.';

CREATE FUNCTION tasker.cancel_task(task_id bigint, reason text DEFAULT NULL)
RETURNS text
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.cancel_task(bigint, text) IS
'Cancels a task and every step of it that has not ended; waits for handlers of it that run. A later completion by a worker outside gets TK003. Arguments: task_id; reason, kept in the log. Returns the new state. Raises TK004 for a task that is cancelled already, TK007 for an unknown one, TK009 from a handler of the task itself. Source: design, contract, "Tasks" and "State machines"; reference 2.1.';

CREATE FUNCTION tasker._pause_task(task_id bigint)
RETURNS text
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT tasker._require_task('task:pause', task_id);
    SELECT tasker._operate_task('pause', task_id, NULL);
$$;
COMMENT ON FUNCTION tasker._pause_task(bigint) IS
'What tasker.pause_task() does, for its caller. Private.';

CREATE FUNCTION tasker.pause_task(task_id bigint)
RETURNS text
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.pause_task(bigint) IS
'Starts no further step of a task until tasker.resume_task(); waits for handlers of it that run, and lets workers outside finish what they hold. Argument: task_id. Returns the new state. Raises TK004 for a task that has ended or is paused, TK007, TK009. Source: design, contract, "Tasks".';

CREATE FUNCTION tasker._resume_task(task_id bigint)
RETURNS text
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT tasker._require_task('task:pause', task_id);
    SELECT tasker._operate_task('resume', task_id, NULL);
$$;
COMMENT ON FUNCTION tasker._resume_task(bigint) IS
'What tasker.resume_task() does, for its caller. Private.';

CREATE FUNCTION tasker.resume_task(task_id bigint)
RETURNS text
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.resume_task(bigint) IS
'Lets a paused task go on where it was. Argument: task_id. Returns the new state. Raises TK004 for a task that is not paused, TK007, TK009. Source: design, contract, "Tasks".';

CREATE FUNCTION tasker._retry_task(task_id bigint)
RETURNS text
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT tasker._require_task('task:retry', task_id);
    SELECT tasker._operate_task('retry', task_id, NULL);
$$;
COMMENT ON FUNCTION tasker._retry_task(bigint) IS
'What tasker.retry_task() does, for its caller. Private.';

CREATE FUNCTION tasker.retry_task(task_id bigint)
RETURNS text
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.retry_task(bigint) IS
'Reopens a task in error: each of its failed steps gets its limit of attempts anew. Argument: task_id. Returns the new state. Raises TK004 for a task that is not in error, TK007, TK009. Source: design, contract, "Tasks"; reference 2.1.';

CREATE FUNCTION tasker._resolve_task(task_id bigint, reason text)
RETURNS text
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT tasker._require_task('task:resolve', task_id);
    SELECT tasker._operate_task('resolve', task_id, reason);
$$;
COMMENT ON FUNCTION tasker._resolve_task(bigint, text) IS
'What tasker.resolve_task() does, for its caller. Private.';

CREATE FUNCTION tasker.resolve_task(task_id bigint, reason text)
RETURNS text
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.resolve_task(bigint, text) IS
'Declares a task in error dealt with by hand; its steps stay as they are. Arguments: task_id; reason, kept in the log. Returns the new state. Raises TK004 for a task that is not in error, TK007, TK009. Source: design, contract, "Tasks"; reference 2.1.';

CREATE FUNCTION tasker._update_task(
    task_id bigint,
    reason text,
    tags text[],
    priority integer)
RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    state text;
BEGIN
    PERFORM tasker._require_task('task:update', task_id);
    UPDATE tasker.task AS t
    SET reason = coalesce(_update_task.reason, t.reason),
        tags = CASE WHEN _update_task.tags IS NULL THEN t.tags ELSE nullif(_update_task.tags, '{}') END,
        priority = coalesce(_update_task.priority, t.priority)
    WHERE t.task_id = _update_task.task_id
    RETURNING tasker._task_state(t.state)
    INTO state;
    IF NOT FOUND THEN
        PERFORM tasker._refuse_unknown_task(task_id);
    END IF;
    IF priority IS NOT NULL THEN
        PERFORM tasker._note_kept();
        -- What somebody has in hand waits no more; to wait for him, who waits
        -- for the task's row, would be a deadlock.
        WITH waiting AS (
            SELECT q.step_no
            FROM tasker.queue AS q
            WHERE q.task_id = _update_task.task_id
              AND q.lane <> -1
            FOR UPDATE SKIP LOCKED
        )
        UPDATE tasker.queue AS q
        SET rank = -_update_task.priority
        FROM waiting AS w
        WHERE q.task_id = _update_task.task_id
          AND q.step_no = w.step_no;
    END IF;
    RETURN state;
END;
$$;
COMMENT ON FUNCTION tasker._update_task(bigint, text, text[], integer) IS
'What tasker.update_task() does, for its caller. Private.';

CREATE FUNCTION tasker.update_task(
    task_id bigint,
    reason text DEFAULT NULL,
    tags text[] DEFAULT NULL,
    priority integer DEFAULT NULL)
RETURNS text
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.update_task(bigint, text, text[], integer) IS
'Changes what is NOT NULL of a task''s reason, tags and priority; the priority counts for what waits from now on. Arguments: task_id; reason; tags, replacing those there are; priority, higher goes first. Returns the state, which does not change. Raises TK007 for an unknown task. Source: design, contract, "Tasks"; reference 9.1.';

CREATE FUNCTION tasker._cancel_step(step_id bigint, reason text)
RETURNS text
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT tasker._require_step('workflow_step:cancel', step_id);
    SELECT tasker._operate_step('cancel', step_id, NULL, reason);
$$;
COMMENT ON FUNCTION tasker._cancel_step(bigint, text) IS
'What tasker.cancel_step() does, for its caller. Private.';

CREATE FUNCTION tasker.cancel_step(step_id bigint, reason text DEFAULT NULL)
RETURNS text
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.cancel_step(bigint, text) IS
'Cancels a step and those that need it, directly or not; the rest of the task goes on. Arguments: step_id; reason, kept in the log. Returns the new state. Raises TK004 for a step that has ended or a task that is over, TK007, TK009. Source: design, contract, "Tasks" and "State machines"; reference 2.2.';

CREATE FUNCTION tasker._retry_step(step_id bigint)
RETURNS text
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT tasker._require_step('workflow_step:retry', step_id);
    SELECT tasker._operate_step('retry', step_id, NULL, NULL);
$$;
COMMENT ON FUNCTION tasker._retry_step(bigint) IS
'What tasker.retry_step() does, for its caller. Private.';

CREATE FUNCTION tasker.retry_step(step_id bigint)
RETURNS text
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.retry_step(bigint) IS
'Starts a failed step anew with its limit of attempts once more (attempts goes on counting), or one that waits for its retry at once; reopens the task where that is in error. Argument: step_id. Returns the new state. Raises TK004, TK007, TK009. Source: design, contract, "Tasks"; reference 2.2.';

CREATE FUNCTION tasker._resolve_step(
    step_id bigint,
    results jsonb,
    reason text)
RETURNS text
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT tasker._require_step('workflow_step:resolve', step_id);
    SELECT tasker._operate_step('resolve', step_id, results, reason);
$$;
COMMENT ON FUNCTION tasker._resolve_step(bigint, jsonb, text) IS
'What tasker.resolve_step() does, for its caller. Private.';

CREATE FUNCTION tasker.resolve_step(
    step_id bigint,
    results jsonb DEFAULT NULL,
    reason text DEFAULT NULL)
RETURNS text
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.resolve_step(bigint, jsonb, text) IS
'Declares a step done by hand: those that need it go on, and get results as if its handler had returned them; reopens the task where that is in error. Arguments: step_id; results; reason, kept in the log. Returns the new state. Raises TK004, TK007, TK009. Source: design, contract, "Tasks"; reference 2.2.';

CREATE FUNCTION tasker._update_step(
    step_id bigint,
    retry_limit integer,
    inputs jsonb)
RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    task bigint := step_id >> 14;
    number smallint := step_id & 16383;
    state text;
BEGIN
    PERFORM tasker._require_step('workflow_step:update', step_id);
    IF retry_limit NOT BETWEEN 1 AND 32767 THEN
        RAISE EXCEPTION 'retry_limit must be between 1 and 32767'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('It is %s.', retry_limit);
    END IF;
    state := tasker._operate_step('update', step_id, NULL, NULL);
    IF state IN ('complete', 'cancelled', 'resolved_manually', 'skipped') THEN
        RAISE EXCEPTION 'a step that is % can''t be changed', state
            USING ERRCODE = 'TK004',
                  DETAIL = format('Step %s is %s.', step_id, state),
                  HINT = 'That state is final.';
    END IF;
    INSERT INTO tasker.step AS s (task_id, step_no, state, attempts, retry_limit, inputs)
    VALUES (task, number, 0, 0, _update_step.retry_limit, _update_step.inputs)
    ON CONFLICT (task_id, step_no) DO UPDATE
    SET retry_limit = coalesce(EXCLUDED.retry_limit, s.retry_limit),
        inputs = coalesce(EXCLUDED.inputs, s.inputs);
    RETURN state;
END;
$$;
COMMENT ON FUNCTION tasker._update_step(bigint, integer, jsonb) IS
'What tasker.update_step() does, for its caller. Private.';

CREATE FUNCTION tasker.update_step(
    step_id bigint,
    retry_limit integer DEFAULT NULL,
    inputs jsonb DEFAULT NULL)
RETURNS text
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.update_step(bigint, integer, jsonb) IS
'Changes what is NOT NULL of a step''s limit of attempts and inputs, from its next attempt on. Arguments: step_id; retry_limit, attempts in all; inputs, which its handler gets instead of the task''s context. Returns the state, which does not change. Raises 22023 for a limit below 1, TK004 for a step that has ended, TK007, TK009. Source: design, contract, "Tasks"; reference 9.1.';
