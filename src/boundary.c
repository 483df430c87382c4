/*
 * boundary.c: decide on the events that match a query, whatever streams they
 * are in, and append only if that has not changed.
 *
 * THE CHECK.  es_append_if takes its locks, then looks for matching events
 * behind "after" with SnapshotSelf, which shows what is committed by now and
 * what this transaction wrote, at every isolation level.  No snapshot taken
 * before the locks would do: the event that breaks the condition may have
 * been committed while we waited for them.
 *
 * THE LOCKS.  An event that an item with tags matches has all of them, and
 * its append takes each in RowExclusive mode (tag.c).  So Share on any one of
 * the item's tags keeps new matches away.  It is the tag that was used longest
 * ago: of a course and its tenant, the course.  Whoever appends to what it
 * checks has both modes in one.  An item without tags would have every append
 * lock its event's type; instead, the few that ask such questions shut the
 * gate.  All locks come before the first position is drawn.
 *
 * THE POSITION TO GO BY.  "after" says that every match up to there is known.
 * The last position handed out will not do: a match below it may still be
 * uncommitted.  Nor is the settled position good enough, which waits for
 * every append, and would make conflicts of events that are long committed.
 * So the question of log.c is asked about those transactions only that hold
 * one of the tags for an append, or the gate shut:
 *
 *	1. read L, the last position handed out;
 *	2. ask who holds a tag of the query in a mode of appends;
 *	3. of those, ask for the lowest announcement A;
 *	4. then look for matches up to min(L, A).
 *
 * A transaction that takes a tag after 2 draws above L.  One that held it
 * then, and had not announced by 3, announces a bound of at least L.  One that
 * ended before 3 did so before the look at 4.  The rest is bounded by A.
 * Nobody waits for anybody.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"
#include "utils/uuid.h"

#include "append.h"
#include "catalog.h"
#include "compat.h"
#include "event_type.h"
#include "log.h"
#include "point.h"
#include "match.h"
#include "stat.h"
#include "stream.h"
#include "tag.h"
#include "upcast.h"

/* Events to append together, in the order of the caller's array. */
typedef struct Batch
{
	EsNewEvent *events;
	text	  **stream_ids;		/* of each event */
	bool	   *own_stream;		/* of each: named after an id made here */
	int			nevents;
	int			given_ids;		/* how many events brought their id */
	EsAppend   *runs;			/* neighbours of one stream together */
	int			nruns;
} Batch;

/* What must not be there. */
typedef struct Condition
{
	EsBoundary    *query;			/* NULL: no condition */
	bool		has_after;
	int64		after;			/* 0 without */
} Condition;

/* The event that is there all the same. */
typedef struct Conflict
{
	int64		position;		/* 0: none */
	text	   *event_type;
	Datum		tags;
	bool		has_tags;
	int			item;			/* of the query, from 1 */
	bool		own;			/* appended by this transaction */
	bool		unseen;			/* known by "after", but not to the snapshot */
} Conflict;

PG_FUNCTION_INFO_V1(es_read);
PG_FUNCTION_INFO_V1(es_read_boundary);
PG_FUNCTION_INFO_V1(es_append_if);
PG_FUNCTION_INFO_V1(es_try_append_if);

/* ----- reading ----- */

/* Transactions, each once or several times. */
typedef struct Holders
{
	VirtualTransactionId *vxids;
	int			n;
} Holders;

static void
add_holders(Holders *holders, const VirtualTransactionId *vxids, int n)
{
	if (n == 0)
		return;
	holders->vxids = holders->vxids == NULL ?
		palloc(n * sizeof(VirtualTransactionId)) :
		repalloc(holders->vxids, (holders->n + n) * sizeof(VirtualTransactionId));
	memcpy(holders->vxids + holders->n, vxids, n * sizeof(VirtualTransactionId));
	holders->n += n;
}

/* Who may be appending an event that the item matches?  It has tags. */
static void
add_appenders(Holders *holders, const EsBoundaryItem *item)
{
	VirtualTransactionId *fewest = NULL;
	int			n = INT_MAX;

	for (int i = 0; i < item->ntags && n > 0; i++)
	{
		EsLockKey	key = EsLockKeyOf(ES_LOCK_TAG, item->tags[i], ShareLock);
		VirtualTransactionId *vxids;
		LOCKTAG		tag;
		int			count;

		EsLockKeyTag(&key, &tag);
		vxids = GetLockConflicts(&tag, ShareLock, &count);
		if (count < n)
		{
			fewest = vxids;
			n = count;
		}
	}
	add_holders(holders, fewest, n);
}

/*
 * The position up to which no event that matches can still appear, and the
 * WAL that makes it durable (steps 1 to 3).
 */
static int64
query_settled(Relation event, const EsStore *store, const EsBoundary *query,
			  XLogRecPtr *lsn)
{
	Holders		holders = {NULL, 0};
	VirtualTransactionId *vxids;
	LOCKTAG		gate;
	int64		last;
	int64		lowest;
	int			n;

	EsPoint("boundary-ask");
	*lsn = InvalidXLogRecPtr;
	if (EsFollowsOrigin(store))
		return EsSettledForSnapshot(event, store, GetActiveSnapshot());
	if (query->broad)
		return EsSettledNow(store, lsn);

	last = EsLastDrawn(store, lsn);
	for (int i = 0; i < query->nitems; i++)
		add_appenders(&holders, &query->items[i]);
	SET_LOCKTAG_RELATION(gate, MyDatabaseId, store->gate);
	vxids = GetLockConflicts(&gate, RowExclusiveLock, &n);
	if (ES_BUG != 66)
		add_holders(&holders, vxids, n);
	EsPoint("boundary-asked");
	if (holders.n == 0 || ES_BUG == 64)
		return last;
	lowest = EsLowestAnnouncedBy(holders.vxids, holders.n); /* asked once: Min would ask twice */
	return Min(last, lowest);
}

/* Did this transaction append the event? */
static bool
is_own(TupleTableSlot *slot)
{
	bool		isnull;

	return TransactionIdIsCurrentTransactionId(DatumGetTransactionId(slot_getsysattr(slot,
																					 MinTransactionIdAttributeNumber,
																					 &isnull)));
}

/*
 * Up to where does the transaction's snapshot show all that matches?  Not up
 * to last when some of it was committed, or written by the running command,
 * after the snapshot.
 */
static int64
seen_up_to(Relation event, const EsStore *store, const EsBoundary *query,
		   int64 first, int64 last)
{
	EsMatchScan *scan = EsMatchBegin(event, store, query, SnapshotSelf, first,
									 last, ForwardScanDirection);
	TupleTableSlot *slot;
	int64		position;

	while ((slot = EsMatchNext(scan, &position, NULL)) != NULL)
		if (!table_tuple_satisfies_snapshot(event, slot, GetActiveSnapshot()))
		{
			last = position - 1;
			break;
		}
	EsMatchEnd(scan);
	return last;
}

/* What to do with each event that is read. */
typedef void (*EventSink) (TupleTableSlot *slot, void *arg);

/*
 * Read the events that match, from the position first on in the direction,
 * and make durable what is handed out.  What matches is decided by what is
 * stored, what is handed out is its newest form.  Answers the position up to which
 * there can be no others.
 *
 * Below that position nothing of others can appear or vanish, so SnapshotSelf
 * is as good as one instant, and shows what the running command wrote.  Where
 * the transaction has a snapshot of its own, that one is read with, so that
 * SERIALIZABLE knows what was read.
 */
static int64
read_query(Relation event, const EsStore *store, const EsBoundary *query,
		   int64 first, int64 max_count, ScanDirection direction,
		   EventSink sink, void *arg)
{
	bool		fixed = IsolationUsesXactSnapshot() || RecoveryInProgress();
	XLogRecPtr	flushed = RecoveryInProgress() ? PG_UINT64_MAX : GetFlushRecPtr(NULL);
	XLogRecPtr	needed;
	int64		last = query_settled(event, store, query, &needed);
	int64		position;
	EsUpcast   *upcast;
	EsMatchScan *scan;
	TupleTableSlot *slot;

	if (fixed && !RecoveryInProgress())
		last = seen_up_to(event, store, query,
						  ScanDirectionIsForward(direction) ? first : 1, last);
	if (!ScanDirectionIsForward(direction))
		first = Min(first, last);
	upcast = EsUpcastBegin(RelationGetDescr(event), true);
	scan = EsMatchBegin(event, store, query,
						fixed || ES_BUG == 68 ? GetActiveSnapshot() : SnapshotSelf,
						first, ScanDirectionIsForward(direction) ? last : 1,
						direction);
	for (int64 n = 0; n < max_count && (slot = EsMatchNext(scan, &position, NULL)) != NULL; n++)
	{
		if (flushed != PG_UINT64_MAX)
			EsNoteDurability(slot, flushed, &needed);
		sink(EsUpcastSlot(upcast, slot), arg);
	}
	EsMatchEnd(scan);
	EsUpcastEnd(upcast);
	if (flushed != PG_UINT64_MAX && needed > flushed)
		XLogFlush(needed);
	return last;
}

static EsBoundary *
query_argument(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", name)));
	return EsBoundaryParse(PG_GETARG_JSONB_P(n));
}

static int64
natural_argument(FunctionCallInfo fcinfo, int n, const char *name,
				 int64 default_value)
{
	if (PG_ARGISNULL(n))
		return default_value;
	if (PG_GETARG_INT64(n) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must not be negative", name)));
	return PG_GETARG_INT64(n);
}

static void
put_row(TupleTableSlot *slot, void *arg)
{
	tuplestore_puttupleslot(arg, slot);
}

/*
 * es_read(query jsonb, from_position bigint, max_count bigint,
 *		   backwards boolean) → SETOF es_event
 */
Datum
es_read(PG_FUNCTION_ARGS)
{
	const EsStore *store;
	EsBoundary    *query = query_argument(fcinfo, 0, "query");
	int64		from = natural_argument(fcinfo, 1, "from_position", 0);
	int64		max_count = natural_argument(fcinfo, 2, "max_count", PG_INT64_MAX);
	bool		backwards = !PG_ARGISNULL(3) && PG_GETARG_BOOL(3);
	Relation	event = EsEventOpen(&store, AccessShareLock);

	EsCheckPrivilege(event, ACL_SELECT);
	InitMaterializedSRF(fcinfo, 0);
	if (backwards)
		from = from == 0 ? PG_INT64_MAX : from - 1;
	else
		from = from == PG_INT64_MAX ? from : from + 1;
	(void) read_query(event, store, query, from, max_count,
					  backwards ? BackwardScanDirection : ForwardScanDirection,
					  put_row, ((ReturnSetInfo *) fcinfo->resultinfo)->setResult);
	table_close(event, NoLock);	/* kept: the rows may point to its TOAST table */
	return (Datum) 0;
}

static void
put_element(TupleTableSlot *slot, void *arg)
{
	ArrayBuildState *events = arg;

	accumArrayResult(events, ExecFetchSlotHeapTupleDatum(slot), false,
					 events->element_type, CurrentMemoryContext);
}

/*
 * es_read_boundary(query jsonb) → (after bigint, events es_event[])
 */
Datum
es_read_boundary(PG_FUNCTION_ARGS)
{
	const EsStore *store;
	EsBoundary    *query = query_argument(fcinfo, 0, "query");
	Relation	event = EsEventOpen(&store, AccessShareLock);
	ArrayBuildState *events;
	TupleDesc	desc;
	Datum		values[2];
	bool		nulls[2] = {false, false};

	EsCheckPrivilege(event, ACL_SELECT);
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	events = initArrayResult(event->rd_rel->reltype, CurrentMemoryContext, false);
	values[0] = Int64GetDatum(read_query(event, store, query, 1, PG_INT64_MAX,
										 ForwardScanDirection, put_element, events));
	values[1] = makeArrayResult(events, CurrentMemoryContext);
	table_close(event, NoLock);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/* ----- the events to append ----- */

static void
report_event(int n, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("element %d of \"events\" is no event", n + 1),
			 errdetail("%s", detail),
			 errhint("An event is {\"type\": ..., \"data\": ..., \"stream\": ..., \"metadata\": ..., \"tags\": [...], \"id\": ...}; type and data are required.")));
}

static text *
string_member(JsonbValue *value, int n, const char *key)
{
	if (value->type != jbvString)
		report_event(n, psprintf("\"%s\" must be a string.", key));
	return cstring_to_text_with_len(value->val.string.val, value->val.string.len);
}

/* One member of an event's object; false when there is no such key. */
static bool
take_member(Batch *batch, int n, const char *key, JsonbValue *value)
{
	EsNewEvent *event = &batch->events[n];

	if (strcmp(key, "data") == 0)
		event->data = JsonbValueToJsonb(value);
	else if (strcmp(key, "type") == 0)
		event->event_type = string_member(value, n, key);
	else if (strcmp(key, "stream") == 0)
		batch->stream_ids[n] = value->type == jbvNull ? NULL : string_member(value, n, key);
	else if (strcmp(key, "metadata") == 0)
		event->metadata = value->type == jbvNull ? NULL : JsonbValueToJsonb(value);
	else if (strcmp(key, "tags") == 0)
		event->tags = value->type == jbvNull ? NULL :
			EsTagsOfJson(&JsonbValueToJsonb(value)->root);
	else if (strcmp(key, "id") == 0)
	{
		event->has_id = value->type != jbvNull;
		if (event->has_id)
			event->event_id = *DatumGetUUIDP(DirectFunctionCall1(uuid_in,
																 CStringGetDatum(text_to_cstring(string_member(value, n, key)))));
	}
	else
		return false;
	return true;
}

/* The stream of its own that an event without one gets. */
static text *
stream_of_its_own(const EsNewEvent *event)
{
	char	   *id = DatumGetCString(DirectFunctionCall1(uuid_out,
														 UUIDPGetDatum(&event->event_id)));

	return cstring_to_text(psprintf("%s-%s", text_to_cstring(event->event_type), id));
}

/* Take all members of an event's object. */
static void
take_members(Batch *batch, int n, JsonbValue *object)
{
	EsNewEvent *event = &batch->events[n];
	JsonbIterator *it;
	JsonbValue	key;

	if (object->type != jbvBinary || !JsonContainerIsObject(object->val.binary.data))
		report_event(n, "It is no JSON object.");
	it = JsonbIteratorInit(object->val.binary.data);
	(void) JsonbIteratorNext(&it, &key, true);
	while (JsonbIteratorNext(&it, &key, true) == WJB_KEY)
	{
		char	   *name = pnstrdup(key.val.string.val, key.val.string.len);
		JsonbValue	value;

		(void) JsonbIteratorNext(&it, &value, true);
		if (!take_member(batch, n, name, &value))
			report_event(n, psprintf("An event has no key \"%s\".", name));
	}
	if (event->event_type == NULL || event->data == NULL)
		report_event(n, psprintf("\"%s\" is missing.",
								 event->event_type == NULL ? "type" : "data"));
}

static void
parse_event(Batch *batch, int n, JsonbValue *object)
{
	EsNewEvent *event = &batch->events[n];

	take_members(batch, n, object);
	EsCheckEventType(event->event_type);
	batch->given_ids += event->has_id;
	event->metadata = EsMergeMetadata(event->metadata);
	if (batch->stream_ids[n] != NULL)
	{
		EsCheckStreamId(batch->stream_ids[n]);
		return;
	}
	batch->own_stream[n] = !event->has_id;
	if (!event->has_id)
		EsMakeEventId(event, n);
	batch->stream_ids[n] = stream_of_its_own(event);
}

static bool
same_text(const text *a, const text *b)
{
	return VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) &&
		memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0;
}

/* Cut the events into runs of one stream: what one append can take. */
static void
make_runs(Batch *batch)
{
	batch->runs = palloc0(batch->nevents * sizeof(EsAppend));
	for (int i = 0; i < batch->nevents; i++)
	{
		EsAppend   *run;

		if (i > 0 && same_text(batch->stream_ids[i], batch->stream_ids[i - 1]))
		{
			batch->runs[batch->nruns - 1].nevents++;
			continue;
		}
		run = &batch->runs[batch->nruns++];
		run->stream_id = batch->stream_ids[i];
		run->expected_version = ES_VERSION_ANY;
		run->events = &batch->events[i];
		run->nevents = 1;
		run->locked = true;
		run->own_stream = batch->own_stream[i];
	}
}

static Batch *
batch_argument(FunctionCallInfo fcinfo, int argument)
{
	Batch	   *batch = palloc0(sizeof(Batch));
	Jsonb	   *json;

	if (PG_ARGISNULL(argument))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", "events")));
	json = PG_GETARG_JSONB_P(argument);
	if (!JB_ROOT_IS_ARRAY(json) || JB_ROOT_IS_SCALAR(json) || JB_ROOT_COUNT(json) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"events\" must be a JSON array of at least one event")));
	batch->nevents = JB_ROOT_COUNT(json);
	batch->events = palloc0(batch->nevents * sizeof(EsNewEvent));
	batch->stream_ids = palloc0(batch->nevents * sizeof(text *));
	batch->own_stream = palloc0(batch->nevents * sizeof(bool));
	for (int i = 0; i < batch->nevents; i++)
	{
		parse_event(batch, i, getIthJsonbValueFromContainer(&json->root, i));
		if (batch->given_ids != 0 && batch->given_ids != i + 1)
			report_event(i, "Give an \"id\" to all events or to none: a batch of which only some have ids could never be repeated.");
	}
	make_runs(batch);
	return batch;
}

static Condition
condition_arguments(FunctionCallInfo fcinfo)
{
	Condition	condition = {NULL, false, 0};

	if (!PG_ARGISNULL(1))
		condition.query = EsBoundaryParse(PG_GETARG_JSONB_P(1));
	condition.has_after = !PG_ARGISNULL(2);
	condition.after = natural_argument(fcinfo, 2, "after", 0);
	return condition;
}

/* ----- locks ----- */

/* Of an item's tags the one that was used longest ago, or never. */
static text *
quietest_tag(const EsBoundaryItem *item)
{
	text	   *quietest = item->tags[0];
	int64		oldest = PG_INT64_MAX;

	for (int i = 0; i < item->ntags && item->ntags > 1; i++)
	{
		int64		position = EsTagLastPosition(item->tags[i]);

		if (position < oldest)
		{
			oldest = position;
			quietest = item->tags[i];
		}
	}
	return quietest;
}

/* Take the locks that a look for a retry needs, without any tag. */
static void
lock_streams(const EsStore *store, const Batch *batch)
{
	EsLockKey  *keys = palloc(batch->nruns * sizeof(EsLockKey));

	for (int i = 0; i < batch->nruns; i++)
		keys[i] = EsLockKeyOf(ES_LOCK_STREAM, batch->runs[i].stream_id, ExclusiveLock);
	EsLockKeys(store, keys, batch->nruns);
	pfree(keys);
}

/* Take all locks of the append, those of its condition included. */
static void
lock_batch(const EsStore *store, const Batch *batch, const EsBoundary *query)
{
	int			nitems = query == NULL ? 0 : query->nitems;
	EsLockKey  *keys;
	int			nkeys = 0;

	if (query != NULL && query->broad && ES_BUG != 65)
	{
		EsGateClose(store);
		return;
	}
	keys = palloc_extended((nitems + (Size) batch->nevents * (1 + ES_MAX_TAGS)) * sizeof(EsLockKey),
						   MCXT_ALLOC_HUGE);
	for (int i = 0; i < nitems && ES_BUG != 61; i++)
		if (query->items[i].ntags > 0)
			keys[nkeys++] = EsLockKeyOf(ES_LOCK_TAG, quietest_tag(&query->items[i]),
										ShareLock);
	for (int i = 0; i < batch->nruns; i++)
		if (!batch->runs[i].own_stream)
			keys[nkeys++] = EsLockKeyOf(ES_LOCK_STREAM, batch->runs[i].stream_id,
										ExclusiveLock);
	for (int i = 0; i < batch->nevents && ES_BUG != 60; i++)
		nkeys += EsTagsAddKeys(batch->events[i].tags, RowExclusiveLock, keys + nkeys);
	EsLockKeys(store, keys, nkeys);
	pfree(keys);
}

/* ----- the condition ----- */

static void
note_conflict(Conflict *conflict, TupleTableSlot *slot, int64 position, int item)
{
	bool		isnull;
	Datum		tags = slot_getattr(slot, ES_EVENT_TAGS, &isnull);

	conflict->position = position;
	conflict->item = item;
	conflict->has_tags = !isnull;
	if (!isnull)
		conflict->tags = PointerGetDatum(DatumGetArrayTypePCopy(tags));
	conflict->event_type = DatumGetTextPCopy(slot_getattr(slot, ES_EVENT_EVENT_TYPE,
														  &isnull));
}

/*
 * Is there an event that matches behind "after"?  Or, where the transaction
 * has a snapshot of its own, one that is hidden from it: what the caller
 * decided on is no longer true, whatever it gave as "after".  Everything at or
 * below the settled position that the snapshot shows is in the snapshot.
 *
 * The caller holds the locks, so that the answer stays true.
 */
static Conflict
find_conflict(Relation event, const EsStore *store, const Condition *condition)
{
	Conflict	conflict = {0};
	int64		first = condition->after;
	EsMatchScan *scan;
	TupleTableSlot *slot;
	int64		position;
	int			item;

	if (IsolationUsesXactSnapshot() && ES_BUG != 63)
	{
		int64		settled = EsSettledRead(GetTransactionSnapshot());

		first = Min(first, settled);
	}
	scan = EsMatchBegin(event, store, condition->query,
						ES_BUG == 62 ? GetActiveSnapshot() : SnapshotSelf,
						first + 1, PG_INT64_MAX, ForwardScanDirection);
	while ((slot = EsMatchNext(scan, &position, &item)) != NULL)
	{
		conflict.own = is_own(slot);
		conflict.unseen = position <= condition->after && !conflict.own &&
			!table_tuple_satisfies_snapshot(event, slot, GetTransactionSnapshot());
		if (position <= condition->after && !conflict.unseen)
			continue;
		note_conflict(&conflict, slot, position, item);
		break;
	}
	EsMatchEnd(scan);
	return conflict;
}

static void
report_conflict(const Condition *condition, const Conflict *conflict)
{
	bool		unique = !condition->has_after;
	char	   *tags = conflict->has_tags ?
		OidOutputFunctionCall(F_ARRAY_OUT, conflict->tags) : "{}";
	const char *why = conflict->own ? " It was appended by this transaction." : "";

	ereport(ERROR,
			(errcode(unique ? ERRCODE_UNIQUE_VIOLATION : ERRCODE_T_R_SERIALIZATION_FAILURE),
			 unique ? errmsg("an event matches the append condition") :
			 conflict->unseen ? errmsg("an event newer than this transaction's snapshot matches the append condition") :
			 errmsg("an event matches the append condition behind position " INT64_FORMAT,
					condition->after),
			 errdetail("The event at position " INT64_FORMAT " of type \"%s\" with tags %s matches item %d of the query.%s",
					   conflict->position, text_to_cstring(conflict->event_type),
					   tags, conflict->item, why),
			 unique ? 0 :
			 conflict->own ? errhint("Give as \"after\" what the earlier append answered, or read the boundary again.") :
			 errhint("%s", IsolationUsesXactSnapshot() ?
					 "Roll back, read the boundary again and decide again." :
					 "Read the boundary again and decide again."),
			 err_generic_string(PG_DIAG_CONSTRAINT_NAME, "es_append_condition")));
}

/* ----- appending ----- */

/* Is the batch the repetition of an earlier one?  All of it or nothing. */
static bool
is_retry(Relation event, const EsStore *store, Batch *batch)
{
	EsAppend   *stored = NULL;
	EsAppend   *new = NULL;

	for (int i = 0; i < batch->nruns; i++)
	{
		EsAppend   *run = &batch->runs[i];

		if (!run->own_stream && EsAppendIsRetry(event, store, run))
			stored = run;
		else
			new = run;
	}
	if (stored != NULL && new != NULL)
		EsReportIdUsed(stored->events, "Only some of the batch's event ids exist.");
	return stored != NULL;
}

/*
 * Apply what is declared of the events' types and take all locks; append.c
 * says in which order.  True for a retry, which is answered already.
 */
static bool
prepare_batch(Relation event, const EsStore *store, Batch *batch,
			  const EsBoundary *query)
{
	bool		has_ids = batch->given_ids > 0;
	bool		all_at_once = !has_ids || !EsEventTypesDeclared();

	if (!all_at_once && (query == NULL || !query->broad))
		lock_streams(store, batch);
	else if (has_ids)
		lock_batch(store, batch, query);
	if (has_ids && is_retry(event, store, batch))
		return true;
	for (int i = 0; i < batch->nruns; i++)
		EsEventTypesApply(&batch->runs[i]);
	if (!all_at_once || !has_ids)
		lock_batch(store, batch, query);
	return false;
}

/*
 * Append the batch unless an event breaks the condition; that event, or
 * position 0, is the answer.  *position becomes that of the last event.
 */
static Conflict
append_if(Batch *batch, const Condition *condition, int64 *position)
{
	const EsStore *store;
	Relation	event = EsEventOpen(&store, RowExclusiveLock);
	Conflict	conflict = {0};

	EsCheckPrivilege(event, ACL_INSERT);
	if (condition->query != NULL)
		EsCheckPrivilege(event, ACL_SELECT);
	if (prepare_batch(event, store, batch, condition->query))
	{
		EsStatCount(ES_COUNT_RETRIES, 1);
		EsNoteLastPosition(batch->events[batch->nevents - 1].position);
	}
	else
	{
		if (condition->query != NULL)
			conflict = find_conflict(event, store, condition);
		for (int i = 0; i < batch->nruns && conflict.position == 0; i++)
			(void) EsAppendEvents(&batch->runs[i]);
		if (conflict.position != 0)
			EsStatCount(ES_COUNT_CONFLICTS, 1);
	}
	*position = batch->events[batch->nevents - 1].position;
	table_close(event, NoLock);
	return conflict;
}

/*
 * es_append_if(events jsonb, fail_if_events_match jsonb, after bigint)
 *		→ bigint
 */
Datum
es_append_if(PG_FUNCTION_ARGS)
{
	Condition	condition;
	Conflict	conflict;
	Batch	   *batch;
	int64		position;

	PreventCommandIfReadOnly("es_append_if()");
	PreventCommandIfParallelMode("es_append_if()");
	batch = batch_argument(fcinfo, 0);
	condition = condition_arguments(fcinfo);
	conflict = append_if(batch, &condition, &position);
	if (conflict.position != 0)
		report_conflict(&condition, &conflict);
	PG_RETURN_INT64(position);
}

/* The columns that es_try_append_if answers. */
static void
fill_answer(const Conflict *conflict, int64 position, Datum *values, bool *nulls)
{
	bool		appended = conflict->position == 0;

	values[0] = BoolGetDatum(appended);
	values[1] = Int64GetDatum(position);
	nulls[1] = !appended;
	if (appended)
		return;
	nulls[2] = nulls[3] = nulls[5] = false;
	nulls[4] = !conflict->has_tags;
	values[2] = Int64GetDatum(conflict->position);
	values[3] = PointerGetDatum(conflict->event_type);
	values[4] = conflict->tags;
	values[5] = Int32GetDatum(conflict->item);
}

/*
 * es_try_append_if(events jsonb, fail_if_events_match jsonb, after bigint)
 *		→ (appended boolean, position bigint, conflict_position bigint,
 *		   conflict_type text, conflict_tags text[], conflict_item integer)
 */
Datum
es_try_append_if(PG_FUNCTION_ARGS)
{
	Condition	condition;
	Conflict	conflict;
	Batch	   *batch;
	int64		position;
	TupleDesc	desc;
	Datum		values[6] = {0};
	bool		nulls[6] = {false, true, true, true, true, true};

	PreventCommandIfReadOnly("es_try_append_if()");
	PreventCommandIfParallelMode("es_try_append_if()");
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	batch = batch_argument(fcinfo, 0);
	condition = condition_arguments(fcinfo);
	conflict = append_if(batch, &condition, &position);
	fill_answer(&conflict, position, values, nulls);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
