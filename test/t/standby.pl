# Reading from a streaming standby.  It knows nothing of the transactions that
# are under way on the primary, so it passes a hole only at or below the
# settled position that the primary wrote down, and then it shows exactly the
# primary's events, in order.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use PostgreSQL::Test::Cluster;
use Test::More;

my $primary = new_store('primary', undef, allows_streaming => 1);
my $standby = PostgreSQL::Test::Cluster->new('standby');

$primary->backup('base');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->append_conf('postgresql.conf', 'max_standby_streaming_delay = -1');
$standby->start;

sub positions
{
	my ($node) = @_;

	return join ' ', split /\n/,
	  $node->safe_psql('postgres', 'SELECT position FROM es_read_all()');
}

sub append
{
	$primary->safe_psql('postgres',
		"SELECT es_append('$_[0]', 'Happened', '{}')");
}

sub settle
{
	return $primary->safe_psql('postgres', 'SELECT es_settle()');
}

sub replay
{
	$primary->wait_for_catchup($standby);
}

sub on_standby
{
	return $standby->safe_psql('postgres', $_[0]);
}

# Where there is no hole there is nothing to ask.
append('calm-1');
append('calm-1');
append('calm-2');
replay();
is(positions($standby), '1 2 3', 'without a hole nothing need be written down');
is(on_standby('SELECT es_settled_position()'), '0', 'and nothing is');

# The hole of a transaction under way, with an event behind it.
my $open = $primary->background_psql('postgres');
$open->query_safe(q(BEGIN; SELECT es_append('open-1', 'Happened', '{}')));
append('calm-3');
is(settle(), '3', 'the settled position is in front of the open append');
replay();
is(positions($primary), '1 2 3', 'the primary stops there');
is(positions($standby), '1 2 3', 'so does the standby');
$open->query_safe('COMMIT');
replay();
is(positions($primary), '1 2 3 4 5', 'it committed: the primary goes on');
is(positions($standby), '1 2 3 4 5', 'so does the standby: the hole is filled');

# The hole of a transaction that was rolled back.
$open->query_safe(q(BEGIN; SELECT es_append('open-1', 'Undone', '{}'); ROLLBACK));
append('calm-3');
replay();
is(positions($primary), '1 2 3 4 5 7', 'the primary knows that nobody fills this hole');
is(positions($standby), '1 2 3 4 5', 'the standby does not');
is(settle(), '7', 'until it is written down');
replay();
is(positions($standby), '1 2 3 4 5 7', 'and then it does');
is(on_standby('SELECT es_settled_position()'), '7', 'the settled position is what was written down');

# A snapshot from before shows neither the event nor the position behind it.
my $old = $standby->background_psql('postgres');
$old->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
$open->query_safe(q(BEGIN; SELECT es_append('open-1', 'Undone', '{}'); ROLLBACK));
append('calm-3');
settle();
replay();
is($old->query_safe('SELECT max(position) FROM es_read_all()'),
	'7', 'an older snapshot on the standby ends where it ended');
is($old->query_safe('SELECT es_settled_position()'),
	'7', 'and does not see what was written down since');
$old->quit;
$open->quit;

# The other reading functions.
is( on_standby(
		q(SELECT string_agg(version || ':' || position, ' ') FROM es_read_stream('calm-3'))
	),
	'1:5 2:7 3:9',
	'es_read_stream()');
is(on_standby(q(SELECT es_stream_version('calm-3'))), '3', 'es_stream_version()');
is(on_standby('SELECT es_position_at(clock_timestamp())'), '9', 'es_position_at()');
store_is_sound($standby, 'standby');

sqlstate_is($standby, q(SELECT es_append('calm-1', 'Happened', '{}')),
	'25006', 'es_append() is refused');
sqlstate_is($standby,
	q(SELECT es_append_batch('calm-1', '{A}', ARRAY['{}'::jsonb])),
	'25006', 'es_append_batch() is refused');
sqlstate_is($standby, 'SELECT es_settle()', '25006', 'es_settle() is refused');

# Under load: two readers poll the standby while somebody writes down the
# settled position now and then.
my %reader = map {
	$_ => {
		session => $standby->background_psql('postgres'),
		last => 0,
		got => [],
		polls => 0
	}
} 'READ COMMITTED', 'REPEATABLE READ';

sub poll
{
	my ($level) = @_;
	my $reader = $reader{$level};
	my @rows = split /\n/,
	  query_quietly(
		$reader->{session},
		"BEGIN ISOLATION LEVEL $level; SELECT es_settled_position() \\g /dev/null\n"
		  . "SELECT position FROM es_read_all($reader->{last}, 1000); COMMIT");

	push @{ $reader->{got} }, @rows;
	$reader->{last} = $rows[-1] if @rows;
	$reader->{polls}++;
	return scalar @rows;
}

my $seconds = 10;
my $load = start_load($primary, 8, $seconds);
my $settler = $primary->background_psql('postgres');
my $running = 1;

while ($running)
{
	query_quietly($settler, 'SELECT es_settle()');
	poll($_) for keys %reader;
	$running = is_running($load);
}
finish_load($load);
$settler->quit;
settle();
replay();

my @events = split /\n/,
  $primary->safe_psql('postgres',
	'SELECT position FROM es_event ORDER BY position');
my $drawn = $primary->safe_psql('postgres',
	'SELECT last_value FROM es_event_position_seq');
foreach my $level (sort keys %reader)
{
	my $live = @{ $reader{$level}{got} };

	1 while poll($level);
	$reader{$level}{session}->quit;
	cmp_ok($live, '>', @events / 2, "$level: the standby kept up ($live of "
		  . @events . " events in $reader{$level}{polls} polls)");
	is("@{$reader{$level}{got}}", "@events",
		"$level: the primary's events, all of them, once, in order ("
		  . ($drawn - @events) . ' holes)');
}

# Promotion: the store goes on, and no position comes again.
my $told = on_standby('SELECT es_settled_position()');
my $hash = md5($primary);
sub md5
{
	return $_[0]->safe_psql('postgres',
		"SELECT count(*), md5(string_agg(es_event::text, E'\\n' ORDER BY position)) FROM es_event"
	);
}

$primary->stop;
$standby->promote;
is(md5($standby), $hash, 'the promoted standby has every event');
on_standby(q(SELECT es_append('after-1', 'Happened', '{}', 0)));
cmp_ok(
	on_standby(q(SELECT position FROM es_read_stream('after-1'))),
	'>', $told, 'appending goes on behind all that was settled');
is( on_standby("SELECT string_agg(stream_id, ' ') FROM es_read_all($events[-1])"),
	'after-1',
	'and a reader goes on from its last position');
cmp_ok(on_standby('SELECT es_settle()'), '>', $told, 'the settled position moves on');
store_is_sound($standby, 'promoted');

$standby->stop;
done_testing();
