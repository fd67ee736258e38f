-- Everything that the engine does, a few times, so that auto_explain sees each of
-- its statements at work.  Ends with the queue as it was.

-- Tasks that run through.
SELECT tasker.create_task('diamond') AS diamond \gset
SELECT tasker.wait_for_task(:diamond);
SELECT tasker.create_task('one', idempotency_key => 'hot ' || clock_timestamp()) FROM generate_series(1, 10);
SELECT max(id) AS last FROM tasker.create_tasks('diamond', array_fill('{"n": 1}'::jsonb, ARRAY[1000])) AS id \gset
SELECT tasker.wait_for_task(:last);
SELECT max(tasker.create_task('spread')) AS spread FROM generate_series(1, 20) \gset
SELECT tasker.wait_for_task(:spread);
SELECT max(tasker.create_task('own')) AS own FROM generate_series(1, 5) \gset
SELECT tasker.wait_for_task(:own);
SELECT tasker.run_task('diamond');

-- What waits, is retried, or goes wrong.
SELECT max(tasker.create_task('one', run_at => clock_timestamp() + interval '0.3 s')) AS later FROM generate_series(1, 10) \gset
SELECT max(tasker.create_task('flaky')) AS flaky FROM generate_series(1, 10) \gset
SELECT max(tasker.create_task('broken')) AS broken FROM generate_series(1, 10) \gset
SELECT tasker.wait_for_task(:later);
SELECT tasker.wait_for_task(:flaky);
SELECT tasker.wait_for_task(:broken);
SELECT max(tasker.create_task('hasty')) AS hasty FROM generate_series(1, 3) \gset
SELECT tasker.wait_for_task(:hasty);
SELECT tasker.set_max_in_progress(1, handler => 'limited');
SELECT max(tasker.create_task('limited')) AS limited FROM generate_series(1, 20) \gset
SELECT tasker.wait_for_task(:limited);
SELECT tasker.set_max_in_progress(NULL, handler => 'limited');

-- Operators.
SELECT tasker.retry_task(:broken);
SELECT tasker.wait_for_task(:broken);
SELECT tasker.retry_step(:broken::bigint << 14 | 1);
SELECT tasker.wait_for_task(:broken);
SELECT tasker.resolve_step(:broken::bigint << 14 | 1, '{"by": "hand"}');
SELECT tasker.wait_for_task(:broken);
SELECT tasker.resolve_task(:broken - 1, 'enough');
SELECT tasker.create_task('one', run_at => clock_timestamp() + interval '1 day') AS far \gset
SELECT tasker.pause_task(:far);
SELECT tasker.resume_task(:far);
SELECT tasker.update_task(:far, priority => 5);
SELECT tasker.update_step(:far::bigint << 14 | 1, retry_limit => 5);
SELECT tasker.cancel_step(:far::bigint << 14 | 1);
SELECT tasker.create_task('one', run_at => clock_timestamp() + interval '1 day') AS far \gset
SELECT tasker.cancel_task(:far);

-- Workers outside.
SELECT max(tasker.create_task('hot')) AS hot FROM generate_series(1, 10) \gset
SELECT pg_sleep(0.2);
SELECT array_agg(step_id) AS leased FROM tasker.claim_steps('worker', '{hot}', max_steps => 10, lease => '0.3 s') \gset
SELECT tasker.heartbeat('worker', :'leased', '0.3 s');
SELECT pg_sleep(0.6);
SELECT array_agg(step_id) AS leased FROM tasker.claim_steps('worker', '{hot}', max_steps => 10) \gset
SELECT tasker.complete_steps((:'leased'::bigint[])[1:8], array_fill('{"ok": true}'::jsonb, ARRAY[8]), 'worker');
SELECT tasker.fail_step((:'leased'::bigint[])[9], '{"message": "no"}', retryable => false, worker => 'worker');
SELECT tasker.fail_steps((:'leased'::bigint[])[10:10], ARRAY['{"message": "no"}'::jsonb], retryable => false, worker => 'worker');
SELECT array_agg(step_id) AS leased FROM tasker.claim_steps('worker', '{hot}', '{default}', max_steps => 4, bound_to_session => true) \gset
SELECT tasker.complete_step((:'leased'::bigint[])[1], '{"ok": true}', 'worker');
\connect
SELECT pg_sleep(0.3);
SELECT count(tasker.cancel_task(task_id)) FROM tasker.tasks
WHERE task_id BETWEEN :hot - 9 AND :hot AND state IN ('pending', 'in_progress', 'error');

-- Readers of one task.
SELECT tasker.task_status(:diamond);
SELECT * FROM tasker.tasks WHERE task_id = :diamond;
SELECT * FROM tasker.workflow_steps WHERE task_id = :diamond;
SELECT * FROM tasker.workflow_step_edges WHERE task_id = :diamond;
SELECT * FROM tasker.transitions WHERE task_id = :diamond;
SELECT * FROM tasker.transitions ORDER BY transition_id DESC LIMIT 10;
SELECT * FROM tasker.step_readiness(:diamond);
SELECT * FROM tasker.task_execution_context(:diamond);
SELECT * FROM tasker.dependency_levels(:diamond);
SELECT tasker.task_diagram(:diamond);
SELECT tasker.health_check();
SELECT tasker.registry_stats();
