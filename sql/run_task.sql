-- tasker.run_task(): a whole graph in the caller's transaction.

\set SHOW_CONTEXT never
\pset format unaligned
\pset tuples_only on
SET client_min_messages = error;
SET timezone = 'UTC';

CREATE ROLE regress_run_task_maker;
CREATE ROLE regress_run_task_caller;
CREATE SCHEMA run_task;
GRANT USAGE ON SCHEMA run_task TO regress_run_task_maker, regress_run_task_caller;
CREATE TABLE run_task.effect (step text, attempt integer, role text);
GRANT SELECT, INSERT ON run_task.effect TO regress_run_task_maker;
CREATE FUNCTION run_task.ok(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO run_task.effect VALUES (step.step_name, step.attempt, current_user);
    RETURN jsonb_build_object('step', step.step_name);
END $$;
CREATE FUNCTION run_task.third_time(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO run_task.effect VALUES (step.step_name, step.attempt, current_user);
    IF step.attempt < 3 THEN
        PERFORM tasker.retryable_error('not yet', interval '1 day');
    END IF;
    RETURN '{}';
END $$;
CREATE FUNCTION run_task.bad(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$ BEGIN PERFORM tasker.permanent_error('bad luck'); RETURN NULL; END $$;
CREATE FUNCTION run_task.sleeps(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(600); RETURN NULL; END $$;
CREATE FUNCTION run_task.nests(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$ BEGIN RETURN tasker.run_task('run_task'); END $$;
CREATE FUNCTION run_task.settings(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('application_name', 'the handler''s', false);
    PERFORM set_config('search_path', 'nowhere', false);
    RETURN jsonb_build_object('role', current_user);
END $$;
ALTER FUNCTION run_task.settings(tasker.step_context) OWNER TO regress_run_task_maker;
GRANT CREATE ON SCHEMA run_task TO regress_run_task_maker;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA tasker TO regress_run_task_maker, regress_run_task_caller;
GRANT USAGE ON SCHEMA tasker TO regress_run_task_maker, regress_run_task_caller;

SET ROLE regress_run_task_maker;
SELECT FROM tasker.register_handler('run_task_ok', 'run_task.ok');
SELECT FROM tasker.register_handler('run_task_settings', 'run_task.settings');
RESET ROLE;
SELECT FROM tasker.register_handler('run_task_third', 'run_task.third_time');
SELECT FROM tasker.register_handler('run_task_bad', 'run_task.bad');
SELECT FROM tasker.register_handler('run_task_sleeps', 'run_task.sleeps');
SELECT FROM tasker.register_handler('run_task_nests', 'run_task.nests');
SELECT FROM tasker.register_external_handler('run_task_outside');
SELECT FROM tasker.register_task($$
name: run_task
schema: {type: object, properties: {n: {type: integer}}}
step_templates:
  - {name: a, handler_class: run_task_ok}
  - {name: b, handler_class: run_task_third, depends_on_step: a, retry: {limit: 3}}
  - {name: c, handler_class: run_task_ok, depends_on_step: a}
  - {name: d, handler_class: run_task_ok, depends_on_steps: [b, c]}
$$);
SELECT FROM tasker.register_task($$
name: run_task_outside
step_templates:
  - {name: a, handler_class: run_task_ok}
  - {name: out, handler_class: run_task_outside, depends_on_step: a}
  - {name: z, handler_class: run_task_ok, depends_on_step: out}
$$);
SELECT FROM tasker.register_task($$
name: run_task_bad
step_templates:
  - {name: a, handler_class: run_task_bad}
  - {name: b, handler_class: run_task_ok}
  - {name: c, handler_class: run_task_ok, depends_on_step: a}
$$);
SELECT FROM tasker.register_task($$
name: run_task_stop
on_failure: stop
step_templates:
  - {name: a, handler_class: run_task_bad}
  - {name: b, handler_class: run_task_ok}
  - {name: c, handler_class: run_task_ok, depends_on_step: a}
$$);
SELECT FROM tasker.register_task($$
name: run_task_timeout
step_templates:
  - {name: a, handler_class: run_task_sleeps, timeout: 0.05, retry: {limit: 2}}
$$);
SELECT FROM tasker.register_task($$
name: run_task_deadline
timeout: 2
step_templates:
  - {name: a, handler_class: run_task_ok}
  - {name: b, handler_class: run_task_sleeps, depends_on_step: a}
  - {name: c, handler_class: run_task_ok, depends_on_step: b}
$$);
SELECT FROM tasker.register_task('{"name": "run_task_nests", "step_templates": [{"name": "a", "handler_class": "run_task_nests"}]}');
SELECT FROM tasker.register_task('{"name": "run_task_settings", "step_templates": [{"name": "a", "handler_class": "run_task_settings"}]}');

CREATE FUNCTION run_task.summary(status jsonb) RETURNS TABLE (line text)
LANGUAGE sql AS $$
    SELECT format('%s %s', status ->> 'name', status ->> 'state')
    UNION ALL
    SELECT format('  %s %s %s %s', s ->> 'name', s ->> 'state', s ->> 'attempts', s -> 'error' ->> 'message')
    FROM jsonb_array_elements(status -> 'workflow_steps') AS s
$$;
CREATE VIEW run_task.rows AS
WITH mine AS (
    SELECT task_id FROM tasker.tasks WHERE name LIKE 'run\_task%')
SELECT (SELECT count(*) FROM mine) AS tasks,
       (SELECT count(*) FROM tasker.step JOIN mine USING (task_id)) AS steps,
       (SELECT count(*) FROM tasker.queue JOIN mine USING (task_id)) AS tokens,
       (SELECT count(*) FROM tasker.log JOIN mine USING (task_id)) AS moves,
       (SELECT count(*) FROM run_task.effect) AS effects;
SELECT * FROM run_task.rows \gset before_

-- After ROLLBACK nothing of it is left; retries have not waited for a day.
BEGIN;
SELECT run_task.summary(tasker.run_task('run_task', '{"n": 1}'));
SELECT * FROM run_task.effect;
SELECT tasks - :before_tasks, steps - :before_steps, tokens - :before_tokens, moves > :before_moves FROM run_task.rows;
ROLLBACK;
SELECT tasks - :before_tasks, steps - :before_steps, tokens - :before_tokens, moves - :before_moves, effects FROM run_task.rows;

-- After COMMIT all of it is.
BEGIN;
SELECT (tasker.run_task('run_task', '{"n": 2}') ->> 'task_id')::bigint AS id \gset
COMMIT;
SELECT state, context FROM tasker.tasks WHERE task_id = :id;
SELECT name, state, attempts, results FROM tasker.workflow_steps WHERE task_id = :id ORDER BY name;
SELECT name, from_state, to_state FROM tasker.transitions LEFT JOIN tasker.workflow_steps USING (task_id, step_id)
WHERE task_id = :id AND (step_id IS NULL OR name = 'b') ORDER BY transition_id;
SELECT count(*) FROM tasker.queue WHERE task_id = :id;
SELECT * FROM tasker.verify();

-- Errors of its arguments, as of create_task().
SELECT tasker.run_task('run_task', '{"n": "one"}');
SELECT tasker.run_task('run_task_no_such');

-- A step for workers outside is refused, and one that is bypassed is not.
SELECT tasker.run_task('run_task_outside');
SELECT run_task.summary(tasker.run_task('run_task_outside', bypass_steps => '{out}'));
SELECT tasker.run_task('run_task_nests') -> 'error' ->> 'sqlstate';

-- Failures end the task, not the transaction.
SELECT run_task.summary(tasker.run_task('run_task_bad'));
SELECT run_task.summary(tasker.run_task('run_task_stop'));
SELECT tasker.run_task('run_task_bad') -> 'error' ->> 'message';
SELECT run_task.summary(tasker.run_task('run_task_timeout'));
SELECT run_task.summary(tasker.run_task('run_task_deadline'));
SELECT * FROM tasker.verify();

-- In a subtransaction that is rolled back.
TRUNCATE run_task.effect;
BEGIN;
SELECT tasker.run_task('run_task') ->> 'state';
SAVEPOINT s;
SELECT tasker.run_task('run_task') ->> 'state';
ROLLBACK TO s;
SELECT tasker.run_task('run_task') ->> 'state';
COMMIT;
SELECT count(*) FROM run_task.effect;
DO $$
BEGIN
    PERFORM tasker.run_task('run_task');
    RAISE division_by_zero;
EXCEPTION
    WHEN division_by_zero THEN NULL;
END $$;
SELECT count(*) FROM run_task.effect;
SELECT * FROM tasker.verify();

-- An ordinary role: the handler runs under its registrar's, and the caller's
-- role and settings are as before.
TRUNCATE run_task.effect;
SET ROLE regress_run_task_caller;
SET search_path = run_task, public;
SET application_name = 'mine';
SELECT tasker.run_task('run_task_settings') #>> '{state}';
SELECT current_user, current_setting('search_path'), current_setting('application_name');
SELECT tasker.run_task('run_task_outside', bypass_steps => '{out}') #>> '{state}';
SELECT current_user;
RESET ROLE;
RESET search_path;
RESET application_name;
SELECT * FROM run_task.effect ORDER BY step;

-- What the caller has open survives.
BEGIN;
CREATE TEMPORARY TABLE mine AS SELECT g FROM generate_series(1, 3) AS g;
PREPARE mine AS SELECT count(*) FROM mine;
DECLARE c CURSOR FOR SELECT g FROM mine ORDER BY g;
FETCH c;
SELECT tasker.run_task('run_task') ->> 'state', tasker.run_task('run_task_bad') ->> 'state';
FETCH c;
EXECUTE mine;
COMMIT;
EXECUTE mine;
DEALLOCATE mine;
DROP TABLE mine;

-- As one of several in a statement.
SELECT count(*) FROM (SELECT tasker.run_task('run_task') AS s FROM generate_series(1, 5)) AS x WHERE s ->> 'state' = 'complete';

-- Read-only and stricter transactions.
BEGIN TRANSACTION ISOLATION LEVEL SERIALIZABLE;
SELECT tasker.run_task('run_task') ->> 'state';
COMMIT;
BEGIN READ ONLY;
SELECT tasker.run_task('run_task') ->> 'state';
ROLLBACK;

-- One that failed can be retried later, by the executors.
SELECT (tasker.run_task('run_task_bad') ->> 'task_id')::bigint AS id \gset
CREATE OR REPLACE FUNCTION run_task.bad(step tasker.step_context) RETURNS jsonb
LANGUAGE sql AS $$ SELECT '{}'::jsonb $$;
SELECT tasker.retry_task(:id);
SELECT tasker.wait_for_task(:id, '60 s');
SELECT run_task.summary(tasker.task_status(:id));
SELECT * FROM tasker.verify();
