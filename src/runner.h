/*
 * runner.h: let projections catch up, batch by batch.
 */
#ifndef ES_RUNNER_H
#define ES_RUNNER_H

#include "postgres.h"

#include "fmgr.h"
#include "nodes/pg_list.h"
#include "utils/hsearch.h"

#include "batch.h"
#include "projection.h"

/* A projection's batches at work. */
typedef struct EsRunner
{
	MemoryContext context;		/* of what outlives a batch's error */
	const char *name;
	EsProjection *projection;
	bool		is_shadow;		/* computes the read model anew, elsewhere */
	const char *parked;			/* table that gets parked events; NULL: none */
	HTAB	   *parked_streams; /* whose events wait; NULL: none */
	EsBatch    *batch;
	EsProjectionStatus status;	/* what it is to be afterwards */
	int64		position;		/* the checkpoint as it is to be */
	int64		ran;			/* events that handlers ran for */
	EsFailure	failure;		/* of the event that stopped or was parked last */
} EsRunner;

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
extern void EsRunnerRun(EsRunner *runner);
extern bool EsRunnerSnapshots(void);
extern int64 EsRunnerSettle(void);
extern void EsRequireNonatomic(FunctionCallInfo fcinfo, const char *name);
extern int	EsBatchSize(void);

#endif							/* ES_RUNNER_H */
