-- Segments leave the server as files and come back; what is missing or damaged
-- is told, never passed over.
CREATE EXTENSION eventstore;
\set VERBOSITY terse

INSERT INTO es_event (stream_id, event_type, data, metadata, tags)
	SELECT 'a-' || g % 3, 'T', jsonb_build_object('n', g, 's', E'\\ "ü" \u20ac', 'x', 1.50, 'a', '[1, null, {}]'::jsonb),
		CASE WHEN g % 2 = 0 THEN '{"m": 1}'::jsonb END, CASE WHEN g % 4 = 0 THEN ARRAY['b', 'ä'] END
	FROM generate_series(1, 60) g;
CREATE TABLE was AS SELECT * FROM es_event;
CALL es_archive(before_position => 41, segment_events => 20);
SELECT segment, events FROM es_archive_segment;
CREATE TABLE file AS SELECT segment, es_export_segment(segment) AS f FROM es_archive_segment;
SELECT es_export_segment(9);
SELECT segments, offline_segments, events FROM es_stat_archive;

-- Only who has the file at hand may take the segment off the server.
SELECT es_detach_segment(1, '\x00');
SELECT es_detach_segment(1, (SELECT f FROM file WHERE segment = 2));
SELECT es_detach_segment(9, (SELECT f FROM file WHERE segment = 2));
SELECT es_detach_segment(1, (SELECT set_byte(f, 200, get_byte(f, 200) # 1) FROM file WHERE segment = 1));
SELECT es_detach_segment(1, f) FROM file WHERE segment = 1;
SELECT es_detach_segment(1, f) FROM file WHERE segment = 1;
SELECT segments, offline_segments, events FROM es_stat_archive;

-- Without it: what needs it fails, the rest goes on.
SELECT count(*) FROM es_read_all(0, NULL);
SELECT count(*) FROM es_read_all(20, NULL);
SELECT count(*) FROM es_read_stream('a-1');
SELECT count(*) FROM es_read_stream('a-1', 8);
SELECT es_stream_version('a-1');
SELECT count(*) FROM es_read('{"items": [{"tags": ["b"]}]}');
SELECT count(*) FROM es_event_all;
SELECT es_append('a-1', 'T', '{}', event_id => (SELECT event_id FROM was WHERE position = 4));
SELECT es_append('a-1', 'T', '{}');
SELECT * FROM es_stream_list();
SELECT es_export_segment(1);
SELECT status, detail FROM es_check() WHERE check_name = 'archive';

-- And back, packed in another way.
SELECT es_import_segment(NULL);
SELECT es_import_segment(f, 'none') FROM file WHERE segment = 1;
SELECT codec FROM es_archive_segment WHERE segment = 1;
SELECT count(*), count(*) FILTER (WHERE w IS NOT DISTINCT FROM e) FROM was w JOIN es_event_all e USING (position);
SELECT check_name, detail FROM es_check() WHERE status <> 'ok';
SELECT es_import_segment(f) FROM file ORDER BY segment;
SELECT count(*), count(*) FILTER (WHERE w IS NOT DISTINCT FROM e) FROM was w JOIN es_event_all e USING (position);

-- Every byte of a file counts, and every length.
CREATE FUNCTION outcome(f bytea) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN 'imported ' || es_import_segment(f);
EXCEPTION WHEN OTHERS THEN
	RETURN sqlstate;
END
$$;
SELECT outcome(set_byte(f, i, get_byte(f, i) # 1)) AS flipped, count(*) > 0
	FROM file, generate_series(0, length(f) - 1) i WHERE segment = 1 GROUP BY 1;
SELECT outcome(substr(f, 1, i)) AS cut, count(*) > 0
	FROM file, generate_series(0, length(f) - 1) i WHERE segment = 1 GROUP BY 1;
-- A forged file has a checksum of its own, and lies about what it holds.
CREATE FUNCTION forged(f bytea, at int, bytes bytea) RETURNS bytea LANGUAGE sql AS $$
	SELECT b || sha256(b) FROM (SELECT overlay(substr(f, 1, length(f) - 32) PLACING bytes FROM at + 1)) x (b)
$$;
SELECT what, outcome(forged(f, at, bytes)) FROM file, (VALUES
	('as it is', 0, '\x4553'::bytea),
	('format', 8, '\x00000002'), ('codec', 12, '\x00000009'), ('another codec', 12, '\x00000000'),
	('number of events', 16, '\x7fffffff'), ('segment', 20, '\x0000000000000063'), ('the other segment', 20, '\x0000000000000002'),
	('bytes, too many', 28, '\x0000000000ffffff'), ('bytes, a great many', 28, '\x000000003fffffff'), ('bytes, negative', 28, '\xffffffffffffffff'),
	('packed', 36, '\x0000000000000001'), ('packed, negative', 36, '\xffffffffffffffff'),
	('encoding', 44, '\x4c4154494e310000')) v (what, at, bytes) WHERE segment = 1;
SELECT outcome(forged(f, i, '\xff')) IN ('22P03', 'imported 1') AS found_out, count(*) > 0
	FROM file, generate_series(60, length(f) - 33) i WHERE segment = 1 GROUP BY 1;

-- Damage in the stored bytes is found, wherever it is, and repaired.
CREATE FUNCTION damage(n bigint, at int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	ALTER TABLE es_archive_segment DISABLE TRIGGER ALL;
	UPDATE es_archive_segment SET content = set_byte(content, at % length(content), get_byte(content, at % length(content)) # 64) WHERE segment = n;
	ALTER TABLE es_archive_segment ENABLE ALWAYS TRIGGER es_archive_guard, ENABLE ALWAYS TRIGGER es_archive_guard_statement;
END
$$;
-- es_check() says so; a reader may do without the byte, but is never given less.
CREATE FUNCTION found(at int) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	answer text;
BEGIN
	PERFORM damage(2, at);
	SELECT status INTO answer FROM es_check() WHERE check_name = 'archive';
	PERFORM FROM was w LEFT JOIN es_read_all(0, NULL) e USING (position) WHERE w IS DISTINCT FROM e;
	RETURN answer || CASE WHEN FOUND THEN ', less was read' ELSE '' END;
EXCEPTION WHEN data_corrupted THEN
	PERFORM damage(2, at);
	RETURN answer;
END
$$;
SELECT length(content) AS bytes FROM es_archive_segment WHERE segment = 2 \gset
SELECT found(i) || ', ' || outcome((SELECT f FROM file WHERE segment = 2)) AS damaged, count(*) > 40
	FROM generate_series(0, :bytes - 1, 7) i GROUP BY 1;
SELECT damage(2, 0);
SELECT count(*) FROM es_read_all(0, NULL);
SELECT es_import_segment(f) FROM file WHERE segment = 2;
SELECT check_name, detail FROM es_check() WHERE status <> 'ok';

-- So is damage in the index of streams and ids.
BEGIN;
ALTER TABLE es_archive_key DISABLE TRIGGER ALL;
UPDATE es_archive_key SET entries = '\xffff';
ALTER TABLE es_archive_key ENABLE ALWAYS TRIGGER es_archive_guard, ENABLE ALWAYS TRIGGER es_archive_guard_statement;
SELECT count(*) FROM es_read_stream('a-1');
ROLLBACK;

DROP FUNCTION outcome(bytea), forged(bytea, int, bytea), damage(bigint, int), found(int);
DROP TABLE was, file;
DROP EXTENSION eventstore;
