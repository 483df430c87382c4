-- From 0.1 to 0.2.  Whoever changes sql/parts writes the same change here, as
-- long as 0.2 is not released: an updated database must hold exactly what a
-- fresh one holds (test/t/upgrade.pl compares the catalogs), with the store's
-- rows untouched.
--
-- A new function, table, sequence or view: as in its part, with its comment,
-- pg_extension_config_dump, and a REVOKE ALL ... FROM PUBLIC of its own; not the
-- loop of privilege.sql, which would undo what was granted to PUBLIC since.
-- A changed body or default: CREATE OR REPLACE with the whole new text.
-- A function of 0.1 that goes keeps its symbol in the library, without which
-- 0.1 could no longer be created.
\echo Use "ALTER EXTENSION eventstore UPDATE TO '0.2'" to load this file. \quit

-- A function whose arguments change is dropped and created, and belongs into the
-- lists here and at the end.  Who was granted it is remembered here, and is
-- granted the new one at the end.
SELECT pg_catalog.set_config('eventstore_update.granted', coalesce((
	SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(p.proname,
			a.grantee::pg_catalog.regrole::pg_catalog.text, a.is_grantable))
		FROM pg_catalog.pg_proc p, pg_catalog.aclexplode(p.proacl) a
		WHERE p.oid OPERATOR(pg_catalog.=) ANY (ARRAY[
			'es_create_subscription(text, bigint, timestamptz, text[], text, integer, text, integer, boolean)',
			'es_fetch(text, text, integer, interval, text)'
			]::pg_catalog.regprocedure[])
		AND a.grantee OPERATOR(pg_catalog.<>) ALL (ARRAY[p.proowner, 0::pg_catalog.oid])
	)::pg_catalog.text, '[]'), true);

-- subscription: consumers name the epoch in which they were told
ALTER TABLE es_subscription_partition ADD COLUMN epoch bigint;
COMMENT ON COLUMN es_subscription_partition.epoch IS 'history that the checkpoint belongs to, as the consumer said; null: nobody said';
DROP FUNCTION es_create_subscription(text, bigint, timestamptz, text[], text, integer, text, integer, boolean);
CREATE FUNCTION es_create_subscription(
	name          text,
	from_position bigint      DEFAULT NULL,
	from_time     timestamptz DEFAULT NULL,
	event_types   text[]      DEFAULT NULL,
	category      text        DEFAULT NULL,
	partitions    integer     DEFAULT 1,
	hold          text        DEFAULT 'stream',
	max_attempts  integer     DEFAULT 10,
	if_not_exists boolean     DEFAULT false,
	epoch         bigint      DEFAULT NULL
) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_create_subscription(text, bigint, timestamptz, text[], text, integer, text, integer, boolean, bigint) IS
	'define a subscription: a durable cursor over the log for consumers outside the database';
DROP FUNCTION es_fetch(text, text, integer, interval, text);
CREATE FUNCTION es_fetch(
	name      text,
	consumer  text,
	max_count integer  DEFAULT 100,
	lease     interval DEFAULT '30 s',
	ack       text     DEFAULT NULL,
	epoch     bigint   DEFAULT NULL
) RETURNS TABLE (
	token        text,
	attempt      integer,
	partition    integer,
	"position"   bigint,
	version      bigint,
	recorded_at  timestamptz,
	event_id     uuid,
	type_version integer,
	stream_id    text,
	event_type   text,
	data         jsonb,
	metadata     jsonb,
	tags         text[]
)
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 100;
COMMENT ON FUNCTION es_fetch(text, text, integer, interval, text, bigint) IS
	'the next events of a subscription for a consumer, with a token to acknowledge them by';

-- Comes last: nothing of what is new is open to PUBLIC.
REVOKE ALL ON FUNCTION
	es_create_subscription(text, bigint, timestamptz, text[], text, integer, text, integer, boolean, bigint),
	es_fetch(text, text, integer, interval, text, bigint)
	FROM PUBLIC;
DO $$
DECLARE
	granted pg_catalog.jsonb;
	function pg_catalog.regprocedure;
BEGIN
	FOR granted IN SELECT pg_catalog.jsonb_array_elements(
		pg_catalog.current_setting('eventstore_update.granted')::pg_catalog.jsonb)
	LOOP
		SELECT p.oid INTO STRICT function
			FROM pg_catalog.pg_proc p
			JOIN pg_catalog.pg_depend d ON d.objid OPERATOR(pg_catalog.=) p.oid
				AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
				AND d.deptype OPERATOR(pg_catalog.=) 'e'
			JOIN pg_catalog.pg_extension e ON e.oid OPERATOR(pg_catalog.=) d.refobjid
				AND e.extname OPERATOR(pg_catalog.=) 'eventstore'
			WHERE p.proname OPERATOR(pg_catalog.=) (granted OPERATOR(pg_catalog.->>) 0);
		EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO %s %s', function,
			granted OPERATOR(pg_catalog.->>) 1,
			CASE WHEN (granted OPERATOR(pg_catalog.->) 2)::pg_catalog.bool THEN 'WITH GRANT OPTION' END);
	END LOOP;
	-- What an extension's script grants counts as the extension's own, and
	-- would be left out of dumps; but it is the users'.
	PERFORM pg_catalog.set_config('allow_system_table_mods', 'on', true);
	UPDATE pg_catalog.pg_init_privs i
		SET initprivs = ARRAY(SELECT a FROM pg_catalog.unnest(i.initprivs) a, pg_catalog.aclexplode(ARRAY[a]) x
			WHERE x.grantee OPERATOR(pg_catalog.=) p.proowner)
		FROM pg_catalog.pg_proc p
		WHERE i.objoid OPERATOR(pg_catalog.=) p.oid
		AND i.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
		AND p.oid OPERATOR(pg_catalog.=) ANY (ARRAY[
			'es_create_subscription(text, bigint, timestamptz, text[], text, integer, text, integer, boolean, bigint)',
			'es_fetch(text, text, integer, interval, text, bigint)'
			]::pg_catalog.regprocedure[]);
	PERFORM pg_catalog.set_config('allow_system_table_mods', 'off', true);
END
$$;
