-- What the workloads and the test of costs run: handlers of a role that is no
-- superuser, and the graphs.

CREATE EXTENSION IF NOT EXISTS tasker;

-- The role is the server's; the database is not the first one.
DO $$
BEGIN
    CREATE ROLE bench;
EXCEPTION
    WHEN duplicate_object THEN NULL;
END;
$$;
CREATE SCHEMA bench AUTHORIZATION bench;
SET ROLE bench;

CREATE FUNCTION bench.ok(step tasker.step_context)
RETURNS jsonb
LANGUAGE plpgsql
AS $$
BEGIN
    RETURN '{"ok": true}';
END;
$$;

-- Tells when it began.
CREATE FUNCTION bench.clock(step tasker.step_context)
RETURNS jsonb
LANGUAGE plpgsql
AS $$
BEGIN
    RETURN jsonb_build_object('at', extract(epoch FROM clock_timestamp()));
END;
$$;

-- Tells under which settings it runs.
CREATE FUNCTION bench.settings(step tasker.step_context)
RETURNS jsonb
LANGUAGE plpgsql
AS $$
BEGIN
    RETURN jsonb_build_object(
        'role', current_user,
        'synchronous_commit', current_setting('synchronous_commit'),
        'fsync', current_setting('fsync'),
        'full_page_writes', current_setting('full_page_writes'));
END;
$$;

SELECT tasker.register_handler('ok', 'bench.ok');
SELECT tasker.register_handler('clock', 'bench.clock');
SELECT tasker.register_handler('settings', 'bench.settings');
SELECT tasker.register_external_handler('outside');

-- Registers a graph of so many steps, s1, s2, ..., where to_step[i] depends on
-- from_step[i].  Those in resting are for workers outside, whom nobody started.
CREATE FUNCTION bench.register_graph(
    graph text,
    steps integer,
    from_step integer[],
    to_step integer[],
    handler text DEFAULT 'ok',
    resting integer[] DEFAULT '{}')
RETURNS void
LANGUAGE sql
AS $$
    SELECT tasker.register_task(jsonb_build_object(
        'name', graph,
        'step_templates', (
            SELECT jsonb_agg(
                jsonb_build_object(
                    'name', 's' || n,
                    'handler_class', CASE WHEN n = ANY (resting) THEN 'outside' ELSE handler END,
                    'depends_on_steps', ARRAY(
                        SELECT DISTINCT 's' || e.f
                        FROM unnest(from_step, to_step) AS e (f, t)
                        WHERE e.t = n))
                ORDER BY n)
            FROM generate_series(1, steps) AS n))::text);
$$;

CREATE FUNCTION bench.register_single(graph text, handler text)
RETURNS void
LANGUAGE sql
AS $$
    SELECT bench.register_graph(graph, 1, '{}', '{}', handler);
$$;

CREATE FUNCTION bench.register_chain(graph text, steps integer)
RETURNS void
LANGUAGE sql
AS $$
    SELECT bench.register_graph(graph, steps, array_agg(n - 1), array_agg(n))
    FROM generate_series(2, steps) AS n;
$$;

-- 1 to width to 1.
CREATE FUNCTION bench.register_fan(graph text, width integer, resting integer[] DEFAULT '{}')
RETURNS void
LANGUAGE sql
AS $$
    SELECT bench.register_graph(
        graph, width + 2,
        array_fill(1, ARRAY[width]) || array_agg(n),
        array_agg(n) || array_fill(width + 2, ARRAY[width]),
        resting => resting)
    FROM generate_series(2, width + 1) AS n;
$$;

SELECT bench.register_single('one', 'ok');
SELECT bench.register_single('clock', 'clock');
SELECT bench.register_single('settings', 'settings');
SELECT bench.register_single('outside', 'outside');
SELECT bench.register_graph('diamond', 4, '{1, 1, 2, 3}', '{2, 3, 4, 4}');
SELECT bench.register_chain('chain', 50);
SELECT bench.register_fan('fan', 500);
SELECT bench.register_fan('wide_20', 20);

-- Whether executors have nothing left to do; what waits for workers outside is
-- not theirs.
CREATE FUNCTION bench.at_rest()
RETURNS boolean
LANGUAGE sql
AS $$
    SELECT NOT EXISTS (SELECT FROM tasker.queue WHERE lane IN (0, 1, 2, 3));
$$;

RESET ROLE;
