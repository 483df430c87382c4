-- privilege: nothing is open to all; es_grant opens it, here and on every partition

CREATE FUNCTION es_grant(role regrole, level text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	levels CONSTANT text[] := ARRAY['reader', 'subscriber', 'writer', 'admin'];
	given int := array_position(levels, level);
	g record;
BEGIN
	IF role IS NULL THEN
		RAISE 'argument "role" must not be null' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	IF level IS NULL THEN
		RAISE 'argument "level" must not be null' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	IF given IS NULL THEN
		RAISE 'invalid level "%"', level USING
			ERRCODE = 'invalid_parameter_value',
			HINT = 'Use reader, subscriber, writer or admin.';
	END IF;
	PERFORM @extschema@.es_define(format('SELECT @extschema@.es_grant(%L::regrole, %L)', role, level));
	EXECUTE format('GRANT USAGE ON SCHEMA @extschema@ TO %s', role);
	EXECUTE format('GRANT USAGE ON FOREIGN SERVER eventstore TO %s', role);
	EXECUTE format('GRANT SELECT ON @extschema@.es_partition, @extschema@.es_route, @extschema@.es_stat_projection,
		@extschema@.es_stat_subscription, @extschema@.es_stat_store, @extschema@.es_progress TO %s', role);
	FOR g IN
		SELECT p.oid::regprocedure AS signature, p.proname
			FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid
			WHERE d.classid = 'pg_proc'::regclass AND d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass
			AND d.refobjid = (SELECT e.oid FROM pg_extension e WHERE e.extname = 'eventstore_router')
			AND given >= CASE
				WHEN p.proname IN ('es_fetch', 'es_ack', 'es_nack', 'es_shards_fetch', 'es_shards_ack', 'es_shard_nack', 'es_token') THEN 2
				WHEN p.proname IN ('es_append', 'es_append_batch', 'es_append_if', 'es_try_append_if', 'es_shard_append_if',
					'es_shard_try_append_if', 'es_place_events', 'es_handle', 'es_decide_dry', 'es_command_hash', 'es_save_snapshot') THEN 3
				WHEN p.proname IN ('es_stream_hash', 'es_shards', 'es_shard', 'es_category', 'es_read_stream', 'es_stream_version',
					'es_state', 'es_history', 'es_load_snapshot', 'es_read', 'es_read_boundary', 'es_tag_hash', 'es_query_hash',
					'es_vector', 'es_read_all', 'es_read_batch', 'es_shards_read_all', 'es_store', 'es_shards_store',
					'es_settled_position', 'es_wait_for', 'es_shards_wait_for', 'es_shards_stat_projection',
					'es_shards_stat_subscription', 'es_shards_stat_store', 'es_shards_progress') THEN 1
				ELSE 4 END
	LOOP
		EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %s', g.signature, role) ||
			CASE level WHEN 'admin' THEN ' WITH GRANT OPTION' ELSE '' END;
	END LOOP;
	IF level = 'admin' THEN
		EXECUTE format('GRANT SELECT ON @extschema@.es_stat_archive TO %s', role);
		EXECUTE format('GRANT INSERT, DELETE ON @extschema@.es_route TO %s', role);
	END IF;
END
$$;
COMMENT ON FUNCTION es_grant(regrole, text) IS
	'let a role read, write or administer the stores, here and on every partition (level reader, subscriber, writer or admin)';

DO $$
DECLARE
	f pg_catalog.regprocedure;
	r pg_catalog.regclass;
BEGIN
	IF NOT EXISTS (SELECT FROM pg_catalog.pg_extension e WHERE e.extname OPERATOR(pg_catalog.=) 'dblink'
		AND e.extnamespace OPERATOR(pg_catalog.=) '@extschema@'::pg_catalog.regnamespace)
	THEN
		RAISE 'extension dblink is not in schema @extschema@' USING
			ERRCODE = 'object_not_in_prerequisite_state',
			HINT = 'ALTER EXTENSION dblink SET SCHEMA @extschema@.';
	END IF;
	FOR f IN SELECT d.objid::pg_catalog.regprocedure FROM pg_catalog.pg_depend d
		WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
		AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
		AND d.deptype OPERATOR(pg_catalog.=) 'e'
		AND d.refobjid OPERATOR(pg_catalog.=) (SELECT e.oid FROM pg_catalog.pg_extension e
			WHERE e.extname OPERATOR(pg_catalog.=) 'eventstore_router')
	LOOP
		EXECUTE pg_catalog.format('REVOKE ALL ON ROUTINE %s FROM PUBLIC', f);
	END LOOP;
	-- Default privileges of the installing role may have opened these.
	FOR r IN SELECT d.objid::pg_catalog.regclass FROM pg_catalog.pg_depend d
		JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) d.objid
			AND c.relkind OPERATOR(pg_catalog.=) ANY (ARRAY['r', 'v']::pg_catalog."char"[])
		WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
		AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
		AND d.deptype OPERATOR(pg_catalog.=) 'e'
		AND d.refobjid OPERATOR(pg_catalog.=) (SELECT e.oid FROM pg_catalog.pg_extension e
			WHERE e.extname OPERATOR(pg_catalog.=) 'eventstore_router')
	LOOP
		EXECUTE pg_catalog.format('REVOKE ALL ON TABLE %s FROM PUBLIC', r);
	END LOOP;
END
$$;
