-- What people read: readiness, context, levels, status.  Rows are put into the
-- tables by hand, so that each state is there without an engine to bring it about.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS tasker;
RESET client_min_messages;
\set SHOW_CONTEXT never
BEGIN;
-- Other tests' rows are out of the way until the ROLLBACK.
DELETE FROM tasker.task;
DELETE FROM tasker.step;
DELETE FROM tasker.template;
DELETE FROM tasker.plan;
DELETE FROM tasker.plan_step;

-- A plan from lines like 'd: b c': a step and the steps it depends on.
CREATE FUNCTION pg_temp.plan(plan_id integer, name text, lines text[])
RETURNS void
LANGUAGE plpgsql
AS $$
#variable_conflict use_variable
DECLARE
    line text;
    no smallint := 0;
    parents smallint[];
BEGIN
    INSERT INTO tasker.plan (plan_id, template_id, environment, namespace, name, version, step_count, definition)
    VALUES (plan_id, plan_id + 1000, NULL, 'test', name, '1.0.0', cardinality(lines), '{}');
    FOREACH line IN ARRAY lines LOOP
        no := no + 1;
        parents := ARRAY(SELECT s.step_no
                         FROM tasker.plan_step AS s
                         JOIN string_to_table(btrim(split_part(line, ':', 2)), ' ') AS p (name) USING (name)
                         WHERE s.plan_id = plan_id
                         ORDER BY s.step_no);
        INSERT INTO tasker.plan_step (plan_id, step_no, name, handler_class, parents, children, level)
        SELECT plan_id, no, split_part(line, ':', 1), 'test.' || split_part(line, ':', 1), parents, '{}',
               coalesce(max(s.level) + 1, 0)
        FROM tasker.plan_step AS s
        WHERE s.plan_id = plan_id
          AND s.step_no = ANY (parents);
        UPDATE tasker.plan_step AS s
        SET children = s.children || no
        WHERE s.plan_id = plan_id
          AND s.step_no = ANY (parents);
    END LOOP;
END;
$$;

CREATE FUNCTION pg_temp.task(task_id bigint, plan_id integer, state text DEFAULT 'in_progress',
                             run_at timestamptz DEFAULT NULL, bypass_steps text[] DEFAULT NULL)
RETURNS void
LANGUAGE sql
AS $$
INSERT INTO tasker.task (task_id, created_at, plan_id, priority, state, context, run_at, bypass_steps)
VALUES ($1, '2026-01-02 03:04:05+00', $2, 0, tasker._state_code('task', $3), '{"cart": 7}', $4, $5);
$$;

-- Gives steps of a task a state, as 'a=complete b=error'.
CREATE FUNCTION pg_temp.steps(task_id bigint, states text, attempts integer DEFAULT 1)
RETURNS void
LANGUAGE sql
AS $$
INSERT INTO tasker.step (task_id, step_no, state, attempts, started_at)
SELECT $1, s.step_no, tasker._state_code('step', split_part(x, '=', 2)),
       CASE WHEN split_part(x, '=', 2) IN ('pending', 'skipped') THEN 0 ELSE $3 END,
       '2026-01-02 03:04:06+00'
FROM string_to_table($2, ' ') AS x
JOIN tasker.plan_step AS s ON s.name = split_part(x, '=', 1)
WHERE s.plan_id = (SELECT t.plan_id FROM tasker.task AS t WHERE t.task_id = $1);
$$;

-- A failure that long ago, the next attempt due after that delay.
CREATE FUNCTION pg_temp.fail(task_id bigint, step text, state text, ago interval, delay interval DEFAULT NULL,
                             attempts integer DEFAULT 1)
RETURNS void
LANGUAGE sql
AS $$
INSERT INTO tasker.step (task_id, step_no, state, attempts, started_at, next_attempt_at, error)
SELECT $1, s.step_no, tasker._state_code('step', $3), $6,
       tasker.clock() - $4, tasker.clock() - $4 + $5,
       jsonb_build_object('message', 'broken', 'at', tasker.clock() - $4)
FROM tasker.plan_step AS s
WHERE s.name = $2
  AND s.plan_id = (SELECT t.plan_id FROM tasker.task AS t WHERE t.task_id = $1);
$$;

SELECT pg_temp.plan(9001, 'linear', '{a:,b: a,c: b}');
SELECT pg_temp.plan(9002, 'diamond', '{a:,b: a,c: a,d: b c}');
SELECT pg_temp.plan(9003, 'parallel_merge', '{a:,b:,c:,d: a b c}');
SELECT pg_temp.plan(9004, 'tree', '{a:,b: a,c: a,d: b,e: b,f: c,g: c}');
SELECT pg_temp.plan(9005, 'mixed', '{a:,b:,c: a,d: a b,e: c d,f: b,g: a e f}');

-- The shapes: levels (the longest path: g hangs on a directly as well)
SELECT pg_temp.task(1, 9001), pg_temp.task(2, 9002), pg_temp.task(3, 9003), pg_temp.task(4, 9004), pg_temp.task(5, 9005);
SELECT t.task_id, string_agg(l.step_id - (t.task_id << 14) || ':' || l.dependency_level, ' ') AS levels
FROM tasker.task AS t
CROSS JOIN LATERAL tasker.dependency_levels(t.task_id) AS l
WHERE t.task_id BETWEEN 1 AND 5
GROUP BY t.task_id
ORDER BY t.task_id;
SELECT * FROM tasker.dependency_levels(2);

-- The shapes: what is ready at first, after the roots, after some more
SELECT task_id, string_agg(name, ' ' ORDER BY step_id) FILTER (WHERE ready_for_execution) AS ready
FROM tasker.step_readiness_batch('{1,2,3,4,5}')
GROUP BY task_id
ORDER BY task_id;
SELECT pg_temp.steps(1, 'a=complete b=in_progress');
SELECT pg_temp.steps(2, 'a=resolved_manually b=skipped');
SELECT pg_temp.steps(3, 'a=complete b=complete');
SELECT pg_temp.steps(4, 'a=complete b=complete c=in_progress');
SELECT pg_temp.steps(5, 'a=complete b=skipped c=complete f=resolved_manually');
SELECT step_id, task_id, named_step_id, name, current_state, dependencies_satisfied AS satisfied,
       retry_eligible AS eligible, ready_for_execution AS ready, total_parents AS total,
       completed_parents AS completed, attempts, retry_limit
FROM tasker.step_readiness_batch('{5,1,2,3,4,1,999,NULL}');
SELECT task_id, total_steps AS total, pending_steps AS pending, in_progress_steps AS in_progress,
       completed_steps AS completed, failed_steps AS failed, ready_steps AS ready,
       execution_status, recommended_action, completion_percentage, health_status
FROM tasker.task_execution_contexts('{5,1,2,3,4,1,999,NULL}');

-- Columns and types are part of the contract
SELECT column_name FROM unnest(string_to_array(pg_get_function_result('tasker.step_readiness(bigint, bigint[])'::regprocedure), ', ')) AS column_name;
SELECT proargnames = (SELECT array_prepend('task_ids', proargnames[3:]) FROM pg_proc WHERE oid = 'tasker.step_readiness(bigint, bigint[])'::regprocedure) AS same_columns
FROM pg_proc
WHERE oid = 'tasker.step_readiness_batch(bigint[])'::regprocedure;
SELECT column_name FROM unnest(string_to_array(pg_get_function_result('tasker.task_execution_context(bigint)'::regprocedure), ', ')) AS column_name;
SELECT proargnames[2:] = (SELECT proargnames[2:] FROM pg_proc WHERE oid = 'tasker.task_execution_context(bigint)'::regprocedure) AS same_columns
FROM pg_proc
WHERE oid = 'tasker.task_execution_contexts(bigint[])'::regprocedure;

-- Some steps of a task; an unknown one and NULL give no rows
SELECT step_id, name FROM tasker.step_readiness(2, ARRAY[(2 << 14) + 4, (2 << 14) + 1, (3 << 14) + 1]);
SELECT name FROM tasker.step_readiness(task_id => 1, step_ids => '{}');
SELECT count(*) FROM tasker.step_readiness(999);
SELECT count(*) FROM tasker.step_readiness(NULL);
SELECT count(*) FROM tasker.step_readiness_batch(NULL);
SELECT count(*) FROM tasker.task_execution_context(999);
SELECT count(*) FROM tasker.dependency_levels(999);

-- Failures.  11: waits for its retry, not due; 12: due; 13: in error with
-- attempts left; 14: all attempts used, an independent step is ready; 15: in
-- error beside one that runs; 16: in error, nothing else can go on; 17: the
-- lease was lost, due at once; 18: waits beside one that is in error.
SELECT pg_temp.task(n, CASE n WHEN 14 THEN 9004 WHEN 15 THEN 9004 WHEN 18 THEN 9003 ELSE 9001 END)
FROM generate_series(11, 18) AS n;
SELECT pg_temp.fail(11, 'a', 'waiting_for_retry', '1 s', '3600 s');
SELECT pg_temp.fail(12, 'a', 'waiting_for_retry', '10 s', '8 s', 2);
SELECT pg_temp.fail(13, 'a', 'error', '10 s');
SELECT pg_temp.steps(14, 'a=complete'), pg_temp.fail(14, 'b', 'error', '10 s', NULL, 3);
SELECT pg_temp.steps(15, 'a=complete c=in_progress'), pg_temp.fail(15, 'b', 'error', '10 s', NULL, 3);
SELECT pg_temp.steps(16, 'a=complete'), pg_temp.fail(16, 'b', 'error', '10 s', NULL, 3);
SELECT pg_temp.fail(17, 'a', 'waiting_for_retry', '10 s', '0 s');
SELECT pg_temp.steps(18, 'a=complete'), pg_temp.fail(18, 'b', 'waiting_for_retry', '1 s', '3600 s'), pg_temp.fail(18, 'c', 'error', '10 s', NULL, 3);
CREATE TEMP VIEW failures AS
SELECT r.task_id, r.name, r.current_state, r.retry_eligible AS eligible, r.ready_for_execution AS ready,
       r.last_failure_at = (s.error ->> 'at')::timestamptz AS failed_then,
       r.next_retry_at = s.next_attempt_at AS due_then,
       r.attempts, r.retry_limit, r.backoff_request_seconds AS backoff,
       r.last_attempted_at = s.started_at AS attempted_then
FROM tasker.step_readiness_batch('{11,12,13,14,15,16,17,18}') AS r
JOIN tasker.step AS s ON s.task_id = r.task_id AND s.step_no = r.named_step_id
WHERE s.error IS NOT NULL
ORDER BY r.step_id;
CREATE TEMP VIEW failed_contexts AS
SELECT task_id, pending_steps AS pending, completed_steps AS completed, failed_steps AS failed, ready_steps AS ready,
       execution_status, recommended_action, health_status
FROM tasker.task_execution_contexts('{11,12,13,14,15,16,17,18}');
SELECT * FROM failures;
SELECT * FROM failed_contexts;

-- The same in every time zone, and with every way to write dates
CREATE TEMP TABLE utc AS SELECT * FROM tasker.step_readiness_batch('{11,12,13,14,15,16,17,18}');
CREATE TEMP TABLE status_utc AS
SELECT n AS task_id, tasker.task_status(n) AS status FROM generate_series(11, 18) AS n;
SET LOCAL timezone = 'Asia/Tokyo';
SELECT count(*) AS differ FROM (SELECT * FROM tasker.step_readiness_batch('{11,12,13,14,15,16,17,18}') EXCEPT SELECT * FROM utc) AS d;
SELECT count(*) AS differ FROM status_utc WHERE tasker.task_status(task_id) <> status;
SET LOCAL timezone = 'America/New_York';
SET LOCAL datestyle = 'SQL, DMY';
SELECT count(*) AS differ FROM (SELECT * FROM tasker.step_readiness_batch('{11,12,13,14,15,16,17,18}') EXCEPT SELECT * FROM utc) AS d;
SELECT count(*) AS differ FROM status_utc WHERE tasker.task_status(task_id) <> status;
RESET datestyle;
RESET timezone;

-- An hour later the retries are due
SET LOCAL tasker.clock_offset = 3700;
SELECT task_id, name, ready FROM failures WHERE current_state = 'waiting_for_retry';
SELECT task_id, ready, execution_status, health_status FROM failed_contexts;
RESET tasker.clock_offset;

-- An error that does not say when, or says what is no time: the step's end counts
UPDATE tasker.step SET error = '{"message": "x", "at": "yesterday"}', finished_at = '2026-01-02 03:04:08+00' WHERE task_id = 13;
SELECT last_failure_at = '2026-01-02 03:04:08+00' AS at_its_end FROM tasker.step_readiness(13) WHERE name = 'a';

-- retryable: false holds back no first attempt, and its failure is final
UPDATE tasker.plan_step SET retryable = false WHERE plan_id = 9002 AND step_no = 1;
SELECT pg_temp.task(21, 9002), pg_temp.task(22, 9002);
SELECT pg_temp.fail(22, 'a', 'error', '10 s');
SELECT task_id, current_state, retry_eligible AS eligible, ready_for_execution AS ready, attempts, retry_limit
FROM tasker.step_readiness_batch('{21,22}')
WHERE name = 'a';
SELECT task_id, ready_steps AS ready, execution_status, recommended_action, health_status
FROM tasker.task_execution_contexts('{21,22}');

-- What an operator tries again is pending with attempts behind it, and ready
SELECT pg_temp.task(23, 9001);
INSERT INTO tasker.step (task_id, step_no, state, attempts, retry_limit) VALUES (23, 1, tasker._state_code('step', 'pending'), 3, 6);
SELECT current_state, retry_eligible AS eligible, ready_for_execution AS ready, attempts, retry_limit, last_failure_at
FROM tasker.step_readiness(23)
WHERE name = 'a';

-- A cancelled step never satisfies, hinders no end, and counts in the total only
SELECT pg_temp.task(31, 9001), pg_temp.task(32, 9001, 'cancelled'), pg_temp.task(33, 9001, 'complete');
SELECT pg_temp.steps(31, 'a=complete b=cancelled');
SELECT pg_temp.steps(32, 'a=complete b=cancelled c=cancelled');
SELECT pg_temp.steps(33, 'a=complete b=skipped c=resolved_manually');
SELECT task_id, name, current_state, dependencies_satisfied AS satisfied, ready_for_execution AS ready
FROM tasker.step_readiness(31);
SELECT task_id, status, total_steps AS total, pending_steps AS pending, completed_steps AS completed,
       execution_status, recommended_action, completion_percentage, health_status
FROM tasker.task_execution_contexts('{31,32,33}');

-- Nothing is ready while the task is paused, over or not due
SELECT pg_temp.task(41, 9003, 'pending'), pg_temp.task(42, 9003, 'paused'), pg_temp.task(43, 9003, 'error'),
       pg_temp.task(44, 9003, 'pending', tasker.clock() + interval '1 hour'),
       pg_temp.task(45, 9003, 'pending', tasker.clock() - interval '1 hour'),
       pg_temp.task(46, 9003, 'pending', NULL, '{a,d,nowhere}');
SELECT task_id, status, ready_steps AS ready, execution_status FROM tasker.task_execution_contexts('{41,42,43,44,45,46}');
SELECT name, dependencies_satisfied AS satisfied, ready_for_execution AS ready FROM tasker.step_readiness(46);

-- A task without steps
SELECT pg_temp.plan(9006, 'empty', '{}'), pg_temp.task(51, 9006);
SELECT total_steps, execution_status, completion_percentage, health_status FROM tasker.task_execution_context(51);
SELECT tasker.task_status(51) -> 'workflow_steps' AS steps;

-- Eleven layers of four, each step on all of the layer before: four million paths
SELECT pg_temp.plan(9007, 'layers', array_agg(
           'n' || layer || '_' || i || ':'
           || CASE WHEN layer > 1 THEN format(' n%1$s_1 n%1$s_2 n%1$s_3 n%1$s_4', layer - 1) ELSE '' END
           ORDER BY layer, i))
FROM generate_series(1, 11) AS layer, generate_series(1, 4) AS i;
SELECT pg_temp.task(61, 9007);
SELECT pg_temp.steps(61, string_agg(format('n%s_%s=complete', layer, i), ' '))
FROM generate_series(1, 7) AS layer, generate_series(1, 4) AS i;
SET LOCAL statement_timeout = '20s';
SELECT count(*), min(dependency_level), max(dependency_level) FROM tasker.dependency_levels(61);
SELECT string_agg(name, ' ' ORDER BY step_id) FROM tasker.step_readiness(61) WHERE ready_for_execution;
SELECT total_steps, completed_steps, ready_steps, completion_percentage FROM tasker.task_execution_context(61);
SELECT jsonb_array_length(tasker.task_status(61) -> 'workflow_steps');

-- Five thousand steps between two
INSERT INTO tasker.plan (plan_id, template_id, namespace, name, version, step_count, definition)
VALUES (9008, 10008, 'test', 'wide', '1.0.0', 5002, '{}');
INSERT INTO tasker.plan_step (plan_id, step_no, name, handler_class, parents, children, level)
SELECT 9008, n, 'n' || n, 'test.n',
       CASE WHEN n = 1 THEN '{}' WHEN n < 5002 THEN '{1}' ELSE ARRAY(SELECT generate_series(2, 5001)) END::smallint[],
       CASE WHEN n = 1 THEN ARRAY(SELECT generate_series(2, 5001)) WHEN n < 5002 THEN '{5002}' ELSE '{}' END::smallint[],
       CASE WHEN n = 1 THEN 0 WHEN n < 5002 THEN 1 ELSE 2 END
FROM generate_series(1, 5002) AS n;
SELECT pg_temp.task(62, 9008), pg_temp.steps(62, 'n1=complete n2=complete');
SELECT ready_steps, execution_status, completion_percentage FROM tasker.task_execution_context(62);
SELECT name, total_parents, completed_parents FROM tasker.step_readiness(62, ARRAY[(62 << 14) + 5002]);
SELECT s ->> 'name' AS name, s -> 'siblings_ids' AS siblings_ids, s -> 'siblings_count' AS siblings_count,
       jsonb_array_length(s -> 'parents_ids') AS parents, jsonb_array_length(s -> 'children_ids') AS children
FROM jsonb_array_elements(tasker.task_status(62) -> 'workflow_steps') AS s
WHERE s ->> 'name' IN ('n1', 'n2', 'n5002');
RESET statement_timeout;

-- The status of a task as a whole
UPDATE tasker.task
SET initiator = 'ann', source_system = 'shop', reason = 'test', tags = '{x,y}', bypass_steps = '{g}', priority = 5,
    environment = 'test', correlation_id = 'c-1', started_at = '2026-01-02 03:04:06+00', error = '{"message": "broken"}'
WHERE task_id = 5;
INSERT INTO tasker.step (task_id, step_no, state, attempts, retry_limit, started_at, lease_until, claimed_by, inputs, results)
VALUES (5, 4, tasker._state_code('step', 'in_progress'), 2, 9, '2026-01-02 03:04:07+00', '2026-01-02 03:05:07+00', 'w1', '{"k": 1}', NULL);
UPDATE tasker.step SET results = '{"ok": true}', finished_at = '2026-01-02 03:04:08+00' WHERE task_id = 5 AND step_no = 1;
SELECT jsonb_pretty(tasker.task_status(5) - 'workflow_steps') AS task;
SELECT jsonb_pretty(tasker.task_status(5) #> '{workflow_steps,0}') AS a;
SELECT jsonb_pretty(tasker.task_status(5) #> '{workflow_steps,3}') AS d;
SELECT s ->> 'name' AS name, s ->> 'state' AS state, s -> 'parents_ids' AS parents, s -> 'children_ids' AS children,
       s -> 'siblings_ids' AS siblings
FROM jsonb_array_elements(tasker.task_status(4) -> 'workflow_steps') AS s;

-- An unknown task
SAVEPOINT s;
SELECT tasker.task_status(999);
\echo :SQLSTATE
ROLLBACK TO s;
SELECT tasker.task_status(NULL);
\echo :SQLSTATE
ROLLBACK;
