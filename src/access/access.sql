-- Permissions, who was granted which, and whether that is enforced.

CREATE VIEW tasker.permissions AS
SELECT p.permission, p.sets, p.description
FROM (
    VALUES
        ('task:index', '{viewer,operator,admin}'::text[], 'List tasks.'),
        ('task:show', '{viewer,operator,admin}', 'See a task, its steps, its log and its diagram.'),
        ('task:create', '{operator,admin}', 'Create and run tasks.'),
        ('task:update', '{operator,admin}', 'Change reason, tags and priority of a task; annotate it.'),
        ('task:cancel', '{operator,admin}', 'Cancel a task; task:destroy is another name of it.'),
        ('task:retry', '{operator,admin}', 'Retry a task.'),
        ('task:resolve', '{operator,admin}', 'Resolve a task by hand.'),
        ('task:pause', '{operator,admin}', 'Pause and resume a task.'),
        ('workflow_step:index', '{viewer,operator,admin}', 'List the steps of a task.'),
        ('workflow_step:show', '{viewer,operator,admin}', 'See a step.'),
        ('workflow_step:update', '{operator,admin}', 'Change limit of attempts and inputs of a step.'),
        ('workflow_step:cancel', '{operator,admin}', 'Cancel a step; workflow_step:destroy is another name of it.'),
        ('workflow_step:retry', '{operator,admin}', 'Retry a step.'),
        ('workflow_step:resolve', '{operator,admin}', 'Resolve a step by hand.'),
        ('template:index', '{viewer,operator,admin}', 'List templates.'),
        ('template:show', '{viewer,operator,admin}', 'See a template, check a definition.'),
        ('template:create', '{admin}', 'Register templates.'),
        ('handler:index', '{viewer,operator,admin}', 'List handlers.'),
        ('handler:show', '{viewer,operator,admin}', 'See a handler.'),
        ('handler:create', '{admin}', 'Register and unregister handlers.'),
        ('event:index', '{viewer,operator,admin}', 'Subscribe to events and fetch them.'),
        ('event:create', '{operator,admin}', 'Publish events of one''s own.'),
        ('event:register', '{admin}', 'Register and unregister events of one''s own; in all namespaces only.'),
        ('schema:create', '{admin}', 'Register and unregister JSON Schemas; in all namespaces only.'),
        ('limit:update', '{admin}', 'Limit the steps in progress.'),
        ('worker:index', '{viewer,operator,admin}', 'See workers, processes and queues.'),
        ('worker:claim', '{admin}', 'Claim, complete and fail steps as a worker outside.'),
        ('health_status:index', '{viewer,operator,admin}', 'See how the engine is; in all namespaces only.'),
        ('metrics:index', '{viewer,operator,admin}', 'See the metrics.'),
        ('analytics:index', '{viewer,operator,admin}', 'See performance and bottlenecks.')
    ) AS p (permission, sets, description);
COMMENT ON VIEW tasker.permissions IS 'Every permission that tasker.grant() can give.';
COMMENT ON COLUMN tasker.permissions.permission IS 'resource:action.';
COMMENT ON COLUMN tasker.permissions.sets IS 'Named sets that it is in: viewer, operator, admin.';
COMMENT ON COLUMN tasker.permissions.description IS 'What it allows.';

CREATE TABLE tasker.access_grant (
    role text COLLATE "C",
    namespace text COLLATE "C",
    permission text COLLATE "C",
    granted_at timestamptz NOT NULL DEFAULT tasker.clock(),
    granted_by text NOT NULL,
    PRIMARY KEY (role, namespace, permission)
);
COMMENT ON TABLE tasker.access_grant IS 'Who was granted what. Only its owner reads it; people read the view tasker.grants.';
COMMENT ON COLUMN tasker.access_grant.role IS 'Name of the role; public: everybody.';
COMMENT ON COLUMN tasker.access_grant.namespace IS 'Where; *: in all namespaces.';
COMMENT ON COLUMN tasker.access_grant.permission IS 'Permission, of tasker.permissions.';
COMMENT ON COLUMN tasker.access_grant.granted_at IS 'When it was granted.';
COMMENT ON COLUMN tasker.access_grant.granted_by IS 'Role that granted it.';

CREATE TABLE tasker.access_mode (
    enforced boolean NOT NULL,
    "only" boolean NOT NULL DEFAULT true PRIMARY KEY CHECK ("only")
);
COMMENT ON TABLE tasker.access_mode IS 'Whether access is enforced: its one row, if there is one, says so.';
COMMENT ON COLUMN tasker.access_mode.enforced IS 'A role sees and does only what it was granted.';
COMMENT ON COLUMN tasker.access_mode."only" IS 'Always true: there is one row at most.';

SELECT pg_catalog.pg_extension_config_dump('tasker.access_grant', '');
SELECT pg_catalog.pg_extension_config_dump('tasker.access_mode', '');

CREATE FUNCTION tasker._is_enforced()
RETURNS boolean
LANGUAGE C STABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'tasker_is_enforced';
COMMENT ON FUNCTION tasker._is_enforced() IS
'Whether access is enforced. Private.';

CREATE FUNCTION tasker._is_administrator()
RETURNS boolean
LANGUAGE C STABLE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'tasker_is_administrator';
COMMENT ON FUNCTION tasker._is_administrator() IS
'Whether the caller may everything: a superuser, the extension''s owner, and who has his privileges. Private.';

CREATE FUNCTION tasker._caller_may(permission text, namespace text)
RETURNS boolean
LANGUAGE C STABLE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'tasker_caller_may';
COMMENT ON FUNCTION tasker._caller_may(text, text) IS
'Whether the caller may do that in a namespace (NULL: in any; *: in all of them); always true while access is not enforced. Of a function that runs as its definer the caller is that of the public function before it. Private.';

CREATE FUNCTION tasker._require(permission text, namespace text)
RETURNS void
LANGUAGE C STABLE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'tasker_require';
COMMENT ON FUNCTION tasker._require(text, text) IS
'Raises TK009 where tasker._caller_may() is false. Private.';

CREATE FUNCTION tasker._caller_namespaces(permission text)
RETURNS text[]
LANGUAGE C STABLE STRICT PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'tasker_caller_namespaces';
COMMENT ON FUNCTION tasker._caller_namespaces(text) IS
'The namespaces in which the caller was granted that; NULL: all. Private.';

CREATE FUNCTION tasker._role_may(role text, permission text, namespace text)
RETURNS boolean
LANGUAGE C STABLE STRICT PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'tasker_role_may';
COMMENT ON FUNCTION tasker._role_may(text, text, text) IS
'As tasker._caller_may(), for a role by its name; false for one that is gone, where access is enforced. Private.';

CREATE FUNCTION tasker._require_task(permission text, task_id bigint)
RETURNS void
LANGUAGE C STABLE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'tasker_require_task';
COMMENT ON FUNCTION tasker._require_task(text, bigint) IS
'Raises TK009 where the caller may see the task and was not granted that in its namespace; TK007, in the same words, where he may not see it and where there is none. Nothing while access is not enforced. Private.';

CREATE FUNCTION tasker._require_step(permission text, step_id bigint)
RETURNS void
LANGUAGE C STABLE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'tasker_require_step';
COMMENT ON FUNCTION tasker._require_step(text, bigint) IS
'As tasker._require_task(), for the task of a step. Private.';

CREATE FUNCTION tasker._sees(permissions text[], namespace text)
RETURNS boolean
LANGUAGE C STABLE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'tasker_sees';
COMMENT ON FUNCTION tasker._sees(text[], text) IS
'Whether the caller was granted one of these permissions, which must be a constant, in a namespace; NULL: in all of them. Always true while access is not enforced. Private.';

CREATE FUNCTION tasker._sees_plan(permissions text[], plan_id integer)
RETURNS boolean
LANGUAGE C STABLE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'tasker_sees_plan';
COMMENT ON FUNCTION tasker._sees_plan(text[], integer) IS
'As tasker._sees(), for the namespace of a plan. Private.';

CREATE FUNCTION tasker._sees_task(permissions text[], task_id bigint)
RETURNS boolean
LANGUAGE C STABLE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'tasker_sees_task';
COMMENT ON FUNCTION tasker._sees_task(text[], bigint) IS
'As tasker._sees(), for the namespace of a task. Private.';

CREATE FUNCTION tasker._access_changed()
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_access_changed';
COMMENT ON FUNCTION tasker._access_changed() IS
'Has every backend read the grants anew once this transaction has committed. Private.';

CREATE VIEW tasker.grants WITH (security_barrier) AS
SELECT g.role, g.permission, g.namespace, g.granted_at, g.granted_by
FROM tasker.access_grant AS g
LEFT JOIN pg_catalog.pg_roles AS r ON r.rolname = g.role
WHERE tasker._is_administrator()
   OR g.role = 'public'
   OR pg_catalog.pg_has_role(r.oid, 'USAGE');
COMMENT ON VIEW tasker.grants IS 'Who was granted what: an administrator sees all of it, another role what counts for it.';
COMMENT ON COLUMN tasker.grants.role IS 'Role that has it, and all its members; public: everybody.';
COMMENT ON COLUMN tasker.grants.permission IS 'Permission, of tasker.permissions.';
COMMENT ON COLUMN tasker.grants.namespace IS 'Where; *: in all namespaces.';
COMMENT ON COLUMN tasker.grants.granted_at IS 'When it was granted.';
COMMENT ON COLUMN tasker.grants.granted_by IS 'Role that granted it.';

CREATE FUNCTION tasker.my_permissions()
RETURNS TABLE (permission text, namespace text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT p.permission, '*'
    FROM tasker.permissions AS p
    WHERE NOT tasker._is_enforced()
       OR tasker._is_administrator()
    UNION
    SELECT g.permission, g.namespace
    FROM tasker.grants AS g
    WHERE tasker._is_enforced()
      AND NOT tasker._is_administrator()
    ORDER BY 1, 2;
$$;
COMMENT ON FUNCTION tasker.my_permissions() IS
'What the current role may do. Returns each permission with the namespace, * being all of them: while access is not enforced, and for an administrator, every permission. Raises nothing. Source: reference 9.3.';

CREATE FUNCTION tasker._check_role(role text)
RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF role IS NULL THEN
        RAISE EXCEPTION 'role is NULL'
            USING ERRCODE = 'null_value_not_allowed',
                  HINT = 'Name a role of pg_roles.';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = role) THEN
        RAISE EXCEPTION 'role "%" does not exist', left(role, 200)
            USING ERRCODE = 'TK007',
                  DETAIL = 'pg_roles has no role of that name.',
                  HINT = coalesce(
                      tasker._did_you_mean(role, ARRAY(SELECT r.rolname::text FROM pg_roles AS r)),
                      format('CREATE ROLE %I; or name another.', role));
    END IF;
END;
$$;
COMMENT ON FUNCTION tasker._check_role(text) IS
'Raises TK007 for a role that does not exist, 22004 for NULL. Private.';

CREATE FUNCTION tasker._expand_permissions(permissions text[])
RETURNS SETOF text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    unknown text;
BEGIN
    SELECT w.name
    INTO unknown
    FROM unnest(permissions) AS w (name)
    WHERE w.name IS NULL
       OR NOT EXISTS (
           SELECT
           FROM tasker.permissions AS p
           WHERE w.name IN (p.permission, split_part(p.permission, ':', 1) || ':*', '*')
              OR w.name = ANY (p.sets)
              OR (w.name LIKE '%:destroy' AND p.permission = replace(w.name, ':destroy', ':cancel')))
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'there is no permission "%"', coalesce(left(unknown, 200), 'NULL')
            USING ERRCODE = 'TK007',
                  DETAIL = 'It is neither a permission, nor resource:*, nor *, nor a set of permissions.',
                  HINT = coalesce(
                      tasker._did_you_mean(unknown, ARRAY(
                          SELECT p.permission
                          FROM tasker.permissions AS p
                          UNION
                          SELECT unnest(p.sets)
                          FROM tasker.permissions AS p)),
                      'tasker.permissions lists them.');
    END IF;
    RETURN QUERY
    SELECT p.permission
    FROM tasker.permissions AS p
    WHERE EXISTS (
        SELECT
        FROM unnest(permissions) AS w (name)
        WHERE w.name IN (p.permission, split_part(p.permission, ':', 1) || ':*', '*')
           OR w.name = ANY (p.sets)
           OR (w.name LIKE '%:destroy' AND p.permission = replace(w.name, ':destroy', ':cancel')));
END;
$$;
COMMENT ON FUNCTION tasker._expand_permissions(text[]) IS
'The permissions that names, resource:*, * and sets stand for, each once. Raises TK007. Private.';

CREATE FUNCTION tasker._check_grant_namespace(namespace text)
RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF namespace IS NULL OR tasker._name_problem(namespace) IS NOT NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = CASE WHEN namespace IS NULL THEN 'null_value_not_allowed' ELSE 'TK005' END,
            MESSAGE = 'namespace of the grant ' || coalesce(tasker._name_problem(namespace), 'is NULL'),
            DETAIL = format('The namespace is %s.', coalesce('"' || left(namespace, 200) || '"', 'NULL')),
            HINT = 'A namespace has 1 to 128 printable characters; * is all of them.';
    END IF;
END;
$$;
COMMENT ON FUNCTION tasker._check_grant_namespace(text) IS
'Raises 22004 or TK005 where nothing can be granted in that namespace. Private.';

CREATE FUNCTION tasker._grant(role text, permissions text[], namespace text, caller text)
RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    granted integer;
BEGIN
    IF role IS DISTINCT FROM 'public' THEN
        PERFORM tasker._check_role(role);
    END IF;
    PERFORM tasker._check_grant_namespace(namespace);
    INSERT INTO tasker.access_grant (role, namespace, permission, granted_by)
    SELECT _grant.role, _grant.namespace, p.name, _grant.caller
    FROM tasker._expand_permissions(permissions) AS p (name)
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS granted = ROW_COUNT;
    PERFORM tasker._access_changed();
    -- A subscriber may get its events now.
    PERFORM tasker._note_deliveries();
    RETURN granted;
END;
$$;
COMMENT ON FUNCTION tasker._grant(text, text[], text, text) IS
'What tasker.grant() does, for the role of its caller. Private.';

CREATE FUNCTION tasker.grant(role text, permissions text[], namespace text DEFAULT '*')
RETURNS integer
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
REVOKE ALL ON FUNCTION tasker.grant(text, text[], text) FROM PUBLIC;
COMMENT ON FUNCTION tasker.grant(text, text[], text) IS
'Grants permissions to a role, for itself and all who have its privileges; they count where access is enforced. For the extension''s owner and whom he grants it to. Arguments: role, an existing one, or public for everybody; permissions, of tasker.permissions, or resource:*, or * for all that there are now, or the sets viewer, operator and admin; namespace, where (*: in all namespaces). Returns how many are new. Raises TK007 (no such role or permission), TK005 (namespace), 22004 (a NULL), 42501 (not granted). Source: reference 9.3.';

CREATE FUNCTION tasker._revoke(role text, permissions text[], namespace text)
RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    revoked integer;
    wanted constant text[] := ARRAY(SELECT tasker._expand_permissions(coalesce(permissions, '{*}')));
    everywhere text;
BEGIN
    PERFORM tasker._check_grant_namespace(namespace);
    DELETE FROM tasker.access_grant AS g
    WHERE g.role = _revoke.role
      AND (_revoke.namespace IN ('*', g.namespace))
      -- What a later version does not know any more goes as well.
      AND (permissions IS NULL OR g.permission = ANY (wanted));
    GET DIAGNOSTICS revoked = ROW_COUNT;
    -- Who was granted nothing may have been dropped, or misspelt.
    IF revoked = 0 AND role IS DISTINCT FROM 'public' THEN
        PERFORM tasker._check_role(role);
    END IF;
    SELECT string_agg(g.permission, ', ' ORDER BY g.permission)
    INTO everywhere
    FROM tasker.access_grant AS g
    WHERE g.role = _revoke.role
      AND g.namespace = '*'
      AND g.permission = ANY (wanted);
    IF everywhere IS NOT NULL THEN
        RAISE WARNING 'role "%" still has permissions in all namespaces, and so in "%"', role, namespace
            USING DETAIL = format('They are: %s.', everywhere),
                  HINT = format('SELECT tasker.revoke(%L); and grant what it may keep.', role);
    END IF;
    PERFORM tasker._access_changed();
    RETURN revoked;
END;
$$;
COMMENT ON FUNCTION tasker._revoke(text, text[], text) IS
'What tasker.revoke() does. Private.';

CREATE FUNCTION tasker.revoke(role text, permissions text[] DEFAULT NULL, namespace text DEFAULT '*')
RETURNS integer
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
REVOKE ALL ON FUNCTION tasker.revoke(text, text[], text) FROM PUBLIC;
COMMENT ON FUNCTION tasker.revoke(text, text[], text) IS
'Takes back what tasker.grant() gave. For the extension''s owner and whom he grants it to. Arguments: role, also one that is gone, or public; permissions, as there (NULL: all); namespace, whose grants (*: those of every namespace). Returns how many were taken back; warns of those that the role keeps in that namespace by a grant in all of them. Raises TK007 (no such role or permission), TK005 (namespace), 22004 (a NULL), 42501 (not granted). Source: reference 9.3.';
