-- stat: the store in numbers
CREATE EXTENSION eventstore;
CREATE FUNCTION counters(OUT appended bigint, OUT conflicts bigint, OUT rejected bigint, OUT retries bigint) LANGUAGE sql AS
	$$ SELECT appended, conflicts, rejected, retries FROM es_stat_store $$;
CREATE FUNCTION id(n int) RETURNS uuid LANGUAGE sql IMMUTABLE AS
	$$ SELECT ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid $$;

-- An empty store.
SELECT events, streams, is_estimate, events_per_second, table_bytes > 0 AS has_bytes, last_position, settled_position, settled_age_seconds,
	holder_pid, holder_gid, holder_position, holder_age_seconds FROM es_stat_store;
SELECT * FROM counters();
SELECT * FROM es_stat_stream;
SELECT * FROM es_progress;

-- What is counted: events by every route, and those rolled back.
SELECT es_append('s-1', 'A', '{}');
SELECT es_append_batch('s-2', ARRAY['A', 'B', 'C'], ARRAY['{}', '{}', '{}']::jsonb[]);
INSERT INTO es_event (stream_id, event_type, data) VALUES ('s-3', 'A', '{}'), ('s-3', 'B', '{}');
SELECT es_append_if('[{"type": "T", "data": {}, "tags": ["t:1"]}]', '{"items": [{"tags": ["t:1"]}]}');
BEGIN;
SELECT es_append('s-1', 'A', '{}');
ROLLBACK;
SELECT pg_stat_force_next_flush();
SELECT * FROM counters();
SELECT events, streams, is_estimate, events_per_second > 0 AS has_speed FROM es_stat_store;

-- Conflicts: a stale version, a boundary that moved, in both manners.
SELECT es_append('s-1', 'A', '{}', 7);
SELECT es_append_if('[{"type": "T", "data": {}, "tags": ["t:1"]}]', '{"items": [{"tags": ["t:1"]}]}', 0);
SELECT appended FROM es_try_append_if('[{"type": "T", "data": {}, "tags": ["t:1"]}]', '{"items": [{"tags": ["t:1"]}]}', 0);
-- Repetitions: of an append, a conditional append and a command; a rejected command.
SELECT es_append('s-4', 'A', '{}', event_id => id(1)), es_append('s-4', 'A', '{}', event_id => id(1));
SELECT es_create_aggregate('account', initial_state => '{"n": 0}');
SELECT es_evolve('account', 'Counted', $$ jsonb_build_object('n', (state ->> 'n')::int + 1) $$);
SELECT es_decide('account', 'Count', $$ SELECT 'Counted', '{}'::jsonb $$, reject => $$ CASE WHEN (state ->> 'n')::int > 0 THEN 'enough' END $$);
SELECT es_handle('account-1', 'Count', command_id => id(2)), es_handle('account-1', 'Count', command_id => id(2));
SELECT es_handle('account-1', 'Count');
SELECT pg_stat_force_next_flush();
SELECT * FROM counters();
-- Asking and resetting; nobody else's statistics are touched.
SELECT pg_stat_get_tuples_inserted('es_event'::regclass) > 0 AS inserted;
SELECT es_stat_reset();
SELECT * FROM counters();
SELECT stats_reset > now() - interval '1 hour' AS reset FROM es_stat_store;
SELECT pg_stat_get_tuples_inserted('es_event'::regclass) > 0 AS inserted;

-- The streams, against counting; with names that are hard on an index walk.
SELECT es_append(id, 'A', jsonb_build_object('x', repeat('y', 10))) FROM unnest(ARRAY['-', 'a', 'a-', 'a--', E'\u00e4-1', 'zz', repeat('n', 1024)]) id;
SELECT es_append('big-1', 'A', to_jsonb((SELECT string_agg(md5(n::text), '') FROM generate_series(1, 500) n)));
CREATE VIEW counted AS
	SELECT stream_id, es_category(stream_id) AS category, count(*) AS events, max(position) AS last_position, max(recorded_at) AS last_recorded_at
	FROM es_event GROUP BY stream_id;
SELECT count(*) FROM counted;
SELECT count(*) FROM es_stat_stream;
SELECT stream_id FROM (TABLE counted EXCEPT SELECT stream_id, category, events, last_position, last_recorded_at FROM es_stat_stream) x;
SELECT stream_id, events, bytes > 15000 AS big FROM es_stat_stream ORDER BY bytes DESC LIMIT 1;
SELECT count(*) FROM es_stat_stream WHERE bytes < 30;

-- A large store is estimated, holes and all: 20,000 events, of which 10,000
-- never came, between those there are.
SELECT count(es_append('many-' || n % 2000, 'A', '{}')) FROM generate_series(1, 10000) n;
BEGIN;
SELECT count(es_append('none-' || n, 'A', '{}')) FROM generate_series(1, 10000) n;
ROLLBACK;
SELECT count(es_append('more-' || n % 1000, 'A', '{}')) FROM generate_series(1, 10000) n;
SELECT is_estimate, abs(events - (SELECT count(*) FROM es_event)) < 600 AS events, abs(streams - (SELECT count(*) FROM counted)) < 600 AS streams,
	last_position > events AS has_holes FROM es_stat_store;
SELECT (SELECT (events, streams) FROM es_stat_log()) = (SELECT (events, streams) FROM es_stat_log()) AS says_the_same_twice;
SELECT stream_id FROM (TABLE counted EXCEPT SELECT stream_id, category, events, last_position, last_recorded_at FROM es_stat_stream) x;

-- Progress: seen from inside a handler.
CREATE TABLE seen (job text, phase text, done bigint, total bigint, mine boolean);
BEGIN;
SELECT es_create_projection('watch it', tables => '{seen}', category => 'account');
SELECT es_on('watch it', 'Counted', $$ INSERT INTO seen SELECT job, phase, done, total, pid = pg_backend_pid() FROM es_progress $$);
COMMIT;
CALL es_run_projections();
SELECT job, phase, done < total AS under_way, mine FROM seen;
SELECT * FROM es_progress;

-- Who may look.
CREATE ROLE regress_es_stat_reader;
CREATE ROLE regress_es_stat_monitor;
GRANT pg_monitor TO regress_es_stat_monitor;
SELECT es_grant('regress_es_stat_reader', 'reader');
SELECT pg_stat_force_next_flush();
SET ROLE regress_es_stat_reader;
SELECT appended > 0 AS appended FROM es_stat_store;
SELECT count(*) FROM es_progress;
SELECT count(*) FROM es_stat_stream;
SELECT es_stat_reset();
SET ROLE regress_es_stat_monitor;
SELECT appended > 0 AS appended FROM es_stat_store;
SELECT count(*) > 0 AS streams FROM es_stat_stream;
SELECT name, status FROM es_stat_projection;
SELECT count(*) FROM es_progress;
SELECT count(*) FROM es_event;
SELECT es_stat_reset();
RESET ROLE;
DROP OWNED BY regress_es_stat_reader;
DROP ROLE regress_es_stat_reader, regress_es_stat_monitor;
DROP TABLE seen;
DROP VIEW counted;
DROP FUNCTION counters(), id(int);
DROP EXTENSION eventstore;
