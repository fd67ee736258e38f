-- HTTP steps, all but the requests themselves: what is asked for, what an answer
-- means, and which hosts are left alone.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS tasker;
\set SHOW_CONTEXT never
\pset null '(null)'

-- What is wrong with a handler_config of type api.
SELECT path, line, message, hint
FROM tasker.validate_task($yaml$
name: wrong
step_templates:
  - name: first
    handler_config: {type: api, url: "https://a.example/", method: FETCH, params: []}
  - name: second
    depends_on_step: first
    handler_config:
      type: api
      url: "https://a.example/${contexts.id}"
      method: get
      body: {a: "${dependencies.first.x} ${dependencies.third.x}", b: "$${anything at all}"}
      headers: {"X Y": a, Host: b, X-Lines: "a\nb", X-List: [1]}
      query: {a: "${context.}", b: "${context.a[}", c: "${NAME}"}
      expected_status: [200, 99]
      ssl: {verify: maybe}
      max_redirects: 11
      max_response: 0
      timeout: 0
      pparams: {}
$yaml$);

SET client_min_messages = error;
SELECT tasker.register_task($yaml$
name: wrong_key
step_templates:
  - {name: first, handler_config: {type: api, url: "https://a.example/", methode: GET}}
$yaml$) IS NOT NULL AS only_warned;
SET client_min_messages = warning;

-- A whole request.  The same in each attempt, but for what an operator changed.
SELECT tasker.set_secret('HTTP_KEY', 's3cr3t&key');
SELECT tasker.register_task($yaml$
name: http/request
step_templates:
  - name: get.cart
    handler_config:
      type: api
      url: "http://127.0.0.1:9/x/${context.id}?a=1#top"
      params: {q: "${context.q}", list: [1, 2], nothing: null, yes: true, map: {a: 1}}
      query: {api_key: "${HTTP_KEY}"}
      headers: {X-A: "v ${inputs.id}", accept: text/csv, Idempotency-Key: null}
  - name: put
    depends_on_step: get.cart
    timeout: 2 s
    handler_config:
      type: api
      method: put
      url: "${context.base}/y/${context.id}"
      body:
        whole: "${dependencies.get.cart.body}"
        status: "${dependencies.get.cart.status}"
        text: "id ${context.id} $${context.id}"
        deep: ["${context.list[1][0]}", "${context.list[*] ? (@ > 0)}"]
      max_response: 10
      max_redirects: 0
      ssl: {verify: false, ca: PEM}
      timeout: 5 s
  - name: post
    depends_on_step: put
    handler_config: {type: api, url: "https://[::1]/z", body: "as it is", timeout: 250 ms}
$yaml$) IS NOT NULL AS registered;
CREATE FUNCTION pg_temp.waits(task bigint, step integer, at_lane integer) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. 6000 LOOP
        EXIT WHEN EXISTS (
            SELECT FROM tasker.queue WHERE task_id = task AND step_no = step AND lane = at_lane);
        PERFORM pg_sleep(0.01);
    END LOOP;
END;
$$;
-- Ends the first step that the worker holds.
CREATE FUNCTION pg_temp.answers(status integer, body bytea, error text DEFAULT NULL, again integer DEFAULT 0, head text DEFAULT '')
RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    id bigint := (SELECT s.step_id FROM tasker.workflow_steps AS s WHERE s.claimed_by = 'w' ORDER BY s.step_id LIMIT 1);
BEGIN
    PERFORM tasker.end_requests('w', ARRAY[id], ARRAY['http://a.example:80'], ARRAY[status], ARRAY[convert_to(head, 'UTF8')],
                                ARRAY[body], ARRAY[error], ARRAY['it said ' || error], ARRAY[again], ARRAY[7]);
    RETURN (SELECT s.state FROM tasker.workflow_steps AS s WHERE s.step_id = id);
END;
$$;
SELECT tasker.create_task('http/request', '{"id": "a/b c", "q": "ü&", "base": "HTTPS://me:pw@Example.com", "list": [1, [2]]}',
                          traceparent => '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01') AS task \gset
SELECT pg_temp.waits(:task, 1, 3);
\pset format unaligned
\x on
SELECT r.attempt, r.method, r.url, r.headers, r.body, r.timeout_ms, r.max_response, r.max_redirects, r.tls_verify, r.host, r.has_handler
FROM tasker.claim_requests('w', 10) AS r;
-- No value of a secret gets into a table.
SELECT pg_temp.answers(200, '{"a": [1, "s3cr3t&key", "k=s3cr3t%26key&"]}',
                       head => E'HTTP/1.1 200 OK\r\nContent-Type: application/problem+JSON; x=y\r\nX-Key: s3cr3t&key\r\nSet-Cookie: a\r\nset-cookie: b\r\n');
SELECT results FROM tasker.workflow_steps WHERE step_id = :task << 14 | 1;
SELECT r.method, r.url, array_remove(r.headers, 'tasker-' || r.step_id) AS headers, convert_from(r.body, 'UTF8') AS body,
       r.timeout_ms, r.max_response, r.max_redirects, r.tls_verify, r.tls_ca, r.host
FROM tasker.claim_requests('w', 10) AS r;
SELECT pg_temp.answers(226, '\xff7300');
SELECT results FROM tasker.workflow_steps WHERE step_id = :task << 14 | 2;
SELECT r.method, r.url, r.headers[1:4] AS headers, convert_from(r.body, 'UTF8') AS body, r.timeout_ms, r.tls_verify, r.host
FROM tasker.claim_requests('w', 10) AS r;
SELECT pg_temp.answers(204, NULL);
SELECT results FROM tasker.workflow_steps WHERE step_id = :task << 14 | 3;
SELECT state FROM tasker.tasks WHERE task_id = :task;
\x off
\pset format aligned

-- What finds nothing, or makes no request, is an error for good that says so.
SELECT tasker.register_task($yaml$
name: http/bad
step_templates:
  - {name: missing, handler_config: {type: api, url: "http://a.example/${context.none.at_all}"}}
  - {name: host, handler_config: {type: api, url: "http://${context.host}/"}}
  - {name: header, handler_config: {type: api, url: "http://a.example/", headers: {X-A: "${context.lines}"}}}
  - {name: found, handler_config: {type: api, url: "http://a.example/${context.nothing}"}}
$yaml$) IS NOT NULL AS registered;
SELECT tasker.create_task('http/bad', '{"host": "a/b@c", "lines": "a\r\nX-B: c", "nothing": null}') AS task \gset
SELECT pg_temp.waits(:task, 1, 3);
SELECT url FROM tasker.claim_requests('w', 10);
SELECT name, state, attempts, error ->> 'sqlstate' AS sqlstate, error ->> 'message' AS message, error ->> 'detail' AS detail
FROM tasker.workflow_steps
WHERE task_id = :task
ORDER BY step_id;
SELECT pg_temp.answers(200, 'text');

-- What answers mean.
SELECT o.outcome, array_agg(s.status ORDER BY s.status) AS statuses
FROM unnest('{200,201,204,226,227,301,304,400,401,403,404,408,409,410,418,422,425,429,451,500,501,502,503,504,505}'::integer[]) AS s (status)
CROSS JOIN LATERAL tasker._http_outcome(s.status, NULL, NULL) AS o (outcome)
GROUP BY o.outcome
ORDER BY o.outcome;
SELECT e.class, tasker._http_outcome(NULL, e.class, NULL)
FROM unnest('{dns,connect,tls,timeout,reset,other,too_large,refused_address,bad_url,bad_redirect,insecure}'::text[]) AS e (class);
SELECT tasker._http_outcome(404, NULL, '[200, 404]') AS listed, tasker._http_outcome(201, NULL, '[200, 404]') AS not_listed,
       tasker._http_outcome(404, NULL, '404') AS one, tasker._http_outcome(204, NULL, 'null') AS none;

SELECT tasker.register_task($yaml$
name: http/one
step_templates:
  - {name: only, default_retry_limit: 9, retry: {base_delay: 1 h, max_delay: 2 h, jitter: 0}, handler_config: {type: api, url: "http://a.example/"}}
$yaml$) IS NOT NULL AS registered;
SELECT array_agg(tasker.create_task('http/one')) AS tasks
FROM generate_series(1, 7) \gset
SELECT pg_temp.waits(t, 1, 3) FROM unnest(:'tasks'::bigint[]) AS t;
SELECT count(*) FROM tasker.claim_requests('w', 10);
-- All in one call, and one that is nobody's any more.
SELECT count(*) AS accepted
FROM tasker.end_requests(
    'w',
    ARRAY(SELECT t << 14 | 1 FROM unnest(:'tasks'::bigint[]) WITH ORDINALITY AS t (t, n) ORDER BY n) || 1::bigint,
    array_fill('http://a.example:80'::text, '{7}') || '{http://b.example:80}'::text[],
    '{200,503,429,500,404,NULL,NULL,200}',
    array_fill(''::bytea, '{8}'),
    ARRAY['ok', 'busy', '', convert_to(repeat('x', 5000), 'UTF8'), 'no', NULL, NULL, '']::bytea[],
    '{NULL,NULL,NULL,NULL,NULL,reset,refused_address,NULL}',
    '{NULL,NULL,NULL,NULL,NULL,has reset the connection,is not allowed,NULL}',
    '{0,30,9000,0,0,0,0,0}',
    array_fill(1, '{8}'));
SELECT w.n, s.state, extract(epoch FROM s.next_attempt_at - (s.error ->> 'at')::timestamptz)::integer AS delay,
       s.error ->> 'sqlstate' AS sqlstate, s.error ->> 'message' AS message, left(s.error ->> 'detail', 100) AS detail,
       length((s.error ->> 'detail')::jsonb ->> 'body') AS excerpt
FROM unnest(:'tasks'::bigint[]) WITH ORDINALITY AS w (task_id, n)
JOIN tasker.workflow_steps AS s USING (task_id)
ORDER BY w.n;
SELECT host, state, failures, last_error FROM tasker.breakers;
SELECT tasker.reset_breaker('http://a.example');
SELECT tasker.reset_breaker('http://a.example:80');
SELECT count(*) AS breakers FROM tasker.breakers;
SELECT tasker.cancel_task(t) FROM unnest(:'tasks'::bigint[]) AS t
JOIN tasker.tasks AS k ON k.task_id = t WHERE k.state = 'in_progress';

-- A handler of the step's class makes the result of the answer; it fails the
-- attempt, and what it wrote goes with that.
CREATE ROLE regress_http_handler;
CREATE TABLE public.http_answers (status integer, once integer UNIQUE DEFERRABLE INITIALLY DEFERRED);
GRANT INSERT ON public.http_answers TO regress_http_handler;
CREATE FUNCTION public.http_take(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.http_answers VALUES ((step.response ->> 'status')::integer, (step.response ->> 'status')::integer);
    IF step.response ->> 'body' = 'again' THEN
        PERFORM tasker.retryable_error('not yet', '1 hour');
    ELSIF step.response ->> 'body' = 'never' THEN
        PERFORM tasker.permanent_error('never');
    END IF;
    RETURN jsonb_build_object('took', step.response -> 'body', 'as', current_user, 'after', step.dependencies, 'key', step.config -> 'x-key');
END;
$$;
SET ROLE regress_http_handler;
SELECT tasker.register_handler('http_take', 'public.http_take');
RESET ROLE;
SELECT tasker.register_task($yaml$
name: http/handled
step_templates:
  - {name: first, handler_class: http_take, default_retry_limit: 9, handler_config: {type: api, url: "http://a.example/", x-key: "${HTTP_KEY}"}}
  - {name: second, depends_on_step: first, handler_class: http_take, handler_config: {type: api, url: "http://a.example/"}}
$yaml$) IS NOT NULL AS registered;
SELECT tasker.create_task('http/handled') AS task \gset
SELECT pg_temp.waits(:task, 1, 3);
SELECT has_handler FROM tasker.claim_requests('w', 10);
SELECT pg_temp.answers(500, 'again');
SELECT error ->> 'message' AS message FROM tasker.workflow_steps WHERE step_id = :task << 14 | 1;
SELECT tasker.retry_step(:task << 14 | 1);
SELECT has_handler FROM tasker.claim_requests('w', 10);
SELECT pg_temp.answers(200, 'again');
SELECT error ->> 'message' AS message, extract(epoch FROM next_attempt_at - (error ->> 'at')::timestamptz)::integer AS delay
FROM tasker.workflow_steps WHERE step_id = :task << 14 | 1;
SELECT tasker.retry_step(:task << 14 | 1);
SELECT attempt FROM tasker.claim_requests('w', 10);
SELECT pg_temp.answers(200, 'done');
SELECT results FROM tasker.workflow_steps WHERE step_id = :task << 14 | 1;
SELECT has_handler FROM tasker.claim_requests('w', 10);
-- a deferred constraint is the handler's own failure, too
SELECT pg_temp.answers(200, 'done');
SELECT error ->> 'sqlstate' AS sqlstate FROM tasker.workflow_steps WHERE step_id = :task << 14 | 2;
SELECT tasker.retry_step(:task << 14 | 2);
SELECT has_handler FROM tasker.claim_requests('w', 10);
SELECT pg_temp.answers(201, 'never');
SELECT error ->> 'sqlstate' AS sqlstate FROM tasker.workflow_steps WHERE step_id = :task << 14 | 2;
SELECT tasker.retry_step(:task << 14 | 2);
SELECT has_handler FROM tasker.claim_requests('w', 10);
SELECT pg_temp.answers(202, 'done');
SELECT results FROM tasker.workflow_steps WHERE step_id = :task << 14 | 2;
SELECT state FROM tasker.tasks WHERE task_id = :task;
SELECT status FROM public.http_answers ORDER BY status;
-- Who does not hold the lease has no effect at all.
SELECT tasker.create_task('http/handled') AS task \gset
SELECT pg_temp.waits(:task, 1, 3);
SELECT count(*) FROM tasker.claim_requests('other', 10);
SELECT count(*) FROM tasker.end_requests('w', ARRAY[:task::bigint << 14 | 1], '{http://a.example:80}', '{203}', '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{0}', '{0}');
SELECT status FROM public.http_answers ORDER BY status;
SELECT state, claimed_by FROM tasker.workflow_steps WHERE step_id = :task << 14 | 1;
SELECT tasker.cancel_task(:task);

-- A host that fails five times in a row is left alone, which is no attempt.
SELECT tasker._note_answers(array_fill('http://a.example:80'::text, '{6}'), '{500,NULL,500,429,404,NULL}', '{NULL,dns,NULL,NULL,NULL,timeout}');
SELECT host, state, failures, last_error FROM tasker.breakers;
SELECT tasker._note_answers(array_fill('http://a.example:80'::text, '{3}'), '{500,502,503}', '{NULL,NULL,NULL}');
SELECT state, failures FROM tasker.breakers;
SELECT tasker._note_answers('{http://a.example:80,http://b.example:80}', '{NULL,NULL}', '{tls,refused_address}');
SELECT host, state, failures, last_error, open_until - opened_at AS open_for FROM tasker.breakers;
SELECT tasker.register_task($yaml$
name: http/hosts
step_templates:
  - {name: plain, handler_config: {type: api, url: "http://a.example/x"}}
  - {name: made, handler_config: {type: api, url: "http://${context.name}.example:${context.port}/x"}}
  - {name: other, handler_config: {type: api, url: "http://b.example/x"}}
$yaml$) IS NOT NULL AS registered;
SELECT tasker.create_task('http/hosts', '{"name": "A", "port": 80}') AS task \gset
SELECT pg_temp.waits(:task, 1, 3);
SELECT url FROM tasker.claim_requests('w', 10);
SELECT q.step_no, q.lane, q.due_lane, q.due = b.open_until AS due_then
FROM tasker.queue AS q
CROSS JOIN tasker.breaker AS b
WHERE q.task_id = :task
  AND q.due_lane IS NOT NULL
ORDER BY q.step_no;
SELECT name, state, attempts FROM tasker.workflow_steps WHERE task_id = :task ORDER BY name;
SELECT count(*) AS problems FROM tasker.verify();
-- Later, one is let through; by its failure the host is left alone again.
SET tasker.clock_offset = 31;
CREATE FUNCTION pg_temp.come_due(task bigint) RETURNS void
LANGUAGE sql AS $$ UPDATE tasker.queue SET lane = 3, due_lane = NULL WHERE task_id = task AND due_lane = 3; $$;
SELECT pg_temp.come_due(:task);
SELECT state FROM tasker.breakers;
SELECT count(*) AS probes FROM tasker.claim_requests('w', 10, lease => '1 hour');
SELECT pg_temp.come_due(:task);
SELECT count(*) AS probes FROM tasker.claim_requests('w2', 10, lease => '1 hour');
SELECT tasker._note_answers('{http://a.example:80}', '{500}', '{NULL}');
SELECT state, failures FROM tasker.breakers;
SET tasker.clock_offset = 62;
SELECT state FROM tasker.breakers;
SELECT pg_temp.come_due(:task);
SELECT count(*) AS probes FROM tasker.claim_requests('w3', 10, lease => '1 hour');
SELECT tasker._note_answers('{http://a.example:80}', '{404}', '{NULL}');
SELECT count(*) AS breakers FROM tasker.breakers;
-- Failures that lie apart open none.
SELECT tasker._note_answers(array_fill('http://a.example:80'::text, '{4}'), '{500,500,500,500}', '{NULL,NULL,NULL,NULL}');
SET tasker.clock_offset = 130;
SELECT tasker._note_answers('{http://a.example:80}', '{500}', '{NULL}');
SELECT state, failures FROM tasker.breakers;
RESET tasker.clock_offset;
SELECT tasker.reset_breaker('http://a.example:80');
SELECT tasker.cancel_task(:task);

SELECT tasker.claim_requests('w', 0);
SELECT tasker.claim_requests('', 1);
SET ROLE regress_http_handler;
SELECT tasker.claim_requests('w', 1);
SELECT tasker.reset_breaker('http://a.example:80');
RESET ROLE;
SELECT count(*) AS problems FROM tasker.verify();
SELECT tasker.unregister_handler('http_take');
DROP TABLE public.http_answers;
DROP FUNCTION public.http_take(tasker.step_context);
DROP ROLE regress_http_handler;
SELECT tasker.drop_secret('HTTP_KEY');

-- No answer reaches a worker outside: the agent makes the request of an api step, and
-- its end is one transaction with the handler.  Whichever comes first, that is said.
SELECT tasker.register_external_handler('http_outside', namespace => 'http_a');
SET client_min_messages = warning;
SELECT tasker.register_task($yaml$
name: http/outside
namespace_name: http_a
step_templates:
  - {name: first, handler_class: http_outside, handler_config: {type: api, url: "https://a.example/"}}
  - {name: second, handler_class: http_outside, handler_config: {url: "https://a.example/"}}
  - {name: third, handler_class: http_other, handler_config: {type: api, url: "https://a.example/"}}
$yaml$) IS NOT NULL AS warned;
SELECT tasker.register_task($yaml$
name: http/outside
step_templates:
  - {name: only, handler_class: http_outside, handler_config: {type: api, url: "https://a.example/"}}
$yaml$) IS NOT NULL AS of_another_namespace;
SELECT tasker.register_external_handler('http_outside', version => '2.0.0');
SELECT tasker.register_external_handler('http_outside');
SET client_min_messages = error;
SELECT tasker.create_task('http/outside', namespace => 'http_a') AS task \gset
SELECT pg_temp.waits(:task, 1, 3);
SELECT pg_temp.waits(:task, 2, h.handler_id) FROM tasker.handler AS h WHERE h.name = 'http_outside' AND h.namespace = 'http_a';
SELECT s.step_name, s.handler
FROM (SELECT c.step_name, 'outside' AS handler FROM tasker.claim_steps('w', max_steps => 10, namespaces => '{http_a}') AS c
      UNION ALL
      SELECT s.name, 'agent'
      FROM tasker.claim_requests('w', 10, namespaces => '{http_a}') AS r
      JOIN tasker.workflow_steps AS s USING (step_id)) AS s
ORDER BY s.step_name;
SELECT tasker.cancel_task(:task);
SELECT count(tasker.unregister_handler(h.name, h.namespace, h.version)) FROM tasker.handlers AS h WHERE h.name = 'http_outside';

-- What a secret brings is no template, alone or together with what stands around it,
-- and what a template brings is neither that nor a secret.
SET client_min_messages = error;
SELECT count(tasker.set_secret(s.name, s.value))
FROM (VALUES ('LOOKS', '${context.id} $${context.id} ${LOOKS} ${dependencies.nobody}'), ('DOLLAR', '$'), ('BRACED', '{context.id}')) AS s (name, value);
SELECT tasker.register_task($yaml$
name: http/secrets
step_templates:
  - name: only
    handler_config:
      type: api
      url: "http://127.0.0.1:9/${context.id}?a=${DOLLAR}${BRACED}&b=${DOLLAR}${context.id}&c=${context.evil}&d=$${LOOKS}"
      params: {e: "${LOOKS}"}
      headers: {X-A: "${LOOKS}", X-B: "${DOLLAR}${context.id}"}
      body: {f: "${LOOKS}", g: ["${context.evil} ${BRACED}", "${context.evil}"], h: "$${DOLLAR} $${context.id} ${context.id}"}
$yaml$) IS NOT NULL AS registered;
SELECT tasker.create_task('http/secrets', '{"id": 7, "evil": "${LOOKS} ${context.id}"}') AS task \gset
SELECT pg_temp.waits(:task, 1, 3);
SELECT r.url, r.headers[7:10] AS headers, convert_from(r.body, 'UTF8') AS body
FROM tasker.claim_requests('w', 1) AS r;
SELECT tasker.cancel_task(:task);
SELECT count(tasker.drop_secret(s.name)) FROM tasker.secrets AS s WHERE s.name IN ('LOOKS', 'DOLLAR', 'BRACED');
SELECT tasker._http_text('${S}${context.a}$${S}$${context.a}$${other}', '{"a": "x"}', '{}', '{"S": "$"}', false);
