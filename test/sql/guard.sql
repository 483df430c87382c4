-- guard: INSERT and COPY, what is refused, and who may do what
CREATE EXTENSION eventstore;
CREATE FUNCTION try(query text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE query;
	RETURN 'done';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ' ' || SQLERRM;
END $$;
CREATE FUNCTION id(n int) RETURNS uuid LANGUAGE sql IMMUTABLE AS
	$$ SELECT ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid $$;

-- INSERT: what is left out is assigned; a version that is given is checked.
INSERT INTO es_event (stream_id, event_type, data) VALUES ('s-1', 'A', '{}'), ('s-1', 'B', '[1]')
	RETURNING position, version, recorded_at <= clock_timestamp() AS time, event_id::text LIKE '%-7%' AS id, type_version, data, metadata, tags;
INSERT INTO es_event (stream_id, event_type, data, version, event_id, type_version, metadata, tags)
	VALUES ('s-1', 'C', '{}', 3, id(1), 2, '{"a": 1}', '{y,x,y}') RETURNING position, version, event_id = id(1) AS id, type_version, metadata, tags;
SET eventstore.metadata = '{"user": "ann"}';
INSERT INTO es_event (stream_id, event_type, data, metadata) VALUES ('s-1', 'D', '{}', NULL), ('s-1', 'D', '{}', '{"user": "bob"}') RETURNING metadata;
RESET eventstore.metadata;
SELECT n, try('INSERT INTO es_event (stream_id, event_type, data, ' || columns || ') VALUES (''s-1'', ''A'', ''{}'', ' || vals || ')')
	FROM (VALUES (1, 'version', '5'), (2, 'version', '7'), (3, 'version', '0'), (4, 'version', '-1'), (5, 'version', '6'), (6, 'version', 'NULL'),
	(7, 'recorded_at', 'now()'), (8, 'metadata', '''[]'''), (9, 'metadata', '''null'''), (10, 'type_version', '0'), (11, 'type_version', 'NULL'),
	(12, 'tags', '''{a,NULL}'''), (13, 'event_id', 'id(1)'), (14, 'event_id', 'NULL'), (15, 'version, recorded_at', '9, ''infinity''')) v(n, columns, vals) ORDER BY n;
INSERT INTO es_event (stream_id, event_type, data) VALUES ('s-1', 'A', NULL);
INSERT INTO es_event (stream_id, event_type, data, recorded_at) VALUES ('s-1', 'A', '{}', now());
INSERT INTO es_event DEFAULT VALUES;
-- All or nothing, also where the second row is wrong.
INSERT INTO es_event (stream_id, event_type, data, version) VALUES ('s-2', 'A', '{}', 1), ('s-2', 'B', '{}', 3);
SELECT es_stream_version('s-2');
-- A retry by INSERT.
INSERT INTO es_event (stream_id, event_type, data, event_id) VALUES ('s-3', 'A', '{}', id(31)), ('s-3', 'B', '{}', id(32)) ON CONFLICT (event_id) DO NOTHING RETURNING version;
INSERT INTO es_event (stream_id, event_type, data, event_id) VALUES ('s-3', 'A', '{}', id(31)), ('s-3', 'B', '{}', id(32)), ('s-3', 'C', '{}', id(33)) ON CONFLICT DO NOTHING RETURNING version;
SELECT es_append('s-3', 'A', '{}', event_id => id(31)) AS same_by_function;

-- COPY
COPY es_event (stream_id, event_type, data, metadata, version, event_id) FROM STDIN;
c-1	A	{"n": 1}	\N	\N	\N
c-1	B	{"n": 2}	{"a": 1}	2	00000000-0000-4000-8000-000000000041
c-2	A	{"n": 3}	\N	1	\N
\.
SELECT stream_id, version, event_type, data, metadata FROM es_event WHERE stream_id LIKE 'c-%' ORDER BY position;
COPY es_event (stream_id, event_type, data, version) FROM STDIN;
c-3	A	{}	1
c-3	B	{}	1
\.
COPY es_event (stream_id, event_type, data, recorded_at) FROM STDIN;
c-3	A	{}	2020-01-01
\.
COPY es_event (stream_id, event_type, data) FROM STDIN (FORMAT csv);
$c,A,{}
\.
SELECT es_stream_version('c-3');

-- Nothing changes, for nobody, by no route; not even where no row is concerned.
CREATE TABLE account (id text PRIMARY KEY);
CREATE FUNCTION changes() RETURNS TABLE (statement text, outcome text) LANGUAGE sql AS $$
	SELECT s, try(s) FROM unnest(ARRAY['UPDATE es_event SET data = ''1''', 'UPDATE es_event SET tags = ''{}'' WHERE false', 'DELETE FROM es_event', 'DELETE FROM ONLY es_event WHERE false',
		'TRUNCATE es_event', 'TRUNCATE account, es_event CASCADE',
		'MERGE INTO es_event e USING account a ON e.stream_id = a.id WHEN NOT MATCHED THEN INSERT (stream_id, event_type, data) VALUES (''s-9'', ''A'', ''{}'')',
		'MERGE INTO es_event e USING es_event f ON e.position = f.position WHEN MATCHED THEN DELETE',
		'INSERT INTO es_event (stream_id, event_type, data, event_id) VALUES (''s-3'', ''A'', ''{}'', id(31)) ON CONFLICT (event_id) DO UPDATE SET data = ''1''',
		'WITH d AS (DELETE FROM es_event RETURNING *) SELECT count(*) FROM d']) s
$$;
SELECT * FROM changes();
SET session_replication_role = replica;
SELECT * FROM changes();
INSERT INTO es_event (stream_id, event_type, data) VALUES ('s-2', 'A', '{}') RETURNING version;
RESET session_replication_role;
CREATE ROLE regress_es_owner;
GRANT CREATE, USAGE ON SCHEMA public TO regress_es_owner;
GRANT ALL ON account TO regress_es_owner;
ALTER TABLE es_event OWNER TO regress_es_owner;
SET ROLE regress_es_owner;
SELECT outcome, count(*) FROM changes() GROUP BY 1 ORDER BY 1;
RESET ROLE;
ALTER TABLE es_event OWNER TO CURRENT_USER;
DELETE FROM es_event WHERE position = 1;
-- Foreign keys lead to no deletion, either; the trigger functions serve no other table.
CREATE TABLE note (event bigint REFERENCES es_event ON DELETE CASCADE);
INSERT INTO note VALUES (1);
TRUNCATE es_event CASCADE;
CREATE TRIGGER t BEFORE INSERT ON account FOR EACH ROW EXECUTE FUNCTION zz_es_event_insert();
INSERT INTO account VALUES ('s-1');
SELECT zz_es_event_refuse();
DROP TRIGGER t ON account;
DROP TABLE note;

DROP TABLE account;

-- Who may call what, generated: a new function shows up here.
CREATE ROLE regress_es_stranger;
CREATE ROLE regress_es_reader;
CREATE ROLE regress_es_writer;
CREATE ROLE regress_es_admin;
SELECT es_grant('regress_es_reader', 'reader'), es_grant('regress_es_writer', 'writer'), es_grant('regress_es_admin', 'admin');
CREATE VIEW object AS SELECT d.classid, d.objid AS oid FROM pg_depend d
	WHERE d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'eventstore');
SELECT p.oid::regprocedure AS function, has_function_privilege('regress_es_stranger', p.oid, 'EXECUTE') AS stranger,
		has_function_privilege('regress_es_reader', p.oid, 'EXECUTE') AS reader, has_function_privilege('regress_es_writer', p.oid, 'EXECUTE') AS writer,
		has_function_privilege('regress_es_admin', p.oid, 'EXECUTE WITH GRANT OPTION') AS admin
	FROM object JOIN pg_proc p USING (oid) WHERE classid = 'pg_proc'::regclass ORDER BY p.proname COLLATE "C";
SELECT c.relname AS relation, r AS role, string_agg(p, ' ' ORDER BY n) AS privileges
	FROM object JOIN pg_class c USING (oid), unnest(ARRAY['stranger', 'reader', 'writer', 'admin']) WITH ORDINALITY roles(r, i),
		unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) WITH ORDINALITY privileges(p, n)
	WHERE classid = 'pg_class'::regclass AND c.relkind IN ('r', 'v', 'S') AND has_table_privilege('regress_es_' || r, c.oid, p)
	GROUP BY 1, 2, i ORDER BY 1, i;

-- What each of them meets.
CREATE FUNCTION attempts() RETURNS TABLE (statement text, outcome text) LANGUAGE sql AS $$
	SELECT s, try(s) FROM unnest(ARRAY['SELECT es_append(''p-1'', ''A'', ''{}'')', 'INSERT INTO es_event (stream_id, event_type, data) VALUES (''p-1'', ''A'', ''{}'')',
		'INSERT INTO es_event (position, version, recorded_at, event_id, type_version, stream_id, event_type, data) VALUES (900, 1, now(), gen_random_uuid(), 1, ''p-2'', ''A'', ''{}'')',
		'SELECT count(*) FROM es_read_all()', 'SELECT count(*) FROM es_event', 'SELECT es_stream_version(''p-1''), es_settled_position(), es_position_at(now())', 'SELECT es_settle()', 'SELECT count(*) FROM es_check()',
		'SELECT nextval(''es_event_position_seq'')', 'SELECT setval(''es_event_position_seq'', 1)', 'LOCK TABLE es_gate', 'UPDATE es_event SET data = ''1''', 'TRUNCATE es_event',
		'ALTER TABLE es_event DISABLE TRIGGER ALL', 'SELECT es_grant(''regress_es_stranger'', ''reader'')']) s
$$;
SET ROLE regress_es_stranger;
SELECT outcome, count(*) FROM attempts() GROUP BY 1 ORDER BY 1;
SET ROLE regress_es_reader;
SELECT * FROM attempts();
SET ROLE regress_es_writer;
SELECT * FROM attempts();
SET ROLE regress_es_admin;
SELECT * FROM attempts();
SET ROLE regress_es_stranger;
SELECT count(*) >= 0 AS read FROM es_read_all();
RESET ROLE;
-- The right to call is not the right to the table.
GRANT EXECUTE ON FUNCTION es_append(text, text, jsonb, bigint, jsonb, uuid, text[]), es_check(interval) TO regress_es_owner;
SET ROLE regress_es_owner;
SELECT es_append('p-1', 'A', '{}');
SELECT count(*) FROM es_check();
RESET ROLE;
-- Row-level security is the executor's: the functions say so where it applies.
ALTER TABLE es_event ENABLE ROW LEVEL SECURITY;
SELECT es_append('p-1', 'Owner', '{}') > 0 AS owner;
SET ROLE regress_es_writer;
SELECT es_append('p-1', 'A', '{}');
SELECT count(*) FROM es_read_all();
RESET ROLE;
ALTER TABLE es_event DISABLE ROW LEVEL SECURITY;

\set SHOW_CONTEXT never
SELECT es_grant(NULL, 'reader');
SELECT es_grant('regress_es_stranger', NULL);
SELECT es_grant('regress_es_stranger', 'owner');
SELECT es_grant('regress_es_nobody', 'reader');

DROP VIEW object;
DROP FUNCTION try(text), id(int), changes(), attempts();
-- Default privileges of whoever installs it open nothing, either.
DROP EXTENSION eventstore;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO PUBLIC;
CREATE EXTENSION eventstore;
SELECT relname, relacl::text ~ '[{,]=' AS public FROM pg_class WHERE relname LIKE 'es\_%' AND relkind IN ('r', 'S') ORDER BY 1;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM PUBLIC;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON SEQUENCES FROM PUBLIC;
DROP EXTENSION eventstore;
REVOKE ALL ON SCHEMA public FROM regress_es_owner, regress_es_stranger, regress_es_reader, regress_es_writer, regress_es_admin CASCADE;
DROP ROLE regress_es_owner, regress_es_stranger, regress_es_reader, regress_es_writer, regress_es_admin;
