-- What events carry: _event_fields() lists it, from which the schemas of the
-- catalogue are made; _events() gives it, read off the rows of the log.

CREATE FUNCTION tasker._event_fields()
RETURNS TABLE (place integer, events text[], field text, schema jsonb, required boolean, description text)
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 60
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT (row_number() OVER ())::integer, f.*
    FROM (VALUES
        (ARRAY['task', 'step', 'registry'], 'event_type', jsonb '{"type": "string"}', true,
         'Name of the event.'),
        ('{task,step,registry}', 'timestamp', '{"type": "string", "format": "date-time"}', true,
         'When it happened, in UTC.'),
        ('{task,step}', 'task_id', '{"type": "integer"}', true,
         'Task.'),
        -- Of its task, as long as that is there.
        ('{task,step}', 'task_name', '{"type": "string"}', false,
         'Name of the task''s template.'),
        ('{task}', 'task_type', '{"type": "string"}', false,
         'The same.'),
        ('{task,step}', 'namespace', '{"type": "string"}', false,
         'Namespace of the task''s template.'),
        ('{task,step}', 'version', '{"type": "string"}', false,
         'Version of the task''s template.'),
        ('{task,step}', 'correlation_id', '{"type": "string"}', false,
         'The task''s correlation id.'),
        ('{task,step}', 'initiator', '{"type": "string"}', false,
         'Who asked for the task.'),
        ('{task,step}', 'source_system', '{"type": "string"}', false,
         'System that the task came from.'),
        ('{task,step}', 'tags', '{"type": "array", "items": {"type": "string"}}', false,
         'The task''s tags; absent where it has none.'),
        ('{task,step}', 'priority', '{"type": "integer"}', false,
         'The task''s priority.'),
        ('{task,step}', 'environment', '{"type": "string"}', false,
         'Environment that was in force when the task was created.'),

        ('{task.started,task.completed,task.failed,task.cancelled,task.paused,task.resumed,task.retry_requested,task.resolved_manually}',
         'started_at', '{"type": "string", "format": "date-time"}', false,
         'When the first step started; absent where none had.'),
        ('{task.completed}', 'completed_at', '{"type": "string", "format": "date-time"}', true,
         'When it ended.'),
        ('{task.completed}', 'total_execution_duration', '{"type": "number", "minimum": 0}', true,
         'Seconds from started_at to completed_at.'),
        ('{task.started,task.failed,task.cancelled,task.paused,task.resumed,task.retry_requested,task.resolved_manually}',
         'current_execution_duration', '{"type": "number", "minimum": 0}', false,
         'Seconds from started_at to this event; absent where it had not started.'),
        ('{task}', 'total_steps', '{"type": "integer", "minimum": 0}', false,
         'Number of its steps.'),
        ('{task}', 'completed_steps', '{"type": "integer", "minimum": 0}', false,
         'How many of them were complete, resolved by hand or skipped by then, and are so still.'),
        ('{task}', 'failed_steps', '{"type": "integer", "minimum": 0}', false,
         'How many were in error by then, and are so still.'),
        ('{task}', 'pending_steps', '{"type": "integer", "minimum": 0}', false,
         'The rest.'),
        ('{task.initialize_requested,task.started}', 'task_context', '{}', false,
         'What the task was created with.'),
        ('{task.failed}', 'error_message', '{"type": "string"}', false,
         'Why it failed: what the step said that failed first for good.'),
        ('{task.failed}', 'exception_class', '{"type": "string"}', false,
         'SQLSTATE of that error.'),
        ('{task.failed}', 'error_steps', '{"type": "array", "items": {"type": "string"}}', false,
         'Names of the steps that were in error by then, and are so still.'),
        ('{task.cancelled,task.resolved_manually,task.retry_requested}', 'reason', '{"type": "string"}', false,
         'What the operator gave as a reason.'),

        ('{step}', 'step_id', '{"type": "integer"}', true,
         'Step.'),
        ('{step}', 'step_name', '{"type": "string"}', false,
         'Name of the step.'),
        ('{step}', 'attempt_number', '{"type": "integer", "minimum": 1}', false,
         'Attempt that this is about; absent where none was made.'),
        ('{step}', 'retry_limit', '{"type": "integer", "minimum": 0}', false,
         'Attempts in all.'),
        ('{step.started,step.completed,step.failed,step.retry_requested,step.cancelled}',
         'started_at', '{"type": "string", "format": "date-time"}', false,
         'When the attempt began; absent where none was under way.'),
        ('{step.completed}', 'completed_at', '{"type": "string", "format": "date-time"}', true,
         'When it was complete.'),
        ('{step.completed}', 'execution_duration', '{"type": "number", "minimum": 0}', true,
         'Seconds from started_at to completed_at.'),
        ('{step.failed,step.retry_requested,step.cancelled}',
         'execution_duration', '{"type": "number", "minimum": 0}', false,
         'Seconds that the attempt took; absent where none was under way.'),
        ('{step.completed,step.resolved_manually}', 'step_results', '{}', false,
         'What the handler returned, or the operator gave; absent where that was nothing.'),
        ('{step.started}', 'step_inputs', '{}', false,
         'What it works on: what an operator gave it, else the task''s context.'),
        ('{step.started}', 'step_dependencies', '{"type": "array", "items": {"type": "string"}}', false,
         'Names of the steps that it directly depends on.'),
        ('{step.failed,step.retry_requested}', 'error_message', '{"type": "string"}', false,
         'What the attempt said; absent where an operator asked for the retry.'),
        ('{step.failed,step.retry_requested}', 'exception_class', '{"type": "string"}', false,
         'SQLSTATE of that error; absent where a worker outside gave none.'),
        ('{step.failed,step.retry_requested}', 'backtrace', '{"type": "string"}', false,
         'Where it was raised, until another attempt has ended.'),
        ('{step.failed,step.retry_requested}', 'error', '{"type": "object"}', false,
         'All of that error; when another attempt has ended, message, sqlstate and attempt of it.'),
        ('{step.failed,step.retry_requested}', 'final_failure', '{"type": "boolean"}', false,
         'Whether no further attempt follows by itself; absent where an operator asked for the retry.'),
        ('{step.retry_requested}', 'previous_attempts', '{"type": "integer", "minimum": 0}', true,
         'Attempts that were made.'),
        ('{step.retry_requested}', 'retry_reason', '{"enum": ["attempt_failed", "requested"]}', true,
         'attempt_failed: it follows by itself; requested: an operator asked for it.'),
        ('{step.retry_requested}', 'next_attempt_at', '{"type": "string", "format": "date-time"}', false,
         'When the next attempt is due, until it begins.'),
        ('{step.retry_requested}', 'backoff_strategy', '{"enum": ["exponential", "constant"]}', false,
         'How the delays between its attempts grow; absent where an operator asked for the retry.'),
        ('{step.cancelled,step.resolved_manually}', 'reason', '{"type": "string"}', false,
         'What the operator gave as a reason.'),

        ('{registry}', 'correlation_id', '{"type": "string"}', true,
         'tasker.correlation_id of the session, or one that all of its transaction share.'),
        ('{registry}', 'component', '{"type": "string"}', true,
         'What did it: the registry.'),
        ('{registry}', 'message', '{"type": "string"}', true,
         'The same for people.'),
        ('{registry}', 'environment', '{"type": "string"}', false,
         'tasker.environment of the session.'),
        ('{registry}', 'tasker_version', '{"type": "string"}', true,
         'Version of the extension.'),
        ('{registry}', 'process_id', '{"type": "integer"}', true,
         'Process of the session.'),
        ('{registry}', 'thread_id', '{"type": "string"}', true,
         'Its only thread, in hexadecimal digits.'),
        ('{registry}', 'entity_type', '{"type": "string"}', true,
         'What an entry of the registry is called.'),
        ('{registry}', 'entity_id', '{"type": "string"}', true,
         'namespace/name/version; * for every version.'),
        ('{registry}', 'entity_class', '{"type": "string"}', false,
         'What is behind the name, such as a function''s signature.'),
        ('{registry}', 'registry_name', '{"type": "string"}', true,
         'The registry.'),
        ('{registry}', 'options', '{"type": "object"}', true,
         'namespace_name, version and replace as they were given.'),
        ('{registry}', 'operation', '{"enum": ["registered", "unregistered"]}', true,
         'What was done.')) AS f (events, field, schema, required, description);
$$;
COMMENT ON FUNCTION tasker._event_fields() IS
'Every field of the payload of every event of the engine: the events, or categories of them, that have it; its JSON Schema; whether it is always there; what it means. What depends on the task or the template is absent once that is gone. tasker._events() gives them. Source: reference 7.2. Private.';

CREATE FUNCTION tasker._payload_schema(name text, category text, description text)
RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT jsonb_build_object(
        '$schema', 'https://json-schema.org/draft/2020-12/schema',
        'title', name,
        'description', _payload_schema.description,
        'type', 'object',
        'properties', jsonb_object_agg(
            f.field,
            CASE f.field WHEN 'event_type' THEN jsonb_build_object('const', name) ELSE f.schema END
            || jsonb_build_object('description', f.description)),
        'required', jsonb_agg(f.field ORDER BY f.place) FILTER (WHERE f.required))
    FROM tasker._event_fields() AS f
    WHERE f.events && ARRAY[name, category];
$$;
COMMENT ON FUNCTION tasker._payload_schema(text, text, text) IS
'JSON Schema (2020-12) of the payload of an event of the engine. It is open: a handler adds fields of its own to the completion of its step. Private.';

CREATE FUNCTION tasker._payload(base jsonb, facts jsonb, VARIADIC pairs "any")
RETURNS jsonb
LANGUAGE C IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'tasker_payload';
COMMENT ON FUNCTION tasker._payload(jsonb, jsonb, "any") IS
'An object of the pairs of base, of facts and of keys and values, each over those before; what is NULL is left out, a time is in UTC. Private.';

CREATE FUNCTION tasker._task_facts(task_ids bigint[])
RETURNS TABLE (task_id bigint, namespace text, facts jsonb)
LANGUAGE C STABLE ROWS 100
AS 'MODULE_PATHNAME', 'tasker_task_facts';
COMMENT ON FUNCTION tasker._task_facts(bigint[]) IS
'What the payload of each event of a task contains, whatever the event: task_id, task_name, namespace, version, correlation_id, initiator, source_system, tags, priority, environment; absent what is NULL. No row for a task that is not there. Private.';

CREATE FUNCTION tasker._events(event_ids bigint[], row_ids bigint[])
RETURNS TABLE (
    place bigint,
    event_id bigint,
    occurred_at timestamptz,
    name text,
    task_id bigint,
    step_id bigint,
    payload jsonb)
LANGUAGE C STABLE ROWS 100
AS 'MODULE_PATHNAME', 'tasker_events';
COMMENT ON FUNCTION tasker._events(bigint[], bigint[]) IS
'Describes events: each by its id and the key of the row that it is read from, in tasker.log or tasker.published_event. A row for each that is still there, with its place in the arrays, in their order; payload as tasker._event_fields() lists it, times in UTC. Of what has changed since, such as a task''s tags or a step''s results, it says what stands there now. Source: design, contract, "Events"; reference 7.2. Private.';
