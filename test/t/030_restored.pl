# Restored and copied databases: the engine stays stopped until it is told that
# nobody else does the same work.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskerTest;
use Test::More;

my $node = new_server('origin', 'tasker.executors = 0');
my $dump = $node->basedir . '/dump.sql';
my $task;
my $archive = $node->basedir . '/dump.custom';

# The state of the one task that is pending in the dump.
sub task_is
{
	my ($server, $database, $state, $name) = @_;

	is($server->safe_psql($database, "SELECT state FROM tasker.tasks WHERE task_id = $task"), $state, $name);
	return;
}

sub health
{
	my ($server, $database) = @_;

	return $server->safe_psql($database, "SELECT tasker.health_check() #>> '{engine,state}'");
}

# The original has some history, and a task that waits to be run.
$node->safe_psql('postgres', 'CREATE DATABASE original');
install_tasker($node, 'original');
$node->safe_psql('original', <<'SQL');
SELECT tasker.create_task('quick') FROM generate_series(1, 2);
-- Far ahead of any other server.
DO $$ BEGIN FOR i IN 1 .. 5000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$;
SQL
$task = $node->safe_psql('original', "SELECT tasker.create_task('quick')");
$node->command_ok([ 'pg_dump', '-f', $dump, 'original' ], 'dump as text');
$node->command_ok([ 'pg_dump', '-Fc', '-f', $archive, 'original' ], 'dump as an archive');
$node->safe_psql('postgres', 'CREATE DATABASE copied TEMPLATE original');

# Restored beside it.
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $dump, 'restored' ], 'restore from text');
$node->safe_psql('postgres', 'CREATE DATABASE archived');
$node->command_ok([ 'pg_restore', '-e', '-d', 'archived', $archive ], 'restore from the archive');
$node->append_conf('postgresql.conf', 'tasker.executors = 2');
$node->reload;
for my $database ('original', 'restored', 'archived', 'copied')
{
	waits_for_workers($node, $database, 2, "$database: workers");
}
is($node->safe_psql('original', "SELECT tasker.wait_for_task($task)"), 'complete', 'the original runs its task');
for my $database ('restored', 'archived', 'copied')
{
	is(health($node, $database), 'stopped', "$database: the engine is stopped");
	like($node->safe_psql($database, "SELECT tasker.health_check() #>> '{engine,why}'"),
		qr/restored or copied/, "$database: health_check() says why");
	task_is($node, $database, 'pending', "$database: its task waits");
}
$node->wait_for_log(qr/tasker is stopped in database "copied": it was restored or copied/);
is(scalar(() = slurp_file($node->logfile) =~ /tasker is stopped in database "copied"/g), 1, 'the log says it once');

# Activated.
isnt($node->psql('restored', 'CREATE ROLE nobody; SET ROLE nobody; SELECT tasker.activate()'), 0, 'not by anybody');
task_is($node, 'restored', 'pending', 'nothing has happened');
for my $database ('restored', 'archived', 'copied')
{
	$node->safe_psql($database, 'SELECT tasker.activate()');
	is($node->safe_psql($database, "SELECT tasker.wait_for_task($task)"), 'complete', "$database: activated, it runs the task");
	is(health($node, $database), 'running', "$database: the engine is running");
}

# Deactivated, and active again.
$node->safe_psql('original', 'SELECT tasker.deactivate()');
is(health($node, 'original'), 'stopped', 'deactivated: the engine is stopped');
my $id = $node->safe_psql('original', "SELECT tasker.create_task('quick')");
$node->wait_for_log(qr/tasker is stopped in database "original": it was deactivated/);
is($node->safe_psql('original', "SELECT tasker.wait_for_task($id, '200 ms')"), 'pending', 'a new task waits');
$node->restart;
waits_for_workers($node, 'original', 2, 'workers after a restart');
is($node->safe_psql('original', "SELECT tasker.wait_for_task($id, '0')"), 'pending', 'and goes on waiting');
$node->safe_psql('original', 'SELECT tasker.activate()');
is($node->safe_psql('original', "SELECT tasker.wait_for_task($id)"), 'complete', 'until it is activated');

# By itself, when the restore is whole.
$node->append_conf('postgresql.conf', 'tasker.activate_restored = on');
$node->reload;
$node->safe_psql('postgres', 'CREATE DATABASE itself');
my $session = session($node, 'itself');
$session->query("\\i $dump");
waits_for_workers($node, 'itself', 2, 'workers while the restoring session is there');
task_is($node, 'itself', 'pending', 'its task waits');
is(health($node, 'itself'), 'stopped', 'the engine is stopped as long as the session that restores is there');
$session->quit;
wait_until($node, 'itself', "SELECT tasker.health_check() #>> '{engine,state}' = 'running'", 'then it activates itself');
is($node->safe_psql('itself', "SELECT tasker.wait_for_task($task)"), 'complete', 'and runs the task');
$node->safe_psql('postgres', 'CREATE DATABASE itself_copied TEMPLATE itself');
wait_until($node, 'itself_copied', "SELECT tasker.health_check() #>> '{engine,state}' = 'running'", 'so does a copy');

# Another server, whose transaction ids are far behind those in the log.
my $other = new_server('other', '');
$other->safe_psql('postgres', 'CREATE DATABASE elsewhere');
$other->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $dump, 'elsewhere' ], 'restore on another server');
waits_for_workers($other, 'elsewhere', 2, 'workers there');
is(health($other, 'elsewhere'), 'stopped', 'the engine is stopped there');
my $highest = $other->safe_psql('elsewhere', 'SELECT max(transition_id) FROM tasker.transitions');
$id = $other->safe_psql('elsewhere', "SELECT tasker.create_task('quick')");
is($other->safe_psql('elsewhere', "SELECT bool_and(transition_id > $highest) FROM tasker.transitions WHERE task_id = $id"),
	't', 'a task created there before it is activated has log ids above the old ones');
$other->safe_psql('elsewhere', 'SELECT tasker.activate()');
is($other->safe_psql('elsewhere', "SELECT tasker.wait_for_task($id)"), 'complete', 'activated, it runs the new task');
is($other->safe_psql('elsewhere', "SELECT tasker.wait_for_task($task)"), 'complete', 'and the old one');
is($other->safe_psql('elsewhere', "SELECT count(*) = count(*) FILTER (WHERE transition_id > $highest) FROM tasker.transitions WHERE task_id = $task AND from_state IS NOT NULL"),
	't', 'whose new log ids are above the old ones, too');
$other->safe_psql('elsewhere', 'SELECT tasker.activate()');
$id = $other->safe_psql('elsewhere', "SELECT tasker.create_task('quick')");
is($other->safe_psql('elsewhere', "SELECT tasker.wait_for_task($id)"), 'complete', 'activating twice does no harm');

# Data only, into an extension that was created by hand before.
my $data = $node->basedir . '/data.sql';
$other->safe_psql('postgres', 'CREATE DATABASE data_only');
install_tasker($other, 'data_only');
$other->safe_psql('data_only', 'TRUNCATE tasker.template, tasker.plan, tasker.plan_step, tasker.handler, tasker.registry_log');
$node->command_ok([ 'pg_dump', '-a', '-f', $data, 'restored' ], 'dump of the data');
$other->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $data, 'data_only' ], 'restore of the data');
is(health($other, 'data_only'), 'stopped', 'the engine that ran before is stopped');
$other->safe_psql('data_only', 'SELECT tasker.activate()');
$id = $other->safe_psql('data_only', "SELECT tasker.create_task('quick')");
is($other->safe_psql('data_only', "SELECT tasker.wait_for_task($id)"), 'complete', 'activated, it runs');

done_testing();
