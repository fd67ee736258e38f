# Ten thousand templates: creating a task of one costs what it does with ten.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use TaskerTest;
use Test::More;
use Time::HiRes qw(time);

use constant { REGISTERED => 500, TEMPLATES => 10_000 };

my $node = new_server('templates', "tasker.executors = 0\nfsync = off\n");
install_tasker($node, 'postgres');

sub register
{
	my ($from, $to) = @_;

	$node->safe_psql('postgres', <<"SQL");
SELECT count(tasker.register_task(format(
	\$\$
name: task %s
namespace_name: "team %s"
version: %s.0.0
schema: {type: object, properties: {id: {type: integer, default: 1}}}
step_templates:
  - {name: a, handler_class: quick}
  - {name: b, handler_class: quick, depends_on_step: a}
environments: {live: {priority: 5}}
\$\$, n / 4, n % 7, n % 4)))
FROM generate_series($from, $to) AS n;
SQL
	return;
}

# As many again, by the rows that registering makes.
sub copy
{
	my ($times) = @_;

	$node->safe_psql('postgres', <<"SQL");
CREATE TEMPORARY TABLE copied AS
SELECT t AS template, nextval('tasker.template_id_seq')::integer AS template_id, t.name || ' of ' || copy AS name
FROM tasker.template AS t
CROSS JOIN generate_series(1, $times) AS copy
WHERE t.namespace LIKE 'team %';
INSERT INTO tasker.template
SELECT (jsonb_populate_record(template, jsonb_build_object('template_id', template_id, 'name', name))).*
FROM copied;
CREATE TEMPORARY TABLE copied_plan AS
SELECT p AS plan, c.template_id, c.name, nextval('tasker.plan_id_seq')::integer AS plan_id
FROM copied AS c
JOIN tasker.plan AS p ON p.template_id = (c.template).template_id;
INSERT INTO tasker.plan
SELECT (jsonb_populate_record(plan, jsonb_build_object('plan_id', plan_id, 'template_id', template_id, 'name', name))).*
FROM copied_plan;
INSERT INTO tasker.plan_step
SELECT (jsonb_populate_record(s, jsonb_build_object('plan_id', c.plan_id))).*
FROM copied_plan AS c
JOIN tasker.plan_step AS s ON s.plan_id = (c.plan).plan_id;
SQL
	return;
}

# Pages of shared memory that the second of two calls reads: the first one has
# filled the session's caches.  Without a version, and with one.
sub buffers
{
	my @counts;

	for my $version ('NULL', "''1.0.0''")
	{
		push @counts, $node->safe_psql('postgres', <<"SQL");
CREATE FUNCTION pg_temp.buffers()
RETURNS bigint
LANGUAGE plpgsql
AS \$\$
DECLARE
	plan json;
BEGIN
	FOR i IN 1 .. 2 LOOP
		EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON)
			SELECT tasker.create_task(''task 1'', namespace => ''team 5'', version => $version)'
			INTO plan;
	END LOOP;
	RETURN (plan -> 0 -> 'Plan' ->> 'Shared Hit Blocks')::bigint + (plan -> 0 -> 'Plan' ->> 'Shared Read Blocks')::bigint;
END;
\$\$;
SELECT pg_temp.buffers();
SQL
	}
	return @counts;
}

register(1, 10);
$node->safe_psql('postgres', 'VACUUM ANALYZE');
my @few = buffers();
my $start = time;
register(11, REGISTERED);
note(sprintf '%.2f ms a registration', 1000 * (time - $start) / (REGISTERED - 10));
copy(TEMPLATES / REGISTERED - 1);
is($node->safe_psql('postgres', q(SELECT count(*) FROM tasker.template WHERE namespace LIKE 'team %')), TEMPLATES, 'so many templates');
is($node->safe_psql('postgres', 'SELECT count(*) FROM tasker.verify()'), 0, 'all of them sound');

# With and without statistics the index is what is read.
for my $when ('before', 'after')
{
	$node->safe_psql('postgres', 'VACUUM ANALYZE') if $when eq 'after';
	my @many = buffers();

	note("buffers with 10 templates: @few; with ${\TEMPLATES}, $when ANALYZE: @many");
	# An index of 10,000 entries has one level more than one of 10; four are read.
	cmp_ok($many[$_], '<=', $few[$_] + 8, "create_task reads no more pages, $when ANALYZE, " . ($_ ? 'with a version' : 'of the highest version'))
	  for 0, 1;
}

$node->stop;
done_testing();
