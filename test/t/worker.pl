# Background workers: started on demand or by preloading, woken by appends,
# gone when the database is wanted by somebody else.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_store('main', "restart_after_crash = on\n");

# Give a database a projection that notes when it saw each event.
sub define_projection
{
	my ($dbname) = @_;

	$node->safe_psql(
		$dbname, q(
		CREATE TABLE seen (n bigint, at timestamptz, "position" bigint);
		BEGIN;
		SELECT es_create_projection('seen', tables => '{seen}');
		SELECT es_on('seen', 'Counted', $$INSERT INTO seen
			VALUES ((event.data->>'n')::bigint, clock_timestamp(), event.position)$$);
		COMMIT;));
}

sub workers
{
	my ($dbname) = @_;

	return $node->safe_psql('template1',
		"SELECT count(*) FROM pg_stat_activity
			WHERE backend_type = 'eventstore worker' AND datname = '$dbname'");
}

sub append
{
	my ($dbname, $n) = @_;

	return $node->safe_psql($dbname,
		qq(SELECT es_append('counter-1', 'Counted', '{"n": $n}')));
}

sub log_lines
{
	my ($offset, $pattern) = @_;

	return scalar grep { /$pattern/ } split /\n/, slurp_file($node->logfile, $offset);
}

# A rebuild whose process is ended leaves its shadow behind.
define_projection('postgres');
append('postgres', 1);
my $holder = $node->background_psql('postgres');
$holder->query_safe('BEGIN; LOCK es_parked IN ACCESS EXCLUSIVE MODE');
my $rebuild = psql_start($node, q(CALL es_rebuild_projection('seen');));
wait_until('the rebuild to wait', sub {
	$node->safe_psql('postgres', q(SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
		WHERE query LIKE 'CALL es_rebuild%' AND wait_event_type = 'Lock')) == 1;
});
psql_finish($rebuild);
$holder->query_safe('COMMIT');
$holder->quit;
$node->safe_psql('postgres', 'CREATE SCHEMA es_shadow_0123456789abcdef CREATE TABLE t ()');

# On demand.
is(workers('postgres'), 0, 'no worker by itself');
my $pid = $node->safe_psql('postgres', 'SELECT es_start_worker()');
is($node->safe_psql('postgres', 'SELECT es_start_worker()'),
	$pid, 'one worker a database');
wait_until('the shadows to go', sub {
	$node->safe_psql('postgres', q(SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'es\_shadow%')) == 0;
});
is($node->safe_psql('postgres', 'SELECT count(*) FROM es_job'), 0, 'what a rebuild left behind is cleared away');
is( $node->safe_psql(
		'postgres', q(SELECT es_wait_for('seen', (SELECT max(position) FROM es_event)))),
	't', 'the worker catches up');

# Woken by each append of an otherwise idle server.
$node->safe_psql(
	'postgres', q(
	DO $$
	BEGIN
		FOR i IN 2 .. 101 LOOP
			PERFORM es_append('counter-1', 'Counted', jsonb_build_object('n', i));
			COMMIT;
			PERFORM pg_sleep(0.02);
		END LOOP;
	END
	$$));
$node->safe_psql('postgres', q(SELECT es_wait_for('seen', (SELECT max(position) FROM es_event))));
my $median = $node->safe_psql(
	'postgres', q(
	SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM s.at - e.recorded_at)) * 1000
	FROM seen s JOIN es_event e USING (position) WHERE s.n > 1));
cmp_ok($median, '<=', 20, "median of append to read model: $median ms");
is($node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT n) FROM seen'),
	'101|101', 'each event once');

# An append that is rolled back, and one that waited for a slow neighbour.
$node->safe_psql('postgres', q(BEGIN; SELECT es_append('counter-2', 'Counted', '{"n": 0}'); ROLLBACK));
append('postgres', 102);
is( $node->safe_psql(
		'postgres', q(SELECT es_wait_for('seen', (SELECT max(position) FROM es_event), '900 ms'))),
	't', 'a hole does not hold the worker back');
my $slow = $node->background_psql('postgres');
$slow->query_safe(q(BEGIN; SELECT es_append('counter-3', 'Counted', '{"n": 103}')));
append('postgres', 104);
is( $node->safe_psql(
		'postgres', q(SELECT es_wait_for('seen', (SELECT max(position) FROM es_event), '500 ms'))),
	'f', 'an append under way does');
$slow->query_safe('COMMIT');
$slow->quit;
is( $node->safe_psql(
		'postgres', q(SELECT es_wait_for('seen', (SELECT max(position) FROM es_event), '900 ms'))),
	't', 'until it commits');
is($node->safe_psql('postgres', 'SELECT string_agg(n::text, \' \' ORDER BY position) FROM seen WHERE n > 101'),
	'102 103 104', 'in order');

# Listeners are told by the worker.
my $listener = $node->background_psql('postgres');
$listener->query_safe('LISTEN eventstore');
append('postgres', 105);
my $told = '';
wait_until('a notification', sub {
	$told = $listener->query('SELECT 1');
	$told =~ /notification "eventstore"/;
});
like($told, qr/with payload "\d+"/, 'NOTIFY carries the settled position');
$listener->quit;

# It takes the snapshots that plain appends make due.
$node->safe_psql('postgres', <<'SQL');
SELECT es_create_aggregate('tally', snapshot_every => 10);
SELECT es_evolve('tally', 'Counted', 'to_jsonb(coalesce((state->>0)::int, 0) + 1)');
SELECT es_append('tally-1', 'Counted', '{}') FROM generate_series(1, 25);
SQL
ok($node->poll_query_until('postgres',
		"SELECT max(version) >= 10 FROM es_snapshot WHERE stream_id = 'tally-1'"),
	'the worker takes the snapshot that is due');

# A worker that dies comes back; so do all after a neighbour's death.
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
wait_until('another worker', sub {
	$node->safe_psql('postgres',
		"SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'eventstore worker' AND pid <> $pid") == 1;
});
append('postgres', 106);
is( $node->safe_psql(
		'postgres', q(SELECT es_wait_for('seen', (SELECT max(position) FROM es_event), '5 s'))),
	't', 'terminated, it comes back');
my $neighbour = $node->background_psql('postgres', on_error_die => 0);
my $neighbour_pid = $neighbour->query('SELECT pg_backend_pid()');
kill 'KILL', $neighbour_pid;
wait_until('the server', sub { eval { ($node->psql('postgres', 'SELECT 1'))[0] == 0 } });
eval { $neighbour->quit };
append('postgres', 107);
is( $node->safe_psql(
		'postgres', q(SELECT es_wait_for('seen', (SELECT max(position) FROM es_event), '10 s'))),
	't', 'after a crash of its neighbour it comes back');

# A failing projection stops; the worker and the others go on.
$node->safe_psql(
	'postgres', q(
	BEGIN;
	SELECT es_create_projection('bad');
	SELECT es_on('bad', 'Counted', 'SELECT 1 / 0');
	COMMIT));
append('postgres', 108);
is( $node->safe_psql(
		'postgres', q(SELECT es_wait_for('seen', (SELECT max(position) FROM es_event), '5 s'))),
	't', 'others go on');
wait_until('the projection to stop', sub {
	$node->safe_psql('postgres', q(SELECT status FROM es_stat_projection WHERE name = 'bad')) eq 'stopped';
});
my $offset = -s $node->logfile;
append('postgres', 109);
$node->safe_psql('postgres', q(SELECT es_wait_for('seen', (SELECT max(position) FROM es_event), '5 s')));
is(log_lines($offset, 'division by zero'), 0, 'and is not tried again');

# The worker leaves a database that is wanted.
$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('other', 'CREATE EXTENSION eventstore');
define_projection('other');
$node->safe_psql('other', 'SELECT es_start_worker()');
is(workers('other'), 1, 'a worker for the other database');
$node->safe_psql('postgres', 'ALTER DATABASE other RENAME TO renamed');
pass('the database can be renamed');
wait_until('the worker to come back', sub { workers('renamed') == 1 });
$offset = -s $node->logfile;
$node->safe_psql('postgres', 'DROP DATABASE renamed');
pass('the database can be dropped');
$node->safe_psql('postgres', 'DROP EXTENSION eventstore CASCADE');
wait_until('the processes to leave', sub {
	$node->safe_psql('postgres',
		"SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'eventstore%'") == 0;
});
pass('the worker leaves at DROP EXTENSION');
is(log_lines($offset, '(FATAL|ERROR|WARNING):'), 0, 'without a word in the log');

# Preloaded, workers come by themselves.
$node->safe_psql('postgres', 'CREATE EXTENSION eventstore');
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'eventstore'");
$node->restart;
wait_until('a worker', sub { workers('postgres') == 1 });
pass('preloaded, the worker starts with the server');
$node->safe_psql('postgres', 'CREATE DATABASE later');
$node->safe_psql('later', 'CREATE EXTENSION eventstore');
define_projection('later');
append('later', 1);
is( $node->safe_psql(
		'later', q(SELECT es_wait_for('seen', (SELECT max(position) FROM es_event), '20 s'))),
	't', 'and in a database made later, with its first projection');

$node->stop;
done_testing();
