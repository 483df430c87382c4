# Logical replication of a store into another server that has the extension.
# Events arrive with their places, through the same guard as any insert, in
# the order of their commits.  A reader there is shown them in the order of
# their positions all the same, and misses none.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $origin = new_store('origin', undef, allows_streaming => 'logical');
my $replica = new_store('replica', undef, allows_streaming => 'logical');
my $connstr = $origin->connstr . ' dbname=postgres';

sub positions
{
	my ($node) = @_;

	return join ' ', split /\n/,
	  $node->safe_psql('postgres', 'SELECT position FROM es_read_all()');
}

sub append
{
	$origin->safe_psql('postgres',
		"SELECT es_append('$_[0]', 'Happened', '{}')");
}

sub rows
{
	my ($node) = @_;

	return $node->safe_psql('postgres',
		"SELECT count(*), md5(string_agg(es_event::text, E'\\n' ORDER BY position)) FROM es_event"
	);
}

sub catch_up
{
	$origin->wait_for_catchup('sub');
}

# The first copy, with a hole in it.
$origin->safe_psql(
	'postgres', q(
	SELECT count(es_append('old-' || i % 10, 'Copied', '{}')) FROM generate_series(1, 2000) i;
	BEGIN;
	SELECT es_append('old-1', 'Undone', '{}');
	ROLLBACK;
	SELECT es_append('old-1', 'Copied', '{}', tags => '{a,b}', metadata => '{"user": "me"}');
	CREATE PUBLICATION pub FOR TABLE es_event, es_settled;));
$replica->safe_psql('postgres',
	"CREATE SUBSCRIPTION sub CONNECTION '$connstr' PUBLICATION pub WITH (disable_on_error = true)");
$replica->wait_for_subscription_sync($origin, 'sub');
is(rows($replica), rows($origin), 'the first copy brings every event as it is');
is($replica->safe_psql('postgres', 'SELECT max(position) FROM es_read_all(1900)'),
	'2000', 'a reader stops at the hole');
is($replica->safe_psql('postgres', 'SELECT es_settled_position()'),
	'0', 'since nothing is written down');
$origin->safe_psql('postgres', 'SELECT es_settle()');
catch_up();
is($replica->safe_psql('postgres', 'SELECT max(position) FROM es_read_all(1900)'),
	'2002', 'and goes on when it is');
is($replica->safe_psql('postgres', 'SELECT es_settled_position()'),
	'2002', 'the settled position came along');

# Streaming: a late commit of a low position.
my $open = $origin->background_psql('postgres');
$open->query_safe(q(BEGIN; SELECT es_append('open-1', 'Late', '{}')));
append('new-1');
append('new-2');
is($origin->safe_psql('postgres', 'SELECT es_settle()'),
	'2002', 'the origin has an append under way');
catch_up();
is($replica->safe_psql('postgres', 'SELECT max(position) FROM es_event'),
	'2005', 'later events have arrived');
is($replica->safe_psql('postgres', 'SELECT max(position) FROM es_read_all(2000)'),
	'2002', 'but are not shown');
$open->query_safe('COMMIT');
$open->quit;
catch_up();
is( $replica->safe_psql('postgres',
		q(SELECT string_agg(position::text, ' ') FROM es_read_all(2000))),
	'2002 2003 2004 2005',
	'until the one in front of them has arrived');
is($replica->safe_psql('postgres', 'SELECT last_value FROM es_event_position_seq'),
	'2005', 'the sequence has followed');

# Under load.
my $reader = $replica->background_psql('postgres');
my $settler = $origin->background_psql('postgres');
my $last = 2005;
my @got;

sub poll
{
	my @rows = split /\n/,
	  query_quietly($reader, "SELECT position FROM es_read_all($last, 1000)");

	push @got, @rows;
	$last = $rows[-1] if @rows;
	return scalar @rows;
}

my $load = start_load($origin, 8, 6);
my $running = 1;
while ($running)
{
	query_quietly($settler, 'SELECT es_settle()');
	poll();
	$running = is_running($load);
}
finish_load($load);
my $live = @got;
$settler->query_safe('SELECT es_settle()');
$settler->quit;
catch_up();
1 while poll();
$reader->quit;
my @events = split /\n/,
  $origin->safe_psql('postgres',
	'SELECT position FROM es_event WHERE position > 2005 ORDER BY position');
is("@got", "@events", 'the replica shows the origin\'s events, all of them, once, in order ('
	  . @events . " events, $live of them while they were appended)");
is(rows($replica), rows($origin), 'and the rows are the same');
store_is_sound($replica, 'replica');
ok( $replica->safe_psql('postgres',
		'SELECT last_value >= (SELECT max(position) FROM es_event) FROM es_event_position_seq'),
	'the local sequence is beyond all positions');
sqlstate_is($replica, 'SELECT es_settle()', '55000',
	'es_settle() belongs to the origin');
like(($replica->psql('postgres', 'SELECT es_settle()'))[2],
	qr/cannot settle a store that is replicated from another/, 'and says so');
like(($replica->psql('postgres', 'CALL es_archive(1)'))[2],
	qr/cannot archive a store that is replicated from another/, 'so does es_archive()');

# Somebody at the origin who turned the guard off changes events there, but
# not here.  An origin that archives deletes, too, so a delete stops nothing;
# an event goes only if its segment is here.
$origin->safe_psql('postgres', q(BEGIN;
	ALTER TABLE es_event DISABLE TRIGGER USER;
	DELETE FROM es_event WHERE position = 2;
	ALTER TABLE es_event ENABLE ALWAYS TRIGGER zz_es_event_insert,
		ENABLE ALWAYS TRIGGER es_event_refuse,
		ENABLE ALWAYS TRIGGER es_event_refuse_row;
	COMMIT));
catch_up();
is($replica->safe_psql('postgres', 'SELECT count(*) FROM es_event WHERE position = 2'),
	'1', 'a replicated delete of an event that is not archived takes nothing away');
foreach my $crime (
	q(UPDATE es_event SET data = '{"forged": true}' WHERE position = 1),
	q(TRUNCATE es_event))
{
	my ($verb) = lc($crime) =~ /^(\w+)/;
	my $before = rows($replica);
	my $offset = -s $replica->logfile;

	$origin->safe_psql('postgres', "BEGIN;
		ALTER TABLE es_event DISABLE TRIGGER USER;
		$crime;
		ALTER TABLE es_event ENABLE ALWAYS TRIGGER zz_es_event_insert,
			ENABLE ALWAYS TRIGGER es_event_refuse,
			ENABLE ALWAYS TRIGGER es_event_refuse_row;
		COMMIT;");
	ok( $replica->poll_query_until(
			'postgres', 'SELECT NOT subenabled FROM pg_subscription'),
		"a replicated $verb stops the subscription");
	ok($replica->log_contains("ERROR:  cannot $verb events", $offset),
		'being refused');
	is(rows($replica), $before, 'and changes nothing');

	# Go on behind it.
	my ($lsn) = slurp_file($replica->logfile, $offset) =~
	  /finished at ([0-9A-F]+\/[0-9A-F]+)/;
	$replica->safe_psql('postgres', "ALTER SUBSCRIPTION sub SKIP (lsn = '$lsn')");
	$replica->safe_psql('postgres', 'ALTER SUBSCRIPTION sub ENABLE');
	catch_up();
}

# Without the subscription it is a store of its own, which appends behind all
# that it was given.
my $highest =
  $replica->safe_psql('postgres', 'SELECT max(position) FROM es_event');
$replica->safe_psql('postgres', 'DROP SUBSCRIPTION sub');
$replica->safe_psql('postgres', q(SELECT es_append('own-1', 'Happened', '{}', 0)));
cmp_ok(
	$replica->safe_psql('postgres', q(SELECT position FROM es_read_stream('own-1'))),
	'>', $highest, 'cut off, the replica appends behind what it was given');
is( $replica->safe_psql('postgres',
		"SELECT string_agg(stream_id, ' ') FROM es_read_all($highest)"),
	'own-1', 'and a reader goes on');
store_is_sound($replica, 'cut off');

$replica->stop;
$origin->stop;
done_testing();
