-- Graphs for the functions that people read with.  The second half of their steps
-- waits for workers outside, so that a task comes to rest half done.

SET ROLE bench;

CREATE FUNCTION bench.second_half(steps integer)
RETURNS integer[]
LANGUAGE sql
AS $$
    SELECT array_agg(n) FROM generate_series(steps / 2 + 1, steps) AS n;
$$;

-- Each step needs all of the layer before; half of them rest.
CREATE FUNCTION bench.register_layers(graph text, layers integer, width integer)
RETURNS void
LANGUAGE sql
AS $$
    SELECT bench.register_graph(
        graph, layers * width,
        array_agg((layer - 1) * width + f),
        array_agg(layer * width + t),
        resting => bench.second_half(layers * width))
    FROM generate_series(1, layers - 1) AS layer,
         generate_series(1, width) AS f,
         generate_series(1, width) AS t;
$$;

-- Each step needs one to three of those before it, by chance, but the same ones
-- at each run; half of them rest.
CREATE FUNCTION bench.register_random(graph text, steps integer, seed integer)
RETURNS void
LANGUAGE sql
AS $$
    SELECT bench.register_graph(
        graph, steps,
        array_agg(abs(hashint4(seed * 1000 + n * 10 + k) % (n - 1)) + 1),
        array_agg(n),
        resting => bench.second_half(steps))
    FROM generate_series(2, steps) AS n,
         generate_series(1, 3) AS k
    WHERE k = 1 OR hashint4(seed + n * k) % 2 = 0;
$$;

SELECT bench.register_layers('layers_10x4', 10, 4);
SELECT bench.register_layers('layers_11x4', 11, 4);
SELECT bench.register_fan('wide_1000', 1000, bench.second_half(1002));
SELECT bench.register_random('random_60', 60, 1);

RESET ROLE;
