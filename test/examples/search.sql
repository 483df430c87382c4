-- search.sql: full-text search over what events add up to.
--
-- For psql, in a fresh database: psql -d articles -f test/examples/search.sql
-- Prints no times and no ids, so that its output can be compared.
--
-- The read model is an ordinary table with a tsvector column and a GIN index.
-- It is kept behind the appends, so that whoever writes an article does not
-- wait for the index; who wants to find what he has just written waits for it.

\set ON_ERROR_STOP on
\pset footer off
\set QUIET on

CREATE EXTENSION eventstore;

-- One row an article. The words of the title count more than those of the text.
CREATE TABLE article (
	article_id text PRIMARY KEY,
	author     text NOT NULL,
	title      text NOT NULL,
	body       text NOT NULL,
	version    bigint NOT NULL,
	words      tsvector NOT NULL GENERATED ALWAYS AS (
					setweight(to_tsvector('english', title), 'A') ||
					setweight(to_tsvector('english', body), 'B')) STORED
);
CREATE INDEX article_words ON article USING gin (words);

BEGIN;
SELECT es_create_projection('article', 'async', '{article}', category => 'article') \g /dev/null
SELECT es_on('article', 'ArticleWritten', $$
	INSERT INTO article VALUES (event.stream_id, event.metadata ->> 'user',
								event.data ->> 'title', event.data ->> 'body', event.version) $$) \g /dev/null
SELECT es_on('article', 'ArticleRevised', $$
	UPDATE article SET title = coalesce(event.data ->> 'title', title),
					   body = coalesce(event.data ->> 'body', body),
					   version = event.version
		WHERE article_id = event.stream_id $$) \g /dev/null
SELECT es_on('article', 'ArticleWithdrawn', $$
	DELETE FROM article WHERE article_id = event.stream_id $$) \g /dev/null
COMMIT;

\echo 'Three articles are written, one is revised and liked, one withdrawn.'
\echo

SET eventstore.metadata = '{"user": "ada"}';
SELECT es_append('article-1', 'ArticleWritten', '{"title": "Streams of events",
	"body": "A stream holds the events of one entity. Nothing in it is ever changed."}',
	expected_version => 0) AS version;
SELECT es_append('article-2', 'ArticleWritten', '{"title": "Reading models",
	"body": "Tables are computed from what happened. A broken one is rebuilt."}',
	expected_version => 0) AS version;
SET eventstore.metadata = '{"user": "grace"}';
SELECT es_append('article-3', 'ArticleWritten', '{"title": "Snapshots",
	"body": "They shorten the fold of a long stream."}', expected_version => 0) AS version;
SELECT es_append('article-2', 'ArticleRevised', '{"title": "Read models"}', expected_version => 1) AS version;
SELECT es_append('article-3', 'ArticleWithdrawn', '{}', expected_version => 1) AS version;
SELECT es_append('article-2', 'ArticleLiked', '{}') AS version;
RESET eventstore.metadata;

-- A worker does this by itself: SELECT es_start_worker().
CALL es_run_projections();

\echo 'Find "changing streams": stemmed words, the best match first.'
\echo

CREATE FUNCTION search(query text)
	RETURNS TABLE (article_id text, author text, rank numeric, headline text)
	LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT article_id, author, round(ts_rank(words, wanted)::numeric, 2),
		   ts_headline('english', title || ': ' || body, wanted, 'StartSel=<, StopSel=>, HighlightAll=on')
		FROM article, websearch_to_tsquery('english', query) AS wanted
		WHERE words @@ wanted
		ORDER BY ts_rank(words, wanted) DESC, article_id;
END;

SELECT * FROM search('changing streams');
SELECT * FROM search('read OR event');

\echo 'A withdrawn article is not found, and neither is an old title:'
\echo

SELECT * FROM search('snapshots OR reading -tables');

\echo 'The index serves it, among ten thousand articles:'
\echo

INSERT INTO es_event (stream_id, event_type, data, metadata)
	SELECT 'article-' || n, 'ArticleWritten',
		   jsonb_build_object('title', 'Filler ' || n, 'body', 'Nothing to see in number ' || n),
		   '{"user": "robot"}'
		FROM generate_series(1001, 11000) AS n;
CALL es_run_projections();
VACUUM ANALYZE article;
EXPLAIN (COSTS off) SELECT article_id FROM article WHERE words @@ websearch_to_tsquery('english', 'broken');
SELECT * FROM search('broken');

\echo 'Who writes and searches in one breath waits until the read model is there.'
\echo

SELECT es_append('article-4', 'ArticleWritten', '{"title": "Cursors", "body": "Where a subscriber stands."}',
				 metadata => '{"user": "ada"}') AS version;
CALL es_run_projections();
SELECT es_wait_for('article') AS shows_it;
SELECT * FROM search('subscribers');

\echo 'What would this search have found before the withdrawal? The read model as of a'
\echo 'position, in a temporary table of the same name, which hides the real one:'
\echo

SELECT es_project_at('article', "position" => 4) AS position;
SELECT article_id, title FROM article WHERE words @@ websearch_to_tsquery('english', 'snapshots');
DROP TABLE pg_temp.article;

\echo 'Nobody had thought of counting likes. They have been in the log all the time: the'
\echo 'table gets a column and the projection a handler, and the table is computed anew'
\echo 'from the first event on, while readers and writers go on.'
\echo

ALTER TABLE article ADD COLUMN likes int NOT NULL DEFAULT 0;
SELECT es_on('article', 'ArticleLiked', $$
	UPDATE article SET likes = likes + 1 WHERE article_id = event.stream_id $$) \g /dev/null
CALL es_rebuild_projection('article');
SELECT article_id, title, likes FROM article
	WHERE words @@ websearch_to_tsquery('english', 'event OR table')
	ORDER BY likes DESC, article_id;
