/*
 * scan.c: events wherever they are, in es_event or in the archive.
 *
 * The only room where readers meet both places; archive.c says why what it
 * does is right.  A walk goes along positions, or along the versions of one
 * stream.  It asks for what comes *next*.  Where es_event does not have that,
 * there is a gap: what lies in it is asked of the archive.
 *
 * The archive is the beginning of each stream, so a walk along a stream begins
 * in es_event: if the version that it wants is there, all that follows is, and
 * the archive is not asked.  Positions have holes, so a walk along the log
 * first asks where the border is.  With a snapshot that is not an MVCC one,
 * events may be moved while the walk is under way, and each gap is asked for
 * when it is met, after es_event was.  A walk backwards meets the archive at
 * its end and nowhere else: what is moved is always the lowest there is.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/stratnum.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_collation.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"

#include "archive.h"
#include "compat.h"
#include "point.h"
#include "scan.h"

struct EsScan
{
	Relation	event;			/* es_event, opened by the caller */
	Snapshot	snapshot;
	bool		fixed;			/* is it an MVCC one? */
	ScanDirection direction;
	text	   *stream_id;		/* NULL: along the log */
	int64		first;			/* positions or versions wanted, inclusive */
	int64		last;
	int64		next;			/* the one that comes next, or the first behind it */
	Relation	index;
	IndexScanDesc hot;			/* along es_event */
	TupleTableSlot *slot;		/* its current row */
	bool		held;			/* that was not handed out yet */
	bool		hot_done;
	bool		met;			/* es_event has handed out some row */
	bool		settled;		/* the archive need not be asked any more */
	EsArchiveRead *cold;		/* along the archive, in a gap */
	Snapshot	cold_snapshot;	/* registered by us; NULL: the caller's */
	int64		gap_end;		/* where the walk goes on behind the gap */
};

static inline bool
is_forward(const EsScan *scan)
{
	return ScanDirectionIsForward(scan->direction);
}

static int64
key_of(const EsScan *scan, TupleTableSlot *slot)
{
	bool		isnull;

	return DatumGetInt64(slot_getattr(slot, scan->stream_id == NULL ?
									  ES_EVENT_POSITION : ES_EVENT_VERSION, &isnull));
}

/* Walk es_event from the first that is wanted there to the last. */
static void
begin_hot(EsScan *scan, int64 first, int64 last)
{
	ScanKeyData keys[3];
	int			nkeys = 0;
	AttrNumber	column = 1;

	scan->index = index_open(scan->stream_id == NULL ? EsStoreGet()->position_key :
							 EsStoreGet()->stream_key, AccessShareLock);
	scan->slot = table_slot_create(scan->event, NULL);
	if (scan->stream_id != NULL)
		ScanKeyEntryInitialize(&keys[nkeys++], 0, column++, BTEqualStrategyNumber,
							   InvalidOid, C_COLLATION_OID, F_TEXTEQ,
							   PointerGetDatum(scan->stream_id));
	if (first > 1)
		ScanKeyInit(&keys[nkeys++], column, BTGreaterEqualStrategyNumber, F_INT8GE,
					Int64GetDatum(first));
	if (last < PG_INT64_MAX)
		ScanKeyInit(&keys[nkeys++], column, BTLessEqualStrategyNumber, F_INT8LE,
					Int64GetDatum(last));
	scan->hot = EsIndexBeginScan(scan->event, scan->index, scan->snapshot, nkeys);
	index_rescan(scan->hot, keys, nkeys, NULL, 0);
}

static EsScan *
make_scan(Relation event, Snapshot snapshot, int64 first, int64 last,
		  ScanDirection direction)
{
	EsScan	   *scan = palloc0(sizeof(EsScan));

	scan->event = event;
	scan->snapshot = snapshot;
	scan->fixed = IsMVCCSnapshot(snapshot);
	scan->direction = direction;
	scan->first = Max(first, 1);
	scan->last = last;
	scan->next = is_forward(scan) ? scan->first : last;
	return scan;
}

/* Ask the archive for what lies from low to high. */
static void
begin_cold(EsScan *scan, int64 low, int64 high)
{
	Snapshot	snapshot = scan->snapshot;
	TupleDesc	desc = RelationGetDescr(scan->event);

	if (!scan->fixed)
		snapshot = scan->cold_snapshot = RegisterSnapshot(GetCatalogSnapshot(EsStoreGet()->archive_segment));
	scan->cold = scan->stream_id == NULL ?
		EsArchiveReadPositions(desc, snapshot, low, high, scan->direction) :
		EsArchiveReadStream(desc, snapshot, scan->stream_id, low, high, scan->direction);
}

static void
end_cold(EsScan *scan)
{
	if (scan->cold == NULL)
		return;
	EsArchiveReadEnd(scan->cold);
	scan->cold = NULL;
	if (scan->cold_snapshot != NULL)
		UnregisterSnapshot(scan->cold_snapshot);
	scan->cold_snapshot = NULL;
}

/*
 * Begin to walk the events from position first to last, inclusive.  The
 * snapshot stays registered or active until EsScanEnd, or is SnapshotSelf or
 * a dirty one.  No privilege is checked.
 */
EsScan *
EsScanPositions(Relation event, Snapshot snapshot, int64 first, int64 last,
				ScanDirection direction)
{
	EsScan	   *scan = make_scan(event, snapshot, first, last, direction);
	int64		border = 0;

	if (scan->fixed)
	{
		border = EsArchiveLastPosition(snapshot);
		scan->settled = border < scan->first;
		if (is_forward(scan) && !scan->settled)
		{
			begin_cold(scan, scan->first, Min(border, last));
			scan->gap_end = border + 1;
			scan->settled = true;
		}
	}
	begin_hot(scan, Max(scan->first, border + 1), last);
	return scan;
}

/* The same for the versions first to last of a stream. */
EsScan *
EsScanStream(Relation event, Snapshot snapshot, text *stream_id,
			 int64 first, int64 last, ScanDirection direction)
{
	EsScan	   *scan = make_scan(event, snapshot, first, last, direction);

	scan->stream_id = stream_id;
	begin_hot(scan, scan->first, last);
	return scan;
}

/* Hold the next row of es_event; false at its end. */
static bool
hold_next(EsScan *scan)
{
	while (!scan->held && !scan->hot_done)
	{
		if (!index_getnext_slot(scan->hot, scan->direction, scan->slot))
			scan->hot_done = true;
		else					/* not what the archive has handed out meanwhile */
			scan->held = is_forward(scan) ? key_of(scan, scan->slot) >= scan->next :
				key_of(scan, scan->slot) <= scan->next;
	}
	return scan->held;
}

/*
 * Is there a gap before the row of es_event that is held, or before the end,
 * that the archive may fill?  Then begin to read it.
 */
static bool
begin_gap(EsScan *scan)
{
	int64		low = scan->next;
	int64		high = scan->last;

	if (scan->settled)
		return false;
	if (is_forward(scan) && scan->held)
	{
		scan->settled = scan->fixed;	/* all behind it is in es_event */
		high = key_of(scan, scan->slot) - 1;
	}
	else if (scan->held)
		return false;
	else if (is_forward(scan))
	{
		/* behind the last event of a stream there is nothing archived */
		if (scan->fixed && scan->met)
			return false;
		scan->settled = true;
	}
	else
	{
		low = scan->first;
		high = scan->next;
		scan->settled = true;
	}
	if (low > high || EsArchiveIsEmpty())
		return false;
	begin_cold(scan, low, high);
	scan->gap_end = is_forward(scan) ? (high == PG_INT64_MAX ? high : high + 1) : low - 1;
	return true;
}

/* The next event in the gap, or NULL and the gap is behind us. */
static TupleTableSlot *
next_cold(EsScan *scan)
{
	TupleTableSlot *slot = EsArchiveReadNext(scan->cold);

	if (slot == NULL)
	{
		end_cold(scan);
		scan->next = scan->gap_end;
	}
	else
		scan->next = key_of(scan, slot) + (is_forward(scan) ? 1 : -1);
	return slot;
}

/*
 * The next event, or NULL at the end.  The slot is the walk's and is good
 * until the next call.
 */
TupleTableSlot *
EsScanNext(EsScan *scan)
{
	TupleTableSlot *slot;

	CHECK_FOR_INTERRUPTS();
	do
	{
		if (scan->cold != NULL && (slot = next_cold(scan)) != NULL)
			return slot;
		(void) hold_next(scan);
	} while ((!scan->held || key_of(scan, scan->slot) != scan->next) &&
			 begin_gap(scan));
	if (!scan->held)
		return NULL;
	scan->held = false;
	scan->met = true;
	scan->settled |= scan->fixed && is_forward(scan);
	scan->next = key_of(scan, scan->slot) + (is_forward(scan) ? 1 : -1);
	return scan->slot;
}

void
EsScanEnd(EsScan *scan)
{
	end_cold(scan);
	index_endscan(scan->hot);
	index_close(scan->index, AccessShareLock);
	ExecDropSingleTupleTableSlot(scan->slot);
	pfree(scan);
}

/* Read the archived event with this id into the slot. */
static bool
find_archived(const pg_uuid_t *id, TupleTableSlot *slot)
{
	Snapshot	snapshot;
	bool		found;

	if (EsArchiveIsEmpty())
		return false;
	snapshot = RegisterSnapshot(GetCatalogSnapshot(EsStoreGet()->archive_segment));
	found = EsArchiveFindId(id, 0, snapshot, slot);
	UnregisterSnapshot(snapshot);
	return found;
}

/*
 * Read the event with this id, committed by now or our own, into the slot;
 * false if there is none.
 */
bool
EsScanFindId(Relation event, Relation id_key, const pg_uuid_t *id,
			 TupleTableSlot *slot)
{
	ScanKeyData key;
	IndexScanDesc scan;
	bool		found;

	if (ES_BUG == 82 && find_archived(id, slot))
		return true;
	EsPoint("id-between");
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(id));
	scan = EsIndexBeginScan(event, id_key, SnapshotSelf, 1);
	index_rescan(scan, &key, 1, NULL, 0);
	found = index_getnext_slot(scan, ForwardScanDirection, slot);
	index_endscan(scan);
	if (ES_BUG == 82)
		return found;
	EsPoint("id-looked");
	return found || find_archived(id, slot);
}

/* Does the slot of a walk hold an event from the archive? */
bool
EsScanIsArchived(const TupleTableSlot *slot)
{
	return !TTS_IS_BUFFERTUPLE(slot);
}

/* Did this transaction append the event?  What is archived is committed. */
bool
EsScanIsOwn(TupleTableSlot *slot)
{
	bool		isnull;

	return !EsScanIsArchived(slot) &&
		TransactionIdIsCurrentTransactionId(DatumGetTransactionId(slot_getsysattr(slot,
																				  MinTransactionIdAttributeNumber,
																				  &isnull)));
}

/* Does an MVCC snapshot see the event in the slot of a walk? */
bool
EsScanIsSeen(Relation event, TupleTableSlot *slot, Snapshot snapshot)
{
	int64		position;
	bool		isnull;
	bool		seen;
	EsScan	   *scan;

	if (ES_BUG == 89 && EsScanIsArchived(slot))
		return true;
	if (!EsScanIsArchived(slot))
		return table_tuple_satisfies_snapshot(event, slot, snapshot);
	position = DatumGetInt64(slot_getattr(slot, ES_EVENT_POSITION, &isnull));
	scan = EsScanPositions(event, snapshot, position, position, ForwardScanDirection);
	seen = EsScanNext(scan) != NULL;
	EsScanEnd(scan);
	return seen;
}
