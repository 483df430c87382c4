/*
 * append.c: give new events their place and put them into the store.
 *
 * One append, in this order, and the order matters:
 *   1. the lock on the stream;
 *   2. event ids that are already stored: a retry, answered and done, whatever
 *      has been declared of its types since;
 *   3. checks of the types, tags from their templates;
 *   4. the locks on all tags, then the gate;
 *   5. the version check: a loser fails here and burns no position;
 *   6. announce, draw positions (log.c says why);
 *   7. insert through the table and index access methods, tags included.
 * EsAssign is 3 to 6 and serves es_append, es_append_batch and the BEFORE
 * INSERT trigger alike, so no route can leave out a check.
 *
 * Where there are no ids to look for, 1 is done with 4, all locks at once.  A
 * look for ids is worth something only behind the gate, so an append that
 * comes with ids, and may get tags from a template, waits for its tags inside
 * of it.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "common/int.h"
#include "executor/executor.h"
#include "executor/nodeModifyTable.h"
#include "miscadmin.h"
#include "rewrite/rewriteHandler.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "append.h"
#include "compat.h"
#include "event_type.h"
#include "lifecycle.h"
#include "log.h"
#include "point.h"
#include "stat.h"
#include "stream.h"
#include "tag.h"

/* Random bytes fetched at once: the generator's price is mostly by the call. */
#define ES_RANDOM_POOL 512

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

/* The setting eventstore.metadata, and the same parsed; NULL when empty. */
static char *session_metadata_text = NULL;
static Jsonb *session_metadata = NULL;
static bool session_metadata_stale = true;

/* What es_last_position() answers; 0: nothing appended yet. */
static int64 last_position = 0;

/* Position of the row es_append is handing to other BEFORE triggers, or 0. */
static int64 assigned_position = 0;

/* Who is told of new events, or NULL. */
static const EsInsertedRoutine *inserted_routine = NULL;

PG_FUNCTION_INFO_V1(es_append);
PG_FUNCTION_INFO_V1(es_append_batch);
PG_FUNCTION_INFO_V1(es_last_position);

/* ----- metadata of the session ----- */

static bool
check_metadata(char **newval, void **extra, GucSource source)
{
	const char *text = *newval;

	if (text == NULL || *text == '\0')
		return true;
	if (text[strspn(text, " \t\n\r")] == '{' && EsJsonIsValid(text))
		return true;
	GUC_check_errdetail("\"eventstore.metadata\" must be a JSON object.");
	return false;
}

static void
assign_metadata(const char *newval, void *extra)
{
	session_metadata_stale = true;
}

void
EsAppendInit(void)
{
	DefineCustomStringVariable("eventstore.metadata",
							   "JSON object merged under the metadata of each event appended.",
							   "For what the application knows once a transaction: user, correlation_id, causation_id, traceparent. "
							   "Set it with SET LOCAL; keys of an event's own metadata win.",
							   &session_metadata_text, "", PGC_USERSET,
							   0,
							   check_metadata, assign_metadata, NULL);
}

/* eventstore.metadata as jsonb, parsed once for each value it takes. */
static Jsonb *
current_session_metadata(void)
{
	if (!session_metadata_stale)
		return session_metadata;
	if (session_metadata != NULL)
		pfree(session_metadata);
	session_metadata = NULL;
	if (session_metadata_text != NULL && *session_metadata_text != '\0')
	{
		Datum		parsed = DirectFunctionCall1(jsonb_in,
												 CStringGetDatum(session_metadata_text));
		MemoryContext saved;

		saved = MemoryContextSwitchTo(TopMemoryContext);
		session_metadata = DatumGetJsonbPCopy(parsed);
		MemoryContextSwitchTo(saved);
	}
	session_metadata_stale = false;
	return session_metadata;
}

/*
 * The metadata an event is stored with: the session's, with the event's own
 * on top.  NULL when there is neither; 22023 unless it is an object.
 */
Jsonb *
EsMergeMetadata(Jsonb *metadata)
{
	Jsonb	   *session = current_session_metadata();

	if (metadata != NULL && !JB_ROOT_IS_OBJECT(metadata))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("metadata must be a JSON object")));
	if (session == NULL)
		return metadata;
	if (metadata == NULL)		/* a copy: the cached one may go under a trigger */
		return DatumGetJsonbPCopy(JsonbPGetDatum(session));
	return DatumGetJsonbP(DirectFunctionCall2(jsonb_concat,
											  JsonbPGetDatum(session),
											  JsonbPGetDatum(metadata)));
}

/* ----- event ids ----- */

/* Random bits for an id, from a pool that lasts for many. */
static void
random_bits(unsigned char *target, int len)
{
	static unsigned char pool[ES_RANDOM_POOL];
	static int	unused = 0;

	if (unused < len)
	{
		if (!pg_strong_random(pool, ES_RANDOM_POOL))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate random values")));
		unused = ES_RANDOM_POOL;
	}
	unused -= len;
	memcpy(target, pool + unused, len);
}

/*
 * Write a UUID of version 7: milliseconds since 1970, then twelve bits that
 * make those of one call ascend with nth, then random bits.  Neighbours in
 * time are neighbours in the id index.
 */
static void
make_id(pg_uuid_t *uuid, TimestampTz at, int nth)
{
	unsigned char *id = uuid->data;
	int64		usecs = at +
		(POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
	int64		quarters = usecs * 4 + nth; /* about what twelve bits can tell apart */
	int64		ms = quarters / 4000;
	uint32		fraction = (uint32) (quarters % 4000);

	random_bits(id + 8, UUID_LEN - 8);
	for (int b = 0; b < 6; b++)
		id[b] = (unsigned char) (ms >> (8 * (5 - b)));
	id[6] = (unsigned char) (0x70 | (fraction >> 8));
	id[7] = (unsigned char) fraction;
	id[8] = (unsigned char) (0x80 | (id[8] & 0x3F));
}

/* Give an id to each event that has none. */
static void
assign_ids(EsAppend *append)
{
	int			made = 0;

	for (int i = 0; i < append->nevents; i++)
		if (!append->events[i].has_id)
			make_id(&append->events[i].event_id, append->recorded_at, made++);
}

/* Give an event its id before its place; nth of those of one call. */
void
EsMakeEventId(EsNewEvent *event, int nth)
{
	make_id(&event->event_id, GetCurrentTimestamp(), nth);
	event->has_id = true;
}

/* Read the stored event with this id, committed or our own, into the slot. */
static bool
event_by_id(Relation event, Relation id_key, const pg_uuid_t *id,
			TupleTableSlot *slot)
{
	ScanKeyData key;
	IndexScanDesc scan;
	bool		found;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(id));
	scan = EsIndexBeginScan(event, id_key, SnapshotSelf, 1);
	index_rescan(scan, &key, 1, NULL, 0);
	found = index_getnext_slot(scan, ForwardScanDirection, slot);
	index_endscan(scan);
	return found;
}

/* Is the stored event in the slot the one that is being appended? */
static bool
is_same_event(TupleTableSlot *slot, const text *stream_id,
			  const EsNewEvent *event)
{
	bool		isnull;
	Datum		stored;

	stored = slot_getattr(slot, ES_EVENT_STREAM_ID, &isnull);
	if (!DatumGetBool(DirectFunctionCall2Coll(texteq, C_COLLATION_OID, stored,
											  PointerGetDatum(stream_id))))
		return false;
	stored = slot_getattr(slot, ES_EVENT_EVENT_TYPE, &isnull);
	if (!DatumGetBool(DirectFunctionCall2Coll(texteq, C_COLLATION_OID, stored,
											  PointerGetDatum(event->event_type))))
		return false;
	stored = slot_getattr(slot, ES_EVENT_DATA, &isnull);
	return DatumGetBool(DirectFunctionCall2(jsonb_eq, stored,
											JsonbPGetDatum(event->data)));
}

void
EsReportIdUsed(const EsNewEvent *event, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNIQUE_VIOLATION),
			 errmsg("event id %s is already used",
					DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&event->event_id)))),
			 errdetail("%s", detail),
			 errhint("Repeat an append with the same ids only with the same events; give new events new ids."),
			 err_generic_string(PG_DIAG_CONSTRAINT_NAME, "es_event_event_id_key")));
}

/*
 * Is this append the repetition of an earlier one?  If all ids are stored,
 * with the same events in the same order, versions and positions are filled
 * in from there and the answer is yes; if none is, no.  Anything between is
 * 23505.  The stream is locked, so a first try that is still under way has
 * been waited for.
 */
bool
EsAppendIsRetry(Relation event, const EsStore *store, EsAppend *append)
{
	Relation	id_key = index_open(store->id_key, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(event, NULL);
	int			found = 0;

	for (int i = 0; i < append->nevents; i++)
	{
		EsNewEvent *new = &append->events[i];
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		if (!new->has_id || !event_by_id(event, id_key, &new->event_id, slot))
			continue;
		if (!is_same_event(slot, append->stream_id, new))
			EsReportIdUsed(new, "It belongs to a different event.");
		new->position = DatumGetInt64(slot_getattr(slot, ES_EVENT_POSITION, &isnull));
		new->version = DatumGetInt64(slot_getattr(slot, ES_EVENT_VERSION, &isnull));
		if (found != i)
			EsReportIdUsed(new, "Only some of the batch's event ids exist.");
		if (i > 0 && new->version != append->events[i - 1].version + 1)
			EsReportIdUsed(new, "The events exist, but not in this order one after the other.");
		found++;
	}
	ExecDropSingleTupleTableSlot(slot);
	index_close(id_key, AccessShareLock);
	if (found > 0 && found < append->nevents)
		EsReportIdUsed(&append->events[found - 1],
					   "Only some of the batch's event ids exist.");
	return found > 0;
}

/* ----- place in the stream and in the log ----- */

static void
check_version(const EsAppend *append, int64 actual)
{
	int64		expected = append->expected_version;
	char	   *wanted;

	if (expected == ES_VERSION_ANY || expected == actual ||
		(expected == ES_VERSION_EXISTS && actual > 0))
		return;
	EsStatCount(ES_COUNT_CONFLICTS, 1);
	wanted = expected == ES_VERSION_EXISTS ? "an existing stream" :
		expected == ES_VERSION_NONE ? "no stream" :
		psprintf("version " INT64_FORMAT, expected);
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("stream \"%s\" is not at the expected version",
					text_to_cstring(append->stream_id)),
			 errdetail("Expected %s; the stream is at version " INT64_FORMAT ".",
					   wanted, actual),
			 errhint("Read the stream again and decide again."),
			 err_generic_string(PG_DIAG_CONSTRAINT_NAME, "es_expected_version")));
}

/* Versions and the time; the time never goes back inside a stream. */
static void
assign_versions(EsAppend *append, EsStreamHead head)
{
	int64		last;

	if (pg_add_s64_overflow(head.version, append->nevents, &last))
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("stream \"%s\" is full",
						text_to_cstring(append->stream_id))));
	for (int i = 0; i < append->nevents; i++)
		append->events[i].version = head.version + 1 + i;
	append->recorded_at = GetCurrentTimestamp();
	if (head.version > 0 && head.recorded_at > append->recorded_at)
		append->recorded_at = head.recorded_at;
}

static void
draw_positions(const EsStore *store, EsAppend *append)
{
	for (int i = 0; i < append->nevents; i++)
		append->events[i].position = EsDrawPosition(store);
	EsPoint("after-draw");
}

/* Check the version of a locked stream and assign all that is to assign. */
static void
assign_place(Relation event, const EsStore *store, EsAppend *append)
{
	/* in the mode that inserting will ask for, so that one lock serves both */
	Relation	stream_key = index_open(store->stream_key, RowExclusiveLock);
	EsStreamHead head = {0, 0};

	if (!append->own_stream)
		head = EsStreamHeadForAppend(event, stream_key, append->stream_id);
	index_close(stream_key, NoLock);
	check_version(append, head.version);
	assign_versions(append, head);
	EsStreamHint(append->stream_id, append->events[append->nevents - 1].version);
	assign_ids(append);
	if (ES_BUG != 5)
		draw_positions(store, append);
	EsNoteLastPosition(append->events[append->nevents - 1].position);
}

/* Does the append bring tags? */
static bool
has_tags(const EsAppend *append)
{
	for (int i = 0; i < append->nevents; i++)
		if (append->events[i].tags != NULL)
			return true;
	return false;
}

/* Lock the stream and all tags, as far as they are known, and pass the gate. */
static void
lock_append(const EsStore *store, const EsAppend *append)
{
	EsLockKey	few[1 + ES_MAX_TAGS];
	EsLockKey  *keys = few;
	int			nkeys = 0;

	if (!has_tags(append) && !append->own_stream)
	{
		EsStreamLock(store, append->stream_id);
		return;
	}
	if (append->nevents > 1)
		keys = palloc_extended((1 + (Size) append->nevents * ES_MAX_TAGS) * sizeof(EsLockKey),
							   MCXT_ALLOC_HUGE);
	if (!append->own_stream)
		keys[nkeys++] = EsLockKeyOf(ES_LOCK_STREAM, append->stream_id, ExclusiveLock);
	for (int i = 0; i < append->nevents && ES_BUG != 60; i++)
		nkeys += EsTagsAddKeys(append->events[i].tags, RowExclusiveLock,
							   keys + nkeys);
	EsLockKeys(store, keys, nkeys);
	if (keys != few)
		pfree(keys);
}

/*
 * Check the events against their types and fill in the tags that these give,
 * lock the stream and the tags, check the version and assign version,
 * position, id and time of each event.  All locks stay until the transaction
 * ends.
 */
void
EsAssign(Relation event, const EsStore *store, EsAppend *append)
{
	if (ES_BUG == 5)
		draw_positions(store, append);
	if (!append->locked)
	{
		EsEventTypesApply(append);
		lock_append(store, append);
	}
	if (!append->own_stream)
		EsStreamCheckOpen(append->stream_id);
	assign_place(event, store, append);
	EsStatCount(ES_COUNT_EVENTS, append->nevents);
}

void
EsNoteLastPosition(int64 position)
{
	last_position = position;
}

/* What es_last_position() answers, 0 for nothing. */
int64
EsLastPosition(void)
{
	return last_position;
}

/*
 * es_last_position() → bigint: NULL before this session's first append.
 */
Datum
es_last_position(PG_FUNCTION_ARGS)
{
	if (last_position == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(last_position);
}

/* ----- the way into the table ----- */

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
insert_events(Relation event, EsAppend *append)
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

	if (!has_tags(append))
		return;
	writer = EsTagWriterBegin();
	for (int i = 0; i < append->nevents; i++)
		EsTagWriterAdd(writer, append->events[i].tags,
					   append->events[i].position, append->events[i].event_type);
	EsTagWriterEnd(writer);
}

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

/*
 * Take the locks that a look for a retry needs.  Tags are locked all together
 * or not yet: no order could be kept otherwise.
 */
static void
lock_for_retry(const EsStore *store, const EsAppend *append)
{
	if (EsEventTypesDeclared())
		EsStreamLock(store, append->stream_id);
	else
		lock_append(store, append);
}

/*
 * Append events to one stream.  Answers the version of the last one; for a
 * retry, what the first try answered.
 */
int64
EsAppendEvents(EsAppend *append)
{
	const EsStore *store;
	Relation	event = EsEventOpen(&store, RowExclusiveLock);
	EsNewEvent *last = &append->events[append->nevents - 1];
	bool		has_ids = false;

	EsCheckPrivilege(event, ACL_INSERT);
	for (int i = 0; i < append->nevents && !has_ids && !append->locked; i++)
		has_ids = append->events[i].has_id;

	if (has_ids)
	{
		lock_for_retry(store, append);
		if (EsAppendIsRetry(event, store, append))
		{
			EsStatCount(ES_COUNT_RETRIES, 1);
			EsNoteLastPosition(last->position);
			table_close(event, NoLock);
			return last->version;
		}
	}
	EsAssign(event, store, append);
	insert_tags(append);
	insert_events(event, append);
	tell_of_append(event, append);
	table_close(event, NoLock);	/* kept to commit */
	return last->version;
}

/* ----- SQL ----- */

static void
require_argument(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", name)));
}

static int64
expected_version_argument(FunctionCallInfo fcinfo, int n)
{
	int64		expected;

	require_argument(fcinfo, n, "expected_version");
	expected = PG_GETARG_INT64(n);
	if (expected < ES_VERSION_EXISTS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid expected version " INT64_FORMAT, expected),
				 errhint("Use a version, 0 for a stream without events, -1 for any version, or -2 for a stream that exists.")));
	return expected;
}

/*
 * es_append(stream_id text, event_type text, data jsonb,
 *			 expected_version bigint, metadata jsonb, event_id uuid,
 *			 tags text[]) → bigint
 */
Datum
es_append(PG_FUNCTION_ARGS)
{
	EsNewEvent	event = {0};
	EsAppend	append = {.events = &event,.nevents = 1};

	PreventCommandIfReadOnly("es_append()");
	PreventCommandIfParallelMode("es_append()");
	require_argument(fcinfo, 0, "stream_id");
	require_argument(fcinfo, 1, "event_type");
	require_argument(fcinfo, 2, "data");
	append.stream_id = PG_GETARG_TEXT_PP(0);
	EsCheckStreamId(append.stream_id);
	event.event_type = PG_GETARG_TEXT_PP(1);
	EsCheckEventType(event.event_type);
	event.data = PG_GETARG_JSONB_P(2);
	append.expected_version = expected_version_argument(fcinfo, 3);
	event.metadata = EsMergeMetadata(PG_ARGISNULL(4) ? NULL : PG_GETARG_JSONB_P(4));
	if (!PG_ARGISNULL(5))
	{
		event.has_id = true;
		event.event_id = *PG_GETARG_UUID_P(5);
	}
	if (!PG_ARGISNULL(6))
		event.tags = EsCheckTags(PG_GETARG_ARRAYTYPE_P(6));

	PG_RETURN_INT64(EsAppendEvents(&append));
}

/* The elements of an array argument, which must have as many as the first. */
static Datum *
array_argument(FunctionCallInfo fcinfo, int n, const char *name, Oid type,
			   int16 length, char align, bool **nulls, int *count)
{
	ArrayType  *array = PG_GETARG_ARRAYTYPE_P(n);
	Datum	   *elements;
	int			elements_count;

	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be a one-dimensional array", name)));
	deconstruct_array(array, type, length, false, align, &elements, nulls,
					  &elements_count);
	if (*count >= 0 && elements_count != *count)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the arrays of a batch must have the same length"),
				 errdetail("\"event_types\" has %d elements, \"%s\" has %d.",
						   *count, name, elements_count)));
	*count = elements_count;
	return elements;
}

static void
reject_null_element(bool isnull, const char *name, int i)
{
	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("element %d of \"%s\" must not be null", i + 1, name)));
}

static EsNewEvent *
batch_events(FunctionCallInfo fcinfo, int *nevents)
{
	bool	   *type_nulls;
	bool	   *data_nulls;
	bool	   *metadata_nulls = NULL;
	bool	   *id_nulls = NULL;
	bool	   *tag_nulls = NULL;
	Datum	   *types;
	Datum	   *data;
	Datum	   *metadata = NULL;
	Datum	   *ids = NULL;
	Datum	   *tags = NULL;
	int			n = -1;
	EsNewEvent *events;

	types = array_argument(fcinfo, 1, "event_types", TEXTOID, -1, TYPALIGN_INT,
						   &type_nulls, &n);
	data = array_argument(fcinfo, 2, "data", JSONBOID, -1, TYPALIGN_INT,
						  &data_nulls, &n);
	if (!PG_ARGISNULL(4))
		metadata = array_argument(fcinfo, 4, "metadata", JSONBOID, -1,
								  TYPALIGN_INT, &metadata_nulls, &n);
	if (!PG_ARGISNULL(5))
		ids = array_argument(fcinfo, 5, "event_ids", UUIDOID, UUID_LEN,
							 TYPALIGN_CHAR, &id_nulls, &n);
	if (!PG_ARGISNULL(6))
		tags = array_argument(fcinfo, 6, "tags", JSONBOID, -1, TYPALIGN_INT,
							  &tag_nulls, &n);
	if (n == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a batch must have at least one event")));

	events = palloc0(n * sizeof(EsNewEvent));
	for (int i = 0; i < n; i++)
	{
		reject_null_element(type_nulls[i], "event_types", i);
		reject_null_element(data_nulls[i], "data", i);
		events[i].event_type = DatumGetTextPP(types[i]);
		EsCheckEventType(events[i].event_type);
		events[i].data = DatumGetJsonbP(data[i]);
		events[i].metadata =
			EsMergeMetadata(metadata == NULL || metadata_nulls[i] ? NULL :
							DatumGetJsonbP(metadata[i]));
		events[i].has_id = ids != NULL;
		if (ids != NULL)
		{
			/* a batch of which only some have ids could never be repeated */
			reject_null_element(id_nulls[i], "event_ids", i);
			events[i].event_id = *DatumGetUUIDP(ids[i]);
		}
		if (tags != NULL && !tag_nulls[i])
			events[i].tags = EsTagsOfJson(&DatumGetJsonbP(tags[i])->root);
	}
	*nevents = n;
	return events;
}

/*
 * es_append_batch(stream_id text, event_types text[], data jsonb[],
 *				   expected_version bigint, metadata jsonb[],
 *				   event_ids uuid[], tags jsonb[]) → bigint
 */
Datum
es_append_batch(PG_FUNCTION_ARGS)
{
	EsAppend	append = {0};

	PreventCommandIfReadOnly("es_append_batch()");
	PreventCommandIfParallelMode("es_append_batch()");
	require_argument(fcinfo, 0, "stream_id");
	require_argument(fcinfo, 1, "event_types");
	require_argument(fcinfo, 2, "data");
	append.stream_id = PG_GETARG_TEXT_PP(0);
	EsCheckStreamId(append.stream_id);
	append.expected_version = expected_version_argument(fcinfo, 3);
	append.events = batch_events(fcinfo, &append.nevents);

	PG_RETURN_INT64(EsAppendEvents(&append));
}
