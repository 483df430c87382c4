/*
 * batch.c: read a stretch of the log and run one projection over it.
 *
 * The events are read first and kept, within work_mem and beyond that in a
 * temporary file, so that the scan of the log is over before a handler runs,
 * and so that a batch that failed can be tried again event by event.  They are
 * kept as they are stored: upcasters are users' code, and run where handlers
 * do.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "attempt.h"
#include "batch.h"
#include "log.h"
#include "point.h"
#include "upcast.h"

#define NEAR_END 1000			/* events that take a moment only */

static EsBatch *
make_batch(EsProjection *projection, Relation event, int64 from)
{
	EsBatch    *batch = palloc0(sizeof(EsBatch));

	batch->projection = projection;
	batch->event = event;
	batch->from = from;
	batch->to = from;
	batch->events = tuplestore_begin_heap(true, false, work_mem);
	batch->slot = MakeSingleTupleTableSlot(RelationGetDescr(event),
										   &TTSOpsMinimalTuple);
	return batch;
}

static void
add_event(EsBatch *batch, TupleTableSlot *slot)
{
	tuplestore_puttupleslot(batch->events, slot);
	batch->nevents++;
}

/*
 * The walk ended with the last event there is, but positions were drawn
 * behind it.  If these are holes for ever the batch reaches over them:
 * somebody may wait for a position that was rolled back.
 */
static void
pass_trailing_holes(EsBatch *batch)
{
	const EsStore *store = EsStoreGet();
	EsLogReader *reader;
	int64		settled;

	if (EsFollowsOrigin(store) || IsolationUsesXactSnapshot() ||
		batch->to >= EsLastDrawn(store, NULL))
		return;
	settled = EsSettledNow(store, NULL);
	if (settled <= batch->to)
		return;
	PushActiveSnapshot(EsLogSnapshot());
	reader = EsLogReaderBegin(batch->event, store, GetActiveSnapshot(), batch->to);
	if (EsLogReaderNext(reader) == NULL)
		batch->to = settled;
	else
		batch->is_last = false;
	EsLogReaderEnd(reader);
	PopActiveSnapshot();
}

/*
 * Read the settled events behind from, and not behind up_to, until there are
 * max_events that the projection wants.  In the current memory context; the
 * projection, and the relation, must outlive the batch.
 */
EsBatch *
EsBatchRead(EsProjection *projection, Relation event, int64 from, int64 up_to,
			int max_events)
{
	EsBatch    *batch = make_batch(projection, event, from);
	EsLogReader *reader;
	TupleTableSlot *slot = NULL;
	EsUpcast   *upcast = EsUpcastBegin(RelationGetDescr(event), false);

	PushActiveSnapshot(EsLogSnapshot());
	reader = EsLogReaderBegin(event, EsStoreGet(), GetActiveSnapshot(), from);
	while (batch->nevents < max_events && (slot = EsLogReaderNext(reader)) != NULL)
	{
		if (EsLogReaderPosition(reader) > up_to)
		{
			slot = NULL;
			break;
		}
		batch->to = EsLogReaderPosition(reader);
		if (EsProjectionWants(projection, slot, EsUpcastType(upcast, slot)))
			add_event(batch, slot);
	}
	batch->is_last = slot == NULL;
	EsLogReaderEnd(reader);
	EsUpcastEnd(upcast);
	PopActiveSnapshot();
	if (batch->is_last && up_to == PG_INT64_MAX)
		pass_trailing_holes(batch);
	return batch;
}

/*
 * After the gate has been closed: wait until what is drawn is settled.
 *
 * A transaction that ends gives the gate back a moment before its
 * announcement.  Whoever gets the gate in between meets an announcement of
 * nobody, and the log would seem to end in front of a hole that is decided.
 */
void
EsBatchAwaitStragglers(void)
{
	const EsStore *store = EsStoreGet();

	for (int tries = 0; tries < 20; tries++)
	{
		if (EsSettledNow(store, NULL) >= EsLastDrawn(store, NULL))
			return;
		CHECK_FOR_INTERRUPTS();
		pg_usleep(1000L);
	}
}

/* Is so little left that appends may be kept waiting for it? */
bool
EsBatchIsNearEnd(const EsBatch *batch)
{
	return batch->is_last && batch->nevents <= NEAR_END;
}

/* Does the batch reach as far as positions have been drawn? */
bool
EsBatchIsComplete(const EsBatch *batch)
{
	return batch->is_last && batch->to >= EsLastDrawn(EsStoreGet(), NULL);
}

void
EsBatchFree(EsBatch *batch)
{
	tuplestore_end(batch->events);
	ExecDropSingleTupleTableSlot(batch->slot);
	pfree(batch);
}

/* Back to the first event. */
void
EsBatchRewind(EsBatch *batch)
{
	tuplestore_select_read_pointer(batch->events, 0);
	tuplestore_rescan(batch->events);
}

/* The next event into batch->slot; false at the end. */
bool
EsBatchNext(EsBatch *batch)
{
	tuplestore_select_read_pointer(batch->events, 0);
	return tuplestore_gettupleslot(batch->events, true, false, batch->slot);
}

/* A batch of a single event, taken from another. */
EsBatch *
EsBatchOfOne(const EsBatch *batch, TupleTableSlot *slot)
{
	EsBatch    *one = make_batch(batch->projection, batch->event, batch->from);

	add_event(one, slot);
	return one;
}

/* The event in the batch's slot in its newest form. */
static TupleTableSlot *
newest_form(EsBatch *batch, EsUpcast *upcast)
{
	TupleTableSlot *slot;

	if (upcast == NULL)
		return batch->slot;
	PushActiveSnapshot(GetTransactionSnapshot());
	slot = EsUpcastSlot(upcast, batch->slot);
	PopActiveSnapshot();
	return slot;
}

/* Run the handlers that see the batch as a whole. */
static void
run_batch_handlers(EsBatch *batch, EsRun *run, EsUpcast *upcast)
{
	Tuplestorestate *events;

	if (upcast == NULL || !batch->projection->has_batch)
	{
		EsRunBatch(run, batch->events, batch->nevents);
		return;
	}
	events = tuplestore_begin_heap(true, false, work_mem);
	EsBatchRewind(batch);
	while (EsBatchNext(batch))
	{
		CHECK_FOR_INTERRUPTS();
		tuplestore_puttupleslot(events, newest_form(batch, upcast));
	}
	EsRunBatch(run, events, batch->nevents);
	tuplestore_end(events);
}

static void
run_handlers(EsBatch *batch, EsRun *run)
{
	EsUpcast   *upcast = EsUpcastBegin(RelationGetDescr(batch->event), false);

	EsRunBegin(run, batch->projection, batch->event);
	EsBatchRewind(batch);
	while (batch->projection->has_single && EsBatchNext(batch))
	{
		CHECK_FOR_INTERRUPTS();
		EsRunEvent(run, newest_form(batch, upcast));
	}
	run_batch_handlers(batch, run, upcast);
	EsRunEnd(run);
	EsUpcastEnd(upcast);
}

/* Run the handlers: for each event, in order, then for all of them. */
void
EsBatchRun(EsBatch *batch)
{
	EsRun		run;

	run_handlers(batch, &run);
}

/*
 * Is it the moment that failed, and not the handler?  Then trying again may
 * help, and the event must not be blamed: conflicts with others, lack of
 * resources, the user's or the administrator's will.
 */
static bool
is_transient(const ErrorData *error)
{
	switch (ERRCODE_TO_CATEGORY(error->sqlerrcode))
	{
		case ERRCODE_TRANSACTION_ROLLBACK:
#if ES_BUG != 112
		case ERRCODE_INSUFFICIENT_RESOURCES:
#endif
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
			return true;
		default:
			return error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE;
	}
}

typedef struct TriedBatch
{
	EsBatch    *batch;
	EsRun		run;
} TriedBatch;

static bool
run_tried(void *arg)
{
	TriedBatch *tried = arg;

	run_handlers(tried->batch, &tried->run);
	return true;
}

/*
 * Run the handlers in a subtransaction.  If they fail nothing of it remains,
 * and the answer is false; the failure's error is in the current memory
 * context.  A failure of the moment is thrown on.
 */
bool
EsBatchTry(EsBatch *batch, EsFailure *failure)
{
	TriedBatch	tried = {.batch = batch};

	if (EsAttempt(run_tried, &tried, &failure->error))
		return true;
	if (is_transient(failure->error))
		ReThrowError(failure->error);
	failure->position = tried.run.position;
	failure->handler = tried.run.handler;
	return false;
}
