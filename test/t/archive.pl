# The archive through crashes, restarts, dumps, on standbys and replicas.  And
# random histories: whatever is archived, upcast and restarted in between,
# readers are told the same.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_store('main', "wal_level = logical\nmax_wal_senders = 4\nhot_standby_feedback = on\n", allows_streaming => 'logical');

sub sql
{
	my ($query, %params) = @_;

	return ($params{node} // $node)->safe_psql($params{dbname} // 'postgres', $query);
}

# Everything that readers say of the store, and where it is.
my $whole = q(SELECT count(*) || ' ' || md5(string_agg(e::text, ' ' ORDER BY position)) FROM es_read_all(0, NULL, raw => true) e);
my $streams = q(SELECT count(*) || ' ' || md5(string_agg(e::text, ' ')) FROM (
	SELECT e FROM es_stream_list() s, es_read_stream(s.stream_id) e) x);
my $archived = q(SELECT count(*) || ' ' || coalesce(sum(events), 0) FROM es_archive_segment);

sub same_store
{
	my ($name, $other, %params) = @_;

	is(sql($whole, node => $other, %params), sql($whole), "$name: the same log");
	is(sql($streams, node => $other, %params), sql($streams), "$name: the same streams");
	is(sql($archived, node => $other, %params), sql($archived), "$name: the same archive");
	return;
}

# Killed in the middle, under load, again and again: what was committed before
# is there, once, and archiving goes on.
sub crash_while_archiving
{
	my ($round) = @_;
	my $load = start_load($node, 4, 60);
	my $archiver;
	my $before = sql(q(SELECT last_position FROM es_stat_archive)) || 0;

	wait_until('something to archive', sub { sql('SELECT count(*) FROM es_event') > 2000 });
	$archiver = psql_start($node, "CALL es_archive(before_position => 1000000000, segment_events => 50);\n" x 100,
		options => $round % 2 ? '-c synchronous_commit=off' : '');
	wait_until('segments', sub { (sql(q(SELECT last_position FROM es_stat_archive)) || 0) > $before + 500 });
	crash($node);
	eval { psql_finish($archiver) };
	eval { $load->{run}->finish };
	$node->start;
	store_is_sound($node, "round $round");
	is( sql(q(SELECT count(*) - count(DISTINCT position) FROM es_event_all)),
		'0', "round $round: each event once");
	return;
}

sql(q(INSERT INTO es_event (stream_id, event_type, data, tags)
	SELECT 'load-' || i % 70, 'Loaded', jsonb_build_object('i', i), CASE WHEN i % 5 = 0 THEN ARRAY['fifth'] END
	FROM generate_series(1, 3000) i));
crash_while_archiving($_) for 1 .. 4;

# Cancelled: nothing is half done.
{
	sql(q(SELECT count(es_append('many-' || i % 9, 'Counted', '{}')) FROM generate_series(1, 3000) i));
	my $archiver = psql_start($node, "SET statement_timeout = 1500; CALL es_archive(before_position => 1000000000, segment_events => 1);");
	wait_until('the archiver in es_progress',
		sub { sql(q(SELECT phase || ' ' || (done > 0 AND total >= done) FROM es_progress WHERE job = 'archive')) eq 'archiving true' });
	pass('es_progress shows the archiver');
	psql_finish($archiver);
	store_is_sound($node, 'cancelled');
}
sql('CALL es_archive(before_position => es_settled_position() / 2)');
my $log = sql($whole);
$node->restart;
is(sql($whole), $log, 'a restart changes nothing');

# The space is given back: es_event does not grow when it is filled again.
sql('CALL es_archive(before_position => 1000000000)');
sql('VACUUM es_event');
cmp_ok(sql(q(SELECT pg_table_size('es_event'))), '<', 200_000, 'VACUUM gives back the space of what was archived');
sql(q(SELECT count(es_append('late-' || i % 10, 'Late', '{}', tags => '{late}')) FROM generate_series(1, 500) i));
sql(q(SELECT es_settle()));

# A standby reads through both, and follows the archiver.
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
same_store('standby', $standby);
sql('CALL es_archive(before_position => 1000000000, segment_events => 300)');
$node->wait_for_catchup($standby, 'replay', $node->lsn('write'));
same_store('standby, archived', $standby);
$standby->stop;

# A dump holds the archive, and the store goes on from it.
sql('CREATE DATABASE restored');
foreach my $format ('custom', 'plain')
{
	my $file = $node->basedir . "/dump.$format";

	$node->command_ok([ 'pg_dump', '-F', $format, '-f', $file, '-d', $node->connstr('postgres') ], "dumped ($format)");
	$node->safe_psql('template1', $_) foreach 'DROP DATABASE restored', 'CREATE DATABASE restored';
	$node->command_ok(
		$format eq 'plain'
		? [ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', $file, '-d', $node->connstr('restored') ]
		: [ 'pg_restore', '-e', '-d', $node->connstr('restored'), $file ],
		"restored ($format)");
	same_store("dump ($format)", $node, dbname => 'restored');
	store_is_sound($node, "dump ($format)", dbname => 'restored');
	is( sql(q(SELECT es_append('load-3', 'After', '{}') - es_stream_version('load-3')), dbname => 'restored'),
		'1', "dump ($format): versions go on");
	sql('CALL es_archive(before_position => 1000000000)', dbname => 'restored');
	store_is_sound($node, "dump ($format), archived", dbname => 'restored');
}

# A replica that is fed with the archive's tables follows the archiver; one
# that is not keeps its events.
{
	my $full = new_store('full');
	my $plain = new_store('plain');
	my $connstr = $node->connstr . ' dbname=postgres';

	sql(q(SELECT count(es_append('late-' || i % 10, 'Late', '{}')) FROM generate_series(1, 300) i));
	sql(q(CREATE PUBLICATION everything FOR TABLE es_event, es_event_tag, es_settled, es_archive_segment, es_archive_run, es_archive_key));
	sql("CREATE SUBSCRIPTION s_full CONNECTION '$connstr' PUBLICATION everything WITH (disable_on_error = true)", node => $full);
	$full->wait_for_subscription_sync($node, 's_full');
	sql(q(CREATE PUBLICATION events FOR TABLE es_event));
	sql("CREATE SUBSCRIPTION s_plain CONNECTION '$connstr' PUBLICATION events WITH (disable_on_error = true)", node => $plain);
	$plain->wait_for_subscription_sync($node, 's_plain');
	my $events = sql('SELECT count(*) FROM es_event', node => $plain);

	sql('CALL es_archive(before_position => 1000000000, segment_events => 100)');
	sql(q(SELECT es_append('late-1', 'Late', '{}')));
	sql('SELECT es_settle()');
	$node->wait_for_catchup($_) foreach 's_full', 's_plain';
	same_store('replica with archive', $full);
	is(sql('SELECT count(*) FROM es_event', node => $full), '1', 'the replica has moved its events, too');
	is(sql('SELECT count(*) FROM es_event', node => $plain), $events + 1, 'without the archive the replica keeps its events');
	my ($ret, $out, $err) = $full->psql('postgres', 'CALL es_archive(before_position => 1000000000)', on_error_stop => 0);
	like($err, qr/cannot archive a store that is replicated from another/, 'a replica does not archive by itself');
	$_->stop foreach $full, $plain;
	sql('DROP PUBLICATION everything; DROP PUBLICATION events');
	sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots");
}

# Random histories.  Every answer is noted before anything is done to the
# store, and asked for again after each step of a random sequence.
my $seed = $ENV{ES_SEED} // int(rand(1_000_000_000));
note "ES_SEED=$seed";
srand $seed;

sub random_history
{
	my ($dbname) = @_;
	my $script = '';

	foreach (1 .. 40 + int(rand(60)))
	{
		my $stream = ('a-', 'b-', 'c')[ rand 3 ] . int(rand(6));
		my $type = ('One', 'Two', 'Three')[ rand 3 ];
		my $n = 1 + int(rand(8));
		my $data = rand() < 0.1 ? "repeat('x', " . int(rand(20_000)) . ')' : int(rand(1000));

		$script .= rand() < 0.15 ? "BEGIN; SELECT es_append('$stream', 'Lost', '{}'); ROLLBACK;\n"
		  : rand() < 0.3 ? "SELECT es_append_batch('$stream', array_fill('$type'::text, ARRAY[$n]), array_fill(jsonb_build_object('v', $data), ARRAY[$n]));\n"
		  : "SELECT es_append('$stream', '$type', jsonb_build_object('v', $data), metadata => CASE WHEN random() < 0.3 THEN '{\"k\": [1]}'::jsonb END, tags => CASE WHEN random() < 0.4 THEN ARRAY['t:' || (random() * 3)::int] END);\n";
	}
	$script .= "SELECT es_truncate_stream(stream_id, version / 2 + 1) FROM es_stream_list('a');\n";
	sql($script, dbname => $dbname);
	return;
}

sub answers
{
	my ($dbname, $raw) = @_;

	my $readers = $raw ? ', raw => true' : '';
	return sql(<<"SQL", dbname => $dbname);
SELECT md5(string_agg(e::text, ' ' ORDER BY position)) FROM es_read_all(0, NULL$readers) e;
SELECT md5(string_agg(e::text, ' ')) FROM es_stream_list() s, es_read_stream(s.stream_id$readers) e;
SELECT md5(string_agg(e::text, ' ')) FROM es_stream_list() s, generate_series(0, 40, 7) v, es_read_stream(s.stream_id, v, 5, true$readers) e;
SELECT md5(string_agg(s::text, ' ')) FROM es_stream_list() s;
SELECT md5(string_agg(e.position::text, ' ')) FROM generate_series(0, 3) t, es_read(jsonb_build_object('items', jsonb_build_array(jsonb_build_object('tags', jsonb_build_array('t:' || t))))) e;
SELECT md5(string_agg(es_position_at(recorded_at)::text, ' ' ORDER BY position)) FROM es_event_all;
SELECT count(*) FROM es_check() WHERE status <> 'ok';
SQL
}

my $upcast = 0;

sub random_step
{
	my ($dbname) = @_;
	my $step = int(rand(5));

	if ($step == 0)
	{
		$node->restart;
		return 'restart';
	}
	if ($step == 1)
	{
		my $type = ('One', 'Two')[ rand 2 ];
		sql("SELECT es_upcast('$type', 1, 'event.data || ''{\"up\": " . ++$upcast . "}''::jsonb')", dbname => $dbname);
		return "upcast $type";
	}
	if ($step == 2)
	{
		my ($n) = sql('SELECT coalesce(max(segment), 0) FROM es_archive_segment', dbname => $dbname);
		return 'nothing' if $n == 0;
		$n = 1 + int(rand($n));
		sql(<<"SQL", dbname => $dbname);
BEGIN;
CREATE TEMP TABLE f AS SELECT es_export_segment($n) AS f;
SELECT es_detach_segment($n, f) FROM f;
SELECT es_import_segment(f, (ARRAY['none', 'pglz'])[1 + (random() < 0.5)::int]) FROM f;
COMMIT;
SQL
		return "export and import of segment $n";
	}
	my $what = 'before_position => ' . int(rand(sql('SELECT max(position) + 10 FROM es_event_all', dbname => $dbname)));
	my $call = "CALL es_archive($what, segment_events => " . (1 + int(rand(40))) . ', codec => ' . ('NULL', "'pglz'", "'none'")[ rand 3 ] . ')';
	sql($call, dbname => $dbname);
	return $call;
}

foreach my $history (1 .. 4)
{
	my $dbname = "history$history";
	my @steps;

	sql("CREATE DATABASE $dbname");
	sql('CREATE EXTENSION eventstore', dbname => $dbname);
	random_history($dbname);
	my $raw = answers($dbname, 1);
	foreach (1 .. 8)
	{
		push @steps, random_step($dbname);
		my $now = answers($dbname, 1);
		is($now, $raw, "history $history: the same as stored") or diag(join "\n", @steps), last;
		if ($steps[-1] =~ /^upcast/)
		{
			# what readers show now must come of the events, not of where they are
			my $shown = answers($dbname, 0);
			push @steps, 'archive all';
			sql('CALL es_archive(before_position => 1000000000, segment_events => 20)', dbname => $dbname);
			is(answers($dbname, 0), $shown, "history $history: upcast the same") or diag(join "\n", @steps);
		}
	}
}

$node->stop;
done_testing();
