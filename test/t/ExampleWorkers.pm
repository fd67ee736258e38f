# The workers of example/worker: built, started, stopped and killed.
package ExampleWorkers;

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Copy qw(copy);
use FindBin;
use IPC::Run;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);
use Exporter 'import';

our @EXPORT = qw(worker_source build_c build_node start_worker worker_like holds stop_at_work end_worker);

# Built outside the checkout, from the example as it stands.
my $place;

# Those that run: they would try for ever to reach a server that is gone.
my %running;

sub worker_source
{
	return abs_path("$FindBin::RealBin/../../example/worker");
}

sub place
{
	if (!defined $place)
	{
		$place = PostgreSQL::Test::Utils::tempdir;
		copy(worker_source() . "/$_", $place) or die "$_: $!" foreach qw(Makefile worker.c worker.mjs package.json);
	}
	return $place;
}

# The server's own pg_config may have come here without libpq's headers.
sub config_with_libpq
{
	foreach my $config ((map { "$_/pg_config" } split /:/, $ENV{PATH}), glob '/usr/lib/postgresql/*/bin/pg_config')
	{
		next unless -x $config;
		chomp(my $headers = `$config --includedir`);
		return $config if -f "$headers/libpq-fe.h";
	}
	return 'pg_config';
}

# Returns what the compiler said.
sub build_c
{
	my ($stdout, $stderr);

	ok(IPC::Run::run([ 'make', '-C', place(), 'worker', 'PG_CONFIG=' . config_with_libpq() ],
			'>', \$stdout, '2>', \$stderr), 'worker.c compiles')
	  or diag($stderr);
	return $stderr;
}

# Returns why there is no Node worker; undef where there is one.
sub build_node
{
	my $out = '';
	my $run = sub { return eval { IPC::Run::run([@_], '<', \undef, '>&', \$out, IPC::Run::timeout(120)) } };

	# Whom the system trusts, npm is to trust, too.
	my $trusted = '/etc/ssl/certs/ca-certificates.crt';
	$ENV{NODE_EXTRA_CA_CERTS} //= $trusted if -f $trusted;
	return 'there is no node of version 18 or later'
	  unless $run->('node', '-e', 'process.exit(parseInt(process.versions.node) >= 18 ? 0 : 1)');
	return "npm can't install pg: $out"
	  unless $run->('npm', 'install', '--prefix', place(), '--no-audit', '--no-fund', '--no-package-lock', '--loglevel=error');
	return;
}

# The name of workers in claimed_by, as a pattern; of one of them by its pid.
sub worker_like
{
	my ($kind, $pid) = @_;

	return $kind eq 'c' ? "c/$pid" : "%/node/$pid";
}

# Starts one; returns its pid.
sub start_worker
{
	my ($kind, %environment) = @_;
	my $pid = fork // die "fork: $!";

	if ($pid == 0)
	{
		my @command = $kind eq 'c' ? ("$place/worker") : ('node', "$place/worker.mjs");
		(my $test = $0) =~ s{.*/}{};

		open STDERR, '>>', "${PostgreSQL::Test::Utils::log_path}/${test}_worker_$kind.log";
		open STDOUT, '>&', \*STDERR;
		$ENV{PGUSER} //= getpwuid($>);
		@ENV{ keys %environment } = values %environment;
		# Without the END blocks, which would stop the server.
		exec @command or POSIX::_exit(1);
	}
	$running{$pid} = 1;
	return $pid;
}

# Number of steps that it holds.
sub holds
{
	my ($node, $kind, $pid) = @_;
	my $name = worker_like($kind, $pid);

	return $node->safe_psql('postgres', "SELECT count(*) FROM tasker.workflow_steps WHERE claimed_by LIKE '$name'");
}

# Stops it in the middle of a batch where it can be had; returns the number of
# steps that it holds.
sub stop_at_work
{
	my ($node, $kind, $pid) = @_;
	my $held = 0;

	for (1 .. 20)
	{
		kill 'STOP', $pid;
		$held = holds($node, $kind, $pid);
		last if $held > 0;
		kill 'CONT', $pid;
		usleep(20_000);
	}
	return $held;
}

# Sends it a signal and waits for its end; returns its status.
sub end_worker
{
	my ($pid, $signal) = @_;

	kill $signal, $pid;
	waitpid $pid, 0;
	delete $running{$pid};
	return $?;
}

END
{
	kill 'KILL', keys %running;
}

1;
