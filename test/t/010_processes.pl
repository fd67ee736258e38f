# The engine's processes: they start, stop, come back, sleep and are woken.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskerTest;
use Test::More;

my $node = new_server('processes', '');

# Starting.
wait_until($node, 'postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'tasker launcher'", 'the launcher runs');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ 'tasker (executor|notifier)'"),
	'0', 'no workers without the extension');
install_tasker($node, 'postgres');
waits_for_workers($node, 'postgres', 2, 'workers after CREATE EXTENSION');
wait_until($node, 'postgres', <<'SQL', 'each shows what it waits for');
SELECT count(*) = 4
FROM pg_stat_activity
WHERE backend_type LIKE 'tasker %'
  AND state = 'idle'
  AND wait_event_type = 'Extension'
  AND query LIKE 'waits for %'
SQL
is($node->safe_psql('postgres', "SELECT tasker.create_task('quick')"), '1', 'a task');
is($node->safe_psql('postgres', 'SELECT tasker.wait_for_task(1)'), 'complete', 'it is run');
is($node->safe_psql('postgres', "SELECT tasker.health_check() ->> 'status'"), 'healthy', 'healthy');

# The number of executors.
for my $executors (4, 0, 2)
{
	$node->safe_psql('postgres', "ALTER SYSTEM SET tasker.executors = $executors");
	$node->reload;
	waits_for_workers($node, 'postgres', $executors, "tasker.executors = $executors");
	is($node->safe_psql('postgres', "SELECT tasker.health_check() ->> 'status'"), 'stopped', 'health without executors')
	  if $executors == 0;
}

# A setting of the database that would harm the engine does not reach it.
$node->safe_psql('template1', <<'SQL');
ALTER DATABASE postgres SET default_transaction_read_only = on;
ALTER DATABASE postgres SET default_transaction_isolation = 'serializable';
ALTER DATABASE postgres SET statement_timeout = 1;
SQL
$node->restart;
waits_for_workers($node, 'postgres', 2, 'workers after a restart');
my $id;
{
	local $ENV{PGOPTIONS} = '-c default_transaction_read_only=off -c default_transaction_isolation=read\\ committed -c statement_timeout=0';
	$id = $node->safe_psql('postgres', "SELECT tasker.create_task('quick')");
	is($node->safe_psql('postgres', "SELECT tasker.wait_for_task($id)"), 'complete', 'settings of the database do not harm the engine');
}
$node->safe_psql('template1', 'ALTER DATABASE postgres RESET ALL');

# Workers that end.
my ($victim) = workers($node, 'postgres', 'executor');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($victim)");
wait_until($node, 'postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $victim", 'an executor is terminated');
waits_for_workers($node, 'postgres', 2, 'an executor that was terminated');
my @before = workers($node, 'postgres', 'executor');
$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'tasker launcher'");
wait_until($node, 'postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'tasker launcher' AND query <> ''", 'the launcher comes back');
is_deeply([ workers($node, 'postgres', 'executor') ], \@before, 'and keeps the workers that run');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($before[0])");
wait_until($node, 'postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $before[0]", 'an executor of the earlier launcher is terminated');
waits_for_workers($node, 'postgres', 2, 'an executor of the earlier launcher');

# A crash.
($victim) = workers($node, 'postgres', 'executor');
my $log = -s $node->logfile;
kill 'KILL', $victim;
$node->wait_for_log(qr/all server processes terminated; reinitializing/, $log);
wait_until($node, 'postgres', 'SELECT true', 'the server is back after a crash');
waits_for_workers($node, 'postgres', 2, 'workers after a crash');

# A prepared transaction, whose session's notes are gone when it commits.
$id = $node->safe_psql('postgres', "BEGIN; SELECT tasker.create_task('quick'); PREPARE TRANSACTION 'one'");
is($node->safe_psql('postgres', "SELECT count(*) FROM tasker.tasks WHERE task_id = $id"), '0', 'a task is prepared');
$node->safe_psql('postgres', "COMMIT PREPARED 'one'");
is($node->safe_psql('postgres', "SELECT tasker.wait_for_task($id)"), 'complete', 'and runs after COMMIT PREPARED');
$node->safe_psql('postgres', 'CREATE DATABASE prepared');
$node->safe_psql('prepared', "BEGIN; CREATE EXTENSION tasker; PREPARE TRANSACTION 'two'");
is(scalar(workers($node, 'prepared', 'notifier')), 0, 'an extension is prepared');
$node->safe_psql('prepared', "COMMIT PREPARED 'two'");
waits_for_workers($node, 'prepared', 2, 'workers after its COMMIT PREPARED');
$node->safe_psql('postgres', 'DROP DATABASE prepared');

# Something due later.
$id = $node->safe_psql('postgres', "SELECT tasker.create_task('quick', run_at => tasker.clock() + interval '300 ms')");
is($node->safe_psql('postgres', "SELECT tasker.wait_for_task($id)"), 'complete', 'a task is run when it is due');

# A database with nothing to do runs no transaction.
$node->safe_psql('postgres', 'CREATE DATABASE watcher');
wait_until($node, 'watcher', <<'SQL', 'the workers sleep');
SELECT count(*) = 4 FROM pg_stat_activity WHERE backend_type LIKE 'tasker %' AND state = 'idle'
SQL
my $seconds = $ENV{TASKER_IDLE_SECONDS} // 5;
rests($node, 'postgres', $seconds, "no transaction in $seconds s of idleness");
$node->stop;

# Too few worker slots (one is the server's own logical replication launcher's):
# said once, and the rest goes on when one is free.
my $small = new_server('small', 'max_worker_processes = 5');
$small->safe_psql('postgres', 'CREATE DATABASE other');
install_tasker($small, 'postgres');
waits_for_workers($small, 'postgres', 2, 'the first database has its workers');
$small->safe_psql('other', 'CREATE EXTENSION tasker');
$small->wait_for_log(qr/tasker can't start all its workers in database "other".*\n.*\n.*Raise max_worker_processes/);
like($small->safe_psql('other', "SELECT tasker.health_check() ->> 'problems'"), qr/raise max_worker_processes/,
	'health_check() says it, too');
$small->safe_psql('postgres', 'DROP EXTENSION tasker CASCADE');
waits_for_workers($small, 'other', 2, 'the second one, when there is room');
is(scalar(() = slurp_file($small->logfile) =~ /tasker can't start all/g), 1, 'it was said once');
$small->stop;

done_testing();
