/*
 * snapshot.c: states kept to shorten the fold.
 *
 * A snapshot is written by the transaction that appended its events or by one
 * that sees them committed, so whoever sees the snapshot sees the events.
 * That is not taken on trust, because a store may be restored, replicated or
 * set back: the fold begins by reading the snapshot's own event, which must
 * be there with the same id.  This costs one event and leaves no way for a
 * snapshot to be newer than the stream or to stem from another history.
 *
 * A state of type jsonb is kept as it is, any other as the text that its type
 * makes of it and takes back without loss (to_jsonb would lose the difference
 * between a null field and a JSON null, among others).
 *
 * Nobody waits for a snapshot: where another session is at the same one, it
 * is not taken.
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
#include "common/hashfn.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "compat.h"
#include "lifecycle.h"
#include "log.h"
#include "point.h"
#include "snapshot.h"
#include "stream.h"

/* Columns of es_snapshot; the table's definition rules. */
enum
{
	SNAPSHOT_VERSION = 1, SNAPSHOT_RECORDED_AT, SNAPSHOT_TAKEN_AT,
	SNAPSHOT_EVENT_ID, SNAPSHOT_STREAM, SNAPSHOT_AGGREGATE,
	SNAPSHOT_DEFINITION, SNAPSHOT_STATE, SNAPSHOT_STATE_TEXT,
	SNAPSHOT_NATTS = SNAPSHOT_STATE_TEXT
};

/* Streams looked at in one call: each snapshot holds a lock to commit. */
#define ES_MAX_STREAMS 1000

/* A snapshot to write. */
typedef struct NewSnapshot
{
	text	   *stream_id;
	const char *aggregate;
	const pg_uuid_t *definition;	/* NULL: an application's */
	int64		version;
	TimestampTz recorded_at;
	pg_uuid_t	event_id;
	Jsonb	   *state;			/* one of these, or none for NULL */
	text	   *state_text;
} NewSnapshot;

/* An older one, for which there may be no need any more. */
typedef struct OldSnapshot
{
	int64		version;
	ItemPointerData tid;
} OldSnapshot;

/* A walk along the snapshots of a stream, newest first. */
typedef struct SnapshotScan
{
	Relation	rel;
	Relation	key;
	IndexScanDesc scan;
	TupleTableSlot *slot;
} SnapshotScan;

PG_FUNCTION_INFO_V1(es_take_snapshots);
PG_FUNCTION_INFO_V1(es_take_snapshot);
PG_FUNCTION_INFO_V1(es_save_snapshot);
PG_FUNCTION_INFO_V1(es_load_snapshot);

/* ----- scan ----- */

static void
scan_begin(SnapshotScan *scan, LOCKMODE lockmode, text *stream_id,
		   const char *aggregate, int64 limit, Snapshot snapshot)
{
	ScanKeyData keys[3];

	ScanKeyEntryInitialize(&keys[0], 0, 1, BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ,
						   PointerGetDatum(stream_id));
	ScanKeyEntryInitialize(&keys[1], 0, 2, BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ,
						   CStringGetTextDatum(aggregate));
	ScanKeyInit(&keys[2], 3, BTLessEqualStrategyNumber, F_INT8LE,
				Int64GetDatum(limit));
	scan->rel = table_open(EsStoreGet()->snapshot, lockmode);
	scan->key = index_open(EsPrimaryKey(scan->rel), AccessShareLock);
	scan->slot = table_slot_create(scan->rel, NULL);
	scan->scan = EsIndexBeginScan(scan->rel, scan->key, snapshot, 3);
	index_rescan(scan->scan, keys, 3, NULL, 0);
}

static bool
scan_next(SnapshotScan *scan)
{
	return index_getnext_slot(scan->scan, BackwardScanDirection, scan->slot);
}

static void
scan_end(SnapshotScan *scan)
{
	index_endscan(scan->scan);
	ExecDropSingleTupleTableSlot(scan->slot);
	index_close(scan->key, AccessShareLock);
	table_close(scan->rel, NoLock); /* kept to commit */
}

/* Was the snapshot in the slot made by this definition (NULL: by an application)? */
static bool
has_definition(TupleTableSlot *slot, const pg_uuid_t *definition)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, SNAPSHOT_DEFINITION, &isnull);

	if (definition == NULL || isnull)
		return definition == NULL && isnull;
	return ES_BUG == 45 ||
		memcmp(DatumGetUUIDP(value)->data, definition->data, UUID_LEN) == 0;
}

static Datum
column(TupleTableSlot *slot, AttrNumber attno)
{
	bool		isnull;

	return slot_getattr(slot, attno, &isnull);
}

/* ----- states as text ----- */

/*
 * Have types write what they can read again, whatever the session's settings.
 * Answers what to end it with.
 */
static int
begin_transmission(void)
{
	int			level = NewGUCNestLevel();

	if (DateStyle != USE_ISO_DATES)
		(void) set_config_option("datestyle", "ISO", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	if (IntervalStyle != INTSTYLE_POSTGRES)
		(void) set_config_option("intervalstyle", "postgres", PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	if (extra_float_digits < 1)
		(void) set_config_option("extra_float_digits", "1", PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	return level;
}

/* In the definer's name. */
static text *
state_to_text(EsAggregate *aggregate)
{
	int			level = begin_transmission();
	Oid			output;
	bool		is_varlena;
	ParamExternData *whole = aggregate->row == NULL ? aggregate->state :
	aggregate->state - 1;
	char	   *result;

	EsFoldWholeState(aggregate);
	getTypeOutputInfo(aggregate->state_type, &output, &is_varlena);
	result = OidOutputFunctionCall(output, whole->value);
	AtEOXact_GUC(true, level);
	return cstring_to_text(result);
}

static Datum
state_from_text(EsAggregate *aggregate, char *string)
{
	int			level = begin_transmission();
	Oid			input;
	Oid			ioparam;
	Datum		result;

	getTypeInputInfo(aggregate->state_type, &input, &ioparam);
	result = OidInputFunctionCall(input, string, ioparam, -1);
	AtEOXact_GUC(true, level);
	return result;
}

/* ----- use ----- */

static bool
concerns_aggregate(const text *event_type, void *aggregate)
{
	return EsFoldConcerns(aggregate, event_type);
}

/* What the upcasters do to the events that matter to the aggregate. */
static void
note_upcasters(EsAggregate *aggregate)
{
	uint64		generation = EsUpcastGeneration();

	if (aggregate->upcasters == generation)
		return;
	aggregate->upcast_settings = EsUpcastDigest(concerns_aggregate, aggregate,
												&aggregate->upcast_digest);
	aggregate->upcasters = generation;
}

/* Mix eight bytes into a digest, behind so many others. */
static void
mix(pg_uuid_t *digest, int behind, uint64 value)
{
	for (size_t i = 0; i < sizeof(value); i++)
		digest->data[behind + i] ^= (unsigned char) (value >> (8 * i));
}

/*
 * What a snapshot must have been made by: the aggregate's definition, folding
 * from the same version on, with the same upcasters.
 */
pg_uuid_t
EsSnapshotDefinition(const EsFold *fold)
{
	EsAggregate *aggregate = fold->aggregate;
	pg_uuid_t	definition = EsAggregateDefinition(aggregate);

	mix(&definition, 0, (uint64) (fold->first - 1) * UINT64CONST(0x9E3779B97F4A7C15));
	note_upcasters(aggregate);
	for (int i = 0; i < UUID_LEN && ES_BUG != 74; i++)
		definition.data[i] ^= aggregate->upcast_digest.data[i];
	if (aggregate->upcast_settings)
		mix(&definition, 8, EsSettingsDigest());
	return definition;
}

/* Make the snapshot in the slot the state.  In the event's memory. */
static void
restore_state(EsFold *fold, TupleTableSlot *slot)
{
	EsAggregate *aggregate = fold->aggregate;
	MemoryContext saved;
	bool		isnull;
	Datum		state;

	saved = MemoryContextSwitchTo(aggregate->econtext->ecxt_per_tuple_memory);
	state = slot_getattr(slot, aggregate->state_type == JSONBOID ?
						 SNAPSHOT_STATE : SNAPSHOT_STATE_TEXT, &isnull);
	if (!isnull && aggregate->state_type != JSONBOID)
		state = state_from_text(aggregate, TextDatumGetCString(state));
	EsFoldSetState(aggregate, state, isnull);
	MemoryContextSwitchTo(saved);
	ResetExprContext(aggregate->econtext);
	fold->version = DatumGetInt64(column(slot, SNAPSHOT_VERSION));
	fold->event_id = *DatumGetUUIDP(column(slot, SNAPSHOT_EVENT_ID));
	fold->base = fold->version;
	fold->since = DatumGetTimestampTz(column(slot, SNAPSHOT_TAKEN_AT));
}

/* Make the newest usable snapshot the state; false where there is none. */
static bool
restore_newest(EsFold *fold)
{
	SnapshotScan scan;
	pg_uuid_t	definition = EsSnapshotDefinition(fold);
	bool		found = false;

	scan_begin(&scan, AccessShareLock, fold->stream_id, fold->aggregate->name,
			   fold->limit.version, fold->snapshot);
	while (!found && scan_next(&scan))
		found = has_definition(scan.slot, &definition) &&
			DatumGetTimestampTz(column(scan.slot, SNAPSHOT_RECORDED_AT)) <= fold->limit.at;
	if (found)
		restore_state(fold, scan.slot);
	scan_end(&scan);
	return found;
}

/*
 * Fold the stream up to the limit, from the newest snapshot that can be used
 * if there is one.  The scan is over when this returns.
 */
void
EsSnapshotFold(EsFold *fold)
{
	EsAggregate *aggregate = fold->aggregate;
	bool		restored = false;

	EsFoldFindFirst(fold);
	if ((aggregate->snapshot_every > 0 || aggregate->snapshot_interval != NULL) &&
		restore_newest(fold))
	{
		EsFoldScan(fold, fold->base);
		restored = EsFoldFetchBase(fold);
		if (!restored)
		{
			EsFoldScanEnd(fold);
			EsFoldReset(fold);
		}
	}
	if (!restored)
		EsFoldScan(fold, 0);
	while (EsFoldNext(fold))
		;
	EsFoldScanEnd(fold);
}

/* ----- take ----- */

/*
 * Would the stream, with the fold's last snapshot and at this version now, be
 * due for one?
 */
bool
EsSnapshotIsDue(const EsFold *fold, int64 version)
{
	const EsAggregate *aggregate = fold->aggregate;
	Datum		due;

	if (version <= fold->base)
		return false;
	if (aggregate->snapshot_every > 0 &&
		version - fold->base >= aggregate->snapshot_every)
		return true;
	if (aggregate->snapshot_interval == NULL || fold->since == 0)
		return false;
	due = DirectFunctionCall2(timestamptz_pl_interval,
							  TimestampTzGetDatum(fold->since),
							  IntervalPGetDatum(aggregate->snapshot_interval));
	return DatumGetTimestampTz(due) <= GetCurrentTimestamp();
}

/* Keep others from writing snapshots of the stream, to the transaction's end. */
static bool
lock_snapshots(const NewSnapshot *new, bool wait)
{
	LOCKTAG		tag;
	uint64		hash;

	hash = hash_bytes_extended((const unsigned char *) VARDATA_ANY(new->stream_id),
							   VARSIZE_ANY_EXHDR(new->stream_id),
							   hash_bytes((const unsigned char *) new->aggregate,
										  strlen(new->aggregate)));
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (hash >> 32),
						 (uint32) hash, ES_LOCK_SNAPSHOT);
	return LockAcquire(&tag, ExclusiveLock, false, !wait) != LOCKACQUIRE_NOT_AVAIL;
}

/*
 * Delete a snapshot, unless somebody else is at it.
 */
static void
delete_snapshot(Relation rel, ItemPointer tid)
{
	TM_FailureData failure;

	(void) table_tuple_delete(rel, tid, GetCurrentCommandId(true), SnapshotSelf,
							  InvalidSnapshot, false, &failure, false);
}

/*
 * Of the older snapshots, newest first, delete those without which the
 * distances from the new one still no more than double from one to the next.
 */
static void
thin_out(Relation rel, int64 version, OldSnapshot *old, int nold)
{
	int64		kept = nold > 0 ? version - old[0].version : 0;

	for (int i = 1; i < nold - 1; i++)
	{
		if ((version - old[i + 1].version) / 2 > kept)
			kept = version - old[i].version;
		else
			delete_snapshot(rel, &old[i].tid);
	}
}

/* What make_room collects. */
typedef struct OldSnapshots
{
	int			count;
	int			size;
	OldSnapshot *snapshots;		/* newest first */
} OldSnapshots;

static void
collect(OldSnapshots *old, int64 version, ItemPointer tid)
{
	if (old->count == old->size)
	{
		old->size = old->size == 0 ? 32 : old->size * 2;
		old->snapshots = old->snapshots == NULL ?
			palloc(old->size * sizeof(OldSnapshot)) :
			repalloc(old->snapshots, old->size * sizeof(OldSnapshot));
	}
	old->snapshots[old->count].version = version;
	old->snapshots[old->count++].tid = *tid;
}

/*
 * Delete the snapshots that the new one makes superfluous.  False if it is
 * superfluous itself, because there is one at its version or later; replace
 * says that one at its version gives way.
 */
static bool
make_room(const NewSnapshot *new, bool replace)
{
	SnapshotScan scan;
	OldSnapshots old = {0};
	bool		superfluous = false;

	scan_begin(&scan, RowExclusiveLock, new->stream_id, new->aggregate,
			   PG_INT64_MAX, SnapshotSelf);
	while (!superfluous && scan_next(&scan))
	{
		int64		version = DatumGetInt64(column(scan.slot, SNAPSHOT_VERSION));

		if (!has_definition(scan.slot, new->definition) ||
			(version == new->version && replace))
			delete_snapshot(scan.rel, &scan.slot->tts_tid);
		else if (version < new->version)
			collect(&old, version, &scan.slot->tts_tid);
		else
			superfluous = !replace;
	}
	if (!superfluous)
		thin_out(scan.rel, new->version, old.snapshots, old.count);
	scan_end(&scan);
	return !superfluous;
}

/* Write it, unless there is no need for it. */
static bool
write_snapshot(const NewSnapshot *new, bool wait, bool replace)
{
	Datum		values[SNAPSHOT_NATTS];
	bool		nulls[SNAPSHOT_NATTS] = {false};

	if (!lock_snapshots(new, wait))
		return false;
	CommandCounterIncrement();	/* what we wrote ourselves may go, too */
	if (!make_room(new, replace))
		return false;
	values[SNAPSHOT_VERSION - 1] = Int64GetDatum(new->version);
	values[SNAPSHOT_RECORDED_AT - 1] = TimestampTzGetDatum(new->recorded_at);
	values[SNAPSHOT_TAKEN_AT - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[SNAPSHOT_EVENT_ID - 1] = UUIDPGetDatum(&new->event_id);
	values[SNAPSHOT_STREAM - 1] = PointerGetDatum(new->stream_id);
	values[SNAPSHOT_AGGREGATE - 1] = CStringGetTextDatum(new->aggregate);
	values[SNAPSHOT_DEFINITION - 1] = UUIDPGetDatum(new->definition);
	nulls[SNAPSHOT_DEFINITION - 1] = new->definition == NULL;
	values[SNAPSHOT_STATE - 1] = PointerGetDatum(new->state);
	nulls[SNAPSHOT_STATE - 1] = new->state == NULL;
	values[SNAPSHOT_STATE_TEXT - 1] = PointerGetDatum(new->state_text);
	nulls[SNAPSHOT_STATE_TEXT - 1] = new->state_text == NULL;
	EsRowInsert(EsStoreGet()->snapshot, values, nulls);
	return true;
}

/*
 * End the fold and keep the state that it has come to, if wanted and if there
 * is no snapshot of it yet.  Answers whether one was written.
 */
bool
EsSnapshotEnd(EsFold *fold, bool wanted)
{
	EsAggregate *aggregate = fold->aggregate;
	pg_uuid_t	definition = EsSnapshotDefinition(fold);
	NewSnapshot new = {
		.stream_id = fold->stream_id,.aggregate = aggregate->name,
		.definition = &definition,.version = fold->version,
		.recorded_at = fold->recorded_at,.event_id = fold->event_id
	};

	if (wanted && aggregate->state_type == JSONBOID)
		new.state = EsFoldStateJsonb(aggregate);
	else if (wanted && !aggregate->state_null)
		new.state_text = state_to_text(aggregate);
	EsFoldEnd(fold);
	return wanted && write_snapshot(&new, false, false);
}

/*
 * Fold a stream as the active snapshot shows it and keep the state.  Answers
 * the version; 0 if no snapshot was taken: none is due, there are no events,
 * or there is one already.
 */
int64
EsSnapshotTake(Relation event, const char *name, text *stream_id,
			   bool only_if_due)
{
	EsAggregate *aggregate = EsAggregateOpen(name);
	EsFold		fold;
	bool		wanted;
	bool		taken;

	EsFoldBegin(&fold, aggregate, event, stream_id, GetActiveSnapshot());
	EsSnapshotFold(&fold);
	wanted = fold.version > fold.base &&
		(!only_if_due || EsSnapshotIsDue(&fold, fold.version));
	taken = EsSnapshotEnd(&fold, wanted);
	EsAggregateClose(aggregate);
	return taken ? fold.version : 0;
}

/* ----- SQL: the server's own ----- */

/* es_event, opened, by one who has the privilege. */
static Relation
open_event(AclMode mode)
{
	Relation	event = table_open(EsStoreGet()->event, AccessShareLock);

	EsCheckPrivilege(event, mode);
	return event;
}

/*
 * es_take_snapshot(stream_id text, aggregate text) → bigint
 */
Datum
es_take_snapshot(PG_FUNCTION_ARGS)
{
	Relation	event;
	char	   *aggregate;
	int64		version;

	PreventCommandIfReadOnly("es_take_snapshot()");
	PreventCommandIfParallelMode("es_take_snapshot()");
	EsRequireArgument(fcinfo, 0, "stream_id");
	event = open_event(ACL_SELECT);
	aggregate = EsAggregateName(PG_ARGISNULL(1) ? NULL : PG_GETARG_TEXT_PP(1),
								PG_GETARG_TEXT_PP(0));
	version = EsSnapshotTake(event, aggregate, PG_GETARG_TEXT_PP(0), false);
	table_close(event, AccessShareLock);
	if (version == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(version);
}

static bool
visit_cursor(Relation rel, HeapTuple tuple, void *arg)
{
	bool		isnull;

	*(int64 *) arg = DatumGetInt64(heap_getattr(tuple, 2, RelationGetDescr(rel),
												&isnull));
	return false;
}

static void
move_cursor(int64 position)
{
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(position)};

	EsCatalogWrite("INSERT INTO %s.es_snapshot_cursor (position) VALUES ($1)"
				   " ON CONFLICT (singleton) DO UPDATE SET position = EXCLUDED.position",
				   1, types, values, NULL);
}

/*
 * The streams that have events behind *position, each once, in the order of
 * their first; *position becomes where the search ended.  Not more than so
 * many, or the lock table might overflow.
 */
static List *
streams_with_events(Relation event, int64 max_events, int64 *position)
{
	HASHCTL		control = {.keysize = sizeof(uint64),.entrysize = sizeof(uint64),
	.hcxt = CurrentMemoryContext};
	HTAB	   *seen = hash_create("streams with events", 256, &control,
								   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	List	   *streams = NIL;
	EsLogReader *reader;
	TupleTableSlot *slot;

	PushActiveSnapshot(EsLogSnapshot());
	reader = EsLogReaderBegin(event, EsStoreGet(), GetActiveSnapshot(), *position);
	for (int64 n = 0; n < max_events && list_length(streams) < ES_MAX_STREAMS &&
		 (slot = EsLogReaderNext(reader)) != NULL; n++)
	{
		text	   *stream_id = DatumGetTextPP(column(slot, ES_EVENT_STREAM_ID));
		uint64		hash = hash_bytes_extended((const unsigned char *) VARDATA_ANY(stream_id),
											   VARSIZE_ANY_EXHDR(stream_id), 0);
		bool		found;

		(void) hash_search(seen, &hash, HASH_ENTER, &found);
		if (!found)
			streams = lappend(streams, PG_DETOAST_DATUM_COPY(PointerGetDatum(stream_id)));
	}
	*position = EsLogReaderPosition(reader);
	EsLogReaderEnd(reader);
	PopActiveSnapshot();
	hash_destroy(seen);
	return streams;
}

/*
 * Take a snapshot if one is due.  A fold that fails leaves a warning behind
 * and no snapshot; other streams must not wait for it.
 */
static bool
try_take(Relation event, const char *aggregate, text *stream_id)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool taken = false;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		taken = EsSnapshotTake(event, aggregate, stream_id, true) > 0;
		PopActiveSnapshot();
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		if (ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION)
			ReThrowError(error);
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("could not take a snapshot of stream \"%s\" by aggregate \"%s\": %s",
						text_to_cstring(stream_id), aggregate, error->message)));
		FreeErrorData(error);
		taken = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return taken;
}

/* Take what is due of these streams. */
static int64
take_due(Relation event, List *streams)
{
	int64		taken = 0;
	ListCell   *stream;
	ListCell   *name;

	foreach(stream, streams)
	{
		CHECK_FOR_INTERRUPTS();
		foreach(name, EsAggregatesOfStream(lfirst(stream)))
		{
			CommandCounterIncrement();
			if (try_take(event, lfirst(name), lfirst(stream)))
				taken++;
		}
	}
	return taken;
}

/*
 * Take the snapshots that are due for the streams with events behind the
 * place where the last call ended; at most so many events a call.  Answers
 * how many were taken; *more, whether there may be events left.  Where another session is at it, there is nothing to
 * do.  The caller may read es_event and write es_snapshot_cursor.
 */
int64
EsSnapshotTakeDue(Relation event, int64 max_events, bool *more)
{
	const EsStore *store = EsStoreGet();
	int64		position = 0;
	int64		before;
	int64		taken;

	*more = false;
	if (!EsAggregatesExist() ||
		!ConditionalLockRelationOid(store->snapshot_cursor, ShareRowExclusiveLock))
		return 0;
	EsCatalogScan(store->snapshot_cursor, 1, NULL, visit_cursor, &position);
	before = position;
	taken = take_due(event, streams_with_events(event, max_events, &position));
	*more = position != before;
	if (*more)
		move_cursor(position);
	return taken;
}

/*
 * es_take_snapshots(max_events bigint) → bigint
 */
Datum
es_take_snapshots(PG_FUNCTION_ARGS)
{
	Relation	event;
	int64		taken;
	bool		more;

	PreventCommandIfReadOnly("es_take_snapshots()");
	PreventCommandIfParallelMode("es_take_snapshots()");
	EsRequireArgument(fcinfo, 0, "max_events");
	if (PG_GETARG_INT64(0) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must not be negative", "max_events")));
	event = open_event(ACL_SELECT);
	taken = EsSnapshotTakeDue(event, PG_GETARG_INT64(0), &more);
	table_close(event, AccessShareLock);
	PG_RETURN_INT64(taken);
}

/* ----- SQL: applications' ----- */

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
find_base_event(Relation event, NewSnapshot *new)
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
	NewSnapshot new = {0};
	Relation	event;

	PreventCommandIfReadOnly("es_save_snapshot()");
	PreventCommandIfParallelMode("es_save_snapshot()");
	EsRequireArgument(fcinfo, 0, "stream_id");
	EsRequireArgument(fcinfo, 1, "version");
	EsRequireArgument(fcinfo, 2, "state");
	new.stream_id = PG_GETARG_TEXT_PP(0);
	new.version = PG_GETARG_INT64(1);
	new.state = PG_GETARG_JSONB_P(2);
	new.aggregate = fold_name(PG_ARGISNULL(3) ? NULL : PG_GETARG_TEXT_PP(3),
							  new.stream_id);
	event = open_event(ACL_INSERT);
	if (EsAggregateExists(new.aggregate))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("aggregate \"%s\" is folded by the server", new.aggregate),
				 errhint("Give the application's fold a name of its own.")));
	find_base_event(event, &new);
	(void) write_snapshot(&new, true, true);
	table_close(event, AccessShareLock);
	PG_RETURN_VOID();
}

/* Is the event that the snapshot in the slot ends with really there? */
static bool
event_is_there(Relation event, text *stream_id, TupleTableSlot *slot)
{
	EsEventKey	found;

	return EsStreamEventRead(event, stream_id,
							 DatumGetInt64(column(slot, SNAPSHOT_VERSION)),
							 GetActiveSnapshot(), &found) &&
		memcmp(found.event_id.data,
			   DatumGetUUIDP(column(slot, SNAPSHOT_EVENT_ID))->data, UUID_LEN) == 0;
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
	SnapshotScan scan;
	text	   *stream_id;
	Relation	event;
	int64		first;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	EsRequireArgument(fcinfo, 0, "stream_id");
	stream_id = PG_GETARG_TEXT_PP(0);
	event = open_event(ACL_SELECT);
	first = EsStreamFirstShown(event, stream_id, GetActiveSnapshot());
	scan_begin(&scan, AccessShareLock, stream_id,
			   fold_name(PG_ARGISNULL(1) ? NULL : PG_GETARG_TEXT_PP(1), stream_id),
			   PG_ARGISNULL(2) ? PG_INT64_MAX : PG_GETARG_INT64(2),
			   GetActiveSnapshot());
	while (nulls[1] && scan_next(&scan))
	{
		if (!has_definition(scan.slot, NULL) ||
			DatumGetInt64(column(scan.slot, SNAPSHOT_VERSION)) < first ||
			!event_is_there(event, stream_id, scan.slot))
			continue;
		values[0] = column(scan.slot, SNAPSHOT_VERSION);
		values[1] = PointerGetDatum(PG_DETOAST_DATUM_COPY(column(scan.slot, SNAPSHOT_STATE)));
		nulls[1] = false;
	}
	scan_end(&scan);
	table_close(event, AccessShareLock);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
}
