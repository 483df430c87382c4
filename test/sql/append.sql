-- append: es_append and es_append_batch
CREATE EXTENSION eventstore;
CREATE FUNCTION try(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE answer text; detail text; place text;
BEGIN
	EXECUTE query INTO answer;
	RETURN answer;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, place = CONSTRAINT_NAME;
	RETURN concat_ws(' | ', SQLSTATE || ' ' || SQLERRM, nullif(detail, ''), nullif(place, ''));
END $$;
CREATE FUNCTION id(n int) RETURNS uuid LANGUAGE sql IMMUTABLE AS
	$$ SELECT ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid $$;

-- Nothing appended yet in this session.
SELECT es_last_position();
SELECT es_append('s-1', 'Opened', '{"balance": 1000}');
SELECT es_append(data => '{"amount": 500}', event_type => 'Deposited', stream_id => 's-1',
	expected_version => 1, metadata => '{"user": "ann"}', event_id => id(1), tags => '{b,a,b}');
SELECT es_last_position();
SELECT position, version, type_version, stream_id, event_type, data, metadata, tags FROM es_event ORDER BY position;
-- Time and id are the store's own: now, and a UUID of version 7 that follows it.
SELECT recorded_at BETWEEN now() - interval '1 minute' AND clock_timestamp() AS now,
		event_id::text ~ '^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$' AS v7,
		abs(('x' || translate(left(event_id::text, 13), '-', ''))::bit(48)::bigint - extract(epoch FROM recorded_at) * 1000) < 2 AS same_time
	FROM es_event WHERE version = 1;

-- Expected versions.
SELECT expected, try(format('SELECT es_append(''s-1'', ''A'', ''{}'', %s)', coalesce(expected::text, 'NULL'))) AS at_2,
		try(format('SELECT es_append(''new-%s'', ''A'', ''{}'', %1$s)', coalesce(expected::text, 'NULL'))) AS new
	FROM unnest(ARRAY[-3, -9223372036854775808, 0, 1, 2, 2, 3, 4, 9223372036854775807, -2, -1, NULL]) expected;
SELECT es_append('s-1', 'A', '{}', 1);
SELECT es_append('none', 'A', '{}', -2);
SELECT es_append('s-1', 'A', '{}', 0);
SELECT es_append('s-1', 'A', '{}', -4);

-- What must not be null; what may be.
SELECT try('SELECT es_append(NULL, ''A'', ''{}'')'), try('SELECT es_append(''s'', NULL, ''{}'')'), try('SELECT es_append(''s'', ''A'', NULL)');
SELECT es_append('null-1', 'A', 'null', -1, NULL, NULL, NULL);
SELECT try(format('SELECT es_append(''m-1'', ''A'', ''{}'', metadata => %L)', m)) FROM unnest(ARRAY['{}', '[]', '1', '"x"', 'null', '{"a": 1}']) m;
SELECT metadata FROM es_event WHERE stream_id = 'm-1' ORDER BY version;
SELECT try(format('SELECT es_append(''t-1'', ''A'', ''{}'', tags => %L)', t)) FROM unnest(ARRAY['{}', '{x}', '{{x},{y}}', '{x,NULL}', '{""}', E'{"a\tb"}']) t;
SELECT try(format('SELECT es_append(''t-1'', ''A'', ''{}'', tags => %L)', t)) FROM (VALUES (ARRAY[repeat('ä', 127) || 'a']), (ARRAY[repeat('ä', 128)]),
	(ARRAY(SELECT n::text FROM generate_series(1, 64) n)), (ARRAY(SELECT n::text FROM generate_series(1, 65) n)), (ARRAY(SELECT (n % 64)::text FROM generate_series(1, 999) n))) v(t);

-- Batches.
SELECT es_append_batch('b-1', '{A,B,C}', '{"{}","[]","1"}', 0, ARRAY['{"a": 1}', NULL, '{}']::jsonb[], ARRAY[id(11), id(12), id(13)]);
SELECT version, event_type, data, metadata, event_id = id(10 + version::int) AS given, position = es_last_position() AS last FROM es_read_stream('b-1');
SELECT n, try('SELECT es_append_batch(' || call || ')') FROM (VALUES
	(1, '''b-1'', ''{}'', ''{}'''), (2, '''b-1'', ''{A,B}'', ''{1}'''), (3, '''b-1'', ''{A}'', ''{1,2}'''),
	(4, '''b-1'', ''{A}'', ''{1}'', metadata => ''{"{}","{}"}'''), (5, '''b-1'', ''{A,B}'', ''{1,2}'', event_ids => ARRAY[id(14)]'),
	(6, '''b-1'', ''{A,NULL}'', ''{1,2}'''), (7, '''b-1'', ''{A,B}'', ''{1,NULL}'''), (8, '''b-1'', ''{{A,B}}'', ''{{1,2}}'''),
	(9, '''b-1'', ''{A,B}'', ''{{1,2}}'''), (10, '''b-1'', ''{A}'', ''{1}'', metadata => ''{1}'''), (11, '''b-1'', ''{A}'', ''{1}'', metadata => ''{{"{}"}}'''),
	(12, 'NULL, ''{A}'', ''{1}'''), (13, '''b-1'', NULL, ''{1}'''), (14, '''b-1'', ''{A}'', NULL'), (15, '''b-1'', ''{A}'', ''{1}'', NULL'),
	(16, '''b-1'', ''{A}'', ''{1}'', -5'), (17, '''b-1'', ''{A}'', ''{1}'', 2'), (18, '''b-1'', ''{A,B}'', ''{1,2}'', 0'), (19, '''b-2'', ''{A}'', ''{1}'', -2'),
	(20, '''b-1'', ''{A}'', ''{1}'', 3, NULL, NULL'), (21, '''b-1'', ''[7:8]={A,B}'', ''{1,2}''')) v(n, call);
SELECT es_append_batch('b-1', '{A,B}', '{1}');
SELECT es_append_batch('b-1', '{A,B}', '{1,2}', 3);
SELECT es_append_batch('big-1', array_agg('A'::text), array_agg(to_jsonb(n))) FROM generate_series(1, 5000) n;
SELECT bool_and(version = data::int) AND count(DISTINCT event_id) = 5000 AND max(position) - min(position) = 4999 AS whole,
		count(DISTINCT recorded_at) AS times, bool_and(event_id > before) AS ids_ascend
	FROM (SELECT *, lag(event_id, 1, id(0)) OVER (ORDER BY position) AS before FROM es_read_stream('big-1')) e;

-- A failed append leaves nothing behind, not even a position.
SELECT es_settled_position() AS before \gset
SELECT es_append('s-1', 'A', '{}', 0);
SELECT es_append_batch('b-1', '{A,""}', '{1,2}');
SELECT es_settled_position() = :before AS nothing_drawn;

-- The same ids again answer what the first call answered.
SELECT es_last_position() AS last \gset
SELECT e, try(format('SELECT es_append(''s-1'', ''Deposited'', ''{"amount": 500}'', %s, event_id => id(1))', e)), es_last_position() FROM unnest(ARRAY[1, -1, -2, 0, 7]) e;
SELECT es_append('s-1', 'Deposited', '{"amount":  5e2}', metadata => '{"user": "bob"}', event_id => id(1)) AS other_metadata;
SELECT e, try(format('SELECT es_append_batch(''b-1'', ''{A,C}'', ''{"{}","1"}'', %s, event_ids => ARRAY[id(11), id(13)])', e)) FROM unnest(ARRAY[0]) e;
SELECT es_append_batch('b-3', '{A,B}', '{1,2}', 0, NULL, ARRAY[id(31), id(32)]), es_last_position() = :last + 2 AS appended;
SELECT e, es_append_batch('b-3', '{A,B}', '{1,2}', e, NULL, ARRAY[id(31), id(32)]) FROM unnest(ARRAY[0, -1, 1, 9]) e;
SELECT es_append('b-3', 'Later', '{}');
SELECT es_append_batch('b-3', '{A,B}', '{1,2}', 0, NULL, ARRAY[id(31), id(32)]), es_append('b-3', 'B', '2', event_id => id(32)) AS one_of_it;
-- In one statement, one transaction, after a savepoint that was rolled back.
SELECT es_append('r-1', 'A', '{}', event_id => id(40)), es_append('r-1', 'A', '{}', event_id => id(40)), es_append('r-1', 'B', '{}', event_id => id(41));
BEGIN;
SAVEPOINT s;
SELECT es_append('r-1', 'C', '{}', event_id => id(42));
ROLLBACK TO s;
SELECT es_append('r-1', 'D', '{}');
SELECT es_append('r-1', 'C', '{}', event_id => id(42));
SELECT es_append('r-1', 'C', '{}', event_id => id(42));
COMMIT;
SELECT version, event_type FROM es_read_stream('r-1');

-- Ids of other events, parts of a batch, another order, one id twice.
SELECT n, try('SELECT ' || call) FROM (VALUES
	(1, 'es_append(''s-2'', ''Deposited'', ''{"amount": 500}'', event_id => id(1))'), (2, 'es_append(''s-1'', ''Other'', ''{"amount": 500}'', event_id => id(1))'),
	(3, 'es_append(''s-1'', ''Deposited'', ''{"amount": 501}'', event_id => id(1))'),
	(4, 'es_append_batch(''b-3'', ''{A,B,C}'', ''{1,2,3}'', event_ids => ARRAY[id(31), id(32), id(33)])'),
	(5, 'es_append_batch(''b-3'', ''{C,A}'', ''{3,1}'', event_ids => ARRAY[id(33), id(31)])'),
	(6, 'es_append_batch(''b-3'', ''{A,C}'', ''{1,3}'', event_ids => ARRAY[id(31), NULL])'),
	(7, 'es_append_batch(''b-3'', ''{B,A}'', ''{2,1}'', event_ids => ARRAY[id(32), id(31)])'),
	(8, 'es_append_batch(''b-3'', ''{A,A}'', ''{1,1}'', event_ids => ARRAY[id(31), id(31)])'),
	(9, 'es_append_batch(''b-4'', ''{A,A}'', ''{1,1}'', event_ids => ARRAY[id(51), id(51)])'),
	(10, 'es_append_batch(''b-3'', ''{A}'', ''{1}'', event_ids => ARRAY[id(31)])')) v(n, call);
SELECT es_append('s-2', 'A', '{}', event_id => id(1));

-- Several appends to one stream in one statement, and across subtransactions.
SELECT es_append('multi-1', 'A', '{}', n - 1) FROM generate_series(1, 4) n;
WITH a AS (SELECT es_append('multi-1', 'A', '{}') AS a), b AS (SELECT es_append('multi-1', 'A', '{}') AS b) SELECT a, b FROM a, b;
DO $$ BEGIN FOR n IN 1..5 LOOP
	BEGIN
		PERFORM es_append('multi-1', 'Loop', to_jsonb(n));
		IF n % 2 = 0 THEN PERFORM 1 / 0; END IF;
	EXCEPTION WHEN division_by_zero THEN PERFORM es_append('multi-1', 'Caught', to_jsonb(n), 5 + n);
	END;
END LOOP; END $$;
SELECT string_agg(version || ' ' || event_type, ', ' ORDER BY version) FROM es_event WHERE stream_id = 'multi-1' AND version > 6;
BEGIN;
INSERT INTO es_event (stream_id, event_type, data) VALUES ('multi-2', 'A', '1'), ('multi-2', 'B', '2'), ('multi-3', 'A', '1');
SELECT es_append_batch('multi-2', '{C,D}', '{3,4}', 2), es_append('multi-3', 'B', '2', 1);
COMMIT;

-- Prepared, with the session's metadata under the event's own.
PREPARE append(text, jsonb, jsonb) AS SELECT es_append($1, 'A', $2, metadata => $3);
BEGIN;
SET LOCAL eventstore.metadata = ' {"user": "ann", "trace": {"id": 1}}';
EXECUTE append('p-1', '{}', NULL);
EXECUTE append('p-1', '{}', '{"user": "bob", "why": "test"}');
SELECT es_append_batch('p-1', '{A,B}', '{1,2}', metadata => ARRAY[NULL, '{"trace": null}']::jsonb[]);
COMMIT;
EXECUTE append('p-1', '{}', '{"user": "cyd"}');
EXECUTE append('p-1', '{}', NULL);
SELECT version, metadata FROM es_read_stream('p-1');
SELECT try(format('SELECT set_config(''eventstore.metadata'', %L, true)', m)) FROM unnest(ARRAY['[]', '1', 'x', '{', '{"a": "\u0000"}', ' ', '{}', '']) m;

-- Not in a read-only transaction; after all this the store is sound.
BEGIN READ ONLY;
SELECT try('SELECT es_append(''s-1'', ''A'', ''{}'')'), try('SELECT es_append_batch(''s-1'', ''{A}'', ''{1}'')'), try('INSERT INTO es_event (stream_id, event_type, data) VALUES (''s-1'', ''A'', ''{}'')');
COMMIT;
SELECT check_name, detail FROM es_check() WHERE status <> 'ok';
DROP FUNCTION try(text), id(int);
DROP EXTENSION eventstore;
