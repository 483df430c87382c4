/*
 * kept.c: states that a session keeps between commands.
 *
 * The events of a stream that has been in use for a while lie scattered over
 * the table, and fetching them costs far more than folding them.  So es_handle
 * keeps the states it has folded in the session's memory, and the next
 * command on the stream begins there.  A kept state is treated as a snapshot
 * is: used only by the same definition, folding from the same version on with
 * the same upcasters, and only if the event it ends with is
 * there with the same id.
 *
 * Only states without events of the running transaction are kept.  Those may
 * be rolled back, and their ids, if the user gave them, may come again on top
 * of another history.
 *
 * The place of a state is its hash.  Who comes to a place that is taken,
 * takes it.
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "kept.h"
#include "point.h"
#include "snapshot.h"

#define ES_KEPT_BYTES 2048		/* states larger than this are not kept */

/* A state that is kept. */
typedef struct KeptState
{
	uint64		hash;			/* of aggregate and stream */
	pg_uuid_t	definition;		/* by which it was folded */
	int64		version;		/* of the last event in it */
	pg_uuid_t	event_id;		/* of that event */
	int64		base;			/* version of the stream's last snapshot */
	TimestampTz since;			/* see EsFold */
	text	   *stream_id;
	bool		isnull;
	bool		byval;
	Datum		state;
} KeptState;

/* How many states a session keeps; 0: none. */
static int	kept_states = 4096;

static MemoryContext kept_context = NULL;
static KeptState **kept = NULL; /* by hash */
static int	nkept = 0;			/* places that there are */

void
EsKeptInit(void)
{
	DefineCustomIntVariable("eventstore.kept_states",
							"States of streams that a session keeps between commands.",
							"A command on a stream whose state is kept folds only the events that are new. "
							"States of up to 2 kB are kept; 0 keeps none.",
							&kept_states, 4096, 0, 1024 * 1024, PGC_USERSET, 0,
							NULL, NULL, NULL);
}

/* Have as many places as the setting says; a change of it empties them. */
static void
make_places(void)
{
	if (nkept == kept_states)
		return;
	if (kept_context == NULL)
		kept_context = AllocSetContextCreate(TopMemoryContext,
											 "eventstore kept states",
											 ALLOCSET_DEFAULT_SIZES);
	nkept = 0;
	MemoryContextReset(kept_context);
	if (kept_states > 0)
		kept = MemoryContextAllocZero(kept_context,
									  kept_states * sizeof(KeptState *));
	nkept = kept_states;
}

static uint64
hash_of(const EsFold *fold)
{
	const char *name = fold->aggregate->name;

	return hash_bytes_extended((const unsigned char *) VARDATA_ANY(fold->stream_id),
							   VARSIZE_ANY_EXHDR(fold->stream_id),
							   hash_bytes((const unsigned char *) name, strlen(name)));
}

/* The fold's place; NULL where none are kept. */
static KeptState **
place_of(const EsFold *fold, uint64 *hash)
{
	make_places();
	*hash = hash_of(fold);
	return nkept == 0 ? NULL : &kept[*hash % nkept];
}

static void
forget(KeptState **place)
{
	KeptState  *state = *place;

	*place = NULL;
	if (state == NULL)
		return;
	if (!state->isnull && !state->byval)
		pfree(DatumGetPointer(state->state));
	pfree(state->stream_id);
	pfree(state);
}

/* Is this the fold's, by the definition in force? */
static bool
is_of_fold(const KeptState *state, const EsFold *fold, uint64 hash)
{
	pg_uuid_t	definition;

	if (state == NULL || state->hash != hash ||
		VARSIZE_ANY_EXHDR(state->stream_id) != VARSIZE_ANY_EXHDR(fold->stream_id) ||
		memcmp(VARDATA_ANY(state->stream_id), VARDATA_ANY(fold->stream_id),
			   VARSIZE_ANY_EXHDR(fold->stream_id)) != 0)
		return false;
	definition = EsSnapshotDefinition(fold);
	return memcmp(state->definition.data, definition.data, UUID_LEN) == 0;
}

static void
restore(EsFold *fold, const KeptState *state)
{
	EsAggregate *aggregate = fold->aggregate;
	MemoryContext saved;

	saved = MemoryContextSwitchTo(aggregate->econtext->ecxt_per_tuple_memory);
	EsFoldSetState(aggregate, state->state, state->isnull);
	MemoryContextSwitchTo(saved);
	ResetExprContext(aggregate->econtext);
	fold->version = state->version;
	fold->event_id = state->event_id;
	fold->base = state->base;
	fold->since = state->since;
}

/* Go on from the kept state; false, and nothing done, if that cannot be. */
static bool
fold_from_kept(EsFold *fold, KeptState **place, uint64 hash)
{
	if (place == NULL || !is_of_fold(*place, fold, hash))
		return false;
	restore(fold, *place);
	EsFoldScan(fold, fold->version);
	if (!EsFoldFetchBase(fold))
	{
		EsFoldScanEnd(fold);
		EsFoldReset(fold);
		forget(place);
		return false;
	}
	while (EsFoldNext(fold))
		;
	EsFoldScanEnd(fold);
	return true;
}

/* Copy the state into the current context; false if it is too large. */
static bool
copy_state(EsAggregate *aggregate, KeptState *state)
{
	ParamExternData *whole = aggregate->row == NULL ? aggregate->state :
	aggregate->state - 1;
	Form_pg_attribute att = TupleDescAttr(aggregate->fields, 0);
	int			len = aggregate->row == NULL ? att->attlen : -1;

	state->byval = aggregate->row == NULL && att->attbyval;
	state->isnull = aggregate->state_null;
	if (state->isnull)
		return true;
	EsFoldWholeState(aggregate);
	if (datumGetSize(whole->value, state->byval, len) > ES_KEPT_BYTES)
		return false;
	state->state = datumCopy(whole->value, state->byval, len);
	return true;
}

/* Keep the state that the fold has come to. */
static void
keep(EsFold *fold, KeptState **place, uint64 hash)
{
	MemoryContext saved;
	KeptState  *state;

	forget(place);
	saved = MemoryContextSwitchTo(kept_context);
	state = palloc0(sizeof(KeptState));
	if (copy_state(fold->aggregate, state))
	{
		state->hash = hash;
		state->definition = EsSnapshotDefinition(fold);
		state->version = fold->version;
		state->event_id = fold->event_id;
		state->base = fold->base;
		state->since = fold->since;
		state->stream_id = (text *) PG_DETOAST_DATUM_COPY(PointerGetDatum(fold->stream_id));
		*place = state;
	}
	else
		pfree(state);
	MemoryContextSwitchTo(saved);
}

/*
 * Fold the whole stream, from the kept state if there is one, else as
 * EsSnapshotFold does; and keep the result.
 */
void
EsKeptFold(EsFold *fold)
{
	uint64		hash;
	KeptState **place = place_of(fold, &hash);

	EsFoldFindFirst(fold);
	if (!fold_from_kept(fold, place, hash))
		EsSnapshotFold(fold);
	if (place != NULL && fold->version > 0 &&
		(ES_BUG == 43 || !TransactionIdIsValid(GetTopTransactionIdIfAny())))
		keep(fold, place, hash);
}

/* The stream has a newer snapshot, so the next one is not due soon. */
void
EsKeptNoteSnapshot(const EsFold *fold, int64 version)
{
	uint64		hash;
	KeptState **place = place_of(fold, &hash);

	if (place != NULL && is_of_fold(*place, fold, hash))
	{
		(*place)->base = version;
		(*place)->since = GetCurrentTimestamp();
	}
}
