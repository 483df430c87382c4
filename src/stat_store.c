/*
 * stat_store.c: the store and its streams in numbers.
 *
 * Nothing is counted while events are appended, so everything is found here
 * by looking, at a cost that does not grow with the store: events and streams
 * from a sample of the log (an event of version 1 is a stream), the speed
 * from its end, and the settled position from the lock manager.
 *
 * es_stream_sizes goes from stream to stream, backwards along the index on
 * (stream_id, version): the first event it meets of a stream is its last.
 */
#include "postgres.h"

#include <math.h>

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relscan.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_collation.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "archive.h"
#include "compat.h"
#include "log.h"
#include "point.h"
#include "scan.h"
#include "stat.h"
#include "stream.h"

#define SAMPLE_BUDGET 8192		/* positions */
#define SPEED_WINDOW 60			/* seconds */
#define SPEED_EVENTS 5000		/* or so many events, if those are fewer */

PG_FUNCTION_INFO_V1(es_stat_log);
PG_FUNCTION_INFO_V1(es_stream_sizes);

/* ----- the log ----- */

static void
count_first_version(TupleTableSlot *slot, void *arg)
{
	int64	   *streams = arg;
	bool		isnull;

	if (DatumGetInt64(slot_getattr(slot, ES_EVENT_VERSION, &isnull)) == 1)
		(*streams)++;
}

/*
 * Events a second during the last minute; or, where that is more than
 * SPEED_EVENTS, while the last of so many were appended.
 */
static double
current_speed(Relation event, Snapshot snapshot, int64 behind)
{
	EsScan	   *scan = EsScanPositions(event, snapshot, behind + 1, PG_INT64_MAX, BackwardScanDirection);
	TupleTableSlot *slot;
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz since = now - SPEED_WINDOW * USECS_PER_SEC;
	int			events = 0;

	while (events < SPEED_EVENTS && (slot = EsScanNext(scan)) != NULL)
	{
		bool		isnull;
		TimestampTz at = DatumGetTimestampTz(slot_getattr(slot, ES_EVENT_RECORDED_AT, &isnull));

		CHECK_FOR_INTERRUPTS();
		if (at < now - SPEED_WINDOW * USECS_PER_SEC)
			break;
		if (++events == SPEED_EVENTS)
			since = at;
	}
	EsScanEnd(scan);
	return events * (double) USECS_PER_SEC / Max(now - since, 1);
}

/*
 * es_stat_log() → (events bigint, streams bigint, is_estimate boolean,
 *		events_per_second float8, last_position bigint,
 *		settled_position bigint)
 */
Datum
es_stat_log(PG_FUNCTION_ARGS)
{
	const EsStore *store;
	Relation	event = EsEventOpen(&store, AccessShareLock);
	Snapshot	snapshot = GetActiveSnapshot();
	TupleDesc	desc;
	EsSample	sample = {0};
	int64		streams = 0;
	int64		unread;
	int64		offline = EsLogOffline(snapshot, &unread);
	bool		follows = EsFollowsOrigin(store);
	int64		first;
	int64		last = 0;
	int64		settled;
	Datum		values[6];
	bool		nulls[6] = {false};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (EsLogEnds(event, snapshot, offline, &first, &last))
		sample = EsSampleLog(event, snapshot, first - 1, last,
							 SAMPLE_BUDGET, count_first_version, &streams);
	values[0] = Int64GetDatum(unread + (int64) rint(sample.events * EsSampleWeight(&sample)));
	values[1] = Int64GetDatum((int64) rint(streams * EsSampleWeight(&sample)));
	values[2] = BoolGetDatum(!EsSampleIsWhole(&sample) || unread > 0);
	values[3] = Float8GetDatum(current_speed(event, snapshot, offline));
	settled = follows ? EsSettledRead(snapshot) : EsSettledNow(store, NULL);
	/* a standby's sequence is ahead of what the primary handed out */
	values[4] = Int64GetDatum(!follows ? EsLastDrawn(store, NULL) :
							  Max(last, settled));
	values[5] = Int64GetDatum(settled);
	table_close(event, AccessShareLock);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/* ----- the streams ----- */

/* A walk from stream to stream. */
typedef struct StreamWalk
{
	IndexScanDesc scan;			/* along (stream_id, version) */
	IndexScanDesc probe;		/* the same index, for single events */
	TupleTableSlot *slot;		/* the stream's last event */
	TupleTableSlot *other;		/* the one in its middle */
	text	   *before;			/* the stream found last; NULL: none yet */
	MemoryContext contexts[2];	/* of before, in turn */
	int			turn;			/* which of them is in use */
} StreamWalk;

/* Go to the last event of the next stream, in descending order. */
static bool
next_stream(StreamWalk *walk)
{
	ScanKeyData key;
	MemoryContext saved;
	bool		isnull;
	Datum		id;

	if (walk->before == NULL)
		ScanKeyEntryInitialize(&key, 0, 1, BTGreaterEqualStrategyNumber, InvalidOid,
							   C_COLLATION_OID, F_TEXT_GE,
							   PointerGetDatum(cstring_to_text("")));
	else
		ScanKeyEntryInitialize(&key, 0, 1, BTLessStrategyNumber, InvalidOid,
							   C_COLLATION_OID, F_TEXT_LT, PointerGetDatum(walk->before));
	index_rescan(walk->scan, &key, 1, NULL, 0);
	if (!index_getnext_slot(walk->scan, BackwardScanDirection, walk->slot))
		return false;
	walk->turn = 1 - walk->turn;
	MemoryContextReset(walk->contexts[walk->turn]);
	saved = MemoryContextSwitchTo(walk->contexts[walk->turn]);
	id = slot_getattr(walk->slot, ES_EVENT_STREAM_ID, &isnull);
	walk->before = (text *) PG_DETOAST_DATUM_COPY(id);
	MemoryContextSwitchTo(saved);
	return true;
}

/*
 * What a stream's events take, guessed from its last one and the one in the
 * middle.
 */
static int64
guess_bytes(StreamWalk *walk, int64 version)
{
	int64		size = EsEventSize(walk->slot);
	ScanKeyData keys[2];

	if (version < 2)
		return size;
	ScanKeyEntryInitialize(&keys[0], 0, 1, BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ, PointerGetDatum(walk->before));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(version / 2));
	index_rescan(walk->probe, keys, 2, NULL, 0);
	if (index_getnext_slot(walk->probe, ForwardScanDirection, walk->other))
		size = (size + EsEventSize(walk->other)) / 2;
	return (int64) Min((double) size * version, (double) PG_INT64_MAX / 2);
}

/* One row; the slot has the stream's last event. */
static void
put_stream(ReturnSetInfo *result, text *stream_id, TupleTableSlot *last, int64 bytes)
{
	Datum		values[6];
	bool		nulls[6] = {false};
	const char *id = VARDATA_ANY(stream_id);
	text	   *category = cstring_to_text_with_len(id, EsCategoryLength(id, VARSIZE_ANY_EXHDR(stream_id)));

	values[0] = PointerGetDatum(stream_id);
	values[1] = PointerGetDatum(category);
	values[2] = slot_getattr(last, ES_EVENT_VERSION, &nulls[2]);
	values[3] = Int64GetDatum(bytes);
	values[4] = slot_getattr(last, ES_EVENT_POSITION, &nulls[4]);
	values[5] = slot_getattr(last, ES_EVENT_RECORDED_AT, &nulls[5]);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	pfree(category);
}

/*
 * Streams of which no event is left in es_event.  The archive is compressed,
 * so what they take there is less than what they would take in the table.
 * None is listed while a segment is off-line: it may hold their last events.
 */
static void
put_archived_streams(ReturnSetInfo *result, Relation event)
{
	int64		n = 0;
	int64		unread;
	EsArchiveStream *streams;

	if (EsArchiveIsEmpty() || EsLogOffline(GetActiveSnapshot(), &unread) > 0)
		return;
	streams = EsArchiveListStreams(GetActiveSnapshot(), NULL, NULL, PG_INT64_MAX, &n);
	for (int64 i = 0; i < n; i++)
	{
		EsScan	   *scan = EsScanStream(event, GetActiveSnapshot(), streams[i].stream_id, 1,
										PG_INT64_MAX, BackwardScanDirection);
		TupleTableSlot *slot = EsScanNext(scan);
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		if (slot != NULL && EsScanIsArchived(slot))
			put_stream(result, streams[i].stream_id, slot, EsEventSize(slot) *
					   DatumGetInt64(slot_getattr(slot, ES_EVENT_VERSION, &isnull)));
		EsScanEnd(scan);
	}
}

/*
 * es_stream_sizes() → SETOF (stream_id text, category text, events bigint,
 *		bytes bigint, last_position bigint, last_recorded_at timestamptz)
 */
Datum
es_stream_sizes(PG_FUNCTION_ARGS)
{
	const EsStore *store;
	Relation	event = EsEventOpen(&store, AccessShareLock);
	Relation	index = index_open(store->stream_key, AccessShareLock);
	StreamWalk	walk = {0};

	if (ES_BUG != 117)
		EsRowSecurityRefuse(event); /* no privilege: who watches the server may see */
	InitMaterializedSRF(fcinfo, 0);
	walk.scan = EsIndexBeginScan(event, index, GetActiveSnapshot(), 1);
	walk.probe = EsIndexBeginScan(event, index, GetActiveSnapshot(), 2);
	walk.slot = table_slot_create(event, NULL);
	walk.other = table_slot_create(event, NULL);
	for (int i = 0; i < 2; i++)
		walk.contexts[i] = AllocSetContextCreate(CurrentMemoryContext,
												 "es_stream_sizes stream",
												 ALLOCSET_SMALL_SIZES);
	while (next_stream(&walk))
	{
		bool		isnull;
		int64		version = DatumGetInt64(slot_getattr(walk.slot, ES_EVENT_VERSION, &isnull));

		CHECK_FOR_INTERRUPTS();
		put_stream((ReturnSetInfo *) fcinfo->resultinfo, walk.before, walk.slot,
				   guess_bytes(&walk, version));
	}
	put_archived_streams((ReturnSetInfo *) fcinfo->resultinfo, event);
	index_endscan(walk.scan);
	index_endscan(walk.probe);
	ExecDropSingleTupleTableSlot(walk.slot);
	ExecDropSingleTupleTableSlot(walk.other);
	index_close(index, AccessShareLock);
	table_close(event, AccessShareLock);
	return (Datum) 0;
}
