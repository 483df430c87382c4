-- state: what the events of a stream add up to, now and at any earlier time
--
-- aggregate NULL: the only one for the stream's category; 42704 where there
-- is none, 42725 where there are several.  The aggregate's expressions run
-- with its owner's rights, the events are read with the caller's: SELECT on
-- es_event is needed.

-- The state after the last event at or before at_version and at, whichever
-- is given; version is that event's, 0 and the initial state before the
-- first.  Composite states are shown as JSON.
CREATE FUNCTION es_state(
	stream_id  text,
	at_version bigint      DEFAULT NULL,
	at         timestamptz DEFAULT NULL,
	aggregate  text        DEFAULT NULL,
	OUT version bigint,
	OUT state   jsonb
) RETURNS record
	AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL RESTRICTED;
COMMENT ON FUNCTION es_state(text, bigint, timestamptz, text) IS
	'state of a stream, now or at an earlier version or time';

-- Every event with the state after it.
CREATE FUNCTION es_history(
	stream_id  text,
	at_version bigint      DEFAULT NULL,
	at         timestamptz DEFAULT NULL,
	aggregate  text        DEFAULT NULL,
	OUT version     bigint,
	OUT recorded_at timestamptz,
	OUT event_type  text,
	OUT data        jsonb,
	OUT metadata    jsonb,
	OUT state       jsonb
) RETURNS SETOF record
	AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL RESTRICTED ROWS 100;
COMMENT ON FUNCTION es_history(text, bigint, timestamptz, text) IS
	'events of a stream, each with the state after it';
