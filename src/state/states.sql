-- The two state machines, seen from SQL.  The machines themselves are one C
-- table (rules.c); what stands here reads it, so that a state or a rule is
-- written down once.

CREATE DOMAIN tasker.task_state AS text;
COMMENT ON DOMAIN tasker.task_state IS
'State of a task: pending, in_progress, paused, complete, error, cancelled or resolved_manually.';

CREATE DOMAIN tasker.step_state AS text;
COMMENT ON DOMAIN tasker.step_state IS
'State of a step: pending, in_progress, waiting_for_retry, complete, error, cancelled, resolved_manually or skipped.';

CREATE FUNCTION tasker._task_state(code smallint)
RETURNS tasker.task_state
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'tasker_task_state';
COMMENT ON FUNCTION tasker._task_state(smallint) IS
'Name of a task state from the code that tasker.task stores. Private.';

CREATE FUNCTION tasker._step_state(code smallint)
RETURNS tasker.step_state
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'tasker_step_state';
COMMENT ON FUNCTION tasker._step_state(smallint) IS
'Name of a step state from the code that tasker.step stores. Private.';

CREATE FUNCTION tasker._state_code(machine text, state text)
RETURNS smallint
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'tasker_state_code';
COMMENT ON FUNCTION tasker._state_code(text, text) IS
'Code of a state by name; machine is task or step. NULL for a name that is no state of it. Private.';

CREATE FUNCTION tasker._transition_rules(
    OUT machine text,
    OUT from_state text,
    OUT to_state text,
    OUT event text,
    OUT meaning text)
RETURNS SETOF record
LANGUAGE C IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'tasker_transition_rules';
COMMENT ON FUNCTION tasker._transition_rules() IS
'Rows of tasker.transition_rules. Private.';

CREATE VIEW tasker.transition_rules AS
SELECT machine, from_state, to_state, event, meaning
FROM tasker._transition_rules();
COMMENT ON VIEW tasker.transition_rules IS
'Every state change that is allowed, and no other is: the table the engine itself checks each change against.';
COMMENT ON COLUMN tasker.transition_rules.machine IS 'task or step.';
COMMENT ON COLUMN tasker.transition_rules.from_state IS 'State before the change; NULL where the row comes into being.';
COMMENT ON COLUMN tasker.transition_rules.to_state IS 'State after the change.';
COMMENT ON COLUMN tasker.transition_rules.event IS 'Event that the change is reported as.';
COMMENT ON COLUMN tasker.transition_rules.meaning IS 'What brings the change about.';

CREATE VIEW tasker.state_codes AS
SELECT s.machine,
       tasker._state_code(s.machine, s.name) AS code,
       s.name
FROM (
    SELECT r.machine, r.to_state AS name
    FROM tasker._transition_rules() AS r
    UNION
    SELECT r.machine, r.from_state
    FROM tasker._transition_rules() AS r
    WHERE r.from_state IS NOT NULL) AS s
ORDER BY 1, 2;
COMMENT ON VIEW tasker.state_codes IS
'What the codes in tasker.log mean, for whoever reads its rows as they are: by logical decoding, say.';
COMMENT ON COLUMN tasker.state_codes.machine IS 'task (step_no 0 in the log) or step.';
COMMENT ON COLUMN tasker.state_codes.code IS 'Number that is stored. Never given another meaning.';
COMMENT ON COLUMN tasker.state_codes.name IS 'State.';

CREATE FUNCTION tasker.clock()
RETURNS timestamptz
LANGUAGE C VOLATILE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'tasker_clock';
COMMENT ON FUNCTION tasker.clock() IS
'Returns the engine''s time: the wall clock moved by the superuser setting tasker.clock_offset (seconds), so that a test of hours takes no time. Every due time comes from here. Raises nothing. Source: design, contract, "State machines".';
