# statement_timeout in the middle of what takes long: a batch of 10,000
# events, a projection's batch, the archiver.  It strikes at a moment drawn by
# lot, up to a little behind the usual end.  Either all of it is there or
# nothing, no lock is left, and the same goes through when it is given time.
#
# ES_ROUNDS says how often each is timed out (3), ES_SEED repeats a run.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use Test::More;
use Time::HiRes qw(time);

my $rounds = $ENV{ES_ROUNDS} || 3;
my $seed = $ENV{ES_SEED} || time;
srand($seed);
note("ES_SEED=$seed");

my $events = 10_000;
my $node = new_store('main');
my %found = (faults => 0, lost => 0, doubled => 0, reordered => 0);
my %count;
my $unsound = 0;
my $expected = 0;
my $stream = 0;

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

sub new_database
{
	sql('DROP EXTENSION IF EXISTS eventstore CASCADE; DROP TABLE IF EXISTS summed; CREATE EXTENSION eventstore');
	sql(<<'SQL');
CREATE TABLE summed (version bigint);
BEGIN;
SELECT es_create_projection('summed', tables => '{summed}');
SELECT es_on('summed', 'A', 'INSERT INTO summed VALUES (event.version)');
COMMIT;
SQL
	$expected = 0;
}

sub append_sql
{
	return "SELECT es_append_batch('many-" . ++$stream . "', array_fill('A'::text, ARRAY[$events]), array_fill('{}'::jsonb, ARRAY[$events]))";
}

# Milliseconds that a statement takes, with room for none.
sub duration
{
	my $began = time;

	sql($_[0]);
	return 1000 * (time - $began);
}

# Give the statement less time than it needs; true if it came through.
sub hurry
{
	my ($what, $usual, $sql) = @_;
	my $timeout = 1 + int rand(1.1 * $usual);
	my ($ret, undef, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nSET statement_timeout = $timeout;\n$sql", on_error_stop => 1);

	if ($ret == 0)
	{
		$count{$what}{through}++;
		return 1;
	}
	$count{$what}{'timed out'}++;
	$found{faults}++;
	like($err, qr/ERROR:  57014:/, "$what: timed out") unless $err =~ /ERROR:  57014:/;
	return 0;
}

sub look
{
	my ($when, $checked) = @_;
	my @is = split / /, sql(q(SELECT count(*) || ' ' || count(DISTINCT event_id) || ' ' ||
		(SELECT count(*) FROM (SELECT version <> row_number() OVER (PARTITION BY stream_id ORDER BY position) AS wrong FROM es_event_all) x WHERE wrong) || ' ' ||
		(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory') || ' ' ||
		(SELECT count(*) FROM (SELECT count(*), sum(version)::bigint FROM es_event_all, es_projection p
			WHERE es_event_all.position <= p.position EXCEPT SELECT count(*), sum(version)::bigint FROM summed) x) || ' ' ||
		0 FROM es_event_all));
	$is[5] = sql(q(SELECT count(*) FROM es_check() WHERE status <> 'ok' AND check_name <> 'projections')) if $checked;

	$found{lost} += $expected - $is[0] if $is[0] < $expected;
	$found{doubled} += $is[0] - $expected if $is[0] > $expected;
	$found{doubled} += $is[0] - $is[1];
	$found{reordered} += $is[2];
	$unsound += $is[3] + $is[4] + $is[5];
	diag("$when: expected $expected; events, ids, out of order, locks, read model, es_check(): @is")
	  if "@is" ne "$expected $expected 0 0 0 0";
}

my ($append, $project, $archive);
my $run = "SET eventstore.batch_size = 100000; CALL es_run_projections()";
my $move = 'CALL es_archive(before_position => 1000000000, segment_events => 2500)';
foreach my $round (1 .. $rounds)
{
	new_database() if $round % 4 == 1;
	if (!defined $append)
	{
		$append = duration(append_sql());
		$project = duration($run);
		$archive = duration($move);
		$expected += $events;
	}
	$expected += $events if hurry("a batch of $events", $append, append_sql());
	look('append');
	sql(append_sql());
	$expected += $events;
	hurry('a projection\'s batch', $project, $run);
	look('projection');
	hurry('the archiver', $archive, $move);
	look('archive', 1);
	sql("$run; $move");
}
look('at the end', 1);
is(sql(q(SELECT count(*) FROM summed)), $expected, 'given time, everything goes through');
foreach my $what (sort keys %count)
{
	note "$what: " . join ', ', map { "$count{$what}{$_} times $_" } sort keys %{ $count{$what} };
}
cmp_ok($found{faults}, '>=', $rounds, "$found{faults} statements timed out in the middle");
is("$found{lost} $found{doubled} $found{reordered}", '0 0 0', 'each left everything or nothing');
is($unsound, 0, 'no lock is left, the read model is that of the events, es_check() finds nothing');
report_figures(%found);

$node->stop;
done_testing();
