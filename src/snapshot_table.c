/*
 * snapshot_table.c: the rows of es_snapshot.
 *
 * Of each stream and aggregate the newest snapshot is kept, and of the older
 * ones about one for each doubling of the distance to it.
 *
 * Nobody waits for a snapshot: where another session is at the same one, it
 * is not taken.
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_collation.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"

#include "catalog.h"
#include "compat.h"
#include "point.h"
#include "snapshot_table.h"
#include "stream.h"

/* An older one, for which there may be no need any more. */
typedef struct OldSnapshot
{
	int64		version;
	ItemPointerData tid;
} OldSnapshot;

/* ----- scan ----- */

/*
 * Begin to walk along the snapshots of a stream by an aggregate, newest first,
 * up to a version.
 */
void
EsSnapshotScanBegin(EsSnapshotScan *scan, LOCKMODE lockmode, text *stream_id,
					const char *aggregate, int64 limit, Snapshot snapshot)
{
	ScanKeyData keys[3];

	ScanKeyEntryInitialize(&keys[0], 0, 1, BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ,
						   PointerGetDatum(stream_id));
	ScanKeyEntryInitialize(&keys[1], 0, 2, BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ,
						   CStringGetTextDatum(aggregate));
	ScanKeyInit(&keys[2], 3, BTLessEqualStrategyNumber, F_INT8LE,
				Int64GetDatum(limit));
	scan->rel = table_open(EsStoreGet()->snapshot, lockmode);
	scan->key = index_open(EsPrimaryKey(scan->rel), AccessShareLock);
	scan->slot = table_slot_create(scan->rel, NULL);
	scan->scan = EsIndexBeginScan(scan->rel, scan->key, snapshot, 3);
	index_rescan(scan->scan, keys, 3, NULL, 0);
}

/* The next one into the slot; false at the end. */
bool
EsSnapshotScanNext(EsSnapshotScan *scan)
{
	return index_getnext_slot(scan->scan, BackwardScanDirection, scan->slot);
}

void
EsSnapshotScanEnd(EsSnapshotScan *scan)
{
	index_endscan(scan->scan);
	ExecDropSingleTupleTableSlot(scan->slot);
	index_close(scan->key, AccessShareLock);
	table_close(scan->rel, NoLock); /* kept to commit */
}

/* Was the snapshot in the slot made by this definition (NULL: by an application)? */
bool
EsSnapshotHasDefinition(TupleTableSlot *slot, const pg_uuid_t *definition)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, ES_SNAPSHOT_DEFINITION, &isnull);

	if (definition == NULL || isnull)
		return definition == NULL && isnull;
	return ES_BUG == 45 ||
		memcmp(DatumGetUUIDP(value)->data, definition->data, UUID_LEN) == 0;
}

/* A column of which it is known that it is not null. */
Datum
EsSnapshotColumn(TupleTableSlot *slot, AttrNumber attno)
{
	bool		isnull;

	return slot_getattr(slot, attno, &isnull);
}

/* ----- write ----- */

/* Keep others from writing snapshots of the stream, to the transaction's end. */
static bool
lock_snapshots(const EsNewSnapshot *new, bool wait)
{
	LOCKTAG		tag;
	uint64		hash;

	hash = hash_bytes_extended((const unsigned char *) VARDATA_ANY(new->stream_id),
							   VARSIZE_ANY_EXHDR(new->stream_id),
							   hash_bytes((const unsigned char *) new->aggregate,
										  strlen(new->aggregate)));
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (hash >> 32),
						 (uint32) hash, ES_LOCK_SNAPSHOT);
	return LockAcquire(&tag, ExclusiveLock, false, !wait) != LOCKACQUIRE_NOT_AVAIL;
}

/*
 * Delete a snapshot, unless somebody else is at it.
 */
static void
delete_snapshot(Relation rel, ItemPointer tid)
{
	TM_FailureData failure;

	(void) table_tuple_delete(rel, tid, GetCurrentCommandId(true), SnapshotSelf,
							  InvalidSnapshot, false, &failure, false);
}

/*
 * Of the older snapshots, newest first, delete those without which the
 * distances from the new one still no more than double from one to the next.
 */
static void
thin_out(Relation rel, int64 version, OldSnapshot *old, int nold)
{
	int64		kept = nold > 0 ? version - old[0].version : 0;

	for (int i = 1; i < nold - 1; i++)
	{
		if ((version - old[i + 1].version) / 2 > kept)
			kept = version - old[i].version;
		else
			delete_snapshot(rel, &old[i].tid);
	}
}

/* What make_room collects. */
typedef struct OldSnapshots
{
	int			count;
	int			size;
	OldSnapshot *snapshots;		/* newest first */
} OldSnapshots;

static void
collect(OldSnapshots *old, int64 version, ItemPointer tid)
{
	if (old->count == old->size)
	{
		old->size = old->size == 0 ? 32 : old->size * 2;
		old->snapshots = old->snapshots == NULL ?
			palloc(old->size * sizeof(OldSnapshot)) :
			repalloc(old->snapshots, old->size * sizeof(OldSnapshot));
	}
	old->snapshots[old->count].version = version;
	old->snapshots[old->count++].tid = *tid;
}

/*
 * Delete the snapshots that the new one makes superfluous.  False if it is
 * superfluous itself, because there is one at its version or later; replace
 * says that one at its version gives way.
 */
static bool
make_room(const EsNewSnapshot *new, bool replace)
{
	EsSnapshotScan scan;
	OldSnapshots old = {0};
	bool		superfluous = false;

	EsSnapshotScanBegin(&scan, RowExclusiveLock, new->stream_id, new->aggregate,
			   PG_INT64_MAX, SnapshotSelf);
	while (!superfluous && EsSnapshotScanNext(&scan))
	{
		int64		version = DatumGetInt64(EsSnapshotColumn(scan.slot, ES_SNAPSHOT_VERSION));

		if (!EsSnapshotHasDefinition(scan.slot, new->definition) ||
			(version == new->version && replace))
			delete_snapshot(scan.rel, &scan.slot->tts_tid);
		else if (version < new->version)
			collect(&old, version, &scan.slot->tts_tid);
		else
			superfluous = !replace;
	}
	if (!superfluous)
		thin_out(scan.rel, new->version, old.snapshots, old.count);
	EsSnapshotScanEnd(&scan);
	return !superfluous;
}

/*
 * Write it, unless there is no need for it, or without waiting, somebody else
 * is at it.  replace: one at the same version gives way.
 */
bool
EsSnapshotWrite(const EsNewSnapshot *new, bool wait, bool replace)
{
	Datum		values[ES_SNAPSHOT_NATTS];
	bool		nulls[ES_SNAPSHOT_NATTS] = {false};

	if (!lock_snapshots(new, wait))
		return false;
	CommandCounterIncrement();	/* what we wrote ourselves may go, too */
	if (!make_room(new, replace))
		return false;
	values[ES_SNAPSHOT_VERSION - 1] = Int64GetDatum(new->version);
	values[ES_SNAPSHOT_RECORDED_AT - 1] = TimestampTzGetDatum(new->recorded_at);
	values[ES_SNAPSHOT_TAKEN_AT - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[ES_SNAPSHOT_EVENT_ID - 1] = UUIDPGetDatum(&new->event_id);
	values[ES_SNAPSHOT_STREAM - 1] = PointerGetDatum(new->stream_id);
	values[ES_SNAPSHOT_AGGREGATE - 1] = CStringGetTextDatum(new->aggregate);
	values[ES_SNAPSHOT_DEFINITION - 1] = UUIDPGetDatum(new->definition);
	nulls[ES_SNAPSHOT_DEFINITION - 1] = new->definition == NULL;
	values[ES_SNAPSHOT_STATE - 1] = PointerGetDatum(new->state);
	nulls[ES_SNAPSHOT_STATE - 1] = new->state == NULL;
	values[ES_SNAPSHOT_STATE_TEXT - 1] = PointerGetDatum(new->state_text);
	nulls[ES_SNAPSHOT_STATE_TEXT - 1] = new->state_text == NULL;
	EsRowInsert(EsStoreGet()->snapshot, values, nulls);
	return true;
}
