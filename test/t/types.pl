# Declared types, upcasters and the settings of streams outlive a dump, whole or
# of the rows alone, and a restart: what was shown is shown, what was refused
# is refused, what was kept is still worth something.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_store('main');
my $dumps = $node->basedir;

$node->safe_psql('postgres', <<'SQL');
CREATE ROLE regress_es_admin;
SELECT es_grant('regress_es_admin', 'admin');
CREATE FUNCTION cents(amount text) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT (amount::numeric * 100)::bigint';
SELECT es_append_batch('account-1', array_fill('Paid'::text, '{10}'), array_agg(jsonb_build_object('amount', n::text))) FROM generate_series(1, 10) n;
SELECT es_create_event_type('Paid', 1);
SELECT es_create_event_type('Paid', 2, '(event.data ->> ''cents'')::bigint > 0', '{"account:{account}"}');
SET ROLE regress_es_admin;
SELECT es_upcast('Paid', 1, $$jsonb_build_object('cents', cents(event.data ->> 'amount'))$$);
SELECT es_upcast('Paid', 2, $$event.data || '{"currency": "EUR"}'$$, 'Settled');
RESET ROLE;
SELECT es_append('account-1', 'Paid', '{"cents": 1100, "account": 7}');
SELECT es_append_batch(s, '{Paid,Paid,Paid,Paid}', array_fill('{"cents": 1}'::jsonb, '{4}')) FROM unnest(ARRAY['account-2', 'account-3', 'account-4', 'account-5', 'account-6']) s;
SELECT es_truncate_stream('account-2', 3);
SELECT es_set_stream('account-3', max_count => 1, max_age => '100 years');
SELECT es_delete_stream('account-4');
SELECT es_tombstone_stream('account-5');
SELECT es_delete_stream('account-6');
SELECT es_append('account-6', 'Paid', '{"cents": 5}');
SELECT es_create_aggregate('account', initial_state => '0', state_type => 'bigint', snapshot_every => 2);
SELECT es_evolve('account', 'Settled', 'state + (event.data ->> ''cents'')::bigint');
SELECT es_take_snapshots();
SQL

# All that a reader can see, in one line.
my $seen = q(SELECT md5(string_agg(concat_ws('|', l, r.lines, s.version, s.state), E'\n' ORDER BY l.stream_id))
	FROM es_stream_list() l, es_state(l.stream_id) s,
		LATERAL (SELECT string_agg(e::text, ';' ORDER BY version) FROM es_read_stream(l.stream_id) e) r(lines));
my $before = $node->safe_psql('postgres', $seen);

is($node->safe_psql('postgres', q(SELECT state FROM es_state('account-1'))), '6600', 'the sum of both forms');
is( $node->safe_psql('postgres', q(SELECT string_agg(concat_ws(' ', stream_id, first_version, status), ', ') FROM es_stream_list())),
	'account-1 1 live, account-2 3 live, account-3 4 live, account-4 5 deleted, account-5 5 tombstoned, account-6 5 live',
	'the streams are as they were set');

# The same in a store of this name.
sub is_the_same
{
	my ($dbname, $name) = @_;
	my %at = (dbname => $dbname);

	is($node->safe_psql($dbname, $seen), $before, "$name: readers see the same");
	is( $node->safe_psql($dbname, q(SELECT owner FROM es_upcaster WHERE from_version = 1)),
		'regress_es_admin', "$name: in the same name");
	store_is_sound($node, $name, %at);
	sqlstate_is($node, q(SELECT es_append('account-5', 'Paid', '{"cents": 1}')), '55000', "$name: a tombstone holds", %at);
	sqlstate_is($node, q(SELECT es_append('account-1', 'Paid', '{"cents": 0}')), '23514', "$name: a check holds", %at);
	is( $node->safe_psql($dbname, q(SELECT es_append('account-1', 'Paid', '{"cents": 5, "account": 8}');
			SELECT type_version, tags FROM es_event WHERE stream_id = 'account-1' ORDER BY version DESC LIMIT 1)),
		"12\n2|{account:8}", "$name: an append writes the newest version, with its tags");
	is( $node->safe_psql($dbname, q(SELECT es_append('account-4', 'Paid', '{"cents": 3}');
			SELECT version FROM es_read_stream('account-4'))),
		"5\n5", "$name: a deleted stream goes on");
	is( $node->safe_psql($dbname, q(UPDATE es_snapshot SET state_text = '1000000' WHERE stream_id = 'account-1';
			SELECT state FROM es_state('account-1'))),
		'1000005', "$name: snapshots are worth something");
	is( $node->safe_psql($dbname, q(SELECT es_upcast('Paid', 2, 'event.data', 'Settled');
			SELECT state FROM es_state('account-1'))),
		"\n6605", "$name: until an upcaster changes");
	sqlstate_is($node, q(SET ROLE regress_es_admin; SELECT es_upcast('Paid', 2, 'event.data')), '42501',
		"$name: which now is another's", %at);
}

sub dump_and_restore
{
	my ($dbname, $extension, @arguments) = @_;

	$node->command_ok([ 'pg_dump', '-f', "$dumps/$dbname.sql", @arguments, $node->connstr('postgres') ], "dump for $dbname");
	$node->safe_psql('postgres', "CREATE DATABASE $dbname");
	$node->safe_psql($dbname, $extension) if $extension;
	$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', "$dumps/$dbname.sql", $node->connstr($dbname) ], "restore $dbname");
}

dump_and_restore('whole', '');
dump_and_restore('rows', <<'SQL', '--data-only');
CREATE EXTENSION eventstore;
CREATE FUNCTION cents(amount text) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT (amount::numeric * 100)::bigint';
SELECT es_grant('regress_es_admin', 'admin');
SQL
is_the_same('whole', 'a dump');
is_the_same('rows', 'the rows alone');

$node->restart;
is_the_same('postgres', 'after a restart');

$node->stop;
done_testing();
