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

-- What cannot be written on a standby says so, with a hint.
CREATE OR REPLACE FUNCTION es_grant(role regrole, level text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	levels CONSTANT text[] := ARRAY['reader', 'subscriber', 'writer', 'admin'];
	given int := array_position(levels, level);
	option CONSTANT text := CASE level WHEN 'admin' THEN ' WITH GRANT OPTION' ELSE '' END;
	extension record;
	g record;
BEGIN
	IF pg_is_in_recovery() THEN
		RAISE 'cannot execute es_grant() in a read-only transaction' USING
			ERRCODE = 'read_only_sql_transaction',
			HINT = 'This server is a standby: connect to the primary.';
	END IF;
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
	SELECT e.oid, n.nspname INTO extension
		FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
		WHERE e.extname = 'eventstore';
	EXECUTE format('GRANT USAGE ON SCHEMA %I TO %s', extension.nspname, role) || option;
	FOR g IN
		SELECT * FROM (VALUES
			('reader', 'SELECT', 'es_event'),
			('reader', 'SELECT', 'es_settled'),
			('reader', 'SELECT', 'es_epoch'),
			('reader', 'SELECT', 'es_event_tag'),
			('reader', 'SELECT', 'es_retagged'),
			('reader', 'SELECT', 'es_stat_projection'),
			('reader', 'SELECT', 'es_progress'),
			('reader', 'SELECT', 'es_stat_store'),
			('admin', 'SELECT', 'es_stat_stream'),
			('reader', 'SELECT', 'es_tracked_table'),
			('reader', 'SELECT', 'es_stat_subscription'),
			('admin', 'SELECT', 'es_subscription'),
			('admin', 'SELECT', 'es_subscription_consumer'),
			('admin', 'SELECT', 'es_subscription_partition'),
			('admin', 'SELECT', 'es_subscription_parked'),
			('admin', 'SELECT', 'es_projection'),
			('admin', 'SELECT', 'es_projection_handler'),
			('admin', 'SELECT', 'es_parked'),
			('writer', 'INSERT', 'es_event'),
			('admin', 'INSERT, UPDATE', 'es_settled'),
			('reader', 'SELECT', 'es_aggregate'),
			('reader', 'SELECT', 'es_evolver'),
			('reader', 'SELECT', 'es_decider'),
			('reader', 'SELECT', 'es_command'),
			('reader', 'SELECT', 'es_snapshot'),
			('reader', 'SELECT', 'es_snapshot_cursor'),
			('admin', 'DELETE', 'es_snapshot'),
			('admin', 'INSERT, UPDATE', 'es_snapshot_cursor'),
			('admin', 'INSERT, UPDATE, DELETE', 'es_aggregate'),
			('admin', 'INSERT, UPDATE, DELETE', 'es_evolver'),
			('admin', 'INSERT, UPDATE, DELETE', 'es_decider'),
			('reader', 'SELECT', 'es_event_type'),
			('admin', 'INSERT, UPDATE, DELETE', 'es_event_type'),
			('reader', 'SELECT', 'es_upcaster'),
			('reader', 'SELECT', 'es_outbox'),
			('admin', 'INSERT, UPDATE, DELETE', 'es_upcaster'),
			('reader', 'SELECT', 'es_stream'),
			('admin', 'INSERT, UPDATE', 'es_stream'),
			('reader', 'SELECT', 'es_event_all'),
			('reader', 'SELECT', 'es_stat_archive'),
			('admin', 'SELECT', 'es_archive_segment'),
			('admin', 'SELECT', 'es_archive_run'),
			('admin', 'SELECT', 'es_archive_key')
		) AS v(level, privileges, name)
	LOOP
		CONTINUE WHEN array_position(levels, g.level) > given;
		EXECUTE format('GRANT %s ON TABLE %I.%I TO %s',
					   g.privileges, extension.nspname, g.name, role) || option;
	END LOOP;
	FOR g IN
		SELECT v.level, p.oid::regprocedure AS signature
			FROM (VALUES
				('reader', 'es_category'),
				('reader', 'es_stream_version'),
				('reader', 'es_read_stream'),
				('reader', 'es_read_all'),
				('reader', 'es_read'),
				('reader', 'es_read_boundary'),
				('reader', 'es_settled_position'),
				('reader', 'es_position_at'),
				('reader', 'es_store'),
				('reader', 'es_wait_for'),
				('reader', 'es_state'),
				('reader', 'es_history'),
				('reader', 'es_to_cloudevent'),
				('reader', 'es_from_cloudevent'),
				('reader', 'es_boundary_state'),
				('reader', 'es_boundary_history'),
				('reader', 'es_stream_partition'),
				('subscriber', 'es_create_subscription'),
				('subscriber', 'es_drop_subscription'),
				('subscriber', 'es_fetch'),
				('subscriber', 'es_ack'),
				('subscriber', 'es_nack'),
				('subscriber', 'es_renew'),
				('subscriber', 'es_seek'),
				('subscriber', 'es_wait_for_events'),
				('writer', 'es_append'),
				('writer', 'es_append_batch'),
				('writer', 'es_append_if'),
				('writer', 'es_try_append_if'),
				('reader', 'es_load_snapshot'),
				('writer', 'es_save_snapshot'),
				('writer', 'es_handle'),
				('writer', 'es_decide_dry'),
				('writer', 'es_test'),
				('writer', 'es_test_done'),
				('writer', 'es_last_position'),
				('admin', 'es_create_aggregate'),
				('admin', 'es_evolve'),
				('admin', 'es_decide'),
				('admin', 'es_take_snapshot'),
				('admin', 'es_take_snapshots'),
				('admin', 'es_drop_decider'),
				('admin', 'es_drop_aggregate'),
				('admin', 'es_drop_evolver'),
				('admin', 'es_create_event_type'),
				('admin', 'es_drop_event_type'),
				('admin', 'es_upcast'),
				('admin', 'es_drop_upcaster'),
				('admin', 'es_set_stream'),
				('admin', 'es_truncate_stream'),
				('admin', 'es_delete_stream'),
				('admin', 'es_undelete_stream'),
				('admin', 'es_tombstone_stream'),
				('reader', 'es_stream_list'),
				('reader', 'es_read_archive'),
				('reader', 'es_archived_position'),
				('admin', 'es_archive'),
				('admin', 'es_export_segment'),
				('admin', 'es_detach_segment'),
				('admin', 'es_import_segment'),
				('admin', 'es_settle'),
				('admin', 'es_check'),
				('reader', 'es_stat_log'),
				('reader', 'es_settled_holder'),
				('reader', 'es_running_jobs'),
				('admin', 'es_stream_sizes'),
				('admin', 'es_stat_reset'),
				('admin', 'es_report'),
				('admin', 'es_create_projection'),
				('admin', 'es_drop_projection'),
				('admin', 'es_on'),
				('admin', 'es_on_batch'),
				('admin', 'es_drop_handler'),
				('admin', 'es_pause_projection'),
				('admin', 'es_resume_projection'),
				('admin', 'es_run_projections'),
				('admin', 'es_rebuild_projection'),
				('admin', 'es_project_at'),
				('admin', 'es_replay_parked'),
				('admin', 'es_start_worker'),
				('admin', 'es_track_table'),
				('admin', 'es_untrack_table'),
				('admin', 'zz_es_track_change'),
				('admin', 'es_grant')
			) AS v(level, name)
			JOIN pg_proc p ON p.proname = v.name
			JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid
				AND d.refclassid = 'pg_extension'::regclass
				AND d.refobjid = extension.oid AND d.deptype = 'e'
	LOOP
		CONTINUE WHEN array_position(levels, g.level) > given;
		EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %s', g.signature, role) || option;
	END LOOP;
END
$$;
CREATE OR REPLACE FUNCTION es_create_publication(name text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	schema text;
	tables text;
BEGIN
	IF pg_is_in_recovery() THEN
		RAISE 'cannot execute es_create_publication() in a read-only transaction' USING
			ERRCODE = 'read_only_sql_transaction',
			HINT = 'This server is a standby: connect to the primary.';
	END IF;
	IF name IS NULL THEN
		RAISE 'argument "name" must not be null' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	SELECT n.nspname INTO schema
		FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
		WHERE e.extname = 'eventstore';
	-- Deletes, too: an event leaves es_event when its segment is there.
	SELECT string_agg(format('ONLY %I.%I', schema, t), ', ') INTO tables
		FROM unnest(ARRAY['es_event', 'es_event_tag', 'es_retagged', 'es_settled', 'es_epoch', 'es_stream',
						  'es_archive_segment', 'es_archive_run', 'es_archive_key']) AS t;
	EXECUTE format('CREATE PUBLICATION %I FOR TABLE %s WITH (publish = %L)', name, tables, 'insert, update, delete');
	EXECUTE format('COMMENT ON PUBLICATION %I IS %L', name, 'the event store, for another server that has it');
END
$$;
