/*
 * worker.h: background processes.
 */
#ifndef ES_WORKER_H
#define ES_WORKER_H

#include "postgres.h"

extern void EsWorkerInit(void);
extern bool EsWorkerRequest(void);
extern PGDLLEXPORT void EsLauncherMain(Datum arg);
extern PGDLLEXPORT void EsWorkerMain(Datum arg);

#endif							/* ES_WORKER_H */
