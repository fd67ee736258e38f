-- What every object of the extension owes to those who read it, and what every
-- function owes to those whom it runs for.  No query here may give a row.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS tasker;
\pset null '(null)'

-- A comment on each table, view, sequence, column, function, type and domain.
SELECT c.relkind, c.relname
FROM pg_class AS c
WHERE c.relnamespace = 'tasker'::regnamespace
  AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
  AND coalesce(obj_description(c.oid, 'pg_class'), '') = ''
ORDER BY c.relname;

SELECT c.relname, a.attname
FROM pg_class AS c
JOIN pg_attribute AS a ON a.attrelid = c.oid
WHERE c.relnamespace = 'tasker'::regnamespace
  AND c.relkind IN ('r', 'p', 'v', 'm', 'c')
  AND a.attnum > 0
  AND NOT a.attisdropped
  AND coalesce(col_description(c.oid, a.attnum), '') = ''
ORDER BY c.relname, a.attnum;

SELECT p.oid::regprocedure AS function
FROM pg_proc AS p
WHERE p.pronamespace = 'tasker'::regnamespace
  AND coalesce(obj_description(p.oid, 'pg_proc'), '') = ''
ORDER BY p.oid::regprocedure::text COLLATE "C";

SELECT t.typname
FROM pg_type AS t
LEFT JOIN pg_class AS c ON c.oid = t.typrelid
WHERE t.typnamespace = 'tasker'::regnamespace
  AND t.typtype IN ('c', 'd', 'e', 'r')
  AND (t.typtype <> 'c' OR c.relkind = 'c')
  AND coalesce(obj_description(t.oid, 'pg_type'), '') = ''
ORDER BY t.typname;

-- A private function says so in its name and in its comment.
SELECT p.oid::regprocedure AS function
FROM pg_proc AS p
WHERE p.pronamespace = 'tasker'::regnamespace
  AND (p.proname LIKE '\_%') <> (obj_description(p.oid, 'pg_proc') ~ '\mPrivate\M')
ORDER BY p.oid::regprocedure::text COLLATE "C";

-- The comment of a public one names every argument that has a name, says what
-- comes back, which errors there are, and where it is asked for.
SELECT p.oid::regprocedure AS function, m.missing
FROM pg_proc AS p
CROSS JOIN LATERAL (
    SELECT obj_description(p.oid, 'pg_proc') AS comment) AS d
CROSS JOIN LATERAL (
    SELECT 'Returns' AS missing WHERE d.comment !~* '\mreturns?\M'
    UNION ALL
    SELECT 'Raises' WHERE d.comment !~ '\mRaises\M'
    UNION ALL
    SELECT 'Source:' WHERE d.comment !~ '\mSource:'
    UNION ALL
    SELECT 'argument ' || a.name
    FROM unnest(p.proargnames) WITH ORDINALITY AS a (name, n)
    WHERE a.name <> ''
      AND coalesce(p.proargmodes[a.n::integer], 'i') IN ('i', 'b', 'v')
      AND d.comment !~ ('\m' || a.name || '\M')
      AND d.comment !~ '\mArguments as of tasker\.') AS m
WHERE p.pronamespace = 'tasker'::regnamespace
  AND p.proname NOT LIKE '\_%'
ORDER BY p.oid::regprocedure::text COLLATE "C", m.missing COLLATE "C";

-- A fixed search_path on whatever is written in SQL, and on whatever runs with
-- its owner's rights; but for three that are inlined, which a SET prevents, and
-- that name even their operators in full.
SELECT p.oid::regprocedure AS function
FROM pg_proc AS p
JOIN pg_language AS l ON l.oid = p.prolang
WHERE p.pronamespace = 'tasker'::regnamespace
  AND (l.lanname IN ('sql', 'plpgsql') OR p.prosecdef)
  AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (p.proconfig), false)
  AND (p.prosecdef OR l.lanname <> 'sql' OR p.proname NOT IN ('_elements', '_entries', '_string'))
ORDER BY p.oid::regprocedure::text COLLATE "C";

-- Nobody but the owner may write a table, nor call what is private and writes;
-- what REST calls runs as its caller and writes by the public functions only.
SELECT c.relname, a.privilege_type
FROM pg_class AS c
CROSS JOIN LATERAL aclexplode(c.relacl) AS a
WHERE c.relnamespace = 'tasker'::regnamespace
  AND a.grantee <> c.relowner
  AND a.privilege_type <> 'SELECT'
ORDER BY c.relname, a.privilege_type;

SELECT p.oid::regprocedure AS function
FROM pg_proc AS p
WHERE p.pronamespace = 'tasker'::regnamespace
  AND p.proname LIKE '\_%'
  AND p.provolatile = 'v'
  AND NOT (p.proname LIKE '\_rest\_%' AND NOT p.prosecdef)
  AND has_function_privilege('public', p.oid, 'EXECUTE')
ORDER BY p.oid::regprocedure::text COLLATE "C";

-- Each table and sequence that holds users' data goes into a dump.  What says
-- whether the engine may run here must not, nor what is secret.
SELECT c.relname
FROM pg_class AS c
CROSS JOIN pg_extension AS e
WHERE c.relnamespace = 'tasker'::regnamespace
  AND c.relkind IN ('r', 'p', 'S')
  AND e.extname = 'tasker'
  AND NOT c.oid = ANY (e.extconfig)
  AND c.relname NOT IN ('activation', 'secret')
ORDER BY c.relname;

-- plpgsql_check finds nothing in any function, where that extension is at hand.
CREATE FUNCTION pg_temp.check_bodies()
RETURNS TABLE (function text, finding text)
LANGUAGE plpgsql
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'plpgsql_check') THEN
        RETURN;
    END IF;
    CREATE SCHEMA regress_check;
    CREATE EXTENSION plpgsql_check SCHEMA regress_check;
    RETURN QUERY EXECUTE $query$
        SELECT p.oid::regprocedure::text, f.finding
        FROM pg_proc AS p
        JOIN pg_language AS l ON l.oid = p.prolang
        CROSS JOIN LATERAL regress_check.plpgsql_check_function(p.oid, extra_warnings => false, performance_warnings => false) AS f (finding)
        WHERE p.pronamespace = 'tasker'::regnamespace
          AND l.lanname = 'plpgsql'
        ORDER BY p.oid::regprocedure::text COLLATE "C"
    $query$;
    DROP SCHEMA regress_check CASCADE;
END;
$$;
SELECT * FROM pg_temp.check_bodies();
