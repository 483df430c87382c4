# Every function, procedure, view and table of the extension on a streaming
# standby.  What reads answers there as on the primary, at both isolation
# levels that a standby has; what writes says 25006, and what to do about it.
# The list comes from the catalog: one that is not in the table below fails.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use PostgreSQL::Test::Cluster;
use Test::More;

my $primary = new_store('primary', "wal_level = logical\nmax_prepared_transactions = 5\n",
	allows_streaming => 1);
my $standby = PostgreSQL::Test::Cluster->new('standby');

# A store with something in every corner.
$primary->safe_psql('postgres', <<'SQL');
SELECT es_create_event_type('Opened', tags => ARRAY['account:{stream_id}']);
SELECT es_append('account-1', 'Opened', '{"n": 1}'), es_append('account-1', 'Paid', '{"n": 2}', tags => '{seat:1}'),
	es_append('account-2', 'Opened', '{"n": 3}');
CREATE TABLE total (n numeric);
INSERT INTO total VALUES (0);
CREATE TABLE seen (position bigint PRIMARY KEY);
SELECT es_create_projection('totals', tables => '{total}');
SELECT es_on('totals', 'Paid', 'UPDATE total SET n = n + (event.data->>''n'')::int');
SELECT es_create_projection('watched', 'inline', '{seen}');
SELECT es_on('watched', 'Paid', 'INSERT INTO seen VALUES (event.position)');
CALL es_rebuild_projection('watched');
SELECT es_create_aggregate('account', initial_state => '{"n": 0}', snapshot_every => 2);
SELECT es_evolve('account', 'Paid', 'jsonb_build_object(''n'', (state->>''n'')::int + (event.data->>''n'')::int)');
SELECT es_decide('account', 'Pay', 'SELECT ''Paid'' AS type, command AS data');
SELECT es_create_aggregate('seats', category => NULL, initial_state => '0', boundary => '{"items": [{"tags": ["seat:{seat}"]}]}');
SELECT es_evolve('seats', 'Paid', 'to_jsonb((state)::int + 1)');
SELECT es_decide('seats', 'Take', 'SELECT ''Paid'' AS type, command AS data');
SELECT es_handle('account-1', 'Pay', '{"n": 4}');
SELECT es_take_snapshots();
SELECT es_save_snapshot('account-2', 1, '{"n": 9}', 'own');
SELECT es_upcast('Old', 1, 'event.data || ''{"new": true}''');
SELECT es_append('old-1', 'Old', '{"n": 1}');
SELECT es_create_subscription('orders'), es_create_subscription('mailer', partitions => 2), es_create_subscription('idle', from_position => es_settled_position());
SELECT es_ack('mailer', min(token), 2) FROM es_fetch('mailer', 'one', 2);
SELECT es_nack('mailer', min(token), min(position), 'park', 'no address') FROM es_fetch('mailer', 'one', 1, '1 h');
CREATE TABLE tracked (id int PRIMARY KEY, name text);
CREATE TABLE untracked (id int PRIMARY KEY, name text);
SELECT es_track_table('tracked');
INSERT INTO tracked VALUES (1, 'one');
SELECT es_append('gone-1', 'Opened', '{}'), es_delete_stream('gone-1');
SELECT es_append('cut-1', 'Opened', '{}'), es_append('cut-1', 'Opened', '{}'), es_truncate_stream('cut-1', 2);
SELECT es_store();
SQL
$primary->safe_psql('postgres', 'CALL es_run_projections()');
$primary->safe_psql('postgres', 'CALL es_archive(es_settled_position() - 4, segment_events => 3)');
$primary->safe_psql('postgres', 'CREATE TABLE exported AS SELECT es_export_segment(1) AS file');

# A hole at the end, settled, and one that is not.
$primary->safe_psql('postgres', $_)
  for q(BEGIN; SELECT es_append('x-1', 'Undone', '{}'); ROLLBACK),
  q(SELECT es_append('account-2', 'Paid', '{"n": 5}')), 'CALL es_run_projections()', 'SELECT es_settle()';

# Where a statement is 'writes', it works on the primary.  Functions that only
# triggers call stand for the statements that fire them.
my %call = (
	'es_ack(text,text,bigint)' => [ writes => q(SELECT es_ack('orders', min(token)) FROM es_fetch('orders', 'two')) ],
	'es_append(text,text,jsonb,bigint,jsonb,uuid,text[])' => [ writes => q(SELECT es_append('account-1', 'Paid', '{"n": 1}')) ],
	'es_append_batch(text,text[],jsonb[],bigint,jsonb[],uuid[],jsonb[])' => [ writes => q(SELECT es_append_batch('account-1', '{Paid}', ARRAY['{"n": 1}'::jsonb])) ],
	'es_append_if(jsonb,jsonb,bigint,bigint)' => [ writes => q(SELECT es_append_if('[{"type": "Paid", "stream": "account-1", "data": {"n": 1}}]', '{"items": [{"tags": ["none"]}]}')) ],
	'es_archive(bigint,timestamp with time zone,integer,integer,text)' => [ writes => 'CALL es_archive(1)', 'alone' ],
	'es_archived_position()' => [ reads => 'SELECT es_archived_position()' ],
	'es_boundary_history(text,jsonb,bigint,timestamp with time zone)' => [ reads => q(SELECT * FROM es_boundary_history('seats', '{"seat": 1}')) ],
	'es_boundary_state(text,jsonb,bigint,timestamp with time zone)' => [ reads => q(SELECT state FROM es_boundary_state('seats', '{"seat": 1}')) ],
	'es_category(text)' => [ reads => q(SELECT es_category('account-1')) ],
	'es_check(interval)' => [ reads => q(SELECT check_name, status FROM es_check()) ],
	'es_create_aggregate(text,text,text,regtype,integer,interval,jsonb,boolean,boolean)' => [ writes => q(SELECT es_create_aggregate('other', initial_state => '0')) ],
	'es_create_event_type(text,integer,text,text[],boolean)' => [ writes => q(SELECT es_create_event_type('Other')) ],
	'es_create_projection(text,text,regclass[],text,text)' => [ writes => q(SELECT es_create_projection('other')) ],
	'es_create_publication(text)' => [ writes => q(SELECT es_create_publication('events')) ],
	'es_create_subscription(text,bigint,timestamp with time zone,text[],text,integer,text,integer,boolean)' => [ writes => q(SELECT es_create_subscription('other')) ],
	'es_decide(text,text,text,text)' => [ writes => q(SELECT es_decide('account', 'Other', 'SELECT ''Paid'' AS type, command AS data')) ],
	'es_decide_dry(text,text,jsonb,text)' => [ reads => q(SELECT * FROM es_decide_dry('account-1', 'Pay', '{"n": 3}')) ],
	'es_delete_stream(text)' => [ writes => q(SELECT es_delete_stream('account-1')) ],
	'es_detach_segment(bigint,bytea)' => [ writes => q(SELECT es_detach_segment(1, file) FROM exported) ],
	'es_drop_aggregate(text,boolean)' => [ writes => q(SELECT es_drop_aggregate('account')) ],
	'es_drop_decider(text,text,boolean)' => [ writes => q(SELECT es_drop_decider('account', 'Pay')) ],
	'es_drop_event_type(text,integer,boolean)' => [ writes => q(SELECT es_drop_event_type('Opened')) ],
	'es_drop_evolver(text,text,boolean)' => [ writes => q(SELECT es_drop_evolver('account', 'Paid')) ],
	'es_drop_handler(text,text,boolean)' => [ writes => q(SELECT es_drop_handler('totals', 'Paid')) ],
	'es_drop_projection(text)' => [ writes => q(SELECT es_drop_projection('totals')) ],
	'es_drop_subscription(text,boolean)' => [ writes => q(SELECT es_drop_subscription('mailer')) ],
	'es_drop_upcaster(text,integer,boolean)' => [ writes => q(SELECT es_drop_upcaster('Old', 1)) ],
	'es_evolve(text,text,text)' => [ writes => q(SELECT es_evolve('account', 'Opened', 'state')) ],
	'es_export_segment(bigint)' => [ reads => 'SELECT md5(es_export_segment(1))' ],
	'es_fetch(text,text,integer,interval,text)' => [ writes => q(SELECT * FROM es_fetch('orders', 'two')) ],
	'es_from_cloudevent(jsonb)' => [ reads => q(SELECT es_from_cloudevent(es_to_cloudevent(e)) FROM es_read_all() e) ],
	'es_grant(regrole,text)' => [ writes => q(SELECT es_grant('pg_monitor', 'reader')) ],
	'es_handle(text,text,jsonb,uuid,text)' => [ writes => q(SELECT es_handle('account-1', 'Pay', '{"n": 1}')) ],
	'es_history(text,bigint,timestamp with time zone,text)' => [ reads => q(SELECT * FROM es_history('account-1')) ],
	'es_import_segment(bytea,text)' => [ writes => q(SELECT es_import_segment(file) FROM exported), 'detached' ],
	'es_last_position()' => [ reads => 'SELECT es_last_position()' ],
	'es_load_snapshot(text,text,bigint)' => [ reads => q(SELECT version, state FROM es_load_snapshot('account-2', 'own')) ],
	'es_nack(text,text,bigint,text,text,interval)' => [ writes => q(SELECT es_nack('orders', min(token), min(position)) FROM es_fetch('orders', 'two')) ],
	'es_on(text,text,text)' => [ writes => q(SELECT es_on('totals', 'Opened', 'UPDATE total SET n = n')) ],
	'es_on_batch(text,text)' => [ writes => q(SELECT es_on_batch('totals', 'UPDATE total SET n = n')) ],
	'es_pause_projection(text)' => [ writes => q(SELECT es_pause_projection('totals')) ],
	'es_position_at(timestamp with time zone)' => [ reads => 'SELECT es_position_at(clock_timestamp())' ],
	'es_project_at(text,timestamp with time zone,bigint)' => [ writes => q(SELECT es_project_at('totals', "position" => 2)) ],
	'es_read(jsonb,bigint,bigint,boolean,boolean,bigint)' => [ reads => q(SELECT * FROM es_read('{"items": [{"types": ["Paid"]}]}')) ],
	'es_read_all(bigint,bigint,text[],text,boolean,bigint)' => [ reads => 'SELECT * FROM es_read_all()' ],
	'es_read_archive(bigint,bigint)' => [ reads => 'SELECT * FROM es_read_archive(0, 3)' ],
	'es_read_boundary(jsonb,boolean)' => [ reads => q(SELECT (es_read_boundary('{"items": [{"tags": ["seat:1"]}]}')).events) ],
	'es_read_stream(text,bigint,bigint,boolean,boolean,bigint)' => [ reads => q(SELECT * FROM es_read_stream('account-1')) ],
	'es_rebuild_projection(text)' => [ writes => q(CALL es_rebuild_projection('totals')), 'alone' ],
	'es_renew(text,text,interval)' => [ writes => q(SELECT es_renew('orders', min(token)) FROM es_fetch('orders', 'two')) ],
	'es_replay_parked(text,text,bigint,text)' => [ writes => q(SELECT es_replay_parked('mailer')) ],
	'es_report(text)' => [ reads => q(SELECT es_report(NULL) LIKE '<!DOCTYPE html>%', es_report('account-1') LIKE '<!DOCTYPE html>%') ],
	'es_resume_projection(text)' => [ writes => q(SELECT es_resume_projection('totals')) ],
	'es_retag(jsonb,text[],text[])' => [ writes => q(SELECT es_retag('{"items": [{"types": ["Paid"]}]}', '{more}')) ],
	'es_run_projections(integer)' => [ writes => 'CALL es_run_projections()', 'alone' ],
	'es_running_jobs()' => [ reads => 'SELECT * FROM es_running_jobs()' ],
	'es_save_snapshot(text,bigint,jsonb,text)' => [ writes => q(SELECT es_save_snapshot('account-2', 1, '{}', 'own')) ],
	'es_seek(text,bigint,timestamp with time zone)' => [ writes => q(SELECT es_seek('mailer', 0)) ],
	'es_set_stream(text,bigint,interval,bigint)' => [ writes => q(SELECT es_set_stream('account-1', max_count => 5)) ],
	'es_settle()' => [ writes => 'SELECT es_settle()' ],
	'es_settled_holder()' => [ reads => 'SELECT * FROM es_settled_holder()' ],
	'es_settled_position()' => [ reads => 'SELECT es_settled_position()' ],
	'es_start_worker()' => [ writes => 'SELECT es_start_worker() > 0', 'last' ],
	'es_stat_log()' => [ reads => 'SELECT events, streams, is_estimate, last_position, settled_position FROM es_stat_log()' ],
	'es_stat_reset()' => [ reads => 'SELECT es_stat_reset()' ],
	'es_state(text,bigint,timestamp with time zone,text)' => [ reads => q(SELECT * FROM es_state('account-1'), es_state('account-1', at_version => 1) AS one, es_state('account-1', at => now()) AS past) ],
	'es_store()' => [ reads => 'SELECT * FROM es_store()' ],
	'es_stream_list(text,text,bigint)' => [ reads => 'SELECT * FROM es_stream_list()' ],
	'es_stream_partition(text,integer)' => [ reads => q(SELECT es_stream_partition('account-1', 16)) ],
	'es_stream_sizes()' => [ reads => 'SELECT * FROM es_stream_sizes()' ],
	'es_stream_version(text)' => [ reads => q(SELECT es_stream_version('account-1')) ],
	'es_take_snapshot(text,text)' => [ writes => q(SELECT es_take_snapshot('account-1')) ],
	'es_take_snapshots(bigint)' => [ writes => 'SELECT es_take_snapshots()' ],
	'es_test(text,jsonb,text,jsonb,jsonb,text,text)' => [ reads => q(SELECT es_test('account', '[]', 'Pay', '{"n": 1}', '[{"type": "Paid", "data": {"n": 1}}]')) ],
	'es_test_done()' => [ reads => 'SELECT es_test_done()' ],
	'es_to_cloudevent(es_event)' => [ reads => 'SELECT es_to_cloudevent(e) FROM es_read_all() e' ],
	'es_tombstone_stream(text)' => [ writes => q(SELECT es_tombstone_stream('account-2')) ],
	'es_track_table(regclass,text,text[],text[],boolean,boolean)' => [ writes => q(SELECT es_track_table('untracked')) ],
	'es_truncate_stream(text,bigint)' => [ writes => q(SELECT es_truncate_stream('account-1', 2)) ],
	'es_try_append_if(jsonb,jsonb,bigint,bigint)' => [ writes => q(SELECT es_try_append_if('[{"type": "Paid", "stream": "account-1", "data": {"n": 1}}]', '{"items": [{"tags": ["none"]}]}')) ],
	'es_undelete_stream(text)' => [ writes => q(SELECT es_undelete_stream('gone-1')) ],
	'es_untrack_table(regclass,boolean)' => [ writes => q(SELECT es_untrack_table('tracked')) ],
	'es_upcast(text,integer,text,text)' => [ writes => q(SELECT es_upcast('Opened', 1, 'event.data')) ],
	'es_wait_for(text,bigint,interval)' => [ reads => q(SELECT es_wait_for('totals', 2), es_wait_for('totals', es_settled_position() + 1, '1 ms'), es_wait_for('watched', 2), es_wait_for('watched', es_settled_position() + 1, '1 ms')) ],
	'es_wait_for_events(text,interval,text)' => [ reads => q(SELECT es_wait_for_events('mailer', '10 ms'), es_wait_for_events('idle', '10 ms')) ],
	'es_archive_guard()' => [ fires => 'DELETE FROM es_archive_segment' ],
	'es_definition_change()' => [ fires => 'DELETE FROM es_decider' ],
	'es_event_insert()' => [ fires => q(INSERT INTO es_event (stream_id, event_type, data) VALUES ('a-1', 'A', '{}')) ],
	'es_event_refuse()' => [ fires => 'DELETE FROM es_event' ],
	'es_event_statement()' => [ fires => q(COPY es_event (stream_id, event_type, data) FROM PROGRAM 'true') ],
	'es_event_tag()' => [ fires => q(INSERT INTO es_event (stream_id, event_type, data, tags) VALUES ('a-1', 'A', '{}', '{a}')) ],
	'es_event_tag_guard()' => [ fires => 'UPDATE es_event_tag SET tag = tag' ],
	'es_projection_guard()' => [ fires => 'UPDATE es_projection SET name = name' ],
	'es_settled_arrive()' => [ fires => 'UPDATE es_settled SET position = position' ],
	'es_stream_change()' => [ fires => 'DELETE FROM es_stream' ],
	'es_track_change()' => [ fires => q(INSERT INTO tracked VALUES (2, 'two')) ],
);

# Answers what a statement answers at a level, or its error.
sub outcome
{
	my ($node, $sql, $level) = @_;
	my ($status, $out, $err) = $node->psql('postgres',
		"\\set VERBOSITY verbose\nSET client_min_messages = warning;\n"
		  . ($level eq '' ? $sql : "BEGIN ISOLATION LEVEL $level;\n$sql;\nROLLBACK"),
		on_error_stop => 1);

	return $status == 0 ? ($out, undef, undef) :
	  ('', $err =~ /ERROR:  (\w{5})/, $err =~ /HINT:  (.*)/ ? $1 : '');
}

# What the extension has, by the catalog.
my @functions = split /\n/, $primary->safe_psql('postgres', <<'SQL');
SELECT regexp_replace(p.oid::regprocedure::text, '^zz_', '') FROM pg_proc p
JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'eventstore' ORDER BY 1
SQL
my @relations = split /\n/, $primary->safe_psql('postgres', <<'SQL');
SELECT c.oid::regclass FROM pg_class c
JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'eventstore' WHERE c.relkind IN ('r', 'v') ORDER BY 1
SQL

$primary->backup('base');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
$primary->wait_for_catchup($standby);

my %seen;
my %count = (reads => 0, writes => 0, fires => 0);
foreach my $function (@functions)
{
	my $entry = $call{$function};

	if (!$entry)
	{
		fail("$function has an entry in this test");
		next;
	}
	my ($kind, $sql) = @$entry;
	$seen{$function} = 1;
	$count{$kind}++;
	foreach my $level ('READ COMMITTED', 'REPEATABLE READ')
	{
		my $call = $sql =~ /^CALL/ ? '' : $level;
		my ($there, $state, $hint) = outcome($standby, $sql, $call);

		if ($kind eq 'reads')
		{
			my ($here, $failed) = outcome($primary, $sql, $call);

			is($failed, undef, "$function: the primary answers, $level");
			is($state, undef, "$function: so does the standby");
			is($there, $here, "$function: and the same");
		}
		else
		{
			is($state, '25006', "$function: refused, $level");
			next if $kind eq 'fires';
			like($hint, qr/connect to the primary/i, "$function: with a hint");
		}
	}
}
is(join(' ', grep { !$seen{$_} } sort keys %call), '', 'every entry is of a function that is there');

# Levels that a standby does not have.
my (undef, $state, $hint) = outcome($standby, 'SELECT es_read_all()', 'SERIALIZABLE');
is($state, '0A000', 'SERIALIZABLE is refused by the server');
like($hint, qr/REPEATABLE READ/, 'with a hint');

# Relations.  Leave out what tells the time, sizes, and counters of each server.
my $volatile = 'settled_age_seconds|lag_seconds|oldest_unacked_seconds|events_per_second|stats_reset|\w+_bytes|appended|conflicts|rejected|retries|pid|holder_\w+';
foreach my $relation (@relations)
{
	my $columns = $primary->safe_psql('postgres',
		"SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = '$relation'::regclass AND attnum > 0 AND NOT attisdropped AND attname !~ '^($volatile)\$'");
	my $sql = "SELECT $columns FROM $relation x ORDER BY x::text COLLATE \"C\"";

	$sql = "SELECT count(*) FROM $relation" if $columns eq '';
	$sql = "SELECT $columns FROM $relation" if $relation =~ /^es_(stat|progress)/;
	is((outcome($standby, $sql, ''))[0], (outcome($primary, $sql, ''))[0], "$relation: the same rows");
	is((outcome($standby, "SELECT * FROM $relation", ''))[1], undef, "$relation: all columns");
}

# What was refused was refused for being on a standby: the same statements
# work on the primary.
foreach my $function (grep { $call{$_} && $call{$_}[0] eq 'writes' } @functions)
{
	my ($kind, $sql, $how) = @{ $call{$function} };
	my $level = defined $how && $how =~ /alone|last/ ? '' : 'READ COMMITTED';

	next if defined $how && $how eq 'last';
	$sql = "SELECT es_detach_segment(1, file) FROM exported;\n$sql" if defined $how && $how eq 'detached';
	is((outcome($primary, $sql, $level))[1], undef, "$function: done on the primary");
}
is((outcome($primary, $call{'es_start_worker()'}[1], ''))[0], 't', 'es_start_worker(): done on the primary');
note("$count{reads} read, $count{writes} write, $count{fires} are fired; " . @relations . ' relations');

# An inline projection is not said to have got somewhere before its events have.
my $old = $standby->background_psql('postgres');
my $last = $primary->safe_psql('postgres', q(SELECT es_append('account-3', 'Opened', '{}'), es_settle(), es_last_position())) =~ s/.*\|//r;
$primary->wait_for_catchup($standby);
is($standby->safe_psql('postgres', "SELECT es_wait_for('watched', $last)"), 't', 'es_wait_for() sees what is settled');
is($standby->safe_psql('postgres', "SELECT es_wait_for('watched', $last + 1, '1 ms')"), 'f',
	'and does not take what the sequence is ahead for it');
$old->quit;

$standby->stop;
done_testing();
