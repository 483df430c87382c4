-- check: prove the store's invariants

-- Reads every event once by the table and once by each index.  Needs SELECT
-- on es_event.
CREATE FUNCTION es_check(
	OUT check_name text,
	OUT status     text,
	OUT detail     text
) RETURNS SETOF record
	AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL RESTRICTED ROWS 11;
COMMENT ON FUNCTION es_check() IS
	'prove the store''s invariants; status is ok or error';
