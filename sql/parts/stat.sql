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
