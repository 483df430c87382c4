-- boundary: decisions across streams that share a partition
--
-- Tags with a declared prefix (es_attach_partitions) name a partition.  A query
-- runs where its items' tags of that kind say; each item must have one, and all
-- must mean the same partition.  Nothing else could be right: a condition over
-- two partitions would need a lock over both.

CREATE FUNCTION es_tag_hash(tags jsonb) RETURNS integer[]
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
RETURN (SELECT COALESCE(array_agg(DISTINCT hashtext(t.tag COLLATE "C")), '{}')
	FROM jsonb_array_elements_text(CASE jsonb_typeof(tags) WHEN 'array' THEN tags ELSE '[]' END) AS t(tag)
	WHERE split_part(t.tag, ':', 1) IN (SELECT r.tag_prefix FROM @extschema@.es_route r));
COMMENT ON FUNCTION es_tag_hash(jsonb) IS
	'hashes of those tags that name a partition';

CREATE FUNCTION es_query_hash(query jsonb) RETURNS integer
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	mask CONSTANT integer := cardinality(@extschema@.es_shards()) - 1;
	items jsonb := CASE jsonb_typeof(query -> 'items') WHEN 'array' THEN query -> 'items' ELSE '[{}]' END;
	item jsonb;
	hashes integer[];
	answer integer;
	n integer := 0;
BEGIN
	IF query IS NULL THEN
		RETURN 0;	-- refused there
	END IF;
	FOR item IN SELECT i FROM jsonb_array_elements(items) AS i LOOP
		n := n + 1;
		hashes := @extschema@.es_tag_hash(CASE jsonb_typeof(item) WHEN 'object' THEN item -> 'tags' END);
		IF cardinality(hashes) = 0 THEN
			RAISE 'the query does not name one partition' USING
				ERRCODE = 'feature_not_supported',
				DETAIL = format('Item %s has no tag that names a partition.', n),
				HINT = 'Give each item a tag with a prefix that es_attach_partitions was told; es_route lists them.';
		END IF;
		FOR i IN 1 .. cardinality(hashes) LOOP
			IF hashes[i] & mask <> answer THEN
				RAISE 'the query does not name one partition' USING
					ERRCODE = 'feature_not_supported',
					DETAIL = format('Item %s has a tag of partition %s, beside one of partition %s.', n, hashes[i] & mask, answer),
					HINT = 'Decide on each partition by itself, or give what is decided together one tag.';
			END IF;
			answer := hashes[i] & mask;
		END LOOP;
	END LOOP;
	RETURN answer;
END
$$;
COMMENT ON FUNCTION es_query_hash(jsonb) IS
	'the partition that a query over tags concerns; refuses one that concerns several';

-- Events that name no stream get one whose key is the event's own tag.
CREATE FUNCTION es_place_events(events jsonb, hash integer) RETURNS jsonb
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	mask CONSTANT integer := cardinality(@extschema@.es_shards()) - 1;
	answer jsonb := '[]';
	event jsonb;
	key text;
	n integer := 0;
BEGIN
	IF jsonb_typeof(events) IS DISTINCT FROM 'array' THEN
		RETURN events;	-- refused there
	END IF;
	FOR event IN SELECT e FROM jsonb_array_elements(events) AS e LOOP
		n := n + 1;
		IF jsonb_typeof(event) = 'object' AND event ->> 'stream' IS NULL AND jsonb_typeof(event -> 'tags') = 'array' THEN
			key := (SELECT t FROM jsonb_array_elements_text(event -> 'tags') AS t
				WHERE split_part(t, ':', 1) IN (SELECT r.tag_prefix FROM @extschema@.es_route r) LIMIT 1);
			IF key ~ '^[^{}]+$' THEN
				event := event || jsonb_build_object('stream', format('%s-{%s}-%s', event ->> 'type', key,
					coalesce(event ->> 'id', gen_random_uuid()::text)));
			END IF;
		END IF;
		IF jsonb_typeof(event) = 'object' AND
			@extschema@.es_stream_hash(event ->> 'stream') & mask <> hash & mask
		THEN
			RAISE 'an event does not belong to the partition of the query' USING
				ERRCODE = 'feature_not_supported',
				DETAIL = format('Event %s is of stream %s on partition %s; the query concerns partition %s.', n,
					coalesce(quote_ident(event ->> 'stream'), 'none'),
					@extschema@.es_stream_hash(event ->> 'stream') & mask, hash & mask),
				HINT = 'Name the tag in the stream, as in type-{course:c1}-7.';
		END IF;
		answer := answer || jsonb_build_array(event);
	END LOOP;
	RETURN answer;
END
$$;
COMMENT ON FUNCTION es_place_events(jsonb, integer) IS
	'events of a boundary append, each with a stream of the boundary''s partition';

CREATE FUNCTION es_read(
	query jsonb,
	from_position bigint DEFAULT 0,
	max_count bigint DEFAULT NULL,
	backwards boolean DEFAULT false,
	raw boolean DEFAULT false,
	epoch bigint DEFAULT NULL
) RETURNS SETOF es_event
	LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'eventstore';
	RUN ON @extschema@.es_query_hash(query);
$$;
COMMENT ON FUNCTION es_read(jsonb, bigint, bigint, boolean, boolean, bigint) IS
	'events that match a query over types and tags, in the order of their positions';

CREATE FUNCTION es_read_boundary(
	query jsonb,
	raw boolean DEFAULT false,
	OUT after bigint,
	OUT events es_event[]
) RETURNS record
	LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'eventstore';
	RUN ON @extschema@.es_query_hash(query);
$$;
COMMENT ON FUNCTION es_read_boundary(jsonb, boolean) IS
	'events that match a query, and the position up to which there can be no others';

CREATE FUNCTION es_shard_append_if(
	hash integer,
	events jsonb,
	fail_if_events_match jsonb,
	after bigint,
	epoch bigint
) RETURNS bigint
	LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'eventstore';
	RUN ON hash;
	SELECT * FROM @extschema@.es_append_if(events, fail_if_events_match, after, epoch);
$$;
COMMENT ON FUNCTION es_shard_append_if(integer, jsonb, jsonb, bigint, bigint) IS
	'es_append_if on one partition';

CREATE FUNCTION es_append_if(
	events jsonb,
	fail_if_events_match jsonb,
	after bigint DEFAULT NULL,
	epoch bigint DEFAULT NULL
) RETURNS bigint
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
AS $$
	SELECT @extschema@.es_shard_append_if(h.hash, @extschema@.es_place_events(es_append_if.events, h.hash), es_append_if.fail_if_events_match, es_append_if.after, es_append_if.epoch)
		FROM @extschema@.es_query_hash(es_append_if.fail_if_events_match) AS h(hash)
$$;
COMMENT ON FUNCTION es_append_if(jsonb, jsonb, bigint, bigint) IS
	'append events unless others match a query; answers the last position';

CREATE FUNCTION es_shard_try_append_if(
	hash integer,
	events jsonb,
	fail_if_events_match jsonb,
	after bigint,
	epoch bigint,
	OUT appended boolean,
	OUT "position" bigint,
	OUT conflict_position bigint,
	OUT conflict_type text,
	OUT conflict_tags text[],
	OUT conflict_item integer
) RETURNS record
	LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'eventstore';
	RUN ON hash;
	SELECT * FROM @extschema@.es_try_append_if(events, fail_if_events_match, after, epoch);
$$;
COMMENT ON FUNCTION es_shard_try_append_if(integer, jsonb, jsonb, bigint, bigint) IS
	'es_try_append_if on one partition';

CREATE FUNCTION es_try_append_if(
	events jsonb,
	fail_if_events_match jsonb,
	after bigint DEFAULT NULL,
	epoch bigint DEFAULT NULL,
	OUT appended boolean,
	OUT "position" bigint,
	OUT conflict_position bigint,
	OUT conflict_type text,
	OUT conflict_tags text[],
	OUT conflict_item integer
) RETURNS record
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
AS $$
	SELECT t.*
		FROM @extschema@.es_query_hash(es_try_append_if.fail_if_events_match) AS h(hash),
		@extschema@.es_shard_try_append_if(h.hash, @extschema@.es_place_events(es_try_append_if.events, h.hash), es_try_append_if.fail_if_events_match, es_try_append_if.after, es_try_append_if.epoch) AS t
$$;
COMMENT ON FUNCTION es_try_append_if(jsonb, jsonb, bigint, bigint) IS
	'append events unless others match a query; answers whether, and if not which event does';
