-- hostile: arguments that nobody means well; each gets its SQLSTATE, none crashes
CREATE EXTENSION eventstore;

CREATE FUNCTION outcome(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	said text;
BEGIN
	EXECUTE statement;
	RETURN 'done';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS said = MESSAGE_TEXT;
	-- A message repeats no more of what it was given than a reader can use.
	RETURN SQLSTATE || CASE WHEN octet_length(said) > 2000 THEN ' with a message of ' || octet_length(said) || ' bytes' ELSE '' END;
END $$;
-- The values, by a name that fits into a line.
CREATE TABLE hostile (kind text, name text, value text, PRIMARY KEY (kind, name));
INSERT INTO hostile VALUES
	('text', 'NULL', 'NULL'), ('text', 'empty', $$''$$), ('text', 'a blank', $$' '$$),
	('text', '10,000 bytes', $$repeat('x', 10000)$$), ('text', '10,000 random bytes', $$(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 313) i)$$),
	('text', '16 MB', $$repeat('x', 16 << 20)$$), ('huge', 'a text of 256 MB', $$repeat('x', 256 << 20)$$),
	('text', 'a newline', $$E'a\nb'$$), ('text', 'control characters', $$E'a\u0001\u001b[2Jb'$$), ('text', 'delete', $$E'a\u007fb'$$),
	('text', 'right to left', $$E'a\u202eb'$$), ('text', 'a zero width joiner', $$E'a\u200db'$$), ('text', 'beyond the first plane', $$E'\U0001F4A9-1'$$),
	('text', 'half a character', $$convert_from('\xc3', 'UTF8')$$), ('text', 'a surrogate', $$E'a\ud800'$$), ('text', 'zero', $$'a' || chr(0)$$),
	('text', 'reserved', $$'$all'$$), ('text', 'quotes', $$'a''"\{}(),%s%n'$$),
	('jsonb', 'SQL NULL', 'NULL'), ('jsonb', 'null', $$'null'$$), ('jsonb', 'a string', $$'"a"'$$), ('jsonb', 'a number', $$'1'$$), ('jsonb', 'an empty array', $$'[]'$$),
	('jsonb', 'an array of nulls', $$'[null]'$$), ('jsonb', 'depth 5,000', $$(repeat('[', 5000) || repeat(']', 5000))::jsonb$$),
	('jsonb', 'depth 1,000,000', $$repeat('[', 1000000)::jsonb$$), ('jsonb', 'objects 5,000 deep', $$(repeat('{"items":', 5000) || '1' || repeat('}', 5000))::jsonb$$),
	('jsonb', 'a zero character', $$'"\u0000"'::jsonb$$), ('jsonb', 'half a pair', $$'"\ud800"'::jsonb$$), ('jsonb', '1e400', $$'1e400'$$), ('jsonb', '1e200000', $$'1e200000'::jsonb$$),
	('huge', 'a string of 256 MB', $$to_jsonb(repeat('x', 256 << 20))$$), ('huge', '1,000,000 nulls', $$('[null' || repeat(',null', 999999) || ']')::jsonb$$),
	('jsonb', 'an empty key', $$'{"": {"": []}}'$$), ('jsonb', 'keys of a query, of other types', $$'{"items": [{"types": {"a": []}, "tags": 1}]}'$$),
	('huge', '1,000,000 items', $$jsonb_build_object('items', (SELECT jsonb_agg('{"types": ["A"]}'::jsonb) FROM generate_series(1, 1000000)))$$),
	('huge', '1,000,000 types', $$jsonb_build_object('items', jsonb_build_array(jsonb_build_object('types', (SELECT jsonb_agg('T' || i) FROM generate_series(1, 1000000) i))))$$),
	('jsonb', 'a tag of 10,000 bytes', $$jsonb_build_object('items', jsonb_build_array(jsonb_build_object('tags', jsonb_build_array(repeat('x', 10000)))))$$),
	('bigint', 'NULL', 'NULL'), ('bigint', '2^63 - 1', '9223372036854775807'), ('bigint', '-2^63', '(-9223372036854775808)'),
	('bigint', '2^63', '9223372036854775808::bigint'), ('bigint', '-3', '-3'), ('bigint', '0', '0'), ('bigint', '1,000,000', '1000000');

-- table_of(kind, call): what a call answers to each value of a kind.  Each call
-- is undone, so that it meets the same store as the one before it.
CREATE FUNCTION table_of(kind text, call text) RETURNS TABLE (name text, outcome text) LANGUAGE plpgsql AS $$
BEGIN
	FOR name, outcome IN SELECT h.name, h.value FROM hostile h WHERE h.kind = table_of.kind ORDER BY h.name COLLATE "C" LOOP
		BEGIN
			outcome := outcome(format(call, outcome));
			RAISE EXCEPTION USING ERRCODE = 'ZZZZZ';
		EXCEPTION WHEN SQLSTATE 'ZZZZZ' THEN
			RETURN NEXT;
		END;
	END LOOP;
END $$;
-- grid(kind, calls): one row a value, its outcome with each of the calls.
CREATE FUNCTION grid(kind text, VARIADIC calls text[]) RETURNS TABLE (name text, outcomes text) LANGUAGE sql AS $$
	SELECT t.name, string_agg(rpad(t.outcome, 5), ' ' ORDER BY n) FROM unnest(calls) WITH ORDINALITY c(call, n), table_of(kind, call) t GROUP BY 1 ORDER BY 1
$$;

SET client_min_messages = warning;
CREATE TABLE seen (n int);
SELECT es_append('s-1', 'A', '{}', tags => '{t:1}');
SELECT sum(total_bytes) AS before FROM pg_backend_memory_contexts \gset

-- stream id, type, tag, type of a command; names that define.  Characters that
-- change the direction of writing or have no width are letters like others (some
-- languages need them): names are compared byte by byte, and shown as they are.
SELECT * FROM grid('text', 'SELECT es_append(%s, ''A'', ''1'')', 'SELECT es_append(''s-1'', %s, ''1'')', 'SELECT es_append(''s-1'', ''A'', ''1'', tags => ARRAY[%s])',
	'INSERT INTO es_event (stream_id, event_type, data) VALUES (%s, ''A'', ''1'')', 'SELECT es_append_batch(%s, ''{A}'', ''{1}'')', 'SELECT es_append_batch(''s-1'', ARRAY[%s], ''{1}'')');
SELECT * FROM grid('text', 'SELECT es_read_stream(%s)', 'SELECT es_read_all(category => %s)', 'SELECT es_read_all(event_types => ARRAY[%s])', 'SELECT es_stream_version(%s)',
	'SELECT es_category(%s)', 'SELECT es_state(%s)', 'SELECT es_truncate_stream(%s, 1)', 'SELECT es_tombstone_stream(%s)', 'SELECT es_handle(%s, ''Go'')');
SELECT * FROM grid('text', 'SELECT es_create_projection(%s)', 'SELECT es_create_aggregate(%s, initial_state => ''0'')', 'SELECT es_create_event_type(%s)',
	'SELECT es_create_subscription(%s)', 'SELECT es_create_aggregate(''a'', initial_state => %s)', 'SELECT es_create_event_type(''A'', check_expression => %s)', 'SELECT es_create_event_type(''A'', tags => ARRAY[%s])');
-- data, metadata, queries, sets of events, commands
SELECT * FROM grid('jsonb', 'SELECT es_append(''s-1'', ''A'', %s)', 'SELECT es_append(''s-1'', ''A'', ''1'', metadata => %s)', 'SELECT es_append_batch(''s-1'', ''{A}'', ARRAY[%s]::jsonb[])',
	'SELECT es_read(%s)', 'SELECT es_read_boundary(%s)', 'SELECT es_append_if(''[{"type": "A", "data": 1}]'', %s)', 'SELECT es_append_if(%s, ''{"items": [{"tags": ["none"]}]}'')', 'SELECT es_handle(''s-1'', ''Go'', %s)');
-- what is huge
SELECT * FROM grid('huge', 'SELECT es_append((%s)::text, ''A'', ''1'')');
SELECT * FROM grid('huge', 'SELECT es_read(to_jsonb(%s))');
-- numbers
SELECT * FROM grid('bigint', 'SELECT es_append(''s-1'', ''A'', ''1'', %s)', 'SELECT es_append(''s-1'', ''A'', ''1'', expected_version => %s)', 'SELECT es_read_stream(''s-1'', %s)', 'SELECT es_read_stream(''s-1'', max_count => %s)',
	'SELECT es_read_all(%s)', 'SELECT es_read_all(max_count => %s)', 'SELECT es_read(''{}'', %s)', 'SELECT es_read(''{}'', 0, %s)', 'SELECT es_state(''s-1'', %s)', 'SELECT es_truncate_stream(''s-1'', %s)', 'SELECT es_wait_for(''none'', %s)', 'SELECT es_fetch(''none'', ''c'', (%s)::int)');
-- how many: none, and very many
SELECT n, outcome(format('SELECT es_append_batch(''s-1'', array_fill(''A''::text, ARRAY[%s]), array_fill(''1''::jsonb, ARRAY[%s]))', n, n)) AS batch,
	outcome(format('SELECT es_append(''s-1'', ''A'', ''1'', tags => ARRAY(SELECT ''t'' || i FROM generate_series(1, %s) i))', n)) AS tags,
	outcome(format('SELECT es_append_if((SELECT coalesce(jsonb_agg(''{"type": "A", "data": 1}''::jsonb), ''[]'') FROM generate_series(1, %s)), ''{}'')', n)) AS events,
	outcome(format('SELECT es_read_all(event_types => ARRAY(SELECT ''T'' || i FROM generate_series(1, %s) i))', n)) AS types FROM unnest('{0,1,100000}'::int[]) n;
-- memory came back
SELECT sum(total_bytes) < :before + (8 << 20) AS returned FROM pg_backend_memory_contexts;
SELECT check_name, status FROM es_check() WHERE status <> 'ok';

DROP EXTENSION eventstore CASCADE;
DROP FUNCTION grid, table_of, outcome;
DROP TABLE hostile, seen;
