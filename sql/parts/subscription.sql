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
	epoch        bigint,
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
COMMENT ON COLUMN es_subscription_partition.epoch IS 'history that the checkpoint belongs to, as the consumer said; null: nobody said';

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
-- epoch is what es_store() answered when the caller was told from_position;
-- 55000 if history has parted below it since.
CREATE FUNCTION es_create_subscription(
	name          text,
	from_position bigint      DEFAULT NULL,
	from_time     timestamptz DEFAULT NULL,
	event_types   text[]      DEFAULT NULL,
	category      text        DEFAULT NULL,
	partitions    integer     DEFAULT 1,
	hold          text        DEFAULT 'stream',
	max_attempts  integer     DEFAULT 10,
	if_not_exists boolean     DEFAULT false,
	epoch         bigint      DEFAULT NULL
) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_create_subscription(text, bigint, timestamptz, text[], text, integer, text, integer, boolean, bigint) IS
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
-- epoch is what es_store() answered when the consumer began, or was refused
-- last.  55000 once that history was left: since a promotion, restore or copy
-- positions above the fork name other events.  The partitions remember it, so a
-- call without it is refused then, too; one with the new epoch is told again
-- from the fork.
--
-- attempt counts the deliveries of an event, from 1.
-- 55006 while another session's transaction fetches for this consumer.
-- 25006 on a standby.
CREATE FUNCTION es_fetch(
	name      text,
	consumer  text,
	max_count integer  DEFAULT 100,
	lease     interval DEFAULT '30 s',
	ack       text     DEFAULT NULL,
	epoch     bigint   DEFAULT NULL
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
COMMENT ON FUNCTION es_fetch(text, text, integer, interval, text, bigint) IS
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
		k.parked, k.skipped,
		CASE WHEN NOT row_security_active('es_event'::regclass) THEN k.parked_by_reason END AS parked_by_reason
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
