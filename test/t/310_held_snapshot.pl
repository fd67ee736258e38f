# Somebody holds an old snapshot, so that nothing that was deleted since goes away:
# claiming a task costs the same all the same, and nothing in the queue is
# overlooked.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskerTest;
use Test::More;

# Tokens claimed under the snapshot; buffers that a task may touch behind them.
my $DEAD = 30_000;
my $BUFFERS = 150;

# Without autovacuum, so that nothing but the snapshot decides.
my $node = new_server('held_snapshot', "autovacuum = off\ntasker.executors = 1\n");
$node->safe_psql('postgres', 'CREATE EXTENSION tasker');
create_handlers($node, 'postgres', quick => "    RETURN '{}';\n");
$node->safe_psql('postgres', <<'SQL');
SELECT tasker.register_task('{"name": "quick", "step_templates": [{"name": "only", "handler_class": "quick"}]}');
SQL

sub run_tasks
{
	my ($count) = @_;

	$node->safe_psql('postgres', "SELECT count(*) FROM tasker.create_tasks('quick', array_fill('{}'::jsonb, ARRAY[$count]))");
	wait_until($node, 'postgres', 'SELECT NOT EXISTS (SELECT FROM tasker.queue WHERE lane >= 0)', "$count tasks run");
	return;
}

# Buffers touched in the database, as far as its processes have reported them;
# they do so when they have been idle for a second.
sub buffers
{
	my $seen = -1;
	my $now = 0;

	while ($now != $seen)
	{
		$seen = $now;
		$node->poll_query_until('postgres', <<'SQL') or die 'the executor does not come to rest';
SELECT bool_and(state = 'idle' AND state_change < clock_timestamp() - interval '1.5 s')
FROM pg_stat_activity
WHERE backend_type = 'tasker executor'
SQL
		$now = $node->safe_psql('postgres', <<'SQL');
SELECT heap_blks_hit + heap_blks_read + idx_blks_hit + idx_blks_read
FROM pg_statio_all_tables
WHERE relid = 'tasker.queue'::regclass
SQL
	}
	return $now;
}

# Buffers of the queue for a task that comes alone.
sub buffers_alone
{
	my $tasks = 100;
	my $from = buffers();

	$node->safe_psql('postgres', join "\n", map { "SELECT tasker.create_task('quick') AS id \\gset\nSELECT tasker.wait_for_task(:id);" } 1 .. $tasks);
	return (buffers() - $from) / $tasks;
}

my $before = buffers_alone();
my $holder = session($node, 'postgres');
$holder->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1;');
run_tasks($DEAD);

# What is created early and committed late, and what goes first though it came
# last.
my $late = session($node, 'postgres');
$late->query_safe('BEGIN;');
my ($late_id) = $late->query_safe("SELECT tasker.create_task('quick');") =~ /(\d+)/;
run_tasks(1000);
my $after = buffers_alone();
note(sprintf 'buffers of the queue for a task alone: %.1f, and %.1f behind %d dead tokens', $before, $after, $DEAD);
cmp_ok($after, '<', $BUFFERS, 'a claim does not go over all that was claimed since the snapshot');

$late->query_safe('COMMIT;');
wait_until($node, 'postgres', "SELECT state = 'complete' FROM tasker.tasks WHERE task_id = $late_id", 'a task that commits late is found');

# Again and again, so that it does not depend on when the whole lane is read.
foreach my $round (1 .. 20)
{
	$late->query_safe("BEGIN; SELECT tasker.create_task('quick');");
	$node->safe_psql('postgres', "SELECT tasker.create_task('quick') AS id \\gset\nSELECT tasker.wait_for_task(:id);");
	$late->query_safe('COMMIT;');
}
wait_until($node, 'postgres', 'SELECT NOT EXISTS (SELECT FROM tasker.queue)', 'and so is each of twenty');
my $urgent = $node->safe_psql('postgres', "SELECT tasker.create_task('quick', priority => 9)");
wait_until($node, 'postgres', "SELECT state = 'complete' FROM tasker.tasks WHERE task_id = $urgent", 'so is one that goes first');
is($node->safe_psql('postgres', 'SELECT count(*) FROM tasker.queue'), 0, 'nothing is left');
is($node->safe_psql('postgres', 'SELECT count(*) FROM tasker.verify()'), 0, 'verify() finds nothing');

# Asleep again: what was passed by has been looked at, and nobody looks further.
$holder->query_safe('COMMIT;');
$holder->quit;
$late->quit;
$node->stop;

done_testing();
