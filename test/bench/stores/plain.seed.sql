INSERT INTO event (stream_id, version, event_type, data)
SELECT :'prefix' || 1000000 + s, v, 'Deposited', :'payload'
FROM generate_series(1, :events) v, generate_series(0, :streams - 1) s;
VACUUM ANALYZE event;
