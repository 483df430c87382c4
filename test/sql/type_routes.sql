-- type_routes: types, upcasters and the life cycle on the routes of boundaries, projections and commands
\set SHOW_CONTEXT never
CREATE EXTENSION eventstore;
CREATE FUNCTION try(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE answer text;
BEGIN
	EXECUTE query INTO answer;
	RETURN answer;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ' ' || SQLERRM;
END $$;

-- Conditional appends: checks, the newest version, tags from templates.
SELECT es_create_event_type('Joined', 1);
SELECT es_create_event_type('Joined', 2, $$event.data ? 'who'$$, ARRAY['course:{course}', 'student:{who}']);
SELECT try($$SELECT es_append_if('[{"type": "Joined", "stream": "j-1", "data": {"course": "c"}}]', NULL)$$);
SELECT es_append_if('[{"type": "Joined", "stream": "j-1", "data": {"course": "c", "who": "ada"}, "tags": ["x"]},
	{"type": "Joined", "data": {"course": ["d", "e"], "who": "bob"}}]', '{"items": [{"tags": ["student:ada"]}]}');
SELECT type_version, tags FROM es_event ORDER BY position;
SELECT tag, position FROM es_event_tag ORDER BY tag;
-- Such tags break conditions, and are broken by them.
SELECT * FROM es_try_append_if('[{"type": "Joined", "data": {"course": "c", "who": "eve"}}]', '{"items": [{"tags": ["course:c"]}]}');
SELECT es_append('j-2', 'Joined', '{"course": "f", "who": "eve"}');
SELECT conflict_tags FROM es_try_append_if('[{"type": "Other", "data": {}}]', '{"items": [{"tags": ["course:f"]}]}', 2);
INSERT INTO es_event (stream_id, event_type, data) VALUES ('j-3', 'Joined', '{"course": "g", "who": "eve"}');
SELECT position FROM es_read('{"items": [{"tags": ["student:eve"]}]}');
SELECT * FROM es_check() WHERE status <> 'ok';

-- A retry is answered whatever has been declared since.
SELECT es_append('j-4', 'Left', '{"who": "ada"}', event_id => '00000000-0000-0000-0000-000000000001');
SELECT es_append_if('[{"type": "Left", "stream": "j-5", "data": {"who": "ada"}, "id": "00000000-0000-0000-0000-000000000002"}]', NULL);
SELECT es_append_if('[{"type": "Left", "stream": "j-5", "data": {"who": "ada"}, "id": "00000000-0000-0000-0000-000000000002"}]', '{}');
SELECT es_create_event_type('Left', 1, 'false', ARRAY['left:{who}']);
SELECT es_append('j-4', 'Left', '{"who": "ada"}', event_id => '00000000-0000-0000-0000-000000000001');
SELECT es_append_if('[{"type": "Left", "stream": "j-5", "data": {"who": "ada"}, "id": "00000000-0000-0000-0000-000000000002"}]', '{}');
SELECT es_append_if('[{"type": "Left", "stream": "j-5", "data": {"who": "ada"}, "id": "00000000-0000-0000-0000-000000000002"}]', '{"items": [{"tags": ["left:ada"]}]}');
SELECT try($$SELECT es_append('j-4', 'Left', '{"who": "ada"}', event_id => '00000000-0000-0000-0000-000000000003')$$);
SELECT try($$SELECT es_append_if('[{"type": "Left", "stream": "j-5", "data": {"who": "ada"}, "id": "00000000-0000-0000-0000-000000000004"}]', NULL)$$);
SELECT es_drop_event_type('Left');
SELECT es_create_event_type('Left', 1, NULL, ARRAY['left:{who}']);
SELECT es_append('j-4', 'Left', '{"who": "bob"}', event_id => '00000000-0000-0000-0000-000000000005', tags => '{a,z}');
SELECT es_append_if('[{"type": "Left", "data": {"who": "bob"}, "id": "00000000-0000-0000-0000-000000000006"}]', '{"items": [{"tags": ["left:eve"]}]}');
SELECT tags FROM es_read('{"items": [{"tags": ["left:bob"]}]}');

-- Tombstones hold on every route, but not for a retry; types may be required.
SELECT es_tombstone_stream('j-5');
SELECT try($$SELECT es_append_if('[{"type": "Other", "stream": "j-5", "data": {}}]', NULL)$$);
SELECT try($$SELECT es_append_if('[{"type": "Other", "stream": "j-5", "data": {}}]', '{"items": [{"types": ["None"]}]}')$$);
SELECT es_append_if('[{"type": "Left", "stream": "j-5", "data": {"who": "ada"}, "id": "00000000-0000-0000-0000-000000000002"}]', NULL);
SET eventstore.require_types = on;
SELECT try($$SELECT es_append_if('[{"type": "Misspelt", "data": {}}]', NULL)$$);
RESET eventstore.require_types;

-- Queries match what is stored, and show the newest form.
SELECT es_append('p-1', 'Paid', '{"amount": "5"}', tags => '{p}');
CREATE TABLE paid (mode text, event_type text, type_version int, cents bigint);
SELECT es_create_projection('live', 'inline', '{paid}', 'p');
SELECT es_create_projection('later', 'async', '{paid}', 'p');
SELECT es_create_projection('many', 'async', '{paid}', 'p');
SELECT es_upcast('Paid', 1, $$jsonb_build_object('cents', (event.data ->> 'amount')::int * 100)$$, 'Settled');
SELECT event_type, type_version, data FROM es_read('{"items": [{"types": ["Paid"]}]}');
SELECT event_type, type_version, data FROM es_read('{"items": [{"types": ["Paid"]}]}', raw => true);
SELECT count(*) FROM es_read('{"items": [{"types": ["Settled"]}]}');
SELECT (e).event_type, (e).type_version, (e).data FROM (SELECT unnest(events) AS e FROM es_read_boundary('{"items": [{"tags": ["p"]}]}')) b;
SELECT (e).event_type, (e).type_version, (e).data FROM (SELECT unnest(events) AS e FROM es_read_boundary('{"items": [{"tags": ["p"]}]}', raw => true)) b;

-- Handlers know the newest form, inline and later, singly and by the batch.
SELECT es_on('live', 'Settled', 'INSERT INTO paid VALUES (''live'', event.event_type, event.type_version, (event.data ->> ''cents'')::bigint)');
SELECT es_on('live', 'Paid', 'INSERT INTO paid VALUES (''never'')');
SELECT es_on('later', 'Settled', 'INSERT INTO paid VALUES (''later'', event.event_type, event.type_version, (event.data ->> ''cents'')::bigint)');
SELECT es_on('later', 'Paid', 'INSERT INTO paid VALUES (''never'')');
SELECT es_on_batch('many', 'INSERT INTO paid SELECT ''many'', e.event_type, e.type_version, (e.data ->> ''cents'')::bigint FROM new_events e');
CALL es_run_projections();
SELECT es_append('p-1', 'Paid', '{"amount": "7"}');
INSERT INTO es_event (stream_id, event_type, data) VALUES ('p-1', 'Paid', '{"amount": "8"}'), ('p-2', 'Paid', '{"amount": "9"}');
CALL es_run_projections();
SELECT * FROM paid ORDER BY mode, cents;
-- An upcaster that fails fails the append, and stops what comes later.
SELECT es_upcast('Paid', 1, $$jsonb_build_object('cents', 1 / (event.data ->> 'amount')::int)$$, 'Settled');
SELECT try($$SELECT es_append('p-1', 'Paid', '{"amount": "0"}')$$);
SELECT es_pause_projection('live');
SELECT es_append_batch('p-1', '{Paid,Paid}', '{"{\"amount\": \"1\"}","{\"amount\": \"0\"}"}');
CALL es_run_projections();
SELECT name, status, position = (SELECT max(position) - 1 FROM es_event) AS before_it, error_handler, last_error FROM es_projection WHERE status = 'stopped' ORDER BY name;
SELECT count(*) FROM paid WHERE cents = 1;

-- States that a session keeps are forgotten with the upcasters and the
-- beginning of the stream that they were made by.
SELECT es_create_aggregate('s', initial_state => '0', state_type => 'bigint', snapshot_every => NULL);
SELECT es_evolve('s', 'Added', 'state + (event.data)::bigint');
SELECT es_decide('s', 'Add', 'SELECT ''Added'', command'), es_decide('s', 'Tell', 'SELECT ''Told'', to_jsonb(state)');
SELECT es_handle('s-1', 'Add', '1'), es_handle('s-1', 'Add', '2');
SELECT es_handle('s-1', 'Add', '3');
SELECT es_handle('s-1', 'Tell');
SELECT es_upcast('Added', 1, 'to_jsonb((event.data)::bigint * 10)');
SELECT es_handle('s-1', 'Tell');
SELECT es_truncate_stream('s-1', 3);
SELECT es_handle('s-1', 'Tell');
SELECT es_handle('s-1', 'Tell');
SELECT es_delete_stream('s-1');
SELECT es_handle('s-1', 'Tell');
SELECT es_handle('s-1', 'Tell');
SELECT es_undelete_stream('s-1');
SELECT es_handle('s-1', 'Tell');
SELECT es_drop_upcaster('Added', 1);
SELECT es_handle('s-1', 'Tell');
SELECT version, data FROM es_event WHERE stream_id = 's-1' AND event_type = 'Told' ORDER BY version;
SELECT * FROM es_check() WHERE status <> 'ok' AND check_name <> 'projections';

SELECT es_drop_projection(name) FROM es_projection;
DROP TABLE paid;
DROP FUNCTION try(text);
DROP EXTENSION eventstore;
