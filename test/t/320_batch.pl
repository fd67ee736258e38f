# A batch has as many tasks as fit into its time: what does not fit goes back into
# the queue, and that is not to be paid for each task again and again.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskerTest;
use Test::More;

my $TASKS = 2000;

# A tenth of the tasks that a batch may have fit into this time.
my $node = new_server('batch', "tasker.executors = 1\ntasker.batch_budget = '1 ms'\n");
$node->safe_psql('postgres', 'CREATE EXTENSION tasker');
create_handlers($node, 'postgres', busy => <<'SQL');
    PERFORM count(*) FROM generate_series(1, 500);
    RETURN '{}';
SQL
$node->safe_psql('postgres', <<'SQL');
SELECT tasker.register_task('{"name": "busy", "step_templates": [{"name": "only", "handler_class": "busy"}]}');
SELECT tasker.create_task('busy') AS id \gset
SELECT tasker.wait_for_task(:id);
SELECT tasker.deactivate();
SQL
$node->safe_psql('postgres', "SELECT count(*) FROM tasker.create_tasks('busy', array_fill('{}'::jsonb, ARRAY[$TASKS]))");
$node->safe_psql('postgres', 'SELECT tasker.activate()');
wait_until($node, 'postgres', 'SELECT NOT EXISTS (SELECT FROM tasker.queue)', 'the tasks run');

# The executor reports what it counted when it has been idle for a second.
$node->poll_query_until('postgres', <<"SQL") or die 'the executor does not report';
SELECT n_tup_del >= $TASKS FROM pg_stat_all_tables WHERE relid = 'tasker.queue'::regclass
SQL
my $tokens = $node->safe_psql('postgres', "SELECT n_tup_ins FROM pg_stat_all_tables WHERE relid = 'tasker.queue'::regclass");
note("$tokens tokens for $TASKS tasks");
cmp_ok($tokens, '<', 3 * $TASKS, 'few tokens go back into the queue');
is($node->safe_psql('postgres', 'SELECT count(*) FROM tasker.verify()'), 0, 'verify() finds nothing');
$node->stop;

done_testing();
