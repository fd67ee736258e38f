# tasker.set_max_in_progress(): never more steps at once than it says, by
# executors and workers outside together, whatever dies; and nothing stays
# behind.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskerTest;
use Test::More;

my $node = new_server('limits', "tasker.executors = 4\ntasker.max_crashes = 5");
install_tasker($node, 'postgres');
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE public.gate (open boolean);
CREATE FUNCTION public.nap(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.05); RETURN '{}'; END $$;
CREATE FUNCTION public.behind_gate(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    WHILE NOT EXISTS (SELECT FROM public.gate) LOOP
        PERFORM pg_sleep(0.01);
    END LOOP;
    RETURN '{}';
END $$;
SET client_min_messages = error;
SELECT tasker.register_handler('nap', 'public.nap');
SELECT tasker.register_handler('behind_gate', 'public.behind_gate');
SELECT tasker.register_task('{"name": "nap", "step_templates": [{"name": "only", "handler_class": "nap"}]}');
SELECT tasker.register_task('{"name": "nap", "namespace_name": "other", "step_templates": [{"name": "only", "handler_class": "nap"}]}');
SELECT tasker.register_task('{"name": "gate", "step_templates": [{"name": "only", "handler_class": "behind_gate"}]}');
SELECT tasker.register_task('{"name": "outside", "namespace_name": "other", "step_templates": [{"name": "only", "handler_class": "outside"}]}');
-- How many steps of these tasks were in progress when each of them began.
CREATE FUNCTION public.most_at_once(tasks bigint[]) RETURNS bigint
LANGUAGE sql AS $$
    SELECT max(n) FROM (
        SELECT sum(d) OVER (ORDER BY at, d) AS n
        FROM tasker.step,
             LATERAL (VALUES (started_at, 1), (finished_at, -1)) AS e (at, d)
        WHERE task_id = ANY (tasks)) AS s
$$;
SQL
waits_for_workers($node, 'postgres', 4, 'the workers start');

sub query
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# Creates so many tasks; returns their ids as an array's text.
sub tasks
{
	my ($name, $count, $more) = @_;

	$more //= '';
	return query("SELECT array_agg(id) FROM tasker.create_tasks('$name', array_fill('{}'::jsonb, ARRAY[$count])$more) AS id");
}

sub all_complete
{
	my ($tasks, $name) = @_;

	wait_until($node, 'postgres', "SELECT bool_and(state = 'complete') FROM tasker.tasks WHERE task_id = ANY ('$tasks')", $name);
	return;
}

sub most
{
	my ($tasks) = @_;

	return query("SELECT public.most_at_once('$tasks')");
}

sub sound
{
	my ($name) = @_;

	is(query('SELECT * FROM tasker.verify()'), '', "$name: verify() finds nothing");
	return;
}

sub nothing_parked
{
	my ($name) = @_;

	is(query('SELECT count(*) FROM tasker.queue WHERE lane <= -1000'), '0', "$name: nothing is parked");
	sound($name);
	return;
}

sub running
{
	my ($tasks, $count, $name) = @_;

	wait_until($node, 'postgres', "SELECT count(*) = $count FROM tasker._workers() WHERE task_id = ANY ('$tasks')", $name);
	return;
}

# By handler.
query("SELECT tasker.set_max_in_progress(2, handler => 'nap')");
my $tasks = tasks('nap', 30);
all_complete($tasks, 'thirty steps under a limit of 2');
is(most($tasks), '2', 'two at once, and no more');
nothing_parked('by handler');

# By namespace, and by both: whichever is lower.
query("SELECT tasker.set_max_in_progress(3, handler => 'nap')");
query("SELECT tasker.set_max_in_progress(1, namespace => 'other')");
$tasks = tasks('nap', 15);
my $other = tasks('nap', 15, ", namespace => 'other'");
all_complete($tasks, 'a limit for the handler');
all_complete($other, 'and one for a namespace');
is(most($other), '1', 'one at once in the namespace');
cmp_ok(query("SELECT public.most_at_once('$tasks'::bigint[] || '$other'::bigint[])"), '<=', 3, 'three of the handler');
nothing_parked('several limits');
query("SELECT tasker.set_max_in_progress(NULL, namespace => 'other')");
query("SELECT tasker.set_max_in_progress(2, namespace => 'other', handler => 'nap')");
query("SELECT tasker.set_max_in_progress(NULL, handler => 'nap')");
$other = tasks('nap', 15, ", namespace => 'other'");
all_complete($other, 'a limit for a handler in a namespace');
is(most($other), '2', 'two of it at once');
query("SELECT tasker.set_max_in_progress(NULL, namespace => 'other', handler => 'nap')");
nothing_parked('both');

# A backlog of fast steps costs no transaction each.
query("SELECT tasker.set_max_in_progress(1, handler => 'quick')");
all_complete(tasks('quick', 1), 'one, to know that they are fast') for (1 .. 3);
$tasks = tasks('quick', 2000);
wait_until($node, 'postgres', "SELECT bool_and(state = 'complete') FROM tasker.tasks WHERE task_id = ANY ('$tasks')", 'two thousand under a limit of 1');
my $transactions = query("SELECT count(DISTINCT transition_id >> 20) FROM tasker.transitions WHERE task_id = ANY ('$tasks') AND from_state IS NOT NULL");
cmp_ok($transactions, '<', 400, "in few transactions: $transactions");
nothing_parked('fast steps');

# Limit 0 starts nothing; what is parked goes when it is lifted, raised or
# lowered.
query("SELECT tasker.set_max_in_progress(0, handler => 'behind_gate')");
$tasks = tasks('gate', 8);
wait_until($node, 'postgres', "SELECT count(*) = 8 FROM tasker.queue WHERE lane < -1000 AND task_id = ANY ('$tasks')", 'a limit of 0 parks all');
is(query("SELECT count(*) FROM tasker.step WHERE task_id = ANY ('$tasks')"), '0', 'and starts nothing');
sound('parked');
query("SELECT tasker.set_max_in_progress(3, handler => 'behind_gate')");
running($tasks, 3, 'three start when it is raised to 3');
query("SELECT tasker.set_max_in_progress(1, handler => 'behind_gate')");
# The lowest slots are free again, and two above the limit are still held.
my @pids = split /\n/, query("SELECT w.pid FROM tasker._workers() AS w WHERE task_id = ANY ('$tasks') ORDER BY since");
query("SELECT pg_terminate_backend($pids[0])");
wait_until($node, 'postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pids[0]", 'one of them is killed');
waits_for_workers($node, 'postgres', 4, 'its executor comes back');
wait_until($node, 'postgres', "SELECT count(*) = 6 FROM tasker.queue WHERE lane < -1000 AND task_id = ANY ('$tasks')", 'lowered to 1, its step waits');
running($tasks, 2, 'and the other two go on');
query("SELECT tasker.cancel_task(task_id, 'test') FROM tasker.queue WHERE lane < -1000 ORDER BY rank, due LIMIT 1");
query('INSERT INTO public.gate VALUES (true)');
wait_until($node, 'postgres', "SELECT bool_and(state IN ('complete', 'cancelled')) FROM tasker.tasks WHERE task_id = ANY ('$tasks')", 'all end');
nothing_parked('raised and lowered');
query("TRUNCATE public.gate; SELECT tasker.set_max_in_progress(0, handler => 'behind_gate')");
$tasks = tasks('gate', 4);
wait_until($node, 'postgres', "SELECT count(*) = 4 FROM tasker.queue WHERE lane < -1000", 'parked');
query("SELECT tasker.set_max_in_progress(NULL, handler => 'behind_gate')");
running($tasks, 4, 'lifted, all run');
query('INSERT INTO public.gate VALUES (true)');
all_complete($tasks, 'and end');
nothing_parked('lifted');

# The one that holds the limit is killed and cancelled: the others do not wait
# for it.
query("TRUNCATE public.gate; SELECT tasker.set_max_in_progress(1, handler => 'behind_gate')");
$tasks = tasks('gate', 3);
wait_until($node, 'postgres', "SELECT count(*) = 2 FROM tasker.queue WHERE lane < -1000", 'two wait for the first');
my ($pid, $holder) = split /\|/, query("SELECT pid, task_id FROM tasker._workers() WHERE task_id = ANY ('$tasks')");
my $canceller = session($node, 'postgres');
$canceller->query_until(qr/begun/, "\\echo begun\nSELECT tasker.cancel_task($holder, 'test');\n");
query("SELECT pg_terminate_backend($pid)");
wait_until($node, 'postgres', "SELECT state = 'cancelled' FROM tasker.tasks WHERE task_id = $holder", 'killed and cancelled');
$canceller->quit;
running($tasks, 1, 'the next one runs');
waits_for_workers($node, 'postgres', 4, 'all executors are there');

# The server crashes in its middle.
($pid) = split /\|/, query("SELECT pid FROM tasker._workers() WHERE task_id = ANY ('$tasks')");
kill 'KILL', $pid;
wait_until($node, 'postgres', "SELECT pg_postmaster_start_time() IS NOT NULL AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $pid)", 'a crash');
waits_for_workers($node, 'postgres', 4, 'the executors come back');
running($tasks, 1, 'one runs again');
query('INSERT INTO public.gate VALUES (true)');
wait_until($node, 'postgres', "SELECT bool_and(state IN ('complete', 'cancelled')) FROM tasker.tasks WHERE task_id = ANY ('$tasks')", 'both end');
is(query("SELECT bool_and(a.finished_at <= b.started_at) FROM tasker.step AS a JOIN tasker.step AS b ON b.started_at > a.started_at WHERE a.task_id = ANY ('$tasks') AND b.task_id = ANY ('$tasks') AND a.state = 3 AND b.state = 3"),
	't', 'one after the other');
nothing_parked('a crash');

# Workers outside: leases count, and are given back however they end.
query("SELECT tasker.set_max_in_progress(2, handler => 'outside')");
$tasks = tasks('outside', 8);
wait_until($node, 'postgres', "SELECT count(*) = 8 FROM tasker.queue AS q JOIN tasker.handler AS h ON h.handler_id = q.lane WHERE h.name = 'outside'", 'eight steps for workers outside');
sub claim
{
	my ($worker, $more) = @_;

	$more //= '';
	return split /\n/, query("SELECT step_id FROM tasker.claim_steps('$worker', max_steps => 5, lease => '1 day'$more)");
}
my @steps = claim('a');
is(scalar @steps, 2, 'two leases under a limit of 2');
is(scalar claim('b'), 0, 'and no third');
sound('leases');
query("SELECT tasker.complete_step($steps[0], '{}', worker => 'a')");
my @more = claim('b');
is(scalar @more, 1, 'completed: one more');
query("SELECT tasker.fail_step($steps[1], jsonb_build_object('message', 'no'), retryable => false, worker => 'a')");
@steps = claim('c');
is(scalar @steps, 1, 'failed: one more');
query("SELECT tasker.heartbeat('b', ARRAY[$more[0]], lease => '1 ms')");
wait_until($node, 'postgres', "SELECT state = 'waiting_for_retry' OR state = 'error' FROM tasker.workflow_steps WHERE step_id = $more[0]", 'a lease runs out');
is(scalar claim('d'), 1, 'and makes room for one');

# Claims that are not committed count already, and a rollback gives them back.
query("SELECT tasker.set_max_in_progress(4, handler => 'outside')");
my $session = session($node, 'postgres');
$session->query_safe('BEGIN');
is($session->query_safe("SELECT count(*) FROM tasker.claim_steps('e', max_steps => 1, lease => '1 day')"), '1', 'claimed, not committed');
is(scalar claim('f'), 1, 'one is left of four');
is(scalar claim('f'), 0, 'and no more');
$session->query_safe('ROLLBACK');
is(scalar claim('f'), 1, 'rolled back, it is free');
$session->quit;
query("SELECT tasker.complete_step(step_id, '{}') FROM tasker.workflow_steps WHERE state = 'in_progress'");

# Steps that a limit refuses do not keep back those behind them.
query("SELECT tasker.set_max_in_progress(NULL, handler => 'outside')");
query("SELECT tasker.set_max_in_progress(0, namespace => 'default')");
tasks('outside', 2);
$other = tasks('outside', 2, ", namespace => 'other'");
wait_until($node, 'postgres', "SELECT count(*) = 2 FROM tasker.queue AS q JOIN tasker.handler AS h ON h.handler_id = q.lane WHERE h.name = 'outside' AND q.task_id = ANY ('$other')", 'steps of two namespaces');
is(query("SELECT count(*) FROM tasker.claim_steps('g', max_steps => 2, lease => '1 day') WHERE task_id = ANY ('$other')"), '2', 'the namespace that is free gives its own');
query("SELECT tasker.complete_step(step_id, '{}') FROM tasker.workflow_steps WHERE state = 'in_progress'");

# Executors and leases together: in a namespace with a limit of 3.
query("TRUNCATE public.gate; SELECT tasker.set_max_in_progress(3, namespace => 'default')");
my @held = claim('h', ', namespaces => ARRAY[\'default\']');
is(scalar @held, 3, 'three leases');
$tasks = tasks('gate', 3);
wait_until($node, 'postgres', "SELECT count(*) = 3 FROM tasker.queue WHERE lane < -1000 AND task_id = ANY ('$tasks')", 'the executors wait');
query("SELECT tasker.complete_step($held[0], '{}')");
running($tasks, 1, 'one lease completed, one step runs');
is(scalar claim('i', ', namespaces => ARRAY[\'default\']'), 0, 'no lease beside it');
query('INSERT INTO public.gate VALUES (true)');
all_complete($tasks, 'the rest runs when it has ended');
is(scalar claim('i', ', namespaces => ARRAY[\'default\']'), 1, 'and then there is room for a lease');
query("SELECT tasker.set_max_in_progress(NULL, namespace => 'default')");
query("SELECT tasker.cancel_task(task_id, 'test') FROM tasker.tasks WHERE NOT (state = ANY ('{complete,cancelled,error}'))");
nothing_parked('leases');

# The slot of a transaction that runs a task in place is free when it ends.
query("SELECT tasker.set_max_in_progress(1, handler => 'quick')");
$session = session($node, 'postgres');
$session->query_safe('BEGIN');
$session->query_safe("SELECT tasker.run_task('quick')");
$tasks = tasks('quick', 5);
wait_until($node, 'postgres', "SELECT count(*) = 5 FROM tasker.queue WHERE lane < -1000 AND task_id = ANY ('$tasks')", 'five wait for a session');
$session->query_safe('ROLLBACK');
all_complete($tasks, 'and run when it has rolled back');
$session->quit;
nothing_parked('in place');

$node->stop;
done_testing();
