-- read: es_read_stream and es_read_all
CREATE EXTENSION eventstore;
CREATE FUNCTION try(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE answer text;
BEGIN
	EXECUTE query INTO answer;
	RETURN answer;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ' ' || SQLERRM;
END $$;

-- Nothing there yet.
SELECT count(*) FROM es_read_all();
SELECT count(*) FROM es_read_stream('a-1');

-- Positions 1 to 12: streams a-1, b-1 and a-2 in turn, types T0 to T3.
SELECT count(es_append((ARRAY['b-1', 'a-2', 'a-1'])[1 + n % 3], 'T' || n % 4, to_jsonb(n), metadata => '{"m": 1}', tags => ARRAY['x'])) FROM generate_series(2, 13) n;
-- The rows are es_event's.
SELECT count(*) FROM es_event e JOIN es_read_all() r ON e = r;
SELECT pg_typeof(r), pg_typeof(r.data), pg_typeof(r.recorded_at) FROM es_read_all(0, 1) r;

-- es_read_stream: every combination of arguments.
CREATE FUNCTION versions(text, bigint, bigint, boolean) RETURNS text LANGUAGE sql AS
	$$ SELECT string_agg(version::text, ' ') FROM es_read_stream($1, $2, $3, $4) $$;
SELECT f AS from_version, versions('a-1', f, NULL, false) AS forward, versions('a-1', f, NULL, true) AS backwards,
		versions('a-1', f, 2, false) AS two, versions('a-1', f, 2, true) AS two_backwards
	FROM unnest(ARRAY[0, 1, 2, 3, 4, 5, 9223372036854775807, NULL]) f;
SELECT m AS max_count, versions('a-1', 1, m, false) AS forward, versions('a-1', 4, m, true) AS backwards FROM unnest(ARRAY[0, 1, 100, 9223372036854775807, NULL]) m;
SELECT versions('a-1', 0, NULL, NULL), versions('a-', 0, NULL, false), versions('A-1', 0, NULL, false), versions('', 0, NULL, false);
SELECT version, data FROM es_read_stream(stream_id => 'a-1', max_count => 1, backwards => true);
SELECT try('SELECT count(*) FROM es_read_stream(' || a || ')') FROM unnest(ARRAY['NULL', '''a-1'', -1', '''a-1'', 0, -1', '''a-1'', -9223372036854775808, NULL, true']) a;

-- es_read_all: every combination of arguments.
CREATE FUNCTION positions(bigint, bigint, text[], text) RETURNS text LANGUAGE sql AS
	$$ SELECT string_agg(position::text, ' ') FROM es_read_all($1, $2, $3, $4) $$;
SELECT f AS from_position, positions(f, 3, NULL, NULL) AS three, positions(f, NULL, '{T1}', NULL) AS t1, positions(f, NULL, NULL, 'a') AS a,
		positions(f, NULL, '{T1,T2}', 'a') AS a_t1_t2, positions(f, 2, '{T2,T1,T2,none}', 'b') AS two_b
	FROM unnest(ARRAY[0, 1, 5, 11, 12, 13, 9223372036854775807, NULL]) f;
SELECT m AS max_count, positions(9, m, NULL, NULL) FROM unnest(ARRAY[0, 1, 1000, 9223372036854775807, NULL]) m;
SELECT c AS category, positions(0, NULL, NULL, c) FROM unnest(ARRAY['', 'a-1', 'A', 'b', NULL]) c;
SELECT t AS event_types, positions(0, NULL, t::text[], NULL) FROM unnest(ARRAY['{}', '{NULL}', '{NULL,T3}', '{t1}', '{""}', NULL]) t;
SELECT try('SELECT count(*) FROM es_read_all(' || a || ')') FROM unnest(ARRAY['-1', '0, -1', '-9223372036854775808']) a;
SELECT count(*) FROM es_read_all(category => 'a', event_types => ARRAY['T1']);

-- The default is a thousand events at a time; many are read at once, too.
BEGIN;
SELECT es_append_batch('big-1', array_agg('B'::text), array_agg(to_jsonb(repeat(n::text, 10)))) FROM generate_series(1, 3000) n;
SELECT count(*), max(position) FROM es_read_all();
SELECT count(*), count(DISTINCT position), bool_and(data #>> '{}' = repeat(version::text, 10)) FROM es_read_all(12, NULL);
SELECT count(*), max(version) FROM es_read_stream('big-1', 1000, 1500);
ROLLBACK;

-- Large events come whole (TOAST).
BEGIN;
SELECT es_append('big-2', 'B', to_jsonb(string_agg(md5(n::text), ''))) FROM generate_series(1, 10000) n;
SELECT a.data = s.data AND length(a.data::text) > 320000 AS whole FROM es_read_all(12) a, es_read_stream('big-2') s;
ROLLBACK;

-- The transaction's own events, and holes that rolled-back appends left.
BEGIN;
SELECT es_append('a-1', 'Own', '{}');
SELECT position > 12 AS own, version, event_type FROM es_read_all(12);
SAVEPOINT s;
SELECT es_append('a-1', 'Gone', '{}');
SELECT event_type FROM es_read_all(12);
ROLLBACK TO s;
SELECT es_append('a-1', 'Own2', '{}');
SELECT event_type, version FROM es_read_all(12);
SELECT event_type FROM es_read_stream('a-1', 4);
COMMIT;
SELECT event_type, version FROM es_read_all(12);

-- A statement that appends does not see what it appends itself, but what
-- functions appended before it in its own transaction.
SELECT es_append('b-1', 'One', '{}'), (SELECT count(*) FROM es_read_stream('b-1')) AS before;
DO $$
DECLARE n bigint; seen bigint := 0; e es_event;
BEGIN
	FOR i IN 1..3 LOOP
		PERFORM es_append('loop-1', 'L', to_jsonb(i));
		SELECT count(*) INTO n FROM es_read_all(0, NULL, '{L}');
		RAISE NOTICE 'after % appends: %', i, n;
	END LOOP;
	FOR e IN SELECT * FROM es_read_all(0, NULL, NULL, 'loop') LOOP
		seen := seen + 1;
		PERFORM es_append('loop-2', 'Echo', e.data);
	END LOOP;
	RAISE NOTICE 'seen %, loop-2 is at %', seen, es_stream_version('loop-2');
END $$;

-- In views, joins, common table expressions, subqueries, cursors, prepared.
CREATE VIEW account AS SELECT stream_id, version, data FROM es_read_all(0, NULL, NULL, 'a');
SELECT stream_id, count(*), sum(data::numeric) FILTER (WHERE jsonb_typeof(data) = 'number') FROM account GROUP BY 1 ORDER BY 1;
SELECT s.id, max(e.version) FROM (VALUES ('a-1'), ('a-2'), ('none')) s(id) LEFT JOIN LATERAL es_read_stream(s.id) e ON true GROUP BY 1 ORDER BY 1;
WITH RECURSIVE walk AS (
	SELECT 0::bigint AS position, 0 AS n
	UNION ALL
	SELECT (SELECT max(position) FROM es_read_all(walk.position, 5)), n + 1 FROM walk WHERE position IS NOT NULL)
SELECT n, position IS NULL AS ended FROM walk WHERE n < 2 OR position IS NULL;
SELECT (SELECT string_agg(event_type, ' ' ORDER BY version) FROM es_read_stream('a-1', 4)) AS types, EXISTS (SELECT FROM es_read_all(3)) AS more;
SELECT (es_read_stream('a-2', 3)).version;
PREPARE page(bigint, bigint) AS SELECT position FROM es_read_all($1, $2);
EXECUTE page(0, 2);
EXECUTE page(2, 2);
SET plan_cache_mode = force_generic_plan;
EXECUTE page(10, 2);
RESET plan_cache_mode;
BEGIN;
DECLARE log SCROLL CURSOR FOR SELECT position FROM es_read_all(0, 6);
FETCH 2 FROM log;
SELECT es_append('a-1', 'Meanwhile', '{}');
FETCH 2 FROM log;
FETCH BACKWARD 1 FROM log;
COMMIT;
SELECT data FROM es_read_all(0, 1) LIMIT 1;

-- With a plan in which everything that may run in parallel does.
-- (the setting was renamed in PostgreSQL 16)
SELECT set_config(name, 'on', false) FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query');
SET parallel_setup_cost = 0;
SELECT count(*) FROM es_read_stream('a-1');
SELECT es_stream_version('a-1'), es_category('a-1');
SELECT count(*) FROM es_read_all(0, 7);
SELECT set_config(name, 'off', false) FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query');
RESET parallel_setup_cost;

-- Filtered reading goes on from the settled position when nothing more is found.
SELECT es_settled_position() AS settled \gset
SELECT count(*) FROM es_read_all(0, NULL, '{none}');
SELECT es_append('a-9', 'none', '{}');
SELECT position = :settled + 1 AS next FROM es_read_all(:settled, NULL, '{none}');

-- Read-only transactions may read, at every level.
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE;
SELECT count(*) FROM es_read_all(0, 5);
SELECT es_settled_position() = max(position) AS all FROM es_event;
COMMIT;

DROP VIEW account;
DROP FUNCTION try(text), versions(text, bigint, bigint, boolean), positions(bigint, bigint, text[], text);
DROP EXTENSION eventstore;
