# What scale and cores write: to standard output and to a file, as it comes.
package ScaleReport;

use strict;
use warnings;

use IO::Handle;
use POSIX qw(strftime uname);

# path: of the file; text: a page's opening lines come from begin_page.
sub new
{
	my ($class, $path) = @_;

	open my $file, '>', $path or die "$path: $!\n";
	$file->autoflush(1);
	STDOUT->autoflush(1);
	return bless { file => $file, failures => 0 }, $class;
}

sub line
{
	my ($self, @text) = @_;

	print "@text\n";
	print { $self->{file} } "@text\n";
	return;
}

# What was measured, and on what.
sub begin_page
{
	my ($self, $title, $server, @settings) = @_;
	my ($version) = $server->query('SHOW server_version');
	my $processors = () = Bench::Counters::slurp('/proc/cpuinfo') =~ /^processor/mg;
	my (undef, undef, $kernel, undef, $machine) = uname();

	$self->line("# $title");
	$self->line('');
	$self->line(strftime('%e %B %Y', localtime) =~ s/^ //r . ", tasker $ENV{BENCH_VERSION}, PostgreSQL $version, "
		  . "$processors processors, Linux $kernel $machine");
	$self->line('');
	$self->line("@settings") if @settings;
	return;
}

sub table
{
	my ($self, @titles) = @_;

	$self->line('');
	$self->row(@titles);
	$self->line('|' . '---|' x @titles);
	return;
}

sub row
{
	my ($self, @cells) = @_;

	$self->line('| ' . join(' | ', map { $_ // '' } @cells) . ' |');
	return;
}

# What has to be, and whether it is.
sub verdict
{
	my ($self, $is_so, $text) = @_;

	$self->{failures}++ unless $is_so;
	$self->line('');
	$self->line(($is_so ? 'Held: ' : '**Not held:** ') . $text . '.');
	return;
}

# Three digits that count, with commas.
sub number
{
	my ($number) = @_;
	my $digits = !defined $number ? '' : abs($number) >= 100 ? 0 : abs($number) >= 10 ? 1 : 2;
	my $text = defined $number ? sprintf "%.${digits}f", $number : '';

	1 while $text =~ s/^(-?\d+)(\d{3})/$1,$2/;
	return $text;
}

# On standard error, with the seconds since the start.
sub say_progress
{
	printf STDERR "%6d s  %s\n", time - $^T, "@_";
	return;
}

1;
