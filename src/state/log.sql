-- The log: every state change, written in the transaction that makes it.  Audit
-- trail, events, spans and metrics are all read from here.  Where something goes
-- to in_progress and leaves it in the same transaction, one row holds both.

CREATE TABLE tasker.log (
    id bigint PRIMARY KEY,
    at timestamptz NOT NULL,
    task_id bigint NOT NULL,
    start_id bigint,
    start_at timestamptz,
    step_no smallint NOT NULL,
    from_state smallint,
    to_state smallint NOT NULL,
    attempt smallint,
    metadata jsonb
);
CREATE INDEX log_task ON tasker.log USING brin (task_id) WITH (pages_per_range = 8, autosummarize = on);
COMMENT ON TABLE tasker.log IS 'Every state change of a task or a step, written once and never changed; one to in_progress may share its row with the one behind it. People read the view tasker.transitions.';
COMMENT ON COLUMN tasker.log.id IS '(transaction id + base) << 20 | number within the transaction: unique, and a range of it is the rows of a range of transactions, which is how readers follow the log.';
COMMENT ON COLUMN tasker.log.at IS 'When it happened.';
COMMENT ON COLUMN tasker.log.task_id IS 'Task.';
COMMENT ON COLUMN tasker.log.start_id IS 'Id of the change to in_progress, where this row stands for it, too: from from_state to in_progress and on to to_state; NULL: it does not.';
COMMENT ON COLUMN tasker.log.start_at IS 'When that happened; without start_id, when what leaves in_progress by this row went there by another one.';
COMMENT ON COLUMN tasker.log.step_no IS 'Step; 0 for a change of the task itself.';
COMMENT ON COLUMN tasker.log.from_state IS 'Code of the state before; NULL: it came into being.';
COMMENT ON COLUMN tasker.log.to_state IS 'Code of the state after.';
COMMENT ON COLUMN tasker.log.attempt IS 'Attempt of the step, from 1; NULL for a task.';
COMMENT ON COLUMN tasker.log.metadata IS 'What else belongs to it: an error in short, a reason, a worker.';
SELECT pg_catalog.pg_extension_config_dump('tasker.log', '');

CREATE VIEW tasker._move WITH (security_invoker) AS
SELECT CASE p.part WHEN 1 THEN l.start_id ELSE l.id END AS id,
       CASE p.part WHEN 1 THEN l.start_at ELSE l.at END AS at,
       l.task_id,
       l.step_no,
       CASE WHEN p.part = 2 AND l.start_id IS NOT NULL THEN 1::smallint ELSE l.from_state END AS from_state,
       CASE p.part WHEN 1 THEN 1::smallint ELSE l.to_state END AS to_state,
       l.attempt,
       CASE p.part WHEN 2 THEN l.metadata END AS metadata,
       l.id AS row_id
FROM tasker.log AS l
CROSS JOIN (VALUES (1), (2)) AS p (part)
WHERE p.part = 2
   OR l.start_id IS NOT NULL;
COMMENT ON VIEW tasker._move IS 'The log with a row for every state change, in codes. Private: people read tasker.transitions.';
COMMENT ON COLUMN tasker._move.id IS 'Unique.';
COMMENT ON COLUMN tasker._move.at IS 'When it happened.';
COMMENT ON COLUMN tasker._move.task_id IS 'Task.';
COMMENT ON COLUMN tasker._move.step_no IS 'Step; 0 for a change of the task itself.';
COMMENT ON COLUMN tasker._move.from_state IS 'Code of the state before; NULL: it came into being.';
COMMENT ON COLUMN tasker._move.to_state IS 'Code of the state after.';
COMMENT ON COLUMN tasker._move.attempt IS 'Attempt of the step, from 1; NULL for a task.';
COMMENT ON COLUMN tasker._move.metadata IS 'What else belongs to it.';
COMMENT ON COLUMN tasker._move.row_id IS 'Id of the row of the log.';

CREATE VIEW tasker.transitions WITH (security_invoker) AS
SELECT m.id AS transition_id,
       m.at AS occurred_at,
       m.task_id,
       CASE WHEN m.step_no > 0 THEN m.task_id << 14 | m.step_no END AS step_id,
       CASE WHEN m.step_no > 0 THEN tasker._step_state(m.from_state)::text
            ELSE tasker._task_state(m.from_state)::text END AS from_state,
       CASE WHEN m.step_no > 0 THEN tasker._step_state(m.to_state)::text
            ELSE tasker._task_state(m.to_state)::text END AS to_state,
       m.attempt::integer AS attempt,
       m.metadata
FROM tasker._move AS m;
COMMENT ON VIEW tasker.transitions IS 'Every state change of every task and step.';
COMMENT ON COLUMN tasker.transitions.transition_id IS 'Unique; does not rise with time across transactions.';
COMMENT ON COLUMN tasker.transitions.occurred_at IS 'When it happened.';
COMMENT ON COLUMN tasker.transitions.task_id IS 'Task.';
COMMENT ON COLUMN tasker.transitions.step_id IS 'Step; NULL for a change of the task itself.';
COMMENT ON COLUMN tasker.transitions.from_state IS 'State before; NULL: it came into being.';
COMMENT ON COLUMN tasker.transitions.to_state IS 'State after.';
COMMENT ON COLUMN tasker.transitions.attempt IS 'Attempt of the step, from 1; NULL for a task.';
COMMENT ON COLUMN tasker.transitions.metadata IS 'What else belongs to it: an error in short, a reason, a worker.';

CREATE VIEW tasker.task_transitions WITH (security_invoker) AS
SELECT transition_id, occurred_at, task_id, from_state, to_state, metadata
FROM tasker.transitions
WHERE step_id IS NULL;
COMMENT ON VIEW tasker.task_transitions IS 'The rows of tasker.transitions that are a task''s own.';
COMMENT ON COLUMN tasker.task_transitions.transition_id IS 'As in tasker.transitions.';
COMMENT ON COLUMN tasker.task_transitions.occurred_at IS 'When it happened.';
COMMENT ON COLUMN tasker.task_transitions.task_id IS 'Task.';
COMMENT ON COLUMN tasker.task_transitions.from_state IS 'State before; NULL: it was created.';
COMMENT ON COLUMN tasker.task_transitions.to_state IS 'State after.';
COMMENT ON COLUMN tasker.task_transitions.metadata IS 'What else belongs to it.';

CREATE VIEW tasker.workflow_step_transitions WITH (security_invoker) AS
SELECT transition_id, occurred_at, task_id, step_id, from_state, to_state, attempt, metadata
FROM tasker.transitions
WHERE step_id IS NOT NULL;
COMMENT ON VIEW tasker.workflow_step_transitions IS 'The rows of tasker.transitions that are a step''s.';
COMMENT ON COLUMN tasker.workflow_step_transitions.transition_id IS 'As in tasker.transitions.';
COMMENT ON COLUMN tasker.workflow_step_transitions.occurred_at IS 'When it happened.';
COMMENT ON COLUMN tasker.workflow_step_transitions.task_id IS 'Task.';
COMMENT ON COLUMN tasker.workflow_step_transitions.step_id IS 'Step.';
COMMENT ON COLUMN tasker.workflow_step_transitions.from_state IS 'State before.';
COMMENT ON COLUMN tasker.workflow_step_transitions.to_state IS 'State after.';
COMMENT ON COLUMN tasker.workflow_step_transitions.attempt IS 'Attempt, from 1.';
COMMENT ON COLUMN tasker.workflow_step_transitions.metadata IS 'What else belongs to it.';
