INSERT INTO event (event_type, data, tags)
SELECT 'Deposited', :'payload', ARRAY['course:' || s, 'student:' || s * 7 + v]
FROM generate_series(1, :events) v, generate_series(1, :streams) s;
INSERT INTO event_tag SELECT tag, position, event_type FROM event, unnest(tags) AS tag;
VACUUM ANALYZE event, event_tag;
