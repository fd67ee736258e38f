-- The log: one row for every state change, written in the transaction that
-- makes it.  Audit trail, events, spans and metrics are all read from here.

CREATE TABLE tasker.log (
    id bigint PRIMARY KEY,
    at timestamptz NOT NULL,
    task_id bigint NOT NULL,
    step_no smallint NOT NULL,
    from_state smallint,
    to_state smallint NOT NULL,
    attempt smallint,
    metadata jsonb
);
CREATE INDEX log_task ON tasker.log USING brin (task_id) WITH (pages_per_range = 8);
COMMENT ON TABLE tasker.log IS 'Every state change of a task or a step, written once and never changed. People read the view tasker.transitions.';
COMMENT ON COLUMN tasker.log.id IS '(transaction id + base) << 20 | number within the transaction: unique, and a range of it is the rows of a range of transactions, which is how readers follow the log.';
COMMENT ON COLUMN tasker.log.at IS 'When it happened.';
COMMENT ON COLUMN tasker.log.task_id IS 'Task.';
COMMENT ON COLUMN tasker.log.step_no IS 'Step; 0 for a change of the task itself.';
COMMENT ON COLUMN tasker.log.from_state IS 'Code of the state before; NULL: it came into being.';
COMMENT ON COLUMN tasker.log.to_state IS 'Code of the state after.';
COMMENT ON COLUMN tasker.log.attempt IS 'Attempt of the step, from 1; NULL for a task.';
COMMENT ON COLUMN tasker.log.metadata IS 'What else belongs to it: an error in short, a reason, a worker.';
SELECT pg_catalog.pg_extension_config_dump('tasker.log', '');

CREATE FUNCTION tasker._append_log(
    task_ids bigint[],
    step_nos smallint[],
    from_states smallint[],
    to_states smallint[],
    attempts smallint[],
    metadata jsonb[])
RETURNS bigint
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_append_log';
COMMENT ON FUNCTION tasker._append_log(bigint[], smallint[], smallint[], smallint[], smallint[], jsonb[]) IS
'Appends one log row an element; step_nos, from_states, attempts and metadata may be NULL as a whole. Checks each change against the rules (TK004), wakes the notifier at commit and returns the number of rows. Private: the state room''s way in for creation.';

CREATE VIEW tasker.transitions AS
SELECT l.id AS transition_id,
       l.at AS occurred_at,
       l.task_id,
       CASE WHEN l.step_no > 0 THEN l.task_id << 14 | l.step_no END AS step_id,
       CASE WHEN l.step_no > 0 THEN tasker._step_state(l.from_state)::text
            ELSE tasker._task_state(l.from_state)::text END AS from_state,
       CASE WHEN l.step_no > 0 THEN tasker._step_state(l.to_state)::text
            ELSE tasker._task_state(l.to_state)::text END AS to_state,
       l.attempt::integer AS attempt,
       l.metadata
FROM tasker.log AS l;
COMMENT ON VIEW tasker.transitions IS 'Every state change of every task and step.';
COMMENT ON COLUMN tasker.transitions.transition_id IS 'Unique; does not rise with time across transactions.';
COMMENT ON COLUMN tasker.transitions.occurred_at IS 'When it happened.';
COMMENT ON COLUMN tasker.transitions.task_id IS 'Task.';
COMMENT ON COLUMN tasker.transitions.step_id IS 'Step; NULL for a change of the task itself.';
COMMENT ON COLUMN tasker.transitions.from_state IS 'State before; NULL: it came into being.';
COMMENT ON COLUMN tasker.transitions.to_state IS 'State after.';
COMMENT ON COLUMN tasker.transitions.attempt IS 'Attempt of the step, from 1; NULL for a task.';
COMMENT ON COLUMN tasker.transitions.metadata IS 'What else belongs to it: an error in short, a reason, a worker.';

CREATE VIEW tasker.task_transitions AS
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

CREATE VIEW tasker.workflow_step_transitions AS
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
