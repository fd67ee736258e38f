-- What depends on a function.  dependencies.c asks when one is dropped.

CREATE FUNCTION tasker._function_users(
    schema text,
    function text,
    OUT users text,
    OUT call text)
RETURNS record
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH used AS (
        SELECT h.*, row_number() OVER (ORDER BY h.namespace, h.name, h.version) AS n
        FROM tasker.handler AS h
        WHERE h.kind = 'sql'
          AND (parse_ident(h.function))[1] = _function_users.schema
          AND (_function_users.function IS NULL OR (parse_ident(h.function))[2] = _function_users.function)
    ),
    named AS (
        SELECT u.n, u.name, u.namespace, u.version, u.function,
               (SELECT string_agg(t.title, ', ' ORDER BY t.place) || CASE WHEN max(t.total) > 10 THEN format(' and %s more', max(t.total) - 10) ELSE '' END
                FROM (
                    SELECT format('%s.%s@%s', p.namespace, p.name, p.version) AS title,
                           row_number() OVER (ORDER BY p.namespace, p.name, p.version) AS place,
                           count(*) OVER () AS total
                    FROM (
                        SELECT DISTINCT p.namespace, p.name, p.version
                        FROM tasker.plan AS p
                        JOIN tasker.plan_step AS s USING (plan_id)
                        WHERE p.retired_at IS NULL
                          AND s.handler_class = u.name
                          AND u.namespace IN (p.namespace, 'default')
                          AND coalesce(u.version, p.version) = p.version) AS p) AS t
                WHERE t.place <= 10) AS templates
        FROM used AS u
        WHERE u.n <= 10
    )
    SELECT string_agg(format('It is %s%s.', tasker._handler_title(n.name, n.namespace, n.version),
                             coalesce(', which the steps of ' || n.templates || ' need', ', which no registered task needs')),
                      E'\n' ORDER BY n.n)
           || CASE WHEN (SELECT count(*) FROM used) > 10 THEN format(E'\nand %s handlers more', (SELECT count(*) FROM used) - 10) ELSE '' END,
           (array_agg(format('tasker.unregister_handler(%L%s%s)', n.name,
                             CASE n.namespace WHEN 'default' THEN '' ELSE format(', namespace => %L', n.namespace) END,
                             CASE WHEN n.version IS NULL THEN '' ELSE format(', version => %L', n.version) END)
                      ORDER BY n.n))[1]
    FROM named AS n;
$$;
COMMENT ON FUNCTION tasker._function_users(text, text) IS
'The handlers that are registered with a function, or with any function of the schema (function NULL), and the templates whose steps need them, as sentences; and the call that removes the first. NULL: none is. Private.';
