# The router: four partitions on two servers behind one database.  Each stream
# is on one partition and no other; the vector of positions goes on exactly
# under writers; a definition is on all partitions or on none; and the router's
# functions have the store's names, arguments and defaults.
#
# ES_ROUTER_WRITERS and ES_ROUTER_SECONDS make it longer.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;

my $writers = $ENV{ES_ROUTER_WRITERS} // 4;
my $seconds = $ENV{ES_ROUTER_SECONDS} // 5;

my $one = new_store('one', "max_prepared_transactions = 20\n");
if ($one->safe_psql('postgres', q(SELECT count(*) FROM pg_available_extensions WHERE name IN ('plproxy', 'dblink', 'postgres_fdw'))) ne '3')
{
	$one->stop;
	plan skip_all => 'plproxy is not installed for this server';
}
my $two = new_store('two', "max_prepared_transactions = 20\n");
my @nodes = ($one, $one, $two, $two);

foreach my $i (0 .. 3)
{
	$nodes[$i]->safe_psql('postgres', "CREATE DATABASE p$i");
	$nodes[$i]->safe_psql("p$i", 'CREATE EXTENSION eventstore');
}
$one->safe_psql('postgres', 'CREATE DATABASE router');
sub router { return $one->safe_psql('router', "SET client_min_messages = warning; $_[0]") }
sub on_each { my ($sql) = @_; return join ' ', map { $nodes[$_]->safe_psql("p$_", $sql) } 0 .. 3 }

sub place { my ($i) = @_; return sprintf 'host=%s port=%s dbname=p%s', $nodes[$i]->host, $nodes[$i]->port, $i }
router('CREATE EXTENSION eventstore_router CASCADE');
router('CREATE SERVER eventstore FOREIGN DATA WRAPPER plproxy OPTIONS ('
	  . join(', ', map { "p$_ '" . place($_) . "'" } 0 .. 3) . '); CREATE USER MAPPING FOR PUBLIC SERVER eventstore');
is(router(q(SELECT es_attach_partitions('{course}'))), '4', 'the partitions are told their places');
is(router(q(SELECT * FROM es_check() WHERE status <> 'ok')), '', 'all is well');

# ----- the same SQL face -----

my $face = q(SELECT p.proname || '(' || coalesce((SELECT string_agg(concat_ws(' ', p.proargnames[i], CASE WHEN p.proargnames[i] ~ '^(from_position|position|epoch|state_type|tables)$'
		THEN '*' ELSE format_type(p.proargtypes[i - 1], NULL) END,
		CASE WHEN p.proargnames[i] !~ '^(from_position|position|epoch|state_type|tables)$' THEN pg_get_function_arg_default(p.oid, i) END), ', ' ORDER BY i)
		FROM generate_series(1, p.pronargs) i), '') || ')' AS face
	FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
	JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = '%s' WHERE p.prorettype <> 'trigger'::regtype
	ORDER BY 1);
my %store = map { /^(\w+)/ ? ($1 => $_) : () } split /\n/, $nodes[0]->safe_psql('p0', sprintf $face, 'eventstore');
my %router = map { /^(\w+)/ ? ($1 => $_) : () } split /\n/, router(sprintf $face, 'eventstore_router');
my @common = grep { exists $store{$_} } sort keys %router;
cmp_ok(scalar @common, '>', 45, 'the router has the store\'s functions: ' . @common);
is_deeply({ map { $_ => $router{$_} } @common }, { map { $_ => $store{$_} } @common },
	'with the names, types and defaults of their arguments');
is(router(q(SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
	JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'eventstore_router'
	WHERE obj_description(p.oid, 'pg_proc') IS NULL OR has_function_privilege('public', p.oid, 'EXECUTE'))), '',
	'each has a comment, and none is open to all');

# ----- streams -----

is(router(q(SELECT sum(es_append('s-' || i, 'Made', '{}')) FROM generate_series(1, 400) i)), '400', 'streams are begun');
my $counts = on_each('SELECT count(*) > 50 FROM es_event');
is($counts, 't t t t', 'on all partitions');
router(q(SELECT es_append($$x'-"\1 {}$$, 'Made', '{"a": "\\\\ '' \""}')));
is(router(q(SELECT data ->> 'a' FROM es_read_stream($$x'-"\1 {}$$))), q(\ ' "), 'a hostile name comes and goes as it is');
my ($ret, $out, $err) = $one->psql('router', q(\set VERBOSITY verbose
SELECT es_append('s-1', 'Made', '{}', 7)));
like($err, qr/40001:.*not at the expected version.*\n.*Expected version 7; the stream is at version 1.*\n.*Read the stream again/,
	'an error has its SQLSTATE, message, detail and hint');
sqlstate_is($one, q(SELECT es_append(NULL, 'Made', '{}')), '22004', 'a stream must be named', dbname => 'router');
sqlstate_is($one, q(SELECT es_handle(NULL, 'Do')), '0A000', 'a command must name a stream', dbname => 'router');
my $wrong = router(q(SELECT 's-' || i FROM generate_series(1, 50) i WHERE es_shard('s-' || i) <> 0 LIMIT 1));
sqlstate_is($nodes[0], "SELECT es_append('$wrong', 'Made', '{}')", '23514', 'a partition refuses another one\'s stream', dbname => 'p0');
router(q(SELECT es_delete_stream('s-1')));
is(router(q(SELECT count(*) FROM es_read_stream('s-1'))), '0', 'a stream is deleted where it is');

# ----- boundaries -----

my $course = q('{"items": [{"tags": ["course:c1"]}]}');
router(qq(SELECT es_append_if('[{"type": "Joined", "data": {}, "tags": ["course:c1", "student:s1"]}]', $course)));
is(router(qq(SELECT count(*) FROM es_read($course))), '1', 'a boundary is read where its tag says');
sqlstate_is($one, qq(SELECT es_append_if('[{"type": "Joined", "data": {}, "tags": ["course:c1"]}]', $course, 0)), '40001',
	'and decided there', dbname => 'router');
sqlstate_is($one, q(SELECT es_append_if('[]', '{"items": [{"tags": ["student:s1"]}]}')), '0A000', 'a query that names no partition is refused', dbname => 'router');
sqlstate_is($one, q(SELECT * FROM es_read('{"items": [{"tags": ["course:c1"]}, {}]}')), '0A000', 'also by one item', dbname => 'router');
my $far = router(q(SELECT 'f-' || i FROM generate_series(1, 50) i WHERE es_shard('f-' || i) <> es_shard('course-c1') LIMIT 1));
sqlstate_is($one, "SELECT es_append('$far', 'Joined', '{}', tags => '{course:c1}')", '23514',
	'an event that a boundary would not see is refused', dbname => 'router');

# ----- definitions: all or none -----

is(router(q(SELECT es_define('CREATE TABLE total (stream_id text PRIMARY KEY, events bigint)');
	SELECT es_create_projection('total', tables => '{total}');
	SELECT es_on('total', 'Made', 'INSERT INTO total AS t VALUES (event.stream_id, 1) ON CONFLICT (stream_id) DO UPDATE SET events = t.events + 1'))),
	"\n\n", 'a projection is defined');
is(on_each('SELECT count(*) FROM es_projection'), '1 1 1 1', 'on every partition');
$nodes[2]->safe_psql('p2', q(SELECT es_create_event_type('Taken')));
sqlstate_is($one, q(SELECT es_create_event_type('Taken')), '42710', 'where one partition refuses', dbname => 'router');
is(on_each(q(SELECT count(*) FROM es_event_type)), '0 0 1 0', 'no other has it');
is(on_each('SELECT count(*) FROM pg_prepared_xacts'), '0 0 0 0', 'nothing is left prepared');
$two->stop;
($ret, $out, $err) = $one->psql('router', q(SELECT es_create_event_type('Down')));
isnt($ret, 0, 'a partition that is down: an error');
$two->start;
is(on_each(q(SELECT count(*) FROM es_event_type WHERE event_type = 'Down')), '0 0 0 0', 'and none has it');

# What a router leaves that dies while it prepares, or while it commits.
my $uuid = '00000000-0000-4000-8000-000000000001';
$nodes[$_]->safe_psql("p$_", "BEGIN; SELECT es_create_event_type('Half'); PREPARE TRANSACTION 'es_router_${uuid}_$_'") foreach 0 .. 2;
is(router('SELECT string_agg(action, $$ $$) FROM es_resolve_definitions()'), 'ROLLBACK ROLLBACK ROLLBACK', 'undecided: rolled back');
is(on_each(q(SELECT count(*) FROM es_event_type WHERE event_type = 'Half')), '0 0 0 0', 'everywhere');
$nodes[$_]->safe_psql("p$_", "BEGIN; SELECT es_create_event_type('Half'); PREPARE TRANSACTION 'es_router_${uuid}_$_'") foreach 0 .. 3;
$nodes[0]->safe_psql('p0', "COMMIT PREPARED 'es_router_${uuid}_0'");
is(router('SELECT string_agg(action, $$ $$) FROM es_resolve_definitions()'), 'COMMIT COMMIT COMMIT', 'decided: committed');
is(on_each(q(SELECT count(*) FROM es_event_type WHERE event_type = 'Half')), '1 1 1 1', 'everywhere');

# ----- read models -----

router('CALL es_run_projections()');
is(router(q(SELECT es_wait_for('total'); SELECT es_offer_table('total'); SELECT count(*), sum(events) FROM total)), "t\n\n401|401",
	'the read models are one table');
unlike(router(q(EXPLAIN SELECT * FROM total WHERE shard = 1)), qr/total_[023]/, 'a question for a shard goes there alone');
is(router(q(SELECT count(DISTINCT shard), count(*) FROM es_stat_projection)), '4|4', 'state views tell of each partition');

# ----- the log, under writers -----

my $script = $one->basedir . '/write.sql';
append_to_file($script, "\\set s random(1, 200)\nSELECT es_append('w-' || :s, 'Written', '{}');\n"
	  . "\\set s random(1, 200)\nSELECT es_append('w-' || :s, 'Other', '{}');\n");
router(q(SELECT es_create_subscription('sub', '{}', category => 'w')));
my $load = { out => '', err => '' };
$load->{run} = IPC::Run::start([ $one->installed_command('pgbench'), '-n', '-R', '100', '-c', $writers, '-T', $seconds, '-f', $script, $one->connstr('router') ],
	'>', \$load->{out}, '2>', \$load->{err});
router(q(CREATE TABLE seen (n bigserial, shard int, "position" bigint); CREATE TABLE seen_rows (shard int, "position" bigint); CREATE TABLE fetched (LIKE seen_rows)));
my ($batch, $rows, $token) = ('{}', '{}', '');
my $end = 0;
while ($end < 2)
{
	# pumping a process that has just ended is an error
	$end++ if $end || !eval { is_running($load) };
	my $more = 1;
	while ($more)
	{
		my $max = 1 + int rand 300;
		my $next = router(qq(WITH b AS MATERIALIZED (SELECT * FROM es_read_batch('$batch', $max, event_types => '{Written}')),
			i AS (INSERT INTO seen (shard, "position") SELECT s, e.position FROM b, unnest(b.shards) WITH ORDINALITY AS s(s, o)
				JOIN unnest(b.events) WITH ORDINALITY AS e("position", a2, a3, a4, a5, a6, a7, a8, a9, a10, o) USING (o) ORDER BY o)
			SELECT positions, cardinality(shards) FROM b));
		($batch, my $n) = $next =~ /^(.*)\|(\d+)$/;
		# Going on from the vector of any row, not only of the last.
		my $got = router(qq(WITH r AS MATERIALIZED (SELECT row_number() OVER () AS o, * FROM es_read_all('$rows', $max)),
			k AS (SELECT * FROM r ORDER BY o LIMIT 1 + (SELECT count(*) FROM r) / 2),
			i AS (INSERT INTO seen_rows (shard, "position") SELECT shard, "position" FROM k)
			SELECT positions FROM k ORDER BY o DESC LIMIT 1));
		$rows = $got if $got ne '';
		my $ack = $token eq '' ? 'NULL' : "\$t\$$token\$t\$";
		$token = router(qq(WITH f AS MATERIALIZED (SELECT * FROM es_fetch('sub', 'a consumer', $max, ack => $ack)),
			i AS (INSERT INTO fetched (shard, "position") SELECT shard, "position" FROM f) SELECT token FROM f LIMIT 1));
		$more = $end && ($n > 0 || $got ne '' || $token ne '');
		last unless $end;
	}
}
finish_load($load);
my $all = router('SELECT count(*) FROM es_read_all(max_count => NULL)');
foreach my $check ([ 'seen', q(event_types => '{Written}'), 'batches with a filter' ], [ 'seen_rows', '', 'rows' ], [ 'fetched', q(category => 'w'), 'a subscription' ])
{
	my ($table, $filter, $name) = @$check;
	my $expected = router("SELECT count(*) FROM es_read_all(max_count => NULL" . ($filter ? ", $filter" : '') . ')');
	is(router("SELECT count(*), count(DISTINCT (shard, position)) FROM $table"), "$expected|$expected", "$name: each of $expected events once");
}
is(router(q(SELECT count(*) FROM (SELECT "position" < lag("position") OVER (PARTITION BY shard ORDER BY n) AS back FROM seen) x WHERE back)), '0', 'in order');
my $nothing = router(q(SELECT positions FROM es_read_batch('{}', 10, event_types => '{None}')));
is(router("SELECT count(*) FROM es_read_all('$nothing')"), '0', 'a filter that matches nothing moves the vector to the end');
sqlstate_is($one, qq(SELECT * FROM $_), '55000', "$_", dbname => 'router')
  foreach q(es_fetch('sub', 'a consumer', epoch => '{"2": 7}')), q(es_read_all(epoch => '{"2": 7}')),
  q(es_create_subscription('sub2', epoch => '{"2": 7}'));
sqlstate_is($one, q(SELECT * FROM es_read_all('{"4": 1}')), '22023', 'a vector of other partitions is refused', dbname => 'router');

# ----- options in the wrong order -----

router("SELECT es_move_partition(0, '" . place(1) . "'); SELECT es_move_partition(1, '" . place(0) . "')");
sqlstate_is($one, q(SELECT es_append('s-' || i, 'Made', '{}') FROM generate_series(1, 50) i), '23514', 'a router with its partitions mixed up cannot append', dbname => 'router');
is(router(q(SELECT string_agg(shard::text, ',' ORDER BY shard) FROM es_check() WHERE check_name = 'partition' AND status <> 'ok')), '0,1', 'and es_check tells');
router("SELECT es_move_partition(0, '" . place(0) . "'); SELECT es_move_partition(1, '" . place(1) . "')");
is(router(q(SELECT * FROM es_check() WHERE status <> 'ok' AND check_name NOT IN ('projections', 'parked events'))), '', 'all is well again');

# ----- rights -----

$_->safe_psql('postgres', 'CREATE ROLE regress_es_shop LOGIN') foreach $one, $two;
router(q(SELECT es_grant('regress_es_shop', 'writer')));
is(router(q(SET ROLE regress_es_shop; SELECT es_append('shop-1', 'Made', '{}'))), '1', 'a writer appends');
sqlstate_is($one, q(SET ROLE regress_es_shop; SELECT es_define('SELECT 1')), '42501', 'and defines nothing', dbname => 'router');

$_->stop foreach $one, $two;
done_testing();
