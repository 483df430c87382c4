-- aggregate: how the events of a stream make its state
--
-- An aggregate is an initial state and, for each event type that matters, an
-- expression over state and event that gives the next state.  Events of other
-- types leave the state as it is.
--
-- The state is jsonb or of any other type; of a composite one, state.x is a
-- column, and of the event, event.data, event.recorded_at and so on.  The
-- texts are checked when they are defined (42804 for a wrong type, 42703 for
-- a misspelt name, with the place in the text).  They run with the rights of
-- the aggregate's owner, who is the role that created it, and along the
-- search_path that was in force then.  They must give the same answer each
-- time, so volatile functions are refused.

CREATE TABLE es_aggregate (
	name              text     COLLATE "C" NOT NULL,
	category          text     COLLATE "C" NOT NULL,
	initial_state     text,
	state_type        regtype  NOT NULL,
	snapshot_every    integer,
	snapshot_interval interval,
	boundary          jsonb,
	owner             regrole  NOT NULL,
	search_path       text     NOT NULL,
	CONSTRAINT es_aggregate_pkey PRIMARY KEY (name),
	CONSTRAINT es_aggregate_snapshot_every_check CHECK (snapshot_every > 0),
	CONSTRAINT es_aggregate_snapshot_interval_check CHECK (snapshot_interval > interval '0')
);
COMMENT ON TABLE es_aggregate IS 'aggregates: what state their streams'' events add up to';
COMMENT ON COLUMN es_aggregate.category IS 'streams of this category are folded by it where no aggregate is named';
COMMENT ON COLUMN es_aggregate.initial_state IS 'state before the first event, as a literal of the type or, for a composite type, a JSON object';
COMMENT ON COLUMN es_aggregate.state_type IS 'type of the state';
COMMENT ON COLUMN es_aggregate.snapshot_every IS 'take a snapshot after so many events; NULL: not by their number';
COMMENT ON COLUMN es_aggregate.snapshot_interval IS 'take a snapshot with the first event so long after the last one; NULL: not by time';
COMMENT ON COLUMN es_aggregate.owner IS 'role with whose rights the expressions run';
COMMENT ON COLUMN es_aggregate.search_path IS 'where the names in the expressions are looked up';
COMMENT ON COLUMN es_aggregate.boundary IS 'query over types and tags, filled from a command, whose events are folded; NULL: the events of a stream';

CREATE TABLE es_evolver (
	aggregate  text COLLATE "C" NOT NULL,
	event_type text COLLATE "C" NOT NULL,
	expression text NOT NULL,
	CONSTRAINT es_evolver_pkey PRIMARY KEY (aggregate, event_type),
	CONSTRAINT es_evolver_aggregate_fkey FOREIGN KEY (aggregate)
		REFERENCES es_aggregate ON UPDATE CASCADE ON DELETE CASCADE
);
COMMENT ON TABLE es_evolver IS 'what an event does to the state of an aggregate';
COMMENT ON COLUMN es_evolver.expression IS 'SQL expression over state and event; its value is the next state';

CREATE TRIGGER es_definition_change BEFORE INSERT OR UPDATE OR DELETE ON es_aggregate
	FOR EACH ROW EXECUTE FUNCTION es_definition_change('aggregate');
CREATE TRIGGER es_definition_truncate AFTER TRUNCATE ON es_aggregate
	FOR EACH STATEMENT EXECUTE FUNCTION es_definition_change();
CREATE TRIGGER es_definition_change BEFORE INSERT OR UPDATE OR DELETE ON es_evolver
	FOR EACH ROW EXECUTE FUNCTION es_definition_change('aggregate');
CREATE TRIGGER es_definition_truncate AFTER TRUNCATE ON es_evolver
	FOR EACH STATEMENT EXECUTE FUNCTION es_definition_change();
ALTER TABLE es_aggregate
	ENABLE ALWAYS TRIGGER es_definition_change,
	ENABLE ALWAYS TRIGGER es_definition_truncate;
ALTER TABLE es_evolver
	ENABLE ALWAYS TRIGGER es_definition_change,
	ENABLE ALWAYS TRIGGER es_definition_truncate;

SELECT pg_catalog.pg_extension_config_dump('es_aggregate', '');
SELECT pg_catalog.pg_extension_config_dump('es_evolver', '');

-- boundary: the aggregate folds the events that a query matches (boundary.sql)
-- and not those of a stream.  The query's tags are templates like those of
-- event types (event_type.sql), filled from the command.  An array gives an
-- item for each of its elements; a value that is missing is 22023.  Its
-- expressions see the command besides state and event.  It has no category,
-- and no snapshots are taken of it.
--
-- category: NULL for the aggregate's name.  initial_state: a literal of the
-- state's type, for a composite type also a JSON object; NULL for {} or for a
-- row of nulls.  An aggregate that exists is 42710, unless it is to be
-- replaced; it then keeps its owner and its expressions, which must fit the
-- new state.  Writes es_aggregate with the caller's privileges.
CREATE FUNCTION es_create_aggregate(
	name              text,
	category          text     DEFAULT NULL,
	initial_state     text     DEFAULT NULL,
	state_type        regtype  DEFAULT 'pg_catalog.jsonb',
	snapshot_every    integer  DEFAULT 100,
	snapshot_interval interval DEFAULT NULL,
	boundary          jsonb    DEFAULT NULL,
	or_replace        boolean  DEFAULT false,
	if_not_exists     boolean  DEFAULT false
) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_create_aggregate(text, text, text, regtype, integer, interval, jsonb, boolean, boolean) IS
	'define an aggregate: the state that the events of a stream add up to';

-- Defining an event type again replaces its expression.  Either way, the
-- aggregate's snapshots are worth nothing from then on.
CREATE FUNCTION es_evolve(
	aggregate  text,
	event_type text,
	expression text
) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_evolve(text, text, text) IS
	'define what an event does to an aggregate''s state, as an expression over state and event';

-- With its expressions, deciders and snapshots.
CREATE FUNCTION es_drop_aggregate(
	name      text,
	if_exists boolean DEFAULT false
) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_drop_aggregate(text, boolean) IS
	'drop an aggregate; its events stay';

CREATE FUNCTION es_drop_evolver(
	aggregate  text,
	event_type text,
	if_exists  boolean DEFAULT false
) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION es_drop_evolver(text, text, boolean) IS
	'let events of a type leave an aggregate''s state as it is again';
