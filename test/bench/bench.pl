#!/usr/bin/perl
# bench.pl WORK [ROW...]: runs the workloads and writes the figures to
# WORK/figures.md.  Called by run, which has prepared everything, as a user that
# may start a server.  README.md says how it is done.
use strict;
use warnings;

use Cwd qw(abs_path);
use FindBin;
use lib "$FindBin::RealBin/lib";

use Bench::Counters;
use Bench::Plan;
use Bench::Server;
use Bench::Statements;
use Bench::Table;
use Bench::Workload;
use File::Path qw(remove_tree);
use IO::Handle;
use IPC::Open3;
use JSON::PP;
use List::Util qw(any first max uniq);
use POSIX qw(strftime uname);
use Time::HiRes qw(time);

my ($work, @rows) = @ARGV;
my $bindir = $ENV{BENCH_BINDIR};
my $repeat = $ENV{REPEAT} || 5;
my $scale = $ENV{SCALE} || 1;
my $seconds = $ENV{BENCH_SECONDS} || 180;
my $port = $ENV{BENCH_PORT} || 5711;
my $started = time;
my $problems = 0;

# By engine and workload, a result for each repetition.
my %results;

# Statements a batch, by graph and size of the batch.
my %statements;
my @graphs = ([ one => 'one step' ], [ diamond => 'diamond' ], [ chain => 'chain of 50' ], [ wide_20 => '1 to 20 to 1' ]);
my @batch_sizes = (1, 10, 100);

sub say_progress
{
	printf STDERR "%5d s  %s\n", time - $started, join ' ', @_;
	return;
}

# ---- who and what

sub chosen_rows
{
	my @unknown = grep { my $row = $_; !grep { $_ eq $row } @Bench::Plan::ROWS } @rows;

	die "there is no row @unknown; there are: @Bench::Plan::ROWS\n" if @unknown;
	@rows = @Bench::Plan::ROWS unless @rows;
	return;
}

# PEERS: all, none where it is empty, or names.
sub chosen_peers
{
	my %wanted = map { tr/A-Z-/a-z_/r => 1 } split ' ', $ENV{PEERS} // 'all';
	my %known = map { $_->{name} => 1 } @Bench::Plan::PEERS;
	my @unknown = grep { $_ ne 'all' && !$known{$_} } keys %wanted;

	die "there is no peer @unknown; there are: " . join(' ', map { $_->{name} } @Bench::Plan::PEERS) . "\n" if @unknown;
	return grep { $wanted{all} || $wanted{ $_->{name} } } @Bench::Plan::PEERS;
}

sub wants
{
	my ($row) = @_;

	return any { $_ eq $row } @rows;
}

# The peers bring a Node of their own, as some want a newer one than a
# distribution has.
sub node
{
	my $own = "$FindBin::RealBin/peers/node_modules/.bin/node";

	return -x $own && system("$own --version >/dev/null 2>&1") == 0 ? $own : 'node';
}

sub command_of
{
	my ($workload) = @_;
	my $program = "$FindBin::RealBin/$workload->{program}";

	return $program =~ /\.mjs$/ ? (node(), $program) : ($program);
}

# Why there are no peers; undef where they are there, or are not wanted.
my $npm_problem;

sub install_peers
{
	my $log = "$work/npm.log";
	my $trusted = '/etc/ssl/certs/ca-certificates.crt';

	# Whom the system trusts, npm is to trust, too.
	$ENV{NODE_EXTRA_CA_CERTS} //= $trusted if -f $trusted;
	say_progress('npm install');
	return
	  if Bench::Workload::run_limited(300, "$FindBin::RealBin/peers", $log,
		qw(npm install --no-package-lock --no-audit --no-fund --loglevel=error));
	# Its sentences, not its codes.
	my ($error) = grep { /^npm (?:ERR!|error) \S+ \S+ \S+ / } split /\n/, Bench::Counters::slurp($log);
	$npm_problem = 'npm install failed: ' . ($error // 'it says not why');
	say_progress($npm_problem);
	return;
}

# Why a workload can't be run at all; undef where it can.
sub obstacle
{
	my ($workload) = @_;

	return undef if $workload->{program} !~ /\.mjs$/;
	return $npm_problem if defined $npm_problem;
	return "there is no $workload->{program}" unless -f "$FindBin::RealBin/$workload->{program}";
	return undef;
}

# ---- running

my $template;

sub new_server
{
	my ($name, @settings) = @_;
	my $server = Bench::Server->new(
		place => "$work/$name", bindir => $bindir, template => $template, port => $port, settings => \@settings);

	$server->start;
	return $server;
}

# Transactions, fsyncs and buffers are counted in each repetition where that is
# quick, else in the first one.
sub report_seconds
{
	my ($engine, $workload, $repetition) = @_;

	return $engine->{report_seconds} if $engine->{report_seconds} < 2;
	return $repetition == 1 && $workload->{name} =~ /^(one|diamond)$/ ? $engine->{report_seconds} : 0;
}

sub run_workload
{
	my ($server, $engine, $workload, $repetition) = @_;
	my $log = "$work/workload.log";

	$server->fresh_database("bench_$workload->{name}");
	my $result = Bench::Workload->new(
		command => [ command_of($workload), $workload->{protocol} ],
		environment => { $server->environment, %{ $workload->{environment} } },
		counters => $server->counters,
		seconds => $seconds,
		log => $log,
		report_seconds => report_seconds($engine, $workload, $repetition))->run;
	$result->{log} = Bench::Counters::slurp($log) if $result->{state} eq 'failed';
	return $result;
}

# What it came to, on standard error.
sub report
{
	my ($engine, $workload, $repetition, $result) = @_;
	my $intervals = $result->{intervals} // {};
	my $text = join ', ', map { sprintf '%s %.2f s', $_, $intervals->{$_}{seconds} }
	  grep { $intervals->{$_} } qw(create run);

	$text = "$result->{state}: $result->{reason}" unless $result->{state} eq 'ok';
	say_progress("$repetition/$repeat", "$engine->{title}:", "$workload->{name}:", $text);
	my @log = split /\n/, $result->{log} // '';
	splice @log, 0, -20 if @log > 20;
	print STDERR map { "        $_\n" } @log;
	return;
}

sub keep
{
	my ($engine, $workload, $repetition, $result) = @_;

	$result->{workload} = $workload;
	push @{ $results{ $engine->{name} }{ $workload->{name} } }, $result;
	$problems++ if $result->{state} eq 'failed';
	report($engine, $workload, $repetition, $result);
	return;
}

# One that has shown that it can't is not asked again.
sub is_hopeless
{
	my ($engine, $workload) = @_;

	return any { $_->{state} ne 'ok' } @{ $results{ $engine->{name} }{ $workload->{name} } // [] };
}

sub run_workloads
{
	my ($engine, $repetition, @workloads) = @_;
	my $server;

	foreach my $workload (@workloads)
	{
		my $obstacle = obstacle($workload);
		my $result = { state => 'cannot', reason => $obstacle };

		next if is_hopeless($engine, $workload);
		unless (defined $obstacle)
		{
			$result = eval {
				$server //= new_server($engine->{name}, @{ $engine->{settings} // [] });
				run_workload($server, $engine, $workload, $repetition);
			} // { state => 'failed', reason => $@ };
		}
		keep($engine, $workload, $repetition, $result);
	}
	$server->remove if $server;
	return;
}

# Engine by engine in each repetition, so that a slow minute of the machine is
# everybody's.
sub run_all
{
	my (@engines) = @_;
	my $wanted = Bench::Plan::workloads_of(@rows);

	foreach my $repetition (1 .. $repeat)
	{
		foreach my $engine (@engines)
		{
			my @names = grep { $wanted->{$_} } @{ $engine->{workloads} };

			run_workloads($engine, $repetition, map { Bench::Plan::workload($engine, $_, $scale) } @names);
		}
	}
	return;
}

# Returns what a script says that runs in the database.
sub execute
{
	my ($server, $sql) = @_;
	my %environment = $server->environment;
	local @ENV{ keys %environment } = values %environment;
	my $pid = open3(my $in, my $out, undef, "$bindir/psql", '-XAqt', '-v', 'ON_ERROR_STOP=1');

	print $in $sql;
	close $in;
	local $/;
	my $answer = <$out>;
	waitpid $pid, 0;
	die $answer if $?;
	return $answer =~ s/\s+\z//r;
}

# The first time a handler is slow, as far as anybody knows.
sub prepare_statements
{
	my ($run) = @_;

	$run->(Bench::Counters::slurp("$FindBin::RealBin/tasker/setup.sql"));
	Bench::Statements::prepare($run);
	$run->("SELECT tasker.create_task('one') FROM generate_series(1, 100)");
	Bench::Statements::wait_for_rest($run, 60);
	return;
}

sub count_statements
{
	my $server;

	eval {
		$server = new_server('statements', @Bench::Statements::SETTINGS);
		$server->fresh_database('bench_statements');
		my $run = sub { return execute($server, @_) };

		prepare_statements($run);
		foreach my $graph (map { $_->[0] } @graphs)
		{
			($statements{$graph}{$_}) = Bench::Statements::a_batch($run, $graph, $_) foreach @batch_sizes;
			say_progress("statements a batch: $graph:", @{ $statements{$graph} }{@batch_sizes});
		}
		1;
	} or do {
		$problems++;
		$statements{problem} = $@;
		say_progress("statements: failed: $@");
	};
	$server->remove if $server;
	return;
}

# ---- figures

# All that a workload of an engine came to where nothing went wrong.
sub good_results
{
	my ($engine, $workload) = @_;

	return grep { $_->{state} eq 'ok' } @{ $results{ $engine->{name} }{$workload} // [] };
}

sub figures
{
	my ($engine, $row) = @_;

	return grep { defined } map { $row->{figure}->($_) } good_results($engine, $row->{workload});
}

# What a workload of an engine did not come to; undef where all went well.
sub bad_result
{
	my ($engine, $workload) = @_;

	return first { $_->{state} ne 'ok' } @{ $results{ $engine->{name} }{$workload} // [] };
}

# Why something could not be run, where there is room in a cell.
sub is_short
{
	return length $_[0] <= 30;
}

# A cell says what came out, or why nothing did.
sub cell
{
	my ($engine, $row) = @_;
	my $bad = bad_result($engine, $row->{workload});
	my @figures = figures($engine, $row);

	return 'failed: ' . Bench::Table::reason($bad->{reason}) if $bad && $bad->{state} eq 'failed';
	return is_short($bad->{reason}) ? Bench::Table::reason($bad->{reason}) : 'not run: see the notes' if $bad;
	return @figures ? Bench::Table::spread(@figures) : '–';
}

# How many times as good as the best of the peers.
sub ratio
{
	my ($row, @engines) = @_;
	my @ours = map { figures($_, $row) } grep { $_->{name} eq 'tasker' } @engines;
	my @theirs = sort { $a <=> $b } map { Bench::Table::median(@$_) }
	  grep { @$_ } map { [ figures($_, $row) ] } grep { $_->{peer} } @engines;

	return '–' unless @ours && @theirs;
	my $our = Bench::Table::median(@ours);
	my $factor = $row->{more} ? $our / $theirs[-1] : $theirs[0] / ($our || 1e-9);

	return sprintf $factor < 10 ? '%.1f' : '%.0f', $factor;
}

sub speed_table
{
	my (@engines) = @_;
	my @wanted = grep { wants($_->{row}) } @Bench::Plan::SPEED;

	return () unless @wanted;
	return ("### Speed\n\n", Bench::Table::markdown(
			[ '', (map { $_->{title} } @engines), 'tasker to the best peer' ],
			map { my $row = $_; [ $row->{title}, (map { cell($_, $row) } @engines), ratio($row, @engines) ] } @wanted), "\n");
}

sub cost_rows
{
	my ($cost, @engines) = @_;
	my @rows;

	foreach my $measure (@Bench::Plan::MEASURES)
	{
		my $row = { workload => $cost->{workload}, figure => Bench::Plan::cost_figure($cost, $measure) };

		next unless any { figures($_, $row) } @engines;
		push @rows, [ @rows ? '' : $cost->{title}, $measure->{title}, map { figures($_, $row) ? cell($_, $row) : '–' } @engines ];
	}
	return @rows;
}

sub cost_table
{
	my (@engines) = @_;
	my @wanted = map { cost_rows($_, @engines) } grep { wants($_->{row}) } @Bench::Plan::COSTS;

	return () unless @wanted;
	return ("### What it costs\n\n", Bench::Table::markdown([ '', '', map { $_->{title} } @engines ], @wanted), "\n");
}

sub our_table
{
	my ($tasker) = @_;
	my @wanted = grep { wants($_->{row}) } @Bench::Plan::OURS;

	return () unless @wanted;
	return ("### More of tasker\n\n", Bench::Table::markdown(
			[ '', 'tasker' ], map { [ $_->{title}, cell($tasker, $_) ] } @wanted), "\n");
}

sub offered_table
{
	my ($tasker) = @_;
	my @workloads = map { "offered_$_" } @Bench::Plan::SUBSCRIBERS;

	return () unless wants('offered');
	return ("### Who listens costs nothing\n\n",
		"2,500 diamonds a second for 15 seconds, while 100 sessions LISTEN and so many subscribers fetch and acknowledge: the first everything, the others once a second the events of one task in a hundred.\n\n",
		Bench::Table::markdown([ 'subscribers', @Bench::Plan::SUBSCRIBERS ],
			map { my $row = $_; [ $row->{title}, map { cell($tasker, { %$row, workload => $_ }) } @workloads ] } @Bench::Plan::OFFERED), "\n");
}

sub reading_row
{
	my ($tasker, $graph, $title) = @_;

	return [ $title, map {
			cell($tasker, { workload => 'reading', figure => Bench::Plan::quantile_of("$_.$graph", 0.5) })
		} @Bench::Plan::FUNCTIONS ];
}

sub reading_table
{
	my ($tasker) = @_;

	return () unless wants('reading');
	return ("### Reading\n\n",
		"Milliseconds a call, seen by the client, prepared, median of 20 calls, of a task that is half done.\n\n",
		Bench::Table::markdown([ '', map { "`$_`" } @Bench::Plan::FUNCTIONS ],
			map { reading_row($tasker, @$_) } @Bench::Plan::GRAPHS), "\n");
}

sub yaml_row
{
	my ($tasker, $text, $title) = @_;
	my @rows = map {
		my $key = "$_->[0].$text";
		{ workload => 'yaml', figure => sub { return Bench::Table::median(@{ $_[0]{values}{$key} }) } }
	} @Bench::Plan::READERS;
	my ($ours, @others) = map { [ figures($tasker, $_) ] } @rows;
	my $best = @$ours ? max(map { Bench::Table::median(@$_) } @others) : 0;

	return [ $title, (map { cell($tasker, $_) } @rows), $best ? sprintf('%.1f', Bench::Table::median(@$ours) / $best) : '–' ];
}

sub yaml_table
{
	my ($tasker) = @_;

	return () unless wants('yaml');
	return ("### Reading YAML\n\n",
		"Texts a second, one session and one thread each, in turns; every parser gives the same value.\n\n",
		Bench::Table::markdown([ '', (map { $_->[1] } @Bench::Plan::READERS), 'tasker to the best package' ],
			map { yaml_row($tasker, @$_) } @Bench::Plan::TEXTS), "\n");
}

sub library_row
{
	my ($tasker, $row) = @_;
	my $theirs = { %$row, workload => $row->{theirs} };
	my @ours = figures($tasker, $row);
	my @others = figures($tasker, $theirs);
	my $ratio = @ours && @others ? sprintf '%.2f', Bench::Table::median(@ours) / Bench::Table::median(@others) : '–';

	return [ $row->{title}, cell($tasker, $row), cell($tasker, $theirs), $ratio ];
}

sub validation_table
{
	my ($tasker) = @_;

	return () unless wants('validate');
	return ("### Checking by JSON Schema\n\n",
		"Checks a second: `json_schema_is_valid()` in one statement, beside [Ajv](https://ajv.js.org) " . version_of('ajv') . " in Node, compiled, with the same schemas and values.\n\n",
		Bench::Table::markdown([ '', 'tasker', 'Ajv', 'tasker to Ajv' ],
			map { library_row($tasker, $_) } grep { $_->{row} eq 'validate' } @Bench::Plan::LIBRARIES), "\n");
}

sub statements_table
{
	my ($tasker) = @_;

	return () unless wants('statements');
	return ("### Statements\n\n",
		"SQL statements that an executor runs for a batch, by pg_stat_statements: 0 where C does all of it. What it runs once, or by the clock, does not count.\n\n",
		$statements{problem} ? 'failed: ' . Bench::Table::reason($statements{problem}) . "\n\n"
		: (Bench::Table::markdown([ 'tasks in the batch', @batch_sizes ],
				map { [ $_->[1], @{ $statements{ $_->[0] } }{@batch_sizes} ] } @graphs), "\n"));
}

# What a workload of an engine said of itself, and why it did not run.
sub said
{
	my ($engine, $workload) = @_;
	my $result = first { @{ $_->{notes} // [] } } @{ $results{ $engine->{name} }{$workload} // [] };
	my $bad = bad_result($engine, $workload);
	my @said = $result ? @{ $result->{notes} } : ();

	push @said, "not run: $bad->{reason}" if $bad && $bad->{state} eq 'cannot' && !is_short($bad->{reason});
	return @said;
}

# Each thing once, with the workloads that said it.
sub notes_of
{
	my ($engine) = @_;
	my (%workloads, @order);

	foreach my $workload (@{ $engine->{workloads} })
	{
		foreach my $note (said($engine, $workload))
		{
			push @order, $note unless $workloads{$note};
			push @{ $workloads{$note} }, $workload;
		}
	}
	return map { "- $engine->{title}, " . join(', ', @{ $workloads{$_} }) . ": $_\n" } @order;
}

sub notes
{
	my @notes = map { notes_of($_) } @_;

	return @notes ? ("### Notes\n\n", @notes, "\n") : ();
}

# ---- the conditions

sub output_of
{
	my ($command) = @_;
	my $output = `$command 2>/dev/null`;

	chomp $output;
	return $output;
}

sub version_of
{
	my ($package) = @_;
	my $text = Bench::Counters::slurp("$FindBin::RealBin/peers/node_modules/$package/package.json");

	return $text ? decode_json($text)->{version} : 'not installed';
}

# What the disk takes for a block that must be there, in microseconds.
sub fsync_us
{
	my @times;

	open my $file, '>', "$work/fsync" or die "$work/fsync: $!\n";
	for (1 .. 200)
	{
		my $from = time;

		sysseek $file, 0, 0;
		syswrite $file, 'x' x 8192;
		$file->sync;
		push @times, (time - $from) * 1e6;
	}
	unlink "$work/fsync";
	return Bench::Table::median(@times);
}

sub processor
{
	my ($model) = Bench::Counters::slurp('/proc/cpuinfo') =~ /^model name\s*: (.*)$/m;

	return output_of('nproc') . ' cores' . (defined $model ? " ($model)" : '');
}

sub conditions
{
	my (@engines) = @_;
	my ($system, undef, $release, undef, $machine) = uname;
	my @peers = grep { $_->{peer} } @engines;

	return (
		sprintf("%s, %d repetition%s in one run, medians (least–most)%s.\n\n", strftime('%Y-%m-%d', localtime),
			$repeat, $repeat == 1 ? '' : 's', $scale == 1 ? '' : ", sizes times $scale"),
		'- ' . output_of("$bindir/postgres --version") . ", each engine with a fresh cluster in each repetition, each workload with a fresh database\n",
		'- settings: ' . join(', ', map { "`$_->[0] = $_->[1]`" } @Bench::Server::SETTINGS) . "; `shared_preload_libraries = tasker` for tasker alone\n",
		(@peers ? '- Node ' . output_of(node() . ' --version') . '; ' . join(', ', map { "$_->{title} " . version_of($_->{package}) } @peers) . "\n" : ()),
		"- $system $release $machine, " . processor() . ', ' . output_of("stat -f -c %T '$work'") . sprintf(", fsync of a block %.0f µs\n", fsync_us()),
		"- transactions, fsyncs and buffers of the peers are from the first repetition, of one-step tasks and diamonds only\n\n");
}

sub write_figures
{
	my (@engines) = @_;
	my ($tasker) = @engines;

	open my $file, '>', "$work/figures.md" or die "$work/figures.md: $!\n";
	print $file conditions(@engines), speed_table(@engines), cost_table(@engines), our_table($tasker), offered_table($tasker), reading_table($tasker), yaml_table($tasker), validation_table($tasker),
	  statements_table($tasker), notes(@engines);
	close $file;
	return;
}

# ---- all of it

# For who wants to end it.
sub write_pid
{
	open my $file, '>', "$work/pid" or die "$work/pid: $!\n";
	print $file "$$\n";
	close $file;
	return;
}

sub end_everything
{
	Bench::Workload::kill_running();
	Bench::Server::stop_all();
	return;
}

foreach my $signal (qw(INT TERM HUP))
{
	$SIG{$signal} = sub { exit 1 };
}
END
{
	my $status = $?;

	end_everything();
	$? = $status;
}

write_pid();
delete @ENV{ grep { /^PG/ } keys %ENV };
$ENV{PATH} = "$bindir:$ENV{PATH}";
chosen_rows();
my @engines = Bench::Plan::engines(chosen_peers());
install_peers() if wants('outside') || wants('yaml') || wants('validate') || any { $_->{peer} } @engines;
$template = Bench::Server->make_template(place => "$work/template", bindir => $bindir);
run_all(@engines);
count_statements() if wants('statements');
write_figures(@engines);
say_progress($problems ? "done, with $problems failures" : 'done');
exit($problems ? 1 : 0);
