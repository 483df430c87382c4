/*
 * snapshot_due.c: take the snapshots that are due.
 *
 * Commands take those that their own events make due.  For plain appends a
 * cursor walks along the log, and each stream that has new events is looked
 * at.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/snapmgr.h"

#include "attempt.h"
#include "catalog.h"
#include "category.h"
#include "log.h"
#include "snapshot.h"

/* Streams looked at in one call: each snapshot holds a lock to commit. */
#define ES_MAX_STREAMS 1000

PG_FUNCTION_INFO_V1(es_take_snapshots);

static bool
visit_cursor(Relation rel, HeapTuple tuple, void *arg)
{
	bool		isnull;

	*(int64 *) arg = DatumGetInt64(heap_getattr(tuple, 2, RelationGetDescr(rel),
												&isnull));
	return false;
}

static void
move_cursor(int64 position)
{
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(position)};

	EsCatalogWrite("INSERT INTO %s.es_snapshot_cursor (position) VALUES ($1)"
				   " ON CONFLICT (singleton) DO UPDATE SET position = EXCLUDED.position",
				   1, types, values, NULL);
}

/*
 * The streams that have events behind *position, each once, in the order of
 * their first; *position becomes where the search ended.  Not more than so
 * many, or the lock table might overflow.
 */
static List *
streams_with_events(Relation event, int64 max_events, int64 *position)
{
	HASHCTL		control = {.keysize = sizeof(uint64),.entrysize = sizeof(uint64),
	.hcxt = CurrentMemoryContext};
	HTAB	   *seen = hash_create("streams with events", 256, &control,
								   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	List	   *streams = NIL;
	EsLogReader *reader;
	TupleTableSlot *slot;
	bool		isnull;

	PushActiveSnapshot(EsLogSnapshot());
	reader = EsLogReaderBegin(event, EsStoreGet(), GetActiveSnapshot(), *position);
	for (int64 n = 0; n < max_events && list_length(streams) < ES_MAX_STREAMS &&
		 (slot = EsLogReaderNext(reader)) != NULL; n++)
	{
		text	   *stream_id = DatumGetTextPP(slot_getattr(slot, ES_EVENT_STREAM_ID, &isnull));
		uint64		hash = hash_bytes_extended((const unsigned char *) VARDATA_ANY(stream_id),
											   VARSIZE_ANY_EXHDR(stream_id), 0);
		bool		found;

		(void) hash_search(seen, &hash, HASH_ENTER, &found);
		if (!found)
			streams = lappend(streams, PG_DETOAST_DATUM_COPY(PointerGetDatum(stream_id)));
	}
	*position = EsLogReaderPosition(reader);
	EsLogReaderEnd(reader);
	PopActiveSnapshot();
	hash_destroy(seen);
	return streams;
}

typedef struct Taking
{
	Relation	event;
	const char *aggregate;
	text	   *stream_id;
	bool		taken;
} Taking;

static bool
take(void *arg)
{
	Taking	   *taking = arg;

	PushActiveSnapshot(GetTransactionSnapshot());
	taking->taken = EsSnapshotTake(taking->event, taking->aggregate, taking->stream_id, true) > 0;
	PopActiveSnapshot();
	return true;
}

/*
 * Take a snapshot if one is due.  A fold that fails leaves a warning behind
 * and no snapshot; other streams must not wait for it.
 */
static bool
try_take(Relation event, const char *aggregate, text *stream_id)
{
	Taking		taking = {.event = event,.aggregate = aggregate,.stream_id = stream_id};
	ErrorData  *error;

	if (EsAttempt(take, &taking, &error))
		return taking.taken;
	if (ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION)
		ReThrowError(error);
	ereport(WARNING,
			(errcode(error->sqlerrcode),
			 errmsg("could not take a snapshot of stream \"%s\" by aggregate \"%s\": %s",
					text_to_cstring(stream_id), aggregate, error->message)));
	FreeErrorData(error);
	return false;
}

/* Take what is due of these streams. */
static int64
take_due(Relation event, List *streams)
{
	int64		taken = 0;
	ListCell   *stream;
	ListCell   *name;

	foreach(stream, streams)
	{
		CHECK_FOR_INTERRUPTS();
		foreach(name, EsAggregatesOfStream(lfirst(stream)))
		{
			CommandCounterIncrement();
			if (try_take(event, lfirst(name), lfirst(stream)))
				taken++;
		}
	}
	return taken;
}

/*
 * Take the snapshots that are due for the streams with events behind the
 * place where the last call ended; at most so many events a call.  Answers
 * how many were taken; *more, whether there may be events left.  Where another session is at it, there is nothing to
 * do.  The caller may read es_event and write es_snapshot_cursor.
 */
int64
EsSnapshotTakeDue(Relation event, int64 max_events, bool *more)
{
	const EsStore *store = EsStoreGet();
	int64		position = 0;
	int64		before;
	int64		taken;

	*more = false;
	if (!EsAggregatesExist() ||
		!ConditionalLockRelationOid(store->snapshot_cursor, ShareRowExclusiveLock))
		return 0;
	EsCatalogScan(store->snapshot_cursor, 1, NULL, visit_cursor, &position);
	before = position;
	taken = take_due(event, streams_with_events(event, max_events, &position));
	*more = position != before;
	if (*more)
		move_cursor(position);
	return taken;
}

/*
 * es_take_snapshots(max_events bigint) → bigint
 */
Datum
es_take_snapshots(PG_FUNCTION_ARGS)
{
	Relation	event;
	int64		taken;
	bool		more;

	EsRequireReadWrite("es_take_snapshots()");
	PreventCommandIfParallelMode("es_take_snapshots()");
	EsRequireArgument(fcinfo, 0, "max_events");
	if (PG_GETARG_INT64(0) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must not be negative", "max_events")));
	event = EsEventOpenFor(ACL_SELECT);
	taken = EsSnapshotTakeDue(event, PG_GETARG_INT64(0), &more);
	table_close(event, AccessShareLock);
	PG_RETURN_INT64(taken);
}
