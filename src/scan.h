/*
 * scan.h: events wherever they are, in es_event or in the archive.
 */
#ifndef ES_SCAN_H
#define ES_SCAN_H

#include "postgres.h"

#include "access/sdir.h"
#include "executor/tuptable.h"
#include "utils/rel.h"
#include "utils/snapshot.h"
#include "utils/uuid.h"

#include "catalog.h"

/* A walk along events; see EsScanPositions. */
typedef struct EsScan EsScan;

extern EsScan *EsScanPositions(Relation event, Snapshot snapshot, int64 first,
							   int64 last, ScanDirection direction);
extern EsScan *EsScanStream(Relation event, Snapshot snapshot,
							text *stream_id, int64 first, int64 last,
							ScanDirection direction);
extern TupleTableSlot *EsScanNext(EsScan *scan);
extern void EsScanEnd(EsScan *scan);

extern bool EsScanFindId(Relation event, Relation id_key, const pg_uuid_t *id,
						 TupleTableSlot *slot);
extern bool EsScanIsArchived(const TupleTableSlot *slot);
extern bool EsScanIsOwn(TupleTableSlot *slot);
extern bool EsScanIsSeen(Relation event, TupleTableSlot *slot, Snapshot snapshot);

#endif							/* ES_SCAN_H */
