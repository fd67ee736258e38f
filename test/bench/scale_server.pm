# The cluster of scale and cores: a database with the engine, sessions in it, and
# what an interval costs.
package ScaleServer;

use strict;
use warnings;

use Bench::Counters;
use Bench::Server;
use Time::HiRes qw(sleep time);

require 'scale_session.pm';

our @ISA = ('Bench::Server');

# Executors and sessions report what they counted after a second of rest.
use constant REPORT => 1.5;

my @feeders;

# The settings of the comparison, but for the checkpoints, which are to come as
# they do everywhere.
sub new
{
	my ($class, %self) = @_;

	return $class->SUPER::new(
		%self,
		settings => [
			[ checkpoint_timeout => '5min' ],
			[ shared_preload_libraries => 'tasker' ],
			[ max_worker_processes => 24 ],
			# These mean nothing where auto_explain is not loaded.
			[ 'auto_explain.log_min_duration' => 0 ],
			[ 'auto_explain.log_analyze' => 'on' ],
			[ 'auto_explain.log_buffers' => 'on' ],
			[ 'auto_explain.log_nested_statements' => 'on' ],
			@{ $self{settings} // [] } ]);
}

sub start
{
	my ($self) = @_;

	$self->SUPER::start;
	$self->renew;
	return;
}

# A fresh database.
sub renew
{
	my ($self) = @_;

	$self->{scale}->close if $self->{scale};
	$self->fresh_database('bench');
	$self->{scale} = $self->session;
	$self->{scale}->rows("\\i $self->{scripts}/$_") foreach 'tasker/setup.sql', 'scale_setup.sql';
	$self->warm_up;
	return;
}

sub session
{
	my ($self) = @_;

	return ScaleSession->new(psql => "$self->{bindir}/psql", environment => { $self->environment });
}

sub rows
{
	my ($self, $sql) = @_;

	return $self->{scale}->rows($sql);
}

# The first column of the first row.
sub value
{
	my ($self, $sql) = @_;

	return ($self->{scale}->row($sql))[0];
}

# Values as SQL writes them: a list in quotes would be one name.
sub set
{
	my ($self, %settings) = @_;

	$self->query("ALTER SYSTEM SET $_ = $settings{$_}") foreach sort keys %settings;
	return;
}

sub restart
{
	my ($self) = @_;

	$self->{scale}->close;
	close $self->{in};
	close $self->{out};
	waitpid $self->{pid}, 0;
	$self->command('pg_ctl', 'restart', '-w', '-s', '-m', 'fast', '-D', "$self->{place}/data",
		'-l', "$self->{place}/server.log");
	open my $file, '<', "$self->{place}/data/postmaster.pid" or die "postmaster.pid: $!\n";
	chomp($self->{postmaster} = <$file>);
	$self->open_session;
	$self->{scale} = $self->session;
	$self->warm_up;
	return;
}

# Nobody has run the handler since the start: it counts as slow until then.
sub warm_up
{
	my ($self) = @_;

	$self->rows("SELECT scale.create_tasks('mix', 20)") for 1 .. 10;
	$self->wait_for_rest;
	return;
}

# Executors have nothing to do.
sub wait_for_rest
{
	my ($self) = @_;

	sleep 0.05 until $self->value('SELECT scale.at_rest()') eq 't';
	return;
}

# A feeder of its own process (scale_feed.pl).
sub feed
{
	my ($self, $graph, $kind, $number) = @_;
	my %environment = $self->environment;
	my $pid = fork // die "fork: $!\n";

	if ($pid == 0)
	{
		@ENV{ keys %environment } = values %environment;
		exec $^X, "$self->{scripts}/scale_feed.pl", "$self->{bindir}/psql", $graph, $kind, $number or exit 1;
	}
	push @feeders, $pid;
	return $pid;
}

sub end_feeders
{
	kill 'TERM', @feeders;
	waitpid $_, 0 foreach @feeders;
	@feeders = ();
	return;
}

# That they have not died.
sub check_feeders
{
	foreach my $pid (@feeders)
	{
		die "a feeder has ended\n" if waitpid($pid, 1) != 0;
	}
	return;
}

# A reading of the counters between two intervals: what stands at once, as it is
# at the end of the one and at the beginning of the next, which are seconds apart
# where executors and sessions are to report theirs (reported).
sub reading
{
	my ($self, %how) = @_;
	my %reading;

	$self->{counters} //= $self->counters;
	@{ $self->{counters} }{qw(postmaster besides)} = @$self{qw(postmaster session)};
	$reading{end} = { %{ $self->{counters}->at_once }, time => time };
	return { begin => $reading{end}, %reading } unless $how{reported};
	sleep REPORT;
	$reading{reported} = $self->{counters}->reported;
	($reading{reported}{pages}) = $self->query('SELECT wal_fpi FROM pg_stat_wal');
	$reading{begin} = { %{ $self->{counters}->at_once }, time => time };
	return \%reading;
}

# What the interval between two readings cost.
sub cost
{
	my ($from, $to) = @_;

	return {
		%{ Bench::Counters::difference($from->{begin}, $to->{end}) },
		%{ Bench::Counters::difference($from->{reported} // {}, $to->{reported} // {}) },
	};
}

# Processor time of everything but sessions, in microseconds.
sub engine_cpu
{
	my ($cost) = @_;
	my $cpu = $cost->{cpu};

	return sum_of(@$cpu{ grep { $_ ne 'sessions' } keys %$cpu });
}

sub sum_of
{
	my $sum = 0;

	$sum += $_ // 0 foreach @_;
	return $sum;
}

# So many groups of a graph, without and then with executors: what creating them
# costs, and what running them does.  meanwhile: is called while they run.
sub measure
{
	my ($self, $graph, $groups, $meanwhile) = @_;
	my $first = $self->value('SELECT scale.last_task()') + 1;
	my ($last, @readings);

	$self->rows('SELECT tasker.deactivate()');
	push @readings, $self->reading(reported => 1);
	while ($groups > 0)
	{
		my $some = $groups > 200 ? 200 : $groups;

		$last = $self->value("SELECT scale.create_tasks('$graph', $some)");
		$groups -= $some;
	}
	push @readings, $self->reading(reported => 1);
	$self->rows('SELECT tasker.activate()');
	my $span = $self->wait_for_tasks($first, $last, $meanwhile);
	push @readings, $self->reading(reported => 1);
	return {
		tasks => $last - $first + 1,
		seconds => $span,
		create => cost(@readings[ 0, 1 ]),
		run => cost(@readings[ 1, 2 ]),
	};
}

# Returns the seconds from the start of the first one to the end of the last one.
sub wait_for_tasks
{
	my ($self, $first, $last, $meanwhile) = @_;

	while (1)
	{
		$self->{scale}->begin("CALL tasker.wait($last, '60 s')");
		$meanwhile->() while $meanwhile && !$self->{scale}->is_answered(0);
		$self->{scale}->end;
		my ($seconds, $left) = $self->{scale}->row("SELECT * FROM scale.span($first, $last)");
		return $seconds if $left == 0;
		sleep 0.2;
	}
}

# What went wrong, as the server saw it; the file is written where something did.
sub keep_errors
{
	my ($self, $path) = @_;
	my @lines;

	open my $log, '<', "$self->{place}/server.log" or return;
	while (my $line = <$log>)
	{
		push @lines, $line if $line =~ /(?:ERROR|FATAL|PANIC|WARNING):  / .. $line !~ /^\t|(?:DETAIL|HINT|CONTEXT|STATEMENT|ERROR|FATAL|PANIC|WARNING):  /;
		last if @lines > 1000;
	}
	return unless @lines;
	open my $file, '>', $path or die "$path: $!\n";
	print $file @lines;
	close $file;
	return;
}

# For whoever has to end this program.
sub write_pid
{
	my ($work) = @_;

	open my $file, '>', "$work/pid" or die "$work/pid: $!\n";
	print $file "$$\n";
	close $file;
	return;
}

sub end_all
{
	end_feeders();
	Bench::Server::stop_all();
	return;
}

1;
