\ir plain.seed.sql
INSERT INTO stream (stream_id, version)
SELECT :'prefix' || 1000000 + s, :events FROM generate_series(0, :streams - 1) s;
VACUUM ANALYZE stream;
