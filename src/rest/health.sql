-- Whether the engine is ready, and who asks.

CREATE FUNCTION tasker._rest_ready(OUT status integer, OUT body jsonb)
RETURNS record
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    engine constant jsonb := tasker.health_check();
    is_ready constant boolean := engine #>> '{engine,state}' = 'running';
BEGIN
    status := CASE WHEN is_ready THEN 200 ELSE 503 END;
    body := jsonb_build_object(
        'ready', is_ready,
        'checks', jsonb_build_object(
            'database', jsonb_build_object('status', 'healthy'),
            'engine', jsonb_strip_nulls(jsonb_build_object(
                'status', CASE WHEN is_ready THEN 'healthy' ELSE 'unhealthy' END,
                'message', engine #>> '{engine,why}'))),
        'message', CASE WHEN is_ready THEN 'Ready' ELSE 'Not ready' END,
        'timestamp', tasker.clock());
END;
$$;
COMMENT ON FUNCTION tasker._rest_ready() IS
'Whether steps are run: 200, or 503 and why not. Private.';

CREATE FUNCTION tasker._rest_me()
RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT jsonb_build_object(
        'role', current_user,
        'permissions', (
            SELECT coalesce(jsonb_agg(jsonb_build_object('permission', m.permission, 'namespace', m.namespace)
                                      ORDER BY m.permission, m.namespace), '[]')
            FROM tasker.my_permissions() AS m),
        'enforced', tasker._is_enforced(),
        'version', (SELECT e.extversion FROM pg_extension AS e WHERE e.extname = 'tasker'));
$$;
COMMENT ON FUNCTION tasker._rest_me() IS
'Who asks, and what he may. Private.';
