-- Templates as code: what is registered comes back, what would change is told,
-- what is unwise is found, and editors know the keys.
SET client_min_messages = error;
CREATE EXTENSION IF NOT EXISTS tasker;
\set SHOW_CONTEXT never
\pset format unaligned
\pset fieldsep ' | '
\pset null '(null)'
SELECT count(tasker.register_external_handler(name, 'code'))
FROM unnest('{fetch,charge,notify}'::text[]) AS name;
CREATE TEMPORARY TABLE shop (source text);
INSERT INTO shop VALUES ($$# a comment
name: parcel
namespace_name: code
version: 1.0.0
timeout: 1 hour
named_steps: [fetch, charge]
step_templates:
  - {name: fetch, handler_class: fetch, handler_config: {params: {a: 1, b: [1, 2]}, "odd key": 1}}
  - {name: charge, handler_class: charge, depends_on_step: fetch, timeout: 30 s}
environments:
  live:
    priority: 5
    step_templates: [{name: charge, timeout: 10 s}]
$$);

-- Before it is registered the whole is new.
SELECT d.change, d.path, d.before, d.after = tasker.yaml_to_jsonb(source) AS whole FROM shop, tasker.diff_task(source) AS d;
SELECT tasker.register_task(source) AS id FROM shop \gset
SELECT count(*) AS changes FROM shop, tasker.diff_task(source);
-- What comes out goes in again.
SELECT tasker.export_task('parcel', 'code') = source AS same, tasker.register_task(tasker.export_task('parcel', 'code')) = :id AS same_id FROM shop;
SELECT tasker.register_task(replace(source, '1.0.0', '1.10.0')) > 0 AS registered FROM shop;
SELECT tasker.register_task(replace(source, '1.0.0', '1.9.0'), 'live') > 0 AS registered FROM shop;
SELECT v.version, substring(tasker.export_task('parcel', 'code', v.version), 'version: (\S+)') AS exported
FROM (VALUES (NULL), ('1.0.0'), ('1.9.0')) AS v (version);
SELECT tasker.export_task('parcl', 'code');
\echo :LAST_ERROR_SQLSTATE
SELECT tasker.export_task('parcel');
SELECT tasker.export_task('parcel', 'code', '2.0.0');

-- By the names of the steps, whatever their places; at any depth; lists as a whole.
SELECT d.* FROM tasker.diff_task($$
name: parcel
namespace_name: code
version: 1.0.0
on_failure: stop
named_steps: [fetch, charge, notify]
step_templates:
  - {name: notify, handler_class: notify, depends_on_step: charge}
  - {name: charge, handler_class: charge, depends_on_step: fetch, timeout: 45 s}
  - {name: fetch, handler_class: fetch, handler_config: {params: {a: 2, b: [2, 1]}}}
environments:
  live:
    step_templates: [{name: fetch, timeout: 1 s}, {name: charge, timeout: 10 s}]
$$) AS d;
SELECT d.* FROM tasker.diff_task('{name: parcel, namespace_name: code, version: 1.0.0, step_templates: [{name: fetch, handler_class: fetch}]}') AS d;
-- Comments alone, and another environment alone.
SELECT d.* FROM shop, tasker.diff_task(source || '# more') AS d;
SELECT d.* FROM shop, tasker.diff_task(source, 'live') AS d;
SELECT d.* FROM shop, tasker.diff_task(replace(source, '1.0.0', '1.9.0')) AS d;
-- It stores nothing, and refuses what register_task() would.
SELECT source = tasker.export_task('parcel', 'code', '1.0.0') AS unchanged FROM shop;
SELECT tasker.diff_task('{name: parcel, step_templates: [{name: a}]}');
\echo :LAST_ERROR_SQLSTATE
SELECT tasker.diff_task(NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT tasker.diff_task('a: [');
\echo :LAST_ERROR_SQLSTATE

-- What it told is what registering does, also for a role without rights of its own.
CREATE ROLE regress_tasker_reader;
SET ROLE regress_tasker_reader;
SELECT count(*) AS changes FROM tasker.diff_task($$
name: parcel
namespace_name: code
version: 1.0.0
step_templates: [{name: fetch, handler_class: fetch}]
$$);
SELECT count(tasker.export_task('parcel', 'code')) AS exported;
SELECT count(*) AS found FROM tasker.lint_task('{name: x, namespace_name: code, step_templates: [{name: a, handler_class: fetch}]}');
RESET ROLE;

-- Unwise: each rule finds its own.
SELECT tasker.set_secret('KEY', 'value');
CREATE TEMPORARY TABLE unwise (source text);
INSERT INTO unwise VALUES ($yaml$
name: unwise
namespace_name: code
named_steps: [a, b, c, alone, call, host, gone]
timeout: 1 min
unknwn: 3
schema:
  properties:
    a: {type: string}
    b: {type: string, default: x}
    c: {type: object, required: [d], properties: {d: {}, e: {}}}
  required: [c]
step_templates:
  - {name: a, handler_class: fetch, retry: {base_delay: 1 min}}
  - {name: b, handler_class: fetch, depends_on_step: a, timeout: 2 min}
  - {name: c, handler_class: fetch, depends_on_steps: [a, b], retry: {limit: 20}}
  - {name: alone, handler_class: fetch}
  - name: call
    default_retryable: false
    depends_on_step: c
    handler_config:
      type: api
      url: http://shop.example.com/x
      headers: {Authorization: "Bearer abc", Accept: x, X-Api-Key: "${KEY}"}
      params: {password: "$${x}", tokens: 5, api_key: "a${KEY}"}
  - {name: host, timeout: 1 s, default_retry_limit: 1, depends_on_step: a, handler_config: {type: api, url: "http://localhost:80/x?u=http://a:b@c"}}
environments:
  live:
    timeout: 1 min
    on_failure: stop
    step_templates:
      - name: a
      - {name: b, timeout: 2 min}
      - {name: nobody}
      - {name: call, handler_config: {url: "https://me:secret@other.example.com", headers: {Accept: x}}}
  test:
    timeout: 10 s
$yaml$);
SELECT l.* FROM unwise, tasker.lint_task(source) AS l;
SELECT r.rule AS never_found
FROM tasker._lint_rules() AS r
WHERE r.rule NOT IN (SELECT l.rule FROM unwise, tasker.lint_task(source) AS l);
-- One environment alone.
SELECT l.rule, l.path, l.message FROM unwise, tasker.lint_task(source, 'test') AS l WHERE l.rule LIKE '%above%';
-- Nothing unwise.
SELECT l.* FROM tasker.lint_task($$
name: wise
namespace_name: code
timeout: 1 hour
schema: {type: object, required: [id], properties: {id: {type: integer}, note: {type: string, default: ""}}}
step_templates:
  - {name: fetch, handler_class: fetch}
  - {name: call, depends_on_step: fetch, timeout: 30 s, handler_config: {type: api, url: "https://example.com", headers: {Authorization: "Bearer ${KEY}"}}}
environments:
  live: {step_templates: [{name: call, handler_config: {url: "https://live.example.com"}}]}
$$) AS l;
SELECT tasker.lint_task('{name: x, step_templates: [{name: a}]}');
\echo :LAST_ERROR_SQLSTATE
-- As many paths as there are atoms.
SELECT l.rule, count(*)
FROM (SELECT 'name: dense' || E'\nnamespace_name: code\nstep_templates:\n'
             || string_agg(format('- {name: s%s, handler_class: fetch, depends_on_steps: [%s]}', n,
                                  (SELECT string_agg('s' || p, ', ') FROM generate_series(greatest(n - 30, 0), n - 1) AS p)),
                           E'\n' ORDER BY n) AS source
      FROM generate_series(0, 399) AS n) AS t,
     tasker.lint_task(source) AS l
GROUP BY l.rule;

-- The definition of the overview, as it stands there, registers in each of its environments.
SELECT count(tasker.register_external_handler('ApiTask::StepHandler::' || name || 'StepHandler'))
FROM unnest('{CartFetch,ProductsFetch,ProductsValidate,CreateOrder,PublishEvent}'::text[]) AS name;
CREATE TEMPORARY TABLE overview (source text);
INSERT INTO overview VALUES ($yaml$---
name: api_task/integration_yaml_example
module_namespace: ApiTask
task_handler_class: IntegrationYamlExample

default_dependent_system: ecommerce_system

named_steps:
  - fetch_cart
  - fetch_products
  - validate_products
  - create_order
  - publish_event

schema:
  type: object
  required:
    - cart_id
  properties:
    cart_id:
      type: integer

step_templates:
  - name: fetch_cart
    description: Fetch cart details from e-commerce system
    handler_class: ApiTask::StepHandler::CartFetchStepHandler
    handler_config:
      type: api
      url: https://api.ecommerce.com/cart
      params:
        cart_id: 1

  - name: fetch_products
    description: Fetch product details from product catalog
    handler_class: ApiTask::StepHandler::ProductsFetchStepHandler
    handler_config:
      type: api
      url: https://api.ecommerce.com/products

  - name: validate_products
    description: Validate product availability
    depends_on_steps:
      - fetch_products
      - fetch_cart
    handler_class: ApiTask::StepHandler::ProductsValidateStepHandler

  - name: create_order
    description: Create order from validated cart
    depends_on_step: validate_products
    handler_class: ApiTask::StepHandler::CreateOrderStepHandler

  - name: publish_event
    description: Publish order created event
    depends_on_step: create_order
    handler_class: ApiTask::StepHandler::PublishEventStepHandler
environments:
  development:
    step_templates:
      - name: fetch_cart
        handler_config:
          url: http://localhost:3000/api/cart
          params:
            cart_id: 1
            debug: true

  production:
    step_templates:
      - name: fetch_cart
        handler_config:
          url: https://api.ecommerce.com/cart
          params:
            cart_id: 1
            api_key: ${ECOMMERCE_API_KEY}
$yaml$);
SELECT e.environment, tasker.register_task(source, e.environment, replace => true) > 0 AS registered, v.problems
FROM overview,
     (VALUES (1, NULL), (2, 'development'), (3, 'production')) AS e (n, environment)
CROSS JOIN LATERAL (SELECT count(*) AS problems FROM overview, tasker.validate_task(source, e.environment)) AS v
ORDER BY e.n;
SELECT tasker.register_task(source, replace => true) > 0 AS registered FROM overview;
SELECT coalesce(p.environment, '(none)') AS environment, p.step_count, s.name, s.parents, s.dependent_system, s.handler_config
FROM tasker.plan AS p
JOIN tasker.plan_step AS s USING (plan_id)
WHERE p.name = 'api_task/integration_yaml_example'
  AND p.retired_at IS NULL
  AND (s.name = 'fetch_cart' OR p.environment IS NULL)
ORDER BY p.environment NULLS FIRST, s.step_no;
-- A task of it has the environment's configuration.
SET tasker.environment = 'production';
SELECT tasker.create_task('api_task/integration_yaml_example', '{"cart_id": 7}') > 0 AS created;
SELECT t.environment, p.environment AS plan
FROM tasker.task AS t
JOIN tasker.plan AS p USING (plan_id)
WHERE p.name = 'api_task/integration_yaml_example';
SELECT tasker.cancel_task(t.task_id)
FROM tasker.tasks AS t
WHERE t.name = 'api_task/integration_yaml_example';
RESET tasker.environment;

SELECT count(tasker.unregister_handler(h.name, h.namespace))
FROM tasker.handlers AS h
WHERE h.namespace = 'code'
   OR h.name LIKE 'ApiTask::%';
DROP ROLE regress_tasker_reader;
SELECT tasker.drop_secret('KEY');
