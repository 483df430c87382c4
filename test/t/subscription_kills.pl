# Kill consumers at random moments, by signal 9 (the server starts anew) and
# pg_terminate_backend, while writers write.  Nothing may be lost and each stream
# must keep its order; where a consumer acknowledges in the transaction of its
# effect, each event must have taken effect exactly once.
#
# ES_KILLS says how often (40), ES_SEED repeats a run.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $kills = $ENV{ES_KILLS} || 40;
my $seed = $ENV{ES_SEED} || time;
my $node = new_store('main', "restart_after_crash = on\n");
my @consumers = map { ("exact c$_", "loose c$_") } 1 .. 3;
my %running;

srand($seed);
note("seed $seed");

# done: in the transaction of the acknowledgement.  handled: before it, in a
# transaction of its own, as an effect outside the database would be.
$node->safe_psql(
	'postgres', q(
	SELECT es_create_subscription('exact', partitions => 8), es_create_subscription('loose', partitions => 8);
	CREATE TABLE done (n bigint GENERATED ALWAYS AS IDENTITY, consumer text, position bigint PRIMARY KEY);
	CREATE TABLE handled (n bigint GENERATED ALWAYS AS IDENTITY, consumer text, position bigint, attempt int);

	CREATE PROCEDURE consume(kind text, me text) LANGUAGE plpgsql AS $$
	DECLARE
		delivery record;
	BEGIN
		LOOP
			SELECT min(token) AS token, array_agg(position) AS positions, array_agg(attempt) AS attempts
				INTO delivery FROM es_fetch(kind, me, 20, '5 s');
			COMMIT;
			IF delivery.token IS NULL THEN
				PERFORM es_wait_for_events(kind, '50 ms', me);
				COMMIT;
				CONTINUE;
			END IF;
			PERFORM pg_sleep(random() * 0.01);
			IF kind = 'exact' THEN
				INSERT INTO done (consumer, position) SELECT me, unnest(delivery.positions);
			ELSE
				INSERT INTO handled (consumer, position, attempt)
					SELECT me, unnest(delivery.positions), unnest(delivery.attempts);
				COMMIT;
			END IF;
			PERFORM pg_sleep(random() * 0.01);
			PERFORM es_ack(kind, delivery.token);
			COMMIT;
		END LOOP;
	END
	$$));

# Ask the server, which may be coming up again.
sub ask
{
	my ($sql) = @_;
	my $answer;

	wait_until('the server', sub {
		my ($ret, $out) = eval { $node->psql('postgres', $sql) };

		$answer = $out;
		return defined $ret && $ret == 0;
	});
	return $answer;
}

# Start whoever does not run; each time under the same name.
sub start_consumers
{
	foreach my $consumer (@consumers)
	{
		my ($kind, $name) = split / /, $consumer;

		if ($running{$consumer})
		{
			next if eval { $running{$consumer}{run}->pump_nb; 1 } && $running{$consumer}{run}->pumpable;
			eval { psql_finish($running{$consumer}) };
		}
		$running{$consumer} = psql_start($node, "CALL consume('$kind', '$name')");
	}
}

my $writer = psql_start($node, q(
	\set ON_ERROR_STOP off
	DO $$
	BEGIN
		FOR i IN 1 .. 100000 LOOP
			PERFORM es_append('s-' || (random() * 30)::int, 'A', to_jsonb(i)) FROM generate_series(1, (random() * 3)::int);
			IF random() < 0.1 THEN ROLLBACK; ELSE COMMIT; END IF;
			PERFORM pg_sleep(0.002);
		END LOOP;
	END
	$$;
));
my $killed = 0;

for (my $i = 0; $i < $kills; $i++)
{
	my $pid;

	start_consumers();
	usleep(rand 200_000);
	$pid = ask(q(SELECT pid FROM pg_stat_activity WHERE query LIKE 'CALL consume%' ORDER BY random() LIMIT 1));
	next unless $pid;
	$killed++;
	if ($i % 8 == 7)
	{
		kill 'KILL', $pid;
		eval { psql_finish($writer) };
		$writer = psql_start($node, q(
			SELECT es_append('s-' || i % 31, 'A', '0') FROM generate_series(1, 3000) AS i));
	}
	else
	{
		ask("SELECT pg_terminate_backend($pid)");
	}
}
cmp_ok($killed, '>', $kills / 2, "consumers were killed ($killed times)");
eval { psql_finish($writer) } if $kills % 8 == 0;
ask(q(SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE '%es_append%' AND pid <> pg_backend_pid()));

# Let them come to the end.
wait_until('the consumers to come to the end', sub {
	start_consumers();
	return ask(q(SELECT count(*) FROM es_stat_subscription WHERE lag_events > 0 OR in_flight > 0)) eq '0';
});
ask(q(SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'CALL consume%'));

my $events = ask('SELECT count(*) FROM es_event');
my $again = ask('SELECT count(*) - count(DISTINCT position) FROM handled');

cmp_ok($events, '>', 100, "events were written ($events)");
is(ask(q(SELECT count(*) FROM done)), $events, 'each took effect exactly once, with the acknowledgement');
is(ask(q(SELECT count(*) FROM es_event e LEFT JOIN done d USING (position) WHERE d.position IS NULL)), '0', 'none is missing');
is( ask(q(SELECT count(*) FROM (SELECT e.version <> row_number() OVER (PARTITION BY e.stream_id ORDER BY d.n) AS wrong
		FROM done d JOIN es_event e USING (position)) AS x WHERE wrong)),
	'0', 'and each stream in order');
is( ask(q(SELECT count(*) FROM es_event e WHERE NOT EXISTS (SELECT FROM handled h WHERE h.position = e.position))),
	'0', "none is lost without it either ($again came again)");
is( ask(q(SELECT count(*) FROM (SELECT e.version <> row_number() OVER (PARTITION BY e.stream_id ORDER BY h.n) AS wrong
		FROM (SELECT position, min(n) AS n FROM handled GROUP BY position) AS h JOIN es_event e USING (position)) AS x WHERE wrong)),
	'0', 'and each stream was met in order');
is(ask('SELECT count(*) FROM es_subscription_parked'), '0', 'nothing was parked');
store_is_sound($node, 'at the end');
report_figures(faults => $killed,
	lost => ask(q(SELECT count(*) FROM es_event e WHERE NOT EXISTS (SELECT FROM handled h WHERE h.position = e.position)
		OR NOT EXISTS (SELECT FROM done d WHERE d.position = e.position))),
	doubled => ask('SELECT count(*) - count(DISTINCT position) FROM done'),
	reordered => ask(q(SELECT count(*) FROM (SELECT e.version <> row_number() OVER (PARTITION BY e.stream_id ORDER BY h.n) AS wrong
		FROM (SELECT position, min(n) AS n FROM handled GROUP BY position) AS h JOIN es_event e USING (position)) AS x WHERE wrong)));
foreach my $psql (values %running) { eval { psql_finish($psql) } }
$node->stop;
done_testing();
