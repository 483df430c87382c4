/*
 * tag.c: what events are tagged with, one row a tag, and the locks on tags.
 *
 * es_event_tag is filled by the append itself, not by its caller: in the same
 * C routine for the functions, by an AFTER trigger for INSERT and COPY (an
 * ON CONFLICT clause may have dropped the event before).  An event without
 * tags has no rows and takes no lock here.
 *
 * A row of es_event that comes with its position set brings no rows here.
 * They come as well: with the dump it is in, or through the subscription.
 * Only where a subscription feeds es_event and not es_event_tag are they
 * made from the event.
 *
 * WHO LOCKS A TAG, AND HOW.  Whoever appends an event takes each of its tags
 * in RowExclusive mode: appends that share a tag do not wait for each other.
 * Whoever must know that no event of a tag appears until it has committed
 * takes the tag in Share mode: it waits for the appends under way, and later
 * ones wait for it.  boundary.c says which tags that are.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "replication/logicalworker.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "point.h"
#include "tag.h"

/* Rows that go to the heap in one call. */
#define ES_TAG_CHUNK 64

struct EsTagWriter
{
	Relation	rel;
	Relation   *indexes;
	IndexInfo **infos;			/* of each index */
	int			nindexes;
	TupleTableSlot *slots[ES_TAG_CHUNK];
	int			nslots;			/* made so far */
	int			nrows;			/* waiting in the slots */
};

/* A row on its way from the BEFORE to the AFTER trigger. */
typedef struct ExpectedTags
{
	int64		position;		/* hash key */
	uint64		hash;			/* of its tags, as they were checked and locked */
} ExpectedTags;

/* Belongs to the transaction whose local id stands beside it. */
static HTAB *expected = NULL;
static LocalTransactionId expected_lxid = InvalidLocalTransactionId;

PG_FUNCTION_INFO_V1(es_event_tag);

/* ----- sets of tags ----- */

static int
compare_tags(const void *a, const void *b)
{
	text	   *left = DatumGetTextPP(*(const Datum *) a);
	text	   *right = DatumGetTextPP(*(const Datum *) b);
	int			llen = VARSIZE_ANY_EXHDR(left);
	int			rlen = VARSIZE_ANY_EXHDR(right);
	int			order = memcmp(VARDATA_ANY(left), VARDATA_ANY(right), Min(llen, rlen));

	return order != 0 ? order : (llen > rlen) - (llen < rlen);
}

/*
 * The tags as a sorted set.  NULL for none; 22004, 42602, 42622 for a bad
 * tag, 54000 for too many, 22023 for an array of several dimensions.
 */
ArrayType *
EsCheckTags(ArrayType *tags)
{
	Datum	   *elements;
	bool	   *nulls;
	int			n;
	int			kept = 0;

	if (tags == NULL || ARR_NDIM(tags) == 0)
		return NULL;
	if (ARR_NDIM(tags) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("tags must be a one-dimensional array")));
	deconstruct_array(tags, TEXTOID, -1, false, TYPALIGN_INT,
					  &elements, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("a tag must not be null")));
		EsCheckTag(DatumGetTextPP(elements[i]));
	}
	qsort(elements, n, sizeof(Datum), compare_tags);
	for (int i = 0; i < n; i++)
		if (i == 0 || compare_tags(&elements[i], &elements[kept - 1]) != 0)
			elements[kept++] = elements[i];
	if (kept > ES_MAX_TAGS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("too many tags"),
				 errdetail("The event has %d different tags; the limit is %d.",
						   kept, ES_MAX_TAGS)));
	return construct_array(elements, kept, TEXTOID, -1, false, TYPALIGN_INT);
}

/* The same for a JSON array of strings; 22023 for any other JSON. */
ArrayType *
EsTagsOfJson(JsonbContainer *json)
{
	JsonbIterator *it = JsonbIteratorInit(json);
	JsonbValue	value;
	ArrayBuildState *build = initArrayResult(TEXTOID, CurrentMemoryContext, false);
	bool		ok = JsonbIteratorNext(&it, &value, false) == WJB_BEGIN_ARRAY &&
		!value.val.array.rawScalar;

	while (ok && JsonbIteratorNext(&it, &value, true) == WJB_ELEM)
	{
		ok = value.type == jbvString;
		if (ok)
			accumArrayResult(build,
							 PointerGetDatum(cstring_to_text_with_len(value.val.string.val,
																	  value.val.string.len)),
							 false, TEXTOID, CurrentMemoryContext);
	}
	if (!ok)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("tags must be a JSON array of strings")));
	return EsCheckTags(DatumGetArrayTypeP(makeArrayResult(build, CurrentMemoryContext)));
}

/* The elements of a checked set, NULL being the empty one; how many. */
int
EsTagsDeconstruct(ArrayType *tags, Datum **elements)
{
	int			n;

	*elements = NULL;
	if (tags == NULL)
		return 0;
	deconstruct_array(tags, TEXTOID, -1, false, TYPALIGN_INT, elements, NULL, &n);
	return n;
}

/*
 * Write a lock key for each of the tags; answers how many.  There must be
 * room for ES_MAX_TAGS.
 */
int
EsTagsAddKeys(ArrayType *tags, LOCKMODE mode, EsLockKey *keys)
{
	Datum	   *elements;
	int			n = EsTagsDeconstruct(tags, &elements);

	for (int i = 0; i < n; i++)
		keys[i] = EsLockKeyOf(ES_LOCK_TAG, DatumGetTextPP(elements[i]), mode);
	return n;
}

/* Position of the last event with this tag, as of now; 0 without any. */
int64
EsTagLastPosition(text *tag)
{
	const EsStore *store;
	Relation	rel = EsEventTagOpen(&store, AccessShareLock);
	Relation	index = index_open(store->tag_key, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	IndexScanDesc scan = EsIndexBeginScan(rel, index, SnapshotSelf, 1);
	ScanKeyData key;
	int64		position = 0;
	bool		isnull;

	ScanKeyEntryInitialize(&key, 0, 1, BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ, PointerGetDatum(tag));
	index_rescan(scan, &key, 1, NULL, 0);
	if (index_getnext_slot(scan, BackwardScanDirection, slot))
		position = DatumGetInt64(slot_getattr(slot, ES_EVENT_TAG_POSITION, &isnull));
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, NoLock);
	table_close(rel, NoLock);
	return position;
}

/* ----- the way into the table ----- */

/* 0A000 for an index that only the executor could keep. */
static void
open_index(EsTagWriter *writer, Oid oid)
{
	Relation	index = index_open(oid, RowExclusiveLock);
	IndexInfo  *info = BuildIndexInfo(index);

	if (info->ii_Expressions != NIL || info->ii_Predicate != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("index \"%s\" on \"%s\" has expressions or a predicate",
						RelationGetRelationName(index),
						RelationGetRelationName(writer->rel)),
				 errhint("Drop the index; indexes on plain columns are kept.")));
	writer->indexes[writer->nindexes] = index;
	writer->infos[writer->nindexes++] = info;
}

/*
 * Begin to write rows, which EsTagWriterEnd puts into the table.  Checks no
 * privilege and fires no trigger: whoever may append an event may tag it.
 */
EsTagWriter *
EsTagWriterBegin(void)
{
	EsTagWriter *writer = palloc0(sizeof(EsTagWriter));
	const EsStore *store;
	List	   *oids;
	ListCell   *lc;

	writer->rel = EsEventTagOpen(&store, RowExclusiveLock);
	oids = RelationGetIndexList(writer->rel);
	writer->indexes = palloc(list_length(oids) * sizeof(Relation));
	writer->infos = palloc(list_length(oids) * sizeof(IndexInfo *));
	foreach(lc, oids)
		open_index(writer, lfirst_oid(lc));
	list_free(oids);
	return writer;
}

static void
insert_index_entries(EsTagWriter *writer, TupleTableSlot *slot)
{
	for (int i = 0; i < writer->nindexes; i++)
	{
		Datum		values[INDEX_MAX_KEYS];
		bool		nulls[INDEX_MAX_KEYS];
		Form_pg_index form = writer->indexes[i]->rd_index;

		if (!writer->infos[i]->ii_ReadyForInserts)
			continue;
		FormIndexDatum(writer->infos[i], slot, NULL, values, nulls);
		(void) index_insert(writer->indexes[i], values, nulls, &slot->tts_tid,
							writer->rel,
							form->indisunique ? UNIQUE_CHECK_YES : UNIQUE_CHECK_NO,
							false, writer->infos[i]);
	}
}

static void
flush_rows(EsTagWriter *writer)
{
	CommandId	cid = GetCurrentCommandId(true);

	if (writer->nrows == 0)
		return;
	if (writer->nrows == 1)
		table_tuple_insert(writer->rel, writer->slots[0], cid, 0, NULL);
	else
		table_multi_insert(writer->rel, writer->slots, writer->nrows, cid, 0, NULL);
	for (int i = 0; i < writer->nrows; i++)
		insert_index_entries(writer, writer->slots[i]);
	writer->nrows = 0;
}

static TupleTableSlot *
next_slot(EsTagWriter *writer)
{
	if (writer->nrows == ES_TAG_CHUNK)
		flush_rows(writer);
	if (writer->nrows == writer->nslots)
		writer->slots[writer->nslots++] = table_slot_create(writer->rel, NULL);
	return writer->slots[writer->nrows++];
}

/*
 * Write the rows of one event.  tags is a checked set or NULL; it and the
 * type must stay until EsTagWriterEnd.
 */
void
EsTagWriterAdd(EsTagWriter *writer, ArrayType *tags, int64 position,
			   const text *event_type)
{
	Datum	   *elements;
	int			n = EsTagsDeconstruct(tags, &elements);

	for (int i = 0; i < n; i++)
	{
		TupleTableSlot *slot = next_slot(writer);
		int			natts = slot->tts_tupleDescriptor->natts;

		ExecClearTuple(slot);
		memset(slot->tts_isnull, true, natts * sizeof(bool));
		memset(slot->tts_isnull, false, ES_EVENT_TAG_EVENT_TYPE * sizeof(bool));
		slot->tts_values[ES_EVENT_TAG_TAG - 1] = elements[i];
		slot->tts_values[ES_EVENT_TAG_POSITION - 1] = Int64GetDatum(position);
		slot->tts_values[ES_EVENT_TAG_EVENT_TYPE - 1] = PointerGetDatum(event_type);
		ExecStoreVirtualTuple(slot);
	}
}

/* Put all rows into the table and its indexes; the locks stay to commit. */
void
EsTagWriterEnd(EsTagWriter *writer)
{
	flush_rows(writer);
	for (int i = 0; i < writer->nslots; i++)
		ExecDropSingleTupleTableSlot(writer->slots[i]);
	for (int i = 0; i < writer->nindexes; i++)
		index_close(writer->indexes[i], NoLock);
	table_close(writer->rel, NoLock);
	pfree(writer);
}

/* ----- INSERT and COPY ----- */

static uint64
hash_of_tags(ArrayType *tags)
{
	return hash_bytes_extended((const unsigned char *) VARDATA_ANY(tags),
							   VARSIZE_ANY_EXHDR(tags), 0);
}

/*
 * The BEFORE trigger gave a row this position and locked its tags: its AFTER
 * trigger is to write them.
 */
void
EsTagsExpect(ArrayType *tags, int64 position)
{
	ExpectedTags *entry;

	if (expected_lxid != EsCurrentLxid())
	{
		HASHCTL		ctl = {.keysize = sizeof(int64),.entrysize = sizeof(ExpectedTags),.hcxt = TopTransactionContext};

		expected = hash_create("eventstore tags", 64, &ctl,
							   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
		expected_lxid = EsCurrentLxid();
	}
	entry = hash_search(expected, &position, HASH_ENTER, NULL);
	entry->hash = hash_of_tags(tags);
}

/*
 * Are the tags of this new row for us to write?  Not if the append wrote them
 * or if the row came with its position set.  27000 when a trigger changed
 * them after they had been locked.
 */
static bool
is_expected(ArrayType *tags, int64 position)
{
	ExpectedTags *entry = NULL;

	if (expected_lxid == EsCurrentLxid())
		entry = hash_search(expected, &position, HASH_REMOVE, NULL);
	if (entry == NULL)
		return IsLogicalWorker() && !EsTagsAreReplicated(EsStoreGet());
	if (entry->hash != hash_of_tags(tags))
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				 errmsg("a trigger changed the tags of an event"),
				 errhint("Give the event its tags where it is appended.")));
	return true;
}

/*
 * AFTER INSERT ON es_event, for each row with tags.
 */
Datum
es_event_tag(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	TupleDesc	desc;
	HeapTuple	row;
	ArrayType  *tags;
	Datum		value;
	int64		position;
	bool		isnull;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		RelationGetRelid(trigger->tg_relation) != EsStoreGet()->event ||
		!TRIGGER_FIRED_BY_INSERT(trigger->tg_event) ||
		!TRIGGER_FIRED_AFTER(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function must be called as a trigger on \"es_event\"")));
	row = trigger->tg_trigtuple;
	desc = RelationGetDescr(trigger->tg_relation);
	value = heap_getattr(row, ES_EVENT_TAGS, desc, &isnull);
	if (isnull)
		PG_RETURN_POINTER(NULL);
	tags = DatumGetArrayTypeP(value);
	position = DatumGetInt64(heap_getattr(row, ES_EVENT_POSITION, desc, &isnull));
	if (is_expected(tags, position))
	{
		EsTagWriter *writer = EsTagWriterBegin();

		EsTagWriterAdd(writer, tags, position,
					   DatumGetTextPP(heap_getattr(row, ES_EVENT_EVENT_TYPE,
												   desc, &isnull)));
		EsTagWriterEnd(writer);
	}
	PG_RETURN_POINTER(NULL);
}
