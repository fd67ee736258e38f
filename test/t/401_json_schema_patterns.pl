# Patterns by chance, matched as Node's own regular expressions of ECMA-262 match
# them with the flag u: by the automaton, and by PostgreSQL's.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run;
use PostgreSQL::Test::Utils;
use TaskerTest;
use Test::More;

my $PATTERNS = 3_000;
my $SEED = 20_261_125;

# Writes a list of {pattern, text, matches}.
my $PRINT = <<'JS';
let state = Number(process.argv[2]);
const below = (n) => {
  state = (state * 1103515245 + 12345) & 0x7fffffff;
  return (state >> 8) % n;
};
const one = (list) => list[below(list.length)];
const times = (n, make) => Array.from({ length: n }, make).join('');
const characters = [...'ab01é😀_ -'];
const literal = () => one(characters).replace(' ', '\\u0020');
const classes = () => one(['.', '\\d', '\\D', '\\w', '\\W', '\\s', '\\S', '[a-b]', '[^0-9é]', '[\\w]', '[\\s\\-]', '[^😀a]', '[\\D]']);
const group = (depth) => one(['(', '(?:', `(?<n${names++}>`]) + choice(depth) + ')';
const look = () => one(['(?=', '(?!', '(?<=', '(?<!']) + choice(0) + ')';
let names = 0;

function term(depth) {
  if (below(12) === 0) return one(['^', '$', '\\b', '\\B']);
  if (depth > 0 && below(12) === 0) return look();
  const atom = depth > 0 && below(3) === 0 ? group(depth - 1) : one([literal, literal, classes])();
  return atom + one(['', '', '', '', '*', '+', '?', '{2}', '{1,3}', '{0,2}?', '*?', '{2,}']);
}

const sequence = (depth) => times(1 + below(4), () => term(depth));
const choice = (depth) => sequence(depth) + one(['', '', '|', `|${sequence(depth)}`]);

const cases = [];
for (let i = 0; i < Number(process.argv[3]); i++) {
  names = 0;
  const pattern = one(['', '^']) + choice(2) + one(['', '$']);
  const regex = new RegExp(pattern, 'u');
  for (let k = 0; k < 5; k++) {
    const text = times(below(7), () => one(characters));
    cases.push({ pattern, text, matches: regex.test(text) });
  }
}
process.stdout.write(JSON.stringify(cases));
JS

my $place = PostgreSQL::Test::Utils::tempdir;
my ($cases, $err) = ('', '');

append_to_file("$place/print.mjs", $PRINT);
IPC::Run::run([ 'node', "$place/print.mjs", $SEED, $PATTERNS ], '<', \undef, '>', \$cases, '2>', \$err) or die "node: $err";

my $node = new_server('json_schema_patterns', "tasker.executors = 0\nclient_min_messages = error");
$node->safe_psql('postgres', <<"SQL");
CREATE EXTENSION tasker;
CREATE TABLE public.result AS
SELECT c ->> 'pattern' AS pattern, c ->> 'text' AS text, (c ->> 'matches')::boolean AS wanted,
    tasker.json_schema_is_valid(jsonb_build_object('pattern', c -> 'pattern'), c -> 'text') AS got,
    -- What looks around is PostgreSQL's; this adds nothing that matches.
    tasker.json_schema_is_valid(jsonb_build_object('pattern', format('(?:%s)|(?!)', c ->> 'pattern')), c -> 'text') AS got_by_server
FROM jsonb_array_elements(\$cases\$$cases\$cases\$) AS c;
SQL
is($node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT wanted) FROM public.result'), 5 * $PATTERNS . '|2', 'there are all cases, of both kinds');
is($node->safe_psql('postgres', 'SELECT pattern, text FROM public.result WHERE got <> wanted LIMIT 5'), '', 'each pattern matches as in Node');
is($node->safe_psql('postgres', 'SELECT pattern, text FROM public.result WHERE got_by_server <> wanted LIMIT 5'), '', 'also when PostgreSQL matches it');
$node->stop;

done_testing();
