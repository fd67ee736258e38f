# Random graphs, random failures, random operators: the engine against the
# model of TaskerModel.pm.  SEEDS and FROM choose the seeds; doc/testing.md
# tells how to replay one.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run ();
use List::Util qw(max min);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskerModel qw(new_case definition act settle_and_run next_phase replay value_of);
use TaskerTest;
use Test::More;
use Time::HiRes qw(time usleep);

my $seeds = $ENV{SEEDS} || 2000;
my $from = $ENV{FROM} || 1;

# So many in a round; those with a crash in a smaller one.
use constant ROUND => 100;
use constant CRASH_ROUND => 15;

# Seeds that one server sees: it never forgets a task, and verify() looks at all.
use constant SERVER => 400;

# Every so many-th seed has a crash.
use constant CRASH_EVERY => 34;

# How often an operator comes when all tasks rest.
use constant PHASES => 2;

# Longest time for a round to come to rest, in seconds.
use constant PATIENCE => $PostgreSQL::Test::Utils::timeout_default;

my $directory = PostgreSQL::Test::Utils::tempdir();
my $node;

my ($ran, $crashed, $checked_steps) = (0, 0, 0);

# A server with what the test needs in its database.
sub start_server
{
	my ($number) = @_;

	$node = new_server("model_$number", <<"CONF");
tasker.executors = 2
model.directory = '$directory'
synchronous_commit = off
log_min_messages = warning
log_statement = none
CONF
	$node->run_log([ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'),
		'-f', "$FindBin::RealBin/200_model.sql", '-o', '/dev/null' ]) or die 'could not prepare the database';
	return;
}

# The number of executors, as soon as there are so many.
sub set_executors
{
	my ($count) = @_;

	$node->safe_psql('postgres', "ALTER SYSTEM SET tasker.executors = $count");
	$node->reload;
	$node->poll_query_until('postgres', "SELECT count(*) = $count FROM pg_stat_activity WHERE backend_type = 'tasker executor'")
	  or die "there are not $count executors";
	return;
}

# A shell that runs psql as "$@", in the background.
sub start_psql
{
	my ($command) = @_;
	my $output = '';
	my $process = IPC::Run::start([ 'sh', '-c', $command, 'psql', 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres') ],
		'>', \$output, '2>&1');

	return { process => $process, output => \$output };
}

# A session that makes this call.
sub start_call
{
	my ($call) = @_;
	return start_psql("\"\$@\" -c '$call'");
}

# A worker that comes back after a crash, as long as this test runs.
sub start_worker
{
	my ($name) = @_;
	return start_psql("until \"\$@\" -c 'CALL model.take_up(\$\$$name\$\$)'; do kill -0 \$PPID || exit; sleep 0.1; done");
}

# Rows of a query, as lists.
sub rows
{
	my ($query) = @_;
	return map { [ split /\t/, $_, -1 ] } split /\n/, $node->safe_psql('postgres', $query, extra_params => [ '-F', "\t" ]);
}

sub action_rows
{
	my ($phase, $case, @actions) = @_;
	my $place = 0;

	return map { sprintf "(%d, %d, %d, '%s', %s)", $phase, $place++, $case->{seed}, $_->[0], $_->[1] // 'NULL' } @actions;
}

sub insert_actions
{
	my (@rows) = @_;
	return @rows ? 'INSERT INTO model.action (phase, place, seed, name, step_no) VALUES ' . join(', ', @rows) . ";\n" : '';
}

# Registers the templates, and creates the tasks in one transaction, together
# with what the operator does to them at once.
sub create_tasks
{
	my ($cases) = @_;
	my $sql = "SET client_min_messages = error;\nBEGIN;\n";
	my @actions;

	$sql .= 'SELECT count(tasker.register_task(d)) FROM unnest(ARRAY['
	  . join(",\n", map { '$d$' . definition($_) . '$d$' } @$cases) . "]) AS d;\nCOMMIT;\nBEGIN;\n";
	for my $case (@$cases)
	{
		my $bypass = join ', ', map { "'$_->{name}'" } grep { $_->{bypassed} } @{ $case->{steps} };
		my $later = $case->{later} ? ", run_at => tasker.clock() + interval '50 ms'" : '';

		$sql .= "INSERT INTO model.task SELECT $case->{seed}, tasker.create_task('seed $case->{seed}', bypass_steps => ARRAY[$bypass]::text[], "
		  . "priority => $case->{priority}$later);\n";
		push @actions, action_rows($case->{racing} ? -1 : 0, $case, @{ $case->{actions} // [] });
	}
	$sql .= insert_actions(@actions);
	$sql .= "SELECT model.operate_on(seed, task_id, 0) FROM model.task;\n";
	$node->safe_psql('postgres', $sql . "COMMIT;\n");
	for my $case (grep { !$_->{racing} } @$cases)
	{
		push @{ $case->{foretold} }, act($case, @$_) for @{ $case->{actions} // [] };
		settle_and_run($case);
	}
	return;
}

# Waits until no task goes on; in a round with crashes the server may be away.
sub wait_for_rest
{
	my ($first) = @_;
	my $until = time + PATIENCE;
	my $restless = '?';

	while (time < $until)
	{
		my $seconds = max(1, int($until - time));
		# A server that crashes may end psql before it has read what it is to ask.
		my ($status, $stdout) = eval {
			$node->psql('postgres', "CALL model.wait_for_rest($first, $seconds)");
			$node->psql('postgres', "SELECT * FROM model.restless($first)");
		};
		$status //= 2;
		$restless = $stdout if $status == 0;
		return () if $status == 0 && $stdout eq '';
		usleep(50_000);
	}
	return map { "does not come to rest: $_" } split /\n/, $restless;
}

# Stops everybody for a moment, in the middle of it all, and holds what is ready
# against the queue.
sub check_queue
{
	my ($first, $executors) = @_;
	my $session = session($node, 'postgres');
	my $problems;

	$session->query_safe('SELECT pg_advisory_lock(1)');
	set_executors(0);
	# Retries that become due meanwhile would be found by the one, not the other.
	$node->poll_query_until('postgres', "SELECT NOT EXISTS (SELECT FROM tasker.queue WHERE lane = -1 AND due_lane IS NOT NULL AND due > tasker.clock())");
	$problems = $session->query_safe("SELECT problem FROM model.readiness_problems($first) UNION ALL SELECT problem FROM model.verify()");
	set_executors($executors);
	$session->query_safe('SELECT pg_advisory_unlock(1)');
	$session->quit;
	return map { "at a stop: $_" } split /\n/, $problems;
}

# The steps and the log as they are now, by seed.
sub read_tasks
{
	my ($first) = @_;
	my (%task, %of_id);

	for my $row (rows("SELECT m.seed, t.task_id, t.state, (t.finished_at IS NULL)::int FROM tasker.tasks AS t JOIN model.task AS m USING (task_id) WHERE t.task_id >= $first"))
	{
		$task{ $row->[0] } = $of_id{ $row->[1] } = { id => $row->[1], state => $row->[2], steps => {}, log => [], effects => {} };
	}
	for my $row (rows("SELECT task_id, step_id & 16383, state, attempts, results ->> 'value', results ->> 'attempt', claimed_by FROM tasker.workflow_steps WHERE task_id >= $first"))
	{
		$of_id{ $row->[0] }{steps}{ $row->[1] } = { state => $row->[2], attempts => $row->[3], value => $row->[4], by_attempt => $row->[5], claimed_by => $row->[6] };
	}
	for my $row (rows("SELECT task_id, step_no, attempt FROM model.effect WHERE task_id >= $first"))
	{
		push @{ $of_id{ $row->[0] }{effects}{ $row->[1] } }, $row->[2];
	}
	for my $row (rows("SELECT task_id, coalesce(step_id & 16383, 0), transition_id, (extract(epoch FROM occurred_at) * 1000000)::bigint, from_state, to_state, attempt, translate(metadata ->> 'message', E'\\t\\n', '  ') FROM tasker.transitions WHERE task_id >= $first"))
	{
		push @{ $of_id{ $row->[0] }{log} },
		  { step => $row->[1], id => $row->[2], at => $row->[3], from => $row->[4], to => $row->[5], attempt => $row->[6] || 0, message => $row->[7] };
	}
	return \%task;
}

# What was accepted, and where it was foretold, whether it came so.
sub check_actions
{
	my ($cases) = @_;
	my (%accepted, %told, @problems);

	for my $row (rows("SELECT a.seed, a.name, a.step_no, a.accepted FROM model.action AS a ORDER BY a.seed, a.phase, a.place"))
	{
		my ($seed, $name, $number, $accepted) = @$row;
		push @{ $accepted{$seed} }, [ $name, $number || undef ] if $accepted eq 't';
		push @{ $told{$seed} }, $accepted eq 't' ? 1 : 0;
	}
	for my $case (grep { !$_->{racing} && !$_->{loose} } @$cases)
	{
		my $foretold = join ' ', @{ $case->{foretold} // [] };
		my $told = join ' ', @{ $told{ $case->{seed} } // [] };
		push @problems, "seed $case->{seed}: actions accepted: $told; by the model: $foretold" if $told ne $foretold;
	}
	return (\%accepted, @problems);
}

# Results and effects: one of each for a step that is complete, and no more.
sub check_work
{
	my ($case, $task) = @_;
	my @problems;

	for my $step (@{ $case->{steps} })
	{
		my $is = $task->{steps}{ $step->{number} };
		my $effects = join ' ', @{ $task->{effects}{ $step->{number} } // [] };
		my $expected = $is->{state} eq 'complete' ? $is->{attempts} : '';

		push @problems, "step $step->{number}: $is->{state}, and completed in attempts ($effects)" if $effects ne $expected;
		push @problems, "step $step->{number}: $is->{state}, and worker $is->{claimed_by} has it"
		  if $is->{claimed_by} ne '' && $is->{state} ne 'in_progress';
		next if $is->{state} ne 'complete';
		my $value = value_of($step, map { my $parent = $task->{steps}{$_}; $parent->{value} || 0 } @{ $step->{parents} });
		push @problems, "step $step->{number}: returned $is->{value}, the model $value" if $is->{value} ne $value;
		push @problems, "step $step->{number}: the result is of attempt $is->{by_attempt} of $is->{attempts}" if $is->{by_attempt} ne $is->{attempts};
	}
	return @problems;
}

# States and attempts, where they can be foretold.
sub check_foretold
{
	my ($case, $task) = @_;
	my @problems;

	return () if $case->{racing} || $case->{loose};
	push @problems, "task: $task->{state}, by the model $case->{state}" if $task->{state} ne $case->{state};
	for my $step (@{ $case->{steps} })
	{
		my $is = $task->{steps}{ $step->{number} };
		push @problems, "step $step->{number}: $is->{state} after $is->{attempts} attempts, by the model $step->{state} after $step->{attempts}"
		  if $is->{state} ne $step->{state} || $is->{attempts} != $step->{attempts};
	}
	return @problems;
}

# Everything, now that all tasks rest.
sub check_all
{
	my ($cases, $first) = @_;
	my $tasks = read_tasks($first);
	my ($accepted, @problems) = check_actions($cases);

	push @problems, map { "at rest: $_" } split /\n/, $node->safe_psql('postgres',
		"SELECT problem FROM model.readiness_problems($first) UNION ALL SELECT problem FROM model.verify() UNION ALL SELECT problem FROM model.problem");
	for my $case (@$cases)
	{
		my $task = $tasks->{ $case->{seed} };
		push @problems, map { "seed $case->{seed} (task $task->{id}): $_" } check_foretold($case, $task), check_work($case, $task),
		  replay($case, $task->{state}, $task->{steps}, $task->{log}, $accepted->{ $case->{seed} } // []);
	}
	return @problems;
}

# The operator comes to tasks at rest.
sub operate
{
	my ($cases, $phase) = @_;
	my @rows;

	for my $case (grep { !$_->{racing} } @$cases)
	{
		my @actions = next_phase($case);
		push @rows, action_rows($phase, $case, @actions);
		next if $case->{loose};
		push @{ $case->{foretold} }, act($case, @$_) for @actions;
		settle_and_run($case);
	}
	$node->safe_psql('postgres', insert_actions(@rows) . "CALL model.operate_on_all($phase);");
	return;
}

# Prepares a round; the ids of its tasks are this one and above.
sub begin_round
{
	my ($cases) = @_;

	$node->safe_psql('postgres', 'TRUNCATE model.task, model.action, model.effect, model.problem; UPDATE model.control SET working = true');
	create_tasks($cases);
	return $node->safe_psql('postgres', 'SELECT min(task_id) FROM model.task');
}

# Ends the workers.  With the server down now and then they have much to say;
# else what they say is a problem.
sub end_workers
{
	my ($sessions, $crash) = @_;

	$node->safe_psql('postgres', 'UPDATE model.control SET working = false');
	$_->{process}->finish for @$sessions;
	return $crash ? () : map { "a session says: ${ $_->{output} }" } grep { ${ $_->{output} } ne '' } @$sessions;
}

# Workers and operators at work together, and a stop in the middle of it.
sub race
{
	my ($cases, $first, $random) = @_;
	my $racing = join ', ', map { $_->{seed} } grep { $_->{racing} } @$cases;
	my @operators = map { start_call("CALL model.race($_, 2)") } 0, 1;
	my @problems;

	usleep($random * 7919 % 400 * 1000);
	push @problems, check_queue($first, executors($random + 1));
	$_->{process}->finish for @operators;
	push @problems, map { "an operator says: ${ $_->{output} }" } grep { ${ $_->{output} } ne '' } @operators;
	$node->safe_psql('postgres', "CALL model.resume_all(ARRAY[$racing]::integer[])");
	return @problems;
}

sub executors
{
	my ($random) = @_;
	return 1 + $random % 4;
}

# The executors begin when all is there: from then on the server may go down at
# any moment, and nothing but the run itself is sure.
sub run_round
{
	my ($cases, $crash) = @_;
	my $random = $cases->[0]{seed};
	my (@problems, $first, @workers);

	set_executors($crash ? 0 : executors($random));
	$first = begin_round($cases);
	@workers = map { start_worker("worker $_") } 1 .. 1 + int($random / 4) % 3;
	if ($crash)
	{
		$node->safe_psql('postgres', 'ALTER SYSTEM SET tasker.executors = ' . executors($random));
		$node->reload;
	}
	push @problems, race($cases, $first, $random) if !$crash;
	push @problems, wait_for_rest($first);
	push @problems, check_all($cases, $first) if !@problems;
	for my $phase (1 .. ($crash ? 0 : PHASES))
	{
		last if @problems;
		operate($cases, $phase);
		push @problems, wait_for_rest($first);
		push @problems, map { "after phase $phase: $_" } check_all($cases, $first) if !@problems;
	}
	push @problems, end_workers(\@workers, $crash);
	$checked_steps += $_->{count} for @$cases;
	return @problems;
}

# Runs the seeds in rounds.  Stops at the first round that fails: what follows
# in the same server would tell little.
sub run_rounds
{
	my ($crash, $size, @seeds) = @_;

	while (my @round = splice @seeds, 0, $size)
	{
		my $start = time;
		my $name = sprintf 'seeds %d to %d, %d of them, %s a crash', $round[0], $round[-1], scalar @round, $crash ? 'with' : 'without';
		my @problems = run_round([ map { new_case($_, $crash) } @round ], $crash);

		$ran += @round;
		$crashed += @round if $crash;
		ok(!@problems, $name);
		note sprintf '%.1f s', time - $start;
		next if !@problems;
		diag $_ for @problems[ 0 .. min($#problems, 40) ];
		diag "$#problems more" if @problems > 41;
		diag "replay: make model SEEDS=1 FROM=$1" if $problems[0] =~ /seed (\d+)/;
		return 0;
	}
	return 1;
}

# Seeds with crashes come last: each of them is slow.
sub run_in_server
{
	my (@seeds) = @_;

	start_server($seeds[0]);
	my $ok = run_rounds(0, ROUND, grep { $_ % CRASH_EVERY } @seeds)
	  && run_rounds(1, CRASH_ROUND, grep { $_ % CRASH_EVERY == 0 } @seeds);
	$node->stop;
	$node->clean_node if $ok;
	return $ok;
}

my $start = time;
note definition(new_case($from, $from % CRASH_EVERY == 0)) if $seeds == 1;
for (my $seed = $from; $seed < $from + $seeds; $seed += SERVER)
{
	last if !run_in_server($seed .. min($seed + SERVER, $from + $seeds) - 1);
}
is($ran, $seeds, "$seeds seeds from $from");
my $summary = sprintf '%d seeds from %d, %d of them with a crash, %d steps, in %.0f s', $ran, $from, $crashed, $checked_steps, time - $start;
$ENV{SEEDS} ? diag $summary : note $summary;
done_testing();
