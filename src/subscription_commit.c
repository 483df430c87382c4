/*
 * subscription_commit.c: a transaction that only fetches and acknowledges
 * need not wait for the disk.
 *
 * A crash that takes back an acknowledgement is the same as one of the consumer
 * just before it: the events are delivered again, as they may be at any
 * time.  One that takes back a fetch ends the consumer's lease.  Tokens are
 * random, so a delivery that the crash took back is never mistaken for another.
 * (What was delivered is on disk in any case: log.c.)  So, unless the setting
 * says otherwise, such a transaction commits as with synchronous_commit = off.
 *
 * One that does anything else does not: an effect of the consumer's, in this
 * database, must be as durable as the user has asked for.  What others do is
 * noticed by the WAL: there is none before our first call, none between our
 * calls, and none behind the last one.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "utils/guc.h"

#include "compat.h"
#include "point.h"
#include "subscription.h"

static bool synchronous_ack = false;
static LocalTransactionId known_lxid = InvalidLocalTransactionId;
static bool is_alone;			/* all WAL of that transaction is ours */
static XLogRecPtr our_end;		/* where ours ends so far */

/* A call begins that may write. */
void
EsSubscriptionCallBegin(void)
{
	if (known_lxid != EsCurrentLxid())
	{
		known_lxid = EsCurrentLxid();
		is_alone = true;
		our_end = 0;
	}
	if (XactLastRecEnd != our_end)
		is_alone = false;
}

/* It has written all it will. */
void
EsSubscriptionCallEnd(void)
{
	our_end = XactLastRecEnd;
}

static void
before_commit(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_PRE_COMMIT || known_lxid != EsCurrentLxid() ||
		(ES_BUG != 96 && (!is_alone || XactLastRecEnd != our_end)) || our_end == 0 ||
		synchronous_ack || synchronous_commit == SYNCHRONOUS_COMMIT_OFF)
		return;
	(void) set_config_option("synchronous_commit", "off", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
}

void
EsSubscriptionInit(void)
{
	DefineCustomBoolVariable("eventstore.synchronous_ack",
							 "Waits for the disk when a transaction only fetches and acknowledges events.",
							 "Turn it on where a redelivery after a crash of the server costs more than the wait.",
							 &synchronous_ack, false, PGC_USERSET, 0, NULL, NULL, NULL);
	RegisterXactCallback(before_commit, NULL);
}
