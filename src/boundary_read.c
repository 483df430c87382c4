/*
 * boundary_read.c: es_read and es_read_boundary.
 */
#include "postgres.h"

#include "access/table.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/tuplestore.h"

#include "boundary.h"
#include "definition.h"
#include "epoch.h"

PG_FUNCTION_INFO_V1(es_read);
PG_FUNCTION_INFO_V1(es_read_boundary);

static EsBoundary *
query_argument(FunctionCallInfo fcinfo, int n, const char *name)
{
	EsRequireArgument(fcinfo, n, name);
	return EsBoundaryParse(PG_GETARG_JSONB_P(n));
}

static void
put_row(TupleTableSlot *slot, void *arg)
{
	tuplestore_puttupleslot(arg, slot);
}

/*
 * es_read(query jsonb, from_position bigint, max_count bigint,
 *		   backwards boolean, raw boolean, epoch bigint) → SETOF es_event
 */
Datum
es_read(PG_FUNCTION_ARGS)
{
	const EsStore *store;
	EsBoundary *query = query_argument(fcinfo, 0, "query");
	int64		from = EsNaturalArgument(fcinfo, 1, "from_position", 0);
	EsBoundaryRange range = ES_BOUNDARY_ALL;
	Relation	event = EsEventOpen(&store, AccessShareLock);

	EsCheckPrivilege(event, ACL_SELECT);
	if (!PG_ARGISNULL(5))
		EsEpochCheck(event, store, PG_GETARG_INT64(5), from);
	InitMaterializedSRF(fcinfo, 0);
	range.max_count = EsNaturalArgument(fcinfo, 2, "max_count", PG_INT64_MAX);
	range.backwards = EsFlagArgument(fcinfo, 3);
	range.raw = EsFlagArgument(fcinfo, 4);
	if (range.backwards)
		range.last = from == 0 ? PG_INT64_MAX : from - 1;
	else
		range.first = from == PG_INT64_MAX ? from : from + 1;
	(void) EsBoundaryRead(event, store, query, &range, put_row,
						  ((ReturnSetInfo *) fcinfo->resultinfo)->setResult);
	table_close(event, NoLock);	/* kept: the rows may point to its TOAST table */
	return (Datum) 0;
}

static void
put_element(TupleTableSlot *slot, void *arg)
{
	ArrayBuildState *events = arg;

	accumArrayResult(events, ExecFetchSlotHeapTupleDatum(slot), false,
					 events->element_type, CurrentMemoryContext);
}

/*
 * es_read_boundary(query jsonb, raw boolean) → (after bigint, events es_event[])
 */
Datum
es_read_boundary(PG_FUNCTION_ARGS)
{
	const EsStore *store;
	EsBoundary *query = query_argument(fcinfo, 0, "query");
	Relation	event = EsEventOpen(&store, AccessShareLock);
	EsBoundaryRange all = ES_BOUNDARY_ALL;
	ArrayBuildState *events;
	TupleDesc	desc;
	Datum		values[2];
	bool		nulls[2] = {false, false};

	EsCheckPrivilege(event, ACL_SELECT);
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	events = initArrayResult(event->rd_rel->reltype, CurrentMemoryContext, false);
	all.raw = EsFlagArgument(fcinfo, 1);
	values[0] = Int64GetDatum(EsBoundaryRead(event, store, query, &all, put_element, events));
	values[1] = makeArrayResult(events, CurrentMemoryContext);
	table_close(event, NoLock);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

