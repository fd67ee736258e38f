-- From answers to the ends of api steps.

CREATE FUNCTION tasker._answer_steps(
    step_ids bigint[],
    responses jsonb[],
    worker text,
    OUT step_id bigint,
    OUT state text)
RETURNS SETOF record
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_answer_steps';
COMMENT ON FUNCTION tasker._answer_steps(bigint[], jsonb[], text) IS
'Ends claimed api steps by the SQL handlers of their classes, which get the response and make the result of it. Returns those that were ended, with their new states; those that the worker does not hold, or that an operator has just now, are left out. Private.';

CREATE FUNCTION tasker._try_jsonb(value text)
RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN value::jsonb;
EXCEPTION
    WHEN data_exception OR program_limit_exceeded THEN
        RETURN NULL;
END;
$$;
COMMENT ON FUNCTION tasker._try_jsonb(text) IS
'A text as jsonb; NULL where it is no JSON. Private.';

CREATE FUNCTION tasker._try_text(value bytea)
RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    ascii text;
BEGIN
    -- Most is plain, and that needs no subtransaction: only what is not has a
    -- backslash then.
    IF length(value) <= 65536 THEN
        ascii := encode(value, 'escape');
        IF position('\' IN ascii) = 0 THEN
            RETURN ascii;
        END IF;
    END IF;
    BEGIN
        RETURN convert_from(value, 'UTF8');
    EXCEPTION
        WHEN character_not_in_repertoire OR untranslatable_character THEN
            RETURN NULL;
    END;
END;
$$;
COMMENT ON FUNCTION tasker._try_text(bytea) IS
'Bytes as text; NULL where they are no UTF-8, or have a NUL in them. Private.';

CREATE FUNCTION tasker._http_headers(lines text)
RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    space constant text := E' \t\r\f\v';
    headers jsonb;
    some_twice boolean;
BEGIN
    -- Without patterns: there are many answers, and many lines in each.
    SELECT jsonb_object_agg(h.name, h.value), count(*) > count(DISTINCT h.name)
    INTO headers, some_twice
    FROM (SELECT lower(p.name) COLLATE "C" AS name, btrim(substr(p.line, length(p.name) + 2), space) AS value
          FROM (SELECT l.line, split_part(l.line, ':', 1) AS name
                FROM string_to_table(lines, E'\n') AS l (line)) AS p
          WHERE p.name <> ''
            AND length(p.name) < length(p.line)
            AND translate(p.name, space, '') = p.name) AS h;
    IF some_twice THEN
        headers := headers || (
            SELECT jsonb_object_agg(t.name, t.all_values)
            FROM (SELECT lower(m.match[1]) AS name, jsonb_agg(btrim(m.match[2], space) ORDER BY m.n) AS all_values
                  FROM regexp_matches(lines, '^([^:\s]+):(.*)$', 'gn') WITH ORDINALITY AS m (match, n)
                  GROUP BY lower(m.match[1])
                  HAVING count(*) > 1) AS t);
    END IF;
    RETURN coalesce(headers, '{}');
END;
$$;
COMMENT ON FUNCTION tasker._http_headers(text) IS
'The lines of an answer''s head as an object with names in lower case; one that comes several times is an array. Private.';

CREATE FUNCTION tasker._http_response(
    step_id bigint,
    status integer,
    head bytea,
    body bytea,
    duration_ms integer)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    headers constant jsonb := tasker._http_headers(coalesce(tasker._try_text(head), ''));
    response constant jsonb := jsonb_build_object('status', status, 'headers', headers, 'duration_ms', duration_ms);
    as_text constant text := tasker._try_text(body);
    value jsonb;
BEGIN
    IF body IS NULL OR body = '' THEN
        RETURN response || '{"body": null}';
    END IF;
    IF as_text IS NOT NULL THEN
        IF headers ->> 'content-type' ~* '^application/([^;]+\+)?json\s*(;|$)' THEN
            value := tasker._try_jsonb(as_text);
        END IF;
        RETURN response || jsonb_build_object('body', coalesce(value, to_jsonb(as_text)));
    END IF;
    -- Bytes that hold a secret would hide it from those who look for it.
    IF EXISTS (
        SELECT
        FROM tasker.task AS t
        JOIN tasker.plan_step AS p ON p.plan_id = t.plan_id
                                  AND p.step_no = (_http_response.step_id & 16383)::smallint
        CROSS JOIN LATERAL tasker._secret_names(p.handler_config) AS n (name)
        JOIN tasker.secret AS s ON s.name = n.name
        WHERE t.task_id = _http_response.step_id >> 14
          AND (position(convert_to(s.value, 'UTF8') IN body) > 0
               OR position(convert_to(coalesce(s.previous, s.value), 'UTF8') IN body) > 0)) THEN
        RETURN response || '{"body": null, "encoding": "hidden"}';
    END IF;
    RETURN response || jsonb_build_object('body', translate(encode(body, 'base64'), E'\n', ''), 'encoding', 'base64');
END;
$$;
COMMENT ON FUNCTION tasker._http_response(bigint, integer, bytea, bytea, integer) IS
'An answer as a step''s results have it: status, headers, body, duration_ms; encoding where the body is no text. Private.';

CREATE FUNCTION tasker._http_refusals()
RETURNS text[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN '{refused_address,bad_url,bad_redirect,too_large,insecure}'::text[];
END;
$$;
COMMENT ON FUNCTION tasker._http_refusals() IS
'Why an agent makes no request, or drops its answer, whenever it is asked. Private.';

CREATE FUNCTION tasker._http_outcome(status integer, error_class text, expected jsonb)
RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN CASE
        WHEN error_class = ANY (tasker._http_refusals()) THEN 'permanent'
        WHEN error_class IS NOT NULL THEN 'retry'
        WHEN expected IS NOT NULL AND expected <> 'null' AND expected @> to_jsonb(status) THEN 'ok'
        WHEN coalesce(expected, 'null') = 'null' AND status BETWEEN 200 AND 226 THEN 'ok'
        WHEN status IN (408, 409, 418, 421, 423, 425, 429) THEN 'retry'
        WHEN status BETWEEN 300 AND 499 OR status IN (501, 505) THEN 'permanent'
        ELSE 'retry'
    END;
END;
$$;
COMMENT ON FUNCTION tasker._http_outcome(integer, text, jsonb) IS
'ok, retry or permanent: what an answer, or the lack of one, means for the step. Source: reference 4.10. Private.';

CREATE FUNCTION tasker._note_answers(hosts text[], statuses integer[], error_classes text[])
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    now constant timestamptz := tasker.clock();
    enough constant integer := current_setting('tasker.breaker_failures')::integer;
    "window" constant interval := current_setting('tasker.breaker_window')::interval;
    open_for constant interval := current_setting('tasker.breaker_open_for')::interval;
BEGIN
    IF enough = 0 THEN
        RETURN;
    END IF;
    -- As it is most of the time: nothing fails, nor has failed lately.
    IF NOT EXISTS (SELECT FROM tasker.breaker)
       AND NOT EXISTS (SELECT FROM unnest(statuses, error_classes) AS a (status, error_class)
                       WHERE a.error_class IS NOT NULL
                          OR a.status >= 500) THEN
        RETURN;
    END IF;
    WITH answer AS MATERIALIZED (
        SELECT a.n, a.host,
               CASE WHEN a.error_class IS NOT NULL THEN true ELSE a.status >= 500 END AS failed,
               coalesce(a.error_class, 'HTTP_' || a.status) AS error
        FROM unnest(hosts, statuses, error_classes) WITH ORDINALITY AS a (host, status, error_class, n)
        -- The host is not to blame for what was refused here, and says itself
        -- by 429 how long it wants to be left alone.
        WHERE a.host IS NOT NULL
          AND coalesce(a.error_class <> ALL (tasker._http_refusals()), a.status <> 429)
    ), success AS MATERIALIZED (
        SELECT a.host, max(a.n) AS n
        FROM answer AS a
        WHERE NOT a.failed
        GROUP BY a.host
    ), failure AS MATERIALIZED (
        SELECT a.host,
               count(*)::integer AS failures,
               (array_agg(a.error ORDER BY a.n DESC))[1] AS error,
               s.host IS NOT NULL AS is_new
        FROM answer AS a
        LEFT JOIN success AS s ON s.host = a.host
        WHERE a.failed
          AND a.n > coalesce(s.n, 0)
        GROUP BY a.host, s.host
    ), closed AS (
        DELETE FROM tasker.breaker AS b
        USING success AS s
        WHERE b.host = s.host
          AND NOT EXISTS (SELECT FROM failure AS f WHERE f.host = s.host)
    )
    INSERT INTO tasker.breaker AS b (host, failures, first_failure_at, last_failure_at, last_error, opened_at, open_until)
    SELECT f.host, f.failures, now, now, f.error,
           CASE WHEN f.failures >= enough THEN now END,
           CASE WHEN f.failures >= enough THEN now + open_for END
    FROM failure AS f
    ORDER BY f.host
    ON CONFLICT ON CONSTRAINT breaker_pkey DO UPDATE
    SET (failures, first_failure_at, last_failure_at, last_error, opened_at, open_until, probing_until) = (
        SELECT c.failures, c.first_failure_at, now, excluded.last_error,
               CASE WHEN c.opens THEN now WHEN c.is_new THEN NULL ELSE b.opened_at END,
               CASE WHEN c.opens THEN now + open_for WHEN c.is_new THEN NULL ELSE b.open_until END,
               CASE WHEN c.opens OR c.is_new THEN NULL ELSE b.probing_until END
        FROM (SELECT d.*,
                     -- When it is half open, one more is enough.
                     CASE WHEN b.open_until IS NULL OR d.is_new THEN d.failures >= enough
                          ELSE b.open_until <= now END AS opens
              FROM (SELECT n.is_new,
                           CASE WHEN n.is_new THEN excluded.failures ELSE b.failures + excluded.failures END AS failures,
                           CASE WHEN n.is_new THEN now ELSE b.first_failure_at END AS first_failure_at
                    FROM (SELECT (b.open_until IS NULL AND b.first_failure_at < now - "window")
                                 OR EXISTS (SELECT FROM unnest(hosts, statuses, error_classes) AS a (host, status, error_class)
                                            WHERE a.host = excluded.host
                                              AND a.error_class IS NULL
                                              AND a.status < 500
                                              AND a.status <> 429) AS is_new) AS n) AS d) AS c);
END;
$$;
COMMENT ON FUNCTION tasker._note_answers(text[], integer[], text[]) IS
'Opens and closes circuit breakers by what hosts answered, or did not, in that order. Private.';

CREATE FUNCTION tasker.end_requests(
    worker text,
    step_ids bigint[],
    hosts text[],
    statuses integer[],
    heads bytea[],
    bodies bytea[],
    error_classes text[],
    messages text[],
    retry_after integer[],
    durations integer[])
RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    max_retry_after constant integer := 300;
    excerpt constant integer := 4096;
    outcomes text[];
    handled boolean[];
    all_ok boolean;
    ids bigint[];
    payloads jsonb[];
BEGIN
    -- Breakers first: claims, too, lock them before tokens and tasks.
    PERFORM tasker._note_answers(hosts, statuses, error_classes);

    -- Most are alike, of one step of one plan: what is asked of that is asked once.
    WITH alike AS MATERIALIZED (
        SELECT a.plan_id, a.step_no, a.status, a.error_class, array_agg(a.n) AS places
        FROM (SELECT w.n, w.status, w.error_class, (w.step_id & 16383)::smallint AS step_no,
                     (SELECT t.plan_id FROM tasker.task AS t WHERE t.task_id = w.step_id >> 14) AS plan_id
              FROM unnest(step_ids, statuses, error_classes) WITH ORDINALITY AS w (step_id, status, error_class, n)) AS a
        GROUP BY a.plan_id, a.step_no, a.status, a.error_class
    ), known AS MATERIALIZED (
        SELECT a.places, o.outcome,
               coalesce(o.outcome = 'ok' AND (tasker._handler_of(s.handler_class, p.namespace, p.version)).kind = 'sql', false) AS handled
        FROM alike AS a
        LEFT JOIN tasker.plan AS p ON p.plan_id = a.plan_id
        LEFT JOIN tasker.plan_step AS s ON s.plan_id = a.plan_id
                                       AND s.step_no = a.step_no
        CROSS JOIN LATERAL (
            SELECT tasker._http_outcome(a.status, a.error_class, s.handler_config -> 'expected_status')) AS o (outcome)
    )
    SELECT array_agg(k.outcome ORDER BY w.n), array_agg(k.handled ORDER BY w.n)
    INTO outcomes, handled
    FROM known AS k
    CROSS JOIN LATERAL unnest(k.places) AS w (n);
    all_ok := 'ok' = ALL (outcomes);

    SELECT array_agg(w.step_id), array_agg(tasker._http_response(w.step_id, w.status, w.head, w.body, w.duration))
    INTO ids, payloads
    FROM unnest(step_ids, statuses, heads, bodies, durations, handled) AS w (step_id, status, head, body, duration, handled)
    WHERE w.handled;
    IF ids IS NOT NULL THEN
        RETURN QUERY
        SELECT e.step_id
        FROM tasker._answer_steps(ids, payloads, worker) AS e;
    END IF;

    -- All that the calls below lock, in one order.  One call keeps to it by itself.
    IF NOT all_ok THEN
        PERFORM
        FROM unnest(step_ids, handled) AS w (step_id, handled)
        JOIN tasker.queue AS q ON q.task_id = w.step_id >> 14
                              AND q.step_no = (w.step_id & 16383)::smallint
        WHERE NOT w.handled
        ORDER BY q.task_id, q.step_no
        FOR UPDATE OF q;
        PERFORM
        FROM tasker.task AS t
        WHERE t.task_id IN (SELECT w.step_id >> 14
                            FROM unnest(step_ids, handled) AS w (step_id, handled)
                            WHERE NOT w.handled)
        ORDER BY t.task_id
        FOR NO KEY UPDATE;
    END IF;

    SELECT array_agg(w.step_id), array_agg(tasker._http_response(w.step_id, w.status, w.head, w.body, w.duration))
    INTO ids, payloads
    FROM unnest(step_ids, statuses, heads, bodies, durations, outcomes, handled) AS w (step_id, status, head, body, duration, outcome, handled)
    WHERE w.outcome = 'ok'
      AND NOT w.handled;
    IF ids IS NOT NULL THEN
        RETURN QUERY
        SELECT e.step_id
        FROM tasker._end_steps(ids, false, payloads, NULL, false, NULL, worker, NULL, false) AS e;
    END IF;

    IF all_ok THEN
        RETURN;
    END IF;
    RETURN QUERY
    WITH failed AS MATERIALIZED (
        SELECT w.step_id, w.n,
               w.outcome = 'retry' AS retryable,
               CASE WHEN w.outcome = 'retry' AND w.retry_after > 0
                    THEN least(w.retry_after, max_retry_after)::bigint * 1000000 END AS delay,
               tasker._error_texts(jsonb_strip_nulls(jsonb_build_object(
                   'message', coalesce(w.host, 'the host') || ' ' || CASE WHEN w.error_class IS NULL THEN 'answered ' || w.status
                                                                        ELSE coalesce(w.message, w.error_class) END,
                   'sqlstate', CASE w.outcome WHEN 'permanent' THEN 'TK001' ELSE 'TK002' END,
                   'error_code', CASE WHEN w.error_class IS NULL THEN 'HTTP_' || w.status ELSE w.error_class END,
                   'status', w.status,
                   'retry_after', CASE WHEN w.retry_after > 0 THEN w.retry_after END,
                   'duration_ms', w.duration,
                   'body', left(tasker._try_text(w.body), excerpt)))) AS texts
        FROM unnest(step_ids, hosts, statuses, bodies, error_classes, messages, retry_after, durations, outcomes)
             WITH ORDINALITY AS w (step_id, host, status, body, error_class, message, retry_after, duration, outcome, n)
        WHERE w.outcome <> 'ok'
    )
    SELECT e.step_id
    FROM (SELECT f.retryable, f.delay, array_agg(f.step_id ORDER BY f.n) AS ids,
                 (SELECT array_agg(x.text ORDER BY o.n, x.n)
                  FROM failed AS o
                  CROSS JOIN LATERAL unnest(o.texts) WITH ORDINALITY AS x (text, n)
                  WHERE o.retryable = f.retryable
                    AND o.delay IS NOT DISTINCT FROM f.delay) AS texts
          FROM failed AS f
          GROUP BY f.retryable, f.delay) AS g
    CROSS JOIN LATERAL tasker._end_steps(g.ids, true, NULL, g.texts, g.retryable, g.delay, worker, NULL, false) AS e;
END;
$$;
REVOKE ALL ON FUNCTION tasker.end_requests(text, bigint[], text[], integer[], bytea[], bytea[], text[], text[], integer[], integer[]) FROM PUBLIC;
COMMENT ON FUNCTION tasker.end_requests(text, bigint[], text[], integer[], bytea[], bytea[], text[], text[], integer[], integer[]) IS
'Ends steps that tasker.claim_requests() gave, by what came of their requests: completes them, has them retried or fails them for good, and keeps the circuit breakers. A SQL handler of a step''s class gets the answer as step.response and makes the result; its failure is that of the attempt. Arguments, the arrays with one element a request: worker, as it claimed; step_ids; hosts, as they were given; statuses (NULL: no answer); heads, the lines of the last answer''s head; bodies; error_classes, why there is no answer (NULL: there is one): dns, connect, tls, timeout, reset, too_large, refused_address, bad_url, bad_redirect, insecure or other; messages, what to say of that; retry_after, what the answer asked for, in seconds (0: nothing; at most 300 count); durations, in milliseconds. Returns the ids that were accepted: the others had lost their lease, or are in an operator''s hands just now. Raises nothing of its own. Source: reference 4.9, 4.10.';

CREATE FUNCTION tasker.reset_breaker(host text)
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM tasker.breaker AS b
    WHERE b.host = reset_breaker.host;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING
            ERRCODE = 'TK007',
            MESSAGE = format('host "%s" has no circuit breaker', coalesce(left(host, 200), 'NULL')),
            DETAIL = 'Its latest request did not fail, or there was none.',
            HINT = coalesce(
                tasker._did_you_mean(host, ARRAY(
                    SELECT b.host
                    FROM tasker.breaker AS b
                    ORDER BY b.host
                    LIMIT 1000)),
                'The view tasker.breakers shows which there are.');
    END IF;
END;
$$;
REVOKE ALL ON FUNCTION tasker.reset_breaker(text) FROM PUBLIC;
COMMENT ON FUNCTION tasker.reset_breaker(text) IS
'Closes a host''s circuit breaker and forgets its failures. What was put off stays so until it is due. For the extension''s owner and whom he grants it to. Argument: host, as tasker.breakers has it. Returns nothing. Raises TK007 (no such breaker), 42501 (not granted). Source: design, contract, "tasker-agent".';
