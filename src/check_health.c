/*
 * check_health.c: is the store looked after?
 *
 * Nothing here is wrong with the events; it is what an operator wants to know
 * before users call.  Asked in the name of the extension's owner, who sees
 * everybody's transactions.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pgstat.h"

#include "check.h"
#include "log.h"
#include "query.h"

#define LAG_WARNING 60			/* seconds that a projection may be behind */
#define HOLD_WARNING 60			/* seconds that a transaction may hold readers back */
#define HOLD_ERROR 3600
#define SHOWN 20				/* projections in trouble that are named */

/* ----- projections ----- */

static void
put_stopped(EsCheck *check, int row)
{
	EsCheckPut(check, "projections", ES_CHECK_ERROR,
			   "Correct its handler or its tables, then call es_resume_projection().",
			   "projection \"%s\" stopped at position %s: %s", EsQueryText(row, 1),
			   EsQueryText(row, 4), EsQueryText(row, 5));
}

static void
put_late(EsCheck *check, int row)
{
	EsCheckPut(check, "projections", ES_CHECK_WARNING,
			   "Start a worker with es_start_worker(), or CALL es_run_projections().",
			   "projection \"%s\" is %s, " INT64_FORMAT " positions and %s s behind",
			   EsQueryText(row, 1), EsQueryText(row, 2), EsQueryInt64(row, 3),
			   EsQueryText(row, 6));
}

/* Name the projections that have stopped, lag, or are ahead of the log. */
static void
check_projections(EsCheck *check)
{
	EsQuery		query = {0};
	uint64		n;

	EsQueryAddInt64(&query, LAG_WARNING);
	EsQueryAddInt64(&query, EsLastDrawn(check->store, NULL));
	EsQueryAddInt64(&query, SHOWN);
	n = EsQueryRun("SELECT s.name, s.status, s.lag_events, coalesce(s.error_position, s.position),"
				   " coalesce(s.last_error, 'no reason is recorded'), round(s.lag_seconds)::bigint,"
				   " s.position > $2 AS ahead, s.position"
				   " FROM @es_stat_projection s"
				   " WHERE s.status = 'stopped' OR s.position > $2"
				   " OR s.status <> 'paused' AND s.lag_seconds > $1"
				   " ORDER BY s.status <> 'stopped', s.lag_seconds DESC, s.name LIMIT $3", &query);
	for (uint64 i = 0; i < n; i++)
	{
		if (EsQueryText(i, 7)[0] == 't')
			EsCheckPut(check, "projections", ES_CHECK_ERROR,
					   "Rebuild it with es_rebuild_projection().",
					   "projection \"%s\" is at position " INT64_FORMAT ", which no event has had yet",
					   EsQueryText(i, 1), EsQueryInt64(i, 8));
		else if (strcmp(EsQueryText(i, 2), "stopped") == 0)
			put_stopped(check, i);
		else
			put_late(check, i);
	}
	if (n > 0)
		return;
	EsQueryRun("SELECT count(*), count(*) FILTER (WHERE status = 'paused') FROM @es_projection", NULL);
	EsCheckPut(check, "projections", ES_CHECK_OK, NULL,
			   INT64_FORMAT " defined, " INT64_FORMAT " paused, none late",
			   EsQueryInt64(0, 1), EsQueryInt64(0, 2));
}

static void
check_parked(EsCheck *check)
{
	EsQuery		query = {0};
	uint64		n;

	EsQueryAddInt64(&query, SHOWN);
	n = EsQueryRun("SELECT k.projection, count(*), min(k.position) FROM @es_parked k"
				   " GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT $1", &query);
	for (uint64 i = 0; i < n; i++)
		EsCheckPut(check, "parked events", ES_CHECK_WARNING,
				   "See es_parked; correct the cause, then call es_replay_parked().",
				   INT64_FORMAT " of projection \"%s\", the first at position " INT64_FORMAT,
				   EsQueryInt64(i, 2), EsQueryText(i, 1), EsQueryInt64(i, 3));
	if (n == 0)
		EsCheckPut(check, "parked events", ES_CHECK_OK, NULL, "none");
}

/* ----- the settled position ----- */

/* Who holds readers back, the session or the prepared transaction. */
static void
put_holder(EsCheck *check)
{
	int64		seconds = EsQueryInt64(0, 4);
	bool		prepared = EsQueryText(0, 2) != NULL;

	EsCheckPut(check, "settled position",
			   seconds >= HOLD_ERROR ? ES_CHECK_ERROR :
			   seconds >= HOLD_WARNING ? ES_CHECK_WARNING : ES_CHECK_OK,
			   prepared ? "COMMIT PREPARED or ROLLBACK PREPARED it." :
			   "Let its session commit, or end it with pg_terminate_backend().",
			   "held at " INT64_FORMAT " by %s %s for " INT64_FORMAT " s; last drawn " INT64_FORMAT,
			   EsQueryInt64(0, 3), prepared ? "prepared transaction" : "process",
			   EsQueryText(0, prepared ? 2 : 1), seconds,
			   EsLastDrawn(check->store, NULL));
}

/* The position written down for standbys and replicas must be one reached. */
static bool
written_position_is_sound(EsCheck *check)
{
	int64		written = EsSettledRead(check->snapshot);
	int64		drawn = EsLastDrawn(check->store, NULL);

	if (written <= drawn)
		return true;
	EsCheckPut(check, "settled position", ES_CHECK_ERROR,
			   "Move the sequence es_event_position_seq to where it was, or further.",
			   "es_settled says " INT64_FORMAT ", but no more than " INT64_FORMAT " was ever drawn",
			   written, drawn);
	return false;
}

static void
check_settled(EsCheck *check)
{
	if (EsFollowsOrigin(check->store))
		EsCheckPut(check, "settled position", ES_CHECK_OK, NULL,
				   "follows another server, whose events are settled up to " INT64_FORMAT,
				   EsSettledRead(check->snapshot));
	else if (!written_position_is_sound(check))
		return;
	else if (EsQueryRun("SELECT h.pid, h.gid, h.position, h.age_seconds::bigint"
						" FROM @es_settled_holder() h", NULL) > 0)
		put_holder(check);
	else
		EsCheckPut(check, "settled position", ES_CHECK_OK, NULL,
				   INT64_FORMAT ", held back by nobody", EsSettledNow(check->store, NULL));
}

/* ----- the server ----- */

/* How near to wraparound are the store's tables and their TOAST tables? */
static void
check_wraparound(EsCheck *check)
{
	int64		age;
	int64		warning;
	int64		error;

	EsQueryRun("SELECT c.oid::regclass::text, greatest(age(c.relfrozenxid), mxid_age(c.relminmxid))::bigint,"
			   " current_setting('autovacuum_freeze_max_age')::bigint,"
			   " current_setting('vacuum_failsafe_age')::bigint"
			   " FROM pg_class c"
			   " JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.deptype = 'e'"
			   " AND d.refclassid = 'pg_extension'::regclass"
			   " JOIN pg_extension x ON x.oid = d.refobjid AND x.extname = 'eventstore'"
			   " JOIN pg_class t ON t.oid = d.objid AND c.oid IN (t.oid, t.reltoastrelid)"
			   " WHERE c.relkind IN ('r', 't', 'm') ORDER BY 2 DESC, 1 LIMIT 1", NULL);
	age = EsQueryInt64(0, 2);
	warning = EsQueryInt64(0, 3);
	error = EsQueryInt64(0, 4);
	if (age <= warning)
		EsCheckPut(check, "wraparound", ES_CHECK_OK, NULL,
				   "all tables are younger than autovacuum_freeze_max_age");
	else
		EsCheckPut(check, "wraparound", age >= error ? ES_CHECK_ERROR : ES_CHECK_WARNING,
				   "VACUUM (FREEZE) the table, and see what keeps autovacuum from it.",
				   "\"%s\" is " INT64_FORMAT " transactions old; autovacuum_freeze_max_age is " INT64_FORMAT,
				   EsQueryText(0, 1), age, warning);
}

static void
check_statistics(EsCheck *check)
{
	EsCheckPut(check, "statistics", pgstat_track_counts ? ES_CHECK_OK : ES_CHECK_WARNING,
			   "Set track_counts to on.",
			   pgstat_track_counts ? "counted" : "track_counts is off: the counters of es_stat_store stand still");
}

void
EsCheckHealth(EsCheck *check)
{
	SPI_connect();
	check_projections(check);
	check_parked(check);
	check_settled(check);
	check_wraparound(check);
	check_statistics(check);
	SPI_finish();
}
