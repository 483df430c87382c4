-- upcast_fold: what states and errors know of upcasters
\set VERBOSITY default
CREATE EXTENSION eventstore;
SET timezone = 'UTC';
SELECT es_create_aggregate('s', initial_state => '0', state_type => 'bigint', snapshot_every => 1);
SELECT es_evolve('s', 'Added', 'state + (event.data)::bigint');
SELECT es_append_batch('s-1', '{Added,Plus,Added,Noted}', '{1,2,3,4}');
SELECT es_create_aggregate('o', category => 's', initial_state => '0', state_type => 'bigint', snapshot_every => 1);
SELECT es_evolve('o', 'Noted', 'state + 1');

-- A snapshot is worth what the upcasters of its events are: their text, the
-- type they lead to, the functions they call, the settings they depend on.
CREATE FUNCTION more(d jsonb) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN to_jsonb(d::bigint * 10); END $$;
CREATE FUNCTION states() RETURNS TABLE (of_s jsonb, of_o jsonb) LANGUAGE sql AS $$
	SELECT (SELECT state FROM es_state('s-1', aggregate => 's')), (SELECT state FROM es_state('s-1', aggregate => 'o'))
$$;
-- A snapshot that is used is told from one that is not by a state that no fold gives.
CREATE FUNCTION spoil() RETURNS void LANGUAGE sql AS $$
	SELECT es_take_snapshot('s-1', 's'), es_take_snapshot('s-1', 'o'); UPDATE es_snapshot SET state_text = '-1'
$$;
SELECT spoil();
SELECT * FROM states();
SELECT es_upcast('Added', 1, 'more(event.data)');
SELECT * FROM states();
SELECT spoil();
SELECT * FROM states();
CREATE OR REPLACE FUNCTION more(d jsonb) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN to_jsonb(d::bigint * 100); END $$;
SELECT * FROM states();
SELECT spoil();
SELECT es_upcast('Plus', 1, 'event.data', 'Added');
SELECT * FROM states();
SELECT spoil();
SELECT es_upcast('Other', 1, 'event.data');
SELECT * FROM states();
SELECT es_drop_upcaster('Added', 1), es_drop_upcaster('Plus', 1), es_drop_upcaster('Other', 1);
SELECT * FROM states();
SELECT spoil();
SELECT es_upcast('Added', 1, 'event.data', 'Ignored');
SELECT * FROM states();
SELECT es_drop_upcaster('Added', 1);
SELECT * FROM states();
SELECT es_upcast('Added', 1, $$to_jsonb(extract(hour FROM '2024-01-01 12:00Z'::timestamptz))$$);
SELECT spoil();
SELECT * FROM states();
SET timezone = 'Asia/Tokyo';
SELECT * FROM states();
RESET timezone;
SET timezone = 'UTC';
SELECT * FROM states();
SELECT es_drop_upcaster('Added', 1);
-- The same of the states that a session keeps.
DELETE FROM es_snapshot;
SELECT es_decide('s', 'Tell', 'SELECT ''Told'', to_jsonb(state)');
SELECT es_upcast('Added', 1, 'more(event.data)');
SELECT es_handle('s-1', 'Tell', aggregate => 's'), es_handle('s-1', 'Tell', aggregate => 's');
CREATE OR REPLACE FUNCTION more(d jsonb) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN to_jsonb(d::bigint * 1000); END $$;
SELECT es_handle('s-1', 'Tell', aggregate => 's');
SELECT version, data FROM es_read_stream('s-1') WHERE event_type = 'Told';

-- A failing upcaster fails who depends on it, and nobody else; the error says
-- which upcaster and which event.
SELECT es_append_batch('s-2', '{Noted,Added}', '{1,"\"x\""}');
SELECT data FROM es_read_stream('s-2');
SELECT * FROM es_state('s-2', aggregate => 's');
SELECT * FROM es_state('s-2', aggregate => 'o');
SELECT * FROM es_history('s-2', aggregate => 'o');
SELECT es_drop_upcaster('Added', 1);
SELECT es_upcast('Added', 1, 'CASE WHEN event.version = 2 THEN NULL ELSE event.data END');
CREATE FUNCTION gone(d jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS 'SELECT d';
SELECT es_upcast('Added', 1, 'gone(event.data)');
DROP FUNCTION gone(jsonb);
SELECT * FROM es_state('s-2', aggregate => 's');
SELECT * FROM es_state('s-2', aggregate => 'o');
SELECT es_drop_upcaster('Added', 1);

-- An upcaster is tried on events that come to it by the chain, whatever type
-- they were stored under.
SELECT es_upcast('Noted', 1, '''"y"''', 'Remarked');
SELECT es_upcast('Remarked', 2, '(event.data ->> 0)::jsonb');
SELECT es_upcast('Remarked', 2, 'jsonb_build_object(''note'', event.data)');
SELECT event_type, type_version, data FROM es_read_stream('s-2', max_count => 1);
SELECT es_drop_upcaster('Noted', 1), es_drop_upcaster('Remarked', 2);

-- A check that fails by itself says which it is.
SELECT es_create_event_type('Checked', 3, check_expression => '(event.data ->> ''n'')::int > 0');
SELECT es_append('c-1', 'Checked', '{"n": "x"}');
-- Templates do not multiply without end.
SELECT es_create_event_type('Product', tags => '{"{a}{b}{c}"}');
SELECT es_append('c-1', 'Product', jsonb_build_object('a', a, 'b', a, 'c', a)) FROM (SELECT jsonb_agg(n % 2) FROM generate_series(1, 1000) n) t(a);
SELECT es_append('c-1', 'Product', jsonb_build_object('a', a, 'b', a, 'c', a)) FROM (SELECT jsonb_agg(n % 2) FROM generate_series(1, 20) n) t(a);
SELECT tags FROM es_read_stream('c-1');
DROP FUNCTION states(), spoil(), more(jsonb);
DROP EXTENSION eventstore;
