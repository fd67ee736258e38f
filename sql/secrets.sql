-- Secrets: ${NAME} in a handler_config is looked up when the step runs, and its
-- value is in nothing that anybody can read.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS tasker;
\set SHOW_CONTEXT never
\pset null '(null)'
CREATE ROLE regress_secrets_user;
CREATE ROLE regress_secrets_keeper;
CREATE ROLE regress_secrets_reader;
GRANT EXECUTE ON FUNCTION tasker.set_secret(text, text), tasker.drop_secret(text) TO regress_secrets_keeper;
CREATE SCHEMA regress_secrets AUTHORIZATION regress_secrets_keeper;
GRANT USAGE ON SCHEMA regress_secrets TO regress_secrets_keeper;

-- Who may set one, under which name.
SET ROLE regress_secrets_user;
SELECT tasker.set_secret('SECRETS_TOKEN', 'hunter2-hunter2');
SELECT tasker.drop_secret('SECRETS_TOKEN');
RESET ROLE;
SET ROLE regress_secrets_keeper;
SELECT tasker.set_secret('SECRETS_TOKEN', 'hunter2-hunter2');
SELECT tasker.set_secret('_lower9', 'another value');
SELECT name, set_by, set_at <= tasker.clock() AS set
FROM tasker.secrets
ORDER BY name;
SELECT tasker.set_secret('a.b', 'x');
\echo :LAST_ERROR_SQLSTATE
SELECT tasker.set_secret('9LIVES', 'x');
SELECT tasker.set_secret('', 'x');
SELECT tasker.set_secret('A}', 'x');
SELECT tasker.set_secret(repeat('x', 129), 'x');
SELECT tasker.set_secret(repeat('x', 128), 'long name');
SELECT tasker.drop_secret(repeat('x', 128));
SELECT tasker.set_secret('SECRETS_TOKEN', NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT tasker.set_secret(NULL, 'x');
SELECT tasker.set_secret('SECRETS_TOKEN', '');
SELECT tasker.set_secret('SECRETS_BIG', repeat('x', 1024 * 1024 + 1));
SELECT tasker.set_secret('SECRETS_SHORT', 'abc');
SELECT tasker.drop_secret('SECRETS_SHORT');
SELECT tasker.drop_secret('SECRETS_TOKE');
\echo :LAST_ERROR_SQLSTATE
SELECT tasker._set_secret('SECRETS_TOKEN', 'x', 'somebody else');

-- Its table shows nobody anything, whatever he is granted.
SELECT count(*) FROM tasker.secret;
RESET ROLE;
GRANT SELECT ON ALL TABLES IN SCHEMA tasker TO regress_secrets_reader;
GRANT pg_read_all_data TO regress_secrets_reader;
SET ROLE regress_secrets_reader;
SELECT count(*) FROM tasker.secret;
RESET ROLE;
REVOKE SELECT ON ALL TABLES IN SCHEMA tasker FROM regress_secrets_reader;
ANALYZE tasker.secret;
SELECT attname
FROM pg_stats
WHERE tablename = 'secret'
  AND attname IN ('value', 'previous');

-- What a reference is, and what is none.
SELECT p.path, p.name
FROM tasker._secret_places($t${
    "a": "Bearer ${TOKEN}", "b": ["x", {"${KEY}": "${A}${_b1}"}, ["${C}", "$${D}", "$$${E}"]],
    "c": "${context.x} ${} ${1A} ${A-B} ${A $A {A} ${A", "d": 1, "e": null, "f": "${UNTIL${THE_END}"}$t$) AS p;
SELECT p.path, p.name FROM tasker._secret_places('"${SCALAR}"') AS p;
SELECT string_agg(n, ', ') AS names FROM tasker._secret_names('["${B}", "${A}${B}", "${a}"]') AS n;
SELECT c, tasker._uses_secrets(c) AS uses
FROM unnest(ARRAY['{"a": "${A}"}', '{"a": "$${A}"}', '{"${A}": 1}', '"${A}"', '{"a": "${a.b}"}', '{}']::jsonb[]) AS c;

-- Handlers that say their configuration in every way.
CREATE FUNCTION regress_secrets.tell(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO regress_secrets.seen VALUES (step.task_id, step.config);
    RETURN coalesce(step.config -> 'return', '{}');
END;
$$;
CREATE FUNCTION regress_secrets.fail(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    IF step.attempt = 1 THEN
        RAISE WARNING 'about to fail with %', step.config;
        PERFORM tasker.retryable_error('no luck with ' || (step.config ->> 'token'), details => step.config);
    END IF;
    EXECUTE format('SELECT 1 / 0, %L', step.config ->> 'token');
END;
$$;
CREATE FUNCTION regress_secrets.row(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO regress_secrets.strict VALUES (step.config ->> 'token', NULL);
END;
$$;
CREATE TABLE regress_secrets.seen (task_id bigint, config jsonb);
CREATE TABLE regress_secrets.strict (token text, must text NOT NULL);
SET client_min_messages = error;
SELECT FROM tasker.register_handler('secrets_tell', 'regress_secrets.tell');
SELECT FROM tasker.register_handler('secrets_fail', 'regress_secrets.fail');
SELECT FROM tasker.register_handler('secrets_row', 'regress_secrets.row');
SELECT FROM tasker.register_external_handler('secrets_outside');
SET client_min_messages = warning;

-- The values are in the configuration of the running step, and nowhere else.
SELECT tasker.register_task($t$
name: secrets_tell
step_templates:
  - name: only
    handler_class: secrets_tell
    handler_config:
      header: Bearer ${SECRETS_TOKEN}
      twice: ${SECRETS_TOKEN}/${_lower9}
      literal: $${SECRETS_TOKEN} $$${_lower9} ${context.cart_id}
      deep: [1, [{a: "${_lower9}"}]]
      ${SECRETS_TOKEN}: a key
      return:
        token: "it was ${SECRETS_TOKEN}"
        "number": 12
        list: ["${_lower9}", null, true]
$t$) > 0 AS registered;
SELECT tasker.run_task('secrets_tell') -> 'state' AS state;
SELECT jsonb_pretty(config) FROM regress_secrets.seen;
SELECT s.state, s.results FROM tasker.workflow_steps AS s JOIN tasker.tasks AS t USING (task_id) WHERE t.name = 'secrets_tell';
SELECT plan_id FROM tasker.plan_step WHERE handler_config::text ~ 'hunter2';

-- The next step gets the new value; a rollback leaves the old one.
BEGIN;
SELECT tasker.set_secret('_lower9', 'rolled back');
SELECT tasker.run_task('secrets_tell') -> 'state' AS state;
SELECT config -> 'deep' AS deep FROM regress_secrets.seen ORDER BY task_id DESC LIMIT 1;
ROLLBACK;
SELECT tasker.run_task('secrets_tell') -> 'state' AS state;
SELECT config -> 'deep' AS deep FROM regress_secrets.seen ORDER BY task_id DESC LIMIT 1;
SELECT tasker.set_secret('_lower9', 'changed value');
SELECT tasker.create_task('secrets_tell') AS task_id \gset
CALL tasker.wait(:task_id, '60 s');
SELECT config -> 'deep' AS deep FROM regress_secrets.seen WHERE task_id = :task_id;
SELECT results -> 'list' AS list FROM tasker.workflow_steps WHERE task_id = :task_id;
SELECT tasker.set_secret('_lower9', 'changed again');
SELECT tasker.create_task('secrets_tell') AS task_id \gset
CALL tasker.wait(:task_id, '60 s');
SELECT config -> 'deep' AS deep FROM regress_secrets.seen WHERE task_id = :task_id;

-- Errors: as it is, in a JSON text, in a SQL literal, and cut off.
SELECT tasker.set_secret('SECRETS_ODD', E'it''s "quoted"\\ and\nof two lines: \u00fcber');
SELECT tasker.set_secret('SECRETS_LONG', repeat('0123456789', 20));
SELECT tasker.register_task($$
name: secrets_fail
step_templates:
  - name: only
    handler_class: secrets_fail
    handler_config: {token: "${SECRETS_ODD}"}
    retry: {limit: 2, base_delay: 0}
$$) > 0 AS registered;
SELECT tasker.run_task('secrets_fail') -> 'state' AS state;
SELECT s.attempts, s.error - 'at' - 'context' AS error, split_part(s.error ->> 'context', E'\n', 1) AS context
FROM tasker.workflow_steps AS s
JOIN tasker.tasks AS t USING (task_id)
WHERE t.name = 'secrets_fail';
SELECT m.to_state, m.metadata
FROM tasker.workflow_step_transitions AS m
JOIN tasker.tasks AS t USING (task_id)
WHERE t.name = 'secrets_fail'
  AND m.metadata IS NOT NULL
ORDER BY m.occurred_at, m.transition_id;
SELECT tasker.register_task($$
name: secrets_row
step_templates:
  - name: only
    handler_class: secrets_row
    handler_config: {token: "${SECRETS_LONG}"}
    default_retryable: false
$$) > 0 AS registered;
SELECT tasker.run_task('secrets_row') -> 'state' AS state;
SELECT s.error ->> 'detail' AS detail
FROM tasker.workflow_steps AS s
JOIN tasker.tasks AS t USING (task_id)
WHERE t.name = 'secrets_row';

-- Workers outside get the values with the claim, and may not say them either.
SELECT tasker.register_task($$
name: secrets_outside
step_templates:
  - name: first
    handler_class: secrets_outside
    handler_config: {token: "${SECRETS_TOKEN}"}
  - name: second
    handler_class: secrets_outside
    handler_config: {token: "${SECRETS_TOKEN}"}
    depends_on_step: first
    default_retryable: false
$$) > 0 AS registered;
SELECT tasker.create_task('secrets_outside') AS task_id \gset
CREATE PROCEDURE pg_temp.claim(INOUT step text DEFAULT NULL, INOUT config jsonb DEFAULT NULL, INOUT step_id bigint DEFAULT NULL) LANGUAGE plpgsql AS $$
BEGIN
    -- An executor has to queue it first.
    FOR i IN 1 .. 6000 LOOP
        SELECT c.step_name, c.config, c.step_id
        INTO step, config, step_id
        FROM tasker.claim_steps('worker', '{secrets_outside}') AS c;
        COMMIT;
        EXIT WHEN step IS NOT NULL;
        PERFORM pg_sleep(0.01);
    END LOOP;
END;
$$;
CALL pg_temp.claim() \gset
SELECT :'step' AS step, :'config' AS config;
-- A worker that has the value of before.
SELECT tasker.set_secret('SECRETS_TOKEN', 'rotated-value');
SELECT tasker.complete_step(:step_id, '{"said": "hunter2-hunter2 or rotated-value", "rotated-value": 1}') AS state;
CALL pg_temp.claim() \gset
SELECT :'step' AS step, :'config' AS config;
SELECT tasker.fail_step(:step_id, '{"message": "rotated-value", "detail": "hunter2-hunter2", "hint": "rotated-value", "context": "rotated-value", "own": "rotated-value"}') AS state;
SELECT name, state, results, error - 'at' AS error
FROM tasker.workflow_steps
WHERE task_id = :task_id
ORDER BY step_id;

-- A secret that is not set: a warning where, and an error for good.
SELECT tasker.register_task($$
name: secrets_missing
version: 1.0.0
step_templates:
  - name: here
    handler_class: secrets_tell
    handler_config:
      url: "https://${SECRETS_NONE}/${SECRETS_TOKEN}"
  - name: outside
    handler_class: secrets_outside
    handler_config: {token: "${SECRETS_NONE}"}
environments:
  production:
    step_templates:
      - name: here
        handler_config: {also: ["${SECRETS_PRODUCTION}"]}
$$) > 0 AS registered;
SELECT m AS missing FROM jsonb_array_elements_text(tasker.health_check() -> 'missing_secrets') AS m WHERE m LIKE 'SECRETS%';
SET tasker.environment = 'production';
SELECT m AS missing FROM jsonb_array_elements_text(tasker.health_check() -> 'missing_secrets') AS m WHERE m LIKE 'SECRETS%';
RESET tasker.environment;
SELECT tasker.create_task('secrets_missing', bypass_steps => '{outside}') AS task_id \gset
CALL tasker.wait(:task_id, '60 s');
SELECT name, state, attempts, error - 'at' AS error
FROM tasker.workflow_steps
WHERE task_id = :task_id
ORDER BY step_id;
SELECT tasker.set_secret('SECRETS_NONE', 'set at last');
SELECT tasker.retry_task(:task_id);
CALL tasker.wait(:task_id, '60 s');
SELECT tasker.drop_secret('SECRETS_NONE');
SELECT tasker.create_task('secrets_missing', bypass_steps => '{here}') AS task_id \gset
CREATE PROCEDURE pg_temp.claim_until_ended(id bigint) LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. 6000 LOOP
        PERFORM FROM tasker.claim_steps('worker', '{secrets_outside}');
        IF FOUND THEN
            RAISE 'a step without its secret was given away';
        END IF;
        COMMIT;
        EXIT WHEN (SELECT t.state = 'error' FROM tasker.tasks AS t WHERE t.task_id = id);
        PERFORM pg_sleep(0.01);
    END LOOP;
END;
$$;
CALL pg_temp.claim_until_ended(:task_id);
SELECT name, state, attempts, error - 'at' AS error
FROM tasker.workflow_steps
WHERE task_id = :task_id
ORDER BY step_id;

SELECT * FROM tasker.verify();

-- Nothing is left.
SELECT count(tasker.drop_secret(name)) AS dropped FROM tasker.secrets;
SET client_min_messages = error;
SELECT count(tasker.unregister_handler(name, namespace, version)) AS unregistered
FROM tasker.handlers
WHERE name LIKE 'secrets\_%';
DROP SCHEMA regress_secrets CASCADE;
REVOKE pg_read_all_data FROM regress_secrets_reader;
DROP OWNED BY regress_secrets_user, regress_secrets_keeper, regress_secrets_reader;
DROP ROLE regress_secrets_user, regress_secrets_keeper, regress_secrets_reader;
