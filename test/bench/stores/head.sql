-- Classic design 2: a head row per stream holds its version and is updated by every append, in PL/pgSQL.
-- expected: -1 any, -2 the stream must exist, n it must be at version n.
\ir plain.sql

CREATE TABLE stream (
	stream_id	text COLLATE "C" PRIMARY KEY,
	version		bigint NOT NULL
) WITH (fillfactor = 50);	-- room for HOT updates

CREATE FUNCTION append(p_stream text, p_type text, p_data jsonb, p_expected bigint = -1, p_metadata jsonb = NULL)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	v_version bigint;
BEGIN
	INSERT INTO stream AS s (stream_id, version) VALUES (p_stream, 1)
	ON CONFLICT (stream_id) DO UPDATE SET version = s.version + 1
	RETURNING version INTO v_version;
	IF p_expected >= 0 AND p_expected <> v_version - 1 OR p_expected = -2 AND v_version = 1 THEN
		RAISE EXCEPTION 'stream "%" is at version %, not %', p_stream, v_version - 1, p_expected
			USING ERRCODE = 'serialization_failure';
	END IF;
	INSERT INTO event (stream_id, version, event_type, data, metadata)
	VALUES (p_stream, v_version, p_type, p_data, p_metadata);
	RETURN v_version;
END $$;

CREATE FUNCTION append_batch(p_stream text, p_types text[], p_data jsonb[], p_expected bigint = -1)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	v_count bigint := cardinality(p_types);
	v_version bigint;
BEGIN
	INSERT INTO stream AS s (stream_id, version) VALUES (p_stream, v_count)
	ON CONFLICT (stream_id) DO UPDATE SET version = s.version + v_count
	RETURNING version INTO v_version;
	IF p_expected >= 0 AND p_expected <> v_version - v_count OR p_expected = -2 AND v_version = v_count THEN
		RAISE EXCEPTION 'stream "%" is at version %, not %', p_stream, v_version - v_count, p_expected
			USING ERRCODE = 'serialization_failure';
	END IF;
	INSERT INTO event (stream_id, version, event_type, data)
	SELECT p_stream, v_version - v_count + e.n, e.type, e.data
	FROM unnest(p_types, p_data) WITH ORDINALITY AS e (type, data, n);
	RETURN v_version;
END $$;
