-- Everything that must hold between the tables, checked from scratch.

-- One statement, so that it sees one snapshot: the engine commits a state, its
-- log rows and its tokens together, so what it sees is sound at every moment.
-- Each table is read once and joined by hash or merge, whatever the statistics
-- say of a table that has just been filled.
CREATE FUNCTION tasker.verify()
RETURNS TABLE (problem text, task_id bigint, step_id bigint, detail text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET datestyle = 'ISO, YMD'
SET enable_nestloop = off
SET work_mem = '128MB'
SET jit = off
AS $$
    -- Seen in part, much would seem to be missing.
    SELECT tasker._require('health_status:index', '*');
    WITH rule AS MATERIALIZED (
        -- Bit from * 8 + to of a machine's moves; from is 7 for a task that is made.
        SELECT bit_or(1::bigint << CASE r.machine WHEN 'task' THEN coalesce(tasker._state_code('task', r.from_state), 7) * 8
                                                                   + tasker._state_code('task', r.to_state) END) AS task_moves,
               bit_or(1::bigint << CASE r.machine WHEN 'step' THEN tasker._state_code('step', r.from_state) * 8
                                                                   + tasker._state_code('step', r.to_state) END) AS step_moves
        FROM tasker.transition_rules AS r
    ),
    history AS MATERIALIZED (
        -- A chain of moves telescopes: the weights of the states it enters less
        -- those of the states it leaves are the weight of the last less that of
        -- the first, in whatever order clocks and transaction ids put the rows.
        SELECT l.task_id, l.step_no,
               sum((1::bigint << (l.to_state + 1) * 7) - (1::bigint << (coalesce(l.from_state, -1) + 1) * 7)) AS distance,
               count(*) FILTER (
                   WHERE l.to_state NOT BETWEEN 0 AND 7
                      OR l.from_state NOT BETWEEN 0 AND 7
                      OR l.step_no > 0 AND l.from_state IS NULL
                      OR CASE l.step_no
                             WHEN 0 THEN (SELECT task_moves FROM rule)
                             ELSE (SELECT step_moves FROM rule)
                         END >> coalesce(l.from_state, 7) * 8 + l.to_state & 1 = 0) AS illegal,
               count(*) FILTER (WHERE l.to_state = 1) AS starts,
               sum(l.attempt) FILTER (WHERE l.to_state = 1) AS attempt_sum,
               max(l.attempt) AS attempts,
               count(*) FILTER (WHERE l.to_state = 4) AS failures,
               min(l.at) FILTER (WHERE l.to_state = 1) AS start_at,
               min(l.id) FILTER (WHERE l.to_state = 1) AS start_id,
               max(l.at) FILTER (WHERE l.to_state IN (3, 6, 7)) AS satisfied_at,
               max(l.id) FILTER (WHERE l.to_state IN (3, 6, 7)) AS satisfied_id
        FROM tasker._move AS l
        GROUP BY l.task_id, l.step_no
    ),
    task AS MATERIALIZED (
        SELECT t.task_id, t.plan_id, t.state,
               t.started_at IS NOT NULL AS has_started_at,
               t.finished_at IS NOT NULL AS has_finished_at,
               t.error IS NOT NULL AS has_error,
               t.state IN (3, 4, 5, 6) AS ended,
               t.idempotency_key,
               p.plan_id IS NOT NULL AS has_plan,
               p.step_count, p.namespace, p.version,
               coalesce(p.timeout > interval '0', false) AS has_timeout,
               p.on_failure = 'stop' AS stops,
               p.concurrent
        FROM tasker.task AS t
        LEFT JOIN tasker.plan AS p ON p.plan_id = t.plan_id
    ),
    token AS MATERIALIZED (
        SELECT q.task_id, q.step_no, q.due, q.lane, q.rank, q.due_lane,
               CASE WHEN q.lane < 0 THEN q.due_lane ELSE q.lane END AS target,
               -- Somebody works on it: its transaction had not ended in our snapshot.
               (q.xmax::text::bigint - pg_snapshot_xmax(pg_current_snapshot())::text::bigint) & 4294967295 < 2147483648
               OR q.xmax::text::bigint IN (
                   SELECT x.xid::text::bigint & 4294967295
                   FROM pg_snapshot_xip(pg_current_snapshot()) AS x (xid)) AS in_hand
        FROM tasker.queue AS q
    ),
    step AS MATERIALIZED (
        SELECT task_id, step_no,
               r.state IS NOT NULL AS has_row,
               r.state, r.attempts,
               r.started_at IS NOT NULL AS has_started_at,
               r.finished_at IS NOT NULL AS has_finished_at,
               r.error IS NOT NULL AS has_error,
               r.next_attempt_at, r.lease_until, r.claimed_by,
               r.state IN (3, 6, 7) AS satisfies,
               h.distance, h.illegal, h.starts, h.attempt_sum, h.attempts AS logged_attempts, h.failures,
               h.start_at, h.start_id, h.satisfied_at, h.satisfied_id,
               t.state AS task_state,
               t.ended AS task_ended,
               t.has_plan,
               coalesce(t.stops OR t.has_timeout, false) AS may_be_left,
               s.step_no IS NOT NULL AS in_plan,
               s.parents
        FROM tasker.step AS r
        FULL JOIN (SELECT * FROM history WHERE step_no <> 0) AS h USING (task_id, step_no)
        LEFT JOIN task AS t USING (task_id)
        LEFT JOIN tasker.plan_step AS s USING (plan_id, step_no)
    ),
    counted AS (
        SELECT s.task_id,
               count(*) AS steps,
               count(*) FILTER (WHERE s.satisfies) AS satisfied,
               count(*) FILTER (WHERE s.state IN (3, 4, 5, 6, 7)) AS ended,
               count(*) FILTER (WHERE s.state = 4) AS errors,
               count(*) FILTER (WHERE s.state = 1) AS running,
               count(*) FILTER (WHERE s.state = 2) AS waiting,
               coalesce(sum(s.failures), 0) AS failures
        FROM step AS s
        GROUP BY s.task_id
    ),
    marked AS (
        SELECT q.task_id,
               bool_or(q.step_no = 0) AS has_start,
               bool_or(q.step_no = -1) AS has_deadline,
               bool_or(q.step_no = -2) AS has_remains,
               count(*) AS tokens
        FROM token AS q
        GROUP BY q.task_id
    ),
    whole AS MATERIALIZED (
        SELECT t.*,
               h.distance, h.illegal, h.starts,
               coalesce(c.steps, 0) AS steps,
               coalesce(c.satisfied, 0) AS satisfied,
               coalesce(c.ended, 0) AS ended_steps,
               coalesce(c.errors, 0) AS errors,
               coalesce(c.running, 0) AS running,
               coalesce(c.waiting, 0) AS waiting,
               coalesce(c.failures, 0) AS failures,
               coalesce(q.has_start, false) AS has_start,
               coalesce(q.has_deadline, false) AS has_deadline,
               coalesce(q.has_remains, false) AS has_remains,
               coalesce(q.tokens, 0) AS tokens,
               t.state IN (0, 1) AND NOT coalesce(t.stops AND c.errors > 0, false) AS goes_on
        FROM task AS t
        LEFT JOIN (SELECT * FROM history WHERE step_no = 0) AS h USING (task_id)
        LEFT JOIN counted AS c USING (task_id)
        LEFT JOIN marked AS q USING (task_id)
    ),
    pending AS MATERIALIZED (
        -- Steps that may be ready: of tasks that go on, and have begun.
        SELECT w.task_id, p.step_no, p.parents, w.goes_on, w.concurrent,
               w.running + w.waiting = 0 AS is_free
        FROM whole AS w
        JOIN tasker.plan_step AS p USING (plan_id)
        LEFT JOIN step AS s ON s.task_id = w.task_id
                           AND s.step_no = p.step_no
        WHERE w.state IN (0, 1, 2)
          AND NOT w.has_start
          AND coalesce(s.state, 0) = 0
    ),
    edge AS (
        SELECT s.task_id, s.step_no, unnest(s.parents) AS parent_no, s.start_at, s.start_id, true AS reached
        FROM step AS s
        WHERE s.state IN (1, 2, 3, 4, 7)
           OR s.attempts > 0
        UNION ALL
        SELECT p.task_id, p.step_no, unnest(p.parents), NULL, NULL, false
        FROM pending AS p
    ),
    open_edge AS MATERIALIZED (
        SELECT e.*, coalesce(p.satisfies, false) AS satisfied, p.state AS parent_state, p.satisfied_at
        FROM edge AS e
        LEFT JOIN step AS p ON p.task_id = e.task_id
                           AND p.step_no = e.parent_no
        WHERE p.satisfies IS NOT TRUE
           OR e.start_at < p.satisfied_at AND e.start_id < p.satisfied_id
    ),
    may_run AS MATERIALIZED (
        SELECT p.task_id, p.step_no, p.goes_on, p.concurrent, p.is_free
        FROM pending AS p
        LEFT JOIN (
            SELECT DISTINCT e.task_id, e.step_no
            FROM open_edge AS e
            WHERE NOT e.reached
              AND NOT e.satisfied) AS b ON b.task_id = p.task_id
                                       AND b.step_no = p.step_no
        WHERE b.task_id IS NULL
    ),
    ready AS MATERIALIZED (
        SELECT m.task_id, m.step_no, m.goes_on
        FROM may_run AS m
        WHERE m.concurrent
        UNION ALL
        -- one at a time: the first of them, and none while one is under way
        SELECT m.task_id, min(m.step_no), bool_and(m.goes_on)
        FROM may_run AS m
        WHERE NOT m.concurrent
          AND m.is_free
        GROUP BY m.task_id
    ),
    placed AS MATERIALIZED (
        -- A token with whatever it may stand for.
        SELECT q.*,
               w.state AS task_state, w.ended AS task_ended, w.has_plan, w.step_count, w.has_timeout, w.has_remains, w.steps,
               w.namespace, w.version, w.tokens, w.goes_on,
               coalesce(s.state, 0::smallint) AS state, s.next_attempt_at, s.lease_until,
               r.task_id IS NOT NULL AS is_ready,
               -- Put off by an executor it may be, but not for long.
               coalesce(s.state = 2
                        AND (q.due < s.next_attempt_at
                             -- (by a circuit breaker it may be for any time)
                             OR q.lane = -1 AND q.due_lane IS DISTINCT FROM 3 AND q.due > greatest(s.next_attempt_at, tasker.clock()) + interval '1 minute'),
                        false) AS is_mistimed,
               p.handler_class,
               coalesce(p.handler_type = 'api', false) AS is_api
        FROM token AS q
        LEFT JOIN whole AS w USING (task_id)
        LEFT JOIN step AS s USING (task_id, step_no)
        LEFT JOIN ready AS r USING (task_id, step_no)
        LEFT JOIN tasker.plan_step AS p USING (plan_id, step_no)
    ),
    found (problem, task_id, step_no, detail) AS (
        -- Tasks
        SELECT 'task without a plan', w.task_id, NULL::smallint,
               format('Plan %s does not exist.', w.plan_id)
        FROM whole AS w
        WHERE NOT w.has_plan
        UNION ALL
        SELECT 'history does not lead to the state', w.task_id, NULL,
               CASE WHEN w.distance IS NULL THEN format('The task is %s, and the log has no row of it.', coalesce(tasker._task_state(w.state)::text, 'in state ' || w.state))
                    ELSE format('The task is %s.', coalesce(tasker._task_state(w.state)::text, 'in state ' || w.state)) END
        FROM whole AS w
        WHERE w.distance IS DISTINCT FROM (1::bigint << (w.state + 1) * 7) - 1
           OR w.state NOT BETWEEN 0 AND 6
        UNION ALL
        SELECT 'illegal move', w.task_id, NULL,
               format('%s rows of the log are moves that tasker.transition_rules does not have.', w.illegal)
        FROM whole AS w
        WHERE w.illegal > 0
        UNION ALL
        SELECT 'time does not suit the state', w.task_id, NULL,
               format('The task is %s; started_at is %s, finished_at %s.', tasker._task_state(w.state),
                      CASE WHEN w.has_started_at THEN 'set' ELSE 'NULL' END,
                      CASE WHEN w.has_finished_at THEN 'set' ELSE 'NULL' END)
        FROM whole AS w
        WHERE w.state BETWEEN 0 AND 6
          AND (w.has_finished_at <> w.ended
               OR w.has_started_at <> (coalesce(w.starts, 0) > 0))
        UNION ALL
        SELECT 'error does not suit the state', w.task_id, NULL,
               format('The task is %s and its error is %s.', tasker._task_state(w.state),
                      CASE WHEN w.has_error THEN 'set' ELSE 'NULL' END)
        FROM whole AS w
        WHERE w.state = 4 AND NOT w.has_error
           OR w.state = 3 AND w.has_error
        UNION ALL
        SELECT 'steps do not suit the state', w.task_id, NULL,
               format('The task is %s; of its %s steps %s satisfy those behind them, %s are in error, %s in progress, %s waiting for a retry, %s have ended.',
                      tasker._task_state(w.state), w.step_count, w.satisfied, w.errors, w.running, w.waiting, w.ended_steps)
        FROM whole AS w
        WHERE w.has_plan
          AND CASE w.state
                  WHEN 3 THEN w.satisfied <> w.step_count
                  WHEN 5 THEN w.ended_steps <> w.step_count
                  WHEN 4 THEN w.failures = 0 AND NOT w.has_timeout
                  WHEN 6 THEN w.failures = 0 AND NOT w.has_timeout
                  ELSE false
              END
        UNION ALL
        SELECT 'task that nothing will move', w.task_id, NULL,
               format('The task is %s, and no step of it is ready, in progress or waiting for a retry.', tasker._task_state(w.state))
        FROM whole AS w
        LEFT JOIN (SELECT DISTINCT r.task_id FROM ready AS r) AS r USING (task_id)
        WHERE w.has_plan
          AND w.state IN (0, 1)
          AND NOT w.has_start
          AND w.running = 0
          AND NOT (w.goes_on AND (w.waiting > 0 OR r.task_id IS NOT NULL))
        UNION ALL
        SELECT 'steps that run one at a time run together', w.task_id, NULL,
               format('%s of its steps are in progress and %s wait for a retry.', w.running, w.waiting)
        FROM whole AS w
        WHERE NOT w.concurrent
          AND w.running + w.waiting > 1
        UNION ALL
        SELECT 'task without its deadline', w.task_id, NULL,
               'The task is in progress, its plan has a timeout, and no token stands for that.'
        FROM whole AS w
        WHERE w.has_timeout
          AND w.state = 1
          AND NOT w.has_deadline
        UNION ALL
        SELECT 'idempotency key without its task', i.task_id, NULL,
               format('Key "%s" of namespace "%s" names it.', i.idempotency_key, i.namespace)
        FROM tasker.idempotency AS i
        LEFT JOIN task AS t ON t.task_id = i.task_id
                           AND t.idempotency_key = i.idempotency_key
                           AND t.namespace = i.namespace
        WHERE t.task_id IS NULL
        UNION ALL
        SELECT 'task without its idempotency key', t.task_id, NULL,
               format('tasker.idempotency does not have its key "%s".', t.idempotency_key)
        FROM task AS t
        LEFT JOIN tasker.idempotency AS i ON i.task_id = t.task_id
                                         AND i.idempotency_key = t.idempotency_key
                                         AND i.namespace = t.namespace
        WHERE t.idempotency_key IS NOT NULL
          AND i.task_id IS NULL

        -- Steps
        UNION ALL
        SELECT 'history without its task', h.task_id, nullif(h.step_no, 0),
               'The log has rows of it, and tasker.task has no such row.'
        FROM history AS h
        LEFT JOIN task AS t USING (task_id)
        WHERE t.task_id IS NULL
        UNION ALL
        SELECT 'history without its step', s.task_id, s.step_no,
               'The log has rows of it, and tasker.step has no such row.'
        FROM step AS s
        WHERE NOT s.has_row
          AND s.task_state IS NOT NULL
        UNION ALL
        SELECT 'step without its task', s.task_id, s.step_no, 'tasker.task has no such row.'
        FROM step AS s
        WHERE s.has_row
          AND s.task_state IS NULL
        UNION ALL
        SELECT 'step that the plan does not have', s.task_id, s.step_no, format('Its number is %s.', s.step_no)
        FROM step AS s
        WHERE s.has_row
          AND s.has_plan
          AND NOT s.in_plan
        UNION ALL
        SELECT 'history does not lead to the state', s.task_id, s.step_no,
               CASE WHEN s.distance IS NULL THEN format('The step is %s, and the log has no row of it.', coalesce(tasker._step_state(s.state)::text, 'in state ' || s.state))
                    ELSE format('The step is %s.', coalesce(tasker._step_state(s.state)::text, 'in state ' || s.state)) END
        FROM step AS s
        WHERE s.has_row
          AND (coalesce(s.distance, 0) <> (1::bigint << (s.state + 1) * 7) - (1 << 7)
               OR s.state NOT BETWEEN 0 AND 7)
        UNION ALL
        SELECT 'illegal move', s.task_id, s.step_no,
               format('%s rows of the log are moves that tasker.transition_rules does not have.', s.illegal)
        FROM step AS s
        WHERE s.illegal > 0
        UNION ALL
        SELECT 'attempts differ from the history', s.task_id, s.step_no,
               format('The step has %s attempts; the log has %s starts, and %s as the highest attempt.',
                      s.attempts, coalesce(s.starts, 0), coalesce(s.logged_attempts, 0))
        FROM step AS s
        WHERE s.has_row
          AND (s.attempts <> coalesce(s.starts, 0)
               OR s.attempts <> coalesce(s.logged_attempts, 0)
               OR s.attempts::bigint * (s.attempts + 1) / 2 <> coalesce(s.attempt_sum, 0))
        UNION ALL
        SELECT 'time does not suit the state', s.task_id, s.step_no,
               format('The step is %s after %s attempts; started_at is %s, finished_at %s, next_attempt_at %s.',
                      tasker._step_state(s.state), s.attempts,
                      CASE WHEN s.has_started_at THEN 'set' ELSE 'NULL' END,
                      CASE WHEN s.has_finished_at THEN 'set' ELSE 'NULL' END,
                      coalesce(s.next_attempt_at::text, 'NULL'))
        FROM step AS s
        WHERE s.has_row
          AND s.state BETWEEN 0 AND 7
          AND (s.has_started_at <> (s.attempts > 0)
               OR s.has_finished_at <> (s.state IN (3, 4, 5, 6, 7))
               OR (s.next_attempt_at IS NOT NULL) <> (s.state = 2))
        UNION ALL
        SELECT 'error does not suit the state', s.task_id, s.step_no,
               format('The step is %s and its error is %s.', tasker._step_state(s.state),
                      CASE WHEN s.has_error THEN 'set' ELSE 'NULL' END)
        FROM step AS s
        WHERE s.state IN (2, 4) AND NOT s.has_error
           OR s.state = 3 AND s.has_error
        UNION ALL
        SELECT 'lease does not suit the state', s.task_id, s.step_no,
               format('The step is %s; claimed_by is %s, lease_until %s.', tasker._step_state(s.state),
                      coalesce(quote_literal(s.claimed_by), 'NULL'), coalesce(s.lease_until::text, 'NULL'))
        FROM step AS s
        WHERE s.has_row
          AND ((s.claimed_by IS NOT NULL) <> (s.state = 1)
               OR (s.lease_until IS NOT NULL) <> (s.state = 1))
        UNION ALL
        SELECT 'step goes on in a task that does not', s.task_id, s.step_no,
               format('The step is %s, the task %s.', tasker._step_state(s.state), tasker._task_state(s.task_state))
        FROM step AS s
        WHERE s.state = 1 AND s.task_state NOT IN (1, 2)
           OR s.state = 2 AND s.task_ended AND NOT s.may_be_left
        UNION ALL
        SELECT 'step started before one that it needs', e.task_id, e.step_no,
               CASE WHEN e.satisfied THEN format('It started at %s, and step %s of the task came to its end at %s.', e.start_at, e.parent_no, e.satisfied_at)
                    ELSE format('Step %s of the task is %s.', e.parent_no, tasker._step_state(coalesce(e.parent_state, 0::smallint))) END
        FROM open_edge AS e
        WHERE e.reached

        -- What waits
        UNION ALL
        SELECT 'ready step without a token', r.task_id, r.step_no, 'Nobody will start it.'
        FROM ready AS r
        LEFT JOIN token AS q USING (task_id, step_no)
        WHERE r.goes_on
          AND q.task_id IS NULL
        UNION ALL
        SELECT 'waiting step without a token', s.task_id, s.step_no, 'Nobody will retry it.'
        FROM step AS s
        JOIN whole AS w USING (task_id)
        LEFT JOIN token AS q USING (task_id, step_no)
        WHERE s.state = 2
          AND w.goes_on
          AND q.task_id IS NULL
        UNION ALL
        SELECT 'leased step without a token', s.task_id, s.step_no, 'Nobody will notice that its lease has ended.'
        FROM step AS s
        LEFT JOIN token AS q USING (task_id, step_no)
        WHERE s.state = 1
          AND q.task_id IS NULL
        UNION ALL
        SELECT 'token without its task', q.task_id, CASE WHEN q.step_no > 0 THEN q.step_no END,
               format('Token %s of it waits in lane %s.', q.step_no, q.lane)
        FROM placed AS q
        WHERE q.task_state IS NULL
        UNION ALL
        SELECT 'token of a task that has ended', q.task_id, CASE WHEN q.step_no > 0 THEN q.step_no END,
               format('Token %s of it waits in lane %s, and the task is %s.', q.step_no, q.lane, tasker._task_state(q.task_state))
        FROM placed AS q
        WHERE q.task_ended
          -- What somebody had in hand when the task ended goes with a token that stands for that.
          AND NOT q.in_hand
          AND NOT q.has_remains
        UNION ALL
        SELECT 'token that the plan does not have', q.task_id, CASE WHEN q.step_no > 0 THEN q.step_no END,
               format('Its number is %s.', q.step_no)
        FROM placed AS q
        WHERE q.has_plan
          AND q.step_no NOT BETWEEN CASE WHEN q.task_ended THEN -2 ELSE -1 END AND q.step_count
        UNION ALL
        SELECT 'start token of a task that has begun', q.task_id, NULL,
               format('The task is %s, %s of its steps have a row or a history, and %s tokens stand for it.',
                      tasker._task_state(q.task_state), q.steps, q.tokens)
        FROM placed AS q
        WHERE q.step_no = 0
          AND NOT q.task_ended
          AND (q.task_state <> 0 OR q.steps > 0 OR q.tokens > 1)
        UNION ALL
        SELECT 'deadline of a task that has none', q.task_id, NULL,
               format('The task is %s, and its plan has %s timeout.', tasker._task_state(q.task_state),
                      CASE WHEN q.has_timeout THEN 'a' ELSE 'no' END)
        FROM placed AS q
        WHERE q.step_no = -1
          AND NOT q.task_ended
          AND (q.task_state NOT IN (1, 2) OR NOT q.has_timeout)
        UNION ALL
        SELECT 'token of a step that does not wait', q.task_id, q.step_no,
               format('The step is %s, the task %s.', tasker._step_state(q.state), tasker._task_state(q.task_state))
        FROM placed AS q
        WHERE q.step_no BETWEEN 1 AND q.step_count
          AND NOT q.task_ended
          AND NOT (q.state = 1
                   OR q.task_state <> 2 AND (q.state = 2 OR q.is_ready))
        UNION ALL
        SELECT 'token of the wrong form', q.task_id, CASE WHEN q.step_no > 0 THEN q.step_no END,
               format('Token %s stands in lane %s for lane %s with rank %s, due at %s; %s.',
                      q.step_no, q.lane, coalesce(q.due_lane::text, 'NULL'), q.rank, q.due,
                      CASE
                          WHEN q.step_no = 0 THEN 'a start belongs in lane 0, or in lane -1 for lane 0'
                          WHEN q.step_no = -1 THEN 'a deadline belongs in lane -1 for none'
                          WHEN q.state = 1 THEN format('the lease belongs in lane -1 for none, due at %s', coalesce(q.lease_until::text, 'its end'))
                          WHEN q.is_mistimed THEN format('the retry is due at %s', q.next_attempt_at)
                          WHEN q.lane = -1 AND q.rank <> 0 THEN 'in lane -1 the rank is 0'
                          WHEN q.is_api THEN 'an api step belongs in lane 3'
                          ELSE format('a step of handler "%s" belongs in one of the lanes 0 to 2, or in that of the external handler', q.handler_class)
                      END)
        FROM placed AS q
        LEFT JOIN tasker.handler AS h ON h.handler_id = q.target
                                     AND h.kind = 'external'
                                     AND h.name = q.handler_class
                                     AND h.namespace IN (q.namespace, 'default')
                                     AND coalesce(h.version, q.version) = q.version
        WHERE NOT q.task_ended
          AND q.has_plan
          AND (q.lane = -1 AND q.rank <> 0
               OR q.lane >= 0 AND q.due_lane IS NOT NULL
               OR q.lane BETWEEN -1000 AND -2
               OR q.lane < -1000 AND (q.step_no < 1 OR q.target > 2)
               OR CASE
                      WHEN q.step_no = 0 THEN q.target IS DISTINCT FROM 0
                      WHEN q.step_no = -1 THEN q.lane <> -1 OR q.due_lane IS NOT NULL
                      WHEN q.state = 1 THEN q.lane <> -1 OR q.due_lane IS NOT NULL OR q.due IS DISTINCT FROM q.lease_until
                      WHEN q.is_mistimed THEN true
                      WHEN q.state = 2 OR q.is_ready THEN
                          CASE WHEN q.is_api THEN q.target IS DISTINCT FROM 3
                               ELSE q.target IS NULL OR q.target NOT IN (0, 1, 2) AND h.handler_id IS NULL END
                      ELSE false
                  END)

        -- What a crash left, and plans
        UNION ALL
        SELECT 'crash count without its step', c.task_id, c.step_no,
               CASE WHEN t.task_id IS NULL THEN 'tasker.task has no such row.' ELSE 'The plan has no such step.' END
        FROM tasker.crash AS c
        LEFT JOIN task AS t USING (task_id)
        WHERE t.task_id IS NULL
           OR t.has_plan AND c.step_no NOT BETWEEN 1 AND t.step_count
        UNION ALL
        SELECT 'annotation without its task or type', a.task_id, NULL, format('Annotation %s is of type %s.', a.task_annotation_id, a.annotation_type_id)
        FROM tasker.task_annotation AS a
        LEFT JOIN task AS t ON t.task_id = a.task_id
        LEFT JOIN tasker.annotation_type AS y ON y.annotation_type_id = a.annotation_type_id
        WHERE t.task_id IS NULL
           OR y.annotation_type_id IS NULL
        UNION ALL
        SELECT 'mapped object without its system', NULL, NULL, format('Pair %s names systems %s and %s.', m.dependent_system_object_map_id, m.dependent_system_one_id, m.dependent_system_two_id)
        FROM tasker.dependent_system_object_map AS m
        LEFT JOIN tasker.dependent_system AS one ON one.dependent_system_id = m.dependent_system_one_id
        LEFT JOIN tasker.dependent_system AS two ON two.dependent_system_id = m.dependent_system_two_id
        WHERE one.dependent_system_id IS NULL
           OR two.dependent_system_id IS NULL
        UNION ALL
        SELECT 'plan without its template', NULL, NULL, format('Plan %s names template %s, which does not exist.', p.plan_id, p.template_id)
        FROM tasker.plan AS p
        LEFT JOIN tasker.template AS t ON t.template_id = p.template_id
        WHERE t.template_id IS NULL
        UNION ALL
        SELECT 'steps of a plan are not numbered from 1 to its count', NULL, NULL,
               format('Plan %s counts %s steps, and has %s of them, numbered from %s to %s.',
                      coalesce(p.plan_id, s.plan_id), coalesce(p.step_count::text, 'no'), coalesce(s.steps, 0), s.first, s.last)
        FROM tasker.plan AS p
        FULL JOIN (
            SELECT x.plan_id, count(*) AS steps, min(x.step_no) AS first, max(x.step_no) AS last
            FROM tasker.plan_step AS x
            GROUP BY x.plan_id) AS s ON s.plan_id = p.plan_id
        WHERE (s.steps, s.first, s.last) IS DISTINCT FROM (p.step_count::bigint, 1::smallint, p.step_count)
        UNION ALL
        SELECT 'parents and children of a plan differ', NULL, NULL,
               format('In plan %s step %s %s a child of step %s, and that %s a parent of it.',
                      coalesce(u.plan_id, d.plan_id), coalesce(u.child, d.child),
                      CASE WHEN d.plan_id IS NULL THEN 'is not' ELSE 'is' END, coalesce(u.parent, d.parent),
                      CASE WHEN u.plan_id IS NULL THEN 'is not' ELSE 'is' END)
        FROM (SELECT x.plan_id, x.step_no AS child, unnest(x.parents) AS parent FROM tasker.plan_step AS x) AS u
        FULL JOIN (SELECT x.plan_id, unnest(x.children) AS child, x.step_no AS parent FROM tasker.plan_step AS x) AS d
            ON d.plan_id = u.plan_id
           AND d.child = u.child
           AND d.parent = u.parent
        WHERE u.plan_id IS NULL
           OR d.plan_id IS NULL
        UNION ALL
        SELECT 'level of a plan''s step is wrong', NULL, NULL,
               format('In plan %s step %s has level %s instead of %s.', x.plan_id, x.step_no, x.level, coalesce(u.level + 1, 0))
        FROM tasker.plan_step AS x
        LEFT JOIN (
            SELECT e.plan_id, e.step_no, max(p.level) AS level
            FROM (SELECT y.plan_id, y.step_no, unnest(y.parents) AS parent FROM tasker.plan_step AS y) AS e
            JOIN tasker.plan_step AS p ON p.plan_id = e.plan_id
                                      AND p.step_no = e.parent
            GROUP BY e.plan_id, e.step_no) AS u ON u.plan_id = x.plan_id
                                               AND u.step_no = x.step_no
        WHERE x.level <> coalesce(u.level + 1, 0)
    )
    SELECT f.problem, f.task_id, f.task_id << 14 | f.step_no, f.detail
    FROM found AS f
    ORDER BY f.task_id, f.step_no, f.problem, f.detail;
$$;
COMMENT ON FUNCTION tasker.verify() IS
'Everything that must hold between the log, the states, the queue, the leases and the plans, checked from scratch; no row when all is sound, also while the engine runs. Returns a row for each break: problem, in a few words; task_id and step_id, NULL where it is not one''s; detail, with what was found. It reads every table once: run it when you suspect something, after a restore, or at night. Raises nothing of its own. Source: design, contract, "Reading".';
