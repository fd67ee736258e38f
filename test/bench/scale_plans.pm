# The plans of the engine's statements: those of the C sources as they are kept,
# and all that runs, with what it really touched, as auto_explain sees it.
package ScalePlans;

use strict;
use warnings;

use JSON::PP;

# A statement that touches so many times the pages it touched once, and so many
# more, has grown.
use constant {
	GROWN_TIMES => 2,
	GROWN_BY => 100,
	MANY => 1000,
};

# Statements that are not the engine's but those of this program.
my $ours = qr/\b(?:scale|bench)\.|NOT EXISTS \(SELECT FROM tasker\.queue WHERE lane (?:BETWEEN|IN)/;

# Tables that grow.
my $tables = qr/(?:task|step|log|queue)(?:_p\d+)?/;

# server; statements: the C sources, preprocessed.
sub new
{
	my ($class, %self) = @_;

	return bless {%self}, $class;
}

# ---- as they are kept

# Name, query and types of the arguments of each Statement of the C sources.
sub of_sources
{
	my ($self) = @_;
	my $source = Bench::Counters::slurp($self->{statements});
	my @found;
	my $file;

	while ($source =~ /^# file (\S+)|static Statement (\w+) = \{(.*?)^?\};/gms)
	{
		my ($name, $body) = ($2, $3);

		$file = $1, next if defined $1;
		my ($literals) = $body =~ /\.sql\s*=\s*((?:"(?:[^"\\]|\\.)*"\s*)+)/s or next;
		my ($types) = $body =~ /\.arg_types\s*=\s*\{([^}]*)\}/;

		push @found, {
			name => ($file =~ s{^src/}{}r) . ": $name",
			query => join('', $literals =~ /"((?:[^"\\]|\\.)*)"/g) =~ s/\\(.)/$1/gr,
			types => [ ($types // '') =~ /\d+/g ],
		};
	}
	return @found;
}

# The same switches as in statement.c.
sub prepare_session
{
	my ($session) = @_;

	$session->rows("SET plan_cache_mode = force_generic_plan");
	$session->rows("SET $_ = off") foreach qw(enable_seqscan enable_bitmapscan enable_hashjoin enable_mergejoin jit);
	return;
}

sub generic_plan
{
	my ($session, $statement) = @_;
	my @types = map { ($session->row("SELECT format_type($_, NULL)"))[0] } @{ $statement->{types} };
	my $types = @types ? '(' . join(', ', @types) . ')' : '';
	my $values = @types ? '(' . join(', ', ('NULL') x @types) . ')' : '';

	$session->rows("PREPARE kept $types AS $statement->{query}");
	my $plan = join "\n", map { "@$_" } $session->rows("EXPLAIN EXECUTE kept $values");
	$session->rows('DEALLOCATE kept');
	return { %$statement, plan => $plan };
}

sub generic
{
	my ($self) = @_;
	my $session = $self->{server}->session;

	prepare_session($session);
	my @plans = map { generic_plan($session, $_) } $self->of_sources;
	$session->close;
	return @plans;
}

# ---- as they run

# Runs everything that the engine does (scale_hot.sql) and returns, by query, how
# often it ran, its slowest plan, and the pages and milliseconds of a run.
sub observe
{
	my ($self) = @_;
	my $server = $self->{server};
	my $log = "$server->{place}/data/log/plans.json";

	$server->set(
		shared_preload_libraries => 'tasker, auto_explain',
		logging_collector => 'on',
		log_destination => 'jsonlog',
		log_filename => "'plans.log'",
		log_rotation_age => 0,
		log_rotation_size => 0);
	$server->restart;
	my $before = -s $log;
	$server->{scale}->rows("\\i $server->{scripts}/scale_hot.sql");
	$server->wait_for_rest;
	sleep 1;
	my $seen = read_log($log, $before);
	$server->query('ALTER SYSTEM RESET ALL');
	$server->restart;
	return $seen;
}

sub read_log
{
	my ($path, $from) = @_;
	my %seen;

	open my $file, '<', $path or die "$path: $!\n";
	seek $file, $from, 0;
	while (my $line = <$file>)
	{
		my $entry = eval { decode_json($line) } or next;
		my ($ms, $query, $plan) = $entry->{message} =~ /^duration: ([\d.]+) ms  plan:\nQuery Text: (.*?)\n([^\n]*  \(cost=.*)/s
		  or next;

		take_plan(\%seen, $ms, $query, $plan) unless $query =~ /$ours/;
	}
	return \%seen;
}

# The same statement with other numbers in it is the same.
sub key_of
{
	my ($query) = @_;

	return $query =~ s/(?<![\w\$])\d+\b/N/gr =~ s/\s+/ /gr;
}

sub take_plan
{
	my ($seen, $ms, $query, $plan) = @_;
	my $key = key_of($query);
	my ($buffers) = $plan =~ /Buffers: shared(.*)/;
	my $one = $seen->{$key} //= { query => $query =~ s/\s+/ /gr, calls => 0, ms => 0, buffers => 0, slowest => -1 };

	$one->{calls}++;
	$one->{ms} += $ms;
	$one->{buffers} += $1 while ($buffers // '') =~ /(?:hit|read)=(\d+)/g;
	@$one{qw(slowest plan)} = ($ms, $plan) if $ms > $one->{slowest};
	return;
}

# ---- judged

# In a small table nothing else would be sensible, where it is not ruled out.
sub scans
{
	return grep {
		($_->{plan} // '') =~ /Seq Scan on $tables\b(?!_)/ && (!$_->{calls} || $_->{buffers} / $_->{calls} > MANY)
	} @_;
}

# Statements of the sources that were not seen at work.
sub unseen
{
	my ($generic, $seen) = @_;

	return grep { !$seen->{ key_of($_->{query}) } } @$generic;
}

sub grown
{
	my ($before, $now) = @_;
	my @grown;

	foreach my $key (sort keys %$now)
	{
		my ($old, $new) = ($before->{$key}, $now->{$key});

		next unless $old;
		my @pages = map { $_->{buffers} / $_->{calls} } $old, $new;
		next if $pages[1] < GROWN_TIMES * $pages[0] || $pages[1] < $pages[0] + GROWN_BY;
		push @grown, { query => $new->{query}, before => $pages[0], buffers => $pages[1], ms => $new->{ms} / $new->{calls} };
	}
	return @grown;
}

sub write
{
	my ($self, $path, $generic, $seen) = @_;

	open my $file, '>', $path or die "$path: $!\n";
	print $file "-- Statements that C runs with kept plans.\n";
	printf $file "\n-- %s\n%s;\n\n%s\n", @$_{qw(name query plan)} foreach @$generic;
	print $file "\n-- Statements at work, the slowest run of each.\n";
	foreach my $one (sort { $b->{ms} / $b->{calls} <=> $a->{ms} / $a->{calls} } values %$seen)
	{
		printf $file "\n-- %d times, %.3f ms and %.0f pages each\n%s;\n\n%s\n", $one->{calls},
		  $one->{ms} / $one->{calls}, $one->{buffers} / $one->{calls}, @$one{qw(query plan)};
	}
	close $file;
	return;
}

1;
