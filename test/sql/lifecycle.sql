-- lifecycle: what is left to see of a stream
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
SELECT es_create_aggregate('s', initial_state => '0', state_type => 'bigint', snapshot_every => 2);
SELECT es_evolve('s', 'Added', 'state + (event.data)::bigint');
SELECT es_decide('s', 'Add', 'SELECT ''Added'', command'), es_decide('s', 'Tell', 'SELECT ''Told'', to_jsonb(state)');
-- What every reader of a stream sees, in one row.
CREATE FUNCTION seen(s text) RETURNS TABLE (reads text, backwards text, history text, version bigint, state jsonb, head bigint) LANGUAGE sql AS $$
	SELECT (SELECT string_agg(version::text, ' ') FROM es_read_stream(s)), (SELECT string_agg(version::text, ' ') FROM es_read_stream(s, backwards => true)),
		(SELECT string_agg(version || ':' || h.state, ' ') FROM es_history(s) h), t.version, t.state, es_stream_version(s) FROM es_state(s) t
$$;
SELECT es_append_batch('s-1', array_agg('Added'::text), array_agg(to_jsonb(n))) FROM generate_series(1, 9) n;
SELECT * FROM seen('s-1');

-- Truncation; it never goes back but by es_set_stream.
SELECT es_take_snapshot('s-1');
SELECT es_truncate_stream('s-1', 4);
SELECT * FROM seen('s-1');
SELECT es_truncate_stream('s-1', 2);
SELECT * FROM seen('s-1');
SELECT string_agg(version::text, ' ') AS ahead FROM es_read_stream('s-1', 5, 2);
SELECT string_agg(version::text, ' ') AS back FROM es_read_stream('s-1', 6, backwards => true);
SELECT v, (es_state('s-1', at_version => v)).* FROM unnest(ARRAY[0, 2, 3, 4, 6, 99]) v;
SELECT (es_state('s-1', at => now() - interval '1 day')).*;
SELECT try('SELECT es_truncate_stream(''s-1'', 11)'), try('SELECT es_truncate_stream(''s-1'', 0)'), try('SELECT es_truncate_stream(''s-1'', NULL)'), try('SELECT es_truncate_stream(NULL, 1)'), try('SELECT es_truncate_stream(''s-1'', 10)');
SELECT * FROM seen('s-1');
SELECT es_append('s-1', 'Added', '100', 9);
SELECT * FROM seen('s-1');
SELECT es_set_stream('s-1');
SELECT * FROM seen('s-1');
-- Snapshots count only if they begin where the fold does.
SELECT es_handle('s-1', 'Add', '1000'), es_handle('s-1', 'Add', '1000');
SELECT es_set_stream('s-1', truncate_before => 12);
SELECT es_handle('s-1', 'Tell');
SELECT data FROM es_read_stream('s-1', backwards => true, max_count => 1);
SELECT es_take_snapshot('s-1');
SELECT * FROM seen('s-1');
DELETE FROM es_snapshot;
SELECT * FROM seen('s-1');
SELECT es_set_stream('s-1');
SELECT state FROM es_state('s-1');

-- The newest, and the younger.
SELECT es_set_stream('s-1', max_count => 3);
SELECT * FROM seen('s-1');
SELECT es_append('s-1', 'Added', '1');
SELECT * FROM seen('s-1');
SELECT es_set_stream('s-1', max_count => 3, truncate_before => 13);
SELECT * FROM seen('s-1');
INSERT INTO es_event (position, version, recorded_at, event_id, type_version, stream_id, event_type, data)
	SELECT 1000 + n, n, now() - (10 - n) * interval '1 day', gen_random_uuid(), 1, 's-2', 'Added', '1' FROM generate_series(1, 9) n;
SELECT es_set_stream('s-2', max_age => interval '20 days 1 hour');
SELECT reads FROM seen('s-2');
SELECT es_set_stream('s-2', max_age => interval '9 days 1 hour');
SELECT reads FROM seen('s-2');
SELECT es_set_stream('s-2', max_age => interval '5 days 1 hour');
SELECT reads FROM seen('s-2');
SELECT es_set_stream('s-2', max_age => interval '1 days 1 hour');
SELECT reads FROM seen('s-2');
SELECT es_set_stream('s-2', max_age => interval '0 days 1 hour');
SELECT reads FROM seen('s-2');
-- An age before the calendar hides nothing, and is no error.
SELECT es_set_stream('s-2', max_age => interval '178000000 years');
SELECT reads FROM seen('s-2');
SELECT es_set_stream('s-2', max_age => interval '5999 years');
SELECT reads FROM seen('s-2');
SELECT es_set_stream('s-2', max_age => interval '0 days 1 hour');
SELECT es_handle('s-2', 'Add', '5');
SELECT * FROM seen('s-2');
SELECT n, try('SELECT es_set_stream(' || a || ')') FROM (VALUES (1, '''x'', 0'), (2, '''x'', -1'), (3, '''x'', max_age => ''0'''), (4, '''x'', truncate_before => 0'), (5, 'NULL'), (6, '''$x''')) v(n, a) ORDER BY n;
SELECT es_set_stream('s-3', max_count => 1, truncate_before => 3);
SELECT es_append_batch('s-3', '{Added,Added}', '{1,2}');
SELECT * FROM seen('s-3');
SELECT es_append('s-3', 'Added', '3');
SELECT * FROM seen('s-3');

-- Deleted: reads as empty, goes on, comes back.
SELECT es_delete_stream('none');
SELECT es_append_batch('s-4', '{Added,Added}', '{1,2}'), es_delete_stream('s-4');
SELECT * FROM seen('s-4');
SELECT try('SELECT es_append(''s-4'', ''Added'', ''1'', 0)'), es_handle('s-4', 'Add', '5'), es_append('s-4', 'Added', '6', 3);
SELECT * FROM seen('s-4');
SELECT es_undelete_stream('s-4');
SELECT * FROM seen('s-4');
SELECT es_undelete_stream('s-4');
SELECT es_undelete_stream('none');
SELECT es_save_snapshot('s-4', 2, '3', 'mine'), es_save_snapshot('s-4', 4, '14', 'mine'), es_truncate_stream('s-4', 4);
SELECT * FROM es_load_snapshot('s-4', 'mine');
SELECT es_save_snapshot('s-4', 3, '8', 'mine');
SELECT es_delete_stream('s-4');
SELECT * FROM es_load_snapshot('s-4', 'mine');
SELECT es_save_snapshot('s-4', 4, '14', 'mine');

-- Tombstoned: closed for good, on every route; what was appended before is still answered.
SELECT es_append('s-5', 'Added', '1', event_id => '00000000-0000-4000-8000-000000000005');
SELECT es_handle('s-5', 'Add', '2', command_id => '00000000-0000-4000-8000-000000000006');
SELECT es_tombstone_stream('s-5'), es_tombstone_stream('never');
SELECT es_append('s-5', 'Added', '1');
SELECT n, try(q) FROM (VALUES (1, $$SELECT es_append_batch('s-5', '{Added}', '{1}')$$), (2, $$SELECT es_handle('s-5', 'Add', '1')$$), (3, $$INSERT INTO es_event (stream_id, event_type, data) VALUES ('s-5', 'Added', '1')$$),
	(4, $$SELECT es_append('never', 'Added', '1')$$), (5, $$SELECT es_undelete_stream('s-5')$$), (6, $$SELECT es_delete_stream('s-5')$$), (7, $$SELECT es_set_stream('s-5')$$), (8, $$SELECT es_tombstone_stream('s-5')$$),
	(9, $$DELETE FROM es_stream WHERE stream_id = 's-5'$$), (10, $$UPDATE es_stream SET tombstoned_at = NULL$$), (11, $$UPDATE es_stream SET stream_id = 's-6' WHERE stream_id = 's-5'$$), (12, $$TRUNCATE es_stream$$),
	(13, $$SELECT es_append('s-5', 'Added', '1', event_id => '00000000-0000-4000-8000-000000000005')$$), (14, $$SELECT es_handle('s-5', 'Add', '2', command_id => '00000000-0000-4000-8000-000000000006')$$)) v(n, q) ORDER BY n;
COPY es_event (stream_id, event_type, data) FROM STDIN;
s-5	Added	1
\.
SELECT * FROM seen('s-5');
BEGIN;
SELECT es_tombstone_stream('s-1');
SELECT try('SELECT es_append(''s-1'', ''Added'', ''1'')');
ROLLBACK;
SELECT es_append('s-1', 'Added', '1');

-- The log shows everything, whatever was hidden; nothing is gone.
SELECT count(*), count(*) = (SELECT count(*) FROM es_event) AS all FROM es_read_all(max_count => NULL);
SELECT check_name, detail FROM es_check() WHERE status <> 'ok';

-- The streams, skipping.
SELECT es_append(s, 'Added', '1') FROM unnest(ARRAY['a', 'a!b', 'a-1', 'a-2', 'a-10', 'a.b', 'ab-1', 'b']) s;
SELECT stream_id, version, first_version, first_recorded_at <= last_recorded_at AS ordered, status FROM es_stream_list();
SELECT c, string_agg(stream_id, ' ' ORDER BY stream_id COLLATE "C") FROM unnest(ARRAY['a', 'ab', 'b', 'a!b', 's', 'zz', '', 'a-1']) c LEFT JOIN LATERAL es_stream_list(c) ON true GROUP BY c ORDER BY c COLLATE "C";
SELECT string_agg(stream_id, ' ') FROM es_stream_list('a', after => 'a-1');
SELECT string_agg(stream_id, ' ') FROM es_stream_list('a', after => 'a', max_count => 2);
SELECT string_agg(stream_id, ' ') FROM es_stream_list(after => 'a.b', max_count => 3);
SELECT count(*) FROM es_stream_list(max_count => 0);
SELECT try('SELECT es_stream_list(max_count => -1)');
SELECT es_append_batch('many-' || s, array_agg('Added'::text), array_agg('1'::jsonb)) FROM generate_series(1, 3) s, generate_series(1, 3000) GROUP BY s;
SELECT pg_stat_force_next_flush();
SELECT idx_tup_fetch AS before FROM pg_stat_user_tables WHERE relname = 'es_event' \gset
SELECT count(*) FROM es_stream_list('many');
SELECT pg_stat_force_next_flush();
SELECT idx_tup_fetch - :before < 10 AS skips FROM pg_stat_user_tables WHERE relname = 'es_event';

CREATE ROLE regress_es_writer;
SELECT es_grant('regress_es_writer', 'writer');
SET ROLE regress_es_writer;
SELECT es_tombstone_stream('s-1');
SELECT es_append('s-5', 'Added', '1');
SELECT count(*) FROM es_stream_list('s');
RESET ROLE;
DROP OWNED BY regress_es_writer;
DROP ROLE regress_es_writer;
DROP FUNCTION try(text), seen(text);
DROP EXTENSION eventstore;
