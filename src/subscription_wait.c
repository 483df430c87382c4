/*
 * subscription_wait.c: wait until a subscription has something to fetch.
 *
 * WHO WAKES WHOM.  Appends wake the database's worker (wake.c), and it wakes
 * whoever waits here, before it turns to its projections.  It finds them in
 * the lock manager: who waits holds a heavyweight lock whose tag says just
 * that.  So an append does no more than it did before, and nothing is shared
 * that would need preloading.
 *
 * NO WAKE-UP IS LOST.  The lock is taken before the first look at the log.  The
 * worker, once woken, asks for these locks: either it finds ours and sets
 * our latch, or we took it later, and then our look comes later still, and
 * the append that woke the worker had committed before.
 *
 * Some things come about without an append: a lease ends, an event becomes due
 * again, a worker dies.  So once a second, or when the next event is due,
 * there is a look in any case.  Where there is no worker there is one every few
 * milliseconds.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "definition.h"
#include "log.h"
#include "point.h"
#include "stream.h"
#include "subscription.h"
#include "wake.h"

#define FIRST_NAP 1				/* ms, without a worker */
#define LONGEST_NAP 10
#define TICK 1000				/* ms, with one */
#define LONGEST_LOOK 100000		/* events looked at, before a fetch must move on */
#define WAITER UINT32_MAX		/* second tag field of a lock that waits */

/* One who waits. */
typedef struct Waiter
{
	const char *name;			/* of the subscription */
	const char *consumer;		/* NULL: any */
	struct Seen
	{
		int64		from;		/* behind this, */
		int64		to;			/* and up to here, there is nothing to fetch */
	}		   *seen;			/* by partition */
	int			partitions;		/* that seen has room for */
	MemoryContext look;			/* of one look */
	TimestampTz next_due;		/* when an event comes back */
} Waiter;

PG_FUNCTION_INFO_V1(es_wait_for_events);

/* ----- the worker's side ----- */

static void
waiter_tag(LOCKTAG *tag, int pid)
{
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, WAITER, (uint32) pid, ES_LOCK_SUBSCRIPTION);
}

/* Wake all sessions of this database that wait for events. */
void
EsSubscriptionWake(void)
{
	LockData   *locks = GetLockStatusData();

	for (int i = 0; i < locks->nelements; i++)
	{
		LockInstanceData *held = &locks->locks[i];
		PGPROC	   *proc;

		if (held->locktag.locktag_type != LOCKTAG_ADVISORY ||
			held->locktag.locktag_field4 != ES_LOCK_SUBSCRIPTION ||
			held->locktag.locktag_field2 != WAITER ||
			held->locktag.locktag_field1 != MyDatabaseId || held->holdMask == 0)
			continue;
		proc = BackendPidGetProc(held->pid);
		if (proc != NULL)
			SetLatch(&proc->procLatch);
	}
	pfree(locks->locks);
	pfree(locks);
}

/* ----- is something there? ----- */

/* Which consumers have no lease any more, and are in no transaction? */
static bool *
find_gone(const EsLease *lease, TimestampTz now)
{
	bool	   *is_gone = palloc0((lease->nconsumers + 1) * sizeof(bool));

	for (int i = 0; i < lease->nconsumers; i++)
		is_gone[i] = lease->consumers[i].until <= now && &lease->consumers[i] != lease->self &&
			EsLeaseIsFree(lease->subscription, lease->consumers[i].name);
	return is_gone;
}

/* Is the partition anybody's to take?  A free one, or one of a consumer gone. */
static bool
is_to_take(const EsLease *lease, const EsPartition *partition, const bool *is_gone)
{
	if (partition->consumer == NULL)
		return true;
	for (int i = 0; i < lease->nconsumers; i++)
		if (strcmp(lease->consumers[i].name, partition->consumer) == 0)
			return is_gone[i];
	return true;
}

/*
 * The partitions to look at: all, or those that are the consumer's or that it
 * may take.  In those that are to be taken everything behind the checkpoint is
 * there to fetch, in others what is behind the last delivery.  Fills in which
 * are to be taken.
 */
static bool *
find_wanted(EsLease *lease, TimestampTz now, bool *to_take)
{
	int			partitions = lease->subscription->partitions;
	bool	   *wanted = palloc0(partitions * sizeof(bool));
	bool	   *is_gone = find_gone(lease, now);
	int			room = partitions;

	if (lease->self != NULL)
	{
		room = EsLeaseShare(lease, is_gone);
		for (int i = 0; i < partitions; i++)
			room -= lease->partitions[i].is_mine;
	}
	for (int i = 0; i < partitions; i++)
	{
		EsPartition *partition = &lease->partitions[i];

		to_take[i] = !partition->is_mine && is_to_take(lease, partition, is_gone);
		if (to_take[i])
			partition->delivered_to = partition->position;
		wanted[i] = lease->self == NULL || partition->is_mine || (to_take[i] && room > 0);
	}
	return wanted;
}

/*
 * Where to look on in a partition.  What was looked at before need not be
 * again, unless the partition has been set back.
 */
static int64
place_in(struct Seen *seen, const EsPartition *partition)
{
	int64		place = Max(partition->delivered_to, partition->position);

	if (place >= seen->from)
		return Max(place, seen->to);
	seen->from = seen->to = place;
	return place;
}

/* Where to look on; -1: nowhere. */
static int64
first_place(Waiter *waiter, EsLease *lease, const bool *wanted)
{
	int64		first = -1;

	for (int i = 0; i < lease->subscription->partitions; i++)
	{
		EsPartition *partition = &lease->partitions[i];

		partition->delivered_to = place_in(&waiter->seen[i], partition);
		if (wanted[i] && (first < 0 || partition->delivered_to < first))
			first = partition->delivered_to;
	}
	return first;
}

/* Is there an event of a wanted partition in the log? */
static bool
look_at_log(Waiter *waiter, EsLease *lease, const bool *wanted)
{
	const EsSubscription *subscription = lease->subscription;
	int64		from = first_place(waiter, lease, wanted);
	const EsStore *store;
	Relation	event;
	EsUpcast   *upcast;
	EsLogReader *reader;
	TupleTableSlot *slot;
	bool		found = false;
	int64		passed = 0;

	if (from < 0)
		return false;
	event = EsEventOpen(&store, AccessShareLock);
	upcast = EsUpcastBegin(RelationGetDescr(event), true);
	PushActiveSnapshot(GetLatestSnapshot());
	reader = EsLogReaderBegin(event, store, GetActiveSnapshot(), from);
	while (!found && (slot = EsLogReaderNext(reader)) != NULL)
	{
		int			n = EsSubscriptionPartitionOf(subscription, slot);

		found = ++passed > LONGEST_LOOK ||
			(wanted[n] && EsLogReaderPosition(reader) > lease->partitions[n].delivered_to &&
			 EsSubscriptionWants(subscription, upcast, slot));
	}
	for (int i = 0; i < subscription->partitions && !found; i++)
		if (wanted[i])
			waiter->seen[i].to = Max(waiter->seen[i].to, EsLogReaderPosition(reader));
	EsLogReaderEnd(reader);
	PopActiveSnapshot();
	EsUpcastEnd(upcast);
	table_close(event, AccessShareLock);
	return found;
}

/* Make room to remember what was looked at. */
static void
have_seen(Waiter *waiter, int partitions)
{
	if (waiter->partitions == partitions)
		return;					/* it has not been dropped and made anew */
	waiter->seen = MemoryContextAlloc(GetMemoryChunkContext(waiter),
									  partitions * sizeof(struct Seen));
	for (int i = 0; i < partitions; i++)
		waiter->seen[i].from = waiter->seen[i].to = PG_INT64_MAX;
	waiter->partitions = partitions;
}

/* One look, with whatever is committed by now. */
static bool
something_is_there(Waiter *waiter)
{
	MemoryContext saved = MemoryContextSwitchTo(waiter->look);
	TimestampTz now = GetCurrentTimestamp();
	EsSubscription *subscription = EsSubscriptionOpen(waiter->name);
	EsLease		lease;
	bool	   *wanted;
	bool	   *to_take;
	bool		found;

	EsLeaseLoad(&lease, subscription, waiter->consumer);
	have_seen(waiter, subscription->partitions);
	to_take = palloc0(subscription->partitions * sizeof(bool));
	wanted = find_wanted(&lease, now, to_take);
	waiter->next_due = EsParkedNextDue(subscription);
	found = EsParkedHasDue(&lease, wanted, to_take, now) || look_at_log(waiter, &lease, wanted);
	MemoryContextSwitchTo(saved);
	MemoryContextReset(waiter->look);
	return found;
}

/* ----- waiting ----- */

/* Milliseconds to sleep, at most, before the next look. */
static long
next_nap(const Waiter *waiter, TimestampTz now, TimestampTz end, long nap)
{
	if (waiter->next_due > now)
		nap = Min(nap, (waiter->next_due - now) / 1000 + 1);
	return Min(nap, (end - now) / 1000 + 1);
}

/* Sleep until woken, or interrupted. */
static void
sleep_a_while(long msecs)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 msecs, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/* Look, and sleep, until something is there; false at the end of the time. */
static bool
wait_for_events(Waiter *waiter, TimestampTz end)
{
	TimestampTz ask_again = 0;	/* for the worker */
	bool		has_worker = false;
	long		nap = FIRST_NAP;

	while (!something_is_there(waiter))
	{
		TimestampTz now = GetCurrentTimestamp();

		if (now >= end)
			return false;
		if (now >= ask_again)
		{
			has_worker = EsWorkerPid(MyDatabaseId) != 0;
			ask_again = now + TICK * INT64CONST(1000);
		}
		sleep_a_while(next_nap(waiter, now, end, has_worker ? TICK : nap));
		nap = Min(nap * 2, LONGEST_NAP);
	}
	return true;
}

static TimestampTz
end_argument(FunctionCallInfo fcinfo, int n)
{
	if (PG_ARGISNULL(n))
		return PG_INT64_MAX;
	return GetCurrentTimestamp() + EsIntervalArgument(fcinfo, n, "timeout");
}

/*
 * es_wait_for_events(name text, timeout interval, consumer text) → boolean
 */
Datum
es_wait_for_events(PG_FUNCTION_ARGS)
{
	Waiter	   *waiter = palloc0(sizeof(Waiter));
	TimestampTz end = end_argument(fcinfo, 1);
	Relation	event;
	LOCKTAG		tag;
	bool		found;

	EsRequireArgument(fcinfo, 0, "name");
	waiter->name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (!PG_ARGISNULL(2))
		waiter->consumer = text_to_cstring(PG_GETARG_TEXT_PP(2));
	waiter->look = AllocSetContextCreate(CurrentMemoryContext, "eventstore look",
										 ALLOCSET_DEFAULT_SIZES);
	event = table_open(EsStoreGet()->event, AccessShareLock);
	EsCheckPrivilege(event, ACL_SELECT);
	table_close(event, AccessShareLock);
	waiter_tag(&tag, MyProcPid);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
	found = wait_for_events(waiter, end);
	LockRelease(&tag, ExclusiveLock, false);
	MemoryContextDelete(waiter->look);
	PG_RETURN_BOOL(found);
}
