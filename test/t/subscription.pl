# Subscriptions across restarts and crashes, in a dump, on a standby, with and
# without a worker; what they wait for, and what they leave behind.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use PostgreSQL::Test::Utils;
use Test::More;

# The WAL writer stays out of it: what is on disk was flushed by a commit.
my $node = new_store('main', <<CONF, allows_streaming => 1);
wal_writer_delay = 10s
CONF

sub ask
{
	return $node->safe_psql('postgres', $_[0]);
}

# The positions of a delivery; its token is kept in the table.
ask(q(
	CREATE TABLE token (token text);
	CREATE FUNCTION take(subscription text, max_count int = 100) RETURNS text LANGUAGE sql AS $$
		WITH rows AS MATERIALIZED (SELECT * FROM es_fetch(subscription, 'c', max_count, '1 h')),
			gone AS (DELETE FROM token),
			kept AS (INSERT INTO token SELECT min(r.token) FROM rows r HAVING count(*) > 0)
		SELECT string_agg(r.position::text, ' ' ORDER BY r.position) FROM rows r
	$$;
	SELECT es_create_subscription('s', partitions => 2), es_create_subscription('other', event_types => ARRAY['B'], max_attempts => NULL);
	SELECT count(es_append('s-' || i % 3, 'A', '1')) FROM generate_series(1, 12) AS i));

# Restarted, and crashed: leases, deliveries and what is parked are as they were.
is(ask(q(SELECT take('s', 4))), '1 2 3 4', 'a delivery');
$node->restart;
is(ask(q(SELECT es_nack('s', token, 2, 'park', 'why') FROM token)), '{2}', 'its token holds after a restart');
is(ask(q(SELECT es_ack('s', token) FROM token)), '', 'also to acknowledge');
is(ask(q(SELECT take('s', 3))), '6 7 9', 'those behind it');
ask(q(SELECT es_settle()));    # a commit that waits for the disk
crash($node);
$node->start;
is(ask(q(SELECT es_ack('s', token) FROM token)), '', 'and after a crash');
is(ask(q(SELECT string_agg(concat_ws(' ', position, state, reason), ', ' ORDER BY position) FROM es_subscription_parked)),
	'2 parked why, 5 behind an earlier event of the stream is parked, 8 behind an earlier event of the stream is parked',
	'what is parked');

# A crash may take back an acknowledgement that did nothing else: then the
# events come again.  One in the transaction of its effect is as durable as that.
sub lags
{
	return ask('SELECT ' . $_[0] . '; SELECT pg_current_wal_insert_lsn() > pg_current_wal_flush_lsn()') =~ /t\z/ ? 1 : 0;
}
ask(q(CREATE TABLE effect (position bigint); SELECT count(take('s', 1))));
is(lags(q(es_ack('s', token) FROM token)), 1, 'an acknowledgement does not wait for the disk');
is(lags(q(count(*) FROM es_fetch('s', 'c', 1, '1 h'))), 1, 'nor does a fetch');
is( ask(q(SET eventstore.synchronous_ack = on; SELECT 1 FROM es_fetch('s', 'c', 1, '1 h');
		SELECT pg_current_wal_insert_lsn() > pg_current_wal_flush_lsn())),
	"1\nf", 'unless it is to');
foreach my $order (
	[ 'before', q(INSERT INTO effect VALUES (1)), q(SELECT take('s', 1)) ],
	[ 'behind', q(SELECT count(*) FROM es_fetch('s', 'c', 1, '1 h')), q(INSERT INTO effect VALUES (1)) ],
	[ 'between', q(SELECT count(*) FROM es_fetch('s', 'c', 1, '1 h')), q(INSERT INTO effect VALUES (1)),
		q(SELECT count(*) FROM es_fetch('s', 'c', 1, '1 h')) ])
{
	my ($where, @statements) = @$order;

	like( ask(join ";\n", 'BEGIN', @statements, 'COMMIT', 'SELECT pg_current_wal_insert_lsn() > pg_current_wal_flush_lsn()'),
		qr/f\z/, "an effect $where is on disk when it is committed");
}

# Parked for long: the walk is over rows that nobody may forget.
is(ask(q(SELECT es_replay_parked('s'))), '1', 'replayed');
is(ask(q(SELECT take('s'))), '2 5 8 11 12', 'with those behind it, and the rest of the log');
is(ask(q(SELECT es_ack('s', token, 8) FROM token)), '', 'acknowledged in part');

# A dump brings definitions, checkpoints and what is parked; leases run on.
ask(q(SELECT es_append('s-1', 'B', '1'), take('other'); SELECT es_nack('other', token, 13, 'park', 'no') FROM token));
my $dump = $node->basedir . '/dump';
my $state = q(
	SELECT string_agg(s::text, ' ' ORDER BY name) FROM es_subscription s;
	SELECT string_agg(concat_ws(',', subscription, partition, position, consumer, delivered_to, in_flight, attempts), ' '
		ORDER BY subscription, partition) FROM es_subscription_partition;
	SELECT string_agg(c::text, ' ' ORDER BY subscription) FROM es_subscription_consumer c;
	SELECT string_agg(p::text, ' ' ORDER BY position) FROM es_subscription_parked p);
my $before = ask($state);

$node->command_ok([ 'pg_dump', '-f', $dump, $node->connstr('postgres') ], 'dump');
ask('CREATE DATABASE copy');
$node->command_ok([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-f', $dump, $node->connstr('copy') ], 'restore');
is($node->safe_psql('copy', $state), $before, 'all of it is there');
is($node->safe_psql('copy', q(SELECT es_ack('s', token, 10) FROM (SELECT min(token) AS token FROM es_fetch('s', 'c')) t)),
	'', 'and goes on');
is($node->safe_psql('copy', q(SELECT string_agg(position::text, ' ' ORDER BY position) FROM es_fetch('s', 'c'))),
	'11 12 13', 'where it was');
is(ask($state), $before, 'the original is as it was');

# A standby shows how things are, and says where to fetch.
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby);
my ($ret, $out, $err) = $standby->psql('postgres', q(\set VERBOSITY verbose
	SELECT * FROM es_fetch('s', 'c')));
like($err, qr/ERROR:  25006: cannot fetch on a standby.*HINT:  Connect to the primary/s, 'no fetch on a standby');
sqlstate_is($standby, q(SELECT es_ack('s', '0123456789abcdef.c')), '25006', 'no acknowledgement');
is($standby->safe_psql('postgres', q(SELECT count(*) FROM es_stat_subscription)), '2', 'a look');
is($standby->safe_psql('postgres', q(SELECT es_wait_for_events('other', '0 s'))), 'f', 'nothing to fetch');
$standby->stop;

# Waiting, without a worker and with one.
foreach my $worker (0, 1)
{
	my $waiter;

	ask('SELECT es_start_worker()') if $worker;
	ask(q(SELECT take('s'); SELECT es_ack('s', token) FROM token));
	$waiter = psql_start($node, q(SELECT es_wait_for_events('s', '3 min', 'c'), clock_timestamp()));
	wait_until('the wait to begin', sub {
		ask(q(SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT es_wait_for_ev%' AND wait_event_type = 'Extension'));
	});
	ask(q(SELECT es_append('s-1', 'A', '1')));
	my ($ok, $printed) = psql_finish($waiter);
	like($printed, qr/^t/, 'woken by an append ' . ($worker ? 'through the worker' : 'without a worker'));
}
# One that waits is woken when an event is due again, and when a lease ends.
ask(q(SELECT take('s'); SELECT es_nack('s', token, (SELECT max(position) FROM es_event), delay => '100 ms') FROM token;
	SELECT es_ack('s', token) FROM token));
is(ask(q(SELECT es_wait_for_events('s', '3 min', 'c'))), 't', 'for an event that is due again');
ask(q(SELECT * FROM es_fetch('s', 'c', lease => '1 h')));
is(ask(q(SELECT count(*) FROM es_fetch('s', 'd', lease => '1 h'))), '0', 'a second consumer');
ask(q(UPDATE es_subscription_consumer SET lease_until = clock_timestamp() + '200 ms' WHERE consumer = 'c'));
is(ask(q(SELECT es_wait_for_events('s', '3 min', 'd'))), 't', 'for the end of a lease');

# A long life leaves nothing behind.
ask(q(SELECT es_create_subscription('long', partitions => 4)));
ask(q(SELECT count(es_append('s-' || i % 7, 'A', '1')) FROM generate_series(1, 3000) AS i));
my $cycle = psql_start($node, "SELECT es_ack('long', token) FROM (SELECT min(token) AS token FROM es_fetch('long', 'c', 1)) AS t WHERE token IS NOT NULL;\n" x 3000);
my ($ok) = psql_finish($cycle);
ok($ok, '3,000 deliveries');
cmp_ok(ask(q(SELECT pg_relation_size('es_subscription_partition') + pg_relation_size('es_subscription_consumer')
	+ pg_relation_size('es_subscription_partition_pkey') + pg_relation_size('es_subscription_consumer_pkey'))),
	'<=', 20 * 8192, 'leave the tables small');
store_is_sound($node, 'at the end');
$node->stop;
done_testing();
