-- decider: definitions of what commands do, and what is wrong with them
CREATE EXTENSION eventstore;
SELECT es_create_aggregate('order', initial_state => '{"items": 0}');
SELECT es_evolve('order', 'ItemAdded', $$jsonb_set(state, '{items}', to_jsonb((state ->> 'items')::int + 1))$$);

-- mistakes are found when they are made, with their place
SELECT es_decide('order', 'Add', 'SELECT ''ItemAdded''');
SELECT es_decide('order', 'Add', 'SELECT ''ItemAdded'', 1');
SELECT es_decide('order', 'Add', 'SELECT 1, command');
SELECT es_decide('order', 'Add', 'SELECT ''ItemAdded'', command, command, command');
SELECT es_decide('order', 'Add', 'SELECT ''ItemAdded'', command, command, NULL::text[], 1');
SELECT es_decide('order', 'Add', 'SELECT ''ItemAdded'', event.data');
SELECT es_decide('order', 'Add', 'SELECT ''ItemAdded'', state.x');
SELECT es_decide('order', 'Add', 'SELECT ''ItemAdded'', command FROM nowhere');
SELECT es_decide('order', 'Add', 'SELECT ''ItemAdded'', command; SELECT ''ItemAdded'', command');
SELECT es_decide('order', 'Add', 'SELECT');
SELECT es_decide('order', 'Add', '');
SELECT es_decide('order', 'Add', 'CREATE TABLE x ()');
SELECT es_decide('order', 'Add', 'ROLLBACK');
SELECT es_decide('order', 'Add', 'SELECT ''ItemAdded'', command', 'no');
SELECT es_decide('order', 'Add', 'SELECT ''ItemAdded'', command', 'SELECT 1, 2');
SELECT es_decide('order', 'Add', 'SELECT ''ItemAdded'', command', 'SELECT 1');
SELECT es_decide('order', 'Add', 'SELECT ''ItemAdded'', command', 'CASE WHEN EXISTS (SELECT) THEN ''x'' END');
SELECT es_decide('order', '', 'SELECT ''ItemAdded'', command');
SELECT es_decide('order', NULL, 'SELECT ''ItemAdded'', command');
SELECT es_decide('order', 'Add', NULL);
SELECT es_decide('nobody', 'Add', 'SELECT ''ItemAdded'', command');
SELECT count(*) FROM es_decider;

-- what only running shows
SELECT es_decide('order', 'Null', 'SELECT NULL, command');
SELECT es_decide('order', 'NullData', 'SELECT ''ItemAdded'', NULL::jsonb');
SELECT es_decide('order', 'BadType', 'SELECT ''$x'', command');
SELECT es_decide('order', 'BadMetadata', 'SELECT ''ItemAdded'', command, ''[]''::jsonb');
SELECT es_decide('order', 'Twice', 'SELECT ''ItemAdded'', command', 'VALUES (''a''), (''b'')');
SELECT es_handle('order-1', 'Null');
SELECT es_handle('order-1', 'NullData');
SELECT es_handle('order-1', 'BadType');
SELECT es_handle('order-1', 'BadMetadata');
SELECT es_handle('order-1', 'Twice');
SELECT es_stream_version('order-1');

-- queries over tables, as decision and as rejection; the newest rows count
CREATE TABLE stock (item text PRIMARY KEY, n int);
SELECT es_decide('order', 'Add', $$SELECT 'ItemAdded', jsonb_build_object('item', item, 'left', n - 1, 'before', state -> 'items') FROM stock WHERE item = command ->> 'item'$$,
	$$SELECT stream_id || ': out of ' || item FROM stock WHERE item = command ->> 'item' AND n = 0$$);
SELECT es_handle('order-1', 'Add', '{"item": "nut"}');
INSERT INTO stock VALUES ('nut', 2);
WITH new AS (UPDATE stock SET n = 1) SELECT es_handle('order-1', 'Add', '{"item": "nut"}');
SELECT es_handle('order-1', 'Add', '{"item": "nut"}');
UPDATE stock SET n = 0;
SELECT es_handle('order-1', 'Add', '{"item": "nut"}');
SELECT event_type, data FROM es_read_stream('order-1');

-- functions in other languages
CREATE FUNCTION add_item(state jsonb, command jsonb) RETURNS TABLE (event_type text, data jsonb) LANGUAGE plpgsql AS $$
BEGIN
	IF (state ->> 'items')::int >= 4 THEN
		RAISE 'order is full' USING ERRCODE = 'ES422';
	END IF;
	FOR i IN 1..(command ->> 'n')::int LOOP
		event_type := 'ItemAdded';
		data := jsonb_build_object('i', i);
		RETURN NEXT;
	END LOOP;
END $$;
SELECT es_decide('order', 'AddMany', 'SELECT * FROM add_item(state, command)');
SELECT es_handle('order-1', 'AddMany', '{"n": 0}');
SELECT es_handle('order-1', 'AddMany', '{"n": 3}');
SELECT es_handle('order-1', 'AddMany', '{"n": 3}');
-- C
CREATE FUNCTION each(command jsonb, OUT event_type text, OUT data jsonb) RETURNS SETOF record
	LANGUAGE internal STABLE STRICT AS 'jsonb_each';
SELECT es_decide('order', 'Each', 'SELECT * FROM each(command)');
SELECT es_handle('order-2', 'Each', '{"ItemAdded": 1, "ItemLeft": 2}');
SELECT event_type, data FROM es_read_stream('order-2');

-- a definition that changes: replaced, gone with its function, with the state's type
SELECT es_decide('order', 'Each', 'SELECT key, value FROM jsonb_each(command) WHERE key LIKE ''%Added''');
SELECT es_handle('order-2', 'Each', '{"ItemAdded": 1, "ItemLeft": 2}');
DROP FUNCTION add_item;
SELECT es_handle('order-1', 'AddMany', '{"n": 3}');
CREATE FUNCTION add_item(state jsonb, command jsonb) RETURNS TABLE (event_type text, data jsonb) LANGUAGE sql AS $$
	SELECT 'ItemAdded', command $$;
SELECT es_handle('order-1', 'AddMany', '{"n": 3}');
SELECT es_drop_evolver('order', 'ItemAdded');
SELECT es_create_aggregate('order', initial_state => '0', state_type => 'int', or_replace => true);
SELECT es_drop_decider('order', 'AddMany');
SELECT es_drop_decider('order', 'Add');
SELECT es_create_aggregate('order', initial_state => '0', state_type => 'int', or_replace => true);
SELECT es_drop_decider('order', 'Add');
SELECT es_drop_decider('order', 'Add', if_exists => true);

-- in the owner's name; the append is in the caller's
CREATE ROLE regress_es_writer;
CREATE ROLE regress_es_reader;
SELECT es_grant('regress_es_writer', 'writer'), es_grant('regress_es_reader', 'reader');
CREATE TABLE secret (who text);
SELECT es_decide('order', 'Who', $$WITH i AS (INSERT INTO secret VALUES (current_user || ', ' || session_user) RETURNING who)
	SELECT 'Noted', to_jsonb(who) FROM i$$);
SET ROLE regress_es_writer;
SELECT es_handle('order-3', 'Who');
SELECT es_handle('order-3', 'Who', command_id => '00000000-0000-0000-0000-000000000001');
TABLE secret;
SELECT es_decide('order', 'Who', 'SELECT ''Noted'', command');
INSERT INTO es_decider VALUES ('order', 'Mine', 'SELECT ''Noted'', command');
INSERT INTO es_command SELECT gen_random_uuid(), gen_random_uuid(), 1, now(), 'x', 'x';
SET ROLE regress_es_reader;
SELECT es_handle('order-3', 'Who');
RESET ROLE;
GRANT EXECUTE ON FUNCTION es_handle TO regress_es_reader;
SET ROLE regress_es_reader;
SELECT es_handle('order-3', 'Who');
RESET ROLE;
SELECT event_type, data FROM es_read_stream('order-3');

DROP EXTENSION eventstore;
DROP TABLE stock, secret;
DROP FUNCTION add_item, each;
DROP OWNED BY regress_es_writer, regress_es_reader;
DROP ROLE regress_es_writer, regress_es_reader;
