# Clients of the REST API that mean no good: whatever they do, the others are
# served.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IO::Socket::INET;
use RestAgent;
use TaskerTest;
use Test::More;

my $node = new_server('rest_hostile', 'tasker.executors = 1');

install_tasker($node, 'postgres');
my $task = $node->safe_psql('postgres', q{SELECT tasker.create_task('quick')});
my $agent = RestAgent->new($node, 'postgres', '--idle-timeout', '3s', '--request-timeout', '5s', '--max-body', '64kB');

sub is_served
{
	my ($name) = @_;

	is($agent->call(GET => "/tasker/tasks/$task")->{status}, 200, $name);
	return;
}

sub raw
{
	my ($text) = @_;
	my $socket = $agent->connection;

	# It may be refused before all of it is sent.
	local $SIG{PIPE} = 'IGNORE';
	print $socket $text;
	my $answer = RestAgent::read_until($socket, qr/\r\n\r\n.*\}\z/s);
	close $socket;
	return $answer;
}

# Each goes on sending a little, so that none of them is ever silent; the agent
# ends each of them.
sub drips
{
	my ($name, $first, $drop) = @_;
	my @sockets = map { $agent->connection } 1 .. 50;

	print $_ $first foreach @sockets;
	is_served("others are served while $name");
	local $SIG{PIPE} = 'IGNORE';
	my $deadline = time + 60;
	my $open = @sockets;

	while ($open && time < $deadline)
	{
		$open = 0;
		foreach my $socket (@sockets)
		{
			next if !defined $socket;
			$socket->blocking(0);
			my $count = sysread $socket, my $data, 1000;

			if ((defined $count && $count == 0) || !defined syswrite($socket, $drop))
			{
				undef $socket;
				next;
			}
			$open++;
		}
		select undef, undef, undef, 0.1;
	}
	is($open, 0, "who $name is cut off");
	is_served('and the others are served');
	return;
}

drips('sends its headers a byte at a time', "GET /tasker/tasks HTTP/1.1\r\nHost: localhost\r\nX-A: ", 'a');
drips('sends its body a byte at a time',
	"POST /tasker/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n{", 'a');

# ---- a thousand that say nothing

{
	my @idle = map { $agent->connection } 1 .. 1000;

	is_served('1,000 idle connections');
	is_served('again');
}

# ---- several requests at once on a connection

{
	my $socket = $agent->connection;
	my $request = "GET /tasker/tasks/$task HTTP/1.1\r\nHost: localhost\r\n\r\n";

	print $socket $request x 20 . "GET /tasker/nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
	my $answers = RestAgent::read_until($socket, qr/nothing can fit this/);

	is(scalar(() = $answers =~ m{HTTP/1\.1 200 }g), 20, 'a pipeline of requests gets as many answers');
	like($answers, qr{HTTP/1.1 404 Not Found.*\z}s, 'in their order');
}

# ---- a body without end

like(raw("POST /tasker/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1073741824\r\n\r\n"),
	qr{^HTTP/1.1 413 }, 'a body of 1 GB is refused by what it says of itself');
{
	my $socket = $agent->connection;
	my $chunk = sprintf "%x\r\n%s\r\n", 60_000, 'a' x 60_000;
	my $sent = 0;

	local $SIG{PIPE} = 'IGNORE';
	print $socket "POST /tasker/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
	while ($sent < 1_073_741_824)
	{
		last if !print $socket $chunk;
		$sent += 60_000;
	}
	cmp_ok($sent, '<', 100_000_000, 'one that does not say is cut off');
	is_served('and the others are served');
}

# ---- what others may read otherwise

my %oddities = (
	'two lengths' => "POST /tasker/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
	'a length and chunks' => "POST /tasker/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	'an encoding in disguise' => "POST /tasker/tasks HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
	'two hosts' => "GET /tasker/me HTTP/1.1\r\nHost: localhost\r\nHost: other\r\n\r\n",
	'no host' => "GET /tasker/me HTTP/1.1\r\n\r\n",
	'a length that is no number' => "POST /tasker/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: +2\r\n\r\n{}",
	'a target that is no path' => "GET http://localhost/tasker/me HTTP/1.1\r\nHost: localhost\r\n\r\n",
	'a NUL in the path' => "GET /tasker/templates/a%00b/c HTTP/1.1\r\nHost: localhost\r\n\r\n",
	'a path that is not UTF-8' => "GET /tasker/templates/%ff/c HTTP/1.1\r\nHost: localhost\r\n\r\n",
	'an escape that is none' => "GET /tasker/templates/%4/c HTTP/1.1\r\nHost: localhost\r\n\r\n",
);
foreach my $name (sort keys %oddities)
{
	like(raw($oddities{$name}), qr{^HTTP/1\.[01] 400 |^\z}, "$name: refused");
}
like(raw("GET /tasker/me HTTP/1.1\r\nHost: localhost\r\n" . join('', map { "X-$_: " . 'a' x 1000 . "\r\n" } 1 .. 100) . "\r\n"),
	qr{^HTTP/1.1 431 |^\z}, 'headers without end are refused');
like(raw('GET /tasker/' . 'a' x 9_000 . " HTTP/1.1\r\nHost: localhost\r\n\r\n"), qr{^HTTP/1.1 414 }, 'and a path without end');
is($agent->call(GET => '/tasker/assets/../../../../etc/passwd')->{status}, 404, 'no file but those of the pages');
is($agent->call(GET => '/tasker/assets/%2e%2e%2findex.html')->{status}, 404, 'by no spelling');

# ---- who opens a stream and does not read it

{
	my $socket = $agent->connection;

	print $socket "GET /tasker/events HTTP/1.1\r\nHost: localhost\r\n\r\n";
	RestAgent::read_until($socket, qr/retry/);
	$node->safe_psql('postgres', q{SELECT count(tasker.create_task('quick', jsonb_build_object('a', repeat('x', 20000)))) FROM generate_series(1, 500)});
	is_served('others are served while somebody does not read his stream');
}

# ---- the database goes and comes back

$node->stop('fast');
is($agent->call(GET => "/tasker/tasks/$task")->{status}, 503, 'without a database the agent says so');
is($agent->call(GET => '/tasker/health/live')->{status}, 200, 'and lives');
is($agent->call(GET => '/tasker/health/ready')->{status}, 503, 'but is not ready');
$node->start;
my $status = 0;
for (1 .. 1200)
{
	$status = $agent->call(GET => "/tasker/tasks/$task")->{status};
	last if $status == 200;
	select undef, undef, undef, 0.1;
}
is($status, 200, 'it finds the database again by itself');

ok($agent->is_running, 'the agent is still there');
is($agent->end, 0, 'and ends by SIGTERM');
done_testing();
