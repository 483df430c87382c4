/*
 * state.c: the state of a stream, now and at any earlier time.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "category.h"
#include "fold.h"
#include "snapshot.h"

PG_FUNCTION_INFO_V1(es_state);
PG_FUNCTION_INFO_V1(es_history);

/* What es_state and es_history are asked for. */
typedef struct StateCall
{
	text	   *stream_id;
	EsFoldLimit limit;
	EsAggregate *aggregate;
	Relation	event;
} StateCall;

/* Check the arguments and the privilege; open what is needed. */
static void
begin_call(FunctionCallInfo fcinfo, StateCall *call)
{
	EsRequireArgument(fcinfo, 0, "stream_id");
	call->stream_id = PG_GETARG_TEXT_PP(0);
	call->limit.version = PG_ARGISNULL(1) ? PG_INT64_MAX : PG_GETARG_INT64(1);
	call->limit.at = PG_ARGISNULL(2) ? DT_NOEND : PG_GETARG_TIMESTAMPTZ(2);
	if (call->limit.version < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must not be negative", "at_version")));
	call->event = table_open(EsStoreGet()->event, AccessShareLock);
	EsCheckPrivilege(call->event, ACL_SELECT);
	call->aggregate = EsAggregateOpen(EsAggregateName(PG_ARGISNULL(3) ? NULL : PG_GETARG_TEXT_PP(3),
													  call->stream_id));
}

static void
end_call(StateCall *call)
{
	EsAggregateClose(call->aggregate);
	table_close(call->event, AccessShareLock);
}

/*
 * es_state(stream_id text, at_version bigint, at timestamptz,
 *			aggregate text) → (version bigint, state jsonb)
 */
Datum
es_state(PG_FUNCTION_ARGS)
{
	StateCall	call;
	EsFold		fold;
	TupleDesc	desc;
	Datum		values[2];
	bool		nulls[2] = {false, false};
	Jsonb	   *state;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	begin_call(fcinfo, &call);
	EsFoldBegin(&fold, call.aggregate, call.event, call.stream_id,
				GetActiveSnapshot());
	fold.limit = call.limit;
	EsSnapshotFold(&fold);
	state = EsFoldStateJsonb(call.aggregate);
	EsFoldEnd(&fold);
	end_call(&call);

	values[0] = Int64GetDatum(fold.version);
	values[1] = PointerGetDatum(state);
	nulls[1] = state == NULL;
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
}

/* Put the event in the slot and the state after it among the results. */
static void
put_history(ReturnSetInfo *result, EsFold *fold)
{
	static const AttrNumber columns[] = {
		ES_EVENT_VERSION, ES_EVENT_RECORDED_AT, ES_EVENT_EVENT_TYPE,
		ES_EVENT_DATA, ES_EVENT_METADATA
	};
	Datum		values[lengthof(columns) + 1];
	bool		nulls[lengthof(columns) + 1];
	Jsonb	   *state = EsFoldStateJsonb(fold->aggregate);

	for (size_t i = 0; i < lengthof(columns); i++)
		values[i] = slot_getattr(fold->shown, columns[i], &nulls[i]);
	values[lengthof(columns)] = PointerGetDatum(state);
	nulls[lengthof(columns)] = state == NULL;
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	if (state != NULL)
		pfree(state);
}

/*
 * es_history(stream_id text, at_version bigint, at timestamptz,
 *			  aggregate text) → SETOF (version, recorded_at, event_type,
 *			  data, metadata, state)
 */
Datum
es_history(PG_FUNCTION_ARGS)
{
	StateCall	call;
	EsFold		fold;

	begin_call(fcinfo, &call);
	InitMaterializedSRF(fcinfo, 0);
	EsFoldBegin(&fold, call.aggregate, call.event, call.stream_id,
				GetActiveSnapshot());
	fold.limit = call.limit;
	fold.show_all = true;
	EsFoldScan(&fold, 0);
	while (EsFoldNext(&fold))
		put_history((ReturnSetInfo *) fcinfo->resultinfo, &fold);
	EsFoldEnd(&fold);
	end_call(&call);
	return (Datum) 0;
}
