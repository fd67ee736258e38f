# A psql that stays: the sessions of scale, cores and their feeder.
package ScaleSession;

use strict;
use warnings;

use IO::Handle;
use IO::Select;
use IPC::Open2;

# psql: the program; environment: of libpq.
sub new
{
	my ($class, %self) = @_;
	my $self = bless {%self}, $class;
	local @ENV{ keys %{ $self->{environment} } } = values %{ $self->{environment} };

	$self->{process} = open2($self->{out}, $self->{in}, $self->{psql}, '-XAqt', '-F', "\t", '-v', 'ON_ERROR_STOP=1');
	$self->{in}->autoflush(1);
	return $self;
}

# All rows, each an array of columns.
sub rows
{
	my ($self, $sql) = @_;

	$self->begin($sql);
	return $self->end;
}

# The columns of the first row.
sub row
{
	my ($self, $sql) = @_;
	my ($row) = $self->rows($sql);

	return @{ $row // [] };
}

# Sends, and does not wait.
sub begin
{
	my ($self, $sql) = @_;

	local $SIG{PIPE} = 'IGNORE';
	$self->{sent} = $sql;
	print { $self->{in} } "$sql;\n\\echo :end\n";
	return;
}

# Whether the answer comes within so many seconds.
sub is_answered
{
	my ($self, $seconds) = @_;

	return IO::Select->new($self->{out})->can_read($seconds) ? 1 : 0;
}

# Waits for what was sent.
sub end
{
	my ($self) = @_;
	my $answer = $self->{out};
	my @rows;

	while (my $line = <$answer>)
	{
		chomp $line;
		return @rows if $line eq ':end';
		push @rows, [ split /\t/, $line, -1 ] if $line ne '';
	}
	die "psql ended at: $self->{sent}\n";
}

sub close
{
	my ($self) = @_;

	return unless $self->{process};
	close $self->{in};
	close $self->{out};
	waitpid delete $self->{process}, 0;
	return;
}

1;
