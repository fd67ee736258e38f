# A cluster of its own: made, started, asked, stopped, removed.
package Bench::Server;

use strict;
use warnings;

use File::Path qw(remove_tree);
use IO::Handle;
use IPC::Open2;

# Everybody runs under these.
our @SETTINGS = (
	[ fsync => 'on' ],
	[ synchronous_commit => 'on' ],
	[ full_page_writes => 'on' ],
	[ autovacuum => 'on' ],
	[ shared_buffers => '512MB' ],
	[ max_wal_size => '8GB' ],
	[ checkpoint_timeout => '30min' ],
	[ jit => 'off' ],
	[ max_worker_processes => 16 ],
	[ max_connections => 300 ]);

# Those that run, for the end of everything.
my %running;

# place: a directory that exists, or will; bindir: of PostgreSQL.
sub new
{
	my ($class, %self) = @_;

	return bless { settings => [], %self }, $class;
}

sub command
{
	my ($self, $program, @arguments) = @_;
	my $log = "$self->{place}/commands.log";
	my $pid = fork // die "fork: $!\n";

	if ($pid == 0)
	{
		open STDIN, '<', '/dev/null';
		open STDOUT, '>>', $log;
		open STDERR, '>&', \*STDOUT;
		exec "$self->{bindir}/$program", @arguments or exit 1;
	}
	waitpid $pid, 0;
	die "$program failed: " . last_line($log) . "\n" if $?;
	return;
}

sub last_line
{
	my ($path) = @_;
	my $last = '';

	open my $file, '<', $path or return '';
	while (my $line = <$file>)
	{
		$last = $line if $line =~ /\S/;
	}
	chomp $last;
	return $last;
}

# initdb takes a second: one cluster is made, the others are copies of it.
sub make_template
{
	my ($class, %self) = @_;
	my $self = $class->new(%self);

	mkdir $self->{place};
	$self->command('initdb', '-D', "$self->{place}/data", '-U', 'postgres', '-A', 'trust', '-E', 'UTF8',
		'--locale=C.UTF-8');
	return "$self->{place}/data";
}

sub start
{
	my ($self) = @_;
	my $data = "$self->{place}/data";

	mkdir $self->{place};
	system('cp', '-a', $self->{template}, $data) == 0 or die "cp failed\n";
	open my $file, '>>', "$data/postgresql.conf" or die "$data/postgresql.conf: $!\n";
	printf $file "%s = '%s'\n", @$_ foreach @SETTINGS, @{ $self->{settings} };
	print $file "listen_addresses = ''\nunix_socket_directories = '$self->{place}'\nport = $self->{port}\n";
	close $file;
	# What was copied is on the disk before anything is measured.
	system('sync', '-f', $data);
	$running{"$self"} = $self;
	$self->command('pg_ctl', 'start', '-w', '-s', '-D', $data, '-l', "$self->{place}/server.log");
	open $file, '<', "$data/postmaster.pid" or die "postmaster.pid: $!\n";
	chomp($self->{postmaster} = <$file>);
	$self->open_session;
	return;
}

# A psql that stays, in a database that no workload uses.
sub open_session
{
	my ($self) = @_;

	$self->{pid} = open2($self->{out}, $self->{in}, "$self->{bindir}/psql", '-XAqt', '-v', 'ON_ERROR_STOP=1',
		'-h', $self->{place}, '-p', $self->{port}, '-U', 'postgres', '-d', 'postgres');
	$self->{in}->autoflush(1);
	($self->{session}) = $self->query('SELECT pg_backend_pid()');
	return;
}

# The columns of one row.
sub query
{
	my ($self, $sql) = @_;
	my $answer = $self->{out};
	my @lines;

	local $SIG{PIPE} = 'IGNORE';
	print { $self->{in} } "$sql;\n\\echo :end\n";
	while (my $line = <$answer>)
	{
		chomp $line;
		return split /\|/, $lines[0] // '', -1 if $line eq ':end';
		push @lines, $line;
	}
	die "psql ended at: $sql\n";
}

# A database for a workload, fresh and the only one.  What the last one left
# goes, with all that autovacuum would do for it, and by a checkpoint: no page
# has to be written as a whole in the time to come.
sub fresh_database
{
	my ($self, $name) = @_;

	$self->query("DROP DATABASE IF EXISTS $self->{database} WITH (FORCE)") if defined $self->{database};
	$self->query("CREATE DATABASE $name");
	$self->{database} = $name;
	return;
}

# For libpq.
sub environment
{
	my ($self) = @_;

	return (PGHOST => $self->{place}, PGPORT => $self->{port}, PGUSER => 'postgres', PGDATABASE => $self->{database});
}

sub counters
{
	my ($self) = @_;

	return Bench::Counters->new(
		query => sub { return $self->query(@_) },
		database => $self->{database},
		postmaster => $self->{postmaster},
		besides => $self->{session});
}

sub stop
{
	my ($self) = @_;

	return unless delete $running{"$self"};
	close $self->{in} if $self->{in};
	close $self->{out} if $self->{out};
	eval { $self->command('pg_ctl', 'stop', '-s', '-m', 'immediate', '-D', "$self->{place}/data") };
	waitpid $self->{pid}, 0 if $self->{pid};
	delete $self->{pid};
	return;
}

sub remove
{
	my ($self) = @_;

	$self->stop;
	remove_tree($self->{place});
	return;
}

sub stop_all
{
	$_->stop foreach values %running;
	return;
}

1;
