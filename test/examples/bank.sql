-- bank.sql: the bank account of every event-sourcing text.
--
-- For psql, in a fresh database: psql -d bank -f test/examples/bank.sql
-- Prints no times and no ids, so that its output can be compared.

\set ON_ERROR_STOP on
\pset footer off
\set QUIET on

CREATE EXTENSION eventstore;

\echo 'An account is opened with 1000, 500 come in, 200 go out.'
\echo 'Each is an event in the stream account-ACC-001; es_append answers the version'
\echo 'that the stream has reached. The first one says that the stream must be new (0).'
\echo

SELECT es_append('account-ACC-001', 'AccountOpened',
				 '{"owner": "Ada", "balance": 1000}', expected_version => 0) AS version;
SELECT es_append('account-ACC-001', 'MoneyDeposited', '{"amount": 500}') AS version;
SELECT es_append('account-ACC-001', 'MoneyWithdrawn', '{"amount": 200}') AS version;

\echo 'The stream: what happened to the account, in order.'
\echo

SELECT version, event_type, data
	FROM es_read_stream('account-ACC-001');

\echo 'No balance is stored anywhere. It is what the events add up to:'
\echo 'a fold of the stream, here after each event.'
\echo

CREATE FUNCTION balance_change(event es_event) RETURNS numeric
	LANGUAGE sql IMMUTABLE
	RETURN CASE event.event_type
		WHEN 'AccountOpened' THEN (event.data ->> 'balance')::numeric
		WHEN 'MoneyDeposited' THEN (event.data ->> 'amount')::numeric
		WHEN 'MoneyWithdrawn' THEN -(event.data ->> 'amount')::numeric
		ELSE 0
	END;

SELECT version, event_type,
	   sum(balance_change(event)) OVER (ORDER BY version) AS balance
	FROM es_read_stream('account-ACC-001') AS event;

\echo 'Somebody saw the account at version 2, with 1500 in it, and decides to'
\echo 'withdraw 1400. The account has moved on: it is at version 3, with 1300. The'
\echo 'store refuses the append.'
\echo

\set ON_ERROR_STOP off
SELECT es_append('account-ACC-001', 'MoneyWithdrawn', '{"amount": 1400}',
				 expected_version => 2) AS version;
\echo 'SQLSTATE:' :SQLSTATE
\set ON_ERROR_STOP on

\echo
\echo 'So is any change of what has happened.'
\echo

\set ON_ERROR_STOP off
UPDATE es_event SET data = '{"amount": 1000000}' WHERE event_type = 'MoneyDeposited';
\echo 'SQLSTATE:' :SQLSTATE
\set ON_ERROR_STOP on

\echo
\echo 'A transfer appends to two accounts in one transaction: both or neither.'
\echo

BEGIN;
SELECT es_append('account-ACC-002', 'AccountOpened',
				 '{"owner": "Grace", "balance": 0}', expected_version => 0) AS version;
SELECT es_append('account-ACC-001', 'MoneyWithdrawn',
				 '{"amount": 300, "to": "ACC-002"}', expected_version => 3) AS version;
SELECT es_append('account-ACC-002', 'MoneyDeposited',
				 '{"amount": 300, "from": "ACC-001"}', expected_version => 1) AS version;
COMMIT;

\echo 'The whole log: every event of every stream, in one order.'
\echo

SELECT position, stream_id, version, event_type, data
	FROM es_read_all();

\echo 'And the balances of all accounts, from the same events.'
\echo

SELECT stream_id AS account, sum(balance_change(event)) AS balance
	FROM es_read_all(category => 'account') AS event
	GROUP BY stream_id
	ORDER BY stream_id;
