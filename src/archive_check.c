/*
 * archive_check.c: prove the archive's invariants.
 *
 * Each segment is read to its last byte and compared with its row: positions,
 * times, number of events, and the digest that was taken when they were moved.
 * What has to hold across segments, and across the border to es_event, is
 * sorted with the server's own means: the stretches of each stream by name and
 * version, the ids.  check.c walks es_event in the same orders and takes them
 * in on its way.
 */
#include "postgres.h"

#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "common/sha2.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplesort.h"
#include "utils/typcache.h"

#include "archive.h"
#include "archive_check.h"
#include "archive_key.h"
#include "compat.h"
#include "export.h"

#define GROUP_NATTS 7

/* What the index of keys should say. */
typedef struct KeySums
{
	int64		streams;
	uint64		stream_sum;
	int64		ids;
	uint64		id_sum;
} KeySums;

static void problem(EsArchiveCheck *check, const char *format,...) pg_attribute_printf(2, 3);

/* Note something wrong; the first in words. */
static void
problem(EsArchiveCheck *check, const char *format,...)
{
	char		detail[512];
	va_list		args;

	if (check->problems++ > 0)
		return;
	va_start(args, format);
	vsnprintf(detail, sizeof(detail), format, args);
	va_end(args);
	check->first_problem = pstrdup(detail);
}

/* A sort of rows by their first one or two columns. */
static Tuplesortstate *
begin_sort(TupleDesc desc, int nkeys, Oid *types)
{
	AttrNumber	columns[] = {1, 2};
	Oid			operators[2];
	Oid			collations[] = {C_COLLATION_OID, C_COLLATION_OID};
	bool		nulls_first[] = {false, false};

	for (int i = 0; i < nkeys; i++)
		operators[i] = lookup_type_cache(types[i], TYPECACHE_LT_OPR)->lt_opr;
	return tuplesort_begin_heap(desc, nkeys, columns, operators, collations,
								nulls_first, work_mem, NULL, TUPLESORT_NONE);
}

static EsArchiveCheck *
make_check(void)
{
	static const Oid group_types[GROUP_NATTS] = {
		TEXTOID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID
	};
	Oid			keys[] = {TEXTOID, INT8OID};
	Oid			id_keys[] = {UUIDOID};
	EsArchiveCheck *check = palloc0(sizeof(EsArchiveCheck));
	TupleDesc	groups = CreateTemplateTupleDesc(GROUP_NATTS);
	TupleDesc	ids = CreateTemplateTupleDesc(1);

	for (int i = 0; i < GROUP_NATTS; i++)
		TupleDescInitEntry(groups, i + 1, "column", group_types[i], -1, 0);
	TupleDescInitEntry(ids, 1, "id", UUIDOID, -1, 0);
	check->groups = begin_sort(groups, 2, keys);
	check->group_slot = MakeSingleTupleTableSlot(groups, &TTSOpsMinimalTuple);
	check->ids = begin_sort(ids, 1, id_keys);
	check->id_slot = MakeSingleTupleTableSlot(ids, &TTSOpsMinimalTuple);
	return check;
}

/* ----- one segment ----- */

static void
put_group(EsArchiveCheck *check, TupleTableSlot *slot, EsSegmentRow *const *rows, int n)
{
	Datum	   *values = slot->tts_values;

	ExecClearTuple(slot);
	memset(slot->tts_isnull, false, GROUP_NATTS * sizeof(bool));
	values[0] = PointerGetDatum(rows[0]->texts[ES_SEGMENT_STREAM]);
	values[1] = Int64GetDatum(rows[0]->version);
	values[2] = Int64GetDatum(rows[n - 1]->version);
	values[3] = Int64GetDatum(rows[0]->position);
	values[4] = Int64GetDatum(rows[n - 1]->position);
	values[5] = Int64GetDatum(rows[0]->recorded_at);
	values[6] = Int64GetDatum(rows[n - 1]->recorded_at);
	ExecStoreVirtualTuple(slot);
	tuplesort_puttupleslot(check->groups, slot);
}

static int
compare_rows(const void *a, const void *b)
{
	return EsSegmentRowCompare(*(EsSegmentRow *const *) a, *(EsSegmentRow *const *) b);
}

/* Does this row continue the stretch of the one before? */
static bool
continues(const EsSegmentRow *before, const EsSegmentRow *row)
{
	return VARSIZE(before->texts[ES_SEGMENT_STREAM]) == VARSIZE(row->texts[ES_SEGMENT_STREAM]) &&
		memcmp(before->texts[ES_SEGMENT_STREAM], row->texts[ES_SEGMENT_STREAM],
			   VARSIZE(row->texts[ES_SEGMENT_STREAM])) == 0 &&
		row->version == before->version + 1 && row->position > before->position &&
		row->recorded_at >= before->recorded_at;
}

/* Hand the stretches of streams to the sort; changes the order of the rows. */
static void
sort_groups(EsArchiveCheck *check, EsSegmentRow **rows, int n)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(check->group_slot->tts_tupleDescriptor,
													&TTSOpsVirtual);

	qsort(rows, n, sizeof(EsSegmentRow *), compare_rows);
	for (int i = 0, run; i < n; i += run)
	{
		for (run = 1; i + run < n && continues(rows[i + run - 1], rows[i + run]);)
			run++;
		put_group(check, slot, rows + i, run);
	}
	ExecDropSingleTupleTableSlot(slot);
}

static int
compare_hashes(const void *a, const void *b)
{
	uint32		left = *(const uint32 *) a;
	uint32		right = *(const uint32 *) b;

	return (left > right) - (left < right);
}

static void
sum_hashes(uint32 *hashes, int n, int64 segment, int64 *entries, uint64 *sum)
{
	qsort(hashes, n, sizeof(uint32), compare_hashes);
	for (int i = 0; i < n; i++)
		if (i == 0 || hashes[i] != hashes[i - 1])
		{
			(*entries)++;
			*sum += EsKeyEntryHash(hashes[i], segment);
		}
}

/* Add what the index of keys should say of the segment. */
static void
sum_keys(EsSegmentRow *const *rows, int n, int64 segment, KeySums *sums)
{
	uint32	   *hashes = palloc(Max(n, 1) * sizeof(uint32));

	for (int i = 0; i < n; i++)
		hashes[i] = EsKeyHash(VARDATA_ANY(rows[i]->texts[ES_SEGMENT_STREAM]),
							  VARSIZE_ANY_EXHDR(rows[i]->texts[ES_SEGMENT_STREAM]));
	sum_hashes(hashes, n, segment, &sums->streams, &sums->stream_sum);
	for (int i = 0; i < n; i++)
		hashes[i] = EsKeyHash(rows[i]->event_id.data, UUID_LEN);
	sum_hashes(hashes, n, segment, &sums->ids, &sums->id_sum);
	pfree(hashes);
}

static void
sort_ids(EsArchiveCheck *check, EsSegmentRow *const *rows, int n)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(check->id_slot->tts_tupleDescriptor,
													&TTSOpsVirtual);

	for (int i = 0; i < n; i++)
	{
		ExecClearTuple(slot);
		slot->tts_values[0] = UUIDPGetDatum(&rows[i]->event_id);
		slot->tts_isnull[0] = false;
		ExecStoreVirtualTuple(slot);
		tuplesort_puttupleslot(check->ids, slot);
	}
	ExecDropSingleTupleTableSlot(slot);
}

/* The row of the segment says what is in it. */
static void
compare_with_row(EsArchiveCheck *check, const EsArchiveSegment *segment,
				 EsSegmentRow *const *rows, int n)
{
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	EsSegmentRow *copy = palloc(Max(n, 1) * sizeof(EsSegmentRow));

	for (int i = 0; i < n; i++)
		copy[i] = *rows[i];
	EsExportDigest(copy, n, digest);
	pfree(copy);
	if (n == 0 || n != segment->events ||
		rows[0]->position != segment->first_position ||
		rows[n - 1]->position != segment->last_position ||
		rows[0]->recorded_at != segment->first_recorded_at ||
		rows[n - 1]->recorded_at != segment->last_recorded_at)
		problem(check, "segment " INT64_FORMAT " is not as its row says", segment->segment);
	else if (memcmp(digest, segment->digest, sizeof(digest)) != 0)
		problem(check, "the events of segment " INT64_FORMAT " are not those that were archived",
				segment->segment);
}

static void
check_segment(EsArchiveCheck *check, Relation event, const EsArchiveSegment *segment,
			  KeySums *sums, EsArchiveVisitor visit, void *arg)
{
	EsSegmentRow **rows;
	const char *wrong;
	TupleTableSlot *slot;
	int			n;

	if (segment->content == NULL)
	{
		problem(check, "segment " INT64_FORMAT " is off-line: its events cannot be checked",
				segment->segment);
		return;
	}
	wrong = EsArchiveTryDecode(segment, true, &rows, &n);
	if (wrong != NULL)
	{
		problem(check, "segment " INT64_FORMAT ": %s", segment->segment, wrong);
		return;
	}
	compare_with_row(check, segment, rows, n);
	slot = MakeSingleTupleTableSlot(RelationGetDescr(event), &TTSOpsVirtual);
	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		EsArchiveSetSlot(slot, rows[i]);
		if (!visit(slot, arg))
		{
			check->unfinished = true;
			break;
		}
	}
	ExecDropSingleTupleTableSlot(slot);
	if (check->unfinished)
		return;
	sum_keys(rows, n, segment->segment, sums);
	sort_ids(check, rows, n);
	sort_groups(check, rows, n);
	check->events += n;
}

/* ----- all of them ----- */

static void
check_keys(EsArchiveCheck *check, Snapshot snapshot, const KeySums *sums)
{
	KeySums		found;

	EsKeySum(ES_KEY_STREAM, snapshot, &found.streams, &found.stream_sum);
	EsKeySum(ES_KEY_ID, snapshot, &found.ids, &found.id_sum);
	if (found.streams != sums->streams || found.stream_sum != sums->stream_sum ||
		found.ids != sums->ids || found.id_sum != sums->id_sum)
		problem(check, "es_archive_key does not say where the events are");
}

/* The segments follow one another without a hole. */
static void
check_place(EsArchiveCheck *check, const EsArchiveSegment *segment)
{
	if (segment->segment != check->segments + 1)
		problem(check, "segment " INT64_FORMAT " is missing", check->segments + 1);
	if (segment->first_position <= check->last_position ||
		segment->last_position < segment->first_position)
		problem(check, "segment " INT64_FORMAT " is not behind the one before",
				segment->segment);
	if (check->first_position == 0)
		check->first_position = segment->first_position;
	check->last_position = segment->last_position;
	check->segments = segment->segment;
}

/*
 * Read the whole archive as the snapshot sees it, calling visit for each
 * event.  Afterwards the stretches and the ids can be taken in order, unless
 * it was left unfinished.
 */
EsArchiveCheck *
EsArchiveCheckWalk(Relation event, Snapshot snapshot, EsArchiveVisitor visit, void *arg)
{
	EsArchiveCheck *check = make_check();
	MemoryContext per_segment = AllocSetContextCreate(CurrentMemoryContext,
													  "eventstore archive check",
													  ALLOCSET_DEFAULT_SIZES);
	EsArchiveSegment segment;
	KeySums		sums = {0};
	bool		complete = true;

	while (!check->unfinished &&
		   EsArchiveNextSegment(check->segments, snapshot, &segment))
	{
		MemoryContext saved = MemoryContextSwitchTo(per_segment);
		int64		problems = check->problems;

		check_place(check, &segment);
		check_segment(check, event, &segment, &sums, visit, arg);
		MemoryContextSwitchTo(saved);
		if (check->problems > 0 && problems == 0)
			check->first_problem = pstrdup(check->first_problem);
		complete &= segment.content != NULL;
		MemoryContextReset(per_segment);
	}
	MemoryContextDelete(per_segment);
	if (complete && !check->unfinished)
		check_keys(check, snapshot, &sums);
	tuplesort_performsort(check->groups);
	tuplesort_performsort(check->ids);
	return check;
}

/*
 * The next stretch, in the order of streams and versions, if its stream comes
 * not behind that one (NULL: whichever) into check->group.
 */
bool
EsArchiveCheckNextGroup(EsArchiveCheck *check, const text *up_to)
{
	EsArchiveGroup *group = &check->group;

	if (!check->group_held)
	{
		Datum	   *values = check->group_slot->tts_values;

		if (!tuplesort_gettupleslot(check->groups, true, false, check->group_slot, NULL))
			return false;
		slot_getallattrs(check->group_slot);
		group->stream_id = DatumGetTextPP(values[0]);
		group->first_version = DatumGetInt64(values[1]);
		group->last_version = DatumGetInt64(values[2]);
		group->first_position = DatumGetInt64(values[3]);
		group->last_position = DatumGetInt64(values[4]);
		group->first_at = DatumGetInt64(values[5]);
		group->last_at = DatumGetInt64(values[6]);
	}
	check->group_held = up_to != NULL &&
		DatumGetInt32(DirectFunctionCall2Coll(bttextcmp, C_COLLATION_OID,
											  PointerGetDatum(group->stream_id),
											  PointerGetDatum(up_to))) > 0;
	return !check->group_held;
}

/* Take in an id of es_event, in their order; NULL at the end. */
void
EsArchiveCheckId(EsArchiveCheck *check, const pg_uuid_t *id)
{
	for (;;)
	{
		int			order;

		if (!check->id_held)
		{
			bool		isnull;

			if (!tuplesort_gettupleslot(check->ids, true, false, check->id_slot, NULL))
				return;
			check->id = *DatumGetUUIDP(slot_getattr(check->id_slot, 1, &isnull));
			check->id_held = true;
			if (check->has_last_id &&
				memcmp(check->id.data, check->last_id.data, UUID_LEN) == 0)
				problem(check, "an event id is archived twice");
			check->last_id = check->id;
			check->has_last_id = true;
		}
		order = id == NULL ? -1 : memcmp(check->id.data, id->data, UUID_LEN);
		if (order > 0)
			return;
		check->id_held = false;
		if (order == 0)
			problem(check, "an event id is archived, and is in es_event, too");
	}
}

void
EsArchiveCheckEnd(EsArchiveCheck *check)
{
	tuplesort_end(check->groups);
	tuplesort_end(check->ids);
	ExecDropSingleTupleTableSlot(check->group_slot);
	ExecDropSingleTupleTableSlot(check->id_slot);
}
