/*
 * boundary.h: the events that match a query, and that no others come.
 */
#ifndef ES_BOUNDARY_H
#define ES_BOUNDARY_H

#include "postgres.h"

#include "executor/tuptable.h"
#include "utils/rel.h"

#include "catalog.h"
#include "match.h"
#include "stream.h"

/* What must not be there. */
typedef struct EsCondition
{
	EsBoundary *query;			/* NULL: no condition */
	bool		has_after;
	int64		after;			/* 0 without */
	bool		has_epoch;
	int64		epoch;			/* in which after was told */
} EsCondition;

/* The event that is there all the same. */
typedef struct EsConflict
{
	int64		position;		/* 0: none */
	text	   *event_type;
	Datum		tags;
	bool		has_tags;
	int			item;			/* of the query, from 1 */
	bool		own;			/* appended by this transaction */
	bool		unseen;			/* known by "after", but not to the snapshot */
} EsConflict;

/* Which of them to read. */
typedef struct EsBoundaryRange
{
	int64		first;			/* positions, both inclusive */
	int64		last;
	int64		max_count;
	bool		backwards;		/* from the last one on */
	bool		raw;			/* as they are stored */
	bool		runs_code;		/* what is done with them may be code of users */
} EsBoundaryRange;

#define ES_BOUNDARY_ALL {1, PG_INT64_MAX, PG_INT64_MAX, false, false, false}

/* What to do with each event that is read. */
typedef void (*EsEventSink) (TupleTableSlot *slot, void *arg);

extern int	EsBoundaryAddKeys(const EsBoundary *query, EsLockKey *keys);
extern void EsBoundaryCheckSnapshot(Relation event, const EsStore *store,
									EsBoundary *query);
extern void EsBoundaryCheckSame(Relation event, const EsStore *store,
								EsBoundary *query, int64 after);
extern EsConflict EsBoundaryConflict(Relation event, const EsStore *store,
									 const EsCondition *condition);
extern int64 EsBoundaryRead(Relation event, const EsStore *store,
							const EsBoundary *query,
							const EsBoundaryRange *range,
							EsEventSink sink, void *arg);

#endif							/* ES_BOUNDARY_H */
