-- event_type: checks, versions and tag templates at append
\set SHOW_CONTEXT never
CREATE EXTENSION eventstore;
CREATE FUNCTION try(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE answer text; place text; t text;
BEGIN
	EXECUTE query INTO answer;
	RETURN answer;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS place = CONSTRAINT_NAME, t = TABLE_NAME;
	RETURN concat_ws(' | ', SQLSTATE || ' ' || SQLERRM, nullif(t, ''), nullif(place, ''));
END $$;

-- A check holds on every route; only false rejects.
SELECT es_append('a-1', 'Deposited', '{"amount": -1}');
SELECT es_create_event_type('Deposited', check_expression => $$(event.data ->> 'amount')::numeric > 0 AND event.stream_id LIKE 'a-%'$$);
SELECT es_append('a-1', 'Deposited', '{"amount": 5}');
SELECT es_append('a-1', 'Deposited', '{"amount": 0}');
SELECT es_append('a-1', 'Deposited', '{}') AS null_passes, es_append('a-1', 'Other', '{"amount": 0}') AS undeclared;
SELECT n, try(q) FROM (VALUES (1, $$SELECT es_append('b-1', 'Deposited', '{"amount": 5}')$$),
	(2, $$SELECT es_append_batch('a-1', '{Deposited,Other,Deposited}', '{"{\"amount\": 1}","{}","{\"amount\": 0}"}')$$),
	(3, $$INSERT INTO es_event (stream_id, event_type, data) VALUES ('a-1', 'Other', '{}'), ('a-1', 'Deposited', '{"amount": 0}')$$),
	(4, $$INSERT INTO es_event (stream_id, event_type, type_version, data) VALUES ('a-1', 'Deposited', 2, '{"amount": 1}')$$)) v(n, q) ORDER BY n;
COPY es_event (stream_id, event_type, data) FROM STDIN;
a-1	Deposited	{"amount": 0}
\.
SELECT es_create_aggregate('a', initial_state => '0', state_type => 'numeric');
SELECT es_decide('a', 'Deposit', 'SELECT ''Deposited'', command');
SELECT es_handle('a-1', 'Deposit', '{"amount": 0}');
SELECT es_handle('a-1', 'Deposit', '{"amount": 2}');
SELECT version, event_type, type_version, data FROM es_read_stream('a-1');
-- The repetition of an append that was accepted is answered, whatever was declared since.
SELECT es_append('r-1', 'Repeated', '{}', event_id => '00000000-0000-4000-8000-000000000001');
SELECT es_create_event_type('Repeated', check_expression => 'false');
SELECT es_append('r-1', 'Repeated', '{}', event_id => '00000000-0000-4000-8000-000000000001');
SELECT es_append('r-1', 'Repeated', '{}');
-- A trigger that changes the event does not get past its check.
CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.data := '{"amount": -7}'; RETURN NEW; END $$;
CREATE TRIGGER spoil BEFORE INSERT ON es_event FOR EACH ROW EXECUTE FUNCTION spoil();
SELECT es_append('a-1', 'Deposited', '{"amount": 5}');
DROP TRIGGER spoil ON es_event;

-- Versions: the newest is written, an INSERT may name another.
SELECT es_create_event_type('Deposited', 2, $$event.data ? 'currency' AND event.type_version = 2$$);
SELECT es_append('a-1', 'Deposited', '{"amount": 5}');
SELECT es_append('a-1', 'Deposited', '{"currency": "EUR"}');
INSERT INTO es_event (stream_id, event_type, type_version, data) VALUES ('a-1', 'Deposited', 1, '{"amount": 9}') RETURNING version, type_version;
INSERT INTO es_event (stream_id, event_type, type_version, data) VALUES ('a-1', 'Deposited', 3, '{}');
SELECT es_create_event_type('Deposited', 2);
SELECT es_create_event_type('Deposited', 2, if_not_exists => true);
SELECT es_drop_event_type('Deposited', 2);
SELECT es_append('a-1', 'Deposited', '{"amount": 5}');
SELECT es_drop_event_type('Deposited', 2);
SELECT es_drop_event_type('Deposited', 2, if_exists => true);
BEGIN;
SELECT es_drop_event_type('Deposited');
SELECT es_append('a-1', 'Deposited', '{"amount": 0}') > 0 AS free;
ROLLBACK;
SELECT es_append('a-1', 'Deposited', '{"amount": 0}');

-- Definitions that cannot be.
SELECT n, try(format('SELECT es_create_event_type(%s)', call)) FROM (VALUES (1, 'NULL'), (2, '''E'', NULL'), (3, '''E'', 0'), (4, '''$e'''), (5, ''''''),
	(6, '''E'', check_expression => ''event.dta IS NULL'''), (7, '''E'', check_expression => ''event.data'''), (8, '''E'', check_expression => ''random() > 0.5'''),
	(9, '''E'', check_expression => ''event.position > 0'''), (10, '''E'', check_expression => ''(SELECT true)'''), (11, '''E'', check_expression => ''event.version > 0 AND event.data IS NULL'''),
	(12, '''E'', tags => ''{"a:{"}'''), (13, '''E'', tags => ''{"a:{}"}'''), (14, '''E'', tags => ''{"{a..b}"}'''), (15, '''E'', tags => ''{""}'''), (16, '''E'', tags => ''{NULL}'''), (17, '''E'', check_expression => ''''')) v(n, call) ORDER BY n;
SELECT es_create_event_type('E', check_expression => 'event.data > 1');
SELECT event_type, version, check_expression, tags, owner = current_user::regrole AS mine FROM es_event_type ORDER BY 1, 2;
-- A check over the whole event, with a function of one's own.
CREATE FUNCTION whole(e es_event) RETURNS boolean LANGUAGE plpgsql STABLE AS $$ BEGIN
	RETURN e.position IS NULL AND e.stream_id = 'w-1' AND e.data = '1' AND e.metadata = '{"m": 1}' AND e.tags = '{x}';
END $$;
SELECT es_create_event_type('Whole', check_expression => 'whole(event)');
SELECT es_append('w-1', 'Whole', '1', metadata => '{"m": 1}', tags => '{x}'), try($$SELECT es_append('w-1', 'Whole', '2', metadata => '{"m": 1}', tags => '{x}')$$);
-- A function that appends while it checks, declared stable though it is not; and one that changes the declarations.
CREATE FUNCTION appends(n int) RETURNS boolean LANGUAGE plpgsql STABLE AS $$ BEGIN
	IF n > 0 THEN PERFORM es_append('nested-' || n, 'Nested', to_jsonb(n - 1)); END IF;
	IF n = 2 THEN PERFORM es_drop_event_type('Whole', if_exists => true); END IF;
	RETURN n < 4;
END $$;
SELECT es_create_event_type('Nested', check_expression => 'appends(event.data::int) AND event.data::int < 5');
SELECT try($$SELECT es_append('nested-9', 'Nested', '1')$$), try($$SELECT es_append('nested-9', 'Nested', '4')$$);
SELECT stream_id, data FROM es_event WHERE event_type = 'Nested' ORDER BY position;

-- Tags from templates: scalars, arrays, paths, products; what is missing gives none.
SELECT es_create_event_type('Enrolled', tags => ARRAY['course:{courseId}', 'student:{student.id}', 'seat:{room}/{seats}', 'all', '{{x}']);
SELECT data, es_append('e-1', 'Enrolled', data, tags => '{zz,all}') FROM (VALUES ('{"courseId": 7, "student": {"id": "s1"}, "room": "r", "seats": [1, 2, null, {}, true]}'::jsonb),
	('{"courseId": ["b", "a", "a"], "student": "s1"}'), ('{"courseId": null, "student": {"id": {"x": 1}}}'), ('[]'), ('1')) v(data);
SELECT version, tags FROM es_read_stream('e-1');
INSERT INTO es_event (stream_id, event_type, data) VALUES ('e-1', 'Enrolled', '{"courseId": true}') RETURNING tags;
SELECT es_append_batch('e-1', '{Enrolled,Other}', '{"{\"courseId\": 1.50}","{}"}');
SELECT tags FROM es_read_stream('e-1', 6);
SELECT try(format('SELECT es_append(''e-1'', ''Enrolled'', %L)', d)) FROM (VALUES (jsonb_build_object('courseId', repeat('x', 249))), (jsonb_build_object('courseId', E'a\tb')),
	(jsonb_build_object('courseId', (SELECT jsonb_agg(n) FROM generate_series(1, 65) n)))) v(d);

-- In whose name.
CREATE ROLE regress_es_admin;
CREATE ROLE regress_es_writer;
SELECT es_grant('regress_es_admin', 'admin'), es_grant('regress_es_writer', 'writer');
CREATE FUNCTION who(x jsonb) RETURNS boolean LANGUAGE plpgsql STABLE AS $$ BEGIN RAISE NOTICE 'checked as %', current_user; RETURN true; END $$;
REVOKE ALL ON FUNCTION who FROM PUBLIC;
GRANT EXECUTE ON FUNCTION who TO regress_es_admin;
SET ROLE regress_es_admin;
SELECT es_create_event_type('Seen', check_expression => 'who(event.data)');
SELECT es_drop_event_type('Enrolled');
INSERT INTO es_event_type VALUES ('Forged', 1, 'true', NULL, (SELECT owner FROM es_event_type WHERE event_type = 'Enrolled'), '');
SET ROLE regress_es_writer;
SELECT es_append('s-1', 'Seen', '{}');
SELECT es_create_event_type('Mine');
SET eventstore.require_types = on;
RESET ROLE;
-- Undeclared types can be refused.
SET eventstore.require_types = on;
SELECT es_append('s-1', 'Unheard', '{}');
SELECT try($$INSERT INTO es_event (stream_id, event_type, data) VALUES ('s-1', 'Unheard', '{}')$$), es_append('s-1', 'Enrolled', '{}');
RESET eventstore.require_types;
DROP OWNED BY regress_es_admin, regress_es_writer;
DROP ROLE regress_es_admin, regress_es_writer;
SELECT es_append('s-1', 'Seen', '{}');
TRUNCATE es_event_type;
SELECT es_append('s-1', 'Seen', '{}');
SELECT check_name, detail FROM es_check() WHERE status <> 'ok';
DROP FUNCTION try(text), whole(es_event), appends(int), who(jsonb), spoil();
DROP EXTENSION eventstore;
