-- What sqlsmith is let loose on: a store with something of everything in it, a
-- role of each level, and values that the functions can do something with.
--
-- sqlsmith takes what pg_proc lists for callable, without the set-returning
-- functions and procedures.  So there is a pg_proc of its own, first in its
-- search_path: our functions, a wrapper for each of those that it would leave
-- out, and a few of the server's.
\set ON_ERROR_STOP 1
CREATE EXTENSION eventstore;

CREATE ROLE smith_reader LOGIN;
CREATE ROLE smith_writer LOGIN;
CREATE ROLE smith_admin LOGIN;
CREATE ROLE smith_root LOGIN SUPERUSER;
CREATE FUNCTION word_count(jsonb) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT length($1 ->> 'word') $$;
SELECT es_create_event_type('Checked', check_expression => '(event.data ->> ''n'')::int > 0', tags => ARRAY['n:{n}']);
SELECT es_create_event_type('Grown', 2);
SELECT es_upcast('Grown', 1, 'event.data || ''{"grown": true}''');
CREATE TABLE smith_inline (stream_id text PRIMARY KEY, n bigint);
CREATE TABLE smith_async (position bigint PRIMARY KEY, words int);
SELECT es_create_projection('inline', 'inline', '{smith_inline}');
SELECT es_on('inline', 'A', 'INSERT INTO smith_inline VALUES (event.stream_id, 1) ON CONFLICT (stream_id) DO UPDATE SET n = smith_inline.n + 1');
SELECT es_create_projection('async', 'async', '{smith_async}', on_error => 'skip');
SELECT es_on('async', 'A', 'INSERT INTO smith_async VALUES (event.position, word_count(event.data))');
SELECT es_create_aggregate('s', 's', initial_state => '0', state_type => 'bigint', snapshot_every => 5);
SELECT es_evolve('s', 'A', 'state + 1');
SELECT es_decide('s', 'Go', 'SELECT ''A'', ''{"word": "gone"}''::jsonb', 'CASE WHEN state > 1000000 THEN ''enough'' END');
SELECT es_create_subscription('sub', partitions => 2);
CREATE TABLE smith_tracked (id int PRIMARY KEY, word text);
SELECT es_track_table('smith_tracked');
INSERT INTO smith_tracked SELECT i, 'w' || i FROM generate_series(1, 10) i;
SELECT count(es_append('s-' || i % 7, (ARRAY['A', 'Checked', 'Grown'])[1 + i % 3], jsonb_build_object('n', i, 'word', 'w' || i), tags => ARRAY['t:' || i % 5]))
	FROM generate_series(1, 300) i;
SELECT es_truncate_stream('s-3', 4), es_delete_stream('s-4'), es_tombstone_stream('s-5');
SELECT position FROM es_event ORDER BY position OFFSET 100 LIMIT 1 \gset
CALL es_archive(:position, segment_events => 40);
CALL es_run_projections();
SELECT es_settle();

CREATE SCHEMA smith;

-- Values by kind of argument; sqlsmith puts columns where their type fits.
CREATE TABLE smith.value_1 AS SELECT 's-1' AS stream_id, 's' AS category, 'A' AS event_type, 'async' AS projection, 'sub' AS subscription,
	'c1' AS consumer, 'Go' AS command, '{"n": 1, "word": "w"}'::jsonb AS data, '{"items": [{"types": ["A"], "tags": ["t:1"]}]}'::jsonb AS query,
	'[{"type": "A", "data": {"n": 1}, "stream": "b-1"}]'::jsonb AS events, '{t:1}'::text[] AS tags, '{A,Grown}'::text[] AS event_types,
	'{"{}","{\"n\": 2}"}'::jsonb[] AS datas, 0::bigint AS zero, -1::bigint AS any_version, 10::bigint AS ten, 3 AS three, true AS yes,
	'10 ms'::interval AS moment, gen_random_uuid() AS id, ARRAY[gen_random_uuid()] AS ids, 'smith_tracked'::regclass AS tracked,
	'{smith_async}'::regclass[] AS tables, 'smith_reader'::regrole AS role, 'bigint'::regtype AS type, now() AS at;
CREATE TABLE smith.value_2 AS SELECT 'inline' AS mode, 'skip' AS on_error, 'park_stream' AS on_error_2, 'state + 1' AS expression,
	'SELECT ''A'', ''{}''::jsonb' AS decide, 'INSERT INTO smith_async VALUES (event.position, 1)' AS handler, 'event.data' AS upcaster, 'reader' AS level,
	'' AS empty, 'null'::jsonb AS json_null, '{"id": "x", "source": "/s", "type": "A", "specversion": "1.0", "data": {}}'::jsonb AS cloudevent,
	'{"items": [{"tags": ["{data.n}"]}]}'::jsonb AS template, -2::bigint AS exists_, 9223372036854775807 AS most, '-1 day'::interval AS back,
	NULL::text AS none, NULL::bigint AS no_number, NULL::jsonb AS no_data, NULL::timestamptz AS never, '$all' AS reserved, false AS no;
CREATE TABLE smith.value_3 AS SELECT es_export_segment(1) AS file, 1::bigint AS segment;

-- What sqlsmith leaves out, wrapped.
DO $$
DECLARE
	f record;
BEGIN
	FOR f IN
		SELECT p.proname, format('public.%I', p.proname) AS name, p.prokind,
				array_to_string(p.proargtypes::regtype[], ', ') AS types,
				(SELECT string_agg('$' || i, ', ') FROM generate_series(1, p.pronargs) i) AS arguments
			FROM pg_catalog.pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
				JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'eventstore'
			WHERE p.proretset OR p.prokind = 'p' OR p.prorettype = 'record'::regtype
	LOOP
		EXECUTE CASE f.prokind WHEN 'p'
			THEN format('CREATE OR REPLACE FUNCTION smith.%I(%s) RETURNS bigint LANGUAGE plpgsql AS %L', f.proname, f.types,
				format('BEGIN CALL %s(%s); RETURN 1; END', f.name, f.arguments))
			ELSE format('CREATE OR REPLACE FUNCTION smith.%I(%s) RETURNS bigint LANGUAGE sql AS %L', f.proname, f.types,
				format('SELECT count(*) FROM (SELECT * FROM %s(%s)) f', f.name, f.arguments)) END;
	END LOOP;
END $$;

CREATE VIEW smith.pg_proc AS
	SELECT p.* FROM pg_catalog.pg_proc p
	WHERE p.pronamespace = 'smith'::regnamespace
		OR EXISTS (SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'eventstore'
			WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
			AND NOT p.proretset AND p.prokind = 'f' AND p.prorettype <> 'record'::regtype AND p.prorettype <> 'trigger'::regtype)
		OR p.pronamespace = 'pg_catalog'::regnamespace AND p.provolatile = 'i' AND p.oid < 10000::oid
			AND p.proname !~ '(in|out|recv|send|sel|support|handler)$' AND (p.prokind <> 'f' OR p.oid::int % 23 = 0);

SELECT es_grant('smith_reader', 'reader'), es_grant('smith_writer', 'writer'), es_grant('smith_admin', 'admin');
GRANT ALL ON smith_inline, smith_async, smith_tracked TO smith_writer, smith_admin;
GRANT USAGE ON SCHEMA smith TO PUBLIC;
GRANT SELECT ON ALL TABLES IN SCHEMA smith TO PUBLIC;
GRANT CREATE ON DATABASE postgres TO smith_admin;
GRANT CREATE ON SCHEMA public TO smith_admin;
ALTER ROLE smith_reader SET search_path = smith, public, pg_catalog;
ALTER ROLE smith_writer SET search_path = smith, public, pg_catalog;
ALTER ROLE smith_admin SET search_path = smith, public, pg_catalog;
ALTER ROLE smith_root SET search_path = smith, public, pg_catalog;
