-- tasker.set_max_in_progress(): arguments, errors, the table.

\set SHOW_CONTEXT never
\pset format unaligned
\pset tuples_only on
SET client_min_messages = error;
\set show 'SELECT namespace, handler, steps FROM tasker.max_in_progress ORDER BY namespace NULLS FIRST, handler NULLS FIRST'

SELECT tasker.set_max_in_progress(1);
SELECT tasker.set_max_in_progress(NULL);
SELECT tasker.set_max_in_progress(-1, 'limits');
SELECT count(*) FROM tasker.max_in_progress;

-- A namespace, a handler, or both.
SELECT tasker.set_max_in_progress(3, 'limits');
SELECT tasker.set_max_in_progress(2, handler => 'limits_h');
SELECT tasker.set_max_in_progress(0, 'limits', 'limits_h');
:show;

-- Set again, it is another figure of the same limit.
SELECT limit_id AS before FROM tasker.max_in_progress WHERE namespace = 'limits' AND handler IS NULL \gset
SELECT tasker.set_max_in_progress(5, 'limits');
SELECT limit_id = :before, steps FROM tasker.max_in_progress WHERE namespace = 'limits' AND handler IS NULL;

-- NULL lifts that one, and no other; to lift what is not there is no error.
SELECT tasker.set_max_in_progress(NULL, 'limits');
SELECT tasker.set_max_in_progress(NULL, 'limits');
:show;
SELECT tasker.set_max_in_progress(NULL, 'limits', 'limits_h');
SELECT tasker.set_max_in_progress(NULL, handler => 'limits_h');
:show;

-- In one transaction: what is parked goes when the limit goes, and not before.
CREATE SCHEMA limits;
CREATE FUNCTION limits.h(step tasker.step_context) RETURNS jsonb
LANGUAGE sql AS $$ SELECT '{}'::jsonb $$;
SELECT FROM tasker.register_handler('limits_h', 'limits.h');
SELECT FROM tasker.register_task('{"name": "limits", "step_templates": [{"name": "only", "handler_class": "limits_h"}]}');
SELECT tasker.set_max_in_progress(0, handler => 'limits_h');
SELECT tasker.create_task('limits') AS id \gset
DO $$
BEGIN
    FOR i IN 1 .. 3000 LOOP
        EXIT WHEN EXISTS (SELECT FROM tasker.queue WHERE lane < -1000);
        PERFORM pg_sleep(0.01);
    END LOOP;
END $$;
SELECT t.state, s.state, s.attempts FROM tasker.tasks AS t JOIN tasker.workflow_steps AS s USING (task_id) WHERE task_id = :id;
SELECT count(*) FROM tasker.verify();
-- What runs in place stands under it, too.
SELECT tasker.run_task('limits');
BEGIN;
SELECT tasker.set_max_in_progress(NULL, handler => 'limits_h');
ROLLBACK;
SELECT count(*) FROM tasker.queue WHERE lane < -1000;
SELECT tasker.set_max_in_progress(1, handler => 'limits_h');
SELECT tasker.wait_for_task(:id);

-- A slot lasts for a transaction, and one is enough for all that it runs.
BEGIN;
SELECT tasker.run_task('limits') ->> 'state', tasker.run_task('limits') ->> 'state';
SAVEPOINT s;
SELECT tasker.run_task('limits') ->> 'state';
ROLLBACK TO s;
SELECT tasker.run_task('limits') ->> 'state';
COMMIT;
SELECT tasker.set_max_in_progress(NULL, handler => 'limits_h');

-- A worker outside.
SELECT FROM tasker.register_external_handler('limits_outside');
SELECT FROM tasker.register_task('{"name": "limits_outside", "step_templates": [
    {"name": "a", "handler_class": "limits_outside"},
    {"name": "b", "handler_class": "limits_outside"},
    {"name": "c", "handler_class": "limits_outside"}]}');
SELECT tasker.set_max_in_progress(2, handler => 'limits_outside');
SELECT tasker.create_task('limits_outside') AS id \gset
DO $$
BEGIN
    FOR i IN 1 .. 3000 LOOP
        EXIT WHEN (SELECT count(*) FROM tasker.queue JOIN tasker.handler ON handler_id = lane WHERE name = 'limits_outside') = 3;
        PERFORM pg_sleep(0.01);
    END LOOP;
END $$;
SELECT step_name FROM tasker.claim_steps('w', ARRAY['limits_outside'], max_steps => 3);
SELECT step_name FROM tasker.claim_steps('w', ARRAY['limits_outside']);
SELECT tasker.complete_step(step_id, '{}') FROM tasker.workflow_steps WHERE task_id = :id AND name = 'a';
SELECT step_name FROM tasker.claim_steps('w', ARRAY['limits_outside']);
-- Cancelled, a lease is given back, too.
BEGIN;
SELECT tasker.set_max_in_progress(0, handler => 'limits_outside');
SELECT tasker.cancel_task(:id, 'test');
COMMIT;
SELECT count(*) FROM tasker.queue WHERE task_id = :id;
SELECT tasker.set_max_in_progress(NULL, handler => 'limits_outside');
SELECT count(*) FROM tasker.verify();
