-- tag: es_event_tag follows es_event, by every route
CREATE EXTENSION eventstore;
CREATE FUNCTION broken() RETURNS TABLE (check_name text, detail text) LANGUAGE sql AS
	$$ SELECT check_name, detail FROM es_check() WHERE status <> 'ok' $$;

-- Every route; tags become a sorted set.
SELECT es_append('s-1', 'A', '{}', tags => '{course:c1,student:s1,course:c1}');
SELECT es_append('s-1', 'A', '{}'), es_append('s-1', 'A', '{}', tags => '{}');
SELECT es_append_batch('s-2', ARRAY['A', 'B', 'C'], ARRAY['1', '2', '3']::jsonb[],
	tags => ARRAY['["b", "a"]', NULL, '[]']::jsonb[]);
INSERT INTO es_event (stream_id, event_type, data, tags) VALUES
	('s-3', 'I', '{}', '{i}'), ('s-3', 'I', '{}', NULL), ('s-3', 'I', '{}', '{i,j}');
COPY es_event (stream_id, event_type, data, tags) FROM STDIN;
s-4	C	{}	{c}
s-4	C	{}	\N
\.
TABLE es_event_tag;
SELECT * FROM broken();
-- An INSERT that puts nothing in leaves no tags.
INSERT INTO es_event (stream_id, event_type, data, tags, event_id)
	SELECT 's-5', 'I', '{}', '{gone}', event_id FROM es_event WHERE stream_id = 's-4' ON CONFLICT (event_id) DO NOTHING;
-- Neither does a savepoint that is rolled back, or a retry.
BEGIN;
SAVEPOINT s;
SELECT es_append('s-6', 'A', '{}', tags => '{gone}');
ROLLBACK TO s;
COMMIT;
SELECT es_append('s-6', 'A', '{}', event_id => '00000000-0000-0000-0000-000000000001', tags => '{kept}');
SELECT es_append('s-6', 'A', '{}', event_id => '00000000-0000-0000-0000-000000000001', tags => '{gone}');
SELECT * FROM es_event_tag WHERE tag IN ('gone', 'kept');
SELECT * FROM broken();

-- Bad tags.
SELECT es_append('s-1', 'A', '{}', tags => '{NULL}');
SELECT es_append('s-1', 'A', '{}', tags => '{""}');
SELECT es_append('s-1', 'A', '{}', tags => ARRAY[repeat('x', 256)]);
SELECT es_append('s-1', 'A', '{}', tags => (SELECT array_agg(n::text) FROM generate_series(1, 65) n));
SELECT es_append_batch('s-1', ARRAY['A'], ARRAY['1']::jsonb[], tags => ARRAY['"a"']::jsonb[]);
SELECT es_append_batch('s-1', ARRAY['A'], ARRAY['1']::jsonb[], tags => ARRAY['[1]']::jsonb[]);
SELECT es_append_batch('s-1', ARRAY['A'], ARRAY['1']::jsonb[], tags => ARRAY['{}']::jsonb[]);
SELECT es_append_batch('s-1', ARRAY['A'], ARRAY['1']::jsonb[], tags => ARRAY['[]', '[]']::jsonb[]);

-- Many at once go in more than one chunk.
SELECT es_append_batch('s-7', array_agg('A'::text), array_agg('1'::jsonb),
	tags => array_agg((SELECT jsonb_agg('t:' || k) FROM generate_series(1, 3) k))) FROM generate_series(1, 100);
SELECT tag, count(*) FROM es_event_tag WHERE tag ^@ 't:' GROUP BY tag ORDER BY tag;
SELECT * FROM broken();

-- Nobody changes the table by hand, the superuser included, under any role.
UPDATE es_event_tag SET tag = 'x';
\echo :LAST_ERROR_SQLSTATE
DELETE FROM es_event_tag;
TRUNCATE es_event_tag;
SET session_replication_role = replica;
DELETE FROM es_event_tag WHERE tag = 'i';
TRUNCATE es_event_tag;
DELETE FROM es_retagged;
RESET session_replication_role;
CREATE ROLE regress_es_tagger;
GRANT ALL ON es_event_tag TO regress_es_tagger;
SET ROLE regress_es_tagger;
INSERT INTO es_event_tag VALUES ('x', 1, 'A');
RESET ROLE;
DROP OWNED BY regress_es_tagger;
DROP ROLE regress_es_tagger;

-- The owner can, as a restored dump does; es_check() tells what is wrong then.
BEGIN;
INSERT INTO es_event_tag VALUES ('x', 1, 'A');
SELECT * FROM broken();
ROLLBACK;
BEGIN;
ALTER TABLE es_event_tag DISABLE TRIGGER ALL;
UPDATE es_event_tag SET event_type = 'Wrong' WHERE tag = 'i';
SELECT * FROM broken();
ROLLBACK;
BEGIN;
ALTER TABLE es_event DISABLE TRIGGER aa_es_event_tag;
INSERT INTO es_event (stream_id, event_type, data, tags) VALUES ('s-8', 'I', '{}', '{i}');
SELECT * FROM broken();
ROLLBACK;
-- A row that comes with its place brings no tags: the dump has them.
BEGIN;
INSERT INTO es_event (position, version, recorded_at, event_id, type_version, stream_id, event_type, data, tags)
	VALUES (1000, 1, now(), gen_random_uuid(), 1, 's-9', 'I', '{}', '{i}');
SELECT * FROM broken();
INSERT INTO es_event_tag VALUES ('i', 1000, 'I');
SELECT * FROM broken();
ROLLBACK;

-- A trigger must not change tags that are locked and checked already.
CREATE FUNCTION retag() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.tags := ARRAY['z']; RETURN NEW; END $$;
CREATE TRIGGER a_retag BEFORE INSERT ON es_event FOR EACH ROW WHEN (NEW.event_type = 'Retag') EXECUTE FUNCTION retag();
SELECT es_append('s-9', 'Retag', '{}');
SELECT es_append('s-9', 'Retag', '{}', tags => '{y}');
INSERT INTO es_event (stream_id, event_type, data, tags) VALUES ('s-9', 'Retag', '{}', '{y}');
SELECT tag FROM es_event_tag WHERE tag IN ('y', 'z');
-- AFTER triggers of others see the tags.
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE NOTICE 'tags %', (SELECT array_agg(tag) FROM es_event_tag t WHERE t.position = NEW.position);
	RETURN NULL;
END $$;
CREATE TRIGGER b_tell AFTER INSERT ON es_event FOR EACH ROW EXECUTE FUNCTION tell();
SELECT es_append('s-9', 'Told', '{}', tags => '{m,n}');
INSERT INTO es_event (stream_id, event_type, data, tags) VALUES ('s-9', 'Told', '{}', '{o}');
SELECT * FROM broken();

-- The owner retags; queries follow, the events do not change.
SELECT md5(string_agg(e::text, '' ORDER BY position)) AS before FROM es_event e \gset
SELECT es_retag('{"items": [{"tags": ["course:c1"]}, {"types": ["C"]}]}', '{new,course:c1}', '{student:s1,c}');
SELECT * FROM es_event_tag WHERE tag IN ('new', 'course:c1', 'student:s1', 'c');
SELECT position, tags, retagged_by = session_user AS mine FROM es_retagged;
SELECT position, tags FROM es_read('{"items": [{"tags": ["new"]}]}');
SELECT es_append_if('[{"type": "A", "data": 1}]', '{"items": [{"tags": ["new"]}]}');
SELECT * FROM broken();
-- Again: nothing to change.  Back: as if it had never been.
SELECT es_retag('{"items": [{"tags": ["new"]}]}', '{new}', '{c}');
BEGIN;
SELECT es_retag('{"items": [{"tags": ["new"]}]}', '{x}'), es_retag('{"items": [{"tags": ["x"]}]}', NULL, '{x}');
SELECT * FROM broken();
ROLLBACK;
SELECT es_retag('{"items": [{"types": ["A"], "tags": ["new"]}]}', '{student:s1}', '{new}');
SELECT position, tags FROM es_retagged;
SELECT es_retag('{}', '{}', '{}'), es_retag('{"items": [{"tags": ["nobody"]}]}', '{x}');
SELECT md5(string_agg(e::text, '' ORDER BY position)) = :'before' AS unchanged FROM es_event e;
SELECT * FROM broken();
SELECT es_retag('{"items": [{"types": ["C"]}]}', (SELECT array_agg(n::text) FROM generate_series(1, 64) n));
SELECT es_retag(NULL);
CREATE ROLE regress_es_tagger;
SELECT es_grant('regress_es_tagger', 'admin');
GRANT EXECUTE ON FUNCTION es_retag(jsonb, text[], text[]) TO regress_es_tagger;
SET ROLE regress_es_tagger;
SELECT es_retag('{}', '{x}');
RESET ROLE;
DROP OWNED BY regress_es_tagger;
DROP ROLE regress_es_tagger;

DROP EXTENSION eventstore CASCADE;
DROP FUNCTION broken(), retag(), tell();
