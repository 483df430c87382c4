# The kill matrix: whoever appends, appends a batch, runs a projection or
# archives is stopped at a known place and there cancelled, terminated or
# killed with signal 9.
#
# A place is either one at which a lock that the test holds stops the victim
# (any build has those) or a debug point (builds with COPT=-DES_POINTS; see
# src/point.h).  All of them are in front of the commit, so it is known to the
# event what must be there afterwards: nothing of the victim's transaction,
# everything of those before it.  After every kill:
#  - no advisory lock of anybody's is left, so no announcement, stream or gate;
#  - a bystander appends to the victim's stream, and the settled position
#    reaches its event at once (how long after the kill is reported);
#  - the store holds what was acknowledged, once, no batch by half;
#  - versions run, es_check() is clean, read models are those of the events.
#
# ES_ROUNDS says how often each cell of the matrix is visited (1), ES_SEED
# repeats a run.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $rounds = $ENV{ES_ROUNDS} || 1;
my $seed = $ENV{ES_SEED} || time;
srand($seed);
note("ES_SEED=$seed");

# place => the statement that makes a session stop there, by a lock.
my $key = 5015;
my %held = (
	'stream lock' => q(SELECT es_append('s-%d', 'Held', '{}')),
	'gate' => 'LOCK TABLE es_gate IN SHARE MODE',
	'first row' => "SELECT pg_advisory_xact_lock($key)",
	'last row' => "SELECT pg_advisory_xact_lock($key)",
	'handler' => "SELECT pg_advisory_xact_lock($key)",
	'checkpoint' => 'LOCK TABLE es_projection IN SHARE MODE',
	'segment' => 'LOCK TABLE es_archive_segment IN SHARE MODE');
my @cells = map { [ split /: / ] } (
	'append: stream lock', 'append: gate', 'append: first row',
	'batch: last row', 'projection: handler', 'projection: checkpoint', 'archive: segment');
my @points = map { [ split /: / ] } (
	(map { ("append: $_", "batch: $_") } qw(before-draw after-draw rows-inserted appended)),
	'projection: handlers-run', 'projection: checkpoint-saved',
	'archive: archive-written', 'archive: archive-deleted');
my @ways = qw(cancel terminate SIGKILL);

my $node = new_store('main', "restart_after_crash = on\n");
my ($control, $holder);
my $db;
my $expected;    # events that must be in the store
my $op = 0;      # number of the victim's operation
my %kills;       # by place, by way
my %ms;          # from the kill to a settled position that moved, by way
my %wrong = (lost => 0, doubled => 0, reordered => 0, leaked => 0, unsound => 0);
my $missed = 0;

sub ask
{
	my ($sql) = @_;

	return ask_server($node, $sql, $db);
}

# A new database now and then: each kill is followed by a look at everything.
sub new_database
{
	$_ and $_->quit foreach $control, $holder;
	$db = defined $db ? ++$db : 'store1';
	ask_server($node, "CREATE DATABASE $db");
	ask(<<"SQL");
CREATE EXTENSION eventstore;
CREATE TABLE total (stream_id text PRIMARY KEY, events bigint, last bigint);
CREATE TABLE summed (one int PRIMARY KEY, events bigint, versions bigint);
BEGIN;
SELECT es_create_projection('total', 'inline', '{total}');
SELECT es_on_batch('total', 'INSERT INTO total AS t SELECT stream_id, count(*), max(version) FROM new_events GROUP BY 1
	ON CONFLICT (stream_id) DO UPDATE SET events = t.events + excluded.events, last = excluded.last');
COMMIT;
BEGIN;
SELECT es_create_projection('summed', tables => '{summed}');
SELECT es_on_batch('summed', 'INSERT INTO summed AS t SELECT 1, count(*), sum(version) FROM new_events HAVING count(*) > 0
	ON CONFLICT (one) DO UPDATE SET events = t.events + excluded.events, versions = t.versions + excluded.versions');
SELECT es_on('summed', 'Stop', 'SELECT pg_advisory_xact_lock_shared($key)');
COMMIT;
CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock_shared($key); RETURN NULL; END';
CREATE TRIGGER stop AFTER INSERT ON es_event FOR EACH ROW
	WHEN (new.data->>'stop' = new.data->>'n') EXECUTE FUNCTION stop();

-- The victim, when it waits; NULL when it is done.
CREATE FUNCTION stopped() RETURNS int LANGUAGE plpgsql AS \$\$
DECLARE
	victim record;
BEGIN
	FOR i IN 1 .. 10000 LOOP
		PERFORM pg_stat_clear_snapshot();
		SELECT pid, wait_event_type, state, query INTO victim FROM pg_stat_activity WHERE application_name = 'victim';
		IF victim.wait_event_type = 'Lock' THEN RETURN victim.pid; END IF;
		EXIT WHEN victim.query LIKE '%over%' AND victim.state = 'idle';
		PERFORM pg_sleep(0.002);
	END LOOP;
	RETURN NULL;
END \$\$;

-- Milliseconds until it has let go of everything.
CREATE PROCEDURE strike(victim int, way text, INOUT began float8) LANGUAGE plpgsql AS \$\$
BEGIN
	began := extract(epoch FROM clock_timestamp());
	IF way = 'cancel' THEN
		PERFORM pg_cancel_backend(victim);
	ELSIF way = 'terminate' THEN
		PERFORM pg_terminate_backend(victim);
	END IF;
	WHILE EXISTS (SELECT FROM pg_locks WHERE pid = victim AND locktype <> 'virtualxid') LOOP
		PERFORM pg_sleep(0.0005);
	END LOOP;
END \$\$;

CREATE PROCEDURE go_on(stream text, began float8, INOUT ms float8) LANGUAGE plpgsql AS \$\$
BEGIN
	PERFORM es_append(stream, 'Bystander', '{}');
	COMMIT;
	WHILE es_settled_position() < es_last_position() LOOP
		PERFORM pg_sleep(0.0005);
	END LOOP;
	ms := (extract(epoch FROM clock_timestamp()) - began) * 1000;
END \$\$;

-- What is wrong, in the order: lost or too many, doubled, out of order,
-- locks left, read models, es_check().
CREATE FUNCTION verdict(expected bigint) RETURNS text LANGUAGE sql AS \$\$
	SELECT concat_ws(' ',
		(SELECT greatest(expected - count(*), 0) FROM es_event_all),
		(SELECT greatest(count(*) - expected, 0) + count(*) - count(DISTINCT event_id) FROM es_event_all),
		(SELECT count(*) FROM (SELECT version <> row_number() OVER (PARTITION BY stream_id ORDER BY position) AS wrong
			FROM es_event_all) x WHERE wrong),
		(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (
			SELECT oid FROM pg_database WHERE datname = current_database())),
		(SELECT count(*) FROM (SELECT stream_id, count(*) AS events, max(version) FROM es_event_all GROUP BY 1
			EXCEPT SELECT * FROM total) x) +
		(SELECT count(*) FROM (SELECT 1, count(*), sum(version)::bigint FROM es_event_all, es_projection p
				WHERE p.name = 'summed' AND es_event_all.position <= p.position HAVING count(*) > 0
			EXCEPT SELECT * FROM summed) x),
		(SELECT count(*) FROM es_check() WHERE status <> 'ok' AND check_name <> 'projections'))
\$\$;
SQL
	$expected = 0;
	connect_sessions();
}

sub connect_sessions
{
	$control = $node->background_psql($db, on_error_stop => 0);
	$holder = $node->background_psql($db, on_error_stop => 0);
	query_quietly($control, 'SET application_name = control');
}

# So many events that are certainly there, some of which stop a handler.
sub feed
{
	my ($n, $type) = @_;

	ask("SELECT es_append_batch('fed-' || $op % 5, array_fill('$type'::text, ARRAY[$n]), array_fill('{}'::jsonb, ARRAY[$n]))");
	$expected += $n;
}

# What the victim runs, how many events that makes once it is repeated, and
# the debug point, of whose visits some are let pass.
sub victim_sql
{
	my ($what, $place, $stream) = @_;

	if ($what eq 'append')
	{
		my $stop = $place eq 'first row' ? ', "stop": 1' : '';
		my $id = rand() < 0.5 ? sprintf(", event_id => '%08d-0000-4000-8000-%012d'", $op, 1) : '';

		return ("SELECT es_append('$stream', 'Killed', '{\"n\": 1$stop}'$id)", 1, $place);
	}
	if ($what eq 'batch')
	{
		my $n = $place eq 'rows-inserted' ? 257 + int rand 600 : 2 + int rand 120;
		my $visit = $place eq 'before-draw' ? 1 + int rand $n : $place eq 'rows-inserted' ? 1 + int rand 2 : 1;
		my $stop = $place eq 'last row' ? $n : 0;
		my $ids = rand() < 0.5 ? "(SELECT array_agg(format('%s-0000-4000-8000-%s', lpad('$op', 8, '0'), lpad(n::text, 12, '0'))::uuid) FROM generate_series(1, $n) n)" : 'NULL';

		return ("SELECT es_append_batch('$stream', array_fill('Killed'::text, ARRAY[$n]),
			(SELECT array_agg(jsonb_build_object('n', n, 'stop', $stop) ORDER BY n) FROM generate_series(1, $n) n), event_ids => $ids)",
			$n, "$place:$visit");
	}
	if ($what eq 'projection')
	{
		feed(12, 'Fed') for 1 .. 3;
		feed(1, $place eq 'handler' ? 'Stop' : 'Fed');
		return ('SET eventstore.batch_size = 10; CALL es_run_projections()', 0, "$place:" . (1 + int rand 3));
	}
	feed(30, 'Fed');
	return ("CALL es_archive(before_position => 1000000000, segment_events => 9)", 0,
		"$place:" . (1 + int rand 3));
}

# Kill with signal 9; the server starts anew, and takes our sessions along.
sub kill_hard
{
	my ($pid) = @_;
	my $began = time;
	my $neighbour = query_quietly($holder, 'SELECT pg_backend_pid()');

	kill 'KILL', $pid or die "there is no process $pid";
	wait_until('the server to go down', sub { !kill 0, $neighbour });
	eval { $_->quit } foreach $control, $holder;
	ask('SELECT 1');
	$kills{ready} = time - $began if time - $began > ($kills{ready} // 0);
	connect_sessions();
	return query_quietly($control, q(SELECT extract(epoch FROM clock_timestamp())));
}

# Run one operation up to the place, kill it there, look, and repeat it in peace.
sub kill_once
{
	my ($what, $place, $way) = @_;
	my $stream = 's-' . ++$op % 5;
	my ($sql, $n, $point) = victim_sql($what, $place, $stream);
	my $is_point = !exists $held{$place};
	my $hold = $is_point ? "SELECT pg_advisory_xact_lock($key)" : sprintf($held{$place}, $op % 5);
	my ($victim, $pid, $began, $ms);

	query_quietly($holder, "BEGIN; $hold \\g /dev/null\n");
	$victim = psql_start($node, "SET application_name = victim;\n"
		  . ($is_point ? "SET eventstore.point = '$point';\n" : '')
		  . "$sql;\nSELECT 'over';\nSELECT pg_sleep(0.1);\n", dbname => $db);
	$pid = query_quietly($control, 'SELECT stopped()');
	if ($pid eq '')
	{
		$missed++;
		query_quietly($holder, 'ROLLBACK');
		my ($ok) = psql_finish($victim);
		$expected += $n if $ok;
		return 0;
	}

	$began = $way eq 'SIGKILL' ? kill_hard($pid)
	  : query_quietly($control, "CALL strike($pid, '$way', NULL)");
	query_quietly($holder, 'ROLLBACK') if $way ne 'SIGKILL';
	$ms = query_quietly($control, "CALL go_on('$stream', $began, NULL)");
	push @{ $ms{$way} }, $ms if $is_point;
	$expected++;
	eval { psql_finish($victim) };
	$kills{"$what at $place"}{$way}++;

	look("$what at $place, $way (operation $op)");
	ask($sql =~ s/"stop": 1/"stop": 0/r =~ s/'stop', \d+/'stop', 0/r) if $what eq 'append' || $what eq 'batch' and rand() < 0.3 and $expected += $n;
	return 1;
}

sub look
{
	my ($when) = @_;
	my $verdict = ask("SELECT verdict($expected)");

	return if $verdict eq '0 0 0 0 0 0';
	my @found = split / /, $verdict;
	$wrong{$_} += shift @found foreach qw(lost doubled reordered leaked);
	$wrong{unsound} += $found[0] + $found[1];
	diag("after $when: lost, doubled, reordered, locks left, read models, es_check(): $verdict");
}

sub visit
{
	my (@of) = @_;
	my $count = 0;

	foreach my $round (1 .. $rounds)
	{
		foreach my $cell (@of)
		{
			foreach my $way (@ways)
			{
				new_database() if !defined $db || $count++ % 60 == 59;
				foreach (1 .. 5)
				{
					last if kill_once(@$cell, $way);
				}
			}
		}
	}
	look('all kills');
}

sub percentile
{
	my ($share, @of) = @_;
	my @sorted = sort { $a <=> $b } @of;

	return sprintf '%.1f', $sorted[ $share * $#sorted ] // 0;
}

new_database();
my $has_points = ask(q(SELECT es_settled_position() \g /dev/null
	SELECT count(*) FROM pg_settings WHERE name = 'eventstore.point'));
visit(@cells);
if ($has_points)
{
	visit(@points);
}
else
{
	note 'this build has no debug points';
}

my $ready = delete $kills{ready} // 0;
my $killed = 0;
foreach my $place (sort keys %kills)
{
	note "$place: " . join ', ', map { ($kills{$place}{$_} // 0) . " $_" } @ways;
	$killed += $_ foreach values %{ $kills{$place} };
}
foreach my $way (sort keys %ms)
{
	note sprintf "%s: the settled position moved after %s ms (median), %s (99 %%), %s (longest)",
	  $way, map { percentile($_, @{ $ms{$way} }) } 0.5, 0.99, 1;
}
note sprintf "SIGKILL: the server was back within %.0f ms; $missed times the victim was through before", 1000 * $ready;

is($killed, $rounds * @ways * (@cells + ($has_points ? @points : 0)), "$killed kills at known places");
is($wrong{lost}, 0, 'no acknowledged event is lost');
is($wrong{doubled}, 0, 'nothing is there of what was killed, and nothing twice');
is($wrong{reordered}, 0, 'versions run in the order of positions');
is($wrong{leaked}, 0, 'no lock is left');
is($wrong{unsound}, 0, 'read models are those of the events, and es_check() finds nothing');
report_figures(faults => $killed, map { $_ => $wrong{$_} } qw(lost doubled reordered));

eval { $_->quit } foreach $control, $holder;
$node->stop;
done_testing();
