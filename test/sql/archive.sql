-- Old events move into compressed segments; every reader goes through both.
CREATE EXTENSION eventstore;
\set VERBOSITY terse

-- Whatever readers answer, as one value.
CREATE FUNCTION answers() RETURNS text LANGUAGE sql AS $$
	SELECT md5(concat_ws('|',
		(SELECT string_agg(e::text, ',' ORDER BY position) FROM es_read_all(0, NULL) e),
		(SELECT string_agg(e::text, ',') FROM es_read_all(37, 20, ARRAY['Even'], 'a') e),
		(SELECT string_agg(e::text, ',') FROM generate_series(0, 8) s, es_read_stream('a-' || s) e),
		(SELECT string_agg(e::text, ',') FROM generate_series(0, 8) s, generate_series(0, 30, 5) v,
			es_read_stream('a-' || s, v, 4) e),
		(SELECT string_agg(e::text, ',') FROM generate_series(0, 8) s, generate_series(0, 30, 5) v,
			es_read_stream('a-' || s, v, 4, backwards => true) e),
		(SELECT string_agg(e::text, ',') FROM es_read('{"items": [{"tags": ["t:1"]}]}') e),
		(SELECT string_agg(e::text, ',') FROM es_read('{"items": [{"tags": ["t:1", "u:1"]}, {"types": ["Odd"]}]}', 20, 30) e),
		(SELECT string_agg(e::text, ',') FROM es_read('{"items": [{"types": ["Odd"], "tags": ["t:2"]}]}', 150, 30, true) e),
		(SELECT string_agg(e::text, ',') FROM es_read('{}', 0, 7, true) e),
		(SELECT b.events::text FROM es_read_boundary('{"items": [{"tags": ["u:1"]}]}') b),
		(SELECT string_agg(s::text, ',') FROM es_stream_list() s),
		(SELECT string_agg(s::text, ',') FROM es_stream_list('a', 'a-3', 2) s),
		(SELECT string_agg(es_stream_version('a-' || s)::text, ',') FROM generate_series(0, 9) s),
		(SELECT string_agg(es_state('a-' || s)::text || es_state('a-' || s, at_version => 5)::text, ',') FROM generate_series(0, 8) s),
		(SELECT string_agg(es_position_at(recorded_at)::text, ',') FROM es_read_all(0, NULL)),
		(SELECT string_agg(e::text, ',' ORDER BY position) FROM es_event_all e)))
$$;
SELECT es_create_aggregate('a', initial_state => '0', state_type => 'bigint', snapshot_every => 7);
SELECT es_evolve('a', 'Even', 'state + (event.data ->> ''n'')::bigint');
SELECT es_evolve('a', 'Odd', 'state * 3 + 1');
DO $$
BEGIN
	FOR g IN 1 .. 200 LOOP
		PERFORM es_append('a-' || g % 9, CASE WHEN g % 2 = 0 THEN 'Even' ELSE 'Odd' END,
			jsonb_build_object('n', g, 'text', repeat('long ', g)), metadata => CASE WHEN g % 3 = 0 THEN '{"by": "me"}'::jsonb END,
			event_id => CASE WHEN g % 4 = 0 THEN md5(g::text)::uuid END,
			tags => CASE WHEN g % 5 < 3 THEN ARRAY['t:' || g % 5, 'u:' || g % 3] END);
	END LOOP;
	FOR g IN 1 .. 200 LOOP		-- holes in the positions
		IF g % 10 = 0 THEN PERFORM nextval('es_event_position_seq'); END IF;
	END LOOP;
	PERFORM es_append('a-1', 'Even', '{"n": 1000}');
END
$$;
SELECT es_truncate_stream('a-4', 6);
SELECT answers() AS before \gset

-- What does not work.
CALL es_archive();
CALL es_archive(before_position => 10, segment_events => 0);
CALL es_archive(before_position => 10, max_segments => 0);
CALL es_archive(before_position => 10, codec => 'zip');
BEGIN;
CALL es_archive(before_position => 10);
ROLLBACK;

-- Nothing before a position: nothing happens.
CALL es_archive(before_position => 1);
CALL es_archive(before_time => '-infinity');
SELECT count(*) FROM es_archive_segment;

CALL es_archive(before_position => 31, segment_events => 10);
SELECT segment, first_position, last_position, events, codec IN ('zstd', 'lz4', 'pglz') AS codec FROM es_archive_segment;
SELECT count(*), min(position) FROM es_event;
SELECT answers() = :'before' AS the_same;

-- Max_segments, each codec, and a single event a segment.
CALL es_archive(before_position => 1000, segment_events => 7, max_segments => 2, codec => 'pglz');
CALL es_archive(before_position => 1000, segment_events => 1, max_segments => 3, codec => 'none');
SELECT codec, count(*), max(last_position) FROM es_archive_segment WHERE segment > 3 GROUP BY codec ORDER BY codec;
SELECT answers() = :'before' AS the_same;
SELECT recorded_at AS middle FROM es_event_all WHERE position = 101 \gset
CALL es_archive(before_time => :'middle', segment_events => 11);
SELECT min(position) = 101 FROM es_event;
SELECT answers() = :'before' AS the_same;

-- Appends go on behind archived events, and a retry is answered as before.
BEGIN;
SELECT es_append('a-3', 'Even', '{"n": 1}', 22), es_stream_version('a-3');
SELECT es_append('a-3', 'Even', '{"n": 1}', 22);
ROLLBACK;
CALL es_archive(before_position => 100000);
SELECT count(*) FROM es_event;
SELECT answers() = :'before' AS the_same;
SELECT check_name, detail FROM es_check() WHERE status <> 'ok';
-- Where there is no time for all of the archive, nothing is said of what lies behind it.
SELECT check_name, status, detail FROM es_check('0') WHERE check_name IN ('archive', 'version runs', 'index agreement');
SELECT es_append('a-4', 'Even', (SELECT data FROM es_event_all WHERE position = 4), event_id => md5('4')::uuid) AS version, es_last_position();
SELECT es_append('a-4', 'Even', '{"n": 5}', event_id => md5('4')::uuid);
SELECT es_append('a-5', 'Even', '{"n": 5}', event_id => md5('8')::uuid);
INSERT INTO es_event (stream_id, event_type, data, event_id) VALUES ('a-4', 'Even', '{"n": 5}', md5('8')::uuid);
COPY es_event (stream_id, event_type, data, event_id) FROM stdin;
new-1	Even	{}	11111111-1111-4111-8111-111111111111
new-2	Even	{}	a87ff679-a2f3-e71d-9181-a67b7542122c
\.
SELECT es_append_if('[{"type": "Even", "data": {}, "stream": "x-1", "id": "a87ff679-a2f3-e71d-9181-a67b7542122c"}]', NULL);
SELECT es_append_if('[{"type": "Even", "data": {}, "tags": ["t:1"]}]', '{"items": [{"tags": ["t:1", "u:0"]}]}', 5);
SELECT es_append('a-2', 'Even', '{"n": 1}', 22);
SELECT es_append('a-2', 'Even', '{"n": 1}', 0);
SELECT es_append('a-2', 'Even', '{"n": 1}', 23), es_append('a-2', 'Odd', '{"n": 1}', 24);
SELECT version, position FROM es_read_stream('a-2', 21);
SELECT version, position FROM es_read_stream('a-2', 0, 4, backwards => true);

-- Life cycle, commands and tags reach into the archive.
SELECT es_truncate_stream('a-1', 20);
SELECT min(version), max(version) FROM es_read_stream('a-1');
SELECT es_delete_stream('a-8');
SELECT count(*) FROM es_read_stream('a-8');
SELECT es_append('a-8', 'Even', '{"n": 1}');
SELECT es_retag('{"items": [{"tags": ["t:2", "u:2"]}]}', add => ARRAY['late:1']);
SELECT count(*) FROM es_read('{"items": [{"tags": ["late:1"]}]}');
SELECT check_name, detail FROM es_check() WHERE status <> 'ok';

-- A projection that begins now sees it all.
CREATE TABLE sums (id text PRIMARY KEY, n bigint, total bigint);
SELECT es_create_projection('sums', tables => ARRAY['sums'::regclass]);
SELECT es_on('sums', 'Even', 'INSERT INTO sums VALUES (event.stream_id, 1, (event.data ->> ''n'')::bigint)
	ON CONFLICT (id) DO UPDATE SET n = sums.n + 1, total = sums.total + EXCLUDED.total');
SELECT lag_events, lag_seconds > 0 AS lags FROM es_stat_projection;
CALL es_run_projections();
SELECT sum(n), sum(total) FROM sums;
SELECT lag_events, lag_seconds FROM es_stat_projection;
CALL es_rebuild_projection('sums');
SELECT sum(n), sum(total) FROM sums;
SELECT es_project_at('sums', NULL, 100);
SELECT sum(n), sum(total) FROM sums;
DROP TABLE pg_temp.sums;
SELECT es_drop_projection('sums');
DROP TABLE sums;

-- SQL has no way to change the archive.
SELECT count(*) > 0 AS archived, sum(events) FROM es_archive_segment;
DELETE FROM es_archive_segment;
UPDATE es_archive_key SET entries = '';
TRUNCATE es_archive_run;
DELETE FROM es_event;

-- What the archive cannot hold is refused before anything is done.
CREATE TABLE refers (position bigint REFERENCES es_event);
CALL es_archive(before_position => 100000);
DROP TABLE refers;
ALTER TABLE es_event ADD COLUMN mine int DEFAULT 7;
CALL es_archive(before_position => 100000);
SELECT mine FROM es_read_stream('a-3', 0, 1);
ALTER TABLE es_event DROP COLUMN mine;
CALL es_archive(before_position => 100000);
SELECT position FROM es_read_stream('a-3', 0, 2);
SELECT check_name, detail FROM es_check() WHERE status <> 'ok';

DROP FUNCTION answers();
DROP EXTENSION eventstore;
