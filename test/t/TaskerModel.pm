# The model: what tasks must come to, said once more and in another language.
#
# A seed gives a case: a graph of steps, what happens in each attempt of each
# step, and what an operator does.  The model runs it without a clock and
# without a database, and says in which state each step and the task end, after
# how many attempts.  replay() takes the log of what the engine did and checks
# it against the same rules, where the moment of an action was left to chance
# and no one result can be foretold.
#
# It is written from the documentation alone and calls nothing of the extension.
package TaskerModel;

use strict;
use warnings;

use List::Util qw(all any max min sum0);
use Exporter 'import';

our @EXPORT_OK = qw(new_case definition act settle_and_run next_phase replay value_of);

# Which state may follow which.
my %TASK_RULES = (
	'' => [qw(pending)],
	pending => [qw(in_progress paused error cancelled)],
	in_progress => [qw(pending paused complete error cancelled)],
	paused => [qw(pending in_progress error cancelled)],
	complete => [qw(cancelled)],
	error => [qw(pending resolved_manually cancelled)],
	resolved_manually => [qw(cancelled)],
	cancelled => []);
my %STEP_RULES = (
	pending => [qw(in_progress skipped error cancelled resolved_manually)],
	in_progress => [qw(complete waiting_for_retry error cancelled)],
	waiting_for_retry => [qw(in_progress pending error cancelled resolved_manually)],
	error => [qw(pending resolved_manually cancelled)],
	complete => [],
	cancelled => [],
	resolved_manually => [],
	skipped => []);

my %SATISFIES = map { $_ => 1 } qw(complete resolved_manually skipped);
my %STEP_OPEN = map { $_ => 1 } qw(pending in_progress waiting_for_retry);
my %TASK_ENDED = map { $_ => 1 } qw(complete error cancelled resolved_manually);

# What a step may do in an attempt: of its own, or at the hands of a worker.
my %SUCCEEDS = (succeed => 1);
my %FINAL_FAILURE = (fail_for_good => 1);

# Results are numbers that tell where they came from, below this one.
use constant MODULUS => 1_000_003;

sub allowed
{
	my ($rules, $from, $to) = @_;
	return any { $_ eq $to } @{ $rules->{$from} // [] };
}

#
# Chance.  Each case has a generator of its own, so it is the same whatever
# other cases run beside it.
#

sub chance
{
	my ($case, $limit) = @_;

	$case->{random} = ($case->{random} * 1103515245 + 12345) & 0x7fffffff;
	return ($case->{random} >> 8) % $limit;
}

sub percent
{
	my ($case, $share) = @_;
	return chance($case, 100) < $share;
}

sub pick
{
	my ($case, @of) = @_;
	return $of[ chance($case, scalar @of) ];
}

#
# Making a case.
#

# Positions of the parents of the node at this position, all before it.
sub parent_positions
{
	my ($case, $shape, $position) = @_;
	my %chosen;

	return () if $position == 0;
	return ($position - 1) if $shape eq 'chain';
	return (0) if $shape eq 'star' && $position < $case->{count} - 1;
	return (1 .. $position - 1) if $shape eq 'star' && $position > 1;
	return () if percent($case, $shape eq 'wide' ? 30 : 8);
	my $window = $shape eq 'wide' ? 20 : $shape eq 'narrow' ? 3 : 60;
	my $fan_in = 1 + chance($case, pick($case, 1, 2, 3, 8));
	for (1 .. $fan_in)
	{
		$chosen{ max(0, $position - 1 - chance($case, min($window, $position))) } = 1;
	}
	return sort { $a <=> $b } keys %chosen;
}

# What happens in each attempt; the last entry holds for those that follow.
sub outcomes
{
	my ($case, $handler) = @_;
	my @failures = $handler eq 'outside' ? qw(fail fail fail_for_good lose_lease lose_lease) : qw(fail fail fail fail_for_good);
	my @list;

	return ('succeed') if $handler eq 'plain' || !percent($case, $case->{trouble});
	push @list, pick($case, @failures) for 1 .. 1 + chance($case, 3);
	push @list, 'succeed' if percent($case, 80);
	return @list;
}

sub new_step
{
	my ($case, $number) = @_;
	my $handler = pick($case, qw(quick quick quick quick plain own outside outside));
	my $step = {
		number => $number,
		name => sprintf('step %02d', $number),
		handler => $handler,
		limit => 1 + chance($case, 4),
		retryable => !percent($case, 6),
		base_delay => pick($case, 0.001, 0.002, 0.005, 0.02),
		max_delay => pick($case, 0.02, 0.05),
		jitter => pick($case, 0, 0.1, 0.5, 1),
		bypassed => percent($case, $case->{bypassing}),
		outcomes => [ outcomes($case, $handler) ],
		crashes => 0,
		timeout => 0,
		state => 'pending',
		attempts => 0 };

	$step->{max_attempts} = $step->{limit};
	return $step;
}

# Few, for they take their time.  Where a later attempt is to succeed, it gets
# time enough even on a machine that is busy.
sub let_time_out
{
	my ($case, $step) = @_;
	my $once = percent($case, 20);

	$step->{handler} = 'slow';
	$step->{timeout} = $once ? 1 : 0.05;
	$step->{outcomes} = $once ? [qw(time_out succeed)] : [qw(time_out)];
	$step->{max_attempts} = $step->{limit} = $once ? 2 : 1 + chance($case, 2);
	return;
}

# The case of a seed: crash tells whether a step brings the server down.
sub new_case
{
	my ($seed, $crash) = @_;
	my $case = { seed => $seed, random => ($seed * 2654435761 + 97) & 0x7fffffff };
	my (@number, @place);

	chance($case, 2) for 1 .. 3;
	$case->{racing} = !$crash && percent($case, 30);
	$case->{count} = percent($case, 45) ? 1 + chance($case, 6) : 1 + chance($case, 60);
	$case->{trouble} = pick($case, 0, 5, 10, 30);
	$case->{bypassing} = pick($case, 0, 0, 5, 20);
	$case->{stop} = percent($case, 20);
	$case->{priority} = chance($case, 3);
	$case->{later} = percent($case, 5);
	# Not by chance, which would make another case of every seed.
	$case->{serial} = $seed % 6 == 5;
	$case->{state} = 'pending';

	# Numbers have no order along the graph.
	@number = 1 .. $case->{count};
	for my $i (reverse 1 .. $#number)
	{
		my $j = chance($case, $i + 1);
		@number[ $i, $j ] = @number[ $j, $i ];
	}
	$case->{steps} = [ map { new_step($case, $_) } 1 .. $case->{count} ];
	my $shape = pick($case, qw(chain star wide narrow any any));
	for my $position (0 .. $#number)
	{
		my $step = step($case, $number[$position]);
		$step->{parents} = [ map { $number[$_] } parent_positions($case, $shape, $position) ];
	}
	for my $step (@{ $case->{steps} })
	{
		push @{ step($case, $_)->{children} }, $step->{number} for @{ $step->{parents} };
	}
	let_time_out($case, pick($case, @{ $case->{steps} })) if percent($case, 6);
	expire($case) if $case->{racing} && percent($case, 8);
	crash($case) if $crash;
	if ($case->{racing})
	{
		$case->{actions} = [ map { [ random_action($case) ] } 1 .. 2 + chance($case, 5) ];
	}
	elsif (!$crash && percent($case, 20))
	{
		$case->{actions} = [ ['pause_task'], map { [ random_action($case) ] } 1 .. chance($case, 3) ];
	}
	return $case;
}

# One step that brings the server down: once, twice, or whenever it runs.
sub crash
{
	my ($case) = @_;
	my $step = pick($case, @{ $case->{steps} });

	$step->{handler} = 'crash';
	$step->{bypassed} = 0;
	$step->{timeout} = 0;
	$step->{crashes} = pick($case, 1, 1, 1, 2, 'always');
	$step->{outcomes} = ['succeed'];
	return;
}

# The task's time is up before a step that a worker keeps can end.
sub expire
{
	my ($case) = @_;
	my $step = pick($case, @{ $case->{steps} });

	$case->{timeout} = 0.1 + chance($case, 5) / 10;
	$step->{handler} = 'outside';
	$step->{outcomes} = ['keep'];
	$step->{timeout} = 0;
	return;
}

# The definition to register, as JSON.
sub definition
{
	my ($case) = @_;
	my @steps;

	for my $step (@{ $case->{steps} })
	{
		push @steps, sprintf('{"name": "%s", "handler_class": "%s", "depends_on_steps": [%s], "default_retryable": %s, '
			  . '"retry": {"limit": %d, "base_delay": %s, "max_delay": %s, "jitter": %s}, %s'
			  . '"handler_config": {"outcomes": [%s], "crashes": "%s"}}',
			$step->{name}, $step->{handler},
			join(', ', map { '"' . step($case, $_)->{name} . '"' } @{ $step->{parents} }),
			$step->{retryable} ? 'true' : 'false', $step->{limit}, @$step{qw(base_delay max_delay jitter)},
			$step->{timeout} ? "\"timeout\": $step->{timeout}, " : '',
			join(', ', map { "\"$_\"" } @{ $step->{outcomes} }), $step->{crashes});
	}
	return sprintf('{"name": "seed %d", "on_failure": "%s", "concurrent": %s, %s"step_templates": [%s]}',
		$case->{seed}, $case->{stop} ? 'stop' : 'continue', $case->{serial} ? 'false' : 'true',
		$case->{timeout} ? "\"timeout\": $case->{timeout}, " : '', join(', ', @steps));
}

#
# The rules.
#

sub step
{
	my ($case, $number) = @_;
	return $case->{steps}[ $number - 1 ];
}

sub outcome
{
	my ($step, $attempt) = @_;
	return $step->{outcomes}[ min($attempt - 1, $#{ $step->{outcomes} }) ];
}

# Whether a failure in this attempt leaves another one.
sub leaves_another
{
	my ($step, $outcome, $attempt, $max_attempts) = @_;
	return !$FINAL_FAILURE{$outcome} && $step->{retryable} && $attempt < $max_attempts;
}

sub in_state
{
	my ($case, @states) = @_;
	my %wanted = map { $_ => 1 } @states;
	return grep { $wanted{ $_->{state} } } @{ $case->{steps} };
}

sub is_ready
{
	my ($case, $step) = @_;
	return $step->{state} eq 'pending' && all { $SATISFIES{ step($case, $_)->{state} } } @{ $step->{parents} };
}

sub goes_on
{
	my ($case) = @_;
	return ($case->{state} eq 'pending' || $case->{state} eq 'in_progress')
	  && !($case->{stop} && in_state($case, 'error'));
}

sub has_ended
{
	my ($case) = @_;
	return $TASK_ENDED{ $case->{state} };
}

# A task of which nothing goes on ends.
sub settle
{
	my ($case) = @_;

	return if $case->{state} ne 'pending' && $case->{state} ne 'in_progress';
	return if goes_on($case) && any { is_ready($case, $_) || $_->{state} eq 'waiting_for_retry' } @{ $case->{steps} };
	$case->{started} = 1;
	$case->{state} =
	    (all { $SATISFIES{ $_->{state} } } @{ $case->{steps} }) ? 'complete'
	  : in_state($case, 'error') ? 'error'
	  : 'cancelled';
	return;
}

# A step that is ready, up to its end: a bypassed one is skipped, another one
# makes its attempts.
sub run_step
{
	my ($case, $step) = @_;
	my $outcome;

	if ($step->{bypassed} || $step->{crashes} eq 'always')
	{
		$step->{state} = $step->{bypassed} ? 'skipped' : 'error';
		return;
	}
	do
	{
		$outcome = outcome($step, ++$step->{attempts});
	} while (!$SUCCEEDS{$outcome} && leaves_another($step, $outcome, $step->{attempts}, $step->{max_attempts}));
	$step->{state} = $SUCCEEDS{$outcome} ? 'complete' : 'error';
	return;
}

# Lets the task go on until it has ended or rests.  With on_failure: stop it
# depends on the order what had run when a step failed: from there on no single
# result can be foretold, and the case is loose.
sub settle_and_run
{
	my ($case) = @_;
	my @ready;

	settle($case);
	while (goes_on($case) && (@ready = grep { is_ready($case, $_) } @{ $case->{steps} }))
	{
		$case->{state} = 'in_progress';
		$case->{started} = 1;
		run_step($case, $_) for @ready;
		$case->{loose} = 1 if $case->{stop} && in_state($case, 'error');
		settle($case);
	}
	return;
}

# An operator's retry: as many attempts as the definition says, once more.
sub start_anew
{
	my ($step) = @_;

	$step->{state} = 'pending';
	$step->{max_attempts} = $step->{attempts} + $step->{limit};
	return;
}

# Cancels a step and all that need it.
sub cancel
{
	my ($case, $step) = @_;

	$step->{state} = 'cancelled';
	cancel($case, $_) for grep { $STEP_OPEN{ $_->{state} } } map { step($case, $_) } @{ $step->{children} };
	return;
}

sub reopen
{
	my ($case) = @_;

	$case->{state} = 'pending' if $case->{state} eq 'error';
	return;
}

sub move_task
{
	my ($case, $to) = @_;

	return 0 if !allowed(\%TASK_RULES, $case->{state}, $to);
	$case->{state} = $to;
	return 1;
}

# Steps are dealt with while their task has not ended, or is in error.
sub may_move_step
{
	my ($case, $step, $to) = @_;
	return (!has_ended($case) || $case->{state} eq 'error') && allowed(\%STEP_RULES, $step->{state}, $to);
}

my %ACTIONS = (
	pause_task => sub {
		my ($case) = @_;
		return move_task($case, 'paused');
	},
	resume_task => sub {
		my ($case) = @_;
		return $case->{state} eq 'paused' && move_task($case, $case->{started} ? 'in_progress' : 'pending');
	},
	cancel_task => sub {
		my ($case) = @_;
		return 0 if !move_task($case, 'cancelled');
		$_->{state} = 'cancelled' for grep { $STEP_OPEN{ $_->{state} } } @{ $case->{steps} };
		return 1;
	},
	retry_task => sub {
		my ($case) = @_;
		return 0 if $case->{state} ne 'error';
		start_anew($_) for in_state($case, 'error');
		return move_task($case, 'pending');
	},
	resolve_task => sub {
		my ($case) = @_;
		return move_task($case, 'resolved_manually');
	},
	retry_step => sub {
		my ($case, $step) = @_;
		return 0 if !may_move_step($case, $step, 'pending');
		start_anew($step);
		reopen($case);
		return 1;
	},
	resolve_step => sub {
		my ($case, $step) = @_;
		return 0 if !may_move_step($case, $step, 'resolved_manually');
		$step->{state} = 'resolved_manually';
		reopen($case);
		return 1;
	},
	cancel_step => sub {
		my ($case, $step) = @_;
		return 0 if !may_move_step($case, $step, 'cancelled');
		cancel($case, $step);
		return 1;
	});

# An operator acts on a task at rest.  Returns whether that is accepted.
sub act
{
	my ($case, $name, $number) = @_;
	my $accepted = $ACTIONS{$name}->($case, $number ? step($case, $number) : undef);

	settle($case) if $accepted;
	return $accepted ? 1 : 0;
}

# An action on whatever, legal or not.
sub random_action
{
	my ($case) = @_;
	my $name = pick($case, qw(pause_task resume_task cancel_task retry_task retry_task resolve_task
		retry_step retry_step resolve_step resolve_step cancel_step));

	return ($name) if $name =~ /_task$/;
	return ($name, 1 + chance($case, $case->{count}));
}

# What the operator does now that the task rests: for the most part something
# that makes sense.
sub next_phase
{
	my ($case) = @_;
	my @failed = in_state($case, 'error');
	my @pending = in_state($case, 'pending');
	my @actions;

	return () if $case->{state} eq 'cancelled' || $case->{state} eq 'complete' && !percent($case, 10);
	if (@failed)
	{
		my $number = pick($case, @failed)->{number};
		push @actions, pick($case, ['retry_task'], ['retry_step', $number], ['resolve_step', $number], ['cancel_step', $number]);
	}
	push @actions, ['pause_task'] if percent($case, 20);
	push @actions, [ pick($case, qw(resolve_step cancel_step)), pick($case, @pending)->{number} ] if @pending && percent($case, 30);
	push @actions, [ random_action($case) ] if percent($case, 30);
	push @actions, ['retry_task'] if percent($case, 30);
	push @actions, ['resume_task'] if percent($case, 60);
	return @actions;
}

# The number a step returns: from its own and its parents', of which those that
# were skipped or resolved without a result have none.
sub value_of
{
	my ($step, @values) = @_;
	return ($step->{number} + sum0(map { $_ // 0 } @values)) % MODULUS;
}

#
# Replaying the log.
#

# Checks the history of a task.  log: rows of id, at (µs), step (0: the task),
# from, to, attempt.  steps: by number, state and attempts as the table has them.
# accepted: what the operator was allowed, [name, step] each.  at_end: nothing
# of the task goes on any more.  Returns what is wrong.
sub replay
{
	my ($case, $task_state, $steps, $log, $accepted) = @_;
	my %rows;
	my @problems;

	push @{ $rows{ $_->{step} } }, $_ for @$log;
	my $history = {
		case => $case,
		task_state => $task_state,
		steps => $steps,
		rows => \%rows,
		accepted => $accepted,
		problems => \@problems };

	# A task's rows may come from transactions that overlap: these go by time.
	@{ $rows{0} } = sort { $a->{at} <=> $b->{at} || $a->{id} <=> $b->{id} } @{ $rows{0} // [] };
	@{ $rows{$_} } = sort { $a->{id} <=> $b->{id} } @{ $rows{$_} } for grep { $_ } keys %rows;
	check_chain($history, 0, \%TASK_RULES, '', $task_state);
	for my $step (@{ $case->{steps} })
	{
		check_chain($history, $step->{number}, \%STEP_RULES, 'pending', $steps->{ $step->{number} }{state});
		check_attempts($history, $step);
	}
	check_operator($history);
	check_end($history) if $TASK_ENDED{$task_state};
	return @problems;
}

sub complain
{
	my ($history, $number, $text) = @_;

	push @{ $history->{problems} }, ($number ? "step $number: " : 'task: ') . $text;
	return;
}

# Every row goes on where the last one ended, as the rules allow.
sub check_chain
{
	my ($history, $number, $rules, $from, $final) = @_;
	my $at = 0;

	for my $row (@{ $history->{rows}{$number} // [] })
	{
		complain($history, $number, "is $from, but the log goes on from $row->{from} to $row->{to}") if $row->{from} ne $from;
		complain($history, $number, "went from $row->{from} to $row->{to}") if !allowed($rules, $row->{from}, $row->{to});
		complain($history, $number, "went to $row->{to} before it went to $row->{from}") if $row->{at} < $at;
		$from = $row->{to};
		$at = $row->{at};
	}
	complain($history, $number, "the log ends with $from, but it is $final") if $from ne $final;
	return;
}

# The state of the task at that time, and of a step.
sub state_at
{
	my ($history, $number, $row) = @_;
	my $state = $number ? 'pending' : '';

	for my $other (@{ $history->{rows}{$number} // [] })
	{
		my $same = $other->{id} >> 20 == $row->{id} >> 20;
		last if $same ? $other->{id} > $row->{id} : $other->{at} > $row->{at};
		$state = $other->{to};
	}
	return $state;
}

# Whether it may start now: its parents are done, the task goes on, and where its
# steps run one at a time none is under way.
sub check_start
{
	my ($history, $step, $row) = @_;
	my $case = $history->{case};
	my $task_state = state_at($history, 0, $row);

	for my $parent (@{ $step->{parents} })
	{
		my $state = state_at($history, $parent, $row);
		complain($history, $step->{number}, "went to $row->{to} while step $parent was $state") if !$SATISFIES{$state};
	}
	if ($case->{serial} && $row->{to} eq 'in_progress')
	{
		for my $other (grep { $_->{number} != $step->{number} } @{ $case->{steps} })
		{
			my $state = state_at($history, $other->{number}, $row);
			complain($history, $step->{number}, "was started while step $other->{number} was $state")
			  if $state eq 'in_progress' || $state eq 'waiting_for_retry';
		}
	}
	# One executor does not hear at once that on_failure: stop ended the task
	# for another one.
	return if $case->{stop} && $task_state eq 'error';
	complain($history, $step->{number}, "went to $row->{to} while the task was $task_state")
	  if $task_state ne 'pending' && $task_state ne 'in_progress';
	return;
}

# Each attempt came to what it had to, and the next one not too early.
sub check_attempts
{
	my ($history, $step) = @_;
	my $number = $step->{number};
	my ($attempts, $max_attempts, $not_before) = (0, $step->{limit}, 0);

	for my $row (@{ $history->{rows}{$number} // [] })
	{
		my ($from, $to) = @$row{qw(from to)};
		my $outcome = outcome($step, max(1, $attempts));

		if ($to eq 'in_progress')
		{
			$attempts++;
			check_start($history, $step, $row);
			complain($history, $number, 'was started again before its time') if $row->{at} < $not_before;
			complain($history, $number, "was started after its $max_attempts attempts") if $attempts > $max_attempts;
		}
		elsif ($to eq 'skipped')
		{
			check_start($history, $step, $row);
			complain($history, $number, 'was skipped, but is not bypassed') if !$step->{bypassed};
		}
		elsif ($to eq 'pending')
		{
			($max_attempts, $not_before) = ($attempts + $step->{limit}, 0);
		}
		elsif ($to eq 'complete')
		{
			complain($history, $number, "completed attempt $attempts, which should $outcome") if !$SUCCEEDS{$outcome};
		}
		elsif ($to eq 'waiting_for_retry')
		{
			complain($history, $number, "waits after attempt $attempts of $max_attempts, which should $outcome: $row->{message}")
			  if $SUCCEEDS{$outcome} || !leaves_another($step, $outcome, $attempts, $max_attempts);
			$not_before = $outcome eq 'lose_lease' ? 0 : $row->{at} + least_delay($step, $attempts);
		}
		elsif ($to eq 'error')
		{
			check_error($history, $step, $row, $attempts, $max_attempts);
		}
		complain($history, $number, "went to $to in attempt $row->{attempt}, but that was attempt $attempts")
		  if $row->{attempt} != $attempts;
	}
	my $stored = $history->{steps}{$number}{attempts};
	complain($history, $number, "has $stored attempts, but the log has $attempts") if $stored != $attempts;
	return;
}

# µs that must pass after a failed attempt.
sub least_delay
{
	my ($step, $attempt) = @_;
	my $delay = min($step->{base_delay} * 2**$attempt, $step->{max_delay});

	return int($delay * (1 - $step->{jitter}) * 1_000_000) - 1;
}

# Whether the time that the task had from its latest start was up.
sub is_past_deadline
{
	my ($history, $row) = @_;
	my $timeout = $history->{case}{timeout} or return 0;
	my @starts = grep { ($_->{from} // '') eq 'pending' && $_->{to} eq 'in_progress' && $_->{at} <= $row->{at} } @{ $history->{rows}{0} };

	return @starts && $row->{at} >= $starts[-1]{at} + $timeout * 1_000_000 - 1;
}

sub check_error
{
	my ($history, $step, $row, $attempts, $max_attempts) = @_;
	my $outcome = outcome($step, max(1, $attempts));
	my $expired = $history->{case}{timeout} && $row->{message} =~ /^task timed out/;

	return if $expired && $row->{from} ne 'pending';
	return if $step->{crashes} eq 'always' && $row->{message} =~ /crashed/;
	complain($history, $step->{number}, "went from $row->{from} to error: $row->{message}")
	  if $row->{from} ne 'in_progress';
	# Nothing is tried again when the task's time is up.
	return if !$SUCCEEDS{$outcome} && is_past_deadline($history, $row);
	complain($history, $step->{number}, "failed for good in attempt $attempts of $max_attempts, which should $outcome: $row->{message}")
	  if $SUCCEEDS{$outcome} || leaves_another($step, $outcome, $attempts, $max_attempts);
	return;
}

# What was accepted shows, as often as it was.
sub check_operator
{
	my ($history) = @_;
	my %accepted;
	my $task_rows = $history->{rows}{0};
	my $count_to = sub { my ($rows, @to) = @_; return scalar grep { my $row = $_; any { $row->{to} eq $_ } @to } @{ $rows // [] }; };

	$accepted{ $_->[0] }{ $_->[1] // 0 }++ for @{ $history->{accepted} };
	my $task = sub { return $accepted{ $_[0] }{0} // 0; };
	my $paused = $count_to->($task_rows, 'paused');
	my $resolved = $count_to->($task_rows, 'resolved_manually');
	my $resumed = grep { $_->{from} eq 'paused' && $_->{to} =~ /^(pending|in_progress)$/ } @$task_rows;
	my $reopened = grep { $_->{from} eq 'error' && $_->{to} eq 'pending' } @$task_rows;
	my $most = $task->('retry_task') + sum0(map { values %{ $accepted{$_} // {} } } qw(retry_step resolve_step));

	complain($history, 0, "paused $paused times") if $paused != $task->('pause_task');
	complain($history, 0, "resumed $resumed times") if $resumed != $task->('resume_task');
	complain($history, 0, "resolved $resolved times") if $resolved != $task->('resolve_task');
	complain($history, 0, "reopened $reopened times") if $reopened < $task->('retry_task') || $reopened > $most;
	complain($history, 0, 'was cancelled, but is not') if $task->('cancel_task') && $history->{task_state} ne 'cancelled';
	for my $step (@{ $history->{case}{steps} })
	{
		my $number = $step->{number};
		my $rows = $history->{rows}{$number};
		my $resolutions = $count_to->($rows, 'resolved_manually');
		my $retries = $count_to->($rows, 'pending');
		my $cancellations = $count_to->($rows, 'cancelled');
		my $of = sub { return $accepted{ $_[0] }{$number} // 0; };

		complain($history, $number, "resolved $resolutions times") if $resolutions != $of->('resolve_step');
		complain($history, $number, "retried $retries times")
		  if $retries < $of->('retry_step') || $retries > $of->('retry_step') + $task->('retry_task');
		complain($history, $number, 'was cancelled, but is not') if $of->('cancel_step') && $cancellations != 1;
		complain($history, $number, 'is cancelled, and nobody did it')
		  if $cancellations && !$task->('cancel_task') && !cancelled_above($history, \%accepted, $step);
	}
	return;
}

# Whether a cancellation of this step, or of one that it needs, was accepted.
sub cancelled_above
{
	my ($history, $accepted, $step) = @_;

	return 1 if $accepted->{cancel_step}{ $step->{number} };
	return any { $history->{steps}{$_}{state} eq 'cancelled' && cancelled_above($history, $accepted, step($history->{case}, $_)) } @{ $step->{parents} };
}

# A task that has ended is what its steps make of it, and nothing was left.
sub check_end
{
	my ($history) = @_;
	my $case = $history->{case};
	my $steps = $history->{steps};
	my $state = $history->{task_state};
	my $last = $history->{rows}{0}[-1];
	my %count;

	$count{ $_->{state} }++ for values %$steps;
	my $all_done = all { $SATISFIES{ $_->{state} } } values %$steps;
	my $by_operator = $last->{from} ne 'in_progress';
	my $expired = $last->{message} =~ /^task timed out/;

	complain($history, 0, "ended while a step was in progress") if $count{in_progress};
	if ($state eq 'cancelled' && any { $_->[0] eq 'cancel_task' } @{ $history->{accepted} })
	{
		complain($history, 0, 'was cancelled with a step that has not ended') if $count{pending} || $count{waiting_for_retry};
		return;
	}
	return if $state eq 'resolved_manually';
	return if $expired;
	complain($history, 0, 'complete, but its steps are not') if $state eq 'complete' && !$all_done;
	complain($history, 0, "$state, but all its steps are done") if $state ne 'complete' && $all_done;
	complain($history, 0, 'cancelled, but a step is in error') if $state eq 'cancelled' && $count{error};
	complain($history, 0, 'in error, but no step was') if $state eq 'error' && !$count{error} && !cancelled_in_error($history);
	return if $case->{stop} && $count{error};
	# cancel_step() leaves a task in error as it is.
	return if $state eq 'error' && cancelled_in_error($history);
	complain($history, 0, 'ended with a step that waits for its retry') if $count{waiting_for_retry};
	for my $step (@{ $case->{steps} })
	{
		complain($history, $step->{number}, 'was ready when the task ended')
		  if $steps->{ $step->{number} }{state} eq 'pending' && all { $SATISFIES{ $steps->{$_}{state} } } @{ $step->{parents} };
	}
	return;
}

sub cancelled_in_error
{
	my ($history) = @_;
	return any { any { $_->{from} eq 'error' && $_->{to} eq 'cancelled' } @$_ } values %{ $history->{rows} };
}

1;
