# Kill the server with signal 9, again and again, under writers and readers.
#
# What a writer was told is committed must be there (unless it asked for
# asynchronous commit).  What a reader was given must be there whatever the
# writer asked for, since a position that is lost is handed out again: the
# reader would take the new event for the one it has seen.  Writers log each
# answer; whatever they got no answer for may be there or not.
#
# ES_ROUNDS says how often the server is killed with each setting of
# synchronous_commit (3), ES_WRITERS how many write (4).
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $rounds = $ENV{ES_ROUNDS} || 3;
my $writers = $ENV{ES_WRITERS} || 4;
my $units = 3000;    # more than a writer gets done before the crash

# The WAL writer sleeps unless a page of WAL is full, so that asynchronous
# commits stay in memory.
my $node = new_store('main', "wal_writer_delay = 10s\nfull_page_writes = off\n");
my $round = 0;
my %told;            # position => event id, as readers were given them
my $settled = 0;     # highest settled position that a reader was told
my $acknowledged = 0;
my $unknown = 0;
my %found = (faults => 0, lost => 0, doubled => 0, reordered => 0);
my ($longest, $widest) = (0, 0);    # s until the server is back; positions burnt by a crash
my $told_events = 0;
my $base = 0;        # what lies at or below was compared in earlier rounds

# One writer's session: single appends, and transactions of three appends to
# streams that all writers share.  The line after each says that it is done.
sub writer_script
{
	my ($writer) = @_;
	my $script = '';

	foreach my $n (1 .. $units)
	{
		my $append = sprintf q(SELECT es_append('%%s', 'Written', '{"w": "%s", "n": %d}') \g /dev/null)
		  . "\n", "$round.$writer", $n;

		$script .=
		  $n % 5
		  ? sprintf($append, "own-$round.$writer")
		  : "BEGIN;\n"
		  . join('', map { sprintf $append, "shared-$_" } 1 .. 3)
		  . "COMMIT;\n";
		$script .= "\\echo $n\n";
	}
	return $script;
}

# Read on from where the reader is; note what it is given, and answer whether
# it was anything.
sub read_on
{
	my ($reader) = @_;
	my ($last) = (sort { $b <=> $a } keys %told, 0)[0];
	my $rows = query_quietly($reader,
		"SELECT position, event_id FROM es_read_all($last, 500)");
	my $position = query_quietly($reader, 'SELECT es_settled_position()');

	while ($rows =~ /^(\d+)\|(\S+)$/mg)
	{
		$found{doubled}++ if exists $told{$1};
		$told{$1} = $2;
		$told_events++;
	}
	$settled = $position if $position > $settled;
	return $rows ne '';
}

# Everything that readers were given is there; nothing new took its place.
sub told_is_true
{
	my ($name) = @_;
	my %stored = $node->safe_psql('postgres',
		"SELECT position, event_id FROM es_event WHERE position > $base") =~ /^(\d+)\|(\S+)$/mg;
	my @wrong = grep { $_ > $base && ($stored{$_} // '') ne $told{$_} } keys %told;
	my $next;

	$found{lost} += @wrong;
	is("@wrong", '', "$name: what readers were given is there");
	$node->safe_psql('postgres',
		q(SELECT es_append('probe-1', 'Probed', '{}')));
	$next = $node->safe_psql('postgres',
		q(SELECT position FROM es_read_stream('probe-1', 0, 1, true)));
	cmp_ok($next, '>', $settled,
		"$name: no settled position is handed out again");
	$found{reordered}++ if $next <= $settled;
}

# Up again after a crash, which is counted.
sub start_again
{
	my $began = time;
	my $last;

	$node->start;
	$last = $node->safe_psql('postgres', q(SELECT last_value - (SELECT max(position) FROM es_event) FROM es_event_position_seq));
	$longest = time - $began if time - $began > $longest;
	$widest = $last if $last > $widest;
	$found{faults}++;
}

# What each writer finds of its own afterwards: units 1..n without a hole.
sub survivors
{
	return $node->safe_psql(
		'postgres', "SELECT data ->> 'w', max((data ->> 'n')::int),
			count(DISTINCT data ->> 'n')
		FROM es_event WHERE position > $base AND data ->> 'w' LIKE '$round.%' GROUP BY 1") =~
	  /^(\S+)\|(\d+\|\d+)$/mg;
}

sub crash_under_load
{
	my ($commit) = @_;
	my $name = 'round ' . ++$round . ", synchronous_commit = $commit";
	my @load = map {
		psql_start($node, writer_script($_),
			options => "-c synchronous_commit=$commit")
	} 1 .. $writers;
	my $reader = $node->background_psql('postgres');
	my $before;
	my ($lost, $torn, $acks) = (0, 0, 0);
	my %survived;

	# A long run keeps what the last round was told.
	($base) = (sort { $b <=> $a } keys %told, 0)[0];
	delete @told{ grep { $_ < $base } keys %told };
	$before = keys %told;
	wait_until(
		'readers to be told enough',
		sub { read_on($reader); return keys %told >= $before + 400; });
	crash($node);
	eval { $reader->quit };
	start_again();

	%survived = survivors();
	foreach my $writer (1 .. $writers)
	{
		my (undef, $out) = psql_finish($load[ $writer - 1 ]);
		my ($last) = $out =~ /(\d+)\n\z/;
		my ($max, $count) = split /\|/, $survived{"$round.$writer"} // '0|0';

		$last //= 0;
		$acks += $last;
		$unknown++ if $max == $last + 1;
		$lost++ if $commit eq 'on' && $max < $last;
		$torn++ if $max > $last + 1 || $max != $count;
	}
	$found{lost} += $lost;
	$found{doubled} += $torn;
	$acknowledged += $acks if $commit eq 'on';
	cmp_ok($acks, '<', $writers * $units, "$name: crashed at work");
	is($lost, 0, "$name: no acknowledged event is lost ($acks units)");
	is($torn, 0, "$name: each writer finds all up to its last");
	told_is_true($name);
}

# Without load nothing else writes the log out, so a reader that did not do it
# itself would be found out every time.
sub crash_after_reading
{
	my $name = 'quiet round ' . ++$round;
	my $reader = $node->background_psql('postgres');

	$node->safe_psql('postgres', "SET synchronous_commit = off;
		SELECT es_append('quiet-$round', 'Written', '{}')");
	1 while read_on($reader);
	crash($node);
	eval { $reader->quit };
	start_again();
	is($node->safe_psql('postgres', "SELECT es_stream_version('quiet-$round')"),
		'1', "$name: the event that was read is there");
	told_is_true($name);
}

# A position that was drawn in vain is settled, too.  The sequence logs its
# value at the first draw after a checkpoint.
sub crash_after_settling
{
	my ($function) = @_;
	my $name = 'settled round ' . ++$round . ", $function()";

	$settled = $node->safe_psql(
		'postgres', "SET synchronous_commit = off;
		CHECKPOINT;
		BEGIN;
		SELECT es_append('vain-1', 'Written', '{}') \\g /dev/null
		ROLLBACK;
		SELECT $function()");
	crash($node);
	start_again();
	told_is_true($name);
}

crash_under_load('on') for 1 .. $rounds;
crash_under_load('off') for 1 .. $rounds;
crash_after_reading() for 1 .. 3;
crash_after_settling($_) for 'es_settled_position', 'es_settle';

note "$acknowledged units acknowledged durably, $unknown with unknown outcome, "
  . "$told_events events told to readers";
note sprintf "the server is back within %.1f s; a crash burns up to $widest positions", $longest;
store_is_sound($node, 'after all crashes');
$node->safe_psql('postgres',
	q(SELECT es_append('after-1', 'Appended', '{}', 0)));
like(
	$node->safe_psql('postgres',
		q(SELECT string_agg(stream_id, ' ') FROM es_read_all((SELECT max(position) - 1 FROM es_event)))
	),
	qr/^after-1$/,
	'appending and reading go on');

report_figures(%found);

$node->stop;
done_testing();
