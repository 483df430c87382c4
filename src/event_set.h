/*
 * event_set.h: events that are appended together, to any streams.
 */
#ifndef ES_EVENT_SET_H
#define ES_EVENT_SET_H

#include "postgres.h"

#include "append.h"
#include "stream.h"

/* Events to append together, in this order. */
typedef struct EsEventSet
{
	EsNewEvent *events;
	text	  **stream_ids;		/* of each event */
	bool	   *own_stream;		/* of each: named after an id made here */
	int			nevents;
	EsAppend   *runs;			/* neighbours of one stream together */
	int			nruns;
} EsEventSet;

extern EsEventSet *EsEventSetCreate(EsNewEvent *events, int nevents);
extern void EsEventSetPlace(EsEventSet *set, int n, text *stream_id);
extern void EsEventSetCut(EsEventSet *set);
extern void EsEventSetApplyTypes(EsEventSet *set);
extern EsLockKey *EsEventSetKeys(const EsEventSet *set, int room, int *nkeys);
extern bool EsEventSetIsRetry(Relation event, const EsStore *store,
							  EsEventSet *set);
extern int64 EsEventSetAppend(EsEventSet *set);

#endif							/* ES_EVENT_SET_H */
