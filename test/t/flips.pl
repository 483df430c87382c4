# An inline projection rests, catches up, goes live and is rebuilt, over and
# over, under hostile writers.  In the end each event is in the read table
# once; meanwhile no append fails, and the rebuilt table is never seen behind.
#
# ES_SECONDS says for how long (8).
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $seconds = $ENV{ES_SECONDS} || 8;
my $node = new_store('main');
my ($flips, $rebuilds, $wrong) = (0, 0, 0);

# Events that the read table lacks, or has twice, for one snapshot.
my $difference = q(
	SELECT string_agg(concat_ws(' ', stream_id, e.n, t.n), ', ')
	FROM (SELECT stream_id, count(*) AS n FROM es_event GROUP BY 1) e FULL JOIN total t USING (stream_id)
	WHERE e.n IS DISTINCT FROM t.n);

$node->safe_psql(
	'postgres', q(
	CREATE TABLE total (stream_id text PRIMARY KEY, n bigint NOT NULL);
	BEGIN;
	SELECT es_create_projection('total', 'inline', '{total}');
	SELECT es_on_batch('total', 'INSERT INTO total AS t SELECT stream_id, count(*) FROM new_events GROUP BY 1
		ON CONFLICT (stream_id) DO UPDATE SET n = t.n + excluded.n');
	COMMIT;));

sub go_live
{
	wait_until('the projection to go live', sub {
		$node->safe_psql('postgres', 'CALL es_run_projections()');
		$node->safe_psql('postgres', 'SELECT status FROM es_projection') eq 'live';
	});
}

# Compare, while the writers go on.
sub look
{
	my ($when) = @_;
	my $rows = $node->safe_psql('postgres', $difference);

	return if $rows eq '';
	$wrong++;
	diag("$when, after $flips flips and $rebuilds rebuilds: $rows");
}

my $load = start_load($node, 4, $seconds);
my $end = time + $seconds - 1;
while (time < $end)
{
	$node->safe_psql('postgres', q(SELECT es_pause_projection('total')));
	$node->safe_psql('postgres', q(SELECT es_resume_projection('total')));
	go_live();
	$flips++;
	look('live');
	$node->safe_psql('postgres', q(UPDATE total SET n = n + 1 WHERE stream_id = 'low-7'))
	  if $rebuilds % 2;
	$node->safe_psql('postgres', q(CALL es_rebuild_projection('total')));
	$rebuilds++;
	look('rebuilt');
}
finish_load($load);
cmp_ok($flips, '>', 2, "$flips times live, $rebuilds rebuilds");
is($wrong, 0, 'the live read table is in step with the events at any time');
is($node->safe_psql('postgres', $difference), '', 'and at the end');
store_is_sound($node, 'afterwards');
report_figures(faults => $flips + $rebuilds, lost => $wrong);

$node->stop;
done_testing();
