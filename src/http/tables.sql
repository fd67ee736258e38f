-- HTTP steps: what tasker-agent is told to request, and which hosts are left
-- alone because they fail.

CREATE TYPE tasker.http_request AS (
    step_id bigint,
    attempt integer,
    method text,
    url text,
    headers text[],
    body bytea,
    timeout_ms integer,
    max_response bigint,
    max_redirects integer,
    tls_verify boolean,
    tls_ca text,
    host text,
    has_handler boolean
);
COMMENT ON TYPE tasker.http_request IS 'A request that an api step makes, with everything put in.';
COMMENT ON COLUMN tasker.http_request.step_id IS 'Step.';
COMMENT ON COLUMN tasker.http_request.attempt IS 'Number of this attempt, 1 for the first.';
COMMENT ON COLUMN tasker.http_request.method IS 'GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS.';
COMMENT ON COLUMN tasker.http_request.url IS 'Absolute, http or https, with the parameters.';
COMMENT ON COLUMN tasker.http_request.headers IS 'Names and values in turn.';
COMMENT ON COLUMN tasker.http_request.body IS 'What is sent; NULL: nothing.';
COMMENT ON COLUMN tasker.http_request.timeout_ms IS 'Time for all of it, redirects included, in milliseconds.';
COMMENT ON COLUMN tasker.http_request.max_response IS 'Size that the body of the answer may have, in bytes.';
COMMENT ON COLUMN tasker.http_request.max_redirects IS 'Number of redirects to follow.';
COMMENT ON COLUMN tasker.http_request.tls_verify IS 'Whether the server has to prove who it is.';
COMMENT ON COLUMN tasker.http_request.tls_ca IS 'Certificates to check it by, PEM; NULL: those of the system.';
COMMENT ON COLUMN tasker.http_request.host IS 'Scheme, host and port: what a circuit breaker and limits by host go by.';
COMMENT ON COLUMN tasker.http_request.has_handler IS 'Whether a SQL handler makes the result of the answer: end such a request in a transaction of its own.';

CREATE TABLE tasker.breaker (
    host text COLLATE "C" PRIMARY KEY,
    failures integer NOT NULL,
    first_failure_at timestamptz NOT NULL,
    last_failure_at timestamptz NOT NULL,
    last_error text,
    opened_at timestamptz,
    open_until timestamptz,
    probing_until timestamptz
);
COMMENT ON TABLE tasker.breaker IS 'Hosts whose latest requests failed; the row goes with the first that succeeds. People read the view tasker.breakers.';
COMMENT ON COLUMN tasker.breaker.host IS 'Scheme, host and port.';
COMMENT ON COLUMN tasker.breaker.failures IS 'Failures since the last success, or since tasker.breaker_window began anew.';
COMMENT ON COLUMN tasker.breaker.first_failure_at IS 'The first of them.';
COMMENT ON COLUMN tasker.breaker.last_failure_at IS 'The last of them.';
COMMENT ON COLUMN tasker.breaker.last_error IS 'What the last one was.';
COMMENT ON COLUMN tasker.breaker.opened_at IS 'When it was last opened; NULL: it is closed.';
COMMENT ON COLUMN tasker.breaker.open_until IS 'No request goes there before; NULL: it is closed.';
COMMENT ON COLUMN tasker.breaker.probing_until IS 'Until then one request is under way to see whether the host is back.';
SELECT pg_catalog.pg_extension_config_dump('tasker.breaker', '');

CREATE VIEW tasker.breakers WITH (security_invoker) AS
SELECT b.host,
       CASE WHEN b.open_until IS NULL THEN 'closed'
            WHEN b.open_until > tasker.clock() THEN 'open'
            ELSE 'half_open' END AS state,
       b.failures,
       b.first_failure_at,
       b.last_failure_at,
       b.last_error,
       b.opened_at,
       b.open_until,
       b.probing_until
FROM tasker.breaker AS b;
COMMENT ON VIEW tasker.breakers IS 'The circuit breakers of hosts that HTTP steps call and whose latest requests failed. A host that is not there is fine.';
COMMENT ON COLUMN tasker.breakers.host IS 'Scheme, host and port.';
COMMENT ON COLUMN tasker.breakers.state IS 'closed: requests go there; open: they wait; half_open: one at a time is let through, and the first success closes it.';
COMMENT ON COLUMN tasker.breakers.failures IS 'Failures in a row.';
COMMENT ON COLUMN tasker.breakers.first_failure_at IS 'The first of them.';
COMMENT ON COLUMN tasker.breakers.last_failure_at IS 'The last of them.';
COMMENT ON COLUMN tasker.breakers.last_error IS 'What the last one was.';
COMMENT ON COLUMN tasker.breakers.opened_at IS 'When it was last opened; NULL: it is closed.';
COMMENT ON COLUMN tasker.breakers.open_until IS 'No request goes there before; NULL: it is closed.';
COMMENT ON COLUMN tasker.breakers.probing_until IS 'Until then one request is under way to see whether the host is back.';
