/*
 * wait.c: wait until a projection has come far enough.
 *
 * The checkpoint is an ordinary row; whoever waits looks at it with the
 * newest snapshot, soon at first and then every few milliseconds.  A look is
 * one scan of a table with a handful of rows.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "append.h"
#include "compat.h"
#include "log.h"
#include "point.h"
#include "projection.h"

#define FIRST_NAP 1				/* ms */
#define LONGEST_NAP 10

PG_FUNCTION_INFO_V1(es_wait_for);

/* Microseconds of the timeout argument; 22023 when negative. */
static int64
timeout_argument(FunctionCallInfo fcinfo, int n)
{
	Interval   *interval;
	int64		usecs;

	if (PG_ARGISNULL(n))
		return PG_INT64_MAX;
	interval = PG_GETARG_INTERVAL_P(n);
	usecs = interval->time +
		(interval->day + (int64) interval->month * DAYS_PER_MONTH) * USECS_PER_DAY;
	if (usecs < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must not be negative", "timeout")));
	return usecs;
}

/*
 * Up to where all that an inline projection did is to be seen by now.  A
 * standby has its sequence ahead of its events, and none of the primary's
 * locks: there it is what was written down, and what follows without a hole.
 */
static int64
settled_here(void)
{
	const EsStore *store;
	Relation	event = EsEventOpen(&store, AccessShareLock);
	int64		settled;

	if (EsFollowsOrigin(store) && ES_BUG != 133)
	{
		PushActiveSnapshot(GetLatestSnapshot());
		settled = EsSettledByHoles(event, store, GetActiveSnapshot());
		PopActiveSnapshot();
	}
	else
		settled = EsSettledNow(store, NULL);
	table_close(event, AccessShareLock);
	return settled;
}

/* Has the projection passed the position?  55000 if it never will. */
static bool
has_passed(const char *name, int64 position)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "eventstore wait",
												  ALLOCSET_SMALL_SIZES);
	EsProjection *projection = EsProjectionLoad(context, name);
	bool		passed = projection->position >= position;

	if (!passed && projection->is_inline &&
		projection->status == ES_PROJECTION_LIVE)
		passed = settled_here() >= position;
	if (!passed && (projection->status == ES_PROJECTION_PAUSED ||
					projection->status == ES_PROJECTION_STOPPED))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("projection \"%s\" is %s at position " INT64_FORMAT, name,
						projection->status == ES_PROJECTION_PAUSED ? "paused" : "stopped",
						projection->position),
				 errhint("See es_stat_projection, then call es_resume_projection().")));
	MemoryContextDelete(context);
	return passed;
}

/* Sleep unless interrupted. */
static void
nap(int64 msecs)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 msecs, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

static bool
wait_for(const char *name, int64 position, int64 timeout)
{
	TimestampTz began = GetCurrentTimestamp();
	int64		msecs = FIRST_NAP;

	while (!has_passed(name, position))
	{
		int64		left = timeout - (GetCurrentTimestamp() - began);

		if (left <= 0)
			return false;
		nap(Min(msecs, left / 1000 + 1));
		msecs = Min(msecs * 2, LONGEST_NAP);
	}
	return true;
}

/*
 * es_wait_for(projection text, position bigint, timeout interval) → boolean
 */
Datum
es_wait_for(PG_FUNCTION_ARGS)
{
	int64		position = PG_ARGISNULL(1) ? EsLastPosition() : PG_GETARG_INT64(1);
	char	   *name;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", "projection")));
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (EsAnnouncedLxid() == EsCurrentLxid() && !has_passed(name, position) &&
		position > EsAnnouncedBound())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot wait for events of this transaction"),
				 errdetail("They are projected after it commits."),
				 errhint("Call es_wait_for() in a transaction of its own.")));
	PG_RETURN_BOOL(wait_for(name, position, timeout_argument(fcinfo, 2)));
}
