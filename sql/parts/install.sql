-- install: what must hold before anything is created.  Comes first.
\echo Use "CREATE EXTENSION eventstore" to load this file. \quit

-- The script resolves names in the schema that the extension goes into.  What is
-- there already could catch them with arguments that fit better than the
-- server's own; and whoever owns the schema can drop it, and the events with it.
-- All names here are qualified, for that reason.
DO $$
DECLARE
	target record;
	other record;
BEGIN
	SELECT n.oid, n.nspname, pg_catalog.pg_get_userbyid(n.nspowner) AS owner,
			r.rolsuper OR n.nspowner OPERATOR(pg_catalog.=) 'pg_database_owner'::pg_catalog.regrole
				OR r.rolname OPERATOR(pg_catalog.=) CURRENT_USER AS is_safe
		INTO target
		FROM pg_catalog.pg_namespace n
		JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) n.nspowner
		WHERE n.nspname OPERATOR(pg_catalog.=) pg_catalog.current_schema();
	IF NOT target.is_safe THEN
		RAISE 'schema "%" belongs to role "%"', target.nspname, target.owner USING
			ERRCODE = 'insufficient_privilege',
			DETAIL = 'Who owns the schema can drop it, and what is in it.',
			HINT = 'Install eventstore in a schema of its own, or change the owner with ALTER SCHEMA.';
	END IF;
	SELECT o.name, r.rolname AS owner
		INTO other
		FROM (SELECT p.oid::pg_catalog.regprocedure::pg_catalog.text AS name, p.proowner AS owner
				FROM pg_catalog.pg_proc p
				WHERE p.pronamespace OPERATOR(pg_catalog.=) target.oid
				AND (pg_catalog.starts_with(p.proname::pg_catalog.text, 'es_'::pg_catalog.text)
					OR EXISTS (SELECT FROM pg_catalog.pg_proc c
						WHERE c.proname OPERATOR(pg_catalog.=) p.proname
						AND c.pronamespace OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.regnamespace))
			UNION ALL
			SELECT o.oid::pg_catalog.regoperator::pg_catalog.text, o.oprowner
				FROM pg_catalog.pg_operator o
				WHERE o.oprnamespace OPERATOR(pg_catalog.=) target.oid) AS o
		JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) o.owner
		WHERE NOT r.rolsuper AND r.rolname OPERATOR(pg_catalog.<>) CURRENT_USER
		ORDER BY 1 USING OPERATOR(pg_catalog.<)
		LIMIT 1;
	IF FOUND THEN
		RAISE '% of role "%" is in schema "%"', other.name, other.owner, target.nspname USING
			ERRCODE = 'insufficient_privilege',
			DETAIL = 'It could be called in place of one of the server''s or the extension''s.',
			HINT = 'Drop it, or install eventstore in another schema.';
	END IF;
END
$$;

