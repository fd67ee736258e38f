# Logical decoding: the rows of the log and of published events reach
# test_decoding, wal2json and a subscription of another server, and say what
# tasker.fetch_events() says.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskerTest;
use Test::More;

my $node = new_server('decoding', 'wal_level = logical');
install_tasker($node, 'postgres');
create_handlers($node, 'postgres', moody => <<'SQL', telling => <<'SQL');
    IF step.attempt = 1 THEN
        PERFORM tasker.retryable_error('not in the mood', '0 s');
    END IF;
    RETURN '{}';
SQL
    PERFORM tasker.publish_event('order.fulfilled', '{"pieces": 3, "note": "it''s \"here\""}');
    RETURN '{}';
SQL
$node->safe_psql('postgres', <<'SQL');
SELECT tasker.register_event('order.fulfilled', 'All of it is on its way.');
SELECT tasker.register_task('
name: order
step_templates:
  - {name: first, handler_class: moody}
  - {name: second, handler_class: telling, depends_on_steps: [first]}
  - {name: third, handler_class: outside, depends_on_steps: [first]}');
SQL

# The query of doc/subscribers.md.
my $page = slurp_file("$FindBin::RealBin/../../doc/subscribers.md");
my ($query) = $page =~ /^```sql\n(WITH change AS .*?)^```$/ms;
ok(defined $query, 'doc/subscribers.md has a query that makes events of rows');

# Some minor releases ask which plugins may be used.
if ($node->safe_psql('postgres', "SELECT count(*) FROM pg_settings WHERE name = 'output_plugin_libraries'") eq '1')
{
	$node->safe_psql('postgres', "ALTER SYSTEM SET output_plugin_libraries = 'pgoutput', 'test_decoding', 'wal2json'");
	$node->reload;
	wait_until($node, 'postgres', "SELECT current_setting('output_plugin_libraries') LIKE '%wal2json%'", 'wal2json may be used');
}

# Three who follow the same tasks: two slots and a subscriber.
$node->safe_psql('postgres', <<'SQL');
SELECT pg_create_logical_replication_slot('events', 'wal2json');
SELECT pg_create_logical_replication_slot('text', 'test_decoding');
SELECT tasker.subscribe('reader', ARRAY['task.*', 'step.*', 'order.*']);
SQL

# Another server has a copy of both tables, and nothing else of tasker.
my $copy = PostgreSQL::Test::Cluster->new('copy');
$copy->init;
$copy->start;
foreach my $table (qw(log published_event))
{
	my $columns = $node->safe_psql('postgres', <<"SQL");
SELECT string_agg(format('%I %s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum)
FROM pg_attribute
WHERE attrelid = 'tasker.$table'::regclass
  AND attnum > 0
  AND NOT attisdropped
SQL
	$copy->safe_psql('postgres', "CREATE SCHEMA IF NOT EXISTS tasker; CREATE TABLE tasker.$table ($columns)");
}
$node->safe_psql('postgres', 'CREATE PUBLICATION tasker_events FOR TABLE tasker.log, tasker.published_event');
$copy->safe_psql('postgres', "CREATE SUBSCRIPTION tasker_events CONNECTION '@{[ $node->connstr =~ s,',,gr ]} dbname=postgres' PUBLICATION tasker_events WITH (copy_data = false)");
$copy->wait_for_subscription_sync($node, 'tasker_events');

# Retries, a worker outside, a cancelled task, one that is rolled back.
$node->safe_psql('postgres', q{SELECT tasker.create_tasks('order', array_fill('{}'::jsonb, ARRAY[20]))});
$node->safe_psql('postgres', q{BEGIN; SELECT tasker.create_task('order'); ROLLBACK});
$node->safe_psql('postgres', q{SELECT tasker.cancel_task(tasker.create_task('outside'), 'nobody wants it')});
wait_until($node, 'postgres', <<'SQL', 'workers outside have something to do');
SELECT count(*) = 20
FROM tasker.workflow_steps
WHERE name = 'second'
  AND state = 'complete'
SQL
$node->safe_psql('postgres', <<'SQL');
SELECT tasker.complete_steps(array_agg(step_id), array_agg('{}'::jsonb), worker => 'somebody')
FROM tasker.claim_steps('somebody', max_steps => 100)
SQL
wait_until($node, 'postgres', "SELECT count(*) = 20 FROM tasker.tasks WHERE state = 'complete'", 'the tasks are complete');

# Fetches until there are none.
my $fetched = '';
while ((my $rows = $node->safe_psql('postgres', <<'SQL')) ne '')
WITH fetched AS MATERIALIZED (
    SELECT *
    FROM tasker.fetch_events('reader', 1000) WITH ORDINALITY AS e (event_id, occurred_at, name, task_id, step_id, payload, place)
), acknowledged AS MATERIALIZED (
    SELECT tasker.ack_events('reader', event_id)
    FROM fetched
    ORDER BY place DESC
    LIMIT 1
)
SELECT f.event_id, f.occurred_at, f.name, f.task_id, f.step_id
FROM fetched AS f
LEFT JOIN acknowledged ON true
ORDER BY f.place
SQL
{
	$fetched .= "$rows\n";
}
my @fetched = split /\n/, $fetched;
cmp_ok(scalar(@fetched), '>', 200, 'there was something to tell');
is(scalar(grep { /\|order\.fulfilled\|/ } @fetched), 20, 'published events among it');

sub sorted
{
	return join "\n", sort @_;
}

# wal2json, and the query of the page.
my @changes = split /\n/, $node->safe_psql('postgres', <<'SQL');
SELECT data
FROM pg_logical_slot_peek_changes('events', NULL, NULL, 'format-version', '2', 'add-tables', 'tasker.log,tasker.published_event')
WHERE data::jsonb ->> 'action' NOT IN ('B', 'C')
SQL
is(scalar(grep { !/^\{"action":"I","schema":"tasker","table":"(?:log|published_event)",/ } @changes), 0, 'wal2json: nothing but new rows');
# The subscriber has not asked for what happens in registries.
my @decoded = grep { !/\|\|$/ } split /\n/, $node->safe_psql('postgres', $query);
is(sorted(@decoded), sorted(@fetched), 'wal2json: the rows are the events that a subscriber gets');

# Both in the order of what happened, task by task.
sub by_task
{
	my %lines;

	push @{ $lines{ (split /\|/)[3] } }, $_ foreach @_;
	return join "\n", map { @{ $lines{$_} } } sort { $a <=> $b } keys %lines;
}
is(by_task(@decoded), by_task(@fetched), 'in the same order within a task');
is($node->safe_psql('postgres', $query), '', 'and once: the slot has moved on');

# test_decoding: the same rows as text.
my $published = 0;
my %codes = map { my ($machine, $code, $name) = split /\|/; ("$machine $code" => $name) }
  split /\n/, $node->safe_psql('postgres', 'SELECT machine, code, name FROM tasker.state_codes');
my (@moves, @others);
foreach my $line (split /\n/, $node->safe_psql('postgres', "SELECT data FROM pg_logical_slot_get_changes('text', NULL, NULL)"))
{
	next unless $line =~ /^table tasker\.(log|published_event): (\w+): (.*)/;
	my ($table, $action, $fields) = ($1, $2, $3);

	push @others, $line if $action ne 'INSERT';
	$published++ if $fields =~ /name\[text\]:'order\.fulfilled'/;
	next if $table ne 'log';
	my %field = $fields =~ /(\w+)\[[^\]]+\]:('(?:[^']|'')*'|\S+)/g;
	my $machine = $field{step_no} == 0 ? 'task' : 'step';
	my $name = sub { $_[0] eq 'null' ? '' : $codes{"$machine $_[0]"} };
	push @moves, join '|', $field{id}, $field{task_id}, $name->($field{to_state});
}
is(scalar(@others), 0, 'test_decoding: nothing but new rows');
is($published, 20, 'test_decoding: the published events');
is(sorted(@moves), sorted(split /\n/, $node->safe_psql('postgres', <<'SQL')), 'test_decoding: the log, with the names of its states');
SELECT t.transition_id, t.task_id, t.to_state
FROM tasker.log AS l
JOIN tasker.transitions AS t ON t.transition_id = l.id
SQL

# The other server has it all.
$node->wait_for_catchup('tasker_events');
foreach my $table (qw(log published_event))
{
	my $rows = "SELECT string_agg(md5(r::text), ',' ORDER BY md5(r::text)) FROM tasker.$table AS r WHERE task_id IS NOT NULL";

	is($copy->safe_psql('postgres', $rows), $node->safe_psql('postgres', $rows), "a publication takes tasker.$table along");
}

$copy->stop;
$node->stop;
done_testing();
