-- courses.sql: students subscribe to courses.
--
-- For psql, in a fresh database: psql -d school -f test/examples/courses.sql
-- Prints no times and no ids, so that its output can be compared.
--
-- Two rules that no single stream can keep: a course has so many seats, and a
-- student takes at most three courses.  Each subscription depends on events of
-- a course and on events of a student; that is its boundary.

\set ON_ERROR_STOP on
\pset footer off
\set QUIET on

CREATE EXTENSION eventstore;

-- What the events concern is in their data, and becomes their tags.
SELECT es_create_event_type('CourseDefined', tags => ARRAY['course:{courseId}'],
	check_expression => $$ (event.data -> 'capacity')::int > 0 AND event.data ? 'courseId' $$) \g /dev/null
SELECT es_create_event_type('CourseCapacityChanged', tags => ARRAY['course:{courseId}'],
	check_expression => $$ (event.data -> 'capacity')::int > 0 $$) \g /dev/null
SELECT es_create_event_type('StudentSubscribed', tags => ARRAY['course:{courseId}', 'student:{studentId}']) \g /dev/null
SELECT es_create_event_type('StudentLeft', tags => ARRAY['course:{courseId}', 'student:{studentId}']) \g /dev/null

-- The course by itself.
CREATE TYPE course AS (capacity int, taken int);

SELECT es_create_aggregate('course', initial_state => '{"taken": 0}', state_type => 'course',
	boundary => '{"items": [{"tags": ["course:{courseId}"]}]}') \g /dev/null
SELECT es_evolve('course', 'CourseDefined', $$ ((event.data -> 'capacity')::int, state.taken) $$) \g /dev/null
SELECT es_evolve('course', 'CourseCapacityChanged', $$ ((event.data -> 'capacity')::int, state.taken) $$) \g /dev/null
SELECT es_evolve('course', 'StudentSubscribed', $$ (state.capacity, state.taken + 1) $$) \g /dev/null
SELECT es_evolve('course', 'StudentLeft', $$ (state.capacity, state.taken - 1) $$) \g /dev/null

SELECT es_decide('course', 'DefineCourse',
	query  => $$ SELECT 'CourseDefined', command, 'course-' || (command ->> 'courseId') AS stream_id $$,
	reject => $$ CASE WHEN state.capacity IS NOT NULL THEN 'course exists already' END $$) \g /dev/null
SELECT es_decide('course', 'ChangeCapacity',
	query  => $$ SELECT 'CourseCapacityChanged', command, 'course-' || (command ->> 'courseId') AS stream_id
				 WHERE (command -> 'capacity')::int <> state.capacity $$,
	reject => $$ CASE WHEN state.capacity IS NULL THEN 'no such course'
					  WHEN (command -> 'capacity')::int < state.taken THEN 'more seats are taken' END $$) \g /dev/null

-- A subscription: what the course has room for, and what the student takes.
-- The expressions see the command, and so for which of the two an event counts.
CREATE TYPE subscription AS (capacity int, taken int, courses int, there boolean);

SELECT es_create_aggregate('subscription', initial_state => '{"taken": 0, "courses": 0, "there": false}',
	state_type => 'subscription',
	boundary => '{"items": [
		{"types": ["CourseDefined", "CourseCapacityChanged", "StudentSubscribed", "StudentLeft"], "tags": ["course:{courseId}"]},
		{"types": ["StudentSubscribed", "StudentLeft"], "tags": ["student:{studentId}"]}]}') \g /dev/null

CREATE FUNCTION of_course(data jsonb, command jsonb) RETURNS int LANGUAGE sql IMMUTABLE
	RETURN (data -> 'courseId' = command -> 'courseId')::int;
CREATE FUNCTION of_student(data jsonb, command jsonb) RETURNS int LANGUAGE sql IMMUTABLE
	RETURN (data -> 'studentId' = command -> 'studentId')::int;

SELECT es_evolve('subscription', 'CourseDefined',
	$$ ((event.data -> 'capacity')::int, state.taken, state.courses, state.there) $$) \g /dev/null
SELECT es_evolve('subscription', 'CourseCapacityChanged',
	$$ ((event.data -> 'capacity')::int, state.taken, state.courses, state.there) $$) \g /dev/null
SELECT es_evolve('subscription', 'StudentSubscribed',
	$$ (state.capacity, state.taken + of_course(event.data, command), state.courses + of_student(event.data, command),
		state.there OR of_course(event.data, command) + of_student(event.data, command) = 2) $$) \g /dev/null
SELECT es_evolve('subscription', 'StudentLeft',
	$$ (state.capacity, state.taken - of_course(event.data, command), state.courses - of_student(event.data, command),
		state.there AND of_course(event.data, command) + of_student(event.data, command) < 2) $$) \g /dev/null

SELECT es_decide('subscription', 'Subscribe',
	query  => $$ SELECT 'StudentSubscribed', command $$,
	reject => $$ CASE WHEN state.capacity IS NULL THEN 'no such course'
					  WHEN state.there THEN 'subscribed already'
					  WHEN state.taken >= state.capacity THEN 'course is full'
					  WHEN state.courses >= 3 THEN 'three courses are enough' END $$) \g /dev/null
SELECT es_decide('subscription', 'Leave',
	query  => $$ SELECT 'StudentLeft', command $$,
	reject => $$ CASE WHEN NOT state.there THEN 'not subscribed' END $$) \g /dev/null

\echo 'The rules, tested: given these events, when that command comes, then this.'
\echo

\pset tuples_only on
\pset format unaligned
SELECT es_test('course', '[]', 'DefineCourse', '{"courseId": "c1", "capacity": 10}',
	then_events => '[{"type": "CourseDefined", "tags": ["course:c1"]}]');
SELECT es_test('course', '[{"type": "CourseDefined", "data": {"courseId": "c1", "capacity": 10}}]',
	'DefineCourse', '{"courseId": "c1", "capacity": 15}', then_error => 'course exists already');
SELECT es_test('course', '[{"type": "CourseDefined", "data": {"courseId": "c1", "capacity": 10}}]',
	'ChangeCapacity', '{"courseId": "c1", "capacity": 10}', then_events => '[]');
SELECT es_test('subscription', '[]', 'Subscribe', '{"courseId": "c0", "studentId": "s1"}', then_error => 'no such course');
SELECT es_test('subscription', '[{"type": "CourseDefined", "data": {"courseId": "c1", "capacity": 1}},
								 {"type": "StudentSubscribed", "data": {"courseId": "c1", "studentId": "s1"}}]',
	'Subscribe', '{"courseId": "c1", "studentId": "s2"}', then_error => 'course is full');
SELECT es_test('subscription', '[{"type": "CourseDefined", "data": {"courseId": "c1", "capacity": 1}},
								 {"type": "StudentSubscribed", "data": {"courseId": "c1", "studentId": "s1"}},
								 {"type": "StudentLeft", "data": {"courseId": "c1", "studentId": "s1"}}]',
	'Subscribe', '{"courseId": "c1", "studentId": "s2"}',
	then_events => '[{"type": "StudentSubscribed", "tags": ["course:c1", "student:s2"]}]');
SELECT es_test('subscription', '[{"type": "CourseDefined", "data": {"courseId": "c4", "capacity": 9}},
								 {"type": "StudentSubscribed", "data": {"courseId": "c1", "studentId": "s1"}},
								 {"type": "StudentSubscribed", "data": {"courseId": "c2", "studentId": "s1"}},
								 {"type": "StudentSubscribed", "data": {"courseId": "c3", "studentId": "s1"}}]',
	'Subscribe', '{"courseId": "c4", "studentId": "s1"}', then_error => 'three courses are enough');
SELECT es_test_done();
\pset format aligned
\pset tuples_only off

\echo
\echo 'Commands.  A course and a student need no stream that both share.'
\echo

SELECT es_handle(NULL, 'DefineCourse', jsonb_build_object('courseId', c, 'capacity', 2), aggregate => 'course') AS "position"
	FROM unnest('{art,biology,chess,drama}'::text[]) c;
SELECT es_handle(NULL, 'Subscribe', jsonb_build_object('courseId', c, 'studentId', 'ada'), aggregate => 'subscription') AS "position"
	FROM unnest('{art,biology,chess}'::text[]) c;
SELECT es_handle(NULL, 'Subscribe', '{"courseId": "art", "studentId": "bob"}', aggregate => 'subscription',
				 command_id => '0190b5a2-7e4c-7c3a-9d1e-5f0c2b8a4d10') AS "position";

\echo 'Sent twice under one id, it is handled once.'
\echo

SELECT es_handle(NULL, 'Subscribe', '{"courseId": "art", "studentId": "bob"}', aggregate => 'subscription',
				 command_id => '0190b5a2-7e4c-7c3a-9d1e-5f0c2b8a4d10') AS "position";

\echo 'What the rules forbid is rejected, whichever of the two it is for.'
\echo

\set ON_ERROR_STOP off
\set VERBOSITY terse
SELECT es_handle(NULL, 'Subscribe', '{"courseId": "art", "studentId": "cyd"}', aggregate => 'subscription');
\echo 'SQLSTATE:' :SQLSTATE
SELECT es_handle(NULL, 'Subscribe', '{"courseId": "drama", "studentId": "ada"}', aggregate => 'subscription');
SELECT es_handle(NULL, 'Subscribe', '{"courseId": "art", "studentId": "ada"}', aggregate => 'subscription');
SELECT es_handle(NULL, 'Subscribe', '{"courseId": "zoo", "studentId": "bob"}', aggregate => 'subscription');
SELECT es_handle(NULL, 'ChangeCapacity', '{"courseId": "art", "capacity": 1}', aggregate => 'course');
SELECT es_handle(NULL, 'DefineCourse', '{"courseId": "art", "capacity": 5}', aggregate => 'course');
SELECT es_handle(NULL, 'Subscribe', '{"courseId": "art"}', aggregate => 'subscription');
\set ON_ERROR_STOP on
\set VERBOSITY default

\echo
\echo 'Ada leaves art: cyd can have the seat, and she a place in drama.'
\echo

SELECT es_handle(NULL, 'Leave', '{"courseId": "art", "studentId": "ada"}', aggregate => 'subscription') AS "position";
SELECT es_handle(NULL, 'Subscribe', '{"courseId": "art", "studentId": "cyd"}', aggregate => 'subscription') AS "position";
SELECT es_handle(NULL, 'Subscribe', '{"courseId": "drama", "studentId": "ada"}', aggregate => 'subscription') AS "position";

\echo 'What a decision goes by, now, step by step and as it was.'
\echo

SELECT state FROM es_boundary_state('subscription', '{"courseId": "art", "studentId": "ada"}');
SELECT "position", event_type, tags, state FROM es_boundary_history('course', '{"courseId": "art"}');
SELECT state FROM es_boundary_state('course', '{"courseId": "art"}', at_position => 7);

\echo 'What would happen? Nothing is appended.'
\echo

SELECT event_type, tags, rejection FROM es_decide_dry(NULL, 'Subscribe', '{"courseId": "drama", "studentId": "bob"}', 'subscription');
SELECT rejection FROM es_decide_dry(NULL, 'Subscribe', '{"courseId": "biology", "studentId": "ada"}', 'subscription');

\echo 'Decided elsewhere: the state by the server, the decision by the application, which appends if the boundary is the same.'
\echo

SELECT after FROM es_boundary_state('course', '{"courseId": "chess"}') \gset
SELECT appended FROM es_try_append_if(
	'[{"type": "CourseCapacityChanged", "stream": "course-chess", "data": {"courseId": "chess", "capacity": 9}}]',
	'{"items": [{"tags": ["course:chess"]}]}', :after);
SELECT appended, conflict_type FROM es_try_append_if(
	'[{"type": "CourseCapacityChanged", "stream": "course-chess", "data": {"courseId": "chess", "capacity": 8}}]',
	'{"items": [{"tags": ["course:chess"]}]}', :after);

\echo 'The seats that are taken, counted from the events; and the store is sound.'
\echo

SELECT data ->> 'courseId' AS course, sum(CASE event_type WHEN 'StudentSubscribed' THEN 1 WHEN 'StudentLeft' THEN -1 ELSE 0 END) AS taken
	FROM es_event GROUP BY 1 ORDER BY 1;
SELECT count(*) FILTER (WHERE status <> 'ok') AS problems FROM es_check();
