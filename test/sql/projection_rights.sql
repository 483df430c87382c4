-- Whose rights handlers run with: their owner's, whoever appends, runs,
-- replays or rebuilds, and whatever the read tables try.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS eventstore CASCADE;
CREATE EXTENSION eventstore;
RESET client_min_messages;
\set VERBOSITY terse
CREATE ROLE regress_es_mallory;
CREATE ROLE regress_es_victim;
SELECT es_grant('regress_es_mallory', 'admin'), es_grant('regress_es_victim', 'writer') \g /dev/null
CREATE SCHEMA mallory AUTHORIZATION regress_es_mallory;
CREATE TABLE secret (n int);

-- A table that notes who comes by, in every way a table can.
SET ROLE regress_es_mallory;
SET search_path = mallory, public;
CREATE TABLE caught (how text, who name, escaped text);
CREATE FUNCTION escape(how text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	attempt text;
	done text := '';
BEGIN
	FOREACH attempt IN ARRAY ARRAY[
		'RESET ROLE', 'SET SESSION AUTHORIZATION DEFAULT', 'SET ROLE regress_es_victim',
		'CREATE ROLE regress_es_evil SUPERUSER', 'INSERT INTO public.secret VALUES (1)',
		'CREATE TEMPORARY TABLE t ()', 'DECLARE c CURSOR WITH HOLD FOR SELECT 1']
	LOOP
		BEGIN
			EXECUTE attempt;
			done := done || ' ' || attempt;
		EXCEPTION WHEN OTHERS THEN
			NULL;
		END;
	END LOOP;
	INSERT INTO mallory.caught VALUES (how, current_user, done);
END
$$;
CREATE FUNCTION by_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM mallory.escape('trigger'); RETURN NEW; END $$;
CREATE FUNCTION by_index(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN PERFORM mallory.escape('index'); RETURN $1; END $$;
CREATE FUNCTION by_check(text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN PERFORM mallory.escape('check'); RETURN true; END $$;
CREATE TABLE bait (id bigint PRIMARY KEY, what text CHECK (mallory.by_check(what)), who name DEFAULT current_user);
CREATE INDEX ON bait (mallory.by_index(what));
CREATE TRIGGER bait BEFORE INSERT OR UPDATE ON bait FOR EACH ROW EXECUTE FUNCTION by_trigger();
CREATE RULE bait AS ON INSERT TO caught DO ALSO NOTHING;

SELECT es_create_projection('inline', 'inline', '{bait}'), es_create_projection('async', tables => '{bait}', on_error => 'skip') \g /dev/null
SELECT es_on('inline', 'Inline', 'INSERT INTO bait (id, what) VALUES (event.position, event.event_type)') \g /dev/null
SELECT es_on('async', 'Async', 'SELECT escape(''handler''); INSERT INTO bait (id, what) VALUES (event.position, event.event_type);
	SELECT 1 / (event.data->>''by'')::int') \g /dev/null
SELECT es_on_batch('async', 'INSERT INTO caught SELECT ''batch'', current_user, count(*) FROM new_events') \g /dev/null
RESET search_path;

-- a victim appends, a superuser runs, replays, rebuilds and looks back
SET ROLE regress_es_victim;
SELECT es_append('s-1', 'Inline', '{}');
INSERT INTO es_event (stream_id, event_type, data) VALUES ('s-1', 'Inline', '{}'), ('s-1', 'Async', '{"by": 1}'), ('s-1', 'Async', '{"by": 0}');
RESET ROLE;
CALL es_run_projections();
SELECT es_replay_parked('async');
CALL es_rebuild_projection('async');
SELECT es_project_at('async');
DROP TABLE pg_temp.bait;

-- everything happened in the owner's name, and led nowhere
SELECT how, who, escaped, count(*) > 0 AS seen FROM mallory.caught GROUP BY 1, 2, 3 ORDER BY how COLLATE "C", escaped;
SELECT DISTINCT who FROM mallory.bait;
SELECT count(*) FROM secret;
SELECT rolname FROM pg_roles WHERE rolname = 'regress_es_evil';
SELECT current_user = session_user AS myself, current_setting('search_path');

-- others may not look back, nor change what runs
SET ROLE regress_es_victim;
SELECT es_project_at('async');
SELECT es_on('async', 'Async', 'SELECT 1');
CALL es_rebuild_projection('async');
RESET ROLE;
GRANT EXECUTE ON FUNCTION es_project_at, es_on, es_drop_projection TO regress_es_victim;
SET ROLE regress_es_victim;
SELECT es_project_at('async');
SELECT es_on('async', 'Async', 'SELECT 1');
SELECT es_drop_projection('async');
RESET ROLE;

-- an owner who may no longer read events stops, and nothing is parked for it
REVOKE SELECT ON es_event FROM regress_es_mallory;
DELETE FROM es_parked;
SET ROLE regress_es_victim;
INSERT INTO es_event (stream_id, event_type, data) VALUES ('s-1', 'Async', '{"by": 1}');
SELECT es_append('s-1', 'Inline', '{}');
RESET ROLE;
CALL es_run_projections();
SELECT name, status, last_error, parked FROM es_stat_projection ORDER BY name;
-- nor does one that is gone
GRANT SELECT ON es_event TO regress_es_mallory;
SELECT es_resume_projection('async');
UPDATE es_projection SET owner = 'regress_es_nobody' WHERE name = 'async';
CALL es_run_projections();
SELECT name, status, last_error, parked FROM es_stat_projection ORDER BY name;

SELECT es_drop_projection(name) FROM es_projection \g /dev/null
SET client_min_messages = warning;
DROP OWNED BY regress_es_mallory, regress_es_victim CASCADE;
DROP ROLE regress_es_mallory, regress_es_victim;
DROP TABLE secret;
DROP EXTENSION eventstore;
