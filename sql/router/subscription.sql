-- subscription: one cursor over the logs of all partitions
--
-- A subscription is one on each partition.  What es_fetch answers has one token
-- for all of it, made of the partitions' own; a place in it is a vector of
-- positions, as it stands beside each event.

CREATE FUNCTION es_create_subscription(
	name text,
	from_position jsonb DEFAULT NULL,
	from_time timestamp with time zone DEFAULT NULL,
	event_types text[] DEFAULT NULL,
	category text DEFAULT NULL,
	partitions integer DEFAULT 1,
	hold text DEFAULT 'stream',
	max_attempts integer DEFAULT 10,
	if_not_exists boolean DEFAULT false,
	epoch jsonb DEFAULT NULL
) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
AS $$
	SELECT @extschema@.es_define_each(ARRAY(SELECT pg_catalog.format(
		'SELECT @extschema@.es_create_subscription(name => %L::text, from_position => %L::bigint, from_time => %L::timestamp with time zone, event_types => %L::text[], category => %L::text, partitions => %L::integer, hold => %L::text, max_attempts => %L::integer, if_not_exists => %L::boolean, epoch => %L::bigint)',
		es_create_subscription.name, (es_create_subscription.from_position OPERATOR(pg_catalog.->>) s::text), es_create_subscription.from_time, es_create_subscription.event_types, es_create_subscription.category, es_create_subscription.partitions, es_create_subscription.hold, es_create_subscription.max_attempts, es_create_subscription.if_not_exists,
		(es_create_subscription.epoch OPERATOR(pg_catalog.->>) s::text))
		FROM pg_catalog.unnest(@extschema@.es_shards()) AS s,
		(SELECT @extschema@.es_vector(es_create_subscription.from_position), @extschema@.es_vector(es_create_subscription.epoch)) AS v(checked, known) ORDER BY s))
$$;
COMMENT ON FUNCTION es_create_subscription(text, jsonb, timestamptz, text[], text, integer, text, integer, boolean, jsonb) IS
	'define a subscription on every partition';

CREATE FUNCTION es_drop_subscription(name text, if_exists boolean DEFAULT false) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
AS $$
	SELECT @extschema@.es_define(pg_catalog.format('SELECT @extschema@.es_drop_subscription(%L, %L::boolean)',
		es_drop_subscription.name, es_drop_subscription.if_exists))
$$;
COMMENT ON FUNCTION es_drop_subscription(text, boolean) IS
	'remove a subscription, with its checkpoints and parked events';

-- A token is {"0": "...", "3": "..."} as text: the tokens that those partitions gave.
CREATE FUNCTION es_token(token text) RETURNS jsonb
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	n CONSTANT integer := cardinality(@extschema@.es_shards());
	answer jsonb;
BEGIN
	IF token IS NULL THEN
		RAISE 'argument "token" must not be null' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	BEGIN
		answer := token::jsonb;
	EXCEPTION WHEN data_exception THEN
		NULL;	-- told below
	END;
	IF jsonb_typeof(answer) IS DISTINCT FROM 'object' OR EXISTS (SELECT FROM jsonb_each(
		CASE jsonb_typeof(answer) WHEN 'object' THEN answer ELSE '{}' END) AS t
		WHERE jsonb_typeof(t.value) <> 'string' OR t.key !~ '^(0|[1-9][0-9]{0,5})$' OR t.key::integer >= n)
	THEN
		RAISE 'invalid token' USING
			ERRCODE = 'invalid_parameter_value',
			DETAIL = format('%s does not name partitions and their tokens.', quote_literal(token)),
			HINT = 'Use the token as es_fetch answered it here.';
	END IF;
	RETURN answer;
END
$$;
COMMENT ON FUNCTION es_token(text) IS
	'the partitions'' tokens in a token of es_fetch';

CREATE FUNCTION es_shards_fetch(
	shards integer[],
	acks text[],
	epochs bigint[],
	subscription text,
	consumer text,
	share integer,
	lease interval
) RETURNS TABLE (
	shard integer,
	token text,
	attempt integer,
	partition integer,
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
	SPLIT shards, acks, epochs;
	RUN ON shards;
	SELECT (shards)[1] AS shard, f.* FROM @extschema@.es_fetch(subscription, consumer, share, lease, NULLIF((acks)[1], ''), NULLIF((epochs)[1], 0)) AS f;
$$;
COMMENT ON FUNCTION es_shards_fetch(integer[], text[], bigint[], text, text, integer, interval) IS
	'the next events of a subscription on some partitions';

CREATE FUNCTION es_fetch(
	name text,
	consumer text,
	max_count integer DEFAULT 100,
	lease interval DEFAULT '30 s',
	ack text DEFAULT NULL,
	epoch jsonb DEFAULT NULL
) RETURNS TABLE (
	shard integer,
	positions jsonb,
	token text,
	attempt integer,
	partition integer,
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
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE ROWS 100
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	all_shards CONSTANT integer[] := @extschema@.es_shards();
	n CONSTANT integer := cardinality(all_shards);
	-- rounded up without the sum, which may be beyond the type
	share CONSTANT integer := max_count / n + (max_count % n > 0)::integer;
	acks jsonb := CASE WHEN ack IS NULL THEN '{}' ELSE @extschema@.es_token(ack) END;
BEGIN
	positions := '{}';
	FOR shard, es_fetch.token, attempt, partition, "position", version, recorded_at, event_id, type_version, stream_id, event_type, data, metadata, tags IN
		WITH f AS MATERIALIZED (SELECT f.* FROM @extschema@.es_shards_fetch(all_shards,
			ARRAY(SELECT coalesce(acks ->> s::text, '') FROM unnest(all_shards) AS s ORDER BY s),
			coalesce(@extschema@.es_vector(es_fetch.epoch), array_fill(0::bigint, ARRAY[n])), name, consumer, share, lease) AS f)
		SELECT f.shard, t.token, f.attempt, f.partition, f.position, f.version, f.recorded_at, f.event_id, f.type_version,
				f.stream_id, f.event_type, f.data, f.metadata, f.tags
			FROM f, (SELECT jsonb_object_agg(d.shard, d.token)::text AS token FROM f AS d) AS t
			ORDER BY f.shard, f.position
	LOOP
		positions := positions || jsonb_build_object(shard, "position");
		RETURN NEXT;
	END LOOP;
END
$$;
COMMENT ON FUNCTION es_fetch(text, text, integer, interval, text, jsonb) IS
	'the next events of a subscription on every partition, with one token to acknowledge them by';

CREATE FUNCTION es_shards_ack(shards integer[], tokens text[], positions bigint[], subscription text) RETURNS SETOF integer
	LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'eventstore';
	SPLIT shards, tokens, positions;
	RUN ON shards;
	SELECT 1 FROM @extschema@.es_ack(subscription, (tokens)[1], NULLIF((positions)[1], 0));
$$;
COMMENT ON FUNCTION es_shards_ack(integer[], text[], bigint[], text) IS
	'acknowledge deliveries of some partitions';

-- With a position only the partitions that are in it are acknowledged.
CREATE FUNCTION es_ack(
	name text,
	token text,
	"position" jsonb DEFAULT NULL
) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT count(a.*) FROM (SELECT array_agg(t.key::integer) AS shards, array_agg(t.value) AS tokens,
			array_agg(coalesce((es_ack.position ->> t.key)::bigint, 0)) AS positions
			FROM (SELECT @extschema@.es_vector(es_ack.position)) AS v(checked), jsonb_each_text(@extschema@.es_token(es_ack.token)) AS t
			WHERE es_ack.position IS NULL OR es_ack.position ? t.key) AS d
		CROSS JOIN LATERAL @extschema@.es_shards_ack(d.shards, d.tokens, d.positions, es_ack.name) AS a
		WHERE d.shards IS NOT NULL
$$;
COMMENT ON FUNCTION es_ack(text, text, jsonb) IS
	'acknowledge a delivery, or its events up to a vector of positions';

CREATE FUNCTION es_shard_nack(
	shard integer,
	subscription text,
	shard_token text,
	at bigint,
	action text,
	reason text,
	delay interval
) RETURNS bigint[]
	LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'eventstore';
	RUN ON shard;
	SELECT @extschema@.es_nack(subscription, shard_token, at, action, reason, delay);
$$;
COMMENT ON FUNCTION es_shard_nack(integer, text, text, bigint, text, text, interval) IS
	'put an event of a partition''s delivery aside';

CREATE FUNCTION es_nack(
	name text,
	token text,
	"position" jsonb,
	action text DEFAULT 'retry',
	reason text DEFAULT NULL,
	delay interval DEFAULT NULL
) RETURNS jsonb
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	tokens CONSTANT jsonb := @extschema@.es_token(token);
	keys text[];
BEGIN
	PERFORM @extschema@.es_vector("position");
	keys := ARRAY(SELECT jsonb_object_keys("position"));
	IF cardinality(keys) <> 1 OR NOT tokens ? keys[1] THEN
		RAISE 'the position does not name one event of the delivery' USING
			ERRCODE = 'invalid_parameter_value',
			DETAIL = format('It names %s partitions.', cardinality(keys)),
			HINT = 'Use jsonb_build_object(shard, position) of the event.';
	END IF;
	RETURN jsonb_build_object(keys[1], to_jsonb(@extschema@.es_shard_nack(keys[1]::integer, name, tokens ->> keys[1],
		("position" ->> keys[1])::bigint, action, reason, delay)));
END
$$;
COMMENT ON FUNCTION es_nack(text, text, jsonb, text, text, interval) IS
	'put an event of a delivery aside: retry, park or skip; answers which events of which partition to leave alone';
