# Runs a workload, a process that speaks the protocol of README.md, or any other
# program that may not take for ever.
package Bench::Workload;

use strict;
use warnings;

use Bench::Counters;
use IO::Handle;
use IO::Select;
use POSIX qw(WNOHANG);
use Time::HiRes qw(sleep time);

# Exit code of one that the engine can't run.
use constant CANNOT => 3;

# The process group of the one that runs, for the end of everything.
my $running;

# command: program and arguments; environment; counters; seconds: for all of it;
# log: where its standard error goes; report_seconds: how long processes may take
# to report what they counted; 0: nobody wants to know.
sub new
{
	my ($class, %self) = @_;

	return bless { %self, marks => [], values => {}, notes => [], buffer => '' }, $class;
}

# Returns state (ok, cannot, failed), reason, intervals, values and notes.
sub run
{
	my ($self) = @_;
	my $end = eval { $self->start; $self->talk; 1 } ? undef : $@;
	my $status = $self->finish(defined $end);
	my %result = (state => 'ok', intervals => $self->intervals, values => $self->{values}, notes => $self->{notes});

	chomp $end if defined $end;
	if (!defined $end && $status == CANNOT << 8)
	{
		@result{qw(state reason)} = ('cannot', pop @{ $self->{notes} } // 'it says not why');
	}
	elsif (defined $end || $status != 0 || !$self->{done})
	{
		$result{state} = 'failed';
		$result{reason} = $end // $self->last_words // "it ended with status $status";
	}
	return \%result;
}

sub start
{
	my ($self) = @_;

	pipe my $read, $self->{in} or die "pipe: $!\n";
	pipe $self->{out}, my $write or die "pipe: $!\n";
	$self->{in}->autoflush(1);
	$self->{deadline} = time + $self->{seconds};
	$self->{pid} = $running = fork // die "fork: $!\n";
	if ($self->{pid} == 0)
	{
		setpgrp 0, 0;
		@ENV{ keys %{ $self->{environment} } } = values %{ $self->{environment} };
		open STDIN, '<&', $read;
		open STDOUT, '>&', $write;
		open STDERR, '>', $self->{log};
		close $_ foreach $self->{in}, $self->{out};
		exec @{ $self->{command} } or exit 1;
	}
	# Whoever comes first: it must not be the killer.
	setpgrp $self->{pid}, $self->{pid};
	return;
}

# The next line; undef at the end.
sub read_line
{
	my ($self) = @_;
	my $select = IO::Select->new($self->{out});
	my $end;

	while (($end = index $self->{buffer}, "\n") < 0)
	{
		my $left = $self->{deadline} - time;

		die "it took more than $self->{seconds} s\n" if $left <= 0 || !$select->can_read($left);
		return undef
		  unless sysread $self->{out}, $self->{buffer}, 65536, length $self->{buffer};
	}
	my $line = substr $self->{buffer}, 0, $end + 1, '';
	chomp $line;
	return $line;
}

sub talk
{
	my ($self) = @_;

	while (defined(my $line = $self->read_line))
	{
		my $now = time;

		if ($line =~ /^mark (\w+)$/)
		{
			$self->take_mark($1, $now);
		}
		elsif ($line =~ /^value (\S+) (-?[\d.]+(?:[eE][-+]?\d+)?)$/)
		{
			push @{ $self->{values}{$1} }, $2;
		}
		elsif ($line =~ /^note (.*)/)
		{
			push @{ $self->{notes} }, $1 unless grep { $_ eq $1 } @{ $self->{notes} };
		}
		elsif ($line eq 'done')
		{
			$self->{done} = 1;
		}
		else
		{
			die "it says: $line\n";
		}
	}
	return;
}

# An interval is over when its mark arrives, and another begins with the answer.
sub take_mark
{
	my ($self, $name, $now) = @_;
	my $counters = $self->{counters};
	my %mark = (name => $name, arrived => $now, before => $counters->at_once);

	# Between created and run nothing happens, and little before create.
	sleep $self->{report_seconds} unless $name eq 'create' || $name eq 'run' && @{ $self->{marks} };
	$mark{reported} = $counters->reported if $self->{report_seconds} > 0;
	$mark{after} = $counters->at_once;
	$mark{answered} = time;
	push @{ $self->{marks} }, \%mark;
	local $SIG{PIPE} = 'IGNORE';
	print { $self->{in} } "go\n";
	return;
}

# By the names of the marks that they begin with.
sub intervals
{
	my ($self) = @_;
	my @marks = @{ $self->{marks} };
	my %intervals;

	foreach my $i (0 .. $#marks - 1)
	{
		my ($from, $to) = @marks[ $i, $i + 1 ];

		$intervals{ $from->{name} } = {
			seconds => $to->{arrived} - $from->{answered},
			%{ Bench::Counters::difference($from->{after}, $to->{before}) },
			%{ Bench::Counters::difference($from->{reported} // {}, $to->{reported} // {}) },
		};
	}
	return \%intervals;
}

# Waits for its end; what does not end is killed, with all its children.
sub finish
{
	my ($self, $kill) = @_;

	return 0 unless $self->{pid};
	close $self->{in};
	kill 'KILL', -$self->{pid} if $kill;
	waitpid $self->{pid}, 0;
	my $status = $?;
	kill 'KILL', -$self->{pid};
	close $self->{out};
	undef $running;
	return $status;
}

# What it said of its error, else the last it said to its standard error.
sub last_words
{
	my ($self) = @_;
	my @lines = grep { /\S/ } split /\n/, Bench::Counters::slurp($self->{log});
	my ($error) = grep { /error\b[^:]*: /i } @lines;

	return $error // $lines[-1];
}

# Any program in a directory; returns whether it came to a good end.
sub run_limited
{
	my ($seconds, $directory, $log, @command) = @_;
	my $deadline = time + $seconds;
	my $pid = $running = fork // die "fork: $!\n";

	if ($pid == 0)
	{
		setpgrp 0, 0;
		chdir $directory or exit 1;
		open STDIN, '<', '/dev/null';
		open STDOUT, '>', $log;
		open STDERR, '>&', \*STDOUT;
		exec @command or exit 1;
	}
	sleep 0.1 until waitpid($pid, WNOHANG) == $pid || time > $deadline;
	my $status = time > $deadline ? -1 : $?;
	kill 'KILL', -$pid;
	waitpid $pid, 0;
	undef $running;
	return $status == 0;
}

sub kill_running
{
	kill 'KILL', -$running if $running;
	return;
}

1;
