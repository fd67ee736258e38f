-- Tokens: what a client of tasker-agent shows to act as a role.  What is kept is
-- a hash; a token has 256 bits of chance, so that nothing slower is needed.
--
-- Nobody reads the table but through its owner's functions, as with tasker.secret.

CREATE TABLE tasker.token (
    name text COLLATE "C" PRIMARY KEY,
    hash bytea NOT NULL UNIQUE,
    role text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT tasker.clock(),
    created_by text NOT NULL,
    expires_at timestamptz,
    last_used_at timestamptz
) WITH (fillfactor = 70);
ALTER TABLE tasker.token ENABLE ROW LEVEL SECURITY;
COMMENT ON TABLE tasker.token IS 'Tokens of tasker-agent''s clients. Only its owner reads it; people read the view tasker.tokens.';
COMMENT ON COLUMN tasker.token.name IS 'Its name, by which it is dropped.';
COMMENT ON COLUMN tasker.token.hash IS 'SHA-256 of the token.';
COMMENT ON COLUMN tasker.token.role IS 'Role that whoever shows it acts as.';
COMMENT ON COLUMN tasker.token.created_at IS 'When it was made.';
COMMENT ON COLUMN tasker.token.created_by IS 'Role that made it.';
COMMENT ON COLUMN tasker.token.expires_at IS 'Until when it is valid; NULL: until it is dropped.';
COMMENT ON COLUMN tasker.token.last_used_at IS 'When it was last shown, to the minute.';

SELECT pg_catalog.pg_extension_config_dump('tasker.token', '');

CREATE VIEW tasker.tokens WITH (security_barrier) AS
SELECT t.name, t.role, t.created_at, t.created_by, t.expires_at, t.last_used_at
FROM tasker.token AS t
LEFT JOIN pg_catalog.pg_roles AS r ON r.rolname = t.role
WHERE tasker._is_administrator()
   OR pg_catalog.pg_has_role(r.oid, 'USAGE');
COMMENT ON VIEW tasker.tokens IS 'The tokens: an administrator sees all of them, another role its own. The tokens themselves are nowhere to be read.';
COMMENT ON COLUMN tasker.tokens.name IS 'Its name, by which it is dropped.';
COMMENT ON COLUMN tasker.tokens.role IS 'Role that whoever shows it acts as.';
COMMENT ON COLUMN tasker.tokens.created_at IS 'When it was made.';
COMMENT ON COLUMN tasker.tokens.created_by IS 'Role that made it.';
COMMENT ON COLUMN tasker.tokens.expires_at IS 'Until when it is valid; NULL: until it is dropped.';
COMMENT ON COLUMN tasker.tokens.last_used_at IS 'When it was last shown, to the minute.';

CREATE FUNCTION tasker._random_token()
RETURNS text
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_random_token';
COMMENT ON FUNCTION tasker._random_token() IS
'tsk_ and 32 strong random bytes in base64url. Private.';

CREATE FUNCTION tasker._hash_token(token text)
RETURNS bytea
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT sha256(convert_to(token, 'UTF8'));
$$;
COMMENT ON FUNCTION tasker._hash_token(text) IS
'What is kept of a token. Private.';

CREATE FUNCTION tasker._create_token(role text, name text, expires interval, caller text)
RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    token constant text := tasker._random_token();
    title constant text := coalesce(name, role || '-' || left(encode(tasker._hash_token(token), 'hex'), 12));
BEGIN
    PERFORM tasker._check_role(role);
    IF NOT tasker._is_administrator() AND NOT pg_has_role(caller::name, role::name, 'USAGE') THEN
        RAISE EXCEPTION 'a token for role "%" can''t be made by role "%"', role, caller
            USING ERRCODE = 'TK009',
                  DETAIL = format('Role "%s" has not the privileges of role "%s".', caller, role),
                  HINT = format('GRANT %I TO %I; or have an administrator make it.', role, caller);
    END IF;
    IF tasker._name_problem(title) IS NOT NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'TK005',
            MESSAGE = 'name of the token ' || tasker._name_problem(title),
            DETAIL = format('The name is "%s".', left(title, 200)),
            HINT = 'A name has 1 to 128 printable characters.';
    END IF;
    IF expires <= interval '0' THEN
        RAISE EXCEPTION 'a token must be valid for longer than nothing'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('expires is %s.', expires),
                  HINT = 'Leave it out for a token that does not expire.';
    END IF;
    INSERT INTO tasker.token AS t (name, hash, role, created_by, expires_at)
    VALUES (title, tasker._hash_token(token), _create_token.role, _create_token.caller, tasker.clock() + expires)
    ON CONFLICT ON CONSTRAINT token_pkey DO NOTHING;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is a token "%" already', title
            USING ERRCODE = 'TK008',
                  DETAIL = 'Names of tokens are unique.',
                  HINT = format('SELECT tasker.drop_token(%L); or choose another name.', title);
    END IF;
    RETURN token;
END;
$$;
COMMENT ON FUNCTION tasker._create_token(text, text, interval, text) IS
'What tasker.create_token() does, for the role of its caller. Private.';

CREATE FUNCTION tasker.create_token(role text, name text DEFAULT NULL, expires interval DEFAULT NULL)
RETURNS text
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
REVOKE ALL ON FUNCTION tasker.create_token(text, text, interval) FROM PUBLIC;
COMMENT ON FUNCTION tasker.create_token(text, text, interval) IS
'Makes a token: who shows it to tasker-agent acts as a role. For the extension''s owner, and for whom he grants it to, who make tokens of roles whose privileges they have. Arguments: role, which the agent''s own role must be a member of to act as it (GRANT role TO agent; not checked here); name, by which it is listed and dropped (NULL: the role''s name and a part of the hash); expires, how long it is valid (NULL: until it is dropped). Returns the token, which is kept nowhere: there is no other time to read it. Raises TK007 (no such role), TK008 (the name is taken), TK009 (another''s role), TK005 (name), 22023 (expires), 22004 (a NULL), 42501 (not granted). Source: reference 9.3; design, contract, "tasker-agent".';

CREATE FUNCTION tasker._drop_token(name text, caller text)
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM tasker.token AS t
    USING tasker.token AS o
    LEFT JOIN pg_roles AS r ON r.rolname = o.role
    WHERE t.name = _drop_token.name
      AND o.name = t.name
      AND (tasker._is_administrator() OR pg_has_role(caller::name, r.oid, 'USAGE'));
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no token "%"', coalesce(left(name, 200), 'NULL')
            USING ERRCODE = 'TK007',
                  DETAIL = 'tasker.tokens has no such row.',
                  HINT = 'tasker.tokens lists those that you may drop.';
    END IF;
END;
$$;
COMMENT ON FUNCTION tasker._drop_token(text, text) IS
'What tasker.drop_token() does, for the role of its caller. Private.';

CREATE FUNCTION tasker.drop_token(name text)
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.drop_token(text) IS
'Drops a token: from the commit on it opens nothing. Everybody may drop those of his own roles, an administrator any. Argument: name, as in tasker.tokens. Returns nothing. Raises TK007 (no such token, or not yours to drop). Source: design, contract, "tasker-agent".';

CREATE FUNCTION tasker._authenticate_token(token text)
RETURNS text
LANGUAGE plpgsql VOLATILE STRICT SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    shown tasker.token;
BEGIN
    SELECT t.*
    INTO shown
    FROM tasker.token AS t
    JOIN pg_roles AS r ON r.rolname = t.role
    WHERE t.hash = tasker._hash_token(token)
      AND (t.expires_at IS NULL OR t.expires_at > tasker.clock());
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    -- Not each time, nor where another request is about to.
    IF (shown.last_used_at IS NULL OR shown.last_used_at < tasker.clock() - interval '1 minute')
       AND NOT current_setting('transaction_read_only')::boolean THEN
        UPDATE tasker.token AS t
        SET last_used_at = tasker.clock()
        FROM (
            SELECT o.name
            FROM tasker.token AS o
            WHERE o.name = shown.name
              AND o.last_used_at IS NOT DISTINCT FROM shown.last_used_at
            FOR NO KEY UPDATE SKIP LOCKED) AS mine
        WHERE t.name = mine.name;
    END IF;
    RETURN shown.role;
END;
$$;
COMMENT ON FUNCTION tasker._authenticate_token(text) IS
'The role of a token; NULL where there is no such token, it has expired, or the role is gone. Notes once a minute that it is used. For tasker-agent. Private.';
