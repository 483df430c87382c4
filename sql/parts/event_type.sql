-- event_type: what is declared of event types
--
-- A declared type has versions; an append writes the newest.  A version may
-- have a check, an expression over event that must not be false, and tag
-- templates, from which the event gets tags besides those it is given.
-- Types that are not declared are free, unless eventstore.require_types is on.

CREATE TABLE es_event_type (
	event_type       text    COLLATE "C" NOT NULL,
	version          integer NOT NULL,
	check_expression text,
	tags             text[]  COLLATE "C",
	owner            regrole NOT NULL,
	search_path      text    NOT NULL,
	CONSTRAINT es_event_type_pkey PRIMARY KEY (event_type, version),
	CONSTRAINT es_event_type_version_check CHECK (version > 0)
);
COMMENT ON TABLE es_event_type IS 'event types that are declared, by version';
COMMENT ON COLUMN es_event_type.version IS 'version of the type; an append writes the newest';
COMMENT ON COLUMN es_event_type.check_expression IS 'SQL expression over event; an append for which it is false fails';
COMMENT ON COLUMN es_event_type.tags IS 'templates such as course:{courseId}, filled from the event''s data';
COMMENT ON COLUMN es_event_type.owner IS 'role with whose rights the expression runs';
COMMENT ON COLUMN es_event_type.search_path IS 'where the names in the expression are looked up';

CREATE TRIGGER es_definition_change BEFORE INSERT OR UPDATE OR DELETE ON es_event_type
	FOR EACH ROW EXECUTE FUNCTION es_definition_change('event type');
CREATE TRIGGER es_definition_truncate AFTER TRUNCATE ON es_event_type
	FOR EACH STATEMENT EXECUTE FUNCTION es_definition_change('event type');
ALTER TABLE es_event_type
	ENABLE ALWAYS TRIGGER es_definition_change,
	ENABLE ALWAYS TRIGGER es_definition_truncate;

SELECT pg_catalog.pg_extension_config_dump('es_event_type', '');

-- check_expression: over event, of which stream_id, event_type, type_version,
-- data, metadata and tags are known before it is stored; FALSE rejects (23514),
-- NULL does not, as in CHECK.  tags: templates, {a.b} stands for data -> a -> b;
-- an array gives a tag for each element, a value that is missing, null or an
-- object no tag; {{ stands for a brace.  A definition holds for events appended
-- after it is committed; stored ones are not looked at.  Writes es_event_type
-- with the caller's privileges.
CREATE FUNCTION es_create_event_type(
	event_type       text,
	version          integer DEFAULT 1,
	check_expression text    DEFAULT NULL,
	tags             text[]  DEFAULT NULL,
	if_not_exists    boolean DEFAULT false
) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_create_event_type(text, integer, text, text[], boolean) IS
	'declare an event type, or a new version of one';

-- version NULL: all of them.
CREATE FUNCTION es_drop_event_type(
	event_type text,
	version    integer DEFAULT NULL,
	if_exists  boolean DEFAULT false
) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_drop_event_type(text, integer, boolean) IS
	'take back the declaration of an event type; its events stay';
