#!/usr/bin/perl
# scale_feed.pl PSQL GRAPH KIND NUMBER: creates tasks until it is ended, in the
# database of libpq's environment.  GRAPH: a graph, or mix.  KIND pace: NUMBER
# steps a second; KIND backlog: as fast as NUMBER tasks that wait allow.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use List::Util qw(max min);
use Time::HiRes qw(sleep time);

require 'scale_session.pm';

# A tick is short against what people call a delay, and long against a commit.
use constant TICK => 0.02;
# Groups of five tasks in a transaction at the most.
use constant MOST => 200;
use constant STEPS_A_GROUP => 8;

my ($psql, $graph, $kind, $number) = @ARGV;
my $session = ScaleSession->new(psql => $psql, environment => {});

# Creates so many groups; returns the last task's id.
sub create
{
	my ($groups) = @_;
	my ($id) = $session->row("SELECT scale.create_tasks('$graph', $groups)");

	return $id;
}

sub pace
{
	my ($rate) = @_;
	my $started = time;
	my $created = 0;

	while (1)
	{
		my $wanted = int((time - $started) * $rate / STEPS_A_GROUP) - $created;
		my $groups = min($wanted, MOST);

		create($groups) if $groups > 0;
		$created += max($groups, 0);
		sleep TICK if $wanted <= MOST;
	}
	return;
}

sub keep_backlog
{
	my ($most) = @_;
	my ($first) = create(1);

	while (1)
	{
		my $last = create(MOST);

		sleep TICK while $last - max(($session->row('SELECT scale.frontier()'))[0], $first) > $most;
	}
	return;
}

$kind eq 'pace' ? pace($number) : keep_backlog($number);
