-- catalog: the store's own tables.  Names resolve to the extension's schema.

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
