-- Templates in a handler_config of type api: ${context.…}, ${inputs.…} and
-- ${dependencies.STEP.…}, each the beginning of a JSONPath; and secrets, ${NAME}.
-- All of them are found in what the definition says, at once: what a template or a
-- secret brings is not looked at again.
--
-- In PL/pgSQL, which keeps its plans: SQL functions would be planned anew in each
-- claim, for ten times what running them costs.

CREATE FUNCTION tasker._http_pattern()
RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN '(\$?)\$\{(context|inputs|dependencies)\.([^}]+)\}';
END;
$$;
COMMENT ON FUNCTION tasker._http_pattern() IS
'What a template looks like: a dollar that makes it a plain text, its root, the path in that. Private.';

CREATE FUNCTION tasker._http_secret_pattern()
RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN '(\$?)\$\{(?:(context|inputs|dependencies)\.([^}]+)|([A-Za-z_][A-Za-z0-9_]*))\}';
END;
$$;
COMMENT ON FUNCTION tasker._http_secret_pattern() IS
'What tasker._http_pattern() finds, or a secret: its name comes fourth. Private.';

CREATE FUNCTION tasker._http_secrets(config jsonb)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT tasker._uses_secrets(config) THEN
        RETURN NULL;
    END IF;
    RETURN (
        SELECT jsonb_object_agg(n.name, s.value)
        FROM tasker._secret_names(config) AS n (name)
        LEFT JOIN tasker.secret AS s ON s.name = n.name);
END;
$$;
COMMENT ON FUNCTION tasker._http_secrets(jsonb) IS
'The values of the secrets that a configuration needs, by name, null for one that is not set; NULL: it needs none. Private.';

CREATE FUNCTION tasker._http_jsonpath(path text)
RETURNS jsonpath
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (CASE WHEN path LIKE '[%' THEN '$' ELSE '$.' END || path)::jsonpath;
EXCEPTION
    WHEN syntax_error OR data_exception OR statement_too_complex THEN
        RETURN NULL;
END;
$$;
COMMENT ON FUNCTION tasker._http_jsonpath(text) IS
'The JSONPath of a template; NULL where it is none. Private.';

CREATE FUNCTION tasker._http_parent(path text, parents text[])
RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        -- A name may have dots in it: the longest one counts.
        SELECT p.name
        FROM unnest(parents) AS p (name)
        WHERE path = p.name
           OR starts_with(path, p.name || '.')
           OR starts_with(path, p.name || '[')
        ORDER BY length(p.name) DESC
        LIMIT 1);
END;
$$;
COMMENT ON FUNCTION tasker._http_parent(text, text[]) IS
'Which of these steps a template ${dependencies.path} begins with; NULL: none. Private.';

CREATE FUNCTION tasker._http_value(root text, path text, inputs jsonb, dependencies jsonb)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    document jsonb := inputs;
    rest text := path;
    parent text;
    value jsonb;
BEGIN
    IF root = 'dependencies' THEN
        parent := tasker._http_parent(path, ARRAY(SELECT jsonb_object_keys(dependencies)));
        document := dependencies -> parent;
        rest := ltrim(substr(path, length(parent) + 1), '.');
        IF rest = '' THEN
            RETURN document;
        END IF;
    END IF;
    -- Most are plain, and those need no JSONPath made.
    IF rest ~ '^[A-Za-z_]\w*(\.[A-Za-z_]\w*|\[\d+\])*$' THEN
        value := document #> string_to_array(translate(replace(rest, '[', '.'), ']', ''), '.');
        IF value IS NOT NULL THEN
            RETURN value;
        END IF;
    END IF;
    RETURN jsonb_path_query_first(document, tasker._http_jsonpath(rest), silent => true);
END;
$$;
COMMENT ON FUNCTION tasker._http_value(text, text, jsonb, jsonb) IS
'What a template stands for; NULL where there is nothing. Private.';

CREATE FUNCTION tasker._percent_encode(value text)
RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF value COLLATE "C" ~ '^[A-Za-z0-9_.~-]*$' THEN
        RETURN value;
    END IF;
    RETURN (
        SELECT string_agg(CASE WHEN chr(b.byte) COLLATE "C" ~ '[A-Za-z0-9_.~-]' AND b.byte < 128 THEN chr(b.byte)
                               ELSE '%' || upper(lpad(to_hex(b.byte), 2, '0')) END, '' ORDER BY b.place)
        FROM (SELECT g.place, get_byte(u.bytes, g.place) AS byte
              FROM (SELECT convert_to(value, 'UTF8') AS bytes) AS u
              CROSS JOIN LATERAL generate_series(0, length(u.bytes) - 1) AS g (place)) AS b);
END;
$$;
COMMENT ON FUNCTION tasker._percent_encode(text) IS
'A text as a part of a URL has it. Private.';

CREATE FUNCTION tasker._http_text(template text, inputs jsonb, dependencies jsonb, secrets jsonb, is_url boolean)
RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- what stands before the only template, that, and what stands behind it
    one text[];
    value jsonb;
    pattern constant text := CASE WHEN secrets IS NULL THEN tasker._http_pattern() ELSE tasker._http_secret_pattern() END;
BEGIN
    IF coalesce(position('${' IN template), 0) = 0 THEN
        RETURN template;
    END IF;
    -- Most have one, and need no query for it.
    one := regexp_match(template, '^([^$]*)' || tasker._http_pattern() || '([^$]*)$');
    IF one[2] = '' THEN
        value := tasker._http_value(one[3], one[4], inputs, dependencies);
        RETURN one[1]
               || CASE WHEN is_url AND one[1] <> '' THEN coalesce(tasker._percent_encode(value #>> '{}'), '')
                       ELSE coalesce(value #>> '{}', '') END
               || one[5];
    END IF;
    RETURN (
        SELECT string_agg(
                   p.text || CASE
                       WHEN r.match IS NULL THEN ''
                       WHEN r.match[1] = '$' THEN '${' || coalesce(r.match[2] || '.' || r.match[3], r.match[4]) || '}'
                       WHEN r.match[4] IS NOT NULL THEN coalesce(secrets ->> r.match[4], '')
                       -- a template that a URL begins with is its base
                       WHEN is_url AND NOT (p.n = 1 AND p.text = '') THEN coalesce(tasker._percent_encode(v.value #>> '{}'), '')
                       ELSE coalesce(v.value #>> '{}', '')
                   END, '' ORDER BY p.n)
        FROM regexp_split_to_table(template, pattern) WITH ORDINALITY AS p (text, n)
        LEFT JOIN regexp_matches(template, pattern, 'g') WITH ORDINALITY AS r (match, n) ON r.n = p.n
        LEFT JOIN LATERAL (
            SELECT tasker._http_value(r.match[2], r.match[3], inputs, dependencies)
            WHERE r.match[1] = ''
              AND r.match[2] IS NOT NULL) AS v (value) ON true);
END;
$$;
COMMENT ON FUNCTION tasker._http_text(text, jsonb, jsonb, jsonb, boolean) IS
'A text with the values of its templates and, where they are given, of its secrets. In a URL those of templates are percent-encoded, but for one that it begins with. Private.';

CREATE FUNCTION tasker._http_json(template jsonb, inputs jsonb, dependencies jsonb, secrets jsonb)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF coalesce(position('${' IN template::text), 0) = 0 THEN
        RETURN template;
    END IF;
    RETURN (
        SELECT CASE
            WHEN jsonb_typeof(template) = 'object' THEN (
                SELECT jsonb_object_agg(e.key, tasker._http_json(e.value, inputs, dependencies, secrets))
                FROM jsonb_each(template) AS e)
            WHEN jsonb_typeof(template) = 'array' THEN (
                SELECT jsonb_agg(tasker._http_json(e.value, inputs, dependencies, secrets) ORDER BY e.n)
                FROM jsonb_array_elements(template) WITH ORDINALITY AS e (value, n))
            ELSE (
                SELECT CASE WHEN m.match[1] = '' THEN tasker._http_value(m.match[2], m.match[3], inputs, dependencies)
                            ELSE to_jsonb(tasker._http_text(template #>> '{}', inputs, dependencies, secrets, false)) END
                FROM (SELECT regexp_match(template #>> '{}', '^' || tasker._http_pattern() || '$')) AS m (match))
        END);
END;
$$;
COMMENT ON FUNCTION tasker._http_json(jsonb, jsonb, jsonb, jsonb) IS
'A document with the values of its templates and secrets; a string that is one template and nothing else becomes its value, whatever that is. Keys stay as they are. Private.';

CREATE FUNCTION tasker._http_missing(config jsonb, inputs jsonb, dependencies jsonb)
RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT format('${%s.%s}', r.match[2], r.match[3])
        FROM jsonb_path_query(config, 'strict $.** ? (@.type() == "string")') WITH ORDINALITY AS s (value, n)
        CROSS JOIN LATERAL regexp_matches(s.value #>> '{}', tasker._http_pattern(), 'g') WITH ORDINALITY AS r (match, n)
        WHERE r.match[1] = ''
          AND tasker._http_value(r.match[2], r.match[3], inputs, dependencies) IS NULL
        ORDER BY s.n, r.n
        LIMIT 1);
END;
$$;
COMMENT ON FUNCTION tasker._http_missing(jsonb, jsonb, jsonb) IS
'The first template of a configuration that finds nothing; NULL: each finds something. Private.';

CREATE FUNCTION tasker._http_query(params jsonb)
RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF params = '{}' THEN
        RETURN NULL;
    END IF;
    RETURN (
        SELECT string_agg(tasker._percent_encode(e.key) || '=' || tasker._percent_encode(v.value #>> '{}'), '&' ORDER BY e.n, v.n)
        FROM jsonb_each(params) WITH ORDINALITY AS e (key, value, n)
        CROSS JOIN LATERAL jsonb_array_elements(
            CASE jsonb_typeof(e.value) WHEN 'array' THEN e.value ELSE jsonb_build_array(e.value) END)
            WITH ORDINALITY AS v (value, n)
        WHERE v.value <> 'null');
END;
$$;
COMMENT ON FUNCTION tasker._http_query(jsonb) IS
'Parameters as a URL has them: an array is its key repeated, an object its JSON text, a null nothing. Private.';

CREATE FUNCTION tasker._http_host(url text)
RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    part text[];
BEGIN
    -- Most are plain, and those need no pattern that brings what it found.
    IF url COLLATE "C" ~ '^https?://[a-z0-9.-]+(:[0-9]{1,5})?(/[!-~]*)?$' THEN
        RETURN split_part(url, '/', 1) || '//' || split_part(url, '/', 3)
               || CASE WHEN split_part(url, '/', 3) LIKE '%:%' THEN ''
                       WHEN url LIKE 'https:%' THEN ':443'
                       ELSE ':80' END;
    END IF;
    part := regexp_match(url, '^(https?)://(?:[^/?#@]*@)?(\[[0-9A-Fa-f:.]+\]|[^][\s/?#:@\\%]+)(?::([0-9]{1,5}))?(?:[/?#]\S*)?$', 'i');
    RETURN lower(part[1] || '://' || part[2]) || ':' || coalesce(part[3], CASE lower(part[1]) WHEN 'https' THEN '443' ELSE '80' END);
END;
$$;
COMMENT ON FUNCTION tasker._http_host(text) IS
'Scheme, host and port of an absolute URL of http or https; NULL where it is none. Private.';
