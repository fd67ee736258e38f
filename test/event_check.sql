-- What is wrong with the events of a database: of all of them, in the log and
-- published, whatever brought them about.  For psql; gives functions in pg_temp.

CREATE FUNCTION pg_temp.all_events()
RETURNS TABLE (event_id bigint, name text, task_id bigint, step_id bigint, payload jsonb)
LANGUAGE sql
AS $$
    SELECT e.event_id, e.name, e.task_id, e.step_id, e.payload
    FROM (SELECT array_agg(r.event_id) AS event_ids, array_agg(r.row_id) AS row_ids
          FROM (SELECT l.id AS event_id, l.id AS row_id FROM tasker.log AS l
                UNION ALL
                SELECT l.start_id, l.id FROM tasker.log AS l WHERE l.start_id IS NOT NULL
                UNION ALL
                SELECT p.event_id, p.event_id FROM tasker.published_event AS p) AS r) AS refs
    CROSS JOIN LATERAL tasker._events(refs.event_ids, refs.row_ids) AS e;
$$;

-- Each event of the engine is in the catalogue, its payload matches the schema there,
-- has the fields that the schema lists and no other (but what a handler adds to its
-- step's completion), and contains what is told of its task.  What was published
-- matches the schema of the event, as long as that is registered.
CREATE FUNCTION pg_temp.event_problems()
RETURNS TABLE (name text, problem text, events bigint, example jsonb)
LANGUAGE sql
AS $$
    WITH event AS MATERIALIZED (
        SELECT * FROM pg_temp.all_events()
    ), fact AS MATERIALIZED (
        SELECT f.*
        FROM tasker._task_facts(ARRAY(SELECT DISTINCT e.task_id FROM event AS e WHERE e.task_id IS NOT NULL)) AS f
    ), entry AS MATERIALIZED (
        SELECT * FROM tasker.event_catalog()
    ), problem AS (
        SELECT e.name, 'has no name' AS problem, e.payload
        FROM event AS e
        WHERE e.name IS NULL
        UNION ALL
        SELECT e.name, 'is not in the catalogue', e.payload
        FROM event AS e
        WHERE split_part(e.name, '.', 1) = ANY (tasker._reserved_event_namespaces())
          AND NOT EXISTS (SELECT FROM entry AS c WHERE c.name = e.name)
        UNION ALL
        SELECT e.name, concat_ws(' ', s.instance_path, s.message), e.payload
        FROM event AS e
        JOIN entry AS c ON c.name = e.name AND c.category <> 'custom'
        CROSS JOIN LATERAL tasker.json_schema_errors(c.payload_schema, e.payload) AS s
        UNION ALL
        SELECT e.name, format('%s is not in its schema', k.key), e.payload
        FROM event AS e
        JOIN entry AS c ON c.name = e.name AND c.category <> 'custom'
        CROSS JOIN LATERAL jsonb_object_keys(e.payload) AS k (key)
        WHERE NOT (c.payload_schema -> 'properties') ? k.key
          AND e.name <> 'step.completed'
        UNION ALL
        SELECT e.name, 'lacks what is told of its task', e.payload
        FROM event AS e
        JOIN fact AS f ON f.task_id = e.task_id
        WHERE NOT e.payload @> f.facts
        UNION ALL
        SELECT p.name, concat_ws(' ', s.instance_path, s.message), p.payload
        FROM tasker.published_event AS p
        JOIN entry AS c ON c.name = p.name AND c.category = 'custom'
        CROSS JOIN LATERAL tasker.json_schema_errors(c.payload_schema, p.payload) AS s
    )
    SELECT p.name, p.problem, count(*), (array_agg(p.payload))[1]
    FROM problem AS p
    GROUP BY p.name, p.problem
    ORDER BY p.name, p.problem;
$$;

-- Events of the catalogue that nothing brought about; another name of an event is
-- seen with it.
CREATE FUNCTION pg_temp.unseen_events()
RETURNS SETOF text
LANGUAGE sql
AS $$
    SELECT c.name
    FROM tasker.event_catalog() AS c
    WHERE c.category <> 'custom'
      AND NOT EXISTS (SELECT FROM pg_temp.all_events() AS e WHERE e.name = coalesce(tasker._system_event(c.name), c.name))
    ORDER BY c.name;
$$;
