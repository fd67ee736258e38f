# tasker-agent as the tests of its REST API start it, and what asks it.
package RestAgent;

use strict;
use warnings;

use HTTP::Tiny;
use IO::Socket::INET;
use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

my $json = JSON::PP->new->utf8->allow_nonref->canonical;

# One that serves a database of a node: RestAgent->new($node, $database, options).
# TASKER_AGENT_PROGRAM names another program than the installed one.
sub new
{
	my ($class, $node, $database, @options) = @_;
	my $self = bless {
		command => [
			$ENV{TASKER_AGENT_PROGRAM} || 'tasker-agent', '--roles', 'rest', '--listen', '127.0.0.1:0',
			'--database', $node->connstr($database), @options
		],
		log => PostgreSQL::Test::Utils::tempdir . '/agent.log',
		http => HTTP::Tiny->new(timeout => 60, max_redirect => 0)
	}, $class;

	$self->start;
	return $self;
}

sub start
{
	my ($self) = @_;

	$self->{out} = '';
	$self->{run} = IPC::Run::start($self->{command}, '<', \undef, '>', \$self->{out}, '2>>', $self->{log});
	local $SIG{ALRM} = sub { die 'the agent does not get ready: ' . slurp_file($self->{log}) };
	alarm 60;
	$self->{run}->pump until $self->{out} =~ /is ready.*\n/ || !$self->{run}->pumpable;
	alarm 0;
	($self->{url}) = $self->{out} =~ m{rest on (http://\S+?),?\n};
	die 'the agent did not start: ' . slurp_file($self->{log}) if !defined $self->{url};
	($self->{port}) = $self->{url} =~ /:(\d+)$/;
	return;
}

# Ends it by that signal; its exit status.
sub end
{
	my ($self, $signal) = @_;

	kill $signal // 'TERM', $self->pid;
	$self->{run}->finish;
	my $status = $self->{run}->full_result(0);
	diag(slurp_file($self->{log})) if $status != 0;
	return $status;
}

sub pid
{
	my ($self) = @_;

	return $self->{run}{KIDS}[0]{PID};
}

sub is_running
{
	my ($self) = @_;

	return kill(0, $self->pid) && $self->{run}->pumpable;
}

# A request: status, headers, body, and json where it is that.
sub call
{
	my ($self, $method, $path, $body, %headers) = @_;
	my %options = (headers => {%headers});

	if (defined $body)
	{
		$options{content} = ref $body ? $json->encode($body) : $body;
		$options{headers}{'Content-Type'} //= 'application/json';
	}
	my $answer = $self->{http}->request($method, "$self->{url}$path", \%options);

	$answer->{json} = eval { $json->decode($answer->{content}) }
	  if ($answer->{headers}{'content-type'} // '') =~ /json/;
	return $answer;
}

# A connection of one's own.
sub connection
{
	my ($self) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{port}, Timeout => 60)
	  or die "could not connect: $!";

	$socket->autoflush(1);
	return $socket;
}

# What comes until the other side ends, or the text fits.
sub read_until
{
	my ($socket, $pattern) = @_;
	my $text = '';

	local $SIG{ALRM} = sub { die "nothing came but: $text" };
	alarm 60;
	while ($text !~ $pattern)
	{
		last if !sysread $socket, $text, 65_536, length $text;
	}
	alarm 0;
	return $text;
}

1;
