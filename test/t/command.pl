# Commands and states, in numbers.
#
# 64 sessions withdraw from one account at once: it is never overdrawn, nobody
# is told anything but the rejection, and a read model kept by a trigger equals
# the sum over the events.  A thousand random histories are folded by the
# server, by an SQL aggregate and by this program: they agree at every version,
# with snapshots and without.  A dump takes definitions, snapshots and command
# ids along.  es_test() speaks TAP, by itself and inside of pgTAP.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $histories = $ENV{ES_HISTORIES} || 1000;
my $node = new_store('main', 'max_connections = 80');

$node->safe_psql('postgres', <<'SQL');
CREATE TYPE account AS (balance bigint, entries int, owner text, closed boolean);
SELECT es_create_aggregate('account', initial_state => '{"balance": 0, "entries": 0}', state_type => 'account', snapshot_every => 7);
SELECT es_evolve('account', 'Opened', $$(0, state.entries + 1, event.data ->> 'owner', false)$$);
SELECT es_evolve('account', 'Deposited', $$(state.balance + (event.data ->> 'amount')::bigint, state.entries + 1, state.owner, state.closed)$$);
SELECT es_evolve('account', 'Withdrawn', $$(state.balance - (event.data ->> 'amount')::bigint, state.entries + 1, state.owner, state.closed)$$);
SELECT es_evolve('account', 'Closed', $$CASE WHEN state.balance = 0 THEN ROW(0, state.entries + 1, NULL, true)::account ELSE state END$$);
SELECT es_decide('account', 'Withdraw', $$SELECT 'Withdrawn', command$$,
	$$CASE WHEN (command ->> 'amount')::bigint > state.balance THEN 'insufficient funds' END$$);
SELECT es_decide('account', 'Deposit', $$SELECT 'Deposited', command$$);
SQL

# 64 sessions
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE balance (account text PRIMARY KEY, amount bigint CHECK (amount >= 0));
CREATE FUNCTION keep_balance() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO balance VALUES (NEW.stream_id, (NEW.data ->> 'amount')::bigint)
		ON CONFLICT (account) DO UPDATE SET amount = balance.amount
			+ CASE NEW.event_type WHEN 'Deposited' THEN 1 ELSE -1 END * (NEW.data ->> 'amount')::bigint;
	RETURN NULL;
END $$;
CREATE TRIGGER keep_balance AFTER INSERT ON es_event FOR EACH ROW EXECUTE FUNCTION keep_balance();
SELECT es_handle('account-hot', 'Deposit', '{"amount": 2000}');
SQL
my @sessions = map {
	psql_start($node, "\\set ON_ERROR_STOP 0\n" . join '', map {
			my $amount = 1 + int rand 5;
			"SELECT es_handle('account-hot', 'Withdraw', '{\"amount\": $amount}');\n"
		} 1 .. 20)
} 1 .. 64;
my ($accepted, $rejected, $complaints) = (0, 0, '');

foreach my $session (@sessions)
{
	my ($ok, $out, $err) = psql_finish($session);

	$accepted += () = $out =~ /^\d+$/mg;
	$rejected += $err =~ s/^psql:\S+ ERROR:  P0001: insufficient funds\n//mg;
	$err =~ s/^(DETAIL:  Command "Withdraw" was rejected for|LOCATION:) .*\n//mg;
	$complaints .= $err;
}
is($complaints, '', 'no session is told anything but the rejection');
is($accepted + $rejected, 64 * 20, "each command has an answer ($accepted accepted, $rejected rejected)");
cmp_ok($rejected, '>', 0, 'the money did not suffice for all');
is( $node->safe_psql('postgres', q(SELECT max(version) - 1 FROM es_event WHERE stream_id = 'account-hot')),
	$accepted, 'each accepted command is one event');
is( $node->safe_psql('postgres', q(SELECT count(*) FROM es_history('account-hot') WHERE (state ->> 'balance')::bigint < 0)),
	0, 'the account was never overdrawn');
is( $node->safe_psql('postgres', <<'SQL'), 't', 'state, read model and sum over the events are equal');
SELECT (state ->> 'balance')::bigint = amount AND amount =
	(SELECT sum(CASE event_type WHEN 'Deposited' THEN 1 ELSE -1 END * (data ->> 'amount')::bigint)
		FROM es_event WHERE stream_id = 'account-hot')
	FROM balance, es_state('account-hot');
SQL
is( $node->safe_psql('postgres', q(SELECT count(*) BETWEEN 2 AND 20 FROM es_snapshot)),
	't', 'snapshots were taken and thinned out');
$node->safe_psql('postgres', 'DROP TRIGGER keep_balance ON es_event');

# A thousand histories
$node->safe_psql('postgres', <<"SQL");
SELECT setseed(0.42);
SELECT count(es_append_batch('account-' || s,
	ARRAY(SELECT (ARRAY['Opened', 'Deposited', 'Withdrawn', 'Closed', 'Noted'])[1 + floor(random() * 5 + s * 0)] FROM generate_series(1, n)),
	ARRAY(SELECT jsonb_build_object('amount', floor(random() * 4 + s * 0), 'owner', 'o' || floor(random() * 10)) FROM generate_series(1, n))))
FROM (SELECT s, 1 + floor(random() * 30)::int AS n FROM generate_series(1, $histories) AS s) AS history;
SQL

# What the server makes of them: stream, version, balance, entries, owner, closed
my $fields = q(coalesce(state ->> 'balance', ''), coalesce(state ->> 'entries', ''), coalesce(state ->> 'owner', ''), coalesce(state ->> 'closed', ''));
my $streams = q((SELECT DISTINCT stream_id FROM es_event WHERE stream_id <> 'account-hot' ORDER BY 1) AS s);
my $history_query = qq(SELECT stream_id, version, $fields FROM $streams, es_history(stream_id) ORDER BY 1, 2);
my $state_query = qq(SELECT e.stream_id, s.version, $fields FROM es_event AS e, es_state(e.stream_id, e.version) AS s
	WHERE e.stream_id <> 'account-hot' ORDER BY 1, 2);

# What this program makes of them
sub fold_here
{
	my ($stream, %state) = ('');
	my @lines;

	foreach (split /\n/, $node->safe_psql('postgres', q(SELECT stream_id, version, event_type, data ->> 'amount', data ->> 'owner'
		FROM es_event WHERE stream_id <> 'account-hot' ORDER BY 1, 2)))
	{
		my ($id, $version, $type, $amount, $owner) = split /\|/;

		($stream, %state) = ($id, balance => 0, entries => 0, owner => '', closed => '') if $id ne $stream;
		if ($type eq 'Opened') { %state = (balance => 0, entries => $state{entries} + 1, owner => $owner, closed => 'false'); }
		elsif ($type eq 'Deposited') { $state{balance} += $amount; $state{entries}++; }
		elsif ($type eq 'Withdrawn') { $state{balance} -= $amount; $state{entries}++; }
		elsif ($type eq 'Closed' && $state{balance} == 0) { $state{entries}++; $state{owner} = ''; $state{closed} = 'true'; }
		push @lines, join '|', $id, $version, @state{qw(balance entries owner closed)};
	}
	return join "\n", @lines;
}

# What an SQL aggregate makes of them
$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION next_account(state account, type text, data jsonb) RETURNS account LANGUAGE sql IMMUTABLE AS $$
	SELECT CASE type
		WHEN 'Opened' THEN ROW(0, state.entries + 1, data ->> 'owner', false)::account
		WHEN 'Deposited' THEN ROW(state.balance + (data ->> 'amount')::bigint, state.entries + 1, state.owner, state.closed)::account
		WHEN 'Withdrawn' THEN ROW(state.balance - (data ->> 'amount')::bigint, state.entries + 1, state.owner, state.closed)::account
		WHEN 'Closed' THEN CASE WHEN state.balance = 0 THEN ROW(0, state.entries + 1, NULL, true)::account ELSE state END
		ELSE state END
$$;
CREATE AGGREGATE account_of(text, jsonb) (SFUNC = next_account, STYPE = account, INITCOND = '(0,0,,)');
SQL
my $aggregate_query = qq(SELECT stream_id, version, $fields FROM (SELECT stream_id, version,
	to_jsonb(account_of(event_type, data) OVER (PARTITION BY stream_id ORDER BY version)) AS state
	FROM es_event WHERE stream_id <> 'account-hot') AS folded ORDER BY 1, 2);

my $here = fold_here();
my $versions = () = $here =~ /^/mg;

# Compared as a whole, so that a difference does not print a million lines.
sub agrees
{
	my ($query, $name) = @_;
	my @there = split /\n/, $node->safe_psql('postgres', $query);
	my @here = split /\n/, $here;
	my ($first) = grep { ($there[$_] // '') ne ($here[$_] // '') } 0 .. ($#here > $#there ? $#here : $#there);

	is( defined $first ? "$there[$first], here $here[$first]" : '', '',
		"$name agrees with this program at all of $versions versions");
}
agrees($aggregate_query, 'an SQL aggregate');
agrees($history_query, 'es_history()');
agrees($state_query, 'es_state()');
my $taken = $node->safe_psql('postgres', 'SELECT es_take_snapshots(1000000)');
cmp_ok($taken, '>', $histories / 3, "$taken snapshots taken");
agrees($state_query, 'es_state() with snapshots');
$node->safe_psql('postgres', 'DELETE FROM es_snapshot');
agrees($state_query, 'es_state() without');

# Dump and restore
$node->safe_psql('postgres', q(
	SELECT es_take_snapshot('account-hot');
	SELECT es_handle('account-hot', 'Deposit', '{"amount": 1}', '00000000-0000-0000-0000-000000000001');));
my $hot = q(SELECT es_state('account-hot'), (SELECT count(*) FROM es_snapshot));
my $before = $node->safe_psql('postgres', $hot);
my $dump = $node->basedir . '/dump.sql';

$node->command_ok([ 'pg_dump', '-f', $dump, $node->connstr('postgres') ], 'dump');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', $dump, $node->connstr('restored') ], 'restore');
is($node->safe_psql('restored', $hot), $before, 'the restored store has the same states and snapshots');
is( $node->safe_psql('restored', q(UPDATE es_snapshot SET state_text = '(7,7,,)'; SELECT state ->> 'balance' FROM es_state('account-hot'))),
	8, 'restored snapshots are used');
is( $node->safe_psql('restored', q(SELECT es_handle('account-hot', 'Deposit', '{"amount": 1}', '00000000-0000-0000-0000-000000000001') = es_stream_version('account-hot'))),
	't', 'a command id is remembered');

# TAP out of the database
my $given = q([{"type": "Deposited", "data": {"amount": 10}}]);
my $tap = $node->safe_psql('postgres', <<"SQL");
SELECT es_test('account', '$given', 'Withdraw', '{"amount": 10}', '[{"type": "Withdrawn", "data": {"amount": 10}}]');
SELECT es_test('account', '$given', 'Withdraw', '{"amount": 11}', then_error => 'insufficient funds', description => 'too much');
SELECT es_test_done();
SQL
is($tap, "ok 1 - account: Withdraw\nok 2 - too much\n1..2", 'es_test() speaks TAP');

SKIP:
{
	skip 'pgTAP is not there', 1
	  unless $node->safe_psql('postgres', q(SELECT count(*) FROM pg_available_extensions WHERE name = 'pgtap'));
	like( $node->safe_psql('postgres', <<"SQL"), qr/^1\.\.3\nok 1 - first\nok 2 - account: Withdraw\nok 3 - last$/m, 'es_test() joins a pgTAP plan');
CREATE EXTENSION pgtap;
BEGIN;
SELECT plan(3);
SELECT ok(true, 'first');
SELECT es_test('account', '$given', 'Withdraw', '{"amount": 11}', then_error => 'insufficient funds');
SELECT ok(true, 'last');
SELECT * FROM finish();
ROLLBACK;
SQL
}

store_is_sound($node, 'at the end');
$node->stop;
done_testing();
