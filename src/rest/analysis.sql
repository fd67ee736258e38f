-- What depends on what in a task, for include_dependencies.

CREATE FUNCTION tasker._rest_graph(of_plan integer)
RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT jsonb_build_object(
        'nodes', coalesce(jsonb_agg(jsonb_build_object('id', s.step_no, 'name', s.name, 'level', s.level)
                                    ORDER BY s.step_no), '[]'),
        'edges', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                       'from', p.step_no, 'to', c.step_no, 'from_name', p.name, 'to_name', c.name)
                       ORDER BY c.step_no, p.step_no), '[]')
            FROM tasker.plan_step AS c
            CROSS JOIN LATERAL unnest(c.parents) AS n (parent)
            JOIN tasker.plan_step AS p ON p.plan_id = of_plan
                                      AND p.step_no = n.parent
            WHERE c.plan_id = of_plan),
        'execution_order', (
            SELECT coalesce(jsonb_agg(l.names ORDER BY l.level), '[]')
            FROM (SELECT o.level, jsonb_agg(o.name ORDER BY o.step_no) AS names
                  FROM tasker.plan_step AS o
                  WHERE o.plan_id = of_plan
                  GROUP BY o.level) AS l))
    FROM tasker.plan_step AS s
    WHERE s.plan_id = of_plan;
$$;
COMMENT ON FUNCTION tasker._rest_graph(integer) IS
'The steps of a plan and their dependencies; execution_order: names by level, each level after the one before. Private.';

-- One of the longest paths, not all: their number grows with the power of two.
CREATE FUNCTION tasker._rest_longest_path(of_plan integer)
RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH RECURSIVE path AS (
        (SELECT s.level, s.name, s.parents
         FROM tasker.plan_step AS s
         WHERE s.plan_id = of_plan
         ORDER BY s.level DESC, s.step_no
         LIMIT 1)
        UNION ALL
        SELECT p.level, p.name, p.parents
        FROM path AS c
        CROSS JOIN LATERAL (
            SELECT s.level, s.name, s.parents
            FROM tasker.plan_step AS s
            WHERE s.plan_id = of_plan
              AND s.step_no = ANY (c.parents)
              AND s.level = c.level - 1
            ORDER BY s.step_no
            LIMIT 1) AS p
    )
    SELECT coalesce(jsonb_agg(p.name ORDER BY p.level), '[]')
    FROM path AS p;
$$;
COMMENT ON FUNCTION tasker._rest_longest_path(integer) IS
'Names of the steps on one of the longest paths through a plan. Private.';

CREATE FUNCTION tasker._rest_dependencies(of_task bigint)
RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
    WITH step AS MATERIALIZED (
        SELECT t.plan_id, s.step_no, s.name, s.level, s.parents, s.children,
               coalesce(r.state, 0::smallint) AS state
        FROM tasker.task AS t
        JOIN tasker.plan_step AS s USING (plan_id)
        LEFT JOIN tasker.step AS r ON r.task_id = t.task_id
                                  AND r.step_no = s.step_no
        WHERE t.task_id = of_task
    ), level AS MATERIALIZED (
        SELECT s.level, count(*) AS steps, jsonb_agg(s.name ORDER BY s.step_no) AS names
        FROM step AS s
        GROUP BY s.level
    ), longest AS MATERIALIZED (
        SELECT tasker._rest_longest_path(s.plan_id) AS path
        FROM step AS s
        LIMIT 1
    ), blocking AS MATERIALIZED (
        -- what has not ended well, and how many steps wait for it directly
        SELECT s.step_no, s.name, s.state, cardinality(s.children) AS blocked
        FROM step AS s
        WHERE s.state NOT IN (3, 6, 7)
          AND s.children <> '{}'
        ORDER BY cardinality(s.children) DESC, s.step_no
        LIMIT 10
    ), failed AS MATERIALIZED (
        SELECT s.step_no, s.name, s.state, s.children
        FROM step AS s
        WHERE s.state IN (2, 4)
    )
    SELECT jsonb_build_object(
        'dependency_graph', (SELECT tasker._rest_graph(s.plan_id) FROM step AS s LIMIT 1),
        'critical_paths', (
            SELECT jsonb_build_object(
                       'longest_path_length', jsonb_array_length(l.path),
                       'longest_path', l.path,
                       'root_nodes', (SELECT coalesce(jsonb_agg(s.name ORDER BY s.step_no), '[]') FROM step AS s WHERE s.parents = '{}'),
                       'leaf_nodes', (SELECT coalesce(jsonb_agg(s.name ORDER BY s.step_no), '[]') FROM step AS s WHERE s.children = '{}'))
            FROM longest AS l),
        'parallelism_opportunities', (
            SELECT coalesce(jsonb_agg(jsonb_build_object('level', l.level, 'steps', l.names) ORDER BY l.level), '[]')
            FROM level AS l
            WHERE l.steps > 1),
        'error_chains', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                       'step', f.name,
                       'state', tasker._step_state(f.state),
                       'blocks', (SELECT coalesce(jsonb_agg(s.name ORDER BY s.step_no), '[]')
                                  FROM step AS s
                                  WHERE s.step_no = ANY (f.children))) ORDER BY f.step_no), '[]')
            FROM failed AS f),
        'bottlenecks', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                       'step', b.name, 'state', tasker._step_state(b.state), 'blocked_steps', b.blocked)
                       ORDER BY b.blocked DESC, b.step_no), '[]')
            FROM blocking AS b),
        'task_execution_summary', (
            SELECT jsonb_build_object(
                       'total_steps', count(*),
                       'total_dependencies', coalesce(sum(cardinality(s.parents)), 0),
                       'dependency_levels', (SELECT count(*) FROM level),
                       'longest_path_length', (SELECT jsonb_array_length(l.path) FROM longest AS l),
                       'error_chains_count', (SELECT count(*) FROM failed))
            FROM step AS s),
        'analysis_timestamp', tasker.clock());
$$;
COMMENT ON FUNCTION tasker._rest_dependencies(bigint) IS
'What depends on what in a task: dependency_graph, critical_paths, parallelism_opportunities, error_chains (what failed, and which steps need it directly), bottlenecks (the ten steps that most others wait for directly), task_execution_summary. Source: reference 9.1. Private.';
