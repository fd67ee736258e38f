# The example shop, as ./bootstrap demo runs it: what is told to newcomers is
# true, and the shop's books are in order afterwards.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('shop');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'tasker'");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION tasker');

foreach my $part (qw(schema data handlers run))
{
	$node->command_ok(
		[
			'psql', '--no-psqlrc', '--quiet', '--set=ON_ERROR_STOP=1',
			'--dbname=' . $node->connstr('postgres'),
			"--file=example/order/$part.sql"
		],
		"$part.sql runs");
}

# answer QUESTION, SQL, EXPECTED
sub answer
{
	my ($name, $sql, $expected) = @_;
	is($node->safe_psql('postgres', $sql), $expected, $name);
	return;
}

answer('99 carts are ordered, one can never be',
	'SELECT state, count(*) FROM tasker.tasks GROUP BY state ORDER BY state',
	"complete|99\nerror|1");
answer('it is the one with the discontinued product', q(
SELECT t.context ->> 'cart_id', s.name, s.attempts, s.error ->> 'sqlstate'
FROM tasker.workflow_steps AS s
JOIN tasker.tasks AS t USING (task_id)
WHERE s.state = 'error'), '13|validate_products|1|TK001');
answer('what the bank declined at first was tried again', q(
SELECT count(*), min(attempts), max(attempts)
FROM tasker.workflow_steps
WHERE name = 'create_order'
  AND state = 'complete'
  AND attempts > 1), '10|2|2');
answer('each order is made, paid and published once', q(
SELECT (SELECT count(*) FROM shop.orders),
       (SELECT count(*) FROM shop.payments),
       (SELECT count(*) FROM shop.outbox)), '99|99|99');
answer('stock taken is stock ordered', 'SELECT count(*) FROM shop.stock_differences', '0');
answer('each finished step made its order', 'SELECT count(*) FROM shop.order_differences', '0');
answer('the handlers ran as the shop', q(
SELECT count(DISTINCT run_as), min(run_as)
FROM tasker.handler), '1|shop_owner');

$node->stop;
done_testing();
