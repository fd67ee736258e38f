-- concurrent: false: the steps of a task run one at a time.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS tasker;
\set SHOW_CONTEXT never
\pset format unaligned
\pset fieldsep ' | '

CREATE ROLE regress_tasker_queue NOLOGIN;
CREATE SCHEMA regress_concurrent AUTHORIZATION regress_tasker_queue;
SET ROLE regress_tasker_queue;
SET search_path = regress_concurrent, pg_temp;

-- Fails in as many attempts as its context says.
CREATE FUNCTION work(step tasker.step_context)
RETURNS jsonb
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM pg_sleep(0.002);
    IF step.attempt <= coalesce((step.context -> 'failures' ->> step.step_name)::integer, 0) THEN
        RAISE EXCEPTION 'not yet';
    END IF;
    RETURN '{}';
END;
$$;
SELECT tasker.register_handler('work', 'regress_concurrent.work', namespace => 'queue');
SELECT tasker.register_external_handler('abroad', namespace => 'queue');

-- Five steps that need the first, and one that needs two of them; by SQL and by a worker.
SELECT tasker.register_task(format($$
name: %1$s
namespace_name: queue
concurrent: false
step_templates:
  - {name: c, handler_class: %1$s, depends_on_step: a, retry: {limit: 2, base_delay: 0}}
  - {name: a, handler_class: %1$s, retry: {limit: 2, base_delay: 0}}
  - {name: d, handler_class: %1$s, depends_on_step: a, retry: {limit: 2, base_delay: 0}}
  - {name: last, handler_class: %1$s, depends_on_steps: [c, e], retry: {limit: 2, base_delay: 0}}
  - {name: e, handler_class: %1$s, depends_on_step: a, retry: {limit: 2, base_delay: 0}}
  - {name: f, handler_class: %1$s, depends_on_step: a, retry: {limit: 2, base_delay: 0}}
$$, name)) > 0 AS registered
FROM unnest('{work,abroad}'::text[]) AS name;
-- The definition has these edges and no others.
SELECT s.step_no, s.name, s.parents, s.level
FROM tasker.plan AS p
JOIN tasker.plan_step AS s USING (plan_id)
WHERE p.namespace = 'queue'
  AND p.name = 'work'
ORDER BY s.step_no;

-- What the log says of a task: its attempts in their order, and whether any two overlap.
CREATE FUNCTION history(task_id bigint)
RETURNS TABLE (steps text, overlap bigint)
LANGUAGE sql
AS $$
    WITH attempt AS (
        SELECT t.step_id, w.name, t.to_state, t.occurred_at AS begun, t.transition_id,
               lead(t.to_state) OVER step AS ended,
               lead(t.occurred_at) OVER step AS until
        FROM tasker.transitions AS t
        JOIN tasker.workflow_steps AS w USING (step_id)
        WHERE t.task_id = history.task_id
        WINDOW step AS (PARTITION BY t.step_id ORDER BY t.occurred_at, t.transition_id)
    )
    SELECT (SELECT string_agg(a.name || CASE a.ended WHEN 'complete' THEN '' ELSE ':' || a.ended END, ' ' ORDER BY a.begun, a.transition_id)
            FROM attempt AS a
            WHERE a.to_state = 'in_progress'),
           (SELECT count(*)
            FROM attempt AS a
            JOIN attempt AS b ON b.step_id > a.step_id
                             AND b.begun < a.until
                             AND a.begun < b.until
            WHERE a.to_state = 'in_progress'
              AND b.to_state = 'in_progress');
$$;

-- By executors: in the order of the definition as far as dependencies let it.
SELECT tasker.create_task('work', '{}', 'queue') AS plain \gset
SELECT tasker.create_task('work', '{"failures": {"d": 1}}', 'queue') AS retried \gset
SELECT tasker.create_task('work', '{"failures": {"d": 2}}', 'queue') AS failed \gset
SELECT tasker.create_task('work', '{}', 'queue', bypass_steps => '{c}') AS bypassed \gset
SELECT tasker.create_task('work', '{"failures": {"a": 2}}', 'queue') AS blocked \gset
SELECT tasker.wait_for_task(id, '60 s') AS state
FROM unnest(ARRAY[:plain, :retried, :failed, :bypassed, :blocked]) AS id;
SELECT n, h.*
FROM (VALUES (1, :plain), (2, :retried), (3, :failed), (4, :bypassed), (5, :blocked)) AS t (n, id)
CROSS JOIN LATERAL history(id) AS h
ORDER BY n;
-- What failed goes on, and then what waited for it.
SELECT tasker.retry_task(:blocked);
SELECT tasker.wait_for_task(:blocked, '60 s') AS state;
SELECT * FROM history(:blocked);
-- In the caller's transaction.
SELECT r ->> 'status' AS status, h.steps, h.overlap
FROM (SELECT tasker.run_task('work', '{"failures": {"d": 1}}', 'queue') AS r OFFSET 0) AS t
CROSS JOIN LATERAL history((r ->> 'task_id')::bigint) AS h;

-- By a worker, who gets one step whatever he asks for, and no second one.
CREATE FUNCTION claimed()
RETURNS text
LANGUAGE sql
AS $$ SELECT coalesce(string_agg(c.step_name, ','), 'nothing') FROM tasker.claim_steps('worker', '{abroad}', '{queue}', 10, '1 hour') AS c $$;
CREATE FUNCTION ready(task_id bigint)
RETURNS text
LANGUAGE sql
AS $$ SELECT coalesce(string_agg(r.name, ',' ORDER BY r.step_id), 'nothing') FROM tasker.step_readiness(task_id) AS r WHERE r.ready_for_execution $$;
CREATE FUNCTION id_of(task_id bigint, step_name text)
RETURNS bigint
LANGUAGE sql
AS $$ SELECT w.step_id FROM tasker.workflow_steps AS w WHERE w.task_id = id_of.task_id AND w.name = step_name $$;
SELECT tasker.create_task('abroad', '{}', 'queue') AS task \gset
CREATE PROCEDURE settle(task bigint)
LANGUAGE plpgsql
AS $$
DECLARE
    give_up constant timestamptz := clock_timestamp() + interval '60 s';
BEGIN
    -- The start of the task is an executor's.
    WHILE (SELECT state FROM tasker.tasks WHERE task_id = task) = 'pending' AND clock_timestamp() < give_up LOOP
        COMMIT;
        PERFORM pg_sleep(0.005);
    END LOOP;
END;
$$;
CALL settle(:task);
SELECT ready(:task), claimed(), ready(:task) AS then_ready, claimed() AS then_claimed;
SELECT tasker.complete_step(id_of(:task, 'a'), '{}', 'worker');
SELECT ready(:task), claimed(), claimed() AS then_claimed;
-- Waiting for its retry it keeps its turn ...
SELECT tasker.fail_step(id_of(:task, 'c'), '{"message": "later"}', true, '1 hour', 'worker');
SELECT ready(:task), claimed();
SELECT count(*) AS problems FROM tasker.verify();
-- ... until somebody deals with it.
SELECT tasker.resolve_step(id_of(:task, 'c'), '{}', 'by hand');
SELECT ready(:task), claimed();
-- Out of attempts it gives its turn up; retried by hand it waits for its turn again.
SELECT tasker.fail_step(id_of(:task, 'd'), '{"message": "never"}', false, worker => 'worker');
SELECT ready(:task), claimed();
SELECT tasker.retry_step(id_of(:task, 'd'));
SELECT ready(:task), claimed();
SELECT tasker.pause_task(:task);
SELECT tasker.complete_step(id_of(:task, 'e'), '{}', 'worker');
SELECT ready(:task), claimed();
SELECT tasker.resume_task(:task);
SELECT ready(:task), claimed();
SELECT tasker.complete_step(id_of(:task, 'd'), '{}', 'worker');
SELECT ready(:task), claimed();
SELECT tasker.cancel_step(id_of(:task, 'last'));
SELECT ready(:task), claimed();
SELECT count(*) AS problems FROM tasker.verify();
SELECT tasker.complete_step(id_of(:task, 'f'), '{}', 'worker');
SELECT tasker.wait_for_task(:task, '60 s') AS state;
SELECT * FROM history(:task);
SELECT count(*) AS problems FROM tasker.verify();

-- An environment may say otherwise.
SELECT tasker.register_task($$
name: either
namespace_name: queue
concurrent: false
step_templates: [{name: a, handler_class: work}, {name: b, handler_class: work}]
environments: {busy: {concurrent: true}}
$$) > 0 AS registered;
SELECT environment, concurrent
FROM tasker.plan
WHERE namespace = 'queue'
  AND name = 'either'
ORDER BY plan_id;

SELECT tasker.unregister_handler('work', 'queue'), tasker.unregister_handler('abroad', 'queue');
RESET ROLE;
RESET search_path;
DROP SCHEMA regress_concurrent CASCADE;
DROP ROLE regress_tasker_queue;
