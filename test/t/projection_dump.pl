# A dump brings projections, their read tables and their checkpoints; restored,
# nothing is projected a second time, and all go on where they were.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_store('main');
my $state = q(
	SELECT (SELECT string_agg(t::text, ' ' ORDER BY t::text) FROM total t),
		(SELECT string_agg(l::text, ' ' ORDER BY l::text) FROM later l),
		(SELECT string_agg(concat_ws(',', name, mode, status, position, owner, search_path, tables), ' ' ORDER BY name)
			FROM es_projection),
		(SELECT string_agg(concat_ws(',', projection, ordinal, event_type, handler), ' ' ORDER BY projection, ordinal)
			FROM es_projection_handler),
		(SELECT string_agg(concat_ws(',', projection, position, message), ' ') FROM es_parked));

$node->safe_psql(
	'postgres', q(
	CREATE TABLE total (stream_id text PRIMARY KEY, n bigint);
	CREATE TABLE later (LIKE total INCLUDING ALL);
	BEGIN;
	SELECT es_create_projection('total', 'inline', '{total}');
	SELECT es_on('total', 'Added', 'INSERT INTO total AS t VALUES (event.stream_id, 1)
		ON CONFLICT (stream_id) DO UPDATE SET n = t.n + 1');
	SELECT es_create_projection('later', tables => '{later}', on_error => 'skip');
	SELECT es_on('later', 'Added', 'INSERT INTO later AS t VALUES (event.stream_id, 1 / (event.data::text)::int)
		ON CONFLICT (stream_id) DO UPDATE SET n = t.n + 1');
	COMMIT;
	SELECT count(es_append('s-' || n % 3, 'Added', (n % 7)::text::jsonb)) FROM generate_series(1, 20) n;
	CALL es_run_projections();
	SELECT count(es_append('s-' || n % 3, 'Added', '1')) FROM generate_series(1, 5) n));
my $before = $node->safe_psql('postgres', $state);

my $dump = $node->basedir . '/dump';
command_ok([ 'pg_dump', '-Fc', '-f', $dump, $node->connstr('postgres') ], 'dump');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('restored'), $dump ], 'restore');
is($node->safe_psql('restored', $state), $before, 'projections, read tables and checkpoints are the same');

foreach my $dbname ('postgres', 'restored')
{
	$node->safe_psql($dbname, q(
		SELECT es_append('s-1', 'Added', '1');
		CALL es_run_projections();));
}
is($node->safe_psql('restored', $state), $node->safe_psql('postgres', $state), 'both go on the same way');
is( $node->safe_psql('restored', q(SELECT sum(n), (SELECT count(*) FROM es_event) FROM total)),
	'26|26', 'each event once, inline');
store_is_sound($node, 'restored', dbname => 'restored');

$node->stop;
done_testing();
