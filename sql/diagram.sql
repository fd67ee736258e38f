-- Diagrams, of a task and of a template, in every format.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS tasker;
RESET client_min_messages;
\set SHOW_CONTEXT never
\pset format unaligned
\pset tuples_only on
BEGIN;
-- Other tests' rows are out of the way until the ROLLBACK.
DELETE FROM tasker.task;
DELETE FROM tasker.step;
DELETE FROM tasker.template;
DELETE FROM tasker.plan;
DELETE FROM tasker.plan_step;
INSERT INTO tasker.template (template_id, namespace, name, version, version_order, source, definition)
SELECT 9100 + n, 'shop', 'order', '1.' || n || '.0', n::text, '', '{}'
FROM generate_series(1, 2) AS n;
INSERT INTO tasker.plan (plan_id, template_id, environment, namespace, name, version, step_count, definition, retired_at)
VALUES (9101, 9101, NULL, 'shop', 'order', '1.1.0', 1, '{}', NULL),
       (9102, 9102, NULL, 'shop', 'order', '1.2.0', 8, '{}', NULL),
       (9103, 9102, 'test', 'shop', 'order', '1.2.0', 1, '{}', NULL),
       (9104, 9102, NULL, 'shop', 'order', '1.2.0', 1, '{}', '2026-01-02 03:04:05+00');
INSERT INTO tasker.plan_step (plan_id, step_no, name, handler_class, parents, children, level)
VALUES (9101, 1, 'old', 'shop.old', '{}', '{}', 0),
       (9103, 1, 'stub', 'shop.stub', '{}', '{}', 0),
       (9104, 1, 'retired', 'shop.retired', '{}', '{}', 0),
       (9102, 1, 'fetch_cart', 'shop.fetch_cart', '{}', '{3}', 0),
       (9102, 2, 'fetch_products', 'shop.fetch_products', '{}', '{3}', 0),
       (9102, 3, 'validate', 'shop.validate', '{1,2}', '{4,5,6}', 1),
       (9102, 4, 'charge', 'shop.charge', '{3}', '{7}', 2),
       (9102, 5, 'reserve', 'shop.reserve', '{3}', '{7}', 2),
       (9102, 6, 'notify', 'shop.notify', '{3}', '{8}', 2),
       (9102, 7, 'ship', 'shop.ship', '{4,5}', '{}', 3),
       (9102, 8, 'archive', 'shop.archive', '{6}', '{}', 3);
INSERT INTO tasker.task (task_id, created_at, plan_id, priority, state, context)
VALUES (1, '2026-01-02 03:04:05+00', 9102, 0, tasker._state_code('task', 'in_progress'), '{}');
INSERT INTO tasker.step (task_id, step_no, state, attempts, error)
SELECT 1, n, tasker._state_code('step', state), attempts, error::jsonb
FROM (VALUES (1, 'complete', 1, NULL),
             (2, 'resolved_manually', 3, '{"message": "not shown: it is no failure any more"}'),
             (3, 'skipped', 0, NULL),
             (4, 'waiting_for_retry', 2, '{"message": "the bank says \"wait\", and goes on to say it at such a length that nobody would read it all"}'),
             (5, 'error', 3, '{"message": "out of\nstock", "sqlstate": "P0001"}'),
             (6, 'in_progress', 1, NULL),
             (8, 'cancelled', 0, NULL)) AS s (n, state, attempts, error);

SELECT tasker.task_diagram(1);
SELECT tasker.task_diagram(1, 'dot');
SELECT jsonb_pretty(d - 'nodes' - 'edges'),
       jsonb_pretty(d #> '{nodes,4}'),
       jsonb_pretty(d #> '{edges,0}'),
       jsonb_array_length(d -> 'nodes'),
       jsonb_array_length(d -> 'edges')
FROM (SELECT tasker.task_diagram(1, 'json')::jsonb AS d) AS j;

-- Every state has its colours, and they are those of the rules
SELECT coalesce(string_agg(DISTINCT s.state, ' '), 'none is missing')
FROM (SELECT from_state AS state FROM tasker.transition_rules WHERE machine = 'step'
      UNION SELECT to_state FROM tasker.transition_rules WHERE machine = 'step') AS s
WHERE s.state IS NOT NULL
  AND s.state NOT IN (SELECT class FROM tasker._diagram_colours());

-- The template: the highest version, another one, an environment's
SELECT tasker.template_diagram('order', 'shop');
SELECT tasker.template_diagram('order', 'shop', '1.1.0', 'dot');
SET LOCAL tasker.environment = 'test';
SELECT tasker.template_diagram('order', 'shop', format => 'json')::jsonb #> '{nodes,0,label}';
SELECT tasker.template_diagram('order', 'shop', format => 'json')::jsonb -> 'title';
SET LOCAL tasker.environment = 'elsewhere';
SELECT jsonb_array_length(tasker.template_diagram('order', 'shop', format => 'json')::jsonb -> 'nodes');
RESET tasker.environment;

-- No text gets out of its label, nor into the markup
INSERT INTO tasker.plan (plan_id, template_id, namespace, name, version, step_count, definition)
VALUES (9105, 9105, 'shop', 'a"] --> b["<script>alert(1)</script>' || E'\n' || 'end', '1.0.0', 13, '{}');
INSERT INTO tasker.plan_step (plan_id, step_no, name, handler_class, parents, children, level)
SELECT 9105, n, name, 'h', '{}', '{}', 0
FROM unnest(ARRAY['plain name, (v1.2): a/b', 'a"]; style step_1 fill:#000', '<img src=x onerror=alert(1)>', '%%{init: {}}%%',
                  '`**bold**`', 'a#quot;b &lt; c', E'two\nlines\twith\\ a backslash \\N', '1. first', '- dash', '__init__',
                  'fa:fa-car', '$$x$$', 'Größe "✓"']) WITH ORDINALITY AS s (name, n);
INSERT INTO tasker.task (task_id, created_at, plan_id, priority, state, context)
VALUES (2, '2026-01-02 03:04:05+00', 9105, 0, tasker._state_code('task', 'pending'), '{}');
SELECT tasker.task_diagram(2);
SELECT tasker.task_diagram(2, 'dot');
SELECT string_agg(n ->> 'label', ' | ') FROM jsonb_array_elements(tasker.task_diagram(2, 'json')::jsonb -> 'nodes') AS n;

-- Eleven layers of four, each step on all of the layer before
INSERT INTO tasker.plan (plan_id, template_id, namespace, name, version, step_count, definition)
VALUES (9106, 9106, 'shop', 'layers', '1.0.0', 44, '{}');
INSERT INTO tasker.plan_step (plan_id, step_no, name, handler_class, parents, children, level)
SELECT 9106, 4 * l + i, 'n' || l || i, 'h',
       CASE WHEN l > 0 THEN ARRAY[4 * l - 3, 4 * l - 2, 4 * l - 1, 4 * l] ELSE '{}' END,
       CASE WHEN l < 10 THEN ARRAY[4 * l + 5, 4 * l + 6, 4 * l + 7, 4 * l + 8] ELSE '{}' END,
       l
FROM generate_series(0, 10) AS l, generate_series(1, 4) AS i;
INSERT INTO tasker.task (task_id, created_at, plan_id, priority, state, context)
VALUES (3, '2026-01-02 03:04:05+00', 9106, 0, tasker._state_code('task', 'pending'), '{}');
SET LOCAL statement_timeout = '20s';
SELECT count(*) FROM string_to_table(tasker.task_diagram(3), ' --> ');
RESET statement_timeout;

-- What is asked for wrongly
SAVEPOINT s;
SELECT tasker.task_diagram(1, 'png');
\echo :SQLSTATE
ROLLBACK TO s;
SELECT tasker.task_diagram(1, NULL);
\echo :SQLSTATE
ROLLBACK TO s;
SELECT tasker.task_diagram(999);
\echo :SQLSTATE
ROLLBACK TO s;
SELECT tasker.template_diagram('order');
\echo :SQLSTATE
ROLLBACK TO s;
SELECT tasker.template_diagram('order', 'shop', '9.9.9');
\echo :SQLSTATE
ROLLBACK TO s;
SELECT tasker.template_diagram('nothing', 'shop');
\echo :SQLSTATE
ROLLBACK TO s;
SELECT tasker.template_diagram('order', 'shop', format => 'svg');
\echo :SQLSTATE
ROLLBACK;
