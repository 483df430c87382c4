-- snapshot: states kept to shorten the fold
CREATE EXTENSION eventstore;
CREATE TYPE account AS (balance numeric, entries int, note jsonb, at interval);
SELECT es_create_aggregate('account', initial_state => '(0.00,0,,)', state_type => 'account', snapshot_every => 10);
SELECT es_evolve('account', 'MoneyDeposited', $$(state.balance + (event.data ->> 'amount')::numeric, state.entries + 1, event.data -> 'note', (event.data ->> 'at')::interval)$$);
SELECT es_decide('account', 'Deposit', $$SELECT 'MoneyDeposited', command$$);
SELECT es_decide('account', 'DepositTwice', $$VALUES ('MoneyDeposited', command), ('MoneyDeposited', command)$$);

-- taken with the command whose events make it due
SELECT max(es_handle('account-1', 'Deposit', '{"amount": 1.50, "note": null, "at": "-1 mon 2 days"}')) FROM generate_series(1, 9);
SELECT version FROM es_snapshot;
SELECT es_handle('account-1', 'DepositTwice', '{"amount": 1}');
SELECT stream_id, aggregate, version, state, state_text, event_id = (SELECT event_id FROM es_event WHERE version = 11) AS event
	FROM es_snapshot;
SELECT max(es_handle('account-1', 'Deposit', '{"amount": 2}')) FROM generate_series(1, 9);
SELECT version FROM es_snapshot;
SELECT es_handle('account-1', 'Deposit', '{"amount": 2}');
SELECT version FROM es_snapshot ORDER BY 1;

-- the same answer with and without, whatever the session's settings
CREATE TEMPORARY TABLE answer AS SELECT v, s.* FROM generate_series(0, 25) AS v, es_state('account-1', v) AS s;
SET datestyle = 'German';
SET intervalstyle = 'sql_standard';
SET extra_float_digits = -5;
SELECT es_handle('account-1', 'Deposit', '{"amount": 2, "at": "-1 mon 2 days"}') FROM generate_series(1, 10) \g /dev/null
SELECT version, state_text FROM es_snapshot WHERE version > 21;
RESET datestyle;
RESET intervalstyle;
RESET extra_float_digits;
SELECT state FROM es_state('account-1');
DELETE FROM es_snapshot WHERE version > 21;
SELECT state FROM es_state('account-1');
DELETE FROM es_snapshot;
SELECT count(*) FROM answer WHERE v <= 20 AND ROW(version, state) IS DISTINCT FROM (SELECT ROW(s.version, s.state) FROM es_state('account-1', v) AS s);

-- it is used: one that lies is believed as long as its event is there
SELECT es_take_snapshot('account-1');
SELECT es_take_snapshot('account-1');
UPDATE es_snapshot SET state_text = '(1000000,31,,)';
SELECT state ->> 'balance' AS balance FROM es_state('account-1');
SELECT state ->> 'balance' AS balance FROM es_state('account-1', 30);
SELECT e.version, state ->> 'balance' AS balance FROM es_read_stream('account-1', 28) AS e, es_state('account-1', at => e.recorded_at);
SELECT version, state ->> 'balance' AS balance FROM es_history('account-1') WHERE version > 29;
SELECT rejection IS NULL AS accepted FROM es_decide_dry('account-1', 'Deposit', '{"amount": 2}');
UPDATE es_snapshot SET event_id = gen_random_uuid();
SELECT state ->> 'balance' AS balance FROM es_state('account-1');
UPDATE es_snapshot SET event_id = (SELECT event_id FROM es_event WHERE version = 31), version = 32;
SELECT version, state ->> 'balance' AS balance FROM es_state('account-1');
UPDATE es_snapshot SET version = 31;
SELECT state ->> 'balance' AS balance FROM es_state('account-1');
UPDATE es_snapshot SET definition = gen_random_uuid();
SELECT state ->> 'balance' AS balance FROM es_state('account-1');
-- one that cannot be used gives way
SELECT es_take_snapshot('account-1');
SELECT version FROM es_snapshot;

-- a new definition does not use the old one's, the old one again does
UPDATE es_snapshot SET state_text = '(1000000,31,,)';
SELECT es_evolve('account', 'MoneyDeposited', $$(state.balance + 1, state.entries + 1, NULL, NULL)$$);
SELECT state ->> 'balance' AS balance FROM es_state('account-1');
SELECT es_evolve('account', 'MoneyDeposited', $$(state.balance + (event.data ->> 'amount')::numeric, state.entries + 1, event.data -> 'note', (event.data ->> 'at')::interval)$$);
SELECT state ->> 'balance' AS balance FROM es_state('account-1');
ALTER TYPE account ADD ATTRIBUTE x int;
SELECT es_drop_aggregate('account');
SELECT es_create_aggregate('account', initial_state => '(0.00,0,,,)', state_type => 'account', snapshot_every => 10);
SELECT es_evolve('account', 'MoneyDeposited', $$(state.balance + (event.data ->> 'amount')::numeric, state.entries + 1, event.data -> 'note', (event.data ->> 'at')::interval, 7)$$);
SELECT state ->> 'balance' AS balance, state -> 'x' AS x FROM es_state('account-1');
-- nor that of an own function that is replaced
SELECT es_create_aggregate('fun', initial_state => '0', state_type => 'int', snapshot_every => 2);
CREATE FUNCTION step(s int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN s + 1; END';
SELECT es_evolve('fun', 'Stepped', 'step(state)');
SELECT es_append_batch('fun-1', ARRAY['Stepped', 'Stepped', 'Stepped'], ARRAY['1', '1', '1']::jsonb[]);
SELECT es_take_snapshot('fun-1');
CREATE OR REPLACE FUNCTION step(s int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN s + 10; END';
SELECT * FROM es_state('fun-1');

-- old ones are thinned out
DELETE FROM es_snapshot;
SELECT es_create_aggregate('count', initial_state => '{"n": 0}', snapshot_every => 1);
SELECT es_evolve('count', 'Counted', $$jsonb_build_object('n', (state ->> 'n')::int + 1)$$);
SELECT es_decide('count', 'Count', $$SELECT 'Counted', command$$);
SELECT es_handle('count-1', 'Count') FROM generate_series(1, 200) \g /dev/null
SELECT version, state FROM es_snapshot ORDER BY version;
SELECT bool_and((s.state ->> 'n')::int = v AND s.version = v) FROM generate_series(0, 200) AS v, es_state('count-1', v) AS s;

-- by time
SELECT es_create_aggregate('timed', 'timed', initial_state => '0', state_type => 'int', snapshot_every => NULL, snapshot_interval => '1 hour');
SELECT es_evolve('timed', 'Counted', 'state + 1');
SELECT es_decide('timed', 'Count', $$SELECT 'Counted', command$$);
SELECT es_handle('timed-1', 'Count') FROM generate_series(1, 3);
SELECT version FROM es_snapshot WHERE aggregate = 'timed';
SELECT es_take_snapshot('timed-1');
UPDATE es_snapshot SET taken_at = now() - interval '2 hours' WHERE aggregate = 'timed';
SELECT es_handle('timed-1', 'Count') FROM generate_series(1, 2);
SELECT version FROM es_snapshot WHERE aggregate = 'timed' ORDER BY 1;

-- what plain appends make due, for all aggregates of a stream
SELECT es_create_aggregate('tally', 'tally', initial_state => '0', state_type => 'int', snapshot_every => 5);
SELECT es_create_aggregate('tally2', 'tally', snapshot_every => 3);
SELECT es_evolve('tally', 'Counted', 'state + 1');
SELECT es_take_snapshots();
SELECT es_append_batch('tally-' || n, array_fill('Counted'::text, ARRAY[n]), array_fill('1'::jsonb, ARRAY[n])) FROM generate_series(2, 5) AS n;
SELECT es_take_snapshots(4);
SELECT es_take_snapshots(1000);
SELECT es_take_snapshots();
SELECT aggregate, stream_id, version, state, state_text FROM es_snapshot WHERE aggregate LIKE 'tally%' ORDER BY 1, 2, 3;
SELECT es_append('tally-4', 'Counted', '1') FROM generate_series(1, 2);
BEGIN;
SELECT es_append('tally-2', 'Counted', '1') FROM generate_series(1, 4);
SELECT es_take_snapshots();
ROLLBACK;
SELECT es_take_snapshots();
SELECT aggregate, stream_id, version, state, state_text FROM es_snapshot WHERE aggregate LIKE 'tally%' ORDER BY 1, 2, 3;

-- whoever runs projections takes them too; a fold that fails holds up no other stream
SELECT es_create_aggregate('run', snapshot_every => 2);
SELECT es_evolve('run', 'Counted', '(event.data->>0)::int::text::jsonb');
SELECT es_append_batch('run-' || n, '{Counted,Counted}', CASE n WHEN 2 THEN '{"[1]","[\"x\"]"}' ELSE '{"[1]","[2]"}' END::jsonb[]) FROM generate_series(1, 3) AS n;
CALL es_run_projections();
SELECT stream_id, version, state FROM es_snapshot WHERE aggregate = 'run' ORDER BY 1;
SELECT es_drop_aggregate('run');

-- folds in applications
SELECT * FROM es_load_snapshot('order-1');
SELECT es_save_snapshot('order-1', 1, '{}');
SELECT es_append('order-1', 'Ordered', '{}') FROM generate_series(1, 5) \g /dev/null
SELECT es_save_snapshot('order-1', 2, '{"n": 2}');
SELECT es_save_snapshot('order-1', 4, '{"n": 4}');
SELECT es_save_snapshot('order-1', 4, '{"n": "four"}');
SELECT es_save_snapshot('order-1', 3, '{"n": 3}', 'other');
SELECT * FROM es_load_snapshot('order-1');
SELECT * FROM es_load_snapshot('order-1', at_version => 3);
SELECT * FROM es_load_snapshot('order-1', 'other');
SELECT * FROM es_load_snapshot('order-1', 'third');
SELECT es_save_snapshot('order-1', 6, '{}');
SELECT es_save_snapshot('order-1', 0, '{}');
SELECT es_save_snapshot('order-1', NULL, '{}');
SELECT es_save_snapshot('order-1', 5, '{}', 'count');
BEGIN;
SELECT es_append('order-1', 'Ordered', '{}'), es_save_snapshot('order-1', 5, '{}');
SELECT es_save_snapshot('order-1', 6, '{}');
ROLLBACK;
SELECT version FROM es_load_snapshot('order-1');

DROP EXTENSION eventstore;
DROP FUNCTION step;
DROP TYPE account;
