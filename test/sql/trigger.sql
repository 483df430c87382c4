-- trigger: what users add to es_event is honoured by every route
CREATE EXTENSION eventstore;
CREATE FUNCTION try(query text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE query;
	RETURN 'done';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ' ' || SQLERRM;
END $$;
CREATE TABLE account (id text PRIMARY KEY);
INSERT INTO account VALUES ('u-1');
ALTER TABLE es_event ADD CONSTRAINT no_bad CHECK (event_type <> 'Bad'),
	ADD CONSTRAINT has_account FOREIGN KEY (stream_id) REFERENCES account NOT VALID;
CREATE INDEX by_amount ON es_event (((data ->> 'amount')::numeric)) WHERE event_type = 'Paid';
CREATE UNIQUE INDEX one_close ON es_event (stream_id) WHERE event_type = 'Closed';
CREATE TABLE heard (n int GENERATED ALWAYS AS IDENTITY, what text);
CREATE FUNCTION hear() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO heard (what) SELECT concat_ws(' ', TG_NAME, TG_WHEN, TG_LEVEL);
	RETURN NEW;
END $$;
CREATE FUNCTION hear_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF TG_WHEN = 'BEFORE' THEN NEW.metadata := coalesce(NEW.metadata, '{}') || jsonb_build_object(TG_NAME, NEW.version); END IF;
	INSERT INTO heard (what) SELECT concat_ws(' ', TG_NAME, NEW.event_type, NEW.version, NEW.metadata);
	RETURN NEW;
END $$;
CREATE FUNCTION hear_all() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN INSERT INTO heard (what) SELECT concat_ws(' ', TG_NAME, count(*), min(version), max(version)) FROM news; RETURN NULL; END $$;
CREATE TRIGGER a_row BEFORE INSERT ON es_event FOR EACH ROW EXECUTE FUNCTION hear_row();
-- Fires before the store's own, as all do: the version is not assigned yet.
CREATE TRIGGER z_row BEFORE INSERT ON es_event FOR EACH ROW WHEN (NEW.event_type = 'Paid') EXECUTE FUNCTION hear_row();
CREATE TRIGGER after_row AFTER INSERT ON es_event FOR EACH ROW EXECUTE FUNCTION hear_row();
CREATE TRIGGER before_all BEFORE INSERT ON es_event EXECUTE FUNCTION hear();
CREATE TRIGGER after_all AFTER INSERT ON es_event REFERENCING NEW TABLE AS news EXECUTE FUNCTION hear_all();
SELECT es_append('u-1', 'Paid', '{"amount": 1}', metadata => '{"own": 1}');
SELECT es_append_batch('u-1', '{Paid,Left}', '{"{\"amount\": 2}","{}"}');
INSERT INTO es_event (stream_id, event_type, data) VALUES ('u-1', 'Paid', '{"amount": 3}'), ('u-1', 'Closed', '{}');
COPY es_event (stream_id, event_type, data) FROM STDIN;
u-1	Paid	{"amount": 4}
\.
SELECT what FROM heard ORDER BY n;
SELECT statement, try(statement) FROM unnest(ARRAY['SELECT es_append(''u-1'', ''Bad'', ''{}'')', 'SELECT es_append(''u-2'', ''A'', ''{}'')', 'SELECT es_append(''u-1'', ''Closed'', ''{}'')',
	'SELECT es_append(''u-1'', ''Paid'', ''{"amount": "x"}'')', 'SELECT es_append_batch(''u-1'', ''{A,Bad}'', ''{1,2}'')',
	'INSERT INTO es_event (stream_id, event_type, data) VALUES (''u-2'', ''A'', ''{}'')']) statement;
SET enable_seqscan = off;
SELECT version FROM es_event WHERE event_type = 'Paid' AND (data ->> 'amount')::numeric BETWEEN 1 AND 4 ORDER BY 1;
RESET enable_seqscan;
DROP FUNCTION hear(), hear_row(), hear_all() CASCADE;
-- A trigger that drops the event, and one that appends by itself.
CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.event_type = 'Drop' THEN RETURN NULL; END IF;
	IF NEW.event_type = 'Nested' THEN PERFORM es_append('u-1', 'Inner', '{}'); END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER act BEFORE INSERT ON es_event FOR EACH ROW EXECUTE FUNCTION act();
INSERT INTO account VALUES ('u-3');
SELECT try('SELECT es_append(''u-3'', ''Drop'', ''{}'')'), es_append('u-3', 'Nested', '{}'), try('SELECT es_append(''u-1'', ''Nested'', ''{}'')');
INSERT INTO es_event (stream_id, event_type, data) VALUES ('u-3', 'Drop', '{}'), ('u-3', 'Nested', '{}') RETURNING version;
SELECT stream_id, version, event_type FROM es_event WHERE event_type IN ('Nested', 'Inner') ORDER BY position;
SELECT check_name, detail FROM es_check() WHERE status <> 'ok';
DROP FUNCTION act() CASCADE;
ALTER TABLE es_event DROP CONSTRAINT has_account;
DROP TABLE heard, account;
-- A trigger may change what the event says, and not where it stands.
CREATE FUNCTION move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	CASE NEW.event_type
		WHEN 'Stream' THEN NEW.stream_id := 'v-2';
		WHEN 'Version' THEN NEW.version := 50;
		WHEN 'Position' THEN NEW.position := 5000;
		WHEN 'Time' THEN NEW.recorded_at := '2000-01-01';
		WHEN 'Id' THEN NEW.event_id := '00000000-0000-4000-8000-000000000009';
		ELSE NEW.data := '{"changed": true}';
	END CASE;
	RETURN NEW;
END $$;
CREATE TRIGGER move BEFORE INSERT ON es_event FOR EACH ROW EXECUTE FUNCTION move();
SELECT type, try(format('SELECT es_append(''v-1'', %L, ''{}'')', type)), try(format('SELECT es_append_batch(''v-1'', ''{A,%s}'', ''{1,2}'')', type)),
		try(format('INSERT INTO es_event (stream_id, event_type, data) VALUES (''v-1'', %L, ''{}'')', type))
	FROM unnest(ARRAY['Stream', 'Version', 'Position', 'Time', 'Id', 'Data']) type;
SELECT stream_id, version, event_type, data FROM es_event WHERE stream_id LIKE 'v-%' ORDER BY 1, 2;
DROP FUNCTION move() CASCADE;
-- Columns that users add: generated ones, and defaults.
SET regress.tenant = 'north';
ALTER TABLE es_event ADD COLUMN amount numeric GENERATED ALWAYS AS ((data ->> 'amount')::numeric) STORED, ADD COLUMN unused int,
	ADD COLUMN tenant text NOT NULL DEFAULT current_setting('regress.tenant'), ADD COLUMN plain int;
ALTER TABLE es_event DROP COLUMN unused;
SELECT es_append('w-1', 'A', '{"amount": 1}'), es_append_batch('w-1', '{A,B}', '{"{\"amount\": 2}","{\"amount\": 3}"}');
INSERT INTO es_event (stream_id, event_type, data) VALUES ('w-1', 'A', '{"amount": 4}');
SELECT version, amount, tenant, plain FROM es_read_stream('w-1');
SELECT try('SELECT es_append(''w-1'', ''A'', ''{"amount": "x"}'')');
SELECT check_name, detail FROM es_check() WHERE status <> 'ok';
DROP FUNCTION try(text);
DROP EXTENSION eventstore;
