-- partition: which partition a stream, a tag or a command belongs to, and where it is
--
-- The partitions are the options p0, p1 ... of the foreign server "eventstore"
-- of PL/Proxy: a power of two of databases, each with the extension eventstore
-- in the schema of the same name as here.  Moving one is changing its option.
--
-- A stream's place is the hash of its key.  The key is what stands in braces in
-- its id, "enrolment-{course:c1}-7", else the id with ":" for its first "-":
-- so stream "course-c1" and tag "course:c1" are neighbours.  The hash is
-- hashtext, on which hash partitioning rests, so that it stays as it is from
-- one major version to the next; collation "C" makes it one of bytes.
--
-- A router can be wrong, and an event on the wrong partition would be a stream
-- with two histories.  So each partition knows its own place: es_attach_partitions
-- gives its es_event a check constraint over the same hash, which no route
-- to the table goes around.

\echo Use "CREATE EXTENSION eventstore_router" to load this file. \quit

CREATE TYPE es_event AS (
	position     bigint,
	version      bigint,
	recorded_at  timestamptz,
	event_id     uuid,
	type_version integer,
	stream_id    text COLLATE "C",
	event_type   text COLLATE "C",
	data         jsonb,
	metadata     jsonb,
	tags         text[] COLLATE "C"
);
COMMENT ON TYPE es_event IS 'an event, as in the table of this name of a partition';

CREATE TABLE es_route (
	tag_prefix text COLLATE "C" NOT NULL,
	CONSTRAINT es_route_pkey PRIMARY KEY (tag_prefix),
	CONSTRAINT es_route_tag_prefix_check CHECK (tag_prefix <> '' AND strpos(tag_prefix, ':') = 0)
);
COMMENT ON TABLE es_route IS 'tags that name a partition: those with one of these prefixes; set by es_attach_partitions';
COMMENT ON COLUMN es_route.tag_prefix IS 'what stands before the first ":" of the tag';
SELECT pg_catalog.pg_extension_config_dump('es_route', '');

-- One place says what the key of a stream is; the partitions' constraint is made of it, too.
CREATE FUNCTION es_key_expression(stream_id text) RETURNS text
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN pg_catalog.replace('pg_catalog.hashtext((CASE
	WHEN pg_catalog.strpos($1, ''{'') > 0 AND pg_catalog.strpos(pg_catalog.split_part($1, ''{'', 2), ''}'') > 1
	THEN pg_catalog.split_part(pg_catalog.split_part($1, ''{'', 2), ''}'', 1)
	WHEN pg_catalog.strpos($1, ''-'') > 0
	THEN pg_catalog.overlay($1, '':'', pg_catalog.strpos($1, ''-''), 1)
	ELSE $1 END) COLLATE "C")', '$1', stream_id);
COMMENT ON FUNCTION es_key_expression(text) IS
	'SQL expression for the hash of a stream''s key, over the SQL expression of its id';

-- A NULL goes to partition 0, which refuses it as any store does.
DO $$
BEGIN
	EXECUTE pg_catalog.format('CREATE FUNCTION @extschema@.es_stream_hash(stream_id text) RETURNS integer
		LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN COALESCE(%s, 0)',
		@extschema@.es_key_expression('stream_id'));
END
$$;
COMMENT ON FUNCTION es_stream_hash(text) IS
	'hash of a stream''s key, whose low bits are the number of its partition';

CREATE FUNCTION es_command_hash(stream_id text) RETURNS integer
	LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF stream_id IS NULL THEN
		RAISE 'a command without a stream has no partition' USING
			ERRCODE = 'feature_not_supported',
			DETAIL = 'The boundary of such a command may have events on every partition.',
			HINT = 'Name the stream, or decide with es_read_boundary and es_append_if on tags that name a partition.';
	END IF;
	RETURN @extschema@.es_stream_hash(stream_id);
END
$$;
COMMENT ON FUNCTION es_command_hash(text) IS
	'hash of the stream that a command names; refuses a command that names none';

CREATE VIEW es_partition AS
	SELECT pg_catalog.substr(o.option_name, 2)::integer AS shard, o.option_value AS connection
		FROM pg_catalog.pg_foreign_server s
		JOIN pg_catalog.pg_foreign_data_wrapper w ON w.oid = s.srvfdw AND w.fdwname = 'plproxy'
		CROSS JOIN LATERAL pg_catalog.pg_options_to_table(s.srvoptions) AS o
		WHERE s.srvname = 'eventstore' AND o.option_name ~ '^p[0-9]+$';
COMMENT ON VIEW es_partition IS 'the partitions, as options p0, p1 ... of the foreign server eventstore';
COMMENT ON COLUMN es_partition.shard IS 'number of the partition';
COMMENT ON COLUMN es_partition.connection IS 'where its database is, as a libpq connection string';

CREATE FUNCTION es_shards() RETURNS integer[]
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	shards integer[] := (SELECT array_agg(p.shard ORDER BY p.shard) FROM @extschema@.es_partition p);
	n integer := coalesce(cardinality(shards), 0);
BEGIN
	IF n = 0 OR n & (n - 1) <> 0 OR shards[n] <> n - 1 THEN
		RAISE 'the partitions must be a power of two, numbered from 0' USING
			ERRCODE = 'object_not_in_prerequisite_state',
			DETAIL = format('There are %s.', n),
			HINT = 'CREATE SERVER eventstore FOREIGN DATA WRAPPER plproxy OPTIONS (p0 ''dbname=...'', p1 ''dbname=...'').';
	END IF;
	RETURN shards;
END
$$;
COMMENT ON FUNCTION es_shards() IS 'numbers of the partitions';

CREATE FUNCTION es_shard(stream_id text) RETURNS integer
	LANGUAGE sql STABLE PARALLEL SAFE
RETURN @extschema@.es_stream_hash(stream_id) & (pg_catalog.cardinality(@extschema@.es_shards()) - 1);
COMMENT ON FUNCTION es_shard(text) IS 'number of the partition of a stream';

-- A libpq connection string for dblink, as PL/Proxy makes it: the option, and
-- the caller's user mapping or the caller's name.
CREATE FUNCTION es_shard_connection(shard integer) RETURNS text
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	answer text := (SELECT p.connection FROM @extschema@.es_partition p WHERE p.shard = es_shard_connection.shard);
	options text[] := (SELECT m.umoptions FROM pg_user_mappings m
		WHERE m.srvname = 'eventstore' AND m.usename IN (current_user, 'public') ORDER BY m.usename <> current_user LIMIT 1);
	o record;
BEGIN
	FOR o IN SELECT * FROM pg_options_to_table(options) LOOP
		answer := answer || format(' %s=''%s''', o.option_name,
			replace(replace(o.option_value, E'\\', E'\\\\'), '''', E'\\'''));
	END LOOP;
	IF answer !~ '\muser\s*=' THEN
		answer := answer || format(' user=''%s''',
			replace(replace(current_user, E'\\', E'\\\\'), '''', E'\\'''));
	END IF;
	RETURN answer;
END
$$;
COMMENT ON FUNCTION es_shard_connection(integer) IS
	'connection string for a partition, with the caller''s user mapping';
