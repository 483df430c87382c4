/*
 * epoch.h: which history a position belongs to.
 */
#ifndef ES_EPOCH_H
#define ES_EPOCH_H

#include "postgres.h"

#include "fmgr.h"
#include "utils/rel.h"

#include "catalog.h"
#include "compat.h"

extern Datum es_settle(PG_FUNCTION_ARGS);
extern void EsEpochConfirm(Relation event, const EsStore *store);
extern int64 EsEpochFork(Relation event, const EsStore *store, int64 epoch);
extern void EsEpochCheck(Relation event, const EsStore *store, int64 epoch,
						 int64 position);
extern int64 EsEpochPresent(Relation event, const EsStore *store);
extern void EsEpochRequire(Relation event, const EsStore *store, int64 epoch);
pg_noreturn extern void EsEpochReportLeft(const char *what, int64 epoch,
										  int64 fork);

#endif							/* ES_EPOCH_H */
