-- cloudevent: events in the form of CloudEvents 1.0, and the way out

-- Depends on the setting eventstore.source.  position, version, recorded_at
-- and type_version may be null, as in an event that is not stored yet.
CREATE FUNCTION es_to_cloudevent(event es_event) RETURNS jsonb
	AS 'MODULE_PATHNAME' LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION es_to_cloudevent(es_event) IS
	'an event as a CloudEvent';

-- 22023 where it is no CloudEvent.  position, version and type_version are set
-- only where the event came from an event store; recorded_at is its time;
-- stream_id is null without a subject.  What has no column is in metadata.
CREATE FUNCTION es_from_cloudevent(event jsonb) RETURNS es_event
	AS 'MODULE_PATHNAME' LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION es_from_cloudevent(jsonb) IS
	'the event that a CloudEvent stands for; stores nothing';

-- For core logical replication into another server that has the extension: the
-- events with their tags, the archive, how far they are settled in which epoch,
-- and what streams show.  Definitions (upcasters, event types, projections) are
-- code, which each server is given by itself.  The caller must own the tables and may create in the database.
CREATE FUNCTION es_create_publication(name text) RETURNS void
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
COMMENT ON FUNCTION es_create_publication(text) IS
	'publish the store for logical replication';

-- Every event in the columns of an outbox, as Debezium's event router and its
-- kin name them.  It is the log itself: nothing is written twice.  It shows what
-- is committed, so whoever polls it by position must stop at the position in
-- es_settled, read in the same statement.
CREATE VIEW es_outbox WITH (security_invoker = true) AS
	SELECT e.event_id AS id,
		es_category(e.stream_id) AS aggregatetype,
		e.stream_id AS aggregateid,
		e.event_type AS type,
		e.data AS payload,
		e.recorded_at AS "timestamp",
		e.metadata OPERATOR(pg_catalog.->>) 'traceparent' AS traceparent,
		e.position
	FROM es_event e;
COMMENT ON VIEW es_outbox IS 'every event in the columns of an outbox';
COMMENT ON COLUMN es_outbox.aggregatetype IS 'the stream''s category';
COMMENT ON COLUMN es_outbox.aggregateid IS 'the stream';

-- At the other server, the settled position comes by the subscription, and
-- with it the leave to go on behind a hole.
CREATE FUNCTION es_settled_arrive() RETURNS trigger
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION es_settled_arrive() IS
	'wakes the worker when the origin''s settled position arrives';
CREATE TRIGGER es_settled_arrive AFTER INSERT OR UPDATE ON es_settled
	FOR EACH ROW EXECUTE FUNCTION es_settled_arrive();
ALTER TABLE es_settled ENABLE REPLICA TRIGGER es_settled_arrive;
