-- What tasker-agent needs, which is an ordinary role.

CREATE FUNCTION tasker._agent_functions()
RETURNS SETOF regprocedure
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT p.oid::regprocedure
    FROM unnest(ARRAY[
        '_authenticate_token', 'claim_requests', 'end_requests'
    ]::name[]) AS n (name)
    JOIN pg_proc AS p ON p.pronamespace = 'tasker'::regnamespace
                     AND p.proname = n.name;
$$;
COMMENT ON FUNCTION tasker._agent_functions() IS
'The functions that tasker-agent calls in its own name, and not everybody may. Private: the one list of them.';

CREATE FUNCTION tasker.grant_agent(role text)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tasker._check_role(role);
    EXECUTE (
        SELECT format('GRANT EXECUTE ON FUNCTION %s TO %I', string_agg(f.signature::text, ', '), role)
        FROM tasker._agent_functions() AS f (signature));
    -- For its heartbeats.
    PERFORM tasker.grant(role, '{worker:claim}');
    IF EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = role AND NOT r.rolcanlogin) THEN
        RAISE WARNING 'role "%" can''t log in', role
            USING HINT = format('ALTER ROLE %I LOGIN;', role);
    END IF;
    RAISE NOTICE 'role "%" may run tasker-agent', role
        USING DETAIL = 'It acts for clients by SET ROLE, for which it must be a member of their roles.',
              HINT = format('GRANT alice TO %I; for each role, here alice, that has tokens.', role);
END;
$$;
REVOKE ALL ON FUNCTION tasker.grant_agent(text) FROM PUBLIC;
COMMENT ON FUNCTION tasker.grant_agent(text) IS
'Gives an ordinary role what tasker-agent needs: EXECUTE on the few functions that it calls in its own name, and worker:claim in all namespaces. To be called again after an update of the extension. For the extension''s owner. Argument: role, that the agent connects as. Returns nothing; a NOTICE says what else it needs to act for other roles. Raises TK007 (no such role), 22004 (NULL), 42501 (not granted). Source: design, contract, "tasker-agent".';
