-- The protocol of workers outside.

CREATE FUNCTION tasker._claim_steps(
    worker text,
    handlers text[],
    namespaces text[],
    max_steps integer,
    lease_until timestamptz,
    bound_to_session boolean)
RETURNS SETOF tasker.step_context
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_claim_steps';
COMMENT ON FUNCTION tasker._claim_steps(text, text[], text[], integer, timestamptz, boolean) IS
'What tasker.claim_steps() does with checked arguments. Private.';

CREATE FUNCTION tasker._end_steps(
    step_ids bigint[],
    failed boolean,
    results jsonb[],
    errors text[],
    retryable boolean,
    retry_after bigint,
    worker text,
    attempt integer,
    strict boolean,
    OUT step_id bigint,
    OUT state text)
RETURNS SETOF record
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_end_steps';
COMMENT ON FUNCTION tasker._end_steps(bigint[], boolean, jsonb[], text[], boolean, bigint, text, integer, boolean) IS
'Completes or fails claimed steps: errors holds five texts a step (message, sqlstate, detail, hint, context), retry_after microseconds; strict makes the first that is not the worker''s a TK003, else it is left out. Returns those that were ended, with their new states. Private.';

CREATE FUNCTION tasker._check_lease(worker text, lease interval)
RETURNS timestamptz
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF worker IS NULL OR worker = '' THEN
        RAISE EXCEPTION 'a worker must have a name'
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Any text that tells it from the others, such as host and process id.';
    END IF;
    IF lease IS NULL OR lease <= interval '0' THEN
        RAISE EXCEPTION 'a lease must be longer than nothing'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('It is %s.', coalesce(lease::text, 'NULL'));
    END IF;
    RETURN tasker.clock() + lease;
END;
$$;
COMMENT ON FUNCTION tasker._check_lease(text, interval) IS
'Checks a worker''s name and lease; returns when the lease ends. Raises 22023. Private.';

CREATE FUNCTION tasker._claim_steps(
    worker text,
    handlers text[],
    namespaces text[],
    max_steps integer,
    lease interval,
    bound_to_session boolean)
RETURNS SETOF tasker.step_context
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    lease_until timestamptz := tasker._check_lease(worker, lease);
BEGIN
    IF max_steps IS NULL OR max_steps < 1 THEN
        RAISE EXCEPTION 'max_steps must be at least 1'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('It is %s.', coalesce(max_steps::text, 'NULL'));
    END IF;
    IF tasker._is_enforced() THEN
        PERFORM tasker._require('worker:claim', n.name)
        FROM unnest(coalesce(namespaces, ARRAY[NULL])) AS n (name);
        namespaces := coalesce(namespaces, tasker._caller_namespaces('worker:claim'));
    END IF;
    RETURN QUERY
    SELECT c.*
    FROM tasker._claim_steps(worker, handlers, namespaces, max_steps, lease_until, coalesce(bound_to_session, false)) AS c;
END;
$$;
COMMENT ON FUNCTION tasker._claim_steps(text, text[], text[], integer, interval, boolean) IS
'What tasker.claim_steps() does, for its caller. Private.';

CREATE FUNCTION tasker.claim_steps(
    worker text,
    handlers text[] DEFAULT NULL,
    namespaces text[] DEFAULT NULL,
    max_steps integer DEFAULT 1,
    lease interval DEFAULT '30 s',
    bound_to_session boolean DEFAULT false)
RETURNS SETOF tasker.step_context
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.claim_steps(text, text[], text[], integer, interval, boolean) IS
'Claims steps of external handlers for a worker: they are its own from the commit on until the lease ends, and each claim is an attempt. Arguments: worker, its name; handlers, names to claim for (NULL: every external one, but never api); namespaces of the tasks (NULL: all); max_steps at the most, and never more than 1000; lease, how long the claim holds without a heartbeat, but no longer than the step''s timeout; bound_to_session, whether it also ends at once when this session does. Returns one tasker.step_context a step, those of higher priority and longer wait first. Raises 22023 for arguments that can''t be. Source: design, contract, "Outside workers".';

CREATE FUNCTION tasker._heartbeat(worker text, step_ids bigint[], lease interval)
RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    new_end timestamptz := tasker._check_lease(worker, lease);
BEGIN
    -- The token first, as everybody does who has both: it is the one an
    -- executor takes when the lease ends.
    RETURN QUERY
    WITH token AS (
        SELECT q.task_id,
               q.step_no,
               -- No lease outlives the time that an attempt may take.
               least(new_end, s.started_at + make_interval(secs => extract(epoch FROM p.timeout)::double precision)) AS lease_end
        FROM unnest(step_ids) AS w (step_id)
        JOIN tasker.queue AS q ON q.task_id = w.step_id >> 14
                              AND q.step_no = (w.step_id & 16383)::smallint
        JOIN tasker.step AS s ON s.task_id = q.task_id
                             AND s.step_no = q.step_no
        JOIN tasker.task AS t ON t.task_id = q.task_id
        JOIN tasker.plan_step AS p ON p.plan_id = t.plan_id
                                  AND p.step_no = q.step_no
        WHERE q.lane = -1
          AND q.due_lane IS NULL
          AND s.state = 1
          AND s.claimed_by = worker
          AND s.lease_until > tasker.clock()
          AND tasker._sees_task('{worker:claim}', q.task_id)
        ORDER BY q.task_id, q.step_no
        FOR UPDATE OF q, s
    ), longer AS (
        UPDATE tasker.queue AS q
        SET due = t.lease_end
        FROM token AS t
        WHERE q.task_id = t.task_id
          AND q.step_no = t.step_no
        RETURNING q.task_id, q.step_no, q.due
    )
    UPDATE tasker.step AS s
    SET lease_until = l.due
    FROM longer AS l
    WHERE s.task_id = l.task_id
      AND s.step_no = l.step_no
      AND s.state = 1
      AND s.claimed_by = worker
    RETURNING s.task_id << 14 | s.step_no;
    PERFORM tasker._note_due(new_end);
END;
$$;
COMMENT ON FUNCTION tasker._heartbeat(text, bigint[], interval) IS
'What tasker.heartbeat() does, for its caller. Private.';

CREATE FUNCTION tasker.heartbeat(worker text, step_ids bigint[], lease interval DEFAULT '30 s')
RETURNS SETOF bigint
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.heartbeat(text, bigint[], interval) IS
'Prolongs a worker''s leases. Arguments: worker, as it claimed; step_ids; lease, from now, and no longer than the step''s timeout. Returns the ids that it still holds: work on the others is lost and should be dropped. Raises 22023. Source: design, contract, "Outside workers".';

CREATE FUNCTION tasker._complete_step(
    step_id bigint,
    results jsonb,
    worker text,
    attempt integer)
RETURNS text
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT e.state
    FROM tasker._end_steps(ARRAY[step_id], false, ARRAY[results], NULL, false, NULL, worker, attempt, true) AS e;
$$;
COMMENT ON FUNCTION tasker._complete_step(bigint, jsonb, text, integer) IS
'What tasker.complete_step() does, for its caller. Private.';

CREATE FUNCTION tasker.complete_step(
    step_id bigint,
    results jsonb,
    worker text DEFAULT NULL,
    attempt integer DEFAULT NULL)
RETURNS text
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.complete_step(bigint, jsonb, text, integer) IS
'Completes a claimed step. Arguments: step_id; results, which the steps behind it get; worker and attempt, where given, must be the holder''s. Returns the new state. Raises TK003 where the lease was lost: drop the result. Source: design, contract, "Outside workers".';

CREATE FUNCTION tasker._complete_steps(
    step_ids bigint[],
    results jsonb[],
    worker text)
RETURNS SETOF bigint
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT e.step_id
    FROM tasker._end_steps(step_ids, false, results, NULL, false, NULL, worker, NULL, false) AS e;
$$;
COMMENT ON FUNCTION tasker._complete_steps(bigint[], jsonb[], text) IS
'What tasker.complete_steps() does, for its caller. Private.';

CREATE FUNCTION tasker.complete_steps(
    step_ids bigint[],
    results jsonb[],
    worker text DEFAULT NULL)
RETURNS SETOF bigint
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.complete_steps(bigint[], jsonb[], text) IS
'Completes many claimed steps at once. Arguments: step_ids; results, one each; worker, where given, must be the holder. Returns the ids that were accepted: the others had lost their lease. Raises 22023 where the arrays differ in length. Source: design, contract, "Outside workers".';

CREATE FUNCTION tasker._error_texts(error jsonb)
RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
               WHEN jsonb_typeof(error) = 'object' THEN ARRAY[
                   coalesce(error ->> 'message', 'the worker gave no message'),
                   CASE WHEN error ->> 'sqlstate' ~ '^[0-9A-Z]{5}$' THEN error ->> 'sqlstate' ELSE 'TK002' END,
                   nullif(concat_ws(E'\n', error ->> 'detail',
                                    nullif(error - '{message,sqlstate,detail,hint,context,attempt,retryable,at}'::text[], '{}')), ''),
                   error ->> 'hint',
                   error ->> 'context']
               ELSE ARRAY[coalesce(error #>> '{}', 'the worker gave no message'), 'TK002', NULL, NULL, NULL]
           END;
$$;
COMMENT ON FUNCTION tasker._error_texts(jsonb) IS
'Message, sqlstate, detail, hint and context of a worker''s error; keys of its own go into the detail. Private.';

CREATE FUNCTION tasker._fail_step(
    step_id bigint,
    error jsonb,
    retryable boolean,
    retry_after interval,
    worker text,
    attempt integer)
RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF retry_after < interval '0' THEN
        RAISE EXCEPTION 'retry_after must not be negative'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('It is %s.', retry_after);
    END IF;
    RETURN (
        SELECT e.state
        FROM tasker._end_steps(ARRAY[step_id], true, NULL, tasker._error_texts(error), coalesce(retryable, true),
                               -- Not least(), which takes NULL for nothing.
                               (extract(epoch FROM CASE
                                                       WHEN retry_after > interval '100 years' THEN interval '100 years'
                                                       ELSE retry_after
                                                   END) * 1000000)::bigint, worker, attempt, true) AS e);
END;
$$;
COMMENT ON FUNCTION tasker._fail_step(bigint, jsonb, boolean, interval, text, integer) IS
'What tasker.fail_step() does, for its caller. Private.';

CREATE FUNCTION tasker.fail_step(
    step_id bigint,
    error jsonb,
    retryable boolean DEFAULT true,
    retry_after interval DEFAULT NULL,
    worker text DEFAULT NULL,
    attempt integer DEFAULT NULL)
RETURNS text
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.fail_step(bigint, jsonb, boolean, interval, text, integer) IS
'Fails the attempt of a claimed step. Arguments: step_id; error, an object with message, sqlstate, detail, hint and context, or any value; retryable, whether another attempt may follow; retry_after, the delay before it, which replaces the back-off, without jitter; worker and attempt, where given, must be the holder''s. Returns the new state, waiting_for_retry or error. Raises TK003 where the lease was lost, 22023 for a negative delay. Source: design, contract, "Outside workers".';

CREATE FUNCTION tasker._fail_steps(
    step_ids bigint[],
    errors jsonb[],
    retryable boolean,
    worker text)
RETURNS SETOF bigint
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT e.step_id
    FROM tasker._end_steps(
        step_ids, true, NULL,
        (SELECT array_agg(t.text ORDER BY w.place, t.place)
         FROM unnest(errors) WITH ORDINALITY AS w (error, place)
         CROSS JOIN LATERAL unnest(tasker._error_texts(w.error)) WITH ORDINALITY AS t (text, place)),
        coalesce(retryable, true), NULL, worker, NULL, false) AS e;
$$;
COMMENT ON FUNCTION tasker._fail_steps(bigint[], jsonb[], boolean, text) IS
'What tasker.fail_steps() does, for its caller. Private.';

CREATE FUNCTION tasker.fail_steps(
    step_ids bigint[],
    errors jsonb[],
    retryable boolean DEFAULT true,
    worker text DEFAULT NULL)
RETURNS SETOF bigint
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.fail_steps(bigint[], jsonb[], boolean, text) IS
'Fails the attempts of many claimed steps at once. Arguments: step_ids; errors, one each, as for tasker.fail_step(); retryable; worker, where given, must be the holder. Returns the ids that were accepted: the others had lost their lease. Raises 22023 where the arrays differ in length. Source: design, contract, "Outside workers".';
