-- Subscriptions: what is put aside, what comes back, who may do what.
CREATE EXTENSION eventstore;
-- Answers the delivery as "position×attempt", and keeps its token.
CREATE TABLE token (name text PRIMARY KEY, token text);
CREATE FUNCTION take(subscription text, max_count int = 100, ack text = NULL) RETURNS text
	LANGUAGE sql AS $$
	WITH rows AS MATERIALIZED (SELECT *, row_number() OVER () AS n
			FROM es_fetch(subscription, 'a', max_count, '1 h', ack)),
		kept AS (INSERT INTO token SELECT subscription, min(r.token) FROM rows r HAVING count(*) > 0
			ON CONFLICT (name) DO UPDATE SET token = EXCLUDED.token)
	SELECT string_agg(r.position || 'x' || r.attempt, ' ' ORDER BY r.n) FROM rows r
$$;
CREATE FUNCTION token(subscription text) RETURNS text STABLE LANGUAGE sql AS
	'SELECT token FROM token WHERE name = subscription';
CREATE FUNCTION aside(subscription text) RETURNS TABLE (events text) STABLE LANGUAGE sql AS $$
	SELECT string_agg(format('%s %s%s x%s', position, state, CASE WHEN delivered THEN '!' END, attempts), ', '
		ORDER BY position) FROM es_subscription_parked p WHERE p.subscription = aside.subscription
$$;
-- Streams a, b and c in turn: a has 1, 4, 7, 10; b has 2, 5, 8, 11; c has 3, 6, 9, 12.
SELECT count(es_append(chr(97 + i % 3), 'T', jsonb_build_object('n', i))) FROM generate_series(0, 11) AS i;

-- A parked event holds back its stream, and only that.
SELECT es_create_subscription('held', max_attempts => 4);
SELECT take('held', 6);
SELECT es_nack('held', token('held'), 2, 'park', 'no such customer');
SELECT aside('held');
SELECT position, in_flight, parked, parked_by_reason FROM es_stat_subscription;
SELECT es_nack('held', token('held'), 2, 'park');
SELECT es_nack('held', token('held'), 5, 'park');
SELECT es_nack('held', token('held'), 7, 'park');
SELECT es_nack('held', token('held'), 99, 'park');
SELECT es_nack('held', token('held'), 1, 'keep');
SELECT es_nack('held', token('held'), 1, NULL);
SELECT es_nack('held', token('held'), NULL);
SELECT es_nack('held', token('held'), 1, delay => '-1 s');
-- Unacknowledged, the others come again, without it.
SELECT take('held', 6);
SELECT take('held', ack => token('held'));
SELECT aside('held');
SELECT es_ack('held', token('held'));
SELECT position, in_flight, lag_events, parked FROM es_stat_subscription;
-- It comes back with all that has gathered behind it; again in part.
SELECT es_replay_parked('held', stream_id => 'a');
SELECT es_replay_parked('held');
SELECT es_append('b', 'T', '{}');
SELECT take('held', 2);
SELECT position, in_flight FROM es_stat_subscription;
SELECT aside('held');
SELECT es_ack('held', token('held'), 2);
SELECT aside('held');
SELECT es_nack('held', token('held'), 5, 'retry', 'busy', '1 h');
SELECT aside('held');
SELECT es_ack('held', token('held'));
SELECT take('held');
SELECT aside('held');
-- due now
UPDATE es_subscription_parked SET due_at = now() WHERE position = 5;
SELECT take('held');
SELECT es_nack('held', token('held'), 8, 'skip', 'wrong');
SELECT es_ack('held', token('held'));
SELECT aside('held');
-- The stream has returned to the log; what was skipped comes back on demand.
SELECT es_append('b', 'T', '{}');
SELECT take('held');
SELECT es_ack('held', token('held'));
SELECT es_replay_parked('held');
SELECT parked, skipped FROM es_stat_subscription;
SELECT es_replay_parked('held', "position" => 8);
SELECT take('held');
SELECT es_ack('held', token('held'));
SELECT aside('held');

-- Tried max_attempts times, it is parked, by es_nack and without.
SELECT es_append('a', 'T', '{}');
SELECT take('held');
SELECT es_nack('held', token('held'), 15, delay => '0 s');
SELECT take('held');
SELECT take('held');
SELECT take('held');
SELECT take('held');
SELECT aside('held');
SELECT es_replay_parked('held');
SELECT take('held');
SELECT es_nack('held', token('held'), 15, 'skip');

-- Nobody survives event 2: it is found out, and parked with those behind it.
SELECT es_create_subscription('crash', max_attempts => 3);
SELECT take('crash', 3);
SELECT es_ack('crash', token('crash'), 1);
SELECT take('crash', 5);
SELECT take('crash', 5);
SELECT take('crash', 5);
SELECT take('crash', 5);
SELECT aside('crash');
SELECT es_ack('crash', token('crash'));
SELECT parked_by_reason FROM es_stat_subscription WHERE name = 'crash';

-- hold 'none': nothing waits.
SELECT es_create_subscription('loose', hold => 'none');
SELECT take('loose', 6);
SELECT es_nack('loose', token('loose'), 2, 'park', 'x'), es_nack('loose', token('loose'), 5, delay => '0 s');
SELECT es_ack('loose', token('loose'));
SELECT take('loose', 4);
SELECT es_ack('loose', token('loose'));
SELECT aside('loose');
SELECT es_replay_parked('loose');
SELECT take('loose', 3);
-- After a seek, those at or before the position are still aside.
SELECT es_seek('loose', 1);
SELECT aside('loose');
SELECT take('loose', 3);
SELECT es_nack('loose', token('loose'), 3, 'park'), es_seek('loose', 3);
SELECT aside('loose');

-- Only the part that the filter wants waits.
SELECT count(es_append('d', CASE WHEN i % 2 = 0 THEN 'Even' ELSE 'Odd' END, '{}')) FROM generate_series(1, 5) AS i;
SELECT es_create_subscription('odd', event_types => ARRAY['Odd'], partitions => 3);
SELECT take('odd');
SELECT es_nack('odd', token('odd'), 16, 'park');
SELECT es_nack('odd', token('odd'), 17, 'park');
SELECT es_ack('odd', token('odd'));
SELECT take('odd');
-- One function replays for projections, too.
CREATE TABLE seen (position bigint);
SELECT es_create_projection('odd'), es_on('odd', 'Odd', 'INSERT INTO seen VALUES (event.position)');
SELECT es_replay_parked('odd');
SELECT es_replay_parked('odd', kind => 'projection'), es_replay_parked('odd', kind => 'subscription');
SELECT es_replay_parked('odd', kind => 'table');
SELECT es_replay_parked('none');
SELECT es_replay_parked('odd', "position" => 0, kind => 'subscription');
SELECT es_replay_parked(NULL);

-- Events come in their newest form, and are chosen by it.
SELECT es_upcast('Even', 1, $$event.data || '{"v": 2}'$$, 'Straight');
SELECT es_create_subscription('new', event_types => ARRAY['Straight'], from_position => 15);
SELECT position, event_type, type_version, data FROM es_fetch('new', 'a');

-- Waiting.
SELECT es_wait_for_events('new', '10 ms', 'a') AS in_flight, es_wait_for_events('new', '10 ms', 'b') AS others,
	es_wait_for_events('new', '0 s') AS anybody;
SELECT es_seek('new', 15) > 0 AS back, es_wait_for_events('new', '0 s', 'b') AS b, es_wait_for_events('new', '0 s') AS anybody;
SELECT es_wait_for_events('none'), es_wait_for_events('new', '-1 s');
SELECT es_wait_for_events('new', '-1 s');
SELECT es_wait_for_events(NULL);

-- A subscription is its owner's.
CREATE ROLE regress_es_one;
CREATE ROLE regress_es_two;
SELECT es_grant('regress_es_one', 'subscriber'), es_grant('regress_es_two', 'subscriber');
GRANT ALL ON token TO regress_es_one;
SET ROLE regress_es_one;
SELECT es_create_subscription('mine', from_position => 12);
SELECT take('mine', 1);
SELECT es_ack('mine', token('mine'), 12), es_renew('mine', token('mine')) > now() AS longer,
	es_nack('mine', token('mine'), 13), es_wait_for_events('mine', '0 s'), es_seek('mine', 13);
SELECT * FROM es_fetch('held', 'a');
SELECT count(*) FROM es_subscription_partition;
SELECT name, owner FROM es_stat_subscription WHERE name = 'mine';
SET ROLE regress_es_two;
SELECT * FROM es_fetch('mine', 'b');
SELECT es_ack('mine', '0123456789abcdef.a');
SELECT es_nack('mine', '0123456789abcdef.a', 1);
SELECT es_renew('mine', '0123456789abcdef.a');
SELECT es_seek('mine', 1);
SELECT es_wait_for_events('mine', '0 s');
SELECT es_drop_subscription('mine');
SELECT es_replay_parked('mine');
RESET ROLE;
REVOKE SELECT ON es_event FROM regress_es_one;
SET ROLE regress_es_one;
SELECT * FROM es_fetch('mine', 'a');
SELECT es_create_subscription('more');
SELECT es_seek('mine', 1);
SELECT es_wait_for_events('mine', '0 s');
SELECT es_drop_subscription('mine');
RESET ROLE;
DROP EXTENSION eventstore CASCADE;
DROP TABLE token, seen;
DROP FUNCTION take, token, aside;
DROP OWNED BY regress_es_one, regress_es_two;
DROP ROLE regress_es_one, regress_es_two;
