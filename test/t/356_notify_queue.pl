# The server's queue of notifications is full: the engine goes on and says so, and
# rings again when there is room.  It takes 8 GB to fill it, so this one is asked for.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use FindBin;
use lib $FindBin::RealBin;
use TaskerTest;

plan skip_all => 'writes 8 GB of notifications: make check TESTS=356_notify_queue NOTIFY_QUEUE=yes' unless $ENV{NOTIFY_QUEUE};

my $node = new_server('notify_queue', "tasker.executors = 1\nfsync = off\nmax_wal_size = 4GB");
install_tasker($node, 'postgres');
$node->safe_psql('postgres', q{SELECT tasker.subscribe('all', '{*}')});

# Whoever listens and does not come to hear keeps everything that was said since.
my $deaf = session($node, 'postgres');
$deaf->query_safe('LISTEN silence');
$deaf->query_safe('BEGIN; SELECT 1');

# Half of the pages can be used; a notification of this length takes one.
my $full = 0;
for (1 .. 200)
{
	my ($code, undef, $error) = $node->psql('postgres', q{SELECT count(pg_notify('nobody', n || repeat('x', 7980))) FROM generate_series(1, 20000) AS n});

	$full = $error =~ /too many notifications in the NOTIFY queue/;
	last if $code != 0;
}
ok($full, 'the queue has no room for many');
# A few at a time, until there is none for one.
until ($node->psql('postgres', q{SELECT count(pg_notify('nobody', n || repeat('x', 7980))) FROM generate_series(1, 100) AS n}) != 0) { }
until ($node->psql('postgres', q{SELECT pg_notify('nobody', repeat('x', 7980))}) != 0) { }
is($node->safe_psql('postgres', 'SELECT pg_notification_queue_usage() > 0.99'), 't', 'it is full');

my $log = -s $node->logfile;
my $tasks = 200;
$node->safe_psql('postgres', "SELECT count(*) FROM tasker.create_tasks('quick', array_fill('{}'::jsonb, ARRAY[$tasks]))");
wait_until($node, 'postgres', "SELECT count(*) = $tasks FROM tasker.tasks WHERE state = 'complete'", 'tasks are created and run');
is($node->safe_psql('postgres', <<'SQL'), $tasks, 'who fetches hears of them');
SELECT count(*) FROM tasker.fetch_events('all', 10000) WHERE name = 'task.completed'
SQL
my $said = 0;
for (1 .. 600)
{
	$said = () = slurp_file($node->logfile, $log) =~ /too many notifications in the NOTIFY queue/g;
	last if $said > 0;
	$node->safe_psql('postgres', 'SELECT tasker._wait_for_round()');
}
is($said, 1, 'the log says why no bell rings, once');
is($node->safe_psql('postgres', q{SELECT count(*) FROM tasker.verify()}), '0', 'everything is as it has to be');

# There is room again.
my $hears = session($node, 'postgres');
$hears->query_safe('LISTEN tasker_events');
$deaf->query_safe('COMMIT');
wait_until($node, 'postgres', 'SELECT pg_notification_queue_usage() < 0.5', 'who was deaf has heard all of it');
my $heard = '';
for (1 .. 600)
{
	$heard = $hears->query('SELECT 1');
	last if $heard =~ /Asynchronous notification "tasker_events"/;
	$node->safe_psql('postgres', 'SELECT tasker._wait_for_round()');
}
like($heard, qr/Asynchronous notification "tasker_events"/, 'the bells ring again, also for what happened meanwhile');
$hears->quit;
$deaf->quit;
$node->stop;
done_testing();
