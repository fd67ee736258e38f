-- Steps over REST.

CREATE FUNCTION tasker._rest_check_step(of_task bigint, of_step bigint)
RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (
        SELECT
        FROM tasker.task AS t
        JOIN tasker.plan_step AS s USING (plan_id)
        WHERE t.task_id = of_task
          AND of_step >> 14 = of_task
          AND s.step_no = of_step & 16383) THEN
        RAISE EXCEPTION USING
            ERRCODE = 'TK007',
            MESSAGE = format('task %s has no step %s', of_task, of_step),
            DETAIL = format('No step of task %s has the id %s.', of_task, of_step),
            HINT = format('GET /tasker/tasks/%s/workflow_steps lists them.', of_task);
    END IF;
END;
$$;
COMMENT ON FUNCTION tasker._rest_check_step(bigint, bigint) IS
'Raises TK007 for a step that is not one of that task. Private.';

CREATE FUNCTION tasker._rest_step(of_step bigint)
RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT jsonb_build_object('step',
               tasker._step_documents(of_step >> 14, (of_step & 16383)::integer, (of_step & 16383)::integer) -> 0);
$$;
COMMENT ON FUNCTION tasker._rest_step(bigint) IS
'A step as an answer has it. Private.';

CREATE FUNCTION tasker._rest_list_steps(
    of_task bigint,
    page_size integer,
    cursor text,
    OUT body jsonb,
    OUT next text)
RETURNS record
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    place constant integer := least(coalesce(tasker._rest_cursor(cursor), 0), 16383);
    count integer;
BEGIN
    PERFORM tasker._require('workflow_step:index', tasker._rest_task_namespace(of_task));
    SELECT p.step_count
    INTO count
    FROM tasker.task AS t
    JOIN tasker.plan AS p USING (plan_id)
    WHERE t.task_id = of_task;
    body := jsonb_build_object('steps', tasker._step_documents(of_task, place + 1, place + page_size));
    IF place + page_size < count THEN
        next := place + page_size;
    END IF;
END;
$$;
COMMENT ON FUNCTION tasker._rest_list_steps(bigint, integer, text) IS
'A page of a task''s steps, in the order of the definition. Raises TK007. Private.';

CREATE FUNCTION tasker._rest_show_step(of_task bigint, of_step bigint)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET enable_seqscan = off
SET jit = off
AS $$
BEGIN
    PERFORM tasker._require('workflow_step:show', tasker._rest_task_namespace(of_task));
    PERFORM tasker._rest_check_step(of_task, of_step);
    RETURN jsonb_set(tasker._rest_step(of_step), '{step,attempts_log}', coalesce((
        SELECT jsonb_agg(jsonb_build_object(
                   'transition_id', m.id::text,
                   'occurred_at', m.at,
                   'from_state', tasker._step_state(m.from_state),
                   'to_state', tasker._step_state(m.to_state),
                   'attempt', m.attempt,
                   'metadata', m.metadata) ORDER BY m.at, m.id)
        FROM (SELECT m.*
              FROM tasker._move AS m
              WHERE m.task_id = of_task
                AND m.step_no = of_step & 16383
              ORDER BY m.at DESC, m.id DESC
              LIMIT 100) AS m), '[]'));
END;
$$;
COMMENT ON FUNCTION tasker._rest_show_step(bigint, bigint) IS
'A step with what happened to it, the last hundred changes. Raises TK007. Private.';

CREATE FUNCTION tasker._rest_update_step(of_task bigint, of_step bigint, document text)
RETURNS jsonb
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    fields constant jsonb := tasker._rest_fields(document, 'workflow_step', tasker._rest_schema('step_changes'));
BEGIN
    PERFORM tasker._rest_check_step(of_task, of_step);
    PERFORM tasker.update_step(of_step, (fields ->> 'retry_limit')::integer, fields -> 'inputs');
    RETURN tasker._rest_step(of_step);
END;
$$;
COMMENT ON FUNCTION tasker._rest_update_step(bigint, bigint, text) IS
'Changes what a body has of a step''s retry_limit and inputs. Raises what tasker.update_step() and tasker._rest_fields() do. Private.';

CREATE FUNCTION tasker._rest_operate_step(operation text, of_task bigint, of_step bigint, reason text, document text)
RETURNS jsonb
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    fields constant jsonb := tasker._rest_fields(document, NULL, tasker._rest_schema(
        CASE operation WHEN 'resolve' THEN 'step_resolution' ELSE 'reason' END));
    why constant text := coalesce(fields ->> 'reason', reason);
BEGIN
    PERFORM tasker._rest_check_step(of_task, of_step);
    CASE operation
        WHEN 'cancel' THEN
            PERFORM tasker.cancel_step(of_step, why);
            RETURN jsonb_build_object('cancelled', true);
        WHEN 'retry' THEN
            PERFORM tasker.retry_step(of_step);
        WHEN 'resolve' THEN
            PERFORM tasker.resolve_step(of_step, fields -> 'results', why);
    END CASE;
    RETURN tasker._rest_step(of_step);
END;
$$;
COMMENT ON FUNCTION tasker._rest_operate_step(text, bigint, bigint, text, text) IS
'Does cancel, retry or resolve to a step. Raises what the public function of that name does. Private.';
