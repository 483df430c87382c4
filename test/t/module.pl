# A projection written in C: the module under test/modules is built against the
# installed header and run inline, in batches and in a rebuild.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use File::Copy;
use PostgreSQL::Test::Utils;
use Test::More;

my $pg_config = $ENV{PG_CONFIG} // 'pg_config';
my $source = "$FindBin::RealBin/../modules/es_example";
my $build = PostgreSQL::Test::Utils::tempdir();

copy($_, $build) or die "$_: $!" foreach glob "$source/*";
is(system("make -s -C $build with_llvm=no install PG_CONFIG=$pg_config >&2"),
	0, 'the module builds against the installed header');

my $node = new_store('main');
$node->safe_psql(
	'postgres', q(
	CREATE EXTENSION es_example;
	CREATE TABLE example_total (stream_id text PRIMARY KEY, events bigint, amount numeric);
	BEGIN;
	SELECT es_create_projection('example', 'inline', '{example_total}');
	SELECT es_on('example', 'Deposited', 'SELECT es_example_add(event)');
	COMMIT;
	SELECT es_append('account-1', 'Deposited', '{"amount": 10.5}');
	INSERT INTO es_event (stream_id, event_type, data)
		SELECT 'account-' || n % 2 + 1, 'Deposited', jsonb_build_object('amount', n)
		FROM generate_series(1, 10) n;));
my $totals = 'SELECT * FROM example_total ORDER BY 1';
is($node->safe_psql('postgres', $totals), "account-1|6|40.5\naccount-2|5|25", 'inline');

my ($ret, $out, $err) = $node->psql('postgres',
	q(SELECT es_append('account-1', 'Deposited', '{"amount": "much"}')));
like($err, qr/the event has no numeric amount.*projection "example", event type "Deposited", position \d+/s,
	'its error rejects the append and says where');

$node->safe_psql('postgres', "UPDATE example_total SET amount = 0; CALL es_rebuild_projection('example')");
is($node->safe_psql('postgres', $totals), "account-1|6|40.5\naccount-2|5|25", 'rebuilt');
$node->safe_psql('postgres', q(
	SELECT es_drop_projection('example');
	TRUNCATE example_total;
	BEGIN;
	SELECT es_create_projection('example', tables => '{example_total}');
	SELECT es_on('example', 'Deposited', 'SELECT es_example_add(event)');
	COMMIT;
	CALL es_run_projections();));
is($node->safe_psql('postgres', $totals), "account-1|6|40.5\naccount-2|5|25", 'in batches');

$node->stop;
done_testing();
