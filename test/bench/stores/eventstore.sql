-- The extension, in the schema that the search path names.
CREATE EXTENSION eventstore;
SELECT es_grant('bench_app', 'writer'), es_grant('bench_app', 'reader');

-- What commands.pl measures: one account, folded in four ways.
CREATE TYPE account AS (balance numeric, deposits int, withdrawals int);
SELECT es_create_aggregate('account', initial_state => '(0,0,0)', state_type => 'account');
SELECT es_evolve('account', 'Opened', $$(0, 0, 0)$$);
SELECT es_evolve('account', 'Deposited', $$(state.balance + (event.data ->> 'amount')::numeric, state.deposits + 1, state.withdrawals)$$);
SELECT es_evolve('account', 'Withdrawn', $$(state.balance - (event.data ->> 'amount')::numeric, state.deposits, state.withdrawals + 1)$$);
SELECT es_decide('account', 'Deposit', $$SELECT 'Deposited', command$$,
	$$CASE WHEN (command ->> 'amount')::numeric <= 0 THEN 'amount must be positive' END$$);
SELECT es_create_aggregate('unkept', initial_state => '(0,0,0)', state_type => 'account', snapshot_every => NULL);
INSERT INTO es_evolver SELECT 'unkept', event_type, expression FROM es_evolver WHERE aggregate = 'account';

CREATE FUNCTION fold_by_loop(stream text) RETURNS account LANGUAGE plpgsql STABLE AS $$
DECLARE
	state account := (0, 0, 0);
	e record;
BEGIN
	FOR e IN SELECT event_type, data FROM es_event WHERE stream_id = stream ORDER BY version LOOP
		CASE e.event_type
			WHEN 'Deposited' THEN
				state.balance := state.balance + (e.data ->> 'amount')::numeric;
				state.deposits := state.deposits + 1;
			WHEN 'Withdrawn' THEN
				state.balance := state.balance - (e.data ->> 'amount')::numeric;
				state.withdrawals := state.withdrawals + 1;
			WHEN 'Opened' THEN
				state := (0, 0, 0);
			ELSE
		END CASE;
	END LOOP;
	RETURN state;
END $$;

CREATE FUNCTION next_account(state account, type text, data jsonb) RETURNS account LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	CASE type
		WHEN 'Deposited' THEN
			state.balance := state.balance + (data ->> 'amount')::numeric;
			state.deposits := state.deposits + 1;
		WHEN 'Withdrawn' THEN
			state.balance := state.balance - (data ->> 'amount')::numeric;
			state.withdrawals := state.withdrawals + 1;
		WHEN 'Opened' THEN
			state := (0, 0, 0);
		ELSE
	END CASE;
	RETURN state;
END $$;
CREATE AGGREGATE account_of(text, jsonb) (SFUNC = next_account, STYPE = account, INITCOND = '(0,0,0)');

-- Once: a stream of 10,000 events of three types, and one of 10, with the snapshots that commands would have taken.
CREATE FUNCTION fill_folds(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF es_stream_version('account-long') > 0 THEN
		RETURN;
	END IF;
	FOR i IN 1..100 LOOP
		PERFORM es_append_batch('account-long',
			ARRAY(SELECT CASE WHEN n = 1 THEN 'Opened' WHEN n % 3 = 0 THEN 'Withdrawn' ELSE 'Deposited' END
				FROM generate_series(i * 100 - 99, i * 100) AS n), array_fill(payload, ARRAY[100]));
		PERFORM es_take_snapshot('account-long', 'account');
	END LOOP;
	PERFORM es_append_batch('account-long', array_fill('Deposited'::text, ARRAY[50]), array_fill(payload, ARRAY[50]));
	PERFORM es_append_batch('account-short', array_fill('Deposited'::text, ARRAY[10]), array_fill(payload, ARRAY[10]));
END $$;

-- What types.pl measures, once: a check of two terms, and upcasters that rename a key and add one.
CREATE FUNCTION declare_types(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF EXISTS (SELECT FROM es_event_type) THEN
		RETURN;
	END IF;
	PERFORM es_create_event_type('Checked', check_expression => '(event.data ->> ''amount'')::numeric > 0 AND event.data ? ''currency''');
	PERFORM es_upcast('One', 1, 'jsonb_build_object(''value'', event.data -> ''amount'', ''currency'', event.data -> ''currency'')');
	PERFORM es_upcast('Two', 1, 'jsonb_build_object(''value'', event.data -> ''amount'', ''currency'', event.data -> ''currency'')');
	PERFORM es_upcast('Two', 2, 'event.data || ''{"channel": "web"}''');
	PERFORM es_append_batch('one-1', array_fill('One'::text, '{10000}'), array_fill(payload, '{10000}'));
	PERFORM es_append_batch('two-1', array_fill('Two'::text, '{10000}'), array_fill(payload, '{10000}'));
	PERFORM es_create_aggregate('one', initial_state => '0', state_type => 'numeric', snapshot_every => NULL);
	PERFORM es_evolve('one', 'One', 'state + (event.data ->> ''value'')::numeric');
END $$;
