-- comfort: what \df, \d and \dx+ show of the extension reads well, whatever is added to it
CREATE EXTENSION eventstore;
CREATE VIEW member AS
	SELECT d.classid, d.objid, d.classid::regclass::text AS class
		FROM pg_depend d JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
		WHERE e.extname = 'eventstore' AND d.deptype = 'e';
-- Functions that are not for users: those of triggers.
CREATE VIEW private AS
	SELECT p.oid FROM pg_proc p JOIN member m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid
		WHERE p.prorettype = 'trigger'::regtype OR p.proname LIKE 'zz%';

-- Every object says what it is: functions, tables, views, sequences, indexes, types, triggers, rules, constraints that are named.
SELECT pg_describe_object(m.classid, m.objid, 0) AS without_comment FROM member m
	WHERE obj_description(m.objid, m.class) IS NULL
	AND NOT (m.class = 'pg_type' AND EXISTS (SELECT FROM pg_type t WHERE t.oid = m.objid AND (t.typelem <> 0 OR t.typrelid <> 0)))
	ORDER BY 1;
SELECT extname AS without_comment FROM pg_extension WHERE extname = 'eventstore' AND obj_description(oid, 'pg_extension') IS NULL;
SELECT t.tgrelid::regclass || ': ' || t.tgname AS trigger_without_comment
	FROM pg_trigger t JOIN member m ON m.classid = 'pg_class'::regclass AND m.objid = t.tgrelid
	WHERE NOT t.tgisinternal AND obj_description(t.oid, 'pg_trigger') IS NULL ORDER BY 1;
SELECT r.ev_class::regclass || ': ' || r.rulename AS rule_without_comment
	FROM pg_rewrite r JOIN member m ON m.classid = 'pg_class'::regclass AND m.objid = r.ev_class
	WHERE r.rulename <> '_RETURN' AND obj_description(r.oid, 'pg_rewrite') IS NULL ORDER BY 1;
-- So does every column whose name does not: of es_event all, of the others those that are not a key.
SELECT a.attrelid::regclass || '.' || a.attname AS column_without_comment
	FROM pg_attribute a JOIN member m ON m.classid = 'pg_class'::regclass AND m.objid = a.attrelid
	JOIN pg_class c ON c.oid = a.attrelid
	WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'v', 'm', 'c')
	AND col_description(a.attrelid, a.attnum) IS NULL ORDER BY 1;

-- Comments are short enough for a screen, begin small like the server's own, and end without a period.
SELECT pg_describe_object(m.classid, m.objid, 0) AS object, d.description FROM member m
	JOIN pg_description d ON d.classoid = m.classid AND d.objoid = m.objid AND d.objsubid = 0
	WHERE d.description ~ '\.$|^\s|\s$|\n' OR length(d.description) > 130 OR d.description ~ '^[A-Z][a-z]' ORDER BY 1;

-- Every argument and every column of a result has a name, and every name one signature.
SELECT p.oid::regprocedure AS unnamed FROM pg_proc p JOIN member m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid
	WHERE p.pronargs > 0 AND (p.proargnames IS NULL OR '' = ANY (p.proargnames)) ORDER BY 1;
SELECT p.proname AS twice FROM pg_proc p JOIN member m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid
	GROUP BY 1 HAVING count(*) > 1;

-- Users' objects are es_ and a verb or a noun.  Others sort last, or belong to a trigger, and nobody is given them.
SELECT pg_describe_object(m.classid, m.objid, 0) AS other_name FROM member m
	LEFT JOIN pg_proc p ON m.class = 'pg_proc' AND p.oid = m.objid
	LEFT JOIN pg_class c ON m.class = 'pg_class' AND c.oid = m.objid
	WHERE coalesce(p.proname, c.relname) !~ '^es_[a-z_]+$' AND NOT EXISTS (SELECT FROM private WHERE private.oid = p.oid) ORDER BY 1;
SELECT p.oid::regprocedure AS seen_among_users FROM pg_proc p JOIN private USING (oid) WHERE p.proname !~ '^zz_es_' ORDER BY 1;
SELECT p.oid::regprocedure AS open_to_public FROM pg_proc p JOIN member m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid
	WHERE has_function_privilege('public', p.oid, 'EXECUTE') ORDER BY 1;
SELECT c.oid::regclass AS open_to_public FROM pg_class c JOIN member m ON m.classid = 'pg_class'::regclass AND m.objid = c.oid
	WHERE c.relkind <> 'i' AND EXISTS (SELECT FROM aclexplode(c.relacl) a WHERE a.grantee = 0) ORDER BY 1;
-- Functions say honestly what they are: nothing is left at a default that would be wrong.
SELECT p.oid::regprocedure AS parallel_safe_but_volatile FROM pg_proc p JOIN member m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid
	WHERE p.provolatile = 'v' AND p.proparallel = 's' ORDER BY 1;

-- What a user sees.
\d es_event
\df es_append
\dx eventstore
DROP EXTENSION eventstore CASCADE;
DROP VIEW IF EXISTS private, member;
