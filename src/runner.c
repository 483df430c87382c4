/*
 * runner.c: let projections catch up, batch by batch.
 *
 * One batch is one transaction: lock the projection's row, read the settled
 * events behind its checkpoint, run the handlers, move the checkpoint.  So
 * the read tables and the checkpoint can never differ, whatever dies when.
 * The row lock keeps two runners apart; the second passes on to the next
 * projection.  Who calls makes no difference: es_run_projections() from a
 * client or from pg_cron, and the background worker, share all of this.
 *
 * FAILURE.  A batch that fails is rolled back and tried event by event, so
 * that what precedes the failing event is kept and the event is known.  Then
 * the projection stops in front of it, or the event is parked, with or
 * without those that follow it in its stream.  Nothing is passed over without
 * a trace in es_parked.
 *
 * GOING LIVE.  An inline projection with history catches up the same way.
 * When it has reached the end of the log the gate is closed, which waits for
 * appends under way and holds up new ones; the few events left are run, the
 * projection is marked live, and the transaction commits at once.  The next
 * append behind the gate hears of the change before it inserts, so no event
 * falls between the batches and inline running, and none is run by both.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/sinval.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "batch.h"
#include "log.h"
#include "point.h"
#include "query.h"
#include "row_security.h"
#include "runner.h"
#include "snapshot.h"
#include "stat.h"
#include "subscription.h"

/* Setting: events that one transaction takes. */
static int	batch_size = 10000;

PG_FUNCTION_INFO_V1(es_run_projections);
PG_FUNCTION_INFO_V1(es_replay_parked);

void
EsRunnerInit(void)
{
	DefineCustomIntVariable("eventstore.batch_size",
							"Events that a projection takes in one transaction.",
							"Larger batches have fewer commits to wait for; smaller ones show their result sooner and lock what they change for a shorter time.",
							&batch_size, 10000, 1, 10000000, PGC_USERSET, 0,
							NULL, NULL, NULL);
}

int
EsBatchSize(void)
{
	return batch_size;
}

/* ----- parked events ----- */

static HTAB *
make_stream_set(MemoryContext context)
{
	HASHCTL		control = {.keysize = ES_MAX_STREAM_ID + 1,
	.entrysize = ES_MAX_STREAM_ID + 1,.hcxt = context};

	return hash_create("eventstore parked streams", 64, &control,
					   HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
}

static char *
slot_text(TupleTableSlot *slot, AttrNumber attno)
{
	bool		isnull;

	return TextDatumGetCString(slot_getattr(slot, attno, &isnull));
}

static int64
slot_position(TupleTableSlot *slot)
{
	bool		isnull;

	return DatumGetInt64(slot_getattr(slot, ES_EVENT_POSITION, &isnull));
}

/* Which streams wait behind a parked event? */
static void
read_parked_streams(EsRunner *runner)
{
	EsQuery		query = {0};
	uint64		n;

	runner->parked_streams = NULL;
	if (runner->projection->on_error != ES_ON_ERROR_PARK_STREAM)
		return;
	EsQueryAddText(&query, runner->name);
	n = EsQueryRun("SELECT DISTINCT stream_id FROM @es_parked WHERE projection = $1",
				   &query);
	if (n > 0)
		runner->parked_streams = make_stream_set(runner->context);
	for (uint64 i = 0; i < n; i++)
		hash_search(runner->parked_streams, EsQueryText(i, 1), HASH_ENTER, NULL);
}

static bool
is_parked_stream(const EsRunner *runner, TupleTableSlot *slot)
{
	return runner->parked_streams != NULL &&
		hash_search(runner->parked_streams, slot_text(slot, ES_EVENT_STREAM_ID),
					HASH_FIND, NULL) != NULL;
}

/* Put an event aside; failure NULL: it waits behind another of its stream. */
static void
park(EsRunner *runner, TupleTableSlot *slot, const EsFailure *failure)
{
	EsQuery		query = {0};

	EsQueryAddText(&query, runner->name);
	EsQueryAddInt64(&query, slot_position(slot));
	EsQueryAddText(&query, slot_text(slot, ES_EVENT_STREAM_ID));
	EsQueryAddText(&query, slot_text(slot, ES_EVENT_EVENT_TYPE));
	EsQueryAdd(&query, INT4OID, Int32GetDatum(failure == NULL ? 0 : failure->handler),
			   failure == NULL || failure->handler == 0);
	EsQueryAddText(&query, failure == NULL ? NULL :
				   unpack_sql_state(failure->error->sqlerrcode));
	EsQueryAddText(&query, failure == NULL ? "an earlier event of the stream is parked" :
				   failure->error->message);
	EsQueryRun(psprintf("INSERT INTO %s (projection, position, stream_id, event_type,"
						" handler, error_code, message) VALUES ($1, $2, $3, $4, $5, $6, $7)"
						" ON CONFLICT (projection, position) DO UPDATE SET handler = EXCLUDED.handler,"
						" error_code = EXCLUDED.error_code, message = EXCLUDED.message,"
						" parked_at = EXCLUDED.parked_at", runner->parked), &query);
}

/* An event has been put aside: so are, perhaps, those that follow it. */
static void
note_parked(EsRunner *runner, TupleTableSlot *slot, const EsFailure *failure)
{
	if (runner->parked != NULL)
		park(runner, slot, failure);
	if (runner->projection->on_error != ES_ON_ERROR_PARK_STREAM)
		return;
	if (runner->parked_streams == NULL)
		runner->parked_streams = make_stream_set(runner->context);
	hash_search(runner->parked_streams, slot_text(slot, ES_EVENT_STREAM_ID),
				HASH_ENTER, NULL);
}

/* ----- one batch ----- */

/* Leave the failing event's traces in es_projection. */
static void
note_failure(const char *name, int64 position, const EsFailure *failure)
{
	EsQuery		query = {0};

	EsQueryAddText(&query, name);
	EsQueryAddInt64(&query, position);
	EsQueryAdd(&query, INT4OID, Int32GetDatum(failure->handler), failure->handler == 0);
	EsQueryAddText(&query, failure->error->message);
	EsQueryRun("UPDATE @es_projection SET error_position = $2, error_handler = $3,"
			   " last_error = $4 WHERE name = $1", &query);
}

/* One event of a batch that must go singly; false: stop in front of it. */
static bool
run_single(EsRunner *runner, TupleTableSlot *slot)
{
	EsBatch    *one;
	EsFailure	failure;
	bool		done;

	if (is_parked_stream(runner, slot))
	{
		note_parked(runner, slot, NULL);
		return true;
	}
	one = EsBatchOfOne(runner->batch, slot);
	done = EsBatchTry(one, &failure);
	EsBatchFree(one);
	if (done)
	{
		runner->ran++;
		return true;
	}
	runner->failure = failure;
	if (!runner->is_shadow)
		note_failure(runner->name, slot_position(slot), &failure);
	if (runner->projection->on_error == ES_ON_ERROR_STOP || failure.handler == 0)
		return false;			/* not the event's fault: its owner's rights, say */
	note_parked(runner, slot, &failure);
	return true;
}

/* Run the batch event by event, keeping what succeeds. */
static void
run_singly(EsRunner *runner)
{
	EsBatch    *batch = runner->batch;

	EsBatchRewind(batch);
	while (EsBatchNext(batch))
	{
		CHECK_FOR_INTERRUPTS();
		if (run_single(runner, batch->slot))
			continue;
		runner->status = ES_PROJECTION_STOPPED;
		runner->position = slot_position(batch->slot) - 1;
		return;
	}
}

/*
 * Run the batch as a whole, or, if that fails, event by event.  Sets the
 * status, the position reached and the number of events run.
 */
void
EsRunnerRun(EsRunner *runner)
{
	EsFailure	failure;

	runner->position = runner->batch->to;
	if (runner->batch->nevents == 0)
		return;
	if (runner->parked_streams == NULL && EsBatchTry(runner->batch, &failure))
	{
		runner->ran = runner->batch->nevents;
		return;
	}
	run_singly(runner);
}

/* Move the checkpoint, in the transaction of what the handlers did. */
static void
save_checkpoint(const EsRunner *runner, TimestampTz began)
{
	static const char *const names[] = {"live", "catching up", "paused", "stopped"};
	double		seconds = Max(GetCurrentTimestamp() - began, 1) / 1000000.0;
	EsQuery		query = {0};

	EsQueryAddText(&query, runner->name);
	EsQueryAddInt64(&query, runner->position);
	EsQueryAddInt64(&query, runner->ran);
	EsQueryAdd(&query, FLOAT8OID, Float8GetDatum(runner->ran / seconds),
			   runner->ran == 0);
	EsQueryAddText(&query, names[runner->status]);
	EsQueryRun("UPDATE @es_projection SET position = $2, events = events + $3,"
			   " events_per_second = coalesce($4, events_per_second),"
			   " run_at = clock_timestamp(), status = $5 WHERE name = $1", &query);
}

#if ES_BUG == 111
/* Seeded bug: a checkpoint is saved in the transaction after its handlers'. */
static EsRunner late;
static TimestampTz late_began;

static void
save_checkpoint_late(void)
{
	if (late.name == NULL)
		return;
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();
	save_checkpoint(&late, late_began);
	SPI_finish();
	PopActiveSnapshot();
	late.name = NULL;
}
#endif

/*
 * Lock the projection's row and read the checkpoint.  False if it is not to
 * be run, or another runner is at it.
 */
static bool
lock_checkpoint(EsRunner *runner, int64 *position)
{
	EsQuery		query = {0};

	EsQueryAddText(&query, runner->name);
	if (EsQueryRun("SELECT position, status = 'catching up' FROM @es_projection"
				   " WHERE name = $1 AND (status = 'catching up'"
				   " OR status = 'live' AND mode = 'async')"
				   " FOR UPDATE SKIP LOCKED", &query) == 0)
		return false;
	*position = EsQueryInt64(0, 1);
	runner->status = strcmp(EsQueryText(0, 2), "t") == 0 ?
		ES_PROJECTION_CATCHING_UP : ES_PROJECTION_LIVE;

	/* a definition changed by whoever had the lock before is known now */
	AcceptInvalidationMessages();
	runner->projection = EsProjectionGet(runner->name);
	return runner->projection != NULL && runner->projection->nhandlers > 0;
}

/*
 * The projection has read up to the end: close the gate, if that can be had
 * at once, and read what has come meanwhile.
 */
static void
try_to_go_live(EsRunner *runner, Relation event, int64 position)
{
	EsPoint("before-live");
	if (!EsGateTryClose(EsStoreGet(), ES_GATE_PATIENCE))
		return;
	EsBatchAwaitStragglers();
	EsBatchFree(runner->batch);
	runner->batch = EsBatchRead(runner->projection, event, position,
								PG_INT64_MAX, batch_size);
	if (EsBatchIsComplete(runner->batch))
		runner->status = ES_PROJECTION_LIVE;
}

static EsRunResult
run_locked(EsRunner *runner, int64 position)
{
	Relation	event = table_open(EsStoreGet()->event, AccessShareLock);
	TimestampTz began = GetCurrentTimestamp();
	EsProjectionStatus status = runner->status;
	EsRunResult result = ES_RUN_IDLE;

	runner->batch = EsBatchRead(runner->projection, event, position,
								PG_INT64_MAX, batch_size);
	if (status == ES_PROJECTION_CATCHING_UP && EsBatchIsNearEnd(runner->batch))
		try_to_go_live(runner, event, position);
	if (runner->batch->to > position || runner->status != status)
	{
		status = runner->status;
		read_parked_streams(runner);
		EsProgressBegin(ES_JOB_RUN, runner->name);
		EsProgressPhase("projecting", EsLastDrawn(EsStoreGet(), NULL));
		EsProgressUpdate(position);
		EsRunnerRun(runner);
		EsPoint("handlers-run");
		EsProgressEnd();
#if ES_BUG == 111
		late = *runner;
		late.name = MemoryContextStrdup(TopMemoryContext, runner->name);
		late_began = began;
#else
		save_checkpoint(runner, began);
#endif
		EsPoint("checkpoint-saved");
		if (status == ES_PROJECTION_LIVE && runner->projection->is_inline)
			EsProjectionChanged();
		result = runner->batch->is_last && status == ES_PROJECTION_LIVE ?
			ES_RUN_END : ES_RUN_MORE;
	}
	EsBatchFree(runner->batch);
	table_close(event, AccessShareLock);
	return result;
}

/*
 * Run a projection's next batch in the current transaction, which the caller
 * commits.
 */
EsRunResult
EsRunnerBatch(const char *name)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "eventstore batch",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext saved = MemoryContextSwitchTo(context);
	EsRunner	runner = {.name = name,.context = context,.parked = "@es_parked"};
	EsRunResult result = ES_RUN_IDLE;
	int64		position;

	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();
	if (lock_checkpoint(&runner, &position))
		result = run_locked(&runner, position);
	SPI_finish();
	PopActiveSnapshot();
	MemoryContextSwitchTo(saved);
	MemoryContextDelete(context);
	return result;
}

/* ----- all projections ----- */

/*
 * Begin the work of a new transaction: a batch must see what committed since
 * the last one, whatever the session's default isolation level.
 */
void
EsRunnerBeginTransaction(void)
{
	XactIsoLevel = XACT_READ_COMMITTED;
}

/* Names of the projections that are to be run, in the current context. */
List *
EsRunnerProjections(void)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *names = NIL;
	uint64		n;

	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();
	n = EsQueryRun("SELECT name FROM @es_projection WHERE status = 'catching up'"
				   " OR status = 'live' AND mode = 'async' ORDER BY name", NULL);
	for (uint64 i = 0; i < n; i++)
	{
		MemoryContext saved = MemoryContextSwitchTo(context);

		names = lappend(names, pstrdup(EsQueryText(i, 1)));
		MemoryContextSwitchTo(saved);
	}
	SPI_finish();
	PopActiveSnapshot();
	return names;
}

/* Write down the settled position, where this is the store's origin. */
int64
EsRunnerSettle(void)
{
	EsDefiner	owner = {EsExtensionOwner(), "pg_catalog, pg_temp"};
	EsRights	rights;
	int64		position = 0;

	PushActiveSnapshot(GetTransactionSnapshot());
	if (!EsFollowsOrigin(EsStoreGet()))
	{
		EsRightsEnter(&owner, &rights);
		position = DatumGetInt64(DirectFunctionCall1(es_settle, (Datum) 0));
		EsRightsLeave(&rights);
	}
	PopActiveSnapshot();
	return position;
}

/*
 * Take some of the snapshots that plain appends made due, in the name of the
 * extension's owner; each fold runs in its definer's.  True if there may be
 * more to take.
 */
bool
EsRunnerSnapshots(void)
{
	EsDefiner	owner = {EsExtensionOwner(), "pg_catalog, pg_temp"};
	EsRights	rights;
	const EsStore *store;
	Relation	event;
	bool		more;

	PushActiveSnapshot(GetTransactionSnapshot());
	event = EsEventOpen(&store, AccessShareLock);
	EsRightsEnter(&owner, &rights);
	(void) EsSnapshotTakeDue(event, EsBatchSize(), &more);
	EsRightsLeave(&rights);
	table_close(event, AccessShareLock);
	PopActiveSnapshot();
	return more;
}

/* 2D000 unless the procedure may commit. */
void
EsRequireNonatomic(FunctionCallInfo fcinfo, const char *name)
{
	if (fcinfo->context == NULL || !IsA(fcinfo->context, CallContext) ||
		castNode(CallContext, fcinfo->context)->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("%s cannot run inside a transaction block or a function", name),
				 errdetail("It commits after each batch."),
				 errhint("CALL it on its own.")));
}

/* Let each projection run a batch in turn, until none has more to do. */
static void
run_all(int64 max_batches)
{
	bool		more = true;

	while (more && max_batches > 0)
	{
		ListCell   *cell;
		List	   *names = EsRunnerProjections();

		more = false;
		foreach(cell, names)
		{
			EsRunResult result;

			CHECK_FOR_INTERRUPTS();
			if (max_batches <= 0)
				break;
			result = EsRunnerBatch(lfirst(cell));
			SPI_commit();
			EsRunnerBeginTransaction();
#if ES_BUG == 111
			save_checkpoint_late();
#endif
			if (result != ES_RUN_IDLE)
				max_batches--;
			more |= result == ES_RUN_MORE;
		}
		list_free_deep(names);
	}
}

/*
 * es_run_projections(max_batches integer) [procedure]
 */
Datum
es_run_projections(PG_FUNCTION_ARGS)
{
	int64		max_batches = PG_INT64_MAX;

	EsRequireReadWrite("es_run_projections()");
	EsRequireNonatomic(fcinfo, "es_run_projections()");
	if (!PG_ARGISNULL(0))
		max_batches = PG_GETARG_INT32(0);
	if (max_batches < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be positive", "max_batches")));
	EsRowSecurityRefuseCaller();	/* who hears what handlers say */
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	SPI_commit();
	EsRunnerBeginTransaction();
	run_all(max_batches);
	while (EsRunnerSnapshots())
	{
		SPI_commit();
		EsRunnerBeginTransaction();
	}
	(void) EsRunnerSettle();
	SPI_finish();
	PG_RETURN_VOID();
}

/* ----- parked events, again ----- */

/* The batch that holds just the event at this position; NULL: it is gone. */
static EsBatch *
read_event(EsProjection *projection, Relation event, int64 position)
{
	EsBatch    *batch = EsBatchRead(projection, event, position - 1, position, 1);

	if (batch->nevents == 1)
		return batch;
	EsBatchFree(batch);
	return NULL;
}

/* Try the event of a batch of one, unless it waits behind another. */
static bool
replay_single(EsRunner *runner, EsBatch *one)
{
	EsFailure	failure;

	(void) EsBatchNext(one);
	if (is_parked_stream(runner, one->slot))
		return false;
	if (EsBatchTry(one, &failure))
		return true;
	EsBatchRewind(one);
	(void) EsBatchNext(one);
	note_parked(runner, one->slot, &failure);
	return false;
}

/* Try one parked event; true when it is parked no longer. */
static bool
replay_event(EsRunner *runner, Relation event, int64 position)
{
	EsQuery		query = {0};
	EsBatch    *one = read_event(runner->projection, event, position);
	bool		done = one == NULL || replay_single(runner, one);

	if (one != NULL)
		EsBatchFree(one);
	if (!done)
		return false;
	EsQueryAddText(&query, runner->name);
	EsQueryAddInt64(&query, position);
	EsQueryRun("DELETE FROM @es_parked WHERE projection = $1 AND position = $2", &query);
	return true;
}

/* Try a projection's parked events again, or only these; how many succeeded. */
static int64
replay_projection(const char *name, const char *stream_id, int64 position)
{
	EsRunner	runner = {.name = name,.parked = "@es_parked",.context = CurrentMemoryContext};
	EsQuery		query = {0};
	Relation	event;
	int64	   *positions;
	int64		done = 0;
	int64		n;

	SPI_connect();
	runner.projection = EsProjectionLock(runner.name);
	EsQueryAddText(&query, runner.name);
	EsQueryAddText(&query, stream_id);
	EsQueryAddInt64(&query, position);
	n = EsQueryRun("SELECT position FROM @es_parked WHERE projection = $1"
				   " AND ($2 IS NULL OR stream_id = $2) AND ($3 = 0 OR position = $3)"
				   " ORDER BY position", &query);
	positions = palloc(Max(n, 1) * sizeof(int64));
	for (int64 i = 0; i < n; i++)
		positions[i] = EsQueryInt64(i, 1);
	event = table_open(EsStoreGet()->event, AccessShareLock);
	for (int64 i = 0; i < n; i++)
		done += replay_event(&runner, event, positions[i]);
	table_close(event, AccessShareLock);
	EsProjectionFree(runner.projection);
	SPI_finish();
	return done;
}

/* Is there a projection of this name? */
static bool
is_projection(const char *name)
{
	EsQuery		query = {0};
	bool		found;

	SPI_connect();
	EsQueryAddText(&query, name);
	found = EsQueryRun("SELECT FROM @es_projection WHERE name = $1", &query) > 0;
	SPI_finish();
	return found;
}

/* Does the name mean a subscription?  42704 and 42725 where it is not clear. */
static bool
means_subscription(const char *name, const char *kind)
{
	bool		projection;
	bool		subscription;

	if (kind != NULL && strcmp(kind, "projection") != 0 && strcmp(kind, "subscription") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid %s \"%s\"", "kind", kind),
				 errhint("Use projection or subscription.")));
	if (kind != NULL)
		return strcmp(kind, "subscription") == 0;
	projection = is_projection(name);
	subscription = EsSubscriptionFind(name, true) != NULL;
	if (projection && subscription)
		ereport(ERROR,
				(errcode(ERRCODE_AMBIGUOUS_FUNCTION),
				 errmsg("both a projection and a subscription are called \"%s\"", name),
				 errhint("Give kind => 'projection' or kind => 'subscription'.")));
	if (!projection && !subscription)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("no projection or subscription is called \"%s\"", name)));
	return subscription;
}

/*
 * es_replay_parked(name text, stream_id text, position bigint, kind text) → bigint
 */
Datum
es_replay_parked(PG_FUNCTION_ARGS)
{
	char	   *stream_id = PG_ARGISNULL(1) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(1));
	int64		position = PG_ARGISNULL(2) ? 0 : PG_GETARG_INT64(2);
	char	   *name;

	EsRequireReadWrite("es_replay_parked()");
	EsRequireArgument(fcinfo, 0, "name");
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (!PG_ARGISNULL(2) && position < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be positive", "position")));
	EsRowSecurityRefuseCaller();	/* the count tells of streams */
	if (means_subscription(name, PG_ARGISNULL(3) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(3))))
		PG_RETURN_INT64(EsSubscriptionReplay(name, stream_id, position));
	PG_RETURN_INT64(replay_projection(name, stream_id, position));
}
