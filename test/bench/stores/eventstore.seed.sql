INSERT INTO es_event (stream_id, event_type, data)
SELECT :'prefix' || 1000000 + s, 'Deposited', :'payload'
FROM generate_series(1, :events) v, generate_series(0, :streams - 1) s;
VACUUM ANALYZE es_event;
