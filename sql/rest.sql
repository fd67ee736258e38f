-- What the REST API asks of the database, as an ordinary role: pages, bodies,
-- steps that are not of the task.  Over HTTP it is test/t/600_rest.pl.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS tasker;
\set VERBOSITY default
\set SHOW_CONTEXT never

CREATE ROLE regress_rest;
SELECT count(*) FROM (VALUES (tasker.register_external_handler('rest_outside', 'rest'))) AS v;
SELECT count(*) FROM (VALUES (tasker.register_task($$
namespace_name: rest
name: rest_fork
step_templates:
  - {name: first, handler_class: rest_outside}
  - {name: left, handler_class: rest_outside, depends_on_step: first}
  - {name: right, handler_class: rest_outside, depends_on_step: first}
  - {name: last, handler_class: rest_outside, depends_on_steps: [left, right]}
$$), tasker.register_task($$
namespace_name: rest
name: rest_rare
step_templates:
  - {name: only, handler_class: rest_outside}
$$))) AS v;

SET ROLE regress_rest;

-- Rare ones are found however many others there are between them, each once; the
-- stretches that are looked at grow.
SELECT count(tasker.create_task('rest_rare', namespace => 'rest', tags => ARRAY['a', n::text])) FROM generate_series(1, 3) AS n;
SELECT count(*) FROM tasker.create_tasks('rest_fork', array_fill('{}'::jsonb, ARRAY[700]), 'rest');
SELECT count(tasker.create_task('rest_rare', namespace => 'rest', tags => ARRAY['b', n::text])) FROM generate_series(1, 2) AS n;
WITH RECURSIVE page AS (
    SELECT 1 AS n, p.body, p.next
    FROM tasker._rest_list_tasks('rest', 'rest_rare', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'desc', 2, NULL) AS p
    UNION ALL
    SELECT page.n + 1, p.body, p.next
    FROM page
    CROSS JOIN LATERAL tasker._rest_list_tasks('rest', 'rest_rare', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'desc', 2, page.next) AS p
    WHERE page.next IS NOT NULL
)
SELECT n, jsonb_path_query_array(body, '$.tasks[*].tags') AS tags, next IS NULL AS is_last
FROM page;
SELECT jsonb_path_query_array(body, '$.tasks[*].tags') AS tags, next
FROM tasker._rest_list_tasks('rest', NULL, NULL, NULL, '{a}', NULL, NULL, NULL, '2000-01-01', NULL, 'RARE', 'asc', 100, NULL);
SELECT jsonb_path_query_array(body, '$.tasks[*].steps.total') AS steps
FROM tasker._rest_list_tasks('rest', NULL, NULL, NULL, '{a,1}', NULL, NULL, NULL, NULL, NULL, NULL, 'asc', 100, NULL);

-- Bodies.
SELECT status, body -> 'task' -> 'name' AS name, location LIKE '/tasker/tasks/%' AS is_located
FROM tasker._rest_create_task('rest key', NULL, NULL,
    '{"task": {"name": "rest_rare", "namespace": "rest", "context": {}, "initiator": "i", "reason": "r", "source_system": "s"}}');
SELECT status
FROM tasker._rest_create_task(NULL, NULL, NULL,
    '{"name": "rest_rare", "namespace": "rest", "context": {}, "initiator": "i", "reason": "r", "source_system": "s", "idempotency_key": "rest key"}');
SELECT tasker._rest_create_task(NULL, NULL, NULL, '{"name": "rest_rare", "priority": "high", "colour": "red"}');
SELECT tasker._rest_create_task(NULL, NULL, NULL,
    '{"name": "rest_rare", "context": {}, "initiator": "i", "reason": "r", "source_system": "s", "colour": "red"}');
SELECT tasker._rest_create_task(NULL, NULL, NULL, NULL);
SELECT tasker._rest_create_task(NULL, NULL, NULL, '[');
SELECT tasker._rest_list_tasks(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'asc', 2, 'x');

-- Steps.
SELECT max(task_id) AS fork FROM tasker.tasks WHERE name = 'rest_fork'
\gset
SELECT jsonb_path_query_array(p.body, '$.steps[*].name') AS names, p.next
FROM tasker._rest_list_steps(:fork, 3, NULL) AS p;
SELECT jsonb_path_query_array(p.body, '$.steps[*].name') AS names, p.next
FROM tasker._rest_list_steps(:fork, 3, '3') AS p;
DO $$
BEGIN
    PERFORM tasker._rest_show_step((SELECT max(task_id) FROM tasker.tasks WHERE name = 'rest_fork'), 1);
EXCEPTION
    WHEN SQLSTATE 'TK007' THEN
        RAISE WARNING '%', regexp_replace(SQLERRM, 'task \d+', 'task N');
END;
$$;
SELECT d -> 'critical_paths' AS critical_paths,
       d -> 'parallelism_opportunities' AS parallelism_opportunities,
       d -> 'bottlenecks' -> 0 AS first_bottleneck,
       d -> 'task_execution_summary' AS task_execution_summary,
       jsonb_array_length(d #> '{dependency_graph,edges}') AS edges
FROM tasker._rest_dependencies(:fork) AS d;

RESET ROLE;
DROP ROLE regress_rest;
