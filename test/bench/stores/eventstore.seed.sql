-- With tagged set, events that the boundary pieces can decide on.
\if :{?tagged}
INSERT INTO es_event (stream_id, event_type, data, tags)
SELECT :'prefix' || 1000000 + s, 'Deposited', :'payload', ARRAY['course:' || s, 'student:' || s * 7 + v]
FROM generate_series(1, :events) v, generate_series(1, :streams) s;
VACUUM ANALYZE es_event_tag;
\else
INSERT INTO es_event (stream_id, event_type, data)
SELECT :'prefix' || 1000000 + s, 'Deposited', :'payload'
FROM generate_series(1, :events) v, generate_series(0, :streams - 1) s;
\endif
VACUUM ANALYZE es_event;
