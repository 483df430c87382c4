-- epoch: which history a position belongs to
CREATE EXTENSION eventstore;
CREATE FUNCTION try(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE answer text; detail text; hint text;
BEGIN
	EXECUTE query INTO answer;
	RETURN answer;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(E'\n', SQLSTATE || ' ' || SQLERRM, nullif(detail, ''), nullif(hint, ''));
END $$;

-- Appending alone gives a store no epoch; the first question does, if it may write.
SELECT es_append('a-1', 'T', to_jsonb(n)) FROM generate_series(1, 4) n;
SELECT count(*) FROM es_epoch;
BEGIN READ ONLY;
SELECT try('SELECT es_store()');
ROLLBACK;
SELECT epoch, settled_position, store_id IS NOT NULL AS id FROM es_store();
SELECT s.epoch, s.settled_position, s.store_id = e.store_id AS same FROM es_store() s, es_epoch e;
SELECT epoch, fork_position, timeline > 0 AS timeline, d.datname = current_database() AS here FROM es_epoch e JOIN pg_database d ON d.oid = e.database;
BEGIN READ ONLY;
SELECT epoch, settled_position FROM es_store();
COMMIT;

-- Readers who give the present epoch read as ever.
SELECT string_agg(position::text, ' ') FROM es_read_all(1, epoch => 1);
SELECT string_agg(version::text, ' ') FROM es_read_stream('a-1', 1, epoch => 1);
SELECT string_agg(position::text, ' ') FROM es_read_all(9223372036854775807, epoch => 1);
SELECT string_agg(version::text, ' ') FROM es_read_stream('a-1', 9223372036854775807, epoch => 1);
-- One that the store never had.
SELECT try(q) FROM unnest(ARRAY['SELECT count(*) FROM es_read_all(0, epoch => 2)', 'SELECT count(*) FROM es_read_all(0, epoch => -9223372036854775808)',
	'SELECT count(*) FROM es_read_stream(''a-1'', epoch => 2)']) q;

-- As if the database had been copied from elsewhere, with 6 left open there.
BEGIN;
SELECT es_append('b-1', 'T', '0');
SELECT es_settle();
COMMIT;
BEGIN;
SELECT es_append('b-1', 'T', '0');
ROLLBACK;
SELECT es_append('b-1', 'T', to_jsonb(n)) FROM generate_series(1, 2) n;
UPDATE es_epoch SET database = 0;
\c -
-- A transaction that may not write answers what holds in both histories.
BEGIN READ ONLY;
SELECT epoch, settled_position FROM es_store();
SELECT string_agg(position::text, ' ') FROM es_read_all(5, epoch => 1);
SELECT try('SELECT count(*) FROM es_read_all(6, epoch => 1)');
COMMIT;
SELECT count(*) FROM es_epoch;
-- An append names the new history before it draws a position, once.
BEGIN;
SAVEPOINT s;
SELECT es_append('c-1', 'T', '{}');
ROLLBACK TO s;
SELECT es_append('c-1', 'T', '{}'), es_append('c-1', 'T', '{}');
INSERT INTO es_event (stream_id, event_type, data) VALUES ('c-1', 'T', '{}');
SELECT epoch > 1 AS newer, fork_position FROM es_epoch WHERE database <> 0;
COMMIT;
SELECT s.epoch > 1 AS newer, s.settled_position, s.epoch = max(e.epoch) AS newest, count(*), count(DISTINCT e.store_id) FROM es_store() s, es_epoch e GROUP BY s.epoch, s.settled_position;
-- Places up to the fork are good, whatever they are places of.
SELECT replace(try('SELECT string_agg(position::text, '' '') FROM es_read_all(' || p || ', epoch => 1)'), max(epoch)::text, 'NEW') FROM es_epoch, unnest(ARRAY[0, 4, 5, 6, 99]) p GROUP BY p ORDER BY p;
SELECT try('SELECT string_agg(version::text, '' '') FROM es_read_stream(' || a || ', epoch => 1)') FROM unnest(ARRAY['''a-1''', '''a-1'', 4', '''a-1'', 5', '''a-1'', 3, backwards => true', '''b-1'', 1', '''b-1'', 2', '''c-1''', '''c-1'', 1']) a;
SELECT string_agg(position::text, ' ') FROM es_read_all(6, epoch => (SELECT max(epoch) FROM es_epoch));

-- Queries and conditions likewise.
SELECT string_agg(position::text, ' ') FROM es_read('{}', 5, epoch => 1);
SELECT try('SELECT count(*) FROM es_read(''{}'', 6, epoch => 1)');
SELECT es_append_if('[{"type": "D", "data": {}}]', '{"items": [{"types": ["D"]}]}', 5, epoch => 1);
SELECT try('SELECT es_append_if(''[{"type": "D", "data": {}}]'', ''{"items": [{"types": ["E"]}]}'', 6, epoch => 1)');
SELECT try('SELECT es_try_append_if(''[{"type": "D", "data": {}}]'', NULL, 6, epoch => 2)');
-- A repetition is answered all the same.
SELECT es_append_if('[{"type": "F", "data": {}, "id": "00000000-0000-4000-8000-000000000001"}]', NULL) > 0 AS first;
SELECT es_append_if('[{"type": "F", "data": {}, "id": "00000000-0000-4000-8000-000000000001"}]', NULL, 6, epoch => 2) = max(position) AS again FROM es_event;

-- By INSERT, too.
DELETE FROM es_epoch WHERE epoch > 1;
\c -
INSERT INTO es_event (stream_id, event_type, data) VALUES ('c-1', 'T', '{}');
SELECT count(*) FROM es_epoch;

-- Subscriptions.  One that is created in the present epoch remembers it; so do
-- the partitions of a consumer that fetches in it.
DELETE FROM es_epoch WHERE epoch > 1;
UPDATE es_epoch SET database = d.oid FROM pg_database d WHERE datname = current_database();
\c -
SELECT es_settle() > 0 AS settled;
SELECT es_create_subscription('bound', from_position => 5, epoch => 1), es_create_subscription('free', from_position => 5), es_create_subscription('late');
SELECT try('SELECT es_create_subscription(''x'', epoch => 2)');
SELECT count(*) AS told, min(position) FROM es_fetch('bound', 'c') UNION ALL SELECT count(*), min(position) FROM es_fetch('free', 'c')
	UNION ALL SELECT count(*), min(position) FROM es_fetch('late', 'c', 5, epoch => 1);
SELECT es_ack(n, token) FROM unnest(ARRAY['bound', 'free', 'late']) n, LATERAL (SELECT min(token) AS token FROM es_fetch(n, 'c', CASE n WHEN 'late' THEN 5 ELSE 100 END)) f;
SELECT try('SELECT count(*) FROM es_fetch(''free'', ''c'', epoch => 2)');
SELECT subscription, position, epoch FROM es_subscription_partition ORDER BY 1;

-- As if the database had been copied: nobody who knows epochs is told of
-- another history in silence, whatever the checkpoint.
UPDATE es_settled SET position = 6;
UPDATE es_epoch SET database = 0;
\c -
SELECT n, try(format('SELECT count(*) FROM es_fetch(%L, ''c'', epoch => 1)', n)) FROM unnest(ARRAY['bound', 'late']) n;
SELECT n, try(format('SELECT count(*) FROM es_fetch(%L, ''c'')', n)) FROM unnest(ARRAY['bound', 'free', 'late']) n;
SELECT try('SELECT es_create_subscription(''x'', 9, epoch => 1)');
-- With the epoch of today they are told again, from the fork.
SELECT es_append('d-1', 'T', '{}');
SELECT epoch AS present FROM es_store() \gset
SELECT n, array_agg(position ORDER BY position) FROM unnest(ARRAY['bound', 'late']) n, LATERAL es_fetch(n, 'c', 3, epoch => :present) GROUP BY n ORDER BY n;
SELECT es_create_subscription('x', 5, epoch => 1);
SELECT subscription, position, epoch = :present AS is_present FROM es_subscription_partition ORDER BY 1;
SELECT count(*) > 0 AS told FROM es_fetch('bound', 'c');
SELECT n, count(es_drop_subscription(n)) FROM unnest(ARRAY['bound', 'free', 'late', 'x']) n GROUP BY n ORDER BY n;

-- Rights: to read is enough, also to be the first to ask.
DELETE FROM es_epoch;
CREATE ROLE regress_reader;
CREATE ROLE regress_stranger;
SELECT es_grant('regress_reader', 'reader');
SET ROLE regress_reader;
SELECT epoch FROM es_store();
SELECT try('INSERT INTO es_epoch SELECT * FROM es_epoch');
RESET ROLE;
GRANT EXECUTE ON FUNCTION es_store() TO regress_stranger;
SET ROLE regress_stranger;
SELECT try('SELECT es_store()');
RESET ROLE;
DROP OWNED BY regress_reader, regress_stranger;
DROP ROLE regress_reader, regress_stranger;
DROP FUNCTION try(text);
DROP EXTENSION eventstore;
