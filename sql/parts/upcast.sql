-- upcast: stored events shown in the newest form of their type
--
-- An upcaster gives the data that an event of the next version would have had.
-- The readers go along the chain: from 1 to 2, from 2 to 3, as far as there
-- are upcasters.  What is stored never changes, and SELECT … FROM es_event
-- shows it, as do the readers with raw => true.

CREATE TABLE es_upcaster (
	event_type   text    COLLATE "C" NOT NULL,
	from_version integer NOT NULL,
	expression   text    NOT NULL,
	new_type     text    COLLATE "C",
	owner        regrole NOT NULL,
	search_path  text    NOT NULL,
	CONSTRAINT es_upcaster_pkey PRIMARY KEY (event_type, from_version),
	CONSTRAINT es_upcaster_from_version_check CHECK (from_version > 0)
) WITH (user_catalog_table = true);
-- Logical decoding looks back into the table itself, but not into its TOAST
-- table.
ALTER TABLE es_upcaster
	ALTER COLUMN expression SET STORAGE MAIN,
	ALTER COLUMN search_path SET STORAGE MAIN;
COMMENT ON TABLE es_upcaster IS 'how events of a version of their type are shown as the next one';
COMMENT ON COLUMN es_upcaster.from_version IS 'version that it applies to; it leads to the next';
COMMENT ON COLUMN es_upcaster.expression IS 'SQL expression over event; its value is the data of the next version';
COMMENT ON COLUMN es_upcaster.new_type IS 'event type from the next version on; NULL: the same';
COMMENT ON COLUMN es_upcaster.owner IS 'role with whose rights the expression runs';
COMMENT ON COLUMN es_upcaster.search_path IS 'where the names in the expression are looked up';

CREATE TRIGGER es_definition_change BEFORE INSERT OR UPDATE OR DELETE ON es_upcaster
	FOR EACH ROW EXECUTE FUNCTION es_definition_change('the upcasters of event type');
CREATE TRIGGER es_definition_truncate AFTER TRUNCATE ON es_upcaster
	FOR EACH STATEMENT EXECUTE FUNCTION es_definition_change('the upcasters of event type');
ALTER TABLE es_upcaster
	ENABLE ALWAYS TRIGGER es_definition_change,
	ENABLE ALWAYS TRIGGER es_definition_truncate;

SELECT pg_catalog.pg_extension_config_dump('es_upcaster', '');

-- Defining it again replaces it.  The expression is tried on a few of the
-- newest stored events of the version, if there are any near the end of the
-- log.  Snapshots made before are worth nothing from then on.
CREATE FUNCTION es_upcast(
	event_type   text,
	from_version integer,
	expression   text,
	new_type     text DEFAULT NULL
) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_upcast(text, integer, text, text) IS
	'define how events of a version of their type are shown as the next one';

CREATE FUNCTION es_drop_upcaster(
	event_type   text,
	from_version integer,
	if_exists    boolean DEFAULT false
) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_drop_upcaster(text, integer, boolean) IS
	'let events of a version be shown as they are again';
