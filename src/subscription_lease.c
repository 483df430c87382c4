/*
 * subscription_lease.c: who may work on which part of a subscription.
 *
 * THE PROBLEM.  Many consumers share a subscription.  The events of a stream
 * must reach them one delivery after the other, although any of them may die,
 * hang for a minute and wake up, or come and go, and although no session
 * belongs to a consumer: each call may come over another connection.
 *
 * PARTITIONS.  A stream falls into one partition for ever.  A partition is
 * held by one consumer, which has one delivery at a time: what it is given is
 * everything, of all its partitions, between their checkpoints and one position,
 * in one walk along the log.  So a consumer that holds many partitions reads
 * the log once, and a consumer that holds one steps over the events of others
 * after a look at their stream ids.
 *
 * LEASES.  A consumer's row says until when its partitions are its own, by the
 * database's clock, and holds the number of its last delivery: random, so that
 * no number of the past is ever right again, not even one that a crash took
 * back.  The delivery's token is that number and the consumer's name.  Whoever
 * acknowledges must bring the number that is in the row.  So the token of a
 * consumer that has fetched again is void, and so is that of one whose
 * lease ended and whose row was removed by another who took the partitions.  As
 * long as nobody has taken them, a late acknowledgement is as good as any.
 *
 * LOCKS.  The row of a consumer, and those of the partitions it holds, are
 * written by who holds its lock, a heavyweight one, to the end of the
 * transaction.  That is the consumer itself in its own calls; or who finds its
 * lease ended, who asks for the lock without waiting, and looks again once he
 * has it: a consumer in the middle of a transaction keeps what it has.
 * A partition that nobody holds is taken under a lock of its own.  What is
 * read after a lock was had is read with a new snapshot, and whoever had the
 * lock before has committed.  So no two ever write the same row, nobody
 * waits for a row, and no consumer waits for another.
 *
 * SHARES.  The consumers with a lease, in the order of their names, get the same
 * number of partitions, the first ones one more where it does not come out even.
 * Each fetch gives away what is above the caller's share, when nothing of
 * it is in flight any more, and takes what is free up to that share.
 *
 * COST.  A fetch writes the consumer's row and the rows of its partitions, an
 * acknowledgement these rows once more, both together in es_fetch(ack => …).  All
 * are HOT updates within pages that are kept half empty for them.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/pg_collation.h"
#include "common/hashfn.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "definition.h"
#include "point.h"
#include "stream.h"
#include "subscription.h"
#include "wake.h"

#define NUMBER_DIGITS 16		/* of a lease, in hexadecimal, in a token */

/* Columns of es_subscription_consumer. */
enum
{
	C_SUBSCRIPTION = 1, C_CONSUMER, C_LEASE, C_LEASE_UNTIL, C_FETCHED_AT,
	C_REPLAYED, C_END
};

/* Columns of es_subscription_partition. */
enum
{
	P_SUBSCRIPTION = 1, P_PARTITION, P_POSITION, P_CONSUMER, P_DELIVERED_TO,
	P_IN_FLIGHT, P_ATTEMPTS, P_ATTEMPTED_TO, P_EPOCH, P_END
};

PG_FUNCTION_INFO_V1(es_renew);

/* ----- locks ----- */

/* The lock of a consumer ('c') or, by its number, of a partition ('p'). */
static void
lease_tag(const EsSubscription *subscription, char kind, const char *name,
		  LOCKTAG *tag)
{
	uint64		hash = hash_bytes_extended((const unsigned char *) subscription->name,
										   strlen(subscription->name), kind);

	hash = hash_bytes_extended((const unsigned char *) name, strlen(name), hash);
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, (uint32) (hash >> 32) & 0x7fffffff,
						 (uint32) hash, ES_LOCK_SUBSCRIPTION);
}

/* Take a consumer's lock to the end of the transaction; false: it is taken. */
bool
EsLeaseLock(const EsSubscription *subscription, const char *consumer, bool wait)
{
	LOCKTAG		tag;

	lease_tag(subscription, 'c', consumer, &tag);
	return LockAcquire(&tag, ExclusiveLock, false, !wait) != LOCKACQUIRE_NOT_AVAIL;
}

/* Could it be had now? */
bool
EsLeaseIsFree(const EsSubscription *subscription, const char *consumer)
{
	LOCKTAG		tag;

	lease_tag(subscription, 'c', consumer, &tag);
	if (LockAcquire(&tag, ExclusiveLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
		return false;
	LockRelease(&tag, ExclusiveLock, false);
	return true;
}

static bool
lock_partition(const EsSubscription *subscription, int partition)
{
	LOCKTAG		tag;

	lease_tag(subscription, 'p', psprintf("%d", partition), &tag);
	return ES_BUG == 98 || LockAcquire(&tag, ExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL;
}

/* ----- rows ----- */

/* Visit the rows of a subscription in one of its tables, in key order. */
static void
scan_rows(Oid table, const char *subscription, Snapshot snapshot,
		  void (*visit) (EsLease *, HeapTuple, Datum *, bool *), EsLease *lease)
{
	Relation	rel = table_open(table, RowExclusiveLock);
	Datum		values[P_END];
	bool		nulls[P_END];
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyEntryInitialize(&key, 0, 1, BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ, CStringGetTextDatum(subscription));
	scan = systable_beginscan(rel, EsPrimaryKey(rel), true, snapshot, 1, &key);
	memset(nulls, true, sizeof(nulls)); /* also what version 0.1 had not */
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		heap_deform_tuple(tuple, RelationGetDescr(rel), values, nulls);
		visit(lease, tuple, values, nulls);
	}
	systable_endscan(scan);
	table_close(rel, NoLock);	/* kept to commit */
}

static void
visit_consumer(EsLease *lease, HeapTuple tuple, Datum *values, bool *nulls)
{
	EsConsumer *consumer;

	if ((lease->nconsumers & (lease->nconsumers - 1)) == 0)
		lease->consumers = lease->consumers == NULL ? palloc(sizeof(EsConsumer)) :
			repalloc(lease->consumers, 2 * lease->nconsumers * sizeof(EsConsumer));
	consumer = &lease->consumers[lease->nconsumers++];
	memset(consumer, 0, sizeof(EsConsumer));
	consumer->tid = tuple->t_self;
	consumer->name = TextDatumGetCString(values[C_CONSUMER - 1]);
	consumer->lease = DatumGetInt64(values[C_LEASE - 1]);
	consumer->until = DatumGetTimestampTz(values[C_LEASE_UNTIL - 1]);
	consumer->fetched_at = DatumGetTimestampTz(values[C_FETCHED_AT - 1]);
	consumer->replayed = DatumGetInt32(values[C_REPLAYED - 1]);
}

static void
visit_partition(EsLease *lease, HeapTuple tuple, Datum *values, bool *nulls)
{
	int			n = DatumGetInt32(values[P_PARTITION - 1]);
	EsPartition *partition;

	if (n < 0 || n >= lease->subscription->partitions)
		return;					/* not one of ours */
	partition = &lease->partitions[n];
	partition->tid = tuple->t_self;
	if (!nulls[P_CONSUMER - 1])
		partition->consumer = TextDatumGetCString(values[P_CONSUMER - 1]);
	partition->position = DatumGetInt64(values[P_POSITION - 1]);
	partition->delivered_to = DatumGetInt64(values[P_DELIVERED_TO - 1]);
	partition->in_flight = DatumGetInt32(values[P_IN_FLIGHT - 1]);
	partition->attempts = DatumGetInt32(values[P_ATTEMPTS - 1]);
	partition->attempted_to = DatumGetInt64(values[P_ATTEMPTED_TO - 1]);
	partition->epoch = nulls[P_EPOCH - 1] ? 0 : DatumGetInt64(values[P_EPOCH - 1]);
	partition->is_mine = lease->name != NULL && partition->consumer != NULL &&
		strcmp(partition->consumer, lease->name) == 0;
}

static EsConsumer *
find_consumer(const EsLease *lease, const char *name)
{
	for (int i = 0; i < lease->nconsumers; i++)
		if (strcmp(lease->consumers[i].name, name) == 0)
			return &lease->consumers[i];
	return NULL;
}

/* A partition of a consumer that is not there is nobody's. */
static void
forget_strangers(EsLease *lease)
{
	for (int i = 0; i < lease->subscription->partitions; i++)
	{
		EsPartition *partition = &lease->partitions[i];

		if (partition->consumer != NULL && !partition->is_mine &&
			find_consumer(lease, partition->consumer) == NULL)
			partition->consumer = NULL;
	}
}

/*
 * Read the state as it is committed by now.  In the current memory context.
 * XX001 where a partition has no checkpoint.
 */
void
EsLeaseLoad(EsLease *lease, const EsSubscription *subscription, const char *consumer)
{
	const EsStore *store = EsStoreGet();
	Oid			partitions = store->subscription_partition;
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());

	memset(lease, 0, sizeof(EsLease));
	lease->subscription = subscription;
	lease->name = consumer;
	lease->partitions = palloc0(subscription->partitions * sizeof(EsPartition));
	scan_rows(store->subscription_consumer, subscription->name, snapshot,
			  visit_consumer, lease);
	scan_rows(partitions, subscription->name, snapshot, visit_partition, lease);
	UnregisterSnapshot(snapshot);
	if (consumer != NULL)
		lease->self = find_consumer(lease, consumer);
	for (int i = 0; i < subscription->partitions; i++)
		if (!ItemPointerIsValid(&lease->partitions[i].tid))
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("partition %d of subscription \"%s\" has no checkpoint",
							i, subscription->name),
					 errhint("Drop the subscription and create it again.")));
	forget_strangers(lease);
}

static void
write_consumer(Relation rel, CatalogIndexState indexes, const EsLease *lease,
			   EsConsumer *consumer)
{
	Datum		values[C_END - 1];
	bool		nulls[C_END - 1] = {0};
	HeapTuple	tuple;

	values[C_SUBSCRIPTION - 1] = CStringGetTextDatum(lease->subscription->name);
	values[C_CONSUMER - 1] = CStringGetTextDatum(consumer->name);
	values[C_LEASE - 1] = Int64GetDatum(consumer->lease);
	values[C_LEASE_UNTIL - 1] = TimestampTzGetDatum(consumer->until);
	values[C_FETCHED_AT - 1] = TimestampTzGetDatum(consumer->fetched_at);
	values[C_REPLAYED - 1] = Int32GetDatum(consumer->replayed);
	tuple = heap_form_tuple(RelationGetDescr(rel), values, nulls);
	if (ItemPointerIsValid(&consumer->tid))
		CatalogTupleUpdateWithInfo(rel, &consumer->tid, tuple, indexes);
	else
		CatalogTupleInsertWithInfo(rel, tuple, indexes);
	consumer->tid = tuple->t_self;
	consumer->is_changed = false;
}

static void
write_partition(Relation rel, CatalogIndexState indexes, const EsLease *lease,
				EsPartition *partition)
{
	Datum		values[P_END - 1];
	bool		nulls[P_END - 1] = {0};
	HeapTuple	tuple;

	values[P_SUBSCRIPTION - 1] = CStringGetTextDatum(lease->subscription->name);
	values[P_PARTITION - 1] = Int32GetDatum(partition - lease->partitions);
	values[P_POSITION - 1] = Int64GetDatum(partition->position);
	nulls[P_CONSUMER - 1] = partition->consumer == NULL;
	if (partition->consumer != NULL)
		values[P_CONSUMER - 1] = CStringGetTextDatum(partition->consumer);
	values[P_DELIVERED_TO - 1] = Int64GetDatum(partition->delivered_to);
	values[P_IN_FLIGHT - 1] = Int32GetDatum(partition->in_flight);
	values[P_ATTEMPTS - 1] = Int32GetDatum(partition->attempts);
	values[P_ATTEMPTED_TO - 1] = Int64GetDatum(partition->attempted_to);
	nulls[P_EPOCH - 1] = partition->epoch == 0;
	values[P_EPOCH - 1] = Int64GetDatum(partition->epoch);
	tuple = heap_form_tuple(RelationGetDescr(rel), values, nulls);
	CatalogTupleUpdateWithInfo(rel, &partition->tid, tuple, indexes);
	partition->tid = tuple->t_self;
	partition->is_changed = false;
}

static void
write_consumers(EsLease *lease)
{
	Relation	rel;
	CatalogIndexState indexes;

	if (lease->self == NULL || !lease->self->is_changed)
		return;
	rel = table_open(EsStoreGet()->subscription_consumer, RowExclusiveLock);
	indexes = CatalogOpenIndexes(rel);
	write_consumer(rel, indexes, lease, lease->self);
	CatalogCloseIndexes(indexes);
	table_close(rel, NoLock);
}

/* Write what has changed; the call's other statements see it. */
void
EsLeaseWrite(EsLease *lease)
{
	Relation	rel = table_open(EsStoreGet()->subscription_partition, RowExclusiveLock);
	CatalogIndexState indexes = NULL;

	for (int i = 0; i < lease->subscription->partitions; i++)
	{
		if (!lease->partitions[i].is_changed)
			continue;
		if (indexes == NULL)
			indexes = CatalogOpenIndexes(rel);
		write_partition(rel, indexes, lease, &lease->partitions[i]);
	}
	if (indexes != NULL)
		CatalogCloseIndexes(indexes);
	table_close(rel, NoLock);	/* kept to commit */
	write_consumers(lease);
	CommandCounterIncrement();
}

/* ----- tokens ----- */

/* A number that no delivery had before. */
int64
EsLeaseNewNumber(void)
{
	return (int64) pg_prng_uint64(&pg_global_prng_state);
}

char *
EsLeaseToken(const EsConsumer *consumer)
{
	return psprintf("%016llx.%s", (unsigned long long) consumer->lease, consumer->name);
}

/* The consumer that a token names, and the number; 22023 if it is none. */
static char *
parse_token(const char *token, int64 *number)
{
	char		digits[NUMBER_DIGITS + 1];
	char	   *end;

	if (strlen(token) > NUMBER_DIGITS + 1 && token[NUMBER_DIGITS] == '.' &&
		strspn(token, "0123456789abcdef") == NUMBER_DIGITS)
	{
		strlcpy(digits, token, sizeof(digits));
		*number = (int64) strtoull(digits, &end, 16);
		return pstrdup(token + NUMBER_DIGITS + 1);
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid token \"%s\"", token),
			 errhint("Give the token that es_fetch() returned with the events.")));
	return NULL;
}

/* 55006 unless the token is that of the consumer's last delivery. */
void
EsLeaseCheckToken(const EsLease *lease, const char *token)
{
	int64		number = 0;
	char	   *consumer = parse_token(token, &number);

	if (strcmp(consumer, lease->name) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the token is of consumer \"%s\"", consumer)));
	if (ES_BUG == 91 && lease->self != NULL)
		return;
	if (lease->self == NULL || lease->self->lease != number)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("the delivery is out of date"),
				 errdetail("Consumer \"%s\" of subscription \"%s\" has fetched again, or its lease has ended and others have taken its partitions.",
						   consumer, lease->subscription->name),
				 errhint("Undo what was done with its events, and fetch again.")));
}

/*
 * Open a consumer's state in order to fetch.  55006 if another session's
 * transaction does so.
 */
void
EsLeaseOpen(EsLease *lease, const EsSubscription *subscription, const char *consumer)
{
	if (!EsLeaseLock(subscription, consumer, false))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("consumer \"%s\" of subscription \"%s\" is in use by another session",
						consumer, subscription->name),
				 errdetail("A transaction that has fetched or acknowledged in its name is not over."),
				 errhint("Give each consumer a name of its own, or try again.")));
	EsLeaseLoad(lease, subscription, consumer);
	EsPoint("lease-loaded");
}

/*
 * Open a consumer's state by the token of its last delivery, to the end of
 * the transaction.  Waits for others who have it.  55006 when the token is
 * out of date.
 */
void
EsLeaseOpenByToken(EsLease *lease, const char *name, const char *token)
{
	EsSubscription *subscription;
	int64		number;
	char	   *consumer;

	(void) EsSubscriptionOpen(name);	/* may the caller at all? */
	consumer = parse_token(token, &number);
	EsSubscriptionShare(name);
	subscription = EsSubscriptionOpen(name);
	(void) EsLeaseLock(subscription, consumer, true);
	EsLeaseLoad(lease, subscription, consumer);
	EsLeaseCheckToken(lease, token);
}

/* ----- sharing ----- */

/*
 * How many partitions the consumer is to hold.  is_dead says which rows do
 * not count any more; the caller counts, with a row or without.
 */
int
EsLeaseShare(const EsLease *lease, const bool *is_dead)
{
	int			partitions = lease->subscription->partitions;
	int			living = 1;
	int			before = 0;

	for (int i = 0; i < lease->nconsumers; i++)
	{
		const EsConsumer *other = &lease->consumers[i];

		if (other == lease->self || is_dead[i])
			continue;
		living++;
		if (strcmp(other->name, lease->name) < 0)
			before++;
	}
	return partitions / living + (before < partitions % living ? 1 : 0);
}

/* What is in flight in the partition is to be delivered again. */
void
EsLeaseGiveUp(EsLease *lease, EsPartition *partition)
{
	if (ES_BUG != 97 && partition->in_flight > 0 &&
		partition->delivered_to > partition->position)
	{
		partition->attempts++;
		partition->attempted_to = Max(partition->attempted_to, partition->delivered_to);
	}
	if (partition->delivered_to != partition->position || partition->in_flight != 0)
		partition->is_changed = true;
	partition->delivered_to = partition->position;
	partition->in_flight = 0;
}

static int
count_mine(const EsLease *lease)
{
	int			n = 0;

	for (int i = 0; i < lease->subscription->partitions; i++)
		n += lease->partitions[i].is_mine;
	return n;
}

/* The names of the others whose lease has ended and whose lock we could get. */
static List *
lock_ended(const EsLease *lease, TimestampTz now)
{
	List	   *names = NIL;

	for (int i = 0; i < lease->nconsumers; i++)
	{
		EsConsumer *other = &lease->consumers[i];

		if (other != lease->self && (other->until <= now || ES_BUG == 92) &&
			EsLeaseLock(lease->subscription, other->name, false))
			names = lappend(names, other->name);
	}
	return names;
}

/* Lock partitions that nobody holds, as many as may be wanted. */
static bool *
lock_free(const EsLease *lease, int wanted)
{
	int			partitions = lease->subscription->partitions;
	bool	   *locked = palloc0(partitions * sizeof(bool));

	for (int i = 0; i < partitions && wanted > 0; i++)
		if (lease->partitions[i].consumer == NULL &&
			lock_partition(lease->subscription, i))
		{
			locked[i] = true;
			wanted--;
		}
	return locked;
}

/* Which rows are of consumers that are gone: ours to remove. */
static bool *
find_dead(const EsLease *lease, List *locked, TimestampTz now)
{
	bool	   *is_dead = palloc0((lease->nconsumers + 1) * sizeof(bool));
	ListCell   *cell;

	foreach(cell, locked)
	{
		EsConsumer *other = find_consumer(lease, lfirst(cell));

		if (other != NULL && (other->until <= now || ES_BUG == 92))
			is_dead[other - lease->consumers] = true;
	}
	return is_dead;
}

/* Take the partitions of the dead away from them, and remove their rows. */
static void
bury(EsLease *lease)
{
	Relation	rel = table_open(EsStoreGet()->subscription_consumer, RowExclusiveLock);

	for (int i = 0; i < lease->nconsumers; i++)
	{
		EsConsumer *other = &lease->consumers[i];

		if (!lease->is_dead[i])
			continue;
		if (other->replayed > 0)
			EsParkedGiveUp(lease, other->name);
		for (int p = 0; p < lease->subscription->partitions; p++)
		{
			EsPartition *partition = &lease->partitions[p];

			if (partition->consumer == NULL || strcmp(partition->consumer, other->name) != 0)
				continue;
			EsLeaseGiveUp(lease, partition);
			partition->consumer = NULL;
			partition->is_changed = true;
			lease->may_take[p] = true;
		}
		CatalogTupleDelete(rel, &other->tid);
	}
	table_close(rel, NoLock);	/* kept to commit */
}

/* Give away what is above our share, or take what we may have up to it. */
static void
balance(EsLease *lease, int share)
{
	int			mine = count_mine(lease);
	bool		gave = false;

	for (int i = lease->subscription->partitions - 1; i >= 0 && mine > share; i--)
	{
		EsPartition *partition = &lease->partitions[i];

		if (!partition->is_mine)
			continue;
		partition->consumer = NULL;
		partition->is_mine = false;
		partition->is_changed = gave = true;
		mine--;
	}
	for (int i = 0; i < lease->subscription->partitions && mine < share; i++)
	{
		EsPartition *partition = &lease->partitions[i];

		if (!lease->may_take[i] || partition->consumer != NULL)
			continue;
		EsLeaseGiveUp(lease, partition);
		partition->consumer = unconstify(char *, lease->name);
		partition->is_mine = partition->is_changed = true;
		mine++;
	}
	if (gave)
		EsWakeAtCommit();		/* somebody may wait for them */
}

/*
 * Find out what the consumer could take over, and keep others from it.  The
 * caller holds the consumer's lock, and has changed nothing in the lease yet:
 * it may be read anew.
 */
void
EsLeaseReach(EsLease *lease, TimestampTz now)
{
	List	   *ended = lock_ended(lease, now);
	int			wanted = EsLeaseShare(lease, find_dead(lease, ended, now)) - count_mine(lease);
	bool		any_free = false;

	for (int i = 0; i < lease->subscription->partitions; i++)
		any_free |= lease->partitions[i].consumer == NULL;
	lease->may_take = lock_free(lease, any_free ? wanted : 0);
	if (ES_BUG != 95 && (ended != NIL || (any_free && wanted > 0)))
	{
		/* those who had the locks before may have changed what was read */
		bool	   *may_take = lease->may_take;

		EsLeaseLoad(lease, lease->subscription, lease->name);
		lease->may_take = may_take;
	}
	lease->is_dead = find_dead(lease, ended, now);
}

/*
 * Bring the consumer's partitions up to its share, after EsLeaseReach.
 * Nothing is in flight in them.
 */
void
EsLeaseBalance(EsLease *lease)
{
	bury(lease);
	balance(lease, EsLeaseShare(lease, lease->is_dead));
}

/* ----- es_renew ----- */

/* Give all partitions back; what is in flight has not failed. */
static void
leave(EsLease *lease)
{
	Relation	rel = table_open(EsStoreGet()->subscription_consumer, RowExclusiveLock);

	if (lease->self->replayed > 0)
		EsParkedGiveBack(lease);
	for (int i = 0; i < lease->subscription->partitions; i++)
	{
		EsPartition *partition = &lease->partitions[i];

		if (!partition->is_mine)
			continue;
		partition->delivered_to = partition->position;
		partition->in_flight = 0;
		partition->consumer = NULL;
		partition->is_changed = true;
	}
	CatalogTupleDelete(rel, &lease->self->tid);
	lease->self = NULL;
	table_close(rel, NoLock);	/* kept to commit */
	EsWakeAtCommit();
}

/*
 * es_renew(name text, token text, lease interval) → timestamptz
 */
Datum
es_renew(PG_FUNCTION_ARGS)
{
	int64		usecs = EsIntervalArgument(fcinfo, 2, "lease");
	TimestampTz until;
	EsLease		lease;

	EsRequireReadWrite("es_renew()");
	EsLeaseOpenByToken(&lease, text_to_cstring(PG_GETARG_TEXT_PP(0)),
					   text_to_cstring(PG_GETARG_TEXT_PP(1)));
	until = GetCurrentTimestamp() + usecs;
	if (usecs == 0)
		leave(&lease);
	else
	{
		lease.self->until = until;
		lease.self->is_changed = true;
	}
	EsLeaseWrite(&lease);
	PG_RETURN_TIMESTAMPTZ(until);
}
