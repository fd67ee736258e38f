# Agents that are killed at any moment: every step ends, only what was under way
# is asked for again, and always with the same Idempotency-Key.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use HttpServer;
use Pooler;
use PostgreSQL::Test::Utils;
use TaskerTest;
use Test::More;
use Time::HiRes qw(usleep);

my $kills = 4;
my $at_once = 8;
my $steps = 60;
my $seed = $ENV{SEED} // int rand 1_000_000;
my $node = new_server('http_kill', 'tasker.executors = 2');

note("SEED=$seed");
srand $seed;
$node->safe_psql('postgres', 'CREATE EXTENSION tasker');

my $hours = 0;

# Kills an agent in the middle of it; what is complete then must not be asked for
# again.  What it held by leases is free when their hour has passed.
sub kill_one
{
	my ($server, $name, @options) = @_;
	my $agent = HttpServer::start_agent($node, '--allow-hosts', '127.0.0.1/32', '--max-requests', $at_once, @options);
	my $before = scalar(() = $server->requests);
	my $until = $before + 1 + int rand $steps / $kills;

	while (scalar(() = $server->requests) < $until && $node->safe_psql('postgres', "SELECT count(*) > 0 FROM tasker.tasks WHERE finished_at IS NULL") eq 't')
	{
		usleep 5_000;
	}
	is(HttpServer::stop_agent($agent, 'KILL') & 127, 9, "$name: killed");
	my %complete = map { ("tasker-$_" => 1) } split /\n/, $node->safe_psql('postgres',
		q{SELECT step_id FROM tasker.workflow_steps WHERE state = 'complete'});
	my $asked = scalar(() = $server->requests);

	move_clock($node, 3600 * ++$hours) if grep { $_ eq '--lease' } @options;
	# Without a session that ends, what it held is free when its leases are over.
	is($node->safe_psql('postgres', q{SELECT count(*) FROM tasker.workflow_steps WHERE lease_until > tasker.clock() + interval '5 s'}), 0,
		"$name: no lease goes on for more than 5 s") if $name =~ /pooler/;
	wait_until($node, 'postgres', q{SELECT count(*) = 0 FROM tasker.workflow_steps WHERE state = 'in_progress'},
		"$name: its steps are free again");
	return sub {
		my @later = $server->requests;

		splice @later, 0, $asked;
		is(scalar(grep { $complete{ $_->{key} } } @later), 0, "$name: nothing complete was asked for again");
	};
}

my @modes = ([ 'bound to the session' ], [ 'by leases', '--no-bound-to-session', '--lease', '1h', '--poll-interval', '100ms' ]);
my $pooler;
if (Pooler::is_there())
{
	# Nothing is said to the agent of that.
	$pooler = Pooler->new($node, $ENV{PGUSER} // getpwuid($>));
	$pooler->start;
	push @modes, [ 'behind a pooler', '--database', $pooler->connstr ];
}
for my $mode (@modes)
{
	my ($name, @options) = @$mode;
	my $server = HttpServer->new(directory => PostgreSQL::Test::Utils::tempdir());
	my @checks;

	$node->safe_psql('postgres', <<"SQL");
SET client_min_messages = error;
SELECT tasker.register_task(\$y\$
name: killed
step_templates:
  - {name: only, retry: {limit: 50, base_delay: 0.01, max_delay: 0.01}, handler_config: {type: api, url: 'http://127.0.0.1:$server->{port}/slow?s=0.05&id=\${context.id}'}}
\$y\$, replace => true);
SELECT tasker.create_tasks('killed', array_agg(jsonb_build_object('id', n))) FROM generate_series(1, $steps) AS n;
SQL
	push @checks, kill_one($server, "$name, kill $_", @options) for 1 .. $kills;
	my $agent = HttpServer::start_agent($node, '--allow-hosts', '127.0.0.1/32', '--max-requests', $at_once, @options);
	wait_until($node, 'postgres', 'SELECT count(*) = 0 FROM tasker.tasks WHERE finished_at IS NULL', "$name: every task has ended");
	is(HttpServer::stop_agent($agent), 0, "$name: the last agent ends");
	is($node->safe_psql('postgres', q{SELECT state, count(*) > 0 FROM tasker.tasks GROUP BY state}), 'complete|t', "$name: well");
	$_->() for @checks;

	my (%keys, $requests);
	$keys{ $_->{path} }{ $_->{key} }++, $requests++ for $server->requests;
	is(scalar keys %keys, $steps, "$name: each step was asked for");
	is(scalar(grep { keys %{ $keys{$_} } > 1 } keys %keys), 0, "$name: under one key");
	# As many again may have been answered and not be saved yet.
	cmp_ok($requests, '<=', $steps + $kills * 2 * $at_once, "$name: only what was under way was asked for again");
	$server->stop;
}
$pooler->stop if defined $pooler;

# What is under way when it is told to end, is finished first.
my $server = HttpServer->new(directory => PostgreSQL::Test::Utils::tempdir());
$node->safe_psql('postgres', <<"SQL");
SET client_min_messages = error;
SELECT tasker.register_task(\$y\$
name: drained
step_templates:
  - {name: only, default_retry_limit: 1, handler_config: {type: api, url: 'http://127.0.0.1:$server->{port}/slow?s=0.5'}}
\$y\$);
SELECT tasker.create_task('drained');
SQL
my $agent = HttpServer::start_agent($node, '--allow-hosts', '127.0.0.1/32');
usleep 5_000 until scalar(() = $server->requests) > 0;
$node->safe_psql('postgres', q{SELECT tasker.create_task('drained')});
is(HttpServer::stop_agent($agent), 0, 'an agent that is told to end does');
is($node->safe_psql('postgres', q{SELECT string_agg(state, ' ' ORDER BY task_id) FROM tasker.tasks WHERE name = 'drained'}) =~ s/ (pending|in_progress|complete)$//r,
	'complete', 'and what was under way is complete');

# Where requests are short, steps are claimed before there is room for them.  Those,
# too, are requested when the agent is told to end: they have no second attempt.
$node->safe_psql('postgres', <<"SQL");
SET client_min_messages = error;
SELECT tasker.register_task(\$y\$
name: ahead
step_templates:
  - {name: only, default_retry_limit: 1, handler_config: {type: api, url: 'http://127.0.0.1:$server->{port}/plain?of=ahead'}}
\$y\$);
SELECT tasker.create_tasks('ahead', array_fill('{}'::jsonb, ARRAY[1000]));
SQL
my $ahead = sub { return scalar(grep { $_->{path} =~ /of=ahead/ } $server->requests); };
$agent = HttpServer::start_agent($node, '--allow-hosts', '127.0.0.1/32', '--max-requests', 4);
usleep 5_000 until $ahead->() > 40;
is(HttpServer::stop_agent($agent), 0, 'an agent that has claimed ahead ends');
my $made = $ahead->();
cmp_ok($made, '<', 1000, 'in the middle of it');
is($node->safe_psql('postgres', q{
SELECT string_agg(DISTINCT s.state, ' '), sum(s.attempts)
FROM tasker.tasks AS t
JOIN tasker.workflow_steps AS s USING (task_id)
WHERE t.name = 'ahead' AND s.attempts > 0}), "complete|$made", 'and no attempt was taken from a step without a request');
$node->safe_psql('postgres', q{SELECT tasker.cancel_task(task_id) FROM tasker.tasks WHERE name = 'ahead' AND finished_at IS NULL});

# What takes longer than its lease is prolonged, whatever else ends meanwhile.
$node->safe_psql('postgres', <<"SQL");
SET client_min_messages = error;
SELECT tasker.register_task(\$y\$
name: prolonged
step_templates:
  - {name: only, handler_config: {type: api, url: 'http://127.0.0.1:$server->{port}/slow?s=\${context.s}&of=prolonged'}}
\$y\$);
SQL
my $prolonged = sub { return grep { $_->{path} =~ /s=$_[0]&of=prolonged/ } $server->requests; };
$agent = HttpServer::start_agent($node, '--allow-hosts', '127.0.0.1/32', '--no-bound-to-session', '--lease', '3s', '--poll-interval', '100ms');
$node->safe_psql('postgres', q{SELECT tasker.create_tasks('prolonged', array_fill('{"s": 8}'::jsonb, ARRAY[5]))});
usleep 20_000 until $prolonged->(8) == 5;
$node->safe_psql('postgres', q{SELECT tasker.create_tasks('prolonged', array_fill('{"s": 0}'::jsonb, ARRAY[20]))});
wait_until($node, 'postgres', q{SELECT count(*) = 25 FROM tasker.tasks WHERE name = 'prolonged' AND state = 'complete'}, 'requests that take longer than their leases complete');
is(scalar(() = $prolonged->(8)), 5, 'and are made once, whatever ends meanwhile');
is(HttpServer::stop_agent($agent), 0, 'the agent ends');

# The server restarts while requests are under way.
$agent = HttpServer::start_agent($node, '--allow-hosts', '127.0.0.1/32');
$node->safe_psql('postgres', <<"SQL");
SET client_min_messages = error;
SELECT tasker.register_task(\$y\$
name: restarted
step_templates:
  - {name: only, retry: {limit: 50, base_delay: 0.01, max_delay: 0.01}, handler_config: {type: api, url: 'http://127.0.0.1:$server->{port}/slow?s=0.2&id=\${context.id}'}}
\$y\$);
SELECT tasker.create_tasks('restarted', array_agg(jsonb_build_object('id', n))) FROM generate_series(1, 30) AS n;
SQL
usleep 5_000 until scalar(grep { $_->{path} =~ /id=/ } $server->requests) > 3;
$node->restart;
wait_until($node, 'postgres', q{SELECT count(*) = 30 FROM tasker.tasks WHERE name = 'restarted' AND state = 'complete'}, 'it goes on when the server is back');
is(HttpServer::stop_agent($agent), 0, 'and ends as ever');
is($node->safe_psql('postgres', 'SELECT count(*) FROM tasker.verify()'), '0', 'everything is sound');
$server->stop;
$node->stop;
done_testing();
