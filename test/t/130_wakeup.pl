# Executors are woken by commits and by the clock, and by nothing else; they
# share the work; what is fast stays in one transaction.
#
# Timing belongs in a benchmark: there is no bound on a time here, and the figure is
# noted.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskerTest;
use Test::More;

my $node = new_server('wakeup', 'track_commit_timestamp = on');
$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION tasker;
CREATE TABLE public.gate (open boolean);
CREATE SEQUENCE public.places;
SQL
create_handlers($node, 'postgres',
	quick => <<'SQL',
    RETURN jsonb_build_object('pid', pg_backend_pid(), 'at', clock_timestamp());
SQL
	meets => <<'SQL',
    -- Slow, and the first waits for the second, the third for the fourth.
    PERFORM pg_sleep(0.05);
    DECLARE
        place constant bigint := nextval('public.places');
    BEGIN
        FOR i IN 1 .. 6000 LOOP
            EXIT WHEN (SELECT last_value FROM public.places) >= place + place % 2;
            PERFORM pg_sleep(0.01);
        END LOOP;
    END;
    RETURN jsonb_build_object('pid', pg_backend_pid());
SQL
	behind_gate => <<'SQL',
    WHILE NOT EXISTS (SELECT FROM public.gate) LOOP
        PERFORM pg_sleep(0.01);
    END LOOP;
    RETURN '{}';
SQL
	second_time => <<'SQL',
    IF step.attempt = 1 THEN
        RAISE 'not yet';
    END IF;
    RETURN '{}';
SQL
);
$node->safe_psql('postgres', <<'SQL');
SET client_min_messages = error;
SELECT tasker.register_task('{"name": "quick", "step_templates": [{"name": "only", "handler_class": "quick"}]}');
SELECT tasker.register_task('{"name": "chain", "step_templates": [
    {"name": "a", "handler_class": "quick"},
    {"name": "b", "handler_class": "quick", "depends_on_step": "a"},
    {"name": "c", "handler_class": "quick", "depends_on_step": "b"},
    {"name": "d", "handler_class": "quick", "depends_on_step": "c"}]}');
SELECT tasker.register_task('{"name": "independent", "step_templates": [
    {"name": "a", "handler_class": "meets"},
    {"name": "b", "handler_class": "meets"},
    {"name": "join", "handler_class": "quick", "depends_on_steps": ["a", "b"]}]}');
SELECT tasker.register_task('{"name": "gate", "step_templates": [{"name": "only", "handler_class": "behind_gate"}]}');
SELECT tasker.register_task('{"name": "second_time", "step_templates": [
    {"name": "only", "handler_class": "second_time", "retry": {"limit": 2, "base_delay": 3600, "max_delay": 36000}}]}');
SELECT tasker.register_task('{"name": "meets", "step_templates": [{"name": "only", "handler_class": "meets"}]}');
SQL

sub answer
{
	my ($name, $sql, $expected) = @_;

	is($node->safe_psql('postgres', $sql), $expected, $name);
	return;
}

sub idle
{
	my ($name) = @_;

	wait_until($node, 'template1', <<'SQL', $name);
SELECT count(*) = 3
FROM pg_stat_activity
WHERE datname = 'postgres' AND backend_type ~ '^tasker (executor|notifier)$' AND state = 'idle' AND wait_event_type = 'Extension'
SQL
	return;
}

idle('the workers have started');

# Independent steps, slow ones, of which the engine does not know yet that they
# are: both run at the same time, in two executors.
my $id = $node->safe_psql('postgres', "SELECT tasker.create_task('independent')");
wait_until($node, 'postgres', "SELECT state = 'complete' FROM tasker.tasks WHERE task_id = $id", 'a task of independent slow steps');
answer('their first run overlaps', <<"SQL", 't|t|t');
SELECT a.started_at < b.finished_at, b.started_at < a.finished_at, a.results -> 'pid' <> b.results -> 'pid'
FROM tasker.workflow_steps AS a
JOIN tasker.workflow_steps AS b USING (task_id)
WHERE task_id = $id AND a.name = 'a' AND b.name = 'b'
SQL
answer('and what needs both comes after both', <<"SQL", 't');
SELECT (SELECT started_at FROM tasker.workflow_steps WHERE task_id = $id AND name = 'join')
       >= (SELECT max(finished_at) FROM tasker.workflow_steps WHERE task_id = $id AND name <> 'join')
SQL

# One task after the other; the executors learn that its handler is fast.
my $single = <<'SQL';
SELECT tasker.create_task('quick') AS id
\gset
SELECT tasker.wait_for_task(:id);
SQL
$node->safe_psql('postgres', $single x 20);

# Tasks that are created together, the first of them slow, as nobody knows yet:
# the others do not wait for it.
my ($gate, @ids) = split /\n/, $node->safe_psql('postgres', <<'SQL');
BEGIN;
SELECT tasker.create_task('gate');
SELECT tasker.create_tasks('quick', array_fill('{}'::jsonb, ARRAY[50]));
COMMIT;
SQL
wait_until($node, 'postgres', 'SELECT bool_and(finished_at IS NOT NULL) FROM tasker.task WHERE task_id IN (' . join(',', @ids) . ')',
	'quick tasks end while a slow one of the same commit runs');
wait_until($node, 'postgres', "SELECT count(*) = 1 FROM tasker._workers() WHERE task_id = $gate", 'that one runs');
answer('and waits at its gate', "SELECT finished_at IS NULL FROM tasker.tasks WHERE task_id = $gate", 't');
$node->safe_psql('postgres', 'INSERT INTO public.gate VALUES (true)');
wait_until($node, 'postgres', "SELECT state = 'complete' FROM tasker.tasks WHERE task_id = $gate", 'it ends');

# Executors share the work.
@ids = split /\n/, $node->safe_psql('postgres', "SELECT tasker.create_tasks('meets', array_fill('{}'::jsonb, ARRAY[4]))");
my $slow = join ',', @ids;
wait_until($node, 'postgres', "SELECT bool_and(state = 'complete') FROM tasker.tasks WHERE task_id IN ($slow)", 'four slow tasks');
answer('two executors share them', "SELECT count(DISTINCT results -> 'pid') FROM tasker.workflow_steps WHERE task_id IN ($slow)", 2);
answer('and start each when one is free', <<"SQL", 't');
SELECT bool_and(together <= 2) AND bool_or(together = 2)
FROM (
    SELECT (SELECT count(*) FROM tasker.workflow_steps AS o
            WHERE o.task_id IN ($slow) AND o.started_at <= s.started_at AND o.finished_at > s.started_at) AS together
    FROM tasker.workflow_steps AS s
    WHERE s.task_id IN ($slow)) AS t
SQL

# From the commit to the start of the handler.  Each task finds the executors
# asleep, so one wake-up that is lost would stop it here.
my @states = split /\n/, $node->safe_psql('postgres', $single x 50);
is_deeply(\@states, [ ('complete') x 50 ], '50 tasks, one after the other');
my ($median, $longest) = split /\|/, $node->safe_psql('postgres', <<'SQL');
WITH latency AS (
    SELECT extract(epoch FROM (s.results ->> 'at')::timestamptz - pg_xact_commit_timestamp(l.xmin)) * 1000 AS ms
    FROM tasker.log AS l
    JOIN tasker.workflow_steps AS s USING (task_id)
    WHERE l.step_no = 0 AND l.to_state = tasker._state_code('task', 'pending')
    ORDER BY l.task_id DESC
    LIMIT 50)
SELECT round(percentile_cont(0.5) WITHIN GROUP (ORDER BY ms)::numeric, 3), round(max(ms), 3)
FROM latency
SQL
note("commit to the handler's start: median $median ms, longest $longest ms");
cmp_ok($median, '>', 0, 'no handler starts before the commit');

# A chain of fast steps is one transaction.  On a busy machine a quick handler
# may pass for a slow one; then once more.
my $transactions;
foreach my $round (1 .. 50)
{
	$id = $node->safe_psql('postgres', <<'SQL');
SELECT tasker.create_task('chain') AS id
\gset
SELECT tasker.wait_for_task(:id) \g /dev/null
\echo :id
SQL
	$transactions = $node->safe_psql('postgres',
		"SELECT count(*), count(DISTINCT transition_id >> 20) FROM tasker.transitions WHERE task_id = $id AND from_state IS NOT NULL");
	last if $transactions eq '10|1';
}
is($transactions, '10|1', 'a chain of fast steps stays in one transaction');

# What is due later comes back by itself: nobody commits anything but the
# setting that moves the clock.
my $retried = $node->safe_psql('postgres', "SELECT tasker.create_task('second_time')");
my $later = $node->safe_psql('postgres', "SELECT tasker.create_task('quick', run_at => tasker.clock() + interval '3 days')");
wait_until($node, 'postgres', "SELECT state = 'waiting_for_retry' FROM tasker.workflow_steps WHERE task_id = $retried",
	'a step waits for its retry');
answer('for two hours, or nearly', <<"SQL", 't');
SELECT next_attempt_at - started_at BETWEEN interval '1 hour 47 minutes' AND interval '2 hours 13 minutes'
FROM tasker.workflow_steps
WHERE task_id = $retried
SQL
answer('a task waits for its time', "SELECT state FROM tasker.tasks WHERE task_id = $later", 'pending');
idle('the executors sleep');

move_clock($node, 3 * 3600);
wait_until($node, 'postgres', "SELECT state = 'complete' FROM tasker.tasks WHERE task_id = $retried", 'three hours on the step is retried');
answer('at its second attempt', "SELECT attempts FROM tasker.workflow_steps WHERE task_id = $retried", '2');
answer('the task still waits', "SELECT state FROM tasker.tasks WHERE task_id = $later", 'pending');
move_clock($node, 4 * 86400);
wait_until($node, 'postgres', "SELECT state = 'complete' FROM tasker.tasks WHERE task_id = $later", 'four days on it runs');

# A server with nothing to do runs no transaction.  Autovacuum is off, whose
# work is not ours; the counters are read from another database, as reading
# them is a transaction, too.
idle('nothing is left to do');
my $seconds = $ENV{TASKER_IDLE_SECONDS} // 15;
rests($node, 'postgres', $seconds, "no transaction in $seconds s of idleness");

$node->stop;
done_testing();
