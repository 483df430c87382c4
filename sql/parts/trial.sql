-- trial: commands that leave no trace

-- The events, or one row with the rejection and no event.  tags include those
-- that the event's type gives; stream is what the decider says, NULL where it
-- leaves that to es_handle.  What the decider itself changes is undone.
-- stream_id may be NULL where the aggregate has a boundary.
CREATE FUNCTION es_decide_dry(
	stream_id    text,
	command_type text,
	command      jsonb DEFAULT '{}',
	aggregate    text  DEFAULT NULL,
	OUT event_type text,
	OUT data       jsonb,
	OUT metadata   jsonb,
	OUT tags       text[],
	OUT rejection  text,
	OUT stream     text
) RETURNS SETOF record
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1;
COMMENT ON FUNCTION es_decide_dry(text, text, jsonb, text) IS
	'what a command would do now: the events or the rejection, appending nothing';

-- given is an array of events, {"type": ..., "data": ...}, with tags where they
-- have others than their type gives; where the aggregate has a boundary, those
-- that match it are folded.  then_events is one of those that the command must
-- lead to, [] for none, where data, metadata and tags are compared if they are
-- there; then_error is the message it must be rejected with.  No event is stored and none is read.  The output is TAP:
-- inside a pgTAP plan by pgTAP itself, else numbered by session, with the
-- plan from es_test_done() at the end.
CREATE FUNCTION es_test(
	aggregate    text,
	given        jsonb,
	command_type text,
	command      jsonb,
	then_events  jsonb DEFAULT NULL,
	then_error   text  DEFAULT NULL,
	description  text  DEFAULT NULL
) RETURNS SETOF text
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1;
COMMENT ON FUNCTION es_test(text, jsonb, text, jsonb, jsonb, text, text) IS
	'test a decider: given events, when a command comes, then these events or this rejection';

CREATE FUNCTION es_test_done() RETURNS SETOF text
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1;
COMMENT ON FUNCTION es_test_done() IS
	'end a series of es_test() calls: the TAP plan, and how many failed';
