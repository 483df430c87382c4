-- append: new events
--
-- expected_version: -1 any; -2 the stream must have events; 0 it must have
-- none; n it must be at version n.  If not: SQLSTATE 40001, constraint
-- es_expected_version, expected and actual version in the detail.
--
-- The same event ids again, with the same events, append nothing and answer
-- what the first call answered.  A bad name is 42602 (42622 too long), a NULL
-- 22004, any other bad argument 22023, an id of another event 23505.
-- Needs INSERT on es_event.

CREATE FUNCTION es_append(
	stream_id        text,
	event_type       text,
	data             jsonb,
	expected_version bigint DEFAULT -1,
	metadata         jsonb  DEFAULT NULL,
	event_id         uuid   DEFAULT NULL,
	tags             text[] DEFAULT NULL
) RETURNS bigint
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_append(text, text, jsonb, bigint, jsonb, uuid, text[]) IS
	'append one event; answers its version, which is the stream''s new one';

-- All of the batch or nothing.  Arrays have one element an event; one of tags
-- is a JSON array of strings, because SQL arrays cannot be ragged.
CREATE FUNCTION es_append_batch(
	stream_id        text,
	event_types      text[],
	data             jsonb[],
	expected_version bigint  DEFAULT -1,
	metadata         jsonb[] DEFAULT NULL,
	event_ids        uuid[]  DEFAULT NULL,
	tags             jsonb[] DEFAULT NULL
) RETURNS bigint
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_append_batch(text, text[], jsonb[], bigint, jsonb[], uuid[], jsonb[]) IS
	'append several events to one stream; answers the version of the last';

-- NULL before the session's first append.  After a retry, the position of
-- the event that was there; after an append that was rolled back, a position
-- that stays empty.
CREATE FUNCTION es_last_position() RETURNS bigint
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION es_last_position() IS
	'position of the last event that this session appended';
