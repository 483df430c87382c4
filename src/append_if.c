/*
 * append_if.c: append events to any streams, unless others match a query.
 *
 * boundary.c says why the check holds, append.c in which order locks are taken
 * where events come with ids.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/uuid.h"

#include "boundary.h"
#include "definition.h"
#include "epoch.h"
#include "event_set.h"
#include "event_type.h"
#include "metadata.h"
#include "point.h"
#include "stat.h"
#include "tag.h"

/* The events of a call. */
typedef struct Batch
{
	EsEventSet *set;
	bool		has_ids;		/* given by the caller, to all of them */
} Batch;

PG_FUNCTION_INFO_V1(es_append_if);
PG_FUNCTION_INFO_V1(es_try_append_if);

/* ----- the events ----- */

static void
report_event(int n, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("element %d of \"events\" is no event", n + 1),
			 errdetail("%s", detail),
			 errhint("An event is {\"type\": ..., \"data\": ..., \"stream\": ..., \"metadata\": ..., \"tags\": [...], \"id\": ...}; type and data are required.")));
}

static text *
string_member(JsonbValue *value, int n, const char *key)
{
	if (value->type != jbvString)
		report_event(n, psprintf("\"%s\" must be a string.", key));
	return cstring_to_text_with_len(value->val.string.val, value->val.string.len);
}

/* One member of an event's object; false when there is no such key. */
static bool
take_member(EsNewEvent *event, text **stream_id, int n, const char *key,
			JsonbValue *value)
{
	if (strcmp(key, "data") == 0)
		event->data = JsonbValueToJsonb(value);
	else if (strcmp(key, "type") == 0)
		event->event_type = string_member(value, n, key);
	else if (strcmp(key, "stream") == 0)
		*stream_id = value->type == jbvNull ? NULL : string_member(value, n, key);
	else if (strcmp(key, "metadata") == 0)
		event->metadata = value->type == jbvNull ? NULL : JsonbValueToJsonb(value);
	else if (strcmp(key, "tags") == 0)
		event->tags = value->type == jbvNull ? NULL :
			EsTagsOfJson(&JsonbValueToJsonb(value)->root);
	else if (strcmp(key, "id") == 0)
	{
		event->has_id = value->type != jbvNull;
		if (event->has_id)
			event->event_id = *DatumGetUUIDP(DirectFunctionCall1(uuid_in,
																 CStringGetDatum(text_to_cstring(string_member(value, n, key)))));
	}
	else
		return false;
	return true;
}

/* Take all members of an event's object. */
static void
take_members(EsNewEvent *event, text **stream_id, int n, JsonbValue *object)
{
	JsonbIterator *it;
	JsonbValue	key;

	if (object->type != jbvBinary || !JsonContainerIsObject(object->val.binary.data))
		report_event(n, "It is no JSON object.");
	it = JsonbIteratorInit(object->val.binary.data);
	(void) JsonbIteratorNext(&it, &key, true);
	while (JsonbIteratorNext(&it, &key, true) == WJB_KEY)
	{
		char	   *name = pnstrdup(key.val.string.val, key.val.string.len);
		JsonbValue	value;

		(void) JsonbIteratorNext(&it, &value, true);
		if (!take_member(event, stream_id, n, name, &value))
			report_event(n, psprintf("An event has no key \"%s\".", name));
	}
	if (event->event_type == NULL || event->data == NULL)
		report_event(n, psprintf("\"%s\" is missing.",
								 event->event_type == NULL ? "type" : "data"));
}

/* Ids may be given to all events or to none. */
static void
parse_event(Batch *batch, int n, JsonbValue *object)
{
	EsNewEvent *event = &batch->set->events[n];
	text	   *stream_id = NULL;

	take_members(event, &stream_id, n, object);
	EsCheckEventType(event->event_type);
	if (n > 0 && event->has_id != batch->has_ids)
		report_event(n, "Give an \"id\" to all events or to none: a batch of which only some have ids could never be repeated.");
	batch->has_ids = event->has_id;
	event->metadata = EsMergeMetadata(event->metadata);
	EsEventSetPlace(batch->set, n, stream_id);
}

static Batch
batch_argument(FunctionCallInfo fcinfo, int argument)
{
	Batch		batch = {0};
	Jsonb	   *json;
	int			nevents;

	EsRequireArgument(fcinfo, argument, "events");
	json = PG_GETARG_JSONB_P(argument);
	if (!JB_ROOT_IS_ARRAY(json) || JB_ROOT_IS_SCALAR(json) || JB_ROOT_COUNT(json) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"events\" must be a JSON array of at least one event")));
	nevents = JB_ROOT_COUNT(json);
	batch.set = EsEventSetCreate(palloc0(nevents * sizeof(EsNewEvent)), nevents);
	for (int i = 0; i < nevents; i++)
		parse_event(&batch, i, getIthJsonbValueFromContainer(&json->root, i));
	EsEventSetCut(batch.set);
	return batch;
}

/* ----- the condition ----- */

static EsCondition
condition_arguments(FunctionCallInfo fcinfo)
{
	EsCondition condition = {.query = NULL};

	if (!PG_ARGISNULL(1))
		condition.query = EsBoundaryParse(PG_GETARG_JSONB_P(1));
	condition.has_after = !PG_ARGISNULL(2);
	condition.after = EsNaturalArgument(fcinfo, 2, "after", 0);
	condition.has_epoch = !PG_ARGISNULL(3);
	if (condition.has_epoch)
		condition.epoch = PG_GETARG_INT64(3);
	return condition;
}

static void
report_conflict(const EsCondition *condition, const EsConflict *conflict)
{
	bool		unique = !condition->has_after;
	char	   *tags = conflict->has_tags ?
		OidOutputFunctionCall(F_ARRAY_OUT, conflict->tags) : "{}";
	const char *why = conflict->own ? " It was appended by this transaction." : "";

	ereport(ERROR,
			(errcode(unique ? ERRCODE_UNIQUE_VIOLATION : ERRCODE_T_R_SERIALIZATION_FAILURE),
			 unique ? errmsg("an event matches the append condition") :
			 conflict->unseen ? errmsg("an event newer than this transaction's snapshot matches the append condition") :
			 errmsg("an event matches the append condition behind position " INT64_FORMAT,
					condition->after),
			 errdetail("The event at position " INT64_FORMAT " of type \"%s\" with tags %s matches item %d of the query.%s",
					   conflict->position, text_to_cstring(conflict->event_type),
					   tags, conflict->item, why),
			 unique ? 0 :
			 conflict->own ? errhint("Give as \"after\" what the earlier append answered, or read the boundary again.") :
			 errhint("%s", IsolationUsesXactSnapshot() ?
					 "Roll back, read the boundary again and decide again." :
					 "Read the boundary again and decide again."),
			 err_generic_string(PG_DIAG_CONSTRAINT_NAME, "es_append_condition")));
}

/* ----- appending ----- */

/* Take the locks that a look for a retry needs, without any tag. */
static void
lock_streams(const EsStore *store, const EsEventSet *set)
{
	EsLockKey  *keys = palloc(set->nruns * sizeof(EsLockKey));

	for (int i = 0; i < set->nruns; i++)
		keys[i] = EsLockKeyOf(ES_LOCK_STREAM, set->runs[i].stream_id, ExclusiveLock);
	EsLockKeys(store, keys, set->nruns);
	pfree(keys);
}

/* Take all locks of the append, those of its condition included. */
static void
lock_all(const EsStore *store, const EsEventSet *set, const EsBoundary *query)
{
	EsLockKey  *keys;
	int			nkeys;

	if (query != NULL && query->broad && ES_BUG != 65)
	{
		EsGateClose(store);
		return;
	}
	keys = EsEventSetKeys(set, query == NULL ? 0 : query->nitems, &nkeys);
	if (query != NULL && ES_BUG != 61)
		nkeys += EsBoundaryAddKeys(query, keys + nkeys);
	EsLockKeys(store, keys, nkeys);
	pfree(keys);
}

/*
 * Apply what is declared of the events' types and take all locks; append.c
 * says in which order.  True for a retry, which is answered already.
 */
static bool
prepare(Relation event, const EsStore *store, Batch *batch,
		const EsBoundary *query)
{
	bool		all_at_once = !batch->has_ids || !EsEventTypesDeclared();

	if (!all_at_once && (query == NULL || !query->broad))
		lock_streams(store, batch->set);
	else if (batch->has_ids)
		lock_all(store, batch->set, query);
	if (batch->has_ids && EsEventSetIsRetry(event, store, batch->set))
		return true;
	EsEventSetApplyTypes(batch->set);
	if (!all_at_once || !batch->has_ids)
		lock_all(store, batch->set, query);
	return false;
}

/*
 * Append the batch unless an event breaks the condition; that event, or
 * position 0, is the answer.  *position becomes that of the last event.
 */
static EsConflict
append_if(Batch *batch, const EsCondition *condition, int64 *position)
{
	const EsStore *store;
	Relation	event = EsEventOpen(&store, RowExclusiveLock);
	EsConflict	conflict = {0};

	EsCheckPrivilege(event, ACL_INSERT);
	if (condition->query != NULL)
		EsCheckPrivilege(event, ACL_SELECT);
	*position = 0;
	if (prepare(event, store, batch, condition->query))
	{
		EsStatCount(ES_COUNT_RETRIES, 1);
		*position = batch->set->events[batch->set->nevents - 1].position;
		EsNoteLastPosition(*position);
	}
	else
	{
		if (condition->has_epoch)
			EsEpochCheck(event, store, condition->epoch, condition->after);
		if (condition->query != NULL)
			conflict = EsBoundaryConflict(event, store, condition);
		if (conflict.position == 0)
			*position = EsEventSetAppend(batch->set);
		else
			EsStatCount(ES_COUNT_CONFLICTS, 1);
	}
	table_close(event, NoLock);
	return conflict;
}

/*
 * es_append_if(events jsonb, fail_if_events_match jsonb, after bigint, epoch bigint)
 *		→ bigint
 */
Datum
es_append_if(PG_FUNCTION_ARGS)
{
	EsCondition condition;
	EsConflict	conflict;
	Batch		batch;
	int64		position;

	EsRequireReadWrite("es_append_if()");
	PreventCommandIfParallelMode("es_append_if()");
	batch = batch_argument(fcinfo, 0);
	condition = condition_arguments(fcinfo);
	conflict = append_if(&batch, &condition, &position);
	if (conflict.position != 0)
		report_conflict(&condition, &conflict);
	PG_RETURN_INT64(position);
}

/* The columns that es_try_append_if answers. */
static void
fill_answer(const EsConflict *conflict, int64 position, Datum *values, bool *nulls)
{
	bool		appended = conflict->position == 0;

	values[0] = BoolGetDatum(appended);
	values[1] = Int64GetDatum(position);
	nulls[1] = !appended;
	if (appended)
		return;
	nulls[2] = nulls[3] = nulls[5] = false;
	nulls[4] = !conflict->has_tags;
	values[2] = Int64GetDatum(conflict->position);
	values[3] = PointerGetDatum(conflict->event_type);
	values[4] = conflict->tags;
	values[5] = Int32GetDatum(conflict->item);
}

/*
 * es_try_append_if(events jsonb, fail_if_events_match jsonb, after bigint, epoch bigint)
 *		→ (appended boolean, position bigint, conflict_position bigint,
 *		   conflict_type text, conflict_tags text[], conflict_item integer)
 */
Datum
es_try_append_if(PG_FUNCTION_ARGS)
{
	EsCondition condition;
	EsConflict	conflict;
	Batch		batch;
	int64		position;
	TupleDesc	desc;
	Datum		values[6] = {0};
	bool		nulls[6] = {false, true, true, true, true, true};

	EsRequireReadWrite("es_try_append_if()");
	PreventCommandIfParallelMode("es_try_append_if()");
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	batch = batch_argument(fcinfo, 0);
	condition = condition_arguments(fcinfo);
	conflict = append_if(&batch, &condition, &position);
	fill_answer(&conflict, position, values, nulls);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
