/*
 * wake.c: tell the database's worker that there is something to do.
 *
 * THE PROBLEM.  A worker that polls is late or wasteful; NOTIFY in an append
 * makes commits wait for each other; shared memory of our own would need
 * preloading.  So the appending session sets the worker's latch itself.
 *
 * FINDING THE WORKER.  A worker holds a heavyweight lock, an advisory one
 * with a fourth field of its own, for as long as it lives; that also keeps a
 * second one away.  When it has taken the lock it sends a relation cache
 * invalidation for es_gate.  A session that has heard such a message asks
 * the lock manager once who holds the lock and remembers the answer, a pid
 * and a place in the process array, or that there is nobody.  From then on
 * an append costs two loads and SetLatch, which does nothing if the latch is
 * set already.
 *
 * WHEN THE ANSWER IS OLD.  Process array entries are never freed, only given
 * to other processes, so looking at one is safe; if its pid is no longer the
 * remembered one the worker is gone, and the session forgets it until the
 * next message.  In the worst case a stranger's latch is set, which it must
 * bear with anyway.
 *
 * WHEN TO WAKE.  After the transaction's locks are released, on commit and on
 * abort.  Earlier, the worker could meet the announcement of this very
 * transaction (log.c) and stop in front of a hole.  After an abort, because
 * the worker may have stopped in front of what is now a hole for ever.
 *
 * NO WAKE-UP IS LOST.  Before it commits an appending session accepts
 * invalidations once more.  If it does not hear of a new worker then, the
 * worker's first look at the log comes later and finds the session's
 * announcement still there; a worker that sees an announcement comes back
 * after a second without being told.  That also covers COMMIT PREPARED.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/sinval.h"
#include "utils/inval.h"
#include "utils/resowner.h"

#include "catalog.h"
#include "log.h"
#include "point.h"
#include "stream.h"
#include "wake.h"

static bool search_worker = true;	/* who is the worker? ask again */
static PGPROC *worker = NULL;	/* its process array entry; NULL: none */
static int	worker_pid = 0;
static bool (*start_worker) (void) = NULL;	/* how to get one; NULL: by hand */
static bool wake_asked = false; /* by EsWakeAtCommit, in this transaction */
static LocalTransactionId woken_for = InvalidLocalTransactionId;

PG_FUNCTION_INFO_V1(es_settled_arrive);

static void
forget_worker(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == EsGateOid())
		search_worker = true;
}

/* The lock that a database's worker holds. */
void
EsWorkerLockTag(LOCKTAG *tag, Oid database)
{
	SET_LOCKTAG_ADVISORY(*tag, database, 0, 0, ES_LOCK_WORKER);
}

/* The pid of a database's worker, or 0. */
int
EsWorkerPid(Oid database)
{
	LockData   *locks = GetLockStatusData();
	int			pid = 0;

	for (int i = 0; i < locks->nelements && pid == 0; i++)
	{
		LockInstanceData *held = &locks->locks[i];

		if (held->locktag.locktag_type == LOCKTAG_ADVISORY &&
			held->locktag.locktag_field4 == ES_LOCK_WORKER &&
			held->locktag.locktag_field1 == database && held->holdMask != 0)
			pid = held->pid;
	}
	pfree(locks->locks);
	pfree(locks);
	return pid;
}

/*
 * Wake the worker, and whoever watches over it, when this transaction
 * commits: a definition has changed.
 */
void
EsWakeAtCommit(void)
{
	wake_asked = true;
}

/*
 * After a subscription's worker wrote a row of es_settled: at a replica, events
 * that were held back by a hole may be shown now, and no append here tells of
 * it.
 */
Datum
es_settled_arrive(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function must be called as a trigger on es_settled")));
	if (ES_BUG != 105)
		EsWakeAtCommit();
	return PointerGetDatum(NULL);
}

/* Where workers are to come by themselves: how to ask for one. */
void
EsWakeStarter(bool (*start) (void))
{
	start_worker = start;
}

/* Has this transaction done what the worker must know of? */
static bool
has_news(void)
{
	return wake_asked || EsAnnouncedLxid() != woken_for;
}

/* Before the end of an appending transaction: make sure who is to be woken. */
static void
find_worker(void)
{
	AcceptInvalidationMessages();
	if (!search_worker)
		return;
	search_worker = false;
	worker_pid = EsWorkerPid(MyDatabaseId);
	worker = worker_pid == 0 ? NULL : BackendPidGetProc(worker_pid);
}

static void
before_commit(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_PRE_COMMIT || !has_news())
		return;
	find_worker();
	if (wake_asked && worker == NULL && start_worker != NULL)
		(void) start_worker();
}

/* The transaction's locks are released: wake the worker. */
static void
after_locks(ResourceReleasePhase phase, bool isCommit, bool isTopLevel, void *arg)
{
	if (phase != RESOURCE_RELEASE_AFTER_LOCKS || !isTopLevel || !has_news())
		return;
	wake_asked = false;
	woken_for = EsAnnouncedLxid();
	if (worker == NULL)
		return;
	if (worker->pid == worker_pid)
		SetLatch(&worker->procLatch);
	else
		worker = NULL;
}

void
EsWakeInit(void)
{
	EsOnRelationChange(forget_worker, (Datum) 0);
	RegisterXactCallback(before_commit, NULL);
	RegisterResourceReleaseCallback(after_locks, NULL);
}
