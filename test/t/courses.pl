# Sixteen that give commands on the same courses and students at once, at every
# isolation level: no course ever has more students than seats, no student more
# than three courses, nobody is told of a deadlock, and at READ COMMITTED nobody
# is told to try again.
#
# The rules are those of test/examples/courses.sql.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use EsTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $seconds = $ENV{ES_STRESS_SECONDS} // 4;
my $node = PostgreSQL::Test::Cluster->new('main');

$node->init;
$node->append_conf('postgresql.conf',
	"max_connections = 40\nfsync = off\nautovacuum = off\ndeadlock_timeout = 50ms\n");
$node->start;
is($node->psql('postgres', "\\i $FindBin::RealBin/../examples/courses.sql"), 0, 'the example');

$node->safe_psql('postgres', <<'SQL');
SELECT es_handle(NULL, 'DefineCourse', jsonb_build_object('courseId', c, 'capacity', 3), aggregate => 'course')
	FROM generate_series(1, 6) c;

-- One decision on two courses: both boundaries, an item for each.
SELECT es_create_aggregate('swap', state_type => 'subscription', initial_state => '{"taken": 0, "there": false}',
	boundary => '{"items": [
		{"types": ["CourseDefined", "CourseCapacityChanged", "StudentSubscribed", "StudentLeft"], "tags": ["course:{courses}"]},
		{"types": ["StudentSubscribed", "StudentLeft"], "tags": ["student:{studentId}"]}]}');
CREATE FUNCTION to_course(command jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE
	RETURN command || jsonb_build_object('courseId', command -> 'courses' -> 1);
CREATE FUNCTION from_course(command jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE
	RETURN command || jsonb_build_object('courseId', command -> 'courses' -> 0);
-- courses: 1 where the student is in the first, 2 where in the second, 3 in both
SELECT es_evolve('swap', t, $$ (CASE WHEN of_course(event.data, to_course(command)) = 1 THEN (event.data -> 'capacity')::int ELSE state.capacity END,
	state.taken, state.courses, state.there) $$) FROM unnest('{CourseDefined,CourseCapacityChanged}'::text[]) t;
SELECT es_evolve('swap', t, replace($$ (state.capacity, state.taken + SIGN * of_course(event.data, to_course(command)),
	coalesce(state.courses, 0) + SIGN * of_student(event.data, command) *
		(of_course(event.data, from_course(command)) + 2 * of_course(event.data, to_course(command))), state.there) $$, 'SIGN', s))
	FROM (VALUES ('StudentSubscribed', '1'), ('StudentLeft', '-1')) v(t, s);
SELECT es_decide('swap', 'Swap', $$ VALUES
	('StudentLeft', from_course(command) - 'courses'),
	('StudentSubscribed', to_course(command) - 'courses') $$,
	$$ CASE WHEN state.courses IS DISTINCT FROM 1 THEN 'not subscribed' WHEN state.taken >= state.capacity THEN 'course is full' END $$);

-- A decision whose tags nobody can know before: those of two other courses.
SELECT es_decide('course', 'Recommend', $$ SELECT 'Recommended', command, ARRAY['course:' || (command ->> 'a'), 'course:' || (command ->> 'b')] AS tags $$);
-- The same by the command of a stream.
SELECT es_create_aggregate('note');
SELECT es_decide('note', 'Recommend', $$ SELECT 'Recommended', command, ARRAY['course:' || (command ->> 'a'), 'course:' || (command ->> 'b')] AS tags $$);

CREATE TABLE outcome (command text, answer text);
CREATE FUNCTION attempt(aggregate text, type text, command jsonb, stream text = NULL) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM es_handle(stream, type, command, aggregate => aggregate);
	INSERT INTO outcome VALUES (type, 'handled');
EXCEPTION WHEN raise_exception THEN
	INSERT INTO outcome VALUES (type, SQLERRM);
END $$;
-- Decided by the client: the state from here, the append if it is still true.
CREATE FUNCTION widen(course int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	b record;
	r record;
BEGIN
	SELECT * INTO b FROM es_boundary_state('course', jsonb_build_object('courseId', course));
	PERFORM pg_sleep(0.001);
	SELECT * INTO r FROM es_try_append_if(jsonb_build_array(jsonb_build_object('type', 'CourseCapacityChanged', 'data',
			jsonb_build_object('courseId', course, 'capacity', greatest((b.state ->> 'taken')::int, 1)))),
		jsonb_build_object('items', jsonb_build_array(jsonb_build_object('tags', jsonb_build_array('course:' || course)))), b.after);
	INSERT INTO outcome VALUES ('widen', r.appended);
END $$;

-- Every state of affairs that there has been, one after the other.
CREATE FUNCTION judge() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	e record;
	capacity int[] := array_fill(0, '{6}');
	taken int[] := array_fill(0, '{6}');
	courses int[] := array_fill(0, '{20}');
	pairs int[] := array_fill(0, '{120}');
	c int;
	s int;
	sign int;
BEGIN
	FOR e IN SELECT position, event_type, data FROM es_event
		WHERE data ->> 'courseId' ~ '^\d+$' AND event_type <> 'Recommended' ORDER BY position
	LOOP
		c := e.data ->> 'courseId';
		IF e.data ? 'capacity' THEN
			capacity[c] := e.data ->> 'capacity';
		ELSE
			s := e.data ->> 'studentId';
			sign := CASE e.event_type WHEN 'StudentSubscribed' THEN 1 ELSE -1 END;
			taken[c] := taken[c] + sign;
			courses[s] := courses[s] + sign;
			pairs[c * 20 - 20 + s] := pairs[c * 20 - 20 + s] + sign;
			IF courses[s] > 3 OR pairs[c * 20 - 20 + s] NOT IN (0, 1) THEN
				RETURN format('student %s at position %s: %s courses, %s of %s', s, e.position, courses[s], pairs[c * 20 - 20 + s], c);
			END IF;
		END IF;
		IF taken[c] > capacity[c] THEN
			RETURN format('course %s at position %s: %s of %s', c, e.position, taken[c], capacity[c]);
		END IF;
	END LOOP;
	RETURN 'sound';
END $$;
SQL

# The scripts, each with a weight.  Those in a transaction hold their locks for
# a random while.
my $pick = "\\set c random(1, 6)\n\\set d random(1, 6)\n\\set s random(1, 20)\n\\set pause random(0, 4)\n";
my $student = q(jsonb_build_object('courseId', :c, 'studentId', :s));
my %script = (
	'subscribe@10' => "SELECT attempt('subscription', 'Subscribe', $student);",
	'leave@5' => "SELECT attempt('subscription', 'Leave', $student);",
	'change@2' => "SELECT attempt('course', 'ChangeCapacity', jsonb_build_object('courseId', :c, 'capacity', 1 + :d));",
	'swap@4' => "SELECT attempt('swap', 'Swap', jsonb_build_object('courses', jsonb_build_array(:c, :d), 'studentId', :s)) WHERE :c <> :d;",
	'recommend@2' => "SELECT attempt('course', 'Recommend', jsonb_build_object('courseId', :c, 'a', :d, 'b', :c % 6 + 1));",
	'note@2' => "SELECT attempt('note', 'Recommend', jsonb_build_object('a', :c, 'b', :d), 'note-' || :s % 3);",
	'widen@2' => 'SELECT widen(:c);',
	'held@3' => "BEGIN;\nSELECT attempt('subscription', 'Subscribe', $student);\n\\sleep :pause ms\nCOMMIT;",
	'undone@2' => "BEGIN;\nSAVEPOINT s;\nSELECT attempt('subscription', 'Subscribe', $student);\n\\sleep :pause ms\nROLLBACK TO s;\n\\sleep :pause ms\nCOMMIT;",
	'gate@1' => "BEGIN;\nSET LOCAL eventstore.max_stream_locks = 0;\nSELECT attempt('subscription', 'Subscribe', $student);\n\\sleep :pause ms\nCOMMIT;");
my @files;
foreach my $name (sort keys %script)
{
	my ($base, $weight) = split /@/, $name;
	my $file = $node->basedir . "/$base.sql";

	append_to_file($file, $pick . $script{$name});
	push @files, '-f', "$file\@$weight";
}

foreach my $level ('read committed', 'repeatable read', 'serializable')
{
	my ($out, $err);
	my $tries = $level eq 'read committed' ? 1 : 1000;
	my $ok = IPC::Run::run(
		[
			$node->installed_command('pgbench'), '-n', '-c', 16, '-j', 2, '-T', $seconds,
			"--max-tries=$tries", @files,
			$node->connstr('postgres') . " options='-c default_transaction_isolation=" . ($level =~ s/ /\\\\ /r) . "'"
		],
		'>', \$out, '2>', \$err,
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	my ($transactions) = $out =~ /actually processed: (\d+)/;

	ok($ok && $err !~ /aborted|ERROR/, "16 racers at $level ($transactions transactions)")
	  or diag $err;
	is($out =~ /failed transactions: ([1-9]\d*)/ ? $1 : 0, 0,
		$tries == 1 ? 'none is told to try again' : 'all come through');
	is($node->safe_psql('postgres', 'SELECT judge()'), 'sound', 'no course was ever too full, no student too busy');
}
unlike(slurp_file($node->logfile), qr/deadlock detected/, 'no deadlock at any level');

# The judge has something to judge.
cmp_ok($node->safe_psql('postgres', "SELECT count(*) FROM outcome WHERE command = '$_->[0]' AND answer = '$_->[1]'"),
	'>', 5, "$_->[0]: $_->[1]")
  foreach [ 'Subscribe', 'handled' ], [ 'Subscribe', 'course is full' ], [ 'Subscribe', 'three courses are enough' ],
  [ 'Leave', 'handled' ], [ 'Swap', 'handled' ], [ 'Swap', 'course is full' ], [ 'ChangeCapacity', 'handled' ],
  [ 'ChangeCapacity', 'more seats are taken' ], [ 'Recommend', 'handled' ], [ 'widen', 'true' ], [ 'widen', 'false' ];
$node->safe_psql('postgres', q(INSERT INTO es_event (stream_id, event_type, data)
	SELECT 'rogue-' || n, 'StudentSubscribed', jsonb_build_object('courseId', n % 6 + 1, 'studentId', 1) FROM generate_series(1, 8) n));
isnt($node->safe_psql('postgres', 'SELECT judge()'), 'sound', 'and would have noticed');
store_is_sound($node, 'store');

# Sixteen at once for the last seat, staggered or not: one gets it.
foreach my $round (1 .. 5)
{
	$node->safe_psql('postgres', "SELECT es_handle(NULL, 'DefineCourse', '{\"courseId\": \"r$round\", \"capacity\": 1}', aggregate => 'course')");
	my @racers = map {
		psql_start($node, "SELECT pg_sleep(0.001 * ($_ % $round));
			SELECT attempt('subscription', 'Subscribe', '{\"courseId\": \"r$round\", \"studentId\": \"x$_\"}');")
	} 1 .. 16;
	psql_finish($_) foreach @racers;
	is( $node->safe_psql('postgres', "SELECT count(*) FROM es_event WHERE data ->> 'courseId' = 'r$round' AND event_type = 'StudentSubscribed'"),
		'1', "round $round: one of 16 gets the seat");
}

# A dump takes the boundaries along.
my $copy = EsTest::new_store('copy', '');
my $dump = $node->basedir . '/dump.sql';

$copy->safe_psql('postgres', 'DROP EXTENSION eventstore');
command_ok([ 'pg_dump', '-f', $dump, $node->connstr('postgres') ], 'dump');
is($copy->psql('postgres', "\\set ON_ERROR_STOP 1\n\\i $dump"), 0, 'restore');
my $look = q(SELECT name, boundary FROM es_aggregate ORDER BY 1;
	SELECT es_boundary_state('subscription', '{"courseId": 1, "studentId": 1}'););
is($copy->safe_psql('postgres', $look), $node->safe_psql('postgres', $look), 'boundaries and their states are the same');
is( ($copy->psql('postgres', q(SELECT es_handle(NULL, 'Subscribe', '{"courseId": "r1", "studentId": "late"}', aggregate => 'subscription'))))[2]
	=~ /course is full/ ? 1 : 0, 1, 'and decide as before');

$copy->stop;
$node->stop;
done_testing();
