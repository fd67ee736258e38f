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

# The keys of a definition: each with its type, default, example and meaning.
my $definition = page('definition.md');
my @scopes = (
	[ task => 'Keys of a task' ], [ step => 'Keys of a step' ], [ retry => '`retry`' ],
	[ api => 'HTTP steps' ], [ event => 'Events' ]);
my %kind = (
	name => 'name', event_name => 'event name', version => 'string', string => 'string', boolean => 'true or false',
	strings => 'list of strings', steps => 'list of steps', events => 'list of events', object => 'mapping',
	any => 'anything', duration => 'duration', on_failure => '`continue` or `stop`', integer => 'whole number');

for my $scope (@scopes)
{
	my ($name, $title) = @$scope;
	my ($section) = $definition =~ /^##+ \Q$title\E\n(.*?)(?=^##+ )/ms;
	my @keys = map { [ split /\|/, $_, -1 ] } split /\n/, $node->safe_psql('postgres', <<"SQL");
SELECT key, kind, low, high, required, default_value #>> '{}', example, meaning
FROM tasker._definition_keys()
WHERE scope = '$name'
SQL
	my (@said, @known);

	for my $row (rows($section, '`\w+`'))
	{
		my ($key, $type, $default, $meaning, $example) = @$row;

		# Links and code are for the page.
		$meaning =~ s/\[([^\]]*)\]\([^)]*\)/$1/g;
		$meaning =~ s/`//g;
		push @said, "$key: $type, $meaning ($example)";
		my ($known) = grep { $_->[0] eq $key } @keys;
		next if !$known;
		my (undef, $kind, $low, $high, $required, $value) = @$known;
		like($default, $required eq 't' ? qr/^required$/ : $value ne '' ? qr/\Q$value\E/ : qr/^(?!required$)/,
			"doc/definition.md has the default of $key of a $name");
	}
	for my $key (@keys)
	{
		my ($name, $kind, $low, $high, $required, $value, $example, $meaning) = @$key;
		my $type = $kind eq 'number' ? ($high ne '' ? "number from $low to $high" : 'number') : $kind{$kind};

		push @known, "$name: " . ($type =~ s/^`(.*)`$/$1/r) . ", $meaning ($example)";
	}
	is(lines(@said), lines(@known), "doc/definition.md has every key of a $name");
}

# The rules of lint_task().
my ($rules) = $definition =~ /^### Rules of `lint_task`\n(.*?)^##+ /ms;
is(lines(map { join '|', @$_ } rows($rules, '`\w+`')),
	$node->safe_psql('postgres', 'SELECT rule, meaning FROM tasker._lint_rules()'),
	'doc/definition.md has every rule of lint_task()');

# The metrics.
is(lines(map { join '|', @$_ } rows(page('telemetry.md'), '`tasker_\w+`')), $node->safe_psql('postgres', <<'SQL'), 'doc/telemetry.md has every metric');
SELECT name, type, array_to_string(labels, ', '), help
FROM tasker._metric_definitions()
ORDER BY place
SQL

# The permissions.
is(lines(map { join '|', @$_ } rows(page('access.md'), '`\w+:\w+`')),
	$node->safe_psql('postgres', q{SELECT permission, array_to_string(sets, ', '), description FROM tasker.permissions}),
	'doc/access.md has every permission');

# What editors read is what the function says.
is(slurp_file("$FindBin::RealBin/../../src/definition/definition.schema.json"),
	$node->safe_psql('postgres', 'SELECT jsonb_pretty(tasker.definition_schema())') . "\n",
	'src/definition/definition.schema.json is what make doc makes');

# Every definition that a page or an example shows is one to an editor, too.
my @shown;
for my $file (glob("$FindBin::RealBin/../../{README.md,doc/*.md,example/*/*.md}"))
{
	push @shown, grep { /^name: .*^step_templates:/ms } slurp_file($file) =~ /^```yaml\n(.*?)^```/msg;
}
push @shown, map { slurp_file($_) } glob("$FindBin::RealBin/../../example/*/*.yaml");
cmp_ok(scalar @shown, '>', 1, 'definitions are shown');
for my $shown (@shown)
{
	my ($name) = $shown =~ /^name: (.*)/m;

	is($node->safe_psql('postgres', <<"SQL"), '', "the definition of $name satisfies the schema");
SELECT e FROM tasker.json_schema_errors(tasker.definition_schema(), tasker.yaml_to_jsonb(\$definition\$$shown\$definition\$)) AS e
SQL
}

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
