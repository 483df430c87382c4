# Savepoint storm: far more subtransactions than a backend keeps in shared
# memory (64), a hundred of them nested, exception blocks by the dozen, most of
# them around appends, many rolled back.  Readers go on meanwhile, and must
# meet what was committed once and in order.
#
# ES_SECONDS says for how long (3), ES_WRITERS how many write (6).
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use Test::More;

my $seconds = $ENV{ES_SECONDS} || 3;
my $writers = $ENV{ES_WRITERS} || 6;
my $node = new_store('main');

$node->safe_psql(
	'postgres', <<"SQL");
CREATE TABLE delivered (n bigserial, reader text, position bigint);
CREATE TABLE over ();
-- What a transaction is to leave, written by itself.
CREATE TABLE left_behind (stream_id text, tx bigint, events int, subtransactions int);

-- Append at each of so many levels of nested subtransactions, some of which
-- are rolled back with all below.  Answers what remains.
CREATE FUNCTION deep(stream text, tx bigint, levels int) RETURNS int LANGUAGE plpgsql AS \$\$
DECLARE
	remains int;
BEGIN
	PERFORM es_append(stream, 'Deep', to_jsonb(tx));
	remains := 1;
	IF levels > 1 THEN
		remains := remains + deep(stream, tx, levels - 1);
	END IF;
	IF random() < 0.01 THEN
		RAISE 'undone';
	END IF;
	RETURN remains;
EXCEPTION WHEN raise_exception THEN
	RETURN 0;
END \$\$;

-- One subtransaction after the other, half of them rolled back.
CREATE FUNCTION wide(stream text, tx bigint, blocks int) RETURNS int LANGUAGE plpgsql AS \$\$
DECLARE
	remains int := 0;
BEGIN
	FOR i IN 1 .. blocks LOOP
		BEGIN
			PERFORM es_append(stream, 'Wide', to_jsonb(tx));
			IF i % 16 = 0 THEN
				PERFORM es_append_batch(stream, ARRAY['Wide', 'Wide'], array_fill(to_jsonb(tx), ARRAY[2]));
				remains := remains + 2;
			END IF;
			IF random() < 0.5 THEN
				RAISE 'undone';
			END IF;
			remains := remains + 1;
		EXCEPTION WHEN raise_exception THEN
			remains := remains - CASE WHEN i % 16 = 0 THEN 2 ELSE 0 END;
		END;
	END LOOP;
	RETURN remains;
END \$\$;

-- A local variable keeps its value over a rollback, which is why what an
-- exception takes back is taken off by hand above.
CREATE PROCEDURE write(me int, until timestamptz) LANGUAGE plpgsql AS \$\$
DECLARE
	tx bigint := me * 1000000;
	stream text;
	remains int;
	subs int;
BEGIN
	WHILE clock_timestamp() < until LOOP
		tx := tx + 1;
		stream := 's-' || (random() * 10)::int;
		subs := 65 + (random() * 100)::int;
		remains := CASE WHEN random() < 0.5 THEN deep(stream, tx, 100) ELSE wide(stream, tx, subs) END;
		INSERT INTO left_behind VALUES (stream, tx, remains, subs);
		PERFORM pg_sleep(random() * 0.003);
		IF random() < 0.1 THEN ROLLBACK; ELSE COMMIT; END IF;
	END LOOP;
END \$\$;

CREATE PROCEDURE poll(reader text) LANGUAGE plpgsql AS \$\$
DECLARE
	last bigint := 0;
	done boolean;
	got bigint;
BEGIN
	LOOP
		done := to_regclass('over') IS NULL;
		WITH page AS (
			INSERT INTO delivered (reader, position)
			SELECT poll.reader, e.position FROM es_read_all(last, 300) e RETURNING position)
		SELECT count(*), greatest(last, max(position)) INTO got, last FROM page;
		COMMIT;
		EXIT WHEN done AND got = 0;
		PERFORM pg_sleep(random() / 200);
	END LOOP;
END \$\$;
SQL

my @levels = ('read committed', 'read committed', 'repeatable read');
my @readers = map {
	psql_start($node, "SET default_transaction_isolation = '$levels[$_]';\nCALL poll('reader $_');")
} 0 .. $#levels;
my @load = map { psql_start($node, "CALL write($_, now() + '$seconds s');") } 1 .. $writers;

foreach my $psql (@load)
{
	my ($ok, undef, $err) = psql_finish($psql);
	is($err, '', 'a writer ends without an error');
}
$node->safe_psql('postgres', 'DROP TABLE over');
foreach my $psql (@readers)
{
	my ($ok, undef, $err) = psql_finish($psql);
	is($err, '', 'a reader ends without an error');
}

my %found;
($found{faults}, my $events, my $undone) = split /\|/, $node->safe_psql(
	'postgres', q(SELECT count(*), (SELECT count(*) FROM es_event),
		(SELECT last_value FROM es_event_position_seq) - (SELECT count(*) FROM es_event) FROM left_behind));
($found{lost}, $found{doubled}) = split /\|/, $node->safe_psql(
	'postgres', q(SELECT coalesce(sum(greatest(wanted - here, 0)), 0), coalesce(sum(greatest(here - wanted, 0)), 0)
		FROM (SELECT coalesce(l.events, 0) AS wanted, coalesce(e.events, 0) AS here
			FROM left_behind l FULL JOIN
				(SELECT (data#>>'{}')::bigint AS tx, count(*) AS events FROM es_event GROUP BY 1) e USING (tx)) x));
is("$found{lost} $found{doubled}", '0 0', "$found{faults} transactions left what they were to leave: $events events, $undone undone");
$found{reordered} = 0;
foreach my $n (0 .. $#levels)
{
	my $got = "SELECT position FROM delivered WHERE reader = 'reader $n'";
	my ($missed, $again, $back) = split / /, $node->safe_psql('postgres', "SELECT
		(SELECT count(*) FROM (SELECT position FROM es_event EXCEPT ALL $got) x) || ' ' ||
		(SELECT count(*) FROM ($got EXCEPT ALL SELECT position FROM es_event) x) || ' ' ||
		(SELECT count(*) FROM (SELECT position < lag(position) OVER (ORDER BY n) AS back
			FROM delivered WHERE reader = 'reader $n') x WHERE back)");

	is("$missed skipped, $again too many, $back out of order", '0 skipped, 0 too many, 0 out of order', "reader $n, $levels[$n]");
	$found{lost} += $missed;
	$found{doubled} += $again;
	$found{reordered} += $back;
}
is( $node->safe_psql('postgres', q(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')),
	'0', 'no lock is left');
store_is_sound($node, 'afterwards');
report_figures(%found);

$node->stop;
done_testing();
