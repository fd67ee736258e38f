-- What 200_model.pl needs in the database: handlers that do what a step's
-- configuration says, workers, an operator, and what the test reads.
SET client_min_messages = error;
CREATE EXTENSION tasker;
CREATE SCHEMA model;

CREATE TABLE model.task (
    seed integer PRIMARY KEY,
    task_id bigint NOT NULL
);
-- phase 0: with the creation; above: when all tasks rest; -1: while they run.
CREATE TABLE model.action (
    phase integer NOT NULL,
    place integer NOT NULL,
    seed integer NOT NULL,
    name text NOT NULL,
    step_no integer,
    accepted boolean
);
-- What handlers and workers wrote: once for each step that is complete.
CREATE TABLE model.effect (
    task_id bigint NOT NULL,
    step_no integer NOT NULL,
    attempt integer NOT NULL
);
CREATE TABLE model.problem (problem text NOT NULL);
CREATE TABLE model.control (working boolean NOT NULL);
INSERT INTO model.control VALUES (true);

CREATE FUNCTION model.outcome(config jsonb, attempt integer)
RETURNS text
LANGUAGE sql IMMUTABLE
AS $$
    SELECT config -> 'outcomes' ->> least(attempt, jsonb_array_length(config -> 'outcomes')) - 1;
$$;

CREATE FUNCTION model.results(step tasker.step_context)
RETURNS jsonb
LANGUAGE sql STABLE
AS $$
    SELECT jsonb_build_object(
        'attempt', step.attempt,
        'value', ((step.step_id & 16383) + coalesce(sum((d.value ->> 'value')::bigint), 0)) % 1000003)
    FROM jsonb_each(step.dependencies) AS d;
$$;

CREATE FUNCTION model.run(step tasker.step_context)
RETURNS jsonb
LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO model.effect VALUES (step.task_id, step.step_id & 16383, step.attempt);
    CASE model.outcome(step.config, step.attempt)
        WHEN 'fail' THEN
            RAISE EXCEPTION 'it fails';
        WHEN 'fail_for_good' THEN
            PERFORM tasker.permanent_error('it fails for good');
        WHEN 'time_out' THEN
            PERFORM pg_sleep(60);
        ELSE
            RETURN model.results(step);
    END CASE;
END;
$$;

CREATE FUNCTION model.run_plain(step tasker.step_context)
RETURNS jsonb
LANGUAGE sql
AS $$
    INSERT INTO model.effect VALUES (step.task_id, step.step_id & 16383, step.attempt);
    SELECT model.results(step);
$$;

-- Ends its own process, so often; what counts it outlives the rollback.
CREATE FUNCTION model.run_crash(step tasker.step_context)
RETURNS jsonb
LANGUAGE plpgsql
AS $$
DECLARE
    file text := format('%s/crash.%s', current_setting('model.directory'), step.step_id);
BEGIN
    INSERT INTO model.effect VALUES (step.task_id, step.step_id & 16383, step.attempt);
    EXECUTE format('COPY (SELECT 1) TO PROGRAM %L', format(
        'cat >/dev/null; echo >>%1$s; if [ $(wc -l <%1$s) -le %2$s ]; then kill -9 %3$s; sleep 1; fi',
        file, CASE step.config ->> 'crashes' WHEN 'always' THEN '1000' ELSE step.config ->> 'crashes' END,
        pg_backend_pid()));
    RETURN model.results(step);
END;
$$;

SELECT tasker.register_handler('quick', 'model.run');
SELECT tasker.register_handler('slow', 'model.run');
SELECT tasker.register_handler('own', 'model.run', transaction => 'own');
SELECT tasker.register_handler('plain', 'model.run_plain');
SELECT tasker.register_handler('crash', 'model.run_crash');
SELECT tasker.register_external_handler('outside');

-- A worker outside.  It takes this lock for each round, so that whoever wants
-- it to rest can keep it out.
CREATE PROCEDURE model.work(worker text)
LANGUAGE plpgsql
AS $$
DECLARE
    steps tasker.step_context[];
    ids bigint[];
    lost tasker.step_context[] := '{}';
    step tasker.step_context;
BEGIN
    WHILE (SELECT c.working FROM model.control AS c) LOOP
        PERFORM pg_advisory_lock_shared(1);
        SELECT array_agg(c)
        INTO steps
        FROM tasker.claim_steps(worker, max_steps => 1 + (random() * 20)::integer, lease => '10 min') AS c;
        -- Of those that it is to lose it lets the leases run out at once.
        SELECT array_agg(s.step_id), lost || array_agg(s)
        INTO ids, lost
        FROM unnest(steps) AS s
        WHERE model.outcome(s.config, s.attempt) = 'lose_lease';
        IF (SELECT count(*) FROM tasker.heartbeat(worker, ids, '2 ms')) <> coalesce(cardinality(ids), 0) THEN
            INSERT INTO model.problem VALUES ('a heartbeat is refused within the lease');
        END IF;
        COMMIT;

        INSERT INTO model.effect
        SELECT s.task_id, s.step_id & 16383, s.attempt
        FROM (SELECT array_agg(s.step_id) AS ids, array_agg(model.results(s)) AS results
              FROM unnest(steps) AS s
              WHERE model.outcome(s.config, s.attempt) = 'succeed') AS w
        CROSS JOIN LATERAL tasker.complete_steps(w.ids, w.results, worker) AS c (step_id)
        JOIN unnest(steps) AS s ON s.step_id = c.step_id;
        COMMIT;
        PERFORM tasker.fail_steps(array_agg(s.step_id), array_agg('{"message": "it fails"}'::jsonb), true, worker)
        FROM unnest(steps) AS s
        WHERE model.outcome(s.config, s.attempt) = 'fail';
        COMMIT;
        PERFORM tasker.fail_steps(array_agg(s.step_id), array_agg('{"message": "it fails for good"}'::jsonb), false, worker)
        FROM unnest(steps) AS s
        WHERE model.outcome(s.config, s.attempt) = 'fail_for_good';
        COMMIT;

        -- What comes too late is refused.
        FOREACH step IN ARRAY coalesce(lost, '{}') LOOP
            BEGIN
                PERFORM pg_sleep(0.002);
                PERFORM tasker.complete_step(step.step_id, '{}', worker, step.attempt);
                INSERT INTO model.problem VALUES (format('step %s was completed after its lease', step.step_id));
            EXCEPTION WHEN SQLSTATE 'TK003' THEN
                NULL;
            END;
            COMMIT;
        END LOOP;
        lost := '{}';
        PERFORM pg_advisory_unlock_shared(1);
        IF steps IS NULL THEN
            PERFORM pg_sleep(0.005);
            COMMIT;
        END IF;
    END LOOP;
END;
$$;

-- After a crash a worker of the same name goes on with what it had claimed.
CREATE PROCEDURE model.take_up(worker text)
LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO model.effect
    SELECT s.task_id, s.step_no, s.attempts
    FROM (SELECT array_agg(s.step_id) AS ids,
                 array_agg(jsonb_build_object('attempt', s.attempts, 'value', ((s.step_id & 16383) + s.value) % 1000003)) AS results
          FROM model.held(worker) AS s
          WHERE s.outcome = 'succeed') AS w
    CROSS JOIN LATERAL tasker.complete_steps(w.ids, w.results, worker) AS c (step_id)
    JOIN tasker.step AS s ON s.task_id = c.step_id >> 14 AND s.step_no = c.step_id & 16383;
    COMMIT;
    PERFORM tasker.fail_step(s.step_id, '{"message": "it fails"}', s.outcome = 'fail', worker => worker)
    FROM model.held(worker) AS s
    WHERE s.outcome IN ('fail', 'fail_for_good');
    COMMIT;
    CALL model.work(worker);
END;
$$;

CREATE FUNCTION model.held(worker text)
RETURNS TABLE (step_id bigint, attempts integer, outcome text, value bigint)
LANGUAGE sql
AS $$
    SELECT s.task_id << 14 | s.step_no, s.attempts, model.outcome(p.handler_config, s.attempts),
           (SELECT coalesce(sum((r.results ->> 'value')::bigint), 0)
            FROM tasker.step AS r
            WHERE r.task_id = s.task_id
              AND r.step_no = ANY (p.parents))
    FROM tasker.step AS s
    JOIN tasker.task AS t USING (task_id)
    JOIN tasker.plan_step AS p ON p.plan_id = t.plan_id AND p.step_no = s.step_no
    WHERE s.state = 1
      AND s.claimed_by = worker
      AND s.lease_until > tasker.clock() + interval '1 min';
$$;

-- The operator.
CREATE FUNCTION model.operate(name text, task_id bigint, step_no integer)
RETURNS boolean
LANGUAGE plpgsql
AS $$
DECLARE
    step_id bigint := task_id << 14 | step_no;
BEGIN
    CASE name
        WHEN 'pause_task' THEN PERFORM tasker.pause_task(task_id);
        WHEN 'resume_task' THEN PERFORM tasker.resume_task(task_id);
        WHEN 'cancel_task' THEN PERFORM tasker.cancel_task(task_id, 'by the test');
        WHEN 'retry_task' THEN PERFORM tasker.retry_task(task_id);
        WHEN 'resolve_task' THEN PERFORM tasker.resolve_task(task_id, 'by the test');
        WHEN 'retry_step' THEN PERFORM tasker.retry_step(step_id);
        WHEN 'resolve_step' THEN PERFORM tasker.resolve_step(step_id, jsonb_build_object('value', step_no * 7));
        WHEN 'cancel_step' THEN PERFORM tasker.cancel_step(step_id, 'by the test');
    END CASE;
    RETURN true;
EXCEPTION WHEN SQLSTATE 'TK004' THEN
    RETURN false;
END;
$$;

-- All that is to be done to a task in a phase.
CREATE FUNCTION model.operate_on(wanted_seed integer, task_id bigint, wanted_phase integer)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    w record;
BEGIN
    FOR w IN
        SELECT a.place, a.name, a.step_no
        FROM model.action AS a
        WHERE a.phase = wanted_phase
          AND a.seed = wanted_seed
        ORDER BY a.place
    LOOP
        UPDATE model.action AS a
        SET accepted = model.operate(w.name, task_id, w.step_no)
        WHERE a.phase = wanted_phase
          AND a.seed = wanted_seed
          AND a.place = w.place;
    END LOOP;
END;
$$;

-- And to all tasks, one transaction each.
CREATE PROCEDURE model.operate_on_all(wanted_phase integer)
LANGUAGE plpgsql
AS $$
DECLARE
    w record;
BEGIN
    FOR w IN
        SELECT DISTINCT a.seed, t.task_id
        FROM model.action AS a
        JOIN model.task AS t USING (seed)
        WHERE a.phase = wanted_phase
        ORDER BY a.seed
    LOOP
        PERFORM model.operate_on(w.seed, w.task_id, wanted_phase);
        COMMIT;
    END LOOP;
END;
$$;

-- The same while the tasks run, at moments left to chance.  What is paused in
-- the end goes on.
CREATE PROCEDURE model.race(share integer, shares integer)
LANGUAGE plpgsql
AS $$
DECLARE
    w record;
BEGIN
    FOR w IN
        SELECT a.seed, a.place, a.name, a.step_no, t.task_id
        FROM model.action AS a
        JOIN model.task AS t USING (seed)
        WHERE a.phase = -1
          AND a.place % shares = share
        ORDER BY random()
    LOOP
        PERFORM pg_advisory_lock_shared(1);
        UPDATE model.action AS a
        SET accepted = model.operate(w.name, w.task_id, w.step_no)
        WHERE a.phase = -1
          AND a.seed = w.seed
          AND a.place = w.place;
        COMMIT;
        PERFORM pg_advisory_unlock_shared(1);
        PERFORM pg_sleep(random() * 0.01);
        COMMIT;
    END LOOP;
END;
$$;

-- What is left paused of the tasks at whose actions chance was at work goes on.
CREATE PROCEDURE model.resume_all(seeds integer[])
LANGUAGE sql
AS $$
    INSERT INTO model.action (phase, place, seed, name, accepted)
    SELECT -2, 0, t.seed, 'resume_task', model.operate('resume_task', t.task_id, NULL)
    FROM model.task AS t
    JOIN tasker.tasks AS s USING (task_id)
    WHERE t.seed = ANY (seeds)
      AND s.state = 'paused';
$$;

-- Who is at work on a task: executors and whoever claims hold it.
CREATE VIEW model.at_work AS
SELECT l.classid::bigint << 32 | l.objid::bigint AS task_id, l.pid
FROM pg_locks AS l
WHERE l.locktype = 'advisory'
  AND l.objsubid = 3;

-- Tasks that do not rest yet: they go on, have a step in progress, or somebody
-- is at work on them.  That may be so when a task has ended: on_failure: stop
-- does not wait for what another executor is running.
CREATE FUNCTION model.restless(from_task bigint)
RETURNS TABLE (task_id bigint, state text, steps text)
LANGUAGE sql
AS $$
    SELECT t.task_id, t.state, s.steps
    FROM tasker.tasks AS t
    CROSS JOIN LATERAL (
        SELECT string_agg(format('%s %s', s.step_id & 16383, s.state), ', ') FILTER (WHERE s.state NOT IN ('complete', 'skipped')) AS steps,
               count(*) FILTER (WHERE s.state = 'in_progress') AS in_progress
        FROM tasker.workflow_steps AS s
        WHERE s.task_id = t.task_id) AS s
    WHERE t.task_id >= from_task
      AND (t.state IN ('pending', 'in_progress') OR s.in_progress > 0)
    UNION ALL
    SELECT w.task_id, 'process ' || w.pid, 'is at work on it'
    FROM model.at_work AS w;
$$;

CREATE PROCEDURE model.wait_for_rest(from_task bigint, seconds numeric)
LANGUAGE plpgsql
AS $$
BEGIN
    FOR i IN 1 .. seconds * 50 LOOP
        EXIT WHEN NOT EXISTS (
            SELECT FROM tasker.task AS t
            WHERE t.task_id >= from_task
              AND (t.state < 2
                   OR EXISTS (SELECT FROM tasker.step AS s WHERE s.task_id = t.task_id AND s.state = 1)))
            AND NOT EXISTS (SELECT FROM model.at_work);
        COMMIT;
        PERFORM pg_sleep(0.02);
    END LOOP;
END;
$$;

-- What is ready by the tables must be what waits in the queue.  A start token
-- stands for the steps without dependencies; those to be skipped are none of
-- the ready ones, and the queue may hold them or not.
CREATE FUNCTION model.readiness_problems(from_task bigint)
RETURNS TABLE (problem text)
LANGUAGE sql
AS $$
    WITH live AS (
        SELECT t.task_id, t.plan_id, t.bypass_steps
        FROM tasker.task AS t
        WHERE t.task_id >= from_task
          AND t.finished_at IS NULL
    ), ready AS (
        SELECT r.step_id
        FROM tasker.step_readiness_batch(ARRAY(SELECT l.task_id FROM live AS l)) AS r
        WHERE r.ready_for_execution
    ), queued AS (
        SELECT l.task_id << 14 | p.step_no AS step_id
        FROM live AS l
        JOIN tasker.queue AS q ON q.task_id = l.task_id
        JOIN tasker.plan_step AS p ON p.plan_id = l.plan_id
                                  AND (p.step_no = q.step_no OR q.step_no = 0 AND p.parents = '{}')
        JOIN tasker.plan AS w ON w.plan_id = l.plan_id
                             AND (w.concurrent
                                  OR q.step_no > 0
                                  -- the start of one at a time is that of the first
                                  OR p.step_no = (SELECT min(f.step_no)
                                                  FROM tasker.plan_step AS f
                                                  WHERE f.plan_id = l.plan_id
                                                    AND f.parents = '{}'))
        WHERE (q.lane >= 0 OR q.due_lane IS NOT NULL AND q.due <= tasker.clock())
          AND p.name <> ALL (coalesce(l.bypass_steps, '{}'))
    )
    SELECT format('step %s of task %s is %s', (coalesce(r.step_id, q.step_id) & 16383), coalesce(r.step_id, q.step_id) >> 14,
                  CASE WHEN q.step_id IS NULL THEN 'ready, but not queued' ELSE 'queued, but not ready' END)
    FROM ready AS r
    FULL JOIN queued AS q USING (step_id)
    WHERE r.step_id IS NULL
       OR q.step_id IS NULL
    UNION ALL
    SELECT format('token %s of task %s is left, which has ended', q.step_no, q.task_id)
    FROM tasker.queue AS q
    JOIN tasker.task AS t USING (task_id)
    WHERE t.task_id >= from_task
      AND t.finished_at IS NOT NULL
      -- somebody had it in hand when the task ended without waiting for him: a
      -- token of the task stands for that, with which it goes
      AND NOT EXISTS (SELECT FROM tasker.queue AS r
                      WHERE r.task_id = q.task_id
                        AND r.step_no = -2);
$$;

-- Every invariant, as soon as the extension can check them itself.
CREATE FUNCTION model.verify()
RETURNS TABLE (problem text)
LANGUAGE plpgsql
AS $$
BEGIN
    IF to_regprocedure('tasker.verify()') IS NOT NULL THEN
        RETURN QUERY EXECUTE 'SELECT v::text FROM tasker.verify() AS v';
    END IF;
END;
$$;
