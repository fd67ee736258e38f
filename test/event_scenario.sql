-- Brings about every event of the catalogue, in a database that has the extension,
-- on a server whose executors run.  For psql; run by the tests of the catalogue, and
-- by `make doc`, which takes the examples from here.
SET client_min_messages = error;

CREATE SCHEMA event_scenario;
-- Fails as often as the task says, then adds a field of its own to its completion.
CREATE FUNCTION event_scenario.charge(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    IF step.attempt <= (step.context ->> 'failures')::integer THEN
        PERFORM tasker.retryable_error('card service is busy', (step.context ->> 'retry_after')::interval);
    END IF;
    RETURN jsonb_build_object('charged', true, '_event', jsonb_build_object('operation_count', 2));
END;
$$;
CREATE FUNCTION event_scenario.ship(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    IF (step.context ->> 'address') IS NULL THEN
        PERFORM tasker.permanent_error('order has no address', '{"field": "address"}');
    END IF;
    PERFORM tasker.publish_event('scenario.shipped', '{"parcels": 1}');
    RETURN '{"parcels": 1}';
END;
$$;
SELECT tasker.register_handler('scenario_charge', 'event_scenario.charge', 'event_scenario');
SELECT tasker.register_handler('scenario_ship', 'event_scenario.ship', 'event_scenario');
SELECT tasker.register_handler('scenario_ship', 'event_scenario.ship', 'event_scenario', replace => true);
SELECT tasker.register_external_handler('scenario_old', 'event_scenario');
SELECT tasker.unregister_handler('scenario_old', 'event_scenario');
SELECT tasker.register_event('scenario.shipped', 'An order was shipped',
    '{"type": "object", "required": ["parcels"], "properties": {"parcels": {"type": "integer", "minimum": 1}}}');

SELECT tasker.register_task($$
name: order
namespace_name: event_scenario
step_templates:
  - {name: charge, handler_class: scenario_charge}
$$) > 0 AS registered;
SELECT tasker.register_task($$
name: order
namespace_name: event_scenario
step_templates:
  - {name: charge, handler_class: scenario_charge}
  - {name: gift_wrap, handler_class: scenario_charge, depends_on_step: charge}
  - {name: ship, handler_class: scenario_ship, depends_on_steps: [charge, gift_wrap]}
$$, replace => true) > 0 AS registered;

SELECT tasker.subscribe('event_scenario', ARRAY['task.completed'], namespace => 'event_scenario');
SELECT tasker.unsubscribe('event_scenario');

CREATE FUNCTION event_scenario.create_task(context jsonb, run_at timestamptz DEFAULT NULL)
RETURNS bigint
LANGUAGE sql AS $$
    SELECT tasker.create_task('order', context, 'event_scenario', initiator => 'shop', source_system => 'web',
                              tags => ARRAY['vip'], bypass_steps => ARRAY['gift_wrap'], correlation_id => 'order-7', run_at => run_at);
$$;

-- An attempt fails, the next one does not; a step is skipped; a handler publishes.
SELECT event_scenario.create_task('{"order_id": 7, "failures": 1, "retry_after": "10 ms", "address": "Main Street 1"}') AS task \gset
SELECT tasker.wait_for_task(:task, '60 s') AS state;

-- It fails for good, again after a retry, and is dealt with by hand.
SELECT event_scenario.create_task('{"order_id": 8, "failures": 0}') AS task \gset
SELECT tasker.wait_for_task(:task, '60 s') AS state;
SELECT tasker.retry_task(:task) AS state;
SELECT tasker.wait_for_task(:task, '60 s') AS state;
SELECT tasker.resolve_task(:task, 'refunded by hand') AS state;

-- Its step is.
SELECT event_scenario.create_task('{"order_id": 9, "failures": 0}') AS task \gset
SELECT tasker.wait_for_task(:task, '60 s') AS state;
SELECT tasker.resolve_step(:task << 14 | 3, '{"parcels": 2}', 'shipped by hand') AS state;
SELECT tasker.wait_for_task(:task, '60 s') AS state;

-- It waits for its retry.
CREATE PROCEDURE event_scenario.until(condition text)
LANGUAGE plpgsql AS $$
DECLARE
    holds boolean;
    give_up constant timestamptz := clock_timestamp() + interval '60 s';
BEGIN
    LOOP
        EXECUTE 'SELECT ' || condition INTO holds;
        EXIT WHEN holds;
        IF clock_timestamp() > give_up THEN
            RAISE EXCEPTION 'it never came to this: %', condition;
        END IF;
        COMMIT;
        PERFORM pg_sleep(0.005);
    END LOOP;
END;
$$;
SELECT event_scenario.create_task('{"order_id": 10, "failures": 1, "retry_after": "1 hour"}') AS task \gset
CALL event_scenario.until('EXISTS (SELECT FROM tasker.workflow_steps WHERE task_id = ' || :task || ' AND state = ''waiting_for_retry'')');

-- It never starts.
SELECT event_scenario.create_task('{"order_id": 11, "failures": 0}', now() + interval '1 day') AS task \gset
SELECT tasker.pause_task(:task) AS state;
SELECT tasker.resume_task(:task) AS state;
SELECT tasker.cancel_task(:task, 'ordered twice') AS state;
