-- Creating tasks and waiting for them.  The templates stand in a namespace of
-- their own, and their steps wait for a worker outside, so that nothing of them
-- is ever done; "quick" is what the engine runs.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS tasker;
\set SHOW_CONTEXT never

CREATE ROLE regress_tasker_creator;
CREATE SCHEMA regress_task;
GRANT ALL ON SCHEMA regress_task TO regress_tasker_creator;
SET ROLE regress_tasker_creator;
CREATE FUNCTION regress_task.quick(step tasker.step_context) RETURNS jsonb
LANGUAGE sql AS $$ SELECT jsonb_build_object('did', step.step_name) $$;
CREATE FUNCTION regress_task.returns_text(step tasker.step_context) RETURNS text
LANGUAGE sql AS $$ SELECT '' $$;
SELECT tasker.register_handler('quick', 'regress_task.quick', 'rt');
SELECT tasker.register_external_handler('outside', 'rt');

-- What an error says, field by field, without the lines that change.
CREATE FUNCTION regress_task.refusal(call text)
RETURNS TABLE (field text, value text)
LANGUAGE plpgsql
AS $$
DECLARE
    state text;
    message text;
    detail text;
    hint text;
BEGIN
    EXECUTE call;
    RETURN QUERY VALUES ('it went through', call);
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS
        state = RETURNED_SQLSTATE,
        message = MESSAGE_TEXT,
        detail = PG_EXCEPTION_DETAIL,
        hint = PG_EXCEPTION_HINT;
    RETURN QUERY VALUES ('sqlstate', state), ('message', message), ('detail', detail), ('hint', hint);
END;
$$;

CREATE FUNCTION regress_task.template(version text, more text DEFAULT '')
RETURNS void
LANGUAGE sql
AS $$
    SELECT tasker.register_task(format($yaml$
name: order
namespace_name: rt
version: %s
step_templates:
  - {name: fetch, handler_class: outside}
  - {name: pay, handler_class: outside, depends_on_step: fetch}
%s$yaml$, version, more));
$$;
SELECT regress_task.template('1.9.0');
SELECT regress_task.template('1.10.0-rc.1');
SELECT regress_task.template('1.10.0', $$
priority: 7
schema:
  type: object
  required: [cart_id]
  additionalProperties: false
  properties:
    cart_id: {type: integer, minimum: 1, maximum: 99}
    currency: {type: string, enum: [EUR, CHF], default: EUR}
    weight: {type: number, exclusiveMinimum: 0, exclusiveMaximum: 30}
    lines:
      type: array
      minItems: 1
      items:
        type: object
        required: [sku]
        properties:
          sku: {type: string, minLength: 3, pattern: '^[a-z]+$'}
          quantity: {type: integer, default: 1}
environments:
  live: {priority: 9}
$$);
SELECT tasker.register_task($yaml$
name: quick
namespace_name: rt
step_templates:
  - {name: a, handler_class: quick}
  - {name: b, handler_class: quick, depends_on_step: a}
$yaml$) > 0 AS registered;
SELECT tasker.register_task($yaml$
name: tested
namespace_name: rt
environments:
  test: {priority: 4}
step_templates:
  - {name: a, handler_class: outside}
$yaml$, 'test') > 0 AS registered;

-- The highest version by semantic versioning; defaults of the schema are filled
-- in, at any depth, and stored.
SELECT tasker.create_task('order', '{"cart_id": 5, "lines": [{"sku": "abc"}]}', 'rt') AS id \gset
SELECT name, namespace, version, context, priority, environment, tags, bypass_steps,
       idempotency_key, initiator, reason, source_system, correlation_id, run_at, finished_at, error
FROM tasker.tasks
WHERE task_id = :id \gx

-- Everything that a task can be given.
SELECT tasker.create_task('order', '{}', 'rt', '1.9.0', 'me', 'because', 'shop', '{a,b}', '{pay}', NULL, 3,
                          '2099-01-01 00:00+00', 'corr', '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01') AS id \gset
SELECT version, state, context, priority, tags, bypass_steps, initiator, reason, source_system,
       correlation_id, traceparent, run_at = '2099-01-01 00:00+00' AS runs_later, started_at
FROM tasker.tasks
WHERE task_id = :id \gx
-- It stands among what is not due.
SELECT lane, due_lane, step_no, due = '2099-01-01 00:00+00' AS runs_later
FROM tasker.queue
WHERE task_id = :id;
SELECT s.step_id = s.task_id << 14 | row_number() OVER (ORDER BY s.step_id) AS numbered, s.name, s.state,
       s.attempts, s.retry_limit, s.inputs
FROM tasker.workflow_steps AS s
WHERE s.task_id = :id
ORDER BY s.step_id;
SELECT from_state, to_state, step_id
FROM tasker.transitions
WHERE task_id = :id;

-- NULL for the namespace is the default one, and for the version the highest.
SELECT regress_task.refusal($$SELECT tasker.create_task('order', '{}', NULL)$$);

-- Environments: the setting decides, unless one was fixed at registration; the
-- task records which, also where the definition has no block for it.
SET tasker.environment = 'live';
SELECT tasker.create_task('order', '{"cart_id": 5}', 'rt') AS id \gset
SELECT environment, priority FROM tasker.tasks WHERE task_id = :id;
SELECT tasker.create_task('order', '{"cart_id": 5}', 'rt', priority => -2) AS id \gset
SELECT environment, priority FROM tasker.tasks WHERE task_id = :id;
SELECT tasker.create_task('tested', '{}', 'rt') AS id \gset
SELECT environment, priority FROM tasker.tasks WHERE task_id = :id;
SET tasker.environment = 'nowhere';
SELECT tasker.create_task('order', '{"cart_id": 5}', 'rt') AS id \gset
SELECT environment, priority FROM tasker.tasks WHERE task_id = :id;
RESET tasker.environment;

-- The same key makes one task in a namespace, whatever else the call says.
SELECT tasker.create_task('order', '{"cart_id": 1}', 'rt', idempotency_key => 'k') AS first \gset
SELECT tasker.create_task('order', '{"cart_id": 2}', 'rt', idempotency_key => 'k') = :first AS the_same;
SELECT tasker.create_task('tested', '{}', 'rt', idempotency_key => 'k') = :first AS the_same;
SELECT tasker.create_task('order', '{"cart_id": 2}', 'rt', idempotency_key => 'l') = :first AS the_same;
SELECT context, idempotency_key FROM tasker.tasks WHERE task_id = :first;
-- A call that fails leaves the key free.
SELECT regress_task.refusal($$SELECT tasker.create_task('order', '{}', 'rt', idempotency_key => 'm')$$);
SELECT tasker.create_task('order', '{"cart_id": 3}', 'rt', idempotency_key => 'm') > :first AS another;

-- Many at once, in the order of the contexts, all or none.
CREATE TEMPORARY TABLE made AS
SELECT c.task_id, c.place
FROM tasker.create_tasks('order', ARRAY['{"cart_id": 11}', '{"cart_id": 12}', '{"cart_id": 13}']::jsonb[], 'rt',
                         tags => '{bulk}') WITH ORDINALITY AS c (task_id, place);
SELECT m.place, t.context, t.tags
FROM made AS m
JOIN tasker.tasks AS t USING (task_id)
ORDER BY m.place;
SELECT count(*) AS tasks FROM tasker.tasks WHERE namespace = 'rt' \gset
SELECT regress_task.refusal(
    $$SELECT tasker.create_tasks('order', ARRAY['{"cart_id": 14}', '{"cart_id": 0}']::jsonb[], 'rt')$$);
SELECT count(*) - :tasks AS more_tasks FROM tasker.tasks WHERE namespace = 'rt';
SELECT count(*) AS of_none FROM tasker.create_tasks('order', '{}', 'rt');
SELECT count(*) AS of_null FROM tasker.create_tasks('order', NULL, 'rt');
SELECT array_agg(a) = (SELECT array_agg(b)
                       FROM tasker.create_tasks('order', ARRAY['{"cart_id": 1}', '{"cart_id": 2}']::jsonb[], 'rt',
                                                idempotency_key => 'bulk') AS b) AS the_same
FROM tasker.create_tasks('order', ARRAY['{"cart_id": 1}', '{"cart_id": 2}']::jsonb[], 'rt',
                         idempotency_key => 'bulk') AS a;

-- Bad calls: each has an error of its own that says what is wrong and what to do
-- about it, and none of them creates anything.
SELECT count(*) AS tasks FROM tasker.tasks WHERE namespace = 'rt' \gset
SELECT max(handler_id) AS handlers FROM tasker.handler \gset
\pset format unaligned
\pset tuples_only on
\pset fieldsep ': '
SELECT * FROM regress_task.refusal($$SELECT tasker.create_task('ordre', '{}', 'rt')$$);
SELECT * FROM regress_task.refusal($$SELECT tasker.create_task('zzzzzzzz', '{}', 'rt')$$);
SELECT * FROM regress_task.refusal($$SELECT tasker.create_task('order', '{}', 'rt', '2.0.0')$$);
SELECT * FROM regress_task.refusal($$SELECT tasker.create_task('order', '{"cart_id": 5}', 'nirgends')$$);
SELECT * FROM regress_task.refusal($$SELECT tasker.create_task(NULL, '{}', 'rt')$$);
SELECT * FROM regress_task.refusal($$SELECT tasker.create_task('order', '{"cart_id": "5"}', 'rt')$$);
SELECT * FROM regress_task.refusal($$SELECT tasker.create_task('order', '{"currency": "EUR"}', 'rt')$$);
SELECT * FROM regress_task.refusal($$SELECT tasker.create_task('order', '{"cart_id": 5, "colour": "red"}', 'rt')$$);
SELECT * FROM regress_task.refusal($$SELECT tasker.create_task('order', '{"cart_id": 5, "lines": [{"sku": "abc"}, {"quantity": 2}, 7]}', 'rt')$$);
SELECT * FROM regress_task.refusal($$SELECT tasker.create_task('order', '{"cart_id": 5, "currency": "GBP"}', 'rt')$$);
SELECT * FROM regress_task.refusal($$SELECT tasker.create_task('order', '{"cart_id": 0}', 'rt')$$);
SELECT * FROM regress_task.refusal($$SELECT tasker.create_task('order', '{"cart_id": 100}', 'rt')$$);
SELECT * FROM regress_task.refusal($$SELECT tasker.create_task('order', '{"cart_id": 5, "weight": 0}', 'rt')$$);
SELECT * FROM regress_task.refusal($$SELECT tasker.create_task('order', '{"cart_id": 5, "weight": 30}', 'rt')$$);
SELECT * FROM regress_task.refusal($$SELECT tasker.create_task('order', '{"cart_id": 1.5, "lines": [], "currency": 1}', 'rt')$$);
SELECT * FROM regress_task.refusal($$SELECT tasker.create_task('order', '[1]', 'rt')$$);
SELECT * FROM regress_task.refusal($$SELECT tasker.create_task('quick', '"text"', 'rt')$$);
SELECT * FROM regress_task.refusal($$SELECT tasker.create_task('quick', NULL, 'rt')$$);
SELECT * FROM regress_task.refusal($$SELECT tasker.create_task('quick', '{}', 'rt', bypass_steps => '{b,c,d}')$$);
SELECT * FROM regress_task.refusal($$SELECT tasker.register_handler('new', 'regress_task.returns_text', 'rt')$$);
SELECT * FROM regress_task.refusal($$SELECT tasker.register_handler('new', 'regress_task.missing', 'rt')$$);
SELECT * FROM regress_task.refusal($$SELECT tasker.register_task('{"name": "new", "namespace_name": "rt", "step_templates": [{"name": "a", "handler_class": "quik"}]}')$$);
SELECT * FROM regress_task.refusal($$SELECT tasker.task_status(-1)$$);
SELECT * FROM regress_task.refusal($$SELECT tasker.wait_for_task(-1)$$);
SELECT * FROM regress_task.refusal($$SELECT tasker.wait_for_task(NULL)$$);
SELECT * FROM regress_task.refusal($$SELECT tasker.permanent_error('gone', '{"a": 1}')$$);
SELECT * FROM regress_task.refusal($$SELECT tasker.retryable_error('busy', '-1 s')$$);
\pset format aligned
\pset tuples_only off
SELECT count(*) - :tasks AS more_tasks,
       (SELECT count(*) FROM tasker.queue AS q LEFT JOIN tasker.task AS t USING (task_id) WHERE t.task_id IS NULL) AS stray_tokens,
       (SELECT count(*) FROM tasker.handler WHERE handler_id > :handlers) AS more_handlers,
       (SELECT count(*) FROM tasker.template WHERE namespace = 'rt' AND name = 'new') AS more_templates,
       (SELECT count(*) FROM tasker.idempotency AS i WHERE i.task_id = 0) AS stray_keys
FROM tasker.tasks
WHERE namespace = 'rt';

-- Waiting.  A task that ends is told at once; one that does not, when time is up.
SELECT tasker.create_task('quick', '{}', 'rt') AS id \gset
SELECT tasker.wait_for_task(:id);
SELECT tasker.wait_for_task(:id, '0');
SELECT tasker.wait_for_task(:id, NULL);
SELECT tasker.create_task('order', '{}', 'rt', '1.9.0', run_at => '2099-01-01') AS id \gset
SELECT tasker.wait_for_task(:id, '20 ms');
SELECT tasker.wait_for_task(:id, '-1 s');
-- What can never end while we wait is refused at once.
BEGIN;
SELECT tasker.create_task('quick', '{}', 'rt') AS own \gset
SELECT * FROM regress_task.refusal(format('SELECT tasker.wait_for_task(%s)', :own)) AS r
WHERE r.field <> 'message';
ROLLBACK;
SELECT * FROM regress_task.refusal(format('SELECT tasker.wait_for_task(%s)', :own)) AS r
WHERE r.field = 'sqlstate';
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT * FROM regress_task.refusal(format('SELECT tasker.wait_for_task(%s)', :id)) AS r
WHERE r.field <> 'message';
ROLLBACK;

-- A task that was rolled back has never been there.
BEGIN;
SELECT tasker.create_task('quick', '{}', 'rt') AS id \gset
ROLLBACK;
SELECT count(*) FROM tasker.tasks WHERE task_id = :id;

-- A template that is replaced leaves the tasks that exist their plan.
SELECT tasker.create_task('tested', '{}', 'rt') AS before \gset
SELECT tasker.register_task($yaml$
name: tested
namespace_name: rt
step_templates:
  - {name: first, handler_class: outside}
  - {name: second, handler_class: outside}
$yaml$, 'test', replace => true) > 0 AS replaced;
SELECT tasker.create_task('tested', '{}', 'rt') AS after \gset
SELECT task_id = :after AS new, array_agg(name ORDER BY step_id) AS steps
FROM tasker.workflow_steps
WHERE task_id IN (:before, :after)
GROUP BY task_id
ORDER BY task_id;

RESET ROLE;
SELECT tasker.unregister_handler('quick', 'rt');
SELECT tasker.unregister_handler('outside', 'rt');
DROP TABLE made;
SET client_min_messages = error;
DROP SCHEMA regress_task CASCADE;
DROP ROLE regress_tasker_creator;
