/*
 * point.c: places where a test can stop a backend (see point.h).
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/guc.h"

#include "point.h"

#ifdef ES_POINTS

static char *point = NULL;

void
EsPointInit(void)
{
	DefineCustomStringVariable("eventstore.point",
							   "Place at which this session waits, for tests.",
							   NULL, &point, "", PGC_USERSET, 0,
							   NULL, NULL, NULL);
}

/* Wait for whoever holds pg_advisory_lock(ES_POINT_KEY), if this is the place. */
void
EsPoint(const char *name)
{
	LOCKTAG		tag;

	if (point == NULL || strcmp(point, name) != 0)
		return;
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, ES_POINT_KEY, 1);
	(void) LockAcquire(&tag, ShareLock, true, false);
	LockRelease(&tag, ShareLock, true);
}

#endif							/* ES_POINTS */
