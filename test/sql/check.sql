-- check: the store's invariants, whole and broken
CREATE EXTENSION eventstore;

-- An empty store, and one with events, holes, and a stream id with odd characters.
SELECT check_name, status, replace(detail, current_user, 'OWNER') AS detail FROM es_check();
SELECT count(es_append('s-' || n % 3, 'A', '{}')) FROM generate_series(1, 10) n;
BEGIN;
SELECT es_append('s-0', 'Gone', '{}');
ROLLBACK;
SELECT es_append('%s "x" ä', 'A', '{}');
SELECT check_name, status, replace(detail, current_user, 'OWNER') AS detail FROM es_check();

-- Each way to break it is one transaction that is taken back.
CREATE FUNCTION broken() RETURNS TABLE (check_name text, detail text) LANGUAGE sql AS
	$$ SELECT check_name, detail FROM es_check() WHERE status <> 'ok' $$;
CREATE FUNCTION raw(pos bigint, stream text, version bigint, at timestamptz = now(), type text = 'A') RETURNS void LANGUAGE sql AS $$
	INSERT INTO es_event (position, version, recorded_at, event_id, type_version, stream_id, event_type, data)
		VALUES (pos, version, at, gen_random_uuid(), 1, stream, type, '{}')
$$;

-- A stream that does not begin with 1, one with a hole, two with one.
BEGIN;
SELECT raw(100, 'x-1', 2);
SELECT * FROM broken();
SELECT raw(101, 'x-2', 1), raw(102, 'x-2', 3);
SELECT * FROM broken();
ROLLBACK;
-- Positions that do not follow the versions.
BEGIN;
SELECT raw(101, 'x-1', 1), raw(100, 'x-1', 2), raw(102, 'x-1', 3);
SELECT * FROM broken();
ROLLBACK;
-- A time that goes back.
BEGIN;
SELECT raw(100, 'x-1', 1, '2020-01-02 UTC'), raw(101, 'x-1', 2, '2020-01-01 UTC');
SELECT * FROM broken();
ROLLBACK;
-- Raw rows that are as they should be.
BEGIN;
SELECT raw(100, 'x-1', 1, '2020-01-01 UTC'), raw(101, 'x-1', 2, '2020-01-01 UTC'), raw(102, 'x-1', 3);
SELECT * FROM broken();
SELECT es_append('x-1', 'A', '{}', 3);
SELECT * FROM broken();
ROLLBACK;
-- The owner's raw rows have names, too; a place that is taken stays so.
\set VERBOSITY terse
SELECT raw(100, '$x', 1);
SELECT raw(100, 'x-1', 1, now(), '');
SELECT raw(0, 'x-1', 1);
SELECT raw(100, 'x-1', 0);
SELECT raw(1, 'x-1', 1);
SELECT raw(100, 's-1', 1);
\set VERBOSITY default

-- The sequence is behind, keeps positions for later, or begins again.
BEGIN;
SELECT setval('es_event_position_seq', 5);
SELECT * FROM broken();
ROLLBACK;
SELECT setval('es_event_position_seq', 12);
BEGIN;
ALTER SEQUENCE es_event_position_seq CACHE 10;
SELECT * FROM broken();
ROLLBACK;
BEGIN;
ALTER SEQUENCE es_event_position_seq INCREMENT 2 CYCLE;
SELECT * FROM broken();
ROLLBACK;

-- Triggers disabled, or enabled for the origin only, or missing.
BEGIN;
ALTER TABLE es_event DISABLE TRIGGER zz_es_event_insert;
SELECT * FROM broken();
ROLLBACK;
BEGIN;
ALTER TABLE es_event ENABLE TRIGGER es_event_refuse_row;
SELECT * FROM broken();
ROLLBACK;
BEGIN;
ALTER TABLE es_event DISABLE TRIGGER ALL;
DELETE FROM es_event WHERE stream_id = 's-1' AND version = 2;
SELECT * FROM broken();
ROLLBACK;
BEGIN;
ALTER EXTENSION eventstore DROP FUNCTION zz_es_event_refuse();
DROP FUNCTION zz_es_event_refuse() CASCADE;
SELECT * FROM broken();
ROLLBACK;

-- Names that no append lets through.
BEGIN;
ALTER TABLE es_event DISABLE TRIGGER ALL;
UPDATE es_event SET event_type = E'a\u0001' WHERE position IN (1, 2);
SELECT * FROM broken();
ROLLBACK;

-- Another owner of one of the relations.
CREATE ROLE regress_es_thief;
BEGIN;
ALTER TABLE es_event OWNER TO regress_es_thief;
SELECT check_name, detail ~ 'does not own "es_event' AS ours FROM broken();
ROLLBACK;
BEGIN;
ALTER TABLE es_gate OWNER TO regress_es_thief;
SELECT check_name, detail ~ 'does not own "es_gate"' AS gate FROM broken();
ROLLBACK;
DROP ROLE regress_es_thief;

-- Not logged.
BEGIN;
ALTER TABLE es_event SET UNLOGGED;
SELECT check_name, detail ~ 'is not logged' AS unlogged FROM broken();
ROLLBACK;

-- A unique index that is none any more.
BEGIN;
UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'es_event_event_id_key'::regclass;
SELECT * FROM broken();
ROLLBACK;

-- A row that an index does not lead to: added while the index looked unready.
BEGIN;
UPDATE pg_index SET indisready = false WHERE indexrelid = 'es_event_event_id_key'::regclass;
SELECT es_append('s-1', 'A', '{}');
UPDATE pg_index SET indisready = true WHERE indexrelid = 'es_event_event_id_key'::regclass;
SELECT * FROM broken();
ROLLBACK;

-- Whole again after all that.
SELECT * FROM broken();
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY;
SELECT count(*) FROM es_check();
COMMIT;

DROP FUNCTION broken(), raw(bigint, text, bigint, timestamptz, text);
DROP EXTENSION eventstore;
