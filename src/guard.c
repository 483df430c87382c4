/*
 * guard.c: the triggers that stand before es_event, and before the tables of
 * tags and archived events.
 *
 * One lets new events in by INSERT and COPY, with the same checks as the
 * functions; one lets nothing be changed or removed; and one tells, when an
 * INSERT or COPY ends, which events it brought.  All are ENABLE ALWAYS, so
 * session_replication_role does not lead past them.
 *
 * Rows that bring their position along, from a dump or from replication, are
 * nobody's news: what was made of them comes the same way as they do.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "replication/logicalworker.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "archive.h"
#include "compat.h"
#include "epoch.h"
#include "event_id.h"
#include "insert.h"
#include "log.h"
#include "metadata.h"
#include "point.h"
#include "stream.h"
#include "tag.h"

PG_FUNCTION_INFO_V1(es_event_insert);
PG_FUNCTION_INFO_V1(es_event_refuse);
PG_FUNCTION_INFO_V1(es_event_statement);
PG_FUNCTION_INFO_V1(es_event_tag_guard);
PG_FUNCTION_INFO_V1(es_archive_guard);

/*
 * The positions given out by one INSERT or COPY, for those who want to be
 * told of new events when it ends.  Statements nest, since triggers and
 * functions may insert, too.
 */
typedef struct InsertStatement
{
	struct InsertStatement *outer;
	int			nest_level;		/* of the subtransaction it runs in */
	SubTransactionId subxact;
	int			n;
	int			max;
	int64	   *positions;
	pg_uuid_t  *ids;			/* that rows brought along */
	int			nids;
	int			max_ids;
	int64		archived;		/* last segment when the first was looked for */
} InsertStatement;

/* Innermost statement of the transaction whose local id stands beside it. */
static InsertStatement *statement = NULL;
static LocalTransactionId statement_lxid = InvalidLocalTransactionId;

/* 39P01 unless called by the trigger manager on es_event, as installed. */
static TriggerData *
trigger_data(FunctionCallInfo fcinfo)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		RelationGetRelid(trigger->tg_relation) != EsStoreGet()->event)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function must be called as a trigger on \"es_event\"")));
	return trigger;
}

static void
require_column(bool isnull, const char *name)
{
	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NOT_NULL_VIOLATION),
				 errmsg("column \"%s\" of an event must not be null", name)));
}

static void
reject_assigned_column(bool isnull, const char *name)
{
	if (!isnull)
		ereport(ERROR,
				(errcode(ERRCODE_GENERATED_ALWAYS),
				 errmsg("column \"%s\" of an event is assigned by the store", name),
				 errhint("Leave it out. Only the owner of the table and a replication worker may insert events with their position set.")));
}

/*
 * A row that has its place already: a restored dump or a replicated event.
 * It is taken as it is, names excepted, and the sequence follows it.
 */
static void
accept_placed_row(TriggerData *trigger, Datum *values, bool *nulls)
{
	if (!IsLogicalWorker() &&
		!EsOwnsRelation(RelationGetRelid(trigger->tg_relation), GetUserId()))
		reject_assigned_column(false, "position");
	if (DatumGetInt64(values[ES_EVENT_POSITION - 1]) < 1 ||
		(!nulls[ES_EVENT_VERSION - 1] &&
		 DatumGetInt64(values[ES_EVENT_VERSION - 1]) < 1))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("position and version of an event must be positive")));
	EsPassPosition(EsStoreGet(), DatumGetInt64(values[ES_EVENT_POSITION - 1]));
}

/* A version that the row brings along is the one it wants to become. */
static int64
expected_version(Datum version, bool isnull)
{
	if (isnull)
		return ES_VERSION_ANY;
	if (DatumGetInt64(version) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid version " INT64_FORMAT, DatumGetInt64(version)),
				 errhint("Leave the version out, or give the one that the event is to have.")));
	return DatumGetInt64(version) - 1;
}

static int32
type_version(Datum version, bool isnull)
{
	if (isnull)
		return 0;				/* the newest */
	if (DatumGetInt32(version) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid type version %d", DatumGetInt32(version))));
	return DatumGetInt32(version);
}

/* Forget statements that failed: their transactions are gone. */
static void
drop_failed_statements(void)
{
	int			nest_level = GetCurrentTransactionNestLevel();

	if (statement_lxid != EsCurrentLxid())
		statement = NULL;
	while (statement != NULL &&
		   (statement->nest_level > nest_level ||
			(statement->nest_level == nest_level &&
			 statement->subxact != GetCurrentSubTransactionId())))
		statement = statement->outer;
}

static void
begin_statement(void)
{
	InsertStatement *begun = MemoryContextAllocZero(TopTransactionContext,
													sizeof(InsertStatement));

	drop_failed_statements();
	begun->outer = statement;
	begun->nest_level = GetCurrentTransactionNestLevel();
	begun->subxact = GetCurrentSubTransactionId();
	statement = begun;
	statement_lxid = EsCurrentLxid();
}

static void
require_statement(void)
{
	drop_failed_statements();
	if (statement == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("trigger \"%s\" is missing or disabled", "es_event_statement_begin"),
				 errhint("Without it inline projections would miss events.")));
}

/*
 * An id that a row brings along must not be an archived event's.  Remember it,
 * to ask again when the row is in the table; archive.c says why.
 */
static void
check_id(const pg_uuid_t *id)
{
	require_statement();
	if (statement->nids == 0)
		statement->archived = EsLastArchived();
	EsCheckIdArchived(id, 0);
	if (statement->nids == statement->max_ids)
	{
		statement->max_ids = Max(64, statement->max_ids * 2);
		if (statement->ids == NULL)
			statement->ids = MemoryContextAlloc(TopTransactionContext,
												statement->max_ids * sizeof(pg_uuid_t));
		else
			statement->ids = repalloc_huge(statement->ids,
										   statement->max_ids * sizeof(pg_uuid_t));
	}
	statement->ids[statement->nids++] = *id;
}

/* Ask again, if there are new segments. */
static void
recheck_ids(const InsertStatement *ended)
{
	if (ended->nids == 0 || ES_BUG == 84 || EsLastArchived() == ended->archived)
		return;
	for (int i = 0; i < ended->nids; i++)
	{
		CHECK_FOR_INTERRUPTS();
		EsCheckIdArchived(&ended->ids[i], ended->archived);
	}
}

/* Remember a row of the running statement, if anybody wants it. */
static void
note_position(int64 position)
{
	if (!EsInsertedIsWanted())
		return;
	require_statement();
	if (statement->n == statement->max)
	{
		statement->max = Max(64, statement->max * 2);
		if (statement->positions == NULL)
			statement->positions = MemoryContextAlloc(TopTransactionContext,
													  statement->max * sizeof(int64));
		else
			statement->positions = repalloc_huge(statement->positions,
												 statement->max * sizeof(int64));
	}
	statement->positions[statement->n++] = position;
}

static void
end_statement(Relation event)
{
	InsertStatement *ended;

	drop_failed_statements();
	ended = statement;
	if (ended == NULL)
		return;
	statement = ended->outer;
	recheck_ids(ended);
	if (ended->ids != NULL)
		pfree(ended->ids);
	if (ended->n > 0)
	{
		EsInsertedTell(event, ended->positions, ended->n);
		pfree(ended->positions);
	}
	pfree(ended);
}

/* Check a new row and give it its place; values and nulls are changed. */
static void
place_row(TriggerData *trigger, Datum *values, bool *nulls)
{
	EsNewEvent	event = {0};
	EsAppend	append = {.events = &event,.nevents = 1};

	reject_assigned_column(nulls[ES_EVENT_RECORDED_AT - 1], "recorded_at");
	event.type_version = type_version(values[ES_EVENT_TYPE_VERSION - 1],
									  nulls[ES_EVENT_TYPE_VERSION - 1]);
	append.expected_version = expected_version(values[ES_EVENT_VERSION - 1],
											   nulls[ES_EVENT_VERSION - 1]);
	append.stream_id = DatumGetTextPP(values[ES_EVENT_STREAM_ID - 1]);
	event.event_type = DatumGetTextPP(values[ES_EVENT_EVENT_TYPE - 1]);
	event.data = DatumGetJsonbP(values[ES_EVENT_DATA - 1]);
	if (!nulls[ES_EVENT_METADATA - 1])
		event.metadata = DatumGetJsonbP(values[ES_EVENT_METADATA - 1]);
	event.metadata = EsMergeMetadata(event.metadata);
	if (!nulls[ES_EVENT_TAGS - 1])
		event.tags = EsCheckTags(DatumGetArrayTypeP(values[ES_EVENT_TAGS - 1]));
	event.has_id = !nulls[ES_EVENT_EVENT_ID - 1];
	if (event.has_id)
	{
		event.event_id = *DatumGetUUIDP(values[ES_EVENT_EVENT_ID - 1]);
		check_id(&event.event_id);
	}

	EsEpochConfirm(trigger->tg_relation, EsStoreGet());
	EsAssign(trigger->tg_relation, EsStoreGet(), &append);
	if (event.tags != NULL)
		EsTagsExpect(event.tags, event.position);
	note_position(event.position);

	memset(nulls, false, ES_EVENT_NATTS * sizeof(bool));
	values[ES_EVENT_POSITION - 1] = Int64GetDatum(event.position);
	values[ES_EVENT_VERSION - 1] = Int64GetDatum(event.version);
	values[ES_EVENT_RECORDED_AT - 1] = TimestampTzGetDatum(append.recorded_at);
	values[ES_EVENT_EVENT_ID - 1] = UUIDPGetDatum(memcpy(palloc(UUID_LEN),
														 &event.event_id, UUID_LEN));
	values[ES_EVENT_TYPE_VERSION - 1] = Int32GetDatum(event.type_version);
	values[ES_EVENT_METADATA - 1] = PointerGetDatum(event.metadata);
	nulls[ES_EVENT_METADATA - 1] = event.metadata == NULL;
	values[ES_EVENT_TAGS - 1] = PointerGetDatum(event.tags);
	nulls[ES_EVENT_TAGS - 1] = event.tags == NULL;
}

/*
 * BEFORE INSERT, for each row.
 */
Datum
es_event_insert(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = trigger_data(fcinfo);
	HeapTuple	row = trigger->tg_trigtuple;
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);
	Datum	   *values;
	bool	   *nulls;

	if (!TRIGGER_FIRED_BY_INSERT(trigger->tg_event) ||
		!TRIGGER_FIRED_BEFORE(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function must be fired before insert for each row")));

	values = palloc(desc->natts * sizeof(Datum));
	nulls = palloc(desc->natts * sizeof(bool));
	heap_deform_tuple(row, desc, values, nulls);
	if (!nulls[ES_EVENT_POSITION - 1] &&
		EsIsAssigned(DatumGetInt64(values[ES_EVENT_POSITION - 1])))
		PG_RETURN_POINTER(row);

	require_column(nulls[ES_EVENT_STREAM_ID - 1], "stream_id");
	require_column(nulls[ES_EVENT_EVENT_TYPE - 1], "event_type");
	require_column(nulls[ES_EVENT_DATA - 1], "data");
	EsCheckStreamId(DatumGetTextPP(values[ES_EVENT_STREAM_ID - 1]));
	EsCheckEventType(DatumGetTextPP(values[ES_EVENT_EVENT_TYPE - 1]));

	if (!nulls[ES_EVENT_POSITION - 1])
	{
		accept_placed_row(trigger, values, nulls);
		PG_RETURN_POINTER(row);
	}
	place_row(trigger, values, nulls);
	PG_RETURN_POINTER(heap_form_tuple(desc, values, nulls));
}

/*
 * An origin that archives deletes events, and replicates that.  Where its
 * archive is replicated, too, the event has come with its segment, earlier in
 * the same transaction, and may go.  Elsewhere it stays.
 */
static HeapTuple
replicated_delete(TriggerData *trigger)
{
	Snapshot	snapshot = RegisterSnapshot(GetCatalogSnapshot(EsStoreGet()->archive_segment));
	EsArchiveSegment segment;
	bool		isnull;
	int64		position = DatumGetInt64(heap_getattr(trigger->tg_trigtuple, ES_EVENT_POSITION,
													  RelationGetDescr(trigger->tg_relation),
													  &isnull));
	bool		archived = EsArchiveFindByPosition(position, snapshot, &segment) &&
		segment.last_position >= position;

	UnregisterSnapshot(snapshot);
	return archived ? trigger->tg_trigtuple : NULL;
}

/*
 * BEFORE UPDATE, DELETE or TRUNCATE, for statements and for rows: the
 * replication worker's changes fire row triggers only.
 */
Datum
es_event_refuse(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = trigger_data(fcinfo);
	const char *verb = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? "update" :
		TRIGGER_FIRED_BY_DELETE(trigger->tg_event) ? "delete" : "truncate";

	if (IsLogicalWorker() && TRIGGER_FIRED_FOR_ROW(trigger->tg_event) &&
		TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
		PG_RETURN_POINTER(replicated_delete(trigger));
	ereport(ERROR,
			(errcode(ERRCODE_WRONG_OBJECT_TYPE),
			 errmsg("cannot %s events", verb),
			 errdetail("Events are immutable facts."),
			 errhint("Append a compensating event.")));
	PG_RETURN_NULL();
}

/*
 * BEFORE and AFTER INSERT, for statements.
 */
Datum
es_event_statement(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = trigger_data(fcinfo);

	if (!TRIGGER_FIRED_BY_INSERT(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_STATEMENT(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function must be fired before or after insert for each statement")));
	if (TRIGGER_FIRED_BEFORE(trigger->tg_event))
		begin_statement();
	else
		end_statement(trigger->tg_relation);
	PG_RETURN_POINTER(NULL);
}

/*
 * The row that a trigger before a table which only the store itself writes,
 * past the triggers, is to let through; NULL if none.  Rows come in with a
 * dump, by the table's owner, or with a subscription; and a subscription may
 * take away what its origin took away.
 */
static HeapTuple
copied_row(FunctionCallInfo fcinfo)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	TriggerEvent event;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function must be called as a trigger")));
	event = trigger->tg_event;
	if (!TRIGGER_FIRED_FOR_ROW(event))
		return NULL;
	if (IsLogicalWorker())
		return TRIGGER_FIRED_BY_UPDATE(event) ? trigger->tg_newtuple : trigger->tg_trigtuple;
	if (TRIGGER_FIRED_BY_INSERT(event) &&
		EsOwnsRelation(RelationGetRelid(trigger->tg_relation), GetUserId()))
		return trigger->tg_trigtuple;
	return NULL;
}

/* The table whose trigger was fired. */
static char *
guarded_table(FunctionCallInfo fcinfo)
{
	return RelationGetRelationName(((TriggerData *) fcinfo->context)->tg_relation);
}

/*
 * BEFORE anything on es_event_tag and es_retagged.
 */
Datum
es_event_tag_guard(PG_FUNCTION_ARGS)
{
	HeapTuple	row = copied_row(fcinfo);

	if (row == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("cannot change table \"%s\"", guarded_table(fcinfo)),
				 errdetail("The store itself keeps it in step with the events."),
				 errhint("Give events their tags when appending; es_retag() changes them later.")));
	PG_RETURN_POINTER(row);
}

/*
 * BEFORE anything on the archive's tables.
 */
Datum
es_archive_guard(PG_FUNCTION_ARGS)
{
	HeapTuple	row = copied_row(fcinfo);

	if (row == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("cannot change table \"%s\"", guarded_table(fcinfo)),
				 errdetail("It holds archived events, which are immutable facts."),
				 errhint("es_detach_segment() and es_import_segment() take segments off the server and back.")));
	PG_RETURN_POINTER(row);
}
