# Ticks: they are joined, cut into parts, and made although nobody can note who
# wants what.  Whatever becomes of them, each subscriber gets the same events in
# the same order.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskerTest;
use Test::More;
use Time::HiRes qw(time usleep);

my $node = new_server('event_ticks', '');
install_tasker($node, 'postgres');
waits_for_workers($node, 'postgres', 2, 'workers');

sub query
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# What a subscriber gets, in parts of so many, until there is no more: left in a
# table, with the order in which it came.
query(<<'SQL');
CREATE TABLE got (who text, n bigint GENERATED ALWAYS AS IDENTITY, event_id bigint, name text, task_id bigint);
CREATE PROCEDURE drain(who text, most integer)
LANGUAGE plpgsql AS $$
DECLARE
    last bigint;
BEGIN
    LOOP
        WITH fetched AS MATERIALIZED (
            SELECT f.*
            FROM tasker.fetch_events(who, most) WITH ORDINALITY AS f (event_id, occurred_at, name, task_id, step_id, payload, place)
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
        PERFORM tasker.ack_events(who, last);
        COMMIT;
    END LOOP;
END;
$$;
CREATE PROCEDURE ticks(count integer)
LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. count LOOP
        PERFORM tasker.publish_event('test_ticks.happened', '{}');
        COMMIT;
        PERFORM tasker._wait_for_round();
        COMMIT;
    END LOOP;
END;
$$;
SELECT tasker.register_event('test_ticks.happened', 'For this test.');
SQL

sub drain
{
	my ($who, $most) = @_;

	query("DELETE FROM got WHERE who = '$who'; CALL drain('$who', $most)");
	return query("SELECT string_agg(event_id::text, ' ' ORDER BY n) FROM got WHERE who = '$who'");
}

sub replay
{
	my ($who, $most) = @_;

	query("SELECT tasker.replay_events('$who', since => '-infinity')");
	return drain($who, $most);
}

# Differences between what one subscriber got and those events of another one's
# that it wants: events, or their order.
sub differs
{
	my ($who, $from, $wanted) = @_;

	return query(<<"SQL");
WITH one AS (
    SELECT event_id, row_number() OVER (ORDER BY n) AS place FROM got WHERE who = '$who'
), other AS (
    SELECT event_id, row_number() OVER (ORDER BY n) AS place FROM got WHERE who = '$from' AND ($wanted)
)
SELECT count(*) FROM one FULL JOIN other USING (event_id, place) WHERE one.event_id IS NULL OR other.event_id IS NULL
SQL
}

# So many events, each in a tick of its own.
sub ticks
{
	my ($count) = @_;

	query("CALL ticks($count)");
	return;
}

# Joined: events of many small ticks, one of a transaction that began long before
# it committed.
query("SELECT tasker.subscribe('$_', '{*}')") foreach 'all', 'middle';
my $late = session($node, 'postgres');
ticks(10);
$late->query_safe('BEGIN');
my $late_id = $late->query_safe("SELECT tasker.publish_event('test_ticks.happened', '{}')");
ticks(10);
$late->query_safe('COMMIT');
$late->quit;
ticks(10);
my $task = query("SELECT tasker.create_task('quick')");
is(query("SELECT tasker.wait_for_task($task)"), 'complete', 'and a task');
drain($_, 1000) foreach 'all', 'middle';

# In the middle: it has fetched the last tick in part.
query("SELECT tasker.publish_event('test_ticks.happened', '{}') FROM generate_series(1, 5)");
query("SELECT tasker._wait_for_round()");
query("SELECT tasker.ack_events('middle', event_id) FROM tasker.fetch_events('middle', 3) ORDER BY event_id DESC LIMIT 1");
my $order = replay('all', 1000);
my @order = split / /, $order;
is(scalar(() = $order =~ /\b$late_id\b/g), 1, 'the late one is told, once');
my ($late_place) = grep { $order[$_] == $late_id } 0 .. $#order;
cmp_ok($order[ $late_place - 1 ], '>', $late_id, 'behind what happened after it and was committed before');
isnt(query("SELECT tick_id FROM tasker.subscriber_cursor JOIN tasker.subscriber USING (subscriber_id) WHERE name = 'middle' AND event_id IS NOT NULL"),
	'', 'one subscriber has fetched a tick in part');

# Not yet: they are younger than a minute.
my $ticks = query('SELECT count(*) FROM tasker.tick');
cmp_ok($ticks, '>=', 31, 'many small ticks');
query('SELECT tasker._join_ticks()');
is(query('SELECT count(*) FROM tasker.tick'), $ticks, 'young ticks stay as they are');
query('SET tasker.clock_offset = 120; SELECT tasker._tidy_events()');
cmp_ok(query('SELECT count(*) FROM tasker.tick'), '<=', 10, 'old ones are joined');
is(drain('middle', 2), "@order[ -2, -1 ]", 'who was in the middle goes on there');
is(replay('all', 1000), $order, 'a replay gives the same events in the same order');
is(replay('middle', 3), $order, 'also in parts');
is(query(<<'SQL'), '', 'and from each event on, what was told from there on');
CREATE FUNCTION told_from(event bigint) RETURNS bigint[]
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM tasker.replay_events('middle', from_event => event);
    RETURN ARRAY(SELECT f.event_id FROM tasker.fetch_events('middle', 1000) WITH ORDINALITY AS f (event_id, a, b, c, d, e, place) ORDER BY f.place);
END $$;
SELECT g.event_id
FROM (SELECT event_id, array_agg(event_id) OVER (ORDER BY n ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS told FROM got WHERE who = 'all') AS g
WHERE told_from(g.event_id) <> g.told
SQL
ticks(3);
my @new = split / /, drain('all', 1000);
is(scalar(@new), 3, 'the notifier goes on');
$node->restart;
waits_for_workers($node, 'postgres', 2, 'workers after a restart');
ticks(3);
push @new, split / /, drain('all', 1000);
is(scalar(@new), 6, 'so does another one');
query('SET tasker.clock_offset = 120; SELECT tasker._join_ticks()');
is(replay('all', 7), "@order @new", 'joined again, the same order');

# More than 2,000 at once are told in several ticks: those of one transaction that
# creates tasks or publishes, and those of a batch of an executor.
query(q(SELECT tasker.subscribe('completed', '{task.completed}')));
query(q(SELECT tasker.subscribe('filtered', '{step.*,test_ticks.happened}', filter => '{"initiator": "one of three"}')));
drain($_, 10000) foreach 'all', 'completed', 'filtered';
query(<<'SQL');
SELECT count(*) FROM tasker.create_tasks('quick', array_fill('{}'::jsonb, ARRAY[2500]));
SELECT count(tasker.publish_event('test_ticks.happened', '{}')) FROM generate_series(1, 5001);
SELECT count(tasker.create_task('quick', initiator => CASE WHEN n % 3 = 0 THEN 'one of three' END)) FROM generate_series(1, 900) AS n;
SQL
wait_until($node, 'postgres', "SELECT count(*) = 0 FROM tasker.tasks WHERE state <> 'complete'", 'thousands of tasks');
query('SELECT tasker._wait_for_round()');
cmp_ok(query('SELECT count(*) FROM tasker.tick WHERE until_id IS NOT NULL'), '>=', 5, 'more events than one tick may have are cut into parts');
drain($_, 100) foreach 'completed', 'filtered', 'all';
is(query(<<"SQL"), '0', 'fetched by the hundred, each event comes once, and none is missing');
WITH happened AS (
    SELECT transition_id AS event_id FROM tasker.transitions WHERE task_id <> $task
    UNION ALL
    SELECT event_id FROM tasker.published_event WHERE event_id > $new[-1] AND name = 'test_ticks.happened'
)
SELECT count(*) FROM happened AS h FULL JOIN (SELECT * FROM got WHERE who = 'all' AND name NOT LIKE 'subscriber_registry.%') AS g USING (event_id) WHERE h.event_id IS NULL OR g.event_id IS NULL
SQL
is(query("SELECT count(*) FROM (SELECT DISTINCT event_id FROM got WHERE who = 'all') AS d"), query("SELECT count(*) FROM got WHERE who = 'all'"), 'none twice');
is(query(<<'SQL'), '0', 'in the order of each task');
SELECT count(*)
FROM (SELECT event_id, lag(event_id) OVER (PARTITION BY task_id ORDER BY n) AS before FROM got WHERE who = 'all' AND task_id IS NOT NULL) AS g
JOIN tasker.transitions AS t ON t.transition_id = g.event_id
JOIN tasker.transitions AS b ON b.transition_id = g.before
WHERE (b.occurred_at, b.transition_id) > (t.occurred_at, t.transition_id)
SQL
is(differs('completed', 'all', "name = 'task.completed'"), '0', 'who wants some gets these in the same order');
is(query("SELECT count(*) FROM got WHERE who = 'completed'"), '3400', 'all of them');
is(differs('filtered', 'all', "name LIKE 'step.%' AND task_id IN (SELECT task_id FROM tasker.tasks WHERE initiator = 'one of three')"), '0',
	'so does who has a filter');
is(query("SELECT count(*) FROM got WHERE who = 'filtered'"), '600', 'all of those');

# Replayed, when nothing is noted any more, it is the same.
query("CREATE TABLE first_got AS SELECT * FROM got; SELECT tasker.replay_events(who, from_event => event_id) FROM (SELECT DISTINCT ON (who) * FROM got ORDER BY who, n) AS g");
drain($_, 700) foreach 'completed', 'filtered', 'all';
is(query(<<'SQL'), '0', 'a replay from the first event gives each subscriber the same');
WITH old AS (
    SELECT who, event_id, row_number() OVER (PARTITION BY who ORDER BY n) AS place FROM first_got
), new AS (
    SELECT who, event_id, row_number() OVER (PARTITION BY who ORDER BY n) AS place FROM got
)
SELECT count(*) FROM old FULL JOIN new USING (who, event_id, place) WHERE old.who IS NULL OR new.who IS NULL
SQL

# From any event: the first and the last ones of each tick, and those that have the
# lowest and the highest ids of it.
is(query(<<'SQL'), '', 'a replay from any event begins with it');
CREATE FUNCTION first_from(event bigint) RETURNS bigint
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM tasker.replay_events('all', from_event => event);
    RETURN (SELECT f.event_id FROM tasker.fetch_events('all', 1) AS f);
END $$;
WITH event AS MATERIALIZED (
    SELECT e.event_id,
           row_number() OVER (PARTITION BY e.tick_id ORDER BY e.at, e.event_id) AS place,
           row_number() OVER (PARTITION BY e.tick_id ORDER BY e.event_id) AS id_place,
           count(*) OVER (PARTITION BY e.tick_id) AS size
    FROM tasker._tick_event AS e
)
SELECT e.event_id
FROM event AS e
WHERE (e.place IN (1, 2, e.size) OR e.id_place IN (1, 2, e.size))
  AND first_from(e.event_id) IS DISTINCT FROM e.event_id
SQL

# Who wants what can't be noted: each finds it as it fetches, from the middle of a
# tick on, and nobody misses anything when it can be noted again.
query(<<'SQL');
CREATE TABLE handled (n bigint GENERATED ALWAYS AS IDENTITY, event_id bigint, name text, task_id bigint);
CREATE FUNCTION note(event tasker.event) RETURNS void
LANGUAGE sql AS $$ INSERT INTO handled (event_id, name, task_id) VALUES (event.event_id, event.name, event.task_id) $$;
SELECT tasker.subscribe('handled', '{task.completed,step.completed}', handler => 'note');
SELECT tasker.subscribe('rings', '{task.completed}', channel => 'rings');
SQL
drain($_, 10000) foreach 'all', 'completed', 'filtered';
my $place = query("SELECT max(n) FROM got");
my $listener = session($node, 'postgres');
$listener->query_safe('LISTEN rings');

# Ten tasks that have ended, and a tick that shows it.
my $tasks = 0;
sub ten_tasks
{
	$tasks += 10;
	my $ids = query("SELECT string_agg(tasker.create_task('quick', initiator => 'one of three')::text, ',') FROM generate_series(1, 10)");

	wait_until($node, 'postgres', "SELECT count(*) = 10 FROM tasker.tasks WHERE task_id IN ($ids) AND state = 'complete'", 'ten tasks');
	query('SELECT tasker._wait_for_round()');
	return;
}

# Waits for a notification.
sub rings
{
	my ($name) = @_;
	my $heard = '';
	my $until = time + $PostgreSQL::Test::Utils::timeout_default;

	while ($heard !~ /"rings" with payload/ && time < $until)
	{
		$heard .= $listener->query_safe('SELECT');
		usleep(10_000);
	}
	like($heard, qr/"rings" with payload "\{"events": [1-9]/, $name);
	return;
}

sub matched
{
	return query("SELECT count(*) FROM tasker.subscriber_cursor AS c WHERE c.matched_from IS NOT NULL");
}

# Whose place was held at the moment of a tick is noted for at the next one.
sub is_noted
{
	my ($name) = @_;

	for (1 .. 20)
	{
		ten_tasks();
		last if matched() == 4;
	}
	is(matched(), '4', $name);
	return;
}

is_noted('it is noted what four subscribers want');
rings('a bell for what is noted');
query("SELECT tasker.ack_events('completed', event_id) FROM (SELECT * FROM tasker.fetch_events('completed', 3) WITH ORDINALITY AS f (event_id, a, name, task_id, b, c, place)) AS f WHERE place = 3");
my $log = -s $node->logfile;
my $told = query('SELECT max(t.tick_id) FROM tasker.tick AS t');
query('ALTER TABLE tasker.subscriber_match ADD CONSTRAINT refuses CHECK (false) NOT VALID');
for (1 .. 20)
{
	ten_tasks();
	last if matched() == 0;
}
is(matched(), '0', 'then it can\'t be');
rings('bells go on');
ten_tasks() foreach 1, 2;
# Once more where a place was held at the first of these ticks.
my $said = () = slurp_file($node->logfile, $log) =~ /tasker could not note who wants the events of ticks/g;
cmp_ok($said, '>=', 1, 'the log says so');
cmp_ok($said, '<', query("SELECT count(*) FROM tasker.tick AS t WHERE t.tick_id > $told"), 'but not at each tick');
query("SELECT tasker.ack_events('completed', event_id) FROM (SELECT * FROM tasker.fetch_events('completed', 10) WITH ORDINALITY AS f (event_id, a, name, task_id, b, c, place)) AS f WHERE place = 10");
ten_tasks();
query('ALTER TABLE tasker.subscriber_match DROP CONSTRAINT refuses');
is_noted('it is noted again');
ten_tasks();
drain($_, 7) foreach 'all', 'filtered', 'completed', 'rings';
is(query("SELECT count(DISTINCT event_id) FROM got WHERE who = 'all' AND n > $place AND name IN ('task.completed', 'step.completed')"), 2 * $tasks, 'who gets everything got what happened meanwhile');
is(differs('filtered', 'all', "name LIKE 'step.%'"), '0', 'who has a filter got the same');
is(differs('rings', 'all', "name = 'task.completed'"), '0', 'so did who wants some of it');
is(query("SELECT count(*) FROM got AS a JOIN got AS c USING (event_id) WHERE a.who = 'all' AND c.who = 'completed' AND a.name = 'task.completed'"), $tasks - 13, 'and who had fetched some before got the rest');
is(query("SELECT count(*) FROM got WHERE who = 'completed'"), $tasks - 13, 'and no more');
wait_until($node, 'postgres', "SELECT count(*) >= 2 * $tasks FROM handled", 'so did a handler');
is(query(<<'SQL'), '0', 'each once and in order');
WITH one AS (
    SELECT event_id, row_number() OVER (ORDER BY n) AS place FROM handled
), other AS (
    SELECT event_id, row_number() OVER (ORDER BY n) AS place FROM got WHERE who = 'all' AND name IN ('task.completed', 'step.completed')
)
SELECT count(*) FROM one FULL JOIN other USING (event_id, place) WHERE one.event_id IS NULL OR other.event_id IS NULL
SQL

# Somebody holds the place of a subscriber that was not noted for before: it is
# passed by, and its bell rings all the same.
query("SELECT tasker.replay_events('rings', since => 'infinity')");
my $holder = session($node, 'postgres');
$holder->query_safe("BEGIN; SELECT FROM tasker.subscriber_cursor AS c JOIN tasker.subscriber AS s USING (subscriber_id) WHERE s.name = 'rings' FOR UPDATE");
$listener->query_safe('SELECT');
ten_tasks();
rings('a bell for one whose place is held');
is(query("SELECT matched_from FROM tasker.subscriber_cursor AS c JOIN tasker.subscriber AS s USING (subscriber_id) WHERE s.name = 'rings'"), '', 'it was passed by');
$holder->quit;
is(query("SELECT count(*) FROM tasker.fetch_events('rings')"), '10', 'and finds what it wants');
$listener->quit;

# Who subscribes before it sees the first tick of a database.
$node->safe_psql('postgres', 'CREATE DATABASE fresh');
$node->safe_psql('fresh', q{CREATE EXTENSION tasker});
is($node->safe_psql('fresh', 'SELECT count(*) FROM tasker.tick'), '0', 'a fresh database has no tick');
my $early = session($node, 'fresh');
$early->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
$early->query_safe('SELECT count(*) FROM tasker.tick');
$node->safe_psql('fresh', q{SELECT tasker.register_event('fresh.news', 'Something new.')});
$node->safe_psql('fresh', q{SELECT tasker.publish_event('fresh.news', '{"n": 0}')});
$node->poll_query_until('fresh', 'SELECT count(*) > 0 FROM tasker.tick') or die 'there is no tick';
$early->query_safe(q{SELECT tasker.subscribe('early', '{*}')});
$early->query_safe('COMMIT');
$early->quit;
$node->safe_psql('fresh', q{SELECT tasker.publish_event('fresh.news', '{"n": 1}')});
is($node->safe_psql('fresh', q{SELECT string_agg(payload ->> 'n', ' ') FROM tasker.fetch_events('early', wait => '60 s') WHERE name = 'fresh.news'}),
	'0 1', 'who subscribed before it saw a tick gets all that it did not see');

# Who finds nothing writes nothing; a session's first fetch does not ask whether it may.
is($node->safe_psql('fresh', <<'SQL'), "0\n0\nt", 'a fetch that finds nothing writes nothing');
SELECT tasker.ack_events('early', max(event_id)) FROM tasker.fetch_events('early') \g /dev/null
SELECT count(*) FROM tasker.fetch_events('early');
BEGIN;
SELECT count(*) FROM tasker.fetch_events('early');
SELECT pg_current_xact_id_if_assigned() IS NULL;
COMMIT;
SQL

done_testing();
