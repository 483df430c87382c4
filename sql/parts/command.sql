-- command: from a command to the events it leads to, in one call
--
-- es_handle locks the stream before it looks at its state, so nothing can
-- come between the state a decision is based on and the events it leads to:
-- no decision is lost to a race, and none has to be tried again.

-- A row for each command that was given an id and was not rejected: what it
-- was, and what was answered.  The payload is there as a digest only.
CREATE TABLE es_command (
	command_id   uuid        NOT NULL,
	digest       uuid        NOT NULL,
	version      bigint      NOT NULL,
	handled_at   timestamptz NOT NULL,
	stream_id    text        COLLATE "C" NOT NULL,
	command_type text        COLLATE "C" NOT NULL,
	CONSTRAINT es_command_pkey PRIMARY KEY (command_id)
);
COMMENT ON TABLE es_command IS 'commands that were handled under an id, so that none is handled twice';
COMMENT ON COLUMN es_command.digest IS 'of aggregate, stream, command type and payload';
COMMENT ON COLUMN es_command.version IS 'what es_handle answered: the stream''s version after the command';
COMMENT ON COLUMN es_command.handled_at IS 'when the command was handled';

SELECT pg_catalog.pg_extension_config_dump('es_command', '');

-- Answers the stream's version after the command, the old one if no events
-- were decided.  A command that is rejected is the error P0001.  A command_id
-- that was handled before gets the first answer again and appends nothing;
-- for another command it is 22023.  Events carry the id as causation_id, and
-- as correlation_id where eventstore.metadata has none.
-- Needs SELECT and INSERT on es_event.
CREATE FUNCTION es_handle(
	stream_id    text,
	command_type text,
	command      jsonb DEFAULT '{}',
	command_id   uuid  DEFAULT NULL,
	aggregate    text  DEFAULT NULL
) RETURNS bigint
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_handle(text, text, jsonb, uuid, text) IS
	'handle a command: load the state, decide, append the events';
