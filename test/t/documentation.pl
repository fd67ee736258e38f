# The pages that say what the code says: settings, states, errors, reference.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Utils;
use TaskerTest;
use Test::More;

sub page
{
	my ($name) = @_;

	return slurp_file("$FindBin::RealBin/../../doc/$name");
}

# The rows of a page's tables whose first cell looks like this, cell by cell.
sub rows
{
	my ($text, $first) = @_;
	my @rows;

	for my $line (split /\n/, $text)
	{
		next unless $line =~ /^\| $first \|/;
		my (undef, @cells) = split /\s*(?<!\\)\|\s*/, $line, -1;
		pop @cells;
		push @rows, [ map { my $cell = $_; $cell =~ s/^`(.*)`$/$1/; $cell } @cells ];
	}
	return @rows;
}

sub lines
{
	return join("\n", @_);
}

my $node = new_server('documentation', '');
$node->safe_psql('postgres', 'CREATE EXTENSION tasker');

# Every setting of the page as the server has it, and no other.
my @settings = map { join ' ', @{$_}[0 .. 3] } rows(page('settings.md'), '`tasker\.\w+`');
is(lines(@settings), $node->safe_psql('postgres', <<'SQL'), 'doc/settings.md has every setting as it is');
SELECT concat_ws(' ', name, boot_val, coalesce(unit, ''), context)
FROM pg_settings
WHERE name LIKE 'tasker.%'
ORDER BY name COLLATE "C"
SQL

# Both machines, as tables and as diagrams.
my ($task, $step) = page('states.md') =~ /^## Task\n(.*)^## Step\n(.*)/ms;
my %text = (task => $task, step => $step);

for my $machine (qw(task step))
{
	my @rules = map { s/\(nothing\)/[*]/r } map { join '|', @$_ } rows($text{$machine}, '(?:`\w+`|\(nothing\))');
	my @arrows = $text{$machine} =~ /^    (\S+ --> \w+)$/mg;

	is(lines(@rules), $node->safe_psql('postgres', <<"SQL"), "doc/states.md has every rule of a $machine");
SELECT concat_ws('|', coalesce(from_state, '[*]'), to_state, event, meaning)
FROM tasker.transition_rules
WHERE machine = '$machine'
SQL
	@arrows = grep { $_ ne '[*] --> pending' } @arrows if $machine eq 'step';
	is(lines(@arrows), $node->safe_psql('postgres', <<"SQL"), "and an arrow for each");
SELECT concat(coalesce(from_state, '[*]'), ' --> ', to_state)
FROM tasker.transition_rules
WHERE machine = '$machine'
SQL
}

# The codes of class TK: those that the header defines, each with a row.
my $header = slurp_file("$FindBin::RealBin/../../src/tasker.h");
my @defined = map { join '', /'(\w)'/g } $header =~ /MAKE_SQLSTATE\(('T',.*)\)/g;
my @described = map { $_->[0] } rows(page('errors.md'), '`TK\d+`');
is(lines(@described), lines(sort @defined), 'doc/errors.md has every SQLSTATE of class TK');

# The reference is what `make doc` makes of the comments.
my ($reference, $errors) = run_command(
	[
		'psql', '-XqAt', '-d', $node->connstr('postgres'),
		'-f', "$FindBin::RealBin/../reference.sql"
	]);
is($errors, '', 'the reference can be made');
ok($reference . "\n" eq page('reference.md') || $reference eq page('reference.md'),
	'doc/reference.md is what make doc makes')
  or diag('Run `make doc`, and look at what it changes.');

# Every page is listed, and what is linked to is there.
for my $file (glob "$FindBin::RealBin/../../doc/*.md")
{
	my ($name) = $file =~ m{([^/]+)$};

	like(page('index.md'), qr/\($name\)/, "doc/index.md lists $name") if $name ne 'index.md';
	for my $target (slurp_file($file) =~ /\]\(([^)#:]+)(?:#[^)]*)?\)/g)
	{
		ok(-e "$FindBin::RealBin/../../doc/$target", "$name: $target is there");
	}
}

$node->stop;
done_testing();
