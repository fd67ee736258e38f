# Who may ask: tokens, JSON Web Tokens and a proxy's header; two namespaces that
# see nothing of each other.
use strict;
use warnings;

use Digest::SHA qw(hmac_sha256);
use FindBin;
use lib $FindBin::RealBin;
use HttpServer;
use IPC::Run;
use JSON::PP;
use MIME::Base64 qw(encode_base64url);
use PostgreSQL::Test::Utils;
use RestAgent;
use TaskerTest;
use Test::More;

my $json = JSON::PP->new->utf8->canonical;
my $place = PostgreSQL::Test::Utils::tempdir;
my $node = new_server('rest_auth', 'tasker.executors = 1');

install_tasker($node, 'postgres');
$node->safe_psql('postgres', <<'SQL');
SET client_min_messages = error;
CREATE ROLE agent LOGIN;
CREATE ROLE alice;
CREATE ROLE bob;
CREATE ROLE stranger;
GRANT alice, bob TO agent;
SELECT tasker.grant_agent('agent');
SELECT tasker.register_handler('quick', 'public.quick', namespace => 'crimson');
SELECT tasker.register_handler('quick', 'public.quick', namespace => 'azure');
SELECT tasker.register_task('{"name": "crimson_task", "namespace_name": "crimson", "step_templates": [{"name": "crimson_step", "handler_class": "quick"}]}');
SELECT tasker.register_task('{"name": "azure_task", "namespace_name": "azure", "step_templates": [{"name": "azure_step", "handler_class": "quick"}]}');
SELECT tasker.grant('alice', '{admin}', 'crimson');
SELECT tasker.grant('bob', '{admin}', 'azure');
SQL
my %token = map { $_ => $node->safe_psql('postgres', "SELECT tasker.create_token('$_')") } qw(alice bob stranger);

# ---- keys

sub openssl
{
	my (@arguments) = @_;
	my ($out, $err) = ('', '');

	IPC::Run::run([ 'openssl', @arguments ], '>', \$out, '2>', \$err) or die "openssl @arguments: $err";
	return $out;
}

openssl('genpkey', '-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2048', '-out', "$place/$_.rsa") foreach qw(ours theirs);
openssl('genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256', '-out', "$place/ours.ec");
openssl('pkey', '-in', "$place/ours.$_", '-pubout', '-out', "$place/ours.$_.pub") foreach qw(rsa ec);
my $secret = 'a secret of the tests, long enough for it';
append_to_file("$place/secret", "$secret\n");

sub sign
{
	my ($algorithm, $text, $key) = @_;

	return hmac_sha256($text, $key) if $algorithm eq 'HS256';
	append_to_file("$place/text", $text);
	my $signature = openssl('dgst', '-sha256', '-sign', $key, '-binary', "$place/text");
	unlink "$place/text";
	return $signature if $algorithm eq 'RS256';
	# DER: two numbers, each of which may have a byte before it or lack some.
	my ($r, $s) = unpack 'x[2] x C/a x C/a', $signature;
	return join '', map { substr "\0" x 32 . $_, -32 } $r, $s;
}

sub jwt
{
	my ($header, $claims, $key) = @_;
	my $text = join '.', map { encode_base64url(ref $_ ? $json->encode($_) : $_) } $header, $claims;

	return "$text." . ($header->{alg} eq 'none' ? '' : encode_base64url(sign($header->{alg}, $text, $key)));
}

sub role_by
{
	my ($agent, %headers) = @_;
	my $answer = $agent->call(GET => '/tasker/me', undef, %headers);

	return $answer->{status} == 200 ? $answer->{json}{role} : $answer->{status};
}

# Asks until the answer is that, as something that was set off brings it about.
sub becomes
{
	my ($agent, $wanted, $name, %headers) = @_;
	my $got = '';

	for (1 .. 600)
	{
		$got = role_by($agent, %headers);
		last if $got eq $wanted;
		select undef, undef, undef, 0.1;
	}
	is($got, $wanted, $name);
	return;
}

sub bearer
{
	return (Authorization => "Bearer $_[0]");
}

my @as_agent = ('--database', $node->connstr('postgres') . ' user=agent');

sub agent
{
	return RestAgent->new($node, 'postgres', @as_agent, '--auth', 'on', @_);
}

# ---- tokens

my $agent = agent('--jwt-key', "$place/secret", '--jwt-audience', 'tasker', '--jwt-issuer', 'tests');
my $answer = $agent->call(GET => '/tasker/tasks');

is($answer->{status}, 401, 'nobody gets in without credentials');
is($answer->{headers}{'www-authenticate'}, 'Bearer realm="tasker"', 'and is told how');
is($agent->call(GET => $_)->{status}, 200, "but for $_") foreach qw(/tasker/health/live /tasker/health/ready /tasker/openapi.json);
is(role_by($agent, bearer($token{alice})), 'alice', 'a token is its role\'s');
is(role_by($agent, bearer($token{bob})), 'bob', 'another one another\'s');
is(role_by($agent, bearer($token{alice})), 'alice', 'also when they take turns on a connection');
is(role_by($agent, bearer('tsk_' . 'a' x 43)), 401, 'a token that there is not');
is(role_by($agent, bearer($token{stranger})), 403, 'a role that the agent is no member of');
is(role_by($agent, Authorization => "Basic $token{alice}"), 401, 'another scheme');
is(role_by($agent, Authorization => 'Bearer '), 401, 'no token');
is(role_by($agent, bearer("$token{alice} x")), 401, 'a token and more');

# ---- JSON Web Tokens

my $now = time;
my %claims = (role => 'alice', exp => $now + 600, aud => 'tasker', iss => 'tests');
my $hs = { alg => 'HS256', typ => 'JWT' };

is(role_by($agent, bearer(jwt($hs, \%claims, $secret))), 'alice', 'HS256');
is(role_by($agent, bearer(jwt($hs, { %claims, aud => [ 'other', 'tasker' ] }, $secret))), 'alice', 'one audience of several');
my %refused = (
	'expired' => [ $hs, { %claims, exp => $now - 60 }, $secret ],
	'not valid yet' => [ $hs, { %claims, nbf => $now + 600 }, $secret ],
	'without an end' => [ $hs, { map { $_ => $claims{$_} } qw(role aud iss) }, $secret ],
	'whose end is no number' => [ $hs, { %claims, exp => 'never' }, $secret ],
	'for another audience' => [ $hs, { %claims, aud => 'other' }, $secret ],
	'for no audience' => [ $hs, { map { $_ => $claims{$_} } qw(role exp iss) }, $secret ],
	'of another issuer' => [ $hs, { %claims, iss => 'other' }, $secret ],
	'without a role' => [ $hs, { map { $_ => $claims{$_} } qw(exp aud iss) }, $secret ],
	'whose role is no text' => [ $hs, { %claims, role => ['alice'] }, $secret ],
	'of another secret' => [ $hs, \%claims, "${secret}x" ],
	'of no algorithm' => [ { alg => 'none' }, \%claims, '' ],
	'of an algorithm in capitals' => [ { alg => 'none', typ => 'JWT' }, \%claims, '' ],
	'with a header that must be understood' => [ { %$hs, crit => ['x'] }, \%claims, $secret ],
	'whose claims are no object' => [ $hs, '[]', $secret ],
);
is(role_by($agent, bearer(jwt(@{ $refused{$_} }))), 401, "a token $_") foreach sort keys %refused;
my $good = jwt($hs, \%claims, $secret);
(my $other = $good) =~ s/\.[^.]*\./'.' . encode_base64url($json->encode({ %claims, role => 'bob' })) . '.'/e;
is(role_by($agent, bearer($other)), 401, 'a token that was changed');
is(role_by($agent, bearer(substr $good, 0, -1)), 401, 'or cut');
is(role_by($agent, bearer("$good=")), 401, 'or spelt otherwise');
is(role_by($agent, bearer(jwt($hs, { %claims, role => $_ }, $secret))), 403, "role $_") foreach 'none', 'NONE', 'nobody', 'postgres', "al\x{0}ice" x 0 || 'alice"; RESET ROLE';
$agent->end;

foreach my $kind (qw(rsa ec))
{
	my $algorithm = $kind eq 'rsa' ? 'RS256' : 'ES256';
	my %free = (role => 'bob', exp => $now + 600);

	$agent = agent('--jwt-key', "$place/ours.$kind.pub");
	is(role_by($agent, bearer(jwt({ alg => $algorithm }, \%free, "$place/ours.$kind"))), 'bob', $algorithm);
	is(role_by($agent, bearer(jwt({ alg => $algorithm }, \%free, "$place/theirs.rsa"))), 401, 'of another key') if $kind eq 'rsa';
	is(role_by($agent, bearer(jwt({ alg => 'HS256' }, \%free, slurp_file("$place/ours.$kind.pub")))), 401,
		'a public key is no secret');
	$agent->end;
}

# A set of keys, told apart by their ids; read anew on SIGHUP.
sub jwk_of
{
	my ($id, $file) = @_;
	my ($modulus) = openssl('rsa', '-in', $file, '-modulus', '-noout') =~ /=([0-9A-F]+)/;

	return { kty => 'RSA', kid => $id, use => 'sig', n => encode_base64url(pack 'H*', $modulus), e => 'AQAB' };
}

my $set = { keys => [
	{ kty => 'oct', kid => 'old', k => encode_base64url($secret) },
	jwk_of(new => "$place/ours.rsa"),
	{ kty => 'OKP', crv => 'Ed25519', x => 'AAAA' } ] };
append_to_file("$place/jwks", $json->encode($set));
append_to_file("$place/agent.conf", "jwks = $place/jwks\njwt_role_claim = pgrole\n");
$agent = agent('--config', "$place/agent.conf");
my %role = (pgrole => 'alice', exp => $now + 600);
is(role_by($agent, bearer(jwt({ alg => 'HS256', kid => 'old' }, \%role, $secret))), 'alice', 'a key of a set');
is(role_by($agent, bearer(jwt({ alg => 'RS256', kid => 'new' }, \%role, "$place/ours.rsa"))), 'alice', 'and another');
is(role_by($agent, bearer(jwt({ alg => 'HS256', kid => 'new' }, \%role, $secret))), 401, 'but not under the other\'s id');
shift @{ $set->{keys} };
unlink "$place/jwks";
append_to_file("$place/jwks", $json->encode($set));
kill HUP => $agent->pid;
becomes($agent, 401, 'a key that was taken out of it opens nothing more',
	bearer(jwt({ alg => 'HS256', kid => 'old' }, \%role, $secret)));
unlink "$place/agent.conf";
append_to_file("$place/agent.conf", "jwt_role_claim = pgrole\n");
kill HUP => $agent->pid;
becomes($agent, 401, 'nor does any when the setting is gone', bearer(jwt({ alg => 'RS256', kid => 'new' }, \%role, "$place/ours.rsa")));
$agent->end;

# ---- a key set behind a URL

my %key = (first => "$place/ours.rsa", second => "$place/theirs.rsa");

sub serve_set
{
	my ($text) = @_;

	unlink "$place/set";
	append_to_file("$place/set.new", ref $text ? $json->encode({ keys => [ map { jwk_of($_ => $key{$_}) } @$text ] }) : $text);
	rename "$place/set.new", "$place/set" or die $!;
	return;
}

sub signed_by
{
	my ($id, $file) = @_;

	return bearer(jwt({ alg => 'RS256', kid => $id }, { role => 'alice', exp => $now + 600 }, $file // $key{$id}));
}

# Waits until the agent has said so, behind that place of its log.  What fails is
# tried again after a while, and it is said again.
sub log_has
{
	my ($agent, $pattern, $from, $name) = @_;
	my $is_said = 0;

	for (1 .. 600)
	{
		$is_said = slurp_file($agent->{log}, $from) =~ $pattern;
		last if $is_said;
		select undef, undef, undef, 0.1;
	}
	ok($is_said, $name) or diag(slurp_file($agent->{log}));
	return;
}

my $failed = qr/warning: could not fetch the key set/;
my $keys = HttpServer->new(directory => $place);
my $url = "http://127.0.0.1:$keys->{port}";

$agent = agent('--jwks', "$url/file?name=set", '--jwks-refresh', '1h');
log_has($agent, $failed, 0, 'a set that is not there is missed');
$answer = $agent->call(GET => '/tasker/me', undef, signed_by('first'));
is($answer->{status}, 503, 'what it would prove has to wait');
ok($answer->{headers}{'retry-after'}, 'and is told so');
is(role_by($agent, bearer('x.y.z')), 401, 'but not what no key could');
is(role_by($agent, bearer($token{bob})), 'bob', 'nor others');
serve_set(['first']);
kill HUP => $agent->pid;
becomes($agent, 'alice', 'it is fetched when it is there', signed_by('first'));
is(role_by($agent, signed_by('first', $key{second})), 401, 'and believed');

serve_set(['second']);
becomes($agent, 'alice', 'a key that is new is fetched when a token names it', signed_by('second'));
becomes($agent, 401, 'and the old one is gone', signed_by('first'));
my $fetched = () = $keys->requests;
role_by($agent, signed_by("made up $_", $key{first})) foreach 1 .. 50;
cmp_ok(scalar(() = $keys->requests) - $fetched, '<', 5, 'made up ones have it fetched now and then only');

serve_set('{"keys": []}');
my $log = -s $agent->{log};
kill HUP => $agent->pid;
log_has($agent, $failed, $log, 'a set without keys is none');
is(role_by($agent, signed_by('second')), 'alice', 'and the last good one stays');
serve_set([ 'first', 'second' ]);
kill HUP => $agent->pid;
becomes($agent, 'alice', 'until there is another', signed_by('first'));
$keys->stop;
$log = -s $agent->{log};
kill HUP => $agent->pid;
log_has($agent, $failed, $log, 'who has the set is away');
is(role_by($agent, signed_by('first')), 'alice', 'and it stays');
is(role_by($agent, signed_by('third', $key{first})), 503, 'while nobody knows whether there are others');
$agent->end;

$keys = HttpServer->new(directory => $place);
$url = "http://localhost:$keys->{port}";
foreach (
	[ '/to/302/%2Ffile%3Fname%3Dset', qr/status is 302/, 'a redirect is not followed' ],
	[ '/huge', qr/longer than 1 MB/, 'a set that never ends is not read to the end' ],
	[ '/status?code=500', qr/status is 500/, 'an error is no set' ])
{
	my ($path, $why, $name) = @$_;

	$agent = agent('--jwks', "$url$path");
	log_has($agent, $why, 0, $name);
	is(role_by($agent, signed_by('first')), 503, 'and gives no keys');
	is($agent->end, 0, 'the agent ends');
}
$keys->stop;
foreach my $wrong ('http://192.0.2.1/keys', 'http://localhost.example/keys', 'ftp://127.0.0.1/keys')
{
	is(eval { agent('--jwks', $wrong); 1 }, undef, "$wrong is not asked");
	like($@, qr/one of https, or of http at this machine/, 'as anybody could have sent it');
}

SKIP:
{
	skip 'there is no IO::Socket::SSL', 3 if !eval { require IO::Socket::SSL; 1 };
	openssl(qw(req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test -addext subjectAltName=DNS:localhost),
		'-keyout', "$place/tls.key", '-out', "$place/tls.crt");
	$keys = HttpServer->new(directory => $place, tls => [ "$place/tls.crt", "$place/tls.key" ]);
	$agent = agent('--jwks', "https://localhost:$keys->{port}/file?name=set");
	log_has($agent, $failed, 0, 'whose certificate nobody knows is not believed');
	is(scalar(() = $keys->requests), 0, 'nor asked');
	$agent->end;
	$agent = agent('--jwks', "https://localhost:$keys->{port}/file?name=set", '--tls-ca', "$place/tls.crt");
	becomes($agent, 'alice', 'over TLS, by certificates of our own', signed_by('first'));
	$agent->end;
	$keys->stop;
}

# ---- a proxy

$agent = agent('--proxy-header', 'X-Tasker-Role', '--proxy-from', '10.0.0.0/8,127.0.0.0/8');
is(role_by($agent, 'X-Tasker-Role' => 'bob'), 'bob', 'a trusted proxy says who asks');
is(role_by($agent), 401, 'if it says it');
$agent->end;
$agent = agent('--proxy-header', 'X-Tasker-Role', '--proxy-from', '10.0.0.0/8,unix');
is(role_by($agent, 'X-Tasker-Role' => 'bob'), 401, 'nobody else does');
$agent->end;

# What is no network is said, and nothing is started; a list with one would trust
# others than was meant.
foreach (
	[ '10.0.0.0/x', 'has no number from 0 to 32 behind the slash' ],
	[ '10.0.0.0/', 'has no number from 0 to 32 behind the slash' ],
	[ '10.0.0.0/33', 'has no number from 0 to 32 behind the slash' ],
	[ '10.0.0.0/-1', 'has no number from 0 to 32 behind the slash' ],
	[ '10.0.0.0/+8', 'has no number from 0 to 32 behind the slash' ],
	[ '10.0.0.0/99999999999999999999', 'has no number from 0 to 32 behind the slash' ],
	[ '::/129', 'has no number from 0 to 128 behind the slash' ],
	[ '', 'has no address' ],
	[ '/8', 'has no address' ],
	[ '10.0.0', 'has no address that is one of IPv4 or IPv6' ],
	[ '256.0.0.1', 'has no address that is one of IPv4 or IPv6' ],
	[ '10.0.0.1 10.0.0.2', 'has no address that is one of IPv4 or IPv6' ],
	[ 'proxy.example', 'has no address that is one of IPv4 or IPv6' ],
	[ '0' x 100, 'has no address that is one of IPv4 or IPv6' ],
	[ '10.1.0.0/8', 'has an address that goes on behind the bits of its network' ],
	[ '2001:db8::1/64', 'has an address that goes on behind the bits of its network' ])
{
	my ($entry, $problem) = @$_;

	is(eval { agent('--proxy-header', 'X-Tasker-Role', '--proxy-from', "127.0.0.1,$entry,unix"); 1 }, undef, "proxy-from: \"$entry\"");
	like($@, qr/proxy-from: "\Q$entry\E" \Q$problem\E;/, 'and it is said why');
}
$agent = agent('--proxy-header', 'X-Tasker-Role', '--proxy-from', '::1, 2001:db8::/32,10.0.0.0/8,127.0.0.1/32, unix');
is(role_by($agent, 'X-Tasker-Role' => 'bob'), 'bob', 'a sound list works, spaces and all');
$agent->end;

# ---- two namespaces

SKIP:
{
	skip 'access is not enforced by this version', 1
	  if $node->safe_psql('postgres', q{SELECT to_regproc('tasker.enforce_access') IS NULL}) eq 't';
	$node->safe_psql('postgres', 'SELECT tasker.enforce_access()');
	$agent = agent();
	my %who = (crimson => 'alice', azure => 'bob');
	my %made;

	foreach my $colour (qw(crimson azure))
	{
		$answer = $agent->call(POST => '/tasker/tasks',
			{ name => "${colour}_task", namespace => $colour, context => { "${colour}_key" => 1 }, initiator => "${colour}_person",
				reason => "${colour}_reason", source_system => "${colour}_system", tags => ["${colour}_tag"],
				idempotency_key => 'the same' },
			bearer($token{ $who{$colour} }));
		is($answer->{status}, 201, "a task of namespace $colour") or diag($answer->{content});
		$made{$colour} = $answer->{json}{task};
	}
	$node->poll_query_until('postgres', q{SELECT count(*) = 2 FROM tasker.tasks WHERE state = 'complete'});
	is($agent->call(POST => '/tasker/tasks', { name => 'azure_task', namespace => 'azure', context => {}, initiator => 'i', reason => 'r', source_system => 's' },
			bearer($token{alice}))->{status} =~ /^(403|422)$/ ? 1 : 0, 1, 'nobody creates a task in another\'s namespace');

	my $document = $agent->call(GET => '/tasker/openapi.json')->{json};
	foreach my $colour (qw(crimson azure))
	{
		my $other = $colour eq 'crimson' ? 'azure' : 'crimson';
		my %own = (task_id => $made{$colour}{task_id}, step_id => $made{$colour}{workflow_steps}[0]{step_id},
			namespace => $colour, name => "${colour}_task");
		my %others = (task_id => $made{$other}{task_id}, step_id => $made{$other}{workflow_steps}[0]{step_id},
			namespace => $other, name => "${other}_task");
		my $leaks = '';
		my $seen = 0;

		foreach my $pattern (sort keys %{ $document->{paths} })
		{
			foreach my $method (sort keys %{ $document->{paths}{$pattern} })
			{
				my $operation = $document->{paths}{$pattern}{$method};

				next if $operation->{operationId} eq 'stream_events';
				next if $operation->{operationId} =~ /^create_|^validate_/;
				foreach my $parts (\%own, \%others)
				{
					next if $parts == \%own && $method ne 'get';
					my $path = $pattern;

					$path =~ s/\{(\w+)\}/$parts->{$1}/ge;
					$answer = $agent->call(uc $method, $path,
						$operation->{requestBody} ? { $operation->{operationId} eq 'resolve_task' ? (reason => 'x') : () } : undef,
						bearer($token{ $who{$colour} }));
					fail("$method $path gives $answer->{status}") if $answer->{status} >= 500;
					$seen++ if $answer->{content} =~ /\Q$colour/;
					if ($parts == \%others && $pattern =~ /task_id/)
					{
						is($answer->{status}, 404, "$method $path of the other is not there");
					}
					# what was asked for may be said again
					(my $said = $answer->{content}) =~ s/(?:\\"|')\Q$other\E(_task)?(?:\\"|')//g;
					$leaks .= "$method $path: $answer->{content}\n" if $said =~ /\Q$other\E/i;
				}
			}
		}
		cmp_ok($seen, '>', 8, "$who{$colour} sees what is in $colour");
		is($leaks, '', "and nothing of $other");
	}

	# The stream, of what happened before and of what happens now.
	foreach my $colour (qw(crimson azure))
	{
		my $other = $colour eq 'crimson' ? 'azure' : 'crimson';
		my $socket = $agent->connection;

		print $socket "GET /tasker/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer $token{$who{$colour}}\r\n\r\n";
		my $stream = RestAgent::read_until($socket, qr/retry/);

		foreach my $name ($other, $colour)
		{
			$agent->call(POST => '/tasker/tasks',
				{ name => "${name}_task", namespace => $name, context => {}, initiator => "${name}_person", reason => 'r', source_system => 's' },
				bearer($token{ $who{$name} }));
		}
		$stream .= RestAgent::read_until($socket, qr/task\.completed/);
		like($stream, qr/${colour}_person/, "the stream of $who{$colour} tells what happens in $colour");
		unlike($stream, qr/$other/, "and nothing of $other");
		close $socket;
	}
	$agent->end;
}

done_testing();
