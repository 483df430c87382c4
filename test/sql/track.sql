-- track: changes of ordinary tables as events
CREATE EXTENSION eventstore;
CREATE FUNCTION log(category text, after bigint = 0) RETURNS TABLE (stream_id text, version bigint, event_type text, data jsonb) LANGUAGE sql AS
	$$ SELECT e.stream_id, e.version, e.event_type, e.data FROM es_read_all(after, 1000, category => log.category) e $$;

-- Each row's changes are a stream.  What stays the same is no change.
CREATE TABLE customer (id int PRIMARY KEY, gone int, name text, secret text, shout text GENERATED ALWAYS AS (upper(name)) STORED);
ALTER TABLE customer DROP COLUMN gone;
INSERT INTO customer VALUES (1, 'Ada', 'x');
SELECT es_track_table('customer', except_columns => '{secret}', include_existing => true);
SELECT * FROM es_tracked_table;
INSERT INTO customer VALUES (2, NULL, 'x'), (3, 'Grace', NULL);
UPDATE customer SET name = 'Ada L.' WHERE id < 3;
UPDATE customer SET name = name, secret = 'y';
UPDATE customer SET id = 4, name = 'Hopper' WHERE id = 3;
DELETE FROM customer WHERE id = 2;
SELECT * FROM log('customer');
-- Folding the events gives the table.
SELECT es_create_aggregate('customer', initial_state => 'null');
SELECT es_evolve('customer', 'customer.' || t, $$event.data -> 'new'$$) FROM unnest('{inserted,updated,deleted}'::text[]) t;
SELECT s.stream_id, es_state(s.stream_id) FROM es_stream_list('customer') s ORDER BY 1;

-- Who, where, in which transaction; and what the session says, which cannot claim to be that.
SET eventstore.metadata = '{"user": "web-7", "role": "nobody", "table": "none"}';
BEGIN;
INSERT INTO customer VALUES (5, 'E');
SELECT metadata - 'transaction' - 'role' - 'session_role' AS metadata, metadata ->> 'transaction' = pg_current_xact_id()::text AS transaction,
	metadata ->> 'role' = current_user AS role, metadata ->> 'session_role' = session_user AS session
	FROM es_read_stream('customer-5');
ROLLBACK;
RESET eventstore.metadata;
SELECT es_stream_version('customer-5') AS rolled_back;

-- By every route.
COPY customer (id, name) FROM STDIN;
6	six
7	seven
\.
INSERT INTO customer VALUES (6, 'SIX'), (8, 'eight') ON CONFLICT (id) DO UPDATE SET name = excluded.name;
MERGE INTO customer c USING (VALUES (7, NULL), (9, 'nine')) v(id, name) ON c.id = v.id
	WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (id, name) VALUES (v.id, v.name);
WITH gone AS (DELETE FROM customer WHERE id = 8 RETURNING *) INSERT INTO customer (id, name) SELECT 80, name FROM gone;
CREATE TABLE account (customer int REFERENCES customer ON UPDATE CASCADE ON DELETE SET NULL, id int UNIQUE NOT NULL);
SELECT es_track_table('account', 'acct', key_columns => '{id}');
INSERT INTO account VALUES (9, 1);
UPDATE customer SET id = 90 WHERE id = 9;
DELETE FROM customer WHERE id = 90;
SELECT stream_id, version, event_type, data FROM es_event WHERE stream_id ~ '^(customer-([6789]|[89]0)$|acct)' ORDER BY position;

-- What would not leave an event is refused; what leaves one is, too, when the event is.
TRUNCATE customer CASCADE;
SELECT es_create_event_type('customer.deleted', check_expression => $$event.data -> 'old' ->> 'name' <> 'Hopper'$$);
DELETE FROM customer;
SELECT count(*) FROM customer;

-- A trigger that changes the row is before us, one that changes it again behind us.
CREATE TABLE step (id int PRIMARY KEY, n int);
SELECT es_track_table('step');
CREATE FUNCTION step() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
	IF TG_WHEN = 'BEFORE' THEN NEW.n := NEW.n * 10; RETURN NEW; END IF;
	UPDATE step SET n = 1 WHERE id = NEW.id; RETURN NULL; END $$;
CREATE TRIGGER before BEFORE INSERT ON step FOR EACH ROW EXECUTE FUNCTION step();
CREATE TRIGGER after AFTER INSERT ON step FOR EACH ROW EXECUTE FUNCTION step();
INSERT INTO step VALUES (1, 5), (2, 6);
SELECT * FROM log('step');

-- Partitions: those that are there and those that come, by their own names, too.
CREATE TABLE reading (place text, at timestamptz, value float8, PRIMARY KEY (place, at)) PARTITION BY RANGE (at);
CREATE TABLE reading_1 PARTITION OF reading FOR VALUES FROM ('2026-01-01 UTC') TO ('2026-02-01 UTC');
INSERT INTO reading VALUES ('a', '2026-01-01 12:00 UTC', 0);
SELECT es_track_table('reading', include_existing => true);
CREATE TABLE reading_2 (value float8, at timestamptz NOT NULL, place text NOT NULL);
ALTER TABLE reading ATTACH PARTITION reading_2 FOR VALUES FROM ('2026-02-01 UTC') TO ('2026-03-01 UTC');
SET timezone = 'Asia/Tokyo'; SET datestyle = 'SQL, DMY'; SET extra_float_digits = -10;
INSERT INTO reading_2 VALUES (0.1::float8 + 0.2::float8, '2026-02-01 12:00 UTC', 'a,b%');
UPDATE reading SET at = '2026-01-02 UTC' WHERE place = 'a,b%';
RESET timezone; RESET datestyle; RESET extra_float_digits;
SELECT * FROM log('reading');
SELECT DISTINCT metadata ->> 'table' FROM es_event WHERE stream_id LIKE 'reading-%';
SELECT es_untrack_table('reading_1');
SELECT es_untrack_table('reading');
INSERT INTO reading VALUES ('a', '2026-01-03', 0);
SELECT * FROM es_tracked_table;

-- Keys: any text, and no two alike.
CREATE TABLE key (a text, b text, PRIMARY KEY (a, b));
SELECT es_track_table('key', 'k');
INSERT INTO key VALUES ('x,y', 'z'), ('x', 'y,z'), ('', ''), (E'tab\t%', 'ü' || chr(133));
SELECT stream_id FROM log('k');
INSERT INTO key VALUES (repeat('a', 1021), 'b');
-- Rows of one key share a stream.
CREATE TABLE item (id int PRIMARY KEY, basket text NOT NULL);
SELECT es_track_table('item', 'basket', '{basket}');
INSERT INTO item VALUES (1, 'b'), (2, 'b');
SELECT stream_id, version, data FROM log('basket');
ALTER TABLE item ALTER basket DROP NOT NULL;
INSERT INTO item VALUES (3, NULL);
-- Names follow the table; a key that is named does not follow its column.
ALTER TABLE item RENAME TO thing;
INSERT INTO thing VALUES (4, 'b');
SELECT metadata ->> 'table' FROM es_read_stream('basket-b', 2);
ALTER TABLE thing RENAME basket TO cart;
INSERT INTO thing VALUES (5, 'c');
DROP TABLE thing;
ALTER TABLE key DROP CONSTRAINT key_pkey;
INSERT INTO key VALUES ('c', 'd');

-- Values of every kind are what to_jsonb makes of them.
CREATE DOMAIN percent AS int CHECK (VALUE BETWEEN 0 AND 100);
CREATE TYPE colour AS ENUM ('red');
CREATE TABLE kind (id int8 PRIMARY KEY, b bool, i2 int2, p percent, n numeric, n2 numeric, f float4, t text, v varchar(9), c char(3), ch "char", nm name, d date,
	ts timestamp, tz timestamptz, iv interval, by bytea, u uuid, j json, jb jsonb, a int[], e colour, r int4range, o oid, m inet);
SELECT es_track_table('kind');
INSERT INTO kind VALUES (-9223372036854775808, true, -1, 50, 'NaN', '-Infinity', 0.1, E'a\n"b', 'ü', 'x', 'y', 'n', '2026-01-01 BC', 'infinity', '2026-01-01 12:00 UTC', '1 mon 2 days',
	'\x00ff', '0190b5a2-7e4c-7c3a-9d1e-5f0c2b8a4d10', '{"b": 1, "a": 2}', '[null]', '{1,NULL}', 'red', '[1,5)', 4294967295, '10.0.0.1/8');
INSERT INTO kind (id, n, n2) VALUES (2, 1.50, 1e100);
SET timezone = 'UTC'; SET intervalstyle = 'postgres';
SELECT data -> 'new' = to_jsonb(k) AS same FROM es_event, kind k WHERE stream_id = 'kind-' || k.id;
RESET timezone; RESET intervalstyle;

-- A read model beside it, and one that is itself tracked.
CREATE TABLE summary (what text PRIMARY KEY, n int);
SELECT es_create_projection('summary', 'inline', '{summary}', 'step');
SELECT es_on('summary', 'step.updated', $$ INSERT INTO summary VALUES ('updated', 1) ON CONFLICT (what) DO UPDATE SET n = summary.n + 1 $$);
CALL es_run_projections();
SELECT es_track_table('summary');
UPDATE step SET n = n + 1;
SELECT event_type, data FROM log('summary');
CALL es_rebuild_projection('summary');
SELECT * FROM summary;
-- The store looks sound, and the extension cannot go while tables are tracked.
SELECT check_name FROM es_check() WHERE status <> 'ok';
\set VERBOSITY terse
DROP EXTENSION eventstore;
DROP EXTENSION eventstore CASCADE;
INSERT INTO customer VALUES (1000, 'untracked');
