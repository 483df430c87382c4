/*
 * runner.h: let projections catch up, batch by batch.
 */
#ifndef ES_RUNNER_H
#define ES_RUNNER_H

#include "postgres.h"

#include "nodes/pg_list.h"

/* How a try to run a batch went. */
typedef enum EsRunResult
{
	ES_RUN_IDLE,				/* nothing to do, or another runner does it */
	ES_RUN_END,					/* ran; that was all for now */
	ES_RUN_MORE					/* ran; there is more */
} EsRunResult;

extern void EsRunnerInit(void);
extern void EsRunnerBeginTransaction(void);
extern List *EsRunnerProjections(void);
extern EsRunResult EsRunnerBatch(const char *name);
extern int64 EsRunnerSettle(void);
extern int	EsBatchSize(void);

#endif							/* ES_RUNNER_H */
