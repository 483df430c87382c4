/*
 * trial.c: commands that leave no trace.
 *
 * Decisions are made in a subtransaction that is rolled back, so that what a
 * decider does besides deciding is undone.  es_test does not touch the store
 * at all: the given events are folded from memory.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "attempt.h"
#include "boundary_state.h"
#include "catalog.h"
#include "category.h"
#include "decider.h"
#include "event_type.h"
#include "fold.h"
#include "query_template.h"
#include "snapshot.h"
#include "tag.h"

/* A command to try. */
typedef struct Trial
{
	const char *aggregate;
	text	   *stream_id;		/* NULL: none */
	text	   *command_type;
	Jsonb	   *command;
	Jsonb	   *given;			/* events to fold; NULL: the stream's */
	EsDecision	decision;		/* the outcome */
	ErrorData  *error;			/* or an error other than a rejection */
	Relation	event;
} Trial;

/* How many tests this session ran since es_test_done(), and how they went. */
static int	tests_run = 0;
static int	tests_failed = 0;

PG_FUNCTION_INFO_V1(es_decide_dry);
PG_FUNCTION_INFO_V1(es_test);
PG_FUNCTION_INFO_V1(es_test_done);

/* ----- events written as JSON ----- */

/* The member of an object, as jsonb; NULL if there is none. */
static Jsonb *
member(Jsonb *object, const char *key)
{
	JsonbValue	value;

	if (!JB_ROOT_IS_OBJECT(object) ||
		getKeyJsonValueFromContainer(&object->root, key, strlen(key), &value) == NULL)
		return NULL;
	return JsonbValueToJsonb(&value);
}

/* The member of an object, as text; NULL if it is no string. */
static text *
string_member(Jsonb *object, const char *key)
{
	JsonbValue	value;

	if (!JB_ROOT_IS_OBJECT(object) ||
		getKeyJsonValueFromContainer(&object->root, key, strlen(key), &value) == NULL ||
		value.type != jbvString)
		return NULL;
	return cstring_to_text_with_len(value.val.string.val, value.val.string.len);
}

/* The events in a JSON array; 22023 unless they are. */
static List *
events_of_json(Jsonb *array, const char *argument)
{
	List	   *events = NIL;
	bool		is_array = JB_ROOT_IS_ARRAY(array) && !JB_ROOT_IS_SCALAR(array);
	int			count = is_array ? (int) JB_ROOT_COUNT(array) : -1;

	for (int i = 0; i < count; i++)
	{
		Jsonb	   *event = JsonbValueToJsonb(getIthJsonbValueFromContainer(&array->root, i));

		if (string_member(event, "type") == NULL)
			count = -1;
		events = lappend(events, event);
	}
	if (count < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be a JSON array of events", argument),
				 errhint("Write an event as {\"type\": \"MoneyDeposited\", \"data\": {\"amount\": 5}}.")));
	return events;
}

/* The tags that an event of a JSON array comes with. */
static ArrayType *
given_tags(Jsonb *event)
{
	Jsonb	   *tags = member(event, "tags");

	return tags == NULL ? NULL : EsTagsOfJson(&tags->root);
}

static Jsonb *
given_data(Jsonb *event)
{
	Jsonb	   *data = member(event, "data");

	return data != NULL ? data :
		DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum("{}")));
}

/* A row of es_event as an append would have made it. */
static void
fill_event(TupleTableSlot *slot, const Trial *trial, Jsonb *json, int64 version)
{
	Jsonb	   *metadata = member(json, "metadata");
	text	   *stream_id = string_member(json, "stream");
	EsNewEvent	event = {.event_type = string_member(json, "type"),.data = given_data(json),
	.tags = given_tags(json)};

	EsEventTypesAddTags(&event, 1);
	if (stream_id == NULL)
		stream_id = trial->stream_id;
	ExecClearTuple(slot);
	memset(slot->tts_isnull, true, slot->tts_tupleDescriptor->natts * sizeof(bool));
	memset(slot->tts_isnull, false, ES_EVENT_DATA * sizeof(bool));
	slot->tts_values[ES_EVENT_POSITION - 1] = Int64GetDatum(version);
	slot->tts_values[ES_EVENT_VERSION - 1] = Int64GetDatum(version);
	slot->tts_values[ES_EVENT_RECORDED_AT - 1] =
		TimestampTzGetDatum(GetCurrentTransactionStartTimestamp());
	slot->tts_values[ES_EVENT_EVENT_ID - 1] = UUIDPGetDatum(palloc0(UUID_LEN));
	slot->tts_values[ES_EVENT_TYPE_VERSION - 1] = Int32GetDatum(1);
	slot->tts_values[ES_EVENT_STREAM_ID - 1] = PointerGetDatum(stream_id);
	slot->tts_values[ES_EVENT_EVENT_TYPE - 1] = PointerGetDatum(event.event_type);
	slot->tts_values[ES_EVENT_DATA - 1] = JsonbPGetDatum(event.data);
	slot->tts_values[ES_EVENT_METADATA - 1] = JsonbPGetDatum(metadata);
	slot->tts_isnull[ES_EVENT_METADATA - 1] = metadata == NULL;
	slot->tts_values[ES_EVENT_TAGS - 1] = PointerGetDatum(event.tags);
	slot->tts_isnull[ES_EVENT_TAGS - 1] = event.tags == NULL;
	ExecStoreVirtualTuple(slot);
}

/* ----- try ----- */

/* Is the event in the slot part of what the command is decided on? */
static bool
concerns(const EsBoundary *query, TupleTableSlot *slot)
{
	return query == NULL ||
		EsBoundaryMatches(query,
						  DatumGetTextPP(slot->tts_values[ES_EVENT_EVENT_TYPE - 1]),
						  (ArrayType *) DatumGetPointer(slot->tts_values[ES_EVENT_TAGS - 1]));
}

/* Fold the given events; of a boundary, those that match. */
static void
fold_given(EsFold *fold, const Trial *trial, const EsBoundary *query)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(fold->event),
													&TTSOpsVirtual);
	ListCell   *cell;

	foreach(cell, events_of_json(trial->given, "given"))
	{
		fill_event(slot, trial, lfirst(cell), ++fold->version);
		if (concerns(query, slot))
			EsFoldApply(fold->aggregate, slot);
	}
	ExecDropSingleTupleTableSlot(slot);
}

/* Begin the fold of what the command is decided on, and fold it. */
static void
fold_trial(EsFold *fold, EsAggregate *aggregate, const Trial *trial,
		   Relation event)
{
	EsBoundary *query = aggregate->boundary == NULL ? NULL :
		EsQueryTemplateFill(aggregate->boundary, trial->command);

	if (query != NULL)
		EsFoldBeginBoundary(fold, aggregate, event, trial->command);
	else if (trial->stream_id != NULL)
		EsFoldBegin(fold, aggregate, event, trial->stream_id, GetActiveSnapshot());
	else
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", "stream_id"),
				 errdetail("Aggregate \"%s\" folds streams.", aggregate->name)));
	if (trial->given != NULL)
		fold_given(fold, trial, query);
	else if (query != NULL)
		(void) EsBoundaryFold(fold, EsStoreGet(), query, GetActiveSnapshot());
	else
		EsSnapshotFold(fold);
}

/* Answers false: nothing of it is to be kept. */
static bool
decide(void *arg)
{
	Trial	   *trial = arg;
	EsAggregate *aggregate = EsAggregateOpen(trial->aggregate);
	EsDecider  *decider = EsDeciderFind(aggregate, trial->command_type);
	EsFold		fold;

	fold_trial(&fold, aggregate, trial, trial->event);
	EsDeciderDecide(aggregate, decider,
					trial->given != NULL && aggregate->boundary != NULL ? NULL : trial->stream_id,
					trial->command, &trial->decision);
	EsFoldEnd(&fold);
	EsAggregateClose(aggregate);
	EsEventTypesAddTags(trial->decision.events, trial->decision.nevents);
	return false;
}

/* Errors that say nothing about the command. */
static bool
is_interruption(int sqlstate)
{
	return sqlstate == ERRCODE_QUERY_CANCELED ||
		ERRCODE_TO_CATEGORY(sqlstate) == ERRCODE_OPERATOR_INTERVENTION ||
		ERRCODE_TO_CATEGORY(sqlstate) == ERRCODE_INSUFFICIENT_RESOURCES;
}

/*
 * Decide, and undo whatever was done for it.  An error raised on the way is
 * the trial's outcome.
 */
static void
run_trial(Trial *trial, Relation event)
{
	trial->event = event;
	(void) EsAttempt(decide, trial, &trial->error);
	if (trial->error != NULL && is_interruption(trial->error->sqlerrcode))
		ReThrowError(trial->error);
}

/* ----- es_decide_dry ----- */

static void
put_decision(ReturnSetInfo *result, const EsDecision *decision)
{
	Datum		values[6] = {0};
	bool		nulls[6];

	memset(nulls, true, sizeof(nulls));
	if (decision->rejection != NULL)
	{
		values[4] = CStringGetTextDatum(decision->rejection);
		nulls[4] = false;
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	for (int i = 0; i < decision->nevents; i++)
	{
		EsNewEvent *event = &decision->events[i];

		values[0] = PointerGetDatum(event->event_type);
		values[1] = JsonbPGetDatum(event->data);
		values[2] = PointerGetDatum(event->metadata);
		values[3] = PointerGetDatum(event->tags);
		values[5] = PointerGetDatum(decision->stream_ids[i]);
		for (int n = 0; n < 6; n++)
			nulls[n] = values[n] == (Datum) 0;
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
}

/*
 * es_decide_dry(stream_id text, command_type text, command jsonb,
 *				 aggregate text)
 *		→ SETOF (event_type, data, metadata, tags, rejection, stream)
 */
Datum
es_decide_dry(PG_FUNCTION_ARGS)
{
	Trial		trial = {0};
	Relation	event;

	PreventCommandIfParallelMode("es_decide_dry()");
	if (PG_ARGISNULL(3))
		EsRequireArgument(fcinfo, 0, "stream_id");
	EsRequireArgument(fcinfo, 1, "command_type");
	EsRequireArgument(fcinfo, 2, "command");
	trial.stream_id = PG_ARGISNULL(0) ? NULL : PG_GETARG_TEXT_PP(0);
	trial.command_type = PG_GETARG_TEXT_PP(1);
	trial.command = PG_GETARG_JSONB_P(2);
	event = table_open(EsStoreGet()->event, AccessShareLock);
	EsCheckPrivilege(event, ACL_SELECT);
	trial.aggregate = EsAggregateName(PG_ARGISNULL(3) ? NULL : PG_GETARG_TEXT_PP(3),
									  trial.stream_id);
	InitMaterializedSRF(fcinfo, 0);
	run_trial(&trial, event);
	if (trial.error != NULL)
	{
		if (trial.error->sqlerrcode != ERRCODE_RAISE_EXCEPTION)
			ReThrowError(trial.error);
		trial.decision.rejection = trial.error->message;
	}
	put_decision((ReturnSetInfo *) fcinfo->resultinfo, &trial.decision);
	table_close(event, AccessShareLock);
	return (Datum) 0;
}

/* ----- es_test ----- */

static bool
same_json(Jsonb *a, Jsonb *b)
{
	return a != NULL && b != NULL &&
		compareJsonbContainers(&a->root, &b->root) == 0;
}

/* Of two checked sets, NULL being the empty one. */
static bool
same_tags(ArrayType *a, ArrayType *b)
{
	return a == NULL || b == NULL ? a == b :
		datumIsEqual(PointerGetDatum(a), PointerGetDatum(b), false, -1);
}

/* Does the event have the type and, where they are wanted, the contents? */
static bool
is_wanted_event(const EsNewEvent *event, Jsonb *wanted)
{
	text	   *type = string_member(wanted, "type");
	Jsonb	   *data = member(wanted, "data");
	Jsonb	   *metadata = member(wanted, "metadata");
	Jsonb	   *tags = member(wanted, "tags");

	return VARSIZE_ANY_EXHDR(event->event_type) == VARSIZE_ANY_EXHDR(type) &&
		memcmp(VARDATA_ANY(event->event_type), VARDATA_ANY(type),
			   VARSIZE_ANY_EXHDR(type)) == 0 &&
		(data == NULL || same_json(event->data, data)) &&
		(metadata == NULL || same_json(event->metadata, metadata)) &&
		(tags == NULL || same_tags(event->tags, EsTagsOfJson(&tags->root)));
}

/* What came out, in one line. */
static char *
outcome_text(const Trial *trial)
{
	StringInfoData text;

	if (trial->error != NULL)
		return psprintf("error %s: %s",
						unpack_sql_state(trial->error->sqlerrcode),
						trial->error->message);
	if (trial->decision.rejection != NULL)
		return psprintf("rejected: %s", trial->decision.rejection);
	if (trial->decision.nevents == 0)
		return pstrdup("no events");
	initStringInfo(&text);
	for (int i = 0; i < trial->decision.nevents; i++)
	{
		EsNewEvent *event = &trial->decision.events[i];

		appendStringInfo(&text, "%s%s %s", i > 0 ? ", " : "",
						 text_to_cstring(event->event_type),
						 JsonbToCString(NULL, &event->data->root,
										VARSIZE(event->data)));
		if (event->tags != NULL)
			appendStringInfo(&text, " tags %s",
							 OidOutputFunctionCall(F_ARRAY_OUT, PointerGetDatum(event->tags)));
	}
	return text.data;
}

static bool
is_wanted_outcome(const Trial *trial, List *events, const char *error)
{
	const char *message = trial->error != NULL ? trial->error->message :
	trial->decision.rejection;
	ListCell   *cell;
	int			i = 0;

	if (error != NULL || message != NULL)
		return error != NULL && message != NULL && strcmp(error, message) == 0;
	if (list_length(events) != trial->decision.nevents)
		return false;
	foreach(cell, events)
		if (!is_wanted_event(&trial->decision.events[i++], lfirst(cell)))
			return false;
	return true;
}

static char *
wanted_text(Jsonb *events, const char *error)
{
	if (error != NULL)
		return psprintf("rejected: %s", error);
	return JsonbToCString(NULL, &events->root, VARSIZE(events));
}

/* TAP goes by lines. */
static char *
in_one_line(char *text)
{
	for (char *c = text; *c != '\0'; c++)
		if (*c == '\n' || *c == '\r')
			*c = ' ';
	return text;
}

static void
put_text(ReturnSetInfo *result, const char *text)
{
	Datum		value = CStringGetTextDatum(text);
	bool		isnull = false;

	tuplestore_putvalues(result->setResult, result->setDesc, &value, &isnull);
}

/*
 * The schema of pgTAP where one of its plans is under way, else NULL.  It
 * keeps its plan in a temporary table.
 */
static char *
pgtap_schema(void)
{
	Oid			schema = EsExtensionSchema("pgtap");
	Oid			temp = LookupExplicitNamespace("pg_temp", true);

	if (!OidIsValid(schema) || !OidIsValid(temp) ||
		!OidIsValid(get_relname_relid("__tcache__", temp)))
		return NULL;
	return get_namespace_name(schema);
}

/* Let pgTAP say "ok" or "not ok", so that its count is right. */
static char *
pgtap_line(const char *schema, bool passed, const char *description)
{
	Oid			types[] = {BOOLOID, TEXTOID};
	Datum		values[] = {BoolGetDatum(passed), CStringGetTextDatum(description)};
	MemoryContext context = CurrentMemoryContext;
	char	   *line;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute_with_args(psprintf("SELECT %s.ok($1, $2)", quote_identifier(schema)),
							  2, types, values, NULL, false, 1) < 0 ||
		SPI_processed != 1)
		elog(ERROR, "could not call pgTAP");
	line = MemoryContextStrdup(context,
							   SPI_getvalue(SPI_tuptable->vals[0],
											SPI_tuptable->tupdesc, 1));
	SPI_finish();
	return line;
}

static char *
tap_line(bool passed, const char *description)
{
	char	   *schema = pgtap_schema();

	if (schema != NULL)
		return pgtap_line(schema, passed, description);
	tests_run++;
	if (!passed)
		tests_failed++;
	return psprintf("%sok %d - %s", passed ? "" : "not ", tests_run, description);
}

/* What es_test is to try, from its arguments. */
static Trial
trial_arguments(FunctionCallInfo fcinfo)
{
	static const char *const names[] = {"aggregate", "given", "command_type", "command"};
	Trial		trial = {0};

	for (int i = 0; i < (int) lengthof(names); i++)
		EsRequireArgument(fcinfo, i, names[i]);
	trial.aggregate = text_to_cstring(PG_GETARG_TEXT_PP(0));
	trial.stream_id = cstring_to_text(psprintf("%s-test", trial.aggregate));
	trial.given = PG_GETARG_JSONB_P(1);
	(void) events_of_json(trial.given, "given");
	trial.command_type = PG_GETARG_TEXT_PP(2);
	trial.command = PG_GETARG_JSONB_P(3);
	return trial;
}

/*
 * es_test(aggregate text, given jsonb, command_type text, command jsonb,
 *		   then_events jsonb, then_error text, description text) → SETOF text
 */
Datum
es_test(PG_FUNCTION_ARGS)
{
	Trial		trial = trial_arguments(fcinfo);
	Jsonb	   *events = PG_ARGISNULL(4) ? NULL : PG_GETARG_JSONB_P(4);
	char	   *error = PG_ARGISNULL(5) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(5));
	List	   *wanted = events == NULL ? NIL : events_of_json(events, "then_events");
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Relation	event;
	bool		passed;

	PreventCommandIfParallelMode("es_test()");
	if ((events == NULL) == (error == NULL))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a test needs either then_events or then_error")));
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	event = table_open(EsStoreGet()->event, AccessShareLock);
	run_trial(&trial, event);
	table_close(event, AccessShareLock);

	passed = is_wanted_outcome(&trial, wanted, error);
	put_text(result, tap_line(passed, PG_ARGISNULL(6) ?
							  psprintf("%s: %s", trial.aggregate, text_to_cstring(trial.command_type)) :
							  text_to_cstring(PG_GETARG_TEXT_PP(6))));
	if (!passed)
	{
		put_text(result, psprintf("#   got: %s", in_one_line(outcome_text(&trial))));
		put_text(result, psprintf("#   want: %s", in_one_line(wanted_text(events, error))));
	}
	return (Datum) 0;
}

/*
 * es_test_done() → SETOF text
 */
Datum
es_test_done(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	put_text(result, psprintf("1..%d", tests_run));
	if (tests_failed > 0)
		put_text(result, psprintf("# %d of %d tests failed", tests_failed, tests_run));
	tests_run = 0;
	tests_failed = 0;
	return (Datum) 0;
}
