-- boundary_rights: in whose name commands on boundaries do what; what else meets them
CREATE EXTENSION eventstore;
CREATE ROLE regress_es_definer;
CREATE ROLE regress_es_writer;
CREATE ROLE regress_es_reader;
SELECT es_grant('regress_es_definer', 'admin');
SELECT es_grant('regress_es_writer', 'writer');
SELECT es_grant('regress_es_reader', 'reader');

-- The expressions run as the definer, who may see what the callers may not.
CREATE TABLE quota (room text, seats int);
INSERT INTO quota VALUES ('a', 2);
GRANT SELECT ON quota TO regress_es_definer;
CREATE FUNCTION seats(room text) RETURNS int LANGUAGE sql STABLE AS 'SELECT seats FROM public.quota q WHERE q.room = $1';
GRANT CREATE ON SCHEMA public TO regress_es_definer;
SET ROLE regress_es_definer;
SELECT es_create_aggregate('booking', initial_state => '{"taken": 0}', boundary => '{"items": [{"types": ["Booked"], "tags": ["room:{room}"]}]}');
SELECT es_evolve('booking', 'Booked', $$jsonb_build_object('taken', (state -> 'taken')::int + 1, 'free', seats(command ->> 'room') - (state -> 'taken')::int - 1)$$);
SELECT es_decide('booking', 'Book', $$SELECT 'Booked', command, ARRAY['room:' || (command ->> 'room')] AS tags$$,
	$$CASE WHEN (state -> 'taken')::int >= seats(command ->> 'room') THEN 'full, says ' || current_user END$$);
SET ROLE regress_es_writer;
SELECT es_handle(NULL, 'Book', '{"room": "a"}', aggregate => 'booking');
SELECT seats('a');
SELECT es_handle(NULL, 'Book', '{"room": "a"}', aggregate => 'booking');
SELECT es_handle(NULL, 'Book', '{"room": "a"}', aggregate => 'booking');
SELECT current_user, current_setting('search_path');
SELECT state FROM es_boundary_state('booking', '{"room": "a"}');
SET ROLE regress_es_reader;
SELECT state FROM es_boundary_state('booking', '{"room": "a"}');
SELECT position, state FROM es_boundary_history('booking', '{"room": "a"}');
SELECT es_handle(NULL, 'Book', '{"room": "a"}', aggregate => 'booking');
SELECT es_create_aggregate('mine', boundary => '{}');
RESET ROLE;
REVOKE SELECT ON es_event FROM regress_es_reader;
SET ROLE regress_es_reader;
SELECT es_boundary_state('booking', '{"room": "a"}');
SELECT es_boundary_history('booking', '{"room": "a"}');
RESET ROLE;

-- An error in a decision leaves the session as it was, locks included.
CREATE FUNCTION caught(command jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM es_handle(NULL, 'Book', command, aggregate => 'booking');
	RETURN 'handled';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ' ' || SQLERRM;
END $$;
BEGIN;
SELECT caught('{"room": "a"}'), current_user;
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory';
INSERT INTO quota VALUES ('b', 9);
SELECT caught('{"room": "b"}'), current_user;
SELECT DISTINCT mode FROM pg_locks WHERE locktype = 'advisory' AND objsubid = x'E506'::int - 65536;
ROLLBACK;

-- What a decider does is undone with its decision, and done once otherwise.
CREATE TABLE trace (what text);
CREATE FUNCTION note(what text) RETURNS text LANGUAGE sql VOLATILE AS 'INSERT INTO public.trace VALUES ($1) RETURNING what';
SELECT es_create_aggregate('trace', boundary => '{"items": [{"tags": ["trace"]}]}');
SELECT es_decide('trace', 'Note', $$SELECT 'Noted', to_jsonb(note(command ->> 'what')), '{elsewhere,trace}'::text[] AS tags$$);
SELECT es_handle(NULL, 'Note', '{"what": "once"}', aggregate => 'trace') > 0 AS handled;
SELECT caught('{"what": "never"}') <> 'handled' AS refused;
SELECT event_type FROM es_decide_dry(NULL, 'Note', '{"what": "dry"}', 'trace');
SELECT * FROM trace;

-- Events are folded in their newest form, and matched as they are stored.
SELECT es_create_event_type('Old', 1, tags => ARRAY['thing:{id}']);
SELECT es_append('thing-1', 'Old', '{"id": 1, "cents": 250}');
SELECT es_create_event_type('Old', 2);
SELECT es_upcast('Old', 1, $$jsonb_build_object('amount', (event.data -> 'cents')::int / 100.0)$$, new_type => 'New');
SELECT es_create_aggregate('thing', initial_state => '0', state_type => 'numeric', boundary => '{"items": [{"types": ["Old"], "tags": ["thing:{id}"]}]}');
SELECT es_evolve('thing', 'New', '(event.data -> ''amount'')::numeric');
SELECT es_decide('thing', 'Ask', $$SELECT 'Asked', to_jsonb(state)$$);
SELECT state FROM es_boundary_state('thing', '{"id": 1}');
SELECT event_type, data, state FROM es_boundary_history('thing', '{"id": 1}');
SELECT es_handle('thing-1', 'Ask', '{"id": 1}', aggregate => 'thing') > 0 AS handled;
SELECT data FROM es_read_stream('thing-1', 1);

-- An inline projection sees the events of a command with it.
CREATE TABLE seen (type text, room text);
SELECT es_create_projection('seen', 'inline', '{seen}');
SELECT es_on('seen', 'Booked', 'INSERT INTO seen VALUES (event.event_type, event.data ->> ''room'')');
CALL es_run_projections();
UPDATE quota SET seats = 3;
SELECT caught('{"room": "a"}');
SELECT * FROM seen;
-- One command may give another with the same aggregate, but not change its own boundary.
SELECT es_decide('booking', 'BookTwo', $$SELECT 'Booked', command, ARRAY['room:' || (command ->> 'room')] AS tags
	FROM (SELECT public.es_handle(NULL, 'Book', command || jsonb_build_object('room', command -> 'other'), aggregate => 'booking')) AS other$$);
UPDATE quota SET seats = 9;
INSERT INTO quota VALUES ('b', 1);
SELECT es_handle(NULL, 'BookTwo', '{"room": "a", "other": "b"}', aggregate => 'booking') > 0 AS handled;
SELECT es_handle(NULL, 'BookTwo', '{"room": "a", "other": "a"}', aggregate => 'booking') > 0 AS handled;
SELECT state FROM es_boundary_state('booking', '{"room": "b"}');
SELECT state FROM es_boundary_state('booking', '{"room": "a"}');
SELECT check_name, status FROM es_check() WHERE status <> 'ok';

DROP TABLE seen, trace;
DROP FUNCTION note(text), caught(jsonb);
DROP EXTENSION eventstore;
DROP FUNCTION seats(text);
DROP TABLE quota;
DROP OWNED BY regress_es_definer, regress_es_writer, regress_es_reader;
DROP ROLE regress_es_definer, regress_es_writer, regress_es_reader;
