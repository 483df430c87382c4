-- match: walks along tags, whether a row has to be looked at or all of its page is visible to everybody
CREATE EXTENSION eventstore;
CREATE FUNCTION item(n int) RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_build_object('types', (SELECT coalesce(jsonb_agg(t), '[]') FROM (VALUES ('A', 1), ('B', 2)) v(t, b) WHERE n & b > 0),
		'tags', (SELECT coalesce(jsonb_agg(t), '[]') FROM (VALUES ('t:1', 4), ('t:2', 8), ('t:3', 16)) v(t, b) WHERE n & b > 0))
$$;
-- What the events carry now, and so what has to be found.
CREATE FUNCTION wrong() RETURNS TABLE (forward bigint, backwards bigint, first_five bigint) LANGUAGE sql AS $$
	WITH carried AS (SELECT e.position, e.event_type, array_agg(t.tag) FILTER (WHERE t.tag IS NOT NULL) AS tags
			FROM es_event e LEFT JOIN es_event_tag t USING (position) GROUP BY 1, 2),
		query AS (SELECT item(n) AS i, item(n * 7 % 32) AS j FROM generate_series(0, 31) n),
		wanted AS (SELECT q.*, (SELECT array_agg(c.position ORDER BY c.position) FROM carried c WHERE
				(i -> 'types' = '[]' OR i -> 'types' ? c.event_type) AND coalesce(to_jsonb(c.tags), '[]') @> (i -> 'tags') OR
				(j -> 'types' = '[]' OR j -> 'types' ? c.event_type) AND coalesce(to_jsonb(c.tags), '[]') @> (j -> 'tags')) AS w,
			jsonb_build_object('items', jsonb_build_array(i, j)) AS q FROM query q)
	SELECT count(*) FILTER (WHERE (SELECT array_agg(position) FROM es_read(q)) IS DISTINCT FROM w),
		count(*) FILTER (WHERE (SELECT array_agg(position ORDER BY position) FROM es_read(q, backwards => true)) IS DISTINCT FROM w),
		count(*) FILTER (WHERE (SELECT array_agg(position) FROM es_read(q, max_count => 5)) IS DISTINCT FROM w[1:5]) FROM wanted
$$;
ALTER TABLE es_event_tag SET (autovacuum_enabled = off);
SELECT count(es_append('m-' || n, CASE n % 3 WHEN 0 THEN 'A' WHEN 1 THEN 'B' ELSE 'C' END, '1',
	tags => (SELECT array_agg('t:' || k) FROM generate_series(1, 3) k WHERE n % (k + 1) = 0)))
	FROM generate_series(1, 60) n;
SELECT * FROM wrong();
-- All pages visible to everybody.
VACUUM es_event_tag;
SELECT * FROM wrong();
-- Some rows gone, some new, on pages that were visible to everybody.
BEGIN;
SELECT es_retag('{"items": [{"types": ["A"]}]}', add => '{t:3}', remove => '{t:1}');
SELECT * FROM wrong();
ROLLBACK;
SELECT * FROM wrong();
BEGIN;
SELECT es_retag('{"items": [{"types": ["A"]}]}', add => '{t:3}', remove => '{t:1}');
SELECT * FROM wrong();
COMMIT;
SELECT count(es_append('n-' || n, 'B', '1', tags => '{t:1,t:2}')) FROM generate_series(1, 9) n;
SELECT * FROM wrong();
VACUUM es_event_tag;
SELECT * FROM wrong();
-- A snapshot that is older than the rows; then one that sees them.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT * FROM wrong();
SELECT count(es_append('o-' || n, 'A', '1', tags => '{t:1,t:3}')) FROM generate_series(1, 9) n;
SELECT * FROM wrong();
ROLLBACK;
SELECT * FROM wrong();
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT * FROM wrong();
COMMIT;
-- A rolled back append leaves entries behind that nobody sees.
BEGIN;
SELECT es_append('p-1', 'A', '1', tags => '{t:1,t:2,t:3}');
ROLLBACK;
SELECT * FROM wrong();

DROP FUNCTION wrong(), item(int);
DROP EXTENSION eventstore;
