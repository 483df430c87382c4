-- check: the store's doctor

-- First what is installed and whether it is looked after, then every event:
-- once by the table, once by each index, and the indexes themselves where
-- amcheck is installed.  Writes nothing.  max_time: what is not done by then
-- is reported as not finished, as a warning.  Needs SELECT on es_event.
CREATE FUNCTION es_check(
	max_time interval DEFAULT NULL,
	OUT check_name text,
	OUT status     text,
	OUT detail     text,
	OUT hint       text
) RETURNS SETOF record
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 17;
COMMENT ON FUNCTION es_check(interval) IS
	'prove the store''s invariants and look at its health; status is ok, warning or error';
