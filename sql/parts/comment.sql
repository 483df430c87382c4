-- comment: what \d, \df and \dx+ show of what the other parts made

DO $$
DECLARE
	extension oid := (SELECT e.oid FROM pg_catalog.pg_extension e WHERE e.extname OPERATOR(pg_catalog.=) 'eventstore');
	path text := pg_catalog.current_setting('search_path');
	r record;
BEGIN
	PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

	-- Trigger functions are nobody's to call: they sort behind all that is.
	FOR r IN
		SELECT p.oid::regprocedure AS signature, p.proname AS name
			FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid
			WHERE d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
			AND d.refclassid = 'pg_extension'::regclass AND d.refobjid = extension
			AND p.prorettype = 'trigger'::regtype AND p.proname NOT LIKE 'zz\_%'
	LOOP
		EXECUTE format('ALTER FUNCTION %s RENAME TO %I', r.signature, 'zz_' || r.name);
	END LOOP;

	-- A trigger does what its function says.
	FOR r IN
		SELECT t.tgname AS name, t.tgrelid::regclass AS relation, obj_description(t.tgfoid, 'pg_proc') AS text
			FROM pg_depend d JOIN pg_trigger t ON t.tgrelid = d.objid
			WHERE d.classid = 'pg_class'::regclass AND d.deptype = 'e'
			AND d.refclassid = 'pg_extension'::regclass AND d.refobjid = extension
			AND NOT t.tgisinternal AND obj_description(t.oid, 'pg_trigger') IS NULL
	LOOP
		EXECUTE format('COMMENT ON TRIGGER %I ON %s IS %L', r.name, r.relation, r.text);
	END LOOP;

	-- Columns that mean the same wherever they are, those of es_event first.
	FOR r IN
		SELECT a.attrelid::regclass AS relation, a.attname AS name, col_description(e.attrelid, e.attnum) AS text
			FROM pg_depend d JOIN pg_attribute a ON a.attrelid = d.objid AND a.attnum > 0
			JOIN pg_class c ON c.relname = 'es_event' AND c.relnamespace =
				(SELECT x.extnamespace FROM pg_extension x WHERE x.oid = extension)
			JOIN pg_attribute e ON e.attrelid = c.oid AND e.attname = a.attname AND e.atttypid = a.atttypid
			WHERE d.classid = 'pg_class'::regclass AND d.deptype = 'e'
			AND d.refclassid = 'pg_extension'::regclass AND d.refobjid = extension
			AND a.attname NOT IN ('position', 'stream_id', 'event_type')
			AND col_description(a.attrelid, a.attnum) IS NULL AND col_description(e.attrelid, e.attnum) IS NOT NULL
	LOOP
		EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', r.relation, r.name, r.text);
	END LOOP;
	FOR r IN
		SELECT a.attrelid::regclass AS relation, a.attname AS name, v.text
			FROM pg_depend d JOIN pg_attribute a ON a.attrelid = d.objid AND a.attnum > 0
			JOIN (VALUES
				('aggregate', 'name of the aggregate'),
				('archived_at', 'when it was archived'),
				('backend_start', 'when the process began'),
				('command_id', 'id that the command was sent with'),
				('command_type', 'type of the command'),
				('consumer', 'name of the consumer'),
				('consumers', 'consumers with a lease'),
				('created_at', 'when it was made'),
				('done', 'how much of it is done'),
				('entries', 'how many there are'),
				('error_handler', 'ordinal of the handler that failed last'),
				('error_position', 'position of the event that failed last'),
				('event_type', 'type of the events'),
				('events', 'how many events were dealt with'),
				('events_per_second', 'how fast it goes'),
				('first_hash', 'the least hash in it'),
				('first_position', 'position of the first event'),
				('first_segment', 'number of the first segment'),
				('greatest_id', 'the greatest event id'),
				('hold', 'what waits behind a parked event: the later events of its stream, or none'),
				('id', 'id of the event'),
				('in_flight', 'events that are delivered and not yet acknowledged'),
				('job', 'what is being done'),
				('lag_events', 'events that are settled and not yet dealt with'),
				('lag_seconds', 'age of the oldest of those'),
				('last_error', 'message of the last failure'),
				('last_position', 'position of the last event'),
				('last_segment', 'number of the last segment'),
				('least_id', 'the least event id'),
				('mode', 'inline: in the appending transaction; async: behind it'),
				('name', 'its name'),
				('offline_segments', 'segments whose events are kept elsewhere'),
				('oldest_unacked_seconds', 'age of the oldest event that is not acknowledged'),
				('on_error', 'what a failing handler does'),
				('owner', 'role that made it'),
				('parked', 'events that were put aside'),
				('parked_at', 'when the event was put aside'),
				('parked_by_reason', 'how many of those for each reason'),
				('partition', 'number of the partition, from 0'),
				('partitions', 'number of parts that the streams are split into'),
				('payload', 'the event''s data'),
				('phase', 'which part of the work is under way'),
				('pid', 'process that does it'),
				('position', 'place in the log'),
				('projection', 'name of the projection'),
				('raw_bytes', 'size before it was compressed'),
				('run', 'number of the run'),
				('run_at', 'when it last ran'),
				('segments', 'number of segments'),
				('singleton', 'always true: there is one row'),
				('skipped', 'events that were left out for good'),
				('started_at', 'when it began'),
				('status', 'how it is'),
				('stored_bytes', 'size as it is stored'),
				('stream_id', 'name of the stream'),
				('subscription', 'name of the subscription'),
				('table_name', 'the table'),
				('time_left', 'how long it will take at this speed'),
				('timestamp', 'when it was recorded'),
				('total', 'how much there is to do'),
				('traceparent', 'trace context, from the metadata'),
				('type', 'type of the event'),
				('updated_at', 'when this was written')
			) AS v(name, text) ON v.name = a.attname
			WHERE d.classid = 'pg_class'::regclass AND d.deptype = 'e'
			AND d.refclassid = 'pg_extension'::regclass AND d.refobjid = extension
			AND col_description(a.attrelid, a.attnum) IS NULL
	LOOP
		EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', r.relation, r.name, r.text);
	END LOOP;
	PERFORM set_config('search_path', path, true);
END
$$;
