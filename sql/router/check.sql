-- check: is every partition sound, and is it the one that it is taken for?

CREATE FUNCTION es_shards_check(shards integer[], patience interval) RETURNS TABLE (
	shard integer,
	check_name text,
	status text,
	detail text,
	hint text
)
	LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'eventstore';
	SPLIT shards;
	RUN ON shards;
	SELECT (shards)[1] AS shard, c.* FROM @extschema@.es_check(patience) AS c;
$$;
COMMENT ON FUNCTION es_shards_check(integer[], interval) IS
	'es_check on some partitions';

CREATE FUNCTION es_shards_mark(shards integer[]) RETURNS TABLE (shard integer, mark text, version text)
	LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'eventstore';
	SPLIT shards;
	RUN ON shards;
	SELECT (shards)[1] AS shard, (SELECT pg_catalog.obj_description(c.oid, 'pg_constraint') FROM pg_catalog.pg_constraint AS c
			WHERE c.conrelid OPERATOR(pg_catalog.=) '@extschema@.es_event'::pg_catalog.regclass
			AND c.conname OPERATOR(pg_catalog.=) 'es_event_shard' AND c.convalidated) AS mark,
		(SELECT x.extversion FROM pg_catalog.pg_extension AS x WHERE x.extname OPERATOR(pg_catalog.=) 'eventstore') AS version;
$$;
COMMENT ON FUNCTION es_shards_mark(integer[]) IS
	'which place some partitions think is theirs';

CREATE FUNCTION es_check(
	max_time interval DEFAULT NULL,
	OUT shard integer,
	OUT check_name text,
	OUT status text,
	OUT detail text,
	OUT hint text
) RETURNS SETOF record
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT m.shard, 'partition', CASE WHEN m.mark = @extschema@.es_shard_mark(m.shard) THEN 'ok' ELSE 'failed' END,
			CASE WHEN m.mark = @extschema@.es_shard_mark(m.shard) THEN NULL
				ELSE format('It is to be %s, and takes itself for %s.', @extschema@.es_shard_mark(m.shard), COALESCE(m.mark, 'none')) END,
			CASE WHEN m.mark = @extschema@.es_shard_mark(m.shard) THEN NULL
				ELSE 'Correct the option of the foreign server, or call es_attach_partitions.' END
		FROM @extschema@.es_shards_mark(@extschema@.es_shards()) AS m
	UNION ALL
	SELECT s.shard, 'store of its own', CASE count(*) OVER (PARTITION BY s.store_id) WHEN 1 THEN 'ok' ELSE 'failed' END,
			CASE count(*) OVER (PARTITION BY s.store_id) WHEN 1 THEN NULL ELSE 'Another partition is the same store.' END,
			CASE count(*) OVER (PARTITION BY s.store_id) WHEN 1 THEN NULL ELSE 'Correct the options of the foreign server.' END
		FROM @extschema@.es_store() AS s
	UNION ALL
	SELECT c.* FROM @extschema@.es_shards_check(@extschema@.es_shards(), max_time) AS c
$$;
COMMENT ON FUNCTION es_check(interval) IS
	'check that each partition is the one it is taken for, and sound';
