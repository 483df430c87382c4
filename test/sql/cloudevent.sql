-- cloudevent: events in the form of CloudEvents 1.0, and back; the outbox
CREATE EXTENSION eventstore;
CREATE FUNCTION try(event jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE detail text;
BEGIN
	RETURN es_from_cloudevent(event);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN concat_ws(' | ', SQLSTATE, SQLERRM, nullif(detail, ''));
END $$;
SET eventstore.source = 'https://shop.example/orders';
SELECT es_append('order-1', 'Placed', '{"total": 12.50, "by": "Zoë \"Z\" \\"}', event_id => '00000000-0000-7000-8000-000000000001');
SELECT es_append('order-1', 'Paid', 'null', event_id => '00000000-0000-7000-8000-000000000002', tags => '{a:1,"b:\"2\""}',
	metadata => '{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "x=1", "correlation_id": "c1", "causation_id": "c0",
		"user": "u1", "admin": true, "shard": 7, "huge": 5000000000, "ratio": 0.5, "Tenant": "t", "roles": ["x"], "none": null,
		"id": "mine", "source": "web", "correlationid": "other", "dataschema": "https://shop.example/paid.json", "partitionkey": "p"}');
SELECT es_append('order-1', 'Odd', '"aGk="', event_id => '00000000-0000-7000-8000-000000000003',
	metadata => '{"traceparent": 1, "dataschema": "not a uri", "datacontenttype": "application/json", "data_base64": true, "line": "a\nb", "cloudevent": {"id": "x"}, "metadata": {"m": 1}, "tags": "t"}');
SELECT es_append('order-1', 'Raw', '"aGk="', event_id => '00000000-0000-7000-8000-000000000004', metadata => '{"datacontenttype": "image/png", "data_base64": true}');
SELECT es_append('order-1', 'Bare', '[]', event_id => '00000000-0000-7000-8000-000000000005', metadata => '{}', tags => '{}');
SELECT es_append('order-1', 'Same', '{}', event_id => '00000000-0000-7000-8000-000000000006', metadata => '{"partitionkey": "order-1", "user": "u"}');

SELECT jsonb_pretty(es_to_cloudevent(e) - 'time') FROM es_event e ORDER BY position;
SELECT bool_and(es_to_cloudevent(e) ->> 'time' ~ '^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z$' AND (es_to_cloudevent(e) ->> 'time')::timestamptz = recorded_at) AS time FROM es_event e;
-- There and back: the same event, to the last member.
SELECT version, es_from_cloudevent(es_to_cloudevent(e)) = e AS same FROM es_event e ORDER BY position;
-- And there again.
SELECT version, es_to_cloudevent(es_from_cloudevent(es_to_cloudevent(e))) = es_to_cloudevent(e) AS same FROM es_event e ORDER BY position;

-- An event that is not stored yet; one that cannot be.
SELECT es_to_cloudevent(ROW(NULL, NULL, NULL, '00000000-0000-0000-0000-000000000001', NULL, 's', 'T', '1', NULL, NULL));
SELECT es_to_cloudevent(ROW(NULL, NULL, 'infinity', NULL, NULL, 's', 'T', '1', NULL, NULL));
SELECT es_to_cloudevent(ROW(NULL, NULL, NULL, '00000000-0000-0000-0000-000000000001', NULL, NULL, 'T', '1', NULL, NULL));
SELECT es_to_cloudevent(NULL), es_from_cloudevent(NULL);
-- The source.
RESET eventstore.source;
SELECT es_to_cloudevent(e) ->> 'source' = 'postgresql:///' || current_database() FROM es_event e LIMIT 1;
SET eventstore.source = 'not a uri';
SET eventstore.source = '%zz';

-- Events from elsewhere.
SET eventstore.source = '/own';
\set foreign '{"specversion": "1.0", "id": "A-234", "source": "/other", "type": "com.example.thing", "subject": "thing-1", "time": "2026-04-05t17:31:00.25+02:00", "sequence": "42", "partitionkey": "k", "comexampleextension": 5, "nothing": null, "datacontenttype": "text/xml; charset=utf-8", "data": "<a/>"}'
SET timezone = 'UTC';
SELECT * FROM es_from_cloudevent(:'foreign') \gx
-- Its event id is a UUID of version 5, so that it is a retry when it comes again.
SELECT (es_from_cloudevent(:'foreign')).event_id = (es_from_cloudevent(:'foreign'::jsonb || '{"data": 1}')).event_id AS same,
	(es_from_cloudevent(:'foreign')).event_id = (es_from_cloudevent(:'foreign'::jsonb || '{"source": "/third"}')).event_id AS other;
INSERT INTO es_event (stream_id, event_type, data, metadata, event_id)
	SELECT stream_id, event_type, data, metadata, event_id FROM es_from_cloudevent(:'foreign');
-- It leaves under its own name.
SELECT es_to_cloudevent(e) - 'time' FROM es_event e WHERE stream_id = 'thing-1';
SELECT n, try(('{"specversion": "1.0", "id": "1", "source": "/s", "type": "T"}'::jsonb || more::jsonb) - without) FROM (VALUES
	(1, '{}', ''), (2, '{}', 'specversion'), (3, '{}', 'id'), (4, '{}', 'source'), (5, '{}', 'type'), (6, '{"specversion": "0.3"}', ''), (7, '{"specversion": 1.0}', ''),
	(8, '{"id": ""}', ''), (9, '{"id": 5}', ''), (10, '{"source": "a b"}', ''), (11, '{"type": "$all"}', ''), (12, '{"type": null}', ''), (13, '{"subject": ["x"]}', ''),
	(14, '{"time": "yesterday"}', ''), (15, '{"time": "2026-13-01T00:00:00Z"}', ''), (16, '{"time": "2026-01-01 00:00:00Z"}', ''), (17, '{"time": "2026-01-01T00:00:00"}', ''),
	(18, '{"data": 1, "data_base64": "aGk="}', ''), (19, '{"data_base64": "a*"}', ''), (20, '{"data_base64": 5}', ''), (21, '{"data_base64": "eyJhIjogMX0="}', ''),
	(22, '{"data_base64": "eyJhIg=="}', ''), (23, '{"data_base64": "/w=="}', ''), (24, '{"data_base64": "/w==", "datacontenttype": "image/png"}', ''),
	(25, '{"ext": {"a": 1}}', ''), (26, '{"ext": 1.5}', ''), (27, '{"ext": 5000000000}', ''), (28, '{"Ext": "1"}', ''), (29, '{"ext_1": "1"}', ''), (30, '{"sequence": 5}', ''),
	(31, '{"sequence": "x", "streamversion": "1", "typeversion": "a"}', ''), (32, '{"sequence": "99999999999999999999", "streamversion": "1"}', ''), (33, '{"sequence": "7", "streamversion": "2", "typeversion": 3}', ''),
	(34, '{"tags": "[1]", "metadata": "[1]"}', ''), (35, '{"tags": "oops", "metadata": "{"}', ''), (36, '{"tags": "[]", "metadata": "{}"}', ''), (37, '{"data": null}', ''), (38, '{"datacontenttype": 1}', ''),
	(39, '{"correlationid": "c", "causationid": 3, "cloudevent": "x"}', ''), (40, '{"metadata": "{\"cloudevent\": {\"id\": \"forged\", \"source\": \"/forged\"}}"}', ''), (41, '{"data_base64": null, "data": {"a": [1]}}', '')) v(n, more, without) ORDER BY n;
SELECT try('[]'), try('"x"'), try(jsonb_build_object('specversion', '1.0', 'id', '1', 'source', '/s', 'type', repeat('x', 300)));
SELECT try(jsonb_build_object('specversion', '1.0', 'id', '1', 'source', '/s', 'type', 'T', 'subject', repeat('x', 1025)));

-- The outbox is the log.
SELECT id, aggregatetype, aggregateid, type, payload, "timestamp" IS NOT NULL AS timed, traceparent, position FROM es_outbox ORDER BY position;
SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'es_outbox'::regclass AND attnum > 0 ORDER BY attnum;

-- What is published.
SET client_min_messages = error;	-- of a server below wal_level logical
SELECT es_create_publication('regress_es_Pub');
SELECT pubinsert, pubupdate, pubdelete, pubtruncate, string_agg(prrelid::regclass::text, ' ' ORDER BY prrelid::regclass::text)
	FROM pg_publication p JOIN pg_publication_rel ON prpubid = p.oid GROUP BY p.oid;
SELECT es_create_publication('regress_es_Pub');
SELECT es_create_publication(NULL);
DROP PUBLICATION "regress_es_Pub";
SELECT zz_es_settled_arrive();
DROP FUNCTION try;
DROP EXTENSION eventstore;
