-- How many steps may be in progress at once.

CREATE SEQUENCE tasker.limit_id_seq AS integer;
COMMENT ON SEQUENCE tasker.limit_id_seq IS 'Ids of tasker.max_in_progress.';

CREATE TABLE tasker.max_in_progress (
    limit_id integer PRIMARY KEY DEFAULT pg_catalog.nextval('tasker.limit_id_seq'),
    namespace text,
    handler text,
    steps integer NOT NULL CHECK (steps >= 0),
    CHECK (namespace IS NOT NULL OR handler IS NOT NULL)
);
CREATE UNIQUE INDEX max_in_progress_of ON tasker.max_in_progress (namespace, handler) NULLS NOT DISTINCT;
COMMENT ON TABLE tasker.max_in_progress IS 'Limits on the steps in progress at once, run by executors and held by workers outside together. tasker.set_max_in_progress() writes it.';
COMMENT ON COLUMN tasker.max_in_progress.limit_id IS 'Key; lane -1000 - limit_id of the queue holds what waits for the limit.';
COMMENT ON COLUMN tasker.max_in_progress.namespace IS 'Namespace of the tasks it counts; NULL: of any.';
COMMENT ON COLUMN tasker.max_in_progress.handler IS 'handler_class of the steps it counts; NULL: any.';
COMMENT ON COLUMN tasker.max_in_progress.steps IS 'Steps at once; 0 starts none.';
SELECT pg_catalog.pg_extension_config_dump('tasker.limit_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('tasker.max_in_progress', '');

CREATE FUNCTION tasker._set_max_in_progress(
    steps integer,
    namespace text,
    handler text)
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    id integer;
BEGIN
    PERFORM tasker._require('limit:update', coalesce(_set_max_in_progress.namespace, '*'));
    IF namespace IS NULL AND handler IS NULL THEN
        RAISE EXCEPTION 'a limit is for a namespace, a handler or both'
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'tasker.executors limits everything that runs in the database.';
    END IF;
    IF steps < 0 THEN
        RAISE EXCEPTION 'a limit must not be negative'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('It is %s.', steps);
    END IF;
    IF steps IS NULL THEN
        DELETE FROM tasker.max_in_progress AS m
        WHERE m.namespace IS NOT DISTINCT FROM _set_max_in_progress.namespace
          AND m.handler IS NOT DISTINCT FROM _set_max_in_progress.handler
        RETURNING m.limit_id
        INTO id;
    ELSE
        INSERT INTO tasker.max_in_progress AS m (namespace, handler, steps)
        VALUES (_set_max_in_progress.namespace, _set_max_in_progress.handler, _set_max_in_progress.steps)
        ON CONFLICT (namespace, handler) DO UPDATE
        SET steps = EXCLUDED.steps
        RETURNING m.limit_id
        INTO id;
    END IF;
    PERFORM tasker._definitions_changed();
    -- What waits for the limit looks again, by the new one.
    UPDATE tasker.queue AS q
    SET lane = q.due_lane,
        due_lane = NULL
    WHERE q.lane = -1000 - id;
    PERFORM tasker._wake(1000);
    PERFORM tasker._note_external_ready();
END;
$$;
COMMENT ON FUNCTION tasker._set_max_in_progress(integer, text, text) IS
'What tasker.set_max_in_progress() does, for its caller. Private.';

CREATE FUNCTION tasker.set_max_in_progress(
    steps integer,
    namespace text DEFAULT NULL,
    handler text DEFAULT NULL)
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.set_max_in_progress(integer, text, text) IS
'Limits how many steps may be in progress at once, exactly, over all executors and workers outside. Arguments: steps (NULL lifts the limit, 0 starts none); namespace of the tasks, handler as definitions name it: one of them or both. A step may stand under several limits. It counts from the commit on; what is in progress is not stopped. Returns nothing. Raises 22023 for a limit on nothing or below 0. Source: design, issue on semantics.';
