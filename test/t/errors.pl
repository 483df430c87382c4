# Errors that take a server of a certain kind, or more than one session.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_store('main', "max_worker_processes = 0\nmax_prepared_transactions = 2\n");

sub fails_like
{
	my ($sql, $pattern, $name) = @_;
	my ($status, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n$sql");

	like($err, $pattern, $name);
	return;
}

fails_like(
	'SELECT es_start_worker()',
	qr/55000: could not start a worker/,
	'there is no place for a worker');

$node->safe_psql('postgres', q(
	CREATE TABLE seen (n bigint);
	SELECT es_create_projection('seen', 'inline', '{seen}');
	SELECT es_on('seen', 'A', 'INSERT INTO seen VALUES (event.position)');
	BEGIN;
	SELECT es_append('s-1', 'A', '{}');
	PREPARE TRANSACTION 'open';));
fails_like(
	q(SELECT es_pause_projection('seen')),
	qr/55P03: could not find a moment without appending transactions/,
	'an inline projection does not rest while an append is open');
$node->safe_psql('postgres', q(COMMIT PREPARED 'open'));
$node->safe_psql('postgres', q(SELECT es_pause_projection('seen')));
is($node->safe_psql('postgres', q(SELECT status FROM es_stat_projection)), 'paused', 'but afterwards');

$node->stop;
done_testing();
