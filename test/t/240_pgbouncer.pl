# Workers behind PgBouncer in transaction mode, where each call may be another
# server session's: they lose nothing, with no doorbell either.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use ExampleWorkers;
use Pooler;
use PostgreSQL::Test::Utils;
use TaskerTest;
use Test::More;
use Time::HiRes qw(time usleep);

plan skip_all => 'there is no pgbouncer' if !Pooler::is_there();

my $node = new_server('pooled', 'tasker.executors = 2');
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
SELECT tasker.register_external_handler('slow');
SELECT tasker.register_task('
name: pooled
step_templates:
  - {name: words, handler_class: count_words, retry: {limit: 100}}
  - {name: sum, handler_class: add_up, depends_on_steps: [words]}');
SELECT tasker.register_task('{"name": "slow", "step_templates": [{"name": "only", "handler_class": "slow"}]}');
SQL

my $pooler = Pooler->new($node, $ENV{PGUSER} // getpwuid($>));
$pooler->start;

sub ask { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

# A client of the pooler's.
sub client
{
	return session($node, 'postgres', extra_params => [ '-d', $pooler->connstr ]);
}

sub ready
{
	my ($count) = @_;

	wait_until($node, 'postgres', "SELECT count(*) = $count FROM tasker.queue WHERE lane >= 100", 'steps are ready');
	return;
}

# ---- a claim, its heartbeat and its completion, each by another server session
my $id = ask("SELECT tasker.create_task('slow')");
my $step = $id << 14 | 1;
my @clients = map { client() } 1 .. 3;
my @calls = (
	"tasker.claim_steps('w', ARRAY['slow'])",
	"tasker.heartbeat('w', ARRAY[$step]) AS h (step_id)",
	"tasker.complete_steps(ARRAY[$step], ARRAY['{}'::jsonb], 'w') AS c (step_id)");
my %session;
ready(1);
foreach my $i (0 .. 2)
{
	my ($pid, $got) = split /\|/, $clients[$i]->query_safe("SELECT pg_backend_pid(), step_id FROM $calls[$i]");
	is($got, $step, $calls[$i]);
	$session{$pid} = 1;
	# Who stays in a transaction keeps the session.
	$clients[$i]->query_safe('BEGIN; SELECT 1') if $i < 2;
}
is(scalar(keys %session), 3, 'by three sessions');
is(ask("SELECT tasker.wait_for_task($id)"), 'complete', 'the task is complete');
$clients[$_]->query_safe('COMMIT') foreach 0, 1;

# ---- bound_to_session: the server session is the pooler's, not the worker's
$id = ask("SELECT tasker.create_task('slow')");
$step = $id << 14 | 1;
ready(1);
is($clients[0]->query_safe("SELECT step_id FROM tasker.claim_steps('w', lease => '1 day', bound_to_session => true)"), $step, 'a claim bound to the session');
$_->quit foreach @clients;
is(ask("SELECT state, claimed_by FROM tasker.workflow_steps WHERE step_id = $step"), 'in_progress|w', 'it outlives the worker');
$pooler->stop;
wait_until($node, 'postgres', "SELECT state = 'waiting_for_retry' FROM tasker.workflow_steps WHERE step_id = $step",
	'and ends with the session of the pooler');
ask("SELECT tasker.cancel_task($id)");

# From here on the pooler changes its sessions every two seconds.
$pooler->set("server_lifetime = 2\n");
$pooler->start;

# ---- workers without the doorbell, killed one after the other, and the pooler with them
build_c();
my $start = time;
ask(<<'SQL');
SELECT tasker.create_tasks('pooled',
                           array_fill(jsonb_build_object('text', repeat('lorem ipsum ', 500)), ARRAY[100]),
                           run_at => tasker.clock() + part * interval '300 ms')
FROM generate_series(1, 20) AS part
SQL
my %environment = (
	PGHOST => $pooler->{sockets}, PGPORT => $pooler->{port}, PGDATABASE => 'postgres', PGUSER => $pooler->{role},
	WORKER_LEASE => 3, WORKER_LISTEN => 'no');
my @pids = map { start_worker('c', %environment) } 1 .. 4;
my $kills = 0;
while (ask("SELECT count(*) FROM tasker.tasks WHERE name = 'pooled' AND state <> 'complete'") > 0 && time - $start < 600)
{
	if ($kills < 8)
	{
		stop_at_work($node, 'c', $pids[0]) if $kills % 2 == 0;
		end_worker(shift @pids, 'KILL');
		push @pids, start_worker('c', %environment);
		$kills++;
	}
	if ($kills == 4)
	{
		$pooler->stop;
		$pooler->start;
	}
	usleep(500_000);
}
note(sprintf('4,000 steps in %.1f s', time - $start));
is(ask("SELECT state, count(*) FROM tasker.tasks WHERE name = 'pooled' GROUP BY state"), 'complete|2000', 'every task is complete');
is(ask(<<'SQL'), '4000|1|1', 'each step once');
SELECT count(*), min(times), max(times)
FROM (SELECT s.step_id, count(t.step_id) AS times
      FROM tasker.workflow_steps AS s
      JOIN tasker.tasks AS k ON k.task_id = s.task_id
                            AND k.name = 'pooled'
      LEFT JOIN tasker.transitions AS t ON t.step_id = s.step_id
                                       AND t.from_state = 'in_progress'
                                       AND t.to_state = 'complete'
      GROUP BY s.step_id) AS c
SQL
is(ask(<<'SQL'), '0', 'with the results of the attempt that completed it');
SELECT count(*)
FROM tasker.workflow_steps AS s
JOIN tasker.transitions AS t ON t.step_id = s.step_id
                            AND t.to_state = 'complete'
WHERE s.name = 'words'
  AND ((s.results ->> 'attempt')::integer IS DISTINCT FROM t.attempt
       OR t.attempt <> s.attempts)
SQL
is(ask('SELECT count(*) FROM tasker.queue'), '0', 'nothing is left over');
is(end_worker($_, 'TERM'), 0, 'a worker ends when it is told to') foreach @pids;
$pooler->stop;

$node->stop;
done_testing();
