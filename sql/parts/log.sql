-- log: places in the global order.  All need SELECT on es_event.

-- No event at or below it can still appear.  In REPEATABLE READ and above that
-- is as the transaction's snapshot sees it.  In READ COMMITTED ask before the
-- statement that reads: a statement's snapshot is older than an answer given
-- inside it.  On a standby it is the position that was written down last.
CREATE FUNCTION es_settled_position() RETURNS bigint
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION es_settled_position() IS
	'highest position at or below which no event can still appear';

-- For standbys and logical replicas, which go by what was written down.
-- Needs INSERT and UPDATE on es_settled.
CREATE FUNCTION es_settle() RETURNS bigint
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_settle() IS
	'write the settled position down in es_settled, and answer it';

-- 0 when all events are later.  Never above the settled position, so it is a
-- safe from_position.
CREATE FUNCTION es_position_at(at timestamptz) RETURNS bigint
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION es_position_at(timestamptz) IS
	'position of the last event that was recorded at or before a time';
