-- definition: what is defined once at the router and holds on every partition
--
-- All or none, by two-phase commit.  Each partition runs the command in a
-- transaction of its own and prepares it, partition 0 first; then they are
-- committed, partition 0 first again.  Rolling back goes the other way,
-- partition 0 last.  So partition 0's prepared transaction is the record of the
-- decision: where it is still there, nobody has committed, and all may be
-- rolled back; where it is gone and another's is there, the decision was to
-- commit.  Nothing needs to be written down at the router, which may be lost
-- at any moment, and any other router can finish what it left.
--
-- An advisory lock on partition 0, held by the session that prepares, commits or
-- resolves, keeps two of them apart.

CREATE FUNCTION es_shard_open(shard integer) RETURNS text
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
AS $$
DECLARE
	name text := 'es_router_' OPERATOR(pg_catalog.||) shard;
	connection text := @extschema@.es_shard_connection(shard);
BEGIN
	IF name OPERATOR(pg_catalog.=) ANY (@extschema@.dblink_get_connections()) THEN
		PERFORM @extschema@.dblink_disconnect(name);
	END IF;
	-- dblink_connect insists on a password for all but superusers.
	IF pg_catalog.has_function_privilege('@extschema@.dblink_connect_u(text, text)', 'EXECUTE') THEN
		PERFORM @extschema@.dblink_connect_u(name, connection);
	ELSE
		PERFORM @extschema@.dblink_connect(name, connection);
	END IF;
	RETURN name;
END
$$;
COMMENT ON FUNCTION es_shard_open(integer) IS
	'open a connection to a partition for definitions; answers its name';

CREATE FUNCTION es_shard_run(name text, command text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
AS $$
BEGIN
	PERFORM @extschema@.dblink_send_query(name, command);
	PERFORM FROM @extschema@.dblink_get_result(name) AS t(answer text);
	PERFORM FROM @extschema@.dblink_get_result(name) AS t(answer text);
END
$$;
COMMENT ON FUNCTION es_shard_run(text, text) IS
	'run a command on an open connection, and wait for it';

CREATE FUNCTION es_shard_close() RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
AS $$
DECLARE
	name text;
BEGIN
	FOREACH name IN ARRAY COALESCE(@extschema@.dblink_get_connections(), '{}') LOOP
		IF name OPERATOR(pg_catalog.~) '^es_router_[0-9]+$' THEN
			PERFORM @extschema@.dblink_disconnect(name);
		END IF;
	END LOOP;
END
$$;
COMMENT ON FUNCTION es_shard_close() IS
	'close the connections for definitions';

-- Connections to all partitions, and the lock; fails where a partition cannot be reached.
CREATE FUNCTION es_shard_open_all() RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
AS $$
DECLARE
	shard integer;
BEGIN
	FOREACH shard IN ARRAY @extschema@.es_shards() LOOP
		PERFORM @extschema@.es_shard_open(shard);
	END LOOP;
	PERFORM @extschema@.es_shard_run('es_router_0',
		'SELECT pg_catalog.pg_advisory_lock(pg_catalog.hashtextextended(''eventstore_router definition'', 0))');
END
$$;
COMMENT ON FUNCTION es_shard_open_all() IS
	'open connections to all partitions, and keep other definitions waiting';

-- Needs the connections and the lock.
CREATE FUNCTION es_shard_resolve() RETURNS TABLE (shard integer, gid text, action text)
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	shards integer[] := @extschema@.es_shards();
	found text[] := '{}';
	s integer;
	g text;
BEGIN
	FOREACH s IN ARRAY shards LOOP
		FOR g IN SELECT t.gid FROM @extschema@.dblink('es_router_' || s,
			$q$SELECT x.gid FROM pg_catalog.pg_prepared_xacts x
				WHERE x.database = pg_catalog.current_database() AND x.gid ~ '^es_router_[-0-9a-f]{36}_[0-9]+$'$q$) AS t(gid text)
		LOOP
			found := found || g;
		END LOOP;
	END LOOP;
	-- The highest number first, so that partition 0 is rolled back last.
	FOR g IN SELECT f FROM unnest(found) AS f ORDER BY substring(f FROM '[0-9]+$')::integer DESC LOOP
		shard := substring(g FROM '[0-9]+$')::integer;
		gid := g;
		action := CASE WHEN regexp_replace(g, '[0-9]+$', '0') = ANY (found) THEN 'ROLLBACK' ELSE 'COMMIT' END;
		PERFORM @extschema@.es_shard_run('es_router_' || shard, format('%s PREPARED %L', action, gid));
		RETURN NEXT;
	END LOOP;
END
$$;
COMMENT ON FUNCTION es_shard_resolve() IS
	'finish definitions that were left in doubt, on open connections';

CREATE FUNCTION es_resolve_definitions() RETURNS TABLE (shard integer, gid text, action text)
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
AS $$
BEGIN
	PERFORM @extschema@.es_shard_open_all();
	RETURN QUERY SELECT * FROM @extschema@.es_shard_resolve();
	PERFORM @extschema@.es_shard_close();
EXCEPTION WHEN query_canceled OR OTHERS THEN
	PERFORM @extschema@.es_shard_close();
	RAISE;
END
$$;
COMMENT ON FUNCTION es_resolve_definitions() IS
	'finish definitions whose router was lost: commit those that were decided, roll back the others';

-- Command n + 1 runs on partition n, with the caller's search_path.
CREATE FUNCTION es_define_each(commands text[]) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
AS $$
DECLARE
	n CONSTANT integer := pg_catalog.cardinality(@extschema@.es_shards());
	path CONSTANT text := pg_catalog.current_setting('search_path');
	base CONSTANT text := pg_catalog.format('es_router_%s_', pg_catalog.gen_random_uuid());
	prepared integer := 0;
	committed integer := 0;
	deciding boolean := false;
	name text;
BEGIN
	PERFORM @extschema@.es_shard_open_all();
	PERFORM @extschema@.es_shard_resolve();
	FOR i IN 0 .. n - 1 LOOP
		name := 'es_router_' OPERATOR(pg_catalog.||) i;
		PERFORM @extschema@.es_shard_run(name, 'BEGIN');
		PERFORM @extschema@.es_shard_run(name, pg_catalog.format('SELECT pg_catalog.set_config(''search_path'', %L, true)', path));
		PERFORM @extschema@.es_shard_run(name, commands[i + 1]);
		PERFORM @extschema@.es_shard_run(name, pg_catalog.format('PREPARE TRANSACTION %L', base OPERATOR(pg_catalog.||) i));
		prepared := i + 1;
	END LOOP;
	deciding := true;
	FOR i IN 0 .. n - 1 LOOP
		PERFORM @extschema@.es_shard_run('es_router_' OPERATOR(pg_catalog.||) i,
			pg_catalog.format('COMMIT PREPARED %L', base OPERATOR(pg_catalog.||) i));
		committed := i + 1;
	END LOOP;
	PERFORM @extschema@.es_shard_close();
EXCEPTION WHEN query_canceled OR OTHERS THEN
	DECLARE
		state text; message text; detail text; hint text;
	BEGIN
		GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
			detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
		IF deciding THEN
			PERFORM @extschema@.es_shard_close();
			RAISE 'the definition was given to % of % partitions', committed, n USING
				ERRCODE = 'statement_completion_unknown',
				DETAIL = message,
				HINT = 'SELECT * FROM es_resolve_definitions() finishes it when every partition can be reached.';
		END IF;
		BEGIN
			FOR i IN REVERSE prepared - 1 .. 0 LOOP
				PERFORM @extschema@.es_shard_run('es_router_' OPERATOR(pg_catalog.||) i,
					pg_catalog.format('ROLLBACK PREPARED %L', base OPERATOR(pg_catalog.||) i));
			END LOOP;
		EXCEPTION WHEN OTHERS THEN
			NULL;	-- partition 0 has not committed: the next definition rolls back the rest
		END;
		PERFORM @extschema@.es_shard_close();
		RAISE '%', message USING ERRCODE = state, DETAIL = detail, HINT = hint;
	END;
END
$$;
COMMENT ON FUNCTION es_define_each(text[]) IS
	'run a command on each partition, on all of them or on none';

CREATE FUNCTION es_define(command text) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
AS $$
	SELECT @extschema@.es_define_each(pg_catalog.array_fill(es_define.command, ARRAY[pg_catalog.cardinality(@extschema@.es_shards())]))
$$;
COMMENT ON FUNCTION es_define(text) IS
	'run an SQL command, such as CREATE TABLE, on every partition or on none';

-- The partitions' own constraint: what it must be on a partition.
CREATE FUNCTION es_shard_constraint(shard integer) RETURNS text
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	n CONSTANT integer := cardinality(@extschema@.es_shards());
	prefixes CONSTANT text[] := (SELECT array_agg(r.tag_prefix ORDER BY r.tag_prefix) FROM @extschema@.es_route r);
BEGIN
	RETURN format('(%s & %s) = %s', @extschema@.es_key_expression('stream_id'), n - 1, shard) ||
		CASE WHEN prefixes IS NULL THEN ''
			ELSE format(' AND @extschema@.es_shard_holds(tags, %L::text[], %s, %s)', prefixes, n - 1, shard) END;
END
$$;
COMMENT ON FUNCTION es_shard_constraint(integer) IS
	'check constraint that keeps a partition to its own streams and tags';

CREATE FUNCTION es_attach_partitions(tag_prefixes text[] DEFAULT '{}') RETURNS integer
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = @extschema@, pg_catalog, pg_temp
AS $$
DECLARE
	shards integer[] := es_shards();
BEGIN
	DELETE FROM es_route;
	INSERT INTO es_route SELECT DISTINCT p FROM unnest(tag_prefixes) AS p;
	PERFORM es_define_each(ARRAY(SELECT format($c$DO $do$ BEGIN
CREATE OR REPLACE FUNCTION @extschema@.es_shard_holds(tags text[], prefixes text[], mask integer, shard integer) RETURNS boolean
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
	RETURN COALESCE((SELECT pg_catalog.bool_and((pg_catalog.hashtext(t COLLATE "C") & mask) = shard)
		FROM pg_catalog.unnest(tags) AS t WHERE pg_catalog.split_part(t, ':', 1) = ANY (prefixes)), true);
COMMENT ON FUNCTION @extschema@.es_shard_holds(text[], text[], integer, integer) IS
	'do these tags belong to this partition?';
ALTER TABLE @extschema@.es_event DROP CONSTRAINT IF EXISTS es_event_shard, ADD CONSTRAINT es_event_shard CHECK (%s);
COMMENT ON CONSTRAINT es_event_shard ON @extschema@.es_event IS %L;
END $do$ $c$, es_shard_constraint(s), es_shard_mark(s)) FROM unnest(shards) AS s ORDER BY s));
	RETURN cardinality(shards);
END
$$;
COMMENT ON FUNCTION es_attach_partitions(text[]) IS
	'tell each partition which streams and tags are its own; answers how many partitions there are';

CREATE FUNCTION es_shard_mark(shard integer) RETURNS text
	LANGUAGE sql STABLE PARALLEL SAFE
RETURN pg_catalog.format('partition %s of %s, tags %s', shard, pg_catalog.cardinality(@extschema@.es_shards()),
	(SELECT COALESCE(pg_catalog.array_agg(r.tag_prefix ORDER BY r.tag_prefix), '{}') FROM @extschema@.es_route r));
COMMENT ON FUNCTION es_shard_mark(integer) IS
	'what the comment on a partition''s constraint says';

CREATE FUNCTION es_create_event_type(
	event_type text,
	version integer DEFAULT 1,
	check_expression text DEFAULT NULL,
	tags text[] DEFAULT NULL,
	if_not_exists boolean DEFAULT false
) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
AS $$
	SELECT @extschema@.es_define(pg_catalog.format(
		'SELECT @extschema@.es_create_event_type(event_type => %L::text, version => %L::integer, check_expression => %L::text, tags => %L::text[], if_not_exists => %L::boolean)',
		es_create_event_type.event_type, es_create_event_type.version, es_create_event_type.check_expression, es_create_event_type.tags, es_create_event_type.if_not_exists))
$$;
COMMENT ON FUNCTION es_create_event_type(text, integer, text, text[], boolean) IS
	'declare an event type, or a new version of one';

CREATE FUNCTION es_drop_event_type(
	event_type text,
	version integer DEFAULT NULL,
	if_exists boolean DEFAULT false
) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
AS $$
	SELECT @extschema@.es_define(pg_catalog.format(
		'SELECT @extschema@.es_drop_event_type(event_type => %L::text, version => %L::integer, if_exists => %L::boolean)',
		es_drop_event_type.event_type, es_drop_event_type.version, es_drop_event_type.if_exists))
$$;
COMMENT ON FUNCTION es_drop_event_type(text, integer, boolean) IS
	'take back the declaration of an event type; its events stay';

CREATE FUNCTION es_upcast(
	event_type text,
	from_version integer,
	expression text,
	new_type text DEFAULT NULL
) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
AS $$
	SELECT @extschema@.es_define(pg_catalog.format(
		'SELECT @extschema@.es_upcast(event_type => %L::text, from_version => %L::integer, expression => %L::text, new_type => %L::text)',
		es_upcast.event_type, es_upcast.from_version, es_upcast.expression, es_upcast.new_type))
$$;
COMMENT ON FUNCTION es_upcast(text, integer, text, text) IS
	'define how events of a version of their type are shown as the next one';

CREATE FUNCTION es_drop_upcaster(
	event_type text,
	from_version integer,
	if_exists boolean DEFAULT false
) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
AS $$
	SELECT @extschema@.es_define(pg_catalog.format(
		'SELECT @extschema@.es_drop_upcaster(event_type => %L::text, from_version => %L::integer, if_exists => %L::boolean)',
		es_drop_upcaster.event_type, es_drop_upcaster.from_version, es_drop_upcaster.if_exists))
$$;
COMMENT ON FUNCTION es_drop_upcaster(text, integer, boolean) IS
	'let events of a version be shown as they are again';

CREATE FUNCTION es_create_aggregate(
	name text,
	category text DEFAULT NULL,
	initial_state text DEFAULT NULL,
	state_type text DEFAULT 'jsonb',
	snapshot_every integer DEFAULT 100,
	snapshot_interval interval DEFAULT NULL,
	boundary jsonb DEFAULT NULL,
	or_replace boolean DEFAULT false,
	if_not_exists boolean DEFAULT false
) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
AS $$
	SELECT @extschema@.es_define(pg_catalog.format(
		'SELECT @extschema@.es_create_aggregate(name => %L::text, category => %L::text, initial_state => %L::text, state_type => %L::regtype, snapshot_every => %L::integer, snapshot_interval => %L::interval, boundary => %L::jsonb, or_replace => %L::boolean, if_not_exists => %L::boolean)',
		es_create_aggregate.name, es_create_aggregate.category, es_create_aggregate.initial_state, es_create_aggregate.state_type, es_create_aggregate.snapshot_every, es_create_aggregate.snapshot_interval, es_create_aggregate.boundary, es_create_aggregate.or_replace, es_create_aggregate.if_not_exists))
$$;
COMMENT ON FUNCTION es_create_aggregate(text, text, text, text, integer, interval, jsonb, boolean, boolean) IS
	'define an aggregate: the state that the events of a stream add up to';

CREATE FUNCTION es_evolve(aggregate text, event_type text, expression text) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
AS $$
	SELECT @extschema@.es_define(pg_catalog.format(
		'SELECT @extschema@.es_evolve(aggregate => %L::text, event_type => %L::text, expression => %L::text)',
		es_evolve.aggregate, es_evolve.event_type, es_evolve.expression))
$$;
COMMENT ON FUNCTION es_evolve(text, text, text) IS
	'define what an event does to an aggregate''s state, as an expression over state and event';

CREATE FUNCTION es_decide(
	aggregate text,
	command_type text,
	query text,
	reject text DEFAULT NULL
) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
AS $$
	SELECT @extschema@.es_define(pg_catalog.format(
		'SELECT @extschema@.es_decide(aggregate => %L::text, command_type => %L::text, query => %L::text, reject => %L::text)',
		es_decide.aggregate, es_decide.command_type, es_decide.query, es_decide.reject))
$$;
COMMENT ON FUNCTION es_decide(text, text, text, text) IS
	'define what an aggregate decides on a command: a query that gives the events, and a reason to reject';

CREATE FUNCTION es_drop_aggregate(name text, if_exists boolean DEFAULT false) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
AS $$
	SELECT @extschema@.es_define(pg_catalog.format(
		'SELECT @extschema@.es_drop_aggregate(name => %L::text, if_exists => %L::boolean)',
		es_drop_aggregate.name, es_drop_aggregate.if_exists))
$$;
COMMENT ON FUNCTION es_drop_aggregate(text, boolean) IS
	'drop an aggregate; its events stay';

CREATE FUNCTION es_drop_evolver(
	aggregate text,
	event_type text,
	if_exists boolean DEFAULT false
) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
AS $$
	SELECT @extschema@.es_define(pg_catalog.format(
		'SELECT @extschema@.es_drop_evolver(aggregate => %L::text, event_type => %L::text, if_exists => %L::boolean)',
		es_drop_evolver.aggregate, es_drop_evolver.event_type, es_drop_evolver.if_exists))
$$;
COMMENT ON FUNCTION es_drop_evolver(text, text, boolean) IS
	'let events of a type leave an aggregate''s state as it is again';

CREATE FUNCTION es_drop_decider(
	aggregate text,
	command_type text,
	if_exists boolean DEFAULT false
) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
AS $$
	SELECT @extschema@.es_define(pg_catalog.format(
		'SELECT @extschema@.es_drop_decider(aggregate => %L::text, command_type => %L::text, if_exists => %L::boolean)',
		es_drop_decider.aggregate, es_drop_decider.command_type, es_drop_decider.if_exists))
$$;
COMMENT ON FUNCTION es_drop_decider(text, text, boolean) IS
	'drop an aggregate''s answer to a command';

CREATE FUNCTION es_create_projection(
	name text,
	mode text DEFAULT 'async',
	tables text[] DEFAULT '{}',
	category text DEFAULT NULL,
	on_error text DEFAULT 'stop'
) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
AS $$
	SELECT @extschema@.es_define(pg_catalog.format(
		'SELECT @extschema@.es_create_projection(name => %L::text, mode => %L::text, tables => %L::regclass[], category => %L::text, on_error => %L::text)',
		es_create_projection.name, es_create_projection.mode, es_create_projection.tables, es_create_projection.category, es_create_projection.on_error))
$$;
COMMENT ON FUNCTION es_create_projection(text, text, text[], text, text) IS
	'define a projection, inline or async; give it handlers with es_on and es_on_batch';

CREATE FUNCTION es_on(projection text, event_type text, handler text) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
AS $$
	SELECT @extschema@.es_define(pg_catalog.format(
		'SELECT @extschema@.es_on(projection => %L::text, event_type => %L::text, handler => %L::text)',
		es_on.projection, es_on.event_type, es_on.handler))
$$;
COMMENT ON FUNCTION es_on(text, text, text) IS
	'add a handler that runs once for each event of a type';

CREATE FUNCTION es_on_batch(projection text, handler text) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
AS $$
	SELECT @extschema@.es_define(pg_catalog.format(
		'SELECT @extschema@.es_on_batch(projection => %L::text, handler => %L::text)',
		es_on_batch.projection, es_on_batch.handler))
$$;
COMMENT ON FUNCTION es_on_batch(text, text) IS
	'add a handler that runs once for each batch of events, over new_events';

CREATE FUNCTION es_drop_handler(
	projection text,
	event_type text DEFAULT NULL,
	if_exists boolean DEFAULT false
) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
AS $$
	SELECT @extschema@.es_define(pg_catalog.format(
		'SELECT @extschema@.es_drop_handler(projection => %L::text, event_type => %L::text, if_exists => %L::boolean)',
		es_drop_handler.projection, es_drop_handler.event_type, es_drop_handler.if_exists))
$$;
COMMENT ON FUNCTION es_drop_handler(text, text, boolean) IS
	'take a projection''s handlers for an event type away, or those for batches';

CREATE FUNCTION es_drop_projection(name text) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
AS $$
	SELECT @extschema@.es_define(pg_catalog.format(
		'SELECT @extschema@.es_drop_projection(name => %L::text)',
		es_drop_projection.name))
$$;
COMMENT ON FUNCTION es_drop_projection(text) IS
	'remove a projection, its handlers and its parked events; the read tables stay';

CREATE FUNCTION es_pause_projection(name text) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
AS $$
	SELECT @extschema@.es_define(pg_catalog.format(
		'SELECT @extschema@.es_pause_projection(name => %L::text)',
		es_pause_projection.name))
$$;
COMMENT ON FUNCTION es_pause_projection(text) IS
	'let a projection rest until es_resume_projection';

CREATE FUNCTION es_resume_projection(name text) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
AS $$
	SELECT @extschema@.es_define(pg_catalog.format(
		'SELECT @extschema@.es_resume_projection(name => %L::text)',
		es_resume_projection.name))
$$;
COMMENT ON FUNCTION es_resume_projection(text) IS
	'let a paused or stopped projection go on where it stands';
