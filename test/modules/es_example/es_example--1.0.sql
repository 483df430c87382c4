\echo Use "CREATE EXTENSION es_example" to load this file. \quit

CREATE FUNCTION es_example_add(event es_event) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
COMMENT ON FUNCTION es_example_add(es_event) IS
	'add the event''s amount to the row of its stream in table example_total';
