-- guard: what may be done to es_event, and by whom

CREATE FUNCTION es_event_insert() RETURNS trigger
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION es_event_insert() IS
	'gives an event that comes by INSERT or COPY its version, position, id and time';

CREATE FUNCTION es_event_refuse() RETURNS trigger
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION es_event_refuse() IS
	'refuses to change or remove events';

-- Fires after all other BEFORE triggers, which go by name, so that none can
-- change what it assigned.
CREATE TRIGGER zz_es_event_insert BEFORE INSERT ON es_event
	FOR EACH ROW EXECUTE FUNCTION es_event_insert();
CREATE TRIGGER es_event_refuse BEFORE UPDATE OR DELETE OR TRUNCATE ON es_event
	FOR EACH STATEMENT EXECUTE FUNCTION es_event_refuse();
-- Logical replication fires no statement triggers.
CREATE TRIGGER es_event_refuse_row BEFORE UPDATE OR DELETE ON es_event
	FOR EACH ROW EXECUTE FUNCTION es_event_refuse();
ALTER TABLE es_event
	ENABLE ALWAYS TRIGGER zz_es_event_insert,
	ENABLE ALWAYS TRIGGER es_event_refuse,
	ENABLE ALWAYS TRIGGER es_event_refuse_row;

-- MERGE cannot be told from INSERT by a trigger, but the server refuses it on
-- any table that has a rule, from 17 on only where the rule is enabled in the
-- session's replication role.  This one never applies to anything.
CREATE RULE es_event_no_merge AS ON DELETE TO es_event WHERE false DO ALSO NOTHING;
ALTER TABLE es_event ENABLE ALWAYS RULE es_event_no_merge;
COMMENT ON RULE es_event_no_merge ON es_event IS
	'makes the server refuse MERGE; has no effect of its own';

-- Reader: SELECT.  Subscriber: subscriptions of its own.  Writer: INSERT too.
-- Admin: all that keeps the store running, with the right to grant it.  Each level includes the one before.
-- The caller must be allowed to grant: an admin, the extension's owner or a
-- superuser.
CREATE FUNCTION es_grant(role regrole, level text) RETURNS void
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
			('admin', 'SELECT', 'es_event_tag'),
			('admin', 'SELECT', 'es_retagged'),
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
			('admin', 'SELECT', 'es_command'),
			('admin', 'SELECT', 'es_snapshot'),
			('admin', 'SELECT', 'es_snapshot_cursor'),
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
			('admin', 'SELECT', 'es_stream'),
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
COMMENT ON FUNCTION es_grant(regrole, text) IS
	'let a role read, write or administer the store (level reader, subscriber, writer or admin)';
