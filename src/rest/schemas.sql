-- What bodies of the REST API look like: what comes in is checked against these,
-- and /tasker/openapi.json shows them all.

CREATE FUNCTION tasker._rest_schemas()
RETURNS TABLE (name text, schema jsonb)
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 40
SET search_path = pg_catalog, pg_temp
AS $$
    VALUES
    -- what comes in
    ('new_task', jsonb '{
        "type": "object",
        "description": "A task to create. It may stand in an object as its only member, task.",
        "required": ["name", "context", "initiator", "reason", "source_system"],
        "additionalProperties": false,
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 128, "description": "Name of its template."},
            "context": {"type": "object", "description": "What it works on; checked against the schema of its template."},
            "initiator": {"type": "string", "minLength": 1, "description": "Who asks for it."},
            "reason": {"type": "string", "minLength": 1, "description": "Why."},
            "source_system": {"type": "string", "minLength": 1, "description": "System it comes from."},
            "namespace": {"type": "string", "minLength": 1, "maxLength": 128, "default": "default"},
            "version": {"type": ["string", "null"], "maxLength": 128, "description": "Version of its template; null: the highest."},
            "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 100},
            "bypass_steps": {"type": "array", "items": {"type": "string"}, "description": "Names of steps to skip."},
            "priority": {"type": "integer", "minimum": -2147483647, "maximum": 2147483647, "description": "Higher goes first; 0: as the template says."},
            "run_at": {"type": ["string", "null"], "format": "date-time", "description": "Not before."},
            "idempotency_key": {"type": ["string", "null"], "minLength": 1, "maxLength": 500, "description": "The same key in a namespace makes one task; before the header Idempotency-Key."},
            "correlation_id": {"type": ["string", "null"], "description": "Carried through; before the header X-Correlation-ID."},
            "traceparent": {"type": ["string", "null"], "description": "W3C trace context; before the header of that name."}
        }}'),
    ('task_changes', '{
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "reason": {"type": "string"},
            "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 100},
            "priority": {"type": "integer", "minimum": -2147483647, "maximum": 2147483647}
        }}'),
    ('step_changes', '{
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "retry_limit": {"type": "integer", "minimum": 1, "maximum": 32767, "description": "Attempts in all."},
            "inputs": {"description": "What its handler gets instead of the task''s context."}
        }}'),
    ('reason', '{
        "type": "object",
        "additionalProperties": false,
        "properties": {"reason": {"type": ["string", "null"], "description": "Kept in the log."}}}'),
    ('resolution', '{
        "type": "object",
        "required": ["reason"],
        "additionalProperties": false,
        "properties": {"reason": {"type": "string", "minLength": 1, "description": "Kept in the log."}}}'),
    ('step_resolution', '{
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "results": {"description": "What its dependants get as if its handler had returned it."},
            "reason": {"type": ["string", "null"], "description": "Kept in the log."}
        }}'),

    -- what goes out
    ('task', '{
        "type": "object",
        "required": ["task_id", "name", "namespace", "version", "full_name", "state", "status", "complete", "context", "tags", "created_at", "requested_at"],
        "properties": {
            "task_id": {"type": "integer"},
            "name": {"type": "string"},
            "namespace": {"type": "string"},
            "version": {"type": "string"},
            "full_name": {"type": "string"},
            "state": {"enum": ["pending", "in_progress", "paused", "complete", "error", "cancelled", "resolved_manually"]},
            "status": {"type": "string"},
            "complete": {"type": "boolean"},
            "error": {"type": ["object", "null"]},
            "context": {"type": "object"},
            "initiator": {"type": ["string", "null"]},
            "source_system": {"type": ["string", "null"]},
            "reason": {"type": ["string", "null"]},
            "tags": {"type": "array", "items": {"type": "string"}},
            "bypass_steps": {"type": "array", "items": {"type": "string"}},
            "priority": {"type": "integer"},
            "idempotency_key": {"type": ["string", "null"]},
            "environment": {"type": ["string", "null"]},
            "correlation_id": {"type": ["string", "null"]},
            "traceparent": {"type": ["string", "null"]},
            "created_at": {"type": "string", "format": "date-time"},
            "requested_at": {"type": "string", "format": "date-time"},
            "run_at": {"type": ["string", "null"], "format": "date-time"},
            "started_at": {"type": ["string", "null"], "format": "date-time"},
            "finished_at": {"type": ["string", "null"], "format": "date-time"},
            "steps": {"type": "object", "description": "In lists: how many there are, and up to a hundred how they stand."},
            "execution": {"type": ["object", "null"], "description": "How the task stands."},
            "workflow_steps": {"type": "array", "items": {"$ref": "#/components/schemas/step"}},
            "dependency_analysis": {"type": "object"}
        }}'),
    ('task_answer', '{"type": "object", "required": ["task"], "properties": {"task": {"$ref": "#/components/schemas/task"}}}'),
    ('task_list', '{"type": "object", "required": ["tasks"], "properties": {"tasks": {"type": "array", "maxItems": 100, "items": {"$ref": "#/components/schemas/task"}}}}'),
    ('step', '{
        "type": "object",
        "required": ["step_id", "task_id", "name", "handler_class", "state", "attempts", "retry_limit", "parents_ids", "children_ids"],
        "properties": {
            "step_id": {"type": "integer"},
            "task_id": {"type": "integer"},
            "name": {"type": "string"},
            "handler_class": {"type": "string"},
            "state": {"enum": ["pending", "in_progress", "waiting_for_retry", "complete", "error", "cancelled", "resolved_manually", "skipped"]},
            "status": {"type": "string"},
            "attempts": {"type": "integer"},
            "retry_limit": {"type": "integer"},
            "retryable": {"type": "boolean"},
            "skippable": {"type": "boolean"},
            "inputs": {"description": "What an operator gave it; null: the task''s context."},
            "results": {},
            "error": {"type": ["object", "null"]},
            "claimed_by": {"type": ["string", "null"]},
            "lease_until": {"type": ["string", "null"], "format": "date-time"},
            "next_attempt_at": {"type": ["string", "null"], "format": "date-time"},
            "started_at": {"type": ["string", "null"], "format": "date-time"},
            "finished_at": {"type": ["string", "null"], "format": "date-time"},
            "dependency_level": {"type": "integer"},
            "parents_ids": {"type": "array", "items": {"type": "integer"}},
            "children_ids": {"type": "array", "items": {"type": "integer"}},
            "siblings_ids": {"type": ["array", "null"], "items": {"type": "integer"}},
            "siblings_count": {"type": "integer"},
            "attempts_log": {"type": "array", "items": {"type": "object"}, "description": "Of one step: the last hundred of its state changes."}
        }}'),
    ('step_answer', '{"type": "object", "required": ["step"], "properties": {"step": {"$ref": "#/components/schemas/step"}}}'),
    ('step_list', '{"type": "object", "required": ["steps"], "properties": {"steps": {"type": "array", "maxItems": 100, "items": {"$ref": "#/components/schemas/step"}}}}'),
    ('cancelled', '{"type": "object", "required": ["cancelled"], "properties": {"cancelled": {"const": true}}}'),
    ('transition_list', '{
        "type": "object",
        "required": ["transitions"],
        "properties": {"transitions": {"type": "array", "maxItems": 100, "items": {
            "type": "object",
            "required": ["transition_id", "occurred_at", "task_id", "step_id", "from_state", "to_state"],
            "properties": {
                "transition_id": {"type": "string"},
                "occurred_at": {"type": "string", "format": "date-time"},
                "task_id": {"type": "integer"},
                "step_id": {"type": ["integer", "null"]},
                "step_name": {"type": ["string", "null"]},
                "from_state": {"type": ["string", "null"]},
                "to_state": {"type": "string"},
                "attempt": {"type": ["integer", "null"]},
                "metadata": {}
            }}}}}'),
    ('definition', '{"type": "object", "description": "A task definition. As application/json or, in YAML, as application/yaml."}'),
    ('template', '{
        "type": "object",
        "required": ["namespace", "name", "version", "full_name", "step_count", "registered_at", "registered_by", "is_latest"],
        "properties": {
            "template_id": {"type": "integer"},
            "namespace": {"type": "string"},
            "name": {"type": "string"},
            "version": {"type": "string"},
            "full_name": {"type": "string"},
            "description": {"type": ["string", "null"]},
            "environment": {"type": ["string", "null"]},
            "step_count": {"type": "integer"},
            "registered_at": {"type": "string", "format": "date-time"},
            "registered_by": {"type": "string"},
            "is_latest": {"type": "boolean"},
            "definition": {"type": "object"},
            "source": {"type": "string"},
            "schema": {"description": "JSON Schema of the context."},
            "versions": {"type": "array", "items": {"type": "string"}},
            "step_templates": {"type": "array", "items": {"type": "object"}}
        }}'),
    ('template_answer', '{"type": "object", "required": ["template"], "properties": {"template": {"$ref": "#/components/schemas/template"}}}'),
    ('template_list', '{"type": "object", "required": ["templates"], "properties": {"templates": {"type": "array", "maxItems": 100, "items": {"$ref": "#/components/schemas/template"}}}}'),
    ('problem_list', '{
        "type": "object",
        "required": ["problems"],
        "properties": {"problems": {"type": "array", "items": {
            "type": "object",
            "required": ["path", "line", "message"],
            "properties": {
                "path": {"type": "string"},
                "line": {"type": ["integer", "null"]},
                "message": {"type": "string"},
                "hint": {"type": ["string", "null"]}
            }}}}}'),
    ('handler_namespace_list', '{
        "type": "object",
        "required": ["namespaces", "total_namespaces", "generated_at"],
        "properties": {
            "namespaces": {"type": "array", "items": {
                "type": "object",
                "required": ["name", "handler_count"],
                "properties": {"name": {"type": "string"}, "handler_count": {"type": "integer"}, "step_handler_count": {"type": "integer"}}}},
            "total_namespaces": {"type": "integer"},
            "generated_at": {"type": "string", "format": "date-time"}
        }}'),
    ('handler_list', '{
        "type": "object",
        "required": ["namespace", "handlers", "total_handlers"],
        "properties": {
            "namespace": {"type": "string"},
            "handlers": {"type": "array", "items": {
                "type": "object",
                "required": ["name", "namespace", "versions", "latest_version", "handler_count"],
                "properties": {"versions": {"type": "array", "items": {"type": "string"}}}}},
            "total_handlers": {"type": "integer"},
            "step_handlers": {"type": "array", "items": {"type": "object", "required": ["name", "kind"]}}
        }}'),
    ('handler_answer', '{
        "type": "object",
        "required": ["handler", "generated_at"],
        "properties": {
            "handler": {
                "type": "object",
                "required": ["name", "namespace", "version", "full_name", "class_name", "available", "step_templates", "dependency_graph"],
                "properties": {
                    "available": {"type": "boolean"},
                    "step_templates": {"type": "array", "items": {"type": "object"}},
                    "dependency_graph": {"type": "object", "required": ["nodes", "edges", "execution_order"]}}},
            "generated_at": {"type": "string", "format": "date-time"}
        }}'),
    ('worker_list', '{"type": "object", "required": ["workers", "processes", "queues"]}'),
    ('event_list', '{
        "type": "object",
        "required": ["events"],
        "properties": {"events": {"type": "array", "items": {"type": "object", "required": ["name", "category", "description"]}}}}'),
    ('event_answer', '{"type": "object", "required": ["event"], "properties": {"event": {"type": "object", "required": ["name", "category"]}}}'),
    ('ready', '{
        "type": "object",
        "required": ["ready", "checks", "timestamp"],
        "properties": {"ready": {"type": "boolean"}, "checks": {"type": "object"}, "message": {"type": "string"}, "timestamp": {"type": "string", "format": "date-time"}}}'),
    ('live', '{
        "type": "object",
        "required": ["alive", "timestamp", "service"],
        "properties": {"alive": {"const": true}, "timestamp": {"type": "string", "format": "date-time"}, "service": {"const": "tasker"}}}'),
    ('health', '{"type": "object", "required": ["healthy", "status", "metrics", "database"], "properties": {"healthy": {"type": "boolean"}}}'),
    ('performance', '{"type": "object", "required": ["system_overview", "performance_trends"]}'),
    ('bottlenecks', '{"type": "object", "required": ["bottleneck_analysis"]}'),
    ('me', '{
        "type": "object",
        "required": ["role", "permissions", "enforced", "version"],
        "properties": {
            "role": {"type": "string"},
            "permissions": {"type": "array", "items": {
                "type": "object",
                "required": ["permission", "namespace"],
                "properties": {"permission": {"type": "string"}, "namespace": {"type": "string"}}}},
            "enforced": {"type": "boolean"},
            "version": {"type": "string"}
        }}'),
    ('openapi', '{"type": "object", "required": ["openapi", "info", "paths", "components"]}'),
    ('problem', '{
        "type": "object",
        "description": "RFC 9457.",
        "required": ["type", "title", "status"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "hint": {"type": "string"},
            "sqlstate": {"type": "string"},
            "errors": {"type": ["object", "array"], "description": "What is wrong, by place in the body."}
        }}');
$$;
COMMENT ON FUNCTION tasker._rest_schemas() IS
'JSON Schemas of the bodies of the REST API. Private.';
