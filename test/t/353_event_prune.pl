# tasker.prune_events(): what goes, what stays, and what those get who had not
# fetched it.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskerTest;
use Test::More;

my $node = new_server('event_prune', '');
install_tasker($node, 'postgres');
waits_for_workers($node, 'postgres', 2, 'workers');

# So many days later, as far as this statement knows.
my $days = 0;
sub query
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', sprintf("SET lock_timeout = '60 s'; SET tasker.clock_offset = %d; ", $days * 86400) . $sql);
}

# So many events, each in a tick of its own; returns their ids.
sub publish
{
	my ($count) = @_;

	query("CALL publish($count)");
	return split / /, query("SELECT string_agg(event_id::text, ' ' ORDER BY event_id DESC) FROM (SELECT event_id FROM tasker.published_event ORDER BY event_id DESC LIMIT $count) AS e");
}

# Fetches for a subscriber and acknowledges it; returns the events.
sub fetch
{
	my ($who, $most, $ack) = @_;
	my @ids = split / /, query("SELECT string_agg(event_id::text, ' ' ORDER BY place) FROM tasker.fetch_events('$who', $most) WITH ORDINALITY AS f (event_id, a, b, c, d, e, place)");

	query("SELECT tasker.ack_events('$who', $ids[-1])") if @ids > 0 && ($ack // 1);
	return @ids;
}

sub subscriber
{
	my ($who, $column) = @_;

	return query("SELECT $column FROM tasker.subscribers WHERE subscriber = '$who'");
}

sub fails
{
	my ($sql, $sqlstate, $name) = @_;
	my ($status, undef, $stderr) = $node->psql('postgres', $sql, extra_params => [ '-v', 'VERBOSITY=verbose' ]);

	like($stderr, qr/ERROR:  $sqlstate/, $name);
	return;
}

query(<<'SQL');
CREATE PROCEDURE publish(count integer)
LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. count LOOP
        PERFORM tasker.publish_event('test_prune.happened', '{"n": 1}');
        COMMIT;
        PERFORM tasker._wait_for_round();
        COMMIT;
    END LOOP;
END;
$$;
CREATE FUNCTION refuse(event tasker.event) RETURNS void
LANGUAGE plpgsql AS $$ BEGIN PERFORM tasker.permanent_error('no'); END $$;
SELECT tasker.register_event('test_prune.happened', 'For this test.');
SELECT tasker.register_event('test_prune.rare', 'For this test.');
SQL
query("SELECT tasker.subscribe('$_', '{test_prune.*}')") foreach 'here', 'gone', 'holds', 'held';
query("SELECT tasker.subscribe('rare', '{test_prune.rare}')");
query("SELECT tasker.subscribe('everything', '{*}')");
my @first = reverse publish(10);
query("SELECT tasker.publish_event('test_prune.happened', '{}') FROM generate_series(1, 4); SELECT tasker._wait_for_round()");
my $task = query("SELECT tasker.create_task('quick')");
is(query("SELECT tasker.wait_for_task($task)"), 'complete', 'a task');
query('SELECT tasker._wait_for_round()');
is(query("SELECT tasker.prune_events()"), '0', 'what happens now is kept');
fails("SELECT tasker.prune_events('-1 day')", '22023', 'a time must not be negative');
fails('SELECT tasker.prune_events(NULL)', '22023', 'nor NULL');
fails('CREATE ROLE stranger; SET ROLE stranger; SELECT tasker.prune_events()', '42501', 'not for anybody');

# Two days later all but one have come on; that one has fetched five, and 'rare'
# has nothing to fetch.
is(scalar(fetch('gone', 5)), 5, 'one fetches some of it');
$days = 2;
is(scalar(fetch($_, 100)), 14, "$_ fetches all") foreach 'here', 'holds', 'held';
my $told = scalar(fetch('everything', 1000));
is(scalar(fetch('rare', 100)), 0, 'rare has nothing to fetch');
is(subscriber('rare', "concat(status, ' ', lag_events)"), 'current 0', 'and is not behind');
cmp_ok(query("SELECT tasker.prune_events('1 day')"), '>=', 5, 'what all of them have had goes');
fails("SELECT tasker.replay_events('here', from_event => $first[4])", 'TK007', 'it can\'t be replayed');
query("SELECT tasker.replay_events('here', from_event => $first[5])");
is(join(' ', (fetch('here', 100))[ 0 .. 4 ]), "@first[5 .. 9]", 'what one of them has not had stays');
is(subscriber('gone', 'lost'), '0', 'it has lost nothing');
is(subscriber('everything', "concat(status, ' ', lag_events)"), 'current 0', 'who has come on is behind nothing');
is(query("SELECT tasker.prune_events('1 day')"), '0', 'nothing more goes');
query("SELECT tasker.replay_events('here', since => '-infinity')");
is(scalar(fetch('here', 100)), 9, 'a replay of all gives what is kept');

# Nine days later it is gone for good.  One consumer has something in hand since
# then, one since long ago; a handler gave up at an event.
$days = 0;
my @more = reverse publish(2);
fetch('held', 100, 0);
query("SELECT tasker.subscribe('refuses', '{test_prune.rare}', handler => 'refuse')");
query("SELECT tasker.publish_event('test_prune.rare', '{\"n\": 7}')");
wait_until($node, 'postgres', "SELECT count(*) = 1 FROM tasker.dead_events WHERE subscriber = 'refuses'", 'a dead event');
is(subscriber('rare', "concat(status, ' ', lag_events)"), 'behind 1', 'there is one for the subscriber of rare ones');
my $gone_lag = query(<<'SQL');
SELECT count(*)
FROM tasker._tick_event AS e
JOIN tasker.subscriber_cursor AS c ON e.tick_id > c.tick_id
JOIN tasker.subscriber AS s USING (subscriber_id)
WHERE s.name = 'gone'
  AND (c.event_id IS NULL OR e.tick_id > c.tick_id + 1 OR (e.at, e.event_id) > (c.event_at, c.event_id))
SQL
$days = 9;
is(scalar(fetch('here', 100)), 3, 'others come on');
is(scalar(fetch('holds', 100, 0)), 3, 'one has it in hand');
fetch('everything', 1000);
is(subscriber('gone', 'status'), 'expired', 'one has not come for longer than subscriber_retention');
cmp_ok(query("SELECT tasker.prune_events('1 day')"), '>', 5, 'then that one holds nothing back');
is(query("SELECT count(*) FROM tasker.tick WHERE NOT isempty(ids)"), '1', 'but for the last tick all go');
is(subscriber('gone', 'lost'), $gone_lag - query('SELECT count(*) FROM tasker._tick_event'), 'it is said how many it has lost');
is(subscriber($_, 'lost'), '0', "$_ has lost nothing") foreach 'here', 'everything', 'holds', 'refuses';
is(query("SELECT count(*) FROM tasker.published_event WHERE event_id IN ($more[0], $more[1])"), '2', 'what somebody has in hand stays');
is(scalar(fetch('holds', 100)), 3, 'and comes again');
is(query("SELECT payload ->> 'n' FROM tasker.dead_events WHERE subscriber = 'refuses'"), '7', 'so does what is dead');
is(query("SELECT count(*) > 0 FROM tasker.task_transitions WHERE task_id = $task"), 't', 'and the log');
is(subscriber($_, "concat(status, ' ', lag_events)"), 'current 0', "$_ is behind nothing") foreach 'here', 'everything', 'refuses';

# The others go on with what comes then.
my @new = reverse publish(3);
is(join(' ', fetch('here', 100)), "@new", 'those who are there get what is new');
is(join(' ', (fetch('gone', 100))[ -3 .. -1 ]), "@new", 'so does who comes back');
query("SELECT tasker.replay_events('gone', since => '-infinity')");
is(join(' ', (fetch('gone', 100))[ -3 .. -1 ]), "@new", 'a replay gives what is kept');

# Expired again: what was lost is counted once.
my $lost = subscriber('gone', 'lost');
$days = 0;
@new = reverse publish(4);
$days = 30;
fetch($_, 1000) foreach 'here', 'everything', 'holds', 'held';
query("SELECT tasker.prune_events('1 day')");
is(subscriber('gone', 'lost') - $lost, 3, 'all of it but the last tick is lost to who is gone again');
$lost = subscriber('gone', 'lost');
@new = reverse publish(4);
fetch($_, 1000) foreach 'here', 'everything', 'holds', 'held';
query("SELECT tasker.prune_events('0')");
is(subscriber('gone', 'lost') - $lost, 4, 'and so on');

# In hand since long ago: what is left of it comes.
$days = 60;
query("SELECT tasker.replay_events('held', since => '-infinity')");
$days = 0;
@new = reverse publish(2);
query("DELETE FROM tasker.consumer");
is(scalar(fetch('held', 100, 0)) > 0, 1, 'a consumer has events in hand');
$days = 60;
fetch($_, 1000) foreach 'here', 'everything', 'holds';
publish(1);
query("SELECT tasker.prune_events('0')");
is(query("SELECT count(*) FROM tasker.published_event WHERE event_id = $new[0]"), '0', 'they are pruned');
my @left = fetch('held', 100);
is(scalar(grep { $_ == $new[0] } @left), 0, 'they do not come again');
cmp_ok(scalar(@left), '>=', 1, 'what comes after them does');

# Nobody waits for it.
publish(3);
fetch('here', 100);
my $pruner = session($node, 'postgres');
$pruner->query_safe(sprintf("BEGIN; SET LOCAL tasker.clock_offset = %d; SELECT tasker.prune_events('0')", 90 * 86400));
my @meanwhile = publish(1);
is((fetch('here', 100))[-1], $meanwhile[0], 'what happens meanwhile is told');
is(query("SELECT tasker._tidy_events() IS NOT NULL"), 't', 'the notifier tidies up meanwhile');
$pruner->query_safe('ROLLBACK');
$pruner->quit;

done_testing();
