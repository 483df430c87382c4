-- Subscriptions over events that are archived meanwhile.
CREATE EXTENSION eventstore;
SELECT count(es_append('s-' || i % 3, 'A', to_jsonb(i))) FROM generate_series(1, 30) AS i;
SELECT es_create_subscription('all', partitions => 2), es_create_subscription('late');
SELECT position, stream_id, data FROM es_fetch('all', 'a', 4);
SELECT min(token) AS token FROM es_fetch('all', 'a', 12) \gset
CALL es_archive(before_position => 21);
SELECT count(*) AS kept FROM es_event;
SELECT lag_events, oldest_unacked_seconds > 0 AS old FROM es_stat_subscription ORDER BY name;

-- What is in flight is in the archive now: it is put aside and acknowledged all the same.
SELECT es_nack('all', :'token', 2, 'park', 'why');
SELECT es_ack('all', :'token', 6);
SELECT position, in_flight FROM es_stat_subscription WHERE name = 'all';
SELECT es_ack('all', :'token');
-- Across the border, and back from aside.
SELECT min(token) AS token, array_agg(position) FROM es_fetch('all', 'a', 12) \gset
SELECT :'array_agg';
SELECT es_replay_parked('all');
SELECT array_agg(position ORDER BY position) FROM es_fetch('all', 'a', ack => :'token');
SELECT count(*), min(position), max(position) FROM es_fetch('late', 'a');
SELECT position, state, delivered FROM es_subscription_parked ORDER BY 1;
DROP EXTENSION eventstore CASCADE;
