# The query side on another machine: a store is published with
# es_create_publication, and a second server runs projections of its own on
# what arrives.  The origin has writers at their worst, with commits that come
# late and in another order than the positions; both servers are restarted
# meanwhile.  The projections there must meet each event once, in order, and
# pass no hole beyond the settled position that the origin wrote down.  (Where
# there is no hole, nothing can come between, written down or not.)
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $origin = new_store('origin', "wal_receiver_timeout = 5s\nmax_wal_senders = 10\n", allows_streaming => 'logical');
my $replica = new_store('replica', "wal_retrieve_retry_interval = 100ms\nmax_logical_replication_workers = 8\n");

sub on_origin { return $origin->safe_psql('postgres', $_[0]) }
sub on_replica { return $replica->safe_psql('postgres', $_[0]) }

# ----- before the copy: events, a hole, a late commit, a stream with settings -----

on_origin(q(
	SELECT count(es_append('old-' || i % 10, 'Copied', '{}')) FROM generate_series(1, 500) i;
	BEGIN; SELECT es_append('old-1', 'Undone', '{}'); ROLLBACK;
	SELECT es_append('old-1', 'Copied', '{}', tags => '{a,b}');
	SELECT es_truncate_stream('old-2', 40);
	SELECT es_create_publication('store');
	SELECT es_settle()));
my $late = $origin->background_psql('postgres');
$late->query_safe(q(BEGIN; SELECT es_append('late-1', 'Late', '{}')));
on_origin(q(SELECT es_append('old-3', 'Behind', '{}')));

# ----- the query side -----

# What a projection is given, in the order it is given it, and how far the
# origin had settled by then.
on_replica(q(
	CREATE TABLE seen (n bigserial PRIMARY KEY, "position" bigint NOT NULL, event_id uuid NOT NULL, stream_id text NOT NULL, version bigint NOT NULL, settled bigint);
	CREATE TABLE totals (stream_id text PRIMARY KEY, events bigint NOT NULL);
	BEGIN;
	SELECT es_create_projection('seen', tables => '{seen}');
	SELECT es_on_batch('seen', $$INSERT INTO seen ("position", event_id, stream_id, version, settled)
		SELECT "position", event_id, stream_id, version, (SELECT s."position" FROM es_settled s) AS settled FROM new_events ORDER BY 1$$);
	SELECT es_create_projection('totals', tables => '{totals}');
	SELECT es_on_batch('totals', $$INSERT INTO totals AS t SELECT stream_id, count(*) FROM new_events GROUP BY 1
		ON CONFLICT (stream_id) DO UPDATE SET events = t.events + excluded.events$$);
	COMMIT;));
# The slot is made when the late append has ended.
my $subscribe = psql_start($replica, sprintf q(CREATE SUBSCRIPTION sub CONNECTION '%s' PUBLICATION store), $origin->connstr . ' dbname=postgres');
wait_until('the subscription to wait', sub {
	on_origin(q(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender' AND wait_event_type = 'Lock')) eq '1' });
$late->query_safe('COMMIT');
$late->quit;
psql_finish($subscribe);
$replica->wait_for_subscription_sync($origin, 'sub');
on_replica('SELECT es_start_worker()');
on_origin('SELECT es_settle()');

# Wait until the replica has projected all that the origin holds.
sub catch_up
{
	my ($name) = @_;
	my $last = on_origin('SELECT max("position") FROM es_event');

	on_origin('SELECT es_settle()');
	wait_until("$name: the query side to catch up", sub {
		on_replica(qq(SELECT bool_and("position" >= $last) FROM es_stat_projection)) eq 't' });
}

# Events that were given although a position in front of them was neither
# there nor settled.
my $too_early = q(SELECT count(*) FROM seen s WHERE "position" > coalesce(settled, 0) AND "position" - coalesce(settled, 0) >
	(SELECT count(*) FROM seen b WHERE b."position" > coalesce(s.settled, 0) AND b."position" <= s."position"));

# What must hold at any time.
sub is_in_order
{
	my ($name) = @_;

	is(on_replica(q(SELECT count(*) FROM (SELECT "position", lag("position") OVER (ORDER BY n) AS before FROM seen) s WHERE before >= "position")),
		'0', "$name: projected in the order of the positions");
	is(on_replica($too_early), '0', "$name: and no hole is passed beyond what the origin wrote down");
}

sub is_complete
{
	my ($name) = @_;
	my $events = q(SELECT count(*), md5(string_agg(concat_ws(' ', "position", event_id, stream_id, version), ',' ORDER BY "position")) FROM );

	is(on_replica($events . 'seen'), on_origin($events . 'es_event'), "$name: each event once, with its place");
	is(on_replica('SELECT sum(events) FROM totals'), on_origin('SELECT count(*) FROM es_event'), "$name: in every projection");
	is_in_order($name);
}

catch_up('copy');
is_complete('copy');
is(on_replica(q(SELECT min(version) FROM es_read_stream('old-2'))), '40', 'the settings of a stream come along');
is(on_replica(q(SELECT count(*) FROM es_event_tag WHERE tag = 'a')), '1', 'tags are there to be queried');
is(on_replica('SELECT es_settled::text FROM es_settled'), on_origin('SELECT es_settled::text FROM es_settled'),
	'and which store it is');

# ----- writers, late commits, restarts of both -----

sub run_load
{
	my ($name, $during) = @_;
	my $load = start_load($origin, 6, 3);
	my $running = 1;
	my $round = 0;
	my $held = $origin->background_psql('postgres');

	while ($running)
	{
		# Half of the time an append is under way for long.
		query_quietly($held, q(BEGIN; SELECT es_append('held-1', 'Held', '{}'))) if $round % 16 == 0;
		on_origin('SELECT es_settle()') if $round % 4 == 0;
		$during->() if $during && $round == 5;
		query_quietly($held, 'COMMIT') if $round % 16 == 8;
		$round++;
		usleep(20_000);
		$running = is_running($load);
	}
	query_quietly($held, 'COMMIT') if ($round - 1) % 16 < 8;
	$held->quit;
	finish_load($load);
}

run_load('live');
catch_up('live');
is_complete('live');

run_load('replica restarted', sub { $replica->restart; on_replica('SELECT es_start_worker()') });
catch_up('replica restarted');
is_complete('replica restarted');

run_load('replica crashed', sub { crash($replica); $replica->start; on_replica('SELECT es_start_worker()') });
catch_up('replica crashed');
is_complete('replica crashed');

$origin->restart;
on_origin(q(SELECT es_append('after-1', 'After', '{}')));
run_load('origin restarted');
catch_up('origin restarted');
is_complete('origin restarted');
store_is_sound($replica, 'replica');

# Updates of a stream's settings; what is archived at the origin stays here.
on_origin(q(SELECT es_truncate_stream('old-2', 45)));
on_origin(q(BEGIN; ALTER TABLE es_event DISABLE TRIGGER USER; DELETE FROM es_event WHERE stream_id = 'old-5';
	ALTER TABLE es_event ENABLE ALWAYS TRIGGER zz_es_event_insert, ENABLE ALWAYS TRIGGER es_event_refuse, ENABLE ALWAYS TRIGGER es_event_refuse_row; COMMIT));
on_origin(q(SELECT es_append('after-1', 'After', '{}')));
catch_up('end');
is(on_replica(q(SELECT min(version) FROM es_read_stream('old-2'))), '45', 'the settings of a stream follow');
is(on_replica(q(SELECT count(*) FROM es_read_stream('old-5'))), '50', 'events that are taken away at the origin stay');

# A rebuild at the query side reads what is there.
on_replica(q(CALL es_rebuild_projection('totals')));
is(on_replica('SELECT sum(events) = (SELECT count(*) FROM es_event) FROM totals'), 't', 'a projection can be rebuilt there');

$replica->stop;
$origin->stop;
done_testing();
