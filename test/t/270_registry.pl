# What the server log says of the registries: a line of JSON for whatever was
# done, once it has been committed, and none for what was not.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskerTest;
use Test::More;

my $node = new_server('registry', "log_statement = 'none'");
$node->safe_psql('postgres', 'CREATE EXTENSION tasker');
$node->safe_psql('postgres', <<'SQL');
CREATE SCHEMA shop;
CREATE FUNCTION shop.pay(step tasker.step_context) RETURNS jsonb
LANGUAGE sql AS $$ SELECT '{}'::jsonb $$;
CREATE FUNCTION shop.wrong(amount integer) RETURNS jsonb
LANGUAGE sql AS $$ SELECT '{}'::jsonb $$;
CREATE FUNCTION public.register_here(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM tasker.register_external_handler('by step ' || step.attempt);
    IF step.attempt = 1 THEN
        RAISE 'and it is undone';
    END IF;
    RETURN '{}';
END;
$$;
SQL

# The lines since the last call, decoded.
my $read = 0;

sub lines
{
	my $log = slurp_file($node->logfile, $read);

	$read += length $log;
	return map { decode_json($_) } $log =~ /^[^{\n]*\bLOG:  (\{"timestamp".*\})$/mg;
}

# The parts of a line that the tests look at.
sub in_short
{
	return join "\n", map { "$_->{event_type} $_->{entity_id}" } @_;
}

my @fields = qw(timestamp correlation_id component message environment tasker_version process_id thread_id
  entity_type entity_id entity_class registry_name options event_type);

lines();
my $pid = $node->safe_psql('postgres', <<'SQL');
SET client_min_messages = error;
SET tasker.environment = 'production';
SELECT FROM tasker.register_handler('pay', 'shop.pay', 'payments', '2.1.0', replace => true);
SELECT pg_backend_pid();
SQL
$pid =~ s/\D//g;
my ($line, @more) = lines();
is(scalar @more, 0, 'a registration is one line');
is(join(' ', sort keys %$line), join(' ', sort @fields), 'with these fields and no other');
like($line->{timestamp}, qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/, 'the time in UTC');
like($line->{correlation_id}, qr/^tsk_[0-9a-z]{8}_[0-9a-z]{6}$/, 'a correlation id');
is($line->{process_id}, $pid, 'the process');
is($line->{thread_id}, sprintf('%x', $pid), 'the thread');
is(JSON::PP->new->canonical->encode({ map { $_ => $line->{$_} } grep { !/^(timestamp|correlation_id|process_id|thread_id)$/ } @fields }),
	'{"component":"handler_factory","entity_class":"shop.pay(tasker.step_context)","entity_id":"payments/pay/2.1.0",'
	  . '"entity_type":"task_handler","environment":"production","event_type":"registered","message":"Registry item registered",'
	  . '"options":{"namespace_name":"payments","replace":true,"version":"2.1.0"},"registry_name":"handler_factory","tasker_version":"0.1.0"}',
	'and the rest');

$node->safe_psql('postgres', <<'SQL');
SET client_min_messages = error;
SELECT FROM tasker.register_handler('pay', 'shop.pay', 'payments', '2.1.0', replace => true);
SELECT FROM tasker.unregister_handler('pay', 'payments', '2.1.0');
SELECT FROM tasker.register_external_handler(E'two\u00e4lines');
SQL
is(in_short(lines()), "unregistered payments/pay/2.1.0\nregistered payments/pay/2.1.0\nunregistered payments/pay/2.1.0\nregistered default/two\x{e4}lines/*",
	'what is replaced is unregistered first');

$node->safe_psql('postgres', <<'SQL');
BEGIN;
SELECT FROM tasker.register_external_handler('undone');
ROLLBACK;
BEGIN;
SELECT FROM tasker.register_external_handler('one');
SAVEPOINT outer_one;
SELECT FROM tasker.register_external_handler('undone');
SAVEPOINT inner_one;
SELECT FROM tasker.register_external_handler('undone too');
RELEASE inner_one;
ROLLBACK TO outer_one;
SELECT FROM tasker.register_external_handler('two');
SAVEPOINT inner_two;
SELECT FROM tasker.register_external_handler('three');
RELEASE inner_two;
RELEASE outer_one;
COMMIT;
BEGIN;
SELECT FROM tasker.register_external_handler('prepared');
PREPARE TRANSACTION 'registry';
COMMIT PREPARED 'registry';
SQL
my @lines = lines();
is(in_short(@lines), join("\n", map { "registered default/$_/*" } qw(one two three)), 'what was rolled back has no line, nor what was prepared');
is(scalar(keys %{ { map { $_->{correlation_id} => 1 } @lines } }), 1, 'what was done in one transaction shares a correlation id');
is($node->safe_psql('postgres', "SELECT count(*) FROM tasker.registry_log WHERE entity_id = 'default/prepared/*'"), 1, 'what was prepared has its row');

# Not before the commit.
my $session = session($node, 'postgres');
$session->query_safe('BEGIN');
$session->query_safe("SELECT tasker.register_external_handler('late')");
is(in_short(lines()), '', 'nothing is said before the commit');
$session->query_safe('COMMIT');
is(in_short(lines()), 'registered default/late/*', 'and it is after it');
$session->quit;

# Refused: at once, though the transaction is rolled back.
my ($status, undef, $error) = $node->psql('postgres', "SELECT tasker.register_handler('wrong', 'shop.wrong', 'payments', '1.0.0')");
isnt($status, 0, 'a function of another form is refused');
like($error, qr/shop\.wrong\(integer\) cannot be a handler.*takes integer.*takes one tasker\.step_context and returns jsonb.*HINT:  CREATE FUNCTION shop\.wrong/s,
	'with what is wrong, what is required and a suggestion');
($line, @more) = lines();
is(scalar @more, 0, 'that is one line, too');
is(join(' ', sort keys %$line), join(' ', sort @fields), 'with the same fields');
is("$line->{event_type} $line->{entity_id} $line->{entity_class}", 'validation_failed payments/wrong/1.0.0 shop.wrong(integer)', 'of what was refused');
like($line->{message}, qr/^Registry validation failed: .*cannot be a handler/, 'and why');
is($node->safe_psql('postgres', "SELECT count(*) FROM tasker.registry_log WHERE entity_id LIKE '%wrong%'"), 0, 'it has no row');

# Templates.
$node->safe_psql('postgres', q[SELECT tasker.register_task('{"name": "late", "task_handler_class": "Late", "step_templates": [{"name": "only", "handler_class": "late"}]}')]);
$node->psql('postgres', q[SELECT tasker.register_task('{"name": "wrong", "namespace_name": "shop", "step_templates": [{"name": "only", "handler_class": "none"}]}')]);
($line, my $refused) = lines();
is("$line->{event_type} $line->{entity_type} $line->{entity_id} $line->{entity_class}", 'registered task_template default/late/0.1.0 Late', 'a template has its line');
is("$refused->{event_type} $refused->{registry_name} $refused->{entity_id}", 'validation_failed template_registry shop/wrong/0.1.0', 'and one that was refused');

# In a step: its second attempt's alone.
$node->safe_psql('postgres', <<'SQL');
SET client_min_messages = error;
SET tasker.log_registries = off;
SELECT FROM tasker.register_handler('register_here', 'public.register_here');
SELECT FROM tasker.register_task('{"name": "step", "step_templates": [{"name": "only", "handler_class": "register_here", "retry": {"base_delay": 0}}]}');
SQL
is(in_short(lines()), '', 'with tasker.log_registries off nothing is said');
$node->safe_psql('postgres', "SELECT tasker.create_task('step');\nCALL tasker.wait(1, '3 min')");
# An executor says it, and may do so when the task has already ended.
$node->wait_for_log(qr{by step 2}, $read);
is(in_short(lines()), 'registered default/by step 2/*', 'a step that fails has registered nothing');

# The history goes along in a dump.
$node->safe_psql('postgres', 'CREATE DATABASE copy');
my $dump = PostgreSQL::Test::Utils::tempdir . '/registry.sql';
$node->command_ok([ 'pg_dump', '--file', $dump, $node->connstr('postgres') ], 'dumped');
$node->command_ok([ 'psql', '-Xq', '--set', 'ON_ERROR_STOP=1', '--file', $dump, $node->connstr('copy') ], 'restored');
is($node->safe_psql('copy', 'SELECT count(*), max(log_id) FROM tasker.registry_log'),
	$node->safe_psql('postgres', 'SELECT count(*), max(log_id) FROM tasker.registry_log'), 'the rows are in the copy');
$node->safe_psql('copy', "SELECT tasker.register_external_handler('in the copy')");

$node->stop;
done_testing();
