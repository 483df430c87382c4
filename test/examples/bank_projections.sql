-- Three read models of one bank, all from the same events: the balance of each
-- account and its history, kept inline with every append, and a summary of
-- each day, kept once a batch behind it.
CREATE EXTENSION eventstore;

CREATE TABLE account_balance (
	account_id text PRIMARY KEY,
	owner      text NOT NULL,
	balance    numeric NOT NULL CONSTRAINT no_overdraft CHECK (balance >= 0),
	version    bigint NOT NULL
);
CREATE TABLE transaction_history (
	"position" bigint PRIMARY KEY,
	account_id text NOT NULL REFERENCES account_balance,
	kind       text NOT NULL,
	amount     numeric NOT NULL,
	balance    numeric NOT NULL
);
CREATE TABLE daily_summary (
	day         date PRIMARY KEY,
	deposits    numeric NOT NULL,
	withdrawals numeric NOT NULL,
	net         numeric GENERATED ALWAYS AS (deposits - withdrawals) STORED
);

BEGIN;

SELECT es_create_projection('account_balance', 'inline', '{account_balance}', 'account');
SELECT es_on('account_balance', 'AccountOpened', $$
	INSERT INTO account_balance
		VALUES (event.stream_id, event.data->>'owner', 0, event.version)
$$);
SELECT es_on('account_balance', 'MoneyDeposited', $$
	UPDATE account_balance
		SET balance = balance + (event.data->>'amount')::numeric, version = event.version
		WHERE account_id = event.stream_id
$$);
SELECT es_on('account_balance', 'MoneyWithdrawn', $$
	UPDATE account_balance
		SET balance = balance - (event.data->>'amount')::numeric, version = event.version
		WHERE account_id = event.stream_id
$$);

SELECT es_create_projection('transaction_history', 'inline', '{transaction_history}', 'account');
SELECT es_on('transaction_history', 'MoneyDeposited', $$
	INSERT INTO transaction_history
		SELECT event.position, event.stream_id, 'deposit', amount,
			amount + coalesce((SELECT h.balance FROM transaction_history h
				WHERE h.account_id = event.stream_id ORDER BY h.position DESC LIMIT 1), 0)
		FROM (SELECT (event.data->>'amount')::numeric AS amount) a
$$);
SELECT es_on('transaction_history', 'MoneyWithdrawn', $$
	INSERT INTO transaction_history
		SELECT event.position, event.stream_id, 'withdrawal', amount,
			(SELECT h.balance FROM transaction_history h
				WHERE h.account_id = event.stream_id ORDER BY h.position DESC LIMIT 1) - amount
		FROM (SELECT (event.data->>'amount')::numeric AS amount) a
$$);

SELECT es_create_projection('daily_summary', 'async', '{daily_summary}', 'account');
SELECT es_on_batch('daily_summary', $$
	INSERT INTO daily_summary AS s (day, deposits, withdrawals)
		SELECT (data->>'day')::date,
			coalesce(sum((data->>'amount')::numeric) FILTER (WHERE event_type = 'MoneyDeposited'), 0),
			coalesce(sum((data->>'amount')::numeric) FILTER (WHERE event_type = 'MoneyWithdrawn'), 0)
		FROM new_events
		WHERE event_type IN ('MoneyDeposited', 'MoneyWithdrawn')
		GROUP BY 1
	ON CONFLICT (day) DO UPDATE
		SET deposits = s.deposits + excluded.deposits,
			withdrawals = s.withdrawals + excluded.withdrawals
$$);

COMMIT;

-- The bank's first days.
SELECT es_append('account-ACC-001', 'AccountOpened', '{"owner": "Ada"}');
SELECT es_append('account-ACC-002', 'AccountOpened', '{"owner": "Ben"}');
SELECT es_append('account-ACC-001', 'MoneyDeposited', '{"amount": 1000, "day": "2024-01-08"}');
SELECT es_append('account-ACC-001', 'MoneyWithdrawn', '{"amount": 250, "day": "2024-01-09"}');
SELECT es_append('account-ACC-002', 'MoneyDeposited', '{"amount": 80, "day": "2024-01-09"}');
SELECT es_append('account-ACC-001', 'MoneyWithdrawn', '{"amount": 100, "day": "2024-01-10"}');

-- Inline: there as soon as the append returns.
SELECT * FROM account_balance ORDER BY account_id;
SELECT account_id, kind, amount, balance FROM transaction_history ORDER BY "position";

-- And binding: what a read table forbids did not happen.
DO $$
BEGIN
	PERFORM es_append('account-ACC-002', 'MoneyWithdrawn', '{"amount": 81, "day": "2024-01-10"}');
EXCEPTION WHEN check_violation THEN
	RAISE NOTICE 'refused: %', SQLERRM;
END
$$;
SELECT es_stream_version('account-ACC-002');

-- Async: behind the appends, by a worker or by this call.
CALL es_run_projections();
SELECT es_wait_for('daily_summary');
SELECT * FROM daily_summary ORDER BY day;

-- Any of them can be computed anew, and shown as it was.
UPDATE account_balance SET balance = 0;
CALL es_rebuild_projection('account_balance');
SELECT account_id, balance FROM account_balance ORDER BY account_id;
SELECT es_project_at('account_balance', "position" => 3);
SELECT account_id, balance FROM account_balance ORDER BY account_id;
DROP TABLE pg_temp.account_balance;

-- The three agree.
SELECT sum(b.balance) AS balances,
	(SELECT sum(net) FROM daily_summary) AS days,
	(SELECT sum(CASE kind WHEN 'deposit' THEN amount ELSE -amount END) FROM transaction_history) AS history
FROM account_balance b;
SELECT name, mode, status, lag_events FROM es_stat_projection ORDER BY name;
