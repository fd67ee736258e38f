-- What the isolation specs have in common: one task, or one for each of some
-- names, whose steps wait for workers outside.  The table race has the tasks,
-- the view race_steps their steps; both live from race_start() to race_end().

CREATE PROCEDURE race_start(definition text, names text[] DEFAULT ARRAY[NULL])
LANGUAGE plpgsql AS $$
DECLARE
    task_name text := tasker.yaml_to_jsonb(definition) ->> 'name';
BEGIN
    PERFORM tasker.register_external_handler(task_name, replace => true);
    PERFORM tasker.register_task(definition);
    CREATE TABLE race AS
    SELECT n.name, tasker.create_task(task_name, reason => n.name) AS task_id
    FROM unnest(names) AS n (name);

    CREATE VIEW race_steps AS
    SELECT s.name, s.step_id, s.state::text, s.attempts, s.claimed_by,
           EXISTS (SELECT FROM tasker.queue AS q
                   WHERE q.task_id = s.task_id AND q.step_no = (s.step_id & 16383)) AS queued
    FROM tasker.workflow_steps AS s
    JOIN race USING (task_id);

    -- The executors start the tasks; their steps then wait.
    COMMIT;
    WHILE EXISTS (SELECT FROM tasker.tasks JOIN race USING (task_id) WHERE state = 'pending') LOOP
        PERFORM pg_sleep(0.01);
        COMMIT;
    END LOOP;
END $$;

-- Calls a function of tasker's for the step of that name, or for the task;
-- returns what it answers, or the code and the detail of its refusal.
CREATE FUNCTION race_try(call text, step text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    id bigint := coalesce((SELECT s.step_id FROM race_steps AS s WHERE s.name = step),
                          (SELECT r.task_id FROM race AS r));
    answer text;
BEGIN
    EXECUTE format('SELECT tasker.' || call, id) INTO answer;
    RETURN answer;
EXCEPTION WHEN SQLSTATE 'TK003' OR SQLSTATE 'TK004' THEN
    GET STACKED DIAGNOSTICS answer = PG_EXCEPTION_DETAIL;
    RETURN SQLSTATE || ': ' || regexp_replace(answer, '^(Task|Step) \d+', '\1');
END $$;

CREATE PROCEDURE race_end()
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM tasker.cancel_task(t.task_id)
    FROM tasker.tasks AS t
    JOIN race USING (task_id)
    WHERE t.state NOT IN ('complete', 'cancelled', 'resolved_manually');
    DROP VIEW race_steps;
    DROP TABLE race;
END $$;
