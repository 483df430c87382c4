-- track: changes of ordinary tables as events

-- What es_track_table puts on a table.
CREATE FUNCTION es_track_change() RETURNS trigger
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION es_track_change() IS
	'appends an event for each changed row of a tracked table, and refuses to truncate it';

-- From now on each change of a row appends an event to the stream
-- <category>-<key>: <category>.inserted {"new": row}, <category>.updated
-- {"new": row, "old": what was different}, <category>.deleted {"old": row}.
-- The key is the primary key unless key_columns, all NOT NULL, say otherwise.
-- except_columns never get into an event.  include_existing begins with an
-- inserted event for each row there is.  For the table's owner, who must be a
-- writer: events are appended in the owner's name, whoever changes a row.
CREATE FUNCTION es_track_table(
	table_name       regclass,
	category         text    DEFAULT NULL,
	key_columns      text[]  DEFAULT NULL,
	except_columns   text[]  DEFAULT NULL,
	include_existing boolean DEFAULT false,
	if_not_exists    boolean DEFAULT false
) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_track_table(regclass, text, text[], text[], boolean, boolean) IS
	'append an event for each change of a row of a table from now on';

CREATE FUNCTION es_untrack_table(
	table_name regclass,
	if_exists  boolean DEFAULT false
) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_untrack_table(regclass, boolean) IS
	'append no more events for changes of a table; those that are there stay';

-- The argument ends with a zero byte, like each argument of a trigger.
CREATE VIEW es_tracked_table AS
	SELECT tracked.table_name, tracked.settings ->> 'category' AS category,
		   ARRAY(SELECT pg_catalog.jsonb_array_elements_text(tracked.settings -> 'key_columns')) AS key_columns,
		   ARRAY(SELECT pg_catalog.jsonb_array_elements_text(tracked.settings -> 'except_columns')) AS except_columns,
		   tracked.enabled
		FROM (SELECT t.tgrelid::regclass AS table_name, t.tgenabled IN ('O', 'A') AS enabled,
					 pg_catalog.convert_from(pg_catalog.substr(t.tgargs, 1, pg_catalog.length(t.tgargs) - 1),
											 pg_catalog.getdatabaseencoding())::jsonb AS settings
				FROM pg_catalog.pg_trigger t
				WHERE t.tgfoid = 'es_track_change'::regproc AND t.tgparentid = 0
				AND t.tgname = '_es_track_row' AND t.tgnargs = 1) AS tracked;
COMMENT ON VIEW es_tracked_table IS 'tables whose changes are appended as events';
COMMENT ON COLUMN es_tracked_table.category IS 'streams are named after it and the row''s key';
COMMENT ON COLUMN es_tracked_table.key_columns IS 'what tells rows apart; empty: the primary key';
COMMENT ON COLUMN es_tracked_table.except_columns IS 'columns that are left out of the events';
COMMENT ON COLUMN es_tracked_table.enabled IS 'false where the trigger has been disabled';
