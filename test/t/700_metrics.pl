# What a monitoring system reads: the text is what the format asks for; counters
# are exact, whoever commits late, and never fall, through a restart, a crash,
# a dump and on a standby; and none of it costs what is finished.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskerTest;
use Test::More;

# Tasks behind us, and rows of theirs that a question about now may read.
my $TASKS = 20_000;
my $ROWS = 100;

my $node = new_server('metrics', "tasker.executors = 1\n");
install_tasker($node, 'postgres');
create_handlers($node, 'postgres',
	second_time => "    IF step.attempt < 2 THEN PERFORM tasker.retryable_error('later', interval '0'); END IF; RETURN '{}';\n");
$node->safe_psql('postgres', <<'SQL');
SELECT tasker.register_task('{"name": "retried", "namespace_name": "a \"quoted\" \\ one", "step_templates": [{"name": "only", "handler_class": "second_time"}]}');
SQL

# Parses the text format; dies where it is not one.  Returns the value of each series.
sub parse
{
	my ($text) = @_;
	my (%type, %help, %value, %closed, $family);
	my $label = qr/[a-zA-Z_]\w*="(?:[^"\\\n]|\\[\\n"])*"/;

	die "the last line has no end\n" if $text !~ /\n\z/;
	for my $line (split /\n/, $text)
	{
		if ($line =~ /^# HELP ([a-zA-Z_:][\w:]*) ((?:[^\\]|\\[\\n])*)$/)
		{
			die "HELP of $1 twice\n" if $help{$1}++;
			$closed{$family} = 1 if defined $family;
			$family = $1;
			next;
		}
		if ($line =~ /^# TYPE ([a-zA-Z_:][\w:]*) (counter|gauge|histogram)$/)
		{
			die "TYPE of $1 without its HELP\n" if !defined $family || $family ne $1;
			die "TYPE of $1 twice\n" if $type{$1};
			$type{$1} = $2;
			next;
		}
		$line =~ /^([a-zA-Z_:][\w:]*)(?:\{($label(?:,$label)*)\})? (\S+)$/ or die "not a sample: $line\n";
		my ($name, $labels, $number) = ($1, $2 // '', $3);
		my $base = $name;
		$base =~ s/_(?:bucket|sum|count)$// if !$type{$name};
		die "$name has no type\n" if !$type{$base};
		die "$name is a histogram\n" if $type{$base} eq 'histogram' && $base eq $name;
		die "samples of $base are not together\n" if $base ne $family || $closed{$base};
		die "$name is no counter\n" if ($name =~ /_total$/) != ($type{$base} eq 'counter');
		die "$number is no number\n" if $number !~ /^-?\d+(?:\.\d+)?(?:e[-+]?\d+)?$/;
		my %seen;
		$seen{$_}++ && die "label $_ twice in $line\n" for $labels =~ /([a-zA-Z_]\w*)="/g;
		die "$name\{$labels\} twice\n" if exists $value{"$name\{$labels\}"};
		$value{"$name\{$labels\}"} = $number;
	}
	check_histogram(\%value, $_) for grep { $type{$_} eq 'histogram' } keys %type;
	return \%value;
}

# Buckets rise, and the last of them is the count.
sub check_histogram
{
	my ($value, $name) = @_;
	my %buckets;

	for my $series (grep { /^${name}_bucket\{/ } keys %$value)
	{
		$series =~ /^${name}_bucket\{(.*),le="([^"]+)"\}$/ or die "$series has no le at its end\n";
		$buckets{$1}{ $2 eq '+Inf' ? 9**9**9 : $2 } = $value->{$series};
	}
	die "$name has sums and no buckets\n" if grep { /^${name}_count/ } keys %$value and !%buckets;
	while (my ($labels, $of) = each %buckets)
	{
		my $before = 0;

		for my $bound (sort { $a <=> $b } keys %$of)
		{
			die "a bucket of $name\{$labels\} falls\n" if $of->{$bound} < $before;
			$before = $of->{$bound};
		}
		die "$name\{$labels\} has no last bucket\n" if !exists $of->{ 9**9**9 };
		die "the buckets of $name\{$labels\} are not its count\n" if $before != $value->{"${name}_count\{$labels\}"};
		die "$name\{$labels\} has no sum\n" if !exists $value->{"${name}_sum\{$labels\}"};
	}
	return;
}

sub scrape
{
	my ($server, $database) = @_;

	return parse($server->safe_psql($database // 'postgres', 'SELECT tasker.metrics()') . "\n");
}

# No series that only rises has fallen or gone.
sub falls
{
	my ($old, $new) = @_;

	return grep { /_(?:total|bucket|count|sum)\{/ && ($new->{$_} // -1) < $old->{$_} } sort keys %$old;
}

sub created
{
	return $_[0]->{'tasker_tasks_created_total{namespace="default",task="quick",version="0.1.0"}'} // 0;
}

# Series that differ from what the views say.
sub differences
{
	my ($server, $database) = @_;
	my $is = scrape($server, $database);
	my %should = map { /^(.*) (\d+)$/ } split /\n/, $server->safe_psql($database // 'postgres', <<'SQL');
SELECT format('tasker_tasks{namespace="%s",state="%s"} %s', replace(replace(namespace, '\', '\\'), '"', '\"'), state, count(*))
FROM tasker.tasks GROUP BY namespace, state
UNION ALL
SELECT format('tasker_steps{namespace="%s",state="%s"} %s', replace(replace(t.namespace, '\', '\\'), '"', '\"'), s.state, count(*))
FROM tasker.workflow_steps AS s JOIN tasker.tasks AS t USING (task_id) GROUP BY t.namespace, s.state
UNION ALL
SELECT format('tasker_step_attempts_total{namespace="%s",task="%s",step="only"} %s', replace(replace(t.namespace, '\', '\\'), '"', '\"'), t.name, sum(s.attempts))
FROM tasker.workflow_steps AS s JOIN tasker.tasks AS t USING (task_id) GROUP BY t.namespace, t.name HAVING sum(s.attempts) > 0
UNION ALL
SELECT format('tasker_tasks_created_total{namespace="%s",task="%s",version="0.1.0"} %s', replace(replace(t.namespace, '\', '\\'), '"', '\"'), t.name, count(*))
FROM tasker.tasks AS t GROUP BY t.namespace, t.name
SQL

	return grep { ($is->{$_} // 0) != $should{$_} } sort keys %should;
}

is(created(scrape($node)), 0, 'an empty database has metrics');

# Late commits: the folds go past the open transaction, and count it when it is there.
my $late = session($node, 'postgres');
$late->query_safe('BEGIN');
$late->query_safe(q{SELECT tasker.create_task('quick', run_at => now() + interval '1 day')});
my $cursor = $node->safe_psql('postgres', 'SELECT coalesce(max(tick_id), 0) FROM tasker.metric_cursor');
$node->safe_psql('postgres', <<"SQL");
SELECT count(*) FROM tasker.create_tasks('quick', array_fill('{}'::jsonb, ARRAY[$TASKS]));
SELECT count(*) FROM tasker.create_tasks('retried', array_fill('{}'::jsonb, ARRAY[100]), namespace => 'a "quoted" \\ one');
SQL
my $before = scrape($node);
is(created($before), $TASKS, 'what is committed is counted at once, what is not is not');
$node->poll_query_until('postgres', "SELECT tick_id > $cursor AND cardinality(running) > 0 FROM tasker.metric_cursor")
  or die 'nothing is folded';
is(created(scrape($node)), $TASKS, 'nor when it is passed by');
$late->query_safe('COMMIT');
$late->quit;
is(created(scrape($node)), $TASKS + 1, 'it is when it commits');

# While it runs: exact in each snapshot, and nothing falls.
for my $round (1 .. 10)
{
	my $now = scrape($node);

	is(join(' ', falls($before, $now)), '', "nothing falls in round $round");
	$before = $now;
}
$node->poll_query_until('postgres', 'SELECT count(*) = 1 FROM tasker.queue') or die 'the tasks do not run';
is(join(' ', differences($node)), '', 'the figures are those of the views');
is(scrape($node)->{'tasker_step_retries_total{namespace="a \"quoted\" \\\\ one",task="retried",step="only"}'}, 100, 'each retry is counted once');
$node->poll_query_until('postgres', <<'SQL') or die 'not all is folded';
SELECT (SELECT events FROM tasker.tick ORDER BY tick_id DESC LIMIT 1) - events < 10000 FROM tasker.metric_cursor
SQL
is(join(' ', differences($node)), '', 'and are when they are folded');

# Two questions in one snapshot have one answer, whatever happens between.
is($node->safe_psql('postgres', <<'SQL'), 't', 'one snapshot, one answer');
BEGIN ISOLATION LEVEL REPEATABLE READ;
CREATE TEMPORARY TABLE first AS SELECT * FROM tasker._states_now();
SELECT NOT EXISTS (SELECT * FROM tasker._states_now() EXCEPT SELECT * FROM first);
COMMIT;
SQL

# A restart and a crash.
$before = scrape($node);
$node->restart;
is(join(' ', falls($before, scrape($node))), '', 'nothing falls at a restart');
$node->safe_psql('postgres', q{SELECT count(*) FROM tasker.create_tasks('quick', array_fill('{}'::jsonb, ARRAY[3000]))});
$before = scrape($node);
$node->stop('immediate');
$node->start;
is(created(scrape($node)), $TASKS + 3001, 'nor at a crash');
$node->poll_query_until('postgres', 'SELECT count(*) = 1 FROM tasker.queue') or die 'the tasks do not run after the crash';
is(join(' ', falls($before, scrape($node))), '', 'and what ran since is added');
is(join(' ', differences($node)), '', 'exactly');

# A standby, where nothing can be written.
$node->backup('standby');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'standby', has_streaming => 1);
$standby->start;
$node->safe_psql('postgres', q{SELECT count(*) FROM tasker.create_tasks('quick', array_fill('{}'::jsonb, ARRAY[10]), run_at => now() + interval '1 day')});
$node->wait_for_catchup($standby, 'replay');
is(created(scrape($standby)), $TASKS + 3011, 'a standby has the same figures');
is($standby->safe_psql('postgres', 'SELECT pending_tasks FROM tasker.system_health()'), 11, 'and answers the other questions');
$standby->stop;

# A dump takes the figures along.
my $dump = "$PostgreSQL::Test::Utils::tmp_check/metrics.sql";
$node->command_ok([ 'pg_dump', '-f', $dump, $node->connstr('postgres') ], 'a dump');
$node->safe_psql('postgres', 'CREATE DATABASE copy');
$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', $dump, $node->connstr('copy') ], 'is restored');
is(created(scrape($node, 'copy')), $TASKS + 3011, 'with the figures');
is(join(' ', differences($node, 'copy')), '', 'and those of the states');
$node->safe_psql('copy', 'SELECT tasker.activate()');
is($node->safe_psql('copy', q{SELECT tasker.create_task('quick') AS id \gset} . "\nSELECT tasker.wait_for_task(:id)"), 'complete', 'a task runs there');
is(created(scrape($node, 'copy')), $TASKS + 3012, 'and is counted');
is(join(' ', differences($node, 'copy')), '', 'exactly');

# What is finished costs nothing: two hours later none of it is read again.
$node->poll_query_until('postgres', <<'SQL') or die 'not all is folded';
SELECT (SELECT events FROM tasker.tick ORDER BY tick_id DESC LIMIT 1) - events < 10000 FROM tasker.metric_cursor
SQL
$node->safe_psql('postgres', 'SELECT tasker._fold_metrics(0)');
for my $call (
	'system_health()', 'metrics()', 'analytics_metrics()',
	map { "$_(tasker.clock() - interval '1 hour')" } qw(slowest_tasks slowest_steps bottlenecks))
{
	my (undef, $read) = split /\n/, $node->safe_psql('postgres', <<"SQL");
SET tasker.clock_offset = 7200;
BEGIN;
SELECT count(*) FROM tasker.$call;
SELECT sum(seq_tup_read + idx_tup_fetch)
FROM pg_stat_xact_all_tables
WHERE relid IN ('tasker.log'::regclass, 'tasker.task'::regclass, 'tasker.step'::regclass);
COMMIT;
SQL

	cmp_ok($read, '<', $ROWS, "$call reads $read rows of what is finished");
}
$node->stop;

done_testing();
