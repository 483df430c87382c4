/*
 * lifecycle.c: what is left to see of a stream.
 *
 * Whatever the settings, what is left of a stream is its end: the events from
 * some version on.  Versions have no holes and times never go back inside a
 * stream, so each setting comes down to a version, an age too, by bisection.
 *
 * Settings are written under the stream's lock, and an append looks at them
 * under it, with a snapshot that sees all that is committed.  While no stream
 * has settings, looking is asking a flag.  It is dropped by invalidation of
 * the relation cache; a change is announced before its stream lock goes, so
 * whoever got the lock and accepts invalidations knows of it.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/inval.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "archive.h"
#include "catalog.h"
#include "compat.h"
#include "definition.h"
#include "lifecycle.h"
#include "point.h"
#include "row_security.h"
#include "stream.h"

/* Columns of es_stream; the table's definition rules. */
enum
{
	STREAM_ID = 1, STREAM_MAX_COUNT, STREAM_MAX_AGE, STREAM_TRUNCATE_BEFORE,
	STREAM_DELETED_BEFORE, STREAM_TOMBSTONED_AT
};

/* The settings of a stream; all zero where it has none. */
typedef struct StreamSettings
{
	int64		max_count;		/* 0: none */
	bool		has_max_age;
	Interval	max_age;
	int64		truncate_before;	/* 0: none */
	int64		deleted_before; /* 0: not deleted */
	bool		tombstoned;
} StreamSettings;

/* Is there any row in es_stream?  Known for this relation, if it is valid. */
static Oid	asked = InvalidOid;
static bool any_settings = false;

PG_FUNCTION_INFO_V1(es_stream_change);
PG_FUNCTION_INFO_V1(es_set_stream);
PG_FUNCTION_INFO_V1(es_truncate_stream);
PG_FUNCTION_INFO_V1(es_delete_stream);
PG_FUNCTION_INFO_V1(es_undelete_stream);
PG_FUNCTION_INFO_V1(es_tombstone_stream);
PG_FUNCTION_INFO_V1(es_stream_list);

/* ----- settings ----- */

static void
on_relation_change(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == asked)
		asked = InvalidOid;
}

void
EsLifecycleInit(void)
{
	EsOnRelationChange(on_relation_change, (Datum) 0);
}

/*
 * May any stream have settings?  A row that nobody sees, yet or any more,
 * counts as well: this is asked with all kinds of snapshots.
 */
static bool
have_settings(void)
{
	Oid			table = EsStoreGet()->stream;
	Relation	rel;
	TableScanDesc scan;
	TupleTableSlot *slot;
	bool		found;

	if (asked == table && OidIsValid(asked))
		return any_settings;
	rel = table_open(table, AccessShareLock);
	any_settings = true;		/* where the look ends in an error */
	asked = table;				/* before the look: a change resets it */
	scan = table_beginscan(rel, SnapshotAny, 0, NULL);
	slot = table_slot_create(rel, NULL);
	found = table_scan_getnextslot(scan, ForwardScanDirection, slot);
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	return any_settings = found;
}

/*
 * Can there be an event of this age?  Going back much further would leave
 * the calendar, which begins in 4713 BC.
 */
static bool
hides_anything(Datum max_age)
{
	Interval	limit = {.month = 6000 * MONTHS_PER_YEAR};

	return DatumGetBool(DirectFunctionCall2(interval_lt, max_age,
											IntervalPGetDatum(&limit)));
}

static void
settings_of_slot(TupleTableSlot *slot, StreamSettings *settings)
{
	bool		isnull;
	Datum		value;

	memset(settings, 0, sizeof(StreamSettings));
	value = slot_getattr(slot, STREAM_MAX_COUNT, &isnull);
	settings->max_count = isnull ? 0 : DatumGetInt64(value);
	value = slot_getattr(slot, STREAM_MAX_AGE, &isnull);
	if (!isnull)
		settings->max_age = *DatumGetIntervalP(value);
	settings->has_max_age = !isnull && hides_anything(value);
	value = slot_getattr(slot, STREAM_TRUNCATE_BEFORE, &isnull);
	settings->truncate_before = isnull ? 0 : DatumGetInt64(value);
	value = slot_getattr(slot, STREAM_DELETED_BEFORE, &isnull);
	settings->deleted_before = isnull ? 0 : DatumGetInt64(value);
	(void) slot_getattr(slot, STREAM_TOMBSTONED_AT, &isnull);
	settings->tombstoned = !isnull;
}

/* The settings of a stream as the snapshot sees them; false without any. */
static bool
read_settings(text *stream_id, Snapshot snapshot, StreamSettings *settings)
{
	Relation	rel;
	Relation	key;
	TupleTableSlot *slot;
	IndexScanDesc scan;
	ScanKeyData skey;
	bool		found;

	memset(settings, 0, sizeof(StreamSettings));
	if (!have_settings())
		return false;
	rel = table_open(EsStoreGet()->stream, AccessShareLock);
	key = index_open(EsPrimaryKey(rel), AccessShareLock);
	slot = table_slot_create(rel, NULL);
	scan = EsIndexBeginScan(rel, key, snapshot, 1);
	ScanKeyEntryInitialize(&skey, 0, 1, BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ, PointerGetDatum(stream_id));
	index_rescan(scan, &skey, 1, NULL, 0);
	found = index_getnext_slot(scan, ForwardScanDirection, slot);
	if (found)
		settings_of_slot(slot, settings);
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(key, AccessShareLock);
	table_close(rel, AccessShareLock);
	return found;
}

static void
report_tombstoned(text *stream_id)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("stream \"%s\" is tombstoned", text_to_cstring(stream_id)),
			 errdetail("It was closed for good by es_tombstone_stream()."),
			 errhint("Use a stream of another name.")));
}

/* 55000 if nothing may be appended to the stream, which the caller has locked. */
void
EsStreamCheckOpen(Relation event, text *stream_id)
{
	StreamSettings settings;

	if (ES_BUG != 77)
		AcceptInvalidationMessages();
	if (read_settings(stream_id, ES_BUG == 76 ? GetActiveSnapshot() : SnapshotSelf,
					  &settings) && settings.tombstoned)
	{
		EsRowSecurityHide(event, stream_id);
		report_tombstoned(stream_id);
	}
}

/* ----- what is shown ----- */

/* The first version from low to high + 1 that was recorded since then. */
static int64
first_since(Relation event, text *stream_id, TimestampTz since, int64 low,
			int64 high, Snapshot snapshot)
{
	EsEventKey	key;

	while (low <= high)
	{
		int64		middle = low + (high - low) / 2;

		if (EsStreamEventRead(event, stream_id, middle, snapshot, &key) &&
			key.recorded_at >= since)
			high = middle - 1;
		else
			low = middle + 1;
	}
	return low;
}

/* By settings, for a stream at this version. */
static int64
first_shown(Relation event, text *stream_id, const StreamSettings *settings,
			int64 version, Snapshot snapshot)
{
	int64		first = Max(1, Max(settings->truncate_before, settings->deleted_before));

	if (settings->tombstoned)
		return version + 1;
	if (settings->max_count > 0)
		first = Max(first, version - settings->max_count + 1);
	first = Min(first, version + 1);
	if (settings->has_max_age)
	{
		Datum		since = DirectFunctionCall2(timestamptz_mi_interval,
												TimestampTzGetDatum(GetCurrentTransactionStartTimestamp()),
												IntervalPGetDatum(&settings->max_age));

		first = first_since(event, stream_id, DatumGetTimestampTz(since),
							first, version, snapshot);
	}
	return first;
}

/*
 * The first version of a stream that its readers are shown; one more than its
 * version where nothing is left, and 1 for a stream without settings.
 */
int64
EsStreamFirstShown(Relation event, text *stream_id, Snapshot snapshot)
{
	StreamSettings settings;
	EsStreamHead head;

	AcceptInvalidationMessages();
	if (!read_settings(stream_id, snapshot, &settings))
		return 1;
	head = EsStreamHeadRead(event, stream_id, snapshot);
	return first_shown(event, stream_id, &settings, head.version, snapshot);
}

/* ----- the trigger on es_stream ----- */

static bool
row_is_tombstoned(Relation rel, HeapTuple row)
{
	return !heap_attisnull(row, STREAM_TOMBSTONED_AT, RelationGetDescr(rel));
}

static text *
row_stream(Relation rel, HeapTuple row)
{
	bool		isnull;
	Datum		value = heap_getattr(row, STREAM_ID, RelationGetDescr(rel), &isnull);

	return isnull ? NULL : DatumGetTextPP(value);	/* NOT NULL will say so */
}

/*
 * Before a row is written: lock the stream.  A tombstone stays: 55000 for who
 * would take it away.
 */
Datum
es_stream_change(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	bool		update;
	HeapTuple	row;
	text	   *stream_id;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		RelationGetRelid(trigger->tg_relation) != EsStoreGet()->stream)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function must be called as a trigger on \"es_stream\"")));
	CacheInvalidateRelcacheByRelid(RelationGetRelid(trigger->tg_relation));
	if (!TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("cannot truncate \"es_stream\""),
				 errdetail("Tombstones are kept for good.")));
	update = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event);
	row = update ? trigger->tg_newtuple : trigger->tg_trigtuple;
	stream_id = row_stream(trigger->tg_relation, row);
	if (stream_id != NULL)
		EsStreamLock(EsStoreGet(), stream_id);
	if (!TRIGGER_FIRED_BY_INSERT(trigger->tg_event) &&
		row_is_tombstoned(trigger->tg_relation, trigger->tg_trigtuple) &&
		(!update || !row_is_tombstoned(trigger->tg_relation, row) ||
		 (stream_id == NULL && ES_BUG != 120) ||
		 !DatumGetBool(DirectFunctionCall2Coll(texteq, C_COLLATION_OID,
											   PointerGetDatum(stream_id),
											   PointerGetDatum(row_stream(trigger->tg_relation,
																		  trigger->tg_trigtuple))))))
		report_tombstoned(row_stream(trigger->tg_relation, trigger->tg_trigtuple));
	return PointerGetDatum(row);
}

/* ----- SQL ----- */

/*
 * The stream argument of a change, locked and not tombstoned; answers its
 * version as of now.
 */
static int64
lock_argument(FunctionCallInfo fcinfo, const char *function)
{
	const EsStore *store;
	Relation	event;
	EsStreamHead head;

	EsRequireReadWrite(function);
	PreventCommandIfParallelMode(function);
	EsRequireArgument(fcinfo, 0, "stream_id");
	EsCheckStreamId(PG_GETARG_TEXT_PP(0));
	event = EsEventOpen(&store, AccessShareLock);
	EsRowSecurityRefuse(event);
	EsStreamLock(store, PG_GETARG_TEXT_PP(0));
	EsStreamCheckOpen(event, PG_GETARG_TEXT_PP(0));
	head = EsStreamHeadRead(event, PG_GETARG_TEXT_PP(0), SnapshotSelf);
	table_close(event, AccessShareLock);
	return head.version;
}

/* Write one column of the stream's row, making the row where there is none. */
static void
write_setting(FunctionCallInfo fcinfo, const char *query, Oid type, Datum value)
{
	Oid			types[] = {TEXTOID, type};
	Datum		values[] = {PG_GETARG_DATUM(0), value};

	EsCatalogWrite(query, 2, types, values, NULL);
}

/* 22023 for a limit that is not positive. */
static void
require_positive(bool positive, const char *name)
{
	if (!positive)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be positive", name),
				 errhint("Use NULL for no limit.")));
}

/*
 * es_set_stream(stream_id text, max_count bigint, max_age interval,
 *				 truncate_before bigint) → void
 */
Datum
es_set_stream(PG_FUNCTION_ARGS)
{
	Oid			types[] = {TEXTOID, INT8OID, INTERVALOID, INT8OID};
	Datum		values[4];
	char		nulls[] = "    ";
	Interval	zero = {0};

	require_positive(PG_ARGISNULL(1) || PG_GETARG_INT64(1) > 0, "max_count");
	require_positive(PG_ARGISNULL(2) ||
					 DatumGetBool(DirectFunctionCall2(interval_gt, PG_GETARG_DATUM(2),
													  IntervalPGetDatum(&zero))),
					 "max_age");
	require_positive(PG_ARGISNULL(3) || PG_GETARG_INT64(3) > 0, "truncate_before");
	(void) lock_argument(fcinfo, "es_set_stream()");
	for (int i = 0; i < 4; i++)
	{
		values[i] = PG_GETARG_DATUM(i);
		nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	EsCatalogWrite("INSERT INTO %s.es_stream (stream_id, max_count, max_age, truncate_before)"
				   " VALUES ($1, $2, $3, $4) ON CONFLICT (stream_id) DO UPDATE SET"
				   " max_count = EXCLUDED.max_count, max_age = EXCLUDED.max_age,"
				   " truncate_before = EXCLUDED.truncate_before",
				   4, types, values, nulls);
	PG_RETURN_VOID();
}

/*
 * es_truncate_stream(stream_id text, before_version bigint) → void
 */
Datum
es_truncate_stream(PG_FUNCTION_ARGS)
{
	int64		version = lock_argument(fcinfo, "es_truncate_stream()");

	EsRequireArgument(fcinfo, 1, "before_version");
	if (PG_GETARG_INT64(1) < 1 || PG_GETARG_INT64(1) > version + 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("cannot truncate stream \"%s\" before version " INT64_FORMAT,
						text_to_cstring(PG_GETARG_TEXT_PP(0)), PG_GETARG_INT64(1)),
				 errdetail("The stream is at version " INT64_FORMAT ".", version)));
	write_setting(fcinfo, "INSERT INTO %s.es_stream AS s (stream_id, truncate_before)"
				  " VALUES ($1, $2) ON CONFLICT (stream_id) DO UPDATE SET"
				  " truncate_before = GREATEST(s.truncate_before, EXCLUDED.truncate_before)",
				  INT8OID, PG_GETARG_DATUM(1));
	PG_RETURN_VOID();
}

/*
 * es_delete_stream(stream_id text) → void
 */
Datum
es_delete_stream(PG_FUNCTION_ARGS)
{
	int64		version = lock_argument(fcinfo, "es_delete_stream()");

	if (version == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("stream \"%s\" does not exist",
						text_to_cstring(PG_GETARG_TEXT_PP(0)))));
	write_setting(fcinfo, "INSERT INTO %s.es_stream (stream_id, deleted_before)"
				  " VALUES ($1, $2) ON CONFLICT (stream_id) DO UPDATE SET"
				  " deleted_before = EXCLUDED.deleted_before",
				  INT8OID, Int64GetDatum(version + 1));
	PG_RETURN_VOID();
}

/*
 * es_undelete_stream(stream_id text) → void
 */
Datum
es_undelete_stream(PG_FUNCTION_ARGS)
{
	Oid			types[] = {TEXTOID};
	Datum		values[] = {PG_GETARG_DATUM(0)};

	(void) lock_argument(fcinfo, "es_undelete_stream()");
	if (EsCatalogWrite("UPDATE %s.es_stream SET deleted_before = NULL"
					   " WHERE stream_id OPERATOR(pg_catalog.=) $1"
					   " AND deleted_before IS NOT NULL",
					   1, types, values, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("stream \"%s\" is not deleted",
						text_to_cstring(PG_GETARG_TEXT_PP(0)))));
	PG_RETURN_VOID();
}

/*
 * es_tombstone_stream(stream_id text) → void
 */
Datum
es_tombstone_stream(PG_FUNCTION_ARGS)
{
	(void) lock_argument(fcinfo, "es_tombstone_stream()");
	write_setting(fcinfo, "INSERT INTO %s.es_stream (stream_id, tombstoned_at)"
				  " VALUES ($1, $2) ON CONFLICT (stream_id) DO UPDATE SET"
				  " tombstoned_at = EXCLUDED.tombstoned_at",
				  TIMESTAMPTZOID, TimestampTzGetDatum(GetCurrentTimestamp()));
	PG_RETURN_VOID();
}

/* ----- the list of streams ----- */

/* A walk from stream to stream along the (stream_id, version) index. */
typedef struct StreamWalk
{
	Relation	event;			/* es_event, opened by the caller */
	Relation	stream_key;
	IndexScanDesc scan;
	TupleTableSlot *slot;		/* the stream's first event */
	MemoryContext context;		/* of the walk; the current one is a stream's */
	text	   *last;			/* the last stream, to be freed; NULL: none */
	text	   *from;			/* NULL: from the beginning */
	bool		inclusive;		/* the stream "from" itself, too */
	text	   *category;		/* NULL: all */
	text	   *prefix;			/* the category and a dash */
	text	   *id;				/* the next one of es_event; NULL: none left */
	EsArchiveStream *archived;	/* the next one of the archive */
	int64		narchived;		/* left of them */
} StreamWalk;

/* Find the first event of the next stream; false at the end. */
static bool
seek_stream(StreamWalk *walk)
{
	ScanKeyData key;

	if (walk->from != NULL)
		ScanKeyEntryInitialize(&key, 0, 1,
							   walk->inclusive ? BTGreaterEqualStrategyNumber : BTGreaterStrategyNumber,
							   InvalidOid, C_COLLATION_OID,
							   walk->inclusive ? F_TEXT_GE : F_TEXT_GT,
							   PointerGetDatum(walk->from));
	walk->scan = EsIndexBeginScan(walk->event, walk->stream_key,
								  GetActiveSnapshot(), walk->from != NULL ? 1 : 0);
	index_rescan(walk->scan, walk->from != NULL ? &key : NULL,
				 walk->from != NULL ? 1 : 0, NULL, 0);
	if (!index_getnext_slot(walk->scan, ForwardScanDirection, walk->slot))
	{
		index_endscan(walk->scan);
		return false;
	}
	ExecMaterializeSlot(walk->slot);
	index_endscan(walk->scan);
	return true;
}

static int
compare_ids(const text *a, const text *b, bool prefix)
{
	int			alen = VARSIZE_ANY_EXHDR(a);
	int			blen = VARSIZE_ANY_EXHDR(b);
	int			order = memcmp(VARDATA_ANY(a), VARDATA_ANY(b), Min(alen, blen));

	if (order != 0 || (prefix && alen >= blen))
		return order;
	return (alen > blen) - (alen < blen);
}

/* The id in the walk's memory, in place of the one before. */
static text *
keep_id(StreamWalk *walk, text *id)
{
	MemoryContext saved = MemoryContextSwitchTo(walk->context);

	if (walk->last != NULL)
		pfree(walk->last);
	walk->last = (text *) PG_DETOAST_DATUM_COPY(PointerGetDatum(id));
	MemoryContextSwitchTo(saved);
	return walk->last;
}

/*
 * Go to the next stream of the category: the one that is called like it, and
 * those that begin with it and a dash.  What lies between the two is skipped.
 */
static text *
next_stream(StreamWalk *walk)
{
	while (seek_stream(walk))
	{
		bool		isnull;
		text	   *id = DatumGetTextPP(slot_getattr(walk->slot, ES_EVENT_STREAM_ID, &isnull));
		int			order;

		walk->from = id = keep_id(walk, id);
		walk->inclusive = false;
		if (walk->category == NULL || compare_ids(id, walk->category, false) == 0)
			return id;
		order = compare_ids(id, walk->prefix, true);
		if (order == 0)
			return id;
		if (order > 0)
			return NULL;
		walk->from = walk->prefix;
		walk->inclusive = true;
	}
	return NULL;
}

static void
begin_walk(StreamWalk *walk, Relation event, text *category, text *after,
		   int64 max_count)
{
	walk->context = CurrentMemoryContext;
	walk->archived = EsArchiveListStreams(GetActiveSnapshot(), after, category,
										  max_count, &walk->narchived);
	walk->event = event;
	walk->stream_key = index_open(EsStoreGet()->stream_key, AccessShareLock);
	walk->slot = table_slot_create(event, NULL);
	walk->category = category;
	walk->from = after;
	walk->inclusive = false;
	if (category == NULL)
		return;
	walk->prefix = cstring_to_text(psprintf("%s-", text_to_cstring(category)));
	if (after == NULL || compare_ids(after, category, false) < 0)
	{
		walk->from = category;
		walk->inclusive = true;
	}
}

/*
 * The next stream by name, of es_event or of the archive, and when its first
 * event was recorded; NULL at the end.
 */
static text *
next_of_both(StreamWalk *walk, TimestampTz *first_at)
{
	text	   *id = walk->id;
	int			order = id == NULL ? 1 : walk->narchived == 0 ? -1 :
		compare_ids(id, walk->archived->stream_id, false);
	bool		isnull;

	if (id == NULL && walk->narchived == 0)
		return NULL;
	if (order >= 0)
	{
		id = walk->archived->stream_id;
		*first_at = walk->archived->first_at;
		walk->archived++;
		walk->narchived--;
	}
	else
	{
		/* a copy: going on replaces it */
		id = (text *) PG_DETOAST_DATUM_COPY(PointerGetDatum(id));
		*first_at = DatumGetTimestampTz(slot_getattr(walk->slot, ES_EVENT_RECORDED_AT,
													 &isnull));
	}
	if (order <= 0)
		walk->id = next_stream(walk);
	return id;
}

static void
put_stream(ReturnSetInfo *result, StreamWalk *walk, text *id, TimestampTz first_at)
{
	StreamSettings settings;
	Snapshot	snapshot = GetActiveSnapshot();
	EsStreamHead head = EsStreamHeadRead(walk->event, id, snapshot);
	Datum		values[6];
	bool		nulls[6] = {false};
	int64		first = 1;

	if (read_settings(id, snapshot, &settings))
		first = first_shown(walk->event, id, &settings, head.version, snapshot);
	values[0] = PointerGetDatum(id);
	values[1] = Int64GetDatum(head.version);
	values[2] = Int64GetDatum(first);
	values[3] = TimestampTzGetDatum(first_at);
	values[4] = TimestampTzGetDatum(head.recorded_at);
	values[5] = CStringGetTextDatum(settings.tombstoned ? "tombstoned" :
									settings.deleted_before > head.version ? "deleted" : "live");
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/*
 * es_stream_list(category text, after text, max_count bigint)
 *		→ SETOF (stream_id, version, first_version, first_recorded_at,
 *		last_recorded_at, status)
 */
Datum
es_stream_list(PG_FUNCTION_ARGS)
{
	StreamWalk	walk = {0};
	const EsStore *store;
	Relation	event;
	int64		max_count = PG_ARGISNULL(2) ? PG_INT64_MAX : PG_GETARG_INT64(2);
	TimestampTz first_at;
	MemoryContext context;
	MemoryContext saved;
	text	   *id;

	if (max_count < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must not be negative", "max_count")));
	event = EsEventOpen(&store, AccessShareLock);
	EsCheckPrivilege(event, ACL_SELECT);
	InitMaterializedSRF(fcinfo, 0);
	begin_walk(&walk, event, PG_ARGISNULL(0) ? NULL : PG_GETARG_TEXT_PP(0),
			   PG_ARGISNULL(1) ? NULL : PG_GETARG_TEXT_PP(1), max_count);
	context = AllocSetContextCreate(CurrentMemoryContext, "eventstore stream list",
									ALLOCSET_SMALL_SIZES);
	saved = MemoryContextSwitchTo(context);
	if (max_count > 0)
		walk.id = next_stream(&walk);
	for (int64 n = 0; n < max_count && (id = next_of_both(&walk, &first_at)) != NULL; n++)
	{
		CHECK_FOR_INTERRUPTS();
		put_stream((ReturnSetInfo *) fcinfo->resultinfo, &walk, id, first_at);
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(saved);
	MemoryContextDelete(context);
	ExecDropSingleTupleTableSlot(walk.slot);
	index_close(walk.stream_key, AccessShareLock);
	table_close(event, AccessShareLock);
	return (Datum) 0;
}
