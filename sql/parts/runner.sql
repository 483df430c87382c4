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
--
-- An error may tell of events: not to one who is subject to their policies.
CREATE VIEW es_stat_projection AS
	SELECT p.name, p.mode, p.status, p.on_error, pg_get_userbyid(p.owner) AS owner,
		p.position,
		CASE WHEN live.inline THEN 0
			ELSE greatest(coalesce(last.position, 0) - p.position, 0) END AS lag_events,
		CASE WHEN live.inline OR next.recorded_at IS NULL THEN 0
			ELSE extract(epoch FROM clock_timestamp() - next.recorded_at)::float8 END AS lag_seconds,
		p.events, p.events_per_second, p.run_at,
		(SELECT count(*) FROM es_parked k WHERE k.projection = p.name) AS parked,
		p.error_position, p.error_handler,
		CASE WHEN NOT row_security_active('es_event'::regclass) THEN p.last_error END AS last_error
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
