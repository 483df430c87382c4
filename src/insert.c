/*
 * insert.c: the way of new events into the table, and who is told of them.
 *
 * Rows go in through the table and index access methods, without a plan, but
 * nothing that a plan would do is left out: defaults of users' columns, their
 * triggers, generated columns, constraints.  A trigger may change what an
 * event says, never where it is.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/stratnum.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/nodeModifyTable.h"
#include "miscadmin.h"
#include "rewrite/rewriteHandler.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/uuid.h"

#include "compat.h"
#include "event_type.h"
#include "insert.h"
#include "point.h"
#include "tag.h"

/* Rows that go to the heap in one call: bounds the slots kept in memory. */
#define ES_INSERT_CHUNK 256

/* An open path into es_event: heap, indexes, triggers. */
typedef struct Inserter
{
	Relation	event;
	EState	   *estate;			/* owns all memory of the path */
	ResultRelInfo *target;
	TransitionCaptureState *transition; /* for statement triggers, or NULL */
	bool		has_triggers;	/* AFTER or statement triggers want firing */
	bool		has_before;		/* BEFORE row triggers besides our own */
	CommandId	cid;			/* stamps the rows */
	ExprState **defaults;		/* by column, for those that users added */
} Inserter;

/* Position of the row that is being handed to other BEFORE triggers, or 0. */
static int64 assigned_position = 0;

/* Who is told of new events, or NULL. */
static const EsInsertedRoutine *inserted_routine = NULL;

/*
 * Is this the row that an append passes to other BEFORE triggers?  Our own
 * trigger then leaves it as it is.
 */
bool
EsIsAssigned(int64 position)
{
	return assigned_position != 0 && assigned_position == position;
}

/* Are there row triggers of this timing besides our own one? */
static bool
has_other_insert_trigger(const TriggerDesc *triggers, int16 timing)
{
	int			count = 0;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
		if (TRIGGER_TYPE_MATCHES(triggers->triggers[i].tgtype,
								 TRIGGER_TYPE_ROW, timing, TRIGGER_TYPE_INSERT))
			count++;
	return count > 1;
}

/*
 * Are there triggers to fire after rows, or before or after statements?  Our
 * own ones serve INSERT and COPY only, and are passed by.
 */
static bool
has_other_trigger(const TriggerDesc *triggers)
{
	if (triggers == NULL)
		return false;
	if (has_other_insert_trigger(triggers, TRIGGER_TYPE_AFTER))
		return true;
	for (int i = 0; i < triggers->numtriggers; i++)
	{
		const Trigger *trigger = &triggers->triggers[i];

		if (!TRIGGER_FOR_INSERT(trigger->tgtype) ||
			TRIGGER_FOR_ROW(trigger->tgtype))
			continue;
		if (strcmp(trigger->tgname, "es_event_statement_begin") != 0 &&
			strcmp(trigger->tgname, "es_event_statement_end") != 0)
			return true;
	}
	return false;
}

/* The defaults of columns that users added to the table. */
static ExprState **
user_column_defaults(Relation event, EState *estate)
{
	TupleDesc	desc = RelationGetDescr(event);
	ExprState **defaults;

	if (desc->natts == ES_EVENT_NATTS)
		return NULL;
	defaults = MemoryContextAllocZero(estate->es_query_cxt,
									  desc->natts * sizeof(ExprState *));
	for (int i = ES_EVENT_NATTS; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		Node	   *expr;

		if (att->attisdropped || att->attgenerated != '\0')
			continue;
		expr = build_column_default(event, i + 1);
		if (expr != NULL)
			defaults[i] = ExecPrepareExpr((Expr *) expr, estate);
	}
	return defaults;
}

static void
inserter_open(Inserter *inserter, Relation event)
{
	TriggerDesc *triggers;
	RangeTblEntry *rte = makeNode(RangeTblEntry);

	inserter->event = event;
	inserter->estate = CreateExecutorState();
	rte->rtekind = RTE_RELATION;
	rte->relid = RelationGetRelid(event);
	rte->relkind = event->rd_rel->relkind;
	rte->rellockmode = RowExclusiveLock;
	EsInitRangeTable(inserter->estate, rte);
	inserter->cid = GetCurrentCommandId(true);
	inserter->estate->es_output_cid = inserter->cid;

	inserter->target = makeNode(ResultRelInfo);
	InitResultRelInfo(inserter->target, event, 1, NULL, 0);
	inserter->estate->es_opened_result_relations =
		lappend(NIL, inserter->target);
	ExecOpenIndices(inserter->target, false);
	inserter->defaults = user_column_defaults(event, inserter->estate);

	triggers = inserter->target->ri_TrigDesc;	/* a copy, unlike the relcache's */
	inserter->transition = NULL;
	inserter->has_before = has_other_insert_trigger(triggers, TRIGGER_TYPE_BEFORE);
	inserter->has_triggers = has_other_trigger(triggers);
	if (inserter->has_triggers)
	{
		AfterTriggerBeginQuery();
		inserter->transition = MakeTransitionCaptureState(triggers,
														  RelationGetRelid(event),
														  CMD_INSERT);
		ExecBSInsertTriggers(inserter->estate, inserter->target);
	}
}

static void
inserter_close(Inserter *inserter)
{
	if (inserter->has_triggers)
	{
		ExecASInsertTriggers(inserter->estate, inserter->target,
							 inserter->transition);
		AfterTriggerEndQuery(inserter->estate);
	}
	ExecCloseResultRelations(inserter->estate);
	ExecResetTupleTable(inserter->estate->es_tupleTable, false);
	FreeExecutorState(inserter->estate);
}

/* Columns that users added: their defaults, or NULL. */
static void
fill_user_columns(Inserter *inserter, TupleTableSlot *slot)
{
	ExprContext *econtext = GetPerTupleExprContext(inserter->estate);

	for (int i = ES_EVENT_NATTS; i < slot->tts_tupleDescriptor->natts; i++)
	{
		slot->tts_isnull[i] = true;
		if (inserter->defaults[i] != NULL)
			slot->tts_values[i] = ExecEvalExprSwitchContext(inserter->defaults[i],
															econtext,
															&slot->tts_isnull[i]);
	}
}

/* The store's own columns of a row. */
static void
fill_columns(TupleTableSlot *slot, const EsAppend *append, EsNewEvent *event)
{
	Datum	   *values = slot->tts_values;
	bool	   *nulls = slot->tts_isnull;

	memset(nulls, false, ES_EVENT_NATTS * sizeof(bool));
	values[ES_EVENT_POSITION - 1] = Int64GetDatum(event->position);
	values[ES_EVENT_VERSION - 1] = Int64GetDatum(event->version);
	values[ES_EVENT_RECORDED_AT - 1] = TimestampTzGetDatum(append->recorded_at);
	values[ES_EVENT_EVENT_ID - 1] = UUIDPGetDatum(&event->event_id);
	values[ES_EVENT_TYPE_VERSION - 1] = Int32GetDatum(event->type_version);
	values[ES_EVENT_STREAM_ID - 1] = PointerGetDatum(append->stream_id);
	values[ES_EVENT_EVENT_TYPE - 1] = PointerGetDatum(event->event_type);
	values[ES_EVENT_DATA - 1] = JsonbPGetDatum(event->data);
	values[ES_EVENT_METADATA - 1] = PointerGetDatum(event->metadata);
	nulls[ES_EVENT_METADATA - 1] = event->metadata == NULL;
	values[ES_EVENT_TAGS - 1] = PointerGetDatum(event->tags);
	nulls[ES_EVENT_TAGS - 1] = event->tags == NULL;
}

static void
fill_slot(Inserter *inserter, TupleTableSlot *slot, const EsAppend *append,
		  EsNewEvent *event)
{
	ExecClearTuple(slot);
	if (inserter->defaults != NULL)
		fill_user_columns(inserter, slot);
	fill_columns(slot, append, event);
	ExecStoreVirtualTuple(slot);
}

/* Did a trigger leave alone what the store assigned? */
static bool
place_is_unchanged(TupleTableSlot *slot, const EsAppend *append,
				   const EsNewEvent *event)
{
	bool		nulls[5];
	Datum		position = slot_getattr(slot, ES_EVENT_POSITION, &nulls[0]);
	Datum		version = slot_getattr(slot, ES_EVENT_VERSION, &nulls[1]);
	Datum		recorded_at = slot_getattr(slot, ES_EVENT_RECORDED_AT, &nulls[2]);
	Datum		event_id = slot_getattr(slot, ES_EVENT_EVENT_ID, &nulls[3]);
	Datum		stream_id = slot_getattr(slot, ES_EVENT_STREAM_ID, &nulls[4]);

	return !nulls[0] && !nulls[1] && !nulls[2] && !nulls[3] && !nulls[4] &&
		DatumGetInt64(position) == event->position &&
		DatumGetInt64(version) == event->version &&
		DatumGetTimestampTz(recorded_at) == append->recorded_at &&
		memcmp(DatumGetUUIDP(event_id), &event->event_id, UUID_LEN) == 0 &&
		DatumGetBool(DirectFunctionCall2Coll(texteq, C_COLLATION_OID, stream_id,
											 PointerGetDatum(append->stream_id)));
}

/* The tags were checked and locked: whoever changes them now comes too late. */
static void
require_same_tags(TupleTableSlot *slot, const EsNewEvent *event)
{
	bool		nulls[2];
	Datum		tags = slot_getattr(slot, ES_EVENT_TAGS, &nulls[0]);
	Datum		type = slot_getattr(slot, ES_EVENT_EVENT_TYPE, &nulls[1]);

	if (nulls[0] && event->tags == NULL)
		return;
	if (nulls[0] || nulls[1] || event->tags == NULL ||
		!datumIsEqual(PointerGetDatum(DatumGetArrayTypeP(tags)),
					  PointerGetDatum(event->tags), false, -1) ||
		!DatumGetBool(DirectFunctionCall2Coll(texteq, C_COLLATION_OID, type,
											  PointerGetDatum(event->event_type))))
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				 errmsg("a trigger changed the tags of an event, or the type of one with tags"),
				 errhint("Give the event its tags where it is appended.")));
}

/*
 * Fire BEFORE row triggers that users added.  They may change what the event
 * says, but neither drop it nor move it.
 */
static void
fire_before_triggers(Inserter *inserter, TupleTableSlot *slot,
					 const EsAppend *append, const EsNewEvent *event)
{
	int64		outer = assigned_position;	/* of the append we are called from */
	bool		kept;

	assigned_position = event->position;
	PG_TRY();
	{
		kept = ExecBRInsertTriggers(inserter->estate, inserter->target, slot);
	}
	PG_FINALLY();
	{
		assigned_position = outer;
	}
	PG_END_TRY();
	if (!kept)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_ACTION_EXCEPTION),
				 errmsg("a trigger on \"%s\" dropped the event",
						RelationGetRelationName(inserter->event)),
				 errhint("Let the trigger raise an error to reject an append.")));
	if (!place_is_unchanged(slot, append, event))
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				 errmsg("a trigger on \"%s\" changed what the store assigns",
						RelationGetRelationName(inserter->event)),
				 errdetail("Stream, version, position, id and time of an event are not for triggers to change.")));
	require_same_tags(slot, event);
}

/* Make the row to insert, triggers and generated columns included. */
static void
make_row(Inserter *inserter, TupleTableSlot *slot, const EsAppend *append,
		 EsNewEvent *event)
{
	TupleConstr *constraints = RelationGetDescr(inserter->event)->constr;

	fill_slot(inserter, slot, append, event);
	if (inserter->has_before)
	{
		fire_before_triggers(inserter, slot, append, event);
		EsEventTypeCheckSlot(slot);
	}
	if (constraints != NULL && constraints->has_generated_stored)
		ExecComputeStoredGenerated(inserter->target, inserter->estate, slot,
								   CMD_INSERT);
	ExecConstraints(inserter->target, slot, inserter->estate);
}

/* Put the slots' rows into the heap, the indexes and the trigger queue. */
static void
insert_slots(Inserter *inserter, TupleTableSlot **slots, int n)
{
	if (n == 1)
		table_tuple_insert(inserter->event, slots[0], inserter->cid, 0, NULL);
	else
		table_multi_insert(inserter->event, slots, n, inserter->cid, 0, NULL);
	for (int i = 0; i < n; i++)
	{
		List	   *recheck = EsInsertIndexTuples(inserter->target, slots[i],
												  inserter->estate);

		if (inserter->has_triggers)
			ExecARInsertTriggers(inserter->estate, inserter->target, slots[i],
								 recheck, inserter->transition);
		list_free(recheck);
	}
}

static void
insert_rows(Relation event, EsAppend *append)
{
	Inserter	inserter;
	TupleTableSlot *slots[ES_INSERT_CHUNK];
	int			nslots = Min(append->nevents, ES_INSERT_CHUNK);
	TupleDesc	desc = CreateTupleDescCopyConstr(RelationGetDescr(event));	/* not counted: no pin a slot */

	inserter_open(&inserter, event);
	for (int i = 0; i < nslots; i++)
		slots[i] = ExecInitExtraTupleSlot(inserter.estate, desc,
										  table_slot_callbacks(event));
	for (int done = 0; done < append->nevents; done += nslots)
	{
		MemoryContext saved;

		CHECK_FOR_INTERRUPTS();
		nslots = Min(append->nevents - done, ES_INSERT_CHUNK);
		saved = MemoryContextSwitchTo(GetPerTupleMemoryContext(inserter.estate));
		for (int i = 0; i < nslots; i++)
			make_row(&inserter, slots[i], append, &append->events[done + i]);
		insert_slots(&inserter, slots, nslots);
		EsPoint("rows-inserted");
		MemoryContextSwitchTo(saved);
		ResetPerTupleExprContext(inserter.estate);
	}
	inserter_close(&inserter);
}

/* Write the rows of es_event_tag; nothing at all where no event has tags. */
static void
insert_tags(const EsAppend *append)
{
	EsTagWriter *writer;

	if (!EsAppendHasTags(append))
		return;
	writer = EsTagWriterBegin();
	for (int i = 0; i < append->nevents; i++)
		EsTagWriterAdd(writer, append->events[i].tags,
					   append->events[i].position, append->events[i].event_type);
	EsTagWriterEnd(writer);
}

/* ----- telling of new events ----- */

/* ----- telling of new events ----- */

/* The one who is told of new events, once they are in the table. */
void
EsInsertedRegister(const EsInsertedRoutine *routine)
{
	inserted_routine = routine;
}

bool
EsInsertedIsWanted(void)
{
	return inserted_routine != NULL && inserted_routine->wants_events();
}

/* An event as the append has it in memory. */
static TupleTableSlot *
fetch_given(const EsInserted *inserted, int i)
{
	ExecClearTuple(inserted->slot);
	fill_columns(inserted->slot, inserted->append, &inserted->append->events[i]);
	return ExecStoreVirtualTuple(inserted->slot);
}

/* An event as the table has it, this command's own rows included. */
static TupleTableSlot *
fetch_stored(const EsInserted *inserted, int i)
{
	Relation	index = index_open(EsStoreGet()->position_key, AccessShareLock);
	ScanKeyData key;
	IndexScanDesc scan;
	bool		found;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(inserted->append == NULL ? inserted->positions[i] :
							  inserted->append->events[i].position));
	scan = EsIndexBeginScan(inserted->event, index, SnapshotSelf, 1);
	index_rescan(scan, &key, 1, NULL, 0);
	found = index_getnext_slot(scan, ForwardScanDirection, inserted->slot);
	index_endscan(scan);
	index_close(index, AccessShareLock);
	return found ? inserted->slot : NULL;
}

/* Tell of rows that came by INSERT or COPY. */
void
EsInsertedTell(Relation event, const int64 *positions, int n)
{
	EsInserted	inserted = {.event = event,.nevents = n,.fetch = fetch_stored,
	.positions = positions};

	inserted.slot = table_slot_create(event, NULL);
	inserted_routine->events_inserted(&inserted);
	ExecDropSingleTupleTableSlot(inserted.slot);
}

/*
 * Tell of an append's events.  They are in memory, unless other triggers may
 * have changed them or users have added columns to the table.
 */
static void
tell_of_append(Relation event, const EsAppend *append)
{
	EsInserted	inserted = {.event = event,.nevents = append->nevents,.append = append};
	bool		rewritten = has_other_insert_trigger(event->trigdesc, TRIGGER_TYPE_BEFORE) ||
		RelationGetDescr(event)->natts > ES_EVENT_NATTS;

	if (!EsInsertedIsWanted())
		return;
	inserted.fetch = rewritten ? fetch_stored : fetch_given;
	inserted.slot = rewritten ? table_slot_create(event, NULL) :
		MakeSingleTupleTableSlot(RelationGetDescr(event), &TTSOpsVirtual);
	inserted_routine->events_inserted(&inserted);
	ExecDropSingleTupleTableSlot(inserted.slot);
}

/* Put events that have their place into the table, and tell of them. */
void
EsInsertEvents(Relation event, EsAppend *append)
{
	insert_tags(append);
	insert_rows(event, append);
	tell_of_append(event, append);
}
