# The pages in Chromium: what moves while one looks, what may be done, at two
# sizes, in both themes, by keyboard, and what axe says of it (pages.mjs).
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run;
use PostgreSQL::Test::Utils;
use TaskerTest;
use Test::More;

my @PACKAGES = ('playwright-core@1.65.1', 'axe-core@4.14.1');

my $node = new_server('pages', 'tasker.executors = 2');
install_tasker($node, 'postgres');
$node->safe_psql('postgres', <<'SQL');
SELECT tasker.register_task($$
name: greet
namespace_name: shop
step_templates:
  - {name: hello, handler_class: quick}
$$);
SELECT tasker.register_task($$
name: place_order
namespace_name: shop
version: 2.1.0
description: Takes an order from the cart to the door.
schema:
  type: object
  required: [order_id]
  properties:
    order_id: {type: integer, minimum: 1, description: Number of the order}
    express: {type: boolean, default: false}
    country: {type: string, enum: [DE, FR, NL], default: DE}
step_templates:
  - {name: reserve, handler_class: outside}
  - {name: charge, handler_class: outside, depends_on_step: reserve}
  - {name: invoice, handler_class: outside, depends_on_step: charge}
  - {name: pack, handler_class: outside, depends_on_steps: [reserve, charge]}
  - {name: send, handler_class: outside, depends_on_steps: [pack, invoice]}
$$);
SQL

# npm brings the driver and axe; Chromium is the system's.
my $place = PostgreSQL::Test::Utils::tempdir();
my $trusted = '/etc/ssl/certs/ca-certificates.crt';
my $out = '';
$ENV{NODE_EXTRA_CA_CERTS} //= $trusted if -f $trusted;
IPC::Run::run([ 'npm', 'install', '--prefix', $place, '--no-audit', '--no-fund', '--no-package-lock', '--loglevel=error', @PACKAGES ],
	'<', \undef, '>&', \$out, IPC::Run::timeout(180)) or die "npm can't install @PACKAGES: $out";

# As they are installed.
chomp(my $share = `pg_config --sharedir`);
local %ENV = (%ENV, NPM_PLACE => $place, TASKER_AGENT_PAGES => "$share/tasker/pages", PGHOST => $node->host, PGPORT => $node->port, PGDATABASE => 'postgres');
my $rest = '';
my $is_done = 0;
my $read = sub {
	$rest .= $_[0];
	while ($rest =~ s/^(.*)\n//)
	{
		my $line = $1;

		if ($line =~ /^(not )?ok - (.*)/) { ok(!$1, $2) }
		elsif ($line eq 'done') { $is_done = 1 }
		else { diag($line) }
	}
};
IPC::Run::run([ 'node', "$FindBin::RealBin/pages.mjs" ], '<', \undef, '>', $read, '2>', sub { diag($_[0]) },
	IPC::Run::timeout(900));
ok($is_done, 'It came to its end');

$node->stop;
done_testing();
