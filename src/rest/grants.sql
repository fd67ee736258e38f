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
