-- table: read models of all partitions as one table, and what runs them
--
-- A projection writes the table of its own partition.  The router offers the
-- tables of that name as one partitioned table of foreign tables, with one
-- column more, "shard": a question that says which shard it means goes to that
-- partition alone.

CREATE FUNCTION es_offer_table(table_name text, offered_as text DEFAULT NULL) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
AS $$
DECLARE
	shards CONSTANT integer[] := @extschema@.es_shards();
	parts CONSTANT text[] := pg_catalog.parse_ident(table_name);
	name CONSTANT text := COALESCE(offered_as, parts[pg_catalog.cardinality(parts)]);
	columns text;
	shard integer;
	server text;
	o record;
	options text;
	mapping text;
BEGIN
	PERFORM @extschema@.es_define_each(ARRAY(SELECT pg_catalog.format(
		'CREATE OR REPLACE VIEW @extschema@.%I WITH (security_invoker = true) AS SELECT %s::pg_catalog.int4 AS shard, t.* FROM %s AS t',
		'es_shard_' OPERATOR(pg_catalog.||) name, s, table_name) FROM pg_catalog.unnest(shards) AS s ORDER BY s));
	columns := (SELECT c.definition FROM @extschema@.es_shard_columns(pg_catalog.format('@extschema@.%I', 'es_shard_' OPERATOR(pg_catalog.||) name)) AS c(definition));
	EXECUTE pg_catalog.format('CREATE TABLE %I (%s) PARTITION BY LIST (shard)', name, columns);
	FOREACH shard IN ARRAY shards LOOP
		server := 'es_shard_' OPERATOR(pg_catalog.||) shard;
		IF NOT EXISTS (SELECT FROM pg_catalog.pg_foreign_server f WHERE f.srvname OPERATOR(pg_catalog.=) server) THEN
			PERFORM @extschema@.es_shard_server(shard);
		END IF;
		EXECUTE pg_catalog.format('CREATE FOREIGN TABLE %I PARTITION OF %I FOR VALUES IN (%s) SERVER %I OPTIONS (schema_name %L, table_name %L)',
			name OPERATOR(pg_catalog.||) '_' OPERATOR(pg_catalog.||) shard, name, shard, server,
			pg_catalog.btrim('@extschema@', '"'), 'es_shard_' OPERATOR(pg_catalog.||) name);
	END LOOP;
END
$$;
COMMENT ON FUNCTION es_offer_table(text, text) IS
	'offer the partitions'' tables of a name as one, with the column shard before theirs';

CREATE FUNCTION es_shard_columns(relation text) RETURNS SETOF text
	LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'eventstore';
	RUN ON 0;
	SELECT pg_catalog.string_agg(pg_catalog.format('%I %s', a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY a.attnum)
		FROM pg_catalog.pg_attribute AS a
		WHERE a.attrelid OPERATOR(pg_catalog.=) relation::pg_catalog.regclass AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped;
$$;
COMMENT ON FUNCTION es_shard_columns(text) IS
	'columns of a relation on partition 0, as CREATE TABLE has them';

-- postgres_fdw's server for a partition: made of PL/Proxy's option, anew where that has changed.
CREATE FUNCTION es_shard_server(shard integer) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	server CONSTANT text := 'es_shard_' || shard;
	connection text := (SELECT p.connection FROM @extschema@.es_partition p WHERE p.shard = es_shard_server.shard);
	known text[] := (SELECT array_agg(o.option_name) FROM pg_foreign_server f, pg_options_to_table(f.srvoptions) AS o
		WHERE f.srvname = server);
	pair text[];
	server_options text[] := '{}';
	user_options text[] := '{}';
	key text;
	exists_already CONSTANT boolean := EXISTS (SELECT FROM pg_foreign_server f WHERE f.srvname = server);
BEGIN
	FOR pair IN SELECT regexp_matches(connection, '(\w+)\s*=\s*(''(?:[^''\\]|\\.)*''|[^''\s]+)', 'g') LOOP
		IF pair[2] ~ '^''' THEN
			pair[2] := regexp_replace(substr(pair[2], 2, length(pair[2]) - 2), '\\(.)', '\1', 'g');
		END IF;
		IF pair[1] IN ('user', 'password', 'passfile', 'sslpassword') THEN
			user_options := user_options || format('%I %L', pair[1], pair[2]);
		ELSE
			server_options := server_options || format('%s%I %L',
				CASE WHEN NOT exists_already THEN '' WHEN pair[1] = ANY (known) THEN 'SET ' ELSE 'ADD ' END, pair[1], pair[2]);
			known := array_remove(known, pair[1]);
		END IF;
	END LOOP;
	IF exists_already THEN
		FOREACH key IN ARRAY coalesce(known, '{}') LOOP
			IF key NOT IN ('async_capable', 'fetch_size', 'extensions', 'use_remote_estimate') THEN
				server_options := server_options || format('DROP %I', key);
			END IF;
		END LOOP;
		EXECUTE format('ALTER SERVER %I OPTIONS (%s)', server, array_to_string(server_options, ', '));
	ELSE
		server_options := server_options || ARRAY['async_capable ''true''', 'fetch_size ''1000'''];
		EXECUTE format('CREATE SERVER %I FOREIGN DATA WRAPPER postgres_fdw OPTIONS (%s)', server, array_to_string(server_options, ', '));
		IF cardinality(user_options) = 0 THEN
			user_options := ARRAY(SELECT format('%I %L', o.option_name, o.option_value)
				FROM pg_user_mappings m, pg_options_to_table(m.umoptions) AS o WHERE m.srvname = 'eventstore' AND m.usename = 'public');
		END IF;
		EXECUTE format('CREATE USER MAPPING FOR PUBLIC SERVER %I', server) ||
			CASE WHEN user_options = '{}' THEN '' ELSE format(' OPTIONS (%s)', array_to_string(user_options, ', ')) END;
	END IF;
END
$$;
COMMENT ON FUNCTION es_shard_server(integer) IS
	'make, or bring up to date, the server of a partition''s foreign tables';

-- A partition went to another place: both ways of reaching it change in one transaction.
CREATE FUNCTION es_move_partition(shard integer, connection text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF NOT shard = ANY (@extschema@.es_shards()) THEN
		RAISE 'partition % does not exist', shard USING ERRCODE = 'undefined_object',
			HINT = 'es_partition lists the partitions.';
	END IF;
	EXECUTE format('ALTER SERVER eventstore OPTIONS (SET p%s %L)', shard, connection);
	IF EXISTS (SELECT FROM pg_foreign_server f WHERE f.srvname = 'es_shard_' || shard) THEN
		PERFORM @extschema@.es_shard_server(shard);
	END IF;
END
$$;
COMMENT ON FUNCTION es_move_partition(integer, text) IS
	'say where a partition is from now on';

CREATE FUNCTION es_shards_wait_for(shards integer[], positions bigint[], projection_name text, patience interval) RETURNS SETOF boolean
	LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'eventstore';
	SPLIT shards, positions;
	RUN ON shards;
	SELECT @extschema@.es_wait_for(projection_name, (positions)[1], patience);
$$;
COMMENT ON FUNCTION es_shards_wait_for(integer[], bigint[], text, interval) IS
	'wait until a projection has come to a position on some partitions';

CREATE FUNCTION es_wait_for(
	projection text,
	"position" jsonb DEFAULT NULL,
	timeout interval DEFAULT '5 s'
) RETURNS boolean
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT bool_and(w) FROM @extschema@.es_shards_wait_for(@extschema@.es_shards(),
		@extschema@.es_vector(COALESCE(es_wait_for.position, @extschema@.es_settled_position())), projection, timeout) AS w
$$;
COMMENT ON FUNCTION es_wait_for(text, jsonb, interval) IS
	'wait until a projection has come to a vector of positions, by default to where every partition has settled now';

-- Procedures cannot be reached through PL/Proxy; each partition runs them by itself, all at once.
CREATE FUNCTION es_call_everywhere(command text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
AS $$
DECLARE
	shard integer;
BEGIN
	FOREACH shard IN ARRAY @extschema@.es_shards() LOOP
		PERFORM @extschema@.dblink_send_query(@extschema@.es_shard_open(shard), command);
	END LOOP;
	FOREACH shard IN ARRAY @extschema@.es_shards() LOOP
		PERFORM FROM @extschema@.dblink_get_result('es_router_' OPERATOR(pg_catalog.||) shard) AS t(answer text);
	END LOOP;
	PERFORM @extschema@.es_shard_close();
EXCEPTION WHEN query_canceled OR OTHERS THEN
	PERFORM @extschema@.es_shard_close();
	RAISE;
END
$$;
COMMENT ON FUNCTION es_call_everywhere(text) IS
	'run a CALL on all partitions at once, each by itself';

CREATE PROCEDURE es_run_projections(max_batches integer DEFAULT NULL)
	LANGUAGE sql
AS $$
	SELECT @extschema@.es_call_everywhere(pg_catalog.format('CALL @extschema@.es_run_projections(%L)', max_batches))
$$;
COMMENT ON PROCEDURE es_run_projections(integer) IS
	'run the async projections of every partition until they have caught up';

CREATE PROCEDURE es_rebuild_projection(name text)
	LANGUAGE sql
AS $$
	SELECT @extschema@.es_call_everywhere(pg_catalog.format('CALL @extschema@.es_rebuild_projection(%L)', name))
$$;
COMMENT ON PROCEDURE es_rebuild_projection(text) IS
	'rebuild a projection on every partition, beside live traffic';
