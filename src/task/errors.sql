-- How a handler says what its failure means.

CREATE FUNCTION tasker.permanent_error(message text, details jsonb DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = 'TK001',
        MESSAGE = coalesce(message, 'permanent error'),
        DETAIL = coalesce(details::text, '');
END;
$$;
COMMENT ON FUNCTION tasker.permanent_error(text, jsonb) IS
'Fails the step that calls it for good: no attempt follows. Arguments: message; details, kept in the step''s error as its detail. Returns nothing. Raises TK001, always. Source: design, contract, "Handlers"; reference 4.11.';

CREATE FUNCTION tasker.retryable_error(message text, retry_after interval DEFAULT NULL, details jsonb DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF retry_after NOT BETWEEN interval '0' AND interval '1000 years' THEN
        RAISE EXCEPTION 'retry_after must be from 0 to 1000 years'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('It is %s.', retry_after),
                  HINT = 'Leave it out to let the back-off decide.';
    END IF;
    -- The field for a datatype's name carries the delay, in microseconds: it is
    -- part of the error itself, so it can't be lost or be taken for another error's.
    RAISE EXCEPTION USING
        ERRCODE = 'TK002',
        MESSAGE = coalesce(message, 'retryable error'),
        DETAIL = coalesce(details::text, ''),
        DATATYPE = coalesce(trunc(extract(epoch FROM retry_after) * 1000000)::text, '');
END;
$$;
COMMENT ON FUNCTION tasker.retryable_error(text, interval, jsonb) IS
'Fails this attempt of the step that calls it. Arguments: message; retry_after, the delay before the next attempt, which replaces the back-off, without jitter (NULL: the back-off decides); details, kept in the step''s error as its detail. Returns nothing. Raises TK002, always; 22023 for a delay below 0 or above 1000 years. A month counts 30 days, a year 365.25. Source: design, contract, "Handlers"; reference 4.11.';
