# Crashes of every kind, with work in flight: afterwards every task is complete,
# and every step has had its effect exactly once.
#
# TASKER_SEED repeats the random choices of a run.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskerTest;
use Test::More;
use Time::HiRes qw(time usleep);

my $KILLS = 10;
my $TASKS = 100;    # of each kind, before each kill

my $seed = $ENV{TASKER_SEED} // int(rand(1 << 31));
srand($seed);
note("TASKER_SEED=$seed");

# A step may happen to be killed again and again, which is not what is tested here.
my $node = new_server('crash', 'tasker.max_crashes = 1000');
$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION tasker;
CREATE TABLE public.effect (
    step_id bigint PRIMARY KEY,
    depends_on jsonb
);
CREATE TABLE public.gate (open boolean);
SQL
create_handlers($node, 'postgres',
	quick => <<'SQL',
    INSERT INTO public.effect VALUES (step.step_id, step.dependencies);
    RETURN jsonb_build_object('step', step.step_name);
SQL
	slow => <<'SQL',
    INSERT INTO public.effect VALUES (step.step_id, step.dependencies);
    PERFORM pg_sleep(0.001);
    RETURN jsonb_build_object('step', step.step_name);
SQL
	behind_gate => <<'SQL',
    INSERT INTO public.effect VALUES (step.step_id, step.dependencies);
    WHILE NOT EXISTS (SELECT FROM public.gate) LOOP
        PERFORM pg_sleep(0.01);
    END LOOP;
    RETURN '{}';
SQL
	sleepy => <<'SQL',
    INSERT INTO public.effect VALUES (step.step_id, step.dependencies);
    IF NOT EXISTS (SELECT FROM public.gate) THEN
        PERFORM pg_sleep(3600);
    END IF;
    RETURN '{}';
SQL
);
$node->safe_psql('postgres', <<'SQL');
SET client_min_messages = error;
SELECT tasker.register_task('{"name": "one", "step_templates": [{"name": "only", "handler_class": "quick"}]}');
SELECT tasker.register_task('{"name": "chain", "step_templates": [
    {"name": "a", "handler_class": "quick"},
    {"name": "b", "handler_class": "quick", "depends_on_step": "a"},
    {"name": "c", "handler_class": "slow", "depends_on_step": "b"},
    {"name": "d", "handler_class": "quick", "depends_on_step": "c"}]}');
SELECT tasker.register_task('{"name": "diamond", "step_templates": [
    {"name": "a", "handler_class": "quick"},
    {"name": "b", "handler_class": "slow", "depends_on_step": "a"},
    {"name": "c", "handler_class": "quick", "depends_on_step": "a"},
    {"name": "d", "handler_class": "quick", "depends_on_steps": ["b", "c"]}]}');
SELECT tasker.register_task('{"name": "gate", "step_templates": [
    {"name": "a", "handler_class": "behind_gate"},
    {"name": "b", "handler_class": "quick", "depends_on_step": "a"}]}');
SELECT tasker.register_task('{"name": "sleepy", "step_templates": [{"name": "only", "handler_class": "sleepy"}]}');
SQL

my $created = 0;
sub create_work
{
	$created += 3 * $TASKS;
	$node->safe_psql('postgres', <<"SQL");
BEGIN;
SELECT count(tasker.create_task(name))
FROM generate_series(1, $TASKS) AS n
CROSS JOIN unnest(ARRAY['one', 'chain', 'diamond']) AS name;
COMMIT;
SQL
	return;
}

sub wait_for_server
{
	ok($node->poll_query_until('postgres', 'SELECT true'), "@_: the server is back");
	return;
}

# Creates work and finds, at a random moment, an executor that is in the middle of a
# step, and what is in flight besides.  The session ends with the server.
sub find_victim
{
	my $session = session($node, 'postgres', on_error_stop => 0);
	my $wait = int(rand(30_000));
	my $until = time + $PostgreSQL::Test::Utils::timeout_default;

	create_work();
	usleep($wait);
	while (time < $until)
	{
		my $found = $session->query(<<'SQL');
SELECT w.pid, w.task_id, w.step_no,
       (SELECT count(*) FROM tasker.task WHERE finished_at IS NULL),
       (SELECT count(*) FROM tasker.queue)
FROM tasker._workers() AS w
WHERE w.kind = 'executor' AND w.task_id IS NOT NULL
ORDER BY random()
LIMIT 1
SQL
		return ($session, split /\|/, $found) if $found =~ /^\d/;
		# All of it may have ended before we looked.
		create_work() if $session->query('SELECT count(*) FROM tasker.task WHERE finished_at IS NULL') eq '0';
	}
	die 'no executor is at work';
}

# Every task is complete, every step had its effect once, and the log tells the
# same by legal moves.
sub all_is_well
{
	my ($name) = @_;

	ok($node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM tasker.task WHERE finished_at IS NULL'),
		"$name: every task ends");
	is($node->safe_psql('postgres', "SELECT string_agg(DISTINCT state, ',') FROM tasker.tasks"), 'complete',
		"$name: every task is complete");
	is($node->safe_psql('postgres', "SELECT string_agg(DISTINCT state || ' ' || attempts, ',') FROM tasker.workflow_steps"),
		'complete 1', "$name: every step is, at its first attempt");
	is($node->safe_psql('postgres', <<'SQL'), '0', "$name: every step had its effect exactly once");
SELECT count(*)
FROM tasker.workflow_steps AS s
FULL JOIN public.effect AS e USING (step_id)
WHERE e.step_id IS NULL OR s.step_id IS NULL
SQL
	is($node->safe_psql('postgres', <<'SQL'), '0', "$name: every step got the results of those before it");
SELECT count(*)
FROM public.effect AS e
WHERE (SELECT count(*) FROM jsonb_object_keys(e.depends_on))
      <> (SELECT count(*) FROM tasker.workflow_step_edges AS x WHERE x.task_id = e.step_id >> 14 AND x.to_step_id = e.step_id)
   OR jsonb_path_exists(e.depends_on, '$.* ? (@ == null)')
SQL
	is($node->safe_psql('postgres', <<'SQL'), <<'EXPECTED' =~ s/\n\z//r, "$name: the log tells the whole life of each");
SELECT kind, life, count(*) > 0
FROM (
    SELECT CASE WHEN step_id IS NULL THEN 'task' ELSE 'step' END AS kind,
           string_agg(coalesce(from_state, '') || '>' || to_state, ' ' ORDER BY occurred_at, transition_id) AS life
    FROM tasker.transitions
    GROUP BY task_id, step_id) AS l
GROUP BY kind, life
ORDER BY kind, life
SQL
step|pending>in_progress in_progress>complete|t
task|>pending pending>in_progress in_progress>complete|t
EXPECTED
	is($node->safe_psql('postgres', <<'SQL'), '0', "$name: no step and no task is missing in it");
SELECT count(*)
FROM (
    SELECT task_id, NULL AS step_id FROM tasker.tasks
    UNION ALL
    SELECT task_id, step_id FROM tasker.workflow_steps) AS s
WHERE NOT EXISTS (
    SELECT FROM tasker.transitions AS t
    WHERE t.task_id = s.task_id AND t.step_id IS NOT DISTINCT FROM s.step_id)
SQL
	is($node->safe_psql('postgres', 'SELECT (SELECT count(*) FROM tasker.queue), (SELECT count(*) FROM tasker.crash)'),
		'0|0', "$name: nothing is left to do");
	return;
}

# Executors, killed in the middle of a batch.
foreach my $kill (1 .. $KILLS)
{
	my ($session, $pid, $task, $step, $tasks, $tokens) = find_victim();
	my $log = -s $node->logfile;
	kill 'KILL', $pid;
	note("kill $kill: executor $pid in step $step of task $task, $tasks of $created tasks unfinished, $tokens tokens in the queue");
	cmp_ok($tasks, '>', 0, "kill $kill: work was in flight");
	$node->wait_for_log(qr/all server processes terminated; reinitializing/, $log);
	eval { $session->quit };
	wait_for_server("kill $kill");
}
all_is_well("$KILLS executors killed");
is($node->safe_psql('postgres', 'SELECT count(*) FROM tasker.task'), $created, 'no task is lost');
cmp_ok($created, '>=', 3000, 'there were thousands of them');
my $caught = () = slurp_file($node->logfile) =~ /an executor crashed while it ran step/g;
note("$caught of $KILLS kills hit a handler");

# The other processes.
foreach my $type ('launcher', 'notifier')
{
	waits_for_workers($node, 'postgres', 2, "$type: all workers are there");
	my ($session, undef, undef, undef, $tasks) = find_victim();
	my $log = -s $node->logfile;
	my $victim = $session->query("SELECT pid FROM pg_stat_activity WHERE backend_type = 'tasker $type'");
	kill 'KILL', $victim;
	note("$type killed, $tasks tasks unfinished");
	$node->wait_for_log(qr/all server processes terminated; reinitializing/, $log);
	eval { $session->quit };
	wait_for_server("$type killed");
	waits_for_workers($node, 'postgres', 2, "$type killed: all workers are back");
	is($node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'tasker launcher'"), '1',
		"$type killed: so is the launcher");
	all_is_well("$type killed");
}

# An immediate shutdown, which is a crash of everybody.
my ($session, undef, undef, undef, $tasks) = find_victim();
note("immediate shutdown, $tasks tasks unfinished");
$node->stop('immediate');
eval { $session->quit };
$node->start;
all_is_well('immediate shutdown');
is(() = slurp_file($node->logfile) =~ /an executor crashed while it ran step/g, $caught,
	'no step is blamed for what it did not do');

# An executor that is terminated in the middle of a handler.
sub busy
{
	my ($handler, $count) = @_;

	ok($node->poll_query_until('postgres', <<"SQL"), "$count executor(s) are in a handler");
SELECT count(*) = $count
FROM tasker._workers() AS w
JOIN tasker.task AS t USING (task_id)
JOIN tasker.plan AS p USING (plan_id)
WHERE w.kind = 'executor' AND p.name = '$handler'
SQL
	return;
}
$node->safe_psql('postgres', "SELECT tasker.create_task('gate')");
busy('gate', 1);
my $victim = $node->safe_psql('postgres', "SELECT pid FROM tasker._workers() WHERE task_id IS NOT NULL");
$node->safe_psql('postgres', "SELECT pg_terminate_backend($victim)");
ok($node->poll_query_until('postgres', <<"SQL"), 'another one takes the step');
SELECT count(*) = 1 FROM tasker._workers() WHERE task_id IS NOT NULL AND pid <> $victim
SQL
is($node->safe_psql('postgres', 'SELECT count(*) FROM tasker.crash'), '0', 'that is no crash');
$node->safe_psql('postgres', 'INSERT INTO public.gate VALUES (true)');
all_is_well('executor terminated');

# A fast restart does not wait for handlers.
$node->safe_psql('postgres', 'DELETE FROM public.gate');
$node->safe_psql('postgres', "SELECT tasker.create_task('sleepy')");
$node->safe_psql('postgres', "SELECT tasker.create_task('sleepy')");
busy('sleepy', 2);
$node->restart;
pass('a fast restart in the middle of handlers that take an hour');
$node->safe_psql('postgres', 'INSERT INTO public.gate VALUES (true)');
$node->restart;
pass('and another one');
all_is_well('fast restart');

$node->stop('fast');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|signal 11|signal 6/, 'no process crashed by itself');

done_testing();
