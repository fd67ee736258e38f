# The value of a secret is where it belongs and nowhere else: not in a table that
# anybody can read, not in the server log however much that says, not in a dump,
# a notification or an error.  Everything is searched for it.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskerTest;
use Test::More;

# Everything that a server can be told to log.
my $node = new_server('secrets', <<'CONF');
log_min_messages = debug5
log_min_error_statement = debug5
log_statement = 'all'
log_duration = on
log_min_duration_statement = 0
log_error_verbosity = verbose
log_parameter_max_length_on_error = -1
session_preload_libraries = 'auto_explain'
auto_explain.log_min_duration = 0
auto_explain.log_nested_statements = on
auto_explain.log_verbose = on
tasker.executors = 1
CONF
$node->safe_psql('postgres', 'CREATE EXTENSION tasker');
$node->safe_psql('postgres', <<'SQL');
CREATE ROLE ordinary LOGIN;
CREATE ROLE deployer LOGIN;
GRANT EXECUTE ON FUNCTION tasker.set_secret(text, text) TO deployer;
CREATE FUNCTION public.tell(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    token text := step.config ->> 'token';
BEGIN
    RAISE DEBUG 'debug %', token;
    RAISE LOG 'log %', step.config;
    RAISE WARNING 'warning %', quote_literal(token) USING DETAIL = token, HINT = token;
    RETURN jsonb_build_object('token', token, token, step.config::text, 'nested', jsonb_build_array(step.config));
END;
$$;
CREATE FUNCTION public.fail(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    token text := step.config ->> 'token';
BEGIN
    IF step.attempt = 1 THEN
        RAISE EXCEPTION 'failed with %', token USING DETAIL = step.config::text, HINT = quote_literal(token);
    ELSIF step.attempt = 2 THEN
        EXECUTE format('SELECT %L::integer', token);
    END IF;
    PERFORM tasker.permanent_error(token, step.config);
    RETURN '{}';
END;
$$;
CREATE FUNCTION public.plain(step tasker.step_context) RETURNS jsonb
LANGUAGE sql AS $$ SELECT step.config $$;
SET client_min_messages = error;
SELECT FROM tasker.register_handler('tell', 'public.tell');
SELECT FROM tasker.register_handler('fail', 'public.fail');
SELECT FROM tasker.register_handler('plain', 'public.plain');
SELECT FROM tasker.register_external_handler('outside');
SQL

# Values that can't be found by chance; the last needs quotes everywhere.
my %values = (
	STATEMENT => 'zq81-statement-value',
	PARAMETER => 'zq82-parameter-value',
	COPIED => 'zq84-copied-value',
	ODD => q(zq85'odd"value\\ü));

# Set in every way: in a statement, as a parameter, by COPY.
$node->safe_psql('postgres', "SELECT tasker.set_secret('STATEMENT', '$values{STATEMENT}')", extra_params => [ '-U', 'deployer' ]);
my $script = PostgreSQL::Test::Utils::tempdir . '/set.sql';
append_to_file($script, "SELECT tasker.set_secret('PARAMETER', :value::text);\n");
$node->command_ok(
	[ 'pgbench', '-n', '-t', '1', '-M', 'extended', '-D', "value=$values{PARAMETER}", '-f', $script, $node->connstr('postgres') ],
	'a secret is set with a parameter');
$node->safe_psql('postgres', <<"SQL");
CREATE TEMP TABLE new_secret (name text, value text);
COPY new_secret FROM STDIN;
COPIED\t$values{COPIED}
\\.
SELECT tasker.set_secret(name, value) FROM new_secret;
SQL
(my $odd = $values{ODD}) =~ s/'/''/g;
$node->safe_psql('postgres', "SELECT tasker.set_secret('ODD', '$odd')");

# Refused: the value is not in the error's statement either.
for my $call ("'a.b', 'zq86-refused-value'", "'', 'zq86-refused-value'", "NULL, 'zq86-refused-value'", "'X', 'zq86-refused-value', 1")
{
	my (undef, undef, $error) = $node->psql('postgres', "SELECT tasker.set_secret($call)");
	unlike($error =~ s/^LINE.*//mr, qr/zq86/, "set_secret($call) does not say the value");
}
$node->psql('postgres', "SELECT tasker.set_secret('X', 'zq86-refused-value')", extra_params => [ '-U', 'ordinary' ]);
is($node->safe_psql('postgres', 'SELECT string_agg(name, \' \' ORDER BY name) FROM tasker.secrets'), 'COPIED ODD PARAMETER STATEMENT', 'these are set');

# Somebody listens.
my $listener = session($node, 'postgres');
$listener->query_safe('LISTEN tasker_events; LISTEN tasker_steps');

# Each of them through each kind of handler.
for my $name (sort keys %values)
{
	for my $handler (qw(tell fail plain outside))
	{
		$node->safe_psql('postgres', <<"SQL");
SELECT tasker.register_task('{"name": "${handler}_$name", "step_templates": [{"name": "only", "handler_class": "$handler", "retry": {"base_delay": 0},
    "handler_config": {"token": "\${$name}", "list": ["Bearer \${$name}", {"deep": "\${$name}"}]}}]}');
SELECT tasker.create_task('${handler}_$name');
SELECT tasker.create_task('${handler}_$name');
SQL
	}
	$node->safe_psql('postgres', <<"SQL");
SELECT tasker.register_task('{"name": "api_$name", "step_templates": [{"name": "only", "handler_config": {"type": "api", "url": "https://example.com/\${$name}"}}]}');
SELECT tasker.create_task('api_$name');
SQL
	$node->safe_psql('postgres', "SELECT tasker.run_task('${_}_$name')") for qw(tell fail plain);
}
# With all that is logged this takes its time, and whoever asked again and again would
# be logged, too.
$node->safe_psql('postgres', <<'SQL');
SELECT tasker.wait_for_task(task_id, NULL) FROM tasker.tasks WHERE name !~ '^(outside|api)'
SQL
is($node->safe_psql('postgres', <<'SQL'), "complete|24\nerror|12", 'the SQL handlers ran as they are written');
SELECT state, count(*) FROM tasker.tasks WHERE name !~ '^(outside|api)' GROUP BY state ORDER BY state
SQL

# A worker gets the values, and says them.  What it got goes by a file, as the
# log shows whole statements.
wait_until($node, 'postgres', 'SELECT count(*) = 12 FROM tasker.queue WHERE lane >= 3', 'the others wait for workers');
$node->safe_psql('postgres', <<'SQL');
CREATE TEMP TABLE claimed AS
SELECT * FROM tasker.claim_steps('worker', '{outside,api}', max_steps => 100);
DO $$
BEGIN
    IF (SELECT count(*) FROM claimed WHERE position('q8' IN config::text) > 0) <> 12 THEN
        RAISE 'a worker did not get the value';
    END IF;
END;
$$;
SELECT tasker.complete_steps(array_agg(step_id), array_agg(config)) FROM claimed WHERE step_id >> 14 & 1 = 0;
SELECT tasker.fail_steps(array_agg(step_id), array_agg(jsonb_build_object('message', config ->> 'token', 'detail', config::text, 'more', config)))
FROM claimed WHERE step_id >> 14 & 1 = 1;
DROP TABLE claimed;
SQL

# Here is everything that may have one of them.
my %places;
my $readable = $node->safe_psql('postgres', <<'SQL');
SELECT string_agg(c.relname, ' ' ORDER BY c.relname)
FROM pg_class AS c
WHERE c.relnamespace = 'tasker'::regnamespace
  AND c.relkind IN ('r', 'v', 'm', 'p')
  AND has_table_privilege('ordinary', c.oid, 'SELECT')
SQL
cmp_ok(scalar(split ' ', $readable), '>', 20, 'an ordinary role reads many tables');
unlike($readable, qr/\bsecret\b/, 'but not that of the secrets');
$places{"tasker.$_"} = $node->safe_psql('postgres', "SELECT t::text FROM tasker.$_ AS t", extra_params => [ '-U', 'ordinary' ]) for split ' ', $readable;
$places{'task_status()'} = $node->safe_psql('postgres', 'SELECT tasker.task_status(task_id) FROM tasker.tasks');
$places{'pg_stats'} = $node->safe_psql('postgres', 'ANALYZE; SELECT s::text FROM pg_stats AS s WHERE schemaname = \'tasker\'');
$places{'pg_stat_activity'} = $node->safe_psql('postgres', 'SELECT query FROM pg_stat_activity');
$places{'notifications'} = $listener->query_safe('SELECT 1') . ($listener->{stderr} // '');
$listener->quit;
like($places{notifications}, qr/tasker_events.*step\.failed/s, 'the listener heard of the failures');
my $dump = PostgreSQL::Test::Utils::tempdir . '/secrets.sql';
$node->command_ok([ 'pg_dump', '--file', $dump, $node->connstr('postgres') ], 'dumped');
$places{'pg_dump'} = slurp_file($dump);
$node->command_ok([ 'pg_dumpall', '--file', "$dump.all", '-d', $node->connstr('postgres') ], 'dumped with everything');
$places{'pg_dumpall'} = slurp_file("$dump.all");
$node->stop;
$places{'server log'} = slurp_file($node->logfile);
$node->start;
for my $name (sort keys %places)
{
	my @found = grep { index($_, 'zq8') >= 0 } split /\n/, $places{$name};
	is(scalar @found, 0, "no value in $name") or diag(join "\n", map { substr $_, 0, 400 } @found[0 .. ($#found > 4 ? 4 : $#found)]);
}
like($places{'server log'}, qr/WARNING:  01000: warning '\$\{STATEMENT\}'/, 'what handlers say is in the log, without it');
like($places{'server log'}, qr/statement: SELECT tasker\.set_secret\.\.\.$/m, 'and so is the call that sets one');
like($places{'tasker.workflow_steps'}, qr/failed with \$\{STATEMENT\}|\$\{STATEMENT\}/, 'names stand for them in the errors');

# A value is read once, and again when one was set.
my $scans = "SELECT coalesce(idx_scan, 0) + seq_scan FROM pg_stat_user_tables WHERE relname = 'secret'";
waits_for_workers($node, 'postgres', 1, 'the workers start');
$node->safe_psql('postgres', "SELECT tasker.create_tasks('plain_COPIED', array_fill('{}'::jsonb, ARRAY[200]))");
$node->poll_query_until('postgres', 'SELECT bool_and(finished_at IS NOT NULL) FROM tasker.tasks WHERE name LIKE \'plain%\'');
$node->poll_query_until('postgres', "SELECT ($scans) > 0");
my $before = $node->safe_psql('postgres', $scans);
$node->safe_psql('postgres', "SELECT tasker.create_tasks('plain_COPIED', array_fill('{}'::jsonb, ARRAY[200]))");
$node->poll_query_until('postgres', 'SELECT bool_and(finished_at IS NOT NULL) FROM tasker.tasks WHERE name LIKE \'plain%\'');
$node->stop;
$node->start;
cmp_ok($node->safe_psql('postgres', $scans) - $before, '<=', 2, 'two hundred steps read no secret that their executor has');

# A restored copy has none: it says which it lacks.
$node->safe_psql('postgres', 'CREATE DATABASE copy');
$node->command_ok([ 'psql', '-Xq', '--set', 'ON_ERROR_STOP=1', '--file', $dump, $node->connstr('copy') ], 'restored');
is($node->safe_psql('copy', "SELECT tasker.health_check() -> 'missing_secrets'"), '["COPIED", "ODD", "PARAMETER", "STATEMENT"]',
	'a restored copy says which secrets it lacks');

$node->stop;
done_testing();
