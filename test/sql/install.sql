-- install: CREATE EXTENSION and ALTER EXTENSION UPDATE, by a superuser, where
-- somebody else has prepared the ground.
\set SHOW_CONTEXT never
CREATE ROLE regress_es_mallory;
CREATE ROLE regress_es_dba SUPERUSER;
SELECT session_user AS me \gset
CREATE FUNCTION ring() RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING 'hijacked as %', current_user; END $$;
GRANT CREATE ON SCHEMA public TO regress_es_mallory;

-- A schema that is another's, whatever its name.
CREATE SCHEMA "a b" AUTHORIZATION regress_es_mallory;
CREATE SCHEMA "x'y""z; DROP TABLE t --" AUTHORIZATION regress_es_mallory;
CREATE EXTENSION eventstore SCHEMA "a b";
CREATE EXTENSION eventstore SCHEMA "x'y""z; DROP TABLE t --";
ALTER SCHEMA "x'y""z; DROP TABLE t --" OWNER TO :me;
CREATE EXTENSION eventstore SCHEMA "x'y""z; DROP TABLE t --";
SELECT "x'y""z; DROP TABLE t --".es_append('a-1', 'T', '{}', tags => '{a}'), "x'y""z; DROP TABLE t --".es_settle();
SELECT position, tags FROM "x'y""z; DROP TABLE t --".es_read('{"items": [{"tags": ["a"]}]}');
SELECT count(*) FROM "x'y""z; DROP TABLE t --".es_check() WHERE status = 'failed';
SELECT "x'y""z; DROP TABLE t --".es_grant('regress_es_mallory', 'reader');
DROP OWNED BY regress_es_mallory;
DROP SCHEMA "x'y""z; DROP TABLE t --" CASCADE;

-- Objects that would catch the script's names, in a schema anybody may write to.
CREATE SCHEMA open;
GRANT ALL ON SCHEMA open TO PUBLIC;
SET ROLE regress_es_mallory;
CREATE FUNCTION open.oid_is_regproc(oid, regproc) RETURNS boolean LANGUAGE sql AS 'SELECT public.ring(); SELECT true';
CREATE OPERATOR open.= (LEFTARG = oid, RIGHTARG = regproc, FUNCTION = open.oid_is_regproc);
RESET ROLE;
CREATE EXTENSION eventstore SCHEMA open;
DROP OPERATOR open.=(oid, regproc);
SET ROLE regress_es_mallory;
CREATE FUNCTION open.greatest_of(bigint, bigint) RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint';
CREATE FUNCTION open.count(name) RETURNS bigint LANGUAGE sql AS 'SELECT public.ring(); SELECT 1::bigint';
RESET ROLE;
CREATE EXTENSION eventstore SCHEMA open;
DROP FUNCTION open.count(name);
SET ROLE regress_es_mallory;
CREATE FUNCTION open.es_category(name) RETURNS text LANGUAGE sql AS 'SELECT public.ring(); SELECT ''''';
RESET ROLE;
CREATE EXTENSION eventstore SCHEMA open;
DROP FUNCTION open.es_category(name);
SET ROLE regress_es_mallory;
-- Of our names: the script creates, it never takes over.
CREATE TABLE open.es_epoch (epoch bigint);
RESET ROLE;
CREATE EXTENSION eventstore SCHEMA open;
DROP TABLE open.es_epoch;
SET ROLE regress_es_mallory;
CREATE VIEW open.es_outbox AS SELECT 1 AS one;
RESET ROLE;
CREATE EXTENSION eventstore SCHEMA open;
DROP VIEW open.es_outbox;
SET ROLE regress_es_mallory;
CREATE TYPE open.es_snapshot AS ENUM ('mine');
RESET ROLE;
CREATE EXTENSION eventstore SCHEMA open;
DROP TYPE open.es_snapshot;
SET ROLE regress_es_mallory;
CREATE SEQUENCE open.es_event_position_seq;
RESET ROLE;
CREATE EXTENSION eventstore SCHEMA open;
DROP SEQUENCE open.es_event_position_seq;
-- Types and tables of the server's names do not come before the server's, and
-- other functions do no harm; nor do those that a superuser made.
SET ROLE regress_es_mallory;
CREATE DOMAIN open.text AS pg_catalog.text CHECK (public.ring() IS NULL);
CREATE TABLE open.pg_class ();
RESET ROLE;
SET ROLE regress_es_dba;
CREATE FUNCTION open.count(name) RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint';
RESET ROLE;
CREATE EXTENSION eventstore SCHEMA open VERSION '0.1';
SELECT open.es_append('a-1', 'T', '{}');

-- The same for the way from one version to the next.
SET ROLE regress_es_mallory;
CREATE FUNCTION open.max(name) RETURNS bigint LANGUAGE sql AS 'SELECT public.ring(); SELECT 1::bigint';
RESET ROLE;
ALTER EXTENSION eventstore UPDATE;
DROP FUNCTION open.max(name);
SET ROLE regress_es_mallory;
CREATE FUNCTION open.es_fetch(name text, consumer text, max_count integer, lease interval, ack text, epoch bigint) RETURNS void LANGUAGE sql AS '';
RESET ROLE;
ALTER EXTENSION eventstore UPDATE;
DROP FUNCTION open.es_fetch(text, text, integer, interval, text, bigint);
ALTER EXTENSION eventstore UPDATE;
SELECT extversion <> '0.1' AS updated FROM pg_extension WHERE extname = 'eventstore';
SELECT open.es_append('a-1', 'T', '{}');

-- What the script leaves behind: nothing with another's rights and an open path,
-- and every member is the installer's.
SELECT p.proname, p.prosecdef, l.lanname, p.proconfig FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
	JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e' JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'eventstore'
	WHERE p.prosecdef OR l.lanname <> 'c' OR p.proconfig IS NOT NULL ORDER BY 1;
SELECT c.relname, c.reloptions FROM pg_class c JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
	WHERE c.relkind = 'v' AND c.reloptions IS NOT NULL ORDER BY 1;
SELECT count(*) FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'eventstore' LEFT JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
	LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
	WHERE d.deptype = 'e' AND coalesce(p.proowner, c.relowner) <> e.extowner;
SET client_min_messages = error;
DROP SCHEMA open CASCADE;
DROP FUNCTION ring();
DROP OWNED BY regress_es_mallory;
DROP ROLE regress_es_mallory, regress_es_dba;
