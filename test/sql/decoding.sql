-- decoding: the log as lines of JSON, by the output plugin
--
-- Needs wal_level = logical; elsewhere the second expected file holds what
-- there is to see.
SELECT current_setting('wal_level') <> 'logical' AS skipped \gset
\if :skipped
\echo wal_level is not logical: nothing can be decoded
\quit
\endif
\set SHOW_CONTEXT never
CREATE EXTENSION eventstore;
-- Newer minor releases load only those output plugins that they are told of.
SELECT count(set_config(name, 'eventstore', false)) <= 1 AS trusted FROM pg_settings WHERE name = 'output_plugin_libraries';
CREATE FUNCTION id(n int) RETURNS uuid LANGUAGE sql AS $$ SELECT ('00000000-0000-7000-8000-00000000000' || n)::uuid $$;
SELECT 'made' FROM pg_create_logical_replication_slot('regress_es_decoding', 'eventstore');
-- What the slot holds, by this query, until it is taken.
CREATE FUNCTION peek(VARIADIC options text[] DEFAULT '{}') RETURNS SETOF text LANGUAGE sql AS $$
	SELECT regexp_replace(data, '"(recorded_at|time)":"[^"]*Z"', '"\1":"…Z"') FROM pg_logical_slot_peek_changes('regress_es_decoding', NULL, NULL, VARIADIC options) $$;
CREATE FUNCTION brief(VARIADIC options text[] DEFAULT '{}') RETURNS TABLE (p jsonb, s jsonb, t jsonb, v jsonb, d jsonb) LANGUAGE sql AS $$
	SELECT j -> 'position', j -> 'stream_id', j -> 'event_type', j -> 'type_version', j -> 'data'
		FROM pg_logical_slot_peek_changes('regress_es_decoding', NULL, NULL, VARIADIC options || '{format,plain}') l, CAST(l.data AS jsonb) j $$;
CREATE PROCEDURE take() LANGUAGE sql AS $$ SELECT count(*) FROM pg_logical_slot_get_changes('regress_es_decoding', NULL, NULL, 'upcast', 'off') $$;

-- Both formats; nothing of other tables, of savepoints rolled back, of transactions rolled back.
CREATE TABLE other (a int PRIMARY KEY);
CREATE SCHEMA decoy;
CREATE TABLE decoy.es_event (LIKE es_event);
BEGIN;
INSERT INTO other VALUES (1), (2);
SELECT es_append('a-1', 'Opened', '{"name": "Zoë \"\\\n"}', event_id => id(1), tags => '{b,"a:\"x\""}', metadata => '{"user": "u", "traceparent": "00-1", "deep": {"a": []}}');
SAVEPOINT s;
SELECT es_append('a-1', 'Undone', '{}', event_id => id(2));
ROLLBACK TO s;
UPDATE other SET a = 3 WHERE a = 1;
SELECT es_append('b', 'Closed', '[1, null]', event_id => id(3));
INSERT INTO decoy.es_event SELECT * FROM es_event;
COMMIT;
DELETE FROM other;
TRUNCATE other, decoy.es_event;
BEGIN;
SELECT es_append('a-1', 'Undone', '{}', event_id => id(4));
ROLLBACK;
SELECT pg_logical_emit_message(true, 'eventstore', 'not an event') IS NOT NULL;
SELECT peek();
SELECT peek('format', 'cloudevents') EXCEPT SELECT peek();
SELECT peek('format', 'plain');
-- One implementation with es_to_cloudevent.
SELECT l.data::jsonb = es_to_cloudevent(e) AS same FROM pg_logical_slot_peek_changes('regress_es_decoding', NULL, NULL) l
	JOIN es_event e ON e.position = (l.data::jsonb ->> 'sequence')::bigint;
-- Filters and other options.
SELECT es_append('b-1', 'With, comma', '1', event_id => id(5)), es_append('b-1', 'Opened', '2', event_id => id(6));
SELECT * FROM brief('types', 'Opened');
SELECT * FROM brief('types', ' "With, comma" , Closed,Nothing');
SELECT * FROM brief('categories', 'b');
SELECT * FROM brief('categories', 'a,b', 'types', 'Opened');
SELECT peek('source', 'urn:x', 'types', 'Closed');
SET eventstore.source = '/store';
SELECT peek('types', 'Closed')::jsonb ->> 'source';
RESET eventstore.source;
SELECT brief('unknown', 'x');
SELECT peek('format', 'xml');
SELECT peek('types', '');
SELECT peek('types', 'a,,b');
SELECT peek('categories', '"a');
SELECT peek('types', repeat('x', 256));
SELECT peek('source', 'a b');
SELECT peek('upcast', 'perhaps');
SELECT peek('types', 'a', 'types', 'b');
CALL take();

-- Events that go by another road than es_append; values out of line.
INSERT INTO es_event (stream_id, event_type, data) VALUES ('c-1', 'Inserted', '{}');
COPY es_event (stream_id, event_type, data) FROM stdin;
c-1	Copied	"\\u00e9"
\.
SELECT es_append_batch('c-1', '{X,Y}', '{1,2}');
SELECT es_append('c-2', 'Big', to_jsonb(string_agg(md5(i::text), '')), metadata => jsonb_build_object('m', string_agg(md5((-i)::text), ''))) FROM generate_series(1, 3000) i;
SELECT p, s, t, length(d::text) FROM brief();
SELECT d = e.data FROM brief('types', 'Big') JOIN es_event e ON e.event_type = 'Big';
-- An event that is removed was sent, and its going is not; nor is a rewrite of the table.
BEGIN;
ALTER TABLE es_event DISABLE TRIGGER USER;
DELETE FROM es_event WHERE stream_id = 'c-2';
UPDATE es_event SET data = '"forged"' WHERE event_type = 'X';
ALTER TABLE es_event ENABLE ALWAYS TRIGGER zz_es_event_insert, ENABLE ALWAYS TRIGGER es_event_refuse, ENABLE ALWAYS TRIGGER es_event_refuse_row;
COMMIT;
VACUUM FULL es_event;
SELECT count(*) FROM brief();
-- Where the store is moved to.
CREATE SCHEMA elsewhere;
BEGIN;
SELECT es_append('c-3', 'Before', '{}');
ALTER EXTENSION eventstore SET SCHEMA elsewhere;
SET LOCAL search_path = elsewhere, public;
SELECT es_append('c-3', 'After', '{}');
COMMIT;
SELECT elsewhere.es_append('c-3', 'There', '{}');
SELECT s, t FROM brief('categories', 'c') WHERE s = '"c-3"';
ALTER EXTENSION eventstore SET SCHEMA public;
-- What there was before the extension went away.
SELECT es_append('c-4', 'Last', '{}');
CALL take();
SELECT es_append('c-5', 'After all', '{}');
DROP EXTENSION eventstore;
CREATE TABLE es_event (position int);
INSERT INTO es_event VALUES (1);
SELECT s, t FROM brief();
DROP TABLE es_event;
SELECT 'dropped' FROM pg_drop_replication_slot('regress_es_decoding');
DROP TABLE other;
DROP SCHEMA decoy, elsewhere CASCADE;
DROP FUNCTION peek, brief, id;
DROP PROCEDURE take;
