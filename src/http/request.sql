-- From api steps to requests.

CREATE FUNCTION tasker._http_request(
    step tasker.step_context,
    step_timeout interval,
    has_handler boolean,
    definition jsonb,
    secrets jsonb,
    OUT request tasker.http_request,
    OUT problem text)
RETURNS record
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- with the values of its secrets, among which no template is looked for
    options constant jsonb := step.config;
    config constant jsonb := CASE WHEN secrets IS NULL THEN options ELSE definition END;
    templates_elsewhere constant boolean := position('${' IN (config - 'url')::text) > 0;
    -- the URL's only template, where it has one, and what stands around it
    template text;
    before text;
    behind text;
    value text;
    params jsonb := coalesce(nullif(config -> 'params', 'null'), '{}') || coalesce(nullif(config -> 'query', 'null'), '{}');
    headers jsonb := coalesce(nullif(config -> 'headers', 'null'), '{}');
    body jsonb := nullif(config -> 'body', 'null');
    query text;
BEGIN
    request.step_id := step.step_id;
    request.attempt := step.attempt;
    request.url := config ->> 'url';
    IF NOT templates_elsewhere THEN
        -- Most have none, or one that is an id: that needs no query, and no pattern
        -- that brings what it found, which would take most of the time.
        before := split_part(request.url, '${', 1);
        template := split_part(split_part(request.url, '${', 2), '}', 1);
        behind := substr(request.url, length(before) + length(template) + 4);
        IF before <> ''
           AND template ~ '^(context|inputs)\.[A-Za-z_]\w*$'
           AND position('$' IN before || behind) = 0
           AND before || '${' || template || '}' || behind = request.url THEN
            value := step.context ->> split_part(template, '.', 2);
        END IF;
    END IF;
    IF value COLLATE "C" ~ '^[A-Za-z0-9_.~-]+$' THEN
        request.url := before || value || behind;
    ELSIF templates_elsewhere OR position('${' IN request.url) > 0 THEN
        problem := tasker._http_missing(config, step.context, step.dependencies);
        IF problem IS NOT NULL THEN
            problem := format('template %s finds nothing', problem);
            RETURN;
        END IF;
        -- Dropped a moment ago, as the step would not have been claimed without.
        SELECT format('secret "%s" is not set', s.key)
        INTO problem
        FROM jsonb_each(secrets) AS s
        WHERE s.value = 'null'
        LIMIT 1;
        IF FOUND THEN
            RETURN;
        END IF;
        request.url := tasker._http_text(request.url, step.context, step.dependencies, secrets, true);
        params := tasker._http_json(params, step.context, step.dependencies, secrets);
        headers := tasker._http_json(headers, step.context, step.dependencies, secrets);
        body := tasker._http_json(body, step.context, step.dependencies, secrets);
    END IF;

    request.host := tasker._http_host(request.url);
    IF request.host IS NULL THEN
        problem := 'the url is no absolute one of http or https';
        RETURN;
    END IF;
    IF params <> '{}' THEN
        query := tasker._http_query(params);
    END IF;
    IF query <> '' THEN
        request.url := regexp_replace(request.url, '#.*$', '');
        request.url := request.url || CASE WHEN request.url LIKE '%?' OR request.url LIKE '%&' THEN ''
                                           WHEN request.url LIKE '%?%' THEN '&'
                                           ELSE '?' END || query;
    END IF;

    request.headers := ARRAY['Accept', 'application/json'] || CASE
            WHEN body IS NULL THEN '{}'::text[]
            WHEN jsonb_typeof(body) = 'string' THEN ARRAY['Content-Type', 'text/plain; charset=utf-8']
            ELSE ARRAY['Content-Type', 'application/json']
        END || ARRAY['Idempotency-Key', step.idempotency_key] || CASE
            WHEN step.traceparent IS NULL THEN '{}'::text[]
            ELSE ARRAY['traceparent', step.traceparent]
        END;
    IF headers <> '{}' THEN
        SELECT p.problem
        INTO problem
        FROM jsonb_each(headers) AS e
        CROSS JOIN LATERAL (SELECT tasker._http_header_problem(e.key, e.value)) AS p (problem)
        WHERE p.problem IS NOT NULL
        LIMIT 1;
        IF FOUND THEN
            RETURN;
        END IF;
        -- Those that the step has go in place of these.
        request.headers := ARRAY(
            SELECT u.text
            FROM (
                SELECT 1 AS n, request.headers[d.n] AS name, request.headers[d.n + 1] AS value
                FROM generate_series(1, cardinality(request.headers), 2) AS d (n)
                WHERE NOT EXISTS (
                    SELECT
                    FROM jsonb_object_keys(headers) AS k (name)
                    WHERE lower(k.name) = lower(request.headers[d.n]))
                UNION ALL
                SELECT 2, e.key, e.value #>> '{}'
                FROM jsonb_each(headers) AS e
                WHERE e.value <> 'null') AS h
            CROSS JOIN LATERAL unnest(ARRAY[h.name, h.value]) WITH ORDINALITY AS u (text, n)
            ORDER BY h.n, h.name, u.n);
    END IF;

    request.method := coalesce(upper(options ->> 'method'), CASE WHEN body IS NULL THEN 'GET' ELSE 'POST' END);
    request.body := convert_to(CASE WHEN jsonb_typeof(body) = 'string' THEN body #>> '{}' ELSE body::text END, 'UTF8');
    -- Before the step's own time is up, so that the failure is told and not found.
    request.timeout_ms := greatest(1, least(2147483647, 1000 * extract(epoch FROM least(
        CASE WHEN options ? 'timeout' THEN coalesce(tasker._duration(options -> 'timeout'), interval '30 s')
             ELSE interval '30 s' END,
        greatest(step_timeout - interval '1 s', step_timeout / 2)))))::integer;
    request.max_response := coalesce((options ->> 'max_response')::bigint, 1048576);
    request.max_redirects := coalesce((options ->> 'max_redirects')::integer, 5);
    request.tls_verify := coalesce((options -> 'ssl' ->> 'verify')::boolean, true);
    request.tls_ca := options -> 'ssl' ->> 'ca';
    request.has_handler := _http_request.has_handler;
END;
$$;
COMMENT ON FUNCTION tasker._http_request(tasker.step_context, interval, boolean, jsonb, jsonb) IS
'The request of a claimed api step, given its handler_config as the definition has it and the secrets that this needs, or why it can''t be made. Private.';

CREATE FUNCTION tasker._waiting_host(task_id bigint, parents smallint[], url text, inputs jsonb)
RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        -- most hosts stand there as they are
        WHEN h.host IS NOT NULL AND position('${' IN h.host) = 0 THEN h.host
        ELSE tasker._http_host(tasker._http_text(
            url, inputs,
            (SELECT coalesce(jsonb_object_agg(n.name, s.results), '{}')
             FROM unnest(parents) AS p (step_no)
             JOIN tasker.task AS t ON t.task_id = _waiting_host.task_id
             JOIN tasker.plan_step AS n ON n.plan_id = t.plan_id
                                       AND n.step_no = p.step_no
             LEFT JOIN tasker.step AS s ON s.task_id = _waiting_host.task_id
                                       AND s.step_no = p.step_no
             WHERE url LIKE '%${dependencies.%'),
            tasker._http_secrets(to_jsonb(url)), true))
    END
    FROM (SELECT tasker._http_host(substring(url FROM '^[^:/?#]+://[^/?#]*'))) AS h (host);
$$;
COMMENT ON FUNCTION tasker._waiting_host(bigint, smallint[], text, jsonb) IS
'The host that an api step would call: of the task, the steps that this one depends on, its url as the plan has it, and its inputs. Private.';

CREATE FUNCTION tasker._postpone_requests(lease interval)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    look_ahead constant integer := 1000;
    now constant timestamptz := tasker.clock();
    open_for constant interval := current_setting('tasker.breaker_open_for')::interval;
    again_at constant timestamptz := now + greatest(least(open_for / 10, interval '5 s'), interval '100 ms');
    waiting_tasks bigint[];
    waiting_steps smallint[];
    waiting_hosts text[];
    probes text[];
    first_due timestamptz;
BEGIN
    IF NOT EXISTS (SELECT FROM tasker.breaker AS b WHERE b.open_until IS NOT NULL) THEN
        RETURN;
    END IF;
    SELECT array_agg(w.task_id ORDER BY w.n), array_agg(w.step_no ORDER BY w.n), array_agg(w.host ORDER BY w.n)
    INTO waiting_tasks, waiting_steps, waiting_hosts
    FROM (SELECT q.task_id, q.step_no, row_number() OVER (ORDER BY q.rank, q.due) AS n,
                 tasker._waiting_host(q.task_id, p.parents, p.handler_config ->> 'url', coalesce(s.inputs, t.context)) AS host
          FROM (SELECT q.task_id, q.step_no, q.rank, q.due
                FROM tasker.queue AS q
                WHERE q.lane = 3
                ORDER BY q.lane, q.rank, q.due
                LIMIT look_ahead) AS q
          JOIN tasker.task AS t ON t.task_id = q.task_id
          JOIN tasker.plan_step AS p ON p.plan_id = t.plan_id
                                    AND p.step_no = q.step_no
          LEFT JOIN tasker.step AS s ON s.task_id = q.task_id
                                    AND s.step_no = q.step_no) AS w
    WHERE w.host IN (SELECT b.host FROM tasker.breaker AS b WHERE b.open_until IS NOT NULL);
    IF waiting_hosts IS NULL THEN
        RETURN;
    END IF;

    -- Of a host that may be tried again, whoever gets its row lets one through.
    WITH free AS (
        SELECT b.host
        FROM tasker.breaker AS b
        WHERE b.host = ANY (waiting_hosts)
          AND b.open_until <= now
          AND coalesce(b.probing_until <= now, true)
        ORDER BY b.host
        FOR UPDATE SKIP LOCKED
    ), taken AS (
        UPDATE tasker.breaker AS b
        SET probing_until = now + lease
        FROM free AS f
        WHERE b.host = f.host
        RETURNING b.host
    )
    SELECT array_agg(t.host)
    INTO probes
    FROM taken AS t;

    WITH later AS MATERIALIZED (
        SELECT w.task_id, w.step_no, greatest(b.open_until, again_at) AS due
        FROM (SELECT w.*, row_number() OVER (PARTITION BY w.host ORDER BY w.n) AS nth
              FROM unnest(waiting_tasks, waiting_steps, waiting_hosts) WITH ORDINALITY AS w (task_id, step_no, host, n)) AS w
        JOIN tasker.breaker AS b ON b.host = w.host
        WHERE b.open_until IS NOT NULL
          AND NOT (w.nth = 1 AND w.host = ANY (coalesce(probes, '{}')))
    ), token AS (
        SELECT q.task_id, q.step_no, l.due
        FROM later AS l
        JOIN tasker.queue AS q ON q.task_id = l.task_id
                              AND q.step_no = l.step_no
        WHERE q.lane = 3
        ORDER BY q.task_id, q.step_no
        FOR UPDATE OF q SKIP LOCKED
    ), moved AS (
        UPDATE tasker.queue AS q
        SET lane = -1,
            due_lane = 3,
            due = t.due
        FROM token AS t
        WHERE q.task_id = t.task_id
          AND q.step_no = t.step_no
        RETURNING q.due
    )
    SELECT min(m.due)
    INTO first_due
    FROM moved AS m;
    PERFORM tasker._note_due(first_due);
END;
$$;
COMMENT ON FUNCTION tasker._postpone_requests(interval) IS
'Puts off the waiting api steps whose host''s circuit breaker is open, of those that would be claimed next; lets one through for each host that may be tried again. It is no attempt. Private.';

CREATE FUNCTION tasker.claim_requests(
    worker text,
    max_requests integer,
    lease interval DEFAULT '30 s',
    bound_to_session boolean DEFAULT false,
    namespaces text[] DEFAULT NULL)
RETURNS SETOF tasker.http_request
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    lease_until timestamptz := tasker._check_lease(worker, lease);
    requests tasker.http_request[];
    bad_ids bigint[];
    errors text[];
BEGIN
    IF max_requests IS NULL OR max_requests < 1 THEN
        RAISE EXCEPTION 'max_requests must be at least 1'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('It is %s.', coalesce(max_requests::text, 'NULL'));
    END IF;
    PERFORM tasker._postpone_requests(lease);

    WITH claimed AS MATERIALIZED (
        SELECT c AS step, (c.step_id & 16383)::smallint AS step_no,
               (SELECT t.plan_id FROM tasker.task AS t WHERE t.task_id = c.task_id) AS plan_id
        FROM tasker._claim_steps(worker, '{api}', namespaces, max_requests, lease_until, coalesce(bound_to_session, false)) AS c
    ), planned AS MATERIALIZED (
        -- Most are of few plans.
        SELECT d.plan_id, d.step_no, s.timeout,
               coalesce((tasker._handler_of(s.handler_class, p.namespace, p.version)).kind = 'sql', false) AS has_handler,
               s.handler_config AS definition, tasker._http_secrets(s.handler_config) AS secrets
        FROM (SELECT DISTINCT c.plan_id, c.step_no FROM claimed AS c) AS d
        JOIN tasker.plan AS p ON p.plan_id = d.plan_id
        JOIN tasker.plan_step AS s ON s.plan_id = d.plan_id
                                  AND s.step_no = d.step_no
    ), made AS MATERIALIZED (
        SELECT (c.step).step_id, (c.step).step_name, r.request, r.problem
        FROM claimed AS c
        JOIN planned AS p ON p.plan_id = c.plan_id
                         AND p.step_no = c.step_no
        CROSS JOIN LATERAL tasker._http_request(c.step, p.timeout, p.has_handler, p.definition, p.secrets) AS r
    )
    SELECT array_agg(m.request) FILTER (WHERE m.problem IS NULL),
           array_agg(m.step_id ORDER BY m.step_id) FILTER (WHERE m.problem IS NOT NULL),
           (SELECT array_agg(e.text ORDER BY b.step_id, e.n)
            FROM made AS b
            CROSS JOIN LATERAL unnest(ARRAY[
                b.problem, 'TK001', format('The handler_config of step "%s" asks for it.', b.step_name),
                'Correct the task''s context by tasker.update_step(), or the definition; then retry the step.', NULL]) WITH ORDINALITY AS e (text, n)
            WHERE b.problem IS NOT NULL)
    INTO requests, bad_ids, errors
    FROM made AS m;

    IF bad_ids IS NOT NULL THEN
        PERFORM
        FROM tasker._end_steps(bad_ids, true, NULL, errors, false, NULL, worker, NULL, false);
    END IF;
    RETURN QUERY
    SELECT r.*
    FROM unnest(requests) AS r;
END;
$$;
REVOKE ALL ON FUNCTION tasker.claim_requests(text, integer, interval, boolean, text[]) FROM PUBLIC;
COMMENT ON FUNCTION tasker.claim_requests(text, integer, interval, boolean, text[]) IS
'Claims api steps, as tasker.claim_steps() does with handlers => ''{api}'', and returns each as a tasker.http_request, which holds the values of secrets. A step whose request can''t be made has failed for good; steps whose host''s circuit breaker is open are put off. For tasker-agent and whom the extension''s owner grants it to. Arguments: worker, its name; max_requests at the most; lease, how long the claim holds without tasker.heartbeat(), but no longer than the step''s timeout; bound_to_session, whether it also ends at once when this session does; namespaces of the tasks (NULL: all). Raises 22023 for arguments that can''t be. Source: design, contract, "tasker-agent".';
