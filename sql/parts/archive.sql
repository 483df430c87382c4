-- archive: old events in cold storage
--
-- es_archive moves settled events out of es_event, in the order of positions,
-- into segments: some thousand events each, column by column, compressed.
-- All readers go through both.  SELECT … FROM es_event shows what has not been
-- moved; es_event_all shows all.

CREATE TABLE es_archive_segment (
	segment           bigint      NOT NULL,
	first_position    bigint      NOT NULL,
	last_position     bigint      NOT NULL,
	first_recorded_at timestamptz NOT NULL,
	last_recorded_at  timestamptz NOT NULL,
	events            integer     NOT NULL,
	raw_bytes         bigint      NOT NULL,
	stored_bytes      bigint      NOT NULL,
	format            integer     NOT NULL,
	codec             text        NOT NULL,
	digest            bytea       NOT NULL,
	archived_at       timestamptz NOT NULL,
	content           bytea,
	CONSTRAINT es_archive_segment_pkey PRIMARY KEY (segment),
	CONSTRAINT es_archive_segment_first_position_key UNIQUE (first_position)
) USING heap;
-- Compressed already; and blocks are read from the middle.
ALTER TABLE es_archive_segment ALTER COLUMN content SET STORAGE EXTERNAL;
COMMENT ON TABLE es_archive_segment IS 'archived events, some thousand a row';
COMMENT ON COLUMN es_archive_segment.segment IS 'number: 1, 2, 3, in the order of positions';
COMMENT ON COLUMN es_archive_segment.first_position IS 'position of its first event';
COMMENT ON COLUMN es_archive_segment.last_position IS 'position of its last event';
COMMENT ON COLUMN es_archive_segment.first_recorded_at IS 'when its first event was appended';
COMMENT ON COLUMN es_archive_segment.last_recorded_at IS 'when its last event was appended';
COMMENT ON COLUMN es_archive_segment.events IS 'number of events';
COMMENT ON COLUMN es_archive_segment.raw_bytes IS 'their bytes before compression';
COMMENT ON COLUMN es_archive_segment.stored_bytes IS 'their bytes as stored';
COMMENT ON COLUMN es_archive_segment.format IS 'version of the content''s format';
COMMENT ON COLUMN es_archive_segment.codec IS 'what it is compressed with: zstd, lz4, pglz or none';
COMMENT ON COLUMN es_archive_segment.digest IS 'SHA-256 of the events, however they are stored';
COMMENT ON COLUMN es_archive_segment.archived_at IS 'when they were moved here';
COMMENT ON COLUMN es_archive_segment.content IS 'the events; NULL while the segment is off-line';

-- Which segments may have a stream or an event id; the essay is in
-- archive_key.c.
CREATE TABLE es_archive_run (
	run           bigint  NOT NULL,
	kind          "char"  NOT NULL,
	level         integer NOT NULL,
	first_segment bigint  NOT NULL,
	last_segment  bigint  NOT NULL,
	entries       bigint  NOT NULL,
	least_id      uuid,
	greatest_id   uuid,
	CONSTRAINT es_archive_run_pkey PRIMARY KEY (run)
) USING heap;
COMMENT ON TABLE es_archive_run IS 'parts of the index of archived streams and ids';
COMMENT ON COLUMN es_archive_run.kind IS 's: streams, i: event ids';
COMMENT ON COLUMN es_archive_run.level IS 'four of a level are merged into one of the next';
COMMENT ON COLUMN es_archive_run.entries IS 'number of pairs of key and segment';

CREATE TABLE es_archive_key (
	run        bigint NOT NULL,
	first_hash bigint NOT NULL,
	entries    bytea  NOT NULL,
	CONSTRAINT es_archive_key_pkey PRIMARY KEY (run, first_hash)
) USING heap;
ALTER TABLE es_archive_key ALTER COLUMN entries SET STORAGE MAIN;
COMMENT ON TABLE es_archive_key IS 'index of archived streams and ids: sorted hashes and their segments';

CREATE FUNCTION es_archive_guard() RETURNS trigger
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION es_archive_guard() IS
	'refuses changes to the archive''s tables';

CREATE TRIGGER es_archive_guard BEFORE INSERT OR UPDATE OR DELETE ON es_archive_segment
	FOR EACH ROW EXECUTE FUNCTION es_archive_guard();
CREATE TRIGGER es_archive_guard BEFORE INSERT OR UPDATE OR DELETE ON es_archive_run
	FOR EACH ROW EXECUTE FUNCTION es_archive_guard();
CREATE TRIGGER es_archive_guard BEFORE INSERT OR UPDATE OR DELETE ON es_archive_key
	FOR EACH ROW EXECUTE FUNCTION es_archive_guard();
CREATE TRIGGER es_archive_guard_statement BEFORE UPDATE OR DELETE OR TRUNCATE ON es_archive_segment
	FOR EACH STATEMENT EXECUTE FUNCTION es_archive_guard();
CREATE TRIGGER es_archive_guard_statement BEFORE UPDATE OR DELETE OR TRUNCATE ON es_archive_run
	FOR EACH STATEMENT EXECUTE FUNCTION es_archive_guard();
CREATE TRIGGER es_archive_guard_statement BEFORE UPDATE OR DELETE OR TRUNCATE ON es_archive_key
	FOR EACH STATEMENT EXECUTE FUNCTION es_archive_guard();
ALTER TABLE es_archive_segment
	ENABLE ALWAYS TRIGGER es_archive_guard, ENABLE ALWAYS TRIGGER es_archive_guard_statement;
ALTER TABLE es_archive_run
	ENABLE ALWAYS TRIGGER es_archive_guard, ENABLE ALWAYS TRIGGER es_archive_guard_statement;
ALTER TABLE es_archive_key
	ENABLE ALWAYS TRIGGER es_archive_guard, ENABLE ALWAYS TRIGGER es_archive_guard_statement;

SELECT pg_catalog.pg_extension_config_dump('es_archive_segment', '');
SELECT pg_catalog.pg_extension_config_dump('es_archive_run', '');
SELECT pg_catalog.pg_extension_config_dump('es_archive_key', '');

-- Moves the settled events before a position and before a time: give one of
-- the two, or both.  One segment a transaction, so call it outside of a
-- transaction block; it may be cancelled at any time, and the next call goes
-- on where it ended.  codec NULL: the best that this build has.  For the owner
-- of es_event.
CREATE PROCEDURE es_archive(
	before_position bigint      DEFAULT NULL,
	before_time     timestamptz DEFAULT NULL,
	segment_events  integer     DEFAULT 8192,
	max_segments    integer     DEFAULT NULL,
	codec           text        DEFAULT NULL
)
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON PROCEDURE es_archive(bigint, timestamptz, integer, integer, text) IS
	'move old events out of es_event into compressed segments, one transaction each';

-- Archived events as they are stored, in the order of positions.  Needs SELECT
-- on es_event.
CREATE FUNCTION es_read_archive(
	from_position bigint DEFAULT 0,
	max_count     bigint DEFAULT NULL
) RETURNS SETOF es_event
	AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL RESTRICTED;
COMMENT ON FUNCTION es_read_archive(bigint, bigint) IS
	'archived events behind a position, as they are stored';

-- The last position that is archived, 0 before the first.  Needs SELECT on
-- es_event.
CREATE FUNCTION es_archived_position() RETURNS bigint
	AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL RESTRICTED;
COMMENT ON FUNCTION es_archived_position() IS
	'events up to this position are archived';

CREATE VIEW es_event_all WITH (security_invoker = true) AS
	SELECT * FROM es_read_archive()
	UNION ALL
	SELECT * FROM es_event e WHERE e.position > es_archived_position();
COMMENT ON VIEW es_event_all IS 'every event, archived or not, as it is stored';

CREATE VIEW es_stat_archive AS
	SELECT count(*) AS segments,
		count(*) FILTER (WHERE s.content IS NULL) AS offline_segments,
		coalesce(sum(s.events), 0)::bigint AS events,
		min(s.first_position) AS first_position, max(s.last_position) AS last_position,
		coalesce(sum(s.raw_bytes), 0)::bigint AS raw_bytes,
		coalesce(sum(s.stored_bytes) FILTER (WHERE s.content IS NOT NULL), 0)::bigint AS stored_bytes,
		max(s.archived_at) AS archived_at
	FROM es_archive_segment s;
COMMENT ON VIEW es_stat_archive IS 'how much is archived';
GRANT SELECT ON es_stat_archive TO pg_monitor;

-- A segment as a file that can leave the server and be read by any other, with
-- a checksum.
CREATE FUNCTION es_export_segment(segment bigint) RETURNS bytea
	AS 'MODULE_PATHNAME' LANGUAGE C STRICT STABLE PARALLEL RESTRICTED;
COMMENT ON FUNCTION es_export_segment(bigint) IS
	'a segment of the archive as a file';

-- Takes the content of a segment off the server.  What es_export_segment
-- answered is asked for as the proof that it is at hand, and is checked to the
-- last event.  Whatever needs the segment fails until it is imported again.
CREATE FUNCTION es_detach_segment(segment bigint, exported bytea) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_detach_segment(bigint, bytea) IS
	'take a segment that was exported off the server';

-- Brings a segment back, or repairs a damaged one.  The file must hold exactly
-- the events that were archived.  Answers its number.
CREATE FUNCTION es_import_segment(exported bytea, codec text DEFAULT NULL) RETURNS bigint
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_import_segment(bytea, text) IS
	'bring an exported segment back';
