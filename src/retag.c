/*
 * retag.c: give tags to events that are there already, or take them away.
 *
 * An event never changes, and es_event.tags says for ever what it was appended
 * with.  What it carries today is what es_event_tag says, where queries look;
 * es_retagged notes it for the events where the two differ, so that es_check()
 * can tell a change from damage.  All appends, and so all decisions, stand
 * still meanwhile: a decision is made before or after, never in between.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

#include "catalog.h"
#include "compat.h"
#include "match.h"
#include "stream.h"
#include "tag.h"

/* An event that is to be retagged. */
typedef struct Target
{
	int64		position;
	text	   *event_type;
	ArrayType  *appended;		/* tags in es_event; NULL: none */
	ArrayType  *tags;			/* tags it carries now */
} Target;

PG_FUNCTION_INFO_V1(es_retag);

/*
 * Find one row by index keys, with SnapshotSelf, and read a column of it or
 * delete it.  False when it is not there.
 */
static bool
find_row(Relation rel, Oid index_oid, ScanKeyData *keys, int nkeys,
		 TupleTableSlot *slot)
{
	Relation	index = index_open(index_oid, RowExclusiveLock);
	IndexScanDesc scan = EsIndexBeginScan(rel, index, SnapshotSelf, nkeys);
	bool		found;

	index_rescan(scan, keys, nkeys, NULL, 0);
	found = index_getnext_slot(scan, ForwardScanDirection, slot);
	if (found)
		ExecMaterializeSlot(slot);
	index_endscan(scan);
	index_close(index, NoLock);
	return found;
}

/* The row of es_retagged for a position, if any. */
static bool
find_retagged(Relation retagged, const EsStore *store, int64 position,
			  TupleTableSlot *slot)
{
	ScanKeyData key;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(position));
	return find_row(retagged, get_relname_relid("es_retagged_pkey", store->schema),
					&key, 1, slot);
}

/* All events that match, with the tags they carry now. */
static List *
find_targets(Relation event, Relation retagged, const EsStore *store,
			 const EsBoundary *query)
{
	EsMatchScan *scan = EsMatchBegin(event, store, query, SnapshotSelf, 1,
									 PG_INT64_MAX, ForwardScanDirection);
	TupleTableSlot *now = table_slot_create(retagged, NULL);
	TupleTableSlot *slot;
	List	   *targets = NIL;
	int64		position;

	while ((slot = EsMatchNext(scan, &position, NULL)) != NULL)
	{
		Target	   *target = palloc0(sizeof(Target));
		bool		isnull;
		Datum		value = slot_getattr(slot, ES_EVENT_TAGS, &isnull);

		target->position = position;
		target->appended = isnull ? NULL : DatumGetArrayTypePCopy(value);
		target->tags = target->appended;
		target->event_type = DatumGetTextPCopy(slot_getattr(slot, ES_EVENT_EVENT_TYPE,
															&isnull));
		if (find_retagged(retagged, store, position, now))
			target->tags = DatumGetArrayTypePCopy(slot_getattr(now, ES_RETAGGED_TAGS,
															   &isnull));
		targets = lappend(targets, target);
	}
	EsMatchEnd(scan);
	ExecDropSingleTupleTableSlot(now);
	return targets;
}

/* The tags in a that are not in b, as a set; NULL for none. */
static ArrayType *
without(ArrayType *a, ArrayType *b)
{
	Datum	   *left;
	Datum	   *right;
	int			nleft = EsTagsDeconstruct(a, &left);
	int			nright = EsTagsDeconstruct(b, &right);
	int			kept = 0;

	for (int i = 0; i < nleft; i++)
	{
		bool		found = false;

		for (int j = 0; j < nright && !found; j++)
			found = DatumGetBool(DirectFunctionCall2Coll(texteq, C_COLLATION_OID,
														 left[i], right[j]));
		if (!found)
			left[kept++] = left[i];
	}
	return kept == 0 ? NULL :
		construct_array(left, kept, TEXTOID, -1, false, TYPALIGN_INT);
}

/* The tags in a or in b, as a checked set. */
static ArrayType *
together(ArrayType *a, ArrayType *b)
{
	Datum	   *left;
	Datum	   *right;
	int			nleft = EsTagsDeconstruct(a, &left);
	int			nright = EsTagsDeconstruct(b, &right);
	Datum	   *all = palloc((nleft + nright + 1) * sizeof(Datum));

	for (int i = 0; i < nleft; i++)
		all[i] = left[i];
	for (int i = 0; i < nright; i++)
		all[nleft + i] = right[i];
	return EsCheckTags(construct_array(all, nleft + nright, TEXTOID, -1, false,
									   TYPALIGN_INT));
}

static void
delete_tags(const EsStore *store, int64 position, ArrayType *tags)
{
	Relation	rel = EsEventTagOpen(&store, RowExclusiveLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	Datum	   *elements;
	int			n = EsTagsDeconstruct(tags, &elements);

	for (int i = 0; i < n; i++)
	{
		ScanKeyData keys[2];

		ScanKeyEntryInitialize(&keys[0], 0, 1, BTEqualStrategyNumber, InvalidOid,
							   C_COLLATION_OID, F_TEXTEQ, elements[i]);
		ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_INT8EQ,
					Int64GetDatum(position));
		if (find_row(rel, store->tag_key, keys, 2, slot))
			simple_table_tuple_delete(rel, &slot->tts_tid, SnapshotSelf);
	}
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
}

/* Write down what the event carries now, where that is not what it came with. */
static void
note_retagged(Relation retagged, const EsStore *store, const Target *target,
			  ArrayType *tags)
{
	TupleTableSlot *slot = table_slot_create(retagged, NULL);
	Oid			types[2] = {INT8OID, TEXTARRAYOID};
	Datum		values[2];

	if (find_retagged(retagged, store, target->position, slot))
		simple_table_tuple_delete(retagged, &slot->tts_tid, SnapshotSelf);
	ExecDropSingleTupleTableSlot(slot);
	if (without(tags, target->appended) == NULL &&
		without(target->appended, tags) == NULL)
		return;
	values[0] = Int64GetDatum(target->position);
	values[1] = PointerGetDatum(tags == NULL ? construct_empty_array(TEXTOID) : tags);
	if (SPI_execute_with_args(psprintf("INSERT INTO %s.es_retagged (position, tags) VALUES ($1, $2)",
									   quote_identifier(get_namespace_name(store->schema))),
							  2, types, values, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not write to es_retagged");
}

/* Change the tags of one event; false when that changes nothing. */
static bool
retag_event(Relation retagged, const EsStore *store, const Target *target,
			ArrayType *add, ArrayType *remove)
{
	ArrayType  *tags = without(together(target->tags, add), remove);
	ArrayType  *gone = without(target->tags, tags);
	ArrayType  *come = without(tags, target->tags);

	if (gone == NULL && come == NULL)
		return false;
	delete_tags(store, target->position, gone);
	if (come != NULL)
	{
		EsTagWriter *writer = EsTagWriterBegin();

		EsTagWriterAdd(writer, come, target->position, target->event_type);
		EsTagWriterEnd(writer);
	}
	note_retagged(retagged, store, target, tags);
	return true;
}

/*
 * es_retag(query jsonb, add text[], remove text[]) → bigint
 */
Datum
es_retag(PG_FUNCTION_ARGS)
{
	const EsStore *store;
	ArrayType  *add = PG_ARGISNULL(1) ? NULL : EsCheckTags(PG_GETARG_ARRAYTYPE_P(1));
	ArrayType  *remove = PG_ARGISNULL(2) ? NULL : EsCheckTags(PG_GETARG_ARRAYTYPE_P(2));
	Relation	event;
	Relation	retagged;
	ListCell   *lc;
	int64		changed = 0;

	EsRequireReadWrite("es_retag()");
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", "query")));
	event = EsEventOpen(&store, RowExclusiveLock);
	if (!EsOwnsRelation(store->event, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, RelationGetRelationName(event));
	EsGateClose(store);
	CommandCounterIncrement();	/* this statement's own rows can be deleted then */
	retagged = table_open(store->retagged, RowExclusiveLock);
	SPI_connect();
	foreach(lc, find_targets(event, retagged, store,
							 EsBoundaryParse(PG_GETARG_JSONB_P(0))))
		changed += retag_event(retagged, store, lfirst(lc), add, remove);
	SPI_finish();
	CommandCounterIncrement();
	table_close(retagged, NoLock);
	table_close(event, NoLock);
	PG_RETURN_INT64(changed);
}
