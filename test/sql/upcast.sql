-- upcast: stored events shown in the newest form of their type
\set SHOW_CONTEXT never
CREATE EXTENSION eventstore;
CREATE FUNCTION try(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE answer text;
BEGIN
	EXECUTE query INTO answer;
	RETURN answer;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ' ' || SQLERRM;
END $$;
SELECT es_create_event_type('Paid');
SELECT es_append('p-1', 'Paid', '{"amount": "5"}');
SELECT es_create_event_type('Paid', 2);
SELECT es_append('p-1', 'Paid', '{"cents": 700}');
SELECT es_append('p-1', 'Other', '{"amount": "9"}');

-- The chain, through every reader; what is stored stays.
SELECT es_upcast('Paid', 1, $$jsonb_build_object('cents', (event.data ->> 'amount')::int * 100)$$);
SELECT version, event_type, type_version, data FROM es_read_stream('p-1');
SELECT es_upcast('Paid', 2, $$event.data || jsonb_build_object('of', event.stream_id, 'was', event.type_version, 'e', (event).version)$$, new_type => 'Settled');
SELECT version, event_type, type_version, data FROM es_read_stream('p-1');
SELECT version, event_type, type_version, data FROM es_read_stream('p-1', backwards => true, max_count => 2);
SELECT version, event_type, type_version, data FROM es_read_stream('p-1', raw => true);
SELECT version, event_type, type_version, data FROM es_read_all();
SELECT version, event_type, type_version, data FROM es_read_all(raw => true);
SELECT version, event_type, type_version, data FROM es_event ORDER BY position;
-- A filter looks at what is shown.
SELECT count(*) FROM es_read_all(event_types => '{Settled}');
SELECT count(*) FROM es_read_all(event_types => '{Paid}');
SELECT count(*) FROM es_read_all(event_types => '{Paid}', raw => true);

-- Folds know the newest form only; snapshots of before do not count.
SELECT es_create_aggregate('p', initial_state => '0', state_type => 'bigint', snapshot_every => 1);
SELECT es_evolve('p', 'Settled', $$state + (event.data ->> 'cents')::bigint$$);
SELECT es_decide('p', 'Tell', 'SELECT ''Told'', to_jsonb(state)');
SELECT * FROM es_state('p-1');
SELECT version, event_type, data, state FROM es_history('p-1');
SELECT es_take_snapshot('p-1');
SELECT es_upcast('Paid', 1, $$jsonb_build_object('cents', (event.data ->> 'amount')::int)$$);
SELECT * FROM es_state('p-1');
SELECT es_handle('p-1', 'Tell');
SELECT data FROM es_read_stream('p-1', 3);
SELECT es_drop_upcaster('Paid', 2);
SELECT state FROM es_state('p-1');
BEGIN;
SELECT es_drop_upcaster('Paid', 1);
SELECT data FROM es_read_stream('p-1', max_count => 1);
ROLLBACK;
SELECT data FROM es_read_stream('p-1', max_count => 1);

-- Definitions that cannot be; stored samples find what the parser cannot.
SELECT es_append('b-1', 'Bad', '{"n": "x"}');
SELECT n, try(format('SELECT es_upcast(%s)', call)) FROM (VALUES (1, '''Bad'', 1, ''jsonb_build_object(''''n'''', (event.data ->> ''''n'''')::int)'''), (2, '''Bad'', 1, ''event.dta'''), (3, '''Bad'', 1, ''1'''),
	(4, '''Bad'', 0, ''event.data'''), (5, '''Bad'', 1, ''NULL::jsonb'''), (6, '''Bad'', 1, ''to_jsonb(random())'''), (7, 'NULL, 1, ''event.data'''), (8, '''Bad'', 1, NULL'), (9, '''Bad'', 1, ''event.data'', ''$x'''),
	(10, '''Bad'', 2147483647, ''event.data'''), (11, '''None'', 1, ''to_jsonb((event.data ->> 0)::int)''')) v(n, call) ORDER BY n;
SELECT data FROM es_read_stream('b-1');
SELECT es_drop_upcaster('Bad', 1);
SELECT es_drop_upcaster('Bad', 1, if_exists => true);

-- In whose name; a reader needs no rights on what the expression uses.
CREATE ROLE regress_es_admin;
CREATE ROLE regress_es_reader;
SELECT es_grant('regress_es_admin', 'admin'), es_grant('regress_es_reader', 'reader');
CREATE FUNCTION who(x jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN to_jsonb(current_user::text); END $$;
REVOKE ALL ON FUNCTION who FROM PUBLIC;
GRANT EXECUTE ON FUNCTION who TO regress_es_admin;
SET ROLE regress_es_admin;
SELECT es_upcast('Bad', 1, 'who(event.data)');
SELECT es_upcast('Paid', 1, 'who(event.data)');
SET ROLE regress_es_reader;
SELECT data, current_user FROM es_read_stream('b-1');
SELECT data, current_user FROM es_read_all(category => 'b');
SELECT es_upcast('Other', 1, 'event.data');
RESET ROLE;
-- A definition that goes while a reader runs: a function of the expression drops it.
CREATE FUNCTION drops(e es_event) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$ BEGIN
	PERFORM es_drop_upcaster('Drop', 1, if_exists => true);
	RETURN to_jsonb((SELECT count(*) FROM es_read_stream('d-1') r WHERE r.type_version = 1) + e.version);
END $$;
SET client_min_messages = warning;
SELECT es_upcast('Drop', 1, 'drops(event)');
SELECT es_append_batch('d-1', '{Drop,Drop,Drop}', '{1,2,3}');
SELECT type_version, data FROM es_read_stream('d-1');
SELECT type_version, data FROM es_read_stream('d-1');
RESET client_min_messages;
DROP OWNED BY regress_es_admin, regress_es_reader;
DROP ROLE regress_es_admin, regress_es_reader;
DROP FUNCTION try(text), drops(es_event), who(jsonb);
DROP EXTENSION eventstore;
