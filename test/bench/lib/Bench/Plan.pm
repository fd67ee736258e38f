# Who runs what, how much of it, and which figures come of it.
package Bench::Plan;

use strict;
use warnings;

use List::Util qw(sum0);

# Once around, a whole run with five repetitions takes some twenty minutes on two
# cores.  So who is fast gets more to do: an interval should take a second or two.
# Numbers are tasks for one and diamond, seconds for offered, repetitions for the others.
our @SUBSCRIBERS = (0, 1, 10, 100);
my %SIZES = (
	tasker => {
		one => 100_000, diamond => 25_000, chain => 200, fan => 50, latency => 500, small => 1_000,
		create_task_1 => 5_000, create_task_8 => 20_000, outside_c => 10_000, outside_node => 10_000,
		reading => 20, yaml => 3, validate => 100, validate_ajv => 100,
		(map { ("offered_$_" => 15) } @SUBSCRIBERS),
	},
	plain_1 => { one => 100_000 },
	plain_2 => { one => 100_000 },
	graphile_worker => { one => 50_000, chain => 20, fan => 20, latency => 200 },
	pg_boss => { one => 30_000, diamond => 1_000, chain => 10, fan => 3, latency => 200 },
	dbos => { one => 3_000, diamond => 1_000, chain => 20, fan => 5, latency => 200 },
	absurd => { one => 3_000, diamond => 1_000, chain => 10, fan => 4, latency => 200 },
	pgflow => { one => 3_000, diamond => 600, chain => 10, fan => 3, latency => 200 });

# The npm packages of the others.
our @PEERS = (
	{ name => 'graphile_worker', title => 'graphile-worker', package => 'graphile-worker' },
	{ name => 'pg_boss', title => 'pg-boss', package => 'pg-boss' },
	{ name => 'dbos', title => 'DBOS', package => '@dbos-inc/dbos-sdk' },
	{ name => 'absurd', title => 'absurd', package => 'absurd-sdk' },
	{ name => 'pgflow', title => 'pgflow', package => '@pgflow/core' });

# The protocol's name of a workload and how many steps one unit of it has; of
# ours also what runs it and what it is told.
my %WORKLOADS = (
	one => { steps => 1 },
	diamond => { steps => 4 },
	chain => { steps => 50 },
	fan => { steps => 502 },
	latency => { steps => 1 },
	small => { steps => 4 },
	create_task_1 => { protocol => 'create_task', steps => 1, environment => { BENCH_CONNECTIONS => 1 } },
	create_task_8 => { protocol => 'create_task', steps => 1, environment => { BENCH_CONNECTIONS => 8 } },
	outside_c => { protocol => 'outside', steps => 1 },
	outside_node => { protocol => 'outside', steps => 1, program => 'tasker/outside.mjs' },
	reading => { steps => 0 },
	(map {
			("offered_$_" => {
				protocol => 'offered', steps => 10_000, program => 'tasker/offered', environment => { BENCH_SUBSCRIBERS => $_ } })
		} @SUBSCRIBERS),
	yaml => { steps => 0, program => 'tasker/yaml.mjs' },
	validate => { steps => 0, program => 'tasker/validate.mjs' },
	validate_ajv => { protocol => 'validate', steps => 0, program => 'peers/ajv.mjs' });

my @SHARED = qw(one diamond chain fan latency);

# Everybody in the order of the columns.  A process of tasker reports what it
# counted within a second; a session that stays connected within ten.
sub engines
{
	my (@peers) = @_;

	return (
		{
			name => 'tasker', title => 'tasker', program => 'tasker/workload', report_seconds => 1.3,
			settings => [ [ shared_preload_libraries => 'tasker' ] ],
			workloads => [ @SHARED, qw(small create_task_1 create_task_8 outside_c outside_node reading yaml validate validate_ajv), map { "offered_$_" } @SUBSCRIBERS ],
		},
		(map {
			{
				name => "plain_$_", title => "plain SQL, $_ connection" . ($_ > 1 ? 's' : ''),
				program => 'plain/workload', report_seconds => 0.3, workloads => ['one'],
				environment => { BENCH_CONNECTIONS => $_ },
			}
		} 1, 2),
		map { { %$_, program => "peers/$_->{name}.mjs", report_seconds => 10.5, workloads => [@SHARED], peer => 1 } } @peers);
}

# What a workload of an engine is, with its size.
sub workload
{
	my ($engine, $name, $scale) = @_;
	my %workload = (protocol => $name, program => $engine->{program}, %{ $WORKLOADS{$name} });
	my $size = $SIZES{ $engine->{name} }{$name} // 10;

	$workload{name} = $name;
	$workload{size} = $name =~ /^(reading|yaml)$/ ? $size : int($size * $scale) || 1;
	$workload{environment} = {
		%{ $engine->{environment} // {} }, %{ $workload{environment} // {} },
		BENCH_N => $workload{size}, BENCH_K => $workload{size} };
	return \%workload;
}

# What figures are made of: a result with the workload that it is of.

sub run_of
{
	my ($result) = @_;

	return $result->{intervals}{run};
}

sub steps_of
{
	my ($result) = @_;

	return $result->{workload}{size} * $result->{workload}{steps};
}

sub created_of
{
	my ($result) = @_;

	return $result->{values}{created} ? $result->{values}{created}[0] : $result->{workload}{size};
}

sub steps_a_second
{
	my ($result) = @_;

	return steps_of($result) / run_of($result)->{seconds};
}

sub created_a_second
{
	my ($result) = @_;

	return created_of($result) / $result->{intervals}{create}{seconds};
}

sub ms_a_unit
{
	my ($result) = @_;

	return run_of($result)->{seconds} * 1000 / $result->{workload}{size};
}

sub quantile
{
	my ($share, @values) = @_;

	return undef unless @values;
	@values = sort { $a <=> $b } @values;
	return $values[ int($share * $#values + 0.5) ];
}

sub quantile_of
{
	my ($key, $share) = @_;

	return sub { return quantile($share, @{ $_[0]{values}{$key} // [] }) };
}

# Of all processes of the server, or of one kind.
sub server_cpu
{
	my ($interval, $kind) = @_;

	return defined $kind ? $interval->{cpu}{$kind} // 0 : sum0(values %{ $interval->{cpu} });
}

sub cpu_a_step
{
	my ($kind) = @_;

	return sub { return server_cpu(run_of($_[0]), $kind) / steps_of($_[0]) };
}

sub wal_a_step
{
	my ($result) = @_;

	return run_of($result)->{wal} / steps_of($result);
}

# Rows of the first table: more is better, or less.
our @SPEED = (
	{ row => 'one', workload => 'one', title => 'one-step tasks, steps/s', more => 1, figure => \&steps_a_second },
	{ row => 'diamond', workload => 'diamond', title => 'diamonds of 4 steps, steps/s', more => 1, figure => \&steps_a_second },
	{ row => 'chain', workload => 'chain', title => 'chain of 50, ms a step', figure => sub { ms_a_unit(@_) / 50 } },
	{ row => 'fan', workload => 'fan', title => '1 to 500 to 1, ms', figure => \&ms_a_unit },
	{ row => 'latency', workload => 'latency', title => 'commit to handler, p50, ms', figure => quantile_of('latency_ms', 0.5) },
	{ row => 'latency', workload => 'latency', title => 'commit to handler, p99, ms', figure => quantile_of('latency_ms', 0.99) },
	{ row => 'latency', workload => 'latency', title => 'the commit itself, p50, ms', figure => quantile_of('commit_ms', 0.5) },
	{ row => 'create', workload => 'one', title => 'creating one-step tasks in batches, tasks/s', more => 1, figure => \&created_a_second },
	{ row => 'diamond', workload => 'diamond', title => 'WAL bytes a step of a diamond, after creation', figure => \&wal_a_step },
	{ row => 'diamond', workload => 'diamond', title => 'server CPU µs a step of a diamond, after creation', figure => cpu_a_step() });

# What an interval costs, by the workload, its interval, and what it is shared among.
our @COSTS = (
	{ row => 'create', workload => 'one', interval => 'create', title => 'creating a one-step task', of => \&created_of },
	{ row => 'one', workload => 'one', interval => 'run', title => 'a one-step task', of => \&steps_of },
	{ row => 'diamond', workload => 'diamond', interval => 'run', title => 'a step of a diamond', of => \&steps_of },
	{ row => 'chain', workload => 'chain', interval => 'run', title => 'a step of a chain, creation included', of => \&steps_of },
	{ row => 'fan', workload => 'fan', interval => 'run', title => 'a step of 1 to 500 to 1, creation included', of => \&steps_of });

sub counted
{
	my ($key) = @_;

	return sub { return $_[0]{$key} };
}

# What of it: from the interval, or from the result where the client alone knows.
our @MEASURES = (
	{ title => 'WAL bytes', of => counted('wal') },
	{ title => 'server CPU µs', of => \&server_cpu },
	{ title => 'client CPU µs', client => 1 },
	{ title => 'transactions', of => counted('transactions') },
	{ title => 'fsyncs of WAL', of => counted('syncs') },
	{ title => 'buffers', of => counted('buffers') });

# A function of the result, for each pair of them.
sub cost_figure
{
	my ($cost, $measure) = @_;

	return sub {
		my ($result) = @_;
		my $interval = $result->{intervals}{ $cost->{interval} };
		my $amount = !$measure->{client} ? $measure->{of}->($interval)
		  : $cost->{interval} eq 'run' ? ($result->{values}{client_cpu_us} // [undef])->[0]
		  : undef;

		return defined $amount ? $amount / $cost->{of}->($result) : undef;
	};
}

# What only we have.
our @OURS = (
	{ row => 'outside', workload => 'outside_c', title => 'workers outside in C, 10,000 one-step tasks, steps/s', figure => \&steps_a_second },
	{ row => 'outside', workload => 'outside_node', title => 'workers outside in Node, 10,000 one-step tasks, steps/s', figure => \&steps_a_second },
	{ row => 'create_task', workload => 'create_task_1', title => 'create_task(), one call a transaction, 1 client, tasks/s', figure => \&created_a_second },
	{ row => 'create_task', workload => 'create_task_8', title => 'create_task(), one call a transaction, 8 clients, tasks/s', figure => \&created_a_second },
	{ row => 'small', workload => 'small', title => 'one diamond alone: ms from create_task() to its end seen', figure => \&ms_a_unit },
	{ row => 'small', workload => 'small', title => 'one diamond alone: CPU µs a step, executors', figure => cpu_a_step('executors') },
	{ row => 'small', workload => 'small', title => 'one diamond alone: CPU µs a step, whole server, creation and waiting included', figure => cpu_a_step() },
	{ row => 'small', workload => 'small', title => 'one diamond alone: WAL bytes a step, creation included', figure => \&wal_a_step });

# Rows beside a library that does the same: what is checked, and whom to hold it against.
sub value_of
{
	my ($key) = @_;

	return sub { return ($_[0]{values}{$key} // [undef])->[0] };
}

# The same offer with more and more who hear of it, and 100 sessions that LISTEN.
our @OFFERED = (
	{ title => 'steps/s of 10,000 offered', figure => value_of('steps_a_second') },
	{ title => 'server CPU µs a step, events and all', figure => sub { server_cpu(run_of($_[0])) / steps_of($_[0]) } },
	{ title => 'events that the last subscriber is behind at the end', figure => value_of('lag_events') },
	{ title => 'times that who creates tasks was seen with NOTIFY\'s lock, or waiting for it', figure => sub {
			value_of('notify_locks')->($_[0]) + value_of('notify_waits')->($_[0]) } });

our @LIBRARIES = (
	{ row => 'validate', workload => 'validate', title => 'a flat object of five properties', library => 'ajv', theirs => 'validate_ajv', figure => value_of('flat') },
	{ row => 'validate', workload => 'validate', title => 'an order of 20 lines, with patterns, enums and formats', library => 'ajv', theirs => 'validate_ajv', figure => value_of('order') },
	{ row => 'validate', workload => 'validate', title => '12 shapes, with references, oneOf and unevaluatedProperties', library => 'ajv', theirs => 'validate_ajv', figure => value_of('shapes') });

our @GRAPHS = (
	[ layers_10x4 => '10 layers of 4, each needs all of the layer before' ],
	[ layers_11x4 => '11 layers of 4, the same' ],
	[ random_60 => 'random, 60 steps' ],
	[ wide_1000 => '1 to 1,000 to 1' ]);
our @FUNCTIONS = qw(step_readiness task_execution_context dependency_levels);

# What is read as YAML, and who reads it.
our @TEXTS = (
	[ order => 'the order of the example, 5 steps' ],
	[ steps_200 => '200 steps, 91 kB' ],
	[ kb_500 => '1,088 steps, 500 kB' ]);
our @READERS = ([ tasker => '`yaml_to_jsonb`' ], [ yaml => 'npm yaml' ], [ 'js-yaml' => 'npm js-yaml' ]);

our @ROWS = qw(one create diamond chain fan latency outside create_task small offered reading yaml validate statements);

# Workloads that the rows asked for need.
sub workloads_of
{
	my (@rows) = @_;
	my %wanted = map { $_ => 1 } @rows;
	my %workloads;

	$workloads{ $_->{workload} } = 1 foreach grep { $wanted{ $_->{row} } } @SPEED, @COSTS, @OURS;
	# Workers outside are held against the one-step tasks of the others.
	$workloads{one} = 1 if $wanted{outside};
	$workloads{$_} = 1 foreach grep { $wanted{$_} } qw(reading yaml);
	if ($wanted{offered})
	{
		$workloads{"offered_$_"} = 1 foreach @SUBSCRIBERS;
	}
	$workloads{ $_->{theirs} } = $workloads{ $_->{workload} } = 1 foreach grep { $wanted{ $_->{row} } } @LIBRARIES;
	return \%workloads;
}

1;
