-- Tasks over REST.

CREATE FUNCTION tasker._rest_task(task_id bigint)
RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT jsonb_build_object('task', tasker.task_status(task_id));
$$;
COMMENT ON FUNCTION tasker._rest_task(bigint) IS
'A task as an answer has it. Raises TK007. Private.';

-- Counted by the owner: rows that the caller may not see take their time, too.
CREATE FUNCTION tasker._rest_stretch_end(start bigint, is_rising boolean, stretch integer)
RETURNS bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    IF is_rising THEN
        RETURN (
            SELECT t.task_id
            FROM tasker.task AS t
            WHERE t.task_id > start
            ORDER BY t.task_id
            OFFSET stretch - 1
            LIMIT 1);
    END IF;
    RETURN (
        SELECT t.task_id
        FROM tasker.task AS t
        WHERE t.task_id < start
        ORDER BY t.task_id DESC
        OFFSET stretch - 1
        LIMIT 1);
END;
$$;
COMMENT ON FUNCTION tasker._rest_stretch_end(bigint, boolean, integer) IS
'Id of the task that many behind one; NULL where there are not so many. Private.';

-- Tasks have no index but their key.  So a page looks at tasks in the order of
-- their ids, in stretches that grow, and at no more than 100,000 of them: where
-- that is not enough, the next page goes on from there.
CREATE FUNCTION tasker._rest_list_tasks(
    of_namespace text,
    of_name text,
    of_version text,
    of_status text,
    of_tags text[],
    of_initiator text,
    of_source_system text,
    of_correlation_id text,
    after timestamptz,
    before timestamptz,
    q text,
    direction text,
    page_size integer,
    cursor text,
    OUT body jsonb,
    OUT next text)
RETURNS record
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    most constant integer := 100000;
    is_rising constant boolean := direction = 'asc';
    place bigint := coalesce(tasker._rest_cursor(cursor), CASE WHEN is_rising THEN -1 ELSE 9223372036854775807 END);
    upto bigint;
    stretch integer := 10 * page_size;
    looked integer := 0;
    of_state constant smallint := tasker._state_code('task', of_status);
    of_task constant bigint := CASE WHEN q ~ '^[0-9]{1,18}$' THEN q::bigint END;
    of_plans integer[];
    ids bigint[] := '{}';
BEGIN
    PERFORM tasker._require('task:index', of_namespace);
    IF num_nonnulls(of_namespace, of_name, of_version) > 0 OR of_task IS NULL AND q <> '' THEN
        of_plans := ARRAY(
            SELECT p.plan_id
            FROM tasker.plan AS p
            WHERE (of_namespace IS NULL OR p.namespace = of_namespace)
              AND (of_name IS NULL OR p.name = of_name)
              AND (of_version IS NULL OR p.version = of_version)
              AND (of_task IS NOT NULL OR q IS NULL OR strpos(lower(p.name), lower(q)) > 0));
    END IF;
    IF of_task IS NOT NULL THEN
        -- a stretch of one
        IF (is_rising AND of_task > place) OR (NOT is_rising AND of_task < place) THEN
            place := of_task + CASE WHEN is_rising THEN -1 ELSE 1 END;
            upto := of_task;
        ELSE
            of_plans := '{}';
        END IF;
    END IF;
    WHILE of_plans IS DISTINCT FROM '{}' LOOP
        IF of_task IS NULL THEN
            upto := tasker._rest_stretch_end(place, is_rising, stretch);
        END IF;
        IF is_rising THEN
            ids := ids || ARRAY(
                SELECT t.task_id
                FROM tasker.task AS t
                WHERE t.task_id > place
                  AND t.task_id <= coalesce(upto, 9223372036854775807)
                  AND (of_plans IS NULL OR t.plan_id = ANY (of_plans))
                  AND (of_state IS NULL OR t.state = of_state)
                  AND (of_tags IS NULL OR t.tags @> of_tags)
                  AND (of_initiator IS NULL OR t.initiator = of_initiator)
                  AND (of_source_system IS NULL OR t.source_system = of_source_system)
                  AND (of_correlation_id IS NULL OR t.correlation_id = of_correlation_id)
                  AND (after IS NULL OR t.created_at >= after)
                  AND (before IS NULL OR t.created_at < before)
                ORDER BY t.task_id
                LIMIT page_size + 1 - cardinality(ids));
        ELSE
            ids := ids || ARRAY(
                SELECT t.task_id
                FROM tasker.task AS t
                WHERE t.task_id < place
                  AND t.task_id >= coalesce(upto, 0)
                  AND (of_plans IS NULL OR t.plan_id = ANY (of_plans))
                  AND (of_state IS NULL OR t.state = of_state)
                  AND (of_tags IS NULL OR t.tags @> of_tags)
                  AND (of_initiator IS NULL OR t.initiator = of_initiator)
                  AND (of_source_system IS NULL OR t.source_system = of_source_system)
                  AND (of_correlation_id IS NULL OR t.correlation_id = of_correlation_id)
                  AND (after IS NULL OR t.created_at >= after)
                  AND (before IS NULL OR t.created_at < before)
                ORDER BY t.task_id DESC
                LIMIT page_size + 1 - cardinality(ids));
        END IF;
        looked := looked + stretch;
        EXIT WHEN cardinality(ids) > page_size OR upto IS NULL OR looked >= most OR of_task IS NOT NULL;
        place := upto;
        stretch := least(10 * stretch, most - looked);
    END LOOP;

    IF cardinality(ids) > page_size THEN
        next := ids[page_size];
        ids := ids[:page_size];
    ELSIF upto IS NOT NULL AND of_task IS NULL THEN
        next := upto;
    END IF;
    SELECT jsonb_build_object('tasks', coalesce(jsonb_agg(h.head || jsonb_build_object('steps', c.counts) ORDER BY i.n), '[]'))
    INTO body
    FROM unnest(ids) WITH ORDINALITY AS i (task_id, n)
    CROSS JOIN LATERAL (
        SELECT h.head
        FROM tasker._task_head AS h
        WHERE h.task_id = i.task_id
        OFFSET 0) AS h
    CROSS JOIN LATERAL tasker._rest_step_counts(i.task_id) AS c (counts);
END;
$$;
COMMENT ON FUNCTION tasker._rest_list_tasks(text, text, text, text, text[], text, text, text, timestamptz, timestamptz, text, text, integer, text) IS
'A page of tasks, by what is NOT NULL of namespace, name, version, status, tags (all of them), initiator, source system, correlation id, time of creation (from, and before), an id or a part of the name; asc or desc by id. Looks at 100,000 tasks at most: a page may have fewer than it asks for, and a next one. Private.';

CREATE FUNCTION tasker._rest_step_counts(task_id bigint)
RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
    SELECT jsonb_build_object('total', p.step_count)
        || CASE WHEN p.step_count <= 100 THEN (
               SELECT jsonb_build_object(
                          'complete', count(*) FILTER (WHERE tasker._step_state(s.state)::text IN ('complete', 'resolved_manually', 'skipped')),
                          'in_progress', count(*) FILTER (WHERE s.state = tasker._state_code('step', 'in_progress')),
                          'waiting_for_retry', count(*) FILTER (WHERE s.state = tasker._state_code('step', 'waiting_for_retry')),
                          'error', count(*) FILTER (WHERE s.state = tasker._state_code('step', 'error')),
                          'cancelled', count(*) FILTER (WHERE s.state = tasker._state_code('step', 'cancelled')))
               FROM tasker.step AS s
               WHERE s.task_id = t.task_id)
           ELSE '{}' END
    FROM tasker.task AS t
    JOIN tasker.plan AS p USING (plan_id)
    WHERE t.task_id = $1;
$$;
COMMENT ON FUNCTION tasker._rest_step_counts(bigint) IS
'How many steps a task has and, up to a hundred, how many of them are in which state; complete, resolved by hand and skipped are one. Private.';

CREATE FUNCTION tasker._rest_create_task(
    key_header text,
    correlation_header text,
    trace_header text,
    document text,
    OUT status integer,
    OUT location text,
    OUT body jsonb)
RETURNS record
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    fields constant jsonb := tasker._rest_fields(document, 'task', tasker._rest_schema('new_task'));
    task bigint;
BEGIN
    task := tasker.create_task(
        name => fields ->> 'name',
        context => fields -> 'context',
        namespace => coalesce(fields ->> 'namespace', 'default'),
        version => fields ->> 'version',
        initiator => fields ->> 'initiator',
        reason => fields ->> 'reason',
        source_system => fields ->> 'source_system',
        tags => coalesce(tasker._rest_texts(fields -> 'tags'), '{}'),
        bypass_steps => coalesce(tasker._rest_texts(fields -> 'bypass_steps'), '{}'),
        idempotency_key => coalesce(fields ->> 'idempotency_key', key_header),
        priority => (fields ->> 'priority')::integer,
        run_at => (fields ->> 'run_at')::timestamptz,
        correlation_id => coalesce(fields ->> 'correlation_id', correlation_header),
        traceparent => coalesce(fields ->> 'traceparent', trace_header));
    -- What another transaction made was made by the same idempotency key.
    SELECT CASE WHEN t.xmin = pg_current_xact_id()::xid THEN 201 ELSE 200 END
    INTO status
    FROM tasker.task AS t
    WHERE t.task_id = task;
    location := '/tasker/tasks/' || task;
    body := tasker._rest_task(task);
END;
$$;
COMMENT ON FUNCTION tasker._rest_create_task(text, text, text, text) IS
'Creates a task of a body; the headers fill in what it does not have. Status 200 where the idempotency key has made it before. Raises what tasker.create_task() and tasker._rest_fields() do. Private.';

CREATE FUNCTION tasker._rest_show_task(task_id bigint, with_dependencies boolean)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    status constant jsonb := tasker.task_status(task_id);
BEGIN
    PERFORM tasker._require('task:show', status ->> 'namespace');
    IF with_dependencies THEN
        RETURN jsonb_build_object('task', status
            || jsonb_build_object('dependency_analysis', tasker._rest_dependencies(task_id)));
    END IF;
    RETURN jsonb_build_object('task', status);
END;
$$;
COMMENT ON FUNCTION tasker._rest_show_task(bigint, boolean) IS
'A task with its steps and, where asked for, what depends on what. Raises TK007. Private.';

CREATE FUNCTION tasker._rest_update_task(task_id bigint, document text)
RETURNS jsonb
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    fields constant jsonb := tasker._rest_fields(document, 'task', tasker._rest_schema('task_changes'));
BEGIN
    PERFORM tasker.update_task(
        _rest_update_task.task_id,
        fields ->> 'reason',
        tasker._rest_texts(fields -> 'tags'),
        (fields ->> 'priority')::integer);
    RETURN tasker._rest_task(_rest_update_task.task_id);
END;
$$;
COMMENT ON FUNCTION tasker._rest_update_task(bigint, text) IS
'Changes what a body has of a task''s reason, tags and priority. Raises what tasker.update_task() and tasker._rest_fields() do. Private.';

CREATE FUNCTION tasker._rest_operate_task(operation text, task_id bigint, reason text, document text)
RETURNS jsonb
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    fields constant jsonb := tasker._rest_fields(document, NULL, tasker._rest_schema(
        CASE operation WHEN 'resolve' THEN 'resolution' ELSE 'reason' END));
    why constant text := coalesce(fields ->> 'reason', reason);
BEGIN
    CASE operation
        WHEN 'cancel' THEN
            PERFORM tasker.cancel_task(_rest_operate_task.task_id, why);
            RETURN jsonb_build_object('cancelled', true);
        WHEN 'retry' THEN
            PERFORM tasker.retry_task(_rest_operate_task.task_id);
        WHEN 'resolve' THEN
            PERFORM tasker.resolve_task(_rest_operate_task.task_id, why);
        WHEN 'pause' THEN
            PERFORM tasker.pause_task(_rest_operate_task.task_id);
        WHEN 'resume' THEN
            PERFORM tasker.resume_task(_rest_operate_task.task_id);
    END CASE;
    RETURN tasker._rest_task(_rest_operate_task.task_id);
END;
$$;
COMMENT ON FUNCTION tasker._rest_operate_task(text, bigint, text, text) IS
'Does cancel, retry, resolve, pause or resume to a task; the body''s reason comes before the other. Raises what the public function of that name does. Private.';

CREATE FUNCTION tasker._rest_task_namespace(task_id bigint)
RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    namespace text;
BEGIN
    SELECT p.namespace
    INTO namespace
    FROM tasker.task AS t
    JOIN tasker.plan AS p USING (plan_id)
    WHERE t.task_id = _rest_task_namespace.task_id;
    IF NOT FOUND THEN
        PERFORM tasker._refuse_unknown_task(task_id);
    END IF;
    RETURN namespace;
END;
$$;
COMMENT ON FUNCTION tasker._rest_task_namespace(bigint) IS
'Namespace of a task. Raises TK007. Private.';

-- Transition ids do not rise with time, so a cursor is a time and an id.
CREATE FUNCTION tasker._rest_list_transitions(
    of_task bigint,
    page_size integer,
    cursor text,
    OUT body jsonb,
    OUT next text)
RETURNS record
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET enable_seqscan = off
SET jit = off
AS $$
DECLARE
    place constant text[] := regexp_match(cursor, '^([0-9]{1,17})-([0-9]{1,18})$');
    place_at constant timestamptz := timestamptz 'epoch' + place[1]::bigint * interval '1 microsecond';
    place_id constant bigint := place[2];
BEGIN
    IF cursor IS NOT NULL AND place IS NULL THEN
        PERFORM tasker._rest_cursor('');
    END IF;
    PERFORM tasker._require('task:show', tasker._rest_task_namespace(of_task));
    WITH page AS (
        SELECT m.id, m.at, m.step_no, m.from_state, m.to_state, m.attempt, m.metadata,
               row_number() OVER (ORDER BY m.at, m.id) AS n
        FROM tasker._move AS m
        WHERE m.task_id = of_task
          AND (place IS NULL OR (m.at, m.id) > (place_at, place_id))
        ORDER BY m.at, m.id
        LIMIT page_size + 1
    )
    SELECT jsonb_build_object('transitions', coalesce(jsonb_agg(jsonb_build_object(
               'transition_id', p.id::text,
               'occurred_at', p.at,
               'task_id', of_task,
               'step_id', CASE WHEN p.step_no > 0 THEN of_task << 14 | p.step_no END,
               'step_name', s.name,
               'from_state', CASE WHEN p.step_no > 0 THEN tasker._step_state(p.from_state)::text
                                  ELSE tasker._task_state(p.from_state)::text END,
               'to_state', CASE WHEN p.step_no > 0 THEN tasker._step_state(p.to_state)::text
                                ELSE tasker._task_state(p.to_state)::text END,
               'attempt', p.attempt,
               'metadata', p.metadata) ORDER BY p.n) FILTER (WHERE p.n <= page_size), '[]')),
           CASE WHEN count(*) > page_size THEN
               max((extract(epoch FROM p.at) * 1000000)::bigint || '-' || p.id) FILTER (WHERE p.n = page_size) END
    INTO body, next
    FROM page AS p
    LEFT JOIN tasker.plan_step AS s
           ON s.plan_id = (SELECT t.plan_id FROM tasker.task AS t WHERE t.task_id = of_task)
          AND s.step_no = p.step_no;
END;
$$;
COMMENT ON FUNCTION tasker._rest_list_transitions(bigint, integer, text) IS
'A page of what happened to a task and its steps, in the order of time. Raises TK007. Private.';

CREATE FUNCTION tasker._rest_task_diagram(task_id bigint, format text)
RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tasker._require('task:show', tasker._rest_task_namespace(task_id));
    RETURN tasker.task_diagram(task_id, CASE format WHEN 'svg' THEN 'dot' ELSE format END);
END;
$$;
COMMENT ON FUNCTION tasker._rest_task_diagram(bigint, text) IS
'Diagram of a task; of dot tasker-agent makes svg. Raises TK007. Private.';
