/*
 * check.c: es_check(), the store's doctor.
 *
 * It asks one room after the other, those that are quick first, and collects
 * what they report.  A caller with little time says so; the checks that go
 * through the events then end where they are and say that they did.
 *
 * To have something checked, write a function of an EsCheck and put it into
 * the list below.
 */
#include "postgres.h"

#include "access/table.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "check.h"
#include "log.h"
#include "stat.h"

#define CLOCK_STEPS 256			/* look at the clock every so many rows */

static void (*const checks[]) (EsCheck *) = {
	EsCheckSchema,
	EsCheckHealth,
	EsCheckEvents,
	EsCheckIndexes
};

PG_FUNCTION_INFO_V1(es_check);

/*
 * Report one result.  The hint says what to do and is left out where there is
 * nothing to be done.
 */
void
EsCheckPut(EsCheck *check, const char *name, EsCheckStatus status,
		   const char *hint, const char *format,...)
{
	static const char *const words[] = {"ok", "warning", "error"};
	Datum		values[4];
	bool		nulls[4] = {false};
	char		detail[2048];
	va_list		args;

	va_start(args, format);
	vsnprintf(detail, sizeof(detail), format, args);
	va_end(args);
	detail[pg_mbcliplen(detail, strlen(detail), sizeof(detail) - 1)] = '\0';
	values[0] = CStringGetTextDatum(name);
	values[1] = CStringGetTextDatum(words[status]);
	values[2] = CStringGetTextDatum(detail);
	nulls[3] = status == ES_CHECK_OK || hint == NULL;
	values[3] = nulls[3] ? (Datum) 0 : CStringGetTextDatum(hint);
	tuplestore_putvalues(check->rows, check->desc, values, nulls);
}

/* Report that a check had no time to end, and how far it came. */
void
EsCheckUnfinished(EsCheck *check, const char *name, int64 done, const char *what)
{
	EsCheckPut(check, name, ES_CHECK_WARNING, "Give es_check() more time.",
			   "not finished: nothing wrong in " INT64_FORMAT " %s", done, what);
}

/* Begin a phase of about as many steps as there are positions. */
void
EsCheckPhase(EsCheck *check, const char *phase)
{
	check->steps = 0;
	EsProgressPhase(phase, EsLastDrawn(check->store, NULL));
}

/* Before each step of a phase: is there time for it? */
bool
EsCheckGoOn(EsCheck *check)
{
	CHECK_FOR_INTERRUPTS();
	if (check->late)
		return false;
	if (check->steps++ % CLOCK_STEPS != 0)
		return true;
	EsProgressUpdate(check->steps);
	check->late = GetCurrentTimestamp() >= check->deadline;
	return !check->late;
}

/* When the caller's time is up; 22023 for less than none. */
static TimestampTz
deadline_argument(FunctionCallInfo fcinfo, int n)
{
	Interval	zero = {0};

	if (PG_ARGISNULL(n))
		return DT_NOEND;
	if (DatumGetBool(DirectFunctionCall2(interval_lt, PG_GETARG_DATUM(n),
										 IntervalPGetDatum(&zero))))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must not be negative", "max_time"),
				 errhint("Use NULL for no limit.")));
	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
												   TimestampTzGetDatum(GetCurrentTimestamp()),
												   PG_GETARG_DATUM(n)));
}

/*
 * es_check(max_time interval)
 *		→ SETOF (check_name text, status text, detail text, hint text)
 */
Datum
es_check(PG_FUNCTION_ARGS)
{
	EsCheck		check = {0};

	check.deadline = deadline_argument(fcinfo, 0);
	check.event = EsEventOpen(&check.store, AccessShareLock);
	EsCheckPrivilege(check.event, ACL_SELECT);
	InitMaterializedSRF(fcinfo, 0);
	check.rows = ((ReturnSetInfo *) fcinfo->resultinfo)->setResult;
	check.desc = ((ReturnSetInfo *) fcinfo->resultinfo)->setDesc;
	check.snapshot = GetActiveSnapshot();

	EsProgressBegin(ES_JOB_CHECK, "");
	for (size_t i = 0; i < lengthof(checks); i++)
		checks[i] (&check);
	EsProgressEnd();
	table_close(check.event, AccessShareLock);
	return (Datum) 0;
}
