-- Enforcing access: what a role was not granted it neither sees nor does.
--
-- The checks of functions are there always, and cost a look at a flag.  The
-- policies come and go with the mode, as the planner has to keep to them, and
-- where nothing is enforced that would be for nothing.  They follow the row of
-- tasker.access_mode: pg_dump does not dump policies of an extension's tables,
-- but that row, and so a restore makes them again.

CREATE FUNCTION tasker._make_way()
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_make_way';
COMMENT ON FUNCTION tasker._make_way() IS
'Ends the workers of this database, and keeps them away until the transaction ends. Private.';

CREATE FUNCTION tasker._policies()
RETURNS TABLE (table_name name, condition text)
LANGUAGE sql IMMUTABLE ROWS 40
SET search_path = pg_catalog, pg_temp
AS $$
    WITH seeing (tasks, plans) AS (
        VALUES ('''{task:show,task:index,workflow_step:show,workflow_step:index}''',
                '''{task:show,task:index,workflow_step:show,workflow_step:index,template:show,template:index}''')
    )
    SELECT t.name::name, replace(replace(t.condition, '{tasks}', s.tasks), '{plans}', s.plans)
    FROM seeing AS s
    CROSS JOIN (
        VALUES
            ('task', 'tasker._sees_plan({tasks}, plan_id)'),
            ('step', 'tasker._sees_task({tasks}, task_id)'),
            ('log', 'tasker._sees_task({tasks}, task_id)'),
            ('queue', 'tasker._sees_task({tasks}, task_id)'),
            ('crash', 'tasker._sees_task({tasks}, task_id)'),
            ('task_annotation', 'tasker._sees_task({tasks}, task_id)'),
            ('idempotency', 'tasker._sees({tasks}, namespace)'),
            ('plan', 'tasker._sees({plans}, namespace)'),
            ('plan_step', 'tasker._sees_plan({plans}, plan_id)'),
            ('template', 'tasker._sees(''{template:show,template:index}'', namespace)'),
            -- Handlers of namespace default serve all of them.
            ('handler', 'tasker._sees(''{handler:show,handler:index}'', namespace) OR namespace = ''default'' AND tasker._caller_may(''handler:index'', NULL)'),
            ('max_in_progress', 'tasker._sees(''{worker:index,limit:update}'', namespace)'),
            ('metric_total', 'tasker._sees_plan(''{metrics:index,analytics:index}'', plan_id)'),
            ('published_event', 'tasker._sees(''{event:index}'', namespace)'),
            ('subscriber', 'tasker._is_administrator() OR EXISTS (SELECT FROM pg_catalog.pg_roles AS r WHERE r.rolname = run_as AND pg_catalog.pg_has_role(r.oid, ''MEMBER''))'),
            ('subscriber_cursor', 'EXISTS (SELECT FROM tasker.subscriber AS s WHERE s.subscriber_id = subscriber_cursor.subscriber_id)'),
            ('subscriber_match', 'EXISTS (SELECT FROM tasker.subscriber AS s WHERE s.subscriber_id = subscriber_match.subscriber_id)'),
            ('subscriber_failure', 'EXISTS (SELECT FROM tasker.subscriber AS s WHERE s.subscriber_id = subscriber_failure.subscriber_id)'),
            ('consumer', 'EXISTS (SELECT FROM tasker.subscriber AS s WHERE s.subscriber_id = consumer.subscriber_id)'),
            -- What is of no namespace is for those who may see all of them.
            ('breaker', 'tasker._caller_may(''worker:index'', ''*'')'),
            ('custom_event', 'tasker._caller_may(''event:index'', ''*'')'),
            ('registry_log', 'tasker._caller_may(''handler:index'', ''*'')'),
            ('annotation_type', 'tasker._caller_may(''task:show'', ''*'')'),
            ('dependent_system', 'tasker._caller_may(''task:show'', ''*'')'),
            ('dependent_system_object_map', 'tasker._caller_may(''task:show'', ''*'')'),
            -- Made by those who may make them in all namespaces, for definitions in any.
            ('stored_schema', 'tasker._caller_may(''template:show'', NULL)')
        ) AS t (name, condition);
$$;
COMMENT ON FUNCTION tasker._policies() IS
'Which rows of each table a role sees where access is enforced: the one place that says so. Private.';

CREATE FUNCTION tasker._apply_policies()
RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET client_min_messages = warning
AS $$
BEGIN
    EXECUTE (
        SELECT string_agg(
                   format('DROP POLICY IF EXISTS access ON tasker.%1$I; ', p.table_name)
                   || CASE WHEN NEW.enforced THEN
                          format('CREATE POLICY access ON tasker.%1$I FOR SELECT USING (%2$s); ALTER TABLE tasker.%1$I ENABLE ROW LEVEL SECURITY',
                                 p.table_name, p.condition)
                      ELSE
                          format('ALTER TABLE tasker.%1$I DISABLE ROW LEVEL SECURITY', p.table_name)
                      END, '; ' ORDER BY p.table_name)
        FROM tasker._policies() AS p);
    PERFORM tasker._access_changed();
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION tasker._apply_policies() IS
'Makes the policies that the row of tasker.access_mode asks for, or takes them away. Private.';

CREATE TRIGGER apply_policies
AFTER INSERT OR UPDATE ON tasker.access_mode
FOR EACH ROW EXECUTE FUNCTION tasker._apply_policies();
ALTER TABLE tasker.access_mode ENABLE ALWAYS TRIGGER apply_policies;

CREATE FUNCTION tasker.enforce_access(enforce boolean DEFAULT true)
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF enforce IS NULL THEN
        RAISE EXCEPTION 'enforce must not be NULL'
            USING ERRCODE = 'null_value_not_allowed',
                  DETAIL = 'The argument enforce is NULL.',
                  HINT = 'true enforces access, false lets everybody see and do everything.';
    END IF;
    PERFORM tasker._make_way();
    INSERT INTO tasker.access_mode AS m (enforced)
    VALUES (enforce)
    ON CONFLICT ("only") DO UPDATE
    SET enforced = excluded.enforced;
    PERFORM tasker._note_deliveries();
    IF enforce AND NOT EXISTS (SELECT FROM tasker.access_grant) THEN
        RAISE WARNING 'nobody but the extension''s owner may see or do anything now'
            USING HINT = 'SELECT tasker.grant(...); gives roles what they need.';
    END IF;
END;
$$;
REVOKE ALL ON FUNCTION tasker.enforce_access(boolean) FROM PUBLIC;
COMMENT ON FUNCTION tasker.enforce_access(boolean) IS
'From its commit on a role sees and does only what tasker.grant() gave it, in each namespace; with enforce false everybody may see and do everything, as before. The extension''s owner and superusers always may. Ends the workers of this database for the time of its transaction; an open transaction of somebody who uses tasker''s tables keeps it waiting. To be called again after an update of the extension. For the extension''s owner and whom he grants it to. Argument: enforce. Returns nothing. Warns where nobody was granted anything. Raises 22004 (NULL), 42501 (not granted). Source: reference 9.3.';
