-- boundary: decisions that depend on events of several streams
--
-- A query is the JSON of the public specification (dcb.events): {} is every
-- event, {"items": [{"types": [...], "tags": [...]}, ...]} what any item
-- matches; an item matches an event of one of its types (none: any) that has
-- all of its tags (none: any).  Anything else in it is 22023.

-- Forward: the matching events after from_position, in position order.
-- Backwards: those before it, newest first; 0 begins at the end.  Whoever goes
-- on from the last position it got meets every committed event that matches
-- exactly once; only who may still append such an event holds it back.  What
-- it returns is on disk, and in the newest form of its type (upcast.sql) or
-- with raw as it is stored; the query is about types and tags as they are
-- stored.  epoch as in read.sql.  Needs SELECT on es_event.
CREATE FUNCTION es_read(
	query         jsonb,
	from_position bigint  DEFAULT 0,
	max_count     bigint  DEFAULT NULL,
	backwards     boolean DEFAULT false,
	raw           boolean DEFAULT false,
	epoch         bigint  DEFAULT NULL
) RETURNS SETOF es_event
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 100;
COMMENT ON FUNCTION es_read(jsonb, bigint, bigint, boolean, boolean, bigint) IS
	'events that match a query over types and tags, in the order of their positions';

-- The events that a decision depends on, and the position to give to
-- es_append_if() as after.  No event that matches can still appear at or below
-- it, so no conflict is lost to a transaction that commits late.  Events are
-- shown as es_read shows them.
CREATE FUNCTION es_read_boundary(
	query      jsonb,
	raw        boolean DEFAULT false,
	OUT after  bigint,
	OUT events es_event[]
) RETURNS record
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_read_boundary(jsonb, boolean) IS
	'events that match a query, and the position up to which there can be no others';

-- All of the events or nothing.  events is an array of objects:
--
--	{"type": ..., "data": ..., "stream": ..., "metadata": ..., "tags": [...], "id": ...}
--
-- of which type and data are required.  An event without stream gets one of
-- its own, named type-id, such as CourseDefined-0190b5a2-....
--
-- Nothing is appended when an event matches fail_if_events_match (NULL: no
-- condition) behind the position after.  With after it is SQLSTATE 40001: read
-- the boundary again and decide again.  Without after any matching event is a
-- conflict, and 23505: what was to be unique is there.  Constraint
-- es_append_condition; the detail has the event's position, type and tags.
-- With epoch, what es_store() answered when after was read: 55000 if history
-- has parted below after since, and what happened there might be overlooked.
--
-- Needs INSERT on es_event, and SELECT where there is a condition.
CREATE FUNCTION es_append_if(
	events               jsonb,
	fail_if_events_match jsonb,
	after                bigint DEFAULT NULL,
	epoch                bigint DEFAULT NULL
) RETURNS bigint
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_append_if(jsonb, jsonb, bigint, bigint) IS
	'append events unless others match a query; answers the last position';

-- The same, but a conflict is an answer and not an error.
CREATE FUNCTION es_try_append_if(
	events                jsonb,
	fail_if_events_match  jsonb,
	after                 bigint DEFAULT NULL,
	epoch                 bigint DEFAULT NULL,
	OUT appended          boolean,
	OUT "position"        bigint,
	OUT conflict_position bigint,
	OUT conflict_type     text,
	OUT conflict_tags     text[],
	OUT conflict_item     integer
) RETURNS record
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_try_append_if(jsonb, jsonb, bigint, bigint) IS
	'append events unless others match a query; answers whether, and if not which event does';

-- For the owner.  Gives the events that match other tags, for queries and
-- conditions from now on; all appends stand still until the transaction ends.
-- The events themselves do not change: column tags of es_event keeps what they
-- were appended with, es_retagged says what they carry now.  What was decided
-- before is not decided again.
CREATE FUNCTION es_retag(
	query  jsonb,
	add    text[] DEFAULT NULL,
	remove text[] DEFAULT NULL
) RETURNS bigint
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_retag(jsonb, text[], text[]) IS
	'add tags to, and remove tags from, the events that match a query; answers how many changed';
