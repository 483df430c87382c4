# es_run_projections() from pg_cron.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use PostgreSQL::Test::Utils;
use Test::More;

my ($library, $error) = run_command([ 'pg_config', '--pkglibdir' ]);
plan skip_all => 'pg_cron is not installed for this PostgreSQL (package postgresql-NN-cron)'
  unless -e "$library/pg_cron.so";

my $node = new_store('main');
$node->append_conf('postgresql.conf', <<CONF . 'cron.host = \'' . $node->host . "'\n");
shared_preload_libraries = 'pg_cron'
cron.database_name = 'postgres'
CONF
$node->restart;
$node->safe_psql(
	'postgres', q(
	CREATE EXTENSION pg_cron;
	CREATE TABLE total (n bigint);
	INSERT INTO total VALUES (0);
	BEGIN;
	SELECT es_create_projection('total', tables => '{total}');
	SELECT es_on('total', 'Counted', 'UPDATE total SET n = n + 1');
	COMMIT;
	SELECT count(es_append('counter-1', 'Counted', '{}')) FROM generate_series(1, 100);
	SELECT cron.schedule('projections', '* * * * *', 'CALL es_run_projections()');));

# pg_cron begins at the next full minute.
my $seen = 0;
foreach (1 .. 130)
{
	$seen = $node->safe_psql('postgres', 'SELECT n FROM total');
	last if $seen == 100;
	sleep 1;
}
is($seen, 100, 'the scheduled call runs the projection');
is($node->safe_psql('postgres', 'SELECT DISTINCT status FROM cron.job_run_details WHERE status <> \'running\''),
	'succeeded', 'and pg_cron is told of success');

$node->stop;
done_testing();
