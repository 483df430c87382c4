-- stream: what concerns one stream runs on the partition that its id names
--
-- The partition's own function does the work; its answer and its errors are
-- passed on.  PL/Proxy wants its functions volatile, those that only read, too.

CREATE FUNCTION es_append(
	stream_id text,
	event_type text,
	data jsonb,
	expected_version bigint DEFAULT -1,
	metadata jsonb DEFAULT NULL,
	event_id uuid DEFAULT NULL,
	tags text[] DEFAULT NULL
) RETURNS bigint
	LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'eventstore';
	RUN ON @extschema@.es_stream_hash(stream_id);
$$;
COMMENT ON FUNCTION es_append(text, text, jsonb, bigint, jsonb, uuid, text[]) IS
	'append one event; answers its version, which is the stream''s new one';

CREATE FUNCTION es_append_batch(
	stream_id text,
	event_types text[],
	data jsonb[],
	expected_version bigint DEFAULT -1,
	metadata jsonb[] DEFAULT NULL,
	event_ids uuid[] DEFAULT NULL,
	tags jsonb[] DEFAULT NULL
) RETURNS bigint
	LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'eventstore';
	RUN ON @extschema@.es_stream_hash(stream_id);
$$;
COMMENT ON FUNCTION es_append_batch(text, text[], jsonb[], bigint, jsonb[], uuid[], jsonb[]) IS
	'append several events to one stream; answers the version of the last';

CREATE FUNCTION es_read_stream(
	stream_id text,
	from_version bigint DEFAULT 0,
	max_count bigint DEFAULT NULL,
	backwards boolean DEFAULT false,
	raw boolean DEFAULT false,
	epoch bigint DEFAULT NULL
) RETURNS SETOF es_event
	LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'eventstore';
	RUN ON @extschema@.es_stream_hash(stream_id);
$$;
COMMENT ON FUNCTION es_read_stream(text, bigint, bigint, boolean, boolean, bigint) IS
	'events of one stream in the order of their versions';

CREATE FUNCTION es_stream_version(stream_id text) RETURNS bigint
	LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'eventstore';
	RUN ON @extschema@.es_stream_hash(stream_id);
$$;
COMMENT ON FUNCTION es_stream_version(text) IS
	'version of the stream''s last event, 0 without events';

CREATE FUNCTION es_state(
	stream_id text,
	at_version bigint DEFAULT NULL,
	at timestamp with time zone DEFAULT NULL,
	aggregate text DEFAULT NULL,
	OUT version bigint,
	OUT state jsonb
) RETURNS record
	LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'eventstore';
	RUN ON @extschema@.es_stream_hash(stream_id);
$$;
COMMENT ON FUNCTION es_state(text, bigint, timestamp with time zone, text) IS
	'state of a stream, now or at an earlier version or time';

CREATE FUNCTION es_history(
	stream_id text,
	at_version bigint DEFAULT NULL,
	at timestamp with time zone DEFAULT NULL,
	aggregate text DEFAULT NULL,
	OUT version bigint,
	OUT recorded_at timestamp with time zone,
	OUT event_type text,
	OUT data jsonb,
	OUT metadata jsonb,
	OUT state jsonb
) RETURNS SETOF record
	LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'eventstore';
	RUN ON @extschema@.es_stream_hash(stream_id);
$$;
COMMENT ON FUNCTION es_history(text, bigint, timestamp with time zone, text) IS
	'events of a stream, each with the state after it';

CREATE FUNCTION es_set_stream(
	stream_id text,
	max_count bigint DEFAULT NULL,
	max_age interval DEFAULT NULL,
	truncate_before bigint DEFAULT NULL
) RETURNS void
	LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'eventstore';
	RUN ON @extschema@.es_stream_hash(stream_id);
$$;
COMMENT ON FUNCTION es_set_stream(text, bigint, interval, bigint) IS
	'say how much of a stream is shown';

CREATE FUNCTION es_truncate_stream(stream_id text, before_version bigint) RETURNS void
	LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'eventstore';
	RUN ON @extschema@.es_stream_hash(stream_id);
$$;
COMMENT ON FUNCTION es_truncate_stream(text, bigint) IS
	'show no events of a stream below a version';

CREATE FUNCTION es_delete_stream(stream_id text) RETURNS void
	LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'eventstore';
	RUN ON @extschema@.es_stream_hash(stream_id);
$$;
COMMENT ON FUNCTION es_delete_stream(text) IS
	'let a stream read as empty; it may be appended to again';

CREATE FUNCTION es_undelete_stream(stream_id text) RETURNS void
	LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'eventstore';
	RUN ON @extschema@.es_stream_hash(stream_id);
$$;
COMMENT ON FUNCTION es_undelete_stream(text) IS
	'show the events of a deleted stream again';

CREATE FUNCTION es_tombstone_stream(stream_id text) RETURNS void
	LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'eventstore';
	RUN ON @extschema@.es_stream_hash(stream_id);
$$;
COMMENT ON FUNCTION es_tombstone_stream(text) IS
	'close a stream for good: it reads as empty, and nothing can be appended';

CREATE FUNCTION es_take_snapshot(stream_id text, aggregate text DEFAULT NULL) RETURNS bigint
	LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'eventstore';
	RUN ON @extschema@.es_stream_hash(stream_id);
$$;
COMMENT ON FUNCTION es_take_snapshot(text, text) IS
	'take a snapshot of one stream now';

CREATE FUNCTION es_save_snapshot(
	stream_id text,
	version bigint,
	state jsonb,
	aggregate text DEFAULT NULL
) RETURNS void
	LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'eventstore';
	RUN ON @extschema@.es_stream_hash(stream_id);
$$;
COMMENT ON FUNCTION es_save_snapshot(text, bigint, jsonb, text) IS
	'keep the state of a stream that an application has folded';

CREATE FUNCTION es_load_snapshot(
	stream_id text,
	aggregate text DEFAULT NULL,
	at_version bigint DEFAULT NULL,
	OUT version bigint,
	OUT state jsonb
) RETURNS record
	LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'eventstore';
	RUN ON @extschema@.es_stream_hash(stream_id);
$$;
COMMENT ON FUNCTION es_load_snapshot(text, text, bigint) IS
	'the newest state that an application has kept, and its version';

CREATE FUNCTION es_handle(
	stream_id text,
	command_type text,
	command jsonb DEFAULT '{}',
	command_id uuid DEFAULT NULL,
	aggregate text DEFAULT NULL
) RETURNS bigint
	LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'eventstore';
	RUN ON @extschema@.es_command_hash(stream_id);
$$;
COMMENT ON FUNCTION es_handle(text, text, jsonb, uuid, text) IS
	'handle a command: load the state of a stream or a boundary, decide, append the events';

CREATE FUNCTION es_decide_dry(
	stream_id text,
	command_type text,
	command jsonb DEFAULT '{}',
	aggregate text DEFAULT NULL,
	OUT event_type text,
	OUT data jsonb,
	OUT metadata jsonb,
	OUT tags text[],
	OUT rejection text,
	OUT stream text
) RETURNS SETOF record
	LANGUAGE plproxy VOLATILE PARALLEL UNSAFE
AS $$
	CLUSTER 'eventstore';
	RUN ON @extschema@.es_command_hash(stream_id);
$$;
COMMENT ON FUNCTION es_decide_dry(text, text, jsonb, text) IS
	'what a command would do now: the events or the rejection, appending nothing';
