-- decoding_upcast: upcasters in logical decoding
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
SELECT 'made' FROM pg_create_logical_replication_slot('regress_es_decoding', 'eventstore');
CREATE FUNCTION brief(VARIADIC options text[] DEFAULT '{}') RETURNS TABLE (p jsonb, t jsonb, v jsonb, d jsonb) LANGUAGE sql AS $$
	SELECT j -> 'position', j -> 'event_type', j -> 'type_version', j -> 'data'
		FROM pg_logical_slot_peek_changes('regress_es_decoding', NULL, NULL, VARIADIC options || '{format,plain}') l, CAST(l.data AS jsonb) j $$;
CREATE PROCEDURE take() LANGUAGE sql AS $$ SELECT count(*) FROM pg_logical_slot_get_changes('regress_es_decoding', NULL, NULL, 'upcast', 'off') $$;
CREATE TABLE rate (rate int);
INSERT INTO rate VALUES (7);
CREATE FUNCTION cents(d jsonb) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	BEGIN
		RETURN jsonb_build_object('cents', (d ->> 'amount')::int * 100);
	EXCEPTION WHEN invalid_text_representation THEN
		RETURN jsonb_build_object('cents', null);
	END;
END $$;
CREATE FUNCTION inlined(d jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT d || jsonb_build_object('inlined', true) $$;
CREATE FUNCTION reads(d jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT d || jsonb_build_object('rate', rate) FROM rate $$;
CREATE FUNCTION lies(d jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$ SELECT d || jsonb_build_object('rate', rate) FROM rate $$;
CREATE FUNCTION lies_in_pl(d jsonb) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN (SELECT d || jsonb_build_object('rate', rate) FROM rate); END $$;

-- An event is shown as the upcasters in force when it was inserted say.
SELECT es_append('p-1', 'Paid', '{"amount": 1}');
SELECT es_upcast('Paid', 1, 'cents(event.data)');
SELECT es_append('p-1', 'Paid', '{"amount": 2}');
SELECT es_append('p-1', 'Paid', '{"amount": "x"}');
BEGIN;
SELECT es_append('p-1', 'Paid', '{"amount": 3}');
SELECT es_upcast('Paid', 2, 'inlined(event.data) || jsonb_build_object(''was'', event.type_version, ''of'', (event).stream_id)', 'Settled');
SELECT es_append('p-1', 'Paid', '{"amount": 4}');
SAVEPOINT s;
SELECT es_drop_upcaster('Paid', 1);
ROLLBACK TO s;
SELECT es_append('p-1', 'Paid', '{"amount": 5}');
CREATE OR REPLACE FUNCTION cents(d jsonb) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN '{"cents": "replaced"}'; END $$;
SELECT es_append('p-1', 'Paid', '{"amount": 6}');
SELECT es_drop_upcaster('Paid', 1);
SELECT es_append('p-1', 'Paid', '{"amount": 7}');
COMMIT;
SELECT * FROM brief();
SELECT * FROM brief('upcast', 'off');
-- A filter looks at what is shown.
SELECT p FROM brief('types', 'Settled');
SELECT p FROM brief('types', 'Settled', 'upcast', 'off');
-- A session that decodes goes on with what is in force now.
SELECT data FROM es_read_stream('p-1', max_count => 2);
-- The table is rewritten, its index too; the definitions go.
REINDEX TABLE es_upcaster;
VACUUM FULL es_upcaster;
SELECT p, t, v FROM brief();
BEGIN;
TRUNCATE es_upcaster;
SELECT p, t, v FROM brief('types', 'Paid,Settled') LIMIT 3;
ROLLBACK;
CALL take();

-- Upcasters that cannot run there: the chain ends before them.
SELECT es_upcast('Paid', 1, 'event.data || ''{"two": 2}''');
SELECT es_upcast('Paid', 2, 'reads(event.data)');
SELECT es_upcast('Paid', 3, 'event.data || ''{"four": 4}''');
SELECT es_append('p-2', 'Paid', '{}');
SELECT type_version, data FROM es_read_stream('p-2');
SELECT v, d FROM brief();
SELECT es_upcast('Paid', 2, '(event.data || ''{"three": 3}'') #- ''{' || string_agg(md5(i::text), ',') || '}''') FROM generate_series(1, 2000) i;
SELECT es_append('p-2', 'Paid', '{}');
SELECT type_version, data FROM es_read_stream('p-2');
SELECT v, d FROM brief();
SELECT es_upcast('Paid', 2, '(event.data || ''{"three": 3}'') - ''' || repeat('x', 100000) || '''');
SELECT es_append('p-2', 'Paid', '{}');
SELECT v, d FROM brief();
CALL take();
-- Those that lie about reading tables stop the slot until it is told to go on.
SELECT es_upcast('Paid', 2, 'lies(event.data)');
SELECT es_append('p-3', 'Paid', '{}');
SELECT * FROM brief();
SELECT v, d FROM brief('upcast', 'off');
CALL take();
SELECT es_upcast('Paid', 2, 'lies_in_pl(event.data)');
SELECT es_append('p-3', 'Paid', '{}');
SELECT * FROM brief();
SELECT data FROM es_read_stream('p-3');
CALL take();
-- An error of the upcaster's own; no value.
SELECT es_upcast('Bad', 1, 'to_jsonb((event.data ->> ''n'')::int)');
SELECT es_append('p-4', 'Bad', '{"n": "x"}');
SELECT * FROM brief();
CALL take();
SELECT es_upcast('Bad', 1, 'nullif(event.data, ''{}'')');
SELECT es_append('p-4', 'Bad', '{}');
SELECT * FROM brief();
-- The extension went away, and the definitions with it.
SELECT es_upcast('Bad', 1, '''1''');
CALL take();
SELECT es_append('p-5', 'Bad', '{}');
SELECT t, v, d FROM brief();
DROP EXTENSION eventstore;
SELECT t, v, d FROM brief();
SELECT 'dropped' FROM pg_drop_replication_slot('regress_es_decoding');
DROP TABLE rate;
DROP FUNCTION brief, cents, inlined, reads, lies, lies_in_pl;
DROP PROCEDURE take;
