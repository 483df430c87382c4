-- Projections: definitions, and handlers that run inline.
\set VERBOSITY default
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS eventstore CASCADE;
CREATE EXTENSION eventstore;
RESET client_min_messages;

CREATE TABLE account (
	id      text PRIMARY KEY,
	balance numeric NOT NULL CHECK (balance >= 0),
	data    jsonb
);
CREATE TABLE turnover (total numeric NOT NULL, events bigint NOT NULL);
INSERT INTO turnover VALUES (0, 0);

-- bad arguments
SELECT es_create_projection(NULL);
SELECT es_create_projection('');
SELECT es_create_projection('p', 'sometimes');
SELECT es_create_projection('p', on_error => 'ignore');
SELECT es_create_projection('p', tables => '{pg_class_oid_index}');
SELECT es_drop_projection('p');
SELECT es_on('p', 'Opened', 'SELECT 1');

-- definitions; what is wrong in a handler is pointed at
SELECT es_create_projection('balance', 'inline', '{account}', 'account');
SELECT es_create_projection('balance');
SELECT es_on('balance', 'Opened', 'INSERT INTO account VALUES (evnt.stream_id, 0)');
SELECT es_on('balance', 'Opened', 'INSERT INTO account VALUES (event.stream, 0)');
SELECT es_on('balance', 'Opened', 'INSERT INTO acount VALUES (event.stream_id, 0)');
SELECT es_on('balance', 'Opened', 'INSERT INTO account VALUES (event.stream_id 0)');
SELECT es_on('balance', 'Opened', 'COMMIT');
SELECT es_on('balance', 'Opened', '');
SELECT es_on('balance', '', 'SELECT 1');
SELECT es_on_batch('balance', 'SELECT event.data FROM new_events');
SELECT es_on_batch('balance', 'SELECT nothing FROM new_events');
-- several statements; event.data is the event's, not the table's column
SELECT es_on('balance', 'Opened',
	'INSERT INTO account VALUES (event.stream_id, 0, $${"own": true}$$);
	 UPDATE account SET data = event.data WHERE id = event.stream_id AND data ? ''own''');
SELECT es_on('balance', 'Deposited',
	'UPDATE account SET balance = balance + (event.data->>''amount'')::numeric WHERE id = event.stream_id');
SELECT es_on('balance', 'Withdrawn',
	'UPDATE account SET balance = balance - (event.data->>''amount'')::numeric WHERE id = event.stream_id');

-- once a batch, and after what runs for single events
SELECT es_create_projection('turnover', 'inline', '{turnover}');
SELECT es_on_batch('turnover',
	'UPDATE turnover t SET total = t.total + n.total, events = t.events + n.events
	 FROM (SELECT sum((data->>''amount'')::numeric) AS total, count(*) AS events
	       FROM new_events WHERE data ? ''amount'') n
	 WHERE n.events > 0');
SELECT name, mode, status, owner = current_user AS mine, position, lag_events, lag_seconds
	FROM es_stat_projection ORDER BY name;

-- the four ways in
SELECT es_append('account-1', 'Opened', '{"by": "append"}');
SELECT es_append_batch('account-1', '{Deposited,Withdrawn,Deposited}',
	ARRAY['{"amount": 10}', '{"amount": 4}', '{"amount": 1}']::jsonb[]);
INSERT INTO es_event (stream_id, event_type, data)
	VALUES ('account-2', 'Opened', '{"by": "insert"}'), ('account-2', 'Deposited', '{"amount": 20}');
COPY es_event (stream_id, event_type, data) FROM stdin;
account-3	Opened	{"by": "copy"}
account-3	Deposited	{"amount": 30}
\.
-- other categories and types do not matter
SELECT es_append('loan-1', 'Opened', '{}');
SELECT es_append('account-1', 'Renamed', '{}');
SELECT * FROM account ORDER BY id;
SELECT * FROM turnover;

-- a read table can refuse the append; nothing of it remains
SELECT es_append('account-1', 'Withdrawn', '{"amount": 1000}');
INSERT INTO es_event (stream_id, event_type, data) VALUES ('account-2', 'Opened', '{}');
SELECT es_append('account-1', 'Deposited', '{"amount": "much"}');
SELECT es_stream_version('account-1'), es_stream_version('account-2');
SELECT * FROM account ORDER BY id;
SELECT * FROM turnover;

-- a repeated append is not projected again
SELECT es_append('account-1', 'Deposited', '{"amount": 7}', event_id => '00000000-0000-0000-0000-000000000007');
SELECT es_append('account-1', 'Deposited', '{"amount": 7}', event_id => '00000000-0000-0000-0000-000000000007');
-- nor is a row that brings its position: a restored dump brings its read tables
INSERT INTO es_event VALUES (1000000, 1, now(), gen_random_uuid(), 1, 'account-9', 'Opened', '{}');
-- rolled back to a savepoint, with its read model
BEGIN;
SAVEPOINT s;
SELECT es_append('account-1', 'Deposited', '{"amount": 100}');
ROLLBACK TO s;
INSERT INTO es_event (stream_id, event_type, data) VALUES ('account-1', 'Deposited', '{"amount": 0.5}');
COMMIT;
SELECT id, balance FROM account ORDER BY id;

-- triggers of the user's own: one changes the row, one drops it
CREATE FUNCTION change_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.data ? 'drop' THEN RETURN NULL; END IF;
	NEW.data := jsonb_set(NEW.data, '{amount}', '2');
	RETURN NEW;
END
$$;
CREATE TRIGGER zz_change BEFORE INSERT ON es_event FOR EACH ROW EXECUTE FUNCTION change_event();
CREATE FUNCTION say() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE NOTICE '% % %', TG_NAME, TG_WHEN, TG_LEVEL; RETURN NULL; END
$$;
CREATE TRIGGER say_row AFTER INSERT ON es_event FOR EACH ROW EXECUTE FUNCTION say();
CREATE TRIGGER say_statement AFTER INSERT ON es_event FOR EACH STATEMENT EXECUTE FUNCTION say();
SELECT es_append('account-3', 'Deposited', '{"amount": 500}');
INSERT INTO es_event (stream_id, event_type, data)
	VALUES ('account-3', 'Deposited', '{"amount": 500}'), ('loan-2', 'Deposited', '{"drop": true}');
SELECT balance FROM account WHERE id = 'account-3';
DROP FUNCTION change_event, say CASCADE;

-- a handler may append events in its turn
SELECT es_create_projection('closing', 'inline');
SET client_min_messages = warning;
SELECT es_on('closing', 'Closed', 'SELECT es_append(event.stream_id, ''Withdrawn'',
	jsonb_build_object(''amount'', (SELECT balance FROM account WHERE id = event.stream_id)))');
RESET client_min_messages;
CALL es_run_projections();
SELECT es_append('account-2', 'Closed', '{}'), es_stream_version('account-2');
SELECT balance FROM account WHERE id = 'account-2';
-- one that calls itself without end is stopped
SELECT es_on('closing', 'Loop', 'SELECT es_append(event.stream_id, ''Loop'', ''{}'')');
\set VERBOSITY sqlstate
SELECT es_append('loop-1', 'Loop', '{}');
\set VERBOSITY default

-- handlers run in their owner's name, definitions are the owner's
CREATE ROLE regress_es_owner;
CREATE ROLE regress_es_writer;
CREATE SCHEMA private AUTHORIZATION regress_es_owner;
SELECT es_grant('regress_es_owner', 'admin'), es_grant('regress_es_writer', 'writer');
SET ROLE regress_es_owner;
SET search_path = private, public;
CREATE TABLE seen (who name DEFAULT current_user, what text);
SELECT es_create_projection('seen', 'inline', '{seen}');
SELECT es_on('seen', 'Seen', 'INSERT INTO seen (what) VALUES (event.event_type || pg_collation_for(event.stream_id))');
RESET search_path;
CALL es_run_projections();
SET ROLE regress_es_writer;
SELECT es_append('seen-1', 'Seen', '{}');
RESET ROLE;
SELECT who, what FROM private.seen;
\set VERBOSITY terse
SET ROLE regress_es_owner;
SELECT es_drop_projection('balance');
SELECT es_on('balance', 'Opened', 'SELECT 1');
UPDATE es_projection SET owner = current_user;
RESET ROLE;
GRANT INSERT, UPDATE ON es_projection, es_projection_handler TO regress_es_owner;
SET ROLE regress_es_owner;
UPDATE es_projection SET owner = (SELECT rolname FROM pg_roles WHERE oid = 10) WHERE name = 'seen';
INSERT INTO es_projection_handler VALUES ('balance', 99, 'Opened', 'SELECT 1');
RESET ROLE;
\set VERBOSITY default
-- who may no longer read events gets none
REVOKE SELECT ON es_event FROM regress_es_owner;
SET ROLE regress_es_writer;
SELECT es_append('seen-1', 'Seen', '{}');
RESET ROLE;
SELECT es_drop_projection('seen');

DROP OWNED BY regress_es_owner, regress_es_writer;
DROP ROLE regress_es_owner, regress_es_writer;
SELECT es_drop_projection(name) FROM es_projection;
DROP TABLE account, turnover;
DROP EXTENSION eventstore;
