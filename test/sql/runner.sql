-- Projections in batches: catching up, failures, waiting.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS eventstore CASCADE;
CREATE EXTENSION eventstore;
RESET client_min_messages;

CREATE TABLE total (stream_id text PRIMARY KEY, amount numeric NOT NULL, events bigint NOT NULL);
CREATE TABLE batch (n serial, events bigint);
CREATE FUNCTION standing(OUT name text, OUT status text, OUT "position" bigint, OUT lag bigint,
	OUT parked bigint, OUT error_position bigint, OUT handler int, OUT error text)
	RETURNS SETOF record LANGUAGE sql AS
	$$SELECT name, status, position, lag_events, parked, error_position, error_handler, last_error
	  FROM es_stat_projection ORDER BY name$$;
CREATE FUNCTION define(name text, mode text, on_error text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM es_create_projection(name, mode, '{total}', 'account', on_error);
	PERFORM es_on(name, 'Opened', 'INSERT INTO total VALUES (event.stream_id, 0, 0)');
	PERFORM es_on(name, 'Deposited', 'UPDATE total SET amount = amount + (event.data->>''amount'')::numeric,
		events = events + 1 WHERE stream_id = event.stream_id');
END
$$;

SELECT es_append('account-' || i, 'Opened', '{}') FROM generate_series(1, 3) i \g /dev/null
SELECT es_append('account-' || i % 3 + 1, 'Deposited', jsonb_build_object('amount', i))
	FROM generate_series(1, 30) i \g /dev/null
SELECT es_append('loan-1', 'Deposited', '{"amount": 1000}') \g /dev/null

-- an async one, in small batches; once a batch comes after once an event
SELECT define('total', 'async', 'stop');
SELECT es_on_batch('total', 'INSERT INTO batch (events) SELECT count(*) FROM new_events');
SET eventstore.batch_size = 10;
SELECT * FROM standing();
CALL es_run_projections(2);
SELECT * FROM standing();
SELECT * FROM batch ORDER BY n;
CALL es_run_projections();
-- what no handler wants moves the checkpoint all the same
SELECT * FROM standing();
SELECT * FROM total ORDER BY 1;
SELECT * FROM batch ORDER BY n;
CALL es_run_projections();
SELECT count(*) FROM batch;
RESET eventstore.batch_size;

-- where it cannot run
BEGIN;
CALL es_run_projections();
ROLLBACK;
DO $$ BEGIN CALL es_run_projections(); EXCEPTION WHEN invalid_transaction_termination THEN RAISE NOTICE '%', SQLERRM; END $$;
CALL es_run_projections(0);

-- stop: all before the failing event is kept, the error is shown
SELECT es_append('account-1', 'Deposited', '{"amount": 1}') \g /dev/null
SELECT es_append('account-1', 'Deposited', '{"amount": "one"}') \g /dev/null
SELECT es_append('account-2', 'Deposited', '{"amount": 2}') \g /dev/null
CALL es_run_projections();
SELECT * FROM standing();
SELECT * FROM total ORDER BY 1;
SELECT es_wait_for('total', 35);
SELECT es_wait_for('total', 36);
CALL es_run_projections();
SELECT es_resume_projection('total');
CALL es_run_projections();
SELECT * FROM standing();
SELECT es_drop_projection('total');
TRUNCATE total;

-- skip: the event alone is parked
SELECT define('total', 'async', 'skip');
CALL es_run_projections();
SELECT * FROM standing();
SELECT projection, position, stream_id, event_type, handler, error_code, message FROM es_parked;
SELECT * FROM total ORDER BY 1;
SELECT es_replay_parked('total');
-- with a handler that can do it, it works
ALTER TABLE total ADD COLUMN notes text;
CREATE FUNCTION to_amount(jsonb) RETURNS numeric LANGUAGE sql AS $$SELECT CASE WHEN $1->>'amount' = 'one' THEN 1 END$$;
UPDATE es_projection_handler SET handler = 'UPDATE total SET amount = amount + to_amount(event.data) WHERE stream_id = event.stream_id'
	WHERE event_type = 'Deposited';
SELECT es_replay_parked('total');
SELECT count(*) FROM es_parked;
SELECT amount FROM total WHERE stream_id = 'account-1';
SELECT es_drop_projection('total');
TRUNCATE total;

-- park_stream: later events of the stream wait, others go on
SELECT define('total', 'async', 'park_stream');
SELECT es_append('account-1', 'Deposited', '{"amount": 3}') \g /dev/null
SELECT es_append('account-2', 'Deposited', '{"amount": 4}') \g /dev/null
CALL es_run_projections();
SELECT es_append('account-1', 'Deposited', '{"amount": 5}') \g /dev/null
SELECT es_append('account-3', 'Deposited', '{"amount": 6}') \g /dev/null
CALL es_run_projections();
SELECT * FROM standing();
SELECT position, stream_id, handler, error_code, message FROM es_parked ORDER BY position;
SELECT * FROM total ORDER BY 1;
SELECT es_replay_parked('total');
UPDATE es_projection_handler SET handler = 'UPDATE total SET amount = amount + coalesce(to_amount(event.data), (event.data->>''amount'')::numeric) WHERE stream_id = event.stream_id'
	WHERE event_type = 'Deposited';
SELECT es_replay_parked('total');
SELECT amount FROM total WHERE stream_id = 'account-1';
SELECT count(*) FROM es_parked;

-- inline with history: catches up, goes live, and is then in step
TRUNCATE total;
SELECT es_drop_projection('total');
SELECT define('total', 'inline', 'skip');
SELECT es_append('account-3', 'Deposited', '{"amount": 7}') \g /dev/null
SELECT count(*) FROM total;
CALL es_run_projections();
SELECT * FROM standing();
SELECT es_append('account-3', 'Deposited', '{"amount": 8}') \g /dev/null
SELECT * FROM total ORDER BY 1;
-- inline and live, an error rejects the append
SELECT es_append('account-3', 'Deposited', '{"amount": "x"}');
-- rests, and goes on without a gap
SELECT es_pause_projection('total');
SELECT es_append('account-3', 'Deposited', '{"amount": 9}') \g /dev/null
SELECT es_wait_for('total');
SELECT * FROM standing();
SELECT es_resume_projection('total');
CALL es_run_projections();
SELECT es_wait_for('total');
SELECT * FROM total ORDER BY 1;

-- read your writes
SELECT es_create_projection('slow');
SELECT es_on('slow', 'Deposited', 'SELECT 1');
SELECT es_wait_for('slow', timeout => '20 ms');
SELECT es_wait_for('slow', 0);
SELECT es_wait_for('nothing');
SELECT es_wait_for('slow', timeout => '-1 s');
BEGIN;
SELECT es_append('account-3', 'Deposited', '{"amount": 10}') \g /dev/null
SELECT es_wait_for('total');
SELECT es_wait_for('slow');
ROLLBACK;
-- a function sees the newest state although its transaction's snapshot is old
CALL es_run_projections();
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT es_wait_for('slow');
COMMIT;

SELECT es_drop_projection(name) FROM es_projection ORDER BY name;
DROP TABLE total, batch;
DROP FUNCTION define, standing, to_amount;
DROP EXTENSION eventstore;
