# Everybody at once: workers outside who claim, complete, fail and forget,
# operators at random tasks, a creator, and the executors with SQL steps beside
# them.  When it is quiet again every task has ended, every history is one that
# the rules allow, and nobody was refused by a deadlock.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run qw(start finish timeout);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskerTest;
use Test::More;

my $SECONDS = 12;

my $node = new_server('races', 'max_connections = 30');
$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION tasker;
CREATE SCHEMA race;

-- What SQL steps wrote: once for each that is complete.
CREATE TABLE race.written (step_id bigint);
CREATE FUNCTION race.sure(step tasker.step_context) RETURNS jsonb
LANGUAGE sql AS $$
    INSERT INTO race.written VALUES ((step).step_id);
    SELECT jsonb '{}';
$$;
CREATE FUNCTION race.unsure(step tasker.step_context) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO race.written VALUES (step.step_id);
    IF random() < 0.3 THEN
        PERFORM tasker.retryable_error('unsure', '10 ms');
    END IF;
    RETURN '{}';
END $$;
SET client_min_messages = error;
SELECT tasker.register_handler('sure', 'race.sure');
SELECT tasker.register_handler('unsure', 'race.unsure');
SELECT tasker.register_external_handler('outside');
SELECT tasker.register_task('
name: race
step_templates:
- {name: a, handler_class: sure}
- {name: b, handler_class: outside, depends_on_steps: [a], retry: {limit: 2, base_delay: 0.02, max_delay: 0.1}}
- {name: c, handler_class: outside, depends_on_steps: [a], retry: {limit: 2, base_delay: 0.02, max_delay: 0.1}}
- {name: d, handler_class: unsure, depends_on_steps: [a], retry: {limit: 2}}
- {name: e, handler_class: outside, depends_on_steps: [b, c]}
- {name: f, handler_class: sure, depends_on_steps: [b, c, d]}
- {name: g, handler_class: unsure, depends_on_steps: [e, f], retry: {limit: 4}}
');
SELECT tasker.register_task('
name: race_stop
on_failure: stop
step_templates:
- {name: a, handler_class: outside, retry: {limit: 2, base_delay: 0.02, max_delay: 0.1}}
- {name: b, handler_class: outside, retry: {limit: 1}}
- {name: c, handler_class: unsure, retry: {limit: 1}}
- {name: d, handler_class: sure, depends_on_steps: [a, b, c]}
');

-- As many as the others can keep up with.
CREATE PROCEDURE race.create()
LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT count(*) FROM tasker.tasks WHERE state IN ('pending', 'in_progress')) > 60 THEN
        PERFORM pg_sleep(0.02);
    ELSE
        PERFORM tasker.create_tasks(CASE WHEN random() < 0.7 THEN 'race' ELSE 'race_stop' END,
                                    array_fill(jsonb '{}', ARRAY[5]),
                                    bypass_steps => CASE WHEN random() < 0.2 THEN ARRAY['b'] ELSE '{}' END,
                                    priority => (random() * 3)::integer);
    END IF;
END $$;

-- A worker outside: what it claimed it completes, mostly.  careful: always.
CREATE PROCEDURE race.work(worker text, careful boolean DEFAULT false)
LANGUAGE plpgsql AS $$
DECLARE
    all_ids bigint[];
    ids bigint[];
BEGIN
    all_ids := ARRAY(
        SELECT c.step_id
        FROM tasker.claim_steps(worker, max_steps => CASE WHEN careful THEN 200 ELSE 1 + (random() * 10)::integer END,
                                lease => CASE WHEN careful THEN interval '30 s' WHEN random() < 0.9 THEN '3 s' ELSE '50 ms' END) AS c);
    COMMIT;
    IF all_ids = '{}' THEN
        PERFORM pg_sleep(0.005);
        RETURN;
    END IF;
    IF random() < 0.3 THEN
        PERFORM tasker.heartbeat(worker, all_ids);
        COMMIT;
    END IF;
    IF careful THEN
        PERFORM tasker.complete_steps(all_ids, array_fill(jsonb '{}', ARRAY[cardinality(all_ids)]), worker);
        RETURN;
    END IF;

    ids := ARRAY(SELECT id FROM unnest(all_ids) AS id WHERE random() < 0.7);
    PERFORM tasker.complete_steps(ids, array_fill(jsonb '{}', ARRAY[cardinality(ids)]), worker);
    COMMIT;
    -- Again those that are completed already, too: they are left out.
    ids := ARRAY(SELECT id FROM unnest(all_ids) AS id WHERE random() < 0.7);
    PERFORM tasker.fail_steps(ids, array_fill(jsonb '"no"', ARRAY[cardinality(ids)]), random() < 0.8, worker);
    COMMIT;
    -- The rest is forgotten until its lease ends, or for the operators.
    IF random() < 0.8 THEN
        PERFORM tasker.heartbeat(worker, all_ids, lease => '20 ms');
    END IF;
END $$;

-- An operator at one of the latest tasks.  Who comes too late is told so.
CREATE TABLE race.refused (operation text, code text);
CREATE PROCEDURE race.operate()
LANGUAGE plpgsql AS $$
DECLARE
    task bigint := coalesce((SELECT max(task_id) FROM tasker.task), 1) - (random() * 60)::integer;
    step bigint := task << 14 | (1 + (random() * 3)::integer);
    operation text := (ARRAY['cancel_task(%1$s)', 'cancel_step(%2$s)',
        'pause_task(%1$s)', 'pause_task(%1$s)', 'pause_task(%1$s)',
        'resume_task(%1$s)', 'resume_task(%1$s)', 'resume_task(%1$s)', 'resume_task(%1$s)',
        'retry_task(%1$s)', 'retry_task(%1$s)', 'retry_step(%2$s)', 'retry_step(%2$s)',
        'resolve_task(%1$s, ''race'')', 'resolve_step(%2$s)', 'resolve_step(%2$s)',
        'update_task(%1$s, priority => 4)', 'update_step(%2$s, 3)'])[1 + floor(random() * 18)];
BEGIN
    EXECUTE format('SELECT tasker.' || operation, task, step);
EXCEPTION WHEN SQLSTATE 'TK003' OR SQLSTATE 'TK004' OR SQLSTATE 'TK007' THEN
    INSERT INTO race.refused VALUES (operation, SQLSTATE);
END $$;
SQL
waits_for_workers($node, 'postgres', 2, 'workers');

# pgbench with one script, in the background.
sub bench
{
	my ($name, $clients, $sql) = @_;
	my $script = $node->basedir . "/$name.sql";
	my ($out, $err) = ('', '');

	append_to_file($script, $sql);
	my $run = start(
		[
			'pgbench', '--no-vacuum', '--host', $node->host, '--port', $node->port,
			'--client', $clients, '--time', $SECONDS, '--file', $script, 'postgres'
		],
		'<', \undef, '>', \$out, '2>', \$err, timeout(120));
	return { name => $name, run => $run, out => \$out, err => \$err };
}

my @benches = (
	bench('work', 4, "CALL race.work('worker ' || :client_id);\n"),
	bench('operate', 2, "CALL race.operate();\n\\sleep 2 ms\n"),
	bench('create', 1, "CALL race.create();\n"));
for my $bench (@benches)
{
	ok(finish($bench->{run}), "$bench->{name}: nobody was stopped by an error") or diag(${ $bench->{err} });
	note(grep { /transactions actually|latency average/ } split /^/, ${ $bench->{out} });
}

# Quiet again: what is paused goes on, and careful workers do the rest.
$node->safe_psql('postgres', <<'SQL');
SELECT count(tasker.resume_task(task_id))
FROM tasker.tasks
WHERE state = 'paused';
SQL
my $rest = "SELECT count(*) FROM tasker.tasks WHERE state NOT IN ('complete', 'error', 'cancelled', 'resolved_manually')";
my $until = time + $PostgreSQL::Test::Utils::timeout_default;
while ($node->safe_psql('postgres', $rest) > 0 && time < $until)
{
	$node->safe_psql('postgres', "CALL race.work('careful', true);\n" x 5);
}
is($node->safe_psql('postgres', $rest), '0', 'every task has ended');
note($node->safe_psql('postgres', "SELECT state, count(*) FROM tasker.tasks GROUP BY state ORDER BY state"));
note($node->safe_psql('postgres', "SELECT operation, code, count(*) FROM race.refused GROUP BY 1, 2 ORDER BY 1, 2"));
cmp_ok($node->safe_psql('postgres', 'SELECT count(*) FROM tasker.tasks'), '>=', 100, 'and there were some');

# Read by step from here on, which the log itself is not made for.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE race.log AS
SELECT l.*, row_number() OVER step AS n, lag(l.to_state) OVER step AS before,
       row_number() OVER (PARTITION BY l.task_id, l.step_id ORDER BY l.occurred_at DESC, l.transition_id DESC) = 1 AS latest
FROM tasker.transitions AS l
WINDOW step AS (PARTITION BY l.task_id, l.step_id ORDER BY l.occurred_at, l.transition_id);
CREATE INDEX ON race.log (task_id, step_id);
CREATE INDEX ON race.log (step_id);
CREATE INDEX ON race.written (step_id);
ANALYZE;
SQL

# Every change follows from the one before, and the rules allow it.
is($node->safe_psql('postgres', <<'SQL'), '', 'every history is legal');
SELECT h.*
FROM race.log AS h
WHERE h.from_state IS DISTINCT FROM coalesce(h.before, CASE WHEN h.step_id IS NOT NULL THEN 'pending' END)
   OR NOT EXISTS (
       SELECT
       FROM tasker.transition_rules AS r
       WHERE r.machine = CASE WHEN h.step_id IS NULL THEN 'task' ELSE 'step' END
         AND r.from_state IS NOT DISTINCT FROM h.from_state
         AND r.to_state = h.to_state)
ORDER BY h.task_id, h.occurred_at
LIMIT 10
SQL
is($node->safe_psql('postgres', <<'SQL'), '', 'and ends where the task and its steps are');
WITH latest AS (
    SELECT * FROM race.log WHERE latest
)
SELECT t.task_id, NULL, t.state, l.to_state
FROM tasker.tasks AS t
LEFT JOIN latest AS l ON l.task_id = t.task_id AND l.step_id IS NULL
WHERE l.to_state IS DISTINCT FROM t.state
UNION ALL
SELECT s.task_id, s.step_id, s.state, l.to_state
FROM tasker.workflow_steps AS s
LEFT JOIN latest AS l ON l.step_id = s.step_id
WHERE coalesce(l.to_state, 'pending') <> s.state
LIMIT 10
SQL
is($node->safe_psql('postgres', <<'SQL'), '', 'no step started before what it needs');
SELECT e.*
FROM tasker.workflow_step_edges AS e
JOIN race.log AS started ON started.step_id = e.to_step_id
                        AND started.to_state = 'in_progress'
WHERE NOT EXISTS (
    SELECT
    FROM race.log AS done
    WHERE done.step_id = e.from_step_id
      AND done.to_state IN ('complete', 'resolved_manually', 'skipped')
      AND done.occurred_at <= started.occurred_at)
LIMIT 10
SQL
is($node->safe_psql('postgres', <<'SQL'), '', 'what a SQL step wrote is there once, where it is complete');
SELECT coalesce(done.step_id, w.step_id), done.times, w.times
FROM (SELECT l.step_id, count(*) AS times
      FROM race.log AS l
      JOIN tasker.task AS t USING (task_id)
      JOIN tasker.plan_step AS p ON p.plan_id = t.plan_id AND p.step_no = (l.step_id & 16383)
      WHERE l.to_state = 'complete'
        AND p.handler_class <> 'outside'
      GROUP BY l.step_id) AS done
FULL JOIN (SELECT step_id, count(*) AS times FROM race.written GROUP BY step_id) AS w USING (step_id)
WHERE (done.times, w.times) IS DISTINCT FROM (1::bigint, 1::bigint)
LIMIT 10
SQL
ok($node->poll_query_until('postgres', 'SELECT NOT EXISTS (SELECT FROM tasker.queue)'), 'nothing is left in the queue');
is($node->safe_psql('postgres', 'SELECT * FROM tasker.verify()'), '', 'verify() finds nothing')
  if $node->safe_psql('postgres', "SELECT to_regprocedure('tasker.verify()') IS NOT NULL") eq 't';

# The server had nothing to complain of.  A step that is put off to run alone,
# for a lock that it did not get in time, is no error of anybody.
my @complaints = grep { /(ERROR|FATAL|PANIC): /
	  && !/canceling statement due to lock timeout/ } split /^/, slurp_file($node->logfile);
is(join('', @complaints[ 0 .. ($#complaints < 9 ? $#complaints : 9) ]), '', 'no error in the server log');
is($node->safe_psql('postgres', "SELECT deadlocks FROM pg_stat_database WHERE datname = 'postgres'"), '0', 'no deadlock');

done_testing();
