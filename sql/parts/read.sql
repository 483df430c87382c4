-- read: events of a stream, events of the log.  Both need SELECT on es_event.
--
-- Events are shown in the newest form of their type (upcast.sql), or with raw
-- as they are stored; a filter looks at what is shown.
--
-- epoch is what es_store() answered when the caller was told the place to go
-- on from; 55000 if history has parted below it since.

-- Forward: the events after from_version, which is the last version the
-- caller has seen.  Backwards: the events before from_version, newest first;
-- 0 begins at the end.  max_count NULL reads all.
CREATE FUNCTION es_read_stream(
	stream_id    text,
	from_version bigint  DEFAULT 0,
	max_count    bigint  DEFAULT NULL,
	backwards    boolean DEFAULT false,
	raw          boolean DEFAULT false,
	epoch        bigint  DEFAULT NULL
) RETURNS SETOF es_event
	AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL RESTRICTED ROWS 100;
COMMENT ON FUNCTION es_read_stream(text, bigint, bigint, boolean, boolean, bigint) IS
	'events of one stream in the order of their versions';

-- The events after from_position, which is the last position the caller has
-- seen, in position order.  Whoever goes on from the last position it got
-- meets every committed event exactly once.  Ends early where an event may
-- still appear in front; call again later.  What it returns is on disk.
--
-- With a filter the last row is not the end of what was searched: when fewer
-- than max_count rows come back, a value of es_settled_position() taken
-- before the call is a place to go on from, too.
CREATE FUNCTION es_read_all(
	from_position bigint DEFAULT 0,
	max_count     bigint DEFAULT 1000,
	event_types   text[] DEFAULT NULL,
	category      text   DEFAULT NULL,
	raw           boolean DEFAULT false,
	epoch         bigint DEFAULT NULL
) RETURNS SETOF es_event
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 1000;
COMMENT ON FUNCTION es_read_all(bigint, bigint, text[], text, boolean, bigint) IS
	'events of all streams in the order of their positions, without ever missing one';
