-- Who may do what: everybody may read, register and create; what only the
-- engine itself needs is nobody's.

GRANT USAGE ON SCHEMA tasker TO PUBLIC;

GRANT SELECT ON ALL TABLES IN SCHEMA tasker TO PUBLIC;
REVOKE ALL ON TABLE tasker.secret, tasker.token, tasker.access_grant FROM PUBLIC;

DO $$
DECLARE
    private record;
BEGIN
    FOR private IN
        SELECT p.oid::regprocedure AS signature
        FROM pg_catalog.pg_proc AS p
        WHERE p.pronamespace = 'tasker'::regnamespace
          AND p.proname LIKE '\_%'
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', private.signature);
    END LOOP;
END;
$$;

-- Views and the functions that read run as whoever calls them.
GRANT EXECUTE ON FUNCTION
    tasker._is_enforced(),
    tasker._is_administrator(),
    tasker._caller_may(text, text),
    tasker._require(text, text),
    tasker._require_task(text, bigint),
    tasker._require_step(text, bigint),
    tasker._sees(text[], text),
    tasker._sees_plan(text[], integer),
    tasker._sees_task(text[], bigint),
    tasker._registries(),
    tasker._handler_entity_class(text, text),
    tasker._subscriber_entity_class(text),
    tasker._task_state(smallint),
    tasker._step_state(smallint),
    tasker._state_code(text, text),
    tasker._transition_rules(),
    tasker._failed_at(jsonb, timestamptz),
    tasker._step_documents(bigint, integer, integer),
    tasker._refuse_unknown_task(bigint),
    tasker._diagram_colours(),
    tasker._diagram_line(text, integer),
    tasker._mermaid_text(text),
    tasker._dot_text(text),
    tasker._check_diagram_format(text),
    tasker._write_diagram(jsonb, text),
    tasker._diagram_edge(text, text),
    tasker._dead_events(),
    tasker._seen_custom_events(),
    tasker._event_name(smallint, smallint, smallint),
    tasker._subscriber_sleeps_after(),
    tasker._events_until(bigint, timestamptz, bigint),
    tasker._duration_bounds(),
    tasker._ids_behind(bigint, bigint[]),
    tasker._uncounted_ids(),
    tasker._ids_since(timestamptz),
    tasker._count_moves(int8multirange),
    tasker._move_totals(),
    tasker._states_now(),
    tasker._connections(),
    tasker._check_since(timestamptz, integer),
    tasker._log_since(timestamptz),
    tasker._tasks_of(bigint[]),
    tasker._steps_of(bigint[]),
    tasker._seconds(interval),
    tasker._percent(bigint, bigint),
    tasker._message_class(text),
    tasker._critical_most(),
    tasker._critical_times(bigint[]),
    tasker._recommendation(tasker.bottleneck),
    tasker._metric_definitions(),
    tasker._processes(),
    tasker._queue_lengths(integer),
    tasker._metric_samples(),
    tasker._prometheus_text(text),
    tasker._metric_bound(double precision),
    tasker._csv_cell(text),
    tasker._metrics_prometheus(),
    tasker._metrics_json(),
    tasker._metrics_csv()
TO PUBLIC;
