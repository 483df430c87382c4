/*
 * stat.h: what the store counts, what long work shows of itself, and reading
 * a part of the log in place of the whole.
 */
#ifndef ES_STAT_H
#define ES_STAT_H

#include "postgres.h"

#include "executor/tuptable.h"
#include "utils/rel.h"
#include "utils/snapshot.h"

#include "catalog.h"

/* What is counted, whether or not its transaction commits. */
typedef enum EsCounter
{
	ES_COUNT_EVENTS,			/* events that were given a place */
	ES_COUNT_CONFLICTS,			/* appends refused: stream or boundary moved */
	ES_COUNT_REJECTED,			/* commands that a decider rejected */
	ES_COUNT_RETRIES			/* appends and commands that were repetitions */
} EsCounter;

extern void EsStatCount(EsCounter counter, int n);

/* What a stretch of the log was estimated from. */
typedef struct EsSample
{
	int64		positions;		/* in the stretch */
	int64		looked_at;		/* of them; all, if the sample is the whole */
	int64		events;			/* that were there */
} EsSample;

/* Each event of a sample stands for this many. */
static inline double
EsSampleWeight(const EsSample *sample)
{
	return sample->looked_at == 0 ? 1.0 :
		(double) sample->positions / sample->looked_at;
}

static inline bool
EsSampleIsWhole(const EsSample *sample)
{
	return sample->looked_at == sample->positions;
}

typedef void (*EsSampleVisitor) (TupleTableSlot *slot, void *arg);

extern EsSample EsSampleLog(Relation event, Snapshot snapshot, int64 from,
							int64 to, int64 budget, EsSampleVisitor visit,
							void *arg);
extern int64 EsLogOffline(Snapshot snapshot, int64 *events);
extern bool EsLogEnds(Relation event, Snapshot snapshot, int64 behind,
					  int64 *first, int64 *last);
extern int64 EsEventSize(TupleTableSlot *slot);

/* Long work, as es_progress shows it. */
typedef enum EsJob
{
	ES_JOB_RUN,					/* a batch of a projection */
	ES_JOB_CHECK,				/* es_check() */
	ES_JOB_ARCHIVE				/* es_archive() */
} EsJob;

extern void EsProgressBegin(EsJob job, const char *name);
extern void EsProgressPhase(const char *phase, int64 total);
extern void EsProgressUpdate(int64 done);
extern void EsProgressEnd(void);

#endif							/* ES_STAT_H */
