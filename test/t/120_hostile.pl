# Hostile handlers: whatever one does, it harms neither the next step of its
# batch nor another task.
#
# There is one executor, and hostile steps stand between innocent ones in one
# batch.  An innocent step writes down the surroundings it finds: they must be
# the same at every time.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskerTest;
use Test::More;

# A batch must not end by time here, for all of it is to be in one transaction.
my $node = new_server('hostile', <<'CONF');
tasker.executors = 1
tasker.batch_budget = '10 s'
CONF

$node->safe_psql('postgres', 'CREATE EXTENSION tasker');
$node->safe_psql('postgres', <<'SQL');
CREATE ROLE shop;
CREATE ROLE other;
GRANT other TO shop;
CREATE SCHEMA shop AUTHORIZATION shop;
SET ROLE shop;
CREATE TABLE shop.surroundings (
    step_id bigint PRIMARY KEY,
    seen text NOT NULL
);
CREATE TABLE shop.parent (id integer PRIMARY KEY);
CREATE TABLE shop.child (
    id integer PRIMARY KEY,
    parent integer REFERENCES shop.parent DEFERRABLE INITIALLY DEFERRED
);
CREATE TABLE shop.strict_child (
    id integer PRIMARY KEY,
    parent integer REFERENCES shop.parent DEFERRABLE INITIALLY IMMEDIATE
);
CREATE TABLE shop.seen_by_trigger (step_id bigint, who text);
CREATE TABLE shop.armed (step_id bigint);
CREATE FUNCTION shop.tell_who()
RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO shop.seen_by_trigger VALUES (NEW.step_id, current_user);
    RETURN NULL;
END;
$$;
CREATE CONSTRAINT TRIGGER tell_who AFTER INSERT ON shop.armed
DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION shop.tell_who();
CREATE TABLE shop.big (value jsonb);
CREATE TABLE shop.place (id integer PRIMARY KEY, changed integer NOT NULL DEFAULT 0);
INSERT INTO shop.place VALUES (1), (2), (3);
CREATE SEQUENCE shop.both_there;

CREATE FUNCTION shop.innocent(step tasker.step_context)
RETURNS jsonb
LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO shop.surroundings
    VALUES (step.step_id,
            concat_ws('|', current_user, session_user,
                      current_setting('role'),
                      current_setting('search_path'),
                      current_setting('work_mem'),
                      current_setting('statement_timeout'),
                      current_setting('transaction_isolation'),
                      current_setting('transaction_read_only'),
                      current_setting('default_transaction_read_only'),
                      current_setting('TimeZone'),
                      coalesce(current_setting('shop.secret', true), ''),
                      (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()) || ' temp',
                      (SELECT count(*) FROM pg_cursors) || ' cursors',
                      (SELECT count(*) FROM pg_prepared_statements) || ' prepared',
                      (SELECT count(*) FROM pg_listening_channels()) || ' channels'));
    -- A constraint that is checked at once can be caught.
    BEGIN
        INSERT INTO shop.strict_child VALUES (1, -1);
        RAISE 'the constraint was not checked at once';
    EXCEPTION WHEN foreign_key_violation THEN
    END;
    RETURN '{"innocent": true}';
END;
$$;
SQL

# A handler, and a task with one step of it.  With context {"harmless": true} it
# does nothing; that is done at first, so that the engine knows that it is fast
# and takes it into batches.
sub definition
{
	my ($name, $body, %options) = @_;
	my $limit = $options{limit} // 1;
	my $timeout = $options{timeout} ? qq(, "timeout": "$options{timeout}") : '';
	my $declare = $options{declare} // '';
	my $role = $options{role} // 'shop';
	my $base_delay = $options{base_delay} // 0.001;
	my $transaction = $options{transaction} // 'shared';

	return <<"SQL" . training($name);
SET client_min_messages = error;
SET ROLE $role;
CREATE FUNCTION shop.$name(step tasker.step_context)
RETURNS jsonb
LANGUAGE plpgsql
AS \$handler\$
DECLARE
    result jsonb := '{"done": true}';
    $declare
BEGIN
    IF step.context ? 'harmless' THEN
        RETURN result;
    END IF;
    $body
    RETURN result;
END;
\$handler\$;
SELECT tasker.register_handler('$name', 'shop.$name', transaction => '$transaction');
RESET ROLE;
SELECT tasker.register_task('{"name": "$name", "step_templates": [
    {"name": "only", "handler_class": "$name", "retry": {"limit": $limit, "base_delay": $base_delay}$timeout}]}');
SQL
}

# What psql is to run so that the engine learns that a handler is fast.
sub training
{
	my ($name) = @_;

	return <<"SQL" x 4;
SELECT max(i) AS last
FROM tasker.create_tasks('$name', array_fill('{"harmless": true}'::jsonb, ARRAY[8])) AS i
\\gset
SELECT tasker.wait_for_task(:last, '60 s');
SQL
}

sub define
{
	$node->safe_psql('postgres', definition(@_));
	return;
}

sub train
{
	$node->safe_psql('postgres', join '', map { training($_) } @_);
	return;
}

# Waits until the tasks of a list of ids have ended.
sub finish
{
	my ($ids) = @_;

	$node->poll_query_until('postgres',
		"SELECT bool_and(finished_at IS NOT NULL) FROM tasker.task WHERE task_id IN ($ids)")
	  or die "tasks $ids do not end";
	return;
}

# What psql is to run so that tasks of these names are created in one
# transaction and come to their end; it prints their ids, each on a line.
sub together
{
	my @names = @_;
	my $sql = join '', map { "SELECT tasker.create_task('$names[$_]') AS i$_ \\gset\n" } 0 .. $#names;

	$sql = "BEGIN;\n${sql}COMMIT;\n";
	$sql .= join '', map { "SELECT :i$_; SELECT tasker.wait_for_task(:i$_, '180 s') \\g /dev/null\n" } 0 .. $#names;
	return $sql;
}

sub run_together
{
	return split /\n/, $node->safe_psql('postgres', together(@_));
}

# The surroundings that innocent steps have seen since: one and the same.
my $usual;

sub innocent_saw_nothing
{
	my ($name) = @_;
	my $seen = $node->safe_psql('postgres', 'SELECT DISTINCT seen FROM shop.surroundings');

	$usual //= $seen;
	is($seen, $usual, "$name: the steps beside it notice nothing");
	$node->safe_psql('postgres', 'TRUNCATE shop.surroundings');
	return;
}

sub answer
{
	my ($name, $sql, $expected) = @_;

	is($node->safe_psql('postgres', $sql), $expected, $name);
	return;
}

# hostile NAME, OUTCOME, BODY, %options: a handler that run_hostile() runs three
# times between innocent steps, in one batch.  OUTCOME is "complete", or the
# SQLSTATE that the step ends in error with.
my @hostile;
my %ids;    # by name, of the three hostile tasks

sub hostile
{
	my ($name, $outcome, $body, %options) = @_;

	push @hostile, { name => $name, outcome => $outcome, body => $body, batches => 1, %options };
	return;
}

# Runs these, and fills in what became of them.
sub try_hostile
{
	my @cases = @_;
	my @all = split /\n/, $node->safe_psql('postgres', join '', map {
		my $name = $_->{name};
		together('innocent', $name, 'innocent', $name, 'innocent', $name, 'innocent')
	} @cases);
	my @values;

	foreach my $case (@cases)
	{
		my @seven = splice @all, 0, 7;

		$ids{$case->{name}} = [ @seven[1, 3, 5] ];
		push @values, map { "('$case->{name}', " . ($_ % 2 ? 'true' : 'false') . ", $seven[$_])" } 0 .. 6;
	}
	my $values = join ",\n", @values;
	my $outcome = $node->safe_psql('postgres', <<"SQL");
WITH run (name, hostile, task_id) AS (VALUES $values),
step AS (
    SELECT r.name, r.hostile,
           concat_ws(' ', s.state, s.attempts, t.state, s.error ->> 'sqlstate') AS outcome,
           x.batch, u.seen
    FROM run AS r
    JOIN tasker.tasks AS t USING (task_id)
    JOIN tasker.workflow_steps AS s USING (task_id)
    LEFT JOIN shop.surroundings AS u USING (step_id)
    LEFT JOIN LATERAL (
        SELECT l.transition_id >> 20 AS batch
        FROM tasker.transitions AS l
        WHERE l.step_id = s.step_id AND l.to_state = 'in_progress') AS x ON true)
SELECT name, string_agg(DISTINCT outcome, ',') FILTER (WHERE NOT hostile),
       string_agg(DISTINCT outcome, ',') FILTER (WHERE hostile),
       count(DISTINCT batch), string_agg(DISTINCT seen, ',')
FROM step
GROUP BY name
SQL
	my %case = map { $_->{name} => $_ } @cases;
	foreach my $line (split /\n/, $outcome)
	{
		my ($name, @found) = split /~/, $line =~ s/^([^|]*)\|([^|]*)\|([^|]*)\|([^|]*)\|/$1~$2~$3~$4~/r;

		$case{$name}{found} = \@found;
	}
	return;
}

sub run_hostile
{
	$node->safe_psql('postgres', join '', map { definition($_->{name}, $_->{body}, %$_) } @hostile);
	try_hostile(@hostile);
	# On a busy machine a quick handler may pass for a slow one, which is not
	# taken into a batch: then once more.
	foreach my $round (1 .. 4)
	{
		my @again = grep { $_->{found}[2] != $_->{batches} } @hostile;

		last if !@again;
		train('innocent', map { $_->{name} } @again);
		try_hostile(@again);
	}
	foreach my $case (@hostile)
	{
		my $name = $case->{name};
		my ($innocent, $outcome, $batches, $seen) = @{ $case->{found} };

		is($innocent, 'complete 1 complete', "$name: the innocent complete at their first attempt");
		is($outcome, $case->{outcome} eq 'complete' ? 'complete 1 complete' : "error 1 error $case->{outcome}",
			"$name: ends as it should");
		is($batches, $case->{batches}, "$name: in $case->{batches} batch(es)");
		is($seen, $usual, "$name: the steps beside it notice nothing");
	}
	innocent_saw_nothing('all together');
	@hostile = ();
	return;
}

$node->safe_psql('postgres', <<'SQL');
SET client_min_messages = error;
SET ROLE shop;
SELECT tasker.register_handler('innocent', 'shop.innocent');
RESET ROLE;
SELECT tasker.register_task('{"name": "innocent", "step_templates": [{"name": "only", "handler_class": "innocent"}]}');
SQL
foreach (1 .. 4) { run_together(('innocent') x 8); }
innocent_saw_nothing('alone');
like($usual, qr/^shop\|.*0 temp\|0 cursors\|0 prepared\|0 channels$/, 'as the role that registered it, with nothing left about');

# Roles.
hostile('reset_role', '42501', 'EXECUTE $$RESET ROLE$$;');
hostile('set_role', '42501', 'EXECUTE $$SET ROLE other$$;');
hostile('set_session', '42501', 'EXECUTE $$SET SESSION AUTHORIZATION other$$;');
hostile('config_role', '42501', q(PERFORM set_config('role', 'other', false);));
hostile('caught_role', 'complete', <<'SQL');
BEGIN
    EXECUTE 'RESET SESSION AUTHORIZATION';
EXCEPTION WHEN insufficient_privilege THEN
END;
SQL

# Settings.
hostile('settings', 'complete', <<'SQL');
PERFORM set_config('search_path', 'nowhere', false);
PERFORM set_config('work_mem', '64kB', false);
PERFORM set_config('statement_timeout', '1', false);
PERFORM set_config('default_transaction_read_only', 'on', false);
PERFORM set_config('TimeZone', 'Asia/Tokyo', false);
PERFORM set_config('shop.secret', '4711', false);
PERFORM set_config('work_mem', '128kB', true);
EXECUTE 'SET transaction_read_only = on';
SQL
hostile('reset_all', 'complete', 'EXECUTE $$RESET ALL$$;');
hostile('settings_and_fail', '22012', <<'SQL');
PERFORM set_config('search_path', 'nowhere', false);
PERFORM set_config('work_mem', '64kB', false);
PERFORM 1 / 0;
SQL
hostile('isolation', '25001', 'EXECUTE $$SET TRANSACTION ISOLATION LEVEL SERIALIZABLE$$;');

# What lives in a session.
hostile('temp_table', 'complete', <<'SQL');
CREATE TEMP TABLE mine (i integer PRIMARY KEY, t text);
INSERT INTO mine SELECT i, 'x' FROM generate_series(1, 10) AS i;
CREATE TEMP TABLE too (i integer) ON COMMIT DELETE ROWS;
CREATE TEMP VIEW look AS SELECT * FROM mine;
SQL
hostile('temp_table_and_fail', '22012', <<'SQL');
CREATE TEMP TABLE mine (i integer PRIMARY KEY, t text);
PERFORM 1 / 0;
SQL
hostile('temp_result', 'complete', <<'SQL');
CREATE TEMP TABLE mine (value jsonb);
ALTER TABLE mine ALTER value SET STORAGE EXTERNAL;
INSERT INTO mine SELECT jsonb_build_object('long', repeat('y', 100000));
SELECT value INTO result FROM mine;
SQL
hostile('hold_cursor', 'complete', <<'SQL');
EXECUTE 'DECLARE kept CURSOR WITH HOLD FOR SELECT pg_catalog.set_config(''shop.secret'', current_user::text, false)';
SQL
hostile('cursor', 'complete', <<'SQL', declare => 'c refcursor := \'open\';');
OPEN c FOR SELECT * FROM pg_class;
SQL
hostile('prepare', 'complete', 'EXECUTE $$PREPARE p AS SELECT 1$$;');
hostile('prepare_and_fail', '22012', 'EXECUTE $$PREPARE p AS SELECT 1$$; PERFORM 1 / 0;');
hostile('listen', '0A000', 'LISTEN somewhere;');
hostile('notify', '22023', q(PERFORM pg_notify('somewhere', repeat('x', 8000));));
hostile('advisory_lock', 'complete', 'PERFORM pg_advisory_lock(4711);');
hostile('advisory_lock_and_fail', '22012', 'PERFORM pg_advisory_lock(4712); PERFORM 1 / 0;');

# What happens at commit.
hostile('set_constraints', '23503', <<'SQL');
SET CONSTRAINTS ALL DEFERRED;
INSERT INTO shop.strict_child VALUES (2, -1);
SQL
hostile('set_constraints_quietly', 'complete', 'SET CONSTRAINTS ALL DEFERRED;', batches => 4);
hostile('deferred_constraint', '23503', 'INSERT INTO shop.child VALUES (1, -1);');
hostile('deferred_trigger', 'complete', 'INSERT INTO shop.armed VALUES (step.step_id);');
hostile('commit_inside', '2D000', 'COMMIT;');
hostile('rollback_inside', '2D000', 'ROLLBACK;');
hostile('savepoint_inside', '0A000', q(EXECUTE 'SAVEPOINT a';));

# Results.
hostile('returns_null', 'complete', 'RETURN NULL;');
hostile('returns_scalar', 'complete', q(RETURN '42';));
hostile('returns_much', 'complete', q(RETURN jsonb_build_object('much', repeat('z', 5 * 1024 * 1024));));

# Errors.
hostile('all_fields', 'XX123', <<'SQL');
RAISE 'the message' USING ERRCODE = 'XX123', DETAIL = 'the detail', HINT = 'the hint',
    COLUMN = 'c', CONSTRAINT = 'k', DATATYPE = 'd', TABLE = 't', SCHEMA = 's';
SQL
hostile('recursion', '54001', <<'SQL');
EXECUTE 'CREATE FUNCTION pg_temp.deeper(i integer) RETURNS integer LANGUAGE plpgsql AS $$ BEGIN RETURN pg_temp.deeper(i + 1); END $$';
EXECUTE 'SELECT pg_temp.deeper(1)';
SQL
# The field that carries retry_after, filled by somebody else.
hostile('forged_retry', 'TK002', q(RAISE 'again' USING ERRCODE = 'TK002', DATATYPE = 'soon';));
hostile('empty_retry', 'TK002', q(PERFORM tasker.retryable_error('again');));
hostile('endless_retry', 'TK002', q(RAISE 'again' USING ERRCODE = 'TK002', DATATYPE = repeat('9', 30);));

# A step that outlives its timeout.
hostile('sleep', '57014', 'PERFORM pg_sleep(3600);', timeout => '1 s');
hostile('caught_timeout', 'complete', <<'SQL', timeout => '0.2 s');
BEGIN
    PERFORM pg_sleep(3600);
EXCEPTION WHEN query_canceled THEN
END;
SQL

run_hostile();

answer('a result out of a temporary table is whole',
	"SELECT length(results ->> 'long') FROM tasker.workflow_steps WHERE task_id = $ids{temp_result}[0]", 100000);
answer('no advisory lock stays', 'SELECT pg_try_advisory_lock(4711), pg_try_advisory_lock(4712)', 't|t');
answer('a deferred trigger runs as the registrar',
	'SELECT DISTINCT who FROM shop.seen_by_trigger', 'shop');
answer('NULL is no result', "SELECT DISTINCT results IS NULL FROM tasker.workflow_steps WHERE task_id = $ids{returns_null}[0]", 't');
answer('a scalar is one', "SELECT results FROM tasker.workflow_steps WHERE task_id = $ids{returns_scalar}[0]", '42');
answer('5 MB are one',
	"SELECT length(results ->> 'much') FROM tasker.workflow_steps WHERE task_id = $ids{returns_much}[0]", 5 * 1024 * 1024);
answer('an error is kept whole', <<"SQL", 'the message|XX123|the detail|the hint|t|1|true|t');
SELECT error ->> 'message', error ->> 'sqlstate', error ->> 'detail', error ->> 'hint',
       error ->> 'context' LIKE '%function all_fields(%', error ->> 'attempt', error ->> 'retryable',
       (error ->> 'at')::timestamptz IS NOT NULL
FROM tasker.workflow_steps
WHERE task_id = $ids{all_fields}[0]
SQL
answer('it says that it timed out',
	"SELECT error ->> 'message' FROM tasker.workflow_steps WHERE task_id = $ids{sleep}[0]", 'step timed out after 1 s');
{
	# A failure, then twice the same temporary table: the second one must not
	# find that of the first.
	my @ids = run_together('temp_table_and_fail', 'temp_table', 'temp_table', 'innocent');
	answer('a temporary table after one that failed',
		"SELECT string_agg(state, ' ' ORDER BY task_id) FROM tasker.tasks WHERE task_id IN (" . join(',', @ids) . ')',
		'error complete complete complete');
	innocent_saw_nothing('temp_table after a failure');
}

# Retries that were asked for.
define('retry_later', q(PERFORM tasker.retryable_error('again', interval '200 years');), limit => 2);
define('retry_soon', q(IF step.attempt = 1 THEN PERFORM tasker.retryable_error('again', interval '0'); END IF;), limit => 2);
{
	my @ids = run_together('innocent', 'retry_soon');
	answer('retry_after of nothing', "SELECT state, attempts FROM tasker.workflow_steps WHERE task_id = $ids[1]", 'complete|2');
	my $later = $node->safe_psql('postgres', q(SELECT tasker.create_task('retry_later')));
	define('forged_delay', q(RAISE 'again' USING ERRCODE = 'TK002', DATATYPE = 'soon';), limit => 2, base_delay => 10);
	my $forged = $node->safe_psql('postgres', q(SELECT tasker.create_task('forged_delay')));
	wait_until($node, 'postgres', <<"SQL", 'a delay that is none leaves it to the back-off');
SELECT state = 'waiting_for_retry' AND next_attempt_at > started_at + interval '15 s'
FROM tasker.workflow_steps
WHERE task_id = $forged
SQL
	wait_until($node, 'postgres', <<"SQL", 'retry_after of two hundred years');
SELECT state = 'waiting_for_retry' AND next_attempt_at > now() + interval '199 years'
FROM tasker.workflow_steps
WHERE task_id = $later
SQL
}

# A handler that is gone.  A function is kept from being dropped, but not by a
# restore, which says that it does not look into functions.
foreach my $case (
	[ 'dropped', 'SET check_function_bodies = off; DROP FUNCTION shop.dropped', '42883', qr/function shop\.dropped\(tasker\.step_context\) of handler "dropped" does not exist/ ],
	[ 'revoked', 'REVOKE ALL ON FUNCTION shop.revoked FROM public, shop', '42883', qr/role "shop" may not execute function shop\.revoked/ ],
	[ 'retyped', 'SET check_function_bodies = off; DROP FUNCTION shop.retyped; CREATE FUNCTION shop.retyped(tasker.step_context) RETURNS text LANGUAGE sql AS $$ SELECT NULL::text $$', '42883', qr/does not return jsonb/ ],
	[ 'roleless', 'DROP ROLE passing', '42883', qr/role "passing" .* does not exist/ ])
{
	my ($name, $command, $sqlstate, $message) = @$case;

	$node->safe_psql('postgres', 'CREATE ROLE passing; GRANT CREATE, USAGE ON SCHEMA shop TO passing') if $name eq 'roleless';
	define($name, '', limit => 3, $name eq 'roleless' ? (role => 'passing') : ());
	$node->safe_psql('postgres', 'REASSIGN OWNED BY passing TO shop; DROP OWNED BY passing') if $name eq 'roleless';
	$node->safe_psql('postgres', "SET check_function_bodies = off; $command");
	my @ids = run_together('innocent', $name, 'innocent', $name, 'innocent');
	answer("$name: ends in error at once", <<"SQL", "complete|1|complete,error|1|$sqlstate");
SELECT string_agg(DISTINCT concat_ws('|', state, attempts, coalesce(error ->> 'sqlstate', 'complete')), ',')
FROM tasker.workflow_steps
WHERE task_id IN (@{[ join ',', @ids ]})
SQL
	like($node->safe_psql('postgres', "SELECT error ->> 'message' FROM tasker.workflow_steps WHERE task_id = $ids[1]"),
		$message, "$name: and says why");
	innocent_saw_nothing($name);
}

# Membership that a role has lost, or got.
$node->safe_psql('postgres', <<'SQL');
CREATE ROLE guild;
SET client_min_messages = error;
CREATE FUNCTION shop.of_the_guild(step tasker.step_context) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN RETURN '{}'; END $$;
REVOKE ALL ON FUNCTION shop.of_the_guild FROM public;
GRANT EXECUTE ON FUNCTION shop.of_the_guild TO guild;
GRANT guild TO shop;
SET ROLE shop;
SELECT tasker.register_handler('of_the_guild', 'shop.of_the_guild');
RESET ROLE;
SELECT tasker.register_task('{"name": "of_the_guild", "step_templates": [{"name": "only", "handler_class": "of_the_guild"}]}');
SQL
foreach my $case ([ '', 'complete' ], [ 'REVOKE guild FROM shop', 'error' ], [ 'GRANT guild TO shop', 'complete' ])
{
	$node->safe_psql('postgres', $case->[0]) if $case->[0];
	my ($id) = run_together('of_the_guild');
	answer("EXECUTE by membership: $case->[0]", "SELECT state FROM tasker.tasks WHERE task_id = $id", $case->[1]);
}

# A row that an idle transaction has locked, in a batch with 99 others.
define('locked', 'UPDATE shop.place SET changed = changed + 1 WHERE id = 3;');
$node->safe_psql('postgres', q(ALTER SYSTEM SET tasker.lock_timeout = '1 h'));
$node->reload;
my $session = session($node, 'postgres');
$session->query_safe('BEGIN; UPDATE shop.place SET changed = 100 WHERE id = 3');
my @ids = split /\n/, $node->safe_psql('postgres', <<'SQL');
BEGIN;
SELECT * FROM tasker.create_tasks('innocent', array_fill('{}'::jsonb, ARRAY[50]));
SELECT * FROM tasker.create_task('locked');
SELECT * FROM tasker.create_tasks('innocent', array_fill('{}'::jsonb, ARRAY[49]));
COMMIT;
SQL
my ($locked) = splice @ids, 50, 1;
finish(join ',', @ids);
answer('99 steps do not wait for the lock that one needs', 'SELECT DISTINCT state FROM tasker.tasks WHERE task_id IN (' . join(',', @ids) . ')', 'complete');
wait_until($node, 'postgres', <<'SQL', 'the one waits, alone');
SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'tasker executor' AND wait_event_type = 'Lock'
SQL
answer('without an attempt that counts', "SELECT state, attempts FROM tasker.workflow_steps WHERE task_id = $locked", 'pending|0');
$session->query_safe('COMMIT');
finish($locked);
answer('and completes when the lock is free', "SELECT state, attempts FROM tasker.workflow_steps WHERE task_id = $locked", 'complete|1');
answer('having changed the row once', 'SELECT changed FROM shop.place WHERE id = 3', 101);
innocent_saw_nothing('locked');

# The lock is not released in time: then it is an attempt.
$node->safe_psql('postgres', q(ALTER SYSTEM SET tasker.lock_timeout = '300 ms'));
$node->reload;
$session->query_safe('BEGIN; UPDATE shop.place SET changed = 0 WHERE id = 3');
($locked) = run_together('locked');
answer('a lock that is held too long costs an attempt',
	"SELECT state, attempts, error ->> 'sqlstate' FROM tasker.workflow_steps WHERE task_id = $locked", 'error|1|55P03');
$session->query_safe('COMMIT');
$session->quit;

# What makes the commit itself fail: a deferred trigger on a table of the
# engine, which fires when everything has been written.
$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION public.refuse()
RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF NEW.results ? 'refuse' THEN
        RAISE 'refused at commit' USING ERRCODE = 'XX001';
    END IF;
    RETURN NULL;
END;
$$;
CREATE CONSTRAINT TRIGGER refuse AFTER INSERT OR UPDATE ON tasker.step
DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION public.refuse();
SQL
define('refused', q(result := '{"refuse": true}'; INSERT INTO shop.armed VALUES (step.step_id);));
@ids = run_together('innocent', 'refused', 'innocent', 'innocent', 'refused', 'innocent');
answer('a commit that fails, fails the step that makes it fail', <<"SQL", 'complete|1,error|1|XX001');
SELECT string_agg(DISTINCT concat_ws('|', state, attempts, error ->> 'sqlstate'), ',')
FROM tasker.workflow_steps
WHERE task_id IN (@{[ join ',', @ids ]})
SQL
# What a rollback has undone is set again: a step that runs alone
# behind one that was rolled back waits for a lock as long as the setting says.
define('refused_alone', q(result := '{"refuse": true}';), transaction => 'own');
define('asks_alone', q(result := to_jsonb(current_setting('lock_timeout'));), transaction => 'own');
my ($rolled_back, $next) = run_together('refused_alone', 'asks_alone');
answer('the lock timeout of a step that runs alone',
	"SELECT results FROM tasker.workflow_steps WHERE task_id = $next", '"300ms"');
answer('behind one that was rolled back', "SELECT state FROM tasker.tasks WHERE task_id = $rolled_back", 'error');
answer('what it did is undone', "SELECT count(*) FROM shop.armed WHERE step_id >> 14 IN ($ids[1], $ids[4])", '0');
innocent_saw_nothing('refused');

# Worse: the step can't even be failed.
$node->safe_psql('postgres', <<'SQL');
CREATE OR REPLACE FUNCTION public.refuse()
RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF EXISTS (SELECT FROM tasker.task AS t JOIN tasker.plan AS p USING (plan_id)
               WHERE t.task_id = NEW.task_id AND p.name = 'refused') THEN
        RAISE 'refused at commit' USING ERRCODE = 'XX001';
    END IF;
    RETURN NULL;
END;
$$;
SQL
my ($before, $refused, $after) = split /\n/, $node->safe_psql('postgres', <<'SQL');
BEGIN;
SELECT tasker.create_task('innocent');
SELECT tasker.create_task('refused');
SELECT tasker.create_task('innocent');
COMMIT;
SQL
finish("$before,$after");
wait_until($node, 'postgres', "SELECT count(*) = 1 FROM tasker.queue WHERE task_id = $refused AND lane = -1 AND due > tasker.clock()",
	'a task that can be neither run nor failed is put off');
answer('the others are complete', "SELECT DISTINCT state FROM tasker.tasks WHERE task_id IN ($before,$after)", 'complete');
answer('it is not', "SELECT state FROM tasker.tasks WHERE task_id = $refused", 'pending');
$node->safe_psql('postgres', 'DROP TRIGGER refuse ON tasker.step');
move_clock($node, 60);
finish($refused);
answer('and completes when it can', "SELECT state FROM tasker.tasks WHERE task_id = $refused", 'complete');
innocent_saw_nothing('refused again');

# After a failed batch the short lock timeout is in force again.
answer('the row was changed by nobody since', 'SELECT changed FROM shop.place WHERE id = 3', 0);
define('asks', q(result := to_jsonb(current_setting('lock_timeout'));));
($refused) = run_together('asks');
answer('the lock timeout of a batch', "SELECT results FROM tasker.workflow_steps WHERE task_id = $refused", '"100ms"');

# Two steps that deadlock.  They meet at their first run; afterwards they take
# the rows in one order.
$node->safe_psql('postgres', 'ALTER SYSTEM SET tasker.executors = 2; ALTER SYSTEM RESET tasker.lock_timeout');
$node->reload;
waits_for_workers($node, 'postgres', 2, 'a second executor');
define('deadlock', <<'SQL', declare => 'first integer := (step.context ->> \'first\')::integer;');
IF nextval('shop.both_there') > 2 THEN
    PERFORM FROM shop.place WHERE id IN (1, 2) ORDER BY id FOR UPDATE;
ELSE
    UPDATE shop.place SET changed = changed + 1 WHERE id = first;
    FOR i IN 1 .. 3000 LOOP
        EXIT WHEN (SELECT last_value FROM shop.both_there) >= 2;
        PERFORM pg_sleep(0.01);
    END LOOP;
END IF;
UPDATE shop.place SET changed = changed + 1 WHERE id = 3 - first;
SQL
my $one = $node->safe_psql('postgres', q(SELECT tasker.create_task('deadlock', '{"first": 1}')));
wait_until($node, 'postgres', 'SELECT last_value = 1 AND is_called FROM shop.both_there', 'the first of two steps runs');
my $two = $node->safe_psql('postgres', q(SELECT tasker.create_task('deadlock', '{"first": 2}')));
finish("$one,$two");
answer('two steps that deadlock complete, and no attempt is counted for it',
	"SELECT DISTINCT state, attempts FROM tasker.workflow_steps WHERE task_id IN ($one,$two)", 'complete|1');
cmp_ok($node->safe_psql('postgres', 'SELECT last_value FROM shop.both_there'), '>', 2, 'they did collide');
$node->safe_psql('postgres', 'ALTER SYSTEM SET tasker.executors = 1');
$node->reload;
waits_for_workers($node, 'postgres', 1, 'one executor again');

# One that can't be cancelled: its executor ends, and the step has failed.
# First as the second step of a chain that runs in one batch, then with two
# executors, of which the other must not go on with it.
$node->safe_psql('postgres', 'CREATE SEQUENCE shop.stubborn_runs; GRANT ALL ON shop.stubborn_runs TO shop');
define('stubborn', <<'SQL', timeout => '1 s');
PERFORM nextval('shop.stubborn_runs');
LOOP
    BEGIN
        PERFORM pg_sleep(3600);
    EXCEPTION WHEN query_canceled THEN
    END;
END LOOP;
SQL
$node->safe_psql('postgres', <<'SQL');
SELECT tasker.register_task('{"name": "stubborn_chain", "step_templates": [
    {"name": "first", "handler_class": "innocent"},
    {"name": "second", "handler_class": "stubborn", "depends_on_step": "first", "timeout": "1 s", "retry": {"limit": 1}}]}');
SQL
foreach my $case ([ 1, 'stubborn_chain' ], [ 2, 'stubborn' ])
{
	my ($executors, $name) = @$case;

	$node->safe_psql('postgres', "ALTER SYSTEM SET tasker.executors = $executors");
	$node->reload;
	waits_for_workers($node, 'postgres', $executors, "executors: $executors");
	train('stubborn');
	$node->safe_psql('postgres', 'ALTER SEQUENCE shop.stubborn_runs RESTART');
	@ids = run_together('innocent', $name, 'innocent');
	answer("$name, $executors executor(s): runs once", 'SELECT last_value, is_called FROM shop.stubborn_runs', '1|t');
	answer("$name, $executors executor(s): fails", <<"SQL", '57014|1|step outlived its timeout');
SELECT error ->> 'sqlstate', attempts, error ->> 'message'
FROM tasker.workflow_steps
WHERE task_id = $ids[1]
  AND state = 'error'
SQL
	answer("$name, $executors executor(s): the others do not",
		"SELECT DISTINCT state, attempts FROM tasker.workflow_steps WHERE task_id IN ($ids[0], $ids[2])", 'complete|1');
}
innocent_saw_nothing('stubborn');

# All that ended well did so once, and by legal moves.
answer('every move is one of the rules', <<'SQL', '0');
SELECT count(*)
FROM tasker.transitions AS t
WHERE NOT EXISTS (
    SELECT FROM tasker.transition_rules AS r
    WHERE r.machine = CASE WHEN t.step_id IS NULL THEN 'task' ELSE 'step' END
      AND r.from_state IS NOT DISTINCT FROM t.from_state
      AND r.to_state = t.to_state)
SQL
unlike(slurp_file($node->logfile), qr/terminated by signal|PANIC|TRAP|WARNING:  (?!handler|terminating)/, 'nothing broke');

$node->stop;
done_testing();
