/*
 * subscription.h: durable cursors over the log.  The essay is in
 * subscription_lease.c.
 */
#ifndef ES_SUBSCRIPTION_H
#define ES_SUBSCRIPTION_H

#include "postgres.h"

#include "access/htup.h"
#include "datatype/timestamp.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "storage/itemptr.h"
#include "utils/rel.h"

#include "catalog.h"
#include "upcast.h"

/* A row of es_subscription. */
typedef struct EsSubscription
{
	char	   *name;
	Oid			owner;
	int			ntypes;			/* wanted event types; -1: all */
	Datum	   *types;			/* text, plain */
	text	   *category;		/* NULL: all */
	int			partitions;
	bool		holds_stream;	/* do a parked event's successors wait? */
	int			max_attempts;	/* PG_INT32_MAX: no limit */
} EsSubscription;

/* A row of es_subscription_partition. */
typedef struct EsPartition
{
	ItemPointerData tid;
	char	   *consumer;		/* NULL: nobody's */
	int64		position;		/* acknowledged up to here */
	int64		delivered_to;	/* the last delivery reaches up to here */
	int			in_flight;		/* events in it */
	int			attempts;		/* failed deliveries of the next event */
	int64		attempted_to;	/* and how far they reached */
	int64		epoch;			/* which the checkpoint is of; 0: nobody said */
	bool		is_mine;		/* the consumer of this call holds it */
	bool		is_changed;		/* to be written */
} EsPartition;

/* A row of es_subscription_consumer. */
typedef struct EsConsumer
{
	ItemPointerData tid;		/* invalid: to be inserted */
	char	   *name;
	int64		lease;			/* number of the last delivery */
	TimestampTz until;			/* end of the lease */
	TimestampTz fetched_at;
	int			replayed;		/* events in the delivery that were put aside */
	bool		is_changed;		/* to be written */
} EsConsumer;

/* What one call knows of a subscription's state, and changes. */
typedef struct EsLease
{
	const EsSubscription *subscription;
	const char *name;			/* the consumer; NULL: none in particular */
	EsConsumer *self;			/* its row; NULL: none yet */
	EsConsumer *consumers;		/* all, in the order of their names */
	int			nconsumers;
	EsPartition *partitions;	/* all, by their numbers */
	bool	   *is_dead;		/* consumers whose partitions we may take */
	bool	   *may_take;		/* partitions that nobody else can take now */
} EsLease;

/* Where an event that was put aside stands. */
typedef enum EsParkedState
{
	ES_NOT_PARKED,
	ES_IS_PARKED,				/* it has a row of its own */
	ES_IS_BEHIND				/* an earlier one of its stream has */
} EsParkedState;

/* A look at what is put aside; NULL where nothing is. */
typedef struct EsParkedProbe EsParkedProbe;

/* An event put aside that is to be delivered now. */
typedef struct EsDueEvent
{
	int64		position;
	int			attempts;		/* deliveries, this one included */
} EsDueEvent;

/* subscription.c */
extern EsSubscription *EsSubscriptionFind(const char *name, bool missing_ok);
extern EsSubscription *EsSubscriptionOpen(const char *name);
extern bool EsSubscriptionTryShare(const char *name);
extern void EsSubscriptionShare(const char *name);
extern int	EsSubscriptionPartitionOf(const EsSubscription *subscription,
									  TupleTableSlot *slot);
extern bool EsSubscriptionWants(const EsSubscription *subscription,
								const EsUpcast *upcast, TupleTableSlot *slot);
extern int64 EsIntervalArgument(FunctionCallInfo fcinfo, int n, const char *name);
extern int64 EsSubscriptionReplay(const char *name, const char *stream_id,
								  int64 position);

/* subscription_lease.c */
extern bool EsLeaseLock(const EsSubscription *subscription, const char *consumer,
						bool wait);
extern bool EsLeaseIsFree(const EsSubscription *subscription,
						  const char *consumer);
extern void EsLeaseLoad(EsLease *lease, const EsSubscription *subscription,
						const char *consumer);
extern int	EsLeaseShare(const EsLease *lease, const bool *is_dead);
extern void EsLeaseGiveUp(EsLease *lease, EsPartition *partition);
extern void EsLeaseReach(EsLease *lease, TimestampTz now);
extern void EsLeaseBalance(EsLease *lease);
extern void EsLeaseWrite(EsLease *lease);
extern int64 EsLeaseNewNumber(void);
extern char *EsLeaseToken(const EsConsumer *consumer);
extern void EsLeaseCheckToken(const EsLease *lease, const char *token);
extern void EsLeaseOpen(EsLease *lease, const EsSubscription *subscription,
						const char *consumer);
extern void EsLeaseOpenByToken(EsLease *lease, const char *name,
							   const char *token);

/* subscription_fetch.c */
extern TupleTableSlot *EsDeliveryEvent(Relation event, const EsStore *store,
									   int64 position);
/* subscription_park.c */
extern EsParkedProbe *EsParkedBegin(const EsSubscription *subscription,
									int64 from);
extern EsParkedState EsParkedLook(EsParkedProbe *probe, TupleTableSlot *slot);
extern void EsParkedEnd(EsParkedProbe *probe);
extern void EsParkedAdd(const EsSubscription *subscription, TupleTableSlot *slot,
						const char *state, const char *reason, int attempts,
						TimestampTz due_at);
extern void EsParkedAddBehind(const EsSubscription *subscription,
							  TupleTableSlot *slot);
extern TimestampTz EsParkedNextDue(const EsSubscription *subscription);
extern int	EsParkedTakeDue(const EsLease *lease, TimestampTz now, int max,
							EsDueEvent **events);
extern bool EsParkedHasDue(const EsLease *lease, const bool *wanted,
						   const bool *void_in, TimestampTz now);
extern int64 EsParkedAck(const EsLease *lease, int64 up_to);
extern void EsParkedGiveUp(const EsLease *lease, const char *consumer);
extern void EsParkedGiveBack(const EsLease *lease);

/* subscription_commit.c */
extern void EsSubscriptionInit(void);
extern void EsSubscriptionCallBegin(void);
extern void EsSubscriptionCallEnd(void);

/* subscription_wait.c */
extern void EsSubscriptionWake(void);

#endif							/* ES_SUBSCRIPTION_H */
