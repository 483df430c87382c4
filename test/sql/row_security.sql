-- row_security: one who is subject to policies on es_event sees no byte of what
-- they hide, whatever function of the extension he calls.
CREATE EXTENSION eventstore;
CREATE ROLE regress_es_tenant;
CREATE ROLE regress_es_tenant_admin;
SELECT es_grant('regress_es_tenant', 'writer'), es_grant('regress_es_tenant_admin', 'admin');
GRANT CREATE ON SCHEMA public TO regress_es_tenant, regress_es_tenant_admin;

-- What others have: 113 versions of one stream and more, positions from
-- 770,000, and words that are nowhere else.
ALTER SEQUENCE es_event_position_seq RESTART 770000;
SELECT es_create_aggregate('umbrella', initial_state => '"none"', snapshot_every => 10);
SELECT es_evolve('umbrella', 'Made', 'event.data');
SELECT es_create_aggregate('both', initial_state => '"none"', boundary => '{"items": [{"tags": ["virus:{v}"]}]}');
SELECT es_evolve('both', 'Made', 'event.data');
SELECT es_decide('both', 'Look', $$ SELECT 'Seen', state $$);
SELECT es_decide('umbrella', 'Look', $$ SELECT 'Seen', state $$);
SELECT count(es_append('umbrella-1', 'Made', jsonb_build_object('what', 'SECRET', 'n', n), tags => '{virus:t,SECRET:tag}')) FROM generate_series(1, 113) n;
SELECT es_append('umbrella-2', 'Made', '"SECRET"', event_id => '00000000-0000-4000-8000-00000000beef') > 0 AS named;
SELECT es_append('umbrella-3', 'Made', '"SECRET"') > 0 AS closed;
SELECT es_tombstone_stream('umbrella-3'), es_take_snapshot('umbrella-1') AS snapshot, es_save_snapshot('umbrella-2', 1, '"SECRET"', 'mine');
CALL es_archive(770050, codec => 'pglz');
SELECT es_handle('umbrella-1', 'Look', command_id => '00000000-0000-4000-8000-00000000cafe');
CREATE TABLE total (id text PRIMARY KEY, n int);
SELECT es_create_projection('failing', tables => '{total}');
SELECT es_on('failing', 'Made', $$ SELECT (event.data ->> 'what')::int $$);
SET client_min_messages = error;
CALL es_run_projections();
RESET client_min_messages;
SELECT es_create_subscription('theirs');
SELECT count(es_nack('theirs', token, position, 'park', 'SECRET')) FROM es_fetch('theirs', 'c', 1);
SET ROLE regress_es_tenant_admin;
CREATE TABLE mine (id text PRIMARY KEY);
SELECT es_create_subscription('early'), es_create_projection('mine', tables => '{mine}');
SELECT token AS early, position AS early_position FROM es_fetch('early', 'c', 1) \gset
RESET ROLE;

-- The tenants: each sees the streams of its own.
ALTER TABLE es_event ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON es_event TO regress_es_tenant, regress_es_tenant_admin USING (starts_with(stream_id, 'acme-'));
SET ROLE regress_es_tenant;
INSERT INTO es_event (stream_id, event_type, data) VALUES ('acme-1', 'Made', '"own"');
SELECT stream_id, version, data FROM es_event;
RESET ROLE;

-- Every function there is, as a tenant that may call it, after those things of
-- others that it could tell of.  NULL: it has nothing to do with events.
CREATE TABLE call (name text PRIMARY KEY, query text);
INSERT INTO call VALUES
	('es_append', $$SELECT es_append('umbrella-2', 'Made', '"SECRET"', event_id => '00000000-0000-4000-8000-00000000beef')$$),
	('es_append_batch', $$SELECT es_append_batch('umbrella-1', '{A}', '{1}', 4)$$),
	('es_append_if', $$SELECT es_append_if('[{"type": "A", "data": 1}]', '{"items": [{"tags": ["virus:t"]}]}')$$),
	('es_try_append_if', $$SELECT es_try_append_if('[{"type": "A", "data": 1}]', '{"items": [{"tags": ["virus:t"]}]}')$$),
	('es_archive', NULL), ('es_archived_position', 'SELECT es_archived_position()'), ('es_read_archive', 'SELECT es_read_archive()'),
	('es_export_segment', 'SELECT encode(es_export_segment(1), ''escape'')'), ('es_detach_segment', $$SELECT es_detach_segment(1, 'x')$$),
	('es_import_segment', $$SELECT es_import_segment('x')$$),
	('es_boundary_state', $$SELECT es_boundary_state('both', '{"v": "t"}')$$), ('es_boundary_history', $$SELECT es_boundary_history('both', '{"v": "t"}')$$),
	('es_check', 'SELECT es_check()'), ('es_report', 'SELECT es_report(''umbrella-1'')'),
	('es_create_projection', $$SELECT es_create_projection('new')$$), ('es_on', $$SELECT es_on('mine', 'Made', 'SELECT event.data')$$),
	('es_on_batch', $$SELECT es_on_batch('mine', 'SELECT * FROM new_events')$$), ('es_drop_handler', $$SELECT es_drop_handler('failing', 'Made')$$),
	('es_drop_projection', $$SELECT es_drop_projection('failing')$$), ('es_pause_projection', $$SELECT es_pause_projection('failing')$$),
	('es_resume_projection', $$SELECT es_resume_projection('failing')$$), ('es_project_at', $$SELECT es_project_at('mine')$$),
	('es_replay_parked', $$SELECT es_replay_parked('theirs')$$), ('es_wait_for', $$SELECT es_wait_for('failing', 1, '0')$$),
	('es_rebuild_projection', NULL), ('es_run_projections', NULL),
	('es_create_subscription', $$SELECT es_create_subscription('new')$$), ('es_fetch', $$SELECT es_fetch('early', 'c')$$),
	('es_ack', format('SELECT es_ack(''early'', %L)', :'early')), ('es_nack', format('SELECT es_nack(''early'', %L, %s)', :'early', :early_position)),
	('es_renew', format('SELECT es_renew(''early'', %L) > now()', :'early')), ('es_seek', $$SELECT es_seek('early', 0)$$),
	('es_wait_for_events', $$SELECT es_wait_for_events('early', '0')$$), ('es_drop_subscription', $$SELECT es_drop_subscription('theirs')$$),
	('es_decide_dry', $$SELECT es_decide_dry('umbrella-1', 'Look', '{}')$$), ('es_handle', $$SELECT es_handle('umbrella-1', 'Look', command_id => '00000000-0000-4000-8000-00000000cafe')$$),
	('es_test', $$SELECT es_test('umbrella', '[]', 'Look', '{}', '[{"type": "Seen", "data": 1}]')$$), ('es_test_done', 'SELECT es_test_done()'),
	('es_state', $$SELECT es_state('umbrella-1')$$), ('es_history', $$SELECT es_history('umbrella-1')$$),
	('es_load_snapshot', $$SELECT es_load_snapshot('umbrella-2', 'mine')$$), ('es_save_snapshot', $$SELECT es_save_snapshot('umbrella-2', 1, '1', 'mine')$$),
	('es_take_snapshot', $$SELECT es_take_snapshot('umbrella-1')$$), ('es_take_snapshots', 'SELECT es_take_snapshots()'),
	('es_read', $$SELECT es_read('{"items": [{"tags": ["virus:t"]}]}')$$), ('es_read_boundary', $$SELECT es_read_boundary('{"items": [{"tags": ["virus:t"]}]}')$$),
	('es_read_all', 'SELECT es_read_all()'), ('es_read_stream', $$SELECT es_read_stream('umbrella-1')$$), ('es_retag', $$SELECT es_retag('{}', '{x}')$$),
	('es_store', 'SELECT es_store()'), ('es_position_at', 'SELECT es_position_at(now())'), ('es_settled_position', 'SELECT es_settled_position()'),
	('es_stream_version', $$SELECT es_stream_version('umbrella-1')$$), ('es_stream_list', 'SELECT es_stream_list()'), ('es_stream_sizes', 'SELECT es_stream_sizes()'),
	('es_set_stream', $$SELECT es_set_stream('umbrella-1', 1)$$), ('es_truncate_stream', $$SELECT es_truncate_stream('umbrella-1', 200)$$),
	('es_delete_stream', $$SELECT es_delete_stream('umbrella-1')$$), ('es_undelete_stream', $$SELECT es_undelete_stream('umbrella-1')$$),
	('es_tombstone_stream', $$SELECT es_tombstone_stream('umbrella-3')$$), ('es_track_table', 'SELECT es_track_table(''mine'')'),
	('es_untrack_table', 'SELECT es_untrack_table(''total'')'), ('es_last_position', 'SELECT es_last_position()'),
	('es_settled_holder', 'SELECT es_settled_holder()'), ('es_stat_log', 'SELECT es_stat_log()'), ('es_running_jobs', 'SELECT es_running_jobs()'),
	('es_settle', 'SELECT es_settle()'), ('es_create_publication', $$SELECT es_create_publication('p')$$),
	-- what a type, a stream name or a role is
	('es_category', NULL), ('es_stream_partition', NULL), ('es_to_cloudevent', NULL), ('es_from_cloudevent', NULL), ('es_grant', NULL),
	('es_create_aggregate', NULL), ('es_evolve', NULL), ('es_decide', NULL), ('es_drop_aggregate', NULL), ('es_drop_evolver', NULL), ('es_drop_decider', NULL),
	('es_create_event_type', NULL), ('es_drop_event_type', NULL), ('es_upcast', NULL), ('es_drop_upcaster', NULL), ('es_stat_reset', NULL), ('es_start_worker', NULL);
SELECT coalesce(name, proname) AS without_a_call FROM call FULL JOIN
	(SELECT DISTINCT proname::text FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
		JOIN pg_extension e ON e.oid = d.refobjid AND extname = 'eventstore' WHERE p.prorettype <> 'trigger'::regtype) p ON proname = name
	WHERE name IS NULL OR proname IS NULL;
CREATE FUNCTION try(query text, OUT state text, OUT message text, OUT tells boolean) LANGUAGE plpgsql AS $$
DECLARE row record; detail text; hint text; said text := '';
BEGIN
	state := 'ok';
	BEGIN
		IF query ~ '^SELECT|RETURNING' THEN
			FOR row IN EXECUTE query LOOP
				said := said || row::text;
			END LOOP;
		ELSE
			EXECUTE query;
		END IF;
	EXCEPTION WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
		state := SQLSTATE;
		message := CASE SQLSTATE WHEN '42501' THEN SQLERRM WHEN '0A000' THEN 'row security' ELSE concat_ws(' ', SQLERRM, nullif(detail, '')) END;
		said := concat_ws(' ', SQLERRM, detail, hint);
	END;
	tells := said ~ 'SECRET|7700\d\d|7701\d\d|\m113\M|\m114\M';
END $$;
GRANT SELECT ON call TO PUBLIC;
SET ROLE regress_es_tenant_admin;
SELECT name, t.* FROM call, try(query) t WHERE query IS NOT NULL ORDER BY name;
CALL es_archive(770060, codec => 'pglz');
CALL es_rebuild_projection('failing');
CALL es_run_projections();
RESET ROLE;
SELECT name, status, split_part(last_error, ':', 1) AS error FROM es_stat_projection ORDER BY 1;

-- What a tenant can read directly.  How much there is shows in positions, here
-- and above; a tenant should be no admin, who has the tables of the store.
SET ROLE regress_es_tenant;
SELECT c.relname, tells FROM (SELECT relname FROM pg_class c JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
		WHERE relkind IN ('r', 'v', 'S')) c, try('SELECT * FROM ' || c.relname) WHERE try.state <> '42501' OR tells ORDER BY 1;
SELECT count(*), string_agg(stream_id, ' ') AS streams FROM es_event;
SELECT string_agg(aggregateid, ' ') AS streams FROM es_outbox;
SELECT count(*) FROM es_event_all;
SELECT name, last_error FROM es_stat_projection ORDER BY 1;
SELECT name, parked_by_reason FROM es_stat_subscription ORDER BY 1;

-- INSERT: one answer for what is not the tenant's, whatever is there.
SET ROLE regress_es_tenant;
SELECT version, v, id, (try(format('INSERT INTO es_event (stream_id, version, event_id, event_type, data) VALUES (%L, %s, %L, ''A'', ''1'') RETURNING position', v, version, id))).*
	FROM unnest(ARRAY[2, 1, 114, 115]) version, unnest(ARRAY['umbrella-1', 'umbrella-2', 'umbrella-3', 'umbrella-new']) v, unnest(ARRAY[NULL, '00000000-0000-4000-8000-00000000beef']::uuid[]) id
	ORDER BY v, id, version;
SELECT v, (try(format('INSERT INTO es_event (stream_id, version, event_type, data) VALUES (%L, %s, ''A'', ''1'')', v, version))).*
	FROM (VALUES ('acme-1', 1), ('acme-1', 3), ('acme-2', 2)) t(v, version);
SELECT (try('INSERT INTO es_event (stream_id, event_id, event_type, data) VALUES (''acme-1'', ''00000000-0000-4000-8000-00000000beef'', ''A'', ''1'')')).*;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM es_event;
SELECT (try('INSERT INTO es_event (stream_id, event_type, data) VALUES (''umbrella-1'', ''A'', ''1'')')).*;
ROLLBACK;
SELECT (try('COPY es_event (stream_id, event_type, data) FROM STDIN')).*;
\copy es_event (stream_id, event_type, data) FROM '/dev/null'
RESET ROLE;
SELECT count(*), max(version) FROM es_event WHERE stream_id = 'umbrella-1';
SELECT name, n FROM (SELECT 'umbrella' AS name, count(*) AS n FROM es_event_all WHERE stream_id LIKE 'umbrella%') u;

DROP OWNED BY regress_es_tenant, regress_es_tenant_admin CASCADE;
DROP TABLE call, total;
DROP FUNCTION try(text);
DROP EXTENSION eventstore CASCADE;
DROP ROLE regress_es_tenant, regress_es_tenant_admin;
