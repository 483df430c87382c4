/*
 * wake.h: tell the database's worker that there is something to do.
 */
#ifndef ES_WAKE_H
#define ES_WAKE_H

#include "postgres.h"

#include "storage/lock.h"

extern void EsWakeInit(void);
extern void EsWakeAtCommit(void);
extern void EsWakeStarter(bool (*start) (void));
extern void EsWorkerLockTag(LOCKTAG *tag, Oid database);
extern int	EsWorkerPid(Oid database);

#endif							/* ES_WAKE_H */
