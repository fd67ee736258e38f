-- What a role can't see or do where access is enforced.  Two namespaces, a role
-- for each and one for none.  Everything in one of them says zebra, and nothing
-- that the others can read may say it, nor an id of its tasks.  Every table, view
-- and function is tried: one that is added needs a row here.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS tasker;
\set SHOW_CONTEXT never
\pset null '(null)'
CREATE ROLE regress_shop;
CREATE ROLE regress_bank;
CREATE ROLE regress_nobody;
CREATE SCHEMA regress_access;
GRANT ALL ON SCHEMA regress_access TO regress_shop, regress_bank, regress_nobody;
SET search_path = regress_access, pg_temp;
SELECT count(*) > 0 AS granted, tasker.grant('regress_shop', '{admin}', 'regress_shop') > 0 AS shop, tasker.grant('regress_bank', '{admin}', 'regress_bank') > 0 AS bank
FROM tasker.permissions;

CREATE FUNCTION definition(namespace text, marker text) RETURNS text
LANGUAGE sql AS $$
    SELECT jsonb_build_object(
        'name', 'errand', 'namespace_name', namespace, 'version', '1.0.0', 'description', marker,
        'schema', '{"type": "object"}'::jsonb || jsonb_build_object('title', marker),
        'custom_events', jsonb_build_array(jsonb_build_object('name', namespace || '.happened', 'description', marker)),
        'step_templates', jsonb_build_array(
            jsonb_build_object('name', 'first_' || marker, 'handler_class', 'run', 'dependent_system', marker),
            jsonb_build_object('name', 'second', 'handler_class', 'outside', 'depends_on_step', 'first_' || marker)))::text
$$;

-- The same in both, by their own roles.
CREATE FUNCTION run(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    RETURN step.context || '{"ran": true}';
END $$;
GRANT EXECUTE ON FUNCTION run TO regress_shop, regress_bank;
CREATE FUNCTION settle(namespace text, marker text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    id bigint;
BEGIN
    PERFORM tasker.register_handler('run', 'run', namespace);
    PERFORM tasker.register_external_handler('outside', namespace);
    PERFORM tasker.register_external_handler('only_' || marker, namespace);
    PERFORM tasker.register_task(definition(namespace, marker));
    PERFORM tasker.set_max_in_progress(7, namespace, 'only_' || marker);
    PERFORM tasker.subscribe(namespace || '_fetch', '{*}', namespace => namespace, channel => marker, filter => jsonb_build_object('task_name', 'errand'));
    id := tasker.create_task('errand', jsonb_build_object('word', marker), namespace, idempotency_key => 'key ' || marker, reason => marker);
    PERFORM tasker.create_task('errand', jsonb_build_object('word', marker), namespace, run_at => 'infinity');
    PERFORM tasker.annotate_task(id, 'note ' || marker, jsonb_build_object('k', marker));
    PERFORM tasker.publish_event(namespace || '.happened', jsonb_build_object('said', marker), id);
    RETURN id;
END $$;
SELECT tasker.enforce_access();
-- Ids that can be told from any other number; the next test goes on where this one began.
SELECT nextval('tasker.task_id_seq') AS id_before \gset
SELECT setval('tasker.task_id_seq', 987654321) AS far;
SET ROLE regress_shop;
SELECT settle('regress_shop', 'zebra') AS shop \gset
SET ROLE regress_bank;
SELECT settle('regress_bank', 'tiger') AS bank \gset
RESET ROLE;
SELECT tasker.map_object('zebra', '1', 'giraffe', '2') > 0 AS mapped;
SELECT tasker.set_secret('zebra', 'of the shop');
CREATE FUNCTION wait_until(condition text) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    is_so boolean;
BEGIN
    FOR i IN 1 .. 3000 LOOP
        EXECUTE 'SELECT ' || condition INTO is_so;
        EXIT WHEN is_so;
        PERFORM pg_sleep(0.01);
    END LOOP;
    RETURN is_so;
END $$;
SELECT wait_until(format('count(*) = 2 FROM tasker.queue WHERE task_id IN (%s, %s) AND lane >= 100', :shop, :bank));

-- Its own role has all of it.
SET ROLE regress_shop;
SELECT wait_until('EXISTS (SELECT FROM tasker.fetch_events(''regress_shop_fetch'', 3))');
SELECT step_name, (tasker.heartbeat('w', ARRAY[c.step_id], '1 hour')) = c.step_id AS kept
FROM tasker.claim_steps('w', lease => '1 hour') AS c;
SELECT count(*), min(name), max(namespace) FROM tasker.tasks;
SELECT name, state, results FROM tasker.workflow_steps WHERE task_id = :shop ORDER BY step_id;
SELECT tasker.task_status(:shop) ->> 'state' AS state, tasker.wait_for_task(:shop, '0 s');
SELECT subscriber, events, namespace FROM tasker.subscribers;
SELECT task_id = :shop AS ours, annotation_type, annotation FROM tasker.task_annotations;
SELECT t = :shop AS ours FROM tasker.tasks_by_annotation('note zebra', 'k', 'zebra') AS t;
SELECT name, description, fired_by FROM tasker.event_catalog('custom');
SELECT tasker.update_task(:shop, reason => 'zebra again'), tasker.pause_task(:shop), tasker.resume_task(:shop);
-- But not what is of all namespaces.
SELECT tasker.subscribe('regress_all', '{*}');
SELECT tasker.registry_stats();
SELECT tasker.health_check() - '{status,healthy}'::text[] AS health;
SELECT tasker.register_event('regress.mine', 'x');
SELECT count(*) FROM tasker.secrets;
RESET ROLE;

-- Everything that anybody may read, by a role that is not the shop's.
CREATE FUNCTION finds(pattern text) RETURNS SETOF text
LANGUAGE plpgsql AS $$
DECLARE
    relation regclass;
    found boolean;
BEGIN
    FOR relation IN
        SELECT c.oid
        FROM pg_class AS c
        WHERE c.relnamespace = 'tasker'::regnamespace
          AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
          AND has_table_privilege(c.oid, 'SELECT')
        ORDER BY c.relname
    LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %s AS t WHERE t::text ~ $1)', relation) INTO found USING pattern;
        IF found THEN
            RETURN NEXT relation::text;
        END IF;
    END LOOP;
END $$;
SELECT format('zebra|%s|%s', :shop, :shop::bigint << 14 | 1) AS zebra, format('tiger|%s|%s', :bank, :bank::bigint << 14 | 1) AS tiger \gset
CREATE TABLE seen AS SELECT f AS relation FROM finds(:'zebra') AS f;
GRANT SELECT ON seen TO regress_bank, regress_shop, regress_nobody;
-- What there is to find, ...
SELECT relation FROM seen ORDER BY relation COLLATE "C";
-- ... what nobody but who may see all namespaces finds, ...
SET ROLE regress_shop;
SELECT s.relation FROM seen AS s WHERE s.relation NOT IN (SELECT finds(:'zebra')) ORDER BY s.relation COLLATE "C";
-- ... and what the others find.
SET ROLE regress_bank;
SELECT finds(:'zebra');
SELECT s.relation FROM seen AS s WHERE s.relation NOT IN (SELECT finds(:'tiger')) ORDER BY s.relation COLLATE "C";
SET ROLE regress_nobody;
SELECT finds(:'zebra');
SELECT finds(:'tiger');
RESET ROLE;

-- A table without a policy is one of these, and a sequence none.
SELECT c.relname
FROM pg_class AS c
WHERE c.relnamespace = 'tasker'::regnamespace
  AND c.relkind IN ('r', 'p', 'm', 'f', 'S')
  AND CASE c.relkind WHEN 'S' THEN has_sequence_privilege('public', c.oid, 'SELECT, USAGE')
           ELSE has_table_privilege('public', c.oid, 'SELECT') END
  AND NOT (c.relrowsecurity AND EXISTS (SELECT FROM pg_policy AS p WHERE p.polrelid = c.oid AND p.polname = 'access'))
ORDER BY c.relname;
-- A view that does not run as who reads it is one of these.
SELECT c.relname, coalesce('security_barrier=true' = ANY (c.reloptions), false) AS is_barrier
FROM pg_class AS c
WHERE c.relnamespace = 'tasker'::regnamespace
  AND c.relkind = 'v'
  AND NOT coalesce('security_invoker=true' = ANY (c.reloptions), false)
ORDER BY c.relname;
-- A function that runs as its owner, and that anybody may call, is one of these: counts of connections
-- and processes, and ids without a word of what they are.
SELECT p.oid::regprocedure
FROM pg_proc AS p
WHERE p.pronamespace = 'tasker'::regnamespace
  AND p.prosecdef
  AND has_function_privilege('public', p.oid, 'EXECUTE')
ORDER BY p.oid::regprocedure::text COLLATE "C";

-- Every function, aimed at the shop.  {task} and {step} become those of the
-- shop, and then those of nobody: the answer must be the same.
CREATE TABLE call (function text, call text);
GRANT SELECT ON call TO regress_bank, regress_nobody;
INSERT INTO call VALUES
    ('ack_events', $$tasker.ack_events('regress_shop_fetch', 1)$$),
    ('activate', 'tasker.activate()'),
    ('annotate_task', $$tasker.annotate_task({task}, 'note', '{}')$$),
    ('analytics_metrics', 'FROM tasker.analytics_metrics()'),
    ('bottlenecks', 'FROM tasker.bottlenecks()'),
    ('cancel_step', 'tasker.cancel_step({step})'),
    ('cancel_task', 'tasker.cancel_task({task})'),
    ('claim_requests', $$FROM tasker.claim_requests('x', 1)$$),
    ('claim_steps', $$FROM tasker.claim_steps('x', max_steps => 10)$$),
    ('claim_steps', $$FROM tasker.claim_steps('x', namespaces => '{regress_shop}')$$),
    ('claim_steps', $$FROM tasker.claim_steps('x', '{outside,api}', '{regress_shop,regress_bank}')$$),
    ('clock', 'tasker.clock() IS NULL'),
    ('complete_step', $$tasker.complete_step({step}, '{}')$$),
    ('complete_step', $$tasker.complete_step({step}, '{}', 'w')$$),
    ('complete_steps', $$FROM tasker.complete_steps(ARRAY[{step}], '{"{}"}')$$),
    ('create_task', $$tasker.create_task('errand', '{}', 'regress_shop')$$),
    ('create_task', $$tasker.create_task('errand')$$),
    ('create_task', $$tasker.create_task('errand', '{}', 'regress_shop', idempotency_key => 'key of it')$$),
    ('create_tasks', $$FROM tasker.create_tasks('errand', '{"{}"}', 'regress_shop')$$),
    ('create_token', $$tasker.create_token('regress_shop')$$),
    ('deactivate', 'tasker.deactivate()'),
    ('definition_schema', 'tasker.definition_schema()'),
    ('dependency_levels', 'FROM tasker.dependency_levels({task})'),
    ('diff_task', $$FROM tasker.diff_task(regress_access.definition('regress_shop', 'other'))$$),
    ('drop_dead_event', $$tasker.drop_dead_event('regress_shop_fetch')$$),
    ('drop_secret', $$tasker.drop_secret('zebr')$$),
    ('drop_token', $$tasker.drop_token('zebr')$$),
    ('end_requests', $$FROM tasker.end_requests('w', ARRAY[{step}], '{x}', '{200}', '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{1}')$$),
    ('enforce_access', 'tasker.enforce_access(false)'),
    ('event_catalog', 'FROM tasker.event_catalog()'),
    ('event_info', $$tasker.event_info('regress_shop.happened')$$),
    ('events_by_namespace', $$FROM tasker.events_by_namespace('regress_shop')$$),
    ('export_task', $$tasker.export_task('errand', 'regress_shop')$$),
    ('export_task', $$tasker.export_task('errnd', 'regress_bank')$$),
    ('fail_step', $$tasker.fail_step({step}, '{}')$$),
    ('fail_steps', $$FROM tasker.fail_steps(ARRAY[{step}], '{"{}"}')$$),
    ('fetch_events', $$FROM tasker.fetch_events('regress_shop_fetch')$$),
    ('fetch_events', $$FROM tasker.fetch_events('regress_shop_fetc')$$),
    ('find_by_event', $$FROM tasker.find_by_event('regress_shop.happened')$$),
    ('find_handler', $$FROM tasker.find_handler('run', 'regress_shop')$$),
    ('generate_subscriber', $$tasker.generate_subscriber('x', '{regress_shop.*}', 'shell')$$),
    ('grant', $$tasker.grant('regress_bank', '{*}')$$),
    ('grant_agent', $$tasker.grant_agent('regress_bank')$$),
    ('health_check', 'tasker.health_check()'),
    ('heartbeat', $$FROM tasker.heartbeat('w', ARRAY[{step}])$$),
    ('identity_hash', $$tasker.identity_hash('errand', '{}', 'regress_shop', at => 'epoch') = tasker.identity_hash('errand', '{}', 'regress_shop', '1.0.0', at => 'epoch')$$),
    ('json_schema_errors', $$FROM tasker.json_schema_errors('{}', '{}')$$),
    ('json_schema_is_valid', $$tasker.json_schema_is_valid('{}', '{}')$$),
    ('lint_task', $$FROM tasker.lint_task(regress_access.definition('regress_shop', 'other'))$$),
    ('lint_task', $$FROM tasker.lint_task(replace(regress_access.definition('regress_bank', 'other'), 'outside', 'only_zebr'))$$),
    ('map_object', $$tasker.map_object('zebr', '1', 'giraffe', '3')$$),
    ('mapped_objects', $$FROM tasker.mapped_objects('giraffe', '2')$$),
    ('metrics', 'tasker.metrics()'),
    ('my_permissions', 'FROM tasker.my_permissions()'),
    ('pause_task', 'tasker.pause_task({task})'),
    ('permanent_error', $$tasker.permanent_error('x')$$),
    ('prune_events', $$tasker.prune_events('0 s')$$),
    ('prune_registry_log', $$tasker.prune_registry_log('0 s')$$),
    ('publish_event', $$tasker.publish_event('regress_shop.happened', '{}')$$),
    ('publish_event', $$tasker.publish_event('regress_shop.happene', '{}')$$),
    ('publish_event', $$tasker.publish_event('regress_bank.happened', '{}', {task})$$),
    ('publish_event', $$tasker.publish_event('regress_bank.happened', '{}', step_id => {step})$$),
    ('register_event', $$tasker.register_event('regress_shop.happened', 'x')$$),
    ('register_external_handler', $$tasker.register_external_handler('run', 'regress_shop', replace => true)$$),
    ('register_handler', $$tasker.register_handler('run', 'regress_access.run', 'regress_shop', replace => true)$$),
    ('register_schema', $$tasker.register_schema('{}', 'urn:regress:bank')$$),
    ('register_task', $$tasker.register_task(regress_access.definition('regress_shop', 'other'), replace => true)$$),
    ('register_task', $$tasker.register_task(replace(regress_access.definition('regress_bank', 'other'), 'outside', 'only_zebr'), replace => true)$$),
    ('registry_health', 'tasker.registry_health()'),
    ('registry_report', 'tasker.registry_report()'),
    ('registry_stats', 'tasker.registry_stats()'),
    ('replay_events', $$tasker.replay_events('regress_shop_fetch', '-infinity')$$),
    ('reset_breaker', $$tasker.reset_breaker('zebr')$$),
    ('resolve_step', 'tasker.resolve_step({step})'),
    ('resolve_task', $$tasker.resolve_task({task}, 'x')$$),
    ('resume_task', 'tasker.resume_task({task})'),
    ('retry_dead_event', $$tasker.retry_dead_event('regress_shop_fetch')$$),
    ('retry_step', 'tasker.retry_step({step})'),
    ('retry_task', 'tasker.retry_task({task})'),
    ('retryable_error', $$tasker.retryable_error('x')$$),
    ('revoke', $$tasker.revoke('regress_shop')$$),
    ('run_task', $$tasker.run_task('errand', '{}', 'regress_shop')$$),
    ('search_events', $$FROM tasker.search_events('zebr')$$),
    ('set_max_in_progress', $$tasker.set_max_in_progress(0, 'regress_shop')$$),
    ('set_max_in_progress', $$tasker.set_max_in_progress(0, handler => 'outside')$$),
    ('set_secret', $$tasker.set_secret('zebr', 'xxxxx')$$),
    ('slowest_steps', 'FROM tasker.slowest_steps()'),
    ('slowest_tasks', 'FROM tasker.slowest_tasks()'),
    ('step_readiness', 'FROM tasker.step_readiness({task})'),
    ('step_readiness_batch', 'FROM tasker.step_readiness_batch(ARRAY[{task}])'),
    ('subscribe', $$tasker.subscribe('regress_other', '{*}')$$),
    ('subscribe', $$tasker.subscribe('regress_other', '{*}', namespace => 'regress_shop')$$),
    ('subscribe', $$tasker.subscribe('regress_other', '{regress_shop.*}', namespace => 'regress_bank')$$),
    ('system_health', 'FROM tasker.system_health()'),
    ('task_diagram', 'tasker.task_diagram({task})'),
    ('task_execution_context', 'FROM tasker.task_execution_context({task})'),
    ('task_execution_contexts', 'FROM tasker.task_execution_contexts(ARRAY[{task}])'),
    ('task_status', 'tasker.task_status({task})'),
    ('tasks_by_annotation', $$FROM tasker.tasks_by_annotation('note ' || 'zebra', 'k', 'zebra')$$),
    ('template_diagram', $$tasker.template_diagram('errand', 'regress_shop')$$),
    ('unregister_event', $$tasker.unregister_event('regress_shop.happened')$$),
    ('unregister_handler', $$tasker.unregister_handler('run', 'regress_shop')$$),
    ('unregister_handler', $$tasker.unregister_handler('only_zebr', 'regress_bank')$$),
    ('unregister_schema', $$tasker.unregister_schema('urn:regress:shop')$$),
    ('unsubscribe', $$tasker.unsubscribe('regress_shop_fetch')$$),
    ('update_step', 'tasker.update_step({step}, 5)'),
    ('update_task', $$tasker.update_task({task}, 'x')$$),
    ('validate_task', $$FROM tasker.validate_task(regress_access.definition('regress_shop', 'other'))$$),
    ('validate_task', $$FROM tasker.validate_task(replace(regress_access.definition('regress_bank', 'other'), 'outside', 'only_zebr'))$$),
    ('verify', 'FROM tasker.verify()'),
    ('wait', 'CALL tasker.wait({task}, ''0 s'')'),
    ('wait_for_task', 'tasker.wait_for_task({task}, ''0 s'')'),
    ('yaml_to_jsonb', $$tasker.yaml_to_jsonb('a: 1')$$);
-- Public ones that the list does not have, and the private ones that anybody may
-- call, but for those of REST: they run as who calls them, and read what he may.
SELECT p.proname
FROM pg_proc AS p
WHERE p.pronamespace = 'tasker'::regnamespace
  AND p.proname NOT LIKE '\_%'
  AND p.proname <> ALL (SELECT function FROM call)
ORDER BY p.proname;
SELECT p.oid::regprocedure
FROM pg_proc AS p
WHERE p.pronamespace = 'tasker'::regnamespace
  AND p.proname LIKE '\_%'
  AND p.proname NOT LIKE '\_rest\_%'
  AND has_function_privilege('public', p.oid, 'EXECUTE')
ORDER BY p.oid::regprocedure::text COLLATE "C";

-- What is the shop's, as its owner sees it.
CREATE FUNCTION shop_state(pattern text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    relation regclass;
    part text;
    whole text := '';
BEGIN
    FOR relation IN
        SELECT c.oid
        FROM pg_class AS c
        WHERE c.relnamespace = 'tasker'::regnamespace
          AND c.relkind = 'r'
          AND c.relname <> 'registry_log'
        ORDER BY c.relname
    LOOP
        EXECUTE format('SELECT md5(string_agg(t::text, %L ORDER BY t::text)) FROM %s AS t WHERE t::text ~ $1', E'\n', relation)
        INTO part USING pattern || '|regress_shop';
        whole := whole || relation::text || coalesce(part, '-') || ' ';
    END LOOP;
    RETURN whole;
END $$;

CREATE FUNCTION answer(call text, pattern text, OUT code text, OUT said text, OUT changed boolean)
LANGUAGE plpgsql AS $$
DECLARE
    before text := regress_access.shop_state(pattern);
    detail text;
    hint text;
BEGIN
    changed := false;
    BEGIN
        IF call LIKE 'CALL %' THEN
            EXECUTE call;
        ELSIF call LIKE 'FROM %' THEN
            EXECUTE 'SELECT string_agg(t::text, E''\n'') ' || call || ' AS t' INTO said;
        ELSE
            EXECUTE 'SELECT ' || call INTO said;
        END IF;
        changed := before <> regress_access.shop_state(pattern);
        RAISE EXCEPTION USING ERRCODE = 'ZZ000', MESSAGE = coalesce(said, '');
    EXCEPTION
        WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
            code := nullif(SQLSTATE, 'ZZ000');
            said := concat_ws(E'\n', SQLERRM, detail, hint);
    END;
END $$;

CREATE FUNCTION answers(shop bigint, pattern text)
RETURNS TABLE (function text, call text, code text, problem text)
LANGUAGE plpgsql AS $$
DECLARE
    c record;
    real record;
    unreal record;
    step bigint := shop << 14 | 2;
    none bigint := 1234567890123;
    none_step bigint := 1234567890123 << 14 | 2;
    about_it text;
    about_none text;
BEGIN
    FOR c IN SELECT * FROM regress_access.call ORDER BY 1, 2 LOOP
        SELECT * INTO real FROM regress_access.answer(replace(replace(c.call, '{task}', shop || '::bigint'), '{step}', step || '::bigint'), pattern);
        SELECT * INTO unreal FROM regress_access.answer(replace(replace(c.call, '{task}', none || '::bigint'), '{step}', none_step || '::bigint'), pattern);
        about_it := replace(replace(real.said, step::text, 'S'), shop::text, 'T');
        about_none := replace(replace(unreal.said, none_step::text, 'S'), none::text, 'T');
        function := c.function;
        call := c.call;
        code := real.code;
        problem := concat_ws(', ',
            CASE WHEN about_it ~ 'zebra' OR (real.said ~ shop::text AND c.call !~ '\{') THEN 'says: ' || real.said END,
            CASE WHEN real.changed THEN 'changes' END,
            CASE WHEN c.call ~ '\{' AND (real.code, about_it) IS DISTINCT FROM (unreal.code, about_none)
                 THEN format('tells %s: %s from %s: %s', real.code, about_it, unreal.code, about_none) END,
            CASE WHEN real.code LIKE 'XX%' THEN real.said END);
        RETURN NEXT;
    END LOOP;
END $$;
SET ROLE regress_nobody;
CREATE TABLE nobody AS SELECT * FROM answers(:shop, :'zebra');
SET ROLE regress_bank;
CREATE TABLE bank AS SELECT * FROM answers(:shop, :'zebra');
RESET ROLE;
SELECT function, call, problem FROM bank WHERE problem <> ''
UNION ALL
SELECT function, call, problem FROM nobody WHERE problem <> '';
SELECT function, b.call, coalesce(b.code, 'fine') AS bank, coalesce(n.code, 'fine') AS nobody
FROM bank AS b
JOIN nobody AS n USING (function, call)
ORDER BY function COLLATE "C", b.call COLLATE "C";

-- Whoever sees a task and may not do it is told what he lacks.
SELECT tasker.revoke('regress_bank', '{task:cancel,workflow_step:retry}');
SET ROLE regress_bank;
SELECT tasker.cancel_task(:bank);
SELECT tasker.retry_step(:bank::bigint << 14 | 1);
RESET ROLE;
-- Without what lets him see it he is not.
SELECT tasker.revoke('regress_bank', '{task:show,task:index,workflow_step:show,workflow_step:index}') > 0 AS revoked;
SET ROLE regress_bank;
SELECT tasker.cancel_task(:bank);
SELECT count(*) FROM tasker.tasks;
-- Nor does a subscriber get what its role may not hear any more.
RESET ROLE;
SELECT tasker.revoke('regress_bank', '{event:index}');
SET ROLE regress_bank;
SELECT count(*) FROM tasker.fetch_events('regress_bank_fetch');
RESET ROLE;
-- A grant in all namespaces shows all of them.
SELECT tasker.grant('regress_nobody', '{viewer}') > 0 AS granted;
SET ROLE regress_nobody;
SELECT s.relation FROM seen AS s WHERE s.relation NOT IN (SELECT finds(:'zebra')) ORDER BY s.relation COLLATE "C";
SELECT tasker.cancel_task(:shop);
-- A condition of his own is not asked of rows that are not his to see.
RESET ROLE;
SELECT tasker.revoke('regress_nobody', NULL) > 0 AS revoked, tasker.grant('regress_nobody', '{viewer}', 'regress_bank') > 0 AS granted;
SET ROLE regress_nobody;
CREATE FUNCTION tells(text) RETURNS boolean
LANGUAGE plpgsql COST 0.0001 AS $$ BEGIN RAISE WARNING '%', $1 ~ 'zebra'; RETURN true; END $$;
SET client_min_messages = warning;
SELECT count(*) FROM tasker.tasks AS t WHERE tells(t.context::text);
SELECT count(*) FROM tasker.task_annotations AS t WHERE tells(t.annotation::text);
SELECT count(*) FROM tasker.grants AS t WHERE tells(t.role) AND t.role <> 'regress_nobody';
RESET ROLE;

-- A handler is its registrar, and may what that may.
SET ROLE regress_shop;
CREATE FUNCTION begets(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    RETURN jsonb_build_object('sees', (SELECT count(*) FROM tasker.tasks AS t WHERE t.namespace <> 'regress_shop'),
                              'made', tasker.create_task('errand', '{}', step.context ->> 'where', run_at => 'infinity') > 0);
END $$;
SELECT tasker.register_handler('begets', 'begets', 'regress_shop');
SELECT FROM tasker.register_task('{"name": "begets", "namespace_name": "regress_shop", "step_templates": [{"name": "only", "handler_class": "begets", "default_retryable": false}]}');
SELECT s -> 'results' AS results, s -> 'error' ->> 'message' AS message
FROM tasker.run_task('begets', '{"where": "regress_shop"}', 'regress_shop') AS r
CROSS JOIN jsonb_array_elements(r -> 'workflow_steps') AS s;
SELECT s -> 'results' AS results, s -> 'error' ->> 'message' AS message
FROM tasker.run_task('begets', '{"where": "regress_bank"}', 'regress_shop') AS r
CROSS JOIN jsonb_array_elements(r -> 'workflow_steps') AS s;
RESET ROLE;

-- The owner sees everything all the time, and everybody does when it is over.
SELECT count(*) > 0 AS seen FROM tasker.tasks WHERE namespace = 'regress_shop';
SELECT tasker.enforce_access(NULL);
SELECT tasker.enforce_access(false);
SET ROLE regress_nobody;
SELECT s.relation FROM seen AS s WHERE s.relation NOT IN (SELECT finds(:'zebra')) ORDER BY s.relation COLLATE "C";
RESET ROLE;
SELECT count(*) FROM pg_policy AS p JOIN pg_class AS c ON c.oid = p.polrelid WHERE c.relnamespace = 'tasker'::regnamespace;
SELECT count(*) FROM tasker.verify();

-- Nothing of it stays.
SELECT setval('tasker.task_id_seq', :id_before + 1000) > 0 AS back;
SELECT tasker.unsubscribe(s.subscriber) FROM tasker.subscribers AS s WHERE s.run_as LIKE 'regress_%' AND s.subscriber LIKE 'regress_%_fetch';
SELECT tasker.unregister_event(c.name) FROM tasker.event_catalog('custom') AS c WHERE c.name LIKE 'regress_%.happened';
SELECT count(tasker.cancel_task(t.task_id)) FROM tasker.tasks AS t WHERE t.namespace IN ('regress_shop', 'regress_bank') AND t.finished_at IS NULL;
SELECT tasker.set_max_in_progress(NULL, 'regress_shop', 'only_zebra'), tasker.set_max_in_progress(NULL, 'regress_bank', 'only_tiger');
SELECT count(tasker.unregister_handler(h.name, h.namespace)) FROM tasker.handlers AS h WHERE h.namespace IN ('regress_shop', 'regress_bank');
SELECT tasker.drop_secret('zebra');
SELECT tasker.revoke('regress_shop') + tasker.revoke('regress_bank') + tasker.revoke('regress_nobody') > 0 AS revoked;
RESET search_path;
DROP SCHEMA regress_access CASCADE;
DROP ROLE regress_shop, regress_bank, regress_nobody;
