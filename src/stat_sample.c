/*
 * stat_sample.c: what a log says, told from a part of it.
 *
 * A stretch of the log is divided into strata of the same length, and a window
 * of some neighbours is read in each, wherever they are, archived or not.  Holes
 * are what a window finds them to be: positions without an event.  Where the
 * windows lie depends on nothing but the stretch, so the same log gives the
 * same answer twice.  A stretch no longer than what may be read is read whole,
 * and the answer is exact.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "common/hashfn.h"
#include "miscadmin.h"

#include "scan.h"
#include "stat.h"

#define WINDOW 64				/* positions */

/* Visit the events behind from up to to; answers how many. */
static int64
read_window(Relation event, Snapshot snapshot, int64 from, int64 to,
			EsSampleVisitor visit, void *arg)
{
	EsScan	   *scan = EsScanPositions(event, snapshot, from + 1, to, ForwardScanDirection);
	TupleTableSlot *slot;
	int64		events = 0;

	while ((slot = EsScanNext(scan)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		visit(slot, arg);
		events++;
	}
	EsScanEnd(scan);
	return events;
}

/*
 * Visit events behind from up to to: all, if those are at most budget
 * positions, or about as many of them.
 */
EsSample
EsSampleLog(Relation event, Snapshot snapshot, int64 from, int64 to,
			int64 budget, EsSampleVisitor visit, void *arg)
{
	EsSample	sample = {Max(to - from, 0), 0, 0};
	int64		strata = Max(budget / WINDOW, 1);
	int64		length = sample.positions / strata;

	if (sample.positions <= budget || length <= WINDOW)
	{
		sample.events = read_window(event, snapshot, from, to, visit, arg);
		sample.looked_at = sample.positions;
	}
	else
		for (int64 i = 0; i < strata; i++)
		{
			int64		begin = from + i * length +
				(int64) (hash_bytes_uint32_extended((uint32) i, 0) % (uint64) (length - WINDOW));

			sample.events += read_window(event, snapshot, begin, begin + WINDOW, visit, arg);
			sample.looked_at += WINDOW;
		}
	return sample;
}

/* The position of the first event that is met in a direction; 0: none. */
static int64
log_end(Relation event, Snapshot snapshot, ScanDirection direction)
{
	EsScan	   *scan = EsScanPositions(event, snapshot, 1, PG_INT64_MAX, direction);
	TupleTableSlot *slot = EsScanNext(scan);
	bool		isnull;
	int64		position = slot == NULL ? 0 :
		DatumGetInt64(slot_getattr(slot, ES_EVENT_POSITION, &isnull));

	EsScanEnd(scan);
	return position;
}

/* The first and the last position that have an event; false if none has. */
bool
EsLogEnds(Relation event, Snapshot snapshot, int64 *first, int64 *last)
{
	*first = log_end(event, snapshot, ForwardScanDirection);
	*last = *first == 0 ? 0 : log_end(event, snapshot, BackwardScanDirection);
	return *first > 0;
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
