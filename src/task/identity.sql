-- What makes two requests for a task the same, and which forms ids have.

CREATE FUNCTION tasker.identity_hash(
    name text,
    context jsonb DEFAULT '{}',
    namespace text DEFAULT 'default',
    version text DEFAULT NULL,
    initiator text DEFAULT NULL,
    reason text DEFAULT NULL,
    source_system text DEFAULT NULL,
    bypass_steps text[] DEFAULT '{}',
    at timestamptz DEFAULT tasker.clock())
RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT encode(sha256(convert_to(jsonb_build_object(
        'name', name,
        'namespace', coalesce(namespace, 'default'),
        'version', coalesce(version, (
            SELECT t.version
            FROM tasker.template AS t
            WHERE t.namespace = coalesce(identity_hash.namespace, 'default')
              AND t.name = identity_hash.name
            ORDER BY t.version_order DESC
            LIMIT 1)),
        'context', coalesce(context, '{}'),
        'initiator', initiator,
        'reason', reason,
        'source_system', source_system,
        'bypass_steps', (SELECT coalesce(jsonb_agg(DISTINCT b.name COLLATE "C"), '[]') FROM unnest(bypass_steps) AS b (name)),
        'requested_at', to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'))::text, 'UTF8')), 'hex');
$$;
COMMENT ON FUNCTION tasker.identity_hash(text, jsonb, text, text, text, text, text, text[], timestamptz) IS
'Idempotency key of a request: the same for the same request within a minute, and for no other. Arguments as of tasker.create_task(), of which tags, priority, run_at and ids play no part; version NULL is the highest there is; at, the time whose minute counts. Returns SHA-256 over all of it, as 64 hexadecimal digits. With the setting tasker.identity_strategy = hash tasker.create_task() uses it by itself. Raises nothing. Source: reference 4.13, which leaves out namespace and version.';

CREATE FUNCTION tasker._request_key(
    name text,
    context jsonb,
    namespace text,
    version text,
    initiator text,
    reason text,
    source_system text,
    bypass_steps text[],
    idempotency_key text)
RETURNS text
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF idempotency_key IS NULL AND current_setting('tasker.identity_strategy', true) = 'hash' THEN
        RETURN tasker.identity_hash(name, context, namespace, version, initiator, reason, source_system, bypass_steps);
    END IF;
    RETURN idempotency_key;
END;
$$;
COMMENT ON FUNCTION tasker._request_key(text, jsonb, text, text, text, text, text, text[], text) IS
'The idempotency key that was given, or the one that the setting tasker.identity_strategy makes; NULL: none. Private.';

CREATE FUNCTION tasker._check_trace(correlation_id text, traceparent text)
RETURNS void
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF correlation_id COLLATE "C" !~ '^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$' THEN
        RAISE EXCEPTION 'correlation_id is malformed'
            USING ERRCODE = 'TK006',
                  DETAIL = format('It is "%s".', left(correlation_id, 200)),
                  HINT = 'It has 1 to 100 letters, digits, hyphens and underscores, and begins with a letter or a digit.';
    END IF;
    -- Version 00 has nothing behind the flags; a later one may, and ff is none.
    IF traceparent COLLATE "C" !~ '^(00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}|(?!00|ff)[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]{0,200})?)$'
       OR substr(traceparent, 4, 32) = repeat('0', 32)
       OR substr(traceparent, 37, 16) = repeat('0', 16) THEN
        RAISE EXCEPTION 'traceparent is malformed'
            USING ERRCODE = 'TK006',
                  DETAIL = format('It is "%s".', left(traceparent, 200)),
                  HINT = 'W3C Trace Context writes it so: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.';
    END IF;
END;
$$;
COMMENT ON FUNCTION tasker._check_trace(text, text) IS
'Raises TK006 for a correlation_id or traceparent of the wrong form; NULL is none. Private.';
