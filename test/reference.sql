-- Writes doc/reference.md: every public function, view and type of the
-- extension with its comment.  For psql -XqAt.
\set ON_ERROR_STOP on
\pset null ''

CREATE FUNCTION pg_temp.cell(text text)
RETURNS text
LANGUAGE sql IMMUTABLE
RETURN replace(replace(coalesce(text, ''), '|', '\|'), E'\n', ' ');

-- A heading with what it is about, then a table of the columns.
CREATE FUNCTION pg_temp.relation(relation oid, title text, about text)
RETURNS text
LANGUAGE sql STABLE
RETURN format(E'### %s\n\n%s\n\n| column | type | meaning |\n|---|---|---|\n', title, about)
    || (SELECT string_agg(format(E'| `%s` | %s | %s |\n', a.attname, format_type(a.atttypid, a.atttypmod),
                                 pg_temp.cell(col_description(relation, a.attnum))), '' ORDER BY a.attnum)
        FROM pg_attribute AS a
        WHERE a.attrelid = relation
          AND a.attnum > 0
          AND NOT a.attisdropped);

SELECT $$# Reference

Every function, view, type and table of the extension, as the database itself describes it. This page is made by
`make doc` from the comments in `src/`: change those, not this. [Index of all pages](index.md).

[Functions](#functions), [views](#views), [types](#types), [tables](#tables).

## Functions
$$;

SELECT format(E'### %s\n\n```sql\ntasker.%s(%s)\n    RETURNS %s\n```\n\n%s\n',
              p.proname,
              p.proname,
              replace(pg_get_function_arguments(p.oid), ', ', E',\n    '),
              pg_get_function_result(p.oid),
              -- Where it is asked for is of no use to those who call it.
              regexp_replace(obj_description(p.oid, 'pg_proc'), '\s*Source: [^\n]*$', ''))
FROM pg_proc AS p
WHERE p.pronamespace = 'tasker'::regnamespace
  AND p.prokind = 'f'
  AND p.proname NOT LIKE '\_%'
ORDER BY p.proname COLLATE "C", p.pronargs;

SELECT E'## Views\n\nEverybody may query them.\n';
SELECT pg_temp.relation(c.oid, c.relname, obj_description(c.oid, 'pg_class'))
FROM pg_class AS c
WHERE c.relnamespace = 'tasker'::regnamespace
  AND c.relkind = 'v'
ORDER BY c.relname COLLATE "C";

SELECT E'## Types\n';
SELECT CASE t.typtype
           WHEN 'c' THEN pg_temp.relation(t.typrelid, t.typname, obj_description(t.oid, 'pg_type'))
           ELSE format(E'### %s\n\nA domain over %s. %s\n', t.typname, format_type(t.typbasetype, t.typtypmod),
                       obj_description(t.oid, 'pg_type'))
       END
FROM pg_type AS t
LEFT JOIN pg_class AS c ON c.oid = t.typrelid
WHERE t.typnamespace = 'tasker'::regnamespace
  AND (t.typtype = 'd' OR t.typtype = 'c' AND c.relkind = 'c')
ORDER BY t.typname COLLATE "C";

SELECT $$## Tables

What the views are made of. Everybody may read them, only the engine writes them, and they may look different in the
next version: programs should use the views.
$$;
SELECT pg_temp.relation(c.oid, c.relname, obj_description(c.oid, 'pg_class'))
FROM pg_class AS c
WHERE c.relnamespace = 'tasker'::regnamespace
  AND c.relkind IN ('r', 'p')
ORDER BY c.relname COLLATE "C";
