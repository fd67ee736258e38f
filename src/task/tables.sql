-- Tasks and steps.  No index but the keys: whatever waits stands in the queue,
-- so no search ever goes over what is finished.  The free space in a task's
-- page lets its one update in a life of SQL steps stay on it (HOT).

CREATE SEQUENCE tasker.task_id_seq CACHE 32;
COMMENT ON SEQUENCE tasker.task_id_seq IS 'Lower 40 bits of task ids.';

CREATE TABLE tasker.task (
    task_id bigint PRIMARY KEY,
    created_at timestamptz NOT NULL,
    started_at timestamptz,
    finished_at timestamptz,
    run_at timestamptz,
    plan_id integer NOT NULL,
    priority integer NOT NULL,
    state smallint NOT NULL,
    context jsonb NOT NULL,
    initiator text,
    reason text,
    source_system text,
    tags text[],
    bypass_steps text[],
    idempotency_key text,
    environment text,
    correlation_id text,
    traceparent text,
    error jsonb
) WITH (fillfactor = 45);
COMMENT ON TABLE tasker.task IS 'A task: one run of a plan. People read the view tasker.tasks.';
COMMENT ON COLUMN tasker.task.task_id IS 'tasker.node << 40 | number.';
COMMENT ON COLUMN tasker.task.created_at IS 'When it was created.';
COMMENT ON COLUMN tasker.task.started_at IS 'When its first step started.';
COMMENT ON COLUMN tasker.task.finished_at IS 'When it ended; NULL while it has not.';
COMMENT ON COLUMN tasker.task.run_at IS 'Not before; NULL: at once.';
COMMENT ON COLUMN tasker.task.plan_id IS 'Plan it follows.';
COMMENT ON COLUMN tasker.task.priority IS 'Higher goes first.';
COMMENT ON COLUMN tasker.task.state IS 'Code of its state: tasker._task_state() names it.';
COMMENT ON COLUMN tasker.task.context IS 'What it was created with, defaults of the schema filled in.';
COMMENT ON COLUMN tasker.task.initiator IS 'Who asked for it.';
COMMENT ON COLUMN tasker.task.reason IS 'Why; the latest change''s reason after a cancellation or resolution.';
COMMENT ON COLUMN tasker.task.source_system IS 'System it came from.';
COMMENT ON COLUMN tasker.task.tags IS 'Tags; NULL: none.';
COMMENT ON COLUMN tasker.task.bypass_steps IS 'Names of steps to skip; NULL: none.';
COMMENT ON COLUMN tasker.task.idempotency_key IS 'Key it was created under; NULL: none.';
COMMENT ON COLUMN tasker.task.environment IS 'Environment in force when it was created.';
COMMENT ON COLUMN tasker.task.correlation_id IS 'Carried through to handlers, events and spans.';
COMMENT ON COLUMN tasker.task.traceparent IS 'W3C trace context it belongs to.';
COMMENT ON COLUMN tasker.task.error IS 'Why it is in error: that of the step that failed first for good.';

CREATE TABLE tasker.step (
    task_id bigint NOT NULL,
    started_at timestamptz,
    finished_at timestamptz,
    next_attempt_at timestamptz,
    lease_until timestamptz,
    step_no smallint NOT NULL,
    state smallint NOT NULL,
    attempts smallint NOT NULL,
    retry_limit smallint,
    results jsonb,
    error jsonb,
    inputs jsonb,
    claimed_by text,
    PRIMARY KEY (task_id, step_no)
) WITH (fillfactor = 90);
COMMENT ON TABLE tasker.step IS 'A step that has left pending, or was touched by an operator. A pending one has no row: the plan knows it. People read the view tasker.workflow_steps.';
COMMENT ON COLUMN tasker.step.task_id IS 'Task it belongs to.';
COMMENT ON COLUMN tasker.step.started_at IS 'When its latest attempt started.';
COMMENT ON COLUMN tasker.step.finished_at IS 'When it ended.';
COMMENT ON COLUMN tasker.step.next_attempt_at IS 'When a step that waits for its retry is due.';
COMMENT ON COLUMN tasker.step.lease_until IS 'When the claim of a worker outside runs out.';
COMMENT ON COLUMN tasker.step.step_no IS 'Number of the step within the plan.';
COMMENT ON COLUMN tasker.step.state IS 'Code of its state: tasker._step_state() names it.';
COMMENT ON COLUMN tasker.step.attempts IS 'Attempts that were started and counted.';
COMMENT ON COLUMN tasker.step.retry_limit IS 'Attempts in all where an operator changed it; NULL: as the plan says.';
COMMENT ON COLUMN tasker.step.results IS 'What its handler returned.';
COMMENT ON COLUMN tasker.step.error IS 'Error of its latest attempt until it is complete: message, sqlstate, detail, hint, context, attempt, retryable, at.';
COMMENT ON COLUMN tasker.step.inputs IS 'What an operator gave it; NULL: the task''s context.';
COMMENT ON COLUMN tasker.step.claimed_by IS 'Worker outside that holds it.';

CREATE TABLE tasker.idempotency (
    namespace text NOT NULL,
    idempotency_key text NOT NULL,
    task_id bigint NOT NULL,
    PRIMARY KEY (namespace, idempotency_key)
);
COMMENT ON TABLE tasker.idempotency IS 'Which task an idempotency key made, so that the same key never makes a second.';
COMMENT ON COLUMN tasker.idempotency.namespace IS 'Namespace of the task.';
COMMENT ON COLUMN tasker.idempotency.idempotency_key IS 'The caller''s key.';
COMMENT ON COLUMN tasker.idempotency.task_id IS 'Task it made.';

SELECT pg_catalog.pg_extension_config_dump('tasker.task_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('tasker.task', '');
SELECT pg_catalog.pg_extension_config_dump('tasker.step', '');
SELECT pg_catalog.pg_extension_config_dump('tasker.idempotency', '');
