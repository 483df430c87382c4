-- hijack: names that an attacker puts in front of the server's or the store's
-- own.  Every function is called with a hostile search_path, as superuser.
CREATE SCHEMA es;
CREATE SCHEMA hostile;
CREATE EXTENSION eventstore SCHEMA es;

-- The alarm rings even where the transaction is rolled back.
CREATE SEQUENCE hostile.alarm;
CREATE FUNCTION hostile.ring(what text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	RAISE WARNING 'hijacked: %', what;
	RETURN pg_catalog.nextval('hostile.alarm') OPERATOR(pg_catalog.>) 0;
END $$;

-- All operators, answering as the real ones do, and all functions.
CREATE FUNCTION hostile.set_traps() RETURNS TABLE (operators bigint, functions bigint) LANGUAGE plpgsql AS $$
DECLARE o record;
BEGIN
	operators := 0;
	functions := 0;
	FOR o IN SELECT p.oid, oprname, oprleft::regtype::text AS l, oprright::regtype::text AS r, oprresult::regtype::text AS result
		FROM pg_operator p WHERE oprkind = 'b' AND oprnamespace = 'pg_catalog'::regnamespace
	LOOP
		BEGIN
			EXECUTE format('CREATE FUNCTION hostile.operator_%s(l %s, r %s) RETURNS %s LANGUAGE plpgsql AS %L', o.oid, o.l, o.r, o.result,
				format('BEGIN PERFORM hostile.ring(%L); RETURN l OPERATOR(pg_catalog.%s) r; END', o.oid::regoperator, o.oprname));
			EXECUTE format('CREATE OPERATOR hostile.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = hostile.operator_%s)', o.oprname, o.l, o.r, o.oid);
			operators := operators + 1;
		EXCEPTION WHEN OTHERS THEN	-- of types that cannot be arguments
		END;
	END LOOP;
	FOR o IN SELECT p.oid, proname, proargtypes, pg_get_function_identity_arguments(p.oid) AS args, pg_get_function_result(p.oid) AS result
		FROM pg_proc p WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f' AND NOT proretset AND provariadic = 0
	LOOP
		BEGIN
			EXECUTE format('CREATE FUNCTION hostile.%I(%s) RETURNS %s LANGUAGE plpgsql AS %L', o.proname, o.args, o.result,
				format('BEGIN PERFORM hostile.ring(%L); RETURN NULL; END', o.oid::regprocedure));
			functions := functions + 1;
		EXCEPTION WHEN OTHERS THEN
		END;
	END LOOP;
	RETURN NEXT;
END $$;
SET client_min_messages = error;
SELECT operators > 700 AS operators, functions > 1800 AS functions FROM hostile.set_traps();
RESET client_min_messages;
-- Types, and tables where names are looked for first of all.
SELECT format('CREATE DOMAIN hostile.%I AS pg_catalog.%I CHECK (hostile.ring(%L))', t, t, t) FROM unnest('{text,int8,int4,bool,uuid,jsonb,timestamptz,interval,oid,regclass,regrole,name}'::text[]) t \gexec
DO $$
DECLARE name text;
BEGIN
	FOR name IN SELECT relname FROM pg_catalog.pg_class WHERE relkind IN ('r', 'v')
		AND (relnamespace = 'es'::regnamespace OR relname IN ('pg_class', 'pg_proc', 'pg_namespace', 'pg_extension', 'pg_roles', 'pg_depend', 'pg_locks', 'pg_type'))
	LOOP
		EXECUTE format('CREATE TEMP TABLE %I (no int)', name);
	END LOOP;
END $$;

-- What users define, they define with a path of their own.
CREATE TABLE public.total (id text PRIMARY KEY, amount numeric NOT NULL);
CREATE TABLE public.counted (LIKE public.total INCLUDING ALL);
SET search_path = public;
SELECT es.es_create_aggregate('account', initial_state => '{"balance": 0}', snapshot_every => 2);
SELECT es.es_evolve('account', 'Deposited', $$ jsonb_build_object('balance', (state ->> 'balance')::numeric + (event.data ->> 'amount')::numeric) $$);
SELECT es.es_decide('account', 'Deposit', $$ SELECT 'Deposited', jsonb_build_object('amount', (command ->> 'amount')::numeric) $$, $$ CASE WHEN (command ->> 'amount')::numeric <= 0 THEN 'no amount' END $$);
SELECT es.es_create_event_type('Deposited', check_expression => $$ (event.data ->> 'amount')::numeric > 0 $$, tags => ARRAY['amount:{amount}']);
SELECT es.es_upcast('Old', 1, $$ jsonb_build_object('amount', event.data -> 'sum') $$, 'Deposited');
SELECT es.es_create_projection('totals', 'inline', '{total}');
SELECT es.es_on('totals', 'Deposited', 'INSERT INTO total VALUES (event.stream_id, (event.data ->> ''amount'')::numeric) ON CONFLICT (id) DO UPDATE SET amount = total.amount + EXCLUDED.amount');
SELECT es.es_create_projection('later', 'async', '{counted}');
SELECT es.es_on_batch('later', 'INSERT INTO counted SELECT stream_id, count(*) FROM new_events GROUP BY 1 ON CONFLICT (id) DO UPDATE SET amount = counted.amount + EXCLUDED.amount');

\o /dev/null
SET search_path = hostile, pg_temp, es, pg_catalog;
SELECT es.es_append('account-1', 'Deposited', '{"amount": 1}', -1, '{"m": 1}', '00000000-0000-4000-8000-000000000001', '{a}');
SELECT es.es_append('account-1', 'Deposited', '{"amount": 1}', event_id => '00000000-0000-4000-8000-000000000001');
SELECT es.es_append_batch('account-1', '{Deposited,Old}', '{"{\"amount\": 1}","{\"sum\": 2}"}', 1);
SELECT es.es_append_if('[{"type": "Deposited", "stream": "account-3", "data": {"amount": 5}, "tags": ["b"]}]', '{"items": [{"types": ["T"], "tags": ["b"]}]}', 0);
SELECT * FROM es.es_try_append_if('[{"type": "Deposited", "stream": "account-3", "data": {"amount": 5}, "tags": ["b"]}]', '{"items": [{"tags": ["b"]}]}');
INSERT INTO es.es_event (stream_id, event_type, data) VALUES ('account-2', 'Deposited', '{"amount": 3}');
SELECT es.es_handle('account-1', 'Deposit', '{"amount": 7}', '00000000-0000-4000-8000-000000000002');
SELECT * FROM es.es_decide_dry('account-1', 'Deposit', '{"amount": 0}');
SELECT * FROM es.es_read_stream('account-1', 1, 10, true);
SELECT * FROM es.es_read_all(0, 10, '{Deposited}', 'account');
SELECT * FROM es.es_read('{"items": [{"tags": ["b"]}]}');
SELECT * FROM es.es_read_boundary('{}');
SELECT * FROM es.es_state('account-1');
SELECT * FROM es.es_state('account-1', 2, aggregate => 'account');
SELECT * FROM es.es_history('account-1');
SELECT * FROM es.es_store();
SELECT es.es_settle();
SELECT es.es_settled_position(), es.es_last_position(), es.es_stream_version('account-1'), es.es_category('account-1'), es.es_position_at('2100-01-01');
SELECT * FROM es.es_stream_list();
SELECT es.es_set_stream('account-2', max_count => 3);
SELECT es.es_truncate_stream('account-2', 1);
SELECT es.es_delete_stream('account-2');
SELECT es.es_undelete_stream('account-2');
SELECT es.es_create_aggregate('room', initial_state => '0', state_type => 'bigint', boundary => '{"items": [{"tags": ["amount:{amount}"]}]}');
SELECT es.es_evolve('room', 'Deposited', 'state OPERATOR(pg_catalog.+) 1');
SELECT * FROM es.es_boundary_state('room', '{"amount": 5}');
SELECT * FROM es.es_boundary_history('room', '{"amount": 5}');
SELECT es.es_tombstone_stream('account-9');
SELECT es.es_track_table('public.total');
INSERT INTO public.total VALUES ('t', 1);
SELECT es.es_untrack_table('public.total');
SELECT es.es_retag('{"items": [{"tags": ["b"]}]}', '{c}', '{b}');
SELECT es.es_save_snapshot('account-1', 1, '{"balance": 1}', 'mine');
SELECT * FROM es.es_load_snapshot('account-1', 'mine');
SELECT es.es_take_snapshot('account-1');
SELECT es.es_take_snapshots();
SELECT es.es_replay_parked('later');
CALL es.es_run_projections();
SELECT es.es_wait_for('later', 1);
CALL es.es_rebuild_projection('totals');
CALL es.es_rebuild_projection('later');
SELECT es.es_project_at('totals', "position" => 3);
SELECT es.es_pause_projection('later');
SELECT es.es_resume_projection('later');
SELECT * FROM es.es_stat_projection;
SELECT * FROM es.es_progress;
SELECT es.es_test('account', '[]', 'Deposit', '{"amount": 1}', '[{"type": "Deposited", "data": {"amount": 1}}]');
SELECT es.es_grant('pg_monitor', 'reader');
SELECT es.es_upcast('Older', 1, $$ event.data $$);
SELECT es.es_drop_upcaster('Older', 1);
SELECT es.es_create_event_type('Other');
SELECT es.es_drop_event_type('Other');
SELECT es.es_drop_handler('later', NULL);
SELECT es.es_drop_projection('later');
SELECT es.es_drop_decider('account', 'Deposit');
SELECT es.es_drop_evolver('account', 'Deposited');
SELECT es.es_drop_aggregate('account');
\o
SELECT check_name, status, detail FROM es.es_check() WHERE status OPERATOR(pg_catalog.<>) 'ok';
SET search_path = public;
SELECT last_value, is_called FROM hostile.alarm;
-- It would have been heard.
SET search_path = hostile, pg_catalog;
SELECT 1 OPERATOR(hostile.+) 1;
SET search_path = public;
SELECT is_called FROM hostile.alarm;
SELECT id, total.amount, counted.amount AS events FROM public.total FULL JOIN counted USING (id) ORDER BY id;

-- What is there before the extension is not made part of it.
-- (18 tells the line of the script.)
\set SHOW_CONTEXT never
DROP EXTENSION eventstore CASCADE;
CREATE FUNCTION es.es_append(stream_id text, event_type text, data jsonb, expected_version bigint DEFAULT -1, metadata jsonb DEFAULT NULL,
	event_id uuid DEFAULT NULL, tags text[] DEFAULT NULL) RETURNS bigint LANGUAGE sql AS 'SELECT 666::bigint';
CREATE EXTENSION eventstore SCHEMA es;
DROP SCHEMA es CASCADE;
CREATE SCHEMA es;
CREATE TABLE es.es_stream (stream_id text);
CREATE EXTENSION eventstore SCHEMA es;

SET client_min_messages = error;
DROP SCHEMA es, hostile CASCADE;
DROP TABLE public.total, public.counted;
DISCARD TEMP;
