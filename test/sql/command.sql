-- command: handle commands
CREATE EXTENSION eventstore;
CREATE TYPE account AS (balance bigint, open boolean);
SELECT es_create_aggregate('account', initial_state => '{"balance": 0}', state_type => 'account');
SELECT es_evolve('account', 'AccountOpened', '(0, true)');
SELECT es_evolve('account', 'MoneyDeposited', $$(state.balance + (event.data ->> 'amount')::bigint, state.open)$$);
SELECT es_evolve('account', 'MoneyWithdrawn', $$(state.balance - (event.data ->> 'amount')::bigint, state.open)$$);
SELECT es_decide('account', 'Open', $$SELECT 'AccountOpened', command WHERE state.open IS NOT TRUE$$);
SELECT es_decide('account', 'Deposit', $$SELECT 'MoneyDeposited', jsonb_build_object('amount', command -> 'amount')$$,
	$$CASE WHEN state.open IS NOT TRUE THEN 'account is closed' END$$);
SELECT es_decide('account', 'Withdraw', $$SELECT 'MoneyWithdrawn', jsonb_build_object('amount', command -> 'amount')$$, $$
	CASE WHEN state.open IS NOT TRUE THEN 'account is closed'
		 WHEN (command ->> 'amount')::bigint > state.balance THEN 'insufficient funds' END$$);
SELECT es_decide('account', 'Round', $$VALUES ('MoneyDeposited', '{"amount": 1}'::jsonb, '{"why": "a test"}'::jsonb, '{b,a}'::text[]), ('MoneyWithdrawn', '{"amount": 1}', NULL, NULL)$$);

SELECT es_handle('account-1', 'Deposit', '{"amount": 5}');
SELECT es_handle('account-1', 'Open', '{"owner": "ada"}');
SELECT es_handle('account-1', 'Open', '{"owner": "ada"}');
SELECT es_handle('account-1', 'Deposit', '{"amount": 5}');
SELECT es_handle('account-1', 'Withdraw', '{"amount": 6}');
SELECT es_handle('account-1', 'Withdraw', '{"amount": 5}');
SELECT es_handle('account-1', 'Round');
SELECT version, event_type, data, metadata, tags FROM es_read_stream('account-1');
DO $$
BEGIN
	PERFORM es_handle('account-1', 'Withdraw', '{"amount": 6}');
EXCEPTION WHEN raise_exception THEN RAISE NOTICE '% %', SQLSTATE, SQLERRM;
END $$;

-- the same id again: the first answer; for another command: an error
SELECT es_handle('account-1', 'Deposit', '{"amount": 7}', '00000000-0000-0000-0000-000000000001');
SELECT es_handle('account-1', 'Open', '{}', '00000000-0000-0000-0000-000000000002');
SELECT es_handle('account-1', 'Deposit', '{"amount": 1}');
SELECT es_handle('account-1', 'Deposit', '{"amount": 7}', '00000000-0000-0000-0000-000000000001');
SELECT es_handle('account-1', 'Open', '{}', '00000000-0000-0000-0000-000000000002');
SELECT es_handle('account-1', 'Deposit', '{"amount": 8}', '00000000-0000-0000-0000-000000000001');
SELECT es_handle('account-1', 'Withdraw', '{"amount": 7}', '00000000-0000-0000-0000-000000000001');
SELECT es_handle('account-2', 'Deposit', '{"amount": 7}', '00000000-0000-0000-0000-000000000001');
SELECT es_stream_version('account-1');
-- a rejection is not remembered
SELECT es_handle('account-1', 'Withdraw', '{"amount": 100}', '00000000-0000-0000-0000-000000000003');
SELECT es_handle('account-1', 'Deposit', '{"amount": 100}');
SELECT es_handle('account-1', 'Withdraw', '{"amount": 100}', '00000000-0000-0000-0000-000000000003');
SELECT command_id, stream_id, command_type, version FROM es_command ORDER BY 1;

-- where events come from
BEGIN;
SET LOCAL eventstore.metadata = '{"user": "ada", "causation_id": "before", "correlation_id": "c-42"}';
SELECT es_handle('account-1', 'Round', command_id => '00000000-0000-0000-0000-000000000004');
SELECT es_handle('account-1', 'Round');
COMMIT;
SELECT es_handle('account-1', 'Round', command_id => '00000000-0000-0000-0000-000000000005');
SELECT event_type, metadata FROM es_read_stream('account-1', 10);

-- several commands in one statement and in one transaction
SELECT es_handle('account-3', 'Open'), es_handle('account-3', 'Deposit', '{"amount": 5}'), es_handle('account-3', 'Withdraw', '{"amount": 4}');
SELECT es_handle('account-3', 'Withdraw', '{"amount": 1}') FROM generate_series(1, 2);
SELECT state FROM es_state('account-3');
BEGIN;
SELECT es_handle('account-3', 'Withdraw', '{"amount": 1}');
SAVEPOINT s;
SELECT es_handle('account-3', 'Withdraw', '{"amount": 1}');
ROLLBACK TO s;
SELECT es_handle('account-3', 'Deposit', '{"amount": 1}', '00000000-0000-0000-0000-000000000006');
ROLLBACK TO s;
SELECT es_handle('account-3', 'Deposit', '{"amount": 2}', '00000000-0000-0000-0000-000000000006');
COMMIT;
SELECT state FROM es_state('account-3');

-- states that a session keeps between commands: not those of a rolled back
-- transaction, whose event ids come again on top of another history
SELECT es_append('account-4', 'AccountOpened', '{}');
BEGIN;
SELECT es_append('account-4', 'MoneyDeposited', '{"amount": 1000}');
SELECT es_append('account-4', 'MoneyDeposited', '{"amount": 5}', event_id => '00000000-0000-0000-0000-0000000000a1');
SELECT es_handle('account-4', 'Withdraw', '{"amount": 1005}');
ROLLBACK;
SELECT es_append('account-4', 'MoneyDeposited', '{"amount": 1}');
SELECT es_append('account-4', 'MoneyDeposited', '{"amount": 5}', event_id => '00000000-0000-0000-0000-0000000000a1');
SELECT es_handle('account-4', 'Withdraw', '{"amount": 7}');
SELECT es_handle('account-4', 'Withdraw', '{"amount": 6}');
-- nor those of an older definition, nor under another aggregate's name
SELECT es_handle('account-4', 'Deposit', '{"amount": 10}');
SELECT es_evolve('account', 'MoneyDeposited', $$(state.balance + 2 * (event.data ->> 'amount')::bigint, state.open)$$);
SELECT es_handle('account-4', 'Withdraw', '{"amount": 27}');
SELECT es_handle('account-4', 'Withdraw', '{"amount": 26}');
SET eventstore.kept_states = 0;
SELECT es_handle('account-4', 'Withdraw', '{"amount": 1}');
SET eventstore.kept_states = 1;
SELECT es_handle('account-' || 5 + n % 2, CASE WHEN n < 2 THEN 'Open' ELSE 'Deposit' END, '{"amount": 1}') FROM generate_series(0, 9) AS n;
SELECT state FROM es_state('account-5');
RESET eventstore.kept_states;

-- arguments
SELECT es_handle(NULL, 'Open');
SELECT es_handle('account-1', NULL);
SELECT es_handle('account-1', 'Open', NULL);
SELECT es_handle('account-1', 'Nonsense');
SELECT es_handle('order-1', 'Open');
SELECT es_handle('order-1', 'Open', aggregate => 'account');
SELECT es_handle('', 'Open');
BEGIN READ ONLY;
SELECT es_handle('account-1', 'Open');
ROLLBACK;

DROP EXTENSION eventstore;
DROP TYPE account;
