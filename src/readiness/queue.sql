-- What waits: to run, to be retried, for a lease or a deadline to end.  A row
-- is the token of one piece of work, and the key says that there is never a
-- second one for it.  A lane is read in the order of its index; lane -1 holds
-- what is not due yet, so that a million waiting rows lie beside the way.

CREATE TABLE tasker.queue (
    due timestamptz NOT NULL,
    task_id bigint NOT NULL,
    lane integer NOT NULL,
    rank integer NOT NULL,
    due_lane integer,
    step_no smallint NOT NULL,
    tries smallint NOT NULL DEFAULT 0,
    PRIMARY KEY (task_id, step_no)
);
CREATE INDEX queue_order ON tasker.queue (lane, rank, due);
-- Leases and deadlines only: what a limit on the steps in progress counts.
CREATE INDEX queue_leases ON tasker.queue (task_id)
    WHERE lane = -1 AND due_lane IS NULL;
COMMENT ON TABLE tasker.queue IS 'Everything that waits to be done, one row each; a row goes when its work is claimed.';
COMMENT ON COLUMN tasker.queue.due IS 'When it is due.';
COMMENT ON COLUMN tasker.queue.task_id IS 'Task it belongs to.';
COMMENT ON COLUMN tasker.queue.lane IS 'below -1000: waits for the limit of that id less 1000; -1: not due yet; 0: for an executor''s batch; 1: for an executor, with a handler that is slow or was never timed; 2: for an executor, alone in its transaction; 3: api steps; 100 and above: the external handler of that id.';
COMMENT ON COLUMN tasker.queue.rank IS 'Minus the task''s priority: lower goes first.';
COMMENT ON COLUMN tasker.queue.due_lane IS 'In a lane below 0: the lane to go to then; NULL: an executor acts on it itself (the end of a lease, a deadline, what is left of a task that has ended).';
COMMENT ON COLUMN tasker.queue.step_no IS 'Step to run; 0: the task''s start; -1: the task''s deadline; -2: the task has ended, and its tokens that others had in hand then are to go.';
COMMENT ON COLUMN tasker.queue.tries IS 'Runs that were rolled back through no fault of the step and count as no attempt.';
SELECT pg_catalog.pg_extension_config_dump('tasker.queue', '');

CREATE FUNCTION tasker._hold(task_id bigint)
RETURNS boolean
LANGUAGE C VOLATILE STRICT
AS 'MODULE_PATHNAME', 'tasker_hold';
COMMENT ON FUNCTION tasker._hold(bigint) IS
'Joins those who work on the task until the end of the transaction; false where an operator has it, or waits for it. Private.';
