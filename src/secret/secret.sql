-- Secrets: what ${NAME} in a handler_config means when a step runs.
--
-- Nobody reads the table but through its owner's functions: grants.sql takes it
-- from PUBLIC, and where somebody grants all tables of the schema, or is a member
-- of pg_read_all_data, row-level security without a policy shows him no row.  It
-- is not dumped, and the planner's statistics have no value of it.

CREATE TABLE tasker.secret (
    name text COLLATE "C" PRIMARY KEY,
    value text NOT NULL,
    previous text,
    set_at timestamptz NOT NULL DEFAULT tasker.clock(),
    set_by text NOT NULL
);
ALTER TABLE tasker.secret ENABLE ROW LEVEL SECURITY;
ALTER TABLE tasker.secret ALTER COLUMN value SET STATISTICS 0;
ALTER TABLE tasker.secret ALTER COLUMN previous SET STATISTICS 0;
COMMENT ON TABLE tasker.secret IS 'The secrets. Only its owner reads it; people read the view tasker.secrets. It is not dumped.';
COMMENT ON COLUMN tasker.secret.name IS 'What stands between the braces of ${NAME}.';
COMMENT ON COLUMN tasker.secret.value IS 'What a step gets for it.';
COMMENT ON COLUMN tasker.secret.previous IS 'What it was before it was last changed: a worker outside may still have that, and say it.';
COMMENT ON COLUMN tasker.secret.set_at IS 'When it was last set.';
COMMENT ON COLUMN tasker.secret.set_by IS 'Role that last set it.';

CREATE VIEW tasker.secrets WITH (security_barrier) AS
SELECT s.name, s.set_at, s.set_by
FROM tasker.secret AS s
WHERE tasker._caller_may('template:show', '*');
COMMENT ON VIEW tasker.secrets IS 'Which secrets are set; their values are nowhere to be read.';
COMMENT ON COLUMN tasker.secrets.name IS 'What stands between the braces of ${NAME}.';
COMMENT ON COLUMN tasker.secrets.set_at IS 'When it was last set.';
COMMENT ON COLUMN tasker.secrets.set_by IS 'Role that last set it.';

CREATE FUNCTION tasker._secret_places(config jsonb, OUT path text[], OUT name text)
RETURNS SETOF record
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE ROWS 5
AS 'MODULE_PATHNAME', 'tasker_secret_places';
COMMENT ON FUNCTION tasker._secret_places(jsonb) IS
'Each ${NAME} in the strings of a document, keys left out, with the place of its string. $${NAME} is none. Private.';

CREATE FUNCTION tasker._secret_names(config jsonb)
RETURNS SETOF text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE ROWS 5
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT DISTINCT p.name COLLATE "C"
    FROM tasker._secret_places(config) AS p
    ORDER BY 1;
$$;
COMMENT ON FUNCTION tasker._secret_names(jsonb) IS
'The names of the secrets that a handler_config needs, each once, sorted. Private.';

CREATE FUNCTION tasker._uses_secrets(config jsonb)
RETURNS boolean
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'tasker_uses_secrets';
COMMENT ON FUNCTION tasker._uses_secrets(jsonb) IS
'Whether a handler_config needs any secret. Private.';

-- So that nobody reads ten thousand templates to find the few that need one.
CREATE INDEX plan_step_secrets ON tasker.plan_step (plan_id, step_no) WHERE tasker._uses_secrets(handler_config);

CREATE FUNCTION tasker._check_secret(name text, value text)
RETURNS void
LANGUAGE C STABLE
AS 'MODULE_PATHNAME', 'tasker_check_secret';
COMMENT ON FUNCTION tasker._check_secret(text, text) IS
'Raises 22004 or 22023 where a secret can have neither that name nor that value; warns of a value that is too short to be hidden. No message of it has the value or the statement. Private.';

CREATE FUNCTION tasker._secrets_changed()
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_secrets_changed';
COMMENT ON FUNCTION tasker._secrets_changed() IS
'Has every backend read the secrets anew once this transaction has committed. Private.';

CREATE FUNCTION tasker._set_secret(name text, value text, caller text)
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tasker._check_secret(name, value);
    INSERT INTO tasker.secret AS s (name, value, set_by)
    VALUES (_set_secret.name, _set_secret.value, _set_secret.caller)
    ON CONFLICT ON CONSTRAINT secret_pkey DO UPDATE
    SET value = excluded.value,
        previous = CASE WHEN s.value = excluded.value THEN s.previous ELSE s.value END,
        set_at = excluded.set_at,
        set_by = excluded.set_by;
    PERFORM tasker._secrets_changed();
END;
$$;
REVOKE ALL ON FUNCTION tasker._set_secret(text, text, text) FROM PUBLIC;
COMMENT ON FUNCTION tasker._set_secret(text, text, text) IS
'What tasker.set_secret() does, for the role of its caller. Private.';

CREATE FUNCTION tasker.set_secret(name text, value text)
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
REVOKE ALL ON FUNCTION tasker.set_secret(text, text) FROM PUBLIC;
COMMENT ON FUNCTION tasker.set_secret(text, text) IS
'Says what ${NAME} in a handler_config means from now on: steps that start after the commit get it. For the extension''s owner and whom he grants it to. Arguments: name, a word of letters, digits and underscores; value, any text of up to 1 MB. Returns nothing. Warns of a value of less than 4 bytes, which is not hidden in errors and results. Raises 22004 (a NULL), 22023 (a name that can''t be one, a value that is empty or too long), 42501 (not granted). Source: design, contract, "Definitions".';

CREATE FUNCTION tasker._drop_secret(name text, caller text)
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM tasker.secret AS s
    WHERE s.name = _drop_secret.name;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING
            ERRCODE = 'TK007',
            MESSAGE = format('secret "%s" is not set', coalesce(left(name, 200), 'NULL')),
            DETAIL = 'No secret has that name.',
            HINT = coalesce(
                tasker._did_you_mean(name, ARRAY(
                    SELECT s.name
                    FROM tasker.secret AS s
                    ORDER BY s.name)),
                'The view tasker.secrets shows which are set.');
    END IF;
    PERFORM tasker._secrets_changed();
END;
$$;
REVOKE ALL ON FUNCTION tasker._drop_secret(text, text) FROM PUBLIC;
COMMENT ON FUNCTION tasker._drop_secret(text, text) IS
'What tasker.drop_secret() does, for the role of its caller. Private.';

CREATE FUNCTION tasker.drop_secret(name text)
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
REVOKE ALL ON FUNCTION tasker.drop_secret(text) FROM PUBLIC;
COMMENT ON FUNCTION tasker.drop_secret(text) IS
'Forgets a secret: steps that need it fail for good from then on. For the extension''s owner and whom he grants it to. Argument: name. Returns nothing. Raises TK007 (no such secret), 42501 (not granted). Source: design, contract, "Definitions".';

CREATE FUNCTION tasker._secret_warnings(definition jsonb)
RETURNS TABLE (path text[], message text, hint text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- As it is written, environments included.
    WITH node AS MATERIALIZED (
        SELECT '{}'::text[] AS path, definition AS node
        UNION ALL
        SELECT ARRAY['environments', e.key], e.value
        FROM jsonb_each(CASE WHEN jsonb_typeof(definition -> 'environments') = 'object' THEN definition -> 'environments' END) AS e
    ), step AS MATERIALIZED (
        SELECT n.path || ARRAY['step_templates', (s.n - 1)::text, 'handler_config'] AS path,
               s.element ->> 'name' AS name,
               s.element -> 'handler_config' AS config
        FROM node AS n
        CROSS JOIN LATERAL jsonb_array_elements(
            CASE WHEN jsonb_typeof(n.node -> 'step_templates') = 'array' THEN n.node -> 'step_templates' END)
            WITH ORDINALITY AS s (element, n)
        UNION ALL
        -- what all of them have in common
        SELECT n.path || ARRAY['handler_config'], NULL, n.node -> 'handler_config'
        FROM node AS n
    )
    SELECT s.path || p.path,
           format('%s needs secret "%s", which is not set', coalesce('step "' || s.name || '"', 'every step'), p.name),
           format('Set it by SELECT tasker.set_secret(%L, ''...''); until then the step fails for good.', p.name)
    FROM step AS s
    CROSS JOIN LATERAL (SELECT DISTINCT d.path, d.name FROM tasker._secret_places(s.config) AS d) AS p
    WHERE NOT EXISTS (
        SELECT
        FROM tasker.secret AS k
        WHERE k.name = p.name);
$$;
COMMENT ON FUNCTION tasker._secret_warnings(jsonb) IS
'Each ${NAME} of a definition whose secret is not set. Private.';

CREATE FUNCTION tasker._missing_secrets()
RETURNS TABLE (name text, namespace text, task text, version text, step text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- Of the plans that a task created now would follow.
    SELECT n.name, p.namespace, p.name, p.version, s.name
    FROM tasker.plan_step AS s
    JOIN tasker.plan AS p ON p.plan_id = s.plan_id
    JOIN tasker.template AS t ON t.template_id = p.template_id
    CROSS JOIN LATERAL (
        SELECT coalesce(t.environment, nullif(current_setting('tasker.environment', true), '')) AS wanted) AS e
    CROSS JOIN LATERAL tasker._secret_names(s.handler_config) AS n (name)
    WHERE tasker._uses_secrets(s.handler_config)
      AND p.retired_at IS NULL
      AND (p.environment = e.wanted
           OR (p.environment IS NULL
               AND NOT EXISTS (
                   SELECT
                   FROM tasker.plan AS o
                   WHERE o.template_id = p.template_id
                     AND o.retired_at IS NULL
                     AND o.environment = e.wanted)))
      AND NOT EXISTS (
          SELECT
          FROM tasker.secret AS k
          WHERE k.name = n.name);
$$;
COMMENT ON FUNCTION tasker._missing_secrets() IS
'The secrets that are not set, with the steps that need them in the environment in force. Private.';
