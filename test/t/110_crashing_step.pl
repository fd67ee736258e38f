# A step that brings the server down each time it runs ends in error, and does
# nobody else any harm.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskerTest;
use Test::More;

my $node = new_server('crashing', '');

$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION tasker;
CREATE TABLE public.done (step_id bigint PRIMARY KEY);
SQL

# The handlers: one that kills its own executor until that has been counted so
# often, and one that writes a row.
create_handlers($node, 'postgres',
	quick => <<'SQL',
    INSERT INTO public.done VALUES (step.step_id);
    RETURN '{}';
SQL
	crash => <<'SQL',
    IF coalesce((SELECT sum(c.crashes) FROM tasker.crash AS c WHERE c.task_id = step.task_id), 0)
       < (step.context ->> 'times')::integer THEN
        EXECUTE format('COPY (SELECT 1) TO PROGRAM %L', 'kill -9 ' || pg_backend_pid());
        PERFORM pg_sleep(60);
    END IF;
    INSERT INTO public.done VALUES (step.step_id);
    RETURN jsonb_build_object('attempt', step.attempt);
SQL
);
$node->safe_psql('postgres', <<'SQL');
SET client_min_messages = error;
SELECT tasker.register_task('{"name": "quick", "step_templates": [{"name": "only", "handler_class": "quick"}]}');
SELECT tasker.register_task('{"name": "crash", "step_templates": [{"name": "only", "handler_class": "crash"}]}');
SELECT tasker.register_task('{"name": "crash_behind", "step_templates": [
    {"name": "first", "handler_class": "quick"},
    {"name": "second", "handler_class": "crash", "depends_on_step": "first"},
    {"name": "beside", "handler_class": "quick", "depends_on_step": "first"},
    {"name": "third", "handler_class": "quick", "depends_on_step": "second"}]}');
SQL

# Waits until the tasks have ended, over restarts of the server.
sub finish
{
	my @ids = @_;
	my $ids = join ',', @ids;

	ok($node->poll_query_until('postgres',
			"SELECT bool_and(finished_at IS NOT NULL) FROM tasker.task WHERE task_id IN ($ids)"),
		"tasks end");
	return;
}

sub answer
{
	my ($name, $sql, $expected) = @_;

	is($node->safe_psql('postgres', $sql), $expected, $name);
	return;
}

sub restarts
{
	return scalar(() = slurp_file($node->logfile) =~ /all server processes terminated; reinitializing/g);
}

# Creates quick tasks, a crashing one, and quick ones, at once.  Where it says
# so, the handler is known to be fast, so that the crash comes in the middle of
# a batch.
sub crash_among_others
{
	my ($name, $times, $known) = @_;
	if ($known)
	{
		finish(split /\n/, $node->safe_psql('postgres',
			"SELECT tasker.create_task('$name', '{\"times\": 0}') FROM generate_series(1, 8)"));
	}
	my @ids = split /\n/, $node->safe_psql('postgres', <<"SQL");
BEGIN;
SELECT tasker.create_tasks('quick', array_fill('{}'::jsonb, ARRAY[100]));
SELECT tasker.create_task('$name', '{"times": $times}');
SELECT tasker.create_tasks('quick', array_fill('{}'::jsonb, ARRAY[100]));
COMMIT;
SQL
	finish(@ids);
	my ($crash) = splice @ids, 100, 1;
	answer("$name, $times: the others are complete, each at its first attempt",
		'SELECT DISTINCT state, attempts FROM tasker.workflow_steps WHERE task_id IN (' . join(',', @ids) . ')', 'complete|1');
	answer("$name, $times: and ran exactly once",
		'SELECT count(*) FROM public.done WHERE step_id >> 14 IN (' . join(',', @ids) . ')', 200);
	return $crash;
}

my $before = restarts();
my $id = crash_among_others('crash', 1000, 0);
is(restarts() - $before, 3, 'the server went down three times and no more');
answer('the step is in error', <<"SQL", 'error|0|error|57P02|the server crashed 3 times while this step ran|t|t|false');
SELECT s.state, s.attempts, t.state, s.error ->> 'sqlstate', s.error ->> 'message',
       s.error ->> 'detail' <> '', s.error ->> 'hint' LIKE '%server log%', s.error ->> 'retryable'
FROM tasker.workflow_steps AS s
JOIN tasker.tasks AS t USING (task_id)
WHERE s.task_id = $id
SQL
answer('by legal moves', "SELECT string_agg(from_state || '>' || to_state, ' ' ORDER BY transition_id) FROM tasker.transitions WHERE task_id = $id AND step_id IS NOT NULL",
	'pending>error');
answer('nothing of it is left', 'SELECT count(*) FROM tasker.crash', '0');
like(slurp_file($node->logfile), qr/an executor crashed while it ran step 1 of task $id\n.*That happened 2 times; at 3 the step goes to error/,
	'the log says which step it was');

# In the middle of a task, in a batch: no token of the step's own exists yet.
$before = restarts();
$id = crash_among_others('crash_behind', 1000, 1);
is(restarts() - $before, 3, 'three times again');
answer('the step in the middle is in error, those beside it are not', <<"SQL", 'first complete 1,second error 0,beside complete 1,third pending 0');
SELECT string_agg(concat_ws(' ', name, state, attempts), ',' ORDER BY step_id)
FROM tasker.workflow_steps
WHERE task_id = $id
SQL
answer('and the task is in error', "SELECT state, error ->> 'sqlstate' FROM tasker.tasks WHERE task_id = $id", 'error|57P02');

# A crash is no attempt, and one or two by chance are none of the step's doing.
foreach my $times (1, 2)
{
	$before = restarts();
	$id = crash_among_others($times == 1 ? 'crash' : 'crash_behind', $times, 1);
	is(restarts() - $before, $times, "$times crash(es)");
	answer("$times crash(es): complete at the first attempt",
		"SELECT DISTINCT state, attempts FROM tasker.workflow_steps WHERE task_id = $id", 'complete|1');
	answer("$times crash(es): nothing of it is left", 'SELECT count(*) FROM tasker.crash', '0');
}

# The limit is a setting.
$node->safe_psql('postgres', 'ALTER SYSTEM SET tasker.max_crashes = 1');
$node->reload;
$before = restarts();
$id = crash_among_others('crash_behind', 1000, 1);
is(restarts() - $before, 1, 'tasker.max_crashes = 1: one crash');
answer('tasker.max_crashes = 1: in error',
	"SELECT state, error ->> 'message' FROM tasker.workflow_steps WHERE task_id = $id AND name = 'second'",
	'error|the server crashed 1 times while this step ran');

answer('every step that is complete ran exactly once', <<'SQL', 't');
SELECT (SELECT count(*) FROM public.done) = count(*)
   AND count(*) = (SELECT count(*) FROM public.done AS d JOIN tasker.workflow_steps AS s USING (step_id) WHERE s.state = 'complete')
FROM tasker.workflow_steps
WHERE state = 'complete'
SQL

$node->stop;
done_testing();
