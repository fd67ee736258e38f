# Subscribers as tasker.generate_subscriber() writes them, in each language: they
# run as they are, get every event at least once, and outlive whatever comes.
# Those of example/subscriber/ are the same with something to do, and do the same.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use Cwd qw(abs_path);
use IPC::Run;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskerTest;
use Test::More;
use Time::HiRes qw(time usleep);

my $example = abs_path("$FindBin::RealBin/../../example/subscriber");
my $place = PostgreSQL::Test::Utils::tempdir;
my %file = (python => 'python.py', node => 'node.mjs', c => 'c.c', shell => 'shell.sh', plpgsql => 'plpgsql.sql');
my @programs = qw(python node c shell);
my %pid;

# ---- programs: made, started, ended

sub runs
{
	my (@command) = @_;
	my $out = '';
	my $good = eval { IPC::Run::run(\@command, '<', \undef, '>&', \$out, IPC::Run::timeout(120)) };

	return ($good, $out);
}

# The first that has psycopg.
sub find_python
{
	foreach my $python ((map { "$_/python3" } split /:/, $ENV{PATH}), '/usr/bin/python3')
	{
		next unless -x $python;
		my ($good) = runs($python, '-c', 'import psycopg');
		return $python if $good;
	}
	return;
}

# The server's own pg_config may have come here without libpq's headers.
sub libpq_headers
{
	foreach my $config ((map { "$_/pg_config" } split /:/, $ENV{PATH}), glob '/usr/lib/postgresql/*/bin/pg_config')
	{
		next unless -x $config;
		chomp(my $headers = `$config --includedir`);
		return $headers if -f "$headers/libpq-fe.h";
	}
	return;
}

# Writes the text of a program and makes it ready to run.
sub make_program
{
	my ($name, $language, $text) = @_;
	my ($suffix) = $file{$language} =~ /(\.\w+)$/;

	append_to_file("$place/$name$suffix", $text);
	return unless $language eq 'c';
	foreach my $compiler (qw(clang gcc))
	{
		my ($good, $out) = runs($compiler, '-std=gnu11', '-O2', '-Wall', '-Wextra', '-Werror', '-Wshadow',
			'-Wstrict-prototypes', '-Wwrite-strings', '-I', libpq_headers(), '-o', "$place/$name", "$place/$name.c", '-lpq');
		ok($good, "$name.c compiles with $compiler, without a warning") or diag($out);
	}
	return;
}

my $python = find_python();
ok(defined $python, 'there is a Python with psycopg 3 (Debian: python3-psycopg)');
{
	my $trusted = '/etc/ssl/certs/ca-certificates.crt';
	$ENV{NODE_EXTRA_CA_CERTS} //= $trusted if -f $trusted;
	my ($good, $out) = runs('npm', 'install', '--prefix', $place, '--no-audit', '--no-fund', '--no-package-lock', '--loglevel=error', 'pg@8');
	ok($good, 'npm installs pg') or diag($out);
}

my $node = new_server('subscribers', 'tasker.executors = 2');
install_tasker($node, 'postgres');
$node->safe_psql('postgres', q{
CREATE ROLE listener LOGIN;
GRANT CREATE ON DATABASE postgres TO listener;
});

sub command
{
	my ($name, $language) = @_;

	return $language eq 'python' ? ($python, "$place/$name.py")
	  : $language eq 'node' ? ('node', "$place/$name.mjs")
	  : $language eq 'c' ? ("$place/$name")
	  : ('bash', "$place/$name.sh");
}

# Starts a program as a role of its own; what it prints goes behind what it has
# printed before.
sub start
{
	my ($name, $language, @options) = @_;
	my $pid = fork // die "fork: $!";

	if ($pid == 0)
	{
		open STDIN, '<', '/dev/null';
		open STDOUT, '>>', "$place/$name.out";
		open STDERR, '>>', "${PostgreSQL::Test::Utils::log_path}/$name.log";
		@ENV{qw(PGHOST PGPORT PGDATABASE PGUSER BROKEN)} = ($node->host, $node->port, 'postgres', 'listener', "$place/broken");
		# Without the END blocks, which would stop the server.
		exec command($name, $language), @options or POSIX::_exit(1);
	}
	$pid{$name} = $pid;
	return;
}

# Its exit status, or the signal that ended it, in words.
sub ends
{
	my ($name, $signal) = @_;
	my $pid = delete $pid{$name};
	my $until = time + $PostgreSQL::Test::Utils::timeout_default;

	kill $signal, $pid if defined $signal;
	while (waitpid($pid, POSIX::WNOHANG()) == 0)
	{
		kill 'KILL', $pid if time > $until;
		usleep(10_000);
	}
	return $? & 127 ? 'signal ' . ($? & 127) : 'status ' . ($? >> 8);
}

END
{
	my $status = $?;
	kill 'KILL', values %pid;
	$? = $status;
}

sub printed
{
	my ($name) = @_;

	return -f "$place/$name.out" ? split /\n/, slurp_file("$place/$name.out") : ();
}

# Waits until this is what there is.  Without it there is no sense in going on.
sub comes_to
{
	my ($name, $expected, $get) = @_;
	my $until = time + $PostgreSQL::Test::Utils::timeout_default;

	usleep(20_000) until $get->() eq $expected || time > $until;
	is($get->(), $expected, $name) or die "$name: waited in vain\n";
	return;
}

# Runs a file of SQL.
sub in_database
{
	my ($database, $path, @options) = @_;

	$node->command_ok([ 'psql', '--no-psqlrc', '--quiet', '--set=ON_ERROR_STOP=1', '--dbname=' . $node->connstr($database), @options, "--file=$path" ],
		$path =~ s{.*/}{}r . ' runs');
	return;
}

# ---- the generated text, as it is

my $events = q{ARRAY['task.completed', 'task.*', 'step.completed']};
my $wanted = q{(r.machine = 'task' OR r.event = 'step.completed')};

sub generated
{
	my ($name, $what, $language) = @_;

	return $node->safe_psql('postgres', "SELECT tasker.generate_subscriber('$name', $what, '$language')") . "\n";
}

# What the generated functions print of the events that happened, in an order
# that is right within each task.
sub expected
{
	my ($from) = @_;

	return split /\n/, $node->safe_psql('postgres', <<"SQL");
SELECT concat_ws(' ', t.transition_id, r.event, t.task_id)
FROM tasker.transitions AS t
JOIN tasker.transition_rules AS r ON r.machine = CASE WHEN t.step_id IS NULL THEN 'task' ELSE 'step' END
                                 AND r.from_state IS NOT DISTINCT FROM t.from_state
                                 AND r.to_state = t.to_state
WHERE $wanted
  AND t.task_id >= $from
ORDER BY t.task_id, t.occurred_at, t.transition_id
SQL
}

# The distinct lines, task by task, each task's in the order of the first time.
sub by_task
{
	my (%seen, %lines);

	foreach my $line (grep { !$seen{$_}++ } @_)
	{
		push @{ $lines{ (split / /, $line)[-1] } }, $line;
	}
	return map { @{ $lines{$_} } } sort { $a <=> $b } keys %lines;
}

sub create
{
	my ($count) = @_;

	return $node->safe_psql('postgres', <<"SQL");
SELECT min(id)
FROM tasker.create_tasks('quick', array_fill('{}'::jsonb, ARRAY[$count])) AS id
SQL
}

sub tasks_rest
{
	wait_until($node, 'postgres', "SELECT bool_and(state = 'complete') FROM tasker.tasks", 'the tasks are complete');
	return;
}

# Every program has printed all of it, in order within each task.
sub all_get
{
	my ($when, $from) = @_;

	tasks_rest();
	foreach my $language (@programs)
	{
		comes_to("$language: every event, $when", join("\n", expected($from)),
			sub { join "\n", by_task(grep { (split / /)[-1] >= $from } printed("gen_$language")) });
	}
	return;
}

sub nothing_in_hand
{
	my ($when) = @_;

	wait_until($node, 'postgres', q{SELECT sum(unacknowledged) = 0 AND sum(lag_events) = 0 FROM tasker.subscribers WHERE subscriber LIKE 'gen\_%' AND handler IS NULL},
		"all is acknowledged $when");
	return;
}

foreach my $language (@programs)
{
	make_program("gen_$language", $language, generated("gen_$language", $events, $language));
	start("gen_$language", $language);
}
wait_until($node, 'postgres', "SELECT count(*) = 4 FROM tasker.subscribers WHERE subscriber LIKE 'gen\\_%'", 'they subscribe');

# In PL/pgSQL it is a script, which may run again.
append_to_file("$place/gen_plpgsql.sql", generated('gen_plpgsql', $events, 'plpgsql'));
in_database('postgres', "$place/gen_plpgsql.sql", '--username=listener', '--single-transaction') foreach 1 .. 2;

my $from = create(20);
all_get('from the first one on', $from);
is(scalar(printed("gen_$_")), scalar(expected($from)), "$_: each of them once") foreach @programs;
nothing_in_hand('as they go');
comes_to('plpgsql: every event, from the first one on', join("\n", expected($from)),
	sub { join "\n", by_task(slurp_file($node->logfile) =~ /LOG:  (\d+ (?:task|step)\.\S+ \d+)$/mg) });

# Killed when it has handled events and could not acknowledge them: they come again.
$node->safe_psql('postgres', 'REVOKE EXECUTE ON FUNCTION tasker.ack_events(text, bigint, text) FROM PUBLIC');
$from = create(5);
all_get('before they are killed', $from);
is(ends("gen_$_", 'KILL'), 'signal 9', "$_: killed") foreach @programs;
my %before = map { $_ => scalar printed("gen_$_") } @programs;
my $away = create(300);
tasks_rest();
$node->safe_psql('postgres', 'GRANT EXECUTE ON FUNCTION tasker.ack_events(text, bigint, text) TO PUBLIC');
start("gen_$_", $_) foreach @programs;
all_get('that came while they were away', $away);
nothing_in_hand('by those that were started anew');
foreach my $language (@programs)
{
	my @lines = printed("gen_$language");
	my @anew = @lines[ $before{$language} .. $#lines ];

	is(join("\n", by_task(@anew)), join("\n", expected($from)), "$language: what was not acknowledged came again");
	is(scalar(@anew), scalar(expected($from)), "$language: and once");
}

# The server goes and comes back.
$node->restart('immediate');
$from = create(5);
all_get('after the server was away', $from);
nothing_in_hand('then, too');

# Told to stop.
is(ends("gen_$_", 'TERM'), 'status 0', "$_: ends on SIGTERM") foreach @programs;

# Once: catches up, and ends.
$from = create(120);
tasks_rest();
start("gen_$_", $_, '--once') foreach @programs;
is(ends("gen_$_"), 'status 0', "$_ --once: ends by itself") foreach @programs;
foreach my $language (@programs)
{
	is(join("\n", grep { (split / /)[-1] >= $from } by_task(printed("gen_$language"))), join("\n", expected($from)), "$language --once: having caught up");
}
nothing_in_hand('once');

# ---- a function that fails

my %breaks = (
	python => 'if os.path.exists(os.environ["BROKEN"]): raise RuntimeError("broken")',
	node => "if ((await import('node:fs')).existsSync(process.env.BROKEN)) throw new Error('broken');",
	c => 'if (access(getenv("BROKEN"), F_OK) == 0) return false;',
	shell => '[ ! -e "$BROKEN" ] || return 1');
append_to_file("$place/broken", '');
foreach my $language (@programs)
{
	my $text = generated("bad_$language", q{ARRAY['task.*', 'step.completed']}, $language);

	$text =~ s{(handle_step_completed\(.*?)(?:#|//|/\*) Your code here\.(?: \*/)?}{$1$breaks{$language}}s or die;
	make_program("bad_$language", $language, $text);
	start("bad_$language", $language);
}
wait_until($node, 'postgres', "SELECT count(*) = 4 FROM tasker.subscribers WHERE subscriber LIKE 'bad\\_%'", 'those that fail subscribe');
$from = create(1);
tasks_rest();
my @all = expected($from);
my ($good) = grep { $all[$_] =~ /step\.completed/ } 0 .. $#all;
wait_until($node, 'postgres', <<"SQL", 'what comes before the failure is acknowledged');
SELECT count(*) = 4
FROM tasker.subscribers
WHERE subscriber LIKE 'bad\\_%'
  AND unacknowledged = @{[ @all - $good ]}
SQL
is(join("\n", printed("bad_$_")), join("\n", @all[ 0 .. $good - 1 ]), "$_: nothing behind a failure is handled") foreach @programs;
is(ends("bad_$_", 'TERM'), 'status 0', "$_: ends on SIGTERM while it pauses") foreach @programs;
start("bad_$_", $_, '--once') foreach @programs;
is(ends("bad_$_"), 'status 1', "$_ --once: a failure shows in the status") foreach @programs;
unlink "$place/broken";
start("bad_$_", $_) foreach @programs;
foreach my $language (@programs)
{
	comes_to("$language: it comes again until it is handled", join("\n", @all), sub { join "\n", printed("bad_$language") });
}
is(ends("bad_$_", 'INT'), 'status 0', "$_: ends on SIGINT") foreach @programs;

# ---- names of events that mean something to the languages

my @careful = ("careful.it's", 'careful."quoted"', 'careful.back\slash', 'careful.$program$ $$', 'careful.$(false)', 'careful.{{name}}',
	'careful.what??/', 'careful.// x', "careful.gr\xc3\xb6\xc3\x9fe", 'careful.a-b', 'careful.a_b');
my $careful = join ', ', map { "'" . s/'/''/gr . "'" } @careful;
$node->safe_psql('postgres', "SELECT tasker.register_event(name, 'A name to be careful with.') FROM unnest(ARRAY[$careful]) AS name");
foreach my $language (@programs)
{
	make_program("careful_$language", $language, generated("careful_$language", "ARRAY[$careful]", $language));
	start("careful_$language", $language);
}
wait_until($node, 'postgres', "SELECT count(*) = 4 FROM tasker.subscribers WHERE subscriber LIKE 'careful\\_%'", 'programs with strange names subscribe');
append_to_file("$place/careful_plpgsql.sql", generated('careful_plpgsql', "ARRAY[$careful]", 'plpgsql'));
in_database('postgres', "$place/careful_plpgsql.sql", '--username=listener');
$node->safe_psql('postgres', "SELECT tasker.publish_event(name, '{}') FROM unnest(ARRAY[$careful]) WITH ORDINALITY AS e (name, place) ORDER BY place");
foreach my $language (@programs)
{
	comes_to("$language: each reaches its function", join("\n", @careful),
		sub { join "\n", map { /^\d+ (.*?) ?(?:None|null)?$/ } printed("careful_$language") });
	is(ends("careful_$language", 'TERM'), 'status 0', "$language: and that was all");
}
comes_to('plpgsql: each reaches its function', join("\n", @careful),
	sub { join "\n", slurp_file($node->logfile) =~ /LOG:  \d+ (careful\.\S.*) <NULL>$/mg });

# ---- the examples

# What a handler does is left out, and so is what only the example has.
sub frame
{
	my ($language, $text) = @_;
	my $end = $language eq 'python' ? qr/\n\n\n/ : $language eq 'plpgsql' ? qr/\nEND;/ : qr/\n\}/;
	my $begin = $language eq 'python' ? qr/def handle_\w+\(event\):\n    """[^\n]*"""\n/
	  : $language eq 'node' ? qr/async function handle_\w+\(event\) \{\n/
	  : $language eq 'c' ? qr/\nhandle_\w+\(const Event \*event\)\n\{\n/
	  : $language eq 'shell' ? qr/handle_(?!events)\w+\(\) \{\n/
	  : qr/\.handle_\w+\(event tasker\.event\)\n[^\$]*\$\$\nBEGIN\n/;

	$text =~ s/^-- What this subscriber has heard\..*?\n\n//ms;
	$text =~ s/($begin).*?($end)/$1...$2/gs;
	return $text;
}

my $overview = q{ARRAY['task.completed', 'task.failed', 'step.failed']};
foreach my $language (sort keys %file)
{
	my $text = slurp_file("$example/$file{$language}");
	my $frame = frame($language, $text);

	is(() = $frame =~ /^(?:\s*)\.\.\.$/mg, 4, "$file{$language} has its four functions");
	is($frame, frame($language, generated('notification', $overview, $language)),
		"$file{$language} is what generate_subscriber() writes, with something to do");

	# Each under a name of its own, as they run side by side here; pg has a
	# notification, too.
	$text =~ s/(?<!on\(')notification/note_$language/g;
	make_program("note_$language", $language, $text);
}

$node->safe_psql('postgres', 'CREATE DATABASE shop');
$node->safe_psql('shop', 'CREATE EXTENSION tasker; GRANT CREATE ON DATABASE shop TO listener');
in_database('shop', "$example/../order/$_.sql") foreach qw(schema data handlers);
in_database('shop', "$place/note_plpgsql.sql", '--username=listener');
start("note_$_", $_, $_ eq 'node' ? 'socket:' . $node->host . '?db=shop' : 'dbname=shop') foreach @programs;
wait_until($node, 'shop', "SELECT count(*) = 5 FROM tasker.subscribers", 'the examples subscribe');
in_database('shop', "$example/../order/run.sql");
wait_until($node, 'shop', 'SELECT count(*) = 101 FROM subscriber_note_plpgsql.line', 'plpgsql: a line for each event');
my $lines = $node->safe_psql('shop', 'SELECT text FROM subscriber_note_plpgsql.line ORDER BY place');
my $failed = $node->safe_psql('shop', "SELECT task_id FROM tasker.tasks WHERE state = 'error'");
is(() = $lines =~ /^task \d+ completed$/mg, 99, '99 tasks completed');
like($lines, qr/^step validate_products of task $failed failed: the cart holds products that are no longer sold\n(?:.*\n)*task $failed failed: /m,
	'one failed, behind its step');
foreach my $language (@programs)
{
	comes_to("$language: the same lines", $lines, sub { join "\n", printed("note_$language") });
	is(ends("note_$language", 'TERM'), 'status 0', "$language: ends");
}

$node->stop;
done_testing();
