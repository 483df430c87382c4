-- stream: names and versions

CREATE FUNCTION es_category(stream_id text) RETURNS text
	AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION es_category(text) IS
	'category of a stream: the part of its id before the first "-", or all of it';

-- 0 for a stream without events.
CREATE FUNCTION es_stream_version(stream_id text) RETURNS bigint
	AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION es_stream_version(text) IS
	'version of the stream''s last event, 0 without events';
