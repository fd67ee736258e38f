# An HTTP server for the tests, which misbehaves on request.  Each connection has
# a process; what was asked for goes into a file, a line a request.
package HttpServer;

use strict;
use warnings;

use Fcntl qw(:flock);
use IPC::Run;
use IO::Socket::INET;
use POSIX ();
use PostgreSQL::Test::Utils ();
use Test::More ();
use Socket qw(IPPROTO_TCP TCP_NODELAY SOL_SOCKET SO_LINGER);
use Time::HiRes qw(sleep);

my %agents;

# A test that dies leaves none behind.
END
{
	$_->{run}->kill_kill for values %agents;
}

# new(directory => ..., tls => [certificate, key] or nothing)
sub new
{
	my ($class, %options) = @_;
	my $self = bless { log => "$options{directory}/requests" . ($options{tls} ? '_tls' : ''), owner => $$, %options }, $class;

	open my $log, '>', $self->{log} or die $!;
	close $log;
	$self->{socket} = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 200, ReuseAddr => 1) or die $!;
	$self->{port} = $self->{socket}->sockport;
	$self->{pid} = fork // die $!;
	$self->serve if $self->{pid} == 0;
	return $self;
}

sub stop
{
	my ($self) = @_;

	return if $$ != $self->{owner} || !$self->{pid};
	kill 'TERM', $self->{pid};
	waitpid $self->{pid}, 0;
	$self->{pid} = 0;
	return;
}

sub DESTROY
{
	my ($self) = @_;
	local $?;

	$self->stop;
	return;
}

# What was asked for, so far: hashes with method, path, key, headers, body.
sub requests
{
	my ($self) = @_;

	open my $log, '<', $self->{log} or die $!;
	flock $log, LOCK_SH;
	my @requests = map {
		chomp;
		my ($method, $path, $head, $body) = map { pack 'H*', $_ } split / /, $_, -1;
		my %headers = map { /^([^:]+):\s*(.*)$/ ? (lc $1, $2) : () } split /\r\n/, $head;

		{ method => $method, path => $path, headers => \%headers, body => $body, key => $headers{'idempotency-key'} // '' };
	} <$log>;
	close $log;
	return @requests;
}

# Notes a request; returns how many there were with that key and path.
sub note
{
	my ($self, $method, $path, $head, $body) = @_;
	my $line = join(' ', map { unpack 'H*', $_ } $method, $path, $head, $body) . "\n";

	open my $log, '+>>', $self->{log} or die $!;
	flock $log, LOCK_EX;
	syswrite $log, $line;
	close $log;
	my ($key) = $head =~ /^idempotency-key:\s*(\S+)/im;

	return scalar grep { $_->{path} eq $path && $_->{key} eq ($key // '') } $self->requests;
}

sub serve
{
	my ($self) = @_;

	$SIG{CHLD} = 'IGNORE';
	$SIG{TERM} = sub { kill 'TERM', keys %{ $self->{children} }; POSIX::_exit(0); };
	for (;;)
	{
		my $client = $self->{socket}->accept or next;
		my $pid = fork // next;

		if ($pid == 0)
		{
			$SIG{TERM} = 'DEFAULT';
			$SIG{PIPE} = sub { POSIX::_exit(0) };
			close $self->{socket};
			setsockopt($client, IPPROTO_TCP, TCP_NODELAY, 1);
			if ($self->{tls})
			{
				require IO::Socket::SSL;
				$client = IO::Socket::SSL->start_SSL($client, SSL_server => 1, SSL_cert_file => $self->{tls}[0], SSL_key_file => $self->{tls}[1])
				  or POSIX::_exit(0);
			}
			1 while $self->answer($client);
			POSIX::_exit(0);
		}
		$self->{children}{$pid} = 1;
	}
}

sub reply
{
	my ($client, $status, $body, @headers) = @_;

	push @headers, 'Content-Type: application/json' if !grep { /^content-type/i } @headers;
	print $client join("\r\n", "HTTP/1.1 $status Text", @headers, 'Content-Length: ' . length $body, '', $body);
	return 1;
}

# One request; false where the connection is to be closed.
sub answer
{
	my ($self, $client) = @_;
	my $head = '';

	while (defined(my $line = <$client>))
	{
		last if $line eq "\r\n";
		$head .= $line;
	}
	my ($method, $path) = $head =~ /^(\S+) (\S+)/ or return 0;
	my ($length) = $head =~ /^content-length:\s*(\d+)/im;
	my $body = '';

	read $client, $body, $length if $length;
	my $nth = $self->note($method, $path, $head, $body);
	my ($what, %option) = split m{[/?&=]}, substr($path, 1), -1;

	autoflush $client 1;
	if ($what eq 'slow') { sleep $option{s}; return reply($client, 200, '{"slow": true}'); }
	if ($what eq 'status') { return reply($client, $option{code}, '{"nth": ' . $nth . '}'); }
	if ($what eq 'switch') { return reply($client, -e "$self->{directory}/down" ? 500 : 200, '{}'); }
	if ($what eq 'file')
	{
		# what the directory has by that name
		my $file = "$self->{directory}/$option{name}";

		return -e $file ? reply($client, 200, PostgreSQL::Test::Utils::slurp_file($file)) : reply($client, 404, '{}');
	}
	if ($what eq 'after')
	{
		# busy the first time, with what the client has to wait
		return reply($client, 200, '{"nth": ' . $nth . '}') if $nth > 1;
		my $wait = $option{date} ? POSIX::strftime('%a, %d %b %Y %H:%M:%S GMT', gmtime(time + $option{date})) : $option{s};

		return reply($client, $option{code}, '{}', "Retry-After: $wait");
	}
	if ($what eq 'fail') { return $nth > $option{times} ? reply($client, 200, '{"nth": ' . $nth . '}') : reply($client, 500, '{"why": "asked to"}'); }
	if ($what eq 'reset')
	{
		print $client "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf";
		setsockopt($client, SOL_SOCKET, SO_LINGER, pack('II', 1, 0));
		return 0;
	}
	if ($what eq 'huge')
	{
		print $client "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
		print $client "10000\r\n" . 'x' x 65536 . "\r\n" for 1 .. 2000;
		return 0;
	}
	if ($what eq 'drip')
	{
		print $client "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
		for (1 .. 600) { print $client "1\r\n.\r\n"; sleep 0.1; }
		return 0;
	}
	if ($what eq 'headers')
	{
		print $client "HTTP/1.1 200 OK\r\n";
		print $client "X-$_: " . 'x' x 1000 . "\r\n" for 1 .. 100000;
		return 0;
	}
	if ($what eq 'to')
	{
		my ($code, $where) = $path =~ m{^/to/(\d+)/(.*)$};

		$where =~ s/%([0-9A-Fa-f]{2})/chr hex $1/ge;
		return reply($client, $code, '{}', "Location: $where");
	}
	if ($what eq 'gzip')
	{
		require Compress::Zlib;
		return reply($client, 200, Compress::Zlib::memGzip('{"zipped": "' . 'y' x $option{n} . '"}'), 'Content-Encoding: gzip');
	}
	if ($what eq 'bytes') { return reply($client, 200, "\xff\xfe\0", 'Content-Type: text/plain'); }
	if ($what eq 'garbage') { print $client "what is this\r\n\r\n"; return 0; }
	if ($what eq 'empty') { return 0; }
	if ($what eq 'notjson') { return reply($client, 200, '{"a": '); }
	$body = '"' . unpack('H*', $body) . '"';
	return reply($client, 200, "{\"method\": \"$method\", \"path\": \"$path\", \"body\": $body}");
}

# A tasker-agent with these options on a database of the node; ready, and to be
# ended by stop_agent().
sub start_agent
{
	my ($node, @options) = @_;
	my $agent = { out => '', err => '' };
	local $ENV{PGHOST} = $node->host;
	local $ENV{PGPORT} = $node->port;
	local $ENV{PGDATABASE} = 'postgres';

	$agent->{run} = IPC::Run::start([ 'tasker-agent', '--roles', 'http', @options ], '>', \$agent->{out}, '2>', \$agent->{err});
	IPC::Run::pump($agent->{run}) until $agent->{out} =~ /is ready/ || !IPC::Run::pumpable($agent->{run});
	die "tasker-agent did not start: $agent->{err}" if $agent->{out} !~ /is ready/;
	$agents{$agent} = $agent;
	return $agent;
}

# Ends it by that signal; returns its exit status.  One that it gave itself is explained.
sub stop_agent
{
	my ($agent, $signal) = @_;

	delete $agents{$agent};
	IPC::Run::signal($agent->{run}, $signal // 'TERM');
	IPC::Run::finish($agent->{run});
	Test::More::diag($agent->{err}) if $? >> 8;
	return $?;
}

1;
