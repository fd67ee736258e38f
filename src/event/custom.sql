-- Custom events: registered, published, and taken away.

CREATE FUNCTION tasker._running_step()
RETURNS bigint
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_running_step';
COMMENT ON FUNCTION tasker._running_step() IS
'Step whose SQL handler runs in this session; NULL: none does. Private.';

CREATE FUNCTION tasker._announce(name text, namespace text, payload jsonb, task_id bigint, step_no smallint)
RETURNS bigint
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO tasker.published_event (event_id, occurred_at, task_id, step_no, name, namespace, payload)
    VALUES (tasker._next_event_id(), tasker.clock(), task_id, step_no, name, namespace, payload)
    RETURNING event_id;
$$;
COMMENT ON FUNCTION tasker._announce(text, text, jsonb, bigint, smallint) IS
'Stores an event that is no state change, without a check; its id. It is told when the transaction has committed. Private.';

CREATE FUNCTION tasker._check_custom_event(name text, payload_schema jsonb)
RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    problem text;
    problems text;
BEGIN
    IF name IS NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'null_value_not_allowed',
            MESSAGE = 'Event name must be a string, got NULL',
            DETAIL = 'The argument name is NULL.',
            HINT = 'Write a namespace of your own, a dot and what happened: order.fulfilled.';
    END IF;
    problem := coalesce('name of the event ' || tasker._name_problem(name), tasker._event_name_problem(name));
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'TK005',
            MESSAGE = problem,
            DETAIL = format('The name is "%s".', left(name, 200)),
            HINT = 'Write a namespace of your own, a dot and what happened: order.fulfilled.';
    END IF;
    IF jsonb_typeof(payload_schema) <> 'object' THEN
        RAISE EXCEPTION USING
            ERRCODE = 'TK005',
            MESSAGE = format('payload_schema of event "%s" must be an object', name),
            DETAIL = format('It is of type %s.', jsonb_typeof(payload_schema)),
            HINT = 'A schema is JSON such as {"type": "object", "required": ["order_id"]}.';
    END IF;
    SELECT string_agg(concat_ws(' ', tasker._path_text(ARRAY['payload_schema'] || p.path), p.message), E'\n')
    INTO problems
    FROM tasker._schema_problems(payload_schema) AS p;
    IF problems IS NOT NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'TK005',
            MESSAGE = format('payload_schema of event "%s" is not valid', name),
            DETAIL = problems,
            HINT = 'It is a JSON Schema of draft 2020-12, 7 or 4.';
    END IF;
END;
$$;
COMMENT ON FUNCTION tasker._check_custom_event(text, jsonb) IS
'Raises 22004 or TK005 where no custom event can have that name, or that payload_schema. Source: reference 7.4. Private.';

CREATE FUNCTION tasker._note_event(event text, name text, replace boolean, error text DEFAULT NULL)
RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT tasker._note_registry('event_registry', event, split_part(name, '.', 1), name, NULL, NULL, replace, error);
$$;
COMMENT ON FUNCTION tasker._note_event(text, text, boolean, text) IS
'Notes what was done to a custom event, as _note_registry() does. Private.';

CREATE FUNCTION tasker._store_event(name text, description text, payload_schema jsonb, caller text)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    new_event tasker.custom_event;
    old_event tasker.custom_event;
BEGIN
    BEGIN
        PERFORM tasker._check_custom_event($1, $3);
    EXCEPTION
        WHEN OTHERS THEN
            PERFORM tasker._note_event('validation_failed', $1, true, SQLERRM);
            RAISE;
    END;
    new_event.name := $1;
    new_event.description := coalesce($2, '');
    new_event.payload_schema := $3;
    new_event.registered_by := $4;
    LOOP
        SELECT c.*
        INTO old_event
        FROM tasker.custom_event AS c
        WHERE c.name = new_event.name
        FOR UPDATE;
        IF NOT FOUND THEN
            -- Waits for a session that registers the same name at this moment,
            -- and has then to look at what that one did.
            INSERT INTO tasker.custom_event (name, description, payload_schema, fired_by, registered_by, registered_at)
            VALUES (new_event.name, new_event.description, new_event.payload_schema, '{}', new_event.registered_by, tasker.clock())
            ON CONFLICT (name) DO NOTHING;
            EXIT WHEN FOUND;
            CONTINUE;
        END IF;

        IF old_event.description = new_event.description
           AND old_event.payload_schema IS NOT DISTINCT FROM new_event.payload_schema THEN
            RETURN;
        END IF;
        PERFORM tasker._check_owner(format('event "%s"', old_event.name), old_event.registered_by, new_event.registered_by);
        UPDATE tasker.custom_event AS c
        SET description = new_event.description,
            payload_schema = new_event.payload_schema,
            registered_by = new_event.registered_by,
            registered_at = tasker.clock()
        WHERE c.name = new_event.name;
        PERFORM tasker._note_event('unregistered', new_event.name, true);
        EXIT;
    END LOOP;
    PERFORM tasker._note_event('registered', new_event.name, old_event.name IS NOT NULL);
END;
$$;
COMMENT ON FUNCTION tasker._store_event(text, text, jsonb, text) IS
'Registers a custom event for a role, whatever that may do otherwise. Raises 22004, TK005, TK009. Private.';

CREATE FUNCTION tasker._register_event(name text, description text, payload_schema jsonb, caller text)
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tasker._require('event:register', '*'),
            tasker._store_event(name, description, payload_schema, caller);
END;
$$;
REVOKE ALL ON FUNCTION tasker._register_event(text, text, jsonb, text) FROM PUBLIC;
COMMENT ON FUNCTION tasker._register_event(text, text, jsonb, text) IS
'What tasker.register_event() does, for the role of its caller. Private.';

CREATE FUNCTION tasker.register_event(name text, description text, payload_schema jsonb DEFAULT NULL)
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.register_event(text, text, jsonb) IS
'Registers a custom event, which tasker.publish_event() then publishes. The same again changes nothing; another description or schema takes the place of the old one, if that was registered by a role that the current one is a member of. Returns nothing. name: a namespace, a dot and what happened, such as order.fulfilled; the engine''s own namespaces are task, step, workflow, observability, test, handler, plugin, subscriber, registry, template and tasker. description: for people. payload_schema: JSON Schema that each payload is checked against; NULL: any object will do. Raises 22004 (name is NULL), TK005 (name or payload_schema is not valid), TK009 (another role registered it). Source: design, contract, "Events"; reference 7.4.';

CREATE FUNCTION tasker._unregister_event(name text, caller text)
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    old_event tasker.custom_event;
BEGIN
    PERFORM tasker._require('event:register', '*');
    SELECT c.*
    INTO old_event
    FROM tasker.custom_event AS c
    WHERE c.name = _unregister_event.name
    FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING
            ERRCODE = 'TK007',
            MESSAGE = format('event "%s" is not registered', left(coalesce(name, 'NULL'), 200)),
            DETAIL = CASE
                WHEN tasker._system_event(name) IS NOT NULL THEN 'It is an event of the engine.'
                ELSE 'No custom event has that name.'
                END,
            HINT = coalesce(
                tasker._did_you_mean(name, ARRAY(SELECT c.name FROM tasker.custom_event AS c ORDER BY c.name)),
                'tasker.event_catalog(''custom'') lists them.');
    END IF;
    PERFORM tasker._check_owner(format('event "%s"', old_event.name), old_event.registered_by, caller);
    DELETE FROM tasker.custom_event AS c
    WHERE c.name = old_event.name;
    PERFORM tasker._note_event('unregistered', old_event.name, false);
END;
$$;
REVOKE ALL ON FUNCTION tasker._unregister_event(text, text) FROM PUBLIC;
COMMENT ON FUNCTION tasker._unregister_event(text, text) IS
'What tasker.unregister_event() does, for the role of its caller. Private.';

CREATE FUNCTION tasker.unregister_event(name text)
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.unregister_event(text) IS
'Removes a custom event: it can''t be published any more. What was published stays, and is still handed out. Returns nothing. name: its name. Raises TK007 (not registered), TK009 (another role registered it). Source: reference 7.4.';

CREATE FUNCTION tasker._register_template_events(template_id integer, caller text)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    event record;
    title text;
BEGIN
    SELECT format('%s.%s@%s', t.namespace, t.name, t.version)
    INTO title
    FROM tasker.template AS t
    WHERE t.template_id = $1;

    -- What it said before is said no more ...
    UPDATE tasker.custom_event AS c
    SET fired_by = ARRAY(
        SELECT f.publisher
        FROM unnest(c.fired_by) WITH ORDINALITY AS f (publisher, n)
        WHERE f.publisher <> title
          AND NOT starts_with(f.publisher, title || '/')
        ORDER BY f.n)
    WHERE EXISTS (
        SELECT
        FROM unnest(c.fired_by) AS f (publisher)
        WHERE f.publisher = title
           OR starts_with(f.publisher, title || '/'));

    -- ... and what it says now, in the order of names, in which others lock, too.
    FOR event IN
        WITH said AS (
            SELECT p.plan_id, '' AS step, e.n, e.element, e.element ->> 'name' AS name
            FROM tasker.plan AS p
            CROSS JOIN LATERAL tasker._elements(p.definition -> 'custom_events') AS e
            WHERE p.template_id = $1
              AND p.retired_at IS NULL
            UNION ALL
            SELECT p.plan_id, s.element ->> 'name', e.n, e.element, e.element ->> 'name'
            FROM tasker.plan AS p
            CROSS JOIN LATERAL tasker._elements(p.definition -> 'step_templates') AS s
            CROSS JOIN LATERAL tasker._elements(s.element -> 'custom_events') AS e
            WHERE p.template_id = $1
              AND p.retired_at IS NULL
        )
        SELECT s.name,
               (array_agg(s.element ->> 'description' ORDER BY s.step, s.plan_id, s.n)
                    FILTER (WHERE s.element ->> 'description' IS NOT NULL))[1] AS description,
               (array_agg(s.element -> 'payload_schema' ORDER BY s.step, s.plan_id, s.n)
                    FILTER (WHERE jsonb_typeof(s.element -> 'payload_schema') = 'object'))[1] AS payload_schema,
               array_agg(DISTINCT CASE s.step WHEN '' THEN title ELSE title || '/' || s.step END) AS publishers
        FROM said AS s
        GROUP BY s.name
        ORDER BY s.name COLLATE "C"
    LOOP
        BEGIN
            -- What it does not say of the event stays as it is.
            PERFORM tasker._store_event(
                event.name,
                coalesce(event.description, (SELECT c.description FROM tasker.custom_event AS c WHERE c.name = event.name)),
                coalesce(event.payload_schema, (SELECT c.payload_schema FROM tasker.custom_event AS c WHERE c.name = event.name)),
                $2);
        EXCEPTION
            WHEN SQLSTATE 'TK009' THEN
                RAISE WARNING USING
                    MESSAGE = format('event "%s" keeps its description and its payload_schema', event.name),
                    DETAIL = format('Role "%s" registered it, and role "%s" is no member of that.',
                                    (SELECT c.registered_by FROM tasker.custom_event AS c WHERE c.name = event.name), $2),
                    HINT = 'Leave both out, or give the event another name.';
        END;
        UPDATE tasker.custom_event AS c
        SET fired_by = ARRAY(
            SELECT DISTINCT f.publisher
            FROM unnest(c.fired_by || event.publishers) AS f (publisher)
            ORDER BY f.publisher)
        WHERE c.name = event.name;
    END LOOP;
END;
$$;
COMMENT ON FUNCTION tasker._register_template_events(integer, text) IS
'Registers the events that a template and its steps name in custom_events, for the role that registers it, and says of each that they publish it. One that another role registered stays as it is, with a warning where the template says otherwise. Private.';

CREATE FUNCTION tasker._check_payload(name text, payload_schema jsonb, payload jsonb, facts jsonb)
RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    problems text;
BEGIN
    IF jsonb_typeof(payload) IS DISTINCT FROM 'object' THEN
        RAISE EXCEPTION USING
            ERRCODE = 'TK006',
            MESSAGE = format('payload of event "%s" must be an object', name),
            DETAIL = format('It is %s.', CASE WHEN payload IS NULL THEN 'NULL' ELSE 'of type ' || jsonb_typeof(payload) END),
            HINT = 'Pass an object, such as {"order_id": 7}, or {}.';
    END IF;
    IF payload_schema IS NOT NULL THEN
        SELECT string_agg(concat_ws(' ', coalesce(nullif(e.instance_path, ''), 'payload'), e.message), E'\n')
        INTO problems
        FROM tasker.json_schema_errors(payload_schema, payload) AS e;
        IF problems IS NOT NULL THEN
            RAISE EXCEPTION USING
                ERRCODE = 'TK006',
                MESSAGE = format('payload of event "%s" does not match its payload_schema', name),
                DETAIL = problems,
                HINT = format('SELECT tasker.event_info(%L) shows the schema.', name);
        END IF;
    END IF;
    -- What the engine adds when the event is handed out is not contradicted.
    SELECT string_agg(format('"%s" is %s, and the event has %s', f.key, left(payload -> f.key #>> '{}', 100), left(f.value #>> '{}', 100)),
                      E'\n' ORDER BY f.key)
    INTO problems
    FROM jsonb_each(facts) AS f
    WHERE payload ? f.key
      AND payload -> f.key <> f.value;
    IF problems IS NOT NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'TK006',
            MESSAGE = format('payload of event "%s" has keys of the engine', name),
            DETAIL = problems,
            HINT = 'The engine adds these. Leave them out, or give yours other names.';
    END IF;
END;
$$;
COMMENT ON FUNCTION tasker._check_payload(text, jsonb, jsonb, jsonb) IS
'Raises TK006 where a payload is no object, does not match the schema (NULL: none), with every problem in the detail, or contradicts what the engine adds to it. Private.';

CREATE FUNCTION tasker._publish_event(
    name text,
    payload jsonb,
    task_id bigint,
    step_id bigint)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    event tasker.custom_event;
    its_step bigint := $4;
    its_task bigint := $3;
    facts record;
BEGIN
    IF $3 IS NULL AND $4 IS NULL THEN
        its_step := tasker._running_step();
    END IF;
    its_task := coalesce(its_task, its_step >> 14);
    IF tasker._is_enforced() THEN
        IF its_task IS NULL THEN
            PERFORM tasker._require('event:create', NULL);
        ELSE
            PERFORM tasker._require_task('event:create', its_task);
        END IF;
    END IF;
    SELECT c.*
    INTO event
    FROM tasker.custom_event AS c
    WHERE c.name = $1
      AND (NOT tasker._is_enforced()
           OR EXISTS (SELECT FROM tasker._seen_custom_events() AS s WHERE s.name = c.name));
    IF NOT FOUND THEN
        IF tasker._system_event($1) IS NOT NULL THEN
            RAISE EXCEPTION USING
                ERRCODE = 'TK009',
                MESSAGE = format('event "%s" is the engine''s own', $1),
                DETAIL = 'The engine tells of it when it happens; nobody else can.',
                HINT = 'Register an event with a name of your own by tasker.register_event().';
        END IF;
        PERFORM tasker._unknown_event(coalesce($1, 'NULL'));
    END IF;
    IF its_task <> its_step >> 14 THEN
        RAISE EXCEPTION USING
            ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('step %s is no step of task %s', its_step, its_task),
            DETAIL = format('It is one of task %s.', its_step >> 14),
            HINT = 'Pass the step alone.';
    END IF;
    IF its_task IS NOT NULL THEN
        SELECT f.namespace,
               tasker._payload(f.facts, NULL,
                   'step_id', its_step,
                   'step_name', (SELECT s.name
                                 FROM tasker.task AS t
                                 JOIN tasker.plan_step AS s USING (plan_id)
                                 WHERE t.task_id = its_task
                                   AND s.step_no = (its_step & 16383)::smallint)) AS payload
        INTO facts
        FROM tasker._task_facts(ARRAY[its_task]) AS f;
        IF NOT FOUND THEN
            PERFORM tasker._refuse_unknown_task(its_task);
        END IF;
        IF its_step IS NOT NULL AND facts.payload ->> 'step_name' IS NULL THEN
            RAISE EXCEPTION USING
                ERRCODE = 'TK007',
                MESSAGE = format('step %s does not exist', its_step),
                DETAIL = format('No step has the id %s.', its_step),
                HINT = 'The view tasker.workflow_steps lists the steps there are.';
        END IF;
    ELSE
        SELECT NULL::text AS namespace, jsonb '{}' AS payload
        INTO facts;
    END IF;
    PERFORM tasker._check_payload(event.name, event.payload_schema, $2, facts.payload || jsonb_build_object('event_type', event.name));
    RETURN tasker._announce(event.name, facts.namespace, $2, its_task, (its_step & 16383)::smallint);
END;
$$;
COMMENT ON FUNCTION tasker._publish_event(text, jsonb, bigint, bigint) IS
'What tasker.publish_event() does, for its caller. Private.';

CREATE FUNCTION tasker.publish_event(
    name text,
    payload jsonb,
    task_id bigint DEFAULT NULL,
    step_id bigint DEFAULT NULL)
RETURNS bigint
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.publish_event(text, jsonb, bigint, bigint) IS
'Publishes a custom event: subscribers hear of it once the transaction has committed, and not at all if it, or the handler that calls this, is rolled back. Returns the event''s id. name: a registered one. payload: an object, checked against the event''s payload_schema; when it is handed out the engine adds event_type, timestamp and, of an event that belongs to a task, what every event of that task carries. task_id, step_id: what it belongs to, a step''s task being known by the step; without both, inside a SQL handler, its own step. Raises TK006 (payload, with every problem in the detail), TK007 (no such event, task or step), TK009 (an event of the engine), 22023 (a step of another task). Source: design, contract, "Events"; reference 7.4.';
