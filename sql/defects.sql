-- The defects that users of the engine we were asked to implement live with
-- (reference, section 13, "Observed"), each with what happens here.  Elsewhere:
-- a crash and stuck work in test/t/100_crash.pl and 110_crashing_step.pl.  With
-- the parts they belong to: /health/ready, the slowest-* functions, percentiles.

\set SHOW_CONTEXT never
SET client_min_messages = error;
CREATE SCHEMA defects;
SET search_path = defects, public;
CREATE TABLE ran (task_id bigint, step text, attempt integer, pid integer DEFAULT pg_backend_pid());
CREATE FUNCTION fine(step tasker.step_context) RETURNS jsonb LANGUAGE sql AS $$
    INSERT INTO defects.ran (task_id, step, attempt) VALUES (step.task_id, step.step_name, step.attempt);
    SELECT '{}'::jsonb;
$$;
CREATE FUNCTION second_time(step tasker.step_context) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF step.attempt = 1 THEN
        PERFORM tasker.retryable_error('not yet', interval '10 ms');
    END IF;
    RETURN defects.fine(step);
END $$;
CREATE FUNCTION later(step tasker.step_context) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF step.attempt = 1 THEN
        PERFORM tasker.retryable_error('tomorrow', interval '1 day');
    END IF;
    RETURN defects.fine(step);
END $$;
CREATE FUNCTION permanent(step tasker.step_context) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    PERFORM tasker.permanent_error('never');
    RETURN NULL;
END $$;
CREATE FUNCTION broken(step tasker.step_context) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'broken';
END $$;
SELECT count(tasker.register_handler(name, ('defects.' || name)::regproc, 'defects'))
FROM unnest(ARRAY['fine', 'second_time', 'later', 'permanent', 'broken']) AS f (name);
SELECT FROM tasker.register_external_handler('outside', 'defects');
CREATE FUNCTION task(name text, steps text) RETURNS void LANGUAGE sql AS $$
    SELECT tasker.register_task(format('{"name": "%s", "namespace_name": "defects", "step_templates": [%s]}', name, steps));
$$;
-- Waits, at most half a minute, until the condition holds.
CREATE FUNCTION settled(condition text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    holds boolean;
BEGIN
    FOR i IN 1 .. 3000 LOOP
        EXECUTE 'SELECT ' || condition INTO holds;
        EXIT WHEN holds;
        PERFORM pg_sleep(0.01);
    END LOOP;
    RETURN holds;
END $$;

\echo == No automatic error to pending retry, and a hot loop
SELECT FROM task('retry', '{"name": "a", "handler_class": "second_time"}');
SELECT tasker.create_task('retry', namespace => 'defects') AS id \gset
SELECT tasker.wait_for_task(:id);
SELECT state, attempts FROM tasker.workflow_steps WHERE task_id = :id;
SELECT from_state, to_state, attempt FROM tasker.workflow_step_transitions WHERE task_id = :id ORDER BY occurred_at, transition_id;

\echo == Waiting tasks are not re-enqueued in the normal path
-- What waits for its retry stands in the queue with its time, and goes on then
-- by itself; until then nothing looks at it.
SELECT FROM task('wait', '{"name": "a", "handler_class": "later"}, {"name": "b", "handler_class": "fine", "depends_on_step": "a"}');
SELECT tasker.create_task('wait', namespace => 'defects') AS id \gset
SELECT settled(format('state = %L FROM tasker.workflow_steps WHERE step_id = %s', 'waiting_for_retry', :id::bigint << 14 | 1));
SELECT count(*) AS tokens, bool_and(due = s.next_attempt_at AND due - s.started_at > interval '23 hours') AS in_time
FROM tasker.queue AS q
JOIN tasker.workflow_steps AS s ON s.step_id = q.task_id << 14 | q.step_no
WHERE q.task_id = :id;
ALTER SYSTEM SET tasker.clock_offset = 90000;
SELECT pg_reload_conf();
SELECT tasker.wait_for_task(:id);
SELECT name, state, attempts FROM tasker.workflow_steps WHERE task_id = :id ORDER BY step_id;
ALTER SYSTEM RESET tasker.clock_offset;
SELECT pg_reload_conf();
-- A session that begins now has it, and by then every process was told.
\c -
SET client_min_messages = error;
SET search_path = defects, public;

\echo == A permanent error is retried
SELECT FROM task('permanent', '{"name": "a", "handler_class": "permanent", "default_retry_limit": 5}');
SELECT tasker.create_task('permanent', namespace => 'defects') AS id \gset
SELECT tasker.wait_for_task(:id);
SELECT state, attempts, retry_limit, error ->> 'retryable' AS retryable FROM tasker.workflow_steps WHERE task_id = :id;

\echo == retryable = false is never reported as blocked
SELECT FROM task('not_retryable', '{"name": "a", "handler_class": "broken", "default_retryable": false, "default_retry_limit": 5}');
SELECT tasker.create_task('not_retryable', namespace => 'defects') AS id \gset
SELECT tasker.wait_for_task(:id);
SELECT current_state, attempts, retry_eligible, ready_for_execution, next_retry_at FROM tasker.step_readiness(:id);
SELECT execution_status, health_status, recommended_action, failed_steps, ready_steps FROM tasker.task_execution_context(:id);

\echo == A cancelled step makes its task impossible to finish
SELECT FROM task('cancelled', '{"name": "a", "handler_class": "outside"}, {"name": "b", "handler_class": "fine", "depends_on_step": "a"}, {"name": "c", "handler_class": "outside"}');
SELECT tasker.create_task('cancelled', namespace => 'defects') AS id \gset
SELECT tasker.cancel_step(:id::bigint << 14 | 1);
SELECT settled(format('count(*) = 1 FROM tasker.queue WHERE task_id = %s AND lane >= 100', :id));
SELECT step_name FROM tasker.claim_steps('w', ARRAY['outside'], ARRAY['defects']);
SELECT tasker.complete_step(:id::bigint << 14 | 3, '{}', 'w');
SELECT tasker.wait_for_task(:id);
SELECT name, state FROM tasker.workflow_steps WHERE task_id = :id ORDER BY step_id;

\echo == No recovery of a step that is stuck in progress
-- A worker that never comes back: its lease ends, and the attempt with it.
SELECT FROM task('stuck', '{"name": "a", "handler_class": "outside", "default_retry_limit": 2}');
SELECT tasker.create_task('stuck', namespace => 'defects') AS id \gset
SELECT settled(format('count(*) = 1 FROM tasker.queue WHERE task_id = %s AND lane >= 100', :id));
SELECT step_name, attempt FROM tasker.claim_steps('lost', ARRAY['outside'], ARRAY['defects'], lease => '20 ms');
SELECT settled(format('count(*) = 1 FROM tasker.queue WHERE task_id = %s AND lane >= 100', :id));
SELECT state, attempts, claimed_by, error ->> 'sqlstate' AS sqlstate FROM tasker.workflow_steps WHERE task_id = :id;
SELECT step_name, attempt FROM tasker.claim_steps('other', ARRAY['outside'], ARRAY['defects']);
\set VERBOSITY sqlstate
SELECT tasker.complete_step(:id::bigint << 14 | 1, '{}', 'lost');
\set VERBOSITY default
SELECT tasker.complete_step(:id::bigint << 14 | 1, '{}', 'other');
SELECT tasker.wait_for_task(:id);

\echo == No locking when two workers take one task
-- Sixty tasks of nine steps, two executors: each step ran once.
SELECT FROM task('two', '{"name": "a", "handler_class": "fine"}, '
    || (SELECT string_agg(format('{"name": "b%s", "handler_class": "fine", "depends_on_step": "a"}', n), ', ') FROM generate_series(1, 7) AS n)
    || ', {"name": "c", "handler_class": "fine", "depends_on_steps": ["b1", "b2", "b3", "b4", "b5", "b6", "b7"]}');
SELECT count(*) FROM tasker.create_tasks('two', array_fill('{}'::jsonb, ARRAY[60]), 'defects');
SELECT count(*) FROM tasker.tasks WHERE name = 'two' AND tasker.wait_for_task(task_id) = 'complete';
SELECT count(*) AS runs, count(DISTINCT (task_id, step)) AS steps
FROM ran JOIN tasker.tasks USING (task_id)
WHERE tasks.name = 'two';
-- Two workers outside get each step once between them.
SELECT FROM task('shared', (SELECT string_agg(format('{"name": "s%s", "handler_class": "outside"}', n), ', ') FROM generate_series(1, 10) AS n));
SELECT tasker.create_task('shared', namespace => 'defects') AS id \gset
SELECT settled(format('count(*) = 10 FROM tasker.queue WHERE task_id = %s AND lane >= 100', :id));
SELECT count(*) FROM tasker.claim_steps('one', ARRAY['outside'], ARRAY['defects'], max_steps => 6);
SELECT count(*) FROM tasker.claim_steps('two', ARRAY['outside'], ARRAY['defects'], max_steps => 6);
SELECT claimed_by, count(*), max(attempts) FROM tasker.workflow_steps WHERE task_id = :id GROUP BY claimed_by ORDER BY claimed_by;

\echo == in_process is never set
SELECT DISTINCT state, claimed_by IS NOT NULL AND lease_until > tasker.clock() AS held FROM tasker.workflow_steps WHERE task_id = :id;
SELECT count(*) FROM tasker.step_readiness(:id) WHERE ready_for_execution;
SELECT tasker.cancel_task(:id);

\echo == backoff_request_seconds is never cleared
-- The delay that a failure asked for is that of one attempt.
SELECT next_attempt_at IS NULL AS cleared, s.state FROM tasker.workflow_steps AS s JOIN tasker.tasks AS t USING (task_id)
WHERE t.name = 'wait' AND t.namespace = 'defects' AND s.name = 'a';
SELECT next_retry_at, backoff_request_seconds FROM tasker.step_readiness((SELECT task_id FROM tasker.tasks WHERE name = 'wait' AND namespace = 'defects'))
WHERE name = 'a';

\echo == bypass_steps, skippable and concurrent are ignored
SELECT FROM task('bypass', '{"name": "a", "handler_class": "broken", "skippable": true}, {"name": "b", "handler_class": "fine", "depends_on_step": "a"}, {"name": "c", "handler_class": "broken", "depends_on_step": "b"}');
SELECT tasker.create_task('bypass', namespace => 'defects', bypass_steps => ARRAY['a', 'c']) AS id \gset
SELECT tasker.wait_for_task(:id);
SELECT name, state, attempts FROM tasker.workflow_steps WHERE task_id = :id ORDER BY step_id;
SELECT tasker.create_task('bypass', namespace => 'defects', bypass_steps => ARRAY['d']);

\echo == Events are published two or three times
-- Each move is one row of the log, from which every event is made.
SELECT s.name, t.from_state, t.to_state, count(*)
FROM tasker.transitions AS t
LEFT JOIN tasker.workflow_steps AS s USING (step_id)
WHERE t.task_id = :id
GROUP BY s.name, t.from_state, t.to_state
ORDER BY s.name NULLS FIRST, min(t.occurred_at), min(t.transition_id);

\echo == View and levels take time exponential in the number of paths
-- Twenty diamonds in a row have a million paths from the first step to the last.
SELECT FROM task('paths', '{"name": "j0", "handler_class": "fine"}, '
    || (SELECT string_agg(format('{"name": "l%1$s", "handler_class": "fine", "depends_on_step": "j%2$s"}, {"name": "r%1$s", "handler_class": "fine", "depends_on_step": "j%2$s"}, {"name": "j%1$s", "handler_class": "fine", "depends_on_steps": ["l%1$s", "r%1$s"]}', n, n - 1), ', ' ORDER BY n)
        FROM generate_series(1, 20) AS n));
SELECT tasker.create_task('paths', namespace => 'defects') AS id \gset
SELECT tasker.wait_for_task(:id);
SET statement_timeout = '20 s';
SELECT count(*), max(dependency_level) FROM tasker.dependency_levels(:id);
SELECT count(*) FROM tasker.step_readiness(:id);
SELECT count(*) FROM tasker.workflow_step_edges WHERE task_id = :id;
RESET statement_timeout;

\echo == Version 0.10.0 sorts below 0.9.0 as text
SELECT count(tasker.register_task(format('{"name": "version", "namespace_name": "defects", "version": "%s", "step_templates": [{"name": "a", "handler_class": "fine"}]}', v)))
FROM unnest(ARRAY['0.9.0', '0.10.0']) AS w (v);
SELECT tasker.create_task('version', namespace => 'defects') AS id \gset
SELECT version FROM tasker.tasks WHERE task_id = :id;

\echo == Namespace and version are no part of the identity of a task
SELECT tasker.identity_hash('version', namespace => 'defects', version => '0.9.0', at => '2025-01-01') = tasker.identity_hash('version', namespace => 'defects', version => '0.10.0', at => '2025-01-01') AS same_version,
       tasker.identity_hash('version', namespace => 'defects', version => '0.9.0', at => '2025-01-01') = tasker.identity_hash('version', version => '0.9.0', at => '2025-01-01') AS same_namespace;

SELECT count(*) FROM tasker.tasks WHERE namespace = 'defects' AND tasker.wait_for_task(task_id) NOT IN ('complete', 'error', 'cancelled');
SELECT v.* FROM tasker.verify() AS v JOIN tasker.tasks AS t USING (task_id) WHERE t.namespace = 'defects';
SELECT count(tasker.unregister_handler(name, namespace)) FROM tasker.handlers WHERE namespace = 'defects';
RESET search_path;
DROP SCHEMA defects CASCADE;
