-- The bookkeeping that a queue in plain SQL can't do without, and nothing else:
-- what PostgreSQL itself takes for it.

CREATE SCHEMA plain;

CREATE TABLE plain.job (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    state text NOT NULL DEFAULT 'ready',
    payload jsonb NOT NULL,
    result jsonb
) WITH (fillfactor = 50);
CREATE INDEX ON plain.job (id) WHERE state = 'ready';

CREATE TABLE plain.log (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    job_id bigint NOT NULL,
    state text NOT NULL
);

CREATE FUNCTION plain.handler(payload jsonb)
RETURNS jsonb
LANGUAGE plpgsql
AS $$
BEGIN
    RETURN '{"ok": true}';
END;
$$;

-- Claims up to a hundred, calls the handler for each in a subtransaction, saves
-- what came of it with two rows of the log for each; returns how many there were.
CREATE FUNCTION plain.batch()
RETURNS integer
LANGUAGE plpgsql
AS $$
DECLARE
    ids bigint[];
    payloads jsonb[];
    results jsonb[] := '{}';
    payload jsonb;
BEGIN
    SELECT array_agg(j.id), array_agg(j.payload)
    INTO ids, payloads
    FROM (SELECT j.id, j.payload
          FROM plain.job AS j
          WHERE j.state = 'ready'
          ORDER BY j.id
          LIMIT 100
          FOR UPDATE SKIP LOCKED) AS j;
    IF ids IS NULL THEN
        RETURN 0;
    END IF;
    FOREACH payload IN ARRAY payloads LOOP
        BEGIN
            results := results || plain.handler(payload);
        EXCEPTION
            WHEN others THEN
                results := results || NULL::jsonb;
        END;
    END LOOP;

    UPDATE plain.job AS j
    SET state = CASE WHEN r.result IS NULL THEN 'failed' ELSE 'done' END,
        result = r.result
    FROM unnest(ids, results) AS r (id, result)
    WHERE j.id = r.id;

    INSERT INTO plain.log (job_id, state)
    SELECT r.id, s.state
    FROM unnest(ids, results) AS r (id, result)
    CROSS JOIN LATERAL (VALUES ('started'), (CASE WHEN r.result IS NULL THEN 'failed' ELSE 'done' END)) AS s (state);
    RETURN cardinality(ids);
END;
$$;

CREATE PROCEDURE plain.work()
LANGUAGE plpgsql
AS $$
BEGIN
    WHILE plain.batch() > 0 LOOP
        COMMIT;
    END LOOP;
END;
$$;
