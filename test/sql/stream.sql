-- stream: names, versions, the lock on a stream
CREATE EXTENSION eventstore;

-- What a call answers or fails with, in one line.
CREATE FUNCTION try(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE answer text;
BEGIN
	EXECUTE query INTO answer;
	RETURN answer;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ' ' || SQLERRM;
END $$;

-- Category: what stands before the first "-".
SELECT id, es_category(id) FROM (VALUES ('account-1'), ('account-ACC-001'), ('account'), ('-1'), ('a-'), (''), ('Größe-1'), (NULL)) v(id);

-- Names of streams, by es_append and by INSERT.
CREATE TABLE name (n int, what text, id text);
INSERT INTO name VALUES
	(1, 'one byte', 'a'), (2, 'any characters', 'x y/z''"\%ä日😀'),
	(3, 'as long as can be', repeat('a', 1024)), (4, 'too long', repeat('a', 1025)),
	(5, 'the limit counts bytes', repeat('ä', 512)), (6, 'too long in bytes', repeat('ä', 512) || 'a'),
	(7, 'empty', ''), (8, 'null', NULL), (9, 'reserved', '$all'), (10, 'a $ elsewhere', 'a$'),
	(11, 'tab', E'a\tb'), (12, 'newline at the end', E'a\n'), (13, 'C0', E'a\u0001'), (14, 'highest C0', E'a\u001F'),
	(15, 'DEL', E'a\u007F'), (16, 'lowest C1', E'a\u0080'), (17, 'highest C1', E'a\u009F'), (18, 'next to C1', E'a\u00A0'),
	(19, 'a C1 byte in another character', 'ԀĀ'), (20, 'very long', repeat('日', 100000));
SELECT n, what, try(format('SELECT es_append(%L, ''A'', ''{}'')', id)) AS by_function,
		try(format('INSERT INTO es_event (stream_id, event_type, data) VALUES (%L, ''A'', ''{}'') RETURNING version', id)) AS by_insert,
		try(format('SELECT es_append_batch(%L, ''{A}'', ''{"{}"}'')', id)) AS by_batch
	FROM name ORDER BY n;

-- Names of event types: at most 255 bytes, else the same.
UPDATE name SET id = repeat('a', 255) WHERE n = 3;
UPDATE name SET id = repeat('a', 256) WHERE n = 4;
UPDATE name SET id = repeat('ä', 127) || 'a' WHERE n = 5;
UPDATE name SET id = repeat('ä', 128) WHERE n = 6;
SELECT n, what, try(format('SELECT es_append(''type-1'', %L, ''{}'')', id)) AS by_function,
		try(format('INSERT INTO es_event (stream_id, event_type, data) VALUES (''type-1'', %L, ''{}'') RETURNING version', id)) AS by_insert,
		try(format('SELECT es_append_batch(''type-1'', ARRAY[''A'', %L], ''{"{}","{}"}'')', id)) AS by_batch
	FROM name ORDER BY n;
DROP TABLE name;

-- The detail says how long it was.
SELECT es_append(repeat('ä', 600), 'A', '{}');
SELECT es_append('$s', 'A', '{}');

-- Names that differ are different, whatever the locale thinks.
SELECT es_append(id, 'A', '{}') FROM unnest(ARRAY['b-1', 'B-1', 'b-1 ', 'b--1', U&'a\0308-1', U&'\00E4-1']) id;

-- Versions.
SELECT es_stream_version('none'), es_stream_version(''), es_stream_version('b-1');
SELECT es_stream_version(NULL);
SELECT es_append('v-1', 'A', '{}'), es_stream_version('v-1');
SELECT es_stream_version('v-1');
BEGIN;
SELECT es_append('v-1', 'A', '{}') FROM generate_series(1, 3);
SELECT es_stream_version('v-1');
SAVEPOINT s;
SELECT es_append('v-1', 'A', '{}');
SELECT es_stream_version('v-1');
ROLLBACK TO s;
SELECT es_stream_version('v-1');
ROLLBACK;
SELECT es_stream_version('v-1');

-- As many single locks as allowed, however often a stream comes again; one
-- more takes the gate for all.
CREATE VIEW held AS
	SELECT count(*) FILTER (WHERE locktype = 'advisory' AND objsubid::int & 65535 = 58625) AS streams,
			count(*) FILTER (WHERE locktype = 'advisory' AND objsubid::int & 65535 = 58626) AS announcements,
			string_agg(mode, ', ' ORDER BY mode) FILTER (WHERE relation = 'es_gate'::regclass) AS gate
		FROM pg_locks WHERE pid = pg_backend_pid();
SET eventstore.max_stream_locks = 3;
BEGIN;
SELECT count(es_append('lock-' || n % 3, 'A', '{}')) FROM generate_series(1, 9) n;
SELECT * FROM held;
SELECT count(es_append('lock-' || n % 4, 'A', '{}')) FROM generate_series(1, 9) n;
SELECT * FROM held;
COMMIT;
SELECT * FROM held;
SET eventstore.max_stream_locks = 0;
BEGIN;
SELECT es_append('lock-0', 'A', '{}');
SELECT * FROM held;
ROLLBACK;
RESET eventstore.max_stream_locks;

-- A failed append announces nothing, and its locks go with its savepoint.
BEGIN;
SELECT try('SELECT es_append(''lock-0'', ''A'', ''{}'', 77)');
SELECT * FROM held;
ROLLBACK;

-- Very many streams in one transaction, without exhausting the lock table.
BEGIN;
SELECT count(es_append('many-' || n, 'A', '{}')) FROM generate_series(1, 100000) n;
INSERT INTO es_event (stream_id, event_type, data) SELECT 'many-' || n, 'B', '{}' FROM generate_series(1, 1000) n;
SELECT * FROM held;
COMMIT;
SELECT version, count(*) FROM es_event WHERE es_category(stream_id) = 'many' GROUP BY 1 ORDER BY 1;
SELECT check_name, detail FROM es_check() WHERE status <> 'ok';

DROP VIEW held;
DROP FUNCTION try(text);
DROP EXTENSION eventstore;
