-- Straight into Emmett's tables, what as many calls of its append function would have left there.
INSERT INTO emt_streams (stream_id, stream_position, partition, stream_type, stream_metadata)
SELECT :'prefix' || 1000000 + s, :events, 'emt:default', 'account', '{}' FROM generate_series(0, :streams - 1) s;
INSERT INTO emt_messages (stream_position, transaction_id, stream_id, partition, message_schema_version,
	message_id, message_type, message_data, message_metadata)
SELECT v, pg_current_xact_id(), :'prefix' || 1000000 + s, 'emt:default', '1',
	gen_random_uuid(), 'Deposited', :'payload', '{}'
FROM generate_series(1, :events) v, generate_series(0, :streams - 1) s;
VACUUM ANALYZE emt_streams, emt_messages;
