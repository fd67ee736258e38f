# What the TAP tests have in common: a server with the library, a database
# with the extension, and tasks that are quick, slow or for workers outside.
package TaskerTest;

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);
use Exporter 'import';

our @EXPORT = qw(new_server install_tasker create_handlers wait_until within workers waits_for_workers);

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
LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN '{}'; END $$;
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

# Polls until the query gives t; returns the seconds it took.
sub wait_until
{
	my ($node, $database, $query, $name) = @_;
	my $start = time;

	ok($node->poll_query_until($database, $query), $name);
	return time - $start;
}

# The same, and it must not take longer than so many seconds.
sub within
{
	my ($seconds, $node, $database, $query, $name) = @_;
	my $took = wait_until($node, $database, $query, $name);

	cmp_ok($took, '<', $seconds, "$name: within $seconds s");
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
	my ($seconds, $node, $database, $executors, $name) = @_;

	within($seconds, $node, 'template1', <<"SQL", $name);
SELECT count(*) FILTER (WHERE backend_type = 'tasker notifier') = 1
   AND count(*) FILTER (WHERE backend_type = 'tasker executor') = $executors
FROM pg_stat_activity
WHERE datname = '$database'
SQL
	return;
}

1;
