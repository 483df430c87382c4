/*
 * point.c: places where a test can stop a backend (see point.h).
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/guc.h"

#include "point.h"

#ifdef ES_POINTS

#define ES_MAX_POINTS 4			/* that one session can list */

static char *points = NULL;
static int	visits[ES_MAX_POINTS];	/* of the listed points, since the SET */

static void
forget_visits(const char *newval, void *extra)
{
	memset(visits, 0, sizeof(visits));
}

void
EsPointInit(void)
{
	DefineCustomStringVariable("eventstore.point",
							   "Places at which this session waits, for tests.",
							   "A list such as \"before-draw:2,after-draw\".",
							   &points, "", PGC_USERSET, 0,
							   NULL, forget_visits, NULL);
}

/* Wait for whoever holds pg_advisory_lock(key). */
static void
wait_for_advisory_lock(uint32 key)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, key, 1);
	(void) LockAcquire(&tag, ShareLock, true, false);
	LockRelease(&tag, ShareLock, true);
}

/* The backend is at the named place: wait if the session lists it. */
void
EsPoint(const char *name)
{
	const char *item = points;
	size_t		len = strlen(name);

	for (int i = 0; i < ES_MAX_POINTS && item != NULL && *item != '\0'; i++)
	{
		if (strncmp(item, name, len) == 0 && strchr(":,", item[len]) != NULL)
		{
			visits[i]++;
			if (item[len] != ':' || atoi(item + len + 1) == visits[i])
				wait_for_advisory_lock(ES_POINT_KEY + i);
		}
		item = strchr(item, ',');
		if (item != NULL)
			item++;
	}
}

#endif							/* ES_POINTS */
