# A tracked table across a dump, where it must not be tracked twice, and on a
# logical replica, where its changes bring their events along.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_store('main', '', allows_streaming => 'logical');
my $tables = q(
	CREATE TABLE stock (id int PRIMARY KEY, n int, note text, at timestamptz DEFAULT now());
	CREATE TABLE move (item int, at date, n int, PRIMARY KEY (item, at)) PARTITION BY RANGE (at);
	CREATE TABLE move_1 PARTITION OF move FOR VALUES FROM ('2026-01-01') TO ('2026-07-01');
	CREATE TABLE move_2 PARTITION OF move DEFAULT;);
my $tracked = 'SELECT * FROM es_tracked_table ORDER BY table_name::text';

# One change after the other, by writers that may not append.
$node->safe_psql('postgres', $tables . q(
	SELECT es_track_table('stock', except_columns => '{note}');
	SELECT es_track_table('move', 'movement');
	CREATE ROLE clerk LOGIN;
	GRANT ALL ON stock, move TO clerk;
	SET ROLE clerk;
	INSERT INTO stock SELECT n, n, repeat('x', 100) FROM generate_series(1, 100) n;
	UPDATE stock SET n = n + 1 WHERE id % 3 = 0;
	DELETE FROM stock WHERE id % 10 = 0;
	INSERT INTO move SELECT n, '2026-06-01'::date + n, n FROM generate_series(1, 60) n;
	UPDATE move SET at = at + 10 WHERE item <= 40;));
is($node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT stream_id) FROM es_event'),
	'283|200', 'every change has its event');

# ----- a dump -----

my $dump = $node->basedir . '/dump';

command_ok([ 'pg_dump', '-Fc', '-f', $dump, $node->connstr('postgres') ], 'dump');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('restored'), $dump ], 'restore');
is(store_hash($node, 'restored'), store_hash($node, 'postgres'), 'rows that are restored are no changes');
is($node->safe_psql('restored', $tracked), $node->safe_psql('postgres', $tracked), 'the same tables are tracked');
foreach my $dbname ('postgres', 'restored')
{
	$node->safe_psql($dbname, q(
		UPDATE stock SET n = -1 WHERE id = 1;
		INSERT INTO move_1 VALUES (1, '2026-02-01', 1);));
}
is( $node->safe_psql('restored', 'SELECT stream_id, version, data FROM es_event ORDER BY position'),
	$node->safe_psql('postgres', 'SELECT stream_id, version, data FROM es_event ORDER BY position'),
	'both go on the same way');
store_is_sound($node, 'restored', dbname => 'restored');

# The state folded from the events is the table.
is( $node->safe_psql('restored', q(
		SELECT es_create_aggregate('stock', initial_state => 'null');
		SELECT es_evolve('stock', 'stock.' || t, 'event.data -> ''new''') FROM unnest('{inserted,updated,deleted}'::text[]) t;
		SELECT count(*) FROM es_stream_list('stock') l CROSS JOIN es_state(l.stream_id) s
			FULL JOIN stock ON l.stream_id = 'stock-' || stock.id
			WHERE s.state - 'at' IS DISTINCT FROM to_jsonb(stock) - 'note' - 'at';)) =~ s/^\n*//r,
	'0', 'events fold back into the rows');

# ----- a logical replica -----

my $replica = new_store('replica');
my $connstr = $node->connstr . ' dbname=postgres';

$replica->safe_psql('postgres', $tables . q(SELECT es_track_table('stock', except_columns => '{note}')));
$node->safe_psql('postgres', 'CREATE PUBLICATION pub FOR TABLE es_event, es_settled, es_epoch, stock');
$replica->safe_psql('postgres',
	"CREATE SUBSCRIPTION sub CONNECTION '$connstr' PUBLICATION pub WITH (disable_on_error = true)");
$replica->wait_for_subscription_sync($node, 'sub');
$node->safe_psql('postgres', q(UPDATE stock SET n = 7 WHERE id < 50; DELETE FROM stock WHERE id = 99));
$node->wait_for_catchup('sub');
is( $replica->safe_psql('postgres', 'SELECT count(*), max(position) FROM es_event'),
	$node->safe_psql('postgres', 'SELECT count(*), max(position) FROM es_event'),
	'a replica has the origin\'s events and none of its own');
is( $replica->safe_psql('postgres', 'SELECT sum(n), count(*) FROM stock'),
	$node->safe_psql('postgres', 'SELECT sum(n), count(*) FROM stock'),
	'and the rows');

$replica->stop;
$node->stop;
done_testing();
