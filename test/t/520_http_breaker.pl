# Circuit breakers, which two agents share: a host that fails is left alone, which
# costs no attempt, and tried by one request at a time until it is back.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use HttpServer;
use PostgreSQL::Test::Utils;
use TaskerTest;
use Test::More;

my $directory = PostgreSQL::Test::Utils::tempdir();
my $server = HttpServer->new(directory => $directory);
my $well = HttpServer->new(directory => PostgreSQL::Test::Utils::tempdir());
my $node = new_server('http_breaker', "tasker.executors = 2\ntasker.breaker_failures = 3\ntasker.breaker_open_for = 3600\ntasker.breaker_window = 3600");
my $offset = 0;

# Moves the clock to behind the time that the breaker is open.
sub later
{
	$offset += 3601;
	move_clock($node, $offset);
	return;
}

sub asked
{
	return scalar(() = $server->requests);
}

$node->safe_psql('postgres', 'CREATE EXTENSION tasker');
$node->safe_psql('postgres', <<"SQL");
SET client_min_messages = error;
SELECT tasker.register_task(\$y\$
name: host
step_templates:
  - {name: down, retry: {limit: 100, base_delay: 0, max_delay: 0}, handler_config: {type: api, url: 'http://127.0.0.1:$server->{port}/switch'}}
  - {name: well, handler_config: {type: api, url: 'http://127.0.0.1:$well->{port}/plain'}}
\$y\$);
SQL
append_to_file("$directory/down", '');
my @agents = map { HttpServer::start_agent($node, '--allow-hosts', '127.0.0.1/32', '--max-requests', 2) } 1 .. 2;
$node->safe_psql('postgres', q{SELECT tasker.create_task('host') FROM generate_series(1, 20)});
wait_until($node, 'postgres', q{SELECT count(*) = 20 FROM tasker.workflow_steps WHERE name = 'well' AND state = 'complete'}, 'another host is not concerned');
# All that are not under way wait.
my $put_off = q{
SELECT count(*) = 20 FROM tasker.queue WHERE lane = -1 AND due_lane = 3 AND due > tasker.clock() + interval '1 minute'};
wait_until($node, 'postgres', $put_off, 'the steps of a host that fails wait');
is($node->safe_psql('postgres', 'SELECT state, last_error FROM tasker.breakers'), 'open|HTTP_500', 'its breaker is open');
my $asked = asked();
# Without a breaker it would be asked 2,000 times by now; until the database knows
# of three failures, agents go on.
cmp_ok($asked, '<', 100, 'it was left alone early');
is($node->safe_psql('postgres', q{SELECT sum(attempts) FROM tasker.workflow_steps WHERE name = 'down'}), $asked, 'waiting is no attempt');

for my $round (1 .. 2)
{
	later();
	wait_until($node, 'postgres', qq{SELECT failures = $asked + $round AND state = 'open' FROM tasker.breakers}, "round $round: it is tried, in vain");
	wait_until($node, 'postgres', $put_off, "round $round: the others wait again");
	is(asked(), $asked + $round, "round $round: by one request");
}
unlink "$directory/down" or die $!;
later();
wait_until($node, 'postgres', q{SELECT count(*) = 20 FROM tasker.workflow_steps WHERE name = 'down' AND state = 'complete'}, 'the host is back, and all steps complete');
is($node->safe_psql('postgres', 'SELECT count(*) FROM tasker.breakers'), '0', 'its breaker is gone');
is(asked(), $asked + 2 + 20, 'none was asked for twice');
is($node->safe_psql('postgres', 'SELECT count(*) FROM tasker.verify()'), '0', 'everything is sound');
HttpServer::stop_agent($_) for @agents;
$server->stop;
$well->stop;
$node->stop;
done_testing();
