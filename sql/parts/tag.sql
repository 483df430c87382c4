-- tag: es_event_tag follows es_event

CREATE FUNCTION es_event_tag() RETURNS trigger
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION es_event_tag() IS
	'writes down the tags of an event that came by INSERT or COPY';

CREATE FUNCTION es_event_tag_guard() RETURNS trigger
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION es_event_tag_guard() IS
	'lets restored and replicated rows in, and refuses all other changes';

-- Fires before triggers of the same kind that users add and that come behind it
-- in the alphabet: those may ask for tags.
CREATE TRIGGER aa_es_event_tag AFTER INSERT ON es_event
	FOR EACH ROW WHEN (NEW.tags IS NOT NULL) EXECUTE FUNCTION es_event_tag();
ALTER TABLE es_event ENABLE ALWAYS TRIGGER aa_es_event_tag;

CREATE TRIGGER es_event_tag_guard BEFORE UPDATE OR DELETE OR TRUNCATE ON es_event_tag
	FOR EACH STATEMENT EXECUTE FUNCTION es_event_tag_guard();
CREATE TRIGGER es_event_tag_guard_row BEFORE INSERT OR UPDATE OR DELETE ON es_event_tag
	FOR EACH ROW EXECUTE FUNCTION es_event_tag_guard();
ALTER TABLE es_event_tag
	ENABLE ALWAYS TRIGGER es_event_tag_guard,
	ENABLE ALWAYS TRIGGER es_event_tag_guard_row;

CREATE TRIGGER es_retagged_guard BEFORE UPDATE OR DELETE OR TRUNCATE ON es_retagged
	FOR EACH STATEMENT EXECUTE FUNCTION es_event_tag_guard();
CREATE TRIGGER es_retagged_guard_row BEFORE INSERT OR UPDATE OR DELETE ON es_retagged
	FOR EACH ROW EXECUTE FUNCTION es_event_tag_guard();
ALTER TABLE es_retagged
	ENABLE ALWAYS TRIGGER es_retagged_guard,
	ENABLE ALWAYS TRIGGER es_retagged_guard_row;
