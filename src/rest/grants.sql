-- Whoever may log in may call these: they do what he can do without them.

DO $$
DECLARE
    rest record;
BEGIN
    FOR rest IN
        SELECT p.oid::regprocedure AS signature
        FROM pg_catalog.pg_proc AS p
        WHERE p.pronamespace = 'tasker'::regnamespace
          AND p.proname LIKE '\_rest\_%'
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO PUBLIC', rest.signature);
    END LOOP;
END;
$$;

-- What the stream of events is read by; what it shows is the caller's to see.
GRANT EXECUTE ON FUNCTION
    tasker._canonical_events(text[]),
    tasker._events(bigint[], bigint[]),
    tasker._payload(jsonb, jsonb, "any"),
    tasker._system_event(text),
    tasker._system_events(),
    tasker._task_facts(bigint[]),
    tasker._unknown_event(text)
TO PUBLIC;
