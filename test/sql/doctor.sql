-- doctor: what es_check() says of a store that is not looked after
CREATE EXTENSION eventstore;
CREATE FUNCTION ill() RETURNS TABLE (check_name text, status text, detail text, hint text) LANGUAGE sql AS
	$$ SELECT check_name, status, regexp_replace(detail, '[0-9]+ s behind', 'N s behind'), hint FROM es_check() WHERE status <> 'ok' $$;
CREATE TABLE total (n int);
INSERT INTO total VALUES (0);

-- A store in health gives no hints.
SELECT count(*) FILTER (WHERE status = 'ok') = count(*) AS sound, count(hint) AS hints FROM es_check();

-- A projection that lags: its first event is a day old.
BEGIN;
INSERT INTO es_event (position, version, recorded_at, event_id, type_version, stream_id, event_type, data)
	VALUES (1, 1, now() - interval '1 day', gen_random_uuid(), 1, 's-1', 'A', '{}');
SELECT es_create_projection('late "one"', tables => '{total}');
SELECT es_on('late "one"', 'A', 'UPDATE total SET n = n + 1');
SELECT * FROM ill();
-- It does not when it is paused, or has caught up.
SELECT es_pause_projection('late "one"');
SELECT * FROM ill();
SELECT detail FROM es_check() WHERE check_name = 'projections';
ROLLBACK;

-- One that stopped.
SELECT es_create_projection('stopped', tables => '{total}');
SELECT es_on('stopped', 'A', 'SELECT 1 / (event.data ->> ''n'')::int');
SELECT es_append('s-1', 'A', '{"n": 0}');
CALL es_run_projections();
SELECT * FROM ill();
SELECT es_drop_projection('stopped');

-- Parked events, and nothing for those that come through.
SELECT es_create_projection('parking', tables => '{total}', on_error => 'skip');
SELECT es_on('parking', 'A', 'SELECT 1 / (event.data ->> ''n'')::int');
SELECT count(es_append('s-2', 'A', jsonb_build_object('n', n % 3))) FROM generate_series(1, 9) n;
CALL es_run_projections();
SELECT * FROM ill();

-- A checkpoint that nothing has led to, and a settled position that was never drawn.
BEGIN;
UPDATE es_projection SET position = 1000;
DELETE FROM es_parked;
SELECT * FROM ill();
ROLLBACK;
SELECT es_drop_projection('parking');
BEGIN;
SELECT es_settle();
UPDATE es_settled SET position = 12345;
SELECT * FROM ill();
ROLLBACK;

-- Statistics that nobody keeps; tables of definitions that somebody else owns, or that are not logged.
SET track_counts = off;
SELECT check_name, status, detail FROM ill();
RESET track_counts;
BEGIN;
CREATE ROLE regress_es_doctor;
GRANT CREATE ON SCHEMA public TO regress_es_doctor;
ALTER TABLE es_upcaster OWNER TO regress_es_doctor;
ALTER TABLE es_snapshot SET UNLOGGED;
SELECT check_name, status, replace(detail, current_user, 'OWNER') AS detail, hint FROM ill();
ROLLBACK;

-- No time at all: what is quick is done, all else is not finished, and says so.
SELECT check_name, status, detail, hint FROM es_check('0') WHERE status <> 'ok' AND check_name <> 'index structure';
SELECT check_name FROM es_check('0') WHERE status = 'ok' AND check_name <> 'index structure';
-- Enough of it, and what is wrong with the argument.
SELECT count(*) FILTER (WHERE status <> 'ok') FROM es_check('1 hour');
SELECT * FROM es_check('-1 s');
-- What is found wrong in time is an error all the same.
BEGIN;
INSERT INTO es_event (position, version, recorded_at, event_id, type_version, stream_id, event_type, data)
	VALUES (100, 7, now(), gen_random_uuid(), 1, 'x-1', 'A', '{}');
ALTER TABLE es_event DISABLE TRIGGER zz_es_event_insert;
SELECT check_name, status FROM es_check('0') WHERE status <> 'ok' ORDER BY status, check_name LIMIT 1;
ROLLBACK;

-- It writes nothing, so that it may be asked anywhere.
BEGIN READ ONLY;
SELECT count(*) FROM es_check() WHERE status <> 'ok';
COMMIT;
SET default_transaction_read_only = on;
SELECT count(*) FROM es_check() WHERE status <> 'ok';
RESET default_transaction_read_only;

DROP TABLE total;
DROP FUNCTION ill();
DROP EXTENSION eventstore;
