# An append inside a prepared transaction holds the readers just as one in a
# running transaction does: nobody's session owns it any more, and it survives
# a crash, yet nothing behind it may be shown before it is decided.
#
# es_read_all() would be held by the prepared rows alone: they are in the table
# already, and the second look finds them alive.  The settled position has only
# the announcement to go by, so that is where a forgotten one would show.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use Test::More;

my $node = new_store('main', 'max_prepared_transactions = 5');

sub positions
{
	return join ' ', split /\n/,
	  $node->safe_psql('postgres', 'SELECT position FROM es_read_all()');
}

sub settled
{
	return $node->safe_psql('postgres', 'SELECT es_settled_position()');
}

sub append
{
	return $node->safe_psql('postgres',
		"SELECT es_append('$_[0]', 'Happened', '{}')");
}

# Positions 2 and 4 are prepared, 3 is a hole that a savepoint left.
append('free-1');
$node->safe_psql(
	'postgres', q(
	BEGIN;
	SELECT es_append('held-1', 'Prepared', '{}');
	SAVEPOINT undone;
	SELECT es_append('held-1', 'Undone', '{}');
	ROLLBACK TO SAVEPOINT undone;
	SELECT es_append('held-1', 'Prepared', '{}');
	PREPARE TRANSACTION 'held';));
append('free-1');

is(positions(), '1', 'nothing behind a prepared append is shown');
is(settled(), '1', 'the settled position stays in front of it');
is($node->safe_psql('postgres', 'SELECT es_settle()'),
	'1', 'and so does what is written down');
is($node->safe_psql('postgres', 'SELECT es_position_at(now())'),
	'1', 'and the position of this moment');

crash($node);
$node->start;
is(positions(), '1', 'the same after a crash');
is(settled(), '1', 'and for the settled position');
sqlstate_is(
	$node,
	q(SET lock_timeout = '10ms'; SELECT es_append('held-1', 'Late', '{}');),
	'55P03',
	'the prepared stream is still locked');

append('free-2');
$node->safe_psql('postgres', q(COMMIT PREPARED 'held'));
like(positions(), qr/^1 2 4 5 \d+$/,
	'COMMIT PREPARED releases the events, in order');
is(settled(), $node->safe_psql('postgres', 'SELECT max(position) FROM es_event'),
	'and the settled position moves on');
is(append('held-1'), '3', 'the stream goes on behind the prepared events');

# The same, decided the other way.
my $shown = positions();
$node->safe_psql(
	'postgres', q(
	BEGIN;
	SELECT es_append('held-2', 'Prepared', '{}');
	PREPARE TRANSACTION 'dropped';));
append('free-3');
is(positions(), $shown, 'held back again');
$node->safe_psql('postgres', q(ROLLBACK PREPARED 'dropped'));
like(positions(), qr/^$shown \d+$/, 'ROLLBACK PREPARED leaves a hole that is passed');
is(append('held-2'), '1', 'its stream has no events');

# Who appended nothing holds nobody, nor does another database's append.
$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('other', q(
	CREATE EXTENSION eventstore;
	BEGIN;
	SELECT es_append('far-1', 'Prepared', '{}');
	PREPARE TRANSACTION 'far';));
$node->safe_psql('postgres', q(
	CREATE TABLE unrelated (n int);
	BEGIN;
	INSERT INTO unrelated VALUES (1);
	SELECT count(*) FROM es_read_all();
	PREPARE TRANSACTION 'idle';));
$shown = positions();
append('free-4');
like(positions(), qr/^$shown \d+$/, 'strangers\' prepared transactions hold nobody');

# The hole of an append of which no row is left is passed, too.
$node->safe_psql('postgres', q(
	BEGIN;
	SAVEPOINT undone;
	SELECT es_append('held-3', 'Undone', '{}');
	ROLLBACK TO SAVEPOINT undone;
	PREPARE TRANSACTION 'empty';));
append('free-5');
$node->safe_psql('postgres', q(COMMIT PREPARED 'empty'));
is( positions(),
	join(' ', split /\n/, $node->safe_psql(
			'postgres', 'SELECT position FROM es_event ORDER BY position')),
	'in the end everything is shown');

$node->safe_psql('postgres', q(COMMIT PREPARED 'idle'));
$node->safe_psql('other', q(COMMIT PREPARED 'far'));
store_is_sound($node, 'store');
report_figures(faults => 1);

$node->stop;
done_testing();
