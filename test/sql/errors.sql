-- errors: what no other test provokes
CREATE EXTENSION eventstore;

-- The store was tampered with.  What is missed is said; nothing is half done.
BEGIN;
ALTER TABLE es_gate RENAME TO es_door;
SELECT es_append('s-1', 'A', '{}');
ROLLBACK;
BEGIN;
CREATE INDEX own ON es_event_tag (tag) WHERE position > 0;
SELECT es_append('s-1', 'A', '{}', tags => '{t:1}');
ROLLBACK;
CREATE TABLE seen (n int);
SELECT es_create_projection('seen', 'inline', '{seen}');
SELECT es_on('seen', 'A', 'INSERT INTO seen VALUES (1)');
BEGIN;
ALTER TABLE es_event DISABLE TRIGGER es_event_statement_begin;
INSERT INTO es_event (stream_id, event_type, data) VALUES ('s-1', 'A', '{}');
ROLLBACK;
CREATE TYPE counter AS (n int);
SELECT es_create_aggregate('c', initial_state => '(0)', state_type => 'counter');
BEGIN;
DROP TYPE counter CASCADE;
SELECT es_state('c-1');
ROLLBACK;
BEGIN;
SELECT es_create_subscription('lost');
DELETE FROM es_subscription_partition;
SELECT position FROM es_fetch('lost', 'me');
ROLLBACK;
SELECT es_append_batch('old-1', array_fill('Old'::text, '{10}'), array_fill('{}'::jsonb, '{10}'));
CALL es_archive(5);
BEGIN;
ALTER TABLE es_archive_key DISABLE TRIGGER ALL;
UPDATE es_archive_key SET entries = '\x0064';
SELECT version FROM es_read_stream('old-1');
ROLLBACK;

-- The last version there is.
INSERT INTO es_event (position, version, recorded_at, event_id, type_version, stream_id, event_type, data)
	VALUES (1000, 9223372036854775807, now(), gen_random_uuid(), 1, 'full-1', 'A', '{}');
SELECT es_append('full-1', 'A', '{}');

-- Triggers in the wrong place.
CREATE TABLE place (name text PRIMARY KEY, owner regrole);
CREATE FUNCTION wrong(function text, fires text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE TRIGGER wrong %s EXECUTE FUNCTION %s()', fires, function);
	IF fires LIKE '%place%' THEN
		INSERT INTO place VALUES ('a');
	ELSE
		INSERT INTO es_event (stream_id, event_type, data) VALUES ('s-1', 'A', '{}');
	END IF;
	RETURN 'done';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ' ' || SQLERRM;
END $$;
SELECT function, fires, wrong(function, fires) FROM (VALUES
	('zz_es_event_insert', 'AFTER INSERT ON es_event FOR EACH ROW'), ('zz_es_event_insert', 'BEFORE INSERT ON place FOR EACH ROW'),
	('zz_es_event_statement', 'AFTER INSERT ON es_event FOR EACH ROW'), ('zz_es_stream_change', 'BEFORE INSERT ON place FOR EACH ROW'),
	('zz_es_projection_guard', 'AFTER INSERT ON place FOR EACH ROW')) v(function, fires);
CREATE FUNCTION called() RETURNS int AS 'eventstore', 'es_definition_change' LANGUAGE C;
SELECT called();

-- Texts and arguments.
SELECT es_evolve('c', 'A', 'state AS next');
SELECT es_create_projection('nowhere', tables => '{99999999}');
SELECT es_on('seen', 'B', 'COPY seen TO STDOUT');
SELECT es_append('s-1', 'B', '{}');

SELECT count(*) FROM seen;
SET client_min_messages = warning;
DROP EXTENSION eventstore CASCADE;
DROP TABLE seen, place;
DROP TYPE counter;
DROP FUNCTION wrong, called;
