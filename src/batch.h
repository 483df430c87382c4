/*
 * batch.h: a stretch of the log for one projection.
 */
#ifndef ES_BATCH_H
#define ES_BATCH_H

#include "projection.h"

typedef struct EsBatch
{
	EsProjection *projection;
	Relation	event;			/* es_event, open */
	int64		from;			/* the last position before it */
	int64		to;				/* its last position */
	bool		is_last;		/* nothing more is settled behind it */
	int64		nevents;		/* events that the projection wants */
	Tuplestorestate *events;	/* those */
	TupleTableSlot *slot;		/* to read them with */
} EsBatch;

/* Why a handler failed, and at which event. */
typedef struct EsFailure
{
	int64		position;		/* 0: in a handler that runs once a batch */
	int			handler;		/* its ordinal; 0: outside of handlers */
	ErrorData  *error;
} EsFailure;

extern EsBatch *EsBatchRead(EsProjection *projection, Relation event,
							int64 from, int64 up_to, int max_events);
extern bool EsBatchIsNearEnd(const EsBatch *batch);
extern bool EsBatchIsComplete(const EsBatch *batch);
extern void EsBatchAwaitStragglers(void);
extern void EsBatchFree(EsBatch *batch);
extern void EsBatchRun(EsBatch *batch);
extern bool EsBatchTry(EsBatch *batch, EsFailure *failure);
extern EsBatch *EsBatchOfOne(const EsBatch *batch, TupleTableSlot *slot);
extern void EsBatchRewind(EsBatch *batch);
extern bool EsBatchNext(EsBatch *batch);

#endif							/* ES_BATCH_H */
