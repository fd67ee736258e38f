# The official JSON Schema test suite, as a Debian package has it: each case of
# drafts 2020-12, 7 and 4 is valid or not, as the suite says.  What is otherwise
# stands in the table of doc/json_schema.md, and only that.
use strict;
use warnings;

use File::Find;
use FindBin;
use lib $FindBin::RealBin;

use IPC::Run;
use JSON::PP;
use List::Util qw(first);
use PostgreSQL::Test::Utils;
use TaskerTest;
use Test::More;

# Whose metaschemas the suite refers to.
my @PACKAGES = ('ajv@8.20.0', 'ajv-draft-04@1.0.0');
my $SUITE = 'auto/share/dist/Test-JSON-Schema-Acceptance';

# Those that the suite requires, at the least.
my %REQUIRED = ('2020-12' => 1_176, 7 => 861, 4 => 578);

sub files_below
{
	my ($directory) = @_;
	my @files;

	find({ no_chdir => 1, wanted => sub { push @files, $_ if /\.json$/ && -f } }, $directory);
	return sort @files;
}

sub install_metaschemas
{
	my $place = PostgreSQL::Test::Utils::tempdir;
	my $trusted = '/etc/ssl/certs/ca-certificates.crt';
	my $out = '';

	# Whom the system trusts, npm is to trust, too.
	$ENV{NODE_EXTRA_CA_CERTS} //= $trusted if -f $trusted;
	IPC::Run::run([ 'npm', 'install', '--prefix', $place, '--no-audit', '--no-fund', '--no-package-lock', '--loglevel=error', @PACKAGES ],
		'<', \undef, '>&', \$out, IPC::Run::timeout(120)) or die "npm can't install @PACKAGES: $out";
	my $refs = "$place/node_modules/ajv/dist/refs";

	return (files_below("$refs/json-schema-2020-12"), "$refs/json-schema-draft-07.json",
		"$place/node_modules/ajv-draft-04/dist/refs/json-schema-draft-04.json");
}

# From the page, its part about the suite: draft, file and group of what is otherwise.
sub listed
{
	my ($part) = slurp_file("$FindBin::RealBin/../../doc/json_schema.md") =~ /^## The official test suite\n(.*?)(?=^## |\z)/ms;
	my %listed;

	while ($part =~ /^\| ([\d, -]+) \| `(\S+)` \| (.*?) \|/mg)
	{
		my ($drafts, $file, $group) = ($1, $2, $3);

		$listed{"$_ $file: $group"} = 0 foreach split /, /, $drafts;
	}
	return \%listed;
}

my $suite = first { -d } map { "$_/$SUITE" } @INC;
defined $suite or die "the suite is not installed: Debian has it as libtest-json-schema-acceptance-perl";

my $node = new_server('json_schema_suite', "tasker.executors = 0\nclient_min_messages = error");
$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION tasker;
CREATE TABLE public.suite (draft text, file text, content json);
-- What no text may hold got past the functions for json in disguise.
CREATE FUNCTION public.jsonb_of(part json)
RETURNS jsonb
LANGUAGE sql
AS $$ SELECT replace(part::text, '\uE000', '\u0000')::jsonb $$;
-- described: by json_schema_errors(), which goes another way.
CREATE FUNCTION public.verdict(draft text, file text, schema json, instance json, described boolean)
RETURNS text
LANGUAGE plpgsql
AS $$
DECLARE
    whole jsonb;
BEGIN
    -- The suite leaves it to the folder what draft a schema is of; and formats are checked where the draft has it so.
    whole := CASE
        WHEN json_typeof(schema) <> 'object' THEN public.jsonb_of(schema)
        WHEN file LIKE 'optional/format/%' AND draft = '2020-12'
            THEN public.jsonb_of(schema) || '{"$schema": "http://localhost:1234/draft2020-12/format-assertion-true.json"}'
        ELSE jsonb_build_object('$schema', CASE draft
            WHEN '7' THEN 'http://json-schema.org/draft-07/schema#'
            WHEN '4' THEN 'http://json-schema.org/draft-04/schema#'
            ELSE 'https://json-schema.org/draft/2020-12/schema'
            END) || public.jsonb_of(schema)
        END;
    IF described THEN
        RETURN (NOT EXISTS (SELECT FROM tasker.json_schema_errors(whole, public.jsonb_of(instance))))::text;
    END IF;
    RETURN tasker.json_schema_is_valid(whole, public.jsonb_of(instance))::text;
EXCEPTION WHEN OTHERS THEN
    RETURN format('%s %s', SQLSTATE, SQLERRM);
END;
$$;
SQL

my $script = '';
foreach my $file (grep { !m!/draft(?:-next|2019-09)/! } files_below("$suite/remotes"))
{
	my $uri = 'http://localhost:1234/' . substr $file, length "$suite/remotes/";

	$script .= 'SELECT tasker.register_schema($suite$' . slurp_file($file) . "\$suite\$, '$uri');\n";
}
$script .= 'SELECT tasker.register_schema($suite$' . slurp_file($_) . "\$suite\$);\n" foreach install_metaschemas();
foreach my $draft (keys %REQUIRED)
{
	my $directory = "$suite/tests/draft$draft";

	foreach my $file (files_below($directory))
	{
		my $name = substr($file, length "$directory/") =~ s/\.json$//r;

		$script .= "INSERT INTO public.suite VALUES ('$draft', '$name', \$suite\$" . slurp_file($file) =~ s/\\u0000/\\uE000/gr . "\$suite\$);\n";
	}
}
$node->safe_psql('postgres', $script);

my $results = decode_json($node->safe_psql('postgres', <<'SQL'));
SELECT json_agg(json_build_object(
    'draft', s.draft, 'file', s.file, 'group', g ->> 'description', 'test', t ->> 'description', 'wanted', t ->> 'valid',
    'got', public.verdict(s.draft, s.file, g -> 'schema', t -> 'data', false),
    'described', public.verdict(s.draft, s.file, g -> 'schema', t -> 'data', true)))
FROM public.suite AS s,
    json_array_elements(s.content) AS g,
    json_array_elements(g -> 'tests') AS t
SQL

my $listed = listed();
my %required;
my (@wrong, @otherwise, @divided);

foreach my $case (@$results)
{
	my $name = "$case->{draft} $case->{file}: $case->{group}";

	$required{ $case->{draft} }++ unless $case->{file} =~ m!^optional/!;
	push @divided, "$name: $case->{test}: $case->{got}, but $case->{described}" if $case->{got} ne $case->{described};
	next if $case->{got} eq $case->{wanted};
	push @otherwise, $name if exists $listed->{$name};
	push @wrong, "$name: $case->{test}: is $case->{wanted}, but $case->{got}" unless exists $listed->{$name};
}
cmp_ok($required{$_} // 0, '>=', $REQUIRED{$_}, "the suite has all that draft $_ requires") foreach sort keys %REQUIRED;
is(join("\n", @wrong), '', 'all of ' . scalar(@$results) . ' cases are as the suite says, but those that doc/json_schema.md lists');
is(join("\n", @divided), '', 'the verdict alone is that of the list of problems');
$listed->{$_}++ foreach @otherwise;
is(join(', ', grep { !$listed->{$_} } sort keys %$listed), '', 'and those are otherwise');

# What one session has compiled follows what another stores.
my $session = session($node, 'postgres');
my $question = q(SELECT tasker.json_schema_is_valid('{"$ref": "urn:test:size"}', '5'));
$node->safe_psql('postgres', q(SELECT tasker.register_schema('{"minimum": 1}', 'urn:test:size')));
is($session->query($question), 't', 'a stored schema is used');
$node->safe_psql('postgres', q(SELECT tasker.register_schema('{"minimum": 10}', 'urn:test:size', true)));
is($session->query($question), 'f', 'and so is what takes its place');
$session->query('BEGIN ISOLATION LEVEL REPEATABLE READ; ' . $question);
$node->safe_psql('postgres', q(SELECT tasker.register_schema('{"minimum": 2}', 'urn:test:size', true)));
is($session->query($question), 't', 'also in a transaction with an older snapshot');
$session->query('COMMIT');
is($session->query($question), 't', 'and after it');
is($session->query("BEGIN; SELECT FROM tasker.register_schema('{\"maximum\": 2}', 'urn:test:size', true); $question; ROLLBACK"), "f", 'what is stored in the same transaction counts');
is($session->query($question), 't', 'until it is rolled back');
$session->quit;

# A dump brings the stored schemas along.
$node->safe_psql('postgres', 'CREATE DATABASE copy');
my $dump = PostgreSQL::Test::Utils::tempdir . '/dump.sql';
$node->command_ok([ 'pg_dump', '--no-sync', '--file', $dump, '--dbname', $node->connstr('postgres') ], 'dumped');
$node->command_ok([ 'psql', '-X', '--quiet', '--set=ON_ERROR_STOP=1', '--file', $dump, '--dbname', $node->connstr('copy') ], 'restored');
is($node->safe_psql('copy', q(SELECT schema FROM tasker.schemas WHERE uri = 'urn:test:size')), '{"minimum": 2}', 'with what was stored');
is($node->safe_psql('copy', $question), 't', 'which is used there');
$node->stop;

done_testing();
