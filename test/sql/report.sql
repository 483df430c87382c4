-- report: the page, as far as it can be judged without a browser
CREATE EXTENSION eventstore;
SET TimeZone = 'UTC';
-- What a page says, as text: markup taken away, references resolved as far as needed here.
CREATE FUNCTION section(page text, heading text) RETURNS text LANGUAGE sql AS $$
	SELECT trim(regexp_replace(regexp_replace(regexp_replace(regexp_replace(
		substring(page FROM '<h2>' || heading || '</h2>(.*?)</section>'),
		'<svg.*?</svg>', '', 'g'), '<details>.*?</details>', '', 'g'), '<(tr|td|th|li|h3|pre|p|div|span|h4)\M[^>]*>', ' ', 'g'), '<[^>]*>', '', 'g'))
$$;
CREATE FUNCTION tile(page text, id text) RETURNS text LANGUAGE sql AS $$
	SELECT substring(page FROM 'id="' || id || '" data-value="([^"]*)"')
$$;

-- A store without events.
SELECT section(page, 'Event types') AS types, section(page, 'Projections') AS projections, section(page, 'Largest streams') AS largest,
	section(page, 'Busiest streams') AS busiest, tile(page, 'events') AS events, page LIKE '%Since the first event%' AS life, page LIKE '<!DOCTYPE html>%</html>' || chr(10) AS whole
	FROM es_report() page;

SELECT count(es_append('s-' || n % 3, CASE WHEN n % 4 = 0 THEN 'Even' ELSE 'Odd' END, jsonb_build_object('n', n))) FROM generate_series(1, 10) n;
SELECT section(page, 'Event types') AS types, regexp_replace(section(page, 'Largest streams'), '\d{4}-[-0-9: ]+', 'TIME ', 'g') AS largest,
	tile(page, 'events') AS events, tile(page, 'streams') AS streams, tile(page, 'health') AS health FROM es_report() page;
-- Asked inside the transaction that appends, it shows that, too.
BEGIN;
SELECT es_append('s-9', 'Own', '{}');
SELECT tile(page, 'events') AS events, position('Own' IN section(page, 'Event types')) > 0 AS own FROM es_report() page;
ROLLBACK;

-- A stream without an aggregate, with one, with several, and with one that fails.
SELECT regexp_replace(section(es_report('s-1'), 'Events'), '\d{4}-[-0-9: ]+', 'TIME ', 'g');
SELECT es_create_aggregate('sum', category => 's', initial_state => '{"sum": 0, "names": []}');
SELECT es_evolve('sum', 'Odd', $$ jsonb_set(state, '{sum}', to_jsonb((state ->> 'sum')::int + (event.data ->> 'n')::int)) $$);
SELECT regexp_replace(section(es_report('s-1'), 'Events'), '\d{4}-[-0-9: ]+', 'TIME ', 'g');
SELECT regexp_matches(es_report('s-1'), '<mark>.*?</mark>', 'g');
SELECT es_create_aggregate('z last', category => 's');
SELECT split_part(section(es_report('s-1'), 'Events'), '  ', 1);
SELECT es_evolve('sum', 'Even', $$ to_jsonb(1 / 0) $$);
SELECT es_evolve('sum', 'Even', $$ to_jsonb(1 / ((state ->> 'sum')::int - (state ->> 'sum')::int)) $$);
SELECT left(section(es_report('s-1'), 'Events'), 90);
SELECT es_drop_aggregate('sum'), es_drop_aggregate('z last');

-- Upcast, truncated, deleted, unknown.
SELECT es_create_event_type('Odd', 2);
SELECT es_upcast('Odd', 1, $$ event.data || '{"upcast": true}' $$);
SELECT section(es_report('s-1'), 'Events') ~ 'upcast' AS upcast;
SELECT es_truncate_stream('s-1', 3);
SELECT tile(page, 'version') AS version, page LIKE '%events before version 3 are truncated%' AS says_so, page LIKE '%id="v2"%' AS v2, page LIKE '%id="v3"%' AS v3 FROM es_report('s-1') page;
SELECT es_delete_stream('s-1');
SELECT section(es_report('s-1'), 'Nothing to show');
SELECT es_report('s-404');
SELECT es_report('');

-- Long streams: both ends, with the states of an aggregate that has no snapshots, and of one that has.
SELECT count(es_append('long-1', 'Odd', jsonb_build_object('n', 1))) FROM generate_series(1, 400) n;
SELECT es_create_aggregate('long', initial_state => '0', snapshot_every => NULL);
SELECT es_evolve('long', 'Odd', $$ to_jsonb((state #>> '{}')::int + 1) $$);
CREATE VIEW ends AS
	SELECT count(*) AS shown, bool_and(v.version = v.state) AS right_state, min(version) FILTER (WHERE version > 50) AS again, page LIKE '%>200 events, versions 51 to 250, are not shown<%' AS says_so
	FROM (SELECT es_report('long-1')) r(page),
		LATERAL (SELECT m[1]::int, m[2]::int FROM regexp_matches(page, '<li id="v(\d+?)">.*?<pre class=state>(?:<mark>)?<bdi>(\d+)<', 'g') m) v(version, state) GROUP BY page;
TABLE ends;
SELECT es_take_snapshot('long-1');
TABLE ends;

-- A large store is estimated, and the page says where; both charts come near the truth.
SELECT es_append_batch('wide-' || n % 7, array_fill('Many'::text, ARRAY[1000]), array_fill('{}'::jsonb, ARRAY[1000])) > 0 AS appended FROM generate_series(1, 30) n;
BEGIN;
SELECT count(es_append('none-' || n, 'Gone', '{}')) FROM generate_series(1, 5000) n;
ROLLBACK;
SELECT es_append_batch('more-1', array_fill('Many'::text, ARRAY[5000]), array_fill('{}'::jsonb, ARRAY[5000]));
SELECT heading, section LIKE '%Estimated from samples%' AS says_so, abs(total / (SELECT count(*) FROM es_event) - 1) < 0.05 AS near
	FROM (SELECT es_report() AS page) r, unnest(ARRAY['The last 24 hours', 'Since the first event', 'Event types']) heading,
		LATERAL (SELECT substring(page FROM '<h2>' || heading || '</h2>(.*?)</section>')) s(section),
		LATERAL (SELECT sum(m[1]::numeric) / CASE heading WHEN 'Event types' THEN 1 ELSE 2 END FROM regexp_matches(section, 'data-value=(\d+)', 'g') m) t(total);
SELECT regexp_replace(section(es_report(), 'Largest streams'), '\d{4}-[-0-9: ]+', 'TIME ', 'g');

-- Who may: SELECT on es_event is needed, and the right to call it.
CREATE ROLE regress_es_report;
SET ROLE regress_es_report;
SELECT es_report();
RESET ROLE;
GRANT EXECUTE ON FUNCTION es_report TO regress_es_report;
SET ROLE regress_es_report;
SELECT es_report();
RESET ROLE;
SELECT es_grant('regress_es_report', 'admin');
SET ROLE regress_es_report;
SELECT tile(es_report(), 'events')::int > 30000 AS events;
SELECT es_report('long-1') LIKE '%id="v400"%' AS stream;
RESET ROLE;
DROP OWNED BY regress_es_report;
DROP ROLE regress_es_report;
DROP VIEW ends;
DROP FUNCTION section(text, text), tile(text, text);
DROP EXTENSION eventstore;
