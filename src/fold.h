/*
 * fold.h: run events through an aggregate.
 */
#ifndef ES_FOLD_H
#define ES_FOLD_H

#include "postgres.h"

#include "executor/tuptable.h"
#include "utils/jsonb.h"
#include "utils/rel.h"
#include "utils/snapshot.h"

#include "aggregate.h"
#include "scan.h"
#include "stream.h"
#include "upcast.h"

/* How far to fold. */
typedef struct EsFoldLimit
{
	int64		version;		/* last version wanted; PG_INT64_MAX: all */
	TimestampTz at;				/* last time wanted; DT_NOEND: any */
} EsFoldLimit;

/* A fold of one stream, or of a boundary. */
typedef struct EsFold
{
	EsAggregate *aggregate;		/* holds the state */
	Relation	event;			/* es_event, opened by the caller */
	text	   *stream_id;		/* NULL, and most of the rest unused: a boundary */
	Snapshot	snapshot;		/* which events count */
	EsFoldLimit limit;
	int64		first;			/* version it begins with; 0: not looked up yet */
	int64		version;		/* of the last event folded; 0 before the first */
	TimestampTz recorded_at;	/* of that event */
	pg_uuid_t	event_id;		/* of that event */
	int64		base;			/* version it began at: a snapshot's, or the last
								 * one not shown */
	TimestampTz since;			/* when that was taken, or the first event's time */
	EsScan	   *scan;			/* NULL: not scanning */
	TupleTableSlot *slot;		/* the current event */
	bool		show_all;		/* the caller shows every event */
	TupleTableSlot *shown;		/* the same in its newest form, if it matters */
	EsUpcast   *upcast;			/* NULL: nothing to do */
	EsRights	rights;			/* what to go back to */
} EsFold;

extern bool EsFoldConcerns(const EsAggregate *aggregate, const text *event_type);
extern void EsFoldForget(EsAggregate *aggregate);
extern void EsFoldBegin(EsFold *fold, EsAggregate *aggregate, Relation event,
						text *stream_id, Snapshot snapshot);
extern void EsFoldBeginBoundary(EsFold *fold, EsAggregate *aggregate,
								Relation event, Jsonb *command);
extern void EsFoldReset(EsFold *fold);
extern void EsFoldFindFirst(EsFold *fold);
extern void EsFoldSetState(EsAggregate *aggregate, Datum state, bool isnull);
extern void EsFoldScan(EsFold *fold, int64 from_version);
extern bool EsFoldFetch(EsFold *fold);
extern bool EsFoldFetchBase(EsFold *fold);
extern void EsFoldApply(EsAggregate *aggregate, TupleTableSlot *slot);
extern void EsFoldNote(EsFold *fold);
extern bool EsFoldNext(EsFold *fold);
extern void EsFoldScanEnd(EsFold *fold);
extern void EsFoldEnd(EsFold *fold);
extern void EsFoldResume(EsFold *fold);
extern void EsFoldWholeState(EsAggregate *aggregate);
extern Jsonb *EsFoldStateJsonb(EsAggregate *aggregate);

#endif							/* ES_FOLD_H */
