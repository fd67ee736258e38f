-- Handlers: who may run a step.  The public functions are C only because they
-- must see who called them (access/caller.c); what they do stands here.

CREATE FUNCTION tasker._nearest(name text, candidates text[])
RETURNS text
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'tasker_nearest';
COMMENT ON FUNCTION tasker._nearest(text, text[]) IS
'The candidate that differs from the name by the fewest characters, or NULL where none is near: at most 4 characters, and at most every second. Private.';

CREATE FUNCTION tasker._did_you_mean(name text, candidates text[])
RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'Did you mean "' || tasker._nearest(name, candidates) || '"?';
$$;
COMMENT ON FUNCTION tasker._did_you_mean(text, text[]) IS
'A hint with the nearest candidate; NULL where none is near. Private.';

CREATE FUNCTION tasker._version_order(version text)
RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    -- A number sorts by its length, then its digits.  A release ends in ~, which
    -- sorts behind the - that begins a pre-release; in a pre-release numbers
    -- begin with 0, words with 1, and ! ends a word below any character of one.
    SELECT string_agg(lpad(length(number)::text, 3, '0') || number, '' ORDER BY n)
           || CASE WHEN max(parts[5]) IS NULL THEN '~' ELSE '-' || max(pre.encoded) END
    FROM regexp_match(
             version COLLATE "C",
             '^(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)'
             '(-((?:0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)'
             '(?:\.(?:0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*))*))?'
             '(?:\+[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*)?$') AS m (parts)
    CROSS JOIN LATERAL unnest(parts[1:3]) WITH ORDINALITY AS core (number, n)
    CROSS JOIN LATERAL (
        SELECT string_agg(
                   CASE WHEN id ~ '^[0-9]+$' THEN '0' || lpad(length(id)::text, 3, '0') || id
                        ELSE '1' || id || '!' END,
                   '' ORDER BY i) AS encoded
        FROM unnest(string_to_array(parts[5], '.')) WITH ORDINALITY AS ids (id, i)
    ) AS pre
    WHERE length(version) <= 128;
$$;
COMMENT ON FUNCTION tasker._version_order(text) IS
'Text that sorts under COLLATE "C" as semantic versions do (semver 2.0.0, precedence; build metadata does not count); NULL for what is no semantic version or is longer than 128 characters. Private.';

CREATE FUNCTION tasker._name_problem(name text)
RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN name = '' THEN 'is empty'
        WHEN length(name) > 128 THEN 'is longer than 128 characters'
        WHEN name COLLATE "C" ~ '^\s|\s$' THEN 'begins or ends with white space'
        WHEN name COLLATE "C" ~ '[\x01-\x1f\x7f]' THEN 'has a control character in it'
    END;
$$;
COMMENT ON FUNCTION tasker._name_problem(text) IS
'What is wrong with a name of a task, step, namespace, environment or handler, as the end of a sentence; NULL: nothing. Private.';

CREATE FUNCTION tasker._handler_title(name text, namespace text, version text)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('handler "%s" of namespace "%s" for %s', name, namespace,
                  coalesce('version "' || version || '"', 'every version'));
$$;
COMMENT ON FUNCTION tasker._handler_title(text, text, text) IS
'A handler as messages name it. Private.';

CREATE FUNCTION tasker._check_handler_name(name text, namespace text, version text)
RETURNS void
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF name IS NULL OR namespace IS NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'null_value_not_allowed',
            MESSAGE = 'name and namespace of a handler must not be NULL',
            DETAIL = format('The call names handler %s of namespace %s.',
                            coalesce(quote_literal(name), 'NULL'),
                            coalesce(quote_literal(namespace), 'NULL')),
            HINT = 'Leave namespace out for the namespace default.';
    END IF;
    IF tasker._name_problem(name) IS NOT NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'TK005',
            MESSAGE = 'name of the handler ' || tasker._name_problem(name),
            DETAIL = format('The name is "%s".', left(name, 200)),
            HINT = 'A name has 1 to 128 printable characters.';
    END IF;
    IF tasker._name_problem(namespace) IS NOT NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'TK005',
            MESSAGE = 'namespace of the handler ' || tasker._name_problem(namespace),
            DETAIL = format('The namespace is "%s".', left(namespace, 200)),
            HINT = 'A namespace has 1 to 128 printable characters.';
    END IF;
    IF name = 'api' THEN
        RAISE EXCEPTION USING
            ERRCODE = 'TK005',
            MESSAGE = 'the handler name "api" is reserved',
            DETAIL = 'Under that name tasker-agent claims the steps whose handler_config.type is api.',
            HINT = 'Choose another name.';
    END IF;
    IF version IS NOT NULL AND tasker._version_order(version) IS NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'TK005',
            MESSAGE = format('"%s" is not a semantic version', left(version, 200)),
            DETAIL = format('It is the version of handler "%s".', name),
            HINT = 'Write three numbers, such as 1.0.0, or leave the version out to serve every version.';
    END IF;
END;
$$;
COMMENT ON FUNCTION tasker._check_handler_name(text, text, text) IS
'Raises 22004 or TK005 where a handler cannot be registered under that name, namespace and version. Private.';

-- Of the functions that the engine calls for its users: handlers of steps and
-- those of subscribers.
CREATE FUNCTION tasker._handler_function(
    handler regproc,
    OUT signature text,
    OUT qualified text,
    OUT is_a text,
    OUT returns_set boolean,
    OUT result oid,
    OUT argument oid,
    OUT takes text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    SELECT p.oid::regprocedure::text,
           format('%I.%I', n.nspname, p.proname),
           CASE p.prokind
               WHEN 'p' THEN 'a procedure'
               WHEN 'a' THEN 'an aggregate'
               WHEN 'w' THEN 'a window function'
           END,
           p.proretset,
           p.prorettype,
           CASE WHEN p.provariadic = 0 AND p.pronargs = 1 THEN p.proargtypes[0] END,
           coalesce((SELECT string_agg(format_type(a.type, NULL), ', ' ORDER BY a.n)
                     FROM unnest(p.proargtypes) WITH ORDINALITY AS a (type, n)), 'nothing')
    INTO signature, qualified, is_a, returns_set, result, argument, takes
    FROM pg_proc AS p
    JOIN pg_namespace AS n ON n.oid = p.pronamespace
    WHERE p.oid = handler;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING
            ERRCODE = 'undefined_function',
            MESSAGE = format('there is no function with OID %s', handler::oid),
            DETAIL = 'The argument handler names no function of this database.',
            HINT = 'Give the function''s name, such as ''my_schema.my_handler''.';
    END IF;
END;
$$;
COMMENT ON FUNCTION tasker._handler_function(regproc) IS
'What a function is that somebody wants to be called: its signature and its name, qualified and quoted; what it is where it is no plain function; whether it returns a set, the type of what it returns, that of its argument where it takes exactly one, and what it takes, for people. Raises 42883 where there is none. Private.';

CREATE FUNCTION tasker._check_callable(handler regproc, caller text, purpose text, reason text)
RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    schema constant oid := (SELECT p.pronamespace FROM pg_proc AS p WHERE p.oid = handler);
BEGIN
    IF pg_is_other_temp_schema(schema) OR schema = pg_my_temp_schema() THEN
        RAISE EXCEPTION USING
            ERRCODE = 'invalid_function_definition',
            MESSAGE = format('%s cannot be %s', handler::oid::regprocedure, purpose),
            DETAIL = 'It is temporary, and no other session can call it.',
            HINT = 'Create it in a schema that stays.';
    END IF;
    IF NOT has_function_privilege(caller, handler::oid, 'EXECUTE')
       OR NOT has_schema_privilege(caller, schema, 'USAGE') THEN
        RAISE EXCEPTION USING
            ERRCODE = 'insufficient_privilege',
            MESSAGE = format('role "%s" may not execute %s', caller, handler::oid::regprocedure),
            DETAIL = reason,
            HINT = format('GRANT USAGE ON SCHEMA %s TO %I; GRANT EXECUTE ON FUNCTION %s TO %I;',
                          schema::regnamespace, caller, handler::oid::regprocedure, caller);
    END IF;
END;
$$;
COMMENT ON FUNCTION tasker._check_callable(regproc, text, text, text) IS
'Raises 42P13 where a function is temporary, 42501 where the caller''s role may not execute it (NULL: whoever); purpose is what it was to be, reason why that role must. Private.';

CREATE FUNCTION tasker._check_handler_function(handler regproc, caller text)
RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    step_context constant oid := to_regtype('tasker.step_context');
    proc record;
BEGIN
    IF handler IS NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'null_value_not_allowed',
            MESSAGE = 'function of a handler must not be NULL',
            DETAIL = 'The argument handler is NULL.',
            HINT = 'A handler without a function is registered by tasker.register_external_handler().';
    END IF;
    SELECT f.*
    INTO proc
    FROM tasker._handler_function(handler) AS f;
    IF proc.is_a IS NOT NULL
       OR proc.returns_set
       OR proc.result <> 'jsonb'::regtype
       OR proc.argument IS DISTINCT FROM step_context THEN
        RAISE EXCEPTION USING
            ERRCODE = 'invalid_function_definition',
            MESSAGE = format('%s cannot be a handler', proc.signature),
            DETAIL = format('It is %s; a handler is a function that takes one tasker.step_context and returns jsonb.',
                coalesce(proc.is_a,
                         format('a function that takes %s and returns %s%s',
                                proc.takes,
                                CASE WHEN proc.returns_set THEN 'a set of ' ELSE '' END,
                                format_type(proc.result, NULL)))),
            HINT = format('CREATE FUNCTION %s(step tasker.step_context) RETURNS jsonb LANGUAGE plpgsql AS $f$ BEGIN RETURN ''{}''; END $f$;',
                          proc.qualified);
    END IF;
    PERFORM tasker._check_callable(handler, caller, 'a handler', 'A handler runs as the role that registers it.');
    RETURN proc.qualified;
END;
$$;
COMMENT ON FUNCTION tasker._check_handler_function(regproc, text) IS
'Qualified and quoted name of the function, or 22004, 42883, 42P13 or 42501 where it cannot be a handler that the caller''s role runs. Private.';

CREATE FUNCTION tasker._check_owner(title text, registered_by text, caller text)
RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- A role that is gone owns nothing any more.
    IF to_regrole(quote_ident(registered_by)) IS NOT NULL
       AND NOT pg_has_role(caller, registered_by::name, 'MEMBER') THEN
        RAISE EXCEPTION USING
            ERRCODE = 'TK009',
            MESSAGE = title || ' was registered by another role',
            DETAIL = format('Role "%s" registered it, and role "%s" is no member of that.',
                            registered_by, caller),
            HINT = format('SET ROLE %I, or ask a member of it.', registered_by);
    END IF;
END;
$$;
COMMENT ON FUNCTION tasker._check_owner(text, text, text) IS
'Raises TK009, with the title of what was registered, unless the caller''s role is a member of the role that registered it. Private.';

CREATE FUNCTION tasker._requeue_handler(handler_id integer)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    moved bigint;
BEGIN
    -- What waits in the handler's own lane would wait there for ever; an
    -- executor looks the handler up anew and puts it where it belongs.
    UPDATE tasker.queue AS q
    SET lane = 1
    WHERE q.lane = _requeue_handler.handler_id;
    GET DIAGNOSTICS moved = ROW_COUNT;
    UPDATE tasker.queue AS q
    SET due_lane = 1
    WHERE q.lane = -1
      AND q.due_lane = _requeue_handler.handler_id;
    IF moved > 0 THEN
        PERFORM tasker._wake(least(moved, 1000)::integer);
    END IF;
END;
$$;
COMMENT ON FUNCTION tasker._requeue_handler(integer) IS
'Gives the steps that wait for an external handler back to the executors, because the handler is gone or became another kind. Private.';

CREATE FUNCTION tasker._handler_entity_class(kind text, function text)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE kind WHEN 'sql' THEN function || '(tasker.step_context)' ELSE kind END;
$$;
COMMENT ON FUNCTION tasker._handler_entity_class(text, text) IS
'What runs a handler, as the registries show it: the signature of its function, or its kind. Private.';

CREATE FUNCTION tasker._note_handler(event text, handler tasker.handler, replace boolean, error text DEFAULT NULL)
RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT tasker._note_registry(
        'handler_factory', event, handler.namespace, handler.name, handler.version,
        tasker._handler_entity_class(handler.kind, handler.function),
        replace, error);
$$;
COMMENT ON FUNCTION tasker._note_handler(text, tasker.handler, boolean, text) IS
'Notes what was done to a handler, as _note_registry() does. Private.';

CREATE FUNCTION tasker._store_handler(new_handler tasker.handler, replace boolean)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    old_handler tasker.handler;
BEGIN
    LOOP
        SELECT h.*
        INTO old_handler
        FROM tasker.handler AS h
        WHERE h.namespace = new_handler.namespace
          AND h.name = new_handler.name
          AND h.version IS NOT DISTINCT FROM new_handler.version
        FOR UPDATE;
        IF NOT FOUND THEN
            -- Waits for a session that registers the same name at this moment,
            -- and has then to look at what that one did.
            INSERT INTO tasker.handler (namespace, name, version, kind, function, run_as, search_path, transaction)
            VALUES (new_handler.namespace, new_handler.name, new_handler.version, new_handler.kind,
                    new_handler.function, new_handler.run_as, new_handler.search_path, new_handler.transaction)
            ON CONFLICT (namespace, name, version) DO NOTHING;
            EXIT WHEN FOUND;
            CONTINUE;
        END IF;

        IF replace IS NOT TRUE THEN
            RAISE EXCEPTION USING
                ERRCODE = 'TK008',
                MESSAGE = tasker._handler_title(old_handler.name, old_handler.namespace, old_handler.version)
                          || ' is already registered',
                DETAIL = CASE old_handler.kind
                    WHEN 'sql' THEN format('It is the function %s, registered by role "%s".', old_handler.function, old_handler.run_as)
                    ELSE format('It is an external handler, registered by role "%s".', old_handler.run_as)
                    END,
                HINT = 'Pass replace => true to put this one in its place.';
        END IF;
        PERFORM tasker._check_owner(
            tasker._handler_title(old_handler.name, old_handler.namespace, old_handler.version), old_handler.run_as, new_handler.run_as);

        UPDATE tasker.handler AS h
        SET kind = new_handler.kind,
            function = new_handler.function,
            run_as = new_handler.run_as,
            search_path = new_handler.search_path,
            transaction = new_handler.transaction,
            registered_at = tasker.clock()
        WHERE h.handler_id = old_handler.handler_id;
        IF old_handler.kind = 'external' AND new_handler.kind <> 'external' THEN
            PERFORM tasker._requeue_handler(old_handler.handler_id);
        END IF;
        PERFORM tasker._note_handler('unregistered', old_handler, replace);
        EXIT;
    END LOOP;
    PERFORM tasker._note_handler('registered', new_handler, replace);
    PERFORM tasker._definitions_changed();
END;
$$;
COMMENT ON FUNCTION tasker._store_handler(tasker.handler, boolean) IS
'Stores a handler that was checked, or raises TK008 or TK009 where the name is taken. Private.';

CREATE FUNCTION tasker._register_handler(
    name text,
    handler regproc,
    namespace text,
    version text,
    replace boolean,
    transaction text,
    caller text,
    search_path text)
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    new_handler tasker.handler;
BEGIN
    PERFORM tasker._require('handler:create', coalesce(_register_handler.namespace, 'default'));
    new_handler.namespace := namespace;
    new_handler.name := name;
    new_handler.version := version;
    new_handler.run_as := caller;
    new_handler.search_path := search_path;
    new_handler.transaction := transaction;
    BEGIN
        PERFORM tasker._check_handler_name(name, namespace, version);
        IF transaction IS NULL OR transaction NOT IN ('shared', 'own') THEN
            RAISE EXCEPTION USING
                ERRCODE = 'invalid_parameter_value',
                MESSAGE = format('transaction of handler "%s" must be shared or own', name),
                DETAIL = format('It is %s.', coalesce(quote_literal(transaction), 'NULL')),
                HINT = 'own gives each run a transaction of its own, for handlers that take long.';
        END IF;
        new_handler.function := tasker._check_handler_function(handler, caller);
    EXCEPTION
        WHEN OTHERS THEN
            -- Whatever was given, so that it can be found.
            new_handler.kind := (SELECT p.oid::regprocedure FROM pg_proc AS p WHERE p.oid = handler);
            PERFORM tasker._note_handler('validation_failed', new_handler, replace, SQLERRM);
            RAISE;
    END;
    new_handler.kind := 'sql';
    PERFORM tasker._store_handler(new_handler, replace);
    IF (SELECT r.rolsuper FROM pg_roles AS r WHERE r.rolname = caller) THEN
        RAISE WARNING USING
            MESSAGE = format('handler "%s" will run as superuser "%s"', name, caller),
            DETAIL = 'Whoever may create tasks makes it run.',
            HINT = 'Register it as a role that has only the rights it needs.';
    END IF;
END;
$$;
REVOKE ALL ON FUNCTION tasker._register_handler(text, regproc, text, text, boolean, text, text, text) FROM PUBLIC;
COMMENT ON FUNCTION tasker._register_handler(text, regproc, text, text, boolean, text, text, text) IS
'What tasker.register_handler() does, for the role and search_path of its caller. Private.';

CREATE FUNCTION tasker.register_handler(
    name text,
    handler regproc,
    namespace text DEFAULT 'default',
    version text DEFAULT NULL,
    replace boolean DEFAULT false,
    transaction text DEFAULT 'shared')
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.register_handler(text, regproc, text, text, boolean, text) IS
'Registers a function f(tasker.step_context) RETURNS jsonb as the handler that definitions call by this name. It runs as the current role with the current search_path. Returns nothing. namespace: whose tasks it serves; default serves all. version: task version it serves, NULL for every one. replace: take the place of one that is registered; its registrar must be a role that the current one is a member of. transaction: shared (in a batch with others) or own (each run a transaction of its own, for long ones). Warns where it will run as a superuser. Raises TK005 (name or version), 22004 (a NULL), 22023 (transaction), 42883 (no such function), 42P13 (its signature), 42501 (it may not be executed), TK008 (name taken), TK009 (another role''s). Source: design, contract; reference 6.1.';

CREATE FUNCTION tasker._handler_of(name text, namespace text, version text)
RETURNS tasker.handler
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- As engine/plan.c looks it up.  In PL/pgSQL, which keeps its plan: each claim of
    -- api steps asks.
    RETURN (
        SELECT h
        FROM tasker.handler AS h
        WHERE h.name = _handler_of.name
          AND h.namespace IN (_handler_of.namespace, 'default')
          AND (h.version = _handler_of.version OR h.version IS NULL)
        ORDER BY h.namespace <> _handler_of.namespace, h.version IS NULL
        LIMIT 1);
END;
$$;
COMMENT ON FUNCTION tasker._handler_of(text, text, text) IS
'The handler that a handler_class means to a task of that namespace and version; NULL: none. Private.';

CREATE FUNCTION tasker._warn_of_api_steps(handler tasker.handler)
RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    named record;
BEGIN
    SELECT p.namespace, p.name, p.version, s.name AS step
    INTO named
    FROM tasker.plan_step AS s
    JOIN tasker.plan AS p ON p.plan_id = s.plan_id
    CROSS JOIN LATERAL tasker._handler_of(s.handler_class, p.namespace, p.version) AS h
    WHERE s.handler_class = handler.name
      AND s.handler_type = 'api'
      AND p.retired_at IS NULL
      AND h.namespace = handler.namespace
      AND h.version IS NOT DISTINCT FROM handler.version
    ORDER BY p.plan_id, s.step_no
    LIMIT 1;
    IF FOUND THEN
        RAISE WARNING USING
            MESSAGE = format('external handler "%s" gets no steps of type api', handler.name),
            DETAIL = format('Step "%s" of task %s/%s@%s names it.', named.step, named.namespace, named.name, named.version),
            HINT = tasker._http_external_hint();
    END IF;
END;
$$;
COMMENT ON FUNCTION tasker._warn_of_api_steps(tasker.handler) IS
'Warns where api steps name this external handler, which is nothing to them. Private.';

CREATE FUNCTION tasker._register_external_handler(
    name text,
    namespace text,
    version text,
    replace boolean,
    caller text)
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    new_handler tasker.handler;
BEGIN
    PERFORM tasker._require('handler:create', coalesce(_register_external_handler.namespace, 'default'));
    new_handler.namespace := namespace;
    new_handler.name := name;
    new_handler.version := version;
    new_handler.kind := 'external';
    new_handler.run_as := caller;
    new_handler.transaction := 'shared';
    BEGIN
        PERFORM tasker._check_handler_name(name, namespace, version);
    EXCEPTION
        WHEN OTHERS THEN
            PERFORM tasker._note_handler('validation_failed', new_handler, replace, SQLERRM);
            RAISE;
    END;
    PERFORM tasker._store_handler(new_handler, replace);
    PERFORM tasker._warn_of_api_steps(new_handler);
END;
$$;
REVOKE ALL ON FUNCTION tasker._register_external_handler(text, text, text, boolean, text) FROM PUBLIC;
COMMENT ON FUNCTION tasker._register_external_handler(text, text, text, boolean, text) IS
'What tasker.register_external_handler() does, for the role of its caller. Private.';

CREATE FUNCTION tasker.register_external_handler(
    name text,
    namespace text DEFAULT 'default',
    version text DEFAULT NULL,
    replace boolean DEFAULT false)
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.register_external_handler(text, text, text, boolean) IS
'Registers a name whose steps wait for workers outside, who take them with tasker.claim_steps(). Returns nothing. name: what definitions call handler_class. namespace: whose tasks it serves; default serves all. version: task version it serves, NULL for every one. replace: take the place of one that is registered; its registrar must be a role that the current one is a member of. Warns where a step of type api names it: no worker outside gets that. Raises TK005 (name or version), 22004 (a NULL), TK008 (name taken), TK009 (another role''s). Source: design, contract.';

CREATE FUNCTION tasker._unregister_handler(name text, namespace text, version text, caller text)
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    old_handler tasker.handler;
    others text;
BEGIN
    PERFORM tasker._require('handler:create', coalesce(_unregister_handler.namespace, 'default'));
    SELECT h.*
    INTO old_handler
    FROM tasker.handler AS h
    WHERE h.namespace = _unregister_handler.namespace
      AND h.name = _unregister_handler.name
      AND h.version IS NOT DISTINCT FROM _unregister_handler.version
    FOR UPDATE;
    IF NOT FOUND THEN
        SELECT string_agg(tasker._handler_title(h.name, h.namespace, h.version), ', '
                          ORDER BY h.namespace, h.version)
        INTO others
        FROM tasker.handler AS h
        WHERE h.name = _unregister_handler.name
          AND tasker._sees('{handler:show,handler:index,handler:create}', h.namespace);
        RAISE EXCEPTION USING
            ERRCODE = 'TK007',
            MESSAGE = tasker._handler_title(coalesce(name, 'NULL'), coalesce(namespace, 'NULL'), version)
                      || ' is not registered',
            DETAIL = CASE WHEN others IS NULL THEN 'No handler has that name.'
                          ELSE format('Registered under that name: %s.', others) END,
            HINT = coalesce(
                tasker._did_you_mean(name, ARRAY(
                    SELECT DISTINCT h.name
                    FROM tasker.handler AS h
                    WHERE h.name <> _unregister_handler.name
                      AND tasker._sees('{handler:show,handler:index,handler:create}', h.namespace)
                    ORDER BY h.name)),
                'The view tasker.handlers shows what is registered.');
    END IF;
    PERFORM tasker._check_owner(
        tasker._handler_title(old_handler.name, old_handler.namespace, old_handler.version), old_handler.run_as, caller);
    DELETE FROM tasker.handler AS h
    WHERE h.handler_id = old_handler.handler_id;
    IF old_handler.kind = 'external' THEN
        PERFORM tasker._requeue_handler(old_handler.handler_id);
    END IF;
    PERFORM tasker._note_handler('unregistered', old_handler, false);
    PERFORM tasker._definitions_changed();
END;
$$;
REVOKE ALL ON FUNCTION tasker._unregister_handler(text, text, text, text) FROM PUBLIC;
COMMENT ON FUNCTION tasker._unregister_handler(text, text, text, text) IS
'What tasker.unregister_handler() does, for the role of its caller. Private.';

CREATE FUNCTION tasker.unregister_handler(
    name text,
    namespace text DEFAULT 'default',
    version text DEFAULT NULL)
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.unregister_handler(text, text, text) IS
'Removes the handler of that name and namespace. Steps that need it fail from then on, until a handler of that name is registered again. Returns nothing. version: that of the registration, NULL for the one that serves every version. Raises TK007 (not registered), TK009 (another role''s). Source: design, contract; reference 6.';

CREATE VIEW tasker.handlers WITH (security_invoker) AS
SELECT h.namespace, h.name, h.version, h.kind, h.function, h.run_as, h.transaction, h.registered_at
FROM tasker.handler AS h;
COMMENT ON VIEW tasker.handlers IS 'Every registered handler.';
COMMENT ON COLUMN tasker.handlers.namespace IS 'Namespace it serves; default serves every one that has no handler of that name of its own.';
COMMENT ON COLUMN tasker.handlers.name IS 'What definitions call handler_class.';
COMMENT ON COLUMN tasker.handlers.version IS 'Task version it serves; NULL: every one.';
COMMENT ON COLUMN tasker.handlers.kind IS 'sql: a function run by an executor; external: claimed by workers outside.';
COMMENT ON COLUMN tasker.handlers.function IS 'Function of a sql handler.';
COMMENT ON COLUMN tasker.handlers.run_as IS 'Role that registered it; a sql handler runs as that.';
COMMENT ON COLUMN tasker.handlers.transaction IS 'shared: runs in a batch with others; own: each run has a transaction of its own.';
COMMENT ON COLUMN tasker.handlers.registered_at IS 'When it was registered, or last replaced.';
