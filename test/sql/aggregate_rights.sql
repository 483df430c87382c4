-- aggregate_rights: in whose name expressions run
CREATE EXTENSION eventstore;
CREATE ROLE regress_es_definer;
CREATE ROLE regress_es_other;
CREATE ROLE regress_es_reader;
GRANT CREATE ON SCHEMA public TO regress_es_definer;
SELECT es_grant('regress_es_definer', 'admin'), es_grant('regress_es_other', 'admin'), es_grant('regress_es_reader', 'reader');
SELECT es_append('account-1', 'Noted', '{}');

SET ROLE regress_es_definer;
CREATE TABLE rate (percent int);
INSERT INTO rate VALUES (7);
CREATE FUNCTION whoami(s text) RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
	RETURN concat_ws(', ', s, current_user, (SELECT percent FROM rate));
END $$;
REVOKE ALL ON FUNCTION whoami FROM PUBLIC;
SELECT es_create_aggregate('account', state_type => 'text');
SELECT es_evolve('account', 'Noted', 'whoami(state)');

-- the reader may neither call the function nor see the table
SET ROLE regress_es_reader;
SELECT whoami('');
SELECT * FROM es_state('account-1');
-- nor does his search_path matter
SET search_path = pg_catalog;
SELECT * FROM public.es_state('account-1');
SHOW search_path;
RESET search_path;
SELECT current_user;
-- and he defines nothing
SELECT es_create_aggregate('mine');
SELECT es_evolve('account', 'Noted', 'state');
INSERT INTO es_aggregate VALUES ('mine', 'mine', '', 'text', 1, NULL, NULL, 'regress_es_reader', '');

-- an admin who is not the owner cannot have anything run in the owner's name
SET ROLE regress_es_other;
SELECT es_evolve('account', 'Noted', 'whoami(state)');
SELECT es_drop_evolver('account', 'Noted');
SELECT es_drop_aggregate('account');
SELECT es_create_aggregate('account', or_replace => true);
UPDATE es_evolver SET expression = 'state';
INSERT INTO es_evolver VALUES ('account', 'Other', 'state');
UPDATE es_aggregate SET initial_state = 'x';
INSERT INTO es_aggregate VALUES ('mine', 'mine', '', 'text', 1, NULL, NULL, 'regress_es_definer', '');
SELECT es_create_aggregate('mine', state_type => 'text');
UPDATE es_aggregate SET owner = 'regress_es_definer' WHERE name = 'mine';
UPDATE es_evolver SET aggregate = 'mine';
SELECT es_evolve('mine', 'Noted', 'whoami(state)');

-- a renamed owner stays the owner; one that was dropped is no other
RESET ROLE;
SET session_replication_role = replica;
SET ROLE regress_es_other;
UPDATE es_evolver SET expression = 'state';
RESET ROLE;
RESET session_replication_role;
ALTER ROLE regress_es_definer RENAME TO regress_es_renamed;
SELECT * FROM es_state('account-1');
SELECT owner FROM es_aggregate ORDER BY name;
DROP OWNED BY regress_es_renamed;
DROP ROLE regress_es_renamed;
CREATE ROLE regress_es_renamed;
SELECT * FROM es_state('account-1');

DROP EXTENSION eventstore;
DROP OWNED BY regress_es_other, regress_es_reader;
DROP ROLE regress_es_other, regress_es_reader, regress_es_renamed;
