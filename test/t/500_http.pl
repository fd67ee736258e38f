# HTTP steps against a server that misbehaves: what each answer, and the lack of
# one, makes of the step.
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
my $url = "http://127.0.0.1:$server->{port}";
my $node = new_server('http', "tasker.executors = 2\ntasker.breaker_failures = 0");
$node->safe_psql('postgres', 'CREATE EXTENSION tasker');

# As an ordinary role.
$node->safe_psql('postgres', q{CREATE ROLE http_agent LOGIN; SELECT tasker.grant_agent('http_agent')});
my @as = ('--database', 'user=http_agent dbname=postgres');
my $agent = HttpServer::start_agent($node, @as, '--allow-hosts', "127.0.0.1:$server->{port}");

# Each a step of its own: its configuration, the state it ends in, attempts, and
# what results or error have.
my @cases = (
	[ ok => "url: '$url/plain', params: {q: 'a b'}", 'complete', 1, qr/"path": "\/plain\?q=a%20b"/ ],
	[ post => "url: '$url/plain', body: {a: 1}", 'complete', 1, qr/"body": "7b2261223a20317d", "path": "\/plain", "method": "POST"/ ],
	[ put => "url: '$url/plain', method: PUT, body: text", 'complete', 1, qr/"method": "PUT"/ ],
	[ delete => "url: '$url/plain', method: DELETE", 'complete', 1, qr/"method": "DELETE"/ ],
	[ head => "url: '$url/plain', method: HEAD, timeout: 60 s", 'complete', 1, qr/"body": null/ ],
	[ created => "url: '$url/status?code=201'", 'complete', 1, qr/"status": 201/ ],
	[ not_found => "url: '$url/status?code=404'", 'error', 1, qr/answered 404.*"sqlstate": "TK001"/ ],
	[ expected => "url: '$url/status?code=404', expected_status: [404]", 'complete', 1, qr/"status": 404/ ],
	[ conflict => "url: '$url/status?code=409'", 'error', 3, qr/answered 409.*"sqlstate": "TK002"/ ],
	[ error => "url: '$url/status?code=500'", 'error', 3, qr/answered 500/ ],
	[ recovers => "url: '$url/fail?times=2'", 'complete', 3, qr/"nth": 3/ ],
	[ slow => "url: '$url/slow?s=20', timeout: 100 ms", 'error', 3, qr/error_code\\": \\"timeout/ ],
	[ drip => "url: '$url/drip', timeout: 300 ms", 'error', 3, qr/error_code\\": \\"timeout/ ],
	[ reset => "url: '$url/reset'", 'error', 3, qr/error_code\\": \\"reset/ ],
	[ empty => "url: '$url/empty'", 'error', 3, qr/error_code\\": \\"reset/ ],
	[ garbage => "url: '$url/garbage'", 'error', 3, qr/error_code\\": \\"other/ ],
	[ huge => "url: '$url/huge', max_response: 100000", 'error', 1, qr/error_code\\": \\"too_large/ ],
	[ headers => "url: '$url/headers'", 'error', 1, qr/error_code\\": \\"too_large/ ],
	[ bomb => "url: '$url/gzip?n=5000000'", 'error', 1, qr/error_code\\": \\"too_large/ ],
	[ gzip => "url: '$url/gzip?n=100'", 'complete', 1, qr/"zipped": "y{100}"/ ],
	[ bytes => "url: '$url/bytes'", 'complete', 1, qr/"body": "\/\/4A".*"encoding": "base64"/ ],
	[ notjson => "url: '$url/notjson'", 'complete', 1, qr/"body": "\{\\"a\\": "/ ],
	[ closed => "url: 'http://127.0.0.1:1/'", 'error', 1, qr/error_code\\": \\"refused_address/ ],
	[ metadata => "url: 'http://169.254.169.254/latest'", 'error', 1, qr/refused_address/ ],
	[ mapped => "url: 'http://[::ffff:127.0.0.1]:$server->{port}/'", 'error', 1, qr/refused_address/ ],
	[ decimal => "url: 'http://2130706433:$server->{port}/'", 'complete', 1, qr/"path": "\/"/ ],
	[ by_name => "url: 'http://localhost:$server->{port}/'", 'error', 1, qr/refused_address/ ],
	[ no_such_host => "url: 'http://nowhere.invalid/'", 'error', 3, qr/error_code\\": \\"dns/ ],
	[ redirected => "url: '$url/to/302/%2Fplain'", 'complete', 1, qr/"path": "\/plain"/ ],
	[ to_metadata => "url: '$url/to/302/http:%2F%2F169.254.169.254%2F'", 'error', 1, qr/refused_address/ ],
	[ to_file => "url: '$url/to/302/file:%2F%2F%2Fetc%2Fpasswd'", 'error', 1, qr/bad_redirect/ ],
	[ in_circles => "url: '$url/to/302/%3F'", 'error', 1, qr/redirects too often/ ],
	[ not_followed => "url: '$url/to/302/%2Fplain', max_redirects: 0", 'error', 1, qr/answered 302/ ],
	[ post_303 => "url: '$url/to/303/%2Fplain', body: {a: 1}", 'complete', 1, qr/"body": "", "path": "\/plain", "method": "GET"/ ],
	[ post_307 => "url: '$url/to/307/%2Fplain', body: {a: 1}", 'complete', 1, qr/"body": "7b2261223a20317d"/ ],
	[ insecure => "url: '$url/plain', ssl: {verify: false}", 'error', 1, qr/error_code\\": \\"insecure/ ]);

$node->safe_psql('postgres', join "\n", 'SET client_min_messages = error;', map {
	"SELECT tasker.register_task(\$y\$\nname: case/$_->[0]\nstep_templates:\n  - {name: only, retry: {limit: 3, base_delay: 0.01, max_delay: 0.05}, handler_config: {type: api, $_->[1]}}\n\$y\$);"
} @cases);
$node->safe_psql('postgres', "SELECT tasker.create_task('case/$_->[0]')") for @cases;
wait_until($node, 'postgres', 'SELECT count(*) = 0 FROM tasker.tasks WHERE finished_at IS NULL', 'each case has come to an end');
for my $case (@cases)
{
	my ($name, undef, $state, $attempts, $says) = @$case;
	my ($got, $text) = split /\|/, $node->safe_psql('postgres', <<"SQL"), 2;
SELECT s.state || ' ' || s.attempts, coalesce(s.results, s.error)
FROM tasker.tasks AS t
JOIN tasker.workflow_steps AS s USING (task_id)
WHERE t.name = 'case/$name'
SQL
	is($got, "$state $attempts", "$name: state and attempts");
	like($text, $says, "$name: what it says");
}

# What the server saw: the same key in all attempts, none twice, and the headers
# that go along by themselves.
my %keys;
push @{ $keys{ $_->{path} } }, $_->{key} for $server->requests;
is(scalar @{ $keys{'/fail?times=2'} }, 3, 'a request was made three times');
is(scalar(() = grep { $_ ne $keys{'/fail?times=2'}[0] } @{ $keys{'/fail?times=2'} }), 0, 'with one Idempotency-Key');
my ($post) = grep { $_->{method} eq 'POST' && $_->{path} eq '/plain' } $server->requests;
is($post->{headers}{'content-type'}, 'application/json', 'a JSON body says so');
is($post->{headers}{accept}, 'application/json', 'JSON is wanted');
like($post->{headers}{'user-agent'}, qr/^tasker-agent\//, 'the agent says who it is');

# Retry-After, as seconds and as a date, replaces the back-off.
$node->safe_psql('postgres', <<"SQL");
SET client_min_messages = error;
SELECT tasker.register_task(\$y\$
name: busy
step_templates:
  - {name: seconds, handler_config: {type: api, url: '$url/after?code=429&s=77'}}
  - {name: date, handler_config: {type: api, url: '$url/after?code=503&date=250'}}
  - {name: long, handler_config: {type: api, url: '$url/after?code=503&s=5000'}}
\$y\$);
SELECT tasker.create_task('busy');
SQL
wait_until($node, 'postgres', q{SELECT count(*) = 3 FROM tasker.workflow_steps WHERE state = 'waiting_for_retry'}, 'three steps wait');
is($node->safe_psql('postgres', <<'SQL'), "date|t\nlong|t\nseconds|t", 'as long as the server wants them to, but no longer than 300 s');
SELECT name, extract(epoch FROM next_attempt_at - (error ->> 'at')::timestamptz)
             BETWEEN CASE name WHEN 'seconds' THEN 77 WHEN 'date' THEN 150 ELSE 300 END
                 AND CASE name WHEN 'seconds' THEN 77 WHEN 'date' THEN 250 ELSE 300 END
FROM tasker.workflow_steps
WHERE state = 'waiting_for_retry'
ORDER BY name
SQL
move_clock($node, 301);
wait_until($node, 'postgres', q{SELECT state = 'complete' FROM tasker.tasks WHERE name = 'busy'}, 'and then they succeed');

# A redirect to another host gets neither the headers that were meant for the first
# nor a body.
my $other = HttpServer->new(directory => PostgreSQL::Test::Utils::tempdir());
$node->safe_psql('postgres', <<"SQL");
SELECT tasker.set_secret('HTTP_TOKEN', 'very-secret-token');
SET client_min_messages = error;
SELECT tasker.register_task(\$y\$
name: away
step_templates:
  - {name: get, handler_config: {type: api, url: 'http://me:very-secret-token\@127.0.0.1:$server->{port}/to/302/http:%2F%2F127.0.0.1:$other->{port}%2Fget', headers: {Authorization: 'Bearer \${HTTP_TOKEN}', X-Api-Key: '\${HTTP_TOKEN}'}}}
  - {name: post, handler_config: {type: api, url: '$url/to/307/http:%2F%2F127.0.0.1:$other->{port}%2Fpost', body: {a: '\${HTTP_TOKEN}'}}}
\$y\$);
SQL
is(HttpServer::stop_agent($agent), 0, 'the agent ends when it is told to');
$agent = HttpServer::start_agent($node, @as, '--allow-hosts', '127.0.0.0/8', '--log-level', 'debug');
$node->safe_psql('postgres', q{SELECT tasker.create_task('away')});
wait_until($node, 'postgres', q{SELECT state = 'error' FROM tasker.tasks WHERE name = 'away'}, 'redirects to another host come to an end');
is($node->safe_psql('postgres', <<'SQL'), "get|complete\npost|error", 'what has no body was followed');
SELECT s.name, s.state
FROM tasker.tasks AS t
JOIN tasker.workflow_steps AS s USING (task_id)
WHERE t.name = 'away'
ORDER BY s.name
SQL
my @strange = $other->requests;
is(scalar @strange, 1, 'the other host was asked once');
unlike(join(' ', $strange[0]{body}, %{ $strange[0]{headers} }), qr/secret|authorization|x-api-key/i, 'and got no secret');
my ($first) = grep { $_->{path} =~ /%2Fget/ } $server->requests;
is($first->{headers}{authorization}, 'Bearer very-secret-token', 'which the first host got');
unlike($node->safe_psql('postgres', 'SELECT results, error FROM tasker.workflow_steps') . $agent->{err}, qr/very-secret/, 'no table and no log has it');

# The definition of the overview as it stands, with a server in the place of its
# hosts that proves to be them; and what does not.
SKIP:
{
	skip 'there is no IO::Socket::SSL or openssl', 8
	  if !eval { require IO::Socket::SSL; 1 } || system('openssl version > /dev/null 2>&1') != 0;
	my @request = qw(openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test);

	for my $name ('api.ecommerce.com', 'other.example')
	{
		PostgreSQL::Test::Utils::system_or_bail(@request, '-keyout', "$directory/$name.key", '-out', "$directory/$name.crt",
			'-addext', "subjectAltName=DNS:$name");
	}
	my $tls = HttpServer->new(directory => $directory, tls => [ "$directory/api.ecommerce.com.crt", "$directory/api.ecommerce.com.key" ]);
	my $example = "$FindBin::RealBin/../../sql/templates.sql";
	my ($definition) = PostgreSQL::Test::Utils::slurp_file($example) =~ /\$yaml\$(---\nname: api_task\/integration_yaml_example\n.*?)\$yaml\$/s;

	ok(defined $definition, 'the definition of the overview was found');
	$node->safe_psql('postgres', join "\n", <<'SQL', map { "SELECT tasker.register_handler('ApiTask::StepHandler::$_', 'public.takes');" } qw(ProductsValidateStepHandler CreateOrderStepHandler PublishEventStepHandler));
CREATE FUNCTION public.takes(step tasker.step_context) RETURNS jsonb
LANGUAGE sql AS $$ SELECT jsonb_build_object('took', (SELECT count(*) FROM jsonb_object_keys(step.dependencies))) $$;
SET client_min_messages = error;
SQL
	$node->safe_psql('postgres', "SET client_min_messages = error; SELECT tasker.register_task(\$y\$$definition\$y\$)");
	HttpServer::stop_agent($agent);
	my @options = (@as, '--allow-hosts', 'api.ecommerce.com', '--connect-to', "api.ecommerce.com:443:127.0.0.1:$tls->{port}");
	$agent = HttpServer::start_agent($node, @options, '--tls-ca', "$directory/api.ecommerce.com.crt");
	$node->safe_psql('postgres', q{SELECT tasker.create_task('api_task/integration_yaml_example', '{"cart_id": 1}')});
	wait_until($node, 'postgres', q{SELECT state = 'complete' FROM tasker.tasks WHERE name = 'api_task/integration_yaml_example'}, 'the overview\'s task runs through');
	is(join(' ', sort map { "$_->{method} $_->{path}" } $tls->requests), 'GET /cart?cart_id=1 GET /products', 'with these requests');

	HttpServer::stop_agent($agent);
	$agent = HttpServer::start_agent($node, @options);
	$node->safe_psql('postgres', <<'SQL');
SET client_min_messages = error;
SELECT tasker.register_task($y$
name: tls
step_templates:
  - {name: only, retry: {limit: 2, base_delay: 0.01, max_delay: 0.05}, handler_config: {type: api, url: 'https://api.ecommerce.com/x'}}
$y$);
SELECT tasker.create_task('tls');
SQL
	wait_until($node, 'postgres', q{SELECT state = 'error' FROM tasker.tasks WHERE name = 'tls'}, 'a host whose certificate nobody knows');
	like($node->safe_psql('postgres', q{SELECT error ->> 'detail' FROM tasker.tasks WHERE name = 'tls'}), qr/"error_code": "tls"/, 'is not asked');
	is(scalar(() = $tls->requests), 2, 'it got no request');
	HttpServer::stop_agent($agent);
	$agent = HttpServer::start_agent($node, @options, '--allow-insecure');
	$node->safe_psql('postgres', <<'SQL');
SET client_min_messages = error;
SELECT tasker.register_task($y$
name: tls
step_templates:
  - {name: only, handler_config: {type: api, url: 'https://api.ecommerce.com/x', ssl: {verify: false}}}
$y$, replace => true);
SELECT tasker.create_task('tls');
SQL
	wait_until($node, 'postgres', q{SELECT state = 'complete' FROM tasker.tasks WHERE name = 'tls' ORDER BY task_id DESC LIMIT 1}, 'unless the step and the agent agree');
}
HttpServer::stop_agent($agent);
is($node->safe_psql('postgres', 'SELECT count(*) FROM tasker.verify()'), '0', 'everything is sound');
$server->stop;
$node->stop;
done_testing();
