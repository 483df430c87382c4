# Exactly once: kill the runner at random moments, by signal 15, signal 9 and
# pg_terminate_backend, while it keeps sums.  After each kill the sums must be
# those of the events up to the checkpoint, to the event.
#
# ES_KILLS says how often (50).
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $kills = $ENV{ES_KILLS} || 50;
my $seed = $ENV{ES_SEED} || time;
my $node = new_store('main', "restart_after_crash = on\n");
my ($in_work, $wrong) = (0, 0);
my %by;

srand($seed);
note("seed $seed");

# Ask the server, which may be coming up again.
sub ask
{
	my ($sql) = @_;
	my $answer;

	wait_until('the server', sub {
		my ($ret, $out);

		($ret, $out) = eval { $node->psql('postgres', $sql) };
		$answer = $out;
		return defined $ret && $ret == 0;
	});
	return $answer;
}

# Sums, one by one and once a batch, against the events below the checkpoint.
sub drift
{
	return ask(q(
		SELECT string_agg(d::text, ' ') FROM (
			SELECT p.position, s.events, s.amount, b.events, b.amount, e.events, e.amount
			FROM es_projection p,
				LATERAL (SELECT coalesce(sum(events), 0), coalesce(sum(amount), 0) FROM sums) AS s(events, amount),
				LATERAL (SELECT coalesce(sum(events), 0), coalesce(sum(amount), 0) FROM batch_sums) AS b(events, amount),
				LATERAL (SELECT count(*), coalesce(sum((data->>'n')::bigint), 0)
					FROM es_event WHERE position <= p.position) AS e(events, amount)
			WHERE (s.events, s.amount) <> (e.events, e.amount)
				OR (b.events, b.amount) <> (e.events, e.amount)) d));
}

# End the runner, in a way chosen at random; true if it was at work.
sub kill_runner
{
	my $pid = ask(q(SELECT pid FROM pg_stat_activity WHERE query LIKE 'CALL es_run_proj%'
		AND state = 'active'));
	my $way = (qw(TERM KILL terminate))[ rand 3 ];

	return 0 unless $pid;
	usleep(int rand 30_000);
	$by{$way}++;
	if ($way eq 'terminate')
	{
		ask("SELECT pg_terminate_backend($pid)");
		return 1;
	}
	return kill($way, $pid);
}

$node->safe_psql(
	'postgres', q(
	CREATE TABLE sums (stream_id text PRIMARY KEY, events bigint, amount bigint);
	CREATE TABLE batch_sums (events bigint, amount bigint);
	BEGIN;
	SELECT es_create_projection('sums', tables => '{sums,batch_sums}');
	SELECT es_on('sums', 'Counted', $$INSERT INTO sums AS s
		VALUES (event.stream_id, 1, (event.data->>'n')::bigint)
		ON CONFLICT (stream_id) DO UPDATE SET events = s.events + 1, amount = s.amount + excluded.amount$$);
	SELECT es_on_batch('sums', $$INSERT INTO batch_sums
		SELECT count(*), sum((data->>'n')::bigint) FROM new_events$$);
	COMMIT;));

my $runners = 0;
while ($in_work < $kills && $runners++ < 20 * $kills)
{
	my $runner;

	ask(q(SELECT count(es_append('counter-' || n % 7, 'Counted', jsonb_build_object('n', n)))
		FROM generate_series(1, 2000) n));
	$runner = psql_start($node, "SET eventstore.batch_size = 10;\nCALL es_run_projections();\n");
	usleep(int rand 40_000);
	$in_work += kill_runner();
	eval { psql_finish($runner) };
	my $drift = drift();
	next if $drift eq '';
	$wrong++;
	diag("after $in_work kills: $drift");
}
is($in_work, $kills, "kills: " . join(', ', map { "$by{$_} by $_" } sort keys %by));
is($wrong, 0, 'after no kill did a sum differ');
$node->safe_psql('postgres', 'CALL es_run_projections()');
is(drift(), '', 'nor at the end');
is( $node->safe_psql('postgres', 'SELECT max(e.position) <= max(p.position) FROM es_event e, es_projection p'),
	't', 'which was reached');
store_is_sound($node, 'afterwards');
report_figures(faults => $in_work, doubled => $wrong);

$node->stop;
done_testing();
