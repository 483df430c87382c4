-- epoch: which history a position belongs to

-- What to keep with a position: readers that are given the epoch refuse
-- (55000) to go on from a position whose history was left by a promotion, a
-- restore or a copy.  Needs SELECT on es_event.  The first call gives the
-- store its identity, and so must be allowed to write.
CREATE FUNCTION es_store(
	OUT store_id         uuid,
	OUT epoch            bigint,
	OUT settled_position bigint
)
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_store() IS
	'identity of the store, its present epoch, and the settled position';
