/*
 * snapshot.h: states kept to shorten the fold.
 */
#ifndef ES_SNAPSHOT_H
#define ES_SNAPSHOT_H

#include "postgres.h"

#include "fold.h"

extern pg_uuid_t EsSnapshotDefinition(const EsFold *fold);
extern void EsSnapshotFold(EsFold *fold);
extern bool EsSnapshotIsDue(const EsFold *fold, int64 version);
extern bool EsSnapshotEnd(EsFold *fold, bool wanted);
extern int64 EsSnapshotTake(Relation event, const char *aggregate,
							text *stream_id, bool only_if_due);
extern int64 EsSnapshotTakeDue(Relation event, int64 max_events, bool *more);

#endif							/* ES_SNAPSHOT_H */
