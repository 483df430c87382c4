/*
 * worker.c: background processes that run projections as events arrive.
 *
 * TWO PROCESSES.  A launcher is connected to no database.  It starts a worker
 * for each database it watches over, and starts it again when it has died,
 * later each time.  A worker is connected to one database and runs all of its
 * projections.  The launcher is there because only a process without a
 * database can look after one that is being dropped, renamed or copied: it
 * sees that the database is gone and does not try for ever.  One launcher for
 * all databases starts by preloading; es_start_worker() starts one for its
 * own database only.  Everything else is the same.
 *
 * WHY A WORKER LEFT.  The two share a small segment in which a worker leaves
 * word why it goes.  No word: it has died.  A worker goes
 *  - for good, when the extension is gone or another worker is there;
 *  - for a while, when somebody wants the database for itself: DROP, RENAME
 *    and copying wait a few seconds for others to go.  While idle it looks
 *    every two seconds whether the lock on its database can still be had.
 *
 * A worker has one transaction a batch.  An error stops the projection, never
 * the worker (runner.c); one that is nobody's fault makes it leave the
 * projection alone for a second, and longer each time.
 *
 * It sleeps until an append sets its latch; wake.c says how that is done and
 * why no wake-up is lost.  Whoever listens outside the server hears of new
 * events from the worker, NOTIFY eventstore with the settled position, never
 * from the appending transactions, whose commits would wait for each other.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "commands/async.h"
#include "commands/dbcommands.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "port/atomics.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "compat.h"
#include "log.h"
#include "point.h"
#include "query.h"
#include "rebuild.h"
#include "runner.h"
#include "stream.h"
#include "subscription.h"
#include "wake.h"
#include "worker.h"

#define WORKER_TICK 2000		/* ms between looks at the surroundings */
#define IN_FLIGHT_TICK 1000		/* ms, while an append is under way */
#define LAUNCHER_TICK 10000		/* ms between looks for new databases */
#define FIRST_DELAY 1000		/* ms before what failed is tried again */
#define LONGEST_DELAY 60000
#define ASIDE_DELAY 5000		/* ms to leave a database alone */
#define START_TIMEOUT 5000		/* ms for a worker to come up */
#define MAX_WATCHED 256			/* databases of one launcher */

/* Word that a worker leaves. */
typedef enum Verdict
{
	NO_WORD,					/* still there, or died */
	NOT_WANTED,					/* nothing to do here */
	STEPPED_ASIDE				/* come back in a while */
} Verdict;

/* The segment that a launcher shares with its workers. */
typedef struct Shared
{
	pg_atomic_uint32 verdicts[MAX_WATCHED];
} Shared;

/* What a worker is started with, in bgw_extra. */
typedef struct WorkerStart
{
	Oid			database;
	dsm_handle	segment;
} WorkerStart;

/* A database as its launcher sees it. */
typedef struct Watched
{
	Oid			database;		/* InvalidOid: entry is free */
	BackgroundWorkerHandle *handle; /* of its worker, or NULL */
	bool		wanted;			/* a worker is to run here */
	bool		exists;			/* seen in pg_database just now */
	TimestampTz started;		/* when the worker was */
	TimestampTz not_before;		/* when the next may be */
	int			delay;			/* ms to wait when it dies again */
} Watched;

/* A projection to be left alone for a while. */
typedef struct Resting
{
	char	   *name;
	TimestampTz until;
	int			delay;			/* ms, the last time */
} Resting;

static Shared *shared;
static dsm_segment *segment;
static Watched watched[MAX_WATCHED];
static int	slot;				/* of this worker among its launcher's */
static List *resting = NIL;
static int64 told_position = 0; /* settled position told of last */

PG_FUNCTION_INFO_V1(es_start_worker);

/* ----- starting ----- */

static void
describe_process(BackgroundWorker *process, const char *what, Oid database)
{
	memset(process, 0, sizeof(BackgroundWorker));
	process->bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	process->bgw_start_time = BgWorkerStart_RecoveryFinished;
	process->bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(process->bgw_library_name, "eventstore", BGW_MAXLEN);
	snprintf(process->bgw_type, BGW_MAXLEN, "eventstore %s", what);
	if (OidIsValid(database))
		snprintf(process->bgw_name, BGW_MAXLEN, "eventstore %s for database %u",
				 what, database);
	else
		snprintf(process->bgw_name, BGW_MAXLEN, "eventstore %s", what);
}

/* A launcher for one database, or, InvalidOid, for all. */
static void
describe_launcher(BackgroundWorker *process, Oid database)
{
	describe_process(process, "launcher", database);
	process->bgw_restart_time = FIRST_DELAY / 1000;
	strlcpy(process->bgw_function_name, "EsLauncherMain", BGW_MAXLEN);
	process->bgw_main_arg = ObjectIdGetDatum(database);
}

/*
 * With the server: one launcher for all databases.  Not while pg_upgrade is
 * at work, which wants nobody in its databases.
 */
void
EsWorkerInit(void)
{
	BackgroundWorker process;

	if (!process_shared_preload_libraries_in_progress || IsBinaryUpgrade)
		return;
	describe_launcher(&process, InvalidOid);
	RegisterBackgroundWorker(&process);
	EsWakeStarter(EsWorkerRequest);
}

/* Ask for a worker of this database; false where no process is to be had. */
bool
EsWorkerRequest(void)
{
	BackgroundWorker process;

	describe_launcher(&process, MyDatabaseId);
	process.bgw_notify_pid = 0;
	return RegisterDynamicBackgroundWorker(&process, NULL);
}

/*
 * es_start_worker() → integer
 */
Datum
es_start_worker(PG_FUNCTION_ARGS)
{
	int			pid;

	if (RecoveryInProgress())
		EsRequireReadWrite("es_start_worker()");
	pid = EsWorkerPid(MyDatabaseId);
	(void) EsStoreGet();
	if (pid != 0)
		PG_RETURN_INT32(pid);
	if (!EsWorkerRequest())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("could not start a worker"),
				 errdetail("No background worker slot is free."),
				 errhint("Raise max_worker_processes; a database needs two.")));
	for (int waited = 0; waited < START_TIMEOUT; waited += 10)
	{
		CHECK_FOR_INTERRUPTS();
		pg_usleep(10000L);
		pid = EsWorkerPid(MyDatabaseId);
		if (pid != 0)
			PG_RETURN_INT32(pid);
	}
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the worker did not come up"),
			 errdetail("The server has no process for it, or does not see the extension yet."),
			 errhint("Raise max_worker_processes, or commit CREATE EXTENSION first; then see the server's log.")));
	PG_RETURN_NULL();
}

/* What both kinds of processes begin with. */
static void
begin_process(void)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
}

/* Sleep, at most so long; true if the latch was set. */
static bool
sleep_for(long msecs)
{
	int			events;

	pgstat_report_activity(STATE_IDLE, NULL);
	events = WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					   msecs, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
	return (events & WL_LATCH_SET) != 0;
}

/* ----- the launcher ----- */

static Watched *
find_watched(Oid database)
{
	for (int i = 0; i < MAX_WATCHED; i++)
		if (watched[i].database == database)
			return &watched[i];
	return NULL;
}

/* A database exists: watch over it, if that is new. */
static void
note_database(Oid database)
{
	Watched    *entry = find_watched(database);

	if (entry == NULL)
	{
		entry = find_watched(InvalidOid);
		if (entry == NULL)
			return;				/* later, when another is gone */
		memset(entry, 0, sizeof(Watched));
		entry->database = database;
		entry->wanted = true;
		entry->delay = FIRST_DELAY;
	}
	entry->exists = true;
}

/* Note the databases that exist: all, or only the one that is asked for. */
static void
note_databases(Oid only)
{
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	for (int i = 0; i < MAX_WATCHED; i++)
		watched[i].exists = false;
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);

		if (OidIsValid(only) ? form->oid == only :
			form->datallowconn && !form->datistemplate)
			note_database(form->oid);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	for (int i = 0; i < MAX_WATCHED; i++)
		if (!watched[i].exists && watched[i].handle == NULL)
			watched[i].database = InvalidOid;
}

/* Start the worker of a database; if there is no room, later. */
static void
start_worker(Watched *entry)
{
	BackgroundWorker process;
	WorkerStart start = {entry->database, dsm_segment_handle(segment)};

	StaticAssertStmt(sizeof(WorkerStart) <= BGW_EXTRALEN, "bgw_extra is too small");
	describe_process(&process, "worker", entry->database);
	strlcpy(process.bgw_function_name, "EsWorkerMain", BGW_MAXLEN);
	process.bgw_main_arg = Int32GetDatum(entry - watched);
	memcpy(process.bgw_extra, &start, sizeof(start));
	process.bgw_notify_pid = MyProcPid;
	pg_atomic_write_u32(&shared->verdicts[entry - watched], NO_WORD);
	entry->started = GetCurrentTimestamp();
	if (RegisterDynamicBackgroundWorker(&process, &entry->handle))
		return;
	if (entry->delay == FIRST_DELAY)
		ereport(LOG,
				(errmsg("eventstore has no background worker slot for database %u",
						entry->database),
				 errhint("Raise max_worker_processes.")));
	entry->handle = NULL;
	entry->wanted = ES_BUG != 114;
	entry->not_before = TimestampTzPlusMilliseconds(entry->started, entry->delay);
	entry->delay = Min(entry->delay * 2, LONGEST_DELAY);
}

/* A worker has ended: go by the word it left. */
static void
note_end(Watched *entry)
{
	TimestampTz now = GetCurrentTimestamp();

	pfree(entry->handle);
	entry->handle = NULL;
	switch ((Verdict) pg_atomic_read_u32(&shared->verdicts[entry - watched]))
	{
		case NOT_WANTED:
			entry->wanted = false;
			break;
		case STEPPED_ASIDE:
			entry->not_before = TimestampTzPlusMilliseconds(now, ASIDE_DELAY);
			break;
		case NO_WORD:
			if (TimestampDifferenceExceeds(entry->started, now, LONGEST_DELAY))
				entry->delay = FIRST_DELAY;
			entry->not_before = TimestampTzPlusMilliseconds(now, entry->delay);
			entry->delay = Min(entry->delay * 2, LONGEST_DELAY);
			break;
	}
}

/*
 * Look after all workers.  Answers the ms until there is something to do
 * without being told.
 */
static long
look_after_workers(void)
{
	long		wait = LAUNCHER_TICK;

	for (int i = 0; i < MAX_WATCHED; i++)
	{
		Watched    *entry = &watched[i];
		pid_t		pid;
		long		left;

		if (entry->handle != NULL &&
			GetBackgroundWorkerPid(entry->handle, &pid) == BGWH_STOPPED)
			note_end(entry);
		if (!OidIsValid(entry->database) || entry->handle != NULL ||
			!entry->wanted || !entry->exists)
			continue;
		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
											   entry->not_before);
		if (left <= 0)
			start_worker(entry);
		else
			wait = Min(wait, left);
	}
	return wait;
}

/* Is anything left to watch over?  A launcher for all databases stays. */
static bool
is_needed(Oid only)
{
	Watched    *entry;

	if (!OidIsValid(only))
		return true;
	entry = find_watched(only);
	return entry != NULL && (entry->handle != NULL || (entry->wanted && entry->exists));
}

void
EsLauncherMain(Datum arg)
{
	Oid			only = DatumGetObjectId(arg);

	begin_process();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	segment = dsm_create(sizeof(Shared), 0);
	shared = dsm_segment_address(segment);
	for (int i = 0; i < MAX_WATCHED; i++)
		pg_atomic_init_u32(&shared->verdicts[i], NO_WORD);
	for (;;)
	{
		long		wait;

		note_databases(only);
		wait = look_after_workers();
		if (!is_needed(only))
			break;
		sleep_for(wait);
	}
	proc_exit(0);
}

/* ----- the worker ----- */

/* Leave, and leave word. */
static void
leave(Verdict verdict)
{
	pg_atomic_write_u32(&shared->verdicts[slot], verdict);
	proc_exit(0);
}

/* Does nobody want this database for itself?  Inside a transaction. */
static bool
database_is_free(void)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, InvalidOid, DatabaseRelationId, MyDatabaseId, 0);
	return LockAcquire(&tag, RowExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL;
}

/* Become the database's only worker, and let the sessions know. */
static void
take_post(void)
{
	LOCKTAG		tag;

	StartTransactionCommand();
	if (!EsIsInstalled() || RecoveryInProgress())
		leave(NOT_WANTED);
	EsWorkerLockTag(&tag, MyDatabaseId);
	if (LockAcquire(&tag, ExclusiveLock, true, true) == LOCKACQUIRE_NOT_AVAIL)
		leave(NOT_WANTED);
	CacheInvalidateRelcacheByRelid(EsStoreGet()->gate);
	CommitTransactionCommand();
	StartTransactionCommand();
	EsRebuildClearLeftovers();
	CommitTransactionCommand();
}

/*
 * May the worker stay?  Also answers the last position drawn, and whether
 * appends are under way.
 */
static void
look_around(int64 *drawn, bool *in_flight)
{
	StartTransactionCommand();
	if (!EsIsInstalled())
		leave(NOT_WANTED);
	if (!database_is_free())
		leave(STEPPED_ASIDE);
	PushActiveSnapshot(GetTransactionSnapshot());
	*drawn = EsLastDrawn(EsStoreGet(), NULL);
	*in_flight = EsSettledNow(EsStoreGet(), NULL) < *drawn;
	PopActiveSnapshot();
	CommitTransactionCommand();
}

static Resting *
find_resting(const char *name)
{
	ListCell   *cell;

	foreach(cell, resting)
	{
		Resting    *entry = lfirst(cell);

		if (strcmp(entry->name, name) == 0)
			return entry;
	}
	return NULL;
}

/* Leave a projection alone, longer each time. */
static void
let_rest(const char *name)
{
	Resting    *entry = find_resting(name);

	if (entry == NULL)
	{
		MemoryContext saved = MemoryContextSwitchTo(TopMemoryContext);

		entry = palloc0(sizeof(Resting));
		entry->name = pstrdup(name);
		resting = lappend(resting, entry);
		MemoryContextSwitchTo(saved);
	}
	entry->delay = entry->delay == 0 ? FIRST_DELAY : Min(entry->delay * 2, LONGEST_DELAY);
	entry->until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), entry->delay);
}

static void
end_rest(const char *name)
{
	Resting    *entry = find_resting(name);

	if (entry == NULL)
		return;
	resting = list_delete_ptr(resting, entry);
	pfree(entry->name);
	pfree(entry);
}

/* Run a projection's next batch in a transaction of its own. */
static EsRunResult
run_batch(const char *name)
{
	MemoryContext context = CurrentMemoryContext;
	volatile EsRunResult result = ES_RUN_IDLE;
	Resting    *entry = find_resting(name);

	if (entry != NULL && entry->until > GetCurrentTimestamp())
		return ES_RUN_IDLE;
	PG_TRY();
	{
		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		EsRunnerBeginTransaction();
		pgstat_report_activity(STATE_RUNNING, name);
		result = EsRunnerBatch(name);
		CommitTransactionCommand();
		end_rest(name);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		HOLD_INTERRUPTS();
		EmitErrorReport();
		AbortCurrentTransaction();
		FlushErrorState();
		RESUME_INTERRUPTS();
		let_rest(name);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return result;
}

/* The names of the projections to run, in the current memory context. */
static List *
projections(void)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *names;
	List	   *copy = NIL;
	ListCell   *cell;

	StartTransactionCommand();
	EsRunnerBeginTransaction();
	names = EsIsInstalled() ? EsRunnerProjections() : NIL;
	MemoryContextSwitchTo(context);
	foreach(cell, names)
		copy = lappend(copy, pstrdup(lfirst(cell)));
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	return copy;
}

/* Write the settled position down and tell listeners, if it has moved. */
static void
tell_settled(void)
{
	StartTransactionCommand();
	EsRunnerBeginTransaction();
	if (EsIsInstalled() && !EsFollowsOrigin(EsStoreGet()) &&
		EsSettledNow(EsStoreGet(), NULL) > told_position)
	{
		char		payload[32];

		told_position = EsRunnerSettle();
		snprintf(payload, sizeof(payload), INT64_FORMAT, told_position);
		Async_Notify("eventstore", payload);
	}
	CommitTransactionCommand();
}

/* Take the snapshots that are due, a transaction for each round. */
static void
take_snapshots(void)
{
	bool		more = true;

	while (more)
	{
		CHECK_FOR_INTERRUPTS();
		StartTransactionCommand();
		EsRunnerBeginTransaction();
		more = EsIsInstalled() && EsRunnerSnapshots();
		CommitTransactionCommand();
	}
}

/* Let each projection run a batch in turn, until none has more to do. */
static void
run_projections(MemoryContext context)
{
	bool		more = true;

	while (more)
	{
		ListCell   *cell;

		MemoryContextReset(context);
		MemoryContextSwitchTo(context);
		more = false;
		foreach(cell, projections())
		{
			CHECK_FOR_INTERRUPTS();
			if (MyLatch->is_set)
				EsSubscriptionWake();	/* a batch may take long */
			more |= run_batch(lfirst(cell)) == ES_RUN_MORE;
		}
		tell_settled();
	}
	take_snapshots();
	pgstat_report_stat(false);
}

/* Is a projection's rest over? */
static bool
rest_is_over(void)
{
	TimestampTz now = GetCurrentTimestamp();
	ListCell   *cell;

	foreach(cell, resting)
		if (((Resting *) lfirst(cell))->until <= now)
			return true;
	return false;
}

/* What a look at the log, before the projections ran, found. */
typedef struct Look
{
	int64		drawn;			/* the last position drawn */
	bool		in_flight;		/* not all up to there was settled */
} Look;

/*
 * Sleep until there is something to do: woken, positions drawn since the last
 * look, what was in flight then is settled now, or a rest that is over.
 *
 * The latch alone would not do.  A commit that waits for a standby, or for a
 * lock, waits on the same latch, and takes a wake-up that arrives meanwhile
 * away.
 */
static void
wait_for_work(Look *last)
{
	bool		woken = false;

	for (;;)
	{
		Look		now;

		look_around(&now.drawn, &now.in_flight);
		if (woken || now.drawn != last->drawn || (last->in_flight && !now.in_flight) ||
			rest_is_over())
		{
			*last = now;
			return;
		}
		woken = sleep_for(now.in_flight ? IN_FLIGHT_TICK : WORKER_TICK) || now.in_flight;
		if (woken)
			EsSubscriptionWake();
	}
}

void
EsWorkerMain(Datum arg)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext,
												  "eventstore worker",
												  ALLOCSET_DEFAULT_SIZES);
	WorkerStart start;
	Look		last = {.drawn = -1};

	slot = DatumGetInt32(arg);
	memcpy(&start, MyBgworkerEntry->bgw_extra, sizeof(start));
	begin_process();
	segment = dsm_attach(start.segment);
	if (segment == NULL)
		proc_exit(0);			/* the launcher is gone; the next one comes */
	shared = dsm_segment_address(segment);
	BackgroundWorkerInitializeConnectionByOid(start.database, InvalidOid, 0);
	take_post();
	for (;;)
	{
		wait_for_work(&last);
		run_projections(context);
	}
}
