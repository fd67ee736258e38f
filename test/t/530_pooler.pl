# tasker-agent behind a real PgBouncer in transaction mode, where each of its
# transactions may have another server session, and others have that next: it
# finds that out, everything works, and nothing is left in a session.  Agents
# that are killed there: 510_http_kill.pl.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use HttpServer;
use Pooler;
use POSIX ();
use PostgreSQL::Test::Utils;
use RestAgent;
use TaskerTest;
use Test::More;
use Time::HiRes qw(usleep);

plan skip_all => 'there is no pgbouncer' if !Pooler::is_there();

my $place = PostgreSQL::Test::Utils::tempdir;
my $node = new_server('agent_pooler', 'tasker.executors = 2');
my $web = HttpServer->new(directory => $place);

install_tasker($node, 'postgres');
$node->safe_psql('postgres', <<'SQL');
SET client_min_messages = error;
CREATE ROLE agent LOGIN;
CREATE ROLE alice;
CREATE ROLE bob;
GRANT alice, bob TO agent;
SELECT tasker.grant_agent('agent');
SELECT tasker.grant('agent', '{admin}', 'shop');
SELECT tasker.grant('alice', '{admin}', 'crimson');
SELECT tasker.grant('bob', '{admin}', 'azure');
SELECT tasker.register_handler('quick', 'public.quick', namespace => 'crimson');
SELECT tasker.register_handler('quick', 'public.quick', namespace => 'azure');
SELECT tasker.enforce_access();
SQL
my %token = map { $_ => $node->safe_psql('postgres', "SELECT tasker.create_token('$_')") } qw(alice bob);
my %who = (crimson => 'alice', azure => 'bob');
my $pooler = Pooler->new($node, 'agent');

$pooler->start;

sub bearer { return (Authorization => "Bearer $token{$who{$_[0]}}"); }

sub ask { return $node->safe_psql('postgres', $_[0]); }

# ---- definitions

mkdir "$place/definitions";
append_to_file("$place/definitions/$_.yaml", <<"YAML") foreach qw(crimson azure);
name: ${_}_task
namespace_name: $_
step_templates:
  - {name: ${_}_step, handler_class: quick}
YAML
append_to_file("$place/definitions/long.yaml", <<"YAML");
name: long
namespace_name: shop
step_templates:
  - {name: only, handler_config: {type: api, timeout: 60 s, url: 'http://127.0.0.1:$web->{port}/slow?s=7'}}
YAML
append_to_file("$place/definitions/short.yaml", <<"YAML");
name: short
namespace_name: shop
step_templates:
  - {name: first, handler_config: {type: api, url: 'http://127.0.0.1:$web->{port}/plain?n=\${context.n}'}}
  - {name: second, depends_on_step: first, handler_config: {type: api, url: 'http://127.0.0.1:$web->{port}/plain?of=\${dependencies.first.status}'}}
YAML
my $superuser = $ENV{PGUSER} // getpwuid($>);
command_like([ 'tasker-agent', 'apply', "$place/definitions", '--database', $node->connstr('postgres') . " user=$superuser" ],
	qr/4 new/, 'definitions');
command_like([ 'tasker-agent', 'apply', "$place/definitions", '--database', $pooler->connstr ],
	qr/0 new, 0 changed, 4 unchanged/, 'are compared through the pooler, too');

# ---- HTTP steps

my $http = HttpServer::start_agent($node, '--allow-hosts', '127.0.0.1/32', '--lease', '3s', '--database', $pooler->connstr);
my $rest = RestAgent->new($node, 'postgres', '--database', $pooler->connstr, '--auth', 'on');

ask(q{SELECT tasker.create_tasks('short', array_agg(jsonb_build_object('n', n)), namespace => 'shop') FROM generate_series(1, 200) AS n});
wait_until($node, 'postgres', q{SELECT count(*) = 200 FROM tasker.tasks WHERE name = 'short' AND state = 'complete'}, 'api steps are run');
is(scalar(() = $web->requests), 400, 'each once');
is(ask(q{SELECT count(*) FROM tasker.workflow_steps WHERE claimed_by LIKE 'http@%' AND lease_until > tasker.clock() + interval '5 s'}), 0, 'and none under a long lease');

# Longer than its lease, with another pooler in the middle of it.
my $id = ask(q{SELECT tasker.create_task('long', namespace => 'shop')});
usleep 20_000 until grep { $_->{path} =~ /slow/ } $web->requests;
$pooler->stop;
$pooler->start;
wait_until($node, 'postgres', "SELECT state = 'complete' FROM tasker.tasks WHERE task_id = $id", 'a step that takes longer than its lease completes');
is(scalar(grep { $_->{path} =~ /slow/ } $web->requests), 1, 'by one request, whatever became of the connection');
is(ask("SELECT attempts FROM tasker.workflow_steps WHERE task_id = $id"), 1, 'and one attempt');

# ---- REST, by two roles that take turns on the same sessions

my %made;

# The agent may still be busy to connect to the new pooler.
for (1 .. 600)
{
	last if $rest->call(GET => '/tasker/me', undef, bearer('crimson'))->{status} == 200;
	usleep 100_000;
}
foreach my $colour (qw(crimson azure) x 5)
{
	my $answer = $rest->call(POST => '/tasker/tasks',
		{ name => "${colour}_task", namespace => $colour, context => {}, initiator => 'i', reason => 'r', source_system => 's' },
		bearer($colour));

	is($answer->{status}, 201, "a task of $colour") or diag($answer->{content});
	push @{ $made{$colour} }, $answer->{json}{task}{task_id};
}
foreach my $turn (1 .. 20)
{
	foreach my $colour (qw(crimson azure))
	{
		my $tasks = $rest->call(GET => '/tasker/tasks', undef, bearer($colour))->{json}{tasks};
		my $me = $rest->call(GET => '/tasker/me', undef, bearer($colour))->{json}{role};

		next if $me eq $who{$colour} && join(' ', sort map { $_->{task_id} } @$tasks) eq join(' ', sort @{ $made{$colour} });
		fail("$colour saw what is not its own");
	}
}
pass('each sees its own tasks, all of them, and no others');
my $first = "/tasker/tasks/$made{crimson}[0]";
is($rest->call(PATCH => $first, { priority => 5, tags => ['seen'] }, bearer('crimson'))->{json}{task}{priority}, 5, 'a change');
is($rest->call(DELETE => $first, undef, bearer('azure'))->{status}, 404, 'is not for the other one');
is($rest->call(GET => "$first/diagram?format=svg", undef, bearer('crimson'))->{status}, 200, 'a diagram');
is($rest->call(GET => $_, undef, bearer('azure'))->{status}, 200, $_) foreach qw(/tasker/handlers /tasker/health/ready /tasker/workers);

# ---- the stream of events, without a bell

my %stream;
foreach my $colour (qw(crimson azure))
{
	$stream{$colour} = $rest->connection;
	print { $stream{$colour} } join("\r\n", 'GET /tasker/events HTTP/1.1', 'Host: localhost', 'Authorization: ' . { bearer($colour) }->{Authorization}, '', '');
	RestAgent::read_until($stream{$colour}, qr/retry/);
}
foreach my $colour (qw(crimson azure))
{
	$rest->call(POST => '/tasker/tasks',
		{ name => "${colour}_task", namespace => $colour, context => {}, initiator => 'i', reason => 'r', source_system => 's' }, bearer($colour));
}
foreach my $colour (qw(crimson azure))
{
	my $other = $colour eq 'crimson' ? 'azure' : 'crimson';
	my $text = RestAgent::read_until($stream{$colour}, qr/task\.completed.*\n\n/s);

	like($text, qr/${colour}_task/, "the stream of $who{$colour} tells what happens");
	unlike($text, qr/$other/, 'and nothing of the other');
	close $stream{$colour};
}

# ---- what the sessions have been left with

# Who stays in a transaction keeps the session, so three have all of them.
my %session;
my @clients = map { $node->background_psql('postgres', extra_params => [ '-d', $pooler->connstr ]) } 1 .. 3;
foreach my $client (@clients)
{
	my ($pid, $rest_of_it) = split /\|/, $client->query_safe(q{
BEGIN;
SELECT pg_backend_pid(), concat_ws(' ', current_user, session_user, current_setting('statement_timeout'), current_setting('search_path'),
    (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_listening_channels()),
    (SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'))}), 2;

	$session{$pid} = $rest_of_it;
}
is(join(', ', values %session), join(', ', ('agent agent 0 "$user", public 0 0 0') x 3),
	'no role, no setting, nothing prepared, listened to or locked stays in a session');

# With all sessions taken, what is asked for waits, and then comes.
$rest->{http}{timeout} = 120;
my $asking = fork // die "fork: $!";
if ($asking == 0)
{
	my $status = $rest->call(GET => '/tasker/me', undef, bearer('azure'))->{status};

	POSIX::_exit($status == 200 ? 0 : 1);
}
wait_until($node, 'postgres', q{SELECT count(*) = 3 FROM pg_stat_activity WHERE usename = 'agent' AND state = 'idle in transaction'}, 'all sessions are taken');
$_->query_safe('COMMIT') foreach @clients;
waitpid $asking, 0;
is($?, 0, 'a request waits for a session');
$_->quit foreach @clients;

# A timeout, too, is one transaction's.
$rest->end;
$rest = RestAgent->new($node, 'postgres', '--database', $pooler->connstr, '--auth', 'on', '--request-timeout', '1s');
my $locker = $node->background_psql('postgres');
$locker->query_safe('BEGIN; LOCK TABLE tasker.task IN ACCESS EXCLUSIVE MODE');
is($rest->call(GET => $first, undef, bearer('crimson'))->{status}, 503, 'what takes too long is given up');
$locker->query_safe('ROLLBACK');
$locker->quit;
is($rest->call(GET => $first, undef, bearer('crimson'))->{status}, 200, 'and the next one is answered');

is($rest->end, 0, 'the agent for REST ends');
is(HttpServer::stop_agent($http), 0, 'the one for steps, too');
like($http->{err}, qr/there is a pooler before the database/, 'which has said what it found');
is(ask('SELECT count(*) FROM tasker.verify()'), '0', 'everything is sound');
$web->stop;
$pooler->stop;
$node->stop;
done_testing();
