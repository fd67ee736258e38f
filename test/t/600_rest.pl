# The REST API: the overview's example, every operation of openapi.json with an
# answer of its schema, and input that is wrong in every way.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use Compress::Zlib ();
use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Utils;
use RestAgent;
use TaskerTest;
use Test::More;

my $json = JSON::PP->new->utf8->allow_nonref->canonical;
my $node = new_server('rest', 'tasker.executors = 1');

install_tasker($node, 'postgres');
create_handlers($node, 'postgres', fails => "	PERFORM tasker.permanent_error('it can''t be done');\n\tRETURN '{}';\n");
$node->safe_psql('postgres', <<'SQL');
SET client_min_messages = error;
SELECT tasker.register_task($$
name: api_integration_task
schema:
  type: object
  required: [cart_id]
  properties:
    cart_id: {type: integer}
step_templates:
  - {name: fetch, handler_class: quick}
  - {name: left, handler_class: quick, depends_on_step: fetch}
  - {name: right, handler_class: quick, depends_on_step: fetch}
  - {name: join, handler_class: quick, depends_on_steps: [left, right]}
$$);
SELECT tasker.register_task('{"name": "fails", "step_templates": [{"name": "first", "handler_class": "fails"}, {"name": "second", "handler_class": "quick", "depends_on_step": "first"}]}');
SQL
my $agent = RestAgent->new($node, 'postgres', '--max-body', '64kB', '--pages', "$FindBin::RealBin/../../src/agent/pages");

sub state_of
{
	my ($id) = @_;

	return $agent->call(GET => "/tasker/tasks/$id")->{json}{task}{state};
}

sub waits_for_state
{
	my ($id, $state) = @_;

	$node->poll_query_until('postgres', "SELECT state = '$state' FROM tasker.tasks WHERE task_id = $id")
	  or die "task $id is not $state";
	return;
}

sub new_task
{
	my ($name, %more) = @_;
	my $answer = $agent->call(POST => '/tasker/tasks',
		{ name => $name, context => {}, initiator => 'test', reason => 'a test', source_system => 'tests', %more });

	is($answer->{status}, 201, "a task $name") or diag($answer->{content});
	return $answer->{json}{task}{task_id};
}

# ---- the overview's example, as it stands but for the host

my $example = <<'CURL';
curl -X POST https://www.example.com/tasker/tasks \
  -H "Content-Type: application/json" \
  -d '{
    "name": "api_integration_task",
    "context": {
      "cart_id": 123
    },
    "initiator": "web_interface",
    "reason": "Process new order",
    "source_system": "ecommerce",
    "tags": ["order_processing", "api_integration"]
  }'
CURL
my ($out, $err) = ('', '');

$example =~ s{https://www\.example\.com}{$agent->{url}};
IPC::Run::run([ 'sh', '-c', $example ], '>', \$out, '2>', \$err);
my $made = eval { $json->decode($out) } // {};

is($made->{task}{name}, 'api_integration_task', 'the overview\'s example creates a task') or diag("$out\n$err");
is_deeply(
	[ @{ $made->{task} }{qw(context initiator reason source_system tags)} ],
	[ { cart_id => 123 }, 'web_interface', 'Process new order', 'ecommerce', [ 'order_processing', 'api_integration' ] ],
	'as it says');
my $task = $made->{task}{task_id};
my $step = $made->{task}{workflow_steps}[0]{step_id};

waits_for_state($task, 'complete');

# ---- what a client relies on

my $answer = $agent->call(GET => "/tasker/tasks/$task");
my $tag = $answer->{headers}{etag};

like($tag, qr{^W/"\w+"$}, 'an answer has a tag');
is($agent->call(GET => "/tasker/tasks/$task", undef, 'If-None-Match' => $tag)->{status}, 304, 'and who has it gets nothing');
is($agent->call(GET => "/tasker/tasks/$task", undef, 'Accept-Encoding' => 'gzip')->{headers}{'content-encoding'},
	'gzip', 'a long answer is compressed for who takes that');
$answer = $agent->call(HEAD => "/tasker/tasks/$task");
is($answer->{status}, 200, 'HEAD is as GET');
is($answer->{content} // '', '', 'without a body');
$answer = $agent->call(PUT => '/tasker/tasks');
is($answer->{status}, 405, 'a method that a path does not take');
is($answer->{headers}{allow}, 'GET, HEAD, POST, OPTIONS', 'with those that it takes');
is($agent->call(POST => '/tasker/tasks', '<xml/>', 'Content-Type' => 'text/xml')->{status}, 415, 'no JSON');
is($agent->call(POST => '/tasker/tasks', { name => 'x' x 70_000 })->{status}, 413, 'a body that is too long');
is($agent->call(POST => "/tasker/tasks/$task/pause", undef, Origin => 'http://evil.example')->{status}, 403,
	'a page of another origin may not write');

my $socket = $agent->connection;
print $socket "GET /tasker/me HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
like(RestAgent::read_until($socket, qr/\}\z/), qr{^HTTP/1.1 403}, 'nor use a name of its own for this machine');

my %order = (name => 'quick', context => {}, initiator => 'i', reason => 'r', source_system => 's');

foreach my $missing (qw(name context initiator reason source_system))
{
	my %body = %order;

	delete $body{$missing};
	$answer = $agent->call(POST => '/tasker/tasks', \%body);
	is($answer->{status}, 400, "$missing is required");
	like($answer->{json}{detail}, qr/"$missing"/, 'and named');
}
$answer = $agent->call(POST => '/tasker/tasks', { %order, contxt => 1 });
is($answer->{status}, 422, 'what is unknown');
ok(exists $answer->{json}{errors}{'/contxt'}, 'is named by its place');
$answer = $agent->call(POST => '/tasker/tasks', { %order, name => 'api_integration_task', context => { cart_id => 'x' } });
is("$answer->{status} $answer->{json}{sqlstate}", '422 TK006', 'a context that breaks its schema');
$answer = $agent->call(POST => '/tasker/tasks', { %order, name => 'qiuck' });
is("$answer->{status} $answer->{json}{hint}", '422 Did you mean "quick"?', 'a template that there is not');
is($agent->call(POST => '/tasker/tasks', { task => \%order })->{status}, 201, 'a body may be wrapped');
$answer = $agent->call(POST => '/tasker/tasks', \%order, 'Idempotency-Key' => 'once', 'X-Correlation-ID' => 'c-1');
is("$answer->{status} $answer->{json}{task}{correlation_id}", '201 c-1', 'headers fill in what the body lacks');
is($answer->{headers}{location}, "/tasker/tasks/$answer->{json}{task}{task_id}", 'and the answer says where it is');
my $again = $agent->call(POST => '/tasker/tasks', \%order, 'Idempotency-Key' => 'once');
is($again->{status}, 200, 'the same key again');
is($again->{json}{task}{task_id}, $answer->{json}{task}{task_id}, 'is the same task');

# Pages: each task once, in order, whatever is created meanwhile.
new_task('quick', tags => [ 'many', "t$_" ]) foreach 1 .. 5;
my @pages;
my $path = '/tasker/tasks?tag=many&limit=2&status=complete';

waits_for_state($_->{task_id}, 'complete')
  foreach @{ $agent->call(GET => '/tasker/tasks?tag=many')->{json}{tasks} };
for (1 .. 5)
{
	$answer = $agent->call(GET => $path);
	push @pages, @{ $answer->{json}{tasks} };
	new_task('quick', tags => ['many']) if $_ == 1;
	($path) = ($answer->{headers}{link} // '') =~ /<([^>]*)>; rel="next"/;
	last if !defined $path;
}
is(join(' ', sort map { $_->{tags}[1] // () } @pages), 't1 t2 t3 t4 t5', 'pages follow each other by their links: each task once');
is(join(' ', map { $_->{task_id} } @pages), join(' ', sort { $b <=> $a } map { $_->{task_id} } @pages), 'in the order of ids');
is(scalar @{ $agent->call(GET => '/tasker/tasks?tag=many&tag=t3')->{json}{tasks} }, 1, 'several tags are all wanted');
is($agent->call(GET => "/tasker/tasks?q=$task")->{json}{tasks}[0]{task_id}, $task, 'a task by its id');
is($agent->call(GET => '/tasker/tasks?q=integr&order=asc')->{json}{tasks}[0]{task_id}, $task, 'and by a part of its name');
is($agent->call(GET => '/tasker/tasks?namespace=nowhere')->{content}, '{"tasks": []}', 'nothing of a namespace that is not there');
$answer = $agent->call(GET => '/tasker/tasks?staus=error');
is("$answer->{status} $answer->{json}{detail}", '400 There is no parameter staus here.', 'a parameter that there is not');

# A failure and its repair.
my $failed = new_task('fails');
waits_for_state($failed, 'error');
$answer = $agent->call(POST => "/tasker/tasks/$failed/resume");
is("$answer->{status} $answer->{json}{sqlstate}", '409 TK004', 'what a state does not allow is a conflict');
my $broken = $agent->call(GET => "/tasker/tasks/$failed/workflow_steps")->{json}{steps}[0];
is($broken->{error}{message}, 'it can\'t be done', 'a step says why it failed');
is($agent->call(POST => "/tasker/tasks/$failed/workflow_steps/$broken->{step_id}/resolve", { results => { by => 'hand' } })
	  ->{json}{step}{state}, 'resolved_manually', 'a step is resolved');
waits_for_state($failed, 'complete');
is(state_of($failed), 'complete', 'and the task goes on to its end');
is($agent->call(GET => "/tasker/tasks/$task/workflow_steps/$broken->{step_id}")->{status}, 404, 'a step of another task is not there');

# ---- every operation

my $document = $agent->call(GET => '/tasker/openapi.json')->{json};

is($document->{openapi}, '3.1.0', 'openapi.json is there');

my $definition = '{"name": "made", "version": "1.0.0", "step_templates": [{"name": "only", "handler_class": "quick"}]}';
my %outside = map { $_ => new_task('outside') } 1 .. 4;

sub step_of
{
	my ($id, $number) = @_;

	return ($id << 14) + $number;
}

my $error_task = new_task('fails');
my $error_task_2 = new_task('fails');
waits_for_state($_, 'error') foreach $error_task, $error_task_2;

# By operation: path parameters, query, body, status.  In the order of the list.
my @calls = (
	[ list_tasks => {}, 'status=complete&tag=many&created_after=2020-01-01T00:00:00Z' ],
	[ create_task => {}, '', { %order } ],
	[ show_task => { task_id => $task }, 'include_dependencies=true' ],
	[ update_task => { task_id => $task }, '', { reason => 'new', tags => ['a'], priority => 3 } ],
	[ update_task_put => { task_id => $task }, '', { tags => [] } ],
	[ pause_task => { task_id => $outside{1} }, '' ],
	[ resume_task => { task_id => $outside{1} }, '' ],
	[ cancel_task => { task_id => $outside{2} }, 'reason=no', ],
	[ list_transitions => { task_id => $task }, 'limit=3' ],
	[ show_task_diagram => { task_id => $task }, 'format=mermaid' ],
	[ list_steps => { task_id => $task }, 'limit=2' ],
	[ show_step => { task_id => $task, step_id => $step }, '' ],
	[ update_step => { task_id => $outside{1}, step_id => step_of($outside{1}, 1) }, '', { retry_limit => 9 } ],
	[ update_step_put => { task_id => $outside{1}, step_id => step_of($outside{1}, 1) }, '', { inputs => { a => 1 } } ],
	[ cancel_step => { task_id => $outside{3}, step_id => step_of($outside{3}, 1) }, '', { reason => 'no' } ],
	[ retry_step => { task_id => $error_task, step_id => step_of($error_task, 1) }, '' ],
	[ resolve_step => { task_id => $error_task_2, step_id => step_of($error_task_2, 1) }, '', { results => [1] } ],
	[ list_templates => {}, 'namespace=default' ],
	[ create_template => {}, '', $definition, 201 ],
	[ validate_template => {}, '', '{"name": "bad"}' ],
	[ show_template => { namespace => 'default', name => 'made' }, '' ],
	[ show_template_diagram => { namespace => 'default', name => 'made' }, 'format=mermaid' ],
	[ list_handler_namespaces => {}, '' ],
	[ list_handlers => { namespace => 'default' }, '' ],
	[ show_handler => { namespace => 'default', name => 'made' }, 'version=latest' ],
	[ list_event_catalog => {}, 'category=step' ],
	[ show_event_info => { name => 'task.completed' }, '' ],
	[ show_ready => {}, '' ],
	[ show_live => {}, '' ],
	[ show_me => {}, '' ],
	[ show_openapi => {}, '' ],
);
if ($node->safe_psql('postgres', q{SELECT to_regproc('tasker._rest_workers') IS NOT NULL}) eq 't')
{
	push @calls,
	  [ list_workers => {}, '' ], [ show_health_status => {}, '' ], [ show_metrics => {}, '' ],
	  [ show_performance => {}, '' ], [ show_bottlenecks => {}, 'period=1' ];
}

my %operations;

foreach my $pattern (sort keys %{ $document->{paths} })
{
	foreach my $method (sort keys %{ $document->{paths}{$pattern} })
	{
		my $operation = $document->{paths}{$pattern}{$method};

		$operations{ $operation->{operationId} } = { %$operation, method => uc $method, pattern => $pattern };
	}
}

sub path_of
{
	my ($operation, $parts, $query) = @_;
	my $filled = $operation->{pattern};

	$filled =~ s/\{(\w+)\}/$parts->{$1} \/\/ 'x'/ge;
	return $filled . (length($query // '') ? "?$query" : '');
}

# What was answered, for the database to check.
my @answers;

sub note_answer
{
	my ($title, $operation, $given) = @_;
	my $described = $operation->{responses}{ $given->{status} };

	return fail("$title: status $given->{status} is not described: $given->{content}") if !defined $described;
	my ($type) = ($given->{headers}{'content-type'} // '') =~ /^([^;]*)/;
	my $content = $described->{content}{$type};

	return fail("$title: type $type is not described for $given->{status}") if !defined $content;
	push @answers, [ $title, $json->encode($content->{schema}), $given->{content} ] if $type =~ /json/;
	return;
}

# What operations that only come after others need.
sub call_operation
{
	my ($name, $parts, $query, $body, $status) = @_;
	my $operation = $operations{$name};
	my $given = $agent->call($operation->{method}, path_of($operation, $parts, $query), $body);

	$status //= $name eq 'create_task' ? 201 : 200;
	is($given->{status}, $status, "$name succeeds") or diag($given->{content});
	note_answer($name, $operation, $given);
	return;
}

call_operation(@$_) foreach @calls;
waits_for_state($error_task, 'error');
waits_for_state($error_task_2, 'complete');
call_operation(retry_task => { task_id => $error_task }, '');
waits_for_state($error_task, 'error');
call_operation(resolve_task => { task_id => $error_task }, '', { reason => 'by hand' });

my %called = map { $_->[0] => 1 } @calls;
my @rest = grep { !$called{$_} } sort keys %operations;
@rest = grep { !/^(list_workers|show_health_status|show_metrics|show_performance|show_bottlenecks)$/ } @rest
  if !$called{list_workers};
is("@rest", 'resolve_task retry_task stream_events', 'every operation was called, or is below');

# ---- a diagram that nobody could read

$node->safe_psql('postgres', <<'SQL');
SET client_min_messages = error;
SELECT tasker.register_task(jsonb_build_object('name', 'large', 'step_templates',
    jsonb_agg(jsonb_build_object('name', 's' || n, 'handler_class', 'quick')))::text)
FROM generate_series(1, 1001) AS n;
SQL
$answer = $agent->call(GET => '/tasker/templates/default/large/diagram?format=svg');
is($answer->{status}, 422, 'what is too large is not drawn');
like($answer->{json}{detail}, qr/too large/, 'and the answer says so');
note_answer('a diagram that is too large', $operations{show_template_diagram}, $answer);
is($agent->call(GET => '/tasker/templates/default/large/diagram?format=dot')->{status}, 200, 'the other formats are there');

# ---- the files of the pages

my $plain = $agent->call(GET => '/tasker/');
my $packed = $agent->call(GET => '/tasker/', undef, 'Accept-Encoding' => 'gzip');

is("$plain->{status} $packed->{status}", '200 200', 'a page');
is($plain->{headers}{'content-encoding'}, undef, 'comes as it is');
is($packed->{headers}{'content-encoding'}, 'gzip', 'or compressed, for who takes that');
is(Compress::Zlib::memGunzip($packed->{content}), $plain->{content}, 'and is the same');
is("$plain->{headers}{vary} $packed->{headers}{vary}", 'Accept-Encoding Accept-Encoding', 'as others in between are told');
isnt($plain->{headers}{etag}, $packed->{headers}{etag}, 'each has its tag');
is($agent->call(GET => '/tasker/', undef, 'Accept-Encoding' => 'gzip', 'If-None-Match' => $packed->{headers}{etag})->{status}, 304,
	'which spares who has it');

# ---- what SIGHUP changes, and a limit on streams

my $config = PostgreSQL::Test::Utils::tempdir . '/agent.conf';

append_to_file($config, "max_streams = 2\n");
my $other = RestAgent->new($node, 'postgres', '--config', $config);

# The status of a stream, and the connection that it came by.
sub open_stream
{
	my $connection = $other->connection;

	print $connection "GET /tasker/events HTTP/1.1\r\nHost: localhost\r\n\r\n";
	my $answered = RestAgent::read_until($connection, qr/\r\n\r\n/);
	return ($answered =~ m{^HTTP/1.1 (\d+)}, $connection, $answered);
}

# Asks until it is so: an answer of the agent, or the end of one, comes when it comes.
sub becomes_so
{
	my ($ask, $name) = @_;

	for (1 .. 600)
	{
		return pass($name) if $ask->();
		select undef, undef, undef, 0.1;
	}
	return fail($name);
}

my @streams = map { [ open_stream() ] } 1 .. 3;
is(join(' ', map { $_->[0] } @streams), '200 200 503', 'no more streams than may be open');
like($streams[2][2], qr/^Retry-After: \d+\r$/m, 'who comes too late may come again');
close $streams[0][1];
becomes_so(sub { (open_stream())[0] == 200 }, 'and finds room where one has gone');
is($other->call(GET => '/tasker/me')->{status}, 200, 'other requests do not count');

sub evil_status
{
	my ($header) = @_;
	my $connection = $other->connection;

	print $connection "GET /tasker/me HTTP/1.1\r\n$header\r\nConnection: close\r\n\r\n";
	return RestAgent::read_until($connection, qr/\}\z/);
}

like(evil_status('Host: other.example'), qr{^HTTP/1.1 403}, 'a host that is not known');
unlike(evil_status("Host: localhost\r\nOrigin: http://other.example"), qr/^Access-Control-Allow-Origin/m, 'nor an origin');
append_to_file($config, "max_streams = 0\nhosts = other.example\ncors_origins = http://other.example\nmax_body = 1kB\nrequest_timeout = 20s\n");
kill HUP => $other->pid;
becomes_so(sub { evil_status('Host: other.example') =~ m{^HTTP/1.1 200} }, 'are known by SIGHUP');
like(evil_status("Host: localhost\r\nOrigin: http://other.example"), qr{^Access-Control-Allow-Origin: http://other.example\r$}m, 'both of them');
is($other->call(POST => '/tasker/tasks', { name => 'x' x 2_000 })->{status}, 413, 'bodies are shorter from then on');
is((open_stream())[0], 503, 'and there are no more streams');
is($other->end, 0, 'it ends, too');

# ---- the stream

$socket = $agent->connection;
print $socket "GET /tasker/events?events=task.*&namespace=default HTTP/1.1\r\nHost: localhost\r\n\r\n";
my $head = RestAgent::read_until($socket, qr/retry: 2000\n\n/);
like($head, qr{^HTTP/1.1 200.*^Content-Type: text/event-stream\r}ms, 'a stream of events');
my $watched = new_task('quick');
my $stream = RestAgent::read_until($socket, qr/^event: task.completed\n.*?\n\n/ms);
my @told = map { $json->decode($_) } $stream =~ /^data: (.*)$/mg;
is(join(' ', map { "$_->{name}" } grep { $_->{task_id} == $watched } @told),
	'task.initialize_requested task.started task.completed', 'tells what happens, in its order, and nothing else');
my ($first_id) = $stream =~ /^id: (\d+)$/m;
is($told[0]{event_id}, $first_id, 'each with its id');
is($told[-1]{payload}{task_name}, 'quick', 'and its payload');
close $socket;

# The agent is replaced; the client comes back with what it saw.
my $missed = new_task('quick');
waits_for_state($missed, 'complete');
is($agent->end, 0, 'the agent ends');
$agent->start;
$socket = $agent->connection;
print $socket "GET /tasker/events?events=task.* HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: $first_id\r\n\r\n";
$stream = RestAgent::read_until($socket, qr/"task.completed".*"task_id": $missed\b.*?\n\n|"task_id": $missed\b.*"task.completed".*?\n\n/s);
@told = map { $json->decode($_) } $stream =~ /^data: (.*)$/mg;
is(join(' ', map { "$_->{task_id}:$_->{name}" } @told[0, 1]),
	"$watched:task.started $watched:task.completed", 'it goes on right behind the last event that the client saw');
is(scalar(grep { $_->{task_id} == $missed } @told), 3, 'with all that happened meanwhile');
close $socket;
$socket = $agent->connection;
print $socket "GET /tasker/events?last_event_id=77 HTTP/1.1\r\nHost: localhost\r\n\r\n";
like(RestAgent::read_until($socket, qr/event: lost\n.*\n\n/), qr/event: lost/, 'who saw one that is not there any more is told so');
close $socket;

# ---- input that is wrong: an answer of the schema of problems, never a failure of ours

my $seed = $ENV{REST_SEED} // 1;
srand $seed;
note("seed $seed");
my @wrong_texts = (
	'', ' ', '0', '-1', '1.5', '1e3', '9223372036854775807', '9223372036854775808', 'null', 'true', '[]', '{}', q{'}, q{"},
	q{\\}, q{'; DROP TABLE tasker.task; --}, '%s%n', '../../etc/passwd', "\x{fc}", "\x{1F600}", 'a' x 2_000, 'infinity', '2020-13-45',
	'now', '{a,b}', '{"', 'latest');
my @wrong_raw = ('%00', '%ff', '%zz', '%', '%c0%80', '%ed%a0%80', 'a%0d%0ab', '%2e%2e%2f', '+', '&&==');
my @wrong_values = (
	'null', '1', '-1', '1e400', '1.5', '99999999999999999999', 'true', '""', '"x"', '"\\u0000"', '"\\ud800"', '[]', '[null]', '[1]', '{}',
	'{"a": {"b": []}}', '"' . 'a' x 3_000 . '"', '[[' x 500 . ']]' x 500);
my @wrong_bodies = ('', '{', '[]', 'null', '"x"', '1', "\xff\xfe", "{\"a\": \"\0\"}", '{"name": "a", "name": "b"}', '{' x 5_000, '[' x 9_000 . ']' x 9_000);
my %valid_body = (
	create_task => \%order, update_task => { reason => 'r' }, update_task_put => { reason => 'r' }, step_changes => {},
	resolve_task => { reason => 'x' });

sub encoded
{
	my ($text) = @_;

	utf8::encode($text);
	$text =~ s/([^A-Za-z0-9])/sprintf '%%%02X', ord $1/ge;
	return $text;
}

sub try_wrong
{
	my ($name, $path, $body) = @_;
	my $operation = $operations{$name};
	my $given = $agent->call($operation->{method}, $path, $body);

	if ($given->{status} >= 500 || $given->{status} == 599)
	{
		fail("$name: $path gives $given->{status}: " . substr($given->{content}, 0, 300));
		diag('body: ' . substr($body, 0, 200)) if defined $body;
	}
	note_answer("$name $path", $operation, $given) if $given->{status} >= 400 && $operation->{method} ne 'HEAD';
	return;
}

my %parts = (task_id => $task, step_id => $step, namespace => 'default', name => 'made');
my $tried = 0;

foreach my $name (sort keys %operations)
{
	my $operation = $operations{$name};
	my $is_stream = $name eq 'stream_events';

	next if $name =~ /^(list_workers|show_health_status|show_metrics|show_performance|show_bottlenecks)$/ && !$called{list_workers};
	foreach my $parameter (grep { $_->{in} ne 'header' } @{ $operation->{parameters} })
	{
		foreach my $value ((map { encoded($_) } @wrong_texts), @wrong_raw)
		{
			# What is right would be a stream without an end.
			next if $is_stream && $parameter->{name} ne 'task_id';
			next if $is_stream && $value =~ /^(|%20|9223372036854775807|\+|&&==)$/;
			my %own = (%parts, $parameter->{in} eq 'path' ? ($parameter->{name} => $value) : ());

			next if $own{ $parameter->{name} } // '' eq '' && $parameter->{in} eq 'path' && $value eq '';
			try_wrong($name, path_of($operation, \%own, $parameter->{in} eq 'query' ? "$parameter->{name}=$value" : ''),
				defined $valid_body{$name} ? $json->encode($valid_body{$name}) : undef);
			$tried++;
		}
	}
	next if !$operation->{requestBody};
	my $content = $operation->{requestBody}{content}{'application/json'}{schema}{'$ref'};
	my ($schema) = $content =~ m{/(\w+)$};
	my $path_here = path_of($operation, \%parts, '');

	foreach my $property (sort keys %{ $document->{components}{schemas}{$schema}{properties} // {} })
	{
		foreach my $value (@wrong_values)
		{
			my %body = %{ $valid_body{$name} // {} };

			delete $body{$property};
			my $text = $json->encode(\%body);
			$text =~ s/\}\z/(%body ? ',' : '') . "\"$property\":$value}"/e;
			try_wrong($name, $path_here, $text);
			$tried++;
		}
	}
	foreach my $body (@wrong_bodies)
	{
		try_wrong($name, $path_here, $body);
		$tried++;
	}
	# Bytes by chance, out of what is right.
	foreach (1 .. 10)
	{
		my $text = $json->encode($valid_body{$name} // { a => [ 1, 'b' ] });

		substr $text, int(rand length $text), 1, chr int rand 256 foreach 1 .. 3;
		try_wrong($name, $path_here, $text);
		$tried++;
	}
}
cmp_ok($tried, '>', 2_000, "$tried wrong requests");
ok($agent->is_running, 'the agent is still there');

# All that was answered, at once.
$node->safe_psql('postgres', 'CREATE TABLE answer (title text, schema text, body text)');
my $copy = join '', map {
	my @row = @$_;
	s/([\\\t\n\r])/{ '\\' => '\\\\', "\t" => '\\t', "\n" => '\\n', "\r" => '\\r' }->{$1}/ge foreach @row;
	join("\t", @row) . "\n"
} @answers;
my $file = PostgreSQL::Test::Utils::tempdir . '/answers';
append_to_file($file, $copy);
$node->safe_psql('postgres', "\\copy answer FROM '$file'");
my $components = $json->encode({ schemas => $document->{components}{schemas} });
is($node->safe_psql('postgres', <<"SQL"), '', scalar(@answers) . ' answers are as their schemas say');
SELECT a.title, left(a.body, 200), e.instance_path, e.message
FROM answer AS a
CROSS JOIN LATERAL tasker.json_schema_errors(
    a.schema::jsonb || jsonb_build_object('components', \$c\$$components\$c\$::jsonb), a.body::jsonb) AS e
LIMIT 20
SQL
is($node->safe_psql('postgres', 'SELECT * FROM tasker.verify()'), '', 'nothing of it left a trace that should not be');
unlike(slurp_file($agent->{log}), qr/ error: /, 'nor an error in the log');

is($agent->end, 0, 'the agent ends by SIGTERM');
done_testing();
