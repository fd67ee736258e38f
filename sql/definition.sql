-- Definitions: everything wrong with one at once, and what becomes of a good one.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS tasker;
\set SHOW_CONTEXT never
CREATE ROLE regress_tasker_author SUPERUSER;
SET ROLE regress_tasker_author;
SELECT tasker.register_external_handler(name) FROM unnest('{fetch_cart,validate,publish}'::text[]) AS name;
SELECT tasker.register_external_handler('elsewhere', 'other');
SELECT tasker.register_external_handler('versioned', version => '1.0.0');

-- A cycle, an unknown dependency, a duplicate name and a missing handler, each
-- with its line and a hint, by one call.
CREATE TEMPORARY TABLE bad (source text);
INSERT INTO bad VALUES ($$
name: broken
step_templates:
  - name: fetch
    handler_class: fetch_cart
    depends_on_step: publish
  - name: check
    handler_class: valdate
    depends_on_steps: [fetch, fetsch]
  - name: publish
    handler_class: publish
    depends_on_step: check
  - name: check
    handler_class: validate
$$);
\x on
SELECT v.* FROM bad, tasker.validate_task(source) AS v;
\x off
-- Registration refuses it with all of them, and nothing is stored.
SELECT tasker.register_task(source) FROM bad;
\echo :LAST_ERROR_SQLSTATE
SELECT count(*) AS templates FROM tasker.template WHERE name = 'broken';
SELECT count(*) AS plans FROM tasker.plan WHERE name = 'broken';

-- Broken YAML is one row with its line, or TK005.
SELECT path, line, message LIKE 'invalid YAML%' AS message
FROM tasker.validate_task(E'name: x\nstep_templates:\n  - name: "a\n');
SELECT path, line, message FROM tasker.validate_task('');
SELECT path, line, message FROM tasker.validate_task('[]');
SELECT tasker.validate_task(NULL);
\echo :LAST_ERROR_SQLSTATE

-- Every kind of value.
\pset format unaligned
\pset fieldsep ' | '
SELECT * FROM tasker.validate_task($$
name: {a: 1}
namespace_name: " x"
version: 1.0
description: [a]
concurrent: "yes"
default_dependent_system: 7
named_steps: a
schema: []
custom_events: [{description: no name}, 3]
timeout: soon
on_failure: stp
priority: 1.5
step_templates:
  - name: ""
    handler_class: no such handler
    default_retryable: yes
    default_retry_limit: 0
    skippable: 1
    depends_on_step: [a, b]
    depends_on_steps: b
    handler_config: x
    timeout: -1
    retry: {limit: "3", base_delay: -1 s, max_delay: 11 years, jitter: 1.5}
  - handler_class: fetch_cart
  - just text
  - name: call
    handler_config: {type: api, url: /relative, params: [], headers: x}
  - name: call without url
    handler_config: {type: api}
  - name: no handler
  - name: elsewhere
    handler_class: elsewhere
  - name: versioned
    handler_class: versioned
  - name: itself
    handler_class: fetch_cart
    depends_on_step: itself
environments:
  test: text
  stage: {version: 2.0.0, environments: {}}
  live:
    step_templates:
      - {handler_class: fetch_cart}
      - {name: call, handler_config: {params: 1}}
      - {name: call}
$$);
SELECT path, message, hint FROM unnest('{"\"1.0\"",v2,1.2.3.4,2}'::text[]) AS version,
    tasker.validate_task(format('{name: x, version: %s, step_templates: [{name: a, handler_class: validate}]}', version));
SELECT path, message FROM tasker.validate_task('name: x');
SELECT path, message FROM tasker.validate_task('{name: x, step_templates: []}');
SELECT path, message FROM tasker.validate_task(
    (SELECT 'name: x' || E'\nstep_templates:\n' || string_agg(format(E'- {name: s%s, handler_class: validate}', n), E'\n')
     FROM generate_series(1, 16384) AS n));
-- Names of events.
SELECT path, line, message, hint FROM tasker.validate_task($$
name: x
custom_events:
  - {name: order.big}
  - {name: order.big.one, description: still one, payload_schema: {type: object}}
  - {name: big}
  - {name: Task.done}
  - {name: tasker.x}
  - {name: order.}
  - {name: .order}
  - {name: a..b}
  - {name: order.odd, payload_schema: {type: objct}}
step_templates: [{name: a, handler_class: validate, custom_events: [{name: step.x}, {description: none}]}]
environments: {live: {custom_events: [{name: 7}]}}
$$);
-- The schema of a context is checked too.
SELECT path, line FROM tasker.validate_task($$
name: x
schema:
  type: object
  properties:
    a: {type: intger}
    b: {minimum: low}
step_templates: [{name: a, handler_class: validate}]
$$);
-- A null is as good as nothing.
SELECT path, message FROM tasker.validate_task($$
name: x
description:
schema: ~
environments: {test: }
step_templates: [{name: a, handler_class: validate, retry: , depends_on_steps: ~}]
$$);

-- named_steps lists whatever may stand in the file.
SELECT path, line, message FROM tasker.validate_task($$
name: x
named_steps: [a, b]
step_templates:
  - {name: a, handler_class: validate}
  - {name: c, handler_class: validate, depends_on_step: a}
  - {name: b, handler_class: validate, depends_on_step: c}
$$);

-- Several cycles, each once.
SELECT path, line, message FROM tasker.validate_task($$
name: x
step_templates:
  - {name: a, handler_class: validate, depends_on_steps: [b]}
  - {name: b, handler_class: validate, depends_on_steps: [a, c]}
  - {name: c, handler_class: validate, depends_on_steps: [b]}
  - {name: d, handler_class: validate, depends_on_steps: [c]}
  - {name: e, handler_class: validate, depends_on_steps: [f, d]}
  - {name: f, handler_class: validate, depends_on_steps: [e]}
$$);

-- What only an environment gets wrong stands at its place there, or names it.
SELECT path, line, message FROM tasker.validate_task($$
name: x
step_templates:
  - {name: a, handler_class: validate}
  - {name: b, handler_class: validate, depends_on_step: a}
environments:
  live:
    step_templates:
      - {name: a, depends_on_steps: [b]}
      - {name: b, handler_class: nobody}
  test:
    named_steps: [a]
$$, 'test');
\pset format aligned

-- A good one: the plan of each environment, its steps and their edges.
CREATE TEMPORARY TABLE good (source text);
INSERT INTO good VALUES ($$
name: shop/order
namespace_name: regress
version: 1.2.0
description: An order
default_dependent_system: erp
schema: {type: object, required: [cart_id]}
timeout: 5 min
priority: 4
named_steps: [fetch, stock, check, publish]
step_templates:
  - name: check
    description: Is all there?
    handler_class: validate
    depends_on_step: fetch
    depends_on_steps: [stock, fetch]
    default_retry_limit: 7
    retry: {limit: 5, base_delay: 0.5, max_delay: 2 min, jitter: 0}
    timeout: 90
    skippable: true
    dependent_system: shop
  - name: fetch
    handler_class: fetch_cart
    default_retry_limit: 9
    default_retryable: false
    handler_config: {type: api, url: "https://example.com/cart", params: {a: 1, b: 2}}
  - name: stock
    handler_config: {type: api, url: "https://example.com/stock"}
  - name: publish
    handler_class: publish
    depends_on_step: check
environments:
  live:
    on_failure: stop
    priority: 9
    schema: {required: [cart_id, user_id]}
    step_templates:
      - name: publish
        depends_on_steps: [fetch]
      - name: fetch
        handler_config: {params: {b: 3, key: "${KEY}"}}
  test:
$$);
SELECT count(*) AS problems FROM good, tasker.validate_task(source);
SELECT tasker.register_task(source) > 0 AS registered FROM good;
SELECT name, version, description, environment, registered_by = current_user AS registered_by
FROM tasker.template
WHERE namespace = 'regress';
SELECT environment, name, version, step_count, schema, timeout, on_failure, priority
FROM tasker.plan
WHERE namespace = 'regress'
ORDER BY environment NULLS FIRST;
SELECT p.environment, s.step_no, s.name, s.handler_class, s.handler_type, s.parents, s.children, s.level
FROM tasker.plan AS p
JOIN tasker.plan_step AS s USING (plan_id)
WHERE p.namespace = 'regress'
ORDER BY p.environment NULLS FIRST, s.step_no;
SELECT s.name, s.description, s.dependent_system, s.retryable, s.retry_limit AS attempts,
       s.base_delay, s.max_delay, s.jitter, s.timeout, s.skippable
FROM tasker.plan AS p
JOIN tasker.plan_step AS s USING (plan_id)
WHERE p.namespace = 'regress'
  AND p.environment IS NULL
ORDER BY s.step_no;
SELECT p.environment, s.handler_config
FROM tasker.plan AS p
JOIN tasker.plan_step AS s USING (plan_id)
WHERE p.namespace = 'regress'
  AND s.name = 'fetch'
ORDER BY p.environment NULLS FIRST;

-- The same again changes nothing; another text or environment needs replace.
CREATE TEMPORARY TABLE before AS
SELECT template_id, source AS old_source, registered_at
FROM tasker.template
WHERE namespace = 'regress';
SELECT tasker.register_task(source) = template_id AS same FROM good, before;
SELECT tasker.unregister_handler('publish');
SELECT tasker.register_task(source) = template_id AS same FROM good, before;
SELECT tasker.register_external_handler('publish');
SELECT tasker.register_task(source || '# changed') FROM good;
\echo :LAST_ERROR_SQLSTATE
SELECT tasker.register_task(source, 'live') FROM good;
SELECT t.source = b.old_source AND t.registered_at = b.registered_at AS unchanged
FROM before AS b
JOIN tasker.template AS t USING (template_id);

-- Replaced: what comes out the same keeps its plan, what differs gets another.
SELECT tasker.register_task(replace(source, 'priority: 9', 'priority: 8'), replace => true) = template_id AS same
FROM good, before;
SELECT environment, priority, retired_at IS NOT NULL AS retired
FROM tasker.plan
WHERE namespace = 'regress'
ORDER BY plan_id;
-- Fixed to an environment there is one plan; one it does not have is the base.
SELECT tasker.register_task(source, 'live', replace => true) = template_id AS same FROM good, before;
SELECT environment, priority FROM tasker.plan WHERE namespace = 'regress' AND retired_at IS NULL ORDER BY plan_id;
SELECT tasker.register_task(source, 'elsewhere', replace => true) = template_id AS same FROM good, before;
SELECT environment, priority FROM tasker.plan WHERE namespace = 'regress' AND retired_at IS NULL ORDER BY plan_id;
SELECT tasker.register_task(source, ' x') FROM good;

-- What has no effect is a warning with the nearest that has one.
SELECT tasker.register_task($$
name: warned
namespace_name: regress
x-defaults: &defaults {handler_class: validate}
timout: 3 s
step_templates:
  - name: a
    <<: *defaults
    depend_on_step: b
    retry: {limits: 3, base_delay: 1 min}
  - name: call
    handler_config: {type: api, url: "https://${HOST}/x", header: {}}
environments:
  live:
    step_templates: [{name: cal, skipable: true}, {name: call, handler_config: {parms: {}}}]
$$) > 0 AS registered;

-- What all steps have in common: each begins with it, as an environment leaves it.
SELECT tasker.register_task($$
name: common
namespace_name: regress
handler_config: {currency: EUR, headers: {Accept: a, From: b}, list: [1]}
step_templates:
  - {name: plain, handler_class: validate}
  - {name: own, handler_class: validate, handler_config: {currency: USD, headers: {Accept: c}, list: [2]}}
  - {name: call, handler_config: {type: api, url: "https://example.com"}}
environments:
  live:
    handler_config: {currency: CHF, headers: {From: d}}
    step_templates: [{name: own, handler_config: {headers: {Accept: e}}}]
$$) > 0 AS registered;
SELECT p.environment, s.name, s.handler_type, s.handler_config
FROM tasker.plan AS p
JOIN tasker.plan_step AS s USING (plan_id)
WHERE p.namespace = 'regress'
  AND p.name = 'common'
ORDER BY p.environment NULLS FIRST, s.step_no;
-- It makes all of them HTTP steps, and its keys are known as theirs are.
SELECT tasker.register_task($$
name: calls
namespace_name: regress
handler_config: {type: api, url: "https://example.com/", parms: {}, params: {key: "${COMMON_KEY}"}}
step_templates:
  - {name: one, handler_config: {header: {}}}
  - {name: two, handler_class: nobody, handler_config: {retry_delay: 3, jitter_factor: 0.5}}
  - {name: flat, handler_config: {retry_delay: 5, enable_exponential_backoff: false}}
  - {name: own, handler_config: {retry_delay: 5}, retry: {base_delay: 2, max_delay: 60, jitter: 0.2}}
$$) > 0 AS registered;
SELECT s.name, s.handler_class, s.handler_type, s.base_delay, s.max_delay, s.jitter
FROM tasker.plan AS p
JOIN tasker.plan_step AS s USING (plan_id)
WHERE p.namespace = 'regress'
  AND p.name = 'calls'
ORDER BY s.step_no;
-- One that says neither who runs it nor how is none of them.
SELECT path, line, message FROM tasker.validate_task('{name: x, handler_config: {type: api, url: "https://a.b"}, step_templates: [{name: a}]}');
SELECT path, line, message FROM tasker.validate_task('{name: x, handler_config: {type: api}, step_templates: [{name: a, handler_config: {}}]}');
SELECT path, line, message FROM tasker.validate_task('{name: x, handler_config: [], step_templates: [{name: a, handler_class: validate}]}');

-- JSON is YAML.
SELECT tasker.register_task('{"name": "json", "namespace_name": "regress", "step_templates": [{"name": "a", "handler_class": "validate"}]}') > 0 AS registered;

-- As many paths as there are atoms, and long and wide graphs, in linear time.
SELECT tasker.register_task(
    'name: dense' || E'\nnamespace_name: regress\nstep_templates:\n'
    || string_agg(format('- {name: s%s, handler_class: validate, depends_on_steps: [%s]}', n,
                         (SELECT string_agg('s' || p, ', ') FROM generate_series((n / 30 - 1) * 30, (n / 30 - 1) * 30 + 29) AS p WHERE n >= 30)),
                  E'\n' ORDER BY n)) > 0 AS registered
FROM generate_series(0, 899) AS n;
SELECT tasker.register_task(
    'name: diamond' || E'\nnamespace_name: regress\nstep_templates:\n- {name: first, handler_class: validate}\n'
    || string_agg(format('- {name: s%s, handler_class: validate, depends_on_step: first}', n), E'\n' ORDER BY n)
    || E'\n- {name: last, handler_class: validate, depends_on_steps: [' || string_agg('s' || n, ', ' ORDER BY n DESC) || ']}') > 0 AS registered
FROM generate_series(1, 5000) AS n;
SELECT tasker.register_task(
    'name: chain' || E'\nnamespace_name: regress\nstep_templates:\n'
    || string_agg(format('- {name: s%s, handler_class: validate%s}', n, ', depends_on_step: s' || nullif(n - 1, 0)), E'\n' ORDER BY n)) > 0 AS registered
FROM generate_series(1, 5000) AS n;
SELECT p.name, p.step_count, count(*) AS steps, max(s.level) AS level, max(cardinality(s.parents)) AS parents,
       max(cardinality(s.children)) AS children,
       bool_and(s.parents = ARRAY(SELECT unnest(s.parents) ORDER BY 1)) AS rising
FROM tasker.plan AS p
JOIN tasker.plan_step AS s USING (plan_id)
WHERE p.namespace = 'regress'
  AND p.name IN ('dense', 'diamond', 'chain')
GROUP BY p.plan_id, p.name, p.step_count
ORDER BY p.name;
-- Both directions of the edges agree, and a level is one above the highest parent's.
SELECT count(*) AS wrong
FROM tasker.plan AS p
JOIN tasker.plan_step AS s USING (plan_id)
WHERE p.namespace = 'regress'
  AND (s.level <> coalesce((SELECT max(parent.level) + 1
                            FROM tasker.plan_step AS parent
                            WHERE parent.plan_id = s.plan_id
                              AND parent.step_no = ANY (s.parents)), 0)
       OR EXISTS (SELECT
                  FROM unnest(s.parents) AS n
                  JOIN tasker.plan_step AS parent ON parent.plan_id = s.plan_id AND parent.step_no = n
                  WHERE s.step_no <> ALL (parent.children)))
  AND p.name IN ('shop/order', 'dense', 'json');

DELETE FROM tasker.plan_step WHERE plan_id IN (SELECT plan_id FROM tasker.plan WHERE namespace = 'regress');
DELETE FROM tasker.plan WHERE namespace = 'regress';
DELETE FROM tasker.template WHERE namespace = 'regress';
SELECT count(tasker.unregister_handler(name, namespace, version)) AS unregistered
FROM tasker.handlers
WHERE name IN ('fetch_cart', 'validate', 'publish', 'elsewhere', 'versioned');
RESET ROLE;
DROP TABLE bad, good, before;
DROP ROLE regress_tasker_author;
