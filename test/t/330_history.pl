# The history of one task is found without reading those of all others, though
# nothing vacuums the log.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskerTest;
use Test::More;

# Tasks, and buffers that their log has at least, and that a search may touch.
my $TASKS = 30_000;
my $LOG = 500;
my $BUFFERS = 100;

my $node = new_server('history', "autovacuum = off\n");
$node->safe_psql('postgres', 'CREATE EXTENSION tasker');
create_handlers($node, 'postgres', quick => "    RETURN '{}';\n");
$node->safe_psql('postgres', <<"SQL");
SELECT tasker.register_task('{"name": "quick", "step_templates": [{"name": "only", "handler_class": "quick"}]}');
SELECT count(*) FROM tasker.create_tasks('quick', array_fill('{}'::jsonb, ARRAY[$TASKS]));
SQL
wait_until($node, 'postgres', 'SELECT NOT EXISTS (SELECT FROM tasker.queue)', 'the tasks run');
my $pages = $node->safe_psql('postgres', "SELECT pg_relation_size('tasker.log') / 8192");
cmp_ok($pages, '>', $LOG, "their log has $pages pages");

sub buffers
{
	my $plan = decode_json($node->safe_psql('postgres', <<'SQL'))->[0]{Plan};
SET enable_seqscan = off;
EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, FORMAT JSON)
SELECT * FROM tasker.transitions WHERE task_id = 15000;
SQL

	return $plan->{'Shared Hit Blocks'} + $plan->{'Shared Read Blocks'};
}

# The notifier sees to it behind a round, once a second: so there have to be
# rounds.
my $buffers;
foreach my $round (1 .. 400)
{
	$node->safe_psql('postgres', "SELECT tasker.create_task('quick') AS id \\gset\nSELECT tasker.wait_for_task(:id);");
	$buffers = buffers();
	last if $buffers < $BUFFERS;
}
cmp_ok($buffers, '<', $BUFFERS, 'the history of one is found by the index');
is($node->safe_psql('postgres', 'SELECT count(*) FROM tasker.transitions WHERE task_id = 15000'), 5, 'and is whole');
$node->stop;

done_testing();
