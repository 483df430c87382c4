-- lifecycle: what is left to see of a stream
--
-- None of this removes an event.  The log of all streams shows every event as
-- ever, and so does es_event; what changes is what the readers of one stream
-- see: es_read_stream, es_state, es_history, es_handle.  Versions go on.

-- A row only for a stream with settings.
CREATE TABLE es_stream (
	stream_id       text        COLLATE "C" NOT NULL,
	max_count       bigint,
	max_age         interval,
	truncate_before bigint,
	deleted_before  bigint,
	tombstoned_at   timestamptz,
	CONSTRAINT es_stream_pkey PRIMARY KEY (stream_id),
	CONSTRAINT es_stream_max_count_check CHECK (max_count > 0),
	CONSTRAINT es_stream_max_age_check CHECK (max_age > interval '0'),
	CONSTRAINT es_stream_truncate_before_check CHECK (truncate_before > 0),
	CONSTRAINT es_stream_deleted_before_check CHECK (deleted_before > 0)
);
COMMENT ON TABLE es_stream IS 'streams with settings: what is left to see of them';
COMMENT ON COLUMN es_stream.max_count IS 'so many of the newest events are shown; NULL: all';
COMMENT ON COLUMN es_stream.max_age IS 'events of this age are shown no more; NULL: any age';
COMMENT ON COLUMN es_stream.truncate_before IS 'events below this version are not shown';
COMMENT ON COLUMN es_stream.deleted_before IS 'the stream was deleted when this was its next version: events below are not shown';
COMMENT ON COLUMN es_stream.tombstoned_at IS 'since when the stream is closed for good';

-- Locks the stream, so that no append comes between, and tells sessions that
-- there are streams with settings.
CREATE FUNCTION es_stream_change() RETURNS trigger
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION es_stream_change() IS
	'stands before es_stream';
CREATE TRIGGER es_stream_change BEFORE INSERT OR UPDATE OR DELETE ON es_stream
	FOR EACH ROW EXECUTE FUNCTION es_stream_change();
CREATE TRIGGER es_stream_truncate BEFORE TRUNCATE ON es_stream
	FOR EACH STATEMENT EXECUTE FUNCTION es_stream_change();
ALTER TABLE es_stream
	ENABLE ALWAYS TRIGGER es_stream_change,
	ENABLE ALWAYS TRIGGER es_stream_truncate;

SELECT pg_catalog.pg_extension_config_dump('es_stream', '');

-- All of these need INSERT, SELECT and UPDATE on es_stream.  A stream that was
-- tombstoned is 55000.

-- Replaces all three; NULL for none.  The stream need not exist yet.
CREATE FUNCTION es_set_stream(
	stream_id       text,
	max_count       bigint   DEFAULT NULL,
	max_age         interval DEFAULT NULL,
	truncate_before bigint   DEFAULT NULL
) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_set_stream(text, bigint, interval, bigint) IS
	'say how much of a stream is shown';

-- Never goes back.  22023 behind the stream's next version.
CREATE FUNCTION es_truncate_stream(stream_id text, before_version bigint) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_truncate_stream(text, bigint) IS
	'show no events of a stream below a version';

-- 42704 for a stream without events.
CREATE FUNCTION es_delete_stream(stream_id text) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_delete_stream(text) IS
	'let a stream read as empty; it may be appended to again';

CREATE FUNCTION es_undelete_stream(stream_id text) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_undelete_stream(text) IS
	'show the events of a deleted stream again';

-- Cannot be taken back.  The stream need not exist.
CREATE FUNCTION es_tombstone_stream(stream_id text) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_tombstone_stream(text) IS
	'close a stream for good: it reads as empty, and nothing can be appended';

-- In the order of their ids, behind after, which is the last one that the
-- caller has seen.  first_version is the first that is shown, version + 1
-- where nothing is left; the times are those of the whole stream.  Skips from
-- stream to stream along an index.  Needs SELECT on es_event.
CREATE FUNCTION es_stream_list(
	category  text   DEFAULT NULL,
	after     text   DEFAULT NULL,
	max_count bigint DEFAULT NULL,
	OUT stream_id         text,
	OUT version           bigint,
	OUT first_version     bigint,
	OUT first_recorded_at timestamptz,
	OUT last_recorded_at  timestamptz,
	OUT status            text
) RETURNS SETOF record
	AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL RESTRICTED ROWS 1000;
COMMENT ON FUNCTION es_stream_list(text, text, bigint) IS
	'streams with version and times; status is live, deleted or tombstoned';
