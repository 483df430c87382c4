-- Read models computed anew, and as they were.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS eventstore CASCADE;
CREATE EXTENSION eventstore;
RESET client_min_messages;

CREATE TABLE account (
	id      text PRIMARY KEY,
	balance numeric NOT NULL DEFAULT 0,
	moves   bigint NOT NULL DEFAULT 0,
	doubled numeric GENERATED ALWAYS AS (balance * 2) STORED,
	number  bigint GENERATED ALWAYS AS IDENTITY
);
CREATE TABLE "Log of moves" (stream_id text, amount numeric);
CREATE TABLE day (day date PRIMARY KEY, amount numeric NOT NULL, moves bigint NOT NULL);
SELECT es_append('account-' || i, 'Opened', '{}') FROM generate_series(1, 20) i \g /dev/null
SELECT es_append('account-' || i % 20 + 1, 'Moved', jsonb_build_object('amount', i % 7))
	FROM generate_series(1, 300) i \g /dev/null

SET client_min_messages = warning;
BEGIN;
SELECT es_create_projection('account', 'inline', '{account,"\"Log of moves\""}');
SELECT es_on('account', 'Opened', 'INSERT INTO account (id) VALUES (event.stream_id)');
SELECT es_on('account', 'Moved', '
	UPDATE account SET balance = balance + (event.data->>''amount'')::numeric, moves = moves + 1
		WHERE id = event.stream_id;
	INSERT INTO "Log of moves" VALUES (event.stream_id, (event.data->>''amount'')::numeric)');
SELECT es_create_projection('day', 'async', '{day}');
SELECT es_on_batch('day', '
	INSERT INTO day AS d
		SELECT recorded_at::date, sum((data->>''amount'')::numeric), count(*)
		FROM new_events WHERE event_type = ''Moved'' GROUP BY 1 HAVING count(*) > 0
		ON CONFLICT (day) DO UPDATE SET amount = d.amount + excluded.amount, moves = d.moves + excluded.moves');
COMMIT;
RESET client_min_messages;
CALL es_run_projections();

-- what must survive a rebuild
CREATE VIEW rich AS SELECT * FROM account WHERE balance > 40;
CREATE TABLE card (account text REFERENCES account);
INSERT INTO card VALUES ('account-1');
GRANT SELECT ON account TO PUBLIC;
CREATE INDEX account_balance ON account (balance);
CREATE TABLE should AS SELECT id, balance, moves, doubled FROM account;
CREATE TABLE identity AS SELECT oid, relacl, (SELECT count(*) FROM pg_index WHERE indrelid = oid) AS indexes
	FROM pg_class WHERE oid IN ('account'::regclass, 'day'::regclass);
CREATE FUNCTION differences() RETURNS bigint LANGUAGE sql AS $$
	SELECT count(*) FROM (
		(TABLE should EXCEPT SELECT id, balance, moves, doubled FROM account)
		UNION ALL (SELECT id, balance, moves, doubled FROM account EXCEPT TABLE should)
		UNION ALL (SELECT stream_id, sum(amount), count(*), 2 * sum(amount) FROM "Log of moves" GROUP BY 1
			EXCEPT TABLE should)) d
$$;
SELECT differences();

-- spoilt in every way: changed, missing, foreign, doubled
UPDATE account SET balance = balance + 1 WHERE id IN ('account-1', 'account-2');
DELETE FROM account WHERE id = 'account-3';
INSERT INTO account (id, balance) VALUES ('nobody', 1);
INSERT INTO "Log of moves" TABLE "Log of moves";
UPDATE day SET moves = 0;
SELECT differences() > 0 AS spoilt;
CALL es_rebuild_projection('account');
CALL es_rebuild_projection('day');
SELECT differences();
SELECT sum(amount), sum(moves) FROM day;
TABLE identity EXCEPT SELECT oid, relacl, (SELECT count(*) FROM pg_index WHERE indrelid = oid) FROM pg_class;
SELECT count(*) FROM rich;
SELECT name, status, position, lag_events FROM es_stat_projection ORDER BY name;
-- and both go on
SELECT es_append('account-1', 'Moved', '{"amount": 1000}');
CALL es_run_projections();
SELECT balance, moves, (SELECT sum(amount) FROM "Log of moves" WHERE stream_id = id),
	(SELECT sum(moves) FROM day) FROM account WHERE id = 'account-1';

-- nothing is left behind, and nothing after an error either
SELECT nspname FROM pg_namespace WHERE nspname LIKE 'es\_shadow%';
SELECT count(*) FROM es_job;
SELECT * FROM es_progress;
CALL es_rebuild_projection('nothing');
CALL es_rebuild_projection(NULL);
BEGIN;
CALL es_rebuild_projection('account');
ROLLBACK;
SELECT es_create_projection('bare');
SELECT es_on('bare', 'Moved', 'SELECT 1');
CALL es_rebuild_projection('bare');
SELECT es_create_projection('qualified', tables => '{day}');
SELECT es_on('qualified', 'Moved', 'UPDATE public.day SET moves = moves');
CALL es_rebuild_projection('qualified');
SELECT es_create_projection('chain', tables => '{day}');
SELECT es_on('chain', 'Moved', 'SELECT es_append(''chain-1'', ''Chained'', event.data)');
CALL es_rebuild_projection('chain');
SELECT es_create_projection('broken', tables => '{day}');
SELECT es_on('broken', 'Moved', 'INSERT INTO day VALUES (NULL)');
CALL es_rebuild_projection('broken');
\set VERBOSITY terse
SET statement_timeout = '1ms';
CALL es_rebuild_projection('account');
RESET statement_timeout;
\set VERBOSITY default
SELECT nspname FROM pg_namespace WHERE nspname LIKE 'es\_shadow%';
SELECT count(*) FROM es_job;
SELECT count(*) FROM es_event WHERE stream_id = 'chain-1';
SELECT es_drop_projection(name) FROM es_projection WHERE name IN ('bare', 'qualified', 'chain', 'broken') \g /dev/null

-- parked events are tried again, a stopped projection goes on
SELECT es_create_projection('parking', tables => '{card}', on_error => 'skip');
SELECT es_on('parking', 'Moved', 'INSERT INTO card SELECT ''account-2'' WHERE 1 / (event.version - 16) IS NOT NULL');
CALL es_run_projections();
SELECT count(*) FROM es_parked;
DELETE FROM es_parked WHERE position < 310;
UPDATE es_projection SET status = 'stopped', last_error = 'by hand' WHERE name = 'parking';
CALL es_rebuild_projection('parking');
SELECT count(*), min(message) FROM es_parked;
SELECT status, last_error FROM es_stat_projection WHERE name = 'parking';

-- as it was: at a position, at a time, and in step with a recorded history
CREATE TABLE history (at bigint, id text, balance numeric, moves bigint);
SELECT es_append('account-' || i % 20 + 1, 'Moved', '{"amount": 3}') FROM generate_series(1, 40) i \g /dev/null
INSERT INTO history SELECT max(position), id, balance, moves FROM es_event, account GROUP BY 2, 3, 4;
SELECT clock_timestamp() AS then \gset
SELECT pg_sleep(0.01) \g /dev/null
SELECT es_append('account-' || i % 20 + 1, 'Moved', '{"amount": 5}') FROM generate_series(1, 40) i \g /dev/null
INSERT INTO history SELECT max(position), id, balance, moves FROM es_event, account GROUP BY 2, 3, 4;
SELECT es_project_at('account', :'then') = (SELECT min(at) FROM history) AS at_that_time;
SELECT count(*) FROM account a JOIN history h USING (id)
	WHERE h.at = (SELECT min(at) FROM history) AND (a.balance, a.moves) = (h.balance, h.moves);
SELECT relpersistence FROM pg_class WHERE oid = 'account'::regclass;
SELECT es_project_at('account', "position" => 20);
SELECT count(*), sum(moves) FROM account;
SELECT es_project_at('account') = (SELECT max(at) FROM history) AS at_the_end;
SELECT count(*) FROM account a JOIN history h USING (id)
	WHERE h.at = (SELECT max(at) FROM history) AND (a.balance, a.moves) = (h.balance, h.moves);
DROP TABLE pg_temp.account, pg_temp."Log of moves";
SELECT relpersistence, (SELECT count(*) FROM account) FROM pg_class WHERE oid = 'account'::regclass;
SELECT es_project_at('account', now(), 5);
SELECT es_project_at(NULL);

SET client_min_messages = warning;
DROP TABLE account, "Log of moves", day, card, should, identity, history CASCADE;
DROP FUNCTION differences;
DROP EXTENSION eventstore;
