-- boundary: queries over types and tags, and appends that depend on them
CREATE EXTENSION eventstore;
CREATE FUNCTION found(query jsonb, VARIADIC args bigint[] DEFAULT '{0}') RETURNS text LANGUAGE sql AS
	$$ SELECT string_agg(position::text, ' ' ORDER BY position) FROM es_read(query, args[1]) $$;

SELECT es_append('c-1', 'CourseDefined', '{"capacity": 2}', tags => '{course:c1}');
SELECT es_append('c-2', 'CourseDefined', '{"capacity": 1}', tags => '{course:c2}');
SELECT es_append('s-1', 'Subscribed', '{}', tags => '{course:c1,student:s1,student:s2}');
SELECT es_append('s-1', 'Subscribed', '{}', tags => '{course:c2,student:s1}');
SELECT es_append('x-1', 'Other', '{}');
SELECT es_append('s-1', 'Unsubscribed', '{}', tags => '{course:c1,student:s1}');

-- Items are alternatives; in an item one of the types and all of the tags.
SELECT q, found(q::jsonb) FROM unnest(ARRAY[
	'{}',
	'{"items": [{}]}',
	'{"items": [{"types": [], "tags": []}]}',
	'{"items": [{"types": ["Subscribed"]}]}',
	'{"items": [{"types": ["Subscribed", "Other"]}]}',
	'{"items": [{"tags": ["course:c1"]}]}',
	'{"items": [{"tags": ["student:s1", "course:c1"]}]}',
	'{"items": [{"tags": ["student:s2", "student:s1"]}]}',
	'{"items": [{"tags": ["course:c1", "course:c2"]}]}',
	'{"items": [{"types": ["CourseDefined"], "tags": ["course:c1"]}, {"types": ["Subscribed"], "tags": ["student:s1"]}]}',
	'{"items": [{"tags": ["course:c1"]}, {"tags": ["student:s1"]}, {"types": ["Other"]}]}',
	'{"items": [{"tags": ["nobody"]}, {"types": ["Nothing"]}]}',
	'{"items": [{"tags": ["course:c1", "course:c1"], "types": ["Subscribed", "Subscribed"]}]}']) q;
-- From a position on, a number of them, backwards.
SELECT position FROM es_read('{"items": [{"tags": ["course:c1"]}]}', 1);
SELECT position FROM es_read('{"items": [{"tags": ["course:c1"]}]}', max_count => 2);
SELECT position FROM es_read('{"items": [{"tags": ["course:c1"]}]}', backwards => true);
SELECT position FROM es_read('{"items": [{"tags": ["course:c1"]}, {"types": ["Other"]}]}', 6, 2, true);
SELECT position FROM es_read('{}', 9223372036854775807);
SELECT position FROM es_read('{}', max_count => 0);
SELECT position, stream_id, tags FROM es_read('{"items": [{"tags": ["student:s2"]}]}');
SELECT after, cardinality(events), (events[2]).event_type FROM es_read_boundary('{"items": [{"tags": ["course:c1"]}]}');
SELECT after, events FROM es_read_boundary('{"items": [{"tags": ["nobody"]}]}');

-- The same as a plain query says, for every mix of items.
CREATE FUNCTION item(n int) RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_build_object('types', (SELECT coalesce(jsonb_agg(t), '[]') FROM (VALUES ('A', 1), ('B', 2)) v(t, b) WHERE n & b > 0),
		'tags', (SELECT coalesce(jsonb_agg(t), '[]') FROM (VALUES ('t:1', 4), ('t:2', 8), ('t:3', 16)) v(t, b) WHERE n & b > 0))
$$;
CREATE FUNCTION matches(e es_event, item jsonb) RETURNS boolean LANGUAGE sql AS $$
	SELECT (item->'types' = '[]' OR item->'types' ? e.event_type)
		AND coalesce(to_jsonb(e.tags), '[]') @> (item->'tags')
$$;
SELECT count(es_append('m-' || n, CASE n % 3 WHEN 0 THEN 'A' WHEN 1 THEN 'B' ELSE 'C' END, '1',
	tags => (SELECT array_agg('t:' || k) FROM generate_series(1, 3) k WHERE n % (k + 1) = 0)))
	FROM generate_series(1, 60) n;
SELECT count(*) AS queries, count(*) FILTER (WHERE got IS DISTINCT FROM wanted) AS wrong FROM (
	SELECT (SELECT array_agg(position ORDER BY position) FROM es_read(jsonb_build_object('items', jsonb_build_array(i, j)))) AS got,
		(SELECT array_agg(position ORDER BY position) FROM es_event e WHERE matches(e, i) OR matches(e, j)) AS wanted
	FROM (SELECT item(n) AS i, item(n * 7 % 32) AS j FROM generate_series(0, 31) n) q) r;
SELECT count(*) FILTER (WHERE got IS DISTINCT FROM wanted) AS wrong FROM (
	SELECT (SELECT array_agg(position) FROM es_read(jsonb_build_object('items', jsonb_build_array(i)), 40, 5, true)) AS got,
		(SELECT array_agg(position) FROM (SELECT position FROM es_event e WHERE matches(e, i) AND position < 40 ORDER BY 1 DESC LIMIT 5) p) AS wanted
	FROM (SELECT item(n) AS i FROM generate_series(0, 31) n) q) r;

-- What is no query.
SELECT es_read(NULL);
SELECT es_read('[]');
SELECT es_read('"all"');
SELECT es_read('{"item": []}');
\echo :LAST_ERROR_SQLSTATE
SELECT es_read('{"items": {}}');
SELECT es_read('{"items": []}');
SELECT es_read('{"items": [1]}');
SELECT es_read('{"items": [{"type": ["A"]}]}');
SELECT es_read('{"items": [{"types": "A"}]}');
SELECT es_read('{"items": [{"types": [1]}]}');
SELECT es_read('{"items": [{"tags": [""]}]}');
SELECT es_read('{"items": [{"tags": {"a": 1}}]}');
SELECT es_read(jsonb_build_object('items', (SELECT jsonb_agg(item(4)) FROM generate_series(1, 257))));
\echo :LAST_ERROR_SQLSTATE
SELECT es_read(jsonb_build_object('items', jsonb_build_array(jsonb_build_object('tags', (SELECT jsonb_agg(n::text) FROM generate_series(1, 65) n)))));
SELECT es_read('{}', -1);

-- Appends with a condition: 40001 with after, 23505 without.
SELECT es_append_if('[{"stream": "s-2", "type": "Subscribed", "data": {}, "tags": ["course:c2", "student:s2"]}]',
	'{"items": [{"tags": ["course:c2"]}]}', 4);
SELECT es_append_if('[{"stream": "s-2", "type": "Subscribed", "data": {}, "tags": ["course:c2", "student:s3"]}]',
	'{"items": [{"tags": ["course:c9"]}, {"types": ["Subscribed"], "tags": ["course:c2"]}]}', 4);
\echo :LAST_ERROR_SQLSTATE
SELECT es_append_if('[{"stream": "u-1", "type": "Registered", "data": {}, "tags": ["name:ada"]}]', '{"items": [{"tags": ["name:ada"]}]}');
SELECT es_append_if('[{"stream": "u-2", "type": "Registered", "data": {}, "tags": ["name:ada"]}]', '{"items": [{"tags": ["name:ada"]}]}');
\echo :LAST_ERROR_SQLSTATE
SELECT es_append_if('[{"stream": "u-2", "type": "Registered", "data": {}}]', '{"items": [{"types": ["Registered"]}]}');
SELECT es_append_if('[{"stream": "u-2", "type": "Registered", "data": {}}]', '{}', 5);
SELECT es_append_if('[{"stream": "u-2", "type": "Registered", "data": {}}]', '{}', es_settled_position());
SELECT es_append_if('[{"stream": "u-2", "type": "Registered", "data": {}}]', '{}', 9223372036854775807);
-- As a row.
SELECT * FROM es_try_append_if('[{"stream": "u-3", "type": "Registered", "data": {}, "tags": ["name:bob"]}]', '{"items": [{"tags": ["name:bob"]}]}');
SELECT * FROM es_try_append_if('[{"stream": "u-3", "type": "Registered", "data": {}, "tags": ["name:bob"]}]', '{"items": [{"tags": ["name:bob"]}]}');
SELECT * FROM es_try_append_if('[{"stream": "u-3", "type": "Registered", "data": {}}]', '{"items": [{"types": ["Registered"]}]}', 1);
SELECT count(*) FROM es_read_stream('u-3');
-- Without a condition, to several streams: one after the other in the log.
SELECT es_append_if('[{"stream": "a-1", "type": "A", "data": 1}, {"stream": "a-2", "type": "A", "data": 2, "metadata": {"k": 1}},
	{"stream": "a-1", "type": "A", "data": 3}, {"stream": "a-1", "type": "A", "data": null, "tags": null}]', NULL) = es_last_position() AS last;
SELECT stream_id, version, data, metadata FROM es_event WHERE stream_id ^@ 'a-' ORDER BY position;
-- Without a stream: one of its own, named after type and id.
SELECT es_append_if('[{"type": "Alone", "data": 1}, {"type": "Alone", "data": 2}]', NULL) = es_last_position() AS last;
SELECT version, stream_id = 'Alone-' || event_id AS named FROM es_event WHERE event_type = 'Alone';

-- The same boundary twice in one transaction: the answer is the next "after".
BEGIN;
SELECT es_append_if('[{"stream": "t-1", "type": "T", "data": 1, "tags": ["twice"]}]', '{"items": [{"tags": ["twice"]}]}', 0) AS after \gset
SELECT es_append_if('[{"stream": "t-1", "type": "T", "data": 2, "tags": ["twice"]}]', '{"items": [{"tags": ["twice"]}]}', :after) = :after + 1 AS next;
SELECT after AS after FROM es_read_boundary('{"items": [{"tags": ["twice"]}]}') \gset
SELECT es_append_if('[{"stream": "t-1", "type": "T", "data": 3, "tags": ["twice"]}]', '{"items": [{"tags": ["twice"]}]}', :after) = :after + 1 AS next;
SELECT es_append_if('[{"stream": "t-1", "type": "T", "data": 4, "tags": ["twice"]}]', '{"items": [{"tags": ["twice"]}]}', :after);
ROLLBACK;
-- In one statement, too.
SELECT appended FROM generate_series(1, 3) n, es_try_append_if(jsonb_build_array(jsonb_build_object('stream', 't-2', 'type', 'T', 'data', n, 'tags', '["once"]'::jsonb)),
	'{"items": [{"tags": ["once"]}]}') AS t;

-- Retries: the same ids answer what the first call answered, whatever the condition.
\set events '[{"stream": "r-1", "type": "R", "data": 1, "tags": ["r"], "id": "00000000-0000-0000-0000-00000000000a"}, {"type": "R", "data": 2, "id": "00000000-0000-0000-0000-00000000000b"}]'
SELECT es_append_if(:'events', '{"items": [{"tags": ["r"]}]}') AS first \gset
SELECT es_append_if(:'events', '{"items": [{"tags": ["r"]}]}') = :first AS again;
SELECT appended, position = :first AS again FROM es_try_append_if(:'events', '{}', 0);
SELECT count(*) FROM es_event WHERE event_type = 'R';
SELECT es_append_if((:'events'::jsonb) - 1 || '[{"type": "R", "data": 3, "id": "00000000-0000-0000-0000-00000000000c"}]', NULL);
SELECT es_append_if('[{"type": "R", "data": 3, "id": "00000000-0000-0000-0000-00000000000c"}]' || (:'events'::jsonb), NULL);
SELECT es_append_if('[{"stream": "r-1", "type": "R", "data": 9, "id": "00000000-0000-0000-0000-00000000000a"}]', NULL);
SELECT es_append_if('[{"type": "R", "data": 3, "id": "00000000-0000-0000-0000-00000000000c"}, {"type": "R", "data": 3}]', NULL);

-- What is no event.
SELECT es_append_if(NULL, '{}');
SELECT es_append_if('{}', '{}');
SELECT es_append_if('[]', '{}');
SELECT es_append_if('[1]', '{}');
\echo :LAST_ERROR_SQLSTATE
SELECT es_append_if('[{"data": 1}]', '{}');
SELECT es_append_if('[{"type": "A"}]', '{}');
SELECT es_append_if('[{"type": 1, "data": 1}]', '{}');
SELECT es_append_if('[{"type": "A", "data": 1, "tag": ["x"]}]', '{}');
SELECT es_append_if('[{"type": "A", "data": 1, "tags": "x"}]', '{}');
SELECT es_append_if('[{"type": "A", "data": 1, "metadata": 1}]', '{}');
SELECT es_append_if('[{"type": "A", "data": 1, "stream": ""}]', '{}');
SELECT es_append_if('[{"type": "A", "data": 1}]', '{}', -1);

-- A condition reads a few index entries, however many other events there are.
SELECT es_append_batch('n-1', array_agg('N'::text), array_agg('1'::jsonb), tags => array_agg(jsonb_build_array('noise', 'noise:' || n % 7)))
	FROM generate_series(1, 5000) n;
BEGIN;
SELECT es_append('p-1', 'P', '1', tags => '{p,noise}') > 0;
SELECT coalesce(sum(idx_tup_fetch), 0) AS before FROM pg_stat_xact_user_tables WHERE relname IN ('es_event', 'es_event_tag') \gset
SELECT appended FROM es_try_append_if('[{"stream": "p-2", "type": "P", "data": 1}]', '{"items": [{"tags": ["noise", "p"]}]}');
SELECT appended FROM es_try_append_if('[{"stream": "p-2", "type": "P", "data": 1}]', '{"items": [{"tags": ["absent", "noise"]}]}');
SELECT sum(idx_tup_fetch) - :before < 20 AS few FROM pg_stat_xact_user_tables WHERE relname IN ('es_event', 'es_event_tag');
ROLLBACK;

-- Inline projections run with conditional appends: their events and their failures.
CREATE TABLE seats (course text PRIMARY KEY, taken int NOT NULL CONSTRAINT capacity CHECK (taken <= 2), last bigint);
BEGIN;
SELECT es_create_projection('seats', 'inline', '{seats}');
SELECT es_on('seats', 'SeatTaken',
	$$INSERT INTO seats AS s VALUES (event.data ->> 'course', 1, event.position)
		ON CONFLICT (course) DO UPDATE SET taken = s.taken + 1, last = excluded.last$$);
SELECT es_on('seats', 'Tagged',
	$$UPDATE seats SET taken = (SELECT count(*) FROM es_event_tag t WHERE t.position = event.position)$$);
COMMIT;
CALL es_run_projections();
\set taken '[{"stream": "i-1", "type": "SeatTaken", "data": {"course": "a"}, "tags": ["seat:a"]}, {"type": "SeatTaken", "data": {"course": "b"}, "tags": ["seat:b"]}]'
SELECT es_append_if(:'taken', '{"items": [{"tags": ["seat:a"]}]}') AS after \gset
SELECT course, taken, :after - last AS behind FROM seats ORDER BY course;
SELECT appended FROM es_try_append_if(:'taken', '{"items": [{"tags": ["seat:a"]}]}');
SELECT appended FROM es_try_append_if(:'taken', '{"items": [{"tags": ["seat:a"]}]}', :after);
SELECT es_append_if('[{"type": "SeatTaken", "data": {"course": "c"}, "tags": ["seat:c"]}, {"type": "SeatTaken", "data": {"course": "b"}, "tags": ["seat:b"]}]', NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT course, taken FROM seats ORDER BY course;
SELECT found('{"items": [{"tags": ["seat:c"]}]}') AS none, (SELECT count(*) FROM es_event_tag WHERE tag = 'seat:b');
-- A retry does not run them again.
\set taken '[{"type": "SeatTaken", "data": {"course": "d"}, "id": "00000000-0000-0000-0000-00000000000d"}]'
SELECT es_append_if(:'taken', NULL) = es_append_if(:'taken', NULL) AS same;
SELECT taken FROM seats WHERE course = 'd';
-- A handler finds the tags of the event it runs for.
SELECT es_append_if('[{"type": "Tagged", "data": 1, "tags": ["x", "y"]}]', NULL) > 0;
SELECT DISTINCT taken FROM seats;
INSERT INTO es_event (stream_id, event_type, data, tags) VALUES ('i-2', 'Tagged', '1', '{x}');
SELECT DISTINCT taken FROM seats;
SELECT es_drop_projection('seats');
DROP TABLE seats;

-- Commands decide with tags, too, and a boundary has their events.
SELECT es_create_aggregate('seat');
SELECT es_decide('seat', 'Take', $$SELECT 'SeatTaken', '{"course": "e"}'::jsonb, NULL::jsonb, ARRAY['seat:e', 'hall']$$);
SELECT es_handle('seat-e', 'Take', '{}');
SELECT appended, conflict_tags FROM es_try_append_if('[{"type": "SeatTaken", "data": 1}]', '{"items": [{"tags": ["hall", "seat:e"]}]}');

-- Who may.
CREATE ROLE regress_es_writer;
GRANT INSERT ON es_event TO regress_es_writer;
GRANT EXECUTE ON FUNCTION es_append_if(jsonb, jsonb, bigint, bigint), es_read(jsonb, bigint, bigint, boolean, boolean, bigint) TO regress_es_writer;
SET ROLE regress_es_writer;
SELECT es_append_if('[{"stream": "w-1", "type": "W", "data": 1, "tags": ["w"]}]', NULL) > 0;
SELECT es_append_if('[{"stream": "w-1", "type": "W", "data": 1}]', '{}');
SELECT es_read('{}');
RESET ROLE;
DROP OWNED BY regress_es_writer;
DROP ROLE regress_es_writer;
SELECT * FROM es_check() WHERE status <> 'ok';

DROP FUNCTION matches(es_event, jsonb);
DROP EXTENSION eventstore;
DROP FUNCTION found(jsonb, bigint[]), item(int);
