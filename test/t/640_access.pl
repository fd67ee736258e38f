# Access where processes and copies have to do with it: enforced under load,
# delivered to subscribers, told to whoever listens, dumped and restored.
# sql/namespaces.sql has what a role sees and does.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskerTest;
use Test::More;
use Time::HiRes qw(time usleep);

my $node = new_server('access', 'tasker.lock_timeout = 0');
install_tasker($node, 'postgres');
waits_for_workers($node, 'postgres', 2, 'workers');

sub query
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# A namespace with a task of one step, whose handler belongs to its own role,
# and a subscriber that writes down what it hears.
query(<<'SQL');
CREATE TABLE heard (role text, event text, namespace text);
CREATE FUNCTION hear(event tasker.event) RETURNS void
LANGUAGE sql AS $$ INSERT INTO public.heard VALUES (current_user, event.name, event.payload ->> 'namespace') $$;
CREATE FUNCTION work(step tasker.step_context) RETURNS jsonb
LANGUAGE sql AS $$ SELECT jsonb_build_object('tasks', (SELECT count(DISTINCT t.namespace) FROM tasker.tasks AS t)) $$;
SQL
for my $name ('shop', 'bank')
{
	query(<<"SQL");
CREATE ROLE $name LOGIN;
GRANT INSERT ON heard TO $name;
SELECT tasker.grant('$name', '{admin}', '$name');
SET ROLE $name;
SET client_min_messages = error;
SELECT tasker.register_handler('work', 'work', '$name');
SELECT tasker.register_task('{"name": "job", "namespace_name": "$name", "step_templates": [{"name": "only", "handler_class": "work"}]}');
SELECT tasker.subscribe('${name}_all', '{task.completed}', handler => 'hear');
SQL
}

# While executors are at it.
my $first = query(q{SELECT max(id) FROM (SELECT tasker.create_tasks('job', array_fill('{}'::jsonb, ARRAY[500]), 'shop') AS id) AS t});
query('SELECT tasker.enforce_access()');
is(query("SELECT tasker.wait_for_task($first, NULL)"), 'complete', 'what was begun before is ended');
waits_for_workers($node, 'postgres', 2, 'workers are back');
my $shop = query(q{SELECT tasker.create_task('job', '{}', 'shop')});
query("SELECT tasker.wait_for_task($shop, NULL)");
is(query("SELECT results ->> 'tasks' FROM tasker.workflow_steps WHERE task_id = $shop"), '1',
	'a handler sees the namespaces of its registrar');

query('TRUNCATE heard');
# A subscription to everything, from before, by who may hear one namespace now.
query(q{SET ROLE shop; SELECT tasker.subscribe('shop_own', '{task.completed}', handler => 'hear', namespace => 'shop')});
for my $name ('bank', 'shop')
{
	my $id = query("SELECT tasker.create_task('job', '{}', '$name')");
	query("SELECT tasker.wait_for_task($id, NULL)");
}
wait_until($node, 'postgres', q{SELECT count(*) > 0 FROM heard WHERE role = 'shop'}, 'the subscriber to its own namespace hears');
is(query('SELECT DISTINCT role, namespace FROM heard'), 'shop|shop', 'of that alone, and nobody else hears anything');
query(q{SELECT tasker.grant('bank', '{event:index}')});
wait_until($node, 'postgres', q{SELECT count(*) > 0 FROM heard WHERE role = 'bank' AND namespace = 'shop'},
	'one to everything does once it may');

# Whoever listens hears no ids and no names.
my $listener = session($node, 'postgres');
$listener->query_safe('LISTEN tasker_events; LISTEN tasker_steps');
my $id = query("SELECT tasker.create_task('job', '{}', 'shop')");
query("SELECT tasker.wait_for_task($id, NULL)");
my $heard = '';
my $until = time + $PostgreSQL::Test::Utils::timeout_default;
while ($heard !~ /tasker_events/ && time < $until)
{
	$heard .= $listener->query_safe('SELECT');
	usleep(10_000);
}
like($heard, qr/\{"event":"\*","from":"\d+","to":"\d+"\}/, 'a bell rings');
unlike($heard, qr/task_id|shop|job|task\./, 'and says no more');
$listener->quit;

# A copy keeps it.
my $archive = $node->basedir . '/access.dump';
my $token = query(q{SELECT tasker.create_token('shop')});
$node->command_ok([ 'pg_dump', '-Fc', '-f', $archive, 'postgres' ], 'dump');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'pg_restore', '-e', '-j', '2', '-d', 'restored', $archive ], 'restore');
for my $sql (
	'SELECT count(*), tasker._is_enforced() FROM tasker.grants',
	q{SELECT relname FROM pg_class WHERE relnamespace = 'tasker'::regnamespace AND relrowsecurity ORDER BY relname},
	q{SELECT relid, polname, qual FROM (SELECT polrelid::regclass::text AS relid, polname, pg_get_expr(polqual, polrelid) AS qual FROM pg_policy) AS p ORDER BY 1, 2},
	q{SET ROLE shop; SELECT count(*) FROM tasker.tasks; SELECT count(*) FROM tasker.task WHERE NOT task_id IN (SELECT task_id FROM tasker.tasks)})
{
	is($node->safe_psql('restored', $sql), query($sql), "as it was: $sql");
}
is($node->safe_psql('restored', "SELECT tasker._authenticate_token('$token')"), 'shop', 'a token still opens');

# And the extension goes, and comes, as ever.
$node->safe_psql('restored', 'DROP EXTENSION tasker CASCADE; CREATE EXTENSION tasker');
is($node->safe_psql('restored', 'SELECT tasker._is_enforced(), (SELECT count(*) FROM pg_policy)'), 'f|0', 'it begins open');

$node->stop;
done_testing();
