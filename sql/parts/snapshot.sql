-- snapshot: states kept to shorten the fold
--
-- A snapshot is never needed: without one, the fold begins at the first
-- event.  One is used if it was made by the definition in force, if its event
-- is there, with the same id and visible to the reader, and if it is not
-- later than what is asked for.  Any other is as good as none.  So all may be
-- deleted at any time.
--
-- Of each stream the newest snapshot is kept and of the older ones about one
-- for each doubling of the distance to it: es_state(at_version) then folds no
-- more events than lie between that version and the newest snapshot, and a
-- stream of a million events has some fifteen snapshots.

CREATE TABLE es_snapshot (
	version     bigint      NOT NULL,
	recorded_at timestamptz NOT NULL,
	taken_at    timestamptz NOT NULL,
	event_id    uuid        NOT NULL,
	stream_id   text        COLLATE "C" NOT NULL,
	aggregate   text        COLLATE "C" NOT NULL,
	definition  uuid,
	state       jsonb,
	state_text  text,
	CONSTRAINT es_snapshot_pkey PRIMARY KEY (stream_id, aggregate, version)
);
COMMENT ON TABLE es_snapshot IS 'states of streams at a version, kept to shorten the fold; may be deleted at any time';
COMMENT ON COLUMN es_snapshot.version IS 'version of the last event that the state contains';
COMMENT ON COLUMN es_snapshot.recorded_at IS 'when that event was appended';
COMMENT ON COLUMN es_snapshot.taken_at IS 'when the snapshot was taken';
COMMENT ON COLUMN es_snapshot.event_id IS 'id of that event';
COMMENT ON COLUMN es_snapshot.aggregate IS 'aggregate that folded the stream, or the application''s name for its own fold';
COMMENT ON COLUMN es_snapshot.definition IS 'digest of the aggregate''s definition; NULL for an application''s fold';
COMMENT ON COLUMN es_snapshot.state IS 'a state of type jsonb';
COMMENT ON COLUMN es_snapshot.state_text IS 'a state of any other type, as its type writes it';

-- At most one row: how far es_take_snapshots() has come.
CREATE TABLE es_snapshot_cursor (
	singleton boolean NOT NULL DEFAULT true,
	position  bigint  NOT NULL,
	CONSTRAINT es_snapshot_cursor_pkey PRIMARY KEY (singleton),
	CONSTRAINT es_snapshot_cursor_singleton_check CHECK (singleton)
);
COMMENT ON TABLE es_snapshot_cursor IS 'how far along the log es_take_snapshots() has come';

SELECT pg_catalog.pg_extension_config_dump('es_snapshot', '');
SELECT pg_catalog.pg_extension_config_dump('es_snapshot_cursor', '');

-- es_handle takes the snapshots that its own events make due.  Those that
-- plain appends make due are taken here: for all streams that have new events
-- behind the place where the last call ended, at most max_events events and
-- 1,000 streams a call.  Answers how many were taken; 0 also where another session is at it.
-- Made for a scheduler.  Needs SELECT on es_event and INSERT and UPDATE on
-- es_snapshot_cursor.
CREATE FUNCTION es_take_snapshots(max_events bigint DEFAULT 10000) RETURNS bigint
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_take_snapshots(bigint) IS
	'take the snapshots that are due by now';

-- Due or not.  Answers the version; NULL if there is a snapshot already.
CREATE FUNCTION es_take_snapshot(
	stream_id text,
	aggregate text DEFAULT NULL
) RETURNS bigint
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_take_snapshot(text, text) IS
	'take a snapshot of one stream now';

-- For folds done in applications.  aggregate is the application's name for
-- the fold, NULL for the stream's category; not one that the server folds.
-- The event of that version must exist and be shown.  Needs INSERT on es_event.
CREATE FUNCTION es_save_snapshot(
	stream_id text,
	version   bigint,
	state     jsonb,
	aggregate text DEFAULT NULL
) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_save_snapshot(text, bigint, jsonb, text) IS
	'keep the state of a stream that an application has folded';

-- The newest snapshot at or before at_version; version 0 and no state where
-- there is none.  The events after it come from es_read_stream(stream_id,
-- version).  Needs SELECT on es_event.
CREATE FUNCTION es_load_snapshot(
	stream_id  text,
	aggregate  text   DEFAULT NULL,
	at_version bigint DEFAULT NULL,
	OUT version bigint,
	OUT state   jsonb
) RETURNS record
	AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL RESTRICTED;
COMMENT ON FUNCTION es_load_snapshot(text, text, bigint) IS
	'the newest state that an application has kept, and its version';
