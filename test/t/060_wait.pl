# CALL tasker.wait(): as wait_for_task(), but nothing is held meanwhile.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskerTest;
use Test::More;

my $node = new_server('wait', '');
install_tasker($node, 'postgres');
waits_for_workers($node, 'postgres', 2, 'workers');

sub refused
{
	my ($sql, $state, $name) = @_;
	my ($out, $err);

	isnt($node->psql('postgres', "\\set VERBOSITY sqlstate\n$sql", stderr => \$err), 0, "$name is refused");
	like($err, qr/$state/, "$name: $state");
	return;
}

# What it returns.
my $id = $node->safe_psql('postgres', "SELECT tasker.create_task('quick')");
is($node->safe_psql('postgres', "CALL tasker.wait($id)"), 'complete', 'it returns the state in which the task ended');
my $open = $node->safe_psql('postgres', "SELECT tasker.create_task('outside')");
like($node->safe_psql('postgres', "CALL tasker.wait($open, '20 ms')"), qr/^(pending|in_progress)$/, 'or that in which it is when time is up');
like($node->safe_psql('postgres', "CALL tasker.wait($open, '0')"), qr/^(pending|in_progress)$/, 'no time looks once');
is($node->safe_psql('postgres', "SET default_transaction_isolation = 'serializable'; CALL tasker.wait($id)"),
	'complete', 'whatever the isolation');

# It commits first, so a task of the caller's own can be waited for.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE seen (state text);
DO $$
DECLARE
    state text;
BEGIN
    CALL tasker.wait(tasker.create_task('quick'), state => state);
    INSERT INTO seen VALUES (state);
END;
$$;
SQL
is($node->safe_psql('postgres', 'SELECT state FROM seen'), 'complete', 'a task that the caller has just created');

# A role without any right on the engine's tables.
$node->safe_psql('postgres', 'CREATE ROLE waiter; REVOKE ALL ON tasker.task FROM PUBLIC');
is($node->safe_psql('postgres', "SET ROLE waiter; CALL tasker.wait($id)"), 'complete', 'needs no right on the tables');

refused('CALL tasker.wait(0);', 'TK007', 'an unknown task');
refused('CALL tasker.wait(NULL);', 'TK007', 'NULL');
refused("BEGIN; CALL tasker.wait($id);", 'TK009', 'a transaction block');
refused("SET statement_timeout = '50ms'; CALL tasker.wait($open, NULL);", '57014', 'longer than statement_timeout');

# It sleeps without a snapshot, a lock or a transaction id, and is woken.
my $waiter = session($node, 'postgres');
my $pid = $waiter->query_safe('SELECT pg_backend_pid()');
$waiter->query_until(qr/started/, "\\echo started\nCALL tasker.wait($open, NULL);\n");
wait_until($node, 'postgres', <<"SQL", 'it sleeps without a snapshot');
SELECT state = 'active' AND query LIKE 'CALL%' AND wait_event_type IN ('Extension', 'IPC')
       AND backend_xmin IS NULL AND backend_xid IS NULL
FROM pg_stat_activity WHERE pid = $pid
SQL
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_locks WHERE pid = $pid AND relation IS NOT NULL"), '0', 'and without a lock on a table');
my $reader = session($node, 'postgres');
my $reader_pid = $reader->query_safe('SELECT pg_backend_pid()');
$reader->query_until(qr/started/, "\\echo started\nSELECT tasker.wait_for_task($open, NULL);\n");
wait_until($node, 'postgres', "SELECT backend_xmin IS NOT NULL AND wait_event_type IN ('Extension', 'IPC') FROM pg_stat_activity WHERE pid = $reader_pid",
	'wait_for_task() holds one, so this shows the difference');
$node->safe_psql('postgres', "SELECT tasker.complete_step(step_id, '{}', 'w') FROM tasker.claim_steps('w')");
wait_until($node, 'postgres', "SELECT state = 'idle' FROM pg_stat_activity WHERE pid = $pid", 'the end of the task wakes it');
like($waiter->query_safe('SELECT 1'), qr/^complete\n/, 'with its state');
$waiter->quit;
$reader->quit;

# Whoever waits does not survive the server's stop.
$waiter = session($node, 'postgres');
$open = $node->safe_psql('postgres', "SELECT tasker.create_task('outside')");
$waiter->query_until(qr/started/, "\\echo started\nCALL tasker.wait($open, NULL);\n");
$node->stop('fast');
pass('a fast stop ends it');

done_testing();
