# tasker-agent itself: where its settings come from, its signals, a database that
# comes and goes, and what is written about it.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use HTTP::Tiny;
use IO::Select;
use IO::Socket::UNIX;
use PostgreSQL::Test::Utils;
use Socket qw(SOCK_DGRAM);
use TaskerTest;
use Test::More;

my $node = new_server('agent', '');
install_tasker($node, 'postgres');

# A socket's path has room for 107 bytes.
my $directory = PostgreSQL::Test::Utils::tempdir_short();
my $root = "$FindBin::RealBin/../..";

sub write_file
{
	my ($name, $text) = @_;

	open my $file, '>', "$directory/$name" or die "$name: $!";
	print $file $text;
	close $file;
	return "$directory/$name";
}

# One with these options and this environment.
sub start_agent
{
	my ($options, %environment) = @_;
	my $agent = { out => '', err => '' };
	local @ENV{ 'PGHOST', 'PGPORT', 'PGDATABASE', keys %environment } =
	  ($node->host, $node->port, 'postgres', values %environment);

	$agent->{run} = IPC::Run::start([ 'tasker-agent', @$options ], '<', \undef, '>', \$agent->{out}, '2>', \$agent->{err},
		$agent->{timer} = IPC::Run::timer($PostgreSQL::Test::Utils::timeout_default));
	return $agent;
}

# Until its output has that.
sub wait_for_output
{
	my ($agent, $stream, $pattern, $name) = @_;

	$agent->{run}->pump until $agent->{$stream} =~ $pattern || !$agent->{run}->pumpable || $agent->{timer}->is_expired;
	like($agent->{$stream}, $pattern, $name);
	return;
}

sub stop_agent
{
	my ($agent, $name) = @_;

	$agent->{run}->signal('TERM');
	$agent->{run}->finish;
	is($agent->{run}->full_result(0), 0, "$name: SIGTERM ends it well");
	return;
}

# ---- settings: a flag, the environment, the file, the default

my $file = write_file('agent.conf', <<"CONF");
# a comment

listen = 'unix:$directory/file'
log_format = json
CONF
my @roles = ('--roles', 'rest');
my $agent = start_agent([ @roles, '--config', $file ]);
wait_for_output($agent, 'out', qr{^tasker-agent is ready: rest on unix:\Q$directory\E/file\n}, 'the file says where it listens');
stop_agent($agent, 'with a file');
like($agent->{err}, qr/^\{"timestamp":"[^"]+Z","level":"info","message":"ended"\}$/m, 'and what its log looks like');

my %environment = (TASKER_AGENT_CONFIG => $file, TASKER_AGENT_LISTEN => "unix:$directory/env");
$agent = start_agent(\@roles, %environment);
wait_for_output($agent, 'out', qr{ rest on unix:\Q$directory\E/env\n}, 'the environment goes before the file, and may name it');
stop_agent($agent, 'with an environment');

$agent = start_agent([ @roles, "--listen=unix:$directory/flag", '--log-format', 'text' ], %environment);
wait_for_output($agent, 'out', qr{ rest on unix:\Q$directory\E/flag\n}, 'a flag goes before the environment');
stop_agent($agent, 'with flags');
like($agent->{err}, qr/^\S+Z info: ended$/m, 'and before the file');

my @wrong = (
	[ qr/--log-level=loud: "loud" is no value of log-level: it is one of debug,info,warning,error$/m, '--log-level=loud' ],
	[ qr/is no value of drain-timeout: it is a time from 0ms to 86400000ms/, '--drain-timeout', '5 weeks' ],
	[ qr/is no value of max-body: it is a size/, '--max-body', '-1' ],
	[ qr/is no value of roles: it is a list, with commas between, of http,rest/, '--roles', 'http,gopher' ],
	[ qr/option --listen needs a value/, '--listen' ],
	[ qr/unknown option "--lissen"/, '--lissen', 'x' ],
	[ qr/unknown subcommand or option "serve"/, 'serve' ],
	[ qr{could not open \Q$directory\E/none: }, '--config', "$directory/none" ],
	[ qr{/odd:2: there is no setting "color" for a file\n.*/odd:3: a line is name = value\n}s,
		'--config', write_file('odd', "log_level = debug\ncolor = red\nnothing\n") ]);
foreach my $case (@wrong)
{
	my ($message, @options) = @$case;
	my $wrong = start_agent(\@options);

	$wrong->{run}->finish;
	is($wrong->{run}->full_result(0) >> 8, 2, "status 2: @options");
	like($wrong->{err}, $message, 'and it is said why');
}

# ---- SIGHUP

$agent = start_agent([ @roles, '--config', $file ]);
wait_for_output($agent, 'out', qr/ready/, 'it runs');
write_file('agent.conf', "listen = 'unix:$directory/other'\nlog_format = text\n");
$agent->{run}->signal('HUP');
wait_for_output($agent, 'err', qr/Z info: the settings were read anew$/m, 'SIGHUP has it read its file anew');
like($agent->{err}, qr/a setting has changed, which takes a restart.*listen/, 'what can not change is said');
ok(-S "$directory/file", 'and stays');
write_file('agent.conf', "log_format = xml\n");
$agent->{run}->signal('HUP');
wait_for_output($agent, 'err', qr/Z warning: the settings stay as they were$/m, 'a file that is wrong changes nothing');
stop_agent($agent, 'after SIGHUP');

# ---- a supervisor

my $supervisor = IO::Socket::UNIX->new(Type => SOCK_DGRAM, Local => "$directory/notify") or die "socket: $!";
sub heard
{
	my $state = 'nothing';

	$supervisor->recv($state, 100) if IO::Select->new($supervisor)->can_read(60);
	return $state;
}
$agent = start_agent([ '--listen', '127.0.0.1:0' ], NOTIFY_SOCKET => "$directory/notify");
is(heard(), 'READY=1', 'a supervisor is told when it is ready');
wait_for_output($agent, 'out', qr{^tasker-agent is ready: http, rest on http://127\.0\.0\.1:\d+\n}, 'with both roles');
stop_agent($agent, 'under a supervisor');
is(heard(), 'STOPPING=1', 'and when it ends');

# ---- a database that comes and goes

$node->stop;
$agent = start_agent([ '--listen', '127.0.0.1:0' ]);
wait_for_output($agent, 'err', qr/connect/, 'without a database it says so');
stop_agent($agent, 'without a database');
is($agent->{out}, '', 'and was never ready');

$agent = start_agent([ '--listen', '127.0.0.1:0' ]);
wait_for_output($agent, 'err', qr/connect/, 'another one waits');
$node->start;
wait_for_output($agent, 'out', qr/ready: .*127\.0\.0\.1:(\d+)\n/, 'and is ready when the database is there');
my ($port) = $agent->{out} =~ /:(\d+)\n/;
my $http = HTTP::Tiny->new(timeout => 30);

sub ready_is
{
	my ($status) = @_;
	my $answer = { status => 0 };

	for (1 .. 1200)
	{
		$answer = $http->get("http://127.0.0.1:$port/tasker/health/ready");
		last if $answer->{status} == $status;
		select undef, undef, undef, 0.1;
	}
	return $answer->{status};
}
is(ready_is(200), 200, 'REST says that it is ready');
$node->stop('immediate');
is(ready_is(503), 503, 'without a database it is not');
is($http->get("http://127.0.0.1:$port/tasker/health/live")->{status}, 200, 'but alive');
$node->start;
is(ready_is(200), 200, 'and is again by itself');
stop_agent($agent, 'after all that');

# ---- what is written about it

my $help = `tasker-agent --help`;
my $rows = '';
IPC::Run::run([ 'awk', '-v', 'FORM=markdown', '-f', "$root/src/agent/options.awk" ], '<', \$help, '>', \$rows);
cmp_ok(scalar(() = $rows =~ /^\| `--/mg), '>', 30, 'the options are found in --help');
ok(index(slurp_file("$root/doc/agent.md"), $rows) > 0, 'doc/agent.md has them as they are: make doc');
my $man = slurp_file("$root/src/agent/tasker-agent.1");
foreach my $option ($rows =~ /^\| `--(?:\[no-\])?([a-z-]+)/mg)
{
	my $name = $option =~ s/-/\\-/gr;

	ok($man =~ /^\.B \\-\\-(?:\[no\\-\])?\Q$name\E/m, "the manual page has --$option");
}

done_testing();
