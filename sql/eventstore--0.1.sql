-- catalog: the store's own tables.  Names resolve to the extension's schema.
\echo Use "CREATE EXTENSION eventstore" to load this file. \quit

-- Every event, once, for ever.  Nothing in it is updated, so an append is one
-- heap insert and three index inserts and leaves nothing to clean up.
CREATE TABLE es_event (
	position     bigint      NOT NULL,
	version      bigint      NOT NULL,
	recorded_at  timestamptz NOT NULL,
	event_id     uuid        NOT NULL,
	type_version integer     NOT NULL,
	stream_id    text        COLLATE "C" NOT NULL,
	event_type   text        COLLATE "C" NOT NULL,
	data         jsonb       NOT NULL,
	metadata     jsonb,
	tags         text[]      COLLATE "C",
	CONSTRAINT es_event_pkey PRIMARY KEY (position),
	CONSTRAINT es_event_event_id_key UNIQUE (event_id),
	CONSTRAINT es_event_stream_id_version_key UNIQUE (stream_id, version)
) USING heap;
COMMENT ON TABLE es_event IS 'every event of the store, in the order of its position; append-only';
COMMENT ON COLUMN es_event.position IS 'place in the global log; grows, may have holes, never reused';
COMMENT ON COLUMN es_event.version IS 'place in the stream: 1, 2, 3, without holes';
COMMENT ON COLUMN es_event.recorded_at IS 'when the event was appended; never goes back inside a stream';
COMMENT ON COLUMN es_event.event_id IS 'unique id, given by the writer or a UUID of version 7';
COMMENT ON COLUMN es_event.type_version IS 'version of the event type that the data is written in';
COMMENT ON COLUMN es_event.stream_id IS 'the entity the event is about, such as account-1; the part before the first "-" is its category';
COMMENT ON COLUMN es_event.event_type IS 'what happened, such as MoneyDeposited';
COMMENT ON COLUMN es_event.data IS 'the facts';
COMMENT ON COLUMN es_event.metadata IS 'who, why and in which context; a JSON object';
COMMENT ON COLUMN es_event.tags IS 'what the event concerns besides its stream, as a sorted set';

-- CACHE 1 is part of the order protocol: a position is drawn, never kept for later.
CREATE SEQUENCE es_event_position_seq AS bigint CACHE 1 OWNED BY es_event.position;
COMMENT ON SEQUENCE es_event_position_seq IS 'hands out positions';

-- Holds no rows.  An append locks it in ROW EXCLUSIVE mode; who needs all
-- appends to stand still for a moment takes a mode that conflicts.
CREATE TABLE es_gate ();
COMMENT ON TABLE es_gate IS 'lock object that every append passes; holds no rows';

-- At most one row.  None until the first es_settle(), so that a restored dump
-- brings its own.
CREATE TABLE es_settled (
	singleton  boolean     NOT NULL DEFAULT true,
	position   bigint      NOT NULL,
	written_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	CONSTRAINT es_settled_pkey PRIMARY KEY (singleton),
	CONSTRAINT es_settled_singleton_check CHECK (singleton)
);
COMMENT ON TABLE es_settled IS 'the settled position as last written down; what standbys and replicas go by';
COMMENT ON COLUMN es_settled.position IS 'no event at or below it can still appear';
COMMENT ON COLUMN es_settled.written_at IS 'when it was written down';

-- A row for each history that the store went through; none before the first
-- es_store().  The last columns say where an epoch began: if that is not here,
-- it has ended.
CREATE TABLE es_epoch (
	epoch             bigint      NOT NULL,
	store_id          uuid        NOT NULL,
	fork_position     bigint      NOT NULL,
	system_identifier bigint      NOT NULL,
	timeline          bigint      NOT NULL,
	database          oid         NOT NULL,
	began_at          timestamptz NOT NULL,
	CONSTRAINT es_epoch_pkey PRIMARY KEY (epoch)
);
COMMENT ON TABLE es_epoch IS 'the histories that the store went through: one for each promotion, restore or copy';
COMMENT ON COLUMN es_epoch.epoch IS 'names the history; later ones have higher numbers';
COMMENT ON COLUMN es_epoch.store_id IS 'identity of the store, the same in all its epochs';
COMMENT ON COLUMN es_epoch.fork_position IS 'up to here the events are those of the epoch before';
COMMENT ON COLUMN es_epoch.system_identifier IS 'the cluster in which it began';
COMMENT ON COLUMN es_epoch.timeline IS 'the timeline on which it began';
COMMENT ON COLUMN es_epoch.database IS 'the database in which it began';
COMMENT ON COLUMN es_epoch.began_at IS 'when the change of history was noticed';

-- What each event is tagged with: where queries look.  Written beside the event
-- by the append itself; an event without tags has no rows here.
CREATE TABLE es_event_tag (
	tag        text   COLLATE "C" NOT NULL,
	position   bigint NOT NULL,
	event_type text   COLLATE "C" NOT NULL,
	CONSTRAINT es_event_tag_pkey PRIMARY KEY (tag, position)
);
COMMENT ON TABLE es_event_tag IS 'the tags that events carry, one a row, for queries over tags';
COMMENT ON COLUMN es_event_tag.tag IS 'what the event concerns, such as course:c1';
COMMENT ON COLUMN es_event_tag.position IS 'position of the event';
COMMENT ON COLUMN es_event_tag.event_type IS 'type of the event';

-- es_event keeps for ever what an event was appended with.  This says which
-- events es_retag gave other tags since, and what they carry today.
CREATE TABLE es_retagged (
	position    bigint      NOT NULL,
	tags        text[]      NOT NULL,
	retagged_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	retagged_by text        NOT NULL DEFAULT session_user,
	CONSTRAINT es_retagged_pkey PRIMARY KEY (position)
);
COMMENT ON TABLE es_retagged IS 'events whose tags es_retag changed';
COMMENT ON COLUMN es_retagged.position IS 'position of the event';
COMMENT ON COLUMN es_retagged.tags IS 'the tags it carries now';
COMMENT ON COLUMN es_retagged.retagged_at IS 'when they were changed last';
COMMENT ON COLUMN es_retagged.retagged_by IS 'who changed them last';

SELECT pg_catalog.pg_extension_config_dump('es_event', '');
SELECT pg_catalog.pg_extension_config_dump('es_event_position_seq', '');
SELECT pg_catalog.pg_extension_config_dump('es_gate', '');
SELECT pg_catalog.pg_extension_config_dump('es_settled', '');
SELECT pg_catalog.pg_extension_config_dump('es_epoch', '');
SELECT pg_catalog.pg_extension_config_dump('es_event_tag', '');
SELECT pg_catalog.pg_extension_config_dump('es_retagged', '');
-- definition: what the tables of definitions have in common

-- Nobody can have a text run with rights that he does not have: who writes a
-- row must have the privileges of its owner, which is that of the aggregate
-- where the row has none of its own.  Sessions that have compiled the
-- definitions are told of the change.  The argument is what the first column
-- names.
CREATE FUNCTION es_definition_change() RETURNS trigger
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION es_definition_change() IS
	'stands before the tables of definitions';
-- event_type: what is declared of event types
--
-- A declared type has versions; an append writes the newest.  A version may
-- have a check, an expression over event that must not be false, and tag
-- templates, from which the event gets tags besides those it is given.
-- Types that are not declared are free, unless eventstore.require_types is on.

CREATE TABLE es_event_type (
	event_type       text    COLLATE "C" NOT NULL,
	version          integer NOT NULL,
	check_expression text,
	tags             text[]  COLLATE "C",
	owner            regrole NOT NULL,
	search_path      text    NOT NULL,
	CONSTRAINT es_event_type_pkey PRIMARY KEY (event_type, version),
	CONSTRAINT es_event_type_version_check CHECK (version > 0)
);
COMMENT ON TABLE es_event_type IS 'event types that are declared, by version';
COMMENT ON COLUMN es_event_type.version IS 'version of the type; an append writes the newest';
COMMENT ON COLUMN es_event_type.check_expression IS 'SQL expression over event; an append for which it is false fails';
COMMENT ON COLUMN es_event_type.tags IS 'templates such as course:{courseId}, filled from the event''s data';
COMMENT ON COLUMN es_event_type.owner IS 'role with whose rights the expression runs';
COMMENT ON COLUMN es_event_type.search_path IS 'where the names in the expression are looked up';

CREATE TRIGGER es_definition_change BEFORE INSERT OR UPDATE OR DELETE ON es_event_type
	FOR EACH ROW EXECUTE FUNCTION es_definition_change('event type');
CREATE TRIGGER es_definition_truncate AFTER TRUNCATE ON es_event_type
	FOR EACH STATEMENT EXECUTE FUNCTION es_definition_change('event type');
ALTER TABLE es_event_type
	ENABLE ALWAYS TRIGGER es_definition_change,
	ENABLE ALWAYS TRIGGER es_definition_truncate;

SELECT pg_catalog.pg_extension_config_dump('es_event_type', '');

-- check_expression: over event, of which stream_id, event_type, type_version,
-- data, metadata and tags are known before it is stored; FALSE rejects (23514),
-- NULL does not, as in CHECK.  tags: templates, {a.b} stands for data -> a -> b;
-- an array gives a tag for each element, a value that is missing, null or an
-- object no tag; {{ stands for a brace.  A definition holds for events appended
-- after it is committed; stored ones are not looked at.  Writes es_event_type
-- with the caller's privileges.
CREATE FUNCTION es_create_event_type(
	event_type       text,
	version          integer DEFAULT 1,
	check_expression text    DEFAULT NULL,
	tags             text[]  DEFAULT NULL,
	if_not_exists    boolean DEFAULT false
) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_create_event_type(text, integer, text, text[], boolean) IS
	'declare an event type, or a new version of one';

-- version NULL: all of them.
CREATE FUNCTION es_drop_event_type(
	event_type text,
	version    integer DEFAULT NULL,
	if_exists  boolean DEFAULT false
) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_drop_event_type(text, integer, boolean) IS
	'take back the declaration of an event type; its events stay';
-- upcast: stored events shown in the newest form of their type
--
-- An upcaster gives the data that an event of the next version would have had.
-- The readers go along the chain: from 1 to 2, from 2 to 3, as far as there
-- are upcasters.  What is stored never changes, and SELECT … FROM es_event
-- shows it, as do the readers with raw => true.

CREATE TABLE es_upcaster (
	event_type   text    COLLATE "C" NOT NULL,
	from_version integer NOT NULL,
	expression   text    NOT NULL,
	new_type     text    COLLATE "C",
	owner        regrole NOT NULL,
	search_path  text    NOT NULL,
	CONSTRAINT es_upcaster_pkey PRIMARY KEY (event_type, from_version),
	CONSTRAINT es_upcaster_from_version_check CHECK (from_version > 0)
) WITH (user_catalog_table = true);
-- Logical decoding looks back into the table itself, but not into its TOAST
-- table.
ALTER TABLE es_upcaster
	ALTER COLUMN expression SET STORAGE MAIN,
	ALTER COLUMN search_path SET STORAGE MAIN;
COMMENT ON TABLE es_upcaster IS 'how events of a version of their type are shown as the next one';
COMMENT ON COLUMN es_upcaster.from_version IS 'version that it applies to; it leads to the next';
COMMENT ON COLUMN es_upcaster.expression IS 'SQL expression over event; its value is the data of the next version';
COMMENT ON COLUMN es_upcaster.new_type IS 'event type from the next version on; NULL: the same';
COMMENT ON COLUMN es_upcaster.owner IS 'role with whose rights the expression runs';
COMMENT ON COLUMN es_upcaster.search_path IS 'where the names in the expression are looked up';

CREATE TRIGGER es_definition_change BEFORE INSERT OR UPDATE OR DELETE ON es_upcaster
	FOR EACH ROW EXECUTE FUNCTION es_definition_change('the upcasters of event type');
CREATE TRIGGER es_definition_truncate AFTER TRUNCATE ON es_upcaster
	FOR EACH STATEMENT EXECUTE FUNCTION es_definition_change('the upcasters of event type');
ALTER TABLE es_upcaster
	ENABLE ALWAYS TRIGGER es_definition_change,
	ENABLE ALWAYS TRIGGER es_definition_truncate;

SELECT pg_catalog.pg_extension_config_dump('es_upcaster', '');

-- Defining it again replaces it.  The expression is tried on a few of the
-- newest stored events of the version, if there are any near the end of the
-- log.  Snapshots made before are worth nothing from then on.
CREATE FUNCTION es_upcast(
	event_type   text,
	from_version integer,
	expression   text,
	new_type     text DEFAULT NULL
) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_upcast(text, integer, text, text) IS
	'define how events of a version of their type are shown as the next one';

CREATE FUNCTION es_drop_upcaster(
	event_type   text,
	from_version integer,
	if_exists    boolean DEFAULT false
) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_drop_upcaster(text, integer, boolean) IS
	'let events of a version be shown as they are again';
-- stream: names and versions

CREATE FUNCTION es_category(stream_id text) RETURNS text
	AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION es_category(text) IS
	'category of a stream: the part of its id before the first "-", or all of it';

-- 0 for a stream without events.
CREATE FUNCTION es_stream_version(stream_id text) RETURNS bigint
	AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION es_stream_version(text) IS
	'version of the stream''s last event, 0 without events';
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
-- append: new events
--
-- expected_version: -1 any; -2 the stream must have events; 0 it must have
-- none; n it must be at version n.  If not: SQLSTATE 40001, constraint
-- es_expected_version, expected and actual version in the detail.
--
-- The same event ids again, with the same events, append nothing and answer
-- what the first call answered.  A bad name is 42602 (42622 too long), a NULL
-- 22004, any other bad argument 22023, an id of another event 23505.
-- Needs INSERT on es_event.

CREATE FUNCTION es_append(
	stream_id        text,
	event_type       text,
	data             jsonb,
	expected_version bigint DEFAULT -1,
	metadata         jsonb  DEFAULT NULL,
	event_id         uuid   DEFAULT NULL,
	tags             text[] DEFAULT NULL
) RETURNS bigint
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_append(text, text, jsonb, bigint, jsonb, uuid, text[]) IS
	'append one event; answers its version, which is the stream''s new one';

-- All of the batch or nothing.  Arrays have one element an event; one of tags
-- is a JSON array of strings, because SQL arrays cannot be ragged.
CREATE FUNCTION es_append_batch(
	stream_id        text,
	event_types      text[],
	data             jsonb[],
	expected_version bigint  DEFAULT -1,
	metadata         jsonb[] DEFAULT NULL,
	event_ids        uuid[]  DEFAULT NULL,
	tags             jsonb[] DEFAULT NULL
) RETURNS bigint
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_append_batch(text, text[], jsonb[], bigint, jsonb[], uuid[], jsonb[]) IS
	'append several events to one stream; answers the version of the last';

-- NULL before the session's first append.  After a retry, the position of
-- the event that was there; after an append that was rolled back, a position
-- that stays empty.
CREATE FUNCTION es_last_position() RETURNS bigint
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION es_last_position() IS
	'position of the last event that this session appended';
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
-- log: places in the global order.  All need SELECT on es_event.

-- No event at or below it can still appear.  In REPEATABLE READ and above that
-- is as the transaction's snapshot sees it.  In READ COMMITTED ask before the
-- statement that reads: a statement's snapshot is older than an answer given
-- inside it.  On a standby it is the position that was written down last.
CREATE FUNCTION es_settled_position() RETURNS bigint
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION es_settled_position() IS
	'highest position at or below which no event can still appear';

-- For standbys and logical replicas, which go by what was written down.
-- Needs INSERT and UPDATE on es_settled.
CREATE FUNCTION es_settle() RETURNS bigint
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_settle() IS
	'write the settled position down in es_settled, and answer it';

-- 0 when all events are later.  Never above the settled position, so it is a
-- safe from_position.
CREATE FUNCTION es_position_at(at timestamptz) RETURNS bigint
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION es_position_at(timestamptz) IS
	'position of the last event that was recorded at or before a time';
-- epoch: which history a position belongs to

-- What to keep with a position: readers that are given the epoch refuse
-- (55000) to go on from a position whose history was left by a promotion, a
-- restore or a copy.  Needs SELECT on es_event.  The first call gives the
-- store its identity, and so must be allowed to write.
CREATE FUNCTION es_store(
	OUT store_id         uuid,
	OUT epoch            bigint,
	OUT settled_position bigint
)
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_store() IS
	'identity of the store, its present epoch, and the settled position';
-- aggregate: how the events of a stream make its state
--
-- An aggregate is an initial state and, for each event type that matters, an
-- expression over state and event that gives the next state.  Events of other
-- types leave the state as it is.
--
-- The state is jsonb or of any other type; of a composite one, state.x is a
-- column, and of the event, event.data, event.recorded_at and so on.  The
-- texts are checked when they are defined (42804 for a wrong type, 42703 for
-- a misspelt name, with the place in the text).  They run with the rights of
-- the aggregate's owner, who is the role that created it, and along the
-- search_path that was in force then.  They must give the same answer each
-- time, so volatile functions are refused.

CREATE TABLE es_aggregate (
	name              text     COLLATE "C" NOT NULL,
	category          text     COLLATE "C" NOT NULL,
	initial_state     text,
	state_type        regtype  NOT NULL,
	snapshot_every    integer,
	snapshot_interval interval,
	boundary          jsonb,
	owner             regrole  NOT NULL,
	search_path       text     NOT NULL,
	CONSTRAINT es_aggregate_pkey PRIMARY KEY (name),
	CONSTRAINT es_aggregate_snapshot_every_check CHECK (snapshot_every > 0),
	CONSTRAINT es_aggregate_snapshot_interval_check CHECK (snapshot_interval > interval '0')
);
COMMENT ON TABLE es_aggregate IS 'aggregates: what state their streams'' events add up to';
COMMENT ON COLUMN es_aggregate.category IS 'streams of this category are folded by it where no aggregate is named';
COMMENT ON COLUMN es_aggregate.initial_state IS 'state before the first event, as a literal of the type or, for a composite type, a JSON object';
COMMENT ON COLUMN es_aggregate.state_type IS 'type of the state';
COMMENT ON COLUMN es_aggregate.snapshot_every IS 'take a snapshot after so many events; NULL: not by their number';
COMMENT ON COLUMN es_aggregate.snapshot_interval IS 'take a snapshot with the first event so long after the last one; NULL: not by time';
COMMENT ON COLUMN es_aggregate.owner IS 'role with whose rights the expressions run';
COMMENT ON COLUMN es_aggregate.search_path IS 'where the names in the expressions are looked up';
COMMENT ON COLUMN es_aggregate.boundary IS 'query over types and tags, filled from a command, whose events are folded; NULL: the events of a stream';

CREATE TABLE es_evolver (
	aggregate  text COLLATE "C" NOT NULL,
	event_type text COLLATE "C" NOT NULL,
	expression text NOT NULL,
	CONSTRAINT es_evolver_pkey PRIMARY KEY (aggregate, event_type),
	CONSTRAINT es_evolver_aggregate_fkey FOREIGN KEY (aggregate)
		REFERENCES es_aggregate ON UPDATE CASCADE ON DELETE CASCADE
);
COMMENT ON TABLE es_evolver IS 'what an event does to the state of an aggregate';
COMMENT ON COLUMN es_evolver.expression IS 'SQL expression over state and event; its value is the next state';

CREATE TRIGGER es_definition_change BEFORE INSERT OR UPDATE OR DELETE ON es_aggregate
	FOR EACH ROW EXECUTE FUNCTION es_definition_change('aggregate');
CREATE TRIGGER es_definition_truncate AFTER TRUNCATE ON es_aggregate
	FOR EACH STATEMENT EXECUTE FUNCTION es_definition_change();
CREATE TRIGGER es_definition_change BEFORE INSERT OR UPDATE OR DELETE ON es_evolver
	FOR EACH ROW EXECUTE FUNCTION es_definition_change('aggregate');
CREATE TRIGGER es_definition_truncate AFTER TRUNCATE ON es_evolver
	FOR EACH STATEMENT EXECUTE FUNCTION es_definition_change();
ALTER TABLE es_aggregate
	ENABLE ALWAYS TRIGGER es_definition_change,
	ENABLE ALWAYS TRIGGER es_definition_truncate;
ALTER TABLE es_evolver
	ENABLE ALWAYS TRIGGER es_definition_change,
	ENABLE ALWAYS TRIGGER es_definition_truncate;

SELECT pg_catalog.pg_extension_config_dump('es_aggregate', '');
SELECT pg_catalog.pg_extension_config_dump('es_evolver', '');

-- boundary: the aggregate folds the events that a query matches (boundary.sql)
-- and not those of a stream.  The query's tags are templates like those of
-- event types (event_type.sql), filled from the command.  An array gives an
-- item for each of its elements; a value that is missing is 22023.  Its
-- expressions see the command besides state and event.  It has no category,
-- and no snapshots are taken of it.
--
-- category: NULL for the aggregate's name.  initial_state: a literal of the
-- state's type, for a composite type also a JSON object; NULL for {} or for a
-- row of nulls.  An aggregate that exists is 42710, unless it is to be
-- replaced; it then keeps its owner and its expressions, which must fit the
-- new state.  Writes es_aggregate with the caller's privileges.
CREATE FUNCTION es_create_aggregate(
	name              text,
	category          text     DEFAULT NULL,
	initial_state     text     DEFAULT NULL,
	state_type        regtype  DEFAULT 'pg_catalog.jsonb',
	snapshot_every    integer  DEFAULT 100,
	snapshot_interval interval DEFAULT NULL,
	boundary          jsonb    DEFAULT NULL,
	or_replace        boolean  DEFAULT false,
	if_not_exists     boolean  DEFAULT false
) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_create_aggregate(text, text, text, regtype, integer, interval, jsonb, boolean, boolean) IS
	'define an aggregate: the state that the events of a stream add up to';

-- Defining an event type again replaces its expression.  Either way, the
-- aggregate's snapshots are worth nothing from then on.
CREATE FUNCTION es_evolve(
	aggregate  text,
	event_type text,
	expression text
) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_evolve(text, text, text) IS
	'define what an event does to an aggregate''s state, as an expression over state and event';

-- With its expressions, deciders and snapshots.
CREATE FUNCTION es_drop_aggregate(
	name      text,
	if_exists boolean DEFAULT false
) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_drop_aggregate(text, boolean) IS
	'drop an aggregate; its events stay';

CREATE FUNCTION es_drop_evolver(
	aggregate  text,
	event_type text,
	if_exists  boolean DEFAULT false
) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_drop_evolver(text, text, boolean) IS
	'let events of a type leave an aggregate''s state as it is again';
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
-- decider: what an aggregate answers to a command
--
-- A decider is a query over state, command and stream_id; its rows are the
-- events to append, and an optional reason to reject.

CREATE TABLE es_decider (
	aggregate    text COLLATE "C" NOT NULL,
	command_type text COLLATE "C" NOT NULL,
	query        text NOT NULL,
	reject       text,
	CONSTRAINT es_decider_pkey PRIMARY KEY (aggregate, command_type),
	CONSTRAINT es_decider_aggregate_fkey FOREIGN KEY (aggregate)
		REFERENCES es_aggregate ON UPDATE CASCADE ON DELETE CASCADE
);
COMMENT ON TABLE es_decider IS 'what an aggregate decides on a command';
COMMENT ON COLUMN es_decider.query IS 'query over state, command and stream_id; each row is an event: type, data, and if wanted metadata, tags and stream';
COMMENT ON COLUMN es_decider.reject IS 'expression or query over the same; its value is the reason to reject the command, NULL to accept it';

CREATE TRIGGER es_definition_change BEFORE INSERT OR UPDATE OR DELETE ON es_decider
	FOR EACH ROW EXECUTE FUNCTION es_definition_change('aggregate');
CREATE TRIGGER es_definition_truncate AFTER TRUNCATE ON es_decider
	FOR EACH STATEMENT EXECUTE FUNCTION es_definition_change();
ALTER TABLE es_decider
	ENABLE ALWAYS TRIGGER es_definition_change,
	ENABLE ALWAYS TRIGGER es_definition_truncate;

SELECT pg_catalog.pg_extension_config_dump('es_decider', '');

-- query gives rows of (event_type text, data jsonb, metadata jsonb, tags
-- text[], stream_id text), the last three only if wanted, in this order or
-- under these names; stream_id only where the aggregate has a boundary.  reject
-- is an expression, or a query
-- of one column and at most one row; its text is the message of the error
-- P0001.  Both run with the rights of the aggregate's owner.  Defining a
-- command again replaces it.
CREATE FUNCTION es_decide(
	aggregate    text,
	command_type text,
	query        text,
	reject       text DEFAULT NULL
) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_decide(text, text, text, text) IS
	'define what an aggregate decides on a command: a query that gives the events, and a reason to reject';

CREATE FUNCTION es_drop_decider(
	aggregate    text,
	command_type text,
	if_exists    boolean DEFAULT false
) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_drop_decider(text, text, boolean) IS
	'drop an aggregate''s answer to a command';
-- command: from a command to the events it leads to, in one call
--
-- es_handle locks the stream, or the boundary, before it looks at its state, so
-- nothing can come between the state a decision is based on and the events it
-- leads to: no decision is lost to a race, and none has to be tried again.

-- A row for each command that was given an id and was not rejected: what it
-- was, and what was answered.  The payload is there as a digest only.
CREATE TABLE es_command (
	command_id   uuid        NOT NULL,
	digest       uuid        NOT NULL,
	version      bigint      NOT NULL,
	handled_at   timestamptz NOT NULL,
	stream_id    text        COLLATE "C",
	command_type text        COLLATE "C" NOT NULL,
	CONSTRAINT es_command_pkey PRIMARY KEY (command_id)
);
COMMENT ON TABLE es_command IS 'commands that were handled under an id, so that none is handled twice';
COMMENT ON COLUMN es_command.digest IS 'of aggregate, stream, command type and payload';
COMMENT ON COLUMN es_command.version IS 'what es_handle answered: the stream''s version after the command, or the boundary''s last position';
COMMENT ON COLUMN es_command.handled_at IS 'when the command was handled';
COMMENT ON COLUMN es_command.stream_id IS 'stream that the command named, if it named one';

SELECT pg_catalog.pg_extension_config_dump('es_command', '');

-- Answers the stream's version after the command, the old one if no events
-- were decided.  A command that is rejected is the error P0001.  A command_id
-- that was handled before gets the first answer again and appends nothing;
-- for another command it is 22023.  Events carry the id as causation_id, and
-- as correlation_id where eventstore.metadata has none.
--
-- Where the aggregate has a boundary, the command decides on the events that
-- match it, and what is answered is the position of the last of the new
-- events, or without any of the last one that matches.  stream_id may then be
-- NULL: it is the stream of events to which the decider gives none; an event
-- with neither gets one of its own, as in es_append_if.
--
-- In REPEATABLE READ and SERIALIZABLE a stream, or a boundary, that is newer
-- than the transaction's snapshot is 40001.  Needs SELECT and INSERT on
-- es_event.
CREATE FUNCTION es_handle(
	stream_id    text,
	command_type text,
	command      jsonb DEFAULT '{}',
	command_id   uuid  DEFAULT NULL,
	aggregate    text  DEFAULT NULL
) RETURNS bigint
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_handle(text, text, jsonb, uuid, text) IS
	'handle a command: load the state of a stream or a boundary, decide, append the events';
-- trial: commands that leave no trace

-- The events, or one row with the rejection and no event.  tags include those
-- that the event's type gives; stream is what the decider says, NULL where it
-- leaves that to es_handle.  What the decider itself changes is undone.
-- stream_id may be NULL where the aggregate has a boundary.
CREATE FUNCTION es_decide_dry(
	stream_id    text,
	command_type text,
	command      jsonb DEFAULT '{}',
	aggregate    text  DEFAULT NULL,
	OUT event_type text,
	OUT data       jsonb,
	OUT metadata   jsonb,
	OUT tags       text[],
	OUT rejection  text,
	OUT stream     text
) RETURNS SETOF record
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1;
COMMENT ON FUNCTION es_decide_dry(text, text, jsonb, text) IS
	'what a command would do now: the events or the rejection, appending nothing';

-- given is an array of events, {"type": ..., "data": ...}, with tags where they
-- have others than their type gives; where the aggregate has a boundary, those
-- that match it are folded.  then_events is one of those that the command must
-- lead to, [] for none, where data, metadata and tags are compared if they are
-- there; then_error is the message it must be rejected with.  No event is stored and none is read.  The output is TAP:
-- inside a pgTAP plan by pgTAP itself, else numbered by session, with the
-- plan from es_test_done() at the end.
CREATE FUNCTION es_test(
	aggregate    text,
	given        jsonb,
	command_type text,
	command      jsonb,
	then_events  jsonb DEFAULT NULL,
	then_error   text  DEFAULT NULL,
	description  text  DEFAULT NULL
) RETURNS SETOF text
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1;
COMMENT ON FUNCTION es_test(text, jsonb, text, jsonb, jsonb, text, text) IS
	'test a decider: given events, when a command comes, then these events or this rejection';

CREATE FUNCTION es_test_done() RETURNS SETOF text
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1;
COMMENT ON FUNCTION es_test_done() IS
	'end a series of es_test() calls: the TAP plan, and how many failed';
-- guard: what may be done to es_event, and by whom

CREATE FUNCTION es_event_insert() RETURNS trigger
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION es_event_insert() IS
	'gives an event that comes by INSERT or COPY its version, position, id and time';

CREATE FUNCTION es_event_refuse() RETURNS trigger
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION es_event_refuse() IS
	'refuses to change or remove events';

-- Fires after all other BEFORE triggers, which go by name, so that none can
-- change what it assigned.
CREATE TRIGGER zz_es_event_insert BEFORE INSERT ON es_event
	FOR EACH ROW EXECUTE FUNCTION es_event_insert();
CREATE TRIGGER es_event_refuse BEFORE UPDATE OR DELETE OR TRUNCATE ON es_event
	FOR EACH STATEMENT EXECUTE FUNCTION es_event_refuse();
-- Logical replication fires no statement triggers.
CREATE TRIGGER es_event_refuse_row BEFORE UPDATE OR DELETE ON es_event
	FOR EACH ROW EXECUTE FUNCTION es_event_refuse();
ALTER TABLE es_event
	ENABLE ALWAYS TRIGGER zz_es_event_insert,
	ENABLE ALWAYS TRIGGER es_event_refuse,
	ENABLE ALWAYS TRIGGER es_event_refuse_row;

-- MERGE cannot be told from INSERT by a trigger, but the server refuses it on
-- any table that has a rule, from 17 on only where the rule is enabled in the
-- session's replication role.  This one never applies to anything.
CREATE RULE es_event_no_merge AS ON DELETE TO es_event WHERE false DO ALSO NOTHING;
ALTER TABLE es_event ENABLE ALWAYS RULE es_event_no_merge;
COMMENT ON RULE es_event_no_merge ON es_event IS
	'makes the server refuse MERGE; has no effect of its own';

-- Reader: SELECT.  Subscriber: subscriptions of its own.  Writer: INSERT too.
-- Admin: all that keeps the store running, with the right to grant it.  Each level includes the one before.
-- The caller must be allowed to grant: an admin, the extension's owner or a
-- superuser.
CREATE FUNCTION es_grant(role regrole, level text) RETURNS void
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
			('reader', 'SELECT', 'es_event_tag'),
			('reader', 'SELECT', 'es_retagged'),
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
			('reader', 'SELECT', 'es_command'),
			('reader', 'SELECT', 'es_snapshot'),
			('reader', 'SELECT', 'es_snapshot_cursor'),
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
			('reader', 'SELECT', 'es_stream'),
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
COMMENT ON FUNCTION es_grant(regrole, text) IS
	'let a role read, write or administer the store (level reader, subscriber, writer or admin)';
-- tag: es_event_tag follows es_event

CREATE FUNCTION es_event_tag() RETURNS trigger
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION es_event_tag() IS
	'writes down the tags of an event that came by INSERT or COPY';

CREATE FUNCTION es_event_tag_guard() RETURNS trigger
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION es_event_tag_guard() IS
	'lets restored and replicated rows in, and refuses all other changes';

-- Fires before triggers of the same kind that users add and that come behind it
-- in the alphabet: those may ask for tags.
CREATE TRIGGER aa_es_event_tag AFTER INSERT ON es_event
	FOR EACH ROW WHEN (NEW.tags IS NOT NULL) EXECUTE FUNCTION es_event_tag();
ALTER TABLE es_event ENABLE ALWAYS TRIGGER aa_es_event_tag;

CREATE TRIGGER es_event_tag_guard BEFORE UPDATE OR DELETE OR TRUNCATE ON es_event_tag
	FOR EACH STATEMENT EXECUTE FUNCTION es_event_tag_guard();
CREATE TRIGGER es_event_tag_guard_row BEFORE INSERT OR UPDATE OR DELETE ON es_event_tag
	FOR EACH ROW EXECUTE FUNCTION es_event_tag_guard();
ALTER TABLE es_event_tag
	ENABLE ALWAYS TRIGGER es_event_tag_guard,
	ENABLE ALWAYS TRIGGER es_event_tag_guard_row;

CREATE TRIGGER es_retagged_guard BEFORE UPDATE OR DELETE OR TRUNCATE ON es_retagged
	FOR EACH STATEMENT EXECUTE FUNCTION es_event_tag_guard();
CREATE TRIGGER es_retagged_guard_row BEFORE INSERT OR UPDATE OR DELETE ON es_retagged
	FOR EACH ROW EXECUTE FUNCTION es_event_tag_guard();
ALTER TABLE es_retagged
	ENABLE ALWAYS TRIGGER es_retagged_guard,
	ENABLE ALWAYS TRIGGER es_retagged_guard_row;
-- boundary: decisions that depend on events of several streams
--
-- A query is the JSON of the public specification (dcb.events): {} is every
-- event, {"items": [{"types": [...], "tags": [...]}, ...]} what any item
-- matches; an item matches an event of one of its types (none: any) that has
-- all of its tags (none: any).  Anything else in it is 22023.

-- Forward: the matching events after from_position, in position order.
-- Backwards: those before it, newest first; 0 begins at the end.  Whoever goes
-- on from the last position it got meets every committed event that matches
-- exactly once; only who may still append such an event holds it back.  What
-- it returns is on disk, and in the newest form of its type (upcast.sql) or
-- with raw as it is stored; the query is about types and tags as they are
-- stored.  epoch as in read.sql.  Needs SELECT on es_event.
CREATE FUNCTION es_read(
	query         jsonb,
	from_position bigint  DEFAULT 0,
	max_count     bigint  DEFAULT NULL,
	backwards     boolean DEFAULT false,
	raw           boolean DEFAULT false,
	epoch         bigint  DEFAULT NULL
) RETURNS SETOF es_event
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 100;
COMMENT ON FUNCTION es_read(jsonb, bigint, bigint, boolean, boolean, bigint) IS
	'events that match a query over types and tags, in the order of their positions';

-- The events that a decision depends on, and the position to give to
-- es_append_if() as after.  No event that matches can still appear at or below
-- it, so no conflict is lost to a transaction that commits late.  Events are
-- shown as es_read shows them.
CREATE FUNCTION es_read_boundary(
	query      jsonb,
	raw        boolean DEFAULT false,
	OUT after  bigint,
	OUT events es_event[]
) RETURNS record
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_read_boundary(jsonb, boolean) IS
	'events that match a query, and the position up to which there can be no others';

-- All of the events or nothing.  events is an array of objects:
--
--	{"type": ..., "data": ..., "stream": ..., "metadata": ..., "tags": [...], "id": ...}
--
-- of which type and data are required.  An event without stream gets one of
-- its own, named type-id, such as CourseDefined-0190b5a2-....
--
-- Nothing is appended when an event matches fail_if_events_match (NULL: no
-- condition) behind the position after.  With after it is SQLSTATE 40001: read
-- the boundary again and decide again.  Without after any matching event is a
-- conflict, and 23505: what was to be unique is there.  Constraint
-- es_append_condition; the detail has the event's position, type and tags.
-- With epoch, what es_store() answered when after was read: 55000 if history
-- has parted below after since, and what happened there might be overlooked.
--
-- Needs INSERT on es_event, and SELECT where there is a condition.
CREATE FUNCTION es_append_if(
	events               jsonb,
	fail_if_events_match jsonb,
	after                bigint DEFAULT NULL,
	epoch                bigint DEFAULT NULL
) RETURNS bigint
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_append_if(jsonb, jsonb, bigint, bigint) IS
	'append events unless others match a query; answers the last position';

-- The same, but a conflict is an answer and not an error.
CREATE FUNCTION es_try_append_if(
	events                jsonb,
	fail_if_events_match  jsonb,
	after                 bigint DEFAULT NULL,
	epoch                 bigint DEFAULT NULL,
	OUT appended          boolean,
	OUT "position"        bigint,
	OUT conflict_position bigint,
	OUT conflict_type     text,
	OUT conflict_tags     text[],
	OUT conflict_item     integer
) RETURNS record
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_try_append_if(jsonb, jsonb, bigint, bigint) IS
	'append events unless others match a query; answers whether, and if not which event does';

-- For the owner.  Gives the events that match other tags, for queries and
-- conditions from now on; all appends stand still until the transaction ends.
-- The events themselves do not change: column tags of es_event keeps what they
-- were appended with, es_retagged says what they carry now.  What was decided
-- before is not decided again.
CREATE FUNCTION es_retag(
	query  jsonb,
	add    text[] DEFAULT NULL,
	remove text[] DEFAULT NULL
) RETURNS bigint
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_retag(jsonb, text[], text[]) IS
	'add tags to, and remove tags from, the events that match a query; answers how many changed';
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
-- check: the store's doctor

-- First what is installed and whether it is looked after, then every event:
-- once by the table, once by each index, and the indexes themselves where
-- amcheck is installed.  Writes nothing.  max_time: what is not done by then
-- is reported as not finished, as a warning.  Needs SELECT on es_event.
CREATE FUNCTION es_check(
	max_time interval DEFAULT NULL,
	OUT check_name text,
	OUT status     text,
	OUT detail     text,
	OUT hint       text
) RETURNS SETOF record
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 17;
COMMENT ON FUNCTION es_check(interval) IS
	'prove the store''s invariants and look at its health; status is ok, warning or error';
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
-- runner: let projections catch up

-- One transaction a batch, so call it outside of a transaction block.
-- Returns when all projections are at the end of the log, or after
-- max_batches; also writes the settled position down.  Several may run at
-- once, from pg_cron, a client or a worker.
CREATE PROCEDURE es_run_projections(max_batches integer DEFAULT NULL)
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON PROCEDURE es_run_projections(integer) IS
	'let all projections catch up, one transaction a batch';

-- Of a projection: tries parked events again, in order; of park_stream, a stream's
-- later events only where the earlier ones succeed.  Answers how many succeeded.
-- Of a subscription: lets es_fetch deliver parked events again, in the
-- order of each stream.  Answers how many.
-- With stream_id or position, only these; a skipped event of a subscription
-- comes back by its position alone.  One function serves both, as a name rarely
-- means both; where it does, kind says which: 'projection' or 'subscription'.
CREATE FUNCTION es_replay_parked(
	name       text,
	stream_id  text   DEFAULT NULL,
	"position" bigint DEFAULT NULL,
	kind       text   DEFAULT NULL
) RETURNS bigint
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_replay_parked(text, text, bigint, text) IS
	'try the parked events of a projection again, or deliver those of a subscription again';

-- True once the projection has passed the position, false after the timeout.
-- position NULL: this session's last append.  55000 where it cannot come
-- true: the projection is paused or stopped, or the events are not committed.
CREATE FUNCTION es_wait_for(
	projection text,
	"position" bigint   DEFAULT NULL,
	timeout    interval DEFAULT '5 s'
) RETURNS boolean
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION es_wait_for(text, bigint, interval) IS
	'wait until a projection shows the events up to a position; by default, this session''s own';

-- lag_events counts positions, holes included; lag_seconds is the age of the
-- first event that is not projected yet.
CREATE VIEW es_stat_projection AS
	SELECT p.name, p.mode, p.status, p.on_error, pg_get_userbyid(p.owner) AS owner,
		p.position,
		CASE WHEN live.inline THEN 0
			ELSE greatest(coalesce(last.position, 0) - p.position, 0) END AS lag_events,
		CASE WHEN live.inline OR next.recorded_at IS NULL THEN 0
			ELSE extract(epoch FROM clock_timestamp() - next.recorded_at)::float8 END AS lag_seconds,
		p.events, p.events_per_second, p.run_at,
		(SELECT count(*) FROM es_parked k WHERE k.projection = p.name) AS parked,
		p.error_position, p.error_handler, p.last_error
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
COMMENT ON VIEW es_stat_projection IS 'where each projection stands, and what is wrong with it';
GRANT SELECT ON es_stat_projection TO pg_monitor;
-- rebuild: read models computed anew, and as they were

-- What long work there is; a row lives as long as the work.
CREATE TABLE es_job (
	pid           integer     NOT NULL,
	backend_start timestamptz NOT NULL,
	job           text        NOT NULL,
	phase         text        NOT NULL,
	done          bigint      NOT NULL DEFAULT 0,
	total         bigint      NOT NULL DEFAULT 0,
	events        bigint      NOT NULL DEFAULT 0,
	started_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
	updated_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
	CONSTRAINT es_job_pkey PRIMARY KEY (pid)
);
COMMENT ON TABLE es_job IS 'long work, for es_progress';
-- Nothing in it is worth dumping.
SELECT pg_catalog.pg_extension_config_dump('es_job', 'WHERE false');

-- Computes the read tables anew from the first event on, aside, while appends
-- and readers go on; then makes the tables equal to that in one transaction.
-- They stay the same tables, with their indexes, grants, views and foreign
-- keys.  Give them primary keys: then only rows that differ are touched.
-- Cancelled, it leaves everything as it was.
CREATE PROCEDURE es_rebuild_projection(name text)
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON PROCEDURE es_rebuild_projection(text) IS
	'compute the read tables of a projection anew, without downtime';

-- Fills temporary tables of the same names as the read tables, which hide
-- them until dropped.  at: events recorded by then; position: events up to
-- there; neither: all.  Needs the rights of the projection's owner.
CREATE FUNCTION es_project_at(
	projection text,
	at         timestamptz DEFAULT NULL,
	"position" bigint      DEFAULT NULL
) RETURNS bigint
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_project_at(text, timestamptz, bigint) IS
	'show a read model as it was, in temporary tables of the same names; answers the position';
-- worker: a background process that runs the projections of this database

-- Starts a worker for this database unless one is there, and answers its
-- process id.  It lives until DROP EXTENSION, DROP DATABASE or the server's
-- end, and comes back if it dies; after a restart of the server call again.
-- With eventstore in shared_preload_libraries workers start by themselves.
-- 55000 where no worker can be started.
CREATE FUNCTION es_start_worker() RETURNS integer
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_start_worker() IS
	'start the background worker of this database, if there is none; answers its process id';
-- track: changes of ordinary tables as events

-- What es_track_table puts on a table.
CREATE FUNCTION es_track_change() RETURNS trigger
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION es_track_change() IS
	'appends an event for each changed row of a tracked table, and refuses to truncate it';

-- From now on each change of a row appends an event to the stream
-- <category>-<key>: <category>.inserted {"new": row}, <category>.updated
-- {"new": row, "old": what was different}, <category>.deleted {"old": row}.
-- The key is the primary key unless key_columns, all NOT NULL, say otherwise.
-- except_columns never get into an event.  include_existing begins with an
-- inserted event for each row there is.  For the table's owner, who must be a
-- writer: events are appended in the owner's name, whoever changes a row.
CREATE FUNCTION es_track_table(
	table_name       regclass,
	category         text    DEFAULT NULL,
	key_columns      text[]  DEFAULT NULL,
	except_columns   text[]  DEFAULT NULL,
	include_existing boolean DEFAULT false,
	if_not_exists    boolean DEFAULT false
) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_track_table(regclass, text, text[], text[], boolean, boolean) IS
	'append an event for each change of a row of a table from now on';

CREATE FUNCTION es_untrack_table(
	table_name regclass,
	if_exists  boolean DEFAULT false
) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_untrack_table(regclass, boolean) IS
	'append no more events for changes of a table; those that are there stay';

-- The argument ends with a zero byte, like each argument of a trigger.
CREATE VIEW es_tracked_table AS
	SELECT tracked.table_name, tracked.settings ->> 'category' AS category,
		   ARRAY(SELECT pg_catalog.jsonb_array_elements_text(tracked.settings -> 'key_columns')) AS key_columns,
		   ARRAY(SELECT pg_catalog.jsonb_array_elements_text(tracked.settings -> 'except_columns')) AS except_columns,
		   tracked.enabled
		FROM (SELECT t.tgrelid::regclass AS table_name, t.tgenabled IN ('O', 'A') AS enabled,
					 pg_catalog.convert_from(pg_catalog.substr(t.tgargs, 1, pg_catalog.length(t.tgargs) - 1),
											 pg_catalog.getdatabaseencoding())::jsonb AS settings
				FROM pg_catalog.pg_trigger t
				WHERE t.tgfoid = 'es_track_change'::regproc AND t.tgparentid = 0
				AND t.tgname = '_es_track_row' AND t.tgnargs = 1) AS tracked;
COMMENT ON VIEW es_tracked_table IS 'tables whose changes are appended as events';
COMMENT ON COLUMN es_tracked_table.category IS 'streams are named after it and the row''s key';
COMMENT ON COLUMN es_tracked_table.key_columns IS 'what tells rows apart; empty: the primary key';
COMMENT ON COLUMN es_tracked_table.except_columns IS 'columns that are left out of the events';
COMMENT ON COLUMN es_tracked_table.enabled IS 'false where the trigger has been disabled';
-- subscription: durable cursors over the log for consumers outside the database
--
-- A consumer's loop:
--
--	token := NULL
--	loop
--		SELECT * FROM es_fetch('name', 'me', 100, '30 s', ack => token)
--		no rows:	SELECT es_wait_for_events('name', '10 s', 'me'); token := NULL
--		rows:		deal with each event; token := the rows' token
--
-- or, with a call of its own, es_ack('name', token).  Nothing is kept in the
-- session, so each call may go over another connection.
--
-- The log is split into partitions by a hash of the stream id.  A consumer
-- holds partitions by a lease, and gets their events in the order of their
-- positions.  All that belongs to a consumer, its lease included, is written by
-- that consumer's calls only, until the lease has ended.

-- The definition.  The owner is dumped as a name.
CREATE TABLE es_subscription (
	name         text        COLLATE "C" NOT NULL,
	owner        regrole     NOT NULL,
	event_types  text[]      COLLATE "C",
	category     text        COLLATE "C",
	partitions   integer     NOT NULL,
	hold         text        COLLATE "C" NOT NULL,
	max_attempts integer,
	created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
	CONSTRAINT es_subscription_pkey PRIMARY KEY (name),
	CONSTRAINT es_subscription_partitions_check CHECK (partitions BETWEEN 1 AND 1024),
	CONSTRAINT es_subscription_hold_check CHECK (hold IN ('stream', 'none')),
	CONSTRAINT es_subscription_max_attempts_check CHECK (max_attempts >= 1)
);
COMMENT ON TABLE es_subscription IS 'subscriptions; changed through functions only';
COMMENT ON COLUMN es_subscription.owner IS 'role that may fetch and acknowledge: the one that made the subscription';
COMMENT ON COLUMN es_subscription.event_types IS 'only events of these types; null: all';
COMMENT ON COLUMN es_subscription.category IS 'only events of streams of this category; null: all';
COMMENT ON COLUMN es_subscription.partitions IS 'number of parts that the streams are split into';
COMMENT ON COLUMN es_subscription.hold IS 'what waits behind a parked event: the later events of its stream, or none';
COMMENT ON COLUMN es_subscription.max_attempts IS 'deliveries after which an event is parked; null: no limit';

-- Who is there, and until when.  Each fetch that delivers changes a row here, so the
-- pages are kept half empty: then a row's new version finds room beside it.
CREATE TABLE es_subscription_consumer (
	subscription text        COLLATE "C" NOT NULL,
	consumer     text        COLLATE "C" NOT NULL,
	lease        bigint      NOT NULL,
	lease_until  timestamptz NOT NULL,
	fetched_at   timestamptz NOT NULL,
	replayed     integer     NOT NULL,
	CONSTRAINT es_subscription_consumer_pkey PRIMARY KEY (subscription, consumer),
	CONSTRAINT es_subscription_consumer_subscription_fkey FOREIGN KEY (subscription)
		REFERENCES es_subscription ON DELETE CASCADE
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
COMMENT ON TABLE es_subscription_consumer IS 'consumers of subscriptions, and their leases';
COMMENT ON COLUMN es_subscription_consumer.lease IS 'tells the last delivery from those before: a random number';
COMMENT ON COLUMN es_subscription_consumer.lease_until IS 'until when its partitions are its own';
COMMENT ON COLUMN es_subscription_consumer.fetched_at IS 'when the last delivery was made';
COMMENT ON COLUMN es_subscription_consumer.replayed IS 'events of the last delivery that had been put aside before';

-- The checkpoints.
CREATE TABLE es_subscription_partition (
	subscription text    COLLATE "C" NOT NULL,
	partition    integer NOT NULL,
	position     bigint  NOT NULL,
	consumer     text    COLLATE "C",
	delivered_to bigint  NOT NULL,
	in_flight    integer NOT NULL DEFAULT 0,
	attempts     integer NOT NULL DEFAULT 0,
	attempted_to bigint  NOT NULL DEFAULT 0,
	CONSTRAINT es_subscription_partition_pkey PRIMARY KEY (subscription, partition),
	CONSTRAINT es_subscription_partition_subscription_fkey FOREIGN KEY (subscription)
		REFERENCES es_subscription ON DELETE CASCADE
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
COMMENT ON TABLE es_subscription_partition IS 'how far each partition of a subscription has come';
COMMENT ON COLUMN es_subscription_partition.position IS 'all events at or below it are acknowledged or put aside';
COMMENT ON COLUMN es_subscription_partition.consumer IS 'who has it; null: nobody';
COMMENT ON COLUMN es_subscription_partition.delivered_to IS 'the last delivery reaches up to here';
COMMENT ON COLUMN es_subscription_partition.in_flight IS 'events in the last delivery; 0 once all of it is acknowledged';
COMMENT ON COLUMN es_subscription_partition.attempts IS 'deliveries of the next event that were not acknowledged';
COMMENT ON COLUMN es_subscription_partition.attempted_to IS 'and how far they reached';

-- Events that were put aside.  due_at is set where the event is to be delivered
-- again, once nothing of its stream is before it.
CREATE TABLE es_subscription_parked (
	subscription text        COLLATE "C" NOT NULL,
	position     bigint      NOT NULL,
	partition    integer     NOT NULL,
	stream_id    text        COLLATE "C" NOT NULL,
	event_type   text        COLLATE "C" NOT NULL,
	state        text        COLLATE "C" NOT NULL,
	reason       text,
	attempts     integer     NOT NULL,
	due_at       timestamptz,
	delivered    boolean     NOT NULL DEFAULT false,
	parked_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
	CONSTRAINT es_subscription_parked_pkey PRIMARY KEY (subscription, position),
	CONSTRAINT es_subscription_parked_stream_key UNIQUE (subscription, stream_id, position),
	CONSTRAINT es_subscription_parked_subscription_fkey FOREIGN KEY (subscription)
		REFERENCES es_subscription ON DELETE CASCADE,
	CONSTRAINT es_subscription_parked_state_check
		CHECK (state IN ('parked', 'retry', 'behind', 'skipped'))
);
-- Its first column alone tells whether anything is to be minded.
CREATE INDEX es_subscription_parked_due_idx ON es_subscription_parked (subscription, due_at)
	WHERE state <> 'skipped';
COMMENT ON TABLE es_subscription_parked IS 'events that subscriptions have put aside; es_replay_parked delivers them again';
COMMENT ON COLUMN es_subscription_parked.state IS 'parked until es_replay_parked; to be tried again (retry); waits behind another of its stream (behind); left out for good (skipped)';
COMMENT ON COLUMN es_subscription_parked.reason IS 'what es_nack was given';
COMMENT ON COLUMN es_subscription_parked.attempts IS 'deliveries so far';
COMMENT ON COLUMN es_subscription_parked.due_at IS 'when it is to be delivered again; null: not by itself';
COMMENT ON COLUMN es_subscription_parked.delivered IS 'is it in the last delivery of its partition''s consumer?';

SELECT pg_catalog.pg_extension_config_dump('es_subscription', '');
SELECT pg_catalog.pg_extension_config_dump('es_subscription_consumer', '');
SELECT pg_catalog.pg_extension_config_dump('es_subscription_partition', '');
SELECT pg_catalog.pg_extension_config_dump('es_subscription_parked', '');

-- The subscription begins behind from_position, or with the first event
-- recorded after from_time; by default at the beginning of the log, so that
-- it misses nothing.  From now on: from_position => es_settled_position().
--
-- event_types and category leave events out.  partitions is the largest number
-- of consumers that can share the work; it cannot be changed later.
-- hold says what waits while an event is parked: 'stream', the later events
-- of its stream, so that order is kept; or 'none'.
-- An event that was delivered max_attempts times without success is parked;
-- NULL: never.
-- The subscription belongs to the calling role, which needs SELECT on es_event.
-- With if_not_exists a subscription that is there is left as it is.
CREATE FUNCTION es_create_subscription(
	name          text,
	from_position bigint      DEFAULT NULL,
	from_time     timestamptz DEFAULT NULL,
	event_types   text[]      DEFAULT NULL,
	category      text        DEFAULT NULL,
	partitions    integer     DEFAULT 1,
	hold          text        DEFAULT 'stream',
	max_attempts  integer     DEFAULT 10,
	if_not_exists boolean     DEFAULT false
) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_create_subscription(text, bigint, timestamptz, text[], text, integer, text, integer, boolean) IS
	'define a subscription: a durable cursor over the log for consumers outside the database';

-- The next events, at most max_count, behind what is acknowledged, of the
-- partitions that the consumer holds, in the order of their positions; events
-- that were put aside and are due come with them.  All rows have one token.
-- No row: nothing is there, or nothing is left for this consumer; wait with
-- es_wait_for_events.
--
-- The call makes the consumer known, extends its lease to the given time from
-- now, takes partitions that nobody holds (any more), and gives some away
-- when new consumers have come.  What is in flight is delivered again: a
-- consumer has one delivery at a time, and the token of an earlier one is
-- refused from now on.  ack acknowledges a whole delivery first, to
-- spare a round trip; if it is refused nothing is fetched.
--
-- attempt counts the deliveries of an event, from 1.
-- 55006 while another session's transaction fetches for this consumer.
-- 25006 on a standby.
CREATE FUNCTION es_fetch(
	name      text,
	consumer  text,
	max_count integer  DEFAULT 100,
	lease     interval DEFAULT '30 s',
	ack       text     DEFAULT NULL
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
COMMENT ON FUNCTION es_fetch(text, text, integer, interval, text) IS
	'the next events of a subscription for a consumer, with a token to acknowledge them by';

-- Acknowledges the whole delivery, or its events up to a position.  In the
-- transaction of the effect, when that is in this database, each event takes
-- effect exactly once.  55006 once the token is out of date: the consumer has
-- fetched again, or its lease ended and another has the partitions.
CREATE FUNCTION es_ack(
	name       text,
	token      text,
	"position" bigint DEFAULT NULL
) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_ack(text, text, bigint) IS
	'acknowledge a delivery, or its events up to a position';

-- Puts one event of the delivery aside: to be delivered again after a delay
-- ('retry'; without a delay after 1 s, and twice as long each time, up to
-- 5 min), until es_replay_parked ('park'), or for good ('skip').  The
-- rest of the delivery is to be acknowledged as usual.
--
-- Answers the positions of the events in this delivery that the consumer must
-- leave alone: the event itself, and with hold 'stream' the later ones of its
-- stream, which are delivered again behind it.
CREATE FUNCTION es_nack(
	name       text,
	token      text,
	"position" bigint,
	action     text     DEFAULT 'retry',
	reason     text     DEFAULT NULL,
	delay      interval DEFAULT NULL
) RETURNS bigint[]
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_nack(text, text, bigint, text, text, interval) IS
	'put an event of a delivery aside: retry, park or skip; answers which events to leave alone';

-- Answers when the lease ends now.  A lease of 0 gives all partitions back at
-- once, for a consumer that stops.  55006 like es_ack.
CREATE FUNCTION es_renew(
	name  text,
	token text,
	lease interval DEFAULT '30 s'
) RETURNS timestamptz
	AS 'MODULE_PATHNAME' LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_renew(text, text, interval) IS
	'extend the lease of a delivery that takes long, or give it back with 0';

-- True as soon as there is something to fetch, false after the timeout.  For
-- a consumer that is named: in a partition that is its own or anybody's to take.
-- What is in flight does not count.  The transaction should be at READ
-- COMMITTED, and have no work pending, for its snapshot is kept while it waits.
CREATE FUNCTION es_wait_for_events(
	name     text,
	timeout  interval DEFAULT '30 s',
	consumer text     DEFAULT NULL
) RETURNS boolean
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_wait_for_events(text, interval, text) IS
	'wait until a subscription has something to fetch';

-- Lets the subscription go on behind a position, or with the first event
-- recorded after a time; answers the position.  Deliveries in flight are void;
-- events that were put aside stay so if they are at or before the position, and
-- come again with the others if they are behind it.  Waits for transactions
-- that fetch or acknowledge.
CREATE FUNCTION es_seek(
	name       text,
	"position" bigint      DEFAULT NULL,
	at         timestamptz DEFAULT NULL
) RETURNS bigint
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_seek(text, bigint, timestamptz) IS
	'let a subscription go on from another place in the log';

CREATE FUNCTION es_drop_subscription(name text, if_exists boolean DEFAULT false) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_drop_subscription(text, boolean) IS
	'remove a subscription, with its checkpoints and parked events';

-- 0 to partitions - 1.  The same on every machine and for ever.
CREATE FUNCTION es_stream_partition(stream_id text, partitions integer) RETURNS integer
	AS 'MODULE_PATHNAME' LANGUAGE C STRICT IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION es_stream_partition(text, integer) IS
	'the partition of a subscription that a stream falls into';

-- position is that of the partition furthest behind; lag_events counts positions,
-- holes included; oldest_unacked_seconds is the age of the first event behind it
-- (of the archived segment that it is in).
CREATE VIEW es_stat_subscription AS
	SELECT s.name, pg_get_userbyid(s.owner) AS owner, s.partitions, s.hold, p.position,
		greatest(coalesce(last.position, 0) - p.position, 0) AS lag_events,
		CASE WHEN next.recorded_at IS NULL THEN 0
			ELSE extract(epoch FROM clock_timestamp() - next.recorded_at)::float8 END
			AS oldest_unacked_seconds,
		p.in_flight + k.in_flight AS in_flight, c.consumers,
		k.parked, k.skipped, k.parked_by_reason
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
COMMENT ON VIEW es_stat_subscription IS 'where each subscription stands, who consumes it, and what is parked';
GRANT SELECT ON es_stat_subscription TO pg_monitor;
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
CREATE VIEW es_outbox AS
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
-- stat: the store in numbers, in the manner of the server's own pg_stat views
--
-- What a view shows is found when it is asked; appends pay for nothing but
-- the counters, which the server's cumulative statistics keep under the name
-- of es_counter (track_counts).  They count what was tried, committed or not,
-- and come a second late.

-- Holds no rows, and is not worth dumping.
CREATE TABLE es_counter ();
COMMENT ON TABLE es_counter IS 'stands in the server''s statistics for what es_stat_store counts; holds no rows';
SELECT pg_catalog.pg_extension_config_dump('es_counter', '');

CREATE FUNCTION es_stat_log(
	OUT events            bigint,
	OUT streams           bigint,
	OUT is_estimate       boolean,
	OUT events_per_second float8,
	OUT last_position     bigint,
	OUT settled_position  bigint
) RETURNS record
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION es_stat_log() IS
	'for es_stat_store: what the log says of itself, large ones from a sample';

-- The transaction whose announcement is the lowest: what it has appended, or
-- will, is what readers wait for.  Runs with its owner's rights, so that the
-- age of everybody's transaction shows; it looks at pg_catalog only.
CREATE FUNCTION es_settled_holder(
	OUT pid         integer,
	OUT gid         text,
	OUT "position"  bigint,
	OUT age_seconds float8
) RETURNS SETOF record
	LANGUAGE sql VOLATILE PARALLEL RESTRICTED SECURITY DEFINER ROWS 1
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT l.pid, p.gid, l.classid::bigint << 32 | l.objid::bigint,
		extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, p.prepared))::float8
	FROM pg_locks l
	JOIN pg_database d ON d.oid = l.database AND d.datname = current_database()
	LEFT JOIN pg_stat_get_activity(NULL) a ON a.pid = l.pid
	LEFT JOIN pg_locks t ON l.pid IS NULL AND t.pid IS NULL
		AND t.virtualtransaction = l.virtualtransaction AND t.locktype = 'transactionid'
	LEFT JOIN pg_prepared_xacts p ON p.transaction = t.transactionid
	WHERE l.locktype = 'advisory' AND l.granted
		AND l.objsubid = (58626 - 65536)::smallint	-- 0xE502
		AND l.pid IS DISTINCT FROM pg_backend_pid()
	ORDER BY 3, 4 DESC
	LIMIT 1
$$;
COMMENT ON FUNCTION es_settled_holder() IS
	'the transaction that holds the settled position back; pid is null for a prepared one, which has a gid';

-- One row.  events and streams are counted in a small store, and estimated
-- from a sample of the log in a large one.  events_per_second is that of the
-- last minute.  appended, conflicts, rejected and retries count since
-- stats_reset.  settled_age_seconds is how long the first event behind the
-- settled position has been waiting for its readers, 0 where none is; then
-- the holder says who keeps it waiting.
CREATE VIEW es_stat_store AS
	SELECT l.events, l.streams, l.is_estimate, l.events_per_second,
		pg_table_size('es_event') + pg_table_size('es_event_tag') AS table_bytes,
		pg_indexes_size('es_event') + pg_indexes_size('es_event_tag') AS index_bytes,
		pg_total_relation_size('es_archive_segment') + pg_total_relation_size('es_archive_run')
			+ pg_total_relation_size('es_archive_key') AS archive_bytes,
		pg_stat_get_tuples_returned('es_counter'::regclass) AS appended,
		pg_stat_get_tuples_fetched('es_counter'::regclass) AS conflicts,
		pg_stat_get_blocks_fetched('es_counter'::regclass) AS rejected,
		pg_stat_get_blocks_hit('es_counter'::regclass) AS retries,
		pg_stat_get_db_stat_reset_time(d.oid) AS stats_reset,
		l.last_position, l.settled_position,
		coalesce(extract(epoch FROM clock_timestamp() - next.recorded_at)::float8, 0) AS settled_age_seconds,
		h.pid AS holder_pid, h.gid AS holder_gid, h.position AS holder_position,
		h.age_seconds AS holder_age_seconds
	FROM es_stat_log() l
	JOIN pg_database d ON d.datname = current_database()
	LEFT JOIN LATERAL (SELECT e.recorded_at FROM es_event e
		WHERE e.position > l.settled_position ORDER BY e.position LIMIT 1) AS next ON true
	LEFT JOIN es_settled_holder() h ON true;
COMMENT ON VIEW es_stat_store IS 'the store in numbers, and who holds back its readers';
COMMENT ON COLUMN es_stat_store.is_estimate IS 'events and streams are estimates from a sample of the log';
COMMENT ON COLUMN es_stat_store.events_per_second IS 'of the last minute, or of the last 5,000 events if those took less';
COMMENT ON COLUMN es_stat_store.table_bytes IS 'what the events take, with their tags';
COMMENT ON COLUMN es_stat_store.archive_bytes IS 'what archived events take, all told';
COMMENT ON COLUMN es_stat_store.appended IS 'events appended since stats_reset, those rolled back included';
COMMENT ON COLUMN es_stat_store.conflicts IS 'appends refused because the stream or the boundary had moved';
COMMENT ON COLUMN es_stat_store.rejected IS 'commands rejected by their decider';
COMMENT ON COLUMN es_stat_store.retries IS 'appends and commands that had been done before';
COMMENT ON COLUMN es_stat_store.last_position IS 'last position handed out';
COMMENT ON COLUMN es_stat_store.settled_position IS 'up to here readers may read';
COMMENT ON COLUMN es_stat_store.settled_age_seconds IS 'how long the first event behind it has been waiting for readers';
COMMENT ON COLUMN es_stat_store.holder_pid IS 'session that holds the settled position back; null for a prepared transaction';
COMMENT ON COLUMN es_stat_store.holder_gid IS 'prepared transaction that does';
COMMENT ON COLUMN es_stat_store.holder_position IS 'position behind which it may still append';
COMMENT ON COLUMN es_stat_store.holder_age_seconds IS 'age of its transaction';

-- Appends, conflicts, rejections and retries count from 0 again.
CREATE FUNCTION es_stat_reset() RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION es_stat_reset() IS
	'let the counters of es_stat_store begin at 0 again';

-- Goes from stream to stream along an index, two probes each, in descending
-- order of the names.
CREATE FUNCTION es_stream_sizes(
	OUT stream_id        text,
	OUT category         text,
	OUT events           bigint,
	OUT bytes            bigint,
	OUT last_position    bigint,
	OUT last_recorded_at timestamptz
) RETURNS SETOF record
	AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL RESTRICTED ROWS 1000;
COMMENT ON FUNCTION es_stream_sizes() IS
	'for es_stat_stream: all streams with their sizes';

CREATE VIEW es_stat_stream AS
	SELECT s.stream_id, s.category, s.events, s.bytes, s.last_position, s.last_recorded_at
	FROM es_stream_sizes() s;
COMMENT ON VIEW es_stat_stream IS 'all streams; ORDER BY events, bytes or last_recorded_at DESC LIMIT 10 for the top ones';
COMMENT ON COLUMN es_stat_stream.bytes IS 'estimate from two of its events';

CREATE FUNCTION es_running_jobs(
	OUT job        text,
	OUT phase      text,
	OUT done       bigint,
	OUT total      bigint,
	OUT started_at timestamptz,
	OUT pid        integer
) RETURNS SETOF record
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 10;
COMMENT ON FUNCTION es_running_jobs() IS
	'for es_progress: what sessions of this database are at';

-- A rebuild is many transactions and has a row of its own.  Other work shows
-- itself in shared memory while it runs; a batch of a projection is over too
-- soon to have a speed, so that is what the batch before it had.
CREATE VIEW es_progress AS
	SELECT w.job, w.phase, w.done, w.total,
		round(w.speed::numeric, 0) AS events_per_second,
		CASE WHEN w.speed > 0 AND w.total >= w.done
			THEN make_interval(secs => (w.total - w.done) / w.speed) END AS time_left,
		w.started_at, w.pid
	FROM (SELECT j.job, j.phase, j.done, j.total,
			j.events / greatest(extract(epoch FROM j.updated_at - j.started_at), 0.001)::float8 AS speed,
			j.started_at, j.pid
		FROM es_job j
		JOIN pg_catalog.pg_stat_get_activity(NULL) a
			ON a.pid = j.pid AND coalesce(a.backend_start = j.backend_start, true)
		UNION ALL
		SELECT r.job, r.phase, r.done, r.total,
			coalesce(p.events_per_second,
				r.done / greatest(extract(epoch FROM clock_timestamp() - r.started_at), 0.001)::float8),
			r.started_at, r.pid
		FROM es_running_jobs() r
		LEFT JOIN es_projection p ON r.job = 'run ' || p.name) AS w;
COMMENT ON VIEW es_progress IS 'long work under way: phase, how much is done and in total, speed and time left';

GRANT SELECT ON es_stat_store, es_stat_stream, es_progress TO pg_monitor;
GRANT EXECUTE ON FUNCTION es_stat_log(), es_settled_holder(), es_stream_sizes(), es_running_jobs() TO pg_monitor;
-- report: the store, or one of its streams, as a page for a browser
--
-- One HTML page that needs nothing else: no script, no font, no network.  It
-- reads a bounded part of the store, whatever its size, and says which figures
-- are estimates.  Of a long stream the first 50 and the last 150 events are
-- shown.  In psql: \t \a \o store.html, then SELECT es_report();
--
-- Needs SELECT on es_event.  42704 for a stream that never had an event.
CREATE FUNCTION es_report(stream_id text DEFAULT NULL) RETURNS text
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_report(text) IS
	'the store, or the timeline of a stream, as one HTML page';
-- comment: what \d, \df and \dx+ show of what the other parts made

DO $$
DECLARE
	extension oid := (SELECT e.oid FROM pg_catalog.pg_extension e WHERE e.extname OPERATOR(pg_catalog.=) 'eventstore');
	path text := pg_catalog.current_setting('search_path');
	r record;
BEGIN
	PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

	-- Trigger functions are nobody's to call: they sort behind all that is.
	FOR r IN
		SELECT p.oid::regprocedure AS signature, p.proname AS name
			FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid
			WHERE d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
			AND d.refclassid = 'pg_extension'::regclass AND d.refobjid = extension
			AND p.prorettype = 'trigger'::regtype AND p.proname NOT LIKE 'zz\_%'
	LOOP
		EXECUTE format('ALTER FUNCTION %s RENAME TO %I', r.signature, 'zz_' || r.name);
	END LOOP;

	-- A trigger does what its function says.
	FOR r IN
		SELECT t.tgname AS name, t.tgrelid::regclass AS relation, obj_description(t.tgfoid, 'pg_proc') AS text
			FROM pg_depend d JOIN pg_trigger t ON t.tgrelid = d.objid
			WHERE d.classid = 'pg_class'::regclass AND d.deptype = 'e'
			AND d.refclassid = 'pg_extension'::regclass AND d.refobjid = extension
			AND NOT t.tgisinternal AND obj_description(t.oid, 'pg_trigger') IS NULL
	LOOP
		EXECUTE format('COMMENT ON TRIGGER %I ON %s IS %L', r.name, r.relation, r.text);
	END LOOP;

	-- Columns that mean the same wherever they are, those of es_event first.
	FOR r IN
		SELECT a.attrelid::regclass AS relation, a.attname AS name, col_description(e.attrelid, e.attnum) AS text
			FROM pg_depend d JOIN pg_attribute a ON a.attrelid = d.objid AND a.attnum > 0
			JOIN pg_class c ON c.relname = 'es_event' AND c.relnamespace =
				(SELECT x.extnamespace FROM pg_extension x WHERE x.oid = extension)
			JOIN pg_attribute e ON e.attrelid = c.oid AND e.attname = a.attname AND e.atttypid = a.atttypid
			WHERE d.classid = 'pg_class'::regclass AND d.deptype = 'e'
			AND d.refclassid = 'pg_extension'::regclass AND d.refobjid = extension
			AND a.attname NOT IN ('position', 'stream_id', 'event_type')
			AND col_description(a.attrelid, a.attnum) IS NULL AND col_description(e.attrelid, e.attnum) IS NOT NULL
	LOOP
		EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', r.relation, r.name, r.text);
	END LOOP;
	FOR r IN
		SELECT a.attrelid::regclass AS relation, a.attname AS name, v.text
			FROM pg_depend d JOIN pg_attribute a ON a.attrelid = d.objid AND a.attnum > 0
			JOIN (VALUES
				('aggregate', 'name of the aggregate'),
				('archived_at', 'when it was archived'),
				('backend_start', 'when the process began'),
				('category', 'category of the streams'),
				('command_id', 'id that the command was sent with'),
				('command_type', 'type of the command'),
				('consumer', 'name of the consumer'),
				('consumers', 'consumers with a lease'),
				('created_at', 'when it was made'),
				('done', 'how much of it is done'),
				('entries', 'how many there are'),
				('error_handler', 'ordinal of the handler that failed last'),
				('error_position', 'position of the event that failed last'),
				('event_type', 'type of the events'),
				('events', 'how many events were dealt with'),
				('events_per_second', 'how fast it goes'),
				('first_hash', 'the least hash in it'),
				('first_position', 'position of the first event'),
				('first_segment', 'number of the first segment'),
				('greatest_id', 'the greatest event id'),
				('hold', 'what waits behind a parked event: the later events of its stream, or none'),
				('id', 'id of the event'),
				('in_flight', 'events that are delivered and not yet acknowledged'),
				('index_bytes', 'size of the indexes'),
				('job', 'what is being done'),
				('lag_events', 'events that are settled and not yet dealt with'),
				('lag_seconds', 'age of the oldest of those'),
				('last_error', 'message of the last failure'),
				('last_position', 'position of the last event'),
				('last_recorded_at', 'when the last event was recorded'),
				('last_segment', 'number of the last segment'),
				('least_id', 'the least event id'),
				('mode', 'inline: in the appending transaction; async: behind it'),
				('name', 'its name'),
				('offline_segments', 'segments whose events are kept elsewhere'),
				('oldest_unacked_seconds', 'age of the oldest event that is not acknowledged'),
				('on_error', 'what a failing handler does'),
				('owner', 'role that made it'),
				('parked', 'events that were put aside'),
				('parked_at', 'when the event was put aside'),
				('parked_by_reason', 'how many of those for each reason'),
				('partition', 'number of the partition, from 0'),
				('partitions', 'number of parts that the streams are split into'),
				('payload', 'the event''s data'),
				('phase', 'which part of the work is under way'),
				('pid', 'process that does it'),
				('position', 'place in the log'),
				('projection', 'name of the projection'),
				('raw_bytes', 'size before it was compressed'),
				('run', 'number of the run'),
				('run_at', 'when it last ran'),
				('segments', 'number of segments'),
				('singleton', 'always true: there is one row'),
				('skipped', 'events that were left out for good'),
				('started_at', 'when it began'),
				('stats_reset', 'when counting began'),
				('status', 'how it is'),
				('stored_bytes', 'size as it is stored'),
				('stream_id', 'name of the stream'),
				('streams', 'how many streams there are'),
				('subscription', 'name of the subscription'),
				('table_name', 'the table'),
				('time_left', 'how long it will take at this speed'),
				('timestamp', 'when it was recorded'),
				('total', 'how much there is to do'),
				('traceparent', 'trace context, from the metadata'),
				('type', 'type of the event'),
				('updated_at', 'when this was written')
			) AS v(name, text) ON v.name = a.attname
			WHERE d.classid = 'pg_class'::regclass AND d.deptype = 'e'
			AND d.refclassid = 'pg_extension'::regclass AND d.refobjid = extension
			AND col_description(a.attrelid, a.attnum) IS NULL
	LOOP
		EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', r.relation, r.name, r.text);
	END LOOP;
	PERFORM set_config('search_path', path, true);
END
$$;
-- privilege: nothing is open to PUBLIC; es_grant opens it.  Comes last.

DO $$
DECLARE
	f regprocedure;
	r record;
BEGIN
	FOR f IN
		SELECT d.objid::pg_catalog.regprocedure
			FROM pg_catalog.pg_depend d
			WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
			AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
			AND d.deptype OPERATOR(pg_catalog.=) 'e'
			AND d.refobjid OPERATOR(pg_catalog.=) (SELECT e.oid FROM pg_catalog.pg_extension e
				WHERE e.extname OPERATOR(pg_catalog.=) 'eventstore')
	LOOP
		EXECUTE pg_catalog.format('REVOKE ALL ON ROUTINE %s FROM PUBLIC', f);
	END LOOP;
	-- Default privileges of the installing role may have opened these.
	FOR r IN
		SELECT c.oid::pg_catalog.regclass AS name,
				CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind
			FROM pg_catalog.pg_depend d
			JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) d.objid
			WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
			AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
			AND d.deptype OPERATOR(pg_catalog.=) 'e'
			AND c.relkind OPERATOR(pg_catalog.=) ANY (ARRAY['r', 'v', 'S']::pg_catalog."char"[])
			AND d.refobjid OPERATOR(pg_catalog.=) (SELECT e.oid FROM pg_catalog.pg_extension e
				WHERE e.extname OPERATOR(pg_catalog.=) 'eventstore')
	LOOP
		EXECUTE pg_catalog.format('REVOKE ALL ON %s %s FROM PUBLIC', r.kind, r.name);
	END LOOP;
END
$$;
