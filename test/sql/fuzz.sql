-- fuzz: what make fuzz and sqlsmith found, so that it stays found
CREATE EXTENSION eventstore;

-- A tombstone whose stream would have no name crashed the session.
SELECT es_append('s-1', 'A', '{}');
SELECT es_tombstone_stream('s-1');
UPDATE es_stream SET stream_id = NULL;
UPDATE es_stream SET stream_id = 's-2';
SELECT stream_id, tombstoned_at IS NOT NULL AS tombstoned FROM es_stream;

DROP EXTENSION eventstore;
