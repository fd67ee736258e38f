-- Programs that subscribe: their texts stand in generate/, one a language.

CREATE FUNCTION tasker._subscriber_quote(language text, value text)
RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE language
        -- A dollar sign might end the function that the literal stands in.
        WHEN 'plpgsql' THEN CASE WHEN value ~ '[\\$]'
            THEN 'E''' || replace(replace(replace(value, '\', '\\'), '''', ''''''), '$', '\x24') || ''''
            ELSE quote_literal(value) END
        -- What JSON writes is a literal of both.
        WHEN 'python' THEN to_json(value)::text
        WHEN 'node' THEN to_json(value)::text
        -- A question mark might begin a trigraph.
        WHEN 'c' THEN '"' || regexp_replace(value, '(["\\?])', '\\\1', 'g') || '"'
        WHEN 'shell' THEN '''' || replace(value, '''', '''\''''') || ''''
    END;
$$;
COMMENT ON FUNCTION tasker._subscriber_quote(text, text) IS
'A name, so without control characters, as a literal of that language. Private.';

CREATE FUNCTION tasker._subscriber_events(events text[], language text)
RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN language = 'plpgsql' THEN 'ARRAY[' || string_agg(tasker._subscriber_quote(language, e.name), ', ' ORDER BY e.place) || ']'
        WHEN language IN ('python', 'node') THEN '[' || string_agg(tasker._subscriber_quote(language, e.name), ', ' ORDER BY e.place) || ']'
        ELSE tasker._subscriber_quote(language, events::text)
    END
    FROM unnest(events) WITH ORDINALITY AS e (name, place);
$$;
COMMENT ON FUNCTION tasker._subscriber_events(text[], text) IS
'The list of events as that language hands it to tasker.subscribe(). Private.';

CREATE FUNCTION tasker._subscriber_pattern(language text, event text)
RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN language = 'plpgsql' AND event LIKE '%*'
            THEN format('starts_with(event.name, %s)', tasker._subscriber_quote(language, rtrim(event, '*')))
        WHEN language = 'plpgsql'
            THEN 'event.name = ' || tasker._subscriber_quote(language, event)
        WHEN language = 'shell' AND event LIKE '%*'
            THEN tasker._subscriber_quote(language, rtrim(event, '*')) || '*'
        ELSE tasker._subscriber_quote(language, event)
    END;
$$;
COMMENT ON FUNCTION tasker._subscriber_pattern(text, text) IS
'What an event''s name is compared with in that language. Private.';

CREATE FUNCTION tasker._subscriber_routes(events text[])
RETURNS TABLE (place bigint, event text, function text)
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    -- The names before the prefixes, and of these the longer ones first.
    SELECT row_number() OVER by_fit,
           n.event,
           -- Nothing else has two underscores in it.
           n.function || CASE WHEN row_number() OVER same > 1 OR n.function IN ('other', 'events')
                              THEN '__' || row_number() OVER same
                              ELSE '' END
    FROM (
        SELECT e.event,
               left(coalesce(nullif(btrim(regexp_replace(lower(e.event COLLATE "C"), '[^a-z0-9]+', '_', 'g'), '_'), ''), 'event'), 40)
               || CASE WHEN e.event LIKE '%*' THEN '_other' ELSE '' END AS function
        FROM unnest(events) AS e (event)
        WHERE e.event <> '*'
    ) AS n
    WINDOW by_fit AS (ORDER BY n.event LIKE '%*', CASE WHEN n.event LIKE '%*' THEN -length(n.event) END, n.event COLLATE "C"),
           same AS (PARTITION BY n.function ORDER BY n.event COLLATE "C");
$$;
COMMENT ON FUNCTION tasker._subscriber_routes(text[]) IS
'The events and prefixes but *, in the order in which they are tried, with what their functions are called behind handle_. Private.';

CREATE FUNCTION tasker._fill_in(template text, vals jsonb)
RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    -- In one pass: what was filled in is not looked at again.
    SELECT string_agg(CASE WHEN p.place = 1 THEN p.part
                           ELSE (vals ->> split_part(p.part, '}}', 1)) || substr(p.part, strpos(p.part, '}}') + 2) END,
                      '' ORDER BY p.place)
    FROM string_to_table(template, '{{') WITH ORDINALITY AS p (part, place);
$$;
COMMENT ON FUNCTION tasker._fill_in(text, jsonb) IS
'The template with each {{key}} replaced by its value. Private.';

CREATE FUNCTION tasker._write_subscriber(template text, name text, events text[], language text)
RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT rtrim(string_agg(CASE WHEN p.place % 2 = 1 THEN tasker._fill_in(p.part, g.vals)
                           ELSE (SELECT coalesce(string_agg(
                                     tasker._fill_in(p.part, g.vals || jsonb_build_object(
                                         'title', CASE WHEN r.event LIKE '%*' THEN 'Any other event of ' ELSE '' END
                                                  || regexp_replace(r.event, '[^A-Za-z0-9_.*-]', '_', 'g'),
                                         'function', r.function,
                                         'pattern', tasker._subscriber_pattern(language, r.event))),
                                     '' ORDER BY r.place), '')
                                 FROM tasker._subscriber_routes(events) AS r) END,
                            '' ORDER BY p.place), E'\n')
    FROM regexp_split_to_table(template, '\{\{[#/]event\}\}\n') WITH ORDINALITY AS p (part, place)
    CROSS JOIN (VALUES (jsonb_build_object(
        'name', name,
        'schema', 'subscriber_' || name,
        'subscriber', tasker._subscriber_quote(language, name),
        'channel', tasker._subscriber_quote(language, 'subscriber_' || name),
        'events', tasker._subscriber_events(events, language)))) AS g (vals);
$$;
COMMENT ON FUNCTION tasker._write_subscriber(text, text, text[], text) IS
'Fills a template of generate/ in. Private.';

CREATE FUNCTION tasker._check_generated_name(name text)
RETURNS void
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    better constant text := left(btrim(regexp_replace(lower(name COLLATE "C"), '[^a-z0-9]+', '_', 'g'), '_0123456789'), 48);
BEGIN
    IF name IS NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'null_value_not_allowed',
            MESSAGE = 'name of a subscriber must not be NULL',
            DETAIL = 'The argument name is NULL.',
            HINT = 'Give it a name such as notification.';
    END IF;
    IF name COLLATE "C" !~ '^[a-z][a-z0-9_]{0,47}$' THEN
        RAISE EXCEPTION USING
            ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'no program can be named after this subscriber',
            DETAIL = format('The name is "%s". A file, a channel and a schema are named after it.', left(name, 200)),
            HINT = 'A name has up to 48 lower-case letters, digits and underscores, and begins with a letter'
                   || CASE WHEN better <> '' THEN format(', such as "%s".', better) ELSE '.' END;
    END IF;
END;
$$;
COMMENT ON FUNCTION tasker._check_generated_name(text) IS
'Raises 22004 or 22023 where no subscriber of that name can be generated. Private.';

CREATE FUNCTION tasker._generate_subscriber(name text, events text[], language text)
RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    template constant text := CASE language
        WHEN 'plpgsql' THEN tasker._subscriber_in_plpgsql()
        WHEN 'python' THEN tasker._subscriber_in_python()
        WHEN 'node' THEN tasker._subscriber_in_node()
        WHEN 'c' THEN tasker._subscriber_in_c()
        WHEN 'shell' THEN tasker._subscriber_in_shell()
    END;
    canonical text[];
BEGIN
    PERFORM tasker._require('event:index', NULL);
    PERFORM tasker._check_generated_name(name);
    IF template IS NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'subscribers are not written in that language',
            DETAIL = format('The language is %s.', coalesce('"' || left(language, 200) || '"', 'NULL')),
            HINT = 'The languages are plpgsql, python, node, c and shell.';
    END IF;
    PERFORM tasker._canonical_events(events);
    -- One by one: what a prefix covers may have a function of its own.
    canonical := ARRAY(
        SELECT DISTINCT c.name COLLATE "C"
        FROM unnest(events) AS e (name)
        CROSS JOIN LATERAL unnest(tasker._canonical_events(ARRAY[e.name])) AS c (name)
        ORDER BY 1);
    RETURN tasker._write_subscriber(template, name, canonical, language);
END;
$$;
COMMENT ON FUNCTION tasker._generate_subscriber(text, text[], text) IS
'What tasker.generate_subscriber() does, for its caller. Private.';

CREATE FUNCTION tasker.generate_subscriber(name text, events text[], language text)
RETURNS text
LANGUAGE C STABLE
AS 'MODULE_PATHNAME', 'tasker_with_caller';
COMMENT ON FUNCTION tasker.generate_subscriber(text, text[], text) IS
'Returns the text of a complete program that subscribes under that name (lower-case letters, digits, underscores) to those events and prefixes such as task.* and has a function handle_... for each of them, to be filled in: language is plpgsql (a script), python (psycopg 3), node (pg), c (libpq) or shell (bash and psql). It catches up, waits for more, acknowledges what was handled (at least once), connects again when the connection is lost, and ends on SIGTERM. Changes nothing by itself. Raises 22004 without a name, 22023 for a name that nothing can be called by, no events, or another language, TK007 for an event that is not known. Source: design, contract, "Events".';
