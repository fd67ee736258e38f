# The protocol of workers outside: what a claim gives, how long it holds, who may
# end it.  Hours pass by moving the engine's clock; beside them it does not matter how
# long this test takes.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskerTest;
use Test::More;

my $node = new_server('leases', 'max_prepared_transactions = 5');

sub ask { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

# It must fail with that SQLSTATE, and say what matches.
sub refused
{
	my ($sql, $sqlstate, $pattern, $name) = @_;
	my ($status, $stdout, $stderr) =
	  $node->psql('postgres', $sql, extra_params => [ '-v', 'VERBOSITY=verbose' ]);

	like($stderr, qr/ERROR:\s+$sqlstate:.*$pattern/s, $name);
	return;
}

my $passed = 0;

# Lets so many seconds pass, for every process.
sub pass_time
{
	my ($seconds) = @_;

	$passed += $seconds;
	move_clock($node, $passed);
	return;
}

ask(<<'SQL');
CREATE EXTENSION tasker;
CREATE FUNCTION public.quick(step tasker.step_context) RETURNS jsonb
LANGUAGE sql AS $$ SELECT jsonb_build_object('of', step.dependencies) $$;
SET client_min_messages = error;
SELECT tasker.register_handler('quick', 'public.quick');
SELECT tasker.register_external_handler(name) FROM unnest(ARRAY['a', 'b', 'never']) AS name;
SELECT tasker.register_task(format('
name: %1$s
namespace_name: %2$s
version: 1.0.0
step_templates:
  - {name: only, handler_class: %1$s, retry: {limit: 3, jitter: 0}}', handler, namespace))
FROM unnest(ARRAY['a', 'b']) AS handler,
     unnest(ARRAY['default', 'shop']) AS namespace;
SELECT tasker.register_task('
name: chain
step_templates:
  - {name: outside, handler_class: a, retry: {limit: 2, jitter: 0}}
  - {name: inside, handler_class: quick, depends_on_steps: [outside]}');
SELECT tasker.register_task('
name: wide
step_templates:
  - {name: one, handler_class: a}
  - {name: two, handler_class: a}
  - {name: three, handler_class: a}');
SELECT tasker.register_task('
name: timed
step_templates:
  - {name: only, handler_class: a, timeout: 36000, retry: {limit: 2, base_delay: 5, jitter: 0}}');
SELECT tasker.register_task('
name: once
step_templates:
  - {name: only, handler_class: a, default_retryable: false}');
SELECT tasker.register_task('
name: fetched
step_templates:
  - {name: only, handler_class: a, handler_config: {type: api, url: "http://localhost/"}}');
SQL

# Makes a task, and waits until its first step can be claimed.
sub task
{
	my ($name, $more) = @_;
	my $id = ask("SELECT tasker.create_task('$name'" . ($more // '') . ')');

	$node->poll_query_until('postgres', "SELECT EXISTS (SELECT FROM tasker.queue WHERE task_id = $id AND step_no = 1 AND lane >= 3)")
	  or die "task $id is not ready";
	return $id;
}

# For an hour, where nothing else is said.
sub claim
{
	my ($worker, $more) = @_;

	$more = ($more // '') . ", lease => '1 hour'" if ($more // '') !~ /lease/;
	return ask("SELECT string_agg(step_id::text, ' ') FROM tasker.claim_steps('$worker'$more)");
}

sub step { my ($task, $no) = @_; return $task << 14 | ($no // 1); }

sub state
{
	my ($step) = @_;
	return ask("SELECT state, attempts, claimed_by FROM tasker.workflow_steps WHERE step_id = $step");
}

sub end_all
{
	ask("SELECT tasker.cancel_task(task_id) FROM tasker.tasks WHERE state IN ('pending', 'in_progress', 'paused')");
	return;
}

# ---- claims: by handler, by namespace
my $a = task('a');
my $b = task('b');
my $shop_a = task('a', ", namespace => 'shop'");
my $shop_b = task('b', ", namespace => 'shop'");
is(claim('w', ", ARRAY['never']"), '', 'a handler without steps');
is(claim('w', ", ARRAY['what is that']"), '', 'an unknown handler claims nothing');
is(claim('w', ", ARRAY['quick']"), '', 'nor does one in SQL');
is(claim('w', ", '{}'"), '', 'nor none at all');
is(claim('w', ", namespaces => ARRAY['nowhere']"), '', 'an unknown namespace');
is(claim('w', ", ARRAY['b'], ARRAY['shop'], 10"), step($shop_b), 'by handler and namespace');
is(claim('w', ", ARRAY['b'], NULL, 10"), step($b), 'by handler');
is(claim('w', ", NULL, ARRAY['shop', 'default'], 1"), step($a), 'by namespaces, the eldest');
is(claim('w', ', max_steps => 10'), step($shop_a), 'any');
is(claim('w', ', max_steps => 10'), '', 'each is claimed once');
is(ask("SELECT count(*) FROM tasker.heartbeat('w', ARRAY(SELECT step_id FROM tasker.workflow_steps))"), '4', 'they are held');
end_all();

# Only tasks of the namespace are held meanwhile, however many wait before them.
ask("SELECT tasker.create_tasks('a', array_fill('{}'::jsonb, ARRAY[50]))");
my $last = task('a', ", namespace => 'shop'");
is(ask(<<"SQL"), step($last) . "\n1", 'a namespace at the end of a lane');
BEGIN;
SELECT step_id FROM tasker.claim_steps('w', ARRAY['a'], ARRAY['shop'], 10);
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 3 AND pid = pg_backend_pid();
ROLLBACK;
SQL
end_all();

# What cannot be.
refused("SELECT tasker.claim_steps('')", '22023', 'HINT', 'a worker without a name');
refused("SELECT tasker.claim_steps(NULL)", '22023', 'HINT', 'or NULL');
refused("SELECT tasker.claim_steps('w', max_steps => 0)", '22023', 'It is 0', 'no steps');
refused("SELECT tasker.claim_steps('w', lease => '-1 s')", '22023', 'DETAIL', 'a lease that is over');
refused("SELECT tasker.heartbeat('w', '{}', NULL)", '22023', 'DETAIL', 'or NULL');

# ---- the order: priority, then age
my @plain = (task('a'), task('b'), task('a'));
my @urgent = (task('b', ', priority => 5'), task('a', ', priority => 5'));
my $idle = task('a', ', priority => -1');
is(claim('w', ', max_steps => 4'), join(' ', map { step($_) } @urgent, @plain[ 0, 1 ]), 'a batch by priority, then by age');
is(claim('w', ', max_steps => 4'), join(' ', map { step($_) } $plain[2], $idle), 'and the rest');
end_all();

# What waits for its retry is as old as its due time, also within a task.
my $wide = task('wide');
my $between = task('a');
$node->poll_query_until('postgres', "SELECT count(*) = 3 FROM tasker.queue WHERE task_id = $wide AND lane >= 100");
claim('w', ', max_steps => 10');
ask("SELECT tasker.fail_step($$_[0], '\"no\"', retry_after => '$$_[1] h')")
  foreach [ step($wide, 1), 4 ], [ step($wide, 2), 3 ], [ step($between), 2 ], [ step($wide, 3), 1 ];
is(claim('w', ', max_steps => 10'), '', 'retry_after is waited for');
pass_time(10 * 3600);
$node->poll_query_until('postgres', 'SELECT count(*) = 4 FROM tasker.queue WHERE lane >= 100');
is(claim('w', ', max_steps => 10'), join(' ', step($wide, 3), step($between), step($wide, 2), step($wide, 1)),
	'the longest wait first, whichever task it is of');
end_all();

# ---- the context of a claim
my $chain = task('chain', q(, '{"n": 1}', correlation_id => 'c-1', traceparent => '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'));
is(ask("SELECT task_name, step_name, attempt, retry_limit, context, dependencies, correlation_id, idempotency_key FROM tasker.claim_steps('w', lease => '1 hour')"),
	"chain|outside|1|2|{\"n\": 1}|{}|c-1|tasker-" . step($chain), 'what a worker gets');
is(ask("SELECT tasker.complete_step(" . step($chain) . q|, '{"x": 1}', 'w', 1)|), 'complete', 'complete_step()');
is(ask("SELECT tasker.wait_for_task($chain)"), 'complete', 'the executors go on');
is(ask("SELECT results FROM tasker.workflow_steps WHERE step_id = " . step($chain, 2)), '{"of": {"outside": {"x": 1}}}', 'with its results');

# ---- leases, heartbeats, late completion
$a = task('a');
ask("SELECT tasker.claim_steps('w')");
is(ask("SELECT lease_until - started_at BETWEEN '25 s' AND '35 s' FROM tasker.workflow_steps WHERE step_id = " . step($a)), 't', 'a lease is for 30 s, where nothing else is said');
end_all();
$a = task('a');
claim('w', ", lease => '60 min'");
pass_time(50 * 60);
is(ask("SELECT * FROM tasker.heartbeat('w', ARRAY[" . step($a) . ", 4711, NULL], '60 min')"), step($a), 'a heartbeat returns what is held');
is(ask("SELECT * FROM tasker.heartbeat('v', ARRAY[" . step($a) . "], '60 min')"), '', 'and not to another worker');
is(ask("SELECT count(*) FROM tasker.heartbeat('w', NULL)") . ask("SELECT count(*) FROM tasker.heartbeat('w', '{}')"), '00', 'nothing of nothing');
pass_time(50 * 60);
is(state(step($a)), 'in_progress|1|w', 'it holds as long as heartbeats say');
pass_time(20 * 60);
wait_until($node, 'postgres', "SELECT state = 'waiting_for_retry' FROM tasker.workflow_steps WHERE step_id = " . step($a), 'then it ends');
is(state(step($a)), 'waiting_for_retry|1|', 'which counts the attempt');
is(ask("SELECT error ->> 'sqlstate', error ->> 'message', next_attempt_at <= tasker.clock() FROM tasker.workflow_steps WHERE step_id = " . step($a)),
	'TK003|the lease of worker "w" ran out|t', 'says why, and is due at once');
is(ask("SELECT * FROM tasker.heartbeat('w', ARRAY[" . step($a) . "])"), '', 'a heartbeat does not bring it back');
refused("SELECT tasker.complete_step(" . step($a) . ", '{}', 'w')", 'TK003', 'The step is waiting_for_retry.*HINT', 'a late completion');
is(ask("SELECT * FROM tasker.complete_steps(ARRAY[" . step($a) . "], ARRAY['{}'::jsonb])"), '', 'or many of them');
refused("SELECT tasker.fail_step(" . step($a) . ", '{}', worker => 'w')", 'TK003', 'waiting_for_retry', 'a late failure');

# The executor may be late, too: the lease is over all the same.
claim('w');
ask("ALTER SYSTEM SET tasker.executors = 0");
$node->reload;
waits_for_workers($node, 'postgres', 0, 'no executor');
pass_time(3601);
refused("SELECT tasker.complete_step(" . step($a) . ", '{}', 'w')", 'TK003', 'The lease has run out', 'a late completion before anybody has noticed');
is(ask("SELECT * FROM tasker.heartbeat('w', ARRAY[" . step($a) . "])"), '', 'and a late heartbeat');
ask("ALTER SYSTEM RESET tasker.executors");
$node->reload;
wait_until($node, 'postgres', "SELECT state = 'waiting_for_retry' FROM tasker.workflow_steps WHERE step_id = " . step($a), 'noticed');

# ---- fencing
is(claim('v'), step($a), 'somebody else has it');
refused("SELECT tasker.complete_step(" . step($a) . ", '{}', 'w')", 'TK003', 'Worker "v" holds it', 'not the one who had it');
refused("SELECT tasker.complete_step(" . step($a) . ", '{}', 'v', 2)", 'TK003', 'Attempt 3 is under way', 'nor an attempt before');
refused("SELECT tasker.fail_step(" . step($a) . ", '{}', worker => 'v', attempt => 2)", 'TK003', 'Attempt 3 is under way', 'by failure neither');
is(ask("SELECT * FROM tasker.complete_steps(ARRAY[" . step($a) . "], ARRAY['{}'::jsonb], 'w')"), '', 'many at once: left out');
is(ask("SELECT * FROM tasker.fail_steps(ARRAY[" . step($a) . "], ARRAY['{}'::jsonb], worker => 'w')"), '', 'failures, too');
is(state(step($a)), 'in_progress|3|v', 'nothing has changed');
pass_time(3601);
wait_until($node, 'postgres', "SELECT state = 'error' FROM tasker.tasks WHERE task_id = $a", 'the lease of the last attempt takes the step to error, and its task');
is(state(step($a)), 'error|3|', 'all its attempts were lost');
refused("SELECT tasker.complete_step(" . step($a) . ", '{}')", 'TK003', 'The step is error', 'complete_step() of a step in error');
refused("SELECT tasker.complete_step(4711, '{}')", 'TK003', 'There is no such step', 'of an unknown one');
refused("SELECT tasker.complete_step(NULL, '{}')", 'TK003', 'There is no such step', 'of none');
is(ask("SELECT tasker.retry_step(" . step($a) . ")"), 'pending', 'retried');
is(ask("SELECT attempt, retry_limit FROM tasker.claim_steps('w', lease => '1 hour')"), '4|6', 'it has its attempts anew');
is(ask("SELECT tasker.complete_step(" . step($a) . ", NULL, 'w', 4)"), 'complete', 'and may be completed with no result');
refused("SELECT tasker.complete_step(" . step($a) . ", '{}', 'w', 4)", 'TK003', 'The step is complete', 'but once');

my $pending = ask("SELECT tasker.create_task('a', run_at => tasker.clock() + interval '1 day')");
refused("SELECT tasker.complete_step(" . step($pending) . ", '{}')", 'TK003', 'The step is pending', 'one that nobody has claimed');
end_all();

# ---- failures
$a = task('a');
claim('w');
is(ask("SELECT tasker.fail_step(" . step($a) . q|, '{"message": "no", "sqlstate": "22012", "hint": "h", "context": "line 1", "retryable": false, "attempt": 9, "code": 7}', worker => 'w', attempt => 1)|),
	'waiting_for_retry', 'fail_step()');
is(ask("SELECT error - 'at' FROM tasker.workflow_steps WHERE step_id = " . step($a)),
	'{"hint": "h", "detail": "{\"code\": 7}", "attempt": 1, "context": "line 1", "message": "no", "sqlstate": "22012", "retryable": true}',
	'an object; keys of its own go into the detail');
is(ask("SELECT extract(epoch FROM next_attempt_at - (error ->> 'at')::timestamptz)::numeric(10, 2) FROM tasker.workflow_steps WHERE step_id = " . step($a)),
	'2.00', 'the back-off');
my @errors = (
	[ q('{"message": "no", "detail": "d", "sqlstate": "bad!", "code": 7}'), "no|TK002|d\n{\"code\": 7}" ],
	[ q('"just text"'), 'just text|TK002|' ],
	[ q('[1, 2]'), '[1, 2]|TK002|' ],
	[ '\'12\'', '12|TK002|' ],
	[ q('null'), 'the worker gave no message|TK002|' ],
	[ 'NULL', 'the worker gave no message|TK002|' ],
	[ q('{}'), 'the worker gave no message|TK002|' ],
	[ q('{"message": {"a": 1}, "detail": null}'), '{"a": 1}|TK002|' ]);
foreach my $error (@errors)
{
	my $id = task('a');
	pass_time(0);
	claim('w', ', max_steps => 10');
	ask("SELECT tasker.fail_step(" . step($id) . ", $$error[0])");
	is(ask("SELECT error ->> 'message', error ->> 'sqlstate', error ->> 'detail' FROM tasker.workflow_steps WHERE step_id = " . step($id)),
		$$error[1], "the error $$error[0]");
}
end_all();

$a = task('a');
claim('w');
refused("SELECT tasker.fail_step(" . step($a) . ", '{}', retry_after => '-1 s')", '22023', 'DETAIL', 'a negative delay');
ask("SELECT tasker.fail_step(" . step($a) . ", '{}', retry_after => '1 hour')");
is(ask("SELECT next_attempt_at - (error ->> 'at')::timestamptz FROM tasker.workflow_steps WHERE step_id = " . step($a)), '01:00:00', 'retry_after replaces the back-off');
pass_time(1800);
is(claim('w'), '', 'not before');
pass_time(1801);
$node->poll_query_until('postgres', 'SELECT count(*) = 1 FROM tasker.queue WHERE lane >= 100');
is(claim('w'), step($a), 'but then');
is(ask("SELECT tasker.fail_step(" . step($a) . ", '{}', retry_after => '100000 years')"), 'waiting_for_retry', 'a delay beyond all time');
$b = task('a');
claim('w');
is(ask("SELECT tasker.fail_step(" . step($b) . ", '\"for good\"', retryable => false, retry_after => '1 s')"), 'error', 'not retryable');
is(ask("SELECT state, error ->> 'message', error ->> 'retryable' FROM tasker.tasks WHERE task_id = $b"), 'error|for good|false', 'fails the task');
$b = task('once');
claim('w');
is(ask("SELECT tasker.fail_step(" . step($b) . ", '{}')"), 'error', 'a step that is not retryable');
end_all();

# ---- many at once
$wide = task('wide');
$node->poll_query_until('postgres', "SELECT count(*) = 3 FROM tasker.queue WHERE task_id = $wide AND lane >= 100");
claim('w', ', max_steps => 3');
my ($one, $two, $three) = map { step($wide, $_) } 1 .. 3;
foreach my $function ('complete_steps', 'fail_steps')
{
	refused("SELECT tasker.$function(ARRAY[$one, $two], ARRAY['{}'::jsonb])", '22023', 'There are 2 steps, and 1 results', "$function(): two steps, one result");
	refused("SELECT tasker.$function(ARRAY[$one], '{}')", '22023', 'There are 1 steps, and 0 results', "$function(): no result");
	refused("SELECT tasker.$function(ARRAY[$one], NULL)", '22023', 'There are 1 steps, and 0 results', "$function(): NULL");
	refused("SELECT tasker.$function('{}', ARRAY['{}'::jsonb])", '22023', 'There are 0 steps, and 1 results', "$function(): no step");
	is(ask("SELECT count(*) FROM tasker.$function('{}', '{}')"), '0', "$function(): nothing");
	is(ask("SELECT count(*) FROM tasker.$function(NULL, NULL)"), '0', "$function(): NULLs");
	is(ask("SELECT count(*) FROM tasker.$function(ARRAY[NULL::bigint], ARRAY[NULL::jsonb])"), '0', "$function(): of NULL");
}
is(state($one), 'in_progress|1|w', 'nothing of it has done anything');
is(ask("SELECT string_agg(s::text, ' ') FROM tasker.complete_steps(ARRAY[$three, 4711, $one, $three], ARRAY['3', '0', NULL, '4']::jsonb[], 'w') AS s"),
	"$one $three", 'those that are accepted, each once');
is(ask("SELECT results FROM tasker.workflow_steps WHERE step_id = $three"), '3', 'the first word counts');
is(ask("SELECT * FROM tasker.fail_steps(ARRAY[$one, $two], ARRAY['\"a\"', '\"b\"']::jsonb[], false, 'w')"), $two, 'and fail_steps()');
is(ask("SELECT state, error ->> 'message' FROM tasker.tasks WHERE task_id = $wide"), 'error|b', 'with its own error');

# ---- transactions that roll back
$a = task('a');
ask("BEGIN; SELECT tasker.claim_steps('w'); ROLLBACK");
is(state(step($a)), 'pending|0|', 'a claim that is rolled back is none');
is(claim('w'), step($a), 'and another one finds the step');
ask("BEGIN; SELECT tasker.complete_step(" . step($a) . ", '{}', 'w'); ROLLBACK");
is(state(step($a)), 'in_progress|1|w', 'a completion that is rolled back is none');
ask("BEGIN; SAVEPOINT s; SELECT tasker.fail_step(" . step($a) . ", '{}'); ROLLBACK TO s; SELECT tasker.complete_step(" . step($a) . ", '1', 'w'); COMMIT");
is(state(step($a)), 'complete|1|', 'and may be done anew');
$a = task('a');
ask("BEGIN; SELECT tasker.claim_steps('w', lease => '1 hour'); PREPARE TRANSACTION 'claim'");
is(claim('v'), '', 'what a prepared transaction has claimed');
ask("COMMIT PREPARED 'claim'");
is(state(step($a)), 'in_progress|1|w', 'is held when that commits');
end_all();

# In a transaction under REPEATABLE READ the tables are taken as they are now.
my $repeatable = session($node, 'postgres');
$repeatable->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
$a = task('a');
is($repeatable->query_safe("SELECT step_id FROM tasker.claim_steps('w')"), step($a), 'a claim under REPEATABLE READ');
$repeatable->query_safe('COMMIT');
$repeatable->quit;
end_all();

# ---- what can't be claimed
my $api = task('fetched');
is(claim('w', ', max_steps => 10'), '', 'an api step is not claimed without naming it');
is(claim('w', ", ARRAY['a']"), '', 'nor by its class');
is(claim('w', ", ARRAY['a', 'api']"), step($api), 'but as api');
end_all();
$a = task('a');
ask("SELECT tasker.pause_task($a)");
is(claim('w'), '', 'a paused task gives nothing');
ask("SELECT tasker.resume_task($a)");
is(claim('w'), step($a), 'a resumed one does');
ask("SELECT tasker.pause_task($a)");
is(ask("SELECT * FROM tasker.heartbeat('w', ARRAY[" . step($a) . "], '1 hour')"), step($a), 'a lease goes on while its task is paused');
is(ask("SELECT tasker.complete_step(" . step($a) . ", '{}')"), 'complete', 'and may be completed');
is(ask("SELECT tasker.resume_task($a)"), 'complete', 'resumed, it has nothing left to do');
$a = task('a');
claim('w');
ask("SELECT tasker.pause_task($a)");
pass_time(3601);
wait_until($node, 'postgres', "SELECT state = 'waiting_for_retry' FROM tasker.workflow_steps WHERE step_id = " . step($a), 'a lease ends while its task is paused');
is(claim('w'), '', 'it is not claimed then');
ask("SELECT tasker.resume_task($a)");
is(claim('w'), step($a), 'but afterwards');
ask("SELECT tasker.cancel_task($a)");
refused("SELECT tasker.complete_step(" . step($a) . ", '{}', 'w')", 'TK003', 'The step is cancelled', 'a completion after the cancellation');
is(ask("SELECT * FROM tasker.heartbeat('w', ARRAY[" . step($a) . "])"), '', 'and a heartbeat');

# ---- the timeout of a step
my $timed = task('timed');
claim('w', ", lease => '100 hours'");
is(ask("SELECT lease_until - started_at FROM tasker.workflow_steps WHERE step_id = " . step($timed)), '10:00:00', 'no lease outlives the timeout');
pass_time(6 * 3600);
is(ask("SELECT * FROM tasker.heartbeat('w', ARRAY[" . step($timed) . "], '1 hour')"), step($timed), 'a heartbeat may shorten it');
is(ask("SELECT * FROM tasker.heartbeat('w', ARRAY[" . step($timed) . "], '100 hours')"), step($timed), 'or try to prolong it');
is(ask("SELECT lease_until - started_at FROM tasker.workflow_steps WHERE step_id = " . step($timed)), '10:00:00', 'but not beyond the timeout');
pass_time(5 * 3600);
wait_until($node, 'postgres', "SELECT state = 'waiting_for_retry' FROM tasker.workflow_steps WHERE step_id = " . step($timed), 'heartbeats or not, the time is up');
is(ask("SELECT error ->> 'sqlstate', error ->> 'message', error ->> 'retryable' FROM tasker.workflow_steps WHERE step_id = " . step($timed)),
	'57014|step timed out after 36000 s|true', 'which is a timeout');
is(ask("SELECT (next_attempt_at - (error ->> 'at')::timestamptz)::interval(0) FROM tasker.workflow_steps WHERE step_id = " . step($timed)), '00:00:10', 'and waits as any failure does');
refused("SELECT tasker.complete_step(" . step($timed) . ", '{}', 'w')", 'TK003', 'waiting_for_retry', 'its result comes too late');
pass_time(11);
$node->poll_query_until('postgres', 'SELECT count(*) = 1 FROM tasker.queue WHERE lane >= 100');
claim('w', ", lease => '1 hour'");
pass_time(3601);
wait_until($node, 'postgres', "SELECT state = 'error' FROM tasker.tasks WHERE task_id = $timed", 'its last attempt');
is(ask("SELECT error ->> 'sqlstate' FROM tasker.tasks WHERE task_id = $timed"), 'TK003', 'a lost lease is no timeout');

# ---- bound to the session
sub bound
{
	my ($how, $leave) = @_;
	my $session = session($node, 'postgres', on_error_stop => 0);
	my ($stays, $goes) = (task('a'), task('a'));
	my $pid = $session->query_safe('SELECT pg_backend_pid()');

	$session->query_safe("SELECT tasker.claim_steps('w', lease => '1 day')");
	$session->query_safe("SELECT tasker.claim_steps('w', lease => '1 day', bound_to_session => true)");
	$leave->($session, $pid);
	wait_until($node, 'postgres', "SELECT state = 'waiting_for_retry' FROM tasker.workflow_steps WHERE step_id = " . step($goes), "$how: what is bound to the session ends");
	is(state(step($stays)), 'in_progress|1|w', "$how: what is not, stays");
	is(claim('v'), step($goes), "$how: somebody else has it");
	end_all();
	return;
}
bound('disconnected', sub { $_[0]->quit });
bound('client killed', sub { $_[0]->{run}->kill_kill; });
bound('backend terminated', sub { ask("SELECT pg_terminate_backend($_[1], 10000)"); eval { $_[0]->quit } });
bound('in an open transaction', sub { $_[0]->query_safe('BEGIN; SELECT 1'); $_[0]->quit });
bound('in a failed one', sub { $_[0]->query('BEGIN; SELECT 1/0'); $_[0]->quit });
bound('read-only, with a search_path of its own', sub {
	my ($session) = @_;

	# Such an operator would run as a superuser, and say that nothing is equal.
	$session->query_safe(<<'SQL');
CREATE SCHEMA trap;
CREATE FUNCTION trap.never(bigint, bigint) RETURNS boolean LANGUAGE sql AS 'SELECT false';
CREATE OPERATOR trap.= (FUNCTION = trap.never, LEFTARG = bigint, RIGHTARG = bigint);
SET search_path = trap, pg_catalog;
SET default_transaction_read_only = on;
SET default_transaction_isolation = 'serializable';
SQL
	$session->quit;
});

# Only what the session itself holds still, or again.
my $session = session($node, 'postgres');
$a = task('a');
$session->query_safe("BEGIN; SELECT tasker.claim_steps('w', bound_to_session => true); ROLLBACK");
is(claim('w', ", lease => '1 day'"), step($a), 'after a bound claim that was rolled back');
$b = task('a');
$session->query_safe("SELECT tasker.claim_steps('w', lease => '1 day', bound_to_session => true)");
$session->query_safe("BEGIN; SELECT tasker.complete_step(" . step($b) . ", '{}'); ROLLBACK");
my $c = task('a');
$session->query_safe("SELECT tasker.claim_steps('w', lease => '1 day', bound_to_session => true)");
ask("SELECT tasker.complete_step(" . step($c) . ", '{}')");
$session->quit;
wait_until($node, 'postgres', "SELECT state = 'waiting_for_retry' FROM tasker.workflow_steps WHERE step_id = " . step($b), 'a completion that was rolled back does not unbind');
is(state(step($a)), 'in_progress|1|w', "somebody else's claim of the same attempt stays");
is(state(step($c)), 'complete|1|', 'and what another session has completed');
end_all();

# A long session does not remember what has ended.
$session = session($node, 'postgres');
my $before = $session->query_safe('SELECT sum(total_bytes) FROM pg_backend_memory_contexts WHERE name = \'TopMemoryContext\'');
my $ids = ask("SELECT count(*) FROM tasker.create_tasks('a', array_fill('{}'::jsonb, ARRAY[3000]))");
$node->poll_query_until('postgres', 'SELECT count(*) = 3000 FROM tasker.queue WHERE lane >= 100');
my $rounds = 0;
while ($rounds++ < 60)
{
	my $n = $session->query_safe(<<'SQL');
CREATE TEMP TABLE c AS SELECT * FROM tasker.claim_steps('w', max_steps => 100, bound_to_session => true);
SELECT count(*) FROM tasker.complete_steps(ARRAY(SELECT step_id FROM c), array_fill('{}'::jsonb, ARRAY[(SELECT count(*) FROM c)::integer]));
DROP TABLE c;
SQL
	last if $n == 0;
}
cmp_ok($rounds, '<', 60, 'a session that claims and completes 3,000 steps');
$session->quit;
is(ask("SELECT count(*) FROM tasker.tasks WHERE state <> 'complete' AND name = 'a' AND state <> 'cancelled' AND state <> 'error'"), '0', 'all of them');

# A claim never gives more than a thousand.
ask("SELECT tasker.create_tasks('a', array_fill('{}'::jsonb, ARRAY[1200]))");
$node->poll_query_until('postgres', 'SELECT count(*) = 1200 FROM tasker.queue WHERE lane >= 100');
is(ask("SELECT count(*) FROM tasker.claim_steps('w', max_steps => 1000000)"), '1000', 'a claim of a million');
is(ask("SELECT count(*) FROM tasker.claim_steps('w', max_steps => 1000000)"), '200', 'and the rest');

# ---- a heartbeat under way
# Failing a step waits for its heartbeat, and does not trip over it.
$a = task('a');
my $beats = session($node, 'postgres');
claim('w', ", lease => '1 day'");
$beats->query_safe("BEGIN; SELECT tasker.heartbeat('w', ARRAY[" . step($a) . "])");
my $fails = session($node, 'postgres');
$fails->query_until(qr/begun/, "\\echo begun\nSELECT tasker.fail_step(" . step($a) . ", '{}', worker => 'w');\n");
wait_until($node, 'postgres', "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%fail_step%')", 'a failure waits for a heartbeat under way');
$beats->query_safe('COMMIT');
$beats->quit;
like($fails->query_safe('SELECT 1'), qr/waiting_for_retry/, 'and then counts');
$fails->quit;

# ---- a limit
end_all();
ask("SELECT tasker.set_max_in_progress(2, handler => 'a')");
my @limited = map { task('a') } 1 .. 4;
is(claim('w', ', max_steps => 10'), join(' ', map { step($_) } @limited[ 0, 1 ]), 'no more than the limit');
is(claim('v', ', max_steps => 10'), '', 'for anybody');
ask("SELECT tasker.complete_step(" . step($limited[1]) . ", '{}')");
is(claim('v', ', max_steps => 10'), step($limited[2]), 'one ends, the next starts, in their order');
ask("SELECT tasker.set_max_in_progress(NULL, handler => 'a')");
is(claim('v', ', max_steps => 10'), step($limited[3]), 'the limit is lifted');
end_all();

is(ask("SELECT count(*) FROM tasker.queue WHERE lane >= -1 AND due < tasker.clock() AND step_no > 0"), '0', 'nothing is left over');
unlike(slurp_file($node->logfile), qr/PANIC|signal 11|TRAP|deadlock detected/, 'nothing broke');
$node->stop;
done_testing();
