-- Creating tasks: one statement a table, however many there are.

CREATE FUNCTION tasker._insert_tasks(
    contexts jsonb[],
    plan_id integer,
    priority integer,
    run_at timestamptz,
    initiator text,
    reason text,
    source_system text,
    tags text[],
    bypass_steps text[],
    idempotency_key text,
    environment text,
    correlation_id text,
    traceparent text)
RETURNS bigint[]
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_insert_tasks';
COMMENT ON FUNCTION tasker._insert_tasks(jsonb[], integer, integer, timestamptz, text, text, text, text[], text[], text, text, text, text) IS
'Inserts one pending task a context, its token and its first row of the log, and wakes executors at commit. Returns the ids in the order of the contexts. Checks nothing. Private: the one place that inserts a task.';

CREATE FUNCTION tasker._current_plan(
    task_name text,
    task_namespace text,
    task_version text)
RETURNS tasker.plan
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    template tasker.template;
    wanted text;
    plan tasker.plan;
BEGIN
    SELECT t.*
    INTO template
    FROM tasker.template AS t
    WHERE t.namespace = task_namespace
      AND t.name = task_name
      AND (task_version IS NULL OR t.version = task_version)
    ORDER BY t.version_order DESC
    LIMIT 1;
    IF NOT FOUND THEN
        PERFORM tasker._refuse_unknown_template(task_name, task_namespace, task_version);
    END IF;

    wanted := coalesce(template.environment, nullif(current_setting('tasker.environment', true), ''));
    SELECT p.*
    INTO plan
    FROM tasker.plan AS p
    WHERE p.template_id = template.template_id
      AND p.retired_at IS NULL
      AND (p.environment = wanted OR p.environment IS NULL)
    ORDER BY p.environment NULLS LAST
    LIMIT 1;
    -- What the task records is the environment in force, whether or not the
    -- definition has a block for it.
    plan.environment := wanted;
    RETURN plan;
END;
$$;
COMMENT ON FUNCTION tasker._current_plan(text, text, text) IS
'The plan that a task created now would follow; its environment is the one in force. Raises TK007. Private.';

CREATE FUNCTION tasker._refuse_unknown_template(
    task_name text,
    task_namespace text,
    task_version text)
RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    versions text;
    elsewhere text;
    nearest text;
BEGIN
    SELECT string_agg(t.version, ', ' ORDER BY t.version_order)
    INTO versions
    FROM tasker.template AS t
    WHERE t.namespace = task_namespace
      AND t.name = task_name;
    SELECT string_agg(t.namespace, ', ' ORDER BY t.namespace)
    INTO elsewhere
    FROM (SELECT DISTINCT namespace FROM tasker.template WHERE name = task_name) AS t
    WHERE tasker._sees('{template:show,template:index}', t.namespace);
    nearest := tasker._nearest(task_name, ARRAY(
        SELECT DISTINCT t.name FROM tasker.template AS t WHERE t.namespace = task_namespace));

    IF versions IS NOT NULL THEN
        RAISE EXCEPTION 'task "%" has no version "%"', task_name, task_version
            USING ERRCODE = 'TK007',
                  DETAIL = format('Namespace "%s" has it in version %s.', task_namespace, versions),
                  HINT = 'Leave the version out to get the highest.';
    END IF;
    RAISE EXCEPTION 'task "%" is not registered', task_name
        USING ERRCODE = 'TK007',
              DETAIL = format('Namespace "%s" has no template of that name.', task_namespace),
              HINT = CASE
                         WHEN elsewhere IS NOT NULL THEN format('It is registered in namespace %s: name that one.', elsewhere)
                         WHEN nearest IS NOT NULL THEN format('Did you mean "%s"?', nearest)
                         ELSE 'Register it with tasker.register_task().'
                     END;
END;
$$;
COMMENT ON FUNCTION tasker._refuse_unknown_template(text, text, text) IS
'Raises TK007 for a template that does not exist, with what comes nearest to it. Private.';

CREATE FUNCTION tasker._create_tasks(
    plan tasker.plan,
    contexts jsonb[],
    initiator text,
    reason text,
    source_system text,
    tags text[],
    bypass_steps text[],
    idempotency_key text,
    priority integer,
    run_at timestamptz,
    correlation_id text,
    traceparent text)
RETURNS bigint[]
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    unknown text;
BEGIN
    IF correlation_id IS NOT NULL OR traceparent IS NOT NULL THEN
        PERFORM tasker._check_trace(correlation_id, traceparent);
    END IF;
    IF bypass_steps <> '{}' THEN
        SELECT string_agg(format('"%s"', b.name), ', ')
        INTO unknown
        FROM unnest(bypass_steps) AS b (name)
        WHERE NOT EXISTS (
            SELECT FROM tasker.plan_step AS s
            WHERE s.plan_id = plan.plan_id
              AND s.name = b.name);
        IF unknown IS NOT NULL THEN
            RAISE EXCEPTION 'bypass_steps names a step that the task does not have'
                USING ERRCODE = 'TK007',
                      DETAIL = format('Task "%s" has no step %s.', plan.name, unknown),
                      HINT = (SELECT 'Its steps are: ' || string_agg(s.name, ', ' ORDER BY s.step_no) || '.'
                              FROM tasker.plan_step AS s
                              WHERE s.plan_id = plan.plan_id);
        END IF;
    END IF;

    -- In a statement of its own, so that a context that breaks the schema is not
    -- reported with the whole of the next one.
    contexts := ARRAY(
        SELECT tasker._check_context(plan.schema, c.context)
        FROM unnest(contexts) WITH ORDINALITY AS c (context, place)
        ORDER BY c.place);

    RETURN tasker._insert_tasks(
        contexts, plan.plan_id, coalesce(nullif(priority, 0), plan.priority), run_at, initiator, reason, source_system,
        nullif(tags, '{}'), nullif(bypass_steps, '{}'), idempotency_key, plan.environment, correlation_id, traceparent);
END;
$$;
COMMENT ON FUNCTION tasker._create_tasks(tasker.plan, jsonb[], text, text, text, text[], text[], text, integer, timestamptz, text, text) IS
'Checks what tasks are to be created with, creates one a context and returns their ids in the order of the contexts. Private.';

CREATE FUNCTION tasker._create_once(
    plan tasker.plan,
    context jsonb,
    initiator text,
    reason text,
    source_system text,
    tags text[],
    bypass_steps text[],
    idempotency_key text,
    priority integer,
    run_at timestamptz,
    correlation_id text,
    traceparent text)
RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known bigint;
    created bigint;
BEGIN
    -- Whoever is first to insert the key makes the task; a second one waits
    -- here for the first to commit, and then finds its task.
    INSERT INTO tasker.idempotency (namespace, idempotency_key, task_id)
    VALUES (plan.namespace, _create_once.idempotency_key, 0)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        SELECT i.task_id
        INTO known
        FROM tasker.idempotency AS i
        WHERE i.namespace = plan.namespace
          AND i.idempotency_key = _create_once.idempotency_key;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'could not serialize access due to a concurrent task of the same idempotency key'
                USING ERRCODE = 'serialization_failure',
                      HINT = 'Retry the transaction.';
        END IF;
        RETURN known;
    END IF;
    created := (tasker._create_tasks(plan, ARRAY[context], initiator, reason, source_system, tags, bypass_steps,
                                     idempotency_key, priority, run_at, correlation_id, traceparent))[1];
    UPDATE tasker.idempotency AS i
    SET task_id = created
    WHERE i.namespace = plan.namespace
      AND i.idempotency_key = _create_once.idempotency_key;
    RETURN created;
END;
$$;
COMMENT ON FUNCTION tasker._create_once(tasker.plan, jsonb, text, text, text, text[], text[], text, integer, timestamptz, text, text) IS
'Creates the task of an idempotency key, or returns the one that it has made. Private.';

CREATE FUNCTION tasker._create_task(
    name text,
    context jsonb,
    namespace text,
    version text,
    initiator text,
    reason text,
    source_system text,
    tags text[],
    bypass_steps text[],
    idempotency_key text,
    priority integer,
    run_at timestamptz,
    correlation_id text,
    traceparent text,
    routing_key text)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    plan tasker.plan;
    key text;
BEGIN
    -- Not a statement while there is nothing to ask.
    IF tasker._is_enforced() THEN
        PERFORM tasker._require('task:create', coalesce(namespace, 'default'));
    END IF;
    plan := tasker._current_plan(name, coalesce(namespace, 'default'), version);
    key := tasker._request_key(name, context, plan.namespace, plan.version, initiator, reason, source_system,
                               bypass_steps, idempotency_key);
    IF key IS NOT NULL THEN
        RETURN tasker._create_once(plan, context, initiator, reason, source_system, tags, bypass_steps,
                                   key, priority, run_at, correlation_id, traceparent);
    END IF;
    RETURN (tasker._create_tasks(plan, ARRAY[context], initiator, reason, source_system, tags, bypass_steps,
                                 NULL, priority, run_at, correlation_id, traceparent))[1];
END;
$$;
COMMENT ON FUNCTION tasker._create_task(text, jsonb, text, text, text, text, text, text[], text[], text, integer, timestamptz, text, text, text) IS
'What tasker.create_task() does, for its caller. Private.';

CREATE FUNCTION tasker.create_task(
    name text,
    context jsonb DEFAULT '{}',
    namespace text DEFAULT 'default',
    version text DEFAULT NULL,
    initiator text DEFAULT NULL,
    reason text DEFAULT NULL,
    source_system text DEFAULT NULL,
    tags text[] DEFAULT '{}',
    bypass_steps text[] DEFAULT '{}',
    idempotency_key text DEFAULT NULL,
    priority integer DEFAULT 0,
    run_at timestamptz DEFAULT NULL,
    correlation_id text DEFAULT NULL,
    traceparent text DEFAULT NULL,
    routing_key text DEFAULT NULL)
RETURNS bigint
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.create_task(text, jsonb, text, text, text, text, text, text[], text[], text, integer, timestamptz, text, text, text) IS
'Creates a task, in the caller''s transaction; executors take it when that commits. Arguments: name and namespace of its template; version (NULL: the highest by semantic versioning); context, checked against the template''s schema, whose defaults are filled in; initiator, reason, source_system and tags, for people; bypass_steps, names of steps to skip; idempotency_key (the same key in a namespace makes one task, whose id every call returns; NULL: none, or what the setting tasker.identity_strategy makes); priority (higher goes first; 0 or NULL: as the template says); run_at, not before; correlation_id (letters, digits, - and _, at most 100) and traceparent (as W3C Trace Context writes it), carried through; routing_key, unused on one server. Returns the task id. Raises TK006 for a context that breaks the schema and for a malformed id, TK007 for an unknown template, version or step. Source: design, contract, "Tasks"; reference 4.1.';

CREATE FUNCTION tasker._create_tasks(
    name text,
    contexts jsonb[],
    namespace text,
    version text,
    initiator text,
    reason text,
    source_system text,
    tags text[],
    bypass_steps text[],
    idempotency_key text,
    priority integer,
    run_at timestamptz,
    correlation_id text,
    traceparent text,
    routing_key text)
RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    plan tasker.plan;
BEGIN
    IF tasker._is_enforced() THEN
        PERFORM tasker._require('task:create', coalesce(namespace, 'default'));
    END IF;
    plan := tasker._current_plan(name, coalesce(namespace, 'default'), version);
    IF contexts IS NULL OR cardinality(contexts) = 0 THEN
        RETURN;
    END IF;
    IF tasker._request_key(name, contexts[1], plan.namespace, plan.version, initiator, reason, source_system,
                           bypass_steps, idempotency_key) IS NULL THEN
        RETURN QUERY
        SELECT unnest(tasker._create_tasks(plan, contexts, initiator, reason, source_system, tags, bypass_steps,
                                           NULL, priority, run_at, correlation_id, traceparent));
        RETURN;
    END IF;
    -- One key for many tasks: the place in the array makes each its own.  A key
    -- that the setting makes is each task's own in any case.
    RETURN QUERY
    SELECT tasker._create_once(plan, c.context, initiator, reason, source_system, tags, bypass_steps,
                               CASE WHEN idempotency_key IS NOT NULL THEN format('%s#%s', idempotency_key, c.place)
                                    ELSE tasker._request_key(name, c.context, plan.namespace, plan.version, initiator,
                                                             reason, source_system, bypass_steps, NULL) END,
                               priority, run_at, correlation_id, traceparent)
    FROM unnest(contexts) WITH ORDINALITY AS c (context, place);
END;
$$;
COMMENT ON FUNCTION tasker._create_tasks(text, jsonb[], text, text, text, text, text, text[], text[], text, integer, timestamptz, text, text, text) IS
'What tasker.create_tasks() does, for its caller. Private.';

CREATE FUNCTION tasker.create_tasks(
    name text,
    contexts jsonb[],
    namespace text DEFAULT 'default',
    version text DEFAULT NULL,
    initiator text DEFAULT NULL,
    reason text DEFAULT NULL,
    source_system text DEFAULT NULL,
    tags text[] DEFAULT '{}',
    bypass_steps text[] DEFAULT '{}',
    idempotency_key text DEFAULT NULL,
    priority integer DEFAULT 0,
    run_at timestamptz DEFAULT NULL,
    correlation_id text DEFAULT NULL,
    traceparent text DEFAULT NULL,
    routing_key text DEFAULT NULL)
RETURNS SETOF bigint
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.create_tasks(text, jsonb[], text, text, text, text, text, text[], text[], text, integer, timestamptz, text, text, text) IS
'Creates one task for each context, all or none, in one statement a table: the fast way for many. Arguments as of tasker.create_task(); contexts, one a task; with an idempotency_key, task n gets the key followed by # and n. Returns the task ids in the order of the contexts. Raises TK006, TK007. Source: design, contract, "Tasks".';
