# The workers make way: DROP EXTENSION, DROP DATABASE and their like.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskerTest;
use Test::More;
use Cwd qw(abs_path);

my $node = new_server('drop', '');

# A database whose two executors are inside a handler that takes an hour.
sub busy_database
{
	my ($name) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $name");
	install_tasker($node, $name);
	waits_for_workers($node, $name, 2, "$name: workers");
	for my $busy (1, 2)
	{
		$node->safe_psql($name, "SELECT tasker.create_task('sleepy')");
		wait_until($node, 'postgres', <<"SQL", "$name: $busy executors are busy");
SELECT count(*) = $busy
FROM pg_stat_activity
WHERE datname = '$name' AND backend_type = 'tasker executor' AND wait_event = 'PgSleep'
SQL
	}
	return;
}

# Runs a command that must not wait for a handler.
sub at_once
{
	my ($database, $command) = @_;
	my ($status, $stdout, $stderr) = $node->psql($database, $command,
		timeout => $PostgreSQL::Test::Utils::timeout_default, timed_out => \my $is_late);

	is($status, 0, "$command: at once") or diag($is_late ? 'it waits' : $stderr);
	return;
}

busy_database('one');
at_once('one', 'DROP EXTENSION tasker CASCADE');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE datname = 'one' AND backend_type LIKE 'tasker %'"),
	'0', 'no worker is left');
install_tasker($node, 'one');
waits_for_workers($node, 'one', 2, 'workers after the extension was created again');

# In a transaction that thinks better of it.
$node->safe_psql('one', 'BEGIN; DROP EXTENSION tasker CASCADE; ROLLBACK');
waits_for_workers($node, 'one', 2, 'workers after DROP EXTENSION was rolled back');
$node->safe_psql('one', 'BEGIN; SAVEPOINT a; DROP EXTENSION tasker CASCADE; ROLLBACK TO a; COMMIT');
waits_for_workers($node, 'one', 2, 'workers after DROP EXTENSION was rolled back to a savepoint');
$node->psql('one', 'DROP EXTENSION tasker');
waits_for_workers($node, 'one', 2, 'workers after DROP EXTENSION failed');
my $session = session($node, 'one');
$session->query_safe('SET client_min_messages = error; BEGIN; DROP EXTENSION tasker CASCADE');
is(scalar(workers($node, 'one', 'executor')), 0, 'no worker while the transaction is open');
$session->quit;
waits_for_workers($node, 'one', 2, 'workers after the session that dropped it ended');
my $id = $node->safe_psql('one', "SELECT tasker.create_task('quick')");
is($node->safe_psql('one', "SELECT tasker.wait_for_task($id)"), 'complete', 'and they work');
$node->safe_psql('one', 'BEGIN; DROP EXTENSION tasker CASCADE; CREATE EXTENSION tasker; COMMIT');
waits_for_workers($node, 'one', 2, 'workers after the extension was replaced in one transaction');
$node->safe_psql('one', "SET client_min_messages = error; DROP SCHEMA tasker CASCADE");
wait_until($node, 'postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = 'one'", 'DROP SCHEMA CASCADE is as good');

# Nobody stops the workers by a command that he may not run.
busy_database('two');
$node->safe_psql('postgres', 'CREATE ROLE nobody LOGIN CREATEDB');
my @before = workers($node, 'two', 'executor');
for my $command ('DROP EXTENSION tasker CASCADE', 'ALTER EXTENSION tasker UPDATE', 'DROP SCHEMA tasker CASCADE')
{
	isnt($node->psql('two', "SET ROLE nobody; $command"), 0, "$command is refused");
}
for my $command ('DROP DATABASE two', 'ALTER DATABASE two RENAME TO three', 'CREATE DATABASE three TEMPLATE two')
{
	isnt($node->psql('postgres', $command, extra_params => [ '-U', 'nobody' ]), 0, "$command is refused");
}
is_deeply([ workers($node, 'two', 'executor') ], \@before, 'and stops nobody');

# Commands on a database.
at_once('two', 'ALTER EXTENSION tasker UPDATE');
waits_for_workers($node, 'two', 2, 'workers after ALTER EXTENSION UPDATE');
at_once('postgres', 'ALTER DATABASE two RENAME TO three');
waits_for_workers($node, 'three', 2, 'workers after RENAME');
is($node->safe_psql('three', "SELECT tasker.health_check() ->> 'healthy'"), 'true', 'healthy under the new name');
at_once('postgres', 'CREATE DATABASE four TEMPLATE three');
waits_for_workers($node, 'three', 2, 'workers of the template after CREATE DATABASE');
waits_for_workers($node, 'four', 2, 'workers of the copy');
my $directory = $node->basedir . '/elsewhere';
mkdir $directory or die "could not make $directory: $!";
$directory = abs_path($directory);
$node->safe_psql('postgres', "CREATE TABLESPACE elsewhere LOCATION '$directory'");
at_once('postgres', 'ALTER DATABASE three SET TABLESPACE elsewhere');
waits_for_workers($node, 'three', 2, 'workers after SET TABLESPACE');
at_once('postgres', 'DROP DATABASE four');
at_once('postgres', 'DROP DATABASE three WITH (FORCE)');
busy_database('five');
at_once('postgres', 'DROP DATABASE five');

# A template, and a database that nobody may connect to.
$node->safe_psql('postgres', 'CREATE DATABASE six');
$node->safe_psql('six', 'CREATE EXTENSION tasker');
waits_for_workers($node, 'six', 2, 'workers of an ordinary database');
$node->safe_psql('postgres', 'ALTER DATABASE six IS_TEMPLATE true');
wait_until($node, 'postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = 'six'", 'no worker in a template');
$node->safe_psql('postgres', 'ALTER DATABASE six IS_TEMPLATE false ALLOW_CONNECTIONS false');
$node->safe_psql('postgres', 'ALTER DATABASE six ALLOW_CONNECTIONS true');
waits_for_workers($node, 'six', 2, 'workers when connections are allowed again');

# A session that has run a task before the extension is made anew runs one after.
my $again = <<'SQL';
CREATE EXTENSION tasker;
CREATE FUNCTION again(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$ BEGIN RETURN to_jsonb(step.step_name); END $$;
DO $$
BEGIN
    PERFORM tasker.register_handler('again', 'again');
    PERFORM tasker.register_task('{"name": "again", "step_templates": [{"name": "a", "handler_class": "again"}]}');
END $$;
SELECT tasker.run_task('again') ->> 'state';
SQL
$node->safe_psql('postgres', 'CREATE DATABASE seven');
is($node->safe_psql('seven', "$again DROP EXTENSION tasker CASCADE; $again"), "complete\ncomplete",
	'one session, and two extensions one after the other');

# The extension without the shared library's processes.
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->restart;
is($node->safe_psql('six', "SELECT tasker.health_check() ->> 'status'"), 'stopped', 'not preloaded: stopped');
like($node->safe_psql('six', "SELECT tasker.health_check() -> 'problems' ->> 0"), qr/Add tasker to shared_preload_libraries/,
	'and says what to do');
$node->safe_psql('six', 'DROP EXTENSION tasker CASCADE');

my $log = slurp_file($node->logfile);
unlike($log, qr/deadlock detected/, 'no deadlock');
unlike($log, qr/FATAL: .*(database .* does not exist|tasker launcher)/, 'no needless FATAL');

done_testing();
