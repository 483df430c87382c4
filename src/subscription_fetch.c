/*
 * subscription_fetch.c: deliver events to a consumer, and take its word that
 * it has dealt with them.
 *
 * A delivery is one walk along the log (log.c, so that no late commit is
 * missed), from the lowest checkpoint of the consumer's partitions to where
 * max_count events were found.  Events of other partitions are passed over
 * after a look at the stream id, which is at a fixed place in the row.  What
 * was put aside before and is due comes in between, at its position, so that
 * a delivery is in the order of positions as a whole and "up to this position"
 * means the same for both.
 *
 * When the walk finds nothing to deliver the checkpoints move to its end at once;
 * else they do so with the acknowledgement.
 *
 * An event that nobody survives must not hold up its partition for ever.  Once
 * a partition's next event was delivered too often without an
 * acknowledgement, it is delivered alone, so that it is known which one it is;
 * and if that fails as well it is parked.
 *
 * EPOCHS.  The checkpoints are in the same files as the log, so the events at or
 * below them are in any history that has them.  Not so what a consumer was
 * told above: a standby that lagged knows neither the deliveries nor the
 * events, and gives those positions to others.  So a consumer names the epoch
 * in which it is told, and is refused once that was left; its partitions remember
 * the epoch, so that one who names none is not told of another history in
 * silence.  Who comes with the new epoch is told again from the fork.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "definition.h"
#include "epoch.h"
#include "log.h"
#include "point.h"
#include "stream.h"
#include "subscription.h"

#define LONGEST_WALK 500000		/* events passed over by one call */
#define OWN_COLUMNS 3			/* of the result, before those of the event */

/* A delivery in the making. */
typedef struct Delivery
{
	EsLease    *lease;
	const EsSubscription *subscription;
	Relation	event;			/* es_event */
	const EsStore *store;
	EsUpcast   *upcast;
	EsParkedProbe *probe;
	Tuplestorestate *rows;		/* where they go */
	TupleDesc	desc;			/* what they look like */
	Datum		token;			/* of all of them */
	int64		epoch;			/* in which the caller is told; 0: none given */
	int			room;			/* for so many more */
	int			found;			/* events of the log so far */
	EsDueEvent *due;			/* what was put aside and comes back */
	int			ndue;
	int			next_due;		/* the first that is not in the rows yet */
} Delivery;

PG_FUNCTION_INFO_V1(es_fetch);
PG_FUNCTION_INFO_V1(es_ack);

/* ----- acknowledging ----- */

/* The lowest checkpoint of our partitions; -1: we hold none. */
static int64
first_position(const EsLease *lease)
{
	int64		first = -1;

	for (int i = 0; i < lease->subscription->partitions; i++)
		if (lease->partitions[i].is_mine &&
			(first < 0 || lease->partitions[i].position < first))
			first = lease->partitions[i].position;
	return first;
}

/* Count one event of the log, if it is in flight behind a checkpoint. */
static void
count_event(EsLease *lease, TupleTableSlot *slot, int64 position, EsUpcast *upcast,
			EsParkedProbe *probe)
{
	int			n = EsSubscriptionPartitionOf(lease->subscription, slot);
	EsPartition *partition = &lease->partitions[n];

	if (partition->is_mine && position > partition->position &&
		position <= partition->delivered_to &&
		EsSubscriptionWants(lease->subscription, upcast, slot) &&
		EsParkedLook(probe, slot) == ES_NOT_PARKED)
		partition->in_flight++;
}

/* Count anew what is in flight behind our checkpoints, up to the delivery's end. */
static void
count_in_flight(EsLease *lease, int64 delivered_to)
{
	const EsStore *store;
	Relation	event = EsEventOpen(&store, AccessShareLock);
	EsUpcast   *upcast = EsUpcastBegin(RelationGetDescr(event), true);
	EsParkedProbe *probe = EsParkedBegin(lease->subscription, first_position(lease));
	EsLogReader *reader;
	TupleTableSlot *slot;

	for (int i = 0; i < lease->subscription->partitions; i++)
		if (lease->partitions[i].is_mine)
			lease->partitions[i].in_flight = 0;
	PushActiveSnapshot(EsLogSnapshot());
	reader = EsLogReaderBegin(event, store, GetActiveSnapshot(), first_position(lease));
	while ((slot = EsLogReaderNext(reader)) != NULL &&
		   EsLogReaderPosition(reader) <= delivered_to)
		count_event(lease, slot, EsLogReaderPosition(reader), upcast, probe);
	EsLogReaderEnd(reader);
	PopActiveSnapshot();
	EsParkedEnd(probe);
	EsUpcastEnd(upcast);
	table_close(event, AccessShareLock);
}

/* Move the checkpoint of a partition, at most to the end of the delivery. */
static void
move_checkpoint(EsPartition *partition, int64 up_to)
{
	int64		position = Min(up_to, partition->delivered_to);

	if (position <= partition->position)
		return;
	partition->position = position;
	partition->attempts = 0;
	partition->in_flight = 0;
	partition->is_changed = true;
}

/*
 * The consumer has dealt with its delivery, up to a position; PG_INT64_MAX
 * for all of it.  22023 for a position behind the delivery.
 */
static void
acknowledge(EsLease *lease, int64 up_to)
{
	int64		delivered_to = 0;

	for (int i = 0; i < lease->subscription->partitions; i++)
		if (lease->partitions[i].is_mine)
			delivered_to = Max(delivered_to, lease->partitions[i].delivered_to);
	if (up_to != PG_INT64_MAX && up_to > delivered_to)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("position " INT64_FORMAT " is beyond the delivery", up_to),
				 errdetail("It reaches up to " INT64_FORMAT ".", delivered_to)));
	for (int i = 0; i < lease->subscription->partitions; i++)
		if (lease->partitions[i].is_mine)
			move_checkpoint(&lease->partitions[i], up_to);
	if (up_to < delivered_to)
		count_in_flight(lease, delivered_to);
	if (lease->self->replayed > 0)
	{
		lease->self->replayed = EsParkedAck(lease, up_to);
		lease->self->is_changed = true;
	}
}

/*
 * es_ack(name text, token text, position bigint)
 */
Datum
es_ack(PG_FUNCTION_ARGS)
{
	EsLease		lease;

	EsRequireArgument(fcinfo, 0, "name");
	EsRequireArgument(fcinfo, 1, "token");
	EsRequireReadWrite("es_ack()");
	EsSubscriptionCallBegin();
	EsLeaseOpenByToken(&lease, text_to_cstring(PG_GETARG_TEXT_PP(0)),
					   text_to_cstring(PG_GETARG_TEXT_PP(1)));
	acknowledge(&lease, PG_ARGISNULL(2) ? PG_INT64_MAX : PG_GETARG_INT64(2));
	EsLeaseWrite(&lease);
	EsSubscriptionCallEnd();
	PG_RETURN_VOID();
}

/* ----- delivering ----- */

/* The event at a position, in a slot of the current context; NULL: none. */
TupleTableSlot *
EsDeliveryEvent(Relation event, const EsStore *store, int64 position)
{
	TupleTableSlot *copy = NULL;
	TupleTableSlot *slot;
	EsLogReader *reader;

	PushActiveSnapshot(EsLogSnapshot());
	reader = EsLogReaderBegin(event, store, GetActiveSnapshot(), position - 1);
	slot = EsLogReaderNext(reader);
	if (slot != NULL && EsLogReaderPosition(reader) == position)
	{
		copy = MakeSingleTupleTableSlot(RelationGetDescr(event), &TTSOpsHeapTuple);
		ExecCopySlot(copy, slot);
	}
	EsLogReaderEnd(reader);
	PopActiveSnapshot();
	return copy;
}

/* Add an event to the delivery, in its newest form. */
static void
put_row(Delivery *delivery, TupleTableSlot *slot, int partition, int attempt)
{
	Datum		values[OWN_COLUMNS + ES_EVENT_NATTS];
	bool		nulls[OWN_COLUMNS + ES_EVENT_NATTS] = {0};

	slot = EsUpcastSlot(delivery->upcast, slot);
	slot_getallattrs(slot);
	values[0] = delivery->token;
	values[1] = Int32GetDatum(attempt);
	values[2] = Int32GetDatum(partition);
	memcpy(values + OWN_COLUMNS, slot->tts_values, ES_EVENT_NATTS * sizeof(Datum));
	memcpy(nulls + OWN_COLUMNS, slot->tts_isnull, ES_EVENT_NATTS * sizeof(bool));
	tuplestore_putvalues(delivery->rows, delivery->desc, values, nulls);
}

/* Add what comes back and stands before a position of the log. */
static void
put_due_rows(Delivery *delivery, int64 before)
{
	while (delivery->next_due < delivery->ndue &&
		   delivery->due[delivery->next_due].position < before)
	{
		EsDueEvent *due = &delivery->due[delivery->next_due++];
		TupleTableSlot *slot = EsDeliveryEvent(delivery->event, delivery->store,
											   due->position);

		if (slot == NULL)
			continue;			/* the acknowledgement removes its row */
		put_row(delivery, slot,
				EsSubscriptionPartitionOf(delivery->subscription, slot), due->attempts);
		ExecDropSingleTupleTableSlot(slot);
	}
}

/* Nobody survives this event: park it. */
static void
park_failing(Delivery *delivery, TupleTableSlot *slot, EsPartition *partition)
{
	char	   *reason = psprintf("delivered %d times without an acknowledgement",
								  partition->attempts);

	EsParkedAdd(delivery->subscription, slot, "parked", reason, partition->attempts, 0);
	EsParkedEnd(delivery->probe);
	delivery->probe = EsParkedBegin(delivery->subscription, partition->position);
	partition->attempts = 0;
	partition->is_changed = true;
}

/* Failed deliveries after which an event is parked. */
static int
last_attempt(const EsSubscription *subscription)
{
	return Max(subscription->max_attempts, 2);
}

/* An event of one of our partitions, behind its checkpoint. */
static void
meet_event(Delivery *delivery, TupleTableSlot *slot, int64 position, int n)
{
	EsPartition *partition = &delivery->lease->partitions[n];
	bool		is_again = position <= partition->attempted_to;

	if (!EsSubscriptionWants(delivery->subscription, delivery->upcast, slot))
		return;
	switch (EsParkedLook(delivery->probe, slot))
	{
		case ES_IS_PARKED:
			return;
		case ES_IS_BEHIND:
			EsParkedAddBehind(delivery->subscription, slot);
			return;
		case ES_NOT_PARKED:
			break;
	}
	if (is_again && partition->in_flight == 0 &&
		partition->attempts >= last_attempt(delivery->subscription))
	{
		park_failing(delivery, slot, partition);
		return;
	}
	put_due_rows(delivery, position);
	put_row(delivery, slot, n, is_again ? partition->attempts + 1 : 1);
	partition->in_flight++;
	delivery->found++;
	delivery->room--;
}

/*
 * Walk along the log from a position, until there is no more room.  Answers
 * how far it came.
 */
static int64
walk(Delivery *delivery, int64 from)
{
	EsPartition *partitions = delivery->lease->partitions;
	EsLogReader *reader;
	TupleTableSlot *slot = NULL;
	int64		reached;
	int			passed = 0;

	PushActiveSnapshot(EsLogSnapshot());
	reader = EsLogReaderBegin(delivery->event, delivery->store, GetActiveSnapshot(), from);
	while (delivery->room > 0 && passed++ < LONGEST_WALK &&
		   (slot = EsLogReaderNext(reader)) != NULL)
	{
		int			n = EsSubscriptionPartitionOf(delivery->subscription, slot);

		if (partitions[n].is_mine && EsLogReaderPosition(reader) > partitions[n].position)
			meet_event(delivery, slot, EsLogReaderPosition(reader), n);
	}
	reached = ES_BUG == 94 && slot == NULL ? EsLastDrawn(delivery->store, NULL) :
		EsLogReaderPosition(reader);
	EsLogReaderEnd(reader);
	PopActiveSnapshot();
	return reached;
}

/* Note in our partitions how far the delivery reaches. */
static void
note_reached(Delivery *delivery, int64 reached)
{
	for (int i = 0; i < delivery->subscription->partitions; i++)
	{
		EsPartition *partition = &delivery->lease->partitions[i];

		if (!partition->is_mine || reached <= partition->position)
			continue;
		partition->delivered_to = reached;
		if (delivery->found == 0)
			partition->position = reached;
		partition->is_changed = true;
	}
}

/* Is an event on trial in one of our partitions? */
static bool
is_on_trial(const EsLease *lease)
{
	for (int i = 0; i < lease->subscription->partitions; i++)
		if (lease->partitions[i].is_mine &&
			lease->partitions[i].attempts >= last_attempt(lease->subscription) - 1)
			return true;
	return false;
}

/* Put the next events into the rows; answers how many were put aside before. */
static int
deliver(Delivery *delivery, TimestampTz now)
{
	int64		from = first_position(delivery->lease);

	if (from < 0)
		return 0;
	delivery->ndue = EsParkedTakeDue(delivery->lease, now, delivery->room, &delivery->due);
	delivery->room -= delivery->ndue;
	if (is_on_trial(delivery->lease))
		delivery->room = Min(delivery->room, 1);
	delivery->upcast = EsUpcastBegin(RelationGetDescr(delivery->event), true);
	delivery->probe = EsParkedBegin(delivery->subscription, from);
	note_reached(delivery, walk(delivery, from));
	put_due_rows(delivery, PG_INT64_MAX);
	EsParkedEnd(delivery->probe);
	EsUpcastEnd(delivery->upcast);
	return delivery->ndue;
}

/* ----- es_fetch ----- */

/* What was delivered before and not acknowledged is to come again. */
static void
give_up_delivery(EsLease *lease)
{
	if (lease->self->replayed > 0)
	{
		EsParkedGiveUp(lease, lease->name);
		lease->self->replayed = 0;
		lease->self->is_changed = true;
	}
	for (int i = 0; i < lease->subscription->partitions; i++)
		if (lease->partitions[i].is_mine)
			EsLeaseGiveUp(lease, &lease->partitions[i]);
}

/* The consumer's row, a new one if it has none. */
static void
have_row(EsLease *lease)
{
	if (lease->self != NULL)
		return;
	lease->self = palloc0(sizeof(EsConsumer));
	ItemPointerSetInvalid(&lease->self->tid);
	lease->self->name = unconstify(char *, lease->name);
	lease->self->lease = EsLeaseNewNumber();
	lease->self->is_changed = true;
}

/* Let a partition go on in the caller's epoch, from the fork if it has to. */
static void
enter_epoch(Delivery *delivery, EsPartition *partition)
{
	int64		fork = partition->epoch == 0 ? PG_INT64_MAX :
		EsEpochFork(delivery->event, delivery->store, partition->epoch);

	if (partition->position > fork)
	{
		partition->position = partition->delivered_to = fork;
		partition->attempts = 0;
		partition->attempted_to = 0;
	}
	partition->epoch = delivery->epoch;
	partition->is_changed = true;
}

/* 55000 if one of our partitions is of an epoch that was left. */
static void
check_epochs(Delivery *delivery)
{
	int64		checked = 0;

	for (int i = 0; i < delivery->subscription->partitions; i++)
	{
		EsPartition *partition = &delivery->lease->partitions[i];

		if (!partition->is_mine || partition->epoch == delivery->epoch)
			continue;
		if (delivery->epoch != 0)
			enter_epoch(delivery, partition);
		else if (partition->epoch != checked && ES_BUG != 116)
		{
			EsEpochRequire(delivery->event, delivery->store, partition->epoch);
			checked = partition->epoch;
		}
	}
}

/* Write the end of the lease, unless it is far and nothing else has changed. */
static void
extend_lease(EsConsumer *self, TimestampTz now, int64 usecs, bool has_rows)
{
	if (!has_rows && !self->is_changed && self->until > now + usecs / 2 &&
		self->until <= now + usecs)
		return;
	self->until = now + usecs;
	if (has_rows)
		self->fetched_at = now;
	self->is_changed = true;
}

/* The events for a consumer whose lock we have. */
static void
fetch(Delivery *delivery, EsLease *lease, const char *ack, int64 usecs)
{
	TimestampTz now = GetCurrentTimestamp();
	int64		number = EsLeaseNewNumber();
	EsConsumer	next;

	EsLeaseReach(lease, now);
	if (ack != NULL)
	{
		EsLeaseCheckToken(lease, ack);
		acknowledge(lease, PG_INT64_MAX);
	}
	have_row(lease);
	give_up_delivery(lease);
	EsLeaseBalance(lease);
	check_epochs(delivery);
	next = *lease->self;
	next.lease = number;
	delivery->token = CStringGetTextDatum(EsLeaseToken(&next));
	lease->self->replayed = deliver(delivery, now);
	if (lease->self->replayed > 0 || delivery->found > 0)
		lease->self->lease = number;
	extend_lease(lease->self, now, usecs, lease->self->lease == number);
	EsLeaseWrite(lease);
}

/* 25006 where nothing can be written. */
static void
check_may_write(void)
{
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot fetch on a standby"),
				 errdetail("Leases and checkpoints are written where the events are."),
				 errhint("Connect to the primary, or read with es_read_all() here.")));
	EsRequireReadWrite("es_fetch()");
}

static char *
consumer_argument(FunctionCallInfo fcinfo, int n)
{
	EsRequireArgument(fcinfo, n, "consumer");
	if (!EsNameIsValid(PG_GETARG_TEXT_PP(n), ES_MAX_EVENT_TYPE))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("invalid consumer name"),
				 errdetail("A name has 1 to %d bytes and no control characters.",
						   ES_MAX_EVENT_TYPE)));
	return text_to_cstring(PG_GETARG_TEXT_PP(n));
}

static int
count_argument(FunctionCallInfo fcinfo, int n)
{
	EsRequireArgument(fcinfo, n, "max_count");
	if (PG_GETARG_INT32(n) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be positive", "max_count")));
	return PG_GETARG_INT32(n);
}

static int64
lease_argument(FunctionCallInfo fcinfo, int n)
{
	int64		usecs;

	EsRequireArgument(fcinfo, n, "lease");
	usecs = EsIntervalArgument(fcinfo, n, "lease");
	if (usecs == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be positive", "lease")));
	return usecs;
}

/*
 * es_fetch(name text, consumer text, max_count integer, lease interval,
 *			ack text, epoch bigint) → SETOF record
 */
Datum
es_fetch(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Delivery	delivery = {0};
	EsLease		lease;
	char	   *name;
	char	   *consumer;
	int64		usecs;

	check_may_write();
	EsRequireArgument(fcinfo, 0, "name");
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	consumer = consumer_argument(fcinfo, 1);
	delivery.room = count_argument(fcinfo, 2);
	usecs = lease_argument(fcinfo, 3);
	EsSubscriptionCallBegin();
	InitMaterializedSRF(fcinfo, 0);
	delivery.rows = rsinfo->setResult;
	delivery.desc = rsinfo->setDesc;
	delivery.event = EsEventOpen(&delivery.store, AccessShareLock);
	EsCheckPrivilege(delivery.event, ACL_SELECT);
	(void) EsSubscriptionOpen(name);
	if (PG_NARGS() > 5 && !PG_ARGISNULL(5)) /* version 0.1 had five */
	{
		delivery.epoch = PG_GETARG_INT64(5);
		EsEpochRequire(delivery.event, delivery.store, delivery.epoch);
	}
	if (EsSubscriptionTryShare(name))
	{
		delivery.subscription = EsSubscriptionOpen(name);
		delivery.lease = &lease;
		EsLeaseOpen(&lease, delivery.subscription, consumer);
		fetch(&delivery, &lease, PG_ARGISNULL(4) ? NULL :
			  text_to_cstring(PG_GETARG_TEXT_PP(4)), usecs);
	}
	EsSubscriptionCallEnd();
	table_close(delivery.event, NoLock);	/* kept: the rows may point to its TOAST table */
	return (Datum) 0;
}
