-- Diagrams.  A task or a template becomes one description of nodes and edges;
-- mermaid, dot and json are three ways to write that down.

CREATE FUNCTION tasker._diagram_colours()
RETURNS TABLE (class text, fill text, stroke text, color text)
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
VALUES
    ('template',          '#eceff2', '#7a8691', '#27313b'),
    ('pending',           '#eceff2', '#7a8691', '#27313b'),
    ('in_progress',       '#cfe3fb', '#2f6fc2', '#12366b'),
    ('waiting_for_retry', '#fbe5b4', '#b97a12', '#5c3a02'),
    ('complete',          '#cdeed3', '#2c8a46', '#12451f'),
    ('error',             '#fbd3d0', '#c23a32', '#6b1511'),
    ('cancelled',         '#d8dadd', '#5f656c', '#33383d'),
    ('resolved_manually', '#e2d8f8', '#7650c4', '#3a2170'),
    ('skipped',           '#f6f6f1', '#8f9082', '#4d4e44');
$$;
COMMENT ON FUNCTION tasker._diagram_colours() IS
'Colours of a box by the state of its step; template: a step that is in no task. A box brings its own ground, so its text reads as well on a dark page as on a light one (contrast above 7), and its border shows on both (above 3). Private.';

CREATE FUNCTION tasker._diagram_line(content text, most integer)
RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
SELECT CASE
           WHEN length(line) > most THEN left(line, most - 3) || '...'
           ELSE line
       END
FROM (SELECT btrim(regexp_replace(content, '[\x01-\x20\x7f]+', ' ', 'g')) AS line) AS l;
$$;
COMMENT ON FUNCTION tasker._diagram_line(text, integer) IS
'A text as one line of a label, of that many characters at most. Private.';

-- What a label may not contain as it is: what ends a quoted label, starts an
-- entity, a tag, a directive, an icon or a formula, and what mermaid takes for
-- Markdown.  Most texts have none of it and stay readable in the source.
CREATE FUNCTION tasker._mermaid_text(line text)
RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
SELECT CASE
           WHEN line !~ '["#%&*;<>`{|}~$^\\[\]]|^[-+=]|^\d+[.)]|(^|[^[:alnum:]])_|_([^[:alnum:]]|$)|:fa-|://|www\.'
           THEN line
           ELSE (SELECT string_agg(CASE WHEN c ~ '[!-/:-@[-`{-~]' THEN '#' || ascii(c) || ';' ELSE c END, '' ORDER BY n)
                 FROM regexp_split_to_table(line, '') WITH ORDINALITY AS l (c, n))
       END;
$$;
COMMENT ON FUNCTION tasker._mermaid_text(text) IS
'A line of text as it stands in a quoted mermaid label: shown as it is, whatever it contains. Private.';

CREATE FUNCTION tasker._dot_text(content text)
RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
SELECT replace(replace(replace(replace(content, '&', '&amp;'), '\', '\\'), '"', '\"'), E'\n', '\n');
$$;
COMMENT ON FUNCTION tasker._dot_text(text) IS
'A text as it stands in a quoted dot label: shown as it is, whatever it contains. Private.';

CREATE FUNCTION tasker._check_diagram_format(format text)
RETURNS void
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF $1 IS NULL OR $1 NOT IN ('mermaid', 'dot', 'json') THEN
        RAISE EXCEPTION 'unknown diagram format'
            USING ERRCODE = '22023',
                  DETAIL = pg_catalog.format('The format asked for is %s.', coalesce(quote_literal($1), 'NULL')),
                  HINT = 'Formats are mermaid, dot and json.';
    END IF;
END;
$$;
COMMENT ON FUNCTION tasker._check_diagram_format(text) IS
'Raises 22023 where format is none that diagrams are written in. Private.';

CREATE FUNCTION tasker._write_diagram(diagram jsonb, format text)
RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
WITH nodes AS MATERIALIZED (
    SELECT n.number, n.node ->> 'id' AS id, n.node ->> 'label' AS label,
           coalesce(n.node #>> '{attributes,state}', 'template') AS class
    FROM jsonb_array_elements(diagram -> 'nodes') WITH ORDINALITY AS n (node, number)
    WHERE format <> 'json'
),
edges AS MATERIALIZED (
    SELECT e.number, e.edge ->> 'source_id' AS source_id, e.edge ->> 'target_id' AS target_id
    FROM jsonb_array_elements(diagram -> 'edges') WITH ORDINALITY AS e (edge, number)
    WHERE format <> 'json'
)
SELECT CASE format
    WHEN 'json' THEN diagram::text
    WHEN 'mermaid' THEN concat_ws(E'\n',
        'graph ' || (diagram ->> 'direction'),
        '  subgraph workflow["' || tasker._mermaid_text(diagram ->> 'title') || '"]',
        (SELECT string_agg('    ' || n.id || '["'
                           || (SELECT string_agg(tasker._mermaid_text(l.line), '<br/>' ORDER BY l.number)
                               FROM string_to_table(n.label, E'\n') WITH ORDINALITY AS l (line, number))
                           || '"]:::' || n.class, E'\n' ORDER BY n.number)
         FROM nodes AS n),
        (SELECT string_agg('    ' || e.source_id || ' --> ' || e.target_id, E'\n' ORDER BY e.number)
         FROM edges AS e),
        '  end',
        '  style workflow fill:none,stroke:#7a8691',
        (SELECT string_agg('  classDef ' || c.class || ' fill:' || c.fill || ',stroke:' || c.stroke
                           || ',color:' || c.color, E'\n' ORDER BY c.class)
         FROM tasker._diagram_colours() AS c
         WHERE c.class IN (SELECT n.class FROM nodes AS n)),
        '')
    WHEN 'dot' THEN concat_ws(E'\n',
        'digraph workflow {',
        '  graph [rankdir=TB, label="' || tasker._dot_text(diagram ->> 'title')
            || '", labelloc=t, fontname="Helvetica", bgcolor="transparent"];',
        '  node [shape=box, style="rounded,filled", fontname="Helvetica"];',
        '  edge [color="#7a8691"];',
        (SELECT string_agg('  ' || n.id || ' [label="' || tasker._dot_text(n.label) || '", fillcolor="' || c.fill
                           || '", color="' || c.stroke || '", fontcolor="' || c.color || '"];',
                           E'\n' ORDER BY n.number)
         FROM nodes AS n
         JOIN tasker._diagram_colours() AS c USING (class)),
        (SELECT string_agg('  ' || e.source_id || ' -> ' || e.target_id || ';', E'\n' ORDER BY e.number)
         FROM edges AS e),
        '}',
        '')
    END;
$$;
COMMENT ON FUNCTION tasker._write_diagram(jsonb, text) IS
'A diagram of nodes, edges, direction and title as text in that format. Private.';

CREATE FUNCTION tasker._diagram_edge(source_id text, target_id text)
RETURNS jsonb
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
SELECT jsonb_build_object(
           'source_id', source_id,
           'target_id', target_id,
           'label', '',
           'type', 'dependency',
           'direction', 'forward',
           'attributes', jsonb_build_object());
$$;
COMMENT ON FUNCTION tasker._diagram_edge(text, text) IS
'A dependency in a diagram. Private.';

CREATE FUNCTION tasker.task_diagram(task_id bigint, format text DEFAULT 'mermaid')
RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    diagram jsonb;
BEGIN
    PERFORM tasker._check_diagram_format($2);

    WITH colours AS MATERIALIZED (
        SELECT jsonb_object_agg(c.class, pg_catalog.format('fill:%s,stroke:%s,color:%s', c.fill, c.stroke, c.color)) AS style
        FROM tasker._diagram_colours() AS c
    ),
    steps AS (
        SELECT t.task_id << 14 | s.step_no AS step_id, t.task_id, s.step_no, s.name, s.parents, s.level, s.handler_class,
               tasker._step_state(coalesce(r.state, 0::smallint))::text AS state,
               coalesce(r.attempts, 0::smallint) AS attempts,
               coalesce(r.retry_limit, s.retry_limit) AS retry_limit,
               r.error
        FROM tasker.task AS t
        JOIN tasker.plan_step AS s USING (plan_id)
        LEFT JOIN LATERAL (
            SELECT x.state, x.attempts, x.retry_limit, x.error
            FROM tasker.step AS x
            WHERE x.task_id = t.task_id
              AND x.step_no = s.step_no
            OFFSET 0) AS r ON true
        WHERE t.task_id = $1
    )
    SELECT jsonb_build_object(
               'direction', 'TD',
               'title', tasker._diagram_line(
                   pg_catalog.format('Task %s: %s %s (%s)', t.task_id, p.name, p.version, tasker._task_state(t.state)), 200),
               'attributes', jsonb_build_object(
                   'task_id', t.task_id,
                   'name', p.name,
                   'namespace', p.namespace,
                   'version', p.version,
                   'state', tasker._task_state(t.state)),
               'nodes', (
                   SELECT coalesce(jsonb_agg(jsonb_build_object(
                              'id', 'step_' || s.step_id,
                              'label', concat_ws(E'\n',
                                  tasker._diagram_line(s.name, 60),
                                  s.state || ', attempts: ' || s.attempts,
                                  CASE WHEN s.state IN ('waiting_for_retry', 'error')
                                       THEN 'Error: ' || tasker._diagram_line(s.error ->> 'message', 60) END),
                              'shape', 'box',
                              'style', c.style -> s.state,
                              'url', pg_catalog.format('/tasker/tasks/%s/workflow_steps/%s', s.task_id, s.step_id),
                              'attributes', jsonb_build_object(
                                  'step_id', s.step_id,
                                  'name', s.name,
                                  'state', s.state,
                                  'attempts', s.attempts,
                                  'retry_limit', s.retry_limit,
                                  'level', s.level,
                                  'handler_class', s.handler_class,
                                  'error', s.error))
                              ORDER BY s.step_no), '[]')
                   FROM steps AS s
                   CROSS JOIN colours AS c),
               'edges', (
                   SELECT coalesce(jsonb_agg(tasker._diagram_edge(
                              'step_' || (s.task_id << 14 | n.parent),
                              'step_' || s.step_id) ORDER BY s.step_no, n.parent), '[]')
                   FROM steps AS s
                   CROSS JOIN LATERAL unnest(s.parents) AS n (parent)))
    INTO diagram
    FROM tasker.task AS t
    JOIN tasker.plan AS p USING (plan_id)
    WHERE t.task_id = $1;

    IF diagram IS NULL THEN
        PERFORM tasker._refuse_unknown_task($1);
    END IF;
    RETURN tasker._write_diagram(diagram, $2);
END;
$$;
COMMENT ON FUNCTION tasker.task_diagram(bigint, text) IS
'Returns the diagram of task task_id: a box for each step with its name, state, attempts and, where it failed, its error in short, coloured by state; an arrow for each dependency; the task as title. format: mermaid (the default), dot (Graphviz) or json (nodes, edges, direction, title, attributes; the errors whole). Raises 22023 (unknown format), TK007 (there is no such task). Source: design, Reading; reference 10.';

CREATE FUNCTION tasker.template_diagram(
    name text,
    namespace text DEFAULT 'default',
    version text DEFAULT NULL,
    format text DEFAULT 'mermaid')
RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    template record;
    plan record;
    known text;
BEGIN
    PERFORM tasker._check_diagram_format($4);

    SELECT t.template_id, t.version, t.environment
    INTO template
    FROM tasker.template AS t
    WHERE t.namespace = $2
      AND t.name = $1
      AND ($3 IS NULL OR t.version = $3)
    ORDER BY t.version_order DESC
    LIMIT 1;

    IF NOT FOUND THEN
        SELECT string_agg(t.version, ', ' ORDER BY t.version_order DESC)
        INTO known
        FROM (SELECT t.version, t.version_order
              FROM tasker.template AS t
              WHERE t.namespace = $2
                AND t.name = $1
              ORDER BY t.version_order DESC
              LIMIT 10) AS t;
        IF known IS NOT NULL THEN
            RAISE EXCEPTION 'task template does not exist in that version'
                USING ERRCODE = 'TK007',
                      DETAIL = pg_catalog.format('Namespace %s has %s, but not in version %s.', quote_literal($2), quote_literal($1), quote_literal($3)),
                      HINT = pg_catalog.format('It has the versions %s.', known);
        END IF;

        SELECT string_agg(t.namespace, ', ' ORDER BY t.namespace)
        INTO known
        FROM (SELECT DISTINCT t.namespace
              FROM tasker.template AS t
              WHERE t.name = $1
              ORDER BY t.namespace
              LIMIT 10) AS t;
        RAISE EXCEPTION 'task template does not exist'
            USING ERRCODE = 'TK007',
                  DETAIL = pg_catalog.format('Namespace %s has no task template %s.',
                                             coalesce(quote_literal($2), 'NULL'), coalesce(quote_literal($1), 'NULL')),
                  HINT = CASE
                             WHEN known IS NULL THEN 'tasker.register_task() registers one.'
                             ELSE pg_catalog.format('There is one of that name in namespace %s.', known)
                         END;
    END IF;

    SELECT p.plan_id, p.name, p.namespace, p.version, p.environment
    INTO STRICT plan
    FROM tasker.plan AS p
    WHERE p.template_id = template.template_id
      AND p.retired_at IS NULL
      AND (p.environment IS NULL
           OR p.environment = coalesce(template.environment, current_setting('tasker.environment', true)))
    ORDER BY p.environment NULLS LAST
    LIMIT 1;

    RETURN (
        SELECT tasker._write_diagram(jsonb_build_object(
                   'direction', 'TD',
                   'title', tasker._diagram_line(
                       concat_ws(' ', plan.namespace || '.' || plan.name, plan.version, '(' || plan.environment || ')'), 200),
                   'attributes', jsonb_build_object(
                       'name', plan.name,
                       'namespace', plan.namespace,
                       'version', plan.version,
                       'environment', plan.environment),
                   'nodes', coalesce(jsonb_agg(jsonb_build_object(
                       'id', 'step_' || s.step_no,
                       'label', concat_ws(E'\n',
                           tasker._diagram_line(s.name, 60),
                           tasker._diagram_line(s.handler_class, 60)),
                       'shape', 'box',
                       'style', pg_catalog.format('fill:%s,stroke:%s,color:%s', c.fill, c.stroke, c.color),
                       'url', NULL,
                       'attributes', jsonb_build_object(
                           'name', s.name,
                           'description', s.description,
                           'handler_class', s.handler_class,
                           'level', s.level,
                           'retry_limit', s.retry_limit,
                           'retryable', s.retryable))
                       ORDER BY s.step_no), '[]'),
                   'edges', (
                       SELECT coalesce(jsonb_agg(tasker._diagram_edge('step_' || n.parent, 'step_' || e.step_no)
                                                 ORDER BY e.step_no, n.parent), '[]')
                       FROM tasker.plan_step AS e
                       CROSS JOIN LATERAL unnest(e.parents) AS n (parent)
                       WHERE e.plan_id = plan.plan_id)), $4)
        FROM tasker.plan_step AS s
        JOIN tasker._diagram_colours() AS c ON c.class = 'template'
        WHERE s.plan_id = plan.plan_id);
END;
$$;
COMMENT ON FUNCTION tasker.template_diagram(text, text, text, text) IS
'Returns the diagram of a task template: a box for each step with its name and handler, an arrow for each dependency. name, namespace; version: NULL for the highest; format: mermaid (the default), dot (Graphviz) or json (nodes, edges, direction, title, attributes). Where the definition has environments, the one that a task created now would get. Raises 22023 (unknown format), TK007 (there is no such template, or not in that version). Source: design, Reading; reference 10.';
