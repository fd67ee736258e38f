/*
 * rest_routes.c
 *	  Every route of the API, and how one is found.
 *
 * A row is the route, its statement, its parameters and what comes back: the
 * router and /tasker/openapi.json both read it here.
 */
#include <string.h>

#include "rest_internal.h"

static const Parameter task_id = {"task_id", IN_PATH, TYPE_ID, "Task."};
static const Parameter step_id = {"step_id", IN_PATH, TYPE_ID, "Step of that task."};
static const Parameter namespace = {"namespace", IN_QUERY, TYPE_TEXT, "Namespace of the template."};
static const Parameter name = {"name", IN_QUERY, TYPE_TEXT, "Name of the template."};
static const Parameter version = {"version", IN_QUERY, TYPE_TEXT, "Version of the template."};
static const Parameter status = {"status", IN_QUERY, TYPE_CHOICE, "State of the task.",
	.choices = "pending|in_progress|paused|complete|error|cancelled|resolved_manually"};
static const Parameter tag = {"tag", IN_QUERY, TYPE_TEXTS, "A tag that the task has; several: all of them."};
static const Parameter initiator = {"initiator", IN_QUERY, TYPE_TEXT, "Who asked for the task."};
static const Parameter source_system = {"source_system", IN_QUERY, TYPE_TEXT, "System that the task came from."};
static const Parameter correlation_id = {"correlation_id", IN_QUERY, TYPE_TEXT, "The task's correlation id."};
static const Parameter created_after = {"created_after", IN_QUERY, TYPE_TIME, "Created at that time or later."};
static const Parameter created_before = {"created_before", IN_QUERY, TYPE_TIME, "Created before that time."};
static const Parameter search = {"q", IN_QUERY, TYPE_TEXT, "An id, or a part of the name."};
static const Parameter order = {"order", IN_QUERY, TYPE_CHOICE, "By id: the newest first, or the oldest.",
	.fallback = "desc", .choices = "desc|asc"};
static const Parameter limit = {"limit", IN_QUERY, TYPE_INTEGER, "Rows of a page.",
	.fallback = "20", .minimum = 1, .maximum = 100};
static const Parameter limit_long = {"limit", IN_QUERY, TYPE_INTEGER, "Rows of a page.",
	.fallback = "100", .minimum = 1, .maximum = 100};
static const Parameter cursor = {"cursor", IN_QUERY, TYPE_TEXT, "Where the page begins: from the Link header of the page before."};
static const Parameter include_dependencies = {"include_dependencies", IN_QUERY, TYPE_FLAG,
	"Adds dependency_analysis.", .fallback = "false"};
static const Parameter key_header = {"Idempotency-Key", IN_HEADER, TYPE_TEXT, "As idempotency_key of the body."};
static const Parameter correlation_header = {"X-Correlation-ID", IN_HEADER, TYPE_TEXT, "As correlation_id of the body."};
static const Parameter trace_header = {"traceparent", IN_HEADER, TYPE_TEXT, "As traceparent of the body."};
static const Parameter reason = {"reason", IN_QUERY, TYPE_TEXT, "As reason of the body."};
static const Parameter format = {"format", IN_QUERY, TYPE_CHOICE, "How it is written down.",
	.fallback = "mermaid", .choices = "mermaid|dot|json|svg"};

static const Parameter path_namespace = {"namespace", IN_PATH, TYPE_TEXT, "Namespace."};
static const Parameter path_name = {"name", IN_PATH, TYPE_TEXT, "Name."};
static const Parameter any_version = {"version", IN_QUERY, TYPE_TEXT, "Version; without it, or latest: the highest by semantic versioning."};
static const Parameter environment = {"environment", IN_QUERY, TYPE_TEXT, "Block of its environments that its tasks follow."};
static const Parameter replace = {"replace", IN_QUERY, TYPE_FLAG, "Takes the place of another text of that name and version.",
	.fallback = "false"};
static const Parameter category = {"category", IN_QUERY, TYPE_TEXT, "Of one category only."};
static const Parameter event_names = {"events", IN_QUERY, TYPE_TEXT, "Names and prefixes with commas between, as task.*,step.failed; without it all."};
static const Parameter event_namespace = {"namespace", IN_QUERY, TYPE_TEXT, "Of that namespace only."};
static const Parameter event_task = {"task_id", IN_QUERY, TYPE_ID, "Of that task only."};
static const Parameter last_event = {"last_event_id", IN_QUERY, TYPE_ID, "As the header Last-Event-ID."};
static const Parameter last_event_header = {"Last-Event-ID", IN_HEADER, TYPE_ID, "Goes on behind that event."};
static const Parameter metrics_format = {"format", IN_QUERY, TYPE_CHOICE, "How they are written down.",
	.fallback = "prometheus", .choices = "prometheus|json|csv"};
static const Parameter period = {"period", IN_QUERY, TYPE_INTEGER, "Hours to look back.",
	.fallback = "24", .minimum = 1, .maximum = 24 * 366};

const Route rest_routes[] = {
	{METHOD_GET, "/tasks", "list_tasks", "task:index", "Tasks, the newest first.",
		"SELECT body, next FROM tasker._rest_list_tasks($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
		{&namespace, &name, &version, &status, &tag, &initiator, &source_system, &correlation_id,
		&created_after, &created_before, &search, &order, &limit, &cursor},
	.answer = "task_list"},
	{METHOD_POST, "/tasks", "create_task", "task:create",
		"Creates a task. The same idempotency key again: 200, and the task that it made.",
		"SELECT status, location, body FROM tasker._rest_create_task($1, $2, $3, $4)",
		{&key_header, &correlation_header, &trace_header},
	.body = "new_task", .answer = "task_answer", .status = 201, .not_found = 422},
	{METHOD_GET, "/tasks/{task_id}", "show_task", "task:show", "A task with its steps.",
		"SELECT tasker._rest_show_task($1, $2) AS body", {&task_id, &include_dependencies},
	.answer = "task_answer"},
	{METHOD_PATCH | METHOD_PUT, "/tasks/{task_id}", "update_task", "task:update", "Changes a task's reason, tags or priority.",
		"SELECT tasker._rest_update_task($1, $2) AS body", {&task_id},
	.body = "task_changes", .answer = "task_answer"},
	{METHOD_DELETE, "/tasks/{task_id}", "cancel_task", "task:cancel", "Cancels a task and its steps.",
		"SELECT tasker._rest_operate_task('cancel', $1, $2, $3) AS body", {&task_id, &reason},
	.body = "reason", .answer = "cancelled"},
	{METHOD_POST, "/tasks/{task_id}/retry", "retry_task", "task:retry", "Starts a task's failed steps anew.",
		"SELECT tasker._rest_operate_task('retry', $1, NULL, $2) AS body", {&task_id},
	.body = "reason", .answer = "task_answer"},
	{METHOD_POST, "/tasks/{task_id}/resolve", "resolve_task", "task:resolve", "Declares a task in error dealt with by hand.",
		"SELECT tasker._rest_operate_task('resolve', $1, NULL, $2) AS body", {&task_id},
	.body = "resolution", .answer = "task_answer"},
	{METHOD_POST, "/tasks/{task_id}/pause", "pause_task", "task:pause", "Starts no further step of a task.",
		"SELECT tasker._rest_operate_task('pause', $1, NULL, $2) AS body", {&task_id},
	.body = "reason", .answer = "task_answer"},
	{METHOD_POST, "/tasks/{task_id}/resume", "resume_task", "task:pause", "Lets a paused task go on.",
		"SELECT tasker._rest_operate_task('resume', $1, NULL, $2) AS body", {&task_id},
	.body = "reason", .answer = "task_answer"},
	{METHOD_GET, "/tasks/{task_id}/transitions", "list_transitions", "task:show", "What happened to a task and its steps, in the order of time.",
		"SELECT body, next FROM tasker._rest_list_transitions($1, $2, $3)", {&task_id, &limit_long, &cursor},
	.answer = "transition_list"},
	{METHOD_GET, "/tasks/{task_id}/diagram", "show_task_diagram", "task:show", "A task's graph.",
		"SELECT tasker._rest_task_diagram($1, $2) AS body, tasker._rest_diagram_type($2) AS type", {&task_id, &format},
	.type = "text/plain"},
	{METHOD_GET, "/tasks/{task_id}/workflow_steps", "list_steps", "workflow_step:index", "A task's steps.",
		"SELECT body, next FROM tasker._rest_list_steps($1, $2, $3)", {&task_id, &limit_long, &cursor},
	.answer = "step_list"},
	{METHOD_GET, "/tasks/{task_id}/workflow_steps/{step_id}", "show_step", "workflow_step:show", "A step, and what happened to it.",
		"SELECT tasker._rest_show_step($1, $2) AS body", {&task_id, &step_id},
	.answer = "step_answer"},
	{METHOD_PATCH | METHOD_PUT, "/tasks/{task_id}/workflow_steps/{step_id}", "update_step", "workflow_step:update",
		"Changes a step's limit of attempts or its inputs.",
		"SELECT tasker._rest_update_step($1, $2, $3) AS body", {&task_id, &step_id},
	.body = "step_changes", .answer = "step_answer"},
	{METHOD_DELETE, "/tasks/{task_id}/workflow_steps/{step_id}", "cancel_step", "workflow_step:cancel",
		"Cancels a step and those that need it.",
		"SELECT tasker._rest_operate_step('cancel', $1, $2, $3, $4) AS body", {&task_id, &step_id, &reason},
	.body = "reason", .answer = "cancelled"},
	{METHOD_POST, "/tasks/{task_id}/workflow_steps/{step_id}/retry", "retry_step", "workflow_step:retry", "Starts a failed step anew.",
		"SELECT tasker._rest_operate_step('retry', $1, $2, NULL, $3) AS body", {&task_id, &step_id},
	.body = "reason", .answer = "step_answer"},
	{METHOD_POST, "/tasks/{task_id}/workflow_steps/{step_id}/resolve", "resolve_step", "workflow_step:resolve",
		"Declares a step done by hand.",
		"SELECT tasker._rest_operate_step('resolve', $1, $2, NULL, $3) AS body", {&task_id, &step_id},
	.body = "step_resolution", .answer = "step_answer"},
	{METHOD_GET, "/templates", "list_templates", "template:index", "Templates by namespace and name, the highest version first.",
		"SELECT body, next FROM tasker._rest_list_templates($1, $2, $3, $4)", {&namespace, &name, &limit_long, &cursor},
	.answer = "template_list"},
	{METHOD_POST, "/templates", "create_template", "template:create", "Registers a definition, in YAML or JSON.",
		"SELECT status, location, type, body FROM tasker._rest_create_template($1, $2, $3)", {&environment, &replace},
	.body = "definition", .body_is_text = true, .answer = "template_answer", .status = 201},
	{METHOD_POST, "/templates/validate", "validate_template", "template:show", "What is wrong with a definition; stores nothing.",
		"SELECT tasker._rest_validate_template($1, $2) AS body", {&environment},
	.body = "definition", .body_is_text = true, .answer = "problem_list"},
	{METHOD_GET, "/templates/{namespace}/{name}", "show_template", "template:show", "A template with its definition and its steps.",
		"SELECT tasker._rest_show_template($1, $2, $3) AS body", {&path_namespace, &path_name, &any_version},
	.answer = "template_answer"},
	{METHOD_GET, "/templates/{namespace}/{name}/diagram", "show_template_diagram", "template:show", "A template's graph.",
		"SELECT tasker._rest_template_diagram($1, $2, $3, $4) AS body, tasker._rest_diagram_type($4) AS type",
		{&path_namespace, &path_name, &any_version, &format},
	.type = "text/plain"},
	{METHOD_GET, "/handlers", "list_handler_namespaces", "handler:index", "Namespaces that have handlers.",
		"SELECT tasker._rest_list_handler_namespaces() AS body", {0},
	.answer = "handler_namespace_list"},
	{METHOD_GET, "/handlers/{namespace}", "list_handlers", "handler:index", "Task handlers and step handlers of a namespace.",
		"SELECT tasker._rest_list_handlers($1) AS body", {&path_namespace},
	.answer = "handler_list"},
	{METHOD_GET, "/handlers/{namespace}/{name}", "show_handler", "handler:show", "A task handler with its steps.",
		"SELECT tasker._rest_show_handler($1, $2, $3) AS body", {&path_namespace, &path_name, &any_version},
	.answer = "handler_answer"},
	{METHOD_GET, "/workers", "list_workers", "worker:index", "Workers outside, the engine's processes, and what waits.",
		"SELECT tasker._require('worker:index', NULL), tasker._rest_workers() AS body", {0},
	.answer = "worker_list"},
	{METHOD_GET, "/events", "stream_events", "event:index", "Events as they happen, as server-sent events.",
		"SELECT body, tick, at, event, events FROM tasker._rest_open_events($1, $2, $3, $4, $5)",
		{&event_names, &event_namespace, &event_task, &last_event, &last_event_header},
	.type = "text/event-stream", .kind = ROUTE_EVENTS},
	{METHOD_GET, "/events/catalog", "list_event_catalog", "event:index", "Every event that there is.",
		"SELECT tasker._rest_event_catalog($1) AS body", {&category},
	.answer = "event_list"},
	{METHOD_GET, "/events/catalog/{name}", "show_event_info", "event:index", "What the catalogue says of an event.",
		"SELECT tasker._rest_event_info($1) AS body", {&path_name},
	.answer = "event_answer"},
	{METHOD_GET, "/health/ready", "show_ready", NULL, "Whether steps are run.",
		"SELECT status, body FROM tasker._rest_ready()", {0},
	.answer = "ready", .is_open = true},
	{METHOD_GET, "/health/live", "show_live", NULL, "Whether the agent answers.", NULL, {0},
	.answer = "live", .is_open = true, .kind = ROUTE_LIVE},
	{METHOD_GET, "/health/status", "show_health_status", "health_status:index", "How the engine is, with figures.",
		"SELECT tasker._require('health_status:index', '*'), "
		"CASE WHEN h.body -> 'healthy' = 'true' THEN 200 ELSE 503 END AS status, h.body "
		"FROM tasker._rest_health_status() AS h (body)", {0},
	.answer = "health"},
	{METHOD_GET, "/metrics", "show_metrics", "metrics:index", "The metrics.",
		"SELECT tasker._require('metrics:index', '*'), tasker.metrics($1) AS body, tasker._rest_metrics_type($1) AS type",
		{&metrics_format},
	.type = "text/plain"},
	{METHOD_GET, "/analytics/performance", "show_performance", "analytics:index", "Rates and durations.",
		"SELECT tasker._require('analytics:index', NULL), tasker._rest_performance() AS body", {0},
	.answer = "performance"},
	{METHOD_GET, "/analytics/bottlenecks", "show_bottlenecks", "analytics:index", "Where time is lost.",
		"SELECT tasker._require('analytics:index', $1), tasker._rest_bottlenecks($1, $2, $3, $4) AS body",
		{&namespace, &name, &version, &period},
	.answer = "bottlenecks"},
	{METHOD_GET, "/me", "show_me", NULL, "Who asks, and what he may.",
		"SELECT tasker._rest_me() AS body", {0},
	.answer = "me"},
	{METHOD_GET, "/openapi.json", "show_openapi", NULL, "This document.",
		"SELECT tasker._rest_openapi($1) AS body", {0},
	.answer = "openapi", .is_open = true, .kind = ROUTE_OPENAPI},
};

const int	rest_route_count = sizeof(rest_routes) / sizeof(rest_routes[0]);

static const struct
{
	const char *name;
	int			method;
}			methods[] = {
	{"GET", METHOD_GET},
	{"HEAD", METHOD_GET},
	{"POST", METHOD_POST},
	{"PATCH", METHOD_PATCH},
	{"PUT", METHOD_PUT},
	{"DELETE", METHOD_DELETE},
	{"OPTIONS", METHOD_OPTIONS},
};

#define METHOD_COUNT ((int) (sizeof(methods) / sizeof(methods[0])))

/* 0 for one that no route has. */
int
method_of(const char *method)
{
	for (int i = 0; i < METHOD_COUNT; i++)
		if (strcmp(methods[i].name, method) == 0)
			return methods[i].method;
	return 0;
}

/* As the header Allow lists them. */
const char *
method_names(int wanted, Text *text)
{
	for (int i = 0; i < METHOD_COUNT; i++)
	{
		if ((methods[i].method & wanted) == 0)
			continue;
		if (text->length > 0)
			text_say(text, ", ");
		text_say(text, methods[i].name);
	}
	return text->data;
}

/* Whether the path is one of a pattern; the first part is the prefix. */
static bool
pattern_fits(const char *pattern, const Target *target)
{
	const char *part = pattern + 1;

	for (int i = 1; i < target->part_count; i++)
	{
		size_t		length = strcspn(part, "/");

		if (*part == '{')
		{
			if (target->parts[i][0] == '\0')
				return false;
		}
		else if (strlen(target->parts[i]) != length || strncmp(part, target->parts[i], length) != 0)
			return false;
		part += length;
		if (*part == '/')
			part++;
		else
			return i == target->part_count - 1;
	}
	return false;
}

/*
 * The route of a request; NULL: there is none, and allowed has the methods that
 * the path takes, 0 where there is no such path.
 */
const Route *
route_find(const Target *target, int method, int *allowed)
{
	*allowed = 0;
	if (target->part_count < 2 || strcmp(target->parts[0], &REST_PREFIX[1]) != 0)
		return NULL;
	for (int i = 0; i < rest_route_count; i++)
	{
		if (!pattern_fits(rest_routes[i].pattern, target))
			continue;
		if (rest_routes[i].methods & method)
			return &rest_routes[i];
		*allowed |= rest_routes[i].methods;
	}
	return NULL;
}
