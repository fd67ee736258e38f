-- The JSON Schema of definitions, which editors read: what registers satisfies
-- it, and what is wrong by itself does not.
SET client_min_messages = error;
CREATE EXTENSION IF NOT EXISTS tasker;
\pset format unaligned
\pset fieldsep ' | '

-- Whatever is registered here, by this test and by those before it.
SELECT tasker.register_external_handler('schema_step', 'schema');
SELECT count(tasker.register_task(source)) AS registered
FROM (VALUES
    ('{name: plain, namespace_name: schema, step_templates: [{name: a, handler_class: schema_step}]}'),
    ($$
name: full
namespace_name: schema
version: 1.2.3-rc.1+build.7
description: d
x-own: [1]
schema: {type: object}
timeout: 2 hours
on_failure: stop
concurrent: false
priority: -3
default_dependent_system: erp
handler_config: {currency: EUR}
named_steps: [a, b, c]
custom_events: [{name: order.big, description: x, payload_schema: {type: object}, x-y: 1}]
task_handler_class: T
module_namespace: M
step_templates:
  - {name: a, handler_class: schema_step, description: d, dependent_system: s, default_retryable: true, default_retry_limit: 1, skippable: true}
  - {name: b, handler_class: schema_step, depends_on_step: a, depends_on_steps: [a], timeout: 0.5, retry: {limit: 2, base_delay: 0, max_delay: 1 min, jitter: 0}}
  - {name: c, custom_events: [{name: a.b}], handler_config: {type: api, url: "https://a.b", params: {}, headers: {}, ssl: {}, enable_exponential_backoff: true, retry_delay: 1, jitter_factor: 2, x-z: 1}}
environments:
  live:
    name: full
    priority: 5
    step_templates: [{name: c, handler_config: {url: "https://c.d"}}]
  test:
$$),
    ($$
name: nulls
namespace_name: schema
description:
timeout: ~
on_failure: null
concurrent:
named_steps:
environments:
step_templates: [{name: a, handler_class: schema_step, retry: , depends_on_steps: ~, handler_config: }]
$$)) AS t (source);
SELECT t.namespace, t.name, e.*
FROM tasker.template AS t
CROSS JOIN LATERAL tasker.json_schema_errors(
    tasker.definition_schema(),
    -- a key that is not known is allowed with a warning, but flagged
    t.definition - ARRAY(SELECT w.path[1] FROM tasker._definition_warnings(t.definition) AS w WHERE cardinality(w.path) = 1)) AS e
WHERE NOT EXISTS (SELECT FROM tasker._definition_warnings(t.definition) AS w WHERE cardinality(w.path) > 1);
-- Every key has what an editor shows of it, and its example is one.
WITH property AS (
    SELECT k.scope, k.key, k.example,
           tasker.definition_schema() #> (CASE k.scope
               WHEN 'task' THEN '{properties}'
               WHEN 'step' THEN '{properties,step_templates,items,properties}'
               WHEN 'retry' THEN '{properties,step_templates,items,properties,retry,properties}'
               WHEN 'api' THEN '{properties,step_templates,items,properties,handler_config,then,properties}'
               WHEN 'event' THEN '{properties,custom_events,items,properties}'
           END)::text[] -> k.key AS schema
    FROM tasker._definition_keys() AS k
)
SELECT p.scope, p.key
FROM property AS p
WHERE NOT (coalesce(p.schema ?& '{title,description,examples}', false)
           AND tasker.json_schema_is_valid(p.schema, tasker.yaml_to_jsonb(p.example) -> p.key)
           AND tasker.json_schema_is_valid(p.schema, coalesce(p.schema -> 'default', tasker.yaml_to_jsonb(p.example) -> p.key)));

-- Wrong by themselves, one thing each.
SELECT w.n, w.source, e.errors, e.instance_path
FROM unnest(ARRAY[
    '[]',
    'step_templates: [{name: a, handler_class: b}]',
    'name: x',
    '{name: "", step_templates: [{name: a, handler_class: b}]}',
    '{name: 7, step_templates: [{name: a, handler_class: b}]}',
    '{name: x, step_templates: []}',
    '{name: x, step_templates: {}}',
    '{name: x, step_templates: [a]}',
    '{name: x, step_templates: [{handler_class: b}]}',
    '{name: x, step_templates: [{name: a}]}',
    '{name: x, step_templates: [{name: a, handler_class: b, timout: 3}]}',
    '{name: x, step_templates: [{name: a, handler_class: b, depends_on_step: [c]}]}',
    '{name: x, step_templates: [{name: a, handler_class: b, depends_on_steps: c}]}',
    '{name: x, step_templates: [{name: a, handler_class: b, retry: {limit: 0}}]}',
    '{name: x, step_templates: [{name: a, handler_class: b, retry: {limits: 1}}]}',
    '{name: x, step_templates: [{name: a, handler_class: b, retry: {jitter: 2}}]}',
    '{name: x, step_templates: [{name: a, handler_class: b, skippable: yes}]}',
    '{name: x, step_templates: [{name: a, handler_class: b, default_retry_limit: 1.5}]}',
    '{name: x, step_templates: [{name: a, handler_config: {type: api, url: "https://a.b", param: {}}}]}',
    '{name: x, step_templates: [{name: a, handler_config: {type: api, url: 7}}]}',
    '{name: x, version: 1.0, step_templates: [{name: a, handler_class: b}]}',
    '{name: x, version: v1.0.0, step_templates: [{name: a, handler_class: b}]}',
    '{name: x, on_failure: stp, step_templates: [{name: a, handler_class: b}]}',
    '{name: x, timeout: 0, step_templates: [{name: a, handler_class: b}]}',
    '{name: x, timeout: -1, step_templates: [{name: a, handler_class: b}]}',
    '{name: x, priority: 1e10, step_templates: [{name: a, handler_class: b}]}',
    '{name: x, concurrent: "no", step_templates: [{name: a, handler_class: b}]}',
    '{name: x, colour: red, step_templates: [{name: a, handler_class: b}]}',
    '{name: x, custom_events: [{name: big}], step_templates: [{name: a, handler_class: b}]}',
    '{name: x, custom_events: [{name: task.big}], step_templates: [{name: a, handler_class: b}]}',
    '{name: x, custom_events: [{description: none}], step_templates: [{name: a, handler_class: b}]}',
    '{name: x, environments: [], step_templates: [{name: a, handler_class: b}]}',
    '{name: x, environments: {live: text}, step_templates: [{name: a, handler_class: b}]}',
    '{name: x, environments: {live: {colour: red}}, step_templates: [{name: a, handler_class: b}]}',
    '{name: x, environments: {live: {environments: {}}}, step_templates: [{name: a, handler_class: b}]}',
    '{name: x, environments: {live: {step_templates: [{timeout: 1}]}}, step_templates: [{name: a, handler_class: b}]}'
]) WITH ORDINALITY AS w (source, n)
LEFT JOIN LATERAL (
    SELECT count(*) AS errors, string_agg(e.instance_path, ' ' ORDER BY e.instance_path) AS instance_path
    FROM tasker.json_schema_errors(tasker.definition_schema(), tasker.yaml_to_jsonb(w.source)) AS e) AS e ON true
ORDER BY w.n;
SELECT tasker.unregister_handler('schema_step', 'schema');
