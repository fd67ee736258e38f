-- verify(): sound after whatever the engine did; and each invariant, broken by
-- hand once, is found.

\set VERBOSITY terse
\pset format unaligned
\pset tuples_only on
SET client_min_messages = error;
SET timezone = 'UTC';

CREATE SCHEMA verify;
CREATE FUNCTION verify.ok(step tasker.step_context) RETURNS jsonb
LANGUAGE sql AS $$ SELECT jsonb_build_object('attempt', step.attempt) $$;
CREATE FUNCTION verify.bad(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$ BEGIN PERFORM tasker.permanent_error('bad'); RETURN NULL; END $$;
CREATE FUNCTION verify.again(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$ BEGIN PERFORM tasker.retryable_error('again', interval '1 day'); RETURN NULL; END $$;
SELECT FROM tasker.register_handler('verify_ok', 'verify.ok');
SELECT FROM tasker.register_handler('verify_bad', 'verify.bad');
SELECT FROM tasker.register_handler('verify_again', 'verify.again');
SELECT FROM tasker.register_external_handler('verify_outside');
SELECT FROM tasker.register_task($$
name: verify_all
timeout: 3600
step_templates:
  - {name: first, handler_class: verify_ok}
  - {name: second, handler_class: verify_ok, depends_on_step: first}
  - {name: leased, handler_class: verify_outside, depends_on_step: first}
  - {name: ready, handler_class: verify_outside, depends_on_step: first}
  - {name: waiting, handler_class: verify_again, depends_on_step: first}
  - {name: last, handler_class: verify_ok, depends_on_steps: [second, leased, ready, waiting]}
$$);
SELECT FROM tasker.register_task($$
name: verify_good
step_templates:
  - {name: first, handler_class: verify_ok}
  - {name: second, handler_class: verify_ok, depends_on_step: first}
$$);
SELECT FROM tasker.register_task($$
name: verify_bad
step_templates:
  - {name: first, handler_class: verify_ok}
  - {name: second, handler_class: verify_bad, depends_on_step: first}
  - {name: third, handler_class: verify_ok, depends_on_step: second}
$$);

-- The task of each kind that the damages are done to.
SELECT tasker.create_task('verify_good', idempotency_key => 'verify') AS good \gset
SELECT tasker.create_task('verify_bad') AS bad \gset
SELECT tasker.create_task('verify_all') AS live \gset
SELECT tasker.create_task('verify_good', run_at => tasker.clock() + interval '1 day') AS later \gset
SELECT tasker.wait_for_task(:good), tasker.wait_for_task(:bad);
DO $$
BEGIN
    FOR i IN 1 .. 3000 LOOP
        EXIT WHEN (SELECT count(*) FROM tasker.workflow_steps JOIN tasker.tasks USING (task_id)
                   WHERE tasks.name = 'verify_all'
                     AND workflow_steps.name = 'waiting'
                     AND workflow_steps.state = 'waiting_for_retry') = 1
              AND (SELECT count(*) FROM tasker.queue JOIN tasker.handler ON handler_id = lane
                   WHERE name = 'verify_outside') = 2;
        COMMIT;
        PERFORM pg_sleep(0.01);
    END LOOP;
END;
$$;
SELECT step_name FROM tasker.claim_steps('verify', ARRAY['verify_outside'], lease => '1 day');
SELECT name, state FROM tasker.workflow_steps WHERE task_id = :live ORDER BY step_id;
SELECT * FROM tasker.verify() WHERE task_id IN (:good, :bad, :live, :later) OR task_id IS NULL;

-- Steps of the live one: first 1, second 2, leased 3, ready 4, waiting 5, last 6.
-- damage(DAMAGE): does it, shows what verify() says, and takes it back.
CREATE PROCEDURE verify.damage(VARIADIC damages text[])
LANGUAGE plpgsql AS $$
DECLARE
    damage text;
    line text;
    names constant bigint[] := ARRAY(
        SELECT t.task_id
        FROM tasker.tasks AS t
        WHERE t.name LIKE 'verify%'
        ORDER BY t.task_id);
BEGIN
    FOREACH damage IN ARRAY damages LOOP
        EXECUTE replace(replace(replace(replace(damage, '$good', names[1]::text), '$bad', names[2]::text),
                                '$live', names[3]::text), '$later', names[4]::text);
    END LOOP;
    FOR line IN
        SELECT concat_ws(' | ', v.problem,
                         CASE v.task_id WHEN names[1] THEN 'good' WHEN names[2] THEN 'bad'
                                        WHEN names[3] THEN 'live' WHEN names[4] THEN 'later' ELSE v.task_id::text END,
                         'step ' || (v.step_id & 16383),
                         regexp_replace(regexp_replace(v.detail, '\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?\+00', 'TIME', 'g'),
                                        '([Pp]lan \d+|template \d+|lane \d\d\d+)', '(N)', 'g'))
        FROM tasker.verify() AS v
        WHERE v.task_id = ANY (names)
           OR v.task_id IS NULL
           OR v.task_id > 900000000
    LOOP
        RAISE NOTICE '%', line;
    END LOOP;
    ROLLBACK;
END;
$$;
SET client_min_messages = notice;
\set QUIET on

-- A row of the log that stands for two changes is as good as two rows; damages
-- are done to both.
CALL verify.damage('DELETE FROM tasker.log WHERE task_id = $good AND step_no = 1');
CALL verify.damage('UPDATE tasker.log SET start_id = NULL, start_at = NULL WHERE task_id = $good AND step_no = 1');
CALL verify.damage('UPDATE tasker.log SET from_state = 2 WHERE task_id = $good AND step_no = 1');
CALL verify.damage('UPDATE tasker.log SET attempt = 2 WHERE task_id = $good AND step_no = 1');
CALL verify.damage('UPDATE tasker.log SET start_at = start_at - interval ''1 day'', start_id = start_id - (1::bigint << 40) WHERE task_id = $good AND step_no = 2');
INSERT INTO tasker.log (id, at, task_id, step_no, from_state, to_state, attempt)
SELECT l.start_id, l.start_at, l.task_id, l.step_no, l.from_state, 1, l.attempt
FROM tasker.log AS l
WHERE l.task_id = :good
  AND l.start_id IS NOT NULL;
UPDATE tasker.log
SET from_state = 1, start_id = NULL, start_at = NULL
WHERE task_id = :good
  AND start_id IS NOT NULL;
SELECT * FROM tasker.verify() WHERE task_id = :good;

-- The log against the states.
CALL verify.damage('DELETE FROM tasker.log WHERE task_id = $good AND step_no = 0');
CALL verify.damage('DELETE FROM tasker.log WHERE task_id = $good AND step_no = 0 AND to_state = 1');
CALL verify.damage('DELETE FROM tasker.log WHERE task_id = $good AND step_no = 1 AND to_state = 3');
CALL verify.damage('DELETE FROM tasker.log WHERE task_id = $good AND step_no = 2');
CALL verify.damage('UPDATE tasker.log SET from_state = 2 WHERE task_id = $good AND step_no = 1 AND from_state = 0');
CALL verify.damage('UPDATE tasker.log SET from_state = 0 WHERE task_id = $good AND step_no = 1 AND from_state = 1');
CALL verify.damage('UPDATE tasker.log SET to_state = 9 WHERE task_id = $good AND step_no = 1 AND to_state = 3');
CALL verify.damage('UPDATE tasker.log SET attempt = 2 WHERE task_id = $good AND step_no = 1 AND to_state = 1');
CALL verify.damage('INSERT INTO tasker.log (id, at, task_id, step_no, from_state, to_state, attempt) SELECT id + 1000000000, at, task_id, step_no, from_state, to_state, attempt FROM tasker.log WHERE task_id = $good AND step_no = 2 AND to_state = 3');
CALL verify.damage('INSERT INTO tasker.log (id, at, task_id, step_no, from_state, to_state) VALUES (1, now(), 999999999, 0, NULL, 0)');
CALL verify.damage('UPDATE tasker.step SET state = 6 WHERE task_id = $good AND step_no = 2');
CALL verify.damage('UPDATE tasker.step SET attempts = 2 WHERE task_id = $good AND step_no = 2');
CALL verify.damage('UPDATE tasker.task SET state = 9 WHERE task_id = $good');

-- The task against its steps.
CALL verify.damage('DELETE FROM tasker.step WHERE task_id = $good AND step_no = 2');
CALL verify.damage('DELETE FROM tasker.step WHERE task_id = $good AND step_no = 2',
                   'DELETE FROM tasker.log WHERE task_id = $good AND step_no = 2');
CALL verify.damage('UPDATE tasker.task SET finished_at = NULL WHERE task_id = $good');
CALL verify.damage('UPDATE tasker.task SET started_at = NULL WHERE task_id = $good');
CALL verify.damage('UPDATE tasker.task SET error = NULL WHERE task_id = $bad');
CALL verify.damage('UPDATE tasker.step SET error = NULL WHERE task_id = $bad AND step_no = 2');
CALL verify.damage('UPDATE tasker.step SET finished_at = NULL WHERE task_id = $good AND step_no = 1');
CALL verify.damage('UPDATE tasker.step SET started_at = NULL WHERE task_id = $good AND step_no = 1');
CALL verify.damage('UPDATE tasker.step SET next_attempt_at = NULL WHERE task_id = $live AND step_no = 5');
CALL verify.damage('UPDATE tasker.log SET at = at - interval ''1 day'', id = id - (1::bigint << 40) WHERE task_id = $good AND step_no = 2 AND to_state = 1');
CALL verify.damage('DELETE FROM tasker.step WHERE task_id = $live AND step_no = 1',
                   'DELETE FROM tasker.log WHERE task_id = $live AND step_no = 1');
CALL verify.damage('UPDATE tasker.task SET state = 4, finished_at = now(), error = ''{}'' WHERE task_id = $live',
                   'INSERT INTO tasker.log (id, at, task_id, step_no, from_state, to_state) VALUES (1, now(), $live, 0, 1, 4)');

-- Leases.
CALL verify.damage('UPDATE tasker.step SET claimed_by = NULL WHERE task_id = $live AND step_no = 3');
CALL verify.damage('UPDATE tasker.step SET lease_until = NULL WHERE task_id = $live AND step_no = 3');
CALL verify.damage('UPDATE tasker.step SET claimed_by = ''me'' WHERE task_id = $good AND step_no = 1');
CALL verify.damage('UPDATE tasker.queue SET due = due + interval ''1 s'' WHERE task_id = $live AND step_no = 3');

-- What waits.
CALL verify.damage('DELETE FROM tasker.queue WHERE task_id = $live AND step_no = 3');
CALL verify.damage('DELETE FROM tasker.queue WHERE task_id = $live AND step_no = 4');
CALL verify.damage('DELETE FROM tasker.queue WHERE task_id = $live AND step_no = 5');
CALL verify.damage('DELETE FROM tasker.queue WHERE task_id = $live AND step_no = -1');
CALL verify.damage('DELETE FROM tasker.queue WHERE task_id = $later');
CALL verify.damage('UPDATE tasker.queue SET due_lane = 1 WHERE task_id = $later');
CALL verify.damage('UPDATE tasker.queue SET due = due - interval ''1 s'' WHERE task_id = $live AND step_no = 5');
CALL verify.damage('UPDATE tasker.queue SET due = due + interval ''1 day'' WHERE task_id = $live AND step_no = 5');
CALL verify.damage('UPDATE tasker.queue SET due_lane = NULL WHERE task_id = $live AND step_no = 5');
CALL verify.damage('UPDATE tasker.queue SET rank = -3 WHERE task_id = $live AND step_no = 5');
CALL verify.damage('UPDATE tasker.queue SET lane = 3 WHERE task_id = $live AND step_no = 4');
CALL verify.damage('UPDATE tasker.queue SET lane = 99999 WHERE task_id = $live AND step_no = 4');
CALL verify.damage('UPDATE tasker.queue SET due_lane = 0 WHERE task_id = $live AND step_no = -1');
CALL verify.damage('INSERT INTO tasker.queue (due, task_id, lane, rank, step_no) VALUES (now(), $live, 0, 0, 6)');
CALL verify.damage('INSERT INTO tasker.queue (due, task_id, lane, rank, step_no) VALUES (now(), $live, 0, 0, 2)');
CALL verify.damage('INSERT INTO tasker.queue (due, task_id, lane, rank, step_no) VALUES (now(), $live, 0, 0, 7)');
CALL verify.damage('INSERT INTO tasker.queue (due, task_id, lane, rank, step_no) VALUES (now(), $live, -1, 0, -2)');
CALL verify.damage('INSERT INTO tasker.queue (due, task_id, lane, rank, step_no) VALUES (now(), $live, 0, 0, 0)');
CALL verify.damage('INSERT INTO tasker.queue (due, task_id, lane, rank, step_no) VALUES (now(), $good, 0, 0, 1)');
CALL verify.damage('INSERT INTO tasker.queue (due, task_id, lane, rank, step_no) VALUES (now(), 999999999, 0, 0, 0)');
CALL verify.damage('INSERT INTO tasker.queue (due, task_id, lane, rank, step_no) VALUES (now(), $later, -1, 0, -1)');

-- What belongs to nothing, and plans.
CALL verify.damage('INSERT INTO tasker.step (task_id, step_no, state, attempts) VALUES (999999999, 1, 0, 0)');
CALL verify.damage('INSERT INTO tasker.step (task_id, step_no, state, attempts) VALUES ($good, 3, 0, 0)');
CALL verify.damage('DELETE FROM tasker.task WHERE task_id = $later');
CALL verify.damage('UPDATE tasker.task SET plan_id = 999999 WHERE task_id = $later');
CALL verify.damage('DELETE FROM tasker.idempotency WHERE task_id = $good');
CALL verify.damage('UPDATE tasker.idempotency SET task_id = 999999999 WHERE task_id = $good');
CALL verify.damage('INSERT INTO tasker.crash VALUES (999999999, 1, 1, now()), ($good, 7, 1, now())');
CALL verify.damage('UPDATE tasker.plan SET template_id = 999999 WHERE name = ''verify_good''');
CALL verify.damage('DELETE FROM tasker.plan_step WHERE name = ''third'' AND plan_id IN (SELECT plan_id FROM tasker.plan WHERE name = ''verify_bad'')');
CALL verify.damage('UPDATE tasker.plan_step SET children = ''{}'' WHERE name = ''first'' AND plan_id IN (SELECT plan_id FROM tasker.plan WHERE name = ''verify_good'')');
CALL verify.damage('UPDATE tasker.plan_step SET level = 5 WHERE name = ''second'' AND plan_id IN (SELECT plan_id FROM tasker.plan WHERE name = ''verify_good'')');

-- All that was taken back, and goes on to its end.
SELECT * FROM tasker.verify() WHERE task_id IN (:good, :bad, :live, :later) OR task_id IS NULL;
SET client_min_messages = error;
SELECT tasker.pause_task(:live);
SELECT * FROM tasker.verify() WHERE task_id IN (:good, :bad, :live, :later);
SELECT tasker.complete_step(:live::bigint << 14 | 3, '{}', 'verify');
SELECT * FROM tasker.verify() WHERE task_id IN (:good, :bad, :live, :later);
SELECT tasker.resume_task(:live);
SELECT * FROM tasker.verify() WHERE task_id IN (:good, :bad, :live, :later);
SELECT tasker.resolve_step(:live::bigint << 14 | 5);
SELECT tasker.resolve_step(:live::bigint << 14 | 4);
SELECT tasker.wait_for_task(:live);
SELECT tasker.cancel_task(:later);
SELECT tasker.resolve_task(:bad, 'seen');
SELECT * FROM tasker.verify() WHERE task_id IN (:good, :bad, :live, :later);

SET client_min_messages = error;
SELECT FROM tasker.unregister_handler('verify_ok');
SELECT FROM tasker.unregister_handler('verify_bad');
SELECT FROM tasker.unregister_handler('verify_again');
SELECT FROM tasker.unregister_handler('verify_outside');
DROP SCHEMA verify CASCADE;
