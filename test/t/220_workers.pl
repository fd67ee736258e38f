# The example's workers, in Node and in C: 10,000 steps, theirs and SQL handlers'
# mixed, while one of the workers is killed again and again.  Nothing is lost, and
# nothing is completed twice.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use ExampleWorkers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskerTest;
use Test::More;
use Time::HiRes qw(time);

use constant TASKS => 2000;
use constant STEPS => 5 * TASKS;
use constant KILLS => 20;
use constant LEASE => 3;    # seconds

foreach my $file (qw(worker.c worker.mjs))
{
	my @lines = split /\n/, slurp_file(worker_source() . "/$file");
	cmp_ok(scalar(@lines), '<', 100, "$file is short");
}

unlike(build_c(), qr/warning/, 'without a warning');
my $without_node = build_node();

my $node = new_server('workers', 'tasker.executors = 2');
$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION tasker;
CREATE FUNCTION public.add_up(step tasker.step_context) RETURNS jsonb
LANGUAGE sql AS $$
    SELECT jsonb_build_object('count', coalesce(sum((d.value ->> 'count')::integer), 0))
    FROM jsonb_each(step.dependencies) AS d
$$;
SET client_min_messages = error;
SELECT tasker.register_handler('add_up', 'public.add_up');
SELECT tasker.register_external_handler('count_words');
SELECT tasker.register_external_handler('count_bytes');
SELECT tasker.register_task('
name: mixed
step_templates:
  - {name: words, handler_class: count_words, retry: {limit: 100}}
  - {name: first, handler_class: add_up}
  - {name: bytes, handler_class: count_bytes, depends_on_steps: [first], retry: {limit: 100}}
  - {name: sum, handler_class: add_up, depends_on_steps: [words, bytes]}
  - {name: again, handler_class: count_words, depends_on_steps: [sum], retry: {limit: 100}}
');
SQL

my @kinds = defined $without_node ? qw(c) : qw(c node);
my %pid;

sub start
{
	my ($kind) = @_;

	$pid{$kind} = start_worker($kind,
		PGHOST => $node->host, PGPORT => $node->port, PGDATABASE => 'postgres',
		WORKER_LEASE => LEASE, WORKER_BOUND => 'yes');
	return;
}

sub open_tasks
{
	return $node->safe_psql('postgres', "SELECT count(*) FROM tasker.tasks WHERE state <> 'complete'");
}

start($_) foreach @kinds;
wait_until($node, 'postgres', sprintf(<<'SQL', scalar @kinds), 'the workers wait for work');
SELECT count(*) = %d
FROM pg_stat_activity
WHERE backend_type = 'client backend'
  AND state = 'idle'
  AND query LIKE '%%tasker.claim_steps(%%'
SQL

# The load comes in parts, so that there is something to do at each kill.
my $rows = TASKS / KILLS;
my $start = time;
my $killed_at_work = 0;
foreach my $kill (1 .. KILLS)
{
	# Node takes its time to start, so it lives longer.
	my $kind = $kill % 3 == 0 ? $kinds[-1] : 'c';

	$node->safe_psql('postgres', <<"SQL");
SELECT tasker.create_tasks('mixed', array_fill(jsonb_build_object('text', repeat('lorem ipsum ', 500)), ARRAY[$rows]))
SQL
	$killed_at_work++ if stop_at_work($node, $kind, $pid{$kind}) > 0;
	end_worker($pid{$kind}, 'KILL');
	start($kind);
}
wait_until($node, 'postgres', "SELECT bool_and(state = 'complete') FROM tasker.tasks", 'every task is complete');
my $took = time - $start;
note(sprintf('%d steps in %.1f s, %d workers killed, %d of them at work', STEPS, $took, KILLS, $killed_at_work));
cmp_ok($killed_at_work, '>=', 1, 'workers were killed in the middle of their work');

# What must hold of all there is.
sub sound
{
	my ($when) = @_;
	my $check = sub {
		my ($query, $expected, $name) = @_;
		is($node->safe_psql('postgres', $query), $expected, "$name$when");
	};

	$check->('SELECT count(*) - count(*) FILTER (WHERE state = \'complete\') FROM tasker.workflow_steps', '0',
		'no step is lost');
	$check->(<<'SQL', '0', 'each step went from in_progress to complete exactly once');
SELECT count(*)
FROM tasker.workflow_steps AS s
LEFT JOIN (SELECT step_id, count(*) AS times
           FROM tasker.transitions
           WHERE from_state = 'in_progress'
             AND to_state = 'complete'
             AND step_id IS NOT NULL
           GROUP BY step_id) AS t USING (step_id)
WHERE t.times IS DISTINCT FROM 1
SQL
	$check->(<<'SQL', '0', 'the results are those of the attempt that completed');
SELECT count(*)
FROM tasker.workflow_steps AS s
JOIN tasker.transitions AS t ON t.step_id = s.step_id
                            AND t.to_state = 'complete'
WHERE s.name IN ('words', 'bytes', 'again')
  AND ((s.results ->> 'attempt')::integer IS DISTINCT FROM t.attempt
       OR t.attempt <> s.attempts)
SQL
	$check->(<<'SQL', '0', 'each attempt started once, and the ones before the last lost their lease');
SELECT count(*)
FROM (SELECT step_id,
             count(*) FILTER (WHERE to_state = 'in_progress') AS started,
             count(DISTINCT attempt) FILTER (WHERE to_state = 'in_progress') AS attempts,
             count(*) FILTER (WHERE metadata ->> 'sqlstate' = 'TK003') AS lost
      FROM tasker.transitions
      WHERE step_id IS NOT NULL
      GROUP BY step_id) AS t
JOIN tasker.workflow_steps AS s USING (step_id)
WHERE t.started <> s.attempts
   OR t.attempts <> s.attempts
   OR t.lost <> s.attempts - 1
SQL
	$check->(<<'SQL', '6000', 'each sum is right');
SELECT DISTINCT results ->> 'count'
FROM tasker.workflow_steps
WHERE name = 'bytes'
SQL
	$check->(<<'SQL', '7000', 'and so is the next');
SELECT DISTINCT results ->> 'count'
FROM tasker.workflow_steps
WHERE name = 'sum'
SQL
	$check->('SELECT count(*) FROM tasker.queue', '0', 'nothing waits');
	$check->("SELECT count(*) FROM tasker.workflow_steps WHERE claimed_by IS NOT NULL OR lease_until IS NOT NULL", '0',
		'nobody holds anything');
	return;
}
is($node->safe_psql('postgres', 'SELECT count(*) FROM tasker.workflow_steps'), STEPS, 'ten thousand steps');
sound('');
cmp_ok($node->safe_psql('postgres', "SELECT count(*) FROM tasker.transitions WHERE metadata ->> 'sqlstate' = 'TK003'"),
	'>', 0, 'the kills cost attempts');

# They come back when the server was gone.
$node->restart('immediate');
wait_until($node, 'postgres', "SELECT count(*) >= 2 FROM pg_stat_activity WHERE backend_type = 'tasker executor'", 'the server is back');
foreach my $kind (@kinds)
{
	my @others = grep { $_ ne $kind } @kinds;
	kill 'STOP', $pid{$_} foreach @others;
	my $id = $node->safe_psql('postgres', "SELECT tasker.create_task('mixed', '{\"text\": \"" . 'lorem ipsum ' x 500 . "\"}')");
	wait_until($node, 'postgres', "SELECT state = 'complete' FROM tasker.tasks WHERE task_id = $id", "the $kind worker connects again by itself");
	kill 'CONT', $pid{$_} foreach @others;
}

# One that sleeps through its lease: the work is done by the other, its own
# result comes too late.
SKIP:
{
	skip "only one kind of worker: $without_node", 1 if defined $without_node;
	my $slept = 0;
	for (1 .. 20)
	{
		$node->safe_psql('postgres', <<'SQL');
SELECT tasker.create_tasks('mixed', array_fill(jsonb_build_object('text', repeat('lorem ipsum ', 500)), ARRAY[100]))
SQL
		$slept = stop_at_work($node, 'node', $pid{node});
		last if $slept > 0;
	}
	cmp_ok($slept, '>', 0, 'a worker falls asleep at work');
	wait_until($node, 'postgres', "SELECT bool_and(state = 'complete') FROM tasker.tasks", 'the other one does its work');
	kill 'CONT', $pid{node};
	$node->safe_psql('postgres', <<'SQL');
SELECT tasker.create_tasks('mixed', array_fill(jsonb_build_object('text', repeat('lorem ipsum ', 500)), ARRAY[100]))
SQL
	wait_until($node, 'postgres', "SELECT bool_and(state = 'complete') FROM tasker.tasks", 'and both go on');
	sound(' after a late result');
}

# Each kind has its share.
foreach my $kind (@kinds)
{
	my $like = worker_like($kind, '%');
	my $share = $node->safe_psql('postgres', "SELECT count(*) FROM tasker.workflow_steps WHERE results ->> 'worker' LIKE '$like'");
	cmp_ok($share, '>', 0, "the $kind worker did some");
	note("$share steps by the $kind worker");
}

# What is at hand is finished when they are told to stop.
foreach my $kind (@kinds)
{
	is(end_worker($pid{$kind}, 'TERM'), 0, "the $kind worker ends when it is told to");
}
is(open_tasks(), '0', 'and leaves nothing behind');

SKIP: { skip "no Node worker: $without_node", 1 if defined $without_node; pass('with Node'); }
$node->stop;
done_testing();
