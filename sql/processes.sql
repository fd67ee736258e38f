-- The engine room, as far as a session sees it: starting and stopping the
-- engine, its health, waiting for a task.  test/t has its processes.

\set VERBOSITY default

-- Whether it may run.
SELECT tasker._engine_state();
SELECT a.state,
       (a.system_identifier, a.database_oid) = (i.system_identifier, i.database_oid) AS is_this_database,
       a.xid_base,
       a.xid_system = i.system_identifier AS is_this_server
FROM tasker.activation AS a
CROSS JOIN tasker._identity() AS i;
SELECT count(*) FROM tasker.origin;

SELECT tasker.deactivate();
SELECT tasker._engine_state();
SELECT h.health ->> 'healthy' AS healthy,
       h.health ->> 'status' AS status,
       h.health -> 'engine' ->> 'state' AS state,
       h.health -> 'engine' ->> 'why' AS why
FROM (SELECT tasker.health_check()) AS h (health);
SELECT tasker.activate();
SELECT tasker._engine_state();

-- A change that is rolled back is seen inside, and is gone after it.
BEGIN;
SELECT tasker.deactivate();
SELECT tasker._engine_state();
ROLLBACK;
SELECT tasker._engine_state();

-- A foreign origin is a restored copy, whoever writes it and however.
INSERT INTO tasker.origin (system_identifier, database_oid) VALUES (1, 1);
SELECT tasker._engine_state();
SET session_replication_role = replica;
DELETE FROM tasker.origin WHERE system_identifier = 1;
RESET session_replication_role;
SELECT tasker._engine_state();
BEGIN;
UPDATE tasker.activation SET database_oid = 1;
SELECT tasker._engine_state();
ROLLBACK;
INSERT INTO tasker.origin (system_identifier, database_oid) VALUES (1, 1);
SELECT tasker.activate();
SELECT tasker._engine_state();
SELECT count(*) FROM tasker.origin;

-- The keys of health_check(), and a handler whose function is gone.
SELECT string_agg(k.key, ', ' ORDER BY k.key)
FROM jsonb_object_keys(tasker.health_check()) AS k (key);
CREATE FUNCTION engine_handler(step tasker.step_context) RETURNS jsonb
LANGUAGE sql AS $$ SELECT '{}'::jsonb $$;
SET client_min_messages = error;
SELECT tasker.register_handler('engine_handler', 'engine_handler') IS NOT NULL AS registered;
RESET client_min_messages;
SET check_function_bodies = off;
DROP FUNCTION engine_handler;
RESET check_function_bodies;
SELECT p.problem
FROM jsonb_array_elements_text(tasker.health_check() -> 'problems') AS p (problem)
WHERE p.problem LIKE 'Handler engine%';
UPDATE tasker.handler SET function = 'pg_catalog.now', run_as = 'nobody at all' WHERE name = 'engine_handler';
SELECT p.problem
FROM jsonb_array_elements_text(tasker.health_check() -> 'problems') AS p (problem)
WHERE p.problem LIKE 'Handler engine%';
DELETE FROM tasker.handler WHERE name = 'engine_handler';

-- What only the owner may do.
CREATE ROLE regress_engine_user;
SET ROLE regress_engine_user;
SELECT tasker.activate();
SELECT tasker.deactivate();
SELECT tasker._wake(1);
SELECT tasker._installed(true);
SELECT tasker.health_check() ->> 'thread_safe' AS thread_safe;
RESET ROLE;
DROP ROLE regress_engine_user;

-- Waiting for what is not there, or can't end.
SELECT tasker.wait_for_task(0);
SELECT tasker.wait_for_task(NULL);
SELECT tasker.wait_for_task(0, NULL);
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT tasker.wait_for_task(1);
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT tasker.wait_for_task(1);
ROLLBACK;

-- A task that waits for a worker outside: the time runs out.
SELECT tasker.register_external_handler('engine_outside') IS NOT NULL AS registered;
SELECT tasker.register_task('{"name": "engine_outside", "step_templates": [{"name": "only", "handler_class": "engine_outside"}]}') > 0 AS registered;
SELECT tasker.create_task('engine_outside', run_at => tasker.clock() + interval '1 day') AS task_id \gset
SELECT tasker.wait_for_task(:task_id, '0');
SELECT tasker.wait_for_task(:task_id, '-1 day');
SELECT tasker.wait_for_task(:task_id, '-178000000 years');
SELECT tasker.wait_for_task(:task_id, '20 ms');
SET statement_timeout = '20 ms';
SELECT tasker.wait_for_task(:task_id, NULL);
SELECT tasker.wait_for_task(:task_id, '178000000 years');
RESET statement_timeout;

-- Of one's own transaction: at once, and only as long as it has not ended.
BEGIN;
UPDATE tasker.task SET reason = 'changed' WHERE task_id = :task_id;
\set VERBOSITY sqlstate
SELECT tasker.wait_for_task(:task_id);
ROLLBACK;
BEGIN;
UPDATE tasker.task SET state = tasker._state_code('task', 'cancelled') WHERE task_id = :task_id;
SELECT tasker.wait_for_task(:task_id);
ROLLBACK;
BEGIN;
SELECT tasker.wait_for_task(tasker.create_task('engine_outside'));
ROLLBACK;

-- Nothing is left for the other tests.
DELETE FROM tasker.queue WHERE task_id = :task_id;
DELETE FROM tasker.log WHERE task_id = :task_id;
DELETE FROM tasker.task WHERE task_id = :task_id;
DELETE FROM tasker.plan_step WHERE plan_id IN (SELECT plan_id FROM tasker.plan WHERE name = 'engine_outside');
DELETE FROM tasker.plan WHERE name = 'engine_outside';
DELETE FROM tasker.template WHERE name = 'engine_outside';
DELETE FROM tasker.handler WHERE name = 'engine_outside';
