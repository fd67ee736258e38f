# The catalogue of events is complete: each of its events comes about on a server of
# its own, is told by the log with the payload that the catalogue says, and carries
# true times.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskerTest;
use Test::More;

my $node = new_server('event_catalog', '');
my $check = slurp_file("$FindBin::RealBin/../event_check.sql");

sub check
{
	my ($database, $sql) = @_;

	return $node->safe_psql($database, "$check\n$sql");
}

$node->safe_psql('postgres', 'CREATE EXTENSION tasker');
$node->safe_psql('postgres', slurp_file("$FindBin::RealBin/../event_scenario.sql"));
is(check('postgres', 'SELECT name, problem, example FROM pg_temp.event_problems()'), '',
	'every event matches the catalogue');
is(check('postgres', 'SELECT * FROM pg_temp.unseen_events()'), '', 'every event of the catalogue was seen');
is(check('postgres', <<'SQL'), '', 'each field of each event was seen');
SELECT e.name || ' ' || f.field
FROM tasker._system_events() AS e
JOIN tasker._event_fields() AS f ON f.events && ARRAY[e.name, e.category]
WHERE e.alias_of IS NULL
  AND f.field NOT IN ('environment', 'current_execution_duration', 'attempt_number', 'started_at', 'execution_duration')
  AND NOT EXISTS (SELECT FROM pg_temp.all_events() AS a WHERE a.name = e.name AND a.payload ? f.field)
  AND NOT (e.category = 'registry' AND f.field = 'entity_class')
ORDER BY 1
SQL

# What the check finds when the catalogue and the log differ.
is(check('postgres', <<'SQL'), "step.failed|/attempt_number is a string, but must be integer\nstep.failed|colour is not in its schema", 'a wrong payload is found');
BEGIN;
CREATE TEMP TABLE event AS
SELECT name, payload || '{"attempt_number": "one", "colour": 3}' AS payload
FROM pg_temp.all_events() WHERE name = 'step.failed' LIMIT 1;
SELECT e.name, s.instance_path || ' ' || s.message
FROM event AS e
JOIN tasker.event_catalog() AS c USING (name)
CROSS JOIN LATERAL tasker.json_schema_errors(c.payload_schema, e.payload) AS s
UNION ALL
SELECT e.name, k.key || ' is not in its schema'
FROM event AS e
JOIN tasker.event_catalog() AS c USING (name)
CROSS JOIN LATERAL jsonb_object_keys(e.payload) AS k (key)
WHERE NOT (c.payload_schema -> 'properties') ? k.key;
ROLLBACK;
SQL

# Durations are those of the handler, though start and end are different rows, and
# different processes'.
create_handlers($node, 'postgres', nap => "    PERFORM pg_sleep(0.2);\n    RETURN '{}';\n");
$node->safe_psql('postgres', <<'SQL');
SET client_min_messages = error;
SELECT tasker.register_external_handler('outside');
SELECT tasker.register_task('{"name": "durations", "step_templates": [
    {"name": "nap", "handler_class": "nap"},
    {"name": "outside", "handler_class": "outside", "depends_on_step": "nap"}]}');
SELECT tasker.create_task('durations');
SQL
wait_until($node, 'postgres', q(SELECT EXISTS (SELECT FROM tasker.workflow_steps WHERE name = 'nap' AND state = 'complete')), 'it naps');
wait_until($node, 'postgres', q(SELECT count(*) > 0 FROM tasker.claim_steps('me', ARRAY['outside'])), 'a worker takes its other step');
$node->safe_psql('postgres', <<'SQL');
SELECT tasker.complete_step(step_id, '{}', 'me') FROM tasker.workflow_steps WHERE name = 'outside';
SQL
is(check('postgres', <<'SQL'), "step.completed|nap|t|t|t\nstep.completed|outside|t|t|t\ntask.completed||t|t|t", 'durations are true');
SELECT e.name, e.payload ->> 'step_name',
       coalesce((e.payload ->> 'execution_duration')::numeric, (e.payload ->> 'total_execution_duration')::numeric)
       >= CASE e.payload ->> 'step_name' WHEN 'outside' THEN 0.000001 ELSE 0.2 END,
       abs(extract(epoch FROM (e.payload ->> 'completed_at')::timestamptz - (e.payload ->> 'started_at')::timestamptz)
           - coalesce((e.payload ->> 'execution_duration')::numeric, (e.payload ->> 'total_execution_duration')::numeric)) < 0.0000011,
       (e.payload ->> 'started_at')::timestamptz = coalesce(s.started_at, t.started_at)
FROM pg_temp.all_events() AS e
JOIN tasker.tasks AS t ON t.task_id = e.task_id AND t.name = 'durations'
LEFT JOIN tasker.workflow_steps AS s ON s.step_id = e.step_id
WHERE e.name IN ('step.completed', 'task.completed')
ORDER BY e.name, s.step_id
SQL
is(check('postgres', 'SELECT name, problem, example FROM pg_temp.event_problems()'), '', 'and these match, too');

# By primary keys alone, whatever the statistics say.
my $searches = $node->safe_psql('postgres', <<'SQL');
CREATE TEMP TABLE refs AS SELECT array_agg(id) AS ids FROM tasker.log;
CREATE VIEW pg_temp.searches AS
SELECT sum(seq_scan) AS number
FROM pg_stat_xact_all_tables
WHERE schemaname = 'tasker' AND relname IN ('log', 'task', 'step', 'plan', 'plan_step', 'published_event');
BEGIN;
SELECT number AS before FROM pg_temp.searches \gset
SELECT count(*) > 20 FROM refs CROSS JOIN LATERAL tasker._events(ids, ids);
SELECT number - :before FROM pg_temp.searches;
COMMIT;
SQL
is($searches, "t\n0", 'events are read by keys, without a search');

# The page says what the catalogue does.
my $page = slurp_file("$FindBin::RealBin/../../doc/events.md");
my ($events, $names) = $page =~ /^## Catalogue\n(.*?)^### Other names\n(.*?)^### /ms;
is(join("\n", sort map { /`([^`]+)`/g } $events =~ /^\| (`.*?) \|/mg),
	$node->safe_psql('postgres', 'SELECT name FROM tasker._system_events() WHERE alias_of IS NULL ORDER BY name COLLATE "C"'),
	'doc/events.md has every event');
my @names;
while ($names =~ /^\| (`.*) \| `(.*)` \|$/mg)
{
	my ($some, $event) = ($1, $2);

	push @names, "$_ $event" for $some =~ /`([^`]+)`/g;
}
is(join("\n", sort @names),
	$node->safe_psql('postgres', q(SELECT name || ' ' || alias_of FROM tasker._system_events() WHERE alias_of IS NOT NULL ORDER BY name COLLATE "C")),
	'and every other name');
$node->stop;

done_testing();
