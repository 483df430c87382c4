-- projection: read models that the server keeps itself

-- One row a projection.  The owner is dumped as a name, and the tables are
-- names, so that a dump restored elsewhere means the same.
CREATE TABLE es_projection (
	name              text        COLLATE "C" NOT NULL,
	mode              text        COLLATE "C" NOT NULL,
	status            text        COLLATE "C" NOT NULL,
	on_error          text        COLLATE "C" NOT NULL,
	owner             regrole     NOT NULL,
	search_path       text        NOT NULL,
	category          text        COLLATE "C",
	tables            text[]      NOT NULL,
	position          bigint      NOT NULL DEFAULT 0,
	events            bigint      NOT NULL DEFAULT 0,
	events_per_second float8,
	run_at            timestamptz,
	error_position    bigint,
	error_handler     integer,
	last_error        text,
	CONSTRAINT es_projection_pkey PRIMARY KEY (name),
	CONSTRAINT es_projection_mode_check CHECK (mode IN ('inline', 'async')),
	CONSTRAINT es_projection_status_check CHECK (status IN ('live', 'catching up', 'paused', 'stopped')),
	CONSTRAINT es_projection_on_error_check CHECK (on_error IN ('stop', 'skip', 'park_stream'))
) WITH (fillfactor = 50);
COMMENT ON TABLE es_projection IS 'projections and how far each has come; changed through functions only';
COMMENT ON COLUMN es_projection.mode IS 'inline: runs in the appending transaction; async: runs behind it';
COMMENT ON COLUMN es_projection.status IS 'live; catching up: inline, not yet at the end of the log; paused by es_pause_projection; stopped by an error';
COMMENT ON COLUMN es_projection.on_error IS 'what a failing handler does: stop the projection, skip the event, or park_stream';
COMMENT ON COLUMN es_projection.owner IS 'role in whose name the handlers run: the one that defined the projection';
COMMENT ON COLUMN es_projection.search_path IS 'where the handlers look up names';
COMMENT ON COLUMN es_projection.category IS 'only events of this category; null: all';
COMMENT ON COLUMN es_projection.tables IS 'the read tables that the handlers write';
COMMENT ON COLUMN es_projection.position IS 'all events at or below it are projected; of a live inline one, where it went live';
COMMENT ON COLUMN es_projection.events IS 'events that were projected in batches';
COMMENT ON COLUMN es_projection.events_per_second IS 'speed of the last batch';
COMMENT ON COLUMN es_projection.run_at IS 'when the last batch ended';
COMMENT ON COLUMN es_projection.error_position IS 'position of the event that failed last';
COMMENT ON COLUMN es_projection.error_handler IS 'ordinal of the handler that failed last';
COMMENT ON COLUMN es_projection.last_error IS 'its message';

CREATE TABLE es_projection_handler (
	projection text    COLLATE "C" NOT NULL,
	ordinal    integer NOT NULL,
	event_type text    COLLATE "C",
	handler    text    NOT NULL,
	CONSTRAINT es_projection_handler_pkey PRIMARY KEY (projection, ordinal),
	CONSTRAINT es_projection_handler_projection_fkey FOREIGN KEY (projection)
		REFERENCES es_projection ON DELETE CASCADE
);
COMMENT ON TABLE es_projection_handler IS 'the SQL of projections; changed through functions only';
COMMENT ON COLUMN es_projection_handler.ordinal IS 'handlers run in this order';
COMMENT ON COLUMN es_projection_handler.event_type IS 'runs for each event of this type; null: once a batch';
COMMENT ON COLUMN es_projection_handler.handler IS 'one or more SQL statements';

CREATE TABLE es_parked (
	projection text        COLLATE "C" NOT NULL,
	position   bigint      NOT NULL,
	stream_id  text        COLLATE "C" NOT NULL,
	event_type text        COLLATE "C" NOT NULL,
	handler    integer,
	error_code text        COLLATE "C",
	message    text        NOT NULL,
	parked_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
	CONSTRAINT es_parked_pkey PRIMARY KEY (projection, position),
	CONSTRAINT es_parked_projection_fkey FOREIGN KEY (projection)
		REFERENCES es_projection ON DELETE CASCADE
);
COMMENT ON TABLE es_parked IS 'events that a projection has passed over; es_replay_parked tries them again';
COMMENT ON COLUMN es_parked.handler IS 'ordinal of the handler that failed; null where the event waits behind another of its stream';
COMMENT ON COLUMN es_parked.error_code IS 'SQLSTATE of the failure';
COMMENT ON COLUMN es_parked.message IS 'what the handler said, or why the event waits';

SELECT pg_catalog.pg_extension_config_dump('es_projection', '');
SELECT pg_catalog.pg_extension_config_dump('es_projection_handler', '');
SELECT pg_catalog.pg_extension_config_dump('es_parked', '');

-- A handler runs with its owner's rights, so a row written by hand must not
-- choose whose: the writer needs the rights of the owner it names.
CREATE FUNCTION es_projection_guard() RETURNS trigger
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION es_projection_guard() IS
	'refuses definitions that would run with the rights of a role the writer cannot act as';
CREATE TRIGGER es_projection_guard BEFORE INSERT OR UPDATE ON es_projection
	FOR EACH ROW EXECUTE FUNCTION es_projection_guard();
CREATE TRIGGER es_projection_guard BEFORE INSERT OR UPDATE ON es_projection_handler
	FOR EACH ROW EXECUTE FUNCTION es_projection_guard();
ALTER TABLE es_projection ENABLE ALWAYS TRIGGER es_projection_guard;
ALTER TABLE es_projection_handler ENABLE ALWAYS TRIGGER es_projection_guard;

-- New events that come by INSERT and COPY are projected inline when their
-- statement ends; es_append fires neither of the two.
CREATE FUNCTION es_event_statement() RETURNS trigger
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION es_event_statement() IS
	'hands the events of an INSERT or COPY to the inline projections';
CREATE TRIGGER es_event_statement_begin BEFORE INSERT ON es_event
	FOR EACH STATEMENT EXECUTE FUNCTION es_event_statement();
CREATE TRIGGER es_event_statement_end AFTER INSERT ON es_event
	FOR EACH STATEMENT EXECUTE FUNCTION es_event_statement();
ALTER TABLE es_event
	ENABLE ALWAYS TRIGGER es_event_statement_begin,
	ENABLE ALWAYS TRIGGER es_event_statement_end;

-- The projection belongs to the calling role: its handlers run with that
-- role's rights and the search_path of now.  tables names the read tables
-- that the handlers write, for es_rebuild_projection and es_project_at.
-- An inline projection is live at once in a store without events; otherwise
-- whoever runs projections lets it catch up first.  Give it its handlers in
-- the same transaction.  Needs SELECT on es_event.
CREATE FUNCTION es_create_projection(
	name     text,
	mode     text       DEFAULT 'async',
	tables   regclass[] DEFAULT '{}',
	category text       DEFAULT NULL,
	on_error text       DEFAULT 'stop'
) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_create_projection(text, text, regclass[], text, text) IS
	'define a projection, inline or async; give it handlers with es_on and es_on_batch';

-- The read tables stay.
CREATE FUNCTION es_drop_projection(name text) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_drop_projection(text) IS
	'remove a projection, its handlers and its parked events; the read tables stay';

-- SQL statements that run once for each event of the type.  The event's
-- columns are event.data, event.stream_id and so on, the whole event is
-- event.  Handlers of an event run in the order of their definition.
CREATE FUNCTION es_on(projection text, event_type text, handler text) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_on(text, text, text) IS
	'add a handler that runs once for each event of a type';

-- SQL statements that run once for all events of a batch, which are the
-- relation new_events with the columns of es_event.  They run after those
-- that run for single events.
CREATE FUNCTION es_on_batch(projection text, handler text) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_on_batch(text, text) IS
	'add a handler that runs once for each batch of events, over new_events';

-- The handlers of one event type, or without it those that run once a batch:
-- to define them anew, in the same transaction.  The read tables stay as they
-- are; es_rebuild_projection computes them by the handlers that there are now.
CREATE FUNCTION es_drop_handler(
	projection text,
	event_type text    DEFAULT NULL,
	if_exists  boolean DEFAULT false
) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_drop_handler(text, text, boolean) IS
	'take a projection''s handlers for an event type away, or those for batches';

-- Resuming goes on behind the last event projected, so what happened in
-- between is projected first.
CREATE FUNCTION es_pause_projection(name text) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_pause_projection(text) IS
	'let a projection rest until es_resume_projection';
CREATE FUNCTION es_resume_projection(name text) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_resume_projection(text) IS
	'let a paused or stopped projection go on where it stands';
