# What a step costs, counted, not timed: WAL, transactions, buffers, and SQL
# statements a batch.  Whoever makes it dearer learns it here; whoever makes it
# cheaper lowers the limits.  `make bench` has the times (doc/testing.md).
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin, "$FindBin::RealBin/../bench/lib";

use Bench::Counters;
use Bench::Statements;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskerTest;
use Test::More;
use Time::HiRes qw(sleep);

# The limits: some 8 % above what was measured, which stands in the notes of this
# test; but for all transactions, those that only looked among them, which depend
# on the moment: there many times that.  Of creation for a task, of running for a
# step; what the notifier reads to count both for telemetry is in that of running.
my %LIMITS = (
	'one: creating' => { wal => 472, commits => 0.00108, buffers => 8.9 },
	'one: running' => { wal => 610, commits => 0.0108, transactions => 0.1, buffers => 19.5 },
	'diamond: creating' => { wal => 472, commits => 0.00108, buffers => 9.6 },
	'diamond: running' => { wal => 372, commits => 0.0027, transactions => 0.1, buffers => 8.4 });

# Statements of an executor for a batch, however large it is.
my $STATEMENTS = 0;
my @BATCH_SIZES = (1, 10, 100);

# No checkpoint, after which pages would be written as a whole; no batch that
# ends by time; one executor, as two would share the batches as it happens.
my $node = new_server('cost', <<'CONF');
checkpoint_timeout = 1h
max_wal_size = 4GB
tasker.executors = 1
tasker.batch_budget = '10 s'
CONF
my $has_statements = $node->safe_psql('postgres', "SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_stat_statements'");
if ($has_statements)
{
	$node->append_conf('postgresql.conf', join "\n", map { "$_->[0] = '$_->[1]'" } @Bench::Statements::SETTINGS);
	$node->restart;
}
$node->safe_psql('postgres', 'CREATE DATABASE cost');
my $execute = sub { return $node->safe_psql('cost', @_) };
my $counters = Bench::Counters->new(
	database => 'cost',
	query => sub { return split /\|/, $node->safe_psql('postgres', @_) });

# Processes report what they counted some time after it: until nothing comes any
# more.
sub reading
{
	my $reading = { reported => {} };
	my $before;

	do
	{
		$before = $reading;
		sleep 1.5 if %{ $before->{reported} };
		$reading = { %{ $counters->at_once }, reported => $counters->reported };
	} until %{ $before->{reported} } && join(' ', map { $before->{reported}{$_} } qw(transactions buffers)) eq
	  join(' ', map { $reading->{reported}{$_} } qw(transactions buffers));
	return $reading;
}

# Transactions that wrote to the log: unlike all of them, they do not depend on
# how often the notifier looks.
sub commits
{
	return $execute->('SELECT count(DISTINCT transition_id >> 20) FROM tasker.transitions');
}

# What the work cost, shared among so many.  What the tests themselves do in that
# database is little.
sub cost
{
	my ($count, $work) = @_;
	my $commits = commits();
	my $from = reading();

	$work->();
	my $difference = Bench::Counters::difference($from, reading());
	return {
		wal => $difference->{wal} / $count,
		commits => (commits() - $commits) / $count,
		map { $_ => $difference->{reported}{$_} / $count } qw(transactions buffers) };
}

sub within_limits
{
	my ($name, $cost) = @_;
	my $limits = $LIMITS{$name};

	note("$name: " . join ', ', map { sprintf '%s %.4g', $_, $cost->{$_} } sort keys %$cost);
	foreach my $measure (sort keys %$limits)
	{
		cmp_ok($cost->{$measure}, '<=', $limits->{$measure}, "$name: $measure");
	}
	return;
}

sub create
{
	my ($graph, $tasks) = @_;
	my $call = "SELECT count(*) FROM tasker.create_tasks('$graph', array_fill('{\"n\": 1}'::jsonb, ARRAY[1000]));\n";

	$execute->($call x ($tasks / 1000));
	return;
}

# Creates tasks while the engine is at a halt, and lets it go.
sub measure
{
	my ($graph, $tasks, $steps) = @_;

	$execute->('SELECT tasker.deactivate()');
	within_limits("$graph: creating", cost($tasks, sub { create($graph, $tasks) }));
	my $last = $execute->('SELECT max(task_id) FROM tasker.tasks');
	within_limits("$graph: running", cost($tasks * $steps, sub {
		$execute->("SELECT tasker.activate();\nCALL tasker.wait($last, '3 min');\n");
		wait_until($node, 'cost', 'SELECT bench.at_rest()', "$graph: it comes to its end");
		}));
	is($execute->(<<'SQL'), 't', "$graph: all is done");
SELECT bool_and(state = 'complete') FROM tasker.tasks
SQL
	return;
}

$execute->("SET client_min_messages = error;\n" . slurp_file("$FindBin::RealBin/../bench/tasker/setup.sql"));
waits_for_workers($node, 'cost', 1, 'the workers start');
create('one', 1000);
wait_until($node, 'cost', 'SELECT bench.at_rest()', 'processes have their plans, and know how long the handlers take');
measure('one', 5000, 1);
measure('diamond', 2000, 4);

SKIP:
{
	skip 'there is no pg_stat_statements', 1 unless $has_statements;
	Bench::Statements::prepare($execute);
	foreach my $graph (qw(one diamond chain wide_20))
	{
		foreach my $size (@BATCH_SIZES)
		{
			my ($statements, @which) = Bench::Statements::a_batch($execute, $graph, $size);

			note("$graph: a batch of $size: statements $statements, limit $STATEMENTS");
			cmp_ok($statements, '<=', $STATEMENTS, "$graph: statements for a batch of $size")
				or diag(@which);
		}
	}
}
is($execute->('SELECT * FROM tasker.verify()'), '', 'verify() finds nothing');

done_testing();
