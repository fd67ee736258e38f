-- A task, or some of its steps, in one document.

-- TimeZone is fixed, so that the documents are the same in every session.  One
-- plan serves every task, as in step_readiness_batch().
CREATE FUNCTION tasker._step_documents(task_id bigint, from_no integer, to_no integer)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET enable_seqscan = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN (
        WITH steps AS (
            SELECT t.task_id, s.step_no, s.name, s.retryable, s.skippable, s.handler_class, s.parents, s.children, s.level,
                   s.retry_limit,
                   count(*) OVER (PARTITION BY s.parents) - 1 AS siblings_count
            FROM tasker.task AS t
            JOIN tasker.plan_step AS s USING (plan_id)
            WHERE t.task_id = $1
        ),
        related AS (
            -- A fan-out of n steps has n * n siblings: beyond a hundred the count has to do.
            SELECT s.*,
                   array_agg(s.step_no) FILTER (WHERE s.siblings_count <= 100)
                       OVER (PARTITION BY s.parents) AS same_parents
            FROM steps AS s
        ),
        wanted AS (
            SELECT s.step_no, s.name, s.retryable, s.skippable, s.handler_class, s.parents, s.children, s.level,
                   s.task_id, s.siblings_count, s.same_parents,
                   coalesce(r.retry_limit, s.retry_limit) AS retry_limit,
                   tasker._step_state(coalesce(r.state, 0::smallint))::text AS state,
                   coalesce(r.attempts, 0::smallint) AS attempts,
                   r.results, r.error, r.inputs, r.claimed_by, r.lease_until,
                   r.next_attempt_at, r.started_at, r.finished_at
            FROM related AS s
            LEFT JOIN LATERAL (
                SELECT x.*
                FROM tasker.step AS x
                WHERE x.task_id = s.task_id
                  AND x.step_no = s.step_no
                OFFSET 0) AS r ON true
            WHERE s.step_no BETWEEN from_no AND to_no
        )
        SELECT coalesce(jsonb_agg(jsonb_build_object(
                   'step_id', s.task_id << 14 | s.step_no,
                   'task_id', s.task_id,
                   'name', s.name,
                   'handler_class', s.handler_class,
                   'state', s.state,
                   'status', s.state,
                   'attempts', s.attempts,
                   'retry_limit', s.retry_limit,
                   'retryable', s.retryable,
                   'skippable', s.skippable,
                   'inputs', s.inputs,
                   'results', s.results,
                   'error', s.error,
                   'claimed_by', s.claimed_by,
                   'lease_until', s.lease_until,
                   'next_attempt_at', s.next_attempt_at,
                   'started_at', s.started_at,
                   'finished_at', s.finished_at,
                   'dependency_level', s.level,
                   'parents_ids', (SELECT coalesce(jsonb_agg(s.task_id << 14 | n ORDER BY n), '[]')
                                   FROM unnest(s.parents) AS n),
                   'children_ids', (SELECT coalesce(jsonb_agg(s.task_id << 14 | n ORDER BY n), '[]')
                                    FROM unnest(s.children) AS n),
                   'siblings_ids', CASE WHEN s.siblings_count <= 100 THEN
                                       (SELECT coalesce(jsonb_agg(s.task_id << 14 | n ORDER BY n), '[]')
                                        FROM unnest(s.same_parents) AS n
                                        WHERE n <> s.step_no) END,
                   'siblings_count', s.siblings_count)
                   ORDER BY s.step_no), '[]')
        FROM wanted AS s);
END;
$$;
COMMENT ON FUNCTION tasker._step_documents(bigint, integer, integer) IS
'The steps of a task with these numbers, from one to the other, as tasker.task_status() lists them. Private.';

CREATE FUNCTION tasker._refuse_unknown_task(task_id bigint)
RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'task % does not exist', coalesce($1::text, 'NULL')
        USING ERRCODE = 'TK007',
              DETAIL = format('No task has the id %s.', coalesce($1::text, 'NULL')),
              HINT = 'The view tasker.tasks lists the tasks there are.';
END;
$$;
COMMENT ON FUNCTION tasker._refuse_unknown_task(bigint) IS
'Raises TK007 for a task that does not exist. Private.';

CREATE FUNCTION tasker.task_status(task_id bigint)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET enable_seqscan = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    status jsonb;
BEGIN
    SELECT h.head
        || jsonb_build_object(
               'execution', (SELECT to_jsonb(c)
                             FROM tasker.task_execution_contexts(ARRAY[h.task_id]) AS c),
               'workflow_steps', tasker._step_documents(h.task_id, 1, 16383))
    INTO status
    FROM tasker._task_head AS h
    WHERE h.task_id = $1;

    IF status IS NULL THEN
        PERFORM tasker._refuse_unknown_task($1);
    END IF;
    RETURN status;
END;
$$;
COMMENT ON FUNCTION tasker.task_status(bigint) IS
'Returns task task_id with all its steps as one object. Of the task: task_id, name, namespace, version, full_name (namespace.name@version), state and status (the same), complete, error, context, initiator, source_system, reason, tags, bypass_steps, priority, idempotency_key, environment, correlation_id, traceparent, created_at and requested_at (the same), run_at, started_at, finished_at, execution (the row of tasker.task_execution_context()), workflow_steps. Of each step, in the order of the definition: step_id, task_id, name, handler_class, state and status, attempts, retry_limit, retryable, skippable, inputs (what an operator gave it; null: the task''s context), results, error, claimed_by, lease_until, next_attempt_at, started_at, finished_at, dependency_level, parents_ids, children_ids, siblings_ids (other steps with the same parents; null where there are more than a hundred), siblings_count. Times are in UTC. Raises TK007 (there is no such task). Source: design, Tasks; reference 1.10, 9.1.';
