#!/usr/bin/perl
# scale.pl WORK: see scale.  Called by scale_run, which has prepared everything,
# as a user that may start a server.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib", $FindBin::RealBin;

use Bench::Table;
use List::Util qw(max min sum);
use Time::HiRes qw(sleep time);

require 'scale_server.pm';
require 'scale_report.pm';
require 'scale_plans.pm';

# Steps and tasks of a group (scale_feed.pl).
my %steps_a_group = (one => 5, diamond => 20, mix => 8);
use constant TASKS_A_GROUP => 5;

# So many tasks wait where the executors are to be always busy.
use constant BACKLOG => 20_000;

# What has to hold.
use constant {
	FLAT => 1.25,         # cost with everything, against that of the empty database
	STEADY => 1.15,       # cost in the last third of the endurance, against the first
	BOUNDED => 1.5,       # size of the queue, second half against first
	DEAD_MINUTES => 2,    # whose work may lie dead in the queue: autovacuum comes once a minute, and takes its time
	HELD_RATE => 0.7,     # rate beside an open transaction, against that without
};

my ($work) = @ARGV;
my $finished = $ENV{FINISHED} // 10_000_000;
my $waiting = $ENV{WAITING} // 1_000_000;
my $minutes = $ENV{MINUTES} // 30;
my $held_minutes = $ENV{HELD} // 10;
my $steps = $ENV{STEPS} // 100_000;
my $repeat = $ENV{REPEAT} // 3;
my $settle = $ENV{SETTLE} // 900;
my $minute = $ENV{MINUTE} // 60;    # seconds; fewer to try this program
my %wanted = map { $_ => 1 } split ' ', $ENV{PARTS} // 'cost endurance held plans';

my $report = ScaleReport->new("$work/out/scale.md");
my $server = ScaleServer->new(
	place => "$work/cluster",
	bindir => $ENV{BENCH_BINDIR},
	port => $ENV{BENCH_PORT} // 5640,
	scripts => $FindBin::RealBin);
my $plans = ScalePlans->new(server => $server, statements => "$work/statements.c");

*number = \&ScaleReport::number;
*say_progress = \&ScaleReport::say_progress;

# What a step and its share of a task take on the disk, and the WAL beside it: a
# guess, so that a run of hours does not end for want of room.
use constant {
	BYTES_A_TASK => 900,
	BYTES_A_STEP => 420,
	WAL => 9e9,
	BUSY_SHARE => 0.6,    # of the full rate where tasks are created at the same time
};

sub check_space
{
	my ($bytes, $what) = @_;
	my ($free) = map { (split ' ')[3] * 1024 } grep { /^\// } `df -Pk $work`;

	die sprintf "%s needs about %.0f GB in %s, where %.0f are free\n", $what, ($bytes + WAL) / 1e9, $work, $free / 1e9
	  if defined $free && $free < $bytes + WAL;
	return;
}

# ---- cost

# Autovacuum's work on what was done before is no part of what comes.
sub settle
{
	my $deadline = time + $settle;
	my $quiet = 0;

	say_progress('waits for autovacuum') if $settle > 0;
	while (time < $deadline && $quiet < 65)
	{
		my $busy = $server->value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'autovacuum worker'");

		$quiet = $busy ? 0 : $quiet + 1;
		sleep 1;
	}
	$server->rows('CHECKPOINT');
	$server->warm_up;
	return;
}

# Executors until so many tasks are finished.
sub fill
{
	my ($tasks) = @_;
	my $from = $server->value('SELECT scale.frontier()');
	my $started = time;

	return if $from >= $tasks;
	say_progress("fills up to $tasks tasks");
	$server->feed('one', 'backlog', BACKLOG);
	until ($server->value('SELECT scale.frontier()') >= $tasks)
	{
		sleep 1;
		$server->check_feeders;
	}
	ScaleServer::end_feeders();
	$server->wait_for_rest;
	say_progress(sprintf 'at %d tasks a second', ($tasks - $from) / (time - $started));
	return;
}

sub measure
{
	my ($graph) = @_;

	return map { $server->measure($graph, int($steps / $steps_a_group{$graph})) } 1 .. $repeat;
}

# The figures of a measurement, each a step or a task.
sub figures
{
	my ($graph, $measured) = @_;
	my ($create, $run, $tasks) = @$measured{qw(create run tasks)};
	my $done = $tasks / TASKS_A_GROUP * $steps_a_group{$graph};

	return {
		create_wal => $create->{wal} / $tasks,
		create_cpu => $create->{cpu}{sessions} / $tasks,
		rate => $done / $measured->{seconds},
		cpu => ScaleServer::engine_cpu($run) / $done,
		executors => $run->{cpu}{executors} / $done,
		wal => $run->{wal} / $done,
		pages => $run->{pages} * 1000 / $done,
		buffers => $run->{buffers} / $done,
		transactions => $run->{transactions} * 1000 / $done,
		syncs => $run->{syncs} * 1000 / $done,
	};
}

sub medians
{
	my ($graph, @measured) = @_;
	my @all = map { figures($graph, $_) } @measured;

	return { map { my $key = $_; ($key => Bench::Table::median(map { $_->{$key} } @all)) } keys %{ $all[0] } };
}

my @columns = qw(rate cpu executors wal pages buffers transactions syncs create_wal create_cpu);

# By graph, the figures of each stage.
my %stages;

sub stage
{
	my ($title) = @_;

	settle();
	foreach my $graph (qw(diamond one))
	{
		my $figures = medians($graph, measure($graph));

		push @{ $stages{$graph} }, $figures;
		$report->row($title, $graph, map { number($figures->{$_}) } @columns);
	}
	return;
}

sub report_flat
{
	foreach my $graph (sort keys %stages)
	{
		my ($first, $last) = @{ $stages{$graph} }[ 0, -1 ];

		foreach my $key (qw(cpu wal buffers))
		{
			my $ratio = $last->{$key} / $first->{$key};

			$report->verdict($ratio <= FLAT, sprintf('%s a step of %s, at the end against the empty database: %.2f times (at most %.2f)',
					$key, $graph, $ratio, FLAT));
		}
	}
	return;
}

sub database_size
{
	return $server->value('SELECT pg_database_size(current_database())');
}

sub part_cost
{
	my $empty = database_size();

	check_space(($finished + $waiting) * BYTES_A_TASK, 'filling up');
	$report->line('');
	$report->line('## Cost a step');
	$report->table('finished tasks', 'graph', 'steps/s', 'CPU µs', 'of that executors', 'WAL bytes', 'full pages a 1,000',
		'buffers', 'transactions a 1,000', 'fsyncs a 1,000', 'creation: WAL a task', 'CPU µs a task');
	stage(0);
	fill($finished / 10);
	stage($finished / 10);
	fill($finished);
	my $full = database_size();
	stage($finished);
	say_progress("creates $waiting tasks that wait");
	$server->rows("CALL scale.create_waiting($waiting)");
	$server->wait_for_rest;
	stage("$finished, and $waiting that wait");
	report_flat();
	my ($tasks, $wrong) = $server->{scale}->row('SELECT * FROM scale.spot_check()');
	$report->verdict($wrong == 0, "$tasks tasks, spread over all, are as they have to be, $wrong are not");
	$report->line(sprintf 'The database takes %s bytes a task.', number(($full - $empty) / $finished));
	return;
}

# ---- endurance

# What a minute came to.
sub minute_figures
{
	my ($from, $to) = @_;
	my $done = ($to->{frontier} - $from->{frontier}) / TASKS_A_GROUP * $steps_a_group{mix};
	my $cost = ScaleServer::cost($from->{reading}, $to->{reading});

	return {
		done => $done,
		rate => $done / $cost->{time},
		backlog => ($to->{last} - $to->{frontier}) / TASKS_A_GROUP * $steps_a_group{mix},
		cpu => ScaleServer::engine_cpu($cost) / max($done, 1),
		executors => $cost->{cpu}{executors} / max($done, 1),
		wal => $cost->{wal} / max($done, 1),
	};
}

sub minute_mark
{
	my %mark = (reading => $server->reading);

	@mark{qw(frontier last)} = $server->{scale}->row('SELECT scale.frontier(), scale.last_task()');
	return \%mark;
}

# Dead tuples, and the size of the table and its indexes in kB.
sub queue_state
{
	my %state;

	@state{qw(dead vacuums)} = $server->{scale}->row(
		"SELECT n_dead_tup, autovacuum_count FROM pg_stat_user_tables WHERE relid = 'tasker.queue'::regclass");
	$state{heap} = $server->value("SELECT pg_relation_size('tasker.queue') / 1024");
	$state{indexes} = [ map { $_->[0] } $server->rows(<<'SQL') ];
SELECT pg_relation_size(indexrelid) / 1024 FROM pg_index WHERE indrelid = 'tasker.queue'::regclass ORDER BY indexrelid::regclass::text
SQL
	return %state;
}

sub index_names
{
	return map { "kB of $_->[0]" } $server->rows(<<'SQL');
SELECT relname FROM pg_index JOIN pg_class AS c ON c.oid = indexrelid WHERE indrelid = 'tasker.queue'::regclass ORDER BY indexrelid::regclass::text
SQL
}

sub one_minute
{
	my ($from) = @_;
	my $ids = $from->{frontier} + 1;

	sleep max(0, $from->{reading}{begin}{time} + $minute - time);
	$server->check_feeders;
	my $to = minute_mark();
	my %figures = (%{ minute_figures($from, $to) }, queue_state());
	@figures{qw(p50 p99)} = $server->{scale}->row("SELECT * FROM scale.latency($ids, $to->{frontier})");
	return ($to, \%figures);
}

sub report_minute
{
	my ($number, $figures) = @_;

	$report->row($number, map { number($_) } @$figures{qw(done backlog cpu executors wal p50 p99 dead vacuums heap)},
		@{ $figures->{indexes} });
	return;
}

sub mean
{
	return sum(@_) / @_;
}

sub report_endurance
{
	my (@minutes) = @_;
	my $third = max(1, int(@minutes / 3));
	my $half = int(@minutes / 2);
	my $cpu = mean(map { $_->{cpu} } @minutes[ -$third .. -1 ]) / mean(map { $_->{cpu} } @minutes[ 0 .. $third - 1 ]);

	$report->verdict($cpu <= STEADY, sprintf('CPU a step, last third against first: %.2f times (at most %.2f)', $cpu, STEADY));
	my $tasks = max(map { $_->{done} } @minutes) * TASKS_A_GROUP / $steps_a_group{mix} * 60 / $minute;
	my $dead = max(map { $_->{dead} } @minutes);

	$report->verdict($dead <= DEAD_MINUTES * $tasks,
		sprintf('most of the dead tuples of the queue: %s, the work of %.1f minutes (at most %d)', number($dead), $dead / $tasks, DEAD_MINUTES));
	my $first = max(map { $_->{heap} } @minutes[ 0 .. $half - 1 ]);
	my $second = max(map { $_->{heap} } @minutes[ $half .. $#minutes ]);

	$report->verdict($second <= BOUNDED * max($first, 1000),
		sprintf('most of the heap of the queue, in kB: %s in the first half, %s in the second', number($first), number($second)));
	$report->verdict($minutes[-1]{backlog} < 2 * $minutes[-1]{rate}, 'the executors keep up');
	return;
}

# The rate that the executors reach alone, creation not counted.
sub full_rate
{
	return Bench::Table::median(map { $_->{rate} } map { figures('mix', $_) } measure('mix'));
}

sub part_endurance
{
	settle();
	my $rate = full_rate() / 5;
	my @minutes;

	check_space($rate * $minutes * $minute * BYTES_A_STEP, 'the endurance');
	say_progress(sprintf '%d minutes at %d steps a second', $minutes, $rate);
	$report->line('');
	$report->line(sprintf '## %d minutes at %s steps a second, a fifth of the full rate', $minutes, number($rate));
	$report->table('minute', 'steps done', 'backlog', 'CPU µs a step', 'of that executors', 'WAL bytes a step', 'p50 ms', 'p99 ms', 'dead tuples of the queue',
		'autovacuums of it', 'kB of its heap', index_names());
	$server->feed('mix', 'pace', $rate);
	sleep min(10, $minute);
	my $mark = minute_mark();
	foreach my $number (1 .. $minutes)
	{
		($mark, my $figures) = one_minute($mark);
		push @minutes, $figures;
		report_minute($number, $figures);
	}
	ScaleServer::end_feeders();
	$server->wait_for_rest;
	report_endurance(@minutes);
	return;
}

# ---- held

sub held_minutes
{
	my ($title, $count, $mark) = @_;
	my @minutes;

	foreach my $number (1 .. $count)
	{
		($mark, my $figures) = one_minute($mark);
		push @minutes, $figures;
		$report->row("$title $number", map { number($_) } @$figures{qw(rate backlog cpu executors dead vacuums heap)}, @{ $figures->{indexes} });
	}
	return ($mark, @minutes);
}

sub report_held
{
	my ($free, $held) = @_;
	my $rate = min(map { $_->{rate} } @$held) / mean(map { $_->{rate} } @$free);
	my $cpu = max(map { $_->{executors} } @$held) / mean(map { $_->{executors} } @$free);

	$report->verdict($rate >= HELD_RATE, sprintf('the slowest minute beside it has %.0f %% of the rate without (at least %.0f %%)',
			100 * $rate, 100 * HELD_RATE));
	$report->line(sprintf 'What executors take for a step, in the dearest minute beside it: %.2f times that without.', $cpu);
	return;
}

sub part_held
{
	settle();
	check_space(full_rate() * BUSY_SHARE * ($held_minutes + 5) * $minute * BYTES_A_STEP, 'what runs beside an open transaction');
	say_progress("$held_minutes minutes beside an open transaction");
	$report->line('');
	$report->line("## $held_minutes minutes beside an open transaction, always busy");
	$report->table('minute', 'steps/s', 'backlog', 'CPU µs a step', 'of that executors', 'dead tuples of the queue', 'autovacuums of it', 'kB of its heap',
		index_names());
	$server->feed('mix', 'backlog', BACKLOG);
	sleep min(10, $minute);
	my ($mark, @free) = held_minutes('without', min(3, $held_minutes), minute_mark());
	my $holder = $server->session;
	$holder->rows('BEGIN ISOLATION LEVEL REPEATABLE READ');
	$holder->rows('SELECT 1');
	($mark, my @held) = held_minutes('beside it', $held_minutes, $mark);
	$holder->rows('COMMIT');
	$holder->close;
	($mark) = held_minutes('afterwards', min(2, $held_minutes), $mark);
	ScaleServer::end_feeders();
	$server->wait_for_rest;
	report_held(\@free, \@held);
	return;
}

# ---- plans

sub report_growth
{
	my (@grown) = @_;

	return unless @grown;
	$report->table('statement', 'buffers in the empty database', 'buffers now', 'ms now');
	foreach my $grown (@grown)
	{
		my $query = substr $grown->{query}, 0, 100;

		$report->row("`$query`", map { number($_) } @$grown{qw(before buffers ms)});
	}
	return;
}

sub part_plans
{
	my $empty = $plans->{empty};

	say_progress('looks at the plans');
	my $now = $plans->observe;
	my @generic = $plans->generic;
	my @scans = ScalePlans::scans(@generic, values %$now);
	my @unseen = ScalePlans::unseen(\@generic, $now);

	$plans->write("$work/out/scale_plans.txt", \@generic, $now);
	$report->line('');
	$report->line('## Plans');
	$report->line('');
	$report->line(sprintf '%d statements of the C sources were planned, %d statements were seen at work; the others of the sources are: %s.',
		scalar @generic, scalar keys %$now, join(', ', map { $_->{name} } @unseen) || 'none');
	$report->verdict(!@scans, 'no plan reads a whole table of tasks, steps, tokens or the log'
		  . join '', map { "; but: `" . substr($_->{query}, 0, 100) . '`' } @scans);
	return unless $empty;
	my @grown = ScalePlans::grown($empty, $now);
	$report->verdict(!@grown, 'no statement touches more pages than in the empty database' . (@grown ? ', but for those below' : ''));
	report_growth(@grown);
	return;
}

# ---- all of it

sub clean_up
{
	ScaleServer::end_all();
	return;
}

sub run_parts
{
	$server->{template} = Bench::Server->make_template(place => "$work/template", bindir => $ENV{BENCH_BINDIR});
	$server->start;
	$report->begin_page('Scale', $server,
		"$steps steps a measurement, median of $repeat; two executors; fsync on, synchronous commit on, shared_buffers 512 MB, autovacuum's defaults.");
	$plans->{empty} = $plans->observe if $wanted{plans} && $wanted{cost};
	part_cost() if $wanted{cost};
	part_endurance() if $wanted{endurance};
	part_held() if $wanted{held};
	part_plans() if $wanted{plans};
	return;
}

$SIG{$_} = sub { clean_up(); exit 1 } foreach qw(INT TERM HUP);
ScaleServer::write_pid($work);
eval { run_parts(); 1 } or do {
	print STDERR "scale: $@";
	$report->{failures}++;
};
$server->keep_errors("$work/out/scale_errors.log");
clean_up();
exit($report->{failures} ? 1 : 0);
