-- decider: what an aggregate answers to a command
--
-- A decider is a query over state, command and stream_id; its rows are the
-- events to append, and an optional reason to reject.

CREATE TABLE es_decider (
	aggregate    text COLLATE "C" NOT NULL,
	command_type text COLLATE "C" NOT NULL,
	query        text NOT NULL,
	reject       text,
	CONSTRAINT es_decider_pkey PRIMARY KEY (aggregate, command_type),
	CONSTRAINT es_decider_aggregate_fkey FOREIGN KEY (aggregate)
		REFERENCES es_aggregate ON UPDATE CASCADE ON DELETE CASCADE
);
COMMENT ON TABLE es_decider IS 'what an aggregate decides on a command';
COMMENT ON COLUMN es_decider.query IS 'query over state, command and stream_id; each row is an event: type, data, and if wanted metadata, tags and stream';
COMMENT ON COLUMN es_decider.reject IS 'expression or query over the same; its value is the reason to reject the command, NULL to accept it';

CREATE TRIGGER es_definition_change BEFORE INSERT OR UPDATE OR DELETE ON es_decider
	FOR EACH ROW EXECUTE FUNCTION es_definition_change('aggregate');
CREATE TRIGGER es_definition_truncate AFTER TRUNCATE ON es_decider
	FOR EACH STATEMENT EXECUTE FUNCTION es_definition_change();
ALTER TABLE es_decider
	ENABLE ALWAYS TRIGGER es_definition_change,
	ENABLE ALWAYS TRIGGER es_definition_truncate;

SELECT pg_catalog.pg_extension_config_dump('es_decider', '');

-- query gives rows of (event_type text, data jsonb, metadata jsonb, tags
-- text[], stream_id text), the last three only if wanted, in this order or
-- under these names; stream_id only where the aggregate has a boundary.  reject
-- is an expression, or a query
-- of one column and at most one row; its text is the message of the error
-- P0001.  Both run with the rights of the aggregate's owner.  Defining a
-- command again replaces it.
CREATE FUNCTION es_decide(
	aggregate    text,
	command_type text,
	query        text,
	reject       text DEFAULT NULL
) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_decide(text, text, text, text) IS
	'define what an aggregate decides on a command: a query that gives the events, and a reason to reject';

CREATE FUNCTION es_drop_decider(
	aggregate    text,
	command_type text,
	if_exists    boolean DEFAULT false
) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_drop_decider(text, text, boolean) IS
	'drop an aggregate''s answer to a command';
