-- catalog: the extension's objects, wherever they are installed

-- Without the extension there is nothing, and once the library is loaded it says so.
SELECT es_append('s-1', 'A', '{}');
LOAD 'eventstore';
CREATE FUNCTION es_version(text) RETURNS bigint AS 'eventstore', 'es_stream_version' LANGUAGE C;
SELECT es_version('s-1');
DROP FUNCTION es_version(text);

-- In a schema with an odd name that is not in search_path.
CREATE SCHEMA "Odd ""schema"" 'x'";
CREATE EXTENSION eventstore SCHEMA "Odd ""schema"" 'x'";
SELECT "Odd ""schema"" 'x'".es_append('s-1', 'A', '{"n": 1}');
INSERT INTO "Odd ""schema"" 'x'".es_event (stream_id, event_type, data) VALUES ('s-1', 'B', '{"n": 2}');
SELECT position, version, event_type FROM "Odd ""schema"" 'x'".es_read_all();
SELECT "Odd ""schema"" 'x'".es_settle();
SELECT "Odd ""schema"" 'x'".es_settled_position(), "Odd ""schema"" 'x'".es_stream_version('s-1');
CREATE ROLE regress_es_reader;
SELECT "Odd ""schema"" 'x'".es_grant('regress_es_reader', 'admin');
SET ROLE regress_es_reader;
SELECT "Odd ""schema"" 'x'".es_settle();
RESET ROLE;
SELECT check_name FROM "Odd ""schema"" 'x'".es_check() WHERE status <> 'ok';

-- Moved in the middle of a session, with prepared statements open.
PREPARE append AS SELECT "Odd ""schema"" 'x'".es_append('s-1', 'C', '{}');
EXECUTE append;
ALTER EXTENSION eventstore SET SCHEMA public;
EXECUTE append;
SELECT es_append('s-1', 'D', '{}'), es_stream_version('s-1');
SELECT es_settle(), es_settled_position();
INSERT INTO es_event (stream_id, event_type, data) VALUES ('s-1', 'E', '{}') RETURNING position, version;
SELECT count(*) FROM es_read_stream('s-1');
BEGIN;
ALTER EXTENSION eventstore SET SCHEMA "Odd ""schema"" 'x'";
SELECT "Odd ""schema"" 'x'".es_append('s-1', 'F', '{}');
ROLLBACK;
SELECT es_append('s-1', 'F', '{}');

-- Dropped and created in one session: a new store.
DROP EXTENSION eventstore;
EXECUTE append;
CREATE EXTENSION eventstore SCHEMA "Odd ""schema"" 'x'";
EXECUTE append;
DEALLOCATE append;
SELECT position, version, event_type FROM "Odd ""schema"" 'x'".es_read_all();
DROP EXTENSION eventstore;
DROP SCHEMA "Odd ""schema"" 'x'";
DROP ROLE regress_es_reader;

-- The same in one transaction that is rolled back, and in one that is not.
CREATE EXTENSION eventstore;
SELECT es_append('s-1', 'A', '{}');
BEGIN;
SELECT es_append('s-1', 'B', '{}');
SAVEPOINT s;
DROP EXTENSION eventstore;
CREATE EXTENSION eventstore;
SELECT es_append('s-2', 'A', '{}'), es_append('s-1', 'A', '{}');
ROLLBACK TO s;
SELECT es_append('s-1', 'C', '{}');
COMMIT;
BEGIN;
DROP EXTENSION eventstore;
CREATE EXTENSION eventstore;
SELECT es_append('s-1', 'A', '{}'), es_stream_version('s-2');
COMMIT;
SELECT position, stream_id, version FROM es_read_all();

-- One store a database; its tables go with the extension only.
CREATE EXTENSION eventstore SCHEMA pg_catalog;
DROP TABLE es_event;
DROP SEQUENCE es_event_position_seq;

-- Tables and their columns.
SELECT attname, format_type(atttypid, atttypmod) AS type, attnotnull AS required,
		(SELECT collname FROM pg_collation c WHERE c.oid = attcollation) AS collation
	FROM pg_attribute WHERE attrelid = 'es_event'::regclass AND attnum > 0 ORDER BY attnum;
SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'es_event'::regclass AND contype IN ('p', 'u', 'c') ORDER BY 1;

-- Every table and sequence is dumped with its rows.
SELECT c.relname, c.relkind, c.oid = ANY (e.extconfig) AS dumped
	FROM pg_class c
	JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
	JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
	WHERE e.extname = 'eventstore' AND c.relkind IN ('r', 'S')
	ORDER BY c.relname;

-- Everything that is public says what it is; names have one signature each.
SELECT p.oid::regprocedure AS without_comment
	FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
	WHERE p.proname LIKE 'es\_%' AND obj_description(p.oid, 'pg_proc') IS NULL ORDER BY 1;
SELECT proname AS twice FROM pg_proc WHERE proname LIKE 'es\_%' GROUP BY 1 HAVING count(*) > 1;
SELECT p.proname AS unnamed_argument FROM pg_proc p
	WHERE p.proname LIKE 'es\_%' AND p.prorettype <> 'trigger'::regtype AND p.pronargs > 0
	AND (p.proargnames IS NULL OR '' = ANY (p.proargnames)) ORDER BY 1;
SELECT c.relname AS without_comment
	FROM pg_class c JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
	WHERE c.relname LIKE 'es\_%' AND obj_description(c.oid, 'pg_class') IS NULL ORDER BY 1;

-- A wrong setting is refused, whatever its name.
SET eventstore.no_such_setting = 1;
SET eventstore.max_stream_locks = -1;
SET eventstore.metadata = '[]';
DROP EXTENSION eventstore;
