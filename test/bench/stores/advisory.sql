-- Classic design 1: an advisory lock on the stream, then max(version) + 1, in PL/pgSQL.
-- expected: -1 any, -2 the stream must exist, n it must be at version n.
\ir plain.sql

CREATE FUNCTION append(p_stream text, p_type text, p_data jsonb, p_expected bigint = -1, p_metadata jsonb = NULL)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	v_version bigint;
BEGIN
	PERFORM pg_advisory_xact_lock(hashtextextended(p_stream, 0));
	SELECT coalesce(max(version), 0) INTO v_version FROM event WHERE stream_id = p_stream;
	IF p_expected >= 0 AND p_expected <> v_version OR p_expected = -2 AND v_version = 0 THEN
		RAISE EXCEPTION 'stream "%" is at version %, not %', p_stream, v_version, p_expected
			USING ERRCODE = 'serialization_failure';
	END IF;
	INSERT INTO event (stream_id, version, event_type, data, metadata)
	VALUES (p_stream, v_version + 1, p_type, p_data, p_metadata);
	RETURN v_version + 1;
END $$;

CREATE FUNCTION append_batch(p_stream text, p_types text[], p_data jsonb[], p_expected bigint = -1)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	v_version bigint;
BEGIN
	PERFORM pg_advisory_xact_lock(hashtextextended(p_stream, 0));
	SELECT coalesce(max(version), 0) INTO v_version FROM event WHERE stream_id = p_stream;
	IF p_expected >= 0 AND p_expected <> v_version OR p_expected = -2 AND v_version = 0 THEN
		RAISE EXCEPTION 'stream "%" is at version %, not %', p_stream, v_version, p_expected
			USING ERRCODE = 'serialization_failure';
	END IF;
	INSERT INTO event (stream_id, version, event_type, data)
	SELECT p_stream, v_version + e.n, e.type, e.data
	FROM unnest(p_types, p_data) WITH ORDINALITY AS e (type, data, n);
	RETURN v_version + cardinality(p_types);
END $$;
