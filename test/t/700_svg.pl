# tasker-agent svg: what the diagrams of the database look like as pictures, and
# that nothing else than such a diagram becomes one, or takes the program along.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run;
use POSIX qw(mkfifo);
use PostgreSQL::Test::Utils;
use TaskerTest;
use Test::More;

my $node = new_server('svg', 'tasker.executors = 0');
install_tasker($node, 'postgres');
my $place = PostgreSQL::Test::Utils::tempdir();

sub svg_of
{
	my ($dot) = @_;
	my ($out, $err) = ('', '');

	IPC::Run::run([ 'tasker-agent', 'svg' ], '<', \$dot, '>', \$out, '2>', \$err, IPC::Run::timeout(60));
	return ($out, $err);
}

sub dot_of
{
	my ($json) = @_;

	return $node->safe_psql('postgres', <<"SQL");
SET client_min_messages = error;
SELECT tasker.register_task(\$json\$$json\$json\$) \\gset
SELECT tasker.create_task('drawn') AS task_id \\gset
SELECT tasker.task_diagram(:task_id, 'dot');
SQL
}

# As the database writes it.
my ($svg, $err) = svg_of(dot_of(<<'JSON'));
{"name": "drawn",
 "step_templates": [
     {"name": "first <script>alert(1)</script> & \"quoted\" \\N", "handler_class": "quick"},
     {"name": "second", "handler_class": "quick", "depends_on_step": "first <script>alert(1)</script> & \"quoted\" \\N"}]}
JSON
is($err, '', 'a diagram is drawn');
like($svg, qr/\A<svg .*<\/svg>\s*\z/s, 'as an element that a page can embed');
like($svg, qr/<g id="step&#45;\d+" class="node step&#45;\d+">/, 'whose steps a page can find');
is(scalar(() = $svg =~ /class="edge"/g), 1, 'with its arrow');
like($svg, qr/>first &lt;script&gt;alert\(1\)&lt;\/script&gt; &amp; &quot;quoted&quot; \\N</, 'Names stand in it as they are');
unlike($svg, qr/<script|<a |<image|href|javascript|style=/i, 'and nothing that a browser would run or fetch');

# Too large for a picture: refused, not tried.
my $large = $node->safe_psql('postgres', <<'SQL');
SELECT 'digraph workflow { node [shape=box]; '
       || string_agg(format('step_%s [label="a"]; step_0 -> step_%s;', n, n), ' ')
       || ' }'
FROM generate_series(1, 16000) AS n
SQL
($svg, $err) = svg_of($large);
is($svg, '', 'A graph of 16,000 steps is not drawn');
like($err, qr/too large to be drawn \(1,000 steps, 4,000 dependencies\)/, 'and it is said why');
($svg, $err) = svg_of('/' x 5_000_000);
like($err, qr/too large to be drawn/, 'nor what is too large to be read');

# What is no diagram of ours.
my %others = (
	'no dot' => "\x01 garbage {",
	'nothing' => '',
	'half of one' => 'digraph a { b [shape=box',
	'a link' => 'digraph a { node [shape=box]; b [URL="javascript:alert(1)"]; }',
	'a file as image' => 'digraph a { node [shape=box]; b [image="/etc/passwd"]; }',
	'a file as shape' => 'digraph a { b [shape=custom, shapefile="/etc/passwd"]; }',
	'markup' => 'digraph a { node [shape=box]; b [label=<<table><tr><td>x</td></tr></table>>]; }',
	'markup by default' => 'digraph a { node [shape=box, label=<<b>x</b>>]; b; }',
	'a title of markup' => 'digraph a { graph [label=<<b>x</b>>]; node [shape=box]; b; }',
	'markup in a font' => 'digraph a { node [shape=box, fontname="x\"><script>alert(1)</script><a b=\""]; b; }',
	'markup in the font of one step' => 'digraph a { node [shape=box]; b; c [fontname="x\"><script>"]; }',
	'a gradient' => 'digraph a { node [shape=box, style=filled]; b [fillcolor="red:blue"]; }',
	'other shapes' => 'digraph a { node [shape=record]; b [label="<x>|y"]; }',
	'a subgraph' => 'digraph a { node [shape=box]; subgraph cluster { b } }',
	'a style sheet' => 'digraph a { graph [stylesheet="http://127.0.0.1/"]; node [shape=box]; b; }');
for my $name (sort keys %others)
{
	($svg, $err) = svg_of($others{$name});
	is($svg, '', "$name is not drawn");
	like($err, qr/no diagram of steps in the dot language/, 'and it is said why');
}

# The child of a process that draws.
sub child_of
{
	my ($parent) = @_;

	for my $status (glob '/proc/[0-9]*/status')
	{
		open my $file, '<', $status or next;
		my $text = join '', <$file>;
		return $status =~ /(\d+)/ ? $1 : undef if $text =~ /^PPid:\s+$parent$/m;
	}
	return;
}

# Waits until a process is no more, which its parent or init has to see.
sub ends
{
	my ($process, $name) = @_;

	for (1 .. 600)
	{
		last if !kill 0, $process;
		select undef, undef, undef, 0.1;
	}
	ok(!kill(0, $process), $name);
	return;
}

# Draws two files with one program; between them its child gets a signal.
sub draw_two
{
	my ($signal) = @_;
	my ($out, $error) = ('', '');
	my $pipe = "$place/$signal";

	mkfifo($pipe, 0700) or die "$pipe: $!";
	my $harness = IPC::Run::start([ 'tasker-agent', 'svg', "$place/one.dot", $pipe ],
		'<', \undef, '>', \$out, '2>', \$error, IPC::Run::timeout(120));
	$harness->pump until $out =~ /<\/svg>/;
	my $child = child_of($harness->{KIDS}[0]{PID});
	kill $signal, $child;
	append_to_file($pipe, slurp_file("$place/one.dot"));
	$harness->finish;
	return ($out, $error, $child);
}

append_to_file("$place/one.dot", 'digraph a { node [shape=box]; step_1 -> step_2; }');
my ($out, $error, $child) = draw_two('KILL');
is($error, '', 'A child that was killed is not missed');
is(scalar(() = $out =~ /<\/svg>/g), 2, 'and both pictures are there');
($out, $error, $child) = draw_two('STOP');
like($error, qr/took longer than 5 seconds/, 'One that does not get on is not waited for');
ends($child, 'and ended');

# What it could do harm with, it has not.
my $limits = '';
{
	my $pipe = "$place/limits";
	mkfifo($pipe, 0700) or die "$pipe: $!";
	local $ENV{PGPASSWORD} = 'not for the child';
	my $text = '';
	my $harness = IPC::Run::start([ 'tasker-agent', 'svg', "$place/one.dot", $pipe ],
		'<', \undef, '>', \$text, IPC::Run::timeout(120));
	$harness->pump until $text =~ /<\/svg>/;
	$child = child_of($harness->{KIDS}[0]{PID});
	$limits = slurp_file("/proc/$child/limits");
	is(slurp_file("/proc/$child/environ"), "LC_ALL=C.UTF-8\0", 'The child sees nothing of the environment');
	append_to_file($pipe, slurp_file("$place/one.dot"));
	$harness->finish;
}
SKIP:
{
	skip 'The sanitizers take terabytes of addresses, and files for their reports', 2 if $ENV{AGENT_SANITIZE};
	like($limits, qr/^Max open files\s+0\s+0/m, 'can open nothing');
	like($limits, qr/^Max address space\s+1073741824/m, 'and has so much memory');
}
ends($child, 'It ends with its parent');

$node->stop;
done_testing();
