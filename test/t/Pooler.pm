# A real PgBouncer in transaction mode, for the tests.
package Pooler;

use strict;
use warnings;

use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Time::HiRes qw(time usleep);

my ($program) = grep { -x } map { "$_/pgbouncer" } split(/:/, $ENV{PATH}), '/usr/sbin', '/usr/bin';
my @all;

# A test that dies leaves none behind.
END
{
	$_->stop foreach @all;
}

sub is_there { return defined $program; }

# Pooler->new($node, role): three server sessions, all of that role, for everybody
# who connects to the database postgres.  It has not been started.
sub new
{
	my ($class, $node, $role) = @_;
	my $self = bless {
		owner => $$,
		sockets => PostgreSQL::Test::Utils::tempdir_short,
		place => PostgreSQL::Test::Utils::tempdir,
		port => PostgreSQL::Test::Cluster::get_free_port(),
		role => $role,
		pid => 0
	}, $class;

	$self->set(<<"INI");
[databases]
postgres = host=${\ $node->host} port=${\ $node->port} dbname=postgres user=$role
[pgbouncer]
listen_port = $self->{port}
unix_socket_dir = $self->{sockets}
auth_type = any
pool_mode = transaction
default_pool_size = 3
logfile = $self->{place}/pgbouncer.log
pidfile = $self->{place}/pgbouncer.pid
INI
	push @all, $self;
	return $self;
}

# More lines of its file, for the next start.
sub set
{
	my ($self, $lines) = @_;

	append_to_file("$self->{place}/pgbouncer.ini", $lines);
	return;
}

sub connstr
{
	my ($self) = @_;

	return "host=$self->{sockets} port=$self->{port} dbname=postgres user=$self->{role}";
}

sub start
{
	my ($self) = @_;
	my $until = time + 60;

	$self->{pid} = fork // die "fork: $!";
	if ($self->{pid} == 0)
	{
		open STDOUT, '>', "$self->{place}/output";
		open STDERR, '>&', \*STDOUT;
		exec $program, "$self->{place}/pgbouncer.ini" or POSIX::_exit(1);
	}
	usleep(20_000) while !-S "$self->{sockets}/.s.PGSQL.$self->{port}" && time < $until;
	return;
}

# At once, as if it had crashed.
sub stop
{
	my ($self) = @_;
	local $?;

	return if !$self->{pid} || $self->{owner} != $$;
	kill 'KILL', $self->{pid};
	waitpid $self->{pid}, 0;
	$self->{pid} = 0;
	unlink "$self->{sockets}/.s.PGSQL.$self->{port}", "$self->{place}/pgbouncer.pid";
	return;
}

1;
