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

-- install
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

-- Row security on es_event is honoured by what tells of events.
CREATE OR REPLACE VIEW es_stat_subscription AS
	SELECT s.name, pg_get_userbyid(s.owner) AS owner, s.partitions, s.hold, p.position,
		greatest(coalesce(last.position, 0) - p.position, 0) AS lag_events,
		CASE WHEN next.recorded_at IS NULL THEN 0
			ELSE extract(epoch FROM clock_timestamp() - next.recorded_at)::float8 END
			AS oldest_unacked_seconds,
		p.in_flight + k.in_flight AS in_flight, c.consumers,
		k.parked, k.skipped,
		CASE WHEN NOT row_security_active('es_event'::regclass) THEN k.parked_by_reason END AS parked_by_reason
	FROM es_subscription s
	CROSS JOIN LATERAL (SELECT min(p.position) AS position, sum(p.in_flight) AS in_flight
		FROM es_subscription_partition p WHERE p.subscription = s.name) AS p
	CROSS JOIN LATERAL (SELECT count(*) AS consumers FROM es_subscription_consumer c
		WHERE c.subscription = s.name AND c.lease_until > clock_timestamp()) AS c
	CROSS JOIN LATERAL (SELECT coalesce(sum(r.n) FILTER (WHERE r.state <> 'skipped'), 0)::bigint AS parked,
			coalesce(sum(r.n) FILTER (WHERE r.state = 'skipped'), 0)::bigint AS skipped,
			coalesce(sum(r.in_flight), 0)::bigint AS in_flight,
			coalesce(jsonb_object_agg(coalesce(r.reason, ''), r.n)
				FILTER (WHERE r.state = 'parked'), '{}') AS parked_by_reason
		FROM (SELECT k.state, k.reason, count(*) AS n,
				count(*) FILTER (WHERE k.delivered) AS in_flight
			FROM es_subscription_parked k WHERE k.subscription = s.name
			GROUP BY k.state, k.reason) AS r) AS k
	LEFT JOIN LATERAL (SELECT greatest(
			(SELECT e.position FROM es_event e ORDER BY e.position DESC LIMIT 1),
			(SELECT max(a.last_position) FROM es_archive_segment a)) AS position) AS last ON true
	LEFT JOIN LATERAL (SELECT coalesce(
			(SELECT a.first_recorded_at FROM es_archive_segment a
				WHERE a.last_position > p.position ORDER BY a.segment LIMIT 1),
			(SELECT e.recorded_at FROM es_event e
				WHERE e.position > p.position ORDER BY e.position LIMIT 1)) AS recorded_at) AS next ON true;
CREATE OR REPLACE VIEW es_stat_projection AS
	SELECT p.name, p.mode, p.status, p.on_error, pg_get_userbyid(p.owner) AS owner,
		p.position,
		CASE WHEN live.inline THEN 0
			ELSE greatest(coalesce(last.position, 0) - p.position, 0) END AS lag_events,
		CASE WHEN live.inline OR next.recorded_at IS NULL THEN 0
			ELSE extract(epoch FROM clock_timestamp() - next.recorded_at)::float8 END AS lag_seconds,
		p.events, p.events_per_second, p.run_at,
		(SELECT count(*) FROM es_parked k WHERE k.projection = p.name) AS parked,
		p.error_position, p.error_handler,
		CASE WHEN NOT row_security_active('es_event'::regclass) THEN p.last_error END AS last_error
	FROM es_projection p
	CROSS JOIN LATERAL (SELECT p.mode = 'inline' AND p.status = 'live') AS live(inline)
	LEFT JOIN LATERAL (SELECT greatest(
			(SELECT e.position FROM es_event e ORDER BY e.position DESC LIMIT 1),
			(SELECT max(s.last_position) FROM es_archive_segment s)) AS position) AS last ON true
	LEFT JOIN LATERAL (SELECT coalesce(
			(SELECT s.first_recorded_at FROM es_archive_segment s
				WHERE s.last_position > p.position ORDER BY s.segment LIMIT 1),
			(SELECT e.recorded_at FROM es_event e
				WHERE e.position > p.position ORDER BY e.position LIMIT 1)) AS recorded_at) AS next ON true;
CREATE OR REPLACE VIEW es_outbox WITH (security_invoker = true) AS
	SELECT e.event_id AS id,
		es_category(e.stream_id) AS aggregatetype,
		e.stream_id AS aggregateid,
		e.event_type AS type,
		e.data AS payload,
		e.recorded_at AS "timestamp",
		e.metadata OPERATOR(pg_catalog.->>) 'traceparent' AS traceparent,
		e.position
	FROM es_event e;

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
