/*
 * append.c: give new events their place and put them into the store.
 *
 * One append, in this order, and the order matters:
 *   1. the lock on the stream;
 *   2. event ids that are already stored: a retry, answered and done, whatever
 *      has been declared of its types since;
 *   3. checks of the types, tags from their templates;
 *   4. the locks on all tags, then the gate;
 *   5. the version check: a loser fails here and burns no position;
 *   6. announce, draw positions (log.c says why);
 *   7. insert through the table and index access methods, tags included
 *      (insert.c).
 * EsAssign is 3 to 6 and serves es_append, es_append_batch and the BEFORE
 * INSERT trigger alike, so no route can leave out a check.
 *
 * Where there are no ids to look for, 1 is done with 4, all locks at once.  A
 * look for ids is worth something only behind the gate, so an append that
 * comes with ids, and may get tags from a template, waits for its tags inside
 * of it.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/int.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "append.h"
#include "epoch.h"
#include "event_id.h"
#include "event_type.h"
#include "insert.h"
#include "lifecycle.h"
#include "log.h"
#include "metadata.h"
#include "point.h"
#include "row_security.h"
#include "stat.h"
#include "stream.h"
#include "tag.h"

/* What es_last_position() answers; 0: nothing appended yet. */
static int64 last_position = 0;

PG_FUNCTION_INFO_V1(es_append);
PG_FUNCTION_INFO_V1(es_append_batch);
PG_FUNCTION_INFO_V1(es_last_position);

/* ----- place in the stream and in the log ----- */

static void
check_version(Relation event, const EsAppend *append, int64 actual)
{
	int64		expected = append->expected_version;
	char	   *wanted;

	if (expected == ES_VERSION_ANY || expected == actual ||
		(expected == ES_VERSION_EXISTS && actual > 0))
		return;
	EsStatCount(ES_COUNT_CONFLICTS, 1);
	EsRowSecurityHide(event, append->stream_id);
	wanted = expected == ES_VERSION_EXISTS ? "an existing stream" :
		expected == ES_VERSION_NONE ? "no stream" :
		psprintf("version " INT64_FORMAT, expected);
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("stream \"%s\" is not at the expected version",
					text_to_cstring(append->stream_id)),
			 errdetail("Expected %s; the stream is at version " INT64_FORMAT ".",
					   wanted, actual),
			 errhint("Read the stream again and decide again."),
			 err_generic_string(PG_DIAG_CONSTRAINT_NAME, "es_expected_version")));
}

/* Versions and the time; the time never goes back inside a stream. */
static void
assign_versions(EsAppend *append, EsStreamHead head)
{
	int64		last;

	if (pg_add_s64_overflow(head.version, append->nevents, &last))
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("stream \"%s\" is full",
						text_to_cstring(append->stream_id))));
	for (int i = 0; i < append->nevents; i++)
		append->events[i].version = head.version + 1 + i;
	append->recorded_at = GetCurrentTimestamp();
	if (head.version > 0 && head.recorded_at > append->recorded_at)
		append->recorded_at = head.recorded_at;
}

static void
draw_positions(const EsStore *store, EsAppend *append)
{
	for (int i = 0; i < append->nevents; i++)
		append->events[i].position = EsDrawPosition(store);
	EsPoint("after-draw");
}

/* Check the version of a locked stream and assign all that is to assign. */
static void
assign_place(Relation event, const EsStore *store, EsAppend *append)
{
	/* in the mode that inserting will ask for, so that one lock serves both */
	Relation	stream_key = index_open(store->stream_key, RowExclusiveLock);
	EsStreamHead head = {0, 0};

	if (!append->own_stream)
		head = EsStreamHeadForAppend(event, stream_key, append->stream_id);
	index_close(stream_key, NoLock);
	check_version(event, append, head.version);
	assign_versions(append, head);
	EsStreamHint(append->stream_id, append->events[append->nevents - 1].version);
	EsAssignIds(append);
	if (ES_BUG != 5)
		draw_positions(store, append);
	EsNoteLastPosition(append->events[append->nevents - 1].position);
}

/* Does the append bring tags? */
bool
EsAppendHasTags(const EsAppend *append)
{
	for (int i = 0; i < append->nevents; i++)
		if (append->events[i].tags != NULL)
			return true;
	return false;
}

/* Lock the stream and all tags, as far as they are known, and pass the gate. */
static void
lock_append(const EsStore *store, const EsAppend *append)
{
	EsLockKey	few[1 + ES_MAX_TAGS];
	EsLockKey  *keys = few;
	int			nkeys = 0;

	if (!EsAppendHasTags(append) && !append->own_stream)
	{
		EsStreamLock(store, append->stream_id);
		return;
	}
	if (append->nevents > 1)
		keys = palloc_extended((1 + (Size) append->nevents * ES_MAX_TAGS) * sizeof(EsLockKey),
							   MCXT_ALLOC_HUGE);
	if (!append->own_stream)
		keys[nkeys++] = EsLockKeyOf(ES_LOCK_STREAM, append->stream_id, ExclusiveLock);
	for (int i = 0; i < append->nevents && ES_BUG != 60; i++)
		nkeys += EsTagsAddKeys(append->events[i].tags, RowExclusiveLock,
							   keys + nkeys);
	EsLockKeys(store, keys, nkeys);
	if (keys != few)
		pfree(keys);
}

/*
 * Check the events against their types and fill in the tags that these give,
 * lock the stream and the tags, check the version and assign version,
 * position, id and time of each event.  All locks stay until the transaction
 * ends.
 */
void
EsAssign(Relation event, const EsStore *store, EsAppend *append)
{
	if (ES_BUG == 5)
		draw_positions(store, append);
	if (!append->locked)
	{
		EsEventTypesApply(append);
		lock_append(store, append);
	}
	if (!append->own_stream)
		EsStreamCheckOpen(event, append->stream_id);
	assign_place(event, store, append);
	EsStatCount(ES_COUNT_EVENTS, append->nevents);
}

void
EsNoteLastPosition(int64 position)
{
	last_position = position;
}

/* What es_last_position() answers, 0 for nothing. */
int64
EsLastPosition(void)
{
	return last_position;
}

/*
 * es_last_position() → bigint: NULL before this session's first append.
 */
Datum
es_last_position(PG_FUNCTION_ARGS)
{
	if (last_position == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(last_position);
}

/* ----- append ----- */

/*
 * Take the locks that a look for a retry needs.  Tags are locked all together
 * or not yet: no order could be kept otherwise.
 */
static void
lock_for_retry(const EsStore *store, const EsAppend *append)
{
	if (EsEventTypesDeclared())
		EsStreamLock(store, append->stream_id);
	else
		lock_append(store, append);
}

/*
 * Append events to one stream.  Answers the version of the last one; for a
 * retry, what the first try answered.
 */
int64
EsAppendEvents(EsAppend *append)
{
	const EsStore *store;
	Relation	event = EsEventOpen(&store, RowExclusiveLock);
	EsNewEvent *last = &append->events[append->nevents - 1];
	bool		has_ids = false;

	EsCheckPrivilege(event, ACL_INSERT);
	EsEpochConfirm(event, store);
	for (int i = 0; i < append->nevents && !has_ids && !append->locked; i++)
		has_ids = append->events[i].has_id;

	if (has_ids)
	{
		lock_for_retry(store, append);
		if (EsAppendIsRetry(event, store, append))
		{
			EsStatCount(ES_COUNT_RETRIES, 1);
			EsNoteLastPosition(last->position);
			table_close(event, NoLock);
			return last->version;
		}
		EsPoint("ids-looked");
	}
	EsAssign(event, store, append);
	EsInsertEvents(event, append);
	EsAppendCheckArchived(append);
	EsPoint("appended");
	table_close(event, NoLock);	/* kept to commit */
	return last->version;
}

/* ----- SQL ----- */

static void
require_argument(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", name)));
}

static int64
expected_version_argument(FunctionCallInfo fcinfo, int n)
{
	int64		expected;

	require_argument(fcinfo, n, "expected_version");
	expected = PG_GETARG_INT64(n);
	if (expected < ES_VERSION_EXISTS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid expected version " INT64_FORMAT, expected),
				 errhint("Use a version, 0 for a stream without events, -1 for any version, or -2 for a stream that exists.")));
	return expected;
}

/*
 * es_append(stream_id text, event_type text, data jsonb,
 *			 expected_version bigint, metadata jsonb, event_id uuid,
 *			 tags text[]) → bigint
 */
Datum
es_append(PG_FUNCTION_ARGS)
{
	EsNewEvent	event = {0};
	EsAppend	append = {.events = &event,.nevents = 1};

	EsRequireReadWrite("es_append()");
	PreventCommandIfParallelMode("es_append()");
	require_argument(fcinfo, 0, "stream_id");
	require_argument(fcinfo, 1, "event_type");
	require_argument(fcinfo, 2, "data");
	append.stream_id = PG_GETARG_TEXT_PP(0);
	EsCheckStreamId(append.stream_id);
	event.event_type = PG_GETARG_TEXT_PP(1);
	EsCheckEventType(event.event_type);
	event.data = PG_GETARG_JSONB_P(2);
	append.expected_version = expected_version_argument(fcinfo, 3);
	event.metadata = EsMergeMetadata(PG_ARGISNULL(4) ? NULL : PG_GETARG_JSONB_P(4));
	if (!PG_ARGISNULL(5))
	{
		event.has_id = true;
		event.event_id = *PG_GETARG_UUID_P(5);
	}
	if (!PG_ARGISNULL(6))
		event.tags = EsCheckTags(PG_GETARG_ARRAYTYPE_P(6));

	PG_RETURN_INT64(EsAppendEvents(&append));
}

/* The elements of an array argument, which must have as many as the first. */
static Datum *
array_argument(FunctionCallInfo fcinfo, int n, const char *name, Oid type,
			   int16 length, char align, bool **nulls, int *count)
{
	ArrayType  *array = PG_GETARG_ARRAYTYPE_P(n);
	Datum	   *elements;
	int			elements_count;

	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be a one-dimensional array", name)));
	deconstruct_array(array, type, length, false, align, &elements, nulls,
					  &elements_count);
	if (*count >= 0 && elements_count != *count)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the arrays of a batch must have the same length"),
				 errdetail("\"event_types\" has %d elements, \"%s\" has %d.",
						   *count, name, elements_count)));
	*count = elements_count;
	return elements;
}

static void
reject_null_element(bool isnull, const char *name, int i)
{
	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("element %d of \"%s\" must not be null", i + 1, name)));
}

static EsNewEvent *
batch_events(FunctionCallInfo fcinfo, int *nevents)
{
	bool	   *type_nulls;
	bool	   *data_nulls;
	bool	   *metadata_nulls = NULL;
	bool	   *id_nulls = NULL;
	bool	   *tag_nulls = NULL;
	Datum	   *types;
	Datum	   *data;
	Datum	   *metadata = NULL;
	Datum	   *ids = NULL;
	Datum	   *tags = NULL;
	int			n = -1;
	EsNewEvent *events;

	types = array_argument(fcinfo, 1, "event_types", TEXTOID, -1, TYPALIGN_INT,
						   &type_nulls, &n);
	data = array_argument(fcinfo, 2, "data", JSONBOID, -1, TYPALIGN_INT,
						  &data_nulls, &n);
	if (!PG_ARGISNULL(4))
		metadata = array_argument(fcinfo, 4, "metadata", JSONBOID, -1,
								  TYPALIGN_INT, &metadata_nulls, &n);
	if (!PG_ARGISNULL(5))
		ids = array_argument(fcinfo, 5, "event_ids", UUIDOID, UUID_LEN,
							 TYPALIGN_CHAR, &id_nulls, &n);
	if (!PG_ARGISNULL(6))
		tags = array_argument(fcinfo, 6, "tags", JSONBOID, -1, TYPALIGN_INT,
							  &tag_nulls, &n);
	if (n == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a batch must have at least one event")));

	events = palloc0(n * sizeof(EsNewEvent));
	for (int i = 0; i < n; i++)
	{
		reject_null_element(type_nulls[i], "event_types", i);
		reject_null_element(data_nulls[i], "data", i);
		events[i].event_type = DatumGetTextPP(types[i]);
		EsCheckEventType(events[i].event_type);
		events[i].data = DatumGetJsonbP(data[i]);
		events[i].metadata =
			EsMergeMetadata(metadata == NULL || metadata_nulls[i] ? NULL :
							DatumGetJsonbP(metadata[i]));
		events[i].has_id = ids != NULL;
		if (ids != NULL)
		{
			/* a batch of which only some have ids could never be repeated */
			reject_null_element(id_nulls[i], "event_ids", i);
			events[i].event_id = *DatumGetUUIDP(ids[i]);
		}
		if (tags != NULL && !tag_nulls[i])
			events[i].tags = EsTagsOfJson(&DatumGetJsonbP(tags[i])->root);
	}
	*nevents = n;
	return events;
}

/*
 * es_append_batch(stream_id text, event_types text[], data jsonb[],
 *				   expected_version bigint, metadata jsonb[],
 *				   event_ids uuid[], tags jsonb[]) → bigint
 */
Datum
es_append_batch(PG_FUNCTION_ARGS)
{
	EsAppend	append = {0};

	EsRequireReadWrite("es_append_batch()");
	PreventCommandIfParallelMode("es_append_batch()");
	require_argument(fcinfo, 0, "stream_id");
	require_argument(fcinfo, 1, "event_types");
	require_argument(fcinfo, 2, "data");
	append.stream_id = PG_GETARG_TEXT_PP(0);
	EsCheckStreamId(append.stream_id);
	append.expected_version = expected_version_argument(fcinfo, 3);
	append.events = batch_events(fcinfo, &append.nevents);

	PG_RETURN_INT64(EsAppendEvents(&append));
}
