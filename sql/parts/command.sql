-- command: from a command to the events it leads to, in one call
--
-- es_handle locks the stream, or the boundary, before it looks at its state, so
-- nothing can come between the state a decision is based on and the events it
-- leads to: no decision is lost to a race, and none has to be tried again.

-- A row for each command that was given an id and was not rejected: what it
-- was, and what was answered.  The payload is there as a digest only.
CREATE TABLE es_command (
	command_id   uuid        NOT NULL,
	digest       uuid        NOT NULL,
	version      bigint      NOT NULL,
	handled_at   timestamptz NOT NULL,
	stream_id    text        COLLATE "C",
	command_type text        COLLATE "C" NOT NULL,
	CONSTRAINT es_command_pkey PRIMARY KEY (command_id)
);
COMMENT ON TABLE es_command IS 'commands that were handled under an id, so that none is handled twice';
COMMENT ON COLUMN es_command.digest IS 'of aggregate, stream, command type and payload';
COMMENT ON COLUMN es_command.version IS 'what es_handle answered: the stream''s version after the command, or the boundary''s last position';
COMMENT ON COLUMN es_command.handled_at IS 'when the command was handled';
COMMENT ON COLUMN es_command.stream_id IS 'stream that the command named, if it named one';

SELECT pg_catalog.pg_extension_config_dump('es_command', '');

-- Answers the stream's version after the command, the old one if no events
-- were decided.  A command that is rejected is the error P0001.  A command_id
-- that was handled before gets the first answer again and appends nothing;
-- for another command it is 22023.  Events carry the id as causation_id, and
-- as correlation_id where eventstore.metadata has none.
--
-- Where the aggregate has a boundary, the command decides on the events that
-- match it, and what is answered is the position of the last of the new
-- events, or without any of the last one that matches.  stream_id may then be
-- NULL: it is the stream of events to which the decider gives none; an event
-- with neither gets one of its own, as in es_append_if.
--
-- In REPEATABLE READ and SERIALIZABLE a stream, or a boundary, that is newer
-- than the transaction's snapshot is 40001.  Needs SELECT and INSERT on
-- es_event.
CREATE FUNCTION es_handle(
	stream_id    text,
	command_type text,
	command      jsonb DEFAULT '{}',
	command_id   uuid  DEFAULT NULL,
	aggregate    text  DEFAULT NULL
) RETURNS bigint
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_handle(text, text, jsonb, uuid, text) IS
	'handle a command: load the state of a stream or a boundary, decide, append the events';
