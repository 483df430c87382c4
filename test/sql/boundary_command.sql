-- boundary_command: commands that are decided on a boundary
CREATE EXTENSION eventstore;
CREATE TYPE seats AS (capacity int, taken int, mine int, twice boolean);

-- Tags come from the types of the events.
SELECT es_create_event_type(t, tags => ARRAY['course:{course}', 'student:{student}']) FROM unnest('{Defined,Changed,Subscribed,Left}'::text[]) t;
SELECT es_create_aggregate('subscription', initial_state => '{"taken": 0, "mine": 0, "twice": false}', state_type => 'seats',
	boundary => '{"items": [{"types": ["Defined", "Changed", "Subscribed", "Left"], "tags": ["course:{course}"]},
		{"types": ["Subscribed", "Left"], "tags": ["student:{student}"]}]}');
SELECT es_evolve('subscription', 'Defined', '((event.data -> ''capacity'')::int, state.taken, state.mine, state.twice)');
SELECT es_evolve('subscription', 'Changed', '((event.data -> ''capacity'')::int, state.taken, state.mine, state.twice)');
-- an expression sees the command, and so which of the items an event is for
SELECT es_evolve('subscription', 'Subscribed', $$(state.capacity,
	state.taken + (event.data -> 'course' = command -> 'course')::int,
	state.mine + (event.data -> 'student' = command -> 'student')::int,
	state.twice OR event.data @> jsonb_build_object('course', command -> 'course', 'student', command -> 'student'))$$);
SELECT es_decide('subscription', 'Subscribe',
	query => $$SELECT 'Subscribed', command, 'student-' || (command ->> 'student') AS stream_id$$,
	reject => $$CASE WHEN state.capacity IS NULL THEN 'no such course' WHEN state.twice THEN 'subscribed already'
		WHEN state.taken >= state.capacity THEN 'course is full' WHEN state.mine >= 2 THEN 'too many courses' END$$);

SELECT es_append('course-' || c, 'Defined', jsonb_build_object('course', c, 'capacity', 2)) FROM unnest('{a,b,c}'::text[]) c;
SELECT es_append('course-a', 'Changed', '{"course": "a", "capacity": 3}');
-- The position of the last event is the answer.
SELECT es_handle(NULL, 'Subscribe', '{"course": "a", "student": 1}', aggregate => 'subscription') = es_last_position() AS last;
SELECT es_handle(NULL, 'Subscribe', '{"course": "b", "student": 1}', aggregate => 'subscription');
SELECT position, stream_id, version, event_type, data, tags FROM es_read_all(4);
SELECT * FROM es_boundary_state('subscription', '{"course": "a", "student": 1}');
SELECT * FROM es_boundary_state('subscription', '{"course": "a", "student": 2}');
SELECT es_handle(NULL, 'Subscribe', '{"course": "c", "student": 1}', aggregate => 'subscription');
SELECT es_handle(NULL, 'Subscribe', '{"course": "a", "student": 1}', aggregate => 'subscription');
SELECT es_handle(NULL, 'Subscribe', '{"course": "x", "student": 1}', aggregate => 'subscription');
SELECT es_handle(NULL, 'Subscribe', jsonb_build_object('course', 'b', 'student', s), aggregate => 'subscription') FROM generate_series(2, 3) s;
SELECT es_handle(NULL, 'Subscribe', '{"course": "b", "student": 2}', aggregate => 'subscription');

-- Time travel, and every step.
SELECT state FROM es_boundary_state('subscription', '{"course": "a", "student": 1}', at_position => 4);
SELECT state FROM es_boundary_state('subscription', '{"course": "a", "student": 1}', at_position => 1);
SELECT after, state FROM es_boundary_state('subscription', '{"course": "a", "student": 1}', at_position => 0);
SELECT state FROM es_boundary_state('subscription', '{"course": "a", "student": 1}',
	at => (SELECT recorded_at FROM es_event WHERE position = 5));
SELECT state FROM es_boundary_state('subscription', '{"course": "a", "student": 1}', at => '-infinity');
SELECT position, stream_id, event_type, tags, state FROM es_boundary_history('subscription', '{"course": "a", "student": 1}');
SELECT position FROM es_boundary_history('subscription', '{"course": "a", "student": 1}', at_position => 4);

-- The state's position is good for a condition of one's own.
SELECT appended FROM es_boundary_state('subscription', '{"course": "c", "student": 9}') b,
	es_try_append_if('[{"type": "Left", "data": {"course": "c"}}]', '{"items": [{"tags": ["course:c"]}]}', b.after);

-- A command is handled once under its id; without a stream it is the same as any without.
SELECT es_handle(NULL, 'Subscribe', '{"course": "c", "student": 5}', '00000000-0000-0000-0000-000000000001', 'subscription') AS answer \gset
SELECT es_handle(NULL, 'Subscribe', '{"course": "c", "student": 5}', '00000000-0000-0000-0000-000000000001', 'subscription') = :answer AS same;
SELECT es_handle('s-1', 'Subscribe', '{"course": "c", "student": 5}', '00000000-0000-0000-0000-000000000001', 'subscription');
SELECT command_type, stream_id, version = :answer AS answered FROM es_command;
SELECT metadata ->> 'causation_id' AS cause FROM es_event WHERE position = :answer;

-- Streams: the decider's, the command's, or one of the event's own.  Without events, the last position.
SELECT es_decide('subscription', 'Note', 'SELECT * FROM (VALUES (''Noted'', command, NULL::jsonb, ARRAY[''extra:1''], ''note-1''),
	(''Noted'', command, NULL, NULL, NULL)) v WHERE command ? ''note''');
SELECT es_handle('here-1', 'Note', '{"course": "a", "student": 1, "note": 1}', aggregate => 'subscription') - es_last_position() AS zero;
SELECT es_handle(NULL, 'Note', '{"course": "a", "student": 1, "note": 2}', aggregate => 'subscription') - es_last_position() AS zero;
SELECT regexp_replace(stream_id, '[0-9a-f]{8}-.*', 'id') AS stream_id, version, data -> 'note' AS note, tags
	FROM es_event WHERE event_type = 'Noted' ORDER BY position;
SELECT es_handle(NULL, 'Note', '{"course": "a", "student": 1}', aggregate => 'subscription') AS last;
SELECT es_handle(NULL, 'Note', '{"course": "x", "student": 8}', aggregate => 'subscription') AS last;

-- What would it do?
SELECT * FROM es_decide_dry(NULL, 'Subscribe', '{"course": "c", "student": 3}', 'subscription');
SELECT rejection FROM es_decide_dry(NULL, 'Subscribe', '{"course": "b", "student": 1}', 'subscription');
SELECT es_test('subscription', '[{"type": "Defined", "data": {"course": "a", "capacity": 1}},
	{"type": "Subscribed", "data": {"course": "b", "student": 7}}]', 'Subscribe', '{"course": "a", "student": 1}',
	then_events => '[{"type": "Subscribed", "tags": ["student:1", "course:a"]}]', description => 'events of others do not count');
SELECT es_test('subscription', '[{"type": "Defined", "data": {"course": "a", "capacity": 1}},
	{"type": "Subscribed", "data": {}, "tags": ["course:a"]}]', 'Note', '{"course": "a", "student": 1, "note": 1}',
	then_events => '[{"type": "Noted", "tags": ["extra:2"]}, {"type": "Noted", "tags": []}]', description => 'tags are compared');
SELECT es_test('subscription', '[{"type": "Defined", "data": {"course": "a", "capacity": 1}},
	{"type": "Subscribed", "data": {"course": "a", "student": 7}}]', 'Subscribe', '{"course": "a", "student": 1}',
	then_error => 'course is full');
SELECT es_test_done();

-- What the command must have.
SELECT es_handle(NULL, 'Subscribe', '{"course": "a"}', aggregate => 'subscription');
SELECT es_handle(NULL, 'Subscribe', '{"course": null, "student": 1}', aggregate => 'subscription');
SELECT es_handle(NULL, 'Subscribe', '{"course": {"id": 1}, "student": 1}', aggregate => 'subscription');
SELECT es_handle(NULL, 'Subscribe', '{"course": [1, null], "student": 1}', aggregate => 'subscription');
SELECT es_boundary_state('subscription', jsonb_build_object('course', repeat('x', 256), 'student', 1));
SELECT es_boundary_state('subscription', '7');
SELECT es_handle(NULL, 'Subscribe', '{"course": "a", "student": 1}');
SELECT es_handle(NULL, 'Nothing', '{"course": "a", "student": 1}', aggregate => 'subscription');

-- An array is an item for each element; an empty one none.
SELECT es_create_aggregate('sum', initial_state => '0', state_type => 'bigint',
	boundary => '{"items": [{"tags": ["course:{courses}"], "types": ["Defined"]}, {"tags": ["{kind}:{who.id}", "course:{courses}"]}]}');
SELECT es_evolve('sum', 'Defined', 'state + 1');
SELECT es_evolve('sum', 'Subscribed', 'state + 100');
SELECT c, (es_boundary_state('sum', c::jsonb)).state FROM unnest(ARRAY[
	'{"courses": ["a", "b", "a"], "kind": "student", "who": {"id": 1}}',
	'{"courses": ["a", "b"], "kind": ["student"], "who": {"id": [1, 2]}}',
	'{"courses": "c", "kind": "student", "who": {"id": 5.0}}']) c;
SELECT es_boundary_state('sum', '{"courses": [], "kind": "student", "who": {"id": 1}}');
SELECT es_boundary_state('sum', jsonb_build_object('courses', (SELECT jsonb_agg(n) FROM generate_series(1, 257) n), 'kind', 'a', 'who', '{"id": 1}'::jsonb));

-- A boundary without tags is guarded by the gate.
SELECT es_create_aggregate('invoice', initial_state => '0', state_type => 'bigint', boundary => '{"items": [{"types": ["Invoiced"]}]}');
SELECT es_evolve('invoice', 'Invoiced', '(event.data -> ''number'')::bigint');
SELECT es_decide('invoice', 'Invoice', 'SELECT ''Invoiced'', jsonb_build_object(''number'', state + 1)');
SELECT count(es_handle(NULL, 'Invoice', aggregate => 'invoice')) FROM generate_series(1, 3);
SELECT state FROM es_boundary_state('invoice', '{}');
SELECT array_agg(data -> 'number' ORDER BY position) FROM es_event WHERE event_type = 'Invoiced';

-- What is no boundary, and what a boundary is not for.
SELECT es_create_aggregate('bad', boundary => '{"item": []}');
SELECT es_create_aggregate('bad', boundary => '{"items": [{"tags": ["x:{"]}]}');
SELECT es_create_aggregate('bad', category => 'bad', boundary => '{}');
SELECT es_decide('subscription', 'Bad', 'SELECT ''X'', command, ''s'' AS stream_id, ''t'' AS stream_id');
SELECT es_decide('subscription', 'Bad', 'SELECT ''X'', command, 1 AS stream_id');
SELECT es_create_aggregate('plain', state_type => 'bigint', initial_state => '0');
SELECT es_decide('plain', 'Bad', 'SELECT ''X'', command, ''s'' AS stream_id');
SELECT es_decide('plain', 'Bad', 'SELECT ''X'', command, NULL::jsonb, NULL::text[], ''s''');
SELECT es_evolve('plain', 'X', '(command -> ''x'')::bigint');
SELECT es_boundary_state('plain', '{}');
SELECT es_boundary_state('nobody', '{}');
SELECT es_state('here-1', aggregate => 'subscription');
SELECT es_history('here-1', aggregate => 'subscription');
SELECT es_take_snapshot('here-1', 'subscription');
SELECT es_state('subscription-1');
SELECT es_decide('plain', 'X', 'SELECT ''X'', command');
SELECT es_handle(NULL, 'X', aggregate => 'plain');
SELECT es_decide_dry(NULL, 'X', aggregate => 'plain');
-- One may become the other, if the expressions fit.
SELECT es_create_aggregate('subscription', state_type => 'seats', or_replace => true);
SELECT es_create_aggregate('invoice', initial_state => '0', state_type => 'bigint', or_replace => true);
SELECT state FROM es_state('invoice-1');
SELECT es_create_aggregate('invoice', initial_state => '40', state_type => 'bigint', boundary => '{"items": [{"types": ["Nothing"]}]}', or_replace => true);
SELECT es_handle('invoice-1', 'Invoice', aggregate => 'invoice') > 0 AS handled;
SELECT data FROM es_read_stream('invoice-1');
SELECT check_name, status FROM es_check() WHERE status <> 'ok';

DROP EXTENSION eventstore;
DROP TYPE seats;
