-- What the engine does with tasks: everything here is run by its executors.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS tasker;
\set SHOW_CONTEXT never

CREATE ROLE regress_tasker_maker NOLOGIN;
CREATE SCHEMA regress_engine AUTHORIZATION regress_tasker_maker;

-- The end of a task that may take a second or two under load.
CREATE FUNCTION regress_engine.ends(task_id bigint)
RETURNS text
LANGUAGE sql
AS $$ SELECT tasker.wait_for_task(task_id, '60 s') $$;

-- Looks again and again, each time in a new snapshot, for at most a minute.
CREATE PROCEDURE regress_engine.until(condition text)
LANGUAGE plpgsql
AS $$
DECLARE
    holds boolean;
    give_up constant timestamptz := clock_timestamp() + interval '60 s';
BEGIN
    LOOP
        EXECUTE 'SELECT ' || condition INTO holds;
        EXIT WHEN holds;
        IF clock_timestamp() > give_up THEN
            RAISE EXCEPTION 'it never came to this: %', condition;
        END IF;
        COMMIT;
        PERFORM pg_sleep(0.005);
    END LOOP;
END;
$$;

CREATE FUNCTION regress_engine.refusal(call text)
RETURNS TABLE (code text, message text, detail text, hint text)
LANGUAGE plpgsql
AS $$
BEGIN
    EXECUTE call;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS
        code = RETURNED_SQLSTATE,
        message = MESSAGE_TEXT,
        detail = PG_EXCEPTION_DETAIL,
        hint = PG_EXCEPTION_HINT;
    RETURN NEXT;
END;
$$;

-- The rules, whole.
SELECT * FROM tasker.transition_rules;

-- From here on everything is done by an ordinary role.
SET ROLE regress_tasker_maker;
SET search_path = regress_engine, pg_temp;

CREATE TABLE runs (task_id bigint, step_name text, attempt integer);

-- Says what it got.
CREATE FUNCTION echo(step tasker.step_context) RETURNS jsonb
LANGUAGE sql AS $$
    INSERT INTO runs VALUES (step.task_id, step.step_name, step.attempt);
    SELECT jsonb_build_object('step', step.step_name, 'got', step.dependencies);
$$;
CREATE FUNCTION whole(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    RETURN to_jsonb(step) - '{task_id,step_id,idempotency_key}'::text[]
        || jsonb_build_object(
               'step_id fits', step.step_id = step.task_id << 14 | 1,
               'key fits', step.idempotency_key = 'tasker-' || step.step_id,
               'role', current_user, 'path', current_setting('search_path'));
END;
$$;
CREATE FUNCTION nothing(step tasker.step_context) RETURNS jsonb
LANGUAGE sql AS $$ SELECT NULL::jsonb $$;
CREATE FUNCTION json_null(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$ BEGIN RETURN 'null'; END $$;
CREATE FUNCTION permanent(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO runs VALUES (step.task_id, step.step_name, step.attempt);
    PERFORM tasker.permanent_error('never', '{"why": "so"}');
    RETURN '{}';
END;
$$;
CREATE FUNCTION later(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$ BEGIN PERFORM tasker.retryable_error('not yet', '1 hour'); END $$;
CREATE FUNCTION soon(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$ BEGIN PERFORM tasker.retryable_error('busy', details => '[1]'); END $$;
CREATE FUNCTION third_time(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO runs VALUES (step.task_id, step.step_name, step.attempt);
    IF step.attempt < 3 THEN
        RAISE EXCEPTION 'attempt % of %', step.attempt, step.retry_limit;
    END IF;
    RETURN jsonb_build_object('attempt', step.attempt);
END;
$$;
CREATE FUNCTION always(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'no' USING ERRCODE = 'UE123', DETAIL = 'a detail', HINT = 'a hint';
END;
$$;
CREATE FUNCTION divides(step tasker.step_context) RETURNS jsonb
LANGUAGE sql AS $$ SELECT to_jsonb(1 / (step.context ->> 'by')::integer) $$;
CREATE FUNCTION sleeps(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN '{}'; END $$;
CREATE FUNCTION short_nap(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_sleep(0.002);
    INSERT INTO runs VALUES (step.task_id, step.step_name, step.attempt);
    RETURN '1';
END;
$$;
CREATE FUNCTION commits(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$ BEGIN COMMIT; RETURN '{}'; END $$;
CREATE FUNCTION resets_role(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$ BEGIN RESET ROLE; RETURN to_jsonb(current_user); END $$;
CREATE FUNCTION waits(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$ BEGIN RETURN to_jsonb(tasker.wait_for_task(step.task_id)); END $$;
CREATE FUNCTION leaves_things(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    SET work_mem = '7MB';
    CREATE TEMPORARY TABLE left_behind (a integer);
    EXECUTE 'PREPARE left_behind AS SELECT 1';
    EXECUTE 'DECLARE left_behind CURSOR WITH HOLD FOR SELECT 1';
    RETURN '{}';
END;
$$;
CREATE FUNCTION finds_things(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    RETURN jsonb_build_object(
        'work_mem', current_setting('work_mem') = '7MB',
        'table', to_regclass('pg_temp.left_behind') IS NOT NULL,
        'statement', EXISTS (SELECT FROM pg_prepared_statements WHERE name = 'left_behind'),
        'cursor', EXISTS (SELECT FROM pg_cursors WHERE name = 'left_behind'));
END;
$$;
CREATE TABLE unique_later (a integer UNIQUE DEFERRABLE INITIALLY DEFERRED);
CREATE FUNCTION breaks_later(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$ BEGIN INSERT INTO unique_later VALUES (1), (1); RETURN '{}'; END $$;

SELECT name, tasker.register_handler(name, ('regress_engine.' || name)::regproc, 're')
FROM unnest('{echo,whole,nothing,json_null,permanent,later,soon,third_time,always,divides,sleeps,short_nap,
              commits,resets_role,waits,leaves_things,finds_things,breaks_later}'::text[]) AS name;
SELECT tasker.register_handler('alone', 'echo', 're', transaction => 'own');
SELECT tasker.register_handler('vanishes', 'echo', 're');
SELECT tasker.register_external_handler('outside', 're');

-- A template from lines like "c: echo a b": a step, its handler, what it needs.
CREATE FUNCTION template(name text, lines text[], more text DEFAULT '', retry text DEFAULT '{base_delay: 0.005}')
RETURNS void
LANGUAGE sql
AS $$
    SELECT tasker.register_task(format(E'name: %s\nnamespace_name: re\n%s\nstep_templates:\n', name, more)
        || string_agg(format(E'  - {name: %s, handler_class: %s, depends_on_steps: [%s], retry: %s}\n',
                             part[1], part[2], array_to_string(string_to_array(part[3], ' '), ', '), retry),
                      '' ORDER BY l.n))
    FROM unnest(lines) WITH ORDINALITY AS l (line, n)
    CROSS JOIN LATERAL regexp_match(l.line, '^(\w+): (\w+) ?(.*)$') AS m (part);
$$;
SELECT template('diamond', '{a: echo,b: echo a,c: echo a,d: echo b c}');

-- A diamond: results go to the steps that depend on them, and only to those.
SELECT tasker.create_task('diamond', '{}', 're') AS id \gset
SELECT ends(:id);
SELECT name, state, attempts, results, error
FROM tasker.workflow_steps
WHERE task_id = :id
ORDER BY step_id;
SELECT state, error, started_at >= created_at AS started, finished_at >= started_at AS finished
FROM tasker.tasks
WHERE task_id = :id;
SELECT count(*) AS tokens FROM tasker.queue WHERE task_id = :id;

-- Many of them at once: every handler's row is there once.
SELECT array_agg(task_id) AS ids
FROM tasker.create_tasks('diamond', array_fill('{}'::jsonb, ARRAY[200]), 're') AS task_id \gset
SELECT count(*) FILTER (WHERE ends(task_id) = 'complete') AS complete
FROM unnest(:'ids'::bigint[]) AS task_id;
SELECT count(*) AS rows, count(DISTINCT (task_id, step_name)) AS steps
FROM runs
WHERE task_id = ANY (:'ids');

-- A wide join that several executors work on: it is done once, behind all.
SELECT template('fan', ARRAY(SELECT format('s%s: short_nap', i) FROM generate_series(1, 40) AS i)
                       || ('last: echo ' || (SELECT string_agg('s' || i, ' ') FROM generate_series(1, 40) AS i)));
SELECT array_agg(task_id) AS ids
FROM tasker.create_tasks('fan', array_fill('{}'::jsonb, ARRAY[5]), 're') AS task_id \gset
SELECT count(*) FILTER (WHERE ends(task_id) = 'complete') AS complete
FROM unnest(:'ids'::bigint[]) AS task_id;
SELECT count(*) AS steps, count(*) FILTER (WHERE state = 'complete') AS complete, max(attempts) AS attempts
FROM tasker.workflow_steps
WHERE task_id = ANY (:'ids');
SELECT count(*) AS rows, count(DISTINCT (task_id, step_name)) AS steps
FROM runs
WHERE task_id = ANY (:'ids');

-- What a handler gets, and as whom it runs.
SELECT tasker.register_task($yaml$
name: whole
namespace_name: re
version: 2.1.0
schema: {type: object, properties: {b: {default: [1]}}}
step_templates:
  - name: only
    handler_class: whole
    handler_config: {x: y}
    retry: {limit: 4}
$yaml$) > 0 AS registered;
SELECT tasker.create_task('whole', '{"a": 1}', 're', correlation_id => 'corr', traceparent => '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01') AS id \gset
SELECT ends(:id);
SELECT jsonb_pretty(results) FROM tasker.workflow_steps WHERE task_id = :id;

-- NULL, and the null of JSON, are results.
SELECT template('nulls', '{a: nothing,b: json_null,c: echo a b}');
SELECT tasker.create_task('nulls', '{}', 're') AS id \gset
SELECT ends(:id);
SELECT name, state, results, results IS NULL AS is_null
FROM tasker.workflow_steps
WHERE task_id = :id
ORDER BY step_id;

-- A failure for good: branches that do not need the step finish, then the task
-- ends in error; what is behind the failure stays pending.
SELECT template('branches', '{a: permanent,b: echo,behind: echo a,c: echo b,both: echo behind c}');
SELECT tasker.create_task('branches', '{}', 're') AS id \gset
SELECT ends(:id);
SELECT name, state, attempts, results FROM tasker.workflow_steps WHERE task_id = :id ORDER BY step_id;
SELECT error - 'at' AS error FROM tasker.workflow_steps WHERE task_id = :id AND name = 'a';
SELECT t.error = s.error AS the_step_s
FROM tasker.tasks AS t
JOIN tasker.workflow_steps AS s USING (task_id)
WHERE task_id = :id AND s.name = 'a';
SELECT count(*) AS tokens FROM tasker.queue WHERE task_id = :id;
-- What the failed attempt wrote is gone.
SELECT step_name FROM runs WHERE task_id = :id ORDER BY step_name;

-- The same with on_failure: stop, and a branch that waits for a worker outside.
SELECT template('stops', '{a: permanent,b: outside,c: echo b}', 'on_failure: stop');
SELECT template('goes_on', '{a: permanent,b: outside,c: echo b}');
SELECT tasker.create_task('stops', '{}', 're') AS id \gset
SELECT ends(:id);
SELECT name, state FROM tasker.workflow_steps WHERE task_id = :id ORDER BY step_id;
SELECT count(*) AS tokens FROM tasker.queue WHERE task_id = :id;
SELECT tasker.create_task('goes_on', '{}', 're') AS id \gset
CALL until(format('(SELECT state = ''error'' FROM tasker.workflow_steps WHERE task_id = %s AND name = ''a'')', :id));
SELECT state FROM tasker.tasks WHERE task_id = :id;
SELECT name, state FROM tasker.workflow_steps WHERE task_id = :id ORDER BY step_id;

-- A step for workers outside waits in the lane of its handler.
SELECT q.step_no, q.lane = h.handler_id AS in_its_lane
FROM tasker.queue AS q
CROSS JOIN tasker.handler AS h
WHERE q.task_id = :id AND h.namespace = 're' AND h.name = 'outside';
SELECT name, current_state, ready_for_execution FROM tasker.step_readiness(:id);

-- Retries until one succeeds, and its log, in order.
SELECT template('third', '{a: echo,b: third_time a,c: echo b}', retry => '{base_delay: 0.005, limit: 5}');
SELECT tasker.create_task('third', '{}', 're') AS id \gset
SELECT ends(:id);
SELECT name, state, attempts, retry_limit, results, error FROM tasker.workflow_steps WHERE task_id = :id ORDER BY step_id;
SELECT step_name, attempt FROM runs WHERE task_id = :id ORDER BY step_name, attempt;
SELECT s.name, t.from_state, t.to_state, t.attempt, t.metadata
FROM tasker.transitions AS t
LEFT JOIN tasker.workflow_steps AS s USING (step_id)
WHERE t.task_id = :id
ORDER BY t.occurred_at, t.transition_id;
SELECT from_state, to_state FROM tasker.task_transitions WHERE task_id = :id ORDER BY occurred_at;
SELECT count(*) FROM tasker.workflow_step_transitions WHERE task_id = :id;

-- Attempts used up: the last error is kept, whole.
SELECT template('exhausted', '{a: always}', retry => '{limit: 2, base_delay: 0.005}');
SELECT tasker.create_task('exhausted', '{}', 're') AS id \gset
SELECT ends(:id);
SELECT state, attempts, jsonb_pretty(error - 'at') AS error, (error ->> 'at')::timestamptz = finished_at AS ends_then,
       next_attempt_at
FROM tasker.workflow_steps
WHERE task_id = :id \gx
SELECT template('in_sql', '{a: divides}', retry => '{limit: 1}');
SELECT tasker.create_task('in_sql', '{"by": 0}', 're') AS id \gset
SELECT ends(:id);
SELECT error - 'at' AS error FROM tasker.workflow_steps WHERE task_id = :id;
SELECT tasker.create_task('in_sql', '{"by": 1}', 're') AS id \gset
SELECT ends(:id);
-- An error without a delay of its own follows the back-off.
SELECT template('busy', '{a: soon}', retry => '{limit: 2, base_delay: 0.005}');
SELECT tasker.create_task('busy', '{}', 're') AS id \gset
SELECT ends(:id);
SELECT attempts, error - '{at,context}'::text[] AS error FROM tasker.workflow_steps WHERE task_id = :id;
-- default_retryable: false makes the first failure final.
SELECT tasker.register_task($yaml$
name: once
namespace_name: re
step_templates: [{name: a, handler_class: always, default_retryable: false}]
$yaml$) > 0 AS registered;
SELECT tasker.create_task('once', '{}', 're') AS id \gset
SELECT ends(:id);
SELECT state, attempts, retry_limit, error -> 'retryable' AS retryable FROM tasker.workflow_steps WHERE task_id = :id;

-- retry_after takes the place of the back-off, to the microsecond.
SELECT template('later', '{a: later}');
SELECT tasker.create_task('later', '{}', 're') AS id \gset
CALL until(format('(SELECT state = ''waiting_for_retry'' FROM tasker.workflow_steps WHERE task_id = %s)', :id));
SELECT t.state AS task, s.state, s.attempts, s.next_attempt_at - (s.error ->> 'at')::timestamptz AS delay
FROM tasker.workflow_steps AS s
JOIN tasker.tasks AS t USING (task_id)
WHERE task_id = :id;

-- Bypassed steps are skipped when they are reached, and satisfy what follows.
SELECT tasker.create_task('diamond', '{}', 're', bypass_steps => '{b,d}') AS id \gset
SELECT ends(:id);
SELECT name, state, attempts, results FROM tasker.workflow_steps WHERE task_id = :id ORDER BY step_id;
SELECT tasker.create_task('branches', '{}', 're', bypass_steps => '{a}') AS id \gset
SELECT ends(:id);
SELECT name, state, results -> 'got' AS got FROM tasker.workflow_steps WHERE task_id = :id ORDER BY step_id;
SELECT tasker.create_task('diamond', '{}', 're', bypass_steps => '{a,b,c,d}') AS id \gset
SELECT ends(:id);
SELECT string_agg(state, ', ') AS states FROM tasker.workflow_steps WHERE task_id = :id;

-- A handler that runs in a transaction of its own.
SELECT template('own', '{a: alone,b: echo a,c: alone b}');
SELECT tasker.create_task('own', '{}', 're') AS id \gset
SELECT ends(:id);
SELECT name, results FROM tasker.workflow_steps WHERE task_id = :id ORDER BY step_id;

-- A step's time, and what handlers must not do.
SELECT tasker.register_task($yaml$
name: timeout
namespace_name: re
step_templates:
  - {name: a, handler_class: sleeps, timeout: 0.05, retry: {limit: 1}}
  - {name: b, handler_class: echo}
$yaml$) > 0 AS registered;
SELECT tasker.create_task('timeout', '{}', 're') AS id \gset
SELECT ends(:id);
SELECT name, state, error - '{at,context}'::text[] AS error FROM tasker.workflow_steps WHERE task_id = :id ORDER BY step_id;
SELECT template('forbidden', '{a: commits,b: resets_role,c: breaks_later,d: waits}', retry => '{limit: 1}');
SELECT tasker.create_task('forbidden', '{}', 're') AS id \gset
SELECT ends(:id);
SELECT name, state, results, error ->> 'sqlstate' AS sqlstate,
       regexp_replace(error ->> 'message', 'task \d+', 'task N') AS message
FROM tasker.workflow_steps
WHERE task_id = :id
ORDER BY step_id;
SELECT template('things', '{a: leaves_things,b: finds_things a}');
SELECT tasker.create_task('things', '{}', 're') AS id \gset
SELECT ends(:id);
SELECT name, results FROM tasker.workflow_steps WHERE task_id = :id ORDER BY step_id;

-- A handler that is gone, and one whose function is.
SELECT template('gone', '{a: vanishes}');
SELECT tasker.unregister_handler('vanishes', 're');
SELECT tasker.create_task('gone', '{}', 're') AS id \gset
SELECT ends(:id);
SELECT attempts, error - 'at' AS error FROM tasker.workflow_steps WHERE task_id = :id;
CREATE FUNCTION brief(step tasker.step_context) RETURNS jsonb LANGUAGE sql AS $$ SELECT '{}'::jsonb $$;
SELECT tasker.register_handler('brief', 'brief', 're');
SELECT template('brief', '{a: brief}');
SET check_function_bodies = off;
DROP FUNCTION brief(tasker.step_context);
RESET check_function_bodies;
SELECT tasker.create_task('brief', '{}', 're') AS id \gset
SELECT ends(:id);
SELECT attempts, error - '{at,context}'::text[] AS error FROM tasker.workflow_steps WHERE task_id = :id;

-- What everybody may call, and what nobody may.
SELECT jsonb_array_length(tasker.task_status(:id) -> 'workflow_steps') AS steps,
       (SELECT count(*) FROM tasker.step_readiness(:id)) AS readiness,
       (SELECT count(*) FROM tasker.step_readiness_batch(ARRAY[:id])) AS batch,
       (SELECT execution_status FROM tasker.task_execution_context(:id)) AS status,
       (SELECT count(*) FROM tasker.task_execution_contexts(ARRAY[:id])) AS contexts,
       (SELECT count(*) FROM tasker.dependency_levels(:id)) AS levels,
       tasker.task_diagram(:id) LIKE '%brief%' AS diagram,
       tasker.template_diagram('diamond', 're') LIKE '%echo%' AS template,
       (SELECT count(*) FROM tasker.validate_task('name: x')) > 0 AS problems,
       tasker.health_check() -> 'engine' ->> 'state' AS engine,
       (tasker.registry_stats() ->> 'total_handlers')::integer > 0 AS registry,
       tasker.clock() >= statement_timestamp() AS clock;
SELECT code, message
FROM unnest(ARRAY[
    'INSERT INTO tasker.task (task_id, created_at, plan_id, priority, state, context) VALUES (0, now(), 0, 0, 0, ''{}'')',
    'UPDATE tasker.task SET state = 3',
    'DELETE FROM tasker.step',
    'UPDATE tasker.tasks SET state = ''complete''',
    'INSERT INTO tasker.log SELECT * FROM tasker.log',
    'TRUNCATE tasker.queue',
    'UPDATE tasker.handler SET run_as = ''postgres''',
    'DELETE FROM tasker.plan',
    'DELETE FROM tasker.origin',
    'SELECT nextval(''tasker.task_id_seq'')',
    'SELECT tasker._hold(1)',
    'SELECT tasker._wake(1)',
    'SELECT tasker._register_handler(''x'', ''regress_engine.echo'', ''re'', NULL, false, ''shared'', ''postgres'', '''')',
    'SELECT tasker._register_task('''', NULL, false, ''postgres'')',
    'SELECT tasker.activate()',
    'SELECT tasker.deactivate()',
    'SET tasker.clock_offset = 1']) WITH ORDINALITY AS c (call, n)
CROSS JOIN LATERAL refusal(c.call)
ORDER BY c.n;

-- Delays: base * 2^n, within a tenth of it either way, and never above the cap.
-- The clock is moved, so that hours take no time.
SELECT template('delays', '{a: always}', retry => '{limit: 9, base_delay: 60, max_delay: 1 h}');
SELECT tasker.create_task('delays', '{}', 're') AS id \gset
CREATE TABLE delays (attempt integer PRIMARY KEY, delay interval);
CREATE PROCEDURE note_delay(task bigint, n integer)
LANGUAGE plpgsql AS $$
BEGIN
    CALL regress_engine.until(format('(SELECT attempts >= %s AND state <> ''in_progress'' FROM tasker.workflow_steps WHERE task_id = %s)', n, task));
    INSERT INTO regress_engine.delays
    SELECT n, next_attempt_at - (error ->> 'at')::timestamptz
    FROM tasker.workflow_steps
    WHERE task_id = task;
END;
$$;
RESET ROLE;
-- By one executor: of two, one might have brought it on that another still runs it by
-- the clock before, and then it would be due again at once.
ALTER SYSTEM SET tasker.executors = 1;
SELECT pg_reload_conf();
CALL until($$(SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'tasker executor')$$);
CALL note_delay(:id, 1);
ALTER SYSTEM SET tasker.clock_offset = 4000;
SELECT pg_reload_conf();
CALL note_delay(:id, 2);
ALTER SYSTEM SET tasker.clock_offset = 8000;
SELECT pg_reload_conf();
CALL note_delay(:id, 3);
ALTER SYSTEM SET tasker.clock_offset = 12000;
SELECT pg_reload_conf();
CALL note_delay(:id, 4);
ALTER SYSTEM SET tasker.clock_offset = 16000;
SELECT pg_reload_conf();
CALL note_delay(:id, 5);
ALTER SYSTEM SET tasker.clock_offset = 20000;
SELECT pg_reload_conf();
CALL note_delay(:id, 6);
ALTER SYSTEM SET tasker.clock_offset = 24000;
SELECT pg_reload_conf();
CALL note_delay(:id, 7);
ALTER SYSTEM SET tasker.clock_offset = 28000;
SELECT pg_reload_conf();
CALL note_delay(:id, 8);
SELECT attempt, expected,
       delay BETWEEN least(expected * 0.9, interval '1 h') AND least(expected * 1.1, interval '1 h') AS within
FROM delays
CROSS JOIN LATERAL (SELECT least(interval '60 s' * 2 ^ attempt, interval '1 h') AS expected) AS e
ORDER BY attempt;
SELECT count(DISTINCT delay) > 3 AS they_vary FROM delays;
-- The hour that "later" asked for is long past, and its limit is used up, too.
ALTER SYSTEM SET tasker.clock_offset = 32000;
SELECT pg_reload_conf();
SELECT ends(:id);
SELECT state, attempts FROM tasker.workflow_steps WHERE task_id = :id;
SELECT ends(task_id) FROM tasker.tasks WHERE name = 'later' AND namespace = 're';
SELECT s.attempts FROM tasker.workflow_steps AS s JOIN tasker.tasks AS t USING (task_id) WHERE t.name = 'later' AND t.namespace = 're';
ALTER SYSTEM RESET tasker.clock_offset;
ALTER SYSTEM RESET tasker.executors;
SELECT pg_reload_conf();
-- A session that begins now has it, and by then every process was told.
\c -
SET client_min_messages = error;
SELECT count(tasker.unregister_handler(name, namespace)) FROM tasker.handlers WHERE namespace = 're';
DROP SCHEMA regress_engine CASCADE;
DROP ROLE regress_tasker_maker;
