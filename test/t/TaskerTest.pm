# What the TAP tests have in common: a server with the library, a database
# with the extension, and tasks that are quick, slow or for workers outside.
package TaskerTest;

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Exporter 'import';

our @EXPORT = qw(new_server install_tasker create_handlers session wait_until workers waits_for_workers move_clock rests);

# A server that runs, with these lines in its configuration.
sub new_server
{
	my ($name, $conf) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(allows_streaming => 1);
	$node->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'tasker'
max_worker_processes = 30
max_prepared_transactions = 5
autovacuum = off
restart_after_crash = on
$conf
CONF
	$node->start;
	return $node;
}

# The extension, with a task for each kind of handler.
sub install_tasker
{
	my ($node, $database) = @_;

	$node->safe_psql($database, <<'SQL');
CREATE EXTENSION tasker;
CREATE FUNCTION public.quick(step tasker.step_context) RETURNS jsonb
LANGUAGE sql AS $$ SELECT jsonb_build_object('ok', true) $$;
CREATE FUNCTION public.sleepy(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(3600); RETURN '{}'; END $$;
SET client_min_messages = error;
SELECT tasker.register_handler('quick', 'public.quick');
SELECT tasker.register_handler('sleepy', 'public.sleepy');
SELECT tasker.register_external_handler('outside');
SELECT tasker.register_task('{"name": "quick", "step_templates": [{"name": "only", "handler_class": "quick"}]}');
SELECT tasker.register_task('{"name": "sleepy", "step_templates": [{"name": "only", "handler_class": "sleepy"}]}');
SELECT tasker.register_task('{"name": "outside", "step_templates": [{"name": "only", "handler_class": "outside"}]}');
SQL
	return;
}

# Handlers in PL/pgSQL, in the schema public, of that name and with that body.
sub create_handlers
{
	my ($node, $database, %bodies) = @_;

	foreach my $name (sort keys %bodies)
	{
		$node->safe_psql($database, <<"SQL");
CREATE FUNCTION public.$name(step tasker.step_context)
RETURNS jsonb
LANGUAGE plpgsql
AS \$\$
BEGIN
$bodies{$name}END;
\$\$;
SET client_min_messages = error;
SELECT tasker.register_handler('$name', 'public.$name');
SQL
	}
	return;
}

# A session in the background.  Each of its queries, and its end, may take the
# time that a test may take, however long it lasts.
sub session
{
	my ($node, $database, %params) = @_;
	my $session = $node->background_psql($database, %params);

	$session->set_query_timer_restart();
	return bless $session, 'TaskerTest::Session';
}

# Polls until the query gives t.
sub wait_until
{
	my ($node, $database, $query, $name) = @_;

	ok($node->poll_query_until($database, $query), $name);
	return;
}

# The pids of a database's workers of that type.
sub workers
{
	my ($node, $database, $type) = @_;

	return split /\n/, $node->safe_psql('postgres',
		"SELECT pid FROM pg_stat_activity WHERE datname = '$database' AND backend_type = 'tasker $type' ORDER BY pid");
}

# Waits until a database has a notifier and so many executors.
sub waits_for_workers
{
	my ($node, $database, $executors, $name) = @_;

	wait_until($node, 'template1', <<"SQL", $name);
SELECT count(*) FILTER (WHERE backend_type = 'tasker notifier') = 1
   AND count(*) FILTER (WHERE backend_type = 'tasker executor') = $executors
FROM pg_stat_activity
WHERE datname = '$database'
SQL
	return;
}

# Moves the engine's clock to so many seconds ahead of the wall clock.  The
# server tells a reload to all of its processes before it takes another connection:
# so a session that begins with the new setting comes after that.
sub move_clock
{
	my ($node, $seconds) = @_;

	$node->safe_psql('template1', "ALTER SYSTEM SET tasker.clock_offset = $seconds");
	$node->reload;
	$node->poll_query_until('template1', "SELECT setting = '$seconds' FROM pg_settings WHERE name = 'tasker.clock_offset'")
	  or die 'the clock does not move';
	return;
}

# For so many seconds nothing runs a transaction in the database.  What came before
# is reported late, and later on a busy machine: so there may be some such times
# with reports in them, but what comes regularly is in each.
sub rests
{
	my ($node, $database, $seconds, $name) = @_;
	my $watcher = session($node, 'template1');
	my $count = "SELECT xact_commit, xact_rollback FROM pg_stat_database WHERE datname = '$database'";
	my ($before, $after) = ('', $watcher->query_safe($count));

	for (1 .. 5)
	{
		$before = $after;
		$watcher->query_safe("SELECT pg_sleep($seconds)");
		$after = $watcher->query_safe($count);
		last if $after eq $before;
	}
	is($after, $before, $name);
	$watcher->quit;
	return;
}

package TaskerTest::Session;

use parent -norequire, 'PostgreSQL::Test::BackgroundPsql';

sub quit
{
	my ($self) = @_;

	$self->{timeout}->start;
	return $self->SUPER::quit;
}

1;
