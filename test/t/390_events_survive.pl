# Events outlive whatever happens to writers, readers and servers: each is told at
# least once, none again that was acknowledged, in order within its task; and
# nobody's open transaction holds up the others'.
#
# TASKER_SEED repeats the random choices of a run.
use strict;
use warnings;

use FindBin;
use IPC::Run;
use lib $FindBin::RealBin;
use List::Util qw(shuffle);

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskerTest;
use Test::More;
use Time::HiRes qw(time usleep);

my $seed = $ENV{TASKER_SEED} // int(rand(1 << 31));
srand($seed);
note("TASKER_SEED=$seed");

my $node = new_server('survive', <<'CONF');
track_commit_timestamp = on
tasker.consumer_timeout = '30 min'
CONF
install_tasker($node, 'postgres');
$node->safe_psql('postgres', <<'SQL');
SELECT tasker.register_event('survive.said', 'Somebody said something of a task.');
SQL

# Of one that may be dead.  A server that was started meanwhile has
# inherited the other end of its pipe: without \q it would wait for an end of file that
# never comes.
sub end_session
{
	my ($session) = @_;

	eval { $session->quit };
	return;
}

sub query
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# What a subscriber has been told, as it knows it itself.
my %told;        # event -> how often
my %acked;       # events that it acknowledged, and heard that it worked
my %order;       # task -> its events, in the order in which they first came
my @again;       # events that came although they were acknowledged
my @in_hand;     # events of the last fetch

sub subscribe
{
	%told = %acked = %order = @again = @in_hand = ();
	query("SELECT tasker.subscribe('$_[0]', '{task.*,step.*,survive.*}')");
	return;
}

sub fetch_sql
{
	my ($subscriber, $arguments) = @_;

	return "SELECT event_id, task_id FROM tasker.fetch_events('$subscriber'" . ($arguments // '') . ')';
}

# Takes note of what a fetch returned.
sub hear
{
	my ($rows) = @_;

	@in_hand = ();
	foreach my $row (split /\n/, $rows)
	{
		my ($event, $task) = split /\|/, $row;

		push @in_hand, $event;
		push @again, $event if $acked{$event};
		push @{ $order{$task} }, $event unless $told{$event}++;
	}
	return scalar @in_hand;
}

# Fetches in a session.
sub fetch
{
	my ($session, $subscriber, $arguments) = @_;

	return hear($session->query_safe(fetch_sql($subscriber, $arguments)));
}

# Acknowledges what is in hand, or only the first so many of it.
sub ack
{
	my ($session, $subscriber, $count, $consumer) = @_;

	$count //= @in_hand;
	return if $count == 0;
	$session->query_safe("SELECT tasker.ack_events('$subscriber', $in_hand[$count - 1]" . ($consumer ? ", '$consumer'" : '') . ')');
	$acked{$_} = 1 foreach @in_hand[ 0 .. $count - 1 ];
	return;
}

# Fetches and acknowledges until there is nothing left.
sub drain
{
	my ($session, $subscriber) = @_;

	ack($session, $subscriber) while fetch($session, $subscriber, ', 1000');
	return;
}

# Every event that the tables have was told and acknowledged, and no other, none
# again that had been acknowledged, and those of each task in order.
my $from = 0;    # events before this one are none of the subscriber's
sub all_is_told
{
	my ($name) = @_;
	my %expected;
	my %exists;
	my $rows = query(<<"SQL");
SELECT e.event_id, e.task_id
FROM (
    SELECT m.id AS event_id, m.task_id, m.at FROM tasker._move AS m
    UNION ALL
    SELECT p.event_id, p.task_id, p.occurred_at FROM tasker.published_event AS p WHERE p.name LIKE 'survive.%') AS e
WHERE e.event_id > $from
ORDER BY e.at, e.event_id
SQL
	foreach my $row (split /\n/, $rows)
	{
		my ($event, $task) = split /\|/, $row;

		push @{ $expected{$task} }, $event;
		$exists{$event} = 1;
	}
	cmp_ok(scalar keys %exists, '>', 0, "$name: there are events");
	is_deeply([ grep { !$acked{$_} } sort keys %exists ], [], "$name: each was told and acknowledged");
	is_deeply([ grep { !$exists{$_} } sort keys %told ], [], "$name: nothing was told that is not there");
	is_deeply(\@again, [], "$name: none came again after it was acknowledged");
	is_deeply(\%order, \%expected, "$name: in order within each task");
	note(sprintf '%s: %d events of %d tasks, %d of them told more than once',
		$name, scalar keys %exists, scalar keys %order, scalar grep { $_ > 1 } values %told);
	return;
}

# A new subscriber, and nothing behind it.
sub begin
{
	my ($subscriber) = @_;

	wait_until($node, 'postgres', "SELECT NOT EXISTS (SELECT FROM tasker.queue WHERE lane < 100)", "$subscriber: nothing runs");
	$from = query("SELECT max(m.id) FROM tasker._move AS m");
	$from = query("SELECT greatest($from, (SELECT max(p.event_id) FROM tasker.published_event AS p))");
	subscribe($subscriber);
	return;
}

sub say
{
	my ($task, $count) = @_;

	return "SELECT tasker.publish_event('survive.said', '{}', $task) FROM generate_series(1, $count)";
}

# 1. Eight sessions that commit, or roll back, in an order of their own, and a
# subscriber that fetches at any time.  A task's events come from many sessions,
# one after the other.
query("SELECT tasker.create_task('quick')");
query("SELECT tasker.wait_for_task(1)");
my @tasks = split /\n/, query("SELECT tasker.create_task('outside') FROM generate_series(1, 12)");
begin('mixed');
my @writers = map { { session => session($node, 'postgres') } } 1 .. 8;
my $reader = session($node, 'postgres');
my %busy;
my $overtaken = 0;

sub write_something
{
	my ($writer) = @_;
	my ($task) = shuffle(grep { !$busy{$_} } @tasks);

	$writer->{session}->query_safe('BEGIN') unless $writer->{tasks};
	push @{ $writer->{tasks} }, $task;
	$busy{$task} = 1;
	$writer->{session}->query_safe(say($task, 1 + int(rand(3))));
	$writer->{session}->query_safe("SELECT tasker.create_task('quick')") if rand() < 0.3;
	return;
}

sub end_it
{
	my ($writer) = @_;

	$writer->{session}->query_safe(rand() < 0.2 ? 'ROLLBACK' : 'COMMIT');
	delete @busy{ @{ $writer->{tasks} } };
	delete $writer->{tasks};
	return;
}

foreach my $move (1 .. 120)
{
	my ($writer) = shuffle(@writers);
	my $open = grep { $_->{tasks} } @writers;

	if ($writer->{tasks} && (rand() < 0.6 || keys %busy == @tasks))
	{
		end_it($writer);
		$overtaken++ if $open > 1;
	}
	elsif (keys %busy < @tasks)
	{
		write_something($writer);
	}
	next if rand() < 0.5;
	my $count = fetch($reader, 'mixed', ', ' . (1 + int(rand(20))));
	ack($reader, 'mixed', int(rand($count + 1)));
}
end_it($_) foreach grep { $_->{tasks} } @writers;
wait_until($node, 'postgres', "SELECT NOT EXISTS (SELECT FROM tasker.queue WHERE lane < 100)", 'mixed: all tasks have run');
drain($reader, 'mixed');
cmp_ok($overtaken, '>', 10, 'mixed: transactions ended while others were open');
all_is_told('mixed');
end_session($_->{session}) foreach @writers;

my $observer = session($node, 'postgres');

# Asks until it is true.
sub wait_for
{
	my ($condition) = @_;
	my $until = time + $PostgreSQL::Test::Utils::timeout_default;

	while ($observer->query_safe("SELECT $condition") ne 't')
	{
		die "it is not to be: $condition" if time > $until;
		usleep(10_000);
	}
	return;
}

# Has something said of a task, and waits until it is to be fetched.
sub say_now
{
	$observer->query_safe(say(@_));
	wait_for('EXISTS (SELECT FROM tasker.tick AS t WHERE t.ids @> (SELECT max(p.event_id) FROM tasker.published_event AS p))');
	return;
}

# What is behind within a tick: a subscriber to everything, and one to a part of it.
query("SELECT tasker.subscribe('everything', '{*}'); SELECT tasker.subscribe('part', '{survive.*}')");
drain($reader, $_) foreach 'everything', 'part';
say_now($tasks[0], 10);
sub behind
{
	my ($lag, $name) = @_;

	is(query("SELECT string_agg(format('%s %s', s.lag_events, s.status), ', ' ORDER BY s.subscriber) FROM tasker.subscribers AS s WHERE s.subscriber IN ('everything', 'part')"),
		$lag, $name);
	return;
}
fetch($reader, $_, ', 4') && ack($reader, $_) foreach 'everything', 'part';
behind('6 behind, 6 behind', 'of a tick of ten events four were fetched');
fetch($reader, $_, ', 6') && ack($reader, $_) foreach 'everything', 'part';
behind('0 current, 0 current', 'and then the others');
my $between = query('SELECT tasker.clock()');
say_now($tasks[0], 1);
behind('1 behind, 1 behind', 'another one comes');
is(query("SELECT count(*) FROM tasker.subscribers AS s WHERE s.subscriber IN ('everything', 'part') AND s.lag < tasker.clock() - '$between'"), '2',
	'lag is how old that one is');
query("SELECT tasker.unsubscribe('everything'); SELECT tasker.unsubscribe('part')");

# 2. A subscriber is killed at every point.  What it had not acknowledged comes
# again, to whoever fetches next under its name.
my $killer = session($node, 'postgres');
my $next = session($node, 'postgres');

sub wait_for_end
{
	my ($pid) = @_;

	wait_for("NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $pid)");
	return;
}

# Sends a query and does not wait for its end, but until the backend does so.
sub send_query
{
	my ($session, $pid, $sql, $activity) = @_;

	$session->query_until(qr/sent/, "\\echo sent\n$sql;\n");
	wait_for("EXISTS (SELECT FROM pg_stat_activity WHERE pid = $pid AND $activity)");
	return;
}

my %kill = (
	'backend' => sub {
		my ($session, $pid) = @_;
		$observer->query_safe("SELECT pg_terminate_backend($pid)");
		wait_for_end($pid);
	},
	# The backend may be at work and not notice: what it does then counts.
	'client' => sub {
		my ($session, $pid) = @_;
		kill 'KILL', $session->{run}->{KIDS}[0]{PID};
	},
);
my $waits = "wait_event_type = 'Extension'";
$waits = "wait_event = 'TaskerEvents'" if $node->pg_version >= 17;

# Each point: what the victim does, until it is there.
my %point = (
	'1, waiting for events' => sub {
		my ($victim, $pid) = @_;
		drain($victim, 'killed');
		send_query($victim, $pid, fetch_sql('killed', ", wait => '1 h'"), $waits);
	},
	'2, waiting for another that fetches' => sub {
		my ($victim, $pid) = @_;
		$killer->query_safe('BEGIN; ' . fetch_sql('killed', ', 1'));
		send_query($victim, $pid, fetch_sql('killed'), "wait_event_type = 'Lock'");
	},
	'3, fetched and not committed' => sub {
		my ($victim) = @_;
		$victim->query_safe('BEGIN');
		is(fetch($victim, 'killed'), 5, 'five events were fetched');
	},
	'4, fetched and not acknowledged' => sub {
		my ($victim) = @_;
		is(fetch($victim, 'killed'), 5, 'five events were fetched');
	},
	'5, acknowledged and not committed' => sub {
		my ($victim) = @_;
		is(fetch($victim, 'killed'), 5, 'five events were fetched');
		$victim->query_safe("BEGIN; SELECT tasker.ack_events('killed', $in_hand[3])");
	},
	'6, fetched and acknowledged in a transaction that is not committed' => sub {
		my ($victim) = @_;
		$victim->query_safe('BEGIN');
		fetch($victim, 'killed');
		$victim->query_safe("SELECT tasker.ack_events('killed', $in_hand[3])");
	},
	'7, acknowledged in part' => sub {
		my ($victim) = @_;
		fetch($victim, 'killed');
		ack($victim, 'killed', 2);
	},
	'8, acknowledged' => sub {
		my ($victim) = @_;
		fetch($victim, 'killed');
		ack($victim, 'killed');
	},
);
# How many of five events come to the next one.
my %left = (7 => 3, 8 => 0);

begin('killed');
foreach my $point (sort keys %point)
{
	foreach my $what (sort keys %kill)
	{
		my $victim = session($node, 'postgres', on_error_stop => 0);
		my $pid = $victim->query_safe('SELECT pg_backend_pid()');

		say_now($tasks[0], 5) if $point !~ /^1/;
		$point{$point}->($victim, $pid);
		$kill{$what}->($victim, $pid);
		say_now($tasks[0], 5) if $point =~ /^1/;
		$killer->query_safe('ROLLBACK') if $point =~ /^2/;
		wait_for_end($pid);
		end_session($victim);
		is(fetch($next, 'killed'), $left{ substr($point, 0, 1) } // 5, "$what killed at point $point: what it had not acknowledged comes again");
		ack($next, 'killed');
		drain($next, 'killed');
	}
}
all_is_told('killed');

# The same with consumers: what one had in hand goes to another after
# tasker.consumer_timeout, and not before, and ahead of what is newer.
begin('shared');
my $hours = 0;
foreach my $point ('fetched', 'fetched and not committed')
{
	foreach my $what (sort keys %kill)
	{
		my $victim = session($node, 'postgres', on_error_stop => 0);
		my $pid = $victim->query_safe('SELECT pg_backend_pid()');
		my $kept = $point eq 'fetched';

		$_->query_safe("SET tasker.clock_offset = $hours") foreach $victim, $next;
		say_now($tasks[1], 3);
		$victim->query_safe('BEGIN') unless $kept;
		is(fetch($victim, 'shared', ", consumer => 'one'"), 3, "one consumer fetches, $point");
		$kill{$what}->($victim, $pid);
		wait_for_end($pid);
		end_session($victim);
		say_now($tasks[1], 2);
		if ($kept)
		{
			is(fetch($next, 'shared', ", consumer => 'two'"), 0, "$what killed: another gets nothing of that task at first");
			$hours += 3600;
			$next->query_safe("SET tasker.clock_offset = $hours");
		}
		is(fetch($next, 'shared', ", consumer => 'two'"), 5, "$what killed, $point: " . ($kept ? 'after the timeout all of it' : 'all of it at once'));
		$node->psql('postgres', "SELECT tasker.ack_events('shared', $in_hand[0], 'one')", stderr => \my $refused);
		like($refused, qr/is not in the hands of consumer "one"/, 'the first cannot acknowledge it any more');
		ack($next, 'shared', undef, 'two');
	}
}
all_is_told('shared');
end_session($_) foreach $killer, $next;

# 3. Strangers with transactions that have written stay open, here and in another
# database: events come as fast as ever.
query('CREATE DATABASE other');
my @strangers = map { session($node, $_) } 'postgres', 'other';
$_->query_safe('BEGIN; CREATE TABLE open_for_long (); SELECT pg_current_xact_id()') foreach @strangers;
begin('fast');
my $writer = session($node, 'postgres');
my $reader_pid = $reader->query_safe('SELECT pg_backend_pid()');
my @latency;
foreach my $round (1 .. 20)
{
	# The commit comes while the subscriber waits.
	send_query($reader, $reader_pid, <<"SQL", $waits);
SELECT 'told', e.event_id, e.task_id,
       extract(epoch FROM clock_timestamp() - pg_xact_commit_timestamp((e.event_id >> 20)::text::xid)) * 1000
FROM tasker.fetch_events('fast', wait => '10 min') AS e
SQL
	$writer->query_safe(say($tasks[2], 1));
	my ($event, $task, $took) = $reader->query_until(qr/told\|.*\n/, '') =~ /told\|(\d+)\|(\d+)\|([\d.]+)/;
	hear("$event|$task");
	ack($reader, 'fast');
	push @latency, $took;
}
all_is_told('fast');
is($_->query_safe('SELECT pg_current_xact_id_if_assigned() IS NOT NULL'), 't', 'a stranger is still at it') foreach @strangers;
@latency = sort { $a <=> $b } @latency;
note(sprintf 'from commit to fetch_events(): median %.1f ms, max %.1f ms', $latency[ @latency / 2 ], $latency[-1]);
end_session($_) foreach @strangers, $writer, $reader, $observer;

# 4. The server crashes, while events are written and read.  One subscriber
# acknowledges what it has handled; what the other one does is in the transaction
# of its acknowledgement, so that is done once.
query(<<'SQL');
CREATE TABLE public.done (event_id bigint);
CREATE PROCEDURE public.work(subscriber text)
LANGUAGE plpgsql AS $$
DECLARE
    fetched bigint[];
BEGIN
    LOOP
        fetched := ARRAY(SELECT e.event_id FROM tasker.fetch_events(subscriber, 50, wait => '1 s') AS e);
        INSERT INTO public.done SELECT unnest(fetched);
        IF fetched <> '{}' THEN
            PERFORM tasker.ack_events(subscriber, fetched[cardinality(fetched)]);
        END IF;
        COMMIT;
    END LOOP;
END $$;
SQL
my $load = $node->basedir . '/load.sql';
append_to_file($load, <<"SQL");
SELECT tasker.create_task('quick');
BEGIN;
SELECT tasker.publish_event('survive.said', '{}', (ARRAY[@{[ join ', ', @tasks ]}])[1 + :client_id]);
COMMIT;
SQL

sub work_in_place
{
	return [ 'psql', '-XAtq', '-d', $node->connstr('postgres') . ' application_name=in_place', '-c', "CALL public.work('in_place')" ];
}

# Writers, and that subscriber, in the background; they end with the server.
sub start_load
{
	my @commands = ([ 'pgbench', '-n', '-c', 4, '-R', 60, '-T', 600, '-f', $load, $node->connstr('postgres') . ' application_name=writer' ],
		work_in_place());

	return map { IPC::Run::start($_, '>', \my $out, '2>', \my $err) } @commands;
}

# Some rounds of the other one, which goes on with what it has in hand.
sub read_on
{
	my ($subscriber) = @_;
	my $session = session($node, 'postgres', on_error_stop => 0);

	for (1 .. 5)
	{
		my $count = fetch($session, $subscriber, ", 50, wait => '1 min'");
		ack($session, $subscriber, int(rand($count + 1)));
	}
	cmp_ok(fetch($session, $subscriber, ", 50, wait => '1 min'"), '>', 0, 'there is something in hand');
	return $session;
}

sub all_ends
{
	my ($subscriber, $name) = @_;
	my $session = session($node, 'postgres');

	wait_until($node, 'postgres', "SELECT NOT EXISTS (SELECT FROM tasker.queue WHERE lane < 100)", "$name: all tasks run");
	drain($session, $subscriber);
	all_is_told($name);
	end_session($session);
	return;
}

# What was done in the transaction of the acknowledgement.
sub all_is_done
{
	my ($name) = @_;
	my $worker = IPC::Run::start(work_in_place(), '2>', \my $err);

	wait_until($node, 'postgres', "SELECT count(DISTINCT event_id) = @{[ scalar keys %told ]} FROM public.done", "$name: everything is done");
	is(query('SELECT count(*) - count(DISTINCT event_id) FROM public.done'), '0', "$name: once");
	query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'in_place'");
	$worker->finish;
	is(query('SELECT count(*) FROM tasker.verify()'), '0', "$name: verify() finds nothing");
	return;
}

sub crash
{
	my ($who) = @_;

	if ($who eq 'server')
	{
		$node->stop('immediate');
		$node->start;
		return;
	}
	my $log = -s $node->logfile;
	my $is_victim = {
		writer => "application_name = 'writer'",
		subscriber => "application_name = 'in_place'",
		notifier => "backend_type = 'tasker notifier' AND datname = 'postgres'",
	}->{$who};
	$node->poll_query_until('postgres', "SELECT count(*) > 0 FROM pg_stat_activity WHERE $is_victim") or die "there is no $who";
	kill 'KILL', query("SELECT pid FROM pg_stat_activity WHERE $is_victim LIMIT 1");
	$node->wait_for_log(qr/all server processes terminated; reinitializing/, $log);
	$node->poll_query_until('postgres', 'SELECT true') or die 'the server does not come back';
	return;
}

begin('crash');
query("SELECT tasker.subscribe('in_place', '{task.*,step.*,survive.*}')");
foreach my $who ('writer', 'subscriber', 'notifier', 'server')
{
	my @load = start_load();
	my $session = read_on('crash');

	crash($who);
	end_session($session);
	$_->finish foreach @load;
}
all_ends('crash', 'crashes');
all_is_done('crashes');

# 5. A standby takes over, in the middle of it.  What was replicated of
# acknowledgements counts; the session that was connected to it before goes on.
my $primary = $node;
my $standby = PostgreSQL::Test::Cluster->new('standby');
$primary->backup('copy');
$standby->init_from_backup($primary, 'copy', has_streaming => 1);
$standby->start;
begin('promoted');
query('TRUNCATE public.done');
query("SELECT tasker.replay_events('in_place', 'infinity')");

my @load = start_load();
my $session = read_on('promoted');
my $holder = session($node, 'postgres', on_error_stop => 0);
$holder->query_safe('BEGIN; ' . say($tasks[3], 1));
$primary->wait_for_catchup($standby);
$node = $standby;
my $early = session($node, 'postgres');
is($early->query_safe('SELECT pg_is_in_recovery()'), 't', 'a session of the standby');
$primary->stop('immediate');
end_session($_) foreach $session, $holder;
$_->finish foreach @load;
$standby->promote;

# At once, when there may be no process of the engine yet.
cmp_ok(fetch($early, 'promoted', ", 50, wait => '5 min'"), '>', 0, 'the subscriber goes on where the standby was promoted');
ack($early, 'promoted');
my $new = $early->query_safe("SELECT tasker.create_task('quick')");
is($early->query_safe("SELECT tasker.wait_for_task($new, '5 min')"), 'complete', 'a new task runs there');
drain($early, 'promoted');
is(scalar @{ $order{$new} // [] }, 5, 'and its events come');
@load = start_load();
end_session($_) foreach read_on('promoted'), $early;
query("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name IN ('writer', 'in_place')");
$_->finish foreach @load;
all_ends('promoted', 'promotion');
all_is_done('promotion');

# Without the library in the server there is nobody to wait for: who waits sleeps all
# the same, and does not try again and again, each time with a transaction id.
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->restart;
my $next_xid = "SELECT pg_snapshot_xmax(pg_current_snapshot())";
my $xid = query($next_xid);
is(query("SELECT count(*) FROM tasker.fetch_events('promoted', wait => '1 s')"), '0', 'without the engine no event comes');
cmp_ok(query($next_xid) - $xid, '<', 200, 'and waiting for one costs next to nothing');
$node->stop;

done_testing();
