# Counts the SQL statements that an executor runs for a batch.
package Bench::Statements;

use strict;
use warnings;

use List::Util qw(sum0);
use Time::HiRes qw(sleep time);

# The server needs these; one executor, so that it is known whose they are, and no
# batch that ends by time.
our @SETTINGS = (
	[ shared_preload_libraries => 'pg_stat_statements,tasker' ],
	[ 'pg_stat_statements.track' => 'all' ],
	[ 'tasker.executors' => 1 ],
	[ 'tasker.batch_budget' => '10s' ]);

# Batches in the two measurements whose difference counts: what is done once,
# before and after them, is in both.
use constant FEW => 5;
use constant MANY => 25;

# Those who ask are another role than the executor, which is how their statements
# are told from its own.
sub prepare
{
	my ($execute) = @_;

	$execute->(<<'SQL');
CREATE EXTENSION pg_stat_statements;
CREATE ROLE watcher SUPERUSER;
SQL
	return;
}

sub wait_for_rest
{
	my ($execute, $seconds) = @_;
	my $deadline = time + $seconds;

	while ((my $answer = $execute->('SET ROLE watcher; SELECT bench.at_rest()')) ne 't')
	{
		die "the executor does not come to its end: $answer\n" if time > $deadline;
		sleep 0.1;
	}
	return;
}

# How often each statement of the executor ran since the last reset.  The
# notifier is the same role: its statements are about the log, the tables of
# events and those of the totals, which those of the executor never are.
sub executed
{
	my ($execute) = @_;
	my $answer = $execute->(<<'SQL');
SET ROLE watcher;
SELECT regexp_replace(min(s.query), '\s+', ' ', 'g'), sum(s.calls)
FROM pg_stat_statements AS s
JOIN pg_database AS d ON d.oid = s.dbid AND d.datname = current_database()
WHERE s.userid = 10
  AND s.query !~ 'tasker\._?(log|move|tick|match|subscriber|published_event|make_parts|tidy_events|metric_|fold_metrics|duration_bounds)|int8range'
GROUP BY s.queryid
SQL

	return { map { /(.*)\|(.*)/ } split /\n/, $answer };
}

# Transactions in which tasks from this one on moved.
sub batches_since
{
	my ($execute, $task_id) = @_;

	return $execute->(<<"SQL");
SET ROLE watcher;
SELECT count(DISTINCT transition_id >> 20)
FROM tasker.transitions
WHERE task_id >= $task_id
  AND from_state IS NOT NULL
SQL
}

# Runs so many batches of so many tasks; returns which statements that took.  An
# executor may have begun before it learned of the size.
sub run_batches
{
	my ($execute, $graph, $size, $batches) = @_;
	my $tasks = $size * $batches;
	my $made;

	for (1 .. 3)
	{
		$execute->('SELECT tasker.deactivate()');
		my $first = $execute->("SELECT min(id) FROM tasker.create_tasks('$graph', array_fill('{}'::jsonb, ARRAY[$tasks])) AS id");
		$execute->('SELECT pg_stat_statements_reset()');
		$execute->('SET ROLE watcher; SELECT tasker.activate()');
		wait_for_rest($execute, 120);
		my $statements = executed($execute);

		$made = batches_since($execute, $first);
		return $statements if $made == $batches;
	}
	die "$tasks tasks of $graph were $made batches, not $batches\n";
}

# Statements that a batch of so many tasks takes, and how often each.  Each is
# rounded by itself: what runs by the clock, and not for each batch, is none of it.
sub a_batch
{
	my ($execute, $graph, $size) = @_;

	$execute->("ALTER SYSTEM SET tasker.batch_size = $size");
	$execute->('SELECT pg_reload_conf()');
	my ($few, $many) = map { run_batches($execute, $graph, $size, $_) } FEW, MANY;
	my %a_batch = map { $_ => sprintf '%.0f', ($many->{$_} - ($few->{$_} // 0)) / (MANY - FEW) } keys %$many;
	my @counted = grep { $a_batch{$_} > 0 } sort keys %a_batch;

	return (sum0(@a_batch{@counted}), map { "$a_batch{$_} x $_" } @counted);
}

1;
