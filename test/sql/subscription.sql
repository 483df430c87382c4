-- Subscriptions: definitions, fetching and acknowledging, shares and leases.
CREATE EXTENSION eventstore;
-- What is told of tokens is whether they are the same, as each is new.
CREATE TABLE token (name text PRIMARY KEY, token text);
CREATE FUNCTION take(subscription text, consumer text, max_count int = 100,
	lease interval = '1 h', ack text = NULL)
	RETURNS TABLE (partition int, attempt int, "position" bigint, stream_id text, data jsonb)
	LANGUAGE sql AS $$
	WITH rows AS MATERIALIZED (SELECT * FROM es_fetch(subscription, consumer, max_count, lease, ack)),
		kept AS (INSERT INTO token SELECT consumer, min(r.token) FROM rows r HAVING count(*) > 0
			ON CONFLICT (name) DO UPDATE SET token = EXCLUDED.token)
	SELECT r.partition, r.attempt, r.position, r.stream_id, r.data FROM rows r
$$;
CREATE FUNCTION token(consumer text) RETURNS text STABLE LANGUAGE sql AS
	'SELECT token FROM token WHERE name = consumer';
SELECT count(es_append('order-' || i % 3, CASE WHEN i % 4 = 0 THEN 'Paid' ELSE 'Placed' END,
	jsonb_build_object('n', i))) FROM generate_series(1, 12) AS i;

-- Bad definitions.
SELECT es_create_subscription(NULL);
SELECT es_create_subscription('');
SELECT es_create_subscription(E'a\nb');
SELECT es_create_subscription('s', from_position => -1);
SELECT es_create_subscription('s', from_position => 13);
SELECT es_create_subscription('s', from_position => 1, from_time => now());
SELECT es_create_subscription('s', event_types => '{}');
SELECT es_create_subscription('s', event_types => ARRAY['Placed', NULL]);
SELECT es_create_subscription('s', event_types => ARRAY['']);
SELECT es_create_subscription('s', category => '');
SELECT es_create_subscription('s', partitions => 0);
SELECT es_create_subscription('s', partitions => 1025);
SELECT es_create_subscription('s', hold => 'all');
SELECT es_create_subscription('s', max_attempts => 0);
SELECT count(*) FROM es_subscription;

-- From the beginning, by default.
SELECT es_create_subscription('all');
SELECT es_create_subscription('all');
SELECT es_create_subscription('all', if_not_exists => true);
SELECT * FROM take('all', 'a', 4);
-- What is not acknowledged comes again, in a new delivery.
SELECT token('a') AS old \gset
SELECT * FROM take('all', 'a', 3);
SELECT es_ack('all', :'old');
SELECT es_ack('all', token('a'));
SELECT position, in_flight, lag_events, consumers FROM es_stat_subscription;
-- In parts; an acknowledgement may be repeated.
SELECT count(*) FROM take('all', 'a', 5);
SELECT es_ack('all', token('a'), 6);
SELECT position, in_flight FROM es_stat_subscription;
SELECT es_ack('all', token('a'), 4);
SELECT es_ack('all', token('a'), 9);
SELECT es_ack('all', token('a'));
SELECT es_ack('all', token('a'));
SELECT position, in_flight FROM es_stat_subscription;
-- With the next fetch.
SELECT token('a') AS old \gset
SELECT position FROM take('all', 'a', 2);
SELECT position FROM take('all', 'a', 2, ack => :'old');
SELECT position FROM take('all', 'a', 1, ack => token('a'));
SELECT position FROM take('all', 'a', ack => token('a'));
SELECT count(*) FROM take('all', 'a', ack => token('a'));
SELECT position, lag_events, oldest_unacked_seconds FROM es_stat_subscription;
-- Rolled back, nothing of it has happened.
SELECT es_append('order-0', 'Placed', '{"n": 13}');
BEGIN;
SELECT position FROM take('all', 'a');
SELECT es_ack('all', token('a'));
ROLLBACK;
SELECT position, attempt FROM take('all', 'a');
-- Bad arguments.
SELECT * FROM es_fetch('none', 'a');
SELECT * FROM es_fetch(NULL, 'a');
SELECT * FROM es_fetch('all', NULL);
SELECT * FROM es_fetch('all', '');
SELECT * FROM es_fetch('all', 'a', 0);
SELECT * FROM es_fetch('all', 'a', lease => '0 s');
SELECT * FROM es_fetch('all', 'a', lease => '-1 s');
SELECT * FROM es_fetch('all', 'a', lease => '1000000 years');
SELECT * FROM es_fetch('all', 'b', ack => token('a'));
SELECT es_ack('all', 'nonsense');
SELECT es_ack('all', '0123456789abcdef.');
SELECT es_ack('all', NULL);
SELECT es_ack('all', '0123456789abcdef.a');
SELECT es_ack('none', token('a'));
BEGIN READ ONLY;
SELECT * FROM es_fetch('all', 'a');
ROLLBACK;

-- A filter that matches nothing moves the checkpoint all the same.
SELECT es_create_subscription('paid', event_types => ARRAY['Paid', 'Refunded']);
SELECT es_create_subscription('none', category => 'invoice');
SELECT es_create_subscription('late', from_position => 10);
SELECT position, data FROM take('paid', 'a', 2);
SELECT es_ack('paid', token('a'));
SELECT position, data FROM take('paid', 'a', 2);
SELECT es_ack('paid', token('a'));
SELECT count(*) FROM take('none', 'a');
SELECT position FROM take('late', 'a');
SELECT name, position, in_flight FROM es_stat_subscription ORDER BY name;
-- From a time, and to another place.
SELECT recorded_at AS at FROM es_event WHERE position = 5 \gset
SELECT es_create_subscription('since', from_time => :'at');
SELECT position FROM take('since', 'a', 1);
SELECT es_seek('since', 11);
SELECT es_ack('since', token('a'));
SELECT position FROM take('since', 'a');
SELECT es_seek('since', at => :'at');
SELECT position, attempt FROM take('since', 'a', 1);
SELECT es_seek('since');
SELECT es_seek('since', 1, now());
SELECT es_seek('since', 14);
SELECT es_seek('gone', 1);
SELECT es_drop_subscription('since');
SELECT es_drop_subscription('since');
SELECT es_drop_subscription('since', if_exists => true);
SELECT es_drop_subscription(name) FROM es_subscription WHERE name <> 'all';

-- Partitions: a stream has one for ever.
SELECT i, es_stream_partition('order-' || i, 4), es_stream_partition('order-' || i, 1024)
	FROM generate_series(0, 4) AS i;
SELECT es_stream_partition('', 1), es_stream_partition('a', 0);
SELECT count(*) > 900 AS spread FROM (SELECT DISTINCT es_stream_partition('account-' || i, 1024)
	FROM generate_series(1, 10000) AS i) AS p;

-- Two consumers share; each fetch brings the shares up to date.
SELECT es_create_subscription('shared', partitions => 4);
CREATE VIEW share AS SELECT consumer, count(*), sum(in_flight) AS in_flight
	FROM es_subscription_partition WHERE subscription = 'shared' GROUP BY 1 ORDER BY 1;
SELECT partition, position FROM take('shared', 'a', 7);
SELECT * FROM share;
SELECT count(*) FROM take('shared', 'b');
-- a keeps what it has as long as its delivery is in flight
SELECT * FROM share;
SELECT count(*) FROM take('shared', 'a', 7, ack => token('a'));
SELECT * FROM share;
SELECT count(*) FROM take('shared', 'b');
SELECT * FROM share;
SELECT es_ack('shared', token('a'));
SELECT es_ack('shared', token('b'));
SELECT position, in_flight, lag_events, consumers FROM es_stat_subscription WHERE name = 'shared';
-- A third; who stops gives its share back at once.
SELECT count(*) FROM take('shared', 'c');
SELECT count(*) FROM take('shared', 'a');
SELECT count(*) FROM take('shared', 'b');
SELECT count(*) FROM take('shared', 'c');
SELECT * FROM share;
SELECT es_renew('shared', token('b'), '0 s') <= clock_timestamp() AS left;
SELECT es_renew('shared', token('b'));
SELECT es_renew('shared', token('a'), '2 h') > clock_timestamp() + '1 h' AS longer;
SELECT count(*) FROM take('shared', 'a');
SELECT * FROM share;
-- A lease that ends passes its partitions on; who wakes up late is refused.
SELECT count(es_append('order-' || i, 'Placed', '{}')) FROM generate_series(0, 99) AS i;
SELECT count(*) > 0 AS some FROM take('shared', 'a', lease => '1 us');
SELECT count(*) FROM take('shared', 'c');
SELECT * FROM share WHERE consumer = 'a';
SELECT es_ack('shared', token('a'));
SELECT es_renew('shared', token('a'));
SELECT * FROM take('shared', 'a', ack => token('a'));
SELECT es_ack('shared', token('c'));
SELECT position = (SELECT max(position) FROM es_event) AS at_end, in_flight
	FROM es_stat_subscription WHERE name = 'shared';
DROP EXTENSION eventstore CASCADE;
DROP TABLE token;
DROP FUNCTION take, token;
