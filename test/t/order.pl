# Guarantee 3 under stress: a reader that goes on from the last position it saw
# meets every committed event exactly once, in position order.
#
# Twelve writers do what makes positions become visible out of order: pauses
# between appends, savepoints and transactions rolled back, batches, INSERT and
# COPY.  Readers poll meanwhile and write down what they are given, in the
# order in which they are given it.  In the end that is compared with the
# table, which is the only judge.
#
# ES_SECONDS says for how long (15).
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use Test::More;

my $seconds = $ENV{ES_SECONDS} || 15;
my %found = (lost => 0, doubled => 0, reordered => 0);
my $node = new_store('main');

$node->safe_psql(
	'postgres', q(
	CREATE TABLE delivered (n bigserial, reader text, position bigint);
	CREATE TABLE polls (reader text, polls bigint, late bigint);
	CREATE TABLE over ();

	-- Poll until the writers are done and nothing is left.  With a filter the
	-- last row is not the end of what was searched; the settled position from
	-- before the poll is one to go on from, too.
	CREATE PROCEDURE poll(reader text, types text[] = NULL)
	LANGUAGE plpgsql AS $$
	DECLARE
		last bigint := 0;
		settled bigint;
		done boolean;
		got bigint;
		n bigint := 0;
	BEGIN
		LOOP
			done := to_regclass('over') IS NULL;
			IF types IS NOT NULL THEN
				settled := es_settled_position();
			END IF;
			WITH page AS (
				INSERT INTO delivered (reader, position)
				SELECT poll.reader, e.position FROM es_read_all(last, 300, types) e
				RETURNING position)
			SELECT count(*), greatest(last, max(position)) INTO got, last FROM page;
			IF types IS NOT NULL AND got < 300 THEN
				last := greatest(last, settled);
			END IF;
			n := n + 1;
			COMMIT;
			EXIT WHEN done AND got = 0;
			PERFORM pg_sleep(random() / 200);	-- leaves the writers some time
		END LOOP;
		INSERT INTO polls VALUES (reader, n);
	END $$;));

my %readers = (
	'READ COMMITTED 1' => [ 'read committed', 'NULL' ],
	'READ COMMITTED 2' => [ 'read committed', 'NULL' ],
	'READ COMMITTED 3' => [ 'read committed', 'NULL' ],
	'REPEATABLE READ' => [ 'repeatable read', 'NULL' ],
	'filtered' => [ 'read committed', q('{Third,Undone,Batched}') ]);

my $load = start_load($node, 12, $seconds);
my %sessions = map {
	my ($isolation, $types) = @{ $readers{$_} };
	$_ => psql_start($node,
		"SET default_transaction_isolation = '$isolation';\nCALL poll('$_', $types);"
	)
} keys %readers;
finish_load($load);
$node->safe_psql('postgres', 'DROP TABLE over');

foreach my $reader (sort keys %readers)
{
	my ($ok, undef, $err) = psql_finish($sessions{$reader});
	my $types = $readers{$reader}[1];
	my $wanted = "SELECT position FROM es_event
		WHERE $types IS NULL OR event_type = ANY ($types)";
	my $got = "SELECT position FROM delivered WHERE reader = '$reader'";

	is($err, '', "$reader: polled to the end");
	my $verdict = $node->safe_psql(
			'postgres', "SELECT
			(SELECT count(*) FROM ($wanted EXCEPT ALL $got) x) || ' missed, ' ||
			(SELECT count(*) FROM ($got EXCEPT ALL $wanted) x) || ' too many, ' ||
			(SELECT count(*) FROM (
				SELECT position < lag(position) OVER (ORDER BY n) AS back
				FROM delivered WHERE reader = '$reader') x WHERE back) || ' out of order'");

	is( $verdict,
		'0 missed, 0 too many, 0 out of order',
		"$reader: every event once, in order ("
		  . $node->safe_psql('postgres',
			"SELECT count(*) || ' events in ' || (SELECT polls FROM polls WHERE reader = '$reader') || ' polls' FROM ($got) x")
		  . ')');
	my ($missed, $again, $back) = $verdict =~ /(\d+)/g;
	$found{lost} += $missed;
	$found{doubled} += $again;
	$found{reordered} += $back;
}

note $node->safe_psql(
	'postgres', q(
	SELECT count(*) || ' events in ' || count(DISTINCT stream_id) || ' streams, ' ||
		(SELECT last_value FROM es_event_position_seq) - count(*) || ' holes; ' ||
		(SELECT string_agg(event_type || ' ' || n, ', ')
		 FROM (SELECT event_type, count(*) AS n FROM es_event GROUP BY 1 ORDER BY 1) t)
	FROM es_event));
is( $node->safe_psql(
		'postgres', q(SELECT count(*) FROM es_event WHERE event_type = 'Undone')),
	'0', 'nothing rolled back is there');
store_is_sound($node, 'store');
report_figures(%found, faults => $node->safe_psql('postgres',
		'SELECT last_value - (SELECT count(*) FROM es_event) FROM es_event_position_seq'));

$node->stop;
done_testing();
