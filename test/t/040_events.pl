# Doorbells: NOTIFY for what happened and for what waits, and wait_for_task().
use strict;
use warnings;

use FindBin;
use IPC::Run;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskerTest;
use Test::More;
use Time::HiRes qw(time usleep);

my $node = new_server('events', 'tasker.notify_limit = 10');
install_tasker($node, 'postgres');
waits_for_workers($node, 'postgres', 2, 'workers');

my $listener = session($node, 'postgres');
$listener->query_safe('LISTEN tasker_events; LISTEN tasker_steps');

# Asks until what has arrived so far matches; returns it.
sub hears
{
	my ($pattern, $name) = @_;
	my $heard = '';
	my $until = time + $PostgreSQL::Test::Utils::timeout_default;

	while ($heard !~ $pattern && time < $until)
	{
		$heard .= $listener->query_safe('SELECT');
		usleep(10_000) if $heard !~ $pattern;
	}
	like($heard, $pattern, $name);
	return $heard;
}

# Ends the notifier, and waits for the next one.
sub replace_notifier
{
	my ($notifier) = workers($node, 'postgres', 'notifier');

	$node->safe_psql('postgres', "SELECT pg_terminate_backend($notifier)");
	wait_until($node, 'postgres', <<"SQL", 'another notifier');
SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'tasker notifier' AND pid <> $notifier AND state = 'idle'
SQL
	return;
}

# One task, from its creation to its end.
my $id = $node->safe_psql('postgres', "SELECT tasker.create_task('quick')");
my $heard = hears(qr/"task\.completed","task_id":$id\}/, 'the end of a task is announced');
my $step = $id << 14 | 1;
like($heard, qr/"event_id":"\d+","event":"task\.started","task_id":$id\}.*"event":"step\.started","task_id":$id,"step_id":$step\}.*"step\.completed","task_id":$id,"step_id":$step\}.*task\.completed/s,
	'its events in the order of what happened');

# Strangers with open transactions hold nothing up; who commits late is heard.
my $stranger = session($node, 'postgres');
$stranger->query_safe('BEGIN; SELECT pg_current_xact_id()');
my $late = session($node, 'postgres');
$late->query_safe("BEGIN");
my $late_id = $late->query_safe("SELECT tasker.create_task('outside')");
$id = $node->safe_psql('postgres', "SELECT tasker.create_task('quick')");
$heard = hears(qr/"task\.completed","task_id":$id\}/, 'events while others have transactions open');
unlike($heard, qr/"task_id":$late_id\b/, 'nothing of one that has not committed');
$late->query_safe('COMMIT');
hears(qr/"task_id":$late_id\b/, 'heard when it commits');
$late->quit;
$stranger->quit;

# What waits for workers outside.
$node->safe_psql('postgres', "SELECT tasker.create_task('outside')");
hears(qr/"tasker_steps" with payload "\{"namespace":"default","handlers":\["outside"\]\}"/, 'tasker_steps names the handler');

# Many at once: one for all.
my $ids = $node->safe_psql('postgres', "SELECT count(*) FROM tasker.create_tasks('outside', array_fill('{}'::jsonb, ARRAY[100]))");
is($ids, '100', 'a hundred tasks at once');
$heard = hears(qr/\{"event":"\*","from":"\d+","to":"\d+"\}/, 'are announced by one notification');
my ($from, $to) = $heard =~ /"from":"(\d+)","to":"(\d+)"/;
cmp_ok($node->safe_psql('postgres', "SELECT count(*) FROM tasker.transitions WHERE transition_id BETWEEN $from AND $to"),
	'>', 10, 'whose range holds them');

# A commit that waits for a standby keeps the queue of notifications locked, as
# long as it likes: that holds up nobody who creates tasks, nor what fetches.
$node->safe_psql('postgres', "SELECT tasker.subscribe('steady', '{task.completed}')");
$node->append_conf('postgresql.conf', "synchronous_commit = local\nsynchronous_standby_names = 'nobody'");
$node->reload;
wait_until($node, 'postgres', "SELECT current_setting('synchronous_standby_names') = 'nobody'", 'a standby that is not there');
my $ringer = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', 'SET synchronous_commit = on', '-c', 'BEGIN; CREATE TABLE written (); NOTIFY anything; COMMIT' ],
	'>', \my $rung, '2>', \my $warned);
wait_until($node, 'postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'", 'a NOTIFY whose commit waits');
my $queue_lock = "locktype = 'object' AND database = 0 AND classid = 'pg_database'::regclass AND objid = 0";
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_locks WHERE $queue_lock AND granted"), '1', 'it has the lock that NOTIFY takes');
for my $round (1 .. 3)
{
	my $completed = $node->safe_psql('postgres', "SELECT tasker.create_task('quick')");

	is($node->safe_psql('postgres', "SELECT task_id FROM tasker.fetch_events('steady', wait => '1 min') WHERE task_id = $completed"), $completed,
		"a task is created, run and told meanwhile, $round");
	$node->safe_psql('postgres', "SELECT tasker.ack_events('steady', event_id) FROM tasker.fetch_events('steady') ORDER BY occurred_at DESC LIMIT 1");
	$id = $completed;
}
# Nor are the bells lost with a notifier that could not ring them.
replace_notifier();
$node->append_conf('postgresql.conf', "synchronous_standby_names = ''");
$node->reload;
$ringer->finish;
hears(qr/"event":"\*"|"task\.completed","task_id":$id\}/, 'bells ring when it has let go');
$node->safe_psql('postgres', "SELECT tasker.unsubscribe('steady')");

# Waiting.
my $waiter = session($node, 'postgres');
$id = $node->safe_psql('postgres', "SELECT tasker.create_task('quick', run_at => tasker.clock() + interval '500 ms')");
is($waiter->query_safe("SELECT tasker.wait_for_task($id, '1 hour')"), 'complete', 'wait_for_task() returns when the task ends');
is($waiter->query_safe("SELECT tasker.wait_for_task($late_id, '50 ms')"), 'in_progress', 'or when the time is up');
$waiter->quit;
my ($status, $stdout, $stderr) = $node->psql('postgres', "SELECT tasker.wait_for_task(4711)", extra_params => [ '-v', 'VERBOSITY=verbose' ]);
like($stderr, qr/TK007/, 'an unknown task');
for my $case ('BEGIN; SELECT tasker.wait_for_task(tasker.create_task(\'quick\'))',
	"BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT tasker.wait_for_task($id)")
{
	($status, $stdout, $stderr) = $node->psql('postgres', $case, extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	like($stderr, qr/TK009.*HINT/s, "$case: refused at once");
}
$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION waits(step tasker.step_context) RETURNS jsonb
LANGUAGE sql AS $$ SELECT to_jsonb(tasker.wait_for_task(1)) $$;
SET client_min_messages = error;
SELECT tasker.register_handler('waits', 'public.waits');
SELECT tasker.register_task('{"name": "waits", "step_templates": [{"name": "only", "handler_class": "waits", "default_retry_limit": 1}]}');
SQL
$id = $node->safe_psql('postgres', "SELECT tasker.create_task('waits')");
is($node->safe_psql('postgres', "SELECT tasker.wait_for_task($id)"), 'error', 'a handler may not wait');
is($node->safe_psql('postgres', "SELECT error ->> 'sqlstate' FROM tasker.workflow_steps WHERE task_id = $id"), 'TK009', 'and is told so');

# The listener goes on after the notifier was replaced.
replace_notifier();
$id = $node->safe_psql('postgres', "SELECT tasker.create_task('quick')");
hears(qr/"task\.completed","task_id":$id\}/, 'announces what happens from then on');
$listener->quit;

done_testing();
