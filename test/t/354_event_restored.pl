# Restored databases: subscribers go on where they stood in the dump.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskerTest;
use Test::More;

my $node = new_server('event_origin', '');
my $other = new_server('event_other', '');
my $archive = $node->basedir . '/dump.custom';
my @subscribers = ('everything', 'completed', 'filtered', 'shared');

# Everything that a subscriber gets until there is no more, in the table got.
sub drain
{
	my ($server, $database) = @_;

	$server->safe_psql($database, "CALL drain('$_')") foreach @subscribers;
	return;
}

# The events of the dump that a subscriber got, in the order in which they came.
sub got
{
	my ($server, $database, $who) = @_;

	return $server->safe_psql($database,
		"SELECT string_agg(event_id::text, ' ' ORDER BY n) FROM got JOIN dumped USING (event_id) WHERE who = '$who'");
}

# The original: events that were fetched, in part of a tick, some that are in a
# consumer's hands, some at which a handler failed, and some that nobody was told
# of yet.
$node->safe_psql('postgres', 'CREATE DATABASE original');
install_tasker($node, 'original');
waits_for_workers($node, 'original', 2, 'workers');
$node->safe_psql('original', <<'SQL');
CREATE TABLE got (who text, n bigint GENERATED ALWAYS AS IDENTITY, event_id bigint, name text, task_id bigint);
CREATE TABLE handled (event_id bigint, task_id bigint);
CREATE PROCEDURE drain(who text)
LANGUAGE plpgsql AS $$
DECLARE
    last bigint;
BEGIN
    LOOP
        WITH fetched AS MATERIALIZED (
            SELECT f.*
            FROM tasker.fetch_events(who, 7, 'a') WITH ORDINALITY AS f (event_id, occurred_at, name, task_id, step_id, payload, place)
        ), kept AS (
            INSERT INTO got (who, event_id, name, task_id)
            SELECT drain.who, f.event_id, f.name, f.task_id
            FROM fetched AS f
            ORDER BY f.place
        )
        SELECT (array_agg(f.event_id ORDER BY f.place DESC))[1]
        INTO last
        FROM fetched AS f;
        EXIT WHEN last IS NULL;
        PERFORM tasker.ack_events(who, last, 'a');
        COMMIT;
    END LOOP;
END;
$$;
CREATE FUNCTION handle(event tasker.event) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF event.payload ? 'refused' THEN
        PERFORM tasker.permanent_error('no');
    END IF;
    INSERT INTO public.handled (event_id, task_id)
    VALUES (event.event_id, event.task_id);
END $$;
SELECT tasker.register_event('test_restored.happened', 'For this test.');
SELECT tasker.subscribe('everything', '{*}');
SELECT tasker.subscribe('completed', '{task.completed}');
SELECT tasker.subscribe('filtered', '{step.*,test_restored.*}', filter => '{"initiator": "wanted"}');
SELECT tasker.subscribe('shared', '{test_restored.*}');
SELECT tasker.subscribe('handled', '{test_restored.*,task.completed}', handler => 'handle');
SELECT count(tasker.create_task('quick', initiator => CASE n % 2 WHEN 0 THEN 'wanted' END)) FROM generate_series(1, 20) AS n;
SELECT count(tasker.publish_event('test_restored.happened', '{}', task_id => n)) FROM generate_series(1, 10) AS n;
SELECT tasker.publish_event('test_restored.happened', '{"refused": true}', task_id => 20);
SQL
wait_until($node, 'original', "SELECT count(*) = 0 FROM tasker.tasks WHERE state <> 'complete'", 'tasks');
wait_until($node, 'original', 'SELECT count(*) = 1 FROM tasker.dead_events', 'a dead event');
wait_until($node, 'original', 'SELECT count(*) = 30 FROM handled', 'a handler has the others');
for my $who ('everything', 'completed', 'filtered')
{
	$node->safe_psql('original', "SELECT tasker.ack_events('$who', event_id, 'a') FROM (SELECT * FROM tasker.fetch_events('$who', 5, 'a') WITH ORDINALITY AS f (event_id, a, name, task_id, b, c, place)) AS f WHERE place = 5");
}
my $in_hand = "SELECT string_agg(event_id::text, ' ' ORDER BY place) FROM tasker.fetch_events('shared', 4, 'a') WITH ORDINALITY AS f (event_id, a, name, task_id, b, c, place)";
my $hand = $node->safe_psql('original', $in_hand);
is(scalar(() = $hand =~ /\d+/g), 4, 'a consumer has four events in hand');
$node->safe_psql('original', 'SELECT tasker.deactivate()');
wait_until($node, 'original', "SELECT tasker.health_check() #>> '{engine,state}' = 'stopped'", 'then the engine stops');
$node->safe_psql('original', <<'SQL');
SELECT tasker._wait_for_round();
SELECT count(tasker.create_task('quick', initiator => 'wanted')) FROM generate_series(1, 3);
SELECT tasker.publish_event('test_restored.happened', '{}');
CREATE TABLE dumped AS
SELECT transition_id AS event_id FROM tasker.transitions
UNION ALL
SELECT event_id FROM tasker.published_event;
CREATE TABLE untold AS
SELECT event_id FROM dumped WHERE event_id NOT IN (SELECT event_id FROM tasker._tick_event);
SQL
is($node->safe_psql('original', 'SELECT count(*) FROM untold'), '4', 'some events are in no tick');
$node->command_ok([ 'pg_dump', '-Fc', '-f', $archive, 'original' ], 'dump');

my %expected;

# What comes of it: in the original, beside it, and on a server whose transactions
# are far behind.
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$other->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'pg_restore', '-e', '-d', 'restored', $archive ], 'restored beside it');
$other->command_ok([ 'pg_restore', '-e', '-d', 'restored', '-h', $other->host, '-p', $other->port, $archive ], 'restored on another server');
for my $case ([ $node, 'original', 'original' ], [ $node, 'restored', 'restored beside it' ], [ $other, 'restored', 'restored elsewhere' ])
{
	my ($server, $database, $where) = @$case;

	is($server->safe_psql($database, "SELECT string_agg(status, ',') FROM tasker.subscribers WHERE subscriber IN ('everything', 'completed', 'filtered')"),
		'behind,behind,behind', "$where: subscribers are behind");
	$server->safe_psql($database, 'SELECT tasker.activate()');
	wait_until($server, $database, "SELECT count(*) = 0 FROM tasker.tasks WHERE state <> 'complete'", "$where: activated, it runs its tasks");
	$server->safe_psql($database, 'SELECT tasker._wait_for_round()');
	is($server->safe_psql($database, $in_hand), $hand, "$where: what was in hand comes again");
	drain($server, $database);
	for my $who (@subscribers)
	{
		$expected{$who} //= got($server, $database, $who);
		is(got($server, $database, $who), $expected{$who}, "$where: $who goes on where it stood");
	}
	is($server->safe_psql($database, "SELECT count(*) FROM untold LEFT JOIN (SELECT * FROM got WHERE who = 'everything') AS g USING (event_id) WHERE g.event_id IS NULL"),
		'0', "$where: what nobody was told of in the dump is told");
	is($server->safe_psql($database, "SELECT count(DISTINCT task_id) FROM got WHERE who = 'completed'"), '18', "$where: what ends now is told");
	is($server->safe_psql($database, "SELECT count(*) - count(DISTINCT (who, event_id)) FROM got"), '0', "$where: nothing comes twice");
	wait_until($server, $database, 'SELECT count(*) = 34 FROM handled', "$where: the handler gets the rest");
	is($server->safe_psql($database, 'SELECT count(DISTINCT event_id) FROM handled'), '34', "$where: each once");
	is($server->safe_psql($database, "SELECT payload ->> 'refused' FROM tasker.dead_events"), 'true', "$where: the dead event is there");
	$server->safe_psql($database, "SELECT tasker.replay_events('everything', since => '-infinity'); TRUNCATE got");
	drain($server, $database);
	is($server->safe_psql($database, "SELECT count(*) FROM got JOIN dumped USING (event_id) WHERE who = 'everything'"),
		$server->safe_psql($database, 'SELECT count(*) FROM dumped'), "$where: a replay has all of it");
}

done_testing();
