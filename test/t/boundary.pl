# Sixteen that decide on the same events at once, at every isolation level: no
# decision is made on events that have changed, and none is refused without a
# reason.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $seconds = $ENV{ES_STRESS_SECONDS} // 4;
my $node = new_store('main',
	"max_connections = 40\nmax_prepared_transactions = 20\nfsync = off\n");

# Every event that was decided on notes what it went by: "seen" matching events,
# none behind "after".  So each decision can be judged afterwards.
$node->safe_psql('postgres', q(
	CREATE FUNCTION q(course int, student int) RETURNS jsonb LANGUAGE sql AS $$
		SELECT jsonb_build_object('items', jsonb_build_array(
			jsonb_build_object('types', '["Taken"]'::jsonb, 'tags', jsonb_build_array('course:' || course, 'school')),
			jsonb_build_object('types', '["Taken"]'::jsonb, 'tags', jsonb_build_array('student:' || student))))
	$$;
	CREATE TABLE outcome (taken boolean, conflict bigint, after bigint);
	CREATE FUNCTION decide(course int, student int, pause float) RETURNS void LANGUAGE plpgsql AS $$
	DECLARE
		b record;
		r record;
	BEGIN
		SELECT * INTO b FROM es_read_boundary(q(course, student));
		PERFORM pg_sleep(pause);
		SELECT * INTO r FROM es_try_append_if(
			jsonb_build_array(jsonb_build_object('type', 'Taken',
				'data', jsonb_build_object('course', course, 'student', student, 'after', b.after, 'seen', cardinality(b.events)),
				'tags', jsonb_build_array('course:' || course, 'student:' || student, 'school'))),
			q(course, student), b.after);
		PERFORM pg_sleep(pause);
		INSERT INTO outcome VALUES (r.appended, r.conflict_position, b.after);
	END $$;));

# The scripts, each with a weight.  All hold their locks for a random while.
my %script = (
	'decide@10' => q(
\set course random(1, 8)
\set student random(1, 30)
\set pause random(0, 4)
SELECT decide(:course, :student, :pause / 1000.0);),
	'plain@4' => q(
\set course random(1, 8)
\set student random(1, 30)
\set pause random(0, 6)
BEGIN;
SELECT es_append('p-' || :client_id, 'Taken', '{}',
	tags => ARRAY['course:' || :course, 'student:' || :student, 'school']);
\sleep :pause ms
COMMIT;),
	'undone@2' => q(
\set course random(1, 8)
\set pause random(0, 6)
BEGIN;
SAVEPOINT s;
SELECT es_append('p-' || :client_id, 'Taken', '{}', tags => ARRAY['course:' || :course, 'school']);
\sleep :pause ms
ROLLBACK TO s;
INSERT INTO es_event (stream_id, event_type, data, tags)
	VALUES ('p-' || :client_id, 'Taken', '{}', ARRAY['course:' || (:course % 8 + 1), 'school']);
\sleep :pause ms
COMMIT;),
	'broad@1' => q(
\set course random(1, 8)
BEGIN;
SET LOCAL eventstore.max_stream_locks = 0;
SELECT es_append('p-' || :client_id, 'Taken', '{}', tags => ARRAY['course:' || :course, 'school']);
\sleep 2 ms
COMMIT;),
	'prepared@1' => q(
\set course random(1, 8)
\set gid random(1, 1000000000)
BEGIN;
SELECT es_append('p-' || :client_id, 'Taken', '{}', tags => ARRAY['course:' || :course, 'school']);
PREPARE TRANSACTION 'g:gid';
\sleep 3 ms
COMMIT PREPARED 'g:gid';));
my @files;
foreach my $name (sort keys %script)
{
	my ($base, $weight) = split /@/, $name;
	my $file = $node->basedir . "/$base.sql";

	append_to_file($file, $script{$name});
	push @files, '-f', "$file\@$weight";
}

foreach my $level ('read committed', 'repeatable read', 'serializable')
{
	my ($out, $err);
	my $ok = IPC::Run::run(
		[
			$node->installed_command('pgbench'), '-n', '-c', 16, '-j', 2, '-T', $seconds,
			'--max-tries=1000', @files,
			$node->connstr('postgres') . " options='-c default_transaction_isolation=" . ($level =~ s/ /\\\\ /r) . "'"
		],
		'>', \$out, '2>', \$err,
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	my ($transactions) = $out =~ /actually processed: (\d+)/;

	ok($ok && $err !~ /aborted|ERROR/, "16 racers at $level ($transactions transactions)")
	  or diag $err;
	is($out =~ /failed transactions: ([1-9]\d*)/ ? $1 : 0, 0, 'all come through');
}

# The judge: between what a decision went by and the decision itself there is
# no event that it had to know, and it knew all those before.
is( $node->safe_psql('postgres', q(
	SELECT count(*) FROM es_event d, jsonb_to_record(d.data) AS x(course int, student int, after bigint, seen int)
		WHERE x.course IS NOT NULL
		AND EXISTS (SELECT FROM es_event e WHERE e.event_type = 'Taken'
			AND (e.tags @> ARRAY['course:' || x.course, 'school'] OR e.tags @> ARRAY['student:' || x.student])
			AND e.position > x.after AND e.position < d.position))),
	'0', 'no decision passed an event that it did not know');
is( $node->safe_psql('postgres', q(
	SELECT count(*) FROM es_event d, jsonb_to_record(d.data) AS x(course int, student int, after bigint, seen int)
		WHERE x.course IS NOT NULL
		AND x.seen <> (SELECT count(*) FROM es_event e WHERE e.event_type = 'Taken'
			AND (e.tags @> ARRAY['course:' || x.course, 'school'] OR e.tags @> ARRAY['student:' || x.student])
			AND e.position <= x.after))),
	'0', 'every decision had been shown all events up to its position');
is( $node->safe_psql('postgres', q(SELECT count(*) FROM outcome
		WHERE after > (SELECT last_value FROM es_event_position_seq))),
	'0', 'no position is beyond the last one drawn');
is( $node->safe_psql('postgres', q(
	SELECT count(*) FROM outcome o LEFT JOIN es_event e ON e.position = o.conflict
		WHERE NOT o.taken AND (e.position IS NULL OR e.position <= o.after))),
	'0', 'every refusal names an event that is there, behind the position');
cmp_ok( $node->safe_psql('postgres', 'SELECT count(*) FROM outcome WHERE taken'), '>', 50, 'decisions were made');
cmp_ok( $node->safe_psql('postgres', 'SELECT count(*) FROM outcome WHERE NOT taken'), '>', 10, 'and some were refused');
store_is_sound($node, 'store');

# Sixteen at once for one name, staggered or not: one gets it.
foreach my $round (1 .. 5)
{
	my @racers = map {
		psql_start($node, "SELECT pg_sleep(0.001 * ($_ % $round));
			SELECT appended FROM es_try_append_if(
				'[{\"type\": \"Registered\", \"data\": $_, \"tags\": [\"name:$round\"]}]',
				'{\"items\": [{\"tags\": [\"name:$round\"]}]}');")
	} 1 .. 16;
	my @answers = map { (psql_finish($_))[1] =~ /^(t|f)$/m } @racers;

	is(scalar(grep { $_ eq 't' } @answers), 1, "round $round: one of 16 gets the name");
	is(scalar(@answers), 16, 'and all are answered');
}
is( $node->safe_psql('postgres', q(SELECT count(*), count(DISTINCT tag) FROM es_event_tag WHERE tag ^@ 'name:')),
	'5|5', 'each name is taken once');

$node->stop;
done_testing();
