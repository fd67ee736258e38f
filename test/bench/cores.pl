#!/usr/bin/perl
# cores.pl WORK: see cores.  Called by scale_run, which has prepared everything, as
# a user that may start a server.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib", $FindBin::RealBin;

use List::Util qw(sum0);
use Time::HiRes qw(sleep time);

require 'scale_server.pm';
require 'scale_report.pm';

# Seconds between two looks at what the executors wait for.
use constant TICK => 0.01;
# Of a group of tasks (scale_feed.pl).
use constant {
	TASKS => 5,
	STEPS => 20,
};
# Symbols of the profile to be shown.
use constant SYMBOLS => 25;

my ($work) = @ARGV;
my @counts = split ' ', $ENV{EXECUTORS} // '1 2 4 8';
my $steps = $ENV{STEPS} // 400_000;
my $profiled = $ENV{PROFILE} // 4;

my $report = ScaleReport->new("$work/out/cores.md");
my $server = ScaleServer->new(
	place => "$work/cluster",
	bindir => $ENV{BENCH_BINDIR},
	port => $ENV{BENCH_PORT} // 5641,
	scripts => $FindBin::RealBin);

*number = \&ScaleReport::number;
*say_progress = \&ScaleReport::say_progress;

# By number of executors, what came of it.
my %runs;

# ---- what they wait for

sub executors
{
	return map { $_->[0] } $server->rows(<<'SQL');
SELECT pid FROM pg_stat_activity WHERE backend_type = 'tasker executor' AND datname = current_database()
SQL
}

# How often each of them has slept, and was made to pause, so far.
sub switches
{
	my %switches = (slept => 0, paused => 0);

	foreach my $pid (@_)
	{
		my $status = Bench::Counters::slurp("/proc/$pid/status");

		$switches{slept} += $1 if $status =~ /^voluntary_ctxt_switches:\s+(\d+)/m;
		$switches{paused} += $1 if $status =~ /^nonvoluntary_ctxt_switches:\s+(\d+)/m;
	}
	return \%switches;
}

# Counts in samples, by what they wait for; those that run, or would like to, wait
# for nothing.
sub sample
{
	my ($watcher, $samples) = @_;
	my @rows = $watcher->rows(<<'SQL');
SELECT a.state, coalesce(a.wait_event_type || ' ' || a.wait_event, '')
FROM pg_stat_get_activity(NULL) AS a
WHERE a.backend_type = 'tasker executor'
SQL

	foreach my $row (@rows)
	{
		my ($state, $event) = @$row;

		$samples->{ $state eq 'idle' ? 'no work' : $event || 'none' }++;
	}
	return;
}

# One that looks every ten milliseconds.
sub sampler
{
	my ($watcher, $samples) = @_;
	my $next = time;

	return sub {
		sleep $next - time if $next > time;
		$next = time + TICK;
		sample($watcher, $samples);
	};
}

# ---- a run

# How full the leaves are that so many executors have filled; nothing where
# pgstattuple is not installed.
sub densities
{
	return {} unless $server->value("SELECT count(*) FROM pg_available_extensions WHERE name = 'pgstattuple'");
	$server->rows('CREATE EXTENSION IF NOT EXISTS pgstattuple');
	return { map { ($_->[0] => $_->[1]) } $server->rows(<<'SQL') };
SELECT c.relname, (pgstatindex(c.oid)).avg_leaf_density
FROM pg_class AS c
WHERE c.oid IN ('tasker.log_pkey'::regclass, 'tasker.step_pkey'::regclass)
SQL
}

# Entries of the queue that claims have looked at.
sub tokens_read
{
	return $server->value("SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelid = 'tasker.queue_order'::regclass");
}

sub set_executors
{
	my ($count) = @_;

	$server->set('tasker.executors' => $count);
	$server->restart;
	$server->renew;
	sleep 0.1 until executors() == $count;
	$server->rows('CHECKPOINT');
	return;
}

sub run
{
	my ($count) = @_;
	my %run = (samples => {});

	set_executors($count);
	my $watcher = $server->session;
	my @pids = executors();
	my $before = switches(@pids);
	my $tokens = tokens_read();
	my $measured = $server->measure('diamond', int($steps / STEPS), sampler($watcher, $run{samples}));
	my $after = switches(@pids);
	$watcher->close;
	$run{tokens} = tokens_read() - $tokens;
	$run{claimed} = $measured->{tasks};
	$run{done} = $measured->{tasks} * STEPS / TASKS;
	$run{seconds} = $measured->{seconds};
	$run{cost} = $measured->{run};
	$run{$_} = $after->{$_} - $before->{$_} foreach qw(slept paused);
	$run{density} = densities();
	return \%run;
}

sub report_runs
{
	$report->table('executors', 'steps/s', 'CPU µs a step', 'WAL bytes a step', 'transactions a 1,000', 'fsyncs a 1,000',
		'sleeps a 1,000', 'pre-emptions a 1,000',
		'tokens looked at for one claimed', 'leaves of log_pkey full, %', 'of step_pkey, %');
	foreach my $count (@counts)
	{
		my $run = $runs{$count};
		my $thousands = $run->{done} / 1000;

		$report->row($count, map { number($_) } $run->{done} / $run->{seconds},
			ScaleServer::engine_cpu($run->{cost}) / $run->{done},
			$run->{cost}{wal} / $run->{done},
			(map { $run->{cost}{$_} / $thousands } qw(transactions syncs)),
			(map { $run->{$_} / $thousands } qw(slept paused)),
			$run->{tokens} / $run->{claimed},
			@{ $run->{density} }{qw(log_pkey step_pkey)});
	}
	return;
}

# Of the samples, and in milliseconds for a thousand steps.
sub share
{
	my ($run, $event) = @_;
	my $all = sum0(values %{ $run->{samples} }) || 1;
	my $ms = ($run->{samples}{$event} // 0) / $all * $run->{executors} * $run->{seconds} * 1_000_000 / $run->{done};

	return '' unless $run->{samples}{$event};
	return sprintf '%.1f %% (%s)', 100 * $run->{samples}{$event} / $all, number($ms);
}

sub report_waits
{
	my %most;

	foreach my $run (values %runs)
	{
		$most{$_} += $run->{samples}{$_} foreach keys %{ $run->{samples} };
	}
	$report->line('');
	$report->line('What the executors wait for: share of the samples, and milliseconds for a thousand steps. *none*: they run, or wait for a processor.');
	$report->table('wait', map { $_ == 1 ? '1 executor' : "$_ executors" } @counts);
	foreach my $event (sort { $most{$b} <=> $most{$a} } keys %most)
	{
		$report->row($event, map { share($runs{$_}, $event) } @counts);
	}
	return;
}

# ---- where the time goes

# Starts perf on these processes; undef where it can't be.  Whoever may not look
# into the kernel sees what is outside.
sub start_profile
{
	my ($file, @pids) = @_;
	my $list = join ',', @pids;

	foreach my $event ('cpu-clock', 'cpu-clock:u')
	{
		next if system("perf record -q -e $event -o $file -- true >/dev/null 2>&1") != 0;
		my $pid = fork // die "fork: $!\n";
		if ($pid == 0)
		{
			open STDOUT, '>', '/dev/null';
			open STDERR, '>&', \*STDOUT;
			exec 'perf', 'record', '-q', '-F', 997, '-e', $event, '-g', '-o', $file, '-p', $list or exit 1;
		}
		return ($pid, $event);
	}
	return;
}

# Symbols with their share, those that take most first.
sub symbols
{
	my ($file) = @_;
	my @symbols;

	open my $perf, '-|', "perf report -i $file --stdio --no-children -g none -F overhead,sym 2>/dev/null" or return;
	while (my $line = <$perf>)
	{
		push @symbols, [ $2, $1 ] if $line =~ /^\s*([\d.]+)%\s+\[.\]\s+(\S+)/;
	}
	close $perf;
	return @symbols;
}

sub share_of
{
	my ($pattern, @symbols) = @_;

	return sum0(map { $_->[1] } grep { $_->[0] =~ $pattern } @symbols);
}

sub report_profile
{
	my ($event, @symbols) = @_;

	$report->line('');
	$report->line(sprintf 'Profile of %d executors (perf, %s): spinning and latches take %.1f %%, sleeping on a semaphore %.1f %%, the lock manager %.1f %%.',
		$profiled, $event,
		share_of(qr/^(LWLock|s_lock|perform_spin_delay|finish_spin_delay)/, @symbols),
		share_of(qr/futex|^(sem_|do_futex|__new_sem|PGSemaphore)/, @symbols),
		share_of(qr/^(Lock(Acquire|Release|Check|TagHash)|GrantLock|UnGrantLock|SetupLock|RemoveLocalLock|DoLockModes)/, @symbols));
	$report->table('symbol', '% of the time');
	$report->row("`$_->[0]`", $_->[1]) foreach grep { defined } @symbols[ 0 .. SYMBOLS - 1 ];
	return;
}

sub profile
{
	my $file = "$work/perf.data";

	set_executors($profiled);
	my ($pid, $event) = start_profile($file, executors());
	unless ($pid)
	{
		say_progress('there is no perf, or it may not look');
		return;
	}
	$server->measure('diamond', int($steps / STEPS));
	kill 'INT', $pid;
	waitpid $pid, 0;
	report_profile($event, symbols($file));
	return;
}

# ---- all of it

sub run_all
{
	$server->{template} = Bench::Server->make_template(place => "$work/template", bindir => $ENV{BENCH_BINDIR});
	$server->start;
	$report->begin_page('Cores', $server, "$steps steps of diamonds a run; fsync on, synchronous commit on.");
	foreach my $count (@counts)
	{
		$runs{$count} = run($count);
		$runs{$count}{executors} = $count;
		say_progress(sprintf '%d executors: %.0f steps/s', $count, $runs{$count}{done} / $runs{$count}{seconds});
	}
	report_runs();
	report_waits();
	profile() if $profiled;
	return;
}

$SIG{$_} = sub { ScaleServer::end_all(); exit 1 } foreach qw(INT TERM HUP);
ScaleServer::write_pid($work);
my $good = eval { run_all(); 1 };
print STDERR "cores: $@" unless $good;
$server->keep_errors("$work/out/cores_errors.log");
ScaleServer::end_all();
exit($good ? 0 : 1);
