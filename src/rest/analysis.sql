-- What depends on what in a task, for include_dependencies.

CREATE FUNCTION tasker._rest_dependencies(task_id bigint, steps jsonb)
RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT '{}'::jsonb;
$$;
COMMENT ON FUNCTION tasker._rest_dependencies(bigint, jsonb) IS
'Private.';
