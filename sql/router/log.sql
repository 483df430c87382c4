-- log: the logs of all partitions, read as one
--
-- There is no order among partitions, so a place is a vector: a jsonb object
-- with one position a partition, {"0": 17, "3": 9}; a partition that is not in it
-- is at its beginning.  A vector is handed back with each event, and holds what
-- was delivered up to and with it; who goes on from there meets every committed
-- event of every partition once, in the order of its partition.

CREATE FUNCTION es_vector(positions jsonb) RETURNS bigint[]
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	n CONSTANT integer := cardinality(@extschema@.es_shards());
	bad text;
BEGIN
	IF positions IS NULL OR jsonb_typeof(positions) = 'null' THEN
		RETURN NULL;
	END IF;
	IF jsonb_typeof(positions) = 'object' THEN
		bad := (SELECT k.key FROM jsonb_each(positions) AS k
			WHERE k.key !~ '^(0|[1-9][0-9]{0,5})$' OR k.value::text !~ '^[0-9]{1,18}$' LIMIT 1);
		bad := coalesce(bad, (SELECT k FROM jsonb_object_keys(positions) AS k WHERE k::integer >= n LIMIT 1));
	END IF;
	IF jsonb_typeof(positions) <> 'object' OR bad IS NOT NULL THEN
		RAISE 'invalid vector of positions' USING
			ERRCODE = 'invalid_parameter_value',
			DETAIL = coalesce(format('Key %s is not one of %s partitions with a position.', quote_ident(bad), n), 'It is not a JSON object.'),
			HINT = 'Use a vector that an earlier call answered, or {} for the beginning.';
	END IF;
	RETURN ARRAY(SELECT coalesce((positions ->> i::text)::bigint, 0) FROM generate_series(0, n - 1) AS i);
END
$$;
COMMENT ON FUNCTION es_vector(jsonb) IS
	'a vector of positions as an array, one element a partition';

-- The settled position is asked before the log is read, so what a partition did
-- not answer with fewer events than it might cannot come below it any more.
CREATE FUNCTION es_shards_read_all(
	shards integer[],
	from_positions bigint[],
	epochs bigint[],
	share bigint,
	event_types text[],
	category text,
	is_raw boolean
) RETURNS TABLE (
	shard integer,
	settled bigint,
	"position" bigint,
	version bigint,
	recorded_at timestamptz,
	event_id uuid,
	type_version integer,
	stream_id text,
	event_type text,
	data jsonb,
	metadata jsonb,
	tags text[]
)
	LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'eventstore';
	SPLIT shards, from_positions, epochs;
	RUN ON shards;
	SELECT (shards)[1] AS shard, s.settled, e.* FROM @extschema@.es_settled_position() AS s(settled)
		LEFT JOIN LATERAL @extschema@.es_read_all((from_positions)[1] + 0 * s.settled, share, event_types, category, is_raw,
			NULLIF((epochs)[1], 0)) AS e ON true;
$$;
COMMENT ON FUNCTION es_shards_read_all(integer[], bigint[], bigint[], bigint, text[], text, boolean) IS
	'what follows a position on each of some partitions; a row without an event where nothing does';

CREATE FUNCTION es_read_batch(
	from_position jsonb DEFAULT '{}',
	max_count bigint DEFAULT 1000,
	event_types text[] DEFAULT NULL,
	category text DEFAULT NULL,
	raw boolean DEFAULT false,
	epoch jsonb DEFAULT NULL,
	OUT positions jsonb,
	OUT shards integer[],
	OUT events es_event[]
) RETURNS record
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	all_shards CONSTANT integer[] := @extschema@.es_shards();
	n CONSTANT integer := cardinality(all_shards);
	at bigint[] := @extschema@.es_vector(from_position);
	share bigint := max_count / n + (max_count % n > 0)::integer;
	-- for each partition: how many events it gave, how many of them are kept, and where it had settled
	given bigint[] := array_fill(0::bigint, ARRAY[n]);
	settled bigint[] := array_fill(0::bigint, ARRAY[n]);
	kept bigint[] := array_fill(0::bigint, ARRAY[n]);
	r record;
BEGIN
	IF at IS NULL THEN
		RAISE 'argument "from_position" must not be null' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	IF max_count < 0 THEN
		RAISE 'argument "max_count" must not be negative' USING ERRCODE = 'invalid_parameter_value';
	END IF;
	shards := '{}';
	events := '{}';
	-- By turns, so that the first max_count rows are as many of each partition as there are.
	FOR r IN SELECT x.*, row_number() OVER (PARTITION BY x.shard ORDER BY x.position) AS turn
			FROM @extschema@.es_shards_read_all(all_shards, at, coalesce(@extschema@.es_vector(epoch), array_fill(0::bigint, ARRAY[n])),
				share, event_types, category, raw) AS x
			ORDER BY turn, x.shard
	LOOP
		settled[r.shard + 1] := r.settled;
		CONTINUE WHEN r.position IS NULL;
		given[r.shard + 1] := given[r.shard + 1] + 1;
		CONTINUE WHEN cardinality(shards) >= max_count;
		kept[r.shard + 1] := kept[r.shard + 1] + 1;
		at[r.shard + 1] := r.position;
		shards := shards || r.shard;
		events := events || ROW(r.position, r.version, r.recorded_at, r.event_id, r.type_version, r.stream_id,
			r.event_type, r.data, r.metadata, r.tags)::@extschema@.es_event;
	END LOOP;
	FOR i IN 1 .. n LOOP
		-- It had no more: what matches nothing is behind us, too.
		IF kept[i] = given[i] AND (share IS NULL OR given[i] < share) THEN
			at[i] := greatest(at[i], settled[i]);
		END IF;
	END LOOP;
	positions := (SELECT jsonb_object_agg(i - 1, at[i]) FROM generate_series(1, n) AS i);
END
$$;
COMMENT ON FUNCTION es_read_batch(jsonb, bigint, text[], text, boolean, jsonb) IS
	'events of all partitions behind a vector of positions, and the vector to go on from, which moves where nothing matches, too';

CREATE FUNCTION es_read_all(
	from_position jsonb DEFAULT '{}',
	max_count bigint DEFAULT 1000,
	event_types text[] DEFAULT NULL,
	category text DEFAULT NULL,
	raw boolean DEFAULT false,
	epoch jsonb DEFAULT NULL
) RETURNS TABLE (
	shard integer,
	positions jsonb,
	"position" bigint,
	version bigint,
	recorded_at timestamptz,
	event_id uuid,
	type_version integer,
	stream_id text,
	event_type text,
	data jsonb,
	metadata jsonb,
	tags text[]
)
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE ROWS 1000
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	batch record;
BEGIN
	SELECT * INTO batch FROM @extschema@.es_read_batch(from_position, max_count, event_types, category, raw, epoch);
	positions := from_position;
	FOR shard, "position", version, recorded_at, event_id, type_version, stream_id, event_type, data, metadata, tags IN
		SELECT s.shard, e.* FROM unnest(batch.shards) WITH ORDINALITY AS s(shard, n)
			JOIN unnest(batch.events) WITH ORDINALITY AS e("position", version, recorded_at, event_id, type_version, stream_id,
				event_type, data, metadata, tags, n) USING (n) ORDER BY n
	LOOP
		positions := positions || jsonb_build_object(shard, "position");
		RETURN NEXT;
	END LOOP;
END
$$;
COMMENT ON FUNCTION es_read_all(jsonb, bigint, text[], text, boolean, jsonb) IS
	'events of all partitions, each with its partition and the vector of positions to go on from';

CREATE FUNCTION es_shards_store(shards integer[]) RETURNS TABLE (shard integer, store_id uuid, epoch bigint, settled_position bigint)
	LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'eventstore';
	SPLIT shards;
	RUN ON shards;
	SELECT (shards)[1] AS shard, s.store_id, s.epoch, s.settled_position FROM @extschema@.es_store() AS s;
$$;
COMMENT ON FUNCTION es_shards_store(integer[]) IS
	'identity, epoch and settled position of some partitions';

CREATE FUNCTION es_store() RETURNS TABLE (shard integer, store_id uuid, epoch bigint, settled_position bigint)
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
AS $$
	SELECT s.* FROM @extschema@.es_shards_store(@extschema@.es_shards()) AS s
$$;
COMMENT ON FUNCTION es_store() IS
	'identity, present epoch and settled position of each partition';

CREATE FUNCTION es_settled_position() RETURNS jsonb
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
AS $$
	SELECT pg_catalog.jsonb_object_agg(s.shard, s.settled_position) FROM @extschema@.es_store() AS s
$$;
COMMENT ON FUNCTION es_settled_position() IS
	'vector of the settled positions of all partitions';

CREATE FUNCTION es_category(stream_id text) RETURNS text
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN pg_catalog.split_part(stream_id, '-', 1);
COMMENT ON FUNCTION es_category(text) IS
	'category of a stream: the part of its id before the first "-", or all of it';
