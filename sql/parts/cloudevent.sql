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
