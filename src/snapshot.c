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
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "category.h"
#include "definition_digest.h"
#include "digest.h"
#include "point.h"
#include "snapshot.h"
#include "snapshot_table.h"

PG_FUNCTION_INFO_V1(es_take_snapshot);

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

/*
 * What a snapshot must have been made by: the aggregate's definition, folding
 * from the same version on, with the same upcasters.
 */
pg_uuid_t
EsSnapshotDefinition(const EsFold *fold)
{
	EsAggregate *aggregate = fold->aggregate;
	pg_uuid_t	definition = EsAggregateDefinition(aggregate);

	EsDigestMix(&definition, 0, (uint64) (fold->first - 1) * UINT64CONST(0x9E3779B97F4A7C15));
	note_upcasters(aggregate);
	for (int i = 0; i < UUID_LEN && ES_BUG != 74; i++)
		definition.data[i] ^= aggregate->upcast_digest.data[i];
	if (aggregate->upcast_settings)
		EsDigestMix(&definition, 8, EsSettingsDigest());
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
						 ES_SNAPSHOT_STATE : ES_SNAPSHOT_STATE_TEXT, &isnull);
	if (!isnull && aggregate->state_type != JSONBOID)
		state = state_from_text(aggregate, TextDatumGetCString(state));
	EsFoldSetState(aggregate, state, isnull);
	MemoryContextSwitchTo(saved);
	ResetExprContext(aggregate->econtext);
	fold->version = DatumGetInt64(EsSnapshotColumn(slot, ES_SNAPSHOT_VERSION));
	fold->event_id = *DatumGetUUIDP(EsSnapshotColumn(slot, ES_SNAPSHOT_EVENT_ID));
	fold->base = fold->version;
	fold->since = DatumGetTimestampTz(EsSnapshotColumn(slot, ES_SNAPSHOT_TAKEN_AT));
}

/* Make the newest usable snapshot the state; false where there is none. */
static bool
restore_newest(EsFold *fold)
{
	EsSnapshotScan scan;
	pg_uuid_t	definition = EsSnapshotDefinition(fold);
	bool		found = false;

	EsSnapshotScanBegin(&scan, AccessShareLock, fold->stream_id, fold->aggregate->name,
			   fold->limit.version, fold->snapshot);
	while (!found && EsSnapshotScanNext(&scan))
		found = EsSnapshotHasDefinition(scan.slot, &definition) &&
			DatumGetTimestampTz(EsSnapshotColumn(scan.slot, ES_SNAPSHOT_RECORDED_AT)) <= fold->limit.at;
	if (found)
		restore_state(fold, scan.slot);
	EsSnapshotScanEnd(&scan);
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

/*
 * End the fold and keep the state that it has come to, if wanted and if there
 * is no snapshot of it yet.  Answers whether one was written.
 */
bool
EsSnapshotEnd(EsFold *fold, bool wanted)
{
	EsAggregate *aggregate = fold->aggregate;
	pg_uuid_t	definition = EsSnapshotDefinition(fold);
	EsNewSnapshot new = {
		.stream_id = fold->stream_id,.aggregate = aggregate->name,
		.definition = &definition,.version = fold->version,
		.recorded_at = fold->recorded_at,.event_id = fold->event_id
	};

	if (wanted && aggregate->state_type == JSONBOID)
		new.state = EsFoldStateJsonb(aggregate);
	else if (wanted && !aggregate->state_null)
		new.state_text = state_to_text(aggregate);
	EsFoldEnd(fold);
	return wanted && EsSnapshotWrite(&new, false, false);
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

/*
 * es_take_snapshot(stream_id text, aggregate text) → bigint
 */
Datum
es_take_snapshot(PG_FUNCTION_ARGS)
{
	Relation	event;
	char	   *aggregate;
	int64		version;

	EsRequireReadWrite("es_take_snapshot()");
	PreventCommandIfParallelMode("es_take_snapshot()");
	EsRequireArgument(fcinfo, 0, "stream_id");
	event = EsEventOpenFor(ACL_SELECT);
	aggregate = EsAggregateName(PG_ARGISNULL(1) ? NULL : PG_GETARG_TEXT_PP(1),
								PG_GETARG_TEXT_PP(0));
	version = EsSnapshotTake(event, aggregate, PG_GETARG_TEXT_PP(0), false);
	table_close(event, AccessShareLock);
	if (version == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(version);
}
