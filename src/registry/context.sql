CREATE TYPE tasker.step_context AS (
    task_id bigint,
    step_id bigint,
    task_name text,
    namespace text,
    version text,
    step_name text,
    attempt integer,
    retry_limit integer,
    context jsonb,
    dependencies jsonb,
    config jsonb,
    correlation_id text,
    traceparent text,
    idempotency_key text,
    response jsonb
);
COMMENT ON TYPE tasker.step_context IS 'What a handler gets: the step it is to do, and all it needs for it.';
COMMENT ON COLUMN tasker.step_context.task_id IS 'Task.';
COMMENT ON COLUMN tasker.step_context.step_id IS 'Step.';
COMMENT ON COLUMN tasker.step_context.task_name IS 'Name of the task''s template.';
COMMENT ON COLUMN tasker.step_context.namespace IS 'Namespace of the task''s template.';
COMMENT ON COLUMN tasker.step_context.version IS 'Version of the task''s template.';
COMMENT ON COLUMN tasker.step_context.step_name IS 'Name of the step.';
COMMENT ON COLUMN tasker.step_context.attempt IS 'Number of this attempt, 1 for the first.';
COMMENT ON COLUMN tasker.step_context.retry_limit IS 'Attempts in all.';
COMMENT ON COLUMN tasker.step_context.context IS 'The step''s inputs where an operator gave it some, else the task''s context.';
COMMENT ON COLUMN tasker.step_context.dependencies IS 'Results of the steps it directly depends on, by name.';
COMMENT ON COLUMN tasker.step_context.config IS 'handler_config of the definition, with the values of its secrets.';
COMMENT ON COLUMN tasker.step_context.correlation_id IS 'The task''s correlation id.';
COMMENT ON COLUMN tasker.step_context.traceparent IS 'The task''s trace context.';
COMMENT ON COLUMN tasker.step_context.idempotency_key IS 'The same at every attempt of this step and at no other step: for systems outside that take such a key.';
COMMENT ON COLUMN tasker.step_context.response IS 'HTTP answer, where an api step has a registered handler.';
