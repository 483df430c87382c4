-- aggregate: definitions, and what is wrong with them
CREATE EXTENSION eventstore;
\set VERBOSITY default

CREATE TYPE account AS (balance bigint, open boolean, owner text);
SELECT es_create_aggregate('account', initial_state => '{"balance": 0, "open": false}', state_type => 'account');
SELECT es_evolve('account', 'AccountOpened', $$(0, true, event.data ->> 'owner')$$);
SELECT es_evolve('account', 'MoneyDeposited', $$(state.balance + (event.data ->> 'amount')::bigint, state.open, state.owner)$$);
SELECT es_append('account-1', 'AccountOpened', '{"owner": "ada"}');
SELECT es_append('account-1', 'MoneyDeposited', '{"amount": 70}');
SELECT * FROM es_state('account-1');
SELECT name, category, initial_state, state_type, snapshot_every, owner = current_user::regrole AS mine, search_path
	FROM es_aggregate;

-- mistakes are found when they are made, with their place
SELECT es_evolve('account', 'X', 'state.balanc');
SELECT es_evolve('account', 'X', 'event.nothing');
SELECT es_evolve('account', 'X', 'stat');
SELECT es_evolve('account', 'X', 'state.balance + ');
SELECT es_evolve('account', 'X', 'state.balance + 1');
SELECT es_evolve('account', 'X', '(1, true)');
SELECT es_evolve('account', 'X', '(1, ''x'', ''y'')');
SELECT es_evolve('account', 'X', 'state, 1');
SELECT es_evolve('account', 'X', 'state FROM es_event');
SELECT es_evolve('account', 'X', '(SELECT state)');
SELECT es_evolve('account', 'X', '(count(*), true, '''')');
SELECT es_evolve('account', 'X', '(generate_series(1, 2), true, '''')');
SELECT es_evolve('account', 'X', '(random()::bigint, true, '''')');
SELECT es_evolve('account', '$X', 'state');
SELECT es_evolve('nobody', 'X', 'state');
SELECT es_evolve(NULL, 'X', 'state');
SELECT es_evolve('account', NULL, 'state');
SELECT es_evolve('account', 'X', NULL);
SELECT event_type FROM es_evolver ORDER BY 1;

SELECT es_create_aggregate('account');
SELECT es_create_aggregate('account', if_not_exists => true);
SELECT es_create_aggregate(NULL);
SELECT es_create_aggregate('');
SELECT es_create_aggregate(repeat('x', 64));
SELECT es_create_aggregate('bad', initial_state => '{');
SELECT es_create_aggregate('bad', initial_state => '(1)', state_type => 'account');
SELECT es_create_aggregate('bad', initial_state => '{"balance": "much"}', state_type => 'account');
SELECT es_create_aggregate('bad', state_type => 'anyelement');
SELECT es_create_aggregate('bad', snapshot_every => 0);
SELECT name FROM es_aggregate;

-- replace: the expressions must fit the new state
SELECT es_create_aggregate('account', or_replace => true);
SELECT es_create_aggregate('account', initial_state => '(100,f,)', state_type => 'account', or_replace => true);
SELECT * FROM es_state('account-9');
SELECT es_evolve('account', 'MoneyDeposited', $$(state.balance + 1, state.open, state.owner)$$);
SELECT * FROM es_state('account-1');

-- the state's type changes
ALTER TYPE account ADD ATTRIBUTE limited boolean;
SELECT * FROM es_state('account-1');
ALTER TYPE account DROP ATTRIBUTE limited;
SELECT * FROM es_state('account-1');
ALTER TYPE account DROP ATTRIBUTE open;
SELECT es_evolve('account', 'MoneyDeposited', $$(state.balance + 1, state.owner)$$);
SELECT es_create_aggregate('second', 'account', '{"owner": "?"}', 'account');
SELECT es_evolve('second', 'MoneyDeposited', $$(coalesce(state.balance, 0) + (event.data ->> 'amount')::bigint, state.owner || '!')$$);
SELECT * FROM es_state('account-1', aggregate => 'second');

-- states of all kinds, and no state at all
SELECT es_create_aggregate('number', 'account', '1.50', 'numeric');
SELECT es_evolve('number', 'MoneyDeposited', $$state + (event.data ->> 'amount')::numeric$$);
SELECT es_create_aggregate('list', 'account', '{}', 'text[]');
SELECT es_evolve('list', 'AccountOpened', $$state || event.event_type$$);
SELECT es_evolve('list', 'MoneyDeposited', $$state || (event.version || ' ' || event.stream_id)$$);
SELECT es_create_aggregate('last', 'account', state_type => 'es_event');
SELECT es_evolve('last', 'MoneyDeposited', 'event');
SELECT es_create_aggregate('none', 'account', state_type => 'text');
SELECT es_evolve('none', 'AccountOpened', $$coalesce(state, 'nothing yet')$$);
SELECT es_evolve('none', 'MoneyDeposited', 'NULL');
CREATE DOMAIN solvent AS account CHECK ((VALUE).balance >= 0);
SELECT es_create_aggregate('domain', 'account', '(0,)', 'solvent');
SELECT es_evolve('domain', 'MoneyDeposited', $$(state.balance - 10 + (event.data ->> 'amount')::bigint, 'x')$$);
SELECT name, es_state('account-1', aggregate => name) FROM unnest(ARRAY['number', 'list', 'none', 'domain']) AS name;
SELECT state ->> 'event_type' AS type, state -> 'data' AS data FROM es_state('account-1', aggregate => 'last');
SELECT es_append('account-1', 'MoneyDeposited', '{"amount": -99}');
SELECT es_state('account-1', aggregate => 'domain');

-- which one folds a stream
SELECT * FROM es_state('account-1');
SELECT * FROM es_state('order-1');
SELECT * FROM es_state('order-1', aggregate => 'nobody');
SELECT * FROM es_state('order-1', aggregate => 'number');

-- a fold within a fold, and a change of the definition within a fold
SELECT es_create_aggregate('deep', 'deep', '0', 'bigint');
CREATE FUNCTION deeper(s bigint, e es_event) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
BEGIN
	RETURN s + 1 + coalesce((SELECT (state)::bigint FROM es_state(e.stream_id, e.version - 1)), 0);
END $$;
SELECT es_evolve('deep', 'E', 'deeper(state, event)');
SELECT es_append_batch('deep-1', ARRAY['E', 'E', 'E', 'E'], ARRAY['1', '1', '1', '1']::jsonb[]);
SELECT * FROM es_state('deep-1');
CREATE OR REPLACE FUNCTION deeper(s bigint, e es_event) RETURNS bigint LANGUAGE sql STABLE AS 'SELECT s + 2';
SELECT * FROM es_state('deep-1');
CREATE OR REPLACE FUNCTION deeper(s bigint, e es_event) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
BEGIN
	RETURN 1 / (4 - e.version);
END $$;
SELECT * FROM es_state('deep-1');
SELECT * FROM es_state('deep-1', 3);
DO $$
BEGIN
	FOR i IN 1..3 LOOP
		BEGIN
			PERFORM es_state('deep-1');
		EXCEPTION WHEN division_by_zero THEN RAISE NOTICE 'caught, then %', es_state('deep-1', 3);
		END;
	END LOOP;
END $$;

-- drop
SELECT es_drop_evolver('deep', 'E');
SELECT es_drop_evolver('deep', 'E');
SELECT es_drop_evolver('deep', 'E', if_exists => true);
SELECT * FROM es_state('deep-1');
SELECT es_drop_aggregate('deep');
SELECT es_drop_aggregate('deep');
SELECT es_drop_aggregate('deep', if_exists => true);
SELECT * FROM es_state('deep-1');

DROP FUNCTION deeper;
DROP EXTENSION eventstore;
DROP DOMAIN solvent;
DROP TYPE account;
