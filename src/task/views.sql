-- Tasks and steps as people read them.

CREATE VIEW tasker.tasks WITH (security_invoker) AS
SELECT t.task_id, p.name, p.namespace, p.version,
       tasker._task_state(t.state)::text AS state,
       t.context, t.initiator, t.reason, t.source_system,
       coalesce(t.tags, '{}') AS tags,
       coalesce(t.bypass_steps, '{}') AS bypass_steps,
       t.priority, t.idempotency_key, t.environment, t.correlation_id, t.traceparent,
       t.created_at, t.run_at, t.started_at, t.finished_at, t.error
FROM tasker.task AS t
JOIN tasker.plan AS p USING (plan_id);
COMMENT ON VIEW tasker.tasks IS 'Every task.';
COMMENT ON COLUMN tasker.tasks.task_id IS 'Id.';
COMMENT ON COLUMN tasker.tasks.name IS 'Name of its template.';
COMMENT ON COLUMN tasker.tasks.namespace IS 'Namespace of its template.';
COMMENT ON COLUMN tasker.tasks.version IS 'Version of its template.';
COMMENT ON COLUMN tasker.tasks.state IS 'pending, in_progress, paused, complete, error, cancelled or resolved_manually.';
COMMENT ON COLUMN tasker.tasks.context IS 'What it was created with, defaults of the schema filled in.';
COMMENT ON COLUMN tasker.tasks.initiator IS 'Who asked for it.';
COMMENT ON COLUMN tasker.tasks.reason IS 'Why.';
COMMENT ON COLUMN tasker.tasks.source_system IS 'System it came from.';
COMMENT ON COLUMN tasker.tasks.tags IS 'Tags.';
COMMENT ON COLUMN tasker.tasks.bypass_steps IS 'Names of steps that it skips.';
COMMENT ON COLUMN tasker.tasks.priority IS 'Higher goes first.';
COMMENT ON COLUMN tasker.tasks.idempotency_key IS 'Key it was created under.';
COMMENT ON COLUMN tasker.tasks.environment IS 'Environment in force when it was created.';
COMMENT ON COLUMN tasker.tasks.correlation_id IS 'Carried through to handlers, events and spans.';
COMMENT ON COLUMN tasker.tasks.traceparent IS 'W3C trace context it belongs to.';
COMMENT ON COLUMN tasker.tasks.created_at IS 'When it was created.';
COMMENT ON COLUMN tasker.tasks.run_at IS 'Not before.';
COMMENT ON COLUMN tasker.tasks.started_at IS 'When its first step started.';
COMMENT ON COLUMN tasker.tasks.finished_at IS 'When it ended.';
COMMENT ON COLUMN tasker.tasks.error IS 'Why it is in error.';

CREATE VIEW tasker.workflow_steps WITH (security_invoker) AS
SELECT t.task_id << 14 | s.step_no AS step_id,
       t.task_id, s.name,
       tasker._step_state(coalesce(r.state, 0::smallint))::text AS state,
       coalesce(r.attempts, 0)::integer AS attempts,
       coalesce(r.retry_limit, s.retry_limit)::integer AS retry_limit,
       s.retryable,
       coalesce(r.inputs, t.context) AS inputs,
       r.results, r.error, r.claimed_by, r.lease_until, r.next_attempt_at,
       t.created_at, r.started_at, r.finished_at
FROM tasker.task AS t
JOIN tasker.plan_step AS s USING (plan_id)
LEFT JOIN tasker.step AS r ON r.task_id = t.task_id AND r.step_no = s.step_no;
COMMENT ON VIEW tasker.workflow_steps IS 'Every step of every task, those included that have not started.';
COMMENT ON COLUMN tasker.workflow_steps.step_id IS 'task_id << 14 | number of the step.';
COMMENT ON COLUMN tasker.workflow_steps.task_id IS 'Task it belongs to.';
COMMENT ON COLUMN tasker.workflow_steps.name IS 'Name in the definition.';
COMMENT ON COLUMN tasker.workflow_steps.state IS 'pending, in_progress, waiting_for_retry, complete, error, cancelled, resolved_manually or skipped.';
COMMENT ON COLUMN tasker.workflow_steps.attempts IS 'Attempts that were started and counted.';
COMMENT ON COLUMN tasker.workflow_steps.retry_limit IS 'Attempts in all.';
COMMENT ON COLUMN tasker.workflow_steps.retryable IS 'Whether a failure may be retried at all.';
COMMENT ON COLUMN tasker.workflow_steps.inputs IS 'What it works on: what an operator gave it, else the task''s context.';
COMMENT ON COLUMN tasker.workflow_steps.results IS 'What its handler returned.';
COMMENT ON COLUMN tasker.workflow_steps.error IS 'Error of its latest attempt until it is complete: message, sqlstate, detail, hint, context, attempt, retryable, at.';
COMMENT ON COLUMN tasker.workflow_steps.claimed_by IS 'Worker outside that holds it.';
COMMENT ON COLUMN tasker.workflow_steps.lease_until IS 'When that claim runs out.';
COMMENT ON COLUMN tasker.workflow_steps.next_attempt_at IS 'When a step that waits for its retry is due.';
COMMENT ON COLUMN tasker.workflow_steps.created_at IS 'When its task was created.';
COMMENT ON COLUMN tasker.workflow_steps.started_at IS 'When its latest attempt started.';
COMMENT ON COLUMN tasker.workflow_steps.finished_at IS 'When it ended.';

CREATE VIEW tasker.workflow_step_edges WITH (security_invoker) AS
SELECT t.task_id,
       t.task_id << 14 | e.parent AS from_step_id,
       t.task_id << 14 | s.step_no AS to_step_id
FROM tasker.task AS t
JOIN tasker.plan_step AS s USING (plan_id)
CROSS JOIN LATERAL pg_catalog.unnest(s.parents) AS e (parent);
COMMENT ON VIEW tasker.workflow_step_edges IS 'Every dependency between two steps of a task.';
COMMENT ON COLUMN tasker.workflow_step_edges.task_id IS 'Task.';
COMMENT ON COLUMN tasker.workflow_step_edges.from_step_id IS 'Step that must be complete, resolved or skipped first.';
COMMENT ON COLUMN tasker.workflow_step_edges.to_step_id IS 'Step that depends on it.';

-- One head for task_status() and for lists of tasks.  A view is inlined, which no
-- function with a search_path of its own is.
CREATE VIEW tasker._task_head WITH (security_invoker) AS
SELECT t.task_id,
       pg_catalog.jsonb_build_object(
           'task_id', t.task_id,
           'name', p.name,
           'namespace', p.namespace,
           'version', p.version,
           'full_name', p.namespace || '.' || p.name || '@' || p.version)
       || pg_catalog.jsonb_build_object(
           'state', tasker._task_state(t.state),
           'status', tasker._task_state(t.state),
           'complete', tasker._task_state(t.state) = 'complete',
           'error', t.error,
           'context', t.context,
           'initiator', t.initiator,
           'source_system', t.source_system,
           'reason', t.reason,
           'tags', coalesce(t.tags, '{}'),
           'bypass_steps', coalesce(t.bypass_steps, '{}'),
           'priority', t.priority,
           'idempotency_key', t.idempotency_key,
           'environment', t.environment,
           'correlation_id', t.correlation_id,
           'traceparent', t.traceparent)
       || pg_catalog.jsonb_build_object(
           'created_at', t.created_at,
           'requested_at', t.created_at,
           'run_at', t.run_at,
           'started_at', t.started_at,
           'finished_at', t.finished_at) AS head
FROM tasker.task AS t
JOIN tasker.plan AS p USING (plan_id);
COMMENT ON VIEW tasker._task_head IS 'Every task as an object, without its steps. Private: people call tasker.task_status().';
COMMENT ON COLUMN tasker._task_head.task_id IS 'Id.';
COMMENT ON COLUMN tasker._task_head.head IS 'What tasker.task_status() begins with; times are in the session''s TimeZone.';
