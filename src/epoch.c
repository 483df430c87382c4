/*
 * epoch.c: which history a position belongs to.
 *
 * THE PROBLEM.  A standby that lagged is promoted, a backup is restored to
 * last week, a database is copied: from there on the same positions name
 * other events.  Whoever keeps a position outside the database and goes on
 * from it would skip events in silence.
 *
 * EPOCHS.  es_epoch has a row for each history that this store went through,
 * with the place where it took over from the one before: the fork.  Up to the
 * fork the two have the same events.  A position is good for as long as no
 * later epoch forked below it; es_store() hands out the epoch to keep with a
 * position, and readers who are given it refuse one that is no longer good.
 *
 * Epoch numbers grow, by steps drawn at random: two servers that both part
 * from one history must not give their epochs the same number.
 *
 * WHAT TELLS A NEW HISTORY.  The row says on which cluster (by its system
 * identifier), timeline and database the epoch began.  Promotion and
 * point-in-time recovery change the timeline, a template copy the database, a
 * restored dump the cluster or the database.  Two servers started from one
 * copy of the files without recovery cannot be told apart by anything.
 *
 * WHEN IT IS NOTICED.  Before the first position is drawn, and before the settled
 * position is written down (the fork goes by what was written before): each looks
 * once a session, at what is committed by then, and the first to find that
 * history has changed writes the row in its own transaction.  Others that
 * append meanwhile wait for it, so no event of the new history comes before
 * the fork is known.  A store whose es_store() was never asked has given no
 * epoch to anybody, and keeps none.
 *
 * WHERE THE FORK IS.  What is in the table then was there in the old history,
 * too.  But a hole may have been filled there after we parted: by a
 * transaction that was under way, of which this server knows nothing.  So the
 * fork is in front of the first hole above the settled position that was
 * written down.  It may be lower than it had to be, never higher; being told
 * an event again is what its id is for.
 *
 * A standby and a logical replica have the epochs of their origin.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "compat.h"
#include "epoch.h"
#include "log.h"
#include "point.h"
#include "stream.h"

/* Columns of es_epoch. */
typedef enum EpochColumn
{
	ES_EPOCH_EPOCH = 1,
	ES_EPOCH_STORE_ID,
	ES_EPOCH_FORK_POSITION,
	ES_EPOCH_SYSTEM_IDENTIFIER,
	ES_EPOCH_TIMELINE,
	ES_EPOCH_DATABASE,
	ES_EPOCH_BEGAN_AT
} EpochColumn;

#define ES_EPOCH_NATTS ES_EPOCH_BEGAN_AT

/* Steps between epochs are drawn from 1 to this. */
#define ES_EPOCH_STEP_MAX PG_INT32_MAX

/* What es_epoch says, for one epoch that is asked about. */
typedef struct Epochs
{
	int64		current;		/* the newest; 0: none */
	pg_uuid_t	store_id;		/* as it says */
	bool		is_ours;		/* it began here: same cluster, timeline, database */
	int64		asked;			/* the one asked about */
	bool		is_known;		/* it is one of them */
	int64		fork;			/* the lowest fork after it */
} Epochs;

/* es_epoch of the store that this session found in its own history, or 0. */
static Oid	confirmed = InvalidOid;

PG_FUNCTION_INFO_V1(es_store);
PG_FUNCTION_INFO_V1(es_settle);

static bool
see_epoch(Relation rel, HeapTuple tuple, void *arg)
{
	Epochs	   *epochs = arg;
	Datum		values[ES_EPOCH_NATTS];
	bool		nulls[ES_EPOCH_NATTS];
	int64		epoch;
	int64		fork;

	heap_deform_tuple(tuple, RelationGetDescr(rel), values, nulls);
	epoch = DatumGetInt64(values[ES_EPOCH_EPOCH - 1]);
	fork = DatumGetInt64(values[ES_EPOCH_FORK_POSITION - 1]);
	if (epoch > epochs->current)
	{
		epochs->current = epoch;
		epochs->store_id = *DatumGetUUIDP(values[ES_EPOCH_STORE_ID - 1]);
		epochs->is_ours =
			DatumGetInt64(values[ES_EPOCH_SYSTEM_IDENTIFIER - 1]) == (int64) GetSystemIdentifier() &&
			DatumGetObjectId(values[ES_EPOCH_DATABASE - 1]) == MyDatabaseId &&
			(RecoveryInProgress() ||
			 DatumGetInt64(values[ES_EPOCH_TIMELINE - 1]) == (int64) GetWALInsertionTimeLine());
	}
	if (epoch == epochs->asked)
		epochs->is_known = true;
	if (epoch > epochs->asked && fork < epochs->fork)
		epochs->fork = fork;
	return true;
}

/* All that is committed by now. */
static Epochs
look_up(const EsStore *store, int64 asked)
{
	Epochs		epochs = {.asked = asked,.fork = PG_INT64_MAX};

	EsCatalogScan(store->epoch, 0, NULL, see_epoch, &epochs);
	return epochs;
}

/* Is this the place where epochs are made, and has history changed? */
static bool
has_parted(const EsStore *store, const Epochs *epochs)
{
	return epochs->current != 0 && !epochs->is_ours && !EsFollowsOrigin(store);
}

/* Up to where this store surely has the events of the history it came from. */
static int64
find_fork(Relation event, const EsStore *store)
{
	int64		fork;

	PushActiveSnapshot(GetLatestSnapshot());
	fork = ES_BUG == 16 ? EsSettledNow(store, NULL) :
		EsSettledByHoles(event, store, GetActiveSnapshot());
	PopActiveSnapshot();
	return fork;
}

/* One maker of epochs at a time, to the end of its transaction. */
static void
lock_epochs(void)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, 0, ES_LOCK_EPOCH);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

/* Begin an epoch, unless another session did so meanwhile. */
static Epochs
begin_epoch(Relation event, const EsStore *store)
{
	Epochs		epochs;
	Datum		values[ES_EPOCH_NATTS];
	bool		nulls[ES_EPOCH_NATTS] = {false};
	int64		step = 1;

	lock_epochs();
	epochs = look_up(store, 0);
	if (epochs.current != 0 && !has_parted(store, &epochs))
		return epochs;
	if (epochs.current > PG_INT64_MAX - ES_EPOCH_STEP_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the store has run out of epochs")));
	if (epochs.current == 0)
		epochs.store_id = *DatumGetUUIDP(DirectFunctionCall1(gen_random_uuid, (Datum) 0));
	else
		step = (int64) pg_prng_uint64_range(&pg_global_prng_state, 1,
											ES_EPOCH_STEP_MAX);
	values[ES_EPOCH_FORK_POSITION - 1] =
		Int64GetDatum(epochs.current == 0 ? 0 : find_fork(event, store));
	epochs.current += step;
	values[ES_EPOCH_EPOCH - 1] = Int64GetDatum(epochs.current);
	values[ES_EPOCH_STORE_ID - 1] = UUIDPGetDatum(&epochs.store_id);
	values[ES_EPOCH_SYSTEM_IDENTIFIER - 1] = Int64GetDatum((int64) GetSystemIdentifier());
	values[ES_EPOCH_TIMELINE - 1] = Int64GetDatum((int64) GetWALInsertionTimeLine());
	values[ES_EPOCH_DATABASE - 1] = ObjectIdGetDatum(MyDatabaseId);
	values[ES_EPOCH_BEGAN_AT - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	EsRowInsert(store->epoch, values, nulls);
	CommandCounterIncrement();	/* for our next look */
	return epochs;
}

/*
 * Called before an append locks anything: has history changed since the
 * newest epoch began?  Then begin one, before any position is drawn.
 */
void
EsEpochConfirm(Relation event, const EsStore *store)
{
	Epochs		epochs;

	if (likely(confirmed == store->epoch))
		return;
	if (EsFollowsOrigin(store))
		return;					/* not ours to say, as long as that is so */
	epochs = look_up(store, 0);
	if (ES_BUG != 15 && has_parted(store, &epochs))
		(void) begin_epoch(event, store);
	else
		confirmed = store->epoch;
}

/*
 * Up to which position is good what was told in this epoch?  PG_INT64_MAX
 * while it lasts.  55000 for one that is not this store's.
 */
int64
EsEpochFork(Relation event, const EsStore *store, int64 epoch)
{
	Epochs		epochs = look_up(store, epoch);

	if (!epochs.is_known)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("epoch " INT64_FORMAT " is not one of this store", epoch),
				 errdetail("It comes from another store, or from a copy of this one after they parted."),
				 errhint("Ask es_store() for the epoch, and read from a place that was kept with one of this store's epochs, or from the beginning.")));
	if (has_parted(store, &epochs))
	{
		int64		fork = find_fork(event, store);

		epochs.fork = Min(epochs.fork, fork);
	}
	return epochs.fork;
}

/* May a reader go on from this position, which it was told in this epoch? */
void
EsEpochCheck(Relation event, const EsStore *store, int64 epoch, int64 position)
{
	int64		fork = EsEpochFork(event, store, epoch);

	if (position > fork)
		EsEpochReportLeft(psprintf("position " INT64_FORMAT, position), epoch,
						  fork);
}

void
EsEpochReportLeft(const char *what, int64 epoch, int64 fork)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("%s belongs to a history that was left", what),
			 errdetail("Since a promotion, restore or copy, positions above " INT64_FORMAT " name other events than in epoch " INT64_FORMAT ".",
					   fork, epoch),
			 errhint("Go on from position " INT64_FORMAT ", with the epoch that es_store() answers; events that are told again have the ids they had.",
					 fork)));
}

/*
 * Does the epoch last?  Asked where the server keeps the position, and knows
 * only up to where it is good, not how far the caller was told.
 */
void
EsEpochRequire(Relation event, const EsStore *store, int64 epoch)
{
	int64		fork = EsEpochFork(event, store, epoch);

	if (fork != PG_INT64_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("epoch " INT64_FORMAT " was left", epoch),
				 errdetail("Since a promotion, restore or copy, positions above " INT64_FORMAT " name other events than in that epoch.",
						   fork),
				 errhint("Do not rely on what was told above position " INT64_FORMAT ", and fetch with the epoch that es_store() answers; events from there on are told again, with the ids they had.",
						 fork)));
}

/* The present epoch, one that begins now if it must; this may be written. */
int64
EsEpochPresent(Relation event, const EsStore *store)
{
	Epochs		epochs = look_up(store, 0);

	if (has_parted(store, &epochs))
		epochs = begin_epoch(event, store);
	return epochs.current;
}

/*
 * es_settle() → bigint: write the settled position down, and answer it.
 *
 * Right at every isolation level: all events at or below it are committed,
 * or this transaction's own, before the row is.
 *
 * On a new history its epoch comes first.  A standby's sequence is ahead of its
 * events, so what is settled once it is promoted lies beyond the fork.
 */
Datum
es_settle(PG_FUNCTION_ARGS)
{
	const EsStore *store;
	Relation	event;
	char	   *schema;
	Oid			types[1] = {INT8OID};
	Datum		values[1];
	XLogRecPtr	lsn;
	char	   *query;

	EsRequireReadWrite("es_settle()");
	store = EsStoreGet();
	schema = get_namespace_name(store->schema);
	if (EsFollowsOrigin(store))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot settle a store that is replicated from another"),
				 errhint("Call es_settle() where the events are appended.")));
	event = EsEventOpen(&store, AccessShareLock);
	if (ES_BUG != 131)
		EsEpochConfirm(event, store);
	table_close(event, AccessShareLock);
	values[0] = Int64GetDatum(EsSettledNow(store, &lsn));
	XLogFlush(lsn);				/* others take it from the row without asking */
	query = psprintf("INSERT INTO %s.es_settled AS s (position) VALUES ($1) "
					 "ON CONFLICT (singleton) DO UPDATE "
					 "SET position = EXCLUDED.position, written_at = EXCLUDED.written_at "
					 "WHERE s.position OPERATOR(pg_catalog.<) EXCLUDED.position",
					 quote_identifier(schema));
	SPI_connect();
	if (SPI_execute_with_args(query, 1, types, values, NULL, false, 0) < 0)
		elog(ERROR, "could not write down the settled position");
	SPI_finish();
	PG_RETURN_DATUM(values[0]);
}

/*
 * es_store(OUT store_id uuid, OUT epoch bigint, OUT settled_position bigint)
 *
 * Where this transaction may not write, a history that has no epoch yet is
 * answered with the one before, up to the fork: that much is true in both.
 */
Datum
es_store(PG_FUNCTION_ARGS)
{
	const EsStore *store;
	Relation	event = EsEventOpen(&store, AccessShareLock);
	TupleDesc	desc;
	Datum		values[3];
	bool		nulls[3] = {false};
	Epochs		epochs;
	int64		settled;
	int64		fork = PG_INT64_MAX;

	EsCheckPrivilege(event, ACL_SELECT);
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	epochs = look_up(store, 0);
	if (!EsFollowsOrigin(store) &&
		(epochs.current == 0 || has_parted(store, &epochs)))
	{
		if (!XactReadOnly && !IsInParallelMode())
			epochs = begin_epoch(event, store);
		else if (epochs.current != 0)
			fork = find_fork(event, store);
	}
	if (epochs.current == 0)
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("this store has no epoch yet"),
				 errhint("Call es_store() once where the store is written to, in a transaction that is not read-only.")));
	settled = EsSettledPosition(event, store);
	values[0] = UUIDPGetDatum(&epochs.store_id);
	values[1] = Int64GetDatum(epochs.current);
	values[2] = Int64GetDatum(settled < fork ? settled : fork);
	table_close(event, AccessShareLock);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
