-- state: the state of a stream, now and at any earlier time
CREATE EXTENSION eventstore;
CREATE TYPE account AS (balance numeric, entries int);
SELECT es_create_aggregate('account', initial_state => '(0.00,0)', state_type => 'account');
SELECT es_evolve('account', 'MoneyDeposited', $$(state.balance + (event.data ->> 'amount')::numeric, state.entries + 1)$$);
SELECT es_evolve('account', 'MoneyWithdrawn', $$(state.balance - (event.data ->> 'amount')::numeric, state.entries + 1)$$);

SELECT es_append('account-1', 'MoneyDeposited', '{"amount": 100.5}');
SELECT es_append('account-1', 'MoneyWithdrawn', '{"amount": 30}');
SELECT es_append('account-1', 'AddressChanged', '{"city": "Ulm"}');
SELECT es_append('account-1', 'MoneyDeposited', '{"amount": 5}');

SELECT * FROM es_state('account-1');
SELECT * FROM es_state('account-2');
SELECT v, s.* FROM generate_series(0, 6) AS v, es_state('account-1', at_version => v) AS s;
SELECT e.version, s.version, s.state FROM es_read_stream('account-1') AS e, es_state('account-1', at => e.recorded_at) AS s;
SELECT * FROM es_state('account-1', at => '-infinity');
SELECT version FROM es_state('account-1', at => 'infinity');
SELECT version FROM es_state('account-1', at_version => 2, at => now());
SELECT * FROM es_state('account-1', at_version => -1);
SELECT * FROM es_state(NULL);

SELECT version, event_type, data, metadata, state FROM es_history('account-1');
SELECT version, event_type, state FROM es_history('account-1', at_version => 2);
SELECT count(*) FROM es_history('account-1', at => '-infinity');
SELECT count(*) FROM es_history('account-2');

-- own rows count, and those of the running statement do not
BEGIN;
SELECT es_append('account-1', 'MoneyDeposited', '{"amount": 1}');
SELECT * FROM es_state('account-1');
SELECT es_append('account-1', 'MoneyDeposited', '{"amount": 1}'), version FROM es_state('account-1');
ROLLBACK;

-- stored values of every size: short, compressed, out of line
SELECT es_create_aggregate('text', 'account', '{}');
SELECT es_evolve('text', 'Written', $$state || event.data$$);
SELECT es_append('text-1', 'Written', jsonb_build_object('k' || n, repeat(md5(n::text), n))) FROM generate_series(0, 400, 40) AS n;
SELECT version, md5(state::text) = md5((SELECT jsonb_object_agg('k' || n, repeat(md5(n::text), n)) FROM generate_series(0, 400, 40) AS n)::text) AS same
	FROM es_state('text-1', aggregate => 'text');

-- fields that swap, go to null and come back
CREATE TYPE pair AS (a text, b text, c jsonb);
SELECT es_create_aggregate('pair', 'pair', '(left,right,)', 'pair');
SELECT es_evolve('pair', 'Swapped', '(state.b, state.a, state.c)');
SELECT es_evolve('pair', 'Doubled', '(state.a || state.a, state.a, event.data)');
SELECT es_evolve('pair', 'Cleared', '(NULL, state.b, NULL)');
SELECT es_evolve('pair', 'Vanished', 'NULL');
SELECT es_evolve('pair', 'Kept', $$CASE WHEN event.data ->> 'x' = '1' THEN state ELSE ROW(state.a, 'kept', state.c)::pair END$$);
SELECT es_append_batch('pair-1',
	ARRAY['Swapped', 'Doubled', 'Kept', 'Swapped', 'Cleared', 'Kept', 'Vanished', 'Swapped', 'Kept'],
	ARRAY['{}', '{"x": 2}', '{"x": "1"}', '{}', '{}', '{"x": "2"}', '{}', '{}', '{}']::jsonb[]);
SELECT version, event_type, state FROM es_history('pair-1');

-- the same as an SQL aggregate makes of it, at every version
CREATE FUNCTION next_balance(s numeric, type text, data jsonb) RETURNS numeric LANGUAGE sql IMMUTABLE AS $$
	SELECT s + CASE type WHEN 'MoneyDeposited' THEN 1 WHEN 'MoneyWithdrawn' THEN -1 ELSE 0 END
		* coalesce((data ->> 'amount')::numeric, 0)
$$;
CREATE AGGREGATE balance(text, jsonb) (SFUNC = next_balance, STYPE = numeric, INITCOND = '0.00');
SELECT es_append('account-3', (ARRAY['MoneyDeposited', 'MoneyWithdrawn', 'Noted'])[1 + n * 7 % 3],
	jsonb_build_object('amount', n * 37 % 101 / 4.0)) IS NULL AS failed FROM generate_series(1, 50) AS n \g /dev/null
SELECT count(*), count(*) FILTER (WHERE (h.state ->> 'balance')::numeric = plain.balance
	AND (s.state ->> 'balance')::numeric = plain.balance) AS agree
	FROM es_history('account-3', aggregate => 'account') AS h
	JOIN (SELECT version, balance(event_type, data) OVER (ORDER BY version) FROM es_read_stream('account-3')) AS plain USING (version)
	JOIN LATERAL es_state('account-3', version, aggregate => 'account') AS s USING (version);

DROP EXTENSION eventstore;
DROP AGGREGATE balance(text, jsonb);
DROP FUNCTION next_balance;
DROP TYPE account, pair;
