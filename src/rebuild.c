/*
 * rebuild.c: compute read models anew, and as they were.
 *
 * A REBUILD runs the projection's handlers over the whole log into shadow
 * tables (shadow.c), a commit a batch, while the projection itself goes on as
 * ever.  When the shadow is within reach of the end, the rows that differ are
 * found.  In the last transaction nobody may move the read tables: of an
 * async projection the row lock keeps the runner away; of an inline one the
 * gate keeps appends waiting.  The shadow runs the last events, the differing
 * rows are taken over, the checkpoint is set.
 *
 * EACH STEP is a subtransaction, and then a commit.  When a step fails, be it
 * by a cancel, it is rolled back, the shadow is dropped, and the error goes
 * on to the caller: everything is as it was.  A process that dies leaves its
 * shadow behind, and a session lock it no longer holds; the next rebuild, or
 * the next worker that starts, clears it away.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "attempt.h"
#include "log.h"
#include "query.h"
#include "rebuild.h"
#include "row_security.h"
#include "runner.h"
#include "shadow.h"

#define NOTICE_INTERVAL 15000	/* ms between words to the caller */
#define GATE_TRIES 100			/* to find a moment without appends */
#define WHOLE_BATCH 100000		/* at least so many for handlers that run once a batch */

/* A rebuild at work. */
typedef struct Rebuild
{
	MemoryContext context;		/* of all this */
	MemoryContext batch_context;	/* reset for each batch */
	char	   *name;
	char	   *schema;			/* of the shadow tables */
	EsShadow	shadow;
	EsRunner	runner;			/* fills them */
	int64		position;		/* how far they are */
	int64		events;			/* handlers ran for so many */
	bool		at_end;			/* nearly all settled events are in */
	bool		is_complete;	/* all that were drawn are */
	bool		is_live_inline; /* the gate must be closed in the end */
	bool		compared;		/* rows that may differ are noted */
	bool		done;
	TimestampTz started;
	TimestampTz told;			/* when the caller was told last */
} Rebuild;

PG_FUNCTION_INFO_V1(es_rebuild_projection);
PG_FUNCTION_INFO_V1(es_project_at);

/* ----- steps ----- */

typedef struct Step
{
	Rebuild    *rebuild;
	void		(*work) (Rebuild *);
} Step;

static bool
attempt_step(void *arg)
{
	Step	   *step = arg;

	MemoryContextSwitchTo(step->rebuild->batch_context);
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	step->work(step->rebuild);
	PopActiveSnapshot();
	SPI_finish();
	return true;
}

/*
 * Do a part of the work in a subtransaction and commit it.  If it fails the
 * subtransaction is rolled back and the error thrown on.
 */
static void
do_step(Rebuild *rebuild, void (*work) (Rebuild *))
{
	Step		step = {.rebuild = rebuild,.work = work};
	ErrorData  *error;

	(void) EsAttempt(attempt_step, &step, &error);
	if (error != NULL)
		ReThrowError(error);
	MemoryContextReset(rebuild->batch_context);

	/* a shadow need not survive a crash; the last commit flushes all of it */
	if (!rebuild->done)
		(void) set_config_option("synchronous_commit", "off", PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
	SPI_commit();
	EsRunnerBeginTransaction();
}

/* ----- progress ----- */

static void
begin_job(Rebuild *rebuild)
{
	EsQuery		query = {0};

	EsQueryAddText(&query, psprintf("rebuild %s", rebuild->name));
	EsQueryRun("DELETE FROM @es_job WHERE pid = pg_backend_pid()", NULL);
	EsQueryRun("INSERT INTO @es_job (pid, backend_start, job, phase)"
			   " SELECT a.pid, a.backend_start, $1, 'starting'"
			   " FROM pg_stat_get_activity(pg_backend_pid()) a", &query);
}

static void
end_job(void)
{
	EsQueryRun("DELETE FROM @es_job WHERE pid = pg_backend_pid()", NULL);
}

/* Show how far the rebuild is, in es_progress and, now and then, the caller. */
static void
report_progress(Rebuild *rebuild, const char *phase)
{
	TimestampTz now = GetCurrentTimestamp();
	int64		total = Max(EsLastDrawn(EsStoreGet(), NULL), rebuild->position);
	double		seconds = (now - rebuild->started) / 1000000.0;
	EsQuery		query = {0};

	EsQueryAddText(&query, phase);
	EsQueryAddInt64(&query, rebuild->position);
	EsQueryAddInt64(&query, total);
	EsQueryAddInt64(&query, rebuild->events);
	EsQueryRun("UPDATE @es_job SET phase = $1, done = $2, total = $3, events = $4,"
			   " updated_at = clock_timestamp() WHERE pid = pg_backend_pid()", &query);
	if (!TimestampDifferenceExceeds(rebuild->told, now, NOTICE_INTERVAL))
		return;
	rebuild->told = now;
	ereport(NOTICE,
			(errmsg("rebuild of \"%s\": %s, position " INT64_FORMAT " of " INT64_FORMAT ", %.0f events/s, about %.0f s left",
					rebuild->name, phase, rebuild->position, total,
					rebuild->events / Max(seconds, 0.001),
					rebuild->position == 0 ? 0.0 :
					seconds * (total - rebuild->position) / rebuild->position)));
}

/* ----- the work ----- */

/* Step: the shadow tables, empty, and handlers that know only those. */
static void
prepare(Rebuild *rebuild)
{
	Relation	event = table_open(EsStoreGet()->event, AccessShareLock);

	EsShadowDrop(rebuild->schema);
	begin_job(rebuild);
	EsShadowLoad(&rebuild->shadow, rebuild->context, rebuild->name, rebuild->schema);
	EsShadowCreateTables(&rebuild->shadow);
	EsShadowCompile(&rebuild->shadow, event);
	rebuild->runner.context = rebuild->context;
	rebuild->runner.name = rebuild->name;
	rebuild->runner.projection = rebuild->shadow.projection;
	rebuild->runner.is_shadow = true;
	rebuild->runner.parked = MemoryContextStrdup(rebuild->context,
												 EsShadowParked(&rebuild->shadow));
	table_close(event, AccessShareLock);
}

/*
 * Events that a rebuild takes at once.  Nobody waits for a shadow's rows, and
 * handlers that sum up a batch have less to do the larger it is.
 */
static int
shadow_batch_size(const EsProjection *projection)
{
	return projection->has_single ? EsBatchSize() : Max(EsBatchSize(), WHOLE_BATCH);
}

/* Run the next events into the shadow tables. */
static void
run_shadow(Rebuild *rebuild)
{
	Relation	event = table_open(EsStoreGet()->event, AccessShareLock);
	EsRunner   *runner = &rebuild->runner;

	runner->status = ES_PROJECTION_LIVE;
	runner->ran = 0;
	runner->batch = EsBatchRead(runner->projection, event, rebuild->position,
								PG_INT64_MAX, shadow_batch_size(runner->projection));
	EsInlineForbidAppends(true);
	PG_TRY();
	{
		EsRunnerRun(runner);
	}
	PG_FINALLY();
	{
		EsInlineForbidAppends(false);
	}
	PG_END_TRY();
	if (runner->status == ES_PROJECTION_STOPPED)
		ReThrowError(runner->failure.error);
	rebuild->position = runner->position;
	rebuild->events += runner->ran;
	rebuild->at_end = EsBatchIsNearEnd(runner->batch);
	rebuild->is_complete = EsBatchIsComplete(runner->batch);
	EsBatchFree(runner->batch);
	table_close(event, AccessShareLock);
}

/* Step: one batch. */
static void
fill(Rebuild *rebuild)
{
	run_shadow(rebuild);
	report_progress(rebuild, "projecting");
}

/*
 * Step: note which rows differ, and have those noted that change from now
 * on.  Of a live inline projection the read tables are ahead of the shadow
 * here; what they are ahead by, the shadow has still to run.  (Of one that
 * lags behind the shadow this would be wrong: a row might be equal now and
 * differ when the projection has gone half the way.)
 */
static void
compare(Rebuild *rebuild)
{
	report_progress(rebuild, "comparing");
	EsShadowTrack(&rebuild->shadow);
	EsShadowCompare(&rebuild->shadow);
	rebuild->compared = true;
}

/* 55000 if the handlers were changed since the rebuild began. */
static void
check_unchanged(Rebuild *rebuild)
{
	EsProjection *now = EsProjectionLoad(CurrentMemoryContext, rebuild->name);
	EsProjection *then = rebuild->shadow.projection;
	bool		same = now->nhandlers == then->nhandlers;

	for (int i = 0; same && i < now->nhandlers; i++)
		same = strcmp(now->handlers[i].sql, then->handlers[i].sql) == 0;
	if (!same)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("projection \"%s\" was changed while it was rebuilt", rebuild->name),
				 errhint("Run the rebuild again.")));
	rebuild->is_live_inline = now->is_inline && now->status == ES_PROJECTION_LIVE;
}

/* What the rebuild parked replaces what was parked before. */
static void
take_over_parked(Rebuild *rebuild)
{
	EsQuery		query = {0};

	EsQueryAddText(&query, rebuild->name);
	EsQueryRun("DELETE FROM @es_parked WHERE projection = $1", &query);
	EsQueryRun(psprintf("INSERT INTO @es_parked SELECT * FROM %s",
						rebuild->runner.parked), NULL);
}

static void
save_checkpoint(Rebuild *rebuild)
{
	EsQuery		query = {0};

	EsQueryAddText(&query, rebuild->name);
	EsQueryAddInt64(&query, rebuild->position);
	EsQueryRun("UPDATE @es_projection SET position = $2, run_at = clock_timestamp(),"
			   " status = CASE WHEN status <> 'stopped' THEN status"
			   " WHEN mode = 'inline' THEN 'catching up' ELSE 'live' END,"
			   " error_position = NULL, error_handler = NULL, last_error = NULL"
			   " WHERE name = $1", &query);
	EsProjectionChanged();
}

/*
 * Step: the last events, and the change of tables.  To be tried again if a
 * live inline projection has not been compared yet, or the gate cannot be
 * closed without holding up appends.
 */
static void
finish(Rebuild *rebuild)
{
	(void) EsProjectionLock(rebuild->name);
	check_unchanged(rebuild);
	if (rebuild->is_live_inline &&
		(!rebuild->compared || !EsGateTryClose(EsStoreGet(), ES_GATE_PATIENCE)))
		return;
	if (rebuild->is_live_inline)
		EsBatchAwaitStragglers();
	do
		run_shadow(rebuild);
	while (!rebuild->at_end);
	if (rebuild->is_live_inline && !rebuild->is_complete)
		return;
	if (!rebuild->compared)
		compare(rebuild);
	EsShadowTakeOver(&rebuild->shadow);
	take_over_parked(rebuild);
	save_checkpoint(rebuild);
	rebuild->done = true;
}

/* Step: clear up. */
static void
clear_up(Rebuild *rebuild)
{
	EsShadowDrop(rebuild->schema);
	end_job();
}

static void
rebuild_all(Rebuild *rebuild)
{
	do_step(rebuild, prepare);
	do
		do_step(rebuild, fill);
	while (!rebuild->at_end);
	for (int tries = 0; !rebuild->done; tries++)
	{
		if (rebuild->is_live_inline && !rebuild->compared)
			do_step(rebuild, compare);
		do_step(rebuild, fill);
		if (tries >= GATE_TRIES)
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("could not find a moment without appending transactions"),
					 errhint("End transactions that have appended and stay open, then try again.")));
		do_step(rebuild, finish);
		if (!rebuild->done && rebuild->compared)
			pg_usleep(50000L);
	}
	do_step(rebuild, clear_up);
}

/* ----- one rebuild at a time ----- */

static void
rebuild_lock_tag(LOCKTAG *tag, const char *schema)
{
	uint64		hash = hash_bytes_extended((const unsigned char *) schema, strlen(schema), 0);

	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, (uint32) (hash >> 32), (uint32) hash,
						 ES_LOCK_REBUILD);
}

/* Become the only one to rebuild this; the lock is the session's. */
static bool
lock_schema(const char *schema)
{
	LOCKTAG		tag;

	rebuild_lock_tag(&tag, schema);
	return LockAcquire(&tag, ExclusiveLock, true, true) != LOCKACQUIRE_NOT_AVAIL;
}

static void
unlock_schema(const char *schema)
{
	LOCKTAG		tag;

	rebuild_lock_tag(&tag, schema);
	(void) LockRelease(&tag, ExclusiveLock, true);
}

/* Run the rebuild; whatever comes, nothing of it is left behind. */
static void
rebuild_and_clear_up(Rebuild *rebuild)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		rebuild_all(rebuild);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		do_step(rebuild, clear_up);
		unlock_schema(rebuild->schema);
		ReThrowError(error);
	}
	PG_END_TRY();
	unlock_schema(rebuild->schema);
}

/*
 * es_rebuild_projection(name text) [procedure]
 */
Datum
es_rebuild_projection(PG_FUNCTION_ARGS)
{
	Rebuild		rebuild = {0};

	EsRequireReadWrite("es_rebuild_projection()");
	EsRequireNonatomic(fcinfo, "es_rebuild_projection()");
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", "name")));
	EsRowSecurityRefuseCaller();	/* who is shown what fails */
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	rebuild.context = AllocSetContextCreate(CurrentMemoryContext, "eventstore rebuild",
											ALLOCSET_DEFAULT_SIZES);
	rebuild.batch_context = AllocSetContextCreate(rebuild.context,
												  "eventstore rebuild batch",
												  ALLOCSET_DEFAULT_SIZES);
	rebuild.name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	rebuild.schema = EsShadowSchema(rebuild.name);
	rebuild.started = rebuild.told = GetCurrentTimestamp();
	SPI_commit();
	EsRunnerBeginTransaction();
	(void) EsProjectionLoad(rebuild.batch_context, rebuild.name);
	if (!lock_schema(rebuild.schema))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("projection \"%s\" is being rebuilt by another session",
						rebuild.name),
				 errhint("See es_progress.")));
	rebuild_and_clear_up(&rebuild);
	if (rebuild.shadow.projection != NULL)
		EsProjectionFree(rebuild.shadow.projection);
	SPI_finish();
	PG_RETURN_VOID();
}

/*
 * Clear away what rebuilds left whose process died.  In the current
 * transaction, which the caller commits.
 */
void
EsRebuildClearLeftovers(void)
{
	uint64		n;
	char	  **schemas;

	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();
	EsQueryRun("DELETE FROM @es_job j WHERE NOT EXISTS (SELECT FROM pg_stat_get_activity(NULL) a"
			   " WHERE a.pid = j.pid AND a.backend_start = j.backend_start)", NULL);
	n = EsQueryRun("SELECT nspname FROM pg_namespace WHERE nspname ~ '^es_shadow_[0-9a-f]{16}$'",
				   NULL);
	schemas = palloc(Max(n, 1) * sizeof(char *));
	for (uint64 i = 0; i < n; i++)
		schemas[i] = EsQueryText(i, 1);
	for (uint64 i = 0; i < n; i++)
	{
		if (!lock_schema(schemas[i]))
			continue;
		EsShadowDrop(schemas[i]);
		unlock_schema(schemas[i]);
	}
	SPI_finish();
	PopActiveSnapshot();
}

/* ----- as it was ----- */

/* Up to which position? */
static int64
position_argument(FunctionCallInfo fcinfo)
{
	if (!PG_ARGISNULL(1) && !PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("give either a time or a position, not both")));
	if (!PG_ARGISNULL(1))
		return DatumGetInt64(DirectFunctionCall1(es_position_at, PG_GETARG_DATUM(1)));
	if (!PG_ARGISNULL(2))
		return PG_GETARG_INT64(2);
	return PG_INT64_MAX - 1;
}

/* Empty temporary tables of the read tables' names, for the owner to fill. */
static void
create_temp_tables(const EsShadow *shadow)
{
	EsProjection *projection = shadow->projection;

	for (int i = 0; i < projection->ntables; i++)
	{
		char	   *name = EsTableName(projection->tables[i]);
		char	   *notices = GetConfigOptionByName("client_min_messages", NULL, false);

		(void) set_config_option("client_min_messages", "warning", PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
		EsExecute(psprintf("DROP TABLE IF EXISTS pg_temp.%s", name));
		(void) set_config_option("client_min_messages", notices, PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
		EsExecute(psprintf("CREATE TEMPORARY TABLE %s (LIKE %s INCLUDING ALL)",
						   name, projection->tables[i]));
		EsExecute(psprintf("GRANT ALL ON pg_temp.%s TO %s", name,
						   quote_identifier(projection->owner)));
	}
}

/* Run the handlers up to a position; answers the last one reached. */
static int64
project_up_to(EsShadow *shadow, int64 up_to)
{
	Relation	event = table_open(EsStoreGet()->event, AccessShareLock);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "eventstore project_at",
												  ALLOCSET_DEFAULT_SIZES);
	EsRunner	runner = {.projection = shadow->projection,.is_shadow = true,
	.name = shadow->projection->name,.context = CurrentMemoryContext};
	bool		more = true;

	EsShadowCompile(shadow, event);
	while (more)
	{
		MemoryContext saved = MemoryContextSwitchTo(context);

		runner.status = ES_PROJECTION_LIVE;
		runner.batch = EsBatchRead(runner.projection, event, runner.position, up_to,
								   shadow_batch_size(runner.projection));
		EsRunnerRun(&runner);
		if (runner.status == ES_PROJECTION_STOPPED)
			ReThrowError(runner.failure.error);
		more = !runner.batch->is_last;
		EsBatchFree(runner.batch);
		MemoryContextSwitchTo(saved);
		MemoryContextReset(context);
	}
	table_close(event, AccessShareLock);
	return runner.position;
}

/* A standby has no temporary tables, either. */
static void
check_may_make_tables(void)
{
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot execute %s in a read-only transaction", "es_project_at()"),
				 errdetail("It makes temporary tables, which a standby cannot."),
				 errhint("Connect to the primary. For the state of one stream at any time, es_state() and es_history() work here, too.")));
	EsRequireReadWrite("es_project_at()");
}

/*
 * es_project_at(projection text, at timestamptz, position bigint) → bigint
 */
Datum
es_project_at(PG_FUNCTION_ARGS)
{
	int64		up_to;
	EsShadow	shadow;
	volatile int64 reached = 0;

	check_may_make_tables();
	up_to = position_argument(fcinfo);
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", "projection")));
	SPI_connect();
	EsShadowLoad(&shadow, CurrentMemoryContext,
				 text_to_cstring(PG_GETARG_TEXT_PP(0)), "pg_temp");
	EsProjectionCheckOwner(shadow.projection->name, shadow.projection->owner);
	create_temp_tables(&shadow);
	EsInlineForbidAppends(true);
	PG_TRY();
	{
		reached = project_up_to(&shadow, up_to);
	}
	PG_FINALLY();
	{
		EsInlineForbidAppends(false);
	}
	PG_END_TRY();
	EsProjectionFree(shadow.projection);
	SPI_finish();
	PG_RETURN_INT64(reached);
}
