-- The keys of a definition: which there are, and what is wrong with their
-- values.  They are checked on the definition as it is written, environments
-- included.

CREATE FUNCTION tasker._definition_keys()
RETURNS TABLE (
    scope text,
    key text,
    kind text,
    low numeric,
    high numeric,
    required boolean,
    default_value jsonb,
    example text,
    meaning text)
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 50
SET search_path = pg_catalog, pg_temp
AS $$
    VALUES
        ('task', 'name', 'name', NULL::numeric, NULL::numeric, true, NULL::jsonb,
         'name: order/checkout',
         'What create_task calls it.'),
        ('task', 'step_templates', 'steps', NULL, NULL, true, NULL,
         'step_templates: [{name: pay, handler_class: pay}]',
         'Its steps, 1 to 16,383. Their order is the one in which people see them, and that of concurrent: false.'),
        ('task', 'namespace_name', 'name', NULL, NULL, false, '"default"'::jsonb,
         'namespace_name: shop',
         'Keeps names of different teams apart.'),
        ('task', 'version', 'version', NULL, NULL, false, '"0.1.0"'::jsonb,
         'version: 1.2.0',
         'A semantic version. Several may be registered at once; a task that asks for none gets the highest.'),
        ('task', 'description', 'string', NULL, NULL, false, NULL,
         'description: From the cart to the bill',
         'For people.'),
        ('task', 'schema', 'object', NULL, NULL, false, NULL,
         'schema: {type: object, required: [cart_id]}',
         'JSON Schema that a task''s context must satisfy when the task is created.'),
        ('task', 'timeout', 'duration', 0.000001, NULL, false, NULL,
         'timeout: 2 hours',
         'Time a task may take from its start.'),
        ('task', 'on_failure', 'on_failure', NULL, NULL, false, '"continue"'::jsonb,
         'on_failure: stop',
         'When a step has failed for good: continue lets branches that do not need it finish first, stop starts nothing more.'),
        ('task', 'concurrent', 'boolean', NULL, NULL, false, 'true'::jsonb,
         'concurrent: false',
         'false: the steps of a task run one at a time, in the order of the definition where dependencies leave a choice.'),
        ('task', 'priority', 'integer', -2147483647, 2147483647, false, '0'::jsonb,
         'priority: 10',
         'Of a task that is created without one. Higher goes first.'),
        ('task', 'default_dependent_system', 'string', NULL, NULL, false, NULL,
         'default_dependent_system: erp',
         'dependent_system of every step that names none.'),
        ('task', 'handler_config', 'object', NULL, NULL, false, NULL,
         'handler_config: {currency: EUR}',
         'What the handler_config of every step begins with: mappings are merged, and the step''s own values win.'),
        ('task', 'named_steps', 'strings', NULL, NULL, false, NULL,
         'named_steps: [fetch_cart, charge]',
         'If it is there, every step and every dependency must be listed in it: a guard against slips of the pen.'),
        ('task', 'environments', 'object', NULL, NULL, false, NULL,
         'environments: {live: {priority: 5}}',
         'What differs between environments.'),
        ('task', 'custom_events', 'events', NULL, NULL, false, NULL,
         'custom_events: [{name: order.big}]',
         'Events that its handlers publish.'),
        ('task', 'task_handler_class', 'string', NULL, NULL, false, NULL,
         'task_handler_class: Checkout',
         'Recorded; definitions of other engines have it.'),
        ('task', 'module_namespace', 'string', NULL, NULL, false, NULL,
         'module_namespace: Shop',
         'Recorded.'),
        ('step', 'name', 'name', NULL, NULL, true, NULL,
         'name: charge',
         'Unique within the task.'),
        ('step', 'handler_class', 'name', NULL, NULL, false, NULL,
         'handler_class: charge_card',
         'Name that its handler is registered under. It is looked for in the task''s namespace, then in default, each time for the task''s version before the one for every version.'),
        ('step', 'depends_on_step', 'string', NULL, NULL, false, NULL,
         'depends_on_step: fetch_cart',
         'A step that must be complete, resolved or skipped before this one starts.'),
        ('step', 'depends_on_steps', 'strings', NULL, NULL, false, NULL,
         'depends_on_steps: [stock, price]',
         'Several of them. Both keys may be there; all count, each once.'),
        ('step', 'description', 'string', NULL, NULL, false, NULL,
         'description: Charges the card',
         'For people.'),
        ('step', 'dependent_system', 'string', NULL, NULL, false, NULL,
         'dependent_system: bank',
         'System it works with, for people.'),
        ('step', 'handler_config', 'object', NULL, NULL, false, NULL,
         'handler_config: {currency: EUR}',
         'What the handler gets as step.config. type: api makes it an HTTP step.'),
        ('step', 'retry', 'object', NULL, NULL, false, NULL,
         'retry: {limit: 5}',
         'When a failed attempt is repeated.'),
        ('step', 'default_retryable', 'boolean', NULL, NULL, false, 'true'::jsonb,
         'default_retryable: false',
         'false makes the first failure final.'),
        ('step', 'default_retry_limit', 'integer', 1, 32767, false, '3'::jsonb,
         'default_retry_limit: 1',
         'Attempts in all, 1 to 32,767. retry.limit wins where both are there.'),
        ('step', 'timeout', 'duration', 0.000001, NULL, false, NULL,
         'timeout: 30 s',
         'Time one attempt may take.'),
        ('step', 'skippable', 'boolean', NULL, NULL, false, 'false'::jsonb,
         'skippable: true',
         'Tells people that a task can do without it. bypass_steps works on any step.'),
        ('step', 'custom_events', 'events', NULL, NULL, false, NULL,
         'custom_events: [{name: card.refused}]',
         'As for the task.'),
        ('retry', 'limit', 'integer', 1, 32767, false, '3'::jsonb,
         'limit: 5',
         'Attempts in all, the first one counted, 1 to 32,767.'),
        ('retry', 'base_delay', 'duration', 0, NULL, false, '"1 s"'::jsonb,
         'base_delay: 0.5',
         'The delay after attempt n is base_delay × 2ⁿ …'),
        ('retry', 'max_delay', 'duration', 0, NULL, false, '"30 s"'::jsonb,
         'max_delay: 10 min',
         '… but never longer than this …'),
        ('retry', 'jitter', 'number', 0, 1, false, '0.1'::jsonb,
         'jitter: 0',
         '… times a random factor from 1 − jitter to 1 + jitter.'),
        ('api', 'type', 'string', NULL, NULL, false, NULL,
         'type: api',
         'api'),
        ('api', 'url', 'string', NULL, NULL, false, NULL,
         'url: https://example.com/cart',
         'Absolute, http or https.'),
        ('api', 'method', 'string', NULL, NULL, false, NULL,
         'method: PUT',
         'GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS. Without it: POST where there is a body, else GET.'),
        ('api', 'params', 'object', NULL, NULL, false, '{}'::jsonb,
         'params: {debug: true}',
         'Parameters in the URL, whatever the method: a list is its key repeated, a mapping its JSON text.'),
        ('api', 'query', 'object', NULL, NULL, false, '{}'::jsonb,
         'query: {page: 2}',
         'The same; where both are there, they are put together.'),
        ('api', 'headers', 'object', NULL, NULL, false, NULL,
         'headers: {Accept: text/csv}',
         'Header lines, in place of or beside those that are sent anyway.'),
        ('api', 'body', 'any', NULL, NULL, false, NULL,
         'body: {cart: "${context.cart_id}"}',
         'What is sent: a string as it is, anything else as JSON.'),
        ('api', 'timeout', 'duration', 0.000001, NULL, false, '"30 s"'::jsonb,
         'timeout: 5 s',
         'Time for the request, redirects included. The timeout of the step counts as well.'),
        ('api', 'expected_status', 'any', NULL, NULL, false, NULL,
         'expected_status: [200, 404]',
         'Statuses that complete the step, one or a list. Without it: 200 to 226.'),
        ('api', 'max_response', 'integer', 1, 67108864, false, '1048576'::jsonb,
         'max_response: 4096',
         'Size that the body of the answer may have, in bytes, up to 64 MB. A larger one fails the step for good.'),
        ('api', 'max_redirects', 'integer', 0, 10, false, '5'::jsonb,
         'max_redirects: 0',
         'Number of redirects that are followed.'),
        ('api', 'ssl', 'any', NULL, NULL, false, NULL,
         'ssl: {verify: true}',
         'verify: whether the server has to prove who it is; false needs an agent with --allow-insecure. ca: certificates to check it by (PEM).'),
        ('api', 'enable_exponential_backoff', 'boolean', NULL, NULL, false, 'true'::jsonb,
         'enable_exponential_backoff: false',
         'false: the delay between attempts does not grow.'),
        ('api', 'retry_delay', 'duration', 0, NULL, false, '1'::jsonb,
         'retry_delay: 2.5',
         'The delay to begin with, where retry.base_delay is absent.'),
        ('api', 'jitter_factor', 'number', 0, NULL, false, NULL,
         'jitter_factor: 1',
         'Fixed factor for the delay, in place of the random one of retry.jitter.'),
        ('event', 'name', 'event_name', NULL, NULL, true, NULL,
         'name: order.big',
         'A namespace, a dot and what happened. The namespaces task, step, workflow, observability, test, handler, plugin, subscriber, registry, template and tasker are the engine''s own.'),
        ('event', 'description', 'string', NULL, NULL, false, NULL,
         'description: An order above the limit',
         'For people.'),
        ('event', 'payload_schema', 'object', NULL, NULL, false, NULL,
         'payload_schema: {type: object}',
         'JSON Schema of what the event carries.');
$$;
COMMENT ON FUNCTION tasker._definition_keys() IS
'Every key that a definition knows, the one place that says so: where it stands, what kind of value it takes and its bounds (durations: in seconds, and never above 10 years), whether it must be there, its default where that is one value, an example in YAML and what it means. doc/definition.md and tasker.definition_schema() follow it. Private.';

CREATE FUNCTION tasker._event_name_problem(name text)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN name !~ '^[^.]+[.].*[^.]$' OR name ~ '[.][.]' THEN
            'Custom event name must contain a namespace (e.g., ''order.fulfilled'')'
        WHEN name LIKE '%*%' THEN
            format('Event name ''%s'' must not contain *, which stands for other events', left(name, 60))
        WHEN tasker._system_event(lower(name)) IS NOT NULL THEN
            format('Event name ''%s'' conflicts with system event', left(name, 60))
        WHEN lower(split_part(name, '.', 1)) = ANY (tasker._reserved_event_namespaces()) THEN
            format('Namespace ''%s'' is reserved for system events', left(split_part(name, '.', 1), 60))
    END;
$$;
COMMENT ON FUNCTION tasker._event_name_problem(text) IS
'Why a text is no name of a custom event, as a sentence; NULL where it is one. Source: reference 7.4. Private.';

-- The three below are used once for every step or value of a definition; without
-- SET search_path they are inlined, so they name even their operators in full.

CREATE FUNCTION tasker._elements(value jsonb)
RETURNS TABLE (n integer, element jsonb)
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 1000
AS $$
    SELECT (e.n OPERATOR(pg_catalog.-) 1)::integer, e.element
    FROM pg_catalog.jsonb_array_elements(
             CASE WHEN pg_catalog.jsonb_typeof(_elements.value) OPERATOR(pg_catalog.=) 'array'
                  THEN _elements.value ELSE '[]' END)
         WITH ORDINALITY AS e (element, n);
$$;
COMMENT ON FUNCTION tasker._elements(jsonb) IS
'Elements of an array with their numbers from 0; none of anything else. Private.';

CREATE FUNCTION tasker._entries(value jsonb)
RETURNS TABLE (key text, entry jsonb)
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 10
AS $$
    SELECT e.key, e.value
    FROM pg_catalog.jsonb_each(
             CASE WHEN pg_catalog.jsonb_typeof(_entries.value) OPERATOR(pg_catalog.=) 'object'
                  THEN _entries.value ELSE '{}' END) AS e
    WHERE e.value OPERATOR(pg_catalog.<>) 'null';
$$;
COMMENT ON FUNCTION tasker._entries(jsonb) IS
'Entries of an object that have a value: a null is as good as nothing in a definition. None of anything else. Private.';

CREATE FUNCTION tasker._string(value jsonb)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN pg_catalog.jsonb_typeof(_string.value) OPERATOR(pg_catalog.=) 'string'
                THEN _string.value OPERATOR(pg_catalog.#>>) '{}' END;
$$;
COMMENT ON FUNCTION tasker._string(jsonb) IS
'The text of a string, NULL for anything else. Private.';

CREATE FUNCTION tasker._duration(value jsonb)
RETURNS interval
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
SET intervalstyle = 'postgres'
AS $$
BEGIN
    RETURN CASE jsonb_typeof(value)
        WHEN 'number' THEN make_interval(secs => value::float8)
        WHEN 'string' THEN (value #>> '{}')::interval
    END;
EXCEPTION
    WHEN data_exception THEN
        RETURN NULL;
END;
$$;
COMMENT ON FUNCTION tasker._duration(jsonb) IS
'A duration of a definition, a number of seconds or the text of an interval; NULL for what is neither. Private.';

CREATE FUNCTION tasker._definition_steps(definition jsonb)
RETURNS TABLE (step_no integer, name text, handler_class text, handler_type text, step jsonb)
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 5000
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT e.n + 1,
           tasker._string(e.element -> 'name'),
           tasker._string(e.element -> 'handler_class'),
           tasker._string(e.element -> 'handler_config' -> 'type'),
           e.element
    FROM tasker._elements(definition -> 'step_templates') AS e
    WHERE jsonb_typeof(e.element) = 'object';
$$;
COMMENT ON FUNCTION tasker._definition_steps(jsonb) IS
'Steps of a merged definition, numbered from 1. Private.';

CREATE FUNCTION tasker._definition_nodes(definition jsonb)
RETURNS TABLE (scope text, path text[], node jsonb)
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE ROWS 10000
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH task AS MATERIALIZED (
        SELECT 'task' AS scope, '{}'::text[] AS path, definition AS node
        UNION ALL
        SELECT 'environment', ARRAY['environments', e.key], e.entry
        FROM tasker._entries(definition -> 'environments') AS e
    ), step AS MATERIALIZED (
        SELECT CASE task.scope WHEN 'task' THEN 'step' ELSE 'change' END AS scope,
               task.path || ARRAY['step_templates', e.n::text] AS path, e.element AS node
        FROM task
        CROSS JOIN LATERAL tasker._elements(task.node -> 'step_templates') AS e
    )
    SELECT task.scope, task.path, task.node FROM task
    UNION ALL
    SELECT step.scope, step.path, step.node FROM step
    UNION ALL
    SELECT 'retry', step.path || ARRAY['retry'], step.node -> 'retry'
    FROM step
    WHERE step.node ? 'retry'
    UNION ALL
    SELECT 'api', task.path || ARRAY['handler_config'], task.node -> 'handler_config'
    FROM task
    WHERE task.node -> 'handler_config' ->> 'type' = 'api'
    UNION ALL
    SELECT 'api', step.path || ARRAY['handler_config'], step.node -> 'handler_config'
    FROM step
    WHERE step.node -> 'handler_config' ->> 'type' = 'api'
       -- the type may have been said before: by the task, or where an environment
       -- changes the configuration by the step itself
       OR (step.node -> 'handler_config' -> 'type' IS NULL
           AND step.node -> 'handler_config' IS NOT NULL
           AND (definition -> 'handler_config' ->> 'type' = 'api'
                OR (step.scope = 'change'
                    AND step.node ->> 'name' IN (
                        SELECT base.node ->> 'name'
                        FROM step AS base
                        WHERE base.scope = 'step'
                          AND base.node -> 'handler_config' ->> 'type' = 'api'))))
    UNION ALL
    SELECT 'event', owner.path || ARRAY['custom_events', e.n::text], e.element
    FROM (SELECT task.path, task.node FROM task
          UNION ALL
          SELECT step.path, step.node FROM step) AS owner
    CROSS JOIN LATERAL tasker._elements(owner.node -> 'custom_events') AS e;
END;
$$;
COMMENT ON FUNCTION tasker._definition_nodes(jsonb) IS
'Every place of a definition, as it is written, where keys of our own stand. scope is that of _definition_keys(), or environment (keys of a task) or change (keys of a step, within an environment). Private.';

-- Making a plan of these checks takes longer than running it: PL/pgSQL keeps it.
CREATE FUNCTION tasker._type_problems(definition jsonb)
RETURNS TABLE (path text[], message text, hint text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH node AS MATERIALIZED (
        SELECT n.scope, n.path, n.node
        FROM tasker._definition_nodes(definition) AS n
    ), pair AS MATERIALIZED (
        SELECT CASE n.scope WHEN 'environment' THEN 'task' WHEN 'change' THEN 'step' ELSE n.scope END AS scope,
               n.path, e.key, e.entry
        FROM node AS n
        CROSS JOIN LATERAL tasker._entries(n.node) AS e
    ), entry AS MATERIALIZED (
        SELECT p.path || p.key AS path, p.key, p.entry, k.kind, k.low, k.high,
               jsonb_typeof(p.entry) AS type
        FROM pair AS p
        JOIN tasker._definition_keys() AS k
            ON k.scope = p.scope
           AND k.key = p.key
    ), checked AS (
        SELECT e.*,
               CASE e.kind
                   WHEN 'name' THEN 'string'
                   WHEN 'version' THEN 'string'
                   WHEN 'on_failure' THEN 'string'
                   WHEN 'event_name' THEN 'string'
                   WHEN 'strings' THEN 'array'
                   WHEN 'steps' THEN 'array'
                   WHEN 'events' THEN 'array'
                   WHEN 'integer' THEN 'number'
                   WHEN 'any' THEN e.type
                   WHEN 'duration' THEN CASE WHEN e.type IN ('string', 'number') THEN e.type ELSE 'duration' END
                   ELSE e.kind
               END AS wanted
        FROM entry AS e
    )
    -- an entry of the wrong type
    SELECT c.path,
           format('%s must be %s, not %s', c.key,
               CASE c.kind
                   WHEN 'version' THEN 'a string' WHEN 'name' THEN 'a string' WHEN 'event_name' THEN 'a string'
                   WHEN 'on_failure' THEN 'stop or continue'
                   WHEN 'strings' THEN 'a list of strings'
                   WHEN 'steps' THEN 'a list of mappings' WHEN 'events' THEN 'a list of mappings'
                   WHEN 'object' THEN 'a mapping' WHEN 'boolean' THEN 'true or false'
                   WHEN 'duration' THEN 'a duration' WHEN 'integer' THEN 'a whole number'
                   ELSE 'a ' || c.kind END,
               CASE WHEN c.type IN ('number', 'boolean') THEN format('the %s %s', c.type, c.entry)
                    WHEN c.type = 'string' THEN format('the string "%s"', left(c.entry #>> '{}', 60))
                    WHEN c.type = 'array' THEN 'a list'
                    ELSE 'a mapping' END),
           CASE
               WHEN c.kind = 'version' AND c.type = 'number' THEN
                   coalesce('Quote it, with all three numbers: version: "'
                            || (regexp_match(c.entry::text || '.0.0', '^[0-9]+\.[0-9]+\.[0-9]+'))[1] || '".',
                            'A version has three numbers, such as "1.0.0".')
               WHEN c.wanted = 'string' AND c.type IN ('number', 'boolean') THEN
                   format('Quote it: "%s".', c.entry)
               WHEN c.key = 'depends_on_step' AND c.type = 'array' THEN
                   'Several steps go into depends_on_steps.'
               WHEN c.kind = 'strings' AND c.type = 'string' THEN
                   format('Write a list: [%s].', c.entry)
               WHEN c.kind = 'boolean' AND c.type = 'string' THEN
                   'Write true or false, without quotes.'
               WHEN c.wanted = 'number' AND c.type = 'string' THEN
                   'Write the number without quotes.'
               WHEN c.kind IN ('steps', 'events') AND c.type = 'object' THEN
                   'Begin each element with "- ".'
               WHEN c.kind = 'duration' THEN
                   'Write a number of seconds, or a text such as "30 s" or "5 min".'
           END
    FROM checked AS c
    WHERE c.type <> c.wanted
    UNION ALL
    -- an element of the wrong type
    SELECT c.path || e.n::text,
           format('an element of %s must be %s, not %s', c.key,
               CASE c.kind WHEN 'strings' THEN 'a string' ELSE 'a mapping' END,
               CASE jsonb_typeof(e.element)
                   WHEN 'null' THEN 'empty' WHEN 'array' THEN 'a list' WHEN 'object' THEN 'a mapping'
                   WHEN 'string' THEN format('the string "%s"', left(e.element #>> '{}', 60))
                   ELSE format('the %s %s', jsonb_typeof(e.element), e.element) END),
           CASE WHEN c.kind = 'strings' AND jsonb_typeof(e.element) IN ('number', 'boolean')
                THEN format('Quote it: "%s".', e.element) END
    FROM checked AS c
    CROSS JOIN LATERAL tasker._elements(c.entry) AS e
    WHERE c.kind IN ('strings', 'steps', 'events')
      AND jsonb_typeof(e.element) <> CASE c.kind WHEN 'strings' THEN 'string' ELSE 'object' END
    UNION ALL
    -- a name that cannot be one
    SELECT c.path, format('%s %s', c.key, tasker._name_problem(tasker._string(c.entry))),
           'A name has 1 to 128 printable characters.'
    FROM checked AS c
    WHERE c.kind IN ('name', 'event_name')
      AND c.type = 'string'
      -- most names need no closer look
      AND c.entry #>> '{}' COLLATE "C" !~ '^[A-Za-z0-9_:./-]{1,128}$'
      AND tasker._name_problem(c.entry #>> '{}') IS NOT NULL
    UNION ALL
    SELECT c.path,
           tasker._event_name_problem(c.entry #>> '{}'),
           'Write a namespace of your own, a dot and what happened: order.shipped.'
    FROM checked AS c
    WHERE c.kind = 'event_name'
      AND c.type = 'string'
      AND tasker._event_name_problem(c.entry #>> '{}') IS NOT NULL
    UNION ALL
    SELECT n.path || ARRAY['payload_schema'] || p.path,
           tasker._path_text(ARRAY['payload_schema'] || p.path) || ' ' || p.message,
           NULL
    FROM node AS n
    CROSS JOIN LATERAL tasker._schema_problems(n.node -> 'payload_schema') AS p
    WHERE n.scope = 'event'
      AND jsonb_typeof(n.node -> 'payload_schema') = 'object'
    UNION ALL
    SELECT c.path, format('version "%s" is not a semantic version', left(c.entry #>> '{}', 60)),
           coalesce('Write "'
                    || (regexp_match((regexp_match(c.entry #>> '{}', '^[vV]?([0-9]+(?:\.[0-9]+){0,2})$'))[1] || '.0.0',
                                     '^[0-9]+\.[0-9]+\.[0-9]+'))[1] || '".',
                    'A version has three numbers, such as "1.0.0".')
    FROM checked AS c
    WHERE c.kind = 'version'
      AND c.type = 'string'
      AND tasker._version_order(c.entry #>> '{}') IS NULL
    UNION ALL
    SELECT c.path, format('on_failure must be stop or continue, not "%s"', left(c.entry #>> '{}', 60)),
           tasker._did_you_mean(c.entry #>> '{}', '{stop,continue}')
    FROM checked AS c
    WHERE c.kind = 'on_failure'
      AND c.type = 'string'
      AND c.entry #>> '{}' NOT IN ('stop', 'continue')
    UNION ALL
    -- a number out of bounds
    SELECT c.path,
           format('%s must be %s, not %s', c.key,
               CASE WHEN c.kind = 'integer' THEN format('a whole number from %s to %s', c.low, c.high)
                    WHEN c.high IS NULL THEN format('at least %s', c.low)
                    ELSE format('a number from %s to %s', c.low, c.high) END,
               c.entry),
           CASE WHEN c.key IN ('default_retry_limit', 'limit') AND c.entry = '0'
                THEN 'The first attempt counts: 1 means that none follows it.' END
    FROM checked AS c
    WHERE c.kind IN ('integer', 'number')
      AND c.type = 'number'
      AND CASE WHEN c.type = 'number' THEN
              c.entry::numeric < c.low OR c.entry::numeric > c.high
              OR (c.kind = 'integer' AND c.entry::numeric <> trunc(c.entry::numeric)) END
    UNION ALL
    SELECT c.path,
           CASE
               WHEN d.duration IS NULL THEN
                   format('%s "%s" is not a duration', c.key, left(c.entry #>> '{}', 60))
               WHEN d.duration > interval '10 years' THEN
                   format('%s must not be longer than 10 years', c.key)
               WHEN c.low > 0 THEN format('%s must be longer than nothing', c.key)
               ELSE format('%s must not be negative', c.key)
           END,
           'Write a number of seconds, or a text such as "30 s" or "5 min".'
    FROM checked AS c
    CROSS JOIN LATERAL (SELECT tasker._duration(c.entry)) AS d (duration)
    WHERE c.kind = 'duration'
      AND c.type IN ('string', 'number')
      AND (d.duration IS NULL
           OR d.duration > interval '10 years'
           OR d.duration < make_interval(secs => c.low::float8))
    UNION ALL
    -- what must be there
    SELECT n.path || r.key, format('%s is missing', r.key),
           CASE n.scope
               WHEN 'change' THEN 'An environment changes a step by its name.'
               WHEN 'task' THEN CASE r.key WHEN 'name' THEN 'Every task has a name: name: my_task'
                                           ELSE 'A task has at least one step, in the list step_templates.' END
               ELSE format('Every %s has a name.', n.scope)
           END
    FROM node AS n
    JOIN tasker._definition_keys() AS r
        ON r.scope = CASE n.scope WHEN 'change' THEN 'step' ELSE n.scope END
       AND r.required
    WHERE jsonb_typeof(n.node) = 'object'
      AND coalesce(n.node -> r.key, 'null') = 'null'
    UNION ALL
    SELECT n.path, 'a definition must be a mapping', 'It begins with name: my_task'
    FROM node AS n
    WHERE n.scope = 'task'
      AND jsonb_typeof(n.node) IS DISTINCT FROM 'object'
    UNION ALL
    SELECT n.path || ARRAY['step_templates'], 'step_templates is empty', 'A task has at least one step.'
    FROM node AS n
    WHERE n.scope = 'task'
      AND n.node -> 'step_templates' = '[]'
    UNION ALL
    SELECT n.path || ARRAY['step_templates'],
           format('step_templates has %s steps; a task has at most 16383', jsonb_array_length(n.node -> 'step_templates')),
           'Split it into several tasks.'
    FROM node AS n
    WHERE n.scope = 'task'
      AND jsonb_typeof(n.node -> 'step_templates') = 'array'
      AND CASE WHEN jsonb_typeof(n.node -> 'step_templates') = 'array'
               THEN jsonb_array_length(n.node -> 'step_templates') > 16383 END
    UNION ALL
    -- environments
    SELECT n.path, format('environment "%s" must be a mapping', n.path[2]),
           'It holds the keys of the definition that it changes.'
    FROM node AS n
    WHERE n.scope = 'environment'
      AND jsonb_typeof(n.node) <> 'object'
    UNION ALL
    SELECT n.path, format('name of the environment %s', tasker._name_problem(n.path[2])),
           'A name has 1 to 128 printable characters.'
    FROM node AS n
    WHERE n.scope = 'environment'
      AND tasker._name_problem(n.path[2]) IS NOT NULL
    UNION ALL
    SELECT n.path || e.key,
           format('an environment cannot change %s', e.key),
           CASE e.key WHEN 'environments' THEN 'Environments stand side by side, none within another.'
                      ELSE 'A task has the same name, namespace and version in every environment.' END
    FROM node AS n
    CROSS JOIN LATERAL tasker._entries(n.node) AS e
    WHERE n.scope = 'environment'
      AND (e.key = 'environments'
           OR (e.key IN ('name', 'namespace_name', 'version')
               AND e.entry IS DISTINCT FROM definition -> e.key))
    UNION ALL
    SELECT n.path || ARRAY['name'],
           format('environment "%s" changes step "%s" twice', n.path[2], n.node ->> 'name'),
           'Put all changes into one element.'
    FROM (SELECT c.path, c.node,
                 row_number() OVER (PARTITION BY c.path[2], c.node ->> 'name' ORDER BY c.path[4]::integer) AS nth
          FROM node AS c
          WHERE c.scope = 'change'
            AND tasker._string(c.node -> 'name') IS NOT NULL) AS n
    WHERE n.nth > 1;
END;
$$;
COMMENT ON FUNCTION tasker._type_problems(jsonb) IS
'Values of a definition, as it is written, that are missing, of the wrong type or out of bounds. Private.';

CREATE FUNCTION tasker._definition_warnings(definition jsonb)
RETURNS TABLE (path text[], message text, hint text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH node AS MATERIALIZED (
        SELECT CASE n.scope WHEN 'environment' THEN 'task' WHEN 'change' THEN 'step' ELSE n.scope END AS scope,
               n.scope AS written_as, n.path, n.node
        FROM tasker._definition_nodes(definition) AS n
    )
    SELECT n.path || e.key,
           format('unknown key "%s" is ignored', left(e.key, 60)),
           tasker._did_you_mean(e.key, ARRAY(
               SELECT k.key
               FROM tasker._definition_keys() AS k
               WHERE k.scope = n.scope
                 AND NOT n.node ? k.key))
    FROM node AS n
    CROSS JOIN LATERAL tasker._entries(n.node) AS e
    -- x- begins a key of the user's own, for anchors and other tools
    WHERE e.key NOT LIKE 'x-%'
      AND NOT EXISTS (
          SELECT
          FROM tasker._definition_keys() AS k
          WHERE k.scope = n.scope
            AND k.key = e.key)
    UNION ALL
    SELECT n.path || ARRAY['name'],
           format('environment "%s" changes step "%s", which is no step of this task', n.path[2], n.node ->> 'name'),
           tasker._did_you_mean(n.node ->> 'name', ARRAY(
               SELECT s.name
               FROM tasker._definition_steps(definition) AS s
               WHERE s.name IS NOT NULL
               ORDER BY s.step_no))
    FROM node AS n
    WHERE n.written_as = 'change'
      AND tasker._string(n.node -> 'name') IS NOT NULL
      AND n.node ->> 'name' NOT IN (
          SELECT s.name
          FROM tasker._definition_steps(definition) AS s
          WHERE s.name IS NOT NULL)
    UNION ALL
    SELECT n.path || ARRAY['base_delay'],
           'base_delay is longer than max_delay, which no delay exceeds',
           CASE WHEN n.node ? 'max_delay' THEN NULL ELSE 'Set max_delay; without it, it is 30 s.' END
    FROM node AS n
    WHERE n.scope = 'retry'
      AND tasker._duration(n.node -> 'base_delay') > coalesce(tasker._duration(n.node -> 'max_delay'), interval '30 s')
    UNION ALL
    SELECT w.path, w.message, w.hint
    FROM tasker._secret_warnings(definition) AS w
    UNION ALL
    SELECT w.path, w.message, w.hint
    FROM tasker._http_warnings(definition) AS w;
END;
$$;
COMMENT ON FUNCTION tasker._definition_warnings(jsonb) IS
'What a definition says without effect: unknown keys, changes of steps that are not there, delays above their cap. Private.';
