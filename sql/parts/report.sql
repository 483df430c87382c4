-- report: the store, or one of its streams, as a page for a browser
--
-- One HTML page that needs nothing else: no script, no font, no network.  It
-- reads a bounded part of the store, whatever its size, and says which figures
-- are estimates.  Of a long stream the first 50 and the last 150 events are
-- shown.  In psql: \t \a \o store.html, then SELECT es_report();
--
-- Needs SELECT on es_event.  42704 for a stream that never had an event.
CREATE FUNCTION es_report(stream_id text DEFAULT NULL) RETURNS text
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_report(text) IS
	'the store, or the timeline of a stream, as one HTML page';
