-- boundary_state: what the events of an aggregate's boundary add up to
--
-- The aggregate is one that es_create_aggregate gave a boundary; command fills
-- in the boundary's tags and is seen by the aggregate's expressions.  These run
-- with its owner's rights, the events are read with the caller's: SELECT on
-- es_event is needed.

-- The state after the last event at or before at_position, of the events that
-- were recorded at or before at; whichever is given.  after is for
-- es_append_if, with the same boundary: no event that matches can still appear
-- at or below it.  It is at_position where that comes first; an event that at
-- leaves out may lie below it.
CREATE FUNCTION es_boundary_state(
	aggregate   text,
	command     jsonb,
	at_position bigint      DEFAULT NULL,
	at          timestamptz DEFAULT NULL,
	OUT after bigint,
	OUT state jsonb
) RETURNS record
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_boundary_state(text, jsonb, bigint, timestamptz) IS
	'state of a command''s boundary, now or at an earlier position or time';

-- Every event of the boundary with the state after it.
CREATE FUNCTION es_boundary_history(
	aggregate   text,
	command     jsonb,
	at_position bigint      DEFAULT NULL,
	at          timestamptz DEFAULT NULL,
	OUT "position"  bigint,
	OUT stream_id   text,
	OUT recorded_at timestamptz,
	OUT event_type  text,
	OUT data        jsonb,
	OUT metadata    jsonb,
	OUT tags        text[],
	OUT state       jsonb
) RETURNS SETOF record
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 100;
COMMENT ON FUNCTION es_boundary_history(text, jsonb, bigint, timestamptz) IS
	'events of a command''s boundary, each with the state after it';
