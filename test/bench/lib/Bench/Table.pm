# Figures as people read them, and the Markdown tables that they stand in.
package Bench::Table;

use strict;
use warnings;

use List::Util qw(max min);

sub median
{
	my @values = sort { $a <=> $b } @_;
	my $middle = int(@values / 2);

	return @values % 2 ? $values[$middle] : ($values[ $middle - 1 ] + $values[$middle]) / 2;
}

# Three digits say all there is to say.
sub number
{
	my ($number) = @_;
	my $size = abs $number;
	my $digits = $size >= 100 ? 0 : $size >= 10 ? 1 : $size >= 1 ? 2 : $size >= 0.01 ? 3 : 5;
	my $text;

	return '0' if $number == 0;
	$number = sprintf '%.2e', $number if $size >= 1000;
	$text = sprintf "%.${digits}f", $number;
	1 while $text =~ s/^(-?\d+)(\d{3})/$1,$2/;
	return $text;
}

# The median, and from where to where they went.
sub spread
{
	my @values = @_;

	return number($values[0]) if @values == 1;
	return sprintf '%s (%s–%s)', number(median(@values)), number(min @values), number(max @values);
}

# What is no figure: short, and without what would end a cell.
sub reason
{
	my ($text) = @_;

	$text =~ s/\e\[[\d;]*m//g;
	$text =~ s/\s+/ /g;
	$text =~ s/\|/\\|/g;
	$text =~ s/</&lt;/g;
	return length $text > 100 ? substr($text, 0, 97) . '...' : $text;
}

# Rows are lists of cells; the first row is the head.
sub markdown
{
	my ($head, @rows) = @_;

	return join '', map { '| ' . join(' | ', @$_) . " |\n" } $head, [ '---', ('---:') x $#$head ], @rows;
}

1;
