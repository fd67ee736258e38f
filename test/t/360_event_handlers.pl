# Subscribers' SQL handlers: the deliverer, and what becomes of events that fail.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskerTest;
use Test::More;
use Time::HiRes qw(time usleep);

my $node = new_server('event_handlers', <<'CONF');
tasker.lock_timeout = 0
tasker.subscriber_handler_timeout = 0
tasker.subscriber_max_attempts = 1000
CONF
install_tasker($node, 'postgres');
waits_for_workers($node, 'postgres', 2, 'workers');

sub query
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# Until the query gives t.
sub until_true
{
	my ($sql, $name) = @_;

	wait_until($node, 'postgres', $sql, $name);
	return;
}

sub set_system
{
	my (%settings) = @_;

	query("ALTER SYSTEM SET $_ = '$settings{$_}'") foreach sort keys %settings;
	query('SELECT pg_reload_conf()');
	return;
}

# Moves the engine's clock on: what is due within that time is due now.
my $clock = 0;
sub advance
{
	my ($seconds) = @_;

	$clock += $seconds;
	set_system('tasker.clock_offset' => $clock);
	return;
}

sub deliverer
{
	return query("SELECT pid FROM tasker._workers() WHERE kind = 'deliverer'");
}

sub subscribe
{
	my ($name, $events, $handler) = @_;

	query("SET client_min_messages = error; SELECT tasker.subscribe('$name', '$events', handler => '$handler')");
	return;
}

# Says what the handler is to do with an event of a task, and creates that task.
sub task_that
{
	my ($event, $what) = @_;

	query("INSERT INTO app.todo VALUES ('$event', '$what', '$what')");
	return query("SELECT tasker.create_task('quick', initiator => '$what')");
}

# Waits until an event of that task has failed so often.
sub fails
{
	my ($task, $attempts, $name) = @_;

	until_true("SELECT EXISTS (SELECT FROM app.failed WHERE task_id = $task AND attempts = $attempts)", $name);
	return;
}

# Waits until every event of these tasks has come to the subscriber's table.
sub handled
{
	my ($who, $event, $count, $name) = @_;

	until_true("SELECT count(*) = $count FROM app.got WHERE who = '$who' AND name = '$event'", $name);
	return;
}

# Handlers: each writes down what it gets.  Where it is to fail or to wait is
# told by a table.
query(<<'SQL');
CREATE ROLE alice;
CREATE SCHEMA app;
GRANT USAGE ON SCHEMA app TO alice;
CREATE TABLE app.got (
    n integer GENERATED ALWAYS AS IDENTITY,
    who text,
    event_id bigint,
    name text,
    task_id bigint,
    attempt integer,
    role text DEFAULT current_user,
    path text DEFAULT current_setting('search_path')
);
CREATE TABLE app.todo (name text, initiator text, what text);
-- Each failure as it was: meanwhile there may have been another attempt.
CREATE TABLE app.failed AS SELECT f.* FROM tasker.subscriber_failure AS f WITH NO DATA;
CREATE FUNCTION app.note_failure() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO app.failed SELECT NEW.*;
    RETURN NULL;
END $$;
CREATE TRIGGER note_failure AFTER INSERT OR UPDATE ON tasker.subscriber_failure
FOR EACH ROW WHEN (NEW.attempts > 0) EXECUTE FUNCTION app.note_failure();
GRANT INSERT, SELECT ON app.got, app.todo TO alice;

CREATE FUNCTION app.note(event tasker.event) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    what text := (SELECT t.what FROM app.todo AS t WHERE t.name = event.name AND t.initiator = event.payload ->> 'initiator');
BEGIN
    INSERT INTO app.got (who, event_id, name, task_id, attempt)
    VALUES ('note', event.event_id, event.name, event.task_id, event.attempt);
    CASE
        WHEN what IS NULL THEN NULL;
        WHEN what = 'sleep' THEN PERFORM pg_sleep(600);
        WHEN what = 'lock' THEN PERFORM pg_advisory_xact_lock(7);
        WHEN what = 'fail' THEN RAISE EXCEPTION 'not today' USING DETAIL = 'a detail', ERRCODE = 'ZZ001';
        WHEN what LIKE 'fail %' AND event.attempt <= split_part(what, ' ', 2)::integer THEN RAISE EXCEPTION 'not yet';
        WHEN what = 'permanent' THEN PERFORM tasker.permanent_error('never');
        WHEN what = 'later' THEN PERFORM tasker.retryable_error('later', '1000 s');
        ELSE NULL;
    END CASE;
END $$;
SQL

# The process is there as long as a subscriber has a handler.
is(deliverer(), '', 'no deliverer without a subscriber that has a handler');
query("SELECT tasker.subscribe('fetched', '{task.completed}')");
subscribe('note', '{task.*,step.*}', 'app.note');
until_true("SELECT count(*) = 1 FROM tasker._workers() WHERE kind = 'deliverer'", 'one with the first that has');
is(query("SELECT backend_type FROM pg_stat_activity WHERE pid = (SELECT pid FROM tasker._workers() WHERE kind = 'deliverer')"),
	'tasker deliverer', 'as pg_stat_activity names it');
is(query("SELECT tasker.health_check() ->> 'status'"), 'healthy', 'all is well');

# Events arrive, once and in order.
my $task = query("SELECT tasker.create_task('quick')");
handled('note', 'task.completed', 1, 'the handler gets the events of a task');
is(query("SELECT string_agg(name, ' ' ORDER BY n) FROM app.got WHERE task_id = $task"),
	'task.initialize_requested task.started step.started step.completed task.completed', 'in order');
is(query("SELECT string_agg(DISTINCT format('%s %s', role, attempt), ',') FROM app.got"), 'postgres 1', 'as the role that subscribed');

# Another role, another search_path, and jsonb instead of a record.
$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION app.note_jsonb(event jsonb) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO got (who, event_id, name, task_id, attempt)
    VALUES ('jsonb', (event ->> 'event_id')::bigint, event ->> 'event', (event ->> 'task_id')::bigint, (event ->> 'attempt')::integer);
    IF jsonb_typeof(event -> 'event_id') <> 'string' OR (event ->> 'occurred_at')::timestamptz > clock_timestamp()
       OR (event ->> 'step_id')::bigint >> 14 <> (event ->> 'task_id')::bigint OR event ->> 'step_name' <> 'only' THEN
        RAISE EXCEPTION '%', event;
    END IF;
    RETURN 'ignored';
END $$;
GRANT EXECUTE ON FUNCTION app.note_jsonb(jsonb) TO alice;
SET ROLE alice;
SET search_path = app, pg_temp;
SELECT tasker.subscribe('jsonb', '{step.completed}', handler => 'note_jsonb');
SQL
$task = query("SELECT tasker.create_task('quick')");
handled('jsonb', 'step.completed', 1, 'a handler that takes jsonb');
is(query("SELECT role, path, task_id, attempt FROM app.got WHERE who = 'jsonb'"), "alice|app, pg_temp|$task|1", 'as its role, with its search_path');
query("SELECT tasker.unsubscribe('jsonb')");

# A failure: the rest of its task waits, other tasks go on, order is kept.
query('TRUNCATE app.got');
$task = task_that('step.started', 'fail 999');
my $other = query("SELECT tasker.create_task('quick')");
until_true("SELECT count(*) = 1 FROM app.got WHERE task_id = $other AND name = 'task.completed'", 'another task goes on');
is(query("SELECT string_agg(name, ' ' ORDER BY n) FROM app.got WHERE task_id = $task"), 'task.initialize_requested task.started',
	'of the first only what came before, and nothing of what the failed attempt wrote');
fails($task, 1, 'it fails');
is(query("SELECT DISTINCT dead_at, error ->> 'message' FROM app.failed"), '|not yet', 'the failure is noted');
is(query("SELECT count(*) FROM tasker.subscriber_failure WHERE attempts = 0 AND task_id = $task"), '2', 'what waits behind it, too');
is(query("SELECT next_attempt_at - (error ->> 'at')::timestamptz BETWEEN '1.8 s' AND '2.2 s' FROM app.failed WHERE attempts = 1"),
	't', 'it is due by the back-off');
is(query("SELECT tasker.health_check() -> 'deliverer' ->> 'failing'"), '3', 'health_check() counts them');
is(query('SELECT count(*) FROM tasker.dead_events'), '0', 'nothing is dead');
advance(60);
fails($task, 2, 'the second attempt');
$node->restart;
query("UPDATE app.todo SET what = 'fail 2'");
advance(86400);
until_true("SELECT count(*) = 1 FROM app.got WHERE task_id = $task AND name = 'task.completed'", 'a later one succeeds, after a restart of the server');
my $failed = query("SELECT max(attempts) FROM app.failed");
is(query("SELECT string_agg(format('%s %s', name, attempt), ', ' ORDER BY n) FROM app.got WHERE task_id = $task"),
	"task.initialize_requested 1, task.started 1, step.started @{[ $failed + 1 ]}, step.completed 1, task.completed 1", 'in order, with the number of the attempt');
is(query('SELECT count(*) FROM tasker.subscriber_failure'), '0', 'no row is left of it');

# The dead list.
set_system('tasker.subscriber_max_attempts' => 3);
$task = task_that('task.started', 'fail');
for my $attempt (1, 2)
{
	fails($task, $attempt, "attempt $attempt");
	advance(60);
}
until_true("SELECT count(*) = 1 FROM app.got WHERE task_id = $task AND name = 'task.completed'", 'when it is given up what waited goes on');
is(query("SELECT string_agg(name, ' ' ORDER BY n) FROM app.got WHERE task_id = $task"),
	'task.initialize_requested step.started step.completed task.completed', 'in order, without it');
is(query(<<'SQL'), "note|task.started|$task|3|not today|ZZ001|a detail|task.started", 'it is in tasker.dead_events');
SELECT subscriber, name, task_id, attempts, error ->> 'message', error ->> 'sqlstate', error ->> 'detail', payload ->> 'event_type'
FROM tasker.dead_events
SQL
like(slurp_file($node->logfile), qr/event \d+ is dead for subscriber "note" after 3 attempts/, 'and in the log');
query('DELETE FROM app.todo');
is(query("SELECT tasker.retry_dead_event('note')"), '1', 'retry_dead_event()');
until_true("SELECT count(*) = 1 FROM app.got WHERE task_id = $task AND name = 'task.started'", 'has it handled');
is(query('SELECT count(*) FROM tasker.subscriber_failure'), '0', 'and off the list');

# What the handler says of a retry is kept.
$task = task_that('task.started', 'permanent');
$other = task_that('task.started', 'later');
until_true('SELECT count(*) = 1 FROM tasker.dead_events', 'a permanent error is dead at once');
is(query("SELECT task_id, attempts, error ->> 'sqlstate' FROM tasker.dead_events"), "$task|1|TK001", 'after one attempt');
fails($other, 1, 'a retryable error');
is(query("SELECT next_attempt_at - (error ->> 'at')::timestamptz FROM app.failed WHERE task_id = $other AND attempts = 1"),
	'00:16:40', 'is due when it said');
query("DELETE FROM app.todo; SELECT tasker.drop_dead_event('note')");
is(query('SELECT count(*) FROM tasker.dead_events'), '0', 'drop_dead_event()');
advance(1001);
until_true('SELECT count(*) = 0 FROM tasker.subscriber_failure', 'the other one is handled');

# What a handler may not do, and what it does not leave behind.
query(<<'SQL');
CREATE TABLE app.twin (id integer UNIQUE DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE app.said (n integer GENERATED ALWAYS AS IDENTITY, name text, what text);
CREATE FUNCTION app.hostile(event tasker.event) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO app.said (name, what)
    VALUES (event.name, format('%s, %s, %s, %s, %s', current_user, current_setting('work_mem'), current_setting('search_path'),
                               to_regclass('pg_temp.mine'), (SELECT count(*) FROM pg_prepared_statements)));
    CASE event.name
        WHEN 'task.initialize_requested' THEN
            SET work_mem = '77MB';
            PERFORM set_config('search_path', 'app', false);
            CREATE TEMP TABLE mine AS SELECT 1;
            EXECUTE 'PREPARE mine AS SELECT 1';
        WHEN 'task.started' THEN SET ROLE alice;
        WHEN 'step.started' THEN COMMIT;
        WHEN 'step.completed' THEN INSERT INTO app.twin VALUES (1), (1);
        ELSE NULL;
    END CASE;
END $$;
SQL
set_system('tasker.subscriber_max_attempts' => 1);
subscribe('hostile', '{task.*,step.*}', 'app.hostile');
$task = query("SELECT tasker.create_task('quick')");
until_true("SELECT count(*) = 1 FROM app.said WHERE name = 'task.completed'", 'a hostile handler has had its events');
is(query("SELECT string_agg(DISTINCT what, '; ') FROM app.said"), query(<<'SQL'), 'nothing it did reached the next one');
SELECT format('postgres, %s, %s, , 0', current_setting('work_mem'), current_setting('search_path'))
SQL
is(query("SELECT string_agg(name || ' ' || (error ->> 'sqlstate'), ', ' ORDER BY occurred_at, event_id) FROM tasker.dead_events"),
	'task.started 42501, step.started 2D000, step.completed 23505',
	'SET ROLE and COMMIT are refused, a deferred constraint fails in the handler that broke it');
is(query('SELECT count(*) FROM app.twin'), '0', 'and nothing of it is kept');
query("SELECT tasker.unsubscribe('hostile')");
is(query('SELECT count(*) FROM tasker.subscriber_failure'), '0', 'its dead events go with it');
set_system('tasker.subscriber_max_attempts' => 3);

# A handler that waits: nobody else does.
my $gate = session($node, 'postgres');
$gate->query_safe('SELECT pg_advisory_lock(7)');
$task = task_that('task.started', 'lock');
my $waits = "SELECT count(*) = 1 FROM tasker._workers() AS w JOIN pg_stat_activity AS a USING (pid) WHERE w.kind = 'deliverer' AND a.wait_event_type = 'Lock' AND NOT w.idle AND w.task_id = $task";
advance(60);
until_true($waits, 'a handler waits for a lock');
my $listener = session($node, 'postgres');
$listener->query_safe('LISTEN tasker_events');
query("SELECT * FROM tasker.fetch_events('fetched')");
$other = query("SELECT tasker.create_task('quick')");
is(query("SELECT tasker.wait_for_task($other)"), 'complete', 'executors go on');
my $heard = '';
my $until = time + $PostgreSQL::Test::Utils::timeout_default;
while ($heard !~ /task\.completed","task_id":$other\b/ && time < $until)
{
	$heard .= $listener->query_safe('SELECT');
	usleep(10_000);
}
like($heard, qr/task\.completed","task_id":$other\b/, 'doorbells ring');
$listener->quit;
is(query("SELECT count(*) FROM tasker.fetch_events('fetched', 1000, wait => '10 s') WHERE task_id = $other"), '1', 'others fetch');
is(query($waits), 't', 'and it still waits');
is(query('SELECT max(attempts) FROM tasker.subscriber_failure') || 0, '0', 'which is no attempt');
query('DELETE FROM app.todo');
$gate->query_safe('SELECT pg_advisory_unlock(7)');
until_true("SELECT count(*) = 2 FROM app.got WHERE task_id IN ($task, $other) AND name = 'task.completed'", 'it goes on when it has the lock');

# In a batch it waits a moment only, then it is run alone: no attempt.
query("TRUNCATE app.got; SELECT count(*) FROM tasker.create_tasks('quick', array_fill('{}'::jsonb, ARRAY[200]))");
handled('note', 'task.completed', 200, 'many events make the batches larger');
$gate->query_safe('SELECT pg_advisory_lock(7)');
query("INSERT INTO app.todo VALUES ('task.initialize_requested', 'lock', 'lock')");
$task = query(<<'SQL');
WITH before AS MATERIALIZED (SELECT tasker.create_tasks('quick', array_fill('{}'::jsonb, ARRAY[10]))),
     one AS MATERIALIZED (SELECT tasker.create_task('quick', initiator => 'lock') AS task_id FROM (SELECT count(*) FROM before) AS b)
SELECT task_id FROM one, (SELECT count(*) FROM (SELECT tasker.create_tasks('quick', array_fill('{}'::jsonb, ARRAY[9])) FROM one) AS a) AS after
SQL
until_true("SELECT count(*) = 1 FROM tasker.subscriber_failure WHERE task_id = $task AND attempts = 0 AND next_attempt_at IS NOT NULL",
	'one that can not have a lock is put aside');
$gate->query_safe('SELECT pg_advisory_unlock(7)');
handled('note', 'task.completed', 220, 'and handled when it can');
is(query("SELECT string_agg(format('%s %s', name, attempt), ', ' ORDER BY n) FROM app.got WHERE task_id = $task"),
	'task.initialize_requested 1, task.started 1, step.started 1, step.completed 1, task.completed 1', 'in order, at the first attempt');
query('DELETE FROM app.todo');
$gate->quit;

# A timeout is an attempt.
set_system('tasker.subscriber_handler_timeout' => '1s', 'tasker.subscriber_max_attempts' => 1000);
$task = task_that('task.completed', 'sleep');
fails($task, 1, 'a handler that takes too long');
is(query("SELECT error ->> 'sqlstate', error ->> 'message' FROM app.failed WHERE task_id = $task AND attempts = 1"), '57014|handler timed out after 1 s', 'has failed');
set_system('tasker.subscriber_handler_timeout' => 0);
query('DELETE FROM app.todo');
advance(86400);
until_true('SELECT count(*) = 0 FROM tasker.subscriber_failure', 'and is tried again');
set_system('tasker.subscriber_max_attempts' => 3);

# The deliverer is killed in the middle of a batch: each event is handled once.
sub each_once
{
	my ($name) = @_;

	is(query(<<'SQL'), '0', "$name: every event was handled exactly once");
SELECT count(*)
FROM tasker._tick_event AS e
FULL JOIN (SELECT event_id, count(*) AS times FROM app.got GROUP BY event_id) AS g USING (event_id)
WHERE e.task_id > (SELECT min(task_id) - 1 FROM app.got)
  AND e.name ~ '^(task|step)\.'
  AND coalesce(g.times, 0) <> 1
SQL
	is(query(<<'SQL'), '0', "$name: in order within each task");
SELECT count(*)
FROM (
    SELECT row_number() OVER (PARTITION BY g.task_id ORDER BY g.n) AS came,
           row_number() OVER (PARTITION BY g.task_id ORDER BY e.tick_id, e.at, e.event_id) AS told
    FROM app.got AS g
    JOIN tasker._tick_event AS e USING (event_id)) AS o
WHERE came <> told
SQL
	is(query('SELECT count(*) FROM tasker.subscriber_failure'), '0', "$name: nothing is left");
	return;
}
query('TRUNCATE app.got');
for my $kill (1, 2)
{
	my $log = -s $node->logfile;
	query("SELECT count(*) FROM tasker.create_tasks('quick', array_fill('{}'::jsonb, ARRAY[100]))");
	handled('note', 'task.completed', $kill * 100 + ($kill - 1) * 30, "kill $kill: before it");
	query("INSERT INTO app.todo VALUES ('task.initialize_requested', 'sleep', 'sleep')");
	$task = query(<<'SQL');
WITH before AS MATERIALIZED (SELECT tasker.create_tasks('quick', array_fill('{}'::jsonb, ARRAY[10]))),
     one AS MATERIALIZED (SELECT tasker.create_task('quick', initiator => 'sleep') AS task_id FROM (SELECT count(*) FROM before) AS b)
SELECT task_id FROM one, (SELECT count(*) FROM (SELECT tasker.create_tasks('quick', array_fill('{}'::jsonb, ARRAY[19])) FROM one) AS a) AS after
SQL
	until_true("SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'tasker deliverer' AND wait_event = 'PgSleep'",
		"kill $kill: it is in the middle of a batch");
	is(query("SELECT count(*) FROM app.got WHERE task_id = $task"), '0', "kill $kill: of which nothing is committed");
	query('DELETE FROM app.todo');
	kill 'KILL', deliverer();
	$node->wait_for_log(qr/all server processes terminated; reinitializing/, $log);
	$node->poll_query_until('postgres', 'SELECT true');
	$node->wait_for_log(qr/the deliverer crashed while subscriber "note" had event \d+/, $log);
	advance(60);
	until_true("SELECT count(*) = 1 FROM app.got WHERE task_id = $task AND attempt = 2", "kill $kill: the event it was at is tried again");
	handled('note', 'task.completed', $kill * 130, "kill $kill: as is the rest");
	each_once("kill $kill");
}

# One that brings the server down each time is given up.
set_system('tasker.subscriber_max_attempts' => 2);
$task = task_that('task.started', 'sleep');
for my $crash (1, 2)
{
	my $log = -s $node->logfile;
	advance(60);
	$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'tasker deliverer' AND wait_event = 'PgSleep'");
	kill 'KILL', deliverer();
	$node->wait_for_log(qr/the deliverer crashed while subscriber "note" had event \d+/, $log);
	$node->poll_query_until('postgres', 'SELECT true');
	advance(60);
}
until_true('SELECT count(*) = 1 FROM tasker.dead_events', 'an event that brings the server down is dead in the end');
is(query("SELECT task_id, name, attempts, error ->> 'sqlstate', error ->> 'message' FROM tasker.dead_events"),
	"$task|task.started|2|57P02|the deliverer died 2 times while the handler ran", 'and says why');
until_true("SELECT count(*) = 1 FROM app.got WHERE task_id = $task AND name = 'task.completed'", 'what came behind it goes on');
query("DELETE FROM app.todo; SELECT tasker.drop_dead_event('note')");

# A batch that can't be stored, and then not even alone: what ran in it has failed.
query(<<'SQL');
CREATE SEQUENCE app.trips;
CREATE FUNCTION app.trip() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    -- Batches without a failure are none of it.
    IF EXISTS (SELECT FROM failed) AND nextval('app.trips') <= 3 THEN
        RAISE EXCEPTION 'tripped';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER trip AFTER INSERT ON tasker.subscriber_failure
REFERENCING NEW TABLE AS failed
FOR EACH STATEMENT EXECUTE FUNCTION app.trip();
SQL
$task = task_that('step.started', 'fail 1');
fails($task, 1, 'a batch that could not be stored');
is(query("SELECT DISTINCT error ->> 'message' FROM app.failed WHERE task_id = $task"), 'tripped', 'fails the event that ran alone in it');
query('DROP TRIGGER trip ON tasker.subscriber_failure');
advance(60);
until_true("SELECT count(*) = 1 FROM app.got WHERE task_id = $task AND name = 'task.completed'", 'and goes on');
is(query("SELECT string_agg(format('%s %s', name, attempt), ', ' ORDER BY n) FROM app.got WHERE task_id = $task"),
	'task.initialize_requested 1, task.started 1, step.started 2, step.completed 1, task.completed 1', 'in order, each once');
query('DELETE FROM app.todo');

# A handler that catches its cancellation is ended with its process.
query(<<'SQL');
CREATE FUNCTION app.stubborn(event tasker.event) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    LOOP
        BEGIN
            PERFORM pg_sleep(600);
        EXCEPTION
            WHEN query_canceled THEN NULL;
        END;
    END LOOP;
END $$;
SQL
set_system('tasker.subscriber_handler_timeout' => '1s', 'tasker.subscriber_max_attempts' => 1);
subscribe('stubborn', '{task.started}', 'app.stubborn');
query("SELECT tasker.create_task('quick')");
until_true('SELECT count(*) = 1 FROM tasker.dead_events', 'a handler that outlives its timeout');
is(query("SELECT subscriber, error ->> 'message' FROM tasker.dead_events"), 'stubborn|the deliverer died while the handler ran', 'is ended, and the event is dead');
query("SELECT tasker.unsubscribe('stubborn')");
set_system('tasker.subscriber_handler_timeout' => 0, 'tasker.subscriber_max_attempts' => 1000);

# Stopped, it does nothing, and goes on afterwards.
query('SELECT tasker.deactivate(); TRUNCATE app.got');
$task = query("SELECT tasker.create_task('quick')");
query('SELECT tasker.activate()');
until_true("SELECT count(*) = 1 FROM app.got WHERE task_id = $task AND name = 'task.completed'", 'after deactivate() and activate() it goes on');

# A function that is gone, and comes back.
query(<<'SQL');
CREATE FUNCTION app.fleeting(event tasker.event) RETURNS void LANGUAGE sql AS $$ INSERT INTO app.got (who, name) VALUES ('fleeting', event.name) $$;
SQL
subscribe('fleeting', '{task.started}', 'app.fleeting');
$task = query("DROP FUNCTION app.fleeting; SELECT tasker.create_task('quick')");
fails($task, 1, 'a handler that was dropped');
is(query("SELECT DISTINCT error ->> 'message' FROM app.failed WHERE task_id = $task"), 'function app.fleeting(tasker.event) of subscriber "fleeting" does not exist', 'is said to be missing');
query(<<'SQL');
CREATE FUNCTION app.fleeting(event tasker.event) RETURNS void LANGUAGE sql AS $$ INSERT INTO app.got (who, name) VALUES ('fleeting', event.name) $$;
SQL
advance(86400);
handled('fleeting', 'task.started', 1, 'and found when it is back');

# COMMIT PREPARED, of which no session of ours hears: the deliverer is there.
query("SELECT tasker.unsubscribe('fleeting'); SELECT tasker.unsubscribe('note')");
until_true("SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'tasker deliverer'", 'without subscribers that have handlers the deliverer ends');
query("BEGIN; SELECT tasker.subscribe('note', '{task.*,step.*}', handler => 'app.note'); PREPARE TRANSACTION 'x'");
query("COMMIT PREPARED 'x'");
until_true("SELECT count(*) = 1 FROM tasker._workers() WHERE kind = 'deliverer'", 'a prepared subscription brings it back');
is(query("SELECT tasker.health_check() ->> 'status'"), 'healthy', 'all is well');

# DROP EXTENSION and DROP DATABASE do not wait for a handler.
$task = task_that('task.started', 'sleep');
until_true("SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'tasker deliverer' AND wait_event = 'PgSleep'", 'a handler runs');
query('SET client_min_messages = error; DROP EXTENSION tasker CASCADE');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'tasker %' AND datname = 'postgres'"), '0',
	'DROP EXTENSION CASCADE ends it with the others');
is(query("SELECT count(*) FROM pg_proc WHERE proname = 'note'"), '0', 'the handler goes with the type it takes');

$node->safe_psql('postgres', 'CREATE DATABASE two');
install_tasker($node, 'two');
$node->safe_psql('two', <<'SQL');
CREATE FUNCTION public.slow(event jsonb) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(600); END $$;
SET client_min_messages = error;
SELECT tasker.subscribe('slow', '{*}', handler => 'public.slow');
SELECT tasker.create_task('quick');
SQL
wait_until($node, 'postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'tasker deliverer' AND wait_event = 'PgSleep' AND datname = 'two'", 'a handler runs in another database');
$node->safe_psql('postgres', 'DROP DATABASE two');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'tasker deliverer'"), '0', 'DROP DATABASE works');

done_testing();
