/*
 * stat_sample.c: what a log says, told from a part of it.
 *
 * A stretch of the log is divided into strata of the same length, and a window
 * of some neighbours is read in each along the index on the position.  Holes
 * are what a window finds them to be: positions without an event.  Where the
 * windows lie depends on nothing but the stretch, so the same log gives the
 * same answer twice.  A stretch no longer than what may be read is read whole,
 * and the answer is exact.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/genam.h"
#include "access/relscan.h"
#include "access/stratnum.h"
#include "access/tableam.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"

#include "compat.h"
#include "stat.h"

#define WINDOW 64				/* positions */

/* Visit the events behind from up to to; answers how many. */
static int64
read_window(IndexScanDesc scan, TupleTableSlot *slot, int64 from, int64 to,
			EsSampleVisitor visit, void *arg)
{
	ScanKeyData keys[2];
	int64		events = 0;

	ScanKeyInit(&keys[0], 1, BTGreaterStrategyNumber, F_INT8GT, Int64GetDatum(from));
	ScanKeyInit(&keys[1], 1, BTLessEqualStrategyNumber, F_INT8LE, Int64GetDatum(to));
	index_rescan(scan, keys, 2, NULL, 0);
	while (index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		visit(slot, arg);
		events++;
	}
	return events;
}

/*
 * Visit events behind from up to to: all, if those are at most budget
 * positions, or about as many of them.
 */
EsSample
EsSampleLog(Relation event, const EsStore *store, Snapshot snapshot,
			int64 from, int64 to, int64 budget,
			EsSampleVisitor visit, void *arg)
{
	EsSample	sample = {Max(to - from, 0), 0, 0};
	Relation	index = index_open(store->position_key, AccessShareLock);
	IndexScanDesc scan = EsIndexBeginScan(event, index, snapshot, 2);
	TupleTableSlot *slot = table_slot_create(event, NULL);
	int64		strata = Max(budget / WINDOW, 1);
	int64		length = sample.positions / strata;

	if (sample.positions <= budget || length <= WINDOW)
	{
		sample.events = read_window(scan, slot, from, to, visit, arg);
		sample.looked_at = sample.positions;
	}
	else
		for (int64 i = 0; i < strata; i++)
		{
			int64		begin = from + i * length +
				(int64) (hash_bytes_uint32_extended((uint32) i, 0) % (uint64) (length - WINDOW));

			sample.events += read_window(scan, slot, begin, begin + WINDOW, visit, arg);
			sample.looked_at += WINDOW;
		}
	ExecDropSingleTupleTableSlot(slot);
	index_endscan(scan);
	index_close(index, AccessShareLock);
	return sample;
}

/* The first and the last position that have an event; false if none has. */
bool
EsLogEnds(Relation event, const EsStore *store, Snapshot snapshot,
		  int64 *first, int64 *last)
{
	Relation	index = index_open(store->position_key, AccessShareLock);
	IndexScanDesc scan = EsIndexBeginScan(event, index, snapshot, 0);
	TupleTableSlot *slot = table_slot_create(event, NULL);
	bool		found;
	bool		isnull;

	index_rescan(scan, NULL, 0, NULL, 0);
	found = index_getnext_slot(scan, ForwardScanDirection, slot);
	if (found)
		*first = DatumGetInt64(slot_getattr(slot, ES_EVENT_POSITION, &isnull));
	index_rescan(scan, NULL, 0, NULL, 0);
	found = found && index_getnext_slot(scan, BackwardScanDirection, slot);
	if (found)
		*last = DatumGetInt64(slot_getattr(slot, ES_EVENT_POSITION, &isnull));
	ExecDropSingleTupleTableSlot(slot);
	index_endscan(scan);
	index_close(index, AccessShareLock);
	return found;
}

/* Bytes that an event takes in the table, its parts out of line included. */
int64
EsEventSize(TupleTableSlot *slot)
{
	static const AttrNumber large[] = {ES_EVENT_DATA, ES_EVENT_METADATA, ES_EVENT_TAGS};
	bool		must_free;
	HeapTuple	tuple = ExecFetchSlotHeapTuple(slot, false, &must_free);
	int64		size = tuple->t_len;

	if (must_free)
		heap_freetuple(tuple);
	for (size_t i = 0; i < lengthof(large); i++)
	{
		bool		isnull;
		Datum		value = slot_getattr(slot, large[i], &isnull);

		if (!isnull && VARATT_IS_EXTERNAL_ONDISK(DatumGetPointer(value)))
			size += toast_datum_size(value);
	}
	return size;
}
