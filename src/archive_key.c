/*
 * archive_key.c: in which segments a stream, or an event id, may be found.
 *
 * An index over archived events must not cost what the events' own indexes
 * did, or little would be gained.  So a key is kept as 32 bits of its hash and
 * the number of the segment: three to five bytes as the difference from its
 * neighbour.  It may name a segment that has not got the key, once in billions
 * of times, and never fails to name one that has; who asks looks there.
 *
 * The entries of a segment are a *run*: sorted, cut into rows of es_archive_key
 * by their first hash, so that a look into a run is one descent of an index
 * and one row.  As in any log-structured index runs are merged: four of one
 * level become one of the next, so that a billion events have a dozen runs or
 * two.  es_archive_run lists them, with the least and the greatest id: new ids
 * of version 7 are greater than all archived ones and need no look at all.
 *
 * All is written in the transaction that writes the segment, and read with one
 * MVCC snapshot, which therefore sees each entry in exactly one run.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "archive_key.h"
#include "catalog.h"
#include "compat.h"
#include "number.h"

#define ES_KEY_FANOUT 4			/* runs of a level that become one */
#define ES_KEY_ENTRIES 400		/* of a row: it is not moved out of line */

/* Columns of es_archive_run. */
enum
{
	RUN_RUN = 1,
	RUN_KIND,
	RUN_LEVEL,
	RUN_FIRST_SEGMENT,
	RUN_LAST_SEGMENT,
	RUN_ENTRIES,
	RUN_LEAST_ID,
	RUN_GREATEST_ID,
	RUN_NATTS = RUN_GREATEST_ID
};

/* Columns of es_archive_key. */
enum
{
	KEY_RUN = 1,
	KEY_FIRST_HASH,
	KEY_ENTRIES,
	KEY_NATTS = KEY_ENTRIES
};

/* A row of es_archive_run. */
typedef struct Run
{
	int64		run;
	EsKeyKind	kind;
	int32		level;
	int64		first_segment;
	int64		last_segment;
	int64		entries;
	bool		has_ids;
	pg_uuid_t	least;
	pg_uuid_t	greatest;
	ItemPointerData tid;
} Run;

/* Along the entries of a run. */
typedef struct RunReader
{
	const Run  *run;
	IndexScanDesc scan;
	TupleTableSlot *slot;
	struct varlena *row;		/* the entries of the current row */
	EsInput		in;
	bool		remove;			/* delete the rows that were read */
	uint64		hash;			/* of the current entry */
	int64		segment;
} RunReader;

/* A run that is being written. */
typedef struct RunWriter
{
	Run			run;
	StringInfoData row;			/* VARHDRSZ, then entries */
	int			nrow;			/* of them */
	uint32		first;			/* hash of the row */
	uint32		last;
} RunWriter;

uint32
EsKeyHash(const void *bytes, Size len)
{
	return (uint32) hash_bytes_extended(bytes, (int) len, UINT64CONST(0x65735F6B6579));
}

/* An entry as a number, to compare sets by their sums. */
uint64
EsKeyEntryHash(uint32 hash, int64 segment)
{
	return hash_bytes_uint32_extended(hash, (uint64) segment);
}

/* ----- the list of runs ----- */

static Run
run_of_slot(TupleTableSlot *slot)
{
	Run			run = {0};
	bool		isnull;
	Datum		value;

	slot_getallattrs(slot);
	run.run = DatumGetInt64(slot->tts_values[RUN_RUN - 1]);
	run.kind = (EsKeyKind) DatumGetChar(slot->tts_values[RUN_KIND - 1]);
	run.level = DatumGetInt32(slot->tts_values[RUN_LEVEL - 1]);
	run.first_segment = DatumGetInt64(slot->tts_values[RUN_FIRST_SEGMENT - 1]);
	run.last_segment = DatumGetInt64(slot->tts_values[RUN_LAST_SEGMENT - 1]);
	run.entries = DatumGetInt64(slot->tts_values[RUN_ENTRIES - 1]);
	value = slot_getattr(slot, RUN_LEAST_ID, &isnull);
	run.has_ids = !isnull;
	if (run.has_ids)
	{
		run.least = *DatumGetUUIDP(value);
		run.greatest = *DatumGetUUIDP(slot_getattr(slot, RUN_GREATEST_ID, &isnull));
	}
	run.tid = slot->tts_tid;
	return run;
}

/* The runs of a kind that the snapshot sees, or of all kinds (0). */
static List *
list_runs(EsKeyKind kind, Snapshot snapshot)
{
	Relation	rel = table_open(EsStoreGet()->archive_run, AccessShareLock);
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	List	   *runs = NIL;

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		Run			run = run_of_slot(slot);

		if (kind == 0 || run.kind == kind)
			runs = lappend(runs, memcpy(palloc(sizeof(Run)), &run, sizeof(Run)));
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	return runs;
}

static void
insert_run(const Run *run)
{
	Datum		values[RUN_NATTS] = {0};
	bool		nulls[RUN_NATTS] = {false};

	values[RUN_RUN - 1] = Int64GetDatum(run->run);
	values[RUN_KIND - 1] = CharGetDatum((char) run->kind);
	values[RUN_LEVEL - 1] = Int32GetDatum(run->level);
	values[RUN_FIRST_SEGMENT - 1] = Int64GetDatum(run->first_segment);
	values[RUN_LAST_SEGMENT - 1] = Int64GetDatum(run->last_segment);
	values[RUN_ENTRIES - 1] = Int64GetDatum(run->entries);
	values[RUN_LEAST_ID - 1] = UUIDPGetDatum(&run->least);
	values[RUN_GREATEST_ID - 1] = UUIDPGetDatum(&run->greatest);
	nulls[RUN_LEAST_ID - 1] = nulls[RUN_GREATEST_ID - 1] = !run->has_ids;
	EsRowInsert(EsStoreGet()->archive_run, values, nulls);
}

/* ----- reading a run ----- */

/* Read the row in the slot from its first entry on. */
static void
begin_row(RunReader *reader)
{
	bool		isnull;
	Datum		value = slot_getattr(reader->slot, KEY_ENTRIES, &isnull);

	if (reader->row != NULL)
		pfree(reader->row);
	reader->row = PG_DETOAST_DATUM_COPY(value);
	reader->in.at = VARDATA(reader->row);
	reader->in.end = reader->in.at + VARSIZE(reader->row) - VARHDRSZ;
	reader->in.bad = false;
	reader->hash = (uint64) DatumGetInt64(slot_getattr(reader->slot, KEY_FIRST_HASH, &isnull));
}

/* The next entry of the row; false at its end. */
static bool
next_in_row(RunReader *reader)
{
	if (reader->in.at >= reader->in.end)
		return false;
	reader->hash += EsGetNumber(&reader->in);
	reader->segment = reader->run->first_segment + (int64) EsGetNumber(&reader->in);
	if (reader->in.bad || reader->segment > reader->run->last_segment)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("run " INT64_FORMAT " of \"%s\" is damaged",
						reader->run->run, "es_archive_key"),
				 errhint("Restore the database from a backup.")));
	return true;
}

/* The next entry of the run; false at its end. */
static bool
next_entry(RunReader *reader, Relation rel)
{
	while (reader->row == NULL || !next_in_row(reader))
	{
		if (!index_getnext_slot(reader->scan, ForwardScanDirection, reader->slot))
			return false;
		begin_row(reader);
		if (reader->remove)
			simple_heap_delete(rel, &reader->slot->tts_tid);
	}
	return true;
}

static void
reader_begin(RunReader *reader, const Run *run, Relation rel, Relation index,
			 Snapshot snapshot)
{
	ScanKeyData key;

	memset(reader, 0, sizeof(RunReader));
	reader->run = run;
	reader->slot = table_slot_create(rel, NULL);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(run->run));
	reader->scan = EsIndexBeginScan(rel, index, snapshot, 1);
	index_rescan(reader->scan, &key, 1, NULL, 0);
}

static void
reader_end(RunReader *reader)
{
	index_endscan(reader->scan);
	ExecDropSingleTupleTableSlot(reader->slot);
	if (reader->row != NULL)
		pfree(reader->row);
}

/* The row of a run that has the hash, if any has. */
static bool
find_row(RunReader *reader, uint32 hash)
{
	ScanKeyData keys[2];

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(reader->run->run));
	ScanKeyInit(&keys[1], 2, BTLessEqualStrategyNumber, F_INT8LE,
				Int64GetDatum((int64) hash));
	index_rescan(reader->scan, keys, 2, NULL, 0);
	if (!index_getnext_slot(reader->scan, BackwardScanDirection, reader->slot))
		return false;
	begin_row(reader);
	return true;
}

static int
compare_segments(const void *a, const void *b)
{
	int64		left = *(const int64 *) a;
	int64		right = *(const int64 *) b;

	return (left > right) - (left < right);
}

static bool
may_hold(const Run *run, const pg_uuid_t *id)
{
	return id == NULL || !run->has_ids ||
		(memcmp(id->data, run->least.data, UUID_LEN) >= 0 &&
		 memcmp(id->data, run->greatest.data, UUID_LEN) <= 0);
}

/*
 * The segments that may have a key, in ascending order; their number.  Of an
 * id itself more can be told than of its hash.
 */
int
EsKeyFind(EsKeyKind kind, uint32 hash, const pg_uuid_t *id, Snapshot snapshot,
		  int64 **segments)
{
	List	   *runs = list_runs(kind, snapshot);
	Relation	rel = table_open(EsStoreGet()->archive_key, AccessShareLock);
	Relation	index = index_open(EsPrimaryKey(rel), AccessShareLock);
	RunReader	reader = {0};
	int			max = 16;
	int			n = 0;
	ListCell   *cell;

	reader.slot = table_slot_create(rel, NULL);
	reader.scan = EsIndexBeginScan(rel, index, snapshot, 2);
	*segments = palloc(max * sizeof(int64));
	foreach(cell, runs)
	{
		reader.run = lfirst(cell);
		if (!may_hold(reader.run, id) ||
			!find_row(&reader, hash))
			continue;
		while (next_in_row(&reader) && reader.hash <= hash)
		{
			if (reader.hash < hash)
				continue;
			if (n == max)
				*segments = repalloc(*segments, (max *= 2) * sizeof(int64));
			(*segments)[n++] = reader.segment;
		}
	}
	if (reader.row != NULL)
		pfree(reader.row);
	index_endscan(reader.scan);
	ExecDropSingleTupleTableSlot(reader.slot);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
	list_free_deep(runs);
	qsort(*segments, n, sizeof(int64), compare_segments);
	return n;
}

/* ----- writing ----- */

static void
flush_row(RunWriter *writer)
{
	Datum		values[KEY_NATTS];
	bool		nulls[KEY_NATTS] = {false};

	if (writer->nrow == 0)
		return;
	SET_VARSIZE(writer->row.data, writer->row.len);
	values[KEY_RUN - 1] = Int64GetDatum(writer->run.run);
	values[KEY_FIRST_HASH - 1] = Int64GetDatum((int64) writer->first);
	values[KEY_ENTRIES - 1] = PointerGetDatum(writer->row.data);
	EsRowInsert(EsStoreGet()->archive_key, values, nulls);
	writer->nrow = 0;
}

/* Entries come in order; those of one hash stay in one row. */
static void
write_entry(RunWriter *writer, uint32 hash, int64 segment)
{
	if (writer->nrow >= ES_KEY_ENTRIES && hash != writer->last)
		flush_row(writer);
	if (writer->nrow == 0)
	{
		writer->row.len = VARHDRSZ;
		writer->first = writer->last = hash;
	}
	EsPutNumber(&writer->row, hash - writer->last);
	EsPutNumber(&writer->row, segment - writer->run.first_segment);
	writer->last = hash;
	writer->nrow++;
	writer->run.entries++;
}

static void
writer_begin(RunWriter *writer, const Run *run)
{
	writer->run = *run;
	writer->run.entries = 0;
	writer->nrow = 0;
	initStringInfo(&writer->row);
	enlargeStringInfo(&writer->row, VARHDRSZ);
}

static void
writer_end(RunWriter *writer)
{
	flush_row(writer);
	insert_run(&writer->run);
	pfree(writer->row.data);
}

static int64
new_run_number(List *runs)
{
	int64		last = 0;
	ListCell   *cell;

	foreach(cell, runs)
	{
		int64		run = ((Run *) lfirst(cell))->run;

		last = Max(last, run);
	}
	return last + 1;
}

/* What the merged run is to say of itself. */
static Run
describe_merged(List *old, int64 number)
{
	Run			run = *(Run *) linitial(old);
	ListCell   *cell;

	run.run = number;
	run.level++;
	foreach(cell, old)
	{
		const Run  *one = lfirst(cell);

		run.first_segment = Min(run.first_segment, one->first_segment);
		run.last_segment = Max(run.last_segment, one->last_segment);
		if (memcmp(one->least.data, run.least.data, UUID_LEN) < 0)
			run.least = one->least;
		if (memcmp(one->greatest.data, run.greatest.data, UUID_LEN) > 0)
			run.greatest = one->greatest;
	}
	return run;
}

/* Of the readers that have an entry, the one with the least. */
static RunReader *
least_reader(RunReader *readers, const bool *done, int n)
{
	RunReader  *least = NULL;

	for (int i = 0; i < n; i++)
		if (!done[i] &&
			(least == NULL || readers[i].hash < least->hash ||
			 (readers[i].hash == least->hash && readers[i].segment < least->segment)))
			least = &readers[i];
	return least;
}

/* Put the entries of all the old runs into the new one, and remove them. */
static void
merge_entries(RunWriter *writer, List *old, Snapshot snapshot)
{
	Relation	rel = table_open(EsStoreGet()->archive_key, RowExclusiveLock);
	Relation	index = index_open(EsPrimaryKey(rel), RowExclusiveLock);
	int			n = list_length(old);
	RunReader  *readers = palloc(n * sizeof(RunReader));
	RunReader  *least;
	bool	   *done = palloc(n * sizeof(bool));

	for (int i = 0; i < n; i++)
	{
		reader_begin(&readers[i], list_nth(old, i), rel, index, snapshot);
		readers[i].remove = true;
		done[i] = !next_entry(&readers[i], rel);
	}
	while ((least = least_reader(readers, done, n)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		write_entry(writer, (uint32) least->hash, least->segment);
		done[least - readers] = !next_entry(least, rel);
	}
	for (int i = 0; i < n; i++)
		reader_end(&readers[i]);
	index_close(index, NoLock);
	table_close(rel, NoLock);	/* kept to commit */
}

static void
remove_runs(List *old)
{
	Relation	rel = table_open(EsStoreGet()->archive_run, RowExclusiveLock);
	ListCell   *cell;

	foreach(cell, old)
		simple_heap_delete(rel, &((Run *) lfirst(cell))->tid);
	table_close(rel, NoLock);
}

/* Merge the runs of a level if there are enough; true if that was done. */
static bool
merge_level(EsKeyKind kind, int32 level)
{
	Snapshot	snapshot;
	List	   *runs;
	List	   *old = NIL;
	ListCell   *cell;
	RunWriter	writer;
	Run			merged;

	CommandCounterIncrement();	/* the newest run is to be seen */
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	runs = list_runs(0, snapshot);
	foreach(cell, runs)
	{
		Run		   *run = lfirst(cell);

		if (run->kind == kind && run->level == level)
			old = lappend(old, run);
	}
	if (list_length(old) >= ES_KEY_FANOUT)
	{
		merged = describe_merged(old, new_run_number(runs));
		writer_begin(&writer, &merged);
		merge_entries(&writer, old, snapshot);
		remove_runs(old);
		writer_end(&writer);
	}
	UnregisterSnapshot(snapshot);
	return list_length(old) >= ES_KEY_FANOUT;
}

static int
compare_hashes(const void *a, const void *b)
{
	uint32		left = *(const uint32 *) a;
	uint32		right = *(const uint32 *) b;

	return (left > right) - (left < right);
}

/*
 * Write the keys of a new segment, which is the last one.  The caller has
 * locked out other archivers.  Sorts the set's hashes.
 */
void
EsKeyWrite(EsKeySet *set, int64 segment)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	Run			run = {.kind = set->kind,.first_segment = segment,.last_segment = segment,
	.has_ids = set->kind == ES_KEY_ID,.least = set->least,.greatest = set->greatest};
	RunWriter	writer;

	run.run = new_run_number(list_runs(0, snapshot));
	UnregisterSnapshot(snapshot);
	qsort(set->hashes, set->n, sizeof(uint32), compare_hashes);
	writer_begin(&writer, &run);
	for (int i = 0; i < set->n; i++)
		if (i == 0 || set->hashes[i] != set->hashes[i - 1])
			write_entry(&writer, set->hashes[i], segment);
	writer_end(&writer);
	for (int32 level = 0; merge_level(set->kind, level); level++)
		;
}

/* The number of entries of a kind, and the sum of their hashes. */
void
EsKeySum(EsKeyKind kind, Snapshot snapshot, int64 *entries, uint64 *sum)
{
	List	   *runs = list_runs(kind, snapshot);
	Relation	rel = table_open(EsStoreGet()->archive_key, AccessShareLock);
	Relation	index = index_open(EsPrimaryKey(rel), AccessShareLock);
	ListCell   *cell;

	*entries = 0;
	*sum = 0;
	foreach(cell, runs)
	{
		RunReader	reader;

		reader_begin(&reader, lfirst(cell), rel, index, snapshot);
		while (next_entry(&reader, rel))
		{
			CHECK_FOR_INTERRUPTS();
			(*entries)++;
			*sum += EsKeyEntryHash((uint32) reader.hash, reader.segment);
		}
		reader_end(&reader);
	}
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
}
