-- The registries: which there are, and what was done to them.  A registry that
-- joins gets a row here, and branches of the views and functions of
-- registries.sql; whatever it registers or removes it notes by _note_registry().

CREATE FUNCTION tasker._registries()
RETURNS TABLE (registry_name text, entity_type text, items text, holds text, event_prefix text)
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 5
SET search_path = pg_catalog, pg_temp
AS $$
    VALUES
        ('handler_factory', 'task_handler', 'handlers', 'Who runs the steps: functions, and names that workers outside claim.', 'handler'),
        ('template_registry', 'task_template', 'templates', 'What tasks can be created: definitions, each in one version.', 'template'),
        ('subscriber_registry', 'subscriber', 'subscribers', 'Who hears of which events: functions, and programs outside that fetch them.', 'subscriber'),
        ('event_registry', 'custom_event', 'events', 'Events of users'' own, which handlers and applications publish.', NULL);
$$;
COMMENT ON FUNCTION tasker._registries() IS
'Each registry: its name, what one entry of it is called, what several are, what they are, and what its events begin with (NULL: it has none). Private.';

CREATE TABLE tasker.registry_log (
    log_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    "timestamp" timestamptz NOT NULL,
    correlation_id text NOT NULL,
    component text NOT NULL,
    message text NOT NULL,
    environment text,
    tasker_version text NOT NULL,
    process_id integer NOT NULL,
    thread_id text NOT NULL,
    entity_type text NOT NULL,
    entity_id text NOT NULL,
    entity_class text,
    registry_name text NOT NULL,
    options jsonb NOT NULL,
    event_type text NOT NULL
);
CREATE INDEX registry_log_entity ON tasker.registry_log (entity_id, log_id);
COMMENT ON TABLE tasker.registry_log IS 'What was registered and what was removed, one row each; the server log has the same as lines of JSON, whose fields are these columns.';
COMMENT ON COLUMN tasker.registry_log.log_id IS 'Key, in the order in which it was done; the server log does not have it.';
COMMENT ON COLUMN tasker.registry_log."timestamp" IS 'When it was done.';
COMMENT ON COLUMN tasker.registry_log.correlation_id IS 'tasker.correlation_id, or one that all of the transaction share.';
COMMENT ON COLUMN tasker.registry_log.component IS 'What did it: the registry.';
COMMENT ON COLUMN tasker.registry_log.message IS 'The same for people.';
COMMENT ON COLUMN tasker.registry_log.environment IS 'tasker.environment of the session; NULL: none.';
COMMENT ON COLUMN tasker.registry_log.tasker_version IS 'Version of the extension.';
COMMENT ON COLUMN tasker.registry_log.process_id IS 'Process of the session.';
COMMENT ON COLUMN tasker.registry_log.thread_id IS 'Its only thread, in hexadecimal digits.';
COMMENT ON COLUMN tasker.registry_log.entity_type IS 'task_handler, task_template, subscriber or custom_event.';
COMMENT ON COLUMN tasker.registry_log.entity_id IS 'namespace/name/version; * for every version.';
COMMENT ON COLUMN tasker.registry_log.entity_class IS 'The function''s signature, or external; task_handler_class of a template; fetched of a subscriber without a function.';
COMMENT ON COLUMN tasker.registry_log.registry_name IS 'handler_factory, template_registry, subscriber_registry or event_registry.';
COMMENT ON COLUMN tasker.registry_log.options IS 'namespace_name, version and replace as they were given.';
COMMENT ON COLUMN tasker.registry_log.event_type IS 'registered or unregistered; the server log has validation_failed, too.';
COMMENT ON SEQUENCE tasker.registry_log_log_id_seq IS 'Keys of tasker.registry_log.';
SELECT pg_catalog.pg_extension_config_dump('tasker.registry_log', '');
SELECT pg_catalog.pg_extension_config_dump('tasker.registry_log_log_id_seq', '');

CREATE FUNCTION tasker._log_registry(line text, at_commit boolean)
RETURNS void
LANGUAGE C VOLATILE STRICT
AS 'MODULE_PATHNAME', 'tasker_log_registry';
COMMENT ON FUNCTION tasker._log_registry(text, boolean) IS
'Writes a line to the server log: at once, or when the transaction commits, and then only if its savepoint was not rolled back. Nothing where tasker.log_registries is off. Private.';

CREATE FUNCTION tasker._correlation_id()
RETURNS text
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_correlation_id';
COMMENT ON FUNCTION tasker._correlation_id() IS
'The setting tasker.correlation_id; where that is empty, tsk_, the time in base 36, and six characters, the same for all of the transaction. Private.';

CREATE FUNCTION tasker._registry_line(entry tasker.registry_log)
RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT '{' || string_agg(
               to_json(f.key)::text || ': '
               || CASE f.key
                      WHEN 'timestamp' THEN to_json(to_char(entry."timestamp" AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))
                      ELSE f.value
                  END::text,
               ', ' ORDER BY f.n) || '}'
    FROM json_each(row_to_json(entry)) WITH ORDINALITY AS f (key, value, n)
    WHERE f.key <> 'log_id';
$$;
COMMENT ON FUNCTION tasker._registry_line(tasker.registry_log) IS
'A row of tasker.registry_log as a line of JSON, with its columns as fields, in their order. Private.';

CREATE FUNCTION tasker._note_registry(
    registry text,
    event text,
    namespace text,
    name text,
    version text,
    entity_class text,
    replace boolean,
    error text DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    entry tasker.registry_log;
BEGIN
    entry."timestamp" := tasker.clock();
    entry.correlation_id := tasker._correlation_id();
    entry.component := registry;
    entry.message := CASE event
        WHEN 'validation_failed' THEN concat_ws(': ', 'Registry validation failed', error)
        ELSE 'Registry item ' || event
        END;
    entry.environment := nullif(current_setting('tasker.environment', true), '');
    entry.tasker_version := (SELECT e.extversion FROM pg_extension AS e WHERE e.extname = 'tasker');
    entry.process_id := pg_backend_pid();
    entry.thread_id := to_hex(entry.process_id);
    entry.entity_type := (SELECT r.entity_type FROM tasker._registries() AS r WHERE r.registry_name = registry);
    entry.entity_id := concat_ws('/', coalesce(namespace, 'default'), coalesce(name, ''), coalesce(version, '*'));
    entry.entity_class := entity_class;
    entry.registry_name := registry;
    entry.options := jsonb_build_object('namespace_name', coalesce(namespace, 'default'), 'version', version, 'replace', coalesce(replace, false));
    entry.event_type := event;
    -- The transaction of a refusal is rolled back, and a row would be, too.
    IF event <> 'validation_failed' THEN
        INSERT INTO tasker.registry_log ("timestamp", correlation_id, component, message, environment, tasker_version,
                                         process_id, thread_id, entity_type, entity_id, entity_class, registry_name,
                                         options, event_type)
        VALUES (entry."timestamp", entry.correlation_id, entry.component, entry.message, entry.environment,
                entry.tasker_version, entry.process_id, entry.thread_id, entry.entity_type, entry.entity_id,
                entry.entity_class, entry.registry_name, entry.options, entry.event_type);
        PERFORM tasker._announce(
                    r.event_prefix || '.' || event, coalesce(namespace, 'default'),
                    tasker._payload(NULL, NULL,
                        'correlation_id', entry.correlation_id,
                        'component', entry.component,
                        'message', entry.message,
                        'environment', entry.environment,
                        'tasker_version', entry.tasker_version,
                        'process_id', entry.process_id,
                        'thread_id', entry.thread_id,
                        'entity_type', entry.entity_type,
                        'entity_id', entry.entity_id,
                        'entity_class', entry.entity_class,
                        'registry_name', entry.registry_name,
                        'options', entry.options,
                        'operation', event),
                    NULL, NULL)
        FROM tasker._registries() AS r
        WHERE r.registry_name = registry
          AND r.event_prefix IS NOT NULL;
    END IF;
    PERFORM tasker._log_registry(tasker._registry_line(entry), event <> 'validation_failed');
END;
$$;
COMMENT ON FUNCTION tasker._note_registry(text, text, text, text, text, text, boolean, text) IS
'Notes that an entry of a registry was registered or unregistered: a row of tasker.registry_log, an event where the registry has them, and at the commit a line in the server log; or, with the event validation_failed and the error, that one was refused: the line alone, at once. Private.';

CREATE FUNCTION tasker._note_template(old_template tasker.template, new_template tasker.template, replace boolean)
RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT tasker._note_registry(
        'template_registry', n.event, n.namespace, n.name, n.version, n.definition ->> 'task_handler_class', replace)
    FROM (VALUES
              (1, 'unregistered', old_template.namespace, old_template.name, old_template.version, old_template.definition),
              (2, 'registered', new_template.namespace, new_template.name, new_template.version, new_template.definition))
         AS n (place, event, namespace, name, version, definition)
    WHERE n.name IS NOT NULL
    ORDER BY n.place;
$$;
COMMENT ON FUNCTION tasker._note_template(tasker.template, tasker.template, boolean) IS
'Notes that a template was registered, and that the one in whose place it comes (NULL: none) is so no more. Private.';

CREATE FUNCTION tasker._note_refused_template(definition jsonb, problems integer, details text)
RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT tasker._note_registry(
        'template_registry', 'validation_failed',
        definition ->> 'namespace_name', definition ->> 'name', coalesce(definition ->> 'version', '0.1.0'),
        definition ->> 'task_handler_class', false,
        split_part(details, E'\n', 1) || CASE problems WHEN 1 THEN '' ELSE format(' (and %s more)', problems - 1) END);
$$;
COMMENT ON FUNCTION tasker._note_refused_template(jsonb, integer, text) IS
'Notes that a definition was refused. Private.';

CREATE FUNCTION tasker.prune_registry_log(keep interval DEFAULT '1 year')
RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    pruned bigint;
BEGIN
    IF keep IS NULL OR keep < interval '0' THEN
        RAISE EXCEPTION USING
            ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'keep must not be negative',
            DETAIL = format('It is %s.', coalesce(keep::text, 'NULL')),
            HINT = 'Pass how long rows are kept, such as ''90 days''.';
    END IF;
    DELETE FROM tasker.registry_log AS l
    WHERE l."timestamp" < tasker.clock() - keep;
    GET DIAGNOSTICS pruned = ROW_COUNT;
    RETURN pruned;
END;
$$;
REVOKE ALL ON FUNCTION tasker.prune_registry_log(interval) FROM PUBLIC;
COMMENT ON FUNCTION tasker.prune_registry_log(interval) IS
'Deletes the rows of tasker.registry_log that are older than that: nothing else does. For the extension''s owner. Argument: keep. Returns how many there were. Raises 22023 (keep is NULL or negative), 42501 (not the owner). Source: overview, registry systems.';
