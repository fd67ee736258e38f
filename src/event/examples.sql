-- What the events of a real run carried; made by `make doc`, with ids and times put
-- in their place.

CREATE FUNCTION tasker._event_examples()
RETURNS TABLE (name text, payload jsonb)
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 30
SET search_path = pg_catalog, pg_temp
AS $$
    VALUES (NULL::text, NULL::jsonb);
$$;
COMMENT ON FUNCTION tasker._event_examples() IS
'An example of the payload of each event of the engine. Private.';
