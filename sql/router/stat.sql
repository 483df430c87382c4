-- stat: the state views of all partitions, each row with its partition

CREATE FUNCTION es_shards_stat_projection(shards integer[]) RETURNS TABLE (
	shard integer,
	name text,
	mode text,
	status text,
	on_error text,
	owner name,
	"position" bigint,
	lag_events bigint,
	lag_seconds double precision,
	events bigint,
	events_per_second double precision,
	run_at timestamp with time zone,
	parked bigint,
	error_position bigint,
	error_handler integer,
	last_error text
)
	LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'eventstore';
	SPLIT shards;
	RUN ON shards;
	SELECT (shards)[1] AS shard, v.* FROM @extschema@.es_stat_projection AS v;
$$;
COMMENT ON FUNCTION es_shards_stat_projection(integer[]) IS
	'rows of es_stat_projection on some partitions';
CREATE VIEW es_stat_projection AS
	SELECT v.* FROM @extschema@.es_shards() AS a(shards), @extschema@.es_shards_stat_projection(a.shards) AS v;
COMMENT ON VIEW es_stat_projection IS 'where each projection stands, and what is wrong with it, on every partition';
COMMENT ON COLUMN es_stat_projection.shard IS 'number of the partition';
COMMENT ON COLUMN es_stat_projection.name IS 'its name';
COMMENT ON COLUMN es_stat_projection.mode IS 'inline: in the appending transaction; async: behind it';
COMMENT ON COLUMN es_stat_projection.status IS 'how it is';
COMMENT ON COLUMN es_stat_projection.on_error IS 'what a failing handler does';
COMMENT ON COLUMN es_stat_projection.owner IS 'role that made it';
COMMENT ON COLUMN es_stat_projection.position IS 'place in the log';
COMMENT ON COLUMN es_stat_projection.lag_events IS 'events that are settled and not yet dealt with';
COMMENT ON COLUMN es_stat_projection.lag_seconds IS 'age of the oldest of those';
COMMENT ON COLUMN es_stat_projection.events IS 'how many events were dealt with';
COMMENT ON COLUMN es_stat_projection.events_per_second IS 'how fast it goes';
COMMENT ON COLUMN es_stat_projection.run_at IS 'when it last ran';
COMMENT ON COLUMN es_stat_projection.parked IS 'events that were put aside';
COMMENT ON COLUMN es_stat_projection.error_position IS 'position of the event that failed last';
COMMENT ON COLUMN es_stat_projection.error_handler IS 'ordinal of the handler that failed last';
COMMENT ON COLUMN es_stat_projection.last_error IS 'message of the last failure';

CREATE FUNCTION es_shards_stat_subscription(shards integer[]) RETURNS TABLE (
	shard integer,
	name text,
	owner name,
	partitions integer,
	hold text,
	"position" bigint,
	lag_events bigint,
	oldest_unacked_seconds double precision,
	in_flight bigint,
	consumers bigint,
	parked bigint,
	skipped bigint,
	parked_by_reason jsonb
)
	LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'eventstore';
	SPLIT shards;
	RUN ON shards;
	SELECT (shards)[1] AS shard, v.* FROM @extschema@.es_stat_subscription AS v;
$$;
COMMENT ON FUNCTION es_shards_stat_subscription(integer[]) IS
	'rows of es_stat_subscription on some partitions';
CREATE VIEW es_stat_subscription AS
	SELECT v.* FROM @extschema@.es_shards() AS a(shards), @extschema@.es_shards_stat_subscription(a.shards) AS v;
COMMENT ON VIEW es_stat_subscription IS 'where each subscription stands, who consumes it, and what is parked, on every partition';
COMMENT ON COLUMN es_stat_subscription.shard IS 'number of the partition';
COMMENT ON COLUMN es_stat_subscription.name IS 'its name';
COMMENT ON COLUMN es_stat_subscription.owner IS 'role that made it';
COMMENT ON COLUMN es_stat_subscription.partitions IS 'number of parts that the streams are split into';
COMMENT ON COLUMN es_stat_subscription.hold IS 'what waits behind a parked event: the later events of its stream, or none';
COMMENT ON COLUMN es_stat_subscription.position IS 'place in the log';
COMMENT ON COLUMN es_stat_subscription.lag_events IS 'events that are settled and not yet dealt with';
COMMENT ON COLUMN es_stat_subscription.oldest_unacked_seconds IS 'age of the oldest event that is not acknowledged';
COMMENT ON COLUMN es_stat_subscription.in_flight IS 'events that are delivered and not yet acknowledged';
COMMENT ON COLUMN es_stat_subscription.consumers IS 'consumers with a lease';
COMMENT ON COLUMN es_stat_subscription.parked IS 'events that were put aside';
COMMENT ON COLUMN es_stat_subscription.skipped IS 'events that were left out for good';
COMMENT ON COLUMN es_stat_subscription.parked_by_reason IS 'how many of those for each reason';

CREATE FUNCTION es_shards_stat_store(shards integer[]) RETURNS TABLE (
	shard integer,
	events bigint,
	streams bigint,
	is_estimate boolean,
	events_per_second double precision,
	table_bytes bigint,
	index_bytes bigint,
	archive_bytes bigint,
	appended bigint,
	conflicts bigint,
	rejected bigint,
	retries bigint,
	stats_reset timestamp with time zone,
	last_position bigint,
	settled_position bigint,
	settled_age_seconds double precision,
	holder_pid integer,
	holder_gid text,
	holder_position bigint,
	holder_age_seconds double precision
)
	LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'eventstore';
	SPLIT shards;
	RUN ON shards;
	SELECT (shards)[1] AS shard, v.* FROM @extschema@.es_stat_store AS v;
$$;
COMMENT ON FUNCTION es_shards_stat_store(integer[]) IS
	'rows of es_stat_store on some partitions';
CREATE VIEW es_stat_store AS
	SELECT v.* FROM @extschema@.es_shards() AS a(shards), @extschema@.es_shards_stat_store(a.shards) AS v;
COMMENT ON VIEW es_stat_store IS 'the store in numbers, and who holds back its readers, on every partition';
COMMENT ON COLUMN es_stat_store.shard IS 'number of the partition';
COMMENT ON COLUMN es_stat_store.events IS 'how many events were dealt with';
COMMENT ON COLUMN es_stat_store.streams IS 'how many streams there are';
COMMENT ON COLUMN es_stat_store.is_estimate IS 'events and streams are estimates from a sample of the log';
COMMENT ON COLUMN es_stat_store.events_per_second IS 'of the last minute, or of the last 5,000 events if those took less';
COMMENT ON COLUMN es_stat_store.table_bytes IS 'what the events take, with their tags';
COMMENT ON COLUMN es_stat_store.index_bytes IS 'size of the indexes';
COMMENT ON COLUMN es_stat_store.archive_bytes IS 'what archived events take, all told';
COMMENT ON COLUMN es_stat_store.appended IS 'events appended since stats_reset, those rolled back included';
COMMENT ON COLUMN es_stat_store.conflicts IS 'appends refused because the stream or the boundary had moved';
COMMENT ON COLUMN es_stat_store.rejected IS 'commands rejected by their decider';
COMMENT ON COLUMN es_stat_store.retries IS 'appends and commands that had been done before';
COMMENT ON COLUMN es_stat_store.stats_reset IS 'when counting began';
COMMENT ON COLUMN es_stat_store.last_position IS 'last position handed out';
COMMENT ON COLUMN es_stat_store.settled_position IS 'up to here readers may read';
COMMENT ON COLUMN es_stat_store.settled_age_seconds IS 'how long the first event behind it has been waiting for readers';
COMMENT ON COLUMN es_stat_store.holder_pid IS 'session that holds the settled position back; null for a prepared transaction';
COMMENT ON COLUMN es_stat_store.holder_gid IS 'prepared transaction that does';
COMMENT ON COLUMN es_stat_store.holder_position IS 'position behind which it may still append';
COMMENT ON COLUMN es_stat_store.holder_age_seconds IS 'age of its transaction';

CREATE FUNCTION es_shards_stat_archive(shards integer[]) RETURNS TABLE (
	shard integer,
	segments bigint,
	offline_segments bigint,
	events bigint,
	first_position bigint,
	last_position bigint,
	raw_bytes bigint,
	stored_bytes bigint,
	archived_at timestamp with time zone
)
	LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'eventstore';
	SPLIT shards;
	RUN ON shards;
	SELECT (shards)[1] AS shard, v.* FROM @extschema@.es_stat_archive AS v;
$$;
COMMENT ON FUNCTION es_shards_stat_archive(integer[]) IS
	'rows of es_stat_archive on some partitions';
CREATE VIEW es_stat_archive AS
	SELECT v.* FROM @extschema@.es_shards() AS a(shards), @extschema@.es_shards_stat_archive(a.shards) AS v;
COMMENT ON VIEW es_stat_archive IS 'how much is archived, on every partition';
COMMENT ON COLUMN es_stat_archive.shard IS 'number of the partition';
COMMENT ON COLUMN es_stat_archive.segments IS 'number of segments';
COMMENT ON COLUMN es_stat_archive.offline_segments IS 'segments whose events are kept elsewhere';
COMMENT ON COLUMN es_stat_archive.events IS 'how many events were dealt with';
COMMENT ON COLUMN es_stat_archive.first_position IS 'position of the first event';
COMMENT ON COLUMN es_stat_archive.last_position IS 'position of the last event';
COMMENT ON COLUMN es_stat_archive.raw_bytes IS 'size before it was compressed';
COMMENT ON COLUMN es_stat_archive.stored_bytes IS 'size as it is stored';
COMMENT ON COLUMN es_stat_archive.archived_at IS 'when it was archived';

CREATE FUNCTION es_shards_progress(shards integer[]) RETURNS TABLE (
	shard integer,
	job text,
	phase text,
	done bigint,
	total bigint,
	events_per_second numeric,
	time_left interval,
	started_at timestamp with time zone,
	pid integer
)
	LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'eventstore';
	SPLIT shards;
	RUN ON shards;
	SELECT (shards)[1] AS shard, v.* FROM @extschema@.es_progress AS v;
$$;
COMMENT ON FUNCTION es_shards_progress(integer[]) IS
	'rows of es_progress on some partitions';
CREATE VIEW es_progress AS
	SELECT v.* FROM @extschema@.es_shards() AS a(shards), @extschema@.es_shards_progress(a.shards) AS v;
COMMENT ON VIEW es_progress IS 'long work under way: phase, how much is done and in total, speed and time left, on every partition';
COMMENT ON COLUMN es_progress.shard IS 'number of the partition';
COMMENT ON COLUMN es_progress.job IS 'what is being done';
COMMENT ON COLUMN es_progress.phase IS 'which part of the work is under way';
COMMENT ON COLUMN es_progress.done IS 'how much of it is done';
COMMENT ON COLUMN es_progress.total IS 'how much there is to do';
COMMENT ON COLUMN es_progress.events_per_second IS 'how fast it goes';
COMMENT ON COLUMN es_progress.time_left IS 'how long it will take at this speed';
COMMENT ON COLUMN es_progress.started_at IS 'when it began';
COMMENT ON COLUMN es_progress.pid IS 'process that does it';
