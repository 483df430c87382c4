/*
 * archiver.c: move old events out of es_event.
 *
 * The only code that deletes from es_event.  It does so through the heap
 * itself, where no trigger stands, and nothing that SQL can call leads there
 * but es_archive, which has written the events to a segment in the same
 * transaction, and compared them.  One segment is one transaction: it can be
 * cancelled or crash anywhere, and goes on from what is committed.
 *
 * Archivers exclude one another by a lock, for the length of a segment.  They
 * wait for nobody else: what they move is settled, and nobody changes it.
 *
 * What es_event loses from its beginning are whole pages, so that VACUUM gives
 * them to the free space map and new events fill them.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "archive_key.h"
#include "archiver.h"
#include "catalog.h"
#include "compat.h"
#include "export.h"
#include "log.h"
#include "point.h"
#include "runner.h"
#include "scan.h"
#include "stat.h"
#include "stream.h"

#define ES_MAX_SEGMENT_EVENTS 65536
#define ES_SEGMENT_BYTES (32 * 1024 * 1024) /* before compression; a single
											 * event may be larger */

/* What to archive, and how. */
typedef struct ArchivePlan
{
	int64		last_position;	/* not behind it */
	TimestampTz before;			/* not since then */
	int			segment_events;
	EsCodec		codec;
} ArchivePlan;

/* Events on their way. */
typedef struct Load
{
	EsSegmentRow *rows;			/* in the order of positions */
	EsSegmentRow *sorted;		/* the same by stream and version */
	ItemPointerData *tids;		/* where they are, by position */
	int			n;
} Load;

PG_FUNCTION_INFO_V1(es_archive);
PG_FUNCTION_INFO_V1(es_read_archive);
PG_FUNCTION_INFO_V1(es_archived_position);

/* ----- what others of the room need ----- */

/* Keep other archivers out until the transaction ends. */
void
EsArchiverLock(void)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, 0, ES_LOCK_ARCHIVE);
	if (ES_BUG != 88)
		(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

/* The codec of this name, or the best one; 22023 and 0A000. */
EsCodec
EsArchiverCodec(const text *name)
{
	EsCodec		codec;
	char	   *wanted;

	if (name == NULL)
		return EsCodecBest();
	wanted = text_to_cstring(name);
	if (!EsCodecByName(wanted, &codec))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown codec \"%s\"", wanted),
				 errhint("Use zstd, lz4, pglz or none.")));
	if (!EsCodecIsAvailable(codec))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("this build has no codec \"%s\"", wanted),
				 errhint("Build eventstore where that library's headers are installed.")));
	return codec;
}

/* Read the row of a segment as of now; false if there is none. */
bool
EsArchiverReadRow(int64 segment, EsArchiverRow *row)
{
	Relation	rel = table_open(EsStoreGet()->archive_segment, RowExclusiveLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		found;

	ScanKeyInit(&key, ES_ARCHIVE_SEGMENT, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(segment));
	scan = systable_beginscan(rel, EsPrimaryKey(rel), true, snapshot, 1, &key);
	tuple = systable_getnext(scan);
	found = HeapTupleIsValid(tuple);
	if (found)
	{
		bytea	   *digest;

		tuple = heap_copytuple(tuple);
		heap_deform_tuple(tuple, RelationGetDescr(rel), row->values, row->nulls);
		row->tid = tuple->t_self;
		digest = DatumGetByteaPP(row->values[ES_ARCHIVE_DIGEST - 1]);
		memset(row->digest, 0, sizeof(row->digest));
		memcpy(row->digest, VARDATA_ANY(digest),
			   Min(VARSIZE_ANY_EXHDR(digest), sizeof(row->digest)));
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);	/* kept to commit */
	return found;
}

/* Put the row in the place of the one that was read. */
void
EsArchiverReplaceRow(EsArchiverRow *row)
{
	Relation	rel = table_open(EsStoreGet()->archive_segment, RowExclusiveLock);

	simple_heap_delete(rel, &row->tid);
	CommandCounterIncrement();
	table_close(rel, NoLock);
	EsRowInsert(EsStoreGet()->archive_segment, row->values, row->nulls);
	CommandCounterIncrement();
}

/* ----- whether it may be done ----- */

static void
require_own_columns(Relation event)
{
	TupleDesc	desc = RelationGetDescr(event);

	for (int i = ES_EVENT_NATTS; i < desc->natts; i++)
		if (!TupleDescAttr(desc, i)->attisdropped)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot archive events with columns of your own"),
					 errdetail("Table \"%s\" has a column \"%s\".", RelationGetRelationName(event),
							   NameStr(TupleDescAttr(desc, i)->attname)),
					 errhint("Keep such columns in a table of their own, or in the events' metadata.")));
}

static void
require_unreferenced(Relation event)
{
	TriggerDesc *triggers = event->trigdesc;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
		if (RI_FKey_trigger_type(triggers->triggers[i].tgfoid) == RI_TRIGGER_PK)
			ereport(ERROR,
					(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
					 errmsg("cannot archive events that a foreign key refers to"),
					 errdetail("A foreign key refers to table \"%s\".",
							   RelationGetRelationName(event)),
					 errhint("Drop the foreign key: events are never removed, so it proves nothing.")));
}

/* Open es_event, in the mode that deleting needs, if all is as it must be. */
static Relation
open_events(const EsStore **store)
{
	Relation	event = EsEventOpen(store, RowExclusiveLock);

	EsCheckPrivilege(event, ACL_SELECT);
	require_own_columns(event);
	require_unreferenced(event);
	if (EsFollowsOrigin(*store))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot archive a store that is replicated from another"),
				 errhint("Call es_archive() where the events are appended.")));
	return event;
}

/* ----- loading ----- */

static struct varlena *
plain_text(TupleTableSlot *slot, AttrNumber column)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, column, &isnull);

	return isnull ? NULL : PG_DETOAST_DATUM_COPY(value);
}

/* Copy an event; answers its bytes. */
static Size
load_row(TupleTableSlot *slot, EsSegmentRow *row)
{
	Size		bytes = sizeof(EsSegmentRow);

	slot_getallattrs(slot);
	row->position = DatumGetInt64(slot->tts_values[ES_EVENT_POSITION - 1]);
	row->version = DatumGetInt64(slot->tts_values[ES_EVENT_VERSION - 1]);
	row->recorded_at = DatumGetTimestampTz(slot->tts_values[ES_EVENT_RECORDED_AT - 1]);
	row->event_id = *DatumGetUUIDP(slot->tts_values[ES_EVENT_EVENT_ID - 1]);
	row->type_version = DatumGetInt32(slot->tts_values[ES_EVENT_TYPE_VERSION - 1]);
	for (int i = 0; i < ES_SEGMENT_TEXTS; i++)
	{
		row->texts[i] = plain_text(slot, ES_EVENT_STREAM_ID + i);
		bytes += row->texts[i] == NULL ? 0 : VARSIZE(row->texts[i]);
	}
	return bytes;
}

/* May this event, behind what is archived, be archived now? */
static bool
is_wanted(const ArchivePlan *plan, TupleTableSlot *slot)
{
	bool		isnull;

	return DatumGetInt64(slot_getattr(slot, ES_EVENT_POSITION, &isnull)) <= plan->last_position &&
		DatumGetTimestampTz(slot_getattr(slot, ES_EVENT_RECORDED_AT, &isnull)) < plan->before;
}

/*
 * Read the events of the next segment along the log, so that none is missing
 * and all are settled and on disk.
 */
static void
load_events(Relation event, const EsStore *store, const ArchivePlan *plan, Load *load)
{
	Snapshot	snapshot = GetActiveSnapshot();
	EsLogReader *reader = EsLogReaderBegin(event, store, snapshot,
										   EsArchiveLastPosition(snapshot));
	TupleTableSlot *slot;
	Size		bytes = 0;

	load->n = 0;
	load->rows = palloc(plan->segment_events * sizeof(EsSegmentRow));
	load->tids = palloc(plan->segment_events * sizeof(ItemPointerData));
	while (load->n < plan->segment_events && bytes < ES_SEGMENT_BYTES &&
		   (slot = EsLogReaderNext(reader)) != NULL && is_wanted(plan, slot))
	{
		bytes += load_row(slot, &load->rows[load->n]);
		load->tids[load->n++] = slot->tts_tid;
	}
	EsLogReaderEnd(reader);
	load->sorted = palloc(Max(load->n, 1) * sizeof(EsSegmentRow));
	memcpy(load->sorted, load->rows, load->n * sizeof(EsSegmentRow));
	qsort(load->sorted, load->n, sizeof(EsSegmentRow), EsSegmentRowCompare);
}

/* ----- writing ----- */

/*
 * Take the segment apart again: exactly what was put into it must be there,
 * before it is deleted elsewhere.
 */
static void
verify_content(const Load *load, EsArchiveSegment *segment)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "eventstore archive verification",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext saved = MemoryContextSwitchTo(context);
	int			n;
	EsSegmentRow **rows = EsArchiveDecodeAll(segment, &n);
	bool		same = n == load->n;

	for (int i = 0; i < n && same; i++)
	{
		const EsSegmentRow *a = rows[i];
		const EsSegmentRow *b = &load->rows[i];

		same = a->position == b->position && a->version == b->version &&
			a->recorded_at == b->recorded_at && a->type_version == b->type_version &&
			memcmp(a->event_id.data, b->event_id.data, UUID_LEN) == 0;
		for (int text = 0; text < ES_SEGMENT_TEXTS && same; text++)
			same = (a->texts[text] == NULL) == (b->texts[text] == NULL) &&
				(a->texts[text] == NULL ||
				 (VARSIZE(a->texts[text]) == VARSIZE(b->texts[text]) &&
				  memcmp(a->texts[text], b->texts[text], VARSIZE(a->texts[text])) == 0));
	}
	if (!same)
		elog(ERROR, "archive segment " INT64_FORMAT " does not hold what was put into it",
			 segment->segment);
	MemoryContextSwitchTo(saved);
	MemoryContextDelete(context);
}

static void
write_segment(const Load *load, const ArchivePlan *plan, int64 number)
{
	const EsSegmentRow *first = &load->rows[0];
	const EsSegmentRow *last = &load->rows[load->n - 1];
	Datum		values[ES_ARCHIVE_NATTS];
	bool		nulls[ES_ARCHIVE_NATTS] = {false};
	int64		raw_bytes;
	bytea	   *content = EsSegmentEncode(load->sorted, load->n, plan->codec, &raw_bytes);
	bytea	   *digest_value = palloc(VARHDRSZ + PG_SHA256_DIGEST_LENGTH);
	EsArchiveSegment segment = {number, first->position, last->position,
		first->recorded_at, last->recorded_at, load->n, (struct varlena *) content, {0}};

	verify_content(load, &segment);
	SET_VARSIZE(digest_value, VARHDRSZ + PG_SHA256_DIGEST_LENGTH);
	EsExportDigest(load->rows, load->n, (uint8 *) VARDATA(digest_value));
	values[ES_ARCHIVE_SEGMENT - 1] = Int64GetDatum(number);
	values[ES_ARCHIVE_FIRST_POSITION - 1] = Int64GetDatum(first->position);
	values[ES_ARCHIVE_LAST_POSITION - 1] = Int64GetDatum(last->position);
	values[ES_ARCHIVE_FIRST_RECORDED_AT - 1] = TimestampTzGetDatum(first->recorded_at);
	values[ES_ARCHIVE_LAST_RECORDED_AT - 1] = TimestampTzGetDatum(last->recorded_at);
	values[ES_ARCHIVE_EVENTS - 1] = Int32GetDatum(load->n);
	values[ES_ARCHIVE_RAW_BYTES - 1] = Int64GetDatum(raw_bytes);
	values[ES_ARCHIVE_STORED_BYTES - 1] = Int64GetDatum(VARSIZE(content) - VARHDRSZ);
	values[ES_ARCHIVE_FORMAT - 1] = Int32GetDatum(1);
	values[ES_ARCHIVE_CODEC - 1] = CStringGetTextDatum(EsCodecName(plan->codec));
	values[ES_ARCHIVE_DIGEST - 1] = PointerGetDatum(digest_value);
	values[ES_ARCHIVE_ARCHIVED_AT - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[ES_ARCHIVE_CONTENT - 1] = PointerGetDatum(content);
	EsRowInsert(EsStoreGet()->archive_segment, values, nulls);
	pfree(content);
}

/* The keys of the rows, which are in the order of streams. */
static void
write_keys(const Load *load, int64 segment)
{
	EsKeySet	streams = {.kind = ES_KEY_STREAM};
	EsKeySet	ids = {.kind = ES_KEY_ID,.least = load->rows[0].event_id,
	.greatest = load->rows[0].event_id};

	streams.hashes = palloc(load->n * sizeof(uint32));
	ids.hashes = palloc(load->n * sizeof(uint32));
	for (int i = 0; i < load->n; i++)
	{
		const EsSegmentRow *row = &load->rows[i];
		const struct varlena *name = row->texts[ES_SEGMENT_STREAM];

		streams.hashes[streams.n++] = EsKeyHash(VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));
		ids.hashes[ids.n++] = EsKeyHash(row->event_id.data, UUID_LEN);
		if (memcmp(row->event_id.data, ids.least.data, UUID_LEN) < 0)
			ids.least = row->event_id;
		if (memcmp(row->event_id.data, ids.greatest.data, UUID_LEN) > 0)
			ids.greatest = row->event_id;
	}
	if (ES_BUG != 85)
		EsKeyWrite(&streams, segment);
	if (ES_BUG != 81)
		EsKeyWrite(&ids, segment);
}

static void
delete_events(Relation event, Load *load)
{
	for (int i = 0; i < load->n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		simple_heap_delete(event, &load->tids[i]);
	}
}

/* Archive one segment; answers its number of events, 0 if there are none. */
static int
archive_segment(const ArchivePlan *plan)
{
	const EsStore *store;
	Relation	event;
	Load		load;
	int64		number;

	EsArchiverLock();
	event = open_events(&store);
	PushActiveSnapshot(EsLogSnapshot());	/* after the lock: it sees the last segment */
	load_events(event, store, plan, &load);
	if (load.n > 0)
	{
		number = EsArchiveLastSegment(GetActiveSnapshot()) + 1;
		write_segment(&load, plan, number);
		write_keys(&load, number);
		EsPoint("archive-written");
		delete_events(event, &load);
		CommandCounterIncrement();
		EsPoint("archive-deleted");
	}
	PopActiveSnapshot();
	table_close(event, NoLock);	/* kept to commit */
	return load.n;
}

/* ----- SQL ----- */

static ArchivePlan
plan_arguments(FunctionCallInfo fcinfo)
{
	ArchivePlan		plan = {PG_INT64_MAX, DT_NOEND, 8192, ES_CODEC_NONE};

	if (PG_ARGISNULL(0) && PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("one of the arguments \"%s\" and \"%s\" must not be null",
						"before_position", "before_time"),
				 errhint("Say up to where the log is to be archived.")));
	if (!PG_ARGISNULL(0))
		plan.last_position = Max(PG_GETARG_INT64(0), 1) - 1;
	if (!PG_ARGISNULL(1))
		plan.before = PG_GETARG_TIMESTAMPTZ(1);
	if (!PG_ARGISNULL(2))
		plan.segment_events = PG_GETARG_INT32(2);
	if (plan.segment_events < 1 || plan.segment_events > ES_MAX_SEGMENT_EVENTS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be between %d and %d", "segment_events",
						1, ES_MAX_SEGMENT_EVENTS)));
	plan.codec = EsArchiverCodec(PG_ARGISNULL(4) ? NULL : PG_GETARG_TEXT_PP(4));
	return plan;
}

/* About how many events there are to move, for who watches. */
static int64
positions_to_archive(const ArchivePlan *plan)
{
	const EsStore *store = EsStoreGet();
	int64		last = EsLastDrawn(store, NULL);
	int64		archived;

	PushActiveSnapshot(EsLogSnapshot());
	archived = EsArchiveLastPosition(GetActiveSnapshot());
	PopActiveSnapshot();
	return Max(Min(last, plan->last_position) - archived, 0);
}

/*
 * es_archive(before_position bigint, before_time timestamptz,
 *			  segment_events integer, max_segments integer, codec text)
 *	[procedure]
 */
Datum
es_archive(PG_FUNCTION_ARGS)
{
	ArchivePlan		plan;
	int			max_segments = PG_ARGISNULL(3) ? INT_MAX : PG_GETARG_INT32(3);
	MemoryContext context;
	int64		done = 0;
	int			n;

	EsRequireReadWrite("es_archive()");
	EsRequireNonatomic(fcinfo, "es_archive()");
	plan = plan_arguments(fcinfo);
	if (max_segments < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be positive", "max_segments")));
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	context = AllocSetContextCreate(CurrentMemoryContext, "eventstore archiver",
									ALLOCSET_DEFAULT_SIZES);
	do
	{
		MemoryContext saved;

		CHECK_FOR_INTERRUPTS();
		SPI_commit();
		EsRunnerBeginTransaction();
		if (done == 0)
		{
			EsProgressBegin(ES_JOB_ARCHIVE, "");
			EsProgressPhase("archiving", positions_to_archive(&plan));
		}
		saved = MemoryContextSwitchTo(context);
		n = archive_segment(&plan);
		MemoryContextSwitchTo(saved);
		MemoryContextReset(context);
		done += n;
		EsProgressUpdate(done);
	} while (n > 0 && --max_segments > 0);
	EsProgressEnd();
	SPI_finish();
	PG_RETURN_VOID();
}

/*
 * es_read_archive(from_position bigint, max_count bigint) → SETOF es_event
 */
Datum
es_read_archive(PG_FUNCTION_ARGS)
{
	const EsStore *store;
	Relation	event = EsEventOpen(&store, AccessShareLock);
	int64		from = PG_ARGISNULL(0) ? 0 : PG_GETARG_INT64(0);
	int64		max_count = PG_ARGISNULL(1) ? PG_INT64_MAX : PG_GETARG_INT64(1);
	EsArchiveRead *read;
	TupleTableSlot *slot;

	EsCheckPrivilege(event, ACL_SELECT);
	if (from < 0 || max_count < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must not be negative",
						from < 0 ? "from_position" : "max_count")));
	InitMaterializedSRF(fcinfo, 0);
	read = EsArchiveReadPositions(RelationGetDescr(event), GetActiveSnapshot(),
								  Min(from, PG_INT64_MAX - 1) + 1, PG_INT64_MAX,
								  ForwardScanDirection);
	for (int64 n = 0; n < max_count && (slot = EsArchiveReadNext(read)) != NULL; n++)
		tuplestore_puttupleslot(((ReturnSetInfo *) fcinfo->resultinfo)->setResult, slot);
	EsArchiveReadEnd(read);
	table_close(event, AccessShareLock);
	return (Datum) 0;
}

/*
 * es_archived_position() → bigint
 */
Datum
es_archived_position(PG_FUNCTION_ARGS)
{
	const EsStore *store;
	Relation	event = EsEventOpen(&store, AccessShareLock);
	int64		position;

	EsCheckPrivilege(event, ACL_SELECT);
	position = EsArchiveLastPosition(GetActiveSnapshot());
	table_close(event, AccessShareLock);
	PG_RETURN_INT64(position);
}
