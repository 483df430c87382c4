/*
 * archive.c: old events out of es_event, and how they are read all the same.
 *
 * WHAT IS ARCHIVED.  The archive is the beginning of the log: it holds every
 * event up to a position, its *border*, and none behind.  Since versions and
 * positions of a stream ascend together, it also holds the beginning of each
 * stream.  Some thousand events in position order make a segment, a row of
 * es_archive_segment; segment.c says what is in it.  es_archive_key says which
 * segments may have a stream or an id; archive_key.c says how.
 *
 * THE MOVE.  One transaction writes a segment with its keys and deletes its
 * rows from es_event.  So whoever reads with one MVCC snapshot finds each
 * event in one of the two places and never in both, whatever the archiver is
 * doing, and after a crash.  Only events at or below the settled position are
 * moved, after they have been read along the log with its own proofs, and
 * after the segment has been taken apart again and compared.
 *
 * READING.  scan.c puts the two places together; everybody else reads through
 * it.  The rules are two:
 *
 * 1. With an MVCC snapshot both places are read with it.
 *
 * 2. What is committed by now (SnapshotSelf, a dirty snapshot) changes while
 *    it is read.  There the order counts: first es_event, then the archive,
 *    with an MVCC snapshot taken after.  An event that es_event no longer
 *    shows at t1 was moved by a transaction that had committed by t1, so that
 *    a snapshot of t2 > t1 sees its segment.  The other way round it could be
 *    missed in both.  Found in both, it is the same event.
 *
 * WHAT IT COSTS.  Where nothing was ever archived, es_archive_segment has no
 * pages, and that is all that is asked.  Streams and the log are read in
 * es_event first: whoever finds there what comes next need not ask the archive
 * at all, and that is so for appends to streams with events in es_event and
 * for readers behind the border.
 *
 * IDS.  An id is looked for in es_event and then in the archive, as rule 2
 * says; so a retry is answered as the first try was.  A row that is new must
 * also not share its id with an archived event.  The look before the insert
 * is not enough: between it and the insert the event with the id, committed
 * meanwhile, could be moved, and the unique index no longer knows it.  So who
 * brings an id looks again after the insert: either the index still had the
 * other event then, or the archive has it now.  Only segments made since the
 * first look need it, and as a rule there are none.  (Ids that the store
 * makes are 62 random bits in a millisecond; nobody looks for these.)
 *
 * NOT THERE.  A segment may be off-line: its row is there without content.
 * Whoever needs it fails with 55000 and never reads on as if it were empty.
 *
 * A segment that was taken apart as a whole is kept for the next reader of the
 * session, since a log is read page by page.  It belongs to one reader at a
 * time: taken from the cache, and given back at the end.  What is in it never
 * changes, so that the address of the content says all.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "archive.h"
#include "archive_key.h"
#include "catalog.h"
#include "compat.h"
#include "point.h"

#define ES_CACHE_BYTES (24 * 1024 * 1024)	/* a larger segment is not kept */

/* A segment taken apart as a whole. */
typedef struct Whole
{
	MemoryContext context;		/* all of it */
	int64		segment;
	struct varlena *content;	/* where it came from; NULL: in line */
	EsSegmentRow **rows;		/* by position */
	int			nrows;
} Whole;

/* A segment of which single blocks are read. */
typedef struct Opened
{
	EsArchiveSegment segment;
	const EsSegmentHeader *header;
	const EsSegmentBlock *blocks;
} Opened;

struct EsArchiveRead
{
	MemoryContext context;		/* of the walk */
	MemoryContext piece_context;	/* of the segment or block being read */
	Snapshot	snapshot;
	ScanDirection direction;
	TupleTableSlot *slot;
	int64		first;			/* positions or versions wanted, inclusive */
	int64		last;
	int64		next_position;	/* along the log: where the next segment begins */
	Whole	   *whole;			/* along the log: the segment being read */
	text	   *stream_id;		/* NULL: along the log */
	int64	   *segments;		/* of the stream, those not visited yet */
	int			nsegments;
	Opened		opened;			/* of the stream, the segment being read */
	int			block;			/* the next one of it */
	int			end_block;		/* and where to stop */
	EsSegmentRow **rows;		/* of the piece, in the walk's order */
	int			nrows;
	int			next;
	bool		done;
};

static Whole *cached = NULL;

/* ----- segments ----- */

/*
 * Has nothing ever been archived?  No page is written before the first
 * archiver's rows are, so this is as true as a look at the rows.
 */
bool
EsArchiveIsEmpty(void)
{
	Relation	rel = table_open(EsStoreGet()->archive_segment, AccessShareLock);
	bool		empty = RelationGetNumberOfBlocks(rel) == 0;

	table_close(rel, AccessShareLock);
	return empty;
}

static EsArchiveSegment
segment_of_slot(TupleTableSlot *slot)
{
	EsArchiveSegment segment;
	bool		isnull;
	Datum	   *values = slot->tts_values;
	struct varlena *content;
	bytea	   *digest;

	slot_getallattrs(slot);
	segment.segment = DatumGetInt64(values[ES_ARCHIVE_SEGMENT - 1]);
	segment.first_position = DatumGetInt64(values[ES_ARCHIVE_FIRST_POSITION - 1]);
	segment.last_position = DatumGetInt64(values[ES_ARCHIVE_LAST_POSITION - 1]);
	segment.first_recorded_at = DatumGetTimestampTz(values[ES_ARCHIVE_FIRST_RECORDED_AT - 1]);
	segment.last_recorded_at = DatumGetTimestampTz(values[ES_ARCHIVE_LAST_RECORDED_AT - 1]);
	segment.events = DatumGetInt32(values[ES_ARCHIVE_EVENTS - 1]);
	content = (struct varlena *) DatumGetPointer(slot_getattr(slot, ES_ARCHIVE_CONTENT, &isnull));
	segment.content = isnull ? NULL :
		memcpy(palloc(VARSIZE_ANY(content)), content, VARSIZE_ANY(content));
	digest = DatumGetByteaPP(values[ES_ARCHIVE_DIGEST - 1]);
	memset(segment.digest, 0, sizeof(segment.digest));
	memcpy(segment.digest, VARDATA_ANY(digest),
		   Min(VARSIZE_ANY_EXHDR(digest), sizeof(segment.digest)));
	return segment;
}

/*
 * The first row of es_archive_segment, in the order of one of its indexes and
 * in a direction, that meets the key; false when there is none.
 */
static bool
find_segment(bool by_position, ScanKey key, Snapshot snapshot,
			 ScanDirection direction, EsArchiveSegment *found)
{
	Relation	rel = table_open(EsStoreGet()->archive_segment, AccessShareLock);
	Relation	index;
	IndexScanDesc scan;
	TupleTableSlot *slot;
	bool		exists;

	if (RelationGetNumberOfBlocks(rel) == 0)
	{
		table_close(rel, AccessShareLock);
		return false;
	}
	index = index_open(by_position ? EsStoreGet()->archive_position_key :
					   EsPrimaryKey(rel), AccessShareLock);
	slot = table_slot_create(rel, NULL);
	scan = EsIndexBeginScan(rel, index, snapshot, key == NULL ? 0 : 1);
	index_rescan(scan, key, key == NULL ? 0 : 1, NULL, 0);
	exists = index_getnext_slot(scan, direction, slot);
	if (exists)
		*found = segment_of_slot(slot);
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
	return exists;
}

/* The segment of this number. */
bool
EsArchiveFindSegment(int64 segment, Snapshot snapshot, EsArchiveSegment *found)
{
	ScanKeyData key;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(segment));
	return find_segment(false, &key, snapshot, ForwardScanDirection, found);
}

/* The first segment of a greater number. */
bool
EsArchiveNextSegment(int64 after, Snapshot snapshot, EsArchiveSegment *found)
{
	ScanKeyData key;

	ScanKeyInit(&key, 1, BTGreaterStrategyNumber, F_INT8GT, Int64GetDatum(after));
	return find_segment(false, &key, snapshot, ForwardScanDirection, found);
}

/* The last segment that begins at or before a position. */
bool
EsArchiveFindByPosition(int64 position, Snapshot snapshot, EsArchiveSegment *found)
{
	ScanKeyData key;

	ScanKeyInit(&key, 1, BTLessEqualStrategyNumber, F_INT8LE, Int64GetDatum(position));
	return find_segment(true, &key, snapshot,
						BackwardScanDirection, found);
}

/* The first segment that begins behind a position. */
static bool
find_behind(int64 position, Snapshot snapshot, EsArchiveSegment *found)
{
	ScanKeyData key;

	ScanKeyInit(&key, 1, BTGreaterStrategyNumber, F_INT8GT, Int64GetDatum(position));
	return find_segment(true, &key, snapshot,
						ForwardScanDirection, found);
}

/* The border as the snapshot sees it: the last archived position, or 0. */
int64
EsArchiveLastPosition(Snapshot snapshot)
{
	EsArchiveSegment last;

	return find_segment(true, NULL, snapshot,
						BackwardScanDirection, &last) ? last.last_position : 0;
}

/* The number of the last segment, or 0. */
int64
EsArchiveLastSegment(Snapshot snapshot)
{
	EsArchiveSegment last;

	return find_segment(false, NULL, snapshot, BackwardScanDirection,
						&last) ? last.segment : 0;
}

/* ----- bytes ----- */

static void
report_damaged(int64 segment, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("archive segment " INT64_FORMAT " is damaged", segment),
			 errdetail("In its content, %s.", detail),
			 errhint("Import an exported copy of it with es_import_segment(), or restore a backup.")));
}

static void
require_content(const EsArchiveSegment *segment)
{
	if (segment->content == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("archive segment " INT64_FORMAT " is off-line", segment->segment),
				 errdetail("It holds the events from position " INT64_FORMAT " to " INT64_FORMAT ".",
						   segment->first_position, segment->last_position),
				 errhint("Bring it back with es_import_segment().")));
}

static void
require_codec(const EsArchiveSegment *segment, const EsSegmentHeader *header)
{
	if (!EsCodecIsAvailable(header->codec))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("archive segment " INT64_FORMAT " is compressed with %s, which this build cannot read",
						segment->segment, EsCodecName(header->codec)),
				 errhint("Build eventstore where that library's headers are installed.")));
}

/* The header as checked so far; 0A000 for a codec that is not to be had. */
static const EsSegmentHeader *
check_header(const EsArchiveSegment *segment, const char *bytes, Size len, Size total)
{
	const EsSegmentHeader *header = (const EsSegmentHeader *) bytes;
	const char *wrong = EsSegmentCheck(bytes, len, total);

	if (wrong != NULL)
		report_damaged(segment->segment, wrong);
	require_codec(segment, header);
	return header;
}

/* Some bytes of the content, aligned, in the current memory context. */
static const char *
content_slice(const EsArchiveSegment *segment, Size offset, Size len)
{
	struct varlena *slice = detoast_attr_slice(segment->content, (int32) offset, (int32) len);

	if (VARSIZE_ANY_EXHDR(slice) != len)
		report_damaged(segment->segment, "bytes are missing");
	return memcpy(palloc(Max(len, 1)), VARDATA_ANY(slice), len);
}

static const char *
block_bytes(const EsArchiveSegment *segment, const EsSegmentBlock *block)
{
	return content_slice(segment, block->offset, block->stored);
}

/* Read the directory of a segment. */
static void
open_segment(const EsArchiveSegment *segment, Opened *opened)
{
	Size		total;
	Size		len;
	const char *bytes;

	require_content(segment);
	total = toast_raw_datum_size(PointerGetDatum(segment->content)) - VARHDRSZ;
	len = Min(total, ES_SEGMENT_PEEK);
	bytes = content_slice(segment, 0, len);
	opened->segment = *segment;
	opened->header = check_header(segment, bytes, len, total);
	if (opened->header->directory > len)
	{
		len = opened->header->directory;
		bytes = content_slice(segment, 0, len);
		opened->header = check_header(segment, bytes, len, total);
	}
	opened->blocks = EsSegmentBlocks(opened->header);
}

static EsSegmentRow *
decode_block(const Opened *opened, int block, const char *stored)
{
	EsSegmentRow *rows;
	const char *wrong = EsSegmentDecode(opened->header, &opened->blocks[block],
										stored, &rows);

	if (wrong != NULL)
		report_damaged(opened->segment.segment, wrong);
	return rows;
}

/* ----- a segment as a whole ----- */

static int
compare_positions(const void *a, const void *b)
{
	const EsSegmentRow *left = *(EsSegmentRow *const *) a;
	const EsSegmentRow *right = *(EsSegmentRow *const *) b;

	return (left->position > right->position) - (left->position < right->position);
}

/*
 * Put the rows in the order of positions.  These are dense as a rule, so that
 * each row's place can be told.  Answers what is wrong, or NULL.
 */
static const char *
order_by_position(const EsArchiveSegment *segment, EsSegmentRow **rows, int n)
{
	uint64		range = (uint64) segment->last_position - segment->first_position + 1;
	EsSegmentRow **places;
	int			done = 0;

	for (int i = 0; i < n; i++)
		if (rows[i]->position < segment->first_position ||
			rows[i]->position > segment->last_position)
			return "an event is not of it";
	if (range > (uint64) n * 4)
	{
		qsort(rows, n, sizeof(EsSegmentRow *), compare_positions);
		return NULL;
	}
	places = palloc0(range * sizeof(EsSegmentRow *));
	for (int i = 0; i < n; i++)
		places[rows[i]->position - segment->first_position] = rows[i];
	for (uint64 i = 0; i < range; i++)
		if (places[i] != NULL)
			rows[done++] = places[i];
	pfree(places);
	return done == n ? NULL : "a position occurs twice";
}

/* Take all blocks apart; bytes are the content, aligned. */
static const char *
decode_blocks(const EsSegmentHeader *header, const char *bytes, EsSegmentRow **rows)
{
	const EsSegmentBlock *blocks = EsSegmentBlocks(header);
	int			n = 0;

	for (uint32 block = 0; block < header->nblocks; block++)
	{
		EsSegmentRow *decoded;
		const char *wrong = EsSegmentDecode(header, &blocks[block],
											bytes + blocks[block].offset, &decoded);

		CHECK_FOR_INTERRUPTS();
		if (wrong != NULL)
			return wrong;
		for (uint32 i = 0; i < blocks[block].nrows; i++)
			rows[n++] = &decoded[i];
	}
	return NULL;
}

/*
 * All rows of a segment by position, in the current memory context; answers
 * what is wrong with it, or NULL.  It is not off-line.  check_map: look also at
 * what only those who want a single position read.
 */
const char *
EsArchiveTryDecode(const EsArchiveSegment *segment, bool check_map,
				   EsSegmentRow ***rows, int *nrows)
{
	struct varlena *content = detoast_attr(segment->content);
	Size		total = VARSIZE_ANY_EXHDR(content);
	const char *bytes = VARDATA_ANY(content);
	const EsSegmentHeader *header;
	const char *wrong;

	if ((uintptr_t) bytes % MAXIMUM_ALIGNOF != 0)
		bytes = memcpy(palloc(Max(total, 1)), bytes, total);
	header = (const EsSegmentHeader *) bytes;
	wrong = EsSegmentCheck(bytes, total, total);
	if (wrong != NULL)
		return wrong;
	require_codec(segment, header);
	if (header->nevents != (uint32) segment->events)
		return "the number of its events is wrong";
	*nrows = segment->events;
	*rows = palloc(Max(segment->events, 1) * sizeof(EsSegmentRow *));
	wrong = decode_blocks(header, bytes, *rows);
	if (wrong == NULL && check_map)
		wrong = EsSegmentCheckMap(header, bytes + header->map.offset, *rows);
	if (wrong != NULL)
		return wrong;
	if (content != segment->content)
		pfree(content);
	return order_by_position(segment, *rows, *nrows);
}

/* The same; 55000 for a segment that is off-line, XX001 for a damaged one. */
EsSegmentRow **
EsArchiveDecodeAll(const EsArchiveSegment *segment, int *nrows)
{
	EsSegmentRow **rows;
	const char *wrong;

	require_content(segment);
	wrong = EsArchiveTryDecode(segment, false, &rows, nrows);
	if (wrong != NULL)
		report_damaged(segment->segment, wrong);
	return rows;
}

static bool
same_content(const struct varlena *a, const struct varlena *b)
{
	return a != NULL && b != NULL && VARATT_IS_EXTERNAL_ONDISK(b) &&
		memcmp(a, b, VARSIZE_EXTERNAL(a)) == 0;
}

static Whole *
make_whole(const EsArchiveSegment *segment)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "eventstore archive segment",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext saved = MemoryContextSwitchTo(context);
	Whole	   *whole = palloc0(sizeof(Whole));

	whole->context = context;
	whole->segment = segment->segment;
	whole->rows = EsArchiveDecodeAll(segment, &whole->nrows);
	if (segment->content != NULL && VARATT_IS_EXTERNAL_ONDISK(segment->content))
		whole->content = memcpy(palloc(VARSIZE_EXTERNAL(segment->content)),
								segment->content, VARSIZE_EXTERNAL(segment->content));
	MemoryContextSwitchTo(saved);
	return whole;
}

/* The segment as a whole, from the cache or taken apart now; the caller's. */
static Whole *
take_whole(const EsArchiveSegment *segment)
{
	Whole	   *whole = cached;

	require_content(segment);
	if (whole == NULL || whole->segment != segment->segment ||
		!same_content(whole->content, segment->content))
		return make_whole(segment);
	cached = NULL;
	MemoryContextSetParent(whole->context, CurrentMemoryContext);
	return whole;
}

/* Give it to the cache. */
static void
release_whole(Whole *whole)
{
	if (whole->content == NULL ||
		MemoryContextMemAllocated(whole->context, true) > ES_CACHE_BYTES)
	{
		MemoryContextDelete(whole->context);
		return;
	}
	if (cached != NULL)
		MemoryContextDelete(cached->context);
	MemoryContextSetParent(whole->context, CacheMemoryContext);
	cached = whole;
}

/* ----- along the log ----- */

/* The rows of a whole segment that the walk wants, in its direction. */
static void
use_whole(EsArchiveRead *read, Whole *whole)
{
	int			from = 0;
	int			to = whole->nrows;

	read->whole = whole;
	while (from < to)
	{
		int			middle = from + (to - from) / 2;

		if (whole->rows[middle]->position < read->first)
			from = middle + 1;
		else
			to = middle;
	}
	to = whole->nrows;
	while (to > from && whole->rows[to - 1]->position > read->last)
		to--;
	read->rows = whole->rows + from;
	read->nrows = to - from;
}

/* One event by its position, from the block that has it. */
static bool
read_single(EsArchiveRead *read, const EsArchiveSegment *segment)
{
	Opened		opened;
	const char *wrong;
	int			block;
	EsSegmentRow *rows;

	open_segment(segment, &opened);
	wrong = EsSegmentFindPosition(opened.header,
								  block_bytes(segment, &opened.header->map),
								  read->first, &block);
	if (wrong != NULL)
		report_damaged(segment->segment, wrong);
	if (block < 0)
		return false;
	rows = decode_block(&opened, block, block_bytes(segment, &opened.blocks[block]));
	for (uint32 i = 0; i < opened.blocks[block].nrows; i++)
		if (rows[i].position == read->first)
		{
			read->rows = palloc(sizeof(EsSegmentRow *));
			read->rows[0] = &rows[i];
			read->nrows = 1;
			return true;
		}
	report_damaged(segment->segment, "an event is not in its block");
	return false;
}

/*
 * Is a single event enough?  Who fetches a second one from the same segment,
 * one after the other, is likely to want more.
 */
static bool
is_first_fetch(const EsArchiveSegment *segment)
{
	static int64 last_fetched = 0;
	bool		first = last_fetched != segment->segment;

	last_fetched = segment->segment;
	return first && (cached == NULL || cached->segment != segment->segment ||
					 !same_content(cached->content, segment->content));
}

/* The next segment along the log; false at the end. */
static bool
next_log_piece(EsArchiveRead *read)
{
	bool		forward = ScanDirectionIsForward(read->direction);
	EsArchiveSegment segment;

	if (read->next_position < read->first || read->next_position > read->last)
		return false;
	if (!EsArchiveFindByPosition(read->next_position, read->snapshot, &segment) ||
		(forward && segment.last_position < read->next_position))
		if (!forward || !find_behind(read->next_position, read->snapshot, &segment) ||
			segment.first_position > read->last)
			return false;
	if (segment.last_position < read->first)
		return false;
	if (ES_BUG == 86 && segment.content == NULL)
		return false;
	read->next_position = forward ? segment.last_position + 1 : segment.first_position - 1;
	if (read->first == read->last && is_first_fetch(&segment))
		return read_single(read, &segment);
	MemoryContextSwitchTo(read->context);	/* it may outlive the piece */
	use_whole(read, take_whole(&segment));
	MemoryContextSwitchTo(read->piece_context);
	return true;
}

/* ----- along a stream ----- */

/* Is the stream's name before, at or behind that of the block's first row? */
static int
compare_with_block(const text *stream_id, const Opened *opened, int block)
{
	const EsSegmentBlock *b = &opened->blocks[block];
	Size		len = VARSIZE_ANY_EXHDR(stream_id);
	int			order = memcmp(VARDATA_ANY(stream_id),
							   (const char *) opened->header + b->name,
							   Min(len, b->name_len));

	return order != 0 ? order : (len > b->name_len) - (len < b->name_len);
}

/* The first block whose first row is not before the stream's beginning. */
static int
first_block_at(const text *stream_id, const Opened *opened)
{
	int			low = 0;
	int			high = opened->header->nblocks;

	while (low < high)
	{
		int			middle = low + (high - low) / 2;

		if (compare_with_block(stream_id, opened, middle) > 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Which blocks may have the wanted versions of the stream: from … end - 1. */
static void
stream_blocks(const EsArchiveRead *read, const Opened *opened, int *from, int *end)
{
	int			nblocks = opened->header->nblocks;
	int			at = first_block_at(read->stream_id, opened);

	*from = Max(at - 1, 0);
	*end = at;
	while (*end < nblocks && compare_with_block(read->stream_id, opened, *end) == 0)
	{
		if (opened->blocks[*end].first_version <= read->first)
			*from = *end;
		if (opened->blocks[*end].first_version > read->last)
			break;
		(*end)++;
	}
}

static bool
is_of_stream(const EsSegmentRow *row, const text *stream_id)
{
	const struct varlena *name = row->texts[ES_SEGMENT_STREAM];

	return VARSIZE_ANY_EXHDR(name) == VARSIZE_ANY_EXHDR(stream_id) &&
		memcmp(VARDATA_ANY(name), VARDATA_ANY(stream_id), VARSIZE_ANY_EXHDR(name)) == 0;
}

/* The wanted rows of a block, in the walk's direction. */
static void
use_block(EsArchiveRead *read, int block)
{
	EsSegmentRow *rows = decode_block(&read->opened, block,
									  block_bytes(&read->opened.segment,
												  &read->opened.blocks[block]));
	int			nrows = read->opened.blocks[block].nrows;

	read->rows = palloc(Max(nrows, 1) * sizeof(EsSegmentRow *));
	read->nrows = 0;
	for (int i = 0; i < nrows; i++)
		if (rows[i].version >= read->first && rows[i].version <= read->last &&
			is_of_stream(&rows[i], read->stream_id))
			read->rows[read->nrows++] = &rows[i];
}

/*
 * The first version that a segment has of the stream; false if it has none
 * and was named because of another's hash.
 */
static bool
first_in_segment(EsArchiveRead *read, int64 number, int64 *first)
{
	EsArchiveRead whole = *read;
	EsArchiveSegment segment;
	int			from;
	int			end;

	if (!EsArchiveFindSegment(number, read->snapshot, &segment))
		report_damaged(number, "there is nothing: the segment is missing");
	open_segment(&segment, &whole.opened);
	whole.first = PG_INT64_MIN;
	whole.last = PG_INT64_MAX;
	stream_blocks(&whole, &whole.opened, &from, &end);
	for (int block = from; block < end; block++)
	{
		use_block(&whole, block);
		if (whole.nrows == 0)
			continue;
		*first = whole.rows[0]->version;
		return true;
	}
	return false;
}

/*
 * Leave out the segments at the beginning that end before the first version
 * wanted, by halving: all but the last that begins at or before it.
 */
static void
skip_segments(EsArchiveRead *read)
{
	int			low = 0;
	int			high = read->nsegments;

	if (read->first <= 1)
		return;
	while (low < high)
	{
		int			middle = low + (high - low) / 2;
		int64		first;

		CHECK_FOR_INTERRUPTS();
		if (!first_in_segment(read, read->segments[middle], &first))
		{
			memmove(&read->segments[middle], &read->segments[middle + 1],
					(read->nsegments - middle - 1) * sizeof(int64));
			read->nsegments--;
			high--;
		}
		else if (first <= read->first)
			low = middle + 1;
		else
			high = middle;
		MemoryContextReset(read->piece_context);
	}
	if (low > 0)
	{
		read->segments += low - 1;
		read->nsegments -= low - 1;
	}
}

/* Open the next segment that may have the stream; false at the end. */
static bool
next_segment(EsArchiveRead *read)
{
	bool		forward = ScanDirectionIsForward(read->direction);
	EsArchiveSegment segment;
	int64		number;
	int			from;
	int			end;

	if (read->nsegments == 0)
		return false;
	number = forward ? *read->segments++ : read->segments[read->nsegments - 1];
	read->nsegments--;
	if (!EsArchiveFindSegment(number, read->snapshot, &segment))
		report_damaged(number, "there is nothing: the segment is missing");
	open_segment(&segment, &read->opened);
	stream_blocks(read, &read->opened, &from, &end);
	read->block = forward ? from : end - 1;
	read->end_block = forward ? end : from - 1;
	return true;
}

/* The next block that may have events of the stream; false at the end. */
static bool
next_stream_piece(EsArchiveRead *read)
{
	while (read->block == read->end_block)
	{
		MemoryContextReset(read->piece_context);
		if (!next_segment(read))
			return false;
	}
	use_block(read, read->block);
	read->block += ScanDirectionIsForward(read->direction) ? 1 : -1;
	return true;
}

/* ----- walks ----- */

static EsArchiveRead *
begin_read(TupleDesc desc, Snapshot snapshot, int64 first, int64 last,
		   ScanDirection direction)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "eventstore archive read",
												  ALLOCSET_DEFAULT_SIZES);
	EsArchiveRead *read = MemoryContextAllocZero(context, sizeof(EsArchiveRead));

	Assert(IsMVCCSnapshot(snapshot));
	read->context = context;
	read->piece_context = AllocSetContextCreate(context, "eventstore archive piece",
												ALLOCSET_DEFAULT_SIZES);
	read->snapshot = snapshot;
	read->direction = direction;
	read->slot = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
	read->first = first;
	read->last = last;
	return read;
}

/*
 * Begin to walk the archived events from position first to last, inclusive.
 * The snapshot is an MVCC one, and stays until EsArchiveReadEnd.  The slots
 * are of this descriptor, es_event's.
 */
EsArchiveRead *
EsArchiveReadPositions(TupleDesc desc, Snapshot snapshot, int64 first,
					   int64 last, ScanDirection direction)
{
	EsArchiveRead *read = begin_read(desc, snapshot, first, last, direction);

	read->next_position = ScanDirectionIsForward(direction) ? first : last;
	return read;
}

/* The same for the versions first to last of a stream. */
EsArchiveRead *
EsArchiveReadStream(TupleDesc desc, Snapshot snapshot, const text *stream_id,
					int64 first, int64 last, ScanDirection direction)
{
	EsArchiveRead *read = begin_read(desc, snapshot, first, last, direction);
	MemoryContext saved = MemoryContextSwitchTo(read->context);

	read->stream_id = (text *) PG_DETOAST_DATUM_COPY(PointerGetDatum(stream_id));
	if (!EsArchiveIsEmpty())
		read->nsegments = EsKeyFind(ES_KEY_STREAM,
									EsKeyHash(VARDATA_ANY(read->stream_id),
											  VARSIZE_ANY_EXHDR(read->stream_id)),
									NULL, snapshot, &read->segments);
	MemoryContextSwitchTo(read->piece_context);
	if (ScanDirectionIsForward(direction))
		skip_segments(read);
	MemoryContextSwitchTo(saved);
	return read;
}

/* Done with the current piece. */
static void
drop_piece(EsArchiveRead *read)
{
	ExecClearTuple(read->slot);
	if (read->whole != NULL)
		release_whole(read->whole);
	read->whole = NULL;
	read->nrows = read->next = 0;
	if (read->stream_id == NULL)
		MemoryContextReset(read->piece_context);
}

/* Go to the next piece that has rows; false at the end. */
static bool
next_piece(EsArchiveRead *read)
{
	MemoryContext saved;
	bool		found = true;

	while (!read->done && found && read->next == read->nrows)
	{
		CHECK_FOR_INTERRUPTS();
		drop_piece(read);
		saved = MemoryContextSwitchTo(read->piece_context);
		found = read->stream_id == NULL ? next_log_piece(read) : next_stream_piece(read);
		MemoryContextSwitchTo(saved);
	}
	read->done = !found;
	return found;
}

/* Columns that users added since are what they are for rows of before. */
static void
fill_added_columns(TupleTableSlot *slot)
{
	TupleDesc	desc = slot->tts_tupleDescriptor;

	for (int i = ES_EVENT_NATTS; i < desc->natts; i++)
		slot->tts_values[i] = getmissingattr(desc, i + 1, &slot->tts_isnull[i]);
}

/* The row into a virtual slot of es_event's columns; points into the row. */
void
EsArchiveSetSlot(TupleTableSlot *slot, const EsSegmentRow *row)
{
	Datum	   *values = slot->tts_values;
	bool	   *nulls = slot->tts_isnull;

	ExecClearTuple(slot);
	memset(nulls, false, ES_EVENT_NATTS * sizeof(bool));
	values[ES_EVENT_POSITION - 1] = Int64GetDatum(row->position);
	values[ES_EVENT_VERSION - 1] = Int64GetDatum(row->version);
	values[ES_EVENT_RECORDED_AT - 1] = TimestampTzGetDatum(row->recorded_at);
	values[ES_EVENT_EVENT_ID - 1] = UUIDPGetDatum(&row->event_id);
	values[ES_EVENT_TYPE_VERSION - 1] = Int32GetDatum(row->type_version);
	for (int i = 0; i < ES_SEGMENT_TEXTS; i++)
	{
		values[ES_EVENT_STREAM_ID - 1 + i] = PointerGetDatum(row->texts[i]);
		nulls[ES_EVENT_STREAM_ID - 1 + i] = row->texts[i] == NULL;
	}
	if (slot->tts_tupleDescriptor->natts > ES_EVENT_NATTS)
		fill_added_columns(slot);
	ExecStoreVirtualTuple(slot);
}

/*
 * The next event, or NULL at the end.  The slot is the walk's and is good
 * until the next call.
 */
TupleTableSlot *
EsArchiveReadNext(EsArchiveRead *read)
{
	int			row;

	if (read->next == read->nrows && !next_piece(read))
		return NULL;
	row = ScanDirectionIsForward(read->direction) ? read->next :
		read->nrows - 1 - read->next;
	read->next++;
	EsArchiveSetSlot(read->slot, read->rows[row]);
	return read->slot;
}

void
EsArchiveReadEnd(EsArchiveRead *read)
{
	drop_piece(read);
	ExecDropSingleTupleTableSlot(read->slot);
	MemoryContextDelete(read->context);
}

/* ----- names ----- */

/* Visit the streams of a segment from a name on. */
static void
visit_segment(const EsArchiveSegment *segment, const text *from,
			  EsArchiveStreamVisitor visit, void *arg)
{
	Opened		opened;
	const EsSegmentRow *before = NULL;
	int			block;

	open_segment(segment, &opened);
	block = from == NULL ? 0 : first_block_at(from, &opened) - 1;
	for (block = Max(block, 0); block < (int) opened.header->nblocks; block++)
	{
		EsSegmentRow *rows = decode_block(&opened, block,
										  block_bytes(segment, &opened.blocks[block]));

		for (uint32 i = 0; i < opened.blocks[block].nrows; i++)
		{
			if (before != NULL &&
				is_of_stream(before, (const text *) rows[i].texts[ES_SEGMENT_STREAM]))
				continue;
			before = &rows[i];
			if (!visit(before, segment->segment, arg))
				return;
		}
	}
}

/*
 * Visit the streams of each segment, by name from about that one on (NULL:
 * all): a stream that is in several is visited as often, first the first.
 */
void
EsArchiveVisitStreams(Snapshot snapshot, const text *from,
					  EsArchiveStreamVisitor visit, void *arg)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "eventstore archive streams",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext saved = MemoryContextSwitchTo(context);
	EsArchiveSegment segment;

	for (int64 last = 0; EsArchiveNextSegment(last, snapshot, &segment);)
	{
		last = segment.segment;
		visit_segment(&segment, from, visit, arg);
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(saved);
	MemoryContextDelete(context);
}

/* ----- ids ----- */

/* Put a copy of a row into a slot that may be of any kind. */
static void
copy_row(const EsSegmentRow *row, TupleTableSlot *slot)
{
	TupleTableSlot *virtual = MakeSingleTupleTableSlot(slot->tts_tupleDescriptor,
													   &TTSOpsVirtual);

	EsArchiveSetSlot(virtual, row);
	ExecForceStoreHeapTuple(ExecCopySlotHeapTuple(virtual), slot, true);
	ExecDropSingleTupleTableSlot(virtual);
}

static bool
find_in_whole(const Whole *whole, const pg_uuid_t *id, TupleTableSlot *slot)
{
	for (int i = 0; i < whole->nrows; i++)
		if (memcmp(whole->rows[i]->event_id.data, id->data, UUID_LEN) == 0)
		{
			if (slot != NULL)
				copy_row(whole->rows[i], slot);
			return true;
		}
	return false;
}

/*
 * Is there an archived event with this id, in a segment of a greater number
 * than that?  If so it is copied into the slot, unless that is NULL.
 */
bool
EsArchiveFindId(const pg_uuid_t *id, int64 after_segment, Snapshot snapshot,
				TupleTableSlot *slot)
{
	int64	   *segments;
	int			n;
	bool		found = false;

	if (EsArchiveIsEmpty())
		return false;
	n = EsKeyFind(ES_KEY_ID, EsKeyHash(id->data, UUID_LEN), id, snapshot, &segments);
	while (!found && --n >= 0 && segments[n] > after_segment)
	{
		EsArchiveSegment segment;
		Whole	   *whole;

		if (!EsArchiveFindSegment(segments[n], snapshot, &segment))
			report_damaged(segments[n], "there is nothing: the segment is missing");
		whole = take_whole(&segment);
		found = find_in_whole(whole, id, slot);
		release_whole(whole);
	}
	pfree(segments);
	return found;
}
