/*
 * read.c: the reading functions.
 *
 * Rows go from the heap page into the caller's tuplestore as they are: one
 * copy an event, no detoasting, no executor in between.  Only events that an
 * upcaster has something to say of are made anew.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

#include "catalog.h"
#include "compat.h"
#include "epoch.h"
#include "definition.h"
#include "lifecycle.h"
#include "log.h"
#include "match.h"
#include "scan.h"
#include "stream.h"
#include "upcast.h"

/*
 * Kilobytes of events kept in memory before they go by a temporary file,
 * where work_mem is less: what a client reads at once should not touch the
 * disk on its way.
 */
#define ES_READ_MEMORY 16384

/* What es_read_all leaves out. */
typedef struct EventFilter
{
	text	  **types;			/* wanted event types, a sorted set */
	int			ntypes;			/* -1: all */
	text	   *category;		/* NULL: all */
} EventFilter;

PG_FUNCTION_INFO_V1(es_read_stream);
PG_FUNCTION_INFO_V1(es_read_all);

/* Begin to return rows: where they are to be put. */
static Tuplestorestate *
begin_rows(FunctionCallInfo fcinfo)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	MemoryContext saved;

	InitMaterializedSRF(fcinfo, 0);
	tuplestore_end(rsinfo->setResult);
	saved = MemoryContextSwitchTo(rsinfo->econtext->ecxt_per_query_memory);
	rsinfo->setResult =
		tuplestore_begin_heap((rsinfo->allowedModes & SFRM_Materialize_Random) != 0,
							  false, Max(work_mem, ES_READ_MEMORY));
	MemoryContextSwitchTo(saved);
	return rsinfo->setResult;
}

static void
read_stream(Relation event, text *stream_id, int64 from_version, int64 max_count,
			bool backwards, bool raw, Tuplestorestate *rows)
{
	Snapshot	snapshot = GetActiveSnapshot();
	int64		first = EsStreamFirstShown(event, stream_id, snapshot);
	int64		last = PG_INT64_MAX;
	EsUpcast   *upcast = raw ? NULL : EsUpcastBegin(RelationGetDescr(event), true);
	TupleTableSlot *slot;
	EsScan	   *scan;

	if (backwards && from_version > 0)
		last = from_version - 1;
	else if (!backwards)
		first = Max(first, Min(from_version, PG_INT64_MAX - 1) + 1);
	scan = EsScanStream(event, snapshot, stream_id, first, last,
						backwards ? BackwardScanDirection : ForwardScanDirection);
	for (int64 n = 0; n < max_count && (slot = EsScanNext(scan)) != NULL; n++)
		tuplestore_puttupleslot(rows, EsUpcastSlot(upcast, slot));
	EsUpcastEnd(upcast);
	EsScanEnd(scan);
}

/*
 * May a reader go on from this version, which it was told in this epoch?  A
 * version is as good as the position of its event; one that a later epoch
 * does not have is good only as long as none has begun.
 */
static void
check_epoch(Relation event, const EsStore *store, text *stream_id,
			int64 version, int64 epoch)
{
	int64		fork = EsEpochFork(event, store, epoch);
	bool		is_good = version == 0 || fork == PG_INT64_MAX;
	bool		isnull;

	if (!is_good)
	{
		EsScan	   *scan = EsScanStream(event, GetActiveSnapshot(), stream_id,
										version, version, ForwardScanDirection);
		TupleTableSlot *slot = EsScanNext(scan);

		is_good = slot != NULL &&
			DatumGetInt64(slot_getattr(slot, ES_EVENT_POSITION, &isnull)) <= fork;
		EsScanEnd(scan);
	}
	if (!is_good)
		EsEpochReportLeft(psprintf("version " INT64_FORMAT " of stream \"%s\"",
								   version, text_to_cstring(stream_id)),
						  epoch, fork);
}

/*
 * es_read_stream(stream_id text, from_version bigint, max_count bigint,
 *				  backwards boolean, raw boolean, epoch bigint)
 *		→ SETOF es_event
 */
Datum
es_read_stream(PG_FUNCTION_ARGS)
{
	const EsStore *store;
	int64		from_version = EsNaturalArgument(fcinfo, 1, "from_version", 0);
	int64		max_count = EsNaturalArgument(fcinfo, 2, "max_count", PG_INT64_MAX);
	bool		backwards = !PG_ARGISNULL(3) && PG_GETARG_BOOL(3);
	Relation	event;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", "stream_id")));
	event = EsEventOpen(&store, AccessShareLock);
	EsCheckPrivilege(event, ACL_SELECT);
	if (!PG_ARGISNULL(5))
		check_epoch(event, store, PG_GETARG_TEXT_PP(0), from_version,
					PG_GETARG_INT64(5));
	read_stream(event, PG_GETARG_TEXT_PP(0), from_version, max_count,
				backwards, !PG_ARGISNULL(4) && PG_GETARG_BOOL(4),
				begin_rows(fcinfo));
	table_close(event, NoLock);	/* kept: the rows may point to its TOAST table */
	return (Datum) 0;
}

static bool
same_bytes(const text *a, const char *data, int len)
{
	return VARSIZE_ANY_EXHDR(a) == (Size) len &&
		memcmp(VARDATA_ANY(a), data, len) == 0;
}

static bool
is_of_category(const text *category, const text *stream_id)
{
	const char *data = VARDATA_ANY(stream_id);

	return same_bytes(category, data,
					  EsCategoryLength(data, VARSIZE_ANY_EXHDR(stream_id)));
}

static bool
passes_filter(const EventFilter *filter, TupleTableSlot *slot)
{
	bool		passes = true;
	bool		isnull;

	if (filter->category != NULL)
	{
		Datum		value = slot_getattr(slot, ES_EVENT_STREAM_ID, &isnull);
		text	   *stream_id = DatumGetTextPP(value);

		passes = is_of_category(filter->category, stream_id);
		if ((Pointer) stream_id != DatumGetPointer(value))
			pfree(stream_id);	/* a long id may be stored compressed */
	}
	if (passes && filter->ntypes >= 0)
		passes = EsNamesInclude(filter->types, filter->ntypes,
								DatumGetTextPP(slot_getattr(slot, ES_EVENT_EVENT_TYPE,
															&isnull)));
	return passes;
}

/* The filter as the arguments say; null elements match nothing. */
static EventFilter
filter_arguments(FunctionCallInfo fcinfo)
{
	EventFilter filter = {.ntypes = -1};

	if (!PG_ARGISNULL(2))
	{
		ArrayType  *types = PG_GETARG_ARRAYTYPE_P(2);
		Datum	   *elements;
		bool	   *nulls;
		int			n;

		if (ARR_NDIM(types) > 1)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("argument \"%s\" must be a one-dimensional array",
							"event_types")));
		deconstruct_array(types, TEXTOID, -1, false, TYPALIGN_INT,
						  &elements, &nulls, &n);
		filter.types = palloc(Max(n, 1) * sizeof(text *));
		filter.ntypes = 0;
		for (int i = 0; i < n; i++)
			if (!nulls[i])
				filter.types[filter.ntypes++] = DatumGetTextPP(elements[i]);
		filter.ntypes = EsNamesMakeSet(filter.types, filter.ntypes);
	}
	if (!PG_ARGISNULL(3))
		filter.category = PG_GETARG_TEXT_PP(3);
	return filter;
}

/*
 * es_read_all(from_position bigint, max_count bigint, event_types text[],
 *			   category text, raw boolean, epoch bigint) → SETOF es_event
 *
 * log.c says which events may be shown, and why none is missed.
 */
Datum
es_read_all(PG_FUNCTION_ARGS)
{
	const EsStore *store;
	int64		from_position = EsNaturalArgument(fcinfo, 0, "from_position", 0);
	int64		max_count = EsNaturalArgument(fcinfo, 1, "max_count", PG_INT64_MAX);
	EventFilter filter = filter_arguments(fcinfo);
	Tuplestorestate *rows;
	Relation	event;
	EsLogReader *reader;
	TupleTableSlot *slot;
	EsUpcast   *upcast = NULL;

	event = EsEventOpen(&store, AccessShareLock);
	EsCheckPrivilege(event, ACL_SELECT);
	if (!PG_ARGISNULL(5))
		EsEpochCheck(event, store, PG_GETARG_INT64(5), from_position);
	rows = begin_rows(fcinfo);

	if (PG_ARGISNULL(4) || !PG_GETARG_BOOL(4))
		upcast = EsUpcastBegin(RelationGetDescr(event), true);
	PushActiveSnapshot(EsLogSnapshot());
	reader = EsLogReaderBegin(event, store, GetActiveSnapshot(), from_position);
	for (int64 n = 0; n < max_count && (slot = EsLogReaderNext(reader)) != NULL;)
	{
		slot = EsUpcastSlot(upcast, slot);
		if (!passes_filter(&filter, slot))
			continue;
		tuplestore_puttupleslot(rows, slot);
		n++;
	}
	EsLogReaderEnd(reader);
	EsUpcastEnd(upcast);
	PopActiveSnapshot();
	table_close(event, NoLock);	/* kept: the rows may point to its TOAST table */
	return (Datum) 0;
}
