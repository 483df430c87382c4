-- bank_commands.sql: the bank account, by commands.
--
-- For psql, in a fresh database: psql -d bank -f test/examples/bank_commands.sql
-- Prints no times and no ids, so that its output can be compared.

\set ON_ERROR_STOP on
\pset footer off
\set QUIET on

CREATE EXTENSION eventstore;

-- An account is what its events add up to: a balance, and whether it is open.
CREATE TYPE account AS (owner text, balance numeric, open boolean);

SELECT es_create_aggregate('account', initial_state => '{"balance": 0, "open": false}',
						   state_type => 'account', snapshot_every => 100) \g /dev/null

SELECT es_evolve('account', 'AccountOpened',
	$$ (event.data ->> 'owner', (event.data ->> 'balance')::numeric, true) $$) \g /dev/null
SELECT es_evolve('account', 'MoneyDeposited',
	$$ (state.owner, state.balance + (event.data ->> 'amount')::numeric, state.open) $$) \g /dev/null
SELECT es_evolve('account', 'MoneyWithdrawn',
	$$ (state.owner, state.balance - (event.data ->> 'amount')::numeric, state.open) $$) \g /dev/null
SELECT es_evolve('account', 'AccountClosed',
	$$ (state.owner, state.balance, false) $$) \g /dev/null

-- A command is decided on what the account is: it is rejected for a reason, or
-- it leads to events.
SELECT es_decide('account', 'CreateAccount',
	query  => $$ SELECT 'AccountOpened', jsonb_build_object('owner', command -> 'owner',
														   'balance', coalesce(command -> 'balance', '0')) $$,
	reject => $$ CASE WHEN state.owner IS NOT NULL THEN 'account exists already'
					  WHEN (command ->> 'balance')::numeric < 0 THEN 'balance must not be negative' END $$) \g /dev/null

SELECT es_decide('account', 'DepositMoney',
	query  => $$ SELECT 'MoneyDeposited', jsonb_build_object('amount', command -> 'amount') $$,
	reject => $$ CASE WHEN NOT state.open THEN 'account is closed'
					  WHEN (command ->> 'amount')::numeric > 0 THEN NULL
					  ELSE 'amount must be positive' END $$) \g /dev/null

SELECT es_decide('account', 'WithdrawMoney',
	query  => $$ SELECT 'MoneyWithdrawn', jsonb_build_object('amount', command -> 'amount') $$,
	reject => $$ CASE WHEN NOT state.open THEN 'account is closed'
					  WHEN (command ->> 'amount')::numeric > state.balance THEN 'insufficient funds'
					  WHEN (command ->> 'amount')::numeric > 0 THEN NULL
					  ELSE 'amount must be positive' END $$) \g /dev/null

SELECT es_decide('account', 'CloseAccount',
	query  => $$ SELECT 'AccountClosed', '{}'::jsonb $$,
	reject => $$ CASE WHEN NOT state.open THEN 'account is closed'
					  WHEN state.balance <> 0 THEN 'cannot close an account with a balance' END $$) \g /dev/null

-- The read model: a table of all accounts, kept in the transaction that appends.
CREATE TABLE account_list (account text PRIMARY KEY, owner text, balance numeric, open boolean);

SELECT es_create_projection('account_list', mode => 'inline', tables => '{account_list}', category => 'account') \g /dev/null
SELECT es_on('account_list', 'AccountOpened',
	$$ INSERT INTO account_list VALUES (event.stream_id, event.data ->> 'owner', (event.data ->> 'balance')::numeric, true) $$) \g /dev/null
SELECT es_on('account_list', 'MoneyDeposited',
	$$ UPDATE account_list SET balance = balance + (event.data ->> 'amount')::numeric WHERE account = event.stream_id $$) \g /dev/null
SELECT es_on('account_list', 'MoneyWithdrawn',
	$$ UPDATE account_list SET balance = balance - (event.data ->> 'amount')::numeric WHERE account = event.stream_id $$) \g /dev/null
SELECT es_on('account_list', 'AccountClosed',
	$$ UPDATE account_list SET open = false WHERE account = event.stream_id $$) \g /dev/null

\echo 'The rules, tested: given these events, when that command comes, then this.'
\echo

\pset tuples_only on
\pset format unaligned
SELECT es_test('account', '[]', 'CreateAccount', '{"owner": "Ada"}',
	then_events => '[{"type": "AccountOpened", "data": {"owner": "Ada", "balance": 0}}]');
SELECT es_test('account', '[]', 'DepositMoney', '{"amount": 5}', then_error => 'account is closed');
SELECT es_test('account', '[{"type": "AccountOpened", "data": {"owner": "Ada", "balance": 100}}]',
	'WithdrawMoney', '{"amount": 101}', then_error => 'insufficient funds');
SELECT es_test('account', '[{"type": "AccountOpened", "data": {"owner": "Ada", "balance": 100}}]',
	'WithdrawMoney', '{"amount": 0}', then_error => 'amount must be positive');
SELECT es_test('account', '[{"type": "AccountOpened", "data": {"owner": "Ada", "balance": 100}},
							{"type": "MoneyWithdrawn", "data": {"amount": 100}}]',
	'CloseAccount', '{}', then_events => '[{"type": "AccountClosed"}]');
SELECT es_test_done();
\pset format aligned
\pset tuples_only off

\echo
\echo 'Commands; each answers the version that the account has reached.'
\echo

SELECT es_handle('account-ACC-001', 'CreateAccount', '{"owner": "Ada", "balance": 1000}') AS version;
SELECT es_handle('account-ACC-001', 'DepositMoney', '{"amount": 500}') AS version;
SELECT es_handle('account-ACC-001', 'WithdrawMoney', '{"amount": 200}') AS version;

\echo 'A command sent twice under one id is handled once.'
\echo

SELECT es_handle('account-ACC-001', 'DepositMoney', '{"amount": 50}',
				 command_id => '0190b5a2-7e4c-7c3a-9d1e-5f0c2b8a4d10') AS version;
SELECT es_handle('account-ACC-001', 'DepositMoney', '{"amount": 50}',
				 command_id => '0190b5a2-7e4c-7c3a-9d1e-5f0c2b8a4d10') AS version;

\echo 'What the rules forbid is rejected, and leaves nothing behind.'
\echo

\set ON_ERROR_STOP off
\set VERBOSITY terse
SELECT es_handle('account-ACC-001', 'WithdrawMoney', '{"amount": 5000}');
\echo 'SQLSTATE:' :SQLSTATE
SELECT es_handle('account-ACC-001', 'DepositMoney', '{"amount": -5}');
SELECT es_handle('account-ACC-001', 'DepositMoney', '{}');
SELECT es_handle('account-ACC-001', 'CreateAccount', '{"owner": "Eve"}');
SELECT es_handle('account-ACC-001', 'CloseAccount');
SELECT es_handle('account-ACC-002', 'DepositMoney', '{"amount": 5}');
\set ON_ERROR_STOP on

\echo
\echo 'What would it do? Nothing is appended.'
\echo

SELECT event_type, data, rejection
	FROM es_decide_dry('account-ACC-001', 'WithdrawMoney', '{"amount": 1350}');
SELECT event_type, data, rejection
	FROM es_decide_dry('account-ACC-001', 'WithdrawMoney', '{"amount": 1351}');

\echo 'The read model knows what the commands did.'
\echo

SELECT * FROM account_list;

\echo 'Take all and close the account.'
\echo

BEGIN;
SELECT es_handle('account-ACC-001', 'WithdrawMoney', '{"amount": 1350}') AS version;
SELECT es_handle('account-ACC-001', 'CloseAccount') AS version;
COMMIT;

\echo 'The state now, as it was after the third event, and step by step.'
\echo

SELECT * FROM es_state('account-ACC-001');
SELECT * FROM es_state('account-ACC-001', at_version => 3);
SELECT version, event_type, data, state ->> 'balance' AS balance, state ->> 'open' AS open
	FROM es_history('account-ACC-001');

\echo 'The read model, and the states of the same accounts.'
\echo

SELECT l.*, s.version, s.state
	FROM account_list AS l, es_state(l.account) AS s;
