/*
 * boundary_state.c: the state that a boundary's events make, now and at any
 * earlier place in the log.
 *
 * A boundary is folded from its first event on each time: which events it
 * has is a matter of the command, and of tags that es_retag may give to old
 * events, so a state that was kept could not be known to be whole.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "boundary_state.h"
#include "definition.h"
#include "query_template.h"
#include "upcast.h"

PG_FUNCTION_INFO_V1(es_boundary_state);
PG_FUNCTION_INFO_V1(es_boundary_history);

/*
 * Fold all events that match and that the snapshot sees, in a fold that has
 * begun; answers the last one's position, 0 without any.
 */
int64
EsBoundaryFold(EsFold *fold, const EsStore *store, const EsBoundary *query,
			   Snapshot snapshot)
{
	EsUpcast   *upcast = EsUpcastBegin(RelationGetDescr(fold->event), false);
	EsMatchScan *scan = EsMatchBegin(fold->event, store, query, snapshot, 1,
									 PG_INT64_MAX, ForwardScanDirection);
	TupleTableSlot *slot;
	int64		position;
	int64		last = 0;

	while ((slot = EsMatchNext(scan, &position, NULL)) != NULL)
	{
		EsFoldApply(fold->aggregate, EsUpcastSlot(upcast, slot));
		last = position;
	}
	EsMatchEnd(scan);
	EsUpcastEnd(upcast);
	return last;
}

/* ----- SQL ----- */

/* What es_boundary_state and es_boundary_history are asked for. */
typedef struct BoundaryCall
{
	const EsStore *store;
	Relation	event;
	Jsonb	   *command;
	EsAggregate *aggregate;
	EsBoundary *query;
	EsBoundaryRange range;
	TimestampTz at;				/* events recorded later do not count */
	EsFold		fold;
	ReturnSetInfo *result;		/* of a history, else NULL */
} BoundaryCall;

/* Check the arguments and the privilege; begin the fold. */
static void
begin_call(FunctionCallInfo fcinfo, BoundaryCall *call)
{
	EsBoundaryRange all = ES_BOUNDARY_ALL;

	EsRequireArgument(fcinfo, 0, "aggregate");
	EsRequireArgument(fcinfo, 1, "command");
	call->command = PG_GETARG_JSONB_P(1);
	call->range = all;
	call->range.last = EsNaturalArgument(fcinfo, 2, "at_position", PG_INT64_MAX);
	call->range.runs_code = true;
	call->at = PG_ARGISNULL(3) ? DT_NOEND : PG_GETARG_TIMESTAMPTZ(3);
	call->event = EsEventOpen(&call->store, AccessShareLock);
	EsCheckPrivilege(call->event, ACL_SELECT);
	call->aggregate = EsAggregateOpen(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	if (call->aggregate->boundary == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("aggregate \"%s\" has no boundary", call->aggregate->name),
				 errdetail("It folds streams."),
				 errhint("Use es_state() with the stream.")));
	call->query = EsQueryTemplateFill(call->aggregate->boundary, call->command);
	EsFoldBeginBoundary(&call->fold, call->aggregate, call->event, call->command);
}

static void
end_call(BoundaryCall *call)
{
	EsFoldEnd(&call->fold);
	EsAggregateClose(call->aggregate);
	table_close(call->event, AccessShareLock);
}

/* Put the event in the slot and the state after it among the results. */
static void
put_history(BoundaryCall *call, TupleTableSlot *slot)
{
	static const AttrNumber columns[] = {
		ES_EVENT_POSITION, ES_EVENT_STREAM_ID, ES_EVENT_RECORDED_AT,
		ES_EVENT_EVENT_TYPE, ES_EVENT_DATA, ES_EVENT_METADATA, ES_EVENT_TAGS
	};
	Datum		values[lengthof(columns) + 1];
	bool		nulls[lengthof(columns) + 1];
	Jsonb	   *state = EsFoldStateJsonb(call->aggregate);

	for (size_t i = 0; i < lengthof(columns); i++)
		values[i] = slot_getattr(slot, columns[i], &nulls[i]);
	values[lengthof(columns)] = PointerGetDatum(state);
	nulls[lengthof(columns)] = state == NULL;
	tuplestore_putvalues(call->result->setResult, call->result->setDesc, values, nulls);
	if (state != NULL)
		pfree(state);
}

/* Fold one event that was read. */
static void
take_event(TupleTableSlot *slot, void *arg)
{
	BoundaryCall *call = arg;
	bool		isnull;

	if (DatumGetTimestampTz(slot_getattr(slot, ES_EVENT_RECORDED_AT, &isnull)) > call->at)
		return;
	EsFoldApply(call->aggregate, slot);
	if (call->result != NULL)
		put_history(call, slot);
}

/*
 * es_boundary_state(aggregate text, command jsonb, at_position bigint,
 *					 at timestamptz) → (after bigint, state jsonb)
 */
Datum
es_boundary_state(PG_FUNCTION_ARGS)
{
	BoundaryCall call = {0};
	TupleDesc	desc;
	Datum		values[2];
	bool		nulls[2] = {false, false};
	Jsonb	   *state;
	int64		after;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	begin_call(fcinfo, &call);
	after = EsBoundaryRead(call.event, call.store, call.query, &call.range,
						   take_event, &call);
	state = EsFoldStateJsonb(call.aggregate);
	end_call(&call);

	values[0] = Int64GetDatum(after);
	values[1] = PointerGetDatum(state);
	nulls[1] = state == NULL;
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/*
 * es_boundary_history(aggregate text, command jsonb, at_position bigint,
 *					   at timestamptz)
 *		→ SETOF (position, stream_id, recorded_at, event_type, data, metadata,
 *		   tags, state)
 */
Datum
es_boundary_history(PG_FUNCTION_ARGS)
{
	BoundaryCall call = {0};

	InitMaterializedSRF(fcinfo, 0);
	call.result = (ReturnSetInfo *) fcinfo->resultinfo;
	begin_call(fcinfo, &call);
	(void) EsBoundaryRead(call.event, call.store, call.query, &call.range,
						  take_event, &call);
	end_call(&call);
	return (Datum) 0;
}
