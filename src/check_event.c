/*
 * check_event.c: do the events keep the store's promises?
 *
 * Everything is counted under one snapshot.  The heap is walked once; then
 * each index is walked in its own order and must lead to exactly the same
 * rows.  The walk along (stream_id, version) proves the version runs, the one
 * along the position proves the order, with nothing to sort and nothing to
 * remember but the row before.
 *
 * A walk that runs out of time ends where it is.  What it found wrong by then
 * is wrong all the same; what it would have proved is reported as unfinished.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "archive.h"
#include "archive_check.h"
#include "check.h"
#include "compat.h"
#include "log.h"
#include "scan.h"
#include "stat.h"
#include "stream.h"
#include "tag.h"

/* A set of rows, summed up so that two walks can be compared. */
typedef struct RowSet
{
	int64		count;
	uint64		sum;			/* of the hashes of the rows' addresses */
} RowSet;

/* What the walk along the streams remembers of the event before. */
typedef struct StreamWalk
{
	StringInfoData stream_id;
	int64		version;
	int64		position;
	TimestampTz recorded_at;
	int64		streams;
} StreamWalk;

static void
add_row(RowSet *set, ItemPointer tid)
{
	uint64		address = ((uint64) ItemPointerGetBlockNumber(tid) << 16) |
		ItemPointerGetOffsetNumber(tid);

	set->count++;
	set->sum += hash_bytes_extended((const unsigned char *) &address,
									sizeof(address), 0);
}

static bool
same_rows(RowSet a, RowSet b)
{
	return a.count == b.count && a.sum == b.sum;
}

static bool
is_well_formed(TupleTableSlot *slot)
{
	bool		isnull;
	text	   *stream_id = DatumGetTextPP(slot_getattr(slot, ES_EVENT_STREAM_ID, &isnull));
	text	   *event_type = DatumGetTextPP(slot_getattr(slot, ES_EVENT_EVENT_TYPE, &isnull));
	Datum		metadata = slot_getattr(slot, ES_EVENT_METADATA, &isnull);

	return EsNameIsValid(stream_id, ES_MAX_STREAM_ID) &&
		EsNameIsValid(event_type, ES_MAX_EVENT_TYPE) &&
		(isnull || JB_ROOT_IS_OBJECT(DatumGetJsonbP(metadata)));
}

/* Add a tag of an event to a set, or take it away again (times = -1). */
static void
add_tag(RowSet *set, Datum tag, int64 position, Datum event_type, int times)
{
	text	   *name = DatumGetTextPP(tag);
	text	   *type = DatumGetTextPP(event_type);
	uint64		hash = hash_bytes_extended((const unsigned char *) VARDATA_ANY(name),
										   VARSIZE_ANY_EXHDR(name), (uint64) position);

	hash = hash_bytes_extended((const unsigned char *) VARDATA_ANY(type),
							   VARSIZE_ANY_EXHDR(type), hash);
	set->count += times;
	set->sum += times * hash;
}

static void
add_tags(RowSet *set, Datum tags, bool isnull, TupleTableSlot *event, int times)
{
	Datum	   *elements;
	int			n = EsTagsDeconstruct(isnull ? NULL : DatumGetArrayTypeP(tags), &elements);
	int64		position = DatumGetInt64(slot_getattr(event, ES_EVENT_POSITION, &isnull));
	Datum		type = slot_getattr(event, ES_EVENT_EVENT_TYPE, &isnull);

	for (int i = 0; i < n; i++)
		add_tag(set, elements[i], position, type, times);
}

/* What is asked of each event by itself, archived or not. */
typedef struct ContentFindings
{
	int64		malformed;
	RowSet		tags;			/* that the events were appended with */
} ContentFindings;

static void
visit_content(TupleTableSlot *slot, void *state)
{
	ContentFindings *found = state;
	bool		isnull;
	Datum		tags = slot_getattr(slot, ES_EVENT_TAGS, &isnull);

	if (!is_well_formed(slot))
		found->malformed++;
	add_tags(&found->tags, tags, isnull, slot, 1);
}

/*
 * Walk the heap; count rows whose names or metadata no append lets through,
 * and collect the tags that the events were appended with.
 */
static RowSet
walk_heap(EsCheck *check, ContentFindings *found)
{
	TableScanDesc scan = table_beginscan(check->event, check->snapshot, 0, NULL);
	TupleTableSlot *slot = table_slot_create(check->event, NULL);
	RowSet		set = {0, 0};
	MemoryContext per_row = AllocSetContextCreate(CurrentMemoryContext,
												  "es_check row",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext saved = MemoryContextSwitchTo(per_row);

	while (EsCheckGoOn(check) && table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		MemoryContextReset(per_row);
		add_row(&set, &slot->tts_tid);
		visit_content(slot, found);
	}
	MemoryContextSwitchTo(saved);
	MemoryContextDelete(per_row);
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	return set;
}

static IndexScanDesc
begin_whole_index(Relation event, Relation index, Snapshot snapshot)
{
	IndexScanDesc scan = EsIndexBeginScan(event, index, snapshot, 0);

	index_rescan(scan, NULL, 0, NULL, 0);
	return scan;
}

/* Walk an index in its order, calling visit for each row it leads to. */
static RowSet
walk_index(EsCheck *check, Relation event, Oid index_oid,
		   void (*visit) (TupleTableSlot *slot, void *state), void *state)
{
	Relation	index = index_open(index_oid, AccessShareLock);
	IndexScanDesc scan = begin_whole_index(event, index, check->snapshot);
	TupleTableSlot *slot = table_slot_create(event, NULL);
	RowSet		set = {0, 0};

	while (EsCheckGoOn(check) && index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		add_row(&set, &slot->tts_tid);
		if (visit != NULL)
			visit(slot, state);
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	return set;
}

/* What the visitors found wrong, the first of each kind in words. */
typedef struct StreamFindings
{
	StreamWalk	walk;
	int64		broken_runs;
	int64		disordered;
	char	   *first_broken;
	char	   *first_disordered;
	EsArchiveCheck *archive;	/* whose stretches come before es_event's */
} StreamFindings;

/* The first event of a stretch of a stream must follow the one before. */
static void
check_follows(StreamFindings *found, const text *id, int64 version,
			  int64 position, TimestampTz at)
{
	StreamWalk *walk = &found->walk;
	int			len = VARSIZE_ANY_EXHDR(id);

	if (walk->streams == 0 || walk->stream_id.len != len ||
		memcmp(walk->stream_id.data, VARDATA_ANY(id), len) != 0)
	{
		resetStringInfo(&walk->stream_id);
		appendBinaryStringInfo(&walk->stream_id, VARDATA_ANY(id), len);
		walk->version = 0;
		walk->position = 0;
		walk->recorded_at = DT_NOBEGIN;
		walk->streams++;
	}
	if (version != walk->version + 1 && found->broken_runs++ == 0)
		found->first_broken = psprintf("stream \"%s\" goes from version " INT64_FORMAT " to " INT64_FORMAT,
									   walk->stream_id.data, walk->version, version);
	if ((position <= walk->position || at < walk->recorded_at) &&
		found->disordered++ == 0)
		found->first_disordered = psprintf("stream \"%s\" at version " INT64_FORMAT,
										   walk->stream_id.data, version);
	walk->version = version;
	walk->position = position;
	walk->recorded_at = at;
}

/* Take in what is archived of the streams up to this one, or of all (NULL). */
static void
take_archived(StreamFindings *found, const text *up_to)
{
	while (EsArchiveCheckNextGroup(found->archive, up_to))
	{
		EsArchiveGroup *group = &found->archive->group;

		check_follows(found, group->stream_id, group->first_version,
					  group->first_position, group->first_at);
		found->walk.version = group->last_version;
		found->walk.position = group->last_position;
		found->walk.recorded_at = group->last_at;
	}
}

static void
visit_stream_event(TupleTableSlot *slot, void *state)
{
	bool		isnull;
	text	   *id = DatumGetTextPP(slot_getattr(slot, ES_EVENT_STREAM_ID, &isnull));

	take_archived(state, id);
	check_follows(state, id,
				  DatumGetInt64(slot_getattr(slot, ES_EVENT_VERSION, &isnull)),
				  DatumGetInt64(slot_getattr(slot, ES_EVENT_POSITION, &isnull)),
				  DatumGetTimestampTz(slot_getattr(slot, ES_EVENT_RECORDED_AT, &isnull)));
}

static void
visit_id(TupleTableSlot *slot, void *state)
{
	bool		isnull;

	EsArchiveCheckId(state, DatumGetUUIDP(slot_getattr(slot, ES_EVENT_EVENT_ID, &isnull)));
}

/* The range of positions met, and whether they ascend. */
typedef struct PositionFindings
{
	int64		first;
	int64		last;
	bool		ascending;
} PositionFindings;

static void
visit_position(TupleTableSlot *slot, void *state)
{
	PositionFindings *found = state;
	bool		isnull;
	int64		position = DatumGetInt64(slot_getattr(slot, ES_EVENT_POSITION, &isnull));

	if (found->last == 0)
		found->first = position;
	else if (position <= found->last)
		found->ascending = false;
	found->last = position;
}

/* Replace the tags of events that es_retag changed by those they have now. */
static void
retag(EsCheck *check, RowSet *tags)
{
	Relation	rel = table_open(check->store->retagged, AccessShareLock);
	TableScanDesc scan = table_beginscan(rel, check->snapshot, 0, NULL);
	TupleTableSlot *slot = table_slot_create(rel, NULL);

	while (EsCheckGoOn(check) && table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;
		int64		position = DatumGetInt64(slot_getattr(slot, ES_RETAGGED_POSITION, &isnull));
		EsScan	   *fetch = EsScanPositions(check->event, check->snapshot, position,
											position, ForwardScanDirection);
		TupleTableSlot *event_slot = EsScanNext(fetch);

		if (event_slot != NULL)
		{
			Datum		value = slot_getattr(event_slot, ES_EVENT_TAGS, &isnull);

			add_tags(tags, value, isnull, event_slot, -1);
			value = slot_getattr(slot, ES_RETAGGED_TAGS, &isnull);
			add_tags(tags, value, isnull, event_slot, 1);
		}
		EsScanEnd(fetch);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, AccessShareLock);
}

/* The rows of es_event_tag, and what they say. */
static RowSet
walk_tags(EsCheck *check, Relation rel, RowSet *found)
{
	TableScanDesc scan = table_beginscan(rel, check->snapshot, 0, NULL);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	RowSet		rows = {0, 0};

	while (EsCheckGoOn(check) && table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;

		add_row(&rows, &slot->tts_tid);
		add_tag(found, slot_getattr(slot, ES_EVENT_TAG_TAG, &isnull),
				DatumGetInt64(slot_getattr(slot, ES_EVENT_TAG_POSITION, &isnull)),
				slot_getattr(slot, ES_EVENT_TAG_EVENT_TYPE, &isnull), 1);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	return rows;
}

/* es_event_tag says what the events say, and its index what the table says. */
static void
check_tags(EsCheck *check, RowSet wanted)
{
	const EsStore *store;
	Relation	rel = EsEventTagOpen(&store, AccessShareLock);
	RowSet		found = {0, 0};
	RowSet		rows;
	RowSet		by_index;

	EsCheckPhase(check, "tags");
	retag(check, &wanted);
	rows = walk_tags(check, rel, &found);
	by_index = walk_index(check, rel, store->tag_key, NULL, NULL);
	table_close(rel, AccessShareLock);
	if (check->late)
		EsCheckUnfinished(check, "tag agreement", rows.count, "tags");
	else
		EsCheckPut(check, "tag agreement",
				   same_rows(wanted, found) && same_rows(rows, by_index) ?
				   ES_CHECK_OK : ES_CHECK_ERROR,
				   "Restore es_event_tag from a backup, or REINDEX it if only the index differs.",
				   "tags of the events " INT64_FORMAT ", in es_event_tag " INT64_FORMAT ", by its index " INT64_FORMAT "%s",
				   wanted.count, rows.count, by_index.count,
				   wanted.count == rows.count && !same_rows(wanted, found) ? ", not the same" : "");
}

/* ----- what the walks found, in words ----- */

static const char *const lost_hint =
	"Find out who wrote around the triggers or lost rows, and restore from a backup.";

static void
report_streams(EsCheck *check, const StreamFindings *streams, RowSet walked)
{
	if (streams->broken_runs > 0)
		EsCheckPut(check, "version runs", ES_CHECK_ERROR, lost_hint,
				   "%s; " INT64_FORMAT " such places",
				   streams->first_broken, streams->broken_runs);
	else if (check->late)
		EsCheckUnfinished(check, "version runs", walked.count, "events");
	else
		EsCheckPut(check, "version runs", ES_CHECK_OK, NULL,
				   INT64_FORMAT " events in " INT64_FORMAT " streams",
				   walked.count, streams->walk.streams);
	if (streams->disordered > 0)
		EsCheckPut(check, "stream order", ES_CHECK_ERROR, lost_hint,
				   "%s is out of order; " INT64_FORMAT " such events",
				   streams->first_disordered, streams->disordered);
	else if (check->late)
		EsCheckUnfinished(check, "stream order", walked.count, "events");
	else
		EsCheckPut(check, "stream order", ES_CHECK_OK, NULL,
				   "position and time follow the version");
}

static void
report_positions(EsCheck *check, const PositionFindings *positions, RowSet walked)
{
	int64		drawn = EsLastDrawn(check->store, NULL);
	bool		sound = positions->ascending && positions->first >= 0 &&
		positions->last <= drawn;

	if (sound && check->late)
		EsCheckUnfinished(check, "positions", walked.count, "events");
	else
		EsCheckPut(check, "positions", sound ? ES_CHECK_OK : ES_CHECK_ERROR,
				   "Move the sequence es_event_position_seq to the last position of es_event.",
				   "first " INT64_FORMAT ", last " INT64_FORMAT ", last drawn " INT64_FORMAT "%s",
				   positions->first, positions->last, drawn,
				   positions->ascending ? "" : ", not ascending");
}

static void
report_agreement(EsCheck *check, RowSet heap, RowSet by_position, RowSet by_id,
				 RowSet by_stream)
{
	if (check->late)
		EsCheckUnfinished(check, "index agreement", heap.count, "events");
	else
		EsCheckPut(check, "index agreement",
				   same_rows(heap, by_stream) && same_rows(heap, by_position) &&
				   same_rows(heap, by_id) ? ES_CHECK_OK : ES_CHECK_ERROR,
				   "REINDEX TABLE es_event, and look for what damaged the index.",
				   "rows in the table " INT64_FORMAT ", by position " INT64_FORMAT ", by event id " INT64_FORMAT ", by stream " INT64_FORMAT,
				   heap.count, by_position.count, by_id.count, by_stream.count);
}

static void
report_content(EsCheck *check, int64 malformed, RowSet walked)
{
	if (malformed == 0 && check->late)
		EsCheckUnfinished(check, "content", walked.count, "events");
	else
		EsCheckPut(check, "content", malformed == 0 ? ES_CHECK_OK : ES_CHECK_ERROR,
				   lost_hint, INT64_FORMAT " malformed", malformed);
}

static void
report_archive(EsCheck *check, const EsArchiveCheck *archive)
{
	if (archive->problems > 0)
		EsCheckPut(check, "archive", ES_CHECK_ERROR,
				   "Restore the segment from a backup or from its exported file.",
				   "%s; " INT64_FORMAT " such places",
				   archive->first_problem, archive->problems);
	else
		EsCheckPut(check, "archive", ES_CHECK_OK, NULL,
				   INT64_FORMAT " events in " INT64_FORMAT " segments",
				   archive->events, archive->segments);
}

/* The walks that need to know what is archived. */
static void
check_walks(EsCheck *check, EsArchiveCheck *archive, ContentFindings *content)
{
	StreamFindings streams = {.archive = archive};
	PositionFindings positions = {archive->first_position, archive->last_position, true};
	RowSet		heap;
	RowSet		by_stream;
	RowSet		by_position;
	RowSet		by_id;

	initStringInfo(&streams.walk.stream_id);
	EsCheckPhase(check, "table");
	heap = walk_heap(check, content);
	report_content(check, content->malformed, heap);
	EsCheckPhase(check, "by stream");
	by_stream = walk_index(check, check->event, check->store->stream_key,
						   visit_stream_event, &streams);
	if (!check->late)
		take_archived(&streams, NULL);
	by_stream.count += archive->events;
	report_streams(check, &streams, by_stream);
	by_stream.count -= archive->events;
	EsCheckPhase(check, "by position");
	by_position = walk_index(check, check->event, check->store->position_key,
							 visit_position, &positions);
	report_positions(check, &positions, by_position);
	EsCheckPhase(check, "by event id");
	by_id = walk_index(check, check->event, check->store->id_key, visit_id, archive);
	if (!check->late)
		EsArchiveCheckId(archive, NULL);
	report_agreement(check, heap, by_position, by_id, by_stream);
}

/* What is done with each archived event, as long as there is time. */
typedef struct ArchiveWalk
{
	EsCheck    *check;
	ContentFindings *content;
} ArchiveWalk;

static bool
visit_archived(TupleTableSlot *slot, void *arg)
{
	ArchiveWalk *walk = arg;

	if (!EsCheckGoOn(walk->check))
		return false;
	visit_content(slot, walk->content);
	return true;
}

/*
 * The events against themselves, their indexes and their tags.  The archive
 * comes first: what is archived of a stream precedes what is in the table.
 * Where there was no time for all of it, the rest cannot be judged.
 */
void
EsCheckEvents(EsCheck *check)
{
	ContentFindings content = {0};
	ArchiveWalk walk = {check, &content};
	EsArchiveCheck *archive;

	EsCheckPhase(check, "archive");
	archive = EsArchiveCheckWalk(check->event, check->snapshot, visit_archived, &walk);
	if (archive->unfinished && archive->problems == 0)
		EsCheckUnfinished(check, "archive", archive->events, "archived events");
	else
	{
		if (!archive->unfinished)
			check_walks(check, archive, &content);
		report_archive(check, archive);
	}
	if (!archive->unfinished)
		check_tags(check, content.tags);
	EsArchiveCheckEnd(archive);
}
