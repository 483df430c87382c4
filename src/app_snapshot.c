/*
 * app_snapshot.c: snapshots of folds that are done in applications.
 *
 * They are kept as the server's own are, but by no definition; the server
 * does not know what they mean.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "aggregate.h"
#include "catalog.h"
#include "lifecycle.h"
#include "point.h"
#include "snapshot_table.h"
#include "stream.h"

PG_FUNCTION_INFO_V1(es_save_snapshot);
PG_FUNCTION_INFO_V1(es_load_snapshot);

/* The name of an application's fold: as given, or the stream's category. */
static char *
fold_name(text *name, text *stream_id)
{
	const char *data = VARDATA_ANY(stream_id);

	if (name == NULL)
		return pnstrdup(data, EsCategoryLength(data, VARSIZE_ANY_EXHDR(stream_id)));
	EsCheckName(name, ES_MAX_STREAM_ID, "aggregate name");
	return text_to_cstring(name);
}

/*
 * Fill in the event of the snapshot's version; 22023 if it is not there or is
 * hidden, and so never to be loaded.
 */
static void
find_base_event(Relation event, EsNewSnapshot *new)
{
	EsEventKey	found;
	int64		first;

	if (new->version < 1 ||
		!EsStreamEventRead(event, new->stream_id, new->version,
						   GetActiveSnapshot(), &found))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("stream \"%s\" has no version " INT64_FORMAT,
						text_to_cstring(new->stream_id), new->version)));
	first = EsStreamFirstShown(event, new->stream_id, GetActiveSnapshot());
	if (ES_BUG != 79 && new->version < first)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("version " INT64_FORMAT " of stream \"%s\" is hidden",
						new->version, text_to_cstring(new->stream_id)),
				 errdetail("The first version that is shown is " INT64_FORMAT ".", first),
				 errhint("Fold what es_read_stream() shows, and save that.")));
	new->recorded_at = found.recorded_at;
	new->event_id = found.event_id;
}

/*
 * es_save_snapshot(stream_id text, version bigint, state jsonb,
 *					aggregate text) → void
 */
Datum
es_save_snapshot(PG_FUNCTION_ARGS)
{
	EsNewSnapshot new = {0};
	Relation	event;

	EsRequireReadWrite("es_save_snapshot()");
	PreventCommandIfParallelMode("es_save_snapshot()");
	EsRequireArgument(fcinfo, 0, "stream_id");
	EsRequireArgument(fcinfo, 1, "version");
	EsRequireArgument(fcinfo, 2, "state");
	new.stream_id = PG_GETARG_TEXT_PP(0);
	new.version = PG_GETARG_INT64(1);
	new.state = PG_GETARG_JSONB_P(2);
	new.aggregate = fold_name(PG_ARGISNULL(3) ? NULL : PG_GETARG_TEXT_PP(3),
							  new.stream_id);
	event = EsEventOpenFor(ACL_INSERT);
	if (EsAggregateExists(new.aggregate))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("aggregate \"%s\" is folded by the server", new.aggregate),
				 errhint("Give the application's fold a name of its own.")));
	find_base_event(event, &new);
	(void) EsSnapshotWrite(&new, true, true);
	table_close(event, AccessShareLock);
	PG_RETURN_VOID();
}

/* Is the event that the snapshot in the slot ends with really there? */
static bool
event_is_there(Relation event, text *stream_id, TupleTableSlot *slot)
{
	EsEventKey	found;

	return EsStreamEventRead(event, stream_id,
							 DatumGetInt64(EsSnapshotColumn(slot, ES_SNAPSHOT_VERSION)),
							 GetActiveSnapshot(), &found) &&
		memcmp(found.event_id.data,
			   DatumGetUUIDP(EsSnapshotColumn(slot, ES_SNAPSHOT_EVENT_ID))->data, UUID_LEN) == 0;
}

/*
 * es_load_snapshot(stream_id text, aggregate text, at_version bigint)
 *		→ (version bigint, state jsonb)
 */
Datum
es_load_snapshot(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	Datum		values[2] = {Int64GetDatum(0), (Datum) 0};
	bool		nulls[2] = {false, true};
	EsSnapshotScan scan;
	text	   *stream_id;
	Relation	event;
	int64		first;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	EsRequireArgument(fcinfo, 0, "stream_id");
	stream_id = PG_GETARG_TEXT_PP(0);
	event = EsEventOpenFor(ACL_SELECT);
	first = EsStreamFirstShown(event, stream_id, GetActiveSnapshot());
	EsSnapshotScanBegin(&scan, AccessShareLock, stream_id,
			   fold_name(PG_ARGISNULL(1) ? NULL : PG_GETARG_TEXT_PP(1), stream_id),
			   PG_ARGISNULL(2) ? PG_INT64_MAX : PG_GETARG_INT64(2),
			   GetActiveSnapshot());
	while (nulls[1] && EsSnapshotScanNext(&scan))
	{
		if (!EsSnapshotHasDefinition(scan.slot, NULL) ||
			DatumGetInt64(EsSnapshotColumn(scan.slot, ES_SNAPSHOT_VERSION)) < first ||
			!event_is_there(event, stream_id, scan.slot))
			continue;
		values[0] = EsSnapshotColumn(scan.slot, ES_SNAPSHOT_VERSION);
		values[1] = PointerGetDatum(PG_DETOAST_DATUM_COPY(EsSnapshotColumn(scan.slot, ES_SNAPSHOT_STATE)));
		nulls[1] = false;
	}
	EsSnapshotScanEnd(&scan);
	table_close(event, AccessShareLock);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
}
