-- What scale and cores need beside tasker/setup.sql.

CREATE SCHEMA scale;

-- Creates so many groups of five tasks: of a graph, or mixed: a diamond and four
-- tasks of one step, 8 steps in all.  Returns the last id.
CREATE FUNCTION scale.create_tasks(graph text, groups integer)
RETURNS bigint
LANGUAGE sql
AS $$
    SELECT max(c.id)
    FROM (VALUES ('diamond', 1), ('one', 4)) AS g (name, tasks),
         tasker.create_tasks(CASE WHEN graph = 'mix' THEN g.name ELSE graph END,
                             array_fill('{"n": 1}'::jsonb, ARRAY[g.tasks * groups])) AS c (id);
$$;

-- Tasks are claimed in the order of their creation, so where the steps end is how
-- far the executors have come, and it costs nothing to know.
CREATE FUNCTION scale.frontier()
RETURNS bigint
LANGUAGE sql
AS $$
    SELECT coalesce(max(task_id), 0) FROM tasker.step;
$$;

CREATE FUNCTION scale.last_task()
RETURNS bigint
LANGUAGE sql
AS $$
    SELECT coalesce(max(task_id), 0) FROM tasker.task;
$$;

-- Whether executors have nothing left to do, however much waits for others.
CREATE FUNCTION scale.at_rest()
RETURNS boolean
LANGUAGE sql
SET enable_seqscan = off
AS $$
    SELECT NOT EXISTS (SELECT FROM tasker.queue WHERE lane IN (0, 1, 2));
$$;

-- When the first of these tasks started, when the last one ended, how many have
-- not.
CREATE FUNCTION scale.span(
    first_id bigint,
    last_id bigint,
    OUT seconds double precision,
    OUT left_over bigint)
LANGUAGE sql
AS $$
    SELECT extract(epoch FROM max(t.finished_at) - min(t.started_at)), count(*) FILTER (WHERE t.finished_at IS NULL)
    FROM tasker.task AS t
    WHERE t.task_id BETWEEN first_id AND last_id;
$$;

-- Milliseconds from created_at to finished_at, of twenty thousand of these tasks.
CREATE FUNCTION scale.latency(
    first_id bigint,
    last_id bigint,
    OUT p50 double precision,
    OUT p99 double precision)
LANGUAGE sql
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
    SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM t.finished_at - t.created_at) * 1000),
           percentile_cont(0.99) WITHIN GROUP (ORDER BY extract(epoch FROM t.finished_at - t.created_at) * 1000)
    FROM generate_series(first_id, last_id, greatest((last_id - first_id) / 20000, 1)) AS i (id)
    JOIN tasker.task AS t ON t.task_id = i.id;
$$;

-- Tasks that wait: half for their time, the others for workers outside, and some
-- of these paused.
CREATE PROCEDURE scale.create_waiting(tasks integer)
LANGUAGE plpgsql
AS $$
DECLARE
    contexts jsonb[] := array_fill('{"n": 1}'::jsonb, ARRAY[1000]);
    ids bigint[];
BEGIN
    FOR i IN 1 .. tasks / 2000 LOOP
        PERFORM count(*) FROM tasker.create_tasks('one', contexts, run_at => clock_timestamp() + interval '30 days');
        ids := ARRAY(SELECT tasker.create_tasks('outside', contexts));
        COMMIT;
        PERFORM tasker.pause_task(id) FROM unnest(ids[1:20]) AS id;
        COMMIT;
    END LOOP;
END;
$$;

-- How many of three hundred tasks, spread over all, are not as they have to be;
-- looking at all of them (tasker.verify()) would take hours.
CREATE FUNCTION scale.spot_check(OUT tasks bigint, OUT wrong bigint)
LANGUAGE sql
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
    SELECT count(*),
           count(*) FILTER (WHERE NOT CASE
               WHEN w.state = 'complete' THEN w.steps = w.planned AND w.complete = w.planned
                                              AND w.transitions >= 3 + 2 * w.planned AND w.tokens = 0
               ELSE w.complete = 0 END)
    FROM (
        SELECT t.state, p.step_count AS planned, s.steps, s.complete, l.transitions, q.tokens
        FROM generate_series(1, scale.last_task(), greatest(scale.last_task() / 300, 1)) AS i (id)
        JOIN tasker.tasks AS t ON t.task_id = i.id
        JOIN tasker.task AS r ON r.task_id = i.id
        JOIN tasker.plan AS p ON p.plan_id = r.plan_id
        CROSS JOIN LATERAL (
            SELECT count(*) AS steps, count(*) FILTER (WHERE x.state = 3) AS complete
            FROM tasker.step AS x WHERE x.task_id = i.id) AS s
        CROSS JOIN LATERAL (
            SELECT count(*) AS transitions FROM tasker.transitions AS x WHERE x.task_id = i.id) AS l
        CROSS JOIN LATERAL (
            SELECT count(*) AS tokens FROM tasker.queue AS x WHERE x.task_id = i.id) AS q) AS w;
$$;

-- What goes wrong, for scale_hot.sql.
CREATE FUNCTION bench.flaky(step tasker.step_context)
RETURNS jsonb
LANGUAGE plpgsql
AS $$
BEGIN
    IF step.attempt < 2 THEN
        PERFORM tasker.retryable_error('not yet', retry_after => interval '0.05 s');
    END IF;
    RETURN '{"ok": true}';
END;
$$;

CREATE FUNCTION bench.broken(step tasker.step_context)
RETURNS jsonb
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM tasker.permanent_error('never');
END;
$$;
ALTER FUNCTION bench.flaky(tasker.step_context) OWNER TO bench;
ALTER FUNCTION bench.broken(tasker.step_context) OWNER TO bench;

CREATE FUNCTION bench.napping(step tasker.step_context)
RETURNS jsonb
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM pg_sleep(0.005);
    RETURN '{"ok": true}';
END;
$$;
ALTER FUNCTION bench.napping(tasker.step_context) OWNER TO bench;

SET ROLE bench;
SELECT tasker.register_handler('flaky', 'bench.flaky');
SELECT tasker.register_handler('broken', 'bench.broken');
SELECT tasker.register_handler('napping', 'bench.napping');
SELECT tasker.register_handler('limited', 'bench.napping');
SELECT tasker.register_handler('own', 'bench.ok', transaction => 'own');
SELECT tasker.register_external_handler('hot');
SELECT bench.register_single('flaky', 'flaky');
SELECT bench.register_single('broken', 'broken');
SELECT bench.register_single('limited', 'limited');
SELECT bench.register_single('own', 'own');
-- Siblings that are slow are spread over executors, who lock the task to write.
SELECT bench.register_graph('spread', 6, '{1, 1, 1, 1, 2, 3, 4, 5}', '{2, 3, 4, 5, 6, 6, 6, 6}', 'napping');
SELECT bench.register_graph('hot', 3, '{1, 2}', '{2, 3}', 'hot');
SELECT tasker.register_task('{"name": "hasty", "timeout": "0.5 s",
    "step_templates": [{"name": "only", "handler_class": "hot"}]}');
RESET ROLE;
