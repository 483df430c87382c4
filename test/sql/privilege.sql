-- privilege: who may do what to every object of the extension, tried out.
--
-- Each object is a row, each role a column.  The letters: Select, Insert, Copy
-- from, Merge, Update, Delete, Truncate, eXecute, Alter.  A letter is missing
-- where the role has no right to it (42501), and has a "!" behind it where
-- something else refuses it, whoever it is.
CREATE EXTENSION eventstore;
CREATE ROLE regress_es_stranger;
CREATE ROLE regress_es_reader;
CREATE ROLE regress_es_subscriber;
CREATE ROLE regress_es_writer;
CREATE ROLE regress_es_admin;
CREATE ROLE regress_es_owner;
SELECT es_grant(('regress_es_' || l)::regrole, l) FROM unnest(ARRAY['reader', 'subscriber', 'writer', 'admin']) l;
-- So that it is the tables that say no to COPY.
GRANT pg_read_server_files TO regress_es_stranger, regress_es_reader, regress_es_subscriber, regress_es_writer, regress_es_admin, regress_es_owner;
GRANT CREATE, USAGE ON SCHEMA public TO regress_es_stranger, regress_es_owner;

CREATE TABLE object AS
	SELECT CASE d.classid WHEN 'pg_proc'::regclass THEN 'routine' ELSE CASE c.relkind WHEN 'r' THEN 'table' WHEN 'v' THEN 'view' WHEN 'S' THEN 'sequence' END END AS kind,
			coalesce(c.relname, p.proname)::text AS name, coalesce(c.oid::regclass::text, p.oid::regprocedure::text) AS signature, c.oid AS relation, p.oid AS routine
		FROM pg_depend d
		JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'eventstore'
		LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
		LEFT JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
		WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND (c.oid IS NOT NULL OR p.oid IS NOT NULL);
CREATE TABLE attempt (kind text, letter text, n int, statement text);
INSERT INTO attempt VALUES
	('table', 'S', 1, 'SELECT FROM %1$s WHERE false'), ('table', 'I', 2, 'INSERT INTO %1$s SELECT (r).* FROM (SELECT NULL::%1$s) AS v(r) WHERE false'),
	('table', 'C', 3, 'COPY %1$s FROM ''/dev/null'''), ('table', 'M', 4, 'MERGE INTO %1$s USING (SELECT 1 WHERE false) AS v ON false WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT DEFAULT VALUES'),
	('table', 'U', 5, 'UPDATE %1$s SET %2$I = NULL WHERE false'), ('table', 'D', 6, 'DELETE FROM %1$s WHERE false'),
	('table', 'T', 7, 'TRUNCATE %1$s CASCADE'), ('table', 'A', 9, 'ALTER TABLE %1$s RENAME TO renamed'),
	('view', 'S', 1, 'EXPLAIN SELECT * FROM %1$s'), ('view', 'I', 2, 'INSERT INTO %1$s SELECT (r).* FROM (SELECT NULL::%1$s) AS v(r) WHERE false'),
	('view', 'U', 5, 'UPDATE %1$s SET %2$I = NULL WHERE false'), ('view', 'D', 6, 'DELETE FROM %1$s WHERE false'), ('view', 'A', 9, 'ALTER VIEW %1$s RENAME TO renamed'),
	('sequence', 'S', 1, 'SELECT FROM %1$s'), ('sequence', 'A', 9, 'ALTER SEQUENCE %1$s RENAME TO renamed'),
	('routine', 'A', 9, 'ALTER ROUTINE %1$s RENAME TO renamed');
-- Functions are called, up to where their arguments would be looked at.
INSERT INTO attempt VALUES ('routine', 'X', 8, NULL);
-- Subtransactions take back what was possible.
CREATE FUNCTION outcome(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	RAISE EXCEPTION USING ERRCODE = 'ZZ000';
EXCEPTION
	WHEN SQLSTATE 'ZZ000' THEN RETURN '';
	WHEN insufficient_privilege THEN RETURN NULL;
	WHEN OTHERS THEN RETURN '!';
END $$;
CREATE FUNCTION call_of(routine oid) RETURNS text LANGUAGE sql STABLE AS $$
	SELECT format('EXPLAIN SELECT %s(%s) FROM (SELECT %s OFFSET 0) AS v', p.oid::regproc,
			coalesce(string_agg('v.a' || n, ', ' ORDER BY n), ''), coalesce(string_agg(format('NULL::%s AS a%s', t::regtype, n), ', ' ORDER BY n) FILTER (WHERE n > 0), '1'))
		FROM pg_proc p LEFT JOIN LATERAL unnest(p.proargtypes) WITH ORDINALITY AS a(t, n) ON true
		WHERE p.oid = routine AND p.prokind = 'f' AND p.prorettype <> 'trigger'::regtype GROUP BY p.oid
$$;
CREATE FUNCTION rights(role text) RETURNS TABLE (kind text, signature text, letters text) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('role', role, true);
	RETURN QUERY
		SELECT o.kind, o.signature, string_agg(CASE
				WHEN a.letter = 'X' AND call_of(o.routine) IS NULL THEN CASE WHEN has_function_privilege(o.routine, 'EXECUTE') THEN 'X' END
				WHEN o.kind = 'table' AND a.letter = 'U' AND c.attname IS NULL THEN NULL
				ELSE a.letter || outcome(CASE a.letter WHEN 'X' THEN call_of(o.routine) ELSE format(a.statement, o.signature, c.attname) END) END, '' ORDER BY a.n)
			|| CASE WHEN o.kind = 'sequence' AND has_sequence_privilege(o.relation, 'USAGE, UPDATE') THEN 'U' ELSE '' END
			FROM object o JOIN attempt a USING (kind)
			LEFT JOIN pg_attribute c ON c.attrelid = o.relation AND c.attnum = 1
			GROUP BY o.kind, o.signature, o.relation;
	PERFORM set_config('role', 'none', true);
END $$;
GRANT SELECT ON object, attempt TO PUBLIC;
SET client_min_messages = error;	-- 18 tells of each truncated table

CREATE TABLE matrix AS
	SELECT role, r.* FROM unnest(ARRAY['stranger', 'reader', 'subscriber', 'writer', 'admin']) role, rights('regress_es_' || role) r;
INSERT INTO matrix SELECT 'superuser', * FROM rights(current_user);
SET session_replication_role = replica;
INSERT INTO matrix SELECT 'replica', * FROM rights(current_user);
RESET session_replication_role;
-- One who owns everything, but is no superuser.
SELECT format('ALTER %s %s OWNER TO regress_es_owner', kind, signature) FROM object WHERE kind <> 'sequence' \gexec
INSERT INTO matrix SELECT 'owner', * FROM rights('regress_es_owner');

CREATE VIEW wide AS SELECT kind, signature, string_agg(letters, ',') FILTER (WHERE role = 'stranger') AS stranger, string_agg(letters, ',') FILTER (WHERE role = 'reader') AS reader,
		string_agg(letters, ',') FILTER (WHERE role = 'subscriber') AS subscriber, string_agg(letters, ',') FILTER (WHERE role = 'writer') AS writer, string_agg(letters, ',') FILTER (WHERE role = 'admin') AS admin,
		string_agg(letters, ',') FILTER (WHERE role = 'owner') AS owner, string_agg(letters, ',') FILTER (WHERE role = 'superuser') AS superuser, string_agg(letters, ',') FILTER (WHERE role = 'replica') AS replica
	FROM matrix GROUP BY kind, signature;
SELECT signature, stranger, reader, subscriber, writer, admin, owner, superuser, replica FROM wide WHERE kind <> 'routine' ORDER BY kind, signature COLLATE "C";
SELECT signature, stranger, reader, subscriber, writer, admin, owner, superuser, replica FROM wide WHERE kind = 'routine' ORDER BY signature COLLATE "C";

-- Nothing is anybody's by way of PUBLIC, now or by what the script leaves behind.
SELECT o.signature FROM object o LEFT JOIN pg_class c ON c.oid = o.relation LEFT JOIN pg_proc p ON p.oid = o.routine,
	LATERAL aclexplode(coalesce(c.relacl, p.proacl, CASE WHEN p.oid IS NOT NULL THEN acldefault('f', p.proowner) END)) a WHERE a.grantee = 0;
DROP VIEW wide;
DROP TABLE object, attempt, matrix;
DROP FUNCTION outcome(text), call_of(oid), rights(text);
DROP EXTENSION eventstore;
DROP OWNED BY regress_es_stranger, regress_es_reader, regress_es_subscriber, regress_es_writer, regress_es_admin, regress_es_owner;
DROP ROLE regress_es_stranger, regress_es_reader, regress_es_subscriber, regress_es_writer, regress_es_admin, regress_es_owner;
