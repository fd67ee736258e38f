# tasker-agent apply: a directory of definitions becomes what is registered, all
# of it or nothing.
use strict;
use warnings;

use File::Path qw(make_path remove_tree);
use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Utils;
use TaskerTest;
use Test::More;

my $node = new_server('apply', 'tasker.executors = 0');
install_tasker($node, 'postgres');
$node->safe_psql('postgres', 'SELECT tasker.register_external_handler(name) FROM unnest(\'{fetch,charge}\'::text[]) AS name');

my $directory = PostgreSQL::Test::Utils::tempdir();
my @agent = ('tasker-agent', 'apply');

sub write_file
{
	my ($name, $text) = @_;
	my ($parent) = "$directory/$name" =~ m{^(.*)/};

	make_path($parent);
	open my $file, '>:raw', "$directory/$name" or die "$name: $!";
	print $file $text;
	close $file;
	return;
}

# What it says with these options, with paths below the directory.
sub apply
{
	my (@options) = @_;
	my ($out, $err);
	local $ENV{PGHOST} = $node->host;
	local $ENV{PGPORT} = $node->port;
	local $ENV{PGDATABASE} = 'postgres';

	my $status = IPC::Run::run([ @agent, @options, $directory ], '>', \$out, '2>', \$err) ? 0 : $? >> 8;
	s{\Q$directory\E}{DIR}g for $out, $err;
	return ($status, $out, $err);
}

sub registered
{
	return $node->safe_psql('postgres', <<'SQL');
SELECT string_agg(name || '@' || version || coalesce('/' || environment, ''), ' ' ORDER BY name, version)
FROM tasker.template
WHERE namespace = 'shop'
SQL
}

sub definition
{
	my ($name, $rest) = @_;

	return "name: $name\nnamespace_name: shop\nstep_templates:\n  - {name: fetch, handler_class: fetch}\n" . ($rest // '');
}

# The program itself.
my ($out, $err);
ok(IPC::Run::run([ 'tasker-agent', '--version' ], '>', \$out), '--version succeeds');
my $control = slurp_file("$FindBin::RealBin/../../tasker.control");
is($out, "tasker-agent " . ($control =~ /^default_version = '(.*)'/m)[0] . "\n", 'and says the version of the extension');
ok(IPC::Run::run([ 'tasker-agent', '--help' ], '>', \$out), '--help succeeds');
like($out, qr/^ +tasker-agent apply DIRECTORY/m, 'and says how it is called');
for my $wrong (['aply'], ['--aply'], ['apply'], [qw(apply a b)], [qw(apply --unknown a)], [qw(apply --database)])
{
	IPC::Run::run([ 'tasker-agent', @$wrong ], '>', \$out, '2>', \$err);
	is($? >> 8, 2, "a wrong command line is status 2: @$wrong");
	like($err, qr/^usage: tasker-agent/m, 'and says what is right');
	is($out, '', 'on stderr');
}

# Nothing there, and what is no definition.
my ($status);
($status, $out, $err) = apply();
is($status, 1, 'a directory without definitions is an error');
like($err, qr/DIR: has no \*\.yaml/, 'which says so');

# New, at any depth, in the order of the paths; others are left alone.
write_file('b.yaml', definition('b'));
write_file('a/z.yml', definition('z'));
write_file('a/c.json', '{"name": "c", "namespace_name": "shop", "step_templates": [{"name": "x", "handler_class": "charge"}]}');
write_file('README.md', 'no definition: [');
write_file('.hidden/h.yaml', 'no definition: [');
write_file('yaml', 'no definition: [');
($status, $out, $err) = apply('--dry-run');
is_deeply([ $status, $out, $err ], [ 0, <<'OUT', '' ], 'a dry run tells what is new');
DIR/a/c.json: new
  + shop.c@0.1.0
DIR/a/z.yml: new
  + shop.z@0.1.0
DIR/b.yaml: new
  + shop.b@0.1.0
3 new, 0 changed, 0 unchanged (dry run: nothing was registered)
OUT
is(registered(), '', 'and registers nothing');
($status, $out, $err) = apply();
is_deeply([ $status, $err ], [ 0, '' ], 'it registers');
like($out, qr/^3 new, 0 changed, 0 unchanged$/m, 'and says so');
is(registered(), 'b@0.1.0 c@0.1.0 z@0.1.0', 'what the files say');
my $before = $node->safe_psql('postgres', 'SELECT t::text FROM tasker.template AS t ORDER BY 1');
is_deeply([ apply() ], [ 0, "0 new, 0 changed, 3 unchanged\n", '' ], 'once more it changes nothing');
is($node->safe_psql('postgres', 'SELECT t::text FROM tasker.template AS t ORDER BY 1'), $before, 'nothing at all');

# Changed.
write_file('b.yaml', definition('b', "  - {name: charge, handler_class: charge, depends_on_step: fetch}\ntimeout: 5 s\n"));
write_file('a/c.json', '{"name": "c", "namespace_name": "shop", "on_failure": "stop", "step_templates": [{"name": "x", "handler_class": "fetch"}]}');
write_file('a/z.yml', "# a comment\n" . definition('z'));
my @changes = (0, <<'OUT', '');
DIR/a/c.json: changed: shop.c@0.1.0
  + on_failure: "stop"
  ~ step_templates.x.handler_class: "charge" -> "fetch"
DIR/a/z.yml: changed: shop.z@0.1.0
  ~ comments or layout
DIR/b.yaml: changed: shop.b@0.1.0
  + step_templates.charge: {"name": "charge", "handler_class": "charge", "depends_on_step": "fetch"}
  + timeout: "5 s"
0 new, 3 changed, 0 unchanged
OUT
($status, $out, $err) = apply('--no-replace');
is($status, 1, 'what is registered is not replaced where that is not wanted');
like($err, qr{^DIR/b\.yaml: ERROR TK008: task "b" of namespace "shop", version "0\.1\.0" is already registered$}m, 'and the error names the file');
is_deeply([ apply() ], \@changes, 'changes are told and made');
is($node->safe_psql('postgres', q(SELECT tasker.export_task('b', 'shop') LIKE '%timeout: 5 s%')), 't', 'they are there');
write_file('b.yaml', definition('b'));
($status, $out) = apply();
like($out, qr/^  - step_templates\.charge: \{"name": "charge", .*\}\n  - timeout: "5 s"\n/m, 'what is removed is told');

# All or nothing, and all errors at once, with their lines.
write_file('d.yaml', definition('d'));
write_file('e.yaml', definition('e', "  - {name: x, handler_class: fetsch}\n  - {name: x, handler_class: fetch}\n"));
write_file('f.yaml', "name: f\nstep_templates: [\n");
write_file('g.yaml', definition('g') . "# \xe4\n");
write_file('h.yaml', definition('h') . "a: \x00\n");
write_file('i.yaml', definition('d'));
($status, $out, $err) = apply();
is($status, 1, 'errors are status 1');
is($err =~ s/^HINT: .*\n//mgr, <<'ERR', 'each with its file and line');
DIR/e.yaml:5: ERROR TK005: step_templates[1].handler_class: handler "fetsch" is not registered
DIR/e.yaml:6: ERROR TK005: step_templates[2].name: step name "x" is used twice; the first one is in line 5
DIR/f.yaml:3: ERROR TK005: invalid YAML: did not find expected node content: Line 3, column 1.
DIR/g.yaml:5: is not UTF-8
DIR/h.yaml:5: is not UTF-8
DIR/i.yaml: ERROR: defines the same task as DIR/d.yaml
tasker-agent: nothing was registered
ERR
like($err, qr/^HINT: Did you mean "fetch"\?$/m, 'and with its hint');
unlike($out, qr/unchanged/, 'and no summary');
is(registered(), 'b@0.1.0 c@0.1.0 z@0.1.0', 'nothing was registered');
unlink map { "$directory/$_.yaml" } qw(e f g h i);

# A warning names its file, and what is unwise is told on demand.
write_file('d.yaml', definition('d', "timout: 3 s\n"));
($status, $out, $err) = apply('--lint', '--dry-run');
is($status, 0, 'a warning is no error');
like($err, qr{^DIR/d\.yaml: WARNING: line 5, timout: unknown key "timout" is ignored\nHINT: Did you mean "timeout"\?$}m, 'it has its file');
like($out, qr{^DIR/d\.yaml:5: warning: unknown key "timout" is ignored$}m, 'and so has what is unwise');
write_file('d.yaml', definition('d'));

# Environments.
($status, $out, $err) = apply('--environment', 'live');
like($out, qr/^  ~ environment: none -> "live"$/m, 'the environment is told');
is(registered(), 'b@0.1.0/live c@0.1.0/live d@0.1.0/live z@0.1.0/live', 'and registered');
($status, $out, $err) = apply('--environment', ' x');
is($status, 1, 'a name that no environment has is an error');
like($err, qr/name of the environment begins or ends with white space/, 'which says so');
apply();

# Links are followed, but not for ever; what can't be read is an error.
make_path("$directory/../elsewhere_$$");
symlink "../elsewhere_$$", "$directory/linked" or die $!;
write_file("../elsewhere_$$/l.yaml", definition('l'));
($status, $out) = apply();
like($out, qr{^DIR/linked/l\.yaml: new$}m, 'a linked directory counts');
symlink '..', "$directory/a/up" or die $!;
($status, $out, $err) = apply();
is($status, 1, 'a loop is an error');
like($err, qr{DIR/a/up: leads back to a directory above it$}m, 'which names it');
unlink "$directory/a/up";
symlink 'nowhere', "$directory/broken.yaml" or die $!;
($status, $out, $err) = apply();
is($status, 1, 'a link to nowhere is an error');
like($err, qr{DIR/broken\.yaml: No such file or directory$}m, 'which names it');
unlink "$directory/broken.yaml";
chmod 0, "$directory/d.yaml";
($status, $out, $err) = apply();
is($status, 1, 'a file that can not be read is an error');
like($err, qr{DIR/d\.yaml: Permission denied$}m, 'which names it');
chmod 0644, "$directory/d.yaml";

# The connection.
($status, $out, $err) = apply('--database', 'dbname=nowhere');
is($status, 1, 'no such database is an error');
like($err, qr/^tasker-agent: could not connect: .*database "nowhere" does not exist$/m, 'which says so');
($status, $out, $err) = apply('--database', $node->connstr('template1'));
is($status, 1, 'a database without the extension is one, too');
like($err, qr/ERROR (3F000|42883): /, 'with its code');

# Two runs at the same moment.
remove_tree($directory);
write_file("many/$_.yaml", definition("many$_")) for 1 .. 200;
local $ENV{PGHOST} = $node->host;
local $ENV{PGPORT} = $node->port;
local $ENV{PGDATABASE} = 'postgres';
my @outs = ('', '');
my @runs = map { IPC::Run::start([ @agent, $directory ], '>', \$outs[$_], '2>', \$err) } 0, 1;
ok((grep { $_->finish } @runs) == 2, 'two at a time both succeed');
is_deeply([ sort map { /^(\d+) new/m } @outs ], [ 0, 200 ], 'each definition was new to one of them')
  or diag(join "\n", map { substr $_, -200 } @outs);

$node->stop;
done_testing();
