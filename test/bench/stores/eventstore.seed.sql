-- With tagged set, events that the boundary pieces can decide on.
\if :{?tagged}
SELECT count(es_append_batch(:'prefix' || 1000000 + b, types, data, tags => tags))
FROM generate_series(1, :events) v, generate_series(0, :streams / 1000 - 1) b,
	LATERAL (SELECT array_agg('Deposited'::text) AS types, array_agg(:'payload'::jsonb) AS data,
			array_agg(jsonb_build_array('course:' || s, 'student:' || s * 7 + v)) AS tags
		FROM generate_series(b * 1000 + 1, b * 1000 + 1000) s) e;
VACUUM ANALYZE es_event_tag;
\else
INSERT INTO es_event (stream_id, event_type, data)
SELECT :'prefix' || 1000000 + s, 'Deposited', :'payload'
FROM generate_series(1, :events) v, generate_series(0, :streams - 1) s;
\endif
VACUUM ANALYZE es_event;
