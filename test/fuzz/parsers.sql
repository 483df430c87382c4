-- Made-up input for every parser that is reached by SQL: queries, templates,
-- events, CloudEvents, segments, options of the output plugin.
--
-- Each call is undone, so that it meets the same store as the one before it.
-- An error is an answer, an internal one (SQLSTATE XX...) is a finding: those of
-- stored data found damaged, XX001, are what es_import_segment may say.  The
-- variable "seconds" says how long each target takes, "seed" which inputs come.
\set ON_ERROR_STOP 1
SET client_min_messages = error;
CREATE EXTENSION eventstore;
SELECT es_create_event_type('Tagged', tags => ARRAY['n:{n}']);
SELECT count(es_append('s-' || i % 7, 'A', jsonb_build_object('n', i), tags => ARRAY['t:' || i % 5])) FROM generate_series(1, 300) i;
CREATE TABLE seen (n bigint);
CALL es_archive(before_position => 100, segment_events => 40);
SELECT pg_create_logical_replication_slot('fuzz', 'eventstore');
SELECT count(es_append('d-1', 'A', '{"n": 1}')) FROM generate_series(1, 3);

CREATE FUNCTION one_of(VARIADIC words text[]) RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT words[1 + floor(random() * cardinality(words))::int] $$;

-- A word of any kind; now and then changed at one place.
CREATE FUNCTION any_word() RETURNS text LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	word text := one_of('A', 'Tagged', 's-1', 't:1', 't:{n}', '{n}', '{n.m.o}', '{{n}}', '{', '}', '{}', 'a{b', 'x:{', '$all', '', ' ', '-', 'null',
		'1.0', '0.3', 'application/json', 'text/plain; charset="x', 'AA==', '!!', '2026-01-01T00:00:00Z', '2026-13-01', 'infinity',
		'00000000-0000-4000-8000-000000000001', '00000000', E'\u00fc\U0001F4A9', E'a\u202eb', E'\u0001', repeat('x', 255), repeat('x', 1025), repeat('{n}', 300));
BEGIN
	IF random() < 0.2 AND word <> '' THEN
		word := overlay(word PLACING one_of('{', '}', '.', ':', '\', '"', '', E'\n', chr(1 + floor(random() * 3000)::int))
			FROM 1 + floor(random() * length(word))::int FOR floor(random() * 2)::int);
	END IF;
	RETURN word;
END $$;

CREATE FUNCTION any_json(depth int) RETURNS jsonb LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	choice float := random() * CASE WHEN depth <= 0 THEN 0.45 ELSE 1 END;
BEGIN
	RETURN CASE
		WHEN choice < 0.3 THEN to_jsonb(any_word())
		WHEN choice < 0.4 THEN one_of('0', '-1', '1.5', '1e400', '9223372036854775808', '-9223372036854775808', '1e-300')::jsonb
		WHEN choice < 0.45 THEN one_of('null', 'true', 'false')::jsonb
		WHEN choice < 0.7 THEN (SELECT coalesce(jsonb_agg(any_json(depth - 1 + 0 * i)), '[]') FROM generate_series(1, floor(random() * 4)::int) i)
		ELSE (SELECT coalesce(jsonb_object_agg(one_of('items', 'types', 'tags', 'type', 'data', 'stream', 'metadata', 'id', 'specversion', 'source',
				'subject', 'time', 'datacontenttype', 'dataschema', 'data_base64', 'sequence', 'n', any_word()), any_json(depth - 1 + 0 * i)), '{}')
			FROM generate_series(1, floor(random() * 5)::int) i) END;
END $$;

-- What is nearly right: a part of the seed replaced, one or several times.
CREATE FUNCTION changed(seed jsonb) RETURNS jsonb LANGUAGE plpgsql VOLATILE AS $$
BEGIN
	IF random() < 0.35 THEN
		RETURN any_json(3);
	ELSIF jsonb_typeof(seed) = 'object' THEN
		RETURN (SELECT jsonb_object_agg(CASE WHEN random() < 0.03 THEN any_word() ELSE key END,
				CASE WHEN random() < 0.6 THEN value ELSE changed(value) END) FROM jsonb_each(seed) WHERE random() > 0.05);
	ELSIF jsonb_typeof(seed) = 'array' THEN
		RETURN (SELECT jsonb_agg(CASE WHEN random() < 0.6 THEN value ELSE changed(value) END)
			FROM jsonb_array_elements(seed), generate_series(1, 1 + floor(random() * 1.3)::int) WHERE random() > 0.05);
	END IF;
	RETURN any_json(1);
END $$;

CREATE FUNCTION changed(seed bytea) RETURNS bytea LANGUAGE plpgsql VOLATILE AS $$
BEGIN
	FOR i IN 0 .. floor(random() * 4)::int LOOP
		seed := CASE floor(random() * 5)::int
			WHEN 0 THEN substr(seed, 1, floor(random() * length(seed))::int)
			WHEN 1 THEN seed || substr(seed, 1 + floor(random() * length(seed))::int, floor(random() * 64)::int)
			ELSE CASE WHEN length(seed) = 0 THEN seed ELSE set_byte(seed, floor(random() ^ 3 * length(seed))::int,
				one_of('0', '1', '127', '128', '255', floor(random() * 256)::int::text)::int) END END;
	END LOOP;
	RETURN seed;
END $$;

-- %s stands for a made-up value, as a literal; "seed" is where it begins.
CREATE TABLE target (name text PRIMARY KEY, kind text, seed text, call text);
INSERT INTO target VALUES
	('query', 'jsonb', '{"items": [{"types": ["A"], "tags": ["t:1", "t:2"]}, {"tags": ["n:1"]}]}', 'SELECT count(*) FROM es_read(%s, max_count => 10)'),
	('boundary', 'jsonb', '{"items": [{"types": ["A"], "tags": ["t:1"]}]}', 'SELECT es_append_if(''[{"type": "A", "data": 1}]'', %s, 400)'),
	('events', 'jsonb', '[{"type": "Tagged", "data": {"n": 1}, "stream": "s-1", "tags": ["a"], "metadata": {"user": "u"}, "id": "00000000-0000-4000-8000-000000000001"}]',
		'SELECT es_append_if(%s, ''{"items": [{"tags": ["none"]}]}'')'),
	('events, tried', 'jsonb', '[{"type": "A", "data": 1}, {"type": "A", "data": {"n": 1}, "stream": "s-2"}]', 'SELECT * FROM es_try_append_if(%s, ''{"items": [{"tags": ["t:1"]}]}'')'),
	('data and metadata', 'jsonb', '{"n": 1, "user": "u"}', 'SELECT es_append(''s-1'', ''Tagged'', %1$s, metadata => %1$s)'),
	('template of a query', 'jsonb', '{"items": [{"types": ["A"], "tags": ["t:{n}", "u:{a.b}"]}]}',
		'SELECT es_create_aggregate(''a'', initial_state => ''0'', boundary => %s), es_evolve(''a'', ''A'', ''state''),
		es_decide(''a'', ''Go'', ''SELECT ''''A'''', ''''{}''''::jsonb, ARRAY[''''t:1'''']''); SELECT * FROM es_decide_dry(NULL, ''Go'', ''{"n": 1, "a": {"b": "c"}}'', ''a'')'),
	('template of a tag', 'text', 'n:{n}', 'SELECT es_create_event_type(''Other'', tags => ARRAY[%s]), es_append(''s-1'', ''Other'', ''{"n": 1, "m": {"o": "p"}}'')'),
	('cloudevent', 'jsonb', '{"specversion": "1.0", "id": "00000000-0000-4000-8000-000000000001", "source": "/s/s-1", "type": "A", "subject": "s-1", "time": "2026-01-01T00:00:00Z", "datacontenttype": "application/json", "data": {"n": 1}, "sequence": "1"}',
		'SELECT es_from_cloudevent(%s)'),
	('segment', 'bytea', NULL, 'SELECT es_import_segment(%s)');
UPDATE target SET seed = encode(es_export_segment(1), 'hex') WHERE kind = 'bytea';

CREATE TABLE result (name text, state text, n bigint, input text, PRIMARY KEY (name, state));
CREATE PROCEDURE fuzz(target target, seconds float) LANGUAGE plpgsql AS $$
DECLARE
	until timestamptz := clock_timestamp() + seconds * interval '1 s';
	input text;
	state text;
BEGIN
	WHILE clock_timestamp() < until LOOP
		FOR i IN 1 .. 100 LOOP
			input := CASE target.kind WHEN 'jsonb' THEN coalesce(changed(target.seed::jsonb), 'null')::text
				WHEN 'bytea' THEN '\x' || encode(changed(decode(target.seed, 'hex')), 'hex')
				ELSE one_of(target.seed, any_word(), any_word()) END;
			BEGIN
				EXECUTE format(target.call, quote_literal(input));
				RAISE EXCEPTION USING ERRCODE = 'ZZZZZ';
			EXCEPTION WHEN OTHERS THEN
				state := CASE SQLSTATE WHEN 'ZZZZZ' THEN 'taken' ELSE SQLSTATE END;
				IF state LIKE 'XX%' THEN
					state := state || ' ' || SQLERRM;
				END IF;
			END;
			INSERT INTO result AS r VALUES (target.name, state, 1, left(input, 2000)) ON CONFLICT ON CONSTRAINT result_pkey DO UPDATE SET n = r.n + 1;
		END LOOP;
		COMMIT;
	END LOOP;
END $$;

SELECT setseed(:seed);
SELECT sum(total_bytes) AS before FROM pg_backend_memory_contexts \gset
SELECT format('CREATE PROCEDURE fuzz_one() LANGUAGE plpgsql AS %L', format('DECLARE t target; BEGIN SELECT * INTO t FROM target WHERE name = %L; CALL fuzz(t, %s); END', name, :seconds)), 'CALL fuzz_one()', 'DROP PROCEDURE fuzz_one' FROM target ORDER BY name \gexec
\pset tuples_only off
SELECT name, sum(n) AS inputs, sum(n) FILTER (WHERE state = 'taken') AS taken, count(*) AS answers, string_agg(left(state, 40), ' ' ORDER BY n DESC) AS which FROM result GROUP BY 1 ORDER BY 1;
\pset tuples_only on
SELECT 'grown by ' || sum(total_bytes) - :before || ' bytes' FROM pg_backend_memory_contexts;
SELECT 'FINDING: ' || name || ': ' || state || ': ' || input FROM result WHERE state LIKE 'XX%' AND NOT (name = 'segment' AND state LIKE 'XX001%');
SELECT 'FINDING: es_check: ' || c::text FROM es_check() c WHERE status = 'error';
SELECT 'FINDING: memory does not come back' FROM pg_backend_memory_contexts HAVING sum(total_bytes) > :before + (64 << 20);

-- Options of the output plugin, each as a statement of its own: the server keeps
-- a slot that was caught failing.
\set ON_ERROR_STOP 0
\set VERBOSITY sqlstate
\o /dev/null
SELECT format('SELECT count(*) FROM pg_logical_slot_peek_changes(''fuzz'', NULL, 3, %L, %L)',
		one_of('format', 'types', 'category', 'source', any_word()), one_of('on', 'cloudevents', 'plain', 'A,B', 's', '', any_word()))
	FROM generate_series(1, 500) \gexec
\o
SELECT pg_drop_replication_slot('fuzz') IS NULL;
