-- log: places in the global order
CREATE EXTENSION eventstore;

-- An empty log.
SELECT es_last_position(), es_settled_position(), es_position_at('infinity'), es_position_at('-infinity'), es_settle();
SELECT singleton, position, written_at <= clock_timestamp() AS written FROM es_settled;

-- The last position is this session's: of an append, of a retry, of INSERT.
SELECT es_append('s-1', 'A', '{}'), es_last_position();
SELECT es_append_batch('s-1', '{A,B,C}', '{1,2,3}', event_ids => ARRAY['00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-000000000002', '00000000-0000-4000-8000-000000000003']::uuid[]), es_last_position();
SELECT es_append('s-1', 'A', '1', event_id => '00000000-0000-4000-8000-000000000001'), es_last_position();
INSERT INTO es_event (stream_id, event_type, data) VALUES ('s-1', 'D', '{}'), ('s-2', 'A', '{}');
SELECT es_last_position();
SELECT es_append('s-1', 'A', '{}', 0);
SELECT es_last_position();

-- Settled: all that is drawn, when nobody else is under way.  Own events count.
SELECT es_settled_position();
BEGIN;
SELECT es_append('s-1', 'E', '{}');
SELECT es_settled_position();
SAVEPOINT s;
SELECT es_append('s-1', 'F', '{}');
ROLLBACK TO s;
SELECT es_settled_position(), max(position) FROM es_event;
ROLLBACK;
SELECT es_settled_position(), max(position) FROM es_event;

-- At the higher levels it goes as far as the snapshot shows.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT es_settled_position(), max(position) FROM es_event;
SELECT es_append('s-1', 'E', '{}');
SELECT es_settled_position(), max(position) FROM es_event;
COMMIT;
SELECT es_settled_position();

-- Written down, it only ever rises.
SELECT es_settle();
SELECT es_append('s-1', 'G', '{}');
SELECT position FROM es_settled;
SELECT es_settle(), es_settle();
BEGIN;
SELECT es_append('s-1', 'H', '{}');
SELECT es_settle();
ROLLBACK;
SELECT position FROM es_settled;
SELECT es_settle(), es_settled_position();
INSERT INTO es_settled (position) VALUES (0);
\set VERBOSITY terse
INSERT INTO es_settled (singleton, position) VALUES (false, 0);
\set VERBOSITY default
BEGIN READ ONLY;
SELECT es_settle();
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT es_settled_position(), count(*) FROM es_event;
COMMIT;
UPDATE es_settled SET position = 3;
SELECT es_settle(), position FROM es_settled;
SELECT position FROM es_settled;

-- Places in time.  The owner may bring events with their time.
DROP EXTENSION eventstore;
CREATE EXTENSION eventstore;
INSERT INTO es_event (position, version, recorded_at, event_id, type_version, stream_id, event_type, data)
	SELECT p, v, '2020-01-01 00:00 UTC'::timestamptz + p * interval '1 day', gen_random_uuid(), 1, 't-1', 'A', '{}'
	FROM unnest(ARRAY[1, 2, 3, 10, 11, 50]) WITH ORDINALITY u(p, v);
SELECT at, es_position_at(at::timestamptz) FROM unnest(ARRAY['2020-01-01 00:00 UTC', '2020-01-02 00:00 UTC', '2020-01-02 23:59:59 UTC',
	'2020-01-04 00:00 UTC', '2020-01-08 00:00 UTC', '2020-01-11 00:00 UTC', '2020-01-12 00:00 UTC', '2020-02-19 00:00 UTC',
	'2020-02-20 00:00 UTC', '2100-01-01 00:00 UTC', 'infinity', '-infinity']) at;
SELECT es_position_at(NULL);
SELECT es_append('t-2', 'A', '{}');
SELECT es_position_at('2100-01-01'), es_position_at(clock_timestamp()) = 51 AS now, es_position_at('2020-06-01') AS between;
-- Read from there: the events after that time.
SELECT count(*) FROM es_read_all(es_position_at('2020-01-04 12:00 UTC'));

-- Positions far ahead move the sequence, and appending goes on behind them.
INSERT INTO es_event (position, version, recorded_at, event_id, type_version, stream_id, event_type, data)
	VALUES (100000, 1, '2020-01-01 UTC', gen_random_uuid(), 1, 't-3', 'A', '{}'), (60, 1, '2020-01-01 UTC', gen_random_uuid(), 1, 't-4', 'A', '{}');
SELECT es_append('t-2', 'B', '{}'), es_last_position(), es_settled_position();
SELECT position, stream_id FROM es_read_all(50);
BEGIN;
SELECT es_append('t-2', 'C', '{}');
INSERT INTO es_event (position, version, recorded_at, event_id, type_version, stream_id, event_type, data)
	VALUES (70, 1, '2020-01-01 UTC', gen_random_uuid(), 1, 't-5', 'A', '{}');
SELECT position FROM es_read_all(50);
COMMIT;

-- The time never goes back inside a stream, not even when the clock does.
INSERT INTO es_event (position, version, recorded_at, event_id, type_version, stream_id, event_type, data)
	VALUES (200000, 1, '2200-01-01 UTC', gen_random_uuid(), 1, 'future-1', 'A', '{}');
SELECT es_append('future-1', 'B', '{}'), es_append('future-2', 'B', '{}');
SELECT stream_id, version, recorded_at > '2199-01-01' AS future FROM es_event WHERE stream_id LIKE 'future%' ORDER BY position;
SELECT check_name, detail FROM es_check() WHERE status <> 'ok';

DROP EXTENSION eventstore;
