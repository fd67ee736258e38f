# What an interval cost the server: WAL, transactions, fsyncs, buffers, and
# processor time.  The harness and the test of costs read them here.
package Bench::Counters;

use strict;
use warnings;

use POSIX ();

# query: runs a query, returns its columns of the one row; database: whose
# transactions and buffers count; postmaster: its pid; besides: the pid of the
# session that asks, which is not to count.
sub new
{
	my ($class, %self) = @_;

	return bless {%self}, $class;
}

# What stands at once: WAL and processor time.
sub at_once
{
	my ($self) = @_;
	my $cpu = defined $self->{postmaster} ? $self->processor_time : {};
	my ($wal) = $self->{query}->("SELECT pg_current_wal_insert_lsn() - '0/0'");

	return { wal => $wal, cpu => $cpu };
}

# What processes report when they are idle, so that there is a time to wait first.
sub reported
{
	my ($self) = @_;
	my ($syncs) = $self->{query}->($self->fsyncs_query);
	my ($transactions, $buffers) = $self->{query}->(<<"SQL");
SELECT xact_commit, blks_hit + blks_read FROM pg_stat_database WHERE datname = '$self->{database}'
SQL

	return { transactions => $transactions, buffers => $buffers, syncs => $syncs };
}

# From version 18 on pg_stat_io has them.
sub fsyncs_query
{
	my ($self) = @_;

	($self->{version}) = $self->{query}->("SELECT current_setting('server_version_num')")
	  unless defined $self->{version};
	return $self->{version} >= 180000
	  ? "SELECT coalesce(sum(fsyncs), 0) FROM pg_stat_io WHERE object = 'wal'"
	  : 'SELECT wal_sync FROM pg_stat_wal';
}

# The difference of two readings, key by key.
sub difference
{
	my ($from, $to) = @_;
	my %difference;

	foreach my $key (keys %$to)
	{
		$difference{$key} = ref $to->{$key}
		  ? difference($from->{$key} // {}, $to->{$key})
		  : $to->{$key} - ($from->{$key} // 0);
	}
	return \%difference;
}

# Microseconds of each kind of process, and of those that have ended.
sub processor_time
{
	my ($self) = @_;
	my ($ended, %time);

	# One that ends meanwhile would count twice, or not at all.
	for (1 .. 10)
	{
		%time = ();
		$ended = ended_children($self->{postmaster});
		foreach my $pid ($self->{postmaster}, children($self->{postmaster}))
		{
			next if defined $self->{besides} && $pid == $self->{besides};
			$time{ kind($pid) } += process_time($pid);
		}
		last if $ended == ended_children($self->{postmaster});
	}
	$time{ended} = $ended;
	return \%time;
}

sub slurp
{
	my ($path) = @_;

	open my $file, '<', $path or return '';
	local $/;
	return <$file> // '';
}

# The fields of /proc/PID/stat behind the name, which may hold anything.
sub stat_fields
{
	my ($pid) = @_;
	my (undef, $rest) = slurp("/proc/$pid/stat") =~ /^(.*)\) (.*)/s;

	return split ' ', $rest // '';
}

sub children
{
	my ($pid) = @_;
	my $children = "/proc/$pid/task/$pid/children";

	return split ' ', slurp($children) if -e $children;
	return grep { ((stat_fields($_))[1] // 0) == $pid } map { m{(\d+)$} } glob '/proc/[0-9]*';
}

sub ticks_to_us
{
	my ($ticks) = @_;

	return $ticks * 1_000_000 / POSIX::sysconf(POSIX::_SC_CLK_TCK());
}

# Where the kernel counts nanoseconds, those; a tick is ten milliseconds.
sub process_time
{
	my ($pid) = @_;
	my ($ns) = split ' ', slurp("/proc/$pid/schedstat");
	my @fields;

	return $ns / 1000 if $ns;
	@fields = stat_fields($pid);
	return @fields ? ticks_to_us($fields[11] + $fields[12]) : 0;
}

sub ended_children
{
	my ($pid) = @_;
	my @fields = stat_fields($pid);

	return @fields ? ticks_to_us($fields[13] + $fields[14]) : 0;
}

sub kind
{
	my ($pid) = @_;
	my $title = slurp("/proc/$pid/cmdline");

	return 'executors' if $title =~ /tasker executor/;
	return 'notifier' if $title =~ /tasker notifier/;
	return 'sessions' if $title =~ /\[local\]/;
	return 'server';
}

1;
