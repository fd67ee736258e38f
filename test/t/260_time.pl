# A whole task's timeout, and the order in which what waits is run: by priority,
# then age, and not before its time.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskerTest;
use Test::More;

my $node = new_server('time', 'tasker.executors = 1');
install_tasker($node, 'postgres');
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE public.gate (open boolean);
CREATE FUNCTION public.behind_gate(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    WHILE NOT EXISTS (SELECT FROM public.gate) LOOP
        PERFORM pg_sleep(0.01);
    END LOOP;
    RETURN '{}';
END $$;
CREATE FUNCTION public.fails(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$ BEGIN PERFORM tasker.retryable_error('later', interval '2 hours'); RETURN NULL; END $$;
SET client_min_messages = error;
SELECT tasker.register_handler('behind_gate', 'public.behind_gate');
SELECT tasker.register_handler('fails', 'public.fails');
SELECT tasker.register_task('{"name": "gate", "step_templates": [{"name": "only", "handler_class": "behind_gate"}]}');
SELECT tasker.register_task('{"name": "hour", "timeout": 3600, "step_templates": [
    {"name": "a", "handler_class": "quick"},
    {"name": "b", "handler_class": "outside", "depends_on_step": "a"},
    {"name": "c", "handler_class": "quick", "depends_on_step": "b"}]}');
SELECT tasker.register_task('{"name": "retries", "timeout": 3600, "step_templates": [
    {"name": "a", "handler_class": "fails"},
    {"name": "b", "handler_class": "quick", "depends_on_step": "a"}]}');
SELECT tasker.register_task('{"name": "seconds", "timeout": 3, "step_templates": [
    {"name": "a", "handler_class": "quick"},
    {"name": "b", "handler_class": "sleepy", "depends_on_step": "a"},
    {"name": "c", "handler_class": "quick", "depends_on_step": "b"}]}');
SQL
waits_for_workers($node, 'postgres', 1, 'the workers start');

sub query
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

my $offset = 0;

sub hours_pass
{
	my ($hours) = @_;

	$offset += int($hours * 3600);
	move_clock($node, $offset);
	return;
}

sub becomes
{
	my ($id, $state, $name) = @_;

	wait_until($node, 'postgres', "SELECT state = '$state' FROM tasker.tasks WHERE task_id = $id", $name);
	return;
}

sub steps
{
	my ($id) = @_;

	return query("SELECT string_agg(name || ' ' || state, ', ' ORDER BY name) FROM tasker.workflow_steps WHERE task_id = $id");
}

sub steps_become
{
	my ($id, $steps, $name) = @_;

	wait_until($node, 'postgres', "SELECT string_agg(name || ' ' || state, ', ' ORDER BY name) = '$steps' FROM tasker.workflow_steps WHERE task_id = $id", $name);
	return;
}

sub claim
{
	my ($id) = @_;

	wait_until($node, 'postgres', "SELECT count(*) = 1 FROM tasker.queue WHERE task_id = $id AND lane >= 100", 'a step for workers outside');
	return query("SELECT step_id FROM tasker.claim_steps('w', lease => '5 hours') WHERE task_id = $id");
}

sub sound
{
	my ($name) = @_;

	is(query('SELECT * FROM tasker.verify()'), '', "$name: verify() finds nothing");
	return;
}

# A chain that is cut in its middle, in the middle of a handler.
my $id = query("SELECT tasker.create_task('seconds')");
becomes($id, 'error', 'a handler outlives its task\'s time');
is(steps($id), 'a complete, b error, c pending', 'what was done stays, the rest stays pending');
is(query("SELECT error ->> 'message' FROM tasker.tasks WHERE task_id = $id"), 'task timed out after 3 s', 'it says so');
wait_until($node, 'postgres', "SELECT NOT EXISTS (SELECT FROM tasker.queue WHERE task_id = $id)", 'nothing of it waits');

# A worker outside holds a step at the deadline.
$id = query("SELECT tasker.create_task('hour')");
my $step = claim($id);
hours_pass(0.9);
is(steps($id), 'a complete, b in_progress, c pending', 'not before its time');
hours_pass(0.2);
becomes($id, 'error', 'a lease outlives its task\'s time');
is(steps($id), 'a complete, b error, c pending', 'its step has failed');
my ($ret, $out, $err) = $node->psql('postgres', "\\set VERBOSITY sqlstate\nSELECT tasker.complete_step($step, '{}')");
like($err, qr/TK003/, 'the worker is refused');
sound('lease');

# A retry gives the time anew.
query("SELECT tasker.retry_task($id)");
$step = claim($id);
hours_pass(0.9);
is(query("SELECT state FROM tasker.tasks WHERE task_id = $id"), 'in_progress', 'retried, it has its whole time');
query("SELECT tasker.complete_step($step, '{}')");
becomes($id, 'complete', 'and ends well');
is(query("SELECT count(*) FROM tasker.queue WHERE task_id = $id"), '0', 'and leaves no deadline behind');
hours_pass(1);
sound('retried');

# A pause does not stop the clock.
$id = query("SELECT tasker.create_task('hour')");
$step = claim($id);
query("SELECT tasker.pause_task($id)");
hours_pass(1.1);
becomes($id, 'error', 'a paused task\'s time is up');
is(steps($id), 'a complete, b error, c pending', 'with its lease');
sound('paused');

# Paused with nothing in progress.
$id = query("SELECT tasker.create_task('hour')");
steps_become($id, 'a complete, b pending, c pending', 'a step is ready');
query("SELECT tasker.pause_task($id)");
hours_pass(0.5);
query("SELECT tasker.resume_task($id)");
hours_pass(0.6);
becomes($id, 'error', 'the time of the pause counts');
is(steps($id), 'a complete, b pending, c pending', 'what had not begun stays pending');
sound('resumed');
query("SELECT tasker.retry_task($id)");
$step = claim($id);
query("SELECT tasker.complete_step($step, '{}')");
becomes($id, 'complete', 'and goes on after a retry');

# A retry that would come too late.
$id = query("SELECT tasker.create_task('retries')");
steps_become($id, 'a waiting_for_retry, b pending', 'a step waits for its retry');
hours_pass(1.1);
becomes($id, 'error', 'its task\'s time is up before');
is(steps($id), 'a error, b pending', 'the step has failed');
is(query("SELECT count(*) FROM tasker.queue WHERE task_id = $id"), '0', 'and waits no more');
sound('a retry');

# The time counts from the start, not from the creation.
$id = query("SELECT tasker.create_task('hour', run_at => tasker.clock() + interval '3 hours')");
hours_pass(2);
is(query("SELECT state FROM tasker.tasks WHERE task_id = $id"), 'pending', 'run_at holds a task back');
hours_pass(1.1);
claim($id);
is(query("SELECT state FROM tasker.tasks WHERE task_id = $id"), 'in_progress', 'and its time begins then');
hours_pass(1.1);
becomes($id, 'error', 'and is up an hour later');

# By priority, then by age: one executor, and a backlog of one transaction.
my $gate = query("SELECT tasker.create_task('gate')");
wait_until($node, 'postgres', 'SELECT count(*) = 1 FROM tasker._workers() WHERE task_id IS NOT NULL AND task_id <> 0', 'the executor is busy');
my @ids = split /\n/, query(<<'SQL');
SELECT tasker.create_task('quick', priority => p) FROM unnest(ARRAY[0, 5, -3, 5, 0, 9, -3, 0]) WITH ORDINALITY AS p (p, n) ORDER BY n
SQL
my $last = query("SELECT tasker.create_task('quick', priority => 7, run_at => tasker.clock() + interval '1 hour')");
query("SELECT tasker.update_task($ids[6], priority => 20)");
query("SELECT tasker.update_task($ids[5], priority => -20)");
query('INSERT INTO public.gate VALUES (true)');
my $list = join ',', @ids;
wait_until($node, 'postgres', "SELECT bool_and(state = 'complete') FROM tasker.tasks WHERE task_id IN ($list)", 'a backlog is run');
is(query("SELECT string_agg(task_id::text, ' ' ORDER BY started_at) FROM tasker.task WHERE task_id IN ($list)"),
	join(' ', @ids[ 6, 1, 3, 0, 4, 7, 2, 5 ]), 'by priority, as it was changed, then by age');
is(query("SELECT state FROM tasker.tasks WHERE task_id = $last"), 'pending', 'run_at holds one back');

# What becomes due stands where its priority says.
query('TRUNCATE public.gate');
query("SELECT tasker.create_task('gate')");
wait_until($node, 'postgres', 'SELECT count(*) = 1 FROM tasker._workers() WHERE task_id IS NOT NULL AND task_id <> 0', 'the executor is busy again');
@ids = split /\n/, query(<<'SQL');
SELECT tasker.create_task('quick', priority => p) FROM unnest(ARRAY[6, 8]) WITH ORDINALITY AS p (p, n) ORDER BY n
SQL
hours_pass(1.1);
query('INSERT INTO public.gate VALUES (true)');
becomes($last, 'complete', 'an hour on it runs');
$list = join ',', @ids, $last;
wait_until($node, 'postgres', "SELECT bool_and(state = 'complete') FROM tasker.tasks WHERE task_id IN ($list)", 'and the others do');
is(query("SELECT string_agg(task_id::text, ' ' ORDER BY started_at) FROM tasker.task WHERE task_id IN ($list)"),
	join(' ', $ids[1], $last, $ids[0]), 'in the order of their priorities');
sound('priorities');

$node->stop;
done_testing();
