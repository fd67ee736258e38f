# The README's first task: every statement of it works as it stands there, in
# one session, and shows what the README says that it shows.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# blocks FILE: the pairs of SQL and expected output (undef where none is given)
sub blocks
{
	my ($file) = @_;
	my $text = slurp_file($file);
	my @blocks;
	while ($text =~ /^```sql\n(.*?)^```\n(?:```text\n(.*?)^```\n)?/msg)
	{
		push @blocks, [ $1, $2 ];
	}
	return @blocks;
}

my $node = PostgreSQL::Test::Cluster->new('readme');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'tasker'");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION tasker');

my @blocks = blocks('README.md');
my $mark = "---- next block ----\n";
my $script = join("\\echo $mark", map { $_->[0] } @blocks);
my ($out, $err);
IPC::Run::run(
	[ 'psql', '--no-psqlrc', '--quiet', '--dbname=' . $node->connstr('postgres') ],
	'<', \$script, '>', \$out, '2>&1');
my @shown = split /^\Q$mark\E/m, $out, -1;

is(scalar(@shown), scalar(@blocks), 'every block was run');
foreach my $i (0 .. $#blocks)
{
	my ($sql, $expected) = @{ $blocks[$i] };
	my ($first) = $sql =~ /^(.*)$/m;
	if (defined $expected)
	{
		is($shown[$i], $expected, "shows what it says: $first");
	}
	else
	{
		unlike($shown[$i], qr/ERROR|WARNING/, "works: $first");
	}
}

$node->stop;
done_testing();
