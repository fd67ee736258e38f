-- What is not allowed: every operation on a task and on a step in every state
-- is done once, or refused with TK004 and what is allowed from there.  Workers
-- outside are told that they lost their lease (TK003).

\set VERBOSITY default
SET client_min_messages = warning;
\pset null '-'

-- The engine stops, so nothing moves but what the test moves.  update_step()
-- queues a task's steps for workers outside, which an executor does otherwise.
SELECT tasker.deactivate();
SELECT tasker.register_external_handler('illegal_' || name)
FROM unnest(ARRAY['a', 'b']) AS name;
SELECT tasker.register_task('
name: illegal_one
step_templates:
- name: a
  handler_class: illegal_a
') > 0 AS one,
tasker.register_task('
name: illegal_two
step_templates:
- name: a
  handler_class: illegal_a
- name: b
  handler_class: illegal_b
') > 0 AS two;

CREATE SCHEMA illegal;

-- A task for each operation in each state; the step is step a, and step b keeps
-- its task going.  Over: operations on the step of a task that has ended.
CREATE TABLE illegal.tried AS
WITH wanted AS (
    SELECT w.machine, s.state, o.operation, row_number() OVER () AS n
    FROM (VALUES
        ('task', ARRAY['pending', 'in_progress', 'paused', 'complete', 'error', 'cancelled', 'resolved_manually'],
                 ARRAY['cancel_task(%s)', 'pause_task(%s)', 'resume_task(%s)', 'retry_task(%s)', 'resolve_task(%s, NULL)']),
        ('step', ARRAY['pending', 'in_progress', 'waiting_for_retry', 'complete', 'error', 'cancelled', 'resolved_manually', 'skipped'],
                 ARRAY['cancel_step(%s)', 'retry_step(%s)', 'resolve_step(%s)', 'update_step(%s, 5)',
                       'complete_step(%s, NULL)', 'fail_step(%s, NULL)']),
        ('over', ARRAY['complete', 'error', 'cancelled', 'resolved_manually'],
                 ARRAY['cancel_step(%s)', 'retry_step(%s)', 'resolve_step(%s)', 'update_step(%s, 5)'])
        ) AS w (machine, states, operations)
    CROSS JOIN unnest(w.states) AS s (state)
    CROSS JOIN unnest(w.operations) AS o (operation)
)
SELECT w.*,
       tasker.create_task(CASE w.machine WHEN 'step' THEN 'illegal_two' ELSE 'illegal_one' END,
                          bypass_steps => CASE w.state WHEN 'skipped' THEN ARRAY['a'] ELSE '{}' END) AS task_id
FROM wanted AS w;

SELECT DISTINCT tasker.update_step(task_id << 14 | 1, retry_limit => 3) AS touched
FROM illegal.tried
WHERE state <> 'pending';
SELECT count(*) = (SELECT count(*) FROM illegal.tried WHERE state NOT IN ('pending', 'skipped')) AS claimed
FROM tasker.claim_steps('worker', ARRAY['illegal_a'], max_steps => 1000);

SELECT machine, state,
       CASE
           WHEN state = 'complete' THEN tasker.complete_step(task_id << 14 | 1, '{}')
           WHEN state = 'waiting_for_retry' THEN tasker.fail_step(task_id << 14 | 1, '"no"', retry_after => '1 day')
           WHEN state IN ('error', 'resolved_manually') THEN tasker.fail_step(task_id << 14 | 1, '"no"', retryable => false)
           WHEN state = 'paused' THEN tasker.pause_task(task_id)
           WHEN state = 'cancelled' AND machine = 'step' THEN tasker.cancel_step(task_id << 14 | 1)
           WHEN state = 'cancelled' THEN tasker.cancel_task(task_id)
       END AS moved
INTO TEMPORARY moved
FROM illegal.tried;
SELECT machine, state, count(CASE machine WHEN 'step' THEN tasker.resolve_step(task_id << 14 | 1)
                                          ELSE tasker.resolve_task(task_id, 'by hand') END) AS resolved
FROM illegal.tried
WHERE state = 'resolved_manually'
GROUP BY machine, state
ORDER BY machine;

-- Every one is in the state that it is to be tried in.
SELECT w.machine, w.state, t.state AS task, s.state AS step
FROM illegal.tried AS w
JOIN tasker.tasks AS t USING (task_id)
JOIN tasker.workflow_steps AS s ON s.step_id = w.task_id << 14 | 1
WHERE w.state <> CASE w.machine WHEN 'step' THEN s.state ELSE t.state END;

CREATE FUNCTION illegal.try(call text, id bigint,
    OUT becomes text, OUT code text, OUT message text, OUT detail text, OUT hint text)
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('SELECT tasker.' || call, id) INTO becomes;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
                            detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    message := replace(message, id::text, 'N');
    detail := regexp_replace(detail, '(Task|Step) \d+', '\1 N');
END;
$$;
CREATE TABLE illegal.answer AS
SELECT w.*, t.*
FROM (SELECT * FROM illegal.tried ORDER BY n) AS w
CROSS JOIN LATERAL illegal.try(w.operation, CASE w.machine WHEN 'task' THEN w.task_id ELSE w.task_id << 14 | 1 END) AS t;

-- What is done, and what is refused.
SELECT machine, state, operation, becomes, code
FROM illegal.answer
ORDER BY n;

-- How it is said.
SELECT DISTINCT machine, operation, message, detail, hint
FROM illegal.answer
WHERE code IS NOT NULL
ORDER BY machine, message, detail, operation, hint;

-- The hint of a refused move is what the rules allow from there.
SELECT t.state, t.operation, t.hint
FROM illegal.answer AS t
CROSS JOIN LATERAL (
    SELECT coalesce('From there it may go to: ' || string_agg(r.to_state, ', ') || '.', 'That state is final.') AS hint
    FROM tasker.transition_rules AS r
    WHERE r.machine = CASE WHEN t.machine = 'step' THEN 'step' ELSE 'task' END
      AND r.from_state = t.state) AS rules
WHERE t.message LIKE 'a % cannot go from %'
  AND t.hint IS DISTINCT FROM rules.hint;

-- No refusal has another reason.
SELECT state, operation, code, message
FROM illegal.answer
WHERE code NOT IN ('TK003', 'TK004');

-- Nothing is left for the other tests.
SELECT count(tasker.cancel_task(w.task_id)) > 0 AS cancelled
FROM illegal.tried AS w
JOIN tasker.tasks AS t USING (task_id)
WHERE t.state <> 'cancelled';
SELECT tasker.unregister_handler('illegal_' || name)
FROM unnest('{a,b}'::text[]) AS w (name);
DROP SCHEMA illegal CASCADE;
SELECT tasker.activate();
