-- track_rights: who may track a table, in whose name events are appended, and what is refused
CREATE EXTENSION eventstore;
CREATE ROLE regress_es_owner;
CREATE ROLE regress_es_clerk;
CREATE ROLE regress_es_thief;
CREATE FUNCTION try(query text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE query;
	RETURN 'done';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ' ' || SQLERRM;
END $$;
GRANT CREATE ON SCHEMA public TO regress_es_owner, regress_es_thief;
SELECT es_grant('regress_es_owner', 'admin');
SELECT es_grant('regress_es_thief', 'reader');

-- The owner's table, in which a clerk writes who must not append.
SET ROLE regress_es_owner;
CREATE TABLE ledger (id int PRIMARY KEY, amount numeric);
SELECT es_track_table('ledger');
GRANT SELECT, INSERT, UPDATE, DELETE ON ledger TO regress_es_clerk;
SET ROLE regress_es_clerk;
INSERT INTO ledger VALUES (1, 100);
UPDATE ledger SET amount = 50;
SELECT es_append('ledger-1', 'ledger.updated', '{}');
SELECT es_track_table('ledger');
-- Through the owner's function it is the owner who writes, though the clerk's session.
RESET ROLE;
CREATE FUNCTION pay(n numeric) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS 'UPDATE ledger SET amount = amount - n';
ALTER FUNCTION pay OWNER TO regress_es_owner;
SET ROLE regress_es_clerk;
SELECT pay(10);
RESET ROLE;
SELECT version, metadata ->> 'role' AS role, metadata ->> 'session_role' = session_user AS session, data FROM es_read_stream('ledger-1');

-- The trigger cannot be put on a table of one's own, and does not work as anything else.
SET ROLE regress_es_thief;
CREATE TABLE ledger2 (id int PRIMARY KEY, amount numeric);
CREATE TRIGGER t AFTER INSERT ON ledger2 FOR EACH ROW EXECUTE FUNCTION zz_es_track_change('{"category": "ledger"}');
SELECT es_track_table('ledger2', 'ledger');
RESET ROLE;
GRANT EXECUTE ON FUNCTION zz_es_track_change TO regress_es_thief;
SET ROLE regress_es_thief;
CREATE TRIGGER t AFTER INSERT ON ledger2 FOR EACH ROW EXECUTE FUNCTION zz_es_track_change('{"category": "ledger"}');
INSERT INTO ledger2 VALUES (1, 1000000);
DROP TRIGGER t ON ledger2;
RESET ROLE;
CREATE TABLE by_hand (id int PRIMARY KEY);
CREATE TRIGGER a AFTER INSERT ON by_hand FOR EACH ROW EXECUTE FUNCTION zz_es_track_change();
SELECT try('INSERT INTO by_hand VALUES (1)');
DROP TRIGGER a ON by_hand;
CREATE TRIGGER a AFTER INSERT ON by_hand FOR EACH ROW EXECUTE FUNCTION zz_es_track_change('{"category": 1}');
SELECT try('INSERT INTO by_hand VALUES (1)');
DROP TRIGGER a ON by_hand;
CREATE TRIGGER a BEFORE INSERT ON by_hand FOR EACH ROW EXECUTE FUNCTION zz_es_track_change('{"category": "by_hand"}');
SELECT try('INSERT INTO by_hand VALUES (1)');
DROP TRIGGER a ON by_hand;
CREATE FUNCTION call_it() RETURNS int AS 'eventstore', 'es_track_change' LANGUAGE C;
SELECT try('SELECT call_it()');

-- The owner has to be a writer, then and now.
GRANT EXECUTE ON FUNCTION es_track_table TO regress_es_thief;
SET ROLE regress_es_thief;
SELECT es_track_table('ledger2');
RESET ROLE;
ALTER TABLE ledger OWNER TO regress_es_thief;
SELECT try('UPDATE ledger SET amount = 0');
ALTER TABLE ledger OWNER TO regress_es_owner;
-- Row security would have to be asked.
CREATE POLICY own ON es_event FOR ALL TO regress_es_owner USING (stream_id NOT LIKE 'ledger-%');
ALTER TABLE es_event ENABLE ROW LEVEL SECURITY;
SELECT try('UPDATE ledger SET amount = 0');
ALTER TABLE es_event DISABLE ROW LEVEL SECURITY;
SELECT es_stream_version('ledger-1');

-- What replication brings was tracked at the origin.
SET session_replication_role = replica;
UPDATE ledger SET amount = 1;
RESET session_replication_role;
ALTER TABLE ledger DISABLE TRIGGER _es_track_row;
UPDATE ledger SET amount = 2;
SELECT * FROM es_tracked_table;
SELECT es_stream_version('ledger-1');

-- What cannot be tracked, and wrong arguments.
CREATE VIEW v AS SELECT 1 AS id;
CREATE TABLE nokey (id int, b int NOT NULL);
CREATE TABLE "a-b" (id int PRIMARY KEY, secret text);
CREATE TABLE inherited () INHERITS (ledger);
SELECT call, try('SELECT es_track_table(' || call || ')') FROM unnest(ARRAY['''v''', '''es_event''', '''es_stream''', '''pg_class''', '''nokey''',
	'''nokey'', key_columns => ''{id}''', '''nokey'', key_columns => ''{c}''', '''nokey'', key_columns => ''{b,b}''', '''nokey'', key_columns => ''{NULL}''',
	'''nokey'', key_columns => ''{b}'', except_columns => ''{b}''', '''nokey'', key_columns => ''{b}'', except_columns => ''{z}''', '''nokey'', key_columns => ''{b}''',
	'''nokey''', '''nokey'', if_not_exists => true', '''a-b''', '''a-b'', ''''', '''a-b'', ''$ab''', '''a-b'', E''a\nb''', '''a-b'', repeat(''a'', 247)',
	'''a-b'', repeat(''a'', 246)', 'NULL', '''inherited''', '''no_such_table''', '''by_hand'', include_existing => NULL', '''by_hand'', if_not_exists => NULL']) WITH ORDINALITY c(call, n) ORDER BY n;
SELECT call, try('SELECT es_untrack_table(' || call || ')') FROM unnest(ARRAY['''by_hand''', '''by_hand'', true', '''nokey''', '''nokey''', '''v''',
	'''ledger'', NULL', 'NULL']) WITH ORDINALITY c(call, n) ORDER BY n;
SET ROLE regress_es_thief;
SELECT es_untrack_table('ledger');
RESET ROLE;
SELECT es_grant('regress_es_thief', 'admin');
SET ROLE regress_es_thief;
SELECT es_untrack_table('ledger');
SELECT es_track_table('by_hand');
RESET ROLE;

DROP EXTENSION eventstore CASCADE;
DROP TABLE ledger, ledger2 CASCADE;
DROP OWNED BY regress_es_owner, regress_es_clerk, regress_es_thief CASCADE;
DROP ROLE regress_es_owner, regress_es_clerk, regress_es_thief;
DROP FUNCTION try(text);
